/*
 * A question goes by mail to each loop of this sheep, and by a link of its own to each other sheep,
 * which asks its loops in the same way. The row of the op is not in the table of sheep/pg: each
 * sheep serves a copy of that table with the row added, and it is this row, as the request names
 * it, that leads the handler to the node.
 *
 *   query --- gather: a mail to every loop and back
 *         \-- ask, one for each other sheep that is up: outlives the query if its answer is late
 */
#include "sheep/service/figures.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "include/proto/peer.h"
#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "sheep/service/node_priv.h"

#define OPS_MAX 64u
#define PAYLOAD_MAX                                                              \
	(uint32_t)(CLUSTER_NODE_STORES_MAX * sizeof(struct peer_figures_store) + \
		   FIGURES_ROWS_MAX * sizeof(struct peer_figures_row) +          \
		   FIGURES_LOST_MAX * sizeof(struct peer_figures_lost))
/* Other sheep that do not answer in so long are left out. */
#define ASK_NS NS_PER_S

_Static_assert(PEER_OP_FIGURES < OPS_MAX, "the table has room for the row");

/* The way to another sheep. */
struct figures_link {
	uint32_t node;
	struct net_link *link;
	char address[LOG_ADDRESS_SIZE];
	UT_hash_handle hh;
};

struct figures_service {
	struct node *node;
	struct wire_protocol protocol;
	struct wire_op ops[OPS_MAX];
	struct figures_link *links; /* by node */
};

/* ---- adding up ---- */

static int row_compare(const void *a, const void *b)
{
	const struct figures_row *x = a, *y = b;

	return x->objects_missing < y->objects_missing ? 1
						       : -(x->objects_missing > y->objects_missing);
}

/* Rows that find no room count only in the sums, which are the caller's. */
static void add_row(struct figures *figures, const struct figures_row *row)
{
	if (figures->row_count < FIGURES_ROWS_MAX)
		figures->rows[figures->row_count++] = *row;
	else if (row->objects_missing > figures->rows[FIGURES_ROWS_MAX - 1].objects_missing)
		figures->rows[FIGURES_ROWS_MAX - 1] = *row;
	else
		return;
	if (figures->row_count == FIGURES_ROWS_MAX)
		qsort(figures->rows, figures->row_count, sizeof(*row), row_compare);
}

static void add(struct figures *to, const struct figures *from)
{
	to->objects_missing += from->objects_missing;
	to->bytes_missing += from->bytes_missing;
	to->objects_moved += from->objects_moved;
	to->bytes_moved += from->bytes_moved;
	for (uint32_t i = 0; i < from->row_count; i++)
		add_row(to, &from->rows[i]);
	to->objects_lost += from->objects_lost;
	to->objects_unread += from->objects_unread;
	for (uint32_t i = 0; i < from->lost_count && to->lost_count < FIGURES_LOST_MAX; i++)
		to->lost[to->lost_count++] = from->lost[i];
}

static void add_store(struct figures *figures, const struct figures_store *store)
{
	void *grown =
		realloc(figures->stores, (figures->store_count + 1) * sizeof(figures->stores[0]));

	if (!grown)
		return; /* as if it had not been told */
	figures->stores = grown;
	figures->stores[figures->store_count++] = *store;
}

static void add_unknown(struct figures *figures, uint32_t node)
{
	void *grown = realloc(figures->unknown,
			      (figures->unknown_count + 1) * sizeof(figures->unknown[0]));

	if (!grown)
		return;
	figures->unknown = grown;
	figures->unknown[figures->unknown_count++] = node;
}

void figures_done(struct figures *figures)
{
	free(figures->stores);
	free(figures->unknown);
	memset(figures, 0, sizeof(*figures));
}

const struct figures_store *figures_of_store(const struct figures *figures, uint32_t store)
{
	for (uint32_t i = 0; i < figures->store_count; i++)
		if (figures->stores[i].store == store)
			return &figures->stores[i];
	return NULL;
}

/* ---- our own loops ---- */

struct gather {
	struct node *node;
	struct worker *home; /* who asks */
	void (*done)(struct gather *gather, struct figures *figures);
	void *context;
	uint32_t pg; /* or FIGURES_NO_PG */
	unsigned left;
	struct figures figures;
	struct store_pg_info copies[CLUSTER_NODE_STORES_MAX]; /* of that PG, by our stores */
};

