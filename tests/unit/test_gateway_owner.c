/* Volumes with access=single: taking over, losing, and what waits meanwhile. */
#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "tests/unit/gateway_bench.h"

/* ---- another gateway ---- */

struct other {
	struct cluster_proposer proposer;
	uint64_t session;
};

static enum proto_status by_other(struct bench *bench, struct other *other,
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

static struct other other_new(struct bench *bench)
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
	struct other other = {.proposer = {.start = 4711}};

	assert_int_equal(by_other(bench, &other, cluster_command_register(&request)),
			 PROTO_STATUS_OK);
	other.session = cluster_node(bench->map, other.proposer.node)->session;
	return other;
}

static const struct cluster_volume *volume_of(struct bench *bench, const char *name)
{
	return cluster_volume_by_name(bench->map, name);
}

static void other_opens(struct bench *bench, struct other *other, const char *name)
{
	assert_int_equal(by_other(bench, other,
				  cluster_command_volume_open(volume_of(bench, name)->id,
							      other->session, 0)),
			 PROTO_STATUS_OK);
}

/* It takes the volume over, and our gateway has not heard of it. */
static void other_takes(struct bench *bench, struct other *other, const char *name)
{
	const struct cluster_volume *volume = volume_of(bench, name);

	other_opens(bench, other, name);
	assert_int_equal(by_other(bench, other,
				  cluster_command_volume_own(volume->id, other->session,
							     volume->generation)),
			 PROTO_STATUS_OK);
}

/* ---- ours ---- */

struct connection {
	struct gateway_open open;
	struct gateway_volume *volume;
	unsigned lost; /* times that we were told */
};

static void on_lost(void *context)
{
	struct connection *connection = context;

	connection->lost++;
}

static void connect(struct bench *bench, struct connection *connection, const char *name)
{
	memset(connection, 0, sizeof(*connection));
	assert_int_equal(bench_open(bench, &connection->open, name), 0);
	connection->volume = connection->open.volume;
	gateway_watch(connection->volume, on_lost, connection);
}

static void create(struct bench *bench, const char *name, const char *key, const char *value)
{
	const struct cluster_property property = {.key = key, .value = value};
	struct cluster_result result =
		bench_apply(bench, cluster_command_volume_create(name, GIB, 0, &property, 1));

	assert_int_equal(result.status, PROTO_STATUS_OK);
	cluster_result_done(&result);
	bench_publish(bench);
}

static void set(struct bench *bench, const char *name, const char *key, const char *value)
{
	struct cluster_result result = bench_apply(
		bench, cluster_command_volume_set(volume_of(bench, name)->id, key, value));

	assert_int_equal(result.status, PROTO_STATUS_OK);
	cluster_result_done(&result);
	bench_publish(bench);
}

static void go(struct bench *bench, struct connection *connection, struct request *request,
	       enum gateway_io_kind kind, uint64_t offset)
{
	struct gateway_volume *usual = bench->volume;

	bench->volume = connection->volume;
	bench_submit(bench, request, kind, offset, kind == GATEWAY_FLUSH ? 0 : 4096);
	bench->volume = usual;
	bench_run_ms(bench, 1);
}

/* What was proposed is applied, and told. */
static void settle(struct bench *bench)
{
	bench_run_ms(bench, 1);
	bench_publish(bench);
	bench_run_ms(bench, 1);
}

static void answer_drain(unsigned n, int result)
{
	struct pg_drain *drain = fake_set.drains[n];

	assert_non_null(drain);
	fake_set.drains[n] = NULL;
	drain->done(drain, result);
}

/* A connection whose first write has been executed. */
static void own(struct bench *bench, struct connection *connection, const char *name)
{
	struct request write;
	unsigned drains = fake_set.drain_count, ios = fake_set.io_count;

	connect(bench, connection, name);
	go(bench, connection, &write, GATEWAY_WRITE, 0);
	bench_run_ms(bench, 300); /* a fresh owner is left alone so long */
	settle(bench);
	assert_int_equal(fake_set.drain_count, drains + 1);
	assert_int_equal(fake_set.io_count, ios);
	answer_drain(drains, 0);
	assert_int_equal(fake_set.io_count, ios + 1);
	bench_answer(ios, 0);
	assert_int_equal(write.done, 1);
	assert_int_equal(write.result, 0);
}

/* ---- taking over ---- */

