#include "tests/sim/herd_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/assert.h"
#include "lib/base/rule.h"
#include "lib/base/size.h"

struct pg_counters herd_totals;

#ifdef HAVE_SANITIZERS
/* Crashes leave memory behind, that is their nature; herd_stop() looks for leaks by itself. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}
#endif

/* ---- logging ---- */

static void sink(struct logger *logger, enum log_level level, const char *line)
{
	const struct herd_node *node = logger->context;

	if (!getenv("TEST_LOG") && !(node && node->herd->options.is_traced))
		return;
	if (!node) { /* outside of any loop */
		log_sink_text(logger, level, line);
		return;
	}
	(void)fprintf(stderr, "%10.6f %s %s: %s\n",
		      (double)sim_now(node->herd->world) / (double)NS_PER_S, node->name,
		      log_level_name(level), line);
}

/* ---- looking ---- */

struct cluster_map *herd_map(struct herd *herd)
{
	struct cluster_map *best = NULL;

	for (unsigned i = 0; i < herd->node_count; i++)
		if (herd->nodes[i].is_up &&
		    (!best || cluster_index(herd->nodes[i].map) > cluster_index(best)))
			best = herd->nodes[i].map;
	return best;
}

bool herd_is_healthy(struct herd *herd)
{
	struct cluster_summary summary;
	struct cluster_map *map = herd_map(herd);

	if (!map || !cluster_is_formatted(map))
		return false;
	cluster_summary(map, &summary);
	if (summary.pgs[CLUSTER_HEALTHY] != summary.pgs_total || summary.pgs_total == 0)
		return false;
	for (unsigned i = 0; i < herd->node_count; i++) {
		struct herd_node *node = &herd->nodes[i];
		if (node->is_up &&
		    (cluster_index(node->map) != cluster_index(map) || !node->session))
			return false;
	}
	return true;
}

int herd_primary(struct herd *herd, uint32_t pg)
{
	struct cluster_map *map = herd_map(herd);
	const struct cluster_pg *row = cluster_pg(map, pg);
	uint32_t node = row ? cluster_pg_primary_node(map, row) : 0;

	for (unsigned i = 0; i < herd->node_count; i++)
		if (herd->nodes[i].is_up && herd->nodes[i].id == node && node)
			return (int)i;
	return -1;
}

uint64_t herd_counter(struct herd *herd, size_t offset)
{
	uint64_t sum = *(const uint64_t *)(const void *)((const char *)&herd->past + offset);

	for (unsigned i = 0; i < herd->node_count; i++)
		if (herd->nodes[i].is_up)
			sum += *(const uint64_t *)(const void *)((const char *)pg_set_counters(
									 herd->nodes[i].set) +
								 offset);
	return sum;
}

struct until {
	struct herd *herd;
	bool (*is_done)(struct herd *herd);
};

static bool is_done(void *context)
{
	struct until *until = context;

	return until->is_done(until->herd);
}

void herd_fail(struct herd *herd, const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	(void)fprintf(stderr, "seed %llu at %.6f: %s\n", (unsigned long long)herd->options.seed,
		      (double)sim_now(herd->world) / (double)NS_PER_S, text);
	if (herd->failed)
		herd->failed(herd, text);
	fail();
	abort();
}

void herd_print(struct herd *herd)
{
	struct cluster_map *map = herd_map(herd);

	for (uint32_t from = 0; map;) {
		const struct cluster_pg *row = cluster_pg_next(map, from);
		if (!row)
			break;
		from = row->id + 1;
		(void)fprintf(stderr, "pg %u epoch %llu reign %llu primary %u isr", row->id,
			      (unsigned long long)row->epoch, (unsigned long long)row->reign,
			      row->primary);
		for (uint32_t i = 0; i < row->isr_count; i++)
			(void)fprintf(stderr, " %u/%x", row->isr[i].store, row->isr[i].flags);
		(void)fprintf(stderr, " joining");
		for (uint32_t i = 0; i < row->join_count; i++)
			(void)fprintf(stderr, " %u@%llu", row->joining[i].store,
				      (unsigned long long)row->joining[i].index);
		(void)fprintf(stderr, "\n");
	}
	for (unsigned i = 0; i < herd->node_count; i++) {
		struct pg_status status;
		if (!herd->nodes[i].is_up)
			continue;
		(void)fprintf(stderr, "%s: map %llu store %u\n", herd->nodes[i].name,
			      (unsigned long long)cluster_index(herd->nodes[i].map),
			      herd->nodes[i].store_id);
		for (uint32_t pg = 0; pg_set_status(herd->nodes[i].set, pg, 0, &status);
		     pg = status.pg + 1)
			(void)fprintf(stderr,
				      "  pg %u role %d %s epoch %llu in flight %u waiting %u "
				      "missing %u\n",
				      status.pg, status.role, status.state,
				      (unsigned long long)status.epoch, status.in_flight,
				      status.waiting, status.missing);
	}
}

void herd_until_so(struct herd *herd, uint64_t ms, bool (*is_so)(void *context), void *context,
		   const char *what)
{
	if (sim_world_run_until(herd->world, sim_now(herd->world) + ms * NS_PER_MS, is_so, context))
		return;
	herd_print(herd);
	herd_fail(herd, "not %s within %llu ms", what, (unsigned long long)ms);
}

