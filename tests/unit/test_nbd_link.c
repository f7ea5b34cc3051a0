/*
 * An NBD connection on the real loop and on the simulated one: what the host adds to the listener
 * and the device. The client is the other end of a socket pair, spoken to byte by byte.
 */
#include "lib/net/net.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/random.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "tests/sim/sim.h"
#include "tests/unit/nbd_peer.h"

#define DISK	    (8u << 20)
#define DEADLINE_NS (20 * NS_PER_S)
#define HELD_MAX    300u

enum { READ, WRITE, DISC, FLUSH };

struct world {
	struct sim_world *sim; /* NULL: real */
	struct loop *loop;
	struct nbd_server *server;
	struct nbd_link *link;
	struct nbd_export export;
	uint8_t *disk;
	bool holds;
	bool is_closed; /* the link */
	char why[128];
	unsigned closed;   /* the export */
	struct slice kept; /* of the last write; `keeps` */
	bool keeps;
	struct nbd_request *held[HELD_MAX];
	unsigned held_count;
	uint64_t copied;
	/* the client */
	struct loop_socket *socket;
	struct loop_op send_op, recv_op;
	struct iovec send_iov, recv_iov;
	bool is_sent, has_end;
	struct blob in;
	uint8_t chunk[65536];
};

static void answer(struct world *world, struct nbd_request *request)
{
	uint8_t *at = world->disk + request->offset;
	struct slice data = {.data = at, .size = (uint32_t)request->length};

	if (request->type == WRITE)
		memcpy(at, request->payload.data, request->payload.size);
	if (request->type == WRITE && world->keeps) {
		world->kept = request->payload;
		request->payload.buffer = NULL;
	}
	world->copied = nbd_device_stats(request->device)->copied;
	nbd_request_reply(request, 0, &data, request->type == READ);
}

static void on_request(struct nbd_request *request)
{
	struct world *world = nbd_device_context(request->device);

	if (world->holds)
		world->held[world->held_count++] = request;
	else
		answer(world, request);
}

static void on_export_closed(void *context, void *handle)
{
	((struct world *)context)->closed++;
}

static void on_link_closed(struct nbd_link *link, void *context, const char *why)
{
	struct world *world = context;

	assert_ptr_equal(link, world->link);
	assert_false(world->is_closed);
	world->is_closed = true;
	world->link = NULL;
	assert_int_equal(text_copy(world->why, sizeof(world->why), why), 0);
}

/* ---- the client ---- */

static void on_client_sent(struct loop_op *op, int result)
{
	container_of_type(op, struct world, send_op)->is_sent = true;
}

static void client_receive(struct world *world)
{
	world->recv_iov = (struct iovec){world->chunk, sizeof(world->chunk)};
	loop_recv(world->loop, &world->recv_op, world->socket, &world->recv_iov, 1);
}

static void on_client_received(struct loop_op *op, int result)
{
	struct world *world = container_of_type(op, struct world, recv_op);

	if (result <= 0) {
		world->has_end = true;
		return;
	}
	blob_append(&world->in, world->chunk, (size_t)result);
	client_receive(world);
}

static bool is_link_closed(struct world *world)
{
	return world->is_closed;
}

static bool has_ended(struct world *world)
{
	return world->has_end;
}

static bool is_sent(struct world *world)
{
	return world->is_sent;
}

static void turn_until(struct world *world, bool (*is_so)(struct world *world))
{
	uint64_t end = loop_now(world->loop) + DEADLINE_NS;

	while (!is_so(world)) {
		assert_true(loop_now(world->loop) < end);
		assert_int_equal(loop_turn(world->loop, loop_now(world->loop) + 20 * NS_PER_MS), 0);
	}
}

static size_t wanted;

static bool has_received(struct world *world)
{
	return world->in.size >= wanted;
}

static void expect(struct world *world, struct blob *server)
{
	wanted = server->size;
	turn_until(world, has_received);
	assert_int_equal(world->in.size, server->size);
	assert_memory_equal(world->in.data, server->data, server->size);
	world->in.size = server->size = 0;
}

