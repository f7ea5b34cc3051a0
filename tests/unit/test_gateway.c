/*
 * The gateway on the simulated loop, over a made-up PG layer that keeps what it is given and
 * answers what the test says.
 */
#include "lib/base/size.h"
#include "lib/base/assert.h"
#include "sheep/gateway/gateway.h"
#include "sheep/gateway/gateway_priv.h"
#include "tests/sim/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- the made-up PG layer ---- */

#define SEEN_MAX 20000

struct pg_set {
	struct pg_io *ios[SEEN_MAX]; /* that came; NULL: answered */
	unsigned io_count;
	struct pg_sync *syncs[64];
	unsigned sync_count;
};

static struct pg_set fake_set;
static uint16_t fake_home; /* loop of every PG */

void pg_submit(struct pg_set *set, struct pg_io *io)
{
	assert(set->io_count < SEEN_MAX);
	set->ios[set->io_count++] = io;
}

void pg_sync_submit(struct pg_set *set, struct pg_sync *sync)
{
	set->syncs[set->sync_count++] = sync;
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

static uint64_t fake_loss_epoch; /* as primaries tell it */

/* Answer the n-th that came. */
static void answer(unsigned n, int result)
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

struct bench {
	struct sim_world *world;
	struct loop *loop;
	struct gateway_hub *hub;
	struct gateway *gateway;
	struct cluster_map *map;
	struct cluster_proposer proposer;
	struct loop *loops[1];
	struct pg_set *sets[1];
	struct gateway_volume *volume;
	uint64_t index;
	uint64_t session;
	unsigned proposals;
	bool keeps_proposals; /* do not apply them */
	struct cluster_command *kept;
	void *token; /* of the hub's last command; NULL: it has been decided */
};

static struct cluster_result apply(struct bench *bench, struct cluster_command *command)
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

static void publish(struct bench *bench)
{
	void *token = bench->kept ? NULL : bench->token;

	gateway_apply(bench->gateway, bench->map, 1, bench->session);
	gateway_hub_apply(bench->hub, bench->map, bench->session);
	if (token) {
		bench->token = NULL;
		gateway_hub_decided(bench->hub, token, true);
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
	struct cluster_result result = apply(bench, command);
	cluster_result_done(&result);
	return 0;
}

static void commit_kept(struct bench *bench)
{
	struct cluster_command *command = bench->kept;

	assert_non_null(command);
	bench->kept = NULL;
	struct cluster_result result = apply(bench, command);
	cluster_result_done(&result);
	publish(bench);
}

static void run_ms(struct bench *bench, uint64_t ms)
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
	struct cluster_result result = apply(bench, cluster_command_register(&request));
	assert_int_equal(result.status, PROTO_STATUS_OK);
	bench->proposer.node = (uint32_t)result.id;
	bench->session = cluster_node(bench->map, (uint32_t)result.id)->session;
	cluster_result_done(&result);
}

static void register_node(struct bench *bench, uint64_t incarnation)
{
	register_node_as(bench, incarnation, 0);
}

/* The machine loses power and comes back: all PGs have lost what was not synced. */
static void lose_power(struct bench *bench, uint64_t incarnation)
{
	register_node_as(bench, incarnation, LOG_STORE_UNCLEAN);
	publish(bench);
}

static void elect(struct bench *bench)
{
	for (uint32_t i = 0; i < 16; i++) {
		const struct cluster_pg *pg = cluster_pg(bench->map, i);
		struct cluster_result result =
			apply(bench, cluster_command_pg_elect(i, pg->epoch, pg->isr[0].store));
		assert_int_equal(result.status, PROTO_STATUS_OK);
		cluster_result_done(&result);
	}
	fake_loss_epoch = bench->index;
	publish(bench);
}

static void on_open(struct gateway_open *open, int result)
{
	open->result = result + 1000;
}

static int open_volume(struct bench *bench, struct gateway_open *open, const char *name)
{
	*open = (struct gateway_open){.done = on_open};
	gateway_open(bench->gateway, open, name, 0);
	run_ms(bench, 1);
	publish(bench);
	run_ms(bench, 1);
	return open->result - 1000;
}

static int setup(void **state)
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
	register_node(bench, 1);
	result = apply(bench, cluster_command_format(&uuid, 1, 1, 16, 0));
	assert_int_equal(result.status, PROTO_STATUS_OK);
	cluster_result_done(&result);
	struct cluster_command *plan[8];
	const struct cluster_plan_input nobody_is_out = {0};
	int planned = cluster_plan(bench->map, &nobody_is_out, plan, 8);
	assert_true(planned > 0);
	for (int i = 0; i < planned; i++) {
		result = apply(bench, plan[i]);
		cluster_result_done(&result);
	}
	result = apply(bench, cluster_command_volume_create("disk", 16 * GIB, 0, NULL, 0));
	assert_int_equal(result.status, PROTO_STATUS_OK);
	cluster_result_done(&result);
	publish(bench);
	struct gateway_open open;
	assert_int_equal(open_volume(bench, &open, "disk"), 0);
	bench->volume = open.volume;
	*state = bench;
	return 0;
}

