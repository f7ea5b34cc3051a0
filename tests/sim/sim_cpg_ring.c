/* Daemons: rings, the order of messages, views, votequorum; and the way to the process (sim_cpg.h). */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_cpg_ring.h"

/* ---- messages ---- */

void message_put(struct message *message)
{
	if (--message->references == 0)
		free(message);
}

static struct message *message_get(struct message *message)
{
	message->references++;
	return message;
}

static struct message *message_new(struct node *node, enum order_kind kind, const void *data,
				   size_t size)
{
	struct message *message = malloc(sizeof(*message) + size);

	message->references = 1;
	message->kind = kind;
	message->from = node->number;
	message->id = (struct agree_id){node->number + 1, node->pid};
	message->size = size;
	if (size)
		memcpy(message->data, data, size);
	return message;
}

/* ---- to the process ---- */

static void hand(struct sim_cpg *sim, struct event *event)
{
	struct node *node = event->node;
	uint64_t life = event->life;
	struct item *item;

	if (life != node->life)
		return;
	node->handing = NULL;
	if (node->is_paused || cds_list_empty(&node->inbox))
		return;
	item = cds_list_first_entry(&node->inbox, struct item, link);
	cds_list_del(&item->link);
	if (item->is_quorum) {
		agree_quorum(node->core, item->has_quorum);
	} else if (item->is_lost) {
		agree_view(node->core, NULL);
	} else if (item->message) {
		agree_deliver(node->core, item->message->id, item->message->data,
			      item->message->size);
		message_put(item->message);
	} else {
		item->view.members = item->members;
		item->view.leavers = item->leavers;
		agree_view(node->core, &item->view);
	}
	free(item);
	if (life == node->life)
		inbox_go(node);
}

void inbox_go(struct node *node)
{
	struct sim_cpg *sim = node->sim;
	uint64_t delay = sim_cpg_below(sim, 200 * NS_PER_US);

	if (node->handing || node->is_paused || !node->core || cds_list_empty(&node->inbox))
		return;
	if (sim_cpg_below(sim, 200) == 0)
		delay = sim_cpg_below(sim, 30 * NS_PER_MS);
	node->handing = sim_cpg_at(sim, sim->now + delay, hand, node);
}

void inbox_clear(struct node *node)
{
	struct item *item, *next;

	cds_list_for_each_entry_safe(item, next, &node->inbox, link) {
		if (item->message)
			message_put(item->message);
		cds_list_del(&item->link);
		free(item);
	}
	sim_cpg_cancel(node->sim, node->handing);
	node->handing = NULL;
}

static struct item *add_item(struct node *node)
{
	struct item *item = calloc(1, sizeof(*item));

	cds_list_add_tail(&item->link, &node->inbox);
	return item;
}

static struct agree_id id_of(const struct node *daemon, unsigned member)
{
	return (struct agree_id){member + 1, daemon->member_pid[member]};
}

/* A view of the group as @node's daemon knows it; those in @left have gone. */
static void give_view(struct node *node, unsigned left, const uint32_t *left_pids,
		      enum agree_gone why)
{
	struct item *item;

	if (!node->is_member)
		return;
	item = add_item(node);
	item->view.self = id_of(node, node->number);
	for (unsigned i = 0; i < SIM_CPG_NODES; i++) {
		if (node->members & BIT(i))
			item->members[item->view.count++] = id_of(node, i);
		if (left & BIT(i))
			item->leavers[item->view.leaver_count++] =
				(struct agree_leaver){{i + 1, left_pids[i]}, why};
	}
	inbox_go(node);
}

/* ---- a daemon delivers ---- */

static void process_comes(struct node *daemon, const struct message *message)
{
	unsigned from = message->from;

	daemon->members |= BIT(from);
	daemon->member_pid[from] = message->id.pid;
	if (from == daemon->number && daemon->is_connected && message->id.pid == daemon->pid)
		daemon->is_member = true;
	give_view(daemon, 0, NULL, AGREE_GONE_NODE);
}

