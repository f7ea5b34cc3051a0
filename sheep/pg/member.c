/*
 * A member's stream: entries in the order of its primary (REPLICATION, W1, W2).
 *
 * An entry is taken when its predecessor was: then our store gets it, and it is acknowledged when
 * it is in the log. What comes too early waits in `gaps`, what comes again in `again` until
 * it is applied. A member in sync that cannot apply an entry says so and takes no more: it
 * will be removed, and come back by lists. A joining one marks the object missing instead.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/crc32c.h"
#include "lib/base/rule.h"
#include "sheep/pg/entry_codec.h"
#include "sheep/pg/pg_priv.h"

/* An entry on its way into our store. */
struct apply {
	struct cds_list_head link;
	struct pg *pg;
	struct net_request *request;
	struct store_append append;
	uint64_t stream; /* id of it */
	uint64_t n;
	bool is_covered; /* a push brought it: nothing to do */
	bool is_missing; /* the object was marked instead */
	int result;
	struct store_run *runs;
	uint32_t *crcs;
	struct slice data;
	struct store_request *requests; /* of its object, or NULL */
	struct slice memory;		/* of runs and crcs, when they are not here: */
	struct store_run runs_inline[PG_RUNS_INLINE];
	uint32_t crcs_inline[PG_CRCS_INLINE];
};

size_t pg_apply_size(void)
{
	return sizeof(struct apply);
}

/* ---- the stream's life ---- */

void pg_part_init(struct pg *pg)
{
	CDS_INIT_LIST_HEAD(&pg->part.gaps);
	CDS_INIT_LIST_HEAD(&pg->part.again);
	CDS_INIT_LIST_HEAD(&pg->part.applies);
}

static void refuse_list(struct cds_list_head *list, int status)
{
	while (!cds_list_empty(list)) {
		struct pg_parked *parked = cds_list_first_entry(list, struct pg_parked, link);
		cds_list_del(&parked->link);
		net_reply_status(parked->request, status);
		free(parked);
	}
}

void pg_part_end(struct pg *pg, int status)
{
	refuse_list(&pg->part.gaps, status);
	refuse_list(&pg->part.again, status);
	pg->part.gap_count = 0;
}

void pg_part_epoch(struct pg *pg)
{
	pg_part_end(pg, -E_STALE_EPOCH);
}

void pg_part_reset(struct pg *pg)
{
	struct pg_part *part = &pg->part;

	pg_part_end(pg, -E_STALE_EPOCH);
	part->id++;
	part->stream = (struct pg_stream){.reign = 0};
	part->has_stream = false;
	part->is_refusing = false;
	part->syncs = false;
	part->join = part->start = 0;
	free(part->requests);
	part->requests = NULL;
	part->request_count = 0;
}

void pg_part_begin(struct pg *pg, uint64_t reign, uint64_t n)
{
	pg_part_reset(pg);
	pg->part.stream = (struct pg_stream){.reign = reign, .n = n, .applied_n = n};
	pg->part.has_stream = true;
}

/*
 * The last entry in its store is not enough: behind that may be numbers it was not sent, because
 * they were pushed. What it acknowledged it has, or it would be marked (R3).
 */
void pg_part_find(struct pg *pg, uint64_t acknowledged)
{
	struct store_pg_info info;
	bool is_same;

	store_pg_info(pg_store_of(pg), pg->id, &info);
	is_same = info.last.reign == pg->row.reign;
	pg_part_begin(pg, pg->row.reign, max_of(is_same ? info.last.n : 0, acknowledged));
}

/* ---- answers ---- */

static void reply_applied(struct pg *pg, struct net_request *request, bool is_missing)
{
	const struct peer_append_reply reply = {
		.epoch = to_le64(pg->epoch),
		.applied_n = to_le64(pg->part.stream.applied_n),
		.credit = to_le64(store_credit(pg_store_of(pg), pg->id)),
		.flags = to_le32(is_missing ? PEER_APPEND_MISSING : 0),
	};

	net_reply(request, 0, &reply, sizeof(reply), NULL, 0);
}

/* Whether it was synced, too, nobody remembers. */
struct sync_again {
	struct loop_op op;
	struct pg *pg;
	struct net_request *request;
};

