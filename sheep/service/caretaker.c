/*
 * Deaths are remembered from when the engine tells them until the map shows their outcome: a start
 * that died while its registration was on its way appears late, and must not stay up for ever.
 * Nothing is proposed before we are registered ourselves.
 */
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
#define RANK_DELAY_NS	   (300 * NS_PER_MS)
#define RANK_PLAN_DELAY_NS (2 * NS_PER_S) /* a plan costs more than a death, and is less urgent */
#define RANK_PLAN_MAX	   2u
#define CHECK_NS	   NS_PER_S
/* Ends whose registration was never seen; more than that forget the oldest. */
#define ENDED_MAX 4096u

/* A start of a node that has certainly ended. */
struct ended {
	struct uuid node;
	uint64_t start;
	uint64_t session;  /* of the node, when we heard of it: a later one ends this one's case */
	uint64_t since_ns; /* since when the map shows it as up; 0: it does not */
	struct cds_list_head link;
};

/* A node that is not up, or a store that has failed. */
struct down {
	uint32_t id;
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
	uint32_t ended_count;
	struct down *down_nodes, *failed_stores; /* by id */
	struct loop_timer check_timer, plan_timer;
	bool was_formatted;
	bool is_stopped;
};

static bool may_act(const struct caretaker *caretaker)
{
	return !caretaker->is_stopped && state_node(caretaker->state) != 0;
}

static bool is_live(const struct caretaker *caretaker, const struct cluster_node *node)
{
	const struct ended *ended;

	cds_list_for_each_entry(ended, &caretaker->ended, link)
		if (ended->start == node->start && uuid_is_equal(&ended->node, &node->uuid))
			return false;
	for (uint32_t i = 0; i < caretaker->live_count; i++)
		if (uuid_is_equal(&caretaker->live[i], &node->uuid))
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
		if ((node->flags & CLUSTER_NODE_UP) && is_live(caretaker, node))
			before++;
	}
	return before;
}

static void check_by(struct caretaker *caretaker, uint64_t deadline_ns)
{
	struct loop_timer *timer = &caretaker->check_timer;

	if (!loop_timer_is_armed(timer) || timer->deadline_ns > deadline_ns)
		loop_timer_start(caretaker->loop, timer, deadline_ns);
}

/* ---- deaths ---- */

static void forget(struct caretaker *caretaker, struct ended *ended)
{
	cds_list_del(&ended->link);
	caretaker->ended_count--;
	free(ended);
}

/* Does the map show how this end went out: reported, or followed by another start? */
static bool is_over(const struct ended *ended, const struct cluster_node *node)
{
	if (!node)
		return false;
	if (node->start == ended->start)
		return !(node->flags & CLUSTER_NODE_UP);
	return node->session > ended->session;
}

static void report(struct caretaker *caretaker, struct ended *ended,
		   const struct cluster_node *node, unsigned our_rank)
{
	uint64_t now = loop_now(caretaker->loop);

	if (!ended->since_ns)
		ended->since_ns = now + our_rank * RANK_DELAY_NS;
	if (now >= ended->since_ns) {
		log_info("node %u: its process is certainly dead", node->id);
		state_propose(caretaker->state, cluster_command_dead(node->id, node->incarnation),
			      NULL, now + CHECK_NS);
		ended->since_ns = now + CHECK_NS; /* and again, should it have been in vain */
	}
	check_by(caretaker, ended->since_ns);
}

static void report_deaths(struct caretaker *caretaker)
{
	struct cluster_map *map = state_map(caretaker->state);
	unsigned our_rank = cds_list_empty(&caretaker->ended) ? 0 : rank(caretaker);
	struct ended *ended, *next;

	if (!may_act(caretaker))
		return;
	cds_list_for_each_entry_safe(ended, next, &caretaker->ended, link) {
		const struct cluster_node *node = cluster_node_by_uuid(map, &ended->node);
		if (is_over(ended, node))
			forget(caretaker, ended);
		else if (node && node->start == ended->start)
			report(caretaker, ended, node, our_rank);
	}
}

void caretaker_ended(struct caretaker *caretaker, const struct uuid *uuid, uint64_t start)
{
	const struct cluster_node *node = cluster_node_by_uuid(state_map(caretaker->state), uuid);
	struct ended *ended;

	cds_list_for_each_entry(ended, &caretaker->ended, link)
		if (uuid_is_equal(&ended->node, uuid) && ended->start == start)
			return;
	ended = calloc(1, sizeof(*ended));
	if (!ended) {
		log_error("out of memory to report the death of a node");
		return;
	}
	ended->node = *uuid;
	ended->start = start;
	ended->session = node ? node->session : 0;
	cds_list_add_tail(&ended->link, &caretaker->ended);
	if (++caretaker->ended_count > ENDED_MAX)
		forget(caretaker, cds_list_first_entry(&caretaker->ended, struct ended, link));
	report_deaths(caretaker);
}

/* ---- what has been down for long ---- */

/* Begin or end to count the time for @id. */
static void note(struct caretaker *caretaker, struct down **table, uint32_t id, bool is_down)
{
	struct down *down;

	HASH_FIND(hh, *table, &id, sizeof(id), down);
	if (down && !is_down) {
		HASH_DEL(*table, down);
		free(down);
	} else if (!down && is_down) {
		down = calloc(1, sizeof(*down));
		if (!down)
			return; /* later, then */
		down->id = id;
		down->since_ns = loop_now(caretaker->loop);
		HASH_ADD(hh, *table, id, sizeof(down->id), down);
	}
}

