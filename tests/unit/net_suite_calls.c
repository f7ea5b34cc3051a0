/* Calls, credits, order, reconnection: an honest client and an honest server. */
#include "tests/unit/net_suite.h"

#include <stdio.h>

/* A payload comes back as it was sent, whatever its size and however it was cut. */
static void test_echo_of_all_sizes_is_what_was_sent(void **state)
{
	static const uint32_t sizes[] = {0,	1,	511,	4096,	 4097,	       8192,
					 65536, 262144, 262145, 1 << 20, (4 << 20) + 5};
	struct rig *rig = rig_new(*state, NULL, NULL);
	struct net_link *link = rig_link(rig, NULL);

	for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++)
		for (unsigned pieces = 1; pieces <= 4; pieces++) {
			struct test_call call;
			test_call_init(&call, OP_ECHO, i, 0);
			if (sizes[i])
				test_call_fill(&call, rig->bed->loop, sizes[i], pieces);
			net_link_call(link, &call.call);
			assert_int_equal(call.done, 0);
			assert_int_equal(test_call_wait(rig, &call), 0);
			assert_int_equal(call.reply_seed, i);
			assert_true(call.is_right);
			test_call_drop(&call);
		}
	assert_int_equal(rig->ups, 1);
	assert_int_equal(net_link_agreement(link)->version, 1);
	assert_int_equal(net_link_agreement(link)->peer.node_id, identity_a.node_id);
	assert_int_equal(net_session_agreement(rig->session)->peer.node_id, identity_b.node_id);
	assert_int_equal(net_session_agreement(rig->session)->class, 1);
	rig_free(rig);
}

/* 10,000 calls through a window of 64: all come back, in order, and no credit is overdrawn. */
static void test_many_calls_in_a_small_window_complete_in_order(void **state)
{
	enum { CALLS = 10000 };
	struct rig *rig = rig_new(
		*state, &(struct net_options){.credit_requests = 64, .credit_bytes = 1 << 20},
		NULL);
	struct net_link *link = rig_link(rig, NULL);
	struct test_call *calls = calloc(CALLS, sizeof(*calls));

	test_call_order = 0;
	for (unsigned i = 0; i < CALLS; i++) {
		test_call_init(&calls[i], OP_ECHO, i, 0);
		calls[i].call.reply_max = 1;
		net_link_call(link, &calls[i].call);
	}
	assert_int_equal(net_link_outstanding(link), CALLS);
	BED_UNTIL(rig->bed, net_link_outstanding(link) == 0);
	for (unsigned i = 0; i < CALLS; i++) {
		assert_int_equal(calls[i].result, 0);
		assert_int_equal(calls[i].reply_seed, i);
		assert_int_equal(calls[i].order, i + 1);
	}
	assert_int_equal(rig->handled, CALLS);
	assert_int_equal(rig->downs, 0);
	free(calls);
	rig_free(rig);
}

/* Credit is used up by requests and by bytes; what is over waits, and goes on when there is room. */
static void test_calls_beyond_credit_wait(void **state)
{
	struct rig *rig = rig_new(
		*state, &(struct net_options){.credit_requests = 4, .credit_bytes = 100000}, NULL);
	struct net_link *link = rig_link(rig, NULL);
	struct test_call calls[12];

	for (unsigned i = 0; i < 6; i++) { /* four may be outstanding */
		test_call_init(&calls[i], OP_HOLD, i, 0);
		calls[i].call.reply_max = 4096;
		net_link_call(link, &calls[i].call);
	}
	BED_UNTIL(rig->bed, rig->held_count == 4);
	assert_int_equal(net_link_waiting(link), 2);
	rig_release(rig, 0);
	BED_UNTIL(rig->bed, rig->held_count == 2);
	rig_release(rig, 0);
	BED_UNTIL(rig->bed, net_link_outstanding(link) == 0);

	for (unsigned i = 0; i < 4; i++) { /* of 40,000 bytes each two may */
		test_call_init(&calls[i], OP_HOLD, i, 0);
		test_call_fill(&calls[i], rig->bed->loop, 40000, 1);
		calls[i].call.reply_max = 1;
		net_link_call(link, &calls[i].call);
	}
	BED_UNTIL(rig->bed, rig->held_count == 2);
	assert_int_equal(net_link_waiting(link), 2);
	rig_release(rig, -ENOSPC);
	BED_UNTIL(rig->bed, rig->held_count == 2);
	rig_release(rig, -ENOSPC);
	BED_UNTIL(rig->bed, net_link_outstanding(link) == 0);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(calls[i].result, -ENOSPC);
		test_call_drop(&calls[i]);
	}

	/* One that is larger than all credit goes by itself. */
	test_call_init(&calls[0], OP_HOLD, 0, 0);
	test_call_fill(&calls[0], rig->bed->loop, 500000, 3);
	net_link_call(link, &calls[0].call);
	BED_UNTIL(rig->bed, rig->held_count == 1);
	rig_release(rig, -EIO);
	assert_int_equal(test_call_wait(rig, &calls[0]), -EIO);
	test_call_drop(&calls[0]);
	rig_free(rig);
}

