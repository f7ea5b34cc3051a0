/* Turns, timers, hooks, completions, cancel, mail: on any back end. */
#include "tests/unit/loop_suite.h"

/* ---- timers ---- */

struct tick {
	struct loop_timer timer;
	struct loop *loop;
	char name;
	char *trace;
	uint64_t fired_ns;
	unsigned fired;
	uint64_t again_ns; /* start again for now + this */
	unsigned again;	   /* so often */
	struct tick *stops;
};

static void on_tick(struct loop_timer *timer)
{
	struct tick *tick = container_of_type(timer, struct tick, timer);

	assert_false(loop_timer_is_armed(timer));
	tick->fired++;
	tick->fired_ns = loop_now(tick->loop);
	if (tick->trace)
		tick->trace[strlen(tick->trace)] = tick->name;
	if (tick->stops)
		loop_timer_stop(tick->loop, &tick->stops->timer);
	if (tick->again) {
		tick->again--;
		loop_timer_start(tick->loop, timer, loop_now(tick->loop) + tick->again_ns);
	}
}

static void test_timers_fire_in_order_of_deadline_then_of_starting(void **state)
{
	struct bed *bed = *state;
	char trace[16] = "";
	struct tick ticks[5];
	const unsigned after_ms[5] = {3, 1, 2, 1, 3};
	uint64_t begin = loop_now(bed->loop);

	for (unsigned i = 0; i < 5; i++) {
		ticks[i] = (struct tick){.timer.fire = on_tick,
					 .loop = bed->loop,
					 .name = (char)('a' + i),
					 .trace = trace};
		loop_timer_start(bed->loop, &ticks[i].timer, begin + after_ms[i] * NS_PER_MS);
		assert_true(loop_timer_is_armed(&ticks[i].timer));
	}
	BED_UNTIL(bed, strlen(trace) == 5);
	assert_string_equal(trace, "bdcae");
	for (unsigned i = 0; i < 5; i++)
		assert_true(ticks[i].fired_ns >= begin + after_ms[i] * NS_PER_MS);
}

static void test_timer_moves_when_started_again_and_never_fires_when_stopped(void **state)
{
	struct bed *bed = *state;
	struct tick moved = {.timer.fire = on_tick, .loop = bed->loop};
	struct tick stopped = {.timer.fire = on_tick, .loop = bed->loop};
	struct tick last = {.timer.fire = on_tick, .loop = bed->loop};
	struct tick victim = {.timer.fire = on_tick, .loop = bed->loop};
	struct tick killer = {.timer.fire = on_tick, .loop = bed->loop, .stops = &victim};
	uint64_t begin = loop_now(bed->loop);

	loop_timer_start(bed->loop, &moved.timer, begin + NS_PER_MS);
	loop_timer_start(bed->loop, &stopped.timer, begin + NS_PER_MS);
	loop_timer_start(bed->loop, &moved.timer, begin + 5 * NS_PER_MS);
	loop_timer_start(bed->loop, &killer.timer, begin + 6 * NS_PER_MS);
	loop_timer_start(bed->loop, &victim.timer, begin + 6 * NS_PER_MS);
	loop_timer_stop(bed->loop, &stopped.timer);
	loop_timer_stop(bed->loop, &stopped.timer);
	loop_timer_start(bed->loop, &last.timer, begin + 10 * NS_PER_MS);
	BED_UNTIL(bed, last.fired);
	assert_int_equal(moved.fired, 1);
	assert_true(moved.fired_ns >= begin + 5 * NS_PER_MS);
	assert_int_equal(stopped.fired, 0);
	assert_int_equal(killer.fired, 1);
	assert_int_equal(victim.fired, 0);
}

/* The trap: a timer of a past time that starts itself again must not hold the turn for ever. */
static void test_timer_restarted_for_the_past_fires_once_per_turn_and_starves_nobody(void **state)
{
	struct bed *bed = *state;
	struct tick greedy = {.timer.fire = on_tick, .loop = bed->loop, .again = 1000000};
	struct tick meek = {.timer.fire = on_tick, .loop = bed->loop};

	loop_timer_start(bed->loop, &greedy.timer, 0);
	loop_timer_start(bed->loop, &meek.timer, loop_now(bed->loop));
	assert_int_equal(loop_turn(bed->loop, 0), 0);
	assert_int_equal(greedy.fired, 1);
	assert_int_equal(meek.fired, 1);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(loop_turn(bed->loop, UINT64_MAX), 0);
	assert_int_equal(greedy.fired, 4);
	loop_timer_stop(bed->loop, &greedy.timer);
}

