/* The simulated engine against the conformance suite, in virtual time, with several seeds. */
#include <stdio.h>

#include "tests/engine/bed.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_engine.h"

#define TURN_NS NS_PER_MS

static uint64_t seed;

struct world {
	struct sim_world *world;
	struct sim_log *log;
	struct sim_host *hosts[BED_MEMBERS];
};

static uint64_t now(struct bed *bed)
{
	return sim_now(((struct world *)bed->world)->world);
}

static void turn(struct bed *bed)
{
	(void)sim_world_run_until(((struct world *)bed->world)->world, now(bed) + TURN_NS, NULL,
				  NULL);
}

static int open_member(struct bed *bed, struct member *member, const struct engine_options *options,
		       const struct engine_callbacks *callbacks, struct error *err)
{
	struct world *world = bed->world;

	if (!member->loop)
		assert_int_equal(sim_loop_new(world->world, world->hosts[member->number],
					      &(struct loop_options){.name = "member"},
					      &member->loop),
				 0);
	return sim_engine_open(world->log, member->loop, options, callbacks, member,
			       &member->engine, err);
}

static void crash_as(struct member *member, enum sim_death death)
{
	struct world *world = member->bed->world;

	sim_engine_crash(member->engine, death);
	sim_host_crash(world->hosts[member->number]);
	member->engine = NULL;
	member->loop = NULL;
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
	sim_log_confirm_death(((struct world *)bed->world)->log, &member->node, member->start);
}

static void set_quorum(struct bed *bed, bool has_quorum)
{
	sim_log_set_quorum(((struct world *)bed->world)->log, has_quorum);
}

static void set_stopped(struct bed *bed, struct member *member, bool is_stopped)
{
	sim_engine_set_cut(member->engine, is_stopped);
}

int bed_setup(void **state)
{
	static const char *const names[BED_MEMBERS] = {"a", "b", "c", "d", "e", "f"};
	struct bed *bed = bed_new();
	struct world *world = calloc(1, sizeof(*world));

	world->world = sim_world_new(seed);
	world->log = sim_log_new(&(struct sim_log_options){
		.seed = seed,
		.delay_min_ns = NS_PER_MS / 10,
		.delay_max_ns = 20 * NS_PER_MS,
		.loss_ppm = 20000,
		.repeat_ppm = 20000,
		.skip_ppm = 50000,
		.compact_entries = 100,
	});
	for (unsigned n = 0; n < BED_MEMBERS; n++)
		world->hosts[n] = sim_host_new(world->world, names[n]);
	bed->world = world;
	bed->turn = turn;
	bed->now = now;
	bed->open = open_member;
	bed->crash = crash;
	bed->crash_quietly = crash_quietly;
	bed->confirm = confirm;
	bed->set_quorum = set_quorum;
	bed->set_stopped = set_stopped;
	*state = bed;
	return 0;
}

int bed_teardown(void **state)
{
	struct bed *bed = *state;
	struct world *world = bed->world;

	bed_stop_all(bed);
	for (unsigned n = 0; n < BED_MEMBERS; n++)
		loop_free(bed->members[n].loop);
	sim_log_free(world->log);
	sim_world_free(world->world);
	free(world);
	bed_free(bed);
	return 0;
}

int main(void)
{
	unsigned seeds = bed_scaled(100);
	char name[64];
	int rc = 0;

	for (seed = 1; seed <= seeds && rc == 0; seed++) {
		(void)snprintf(name, sizeof(name), "engine: simulated, seed %u", (unsigned)seed);
		rc = run_conformance(name);
	}
	return rc;
}
