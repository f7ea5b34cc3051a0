/*
 * What a seat has while its store is the primary: the members, what they have, who must go.
 *
 * A member is what the map lists besides us. ISR and SEALED ones must have an entry before it is
 * committed; FILLING ones get what they can use; MARKED ones wait for a join of theirs.
 *
 * Shrink before ack (S1): a member that refuses, or completes nothing for `write_deadline`
 * while something waits, is to go. That is proposed again and again, until the log has decided
 * one way or the other; nothing is acknowledged meanwhile.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/rule.h"
#include "sheep/pg/lease.h"
#include "sheep/pg/pg_priv.h"

/* A tick that comes so late means that we did not run: nobody else is to blame for it. */
#define HANDOVER_LOST 4u /* proposals, after which a hand-over that nobody wants is given up */
/* The log does not decide: serve on, and try again when it has decided anything, or after a while. */
#define HANDOVER_WAIT_NS  (2 * PG_PROPOSE_NS)
#define HANDOVER_AGAIN_NS (600 * NS_PER_S)
#define STALL_NS	  (500 * NS_PER_MS)

struct pg_member *pg_lead_member(const struct pg_lead *lead, uint32_t store)
{
	for (uint32_t i = 0; i < lead->member_count; i++)
		if (lead->members[i]->store == store)
			return lead->members[i];
	return NULL;
}

uint64_t pg_lead_told(const struct pg_lead *lead)
{
	bool is_settled = lead->has_settled && lead->settle_left == 0;

	return is_settled || !RULE(T2_COMMIT_POINT) ? lead->commit_n : 0;
}

bool pg_lead_may_commit(const struct pg_lead *lead)
{
	return cluster_pg_may_commit(lead->pg->set->map, &lead->pg->row);
}

bool pg_member_is_lost(const struct pg_member *member)
{
	return member->refused || !cluster_store_is_up(member->lead->pg->set->map, member->store);
}

bool pg_lead_is_short(const struct pg_lead *lead)
{
	for (uint32_t i = 0; i < lead->member_count; i++)
		if (lead->members[i]->kind == PG_MEMBER_ISR && pg_member_is_lost(lead->members[i]))
			return true;
	return !pg_lead_may_commit(lead);
}

/* ---- members ---- */

static struct pg_member *member_new(struct pg_lead *lead, uint32_t store)
{
	struct pg_member *member;

	if (lead->member_count == PG_MEMBERS_MAX)
		return NULL;
	member = calloc(1, sizeof(*member));
	if (!member)
		return NULL;
	member->lead = lead;
	member->store = store;
	member->kind = PG_MEMBER_MARKED;
	member->credit = UINT64_MAX; /* nothing reported yet */
	CDS_INIT_LIST_HEAD(&member->calls);
	lead->members[lead->member_count++] = member;
	return member;
}

static void member_free(struct pg_member *member)
{
	pg_filler_free(member->filler);
	pg_member_forget(member);
	free(member);
}

static bool is_listed(const struct pg *pg, uint32_t store)
{
	return cluster_pg_seat(&pg->row, store) || cluster_pg_join(&pg->row, store);
}

static void drop_unlisted(struct pg_lead *lead)
{
	uint32_t i = 0;

	while (i < lead->member_count) {
		struct pg_member *member = lead->members[i];
		if (is_listed(lead->pg, member->store)) {
			i++;
			continue;
		}
		lead->members[i] = lead->members[--lead->member_count];
		pg_slow_gone(lead, member);
		member_free(member);
	}
}

/* In sync: everything from here on must reach it. */
static void member_is_isr(struct pg_member *member, const struct cluster_seat *seat)
{
	if (member->kind != PG_MEMBER_ISR) {
		/* In sync without having been counted by us (J4): it may lack anything. */
		bool is_known = member->kind == PG_MEMBER_SEALED ||
				member->lead->pg->state == PG_COLLECTING;
		/* First what it is: to end a push lets a write go on, and that looks at it. */
		member->kind = PG_MEMBER_ISR;
		pg_filler_free(member->filler);
		member->filler = NULL;
		member->progress_ns = loop_now(member->lead->pg->set->loop);
		member->refused = 0;
		if (!is_known)
			pg_member_refuse(member, -E_MISSING);
	}
	if (!(seat->flags & CLUSTER_SEAT_HOLES)) {
		pg_filler_free(member->filler);
		member->filler = NULL;
	} else if (!member->filler) {
		(void)pg_filler_new(member, 0, 0); /* no memory: at the next map or tick */
	}
}

