/* The store's contract, call by call: sheep/store/store.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/crc32c.h"
#include "tests/unit/store_rig.h"

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

/* Stopped before anybody heard of it (no quorum, say), it must not come back as a clean one. */
static void test_unclean_store_is_no_clean_one_after_a_clean_stop(void **state)
{
	struct rig *rig = *state;

	rig_stop(rig);
	for (unsigned round = 0; round < 2; round++) {
		rig_open_ok(rig);
		assert_int_equal(store_identity(rig->store)->was_clean, round == 0);
		store_set_unclean(rig->store, true);
		rig_stop(rig);
	}
	rig_open_ok(rig);
	assert_false(store_identity(rig->store)->was_clean);
	store_set_unclean(rig->store, true);
	store_set_unclean(rig->store, false);
	rig_stop(rig);
	rig_open_ok(rig);
	assert_true(store_identity(rig->store)->was_clean);
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
	assert_int_equal(tag_at(rig, 0, 1, 0, 0), 60);
	assert_int_equal(tag_at(rig, 0, 1, 0, 1), 51);
	assert_int_equal(rig_put(rig, 0, 1, 0, 8, 7, 1, BLOCK_DATA, 70,
				 push | STORE_CLEAR_MISSING | STORE_REPLACE),
			 0);
	assert_int_equal(tag_at(rig, 0, 1, 0, 1), RIG_TAG_ABSENT);
	assert_int_equal(tag_at(rig, 0, 1, 0, 7), 70);
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
	assert_int_equal(tag_at(rig, 0, 1, 0, 5), RIG_TAG_ABSENT);
	/* Made again it begins from nothing. */
	assert_int_equal(rig_put(rig, 0, 1, 0, 3, 9, 1, BLOCK_DATA, 500, 0), 0);
	assert_int_equal(tag_at(rig, 0, 1, 0, 5), RIG_TAG_ABSENT);
	assert_int_equal(tag_at(rig, 0, 1, 0, 9), 500);
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
	assert_int_equal(tag_at(rig, 0, 1, 0, 3), 700);
	assert_int_equal(tag_at(rig, 0, 1, 0, 4), 701);
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

/* ---- what a PG remembers ---- */

static int put_request(struct rig *rig, uint32_t index, uint64_t n, uint64_t number,
		       uint64_t lowest)
{
	struct store_object now;
	struct rig_append a = {.append = {.pg = 2,
					  .key = {1, index},
					  .family = rig_family(1),
					  .version = {1, n},
					  .session = 5,
					  .number = number,
					  .lowest = lowest,
					  .run_count = 1},
			       .runs = {{1, 1, BLOCK_ZERO}}};
	int rc;

	if (store_object(rig->store, 2, &a.append.key, &now))
		a.append.previous = now.version;
	rc = rig_append(rig, &a, NULL);
	return rc < 0 ? rc : rig_append_wait(rig, &a);
}

static void check_tail(struct rig *rig, uint64_t first, uint64_t last)
{
	struct store_tail_entry tail[16];
	struct store_pg_info info;
	uint32_t count = store_pg_tail(rig->store, 2, tail, 16);

	store_pg_info(rig->store, 2, &info);
	assert_int_equal(info.last.n, last);
	assert_int_equal(info.commit.n, first - 1);
	assert_int_equal(count, last - first + 1);
	assert_int_equal(info.tail_count, count);
	for (uint32_t i = 0; i < count; i++) {
		assert_int_equal(tail[i].version.n, first + i);
		assert_int_equal(tail[i].session, 5);
		assert_int_equal(tail[i].number, first + i);
		assert_int_equal(tail[i].run_count, 1);
		assert_int_equal(tail[i].runs[0].block, 1);
	}
}

static void test_tail_commit_and_requests_survive_restart_of_any_kind(void **state)
{
	struct rig *rig = *state;
	struct version v;

	for (uint64_t n = 1; n <= 8; n++)
		assert_int_equal(put_request(rig, (uint32_t)n % 3, n, n, n > 4 ? n - 4 : 0), 0);
	check_tail(rig, 1, 8);
	store_set_commit(rig->store, 2, (struct version){1, 5});
	check_tail(rig, 6, 8);
	/* A commit point goes with the next batch, not by itself. */
	assert_int_equal(put_request(rig, 0, 9, 9, 5), 0);
	assert_int_equal(rig_sync(rig, 2), 0);
	for (unsigned kind = 0; kind < 4; kind++) {
		if (kind == 0)
			rig_power_cut(rig, SIM_DROP_UNSYNCED);
		else if (kind == 1)
			rig_crash(rig);
		else
			rig_stop(rig);
		rig_open_ok(rig);
		check_tail(rig, 6, 9);
		assert_int_equal(store_request_find(rig->store, 2, 5, 4, &v), 0);
		for (uint64_t n = 5; n <= 9; n++) {
			assert_int_equal(store_request_find(rig->store, 2, 5, n, &v), 1);
			assert_int_equal(v.n, n);
		}
		assert_int_equal(store_request_find(rig->store, 2, 6, 7, &v), 0);
	}
}

static void test_request_outside_of_its_window_is_refused(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(put_request(rig, 0, 1, 5000, 4000), 0);
	assert_int_equal(put_request(rig, 0, 2, 3999, 0), -EINVAL);
	assert_int_equal(put_request(rig, 0, 3, 4000 + STORE_SESSION_WINDOW, 0), -EINVAL);
	assert_int_equal(put_request(rig, 0, 4, 4000 + STORE_SESSION_WINDOW - 1, 0), 0);
}

static void test_requests_are_replaced_as_a_whole(void **state)
{
	struct rig *rig = *state;
	struct store_request *requests = calloc(3000, sizeof(*requests));
	struct store_request got[4];
	struct version v;

	assert_int_equal(put_request(rig, 0, 1, 1, 0), 0);
	for (uint32_t i = 0; i < 3000; i++)
		requests[i] = (struct store_request){8, 100000 + i, {2, i + 1}, {10, i % 3}};
	assert_int_equal(store_set_requests(rig->store, 2, requests, 3000), 0);
	assert_int_equal(store_request_find(rig->store, 2, 5, 1, &v), 0);
	assert_int_equal(store_requests(rig->store, 2, got, 4), 3000);
	assert_int_equal(put_request(rig, 0, 2, 2, 0), 0);
	assert_int_equal(rig_sync(rig, 2), 0);
	rig_power_cut(rig, SIM_DROP_UNSYNCED);
	rig_open_ok(rig);
	assert_int_equal(store_request_find(rig->store, 2, 5, 1, &v), 0);
	assert_int_equal(store_request_find(rig->store, 2, 5, 2, &v), 1);
	assert_int_equal(store_requests(rig->store, 2, got, 4), 3001);
	assert_int_equal(store_request_find(rig->store, 2, 8, 102999, &v), 1);
	assert_int_equal(v.n, 3000);
	for (unsigned kind = 0; kind < 2; kind++) { /* from the log, and from a checkpoint */
		const struct object_key key = {10, 1};
		assert_int_equal(
			store_object_requests(rig->store, 2, &key, (struct version){2, 0}, got, 4),
			1000);
		assert_int_equal(got[0].number, 100001);
		rig_stop(rig);
		rig_open_ok(rig);
	}
	store_end_session(rig->store, 2, 8);
	assert_int_equal(store_requests(rig->store, 2, got, 4), 1);
	rig_stop(rig);
	rig_open_ok(rig);
	assert_int_equal(store_requests(rig->store, 2, got, 4), 1);
	free(requests);
}

/*
 * An entry that replaces the requests of its object: they are there if and only if the change is, however many
 * batches they take.
 */
static void test_requests_of_an_object_come_with_the_change(void **state)
{
	struct rig *rig = *state;
	struct store_request *requests = calloc(3000, sizeof(*requests));
	struct rig_append a = {.append = {.pg = 2,
					  .key = {1, 0},
					  .family = rig_family(1),
					  .version = {2, 1},
					  .flags = STORE_ANY_PREVIOUS | STORE_REQUESTS,
					  .requests = requests,
					  .request_count = 3000,
					  .above = {1, 1},
					  .run_count = 1},
			       .runs = {{1, 1, BLOCK_ZERO}}};
	struct store_object object;
	static struct rig_append tries[40];
	unsigned with = 0, without = 0;
	struct version v;

	for (uint32_t i = 0; i < 3000; i++)
		requests[i] = (struct store_request){8, 100000 + i, {1, i + 10}, {1, 0}};
	for (uint64_t n = 1; n <= 6; n++) /* of object 0 or 1, in turn */
		assert_int_equal(put_request(rig, n % 2 == 0, n, n, 0), 0);
	assert_int_equal(rig_sync(rig, 2), 0);
	for (unsigned cut = 0; with == 0; cut++) {
		assert_true(cut < ARRAY_COUNT(tries));
		tries[cut] = a;
		assert_int_equal(rig_append(rig, &tries[cut], NULL), 0);
		assert_int_equal(store_request_find(rig->store, 2, 5, 3, &v), 0);
		assert_int_equal(store_request_find(rig->store, 2, 5, 4, &v), 1);
		rig_settle(rig, cut * 10 * NS_PER_US);
		rig_power_cut(rig, SIM_RANDOM_UNSYNCED);
		rig_open_ok(rig);
		assert_int_equal(store_object(rig->store, 2, &a.append.key, &object), 1);
		bool is_there = object.version.reign == 2;
		with += is_there;
		without += !is_there;
		for (uint64_t n = 1; n <= 6; n++)
			assert_int_equal(store_request_find(rig->store, 2, 5, n, &v),
					 !is_there || n % 2 == 0 || n == 1);
		assert_int_equal(store_requests(rig->store, 2, NULL, 0), is_there ? 3004 : 6);
	}
	assert_true(without > 0);
	free(requests);
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
	assert_int_equal(tag_at(rig, 4, 1, 1, 0), 9999);
}

/* ---- identity and refusals ---- */

static void test_identity_is_kept(void **state)
{
	struct rig *rig = *state;
	struct uuid uuid = store_identity(rig->store)->uuid, other = uuid;
	struct error err = {0};

	assert_true(store_identity(rig->store)->is_new);
	assert_int_equal(store_set_incarnation(rig->store, 17, &err), 0);
	assert_int_equal(store_set_cluster(rig->store, &uuid, &err), 0);
	other.bytes[0] ^= 1;
	assert_int_equal(store_set_cluster(rig->store, &other, &err), -E_WRONG_CLUSTER);
	assert_non_null(strstr(err.text, "belongs to cluster"));
	rig_power_cut(rig, SIM_DROP_UNSYNCED);
	rig_open_ok(rig);
	assert_true(uuid_is_equal(&store_identity(rig->store)->uuid, &uuid));
	assert_true(uuid_is_equal(&store_identity(rig->store)->cluster, &uuid));
	assert_int_equal(store_identity(rig->store)->incarnation, 17);
	assert_false(store_identity(rig->store)->was_clean);
}

static void test_second_open_is_refused(void **state)
{
	struct rig *rig = *state;
	struct sim_process *process = sim_process_new(rig->host);
	struct loop *loop;
	struct store *store;
	struct error err = {0};

	assert_int_equal(sim_process_loop_new(process, &(struct loop_options){0}, &loop), 0);
	assert_int_equal(store_open(&loop, 1, RIG_PATH, &rig_small, NULL, &store, &err), -EBUSY);
	assert_non_null(strstr(err.text, "in use"));
}

static void poke_super(struct rig *rig, unsigned copies, uint32_t offset)
{
	for (unsigned i = 0; i < 2; i++) {
		uint8_t byte;
		if (!(copies & BIT(i)))
			continue;
		assert_int_equal(sim_file_peek(rig->host, RIG_PATH "/superblock", &byte, 1,
					       i * 4096 + offset),
				 1);
		byte ^= 0x40;
		assert_int_equal(sim_file_poke(rig->host, RIG_PATH "/superblock", &byte, 1,
					       i * 4096 + offset),
				 0);
	}
}

static void test_one_damaged_superblock_copy_is_survived_two_are_named(void **state)
{
	struct rig *rig = *state;
	struct error err = {0};

	for (unsigned copies = 1; copies <= 3; copies++) {
		rig_stop(rig);
		poke_super(rig, copies, 60);
		if (copies < 3)
			rig_open_ok(rig);
	}
	assert_int_equal(rig_open(rig, &err), -E_CHECKSUM);
	assert_non_null(strstr(err.text, RIG_PATH));
	assert_non_null(strstr(err.text, "superblock"));
}

/* An object that does not fit an entry is for tests: callers send whole ones. */
static void test_segments_too_small_for_an_object_are_refused(void **state)
{
	struct rig *rig = *state;
	struct store_options options = {.size_bytes = 96 * MIB, .segment_bytes = 4 * MIB};
	struct store *store;
	struct error err = {0};

	assert_int_equal(store_open(&rig->loop, 1, "/other", &options, NULL, &store, &err),
			 -EINVAL);
	assert_non_null(strstr(err.text, "8 MiB"));
	options.segment_bytes = 8 * MIB;
	assert_int_equal(store_open(&rig->loop, 1, "/other", &options, NULL, &store, &err), 0);
	assert_int_equal(store_entry_blocks_max(store), OBJECT_BLOCKS);
	rig_crash(rig); /* of both: nothing comes back that one of them would have to wait for */
	store_forget(store);
}

static void test_foreign_directory_is_refused_and_left_alone(void **state)
{
	struct rig *rig = *state;
	struct loop_file *file;
	struct error err = {0};
	struct store *store;

	assert_int_equal(loop_sync_mkdir(rig->loop, "/other"), 0);
	assert_int_equal(loop_sync_open(rig->loop, "/other/letters",
					LOOP_FILE_WRITE | LOOP_FILE_CREATE, &file, &err),
			 0);
	loop_file_close(rig->loop, file);
	assert_int_equal(store_open(&rig->loop, 1, "/other", &rig_small, NULL, &store, &err),
			 -ENOTEMPTY);
	assert_non_null(strstr(err.text, "letters"));
}

/* ---- damage ---- */

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
		assert_int_equal(tag_at(rig, 0, 1, 0, i), expected[i]);
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
		assert_int_equal(tag_at(rig, 0, 1, 0, i), expected[i]);
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

/* The trap of a log that is overwritten at its end: what was behind the end fits exactly. */
static void test_batches_behind_the_end_of_an_earlier_life_never_come_back(void **state)
{
	struct rig *rig = *state;
	static const uint8_t zeroes[BLOCK_SIZE];
	struct store_object object;

	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(rig_put(rig, 0, 1, i, i + 1, 0, 1, BLOCK_DATA, 10 + i, 0), 0);
	rig_crash(rig);
	/* The second batch is lost: blocks 2 and 3 of the segment. */
	assert_int_equal(sim_file_poke(rig->host, RIG_PATH "/segment.00.00000", zeroes, BLOCK_SIZE,
				       2 * BLOCK_SIZE),
			 0);
	rig_open_ok(rig);
	assert_int_equal(store_object(rig->store, 0, &(struct object_key){1, 0}, &object), 1);
	for (uint32_t i = 1; i < 4; i++)
		assert_int_equal(store_object(rig->store, 0, &(struct object_key){1, i}, &object),
				 0);
	/* Another one of its length takes its place, and the store dies again. */
	assert_int_equal(rig_put(rig, 0, 1, 9, 2, 0, 1, BLOCK_DATA, 90, 0), 0);
	rig_crash(rig);
	rig_open_ok(rig);
	assert_int_equal(tag_at(rig, 0, 1, 9, 0), 90);
	for (uint32_t i = 1; i < 4; i++)
		assert_int_equal(store_object(rig->store, 0, &(struct object_key){1, i}, &object),
				 0);
	assert_false(store_identity(rig->store)->lost_log);
}

static uint64_t checkpoints_of(struct rig *rig)
{
	struct store_counters counters;

	store_counters(rig->store, &counters);
	return counters.checkpoints;
}

/* Read after a kill, lost with the power: what was appended meanwhile must not call it durable. */
static void test_checkpoint_that_was_never_synced_may_vanish_again(void **state)
{
	struct rig *rig = *state;
	uint32_t count = 0;

	rig_settle(rig, 1 * NS_PER_S);
	assert_int_equal(sim_file_fault(rig->host, RIG_PATH "/checkpoint.00.00000", LOOP_OP_SYNC, 1,
					SIM_FAULT_HANG),
			 0);
	/* Until the second checkpoint (the first was at creation) hangs in its sync. */
	for (; count < 150; count++)
		assert_int_equal(rig_put(rig, 0, 1, count % 20, count + 1, 0, 16, BLOCK_DATA,
					 1 + count * 16, 0),
				 0);
	assert_int_equal(checkpoints_of(rig), 1);
	rig_crash(rig);
	rig_open_ok(rig);
	assert_int_equal(rig_put(rig, 0, 2, 0, 1000, 0, 1, BLOCK_DATA, 77777, 0), 0);
	assert_int_equal(rig_sync(rig, 0), 0);
	assert_int_equal(rig_put(rig, 0, 2, 1, 1001, 0, 1, BLOCK_DATA, 88888, 0), 0);
	assert_int_equal(rig_sync(rig, 0), 0);
	rig_power_cut(rig, SIM_DROP_UNSYNCED);
	rig_open_ok(rig);
	assert_false(store_identity(rig->store)->lost_log);
	assert_int_equal(tag_at(rig, 0, 2, 0, 0), 77777);
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(tag_at(rig, 0, 1, i, 3) % 16, 4);
}

static void test_shards_are_logs_of_their_own_and_keep_their_number(void **state)
{
	struct rig *rig = *state;

	rig_stop(rig);
	rig_done(rig);
	rig_init(rig, 2,
		 &(struct store_options){.size_bytes = 40 * MIB,
					 .segment_bytes = 1 * MIB,
					 .has_small_segments = true,
					 .shards = 3});
	rig_open_ok(rig);
	for (unsigned kind = 0; kind < 3; kind++) {
		uint32_t pg, seen = 0;
		assert_int_equal(store_identity(rig->store)->shards, 3);
		for (uint32_t i = 0; i < 30; i++) {
			assert_int_equal(store_shard_of(rig->store, i), i % 3);
			assert_int_equal(rig_put(rig, i, 1, i, 1 + kind, kind, 1, BLOCK_DATA,
						 1 + kind * 100 + i, 0),
					 0);
		}
		for (uint32_t i = 0; i < 3; i++)
			assert_int_equal(rig_sync(rig, i), 0);
		rig->options.shards = 1 + kind; /* says nothing once the store is made */
		if (kind == 0)
			rig_power_cut(rig, SIM_DROP_UNSYNCED);
		else
			rig_stop(rig);
		rig_open_ok(rig);
		for (int more = store_pg_next(rig->store, 0, &pg); more;
		     more = store_pg_next(rig->store, pg + 1, &pg))
			assert_int_equal(pg, seen++);
		assert_int_equal(seen, 30);
		for (uint32_t i = 0; i < 30; i++)
			assert_int_equal(tag_at(rig, i, 1, i, kind), 1 + kind * 100 + i);
	}
	/* When one fails all do. */
	assert_int_equal(sim_file_fault(rig->host, RIG_PATH "/segment.01.00000", LOOP_OP_WRITE, 1,
					SIM_FAULT_EIO),
			 0);
	assert_int_equal(rig_put(rig, 1, 2, 0, 1000, 0, 1, BLOCK_ZERO, 0, 0), -E_STORE_FAILED);
	rig_settle(rig, 10 * NS_PER_MS);
	assert_int_equal(rig_put(rig, 2, 2, 0, 1000, 0, 1, BLOCK_ZERO, 0, 0), -E_STORE_FAILED);
	assert_int_equal(rig->failed, 1);
}

/* More PGs than one block of a descriptor takes, at every fill of a segment. */
static void test_commit_points_of_many_pgs_stay_within_the_segment(void **state)
{
	struct rig *rig = *state;

	for (uint32_t round = 0; round < 60; round++) {
		for (uint32_t pg = 0; pg < 300; pg++)
			store_set_commit(rig->store, pg, (struct version){1, round + 1});
		assert_int_equal(rig_put(rig, round % 7, 1, round % 5, round + 1, 0, 1 + round % 30,
					 BLOCK_DATA, 1 + round * 40, 0),
				 0);
	}
	assert_int_equal(rig_sync(rig, 0), 0);
	rig_power_cut(rig, SIM_DROP_UNSYNCED);
	rig_open_ok(rig);
	assert_false(store_identity(rig->store)->lost_log);
	for (uint32_t pg = 0; pg < 300; pg++) {
		struct store_pg_info info;
		store_pg_info(rig->store, pg, &info);
		assert_true(info.commit.n >= 58);
	}
}

static void test_full_file_system_is_a_smaller_store(void **state)
{
	struct rig *rig = *state;
	uint64_t before = store_credit(rig->store, 0);
	uint32_t count = 0;
	int rc;

	sim_host_set_disk_size(rig->host, 14 * MIB);
	rig_settle(rig, 1 * NS_PER_S);
	for (;; count++) {
		rc = rig_put(rig, 0, 1, count, count + 1, 0, 16, BLOCK_DATA, 1 + count * 16, 0);
		if (rc < 0)
			break;
	}
	assert_int_equal(rc, -ENOSPC);
	assert_false(store_is_failed(rig->store));
	assert_true(count * 64 * KIB < before);
	assert_true(count > 16);
	for (uint32_t i = 0; i < count; i++)
		assert_int_equal(tag_at(rig, 0, 1, i, 15), 1 + i * 16 + 15);
}

static uint32_t put_until_full(struct rig *rig, uint32_t from)
{
	uint32_t count = 0;

	/* An idle loop does not know how late it is, and appends come from within its turns. */
	assert_int_equal(rig_sync(rig, 0), 0);
	while (rig_put(rig, 0, 1, from + count, from + count + 1, 0, 16, BLOCK_DATA,
		       1 + (from + count) * 16, 0) == 0)
		count++;
	return count;
}

/* Whoever frees space on the file system gets the rest of the store, without a restart. */
static void test_store_grows_when_the_file_system_has_room_again(void **state)
{
	struct rig *rig = *state;
	uint64_t before, full;
	uint32_t first, second;

	rig_stop(rig);
	rig_done(rig);
	/* Full in the middle of a segment. */
	rig_init(rig, 4,
		 &(struct store_options){.size_bytes = 64 * MIB,
					 .segment_bytes = 4 * MIB,
					 .has_small_segments = true});
	rig_open_ok(rig);
	before = store_credit(rig->store, 0);
	sim_host_set_disk_size(rig->host, 46 * MIB);
	rig_settle(rig, 1 * NS_PER_S);
	first = put_until_full(rig, 0);
	/* As long as it is full nothing changes, however often one asks. */
	for (uint32_t i = 0; i < 5; i++) {
		full = store_credit(rig->store, 0);
		rig_settle(rig, 2 * NS_PER_S);
		second = put_until_full(rig, first);
		assert_true(second <= 8); /* what was put by for pages comes back */
		assert_true(store_credit(rig->store, 0) <= full + 8 * KIB * 16);
		first += second;
	}
	/* A little room, then all. */
	sim_host_set_disk_size(rig->host, 53 * MIB);
	rig_settle(rig, 2 * NS_PER_S);
	second = put_until_full(rig, first);
	rig_settle(rig, 2 * NS_PER_S);
	second += put_until_full(rig, first + second);
	assert_true(second >= 2 * MIB / (16 * BLOCK_SIZE));
	sim_host_set_disk_size(rig->host, 1024 * MIB);
	for (uint32_t i = 0; i < 3; i++) {
		rig_settle(rig, 2 * NS_PER_S);
		second += put_until_full(rig, first + second);
	}
	assert_true((uint64_t)(first + second) * 16 * BLOCK_SIZE > before / 10 * 9);
	assert_false(store_is_failed(rig->store));
	rig_stop(rig);
	rig_open_ok(rig);
	for (uint32_t i = 0; i < first + second; i++)
		assert_int_equal(tag_at(rig, 0, 1, i, 15), 1 + i * 16 + 15);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup_small, rig_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_written_blocks_are_read_back),
		TEST(test_everything_survives_a_clean_stop),
		TEST(test_unclean_store_is_no_clean_one_after_a_clean_stop),
		TEST(test_synced_entries_survive_a_power_cut),
		TEST(test_entry_with_another_previous_version_is_refused),
		TEST(test_missing_object_takes_pushes_only_and_is_not_served),
		TEST(test_deleted_object_is_absent_and_its_space_comes_back),
		TEST(test_nonsense_is_refused),
		TEST(test_payload_that_is_not_aligned_is_copied),
		TEST(test_absent_blocks_are_looked_up_in_the_parent_layers),
		TEST(test_tail_commit_and_requests_survive_restart_of_any_kind),
		TEST(test_request_outside_of_its_window_is_refused),
		TEST(test_requests_are_replaced_as_a_whole),
		TEST(test_requests_of_an_object_come_with_the_change),
		TEST(test_objects_are_listed_in_key_order_while_they_change),
		TEST(test_object_whose_entry_is_in_flight_is_listed),
		TEST(test_dropped_pg_is_forgotten_for_good),
		TEST(test_identity_is_kept),
		TEST(test_second_open_is_refused),
		TEST(test_one_damaged_superblock_copy_is_survived_two_are_named),
		TEST(test_segments_too_small_for_an_object_are_refused),
		TEST(test_foreign_directory_is_refused_and_left_alone),
		TEST(test_unreadable_block_is_reported_and_marked),
		TEST(test_damaged_block_is_healed_by_a_push_that_compares_sums),
		TEST(test_damaged_index_page_is_healed_and_never_read_as_a_hole),
		TEST(test_lost_blocks_are_an_error_until_they_are_written),
		TEST(test_a_mark_says_nothing_about_what_was_written_since),
		TEST(test_what_is_good_of_a_damaged_object_can_be_read),
		TEST(test_batches_behind_the_end_of_an_earlier_life_never_come_back),
		TEST(test_checkpoint_that_was_never_synced_may_vanish_again),
		TEST(test_shards_are_logs_of_their_own_and_keep_their_number),
		TEST(test_commit_points_of_many_pgs_stay_within_the_segment),
		TEST(test_full_file_system_is_a_smaller_store),
		TEST(test_store_grows_when_the_file_system_has_room_again),
	};
#undef TEST
	return cmocka_run_group_tests(tests, rig_log_start, rig_log_stop);
}
