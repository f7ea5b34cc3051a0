/*
 * One seed from its beginning to its end.
 *
 *   born --55 s of faults--> healing --all healthy--> checked --a clean stop--> over
 *
 * What fails ends the process with the seed. Everything is drawn from the seed: what the world does
 * from the world's own randomness, the course of the program from another, so that a change here
 * does not shift what a network does.
 */
#include "tests/sim/program.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/rule.h"
#include "lib/base/size.h"

#define FAULTS_NS  (55 * NS_PER_S)
#define HEALTHY_MS 30000
/* Who was sent away for being slow is filled after a minute, the second time after two. */
#define EXILE_MS 130000
#define TICK_NS	 (50 * NS_PER_MS)
/* 3 s are promised. What is known to take longer: docs/internals/simulator.md, Known. */
#define STALL_MAX_NS  (3 * NS_PER_S)
#define STORE_SMALL   (96 * MIB) /* the smallest that there is: large volumes fill it */
#define SINGLE_GAP_NS (2 * NS_PER_S)

uint64_t program_below(struct program *program, uint64_t bound)
{
	return random_below(&program->random, bound);
}

void program_trace(struct program *program, const char *format, ...)
{
	va_list args;

	if (!program->options.is_traced)
		return;
	(void)fprintf(stderr, "%10.6f ", (double)sim_now(program->herd->world) / 1e9);
	va_start(args, format);
	(void)vfprintf(stderr, format, args);
	va_end(args);
	(void)fputc('\n', stderr);
}

/* ---- what is watched all the time ---- */

static void note_losses(struct herd *herd, struct herd_node *node)
{
	struct program *program = herd->context;
	const struct cluster_pg *pg;

	for (uint32_t from = 0; (pg = cluster_pg_next(node->map, from)); from = pg->id + 1) {
		if (pg->id >= ARRAY_COUNT(program->loss_epochs) ||
		    pg->loss_epoch == program->loss_epochs[pg->id])
			continue;
		program->loss_epochs[pg->id] = pg->loss_epoch;
		program->has_lost = true;
		program_trace(program, "pg %u: loss epoch %llu", pg->id,
			      (unsigned long long)pg->loss_epoch);
		workload_note_loss(program->workload, pg->id);
	}
}

static void watch_stalls(struct program *program)
{
	uint64_t oldest = workload_oldest(program->workload);
	uint64_t now = sim_now(program->herd->world);

	if (!program->is_single || program->is_over || !oldest)
		return;
	program->figures->longest_stall_ns =
		max_of(program->figures->longest_stall_ns, now - oldest);
	if (now - oldest <= STALL_MAX_NS)
		return;
	workload_print_waiting(program->workload);
	herd_print(program->herd);
	herd_fail(program->herd, "a client stalls for more than 3 s under a single fault");
}

/* ---- nodes that leave for good ---- */

static bool has_seats(const struct cluster_map *map, uint32_t node)
{
	const struct cluster_pg *pg;

	for (uint32_t from = 0; (pg = cluster_pg_next(map, from)); from = pg->id + 1) {
		for (uint32_t i = 0; i < pg->isr_count; i++)
			if (cluster_store_node(map, pg->isr[i].store) == node)
				return true;
		for (uint32_t i = 0; i < pg->target_count; i++)
			if (cluster_store_node(map, pg->target[i]) == node)
				return true;
	}
	return false;
}

static void tick_leaving(struct program *program, unsigned number)
{
	struct herd_node *node = &program->herd->nodes[number];
	struct cluster_map *map = herd_map(program->herd);
	const struct cluster_node *row = map ? cluster_node_by_uuid(map, &node->uuid) : NULL;
	uint32_t id = row ? row->id : 0;

	if (!program->is_leaving[number] || program->is_removed[number] || !row ||
	    faults_has_node(program, number))
		return;
	if (node->is_up && !(row->flags & CLUSTER_NODE_DRAINING)) {
		herd_propose(program->herd, cluster_command_node_drain(id));
	} else if (!has_seats(map, id)) {
		if (node->is_up)
			(void)herd_try_stop(program->herd, number, 5000);
		program->is_removed[number] = true;
		herd_propose(program->herd, cluster_command_node_remove(id));
	}
}