static void member_is_marked(struct pg_member *member)
{
	if (member->kind == PG_MEMBER_MARKED)
		return;
	member->kind = PG_MEMBER_MARKED; /* first: see above */
	member->lead->join_ns = 0;	 /* its join begins at once: nothing is committed before */
	pg_set_active(member->lead->pg);
	pg_member_forget(member);
	pg_filler_free(member->filler);
	member->filler = NULL;
	member->refused = 0;
}

static int member_is_joining(struct pg_member *member, const struct cluster_join *join,
			     bool is_new_epoch)
{
	if (member->filler && pg_filler_join(member->filler) == join->index) {
		if (is_new_epoch)
			pg_filler_epoch(member->filler);
		return 0;
	}
	/* An old join has ended, and a new one begins: in between it is nothing to anybody. */
	member_is_marked(member);
	int rc = pg_filler_new(member, join->index, join->incarnation);
	if (rc == 0)
		member->kind = PG_MEMBER_FILLING;
	return rc;
}

static int member_apply(struct pg_lead *lead, uint32_t store, bool is_new_epoch)
{
	const struct cluster_pg *row = &lead->pg->row;
	const struct cluster_seat *seat = cluster_pg_seat(row, store);
	const struct cluster_join *join = cluster_pg_join(row, store);
	struct pg_member *member = pg_lead_member(lead, store);

	if (store == lead->pg->store->id)
		return 0;
	if (!member)
		member = member_new(lead, store);
	if (!member)
		return -ENOMEM;
	member->node = cluster_store_node(lead->pg->set->map, store);
	if (seat && !(seat->flags & CLUSTER_SEAT_MARKED))
		member_is_isr(member, seat);
	else if (join)
		return member_is_joining(member, join, is_new_epoch);
	else
		member_is_marked(member);
	return 0;
}

/* What a member refused because it knew the new epoch first need not wait any longer (W1). */
static void resend_now(struct pg_lead *lead)
{
	uint64_t now = loop_now(lead->pg->set->loop);

	for (uint32_t i = 0; i < lead->member_count; i++) {
		struct pg_member *member = lead->members[i];
		if (!member->is_broken)
			continue;
		member->retries = 0;
		member->retry_ns = 0;
		pg_member_resend(member, now);
	}
}

int pg_lead_members(struct pg_lead *lead)
{
	const struct cluster_pg *row = &lead->pg->row;
	bool is_new_epoch = lead->members_epoch != row->epoch;
	int rc = 0;

	drop_unlisted(lead);
	for (uint32_t i = 0; i < row->isr_count && rc == 0; i++)
		rc = member_apply(lead, row->isr[i].store, is_new_epoch);
	for (uint32_t i = 0; i < row->join_count && rc == 0; i++)
		if (!cluster_pg_seat(row, row->joining[i].store))
			rc = member_apply(lead, row->joining[i].store, is_new_epoch);
	lead->needs_members = rc < 0;
	if (rc == 0)
		lead->members_epoch = row->epoch;
	if (is_new_epoch)
		resend_now(lead);
	pg_absences_note(lead);
	return rc;
}

/* ---- life ---- */

int pg_lead_begin(struct pg *pg)
{
	struct pg_lead *lead = calloc(1, sizeof(*lead));

	if (!lead)
		return -ENOMEM;
	assert(!pg_lead_find(pg->set, pg->id));
	lead->id = pg->id;
	lead->pg = pg;
	lead->reign = pg->row.reign;
	lead->next_n = 1;
	lead->tick_ns = loop_now(pg->set->loop);
	CDS_INIT_LIST_HEAD(&lead->entries);
	CDS_INIT_LIST_HEAD(&lead->works);
	CDS_INIT_LIST_HEAD(&lead->settles);
	CDS_INIT_LIST_HEAD(&lead->heals);
	pg_plan_init(&lead->plan);
	pg->lead = lead;
	HASH_ADD(hh, pg->set->leads, id, sizeof(lead->id), lead);
	pg->set->counters.takeovers++;
	lead->is_garbage_due = true;
	pg_enter(pg, PG_COLLECTING, "the map makes us primary");
	SIM_POINT(LEADS);
	if (pg_lead_members(lead) < 0)
		log_error("pg %u: no memory for its members: trying again", pg->id);
	lead->fence_index = cluster_pg_fence(pg->set->map, &pg->row);
	if (lead->fence_index) {
		lead->fence_ns = pg->fence_ns + pg_set_time(pg->set, CLUSTER_SETTING_GRACE);
		if (loop_clock(pg->set->loop) < lead->fence_ns)
			pg_fence_ask(lead);
	}
	pg_collect_start(lead);
	pg_advance(pg);
	return 0;
}

