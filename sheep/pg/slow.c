/*
 * A member that is far slower than its peers, for seconds, leaves for a time (DESIGN 5: slow is a fault).
 *
 * Each member's time to acknowledge is smoothed, and our own store's: by the clock of the turn, that is
 * there anyway. What was a second ago counts for little, however few were acknowledged since: one hang
 * that is over is not slowness, else it would seem to last where little is written. A member is slow when it takes `slow_factor` times what the median of the
 * others takes, and more than can be called normal for any disk. So overload, in which all
 * are slow, is nobody's fault. What stays slow for some seconds is proposed for removal, one at a
 * time and never below the floor; until that is decided nothing of its stream changes.
 *
 * It may join again at once, so that it is there when it is needed, but it is filled only after a
 * pause that doubles with each time, or when somebody else is lost.
 */
#include "sheep/pg/pg_priv.h"

#define SLOW_MIN_NS	(200 * NS_PER_MS)
#define SLOW_FOR_NS	(5 * NS_PER_S)
#define FRESH_NS	(3 * NS_PER_S)	/* older figures say nothing */
#define EXILE_NS	(60 * NS_PER_S) /* the first time */
#define EXILE_DOUBLES	5u
#define EXILE_FORGET_NS (3600 * NS_PER_S)
#define SMOOTH_NS	NS_PER_S /* a figure that comes so long after the last stands alone */
#define SMOOTH_PARTS	64u
#define SMOOTH_MIN	8u /* parts that any new figure counts for */

void pg_pace_note(struct pg_pace *pace, uint64_t now, uint64_t sent_ns)
{
	int64_t sample = (int64_t)(now - min_of(sent_ns, now)), before = (int64_t)pace->latency_ns;
	uint64_t since = now - min_of(pace->noted_ns, now);
	uint64_t parts = since < SMOOTH_NS ? since * SMOOTH_PARTS / SMOOTH_NS : SMOOTH_PARTS;
	int64_t weight = (int64_t)max_of(parts, (uint64_t)SMOOTH_MIN);

	pace->latency_ns = (uint64_t)(before + (sample - before) * weight / (int64_t)SMOOTH_PARTS);
	pace->noted_ns = now;
}

static bool is_fresh(const struct pg_pace *pace, uint64_t now)
{
	return pace->noted_ns && now <= pace->noted_ns + FRESH_NS;
}

/* The others in sync, our own store too. 0: nobody to compare with. */
static uint64_t median_of_others(const struct pg_lead *lead, const struct pg_member *but,
				 uint64_t now)
{
	uint64_t values[PG_MEMBERS_MAX + 1];
	uint32_t count = 0;

	for (uint32_t i = 0; i <= lead->member_count; i++) {
		const struct pg_member *member = i < lead->member_count ? lead->members[i] : NULL;
		const struct pg_pace *pace = member ? &member->pace : &lead->pace;
		uint32_t at = count;
		if (member == but || (member && member->kind != PG_MEMBER_ISR) ||
		    !is_fresh(pace, now))
			continue;
		for (; at > 0 && values[at - 1] > pace->latency_ns; at--)
			values[at] = values[at - 1];
		values[at] = pace->latency_ns;
		count++;
	}
	return count ? max_of(values[count / 2], (uint64_t)1) : 0;
}

static bool is_slow(const struct pg_lead *lead, const struct pg_member *member, uint64_t now)
{
	uint64_t factor = cluster_setting(lead->pg->set->map, CLUSTER_SETTING_SLOW_FACTOR);
	uint64_t others;

	if (factor == 0 || member->kind != PG_MEMBER_ISR || member->refused ||
	    !is_fresh(&member->pace, now) || member->pace.latency_ns <= SLOW_MIN_NS)
		return false;
	others = median_of_others(lead, member, now);
	return others && member->pace.latency_ns / others >= factor;
}

static bool can_be_spared(const struct pg_lead *lead)
{
	const struct cluster_policy *policy =
		cluster_policy(lead->pg->set->map, lead->id >> CLUSTER_PG_POLICY_SHIFT);

	return cluster_pg_in_sync(&lead->pg->row) > policy->min_insync;
}

static void evict(struct pg_lead *lead, struct pg_member *member, uint64_t now)
{
	struct pg *pg = lead->pg;

	lead->slow_ns = now;
	if (!member->is_evicted) {
		pg->set->counters.evictions++;
		log_warning("pg %u epoch %llu: store %u acknowledges within %llu ms, the others "
			    "within %llu ms: it is to leave for a time",
			    pg->id, (unsigned long long)pg->epoch, member->store,
			    (unsigned long long)(member->pace.latency_ns / NS_PER_MS),
			    (unsigned long long)(median_of_others(lead, member, now) / NS_PER_MS));
	}
	member->is_evicted = true;
	pg_set_propose(pg->set, cluster_command_pg_shrink(pg->id, pg->epoch, 0, &member->store, 1));
}

bool pg_slow_tick(struct pg_lead *lead, uint64_t now)
{
	struct pg_member *worst = NULL;
	bool more = false;

	for (uint32_t i = 0; i < lead->member_count; i++) {
		struct pg_member *member = lead->members[i];
		if (!is_slow(lead, member, now)) {
			member->slow_ns = 0;
			member->is_evicted = false;
			continue;
		}
		more = true;
		if (!member->slow_ns)
			member->slow_ns = now;
		if (now >= member->slow_ns + SLOW_FOR_NS &&
		    (!worst || member->pace.latency_ns > worst->pace.latency_ns))
			worst = member;
	}
	if (worst && now >= lead->slow_ns + PG_PROPOSE_NS && can_be_spared(lead))
		evict(lead, worst, now);
	return more;
}

/* ---- after it ---- */

static struct pg_exile *exile_of(struct pg_lead *lead, uint32_t store)
{
	for (uint32_t i = 0; i < lead->exile_count; i++)
		if (lead->exiles[i].store == store)
			return &lead->exiles[i];
	return NULL;
}

void pg_slow_gone(struct pg_lead *lead, const struct pg_member *member)
{
	uint64_t now = loop_now(lead->pg->set->loop);
	struct pg_exile *exile = exile_of(lead, member->store);

	if (!member->is_evicted)
		return;
	if (!exile && lead->exile_count == ARRAY_COUNT(lead->exiles))
		return;
	if (!exile) {
		exile = &lead->exiles[lead->exile_count++];
		*exile = (struct pg_exile){.store = member->store};
	}
	if (now > exile->until_ns + EXILE_FORGET_NS)
		exile->times = 0;
	exile->until_ns = now + (EXILE_NS << min_of(exile->times, EXILE_DOUBLES));
	exile->times++;
}

bool pg_slow_may_join(struct pg_lead *lead, uint32_t store, uint64_t now)
{
	const struct pg_exile *exile = exile_of(lead, store);

	return !exile || now >= exile->until_ns || pg_lead_is_short(lead);
}
