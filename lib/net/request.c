/*
 * Requests of a session: from a frame to its handler, and from the answer to a frame.
 *
 * A request takes up credit from its header on and gives it back when it is answered; its
 * memory goes back to the net's pool when the reply has been sent. So a session is charged for what
 * handlers hold, and the output queue (bounded by check_output()) for what the other side does not read.
 */
#include "lib/net/session.h"

#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/size.h"

/*
 * An honest dialler takes up credit again only when it has a reply whole: one credit may be on
 * its way and one may be sent but not reported by the loop yet.
 */
#define OUTPUT_FACTOR 3

static uint64_t charge_of(const struct wire_frame *frame)
{
	return wire_charge(frame->body_size, frame->payload_size, frame->reply_max);
}

/* ---- what a peer may send ---- */

static int check_row(const struct wire_op *row, const struct wire_frame *frame, struct error *err)
{
	bool is_oneway = frame->flags & FRAME_ONEWAY;
	bool has_own_crc = frame->flags & FRAME_OWN_CRC;

	if (frame->body_size < row->body_min)
		return error_set(err, -E_PROTOCOL, "%s: body of %u bytes, at least %u are needed",
				 row->name, frame->body_size, row->body_min);
	if (frame->payload_size > row->payload_max)
		return error_set(err, -E_PROTOCOL, "%s: payload of %u bytes, the limit is %u",
				 row->name, frame->payload_size, row->payload_max);
	if (is_oneway != !!(row->flags & WIRE_OP_ONEWAY))
		return error_set(err, -E_PROTOCOL, "%s: is %sone-way", row->name,
				 is_oneway ? "not " : "");
	if (has_own_crc && !(row->flags & WIRE_OP_OWN_CRC))
		return error_set(err, -E_PROTOCOL, "%s: payload without a checksum", row->name);
	return 0;
}

static int check_credit(const struct net_session *session, const struct wire_frame *frame,
			struct error *err)
{
	const struct wire_agreement *agreement = &session->agreement;

	if (frame->flags & FRAME_ONEWAY)
		return 0;
	if (session->requests == agreement->credit_requests)
		return error_set(err, -E_PROTOCOL, "more than %u requests outstanding",
				 agreement->credit_requests);
	if (session->requests > 0 && session->charged + charge_of(frame) > agreement->credit_bytes)
		return error_set(err, -E_PROTOCOL, "more than %llu bytes outstanding",
				 (unsigned long long)agreement->credit_bytes);
	return 0;
}

int session_check_header(struct wire_decoder *decoder, const struct wire_frame *frame)
{
	struct net_session *session = container_of_type(decoder, struct net_session, decoder);
	const struct wire_op *row;

	if (frame->flags & FRAME_REPLY)
		return error_set(&decoder->error, -E_PROTOCOL, "a reply, but nothing was asked");
	if (frame->op == FRAME_OP_HELLO)
		return error_set(&decoder->error, -E_PROTOCOL, "a second hello");
	if (frame->op == FRAME_OP_PING)
		return frame->payload_size || (frame->flags & FRAME_ONEWAY)
			       ? error_set(&decoder->error, -E_PROTOCOL, "ping with a payload")
			       : 0;
	row = wire_op_find(session->service->protocol, frame->op, session->agreement.version);
	if (row && check_row(row, frame, &decoder->error) < 0)
		return decoder->error.code;
	return check_credit(session, frame, &decoder->error);
}

/* ---- from frame to handler ---- */

static void drop_parts(struct net_request *request)
{
	buffer_put(request->payload.buffer);
	buffer_put(request->body_buffer);
	request->payload = (struct slice){0};
	request->body_buffer = NULL;
}

/* The body where it can stay, continued with zeroes to what we know. */
static int keep_body(struct net_request *request, const struct wire_frame *frame)
{
	uint32_t known = request->row ? request->row->body_size : 0;
	uint32_t size = max_of(frame->body_size, known);
	uint8_t *to = request->body_inline;

	request->body_buffer = NULL;
	if (size > sizeof(request->body_inline)) {
		request->body_buffer = buffer_new(loop_buffers(request->session->net->loop), size);
		if (!request->body_buffer)
			return -ENOMEM;
		to = request->body_buffer->data;
	}
	if (frame->body_size)
		memcpy(to, frame->body, frame->body_size);
	if (size > frame->body_size)
		memset(to + frame->body_size, 0, size - frame->body_size);
	request->body = to;
	request->body_size = frame->body_size;
	return 0;
}

