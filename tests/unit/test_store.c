/* The store's contract, call by call: sheep/store/store.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/log.h"
#include "tests/unit/store_rig.h"

static const struct store_options small = {.size_bytes = 24 * MIB, .segment_bytes = 1 * MIB};

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	rig_init(rig, 1, &small);
	rig_open_ok(rig);
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	rig_done(*state);
	free(*state);
	return 0;
}

static uint32_t tag_at(struct rig *rig, uint32_t pg, uint64_t layer, uint32_t index, uint32_t block)
{
	uint32_t tag;

	assert_int_equal(rig_read(rig, pg, layer, index, block, 1, &tag), 0);
	return tag;
}

static void test_written_blocks_are_read_back(void **state)
{
	struct rig *rig = *state;
	uint32_t tags[20];

	assert_int_equal(rig_put(rig, 5, 1, 2, 1, 60, 10, BLOCK_DATA, 100, 0), 0);
	assert_int_equal(rig_read(rig, 5, 1, 2, 55, 20, tags), 0);
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(tags[i], i >= 5 && i < 15 ? 100 + i - 5 : RIG_TAG_ABSENT);
	assert_int_equal(rig_put(rig, 5, 1, 2, 2, 62, 2, BLOCK_ZERO, 0, 0), 0);
	assert_int_equal(rig_put(rig, 5, 1, 2, 3, 64, 2, BLOCK_ABSENT, 0, 0), 0);
	assert_int_equal(rig_put(rig, 5, 1, 2, 4, 66, 1, BLOCK_DATA, 200, 0), 0);
	assert_int_equal(rig_read(rig, 5, 1, 2, 60, 10, tags), 0);
	static const uint32_t expected[] = {100, 101, RIG_TAG_ZERO, RIG_TAG_ZERO, 0,
					    0,	 200, 107,	    108,	  109};
	assert_memory_equal(tags, expected, sizeof(expected));
}

static void test_everything_survives_a_clean_stop(void **state)
{
	struct rig *rig = *state;

	for (uint32_t i = 0; i < 50; i++)
		assert_int_equal(
			rig_put(rig, i % 4, 1, i, 1 + i, i * 13, 3, BLOCK_DATA, 1 + i * 3, 0), 0);
	rig_stop(rig);
	rig_open_ok(rig);
	assert_true(store_identity(rig->store)->was_clean);
	assert_false(store_identity(rig->store)->is_new);
	for (uint32_t i = 0; i < 50; i++)
		assert_int_equal(tag_at(rig, i % 4, 1, i, i * 13 + 2), 1 + i * 3 + 2);
}

static void test_synced_entries_survive_a_power_cut(void **state)
{
	struct rig *rig = *state;

	for (uint32_t i = 0; i < 50; i++)
		assert_int_equal(
			rig_put(rig, i % 4, 1, i, 1 + i, i * 13, 3, BLOCK_DATA, 1 + i * 3, 0), 0);
	assert_int_equal(rig_sync(rig, 0), 0);
	rig_power_cut(rig, SIM_DROP_UNSYNCED);
	rig_open_ok(rig);
	assert_false(store_identity(rig->store)->was_clean);
	assert_false(store_identity(rig->store)->lost_log);
	for (uint32_t i = 0; i < 50; i++)
		assert_int_equal(tag_at(rig, i % 4, 1, i, i * 13 + 2), 1 + i * 3 + 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_written_blocks_are_read_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_everything_survives_a_clean_stop, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_synced_entries_survive_a_power_cut, setup,
						teardown),
	};
	struct logger logger = {.level = LOG_LEVEL_WARNING, .sink = log_sink_text};

	if (getenv("SHEEPFOLD_TEST_LOG"))
		logger.level = LOG_LEVEL_DEBUG;
	log_set_current(&logger);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
