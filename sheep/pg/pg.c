/*
 * One seat: a placement group on a store of ours, and who we are in it.
 *
 *   IDLE <--map--> MEMBER              our store has stopped: FAILED, from anywhere
 *     \              |
 *      +---map makes us primary---> COLLECTING --all tails--> FENCED --the old one is silent--+
 *                                                                                             |
 *             WAITING <--too few in sync--> SERVING <-----------------------------------------+
 *                                              |
 *                                              +--another should lead--> LEAVING
 *
 * Always true: (1) only a SERVING primary answers reads and writes; (2) a write is acknowledged
 * only when every member that must have it has it in its log; (3) the epoch never falls, and a
 * message of an older one changes nothing; (4) a new reign begins with COLLECTING.
 *
 * Leases are judged when an operation of a SERVING primary completes (lease.c), takeovers after silence
 * asked for by node (silence.c): neither is a state of a seat.
 */
#include <string.h>

#include "lib/base/cover.h"
#include "lib/base/rule.h"
#include "sheep/pg/pg_priv.h"

#define LEADING \
	(BIT(PG_COLLECTING) | BIT(PG_FENCED) | BIT(PG_SERVING) | BIT(PG_WAITING) | BIT(PG_LEAVING))

static const uint8_t pg_next[PG_STATE_COUNT] = {
	[PG_IDLE] = BIT(PG_MEMBER) | BIT(PG_COLLECTING) | BIT(PG_FAILED),
	[PG_MEMBER] = BIT(PG_IDLE) | BIT(PG_COLLECTING) | BIT(PG_FAILED),
	[PG_COLLECTING] = BIT(PG_IDLE) | BIT(PG_MEMBER) | BIT(PG_FENCED) | BIT(PG_SERVING) |
			  BIT(PG_WAITING) | BIT(PG_FAILED),
	[PG_FENCED] =
		BIT(PG_IDLE) | BIT(PG_MEMBER) | BIT(PG_SERVING) | BIT(PG_WAITING) | BIT(PG_FAILED),
	[PG_SERVING] =
		BIT(PG_IDLE) | BIT(PG_MEMBER) | BIT(PG_WAITING) | BIT(PG_LEAVING) | BIT(PG_FAILED),
	[PG_WAITING] =
		BIT(PG_IDLE) | BIT(PG_MEMBER) | BIT(PG_SERVING) | BIT(PG_LEAVING) | BIT(PG_FAILED),
	[PG_LEAVING] = BIT(PG_IDLE) | BIT(PG_MEMBER) | BIT(PG_SERVING) | BIT(PG_FAILED),
};

static const char *const pg_names[PG_STATE_COUNT] = {
	[PG_IDLE] = "idle",	  [PG_MEMBER] = "member",   [PG_COLLECTING] = "collecting",
	[PG_FENCED] = "fenced",	  [PG_SERVING] = "serving", [PG_WAITING] = "waiting",
	[PG_LEAVING] = "leaving", [PG_FAILED] = "failed",
};

const char *pg_state_name(enum pg_state state)
{
	return pg_names[state];
}

void pg_enter(struct pg *pg, enum pg_state next, const char *why)
{
	assert(pg_next[pg->state] & BIT(next));
	COVER_MOVE("pg", pg_next, pg_names, pg->state, next);
	log_debug("pg %u epoch %llu store %u: %s -> %s: %s", pg->id, (unsigned long long)pg->epoch,
		  pg->store->id, pg_state_name(pg->state), pg_state_name(next), why);
	pg->state = next;
	pg->entered_ns = loop_now(pg->set->loop);
	pg->progress_ns = pg->entered_ns;
	pg_set_active(pg);
}

static bool has_floor(const struct pg *pg)
{
	return cluster_pg_has_floor(pg->set->map, &pg->row);
}

static bool is_fenced(const struct pg *pg)
{
	const struct pg_lead *lead = pg->lead;

	/* The map may know by now that the old primary's node is dead. */
	return RULE(L3_FENCE) && lead->fence_ns && !lead->is_fence_confirmed &&
	       loop_now(pg->set->loop) < lead->fence_ns &&
	       cluster_pg_fence(pg->set->map, &pg->row) != 0;
}

/* The old primary is silent, our tails are settled or locked: answer clients if we may. */
static void serve_or_wait(struct pg *pg, const char *why)
{
	if (!has_floor(pg)) {
		if (pg->state != PG_WAITING) {
			pg_enter(pg, PG_WAITING, "too few members in sync");
			SIM_POINT(WAITING);
		}
		pg_settle_run(
			pg->lead); /* not committed here, but pushes pass what our store has */
		return;
	}
	if (pg->state != PG_SERVING) {
		SIM_POINT(SERVING);
		pg_enter(pg, PG_SERVING, why);
	}
	pg_settle_run(pg->lead);
	pg_io_rejudge(pg);
}

