/*
 * A question goes by mail to each loop of this sheep, and by a link of its own to each other sheep,
 * which asks its loops in the same way. The row of the op is not in the table of sheep/pg: each
 * sheep serves a copy of that table with the row added, and it is this row, as the request names
 * it, that leads the handler to the node.
 *
 *   query --- gather (figures_gather.c): a mail to every loop and back
 *         \-- ask, one for each other sheep that is up: outlives the query if its answer is late
 */
#include "sheep/service/figures_priv.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "include/proto/peer.h"
#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "sheep/service/node_priv.h"

#define OPS_MAX 64u
/* Of a reply: without layers, and with so many of them and of PGs. */
#define PAYLOAD_BASE                                                             \
	(uint32_t)(CLUSTER_NODE_STORES_MAX * sizeof(struct peer_figures_store) + \
		   FIGURES_ROWS_MAX * sizeof(struct peer_figures_row) +          \
		   FIGURES_LOST_MAX * sizeof(struct peer_figures_lost))
#define PAYLOAD_WITH(layers, pgs)                                                  \
	(PAYLOAD_BASE + (uint32_t)((layers) * sizeof(struct peer_figures_layer)) + \
	 (uint32_t)((pgs) * sizeof(le32)))
#define PAYLOAD_MAX PAYLOAD_WITH(PEER_FIGURES_LAYERS_MAX, FIGURES_PGS_MAX)
/* Other sheep that do not answer in so long are left out. */
#define ASK_NS NS_PER_S

_Static_assert(PEER_OP_FIGURES < OPS_MAX, "the table has room for the row");
_Static_assert(PAYLOAD_MAX <= FRAME_PAYLOAD_MAX, "the longest reply fits in a frame");

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

/* ---- being asked ---- */

static void reply(struct figures_gather *gather, struct figures *figures)
{
	struct net_request *request = gather->context;

	/* More PGs than the other side's map has: it cannot use them. */
	if (figures->use.is_unclear || figures_packed_size(figures) > request->reply_max)
		figures_use_void(&figures->use);
	uint32_t size = figures_packed_size(figures);
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
		.layer_count = to_le32(figures->use.layer_count),
		.pg_count = to_le32(figures->use.pg_count),
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

static int start_reply(struct node *node, struct worker *home, struct net_request *request)
{
	const struct peer_figures *body = request->body;
	uint32_t count = from_le32(body->layer_count);
	uint64_t *layers = calloc(min_of(count, PEER_FIGURES_LAYERS_MAX) + 1, sizeof(*layers));

	if (!layers)
		return -ENOMEM;
	const struct figures_question question = {.pg = from_le32(body->flags) & PEER_FIGURES_PG
								? from_le32(body->pg)
								: FIGURES_NO_PG,
						  .layer_count = count,
						  .layers = layers};
	int rc = figures_unpack_question(body, &request->payload, layers);
	if (rc == 0)
		rc = figures_gather(node, home, &question, reply, request);
	free(layers);
	return rc;
}

static void on_figures(struct net_request *request)
{
	const struct wire_op *first = request->row - PEER_OP_FIGURES;
	struct figures_service *service =
		container_of_type((struct wire_op(*)[OPS_MAX])first, struct figures_service, ops);
	struct node *node = service->node;
	int rc = -E_SHUTDOWN;

	for (unsigned i = 0; i < node->worker_count; i++)
		if (node->workers[i].net == net_session_net(request->session))
			rc = node->phase >= NODE_STOPPING
				     ? -E_SHUTDOWN
				     : start_reply(node, &node->workers[i], request);
	if (rc < 0)
		net_reply_status(request, rc);
}

/* ---- asking others ---- */

struct ask {
	struct figures_query *query; /* NULL: it did not wait for us */
	uint32_t node;
	struct peer_figures body;
	struct slice layers; /* with a reference */
	struct net_call call;
	struct cds_list_head link; /* query.asks */
};

static void add_unknown(struct figures *figures, uint32_t node)
{
	void *grown = realloc(figures->unknown,
			      (figures->unknown_count + 1) * sizeof(figures->unknown[0]));

	if (!grown)
		return;
	figures->unknown = grown;
	figures->unknown[figures->unknown_count++] = node;
}

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
	      figures_row_compare);
	figures_use_close(&query->figures.use);
	buffer_put(query->layers.buffer);
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
	struct figures told;
	struct figures_view view;

	if (!body ||
	    figures_look_at(body, &call->reply_slice, query->figures.use.layer_count, &view) < 0)
		return -E_PROTOCOL;
	int rc = figures_unpack(body, &view, &query->figures.use, &told);
	if (rc < 0) {
		figures_done(&told);
		return rc;
	}
	for (uint32_t i = 0; i < view.store_count; i++) {
		const struct peer_figures_store *store = &view.stores[i];
		if (cluster_store_node(map, from_le32(store->store)) == node &&
		    !figures_of_store(&query->figures, from_le32(store->store)))
			figures_add_store(
				&query->figures,
				&(struct figures_store){
					.store = from_le32(store->store),
					.size_bytes = from_le64(store->size_bytes),
					.live_bytes = from_le64(store->live_bytes),
					.allocated_bytes = from_le64(store->allocated_bytes),
					.credit_bytes = from_le64(store->credit_bytes),
					.last = {.reign = from_le64(store->last_reign),
						 .n = from_le64(store->last_n)},
					.objects = from_le32(store->objects),
					.missing = from_le32(store->missing)});
	}
	told.use.is_unclear = !figures_use_is_of(&told.use, map, node);
	figures_add(&query->figures, &told);
	figures_done(&told);
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
	buffer_put(ask->layers.buffer);
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