/* ---- its course ---- */

/* What the bounds of the checks are made for. */
static const struct {
	enum cluster_setting_id id;
	const char *name;
	uint64_t value;
} settings[] = {
	{CLUSTER_SETTING_CLOSE_DELAY, "close_delay", 200},
	{CLUSTER_SETTING_POWER_LOSS_WAIT, "power_loss_wait", 2000},
};

/* Proposals get lost; an operator would look, and do it again. */
static void tick_settings(struct program *program)
{
	const struct cluster_map *map = herd_map(program->herd);

	if (program->is_set || !map)
		return;
	program->is_set = true;
	for (unsigned i = 0; i < ARRAY_COUNT(settings); i++) {
		if (cluster_setting(map, settings[i].id) == settings[i].value)
			continue;
		program->is_set = false;
		herd_propose(program->herd,
			     cluster_command_setting(settings[i].name, settings[i].value));
	}
}

static void tick(struct program *program)
{
	tick_settings(program);
	faults_tick(program);
	for (unsigned i = 0; i < program->herd->node_count; i++)
		tick_leaving(program, i);
	workload_tick(program->workload);
	watch_stalls(program);
}

static void run_until(struct program *program, uint64_t until_ns)
{
	while (sim_now(program->herd->world) < until_ns) {
		uint64_t now = sim_now(program->herd->world);
		uint64_t next = min_of(now + TICK_NS, until_ns);
		uint64_t end = max_of(faults_next_end(program), now + 1);

		next = min_of(next, end);
		(void)sim_world_run_until(program->herd->world, next, NULL, NULL);
		tick(program);
	}
}

static uint64_t gap_ns(struct program *program)
{
	uint64_t dice = program_below(program, 10);

	if (dice < 3) /* together, or one on the heels of another */
		return NS_PER_MS * program_below(program, 100);
	return NS_PER_MS * (200 + program_below(program, 8000));
}

static void wait_until_healthy(struct program *program, const char *what)
{
	uint64_t bound_ms =
		HEALTHY_MS + (HERD_COUNTER(program->herd, evictions) > 0 ? EXILE_MS : 0);
	uint64_t end_ns = sim_now(program->herd->world) + bound_ms * NS_PER_MS;

	while (!herd_is_healthy(program->herd) || !workload_is_settled(program->workload)) {
		if (sim_now(program->herd->world) >= end_ns) {
			workload_print_waiting(program->workload);
			herd_print(program->herd);
			herd_fail(program->herd, "not healthy within %u s %s",
				  (unsigned)(bound_ms / 1000), what);
		}
		run_until(program, sim_now(program->herd->world) + TICK_NS);
		faults_restart_failed(program);
	}
}

/* Some ways are longer than others, so that members differ when somebody dies. */
static void vary_delays(struct program *program)
{
	for (unsigned a = 0; a < program->herd->node_count; a++)
		for (unsigned b = 0; b < program->herd->node_count; b++) {
			uint64_t min = 20 * NS_PER_US + program_below(program, 2 * NS_PER_MS);
			if (a != b && program_below(program, 2))
				sim_link_set_delay(program->herd->nodes[a].host,
						   program->herd->nodes[b].host, min,
						   min + program_below(program, NS_PER_MS));
		}
}

/* One fault, its end, and health before the next. */
static void step_single(struct program *program)
{
	workload_burst(program->workload);
	run_until(program, sim_now(program->herd->world) + 20 * NS_PER_MS);
	if (!faults_begin(program)) {
		run_until(program, sim_now(program->herd->world) + 500 * NS_PER_MS);
		return;
	}
	while (program->fault_count)
		run_until(program, sim_now(program->herd->world) + TICK_NS);
	wait_until_healthy(program, "after a single fault");
	run_until(program, sim_now(program->herd->world) + SINGLE_GAP_NS);
}

