/*
 * What nobody has any more (REPLICATION, W2, J5).
 *
 *   nobody has all of it, nobody is away --> what is good of our copy
 *     --> of each other damaged copy of that version, what we lack still --> an entry: this, and LOST blocks
 *
 * An object that is missing here and everywhere would keep its group from being whole for ever: no joining
 * store could be filled, and none of the members would count. But old data must not take its place, as if
 * it were current. So the loss is told: by an entry of the order like any change, which all members
 * have, and which replaces the object. Blocks whose checksum is right stay what they are; the others are
 * in the state LOST. To read those is an error; a write, a trim or a deletion makes them good, and
 * nobody is ever told anything else.
 *
 * The entry destroys whatever copy is left anywhere. So a block is lost only when each member was asked about the
 * object again and has told that this block is damaged there. All of that takes time; so it is looked once more,
 * at the very end, who is away: somebody may have left who was not asked. Whatever else happens, no memory, no space,
 * no answer, damage that was found just now, is no reason: then all of it begins again later.
 *
 * Trap: a copy that is missing because a push or a heal stopped half way is a mixture of two versions. The
 * store knows which blocks were found damaged, and whether that was all (store_object.is_partial).
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/rule.h"
#include "sheep/pg/entry_codec.h"
#include "sheep/pg/heal.h"

#define AGAIN_NS (200 * NS_PER_MS)

struct salvage {
	struct store_read read;
	struct pg_heal *heal;
	struct buffer *data; /* the whole object; NULL: none of it is data yet */
	bool has_version;    /* something is good, and is of this one */
	struct version version;
	uint8_t states[OBJECT_BLOCKS];
	uint32_t crcs[OBJECT_BLOCKS];
	uint64_t wanted[BITMAP_WORDS(OBJECT_BLOCKS)]; /* of the member that is asked */
	struct store_run runs[OBJECT_BLOCKS];
};

static void salvage_free(struct salvage *salvage)
{
	buffer_put(salvage->data);
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
		memcpy(buffer->data + at, salvage->data->data + salvage->runs[r].block * BLOCK_SIZE,
		       bytes);
		at += bytes;
	}
	struct slice slice = slice_of(buffer, 0, at);
	rc = pg_entry_data(entry, &slice, 1, salvage->crcs);
	buffer_put(buffer);
	return rc;
}

static uint32_t count_lost(const struct pg_entry *entry)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < entry->run_count; i++)
		count += entry->runs[i].state == BLOCK_LOST ? entry->runs[i].count : 0;
	return count;
}

/* Not now, for a reason that says nothing about the object. */
static void put_off(struct salvage *salvage)
{
	heal_rest(salvage->heal, AGAIN_NS);
	salvage_free(salvage);
}

/* What is ours, theirs and nobody's becomes the object. */
static void submit(struct salvage *salvage)
{
	struct pg_heal *heal = salvage->heal;
	struct pg_entry *entry = pg_entry_new(heal->lead);
	uint32_t lost;
	int rc;

	if (!entry) {
		put_off(salvage);
		return;
	}
	entry->flags = PEER_ENTRY_REPLACE;
	entry->append.key = heal->key;
	entry->append.family = heal->family;
	rc = add_good(entry, salvage);
	lost = count_lost(entry);
	if (rc == 0)
		rc = pg_requests_attach(entry);
	if (rc == 0) {
		const struct pg_loss loss = {.pg = heal->pg->id,
					     .key = heal->key,
					     .version = salvage->version,
					     .states = salvage->states};
		if (lost > 0)
			SIM_POINT_OF(LOSS_DECLARED, &loss);
		rc = pg_entry_submit(entry, true);
	}
	salvage_free(salvage);
	if (rc < 0) {
		log_warning("pg %u: object %llu.%u: what is left of it cannot be written now: %s",
			    heal->pg->id, (unsigned long long)heal->key.layer, heal->key.index,
			    err_text(rc));
		pg_entry_drop(entry);
		if (rc == -ENOSPC || rc == -E2BIG)
			heal_end(heal, -E_LOST); /* nobody can wait for that */
		else
			heal_rest(heal, AGAIN_NS);
		return;
	}
	heal_rest(heal, 0); /* and then it is not missing any more */
	if (lost == 0)
		return;
	heal->set->counters.objects_lost++;
	log_error("pg %u: object %llu.%u: no copy is left of %u of its blocks: reading them is an "
		  "error until they are written again",
		  heal->pg->id, (unsigned long long)heal->key.layer, heal->key.index, lost);
}

