/* Calls of the client: to our own server, and to servers that break the protocol. */
#include "tests/unit/nbd_us.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/random.h"

/* ---- against our server ---- */

/* Move bytes both ways until nothing moves, @step at a time. */
static void pump(struct us *us, struct peer *peer, size_t step)
{
	size_t moved = 1;

	while (moved > 0) {
		moved = 0;
		us_send(us, step);
		peer_send(peer);
		if (us->out.size > 0) {
			size_t n = peer_feed(peer, us->out.data, min_of(us->out.size, step));
			memmove(us->out.data, us->out.data + n, us->out.size - n);
			us->out.size -= n;
			moved += n;
		}
		if (peer->out.size > 0) {
			size_t n = us_feed(us, peer->out.data, min_of(peer->out.size, step));
			memmove(peer->out.data, peer->out.data + n, peer->out.size - n);
			peer->out.size -= n;
			moved += n;
		}
	}
}

static void test_listing_and_information_of_our_server(void **state)
{
	static const char *const names[] = {"a", "b\xc3\xa4", NULL};
	struct peer_options options = {.names = names, .export = {.description = "text"}};

	for (size_t step = 1; step < 400; step += 13) {
		struct peer peer;
		struct us us;
		peer_init(&peer, &options);
		us_init(&us, NBD_GOAL_LIST, NULL);
		pump(&us, &peer, step);
		assert_int_equal(us_state(&us), NBD_CONNECTOR_DONE);
		assert_string_equal(us.listed, "a=text;b\xc3\xa4=text;");
		assert_int_equal(nbd_listener_state(peer.listener), NBD_LISTENER_CLOSED);
		us_done(&us);
		peer_done(&peer);

		peer_init(&peer, &options);
		us_init(&us, NBD_GOAL_INFO, "disk");
		pump(&us, &peer, step);
		assert_int_equal(us_state(&us), NBD_CONNECTOR_DONE);
		assert_int_equal(nbd_connector_remote(us.connector)->size, PEER_DISK);
		assert_string_equal(nbd_connector_remote(us.connector)->description, "text");
		assert_int_equal(peer.closed, 1);
		us_done(&us);
		peer_done(&peer);
	}
}

struct test_call {
	struct nbd_call call;
	uint8_t data[9000];
	struct slice slices[2];
	int result;
	unsigned done;
};

static void on_done(struct nbd_call *call, int result)
{
	struct test_call *test = container_of_type(call, struct test_call, call);

	test->result = result;
	test->done++;
}

static void prepare(struct test_call *test, uint16_t type, uint64_t offset, uint32_t length)
{
	uint32_t half = length / 2;

	test->done = 0;
	test->call = (struct nbd_call){
		.type = type,
		.offset = offset,
		.length = length,
		.into = test->data,
		.slices = test->slices,
		.slice_count = 2,
		.done = on_done,
	};
	test->slices[0] = (struct slice){.data = test->data, .size = half};
	test->slices[1] = (struct slice){.data = test->data + half, .size = length - half};
}

static void start(struct us *us, struct peer *peer, const struct peer_options *options,
		  uint32_t in_flight)
{
	peer_init(peer, options);
	us_init(us, NBD_GOAL_GO, "disk");
	pump(us, peer, 1000);
	assert_int_equal(us_state(us), NBD_CONNECTOR_DONE);
	us->client = nbd_client_new(nbd_connector_remote(us->connector), in_flight, &us->host);
	assert_non_null(us->client);
}

