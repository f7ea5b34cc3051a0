/*
 * Recovery, as a member sees it: lists, sums, pushes that come in, blocks that go out.
 *
 * A push is taken only as part of the join that our map knows and our primary has begun, or for an
 * object that we know to be missing: nothing else may change an object outside the order.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/crc32c.h"
#include "lib/base/rule.h"
#include "sheep/pg/entry_codec.h"
#include "sheep/pg/pg_priv.h"

/* ---- LIST ---- */

void pg_on_list(struct net_request *request)
{
	const struct peer_list *body = request->body;
	struct pg *pg = pg_gate(request, from_le64(body->epoch), from_le32(body->pg),
				from_le32(body->store), 0);
	uint32_t max = min_of(from_le32(body->rows_max), PEER_LIST_ROWS_MAX), count = 0;
	struct object_key cursor = {.layer = from_le64(body->after_layer),
				    .index = from_le32(body->after_index)};
	const struct object_key *after = from_le32(body->has_after) ? &cursor : NULL;
	struct store_object object;
	struct buffer *buffer;
	bool is_end = false;

	if (!pg)
		return;
	max = min_of(max, request->reply_max / (uint32_t)sizeof(struct peer_list_row));
	buffer = max ? buffer_new(pg->set->arena.buffers,
				  max * (uint32_t)sizeof(struct peer_list_row))
		     : NULL;
	if (!buffer) {
		net_reply_status(request, max ? -ENOMEM : -EINVAL);
		return;
	}
	struct peer_list_row *rows = (void *)buffer->data;
	while (count < max) {
		if (store_object_next(pg_store_of(pg), pg->id, after, &object) <= 0) {
			is_end = true;
			break;
		}
		rows[count++] = (struct peer_list_row){
			.layer = to_le64(object.key.layer),
			.family = to_le64(object.family),
			.reign = to_le64(object.version.reign),
			.n = to_le64(object.version.n),
			.index = to_le32(object.key.index),
			.flags = to_le32(PEER_OBJECT_EXISTS |
					 (object.is_missing ? PEER_OBJECT_MISSING : 0)),
		};
		cursor = object.key;
		after = &cursor;
	}
	const struct peer_list_reply reply = {
		.epoch = to_le64(pg->epoch),
		.row_count = to_le32(count),
		.is_end = to_le32(is_end),
	};
	struct slice slice = slice_of(buffer, 0, count * (uint32_t)sizeof(*rows));
	if (count == 0)
		buffer_put(buffer);
	net_reply(request, 0, &reply, sizeof(reply), &slice, count > 0);
}

/* ---- SUMS ---- */

struct sums {
	struct store_sums sums;
	struct pg *pg;
	struct net_request *request;
};

static void reply_sums(struct sums *work, uint32_t flags)
{
	struct pg *pg = work->pg;
	uint32_t count = flags & PEER_OBJECT_EXISTS ? pg_sums_block_count(work->sums.states) : 0;
	struct peer_sums_reply reply = {
		.epoch = to_le64(pg->epoch),
		.reign = to_le64(work->sums.version.reign),
		.n = to_le64(work->sums.version.n),
		.flags = to_le32(flags),
		.block_count = to_le32(count),
	};
	struct buffer *buffer = NULL;
	struct slice slice;

	if (count > 0) {
		buffer = buffer_new(pg->set->arena.buffers, pg_sums_size(count));
		if (!buffer) {
			net_reply_status(work->request, -ENOMEM);
			return;
		}
		slice = slice_of(buffer, 0, pg_sums_size(count));
		pg_sums_encode(slice.data, work->sums.states, work->sums.crcs, count);
	}
	net_reply(work->request, 0, &reply, sizeof(reply), &slice, count > 0);
}

