/* The contract of a store that runs, call by call: sheep/store/store.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/store_rig.h"

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

/* ---- versions and flags ---- */

static void test_entry_with_another_previous_version_is_refused(void **state)
{
	struct rig *rig = *state;
	struct rig_append a = {.append = {.pg = 0,
					  .key = {1, 0},
					  .family = rig_family(1),
					  .version = {1, 9},
					  .previous = {1, 5},
					  .run_count = 1},
			       .runs = {{0, 1, BLOCK_ZERO}}};
	struct store_object object;

	assert_int_equal(rig_append(rig, &a, NULL), -E_VERSION);
	assert_int_equal(store_object(rig->store, 0, &a.append.key, &object), 0);
	assert_int_equal(rig_put(rig, 0, 1, 0, 1, 0, 1, BLOCK_DATA, 50, 0), 0);
	assert_int_equal(rig_append(rig, &a, NULL), -E_VERSION);
	a.append.previous = (struct version){1, 1};
	assert_int_equal(rig_append(rig, &a, NULL), 0);
	/* The next one counts the one in flight. */
	struct rig_append b = a;
	b.append.version.n = 10;
	assert_int_equal(rig_append(rig, &b, NULL), -E_VERSION);
	b.append.previous.n = 9;
	assert_int_equal(rig_append(rig, &b, NULL), 0);
	assert_int_equal(store_object(rig->store, 0, &a.append.key, &object), 1);
	assert_int_equal(object.version.n, 10);
	assert_int_equal(rig_append_wait(rig, &a), 0);
	assert_int_equal(rig_append_wait(rig, &b), 0);
	assert_int_equal(rig_put(rig, 0, 1, 0, 77, 0, 1, BLOCK_DATA, 50, STORE_ANY_PREVIOUS), 0);
	assert_int_equal(store_object(rig->store, 0, &a.append.key, &object), 1);
	assert_int_equal(object.version.n, 77);
}

static void test_missing_object_takes_pushes_only_and_is_not_served(void **state)
{
	struct rig *rig = *state;
	const uint32_t push = STORE_UNSEQUENCED | STORE_ANY_PREVIOUS;
	struct store_pg_info info;
	struct store_object object;
	uint32_t tag;

	assert_int_equal(rig_put(rig, 0, 1, 0, 3, 0, 2, BLOCK_DATA, 50, 0), 0);
	assert_int_equal(rig_put(rig, 0, 1, 0, 9, 0, 0, 0, 0, push | STORE_SET_MISSING), 0);
	store_pg_info(rig->store, 0, &info);
	assert_int_equal(info.missing, 1);
	assert_int_equal(info.last.n, 3); /* a push is not of the PG's order */
	assert_int_equal(info.tail_count, 1);
	assert_int_equal(rig_read(rig, 0, 1, 0, 0, 1, &tag), -E_MISSING);
	assert_int_equal(rig_put(rig, 0, 1, 0, 4, 0, 1, BLOCK_DATA, 60, 0), -E_MISSING);
	assert_int_equal(rig_put(rig, 0, 1, 0, 8, 0, 1, BLOCK_DATA, 60, push), 0);
	assert_int_equal(store_object(rig->store, 0, &(struct object_key){1, 0}, &object), 1);
	assert_int_equal(object.version.n, 3);
	assert_true(object.is_missing);
	assert_int_equal(rig_put(rig, 0, 1, 0, 8, 5, 1, BLOCK_DATA, 65, push | STORE_CLEAR_MISSING),
			 0);
	assert_int_equal(store_object(rig->store, 0, &(struct object_key){1, 0}, &object), 1);
	assert_int_equal(object.version.n, 8);
	assert_false(object.is_missing);
	assert_int_equal(rig_tag_at(rig, 0, 1, 0, 0), 60);
	assert_int_equal(rig_tag_at(rig, 0, 1, 0, 1), 51);
	assert_int_equal(rig_put(rig, 0, 1, 0, 8, 7, 1, BLOCK_DATA, 70,
				 push | STORE_CLEAR_MISSING | STORE_REPLACE),
			 0);
	assert_int_equal(rig_tag_at(rig, 0, 1, 0, 1), RIG_TAG_ABSENT);
	assert_int_equal(rig_tag_at(rig, 0, 1, 0, 7), 70);
}

