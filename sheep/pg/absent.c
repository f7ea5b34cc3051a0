/*
 * Who is away and may have what nobody here has: since when, for each store by itself.
 *
 * A store counts that is listed and cannot be asked, or that the PG is to be at and that is not listed. Its time
 * begins when it is seen to be away first, in this reign, and is forgotten as soon as it is seen to be back: so it is
 * looked at in every tick and whenever the members change, not only when somebody needs to know. An idle PG
 * is not ticked; then a time begins late, and is too short, never too long.
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
	list[(*count)++] = (struct pg_absence){.store = store,
					       .since_ns = before ? before->since_ns
								  : loop_now(lead->pg->set->loop)};
}

void pg_absences_note(struct pg_lead *lead)
{
	const struct cluster_pg *row = &lead->pg->row;
	struct pg_absence list[PG_ABSENCES_MAX];
	uint32_t count = 0;

	for (uint32_t i = 0; i < lead->member_count; i++)
		note(lead, lead->members[i]->store, list, &count);
	for (uint32_t i = 0; i < row->target_count; i++)
		note(lead, row->target[i], list, &count);
	memcpy(lead->absences, list, count * sizeof(list[0]));
	lead->absence_count = count;
}

bool pg_absence_is_younger(struct pg_lead *lead, uint64_t age_ns)
{
	uint64_t now = loop_now(lead->pg->set->loop);

	pg_absences_note(lead);
	for (uint32_t i = 0; i < lead->absence_count; i++)
		if (now - lead->absences[i].since_ns < age_ns)
			return true;
	return false;
}
