#include "tests/unit/net_suite.h"

#include <stdio.h>

const struct wire_identity identity_a = {
	.cluster = {{1, 2, 3}},
	.node = {{0xa}},
	.node_id = 1,
	.incarnation = 5,
	.nonce = 77,
	.loops = 1,
};
const struct wire_identity identity_b = {
	.cluster = {{1, 2, 3}},
	.node = {{0xb}},
	.node_id = 2,
	.incarnation = 9,
	.nonce = 78,
	.loops = 1,
};

/* ---- the protocol ---- */

static struct rig *rig_of(struct net_request *request)
{
	return net_request_context(request);
}

static void on_echo(struct net_request *request)
{
	struct rig *rig = rig_of(request);

	rig->handled++;
	if (rig->is_lazy) {
		rig->held[rig->held_count++] = request;
		return;
	}
	struct slice payload = request->payload;
	request->payload.buffer = NULL;
	net_reply(request, 0, request->body, request->body_size, &payload, payload.size ? 1 : 0);
}

static void on_hold(struct net_request *request)
{
	struct rig *rig = rig_of(request);

	rig->handled++;
	assert_true(rig->held_count < ARRAY_COUNT(rig->held));
	rig->held[rig->held_count++] = request;
}

static void on_note(struct net_request *request)
{
	struct rig *rig = rig_of(request);

	rig->notes++;
	if (rig->is_lazy)
		rig->held[rig->held_count++] = request;
	else
		net_request_done(request);
}

static void on_grown(struct net_request *request)
{
	const struct test_grown *body = request->body;
	struct test_grown reply = {.old = body->new, .old_too = body->newer};

	net_reply(request, 0, &reply, offsetof(struct test_grown, new), NULL, 0);
}

/* In pieces of 1000 bytes each, every one with a reference of its own. */
static void on_read(struct net_request *request)
{
	const struct test_body *body = request->body;
	uint32_t size = from_le32(body->size);
	struct buffer *buffer = buffer_new(loop_buffers(net_loop(rig_of(request)->server)), size);
	struct slice slices[256];
	unsigned count = 0;

	pattern_fill(buffer->data, size, from_le32(body->seed));
	for (uint32_t at = 0; at < size; at += 1000)
		slices[count++] = slice_of(buffer_get(buffer), at, min_of(1000u, size - at));
	buffer_put(buffer);
	net_reply(request, 0, NULL, 0, slices, count);
}

static void on_fail(struct net_request *request)
{
	const struct test_body *body = request->body;

	net_reply_text(request, -(int)from_le32(body->size), "because I say so");
}

static const struct wire_op test_ops[OP_COUNT] = {
	[OP_ECHO] = {.name = "echo",
		     .body_min = sizeof(struct test_body),
		     .body_size = sizeof(struct test_body),
		     .reply_min = sizeof(struct test_body),
		     .reply_size = sizeof(struct test_body),
		     .payload_max = FRAME_PAYLOAD_MAX,
		     .reply_payload_max = FRAME_PAYLOAD_MAX,
		     .handle = on_echo},
	[OP_HOLD] = {.name = "hold",
		     .payload_max = 1 << 20,
		     .reply_payload_max = 4096,
		     .handle = on_hold},
	[OP_NOTE] = {.name = "note",
		     .flags = WIRE_OP_ONEWAY,
		     .payload_max = 4096,
		     .handle = on_note},
	[OP_NEW] = {.name = "new", .since = 2, .handle = on_hold},
	[OP_GROWN] = {.name = "grown",
		      .body_min = 8,
		      .body_size = sizeof(struct test_grown),
		      .reply_min = 8,
		      .reply_size = sizeof(struct test_grown),
		      .handle = on_grown},
	[OP_READ] = {.name = "read",
		     .body_min = sizeof(struct test_body),
		     .body_size = sizeof(struct test_body),
		     .reply_payload_max = 1 << 20,
		     .handle = on_read},
	[OP_UNSERVED] = {.name = "unserved"},
	[OP_LONG] = {.name = "long",
		     .body_min = 8,
		     .body_size = FRAME_BODY_MAX,
		     .reply_min = 8,
		     .reply_size = FRAME_BODY_MAX,
		     .handle = on_echo},
	[OP_FAIL] = {.name = "fail",
		     .body_min = sizeof(struct test_body),
		     .body_size = sizeof(struct test_body),
		     .reply_payload_max = FRAME_TEXT_MAX,
		     .handle = on_fail},
};

const struct wire_protocol test_protocol = {
	.name = "test",
	.magic = FRAME_MAGIC_PEER,
	.version_min = 1,
	.version_max = 1,
	.open_classes = BIT(0),
	.classes = 3,
	.ops = test_ops,
	.op_count = OP_COUNT,
};

/* ---- the rig ---- */

static int on_opened(struct net_session *session, struct error *err)
{
	struct rig *rig = net_session_context(session);

	if (rig->refuse_with)
		return error_set(err, rig->refuse_with, "not you");
	rig->opened++;
	rig->session = session;
	return 0;
}

static void on_closed(struct net_session *session, int error)
{
	struct rig *rig = net_session_context(session);

	rig->closed++;
	rig->closed_error = error;
	if (rig->session == session)
		rig->session = NULL;
}