static void client_send_start(struct world *world, const struct blob *client)
{
	world->is_sent = false;
	world->send_iov = (struct iovec){client->data, client->size};
	loop_send(world->loop, &world->send_op, world->socket, &world->send_iov, 1);
}

static void client_send(struct world *world, struct blob *client)
{
	client_send_start(world, client);
	turn_until(world, is_sent);
	client->size = 0;
}

/* ---- the world ---- */

static bool is_simulated;

static void make_loop(struct world *world, const struct loop_options *options)
{
	if (!is_simulated) {
		assert_int_equal(loop_new(options, &world->loop, NULL), 0);
		return;
	}
	world->sim = sim_world_new(1);
	struct sim_host *host = sim_host_new(world->sim, "host");
	assert_int_equal(sim_loop_new(world->sim, host, options, &world->loop), 0);
}

static void begin(struct world *world, uint64_t timeout_ns)
{
	struct loop_options options = {.name = "test"};
	struct nbd_callbacks callbacks = {
		.handle_request = on_request,
		.close = on_export_closed,
		.export = &world->export,
	};
	struct nbd_link_options link = {
		.context = world,
		.closed = on_link_closed,
		.negotiation_timeout_ns = timeout_ns,
	};
	struct loop_socket *socket;

	*world = (struct world){.export = {.size = DISK, .flags = NBD_FLAG_SEND_FLUSH}};
	world->disk = calloc(1, DISK);
	make_loop(world, &options);
	world->server = nbd_server_new(&callbacks, NULL);
	assert_int_equal(loop_socket_pair(world->loop, &socket, &world->socket), 0);
	world->send_op.done = on_client_sent;
	world->recv_op.done = on_client_received;
	assert_int_equal(nbd_link_start(world->loop, socket, world->server, &link, &world->link),
			 0);
}

static void leave(struct world *world)
{
	if (!world->socket)
		return;
	loop_socket_close(world->loop, world->socket);
	world->socket = NULL;
}

static void finish(struct world *world)
{
	leave(world);
	turn_until(world, is_link_closed);
	while (loop_op_is_busy(&world->recv_op) || loop_op_is_busy(&world->send_op))
		(void)loop_turn(world->loop, 0);
	assert_int_equal(buffer_cache_busy(loop_buffers(world->loop)), 0);
	nbd_server_free(world->server);
	loop_free(world->loop);
	sim_world_free(world->sim);
	blob_free(&world->in);
	free(world->disk);
}

/* Up to transmission, with EXPORT_NAME and no zeroes. */
static void negotiate(struct world *world)
{
	struct blob client = {0}, server = {0};

	client_receive(world);
	client_hello(&client, 3);
	client_option(&client, 1, "", 0);
	client_send(world, &client);
	server_greeting(&server);
	blob_add(&server, "8 2", (uint64_t)DISK, 5ull);
	expect(world, &server);
	assert_int_equal(nbd_link_state(world->link), NBD_LINK_SERVING);
	blob_free(&client);
	blob_free(&server);
}

/* ---- tests ---- */

static void test_client_is_served_and_leaves(void **state)
{
	struct blob client = {0}, server = {0};
	struct world world;

	begin(&world, 0);
	negotiate(&world);
	client_request(&client, 0, WRITE, 1, 1000, 5);
	blob_add(&client, "s", "sheep");
	client_request(&client, 0, READ, 2, 999, 7);
	client_request(&client, 0, DISC, 3, 0, 0);
	client_send(&world, &client);
	server_reply(&server, 0, 1);
	server_reply(&server, 0, 2);
	blob_add(&server, "1 s 1", 0ull, "sheep", 0ull);
	expect(&world, &server);
	turn_until(&world, has_ended); /* the server ends first: it need not be asked to */
	finish(&world);
	assert_string_equal(world.why, "");
	assert_int_equal(world.closed, 1);
	blob_free(&client);
	blob_free(&server);
}

