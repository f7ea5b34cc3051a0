/* The pure pieces of sheep/pg: locks, the order of a stream, the settle plan, diffs, the codec. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/crc32c.h"
#include "lib/base/random.h"
#include "lib/base/size.h"
#include "sheep/pg/diff.h"
#include "sheep/pg/entry_codec.h"
#include "sheep/pg/locks.h"
#include "sheep/pg/plan.h"
#include "sheep/pg/stream.h"

/* ---- locks ---- */

struct held {
	struct pg_lock lock;
	unsigned granted;
};

static void on_granted(struct pg_lock *lock)
{
	container_of_type(lock, struct held, lock)->granted++;
}

static const struct object_key object = {.layer = 7, .index = 3};

static int take(struct pg_locks *locks, struct held *held, enum pg_lock_mode mode, uint32_t block,
		uint32_t count)
{
	memset(held, 0, sizeof(*held));
	held->lock.granted = on_granted;
	return pg_lock_take(locks, &held->lock, &object, mode, block, count);
}

static void test_locks_that_overlap_wait_in_order_and_others_pass(void **state)
{
	struct pg_locks locks;
	struct held a, b, c, d, e;

	pg_locks_init(&locks);
	assert_int_equal(take(&locks, &a, PG_LOCK_EXCLUSIVE, 0, 4), 1);
	assert_int_equal(take(&locks, &b, PG_LOCK_EXCLUSIVE, 3, 4), 0);
	assert_int_equal(take(&locks, &c, PG_LOCK_EXCLUSIVE, 7, 1), 1);
	assert_int_equal(take(&locks, &d, PG_LOCK_SHARED, 6, 1), 0); /* behind b, not behind c */
	assert_int_equal(take(&locks, &e, PG_LOCK_SHARED, 8, 1), 1);
	pg_lock_release(&locks, &a.lock);
	assert_int_equal(b.granted, 1);
	assert_int_equal(d.granted, 0);
	pg_lock_release(&locks, &b.lock);
	assert_int_equal(d.granted, 1);
	pg_lock_release(&locks, &c.lock);
	pg_lock_release(&locks, &d.lock);
	pg_lock_release(&locks, &e.lock);
	assert_int_equal(locks.held, 0);
	pg_locks_done(&locks);
}

static void test_a_whole_object_lock_is_not_starved_by_those_behind_it(void **state)
{
	struct pg_locks locks;
	struct held reader, whole, late, other;
	const struct object_key key = {.layer = 7, .index = 4};

	pg_locks_init(&locks);
	assert_int_equal(take(&locks, &reader, PG_LOCK_SHARED, 5, 1), 1);
	assert_int_equal(take(&locks, &whole, PG_LOCK_EXCLUSIVE, 0, OBJECT_BLOCKS), 0);
	assert_int_equal(take(&locks, &late, PG_LOCK_SHARED, 5, 1), 0);
	memset(&other, 0, sizeof(other));
	assert_int_equal(pg_lock_take(&locks, &other.lock, &key, PG_LOCK_EXCLUSIVE, 0, 1), 1);
	pg_lock_release(&locks, &reader.lock);
	assert_int_equal(whole.granted, 1);
	assert_int_equal(late.granted, 0);
	/* One that waits may give up. */
	pg_lock_release(&locks, &late.lock);
	pg_lock_release(&locks, &whole.lock);
	assert_int_equal(late.granted, 0);
	pg_lock_release(&locks, &other.lock);
	pg_lock_release(&locks, &other.lock); /* not held: nothing */
	pg_locks_done(&locks);
}

