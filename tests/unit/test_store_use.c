/* What layers hold, counted over the objects of a PG: store_layer_use() against a count of one's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/log.h"
#include "lib/base/random.h"
#include "tests/unit/store_rig.h"

static const struct store_options options = {
	.size_bytes = 128 * MIB, .segment_bytes = 1 * MIB, .has_small_segments = true};

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	rig_init(rig, 1, &options);
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

/* In pieces of @max objects. */
static struct store_layer_use use_of(struct rig *rig, uint32_t pg, uint64_t layer, uint32_t max)
{
	struct store_layer_use use = {0};
	uint64_t next = 0, before = 0;

	while (!store_layer_use(rig->store, pg, layer, &next, max, &use)) {
		assert_true(use.objects > before && use.objects - before <= max);
		before = use.objects;
	}
	return use;
}

static void expect(struct rig *rig, uint64_t layer, uint64_t objects, uint64_t blocks)
{
	static const uint32_t pieces[] = {1, 7, UINT32_MAX};

	for (unsigned i = 0; i < ARRAY_COUNT(pieces); i++) {
		struct store_layer_use use = use_of(rig, 0, layer, pieces[i]);
		assert_int_equal(use.objects, objects);
		assert_int_equal(use.data_blocks, blocks);
		assert_int_equal(use.missing, 0);
	}
}

static void
test_holes_zeroes_and_trims_do_not_count_and_what_is_written_twice_counts_once(void **state)
{
	struct rig *rig = *state;
	uint64_t n = 1;

	expect(rig, 5, 0, 0);
	assert_int_equal(rig_put(rig, 0, 5, 3, n++, 100, 50, BLOCK_DATA, 1, 0), 0);
	expect(rig, 5, 1, 50);
	assert_int_equal(rig_put(rig, 0, 5, 3, n++, 120, 50, BLOCK_DATA, 100, 0), 0);
	expect(rig, 5, 1, 70);
	assert_int_equal(rig_put(rig, 0, 5, 3, n++, 110, 20, BLOCK_ZERO, 0, 0), 0);
	expect(rig, 5, 1, 50);
	assert_int_equal(rig_put(rig, 0, 5, 3, n++, 90, 15, BLOCK_ABSENT, 0, 0), 0);
	expect(rig, 5, 1, 45);
	assert_int_equal(rig_put(rig, 0, 5, 4, n++, 0, 200, BLOCK_ZERO, 0, 0), 0);
	expect(rig, 5, 2, 45);
	assert_int_equal(rig_put(rig, 0, 5, 3, n++, 0, OBJECT_BLOCKS, BLOCK_ABSENT, 0, 0), 0);
	expect(rig, 5, 2, 0);
}

/* The keys at the edges: nothing of a neighbour counts, and the walk ends. */
static void test_each_layer_and_pg_counts_its_own(void **state)
{
	struct rig *rig = *state;
	uint64_t n = 1;

	for (uint64_t layer = 7; layer <= 9; layer++) {
		uint32_t blocks = (uint32_t)layer;
		assert_int_equal(rig_put(rig, 0, layer, 0, n++, 0, blocks, BLOCK_DATA, 1, 0), 0);
		assert_int_equal(
			rig_put(rig, 0, layer, UINT32_MAX, n++, 0, blocks, BLOCK_DATA, 1, 0), 0);
	}
	assert_int_equal(rig_put(rig, 1, 8, 1, 1, 0, 3, BLOCK_DATA, 1, 0), 0);
	for (uint64_t layer = 7; layer <= 9; layer++)
		expect(rig, layer, 2, 2 * layer);
	expect(rig, 0, 0, 0);
	expect(rig, 6, 0, 0);
	expect(rig, 10, 0, 0);
	expect(rig, UINT64_MAX, 0, 0);
	assert_int_equal(use_of(rig, 1, 8, 1).data_blocks, 3);
	assert_int_equal(use_of(rig, 2, 8, 1).objects, 0);
}

static void test_missing_objects_are_told(void **state)
{
	struct rig *rig = *state;

	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(rig_put(rig, 0, 5, i, 1 + i, 0, 10, BLOCK_DATA, 1, 0), 0);
	assert_int_equal(rig_put(rig, 0, 5, 1, 4, 0, 0, 0, 0,
				 STORE_UNSEQUENCED | STORE_ANY_PREVIOUS | STORE_SET_MISSING),
			 0);
	assert_int_equal(use_of(rig, 0, 5, 1).missing, 1);
	assert_int_equal(use_of(rig, 0, 5, 100).missing, 1);
	assert_int_equal(use_of(rig, 0, 5, 100).objects, 3);
}

