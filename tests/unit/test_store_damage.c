/*
 * What a disk does that does not keep its word: it damages, loses and misdirects writes. Nothing wrong is
 * served, what was synced is not called the end of the log, and the counts stay right.
 *
 * Trap: damage that nobody would have noticed anyway. Each test says which entry it hits, and asserts what
 * becomes of that one and of its neighbours.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/log.h"
#include "sheep/store/batch.h"
#include "tests/unit/store_audit.h"
#include "tests/unit/store_life.h"

#define ENTRIES 10u
#define SEGMENT RIG_PATH "/segment.00.00000"

static const struct store_options small = {
	.size_bytes = 24 * MIB, .segment_bytes = 1 * MIB, .has_small_segments = true};

static void drop_line(struct logger *logger, enum log_level level, const char *line)
{
}

/* Batches 1 to ENTRIES, each a descriptor and one block, in the first segment from its start. */
static void put_entries(struct rig *rig, uint32_t flags)
{
	rig_init(rig, 1, &small);
	rig_open_ok(rig);
	rig_settle(rig, 1 * NS_PER_S);
	for (uint32_t i = 1; i <= ENTRIES; i++)
		assert_int_equal(rig_put(rig, 0, 1, i, i, 0, 1, BLOCK_DATA, i, flags), 0);
}

static void spoil(struct rig *rig, uint64_t offset)
{
	uint8_t byte;

	assert_int_equal(sim_file_peek(rig->host, SEGMENT, &byte, 1, offset), 1);
	byte ^= 0x20;
	assert_int_equal(sim_file_poke(rig->host, SEGMENT, &byte, 1, offset), 0);
}

static uint64_t descriptor_of(uint32_t entry)
{
	return (uint64_t)(entry - 1) * 2 * BLOCK_SIZE + 100;
}

static uint64_t payload_of(uint32_t entry)
{
	return descriptor_of(entry) + BLOCK_SIZE;
}

static bool has_entry(struct rig *rig, uint32_t i)
{
	struct store_object object;

	return store_object(rig->store, 0, &(struct object_key){1, i}, &object);
}

static int read_entry(struct rig *rig, uint32_t i)
{
	uint32_t tag = 0;
	int rc = rig_read(rig, 0, 1, i, 0, 1, &tag);

	assert_true(rc < 0 || tag == i || (tag == RIG_TAG_ABSENT && !has_entry(rig, i)));
	return rc;
}

/* ---- the end of the log, and damage in the middle of it ---- */

static void test_descriptor_below_a_synced_batch_is_damage_and_the_last_one_is_the_end(void **state)
{
	for (uint32_t hit = 1; hit <= ENTRIES; hit++) {
		bool is_last = hit == ENTRIES;
		struct rig rig;

		put_entries(&rig, STORE_SYNC);
		rig_crash(&rig);
		spoil(&rig, descriptor_of(hit));
		rig_open_ok(&rig);
		/* Of the last batch no other says that it was synced. */
		assert_int_equal(store_identity(rig.store)->lost_log, !is_last);
		for (uint32_t i = 1; i <= ENTRIES; i++)
			assert_int_equal(has_entry(&rig, i), i < hit);
		store_audit(rig.store);
		/* It stays said, and what was behind never comes back. */
		rig_stop(&rig);
		rig_open_ok(&rig);
		assert_int_equal(store_identity(rig.store)->lost_log, !is_last);
		for (uint32_t i = 1; i <= ENTRIES; i++)
			assert_int_equal(has_entry(&rig, i), i < hit);
		rig_done(&rig);
	}
}

static void test_payload_below_a_synced_batch_makes_its_object_missing_and_no_other(void **state)
{
	for (uint32_t hit = 1; hit < ENTRIES; hit++) {
		struct store_object object;
		struct rig rig;

		put_entries(&rig, STORE_SYNC);
		rig_crash(&rig);
		spoil(&rig, payload_of(hit));
		rig.is_damaged = true;
		rig_open_ok(&rig);
		assert_false(store_identity(rig.store)->lost_log);
		for (uint32_t i = 1; i <= ENTRIES; i++)
			assert_int_equal(read_entry(&rig, i), i == hit ? -E_MISSING : 0);
		assert_int_equal(store_object(rig.store, 0, &(struct object_key){1, hit}, &object),
				 1);
		assert_int_equal(object.data_blocks, 0);
		store_audit(rig.store);
		rig_done(&rig);
	}
}

