/*
 * Commands on placement groups. Each judges its condition, changes a copy of the PG and
 * gives it to pg_put() (pg_rules.c), which keeps what must always be true.
 */
#include "lib/base/assert.h"
#include "lib/base/rule.h"
#include "lib/base/size.h"
#include "sheep/cluster/cluster_priv.h"

/* A copy of the PG, if it exists and is in @epoch. */
static enum proto_status find_pg(struct cluster_edit *edit, uint32_t id, uint64_t epoch,
				 struct cluster_pg *out)
{
	const struct cluster_pg *pg = cluster_pg(edit->map, id);

	if (!pg)
		return refuse(edit, PROTO_STATUS_NOT_FOUND, "pg %u does not exist", id);
	if (RULE(S0_CONDITION) && pg->epoch != epoch)
		return refuse(edit, PROTO_STATUS_STALE_EPOCH,
			      "pg %u is in epoch %llu, the command names %llu", id,
			      (unsigned long long)pg->epoch, (unsigned long long)epoch);
	memcpy(out, pg, sizeof(*out));
	return PROTO_STATUS_OK;
}

static bool proposer_leads(const struct cluster_edit *edit, const struct cluster_pg *pg)
{
	return pg->primary && cluster_store_node(edit->map, pg->primary) == edit->node;
}

static bool proposer_has(const struct cluster_edit *edit, uint32_t store)
{
	return cluster_store_node(edit->map, store) == edit->node;
}

static enum proto_status refuse_not_primary(struct cluster_edit *edit, const struct cluster_pg *pg)
{
	return refuse(edit, PROTO_STATUS_NOT_PRIMARY, "node %u does not lead pg %u", edit->node,
		      pg->id);
}

/* ---- the target ---- */

static bool row_is_valid(const struct cluster_edit *edit, const struct cluster_pg *pg,
			 const struct log_retarget_row *row)
{
	uint32_t count = from_le32(row->count);

	if (!count || count > pg_policy(edit->map, pg)->copies)
		return false;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t store = from_le32(row->stores[i]);

		if (!cluster_store(edit->map, store))
			return false;
		for (uint32_t j = 0; j < i; j++)
			if (from_le32(row->stores[j]) == store)
				return false;
	}
	return true;
}

/* A PG that never had members has nothing to lose: its target is in sync at once. */
static void seat_first_members(struct cluster_edit *edit, struct cluster_pg *pg)
{
	for (uint32_t i = 0; i < pg->target_count; i++)
		if (cluster_store_is_up(edit->map, pg->target[i]))
			pg->isr[pg->isr_count++] = (struct cluster_seat){.store = pg->target[i]};
}

static void retarget(struct cluster_edit *edit, const struct cluster_pg *pg,
		     const struct log_retarget_row *row)
{
	struct cluster_pg next;

	memcpy(&next, pg, sizeof(next));
	memset(next.target, 0, sizeof(next.target));
	next.target_count = from_le32(row->count);
	for (uint32_t i = 0; i < next.target_count; i++)
		next.target[i] = from_le32(row->stores[i]);
	next.target_index = edit->index;
	if (!next.epoch)
		seat_first_members(edit, &next);
	pg_put(edit, &next, OLD_IS_SILENT);
}

enum proto_status apply_retarget(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_retarget_row *rows = log->rows;
	uint32_t done = 0;

	for (uint32_t i = 0; i < log->row_count; i++) {
		const struct cluster_pg *pg = cluster_pg(edit->map, from_le32(rows[i].pg));

		if (!pg || pg->target_index != from_le64(rows[i].target_index) ||
		    !row_is_valid(edit, pg, &rows[i]))
			continue;
		retarget(edit, pg, &rows[i]);
		done++;
	}
	return done ? PROTO_STATUS_OK
		    : refuse(edit, PROTO_STATUS_STALE_EPOCH, "no target is as the proposer saw it");
}

/* ---- out of the in-sync set ---- */