static void test_abort_is_acknowledged_before_the_end(void **state)
{
	struct blob client = {0}, server = {0};
	struct world world;

	begin(&world, 0);
	client_receive(&world);
	client_hello(&client, 3);
	client_option(&client, 2, NULL, 0);
	blob_add(&client, "z", (size_t)100000); /* unread input must not reset the connection */
	client_send(&world, &client);
	server_greeting(&server);
	server_option(&server, 2, 1, NULL, 0);
	expect(&world, &server);
	turn_until(&world, has_ended);
	finish(&world);
	assert_string_equal(world.why, "");
	assert_int_equal(world.closed, 0);
	blob_free(&client);
	blob_free(&server);
}

static bool has_held(struct world *world)
{
	return world->held_count == wanted;
}

static void test_half_close_still_gets_its_answers(void **state)
{
	struct blob client = {0}, server = {0};
	struct world world;

	begin(&world, 0);
	negotiate(&world);
	world.holds = true;
	for (uint64_t i = 0; i < 3; i++)
		client_request(&client, 0, FLUSH, i, 0, 0);
	client_send(&world, &client);
	loop_socket_shutdown(world.loop, world.socket, false);
	wanted = 3;
	turn_until(&world, has_held);
	for (int i = 0; i < 5; i++)
		(void)loop_turn(world.loop, 0);
	assert_false(world.is_closed);
	for (uint64_t i = 3; i-- > 0;) {
		answer(&world, world.held[i]);
		server_reply(&server, 0, i);
	}
	expect(&world, &server);
	turn_until(&world, has_ended);
	turn_until(&world, is_link_closed);
	finish(&world);
	assert_string_equal(world.why, "");
	assert_int_equal(world.closed, 1);
	blob_free(&client);
	blob_free(&server);
}

static void test_slow_negotiation_is_dropped(void **state)
{
	struct blob client = {0};
	struct world world;

	begin(&world, 30 * NS_PER_MS);
	client_receive(&world);
	client_hello(&client, 3);
	client_send(&world, &client);
	turn_until(&world, is_link_closed);
	turn_until(&world, has_ended);
	assert_string_equal(world.why, "negotiation takes too long");
	finish(&world);
	blob_free(&client);
}

static void test_broken_protocol_is_dropped_with_a_reason(void **state)
{
	struct blob client = {0};
	struct world world;

	begin(&world, 0);
	negotiate(&world);
	blob_add(&client, "z", (size_t)28);
	client_send(&world, &client);
	turn_until(&world, is_link_closed);
	assert_string_equal(world.why, "a request without its magic number");
	finish(&world);
	assert_int_equal(world.closed, 1);
	blob_free(&client);
}

static void test_closed_link_waits_for_the_backend(void **state)
{
	struct blob client = {0};
	struct world world;

	begin(&world, 0);
	negotiate(&world);
	world.holds = true;
	client_request(&client, 0, READ, 1, 0, 4096);
	client_request(&client, 0, FLUSH, 2, 0, 0);
	client_send(&world, &client);
	wanted = 2;
	turn_until(&world, has_held);
	nbd_link_close(world.link, "stopped");
	turn_until(&world, has_ended);
	for (int i = 0; i < 5; i++)
		(void)loop_turn(world.loop, 0);
	assert_false(world.is_closed);
	assert_int_equal(world.closed, 0);
	answer(&world, world.held[1]);
	answer(&world, world.held[0]);
	turn_until(&world, is_link_closed);
	assert_string_equal(world.why, "stopped");
	assert_int_equal(world.closed, 1);
	finish(&world);
	blob_free(&client);
}