static void test_a_barrier_passes_those_that_let_it_and_holds_up_those_behind(void **state)
{
	struct pg_locks locks;
	struct held a, b, push, late;

	pg_locks_init(&locks);
	assert_int_equal(take(&locks, &a, PG_LOCK_EXCLUSIVE, 0, 4), 1);
	assert_int_equal(take(&locks, &b, PG_LOCK_EXCLUSIVE, 4, 4), 1);
	assert_int_equal(take(&locks, &push, PG_LOCK_EXCLUSIVE, 0, OBJECT_BLOCKS), 0);
	assert_int_equal(take(&locks, &late, PG_LOCK_EXCLUSIVE, 100, 1), 0);
	pg_lock_let_pass(&locks, &a.lock);
	assert_int_equal(push.granted, 0); /* it is no barrier */
	pg_lock_make_barrier(&locks, &push.lock);
	assert_int_equal(push.granted, 0); /* b does not let it pass */
	pg_lock_let_pass(&locks, &b.lock);
	assert_int_equal(push.granted, 1);
	assert_int_equal(late.granted, 0);
	pg_lock_release(&locks, &push.lock);
	assert_int_equal(late.granted, 1);
	pg_lock_release(&locks, &a.lock);
	pg_lock_release(&locks, &b.lock);
	pg_lock_release(&locks, &late.lock);
	pg_locks_done(&locks);
}

static void test_a_barrier_overtakes_those_that_wait_for_what_it_passes(void **state)
{
	struct pg_locks locks;
	struct held a, b, push, late;

	pg_locks_init(&locks);
	assert_int_equal(take(&locks, &a, PG_LOCK_EXCLUSIVE, 0, 4), 1);
	assert_int_equal(take(&locks, &b, PG_LOCK_EXCLUSIVE, 2, 4), 0);
	assert_int_equal(take(&locks, &push, PG_LOCK_EXCLUSIVE, 0, OBJECT_BLOCKS), 0);
	assert_int_equal(take(&locks, &late, PG_LOCK_EXCLUSIVE, 3, 1), 0);
	pg_lock_let_pass(&locks, &a.lock);
	assert_true(pg_lock_make_barrier(&locks, &push.lock));
	assert_false(pg_lock_make_barrier(&locks, &push.lock));
	assert_int_equal(push.granted, 1);
	assert_int_equal(b.granted, 0);
	pg_lock_release(&locks, &a.lock);
	assert_int_equal(b.granted, 0);
	pg_lock_release(&locks, &push.lock);
	assert_int_equal(b.granted, 1);
	assert_int_equal(late.granted, 0); /* behind b, as before */
	pg_lock_release(&locks, &b.lock);
	assert_int_equal(late.granted, 1);
	pg_lock_release(&locks, &late.lock);
	pg_locks_done(&locks);
}

/* Never two that conflict, never one that waits for nothing. */
static void test_random_locks_are_exclusive_and_get_there(void **state)
{
	struct pg_locks locks;
	struct held held[24];
	bool is_taken[24] = {false};
	uint32_t block[24], count[24], order[24], next = 0;
	enum pg_lock_mode mode[24];
	struct random random;

	random_init(&random, 5);
	pg_locks_init(&locks);
	for (unsigned step = 0; step < 20000; step++) {
		unsigned i = (unsigned)random_below(&random, 24);
		if (is_taken[i]) {
			pg_lock_release(&locks, &held[i].lock);
			is_taken[i] = false;
		} else {
			mode[i] = random_below(&random, 2) ? PG_LOCK_SHARED : PG_LOCK_EXCLUSIVE;
			block[i] = (uint32_t)random_below(&random, 40);
			count[i] = 1 + (uint32_t)random_below(&random, 10);
			order[i] = next++;
			(void)take(&locks, &held[i], mode[i], block[i], count[i]);
			is_taken[i] = true;
		}
		for (unsigned a = 0; a < 24; a++) {
			bool must_wait = false;
			if (!is_taken[a])
				continue;
			for (unsigned b = 0; b < 24; b++)
				must_wait |= b != a && is_taken[b] && order[b] < order[a] &&
					     (mode[a] == PG_LOCK_EXCLUSIVE ||
					      mode[b] == PG_LOCK_EXCLUSIVE) &&
					     ranges_overlap(block[a], count[a], block[b], count[b]);
			assert_int_equal(held[a].lock.is_granted, !must_wait);
		}
	}
	for (unsigned i = 0; i < 24; i++)
		pg_lock_release(&locks, &held[i].lock);
	pg_locks_done(&locks);
}

/* ---- streams ---- */

