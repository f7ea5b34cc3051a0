/* What a peer may do wrong: it loses its connection, and nobody else anything. */
#include "tests/unit/net_suite.h"
#include "tests/unit/wire_frames.h"

enum { HELLO_SIZE = FRAME_HEADER_SIZE + sizeof(struct frame_hello) };

/* ---- to a server ---- */

/* Each gets a connection that has said HELLO. */
static void garbage(struct raw *raw)
{
	uint8_t bytes[300];

	test_fill(bytes, sizeof(bytes), 5);
	(void)raw_send(raw, bytes, sizeof(bytes));
}

static void zeroes(struct raw *raw)
{
	uint8_t bytes[300] = {0};

	(void)raw_send(raw, bytes, sizeof(bytes));
}

static void second_hello(struct raw *raw)
{
	raw_hello(raw, &identity_b, 1);
}

static void reply_to_nothing(struct raw *raw)
{
	(void)raw_frame(raw, OP_ECHO, FRAME_REPLY, 1, 8, 0, 0);
}

static void body_too_short(struct raw *raw)
{
	(void)raw_frame(raw, OP_ECHO, 0, 1, 7, 0, 0);
}

static void payload_too_large(struct raw *raw)
{
	(void)raw_frame(raw, OP_HOLD, 0, 1, 0, (1 << 20) + 1, 0);
}

static void payload_where_none_belongs(struct raw *raw)
{
	(void)raw_frame(raw, OP_GROWN, 0, 1, 8, 1, 0);
}

static void oneway_that_is_not(struct raw *raw)
{
	(void)raw_frame(raw, OP_ECHO, FRAME_ONEWAY, 0, 8, 0, 0);
}

static void oneway_with_number(struct raw *raw)
{
	(void)raw_frame(raw, OP_NOTE, 0, 4, 8, 0, 0);
}

static void no_checksum(struct raw *raw)
{
	(void)raw_frame(raw, OP_ECHO, FRAME_OWN_CRC, 1, 8, 100, 100);
}

static void too_many_requests(struct raw *raw)
{
	for (unsigned i = 0; i < 5; i++)
		(void)raw_frame(raw, OP_HOLD, 0, i + 1, 0, 0, 0);
}

static void too_many_bytes(struct raw *raw)
{
	for (unsigned i = 0; i < 2; i++)
		(void)raw_frame(raw, OP_HOLD, 0, i + 1, 0, 100, 600 << 10);
}

static void ping_with_a_payload(struct raw *raw)
{
	(void)raw_frame(raw, FRAME_OP_PING, 0, 1, 0, 10, 0);
}

static void many_pings_at_once(struct raw *raw)
{
	const struct test_frame ping = {.op = FRAME_OP_PING, .request = 1};
	uint8_t bytes[20 * FRAME_HEADER_SIZE];

	for (unsigned i = 0; i < 20; i++)
		(void)test_encode(bytes + (size_t)i * FRAME_HEADER_SIZE, &ping, 0);
	(void)raw_send(raw, bytes, sizeof(bytes));
}

static void half_a_frame_and_gone(struct raw *raw)
{
	uint8_t bytes[1000];
	const struct test_frame frame = {
		.op = OP_ECHO, .request = 1, .body_size = 8, .payload_size = 900};

	(void)raw_send(raw, bytes, test_encode(bytes, &frame, 0) - 500);
	loop_socket_shutdown(raw->loop, raw->socket, false);
}

static void half_a_frame_and_silence(struct raw *raw)
{
	uint8_t bytes[1000];
	const struct test_frame frame = {
		.op = OP_ECHO, .request = 1, .body_size = 8, .payload_size = 900};

	(void)raw_send(raw, bytes, test_encode(bytes, &frame, 0) - 500);
}