static int teardown(void **state)
{
	struct bench *bench = *state;

	gateway_close(bench->volume, 0);
	run_ms(bench, 1);
	gateway_free(bench->gateway);
	gateway_hub_free(bench->hub);
	cluster_command_free(bench->kept);
	cluster_map_put(bench->map);
	sim_world_free(bench->world);
	free(bench);
	return 0;
}

/* ---- requests ---- */

struct request {
	struct gateway_io io;
	int done; /* times */
	int result;
};

static void on_io(struct gateway_io *io, int result)
{
	struct request *request = container_of_type(io, struct request, io);

	request->done++;
	request->result = result;
}

static uint8_t bytes[9 * MIB];

static void submit(struct bench *bench, struct request *request, enum gateway_io_kind kind,
		   uint64_t offset, uint64_t length)
{
	*request = (struct request){.io = {.done = on_io,
					   .volume = bench->volume,
					   .kind = kind,
					   .offset = offset,
					   .length = length,
					   .payload = {.data = bytes, .size = (uint32_t)length}}};
	gateway_submit(&request->io);
	assert_int_equal(request->done, 0);
}

static void test_write_over_objects_is_cut_and_joined(void **state)
{
	struct bench *bench = *state;
	struct request request;

	submit(bench, &request, GATEWAY_WRITE, 4 * MIB - 10, 4 * MIB + 20);
	assert_int_equal(fake_set.io_count, 3);
	assert_int_equal(fake_set.ios[0]->offset, 4 * MIB - 10);
	assert_int_equal(fake_set.ios[0]->length, 10);
	assert_ptr_equal(fake_set.ios[0]->slices[0].data, bytes);
	assert_int_equal(fake_set.ios[1]->index, 1);
	assert_int_equal(fake_set.ios[1]->length, 4 * MIB);
	assert_ptr_equal(fake_set.ios[1]->slices[0].data, bytes + 10);
	assert_int_equal(fake_set.ios[2]->length, 10);
	answer(2, 0);
	answer(0, 0);
	assert_int_equal(request.done, 0);
	answer(1, 0);
	assert_int_equal(request.done, 1);
	assert_int_equal(request.result, 0);
}

static void test_read_of_holes_gives_zeroes_in_order(void **state)
{
	struct bench *bench = *state;
	struct request request;
	uint64_t got = 0;

	submit(bench, &request, GATEWAY_READ, 1, 9 * MIB);
	assert_int_equal(fake_set.io_count, 3);
	answer(1, 0);
	answer(2, 0);
	answer(0, 0);
	assert_int_equal(request.result, 0);
	assert_int_equal(request.io.data_count, 3);
	for (unsigned i = 0; i < 3; i++) {
		got += request.io.data[i].size;
		assert_int_equal(request.io.data[i].data[request.io.data[i].size - 1], 0);
	}
	assert_int_equal(got, 9 * MIB);
}

static void test_first_error_is_the_requests(void **state)
{
	struct bench *bench = *state;
	struct request request;

	submit(bench, &request, GATEWAY_WRITE, 0, 8 * MIB);
	answer(0, -ENOSPC);
	assert_int_equal(request.done, 0);
	answer(1, 0);
	assert_int_equal(request.done, 1);
	assert_int_equal(request.result, -ENOSPC);
}