static struct net_request *make_request(struct net_session *session, const struct wire_op *row,
					struct wire_frame *frame)
{
	struct net_request *request = net_request_new(session->net);

	if (!request)
		return NULL;
	request->session = session;
	request->row = row;
	request->op = frame->op;
	request->version = session->agreement.version;
	request->reply_max = frame->reply_max;
	request->received_ns = loop_now(session->net->loop);
	request->user = NULL;
	request->id = frame->request;
	request->charge = charge_of(frame);
	request->is_oneway = frame->flags & FRAME_ONEWAY;
	request->reply_buffer = NULL;
	request->reply_count = 0;
	request->message.spill = NULL;
	request->payload = frame->payload;
	if (keep_body(request, frame) < 0) {
		net_request_free(session->net, request);
		return NULL;
	}
	return request;
}

static int on_ping(struct net_session *session, const struct wire_frame *frame, struct error *err);

int session_take_frame(struct net_session *session, struct wire_frame *frame, struct error *err)
{
	const struct wire_op *row;
	struct net_request *request;

	if (frame->op == FRAME_OP_PING)
		return on_ping(session, frame, err);
	row = wire_op_find(session->service->protocol, frame->op, session->agreement.version);
	if ((frame->flags & FRAME_ONEWAY) &&
	    (!row || !row->handle || session->oneways >= session->agreement.credit_requests)) {
		buffer_put(frame->payload.buffer); /* one-way: nobody waits for it */
		return 0;
	}
	request = make_request(session, row, frame);
	if (!request) {
		buffer_put(frame->payload.buffer);
		return error_set(err, -ENOMEM, "request");
	}
	if (request->is_oneway) {
		session->oneways++;
	} else {
		session->requests++;
		session->charged += request->charge;
	}
	if (row && row->handle)
		row->handle(request);
	else
		net_reply_status(request, -EOPNOTSUPP);
	return 0;
}

/* ---- from answer to frame ---- */

static void release(struct net_request *request)
{
	struct net_session *session = request->session;

	buffer_put(request->reply_buffer);
	wire_message_done(&request->message);
	net_request_free(session->net, request);
}

static void drop_reply(struct net_request *request)
{
	const struct slice *slices = request->reply_slices;

	for (uint32_t i = 0; i < request->reply_count; i++)
		buffer_put(slices[i].buffer);
	request->reply_count = 0;
}

/* The request no longer counts for its session. */
static void uncharge(struct net_request *request)
{
	struct net_session *session = request->session;

	if (request->is_oneway) {
		session->oneways--;
	} else {
		session->requests--;
		session->charged -= request->charge;
	}
}

/* Take the slices over; -ENOMEM: then they are the caller's still. */
static int keep_slices(struct net_request *request, const struct slice *slices, uint32_t count)
{
	request->reply_slices = request->reply_inline;
	if (count > NET_REPLY_SLICES) {
		request->reply_buffer = buffer_new(loop_buffers(request->session->net->loop),
						   (uint32_t)(count * sizeof(*slices)));
		if (!request->reply_buffer)
			return -ENOMEM;
		request->reply_slices = (struct slice *)(void *)request->reply_buffer->data;
	}
	if (count)
		memcpy(request->reply_slices, slices, count * sizeof(*slices));
	request->reply_count = count;
	return 0;
}

static uint64_t slices_size(const struct slice *slices, uint32_t count)
{
	uint64_t size = 0;

	for (uint32_t i = 0; i < count; i++)
		size += slices[i].size;
	return size;
}

static int make_reply(struct net_request *request, int status, const void *body, uint32_t body_size)
{
	struct net_session *session = request->session;
	bool has_own_crc = request->row && (request->row->flags & WIRE_OP_REPLY_OWN_CRC);
	struct wire_message_spec spec = {
		.magic = session->magic,
		.op = request->op,
		.flags = FRAME_REPLY | (has_own_crc ? FRAME_OWN_CRC : 0),
		.request = request->id,
		.status = wire_status_of(status),
		.body = body,
		.body_size = body_size,
		.slices = request->reply_slices,
		.slice_count = request->reply_count,
	};

	return wire_message_init(&request->message, loop_buffers(session->net->loop), &spec);
}