static void note_down(struct caretaker *caretaker, struct cluster_map *map)
{
	const struct cluster_store *store;
	const struct cluster_node *node;
	struct down *down, *next;

	HASH_ITER(hh, caretaker->down_nodes, down, next)
		if (!cluster_node(map, down->id))
			note(caretaker, &caretaker->down_nodes, down->id, false);
	HASH_ITER(hh, caretaker->failed_stores, down, next)
		if (!cluster_store(map, down->id))
			note(caretaker, &caretaker->failed_stores, down->id, false);
	for (node = cluster_node_next(map, 0); node; node = cluster_node_next(map, node->id))
		note(caretaker, &caretaker->down_nodes, node->id, !(node->flags & CLUSTER_NODE_UP));
	for (store = cluster_store_next(map, 0); store; store = cluster_store_next(map, store->id))
		note(caretaker, &caretaker->failed_stores, store->id,
		     store->flags & CLUSTER_STORE_FAILED);
}

static bool is_long_down(const struct caretaker *caretaker, const struct down *down)
{
	uint64_t interval =
		cluster_setting_ns(state_map(caretaker->state), CLUSTER_SETTING_DOWN_OUT_INTERVAL);

	return loop_now(caretaker->loop) - down->since_ns >= interval;
}

bool caretaker_is_out(const struct caretaker *caretaker, uint32_t node)
{
	struct down *down;

	HASH_FIND(hh, caretaker->down_nodes, &node, sizeof(node), down);
	return down && is_long_down(caretaker, down);
}

uint64_t caretaker_down_ns(const struct caretaker *caretaker, uint32_t node)
{
	struct down *down;

	HASH_FIND(hh, caretaker->down_nodes, &node, sizeof(node), down);
	return down ? loop_now(caretaker->loop) - down->since_ns : 0;
}

static uint32_t list_out(const struct caretaker *caretaker, struct down *table, uint32_t *out,
			 uint32_t max)
{
	struct down *down, *next;
	uint32_t count = 0;

	HASH_ITER(hh, table, down, next)
		if (is_long_down(caretaker, down) && count < max)
			out[count++] = down->id;
	return count;
}

/* ---- placement ---- */

static void plan_after(struct caretaker *caretaker, uint64_t delay_ns)
{
	if (!loop_timer_is_armed(&caretaker->plan_timer))
		loop_timer_start(caretaker->loop, &caretaker->plan_timer,
				 loop_now(caretaker->loop) + delay_ns);
}

static void plan_soon(struct caretaker *caretaker)
{
	unsigned our_rank = rank(caretaker);

	if (our_rank <= RANK_PLAN_MAX)
		plan_after(caretaker, PLAN_DELAY_NS + our_rank * RANK_PLAN_DELAY_NS);
}

static void on_plan_timer(struct loop_timer *timer)
{
	struct caretaker *caretaker = container_of_type(timer, struct caretaker, plan_timer);
	struct cluster_map *map = state_map(caretaker->state);
	struct cluster_command *commands[PLAN_MAX];
	uint32_t nodes[CLUSTER_NODES_MAX], stores[CLUSTER_STORES_MAX];

	if (!may_act(caretaker) || !cluster_is_formatted(map))
		return;
	const struct cluster_plan_input input = {
		.out_nodes = nodes,
		.out_node_count =
			list_out(caretaker, caretaker->down_nodes, nodes, CLUSTER_NODES_MAX),
		.out_stores = stores,
		.out_store_count =
			list_out(caretaker, caretaker->failed_stores, stores, CLUSTER_STORES_MAX),
	};
	int count = cluster_plan(map, &input, commands, PLAN_MAX);
	if (count < 0)
		plan_after(caretaker, CHECK_NS); /* out of memory */
	for (int i = 0; i < count; i++)
		state_propose(caretaker->state, commands[i], NULL,
			      loop_now(caretaker->loop) + CHECK_NS);
	if (count > 0) {
		log_info("placement: %d change%s proposed", count, count == 1 ? "" : "s");
		plan_after(caretaker, CHECK_NS); /* see whether they were made */
	}
}

void caretaker_applied(struct caretaker *caretaker, struct cluster_map *map)
{
	bool is_formatted = cluster_is_formatted(map);

	note_down(caretaker, map);
	if (!may_act(caretaker))
		return;
	report_deaths(caretaker);
	/* Nobody can do anything with a new cluster before its first plan. */
	if (is_formatted && !caretaker->was_formatted && rank(caretaker) == 0)
		loop_timer_start(caretaker->loop, &caretaker->plan_timer,
				 loop_now(caretaker->loop));
	else if (is_formatted)
		plan_soon(caretaker);
	caretaker->was_formatted = is_formatted;
}

/* Once a second, and when a death is due: what others should have done, and what time brings. */
static void on_check_timer(struct loop_timer *timer)
{
	struct caretaker *caretaker = container_of_type(timer, struct caretaker, check_timer);

	check_by(caretaker, loop_now(caretaker->loop) + CHECK_NS);
	report_deaths(caretaker);
	if (may_act(caretaker) && (caretaker->down_nodes || caretaker->failed_stores))
		plan_soon(caretaker);
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

static void down_free(struct down *table)
{
	struct down *down, *next;

	HASH_ITER(hh, table, down, next) {
		HASH_DEL(table, down);
		free(down);
	}
}

void caretaker_free(struct caretaker *caretaker)
{
	struct ended *ended, *next;

	if (!caretaker)
		return;
	caretaker_stop(caretaker);
	cds_list_for_each_entry_safe(ended, next, &caretaker->ended, link)
		free(ended);
	down_free(caretaker->down_nodes);
	down_free(caretaker->failed_stores);
	free(caretaker->live);
	free(caretaker);
}