static void test_shutdown_answers_what_is_in_flight(void **state)
{
	struct blob client = {0}, server = {0};
	struct world world;

	begin(&world, 0);
	negotiate(&world);
	world.holds = true;
	client_request(&client, 0, FLUSH, 1, 0, 0);
	client_send(&world, &client);
	wanted = 1;
	turn_until(&world, has_held);
	nbd_link_shutdown(world.link);
	client_request(&client, 0, FLUSH, 2, 0, 0);
	client_send(&world, &client);
	server_reply(&server, 108, 2);
	expect(&world, &server);
	answer(&world, world.held[0]);
	server_reply(&server, 0, 1);
	expect(&world, &server);
	turn_until(&world, has_ended);
	finish(&world);
	blob_free(&client);
	blob_free(&server);
}

static void test_large_payloads_are_received_in_place(void **state)
{
	enum { COUNT = 6, SIZE = 1 << 20 };
	struct blob client = {0}, server = {0};
	struct world world;

	begin(&world, 0);
	negotiate(&world);
	for (uint64_t i = 0; i < COUNT; i++) {
		client_request(&client, 0, WRITE, i, i * SIZE + 1, SIZE);
		blob_add(&client, "p", (size_t)SIZE, (int)i);
		server_reply(&server, 0, i);
	}
	client_send(&world, &client);
	expect(&world, &server);
	for (size_t i = 0; i < COUNT; i++)
		for (size_t n = 0; n < SIZE; n += 511)
			assert_int_equal(world.disk[i * SIZE + 1 + n], pattern_byte((int)i, n));
	/* Of 6 MiB only what shared a receive with the end of the one before. */
	assert_true(world.copied <= COUNT * 2 * 8192);
	finish(&world);
	blob_free(&client);
	blob_free(&server);
}

/* A backend may keep a payload for long: no later receive may touch it, not even one that is only
 * made to be dropped. */
static void test_payload_that_the_backend_keeps_is_never_overwritten(void **state)
{
	struct blob client = {0}, server = {0};
	struct world world;

	begin(&world, 0);
	world.keeps = true;
	negotiate(&world);
	client_request(&client, 0, WRITE, 1, 0, 3000);
	blob_add(&client, "p", (size_t)3000, 1);
	client_request(&client, 0, DISC, 2, 0, 0);
	client_send(&world, &client);
	server_reply(&server, 0, 1);
	expect(&world, &server);
	turn_until(&world, has_ended);
	blob_add(&client, "z", (size_t)30000);
	client_send(&world, &client);
	for (int i = 0; i < 5; i++)
		(void)loop_turn(world.loop, 0);
	assert_int_equal(world.kept.size, 3000);
	for (size_t n = 0; n < 3000; n++)
		assert_int_equal(world.kept.data[n], pattern_byte(1, n));
	buffer_put(world.kept.buffer);
	finish(&world);
	blob_free(&client);
	blob_free(&server);
}

static bool is_blocked(struct world *world)
{
	return nbd_device_state(nbd_link_device(world->link)) == NBD_DEVICE_BLOCKED;
}

/* More requests than a connection may have, from a client that does not read: it is stopped, then
 * gets everything. */
static void test_client_that_does_not_read_is_stopped_and_resumed(void **state)
{
	enum { COUNT = 600, SIZE = 65536 };
	struct blob client = {0};
	struct world world;

	begin(&world, 0);
	negotiate(&world);
	loop_cancel(world.loop, &world.recv_op);
	turn_until(&world, has_ended);
	world.has_end = false;
	memset(world.disk, 7, DISK);
	for (uint64_t i = 0; i < COUNT; i++)
		client_request(&client, 0, READ, i, i * 512, SIZE);
	client_send_start(&world, &client);
	turn_until(&world, is_blocked);
	assert_true(nbd_device_in_flight(nbd_link_device(world.link)) <= 256);
	client_receive(&world);
	wanted = (size_t)COUNT * (16 + SIZE);
	turn_until(&world, has_received);
	turn_until(&world, is_sent);
	assert_int_equal(world.in.size, wanted);
	assert_int_equal(world.in.data[wanted - 1], 7);
	finish(&world);
	blob_free(&client);
}

/* ---- random traffic ---- */

