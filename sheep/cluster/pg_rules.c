/*
 * The rules of one placement group's seats, primary and joins.
 *
 * Every change of a PG, whatever the command, goes through pg_put(), which leaves:
 * (1) no absent member that the floor allows to lose: min_insync members without mark
 *     and holes stay listed, dead or not, so that those who are listed hold all that was
 *     ever acknowledged;
 * (2) a primary exactly when a member without mark is up;
 * (3) no members beyond the target once all of the target is in sync, but the primary,
 *     which must stop serving before it hands over;
 * (4) no join of a store that is absent, restarted, or has no place here.
 *
 * The epoch rises when the primary, the list of members or a mark changes. Marks: see
 * cluster.h and REPLICATION R3.
 */
#include <stdlib.h>

#include "lib/base/assert.h"
#include "lib/base/rule.h"
#include "lib/base/size.h"
#include "sheep/cluster/cluster_priv.h"

/* ---- reading ---- */

const struct cluster_policy *pg_policy(const struct cluster_map *map, const struct cluster_pg *pg)
{
	return cluster_policy(map, pg->id >> CLUSTER_PG_POLICY_SHIFT);
}

const struct cluster_seat *cluster_pg_seat(const struct cluster_pg *pg, uint32_t store)
{
	for (uint32_t i = 0; i < pg->isr_count; i++)
		if (pg->isr[i].store == store)
			return &pg->isr[i];
	return NULL;
}

const struct cluster_join *cluster_pg_join(const struct cluster_pg *pg, uint32_t store)
{
	for (uint32_t i = 0; i < pg->join_count; i++)
		if (pg->joining[i].store == store)
			return &pg->joining[i];
	return NULL;
}

bool cluster_pg_has_target(const struct cluster_pg *pg, uint32_t store)
{
	for (uint32_t i = 0; i < pg->target_count; i++)
		if (pg->target[i] == store)
			return true;
	return false;
}

/* In sync and complete: what the floor counts. */
static bool seat_counts(const struct cluster_seat *seat)
{
	return !(seat->flags & (CLUSTER_SEAT_MARKED | CLUSTER_SEAT_HOLES));
}

uint32_t cluster_pg_in_sync(const struct cluster_pg *pg)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < pg->isr_count; i++)
		count += seat_counts(&pg->isr[i]);
	return count;
}

bool cluster_pg_has_floor(const struct cluster_map *map, const struct cluster_pg *pg)
{
	return cluster_pg_may_commit(map, pg);
}

bool cluster_pg_may_commit(const struct cluster_map *map, const struct cluster_pg *pg)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < pg->isr_count; i++)
		count += !(pg->isr[i].flags & CLUSTER_SEAT_MARKED);
	return count >= pg_policy(map, pg)->min_insync;
}

bool cluster_pg_may_elect(const struct cluster_pg *pg)
{
	for (uint32_t i = 0; i < pg->isr_count; i++)
		if ((pg->isr[i].flags & CLUSTER_SEAT_MARKED) &&
		    !(pg->isr[i].flags & CLUSTER_SEAT_STALE))
			return true;
	return false;
}

uint32_t cluster_pg_primary_node(const struct cluster_map *map, const struct cluster_pg *pg)
{
	return pg->primary ? cluster_store_node(map, pg->primary) : 0;
}

bool cluster_pg_may_lose(const struct cluster_map *map, const struct cluster_pg *pg, uint32_t store)
{
	const struct cluster_seat *seat = cluster_pg_seat(pg, store);
	uint32_t left = cluster_pg_in_sync(pg) - (seat && seat_counts(seat));

	/* Marked, it is of no use to who has holes, and nothing is committed while it could be elected. */
	if (seat && (seat->flags & CLUSTER_SEAT_MARKED) && cluster_pg_may_commit(map, pg))
		return true;
	return !RULE(S1_FLOOR) || left >= pg_policy(map, pg)->min_insync;
}

