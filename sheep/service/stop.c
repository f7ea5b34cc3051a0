/*
 * A clean stop, in stages. Each stage begins when the one before has ended on every loop:
 *
 *   CLIENTS  no new connections; NBD connections finish what is in flight and are closed. PGs go on
 *            meanwhile: they get maps and may propose
 *   PGS      serve nobody any more; what clients still have in flight is refused
 *   LEAVE    the log says that we left: others lead our PGs from here on
 *   ENGINE   leave the engine
 *   STORES   sync, checkpoint, close clean
 *   NETS     close what is left of connections
 *   LOOPS    end
 *
 * A stage that depends on others (CLIENTS, LEAVE) is bounded in time: a sheep stops without its cluster,
 * too. Then its end counts as a death, and nothing is lost. The same holds for a stage that does not
 * end in its time because something here hangs: the process ends where it is.
 */
#include <stdlib.h>
#include <unistd.h>

#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "sheep/service/admin.h"
#include "sheep/service/exports.h"
#include "sheep/service/figures.h"
#include "sheep/service/node_priv.h"

#define CLIENTS_NS (2 * NS_PER_S)
#define LEAVE_NS   (3 * NS_PER_S)
#define POLL_NS	   (5 * NS_PER_MS)

enum stop_stage {
	STOP_CLIENTS,
	STOP_PGS,
	STOP_LEAVE,
	STOP_ENGINE,
	STOP_STORES,
	STOP_NETS,
	STOP_LOOPS,
};

static const struct {
	const char *name;
	uint64_t limit_ns;
} stages[] = {
	[STOP_CLIENTS] = {"clients", 10 * NS_PER_S},
	[STOP_PGS] = {"placement groups", 15 * NS_PER_S},
	[STOP_LEAVE] = {"leave", 10 * NS_PER_S},
	[STOP_ENGINE] = {"engine", 10 * NS_PER_S},
	[STOP_STORES] = {"stores", 60 * NS_PER_S}, /* a checkpoint of all that is dirty */
	[STOP_NETS] = {"connections", 10 * NS_PER_S},
	[STOP_LOOPS] = {"loops", 10 * NS_PER_S},
};

static void stage_begin(struct node *node);

static void on_stage_timer(struct loop_timer *timer)
{
	struct node *node = container_of_type(timer, struct node, stage_timer);

	log_error("sheep: stop: %s: not done after %llu s: ending at once",
		  stages[node->stop_stage].name,
		  (unsigned long long)(stages[node->stop_stage].limit_ns / NS_PER_S));
	_exit(1);
}

/* On the engine's loop: a part of the stage has ended. */
static void part_done(struct node *node)
{
	assert(node->stop_waiting > 0);
	if (--node->stop_waiting > 0)
		return;
	node->stop_stage++;
	stage_begin(node);
}

/* ---- stages that run on every loop ---- */

static void deliver_part_done(struct loop *loop, struct loop_mail *mail)
{
	part_done(container_of_type(mail, struct worker, stop_mail)->node);
}

static void worker_part_done(struct worker *worker)
{
	worker->stop_mail.deliver = deliver_part_done;
	loop_post(worker->node->workers[0].loop, &worker->stop_mail);
}

static void on_stop_op(struct loop_op *op, int result)
{
	struct worker *worker = container_of_type(op, struct worker, stop_op);

	worker->are_pgs_gone = true;
	if (worker->are_clients_gone)
		worker_part_done(worker);
}

static void on_clients_gone(struct loop_op *op, int result)
{
	struct worker *worker = container_of_type(op, struct worker, clients_op);

	worker->are_clients_gone = true;
	loop_timer_stop(worker->loop, &worker->stop_timer);
	if (worker->is_counting_clients || worker->are_pgs_gone)
		worker_part_done(worker);
	worker->is_counting_clients = false;
}

/* What is still in flight may need PGs that cannot serve: only their stop ends it. */
static void on_clients_timer(struct loop_timer *timer)
{
	struct worker *worker = container_of_type(timer, struct worker, stop_timer);

	gateway_stop(worker->gateway);
	exports_close(worker->exports);
	worker->is_counting_clients = false;
	worker_part_done(worker);
}

