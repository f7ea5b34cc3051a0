/* How sessions and links begin and end. */
#include "tests/unit/net_suite.h"

#include <stdio.h>

static const struct net_options quick = {
	.backoff_min_ns = NS_PER_MS,
	.backoff_max_ns = 4 * NS_PER_MS,
	.silence_ns = 400 * NS_PER_MS,
};

/* Whatever ends a connection: each call completes once, and the next one finds a new connection. */
static void test_calls_in_flight_complete_once_when_the_connection_ends(void **state)
{
	enum { CALLS = 40, ROUNDS = 3 };
	struct rig *rig = rig_new(*state, &(struct net_options){.credit_requests = 16}, &quick);
	struct net_link *link = rig_link(rig, NULL);
	struct test_call calls[CALLS];

	for (unsigned round = 0; round < ROUNDS; round++) {
		for (unsigned i = 0; i < CALLS; i++) {
			test_call_init(&calls[i], OP_HOLD, i, 0);
			net_link_call(link, &calls[i].call);
		}
		BED_UNTIL(rig->bed, rig->held_count == 16);
		if (round == 0)
			net_session_close(rig->session, -EIO, "for a test");
		else if (round == 1)
			net_link_reset(link, -ETIMEDOUT, "for a test");
		else
			net_session_close(rig->session, 0, NULL);
		for (unsigned i = 0; i < CALLS; i++)
			assert_int_equal(calls[i].done, 0); /* not inside */
		BED_UNTIL(rig->bed, net_link_outstanding(link) == 0);
		for (unsigned i = 0; i < CALLS; i++) {
			assert_int_equal(calls[i].done, 1);
			assert_int_equal(calls[i].result, -E_CLOSED);
			assert_int_equal(calls[i].call.was_sent, i < 16);
		}
		BED_UNTIL(rig->bed, rig->downs == round + 1 && rig->closed == round + 1);
		rig_release(rig, 0);				       /* too late, to no effect */
		assert_int_equal(net_link_state(link), NET_LINK_IDLE); /* nothing waits for it */
	}
	assert_int_equal(rig->down_error, -E_CLOSED);
	rig_free(rig);
}

static void test_link_that_is_freed_completes_its_calls_later(void **state)
{
	struct rig *rig = rig_new(*state, NULL, &quick);
	struct net_link *link = rig_link(rig, NULL), *other = rig_link(rig, NULL);
	struct net_link *dead = rig_link(
		rig, &(struct net_link_options){.class = 1, .address = rig->bed->tcp_dead});
	struct test_call held, waiting, never, connecting;

	test_call_init(&held, OP_HOLD, 0, 0);
	net_link_call(link, &held.call);
	BED_UNTIL(rig->bed, rig->held_count == 1);
	test_call_init(&never, OP_ECHO, 0, 0);
	net_link_call(dead, &never.call);
	test_call_init(&connecting, OP_ECHO, 0, 0);
	net_link_call(other, &connecting.call);
	rig->link = NULL;
	net_link_free(link);
	net_link_free(other);
	net_link_free(dead);
	assert_int_equal(held.done + never.done + connecting.done, 0);
	BED_UNTIL(rig->bed, held.done && never.done && connecting.done);
	assert_int_equal(held.result, -E_CLOSED);
	assert_int_equal(never.result, -E_CLOSED);
	assert_int_equal(connecting.result, -E_CLOSED);
	assert_int_equal(rig->downs, 0); /* nobody is told any more */
	/* In the pause between two dials. */
	dead = rig_link(rig, &(struct net_link_options){.class = 1, .address = rig->bed->tcp_dead});
	rig->link = NULL;
	net_link_connect(dead);
	BED_UNTIL(rig->bed, net_link_state(dead) == NET_LINK_WAITING);
	test_call_init(&waiting, OP_ECHO, 0, 0);
	net_link_call(dead, &waiting.call);
	net_link_free(dead);
	assert_int_equal(waiting.done, 0);
	BED_UNTIL(rig->bed, waiting.done);
	assert_int_equal(waiting.result, -E_CLOSED);
	rig_free(rig);
}

