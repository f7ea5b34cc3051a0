/*
 * Damaged blocks of a store: what is told of them, what is served meanwhile, how they are healed, and what is
 * lost for good.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/crc32c.h"
#include "tests/unit/store_rig.h"

static void test_unreadable_block_is_reported_and_marked(void **state)
{
	struct rig *rig = *state;
	struct store_object object;
	uint32_t tag;

	assert_int_equal(rig_put(rig, 0, 1, 0, 1, 0, 1, BLOCK_DATA, 5, 0), 0);
	rig_settle(rig, 1 * NS_PER_S);
	assert_int_equal(sim_file_fault(rig->host, RIG_PATH "/segment.00.00000", LOOP_OP_READ, 1,
					SIM_FAULT_EIO),
			 0);
	assert_int_equal(rig_read(rig, 0, 1, 0, 0, 1, &tag), -E_CHECKSUM);
	assert_int_equal(rig->corrupt, 1);
	assert_int_equal(rig->failed, 0);
	assert_int_equal(rig_sync(rig, 0), 0);
	rig_power_cut(rig, SIM_DROP_UNSYNCED);
	rig_open_ok(rig);
	assert_int_equal(store_object(rig->store, 0, &(struct object_key){1, 0}, &object), 1);
	assert_true(object.is_missing);
}

/* As a primary heals: sums are compared, what differs is pushed, then the object is whole. */
static void heal(struct rig *rig, const uint32_t *expected, uint32_t count)
{
	static uint32_t tags[OBJECT_BLOCKS];
	const uint32_t push = STORE_UNSEQUENCED | STORE_ANY_PREVIOUS;
	uint8_t block[BLOCK_SIZE] __attribute__((aligned(8)));
	struct store_object object;

	assert_int_equal(rig_sync(rig, 0), 0); /* the mark is in the log */
	assert_int_equal(store_object(rig->store, 0, &(struct object_key){1, 0}, &object), 1);
	assert_true(object.is_missing);
	assert_int_equal(rig_sums(rig, 0, 1, 0, tags), 0);
	for (uint32_t i = 0; i < count; i++) {
		rig_fill(expected[i], block);
		if (tags[i] != crc32c(block, BLOCK_SIZE))
			assert_int_equal(
				rig_put(rig, 0, 1, 0, 1, i, 1, BLOCK_DATA, expected[i], push), 0);
	}
	assert_int_equal(
		rig_put(rig, 0, 1, 0, object.version.n, 0, 0, 0, 0, push | STORE_CLEAR_MISSING), 0);
	assert_int_equal(rig_read(rig, 0, 1, 0, 0, count, tags), 0);
	assert_memory_equal(tags, expected, count * sizeof(tags[0]));
}

/* Flip a bit of the first block on disk that begins like @head. */
static void damage(struct rig *rig, const void *head, size_t size)
{
	uint8_t block[BLOCK_SIZE];

	for (uint32_t i = 0; i < 256; i++) {
		assert_int_equal(sim_file_peek(rig->host, RIG_PATH "/segment.00.00000", block,
					       BLOCK_SIZE, (uint64_t)i * BLOCK_SIZE),
				 BLOCK_SIZE);
		if (memcmp(block, head, size) != 0)
			continue;
		block[40] ^= 1;
		assert_int_equal(sim_file_poke(rig->host, RIG_PATH "/segment.00.00000", block + 40,
					       1, (uint64_t)i * BLOCK_SIZE + 40),
				 0);
		return;
	}
	fail_msg("not found on disk");
}

static void test_damaged_block_is_healed_by_a_push_that_compares_sums(void **state)
{
	struct rig *rig = *state;
	uint32_t expected[20], tag;
	uint8_t block[BLOCK_SIZE] __attribute__((aligned(8)));

	for (uint32_t i = 0; i < 20; i++)
		expected[i] = 30 + i;
	assert_int_equal(rig_put(rig, 0, 1, 0, 7, 0, 20, BLOCK_DATA, 30, 0), 0);
	rig_fill(35, block);
	damage(rig, block, 8);
	assert_int_equal(rig_read(rig, 0, 1, 0, 4, 1, &tag), 0); /* the others are served */
	assert_int_equal(rig_read(rig, 0, 1, 0, 5, 1, &tag), -E_CHECKSUM);
	assert_int_equal(rig->corrupt, 1);
	assert_int_equal(rig_sync(rig, 0), 0);
	assert_int_equal(rig_read(rig, 0, 1, 0, 5, 1, &tag), -E_MISSING);
	/* A push that was worked out before does not know of the block. */
	assert_int_equal(rig_put(rig, 0, 1, 0, 7, 0, 1, BLOCK_DATA, 30,
				 STORE_UNSEQUENCED | STORE_ANY_PREVIOUS | STORE_CLEAR_MISSING),
			 0);
	heal(rig, expected, 20);
	assert_int_equal(rig_sync(rig, 0), 0);
	/* Replay meets the damage again and cannot know that the push did: once more. */
	rig_power_cut(rig, SIM_DROP_UNSYNCED);
	rig_open_ok(rig);
	assert_int_equal(rig_read(rig, 0, 1, 0, 0, 1, &tag), -E_MISSING);
	heal(rig, expected, 20);
	assert_int_equal(rig_sync(rig, 0), 0);
	/* Then a checkpoint lies behind it. */
	rig_power_cut(rig, SIM_DROP_UNSYNCED);
	rig_open_ok(rig);
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(rig_tag_at(rig, 0, 1, 0, i), expected[i]);
}

