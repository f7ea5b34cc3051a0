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

#include "lib/base/size.h"
#include "tests/sim/sim.h"

#define READ_WRITE (LOOP_FILE_READ | LOOP_FILE_WRITE)

struct setting {
	struct sim_world *world;
	struct sim_host *hosts[3];
	struct loop *loops[3];
};

static struct loop *start(struct setting *s, unsigned i)
{
	assert_int_equal(
		sim_loop_new(s->world, s->hosts[i], &(struct loop_options){0}, &s->loops[i]), 0);
	return s->loops[i];
}

static struct setting setting_new(uint64_t seed)
{
	static const char *const names[3] = {"a", "b", "c"};
	struct setting s = {.world = sim_world_new(seed)};

	for (unsigned i = 0; i < 3; i++) {
		s.hosts[i] = sim_host_new(s.world, names[i]);
		(void)start(&s, i);
	}
	return s;
}

struct call {
	struct loop_op op;
	int result;
	unsigned completions;
};

static void on_call(struct loop_op *op, int result)
{
	struct call *call = container_of_type(op, struct call, op);

	call->result = result;
	call->completions++;
}

static struct loop_op *begin(struct call *call)
{
	call->op.done = on_call;
	call->completions = 0;
	return &call->op;
}

static bool call_is_done(void *context)
{
	return ((struct call *)context)->completions > 0;
}

static int wait_for(struct setting *s, struct call *call)
{
	if (!sim_world_run_until(s->world, sim_now(s->world) + 1000 * NS_PER_S, call_is_done, call))
		fail_msg("an op never ended");
	return call->result;
}

static void run_for(struct setting *s, uint64_t ns)
{
	assert_false(sim_world_run_until(s->world, sim_now(s->world) + ns, NULL, NULL));
}

/* ---- power cuts ---- */

static struct loop_file *open_at(struct loop *loop, const char *path, unsigned flags)
{
	struct loop_file *file;
	struct error err = {0};