enum { KEPT_MAX = 20 };

struct kept {
	struct slice slice;
	uint64_t cookie;
};

struct traffic {
	struct random random;
	struct kept kept[KEPT_MAX];
	uint64_t answered;
};

static void check_payload(const struct slice *slice, uint64_t cookie)
{
	for (size_t n = 0; n < slice->size; n += 1 + slice->size / 100)
		assert_int_equal(slice->data[n], pattern_byte((int)cookie, n));
	assert_int_equal(slice->data[slice->size - 1], pattern_byte((int)cookie, slice->size - 1));
}

/* Let go of what was kept in this place. */
static void release(struct kept *kept)
{
	if (!kept->slice.data)
		return;
	check_payload(&kept->slice, kept->cookie);
	buffer_put(kept->slice.buffer);
	kept->slice.data = NULL;
}

/* Answer some of what is held, in any order, and keep some of the payloads for later. */
static void answer_some(struct world *world, struct traffic *traffic, uint64_t count)
{
	while (count-- > 0 && world->held_count > 0) {
		unsigned at = (unsigned)random_below(&traffic->random, world->held_count);
		struct nbd_request *request = world->held[at];
		world->held[at] = world->held[--world->held_count];
		if (request->type == WRITE)
			check_payload(&request->payload, request->cookie);
		struct kept *kept = &traffic->kept[random_below(&traffic->random, KEPT_MAX)];
		if (request->type == WRITE && random_below(&traffic->random, 2)) {
			release(kept);
			*kept = (struct kept){request->payload, request->cookie};
			request->payload.buffer = NULL;
		}
		traffic->answered++;
		answer(world, request);
	}
}

static void add_traffic(struct blob *client, struct traffic *traffic, uint64_t cookie)
{
	static const uint32_t sizes[] = {1, 512, 4096, 5000, 40000, 300000};
	struct random *random = &traffic->random;
	uint32_t size = sizes[random_below(random, ARRAY_COUNT(sizes))];
	uint64_t offset = random_below(random, DISK - size);

	if (random_below(random, 4) == 0) {
		client_request(client, 0, READ, cookie, offset, size);
		return;
	}
	client_request(client, 0, WRITE, cookie, offset, size);
	blob_add(client, "p", (size_t)size, (int)cookie);
}

/* Whatever the sizes, the cuts and the times: every payload is what was sent, for as long as the
 * backend has it, and every request is answered. */
static void test_random_traffic_leaves_every_payload_whole(void **state)
{
	enum { REQUESTS = 150 };

	for (uint64_t seed = 1; seed <= 6; seed++) {
		struct traffic traffic = {0};
		struct blob client = {0};
		struct world world;
		random_init(&traffic.random, seed);
		begin(&world, 0);
		negotiate(&world);
		world.holds = true;
		for (uint64_t i = 0; i < REQUESTS; i++)
			add_traffic(&client, &traffic, i);
		client_request(&client, 0, DISC, 0, 0, 0);
		blob_add(&client, "z", (size_t)5000);
		for (size_t at = 0; at < client.size;) {
			size_t step = 1 + random_below(&traffic.random, seed % 2 ? 9000 : 700000);
			struct blob piece = {client.data + at, min_of(step, client.size - at), 0};
			at += piece.size;
			client_send_start(&world, &piece);
			while (!world.is_sent) {
				assert_int_equal(loop_turn(world.loop, 0), 0);
				answer_some(&world, &traffic, random_below(&traffic.random, 3));
			}
		}
		uint64_t end = loop_now(world.loop) + DEADLINE_NS;
		while (!world.has_end) {
			assert_true(loop_now(world.loop) < end);
			(void)loop_turn(world.loop, loop_now(world.loop) + NS_PER_MS);
			answer_some(&world, &traffic, 2);
		}
		assert_int_equal(traffic.answered, REQUESTS);
		for (int i = 0; i < KEPT_MAX; i++)
			release(&traffic.kept[i]);
		finish(&world);
		assert_string_equal(world.why, "");
		blob_free(&client);
	}
}