/* A copy in which blocks were found damaged, and that is all, is good for the others and as a base. */
static uint32_t missing_flags(const struct sums *work, int result)
{
	struct store_object object;
	bool is_marked;

	if (result == 0 && !work->sums.is_missing)
		return 0;
	is_marked =
		result == 0 &&
		store_object(pg_store_of(work->pg), work->pg->id, &work->sums.key, &object) > 0 &&
		!object.is_partial && !object.is_in_flight &&
		version_compare(object.version, work->sums.version) == 0;
	return PEER_OBJECT_MISSING | (is_marked ? PEER_OBJECT_MARKED : 0);
}

static void on_sums(struct store_sums *sums, int result)
{
	struct sums *work = container_of_type(sums, struct sums, sums);
	struct pg_set *set = work->pg->set;

	if (result < 0 && result != -E_CHECKSUM)
		net_reply_status(work->request, result);
	else
		reply_sums(work, PEER_OBJECT_EXISTS | missing_flags(work, result));
	free(work);
	pg_set_release(set);
}

void pg_on_sums(struct net_request *request)
{
	const struct peer_sums *body = request->body;
	struct pg *pg = pg_gate_read(request, from_le64(body->epoch), from_le32(body->pg),
				     from_le32(body->store));
	struct store_object object;
	struct sums *work;

	if (!pg)
		return;
	work = calloc(1, sizeof(*work));
	if (!work) {
		net_reply_status(request, -ENOMEM);
		return;
	}
	work->pg = pg;
	work->request = request;
	work->sums.done = on_sums;
	work->sums.pg = pg->id;
	work->sums.key = (struct object_key){.layer = from_le64(body->layer),
					     .index = from_le32(body->index)};
	if (store_object(pg_store_of(pg), pg->id, &work->sums.key, &object) <= 0) {
		reply_sums(work, 0);
		free(work);
		return;
	}
	/* Sums are of what can be read: what is still on its way would come over what is pushed. */
	if (object.is_in_flight) {
		net_reply_status(request, -EAGAIN);
		free(work);
		return;
	}
	pg_set_hold(pg->set);
	store_sums(pg_store_of(pg), &work->sums);
}

/* ---- PUSH ---- */

struct push {
	struct store_append append;
	struct pg *pg;
	struct net_request *request;
	struct slice data;
	struct store_run *runs;
	uint32_t *crcs;
};

static void push_free(struct push *push)
{
	free(push->runs);
	free(push->crcs);
	free(push);
}

static void on_pushed(struct store_append *append, int result)
{
	struct push *push = container_of_type(append, struct push, append);
	struct pg *pg = push->pg;
	struct pg_set *set = pg->set;

	if (result < 0) {
		net_reply_status(push->request, -E_STORE_FAILED);
		pg_set_store_failed(set, pg_store_of(pg), result);
	} else {
		const struct peer_ack reply = {
			.epoch = to_le64(pg->epoch),
			.credit = to_le64(store_credit(pg_store_of(pg), pg->id)),
		};
		net_reply(push->request, 0, &reply, sizeof(reply), NULL, 0);
		pg->has_holes = true; /* the tick counts what is missing */
		pg_set_active(pg);
	}
	push_free(push);
	pg_set_release(set);
}

/*
 * Was it asked for? A member in sync takes pushes of what it misses. Entries come by another connection, and may overtake one
 * that was on its way when that broke: a push of before such an entry would take it back.
 */
static int judge_push(const struct pg *pg, const struct peer_push *body)
{
	const struct version version = {.reign = from_le64(body->reign), .n = from_le64(body->n)};
	const struct object_key key = {.layer = from_le64(body->layer),
				       .index = from_le32(body->index)};
	struct store_object object;

	/* What an older beginning sent may have been overtaken by writes since. */
	bool is_this_start = pg->part.start == from_le64(body->start) || !RULE(J6_PUSH_VERSION);

	if (!pg_holds_object(pg->set, pg->id, from_le64(body->family), key.index))
		return -E_PROTOCOL;
	if (pg->role == PG_ROLE_JOINING)
		return pg->part.start != 0 && is_this_start &&
				       pg->part.join == from_le64(body->join)
			       ? 0
			       : -E_STALE;
	if (from_le64(body->join) != 0)
		return -E_STALE;
	if (store_object(pg_store_of(pg), pg->id, &key, &object) <= 0 || !object.is_missing)
		return -E_VERSION;
	return version_compare(version, object.version) >= 0 ? 0 : -E_VERSION;
}