static void check_output(struct net_session *session)
{
	uint64_t limit = OUTPUT_FACTOR * session->agreement.credit_bytes + NET_SEND_BYTES_MAX;

	if (session->outbox.queued_bytes > limit)
		session_fail(session, -E_PROTOCOL, "asks for more than it reads");
}

void net_reply(struct net_request *request, int status, const void *body, uint32_t body_size,
	       const struct slice *slices, uint32_t slice_count)
{
	struct net_session *session = request->session;
	int rc;

	if (slices_size(slices, slice_count) > request->reply_max && !request->is_oneway) {
		log_debug("session %llu: %s: reply does not fit into %u bytes",
			  (unsigned long long)session->agreement.session,
			  request->row ? request->row->name : "unknown op", request->reply_max);
		for (uint32_t i = 0; i < slice_count; i++)
			buffer_put(slices[i].buffer);
		slice_count = 0;
		status = status < 0 ? status : -E2BIG;
	}
	rc = keep_slices(request, slices, slice_count);
	if (rc < 0)
		for (uint32_t i = 0; i < slice_count; i++)
			buffer_put(slices[i].buffer);
	uncharge(request);
	if (rc == 0 && session->state == SESSION_OPEN && !request->is_oneway) {
		rc = make_reply(request, status, body, body_size); /* may copy our own body */
		if (rc == 0) {
			drop_parts(request);
			wire_outbox_add(&session->outbox, &request->message);
			net_stream_wake(&session->stream);
			check_output(session);
			return;
		}
	}
	drop_parts(request);
	drop_reply(request);
	release(request);
	if (rc < 0)
		session_fail(session, rc, "no memory for a reply");
	session_free_if_over(session);
}

void net_reply_status(struct net_request *request, int status)
{
	net_reply(request, status, NULL, 0, NULL, 0);
}

void net_request_done(struct net_request *request)
{
	assert(request->is_oneway);
	net_reply_status(request, 0);
}

void net_reply_text(struct net_request *request, int status, const char *text)
{
	uint32_t size = (uint32_t)min_of(strlen(text), (size_t)FRAME_TEXT_MAX);
	struct buffer *buffer;

	size = min_of(size, request->reply_max);
	buffer = size ? buffer_new(loop_buffers(request->session->net->loop), size) : NULL;
	if (!buffer) {
		net_reply_status(request, status);
		return;
	}
	memcpy(buffer->data, text, size);
	struct slice slice = slice_of(buffer, 0, size);
	net_reply(request, status, NULL, 0, &slice, 1);
}

void *net_request_context(const struct net_request *request)
{
	return request->session->service->context;
}

/* ---- ping ---- */

static void send_pong(struct net_session *session)
{
	struct wire_message_spec spec = {
		.magic = session->magic,
		.op = FRAME_OP_PING,
		.flags = FRAME_REPLY,
		.request = session->ping_request,
	};

	session->owes_pong = false;
	(void)wire_message_init(&session->pong, loop_buffers(session->net->loop), &spec);
	wire_outbox_add(&session->outbox, &session->pong);
	net_stream_wake(&session->stream);
}

/* One at a time; the end of our send of the last answer may be reported late, so one may wait. */
static int on_ping(struct net_session *session, const struct wire_frame *frame, struct error *err)
{
	if (session->owes_pong)
		return error_set(err, -E_PROTOCOL, "ping before the last one was answered");
	session->owes_pong = true;
	session->ping_request = frame->request;
	if (session->pong.state == WIRE_MESSAGE_IDLE)
		send_pong(session);
	return 0;
}

void session_message_gone(struct net_session *session, struct wire_message *message)
{
	session->net->stats.frames_out++;
	if (message == &session->hello_reply)
		return;
	if (message == &session->pong) {
		if (session->owes_pong && session->state == SESSION_OPEN)
			send_pong(session);
		return;
	}
	struct net_request *request = container_of_type(message, struct net_request, message);
	drop_reply(request);
	release(request);
}
