/*
 * The simulator itself: what it promises to those who look for faults with it.
 * A simulator that is kinder than the world hides faults, one that is stricter
 * invents them; each test names the side it guards.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/sim_setting.h"

/* ---- power cuts ---- */

static void fill_sectors(uint8_t *data, size_t size, uint8_t value)
{
	for (size_t i = 0; i < size; i++)
		data[i] = (uint8_t)(value + i / 512);
}

/* How many of @size / 512 sectors are as fill_sectors(value) makes them. */
static unsigned count_sectors(const uint8_t *data, size_t size, uint8_t value)
{
	unsigned count = 0;

	for (size_t at = 0; at < size; at += 512) {
		bool is_same = true;

		for (size_t i = 0; i < 512; i++)
			is_same &= data[at + i] == (uint8_t)(value + at / 512);
		count += is_same;
	}
	return count;
}

enum { SECTORS = 64, BYTES = SECTORS * 512 };

/* Old bytes synced, new ones over them not: what is read after a cut? */
static unsigned new_sectors_after(struct setting *s, enum sim_power_cut mode)
{
	struct loop_file *file = setting_open(
		s->loops[0], "/f", SETTING_READ_WRITE | LOOP_FILE_CREATE | LOOP_FILE_TRUNCATE);
	uint8_t data[BYTES];
	unsigned fresh;

	fill_sectors(data, BYTES, 1);
	assert_int_equal(loop_sync_write(s->loops[0], file, data, BYTES, 0), 0);
	assert_int_equal(loop_sync_fsync(s->loops[0], file), 0);
	assert_int_equal(loop_sync_fsync_dir(s->loops[0], "/"), 0);
	fill_sectors(data, BYTES, 101);
	assert_int_equal(loop_sync_write(s->loops[0], file, data, BYTES, 0), 0);
	sim_host_power_cut(s->hosts[0], mode);
	assert_int_equal(sim_file_peek(s->hosts[0], "/f", data, BYTES, 0), BYTES);
	fresh = count_sectors(data, BYTES, 101);
	assert_int_equal(count_sectors(data, BYTES, 1), SECTORS - fresh); /* old or new, each */
	(void)setting_start(s, 0);
	return fresh;
}

static void test_power_cut_takes_unsynced_sectors_by_its_mode(void **state)
{
	struct setting s = setting_new(3);
	unsigned least = SECTORS, most = 0;

	assert_int_equal(new_sectors_after(&s, SIM_KEEP_ALL), SECTORS);
	assert_int_equal(new_sectors_after(&s, SIM_DROP_UNSYNCED), 0);
	for (unsigned i = 0; i < 20; i++) {
		unsigned fresh = new_sectors_after(&s, SIM_RANDOM_UNSYNCED);

		least = min_of(least, fresh);
		most = max_of(most, fresh);
	}
	assert_true(least > 5 && least < most && most < SECTORS - 5);
	sim_world_free(s.world);
}

/* Too strict would be: losing what a sync has covered, or tearing one sector. */
static void test_power_cut_never_takes_what_was_synced(void **state)
{
	struct setting s = setting_new(4);
	struct loop_file *file =
		setting_open(s.loops[0], "/f", SETTING_READ_WRITE | LOOP_FILE_CREATE);
	uint8_t data[BYTES];

	assert_int_equal(loop_sync_fsync_dir(s.loops[0], "/"), 0);
	for (unsigned round = 0; round < 30; round++) {
		struct iovec iov = {data, BYTES};
		struct call call = {0};

		fill_sectors(data, BYTES, (uint8_t)round);
		loop_file_write(s.loops[0], call_begin(&call), file, &iov, 1, round * BYTES);
		assert_int_equal(setting_wait(&s, &call), BYTES);
		loop_file_sync(s.loops[0], call_begin(&call), file);
		assert_int_equal(setting_wait(&s, &call), 0);
		/* One that is on its way when the lights go out: it may be there, wholly or in part. */
		loop_file_write(s.loops[0], call_begin(&call), file, &iov, 1, (round + 1) * BYTES);
		sim_host_power_cut(s.hosts[0], SIM_RANDOM_UNSYNCED);
		file = setting_open(setting_start(&s, 0), "/f", SETTING_READ_WRITE);
		for (unsigned i = 0; i <= round; i++) {
			assert_int_equal(loop_sync_read(s.loops[0], file, data, BYTES, i * BYTES),
					 BYTES);
			assert_int_equal(count_sectors(data, BYTES, (uint8_t)i), SECTORS);
		}
	}
	loop_file_close(s.loops[0], file);
	sim_world_free(s.world);
}