static void test_first_write_waits_for_ownership_and_for_the_primaries(void **state)
{
	struct bench *bench = *state;
	struct connection connection;
	struct request writes[3], read;

	create(bench, "b", "access", "single");
	uint64_t created = volume_of(bench, "b")->generation;
	connect(bench, &connection, "b");
	go(bench, &connection, &read, GATEWAY_READ, 0); /* needs nothing */
	assert_int_equal(fake_set.io_count, 1);
	bench_answer(0, 0);
	for (unsigned i = 0; i < 3; i++)
		go(bench, &connection, &writes[i], GATEWAY_WRITE, i * 4096);
	assert_int_equal(fake_set.io_count, 1);
	assert_int_equal(fake_set.drain_count, 0);
	settle(bench);
	assert_true(volume_of(bench, "b")->generation > created);
	assert_int_equal(volume_of(bench, "b")->owner, bench->session);
	/* One question for all PGs of the node's loop, and nothing is sent before it is answered. */
	assert_int_equal(fake_set.drain_count, 1);
	assert_int_equal(fake_set.drains[0]->generation, volume_of(bench, "b")->generation);
	assert_true(fake_set.drains[0]->map_index >= fake_set.drains[0]->generation);
	bench_run_ms(bench, 5000);
	assert_int_equal(fake_set.io_count, 1);
	answer_drain(0, 0);
	assert_int_equal(fake_set.io_count, 4);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(fake_set.ios[i + 1]->generation,
				 volume_of(bench, "b")->generation);
		bench_answer(i + 1, 0);
		assert_int_equal(writes[i].result + writes[i].done, 1);
	}
	gateway_close(connection.volume);
}

static void test_a_primary_that_does_not_confirm_is_asked_again(void **state)
{
	struct bench *bench = *state;
	struct connection connection;
	struct request write;

	create(bench, "b", "access", "single");
	connect(bench, &connection, "b");
	go(bench, &connection, &write, GATEWAY_WRITE, 0);
	settle(bench);
	answer_drain(0, -E_CLOSED);
	bench_run_ms(bench, 25);
	assert_int_equal(fake_set.drain_count, 2);
	/* Another start of it leads by now: what the one before says is not enough. */
	bench_register(bench, 2);
	bench_publish(bench);
	answer_drain(1, 0);
	bench_run_ms(bench, 1);
	settle(bench); /* the volume is opened, and owned, by the new session */
	settle(bench);
	settle(bench);
	assert_int_equal(fake_set.io_count, 0);
	unsigned last = fake_set.drain_count - 1;
	assert_true(last >= 2);
	assert_true(fake_set.drains[last]->map_index >= cluster_pg(bench->map, 0)->reign);
	answer_drain(last, 0);
	assert_int_equal(fake_set.io_count, 1);
	bench_answer(0, 0);
	assert_int_equal(write.result + write.done, 1);
	gateway_close(connection.volume);
}

static void test_all_connections_of_the_owner_may_write(void **state)
{
	struct bench *bench = *state;
	struct connection first, before, after;
	struct request write;

	create(bench, "b", "access", "single");
	connect(bench, &before, "b");
	own(bench, &first, "b");
	connect(bench, &after, "b");
	uint64_t generation = volume_of(bench, "b")->generation;
	go(bench, &before, &write, GATEWAY_WRITE, 0);
	bench_answer(1, 0);
	assert_int_equal(write.result + write.done, 1);
	go(bench, &after, &write, GATEWAY_WRITE, 0);
	bench_answer(2, 0);
	assert_int_equal(write.result + write.done, 1);
	settle(bench);
	assert_int_equal(volume_of(bench, "b")->generation, generation);
	assert_int_equal(fake_set.drain_count, 1);
	assert_int_equal(first.lost + before.lost + after.lost, 0);
	gateway_close(first.volume);
	gateway_close(before.volume);
	gateway_close(after.volume);
}

/* ---- losing ---- */