/* ---- from other copies ---- */

static void ask_next(struct salvage *salvage);
static void fetch_next(struct salvage *salvage);

/* What one that has no part in the PG any more cannot give now is not waited for by itself: it may never answer. */
static void got_nothing(struct salvage *salvage)
{
	struct pg_heal *heal = salvage->heal;

	if (!heal_is_former(heal, heal->store)) {
		put_off(salvage);
		return;
	}
	heal->any_unsure = true;
	ask_next(salvage);
}

/* Nothing is known to be good. */
static void forget_all(struct salvage *salvage)
{
	salvage->has_version = false;
	salvage->version = salvage->heal->own;
	memset(salvage->states, BLOCK_LOST, sizeof(salvage->states));
}

static bool is_complete(const struct salvage *salvage)
{
	return salvage->has_version &&
	       !memchr(salvage->states, BLOCK_LOST, sizeof(salvage->states));
}

/* The blocks of [begin, end) came. False: not those that the sums told of. */
static bool take_blocks(struct salvage *salvage, const uint8_t *data)
{
	const struct pg_heal *heal = salvage->heal;

	for (uint32_t i = heal->begin; i < heal->end; i++) {
		const uint8_t *block = data + (i - heal->begin) * BLOCK_SIZE;
		if (!bitmap_test(salvage->wanted, i))
			continue;
		if (pg_blocks_check(block, &heal->sums.crcs[i], 1) < 0)
			return false;
		memcpy(salvage->data->data + i * BLOCK_SIZE, block, BLOCK_SIZE);
		salvage->crcs[i] = heal->sums.crcs[i];
		salvage->states[i] = BLOCK_DATA;
	}
	return true;
}

static void on_blocks(struct pg_ask *ask, int result)
{
	struct salvage *salvage = ask->owner;
	struct pg_heal *heal = salvage->heal;
	const struct slice *payload = &ask->call.reply_slice;

	heal->is_out = false;
	if (!heal->lead) {
		heal_free(heal);
		salvage_free(salvage);
		return;
	}
	if (result == 0 && payload->size != (heal->end - heal->begin) * BLOCK_SIZE)
		result = -E_PROTOCOL;
	if (result < 0 || !take_blocks(salvage, payload->data)) {
		got_nothing(salvage);
		return;
	}
	pg_recovery_charge(heal->set, payload->size);
	heal->from = heal->end;
	fetch_next(salvage);
}

/* Neighbouring blocks that it has and we lack. */
static void fetch_next(struct salvage *salvage)
{
	struct pg_heal *heal = salvage->heal;

	heal->begin = bitmap_next(salvage->wanted, OBJECT_BLOCKS, heal->from);
	if (heal->begin >= OBJECT_BLOCKS) {
		ask_next(salvage);
		return;
	}
	heal->end = heal->begin;
	while (heal->end < OBJECT_BLOCKS && heal->end - heal->begin < HEAL_RANGE &&
	       bitmap_test(salvage->wanted, heal->end))
		heal->end++;
	if (!salvage->data)
		salvage->data = buffer_new(heal->set->arena.buffers, OBJECT_BLOCKS * BLOCK_SIZE);
	if (!salvage->data || !heal_ask_blocks(heal, PEER_FETCH_MARKED, salvage, on_blocks))
		put_off(salvage);
}

