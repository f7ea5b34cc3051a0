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

/* ---- what only this engine can do ---- */

static struct sim_log *log_of(struct bed *bed)
{
	return ((struct world *)bed->world)->log;
}

/* A simulator that is kinder than the contract hides faults of those who use it. */
static void test_all_that_the_contract_allows_happens(void **state)
{
	struct bed *bed = *state;
	uint64_t asked = 0, there = 0, installs = 0;

	bed->ask_again_ns = BED_TIMEOUT_NS;
	bed_start_all(bed, 3);
	for (unsigned n = 0; n < 3; n++)
		bed_propose(bed, n, 500);
	BED_NEVER(bed, 5 * NS_PER_S, false);
	for (unsigned n = 0; n < 3; n++)
		asked += bed->members[n].proposed;
	assert_int_equal(bed->members[0].index, sim_log_last_index(log_of(bed)));
	assert_true(sim_log_last_index(log_of(bed)) > sim_log_count(log_of(bed))); /* skipped */
	for (unsigned n = 0; n < 3; n++) {
		struct member *member = &bed->members[n];

		for (uint32_t i = 0; i < member->proposed; i++)
			there += bed->commits[n][i] != 0;
		installs += member->installs;
	}
	assert_true(there < asked);			 /* lost */
	assert_true(sim_log_count(log_of(bed)) > there); /* repeated */
	assert_true(installs > 0);
}

static void test_who_is_cut_off_has_no_quorum_and_catches_up(void **state)
{
	struct bed *bed = *state;
	struct member *cut = &bed->members[1], *victim = &bed->members[2];
	uint64_t index, start = 1;

	bed_start_all(bed, 3);
	BED_UNTIL(bed, cut->has_quorum);
	bed_set_stopped(bed, 1, true);
	BED_UNTIL(bed, !cut->has_quorum && cut->live == BIT(1));
	BED_UNTIL(bed, !(bed->members[0].live & BIT(1)));
	index = cut->index;
	bed_propose(bed, 1, 10);
	start = victim->start;
	bed_crash(bed, 2);
	bed_propose(bed, 0, 300); /* it has to be given an image */
	BED_UNTIL(bed, bed_is_settled(bed));
	BED_UNTIL(bed, member_knows_end(&bed->members[0], victim, start, ENGINE_END_DIED));
	assert_int_equal(cut->index, index);
	assert_false(member_knows_end(cut, victim, start, ENGINE_END_DIED));
	bed_set_stopped(bed, 1, false);
	BED_UNTIL(bed, cut->has_quorum && bed_is_settled(bed));
	BED_UNTIL(bed, member_knows_end(cut, victim, start, ENGINE_END_DIED));
	assert_true(cut->installs >= 1);
	assert_int_equal(bed->members[0].end_count, 1); /* the cut was no end */
}

static void test_silent_death_changes_nothing(void **state)
{
	struct bed *bed = *state;
	struct member *victim = &bed->members[1];

	bed_start_all(bed, 2);
	crash_as(victim, SIM_DEATH_SILENT);
	BED_NEVER(bed, NS_PER_S, bed->members[0].end_count || bed->members[0].live != 3);
	confirm(bed, victim);
	BED_UNTIL(bed, bed->members[0].end_count == 1 && bed->members[0].live == 1);
}

static void test_engine_that_fails_says_so_and_can_be_left(void **state)
{
	struct bed *bed = *state;
	struct member *member = &bed->members[1];

	bed_start_all(bed, 2);
	sim_engine_fail(member->engine, "the test wants it");
	BED_UNTIL(bed, member->has_failed);
	assert_non_null(strstr(member->failure.text, "the test wants it"));
	assert_int_equal(engine_propose(member->engine, "12345678", 8), -E_SHUTDOWN);
	bed_propose(bed, 0, 10);
	BED_UNTIL(bed, bed->members[0].settled == 10);
	bed_leave(bed, 1);
	bed_start_all(bed, 2);
	BED_UNTIL(bed, bed_is_settled(bed));
}

/* The same seed and the same wishes: the same run, to the last event. */
static void test_seed_replays(void **state)
{
	uint64_t trace[2], events[2];
	void *inner;

	for (int i = 0; i < 2; i++) {
		struct bed *bed;
		struct world *world;

		bed_setup(&inner);
		bed = inner;
		world = bed->world;
		bed_start_all(bed, 3);
		for (unsigned n = 0; n < 3; n++)
			bed_propose(bed, n, 50);
		bed_crash(bed, 1);
		bed_start(bed, 1);
		BED_UNTIL(bed, bed_is_settled(bed));
		trace[i] = sim_world_trace(world->world);
		events[i] = sim_world_events(world->world);
		bed_teardown(&inner);
	}
	assert_int_equal(events[0], events[1]);
	assert_int_equal(trace[0], trace[1]);
}

static int run_own(void)
{
	const struct CMUnitTest tests[] = {
		BED_TEST(test_all_that_the_contract_allows_happens),
		BED_TEST(test_who_is_cut_off_has_no_quorum_and_catches_up),
		BED_TEST(test_silent_death_changes_nothing),
		BED_TEST(test_engine_that_fails_says_so_and_can_be_left),
		cmocka_unit_test(test_seed_replays),
	};

	return cmocka_run_group_tests_name("engine: simulated, itself", tests, NULL, NULL);
}

int main(void)
{
	unsigned seeds = bed_scaled(100);
	char name[64];
	int rc = 0;

	for (seed = 1; seed <= seeds && rc == 0; seed++) {
		(void)snprintf(name, sizeof(name), "engine: simulated, seed %u", (unsigned)seed);
		rc = run_conformance(name);
		if (rc == 0)
			rc = run_own();
	}
	return rc;
}
