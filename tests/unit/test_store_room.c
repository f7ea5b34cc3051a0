/*
 * A file system that has less room than the store was told to use, or is filled by others: checkpoints get what
 * they need, one that finds no room is put off, and the store goes on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "include/proto/store.h"
#include "tests/unit/store_rig.h"

#define MANY 100000u

static const struct store_options options = {
	.size_bytes = 64 * MIB, .segment_bytes = 1 * MIB, .has_small_segments = true};

static int setup(void **state)
{
	return rig_setup(state, &options);
}

static uint64_t checkpoints_of(struct rig *rig)
{
	struct store_counters counters;

	rig_settle(rig, 10 * NS_PER_MS);
	store_counters(rig->store, &counters);
	return counters.checkpoints;
}

/* Small objects: the table of objects grows as much as it can. Returns how many there are. */
static uint32_t put_until_full(struct rig *rig, uint32_t from)
{
	uint32_t count = from;

	while (count < MANY &&
	       rig_put(rig, 0, 1, count, count + 1, 0, 1, BLOCK_DATA, 1 + count, 0) == 0) {
		store_set_commit(rig->store, 0, (struct version){1, count + 1});
		count++;
	}
	assert_false(store_is_failed(rig->store));
	return count;
}

static void expect(struct rig *rig, uint32_t from, uint32_t count)
{
	for (uint32_t i = from; i < count; i += 1 + count / 200) {
		uint32_t tag;
		assert_int_equal(rig_read(rig, 0, 1, i, 0, 1, &tag), 0);
		assert_int_equal(tag, 1 + i);
	}
}

/*
 * What is deleted can be written again, for many times what is there: checkpoints are made. Of @count objects the
 * last tenth goes; so many are left.
 */
static uint32_t turn_over(struct rig *rig, uint32_t count)
{
	uint64_t before = checkpoints_of(rig), n = MANY;
	uint32_t left = count - count / 10;

	for (uint32_t i = left; i < count; i++)
		assert_int_equal(rig_put(rig, 0, 1, i, ++n, 0, 0, BLOCK_ABSENT, 0, STORE_DELETE),
				 0);
	for (uint32_t i = 0; i < 3 * left; i++) {
		int rc = rig_put(rig, 0, 1, i % left, ++n, 0, 0, BLOCK_ABSENT, 0, STORE_DELETE);
		assert_int_equal(rc, 0);
		/* Space comes with the cleaner. */
		for (unsigned j = 0; j < 100; j++) {
			rc = rig_put(rig, 0, 1, i % left, ++n, 0, 1, BLOCK_DATA, 1 + i % left, 0);
			if (rc != -ENOSPC)
				break;
			rig_settle(rig, 100 * NS_PER_MS);
		}
		assert_int_equal(rc, 0);
		store_set_commit(rig->store, 0, (struct version){1, n});
	}
	assert_true(checkpoints_of(rig) > before);
	expect(rig, 0, left);
	return left;
}

static void test_store_on_a_file_system_that_is_too_small_goes_on(void **state)
{
	static const uint32_t sizes[] = {15, 18, 23, 30, 41};

	for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
		struct rig *rig = *state;
		uint32_t count;

		rig_done(rig);
		rig_init(rig, i + 1, &options);
		sim_host_set_disk_size(rig->host, sizes[i] * MIB + i * 100 * KIB);
		rig_open_ok(rig);
		rig_settle(rig, 1 * NS_PER_S);
		count = put_until_full(rig, 0);
		assert_true(count > 100 && count < MANY);
		expect(rig, 0, count);
		count = turn_over(rig, count);
		rig_stop(rig);
		rig_open_ok(rig);
		expect(rig, 0, count);
		(void)turn_over(rig, count);
		assert_int_equal(rig->failed, 0);
	}
}

