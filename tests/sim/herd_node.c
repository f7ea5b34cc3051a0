/*
 * A node of the herd from its start to its end: a clean stop, or a crash.
 */
#include "tests/sim/herd_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "include/proto/peer.h"
#include "lib/base/assert.h"
#include "lib/base/size.h"

/* ---- the store's callbacks ---- */

static void on_store_failed(void *context, struct store *store, int error)
{
	struct herd_node *node = context;

	pg_set_store_failed(node->set, store, error);
	if (node->store_id)
		herd_propose_by(node, cluster_command_store_failed(node->store_id,
								   node->store_incarnation));
	node->was_cut = true;
}

static void on_store_corrupt(void *context, struct store *store, uint32_t pg,
			     const struct object_key *key)
{
	struct herd_node *node = context;

	pg_set_store_corrupt(node->set, store, pg, key);
}

/* ---- starting and killing ---- */

static int open_store(struct herd_node *node)
{
	const struct store_options options = {
		.size_bytes = node->herd->options.store_bytes,
		.segment_bytes = 8u << 20,
		.shards = 1,
	};
	const struct store_callbacks callbacks = {
		.failed = on_store_failed, .corrupt = on_store_corrupt, .context = node};
	struct error err;

	if (store_open(node->loops, 1, "/disk", &options, &callbacks, &node->store, &err) < 0) {
		log_warning("%s", err.text);
		node->store = NULL;
		return -EIO;
	}
	node->store_incarnation = store_identity(node->store)->incarnation + 1;
	return store_set_incarnation(node->store, node->store_incarnation, &err) == 0 ? 0 : -EIO;
}

static void open_net(struct herd_node *node)
{
	const struct net_options options = {.silence_ns = 1 * NS_PER_S,
					    .connect_timeout_ns = 1 * NS_PER_S};
	const struct wire_identity identity = {
		.cluster = store_identity(node->store)->cluster,
		.node = node->uuid,
		.incarnation = node->incarnation,
		.nonce = node->start,
		.loops = 1,
	};
	const struct net_listener_options listener = {.magic = FRAME_MAGIC_PEER};
	struct error err;

	HERD_REQUIRE(node->herd, net_new(node->loop, &options, &identity, &node->net, &err) == 0);
	if (net_listen(node->net, node->address, &listener, &node->listener, &err) < 0)
		herd_fail(node->herd, "%s: %s", node->name, err.text);
	HERD_REQUIRE(node->herd, pg_peers_new(node->net, &node->peers, &err) == 0);
}

static void open_pgs(struct herd_node *node)
{
	const struct pg_env env = {
		.loop = node->loop,
		.peers = node->peers,
		.context = node,
		.propose = herd_propose_by,
		.ios_max = 256, /* 64 of one PG */
		.future_max = node->herd->options.future_max,
	};
	struct net_service service = {.protocol = &pg_peer_protocol};
	struct error err;

	HERD_REQUIRE(node->herd, pg_set_new(&env, &node->set, &err) == 0);
	service.context = node->set;
	HERD_REQUIRE(node->herd, net_serve(node->net, &service) == 0);
	node->sets[0] = node->set;
	assert_int_equal(pg_set_group(node->sets, 1, &err), 0);
	const struct gateway_hub_options hub = {
		.loop = node->loop, .propose = herd_propose_for_hub, .context = node};
	node->hub = gateway_hub_new(&hub);
	const struct gateway_options gateway = {
		.loop = node->loop,
		.loop_count = 1,
		.hub = node->hub,
		.hub_loop = node->loop,
		.loops = node->loops,
		.sets = node->sets,
		.peers = node->peers,
	};
	node->gateway = gateway_new(&gateway);
	HERD_REQUIRE(node->herd, node->hub && node->gateway);
}

static void open_engine(struct herd_node *node)
{
	const struct engine_options options = {.self = {.node = node->uuid, .start = node->start}};
	struct error err;

	if (sim_engine_open(node->herd->log, node->loop, &options, &herd_engine_callbacks, node,
			    &node->engine, &err) < 0)
		herd_fail(node->herd, "%s: %s", node->name, err.text);
	sim_engine_set_lag(node->engine, sim_host_lag(node->host));
}

static void on_opened(struct gateway_open *open, int result)
{
	struct herd_node *node = container_of_type(open, struct herd_node, open);

	if (result == 0)
		node->volume = open->volume;
}

void herd_open_volume(struct herd_node *node)
{
	node->open.done = on_opened;
	gateway_open(node->gateway, &node->open, HERD_VOLUME, 0);
}

