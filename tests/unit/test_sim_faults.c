/*
 * Faults of the simulator: disks that err, hang or lie, hosts that stop or lose time, links that are cut, and the ends
 * of streams (see test_sim_world.c).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/sim_setting.h"

/* ---- faults ---- */

static void test_faults_meet_the_named_operation(void **state)
{
	struct setting s = setting_new(9);
	struct loop *loop = s.loops[0];
	struct loop_file *file = setting_open(loop, "/f", SETTING_READ_WRITE | LOOP_FILE_CREATE);
	struct call calls[3] = {0};
	struct iovec iov = {(char[]){"data"}, 4};

	assert_int_equal(sim_file_fault(s.hosts[0], "/none", LOOP_OP_READ, 1, SIM_FAULT_EIO),
			 -ENOENT);
	assert_int_equal(sim_file_fault(s.hosts[0], "/f", LOOP_OP_WRITE, 2, SIM_FAULT_EIO), 0);
	assert_int_equal(sim_file_fault(s.hosts[0], "/f", LOOP_OP_WRITE, 1, SIM_FAULT_EIO), -EBUSY);
	for (unsigned i = 0; i < 3; i++) {
		loop_file_write(loop, call_begin(&calls[i]), file, &iov, 1, i * 4096ull);
		assert_int_equal(setting_wait(&s, &calls[i]), i == 1 ? -EIO : 4);
	}
	assert_int_equal(sim_file_fault(s.hosts[0], "/f", LOOP_OP_SYNC, 1, SIM_FAULT_HANG), 0);
	loop_file_sync(loop, call_begin(&calls[0]), file);
	setting_run(&s, 100 * NS_PER_S);
	loop_cancel(loop, &calls[0].op);
	setting_run(&s, 100 * NS_PER_S);
	assert_int_equal(calls[0].completions, 0); /* nothing helps against a hung disk */
	loop_file_sync(loop, call_begin(&calls[1]), file);
	assert_int_equal(setting_wait(&s, &calls[1]), 0);
	assert_int_equal(sim_file_unhang(s.hosts[0], "/f"), 0);
	assert_int_equal(setting_wait(&s, &calls[0]), 0);
	/* A crash takes hung operations with it. */
	assert_int_equal(sim_file_fault(s.hosts[0], "/f", LOOP_OP_READ, 1, SIM_FAULT_HANG), 0);
	loop_file_read(loop, call_begin(&calls[2]), file, &iov, 1, 0);
	setting_run(&s, NS_PER_S);
	sim_host_crash(s.hosts[0]);
	assert_int_equal(sim_file_unhang(s.hosts[0], "/f"), 0);
	setting_run(&s, NS_PER_S);
	assert_int_equal(calls[2].completions, 0);
	sim_world_free(s.world);
}