	if (loop_sync_open(loop, path, flags, &file, &err) < 0)
		fail_msg("%s", err.text);
	return file;
}

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
	struct loop_file *file =
		open_at(s->loops[0], "/f", READ_WRITE | LOOP_FILE_CREATE | LOOP_FILE_TRUNCATE);
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
	(void)start(s, 0);
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
	struct loop_file *file = open_at(s.loops[0], "/f", READ_WRITE | LOOP_FILE_CREATE);
	uint8_t data[BYTES];

	assert_int_equal(loop_sync_fsync_dir(s.loops[0], "/"), 0);
	for (unsigned round = 0; round < 30; round++) {
		struct iovec iov = {data, BYTES};
		struct call call = {0};

		fill_sectors(data, BYTES, (uint8_t)round);
		loop_file_write(s.loops[0], begin(&call), file, &iov, 1, round * BYTES);
		assert_int_equal(wait_for(&s, &call), BYTES);
		loop_file_sync(s.loops[0], begin(&call), file);
		assert_int_equal(wait_for(&s, &call), 0);
		/* One that is on its way when the lights go out: it may be there, wholly or in part. */
		loop_file_write(s.loops[0], begin(&call), file, &iov, 1, (round + 1) * BYTES);
		sim_host_power_cut(s.hosts[0], SIM_RANDOM_UNSYNCED);
		file = open_at(start(&s, 0), "/f", READ_WRITE);
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
	struct loop_file *file = open_at(s.loops[0], "/f", READ_WRITE | LOOP_FILE_CREATE);
	struct call sync = {0};
	uint8_t first[4096], second[4096];

	memset(first, 'a', sizeof(first));
	memset(second, 'b', sizeof(second));
	assert_int_equal(loop_sync_fsync_dir(s.loops[0], "/"), 0);
	assert_int_equal(loop_sync_write(s.loops[0], file, first, 4096, 0), 0);
	loop_file_sync(s.loops[0], begin(&sync), file);
	assert_int_equal(loop_sync_write(s.loops[0], file, second, 4096, 4096), 0);
	assert_int_equal(wait_for(&s, &sync), 0);
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
	struct loop_file *file = open_at(s.loops[0], "/f", READ_WRITE | LOOP_FILE_CREATE);
	uint8_t data[BYTES];
	unsigned went_back = 0;

	fill_sectors(data, BYTES, 1);
	assert_int_equal(loop_sync_fsync_dir(s.loops[0], "/"), 0);
	assert_int_equal(loop_sync_write(s.loops[0], file, data, BYTES, 0), 0);
	sim_host_power_cut(s.hosts[0], SIM_DROP_UNSYNCED);
	assert_int_equal(sim_file_peek(s.hosts[0], "/f", data, BYTES, 0), 0);
	for (unsigned i = 0; i < 20; i++) {
		file = open_at(start(&s, 0), "/f", READ_WRITE);
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
	file = open_at(start(&s, 0), "/f", READ_WRITE);
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
	loop_file_close(loop, open_at(loop, "/d/synced", READ_WRITE | LOOP_FILE_CREATE));
	loop_file_close(loop, open_at(loop, "/d/moved", READ_WRITE | LOOP_FILE_CREATE));
	assert_int_equal(loop_sync_fsync_dir(loop, "/d"), 0);
	loop_file_close(loop, open_at(loop, "/d/new", READ_WRITE | LOOP_FILE_CREATE));
	assert_int_equal(loop_sync_unlink(loop, "/d/synced"), 0);
	sim_host_power_cut(s.hosts[0], SIM_DROP_UNSYNCED);
	assert_true(exists(&s, "/d/synced"));
	assert_false(exists(&s, "/d/new"));
	loop = start(&s, 0);
	assert_int_equal(loop_sync_rename(loop, "/d/moved", "/d/there"), 0);
	sim_host_power_cut(s.hosts[0], SIM_DROP_UNSYNCED);
	assert_true(exists(&s, "/d/there"));
	assert_false(exists(&s, "/d/moved"));
	for (unsigned i = 0; i < 40; i++) {
		loop = start(&s, 0);
		loop_file_close(loop, open_at(loop, "/d/1", READ_WRITE | LOOP_FILE_CREATE));
		loop_file_close(loop, open_at(loop, "/d/2", READ_WRITE | LOOP_FILE_CREATE));
		sim_host_power_cut(s.hosts[0], SIM_RANDOM_UNSYNCED);
		assert_true(exists(&s, "/d/1") || !exists(&s, "/d/2")); /* in order */
		kept += exists(&s, "/d/2");
		prefixes += exists(&s, "/d/1") && !exists(&s, "/d/2");
		loop = start(&s, 0);
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
	struct loop_file *file = open_at(s.loops[0], "/f", READ_WRITE | LOOP_FILE_CREATE), *again;
	char back[4] = "";

	assert_int_equal(sim_process_loop_new(other, &(struct loop_options){0}, &loop), 0);
	again = open_at(loop, "/f", READ_WRITE);
	assert_int_equal(loop_sync_write(s.loops[0], file, "abc", 3, 0), 0);
	assert_int_equal(loop_sync_lock(s.loops[0], file), 0);
	assert_int_equal(loop_sync_lock(loop, again), -EAGAIN);
	sim_host_crash(s.hosts[1]); /* not ours */
	assert_int_equal(loop_sync_is_locked(loop, again), 1);
	struct call lost = {0};
	loop_file_sync(s.loops[0], begin(&lost), file);
	sim_process_kill(other);
	assert_int_equal(loop_sync_is_locked(s.loops[0], file), 0);
	assert_int_equal(sim_process_loop_new(other, &(struct loop_options){0}, &loop), 0);
	again = open_at(loop, "/f", READ_WRITE);
	assert_int_equal(loop_sync_is_locked(loop, again), 1);
	sim_host_crash(s.hosts[0]);
	run_for(&s, NS_PER_S);
	assert_int_equal(lost.completions, 0); /* vanished */
	file = open_at(start(&s, 0), "/f", READ_WRITE);
	assert_int_equal(loop_sync_lock(s.loops[0], file), 0);
	assert_int_equal(loop_sync_read(s.loops[0], file, back, 4, 0), 3);
	assert_string_equal(back, "abc");
	sim_world_free(s.world);
}

/* ---- faults ---- */

static void test_faults_meet_the_named_operation(void **state)
{
	struct setting s = setting_new(9);
	struct loop *loop = s.loops[0];
	struct loop_file *file = open_at(loop, "/f", READ_WRITE | LOOP_FILE_CREATE);
	struct call calls[3] = {0};
	struct iovec iov = {(char[]){"data"}, 4};

	assert_int_equal(sim_file_fault(s.hosts[0], "/none", LOOP_OP_READ, 1, SIM_FAULT_EIO),
			 -ENOENT);
	assert_int_equal(sim_file_fault(s.hosts[0], "/f", LOOP_OP_WRITE, 2, SIM_FAULT_EIO), 0);
	assert_int_equal(sim_file_fault(s.hosts[0], "/f", LOOP_OP_WRITE, 1, SIM_FAULT_EIO), -EBUSY);
	for (unsigned i = 0; i < 3; i++) {
		loop_file_write(loop, begin(&calls[i]), file, &iov, 1, i * 4096ull);
		assert_int_equal(wait_for(&s, &calls[i]), i == 1 ? -EIO : 4);
	}
	assert_int_equal(sim_file_fault(s.hosts[0], "/f", LOOP_OP_SYNC, 1, SIM_FAULT_HANG), 0);
	loop_file_sync(loop, begin(&calls[0]), file);
	run_for(&s, 100 * NS_PER_S);
	loop_cancel(loop, &calls[0].op);
	run_for(&s, 100 * NS_PER_S);
	assert_int_equal(calls[0].completions, 0); /* nothing helps against a hung disk */
	loop_file_sync(loop, begin(&calls[1]), file);
	assert_int_equal(wait_for(&s, &calls[1]), 0);
	assert_int_equal(sim_file_unhang(s.hosts[0], "/f"), 0);
	assert_int_equal(wait_for(&s, &calls[0]), 0);
	/* A crash takes hung operations with it. */
	assert_int_equal(sim_file_fault(s.hosts[0], "/f", LOOP_OP_READ, 1, SIM_FAULT_HANG), 0);
	loop_file_read(loop, begin(&calls[2]), file, &iov, 1, 0);
	run_for(&s, NS_PER_S);
	sim_host_crash(s.hosts[0]);
	assert_int_equal(sim_file_unhang(s.hosts[0], "/f"), 0);
	run_for(&s, NS_PER_S);
	assert_int_equal(calls[2].completions, 0);
	sim_world_free(s.world);
}

/* The disk lies: only who looks at the content can tell. */
static void test_lost_and_misdirected_writes_are_answered_like_good_ones(void **state)
{
	struct setting s = setting_new(17);
	struct loop *loop = s.loops[0];
	struct loop_file *file = open_at(loop, "/f", READ_WRITE | LOOP_FILE_CREATE);
	struct call call = {0};
	uint8_t page[4096], all[8 * 4096];
	struct iovec iov = {page, sizeof(page)};
	unsigned changed = 0;

	memset(all, 1, sizeof(all));
	assert_int_equal(loop_sync_write(loop, file, all, sizeof(all), 0), 0);
	assert_int_equal(loop_sync_fsync_dir(loop, "/"), 0);
	memset(page, 2, sizeof(page));
	assert_int_equal(sim_host_fault(s.hosts[0], LOOP_OP_WRITE, 1, SIM_FAULT_LOST), 0);
	loop_file_write(loop, begin(&call), file, &iov, 1, 0);
	assert_int_equal(wait_for(&s, &call), 4096);
	assert_int_equal(sim_file_peek(s.hosts[0], "/f", all, sizeof(all), 0), sizeof(all));
	for (unsigned i = 0; i < sizeof(all); i++)
		assert_int_equal(all[i], 1);
	assert_int_equal(sim_host_fault(s.hosts[0], LOOP_OP_WRITE, 1, SIM_FAULT_MISDIRECT), 0);
	loop_file_write(loop, begin(&call), file, &iov, 1, 0);
	assert_int_equal(wait_for(&s, &call), 4096);
	assert_int_equal(sim_file_peek(s.hosts[0], "/f", all, sizeof(all), 0), sizeof(all));
	assert_int_equal(all[0], 1);
	for (unsigned i = 0; i < sizeof(all); i++)
		changed += all[i] != 1;
	assert_int_equal(changed, 4096);
	/* A flipped bit is on the disk: no power cut takes it back. */
	sim_host_hang_disk(s.hosts[0], true);
	loop_file_sync(loop, begin(&call), file);
	run_for(&s, 10 * NS_PER_S);
	assert_int_equal(call.completions, 0);
	sim_host_hang_disk(s.hosts[0], false);
	assert_int_equal(wait_for(&s, &call), 0);
	assert_true(sim_host_rot(s.hosts[0], 0));
	assert_false(sim_host_rot(s.hosts[0], sizeof(all)));
	sim_host_power_cut(s.hosts[0], SIM_DROP_UNSYNCED);
	assert_int_equal(sim_file_peek(s.hosts[0], "/f", all, sizeof(all), 0), sizeof(all));
	for (changed = 0; changed < sizeof(all) && all[changed] >= 1 && all[changed] <= 2;)
		changed++;
	assert_true(changed < sizeof(all));
	sim_host_wipe(s.hosts[0]);
	assert_int_equal(sim_file_peek(s.hosts[0], "/f", all, sizeof(all), 0), -ENOENT);
	sim_world_free(s.world);
}

struct alarm {
	struct loop_timer timer;
	struct loop *loop;
	uint64_t fired_ns; /* by the loop's clock */
};

static void on_alarm(struct loop_timer *timer)
{
	struct alarm *alarm = container_of_type(timer, struct alarm, timer);

	alarm->fired_ns = loop_now(alarm->loop);
}

static void test_paused_host_does_nothing_and_a_frozen_one_loses_time(void **state)
{
	struct setting s = setting_new(18);
	struct alarm alarm = {.timer.fire = on_alarm, .loop = s.loops[0]};
	uint64_t begin_ns = sim_now(s.world);

	loop_timer_start(s.loops[0], &alarm.timer, loop_now(s.loops[0]) + NS_PER_S);
	sim_host_pause(s.hosts[0]);
	run_for(&s, 3 * NS_PER_S);
	assert_int_equal(alarm.fired_ns, 0);
	sim_host_resume(s.hosts[0]);
	run_for(&s, NS_PER_MS);
	assert_true(alarm.fired_ns >= begin_ns + 3 * NS_PER_S);
	assert_int_equal(sim_host_lag(s.hosts[0]), 0);
	alarm.fired_ns = 0;
	loop_timer_start(s.loops[0], &alarm.timer, loop_now(s.loops[0]) + NS_PER_S);
	sim_host_freeze(s.hosts[0]);
	run_for(&s, 3 * NS_PER_S);
	sim_host_thaw(s.hosts[0]);
	assert_int_equal(sim_host_lag(s.hosts[0]), 3 * NS_PER_S);
	run_for(&s, 990 * NS_PER_MS);
	assert_int_equal(alarm.fired_ns, 0);
	run_for(&s, 20 * NS_PER_MS);
	assert_true(alarm.fired_ns > 0 &&
		    alarm.fired_ns < begin_ns + 4 * NS_PER_S + 100 * NS_PER_MS);
	/* What was killed is paused no more when it starts again. */
	sim_host_pause(s.hosts[0]);
	sim_host_crash(s.hosts[0]);
	(void)start(&s, 0);
	assert_false(sim_host_is_paused(s.hosts[0]));
	sim_world_free(s.world);
}

static void test_full_disk_refuses_growth_only(void **state)
{
	struct setting s = setting_new(10);
	struct loop_file *file = open_at(s.loops[0], "/f", READ_WRITE | LOOP_FILE_CREATE);
	uint8_t data[8192] = {1};
	uint64_t left = 0;

	sim_host_set_disk_size(s.hosts[0], 10000);
	assert_int_equal(loop_sync_write(s.loops[0], file, data, 8192, 0), 0);
	assert_int_equal(loop_sync_free_space(s.loops[0], "/", &left), 0);
	assert_int_equal(left, 10000 - 8192);
	assert_int_equal(loop_sync_write(s.loops[0], file, data, 8192, 4096), -ENOSPC);
	assert_int_equal(loop_sync_write(s.loops[0], file, data, 4096, 4096), 0);
	loop_file_close(s.loops[0], file);
	assert_int_equal(loop_sync_unlink(s.loops[0], "/f"), 0);
	assert_int_equal(loop_sync_fsync_dir(s.loops[0], "/"), 0);
	assert_int_equal(loop_sync_free_space(s.loops[0], "/", &left), 0);
	assert_int_equal(left, 10000);
	sim_world_free(s.world);
}

/* ---- network ---- */

static void connect_hosts(struct setting *s, unsigned from, unsigned to, struct loop_socket *out[2])
{
	struct loop_listener *listener;
	char address[32];
	struct call dial = {0}, accept = {0};
	struct error err = {0};

	(void)snprintf(address, sizeof(address), "%s:7000", sim_host_address(s->hosts[to]));
	assert_int_equal(loop_listen(s->loops[to], address, &listener, &err), 0);
	assert_string_equal(loop_listener_address(listener), address);
	loop_accept(s->loops[to], begin(&accept), listener);
	loop_connect(s->loops[from], begin(&dial), address);
	assert_int_equal(wait_for(s, &dial), 0);
	assert_int_equal(wait_for(s, &accept), 0);
	loop_listener_close(s->loops[to], listener);
	out[0] = dial.op.out.socket;
	out[1] = accept.op.out.socket;
}

static int send_text(struct setting *s, unsigned host, struct loop_socket *socket, const char *text)
{
	struct iovec iov = {(void *)text, strlen(text)};
	struct call call = {0};

	loop_send(s->loops[host], begin(&call), socket, &iov, 1);
	return wait_for(s, &call);
}

static void test_cut_link_holds_what_is_sent_until_it_is_healed(void **state)
{
	struct setting s = setting_new(11);
	struct loop_socket *ends[2];
	struct call recv[2] = {0};
	char back[2][16] = {"", ""};
	struct iovec iov[2] = {{back[0], 16}, {back[1], 16}};

	connect_hosts(&s, 0, 1, ends);
	sim_link_cut(s.hosts[0], s.hosts[1]); /* one way only */
	loop_recv(s.loops[1], begin(&recv[1]), ends[1], &iov[1], 1);
	loop_recv(s.loops[0], begin(&recv[0]), ends[0], &iov[0], 1);
	assert_int_equal(send_text(&s, 0, ends[0], "to "), 3);
	assert_int_equal(send_text(&s, 0, ends[0], "b"), 1);
	assert_int_equal(send_text(&s, 1, ends[1], "to a"), 4);
	assert_int_equal(wait_for(&s, &recv[0]), 4);
	run_for(&s, 60 * NS_PER_S);
	assert_int_equal(recv[1].completions, 0);
	sim_link_heal(s.hosts[0], s.hosts[1]);
	assert_int_equal(wait_for(&s, &recv[1]), 3);
	assert_memory_equal(back[1], "to ", 3);
	loop_recv(s.loops[1], begin(&recv[1]), ends[1], &iov[1], 1);
	assert_int_equal(wait_for(&s, &recv[1]), 1);
	sim_world_free(s.world);
}

static void test_dial_over_a_cut_link_waits_then_times_out(void **state)
{
	struct setting s = setting_new(12);
	struct call dial = {0};
	uint64_t began = sim_now(s.world);

	sim_partition(s.hosts[0], s.hosts[1]);
	loop_connect(s.loops[0], begin(&dial), "10.0.0.2:1");
	assert_int_equal(wait_for(&s, &dial), -ETIMEDOUT);
	assert_true(sim_now(s.world) - began >= 60 * NS_PER_S);
	loop_connect(s.loops[0], begin(&dial), "10.0.0.2:1");
	run_for(&s, NS_PER_S);
	assert_int_equal(dial.completions, 0);
	sim_unpartition(s.hosts[0], s.hosts[1]);
	assert_int_equal(wait_for(&s, &dial), -ECONNREFUSED);
	loop_connect(s.loops[0], begin(&dial), "10.0.0.9:1");
	assert_int_equal(wait_for(&s, &dial), -EHOSTUNREACH);
	sim_world_free(s.world);
}

static void test_crash_resets_streams_and_power_cut_only_when_the_machine_is_back(void **state)
{
	struct setting s = setting_new(13);
	struct loop_socket *ends[2];
	struct call recv = {0}, send = {0};
	char back[16];
	struct iovec iov = {back, 16};

	connect_hosts(&s, 0, 1, ends);
	loop_recv(s.loops[0], begin(&recv), ends[0], &iov, 1);
	sim_host_crash(s.hosts[1]);
	assert_int_equal(wait_for(&s, &recv), -ECONNRESET);
	loop_socket_close(s.loops[0], ends[0]);

	(void)start(&s, 1);
	connect_hosts(&s, 0, 1, ends);
	loop_recv(s.loops[0], begin(&recv), ends[0], &iov, 1);
	sim_host_power_cut(s.hosts[1], SIM_KEEP_ALL);
	run_for(&s, 60 * NS_PER_S);
	assert_int_equal(recv.completions, 0); /* nobody told us */
	assert_int_equal(send_text(&s, 0, ends[0], "hello?"), 6);
	run_for(&s, 60 * NS_PER_S);
	assert_int_equal(recv.completions, 0);
	(void)start(&s, 1);
	assert_int_equal(wait_for(&s, &recv), -ECONNRESET);
	loop_send(s.loops[0], begin(&send), ends[0], &iov, 1);
	assert_int_equal(wait_for(&s, &send), -ECONNRESET);
	loop_socket_close(s.loops[0], ends[0]);
	sim_world_free(s.world);
}

static void test_reset_hits_both_ends_of_all_streams_between_two_hosts(void **state)
{
	struct setting s = setting_new(14);
	struct loop_socket *ab[2], *ac[2];
	struct call recv[3] = {0};
	struct iovec iov[3];
	char back[3][8];

	connect_hosts(&s, 0, 1, ab);
	connect_hosts(&s, 0, 2, ac);
	for (unsigned i = 0; i < 3; i++)
		iov[i] = (struct iovec){back[i], 8};
	loop_recv(s.loops[0], begin(&recv[0]), ab[0], &iov[0], 1);
	loop_recv(s.loops[1], begin(&recv[1]), ab[1], &iov[1], 1);
	loop_recv(s.loops[2], begin(&recv[2]), ac[1], &iov[2], 1);
	sim_reset_streams(s.hosts[1], s.hosts[0]);
	assert_int_equal(wait_for(&s, &recv[0]), -ECONNRESET);
	assert_int_equal(wait_for(&s, &recv[1]), -ECONNRESET);
	assert_int_equal(send_text(&s, 0, ac[0], "fine"), 4);
	assert_int_equal(wait_for(&s, &recv[2]), 4);
	sim_world_free(s.world);
}

static void test_delay_is_that_of_the_link(void **state)
{
	struct setting s = setting_new(15);
	struct loop_socket *ends[2];
	struct call recv = {0};
	char back[8];
	struct iovec iov = {back, 8};
	uint64_t began;

	connect_hosts(&s, 0, 1, ends);
	sim_link_set_delay(s.hosts[0], s.hosts[1], 20 * NS_PER_MS, 30 * NS_PER_MS);
	loop_recv(s.loops[1], begin(&recv), ends[1], &iov, 1);
	began = sim_now(s.world);
	assert_int_equal(send_text(&s, 0, ends[0], "slow"), 4);
	assert_int_equal(wait_for(&s, &recv), 4);
	assert_true(sim_now(s.world) - began >= 20 * NS_PER_MS);
	assert_true(sim_now(s.world) - began < 31 * NS_PER_MS);
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
		loop_file_write(loop, begin(&node->write), node->file, &node->iov, 1,
				random_below(loop_random(loop), 100) * 4096);
		node->done++;
	}
	if (!loop_op_is_busy(&node->sync.op))
		loop_file_sync(loop, begin(&node->sync), node->file);
	loop_timer_start(loop, timer, loop_now(loop) + random_below(loop_random(loop), NS_PER_MS));
}

static uint64_t trace_of(uint64_t seed)
{
	struct setting s = setting_new(seed);
	struct node *nodes = calloc(3, sizeof(*nodes));
	uint64_t trace;

	for (unsigned i = 0; i < 3; i++) {
		nodes[i] = (struct node){.s = &s, .index = i, .timer.fire = on_node_timer};
		nodes[i].file = open_at(s.loops[i], "/f", READ_WRITE | LOOP_FILE_CREATE);
		loop_timer_start(s.loops[i], &nodes[i].timer, 0);
	}
	for (unsigned i = 0; i < 10; i++) {
		struct loop_socket *ends[2];

		connect_hosts(&s, i % 3, (i + 1) % 3, ends);
		assert_int_equal(send_text(&s, i % 3, ends[0], "some bytes"), 10);
		run_for(&s, 10 * NS_PER_MS);
		loop_socket_close(s.loops[i % 3], ends[0]);
		loop_socket_close(s.loops[(i + 1) % 3], ends[1]);
	}
	sim_host_power_cut(s.hosts[0], SIM_RANDOM_UNSYNCED);
	run_for(&s, 10 * NS_PER_MS);
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
		cmocka_unit_test(test_faults_meet_the_named_operation),
		cmocka_unit_test(test_lost_and_misdirected_writes_are_answered_like_good_ones),
		cmocka_unit_test(test_paused_host_does_nothing_and_a_frozen_one_loses_time),
		cmocka_unit_test(test_full_disk_refuses_growth_only),
		cmocka_unit_test(test_cut_link_holds_what_is_sent_until_it_is_healed),
		cmocka_unit_test(test_dial_over_a_cut_link_waits_then_times_out),
		cmocka_unit_test(
			test_crash_resets_streams_and_power_cut_only_when_the_machine_is_back),
		cmocka_unit_test(test_reset_hits_both_ends_of_all_streams_between_two_hosts),
		cmocka_unit_test(test_delay_is_that_of_the_link),
		cmocka_unit_test(test_same_seed_same_trace),
		cmocka_unit_test(test_events_run_at_their_time_and_ties_depend_on_the_seed),
		cmocka_unit_test(test_loop_that_nothing_can_wake_says_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