static const struct {
	const char *name;
	void (*tell)(struct raw *raw);
} lies[] = {
	{"garbage", garbage},
	{"zeroes", zeroes},
	{"a second hello", second_hello},
	{"a reply to nothing", reply_to_nothing},
	{"a body that is too short", body_too_short},
	{"a payload that is too large", payload_too_large},
	{"a payload where none belongs", payload_where_none_belongs},
	{"one-way for an op that is not", oneway_that_is_not},
	{"a number for an op that is one-way", oneway_with_number},
	{"no checksum", no_checksum},
	{"more requests than credit", too_many_requests},
	{"more bytes than credit", too_many_bytes},
	{"ping with a payload", ping_with_a_payload},
	{"many pings at once", many_pings_at_once},
	{"half a frame and gone", half_a_frame_and_gone},
	{"half a frame and silence", half_a_frame_and_silence},
};

static const struct net_options small_server = {
	.credit_requests = 4,
	.credit_bytes = 1 << 20,
	.hello_timeout_ns = 200 * NS_PER_MS,
	.silence_ns = 300 * NS_PER_MS,
};

/* A second peer, which is honest, notices nothing. */
static void expect_service(struct rig *rig)
{
	struct test_call call;

	test_call_init(&call, OP_ECHO, 99, 0);
	net_link_call(rig->link, &call.call);
	assert_int_equal(test_call_wait(rig, &call), 0);
	assert_int_equal(call.reply_seed, 99);
	assert_int_equal(rig->downs, 0);
}

static void test_lies_to_a_server_end_their_connection_only(void **state)
{
	struct rig *rig = rig_new(*state, &small_server, NULL);
	struct wire_identity liar = identity_b;

	liar.node.bytes[0] = 0xcc;
	(void)rig_link(rig, NULL);
	expect_service(rig);
	for (unsigned i = 0; i < ARRAY_COUNT(lies); i++) {
		struct raw *raw = raw_dial(rig->bed, net_listener_address(rig->listener));
		unsigned closed = rig->closed;
		raw_hello(raw, &liar, i);
		raw_expect(raw, HELLO_SIZE);
		assert_int_equal(rig->opened, i + 2);
		lies[i].tell(raw);
		BED_UNTIL(rig->bed, raw->is_ended);
		BED_UNTIL(rig->bed, rig->closed == closed + 1);
		if (rig->closed_error >= 0)
			fail_msg("%s: no error", lies[i].name);
		rig_release(rig, 0); /* to a session that is gone */
		expect_service(rig);
		raw_free(raw);
	}
	rig_free(rig);
}

/* An op that is not known is answered: newer peers may ask. */
static void test_unknown_op_is_answered(void **state)
{
	struct rig *rig = rig_new(*state, &small_server, NULL);
	struct raw *raw = raw_dial(rig->bed, net_listener_address(rig->listener));
	static const uint16_t ops[] = {OP_LATE, OP_COUNT, 1000, OP_NEW, OP_UNSERVED};

	raw_hello(raw, &identity_b, 1);
	raw_expect(raw, HELLO_SIZE);
	for (unsigned i = 0; i < ARRAY_COUNT(ops); i++) {
		size_t at = raw->size;
		struct frame_header header;
		assert_true(raw_frame(raw, ops[i], 0, 7, 0, 0, 0));
		raw_expect(raw, at + FRAME_HEADER_SIZE);
		memcpy(&header, raw->data + at, sizeof(header));
		assert_int_equal(from_le32(header.status), PROTO_STATUS_UNSUPPORTED);
		assert_int_equal(from_le64(header.request), 7);
	}
	/* One-way ones vanish. */
	assert_true(raw_frame(raw, 1000, FRAME_ONEWAY, 0, 8, 100, 0));
	assert_true(raw_frame(raw, FRAME_OP_PING, 0, 8, 0, 0, 0));
	raw_expect(raw, HELLO_SIZE + 6 * FRAME_HEADER_SIZE);
	assert_false(raw->is_ended);
	raw_free(raw);
	rig_free(rig);
}