static void stop_clients(struct worker *worker)
{
	worker->is_counting_clients = true;
	worker->clients_op = (struct loop_op){.done = on_clients_gone};
	worker->stop_timer = (struct loop_timer){.fire = on_clients_timer};
	loop_timer_start(worker->loop, &worker->stop_timer, loop_now(worker->loop) + CLIENTS_NS);
	exports_stop(worker->exports, &worker->clients_op);
}

static void stop_pgs(struct worker *worker)
{
	gateway_stop(worker->gateway);
	worker->stop_op = (struct loop_op){.done = on_stop_op};
	pg_set_stop(worker->set, &worker->stop_op);
}

struct shard_stop {
	struct loop_op op;
	struct worker *worker;
};

static void shard_stopped(struct worker *worker)
{
	if (--worker->stop_left == 0) {
		free(worker->stop_shards);
		worker->stop_shards = NULL;
		worker_part_done(worker);
	}
}

static void on_shard_stopped(struct loop_op *op, int result)
{
	shard_stopped(container_of_type(op, struct shard_stop, op)->worker);
}

static void stop_stores(struct worker *worker)
{
	struct node *node = worker->node;
	unsigned count = 0, next = 0;

	for (unsigned i = 0; i < node->store_count; i++)
		count += store_identity(node->stores[i].store)->shards;
	worker->stop_shards = calloc(count + 1, sizeof(*worker->stop_shards));
	if (!worker->stop_shards) {
		log_error("sheep: out of memory for a clean stop");
		_Exit(1); /* a crash, as far as the stores are concerned: nothing is lost */
	}
	worker->stop_left = 1;
	for (unsigned i = 0; i < node->store_count; i++) {
		struct store *store = node->stores[i].store;
		for (unsigned shard = 0; shard < store_identity(store)->shards; shard++) {
			if (shard % node->worker_count != worker->index)
				continue;
			struct shard_stop *stop = &worker->stop_shards[next++];
			stop->op.done = on_shard_stopped;
			stop->worker = worker;
			worker->stop_left++;
			store_stop_shard(store, shard, &stop->op);
		}
	}
	shard_stopped(worker); /* there may be none */
}

static void on_net_timer(struct loop_timer *timer)
{
	struct worker *worker = container_of_type(timer, struct worker, stop_timer);

	if (net_is_stopped(worker->net))
		worker_part_done(worker);
	else
		loop_timer_start(worker->loop, timer, loop_now(worker->loop) + POLL_NS);
}

static void stop_net(struct worker *worker)
{
	pg_peers_free(worker->peers);
	worker->peers = NULL;
	net_stop(worker->net);
	worker->stop_timer = (struct loop_timer){.fire = on_net_timer};
	loop_timer_start(worker->loop, &worker->stop_timer, loop_now(worker->loop) + POLL_NS);
}

static void (*const worker_steps[])(struct worker *worker) = {
	[STOP_CLIENTS] = stop_clients,
	[STOP_PGS] = stop_pgs,
	[STOP_STORES] = stop_stores,
	[STOP_NETS] = stop_net,
};

static void deliver_step(struct loop *loop, struct loop_mail *mail)
{
	struct worker *worker = container_of_type(mail, struct worker, stop_mail);

	worker_steps[worker->node->stop_stage](worker);
}

/* ---- stages of the engine's loop ---- */

static void on_leave(struct proposal *proposal, enum proto_status status, const char *text,
		     uint64_t id)
{
	struct node *node = container_of_type(proposal, struct node, leave_proposal);

	if (status != PROTO_STATUS_OK)
		log_warning("sheep: leaving without the cluster's knowledge: %s", text);
	part_done(node);
}

static void leave(struct node *node)
{
	node->stop_waiting = 1;
	if (!node->session) {
		part_done(node);
		return;
	}
	node->leave_proposal.done = on_leave;
	state_propose(node->state, cluster_command_leave(node->id, node->incarnation),
		      &node->leave_proposal, loop_now(node->workers[0].loop) + LEAVE_NS);
}

void node_left(struct node *node)
{
	node->has_left = true;
	if (!node->is_abandoned)
		part_done(node);
}