/* Nobody was told that these are safe: a broken one is where the log ends, whatever lies behind it. */
static void test_broken_batch_that_was_never_synced_ends_the_log(void **state)
{
	for (uint32_t hit = 1; hit <= ENTRIES; hit++)
		for (uint32_t is_payload = 0; is_payload < 2; is_payload++) {
			struct rig rig;

			put_entries(&rig, 0);
			rig_crash(&rig);
			spoil(&rig, is_payload ? payload_of(hit) : descriptor_of(hit));
			rig_open_ok(&rig);
			assert_false(store_identity(rig.store)->lost_log);
			for (uint32_t i = 1; i <= ENTRIES; i++)
				assert_int_equal(has_entry(&rig, i), i < hit);
			/* A new one in its place does not join what is behind. */
			assert_int_equal(rig_put(&rig, 0, 1, 50, 50, 0, 1, BLOCK_DATA, 50, 0), 0);
			rig_crash(&rig);
			rig_open_ok(&rig);
			for (uint32_t i = 1; i <= ENTRIES; i++)
				assert_int_equal(has_entry(&rig, i), i < hit);
			assert_int_equal(read_entry(&rig, 50), 0);
			store_audit(rig.store);
			rig_done(&rig);
		}
}

/*
 * The log ended before a torn batch, and what came next did not fit in the rest of the segment: at the next start
 * the torn one lies where the log goes on, and the newer one at the head of the next segment.
 */
static void test_torn_batch_does_not_hide_what_a_later_life_wrote_elsewhere(void **state)
{
	struct rig rig;
	uint32_t tags[1];

	rig_init(&rig, 1, &small);
	rig_open_ok(&rig);
	rig_settle(&rig, 1 * NS_PER_S);
	for (uint32_t i = 1; i <= 121; i++)
		assert_int_equal(rig_put(&rig, 0, 1, i, i, 0, 1, BLOCK_DATA, i, 0), 0);
	rig_crash(&rig);
	spoil(&rig, payload_of(121));
	rig_open_ok(&rig);
	assert_true(has_entry(&rig, 120));
	assert_false(has_entry(&rig, 121));
	assert_int_equal(rig_put(&rig, 0, 1, 500, 500, 0, 30, BLOCK_DATA, 500, STORE_SYNC), 0);
	rig_power_cut(&rig, SIM_DROP_UNSYNCED);
	rig_open_ok(&rig);
	assert_true(has_entry(&rig, 500));
	assert_int_equal(rig_read(&rig, 0, 1, 500, 29, 1, tags), 0);
	assert_int_equal(tags[0], 529);
	assert_false(has_entry(&rig, 121));
	rig_done(&rig);
}

/* ---- writes that were not done where they should have been ---- */

/* The disk says that write @nth is done, and it is not, or it is elsewhere in the file. */
static void put_with_fault(struct rig *rig, uint64_t seed, uint32_t nth, enum sim_fault fault)
{
	rig_init(rig, seed, &small);
	rig->is_damaged = true;
	rig_open_ok(rig);
	rig_settle(rig, 1 * NS_PER_S);
	assert_int_equal(sim_file_fault(rig->host, SEGMENT, LOOP_OP_WRITE, nth, fault), 0);
	for (uint32_t i = 1; i <= ENTRIES; i++)
		assert_int_equal(rig_put(rig, 0, 1, i, i, 0, 1, BLOCK_DATA, i, STORE_SYNC), 0);
}