static void test_who_lost_it_never_writes_again(void **state)
{
	struct bench *bench = *state;
	struct connection connection, fresh;
	struct other other = other_new(bench);
	struct request parked, sent, later, read;

	create(bench, "b", "access", "single");
	own(bench, &connection, "b");
	go(bench, &connection, &parked, GATEWAY_WRITE, 0);
	go(bench, &connection, &sent, GATEWAY_WRITE, 0);
	other_takes(bench, &other, "b");
	bench_answer(1, -E_NOT_PRIMARY);
	assert_int_equal(connection.lost, 0);
	bench_publish(bench);
	assert_int_equal(parked.done, 1);
	assert_int_equal(parked.result, -E_STALE_GENERATION);
	bench_run_ms(bench, 1);
	assert_int_equal(connection.lost, 1);
	go(bench, &connection, &later, GATEWAY_WRITE, 0);
	assert_int_equal(later.result, -E_STALE_GENERATION);
	/* What is at a primary ends as that says; a new try there is not made. */
	assert_int_equal(sent.done, 0);
	bench_answer(2, -E_NOT_PRIMARY);
	assert_int_equal(sent.result, -E_STALE_GENERATION);
	/* Its reads are as good as anybody's. */
	unsigned n = fake_set.io_count;
	go(bench, &connection, &read, GATEWAY_READ, 0);
	bench_answer(n, 0);
	assert_int_equal(read.result + read.done, 1);
	assert_int_equal(connection.lost, 1);
	assert_int_equal(volume_of(bench, "b")->owner, other.session);
	/* A new connection begins anew. */
	own(bench, &fresh, "b");
	assert_int_equal(volume_of(bench, "b")->owner, bench->session);
	go(bench, &connection, &later, GATEWAY_WRITE, 0);
	assert_int_equal(later.result, -E_STALE_GENERATION);
	gateway_close(connection.volume);
	gateway_close(fresh.volume);
}

/* Opened before another gateway took the volume, and silent until now. */
static void test_an_old_connection_does_not_retake_it(void **state)
{
	struct bench *bench = *state;
	struct connection connection;
	struct other other = other_new(bench);
	struct request read, write;

	create(bench, "b", "access", "single");
	connect(bench, &connection, "b");
	go(bench, &connection, &read, GATEWAY_READ, 0);
	bench_answer(0, 0);
	other_takes(bench, &other, "b");
	bench_publish(bench);
	bench_run_ms(bench, 1);
	assert_int_equal(connection.lost, 0); /* it may go on reading */
	go(bench, &connection, &read, GATEWAY_READ, 0);
	bench_answer(1, 0);
	assert_int_equal(read.result, 0);
	unsigned proposals = bench->proposals;
	go(bench, &connection, &write, GATEWAY_WRITE, 0);
	assert_int_equal(write.result, -E_STALE_GENERATION);
	assert_int_equal(connection.lost, 1);
	settle(bench);
	assert_int_equal(bench->proposals, proposals);
	assert_int_equal(volume_of(bench, "b")->owner, other.session);
	gateway_close(connection.volume);
}

/* Both propose at the same generation; the log takes the other one first. */
static void test_who_comes_second_in_the_log_has_lost(void **state)
{
	struct bench *bench = *state;
	struct connection connection;
	struct other other = other_new(bench);
	struct request write;

	create(bench, "b", "access", "single");
	connect(bench, &connection, "b");
	bench->keeps_proposals = true;
	go(bench, &connection, &write, GATEWAY_WRITE, 0);
	assert_non_null(bench->kept);
	other_takes(bench, &other, "b");
	bench->keeps_proposals = false;
	bench_commit_kept(bench); /* a no-op */
	bench_run_ms(bench, 1);
	assert_int_equal(write.done, 1);
	assert_int_equal(write.result, -E_STALE_GENERATION);
	assert_int_equal(connection.lost, 1);
	assert_int_equal(fake_set.io_count + fake_set.drain_count, 0);
	gateway_close(connection.volume);
	/* The next connection is not held up by the refusal, only by the owner's first moments. */
	bench_run_ms(bench, 300);
	own(bench, &connection, "b");
	gateway_close(connection.volume);
}

/* A move that is lost while primaries are asked: their late answers free nothing. */
static void test_losing_it_during_the_questions(void **state)
{
	struct bench *bench = *state;
	struct connection connection;
	struct other other = other_new(bench);
	struct request write;

	create(bench, "b", "access", "single");
	connect(bench, &connection, "b");
	go(bench, &connection, &write, GATEWAY_WRITE, 0);
	settle(bench);
	assert_int_equal(fake_set.drain_count, 1);
	other_takes(bench, &other, "b");
	bench_publish(bench);
	assert_int_equal(write.result, -E_STALE_GENERATION);
	answer_drain(0, 0);
	bench_run_ms(bench, 1);
	assert_int_equal(fake_set.io_count, 0);
	gateway_close(connection.volume);
}

