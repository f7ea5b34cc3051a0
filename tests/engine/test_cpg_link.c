/* The connection to corosync, on three real ones: views, order, cuts, corosyncs that end, hang, or are not there. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "lib/base/size.h"
#include "sheep/engine/cpg_link.h"
#include "tests/engine/corosync_hosts.h"

#define LINKS	   3
#define HEARD_MAX  4096
#define TIMEOUT_NS (20 * NS_PER_S)

static struct corosync_hosts hosts; /* of all tests */

/* One member, with what it was told. */
struct ear {
	unsigned host;
	struct cpg_link *link;
	struct cpg_process self;
	uint32_t count; /* of the view */
	struct cpg_leaver left[16];
	unsigned left_count;
	uint32_t heard[HEARD_MAX];
	unsigned heard_count;
	bool has_quorum, has_stopped, is_writable;
	size_t longest;
};

struct bench {
	struct loop *loop;
	struct ear ears[LINKS];
};

static uint64_t now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static struct bench bench;

/* ---- the library of the member's own host: its thread goes there before it connects ---- */

cs_error_t __real_cpg_model_initialize(cpg_handle_t *handle, cpg_model_t model,
				       cpg_model_data_t *data, void *context);
cs_error_t __wrap_cpg_model_initialize(cpg_handle_t *handle, cpg_model_t model,
				       cpg_model_data_t *data, void *context);

cs_error_t __wrap_cpg_model_initialize(cpg_handle_t *handle, cpg_model_t model,
				       cpg_model_data_t *data, void *context)
{
	for (unsigned i = 0; i < LINKS; i++)
		if (bench.ears[i].link == context)
			corosync_hosts_enter(&hosts, bench.ears[i].host);
	return __real_cpg_model_initialize(handle, model, data, context);
}

/* ---- members ---- */

static void on_view(void *context, const struct cpg_view *view)
{
	struct ear *ear = context;

	ear->self = view->self;
	ear->count = view->count;
	for (uint32_t i = 0; i < view->left_count && ear->left_count < ARRAY_COUNT(ear->left); i++)
		ear->left[ear->left_count++] = view->left[i];
}

static void on_message(void *context, struct cpg_process from, const void *data, size_t size)
{
	struct ear *ear = context;

	assert_true(ear->heard_count < HEARD_MAX && size >= sizeof(uint32_t));
	memcpy(&ear->heard[ear->heard_count++], data, sizeof(uint32_t));
	if (size > ear->longest) {
		for (size_t i = sizeof(uint32_t); i < size; i++)
			assert_int_equal(((const uint8_t *)data)[i], i % 251);
		ear->longest = size;
	}
}

static void on_quorum(void *context, bool has_quorum)
{
	struct ear *ear = context;

	assert_true(ear->has_quorum != has_quorum);
	ear->has_quorum = has_quorum;
}

static void on_writable(void *context)
{
	struct ear *ear = context;

	ear->is_writable = true;
}

static void on_stopped(void *context)
{
	struct ear *ear = context;

	cpg_link_free(ear->link);
	ear->link = NULL;
	ear->has_stopped = true;
}

static const struct cpg_link_callbacks callbacks = {
	.view = on_view,
	.message = on_message,
	.quorum = on_quorum,
	.writable = on_writable,
	.stopped = on_stopped,
};

static void open_ear(unsigned number)
{
	struct ear *ear = &bench.ears[number];

	*ear = (struct ear){.host = number};
	ear->link = cpg_link_new(bench.loop, "test", &callbacks, ear);
	assert_non_null(ear->link);
}

static void turn(void)
{
	assert_int_equal(loop_turn(bench.loop, now() + NS_PER_MS), 0);
}