void pg_advance(struct pg *pg)
{
	if (pg->state == PG_COLLECTING && pg_collect_is_done(pg->lead)) {
		if (pg_settle_start(pg->lead) < 0)
			return; /* no memory: the tick tries again */
		if (is_fenced(pg)) {
			pg_enter(pg, PG_FENCED, "the old primary may still serve");
			SIM_POINT(FENCED);
		} else {
			serve_or_wait(pg, "all tails are here");
		}
	} else if (pg->state == PG_FENCED && !is_fenced(pg)) {
		serve_or_wait(pg, "the old primary is silent");
	} else if (pg->state == PG_SERVING || pg->state == PG_WAITING) {
		serve_or_wait(pg, "enough members are in sync");
	}
}

/* ---- the map ---- */

static enum pg_role role_of(const struct pg *pg)
{
	const struct cluster_seat *seat = cluster_pg_seat(&pg->row, pg->store->id);

	if (pg->row.primary == pg->store->id)
		return PG_ROLE_PRIMARY;
	if (seat && !(seat->flags & CLUSTER_SEAT_MARKED))
		return PG_ROLE_MEMBER;
	return seat || cluster_pg_join(&pg->row, pg->store->id) ? PG_ROLE_JOINING : PG_ROLE_NONE;
}

static void lead(struct pg *pg, bool is_new_epoch)
{
	if (pg->lead && pg->lead->reign != pg->row.reign)
		pg_lead_end(pg, -E_NOT_PRIMARY);
	if (!pg->lead) {
		if (pg_is_leading(pg))
			pg_enter(pg, PG_MEMBER, "another reign");
		if (pg_lead_begin(pg) < 0)
			log_error("pg %u: no memory to lead it: trying again", pg->id);
		return;
	}
	if (pg_lead_members(pg->lead) < 0)
		log_error("pg %u: no memory for its members: trying again", pg->id);
	if (is_new_epoch && pg->state == PG_COLLECTING)
		pg_collect_start(pg->lead);
	if (is_new_epoch && pg->state == PG_LEAVING)
		pg_enter(pg, PG_SERVING, "the epoch changed");
	pg_lead_commit(pg->lead);
	pg_advance(pg);
}

static void follow(struct pg *pg)
{
	pg_lead_end(pg, -E_NOT_PRIMARY);
	if (pg->role == PG_ROLE_NONE) {
		pg_part_reset(pg);
		if (pg->state != PG_IDLE)
			pg_enter(pg, PG_IDLE, "no part in it");
	} else if (pg->state != PG_MEMBER) {
		pg_enter(pg, PG_MEMBER, "another store leads");
	}
}

/* What a member knows of its stream ends with the reign, or with the join that began it. */
static void check_stream(struct pg *pg, enum pg_role old_role)
{
	const struct cluster_join *join = cluster_pg_join(&pg->row, pg->store->id);
	bool was_expanded = old_role == PG_ROLE_JOINING && pg->role == PG_ROLE_MEMBER;

	if (pg->part.stream.reign != pg->row.reign)
		pg_part_reset(pg);
	else if (pg->role == PG_ROLE_JOINING && join && pg->part.join != join->index)
		pg_part_reset(pg);
	else if (pg->role != old_role && !was_expanded)
		pg_part_reset(pg);
}

/*
 * Since when may nobody count our acknowledgements who has not applied the fence's entry? Only those
 * of an unmarked member are asked for.
 */
static void note_fence(struct pg *pg)
{
	bool is_asked = pg->role == PG_ROLE_MEMBER || pg->role == PG_ROLE_PRIMARY;
	uint64_t index = is_asked ? pg->row.fence_index : 0;

	if (pg->fence_index == index)
		return;
	pg->fence_index = index;
	/* They name this entry since a moment before this one (L1). */
	pg->fence_ns = loop_clock(pg->set->loop);
}

void pg_apply(struct pg *pg, const struct cluster_pg *row)
{
	enum pg_role old_role = pg->role;
	bool is_new_epoch = row->epoch != pg->epoch;

	pg_formers_note(pg, row);
	memcpy(&pg->row, row, sizeof(pg->row));
	pg->epoch = row->epoch;
	pg->role = role_of(pg);
	note_fence(pg);
	pg_set_active(pg);
	if (pg->store->is_failed) {
		pg_fail(pg);
		return;
	}
	if (pg->role != PG_ROLE_NONE)
		pg->has_data = true;
	if (is_new_epoch)
		pg_part_epoch(pg);
	check_stream(pg, old_role);
	if (pg->role == PG_ROLE_PRIMARY)
		lead(pg, is_new_epoch);
	else
		follow(pg);
	pg_io_rejudge(pg);
}