static void process_goes(struct node *daemon, const struct message *message)
{
	unsigned from = message->from;
	uint32_t pids[SIM_CPG_NODES];

	if (!(daemon->members & BIT(from)) || daemon->member_pid[from] != message->id.pid)
		return;
	memcpy(pids, daemon->member_pid, sizeof(pids));
	daemon->members &= ~BIT(from);
	give_view(daemon, BIT(from), pids,
		  message->kind == ORDER_LEAVE ? AGREE_GONE_LEFT : AGREE_GONE_PROCESS);
}

static void deliver(struct node *daemon, struct message *message)
{
	switch (message->kind) {
	case ORDER_JOIN:
		process_comes(daemon, message);
		break;
	case ORDER_LEAVE:
	case ORDER_LOST:
		process_goes(daemon, message);
		break;
	case ORDER_MESSAGE:
		if (daemon->is_member) {
			add_item(daemon)->message = message_get(message);
			inbox_go(daemon);
		}
		break;
	}
}

static void delivering_run(struct sim_cpg *sim, struct event *event);

static void delivering_go(struct node *node)
{
	struct sim_cpg *sim = node->sim;

	if (!node->delivering && node->ring && node->delivered < node->ring->count) {
		node->delivering = sim_cpg_at(sim, sim->now + sim_cpg_below(sim, 400 * NS_PER_US),
					      delivering_run, node);
		node->delivering->life = 0;
	}
}

static void delivering_run(struct sim_cpg *sim, struct event *event)
{
	struct node *node = event->node;
	size_t some = 1 + sim_cpg_below(sim, 4);

	node->delivering = NULL;
	while (some-- && node->delivered < node->ring->count)
		deliver(node, node->ring->messages[node->delivered++]);
	delivering_go(node);
}

/* ---- a ring orders ---- */

static void order(struct sim_cpg *sim, struct event *event)
{
	struct ring *ring = event->node->ring;

	if (!ring)
		return; /* the daemon died with it */
	if (event->message->kind == ORDER_JOIN &&
	    (!event->node->is_connected || event->message->id.pid != event->node->pid))
		return; /* of a connection that is no more */
	if (event->message->kind == ORDER_MESSAGE && sim->drop &&
	    sim->drop(sim->drop_context, event->message->from, event->message->data,
		      event->message->size))
		return;
	if (ring->count == ring->room) {
		ring->room = ring->room ? ring->room * 2 : 64;
		ring->messages = realloc(ring->messages, ring->room * sizeof(struct message *));
	}
	ring->messages[ring->count++] = message_get(event->message);
	for (unsigned i = 0; i < sim->options.nodes; i++)
		if (ring->daemons & BIT(i))
			delivering_go(&sim->nodes[i]);
}

void ring_send(struct node *node, enum order_kind kind, const void *data, size_t size)
{
	struct sim_cpg *sim = node->sim;
	struct event *event;
	uint64_t at = sim->now + 50 * NS_PER_US + sim_cpg_below(sim, 500 * NS_PER_US);

	/* Messages of one sender keep their order. */
	node->sent_ns = max_of(at, node->sent_ns + 1);
	event = sim_cpg_at(sim, node->sent_ns, order, node);
	event->life = 0;
	event->message = message_new(node, kind, data, size);
}

void ring_connect(struct node *node)
{
	node->is_connected = true;
	node->pid++;
	ring_send(node, ORDER_JOIN, NULL, 0);
	sim_cpg_votequorum(node, true);
}

void ring_disconnect(struct node *node)
{
	if (!node->is_connected)
		return;
	node->is_connected = node->is_member = false;
	node->votequorum = false;
	inbox_clear(node);
	if (node->core) {
		struct item *item = add_item(node);

		item->is_lost = true;
		item = add_item(node);
		item->is_quorum = true;
		inbox_go(node);
	}
}

/* ---- rings break and form ---- */

static bool hear_each_other(const struct node *a, const struct node *b)
{
	return a->is_up && b->is_up && a->group == b->group;
}