/* Too kind would be: a sync that covers what was written after it began. */
static void test_sync_covers_only_what_was_written_before_it(void **state)
{
	struct setting s = setting_new(5);
	struct loop_file *file =
		setting_open(s.loops[0], "/f", SETTING_READ_WRITE | LOOP_FILE_CREATE);
	struct call sync = {0};
	uint8_t first[4096], second[4096];

	memset(first, 'a', sizeof(first));
	memset(second, 'b', sizeof(second));
	assert_int_equal(loop_sync_fsync_dir(s.loops[0], "/"), 0);
	assert_int_equal(loop_sync_write(s.loops[0], file, first, 4096, 0), 0);
	loop_file_sync(s.loops[0], call_begin(&sync), file);
	assert_int_equal(loop_sync_write(s.loops[0], file, second, 4096, 4096), 0);
	assert_int_equal(setting_wait(&s, &sync), 0);
	sim_host_power_cut(s.hosts[0], SIM_DROP_UNSYNCED);
	assert_int_equal(sim_file_peek(s.hosts[0], "/f", first, 4096, 0), 4096);
	assert_int_equal(first[0], 'a');
	assert_int_equal(sim_file_peek(s.hosts[0], "/f", second, 4096, 4096), 4096);
	assert_int_equal(second[0], 0);
	sim_world_free(s.world);
}

static void test_size_goes_back_with_the_data_and_truncation_is_all_or_nothing(void **state)
{
	struct setting s = setting_new(6);
	struct loop_file *file =
		setting_open(s.loops[0], "/f", SETTING_READ_WRITE | LOOP_FILE_CREATE);
	uint8_t data[BYTES];
	unsigned went_back = 0;

	fill_sectors(data, BYTES, 1);
	assert_int_equal(loop_sync_fsync_dir(s.loops[0], "/"), 0);
	assert_int_equal(loop_sync_write(s.loops[0], file, data, BYTES, 0), 0);
	sim_host_power_cut(s.hosts[0], SIM_DROP_UNSYNCED);
	assert_int_equal(sim_file_peek(s.hosts[0], "/f", data, BYTES, 0), 0);
	for (unsigned i = 0; i < 20; i++) {
		file = setting_open(setting_start(&s, 0), "/f", SETTING_READ_WRITE);
		fill_sectors(data, BYTES, 1);
		assert_int_equal(loop_sync_write(s.loops[0], file, data, BYTES, 0), 0);
		assert_int_equal(loop_sync_fsync(s.loops[0], file), 0);
		assert_int_equal(loop_sync_truncate(s.loops[0], file, 1000), 0);
		sim_host_power_cut(s.hosts[0], SIM_RANDOM_UNSYNCED);
		int64_t size = sim_file_peek(s.hosts[0], "/f", data, BYTES, 0);
		if (size == 1000)
			continue;
		went_back++;
		assert_int_equal(size, BYTES);
		assert_int_equal(count_sectors(data, BYTES, 1), SECTORS);
	}
	assert_true(went_back > 2 && went_back < 18);
	/* What was cut off does not come back when the file grows. */
	file = setting_open(setting_start(&s, 0), "/f", SETTING_READ_WRITE);
	assert_int_equal(loop_sync_truncate(s.loops[0], file, 1000), 0);
	assert_int_equal(loop_sync_truncate(s.loops[0], file, BYTES), 0);
	assert_int_equal(loop_sync_read(s.loops[0], file, data, BYTES, 0), BYTES);
	for (unsigned i = 1000; i < BYTES; i++)
		assert_int_equal(data[i], 0);
	sim_world_free(s.world);
}

static bool exists(struct setting *s, const char *path)
{
	char byte;

	return sim_file_peek(s->hosts[0], path, &byte, 1, 0) >= 0;
}