struct gather_mail {
	struct loop_mail mail;
	struct gather *gather;
	struct worker *worker;
	struct figures figures;
	bool has_copy[CLUSTER_NODE_STORES_MAX]; /* its home is that loop */
	struct store_pg_info copies[CLUSTER_NODE_STORES_MAX];
};

static void add_our_stores(struct gather *gather)
{
	struct node *node = gather->node;

	for (unsigned i = 0; i < node->store_count; i++) {
		struct store_space space;
		store_space(node->stores[i].store, &space);
		if (node->stores[i].id)
			add_store(&gather->figures,
				  &(struct figures_store){.store = node->stores[i].id,
							  .size_bytes = space.size_bytes,
							  .live_bytes = space.live_bytes,
							  .allocated_bytes = space.allocated_bytes,
							  .credit_bytes = space.credit_bytes});
	}
}

static void deliver_answer(struct loop *loop, struct loop_mail *loop_mail)
{
	struct gather_mail *mail = container_of_type(loop_mail, struct gather_mail, mail);
	struct gather *gather = mail->gather;

	add(&gather->figures, &mail->figures);
	for (unsigned i = 0; i < gather->node->store_count; i++)
		if (mail->has_copy[i])
			gather->copies[i] = mail->copies[i];
	free(mail);
	if (--gather->left > 0)
		return;
	add_our_stores(gather);
	qsort(gather->figures.rows, gather->figures.row_count, sizeof(gather->figures.rows[0]),
	      row_compare);
	gather->done(gather, &gather->figures);
	free(gather);
}

/* What our stores have of a PG, where its home is this loop. */
static void look_at_copies(struct gather_mail *mail, const struct worker *worker, uint32_t pg)
{
	const struct node *node = worker->node;

	for (unsigned i = 0; i < node->store_count; i++)
		if (store_loop_of(node->stores[i].store, pg) == worker->loop) {
			store_pg_info(node->stores[i].store, pg, &mail->copies[i]);
			mail->has_copy[i] = true;
		}
}

static struct store *store_by_id(const struct node *node, uint32_t id)
{
	for (unsigned i = 0; i < node->store_count; i++)
		if (node->stores[i].id == id)
			return node->stores[i].store;
	return NULL;
}

static void deliver_question(struct loop *loop, struct loop_mail *loop_mail)
{
	struct gather_mail *mail = container_of_type(loop_mail, struct gather_mail, mail);
	const struct pg_set *set = mail->worker->set;
	struct figures *figures = &mail->figures;
	struct pg_status status;
	uint32_t pg = 0, store = 0;

	figures->objects_moved = pg_set_counters(set)->objects_pushed;
	figures->bytes_moved = pg_set_counters(set)->recovery_bytes;
	while (pg_set_status(set, pg, store, &status) > 0) {
		for (uint32_t i = 0; i < status.join_count; i++) {
			const struct figures_row row = {
				.pg = status.pg,
				.store = status.joins[i].store,
				.objects_missing = status.joins[i].objects_missing,
				.bytes_missing = status.joins[i].bytes_missing,
			};
			figures->objects_missing += row.objects_missing;
			figures->bytes_missing += row.bytes_missing;
			add_row(figures, &row);
		}
		struct store *led = store_by_id(mail->worker->node, status.store);
		if (led)
			figures_look_for_lost(figures, led, &status);
		pg = status.pg;
		store = status.store + 1;
	}
	if (mail->gather->pg != FIGURES_NO_PG)
		look_at_copies(mail, mail->worker, mail->gather->pg);
	mail->mail.deliver = deliver_answer;
	loop_post(mail->gather->home->loop, &mail->mail);
}