static int decode_push(struct push *push, const struct peer_push *body, const struct slice *payload)
{
	uint32_t runs = from_le16(body->run_count), blocks = from_le16(body->block_count);
	bool is_inline = pg_meta_is_inline(runs, blocks);
	uint32_t size = blocks * BLOCK_SIZE;
	int rc;

	if (runs > OBJECT_BLOCKS || blocks > OBJECT_BLOCKS ||
	    payload->size != size + (is_inline ? 0 : pg_meta_size(runs, blocks)))
		return -E_PROTOCOL;
	if (from_le32(body->flags) & PEER_ENTRY_DELETE && runs > 0)
		return -E_PROTOCOL;
	push->runs = calloc(max_of(runs, 1u), sizeof(*push->runs));
	push->crcs = calloc(max_of(blocks, 1u), sizeof(*push->crcs));
	if (!push->runs || !push->crcs)
		return -ENOMEM;
	rc = pg_meta_decode(is_inline ? body->meta : payload->data + size,
			    from_le32(body->meta_crc), runs, blocks, push->runs, push->crcs);
	if (rc == 0)
		rc = pg_blocks_check(payload->data, push->crcs, blocks);
	return rc == -EINVAL ? -E_PROTOCOL : rc;
}

/*
 * Its blocks are those of this very version, but for damaged ones, and stay so while those are overwritten: a
 * push that stops half way has made nothing worse.
 */
static bool is_base(const struct push *push)
{
	const struct store_append *append = &push->append;
	struct store_object object;

	return store_object(pg_store_of(push->pg), push->pg->id, &append->key, &object) > 0 &&
	       object.is_missing && !object.is_partial &&
	       version_compare(object.version, append->version) == 0;
}

static uint32_t push_flags(const struct push *push, uint32_t flags)
{
	uint32_t out = STORE_UNSEQUENCED | STORE_ANY_PREVIOUS;

	if (flags & PEER_ENTRY_DELETE)
		return out | STORE_DELETE;
	if (flags & PEER_ENTRY_LAST)
		out |= STORE_CLEAR_MISSING;
	else if (RULE(J3_MISSING_FIRST) && flags & PEER_ENTRY_FIRST &&
		 (flags & PEER_ENTRY_REPLACE || !is_base(push)))
		out |= STORE_SET_MISSING;
	return out | (flags & PEER_ENTRY_REPLACE ? STORE_REPLACE : 0);
}

void pg_on_push(struct net_request *request)
{
	const struct peer_push *body = request->body;
	struct pg *pg = pg_gate(request, from_le64(body->epoch), from_le32(body->pg),
				from_le32(body->store), from_le64(body->join));
	struct push *push;
	int rc;

	if (!pg)
		return;
	rc = judge_push(pg, body);
	push = rc == 0 ? calloc(1, sizeof(*push)) : NULL;
	if (!push) {
		net_reply_status(request, rc < 0 ? rc : -ENOMEM);
		return;
	}
	push->pg = pg;
	push->request = request;
	rc = decode_push(push, body, &request->payload);
	if (rc == 0) {
		push->data = request->payload;
		push->data.size = from_le16(body->block_count) * BLOCK_SIZE;
		push->append = (struct store_append){
			.done = on_pushed,
			.pg = pg->id,
			.family = from_le64(body->family),
			.key = {.layer = from_le64(body->layer), .index = from_le32(body->index)},
			.version = {.reign = from_le64(body->reign), .n = from_le64(body->n)},
			.run_count = from_le16(body->run_count),
			.runs = push->runs,
			.slice_count = push->data.size > 0,
			.slices = &push->data,
			.crcs = push->data.size > 0 ? push->crcs : NULL,
		};
		push->append.flags = push_flags(push, from_le32(body->flags));
		rc = store_append(pg_store_of(pg), &push->append);
	}
	if (rc < 0) {
		net_reply_status(request, rc);
		push_free(push);
		return;
	}
	pg_set_hold(pg->set);
}

