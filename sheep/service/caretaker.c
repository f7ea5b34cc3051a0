#include "sheep/service/caretaker.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "lib/base/log.h"
#include "lib/base/size.h"

/* Changes come in bursts: plan when the map has been quiet for so long. */
#define PLAN_DELAY_NS (100 * NS_PER_MS)
#define PLAN_MAX      64u
/* A node that is not the first waits so much longer per place before it acts for the first. */
#define RANK_DELAY_NS (300 * NS_PER_MS)
#define CHECK_NS      NS_PER_S
#define COMMAND_NS    (10 * NS_PER_S)

/* A start of a node that has certainly ended. */
struct ended {
	struct uuid node;
	uint64_t start;
	uint64_t since_ns;
	struct cds_list_head link;
};

/* A node that is not up. */
struct down {
	uint32_t node;
	uint64_t since_ns;
	UT_hash_handle hh;
};

struct caretaker {
	struct loop *loop;
	struct state *state;
	struct uuid self;
	struct uuid *live; /* as the engine told last */
	uint32_t live_count;
	struct cds_list_head ended;
	struct down *down; /* by id */
	struct loop_timer check_timer, plan_timer;
	bool is_stopped;
};

static void propose(struct caretaker *caretaker, struct cluster_command *command)
{
	state_propose(caretaker->state, command, NULL, loop_now(caretaker->loop) + COMMAND_NS);
}

static bool is_live(const struct caretaker *caretaker, const struct uuid *node)
{
	for (uint32_t i = 0; i < caretaker->live_count; i++)
		if (uuid_is_equal(&caretaker->live[i], node))
			return true;
	return false;
}

/* How many live nodes come before us. */
static unsigned rank(const struct caretaker *caretaker)
{
	struct cluster_map *map = state_map(caretaker->state);
	const struct cluster_node *node;
	unsigned before = 0;

	for (node = cluster_node_next(map, 0); node; node = cluster_node_next(map, node->id)) {
		if (uuid_is_equal(&node->uuid, &caretaker->self))
			return before;
		if ((node->flags & CLUSTER_NODE_UP) && is_live(caretaker, &node->uuid))
			before++;
	}
	return before;
}

/* ---- deaths ---- */

static void report_deaths(struct caretaker *caretaker)
{
	struct cluster_map *map = state_map(caretaker->state);
	uint64_t now = loop_now(caretaker->loop), patience = rank(caretaker) * RANK_DELAY_NS;
	struct ended *ended, *next;

	cds_list_for_each_entry_safe(ended, next, &caretaker->ended, link) {
		const struct cluster_node *node = cluster_node_by_uuid(map, &ended->node);
		bool is_up = node && node->start == ended->start && (node->flags & CLUSTER_NODE_UP);
		if (is_up && now >= ended->since_ns + patience) {
			log_info("node %u: its process is certainly dead", node->id);
			propose(caretaker, cluster_command_dead(node->id, node->incarnation));
			ended->since_ns = now + CHECK_NS; /* and again, should that get lost */
		} else if (!is_up && now >= ended->since_ns + COMMAND_NS) {
			/* Its registration may have been on its way when it died: long decided now. */
			cds_list_del(&ended->link);
			free(ended);
		}
	}
}

void caretaker_ended(struct caretaker *caretaker, const struct uuid *node, uint64_t start)
{
	struct ended *ended;

	cds_list_for_each_entry(ended, &caretaker->ended, link)
		if (uuid_is_equal(&ended->node, node) && ended->start == start)
			return;
	ended = calloc(1, sizeof(*ended));
	if (!ended) {
		log_error("out of memory to report the death of a node");
		return;
	}
	ended->node = *node;
	ended->start = start;
	ended->since_ns = loop_now(caretaker->loop);
	cds_list_add_tail(&ended->link, &caretaker->ended);
	if (!caretaker->is_stopped)
		report_deaths(caretaker);
}

/* ---- placement ---- */

static void note_down(struct caretaker *caretaker, struct cluster_map *map)
{
	const struct cluster_node *node;
	struct down *down;

	for (node = cluster_node_next(map, 0); node; node = cluster_node_next(map, node->id)) {
		HASH_FIND(hh, caretaker->down, &node->id, sizeof(node->id), down);
		if (down && (node->flags & CLUSTER_NODE_UP)) {
			HASH_DEL(caretaker->down, down);
			free(down);
		} else if (!down && !(node->flags & CLUSTER_NODE_UP)) {
			down = calloc(1, sizeof(*down));
			if (!down)
				return; /* later, then */
			down->node = node->id;
			down->since_ns = loop_now(caretaker->loop);
			HASH_ADD(hh, caretaker->down, node, sizeof(down->node), down);
		}
	}
}