/* ---- with time ---- */

static bool has_passed(struct world *world)
{
	return loop_now(world->loop) >= wanted;
}

static void pass(struct world *world, uint64_t ns)
{
	wanted = loop_now(world->loop) + ns;
	while (!has_passed(world))
		assert_int_equal(loop_turn(world->loop, wanted), 0);
}

static void test_client_that_does_not_leave_is_left_after_two_seconds(void **state)
{
	struct blob client = {0};
	struct world world;

	begin(&world, 0);
	negotiate(&world);
	client_request(&client, 0, DISC, 1, 0, 0);
	client_send(&world, &client);
	turn_until(&world, has_ended);
	pass(&world, 1900 * NS_PER_MS);
	assert_false(world.is_closed);
	pass(&world, 200 * NS_PER_MS);
	assert_true(world.is_closed);
	assert_string_equal(world.why, "");
	finish(&world);
	blob_free(&client);
}

static void test_client_has_a_minute_to_negotiate_and_all_time_after(void **state)
{
	struct world world;

	begin(&world, 0);
	pass(&world, 59 * NS_PER_S);
	assert_false(world.is_closed);
	negotiate(&world);
	pass(&world, 1000 * NS_PER_S);
	assert_false(world.is_closed);
	finish(&world);

	begin(&world, 0);
	client_receive(&world);
	pass(&world, 61 * NS_PER_S);
	assert_true(world.is_closed);
	finish(&world);
}

/* Its window is given back; what comes next finds a small one. */
static void test_connection_that_was_idle_is_served_as_before(void **state)
{
	struct blob client = {0}, server = {0};
	struct world world;

	begin(&world, 0);
	negotiate(&world);
	for (int round = 0; round < 3; round++) {
		for (uint64_t i = 0; i < 40; i++) {
			client_request(&client, 0, WRITE, i, i * 9000, 9000);
			blob_add(&client, "p", (size_t)9000, round + (int)i);
			server_reply(&server, 0, i);
		}
		client_send(&world, &client);
		expect(&world, &server);
		pass(&world, 30 * NS_PER_S);
		for (int i = 0; i < 40; i++)
			for (size_t n = 0; n < 9000; n += 13)
				assert_int_equal(world.disk[(size_t)i * 9000 + n],
						 pattern_byte(round + i, n));
	}
	finish(&world);
	blob_free(&client);
	blob_free(&server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_client_is_served_and_leaves),
		cmocka_unit_test(test_abort_is_acknowledged_before_the_end),
		cmocka_unit_test(test_half_close_still_gets_its_answers),
		cmocka_unit_test(test_slow_negotiation_is_dropped),
		cmocka_unit_test(test_broken_protocol_is_dropped_with_a_reason),
		cmocka_unit_test(test_closed_link_waits_for_the_backend),
		cmocka_unit_test(test_shutdown_answers_what_is_in_flight),
		cmocka_unit_test(test_large_payloads_are_received_in_place),
		cmocka_unit_test(test_payload_that_the_backend_keeps_is_never_overwritten),
		cmocka_unit_test(test_client_that_does_not_read_is_stopped_and_resumed),
		cmocka_unit_test(test_random_traffic_leaves_every_payload_whole),
	};
	const struct CMUnitTest timed[] = {
		cmocka_unit_test(test_client_that_does_not_leave_is_left_after_two_seconds),
		cmocka_unit_test(test_client_has_a_minute_to_negotiate_and_all_time_after),
		cmocka_unit_test(test_connection_that_was_idle_is_served_as_before),
	};
	int rc = cmocka_run_group_tests_name("real", tests, NULL, NULL);

	is_simulated = true;
	rc |= cmocka_run_group_tests_name("simulated", tests, NULL, NULL);
	rc |= cmocka_run_group_tests_name("in virtual time", timed, NULL, NULL);
	return rc;
}
