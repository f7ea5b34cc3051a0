/*
 * Takeovers and joins, as a member sees them: its tail, its table of requests, the beginning of a
 * stream and its seal.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/rule.h"
#include "sheep/pg/pg_priv.h"

#define REQUESTS_MAX (1u << 20) /* rows of one table */

static void reply_ack(struct pg *pg, struct net_request *request)
{
	const struct peer_ack reply = {
		.epoch = to_le64(pg->epoch),
		.credit = to_le64(store_credit(pg_store_of(pg), pg->id)),
	};

	net_reply(request, 0, &reply, sizeof(reply), NULL, 0);
}

/* ---- COLLECT ---- */

static void reply_tail(struct pg *pg, struct net_request *request)
{
	struct store *store = pg_store_of(pg);
	uint32_t count = store_pg_tail(store, pg->id, NULL, 0);
	struct store_tail_entry *tail = NULL;
	struct slice rows = {.buffer = NULL};
	struct store_pg_info info;

	if (count > PEER_TAIL_ROWS_MAX) {
		net_reply_status(request, -E2BIG);
		return;
	}
	if (count > 0) {
		uint32_t size = count * (uint32_t)sizeof(struct peer_tail_row);
		struct buffer *buffer = buffer_new(pg->set->arena.buffers, size);
		tail = calloc(count, sizeof(*tail));
		if (!tail || !buffer) {
			free(tail);
			buffer_put(buffer);
			net_reply_status(request, -ENOMEM);
			return;
		}
		rows = slice_of(buffer, 0, size);
		(void)store_pg_tail(store, pg->id, tail, count);
		pg_tail_encode((void *)rows.data, tail, count);
		free(tail);
	}
	store_pg_info(store, pg->id, &info);
	const struct peer_collect_reply reply = {
		.epoch = to_le64(pg->epoch),
		.last_reign = to_le64(info.last.reign),
		.last_n = to_le64(info.last.n),
		.commit_reign = to_le64(info.commit.reign),
		.commit_n = to_le64(info.commit.n),
		.credit = to_le64(store_credit(store, pg->id)),
		.row_count = to_le32(count),
		.missing = to_le32(info.missing),
	};
	SIM_POINT(TAIL_TOLD);
	net_reply(request, 0, &reply, sizeof(reply), &rows, count > 0);
}

void pg_on_collect(struct net_request *request)
{
	const struct peer_collect *body = request->body;
	struct pg *pg = pg_gate(request, from_le64(body->epoch), from_le32(body->pg),
				from_le32(body->store), 0);

	if (!pg)
		return;
	if (pg->role != PG_ROLE_MEMBER || from_le64(body->reign) != pg->row.reign) {
		net_reply_status(request, -E_PROTOCOL);
		return;
	}
	/* T1: what was buffered of older reigns is gone from here on. */
	if (!pg->part.has_stream)
		pg_part_begin(pg, pg->row.reign, 0);
	reply_tail(pg, request);
}

/* ---- REQUESTS ---- */

static int keep_rows(struct pg *pg, const struct peer_requests *body, const struct slice *payload)
{
	struct pg_part *part = &pg->part;
	const struct peer_request_row *rows = (const void *)payload->data;
	uint32_t first = from_le32(body->first), count = from_le32(body->row_count);
	struct store_request *table;

	if (count > PEER_REQUEST_ROWS_MAX || payload->size != count * sizeof(*rows))
		return -E_PROTOCOL;
	if (first == 0)
		part->request_count = 0;
	if (first != part->request_count || first + count > REQUESTS_MAX)
		return -EAGAIN; /* a piece before it was lost */
	table = realloc(part->requests, max_of(first + count, 1u) * sizeof(*table));
	if (!table)
		return -ENOMEM;
	part->requests = table;
	for (uint32_t i = 0; i < count; i++)
		table[first + i] = (struct store_request){
			.session = from_le64(rows[i].session),
			.number = from_le64(rows[i].number),
			.version = {.reign = from_le64(rows[i].reign), .n = from_le64(rows[i].n)},
			.key = {.layer = from_le64(rows[i].layer),
				.index = from_le32(rows[i].index)},
		};
	part->request_count = first + count;
	return 0;
}