static void test_lost_write_is_never_served_as_what_was_there_before(void **state)
{
	for (uint32_t hit = 1; hit <= ENTRIES; hit++) {
		struct rig rig;

		put_with_fault(&rig, hit, hit, SIM_FAULT_LOST);
		for (uint32_t i = 1; i <= ENTRIES; i++)
			assert_int_equal(read_entry(&rig, i), i == hit ? -E_CHECKSUM : 0);
		assert_int_equal(rig.corrupt, 1);
		rig_settle(&rig, 10 * NS_PER_MS);
		assert_int_equal(read_entry(&rig, hit), -E_MISSING);
		rig_done(&rig);

		/* Found by replay: the next batch names it as synced. */
		put_with_fault(&rig, hit, hit, SIM_FAULT_LOST);
		rig_crash(&rig);
		rig_open_ok(&rig);
		assert_int_equal(store_identity(rig.store)->lost_log, hit < ENTRIES);
		for (uint32_t i = 1; i <= ENTRIES; i++)
			assert_int_equal(has_entry(&rig, i), i < hit);
		rig_done(&rig);
	}
}

static void test_misdirected_write_is_noticed_where_it_is_missing_and_where_it_landed(void **state)
{
	uint32_t refused = 0, lost = 0, at_home = 0;

	for (uint64_t seed = 1; seed <= 60; seed++) {
		uint32_t hit = 1 + (uint32_t)(seed % ENTRIES);
		struct rig rig;

		put_with_fault(&rig, seed, hit, SIM_FAULT_MISDIRECT);
		for (uint32_t i = 1; i <= ENTRIES; i++) {
			int rc = read_entry(&rig, i);
			assert_true(rc == 0 || rc == -E_CHECKSUM);
			at_home += i == hit && rc == 0;
			refused += rc != 0;
		}
		rig_crash(&rig);
		rig_open_ok(&rig);
		lost += store_identity(rig.store)->lost_log;
		for (uint32_t i = 1; i <= ENTRIES; i++)
			(void)read_entry(&rig, i); /* its own block, or none */
		store_audit(rig.store);
		rig_done(&rig);
	}
	assert_true(refused + at_home >= 60);
	assert_true(at_home <= 2); /* chance may lead it home */
	assert_true(lost > 20);
}

/* ---- the note (R3) ---- */

static void test_log_that_does_not_reach_the_note_has_lost_something(void **state)
{
	uint64_t note[1] = {0};

	for (uint32_t is_lost = 0; is_lost < 2; is_lost++) {
		struct rig rig;

		rig_init(&rig, 1, &small);
		rig_open_ok(&rig);
		store_keep_note(rig.store, note);
		rig_settle(&rig, 1 * NS_PER_S);
		if (is_lost)
			assert_int_equal(sim_file_fault(rig.host, SEGMENT, LOOP_OP_WRITE, ENTRIES,
							SIM_FAULT_LOST),
					 0);
		for (uint32_t i = 1; i <= ENTRIES; i++) {
			assert_int_equal(rig_put(&rig, 0, 1, i, i, 0, 1, BLOCK_DATA, i, 0), 0);
			assert_true(note[0] == store_lsn(rig.store, 0));
		}
		rig_crash(&rig);
		rig_open_ok(&rig);
		/* The last batch by itself looks like the end of the log. */
		assert_false(store_identity(rig.store)->lost_log);
		assert_int_equal(has_entry(&rig, ENTRIES), !is_lost);
		assert_int_equal(store_lsn(rig.store, 0) >= note[0], !is_lost);
		rig_done(&rig);
	}
}

static void test_kill_at_any_moment_leaves_a_log_that_reaches_the_note(void **state)
{
	struct life *life = calloc(1, sizeof(*life));
	uint64_t note[1] = {0};
	uint32_t behind = 0;

	life_init(life, 1, &small);
	for (uint32_t round = 0; round < 60; round++) {
		bool is_kill = life_below(life, 2);
		struct model *actual = calloc(2, sizeof(*actual)), *expected = actual + 1;
		uint32_t kept;

		store_keep_note(life->rig.store, note);
		life_run(life, 1 + life_below(life, 300));
		uint32_t floor = is_kill ? max_of(life->durable, life->completed) : life->durable;
		if (is_kill)
			rig_crash(&life->rig);
		else
			rig_power_cut(&life->rig, SIM_DROP_UNSYNCED);
		rig_open_ok(&life->rig);
		if (is_kill)
			assert_true(store_lsn(life->rig.store, 0) >= note[0]);
		else
			behind += store_lsn(life->rig.store, 0) < note[0];
		model_read(&life->rig, actual);
		assert_true(life_find_prefix(life, actual, floor, "note", expected, &kept));
		life_adopt(life, expected);
		life_forget_flights(life);
		free(actual);
	}
	assert_true(behind >
		    5); /* a power cut is told by the boot id; the note would tell it, too */
	life_done(life);
	free(life);
}

