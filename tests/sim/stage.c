/*
 * The stage of directed histories.
 */
#include "tests/sim/stage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/log.h"

/* The hook has no context: one stage at a time. */
static struct stage *on_stage;

/* ---- cues ---- */

static void come(struct sim_event *event)
{
	struct cue *cue = container_of_type(event, struct cue, event);

	cue->has_come = true;
	if (cue->act)
		cue->act(cue->stage);
}

/* Inside a turn of the node: what is done is done right after it. */
static void on_point(enum sim_point point)
{
	struct logger *logger = log_current();
	const struct herd_node *node = logger ? logger->context : NULL;

	if (!on_stage || !node)
		return;
	for (unsigned i = 0; i < STAGE_CUES; i++) {
		struct cue *cue = &on_stage->cues[i];
		if (!cue->is_armed || cue->point != point ||
		    (cue->node != STAGE_ANY && cue->node != node->number) || --cue->countdown > 0)
			continue;
		cue->is_armed = false;
		cue->event.run = come;
		sim_schedule(on_stage->herd->world, &cue->event,
			     sim_now(on_stage->herd->world) + 1);
	}
}

struct cue *stage_cue(struct stage *stage, enum sim_point point, unsigned node, unsigned nth,
		      void (*act)(struct stage *stage))
{
	for (unsigned i = 0; i < STAGE_CUES; i++) {
		struct cue *cue = &stage->cues[i];
		if (cue->is_armed || (cue->stage && !cue->has_come))
			continue;
		*cue = (struct cue){.stage = stage,
				    .point = point,
				    .node = node,
				    .countdown = nth,
				    .is_armed = true,
				    .act = act};
		return cue;
	}
	fail_msg("too many cues");
	return NULL;
}

bool stage_try_cue(struct stage *stage, const struct cue *cue, uint64_t ms)
{
	uint64_t end = sim_now(stage->herd->world) + ms * NS_PER_MS;

	while (!cue->has_come && sim_now(stage->herd->world) < end)
		stage_run_us(stage, 20);
	return cue->has_come;
}

void stage_until_cue(struct stage *stage, const struct cue *cue, uint64_t ms)
{
	if (!stage_try_cue(stage, cue, ms))
		herd_fail(stage->herd, "nobody came to %s", sim_point_table[cue->point].name);
}

/* ---- what is where ---- */

void stage_run_us(struct stage *stage, uint64_t us)
{
	struct sim_world *world = stage->herd->world;

	(void)sim_world_run_until(world, sim_now(world) + us * NS_PER_US, NULL, NULL);
}

const struct cluster_pg *stage_row(struct stage *stage)
{
	return cluster_pg(herd_map(stage->herd), 0);
}

const struct cluster_pg *stage_row_at(struct stage *stage, unsigned node)
{
	return cluster_pg(stage->herd->nodes[node].map, 0);
}

unsigned stage_node_of(struct stage *stage, uint32_t store)
{
	for (unsigned i = 0; i < stage->herd->node_count; i++)
		if (stage->herd->nodes[i].store_id == store)
			return i;
	fail_msg("no node has store %u", store);
	return 0;
}

bool stage_is_in_sync_at(struct stage *stage, unsigned node, unsigned member)
{
	const struct cluster_pg *row = stage_row_at(stage, node);
	const struct cluster_seat *seat =
		row ? cluster_pg_seat(row, stage->herd->nodes[member].store_id) : NULL;

	return seat && !(seat->flags & CLUSTER_SEAT_MARKED);
}

void stage_begin(struct stage *stage, uint64_t seed, unsigned nodes, uint32_t copies,
		 uint32_t min_insync)
{
	const struct herd_options options = {.seed = seed,
					     .nodes = nodes,
					     .copies = copies,
					     .min_insync = min_insync,
					     .pg_count = 1,
					     .volume_bytes = 16 * MIB};

	stage_begin_as(stage, &options);
}

void stage_begin_as(struct stage *stage, const struct herd_options *options)
{
	const struct cluster_pg *row;

	*stage = (struct stage){.herd = herd_new(options)};
	on_stage = stage;
	sim_point_hook = on_point;
	row = stage_row(stage);
	stage->p = stage_node_of(stage, row->target[0]);
	stage->a = stage_node_of(stage, row->target[1]);
	stage->b = stage_node_of(stage, row->target[options->copies > 2 ? 2 : 1]);
	stage_until_led_by(stage, stage->p, 10000);
	if (!options->is_bare)
		assert_int_equal(herd_write(stage->herd, stage->p, 0, 64 * KIB), 0);
	herd_run(stage->herd, 200); /* commit points are told */
}