/* Against a sorted model: any mix of starts, moves and stops. */
static void test_timer_heap_agrees_with_a_model(void **state)
{
	struct bed *bed = *state;
	enum { COUNT = 600 };
	struct tick *ticks = calloc(COUNT, sizeof(*ticks));
	struct random random;
	uint64_t begin = loop_now(bed->loop);
	unsigned expected = 0;
	bool armed[COUNT] = {false};

	random_init(&random, 7);
	for (unsigned i = 0; i < COUNT; i++)
		ticks[i] = (struct tick){.timer.fire = on_tick, .loop = bed->loop};
	for (unsigned step = 0; step < 20 * COUNT; step++) {
		unsigned i = (unsigned)random_below(&random, COUNT);

		armed[i] = random_below(&random, 3) != 0;
		if (armed[i])
			loop_timer_start(bed->loop, &ticks[i].timer,
					 begin + random_below(&random, 20 * NS_PER_MS));
		else
			loop_timer_stop(bed->loop, &ticks[i].timer);
	}
	for (unsigned i = 0; i < COUNT; i++) {
		expected += armed[i];
		assert_int_equal(loop_timer_is_armed(&ticks[i].timer), armed[i]);
	}
	struct tick last = {.timer.fire = on_tick, .loop = bed->loop};
	loop_timer_start(bed->loop, &last.timer, begin + 20 * NS_PER_MS);
	BED_UNTIL(bed, last.fired);
	for (unsigned i = 0; i < COUNT; i++) {
		assert_int_equal(ticks[i].fired, armed[i]);
		assert_true(!armed[i] || ticks[i].fired_ns >= ticks[i].timer.deadline_ns);
	}
	free(ticks);
}

/* ---- hooks ---- */

struct hooked {
	struct loop_hook hook;
	struct loop *loop;
	char name;
	char *trace;
	struct hooked *arms[2];
	struct hooked *disarms;
};

static void on_hook(struct loop_hook *hook)
{
	struct hooked *hooked = container_of_type(hook, struct hooked, hook);

	hooked->trace[strlen(hooked->trace)] = hooked->name;
	for (unsigned i = 0; i < 2; i++)
		if (hooked->arms[i])
			loop_hook_arm(hooked->loop, &hooked->arms[i]->hook);
	if (hooked->disarms)
		loop_hook_disarm(hooked->loop, &hooked->disarms->hook);
}

static struct hooked hooked(struct bed *bed, char name, char *trace, enum loop_hook_phase phase)
{
	return (struct hooked){.hook = {.run = on_hook, .phase = phase},
			       .loop = bed->loop,
			       .name = name,
			       .trace = trace};
}

static void test_hooks_run_by_phase_and_a_later_phase_in_the_same_turn(void **state)
{
	struct bed *bed = *state;
	char trace[16] = "";
	struct hooked flush = hooked(bed, 'f', trace, LOOP_HOOK_FLUSH);
	struct hooked commit = hooked(bed, 'c', trace, LOOP_HOOK_COMMIT);
	struct hooked late = hooked(bed, 'l', trace, LOOP_HOOK_FLUSH);
	struct hooked gone = hooked(bed, 'g', trace, LOOP_HOOK_FLUSH);

	commit.arms[0] = &late;
	commit.disarms = &gone;
	loop_hook_arm(bed->loop, &flush.hook);
	loop_hook_arm(bed->loop, &gone.hook);
	loop_hook_arm(bed->loop, &commit.hook);
	loop_hook_arm(bed->loop, &commit.hook);
	assert_int_equal(loop_turn(bed->loop, UINT64_MAX), 0);
	assert_string_equal(trace, "cfl");
	assert_int_equal(loop_turn(bed->loop, 0), 0);
	assert_string_equal(trace, "cfl");
}