/* 1: it went, or is marked now. */
static unsigned shrink_one(struct cluster_edit *edit, struct cluster_pg *pg, uint32_t store,
			   uint32_t flags)
{
	struct cluster_seat *seat = pg_seat(pg, store);

	if (!seat)
		return 0;
	if (cluster_pg_may_lose(edit->map, pg, store)) {
		pg_drop_seat(pg, store);
		return 1;
	}
	if (!(flags & LOG_SHRINK_DIVERGED) || (seat->flags & CLUSTER_SEAT_MARKED))
		return 0;
	seat->flags = CLUSTER_SEAT_MARKED;
	return 1;
}

enum proto_status apply_pg_shrink(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_pg_shrink *body = log->body;
	const le32 *stores = log->rows;
	struct cluster_pg pg;
	enum proto_status status = find_pg(edit, from_le32(body->pg), from_le64(body->epoch), &pg);
	unsigned done = 0;

	if (status != PROTO_STATUS_OK)
		return status;
	if (!proposer_leads(edit, &pg))
		return refuse_not_primary(edit, &pg);
	for (uint32_t i = 0; i < log->row_count; i++)
		if (from_le32(stores[i]) == pg.primary)
			return refuse(edit, PROTO_STATUS_INVALID, "pg %u: the primary cannot go",
				      pg.id);
	for (uint32_t i = 0; i < log->row_count; i++)
		done += shrink_one(edit, &pg, from_le32(stores[i]), from_le32(body->flags));
	if (!done)
		return refuse(edit, PROTO_STATUS_BUSY,
			      "pg %u has %u members in sync and needs %u: it waits", pg.id,
			      cluster_pg_in_sync(&pg), pg_policy(edit->map, &pg)->min_insync);
	pg_put(edit, &pg, OLD_IS_SILENT);
	return PROTO_STATUS_OK;
}

enum proto_status apply_pg_holes(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_pg_holes *body = log->body;
	const struct cluster_store *store = cluster_store(edit->map, from_le32(body->store));
	struct cluster_pg pg;
	struct cluster_seat *seat;
	enum proto_status status = find_pg(edit, from_le32(body->pg), from_le64(body->epoch), &pg);

	if (status != PROTO_STATUS_OK)
		return status;
	seat = store ? pg_seat(&pg, store->id) : NULL;
	if (!seat || (seat->flags & CLUSTER_SEAT_MARKED) ||
	    store->incarnation != from_le64(body->incarnation))
		return refuse(edit, PROTO_STATUS_STALE_SESSION,
			      "pg %u: store %u is not in sync in that incarnation", pg.id,
			      from_le32(body->store));
	if (!proposer_has(edit, store->id) && !proposer_leads(edit, &pg))
		return refuse_not_primary(edit, &pg);
	seat->flags = from_le32(body->has_holes) ? CLUSTER_SEAT_HOLES : 0;
	pg_put(edit, &pg, OLD_IS_SILENT);
	return PROTO_STATUS_OK;
}

/* ---- who leads ---- */

static enum proto_status find_heir(struct cluster_edit *edit, const struct log_pg_store *body,
				   struct cluster_pg *pg)
{
	enum proto_status status = find_pg(edit, from_le32(body->pg), from_le64(body->epoch), pg);

	if (status != PROTO_STATUS_OK)
		return status;
	if (!pg_can_lead(edit->map, pg, from_le32(body->store)))
		return refuse(edit, PROTO_STATUS_INVALID, "pg %u: store %u is not up and in sync",
			      pg->id, from_le32(body->store));
	return PROTO_STATUS_OK;
}

static enum proto_status hand_over(struct cluster_edit *edit, struct cluster_pg *pg, uint32_t store)
{
	if (pg->primary != store)
		pg_lead(edit, pg, store, OLD_IS_SILENT);
	pg_put(edit, pg, OLD_IS_SILENT);
	return PROTO_STATUS_OK;
}