static void test_a_stream_takes_what_follows_and_knows_the_rest(void **state)
{
	const struct pg_stream at5 = {.reign = 1, .n = 5, .applied_n = 4};
	static const struct {
		uint64_t after, n;
		enum pg_verdict verdict;
	} cases[] =
		{
			{5, 6, PG_VERDICT_TAKE},
			{5, 9, PG_VERDICT_TAKE}, /* 6 to 8 were not for us */
			{4, 5, PG_VERDICT_HAVE},
			{0, 1, PG_VERDICT_HAVE},
			{6, 7, PG_VERDICT_GAP},
			{8, 9, PG_VERDICT_GAP},
			{4, 6, PG_VERDICT_LYING}, /* nothing between 4 and 6, and we have 5 */
			{7, 7, PG_VERDICT_LYING},
			{7, 6, PG_VERDICT_LYING},
			{0, 0, PG_VERDICT_LYING},
		};

	for (unsigned i = 0; i < ARRAY_COUNT(cases); i++)
		assert_int_equal(pg_stream_judge(&at5, cases[i].after, cases[i].n),
				 cases[i].verdict);
}

/* ---- the plan ---- */

static void test_a_plan_names_every_block_that_any_tail_names(void **state)
{
	const struct store_tail_entry ours[] = {
		{.key = {1, 2}, .family = 1, .run_count = 1, .runs = {{.block = 0, .count = 2}}},
		{.key = {1, 1}, .family = 1, .run_count = 1, .runs = {{.block = 9, .count = 1}}},
		{.key = {1, 2}, .family = 1, .run_count = 1, .runs = {{.block = 4, .count = 1}}},
	};
	struct store_tail_entry theirs[2] = {
		{.key = {1, 2},
		 .family = 1,
		 .run_count = 2,
		 .runs = {{.block = 1, .count = 2}, {.block = 1023, .count = 1}}},
		{.key = {2, 0}, .family = 1, .run_count = 0},
	};
	struct peer_tail_row rows[2];
	struct pg_plan plan;
	struct pg_plan_object *found;

	pg_plan_init(&plan);
	assert_int_equal(pg_plan_add_tail(&plan, ours, 3), 0);
	pg_tail_encode(rows, theirs, 2);
	assert_int_equal(pg_plan_add_rows(&plan, rows, 2), 0);
	assert_int_equal(plan.count, 3);
	found = pg_plan_take(&plan); /* in the order of keys */
	assert_int_equal(found->key.index, 1);
	assert_int_equal(bitmap_count(found->blocks, OBJECT_BLOCKS), 1);
	assert_false(found->is_whole);
	free(found);
	found = pg_plan_take(&plan);
	assert_int_equal(found->key.index, 2);
	assert_int_equal(bitmap_count(found->blocks, OBJECT_BLOCKS), 5);
	assert_true(bitmap_test(found->blocks, 1023) && bitmap_test(found->blocks, 2));
	free(found);
	found = pg_plan_take(&plan);
	assert_true(found->is_whole);
	free(found);
	assert_null(pg_plan_take(&plan));
	pg_plan_done(&plan);
}

static void test_rows_that_cannot_be_are_refused_as_a_whole(void **state)
{
	static const struct {
		uint32_t runs;
		uint16_t block, count, block2, count2;
	} bad[] = {
		{5, 0, 1, 2, 1},	 {1, 1024, 1, 0, 0},	   {1, 0, 0, 0, 0},
		{1, 1023, 2, 0, 0},	 {2, 4, 2, 5, 1},	   {2, 4, 2, 0, 1},
		{1, 65535, 65535, 0, 0}, {0xffffffff, 0, 1, 2, 1},
	};
	struct pg_plan plan;

	for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
		struct peer_tail_row rows[2];
		memset(rows, 0, sizeof(rows));
		rows[1].run_count = to_le32(bad[i].runs);
		rows[1].runs[0].block = to_le16(bad[i].block);
		rows[1].runs[0].count = to_le16(bad[i].count);
		rows[1].runs[1].block = to_le16(bad[i].block2);
		rows[1].runs[1].count = to_le16(bad[i].count2);
		pg_plan_init(&plan);
		assert_int_equal(pg_plan_add_rows(&plan, rows, 2), -EINVAL);
		assert_int_equal(plan.count, 0);
		pg_plan_done(&plan);
	}
}