/* Of the ring's messages that some of @together have not: which are delivered by all of them? */
static void end_of_ring(struct sim_cpg *sim, struct ring *ring, unsigned together)
{
	size_t most = 0;

	for (unsigned i = 0; i < sim->options.nodes; i++)
		if (together & BIT(i))
			most = max_of(most, sim->nodes[i].delivered);
	for (size_t at = 0; at < ring->count; at++) {
		struct message *message = ring->messages[at];
		bool is_lost =
			at >= most && !(together & BIT(message->from)) && sim_cpg_below(sim, 2);

		for (unsigned i = 0; i < sim->options.nodes; i++) {
			struct node *node = &sim->nodes[i];

			if (!(together & BIT(i)) || at < node->delivered)
				continue;
			if (!is_lost)
				deliver(node, message);
		}
	}
}

static void ring_put(struct ring *ring)
{
	if (ring->daemons)
		return;
	for (size_t i = 0; i < ring->count; i++)
		message_put(ring->messages[i]);
	free(ring->messages);
	cds_list_del(&ring->link);
	free(ring);
}

/* Those of @ring in @together leave it together. */
static void leave_ring(struct sim_cpg *sim, struct ring *ring, unsigned together)
{
	unsigned gone = ring->daemons & ~together;

	end_of_ring(sim, ring, together);
	for (unsigned i = 0; i < sim->options.nodes; i++) {
		struct node *node = &sim->nodes[i];
		uint32_t pids[SIM_CPG_NODES];
		unsigned left = node->members & ~together;

		if (!(together & BIT(i)))
			continue;
		sim_cpg_cancel(sim, node->delivering);
		node->delivering = NULL;
		node->ring = NULL;
		memcpy(pids, node->member_pid, sizeof(pids));
		node->members &= together;
		if (left)
			give_view(node, left, pids, AGREE_GONE_NODE);
	}
	ring->daemons = gone;
}

static void join_ring(struct sim_cpg *sim, unsigned daemons)
{
	struct ring *ring = calloc(1, sizeof(*ring));
	unsigned members = 0;
	uint32_t pids[SIM_CPG_NODES] = {0};

	ring->daemons = daemons;
	cds_list_add_tail(&ring->link, &sim->rings);
	for (unsigned i = 0; i < sim->options.nodes; i++) {
		struct node *node = &sim->nodes[i];

		if (!(daemons & BIT(i)))
			continue;
		node->ring = ring;
		node->delivered = 0;
		if (node->members & BIT(i)) { /* as its own daemon knows */
			members |= BIT(i);
			pids[i] = node->member_pid[i];
		}
	}
	for (unsigned i = 0; i < sim->options.nodes; i++) {
		struct node *node = &sim->nodes[i];
		unsigned before = node->members;

		if (!(daemons & BIT(i)))
			continue;
		node->members = members;
		memcpy(node->member_pid, pids, sizeof(pids));
		if (members & ~before)
			give_view(node, 0, NULL, AGREE_GONE_NODE);
	}
}

/* A daemon that has gone: nobody hears what it did last. */
static void drop_daemon(struct sim_cpg *sim, struct node *node)
{
	struct ring *ring = node->ring;

	sim_cpg_cancel(sim, node->delivering);
	node->delivering = NULL;
	node->ring = NULL;
	node->members = 0;
	if (ring)
		ring->daemons &= ~BIT(node->number);
}

void rings_form(struct sim_cpg *sim)
{
	unsigned count = sim->options.nodes, done = 0, changed = 0;
	unsigned want[SIM_CPG_NODES];
	struct ring *ring, *next;

	for (unsigned i = 0; i < count; i++) {
		want[i] = 0;
		for (unsigned j = 0; j < count; j++)
			if (hear_each_other(&sim->nodes[i], &sim->nodes[j]))
				want[i] |= BIT(j);
	}
	for (unsigned i = 0; i < count; i++) {
		struct node *node = &sim->nodes[i];

		if (node->ring && node->is_up && node->ring->daemons == want[i])
			continue;
		changed |= BIT(i);
	}
	for (unsigned i = 0; i < count; i++) /* leave in groups that go on together */
		if ((changed & BIT(i)) && sim->nodes[i].ring && sim->nodes[i].is_up)
			leave_ring(sim, sim->nodes[i].ring, sim->nodes[i].ring->daemons & want[i]);
	for (unsigned i = 0; i < count; i++)
		if ((changed & BIT(i)) && !sim->nodes[i].is_up)
			drop_daemon(sim, &sim->nodes[i]);
	for (unsigned i = 0; i < count; i++) {
		if (!(changed & BIT(i)) || (done & BIT(i)) || !sim->nodes[i].is_up)
			continue;
		join_ring(sim, want[i]);
		done |= want[i];
	}
	cds_list_for_each_entry_safe(ring, next, &sim->rings, link)
		ring_put(ring);
	for (unsigned i = 0; i < count; i++)
		sim_cpg_votequorum(&sim->nodes[i], false);
}