#define UNTIL(condition)                                                \
	do {                                                            \
		uint64_t end_ = now() + TIMEOUT_NS;                     \
		while (!(condition)) {                                  \
			if (now() > end_)                               \
				fail_msg("never came: %s", #condition); \
			turn();                                         \
		}                                                       \
	} while (0)

static bool all_see(uint32_t count)
{
	for (unsigned i = 0; i < LINKS; i++)
		if (bench.ears[i].count != count || !bench.ears[i].has_quorum)
			return false;
	return true;
}

static int setup(void **state)
{
	struct error err;

	assert_int_equal(loop_new(&(struct loop_options){.name = "ears"}, &bench.loop, &err), 0);
	for (unsigned i = 0; i < LINKS; i++) {
		corosync_hosts_cut(&hosts, i, false);
		if (!hosts.hosts[i].corosync)
			corosync_hosts_start(&hosts, i);
		open_ear(i);
	}
	UNTIL(all_see(LINKS));
	return 0;
}

static void stop_ear(unsigned number)
{
	struct ear *ear = &bench.ears[number];

	cpg_link_stop(ear->link);
	UNTIL(ear->has_stopped);
}

static int teardown(void **state)
{
	for (unsigned i = 0; i < LINKS; i++)
		if (bench.ears[i].link)
			stop_ear(i);
	loop_free(bench.loop);
	return 0;
}

/* 0: taken */
static int say(unsigned number, uint32_t word, size_t size)
{
	uint8_t *data = malloc(size);
	int rc;

	for (size_t i = 0; i < size; i++)
		data[i] = (uint8_t)(i % 251);
	memcpy(data, &word, sizeof(word));
	rc = cpg_link_send(bench.ears[number].link, data, size);
	free(data);
	return rc;
}

static void expect_same_order(uint32_t count)
{
	for (unsigned i = 1; i < LINKS; i++) {
		assert_int_equal(bench.ears[i].heard_count, count);
		assert_memory_equal(bench.ears[i].heard, bench.ears[0].heard,
				    count * sizeof(uint32_t));
	}
}

static bool all_heard(uint32_t count)
{
	for (unsigned i = 0; i < LINKS; i++)
		if (bench.ears[i].heard_count < count)
			return false;
	return true;
}

/* ---- */

static void test_all_hear_the_same_in_one_order(void **state)
{
	for (uint32_t word = 0; word < 300; word++)
		for (unsigned i = 0; i < LINKS; i++)
			assert_int_equal(say(i, word * LINKS + i, 8 + word), 0);
	UNTIL(all_heard(300 * LINKS));
	expect_same_order(300 * LINKS);
}

/* Larger than anything that is sent, and more of it than is taken at once. */
static void test_large_messages_come_whole_and_are_held_back(void **state)
{
	uint32_t taken = 0;

	while (say(0, taken, 600000) == 0)
		assert_true(++taken < 100);
	assert_int_equal(say(0, taken, 8), -EAGAIN);
	assert_false(bench.ears[0].is_writable);
	UNTIL(bench.ears[0].is_writable && all_heard(taken));
	expect_same_order(taken);
	assert_int_equal(bench.ears[2].longest, 600000);
}

static void test_leave_and_loss_are_told_apart(void **state)
{
	struct cpg_process left = bench.ears[1].self, lost = bench.ears[2].self;
	struct ear *ear = &bench.ears[0];

	stop_ear(1);
	UNTIL(ear->left_count == 1);
	assert_true(cpg_process_is(ear->left[0].address, left));
	assert_int_equal(ear->left[0].end, CPG_END_LEFT);
	cpg_link_drop(bench.ears[2].link);
	UNTIL(bench.ears[2].has_stopped && ear->left_count == 2);
	assert_true(cpg_process_is(ear->left[1].address, lost));
	assert_int_equal(ear->left[1].end, CPG_END_PROCESS);
	assert_int_equal(ear->count, 1);
}

static void test_cut_host_loses_quorum_and_comes_back(void **state)
{
	corosync_hosts_cut(&hosts, 2, true);
	UNTIL(bench.ears[0].count == 2 && bench.ears[1].count == 2 && bench.ears[2].count == 1 &&
	      !bench.ears[2].has_quorum);
	assert_true(bench.ears[0].has_quorum);
	assert_int_equal(bench.ears[0].left[0].end, CPG_END_NODE);
	assert_int_equal(say(0, 7, 8), 0);
	assert_int_equal(say(2, 8, 8), 0);
	UNTIL(bench.ears[1].heard_count == 1 && bench.ears[2].heard_count == 1);
	assert_int_equal(bench.ears[1].heard[0], 7);
	assert_int_equal(bench.ears[2].heard[0], 8);
	corosync_hosts_cut(&hosts, 2, false);
	UNTIL(all_see(LINKS));
}

static void test_corosync_that_is_killed_is_connected_again(void **state)
{
	corosync_hosts_signal(&hosts, 1, SIGKILL);
	UNTIL(bench.ears[1].count == 0 && !bench.ears[1].has_quorum && bench.ears[0].count == 2);
	assert_int_equal(say(1, 1, 8), -E_CLOSED);
	assert_int_equal(bench.ears[0].left[0].end, CPG_END_NODE);
	corosync_hosts_start(&hosts, 1);
	UNTIL(all_see(LINKS));
	assert_int_equal(say(1, 2, 8), 0);
	UNTIL(all_heard(1));
	expect_same_order(1);
}

/* Neither sending nor leaving waits for a corosync that does not run on. */
static void test_corosync_that_hangs_does_not_hang_us(void **state)
{
	uint64_t began;
	uint32_t taken = 0;

	corosync_hosts_signal(&hosts, 0, SIGSTOP);
	began = now();
	while (say(0, taken, 1000) == 0)
		assert_true(++taken < 10000);
	for (unsigned i = 0; i < 100; i++)
		turn();
	stop_ear(0);
	assert_true(now() - began < 8 * NS_PER_S);
	corosync_hosts_signal(&hosts, 0, SIGCONT);
	UNTIL(bench.ears[1].count == 2);
	open_ear(0);
	UNTIL(all_see(LINKS));
}

static void test_waits_for_a_corosync_that_is_not_there_yet(void **state)
{
	stop_ear(0);
	corosync_hosts_signal(&hosts, 0, SIGTERM);
	open_ear(0);
	for (uint64_t end = now() + NS_PER_S; now() < end;)
		turn();
	assert_int_equal(bench.ears[0].count, 0);
	corosync_hosts_start(&hosts, 0);
	UNTIL(all_see(LINKS));
	/* It also can be left while it waits. */
	stop_ear(0);
	corosync_hosts_signal(&hosts, 0, SIGKILL);
	open_ear(0);
	turn();
	stop_ear(0);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

static int run(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_all_hear_the_same_in_one_order),
		TEST(test_large_messages_come_whole_and_are_held_back),
		TEST(test_leave_and_loss_are_told_apart),
		TEST(test_cut_host_loses_quorum_and_comes_back),
		TEST(test_corosync_that_is_killed_is_connected_again),
		TEST(test_corosync_that_hangs_does_not_hang_us),
		TEST(test_waits_for_a_corosync_that_is_not_there_yet),
	};

	return cmocka_run_group_tests_name("cpg link", tests, NULL, NULL);
}

int main(void)
{
	return corosync_hosts_run(&hosts, LINKS, run);
}