/* -ENOMEM: nothing has begun. */
static int gather_start(struct node *node, struct worker *home, uint32_t pg,
			void (*done)(struct gather *gather, struct figures *figures), void *context)
{
	struct gather *gather = calloc(1, sizeof(*gather));
	struct gather_mail *mails[SETTINGS_LOOPS_MAX] = {0};
	bool is_whole = gather != NULL;

	for (unsigned i = 0; i < node->worker_count; i++) {
		mails[i] = calloc(1, sizeof(*mails[i]));
		is_whole = is_whole && mails[i];
	}
	if (!is_whole) {
		for (unsigned i = 0; i < node->worker_count; i++)
			free(mails[i]);
		free(gather);
		return -ENOMEM;
	}
	*gather = (struct gather){.node = node,
				  .home = home,
				  .done = done,
				  .context = context,
				  .pg = pg,
				  .left = node->worker_count};
	for (unsigned i = 0; i < node->worker_count; i++) {
		mails[i]->gather = gather;
		mails[i]->worker = &node->workers[i];
		mails[i]->mail.deliver = deliver_question;
		loop_post(node->workers[i].loop, &mails[i]->mail);
	}
	return 0;
}

/* ---- being asked ---- */

static void reply(struct gather *gather, struct figures *figures)
{
	struct net_request *request = gather->context;
	uint32_t size = figures->store_count * (uint32_t)sizeof(struct peer_figures_store) +
			figures->row_count * (uint32_t)sizeof(struct peer_figures_row) +
			figures->lost_count * (uint32_t)sizeof(struct peer_figures_lost);
	const struct peer_figures_reply body = {
		.objects_missing = to_le64(figures->objects_missing),
		.bytes_missing = to_le64(figures->bytes_missing),
		.objects_moved = to_le64(figures->objects_moved),
		.bytes_moved = to_le64(figures->bytes_moved),
		.store_count = to_le32(figures->store_count),
		.row_count = to_le32(figures->row_count),
		.objects_lost = to_le64(figures->objects_lost),
		.objects_unread = to_le64(figures->objects_unread),
		.lost_count = to_le32(figures->lost_count),
	};
	struct buffer *buffer = size ? buffer_new(loop_buffers(gather->home->loop), size) : NULL;

	if (size && !buffer) {
		net_reply_status(request, -ENOMEM);
	} else {
		struct slice payload = {0};
		if (buffer) {
			figures_pack(figures, buffer->data);
			payload = slice_of(buffer, 0, size);
		}
		net_reply(request, 0, &body, sizeof(body), &payload, buffer != NULL);
	}
	figures_done(figures);
}

static void on_figures(struct net_request *request)
{
	const struct wire_op *first = request->row - PEER_OP_FIGURES;
	struct figures_service *service =
		container_of_type((struct wire_op(*)[OPS_MAX])first, struct figures_service, ops);
	struct node *node = service->node;
	const struct peer_figures *body = request->body;
	uint32_t pg =
		from_le32(body->flags) & PEER_FIGURES_PG ? from_le32(body->pg) : FIGURES_NO_PG;
	int rc = -E_SHUTDOWN;

	for (unsigned i = 0; i < node->worker_count; i++)
		if (node->workers[i].net == net_session_net(request->session))
			rc = node->phase >= NODE_STOPPING
				     ? -E_SHUTDOWN
				     : gather_start(node, &node->workers[i], pg, reply, request);
	if (rc < 0)
		net_reply_status(request, rc);
}

/* ---- asking others ---- */

struct ask {
	struct figures_query *query; /* NULL: it did not wait for us */
	uint32_t node;
	struct peer_figures body;
	struct net_call call;
	struct cds_list_head link; /* query.asks */
};

static void query_end(struct figures_query *query)
{
	struct ask *ask, *next;

	query->is_over = true;
	loop_timer_stop(query->node->workers[0].loop, &query->timer);
	cds_list_for_each_entry_safe(ask, next, &query->asks, link) {
		cds_list_del(&ask->link);
		add_unknown(&query->figures, ask->node);
		ask->query = NULL;
	}
	qsort(query->figures.rows, query->figures.row_count, sizeof(query->figures.rows[0]),
	      row_compare);
	query->done(query, &query->figures);
}

static void query_part_done(struct figures_query *query)
{
	if (--query->left == 0)
		query_end(query);
}