bool pg_can_lead(const struct cluster_map *map, const struct cluster_pg *pg, uint32_t store)
{
	const struct cluster_seat *seat = cluster_pg_seat(pg, store);

	if (!seat || !cluster_store_is_up(map, store))
		return false;
	return !RULE(R3_MARKED_NOT_LEADING) || !(seat->flags & CLUSTER_SEAT_MARKED);
}

uint64_t cluster_pg_fence(const struct cluster_map *map, const struct cluster_pg *pg)
{
	const struct cluster_node *node;

	if (!pg->fence_index || !pg->fence_store)
		return pg->fence_index;
	node = cluster_node(map, pg->fence_node);
	if (!node)
		return 0; /* nodes that are up are never removed */
	if (node->incarnation != pg->fence_incarnation)
		return pg->fence_index;
	if (node->flags & (CLUSTER_NODE_DEAD | CLUSTER_NODE_LEFT))
		return 0;
	return pg->fence_store == pg->primary ? 0 : pg->fence_index;
}

/* ---- changing a copy ---- */

struct cluster_seat *pg_seat(struct cluster_pg *pg, uint32_t store)
{
	return (struct cluster_seat *)(uintptr_t)cluster_pg_seat(pg, store);
}

void pg_drop_seat(struct cluster_pg *pg, uint32_t store)
{
	struct cluster_seat *seat = pg_seat(pg, store);

	if (!seat)
		return;
	memmove(seat, seat + 1, (size_t)(pg->isr + pg->isr_count - (seat + 1)) * sizeof(*seat));
	memset(&pg->isr[--pg->isr_count], 0, sizeof(*seat));
}

void pg_drop_join(struct cluster_pg *pg, uint32_t store)
{
	struct cluster_join *join = (struct cluster_join *)(uintptr_t)cluster_pg_join(pg, store);

	if (!join)
		return;
	memmove(join, join + 1,
		(size_t)(pg->joining + pg->join_count - (join + 1)) * sizeof(*join));
	memset(&pg->joining[--pg->join_count], 0, sizeof(*join));
}

/* The incarnation in which @node had its stores before this command. */
static uint64_t incarnation_before(const struct cluster_edit *edit, uint32_t id)
{
	const struct cluster_node *node = cluster_node(edit->map, id);

	if (id == edit->restarted_node)
		return edit->restarted_incarnation;
	return node ? node->incarnation : 0;
}

void pg_lead(struct cluster_edit *edit, struct cluster_pg *pg, uint32_t store, enum silence silence)
{
	uint32_t old = pg->primary;

	if (old && silence == OLD_MAY_SERVE) {
		uint32_t node = cluster_store_node(edit->map, old);
		uint64_t incarnation = incarnation_before(edit, node);
		bool is_same = pg->fence_store == old && pg->fence_node == node &&
			       pg->fence_incarnation == incarnation;
		/* Two may be serving: neither of them alone can end the wait. */
		bool several = cluster_pg_fence(edit->map, pg) && !is_same;

		pg->fence_index = edit->index;
		pg->fence_store = several ? 0 : old;
		pg->fence_node = several ? 0 : node;
		pg->fence_incarnation = several ? 0 : incarnation;
	}
	pg->primary = store;
	pg->epoch = edit->index;
	pg->reign = edit->index;
}

/* ---- bringing it in line ---- */

static void drop_absent(const struct cluster_map *map, struct cluster_pg *pg)
{
	uint32_t i = 0;

	while (i < pg->isr_count) {
		uint32_t store = pg->isr[i].store;

		if (cluster_store_is_up(map, store) || !cluster_pg_may_lose(map, pg, store))
			i++;
		else
			pg_drop_seat(pg, store);
	}
}