/* A reset tells who waits that there is no connection, also between two dials; the pause stays. */
static void test_reset_in_the_pause_ends_what_waits_for_the_next_dial(void **state)
{
	const struct net_options slow = {.backoff_min_ns = 20 * NS_PER_S,
					 .backoff_max_ns = 20 * NS_PER_S};
	struct rig *rig = rig_new(*state, NULL, &slow);
	struct net_link *dead = rig_link(
		rig, &(struct net_link_options){.class = 1, .address = rig->bed->tcp_dead});
	struct test_call first, waiting;

	test_call_init(&first, OP_ECHO, 0, 0);
	net_link_call(dead, &first.call);
	BED_UNTIL(rig->bed, first.done);
	test_call_init(&waiting, OP_ECHO, 0, 0);
	net_link_call(dead, &waiting.call);
	assert_int_equal(net_link_state(dead), NET_LINK_WAITING);
	net_link_reset(dead, -ETIMEDOUT, "for a test");
	assert_int_equal(waiting.done, 0); /* not inside */
	BED_UNTIL(rig->bed, waiting.done);
	assert_int_equal(waiting.result, -E_CLOSED);
	assert_int_equal(net_link_waiting(dead), 0);
	assert_int_equal(net_link_state(dead), NET_LINK_WAITING);
	rig_free(rig);
}

/* Nobody there: calls fail with the dial, dials get rarer, and it comes up when somebody is. */
static void test_dials_back_off_until_somebody_listens(void **state)
{
	struct rig *rig = rig_new(*state, NULL,
				  &(struct net_options){.backoff_min_ns = 10 * NS_PER_MS,
							.backoff_max_ns = 100 * NS_PER_MS});
	struct bed *bed = rig->bed;
	char address[LOOP_ADDRESS_MAX];
	struct error err = {0};
	struct test_call call;

	(void)snprintf(address, sizeof(address), "%s", net_listener_address(rig->listener));
	net_listener_close(rig->listener);
	bed_turn(bed);
	struct net_link *link =
		rig_link(rig, &(struct net_link_options){.class = 1, .address = address});
	test_call_init(&call, OP_ECHO, 0, 0);
	net_link_call(link, &call.call);
	assert_int_equal(test_call_wait(rig, &call), -E_CLOSED);
	assert_false(call.call.was_sent);
	assert_int_equal(net_link_error(link)->code, -ECONNREFUSED);
	assert_non_null(strstr(net_link_error(link)->text, "refused"));
	test_call_init(&call, OP_ECHO, 0, 0);
	call.call.flags = NET_CALL_IF_UP;
	net_link_call(link, &call.call);
	assert_int_equal(call.done, 0);
	assert_int_equal(test_call_wait(rig, &call), -E_CLOSED);

	net_link_connect(link);
	uint64_t end_ns = loop_now(bed->loop) + NS_PER_S;
	BED_UNTIL(bed, loop_now(bed->loop) >= end_ns);
	/* Pauses of 10, 20, 40, 80, 100, 100 ... ms, or half of that at least. */
	assert_in_range(net_stats(rig->client)->dials_failed, 4, 24);
	assert_int_equal(rig->ups, 0);
	if (net_listen(rig->server, address,
		       &(struct net_listener_options){.magic = FRAME_MAGIC_PEER}, &rig->listener,
		       &err) < 0)
		fail_msg("%s", err.text);
	BED_UNTIL(bed, net_link_is_up(link));
	test_call_init(&call, OP_ECHO, 0, 0);
	call.call.flags = NET_CALL_IF_UP;
	net_link_call(link, &call.call);
	assert_int_equal(test_call_wait(rig, &call), 0);
	/* Kept up: it comes back by itself. */
	net_session_close(rig->session, -EIO, "for a test");
	BED_UNTIL(bed, rig->downs > 0 && rig->ups == 2);
	rig_free(rig);
}

struct retrier {
	struct test_call call;
	struct net_link *link;
	unsigned tries;
};

static void on_retry(struct net_call *net_call, int result)
{
	struct retrier *retrier = container_of_type(net_call, struct retrier, call.call);

	retrier->tries++;
	retrier->call.result = result;
	if (result == -E_CLOSED)
		net_link_call(retrier->link, net_call);
	else
		retrier->call.done = 1;
}