/* The disk lies: only who looks at the content can tell. */
static void test_lost_and_misdirected_writes_are_answered_like_good_ones(void **state)
{
	struct setting s = setting_new(17);
	struct loop *loop = s.loops[0];
	struct loop_file *file = setting_open(loop, "/f", SETTING_READ_WRITE | LOOP_FILE_CREATE);
	struct call call = {0};
	uint8_t page[4096], all[8 * 4096];
	struct iovec iov = {page, sizeof(page)};
	unsigned changed = 0;

	memset(all, 1, sizeof(all));
	assert_int_equal(loop_sync_write(loop, file, all, sizeof(all), 0), 0);
	assert_int_equal(loop_sync_fsync_dir(loop, "/"), 0);
	memset(page, 2, sizeof(page));
	assert_int_equal(sim_host_fault(s.hosts[0], LOOP_OP_WRITE, 1, SIM_FAULT_LOST), 0);
	loop_file_write(loop, call_begin(&call), file, &iov, 1, 0);
	assert_int_equal(setting_wait(&s, &call), 4096);
	assert_int_equal(sim_file_peek(s.hosts[0], "/f", all, sizeof(all), 0), sizeof(all));
	for (unsigned i = 0; i < sizeof(all); i++)
		assert_int_equal(all[i], 1);
	assert_int_equal(sim_host_fault(s.hosts[0], LOOP_OP_WRITE, 1, SIM_FAULT_MISDIRECT), 0);
	loop_file_write(loop, call_begin(&call), file, &iov, 1, 0);
	assert_int_equal(setting_wait(&s, &call), 4096);
	assert_int_equal(sim_file_peek(s.hosts[0], "/f", all, sizeof(all), 0), sizeof(all));
	assert_int_equal(all[0], 1);
	for (unsigned i = 0; i < sizeof(all); i++)
		changed += all[i] != 1;
	assert_int_equal(changed, 4096);
	/* A flipped bit is on the disk: no power cut takes it back. */
	sim_host_hang_disk(s.hosts[0], true);
	loop_file_sync(loop, call_begin(&call), file);
	setting_run(&s, 10 * NS_PER_S);
	assert_int_equal(call.completions, 0);
	sim_host_hang_disk(s.hosts[0], false);
	assert_int_equal(setting_wait(&s, &call), 0);
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
	setting_run(&s, 3 * NS_PER_S);
	assert_int_equal(alarm.fired_ns, 0);
	sim_host_resume(s.hosts[0]);
	setting_run(&s, NS_PER_MS);
	assert_true(alarm.fired_ns >= begin_ns + 3 * NS_PER_S);
	assert_int_equal(sim_host_lag(s.hosts[0]), 0);
	alarm.fired_ns = 0;
	loop_timer_start(s.loops[0], &alarm.timer, loop_now(s.loops[0]) + NS_PER_S);
	sim_host_freeze(s.hosts[0]);
	setting_run(&s, 3 * NS_PER_S);
	sim_host_thaw(s.hosts[0]);
	assert_int_equal(sim_host_lag(s.hosts[0]), 3 * NS_PER_S);
	setting_run(&s, 990 * NS_PER_MS);
	assert_int_equal(alarm.fired_ns, 0);
	setting_run(&s, 20 * NS_PER_MS);
	assert_true(alarm.fired_ns > 0 &&
		    alarm.fired_ns < begin_ns + 4 * NS_PER_S + 100 * NS_PER_MS);
	/* What was killed is paused no more when it starts again. */
	sim_host_pause(s.hosts[0]);
	sim_host_crash(s.hosts[0]);
	(void)setting_start(&s, 0);
	assert_false(sim_host_is_paused(s.hosts[0]));
	sim_world_free(s.world);
}