/* Else two could take it from each other for ever, and none would write. */
static void test_a_fresh_owner_is_left_alone_for_a_moment(void **state)
{
	struct bench *bench = *state;
	struct connection first, second;
	struct other other = other_new(bench);
	struct request write;

	create(bench, "b", "access", "single");
	own(bench, &first, "b");
	other_takes(bench, &other, "b");
	bench_publish(bench);
	bench_run_ms(bench, 1);
	connect(bench, &second, "b");
	go(bench, &second, &write, GATEWAY_WRITE, 0);
	bench_run_ms(bench, 200);
	settle(bench);
	assert_int_equal(volume_of(bench, "b")->owner, other.session);
	bench_run_ms(bench, 100);
	settle(bench);
	assert_int_equal(volume_of(bench, "b")->owner, bench->session);
	answer_drain(1, 0);
	bench_answer(1, 0);
	assert_int_equal(write.result + write.done, 1);
	/* One that has ended needs no moment. */
	other_takes(bench, &other, "b");
	bench_publish(bench);
	assert_int_equal(by_other(bench, &other, cluster_command_leave(other.proposer.node, 1)),
			 PROTO_STATUS_OK);
	bench_publish(bench);
	gateway_close(first.volume);
	own(bench, &first, "b");
	gateway_close(first.volume);
	gateway_close(second.volume);
}

/* ---- changing access ---- */

static void test_shared_lets_everybody_write_at_once(void **state)
{
	struct bench *bench = *state;
	struct connection mine, silent;
	struct other other = other_new(bench);
	struct request write, waits;

	create(bench, "b", "access", "single");
	connect(bench, &silent, "b");
	own(bench, &mine, "b");
	uint64_t generation = volume_of(bench, "b")->generation;
	set(bench, "b", "access", "shared");
	assert_int_equal(volume_of(bench, "b")->generation, generation);
	go(bench, &mine, &write, GATEWAY_WRITE, 0); /* nobody is disturbed */
	bench_answer(1, 0);
	assert_int_equal(write.result + write.done, 1);
	go(bench, &silent, &write, GATEWAY_WRITE, 0);
	bench_answer(2, 0);
	assert_int_equal(write.result + write.done, 1);
	/* And back: all who were there have to come again, and one of them owns. */
	set(bench, "b", "access", "single");
	assert_true(volume_of(bench, "b")->generation > generation);
	bench_run_ms(bench, 1);
	assert_int_equal(mine.lost + silent.lost, 2);
	go(bench, &mine, &write, GATEWAY_WRITE, 0);
	assert_int_equal(write.result, -E_STALE_GENERATION);
	gateway_close(mine.volume);
	gateway_close(silent.volume);
	/* What waits for the move goes when it is not needed any more. */
	connect(bench, &mine, "b");
	go(bench, &mine, &waits, GATEWAY_WRITE, 0);
	settle(bench);
	unsigned ios = fake_set.io_count;
	set(bench, "b", "access", "shared");
	assert_int_equal(fake_set.io_count, ios + 1);
	bench_answer(ios, 0);
	assert_int_equal(waits.result + waits.done, 1);
	answer_drain(1, 0);
	(void)other;
	gateway_close(mine.volume);
}

/* ---- FLUSH ---- */

static unsigned rows_of_flush(struct bench *bench, struct connection *connection)
{
	struct request flush;
	unsigned n = fake_set.sync_count, rows = 0;

	go(bench, connection, &flush, GATEWAY_FLUSH, 0);
	if (fake_set.sync_count > n) {
		rows = fake_set.syncs[n]->row_count;
		bench_answer_sync(n, 0);
	}
	assert_int_equal(flush.done, 1);
	assert_int_equal(flush.result, 0);
	return rows;
}

