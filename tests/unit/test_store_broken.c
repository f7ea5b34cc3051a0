/*
 * A disk that cannot be read: damage is healed, but not for ever.
 *
 * Trap: a heal is a write, and writes work on such a disk: each one succeeds, is read, and fails again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/store_rig.h"

#define OBJECTS 16u
#define BLOCKS	64u /* of each: four segments in all */

static uint32_t tag_of(uint32_t index, uint32_t block)
{
	return 1 + index * BLOCKS + block;
}

static int setup(void **state)
{
	struct rig *rig;

	(void)rig_setup(state, &rig_small);
	rig = *state;
	for (uint32_t i = 0; i < OBJECTS; i++)
		assert_int_equal(
			rig_put(rig, 0, 1, i, i + 1, 0, BLOCKS, BLOCK_DATA, tag_of(i, 0), 0), 0);
	assert_int_equal(rig_sync(rig, 0), 0);
	rig_settle(rig, 1 * NS_PER_S);
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	sim_host_break_reads(rig->host, SIM_READS_WORK);
	return rig_teardown(state);
}

static int read_one(struct rig *rig, uint32_t index, uint32_t block)
{
	uint32_t tag;
	int rc = rig_read(rig, 0, 1, index, block, 1, &tag);

	if (rc == 0)
		assert_int_equal(tag, tag_of(index, block));
	return rc;
}

/* As a primary does: what is absent is pushed, then the object is whole. */
static void heal(struct rig *rig, uint32_t index)
{
	static uint32_t tags[OBJECT_BLOCKS];
	const uint32_t push = STORE_UNSEQUENCED | STORE_ANY_PREVIOUS;
	struct store_object object;

	assert_int_equal(rig_sync(rig, 0), 0); /* the mark is in the log */
	assert_int_equal(store_object(rig->store, 0, &(struct object_key){1, index}, &object), 1);
	assert_true(object.is_missing);
	assert_int_equal(rig_sums(rig, 0, 1, index, tags), 0);
	for (uint32_t i = 0; i < BLOCKS; i++)
		if (tags[i] == RIG_TAG_ABSENT)
			assert_int_equal(rig_put(rig, 0, 1, index, 1, i, 1, BLOCK_DATA,
						 tag_of(index, i), push),
					 0);
	assert_int_equal(
		rig_put(rig, 0, 1, index, object.version.n, 0, 0, 0, 0, push | STORE_CLEAR_MISSING),
		0);
}

/* Read and heal one block as long as the store goes on; how often. */
static uint32_t read_on(struct rig *rig, uint32_t rounds)
{
	for (uint32_t i = 0; i < rounds; i++) {
		int rc = read_one(rig, 0, 5);
		if (rc == -E_STORE_FAILED)
			return i;
		assert_int_equal(rc, -E_CHECKSUM);
		heal(rig, 0);
	}
	return rounds;
}

static void fail_next_read(struct rig *rig)
{
	assert_int_equal(sim_host_fault(rig->host, LOOP_OP_READ, 1, SIM_FAULT_EIO), 0);
}

/* ---- errors of the disk ---- */

static void test_disk_that_reads_nothing_stops_its_store(void **state)
{
	struct rig *rig = *state;
	uint64_t start = sim_now(rig->world);

	sim_host_break_reads(rig->host, SIM_READS_FAIL);
	assert_int_equal(read_on(rig, 100), 1); /* what was just healed */
	assert_int_equal(rig->failed, 1);
	assert_int_equal(rig->failed_error, -EIO);
	assert_true(sim_now(rig->world) - start < 1 * NS_PER_S);
	assert_int_equal(rig_sync(rig, 0), -E_STORE_FAILED);
}