void herd_start(struct herd *herd, unsigned number)
{
	if (!herd_try_start(herd, number))
		herd_fail(herd, "%s: its store cannot be opened", herd->nodes[number].name);
}

bool herd_try_start(struct herd *herd, unsigned number)
{
	struct herd_node *node = &herd->nodes[number];
	const struct loop_options options = {.name = node->name, .logger = &node->logger};

	HERD_REQUIRE(herd, !node->is_up);
	CDS_INIT_LIST_HEAD(&node->commands);
	node->is_ready = false;
	node->incarnation++;
	node->start = random_u64(sim_random(herd->world)) | 1;
	node->proposer = (struct cluster_proposer){.start = node->start};
	node->id = node->store_id = 0;
	node->session = 0;
	node->ended_count = 0;
	node->volume = NULL;
	HERD_REQUIRE(herd, sim_loop_new(herd->world, node->host, &options, &node->loop) == 0);
	node->loops[0] = node->loop;
	if (open_store(node) < 0) {
		sim_host_crash(node->host);
		if (node->store) /* it has operations in flight as long as there is a loop */
			store_forget(node->store);
		node->store = NULL;
		node->loop = NULL;
		return false;
	}
	node->is_up = true;
	node->map = cluster_map_new();
	open_net(node);
	open_pgs(node);
	node->timer = (struct loop_timer){.fire = herd_ticked};
	loop_timer_start(node->loop, &node->timer, loop_now(node->loop) + HERD_TICK_NS);
	open_engine(node);
	return true;
}

void herd_bury(void *memory)
{
	static void **graves; /* reachable, for leak checkers */
	static size_t count;

	graves = realloc(graves, (count + 1) * sizeof(void *));
	graves[count++] = memory;
}

void herd_add_counters(struct pg_counters *to, const struct pg_counters *from)
{
	for (uint32_t i = 0; i < pg_counter_count; i++) {
		uint32_t at = pg_counter_table[i].offset;
		*(uint64_t *)(void *)((char *)to + at) +=
			*(const uint64_t *)(const void *)((const char *)from + at);
	}
}

static void tell_died(struct herd *herd, unsigned number)
{
	if (herd->node_died)
		herd->node_died(herd, number);
	else
		herd_load_node_died(herd, number);
}

static void free_commands(struct herd_node *node)
{
	struct herd_command *command, *next;

	cds_list_for_each_entry_safe(command, next, &node->commands, link)
		herd_command_free(command);
}

/* Its host is down: what is left of it. */
static void bury_node(struct herd_node *node)
{
	store_forget(node->store);
	free_commands(node);
	herd_bury(node->net);
	herd_bury(node->listener);
	herd_bury(node->peers);
	herd_bury(node->set);
	herd_bury(node->hub);
	herd_bury(node->gateway);
	herd_bury(node->map);
	node->loop = NULL;
	node->map = NULL;
	node->volume = NULL;
}

static void begin_death(struct herd *herd, unsigned number, enum sim_death death)
{
	struct herd_node *node = &herd->nodes[number];

	HERD_REQUIRE(herd, node->is_up);
	node->is_up = false;
	herd_add_counters(&herd->past, pg_set_counters(node->set));
	tell_died(herd, number);
	sim_engine_crash(node->engine, death);
}

void herd_kill(struct herd *herd, unsigned number, enum sim_death death)
{
	begin_death(herd, number, death);
	sim_host_crash(herd->nodes[number].host);
	bury_node(&herd->nodes[number]);
}

void herd_cut_power(struct herd *herd, unsigned number, enum sim_death death,
		    enum sim_power_cut mode)
{
	begin_death(herd, number, death);
	sim_host_power_cut(herd->nodes[number].host, mode);
	herd->nodes[number].noted_incarnation = 0;
	herd->nodes[number].was_cut = true;
	bury_node(&herd->nodes[number]);
}

void herd_pause(struct herd *herd, unsigned number)
{
	sim_host_pause(herd->nodes[number].host);
}

void herd_resume(struct herd *herd, unsigned number)
{
	sim_host_resume(herd->nodes[number].host);
	herd->nodes[number].resumed_ns = sim_now(herd->world);
}

/* ---- a clean stop ---- */

static struct {
	struct herd_node *node;
	bool is_done;
	struct loop_op op;
	struct loop_mail mail;
	void (*step)(struct herd_node *node);
	struct gateway_volume *volume;
} stopping;