static void test_first_flush_of_an_owner_asks_all(void **state)
{
	struct bench *bench = *state;
	struct connection connection;
	struct other other = other_new(bench);
	struct request write;

	create(bench, "b", "access", "single");
	own(bench, &connection, "b");
	assert_int_equal(rows_of_flush(bench, &connection), 16);
	assert_int_equal(rows_of_flush(bench, &connection), 0);
	go(bench, &connection, &write, GATEWAY_WRITE, 0);
	bench_answer(1, 0);
	assert_int_equal(rows_of_flush(bench, &connection), 1);
	/* It is open elsewhere, too; that one cannot write. */
	other_opens(bench, &other, "b");
	bench_publish(bench);
	assert_int_equal(rows_of_flush(bench, &connection), 0);
	/* Now it has. */
	other_takes(bench, &other, "b");
	bench_publish(bench);
	bench_run_ms(bench, 300);
	assert_int_equal(rows_of_flush(bench, &connection), 16);
	assert_int_equal(rows_of_flush(bench, &connection), 16);
	gateway_close(connection.volume);
	own(bench, &connection, "b");
	assert_int_equal(rows_of_flush(bench, &connection), 16);
	assert_int_equal(rows_of_flush(bench, &connection), 0);
	gateway_close(connection.volume);
}

/* A FLUSH covers what others had acknowledged before it, each time. */
static void test_flush_of_a_shared_volume_asks_all_while_others_write(void **state)
{
	struct bench *bench = *state;
	struct connection connection;
	struct other other = other_new(bench);

	create(bench, "b", "access", "shared");
	connect(bench, &connection, "b");
	assert_int_equal(rows_of_flush(bench, &connection), 16);
	assert_int_equal(rows_of_flush(bench, &connection), 0);
	other_opens(bench, &other, "b");
	bench_publish(bench);
	assert_int_equal(rows_of_flush(bench, &connection), 16);
	assert_int_equal(rows_of_flush(bench, &connection), 16);
	assert_int_equal(
		by_other(bench, &other,
			 cluster_command_volume_close(volume_of(bench, "b")->id, other.session)),
		PROTO_STATUS_OK);
	bench_publish(bench);
	assert_int_equal(rows_of_flush(bench, &connection), 16);
	assert_int_equal(rows_of_flush(bench, &connection), 0);
	gateway_close(connection.volume);
}

static int flush_through(struct bench *bench, struct connection *connection)
{
	struct request flush;
	unsigned n = fake_set.sync_count;

	go(bench, connection, &flush, GATEWAY_FLUSH, 0);
	if (fake_set.sync_count > n)
		bench_answer_sync(n, 0);
	assert_int_equal(flush.done, 1);
	return flush.result;
}

/* As fsync(2) tells each descriptor: another client's FLUSH does not take the error away. */
static void test_each_connection_hears_of_a_loss_once(void **state)
{
	struct bench *bench = *state;
	struct connection a, b, late, heir;
	struct request write;

	create(bench, "b", "access", "shared");
	connect(bench, &a, "b");
	connect(bench, &b, "b");
	connect(bench, &late, "b");
	assert_int_equal(flush_through(bench, &a), 0);
	go(bench, &a, &write, GATEWAY_WRITE, 0);
	bench_answer(0, 0);
	bench_lose_power(bench, 2);
	bench_elect(bench);
	settle(bench);
	assert_int_equal(flush_through(bench, &b), -E_LOST_WRITES);
	assert_int_equal(flush_through(bench, &b), 0);
	assert_int_equal(flush_through(bench, &a), -E_LOST_WRITES);
	assert_int_equal(flush_through(bench, &a), 0);
	/* One that left untold: whoever comes in its place is told. */
	gateway_close(late.volume);
	connect(bench, &heir, "b");
	assert_int_equal(flush_through(bench, &heir), -E_LOST_WRITES);
	assert_int_equal(flush_through(bench, &heir), 0);
	connect(bench, &late, "b");
	assert_int_equal(flush_through(bench, &late), 0);
	gateway_close(a.volume);
	gateway_close(b.volume);
	gateway_close(late.volume);
	gateway_close(heir.volume);
}

/* Acknowledged before the loss, and the answer comes after the FLUSH that told of it. */
static void test_a_late_answer_of_a_lost_write_is_no_secret(void **state)
{
	struct bench *bench = *state;
	struct connection connection;
	struct request write;

	create(bench, "b", "access", "shared");
	connect(bench, &connection, "b");
	assert_int_equal(flush_through(bench, &connection), 0);
	go(bench, &connection, &write, GATEWAY_WRITE, 0);
	bench_answer(0, 0);
	go(bench, &connection, &write, GATEWAY_WRITE, 0);
	bench_lose_power(bench, 2);
	bench_elect(bench);
	settle(bench);
	uint64_t loss_epoch = fake_loss_epoch;
	assert_int_equal(flush_through(bench, &connection), -E_LOST_WRITES);
	assert_int_equal(flush_through(bench, &connection), 0);
	fake_loss_epoch = 0; /* as it was told before */
	bench_answer(1, 0);
	assert_int_equal(write.result + write.done, 1);
	fake_loss_epoch = loss_epoch;
	assert_int_equal(flush_through(bench, &connection), -E_LOST_WRITES);
	assert_int_equal(flush_through(bench, &connection), 0);
	gateway_close(connection.volume);
}