static bool can_lead_whole(const struct cluster_map *map, const struct cluster_pg *pg,
			   uint32_t store)
{
	return pg_can_lead(map, pg, store) &&
	       (!(cluster_pg_seat(pg, store)->flags & CLUSTER_SEAT_HOLES) ||
		!RULE(J5_NOT_PROMOTED));
}

/* The target's order spreads a dead node's primaries over the others. 0: nobody can. */
static uint32_t candidate(const struct cluster_map *map, const struct cluster_pg *pg)
{
	for (uint32_t i = 0; i < pg->target_count; i++)
		if (can_lead_whole(map, pg, pg->target[i]))
			return pg->target[i];
	for (uint32_t i = 0; i < pg->isr_count; i++)
		if (can_lead_whole(map, pg, pg->isr[i].store))
			return pg->isr[i].store;
	for (uint32_t i = 0; i < pg->isr_count; i++)
		if (pg_can_lead(map, pg, pg->isr[i].store))
			return pg->isr[i].store;
	return 0;
}

static void choose_primary(struct cluster_edit *edit, struct cluster_pg *pg, enum silence silence)
{
	uint32_t store;

	if (pg->primary && pg_can_lead(edit->map, pg, pg->primary))
		return;
	store = candidate(edit->map, pg);
	if (store != pg->primary)
		pg_lead(edit, pg, store, silence);
}

static bool target_is_in_sync(const struct cluster_map *map, const struct cluster_pg *pg)
{
	if (pg->target_count < pg_policy(map, pg)->copies)
		return false;
	for (uint32_t i = 0; i < pg->target_count; i++)
		if (!can_lead_whole(map, pg, pg->target[i]))
			return false;
	return true;
}

static void drop_surplus(const struct cluster_map *map, struct cluster_pg *pg)
{
	uint32_t i = 0;

	if (!target_is_in_sync(map, pg))
		return;
	while (i < pg->isr_count) {
		uint32_t store = pg->isr[i].store;

		if (cluster_pg_has_target(pg, store) || store == pg->primary ||
		    !cluster_pg_may_lose(map, pg, store))
			i++;
		else
			pg_drop_seat(pg, store);
	}
}

static bool join_is_void(const struct cluster_map *map, const struct cluster_pg *pg,
			 const struct cluster_join *join)
{
	const struct cluster_store *store = cluster_store(map, join->store);
	const struct cluster_seat *seat = cluster_pg_seat(pg, join->store);

	if (RULE(J1_NEW_INCARNATION) &&
	    (!cluster_store_is_up(map, join->store) || store->incarnation != join->incarnation))
		return true;
	if (seat)
		return !(seat->flags & CLUSTER_SEAT_MARKED);
	return !cluster_pg_has_target(pg, join->store);
}

static void drop_void_joins(const struct cluster_map *map, struct cluster_pg *pg)
{
	uint32_t i = 0;

	while (i < pg->join_count) {
		if (join_is_void(map, pg, &pg->joining[i]))
			pg_drop_join(pg, pg->joining[i].store);
		else
			i++;
	}
}

/* Is another set in sync, or led by another? Holes and stale marks change neither. */
static bool members_differ(const struct cluster_pg *a, const struct cluster_pg *b)
{
	if (a->primary != b->primary || a->isr_count != b->isr_count)
		return true;
	for (uint32_t i = 0; i < a->isr_count; i++)
		if (a->isr[i].store != b->isr[i].store ||
		    ((a->isr[i].flags ^ b->isr[i].flags) & CLUSTER_SEAT_MARKED))
			return true;
	return false;
}

void pg_put(struct cluster_edit *edit, struct cluster_pg *pg, enum silence silence)
{
	const struct cluster_pg *before = cluster_pg(edit->map, pg->id);
	struct cluster_pg *after;

	drop_absent(edit->map, pg);
	choose_primary(edit, pg, silence);
	drop_surplus(edit->map, pg);
	drop_void_joins(edit->map, pg);
	if (members_differ(before, pg))
		pg->epoch = edit->index;
	if (memcmp(before, pg, sizeof(*pg)) == 0)
		return;
	after = edit_pg(edit, pg->id);
	if (after)
		memcpy(after, pg, sizeof(*after));
}

