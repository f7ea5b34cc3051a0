/*
 * The loop's core on a back end made for it: what races between threads and
 * waits look like is put where it cannot be missed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/base/size.h"
#include "lib/loop/backend.h"

struct fake {
	struct loop_backend base;
	struct loop *loop;
	uint64_t now_ns;
	uint64_t step_ns;  /* each look at the clock takes so long */
	uint64_t until_ns; /* of the last wait */
	unsigned waits;
	unsigned wakes;
	unsigned looks;
	struct loop_mail *posts_in_wait; /* while the loop sleeps */
	struct loop_mail *posts_in_look; /* after it has looked at its mail */
	struct loop_op *submitted;
	bool is_freed;
};

static struct fake *fake_of(struct loop_backend *backend)
{
	return (struct fake *)backend;
}

static void fake_free(struct loop_backend *backend)
{
	fake_of(backend)->is_freed = true;
}

static int fake_wait(struct loop_backend *backend, uint64_t until_ns)
{
	struct fake *fake = fake_of(backend);

	fake->until_ns = until_ns;
	fake->waits++;
	if (fake->posts_in_wait) {
		struct loop_mail *mail = fake->posts_in_wait;

		fake->posts_in_wait = NULL;
		loop_post(fake->loop, &mail[0]);
		loop_post(fake->loop, &mail[1]);
	}
	if (until_ns != UINT64_MAX)
		fake->now_ns = max_of(fake->now_ns, until_ns);
	return 0;
}

static bool fake_has_events(struct loop_backend *backend)
{
	struct fake *fake = fake_of(backend);

	fake->looks++;
	if (fake->posts_in_look)
		loop_post(fake->loop, fake->posts_in_look);
	fake->posts_in_look = NULL;
	return false;
}

static void fake_wake(struct loop_backend *backend)
{
	fake_of(backend)->wakes++;
}

static uint64_t fake_now(struct loop_backend *backend)
{
	return fake_of(backend)->now_ns += fake_of(backend)->step_ns;
}

static void fake_submit(struct loop_backend *backend, struct loop_op *op)
{
	fake_of(backend)->submitted = op;
}

static void fake_cancel(struct loop_backend *backend, struct loop_op *op)
{
	loop_op_finish(op, -ECANCELED);
}

static const struct loop_backend_ops fake_ops = {
	.name = "fake",
	.free = fake_free,
	.wait = fake_wait,
	.has_events = fake_has_events,
	.wake = fake_wake,
	.now = fake_now,
	.wall_clock = fake_now,
	.submit = fake_submit,
	.cancel = fake_cancel,
};

static void fake_begin(struct fake *fake, uint32_t busy_poll_us)
{
	*fake = (struct fake){.base.ops = &fake_ops, .now_ns = NS_PER_S};
	assert_int_equal(loop_new_on(&(struct loop_options){.busy_poll_us = busy_poll_us},
				     &fake->base, &fake->loop),
			 0);
}

static unsigned delivered;

static void on_mail(struct loop *loop, struct loop_mail *mail)
{
	delivered++;
}

static void test_posts_to_a_sleeping_loop_wake_it_once(void **state)
{
	struct fake fake;
	struct loop_mail mail[3] = {{on_mail}, {on_mail}, {on_mail}};

	fake_begin(&fake, 0);
	delivered = 0;
	loop_post(fake.loop, &mail[2]); /* it does not sleep yet */
	assert_int_equal(fake.wakes, 0);
	assert_int_equal(loop_turn(fake.loop, UINT64_MAX), 0);
	assert_int_equal(fake.until_ns, 0);
	assert_int_equal(delivered, 1);
	fake.posts_in_wait = mail;
	assert_int_equal(loop_turn(fake.loop, UINT64_MAX), 0);
	assert_true(fake.until_ns == UINT64_MAX);
	assert_int_equal(fake.wakes, 1);
	assert_int_equal(delivered, 3);
	loop_post(fake.loop, &mail[0]); /* awake again */
	assert_int_equal(fake.wakes, 1);
	assert_int_equal(loop_turn(fake.loop, UINT64_MAX), 0);
	loop_free(fake.loop);
	assert_true(fake.is_freed);
}