static void test_names_whose_directory_was_not_synced_may_be_as_before(void **state)
{
	struct setting s = setting_new(7);
	struct loop *loop = s.loops[0];
	unsigned kept = 0, prefixes = 0;

	assert_int_equal(loop_sync_mkdir(loop, "/d"), 0);
	assert_int_equal(loop_sync_fsync_dir(loop, "/"), 0);
	loop_file_close(loop,
			setting_open(loop, "/d/synced", SETTING_READ_WRITE | LOOP_FILE_CREATE));
	loop_file_close(loop,
			setting_open(loop, "/d/moved", SETTING_READ_WRITE | LOOP_FILE_CREATE));
	assert_int_equal(loop_sync_fsync_dir(loop, "/d"), 0);
	loop_file_close(loop, setting_open(loop, "/d/new", SETTING_READ_WRITE | LOOP_FILE_CREATE));
	assert_int_equal(loop_sync_unlink(loop, "/d/synced"), 0);
	sim_host_power_cut(s.hosts[0], SIM_DROP_UNSYNCED);
	assert_true(exists(&s, "/d/synced"));
	assert_false(exists(&s, "/d/new"));
	loop = setting_start(&s, 0);
	assert_int_equal(loop_sync_rename(loop, "/d/moved", "/d/there"), 0);
	sim_host_power_cut(s.hosts[0], SIM_DROP_UNSYNCED);
	assert_true(exists(&s, "/d/there"));
	assert_false(exists(&s, "/d/moved"));
	for (unsigned i = 0; i < 40; i++) {
		loop = setting_start(&s, 0);
		loop_file_close(loop,
				setting_open(loop, "/d/1", SETTING_READ_WRITE | LOOP_FILE_CREATE));
		loop_file_close(loop,
				setting_open(loop, "/d/2", SETTING_READ_WRITE | LOOP_FILE_CREATE));
		sim_host_power_cut(s.hosts[0], SIM_RANDOM_UNSYNCED);
		assert_true(exists(&s, "/d/1") || !exists(&s, "/d/2")); /* in order */
		kept += exists(&s, "/d/2");
		prefixes += exists(&s, "/d/1") && !exists(&s, "/d/2");
		loop = setting_start(&s, 0);
		(void)loop_sync_unlink(loop, "/d/1");
		(void)loop_sync_unlink(loop, "/d/2");
		assert_int_equal(loop_sync_fsync_dir(loop, "/d"), 0);
	}
	assert_true(kept > 5 && prefixes > 5 && kept + prefixes < 40);
	sim_world_free(s.world);
}

static void test_kill_keeps_what_was_written_and_frees_locks(void **state)
{
	struct setting s = setting_new(8);
	struct sim_process *other = sim_process_new(s.hosts[0]);
	struct loop *loop;
	struct loop_file *file = setting_open(s.loops[0], "/f",
					      SETTING_READ_WRITE | LOOP_FILE_CREATE),
			 *again;
	char back[4] = "";

	assert_int_equal(sim_process_loop_new(other, &(struct loop_options){0}, &loop), 0);
	again = setting_open(loop, "/f", SETTING_READ_WRITE);
	assert_int_equal(loop_sync_write(s.loops[0], file, "abc", 3, 0), 0);
	assert_int_equal(loop_sync_lock(s.loops[0], file), 0);
	assert_int_equal(loop_sync_lock(loop, again), -EAGAIN);
	sim_host_crash(s.hosts[1]); /* not ours */
	assert_int_equal(loop_sync_is_locked(loop, again), 1);
	struct call lost = {0};
	loop_file_sync(s.loops[0], call_begin(&lost), file);
	sim_process_kill(other);
	assert_int_equal(loop_sync_is_locked(s.loops[0], file), 0);
	assert_int_equal(sim_process_loop_new(other, &(struct loop_options){0}, &loop), 0);
	again = setting_open(loop, "/f", SETTING_READ_WRITE);
	assert_int_equal(loop_sync_is_locked(loop, again), 1);
	sim_host_crash(s.hosts[0]);
	setting_run(&s, NS_PER_S);
	assert_int_equal(lost.completions, 0); /* vanished */
	file = setting_open(setting_start(&s, 0), "/f", SETTING_READ_WRITE);
	assert_int_equal(loop_sync_lock(s.loops[0], file), 0);
	assert_int_equal(loop_sync_read(s.loops[0], file, back, 4, 0), 3);
	assert_string_equal(back, "abc");
	sim_world_free(s.world);
}

/* ---- the same seed, the same world ---- */

/* A few nodes that talk, write and sync at random, with faults in between. */
struct node {
	struct setting *s;
	unsigned index;
	struct loop_timer timer;
	struct loop_file *file;
	struct call write, sync;
	uint8_t data[4096];
	struct iovec iov;
	unsigned done;
};