void pg_lead_end(struct pg *pg, int result)
{
	struct pg_lead *lead = pg->lead;
	struct pg_session *session, *next;

	if (!lead)
		return;
	HASH_DEL(pg->set->leads, lead);
	pg->lead = NULL; /* first: what ends gives locks back, and nobody may go on with one */
	pg_settle_end(lead);
	pg_heals_end(lead);
	pg_works_end(lead, result);
	pg_entries_end(lead, result);
	while (lead->member_count > 0)
		member_free(lead->members[--lead->member_count]);
	HASH_ITER(hh, lead->sessions, session, next) {
		HASH_DEL(lead->sessions, session);
		free(session);
	}
	pg_plan_done(&lead->plan);
	free(lead);
}

/* ---- who must go ---- */

void pg_member_refuse(struct pg_member *member, int why)
{
	struct pg *pg = member->lead->pg;

	if (member->refused)
		return;
	member->refused = why;
	log_warning("pg %u epoch %llu: store %u: %s: %s", pg->id, (unsigned long long)pg->epoch,
		    member->store, err_text(why),
		    member->kind == PG_MEMBER_ISR ? "it is to leave the in-sync set"
						  : "its join is to end");
	member->lead->shrink_ns = 0;
	pg_set_active(pg);
}

/* It lacks an entry for certain; else it only did not answer. */
static bool is_diverged(const struct pg_member *member)
{
	return member->refused == -E_VERSION || member->refused == -E_MISSING;
}

/* Would only copies with holes be left? Then nobody goes (S1). */
static bool may_shrink(const struct pg_lead *lead, uint32_t leaving)
{
	struct store_pg_info info;

	if (lead->pg->row.isr_count > leaving + 1)
		return true;
	store_pg_info(pg_store_of(lead->pg), lead->id, &info);
	return info.missing == 0;
}

static void propose_shrink(struct pg_lead *lead, bool diverged)
{
	struct pg *pg = lead->pg;
	uint32_t stores[PG_MEMBERS_MAX], count = 0;
	bool may_be_lost = diverged; /* at the floor it is marked */

	for (uint32_t i = 0; i < lead->member_count; i++) {
		struct pg_member *member = lead->members[i];
		if (member->refused && member->kind == PG_MEMBER_ISR &&
		    is_diverged(member) == diverged) {
			stores[count++] = member->store;
			may_be_lost |= cluster_pg_may_lose(pg->set->map, &pg->row, member->store);
		}
	}
	if (count == 0 || !may_be_lost || !may_shrink(lead, count))
		return;
	pg->set->counters.shrinks++;
	pg_set_propose(pg->set, cluster_command_pg_shrink(pg->id, pg->epoch,
							  diverged ? LOG_SHRINK_DIVERGED : 0,
							  stores, count));
	SIM_POINT(SHRINK_PROPOSED);
}

static bool tick_refused(struct pg_lead *lead, uint64_t now)
{
	struct pg *pg = lead->pg;
	bool any = false;

	for (uint32_t i = 0; i < lead->member_count; i++)
		any |= lead->members[i]->refused != 0;
	if (!any || (lead->shrink_ns && now < lead->shrink_ns + PG_PROPOSE_NS))
		return any;
	lead->shrink_ns = now;
	propose_shrink(lead, false);
	propose_shrink(lead, true);
	for (uint32_t i = 0; i < lead->member_count; i++) {
		struct pg_member *member = lead->members[i];
		const struct cluster_join *join = cluster_pg_join(&pg->row, member->store);
		if (member->refused && member->kind != PG_MEMBER_ISR && join)
			pg_set_propose(pg->set, cluster_command_pg_leave_join(pg->id, member->store,
									      join->index));
	}
	return true;
}

