/* Volumes with access=single: taking over, losing, and what waits meanwhile. */
#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "tests/unit/gateway_bench.h"

/* ---- taking over ---- */

static void test_first_write_waits_for_ownership_and_for_the_primaries(void **state)
{
	struct bench *bench = *state;
	struct bench_connection connection;
	struct request writes[3], read;

	bench_create(bench, "b", "access", "single");
	uint64_t created = bench_volume(bench, "b")->generation;
	bench_connect(bench, &connection, "b");
	bench_go(bench, &connection, &read, GATEWAY_READ, 0); /* needs nothing */
	assert_int_equal(fake_set.io_count, 1);
	bench_answer(0, 0);
	for (unsigned i = 0; i < 3; i++)
		bench_go(bench, &connection, &writes[i], GATEWAY_WRITE, i * 4096);
	assert_int_equal(fake_set.io_count, 1);
	assert_int_equal(fake_set.drain_count, 0);
	bench_settle(bench);
	assert_true(bench_volume(bench, "b")->generation > created);
	assert_int_equal(bench_volume(bench, "b")->owner, bench->session);
	/* One question for all PGs of the node's loop, and nothing is sent before it is answered. */
	assert_int_equal(fake_set.drain_count, 1);
	assert_int_equal(fake_set.drains[0]->generation, bench_volume(bench, "b")->generation);
	assert_true(fake_set.drains[0]->map_index >= fake_set.drains[0]->generation);
	bench_run_ms(bench, 5000);
	assert_int_equal(fake_set.io_count, 1);
	bench_answer_drain(0, 0);
	assert_int_equal(fake_set.io_count, 4);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(fake_set.ios[i + 1]->generation,
				 bench_volume(bench, "b")->generation);
		bench_answer(i + 1, 0);
		assert_int_equal(writes[i].result + writes[i].done, 1);
	}
	gateway_close(connection.volume);
}

static void test_a_primary_that_does_not_confirm_is_asked_again(void **state)
{
	struct bench *bench = *state;
	struct bench_connection connection;
	struct request write;

	bench_create(bench, "b", "access", "single");
	bench_connect(bench, &connection, "b");
	bench_go(bench, &connection, &write, GATEWAY_WRITE, 0);
	bench_settle(bench);
	bench_answer_drain(0, -E_CLOSED);
	bench_run_ms(bench, 25);
	assert_int_equal(fake_set.drain_count, 2);
	/* Another start of it leads by now: what the one before says is not enough. */
	bench_register(bench, 2);
	bench_publish(bench);
	bench_answer_drain(1, 0);
	bench_run_ms(bench, 1);
	bench_settle(bench); /* the volume is opened, and owned, by the new session */
	bench_settle(bench);
	bench_settle(bench);
	assert_int_equal(fake_set.io_count, 0);
	unsigned last = fake_set.drain_count - 1;
	assert_true(last >= 2);
	assert_true(fake_set.drains[last]->map_index >= cluster_pg(bench->map, 0)->reign);
	bench_answer_drain(last, 0);
	assert_int_equal(fake_set.io_count, 1);
	bench_answer(0, 0);
	assert_int_equal(write.result + write.done, 1);
	gateway_close(connection.volume);
}