static void on_node_timer(struct loop_timer *timer)
{
	struct node *node = container_of_type(timer, struct node, timer);
	struct loop *loop = node->s->loops[node->index];

	if (!loop_op_is_busy(&node->write.op)) {
		node->iov = (struct iovec){node->data, 4096};
		node->data[0] = (uint8_t)random_u64(loop_random(loop));
		loop_file_write(loop, call_begin(&node->write), node->file, &node->iov, 1,
				random_below(loop_random(loop), 100) * 4096);
		node->done++;
	}
	if (!loop_op_is_busy(&node->sync.op))
		loop_file_sync(loop, call_begin(&node->sync), node->file);
	loop_timer_start(loop, timer, loop_now(loop) + random_below(loop_random(loop), NS_PER_MS));
}

static uint64_t trace_of(uint64_t seed)
{
	struct setting s = setting_new(seed);
	struct node *nodes = calloc(3, sizeof(*nodes));
	uint64_t trace;

	for (unsigned i = 0; i < 3; i++) {
		nodes[i] = (struct node){.s = &s, .index = i, .timer.fire = on_node_timer};
		nodes[i].file =
			setting_open(s.loops[i], "/f", SETTING_READ_WRITE | LOOP_FILE_CREATE);
		loop_timer_start(s.loops[i], &nodes[i].timer, 0);
	}
	for (unsigned i = 0; i < 10; i++) {
		struct loop_socket *ends[2];

		setting_connect(&s, i % 3, (i + 1) % 3, ends);
		assert_int_equal(setting_send(&s, i % 3, ends[0], "some bytes"), 10);
		setting_run(&s, 10 * NS_PER_MS);
		loop_socket_close(s.loops[i % 3], ends[0]);
		loop_socket_close(s.loops[(i + 1) % 3], ends[1]);
	}
	sim_host_power_cut(s.hosts[0], SIM_RANDOM_UNSYNCED);
	setting_run(&s, 10 * NS_PER_MS);
	assert_true(nodes[1].done > 50);
	trace = sim_world_trace(s.world);
	sim_world_free(s.world);
	free(nodes);
	return trace;
}

static void test_same_seed_same_trace(void **state)
{
	uint64_t trace = trace_of(77);

	/* Other addresses in memory must make no difference. */
	void *hole = malloc(12345);
	assert_int_equal(trace_of(77), trace);
	free(hole);
	assert_int_not_equal(trace_of(78), trace);
}

static void count_event(struct sim_event *event);
struct counter {
	struct sim_event event;
	struct sim_world *world;
	unsigned count;
	uint64_t order;
};

static void count_event(struct sim_event *event)
{
	struct counter *counter = container_of_type(event, struct counter, event);

	counter->count++;
	counter->order = sim_world_events(counter->world);
}

static void test_events_run_at_their_time_and_ties_depend_on_the_seed(void **state)
{
	unsigned swapped = 0;

	for (uint64_t seed = 0; seed < 40; seed++) {
		struct sim_world *world = sim_world_new(seed);
		struct counter a = {.event.run = count_event, .world = world};
		struct counter b = a, gone = a;
		uint64_t at = sim_now(world) + NS_PER_S;

		sim_schedule(world, &a.event, at);
		sim_schedule(world, &b.event, at);
		sim_schedule(world, &gone.event, at);
		sim_unschedule(world, &gone.event);
		sim_world_run_until(world, at - 1, NULL, NULL);
		assert_int_equal(a.count + b.count, 0);
		sim_world_run_until(world, at, NULL, NULL);
		assert_int_equal(a.count, 1);
		assert_int_equal(b.count, 1);
		assert_int_equal(gone.count, 0);
		swapped += b.order < a.order;
		sim_world_free(world);
	}
	assert_true(swapped > 5 && swapped < 35);
}

static void test_loop_that_nothing_can_wake_says_so(void **state)
{
	struct setting s = setting_new(16);

	assert_int_equal(loop_run(s.loops[0]), -EDEADLK);
	sim_world_free(s.world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_power_cut_takes_unsynced_sectors_by_its_mode),
		cmocka_unit_test(test_power_cut_never_takes_what_was_synced),
		cmocka_unit_test(test_sync_covers_only_what_was_written_before_it),
		cmocka_unit_test(
			test_size_goes_back_with_the_data_and_truncation_is_all_or_nothing),
		cmocka_unit_test(test_names_whose_directory_was_not_synced_may_be_as_before),
		cmocka_unit_test(test_kill_keeps_what_was_written_and_frees_locks),
		cmocka_unit_test(test_same_seed_same_trace),
		cmocka_unit_test(test_events_run_at_their_time_and_ties_depend_on_the_seed),
		cmocka_unit_test(test_loop_that_nothing_can_wake_says_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