/* Of all policies. */
static uint32_t pg_count(const struct cluster_map *map)
{
	uint32_t count = 0;

	for (uint32_t id = 0; id < CLUSTER_POLICIES_MAX; id++) {
		const struct cluster_policy *policy = cluster_policy(map, id);
		count += policy ? policy->pg_count : 0;
	}
	return count;
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
		.reply_max = PAYLOAD_BASE,
		.done = on_reply,
	};
	if (query->layers.buffer) {
		uint32_t count = query->figures.use.layer_count;
		buffer_get(query->layers.buffer);
		ask->layers = query->layers;
		ask->body.layer_count = to_le32(count);
		ask->call.slices = &ask->layers;
		ask->call.slice_count = 1;
		ask->call.reply_max = PAYLOAD_WITH(count, pg_count(state_map(query->node->state)));
	}
	cds_list_add_tail(&ask->link, &query->asks);
	query->left++;
	net_link_call(link, &ask->call);
}

static void on_own(struct figures_gather *gather, struct figures *figures)
{
	struct figures_query *query = gather->context;

	figures->use.is_unclear |=
		!figures_use_is_of(&figures->use, state_map(query->node->state), query->node->id);
	figures_add(&query->figures, figures);
	for (uint32_t i = 0; i < figures->store_count; i++)
		figures_add_store(&query->figures, &figures->stores[i]);
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

/* Without memory for it nothing is asked about layers, and they are not known. */
static void prepare_layers(struct figures_query *query, const struct figures_question *question,
			   struct loop *loop)
{
	uint32_t count = question->layer_count, size = count * (uint32_t)sizeof(le64);
	struct buffer *buffer = count > 0 ? buffer_new(loop_buffers(loop), size) : NULL;

	query->layers = (struct slice){0};
	if (!buffer || figures_use_init(&query->figures.use, question->layers, count) < 0) {
		buffer_put(buffer);
		return;
	}
	le64 *layers = (void *)buffer->data;
	for (uint32_t i = 0; i < count; i++)
		layers[i] = to_le64(question->layers[i]);
	query->layers = slice_of(buffer, 0, size);
}

void figures_ask(struct figures_service *service, struct figures_query *query,
		 const struct figures_question *question, uint64_t deadline_ns)
{
	struct node *node = service->node;
	struct loop *loop = node->workers[0].loop;
	const struct cluster_map *map = state_map(node->state);
	const struct cluster_node *row;
	struct figures_question own = *question;

	assert(question->layer_count <= PEER_FIGURES_LAYERS_MAX);
	memset(&query->figures, 0, sizeof(query->figures));
	query->node = node;
	query->pg = question->pg;
	query->is_over = false;
	query->left = 0;
	prepare_layers(query, question, loop);
	own.layer_count = query->figures.use.layer_count;
	CDS_INIT_LIST_HEAD(&query->asks);
	drop_links(service);
	for (row = cluster_node_next(map, 0); row; row = cluster_node_next(map, row->id))
		if ((row->flags & CLUSTER_NODE_UP) && row->id != node->id)
			ask_node(service, query, row);
	query->timer = (struct loop_timer){.fire = on_deadline};
	if (figures_gather(node, &node->workers[0], &own, on_own, query) == 0)
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
		.payload_max = PEER_FIGURES_LAYERS_MAX * sizeof(le64),
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