/* Rounds of random calls on separate ranges; the disk must be what the calls made of it. */
static void test_many_calls_to_our_server(void **state)
{
	enum { CALLS = 12, RANGE = 5000 };
	static struct test_call calls[CALLS];
	static uint8_t mirror[PEER_DISK];
	struct random random;
	struct peer peer;
	struct us us;

	random_init(&random, 5);
	memset(mirror, 0, sizeof(mirror));
	start(&us, &peer, NULL, 4);
	for (int round = 0; round < 300; round++) {
		for (unsigned i = 0; i < CALLS; i++) {
			static const uint16_t types[] = {READ, WRITE, WRITE, ZEROES, TRIM, FLUSH};
			uint16_t type = types[random_below(&random, ARRAY_COUNT(types))];
			uint32_t length = 1 + (uint32_t)random_below(&random, RANGE - 1);
			uint64_t offset = i * RANGE + random_below(&random, RANGE - length);
			prepare(&calls[i], type, offset, type == FLUSH ? 0 : length);
			if (type == FLUSH)
				calls[i].call.offset = 0;
			for (uint32_t n = 0; type == WRITE && n < length; n++)
				mirror[offset + n] = calls[i].data[n] =
					(uint8_t)random_u64(&random);
			if (type == ZEROES)
				memset(mirror + offset, 0, length);
			assert_int_equal(nbd_client_call(us.client, &calls[i].call), 0);
			assert_int_equal(calls[i].done, 0);
		}
		pump(&us, &peer, 1 + random_below(&random, 3000));
		for (unsigned i = 0; i < CALLS; i++) {
			struct nbd_call *call = &calls[i].call;
			assert_int_equal(calls[i].done, 1);
			assert_int_equal(calls[i].result, 0);
			if (call->type == READ)
				assert_memory_equal(calls[i].data, mirror + call->offset,
						    call->length);
		}
	}
	assert_memory_equal(peer.disk, mirror, sizeof(mirror));
	nbd_client_disconnect(us.client);
	assert_false(nbd_client_is_finished(us.client));
	pump(&us, &peer, 1000);
	assert_true(nbd_client_is_finished(us.client));
	assert_int_equal(nbd_device_state(peer.device), NBD_DEVICE_DRAINED);
	us_done(&us);
	peer_done(&peer);
}

static void test_calls_that_cannot_be_are_refused_here(void **state)
{
	struct peer_options options = {
		.export = {.flags = NBD_FLAG_READ_ONLY, .block_maximum = 4096}};
	struct test_call test;
	struct peer peer;
	struct us us;

	start(&us, &peer, &options, 0);
	prepare(&test, WRITE, 0, 10);
	assert_int_equal(nbd_client_call(us.client, &test.call), -EPERM);
	prepare(&test, TRIM, 0, 10);
	assert_int_equal(nbd_client_call(us.client, &test.call), -EPERM);
	prepare(&test, FLUSH, 0, 0);
	assert_int_equal(nbd_client_call(us.client, &test.call), -EOPNOTSUPP);
	prepare(&test, READ, PEER_DISK - 1, 2);
	assert_int_equal(nbd_client_call(us.client, &test.call), -EINVAL);
	prepare(&test, READ, 0, 4097);
	assert_int_equal(nbd_client_call(us.client, &test.call), -EINVAL);
	prepare(&test, DISC, 0, 0);
	assert_int_equal(nbd_client_call(us.client, &test.call), -EOPNOTSUPP);
	prepare(&test, READ, 0, 1);
	test.call.flags = NBD_CMD_FLAG_FUA;
	assert_int_equal(nbd_client_call(us.client, &test.call), -EOPNOTSUPP);
	assert_int_equal(nbd_client_in_flight(us.client), 0);
	us_done(&us);
	peer_done(&peer);
}

static void test_errors_of_the_server_come_through(void **state)
{
	static const int codes[] = {-EPERM, -EIO, -ENOMEM, -EINVAL, -ENOSPC, -ESHUTDOWN};
	struct peer_options options = {.holds_requests = true};
	struct test_call test;
	struct peer peer;
	struct us us;

	start(&us, &peer, &options, 0);
	for (size_t i = 0; i < ARRAY_COUNT(codes); i++) {
		prepare(&test, READ, 0, 100);
		assert_int_equal(nbd_client_call(us.client, &test.call), 0);
		pump(&us, &peer, 1000);
		assert_int_equal(test.done, 0);
		peer_answer(&peer, 0, codes[i]);
		pump(&us, &peer, 3);
		assert_int_equal(test.done, 1);
		assert_int_equal(test.result, codes[i]);
	}
	us_done(&us);
	peer_done(&peer);
}