void herd_until(struct herd *herd, uint64_t ms, bool (*done)(struct herd *herd), const char *what)
{
	struct until until = {.herd = herd, .is_done = done};

	herd_until_so(herd, ms, is_done, &until, what);
}

void herd_run(struct herd *herd, uint64_t ms)
{
	(void)sim_world_run_until(herd->world, sim_now(herd->world) + ms * NS_PER_MS, NULL, NULL);
}

/* ---- a cluster ---- */

void herd_propose(struct herd *herd, struct cluster_command *command)
{
	for (unsigned i = 0; i < herd->node_count; i++)
		if (herd->nodes[i].is_up) {
			herd_propose_by(&herd->nodes[i], command);
			return;
		}
}

static bool all_registered(struct herd *herd)
{
	for (unsigned i = 0; i < herd->node_count; i++)
		if (herd->nodes[i].is_up && !herd->nodes[i].store_id)
			return false;
	return true;
}

static bool is_formatted(struct herd *herd)
{
	return cluster_is_formatted(herd_map(herd));
}

static bool has_volume(struct herd *herd)
{
	for (unsigned i = 0; i < herd->node_count; i++)
		if (herd->nodes[i].is_up &&
		    !cluster_volume_by_name(herd->nodes[i].map, HERD_VOLUME))
			return false;
	return true;
}

static bool all_open(struct herd *herd)
{
	for (unsigned i = 0; i < herd->node_count; i++)
		if (herd->nodes[i].is_up && !herd->nodes[i].volume)
			return false;
	return true;
}

static void node_init(struct herd *herd, unsigned number)
{
	struct herd_node *node = &herd->nodes[number];

	node->herd = herd;
	node->number = number;
	(void)snprintf(node->name, sizeof(node->name), "n%u", number);
	node->uuid = uuid_make(sim_random(herd->world));
	node->logger = (struct logger){.level = herd->options.is_quiet && !herd->options.is_traced
							? LOG_LEVEL_ERROR
							: LOG_LEVEL_DEBUG,
				       .sink = sink,
				       .context = node};
	node->host = sim_host_new(herd->world, node->name);
	(void)snprintf(node->address, sizeof(node->address), "%s:7000",
		       sim_host_address(node->host));
}

#ifdef SHEEPFOLD_MUTATIONS
/* TEST_MUTATE: a rule that is switched off in programs that know none of that. */
static void mutate(void)
{
	const char *rule = getenv("TEST_MUTATE");

	if (rule && !rule_switch_off(rule))
		exit(2);
}
#else
static void mutate(void)
{
}
#endif

struct herd *herd_new(const struct herd_options *options)
{
	/* The load writes through all gateways at a time. */
	const struct cluster_property shared = {.key = "access", .value = "shared"};
	static struct logger outside = {.level = LOG_LEVEL_DEBUG, .sink = sink};
	struct herd *herd = calloc(1, sizeof(*herd));
	const struct sim_log_options log = {
		.seed = options->seed,
		.delay_min_ns = 200 * NS_PER_US,
		.delay_max_ns = 5 * NS_PER_MS,
		.loss_ppm = 50000,
		.repeat_ppm = 50000,
		.skip_ppm = 50000,
		.compact_entries = options->compact_entries ? options->compact_entries : 200,
	};

	mutate();
	(void)log_set_current(&outside);
	herd_judge_losses(herd);
	herd->options = *options;
	if (!herd->options.store_bytes)
		herd->options.store_bytes = 128 * MIB;
	herd->world = sim_world_new(options->seed);
	herd->log = sim_log_new(&log);
	herd->cluster = uuid_make(sim_random(herd->world));
	herd->node_count = options->nodes;
	for (unsigned i = 0; i < herd->node_count; i++)
		node_init(herd, i);
	for (unsigned i = 0; i < herd->node_count - options->late; i++)
		herd_start(herd, i);
	herd_until(herd, 5000, all_registered, "registered");
	while (!is_formatted(herd)) {
		herd_propose(herd,
			     cluster_command_format(&herd->cluster, options->copies,
						    options->min_insync, options->pg_count, 0));
		herd_run(herd, 50);
	}
	while (!options->is_bare && !has_volume(herd)) {
		herd_propose(herd,
			     cluster_command_volume_create(HERD_VOLUME, options->volume_bytes, 0,
							   &shared, options->is_single ? 0 : 1));
		herd_run(herd, 50);
	}
	for (unsigned i = 0; i < herd->node_count; i++)
		if (herd->nodes[i].is_up && !options->is_bare)
			herd_open_volume(&herd->nodes[i]);
	if (!options->is_bare)
		herd_until(herd, 5000, all_open, "open");
	herd_until(herd, 10000, herd_is_healthy, "healthy");
	return herd;
}

void herd_reopen(struct herd *herd)
{
	for (unsigned i = 0; i < herd->node_count; i++)
		if (herd->nodes[i].is_up && !herd->nodes[i].volume)
			herd_open_volume(&herd->nodes[i]);
	herd_until(herd, 10000, all_open, "open again");
}

void herd_free(struct herd *herd)
{
	herd_judge_losses(NULL);
	for (unsigned i = 0; i < herd->node_count; i++)
		if (herd->nodes[i].is_up)
			herd_kill(herd, i, SIM_DEATH_SILENT);
	herd_add_counters(&herd_totals, &herd->past);
	herd_load_free(herd);
	sim_log_free(herd->log);
	sim_world_free(herd->world);
	/* What crashed is not freed: its loops are gone. */
	free(herd);
}