static void test_all_connections_of_the_owner_may_write(void **state)
{
	struct bench *bench = *state;
	struct bench_connection first, before, after;
	struct request write;

	bench_create(bench, "b", "access", "single");
	bench_connect(bench, &before, "b");
	bench_own(bench, &first, "b");
	bench_connect(bench, &after, "b");
	uint64_t generation = bench_volume(bench, "b")->generation;
	bench_go(bench, &before, &write, GATEWAY_WRITE, 0);
	bench_answer(1, 0);
	assert_int_equal(write.result + write.done, 1);
	bench_go(bench, &after, &write, GATEWAY_WRITE, 0);
	bench_answer(2, 0);
	assert_int_equal(write.result + write.done, 1);
	bench_settle(bench);
	assert_int_equal(bench_volume(bench, "b")->generation, generation);
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
	struct bench_connection connection, fresh;
	struct bench_other other = bench_other_new(bench);
	struct request parked, sent, later, read;

	bench_create(bench, "b", "access", "single");
	bench_own(bench, &connection, "b");
	bench_go(bench, &connection, &parked, GATEWAY_WRITE, 0);
	bench_go(bench, &connection, &sent, GATEWAY_WRITE, 0);
	bench_other_takes(bench, &other, "b");
	bench_answer(1, -E_NOT_PRIMARY);
	assert_int_equal(connection.lost, 0);
	bench_publish(bench);
	assert_int_equal(parked.done, 1);
	assert_int_equal(parked.result, -E_STALE_GENERATION);
	bench_run_ms(bench, 1);
	assert_int_equal(connection.lost, 1);
	bench_go(bench, &connection, &later, GATEWAY_WRITE, 0);
	assert_int_equal(later.result, -E_STALE_GENERATION);
	/* What is at a primary ends as that says; a new try there is not made. */
	assert_int_equal(sent.done, 0);
	bench_answer(2, -E_NOT_PRIMARY);
	assert_int_equal(sent.result, -E_STALE_GENERATION);
	/* Its reads are as good as anybody's. */
	unsigned n = fake_set.io_count;
	bench_go(bench, &connection, &read, GATEWAY_READ, 0);
	bench_answer(n, 0);
	assert_int_equal(read.result + read.done, 1);
	assert_int_equal(connection.lost, 1);
	assert_int_equal(bench_volume(bench, "b")->owner, other.session);
	/* A new connection begins anew. */
	bench_own(bench, &fresh, "b");
	assert_int_equal(bench_volume(bench, "b")->owner, bench->session);
	bench_go(bench, &connection, &later, GATEWAY_WRITE, 0);
	assert_int_equal(later.result, -E_STALE_GENERATION);
	gateway_close(connection.volume);
	gateway_close(fresh.volume);
}

/* Opened before another gateway took the volume, and silent until now. */
static void test_an_old_connection_does_not_retake_it(void **state)
{
	struct bench *bench = *state;
	struct bench_connection connection;
	struct bench_other other = bench_other_new(bench);
	struct request read, write;

	bench_create(bench, "b", "access", "single");
	bench_connect(bench, &connection, "b");
	bench_go(bench, &connection, &read, GATEWAY_READ, 0);
	bench_answer(0, 0);
	bench_other_takes(bench, &other, "b");
	bench_publish(bench);
	bench_run_ms(bench, 1);
	assert_int_equal(connection.lost, 0); /* it may go on reading */
	bench_go(bench, &connection, &read, GATEWAY_READ, 0);
	bench_answer(1, 0);
	assert_int_equal(read.result, 0);
	unsigned proposals = bench->proposals;
	bench_go(bench, &connection, &write, GATEWAY_WRITE, 0);
	assert_int_equal(write.result, -E_STALE_GENERATION);
	assert_int_equal(connection.lost, 1);
	bench_settle(bench);
	assert_int_equal(bench->proposals, proposals);
	assert_int_equal(bench_volume(bench, "b")->owner, other.session);
	gateway_close(connection.volume);
}

/* Both propose at the same generation; the log takes the other one first. */
static void test_who_comes_second_in_the_log_has_lost(void **state)
{
	struct bench *bench = *state;
	struct bench_connection connection;
	struct bench_other other = bench_other_new(bench);
	struct request write;

	bench_create(bench, "b", "access", "single");
	bench_connect(bench, &connection, "b");
	bench->keeps_proposals = true;
	bench_go(bench, &connection, &write, GATEWAY_WRITE, 0);
	assert_non_null(bench->kept);
	bench_other_takes(bench, &other, "b");
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
	bench_own(bench, &connection, "b");
	gateway_close(connection.volume);
}