/* Its node acknowledges no beacons: so we have no lease as long as it is listed. */
static void judge_silence(struct pg_member *member)
{
	const struct pg_set *set = member->lead->pg->set;

	if (member->kind == PG_MEMBER_ISR && set->leases && member->node != set->node &&
	    pg_leases_is_silent(set->leases, member->node))
		pg_member_refuse(member, -EHOSTDOWN);
	else if (member->refused == -EHOSTDOWN)
		member->refused = 0; /* it is back before the log has decided */
}

/* ---- the tick ---- */

static bool tick_member(struct pg_member *member, uint64_t now, bool stalled)
{
	struct pg_set *set = member->lead->pg->set;
	bool more = !cds_list_empty(&member->calls);

	judge_silence(member);
	if (!more || stalled)
		member->progress_ns = now;
	else if (now - member->progress_ns > pg_set_time(set, CLUSTER_SETTING_WRITE_DEADLINE)) {
		/* If it is we who are cut off, others are to lead, and need it. */
		if (member->kind == PG_MEMBER_ISR && !pg_leases_is_isolated(set->leases))
			pg_member_refuse(member, -ETIMEDOUT);
		else if (member->kind != PG_MEMBER_ISR)
			pg_filler_broken(member->filler, -ETIMEDOUT);
		member->progress_ns = now;
	}
	if (member->is_broken)
		pg_member_resend(member, now);
	if (member->filler)
		more |= pg_filler_tick(member->filler, now);
	return more;
}

/* Marked members that are back are filled like joining ones; only their primary may ask for it. */
static bool tick_marked(struct pg_lead *lead, uint64_t now)
{
	struct pg *pg = lead->pg;
	bool any = false;

	for (uint32_t i = 0; i < lead->member_count; i++)
		any |= lead->members[i]->kind == PG_MEMBER_MARKED &&
		       cluster_store_is_up(pg->set->map, lead->members[i]->store);
	if (!any || (lead->join_ns && now < lead->join_ns + PG_PROPOSE_NS))
		return any;
	lead->join_ns = now;
	for (uint32_t i = 0; i < lead->member_count; i++) {
		const struct cluster_store *store =
			cluster_store(pg->set->map, lead->members[i]->store);
		if (lead->members[i]->kind == PG_MEMBER_MARKED &&
		    cluster_store_is_up(pg->set->map, store->id))
			pg_set_propose(pg->set, cluster_command_pg_join(pg->id, store->id,
									store->incarnation));
	}
	return true;
}

/* One small message to each member whose commit point is behind, once nothing else carries it. */
static bool tick_commit(struct pg_lead *lead, uint64_t now)
{
	uint64_t told = pg_lead_told(lead);
	bool more = false;

	for (uint32_t i = 0; i < lead->member_count; i++) {
		struct pg_member *member = lead->members[i];
		if (member->kind != PG_MEMBER_ISR || member->told_n >= told)
			continue;
		more = true;
		if (now >= lead->commit_ns + PG_COMMIT_IDLE_NS || lead->pg->state == PG_LEAVING)
			pg_commit_tell(member, told);
	}
	return more;
}

/*
 * What is in doubt is damaged here, and only the heir can settle it (T2). What waits for that goes back to its
 * gateway. What we have settled and written meanwhile the next primary finds in tails, like that of any reign.
 */
static bool must_yield(struct pg_lead *lead, uint32_t heir)
{
	struct pg *pg = lead->pg;

	if (!heir || (pg->state != PG_SERVING && pg->state != PG_WAITING))
		return false;
	log_warning("pg %u: what is in doubt is damaged here: store %u is to lead", pg->id, heir);
	lead->handover_ns = lead->leaving_ns = 0;
	pg_enter(pg, PG_LEAVING, "another store is to settle");
	SIM_POINT(LEAVING);
	pg_works_end(lead, -E_NOT_PRIMARY);
	return true;
}

static bool is_busy(struct pg_lead *lead)
{
	return lead->entry_count > 0 || !cds_list_empty(&lead->works) || lead->garbage_running > 0;
}