static void test_deleted_object_is_absent_and_its_space_comes_back(void **state)
{
	struct rig *rig = *state;
	uint64_t before = store_credit(rig->store, 0);
	struct store_object object;
	struct store_pg_info info;

	assert_int_equal(rig_put(rig, 0, 1, 0, 1, 0, 100, BLOCK_DATA, 1, 0), 0);
	assert_true(store_credit(rig->store, 0) <= before - 100 * BLOCK_SIZE);
	assert_int_equal(rig_put(rig, 0, 1, 0, 2, 0, 0, 0, 0, STORE_DELETE), 0);
	assert_int_equal(store_credit(rig->store, 0), before);
	assert_int_equal(store_object(rig->store, 0, &(struct object_key){1, 0}, &object), 0);
	assert_int_equal(store_object_next(rig->store, 0, NULL, &object), 0);
	store_pg_info(rig->store, 0, &info);
	assert_int_equal(info.last.n, 2);
	assert_int_equal(info.objects, 0);
	assert_int_equal(rig_tag_at(rig, 0, 1, 0, 5), RIG_TAG_ABSENT);
	/* Made again it begins from nothing. */
	assert_int_equal(rig_put(rig, 0, 1, 0, 3, 9, 1, BLOCK_DATA, 500, 0), 0);
	assert_int_equal(rig_tag_at(rig, 0, 1, 0, 5), RIG_TAG_ABSENT);
	assert_int_equal(rig_tag_at(rig, 0, 1, 0, 9), 500);
}

static void test_nonsense_is_refused(void **state)
{
	struct rig *rig = *state;
	static uint8_t memory[2 * BLOCK_SIZE];
	struct slice slice = {.data = memory, .size = BLOCK_SIZE};
	const struct {
		struct store_run runs[2];
		uint32_t run_count, flags, slices, size;
		int expected;
	} cases[] = {
		{{{0, 0, BLOCK_ZERO}}, 1, 0, 0, 0, -EINVAL},
		{{{1023, 2, BLOCK_ZERO}}, 1, 0, 0, 0, -EINVAL},
		{{{5, 2, BLOCK_ZERO}, {6, 1, BLOCK_ZERO}}, 2, 0, 0, 0, -EINVAL},
		{{{0, 1, 4}}, 1, 0, 0, 0, -EINVAL},
		{{{0, 1, BLOCK_DATA}}, 1, 0, 0, 0, -EINVAL},
		{{{0, 2, BLOCK_DATA}}, 1, 0, 1, BLOCK_SIZE, -EINVAL},
		{{{0, 1, BLOCK_DATA}}, 1, 0, 1, BLOCK_SIZE - 1, -EINVAL},
		{{{0, 1, BLOCK_ZERO}}, 1, 0, 1, BLOCK_SIZE, -EINVAL},
		{{{0, 1, BLOCK_ZERO}}, 1, STORE_DELETE, 0, 0, -EINVAL},
		{{{0}}, 0, STORE_SET_MISSING | STORE_CLEAR_MISSING, 0, 0, -EINVAL},
		{{{0, 1000, BLOCK_DATA}}, 1, 0, 1, 1000 * BLOCK_SIZE, -E2BIG},
	};

	for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
		struct store_append a = {.key = {1, 0},
					 .family = rig_family(1),
					 .version = {1, 1},
					 .flags = cases[i].flags,
					 .runs = cases[i].runs,
					 .run_count = cases[i].run_count,
					 .slices = &slice,
					 .slice_count = cases[i].slices};
		slice.size = cases[i].size;
		assert_int_equal(store_append(rig->store, &a), cases[i].expected);
	}
	/* Another family than the object has. */
	assert_int_equal(rig_put(rig, 0, 1, 0, 1, 0, 1, BLOCK_DATA, 1, 0), 0);
	struct store_append a = {
		.key = {1, 0}, .family = 99, .version = {1, 2}, .previous = {1, 1}};
	assert_int_equal(store_append(rig->store, &a), -EINVAL);
}