/*
 * The old primary goes: it would have to answer the new one before anybody is served (T1), and it is
 * silent. No fence: it has no lease without the new one's acknowledgements (L1). Where the floor forbids by
 * now that it goes it stays, and answers when it is back. To refuse instead would decide nothing: who
 * asked acknowledges no beacon of it before the epoch has moved (L2), so it could not serve either.
 */
static enum proto_status take_over(struct cluster_edit *edit, const struct log_pg_store *row)
{
	uint32_t store = from_le32(row->store);
	struct cluster_pg pg;
	enum proto_status status = find_heir(edit, row, &pg);

	if (status != PROTO_STATUS_OK)
		return status;
	if (!proposer_has(edit, store))
		return refuse(edit, PROTO_STATUS_READ_ONLY, "store %u is not one of node %u", store,
			      edit->node);
	if (pg.primary == store)
		return PROTO_STATUS_OK;
	if (cluster_pg_may_lose(edit->map, &pg, pg.primary))
		pg_drop_seat(&pg, pg.primary);
	return hand_over(edit, &pg, store);
}

/* By the members themselves, which have waited for grace (L2). Each row stands for itself. */
enum proto_status apply_pg_takeover(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_pg_store *rows = log->rows;
	enum proto_status first = PROTO_STATUS_OK;
	uint32_t done = 0;

	for (uint32_t i = 0; i < log->row_count; i++) {
		enum proto_status status = take_over(edit, &rows[i]);
		if (status == PROTO_STATUS_OK)
			done++;
		else if (first == PROTO_STATUS_OK)
			first = status;
	}
	if (done)
		edit->result->text[0] = 0; /* of the others */
	return done ? PROTO_STATUS_OK
	       : first != PROTO_STATUS_OK
		       ? first
		       : refuse(edit, PROTO_STATUS_INVALID, "a takeover of nothing");
}

/*
 * By the primary, which has stopped serving. It has served: whatever it was fenced from has no lease
 * any more, and gets none by an acknowledgement that names a later entry (L1).
 */
enum proto_status apply_pg_primary(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_pg_store *body = log->body;
	struct cluster_pg pg;
	enum proto_status status = find_heir(edit, body, &pg);

	if (status != PROTO_STATUS_OK)
		return status;
	if (!proposer_leads(edit, &pg))
		return refuse_not_primary(edit, &pg);
	if (pg.primary != from_le32(body->store)) {
		pg.fence_index = pg.fence_incarnation = 0;
		pg.fence_store = pg.fence_node = 0;
	}
	return hand_over(edit, &pg, from_le32(body->store));
}

bool cluster_pg_is_electable(const struct cluster_map *map, const struct cluster_pg *pg,
			     uint32_t store, bool *all_marked)
{
	const struct cluster_seat *seat = cluster_pg_seat(pg, store);
	bool all = true;

	for (uint32_t i = 0; i < pg->isr_count; i++)
		if (!(pg->isr[i].flags & CLUSTER_SEAT_MARKED))
			all = false;
	if (all_marked)
		*all_marked = all;
	/* Without a primary no unmarked member is up: pg_put() (2). */
	if (!pg->epoch || pg->primary || !seat || !(seat->flags & CLUSTER_SEAT_MARKED) ||
	    !cluster_store_is_up(map, store))
		return false;
	return !RULE(R4_NO_JOINER) || !(seat->flags & CLUSTER_SEAT_STALE);
}