static void test_unreadable_sectors_that_are_rare_are_healed(void **state)
{
	struct rig *rig = *state;

	for (uint32_t i = 0; i < 5; i++) {
		fail_next_read(rig);
		assert_int_equal(read_one(rig, 3 * i, 7), -E_CHECKSUM);
		heal(rig, 3 * i);
		for (uint32_t j = 0; j < BLOCKS; j++)
			assert_int_equal(read_one(rig, 3 * i, j), 0);
		rig_settle(rig, 61 * NS_PER_S);
	}
	assert_int_equal(rig->failed, 0);
	assert_int_equal(rig->corrupt, 5);
}

static void test_second_unreadable_sector_soon_after_stops_the_store(void **state)
{
	struct rig *rig = *state;

	fail_next_read(rig);
	assert_int_equal(read_one(rig, 0, 7), -E_CHECKSUM);
	heal(rig, 0);
	rig_settle(rig, 30 * NS_PER_S);
	fail_next_read(rig);
	assert_int_equal(read_one(rig, 15, 7), -E_STORE_FAILED);
	assert_int_equal(rig->failed, 1);
	assert_int_equal(rig->failed_error, -EIO);
}

/* Many ask for one sector before its loss is known: this is one error. */
static void test_reads_of_one_sector_at_once_are_one_error(void **state)
{
	struct rig *rig = *state;
	const uint64_t layer = 1;
	struct rig_reading late[16];

	sim_host_break_reads(rig->host, SIM_READS_FAIL);
	for (unsigned i = 0; i < ARRAY_COUNT(late); i++) {
		late[i] = (struct rig_reading){.read = {.family = rig_family(1),
							.layers = &layer,
							.layer_count = 1,
							.block = i % 2 ? 5 : 0,
							.count = i % 2 ? 1 : 16}};
		rig_read_start(rig, &late[i]);
	}
	rig_settle(rig, 1 * NS_PER_S);
	sim_host_break_reads(rig->host, SIM_READS_WORK);
	for (unsigned i = 0; i < ARRAY_COUNT(late); i++) {
		assert_true(late[i].is_done);
		assert_int_equal(late[i].result, -E_CHECKSUM);
		rig_reading_free(&late[i]);
	}
	assert_int_equal(rig->failed, 0);
	heal(rig, 0);
	assert_int_equal(read_one(rig, 0, 5), 0);
}

/* An error of a large read says nothing about most of what was asked for. */
static void test_one_sector_costs_one_block(void **state)
{
	struct rig *rig = *state;
	static uint32_t tags[OBJECT_BLOCKS];
	struct store_object object;
	uint32_t lost = 0;

	assert_int_equal(sim_host_fault(rig->host, LOOP_OP_READ, 1, SIM_FAULT_SECTOR), 0);
	assert_int_equal(rig_read(rig, 0, 1, 3, 0, BLOCKS, tags), -E_CHECKSUM);
	assert_int_equal(rig->corrupt, 1);
	assert_int_equal(rig_sync(rig, 0), 0);
	assert_int_equal(store_object(rig->store, 0, &(struct object_key){1, 3}, &object), 1);
	assert_true(object.is_missing);
	assert_int_equal(rig_sums(rig, 0, 1, 3, tags), 0);
	for (uint32_t i = 0; i < BLOCKS; i++)
		lost += tags[i] == RIG_TAG_ABSENT;
	assert_int_equal(lost, 1);
	heal(rig, 3);
	assert_int_equal(rig_read(rig, 0, 1, 3, 0, BLOCKS, tags), 0);
	assert_int_equal(rig->failed, 0);
}

/* It was an error of the cable, say. */
static void test_what_can_be_read_again_is_no_damage(void **state)
{
	struct rig *rig = *state;
	static uint32_t tags[BLOCKS];

	fail_next_read(rig);
	assert_int_equal(rig_read(rig, 0, 1, 3, 0, BLOCKS, tags), 0);
	for (uint32_t i = 0; i < BLOCKS; i++)
		assert_int_equal(tags[i], tag_of(3, i));
	assert_int_equal(rig->corrupt, 0);
}