static void cause_trouble(struct program *program)
{
	uint64_t end_ns = sim_now(program->herd->world) + FAULTS_NS;

	while (sim_now(program->herd->world) < end_ns) {
		if (program->is_single) {
			step_single(program);
			continue;
		}
		run_until(program, min_of(end_ns, sim_now(program->herd->world) + gap_ns(program)));
		workload_burst(program->workload);
		run_until(program, sim_now(program->herd->world) +
					   NS_PER_MS * (5 + program_below(program, 120)));
		for (unsigned i = 0; i < 5 && !faults_begin(program); i++)
			;
	}
}

/* ---- its end ---- */

static bool has_garbage(struct program *program, char *found, size_t size)
{
	for (unsigned n = 0; n < program->herd->node_count; n++) {
		struct herd_node *node = &program->herd->nodes[n];
		struct object_key cursor;
		uint32_t pg = 0;

		if (!node->is_up || store_is_failed(node->store))
			continue;
		for (; store_pg_next(node->store, pg, &pg); pg++) {
			struct store_object object;
			const struct object_key *after = NULL;
			while (store_object_next(node->store, pg, after, &object)) {
				if (!cluster_layer_is_live(node->map, object.key.layer)) {
					(void)snprintf(
						found, size,
						"%s: pg %u: object %llu.%u at version (%llu,%llu)%s",
						node->name, pg,
						(unsigned long long)object.key.layer,
						object.key.index,
						(unsigned long long)object.version.reign,
						(unsigned long long)object.version.n,
						object.is_missing ? ", missing" : "");
					return true;
				}
				cursor = object.key;
				after = &cursor;
			}
		}
	}
	return false;
}

static void wait_for_garbage(struct program *program)
{
	uint64_t end_ns = sim_now(program->herd->world) + HEALTHY_MS * NS_PER_MS;

	char found[128];

	while (has_garbage(program, found, sizeof(found))) {
		if (sim_now(program->herd->world) >= end_ns) {
			herd_print(program->herd);
			herd_fail(program->herd, "objects of deleted volumes are still there: %s",
				  found);
		}
		run_until(program, sim_now(program->herd->world) + TICK_NS);
	}
}

static void check_quiet(struct program *program)
{
	for (unsigned n = 0; n < program->herd->node_count; n++) {
		struct pg_status status;
		if (!program->herd->nodes[n].is_up)
			continue;
		for (uint32_t pg = 0; pg_set_status(program->herd->nodes[n].set, pg, 0, &status);
		     pg = status.pg + 1)
			if (status.in_flight || status.waiting)
				herd_fail(program->herd,
					  "%s: pg %u: %u in flight and %u waiting, with no client",
					  program->herd->nodes[n].name, status.pg, status.in_flight,
					  status.waiting);
	}
}

static void end(struct program *program)
{
	unsigned node = (unsigned)program_below(program, program->herd->node_count);

	program_trace(program, "all faults end");
	program->is_over = true;
	faults_heal(program);
	if (HERD_COUNTER(program->herd, evictions) > 0)
		workload_stop(program->workload); /* nothing else happens in these minutes */
	wait_until_healthy(program, "after all faults");
	run_until(program, sim_now(program->herd->world) + NS_PER_S);
	workload_stop(program->workload);
	program_trace(program, "the end: reading everything");
	workload_check(program->workload);
	wait_until_healthy(program, "at the end"); /* what was read may have been found broken */
	wait_for_garbage(program);
	herd_run(program->herd, 500);
	check_quiet(program);
	herd_compare_copies(program->herd);
	/* W2 repairs what should never have come about. */
	if (HERD_COUNTER(program->herd, diverged) > 0 && !program->herd->may_diverge)
		herd_fail(program->herd, "members in sync could not apply entries");
	if (HERD_COUNTER(program->herd, digest_mismatches) > 0 && !program->herd->may_diverge)
		herd_fail(program->herd, "digests of joining members differed");
	if (program->herd->nodes[node].is_up)
		herd_stop(program->herd, node);
}

/* ---- its beginning ---- */

static void failed(struct herd *herd, const char *text)
{
	(void)fprintf(stderr, "seed %llu FAILED: %s\n", (unsigned long long)herd->options.seed,
		      text);
	_Exit(1);
}

