/*
 * What nobody has any more (REPLICATION, W2, J5).
 *
 *   all say no, nobody is away --> what is good of our copy is read --> an entry: this, and LOST blocks
 *
 * An object that is missing here and everywhere would keep its group from being whole for ever: no joining
 * store could be filled, and none of the members would count. But old data must not take its place, as if
 * it were current. So the loss is told: by an entry of the order like any change, which all members
 * have, and which replaces the object. Blocks whose checksum is right stay what they are; the others are
 * in the state LOST. To read those is an error; a write, a trim or a deletion makes them good, and
 * nobody is ever told anything else.
 *
 * Trap: a copy that is missing because a push or a heal stopped half way is a mixture of two versions. The
 * store knows which blocks were found damaged, and whether that was all (store_read.is_salvage).
 */
#include <stdlib.h>
#include <string.h>

#include "sheep/pg/heal.h"

#define SALVAGES_MAX 4u /* reading may find more damage, each time */
#define AGAIN_NS     (200 * NS_PER_MS)

struct salvage {
	struct store_read read;
	struct pg_heal *heal;
	uint8_t states[OBJECT_BLOCKS];
	uint32_t crcs[OBJECT_BLOCKS];
	struct store_run runs[OBJECT_BLOCKS];
};

static void salvage_free(struct salvage *salvage)
{
	buffer_put(salvage->read.data.buffer);
	free(salvage);
}

/* All blocks but the absent ones; checksums of data move to the front. Returns how many runs there are. */
static uint32_t make_runs(struct salvage *salvage)
{
	uint32_t runs = 0, crcs = 0;

	for (uint32_t i = 0; i < OBJECT_BLOCKS; i++) {
		struct store_run *last = runs ? &salvage->runs[runs - 1] : NULL;
		if (salvage->states[i] == BLOCK_ABSENT)
			continue;
		if (last && last->block + last->count == i && last->state == salvage->states[i])
			last->count++;
		else
			salvage->runs[runs++] = (struct store_run){
				.block = (uint16_t)i, .count = 1, .state = salvage->states[i]};
		if (salvage->states[i] == BLOCK_DATA)
			salvage->crcs[crcs++] = salvage->crcs[i];
	}
	return runs;
}

static int add_good(struct pg_entry *entry, struct salvage *salvage)
{
	uint32_t runs = make_runs(salvage), at = 0;
	int rc = pg_entry_runs(entry, salvage->runs, runs);
	struct buffer *buffer;

	if (rc < 0 || entry->block_count == 0)
		return rc;
	buffer = buffer_new(entry->pg->set->arena.buffers, entry->block_count * BLOCK_SIZE);
	if (!buffer)
		return -ENOMEM;
	for (uint32_t r = 0; r < runs; r++) {
		uint32_t bytes = salvage->runs[r].count * BLOCK_SIZE;
		if (salvage->runs[r].state != BLOCK_DATA)
			continue;
		memcpy(buffer->data + at,
		       salvage->read.data.data + salvage->runs[r].block * BLOCK_SIZE, bytes);
		at += bytes;
	}
	struct slice slice = slice_of(buffer, 0, at);
	rc = pg_entry_data(entry, &slice, 1, salvage->crcs);
	buffer_put(buffer);
	return rc;
}

static int add_nothing(struct pg_entry *entry)
{
	const struct store_run run = {.count = OBJECT_BLOCKS, .state = BLOCK_LOST};

	return pg_entry_runs(entry, &run, 1);
}

static uint32_t count_lost(const struct pg_entry *entry)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < entry->run_count; i++)
		count += entry->runs[i].state == BLOCK_LOST ? entry->runs[i].count : 0;
	return count;
}

/* @salvage: NULL: nothing of it is known to be good. */
static void submit(struct pg_heal *heal, struct salvage *salvage)
{
	struct pg_entry *entry = pg_entry_new(heal->lead);
	uint32_t lost;
	int rc;

	heal_rest(heal, AGAIN_NS); /* and then it is not missing any more, if all goes well */
	if (!entry)
		return;
	entry->flags = PEER_ENTRY_REPLACE;
	entry->append.key = heal->key;
	entry->append.family = heal->family;
	rc = salvage ? add_good(entry, salvage) : add_nothing(entry);
	lost = count_lost(entry);
	if (rc == 0)
		rc = pg_entry_submit(entry, true);
	if (rc < 0) {
		log_warning("pg %u: object %llu.%u: what is left of it cannot be written now: %s",
			    heal->pg->id, (unsigned long long)heal->key.layer, heal->key.index,
			    err_text(rc));
		pg_entry_drop(entry);
		return;
	}
	heal_rest(heal, 0);
	heal->set->counters.objects_lost++;
	log_error("pg %u: object %llu.%u: no copy is left of %u of its blocks: reading them is an "
		  "error until they are written again",
		  heal->pg->id, (unsigned long long)heal->key.layer, heal->key.index, lost);
}

static void on_salvaged(struct store_read *read, int result)
{
	struct salvage *salvage = container_of_type(read, struct salvage, read);
	struct pg_heal *heal = salvage->heal;
	struct pg_set *set = heal->set;

	heal->is_out = false;
	if (!heal->lead)
		heal_free(heal);
	else if (result == 0)
		submit(heal, salvage);
	else if (result == -E_MISSING)
		submit(heal, NULL);
	else
		heal_rest(heal, AGAIN_NS); /* more of it is damaged, and said to be by then */
	salvage_free(salvage);
	pg_set_release(set);
}

void heal_give_up(struct pg_heal *heal)
{
	struct salvage *salvage;

	if (heal->salvages++ == SALVAGES_MAX) {
		submit(heal, NULL);
		return;
	}
	salvage = calloc(1, sizeof(*salvage));
	if (!salvage) {
		heal_rest(heal, AGAIN_NS);
		return;
	}
	salvage->heal = heal;
	salvage->read = (struct store_read){
		.done = on_salvaged,
		.pg = heal->pg->id,
		.family = heal->family,
		.index = heal->key.index,
		.layers = &heal->key.layer,
		.layer_count = 1,
		.count = OBJECT_BLOCKS,
		.is_salvage = true,
		.crcs = salvage->crcs,
		.states = salvage->states,
	};
	heal->is_out = true;
	pg_set_hold(heal->set);
	store_read(pg_store_of(heal->pg), &salvage->read);
}