/* All of a place fails, sector by sector, and no end of it. */
static void test_sectors_side_by_side_stop_the_store_in_the_end(void **state)
{
	struct rig *rig = *state;
	uint32_t count = 0;

	for (; count < 2 * BLOCKS && rig->failed == 0; count++) {
		fail_next_read(rig);
		int rc = read_one(rig, count / BLOCKS, count % BLOCKS);
		assert_true(rc == -E_CHECKSUM || rc == -E_STORE_FAILED || rc == -E_MISSING);
		if (rc == -E_CHECKSUM)
			heal(rig, count / BLOCKS);
		sim_host_forget_faults(rig->host);
	}
	assert_in_range(count, 2, BLOCKS + 1);
}

/* Index pages are read as well. */
static void test_index_pages_that_cannot_be_read_stop_the_store(void **state)
{
	struct rig *rig = *state;
	uint32_t tag;

	rig_stop(rig);
	rig_open_ok(rig);
	sim_host_break_reads(rig->host, SIM_READS_FAIL);
	(void)rig_read(rig, 0, 1, 0, 0, 1, &tag);
	rig_settle(rig, 1 * NS_PER_S);
	(void)rig_read(rig, 0, 1, 15, 0, 1, &tag);
	for (uint32_t i = 0; i < 3 && rig->failed == 0; i++) {
		struct store_object object;
		/* All of it, as after the loss of a page. */
		assert_int_equal(store_object(rig->store, 0, &(struct object_key){1, 0}, &object),
				 1);
		if (rig_put(rig, 0, 1, 0, 1, 0, BLOCKS, BLOCK_DATA, tag_of(0, 0),
			    STORE_UNSEQUENCED | STORE_ANY_PREVIOUS | STORE_REPLACE |
				    STORE_CLEAR_MISSING) == 0)
			(void)rig_read(rig, 0, 1, 0, 0, 1, &tag);
	}
	assert_int_equal(rig->failed, 1);
}

/* ---- wrong checksums ---- */

/* Not one error of the disk, and nothing that is read is what was written. */
static void test_what_is_damaged_again_and_again_stops_the_store(void **state)
{
	struct rig *rig = *state;
	uint64_t start = sim_now(rig->world);

	sim_host_break_reads(rig->host, SIM_READS_LIE);
	assert_in_range(read_on(rig, 100), 2, 8);
	assert_int_equal(rig->failed, 1);
	assert_int_equal(rig->failed_error, -E_CHECKSUM);
	assert_true(sim_now(rig->world) - start < 1 * NS_PER_S);
}

/* However much is damaged: once each is no reason to stop. */
static void test_damage_all_over_the_disk_is_healed(void **state)
{
	struct rig *rig = *state;

	sim_host_break_reads(rig->host, SIM_READS_LIE);
	for (uint32_t i = 0; i < OBJECTS; i++) {
		uint32_t tags[BLOCKS];
		assert_int_equal(rig_read(rig, 0, 1, i, 0, BLOCKS, tags), -E_CHECKSUM);
	}
	sim_host_break_reads(rig->host, SIM_READS_WORK);
	for (uint32_t i = 0; i < OBJECTS; i++) {
		heal(rig, i);
		for (uint32_t j = 0; j < BLOCKS; j++)
			assert_int_equal(read_one(rig, i, j), 0);
	}
	assert_int_equal(rig->failed, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_disk_that_reads_nothing_stops_its_store),
		TEST(test_unreadable_sectors_that_are_rare_are_healed),
		TEST(test_second_unreadable_sector_soon_after_stops_the_store),
		TEST(test_reads_of_one_sector_at_once_are_one_error),
		TEST(test_one_sector_costs_one_block),
		TEST(test_what_can_be_read_again_is_no_damage),
		TEST(test_sectors_side_by_side_stop_the_store_in_the_end),
		TEST(test_index_pages_that_cannot_be_read_stop_the_store),
		TEST(test_what_is_damaged_again_and_again_stops_the_store),
		TEST(test_damage_all_over_the_disk_is_healed),
	};
#undef TEST
	return cmocka_run_group_tests(tests, rig_log_start, rig_log_stop);
}