static void on_synced_again(struct loop_op *op, int result)
{
	struct sync_again *again = container_of_type(op, struct sync_again, op);
	struct pg_set *set = again->pg->set;

	if (result < 0)
		net_reply_status(again->request, -E_STORE_FAILED);
	else
		reply_applied(again->pg, again->request, false);
	free(again);
	pg_set_release(set);
}

static void acknowledge_again(struct pg *pg, struct net_request *request)
{
	const struct peer_append *body = request->body;
	struct sync_again *again;

	if (!(from_le32(body->flags) & PEER_ENTRY_SYNC) && !pg->part.syncs) {
		reply_applied(pg, request, false);
		return;
	}
	again = calloc(1, sizeof(*again));
	if (!again) {
		net_reply_status(request, -ENOMEM);
		return;
	}
	again->pg = pg;
	again->request = request;
	again->op.done = on_synced_again;
	pg_set_hold(pg->set);
	store_sync(pg_store_of(pg), pg->id, &again->op);
}

static void reply_again(struct pg *pg)
{
	struct pg_parked *parked, *next;

	cds_list_for_each_entry_safe(parked, next, &pg->part.again, link) {
		if (parked->n > pg->part.stream.applied_n)
			continue;
		cds_list_del(&parked->link);
		acknowledge_again(pg, parked->request);
		free(parked);
	}
}

static void apply_free(struct apply *apply)
{
	free(apply->requests);
	buffer_put(apply->memory.buffer);
	pool_put(apply->pg->set->applies, apply);
}

static void apply_end(struct apply *apply)
{
	struct pg *pg = apply->pg;
	struct pg_part *part = &pg->part;

	cds_list_del(&apply->link);
	if (apply->result == 0 && apply->stream == part->id)
		part->stream.applied_n = max_of(part->stream.applied_n, apply->n);
	if (apply->result == 0)
		reply_applied(pg, apply->request, apply->is_missing);
	else
		net_reply_status(apply->request, apply->result);
	apply_free(apply);
}

/* Those that needed nothing from the store are done when everything before them is. */
static void end_covered(struct pg *pg)
{
	while (!cds_list_empty(&pg->part.applies)) {
		struct apply *apply = cds_list_first_entry(&pg->part.applies, struct apply, link);
		if (!apply->is_covered)
			break;
		apply_end(apply);
	}
	reply_again(pg);
}

static void on_applied(struct store_append *append, int result)
{
	struct apply *apply = container_of_type(append, struct apply, append);
	struct pg *pg = apply->pg;
	struct pg_set *set = pg->set;

	SIM_POINT(ENTRY_APPLIED);
	apply->result = result < 0 ? -E_STORE_FAILED : 0;
	apply_end(apply);
	end_covered(pg);
	if (result < 0)
		pg_set_store_failed(set, pg_store_of(pg), result);
	pg_set_release(set);
}

/* ---- taking one ---- */

/* Bytes of the data, and of runs and checksums behind it. */
static uint32_t change_size(const struct peer_append *body)
{
	uint32_t runs = from_le16(body->run_count), blocks = from_le16(body->block_count);

	return blocks * BLOCK_SIZE +
	       (pg_meta_is_inline(runs, blocks) ? 0 : pg_meta_size(runs, blocks));
}

/* What is behind them: requests of the object, or nothing. */
static bool has_good_rest(const struct peer_append *body, uint32_t size)
{
	uint32_t rows = size - (uint32_t)sizeof(struct peer_entry_requests);

	if (!(from_le32(body->flags) & PEER_ENTRY_REQUESTS))
		return size == 0;
	return size >= sizeof(struct peer_entry_requests) &&
	       rows % sizeof(struct peer_entry_row) == 0 &&
	       rows / sizeof(struct peer_entry_row) <= PEER_ENTRY_ROWS_MAX &&
	       from_le64(body->session) == 0;
}

static int check_shape(const struct pg *pg, const struct net_request *request)
{
	const struct peer_append *body = request->body;

	if (from_le16(body->run_count) > OBJECT_BLOCKS ||
	    from_le16(body->block_count) > OBJECT_BLOCKS ||
	    request->payload.size < change_size(body) ||
	    !has_good_rest(body, request->payload.size - change_size(body)) ||
	    from_le64(body->reign) != pg->row.reign ||
	    !pg_holds_object(pg->set, pg->id, from_le64(body->family), from_le32(body->index)))
		return -E_PROTOCOL;
	return 0;
}