static void set_up(struct program *program, uint64_t seed, struct herd_options *options)
{
	program->node_count = 3 + (unsigned)program_below(program, 3);
	program->copies = 2 + (uint32_t)program_below(program, 2);
	program->min_insync = 1 + (uint32_t)program_below(program, program->copies);
	program->is_single = program_below(program, 4) == 0;
	if (program->is_single)
		program->min_insync = 1 + (uint32_t)program_below(program, program->copies - 1);
	program->victim = program->min_insync >= 2 && program_below(program, 2) == 0
				  ? (int)program_below(program, program->node_count)
				  : -1;
	program->lease_ms = program_below(program, 8) ? 1000 : 0;
	for (unsigned i = 0; i < FAULT_COUNT; i++)
		program->is_kind_on[i] = program_below(program, 100) < 55;
	program->is_kind_on[FAULT_STRIKE] = true;
	for (unsigned i = 0; i < FAULT_COUNT; i++)
		if (program->victim >= 0 && fault_table[i].flags & FAULT_OF_VICTIM)
			program->is_kind_on[i] = true;
	program->is_small = program->may_be_full = program_below(program, 8) == 0;
	*options = (struct herd_options){
		.seed = seed,
		.nodes = HERD_NODES_MAX,
		.late = HERD_NODES_MAX - program->node_count,
		.copies = program->copies,
		.min_insync = program->min_insync,
		.pg_count = 1u << program_below(program, 5),
		.store_bytes = program->may_be_full ? STORE_SMALL : 0,
		.compact_entries =
			program_below(program, 4) ? 0 : 2 + (uint32_t)program_below(program, 8),
		.future_max =
			program_below(program, 4) ? 0 : 2 + (uint32_t)program_below(program, 14),
		.is_bare = true,
		.is_quiet = true,
		.is_traced = program->options.is_traced,
	};
	for (unsigned i = 0; i < program->node_count; i++)
		program->was_added[i] = true;
}

static void begin(struct program *program)
{
	struct herd_options options;

	set_up(program, program->options.seed, &options);
	program->herd = herd_new(&options);
	program->herd->failed = failed;
	program->herd->has_no_notes = !program->is_single && program->options.seed % 4 == 3;
	program->herd->may_diverge = program->victim >= 0;
	program->workload = workload_new(program);
	program->herd->applied = note_losses;
	for (unsigned i = 0; i < ARRAY_COUNT(settings); i++)
		herd_propose(program->herd,
			     cluster_command_setting(settings[i].name, settings[i].value));
	while (cluster_setting(herd_map(program->herd), CLUSTER_SETTING_LEASE) !=
	       program->lease_ms) {
		herd_propose(program->herd, cluster_command_setting("lease", program->lease_ms));
		herd_run(program->herd, 50);
	}
	program_trace(program, "%u nodes, %u copies, %u in sync, %u groups%s", program->node_count,
		      program->copies, program->min_insync, options.pg_count,
		      program->is_single ? ", single faults" : "");
	wait_until_healthy(program, "at the beginning");
	if (program_below(program, 2))
		vary_delays(program);
	workload_start(program->workload);
}

static void take_figures(struct program *program)
{
	struct program_figures *figures = program->figures;

	figures->operations += workload_operations(program->workload);
	figures->events += sim_world_events(program->herd->world);
	figures->trace = sim_world_trace(program->herd->world);
	figures->virtual_ns += sim_now(program->herd->world) - 1000 * NS_PER_S;
	for (uint32_t i = 0; i < pg_counter_count; i++) {
		uint32_t at = pg_counter_table[i].offset;
		*(uint64_t *)(void *)((char *)&figures->pg + at) += herd_counter(program->herd, at);
	}
}

static void on_point(enum sim_point point)
{
	strike_on_point(point);
	coup_on_point(point);
}

void program_run(const struct program_options *options, struct program_figures *figures)
{
	struct program program = {.options = *options, .figures = figures};

	sim_point_hook = on_point;
	program.strike.killed = program.coup.killed = -1;
	random_init(&program.random, options->seed ^ 0x5eed5eed5eed5eed);
	rule_switch_all_on();
	if (options->mutation)
		(void)rule_switch_off(options->mutation);
	begin(&program);
	cause_trouble(&program);
	end(&program);
	take_figures(&program);
	herd_free(program.herd);
	workload_free(program.workload);
}
