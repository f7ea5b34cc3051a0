/* The model's time, processes and links (sim_cpg.h); sim_cpg_ring.c has the daemons. */
#include <stdlib.h>
#include <string.h>

#include "lib/base/hash.h"
#include "tests/sim/sim_cpg_ring.h"

/* ---- events: a heap by time ---- */

static bool is_before(const struct event *a, const struct event *b)
{
	return a->at_ns < b->at_ns || (a->at_ns == b->at_ns && a->tie < b->tie);
}

static void put(struct sim_cpg *sim, size_t i, struct event *event)
{
	sim->heap[i] = event;
	event->heap = (uint32_t)i;
}

static void sift_up(struct sim_cpg *sim, size_t i, struct event *event)
{
	for (; i && is_before(event, sim->heap[(i - 1) / 2]); i = (i - 1) / 2)
		put(sim, i, sim->heap[(i - 1) / 2]);
	put(sim, i, event);
}

static void sift_down(struct sim_cpg *sim, size_t i, struct event *event)
{
	for (;;) {
		size_t child = 2 * i + 1;

		if (child + 1 < sim->count && is_before(sim->heap[child + 1], sim->heap[child]))
			child++;
		if (child >= sim->count || !is_before(sim->heap[child], event))
			break;
		put(sim, i, sim->heap[child]);
		i = child;
	}
	put(sim, i, event);
}

struct event *sim_cpg_at(struct sim_cpg *sim, uint64_t at_ns,
			 void (*run)(struct sim_cpg *sim, struct event *event), struct node *node)
{
	struct event *event = calloc(1, sizeof(*event));

	if (sim->count == sim->room) {
		sim->room = sim->room ? sim->room * 2 : 256;
		sim->heap = realloc(sim->heap, sim->room * sizeof(struct event *));
	}
	*event = (struct event){
		.at_ns = max_of(at_ns, sim->now),
		.tie = ++sim->ties,
		.run = run,
		.node = node,
		.life = node ? node->life : 0,
	};
	sift_up(sim, sim->count++, event);
	return event;
}

static void take_out(struct sim_cpg *sim, struct event *event)
{
	size_t i = event->heap;
	struct event *last = sim->heap[--sim->count];

	if (last == event)
		return;
	if (i && is_before(last, sim->heap[(i - 1) / 2]))
		sift_up(sim, i, last);
	else
		sift_down(sim, i, last);
}

void sim_cpg_cancel(struct sim_cpg *sim, struct event *event)
{
	if (!event)
		return;
	take_out(sim, event);
	if (event->message)
		message_put(event->message);
	free(event);
}

bool sim_cpg_run(struct sim_cpg *sim, uint64_t until_ns, bool (*is_done)(void *context),
		 void *context)
{
	for (;;) {
		struct event *event;

		if (is_done && is_done(context))
			return true;
		if (!sim->count || sim->heap[0]->at_ns > until_ns)
			break;
		event = sim->heap[0];
		take_out(sim, event);
		sim->now = event->at_ns;
		sim->trace = hash_u64_pair(sim->trace, sim->now ^ event->number);
		event->run(sim, event);
		if (event->message)
			message_put(event->message);
		free(event);
	}
	sim->now = max_of(sim->now, until_ns);
	return false;
}

uint64_t sim_cpg_now(const struct sim_cpg *sim)
{
	return sim->now;
}

struct random *sim_cpg_random(struct sim_cpg *sim)
{
	return &sim->random;
}

uint64_t sim_cpg_trace(const struct sim_cpg *sim)
{
	return sim->trace;
}

/* ---- what a core asks for ---- */

static uint64_t op_now(void *context)
{
	return ((struct node *)context)->sim->now;
}

static void timer_run(struct sim_cpg *sim, struct event *event)
{
	struct node *node = event->node;

	if (event->life != node->life)
		return;
	node->timer = NULL;
	if (node->is_paused) { /* it runs when it goes on */
		node->timer = sim_cpg_at(sim, sim->now + 10 * NS_PER_MS, timer_run, node);
		return;
	}
	agree_timer(node->core);
}

static void op_set_timer(void *context, uint64_t at_ns)
{
	struct node *node = context;

	sim_cpg_cancel(node->sim, node->timer);
	node->timer = NULL;
	if (at_ns != UINT64_MAX)
		node->timer = sim_cpg_at(node->sim, at_ns, timer_run, node);
}