/* Runs and checksums to where the store may borrow them. */
static int decode(struct apply *apply)
{
	const struct net_request *request = apply->request;
	const struct peer_append *body = request->body;
	uint32_t runs = from_le16(body->run_count), blocks = from_le16(body->block_count);
	const uint8_t *meta = body->meta;
	int rc;

	apply->runs = apply->runs_inline;
	apply->crcs = apply->crcs_inline;
	if (runs > PG_RUNS_INLINE || blocks > PG_CRCS_INLINE) {
		uint32_t run_bytes = (uint32_t)round_up(runs * sizeof(*apply->runs), 8);
		apply->memory = pg_arena_take(&apply->pg->set->arena,
					      run_bytes + blocks * (uint32_t)sizeof(*apply->crcs));
		if (!apply->memory.buffer)
			return -ENOMEM;
		apply->runs = (void *)apply->memory.data;
		apply->crcs = (void *)(apply->memory.data + run_bytes);
	}
	if (!pg_meta_is_inline(runs, blocks))
		meta = request->payload.data + blocks * BLOCK_SIZE;
	rc = pg_meta_decode(meta, from_le32(body->meta_crc), runs, blocks, apply->runs,
			    apply->crcs);
	if (rc == 0)
		rc = pg_blocks_check(request->payload.data, apply->crcs, blocks);
	return rc == -EINVAL ? -E_PROTOCOL : rc;
}

/* The requests of the object: they may lie at any place in memory. */
static int decode_requests(struct apply *apply)
{
	const struct peer_append *body = apply->request->body;
	const uint8_t *at = apply->request->payload.data + change_size(body);
	struct peer_entry_requests head;
	struct peer_entry_row row;
	uint32_t count, crc;

	if (!(from_le32(body->flags) & PEER_ENTRY_REQUESTS))
		return 0;
	memcpy(&head, at, sizeof(head));
	at += sizeof(head);
	count = from_le32(head.row_count);
	if (apply->request->payload.size !=
	    change_size(body) + sizeof(head) + (uint64_t)count * sizeof(row))
		return -E_PROTOCOL;
	crc = from_le32(head.crc);
	head.crc = to_le32(0);
	if (crc32c_extend(crc32c(&head, sizeof(head)), at, count * sizeof(row)) != crc)
		return -E_CHECKSUM;
	apply->requests = calloc(max_of(count, 1u), sizeof(*apply->requests));
	if (!apply->requests)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++, at += sizeof(row)) {
		memcpy(&row, at, sizeof(row));
		apply->requests[i] = (struct store_request){
			.session = from_le64(row.session),
			.number = from_le64(row.number),
			.version = {.reign = from_le64(row.reign), .n = from_le64(row.n)},
			.key = {.layer = from_le64(body->layer), .index = from_le32(body->index)},
		};
	}
	apply->append.requests = apply->requests;
	apply->append.request_count = count;
	apply->append.above = (struct version){.reign = from_le64(head.above_reign),
					       .n = from_le64(head.above_n)};
	apply->append.flags |= STORE_REQUESTS;
	return 0;
}

static uint32_t store_flags(const struct pg *pg, uint32_t flags)
{
	bool any_previous = (flags & PEER_ENTRY_ANY) || !RULE(W2_PREVIOUS_VERSION);

	return (flags & PEER_ENTRY_DELETE ? STORE_DELETE : 0) |
	       (any_previous ? STORE_ANY_PREVIOUS : 0) |
	       (flags & PEER_ENTRY_REPLACE ? STORE_REPLACE : 0) |
	       (flags & PEER_ENTRY_SYNC || pg->part.syncs ? STORE_SYNC : 0) | STORE_GRANTED;
}

static void fill_append(struct apply *apply)
{
	const struct peer_append *body = apply->request->body;
	uint32_t blocks = from_le16(body->block_count);

	apply->data = apply->request->payload;
	apply->data.size = blocks * BLOCK_SIZE;
	apply->append = (struct store_append){
		.done = on_applied,
		.pg = apply->pg->id,
		.family = from_le64(body->family),
		.key = {.layer = from_le64(body->layer), .index = from_le32(body->index)},
		.version = {.reign = from_le64(body->reign), .n = from_le64(body->n)},
		.previous = {.reign = from_le64(body->previous_reign),
			     .n = from_le64(body->previous_n)},
		.session = from_le64(body->session),
		.number = from_le64(body->number),
		.lowest = from_le64(body->lowest),
		.flags = store_flags(apply->pg, from_le32(body->flags)),
		.run_count = from_le16(body->run_count),
		.runs = apply->runs,
		.slice_count = blocks > 0,
		.slices = &apply->data,
		.crcs = blocks ? apply->crcs : NULL,
	};
}