enum proto_status apply_pg_elect(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_pg_store *body = log->body;
	uint32_t store = from_le32(body->store);
	struct cluster_pg pg;
	enum proto_status status = find_pg(edit, from_le32(body->pg), from_le64(body->epoch), &pg);

	if (status != PROTO_STATUS_OK)
		return status;
	if (!cluster_pg_is_electable(edit->map, &pg, store, NULL))
		return refuse(edit, PROTO_STATUS_INVALID, "pg %u: store %u cannot be elected",
			      pg.id, store);
	if (!proposer_has(edit, store))
		return refuse(edit, PROTO_STATUS_READ_ONLY, "store %u is not one of node %u", store,
			      edit->node);
	/* Members that were in sync and stayed away have another history from here on. */
	for (uint32_t i = 0; i < pg.isr_count; i++)
		if (!(pg.isr[i].flags & CLUSTER_SEAT_MARKED))
			pg.isr[i].flags = CLUSTER_SEAT_MARKED | CLUSTER_SEAT_STALE;
	pg_seat(&pg, store)->flags = 0;
	if (!RULE(R4_COMPARE))
		for (uint32_t i = 0; i < pg.isr_count; i++)
			pg.isr[i].flags = 0;
	memset(pg.joining, 0, sizeof(pg.joining));
	pg.join_count = 0;
	if (RULE(R4_LOSS_EPOCH))
		pg.loss_epoch = edit->index;
	pg_lead(edit, &pg, store, OLD_IS_SILENT);
	pg_put(edit, &pg, OLD_IS_SILENT);
	return PROTO_STATUS_OK;
}

/* The operator accepts loss: one store is believed, whatever it has. */
enum proto_status apply_pg_force(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_pg_store *body = log->body;
	uint32_t store = from_le32(body->store);
	struct cluster_pg pg;
	enum proto_status status = find_pg(edit, from_le32(body->pg), from_le64(body->epoch), &pg);

	if (status != PROTO_STATUS_OK)
		return status;
	if (!cluster_store_is_up(edit->map, store))
		return refuse(edit, PROTO_STATUS_INVALID, "pg %u: store %u is not up", pg.id,
			      store);
	if (!pg.epoch || cluster_pg_health(edit->map, &pg) != CLUSTER_DOWN)
		return refuse(edit, PROTO_STATUS_BUSY, "pg %u serves, or never had data", pg.id);
	memset(pg.isr, 0, sizeof(pg.isr));
	memset(pg.joining, 0, sizeof(pg.joining));
	pg.isr[0].store = store;
	pg.isr_count = 1;
	pg.join_count = 0;
	pg.loss_epoch = edit->index;
	pg.forced++;
	pg_lead(edit, &pg, store, OLD_MAY_SERVE);
	pg_put(edit, &pg, OLD_IS_SILENT);
	return PROTO_STATUS_OK;
}

/* ---- joining ---- */

static enum proto_status check_join(struct cluster_edit *edit, const struct cluster_pg *pg,
				    const struct cluster_store *store)
{
	const struct cluster_seat *seat = cluster_pg_seat(pg, store->id);
	const struct cluster_join *join = cluster_pg_join(pg, store->id);

	if (!pg->primary)
		return refuse(edit, PROTO_STATUS_NOT_PRIMARY, "pg %u has no primary", pg->id);
	if (seat && !(seat->flags & CLUSTER_SEAT_MARKED))
		return refuse(edit, PROTO_STATUS_EXISTS, "pg %u: store %u is in sync", pg->id,
			      store->id);
	if (join) {
		edit->result->id = join->index;
		return refuse(edit, PROTO_STATUS_EXISTS, "pg %u: store %u is joining already",
			      pg->id, store->id);
	}
	if (!seat && !cluster_pg_has_target(pg, store->id))
		return refuse(edit, PROTO_STATUS_INVALID, "pg %u: store %u has no place in it",
			      pg->id, store->id);
	/* A marked member that begins a join can be elected no more: so a primary must be there. */
	if (!proposer_leads(edit, pg) && (seat || !proposer_has(edit, store->id)))
		return refuse_not_primary(edit, pg);
	if (pg->join_count == LOG_COPIES_MAX)
		return refuse(edit, PROTO_STATUS_BUSY, "pg %u: %u stores are joining already",
			      pg->id, pg->join_count);
	return PROTO_STATUS_OK;
}