/* ---- copies of the cleaner ---- */

struct copy {
	char path[80];
	uint64_t offset; /* of the first block of its payload */
	uint64_t lsn;
};

/* The first block of the first copy in a batch, if it has one. */
static bool find_copy(const uint8_t *segment, uint32_t block, const struct batch_header *h,
		      uint64_t places, uint64_t *out)
{
	const uint8_t *at = segment + (uint64_t)block * BLOCK_SIZE;
	uint32_t offset = 0, descriptor = batch_descriptor_blocks(h->descriptor_bytes);
	struct batch_entry e;

	while (batch_next(at, h->descriptor_bytes, h->blocks - descriptor, places, &offset, &e) >
	       0) {
		if (e.kind != DISK_MOVE)
			continue;
		*out = (uint64_t)(block + descriptor + e.payload) * BLOCK_SIZE;
		return true;
	}
	return false;
}

/* All copies in the log, wherever they are. */
static uint32_t find_copies(struct life *life, uint32_t segments, struct copy *out, uint32_t max)
{
	const struct uuid uuid = store_identity(life->rig.store)->uuid;
	uint8_t *segment = malloc(MIB);
	uint32_t count = 0;

	for (uint32_t s = 0; s < segments; s++) {
		char path[80];
		snprintf(path, sizeof(path), "%s/segment.00.%05u", RIG_PATH, s);
		assert_int_equal(sim_file_peek(life->rig.host, path, segment, MIB, 0), MIB);
		for (uint32_t b = 0; b < 256 && count < max; b++) {
			struct batch_header h;
			uint64_t offset;
			const uint8_t *at = segment + (uint64_t)b * BLOCK_SIZE;
			if (batch_read_header(at, &uuid, 0, s, b, 256, &h) < 0 ||
			    batch_verify(at, h.descriptor_bytes) < 0 ||
			    !find_copy(segment, b, &h, segments * 256ull, &offset))
				continue;
			memcpy(out[count].path, path, sizeof(path));
			out[count].offset = offset;
			out[count++].lsn = h.lsn;
		}
	}
	free(segment);
	return count;
}

static bool has_nothing_in_flight(void *context)
{
	struct life *life = context;

	for (uint32_t i = 0; i < life->journal_count; i++)
		if (life->flights[i] && !life->flights[i]->a.is_done)
			return false;
	return true;
}

/*
 * The copy is damaged, the block it was made of is not: it is still there, and counted there. The page's record
 * that follows in the log says otherwise.
 */