/* The log did not decide the last one, and has decided nothing since. */
static bool is_undecided(const struct pg_lead *lead, uint64_t now)
{
	return lead->undecided_ns && now < lead->undecided_ns + HANDOVER_AGAIN_NS &&
	       cluster_index(lead->pg->set->map) == lead->undecided_index;
}

/*
 * It has no quorum, maybe. What leads because it is better is not worth that clients wait. Should it commit after all,
 * it is a change of primary like any other: the next one collects what we have begun meanwhile.
 */
static bool has_waited(struct pg_lead *lead, uint64_t now)
{
	if (!lead->leaving_ns)
		lead->leaving_ns = now;
	if (!lead->handover_ns || now < lead->leaving_ns + HANDOVER_WAIT_NS)
		return false;
	lead->undecided_ns = now;
	lead->undecided_index = cluster_index(lead->pg->set->map);
	return true;
}

/* The target's first should lead: stop, let what is in flight end, hand over. */
static bool tick_handover(struct pg_lead *lead, uint64_t now)
{
	struct pg *pg = lead->pg;
	uint32_t heir = pg_settle_heir(lead);
	bool yields = heir != 0;

	if (must_yield(lead, heir))
		return true;
	if (pg->state != PG_SERVING && pg->state != PG_LEAVING)
		return false;
	if (!yields)
		heir = cluster_pg_successor(pg->set->map, &pg->row);
	if (pg->state == PG_SERVING) {
		if (heir && lead->settle_left == 0 && lead->heal_count == 0 &&
		    !is_undecided(lead, now)) {
			lead->handover_ns = lead->leaving_ns = 0;
			pg_enter(pg, PG_LEAVING, "another store is to lead");
			SIM_POINT(LEAVING);
		}
		return heir != 0;
	}
	/* Nothing was proposed, or it seems lost. Should it commit after all, it is a change of primary
	 * like any other: the next one collects what we have begun meanwhile. */
	if (!heir &&
	    (!lead->handover_ns || now >= lead->handover_ns + HANDOVER_LOST * PG_PROPOSE_NS)) {
		pg_enter(pg, PG_SERVING, "no other store is to lead after all");
		pg_advance(pg);
		return false;
	}
	if (!yields && has_waited(lead, now)) {
		pg_enter(pg, PG_SERVING, "the log does not say who is to lead");
		pg_advance(pg);
		return true;
	}
	if (!yields && is_busy(lead))
		return true;
	if (heir && (!lead->handover_ns || now >= lead->handover_ns + PG_PROPOSE_NS)) {
		lead->handover_ns = now;
		pg_set_propose(pg->set, cluster_command_pg_primary(pg->id, pg->epoch, heir));
	}
	return true;
}

bool pg_lead_tick(struct pg_lead *lead, uint64_t now)
{
	bool stalled = now > lead->tick_ns + STALL_NS;
	bool more = lead->entry_count > 0 || lead->pg->state != PG_SERVING;

	lead->tick_ns = now;
	pg_absences_note(lead);
	if (lead->needs_members)
		more |= pg_lead_members(lead) < 0;
	if (lead->pg->state == PG_COLLECTING)
		pg_collect_tick(lead, now);
	if (lead->pg->state == PG_COLLECTING || lead->pg->state == PG_FENCED)
		pg_fence_tick(lead, now);
	for (uint32_t i = 0; i < lead->member_count; i++)
		more |= tick_member(lead->members[i], now, stalled);
	/* A stream that was given up may have been the last that a synced entry waited for. */
	if (lead->sync_waits > 0)
		pg_lead_commit(lead);
	more |= tick_refused(lead, now);
	more |= pg_slow_tick(lead, now);
	more |= tick_marked(lead, now);
	more |= tick_commit(lead, now);
	pg_heal_wake(lead, now);
	more |= lead->heal_count > 0;
	if (lead->pg->state == PG_SERVING || lead->pg->state == PG_WAITING) {
		pg_settle_run(lead);
		more |= lead->settle_left > 0;
		more |= pg_heal_tick(lead);
	}
	if (lead->pg->state == PG_SERVING)
		more |= pg_garbage_tick(lead);
	more |= tick_handover(lead, now);
	return more;
}
