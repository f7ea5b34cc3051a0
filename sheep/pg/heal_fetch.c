/*
 * A missing object of ours from the member that has it, whose sums are known: the ranges that have data are asked for,
 * one at a time, checked and written; the last one makes the object whole.
 *
 * What our own copy claims to have is not compared: a block that fails its checksum has the right
 * sum in the index. But where ours is of the same version, what is not damaged of it stays.
 */
#include <string.h>

#include "sheep/pg/entry_codec.h"
#include "sheep/pg/heal.h"

static void fetch_next(struct pg_heal *heal);

static void on_healed_part(struct store_append *append, int result)
{
	struct pg_heal *heal = container_of_type(append, struct pg_heal, append);
	struct pg_set *set = heal->set;

	heal->is_out = false;
	buffer_put(heal->payload.buffer);
	heal->payload.buffer = NULL;
	if (!heal->lead)
		heal_free(heal);
	else if (result < 0)
		pg_set_store_failed(set, pg_store_of(heal->pg), result);
	else if (heal->from == OBJECT_BLOCKS) {
		heal->is_fetched = true;
		heal_rest(heal, 0);
		heal->is_resting = false;
		heal_go(heal); /* it ends, unless more damage was found meanwhile */
	} else {
		fetch_next(heal);
	}
	pg_set_release(set);
}

static void append_part(struct pg_heal *heal)
{
	uint32_t flags = 0;
	int rc;

	if (!heal->is_begun && !heal->is_in_place)
		flags |= STORE_REPLACE;
	if (heal->from == OBJECT_BLOCKS)
		flags |= STORE_CLEAR_MISSING;
	else if (flags & STORE_REPLACE)
		flags |= STORE_SET_MISSING;
	heal->is_begun = true;
	heal->append = (struct store_append){
		.done = on_healed_part,
		.pg = heal->pg->id,
		.family = heal->family,
		.key = heal->key,
		.version = heal->version,
		.flags = flags | STORE_UNSEQUENCED | STORE_ANY_PREVIOUS,
		.run_count = heal->run_count,
		.runs = heal->runs,
		.slice_count = heal->slice_count,
		.slices = heal->slices,
		.crcs = heal->slice_count ? heal->crcs : NULL,
	};
	heal->is_out = true;
	pg_set_hold(heal->set);
	rc = store_append(pg_store_of(heal->pg), &heal->append);
	if (rc == 0)
		return;
	heal->is_out = false;
	log_warning("pg %u: object %llu.%u cannot be healed now: %s", heal->pg->id,
		    (unsigned long long)heal->key.layer, heal->key.index, err_text(rc));
	heal_pause(heal);
	pg_set_release(heal->set);
}

void heal_fetch_absence(struct pg_heal *heal)
{
	heal->append = (struct store_append){
		.done = on_healed_part,
		.pg = heal->pg->id,
		.family = heal->family,
		.key = heal->key,
		.version = heal->version,
		.flags = STORE_DELETE | STORE_UNSEQUENCED | STORE_ANY_PREVIOUS,
	};
	heal->from = OBJECT_BLOCKS;
	heal->is_out = true;
	pg_set_hold(heal->set);
	if (store_append(pg_store_of(heal->pg), &heal->append) == 0)
		return;
	heal->is_out = false;
	heal_pause(heal);
	pg_set_release(heal->set);
}

/* The data runs of this range, as slices of what came. False: damaged on the way. */
static bool cut_payload(struct pg_heal *heal)
{
	uint32_t data = 0;

	heal->slice_count = 0;
	for (uint32_t i = 0; i < heal->run_count; i++) {
		const struct store_run *run = &heal->runs[i];
		if (run->state != BLOCK_DATA)
			continue;
		struct slice slice = heal->payload;
		slice.data += (run->block - heal->begin) * BLOCK_SIZE;
		slice.size = run->count * BLOCK_SIZE;
		for (uint32_t b = 0; b < run->count; b++)
			heal->crcs[data++] = heal->sums.crcs[run->block + b];
		heal->slices[heal->slice_count++] = slice;
	}
	data = 0;
	for (uint32_t i = 0; i < heal->slice_count; i++) {
		uint32_t blocks = heal->slices[i].size / BLOCK_SIZE;
		if (pg_blocks_check(heal->slices[i].data, heal->crcs + data, blocks) < 0)
			return false;
		data += blocks;
	}
	return true;
}