/* ---- votequorum ---- */

static void votequorum_run(struct sim_cpg *sim, struct event *event)
{
	struct node *node = event->node;
	struct item *item;
	unsigned count = 0;
	bool has;

	for (unsigned i = 0; i < sim->options.nodes; i++)
		count += hear_each_other(node, &sim->nodes[i]);
	has = ((2 * count > sim->options.nodes && !sim->is_denied) || sim->is_granted) &&
	      node->is_up;
	if (!node->core || !node->is_connected || (has == node->votequorum && !event->number))
		return;
	node->votequorum = has;
	item = add_item(node);
	item->is_quorum = true;
	item->has_quorum = has;
	inbox_go(node);
}

void sim_cpg_votequorum(struct node *node, bool is_asked)
{
	struct sim_cpg *sim = node->sim;
	struct event *event = sim_cpg_at(sim, sim->now + sim_cpg_below(sim, 40 * NS_PER_MS),
					 votequorum_run, node);

	event->number = is_asked;
}

void sim_cpg_deny_quorum(struct sim_cpg *sim, bool is_denied)
{
	sim->is_denied = is_denied;
	for (unsigned i = 0; i < sim->options.nodes; i++)
		sim_cpg_votequorum(&sim->nodes[i], true);
}

void sim_cpg_grant_quorum(struct sim_cpg *sim, bool is_granted)
{
	sim->is_granted = is_granted;
	for (unsigned i = 0; i < sim->options.nodes; i++)
		sim_cpg_votequorum(&sim->nodes[i], true);
}

/* ---- what scenarios do ---- */

static void connect_later(struct sim_cpg *sim, struct event *event)
{
	if (event->life == event->node->life && event->node->core && event->node->is_up &&
	    !event->node->is_connected)
		ring_connect(event->node);
}

void sim_cpg_set_daemon(struct sim_cpg *sim, unsigned number, bool is_up)
{
	struct node *node = &sim->nodes[number];

	if (node->is_up == is_up)
		return;
	node->is_up = is_up;
	if (!is_up)
		ring_disconnect(node);
	rings_form(sim);
	if (is_up && node->core)
		sim_cpg_at(sim, sim->now + sim_cpg_below(sim, 50 * NS_PER_MS), connect_later, node);
}

bool sim_cpg_daemon_is_up(const struct sim_cpg *sim, unsigned node)
{
	return sim->nodes[node].is_up;
}

void sim_cpg_partition(struct sim_cpg *sim, const uint8_t *groups)
{
	for (unsigned i = 0; i < sim->options.nodes; i++)
		sim->nodes[i].group = groups[i];
	rings_form(sim);
}

void sim_cpg_heal(struct sim_cpg *sim)
{
	uint8_t groups[SIM_CPG_NODES] = {0};

	sim_cpg_partition(sim, groups);
}

void sim_cpg_inject(struct sim_cpg *sim, unsigned from, const void *data, size_t size)
{
	ring_send(&sim->nodes[from], ORDER_MESSAGE, data, size);
}

void sim_cpg_set_filter(struct sim_cpg *sim,
			bool (*drop)(void *context, unsigned from, const uint8_t *data,
				     size_t size),
			void *context)
{
	sim->drop = drop;
	sim->drop_context = context;
}

void sim_cpg_set_witness(struct sim_cpg *sim,
			 void (*hear)(void *context, unsigned from, const uint8_t *data,
				      size_t size),
			 void *context)
{
	sim->hear = hear;
	sim->hear_context = context;
}
