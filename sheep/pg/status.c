/* Figures for people and for metrics. */
#include <string.h>

#include "sheep/pg/pg_priv.h"

const struct pg_counter pg_counter_table[] = {
#define ROW(field, unit_text, help_text) \
	{.name = #field,                 \
	 .unit = unit_text,              \
	 .help = help_text,              \
	 .offset = offsetof(struct pg_counters, field)},
	PG_COUNTER_LIST(ROW)
#undef ROW
};

const uint32_t pg_counter_count = ARRAY_COUNT(pg_counter_table);

const struct pg_counters *pg_set_counters(const struct pg_set *set)
{
	return &set->counters;
}

static void fill(const struct pg *pg, struct pg_status *out)
{
	const struct pg_lead *lead = pg->lead;
	struct store_pg_info info;

	memset(out, 0, sizeof(*out));
	out->pg = pg->id;
	out->store = pg->store->id;
	out->epoch = pg->epoch;
	out->role = pg->role;
	out->state = pg_state_name(pg->state);
	out->waiting = pg->waiting_count;
	store_pg_info(pg_store_of(pg), pg->id, &info);
	out->objects = info.objects;
	out->missing = info.missing;
	out->lost = info.lost;
	out->data_bytes = info.data_blocks * BLOCK_SIZE;
	if (!lead)
		return;
	out->in_flight = lead->entry_count;
	for (uint32_t i = 0; i < lead->member_count; i++)
		if (lead->members[i]->filler && out->join_count < LOG_SEATS_MAX)
			pg_filler_status(lead->members[i]->filler, &out->joins[out->join_count++]);
}

int pg_set_status(const struct pg_set *set, uint32_t pg, uint32_t store, struct pg_status *out)
{
	uint64_t from = (uint64_t)pg << 32 | store;
	const struct pg *seat, *best = NULL;

	for (seat = set->pgs; seat; seat = seat->hh.next)
		if (seat->key >= from && seat->role != PG_ROLE_NONE &&
		    (!best || seat->key < best->key))
			best = seat;
	if (!best)
		return 0;
	fill(best, out);
	return 1;
}

bool pg_set_leads(struct pg_set *set, uint32_t pg, uint32_t store)
{
	const struct pg *seat = pg_find(set, pg, store);

	return seat && seat->lead;
}