/* A client whose connection was on one loop comes back to another one, which had no part in it. */
static void test_a_loss_is_told_by_a_loop_that_was_not_there(void **state)
{
	struct bench *bench = *state;
	struct connection connection;
	struct gateway *first = bench->gateway;
	struct request write;

	create(bench, "b", "access", "shared");
	connect(bench, &connection, "b");
	assert_int_equal(flush_through(bench, &connection), 0);
	go(bench, &connection, &write, GATEWAY_WRITE, 0);
	bench_answer(0, 0);
	gateway_close(connection.volume);
	for (unsigned i = 0; i < 60; i++) { /* longer than the hub keeps it open */
		bench_run_ms(bench, 100);
		bench_publish(bench);
	}
	assert_int_equal(volume_of(bench, "b")->opener_count, 0);
	bench_lose_power(bench, 2);
	bench_elect(bench);
	settle(bench);
	const struct gateway_options options = {
		.loop = bench->loop,
		.loop_index = 0,
		.loop_count = 1,
		.hub = bench->hub,
		.hub_loop = bench->loop,
		.loops = bench->loops,
		.sets = bench->sets,
	};
	bench->gateway = gateway_new(&options);
	bench_publish(bench);
	connect(bench, &connection, "b");
	assert_int_equal(flush_through(bench, &connection), -E_LOST_WRITES);
	assert_int_equal(flush_through(bench, &connection), 0);
	gateway_close(connection.volume);
	bench_run_ms(bench, 1);
	gateway_free(bench->gateway);
	bench->gateway = first;
	bench_publish(bench);
}

static void test_flush_of_a_pg_that_is_down_backs_off(void **state)
{
	struct bench *bench = *state;
	struct request flush;
	unsigned asked = 0;

	bench_submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	for (unsigned i = 0; i < 10000; i++) {
		bench_run_ms(bench, 1);
		if (fake_set.sync_count > asked) {
			assert_true(asked < 40);
			bench_answer_sync(asked++, -E_STORE_FAILED);
		}
	}
	assert_in_range(asked, 8, 20); /* 20, 40, ... 640 ms, then each second */
	/* A new epoch is a reason to ask at once. */
	bench_register(bench, 2);
	bench_publish(bench);
	assert_int_equal(fake_set.sync_count, asked + 1);
	bench_answer_sync(asked, 0);
	assert_int_equal(flush.done, 1);
}

/* ---- durability=always ---- */

static void test_durable_volumes_write_through(void **state)
{
	struct bench *bench = *state;
	struct connection connection;
	struct request write;

	create(bench, "b", "access", "shared");
	set(bench, "b", "durability", "always");
	connect(bench, &connection, "b");
	assert_int_equal(rows_of_flush(bench, &connection), 16);
	static const enum gateway_io_kind kinds[] = {GATEWAY_WRITE, GATEWAY_ZERO, GATEWAY_TRIM};
	for (unsigned i = 0; i < ARRAY_COUNT(kinds); i++) {
		go(bench, &connection, &write, kinds[i], 0);
		assert_true(fake_set.ios[i]->flags & PG_IO_FUA);
		bench_answer(i, 0);
		assert_int_equal(write.result + write.done, 1);
	}
	assert_int_equal(rows_of_flush(bench, &connection), 0); /* it is all there already */
	set(bench, "b", "durability", "flush");
	go(bench, &connection, &write, GATEWAY_WRITE, 0);
	assert_false(fake_set.ios[3]->flags & PG_IO_FUA);
	bench_answer(3, 0);
	assert_int_equal(rows_of_flush(bench, &connection), 1);
	gateway_close(connection.volume);
}

/* ---- request_timeout ---- */

static void set_timeout(struct bench *bench, uint64_t ms)
{
	struct cluster_result result =
		bench_apply(bench, cluster_command_setting("request_timeout", ms));

	assert_int_equal(result.status, PROTO_STATUS_OK);
	cluster_result_done(&result);
	bench_publish(bench);
}