/* ---- FETCH ---- */

struct fetch {
	struct store_read read;
	struct pg *pg;
	struct net_request *request;
	uint64_t layer;
	struct version version;
	uint8_t states[PEER_FETCH_BLOCKS_MAX];
};

static void on_fetched(struct store_read *read, int result)
{
	struct fetch *fetch = container_of_type(read, struct fetch, read);
	struct pg *pg = fetch->pg;
	struct pg_set *set = pg->set;
	const struct peer_fetch_reply reply = {
		.epoch = to_le64(pg->epoch),
		.reign = to_le64(fetch->version.reign),
		.n = to_le64(fetch->version.n),
	};
	uint32_t size = read->count * BLOCK_SIZE;

	if (result == 0 && read->is_all_hole) {
		struct buffer *zeroes = buffer_new(set->arena.buffers, size);
		if (zeroes) {
			memset(zeroes->data, 0, size);
			read->data = slice_of(zeroes, 0, size);
		} else {
			result = -ENOMEM;
		}
	}
	if (result < 0)
		net_reply_status(fetch->request, result == -E_CHECKSUM ? -E_MISSING : result);
	else
		net_reply(fetch->request, 0, &reply, sizeof(reply), &read->data, 1);
	free(fetch);
	pg_set_release(set);
}

static int judge_fetch(const struct pg *pg, const struct peer_fetch *body)
{
	const struct object_key key = {.layer = from_le64(body->layer),
				       .index = from_le32(body->index)};
	const struct version version = {.reign = from_le64(body->reign), .n = from_le64(body->n)};
	struct store_object object;

	if (from_le32(body->flags) & ~(uint32_t)PEER_FETCH_MARKED || from_le32(body->count) == 0 ||
	    from_le32(body->count) > PEER_FETCH_BLOCKS_MAX ||
	    !range_is_within(from_le32(body->block), from_le32(body->count), OBJECT_BLOCKS))
		return -E_PROTOCOL;
	bool is_marked_enough = from_le32(body->flags) & PEER_FETCH_MARKED;

	if (store_object(pg_store_of(pg), pg->id, &key, &object) <= 0 ||
	    (object.is_missing && !is_marked_enough))
		return -E_MISSING;
	if (version_compare(object.version, version) != 0 && RULE(D1_HEAL_VERSION))
		return -E_VERSION;
	return object.is_in_flight ? -EAGAIN : 0; /* not what would be read */
}

void pg_on_fetch(struct net_request *request)
{
	const struct peer_fetch *body = request->body;
	struct pg *pg = pg_gate_read(request, from_le64(body->epoch), from_le32(body->pg),
				     from_le32(body->store));
	struct fetch *fetch;
	int rc;

	if (!pg)
		return;
	rc = judge_fetch(pg, body);
	if (rc == 0 && request->reply_max < from_le32(body->count) * BLOCK_SIZE)
		rc = -EINVAL;
	fetch = rc == 0 ? calloc(1, sizeof(*fetch)) : NULL;
	if (!fetch) {
		net_reply_status(request, rc < 0 ? rc : -ENOMEM);
		return;
	}
	fetch->pg = pg;
	fetch->request = request;
	fetch->layer = from_le64(body->layer);
	fetch->version = (struct version){.reign = from_le64(body->reign), .n = from_le64(body->n)};
	fetch->read = (struct store_read){
		.done = on_fetched,
		.pg = pg->id,
		.family = from_le64(body->family),
		.index = from_le32(body->index),
		.layers = &fetch->layer,
		.layer_count = 1,
		.block = from_le32(body->block),
		.count = from_le32(body->count),
		.is_salvage = from_le32(body->flags) & PEER_FETCH_MARKED,
		.states = fetch->states, /* lost blocks go as zeroes: the sums say what they are */
	};
	pg_set_hold(pg->set);
	store_read(pg_store_of(pg), &fetch->read);
}
