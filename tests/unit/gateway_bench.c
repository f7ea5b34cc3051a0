#include "tests/unit/gateway_bench.h"

#include "lib/base/assert.h"
#include "lib/base/size.h"

/* ---- the made-up PG layer ---- */

struct pg_set fake_set;
uint16_t fake_home;

void pg_submit(struct pg_set *set, struct pg_io *io)
{
	assert(set->io_count < SEEN_MAX);
	set->ios[set->io_count++] = io;
}

void pg_sync_submit(struct pg_set *set, struct pg_sync *sync)
{
	set->syncs[set->sync_count++] = sync;
}

void pg_drain_submit(struct pg_set *set, struct pg_drain *drain)
{
	set->drains[set->drain_count++] = drain;
}

struct net_link *pg_peers_link(struct pg_peers *peers, uint32_t store, uint32_t pg, unsigned class)
{
	return NULL;
}

struct net_link *pg_peers_node_link(struct pg_peers *peers, uint32_t node, uint16_t loop,
				    unsigned class)
{
	return NULL;
}

uint16_t pg_peers_loop_of(const struct cluster_map *map, uint32_t store, uint32_t pg)
{
	return fake_home;
}

void net_link_call(struct net_link *link, struct net_call *call)
{
	fail();
}

struct slice net_call_take(struct net_call *call)
{
	fail();
	return (struct slice){0};
}

uint64_t fake_loss_epoch;

/* Answer the n-th that came. */
void bench_answer(unsigned n, int result)
{
	struct pg_io *io = fake_set.ios[n];

	assert_non_null(io);
	fake_set.ios[n] = NULL;
	if (result == 0 && io->kind == PG_IO_READ)
		io->is_hole = true;
	io->loss_epoch = fake_loss_epoch;
	io->done(io, result);
}

/* ---- a cluster of one ---- */

struct cluster_result bench_apply(struct bench *bench, struct cluster_command *command)
{
	struct cluster_result result = {0};
	struct error err;

	assert_non_null(command);
	cluster_command_sign(command, &bench->proposer);
	struct cluster_map *map =
		cluster_apply(bench->map, ++bench->index, command->data, command->size, &result);
	assert_non_null(map);
	cluster_command_free(command);
	if (result.status != PROTO_STATUS_OK)
		print_message("%s: %s\n", cluster_command_name(result.type), result.text);
	if (cluster_check(map, &err) < 0)
		fail_msg("%s", err.text);
	cluster_map_put(bench->map);
	bench->map = map;
	return result;
}

void bench_publish(struct bench *bench)
{
	void *token = bench->kept ? NULL : bench->token;

	gateway_apply(bench->gateway, bench->map, 1, bench->session);
	gateway_hub_apply(bench->hub, bench->map, bench->session);
	if (token) {
		bench->token = NULL;
		gateway_hub_decided(bench->hub, token, bench->has_effect);
	}
}

static int on_propose(void *context, struct cluster_command *command, void *token)
{
	struct bench *bench = context;

	bench->proposals++;
	assert_null(bench->kept);
	bench->token = token;
	if (bench->keeps_proposals) {
		bench->kept = command;
		return 0;
	}
	struct cluster_result result = bench_apply(bench, command);
	bench->has_effect = result.status == PROTO_STATUS_OK;
	cluster_result_done(&result);
	return 0;
}

void bench_commit_kept(struct bench *bench)
{
	struct cluster_command *command = bench->kept;

	assert_non_null(command);
	bench->kept = NULL;
	struct cluster_result result = bench_apply(bench, command);
	bench->has_effect = result.status == PROTO_STATUS_OK;
	cluster_result_done(&result);
	bench_publish(bench);
}

void bench_run_ms(struct bench *bench, uint64_t ms)
{
	sim_world_run_until(bench->world, sim_now(bench->world) + ms * NS_PER_MS, NULL, NULL);
}

static void register_node_as(struct bench *bench, uint64_t incarnation, uint32_t store_flags)
{
	const struct cluster_register_store store = {
		.flags = store_flags,
		.uuid = {{2}},
		.incarnation = incarnation,
		.start = 5,
		.size_bytes = GIB,
		.shards = 1,
		.path = "/store",
	};
	const struct cluster_register request = {
		.uuid = {{1}},
		.cluster = *cluster_uuid(bench->map),
		.incarnation = incarnation,
		.version_min = 1,
		.version_max = 1,
		.loops = 1,
		.flags = LOG_REGISTER_ALONE,
		.address = "127.0.0.1:7000",
		.zone = "z",
		.store_count = 1,
		.stores = &store,
	};

	bench->proposer.start = 77 + incarnation;
	struct cluster_result result = bench_apply(bench, cluster_command_register(&request));
	assert_int_equal(result.status, PROTO_STATUS_OK);
	bench->proposer.node = (uint32_t)result.id;
	bench->session = cluster_node(bench->map, (uint32_t)result.id)->session;
	cluster_result_done(&result);
}

void bench_register(struct bench *bench, uint64_t incarnation)
{
	register_node_as(bench, incarnation, 0);
}