void pg_withdraw(struct pg *pg)
{
	if (pg->state == PG_IDLE || pg->state == PG_FAILED)
		return;
	pg->role = PG_ROLE_NONE;
	pg->fence_index = 0;
	pg_lead_end(pg, -E_NOT_PRIMARY);
	pg_part_reset(pg);
	pg_enter(pg, PG_IDLE, "another start of the store is registered");
	pg_io_rejudge(pg);
}

void pg_fail(struct pg *pg)
{
	pg_lead_end(pg, -E_NOT_PRIMARY);
	pg_election_end(pg);
	pg_part_reset(pg);
	if (pg->state != PG_FAILED)
		pg_enter(pg, PG_FAILED, "the store has stopped");
	pg_io_rejudge(pg);
	pg_set_active(pg);
}

/* ---- the tick ---- */

static bool is_due(uint64_t *last_ns, uint64_t now, uint64_t pause_ns)
{
	if (*last_ns && now < *last_ns + pause_ns)
		return false;
	*last_ns = now;
	return true;
}

static bool tick_failed(struct pg *pg, uint64_t now)
{
	const struct cluster_store *row = cluster_store(pg->set->map, pg->store->id);

	if (!row || row->incarnation != pg->store->incarnation ||
	    (row->flags & CLUSTER_STORE_FAILED))
		return false;
	if (is_due(&pg->store->proposed_ns, now, PG_PROPOSE_NS))
		pg_set_propose(pg->set,
			       cluster_command_store_failed(pg->store->id, pg->store->incarnation));
	return true;
}

static bool tick_join(struct pg *pg, uint64_t now)
{
	if (pg->role != PG_ROLE_NONE || pg->is_dropped || !pg->store->is_known ||
	    !cluster_pg_wants_join(pg->set->map, &pg->row, pg->store->id))
		return false;
	if (is_due(&pg->join_proposed_ns, now, PG_PROPOSE_NS))
		pg_set_propose(pg->set, cluster_command_pg_join(pg->id, pg->store->id,
								pg->store->incarnation));
	return true;
}

/* Marks of damage that are still in flight are holes, too: nothing tells when the disk has them. */
static bool has_missing(const struct pg *pg)
{
	struct store_pg_info info;
	struct store_digest digest;

	store_pg_info(pg_store_of(pg), pg->id, &info);
	if (info.missing > 0)
		return true;
	store_pg_digest(pg_store_of(pg), pg->id, &digest);
	return digest.missing > 0;
}

/* Tell the log whether objects are missing here (S1, J5). */
static bool tick_holes(struct pg *pg, uint64_t now)
{
	const struct cluster_seat *seat = cluster_pg_seat(&pg->row, pg->store->id);
	bool is_told = seat && (seat->flags & CLUSTER_SEAT_HOLES);

	if (!seat || (seat->flags & CLUSTER_SEAT_MARKED) || (!pg->has_holes && !is_told))
		return false;
	pg->has_holes = has_missing(pg);
	if (pg->has_holes == is_told)
		return pg->has_holes;
	if (is_due(&pg->holes_proposed_ns, now, PG_PROPOSE_NS))
		pg_set_propose(pg->set,
			       cluster_command_pg_holes(pg->id, pg->epoch, pg->store->id,
							pg->store->incarnation, pg->has_holes));
	return true;
}

static void dropped(struct loop_op *op, int result)
{
	struct pg *pg = container_of_type(op, struct pg, drop_op);

	pg->is_dropped = false;
	if (result < 0)
		pg->has_data = true; /* tried again */
	pg_set_active(pg);
	pg_set_release(pg->set);
}

/* What we no longer hold goes, once nobody can need it. */
static bool tick_drop(struct pg *pg)
{
	if (!pg->has_data || pg->role != PG_ROLE_NONE || pg->is_dropped || !pg->row.epoch ||
	    cluster_pg_has_target(&pg->row, pg->store->id) ||
	    cluster_pg_health(pg->set->map, &pg->row) != CLUSTER_HEALTHY)
		return false;
	log_info("pg %u: store %u has no place in it any more: dropping its copy", pg->id,
		 pg->store->id);
	pg->is_dropped = true;
	pg->has_data = false;
	pg->drop_op.done = dropped;
	pg_set_hold(pg->set);
	store_drop_pg(pg_store_of(pg), pg->id, &pg->drop_op);
	return false;
}

bool pg_tick(struct pg *pg, uint64_t now)
{
	bool more = false;

	if (!pg->set->map || !pg->store->is_known)
		return false;
	if (pg->state == PG_FAILED)
		return tick_failed(pg, now);
	if (pg->role == PG_ROLE_PRIMARY && !pg->lead) {
		lead(pg, false);
		more = true;
	}
	if (pg->lead) {
		pg_advance(pg);
		more |= pg_lead_tick(pg->lead, now);
	}
	more |= pg_elect_tick(pg, now);
	more |= pg_io_tick(pg);
	more |= tick_join(pg, now);
	more |= tick_holes(pg, now);
	more |= tick_drop(pg);
	return more;
}