static void test_payload_that_is_not_aligned_is_copied(void **state)
{
	struct rig *rig = *state;
	struct buffer *buffer = buffer_new(loop_buffers(rig->loop), 3 * BLOCK_SIZE);
	struct slice slice = slice_of(buffer, 100, 2 * BLOCK_SIZE);
	struct rig_append a = {.append = {.pg = 0,
					  .key = {1, 0},
					  .family = rig_family(1),
					  .version = {1, 1},
					  .run_count = 1},
			       .runs = {{3, 2, BLOCK_DATA}}};
	uint8_t block[BLOCK_SIZE] __attribute__((aligned(8)));

	for (uint32_t i = 0; i < 2; i++) {
		rig_fill(700 + i, block);
		memcpy(slice.data + i * BLOCK_SIZE, block, BLOCK_SIZE);
	}
	a.append.slices = &slice;
	a.append.slice_count = 1;
	assert_int_equal(rig_append_raw(rig, &a), 0);
	assert_int_equal(rig_append_wait(rig, &a), 0);
	buffer_put(buffer);
	assert_int_equal(rig_tag_at(rig, 0, 1, 0, 3), 700);
	assert_int_equal(rig_tag_at(rig, 0, 1, 0, 4), 701);
}

/* ---- layers ---- */

static void test_absent_blocks_are_looked_up_in_the_parent_layers(void **state)
{
	struct rig *rig = *state;
	static const uint64_t layers[] = {13, 12}; /* one family */
	uint8_t states[4];
	uint64_t words[4];
	struct rig_reading l = {.read = {.family = rig_family(12),
					 .layers = layers,
					 .layer_count = 2,
					 .count = 4,
					 .states = states}};

	assert_int_equal(rig_family(12), rig_family(13));
	assert_int_equal(rig_put(rig, 0, 12, 0, 1, 0, 3, BLOCK_DATA, 10, 0), 0);
	assert_int_equal(rig_put(rig, 0, 13, 0, 2, 1, 1, BLOCK_DATA, 20, 0), 0);
	assert_int_equal(rig_put(rig, 0, 13, 0, 3, 2, 1, BLOCK_ZERO, 0, 0), 0);
	rig_read_start(rig, &l);
	assert_int_equal(rig_reading_wait(rig, &l), 0);
	for (unsigned i = 0; i < 4; i++)
		memcpy(&words[i], l.read.data.data + i * BLOCK_SIZE, sizeof(words[i]));
	assert_int_equal(words[0], 10);
	assert_int_equal(words[1], 20);
	assert_int_equal(words[2], 0);
	assert_int_equal(words[3], 0);
	assert_int_equal(states[0], BLOCK_DATA);
	assert_int_equal(states[2], BLOCK_ZERO);
	assert_int_equal(states[3], BLOCK_ABSENT);
	rig_reading_free(&l);
}

/* ---- listing ---- */

static void test_objects_are_listed_in_key_order_while_they_change(void **state)
{
	struct rig *rig = *state;
	struct object_key after = {0};
	struct store_object object;
	uint32_t seen = 0, made = 0;

	/* Descending and mixed, so that chunks split everywhere. */
	for (uint32_t i = 0; i < 300; i++)
		assert_int_equal(
			rig_put(rig, 0, 1 + i % 3, (i * 37) % 300, i + 1, 0, 1, BLOCK_ZERO, 0, 0),
			0);
	for (int more = store_object_next(rig->store, 0, NULL, &object); more;
	     more = store_object_next(rig->store, 0, &after, &object)) {
		if (seen > 0)
			assert_true(object_key_compare(&after, &object.key) < 0);
		after = object.key;
		seen++;
		/* Behind the cursor one goes, before it one comes. */
		if (seen % 10 == 0) {
			assert_int_equal(rig_put(rig, 0, after.layer, after.index, 1000 + seen, 0,
						 0, 0, 0, STORE_DELETE),
					 0);
			assert_int_equal(rig_put(rig, 0, 9, 1000 - seen, 2000 + seen, 0, 1,
						 BLOCK_ZERO, 0, 0),
					 0);
			made++;
		}
		assert_true(made < 100);
	}
	assert_true(seen >= 330 && seen <= 300 + made);
}