/* The machine loses power and comes back: all PGs have lost what was not synced. */
void bench_lose_power(struct bench *bench, uint64_t incarnation)
{
	register_node_as(bench, incarnation, LOG_STORE_UNCLEAN);
	bench_publish(bench);
}

void bench_elect(struct bench *bench)
{
	for (uint32_t i = 0; i < 16; i++) {
		const struct cluster_pg *pg = cluster_pg(bench->map, i);
		struct cluster_result result = bench_apply(
			bench, cluster_command_pg_elect(i, pg->epoch, pg->isr[0].store));
		assert_int_equal(result.status, PROTO_STATUS_OK);
		cluster_result_done(&result);
	}
	fake_loss_epoch = bench->index;
	bench_publish(bench);
}

void bench_on_open(struct gateway_open *open, int result)
{
	open->result = result + 1000;
}

int bench_open(struct bench *bench, struct gateway_open *open, const char *name)
{
	*open = (struct gateway_open){.done = bench_on_open};
	gateway_open(bench->gateway, open, name, 0);
	bench_run_ms(bench, 1);
	bench_publish(bench);
	bench_run_ms(bench, 1);
	return open->result - 1000;
}

static void tick(struct loop_timer *timer)
{
	struct bench *bench = container_of_type(timer, struct bench, clock);

	loop_timer_start(bench->loop, timer, loop_now(bench->loop) + NS_PER_MS);
}

int bench_setup(void **state)
{
	struct bench *bench = calloc(1, sizeof(*bench));
	const struct loop_options loop_options = {.name = "test"};
	struct cluster_result result;
	struct uuid uuid = {{9}};

	memset(&fake_set, 0, sizeof(fake_set));
	fake_home = 0;
	fake_loss_epoch = 0;
	bench->world = sim_world_new(1);
	assert_int_equal(sim_loop_new(bench->world, sim_host_new(bench->world, "host"),
				      &loop_options, &bench->loop),
			 0);
	bench->clock.fire = tick;
	tick(&bench->clock);
	bench->map = cluster_map_new();
	bench->loops[0] = bench->loop;
	bench->sets[0] = &fake_set;
	const struct gateway_hub_options hub_options = {
		.loop = bench->loop, .propose = on_propose, .context = bench};
	bench->hub = gateway_hub_new(&hub_options);
	const struct gateway_options options = {
		.loop = bench->loop,
		.loop_count = 1,
		.hub = bench->hub,
		.hub_loop = bench->loop,
		.loops = bench->loops,
		.sets = bench->sets,
	};
	bench->gateway = gateway_new(&options);
	bench_register(bench, 1);
	result = bench_apply(bench, cluster_command_format(&uuid, 1, 1, 16, 0));
	assert_int_equal(result.status, PROTO_STATUS_OK);
	cluster_result_done(&result);
	struct cluster_command *plan[8];
	const struct cluster_plan_input nobody_is_out = {0};
	int planned = cluster_plan(bench->map, &nobody_is_out, plan, 8);
	assert_true(planned > 0);
	for (int i = 0; i < planned; i++) {
		result = bench_apply(bench, plan[i]);
		cluster_result_done(&result);
	}
	const struct cluster_property shared = {.key = "access", .value = "shared"};
	result = bench_apply(bench, cluster_command_volume_create("disk", 16 * GIB, 0, &shared, 1));
	assert_int_equal(result.status, PROTO_STATUS_OK);
	cluster_result_done(&result);
	bench_publish(bench);
	struct gateway_open open;
	assert_int_equal(bench_open(bench, &open, "disk"), 0);
	bench->volume = open.volume;
	*state = bench;
	return 0;
}

int bench_teardown(void **state)
{
	struct bench *bench = *state;

	gateway_close(bench->volume);
	bench_run_ms(bench, 1);
	gateway_free(bench->gateway);
	gateway_hub_free(bench->hub);
	cluster_command_free(bench->kept);
	cluster_map_put(bench->map);
	sim_world_free(bench->world);
	free(bench);
	return 0;
}

/* ---- requests ---- */

static void on_io(struct gateway_io *io, int result)
{
	struct request *request = container_of_type(io, struct request, io);

	request->done++;
	request->result = result;
}

uint8_t bench_bytes[9 * MIB];

void bench_submit(struct bench *bench, struct request *request, enum gateway_io_kind kind,
		  uint64_t offset, uint64_t length)
{
	*request = (struct request){
		.io = {.done = on_io,
		       .volume = bench->volume,
		       .kind = kind,
		       .offset = offset,
		       .length = length,
		       .payload = {.data = bench_bytes, .size = (uint32_t)length}}};
	gateway_submit(&request->io);
	assert_int_equal(request->done, 0);
}

void bench_answer_sync(unsigned n, int result)
{
	fake_set.syncs[n]->done(fake_set.syncs[n], result);
}

