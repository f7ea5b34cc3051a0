/*
 * A disk that errs, or hangs: nothing is acknowledged any more, the caller is told once, and closing does
 * not wait for it.
 *
 * Trap: a deadline that fires under overload takes the disks of a busy cluster one after the other; so
 * what must not stop the store is tested as well.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/store_rig.h"

#define SEGMENT RIG_PATH "/segment.00.00000"

static int setup(void **state)
{
	struct rig *rig;

	(void)rig_setup(state, &rig_small);
	rig = *state;
	rig_settle(rig, 1 * NS_PER_S);
	return 0;
}

/* ---- errors ---- */

static void test_first_write_error_stops_the_store(void **state)
{
	struct rig *rig = *state;
	struct rig_append a[3];

	memset(a, 0, sizeof(a));
	for (unsigned i = 0; i < 3; i++)
		a[i] = (struct rig_append){.append = {.key = {1, i},
						      .family = rig_family(1),
						      .version = {1, i + 1},
						      .run_count = 1},
					   .runs = {{0, 1, BLOCK_ZERO}}};
	assert_int_equal(sim_file_fault(rig->host, SEGMENT, LOOP_OP_WRITE, 1, SIM_FAULT_EIO), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(rig_append(rig, &a[i], NULL), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(rig_append_wait(rig, &a[i]), -E_STORE_FAILED);
	assert_int_equal(rig->failed, 1);
	assert_int_equal(rig->failed_error, -EIO);
	assert_true(store_is_failed(rig->store));
	assert_int_equal(rig_put(rig, 0, 1, 9, 9, 0, 1, BLOCK_ZERO, 0, 0), -E_STORE_FAILED);
	assert_int_equal(rig_sync(rig, 0), -E_STORE_FAILED);
	uint32_t tag;
	assert_int_equal(rig_read(rig, 0, 1, 0, 0, 1, &tag), -E_STORE_FAILED);
}

static void test_failed_sync_acknowledges_nothing(void **state)
{
	struct rig *rig = *state;
	struct rig_append a = {.append = {.key = {1, 0},
					  .family = rig_family(1),
					  .version = {1, 1},
					  .flags = STORE_SYNC,
					  .run_count = 1},
			       .runs = {{0, 1, BLOCK_ZERO}}};

	assert_int_equal(sim_file_fault(rig->host, SEGMENT, LOOP_OP_SYNC, 1, SIM_FAULT_EIO), 0);
	assert_int_equal(rig_append(rig, &a, NULL), 0);
	assert_int_equal(rig_append_wait(rig, &a), -E_STORE_FAILED);
	assert_int_equal(rig->failed, 1);
}

static void on_late_sync(struct loop_op *op, int result)
{
	assert_int_equal(result, -E_STORE_FAILED);
}

static bool is_first_done(void *context)
{
	return ((struct rig_append *)context)[0].is_done;
}

/* Somebody waits for a sync of what is not written yet: those whose data is there do not wait for him. */
static void test_sync_of_what_is_written_does_not_wait_for_what_is_not(void **state)
{
	struct rig *rig = *state;
	struct loop_op op = {.done = on_late_sync};
	/* The second one is on its way when the first has been written. */
	const struct sim_latency latency = {.write_min_ns = 100 * NS_PER_US,
					    .write_max_ns = 100 * NS_PER_US,
					    .sync_min_ns = 100 * NS_PER_US,
					    .sync_max_ns = 100 * NS_PER_US};
	struct rig_append a[2];
	uint32_t tag = 5;
	uint64_t start;

	memset(a, 0, sizeof(a));
	for (unsigned i = 0; i < 2; i++)
		a[i] = (struct rig_append){.append = {.key = {1, i},
						      .family = rig_family(1),
						      .version = {1, i + 1},
						      .flags = i == 0 ? STORE_SYNC : 0,
						      .run_count = 1},
					   .runs = {{0, 1, BLOCK_DATA}}};
	rig_settle(rig, 1 * NS_PER_S);
	sim_host_set_latency(rig->host, &latency);
	assert_int_equal(sim_file_fault(rig->host, SEGMENT, LOOP_OP_WRITE, 2, SIM_FAULT_HANG), 0);
	start = sim_now(rig->world);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(rig_append(rig, &a[i], &tag), 0);
		rig_settle(rig, 50 * NS_PER_US);
	}
	store_sync(rig->store, 0, &op);
	rig_until(rig, is_first_done, a);
	assert_int_equal(a[0].result, 0);
	assert_true(sim_now(rig->world) - start < 1 * NS_PER_S);
	assert_false(a[1].is_done);
	assert_int_equal(rig_append_wait(rig, &a[1]), -E_STORE_FAILED);
	rig_append_free(&a[0]);
	assert_int_equal(sim_file_unhang(rig->host, SEGMENT), 0);
	rig_settle(rig, 1 * NS_PER_S);
}

/* ---- hanging ---- */

static void begin_append(struct rig *rig, struct rig_append *a, uint32_t index, uint32_t flags)
{
	static const uint32_t tags[] = {5};

	*a = (struct rig_append){.append = {.key = {1, index},
					    .family = rig_family(1),
					    .version = {1, 100 + index},
					    .flags = flags,
					    .run_count = 1},
				 .runs = {{0, 1, BLOCK_DATA}}};
	assert_int_equal(rig_append(rig, a, tags), 0);
}

static void hang_next(struct rig *rig, enum loop_op_kind kind)
{
	assert_int_equal(sim_file_fault(rig->host, SEGMENT, kind, 1, SIM_FAULT_HANG), 0);
}

static void assert_took(struct rig *rig, uint64_t start, uint64_t min_ms, uint64_t max_ms)
{
	uint64_t ms = (sim_now(rig->world) - start) / NS_PER_MS;

	if (ms < min_ms || ms > max_ms)
		fail_msg("%llu ms", (unsigned long long)ms);
}

static void test_hung_write_stops_the_store_after_its_deadline(void **state)
{
	struct rig *rig = *state;
	struct rig_append a;
	uint64_t start = sim_now(rig->world);

	hang_next(rig, LOOP_OP_WRITE);
	begin_append(rig, &a, 0, 0);
	assert_int_equal(rig_append_wait(rig, &a), -E_STORE_FAILED);
	assert_took(rig, start, 2000, 2150);
	assert_int_equal(rig->failed_error, -ETIMEDOUT);
	/* When it comes back after all nobody is told again. */
	assert_int_equal(sim_file_unhang(rig->host, SEGMENT), 0);
	rig_settle(rig, 1 * NS_PER_S);
	assert_int_equal(rig->failed, 1);
}

static void test_hung_sync_stops_the_store_after_its_deadline(void **state)
{
	struct rig *rig = *state;
	struct rig_append a;
	uint64_t start = sim_now(rig->world);

	hang_next(rig, LOOP_OP_SYNC);
	begin_append(rig, &a, 0, STORE_SYNC);
	assert_int_equal(rig_append_wait(rig, &a), -E_STORE_FAILED);
	assert_took(rig, start, 2000, 2150);
	assert_int_equal(rig->failed_error, -ETIMEDOUT);
	assert_int_equal(sim_file_unhang(rig->host, SEGMENT), 0);
	rig_settle(rig, 1 * NS_PER_S);
}

static void test_hung_read_stops_the_store_after_its_deadline(void **state)
{
	struct rig *rig = *state;
	uint64_t start;
	uint32_t tag;

	assert_int_equal(rig_put(rig, 0, 1, 0, 1, 0, 1, BLOCK_DATA, 5, 0), 0);
	hang_next(rig, LOOP_OP_READ);
	start = sim_now(rig->world);
	assert_int_equal(rig_read(rig, 0, 1, 0, 0, 1, &tag), -E_STORE_FAILED);
	assert_took(rig, start, 2000, 2150);
	assert_int_equal(rig->failed, 1);
	assert_int_equal(sim_file_unhang(rig->host, SEGMENT), 0);
	rig_settle(rig, 1 * NS_PER_S);
}

static void test_deadline_is_changed_while_the_store_runs(void **state)
{
	struct rig *rig = *state;
	struct rig_append a;
	uint64_t start;

	store_set_deadline(rig->store, 600 * NS_PER_S);
	hang_next(rig, LOOP_OP_WRITE);
	begin_append(rig, &a, 0, 0);
	rig_settle(rig, 30 * NS_PER_S);
	assert_int_equal(rig->failed, 0);
	assert_int_equal(sim_file_unhang(rig->host, SEGMENT), 0);
	assert_int_equal(rig_append_wait(rig, &a), 0);
	store_set_deadline(rig->store, 400 * NS_PER_MS);
	hang_next(rig, LOOP_OP_WRITE);
	start = sim_now(rig->world);
	begin_append(rig, &a, 1, 0);
	assert_int_equal(rig_append_wait(rig, &a), -E_STORE_FAILED);
	assert_took(rig, start, 400, 430);
	assert_int_equal(sim_file_unhang(rig->host, SEGMENT), 0);
	rig_settle(rig, 1 * NS_PER_S);
}

/* Each operation comes to take longer than the deadline, but one after the other is done: this disk is slow. */
static void test_overloaded_disk_is_not_hung(void **state)
{
	struct rig *rig = *state;
	struct sim_latency slow = {.read_min_ns = 100 * NS_PER_US,
				   .read_max_ns = 1 * NS_PER_MS,
				   .sync_min_ns = 100 * NS_PER_US,
				   .sync_max_ns = 1 * NS_PER_MS};
	struct rig_append a[32];

	for (unsigned i = 0; i < ARRAY_COUNT(a); i++) {
		slow.write_min_ns = min_of(500u + 200u * i, 3000u) * NS_PER_MS;
		slow.write_max_ns = slow.write_min_ns + 200 * NS_PER_MS;
		sim_host_set_latency(rig->host, &slow);
		begin_append(rig, &a[i], i, 0);
		rig_settle(rig, 700 * NS_PER_MS);
	}
	for (unsigned i = 0; i < ARRAY_COUNT(a); i++)
		assert_int_equal(rig_append_wait(rig, &a[i]), 0);
	assert_int_equal(rig->failed, 0);
}

static bool is_append_done(void *context)
{
	return ((struct rig_append *)context)->is_done;
}

/* Reads that go on say nothing of a write; and of a read only for a while. */
static void test_one_operation_that_hangs_alone_stops_the_store_in_the_end(void **state)
{
	struct rig *rig = *state;
	struct rig_append a;
	uint64_t start;
	uint32_t tag;

	assert_int_equal(rig_put(rig, 0, 1, 0, 1, 0, 1, BLOCK_DATA, 5, 0), 0);
	hang_next(rig, LOOP_OP_WRITE);
	start = sim_now(rig->world);
	begin_append(rig, &a, 1, 0);
	while (!is_append_done(&a) && sim_now(rig->world) - start < 20 * NS_PER_S) {
		int rc = rig_read(rig, 0, 1, 0, 0, 1, &tag);
		assert_true(rc == 0 || a.is_done);
		rig_settle(rig, 10 * NS_PER_MS);
	}
	assert_int_equal(rig_append_wait(rig, &a), -E_STORE_FAILED);
	assert_took(rig, start, 2000, 2200);
	assert_int_equal(sim_file_unhang(rig->host, SEGMENT), 0);
	rig_settle(rig, 1 * NS_PER_S);
}

static void test_read_that_hangs_among_others_stops_the_store_after_four_deadlines(void **state)
{
	struct rig *rig = *state;
	const uint64_t layer = 1;
	struct rig_reading late = {
		.read = {.family = rig_family(1), .layers = &layer, .layer_count = 1, .count = 1}};
	uint64_t start;
	uint32_t tag;

	assert_int_equal(rig_put(rig, 0, 1, 0, 1, 0, 1, BLOCK_DATA, 5, 0), 0);
	hang_next(rig, LOOP_OP_READ);
	start = sim_now(rig->world);
	rig_read_start(rig, &late);
	rig_settle(rig, 10 * NS_PER_MS);
	while (!late.is_done && sim_now(rig->world) - start < 20 * NS_PER_S) {
		int rc = rig_read(rig, 0, 1, 0, 0, 1, &tag);
		assert_true(rc == 0 || late.is_done);
		rig_settle(rig, 100 * NS_PER_MS);
	}
	assert_int_equal(late.result, -E_STORE_FAILED);
	assert_took(rig, start, 8000, 8400);
	assert_int_equal(sim_file_unhang(rig->host, SEGMENT), 0);
	rig_settle(rig, 1 * NS_PER_S);
}

/* ---- closing ---- */

/* The mail that tells the other shard is on its way when the store is closed: the memory goes with it. */
static void test_failed_store_is_closed_before_its_shards_know(void **state)
{
	struct rig *rig = *state;
	const struct store_callbacks callbacks = {.failed = NULL};
	struct loop *loops[2];
	struct error err = {0};

	rig_stop(rig);
	rig_done(rig);
	rig_init(rig, 3,
		 &(struct store_options){.size_bytes = 40 * MIB,
					 .segment_bytes = 1 * MIB,
					 .has_small_segments = true,
					 .shards = 2});
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(sim_loop_new(rig->world, rig->host,
					      &(struct loop_options){.name = "shard"}, &loops[i]),
				 0);
	rig->loop = loops[0];
	assert_int_equal(
		store_open(loops, 2, RIG_PATH, &rig->options, &callbacks, &rig->store, &err), 0);
	rig_settle(rig, 1 * NS_PER_S);
	assert_int_equal(sim_file_fault(rig->host, RIG_PATH "/segment.00.00000", LOOP_OP_WRITE, 1,
					SIM_FAULT_EIO),
			 0);
	assert_int_equal(rig_put(rig, 0, 1, 0, 1, 0, 1, BLOCK_ZERO, 0, 0), -E_STORE_FAILED);
	store_close(rig->store);
	rig->store = NULL;
	assert_int_equal(
		store_open(loops, 2, RIG_PATH, &rig->options, &callbacks, &rig->store, &err),
		-EBUSY);
	rig_settle(rig, 1 * NS_PER_S);
	/* Now nothing of it is left, not even its lock. */
	assert_int_equal(
		store_open(loops, 2, RIG_PATH, &rig->options, &callbacks, &rig->store, &err), 0);
}

static bool is_lock_gone(struct rig *rig)
{
	struct error err = {0};

	return rig_open(rig, &err) == 0;
}

/* Its memory and files stay until the disk gives them back; nobody waits. */
static void test_store_with_a_hung_disk_is_closed_at_once(void **state)
{
	struct rig *rig = *state;
	struct rig_append a[8];
	struct rig_reading late[4];
	const uint64_t layer = 1;
	uint64_t start;

	assert_int_equal(rig_put(rig, 0, 1, 0, 1, 0, 64, BLOCK_DATA, 5, 0), 0);
	sim_host_hang_disk(rig->host, true);
	for (unsigned i = 0; i < ARRAY_COUNT(a); i++) {
		begin_append(rig, &a[i], i + 1, i % 2 ? STORE_SYNC : 0);
		rig_settle(rig, 1 * NS_PER_MS);
	}
	for (unsigned i = 0; i < ARRAY_COUNT(late); i++) {
		late[i] = (struct rig_reading){.read = {.family = rig_family(1),
							.layers = &layer,
							.layer_count = 1,
							.block = i,
							.count = 60}};
		rig_read_start(rig, &late[i]);
	}
	for (unsigned i = 0; i < ARRAY_COUNT(a); i++)
		assert_int_equal(rig_append_wait(rig, &a[i]), -E_STORE_FAILED);
	for (unsigned i = 0; i < ARRAY_COUNT(late); i++) {
		assert_true(late[i].is_done);
		assert_int_equal(late[i].result, -E_STORE_FAILED);
	}
	start = sim_now(rig->world);
	store_close(rig->store);
	rig->store = NULL;
	assert_int_equal(sim_now(rig->world), start);
	rig_settle(rig, 60 * NS_PER_S);
	assert_false(is_lock_gone(rig)); /* the disk may still write what it was given */
	sim_host_hang_disk(rig->host, false);
	rig_settle(rig, 1 * NS_PER_S);
	assert_true(is_lock_gone(rig));
	assert_int_equal(rig->failed, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, rig_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_first_write_error_stops_the_store),
		TEST(test_failed_sync_acknowledges_nothing),
		TEST(test_sync_of_what_is_written_does_not_wait_for_what_is_not),
		TEST(test_hung_write_stops_the_store_after_its_deadline),
		TEST(test_hung_sync_stops_the_store_after_its_deadline),
		TEST(test_hung_read_stops_the_store_after_its_deadline),
		TEST(test_deadline_is_changed_while_the_store_runs),
		TEST(test_overloaded_disk_is_not_hung),
		TEST(test_one_operation_that_hangs_alone_stops_the_store_in_the_end),
		TEST(test_read_that_hangs_among_others_stops_the_store_after_four_deadlines),
		TEST(test_failed_store_is_closed_before_its_shards_know),
		TEST(test_store_with_a_hung_disk_is_closed_at_once),
	};
#undef TEST
	return cmocka_run_group_tests(tests, rig_log_start, rig_log_stop);
}