/* Before HELLO: nothing, a byte, half of it, another protocol, an op, too much at once. */
static void test_bad_greetings_are_dropped_in_time(void **state)
{
	struct rig *rig = rig_new(*state, &small_server, NULL);
	uint8_t bytes[2 * HELLO_SIZE] = {0};
	const char http[80] = "GET / HTTP/1.1\r\nHost: sheepfold\r\n\r\n";

	for (unsigned kind = 0; kind < 8; kind++) {
		struct raw *raw = raw_dial(rig->bed, net_listener_address(rig->listener));
		struct test_frame frame = {.op = 0, .request = 1, .body_size = 128};
		switch (kind) {
		case 0:
			break;
		case 1:
			assert_true(raw_send(raw, "S", 1));
			break;
		case 2:
			(void)test_encode(bytes, &frame, 0);
			assert_true(raw_send(raw, bytes, 100));
			break;
		case 3:
			(void)raw_send(raw, http, sizeof(http));
			break;
		case 4:
			(void)raw_frame(raw, OP_ECHO, 0, 1, 8, 0, 0);
			break;
		case 5:
			(void)raw_frame(raw, FRAME_OP_HELLO, 0, 1, 128, 4096, 0);
			break;
		case 6:
			(void)raw_frame(raw, FRAME_OP_HELLO, 0, 1, 100, 0, 0);
			break;
		case 7: /* a good one, but something behind it */
			raw->prefix_size = 1;
			raw_hello(raw, &identity_b, 1);
			break;
		}
		BED_UNTIL(rig->bed, raw->is_ended);
		raw_free(raw);
	}
	assert_int_equal(rig->opened, 0);
	rig_free(rig);
}

/* A peer that asks and never reads is dropped before it has cost much. */
static void test_peer_that_does_not_read_is_bounded(void **state)
{
	struct net_options options = small_server;
	options.silence_ns = 10 * NS_PER_S; /* not the deadline but the bound is to act */
	struct rig *rig = rig_new(*state, &options, NULL);
	struct bed *bed = rig->bed;
	struct call dial = {0};
	struct test_body body = {.seed = to_le32(1), .size = to_le32(200000)};
	struct {
		struct frame_header header;
		struct test_body body;
	} frame = {
		.header = {.magic = to_le32(FRAME_MAGIC_PEER),
			   .op = to_le16(OP_READ),
			   .request = to_le64(1),
			   .body_size = to_le32(sizeof(body)),
			   .body_crc = to_le32(crc32c(&body, sizeof(body))),
			   .reply_max = to_le32(200000)},
		.body = body,
	};
	frame.header.header_crc =
		to_le32(crc32c(&frame, offsetof(struct frame_header, header_crc)));

	loop_connect(bed->loop, call_begin(&dial), net_listener_address(rig->listener));
	BED_UNTIL(bed, dial.completions);
	struct raw raw = {.bed = bed, .loop = bed->loop, .socket = dial.op.out.socket};
	raw_hello(&raw, &identity_b, 1);
	BED_UNTIL(bed, rig->opened == 1);
	for (unsigned i = 0; i < 1000 && rig->closed == 0; i++) {
		(void)raw_send(&raw, &frame, sizeof(frame));
		for (unsigned turn = 0; turn < 3; turn++)
			bed_turn(bed);
		/* 3 credits, a send and one reply more: 22 buffers, and as many of slices. */
		assert_true(buffer_cache_busy(loop_buffers(bed->other)) < 50);
	}
	assert_int_equal(rig->closed, 1);
	assert_int_equal(rig->closed_error, -E_PROTOCOL);
	loop_socket_close(bed->loop, raw.socket);
	bed_turn(bed);
	rig_free(rig);
}

/* One-way requests are not charged, so those that a handler cannot follow are dropped. */
static void test_oneway_requests_beyond_a_bound_are_dropped(void **state)
{
	struct rig *rig = rig_new(*state, &small_server, NULL);
	struct raw *raw = raw_dial(rig->bed, net_listener_address(rig->listener));

	raw_hello(raw, &identity_b, 1);
	raw_expect(raw, HELLO_SIZE);
	rig->is_lazy = true;
	for (unsigned i = 0; i < 20; i++)
		assert_true(raw_frame(raw, OP_NOTE, FRAME_ONEWAY, 0, 8, 4096, 0));
	assert_true(raw_frame(raw, FRAME_OP_PING, 0, 8, 0, 0, 0));
	raw_expect(raw, HELLO_SIZE + FRAME_HEADER_SIZE);
	assert_int_equal(rig->notes, 4);
	rig_release(rig, 0);
	assert_true(raw_frame(raw, OP_NOTE, FRAME_ONEWAY, 0, 8, 4096, 0));
	BED_UNTIL(rig->bed, rig->notes == 5);
	assert_false(raw->is_ended);
	raw_free(raw);
	rig_free(rig);
}