/* Does the table belong where the stream is? 1; 0: it has been taken in, or overtaken. */
static int judge_place(const struct pg *pg, const struct peer_requests *body)
{
	const struct pg_stream *stream = &pg->part.stream;
	uint64_t n = from_le64(body->n);

	/* Who is in sync remembers what its own content has: no other table can be true there. */
	if (pg->role != PG_ROLE_JOINING)
		return -E_STALE;
	if (!pg->part.has_stream)
		return -EAGAIN;
	if (from_le64(body->reign) != stream->reign)
		return -E_PROTOCOL;
	if (n > stream->n)
		return -EAGAIN;
	return n == stream->n;
}

void pg_on_requests(struct net_request *request)
{
	const struct peer_requests *body = request->body;
	struct pg *pg = pg_gate(request, from_le64(body->epoch), from_le32(body->pg),
				from_le32(body->store), 0);
	int rc;

	if (!pg)
		return;
	rc = judge_place(pg, body);
	if (rc > 0) {
		rc = keep_rows(pg, body, &request->payload);
		if (rc == 0 && from_le32(body->flags) & PEER_REQUESTS_LAST) {
			rc = store_set_requests(pg_store_of(pg), pg->id, pg->part.requests,
						pg->part.request_count);
			free(pg->part.requests);
			pg->part.requests = NULL;
			pg->part.request_count = 0;
		}
	}
	if (rc < 0)
		net_reply_status(request, rc);
	else
		reply_ack(pg, request);
}

/* ---- JOIN ---- */

void pg_on_join(struct net_request *request)
{
	const struct peer_join *body = request->body;
	struct pg *pg = pg_gate(request, from_le64(body->epoch), from_le32(body->pg),
				from_le32(body->store), from_le64(body->join));
	const struct cluster_join *join;

	if (!pg)
		return;
	join = cluster_pg_join(&pg->row, pg->store->id);
	if (pg->role != PG_ROLE_JOINING || !join || join->index != from_le64(body->join) ||
	    pg->store->incarnation != from_le64(body->incarnation) ||
	    from_le64(body->reign) != pg->row.reign || from_le64(body->start) == 0) {
		net_reply_status(request, -E_STALE);
		return;
	}
	if (pg->is_dropped) { /* what an earlier part left here is still going */
		net_reply_status(request, -EAGAIN);
		return;
	}
	pg_part_begin(pg, pg->row.reign, from_le64(body->n));
	pg->part.join = join->index;
	pg->part.start = from_le64(body->start);
	reply_ack(pg, request);
}

/* ---- SEAL ---- */

struct seal;

/* An entry that names an object. */
struct naming {
	struct store_append append;
	struct seal *seal;
};

struct seal {
	struct loop_op op;
	struct pg *pg;
	struct net_request *request;
	uint32_t pending;
	int result;
	struct naming *names; /* of what is in doubt */
	struct peer_seal_reply reply;
};

static void seal_is_back(struct seal *seal, int result)
{
	struct pg_set *set = seal->pg->set;

	if (result < 0 && seal->result == 0)
		seal->result = result;
	if (--seal->pending == 0) {
		if (seal->result < 0)
			net_reply_status(seal->request, seal->result);
		else
			net_reply(seal->request, 0, &seal->reply, sizeof(seal->reply), NULL, 0);
		free(seal->names);
		free(seal);
	}
	pg_set_release(set);
}

static void on_sealed(struct loop_op *op, int result)
{
	seal_is_back(container_of_type(op, struct seal, op), result < 0 ? -E_STORE_FAILED : 0);
}

