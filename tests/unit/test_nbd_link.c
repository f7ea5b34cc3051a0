/*
 * An NBD connection on the real loop and on the simulated one: what the host adds to the listener
 * and the device.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/random.h"
#include "tests/unit/nbd_world.h"

static void test_client_is_served_and_leaves(void **state)
{
	struct blob client = {0}, server = {0};
	struct nbd_world world;

	nbd_world_begin(&world, *state, 0);
	nbd_world_negotiate(&world);
	client_request(&client, 0, WRITE, 1, 1000, 5);
	blob_add(&client, "s", "sheep");
	client_request(&client, 0, READ, 2, 999, 7);
	client_request(&client, 0, DISC, 3, 0, 0);
	nbd_world_send(&world, &client);
	server_reply(&server, 0, 1);
	server_reply(&server, 0, 2);
	blob_add(&server, "1 s 1", 0ull, "sheep", 0ull);
	nbd_world_expect(&world, &server);
	nbd_world_until(&world,
			nbd_world_has_ended); /* the server ends first: it need not be asked to */
	nbd_world_finish(&world);
	assert_string_equal(world.why, "");
	assert_int_equal(world.closed, 1);
	blob_free(&client);
	blob_free(&server);
}

static void test_abort_is_acknowledged_before_the_end(void **state)
{
	struct blob client = {0}, server = {0};
	struct nbd_world world;

	nbd_world_begin(&world, *state, 0);
	nbd_world_receive(&world);
	client_hello(&client, 3);
	client_option(&client, 2, NULL, 0);
	blob_add(&client, "z", (size_t)100000); /* unread input must not reset the connection */
	nbd_world_send(&world, &client);
	server_greeting(&server);
	server_option(&server, 2, 1, NULL, 0);
	nbd_world_expect(&world, &server);
	nbd_world_until(&world, nbd_world_has_ended);
	nbd_world_finish(&world);
	assert_string_equal(world.why, "");
	assert_int_equal(world.closed, 0);
	blob_free(&client);
	blob_free(&server);
}

static bool has_held(struct nbd_world *world)
{
	return world->held_count == world->wanted;
}

static void test_half_close_still_gets_its_answers(void **state)
{
	struct blob client = {0}, server = {0};
	struct nbd_world world;

	nbd_world_begin(&world, *state, 0);
	nbd_world_negotiate(&world);
	world.holds = true;
	for (uint64_t i = 0; i < 3; i++)
		client_request(&client, 0, FLUSH, i, 0, 0);
	nbd_world_send(&world, &client);
	loop_socket_shutdown(world.loop, world.socket, false);
	world.wanted = 3;
	nbd_world_until(&world, has_held);
	for (int i = 0; i < 5; i++)
		(void)loop_turn(world.loop, 0);
	assert_false(world.is_closed);
	for (uint64_t i = 3; i-- > 0;) {
		nbd_world_answer(&world, world.held[i]);
		server_reply(&server, 0, i);
	}
	nbd_world_expect(&world, &server);
	nbd_world_until(&world, nbd_world_has_ended);
	nbd_world_until(&world, nbd_world_is_closed);
	nbd_world_finish(&world);
	assert_string_equal(world.why, "");
	assert_int_equal(world.closed, 1);
	blob_free(&client);
	blob_free(&server);
}

static void test_slow_negotiation_is_dropped(void **state)
{
	struct blob client = {0};
	struct nbd_world world;

	nbd_world_begin(&world, *state, 30 * NS_PER_MS);
	nbd_world_receive(&world);
	client_hello(&client, 3);
	nbd_world_send(&world, &client);
	nbd_world_until(&world, nbd_world_is_closed);
	nbd_world_until(&world, nbd_world_has_ended);
	assert_string_equal(world.why, "negotiation takes too long");
	nbd_world_finish(&world);
	blob_free(&client);
}

static void test_broken_protocol_is_dropped_with_a_reason(void **state)
{
	struct blob client = {0};
	struct nbd_world world;

	nbd_world_begin(&world, *state, 0);
	nbd_world_negotiate(&world);
	blob_add(&client, "z", (size_t)28);
	nbd_world_send(&world, &client);
	nbd_world_until(&world, nbd_world_is_closed);
	assert_string_equal(world.why, "a request without its magic number");
	nbd_world_finish(&world);
	assert_int_equal(world.closed, 1);
	blob_free(&client);
}

