#include "tests/sim/herd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "include/proto/peer.h"
#include "lib/base/assert.h"
#include "lib/base/size.h"

#define TICK_NS (50 * NS_PER_MS)

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

	if (!getenv("TEST_LOG"))
		return;
	if (!node) { /* outside of any loop */
		log_sink_text(logger, level, line);
		return;
	}
	(void)fprintf(stderr, "%10.6f %s %s: %s\n",
		      (double)sim_now(node->herd->world) / (double)NS_PER_S, node->name,
		      log_level_name(level), line);
}

/* ---- what the daemon does around it ---- */

static void propose(void *context, struct cluster_command *command)
{
	struct herd_node *node = context;

	if (!command)
		return;
	cluster_command_sign(command, &node->proposer);
	(void)engine_propose(node->engine, command->data, command->size);
	cluster_command_free(command);
}

static int propose_for_hub(void *context, struct cluster_command *command, void *token)
{
	struct herd_node *node = context;

	assert_null(node->hub_command);
	cluster_command_sign(command, &node->proposer);
	node->hub_command = command;
	node->hub_sequence = node->proposer.sequence;
	node->hub_token = token;
	(void)engine_propose(node->engine, command->data, command->size);
	return 0;
}

static void note_hub_decision(struct herd_node *node, const struct cluster_result *result)
{
	if (!node->hub_command || result->start != node->start ||
	    result->sequence != node->hub_sequence)
		return;
	cluster_command_free(node->hub_command);
	node->hub_command = NULL;
	gateway_hub_decided(node->hub, node->hub_token, result->status == PROTO_STATUS_OK);
}

static void register_self(struct herd_node *node)
{
	const struct cluster_register_store store = {
		.uuid = store_identity(node->store)->uuid,
		.incarnation = node->store_incarnation,
		.start = node->start,
		.size_bytes = node->herd->options.store_bytes,
		.shards = store_identity(node->store)->shards,
		.flags = (store_identity(node->store)->is_new ? LOG_STORE_NEW : 0) |
			 (node->says_unclean ? LOG_STORE_UNCLEAN : 0),
		.path = "/disk",
	};
	const struct cluster_register request = {
		.uuid = node->uuid,
		.cluster = store_identity(node->store)->cluster,
		.incarnation = node->incarnation,
		.version_min = PEER_VERSION_MIN,
		.version_max = PEER_VERSION_MAX,
		.loops = 1,
		.address = node->address,
		.zone = node->name,
		.store_count = 1,
		.stores = &store,
	};

	propose(node, cluster_command_register(&request));
}

static void note_registration(struct herd_node *node)
{
	const struct cluster_node *row = cluster_node_by_uuid(node->map, &node->uuid);
	const struct uuid uuid = store_identity(node->store)->uuid;
	const struct cluster_store *store = cluster_store_by_uuid(node->map, &uuid);

	if (!row || row->start != node->start)
		return;
	node->session = row->session;
	if (!node->id) {
		struct wire_identity identity = *net_identity(node->net);
		node->id = row->id;
		node->proposer.node = row->id;
		identity.node_id = row->id;
		net_set_identity(node->net, &identity);
	}
	if (!node->store_id && store && store->incarnation == node->store_incarnation) {
		node->store_id = store->id;
		assert_int_equal(pg_set_add_store(node->set, node->store, store->id,
						  node->store_incarnation),
				 0);
	}
}

static void note_cluster(struct herd_node *node)
{
	struct error err;

	if (!cluster_is_formatted(node->map) ||
	    uuid_is_equal(&net_identity(node->net)->cluster, cluster_uuid(node->map)))
		return;
	struct wire_identity identity = *net_identity(node->net);
	identity.cluster = *cluster_uuid(node->map);
	net_set_identity(node->net, &identity);
	if (uuid_is_null(&store_identity(node->store)->cluster))
		assert_int_equal(store_set_cluster(node->store, &identity.cluster, &err), 0);
}

