/*
 * A random program: some nodes, some load, a fault every few moments, some of them at once; then all faults end, and within
 * a bound everybody must have everything.
 *
 * A disk is replaced only where the copies that are left decide alone: a majority of the voters, of what
 * the others' disks have.
 */
#include "tests/sim/agree_program.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/log.h"

#define FAULTS_MAX 32

struct program {
	struct world *world;
	struct random *random;
	bool is_traced, may_blank, was_granted;
	unsigned blanked; /* node + 1 whose disk was replaced */
	/* CPG or its links were lost: not both of a live one at a time. */
	uint64_t lost_ns[SIM_CPG_NODES];
	unsigned weights[FAULTS_MAX];
};

static uint64_t below(struct program *program, uint64_t bound)
{
	return random_below(program->random, bound);
}

__attribute__((format(printf, 2, 3))) static void note(struct program *program, const char *format,
						       ...)
{
	va_list arguments;

	if (!program->is_traced)
		return;
	va_start(arguments, format);
	fprintf(stderr, "%.6f ", (double)sim_cpg_now(program->world->sim) / 1e9);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
}

static struct user *any_user(struct program *program)
{
	return &program->world->users[below(program, program->world->nodes)];
}

/* ---- faults ---- */

static void fault_kill(struct program *program)
{
	struct user *user = any_user(program);

	note(program, "kill %u", user->number);
	user_kill(user, below(program, 4) != 0);
}

static void fault_kill_many(struct program *program)
{
	note(program, "kill many");
	for (unsigned n = 0; n < program->world->nodes; n++)
		if (below(program, 3))
			user_kill(&program->world->users[n], below(program, 2));
}

static void fault_power(struct program *program)
{
	struct user *user = any_user(program);

	note(program, "power cut %u", user->number);
	user_power_cut(user);
}

static void fault_power_all(struct program *program)
{
	note(program, "power cut of all");
	for (unsigned n = 0; n < program->world->nodes; n++)
		user_power_cut(&program->world->users[n]);
}

static void fault_daemon(struct program *program)
{
	unsigned node = (unsigned)below(program, program->world->nodes);

	note(program, "daemon %u %s", node,
	     sim_cpg_daemon_is_up(program->world->sim, node) ? "stops" : "starts");
	sim_cpg_set_daemon(program->world->sim, node,
			   !sim_cpg_daemon_is_up(program->world->sim, node));
}

static void fault_start(struct program *program)
{
	struct user *user = any_user(program);

	if (user->core)
		return;
	note(program, "start %u", user->number);
	sim_cpg_set_daemon(program->world->sim, user->number, true);
	(void)user_start(user);
}

static void fault_leave(struct program *program)
{
	struct user *user = any_user(program);

	note(program, "leave %u", user->number);
	user_leave(user);
}

static void fault_partition(struct program *program)
{
	uint8_t groups[SIM_CPG_NODES];

	for (unsigned n = 0; n < SIM_CPG_NODES; n++)
		groups[n] = (uint8_t)below(program, 1 + below(program, 3));
	note(program, "partition %u%u%u%u%u", groups[0], groups[1], groups[2], groups[3],
	     groups[4]);
	sim_cpg_partition(program->world->sim, groups);
}

static void fault_heal(struct program *program)
{
	note(program, "heal");
	sim_cpg_heal(program->world->sim);
}

/* One node is alone for some microseconds. */
static void fault_flap(struct program *program)
{
	uint8_t groups[SIM_CPG_NODES] = {0};

	note(program, "flap");
	groups[below(program, program->world->nodes)] = 1;
	sim_cpg_partition(program->world->sim, groups);
	(void)world_run(program->world, below(program, 2 * NS_PER_MS), NULL, NULL);
	sim_cpg_heal(program->world->sim);
}

static void fault_pause(struct program *program)
{
	struct user *user = any_user(program);

	note(program, "pause %u", user->number);
	sim_cpg_set_paused(program->world->sim, user->number, true);
}

static void fault_resume(struct program *program)
{
	for (unsigned n = 0; n < program->world->nodes; n++)
		sim_cpg_set_paused(program->world->sim, n, false);
}

