/* Requests, flushes, opens and closes of a gateway. */
#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "tests/unit/gateway_bench.h"

static void test_write_over_objects_is_cut_and_joined(void **state)
{
	struct bench *bench = *state;
	struct request request;

	bench_submit(bench, &request, GATEWAY_WRITE, 4 * MIB - 10, 4 * MIB + 20);
	assert_int_equal(fake_set.io_count, 3);
	assert_int_equal(fake_set.ios[0]->offset, 4 * MIB - 10);
	assert_int_equal(fake_set.ios[0]->length, 10);
	assert_ptr_equal(fake_set.ios[0]->slices[0].data, bench_bytes);
	assert_int_equal(fake_set.ios[1]->index, 1);
	assert_int_equal(fake_set.ios[1]->length, 4 * MIB);
	assert_ptr_equal(fake_set.ios[1]->slices[0].data, bench_bytes + 10);
	assert_int_equal(fake_set.ios[2]->length, 10);
	bench_answer(2, 0);
	bench_answer(0, 0);
	assert_int_equal(request.done, 0);
	bench_answer(1, 0);
	assert_int_equal(request.done, 1);
	assert_int_equal(request.result, 0);
}

static void test_read_of_holes_gives_zeroes_in_order(void **state)
{
	struct bench *bench = *state;
	struct request request;
	uint64_t got = 0;

	bench_submit(bench, &request, GATEWAY_READ, 1, 9 * MIB);
	assert_int_equal(fake_set.io_count, 3);
	bench_answer(1, 0);
	bench_answer(2, 0);
	bench_answer(0, 0);
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

	bench_submit(bench, &request, GATEWAY_WRITE, 0, 8 * MIB);
	bench_answer(0, -ENOSPC);
	assert_int_equal(request.done, 0);
	bench_answer(1, 0);
	assert_int_equal(request.done, 1);
	assert_int_equal(request.result, -ENOSPC);
}

static void test_unexecuted_request_goes_again_with_its_number(void **state)
{
	struct bench *bench = *state;
	struct request request;

	bench_submit(bench, &request, GATEWAY_WRITE, 0, 4096);
	uint64_t number = fake_set.ios[0]->number, epoch = fake_set.ios[0]->epoch;
	bench_answer(0, -E_NOT_PRIMARY);
	assert_int_equal(fake_set.io_count, 1);
	bench_run_ms(bench, 25);
	assert_int_equal(fake_set.io_count, 2);
	assert_int_equal(fake_set.ios[1]->number, number);
	bench_answer(1, -E_CLOSED);
	/* A new epoch is a reason to go at once. */
	bench_register(bench, 2);
	bench_publish(bench);
	assert_int_equal(fake_set.io_count, 3);
	assert_int_equal(fake_set.ios[2]->number, number);
	assert_true(fake_set.ios[2]->epoch > epoch);
	bench_answer(2, 0);
	assert_int_equal(request.done, 1);
	assert_int_equal(gateway_counters(bench->gateway)->retries, 2);
}

static void test_requests_tell_the_lowest_unanswered_number(void **state)
{
	struct bench *bench = *state;
	struct request requests[4];

	for (unsigned i = 0; i < 3; i++)
		bench_submit(bench, &requests[i], GATEWAY_WRITE, i * 4096, 4096);
	assert_int_equal(fake_set.ios[2]->number, 3);
	assert_int_equal(fake_set.ios[2]->lowest, 1);
	bench_answer(1, 0);
	bench_answer(0, 0);
	bench_submit(bench, &requests[3], GATEWAY_WRITE, 0, 4096);
	assert_int_equal(fake_set.ios[3]->number, 4);
	assert_int_equal(fake_set.ios[3]->lowest, 3);
	bench_answer(2, 0);
	bench_answer(3, 0);
}

static void test_window_above_the_lowest_is_bounded(void **state)
{
	struct bench *bench = *state;
	static struct request first, requests[STORE_SESSION_WINDOW + 4];
	unsigned n = 0;

	/* The first write to a PG is not answered; the others to it are. */
	bench_submit(bench, &first, GATEWAY_WRITE, 0, 4096);
	for (; n < STORE_SESSION_WINDOW - 1; n++) {
		bench_submit(bench, &requests[n], GATEWAY_WRITE, 4096, 4096);
		bench_answer(n + 1, 0);
		assert_int_equal(requests[n].done, 1);
	}
	unsigned sent = fake_set.io_count;
	bench_submit(bench, &requests[n], GATEWAY_WRITE, 4096, 4096);
	bench_submit(bench, &requests[n + 1], GATEWAY_WRITE, 4096, 4096);
	assert_int_equal(fake_set.io_count, sent);
	bench_answer(0, 0);
	assert_int_equal(first.done, 1);
	assert_int_equal(fake_set.io_count, sent + 2);
	assert_int_equal(fake_set.ios[sent]->lowest, STORE_SESSION_WINDOW + 1);
	bench_answer(sent, 0);
	bench_answer(sent + 1, 0);
}