void stage_drop(struct stage *stage)
{
	for (unsigned i = 0; i < STAGE_CUES; i++)
		sim_unschedule(stage->herd->world, &stage->cues[i].event);
	on_stage = NULL;
	sim_point_hook = NULL;
	herd_free(stage->herd);
}

void stage_end(struct stage *stage)
{
	for (unsigned i = 0; i < STAGE_CUES; i++)
		stage->cues[i].is_armed = false;
	stage_heal(stage);
	herd_load_stop(stage->herd);
	herd_until(stage->herd, 60000, herd_is_healthy, "healthy");
	herd_check(stage->herd);
	stage_drop(stage);
}

void stage_heal(struct stage *stage)
{
	struct herd *herd = stage->herd;

	for (unsigned i = 0; i < herd->node_count; i++)
		if (!herd->nodes[i].is_up)
			herd_start(herd, i);
	herd_until(herd, 60000, herd_is_healthy, "healthy");
	herd_reopen(herd);
}

/* ---- doing things ---- */

void stage_set(struct stage *stage, const char *name, uint64_t value)
{
	struct herd *herd = stage->herd;
	int id = cluster_setting_find(name);
	bool is_known;

	assert_true(id >= 0);
	for (unsigned i = 0; i < 200; i++) {
		is_known = true;
		for (unsigned n = 0; n < herd->node_count; n++)
			if (herd->nodes[n].is_up &&
			    cluster_setting(herd->nodes[n].map, (enum cluster_setting_id)id) !=
				    value)
				is_known = false;
		if (is_known)
			return;
		if (i % 5 == 0)
			herd_propose(herd, cluster_command_setting(name, value));
		herd_run(herd, 10);
	}
	herd_fail(herd, "%s is not set", name);
}

void stage_isolate(struct stage *stage, unsigned node)
{
	for (unsigned i = 0; i < stage->herd->node_count; i++)
		if (i != node)
			sim_partition(stage->herd->nodes[node].host, stage->herd->nodes[i].host);
}

void stage_reach(struct stage *stage, unsigned node)
{
	for (unsigned i = 0; i < stage->herd->node_count; i++)
		if (i != node)
			sim_unpartition(stage->herd->nodes[node].host, stage->herd->nodes[i].host);
}

void stage_log_cut(struct stage *stage, unsigned node, bool is_cut)
{
	sim_engine_set_cut(stage->herd->nodes[node].engine, is_cut);
}

void stage_lose(struct stage *stage, unsigned node)
{
	uint32_t store = stage->herd->nodes[node].store_id;

	herd_kill(stage->herd, node, SIM_DEATH_CERTAIN);
	for (unsigned i = 0; cluster_pg_seat(stage_row(stage), store); i++) {
		if (i > 300)
			herd_fail(stage->herd, "it did not leave the in-sync set");
		herd_run(stage->herd, 10);
	}
	herd_run(stage->herd, 20);
}

static bool is_led_by(struct stage *stage, unsigned node)
{
	struct pg_status status;
	struct herd_node *it = &stage->herd->nodes[node];

	return it->is_up && it->map && it->store_id && stage_row_at(stage, node) &&
	       stage_row_at(stage, node)->primary == it->store_id &&
	       pg_set_status(it->set, 0, it->store_id, &status) &&
	       strcmp(status.state, "serving") == 0;
}

void stage_until_led_by(struct stage *stage, unsigned node, uint64_t ms)
{
	for (uint64_t i = 0; !is_led_by(stage, node); i++) {
		if (i >= ms)
			herd_fail(stage->herd, "node %u does not lead", node);
		herd_run(stage->herd, 1);
	}
}

void stage_until_led_by_other(struct stage *stage, unsigned node, uint64_t ms)
{
	for (uint64_t i = 0; i < ms; i++) {
		for (unsigned n = 0; n < stage->herd->node_count; n++)
			if (n != node && is_led_by(stage, n))
				return;
		herd_run(stage->herd, 1);
	}
	herd_fail(stage->herd, "nobody else leads");
}

void stage_open(struct stage *stage, unsigned node)
{
	struct herd_node *it = &stage->herd->nodes[node];

	for (unsigned i = 0; !it->volume; i++) {
		if (i > 500)
			herd_fail(stage->herd, "%s does not open the volume", it->name);
		if (i % 20 == 0 && it->session)
			herd_open_volume(it);
		herd_run(stage->herd, 10);
	}
}