enum proto_status apply_pg_join(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_pg_join *body = log->body;
	const struct cluster_pg *pg = cluster_pg(edit->map, from_le32(body->pg));
	const struct cluster_store *store = cluster_store(edit->map, from_le32(body->store));
	struct cluster_pg next;
	enum proto_status status;

	if (!pg || !store)
		return refuse(edit, PROTO_STATUS_NOT_FOUND, "pg %u or store %u does not exist",
			      from_le32(body->pg), from_le32(body->store));
	if (!cluster_store_is_up(edit->map, store->id) ||
	    store->incarnation != from_le64(body->incarnation))
		return refuse(edit, PROTO_STATUS_STALE_SESSION,
			      "store %u is not up in that incarnation", store->id);
	status = check_join(edit, pg, store);
	if (status != PROTO_STATUS_OK)
		return status;
	memcpy(&next, pg, sizeof(next));
	memset(&next.joining[next.join_count], 0, sizeof(next.joining[0]));
	next.joining[next.join_count].store = store->id;
	next.joining[next.join_count].index = edit->index;
	next.joining[next.join_count].incarnation = store->incarnation;
	next.join_count++;
	if (pg_seat(&next, store->id))
		pg_seat(&next, store->id)->flags |= CLUSTER_SEAT_STALE;
	edit->result->id = edit->index;
	pg_put(edit, &next, OLD_IS_SILENT);
	return PROTO_STATUS_OK;
}

static enum proto_status refuse_no_join(struct cluster_edit *edit, uint32_t pg, uint32_t store)
{
	return refuse(edit, PROTO_STATUS_NOT_FOUND, "pg %u: that join of store %u has ended", pg,
		      store);
}

enum proto_status apply_pg_leave_join(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_pg_leave_join *body = log->body;
	const struct cluster_pg *pg = cluster_pg(edit->map, from_le32(body->pg));
	uint32_t store = from_le32(body->store);
	const struct cluster_join *join = pg ? cluster_pg_join(pg, store) : NULL;
	struct cluster_pg next;

	if (!join || join->index != from_le64(body->join))
		return refuse_no_join(edit, from_le32(body->pg), store);
	if (!proposer_leads(edit, pg) && !proposer_has(edit, store))
		return refuse_not_primary(edit, pg);
	memcpy(&next, pg, sizeof(next));
	pg_drop_join(&next, store);
	pg_put(edit, &next, OLD_IS_SILENT);
	return PROTO_STATUS_OK;
}

enum proto_status apply_pg_expand(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_pg_expand *body = log->body;
	uint32_t store = from_le32(body->store), drop = from_le32(body->drop);
	const struct cluster_join *join;
	struct cluster_seat *seat;
	struct cluster_pg pg;
	enum proto_status status = find_pg(edit, from_le32(body->pg), from_le64(body->epoch), &pg);

	if (status != PROTO_STATUS_OK)
		return status;
	if (!proposer_leads(edit, &pg))
		return refuse_not_primary(edit, &pg);
	join = cluster_pg_join(&pg, store);
	if (!join || (RULE(J1_JOIN_INDEX) && (join->index != from_le64(body->join) ||
					      join->incarnation != from_le64(body->incarnation))))
		return refuse_no_join(edit, pg.id, store);
	seat = pg_seat(&pg, store);
	if (!seat && pg.isr_count == LOG_SEATS_MAX)
		return refuse(edit, PROTO_STATUS_BUSY, "pg %u has %u members already", pg.id,
			      pg.isr_count);
	if (!seat)
		seat = &pg.isr[pg.isr_count++];
	*seat = (struct cluster_seat){.store = store};
	pg_drop_join(&pg, store);
	if (drop) {
		if (drop == pg.primary || drop == store ||
		    !cluster_pg_may_lose(edit->map, &pg, drop))
			return refuse(edit, PROTO_STATUS_BUSY, "pg %u: store %u cannot go", pg.id,
				      drop);
		pg_drop_seat(&pg, drop);
	}
	pg_put(edit, &pg, OLD_IS_SILENT);
	return PROTO_STATUS_OK;
}