static void can_send(struct sim_cpg *sim, struct event *event)
{
	if (event->life == event->node->life && !event->node->is_paused)
		agree_can_send(event->node->core);
}

static int op_send(void *context, const void *data, size_t size)
{
	struct node *node = context;
	struct sim_cpg *sim = node->sim;

	if (sim_cpg_below(sim, 100) < sim->options.again_percent) {
		if (sim_cpg_below(sim, 2))
			sim_cpg_at(sim, sim->now + sim_cpg_below(sim, 3 * NS_PER_MS), can_send,
				   node);
		return -EAGAIN;
	}
	if (sim->hear)
		sim->hear(sim->hear_context, node->number, data, size);
	ring_send(node, ORDER_MESSAGE, data, size);
	return 0;
}

static void op_commit(void *context, uint64_t index, const void *command, uint32_t size)
{
	struct node *node = context;

	node->tell->commit(node->context, index, command, size);
}

static int op_install(void *context, uint64_t index, const void *image, size_t size,
		      struct error *err)
{
	struct node *node = context;

	return node->tell->install(node->context, index, image, size, err);
}

static int op_snapshot(void *context, struct engine_image *out)
{
	struct node *node = context;

	return node->tell->snapshot(node->context, out);
}

static void op_ready(void *context)
{
	struct node *node = context;

	node->tell->ready(node->context);
}

static void op_members(void *context, const struct engine_member *members, uint32_t count)
{
	struct node *node = context;

	node->tell->members(node->context, members, count);
}

static void op_ended(void *context, const struct uuid *uuid, uint64_t start, enum engine_end how)
{
	struct node *node = context;

	node->tell->ended(node->context, uuid, start, how);
}

static void op_quorum(void *context, bool has_quorum)
{
	struct node *node = context;

	node->tell->quorum(node->context, has_quorum);
}

static void op_failed(void *context, const struct error *err)
{
	struct node *node = context;

	node->tell->failed(node->context, err);
}

static void op_left(void *context)
{
	struct node *node = context;

	node->tell->left(node->context);
}

static const struct agree_ops ops = {
	.now = op_now,
	.set_timer = op_set_timer,
	.send = op_send,
	.write = disk_write,
	.write_next = disk_write_next,
	.write_image = disk_write_image,
	.remove_below = disk_remove_below,
	.commit = op_commit,
	.install = op_install,
	.snapshot = op_snapshot,
	.ready = op_ready,
	.members = op_members,
	.ended = op_ended,
	.quorum = op_quorum,
	.failed = op_failed,
	.left = op_left,
};

/* ---- processes ---- */

static void start_run(struct sim_cpg *sim, struct event *event)
{
	struct node *node = event->node;

	if (event->life != node->life)
		return;
	agree_start(node->core);
	if (event->life == node->life && node->is_up)
		ring_connect(node);
}

struct agree *sim_cpg_start(struct sim_cpg *sim, unsigned number,
			    const struct agree_options *options, const struct agree_ops *tell,
			    void *context, struct error *err)
{
	struct node *node = &sim->nodes[number];
	struct agree_options own = *options;
	uint64_t numbers[FILES_MAX];
	uint32_t count = disk_numbers(node, numbers);

	assert(!node->core);
	node->tell = tell;
	node->context = context;
	own.random = &sim->random;
	node->core = agree_new(&own, &ops, node);
	if (agree_restore(node->core, numbers, count, disk_read, err) < 0) {
		agree_free(node->core);
		node->core = NULL;
		return NULL;
	}
	node->uuid = options->self.node;
	node->start = options->self.start;
	node->life++;
	node->pid++;
	node->is_paused = false;
	sim_cpg_at(sim, sim->now + sim_cpg_below(sim, 5 * NS_PER_MS), start_run, node);
	links_change(node, false);
	return node->core;
}

static void end_process(struct node *node)
{
	disk_killed(node);
	op_set_timer(node, UINT64_MAX);
	inbox_clear(node);
	node->life++;
	agree_free(node->core);
	node->core = NULL;
	node->is_connected = node->is_member = false;
}

void sim_cpg_stop(struct sim_cpg *sim, unsigned number)
{
	struct node *node = &sim->nodes[number];

	if (node->is_connected)
		ring_send(node, ORDER_LEAVE, NULL, 0);
	end_process(node);
	links_change(node, true);
}