/* A push has brought the object to this version or a later one already. */
static bool is_covered(const struct apply *apply)
{
	struct store_object object;

	return store_object(pg_store_of(apply->pg), apply->pg->id, &apply->append.key, &object) >
		       0 &&
	       !object.is_missing && version_compare(object.version, apply->append.version) >= 0;
}

/* Joining, and the object is not what the entry builds on: it has to be pushed (W2, J3). */
static int append_mark(struct apply *apply)
{
	struct store_append *append = &apply->append;

	apply->is_missing = true;
	append->session = append->number = append->lowest = 0;
	append->flags = STORE_UNSEQUENCED | STORE_ANY_PREVIOUS | STORE_SET_MISSING;
	append->run_count = 0;
	append->slice_count = 0;
	append->crcs = NULL;
	return store_append(pg_store_of(apply->pg), append);
}

/*
 * In sync, and the object has the very version that the entry builds on, but is damaged: as if that had been found
 * just after the entry, which is in our log, too (W3). What is damaged still is healed at the new version. To refuse it
 * would leave one that is damaged at the primary, too, with nobody who has its version.
 */
static int append_over_damage(struct apply *apply)
{
	apply->pg->has_holes = true;
	pg_set_active(apply->pg);
	apply->append.flags |= STORE_ANY_PREVIOUS;
	return store_append(pg_store_of(apply->pg), &apply->append);
}

static int append_entry(struct apply *apply)
{
	struct pg *pg = apply->pg;
	int rc = store_append(pg_store_of(pg), &apply->append);

	if (rc == -E_MISSING && pg->role != PG_ROLE_JOINING)
		return append_over_damage(apply);
	if (rc != -E_VERSION && rc != -E_MISSING)
		return rc;
	if (pg->role != PG_ROLE_JOINING) {
		pg->part.is_refusing = true;
		pg->set->counters.diverged++;
		log_warning("pg %u epoch %llu: store %u cannot apply an entry: %s: it has to leave",
			    pg->id, (unsigned long long)pg->epoch, pg->store->id, err_text(rc));
		return rc;
	}
	if (is_covered(apply)) {
		apply->is_covered = true;
		return 0;
	}
	return append_mark(apply);
}

static int take(struct pg *pg, struct net_request *request)
{
	const struct peer_append *body = request->body;
	struct apply *apply = pool_get(pg->set->applies);
	int rc;

	if (!apply)
		return -EAGAIN;
	apply->pg = pg;
	apply->request = request;
	apply->n = from_le64(body->n);
	apply->stream = pg->part.id;
	rc = decode(apply);
	if (rc == 0) {
		fill_append(apply);
		rc = decode_requests(apply);
	}
	if (rc == 0)
		rc = append_entry(apply);
	if (rc < 0) {
		apply_free(apply);
		return rc;
	}
	pg->part.stream.n = apply->n;
	cds_list_add_tail(&apply->link, &pg->part.applies);
	if (apply->is_covered)
		end_covered(pg);
	else
		pg_set_hold(pg->set);
	return 0;
}

static void learn_commit(struct pg *pg, uint64_t commit_n)
{
	if (commit_n == 0 || pg->part.stream.n == 0)
		return;
	store_set_commit(pg_store_of(pg), pg->id,
			 (struct version){.reign = pg->part.stream.reign,
					  .n = min_of(commit_n, pg->part.stream.n)});
}

/* ---- what cannot be taken now ---- */

static void park(struct pg *pg, struct net_request *request, struct cds_list_head *list)
{
	const struct peer_append *body = request->body;
	struct pg_parked *parked, *other;

	if (pg->part.gap_count >= PG_GAPS_MAX) {
		net_reply_status(request, -EAGAIN);
		return;
	}
	parked = calloc(1, sizeof(*parked));
	if (!parked) {
		net_reply_status(request, -ENOMEM);
		return;
	}
	parked->request = request;
	parked->n = from_le64(body->n);
	parked->after = from_le64(body->after);
	pg->part.gap_count += list == &pg->part.gaps;
	cds_list_for_each_entry_reverse(other, list, link) if (other->n <= parked->n) break;
	cds_list_add(&parked->link, &other->link); /* the head itself when none is lower */
}