void bench_flush_ok(struct bench *bench)
{
	struct request flush;
	unsigned n = fake_set.sync_count;

	bench_submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	bench_run_ms(bench, 1);
	assert_int_equal(fake_set.sync_count, n + 1);
	bench_answer_sync(n, 0);
	assert_int_equal(flush.done, 1);
	assert_int_equal(flush.result, 0);
}

/* ---- another gateway ---- */

enum proto_status bench_by_other(struct bench *bench, struct bench_other *other,
				 struct cluster_command *command)
{
	const struct cluster_proposer ours = bench->proposer;

	bench->proposer = other->proposer;
	struct cluster_result result = bench_apply(bench, command);
	other->proposer = bench->proposer;
	if (result.type == LOG_REGISTER)
		other->proposer.node = (uint32_t)result.id;
	bench->proposer = ours;
	enum proto_status status = result.status;
	cluster_result_done(&result);
	return status;
}

struct bench_other bench_other_new(struct bench *bench)
{
	const struct cluster_register request = {
		.uuid = {{7}},
		.cluster = *cluster_uuid(bench->map),
		.incarnation = 1,
		.version_min = 1,
		.version_max = 1,
		.loops = 1,
		.address = "127.0.0.1:7001",
		.zone = "y",
	};
	struct bench_other other = {.proposer = {.start = 4711}};

	assert_int_equal(bench_by_other(bench, &other, cluster_command_register(&request)),
			 PROTO_STATUS_OK);
	other.session = cluster_node(bench->map, other.proposer.node)->session;
	return other;
}

const struct cluster_volume *bench_volume(struct bench *bench, const char *name)
{
	return cluster_volume_by_name(bench->map, name);
}

void bench_other_opens(struct bench *bench, struct bench_other *other, const char *name)
{
	assert_int_equal(bench_by_other(bench, other,
					cluster_command_volume_open(bench_volume(bench, name)->id,
								    other->session, 0)),
			 PROTO_STATUS_OK);
}

/* It takes the volume over, and our gateway has not heard of it. */
void bench_other_takes(struct bench *bench, struct bench_other *other, const char *name)
{
	const struct cluster_volume *volume = bench_volume(bench, name);

	bench_other_opens(bench, other, name);
	assert_int_equal(bench_by_other(bench, other,
					cluster_command_volume_own(volume->id, other->session,
								   volume->generation)),
			 PROTO_STATUS_OK);
}

/* ---- ours ---- */

static void on_lost(void *context)
{
	struct bench_connection *connection = context;

	connection->lost++;
}

void bench_connect(struct bench *bench, struct bench_connection *connection, const char *name)
{
	memset(connection, 0, sizeof(*connection));
	assert_int_equal(bench_open(bench, &connection->open, name), 0);
	connection->volume = connection->open.volume;
	gateway_watch(connection->volume, on_lost, connection);
}

void bench_create(struct bench *bench, const char *name, const char *key, const char *value)
{
	const struct cluster_property property = {.key = key, .value = value};
	struct cluster_result result =
		bench_apply(bench, cluster_command_volume_create(name, GIB, 0, &property, 1));

	assert_int_equal(result.status, PROTO_STATUS_OK);
	cluster_result_done(&result);
	bench_publish(bench);
}

void bench_set(struct bench *bench, const char *name, const char *key, const char *value)
{
	struct cluster_result result = bench_apply(
		bench, cluster_command_volume_set(bench_volume(bench, name)->id, key, value));

	assert_int_equal(result.status, PROTO_STATUS_OK);
	cluster_result_done(&result);
	bench_publish(bench);
}

void bench_go(struct bench *bench, struct bench_connection *connection, struct request *request,
	      enum gateway_io_kind kind, uint64_t offset)
{
	struct gateway_volume *usual = bench->volume;

	bench->volume = connection->volume;
	bench_submit(bench, request, kind, offset, kind == GATEWAY_FLUSH ? 0 : 4096);
	bench->volume = usual;
	bench_run_ms(bench, 1);
}

/* What was proposed is applied, and told. */
void bench_settle(struct bench *bench)
{
	bench_run_ms(bench, 1);
	bench_publish(bench);
	bench_run_ms(bench, 1);
}

void bench_answer_drain(unsigned n, int result)
{
	struct pg_drain *drain = fake_set.drains[n];

	assert_non_null(drain);
	fake_set.drains[n] = NULL;
	drain->done(drain, result);
}

/* A connection whose first write has been executed. */
void bench_own(struct bench *bench, struct bench_connection *connection, const char *name)
{
	struct request write;
	unsigned drains = fake_set.drain_count, ios = fake_set.io_count;

	bench_connect(bench, connection, name);
	bench_go(bench, connection, &write, GATEWAY_WRITE, 0);
	bench_run_ms(bench, 300); /* a fresh owner is left alone so long */
	bench_settle(bench);
	assert_int_equal(fake_set.drain_count, drains + 1);
	assert_int_equal(fake_set.io_count, ios);
	bench_answer_drain(drains, 0);
	assert_int_equal(fake_set.io_count, ios + 1);
	bench_answer(ios, 0);
	assert_int_equal(write.done, 1);
	assert_int_equal(write.result, 0);
}