static void test_unexecuted_request_goes_again_with_its_number(void **state)
{
	struct bench *bench = *state;
	struct request request;

	submit(bench, &request, GATEWAY_WRITE, 0, 4096);
	uint64_t number = fake_set.ios[0]->number, epoch = fake_set.ios[0]->epoch;
	answer(0, -E_NOT_PRIMARY);
	assert_int_equal(fake_set.io_count, 1);
	run_ms(bench, 25);
	assert_int_equal(fake_set.io_count, 2);
	assert_int_equal(fake_set.ios[1]->number, number);
	answer(1, -E_CLOSED);
	/* A new epoch is a reason to go at once. */
	register_node(bench, 2);
	publish(bench);
	assert_int_equal(fake_set.io_count, 3);
	assert_int_equal(fake_set.ios[2]->number, number);
	assert_true(fake_set.ios[2]->epoch > epoch);
	answer(2, 0);
	assert_int_equal(request.done, 1);
	assert_int_equal(gateway_counters(bench->gateway)->retries, 2);
}

static void test_requests_tell_the_lowest_unanswered_number(void **state)
{
	struct bench *bench = *state;
	struct request requests[4];

	for (unsigned i = 0; i < 3; i++)
		submit(bench, &requests[i], GATEWAY_WRITE, i * 4096, 4096);
	assert_int_equal(fake_set.ios[2]->number, 3);
	assert_int_equal(fake_set.ios[2]->lowest, 1);
	answer(1, 0);
	answer(0, 0);
	submit(bench, &requests[3], GATEWAY_WRITE, 0, 4096);
	assert_int_equal(fake_set.ios[3]->number, 4);
	assert_int_equal(fake_set.ios[3]->lowest, 3);
	answer(2, 0);
	answer(3, 0);
}

static void test_window_above_the_lowest_is_bounded(void **state)
{
	struct bench *bench = *state;
	static struct request first, requests[STORE_SESSION_WINDOW + 4];
	unsigned n = 0;

	/* The first write to a PG is not answered; the others to it are. */
	submit(bench, &first, GATEWAY_WRITE, 0, 4096);
	for (; n < STORE_SESSION_WINDOW - 1; n++) {
		submit(bench, &requests[n], GATEWAY_WRITE, 4096, 4096);
		answer(n + 1, 0);
		assert_int_equal(requests[n].done, 1);
	}
	unsigned sent = fake_set.io_count;
	submit(bench, &requests[n], GATEWAY_WRITE, 4096, 4096);
	submit(bench, &requests[n + 1], GATEWAY_WRITE, 4096, 4096);
	assert_int_equal(fake_set.io_count, sent);
	answer(0, 0);
	assert_int_equal(first.done, 1);
	assert_int_equal(fake_set.io_count, sent + 2);
	assert_int_equal(fake_set.ios[sent]->lowest, STORE_SESSION_WINDOW + 1);
	answer(sent, 0);
	answer(sent + 1, 0);
}

static void test_requests_larger_than_the_pool_all_end(void **state)
{
	struct bench *bench = *state;
	static struct request requests[200];
	unsigned done = 0;

	/* 200 x 128 parts, 32 of each at a time, of a pool of 4096. */
	for (unsigned i = 0; i < 200; i++)
		submit(bench, &requests[i], GATEWAY_TRIM, 0, 128 * 4 * MIB);
	assert_int_equal(fake_set.io_count, GATEWAY_PIECES_MAX);
	for (unsigned rounds = 0; done < 200 && rounds < 100; rounds++) {
		unsigned count = fake_set.io_count;
		static struct pg_io *due[SEEN_MAX];
		memcpy(due, fake_set.ios, count * sizeof(due[0]));
		memset(fake_set.ios, 0, count * sizeof(due[0]));
		fake_set.io_count = 0;
		for (unsigned i = 0; i < count; i++)
			if (due[i])
				due[i]->done(due[i], 0);
		done = 0;
		for (unsigned i = 0; i < 200; i++)
			done += requests[i].done == 1 && requests[i].result == 0;
	}
	assert_int_equal(done, 200);
}

static void test_past_the_end_is_refused(void **state)
{
	struct bench *bench = *state;
	struct request request;

	submit(bench, &request, GATEWAY_READ, 16 * GIB - 1, 2);
	run_ms(bench, 1);
	assert_int_equal(request.result, -EINVAL);
	assert_int_equal(fake_set.io_count, 0);
}

/* ---- flush ---- */

static void answer_sync(unsigned n, int result)
{
	fake_set.syncs[n]->done(fake_set.syncs[n], result);
}