static void judge(struct pg *pg, struct net_request *request)
{
	const struct peer_append *body = request->body;
	uint64_t n = from_le64(body->n);
	int rc = 0;

	if (pg->part.is_refusing) {
		net_reply_status(request, -E_VERSION);
		return;
	}
	switch (pg_stream_judge(&pg->part.stream, from_le64(body->after), n)) {
	case PG_VERDICT_TAKE:
		rc = take(pg, request);
		if (rc == 0)
			learn_commit(pg, from_le64(body->commit_n));
		break;
	case PG_VERDICT_HAVE:
		if (n > pg->part.stream.applied_n)
			park(pg, request, &pg->part.again);
		else
			acknowledge_again(pg, request);
		break;
	case PG_VERDICT_GAP:
		if (RULE(W1_ORDER))
			park(pg, request, &pg->part.gaps);
		else
			rc = take(pg, request);
		break;
	case PG_VERDICT_LYING:
		rc = -E_PROTOCOL;
		break;
	}
	if (rc == 0)
		return;
	pg->set->counters.appends_refused++;
	net_reply_status(request, rc);
}

/* Those at the front whose predecessor has been taken by now, or that came twice. */
static void close_gaps(struct pg *pg)
{
	while (!cds_list_empty(&pg->part.gaps)) {
		struct pg_parked *parked =
			cds_list_first_entry(&pg->part.gaps, struct pg_parked, link);
		struct net_request *request = parked->request;
		if (parked->after > pg->part.stream.n && !pg->part.is_refusing)
			break;
		cds_list_del(&parked->link);
		pg->part.gap_count--;
		free(parked);
		judge(pg, request);
	}
}

void pg_on_append(struct net_request *request)
{
	const struct peer_append *body = request->body;
	struct pg *pg = pg_gate(request, from_le64(body->epoch), from_le32(body->pg),
				from_le32(body->store), 0);
	uint64_t acknowledged = from_le64(body->acknowledged);
	int rc = acknowledged > from_le64(body->after) ? -E_PROTOCOL : 0;

	if (!pg)
		return;
	pg->set->counters.appends_received++;
	/* In the present epoch, and that has us in sync: so the primary has applied the expand (J4). */
	if (pg->role == PG_ROLE_MEMBER)
		pg->part.syncs = false;
	if (rc == 0 && !pg->part.has_stream && pg->role == PG_ROLE_MEMBER)
		pg_part_find(pg, acknowledged);
	if (rc == 0)
		rc = pg->part.has_stream ? check_shape(pg, request) : -EAGAIN;
	if (rc < 0) {
		pg->set->counters.appends_refused++;
		net_reply_status(request, rc);
		return;
	}
	judge(pg, request);
	close_gaps(pg);
}

/* ---- commit points by themselves ---- */

static void on_commit_row(struct pg_set *set, const struct net_request *request,
			  const struct peer_commit_row *row)
{
	const struct wire_agreement *agreement = net_session_agreement(request->session);
	struct pg *pg = pg_find(set, from_le32(row->pg), from_le32(row->store));
	const struct cluster_node *node;

	if (!pg || pg->epoch != from_le64(row->epoch) || pg->role != PG_ROLE_MEMBER ||
	    !pg->part.has_stream || pg->part.stream.reign != from_le64(row->reign) ||
	    pg->state == PG_FAILED)
		return;
	node = cluster_node(set->map, cluster_pg_primary_node(set->map, &pg->row));
	if (node && uuid_is_equal(&node->uuid, &agreement->peer.node))
		learn_commit(pg, from_le64(row->commit_n));
}

void pg_on_commit(struct net_request *request)
{
	const struct peer_commit *body = request->body;
	struct pg_set *set = net_request_context(request);
	const struct peer_commit_row *rows = (const void *)request->payload.data;
	uint32_t count = from_le32(body->row_count);

	if (!set->is_stopping && set->map &&
	    request->payload.size == (uint64_t)count * sizeof(*rows))
		for (uint32_t i = 0; i < count; i++)
			on_commit_row(set, request, &rows[i]);
	net_request_done(request);
}