static void test_requests_larger_than_the_pool_all_end(void **state)
{
	struct bench *bench = *state;
	static struct request requests[200];
	unsigned done = 0;

	/* 200 x 128 parts, 32 of each at a time, of a pool of 4096. */
	for (unsigned i = 0; i < 200; i++)
		bench_submit(bench, &requests[i], GATEWAY_TRIM, 0, 128 * 4 * MIB);
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

	bench_submit(bench, &request, GATEWAY_READ, 16 * GIB - 1, 2);
	bench_run_ms(bench, 1);
	assert_int_equal(request.result, -EINVAL);
	assert_int_equal(fake_set.io_count, 0);
}

/* ---- flush ---- */

static void test_first_flush_asks_all_later_ones_what_was_written(void **state)
{
	struct bench *bench = *state;
	struct request write, flush;

	bench_submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	bench_run_ms(bench, 1);
	assert_int_equal(fake_set.sync_count, 1);
	assert_int_equal(fake_set.syncs[0]->row_count, 16);
	bench_answer_sync(0, 0);
	assert_int_equal(flush.done, 1);

	bench_submit(bench, &write, GATEWAY_WRITE, 0, 4096);
	uint32_t pg = fake_set.ios[0]->pg;
	bench_submit(bench, &flush, GATEWAY_FLUSH, 0, 0); /* the write is not acknowledged yet */
	bench_run_ms(bench, 1);
	assert_int_equal(flush.done, 1);
	bench_answer(0, 0);
	bench_submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	bench_run_ms(bench, 1);
	assert_int_equal(fake_set.sync_count, 2);
	assert_int_equal(fake_set.syncs[1]->row_count, 1);
	assert_int_equal(fake_set.syncs[1]->rows[0].pg, pg);
	/* Another write meanwhile: it stays unflushed. */
	bench_submit(bench, &write, GATEWAY_WRITE, 0, 4096);
	bench_answer(1, 0);
	bench_answer_sync(1, 0);
	assert_int_equal(flush.result, 0);
	bench_submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	bench_run_ms(bench, 1);
	assert_int_equal(fake_set.sync_count, 3);
	bench_answer_sync(2, 0);
	bench_submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	bench_run_ms(bench, 1);
	assert_int_equal(flush.done, 1);
	assert_int_equal(fake_set.sync_count, 3);
}

static void test_flush_is_repeated_where_the_epoch_changed(void **state)
{
	struct bench *bench = *state;
	struct request flush;

	bench_submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	bench_run_ms(bench, 1);
	bench_register(bench, 2);
	bench_publish(bench);
	bench_answer_sync(0, 0); /* of the old epoch */
	assert_int_equal(flush.done, 0);
	assert_int_equal(fake_set.sync_count, 2);
	bench_answer_sync(1, -E_STALE_EPOCH);
	bench_run_ms(bench, 25);
	assert_int_equal(fake_set.sync_count, 3);
	bench_answer_sync(2, 0);
	assert_int_equal(flush.done, 1);
	assert_int_equal(flush.result, 0);
}

static void test_flushes_that_come_meanwhile_share_the_next(void **state)
{
	struct bench *bench = *state;
	struct request flushes[5];

	bench_submit(bench, &flushes[0], GATEWAY_FLUSH, 0, 0);
	bench_run_ms(bench, 1);
	for (unsigned i = 1; i < 5; i++)
		bench_submit(bench, &flushes[i], GATEWAY_FLUSH, 0, 0);
	bench_run_ms(bench, 1);
	assert_int_equal(fake_set.sync_count, 1);
	bench_answer_sync(0, 0);
	assert_int_equal(flushes[0].done, 1);
	for (unsigned i = 1; i < 5; i++)
		assert_int_equal(flushes[i].done, 1); /* nothing was written in between */
}

/* ---- open and close ---- */

