/*
 * The loop on a real back end, io_uring unless TEST_LOOP_BACKEND says another: the common suite,
 * what real threads do to it, and loop_suite_kernel.c.
 */
#include "tests/unit/loop_suite.h"
#include "tests/unit/scratch.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#ifndef TEST_LOOP_BACKEND
#define TEST_LOOP_BACKEND LOOP_BACKEND_URING
#endif

static struct loop *new_loop(struct bed *bed, const struct loop_options *options)
{
	struct loop_options filled = *options;
	struct error err = {0};
	struct loop *loop;

	filled.backend = TEST_LOOP_BACKEND;
	if (loop_new(&filled, &loop, &err) < 0)
		fail_msg("%s", err.text);
	return loop;
}

int bed_setup(void **state)
{
	struct bed *bed = calloc(1, sizeof(*bed));

	bed->new_loop = new_loop;
	bed->tcp_any = "127.0.0.1:0";
	bed->tcp_dead = "127.0.0.1:1";
	scratch_make(bed->directory, sizeof(bed->directory), "test_loop");
	(void)snprintf(bed->unix_address, sizeof(bed->unix_address), "unix:%s/socket",
		       bed->directory);
	bed->loop = new_loop(bed, &(struct loop_options){.name = "test"});
	*state = bed;
	return 0;
}

int bed_teardown(void **state)
{
	struct bed *bed = *state;

	loop_free(bed->other);
	loop_free(bed->loop);
	scratch_remove(bed->directory);
	free(bed);
	return 0;
}

/* ---- threads ---- */

enum { SENDERS = 3, LETTERS = 20000 };

struct letter {
	struct loop_mail mail;
	unsigned sender;
	unsigned number;
};

struct office {
	struct loop *loop;
	unsigned next[SENDERS];
	unsigned delivered;
	bool is_ordered;
	pthread_t owner;
	bool is_on_owner;
};

struct sender {
	struct office *office;
	struct letter *letters;
	unsigned index;
};

static struct office *office; /* of the one test that runs; deliver() has no context */

static void on_letter(struct loop *loop, struct loop_mail *mail)
{
	struct letter *letter = container_of_type(mail, struct letter, mail);

	office->is_ordered &= letter->number == office->next[letter->sender]++;
	office->is_on_owner &= pthread_equal(pthread_self(), office->owner);
	office->delivered++;
	if (office->delivered == SENDERS * LETTERS)
		loop_stop(loop);
}

static void *send_letters(void *argument)
{
	struct sender *sender = argument;

	for (unsigned i = 0; i < LETTERS; i++) {
		sender->letters[i] = (struct letter){
			.mail.deliver = on_letter, .sender = sender->index, .number = i};
		loop_post(sender->office->loop, &sender->letters[i].mail);
		if (i % 1000 == 0)
			usleep(100); /* lets the loop fall asleep */
	}
	return NULL;
}

static void *run_loop(void *argument)
{
	struct office *mine = argument;

	mine->owner = pthread_self();
	return (void *)(intptr_t)loop_run(mine->loop);
}

/* A lost wakeup shows as a test that never ends. */
static void check_mail_from_threads(struct bed *bed, uint32_t busy_poll_us)
{
	struct office mine = {.is_ordered = true, .is_on_owner = true};
	struct sender senders[SENDERS];
	pthread_t threads[SENDERS], runner;
	void *rc;

	office = &mine;
	mine.loop = new_loop(bed, &(struct loop_options){.busy_poll_us = busy_poll_us});
	assert_int_equal(pthread_create(&runner, NULL, run_loop, &mine), 0);
	for (unsigned i = 0; i < SENDERS; i++) {
		senders[i] = (struct sender){&mine, calloc(LETTERS, sizeof(struct letter)), i};
		assert_int_equal(pthread_create(&threads[i], NULL, send_letters, &senders[i]), 0);
	}
	for (unsigned i = 0; i < SENDERS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(pthread_join(runner, &rc), 0);
	assert_null(rc);
	assert_int_equal(mine.delivered, SENDERS * LETTERS);
	assert_true(mine.is_ordered);
	assert_true(mine.is_on_owner);
	for (unsigned i = 0; i < SENDERS; i++)
		free(senders[i].letters);
	loop_free(mine.loop);
}

static void test_mail_from_several_threads_is_whole_and_ordered_per_sender(void **state)
{
	check_mail_from_threads(*state, 0);
}

static void test_mail_reaches_a_loop_that_polls_busily(void **state)
{
	check_mail_from_threads(*state, 50);
}

struct bouncer {
	struct loop_mail mail;
	struct loop *loops[2];
	unsigned left;
};

static void on_bounce(struct loop *loop, struct loop_mail *mail)
{
	struct bouncer *bouncer = container_of_type(mail, struct bouncer, mail);
	struct loop *to = bouncer->loops[loop == bouncer->loops[0]];

	if (bouncer->left-- > 0) {
		loop_post(to, mail);
	} else {
		loop_stop(bouncer->loops[0]);
		loop_stop(bouncer->loops[1]);
	}
}

/* Each hop finds the other loop asleep or about to sleep: the window in which a wakeup can be lost. */
static void test_two_running_loops_bounce_a_message(void **state)
{
	struct bed *bed = *state;
	struct bouncer bouncer = {.mail.deliver = on_bounce, .left = 20000};
	struct office offices[2] = {0};
	pthread_t threads[2];

	for (unsigned i = 0; i < 2; i++)
		offices[i].loop = bouncer.loops[i] = new_loop(bed, &(struct loop_options){0});
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, run_loop, &offices[i]), 0);
	loop_post(bouncer.loops[0], &bouncer.mail);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	loop_free(bouncer.loops[0]);
	loop_free(bouncer.loops[1]);
}

