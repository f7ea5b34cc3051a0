/* The simulated engine against the conformance suite. */
#include <stdio.h>

#include "tests/engine/bed.h"
#include "tests/sim/sim_engine.h"

#define TURN_NS (NS_PER_MS / 10)

static uint64_t now(struct bed *bed)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void turn(struct bed *bed)
{
	for (unsigned n = 0; n < BED_MEMBERS; n++) {
		struct member *member = &bed->members[n];

		if (member->loop && !member->is_stopped)
			assert_int_equal(loop_turn(member->loop, now(bed) + TURN_NS), 0);
	}
}

static int open_member(struct bed *bed, struct member *member, const struct engine_options *options,
		       const struct engine_callbacks *callbacks, struct error *err)
{
	if (!member->loop)
		assert_int_equal(
			loop_new(&(struct loop_options){.name = "member"}, &member->loop, err), 0);
	return sim_engine_open(bed->world, member->loop, options, callbacks, member,
			       &member->engine, err);
}

static void crash_as(struct member *member, enum sim_death death)
{
	sim_engine_crash(member->engine, death);
	member->engine = NULL;
}

static void crash(struct bed *bed, struct member *member)
{
	crash_as(member, SIM_DEATH_CERTAIN);
}

static void crash_quietly(struct bed *bed, struct member *member)
{
	crash_as(member, SIM_DEATH_UNKNOWN);
}

static void confirm(struct bed *bed, struct member *member)
{
	sim_log_confirm_death(bed->world, &member->node, member->start);
}

static void set_quorum(struct bed *bed, bool has_quorum)
{
	sim_log_set_quorum(bed->world, has_quorum);
}

int bed_setup(void **state)
{
	struct bed *bed = bed_new();

	bed->world = sim_log_new(&(struct sim_log_options){
		.seed = 1,
		.delay_max_ns = NS_PER_MS,
		.loss_ppm = 20000,
		.repeat_ppm = 20000,
		.skip_ppm = 50000,
		.compact_entries = 100,
	});
	bed->ask_again_ns = 20 * NS_PER_MS;
	bed->turn = turn;
	bed->now = now;
	bed->open = open_member;
	bed->crash = crash;
	bed->crash_quietly = crash_quietly;
	bed->confirm = confirm;
	bed->set_quorum = set_quorum;
	*state = bed;
	return 0;
}

int bed_teardown(void **state)
{
	struct bed *bed = *state;

	bed_stop_all(bed);
	for (unsigned n = 0; n < BED_MEMBERS; n++)
		loop_free(bed->members[n].loop);
	sim_log_free(bed->world);
	bed_free(bed);
	return 0;
}

int main(void)
{
	return run_conformance("engine: simulated");
}