/* Shorter bodies read as zeroes, both ways. */
static void test_short_bodies_are_continued_with_zeroes(void **state)
{
	struct rig *rig = rig_new(*state, NULL, NULL);
	struct net_link *link = rig_link(rig, NULL);
	struct test_grown body = {
		.old = to_le32(1), .old_too = to_le32(2), .new = to_le32(3), .newer = to_le32(4)};
	struct test_call call;

	/* Long ones first, so that what they leave behind would be seen. */
	for (unsigned size = sizeof(body); size >= 8; size -= 4) {
		test_call_init(&call, OP_GROWN, 0, 0);
		memset(&call.grown, 0xff, sizeof(call.grown));
		call.call.body = &body;
		call.call.body_size = size;
		net_link_call(link, &call.call);
		assert_int_equal(test_call_wait(rig, &call), 0);
		assert_int_equal(call.call.reply_body_size, 8);
		assert_int_equal(from_le32(call.grown.old), size >= 12 ? 3 : 0);
		assert_int_equal(from_le32(call.grown.old_too), size >= 16 ? 4 : 0);
		assert_int_equal(from_le32(call.grown.new), 0);
		assert_int_equal(from_le32(call.grown.newer), 0);
	}
	rig_free(rig);
}

static uint8_t long_body[FRAME_BODY_MAX];

static void on_long(struct net_call *net_call, int result)
{
	struct test_call *call = container_of_type(net_call, struct test_call, call);
	const uint8_t *reply = net_call->reply_body;
	uint32_t size = net_call->reply_body_size;

	call->done++;
	call->result = result;
	call->is_right = size == net_call->body_size && memcmp(reply, long_body, size) == 0;
	for (uint32_t i = size; i < FRAME_BODY_MAX; i++)
		call->is_right &= reply[i] == 0;
}

/* Bodies that do not fit into a message or request go the same way, also as their own answer. */
static void test_long_bodies_come_back(void **state)
{
	static const uint32_t sizes[] = {8, 191, 192, 193, 256, 257, 1000, 4095, 4096, 300, 8};
	struct rig *rig = rig_new(*state, NULL, NULL);
	struct net_link *link = rig_link(rig, NULL);
	struct test_call calls[ARRAY_COUNT(sizes)];

	pattern_fill(long_body, sizeof(long_body), 3);
	for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
		test_call_init(&calls[i], OP_LONG, 0, 0);
		calls[i].call.body = long_body;
		calls[i].call.body_size = sizes[i];
		calls[i].call.done = on_long;
		net_link_call(link, &calls[i].call);
	}
	BED_UNTIL(rig->bed, net_link_outstanding(link) == 0);
	for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
		assert_int_equal(calls[i].result, 0);
		assert_true(calls[i].is_right);
	}
	rig_free(rig);
}