static bool may_lose(struct program *program, const struct user *user)
{
	uint64_t now = sim_cpg_now(program->world->sim);

	if (program->lost_ns[user->number] + 3 * NS_PER_S > now)
		return false;
	program->lost_ns[user->number] = now;
	return true;
}

static void fault_lose(struct program *program)
{
	struct user *user = any_user(program);

	if (!may_lose(program, user))
		return;
	note(program, "CPG loses %u", user->number);
	sim_cpg_lose(program->world->sim, user->number);
}

static void fault_links(struct program *program)
{
	struct user *user = any_user(program);

	if (!may_lose(program, user))
		return;
	note(program, "links of %u close", user->number);
	sim_cpg_flap_links(program->world->sim, user->number);
}

static void fault_hang(struct program *program)
{
	struct user *user = any_user(program);

	note(program, "disk %u hangs", user->number);
	sim_cpg_hang_disk(program->world->sim, user->number, true);
}

static void fault_unhang(struct program *program)
{
	for (unsigned n = 0; n < program->world->nodes; n++)
		sim_cpg_hang_disk(program->world->sim, n, false);
}

static void fault_deny(struct program *program)
{
	bool is_denied = below(program, 2);

	note(program, "votequorum %s", is_denied ? "says no" : "is true");
	sim_cpg_deny_quorum(program->world->sim, is_denied);
}

static void fault_grant(struct program *program)
{
	bool is_granted = below(program, 2);

	/* Quorums that are none can make two first logs, and so can one without the disk that had it. */
	for (unsigned n = 0; n < program->world->nodes; n++)
		if (!program->world->users[n].was_ready)
			return;
	if (program->blanked)
		return;
	program->was_granted |= is_granted;
	note(program, "votequorum %s", is_granted ? "says yes" : "is true");
	sim_cpg_grant_quorum(program->world->sim, is_granted);
}

/* The copies of all others are a majority of at least three voters, on each of those that runs. */
static bool can_do_without(struct program *program, const struct user *user)
{
	struct world *world = program->world;
	unsigned sure = 0;

	for (unsigned n = 0; n < world->nodes; n++) {
		struct agree_stats stats;

		if (!world->users[n].core || &world->users[n] == user || !world->users[n].is_ready)
			continue;
		agree_stats_get(world->users[n].core, &stats);
		sure += stats.voters == world->nodes && world->users[n].index == world->last;
	}
	return world->nodes >= 3 && sure >= world->nodes - 1;
}

static void fault_blank(struct program *program)
{
	struct user *user = any_user(program);

	if (program->blanked || !program->may_blank || program->was_granted ||
	    !can_do_without(program, user))
		return;
	note(program, "disk %u is replaced", user->number);
	program->blanked = user->number + 1;
	user_power_cut(user);
	user->is_blanked = true;
	sim_cpg_blank_disk(program->world->sim, user->number);
}

/* How often, and whether it ends others: those are never left out. */
static const struct {
	unsigned weight;
	bool is_cure;
	void (*strike)(struct program *program);
} faults[] = {
	{10, false, fault_kill},      {1, false, fault_kill_many}, {6, false, fault_power},
	{1, false, fault_power_all},  {5, false, fault_daemon},	   {4, false, fault_leave},
	{16, false, fault_partition}, {8, false, fault_flap},	   {4, false, fault_pause},
	{3, false, fault_lose},	      {2, false, fault_links},	   {3, false, fault_hang},
	{2, false, fault_deny},	      {1, false, fault_grant},	   {4, false, fault_blank},
	{60, true, fault_start},      {20, true, fault_heal},	   {10, true, fault_resume},
	{8, true, fault_unhang},
};

/* Each seed has its own mixture: some faults only, some of them often. */
static void mix(struct program *program)
{
	static const unsigned factors[] = {0, 0, 1, 1, 2, 5};

	for (size_t i = 0; i < ARRAY_COUNT(faults); i++) {
		unsigned factor = factors[below(program, ARRAY_COUNT(factors))];

		program->weights[i] = faults[i].weight * (faults[i].is_cure ? 2 : factor);
	}
}