static void test_full_disk_refuses_growth_only(void **state)
{
	struct setting s = setting_new(10);
	struct loop_file *file =
		setting_open(s.loops[0], "/f", SETTING_READ_WRITE | LOOP_FILE_CREATE);
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

static void test_cut_link_holds_what_is_sent_until_it_is_healed(void **state)
{
	struct setting s = setting_new(11);
	struct loop_socket *ends[2];
	struct call recv[2] = {0};
	char back[2][16] = {"", ""};
	struct iovec iov[2] = {{back[0], 16}, {back[1], 16}};

	setting_connect(&s, 0, 1, ends);
	sim_link_cut(s.hosts[0], s.hosts[1]); /* one way only */
	loop_recv(s.loops[1], call_begin(&recv[1]), ends[1], &iov[1], 1);
	loop_recv(s.loops[0], call_begin(&recv[0]), ends[0], &iov[0], 1);
	assert_int_equal(setting_send(&s, 0, ends[0], "to "), 3);
	assert_int_equal(setting_send(&s, 0, ends[0], "b"), 1);
	assert_int_equal(setting_send(&s, 1, ends[1], "to a"), 4);
	assert_int_equal(setting_wait(&s, &recv[0]), 4);
	setting_run(&s, 60 * NS_PER_S);
	assert_int_equal(recv[1].completions, 0);
	sim_link_heal(s.hosts[0], s.hosts[1]);
	assert_int_equal(setting_wait(&s, &recv[1]), 3);
	assert_memory_equal(back[1], "to ", 3);
	loop_recv(s.loops[1], call_begin(&recv[1]), ends[1], &iov[1], 1);
	assert_int_equal(setting_wait(&s, &recv[1]), 1);
	sim_world_free(s.world);
}

static void test_dial_over_a_cut_link_waits_then_times_out(void **state)
{
	struct setting s = setting_new(12);
	struct call dial = {0};
	uint64_t began = sim_now(s.world);

	sim_partition(s.hosts[0], s.hosts[1]);
	loop_connect(s.loops[0], call_begin(&dial), "10.0.0.2:1");
	assert_int_equal(setting_wait(&s, &dial), -ETIMEDOUT);
	assert_true(sim_now(s.world) - began >= 60 * NS_PER_S);
	loop_connect(s.loops[0], call_begin(&dial), "10.0.0.2:1");
	setting_run(&s, NS_PER_S);
	assert_int_equal(dial.completions, 0);
	sim_unpartition(s.hosts[0], s.hosts[1]);
	assert_int_equal(setting_wait(&s, &dial), -ECONNREFUSED);
	loop_connect(s.loops[0], call_begin(&dial), "10.0.0.9:1");
	assert_int_equal(setting_wait(&s, &dial), -EHOSTUNREACH);
	sim_world_free(s.world);
}

static void test_crash_resets_streams_and_power_cut_only_when_the_machine_is_back(void **state)
{
	struct setting s = setting_new(13);
	struct loop_socket *ends[2];
	struct call recv = {0}, send = {0};
	char back[16];
	struct iovec iov = {back, 16};

	setting_connect(&s, 0, 1, ends);
	loop_recv(s.loops[0], call_begin(&recv), ends[0], &iov, 1);
	sim_host_crash(s.hosts[1]);
	assert_int_equal(setting_wait(&s, &recv), -ECONNRESET);
	loop_socket_close(s.loops[0], ends[0]);

	(void)setting_start(&s, 1);
	setting_connect(&s, 0, 1, ends);
	loop_recv(s.loops[0], call_begin(&recv), ends[0], &iov, 1);
	sim_host_power_cut(s.hosts[1], SIM_KEEP_ALL);
	setting_run(&s, 60 * NS_PER_S);
	assert_int_equal(recv.completions, 0); /* nobody told us */
	assert_int_equal(setting_send(&s, 0, ends[0], "hello?"), 6);
	setting_run(&s, 60 * NS_PER_S);
	assert_int_equal(recv.completions, 0);
	(void)setting_start(&s, 1);
	assert_int_equal(setting_wait(&s, &recv), -ECONNRESET);
	loop_send(s.loops[0], call_begin(&send), ends[0], &iov, 1);
	assert_int_equal(setting_wait(&s, &send), -ECONNRESET);
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

	setting_connect(&s, 0, 1, ab);
	setting_connect(&s, 0, 2, ac);
	for (unsigned i = 0; i < 3; i++)
		iov[i] = (struct iovec){back[i], 8};
	loop_recv(s.loops[0], call_begin(&recv[0]), ab[0], &iov[0], 1);
	loop_recv(s.loops[1], call_begin(&recv[1]), ab[1], &iov[1], 1);
	loop_recv(s.loops[2], call_begin(&recv[2]), ac[1], &iov[2], 1);
	sim_reset_streams(s.hosts[1], s.hosts[0]);
	assert_int_equal(setting_wait(&s, &recv[0]), -ECONNRESET);
	assert_int_equal(setting_wait(&s, &recv[1]), -ECONNRESET);
	assert_int_equal(setting_send(&s, 0, ac[0], "fine"), 4);
	assert_int_equal(setting_wait(&s, &recv[2]), 4);
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

	setting_connect(&s, 0, 1, ends);
	sim_link_set_delay(s.hosts[0], s.hosts[1], 20 * NS_PER_MS, 30 * NS_PER_MS);
	loop_recv(s.loops[1], call_begin(&recv), ends[1], &iov, 1);
	began = sim_now(s.world);
	assert_int_equal(setting_send(&s, 0, ends[0], "slow"), 4);
	assert_int_equal(setting_wait(&s, &recv), 4);
	assert_true(sim_now(s.world) - began >= 20 * NS_PER_MS);
	assert_true(sim_now(s.world) - began < 31 * NS_PER_MS);
	sim_world_free(s.world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