static void test_closed_link_waits_for_the_backend(void **state)
{
	struct blob client = {0};
	struct nbd_world world;

	nbd_world_begin(&world, *state, 0);
	nbd_world_negotiate(&world);
	world.holds = true;
	client_request(&client, 0, READ, 1, 0, 4096);
	client_request(&client, 0, FLUSH, 2, 0, 0);
	nbd_world_send(&world, &client);
	world.wanted = 2;
	nbd_world_until(&world, has_held);
	nbd_link_close(world.link, "stopped");
	nbd_world_until(&world, nbd_world_has_ended);
	for (int i = 0; i < 5; i++)
		(void)loop_turn(world.loop, 0);
	assert_false(world.is_closed);
	assert_int_equal(world.closed, 0);
	nbd_world_answer(&world, world.held[1]);
	nbd_world_answer(&world, world.held[0]);
	nbd_world_until(&world, nbd_world_is_closed);
	assert_string_equal(world.why, "stopped");
	assert_int_equal(world.closed, 1);
	nbd_world_finish(&world);
	blob_free(&client);
}

static void test_shutdown_answers_what_is_in_flight(void **state)
{
	struct blob client = {0}, server = {0};
	struct nbd_world world;

	nbd_world_begin(&world, *state, 0);
	nbd_world_negotiate(&world);
	world.holds = true;
	client_request(&client, 0, FLUSH, 1, 0, 0);
	nbd_world_send(&world, &client);
	world.wanted = 1;
	nbd_world_until(&world, has_held);
	nbd_link_shutdown(world.link);
	client_request(&client, 0, FLUSH, 2, 0, 0);
	nbd_world_send(&world, &client);
	server_reply(&server, 108, 2);
	nbd_world_expect(&world, &server);
	nbd_world_answer(&world, world.held[0]);
	server_reply(&server, 0, 1);
	nbd_world_expect(&world, &server);
	nbd_world_until(&world, nbd_world_has_ended);
	nbd_world_finish(&world);
	blob_free(&client);
	blob_free(&server);
}

static void test_large_payloads_are_received_in_place(void **state)
{
	enum { COUNT = 6, SIZE = 1 << 20 };
	struct blob client = {0}, server = {0};
	struct nbd_world world;

	nbd_world_begin(&world, *state, 0);
	nbd_world_negotiate(&world);
	for (uint64_t i = 0; i < COUNT; i++) {
		client_request(&client, 0, WRITE, i, i * SIZE + 1, SIZE);
		blob_add(&client, "p", (size_t)SIZE, (int)i);
		server_reply(&server, 0, i);
	}
	nbd_world_send(&world, &client);
	nbd_world_expect(&world, &server);
	for (size_t i = 0; i < COUNT; i++)
		for (size_t n = 0; n < SIZE; n += 511)
			assert_int_equal(world.disk[i * SIZE + 1 + n], pattern_byte((int)i, n));
	/* Of 6 MiB only what shared a receive with the end of the one before. */
	assert_true(world.copied <= COUNT * 2 * 8192);
	nbd_world_finish(&world);
	blob_free(&client);
	blob_free(&server);
}

/* A backend may keep a payload for long: no later receive may touch it, not even one that is only
 * made to be dropped. */
static void test_payload_that_the_backend_keeps_is_never_overwritten(void **state)
{
	struct blob client = {0}, server = {0};
	struct nbd_world world;

	nbd_world_begin(&world, *state, 0);
	world.keeps = true;
	nbd_world_negotiate(&world);
	client_request(&client, 0, WRITE, 1, 0, 3000);
	blob_add(&client, "p", (size_t)3000, 1);
	client_request(&client, 0, DISC, 2, 0, 0);
	nbd_world_send(&world, &client);
	server_reply(&server, 0, 1);
	nbd_world_expect(&world, &server);
	nbd_world_until(&world, nbd_world_has_ended);
	blob_add(&client, "z", (size_t)30000);
	nbd_world_send(&world, &client);
	for (int i = 0; i < 5; i++)
		(void)loop_turn(world.loop, 0);
	assert_int_equal(world.kept.size, 3000);
	for (size_t n = 0; n < 3000; n++)
		assert_int_equal(world.kept.data[n], pattern_byte(1, n));
	buffer_put(world.kept.buffer);
	nbd_world_finish(&world);
	blob_free(&client);
	blob_free(&server);
}

static bool is_blocked(struct nbd_world *world)
{
	return nbd_device_state(nbd_link_device(world->link)) == NBD_DEVICE_BLOCKED;
}

/* More requests than a connection may have, from a client that does not read: it is stopped, then
 * gets everything. */