static void test_first_flush_asks_all_later_ones_what_was_written(void **state)
{
	struct bench *bench = *state;
	struct request write, flush;

	submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	run_ms(bench, 1);
	assert_int_equal(fake_set.sync_count, 1);
	assert_int_equal(fake_set.syncs[0]->row_count, 16);
	answer_sync(0, 0);
	assert_int_equal(flush.done, 1);

	submit(bench, &write, GATEWAY_WRITE, 0, 4096);
	uint32_t pg = fake_set.ios[0]->pg;
	submit(bench, &flush, GATEWAY_FLUSH, 0, 0); /* the write is not acknowledged yet */
	run_ms(bench, 1);
	assert_int_equal(flush.done, 1);
	answer(0, 0);
	submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	run_ms(bench, 1);
	assert_int_equal(fake_set.sync_count, 2);
	assert_int_equal(fake_set.syncs[1]->row_count, 1);
	assert_int_equal(fake_set.syncs[1]->rows[0].pg, pg);
	/* Another write meanwhile: it stays unflushed. */
	submit(bench, &write, GATEWAY_WRITE, 0, 4096);
	answer(1, 0);
	answer_sync(1, 0);
	assert_int_equal(flush.result, 0);
	submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	run_ms(bench, 1);
	assert_int_equal(fake_set.sync_count, 3);
	answer_sync(2, 0);
	submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	run_ms(bench, 1);
	assert_int_equal(flush.done, 1);
	assert_int_equal(fake_set.sync_count, 3);
}

static void test_flush_is_repeated_where_the_epoch_changed(void **state)
{
	struct bench *bench = *state;
	struct request flush;

	submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	run_ms(bench, 1);
	register_node(bench, 2);
	publish(bench);
	answer_sync(0, 0); /* of the old epoch */
	assert_int_equal(flush.done, 0);
	assert_int_equal(fake_set.sync_count, 2);
	answer_sync(1, -E_STALE_EPOCH);
	run_ms(bench, 25);
	assert_int_equal(fake_set.sync_count, 3);
	answer_sync(2, 0);
	assert_int_equal(flush.done, 1);
	assert_int_equal(flush.result, 0);
}

static void test_flushes_that_come_meanwhile_share_the_next(void **state)
{
	struct bench *bench = *state;
	struct request flushes[5];

	submit(bench, &flushes[0], GATEWAY_FLUSH, 0, 0);
	run_ms(bench, 1);
	for (unsigned i = 1; i < 5; i++)
		submit(bench, &flushes[i], GATEWAY_FLUSH, 0, 0);
	run_ms(bench, 1);
	assert_int_equal(fake_set.sync_count, 1);
	answer_sync(0, 0);
	assert_int_equal(flushes[0].done, 1);
	for (unsigned i = 1; i < 5; i++)
		assert_int_equal(flushes[i].done, 1); /* nothing was written in between */
}

/* ---- open and close ---- */

static void test_open_of_nothing_is_refused(void **state)
{
	struct bench *bench = *state;
	struct gateway_open open;

	assert_int_equal(open_volume(bench, &open, "nothing"), -E_NOT_FOUND);
}

static void test_open_waits_for_the_commit(void **state)
{
	struct bench *bench = *state;
	struct gateway_open open = {.done = on_open}, second;
	struct cluster_result result =
		apply(bench, cluster_command_volume_create("b", GIB, 0, NULL, 0));

	cluster_result_done(&result);
	publish(bench);
	bench->keeps_proposals = true;
	gateway_open(bench->gateway, &open, "b", 0);
	run_ms(bench, 100);
	assert_int_equal(open.result, 0);
	unsigned before = bench->proposals;
	run_ms(bench, 2000);
	publish(bench);
	assert_int_equal(bench->proposals, before); /* it is repeated by whoever took it */
	bench->keeps_proposals = false;
	commit_kept(bench);
	run_ms(bench, 1);
	assert_int_equal(open.result, 1000);
	before = bench->proposals;
	assert_int_equal(open_volume(bench, &second, "b"), 0);
	assert_int_equal(bench->proposals, before); /* it is open already */
	assert_ptr_equal(second.volume, open.volume);
	gateway_close(second.volume, 0);
	gateway_close(open.volume, 0);
	run_ms(bench, 1000);
	assert_int_equal(cluster_volume_by_name(bench->map, "b")->opener_count, 1);
	run_ms(bench, 5000);
	assert_int_equal(cluster_volume_by_name(bench->map, "b")->opener_count, 0);
	publish(bench);
}