static void test_damaged_index_page_is_healed_and_never_read_as_a_hole(void **state)
{
	struct rig *rig = *state;
	uint32_t expected[20], tag;

	for (uint32_t i = 0; i < 20; i++)
		expected[i] = 30 + i;
	assert_int_equal(rig_put(rig, 0, 1, 0, 7, 0, 20, BLOCK_DATA, 30, 0), 0);
	rig_stop(rig); /* the page goes to the log */
	damage(rig, "SPFI", 4);
	rig_open_ok(rig);
	assert_int_equal(rig_read(rig, 0, 1, 0, 5, 1, &tag), -E_MISSING);
	assert_int_equal(rig->corrupt, 1);
	heal(rig, expected, 20);
	rig_stop(rig);
	rig_open_ok(rig);
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(rig_tag_at(rig, 0, 1, 0, i), expected[i]);
}

/* As clients read: without states. */
static int read_plain(struct rig *rig, uint32_t block, uint32_t count)
{
	const uint64_t layer = 1;
	struct rig_reading plain = {.read = {.family = rig_family(1),
					     .layers = &layer,
					     .layer_count = 1,
					     .block = block,
					     .count = count}};

	rig_read_start(rig, &plain);
	(void)rig_reading_wait(rig, &plain);
	rig_reading_free(&plain);
	return plain.result;
}

/* What is good of a copy that is missing. */
static int salvage(struct rig *rig, uint8_t *states, uint32_t *crcs)
{
	const uint64_t layer = 1;
	struct rig_reading plain = {.read = {.family = rig_family(1),
					     .layers = &layer,
					     .layer_count = 1,
					     .count = 20,
					     .is_salvage = true,
					     .states = states,
					     .crcs = crcs}};

	rig_read_start(rig, &plain);
	(void)rig_reading_wait(rig, &plain);
	rig_reading_free(&plain);
	return plain.result;
}

static void expect_lost(struct rig *rig, uint32_t blocks)
{
	struct store_object object;
	struct store_pg_info info;

	store_pg_info(rig->store, 0, &info);
	assert_int_equal(info.lost, blocks > 0);
	assert_int_equal(store_object(rig->store, 0, &(struct object_key){1, 0}, &object), 1);
	assert_int_equal(object.lost_blocks, blocks);
}

static void test_lost_blocks_are_an_error_until_they_are_written(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(rig_put(rig, 0, 1, 0, 7, 0, 20, BLOCK_DATA, 30, 0), 0);
	assert_int_equal(rig_put(rig, 0, 1, 0, 8, 5, 2, BLOCK_LOST, 0, 0), 0);
	for (unsigned round = 0; round < 4; round++) {
		expect_lost(rig, 2);
		assert_int_equal(read_plain(rig, 5, 1), -E_LOST);
		assert_int_equal(read_plain(rig, 0, 20), -E_LOST);
		assert_int_equal(read_plain(rig, 0, 5), 0);
		assert_int_equal(read_plain(rig, 7, 13), 0);
		assert_int_equal(rig_sync(rig, 0), 0);
		if (round % 2) /* from the log, and from a checkpoint and its pages */
			rig_stop(rig);
		else
			rig_power_cut(rig, SIM_DROP_UNSYNCED);
		rig_open_ok(rig);
	}
	assert_int_equal(rig_put(rig, 0, 1, 0, 9, 5, 1, BLOCK_ZERO, 0, 0), 0);
	expect_lost(rig, 1);
	assert_int_equal(read_plain(rig, 0, 6), 0);
	assert_int_equal(rig_put(rig, 0, 1, 0, 10, 6, 1, BLOCK_DATA, 99, 0), 0);
	expect_lost(rig, 0);
	assert_int_equal(read_plain(rig, 0, 20), 0);
	assert_int_equal(rig_put(rig, 0, 1, 0, 11, 0, OBJECT_BLOCKS, BLOCK_LOST, 0, 0), 0);
	expect_lost(rig, OBJECT_BLOCKS);
	assert_int_equal(rig_put(rig, 0, 1, 0, 12, 0, 0, 0, 0, STORE_DELETE), 0);
	assert_int_equal(read_plain(rig, 0, 20), 0);
}

/*
 * A block rots, and is read and written at once. Trap: the mark of what the read found comes behind the write in the
 * log, and must not take away what was acknowledged.
 */