static void stage_begin(struct node *node)
{
	struct loop *loop = node->workers[0].loop;

	node->stage_timer.fire = on_stage_timer;
	loop_timer_start(loop, &node->stage_timer,
			 loop_now(loop) + stages[node->stop_stage].limit_ns);
	switch ((enum stop_stage)node->stop_stage) {
	case STOP_LEAVE:
		leave(node);
		return;
	case STOP_ENGINE:
		caretaker_stop(node->caretaker);
		node->stop_waiting = 1;
		state_leave(node->state);
		return;
	case STOP_LOOPS:
		node_enter(node, NODE_STOPPED, "all has been written");
		loop_timer_stop(loop, &node->stage_timer);
		/* The loops end when that has come back: on_signal(). */
		loop_cancel(loop, &node->signal_op);
		return;
	case STOP_CLIENTS:
		node_listen_stop(node);
		gateway_hub_stop(node->hub);
		break;
	case STOP_NETS:
		net_listener_close(node->peer_listener);
		figures_stop(node->figures);
		admin_stop(node->admin);
		break;
	default:
		break;
	}
	node->stop_waiting = node->worker_count;
	for (unsigned i = 0; i < node->worker_count; i++) {
		node->workers[i].stop_mail.deliver = deliver_step;
		loop_post(node->workers[i].loop, &node->workers[i].stop_mail);
	}
}

void node_stop(struct node *node, const char *why)
{
	if (node->phase >= NODE_STOPPING)
		return;
	node_enter(node, NODE_STOPPING, why);
	node->stop_stage = STOP_CLIENTS;
	stage_begin(node);
}

/* Turn all loops once. False: one cannot. */
static bool turn_all(struct node *node)
{
	for (unsigned i = 0; i < node->worker_count; i++) {
		struct loop *loop = node->workers[i].loop;
		if (loop && loop_turn(loop, loop_now(loop) + POLL_NS) < 0)
			return false;
	}
	return true;
}

static bool are_nets_stopped(struct node *node)
{
	for (unsigned i = 0; i < node->worker_count; i++)
		if (node->workers[i].net && !net_is_stopped(node->workers[i].net))
			return false;
	return true;
}

struct shard_abandon {
	struct loop_op op;
	unsigned *left;
};

static void on_shard_abandoned(struct loop_op *op, int result)
{
	--*container_of_type(op, struct shard_abandon, op)->left;
}

/* They were opened and changed nothing: they are to be as clean as they were. False: cannot. */
static bool stop_all_shards(struct node *node)
{
	unsigned count = 0, left, next = 0;
	bool is_turning = true;

	for (unsigned i = 0; i < node->store_count; i++)
		count += store_identity(node->stores[i].store)->shards;
	struct shard_abandon *shards = calloc(count + 1, sizeof(*shards));
	if (!shards)
		return false;
	left = count;
	for (unsigned i = 0; i < node->store_count; i++) {
		struct store *store = node->stores[i].store;
		for (unsigned shard = 0; shard < store_identity(store)->shards; shard++, next++) {
			shards[next].op.done = on_shard_abandoned;
			shards[next].left = &left;
			store_stop_shard(store, shard, &shards[next].op);
		}
	}
	while (left > 0 && is_turning)
		is_turning = turn_all(node);
	if (left == 0)
		free(shards);
	return left == 0;
}

void node_abandon(struct node *node)
{
	node->is_abandoned = true;
	if (node->caretaker)
		caretaker_stop(node->caretaker);
	if (node->state)
		state_leave(node->state);
	while (node->state && !node->has_left)
		if (!turn_all(node))
			return; /* the process ends anyway */
	net_listener_close(node->peer_listener);
	admin_stop(node->admin);
	for (unsigned i = 0; i < node->worker_count; i++) {
		struct worker *worker = &node->workers[i];
		pg_peers_free(worker->peers);
		worker->peers = NULL;
		if (worker->net)
			net_stop(worker->net);
	}
	while (!are_nets_stopped(node))
		if (!turn_all(node))
			return;
	if (stop_all_shards(node))
		node_free(node);
}