void sim_cpg_kill(struct sim_cpg *sim, unsigned number, bool is_seen)
{
	struct node *node = &sim->nodes[number];

	if (!node->core)
		return;
	if (node->is_connected)
		ring_send(node, ORDER_LOST, NULL, 0);
	end_process(node);
	if (is_seen)
		links_change(node, true);
}

void sim_cpg_power_cut(struct sim_cpg *sim, unsigned number)
{
	struct node *node = &sim->nodes[number];

	sim_cpg_set_daemon(sim, number, false);
	if (node->core)
		end_process(node);
	disk_cut(node);
}

struct agree *sim_cpg_core(struct sim_cpg *sim, unsigned node)
{
	return sim->nodes[node].core;
}

void sim_cpg_set_paused(struct sim_cpg *sim, unsigned number, bool is_paused)
{
	struct node *node = &sim->nodes[number];

	node->is_paused = is_paused;
	if (!is_paused && node->core)
		inbox_go(node);
}

static void connect_again(struct sim_cpg *sim, struct event *event)
{
	if (event->life == event->node->life && event->node->is_up && !event->node->is_connected)
		ring_connect(event->node);
}

void sim_cpg_lose(struct sim_cpg *sim, unsigned number)
{
	struct node *node = &sim->nodes[number];

	if (!node->core || !node->is_connected)
		return;
	ring_send(node, ORDER_LOST, NULL, 0);
	ring_disconnect(node);
	sim_cpg_at(sim, sim->now + 50 * NS_PER_MS, connect_again, node);
}

/* ---- connections between processes ---- */

static void link_event(struct sim_cpg *sim, struct event *event)
{
	if (event->life == event->node->life && event->node->core)
		agree_link(event->node->core, &event->uuid, event->number >> 1, event->number & 1);
}

void links_change(struct node *node, bool is_closed)
{
	struct sim_cpg *sim = node->sim;

	for (unsigned i = 0; i < sim->options.nodes; i++) {
		struct node *other = &sim->nodes[i];
		struct event *event;
		uint64_t at;

		if (other == node || !other->core || other->group != node->group)
			continue;
		at = sim->now + sim_cpg_below(sim, 20 * NS_PER_MS);
		node->link_ns[i] = max_of(at, node->link_ns[i] + 1); /* in their order */
		event = sim_cpg_at(sim, node->link_ns[i], link_event, other);
		event->uuid = node->uuid;
		event->number = node->start << 1 | is_closed;
	}
}

void sim_cpg_flap_links(struct sim_cpg *sim, unsigned number)
{
	struct node *node = &sim->nodes[number];

	if (!node->core)
		return;
	links_change(node, true);
	sim->now += 20 * NS_PER_MS;
	links_change(node, false);
	sim->now -= 20 * NS_PER_MS;
}

void sim_cpg_confirm(struct sim_cpg *sim, const struct uuid *uuid, uint64_t start)
{
	for (unsigned i = 0; i < sim->options.nodes; i++)
		if (sim->nodes[i].core) {
			agree_link(sim->nodes[i].core, uuid, start, true);
			return;
		}
}

/* ---- life ---- */

struct sim_cpg *sim_cpg_new(const struct sim_cpg_options *options)
{
	struct sim_cpg *sim = calloc(1, sizeof(*sim));

	sim->options = *options;
	sim->now = NS_PER_S;
	random_init(&sim->random, options->seed);
	CDS_INIT_LIST_HEAD(&sim->rings);
	for (unsigned i = 0; i < options->nodes; i++) {
		struct node *node = &sim->nodes[i];

		node->number = i;
		node->sim = sim;
		node->pid = 100;
		CDS_INIT_LIST_HEAD(&node->inbox);
		node->is_up = true;
	}
	rings_form(sim);
	return sim;
}

void sim_cpg_free(struct sim_cpg *sim)
{
	for (unsigned i = 0; i < sim->options.nodes; i++) {
		struct node *node = &sim->nodes[i];

		if (node->core)
			end_process(node);
		node->is_up = false;
		disk_free(node->files);
		disk_free(node->saved);
	}
	rings_form(sim);
	while (sim->count)
		sim_cpg_cancel(sim, sim->heap[0]);
	free(sim->heap);
	free(sim);
}