static void test_open_of_nothing_is_refused(void **state)
{
	struct bench *bench = *state;
	struct gateway_open open;

	assert_int_equal(bench_open(bench, &open, "nothing"), -E_NOT_FOUND);
}

static void test_open_waits_for_the_commit(void **state)
{
	struct bench *bench = *state;
	struct gateway_open open = {.done = bench_on_open}, second;
	struct cluster_result result =
		bench_apply(bench, cluster_command_volume_create("b", GIB, 0, NULL, 0));

	cluster_result_done(&result);
	bench_publish(bench);
	bench->keeps_proposals = true;
	gateway_open(bench->gateway, &open, "b", 0);
	bench_run_ms(bench, 100);
	assert_int_equal(open.result, 0);
	unsigned before = bench->proposals;
	bench_run_ms(bench, 2000);
	bench_publish(bench);
	assert_int_equal(bench->proposals, before); /* it is repeated by whoever took it */
	bench->keeps_proposals = false;
	bench_commit_kept(bench);
	bench_run_ms(bench, 1);
	assert_int_equal(open.result, 1000);
	before = bench->proposals;
	assert_int_equal(bench_open(bench, &second, "b"), 0);
	assert_int_equal(bench->proposals, before); /* it is open already */
	assert_ptr_equal(second.volume->shared, open.volume->shared);
	gateway_close(second.volume);
	gateway_close(open.volume);
	bench_run_ms(bench, 1000);
	assert_int_equal(cluster_volume_by_name(bench->map, "b")->opener_count, 1);
	bench_run_ms(bench, 5000);
	assert_int_equal(cluster_volume_by_name(bench->map, "b")->opener_count, 0);
	bench_publish(bench);
}

/* A close under way is committed at any later time: who opens must not be let in before it. */
static void test_open_during_close_waits_for_both(void **state)
{
	struct bench *bench = *state;
	struct gateway_open open, again = {.done = bench_on_open};
	struct cluster_result result =
		bench_apply(bench, cluster_command_volume_create("b", GIB, 0, NULL, 0));

	cluster_result_done(&result);
	bench_publish(bench);
	assert_int_equal(bench_open(bench, &open, "b"), 0);
	gateway_close(open.volume);
	bench->keeps_proposals = true;
	bench_run_ms(bench, 6000);
	assert_non_null(bench->kept); /* the close */
	gateway_open(bench->gateway, &again, "b", 0);
	bench_run_ms(bench, 100);
	bench_publish(bench);
	assert_int_equal(again.result, 0);
	bench_commit_kept(bench); /* closed; and now the open is proposed */
	bench_run_ms(bench, 100);
	assert_int_equal(again.result, 0);
	assert_int_equal(cluster_volume_by_name(bench->map, "b")->opener_count, 0);
	bench_commit_kept(bench);
	bench_run_ms(bench, 1);
	assert_int_equal(again.result, 1000);
	assert_int_equal(cluster_volume_by_name(bench->map, "b")->opener_count, 1);
	bench->keeps_proposals = false;
	gateway_close(again.volume);
	bench_run_ms(bench, 6000);
	bench_publish(bench);
}

static void test_open_of_a_volume_deleted_meanwhile_is_refused(void **state)
{
	struct bench *bench = *state;
	struct gateway_open open = {.done = bench_on_open};
	struct cluster_result result =
		bench_apply(bench, cluster_command_volume_create("b", GIB, 0, NULL, 0));
	uint64_t id = result.id;

	cluster_result_done(&result);
	bench_publish(bench);
	bench->keeps_proposals = true;
	gateway_open(bench->gateway, &open, "b", 0);
	bench_run_ms(bench, 10);
	result = bench_apply(bench, cluster_command_volume_delete(id));
	assert_int_equal(result.status, PROTO_STATUS_OK);
	cluster_result_done(&result);
	bench_publish(bench);
	bench_run_ms(bench, 1);
	assert_int_equal(open.result, 1000 - E_NOT_FOUND);
	bench->keeps_proposals = false;
	bench_commit_kept(bench); /* the open, too late: a no-op */
}

/* ---- what a power failure took ---- */

/* All members are marked: nobody can be asked, and "nobody said no" is not a yes. */
static void test_flush_waits_while_no_member_is_in_sync(void **state)
{
	struct bench *bench = *state;
	struct request flush;

	bench_lose_power(bench, 2);
	bench_submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	bench_run_ms(bench, 1000);
	assert_int_equal(flush.done, 0);
	assert_int_equal(fake_set.sync_count, 0);
	bench_elect(bench);
	bench_run_ms(bench, 300);
	assert_int_equal(fake_set.sync_count, 1);
	bench_answer_sync(0, 0);
	assert_int_equal(flush.done, 1);
	assert_int_equal(flush.result, -E_LOST_WRITES); /* somebody's may have been there */
}