static void test_damaged_copy_leaves_the_block_where_it_was(void **state)
{
	const struct store_options options = {.size_bytes = 14 * MIB,
					      .segment_bytes = 1 * MIB,
					      .has_small_segments = true,
					      .cache_bytes = 1};
	static struct copy copies[256];
	uint32_t replayed = 0;

	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct life *life = calloc(1, sizeof(*life));
		struct model *actual = calloc(2, sizeof(*actual)), *expected = actual + 1;
		uint32_t count, kept;

		life_init(life, seed, &options);
		life_run(life, 1500 + life_below(life, 1500));
		rig_until(&life->rig, has_nothing_in_flight, life);
		assert_int_equal(rig_sync(&life->rig, 0), 0);
		/* One more, that names it as synced. */
		uint32_t named = life->journal_count;
		while (life->journal_count == named)
			life_change(life);
		assert_int_equal(rig_sync(&life->rig, 0), 0);
		count = find_copies(life, 14, copies, ARRAY_COUNT(copies));
		rig_crash(&life->rig);
		/* The newest one: most probably replay reads it. */
		uint32_t newest = 0;
		for (uint32_t i = 0; i < count; i++)
			if (copies[i].lsn > copies[newest].lsn)
				newest = i;
		if (count > 0) {
			uint8_t byte = 0;
			assert_int_equal(sim_file_peek(life->rig.host, copies[newest].path, &byte,
						       1, copies[newest].offset),
					 1);
			byte ^= 1;
			assert_int_equal(sim_file_poke(life->rig.host, copies[newest].path, &byte,
						       1, copies[newest].offset),
					 0);
		}
		rig_open_ok(&life->rig);
		assert_false(store_identity(life->rig.store)->lost_log);
		store_audit(life->rig.store);
		life->rig.is_damaged = true;
		model_read(&life->rig, actual);
		bool is_served = true;
		for (uint32_t i = 0; i < RIG_PGS; i++)
			for (uint32_t j = 0; j < RIG_OBJECTS; j++)
				is_served &= !actual->pgs[i].objects[j].is_damaged ||
					     life->newest.pgs[i].objects[j].is_missing;
		replayed += is_served && count > 0;
		if (!life_find_prefix(life, actual, named, "copy", expected, &kept))
			fail_msg("seed %llu", (unsigned long long)seed);
		life_done(life);
		free(actual);
		free(life);
	}
	assert_true(replayed > 10);
}

/* ---- damage that is found while it is healed ---- */

static struct store_object object_of(struct rig *rig, uint32_t index)
{
	struct store_object object;

	assert_int_equal(store_object(rig->store, 0, &(struct object_key){1, index}, &object), 1);
	return object;
}

struct read {
	struct store_read read;
	bool is_done;
	int result;
};

static void on_block(struct store_read *store_read, int result)
{
	struct read *read = container_of_type(store_read, struct read, read);

	buffer_put(store_read->data.buffer);
	read->is_done = true;
	read->result = result;
}

static bool is_read(void *context)
{
	return ((struct read *)context)->is_done;
}

/* A block of an object, be it missing or not, whose read lies. */
static void find_damage(struct rig *rig, uint32_t index, uint32_t block)
{
	static const uint64_t layer = 1;
	uint8_t state;
	struct read read = {.read = {.done = on_block,
				     .family = rig_family(layer),
				     .index = index,
				     .layers = &layer,
				     .layer_count = 1,
				     .block = block,
				     .count = 1,
				     .is_salvage = true,
				     .states = &state}};

	sim_host_break_reads(rig->host, SIM_READS_LIE);
	store_read(rig->store, &read.read);
	rig_until(rig, is_read, &read);
	sim_host_break_reads(rig->host, SIM_READS_WORK);
	assert_int_equal(read.result, -E_CHECKSUM);
}

/* Sums are asked for, and what they show to be lost is pushed: with its last block the object is whole. */
static void push_block(struct rig *rig, uint32_t index, uint32_t block, uint32_t tag)
{
	assert_int_equal(rig_put(rig, 0, 1, index, 1, block, 1, BLOCK_DATA, tag,
				 STORE_UNSEQUENCED | STORE_ANY_PREVIOUS | STORE_CLEAR_MISSING),
			 0);
}

/*
 * Sums that are asked for while a mark is in flight do not show it: whoever pushes by them does not know of it. The
 * object is missing by an earlier mark, of another block.
 */