/* Somebody else takes all the room there is. */
static void test_store_goes_on_when_others_fill_the_file_system(void **state)
{
	struct rig *rig = *state;
	uint32_t count = 0, more;

	for (; count < 800; count++)
		assert_int_equal(
			rig_put(rig, 0, 1, count, count + 1, 0, 1, BLOCK_DATA, 1 + count, 0), 0);
	rig_settle(rig, 1 * NS_PER_S);
	sim_host_set_disk_size(rig->host, sim_host_disk_used(rig->host));
	count = put_until_full(rig, count);
	count = turn_over(rig, count);
	assert_int_equal(rig_sync(rig, 0), 0);
	rig_power_cut(rig, SIM_DROP_UNSYNCED);
	rig_open_ok(rig);
	expect(rig, 0, count);
	count = turn_over(rig, count);
	rig_stop(rig);
	rig_open_ok(rig);
	expect(rig, 0, count);
	/* And takes it no more. */
	sim_host_set_disk_size(rig->host, 1024 * MIB);
	more = count;
	for (unsigned i = 0; i < 5; i++) {
		rig_settle(rig, 2 * NS_PER_S);
		(void)rig_sync(rig, 0);
		more = put_until_full(rig, more);
	}
	assert_true(more > 2 * count);
	expect(rig, 0, more);
	assert_int_equal(rig->failed, 0);
}

/* A checkpoint that finds no room, at each of its steps. */
static void test_checkpoint_without_room_is_put_off(void **state)
{
	static const enum loop_op_kind kinds[] = {LOOP_OP_WRITE, LOOP_OP_SYNC};
	struct rig *rig = *state;
	uint64_t n = 1;

	for (unsigned step = 0; step < 6; step++) {
		const char *path = step % 2 ? RIG_PATH "/checkpoint.00.00000"
					    : RIG_PATH "/checkpoint.00.00001";
		uint64_t before = checkpoints_of(rig);
		/* Of the next two one goes to this file. */
		assert_int_equal(sim_file_fault(rig->host, path, kinds[step / 4], 1 + step / 2 % 2,
						SIM_FAULT_ENOSPC),
				 0);
		while (checkpoints_of(rig) < before + 4) {
			uint32_t i = (uint32_t)(n % 40);
			int rc = rig_put(rig, 0, 1, i, n++, 0, 64, BLOCK_DATA, 1 + i * 64, 0);
			/* Until it has looked again. */
			if (rc == -ENOSPC) {
				rig_settle(rig, 1100 * NS_PER_MS);
				assert_int_equal(rig_sync(rig, 0), 0);
			} else
				assert_int_equal(rc, 0);
			assert_true(n < 5000);
		}
		assert_int_equal(rig->failed, 0);
		sim_host_forget_faults(rig->host);
	}
	rig_power_cut(rig, SIM_DROP_UNSYNCED);
	rig_open_ok(rig);
	for (uint32_t i = 0; i < 40; i++) {
		uint32_t tag;
		assert_int_equal(rig_read(rig, 0, 1, i, 63, 1, &tag), 0);
		assert_int_equal(tag, 1 + i * 64 + 63);
	}
}