static void test_lost_connection_ends_every_call_once(void **state)
{
	enum { CALLS = 9 };
	static struct test_call calls[CALLS];
	struct peer_options options = {.holds_requests = true};
	struct peer peer;
	struct us us;

	start(&us, &peer, &options, 4);
	for (unsigned i = 0; i < CALLS; i++) {
		prepare(&calls[i], i % 2 ? READ : WRITE, i * 10, 10);
		assert_int_equal(nbd_client_call(us.client, &calls[i].call), 0);
	}
	pump(&us, &peer, 100);
	assert_int_equal(peer.held_count, 4);
	peer_answer(&peer, 1, 0);
	pump(&us, &peer, 100);
	nbd_client_close(us.client);
	for (unsigned i = 0; i < CALLS; i++) {
		assert_int_equal(calls[i].done, 1);
		assert_int_equal(calls[i].result, i == 1 ? 0 : -E_CLOSED);
	}
	assert_int_equal(nbd_client_call(us.client, &calls[0].call), -E_CLOSED);
	us_done(&us);
	peer_done(&peer);
}

/* ---- servers that break the protocol ---- */

static void begin_client(struct us *us, struct nbd_remote *remote)
{
	*remote = (struct nbd_remote){
		.size = PEER_DISK, .flags = PEER_FLAGS, .block_maximum = 1 << 20};
	us_init(us, NBD_GOAL_GO, "disk");
	us->client = nbd_client_new(remote, 4, &us->host);
	assert_non_null(us->client);
}

/* The cookie of the first request that we have said. */
static uint64_t said_cookie(const struct us *us, size_t at)
{
	uint64_t cookie = 0;

	for (size_t i = 0; i < 8; i++)
		cookie = cookie << 8 | us->out.data[at + 8 + i];
	return cookie;
}

static void test_replies_to_nothing_end_the_connection(void **state)
{
	static struct nbd_remote remote;

	for (int i = 0; i < 5; i++) {
		struct blob server = {0};
		struct test_call test;
		struct us us;
		const char *why;
		begin_client(&us, &remote);
		prepare(&test, FLUSH, 0, 0);
		assert_int_equal(nbd_client_call(us.client, &test.call), 0);
		us_send(&us, 100);
		uint64_t cookie = said_cookie(&us, 0);
		if (i == 0)
			server_reply(&server, 0, cookie + 1); /* a free slot */
		else if (i == 1)
			server_reply(&server, 0, cookie + (1ull << 32)); /* another round */
		else if (i == 2)
			server_reply(&server, 0, UINT64_MAX);
		else if (i == 3)
			blob_add(&server, "4 4 8", 0x67446699ull, 0ull, cookie);
		if (i == 4) {
			server_reply(&server, 0, cookie);
			server_reply(&server, 0, cookie); /* twice */
		}
		nbd_client_feed(us.client, server.data, server.size);
		assert_int_equal(nbd_client_error(us.client, &why), -E_PROTOCOL);
		assert_string_not_equal(why, "");
		assert_int_equal(test.done, i == 4);
		nbd_client_close(us.client);
		assert_int_equal(test.done, 1);
		us_done(&us);
		blob_free(&server);
	}
}