static void test_sums_know_nothing_of_a_mark_that_is_in_flight(void **state)
{
	static uint32_t tags[OBJECT_BLOCKS];

	for (uint32_t is_applied = 0; is_applied < 2; is_applied++) {
		struct rig rig;

		rig_init(&rig, 1, &small);
		rig_open_ok(&rig);
		assert_int_equal(rig_put(&rig, 0, 1, 0, 1, 0, 8, BLOCK_DATA, 1, 0), 0);
		assert_int_equal(rig_sync(&rig, 0), 0);
		rig_settle(&rig, 1 * NS_PER_S);
		find_damage(&rig, 0, 2);
		rig_settle(&rig, 100 * NS_PER_MS);
		assert_true(object_of(&rig, 0).is_missing);
		find_damage(&rig, 0, 5);
		assert_true(object_of(&rig, 0).is_in_flight);
		if (is_applied)
			rig_settle(&rig, 100 * NS_PER_MS);
		assert_int_equal(rig_sums(&rig, 0, 1, 0, tags), 0);
		assert_int_equal(tags[5] == RIG_TAG_ABSENT, is_applied);
		push_block(&rig, 0, 2, 3);
		assert_int_equal(object_of(&rig, 0).is_missing, !is_applied);
		assert_int_equal(object_of(&rig, 0).lost_blocks, 1);
		assert_int_equal(rig_sums(&rig, 0, 1, 0, tags), 0);
		push_block(&rig, 0, 5, 6);
		assert_false(object_of(&rig, 0).is_missing);
		assert_int_equal(object_of(&rig, 0).lost_blocks, 0);
		store_audit(rig.store);
		rig_done(&rig);
	}
}

static void on_peek(struct store_sums *sums, int result)
{
	assert_int_equal(result, 0);
	sums->pg = UINT32_MAX;
}

static bool is_peeked(void *context)
{
	return ((struct store_sums *)context)->pg == UINT32_MAX;
}

/* Two blocks are damaged, and one of them is pushed: that makes the object whole only if the other one is known of. */
static void test_who_only_looks_at_sums_is_told_nothing(void **state)
{
	static struct store_sums sums;

	for (uint32_t is_peek = 0; is_peek < 2; is_peek++) {
		struct rig rig;

		rig_init(&rig, 1, &small);
		rig_open_ok(&rig);
		assert_int_equal(rig_put(&rig, 0, 1, 0, 1, 0, 8, BLOCK_DATA, 1, 0), 0);
		assert_int_equal(rig_sync(&rig, 0), 0);
		rig_settle(&rig, 1 * NS_PER_S);
		find_damage(&rig, 0, 2);
		find_damage(&rig, 0, 5);
		rig_settle(&rig, 100 * NS_PER_MS);
		sums = (struct store_sums){.done = on_peek, .key = {1, 0}, .is_peek = is_peek};
		store_sums(rig.store, &sums);
		rig_until(&rig, is_peeked, &sums);
		assert_true(sums.is_missing);
		assert_int_equal(sums.states[5], BLOCK_LOST);
		push_block(&rig, 0, 2, 3);
		assert_int_equal(object_of(&rig, 0).is_missing, is_peek);
		rig_done(&rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			test_descriptor_below_a_synced_batch_is_damage_and_the_last_one_is_the_end),
		cmocka_unit_test(
			test_payload_below_a_synced_batch_makes_its_object_missing_and_no_other),
		cmocka_unit_test(test_broken_batch_that_was_never_synced_ends_the_log),
		cmocka_unit_test(test_torn_batch_does_not_hide_what_a_later_life_wrote_elsewhere),
		cmocka_unit_test(test_lost_write_is_never_served_as_what_was_there_before),
		cmocka_unit_test(
			test_misdirected_write_is_noticed_where_it_is_missing_and_where_it_landed),
		cmocka_unit_test(test_log_that_does_not_reach_the_note_has_lost_something),
		cmocka_unit_test(test_kill_at_any_moment_leaves_a_log_that_reaches_the_note),
		cmocka_unit_test(test_damaged_copy_leaves_the_block_where_it_was),
		cmocka_unit_test(test_sums_know_nothing_of_a_mark_that_is_in_flight),
		cmocka_unit_test(test_who_only_looks_at_sums_is_told_nothing),
	};
	struct logger logger = {.level = LOG_LEVEL_ERROR, .sink = drop_line};

	if (getenv("SHEEPFOLD_TEST_LOG")) {
		logger.level = LOG_LEVEL_DEBUG;
		logger.sink = log_sink_text;
	}
	log_set_current(&logger);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