static void publish(struct herd_node *node, struct cluster_map *map, const uint64_t *pgs,
		    uint32_t count)
{
	cluster_map_put(node->map);
	node->map = map;
	note_registration(node);
	note_cluster(node);
	pg_peers_apply(node->peers, map);
	pg_set_apply(node->set, map, pgs, count);
	gateway_apply(node->gateway, map, node->id, node->session);
	gateway_hub_apply(node->hub, map, node->session);
}

static void on_commit(void *context, uint64_t index, const void *command, uint32_t size)
{
	struct herd_node *node = context;
	struct cluster_result result = {0};
	struct error err;
	struct cluster_map *map = cluster_apply(node->map, index, command, size, &result);

	assert_non_null(map);
	log_debug("log %llu: %s: %s %s", (unsigned long long)index,
		  cluster_command_name(result.type), wire_status_name(result.status), result.text);
	if (cluster_check(map, &err) < 0)
		fail_msg("%s", err.text);
	publish(node, map, result.pgs.ids, result.pgs.count);
	note_hub_decision(node, &result);
	cluster_result_done(&result);
}

static int on_install(void *context, uint64_t index, const void *image, size_t size,
		      struct error *err)
{
	struct herd_node *node = context;
	struct cluster_map *map;
	int rc = cluster_decode(image, size, &map, err);

	if (rc < 0)
		return rc;
	publish(node, map, NULL, 0);
	return 0;
}

static int on_snapshot(void *context, struct engine_image *out)
{
	struct herd_node *node = context;

	return cluster_encode(node->map, &out->data, &out->size);
}

static void on_ready(void *context)
{
	struct herd_node *node = context;

	node->is_ready = true;
	register_self(node);
}

static void on_members(void *context, const struct engine_member *members, uint32_t count)
{
	(void)context;
	(void)members;
	(void)count;
}

static void on_ended(void *context, const struct uuid *uuid, uint64_t start, enum engine_end how)
{
	struct herd_node *node = context;

	(void)how;
	if (node->ended_count == ARRAY_COUNT(node->ended))
		return;
	node->ended[node->ended_count].node = *uuid;
	node->ended[node->ended_count].start = start;
	node->ended_count++;
	loop_timer_start(node->loop, &node->timer, loop_now(node->loop));
}

static void on_quorum(void *context, bool has_quorum)
{
	(void)context;
	(void)has_quorum;
}

static void on_failed(void *context, const struct error *err)
{
	(void)context;
	fail_msg("engine: %s", err->text);
}

static void on_left(void *context)
{
	(void)context;
}

static const struct engine_callbacks engine_callbacks = {
	.commit = on_commit,
	.install = on_install,
	.snapshot = on_snapshot,
	.ready = on_ready,
	.members = on_members,
	.ended = on_ended,
	.quorum = on_quorum,
	.failed = on_failed,
	.left = on_left,
};

static void propose_deaths(struct herd_node *node)
{
	unsigned i = 0;

	while (i < node->ended_count) {
		const struct cluster_node *row =
			cluster_node_by_uuid(node->map, &node->ended[i].node);
		if (!row || row->start != node->ended[i].start || !(row->flags & CLUSTER_NODE_UP)) {
			node->ended[i] = node->ended[--node->ended_count];
			continue;
		}
		propose(node, cluster_command_dead(row->id, row->incarnation));
		i++;
	}
}

static bool is_planner(const struct herd_node *node)
{
	const struct cluster_node *row = NULL;

	if (!node->id || !cluster_is_formatted(node->map))
		return false;
	for (uint32_t id = 0; (row = cluster_node_next(node->map, id)); id = row->id)
		if (row->flags & CLUSTER_NODE_UP)
			return row->id == node->id;
	return false;
}