static void take_sums(struct salvage *salvage)
{
	struct pg_heal *heal = salvage->heal;

	if (!salvage->has_version || version_compare(heal->version, salvage->version) > 0)
		forget_all(salvage);
	salvage->has_version = true;
	salvage->version = heal->version;
	memset(salvage->wanted, 0, sizeof(salvage->wanted));
	for (uint32_t i = 0; i < OBJECT_BLOCKS; i++) {
		if (salvage->states[i] != BLOCK_LOST)
			continue;
		if (heal->sums.states[i] == BLOCK_DATA)
			bitmap_set(salvage->wanted, i);
		else
			salvage->states[i] = heal->sums.states[i];
	}
	heal->from = 0;
	fetch_next(salvage);
}

static void on_marked_sums(struct pg_ask *ask, int result)
{
	struct salvage *salvage = ask->owner;
	struct pg_heal *heal = salvage->heal;
	const struct peer_sums_reply *reply = ask->call.reply_body;
	const struct slice *payload = &ask->call.reply_slice;
	bool is_other, is_older;
	uint32_t flags;

	heal->is_out = false;
	if (!heal->lead) {
		heal_free(heal);
		salvage_free(salvage);
		return;
	}
	if (result == 0 && pg_sums_decode(payload->data, payload->size,
					  from_le32(reply->block_count), &heal->sums) < 0)
		result = -E_PROTOCOL;
	if (result < 0) {
		got_nothing(salvage);
		return;
	}
	flags = from_le32(reply->flags);
	heal->version =
		(struct version){.reign = from_le64(reply->reign), .n = from_le64(reply->n)};
	is_other = heal->must_equal && version_compare(heal->version, heal->own) != 0;
	is_older = salvage->has_version && version_compare(heal->version, salvage->version) < 0;
	if (!is_other && !(flags & PEER_OBJECT_MISSING))
		put_off(salvage); /* it has all of it by now, or none: asked again, that counts */
	else if (is_other || is_older || !(flags & PEER_OBJECT_MARKED))
		ask_next(salvage);
	else
		take_sums(salvage);
}

/*
 * All who are there, in sync or not: of a store that was elected after a total power loss, or whose other members have
 * just restarted, all others are joining. Those count only with the very version that we had (heal_must_equal()). What they
 * have of it is good, but for the damage: an entry that does not find what it builds on makes the object missing there as a
 * whole (member.c), and so does half a push (J3).
 */
static void ask_next(struct salvage *salvage)
{
	struct pg_heal *heal = salvage->heal;
	uint32_t store = 0;

	if (!is_complete(salvage)) {
		store = heal_next_store(heal);
		if (!store && heal_is_awaited(heal)) {
			put_off(salvage); /* who left meanwhile was not asked */
			return;
		}
	}
	if (!store) {
		submit(salvage);
		return;
	}
	heal->must_equal = heal_must_equal(heal, store);
	if (!heal_ask_sums(heal, store, salvage, on_marked_sums))
		put_off(salvage);
}

/* ---- from ours ---- */

static void on_salvaged(struct store_read *read, int result)
{
	struct salvage *salvage = container_of_type(read, struct salvage, read);
	struct pg_heal *heal = salvage->heal;
	struct pg_set *set = heal->set;

	heal->is_out = false;
	salvage->data = read->data.buffer;
	if (!heal->lead) {
		heal_free(heal);
		salvage_free(salvage);
	} else if (result < 0) {
		put_off(salvage); /* if more of it is damaged, that is known by then */
	} else {
		salvage->has_version = true;
		salvage->version = heal->own;
		ask_next(salvage);
	}
	pg_set_release(set);
}

void heal_give_up(struct pg_heal *heal)
{
	struct salvage *salvage = calloc(1, sizeof(*salvage));

	if (!salvage) {
		heal_rest(heal, AGAIN_NS);
		return;
	}
	salvage->heal = heal;
	heal->asked_count = 0;
	if (heal->is_partial) {
		forget_all(salvage);
		ask_next(salvage);
		return;
	}
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