/* What a peer says, if it can be true: stores have to be its own. */
static int take_reply(struct figures_query *query, uint32_t node, const struct net_call *call)
{
	const struct peer_figures_reply *body = call->reply_body;
	const struct cluster_map *map = state_map(query->node->state);
	struct figures told = {0};

	if (!body)
		return -E_PROTOCOL;
	uint64_t stores = from_le32(body->store_count), rows = from_le32(body->row_count);
	uint64_t lost_count = from_le32(body->lost_count);
	if (stores > CLUSTER_NODE_STORES_MAX || rows > FIGURES_ROWS_MAX ||
	    lost_count > FIGURES_LOST_MAX ||
	    call->reply_slice.size != stores * sizeof(struct peer_figures_store) +
					      rows * sizeof(struct peer_figures_row) +
					      lost_count * sizeof(struct peer_figures_lost))
		return -E_PROTOCOL;
	const struct peer_figures_store *store = (const void *)call->reply_slice.data;
	const struct peer_figures_row *row = (const void *)(store + stores);
	for (uint64_t i = 0; i < stores; i++)
		if (cluster_store_node(map, from_le32(store[i].store)) == node &&
		    !figures_of_store(&query->figures, from_le32(store[i].store)))
			add_store(&query->figures,
				  &(struct figures_store){
					  .store = from_le32(store[i].store),
					  .size_bytes = from_le64(store[i].size_bytes),
					  .live_bytes = from_le64(store[i].live_bytes),
					  .allocated_bytes = from_le64(store[i].allocated_bytes),
					  .credit_bytes = from_le64(store[i].credit_bytes),
					  .last = {.reign = from_le64(store[i].last_reign),
						   .n = from_le64(store[i].last_n)},
					  .objects = from_le32(store[i].objects),
					  .missing = from_le32(store[i].missing)});
	told.objects_missing = from_le64(body->objects_missing);
	told.bytes_missing = from_le64(body->bytes_missing);
	told.objects_moved = from_le64(body->objects_moved);
	told.bytes_moved = from_le64(body->bytes_moved);
	for (uint64_t i = 0; i < rows; i++)
		told.rows[told.row_count++] = (struct figures_row){
			.pg = from_le32(row[i].pg),
			.store = from_le32(row[i].store),
			.objects_missing = from_le64(row[i].objects_missing),
			.bytes_missing = from_le64(row[i].bytes_missing),
		};
	figures_unpack_lost(&told, body, (const void *)(row + rows));
	add(&query->figures, &told);
	return 0;
}

static void on_reply(struct net_call *call, int result)
{
	struct ask *ask = container_of_type(call, struct ask, call);
	struct figures_query *query = ask->query;

	if (query) {
		cds_list_del(&ask->link);
		if (result == 0)
			result = take_reply(query, ask->node, call);
		if (result < 0)
			add_unknown(&query->figures, ask->node);
	}
	free(ask);
	if (query)
		query_part_done(query);
}

static struct net_link *link_to(struct figures_service *service, const struct cluster_node *node)
{
	struct figures_link *link;
	struct error err;

	HASH_FIND(hh, service->links, &node->id, sizeof(node->id), link);
	if (link && strcmp(link->address, node->address) == 0)
		return link->link;
	if (link) {
		if (net_link_set_address(link->link, node->address) < 0)
			return NULL;
	} else {
		const struct net_link_options options = {
			.address = node->address,
			.protocol = &service->protocol,
			.class = PEER_CLASS_CONTROL,
			.loop = FRAME_ANY_LOOP,
			.node = node->uuid,
		};
		link = calloc(1, sizeof(*link));
		if (!link ||
		    net_link_new(service->node->workers[0].net, &options, &link->link, &err) < 0) {
			free(link);
			return NULL;
		}
		link->node = node->id;
		HASH_ADD(hh, service->links, node, sizeof(link->node), link);
	}
	memcpy(link->address, node->address, sizeof(link->address));
	return link->link;
}

static void link_free(struct figures_service *service, struct figures_link *link)
{
	net_link_free(link->link);
	HASH_DEL(service->links, link);
	free(link);
}

/* Links to sheep that are gone are of no use; those that come back are dialled anew. */
static void drop_links(struct figures_service *service)
{
	const struct cluster_map *map = state_map(service->node->state);
	struct figures_link *link, *next;

	HASH_ITER(hh, service->links, link, next) {
		const struct cluster_node *node = cluster_node(map, link->node);
		if (!node || !(node->flags & CLUSTER_NODE_UP))
			link_free(service, link);
	}
}