/* A close under way is committed at any later time: who opens must not be let in before it. */
static void test_open_during_close_waits_for_both(void **state)
{
	struct bench *bench = *state;
	struct gateway_open open, again = {.done = on_open};
	struct cluster_result result =
		apply(bench, cluster_command_volume_create("b", GIB, 0, NULL, 0));

	cluster_result_done(&result);
	publish(bench);
	assert_int_equal(open_volume(bench, &open, "b"), 0);
	gateway_close(open.volume, 0);
	bench->keeps_proposals = true;
	run_ms(bench, 6000);
	assert_non_null(bench->kept); /* the close */
	gateway_open(bench->gateway, &again, "b", 0);
	run_ms(bench, 100);
	publish(bench);
	assert_int_equal(again.result, 0);
	commit_kept(bench); /* closed; and now the open is proposed */
	run_ms(bench, 100);
	assert_int_equal(again.result, 0);
	assert_int_equal(cluster_volume_by_name(bench->map, "b")->opener_count, 0);
	commit_kept(bench);
	run_ms(bench, 1);
	assert_int_equal(again.result, 1000);
	assert_int_equal(cluster_volume_by_name(bench->map, "b")->opener_count, 1);
	bench->keeps_proposals = false;
	gateway_close(again.volume, 0);
	run_ms(bench, 6000);
	publish(bench);
}

static void test_open_of_a_volume_deleted_meanwhile_is_refused(void **state)
{
	struct bench *bench = *state;
	struct gateway_open open = {.done = on_open};
	struct cluster_result result =
		apply(bench, cluster_command_volume_create("b", GIB, 0, NULL, 0));
	uint64_t id = result.id;

	cluster_result_done(&result);
	publish(bench);
	bench->keeps_proposals = true;
	gateway_open(bench->gateway, &open, "b", 0);
	run_ms(bench, 10);
	result = apply(bench, cluster_command_volume_delete(id));
	assert_int_equal(result.status, PROTO_STATUS_OK);
	cluster_result_done(&result);
	publish(bench);
	run_ms(bench, 1);
	assert_int_equal(open.result, 1000 - E_NOT_FOUND);
	bench->keeps_proposals = false;
	commit_kept(bench); /* the open, too late: a no-op */
}

/* ---- what a power failure took ---- */

/* All members are marked: nobody can be asked, and "nobody said no" is not a yes. */
static void test_flush_waits_while_no_member_is_in_sync(void **state)
{
	struct bench *bench = *state;
	struct request flush;

	lose_power(bench, 2);
	submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	run_ms(bench, 1000);
	assert_int_equal(flush.done, 0);
	assert_int_equal(fake_set.sync_count, 0);
	elect(bench);
	run_ms(bench, 300);
	assert_int_equal(fake_set.sync_count, 1);
	answer_sync(0, 0);
	assert_int_equal(flush.done, 1);
	assert_int_equal(flush.result, -E_LOST_WRITES); /* somebody's may have been there */
}

static void flush_ok(struct bench *bench)
{
	struct request flush;
	unsigned n = fake_set.sync_count;

	submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	run_ms(bench, 1);
	assert_int_equal(fake_set.sync_count, n + 1);
	answer_sync(n, 0);
	assert_int_equal(flush.done, 1);
	assert_int_equal(flush.result, 0);
}

static void test_loss_of_what_was_flushed_is_no_loss(void **state)
{
	struct bench *bench = *state;
	struct request write;

	flush_ok(bench);
	submit(bench, &write, GATEWAY_WRITE, 0, 4096);
	answer(0, 0);
	flush_ok(bench);
	lose_power(bench, 2);
	elect(bench);
	/* To another PG: a write to the same would count anew by itself. */
	uint32_t index = 1;
	const struct cluster_policy *policy = cluster_policy(bench->map, 0);
	uint64_t family = bench->volume->family;
	while (cluster_pg_of(policy, family, index) == cluster_pg_of(policy, family, 0))
		index++;
	submit(bench, &write, GATEWAY_WRITE, index * 4 * MIB, 4096);
	answer(1, 0);
	flush_ok(bench);
}

static void test_loss_of_what_was_written_during_a_flush_is_told(void **state)
{
	struct bench *bench = *state;
	struct request write, flush;

	flush_ok(bench);
	submit(bench, &write, GATEWAY_WRITE, 0, 4096);
	answer(0, 0);
	submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	run_ms(bench, 1);
	submit(bench, &write, GATEWAY_WRITE, 0, 4096);
	answer(1, 0);
	for (unsigned i = 1; i < 50; i++) {
		submit(bench, &write, GATEWAY_WRITE, i * 4 * MIB, 4096);
		answer(i + 1, 0);
	}
	lose_power(bench, 2);
	elect(bench);
	answer_sync(1, -E_STALE_EPOCH);
	run_ms(bench, 300);
	answer_sync(2, 0);
	assert_int_equal(flush.result, -E_LOST_WRITES);
}