static void test_object_whose_entry_is_in_flight_is_listed(void **state)
{
	struct rig *rig = *state;
	struct rig_append a = {
		.append = {.key = {4, 7}, .family = rig_family(4), .version = {1, 1}}};
	struct store_object object;

	assert_int_equal(rig_append(rig, &a, NULL), 0);
	assert_int_equal(store_object_next(rig->store, 0, NULL, &object), 1);
	assert_int_equal(object.key.index, 7);
	assert_int_equal(object.version.n, 1);
	assert_int_equal(store_object_next(rig->store, 0, &object.key, &object), 0);
	assert_int_equal(rig_append_wait(rig, &a), 0);
	struct rig_append d = {.append = {.key = {4, 7},
					  .version = {1, 2},
					  .previous = {1, 1},
					  .flags = STORE_DELETE}};
	assert_int_equal(rig_append(rig, &d, NULL), 0);
	assert_int_equal(store_object_next(rig->store, 0, NULL, &object), 0);
	assert_int_equal(rig_append_wait(rig, &d), 0);
}

static void on_dropped(struct loop_op *op, int result)
{
	assert_int_equal(result, 0);
}

static bool op_is_done(void *context)
{
	return !loop_op_is_busy(context);
}

static void test_dropped_pg_is_forgotten_for_good(void **state)
{
	struct rig *rig = *state;
	struct loop_op op = {.done = on_dropped};
	struct store_pg_info info;
	uint64_t before = store_credit(rig->store, 0);
	uint32_t pg;

	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(rig_put(rig, 3, 1, i, i + 1, 7 * i, 5, BLOCK_DATA, 1 + i * 5, 0),
				 0);
	assert_int_equal(rig_put(rig, 4, 1, 1, 1, 0, 1, BLOCK_DATA, 9999, 0), 0);
	store_drop_pg(rig->store, 3, &op);
	rig_settle(rig, 1 * NS_PER_S);
	assert_true(op_is_done(&op));
	for (unsigned i = 0; i < 3; i++) {
		store_pg_info(rig->store, 3, &info);
		assert_int_equal(info.objects, 0);
		assert_true(version_is_zero(info.last));
		assert_int_equal(store_pg_next(rig->store, 0, &pg), 1);
		assert_int_equal(pg, 4);
		assert_int_equal(store_pg_next(rig->store, 5, &pg), 0);
		assert_true(store_credit(rig->store, 0) >= before - 3 * BLOCK_SIZE);
		if (i == 0)
			rig_power_cut(rig, SIM_DROP_UNSYNCED);
		else
			rig_stop(rig);
		rig_open_ok(rig);
	}
	assert_int_equal(rig_tag_at(rig, 4, 1, 1, 0), 9999);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup_small, rig_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_written_blocks_are_read_back),
		TEST(test_entry_with_another_previous_version_is_refused),
		TEST(test_missing_object_takes_pushes_only_and_is_not_served),
		TEST(test_deleted_object_is_absent_and_its_space_comes_back),
		TEST(test_nonsense_is_refused),
		TEST(test_payload_that_is_not_aligned_is_copied),
		TEST(test_absent_blocks_are_looked_up_in_the_parent_layers),
		TEST(test_objects_are_listed_in_key_order_while_they_change),
		TEST(test_object_whose_entry_is_in_flight_is_listed),
		TEST(test_dropped_pg_is_forgotten_for_good),
	};
#undef TEST
	return cmocka_run_group_tests(tests, rig_log_start, rig_log_stop);
}
