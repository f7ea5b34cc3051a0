/*
 * The time in which the loop ran. What others have not done in the meantime is held against them by this one: a
 * process that was stopped, or a machine that was suspended, finds that nobody did anything, and has itself not read what
 * they did. A while in which the loop did not run counts as two looks, and for WAKE_NS after it nothing is decided that
 * the map of before might have wrong.
 */
#include "sheep/pg/pg_priv.h"

#define LOOK_NS NS_PER_S
#define MOST_NS (2 * LOOK_NS)
#define WAKE_NS (5 * NS_PER_S)

static uint64_t passed_ns(const struct pg_set *set)
{
	return loop_now(set->loop) - set->awake.seen_ns;
}

uint64_t pg_awake_ns(const struct pg_set *set)
{
	return set->awake.ran_ns + min_of(passed_ns(set), MOST_NS);
}

bool pg_awake_was_paused(const struct pg_set *set)
{
	const struct pg_awake *awake = &set->awake;

	return passed_ns(set) > MOST_NS ||
	       (awake->paused_ns && pg_awake_ns(set) - awake->paused_ns < WAKE_NS);
}

static void look(struct pg_set *set)
{
	struct pg_awake *awake = &set->awake;
	bool was_paused = passed_ns(set) > MOST_NS;

	awake->ran_ns = pg_awake_ns(set);
	awake->seen_ns = loop_now(set->loop);
	if (was_paused)
		awake->paused_ns = awake->ran_ns;
	loop_timer_start(set->loop, &awake->timer, awake->seen_ns + LOOK_NS);
}

static void on_look(struct loop_timer *timer)
{
	look(container_of_type(timer, struct pg_set, awake.timer));
}

void pg_awake_start(struct pg_set *set)
{
	if (set->is_stopping || loop_timer_is_armed(&set->awake.timer))
		return;
	set->awake.timer.fire = on_look;
	set->awake.seen_ns = loop_now(set->loop);
	loop_timer_start(set->loop, &set->awake.timer, set->awake.seen_ns + LOOK_NS);
}