/* The client lost its connection, not its gateway: it is owed the truth about what it wrote. */
static void test_loss_is_told_to_a_client_that_comes_back(void **state)
{
	struct bench *bench = *state;
	struct request write, flush;
	struct gateway_open open;

	flush_ok(bench);
	submit(bench, &write, GATEWAY_WRITE, 0, 4096);
	answer(0, 0);
	gateway_close(bench->volume, 0);
	run_ms(bench, 1);
	lose_power(bench, 2);
	elect(bench);
	assert_int_equal(open_volume(bench, &open, "disk"), 0);
	bench->volume = open.volume;
	submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	run_ms(bench, 1);
	answer_sync(1, 0);
	assert_int_equal(flush.result, -E_LOST_WRITES);
	flush_ok(bench); /* told once */
}

/* ---- the end ---- */

static unsigned ended, ended_ok;

static void on_owned_io(struct gateway_io *io, int result)
{
	ended++;
	ended_ok += result == 0;
	assert_true(result == 0 || result == -E_SHUTDOWN);
	free(container_of_type(io, struct request, io));
}

/* Among them such as wait for memory and have nothing in flight. */
static void test_stop_ends_every_request_once(void **state)
{
	struct bench *bench = *state;

	ended = ended_ok = 0;
	for (unsigned i = 0; i < 200; i++) {
		struct request *request = calloc(1, sizeof(*request));
		submit(bench, request, GATEWAY_TRIM, 0, 128 * 4 * MIB);
		request->io.done = on_owned_io;
	}
	gateway_stop(bench->gateway);
	for (unsigned i = 0; i < fake_set.io_count; i++)
		answer(i, i % 3 ? 0 : -E_CLOSED);
	run_ms(bench, 1);
	assert_int_equal(ended, 200);
	assert_int_equal(ended_ok, 0);
}

/* Another start of this node has registered, with more loops. */
static void test_home_that_we_do_not_have_is_waited_out(void **state)
{
	struct bench *bench = *state;
	struct request write, flush;

	fake_home = 7;
	submit(bench, &write, GATEWAY_WRITE, 0, 4096);
	submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	run_ms(bench, 500);
	assert_int_equal(fake_set.io_count + fake_set.sync_count, 0);
	fake_home = 0;
	run_ms(bench, 300);
	answer(0, 0);
	answer_sync(0, 0);
	assert_int_equal(write.done + flush.done, 2);
}

int main(void)
{
#define GATEWAY_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		GATEWAY_TEST(test_write_over_objects_is_cut_and_joined),
		GATEWAY_TEST(test_read_of_holes_gives_zeroes_in_order),
		GATEWAY_TEST(test_first_error_is_the_requests),
		GATEWAY_TEST(test_unexecuted_request_goes_again_with_its_number),
		GATEWAY_TEST(test_requests_tell_the_lowest_unanswered_number),
		GATEWAY_TEST(test_window_above_the_lowest_is_bounded),
		GATEWAY_TEST(test_requests_larger_than_the_pool_all_end),
		GATEWAY_TEST(test_past_the_end_is_refused),
		GATEWAY_TEST(test_first_flush_asks_all_later_ones_what_was_written),
		GATEWAY_TEST(test_flush_is_repeated_where_the_epoch_changed),
		GATEWAY_TEST(test_flushes_that_come_meanwhile_share_the_next),
		GATEWAY_TEST(test_open_of_nothing_is_refused),
		GATEWAY_TEST(test_open_waits_for_the_commit),
		GATEWAY_TEST(test_open_during_close_waits_for_both),
		GATEWAY_TEST(test_open_of_a_volume_deleted_meanwhile_is_refused),
		GATEWAY_TEST(test_flush_waits_while_no_member_is_in_sync),
		GATEWAY_TEST(test_loss_of_what_was_flushed_is_no_loss),
		GATEWAY_TEST(test_loss_of_what_was_written_during_a_flush_is_told),
		GATEWAY_TEST(test_loss_is_told_to_a_client_that_comes_back),
		GATEWAY_TEST(test_stop_ends_every_request_once),
		GATEWAY_TEST(test_home_that_we_do_not_have_is_waited_out),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