static void ticked(struct loop_timer *timer)
{
	struct herd_node *node = container_of_type(timer, struct herd_node, timer);
	const struct cluster_node *row = cluster_node_by_uuid(node->map, &node->uuid);

	if (node->is_ready && (!row || row->start != node->start))
		register_self(node);
	if (node->hub_command)
		(void)engine_propose(node->engine, node->hub_command->data,
				     node->hub_command->size);
	propose_deaths(node);
	if (is_planner(node)) {
		struct cluster_command *commands[8];
		const struct cluster_plan_input input = {0};
		int count = cluster_plan(node->map, &input, commands, ARRAY_COUNT(commands));
		for (int i = 0; i < count; i++)
			propose(node, commands[i]);
	}
	loop_timer_start(node->loop, timer, loop_now(node->loop) + TICK_NS);
}

/* ---- the store's callbacks ---- */

static void on_store_failed(void *context, struct store *store, int error)
{
	struct herd_node *node = context;

	pg_set_store_failed(node->set, store, error);
}

static void on_store_corrupt(void *context, struct store *store, uint32_t pg,
			     const struct object_key *key)
{
	struct herd_node *node = context;

	pg_set_store_corrupt(node->set, store, pg, key);
}

/* ---- starting and killing ---- */

static void open_store(struct herd_node *node)
{
	const struct store_options options = {
		.size_bytes = node->herd->options.store_bytes,
		.segment_bytes = 8u << 20,
		.shards = 1,
	};
	const struct store_callbacks callbacks = {
		.failed = on_store_failed, .corrupt = on_store_corrupt, .context = node};
	struct error err;

	if (store_open(node->loops, 1, "/disk", &options, &callbacks, &node->store, &err) < 0)
		fail_msg("%s: %s", node->name, err.text);
	node->store_incarnation = store_identity(node->store)->incarnation + 1;
	assert_int_equal(store_set_incarnation(node->store, node->store_incarnation, &err), 0);
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

	assert_int_equal(net_new(node->loop, &options, &identity, &node->net, &err), 0);
	if (net_listen(node->net, node->address, &listener, &node->listener, &err) < 0)
		fail_msg("%s: %s", node->name, err.text);
	assert_int_equal(pg_peers_new(node->net, &node->peers, &err), 0);
}

static void open_pgs(struct herd_node *node)
{
	const struct pg_env env = {
		.loop = node->loop,
		.peers = node->peers,
		.context = node,
		.propose = propose,
		.ios_max = 64,
	};
	struct net_service service = {.protocol = &pg_peer_protocol};
	struct error err;

	assert_int_equal(pg_set_new(&env, &node->set, &err), 0);
	service.context = node->set;
	assert_int_equal(net_serve(node->net, &service), 0);
	node->sets[0] = node->set;
	const struct gateway_hub_options hub = {
		.loop = node->loop, .propose = propose_for_hub, .context = node};
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
	assert_true(node->hub && node->gateway);
}

static void open_engine(struct herd_node *node)
{
	const struct engine_options options = {.self = {.node = node->uuid, .start = node->start}};
	struct error err;

	if (sim_engine_open(node->herd->log, node->loop, &options, &engine_callbacks, node,
			    &node->engine, &err) < 0)
		fail_msg("%s: %s", node->name, err.text);
}

static void on_opened(struct gateway_open *open, int result)
{
	struct herd_node *node = container_of_type(open, struct herd_node, open);

	if (result == 0)
		node->volume = open->volume;
}

static void open_volume(struct herd_node *node)
{
	node->open.done = on_opened;
	gateway_open(node->gateway, &node->open, HERD_VOLUME, 0);
}

void herd_start(struct herd *herd, unsigned number)
{
	struct herd_node *node = &herd->nodes[number];
	const struct loop_options options = {.name = node->name, .logger = &node->logger};

	assert_false(node->is_up);
	node->is_up = true;
	node->is_ready = false;
	node->incarnation++;
	node->start = random_u64(sim_random(herd->world)) | 1;
	node->proposer = (struct cluster_proposer){.start = node->start};
	node->id = node->store_id = 0;
	node->session = 0;
	node->ended_count = 0;
	node->volume = NULL;
	node->map = cluster_map_new();
	assert_int_equal(sim_loop_new(herd->world, node->host, &options, &node->loop), 0);
	node->loops[0] = node->loop;
	open_store(node);
	open_net(node);
	open_pgs(node);
	node->timer = (struct loop_timer){.fire = ticked};
	loop_timer_start(node->loop, &node->timer, loop_now(node->loop) + TICK_NS);
	open_engine(node);
}