static void test_requests_time_out_wherever_they_wait(void **state)
{
	struct bench *bench = *state;
	struct connection connection;
	struct request old, parked, sent, answered, owner, flush;

	create(bench, "b", "access", "single");
	connect(bench, &connection, "b");
	bench_submit(bench, &old, GATEWAY_WRITE, 0, 4096); /* before there was a limit */
	bench_answer(0, -E_NOT_PRIMARY);
	set_timeout(bench, 2000);
	bench_submit(bench, &parked, GATEWAY_WRITE, 0, 4096);
	bench_answer(1, -E_NOT_PRIMARY);
	bench_submit(bench, &sent, GATEWAY_WRITE, 0, 4096);
	bench_submit(bench, &answered, GATEWAY_WRITE, 0, 4096);
	bench->keeps_proposals = true;
	go(bench, &connection, &owner, GATEWAY_WRITE, 0);
	bench_submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	for (unsigned ms = 0; ms < 1900; ms++) {
		bench_run_ms(bench, 1);
		for (unsigned i = 4; i < fake_set.io_count; i++)
			if (fake_set.ios[i])
				bench_answer(i, -E_NOT_PRIMARY);
	}
	assert_int_equal(old.done + parked.done + sent.done + owner.done + flush.done, 0);
	bench_run_ms(bench, 200);
	for (unsigned i = 4; i < fake_set.io_count; i++)
		if (fake_set.ios[i])
			bench_answer(i, -E_NOT_PRIMARY);
	assert_int_equal(parked.result, -ETIMEDOUT);
	assert_int_equal(owner.result, -ETIMEDOUT);
	assert_int_equal(flush.result, -ETIMEDOUT);
	assert_int_equal(parked.done + owner.done + flush.done, 3);
	/* What a primary has ends with its answer, and is not tried again. */
	assert_int_equal(sent.done + answered.done, 0);
	bench_answer(2, -E_CLOSED);
	assert_int_equal(sent.result, -ETIMEDOUT);
	bench_answer(3, 0);
	assert_int_equal(answered.result + answered.done, 1);
	assert_int_equal(old.done, 0);
	assert_int_equal(gateway_counters(bench->gateway)->timeouts, 5);
	/* The numbers of those that were given up hold nobody back. */
	bench_answer_sync(0, 0);
	unsigned n = fake_set.io_count;
	bench_run_ms(bench, 300);
	assert_true(fake_set.io_count > n);
	bench_answer(fake_set.io_count - 1, 0);
	assert_int_equal(old.result + old.done, 1);
	gateway_close(connection.volume);
	bench->keeps_proposals = false;
	bench_commit_kept(bench);
}

int main(void)
{
#define GATEWAY_TEST(name) cmocka_unit_test_setup_teardown(name, bench_setup, bench_teardown)
	const struct CMUnitTest tests[] = {
		GATEWAY_TEST(test_first_write_waits_for_ownership_and_for_the_primaries),
		GATEWAY_TEST(test_a_primary_that_does_not_confirm_is_asked_again),
		GATEWAY_TEST(test_all_connections_of_the_owner_may_write),
		GATEWAY_TEST(test_who_lost_it_never_writes_again),
		GATEWAY_TEST(test_an_old_connection_does_not_retake_it),
		GATEWAY_TEST(test_who_comes_second_in_the_log_has_lost),
		GATEWAY_TEST(test_losing_it_during_the_questions),
		GATEWAY_TEST(test_a_fresh_owner_is_left_alone_for_a_moment),
		GATEWAY_TEST(test_shared_lets_everybody_write_at_once),
		GATEWAY_TEST(test_first_flush_of_an_owner_asks_all),
		GATEWAY_TEST(test_flush_of_a_shared_volume_asks_all_while_others_write),
		GATEWAY_TEST(test_each_connection_hears_of_a_loss_once),
		GATEWAY_TEST(test_a_late_answer_of_a_lost_write_is_no_secret),
		GATEWAY_TEST(test_a_loss_is_told_by_a_loop_that_was_not_there),
		GATEWAY_TEST(test_flush_of_a_pg_that_is_down_backs_off),
		GATEWAY_TEST(test_durable_volumes_write_through),
		GATEWAY_TEST(test_requests_time_out_wherever_they_wait),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
