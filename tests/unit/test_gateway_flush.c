/* FLUSH beside others and after losses, writing through, and requests that time out. */
#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "tests/unit/gateway_bench.h"

/* ---- FLUSH ---- */

static unsigned rows_of_flush(struct bench *bench, struct bench_connection *connection)
{
	struct request flush;
	unsigned n = fake_set.sync_count, rows = 0;

	bench_go(bench, connection, &flush, GATEWAY_FLUSH, 0);
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
	struct bench_connection connection;
	struct bench_other other = bench_other_new(bench);
	struct request write;

	bench_create(bench, "b", "access", "single");
	bench_own(bench, &connection, "b");
	assert_int_equal(rows_of_flush(bench, &connection), 16);
	assert_int_equal(rows_of_flush(bench, &connection), 0);
	bench_go(bench, &connection, &write, GATEWAY_WRITE, 0);
	bench_answer(1, 0);
	assert_int_equal(rows_of_flush(bench, &connection), 1);
	/* It is open elsewhere, too; that one cannot write. */
	bench_other_opens(bench, &other, "b");
	bench_publish(bench);
	assert_int_equal(rows_of_flush(bench, &connection), 0);
	/* Now it has. */
	bench_other_takes(bench, &other, "b");
	bench_publish(bench);
	bench_run_ms(bench, 300);
	assert_int_equal(rows_of_flush(bench, &connection), 16);
	assert_int_equal(rows_of_flush(bench, &connection), 16);
	gateway_close(connection.volume);
	bench_own(bench, &connection, "b");
	assert_int_equal(rows_of_flush(bench, &connection), 16);
	assert_int_equal(rows_of_flush(bench, &connection), 0);
	gateway_close(connection.volume);
}

/* A FLUSH covers what others had acknowledged before it, each time. */
static void test_flush_of_a_shared_volume_asks_all_while_others_write(void **state)
{
	struct bench *bench = *state;
	struct bench_connection connection;
	struct bench_other other = bench_other_new(bench);

	bench_create(bench, "b", "access", "shared");
	bench_connect(bench, &connection, "b");
	assert_int_equal(rows_of_flush(bench, &connection), 16);
	assert_int_equal(rows_of_flush(bench, &connection), 0);
	bench_other_opens(bench, &other, "b");
	bench_publish(bench);
	assert_int_equal(rows_of_flush(bench, &connection), 16);
	assert_int_equal(rows_of_flush(bench, &connection), 16);
	assert_int_equal(bench_by_other(bench, &other,
					cluster_command_volume_close(bench_volume(bench, "b")->id,
								     other.session)),
			 PROTO_STATUS_OK);
	bench_publish(bench);
	assert_int_equal(rows_of_flush(bench, &connection), 16);
	assert_int_equal(rows_of_flush(bench, &connection), 0);
	gateway_close(connection.volume);
}

static int flush_through(struct bench *bench, struct bench_connection *connection)
{
	struct request flush;
	unsigned n = fake_set.sync_count;

	bench_go(bench, connection, &flush, GATEWAY_FLUSH, 0);
	if (fake_set.sync_count > n)
		bench_answer_sync(n, 0);
	assert_int_equal(flush.done, 1);
	return flush.result;
}