/* ---- to a client ---- */

/* Each gets the server's end of a connection on which one ECHO was asked for. */
static const uint64_t FIRST_ID = 0x10000;

static void silence(struct raw *raw)
{
}

static void close_it(struct raw *raw)
{
	loop_socket_shutdown(raw->loop, raw->socket, true);
}

static void half_a_reply(struct raw *raw)
{
	uint8_t bytes[1000];
	const struct test_frame frame = {.op = OP_ECHO,
					 .flags = FRAME_REPLY,
					 .request = FIRST_ID,
					 .body_size = 8,
					 .payload_size = 500};

	(void)raw_send(raw, bytes, test_encode(bytes, &frame, 0) - 100);
	loop_socket_shutdown(raw->loop, raw->socket, true);
}

static void unasked_reply(struct raw *raw)
{
	(void)raw_frame(raw, OP_ECHO, FRAME_REPLY, FIRST_ID + 1, 8, 0, 0);
}

static void old_reply(struct raw *raw)
{
	(void)raw_frame(raw, OP_ECHO, FRAME_REPLY, FIRST_ID - 0x10000, 8, 0, 0);
}

static void reply_of_another_op(struct raw *raw)
{
	(void)raw_frame(raw, OP_HOLD, FRAME_REPLY, FIRST_ID, 8, 0, 0);
}

static void large_reply(struct raw *raw)
{
	(void)raw_frame(raw, OP_ECHO, FRAME_REPLY, FIRST_ID, 8, 4097, 0);
}

static void short_reply(struct raw *raw)
{
	(void)raw_frame(raw, OP_ECHO, FRAME_REPLY, FIRST_ID, 7, 0, 0);
}

static void unsummed_reply(struct raw *raw)
{
	(void)raw_frame(raw, OP_ECHO, FRAME_REPLY | FRAME_OWN_CRC, FIRST_ID, 8, 10, 0);
}

static void request_back(struct raw *raw)
{
	(void)raw_frame(raw, OP_ECHO, 0, FIRST_ID, 8, 0, 0);
}

static void pong_without_ping(struct raw *raw)
{
	(void)raw_frame(raw, FRAME_OP_PING, FRAME_REPLY, 1, 0, 0, 0);
}

static void hello_again(struct raw *raw)
{
	(void)raw_frame(raw, FRAME_OP_HELLO, FRAME_REPLY, 1, 128, 0, 0);
}

static const struct {
	const char *name;
	void (*tell)(struct raw *raw);
} server_lies[] = {
	{"silence", silence},
	{"close", close_it},
	{"half a reply", half_a_reply},
	{"a reply that nobody asked for", unasked_reply},
	{"an old reply", old_reply},
	{"a reply of another op", reply_of_another_op},
	{"a reply that is too large", large_reply},
	{"a reply that is too short", short_reply},
	{"a reply without checksum", unsummed_reply},
	{"a request", request_back},
	{"a pong without ping", pong_without_ping},
	{"hello again", hello_again},
	{"garbage", garbage},
	{"zeroes", zeroes},
};

/* Answer the HELLO that has come, granting 8 requests. */
static void accept_hello(struct raw *raw)
{
	uint8_t bytes[HELLO_SIZE];
	struct frame_hello_reply *reply = (void *)(bytes + FRAME_HEADER_SIZE);
	struct wire_agreement agreement = {
		.version = 1, .credit_requests = 8, .credit_bytes = 64 << 20, .session = 1};
	struct frame_header header = {
		.magic = to_le32(FRAME_MAGIC_PEER),
		.flags = to_le16(FRAME_REPLY),
		.request = to_le64(1),
		.body_size = to_le32(sizeof(*reply)),
	};

	wire_hello_reply_make(reply, &test_protocol, &identity_a, &agreement);
	header.body_crc = to_le32(crc32c(reply, sizeof(*reply)));
	header.header_crc = to_le32(crc32c(&header, offsetof(struct frame_header, header_crc)));
	memcpy(bytes, &header, sizeof(header));
	assert_true(raw_send(raw, bytes, sizeof(bytes)));
}

