/*
 * Who is away and may have what nobody here has: since when, for each store by itself.
 *
 * A store counts that is listed and cannot be asked, that the PG is to be at and that is not listed, or that was one of
 * these before, and is down: while the PG moves, a store that is not to keep it may leave, never to join again, and has all
 * that the new ones have not got yet. It keeps its copy until the PG is healthy, is asked as long as it is up, and its seat
 * answers though it has no part in the PG any more (gate.c). Each seat remembers them as it sees the rows of the map, so
 * whoever leads next knows them; not so a process that starts after they have left. A store's time
 * begins when it is seen to be away first, in this reign, and is forgotten as soon as it is seen to be back: so it is
 * looked at in every tick and whenever the members change, not only when somebody needs to know. An idle PG
 * is not ticked; then a time begins late, and is too short, never too long. Only time in which we ran ourselves counts
 * (awake.c): who was stopped for ten minutes finds everybody away for ten minutes, and they may have been back for nine.
 */
#include <string.h>

#include "sheep/pg/pg_priv.h"

/* Whoever was only late, or has refused an entry, is up: at the floor it stays so, and may be the one that has it. */
bool pg_member_may_be_asked(const struct pg_member *member)
{
	bool may_have_it = !member->refused || pg_member_is_late(member) ||
			   member->refused == -E_VERSION || member->refused == -E_MISSING;

	return may_have_it && cluster_store_is_up(member->lead->pg->set->map, member->store);
}

static bool is_away(const struct pg_lead *lead, uint32_t store)
{
	const struct pg_member *member = pg_lead_member(lead, store);

	return store != lead->pg->store->id && (!member || !pg_member_may_be_asked(member));
}

/* ---- who was here before ---- */

static bool is_named(const struct cluster_pg *row, uint32_t store)
{
	return cluster_pg_seat(row, store) || cluster_pg_join(row, store) ||
	       cluster_pg_has_target(row, store);
}

static void add_former(struct pg *pg, const struct cluster_pg *row, uint32_t store)
{
	uint32_t at = pg->former_count;

	if (store == pg->store->id || is_named(row, store))
		return;
	for (uint32_t i = 0; i < pg->former_count; i++)
		if (pg->formers[i].store == store)
			return;
	if (at == PG_FORMERS_MAX)
		memmove(pg->formers, pg->formers + 1, --at * sizeof(pg->formers[0]));
	pg->formers[at] = (struct pg_former){.store = store, .since_ns = pg_awake_ns(pg->set)};
	pg->former_count = at + 1;
}

/* Who is named again, or was taken out of the cluster. */
static void drop_formers(struct pg *pg, const struct cluster_pg *row)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < pg->former_count; i++)
		if (!is_named(row, pg->formers[i].store) &&
		    cluster_store(pg->set->map, pg->formers[i].store))
			pg->formers[count++] = pg->formers[i];
	pg->former_count = count;
}

void pg_formers_note(struct pg *pg, const struct cluster_pg *row)
{
	const struct cluster_pg *old = &pg->row;

	drop_formers(pg, row);
	for (uint32_t i = 0; i < old->isr_count; i++)
		add_former(pg, row, old->isr[i].store);
	for (uint32_t i = 0; i < old->join_count; i++)
		add_former(pg, row, old->joining[i].store);
	for (uint32_t i = 0; i < old->target_count; i++)
		add_former(pg, row, old->target[i]);
	if (cluster_pg_health(pg->set->map, row) == CLUSTER_HEALTHY)
		pg->former_count = 0; /* they drop what they have */
}

bool pg_former_may_be_asked(const struct pg *pg, const struct pg_former *former)
{
	return cluster_store_is_up(pg->set->map, former->store);
}

bool pg_former_is_younger(const struct pg *pg, uint64_t age_ns)
{
	uint64_t now = pg_awake_ns(pg->set);

	for (uint32_t i = 0; i < pg->former_count; i++)
		if (now - pg->formers[i].since_ns < age_ns)
			return true;
	return false;
}

/* ---- who is away ---- */

static struct pg_absence *find(struct pg_absence *list, uint32_t count, uint32_t store)
{
	for (uint32_t i = 0; i < count; i++)
		if (list[i].store == store)
			return &list[i];
	return NULL;
}

static void note(struct pg_lead *lead, uint32_t store, struct pg_absence *list, uint32_t *count)
{
	const struct pg_absence *before;

	if (!is_away(lead, store) || find(list, *count, store))
		return;
	before = find(lead->absences, lead->absence_count, store);
	list[(*count)++] = (struct pg_absence){
		.store = store, .since_ns = before ? before->since_ns : pg_awake_ns(lead->pg->set)};
}

void pg_absences_note(struct pg_lead *lead)
{
	const struct pg *pg = lead->pg;
	const struct cluster_pg *row = &pg->row;
	struct pg_absence list[PG_ABSENCES_MAX];
	uint32_t count = 0;

	for (uint32_t i = 0; i < lead->member_count; i++)
		note(lead, lead->members[i]->store, list, &count);
	for (uint32_t i = 0; i < row->target_count; i++)
		note(lead, row->target[i], list, &count);
	for (uint32_t i = 0; i < pg->former_count; i++)
		if (!pg_former_may_be_asked(pg, &pg->formers[i]))
			note(lead, pg->formers[i].store, list, &count);
	memcpy(lead->absences, list, count * sizeof(list[0]));
	lead->absence_count = count;
}

bool pg_absence_is_younger(struct pg_lead *lead, uint64_t age_ns)
{
	uint64_t now = pg_awake_ns(lead->pg->set);

	pg_absences_note(lead);
	if (lead->absence_count > 0 && pg_awake_was_paused(lead->pg->set))
		return true; /* they may have been back long ago */
	for (uint32_t i = 0; i < lead->absence_count; i++)
		if (now - lead->absences[i].since_ns < age_ns)
			return true;
	return false;
}