bool caretaker_is_out(const struct caretaker *caretaker, uint32_t node)
{
	uint64_t interval =
		cluster_setting_ns(state_map(caretaker->state), CLUSTER_SETTING_DOWN_OUT_INTERVAL);
	struct down *down;

	HASH_FIND(hh, caretaker->down, &node, sizeof(node), down);
	return down && loop_now(caretaker->loop) - down->since_ns >= interval;
}

static void on_plan_timer(struct loop_timer *timer)
{
	struct caretaker *caretaker = container_of_type(timer, struct caretaker, plan_timer);
	struct cluster_map *map = state_map(caretaker->state);
	struct cluster_command *commands[PLAN_MAX];
	uint32_t out[CLUSTER_NODES_MAX], out_count = 0; /* nodes down for long */
	struct down *down, *next;

	if (caretaker->is_stopped || !cluster_is_formatted(map) || rank(caretaker) > 0)
		return;
	HASH_ITER(hh, caretaker->down, down, next)
		if (caretaker_is_out(caretaker, down->node) && out_count < CLUSTER_NODES_MAX)
			out[out_count++] = down->node;
	const struct cluster_plan_input input = {.out_nodes = out, .out_node_count = out_count};
	int count = cluster_plan(map, &input, commands, PLAN_MAX);
	for (int i = 0; i < count; i++)
		propose(caretaker, commands[i]);
	if (count > 0)
		log_info("placement: %d change%s proposed", count, count == 1 ? "" : "s");
}

static void plan_soon(struct caretaker *caretaker)
{
	if (!loop_timer_is_armed(&caretaker->plan_timer))
		loop_timer_start(caretaker->loop, &caretaker->plan_timer,
				 loop_now(caretaker->loop) + PLAN_DELAY_NS);
}

void caretaker_applied(struct caretaker *caretaker, struct cluster_map *map)
{
	note_down(caretaker, map);
	if (caretaker->is_stopped)
		return;
	report_deaths(caretaker);
	plan_soon(caretaker);
}

/* Once a second: deaths that others should have reported, nodes that have been down for long. */
static void on_check_timer(struct loop_timer *timer)
{
	struct caretaker *caretaker = container_of_type(timer, struct caretaker, check_timer);

	report_deaths(caretaker);
	if (caretaker->down)
		plan_soon(caretaker);
	loop_timer_start(caretaker->loop, timer, loop_now(caretaker->loop) + CHECK_NS);
}

void caretaker_members(struct caretaker *caretaker, const struct engine_member *members,
		       uint32_t count)
{
	struct uuid *live = calloc(count ? count : 1, sizeof(*live));

	if (!live)
		return; /* who acts first is only a question of speed */
	for (uint32_t i = 0; i < count; i++)
		live[i] = members[i].node;
	free(caretaker->live);
	caretaker->live = live;
	caretaker->live_count = count;
	caretaker_applied(caretaker, state_map(caretaker->state));
}

/* ---- life ---- */

struct caretaker *caretaker_new(struct loop *loop, struct state *state, const struct uuid *node)
{
	struct caretaker *caretaker = calloc(1, sizeof(*caretaker));

	if (!caretaker)
		return NULL;
	caretaker->loop = loop;
	caretaker->state = state;
	caretaker->self = *node;
	CDS_INIT_LIST_HEAD(&caretaker->ended);
	caretaker->check_timer.fire = on_check_timer;
	caretaker->plan_timer.fire = on_plan_timer;
	loop_timer_start(loop, &caretaker->check_timer, loop_now(loop) + CHECK_NS);
	return caretaker;
}

void caretaker_stop(struct caretaker *caretaker)
{
	caretaker->is_stopped = true;
	loop_timer_stop(caretaker->loop, &caretaker->check_timer);
	loop_timer_stop(caretaker->loop, &caretaker->plan_timer);
}

void caretaker_free(struct caretaker *caretaker)
{
	struct ended *ended, *next_ended;
	struct down *down, *next_down;

	if (!caretaker)
		return;
	caretaker_stop(caretaker);
	cds_list_for_each_entry_safe(ended, next_ended, &caretaker->ended, link)
		free(ended);
	HASH_ITER(hh, caretaker->down, down, next_down) {
		HASH_DEL(caretaker->down, down);
		free(down);
	}
	free(caretaker->live);
	free(caretaker);
}