void herd_bury(void *memory)
{
	static void **graves; /* reachable, for leak checkers */
	static size_t count;

	graves = realloc(graves, (count + 1) * sizeof(void *));
	graves[count++] = memory;
}

static void add_counters(struct pg_counters *to, const struct pg_counters *from)
{
	for (uint32_t i = 0; i < pg_counter_count; i++) {
		uint32_t at = pg_counter_table[i].offset;
		*(uint64_t *)(void *)((char *)to + at) +=
			*(const uint64_t *)(const void *)((const char *)from + at);
	}
}

void herd_kill(struct herd *herd, unsigned number, enum sim_death death)
{
	struct herd_node *node = &herd->nodes[number];

	assert_true(node->is_up);
	node->is_up = false;
	add_counters(&herd->past, pg_set_counters(node->set));
	herd_load_node_died(herd, number);
	sim_engine_crash(node->engine, death);
	sim_host_crash(node->host);
	store_forget(node->store);
	cluster_command_free(node->hub_command);
	node->hub_command = NULL;
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
	assert_int_equal(result, 0);
	stopping.is_done = true;
}

static bool is_step_done(struct herd *herd)
{
	return stopping.is_done;
}

static void deliver_step(struct loop *loop, struct loop_mail *mail)
{
	stopping.step(stopping.node);
}

/* On the node's loop; it ends by stopping.op, or at once. */
static void step(struct herd_node *node, void (*run)(struct herd_node *node), const char *what)
{
	stopping.node = node;
	stopping.is_done = false;
	stopping.op = (struct loop_op){.done = on_step};
	stopping.mail.deliver = deliver_step;
	stopping.step = run;
	loop_post(node->loop, &stopping.mail);
	herd_until(node->herd, 20000, is_step_done, what);
}

static void stop_pgs(struct herd_node *node)
{
	gateway_stop(node->gateway);
	pg_set_stop(node->set, &stopping.op);
}