/* As fsync(2) tells each descriptor: another client's FLUSH does not take the error away. */
static void test_each_connection_hears_of_a_loss_once(void **state)
{
	struct bench *bench = *state;
	struct bench_connection a, b, late, heir;
	struct request write;

	bench_create(bench, "b", "access", "shared");
	bench_connect(bench, &a, "b");
	bench_connect(bench, &b, "b");
	bench_connect(bench, &late, "b");
	assert_int_equal(flush_through(bench, &a), 0);
	bench_go(bench, &a, &write, GATEWAY_WRITE, 0);
	bench_answer(0, 0);
	bench_lose_power(bench, 2);
	bench_elect(bench);
	bench_settle(bench);
	assert_int_equal(flush_through(bench, &b), -E_LOST_WRITES);
	assert_int_equal(flush_through(bench, &b), 0);
	assert_int_equal(flush_through(bench, &a), -E_LOST_WRITES);
	assert_int_equal(flush_through(bench, &a), 0);
	/* One that left untold: whoever comes in its place is told. */
	gateway_close(late.volume);
	bench_connect(bench, &heir, "b");
	assert_int_equal(flush_through(bench, &heir), -E_LOST_WRITES);
	assert_int_equal(flush_through(bench, &heir), 0);
	bench_connect(bench, &late, "b");
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
	struct bench_connection connection;
	struct request write;

	bench_create(bench, "b", "access", "shared");
	bench_connect(bench, &connection, "b");
	assert_int_equal(flush_through(bench, &connection), 0);
	bench_go(bench, &connection, &write, GATEWAY_WRITE, 0);
	bench_answer(0, 0);
	bench_go(bench, &connection, &write, GATEWAY_WRITE, 0);
	bench_lose_power(bench, 2);
	bench_elect(bench);
	bench_settle(bench);
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
	struct bench_connection connection;
	struct gateway *first = bench->gateway;
	struct request write;

	bench_create(bench, "b", "access", "shared");
	bench_connect(bench, &connection, "b");
	assert_int_equal(flush_through(bench, &connection), 0);
	bench_go(bench, &connection, &write, GATEWAY_WRITE, 0);
	bench_answer(0, 0);
	gateway_close(connection.volume);
	for (unsigned i = 0; i < 60; i++) { /* longer than the hub keeps it open */
		bench_run_ms(bench, 100);
		bench_publish(bench);
	}
	assert_int_equal(bench_volume(bench, "b")->opener_count, 0);
	bench_lose_power(bench, 2);
	bench_elect(bench);
	bench_settle(bench);
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
	bench_connect(bench, &connection, "b");
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

/* The map went on while a question hung: what it would wait for has happened. */
static void test_flush_goes_on_at_once_by_a_map_that_came_meanwhile(void **state)
{
	struct bench *bench = *state;
	struct request flush;
	unsigned asked = 0;

	bench_submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	for (unsigned i = 0; i < 3000; i++) { /* until the pauses are long */
		bench_run_ms(bench, 1);
		if (fake_set.sync_count > asked)
			bench_answer_sync(asked++, -E_STORE_FAILED);
	}
	while (fake_set.sync_count == asked)
		bench_run_ms(bench, 1);
	bench_register(bench, 2);
	bench_publish(bench);
	assert_int_equal(fake_set.sync_count, asked + 1); /* still out */
	bench_answer_sync(asked++, -E_CLOSED);
	assert_int_equal(fake_set.sync_count, asked + 1);
	/* And its pauses begin anew. */
	bench_answer_sync(asked++, -E_CLOSED);
	assert_int_equal(fake_set.sync_count, asked);
	bench_run_ms(bench, 25);
	assert_int_equal(fake_set.sync_count, asked + 1);
	bench_answer_sync(asked, 0);
	assert_int_equal(flush.done, 1);
	assert_int_equal(flush.result, 0);
}

/* ---- durability=always ---- */

static void test_durable_volumes_write_through(void **state)
{
	struct bench *bench = *state;
	struct bench_connection connection;
	struct request write;

	bench_create(bench, "b", "access", "shared");
	bench_set(bench, "b", "durability", "always");
	bench_connect(bench, &connection, "b");
	assert_int_equal(rows_of_flush(bench, &connection), 16);
	static const enum gateway_io_kind kinds[] = {GATEWAY_WRITE, GATEWAY_ZERO, GATEWAY_TRIM};
	for (unsigned i = 0; i < ARRAY_COUNT(kinds); i++) {
		bench_go(bench, &connection, &write, kinds[i], 0);
		assert_true(fake_set.ios[i]->flags & PG_IO_FUA);
		bench_answer(i, 0);
		assert_int_equal(write.result + write.done, 1);
	}
	assert_int_equal(rows_of_flush(bench, &connection), 0); /* it is all there already */
	bench_set(bench, "b", "durability", "flush");
	bench_go(bench, &connection, &write, GATEWAY_WRITE, 0);
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
	struct bench_connection connection;
	struct request old, parked, sent, answered, owner, flush;

	bench_create(bench, "b", "access", "single");
	bench_connect(bench, &connection, "b");
	bench_submit(bench, &old, GATEWAY_WRITE, 0, 4096); /* before there was a limit */
	bench_answer(0, -E_NOT_PRIMARY);
	set_timeout(bench, 2000);
	bench_submit(bench, &parked, GATEWAY_WRITE, 0, 4096);
	bench_answer(1, -E_NOT_PRIMARY);
	bench_submit(bench, &sent, GATEWAY_WRITE, 0, 4096);
	bench_submit(bench, &answered, GATEWAY_WRITE, 0, 4096);
	bench->keeps_proposals = true;
	bench_go(bench, &connection, &owner, GATEWAY_WRITE, 0);
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
		GATEWAY_TEST(test_first_flush_of_an_owner_asks_all),
		GATEWAY_TEST(test_flush_of_a_shared_volume_asks_all_while_others_write),
		GATEWAY_TEST(test_each_connection_hears_of_a_loss_once),
		GATEWAY_TEST(test_a_late_answer_of_a_lost_write_is_no_secret),
		GATEWAY_TEST(test_a_loss_is_told_by_a_loop_that_was_not_there),
		GATEWAY_TEST(test_flush_of_a_pg_that_is_down_backs_off),
		GATEWAY_TEST(test_flush_goes_on_at_once_by_a_map_that_came_meanwhile),
		GATEWAY_TEST(test_durable_volumes_write_through),
		GATEWAY_TEST(test_requests_time_out_wherever_they_wait),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