static void test_a_mark_says_nothing_about_what_was_written_since(void **state)
{
	struct rig *rig = *state;
	const uint64_t layer = 1;
	uint8_t states[20], block[BLOCK_SIZE] __attribute__((aligned(8)));
	uint32_t crcs[20];
	uint32_t tag = 77;
	struct rig_reading plain = {.read = {.family = rig_family(1),
					     .layers = &layer,
					     .layer_count = 1,
					     .block = 5,
					     .count = 1}};
	struct rig_append a = {.append = {.pg = 0,
					  .key = {1, 0},
					  .family = rig_family(1),
					  .version = {1, 8},
					  .previous = {1, 7},
					  .run_count = 1},
			       .runs = {{5, 1, BLOCK_DATA}}};

	assert_int_equal(rig_put(rig, 0, 1, 0, 7, 0, 20, BLOCK_DATA, 30, 0), 0);
	assert_int_equal(rig_sync(rig, 0), 0);
	rig_stop(rig);
	rig_open_ok(rig);
	rig_fill(35, block);
	damage(rig, block, 8);
	assert_int_equal(read_plain(rig, 4, 1), 0);
	rig_read_start(rig, &plain);
	assert_int_equal(rig_append(rig, &a, &tag), 0);
	assert_int_equal(rig_append_wait(rig, &a), 0);
	assert_int_equal(rig_reading_wait(rig, &plain), -E_CHECKSUM);
	rig_reading_free(&plain);
	rig_settle(rig, NS_PER_S);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(read_plain(rig, 0, 20), 0);
		assert_int_equal(salvage(rig, states, crcs), 0);
		assert_int_equal(states[5], BLOCK_DATA);
		rig_stop(rig);
		rig_open_ok(rig);
	}
}

/* Damaged blocks are told from those that may be of another version. */
static void test_what_is_good_of_a_damaged_object_can_be_read(void **state)
{
	const uint32_t push = STORE_UNSEQUENCED | STORE_ANY_PREVIOUS;
	struct rig *rig = *state;
	uint8_t states[20], block[BLOCK_SIZE] __attribute__((aligned(8)));
	uint32_t crcs[20];

	assert_int_equal(rig_put(rig, 0, 1, 0, 7, 0, 20, BLOCK_DATA, 30, 0), 0);
	assert_int_equal(rig_sync(rig, 0), 0);
	rig_stop(rig);
	rig_open_ok(rig);
	rig_fill(35, block);
	damage(rig, block, 8);
	assert_int_equal(read_plain(rig, 5, 1), -E_CHECKSUM);
	assert_int_equal(rig_sync(rig, 0), 0);
	for (unsigned round = 0; round < 2; round++) {
		assert_int_equal(read_plain(rig, 4, 1), -E_MISSING);
		assert_int_equal(salvage(rig, states, crcs), 0);
		for (uint32_t i = 0; i < 20; i++) {
			assert_int_equal(states[i], i == 5 ? BLOCK_LOST : BLOCK_DATA);
			rig_fill(30 + i, block);
			if (i != 5)
				assert_int_equal(crcs[i], crc32c(block, BLOCK_SIZE));
		}
		rig_stop(rig);
		rig_open_ok(rig);
	}
	/* A push that stops half way: nobody knows what is of which version. */
	assert_int_equal(rig_put(rig, 0, 1, 0, 8, 0, 1, BLOCK_DATA, 77, push | STORE_SET_MISSING),
			 0);
	assert_int_equal(salvage(rig, states, crcs), -E_MISSING);
	rig_stop(rig);
	rig_open_ok(rig);
	assert_int_equal(salvage(rig, states, crcs), -E_MISSING);
	/* An entry that replaces all there is makes it whole. */
	assert_int_equal(
		rig_put(rig, 0, 1, 0, 9, 0, 3, BLOCK_LOST, 0, STORE_ANY_PREVIOUS | STORE_REPLACE),
		0);
	expect_lost(rig, 3);
	assert_int_equal(read_plain(rig, 3, 17), 0);
	assert_int_equal(read_plain(rig, 2, 1), -E_LOST);
	rig_power_cut(rig, SIM_KEEP_ALL);
	rig_open_ok(rig);
	expect_lost(rig, 3);
	assert_int_equal(read_plain(rig, 3, 17), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup_small, rig_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_unreadable_block_is_reported_and_marked),
		TEST(test_damaged_block_is_healed_by_a_push_that_compares_sums),
		TEST(test_damaged_index_page_is_healed_and_never_read_as_a_hole),
		TEST(test_lost_blocks_are_an_error_until_they_are_written),
		TEST(test_a_mark_says_nothing_about_what_was_written_since),
		TEST(test_what_is_good_of_a_damaged_object_can_be_read),
	};
#undef TEST
	return cmocka_run_group_tests(tests, rig_log_start, rig_log_stop);
}