/* ---- diffs ---- */

static void test_a_diff_is_what_differs_and_batches_cover_it_once(void **state)
{
	struct random random;

	random_init(&random, 9);
	for (unsigned round = 0; round < 200; round++) {
		static uint8_t states[OBJECT_BLOCKS], seen[OBJECT_BLOCKS];
		static uint32_t crcs[OBJECT_BLOCKS];
		static struct pg_sums theirs;
		struct store_run runs[8];
		struct pg_diff diff;
		uint32_t from = 0, count, expected = 0;

		memset(seen, 0, sizeof(seen));
		for (uint32_t i = 0; i < OBJECT_BLOCKS; i++) {
			states[i] = (uint8_t)random_below(&random, 3);
			crcs[i] = (uint32_t)random_below(&random, 2);
			theirs.states[i] = random_below(&random, 8)
						   ? states[i]
						   : (uint8_t)random_below(&random, 3);
			theirs.crcs[i] = random_below(&random, 8) ? crcs[i] : 1 - crcs[i];
		}
		bool is_full = round % 4 == 0;
		pg_diff_make(&diff, states, crcs, is_full ? NULL : &theirs);
		while (from < OBJECT_BLOCKS) {
			from = pg_diff_batch(&diff, states, from, OBJECT_BLOCKS, runs, 8, 5,
					     &count);
			assert_true(count <= 8);
			assert_true(pg_runs_data_blocks(runs, count) <= 5);
			for (uint32_t r = 0; r < count; r++)
				for (uint32_t b = 0; b < runs[r].count; b++) {
					assert_int_equal(states[runs[r].block + b], runs[r].state);
					assert_int_equal(seen[runs[r].block + b]++, 0);
				}
		}
		for (uint32_t i = 0; i < OBJECT_BLOCKS; i++) {
			uint8_t other = is_full ? BLOCK_ABSENT : theirs.states[i];
			bool differs = states[i] != other ||
				       (states[i] == BLOCK_DATA && crcs[i] != theirs.crcs[i]);
			assert_int_equal(seen[i], differs);
			expected += differs;
		}
		assert_int_equal(diff.count, expected);
	}
}

static void test_sums_survive_the_wire_and_lies_do_not(void **state)
{
	static uint8_t states[OBJECT_BLOCKS];
	static uint32_t crcs[OBJECT_BLOCKS];
	static struct pg_sums out;
	static uint8_t wire[OBJECT_BLOCKS * 5];

	states[0] = BLOCK_DATA;
	states[5] = BLOCK_ZERO;
	states[7] = BLOCK_LOST;
	states[8] = BLOCK_DATA;
	crcs[0] = 77;
	crcs[8] = 0xffffffff;
	uint32_t count = pg_sums_block_count(states);
	assert_int_equal(count, 9);
	pg_sums_encode(wire, states, crcs, count);
	assert_int_equal(pg_sums_decode(wire, pg_sums_size(count), count, &out), 0);
	assert_memory_equal(out.states, states, sizeof(states));
	assert_int_equal(out.crcs[8], 0xffffffff);
	assert_int_equal(pg_sums_decode(wire, pg_sums_size(count) - 1, count, &out), -EINVAL);
	assert_int_equal(pg_sums_decode(wire, pg_sums_size(1025), 1025, &out), -EINVAL);
	wire[3] = 4;
	assert_int_equal(pg_sums_decode(wire, pg_sums_size(count), count, &out), -EINVAL);
	assert_int_equal(pg_sums_decode(NULL, 0, 0, &out), 0);
}

static void test_a_digest_does_not_depend_on_order_and_tells_versions_apart(void **state)
{
	const struct object_key a = {1, 1}, b = {1, 2};
	const struct version v = {5, 6}, w = {6, 5};

	assert_true(store_digest_of(&a, v) + store_digest_of(&b, w) ==
		    store_digest_of(&b, w) + store_digest_of(&a, v));
	assert_true(store_digest_of(&a, v) + store_digest_of(&b, w) !=
		    store_digest_of(&a, w) + store_digest_of(&b, v));
}