/* A call that is made again from its own end waits for the next dial: no spinning, no loss. */
static void test_calls_made_again_at_once_wait_for_the_next_dial(void **state)
{
	struct rig *rig = rig_new(*state, NULL,
				  &(struct net_options){.backoff_min_ns = 20 * NS_PER_MS,
							.backoff_max_ns = 20 * NS_PER_MS});
	struct retrier retriers[20] = {0};
	struct error err = {0};
	char address[LOOP_ADDRESS_MAX];

	(void)snprintf(address, sizeof(address), "%s", net_listener_address(rig->listener));
	net_listener_close(rig->listener);
	bed_turn(rig->bed);
	struct net_link *link =
		rig_link(rig, &(struct net_link_options){.class = 1, .address = address});
	for (unsigned i = 0; i < ARRAY_COUNT(retriers); i++) {
		retriers[i].link = link;
		test_call_init(&retriers[i].call, OP_ECHO, i, 0);
		retriers[i].call.call.done = on_retry;
		net_link_call(link, &retriers[i].call.call);
	}
	BED_UNTIL(rig->bed, retriers[19].tries >= 5);
	for (unsigned i = 0; i < ARRAY_COUNT(retriers); i++)
		assert_in_range(retriers[i].tries, 5, 9);
	assert_in_range(net_stats(rig->client)->dials_failed, 5, 9);
	if (net_listen(rig->server, address,
		       &(struct net_listener_options){.magic = FRAME_MAGIC_PEER}, &rig->listener,
		       &err) < 0)
		fail_msg("%s", err.text);
	BED_UNTIL(rig->bed, net_link_outstanding(link) == 0);
	for (unsigned i = 0; i < ARRAY_COUNT(retriers); i++)
		assert_int_equal(retriers[i].call.result, 0);
	rig_free(rig);
}

static void free_link_done(struct net_call *net_call, int result)
{
	struct test_call *call = container_of_type(net_call, struct test_call, call);

	call->done = 1;
	call->result = result;
	net_link_free((struct net_link *)call->slices[0].buffer);
}

/* The link is freed from a completion, with replies of the same receive still to come. */
static void test_link_may_be_freed_from_a_completion(void **state)
{
	struct rig *rig = rig_new(*state, NULL, &quick);
	struct net_link *link = rig_link(rig, NULL);
	struct test_call calls[10];

	rig->link = NULL;
	for (unsigned i = 0; i < ARRAY_COUNT(calls); i++) {
		test_call_init(&calls[i], OP_ECHO, i, 0);
		if (i == 3) {
			calls[i].call.done = free_link_done;
			calls[i].slices[0].buffer = (struct buffer *)(void *)link;
		}
		net_link_call(link, &calls[i].call);
	}
	BED_UNTIL(rig->bed, calls[9].done);
	for (unsigned i = 0; i < ARRAY_COUNT(calls); i++) {
		assert_int_equal(calls[i].done, 1);
		assert_int_equal(calls[i].result, i <= 3 ? 0 : -E_CLOSED);
	}
	rig_free(rig);
}

/* A refusal has a reason that people can read, and nothing is sent to who refuses. */
static void test_refusals_say_why(void **state)
{
	struct rig *rig = rig_new(*state, NULL, &quick);
	struct net_link *link = rig_link(rig, NULL);
	struct wire_identity stranger = identity_b;
	struct test_call call;

	stranger.cluster.bytes[0] = 0x99;
	net_set_identity(rig->client, &stranger);
	test_call_init(&call, OP_ECHO, 0, 0);
	net_link_call(link, &call.call);
	assert_int_equal(test_call_wait(rig, &call), -E_CLOSED);
	assert_int_equal(net_link_error(link)->code, -E_WRONG_CLUSTER);
	char text[UUID_TEXT_SIZE];
	assert_non_null(strstr(net_link_error(link)->text, uuid_format(&stranger.cluster, text)));
	assert_non_null(strstr(net_link_error(link)->text, uuid_format(&identity_a.cluster, text)));

	net_set_identity(rig->client, &identity_b);
	rig->refuse_with = -E_SHUTDOWN;
	test_call_init(&call, OP_ECHO, 0, 0);
	net_link_call(link, &call.call);
	assert_int_equal(test_call_wait(rig, &call), -E_CLOSED);
	assert_int_equal(net_link_error(link)->code, -E_SHUTDOWN);
	assert_non_null(strstr(net_link_error(link)->text, "not you"));
	assert_int_equal(rig->opened, 0);
	rig->refuse_with = 0;

	/* Somebody else lives there now. */
	struct net_link *other =
		rig_link(rig, &(struct net_link_options){.class = 1, .node = identity_b.node});
	test_call_init(&call, OP_ECHO, 0, 0);
	net_link_call(other, &call.call);
	assert_int_equal(test_call_wait(rig, &call), -E_CLOSED);
	assert_int_equal(net_link_error(other)->code, -E_NOT_FOUND);
	net_link_free(other);
	assert_int_equal(rig->handled, 0);
	/* And after all that it works. */
	test_call_init(&call, OP_ECHO, 0, 0);
	net_link_call(link, &call.call);
	assert_int_equal(test_call_wait(rig, &call), 0);
	rig_free(rig);
}