/* The trap: the next turn must not sleep on what the last one left armed. */
static void test_hook_armed_for_an_earlier_phase_runs_in_the_next_turn(void **state)
{
	struct bed *bed = *state;
	char trace[16] = "";
	struct hooked flush = hooked(bed, 'f', trace, LOOP_HOOK_FLUSH);
	struct hooked commit = hooked(bed, 'c', trace, LOOP_HOOK_COMMIT);

	flush.arms[0] = &commit;
	flush.arms[1] = &flush;
	loop_hook_arm(bed->loop, &flush.hook);
	assert_int_equal(loop_turn(bed->loop, UINT64_MAX), 0);
	assert_string_equal(trace, "f");
	flush.arms[1] = NULL;
	assert_int_equal(loop_turn(bed->loop, UINT64_MAX), 0);
	assert_string_equal(trace, "fcf");
	assert_int_equal(loop_turn(bed->loop, UINT64_MAX), 0);
	assert_string_equal(trace, "fcfc");
	assert_int_equal(loop_turn(bed->loop, 0), 0);
	assert_string_equal(trace, "fcfc");
}

/* ---- completions ---- */

static void test_complete_runs_later_and_once(void **state)
{
	struct bed *bed = *state;
	struct call call = {0};

	loop_complete(bed->loop, call_begin(&call), 42);
	assert_int_equal(call_wait(bed, &call), 42);
	loop_complete(bed->loop, call_begin(&call), -EIO);
	loop_cancel(bed->loop, &call.op); /* has its result already */
	assert_int_equal(call_wait(bed, &call), -EIO);
	assert_int_equal(loop_turn(bed->loop, 0), 0);
	assert_int_equal(call.completions, 1);
}

static void test_turn_runs_at_most_turn_max_completions_then_timers_and_hooks(void **state)
{
	struct bed *bed = *state;
	struct loop *loop = bed->new_loop(bed, &(struct loop_options){.turn_max = 10});
	struct call calls[25] = {0};
	struct tick tick = {.timer.fire = on_tick, .loop = loop};
	unsigned done;

	for (unsigned i = 0; i < 25; i++)
		loop_complete(loop, call_begin(&calls[i]), (int)i);
	loop_timer_start(loop, &tick.timer, 0);
	for (unsigned turn = 1; turn <= 3; turn++) {
		assert_int_equal(loop_turn(loop, UINT64_MAX), 0);
		done = 0;
		for (unsigned i = 0; i < 25; i++)
			done += calls[i].completions;
		assert_int_equal(done, min_of(turn * 10, 25u));
		assert_int_equal(tick.fired, 1);
		assert_int_equal(calls[turn * 10 - 10].completions, 1); /* the first came first */
	}
	loop_free(loop);
}

/* ---- mail ---- */

struct letter {
	struct loop_mail mail;
	struct loop *seen_on;
	unsigned number;
	unsigned *next;
	struct loop *reply_to;
};

static void on_letter(struct loop *loop, struct loop_mail *mail)
{
	struct letter *letter = container_of_type(mail, struct letter, mail);

	letter->seen_on = loop;
	if (letter->next) {
		assert_int_equal(letter->number, *letter->next);
		++*letter->next;
	}
	if (letter->reply_to) {
		struct loop *to = letter->reply_to;

		letter->reply_to = NULL;
		loop_post(to, mail);
	}
}

static void test_mail_arrives_in_order_and_can_be_sent_on_from_delivery(void **state)
{
	struct bed *bed = *state;
	struct loop *other = bed_other(bed);
	struct letter letters[100];
	unsigned next = 0;

	for (unsigned i = 0; i < 100; i++) {
		letters[i] = (struct letter){.mail.deliver = on_letter, .number = i, .next = &next};
		loop_post(other, &letters[i].mail);
	}
	BED_UNTIL(bed, next == 100);
	assert_ptr_equal(letters[99].seen_on, other);

	struct letter there_and_back = {.mail.deliver = on_letter, .reply_to = bed->loop};
	loop_post(other, &there_and_back.mail);
	BED_UNTIL(bed, there_and_back.seen_on == bed->loop);
}