static void on_named(struct store_append *append, int result)
{
	seal_is_back(container_of_type(append, struct naming, append)->seal,
		     result < 0 ? -E_STORE_FAILED : 0);
}

/*
 * Our tail is to name an object: by an entry that changes nothing of it. It has the version that the
 * object has here, which is that of the last row about it or a later one.
 */
static int name_object(struct seal *seal, struct naming *naming, const struct peer_tail_row *row)
{
	struct store_append *append = &naming->append;
	struct pg *pg = seal->pg;
	struct store_object object;
	int rc;

	naming->seal = seal;
	*append = (struct store_append){
		.done = on_named,
		.pg = pg->id,
		.family = from_le64(row->family),
		.key = {.layer = from_le64(row->layer), .index = from_le32(row->index)},
		.version = {.reign = from_le64(row->reign), .n = from_le64(row->n)},
		.flags = STORE_ANY_PREVIOUS | STORE_GRANTED,
	};
	if (store_object(pg_store_of(pg), pg->id, &append->key, &object) > 0)
		append->version = object.version;
	else
		append->flags |= STORE_DELETE;
	rc = store_append(pg_store_of(pg), append);
	if (rc < 0)
		return rc;
	seal->pending++;
	pg_set_hold(pg->set);
	return 0;
}

static int name_objects(struct seal *seal, const struct peer_tail_row *rows, uint32_t count)
{
	int rc = 0;

	if (count == 0)
		return 0;
	seal->names = calloc(count, sizeof(*seal->names));
	if (!seal->names)
		return -ENOMEM;
	for (uint32_t i = 0; i < count && rc == 0; i++)
		rc = name_object(seal, &seal->names[i], &rows[i]);
	return rc;
}

static int judge_seal(const struct pg *pg, const struct peer_seal *body,
		      const struct slice *payload)
{
	const struct pg_part *part = &pg->part;

	if (!part->has_stream || part->join == 0 || part->join != from_le64(body->join) ||
	    part->start != from_le64(body->start))
		return -E_STALE;
	if (from_le64(body->reign) != part->stream.reign ||
	    from_le64(body->n) < from_le64(body->after) ||
	    pg_tail_check(pg, (const void *)payload->data, payload->size,
			  from_le32(body->row_count)) < 0)
		return -E_PROTOCOL;
	return from_le64(body->after) == part->stream.n ? 0 : -EAGAIN;
}

void pg_on_seal(struct net_request *request)
{
	const struct peer_seal *body = request->body;
	struct pg *pg = pg_gate(request, from_le64(body->epoch), from_le32(body->pg),
				from_le32(body->store), from_le64(body->map_index));
	uint64_t digest, objects, missing;
	struct seal *seal;
	int rc;

	if (!pg)
		return;
	rc = judge_seal(pg, body, &request->payload);
	seal = rc == 0 ? calloc(1, sizeof(*seal)) : NULL;
	if (!seal) {
		net_reply_status(request, rc < 0 ? rc : -ENOMEM);
		return;
	}
	/* From here on we have everything up to n, and acknowledge only what is synced (J4). */
	pg->part.stream.n = from_le64(body->n);
	if (cds_list_empty(&pg->part.applies))
		pg->part.stream.applied_n = pg->part.stream.n;
	pg->part.syncs = RULE(J4_SYNC);
	pg_digest(pg, &digest, &objects, &missing);
	seal->pg = pg;
	seal->request = request;
	seal->pending = 1;
	seal->op.done = on_sealed;
	seal->reply = (struct peer_seal_reply){
		.epoch = to_le64(pg->epoch),
		.digest = to_le64(digest),
		.objects = to_le64(objects),
		.missing = to_le64(missing),
	};
	seal->result =
		name_objects(seal, (const void *)request->payload.data, from_le32(body->row_count));
	pg_set_hold(pg->set);
	store_sync(pg_store_of(pg), pg->id, &seal->op);
}