/* A move that is lost while primaries are asked: their late answers free nothing. */
static void test_losing_it_during_the_questions(void **state)
{
	struct bench *bench = *state;
	struct bench_connection connection;
	struct bench_other other = bench_other_new(bench);
	struct request write;

	bench_create(bench, "b", "access", "single");
	bench_connect(bench, &connection, "b");
	bench_go(bench, &connection, &write, GATEWAY_WRITE, 0);
	bench_settle(bench);
	assert_int_equal(fake_set.drain_count, 1);
	bench_other_takes(bench, &other, "b");
	bench_publish(bench);
	assert_int_equal(write.result, -E_STALE_GENERATION);
	bench_answer_drain(0, 0);
	bench_run_ms(bench, 1);
	assert_int_equal(fake_set.io_count, 0);
	gateway_close(connection.volume);
}

/* Else two could take it from each other for ever, and none would write. */
static void test_a_fresh_owner_is_left_alone_for_a_moment(void **state)
{
	struct bench *bench = *state;
	struct bench_connection first, second;
	struct bench_other other = bench_other_new(bench);
	struct request write;

	bench_create(bench, "b", "access", "single");
	bench_own(bench, &first, "b");
	bench_other_takes(bench, &other, "b");
	bench_publish(bench);
	bench_run_ms(bench, 1);
	bench_connect(bench, &second, "b");
	bench_go(bench, &second, &write, GATEWAY_WRITE, 0);
	bench_run_ms(bench, 200);
	bench_settle(bench);
	assert_int_equal(bench_volume(bench, "b")->owner, other.session);
	bench_run_ms(bench, 100);
	bench_settle(bench);
	assert_int_equal(bench_volume(bench, "b")->owner, bench->session);
	bench_answer_drain(1, 0);
	bench_answer(1, 0);
	assert_int_equal(write.result + write.done, 1);
	/* One that has ended needs no moment. */
	bench_other_takes(bench, &other, "b");
	bench_publish(bench);
	assert_int_equal(
		bench_by_other(bench, &other, cluster_command_leave(other.proposer.node, 1)),
		PROTO_STATUS_OK);
	bench_publish(bench);
	gateway_close(first.volume);
	bench_own(bench, &first, "b");
	gateway_close(first.volume);
	gateway_close(second.volume);
}

/* ---- changing access ---- */

static void test_shared_lets_everybody_write_at_once(void **state)
{
	struct bench *bench = *state;
	struct bench_connection mine, silent;
	struct bench_other other = bench_other_new(bench);
	struct request write, waits;

	bench_create(bench, "b", "access", "single");
	bench_connect(bench, &silent, "b");
	bench_own(bench, &mine, "b");
	uint64_t generation = bench_volume(bench, "b")->generation;
	bench_set(bench, "b", "access", "shared");
	assert_int_equal(bench_volume(bench, "b")->generation, generation);
	bench_go(bench, &mine, &write, GATEWAY_WRITE, 0); /* nobody is disturbed */
	bench_answer(1, 0);
	assert_int_equal(write.result + write.done, 1);
	bench_go(bench, &silent, &write, GATEWAY_WRITE, 0);
	bench_answer(2, 0);
	assert_int_equal(write.result + write.done, 1);
	/* And back: all who were there have to come again, and one of them owns. */
	bench_set(bench, "b", "access", "single");
	assert_true(bench_volume(bench, "b")->generation > generation);
	bench_run_ms(bench, 1);
	assert_int_equal(mine.lost + silent.lost, 2);
	bench_go(bench, &mine, &write, GATEWAY_WRITE, 0);
	assert_int_equal(write.result, -E_STALE_GENERATION);
	gateway_close(mine.volume);
	gateway_close(silent.volume);
	/* What waits for the move goes when it is not needed any more. */
	bench_connect(bench, &mine, "b");
	bench_go(bench, &mine, &waits, GATEWAY_WRITE, 0);
	bench_settle(bench);
	unsigned ios = fake_set.io_count;
	bench_set(bench, "b", "access", "shared");
	assert_int_equal(fake_set.io_count, ios + 1);
	bench_answer(ios, 0);
	assert_int_equal(waits.result + waits.done, 1);
	bench_answer_drain(1, 0);
	(void)other;
	gateway_close(mine.volume);
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
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