/* A reply in many pieces is one slice for the caller. */
static void test_reply_of_many_pieces_comes_as_one(void **state)
{
	struct rig *rig = rig_new(*state, NULL, NULL);
	struct net_link *link = rig_link(rig, NULL);
	static const uint32_t sizes[] = {1, 1000, 8000, 8001, 100000, 250001};

	for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
		struct test_call call;
		test_call_init(&call, OP_READ, i, sizes[i]);
		net_link_call(link, &call.call);
		assert_int_equal(test_call_wait(rig, &call), 0);
		assert_true(call.is_right);
		/* More than was asked for is refused by the side that would send it. */
		test_call_init(&call, OP_READ, i, sizes[i]);
		call.call.reply_max = max_of(sizes[i] - 1, 1u);
		net_link_call(link, &call.call);
		assert_int_equal(test_call_wait(rig, &call), sizes[i] > 1 ? -E2BIG : 0);
	}
	assert_int_equal(rig->downs, 0);
	rig_free(rig);
}

static char told_text[64];

static void on_told(struct net_call *net_call, int result)
{
	struct test_call *call = container_of_type(net_call, struct test_call, call);
	struct slice text = net_call->reply_slice;

	call->done++;
	call->result = result;
	(void)snprintf(told_text, sizeof(told_text), "%.*s", (int)text.size, (char *)text.data);
}

/* Codes travel, texts come with them, and what nobody serves is refused without harm. */
static void test_refusals_have_their_code_and_text(void **state)
{
	static const int codes[] = {ENOSPC, E_STALE_EPOCH, E_NOT_PRIMARY, EIO, EBUSY};
	struct rig *rig = rig_new(*state, NULL, NULL);
	struct net_link *link = rig_link(rig, NULL);
	struct test_call call;

	for (unsigned i = 0; i < ARRAY_COUNT(codes); i++) {
		test_call_init(&call, OP_FAIL, 0, (uint32_t)codes[i]);
		call.call.done = on_told;
		net_link_call(link, &call.call);
		assert_int_equal(test_call_wait(rig, &call), -codes[i]);
		assert_string_equal(told_text, "because I say so");
	}
	test_call_init(&call, OP_UNSERVED, 0, 0);
	net_link_call(link, &call.call);
	assert_int_equal(test_call_wait(rig, &call), -EOPNOTSUPP);
	assert_true(call.call.was_sent);
	/* Our own table says that version 1 does not have it: it is not even sent. */
	test_call_init(&call, OP_NEW, 0, 0);
	net_link_call(link, &call.call);
	assert_int_equal(test_call_wait(rig, &call), -EOPNOTSUPP);
	assert_false(call.call.was_sent);
	assert_int_equal(rig->downs, 0);
	rig_free(rig);
}

/* One-way requests arrive, in order with the others, and are done when they were sent. */
static void test_oneway_requests_arrive(void **state)
{
	struct rig *rig = rig_new(*state, NULL, NULL);
	struct net_link *link = rig_link(rig, NULL);
	struct test_call notes[100], last;

	for (unsigned i = 0; i < ARRAY_COUNT(notes); i++) {
		test_call_init(&notes[i], OP_NOTE, i, 0);
		net_link_call(link, &notes[i].call);
	}
	test_call_init(&last, OP_ECHO, 1, 0);
	net_link_call(link, &last.call);
	assert_int_equal(test_call_wait(rig, &last), 0);
	assert_int_equal(rig->notes, ARRAY_COUNT(notes));
	for (unsigned i = 0; i < ARRAY_COUNT(notes); i++) {
		assert_int_equal(notes[i].done, 1);
		assert_int_equal(notes[i].result, 0);
	}
	rig_free(rig);
}

const struct CMUnitTest net_suite_calls[] = {
	BED_TEST(test_echo_of_all_sizes_is_what_was_sent),
	BED_TEST(test_many_calls_in_a_small_window_complete_in_order),
	BED_TEST(test_calls_beyond_credit_wait),
	BED_TEST(test_short_bodies_are_continued_with_zeroes),
	BED_TEST(test_long_bodies_come_back),
	BED_TEST(test_reply_of_many_pieces_comes_as_one),
	BED_TEST(test_refusals_have_their_code_and_text),
	BED_TEST(test_oneway_requests_arrive),
};
const size_t net_suite_calls_count = ARRAY_COUNT(net_suite_calls);