/* A write that is refused while its data is on the way: its memory stays in use until sent. */
static void test_answer_before_all_is_sent_waits(void **state)
{
	static struct nbd_remote remote;
	struct blob server = {0};
	struct test_call test;
	struct iovec iov[4];
	struct us us;

	begin_client(&us, &remote);
	prepare(&test, WRITE, 0, 1000);
	assert_int_equal(nbd_client_call(us.client, &test.call), 0);
	assert_int_equal(nbd_client_output(us.client, iov, 4), 3);
	blob_append(&us.out, iov[0].iov_base, iov[0].iov_len);
	nbd_client_sent(us.client, 28 + 500);
	server_reply(&server, 28, said_cookie(&us, 0));
	nbd_client_feed(us.client, server.data, server.size);
	assert_int_equal(test.done, 0);
	assert_int_equal(nbd_client_output(us.client, iov, 4), 1);
	assert_int_equal(iov[0].iov_len, 500);
	nbd_client_sent(us.client, 500);
	assert_int_equal(test.done, 1);
	assert_int_equal(test.result, -ENOSPC);
	us_done(&us);

	/* Answered twice before it was sent. */
	begin_client(&us, &remote);
	prepare(&test, WRITE, 0, 1000);
	assert_int_equal(nbd_client_call(us.client, &test.call), 0);
	nbd_client_feed(us.client, server.data, server.size);
	assert_int_equal(nbd_client_error(us.client, NULL), 0);
	nbd_client_feed(us.client, server.data, server.size);
	assert_int_equal(nbd_client_error(us.client, NULL), -E_PROTOCOL);
	nbd_client_close(us.client);
	assert_int_equal(test.result, -ENOSPC);
	us_done(&us);
	blob_free(&server);
}

static void test_data_is_received_in_place(void **state)
{
	static struct nbd_remote remote;
	struct blob server = {0};
	struct test_call test;
	struct iovec iov;
	struct us us;

	begin_client(&us, &remote);
	prepare(&test, READ, 0, 1000);
	assert_int_equal(nbd_client_call(us.client, &test.call), 0);
	us_send(&us, 100);
	server_reply(&server, 0, said_cookie(&us, 0));
	assert_false(nbd_client_want(us.client, &iov));
	nbd_client_feed(us.client, server.data, server.size);
	assert_true(nbd_client_want(us.client, &iov));
	assert_ptr_equal(iov.iov_base, test.data);
	assert_int_equal(iov.iov_len, 1000);
	nbd_client_filled(us.client, 400);
	nbd_client_filled(us.client, 600);
	assert_int_equal(test.done, 1);
	us_done(&us);
	blob_free(&server);
}

static void test_random_servers_never_crash_us(void **state)
{
	static struct nbd_remote remote;
	struct random random;

	random_init(&random, 77);
	for (int round = 0; round < 3000; round++) {
		struct blob server = {0};
		struct test_call test;
		struct us us;
		if (round % 2) {
			us_init(&us, (enum nbd_goal)random_below(&random, 3), "disk");
			server_greeting(&server);
			server_info_export(&server, 7, 12345, 5);
			server_option(&server, 7, 3, "\0\1canon", 7);
			server_option(&server, 3, 2, "\0\0\0\1a", 5);
			server_option(&server, 7, 1, NULL, 0);
		} else {
			begin_client(&us, &remote);
			prepare(&test, READ, 0, 500);
			assert_int_equal(nbd_client_call(us.client, &test.call), 0);
			us_send(&us, 100);
			server_reply(&server, 0, said_cookie(&us, 0));
			blob_add(&server, "p", (size_t)600, round);
		}
		for (uint64_t n = random_below(&random, 4); n > 0; n--)
			server.data[random_below(&random, server.size)] ^=
				(uint8_t)(1u << random_below(&random, 8));
		size_t step = 1 + random_below(&random, 50);
		for (size_t at = 0; at < server.size; at += step) {
			us_feed(&us, server.data + at, min_of(step, server.size - at));
			us_send(&us, 50);
		}
		nbd_connector_eof(us.connector);
		us_done(&us);
		if (!(round % 2))
			assert_int_equal(test.done, 1);
		blob_free(&server);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_listing_and_information_of_our_server),
		cmocka_unit_test(test_many_calls_to_our_server),
		cmocka_unit_test(test_calls_that_cannot_be_are_refused_here),
		cmocka_unit_test(test_errors_of_the_server_come_through),
		cmocka_unit_test(test_lost_connection_ends_every_call_once),
		cmocka_unit_test(test_replies_to_nothing_end_the_connection),
		cmocka_unit_test(test_answer_before_all_is_sent_waits),
		cmocka_unit_test(test_data_is_received_in_place),
		cmocka_unit_test(test_random_servers_never_crash_us),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