/* What was sent before a reconnect cannot be executed after it; ghosts of earlier starts are ended. */
static void test_newer_sessions_end_older_ones_of_the_same_peer(void **state)
{
	enum { HELLO_SIZE = FRAME_HEADER_SIZE + sizeof(struct frame_hello_reply) };
	struct rig *rig = rig_new(*state, NULL, NULL);
	const char *address = net_listener_address(rig->listener);
	struct wire_identity next = identity_b;

	struct raw *first = raw_dial(rig->bed, address);
	raw_hello(first, &identity_b, 1);
	raw_expect(first, HELLO_SIZE);
	struct raw *other = raw_dial(rig->bed, address);
	raw_hello(other, &identity_b, 2); /* another link: both live */
	raw_expect(other, HELLO_SIZE);
	assert_int_equal(rig->closed, 0);

	struct raw *again = raw_dial(rig->bed, address);
	raw_hello(again, &identity_b, 1);
	raw_expect(again, HELLO_SIZE);
	assert_int_equal(rig->closed, 1);
	assert_int_equal(rig->closed_error, -E_STALE_SESSION);
	BED_UNTIL(rig->bed, first->is_ended);
	assert_false(other->is_ended);

	next.incarnation++;
	struct raw *reborn = raw_dial(rig->bed, address);
	raw_hello(reborn, &next, 9);
	raw_expect(reborn, HELLO_SIZE);
	assert_int_equal(rig->closed, 3);
	BED_UNTIL(rig->bed, other->is_ended && again->is_ended);

	struct raw *ghost = raw_dial(rig->bed, address);
	raw_hello(ghost, &identity_b, 3);
	raw_expect(ghost, HELLO_SIZE);
	struct frame_header header;
	memcpy(&header, ghost->data, sizeof(header));
	assert_int_equal(from_le32(header.status), PROTO_STATUS_STALE_SESSION);
	BED_UNTIL(rig->bed, ghost->is_ended);
	assert_false(reborn->is_ended);
	raw_free(first);
	raw_free(other);
	raw_free(again);
	raw_free(reborn);
	raw_free(ghost);
	rig_free(rig);
}

/* A slow answer is not silence: the ping is answered, the link stays. */
static void test_slow_requests_do_not_reset_the_link(void **state)
{
	struct rig *rig = rig_new(*state, &quick, &quick);
	struct net_link *link = rig_link(rig, NULL);
	struct test_call call;

	test_call_init(&call, OP_HOLD, 0, 0);
	net_link_call(link, &call.call);
	BED_UNTIL(rig->bed, rig->held_count == 1);
	uint64_t frames = net_stats(rig->server)->frames_in;
	uint64_t end_ns = loop_now(rig->bed->loop) + 5 * quick.silence_ns;
	BED_UNTIL(rig->bed, loop_now(rig->bed->loop) > end_ns);
	assert_int_equal(call.done, 0);
	assert_int_equal(rig->downs, 0);
	assert_in_range(net_stats(rig->server)->frames_in - frames, 2, 11); /* pings */
	rig_release(rig, 0);
	assert_int_equal(test_call_wait(rig, &call), 0);
	/* Idle: after a ping that was on its way, not a byte more. */
	end_ns = loop_now(rig->bed->loop) + quick.silence_ns;
	BED_UNTIL(rig->bed, loop_now(rig->bed->loop) > end_ns);
	frames = net_stats(rig->server)->frames_in;
	end_ns = loop_now(rig->bed->loop) + 3 * quick.silence_ns;
	BED_UNTIL(rig->bed, loop_now(rig->bed->loop) > end_ns);
	assert_int_equal(net_stats(rig->server)->frames_in, frames);
	rig_free(rig);
}