static void ask_node(struct figures_service *service, struct figures_query *query,
		     const struct cluster_node *node)
{
	struct net_link *link =
		service->node->phase == NODE_RUNNING ? link_to(service, node) : NULL;
	struct ask *ask = link ? calloc(1, sizeof(*ask)) : NULL;

	if (!ask) {
		add_unknown(&query->figures, node->id);
		return;
	}
	ask->query = query;
	ask->node = node->id;
	if (query->pg != FIGURES_NO_PG)
		ask->body = (struct peer_figures){.flags = to_le32(PEER_FIGURES_PG),
						  .pg = to_le32(query->pg)};
	ask->call = (struct net_call){
		.op = PEER_OP_FIGURES,
		.body = &ask->body,
		.body_size = sizeof(ask->body),
		.done = on_reply,
	};
	cds_list_add_tail(&ask->link, &query->asks);
	query->left++;
	net_link_call(link, &ask->call);
}

static void on_own(struct gather *gather, struct figures *figures)
{
	struct figures_query *query = gather->context;

	add(&query->figures, figures);
	for (uint32_t i = 0; i < figures->store_count; i++)
		add_store(&query->figures, &figures->stores[i]);
	figures_done(figures);
	query_part_done(query);
}

/* Whoever has not answered is unknown; our own loops are waited for. */
static void on_deadline(struct loop_timer *timer)
{
	struct figures_query *query = container_of_type(timer, struct figures_query, timer);
	struct ask *ask, *next;

	cds_list_for_each_entry_safe(ask, next, &query->asks, link) {
		cds_list_del(&ask->link);
		add_unknown(&query->figures, ask->node);
		ask->query = NULL;
		query->left--;
	}
	if (query->left == 0)
		query_end(query);
}

void figures_ask(struct figures_service *service, struct figures_query *query, uint32_t pg,
		 uint64_t deadline_ns)
{
	struct node *node = service->node;
	struct loop *loop = node->workers[0].loop;
	const struct cluster_map *map = state_map(node->state);
	const struct cluster_node *row;

	memset(&query->figures, 0, sizeof(query->figures));
	query->node = node;
	query->pg = pg;
	query->is_over = false;
	query->left = 0;
	CDS_INIT_LIST_HEAD(&query->asks);
	drop_links(service);
	for (row = cluster_node_next(map, 0); row; row = cluster_node_next(map, row->id))
		if ((row->flags & CLUSTER_NODE_UP) && row->id != node->id)
			ask_node(service, query, row);
	query->timer = (struct loop_timer){.fire = on_deadline};
	if (gather_start(node, &node->workers[0], pg, on_own, query) == 0)
		query->left++;
	else if (node->id)
		add_unknown(&query->figures, node->id);
	/* With nothing under way the timer ends it, as `done` does not run in here. */
	loop_timer_start(loop, &query->timer,
			 query->left ? min_of(deadline_ns, loop_now(loop) + ASK_NS)
				     : loop_now(loop));
}

/* ---- life ---- */

struct figures_service *figures_new(struct node *node)
{
	struct figures_service *service = calloc(1, sizeof(*service));

	if (!service)
		return NULL;
	assert(pg_peer_protocol.op_count <= OPS_MAX);
	service->node = node;
	memcpy(service->ops, pg_peer_protocol.ops,
	       pg_peer_protocol.op_count * sizeof(service->ops[0]));
	service->ops[PEER_OP_FIGURES] = (struct wire_op){
		.name = "figures",
		.body_min = sizeof(struct peer_figures),
		.body_size = sizeof(struct peer_figures),
		.reply_min = sizeof(struct peer_figures_reply),
		.reply_size = sizeof(struct peer_figures_reply),
		.reply_payload_max = PAYLOAD_MAX,
		.handle = on_figures,
	};
	service->protocol = pg_peer_protocol;
	service->protocol.ops = service->ops;
	service->protocol.op_count = OPS_MAX;
	return service;
}

const struct wire_protocol *figures_protocol(const struct figures_service *service)
{
	return &service->protocol;
}

void figures_stop(struct figures_service *service)
{
	struct figures_link *link, *next;

	HASH_ITER(hh, service->links, link, next) {
		link_free(service, link);
	}
}

void figures_free(struct figures_service *service)
{
	assert(!service || !service->links);
	free(service);
}