/* What is counted already may go, and what is not may come: nothing counts twice, nothing that stays is left out. */
static void test_objects_may_come_and_go_during_the_walk(void **state)
{
	struct rig *rig = *state;
	struct store_layer_use use = {0};
	uint64_t next = 0, n = 1;

	for (uint32_t i = 0; i < 300; i++)
		assert_int_equal(rig_put(rig, 0, 5, i * 2, n++, 0, 1, BLOCK_DATA, 1, 0), 0);
	for (uint32_t step = 0; !store_layer_use(rig->store, 0, 5, &next, 10, &use); step++) {
		uint32_t last = (uint32_t)next - 1;
		assert_int_equal(rig_put(rig, 0, 5, last, n++, 0, 0, 0, 0, STORE_DELETE), 0);
		assert_int_equal(rig_put(rig, 0, 5, last - 1, n++, 0, 9, BLOCK_DATA, 1, 0), 0);
		assert_true(step < 40);
	}
	assert_int_equal(use.objects, 300);
	assert_int_equal(use.data_blocks, 300);
}

/* ---- any life ---- */

#define LAYERS	4u
#define INDEXES 150u

struct any {
	struct rig *rig;
	struct random *random;
	uint8_t states[LAYERS][INDEXES][OBJECT_BLOCKS];
	bool exists[LAYERS][INDEXES];
	uint64_t n;
};

static uint32_t below(struct any *any, uint32_t bound)
{
	return (uint32_t)random_below(any->random, bound);
}

static void change(struct any *any)
{
	static const enum block_state kinds[] = {BLOCK_DATA, BLOCK_DATA, BLOCK_ZERO, BLOCK_ABSENT};
	uint32_t layer = below(any, LAYERS), index = below(any, INDEXES);
	uint32_t block = below(any, OBJECT_BLOCKS), count = 1 + below(any, 12);
	enum block_state kind = kinds[below(any, ARRAY_COUNT(kinds))];
	bool is_delete = any->exists[layer][index] && below(any, 8) == 0;

	if (block + count > OBJECT_BLOCKS)
		count = OBJECT_BLOCKS - block;
	any->exists[layer][index] = !is_delete;
	if (is_delete) {
		memset(any->states[layer][index], 0, OBJECT_BLOCKS);
		assert_int_equal(
			rig_put(any->rig, 0, layer, index, ++any->n, 0, 0, 0, 0, STORE_DELETE), 0);
		return;
	}
	memset(&any->states[layer][index][block], kind, count);
	assert_int_equal(rig_put(any->rig, 0, layer, index, ++any->n, block, count, kind, 1, 0), 0);
}

static void check(struct any *any)
{
	for (uint32_t layer = 0; layer < LAYERS; layer++) {
		uint64_t objects = 0, blocks = 0;
		for (uint32_t i = 0; i < INDEXES; i++) {
			objects += any->exists[layer][i];
			for (uint32_t b = 0; b < OBJECT_BLOCKS; b++)
				blocks += any->states[layer][i][b] == BLOCK_DATA;
		}
		expect(any->rig, layer, objects, blocks);
	}
}

/* Over clean stops, kills and power cuts. */
static void test_any_life_is_counted_right(void **state)
{
	struct any *any = calloc(1, sizeof(*any));

	any->rig = *state;
	any->random = sim_random(any->rig->world);
	for (uint32_t round = 0; round < 8; round++) {
		for (uint32_t i = 0; i < 400; i++)
			change(any);
		check(any);
		assert_int_equal(rig_sync(any->rig, 0), 0);
		if (round % 3 == 0)
			rig_stop(any->rig);
		else if (round % 3 == 1)
			rig_power_cut(any->rig, SIM_DROP_UNSYNCED);
		else
			rig_crash(any->rig);
		rig_open_ok(any->rig);
		check(any);
	}
	free(any);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_holes_zeroes_and_trims_do_not_count_and_what_is_written_twice_counts_once),
		TEST(test_each_layer_and_pg_counts_its_own),
		TEST(test_missing_objects_are_told),
		TEST(test_objects_may_come_and_go_during_the_walk),
		TEST(test_any_life_is_counted_right),
	};
#undef TEST
	struct logger logger = {.level = LOG_LEVEL_ERROR, .sink = log_sink_text};

	log_set_current(&logger);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