static void test_lies_to_a_client_reset_its_link(void **state)
{
	struct rig *rig = rig_new(*state, NULL,
				  &(struct net_options){.silence_ns = 300 * NS_PER_MS,
							.backoff_min_ns = NS_PER_MS,
							.backoff_max_ns = NS_PER_MS});
	struct loop_listener *listener;
	struct error err = {0};

	if (loop_listen(rig->bed->other, rig->bed->tcp_any, &listener, &err) < 0)
		fail_msg("%s", err.text);
	struct net_link *link = rig_link(
		rig,
		&(struct net_link_options){.class = 1, .address = loop_listener_address(listener)});
	for (unsigned i = 0; i < ARRAY_COUNT(server_lies); i++) {
		struct test_call call;
		test_call_init(&call, OP_ECHO, i, 0);
		call.call.reply_max = 4096;
		net_link_call(link, &call.call);
		struct raw *raw = raw_accept(rig->bed, listener);
		raw_read(raw);
		raw_expect(raw, HELLO_SIZE);
		accept_hello(raw);
		raw_expect(raw, HELLO_SIZE + FRAME_HEADER_SIZE + 8);
		assert_int_equal(rig->ups, i + 1);
		server_lies[i].tell(raw);
		BED_UNTIL(rig->bed, call.done);
		if (call.result != -E_CLOSED)
			fail_msg("%s: %d", server_lies[i].name, call.result);
		assert_true(call.call.was_sent);
		BED_UNTIL(rig->bed, rig->downs == i + 1);
		assert_true(rig->down_error < 0);
		raw_free(raw);
	}
	loop_listener_close(rig->bed->other, listener);
	rig_free(rig);
}

/* A reply to a request of which a part is still to be sent can only be a lie. */
static void test_reply_before_its_request_resets_the_link(void **state)
{
	enum { CALLS = 8 };
	struct rig *rig = rig_new(*state, NULL, NULL);
	struct loop_listener *listener;
	struct test_call calls[CALLS];
	struct error err = {0};

	if (loop_listen(rig->bed->other, rig->bed->tcp_any, &listener, &err) < 0)
		fail_msg("%s", err.text);
	struct net_link *link = rig_link(
		rig,
		&(struct net_link_options){.class = 1, .address = loop_listener_address(listener)});
	for (unsigned i = 0; i < CALLS; i++) {
		test_call_init(&calls[i], OP_ECHO, i, 0);
		test_call_fill(&calls[i], rig->bed->loop, 5 << 20, 2);
		calls[i].call.reply_max = 1;
		net_link_call(link, &calls[i].call);
	}
	struct raw *raw = raw_accept(rig->bed, listener);
	accept_hello(raw);
	BED_UNTIL(rig->bed, net_link_is_up(link));
	(void)raw_frame(raw, OP_ECHO, FRAME_REPLY, FIRST_ID + CALLS - 1, 8, 0, 0);
	BED_UNTIL(rig->bed, net_link_outstanding(link) == 0);
	for (unsigned i = 0; i < CALLS; i++) {
		assert_int_equal(calls[i].done, 1);
		assert_int_equal(calls[i].result, -E_CLOSED);
		test_call_drop(&calls[i]);
	}
	assert_false(calls[CALLS - 1].call.was_sent);
	assert_int_equal(rig->down_error, -E_PROTOCOL);
	raw_free(raw);
	loop_listener_close(rig->bed->other, listener);
	rig_free(rig);
}

const struct CMUnitTest net_suite_lies[] = {
	BED_TEST(test_lies_to_a_server_end_their_connection_only),
	BED_TEST(test_unknown_op_is_answered),
	BED_TEST(test_bad_greetings_are_dropped_in_time),
	BED_TEST(test_peer_that_does_not_read_is_bounded),
	BED_TEST(test_oneway_requests_beyond_a_bound_are_dropped),
	BED_TEST(test_lies_to_a_client_reset_its_link),
	BED_TEST(test_reply_before_its_request_resets_the_link),
};
const size_t net_suite_lies_count = ARRAY_COUNT(net_suite_lies);