static void test_loss_of_what_was_flushed_is_no_loss(void **state)
{
	struct bench *bench = *state;
	struct request write;

	bench_flush_ok(bench);
	bench_submit(bench, &write, GATEWAY_WRITE, 0, 4096);
	bench_answer(0, 0);
	bench_flush_ok(bench);
	bench_lose_power(bench, 2);
	bench_elect(bench);
	/* To another PG: a write to the same would count anew by itself. */
	uint32_t index = 1;
	const struct cluster_policy *policy = cluster_policy(bench->map, 0);
	uint64_t family = bench->volume->shared->family;
	while (cluster_pg_of(policy, family, index) == cluster_pg_of(policy, family, 0))
		index++;
	bench_submit(bench, &write, GATEWAY_WRITE, index * 4 * MIB, 4096);
	bench_answer(1, 0);
	bench_flush_ok(bench);
}

static void test_loss_of_what_was_written_during_a_flush_is_told(void **state)
{
	struct bench *bench = *state;
	struct request write, flush;

	bench_flush_ok(bench);
	bench_submit(bench, &write, GATEWAY_WRITE, 0, 4096);
	bench_answer(0, 0);
	bench_submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	bench_run_ms(bench, 1);
	bench_submit(bench, &write, GATEWAY_WRITE, 0, 4096);
	bench_answer(1, 0);
	for (unsigned i = 1; i < 50; i++) {
		bench_submit(bench, &write, GATEWAY_WRITE, i * 4 * MIB, 4096);
		bench_answer(i + 1, 0);
	}
	bench_lose_power(bench, 2);
	bench_elect(bench);
	bench_answer_sync(1, -E_STALE_EPOCH);
	bench_run_ms(bench, 300);
	bench_answer_sync(2, 0);
	assert_int_equal(flush.result, -E_LOST_WRITES);
}

/* The client lost its connection, not its gateway: it is owed the truth about what it wrote. */
static void test_loss_is_told_to_a_client_that_comes_back(void **state)
{
	struct bench *bench = *state;
	struct request write, flush;
	struct gateway_open open;

	bench_flush_ok(bench);
	bench_submit(bench, &write, GATEWAY_WRITE, 0, 4096);
	bench_answer(0, 0);
	gateway_close(bench->volume);
	bench_run_ms(bench, 1);
	bench_lose_power(bench, 2);
	bench_elect(bench);
	assert_int_equal(bench_open(bench, &open, "disk"), 0);
	bench->volume = open.volume;
	bench_submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	bench_run_ms(bench, 1);
	bench_answer_sync(1, 0);
	assert_int_equal(flush.result, -E_LOST_WRITES);
	bench_submit(bench, &flush, GATEWAY_FLUSH, 0,
		     0); /* told once; nothing is left to be asked */
	bench_run_ms(bench, 1);
	assert_int_equal(flush.done, 1);
	assert_int_equal(flush.result, 0);
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
		bench_submit(bench, request, GATEWAY_TRIM, 0, 128 * 4 * MIB);
		request->io.done = on_owned_io;
	}
	gateway_stop(bench->gateway);
	for (unsigned i = 0; i < fake_set.io_count; i++)
		bench_answer(i, i % 3 ? 0 : -E_CLOSED);
	bench_run_ms(bench, 1);
	assert_int_equal(ended, 200);
	assert_int_equal(ended_ok, 0);
}

/* Another start of this node has registered, with more loops. */
static void test_home_that_we_do_not_have_is_waited_out(void **state)
{
	struct bench *bench = *state;
	struct request write, flush;

	fake_home = 7;
	bench_submit(bench, &write, GATEWAY_WRITE, 0, 4096);
	bench_submit(bench, &flush, GATEWAY_FLUSH, 0, 0);
	bench_run_ms(bench, 500);
	assert_int_equal(fake_set.io_count + fake_set.sync_count, 0);
	fake_home = 0;
	bench_run_ms(bench, 300);
	bench_answer(0, 0);
	bench_answer_sync(0, 0);
	assert_int_equal(write.done + flush.done, 2);
}

int main(void)
{
#define GATEWAY_TEST(name) cmocka_unit_test_setup_teardown(name, bench_setup, bench_teardown)
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