static void on_fetched(struct pg_ask *ask, int result)
{
	struct pg_heal *heal = ask->owner;
	const struct slice *payload = &ask->call.reply_slice;

	heal->is_out = false;
	if (!heal->lead) {
		heal_free(heal);
		return;
	}
	if (result == 0 && payload->size != (heal->end - heal->begin) * BLOCK_SIZE)
		result = -E_PROTOCOL;
	if (result < 0) {
		heal_try_next(heal, result);
		return;
	}
	heal->payload = net_call_take(&ask->call);
	pg_recovery_charge(heal->set, heal->payload.size);
	if (cut_payload(heal)) {
		append_part(heal);
		return;
	}
	buffer_put(heal->payload.buffer);
	heal->payload.buffer = NULL;
	heal_try_next(heal, -E_CHECKSUM);
}

bool heal_ask_blocks(struct pg_heal *heal, uint32_t flags, void *owner,
		     void (*done)(struct pg_ask *ask, int result))
{
	struct pg_ask *ask = pg_ask_new(heal->pg, heal->store, 0);

	if (!ask)
		return false;
	const struct peer_fetch body = {
		.epoch = to_le64(ask->epoch),
		.layer = to_le64(heal->key.layer),
		.family = to_le64(heal->family),
		.reign = to_le64(heal->version.reign),
		.n = to_le64(heal->version.n),
		.index = to_le32(heal->key.index),
		.block = to_le32(heal->begin),
		.count = to_le32(heal->end - heal->begin),
		.pg = to_le32(heal->pg->id),
		.store = to_le32(heal->store),
		.flags = to_le32(flags),
	};
	ask->owner = owner;
	heal->is_out = true;
	pg_ask_send(ask, PEER_CLASS_BULK, PEER_OP_FETCH, &body, sizeof(body), done);
	return true;
}

/* The next range of blocks: those without data need no question. */
static void fetch_next(struct pg_heal *heal)
{
	const struct store_run *last;

	heal->begin = bitmap_next(heal->diff.blocks, OBJECT_BLOCKS, heal->from);
	heal->end = min_of(heal->begin + HEAL_RANGE, OBJECT_BLOCKS);
	heal->slice_count = 0;
	heal->from = pg_diff_batch(&heal->diff, heal->sums.states, heal->begin, heal->end,
				   heal->runs, HEAL_RANGE, HEAL_RANGE, &heal->run_count);
	if (pg_runs_data_blocks(heal->runs, heal->run_count) == 0) {
		append_part(heal);
		return;
	}
	last = &heal->runs[heal->run_count - 1];
	heal->end = last->block + last->count;
	if (!heal_ask_blocks(heal, 0, heal, on_fetched))
		heal_pause(heal);
}

/* What is left of ours is of the same version: it stays, and what is damaged is written over. */
static void on_own_sums(struct store_sums *sums, int result)
{
	struct pg_heal *heal = container_of_type(sums, struct pg_heal, ours);
	struct pg_set *set = heal->set;

	heal->is_out = false;
	if (!heal->lead) {
		heal_free(heal);
	} else if (result < 0) {
		heal_pause(heal);
	} else {
		struct pg_sums ours;
		memcpy(ours.states, sums->states, sizeof(ours.states));
		memcpy(ours.crcs, sums->crcs, sizeof(ours.crcs));
		pg_diff_make(&heal->diff, heal->sums.states, heal->sums.crcs, &ours);
		fetch_next(heal);
	}
	pg_set_release(set);
}

void heal_fetch(struct pg_heal *heal)
{
	heal->from = 0;
	heal->is_begun = false;
	heal->is_in_place = !heal->is_partial && version_compare(heal->version, heal->own) == 0;
	if (!heal->is_in_place) {
		pg_diff_make(&heal->diff, heal->sums.states, heal->sums.crcs, NULL);
		fetch_next(heal);
		return;
	}
	heal->ours.done = on_own_sums;
	heal->ours.pg = heal->pg->id;
	heal->ours.key = heal->key;
	heal->is_out = true;
	pg_set_hold(heal->set);
	store_sums(pg_store_of(heal->pg), &heal->ours);
}