static void on_step(struct loop_op *op, int result)
{
	/* A failed store says so and has nothing more to do. */
	HERD_REQUIRE(stopping.node->herd, result == 0 || result == -E_STORE_FAILED);
	stopping.is_done = true;
}

static bool is_step_done(void *context)
{
	return stopping.is_done;
}

static void deliver_step(struct loop *loop, struct loop_mail *mail)
{
	stopping.step(stopping.node);
}

/* On the node's loop; it ends by stopping.op, or at once. */
static bool step(struct herd_node *node, void (*run)(struct herd_node *node), uint64_t until_ns)
{
	stopping.node = node;
	stopping.is_done = false;
	stopping.op = (struct loop_op){.done = on_step};
	stopping.mail.deliver = deliver_step;
	stopping.step = run;
	loop_post(node->loop, &stopping.mail);
	return sim_world_run_until(node->herd->world, until_ns, is_step_done, NULL);
}

static void stop_pgs(struct herd_node *node)
{
	gateway_stop(node->gateway);
	pg_set_stop(node->set, &stopping.op);
}

static void close_all(struct herd_node *node)
{
	if (stopping.volume)
		gateway_close(stopping.volume);
	if (node->herd->close_volumes)
		node->herd->close_volumes(node->herd, node->number);
	loop_complete(node->loop, &stopping.op, 0);
}

static void propose_leave(struct herd_node *node)
{
	herd_propose_by(node, cluster_command_leave(node->id, node->incarnation));
	loop_complete(node->loop, &stopping.op, 0);
}

static void stop_timer(struct herd_node *node)
{
	loop_timer_stop(node->loop, &node->timer);
	loop_complete(node->loop, &stopping.op, 0);
}

/* As the daemon does: again until the log has it. */
static bool leave(struct herd_node *node, uint64_t until_ns)
{
	const struct cluster_node *row;

	if (!node->map || !node->id) /* not registered: its engine's word has to do */
		return step(node, stop_timer, until_ns);
	do {
		if (!step(node, propose_leave, until_ns))
			return false;
		herd_run(node->herd, 50);
		if (!node->is_up || !node->map)
			return false; /* killed meanwhile */
		row = cluster_node(node->map, node->id);
		if (!row || !(row->flags & CLUSTER_NODE_UP))
			return step(node, stop_timer, until_ns);
	} while (sim_now(node->herd->world) < until_ns);
	return false;
}

static void stop_store(struct herd_node *node)
{
	store_stop_shard(node->store, 0, &stopping.op);
}

static void stop_net(struct herd_node *node)
{
	store_close(node->store);
	gateway_free(node->gateway);
	gateway_hub_stop(node->hub);
	gateway_hub_free(node->hub);
	pg_set_free(node->set);
	pg_peers_free(node->peers);
	net_listener_close(node->listener);
	net_stop(node->net);
	loop_complete(node->loop, &stopping.op, 0);
}

bool herd_try_stop(struct herd *herd, unsigned number, uint64_t ms)
{
	struct herd_node *node = &herd->nodes[number];
	uint64_t until_ns = sim_now(herd->world) + ms * NS_PER_MS;

	stopping.volume = node->volume;
	node->volume = NULL;
	tell_died(herd, number); /* its clients wait for nobody */
	if (!step(node, stop_pgs, until_ns) || !step(node, close_all, until_ns) ||
	    !leave(node, until_ns) || !step(node, stop_store, until_ns)) {
		if (node->is_up)
			herd_kill(herd, number, SIM_DEATH_CERTAIN);
		return false;
	}
	herd_add_counters(&herd->past, pg_set_counters(node->set));
	node->is_up = false;
	sim_engine_crash(node->engine, SIM_DEATH_UNKNOWN);
	HERD_REQUIRE(herd, step(node, stop_net, UINT64_MAX));
	for (unsigned i = 0; i < 1000 && !net_is_stopped(node->net); i++)
		herd_run(herd, 10);
	HERD_REQUIRE(herd, net_is_stopped(node->net));
	net_free(node->net);
	free_commands(node);
	cluster_map_put(node->map);
	/* What hung in a disk comes back, and the store, which is closed, goes with it. */
	sim_host_hang_disk(node->host, false);
	herd_run(herd, 10);
	HERD_REQUIRE(herd, buffer_cache_busy(loop_buffers(node->loop)) == 0);
	sim_host_crash(node->host);
	node->loop = NULL;
	node->map = NULL;
	return true;
}

void herd_stop(struct herd *herd, unsigned number)
{
	if (!herd_try_stop(herd, number, 20000))
		herd_fail(herd, "%s did not stop", herd->nodes[number].name);
}