static void test_link_follows_its_address(void **state)
{
	struct rig *rig = rig_new(*state, NULL, &quick);
	struct net_link *link = rig_link(
		rig, &(struct net_link_options){.class = 1, .address = rig->bed->tcp_dead});
	struct net_listener *second;
	struct test_call call, held;
	struct error err = {0};

	net_link_connect(link);
	BED_UNTIL(rig->bed, rig->downs >= 1);
	assert_int_equal(net_link_set_address(link, net_listener_address(rig->listener)), 0);
	BED_UNTIL(rig->bed, rig->ups == 1);
	if (net_listen(rig->server, rig->bed->tcp_any,
		       &(struct net_listener_options){.magic = FRAME_MAGIC_PEER}, &second,
		       &err) < 0)
		fail_msg("%s", err.text);
	test_call_init(&held, OP_HOLD, 0, 0);
	net_link_call(link, &held.call);
	BED_UNTIL(rig->bed, rig->held_count == 1);
	assert_int_equal(net_link_set_address(link, net_listener_address(second)), 0);
	assert_int_equal(test_call_wait(rig, &held), -E_CLOSED);
	test_call_init(&call, OP_ECHO, 0, 0);
	net_link_call(link, &call.call);
	assert_int_equal(test_call_wait(rig, &call), 0);
	assert_int_equal(net_link_set_address(link, "nonsense"), -EINVAL);
	assert_string_equal(net_link_address(link), net_listener_address(second));
	rig_free(rig);
}

/* Newcomers wait while the house is full; nobody is harmed. */
static void test_listener_waits_when_there_are_too_many(void **state)
{
	enum { HELLO_SIZE = FRAME_HEADER_SIZE + sizeof(struct frame_hello_reply), MANY = 8 };
	struct rig *rig = rig_new(*state, &(struct net_options){.sessions_max = 4}, NULL);
	struct raw *raws[MANY];

	for (unsigned i = 0; i < MANY; i++) {
		raws[i] = raw_dial(rig->bed, net_listener_address(rig->listener));
		raw_hello(raws[i], &identity_b, i + 1);
	}
	BED_UNTIL(rig->bed, rig->opened == 4);
	for (unsigned i = 0; i < 20; i++)
		bed_turn(rig->bed);
	assert_int_equal(rig->opened, 4);
	for (unsigned i = 0; i < 4; i++) {
		raw_free(raws[i]);
		BED_UNTIL(rig->bed, rig->opened == 5 + i);
		raw_expect(raws[4 + i], HELLO_SIZE);
	}
	for (unsigned i = 4; i < MANY; i++)
		raw_free(raws[i]);
	rig_free(rig);
}

/* All that a turn asks for leaves with one send, and all answers come back with few. */
static void test_a_turn_of_calls_is_one_send(void **state)
{
	enum { CALLS = 64 };
	struct rig *rig = rig_new(*state, NULL, NULL);
	struct net_link *link = rig_link(rig, NULL);
	struct test_call calls[CALLS];

	net_link_connect(link);
	BED_UNTIL(rig->bed, net_link_is_up(link));
	struct net_stats before = *net_stats(rig->client);
	for (unsigned i = 0; i < CALLS; i++) {
		test_call_init(&calls[i], OP_ECHO, i, 0);
		test_call_fill(&calls[i], rig->bed->loop, 512, 1);
		calls[i].call.reply_max = 512;
		net_link_call(link, &calls[i].call);
	}
	BED_UNTIL(rig->bed, net_link_outstanding(link) == 0);
	assert_int_equal(net_stats(rig->client)->sends - before.sends, 1);
	assert_int_equal(net_stats(rig->client)->frames_out - before.frames_out, CALLS);
	assert_in_range(net_stats(rig->server)->sends, 2, 12); /* hello, then by receive */
	for (unsigned i = 0; i < CALLS; i++) {
		assert_true(calls[i].is_right);
		test_call_drop(&calls[i]);
	}
	rig_free(rig);
}

/*
 * Calls of all sizes while the connection is ended at random places by either side: each completes
 * exactly once, either answered right or closed.
 */