/* ---- all PGs ---- */

static const struct restart *find_restart(const struct restart *restarts, uint32_t count,
					  uint32_t store)
{
	for (uint32_t i = 0; i < count; i++)
		if (restarts[i].store == store)
			return &restarts[i];
	return NULL;
}

/* What a restart leaves of a member: who may have lost something is marked (R2, R3). */
static uint32_t flags_after(const struct restart *restart, uint32_t flags)
{
	bool is_new = RULE(R2_BLANK) && (restart->flags & LOG_STORE_NEW);
	bool is_unclean = RULE(R3_UNCLEAN_MARK) && (restart->flags & LOG_STORE_UNCLEAN);

	if (!is_new && !is_unclean)
		return flags;
	flags = (flags & ~(uint32_t)CLUSTER_SEAT_HOLES) | CLUSTER_SEAT_MARKED;
	return is_new ? flags | CLUSTER_SEAT_STALE : flags;
}

/*
 * L3: who holds the lock that the primary's earlier start held knows that it has ended, and has no need
 * to wait for it. Of another store of the same start that says nothing.
 */
static enum silence silence_of(const struct cluster_pg *pg, const struct restart *restarts,
			       uint32_t count, enum silence silence)
{
	const struct restart *restart = find_restart(restarts, count, pg->primary);

	return restart && (restart->flags & LOG_STORE_HELD) ? OLD_IS_SILENT : silence;
}

/* R1: every restart of a member is a new epoch, and that of the primary a new reign. */
static void restart_seats(struct cluster_edit *edit, struct cluster_pg *pg,
			  const struct restart *restarts, uint32_t count, enum silence silence)
{
	for (uint32_t i = 0; i < pg->isr_count; i++) {
		struct cluster_seat *seat = &pg->isr[i];
		const struct restart *restart = find_restart(restarts, count, seat->store);

		if (!restart)
			continue;
		pg->epoch = edit->index;
		seat->flags = flags_after(restart, seat->flags);
		if (seat->store == pg->primary && !(seat->flags & CLUSTER_SEAT_MARKED) &&
		    RULE(R1_NEW_EPOCH))
			pg_lead(edit, pg, seat->store, silence);
	}
}

void pgs_restart(struct cluster_edit *edit, const struct restart *restarts, uint32_t count,
		 enum silence silence)
{
	const struct cluster_pg *pg;
	uint32_t from = 0;

	while ((pg = cluster_pg_next(edit->map, from)) != NULL && !edit->no_memory) {
		enum silence of_pg = silence_of(pg, restarts, count, silence);
		struct cluster_pg copy;

		memcpy(&copy, pg, sizeof(copy));
		restart_seats(edit, &copy, restarts, count, of_pg);
		pg_put(edit, &copy, of_pg);
		from = copy.id + 1;
	}
}

void pgs_settle(struct cluster_edit *edit, enum silence silence)
{
	pgs_restart(edit, NULL, 0, silence);
}

bool pgs_end_fences(struct cluster_edit *edit, uint32_t node, uint64_t incarnation)
{
	const struct cluster_pg *pg;
	bool any = false;

	for (uint32_t from = 0; (pg = cluster_pg_next(edit->map, from)) != NULL;
	     from = pg->id + 1) {
		struct cluster_pg *after;

		if (!pg->fence_store || pg->fence_node != node ||
		    pg->fence_incarnation != incarnation)
			continue;
		after = edit_pg(edit, pg->id);
		if (!after)
			break; /* no memory: the edit is void */
		after->fence_index = after->fence_incarnation = 0;
		after->fence_store = after->fence_node = 0;
		any = true;
		pg = after;
	}
	return any;
}