static void test_mail_posted_to_itself_does_not_let_the_loop_sleep(void **state)
{
	struct bed *bed = *state;
	struct letter letter = {.mail.deliver = on_letter, .reply_to = bed->loop};

	loop_post(bed->loop, &letter.mail);
	assert_int_equal(loop_turn(bed->loop, UINT64_MAX), 0);
	assert_ptr_equal(letter.seen_on, bed->loop);
	letter.seen_on = NULL;
	assert_int_equal(loop_turn(bed->loop, UINT64_MAX), 0);
	assert_ptr_equal(letter.seen_on, bed->loop);
}

/* ---- clocks, randomness, stop ---- */

static void test_turn_without_work_ends_at_its_deadline_and_time_moves(void **state)
{
	struct bed *bed = *state;
	uint64_t begin = loop_now(bed->loop);

	assert_int_equal(loop_turn(bed->loop, 0), 0);
	while (loop_now(bed->loop) < begin + 2 * NS_PER_MS)
		assert_int_equal(loop_turn(bed->loop, begin + 2 * NS_PER_MS), 0);
	assert_true(loop_wall_clock(bed->loop) > 1500000000 * NS_PER_S);
}

static void test_random_follows_the_seed(void **state)
{
	struct bed *bed = *state;
	struct loop *a = bed->new_loop(bed, &(struct loop_options){.seed = 5});
	struct loop *b = bed->new_loop(bed, &(struct loop_options){.seed = 5});
	struct loop *c = bed->new_loop(bed, &(struct loop_options){.seed = 6});
	uint64_t value = random_u64(loop_random(a));

	assert_true(value == random_u64(loop_random(b)));
	assert_true(value != random_u64(loop_random(c)));
	loop_free(a);
	loop_free(b);
	loop_free(c);
	loop_free(NULL);
}

struct stopper {
	struct loop_timer timer;
	struct loop *loop;
};

static void on_stopper(struct loop_timer *timer)
{
	loop_stop(container_of_type(timer, struct stopper, timer)->loop);
}

static void test_run_returns_after_stop_also_when_stopped_before(void **state)
{
	struct bed *bed = *state;
	struct stopper stopper = {.timer.fire = on_stopper, .loop = bed->loop};

	loop_stop(bed->loop);
	assert_int_equal(loop_run(bed->loop), 0);
	loop_timer_start(bed->loop, &stopper.timer, loop_now(bed->loop) + NS_PER_MS);
	assert_int_equal(loop_run(bed->loop), 0);
	assert_false(loop_timer_is_armed(&stopper.timer));
}

static void test_buffers_come_from_the_loop(void **state)
{
	struct bed *bed = *state;
	struct buffer *buffer = buffer_new(loop_buffers(bed->loop), 5000);

	assert_non_null(buffer);
	assert_int_equal(buffer_cache_busy(loop_buffers(bed->loop)), 1);
	buffer_put(buffer);
	assert_int_equal(buffer_cache_busy(loop_buffers(bed->loop)), 0);
}

const struct CMUnitTest loop_suite_core[] = {
	BED_TEST(test_timers_fire_in_order_of_deadline_then_of_starting),
	BED_TEST(test_timer_moves_when_started_again_and_never_fires_when_stopped),
	BED_TEST(test_timer_restarted_for_the_past_fires_once_per_turn_and_starves_nobody),
	BED_TEST(test_timer_heap_agrees_with_a_model),
	BED_TEST(test_hooks_run_by_phase_and_a_later_phase_in_the_same_turn),
	BED_TEST(test_hook_armed_for_an_earlier_phase_runs_in_the_next_turn),
	BED_TEST(test_complete_runs_later_and_once),
	BED_TEST(test_turn_runs_at_most_turn_max_completions_then_timers_and_hooks),
	BED_TEST(test_mail_arrives_in_order_and_can_be_sent_on_from_delivery),
	BED_TEST(test_mail_posted_to_itself_does_not_let_the_loop_sleep),
	BED_TEST(test_turn_without_work_ends_at_its_deadline_and_time_moves),
	BED_TEST(test_random_follows_the_seed),
	BED_TEST(test_run_returns_after_stop_also_when_stopped_before),
	BED_TEST(test_buffers_come_from_the_loop),
};
const size_t loop_suite_core_count = ARRAY_COUNT(loop_suite_core);