static void on_changed(struct net_link *link, bool is_up, int error)
{
	struct rig *rig = net_link_context(link);

	if (is_up) {
		rig->ups++;
	} else {
		rig->downs++;
		rig->down_error = error;
	}
}

struct rig *rig_new(struct bed *bed, const struct net_options *server_options,
		    const struct net_options *client_options)
{
	const struct net_options none = {0};
	struct rig *rig = calloc(1, sizeof(*rig));
	struct error err = {0};

	rig->bed = bed;
	assert_int_equal(net_new(bed_other(bed), server_options ? server_options : &none,
				 &identity_a, &rig->server, &err),
			 0);
	assert_int_equal(net_new(bed->loop, client_options ? client_options : &none, &identity_b,
				 &rig->client, &err),
			 0);
	rig->service = (struct net_service){
		.protocol = &test_protocol,
		.context = rig,
		.opened = on_opened,
		.closed = on_closed,
	};
	assert_int_equal(net_serve(rig->server, &rig->service), 0);
	if (net_listen(rig->server, bed->tcp_any,
		       &(struct net_listener_options){.magic = FRAME_MAGIC_PEER}, &rig->listener,
		       &err) < 0)
		fail_msg("%s", err.text);
	return rig;
}

struct net_link *rig_link(struct rig *rig, const struct net_link_options *options)
{
	struct net_link_options all = options ? *options : (struct net_link_options){.class = 1};
	struct net_link *link;
	struct error err = {0};

	if (!all.address)
		all.address = net_listener_address(rig->listener);
	if (!all.protocol)
		all.protocol = &test_protocol;
	all.context = rig;
	all.changed = on_changed;
	if (net_link_new(rig->client, &all, &link, &err) < 0)
		fail_msg("%s", err.text);
	if (!rig->link)
		rig->link = link;
	return link;
}

void rig_release(struct rig *rig, int status)
{
	unsigned count = rig->held_count;

	rig->held_count = 0;
	for (unsigned i = 0; i < count; i++) {
		struct net_request *request = rig->held[i];
		struct slice payload = request->payload;
		request->payload.buffer = NULL;
		net_reply(request, status, request->body, request->body_size, &payload,
			  payload.size ? 1 : 0);
	}
}

void rig_free(struct rig *rig)
{
	rig_release(rig, -EIO);
	net_link_free(rig->link);
	net_stop(rig->client);
	net_stop(rig->server);
	BED_UNTIL(rig->bed, net_is_stopped(rig->client) && net_is_stopped(rig->server));
	assert_int_equal(rig->opened, rig->closed);
	net_free(rig->client);
	net_free(rig->server);
	/* Nothing is left of any payload. */
	assert_int_equal(buffer_cache_busy(loop_buffers(rig->bed->loop)), 0);
	assert_int_equal(buffer_cache_busy(loop_buffers(rig->bed->other)), 0);
	free(rig);
}

/* ---- calls ---- */

uint64_t test_call_order;

static void on_call_done(struct net_call *net_call, int result)
{
	struct test_call *call = container_of_type(net_call, struct test_call, call);
	uint32_t size = from_le32(call->body.size);

	assert_int_equal(call->done, 0);
	call->done++;
	call->result = result;
	call->order = ++test_call_order;
	if (result == -E_CLOSED) {
		assert_null(net_call->reply_body);
		assert_null(net_call->reply_slice.data);
	}
	if (net_call->reply_body && net_call->op == OP_ECHO) {
		const struct test_body *body = net_call->reply_body;
		call->reply_seed = from_le32(body->seed);
	}
	if (net_call->reply_body && net_call->op == OP_GROWN)
		memcpy(&call->grown, net_call->reply_body, sizeof(call->grown));
	if (net_call->reply_slice.data) {
		call->kept = net_call_take(net_call);
		call->is_right = call->kept.size == size &&
				 pattern_is(call->kept.data, size, from_le32(call->body.seed));
		buffer_put(call->kept.buffer);
		call->kept = (struct slice){0};
	} else {
		call->is_right = size == 0;
	}
}

void test_call_init(struct test_call *call, uint16_t op, uint32_t seed, uint32_t size)
{
	*call = (struct test_call){
		.body = {.seed = to_le32(seed), .size = to_le32(size)},
	};
	call->call.op = op;
	call->call.body = &call->body;
	call->call.body_size = sizeof(call->body);
	call->call.done = on_call_done;
}

void test_call_fill(struct test_call *call, struct loop *loop, uint32_t size, unsigned pieces)
{
	struct buffer *buffer = buffer_new(loop_buffers(loop), size);

	pattern_fill(buffer->data, size, from_le32(call->body.seed));
	for (unsigned i = 0; i < pieces; i++) {
		uint32_t from = size / pieces * i;
		uint32_t to = i + 1 < pieces ? size / pieces * (i + 1) : size;
		call->slices[i] = slice_of(buffer, from, to - from);
	}
	call->body.size = to_le32(size);
	call->call.slices = call->slices;
	call->call.slice_count = pieces;
}

void test_call_drop(struct test_call *call)
{
	buffer_put(call->slices[0].buffer);
	call->slices[0].buffer = NULL;
}

int test_call_wait(struct rig *rig, struct test_call *call)
{
	BED_UNTIL(rig->bed, call->done);
	return call->result;
}