/* Without room for its last checkpoint a store stops cleanly: its log has everything. */
static void test_store_stops_cleanly_without_room_for_a_checkpoint(void **state)
{
	struct rig *rig = *state;

	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(rig_put(rig, 0, 1, i, i + 1, 0, 1, BLOCK_DATA, 1 + i, 0), 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(sim_file_fault(rig->host,
						i ? RIG_PATH "/checkpoint.00.00000"
						  : RIG_PATH "/checkpoint.00.00001",
						LOOP_OP_WRITE, 1, SIM_FAULT_ENOSPC),
				 0);
	rig_stop(rig);
	sim_host_forget_faults(rig->host);
	rig_power_cut(rig, SIM_DROP_UNSYNCED);
	rig_open_ok(rig);
	assert_true(store_identity(rig->store)->was_clean);
	expect(rig, 0, 100);
}

/* Checkpoint files without any room beyond what they hold: from a version that did not see to it. */
static void test_store_without_any_room_opens_and_goes_on(void **state)
{
	struct rig *rig = *state;
	struct disk_checkpoint head;
	struct error err;
	uint32_t count;

	sim_host_set_disk_size(rig->host, 30 * MIB);
	count = put_until_full(rig, 0);
	assert_int_equal(rig_sync(rig, 0), 0);
	rig_power_cut(rig, SIM_DROP_UNSYNCED);
	assert_int_equal(sim_loop_new(rig->world, rig->host, &(struct loop_options){.name = "cut"},
				      &rig->loop),
			 0);
	for (unsigned i = 0; i < 2; i++) {
		struct loop_file *file;
		assert_int_equal(loop_sync_open(rig->loop,
						i ? RIG_PATH "/checkpoint.00.00000"
						  : RIG_PATH "/checkpoint.00.00001",
						LOOP_FILE_READ | LOOP_FILE_WRITE, &file, &err),
				 0);
		assert_int_equal(loop_sync_read(rig->loop, file, &head, sizeof(head), 0),
				 sizeof(head));
		assert_int_equal(
			loop_sync_truncate(rig->loop, file,
					   BLOCK_SIZE + round_up(from_le64(head.body_bytes),
								 (uint64_t)BLOCK_SIZE)),
			0);
		loop_file_close(rig->loop, file);
	}
	sim_host_set_disk_size(rig->host, sim_host_disk_used(rig->host));
	rig_open_ok(rig);
	expect(rig, 0, count);
	/* It serves, deletes, and writes when it can. */
	for (uint32_t i = count / 2; i < count; i++)
		assert_int_equal(
			rig_put(rig, 0, 1, i, MANY + i, 0, 0, BLOCK_ABSENT, 0, STORE_DELETE), 0);
	rig_settle(rig, 5 * NS_PER_S);
	expect(rig, 0, count / 2);
	rig_stop(rig);
	rig_open_ok(rig);
	expect(rig, 0, count / 2);
	sim_host_set_disk_size(rig->host, sim_host_disk_used(rig->host) + 4 * MIB);
	(void)rig_put(rig, 0, 1, count, MANY, 0, 1, BLOCK_DATA, 1, 0);
	rig_settle(rig, 2 * NS_PER_S);
	assert_int_equal(rig_sync(rig, 0), 0);
	(void)turn_over(rig, count / 2);
	assert_int_equal(rig->failed, 0);
}

/* ---- what of its size a store may use ---- */

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
		assert_int_equal(rig_tag_at(rig, 0, 1, i, 15), 1 + i * 16 + 15);
}

static uint32_t put_large_until_full(struct rig *rig, uint32_t from)
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
	first = put_large_until_full(rig, 0);
	/* As long as it is full nothing changes, however often one asks. */
	for (uint32_t i = 0; i < 5; i++) {
		full = store_credit(rig->store, 0);
		rig_settle(rig, 2 * NS_PER_S);
		second = put_large_until_full(rig, first);
		assert_true(second <= 8); /* what was put by for pages comes back */
		assert_true(store_credit(rig->store, 0) <= full + 8 * KIB * 16);
		first += second;
	}
	/* A little room, then all. */
	sim_host_set_disk_size(rig->host, 53 * MIB);
	rig_settle(rig, 2 * NS_PER_S);
	second = put_large_until_full(rig, first);
	rig_settle(rig, 2 * NS_PER_S);
	second += put_large_until_full(rig, first + second);
	assert_true(second >= 2 * MIB / (16 * BLOCK_SIZE));
	sim_host_set_disk_size(rig->host, 1024 * MIB);
	for (uint32_t i = 0; i < 3; i++) {
		rig_settle(rig, 2 * NS_PER_S);
		second += put_large_until_full(rig, first + second);
	}
	assert_true((uint64_t)(first + second) * 16 * BLOCK_SIZE > before / 10 * 9);
	assert_false(store_is_failed(rig->store));
	rig_stop(rig);
	rig_open_ok(rig);
	for (uint32_t i = 0; i < first + second; i++)
		assert_int_equal(rig_tag_at(rig, 0, 1, i, 15), 1 + i * 16 + 15);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, rig_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_store_on_a_file_system_that_is_too_small_goes_on),
		TEST(test_store_goes_on_when_others_fill_the_file_system),
		TEST(test_checkpoint_without_room_is_put_off),
		TEST(test_store_stops_cleanly_without_room_for_a_checkpoint),
		TEST(test_store_without_any_room_opens_and_goes_on),
		cmocka_unit_test_setup_teardown(test_full_file_system_is_a_smaller_store,
						rig_setup_small, rig_teardown),
		TEST(test_store_grows_when_the_file_system_has_room_again),
	};
#undef TEST
	return cmocka_run_group_tests(tests, rig_log_start, rig_log_stop);
}