static void test_random_resets_lose_and_double_nothing(void **state)
{
	enum { CALLS = 60, ROUNDS = 60 };
	struct rig *rig = rig_new(
		*state, &(struct net_options){.credit_requests = 16, .credit_bytes = 4 << 20},
		&quick);
	struct net_link *link = rig_link(rig, NULL);
	struct test_call *calls = calloc(CALLS, sizeof(*calls));
	struct random random;
	unsigned answered = 0, closed = 0;

	random_init(&random, 4711);
	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned turns = (unsigned)random_below(&random, 12);
		for (unsigned i = 0; i < CALLS; i++) {
			uint32_t size = (uint32_t)random_below(&random, i % 9 ? 5000 : 400000);
			test_call_init(&calls[i], OP_ECHO, i, 0);
			if (size)
				test_call_fill(&calls[i], rig->bed->loop, size, 1 + i % 4);
			calls[i].call.reply_max = max_of(size, 1u);
			net_link_call(link, &calls[i].call);
		}
		/* The pause after the round before is over, or still ends all of this one. */
		if (random_below(&random, 8))
			BED_UNTIL(rig->bed, net_link_state(link) != NET_LINK_WAITING);
		while (turns-- > 0)
			bed_turn(rig->bed);
		if (random_below(&random, 2) && rig->session)
			net_session_close(rig->session, -EIO, "at random");
		else
			net_link_reset(link, -EIO, "at random");
		BED_UNTIL(rig->bed, net_link_outstanding(link) == 0);
		for (unsigned i = 0; i < CALLS; i++) {
			assert_int_equal(calls[i].done, 1);
			if (calls[i].result == 0) {
				assert_true(calls[i].is_right);
				answered++;
			} else {
				assert_int_equal(calls[i].result, -E_CLOSED);
				closed++;
			}
			test_call_drop(&calls[i]);
		}
	}
	assert_true(answered > CALLS && closed > CALLS); /* both were tried */
	free(calls);
	rig_free(rig);
}

/* net_stop() with everything under way: all completes, all is given back. */
static void test_stop_ends_everything(void **state)
{
	enum { CALLS = 30 };
	struct rig *rig = rig_new(*state, NULL, &quick);
	struct net_link *up = rig_link(rig, NULL), *connecting = rig_link(rig, NULL);
	struct net_link *dead = rig_link(
		rig, &(struct net_link_options){.class = 1, .address = rig->bed->tcp_dead});
	struct test_call calls[CALLS], late;

	net_link_connect(dead);
	for (unsigned i = 0; i < CALLS; i++) {
		test_call_init(&calls[i], i % 3 == 0 ? OP_HOLD : OP_ECHO, i, 0);
		net_link_call(i % 3 == 2 ? dead : up, &calls[i].call);
	}
	BED_UNTIL(rig->bed, rig->held_count == 10);
	net_link_connect(connecting);
	struct raw *silent = raw_dial(rig->bed, net_listener_address(rig->listener));
	net_stop(rig->client);
	net_stop(rig->server);
	test_call_init(&late, OP_ECHO, 0, 0);
	net_link_call(up, &late.call);
	assert_int_equal(late.done, 0);
	BED_UNTIL(rig->bed, net_is_stopped(rig->client) && late.done);
	for (unsigned i = 0; i < CALLS; i++)
		assert_int_equal(calls[i].done, 1);
	assert_int_equal(late.result, -E_CLOSED);
	assert_false(net_is_stopped(rig->server)); /* handlers still have requests */
	net_link_free(connecting);
	net_link_free(dead);
	raw_free(silent);
	rig_free(rig);
}

const struct CMUnitTest net_suite_life[] = {
	BED_TEST(test_calls_in_flight_complete_once_when_the_connection_ends),
	BED_TEST(test_link_that_is_freed_completes_its_calls_later),
	BED_TEST(test_dials_back_off_until_somebody_listens),
	BED_TEST(test_calls_made_again_at_once_wait_for_the_next_dial),
	BED_TEST(test_link_may_be_freed_from_a_completion),
	BED_TEST(test_reset_in_the_pause_ends_what_waits_for_the_next_dial),
	BED_TEST(test_refusals_say_why),
	BED_TEST(test_newer_sessions_end_older_ones_of_the_same_peer),
	BED_TEST(test_slow_requests_do_not_reset_the_link),
	BED_TEST(test_link_follows_its_address),
	BED_TEST(test_listener_waits_when_there_are_too_many),
	BED_TEST(test_a_turn_of_calls_is_one_send),
	BED_TEST(test_random_resets_lose_and_double_nothing),
	BED_TEST(test_stop_ends_everything),
};
const size_t net_suite_life_count = ARRAY_COUNT(net_suite_life);