static void strike(struct program *program)
{
	unsigned sum = 0;
	uint64_t at;

	for (size_t i = 0; i < ARRAY_COUNT(faults); i++)
		sum += program->weights[i];
	at = below(program, sum);
	for (size_t i = 0; i < ARRAY_COUNT(faults); i++) {
		if (at < program->weights[i]) {
			faults[i].strike(program);
			return;
		}
		at -= program->weights[i];
	}
}

/* ---- a run ---- */

static void load(struct program *program)
{
	uint32_t size = (uint32_t)below(program, 400);
	struct user *user = any_user(program);
	uint64_t count = below(program, 20) ? 1 + below(program, 3) : below(program, 60);

	if (below(program, 100) == 0)
		size = (uint32_t)below(program, 200000);
	while (count--)
		(void)user_propose(user, size);
}

static void end_faults(struct program *program)
{
	struct sim_cpg *sim = program->world->sim;

	note(program, "faults end");
	sim_cpg_deny_quorum(sim, false);
	sim_cpg_grant_quorum(sim, false);
	fault_resume(program);
	fault_unhang(program);
	sim_cpg_heal(sim);
	user_start_all(program->world);
	/* Who was leaving leaves, and starts again. */
	(void)world_run(program->world, 3 * NS_PER_S, NULL, NULL);
	user_start_all(program->world);
}

static void measure(struct world *world, struct program_result *out)
{
	for (unsigned n = 0; n < world->nodes; n++) {
		struct agree_stats stats;

		if (!world->users[n].core)
			continue;
		agree_stats_get(world->users[n].core, &stats);
		out->elections += stats.elections;
		out->images += stats.images_taken;
		for (unsigned i = 0; i < WORLD_STARTS_MAX; i++)
			out->ends += world->users[n].told[i];
	}
	out->commits = world->commits;
	out->trace = sim_cpg_trace(world->sim);
	out->is_void = world->is_void;
	out->has_failed = world->has_failed;
	memcpy(out->why, world->why, sizeof(out->why));
}

void agree_program(uint64_t seed, bool is_traced, struct program_result *out)
{
	struct random random;
	struct program program = {.random = &random, .is_traced = is_traced};
	struct sim_cpg_options options = {.seed = seed};
	struct world *world;
	uint64_t steps, pace, step_ns = 20 * NS_PER_MS;

	random_init(&random, seed * 7919 + 13);
	options.nodes = 1 + (unsigned)below(&program, 5);
	if (options.nodes < 3)
		options.nodes = 3 + (unsigned)below(&program, 2) * (options.nodes - 1);
	if (below(&program, 20) == 0)
		options.nodes = 1 + (unsigned)below(&program, 2);
	options.again_percent = below(&program, 2) ? 0 : (unsigned)below(&program, 60);
	options.write_max_ns = (1 + below(&program, 10)) * NS_PER_MS;
	if (below(&program, 6) == 0) { /* syncs that outlive the rounds of an election */
		options.write_max_ns = (1 + below(&program, 7)) * 100 * NS_PER_MS;
		step_ns = (20 + below(&program, 200)) * NS_PER_MS;
	}
	world = world_new(&options);
	world->compact_bytes = below(&program, 3) ? 500 + below(&program, 8000) : 0;
	program.world = world;
	program.may_blank = below(&program, 2);
	*out = (struct program_result){0};
	for (unsigned n = 0; n < world->nodes; n++)
		if (below(&program, 4))
			(void)user_start(&world->users[n]);
	steps = 100 + below(&program, 300);
	pace = 1 + below(&program, below(&program, 2) ? 5 : 30);
	mix(&program);
	for (uint64_t i = 0; i < steps && !world->has_failed && !world->is_void; i++) {
		if (below(&program, pace) == 0)
			strike(&program);
		load(&program);
		(void)world_run(world, below(&program, step_ns), NULL, NULL);
	}
	if (!world->has_failed && !world->is_void)
		end_faults(&program);
	world_settle(world, 60 * NS_PER_S);
	for (unsigned n = 0; n < world->nodes; n++)
		(void)user_propose(&world->users[n], 100);
	world_settle(world, 20 * NS_PER_S);
	measure(world, out);
	world_free(world);
}