/* The lost wakeup: mail that comes after the last look and before the sleep. */
static void test_mail_between_the_last_look_and_the_sleep_is_not_slept_on(void **state)
{
	struct fake fake;
	struct loop_mail mail = {on_mail};

	fake_begin(&fake, 50);
	delivered = 0;
	/* A short wait first, so that the loop polls from then on. */
	assert_int_equal(loop_turn(fake.loop, loop_now(fake.loop) + 20 * NS_PER_US), 0);
	fake.step_ns = 12 * NS_PER_US; /* one look, then the poll's time is over */
	fake.posts_in_look = &mail;
	fake.looks = 0;
	assert_int_equal(loop_turn(fake.loop, UINT64_MAX), 0);
	assert_int_equal(fake.looks, 1);
	assert_int_equal(fake.wakes, 0);
	assert_int_equal(fake.until_ns, 0);
	assert_int_equal(delivered, 1);
	loop_free(fake.loop);
}

static void test_polling_grows_while_waits_are_short_and_ends_with_a_long_one(void **state)
{
	struct fake fake;
	unsigned looks[4];

	fake_begin(&fake, 1000);
	fake.step_ns = NS_PER_US;
	assert_int_equal(loop_turn(fake.loop, loop_now(fake.loop) + 100 * NS_PER_US), 0);
	for (unsigned i = 0; i < 4; i++) {
		fake.looks = 0;
		assert_int_equal(loop_turn(fake.loop, loop_now(fake.loop) + 300 * NS_PER_US), 0);
		looks[i] = fake.looks;
	}
	assert_true(looks[0] > 0 && looks[0] < looks[1] && looks[1] < looks[2] &&
		    looks[2] < looks[3]);
	assert_int_equal(loop_turn(fake.loop, loop_now(fake.loop) + 5 * NS_PER_MS), 0);
	fake.looks = 0;
	assert_int_equal(loop_turn(fake.loop, loop_now(fake.loop) + 300 * NS_PER_US), 0);
	assert_int_equal(fake.looks, 0);
	loop_free(fake.loop);
}

static int last_result;

static void on_done(struct loop_op *op, int result)
{
	last_result = result;
}

static void test_wait_is_asked_for_the_first_of_deadline_and_timer(void **state)
{
	struct fake fake;
	struct loop_op op = {.done = on_done};
	struct iovec iov = {&op, 1};
	struct loop_file file = {0};

	fake_begin(&fake, 0);
	assert_true(loop_next_deadline(fake.loop) == UINT64_MAX);
	assert_int_equal(loop_turn(fake.loop, 7 * NS_PER_S), 0);
	assert_int_equal(fake.until_ns, 7 * NS_PER_S);
	loop_file_read(fake.loop, &op, &file, &iov, 1, 0);
	assert_ptr_equal(fake.submitted, &op);
	assert_true(loop_next_deadline(fake.loop) == UINT64_MAX);
	last_result = 1;
	loop_cancel(fake.loop, &op);
	assert_int_equal(last_result, 1); /* not inside the call */
	assert_int_equal(loop_next_deadline(fake.loop), 0);
	assert_int_equal(loop_turn(fake.loop, UINT64_MAX), 0);
	assert_int_equal(fake.until_ns, 0);
	assert_int_equal(last_result, -ECANCELED);
	loop_free(fake.loop);
}

static void test_transfers_of_nothing_and_of_too_much_never_reach_the_back_end(void **state)
{
	struct fake fake;
	struct loop_op op = {.done = on_done};
	struct iovec huge[2] = {{&op, INT32_MAX}, {&op, 1}};
	struct loop_file file = {0};
	struct loop_socket socket = {0};

	fake_begin(&fake, 0);
	socket.loop = fake.loop;
	loop_file_write(fake.loop, &op, &file, NULL, 0, 0);
	assert_int_equal(loop_turn(fake.loop, 0), 0);
	assert_int_equal(last_result, 0);
	loop_file_write(fake.loop, &op, &file, huge, 2, 0);
	assert_int_equal(loop_turn(fake.loop, 0), 0);
	assert_int_equal(last_result, -EINVAL);
	loop_send(fake.loop, &op, &socket, NULL, 0);
	assert_int_equal(loop_turn(fake.loop, 0), 0);
	assert_int_equal(last_result, 0);
	loop_recv(fake.loop, &op, &socket, NULL, 0);
	assert_int_equal(loop_turn(fake.loop, 0), 0);
	assert_int_equal(last_result, -EINVAL);
	assert_null(fake.submitted);
	loop_free(fake.loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_posts_to_a_sleeping_loop_wake_it_once),
		cmocka_unit_test(test_mail_between_the_last_look_and_the_sleep_is_not_slept_on),
		cmocka_unit_test(test_polling_grows_while_waits_are_short_and_ends_with_a_long_one),
		cmocka_unit_test(test_wait_is_asked_for_the_first_of_deadline_and_timer),
		cmocka_unit_test(
			test_transfers_of_nothing_and_of_too_much_never_reach_the_back_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