static void test_client_that_does_not_read_is_stopped_and_resumed(void **state)
{
	enum { COUNT = 600, SIZE = 65536 };
	struct blob client = {0};
	struct nbd_world world;

	nbd_world_begin(&world, *state, 0);
	nbd_world_negotiate(&world);
	loop_cancel(world.loop, &world.recv_op);
	nbd_world_until(&world, nbd_world_has_ended);
	world.has_end = false;
	memset(world.disk, 7, DISK);
	for (uint64_t i = 0; i < COUNT; i++)
		client_request(&client, 0, READ, i, i * 512, SIZE);
	nbd_world_send_start(&world, &client);
	nbd_world_until(&world, is_blocked);
	assert_true(nbd_device_in_flight(nbd_link_device(world.link)) <= 256);
	nbd_world_receive(&world);
	world.wanted = (size_t)COUNT * (16 + SIZE);
	nbd_world_until(&world, nbd_world_has_received);
	nbd_world_until(&world, nbd_world_is_sent);
	assert_int_equal(world.in.size, world.wanted);
	assert_int_equal(world.in.data[world.wanted - 1], 7);
	nbd_world_finish(&world);
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
static void answer_some(struct nbd_world *world, struct traffic *traffic, uint64_t count)
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
		nbd_world_answer(world, request);
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
		struct nbd_world world;
		random_init(&traffic.random, seed);
		nbd_world_begin(&world, *state, 0);
		nbd_world_negotiate(&world);
		world.holds = true;
		for (uint64_t i = 0; i < REQUESTS; i++)
			add_traffic(&client, &traffic, i);
		client_request(&client, 0, DISC, 0, 0, 0);
		blob_add(&client, "z", (size_t)5000);
		for (size_t at = 0; at < client.size;) {
			size_t step = 1 + random_below(&traffic.random, seed % 2 ? 9000 : 700000);
			struct blob piece = {client.data + at, min_of(step, client.size - at), 0};
			at += piece.size;
			nbd_world_send_start(&world, &piece);
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
		nbd_world_finish(&world);
		assert_string_equal(world.why, "");
		blob_free(&client);
	}
}

/* ---- with time ---- */

static bool has_passed(struct nbd_world *world)
{
	return loop_now(world->loop) >= world->wanted;
}

static void pass(struct nbd_world *world, uint64_t ns)
{
	world->wanted = loop_now(world->loop) + ns;
	while (!has_passed(world))
		assert_int_equal(loop_turn(world->loop, world->wanted), 0);
}

static void test_client_that_does_not_leave_is_left_after_two_seconds(void **state)
{
	struct blob client = {0};
	struct nbd_world world;

	nbd_world_begin(&world, *state, 0);
	nbd_world_negotiate(&world);
	client_request(&client, 0, DISC, 1, 0, 0);
	nbd_world_send(&world, &client);
	nbd_world_until(&world, nbd_world_has_ended);
	pass(&world, 1900 * NS_PER_MS);
	assert_false(world.is_closed);
	pass(&world, 200 * NS_PER_MS);
	assert_true(world.is_closed);
	assert_string_equal(world.why, "");
	nbd_world_finish(&world);
	blob_free(&client);
}

static void test_client_has_a_minute_to_negotiate_and_all_time_after(void **state)
{
	struct nbd_world world;

	nbd_world_begin(&world, *state, 0);
	pass(&world, 59 * NS_PER_S);
	assert_false(world.is_closed);
	nbd_world_negotiate(&world);
	pass(&world, 1000 * NS_PER_S);
	assert_false(world.is_closed);
	nbd_world_finish(&world);

	nbd_world_begin(&world, *state, 0);
	nbd_world_receive(&world);
	pass(&world, 61 * NS_PER_S);
	assert_true(world.is_closed);
	nbd_world_finish(&world);
}

/* Its window is given back; what comes next finds a small one. */
static void test_connection_that_was_idle_is_served_as_before(void **state)
{
	struct blob client = {0}, server = {0};
	struct nbd_world world;

	nbd_world_begin(&world, *state, 0);
	nbd_world_negotiate(&world);
	for (int round = 0; round < 3; round++) {
		for (uint64_t i = 0; i < 40; i++) {
			client_request(&client, 0, WRITE, i, i * 9000, 9000);
			blob_add(&client, "p", (size_t)9000, round + (int)i);
			server_reply(&server, 0, i);
		}
		nbd_world_send(&world, &client);
		nbd_world_expect(&world, &server);
		pass(&world, 30 * NS_PER_S);
		for (int i = 0; i < 40; i++)
			for (size_t n = 0; n < 9000; n += 13)
				assert_int_equal(world.disk[(size_t)i * 9000 + n],
						 pattern_byte(round + i, n));
	}
	nbd_world_finish(&world);
	blob_free(&client);
	blob_free(&server);
}

/* What the tests of a group find as their state. */
static int simulate(void **state)
{
	static bool is_simulated = true;

	*state = &is_simulated;
	return 0;
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

	rc |= cmocka_run_group_tests_name("simulated", tests, simulate, NULL);
	rc |= cmocka_run_group_tests_name("in virtual time", timed, simulate, NULL);
	return rc;
}