static void stop_engine(struct herd_node *node)
{
	if (stopping.volume)
		gateway_close(stopping.volume, 0);
	propose(node, cluster_command_leave(node->id, node->incarnation));
	loop_timer_stop(node->loop, &node->timer);
	loop_complete(node->loop, &stopping.op, 0);
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

void herd_stop(struct herd *herd, unsigned number)
{
	struct herd_node *node = &herd->nodes[number];

	stopping.volume = node->volume;
	node->volume = NULL;
	herd_load_node_died(herd, number); /* its clients wait for nobody */
	step(node, stop_pgs, "placement groups stopped");
	step(node, stop_engine, "left");
	herd_run(herd, 50);
	step(node, stop_store, "store stopped");
	add_counters(&herd->past, pg_set_counters(node->set));
	node->is_up = false;
	sim_engine_crash(node->engine, SIM_DEATH_UNKNOWN);
	step(node, stop_net, "freed");
	for (unsigned i = 0; i < 1000 && !net_is_stopped(node->net); i++)
		herd_run(herd, 10);
	assert_true(net_is_stopped(node->net));
	net_free(node->net);
	cluster_map_put(node->map);
	assert_int_equal(buffer_cache_busy(loop_buffers(node->loop)), 0);
	sim_host_crash(node->host);
	node->loop = NULL;
	node->map = NULL;
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

static void print_state(struct herd *herd)
{
	struct cluster_map *map = herd_map(herd);

	for (uint32_t from = 0; map;) {
		const struct cluster_pg *row = cluster_pg_next(map, from);
		if (!row)
			break;
		from = row->id + 1;
		print_message("pg %u epoch %llu reign %llu primary %u isr", row->id,
			      (unsigned long long)row->epoch, (unsigned long long)row->reign,
			      row->primary);
		for (uint32_t i = 0; i < row->isr_count; i++)
			print_message(" %u/%x", row->isr[i].store, row->isr[i].flags);
		print_message(" joining");
		for (uint32_t i = 0; i < row->join_count; i++)
			print_message(" %u@%llu", row->joining[i].store,
				      (unsigned long long)row->joining[i].index);
		print_message("\n");
	}
	for (unsigned i = 0; i < herd->node_count; i++) {
		struct pg_status status;
		if (!herd->nodes[i].is_up)
			continue;
		print_message("%s: map %llu store %u\n", herd->nodes[i].name,
			      (unsigned long long)cluster_index(herd->nodes[i].map),
			      herd->nodes[i].store_id);
		for (uint32_t pg = 0; pg_set_status(herd->nodes[i].set, pg, 0, &status);
		     pg = status.pg + 1)
			print_message("  pg %u role %d %s epoch %llu in flight %u waiting %u "
				      "missing %u\n",
				      status.pg, status.role, status.state,
				      (unsigned long long)status.epoch, status.in_flight,
				      status.waiting, status.missing);
	}
}

void herd_until(struct herd *herd, uint64_t ms, bool (*done)(struct herd *herd), const char *what)
{
	struct until until = {.herd = herd, .is_done = done};

	if (sim_world_run_until(herd->world, sim_now(herd->world) + ms * NS_PER_MS, is_done,
				&until))
		return;
	print_state(herd);
	fail_msg("seed %llu: not %s within %llu ms", (unsigned long long)herd->options.seed, what,
		 (unsigned long long)ms);
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
			propose(&herd->nodes[i], command);
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
	node->logger = (struct logger){.level = LOG_LEVEL_DEBUG, .sink = sink, .context = node};
	node->host = sim_host_new(herd->world, node->name);
	(void)snprintf(node->address, sizeof(node->address), "%s:7000",
		       sim_host_address(node->host));
}

struct herd *herd_new(const struct herd_options *options)
{
	static struct logger outside = {.level = LOG_LEVEL_DEBUG, .sink = sink};
	struct herd *herd = calloc(1, sizeof(*herd));
	const struct sim_log_options log = {
		.seed = options->seed,
		.delay_min_ns = 200 * NS_PER_US,
		.delay_max_ns = 5 * NS_PER_MS,
		.loss_ppm = 50000,
		.repeat_ppm = 50000,
		.skip_ppm = 50000,
		.compact_entries = 200,
	};

	(void)log_set_current(&outside);
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
	while (!has_volume(herd)) {
		herd_propose(herd, cluster_command_volume_create(HERD_VOLUME, options->volume_bytes,
								 0, NULL, 0));
		herd_run(herd, 50);
	}
	for (unsigned i = 0; i < herd->node_count; i++)
		if (herd->nodes[i].is_up)
			open_volume(&herd->nodes[i]);
	herd_until(herd, 5000, all_open, "open");
	herd_until(herd, 10000, herd_is_healthy, "healthy");
	return herd;
}

void herd_reopen(struct herd *herd)
{
	for (unsigned i = 0; i < herd->node_count; i++)
		if (herd->nodes[i].is_up && !herd->nodes[i].volume)
			open_volume(&herd->nodes[i]);
	herd_until(herd, 10000, all_open, "open again");
}

void herd_free(struct herd *herd)
{
	for (unsigned i = 0; i < herd->node_count; i++)
		if (herd->nodes[i].is_up)
			herd_kill(herd, i, SIM_DEATH_SILENT);
	add_counters(&herd_totals, &herd->past);
	herd_load_free(herd);
	sim_log_free(herd->log);
	sim_world_free(herd->world);
	/* What crashed is not freed: its loops are gone. */
	free(herd);
}