struct starter {
	struct loop_timer timer;
	struct call recv;
	struct loop *loop;
};

static void on_start_over(struct loop_timer *timer)
{
	struct starter *starter = container_of_type(timer, struct starter, timer);

	if (starter->recv.completions)
		loop_stop(starter->loop);
	else
		loop_timer_start(starter->loop, timer, loop_now(starter->loop) + NS_PER_MS);
}

static void test_ops_submitted_before_the_loop_has_a_thread_run_on_it(void **state)
{
	struct bed *bed = *state;
	struct starter starter = {.timer.fire = on_start_over};
	struct office mine = {0};
	struct loop_socket *sockets[2];
	struct iovec in = {(char[4]){0}, 4}, out = {(char[]){"abcd"}, 4};
	struct call send = {0};
	pthread_t thread;

	mine.loop = starter.loop = new_loop(bed, &(struct loop_options){0});
	assert_int_equal(loop_socket_pair(mine.loop, &sockets[0], &sockets[1]), 0);
	loop_recv(mine.loop, call_begin(&starter.recv), sockets[0], &in, 1);
	loop_send(mine.loop, call_begin(&send), sockets[1], &out, 1);
	loop_timer_start(mine.loop, &starter.timer, 0);
	assert_int_equal(pthread_create(&thread, NULL, run_loop, &mine), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(starter.recv.result, 4);
	loop_socket_close(mine.loop, sockets[0]);
	loop_socket_close(mine.loop, sockets[1]);
	loop_free(mine.loop);
}

static uint64_t thread_cpu_ns(void)
{
	struct rusage usage;

	assert_int_equal(getrusage(RUSAGE_THREAD, &usage), 0);
	return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * NS_PER_S +
	       (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * NS_PER_US;
}

/* Rule 6 of the promise, cost follows work: polling stops where it does not pay. */
static void test_idle_loop_that_may_poll_does_not(void **state)
{
	struct bed *bed = *state;
	struct loop *loop = new_loop(bed, &(struct loop_options){.busy_poll_us = 10000});
	struct call call = {0};
	uint64_t before;

	for (unsigned i = 0; i < 100; i++) { /* a busy time first */
		loop_complete(loop, call_begin(&call), 0);
		assert_int_equal(loop_turn(loop, UINT64_MAX), 0);
	}
	before = thread_cpu_ns();
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(loop_turn(loop, loop_now(loop) + 20 * NS_PER_MS), 0);
	assert_true(thread_cpu_ns() - before < 60 * NS_PER_MS); /* it would be 100 or more */
	loop_free(loop);
}

static void on_signal(int number)
{
}

/* A handler on the loop's thread interrupts its wait; nothing else happens. */
static void test_signals_do_not_disturb_a_running_loop(void **state)
{
	struct bed *bed = *state;
	struct sigaction action = {.sa_handler = on_signal};
	struct office mine = {.loop = new_loop(bed, &(struct loop_options){0})};
	pthread_t runner;
	void *rc;

	assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
	assert_int_equal(pthread_create(&runner, NULL, run_loop, &mine), 0);
	for (unsigned i = 0; i < 50; i++) {
		assert_int_equal(pthread_kill(runner, SIGUSR1), 0);
		usleep(200);
	}
	loop_stop(mine.loop);
	assert_int_equal(pthread_join(runner, &rc), 0);
	assert_null(rc);
	loop_free(mine.loop);
}

static const struct CMUnitTest tests_of_threads[] = {
	BED_TEST(test_mail_from_several_threads_is_whole_and_ordered_per_sender),
	BED_TEST(test_mail_reaches_a_loop_that_polls_busily),
	BED_TEST(test_two_running_loops_bounce_a_message),
	BED_TEST(test_ops_submitted_before_the_loop_has_a_thread_run_on_it),
	BED_TEST(test_idle_loop_that_may_poll_does_not),
	BED_TEST(test_signals_do_not_disturb_a_running_loop),
};

int main(void)
{
	struct error err = {0};
	struct loop *probe;
	int failed = 0;

	if (loop_new(&(struct loop_options){.backend = TEST_LOOP_BACKEND}, &probe, &err) < 0) {
		(void)fprintf(stderr, "skipped: %s\n", err.text);
		return 77;
	}
	loop_free(probe);
	failed +=
		_cmocka_run_group_tests("core", loop_suite_core, loop_suite_core_count, NULL, NULL);
	failed += _cmocka_run_group_tests("files", loop_suite_files, loop_suite_files_count, NULL,
					  NULL);
	failed += _cmocka_run_group_tests("streams", loop_suite_streams, loop_suite_streams_count,
					  NULL, NULL);
	failed += cmocka_run_group_tests_name("threads", tests_of_threads, NULL, NULL);
	failed += _cmocka_run_group_tests("kernel", loop_suite_kernel, loop_suite_kernel_count,
					  NULL, NULL);
	return failed != 0;
}