/* ---- the codec ---- */

static void test_an_entry_survives_the_wire_and_lies_do_not(void **state)
{
	const struct store_run runs[] = {{.block = 0, .count = 2, .state = BLOCK_DATA},
					 {.block = 2, .count = 5, .state = BLOCK_ABSENT},
					 {.block = 1023, .count = 1, .state = BLOCK_DATA}};
	const uint32_t crcs[] = {1, 2, 0xdeadbeef};
	uint8_t meta[64];
	struct store_run got_runs[3];
	uint32_t got_crcs[3], crc = pg_meta_encode(meta, runs, 3, crcs, 3);

	assert_int_equal(pg_meta_size(3, 3), 36);
	assert_true(pg_meta_is_inline(3, 3));
	assert_false(pg_meta_is_inline(1, 13));
	assert_int_equal(pg_meta_decode(meta, crc, 3, 3, got_runs, got_crcs), 0);
	assert_memory_equal(got_crcs, crcs, sizeof(crcs));
	assert_int_equal(got_runs[2].block, 1023);
	assert_int_equal(pg_meta_decode(meta, crc + 1, 3, 3, got_runs, got_crcs), -E_CHECKSUM);
	/* As it would be with a sum made for it. */
	static const struct {
		unsigned at;
		uint8_t value;
	} lies[] = {
		{0, 9},	 /* the first run behind the second */
		{2, 0},	 /* no blocks */
		{2, 3},	 /* overlaps the next */
		{4, 0},	 /* fewer data blocks than checksums */
		{4, 4},	 /* no such state */
		{6, 1},	 /* reserved */
		{18, 2}, /* over the end of the object */
	};
	for (unsigned i = 0; i < ARRAY_COUNT(lies); i++) {
		uint8_t bad[64];
		memcpy(bad, meta, sizeof(meta));
		bad[lies[i].at] = lies[i].value;
		assert_int_equal(pg_meta_decode(bad, crc32c(bad, 36), 3, 3, got_runs, got_crcs),
				 -EINVAL);
	}
}

static void test_blocks_are_checked_one_by_one(void **state)
{
	static uint8_t data[3 * BLOCK_SIZE];
	uint32_t crcs[3];

	for (unsigned i = 0; i < 3; i++) {
		data[i * BLOCK_SIZE] = (uint8_t)i;
		crcs[i] = crc32c(data + i * BLOCK_SIZE, BLOCK_SIZE);
	}
	assert_int_equal(pg_blocks_check(data, crcs, 3), 0);
	data[2 * BLOCK_SIZE + 4095] ^= 0x80;
	assert_int_equal(pg_blocks_check(data, crcs, 3), -E_CHECKSUM);
	assert_int_equal(pg_blocks_check(data, crcs, 2), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_locks_that_overlap_wait_in_order_and_others_pass),
		cmocka_unit_test(test_a_whole_object_lock_is_not_starved_by_those_behind_it),
		cmocka_unit_test(test_a_barrier_passes_those_that_let_it_and_holds_up_those_behind),
		cmocka_unit_test(test_a_barrier_overtakes_those_that_wait_for_what_it_passes),
		cmocka_unit_test(test_random_locks_are_exclusive_and_get_there),
		cmocka_unit_test(test_a_stream_takes_what_follows_and_knows_the_rest),
		cmocka_unit_test(test_a_plan_names_every_block_that_any_tail_names),
		cmocka_unit_test(test_rows_that_cannot_be_are_refused_as_a_whole),
		cmocka_unit_test(test_a_diff_is_what_differs_and_batches_cover_it_once),
		cmocka_unit_test(test_sums_survive_the_wire_and_lies_do_not),
		cmocka_unit_test(test_a_digest_does_not_depend_on_order_and_tells_versions_apart),
		cmocka_unit_test(test_an_entry_survives_the_wire_and_lies_do_not),
		cmocka_unit_test(test_blocks_are_checked_one_by_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
