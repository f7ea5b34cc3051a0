/*
 * Calls of a link: out as far as the other side's credit goes, back by their id.
 *
 * A reply that comes before all of its request was given to a send is a lie and ends the link; one that
 * comes before that send was reported is normal. Silence is judged only while something is
 * outstanding: after half of the time a ping asks whether the other side still turns its loop, as
 * a request may rightly take long; after the other half the link is reset.
 */
#include "lib/net/link.h"

#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"

static const struct wire_op no_row;

static const struct wire_op *row_of(const struct net_link *link, const struct net_call *call)
{
	const struct wire_protocol *protocol = link->options.protocol;

	return call->op < protocol->op_count ? &protocol->ops[call->op] : &no_row;
}

/* ---- completing ---- */

void link_call_done(struct net_link *link, struct net_call *call, int result)
{
	link->outstanding--;
	wire_message_done(&call->message);
	if (result == -E_CLOSED) {
		call->reply_body = NULL;
		call->reply_body_size = 0;
		call->reply_slice = (struct slice){0};
	}
	call->done(call, result);
}

static void fail_done(struct loop_op *op, int result)
{
	struct net_link *link = container_of_type(op, struct net_link, fail_op);
	CDS_LIST_HEAD(calls);
	bool was_telling = link->is_telling;

	link->net->busy--;
	link->is_telling = true;
	cds_list_splice(&link->failed, &calls);
	CDS_INIT_LIST_HEAD(&link->failed);
	while (!cds_list_empty(&calls)) {
		struct net_call *call = cds_list_first_entry(&calls, struct net_call, link);
		cds_list_del(&call->link);
		link_call_done(link, call, call->error);
	}
	link->is_telling = was_telling;
	if (link->state == NET_LINK_IDLE)
		link_decide(link);
}

void link_fail_later(struct net_link *link, struct net_call *call, int error)
{
	call->error = error;
	cds_list_add_tail(&call->link, &link->failed);
	if (loop_op_is_busy(&link->fail_op))
		return;
	link->fail_op.done = fail_done;
	link->net->busy++;
	loop_complete(link->net->loop, &link->fail_op, 0);
}

/* ---- sending ---- */

/* The frame as far as it is known: its number comes with its credit. */
static int make_message(struct net_link *link, const struct wire_op *row, struct net_call *call)
{
	struct wire_message_spec spec = {
		.magic = link->options.protocol->magic,
		.op = call->op,
		.flags = (row->flags & WIRE_OP_ONEWAY ? FRAME_ONEWAY : 0) |
			 (row->flags & WIRE_OP_OWN_CRC ? FRAME_OWN_CRC : 0),
		.reply_max = row->flags & WIRE_OP_ONEWAY ? 0 : call->reply_max,
		.body = call->body,
		.body_size = call->body_size,
		.slices = call->slices,
		.slice_count = call->slice_count,
	};

	int rc = wire_message_init(&call->message, loop_buffers(link->net->loop), &spec);
	call->charge = call->message.size + spec.reply_max;
	return rc;
}

/* Give a call credit and put it into the outbox; false: there is no credit now. */
static bool put_out(struct net_link *link, struct net_call *call)
{
	const struct wire_op *row = row_of(link, call);

	if (!(row->flags & WIRE_OP_ONEWAY)) {
		call->id = wire_window_take(&link->window, call->charge, call);
		if (!call->id)
			return false;
		wire_message_set_request(&call->message, call->id);
		if (link->window.used == 1)
			link->due_ns = loop_now(link->net->loop);
	}
	cds_list_add_tail(&call->link, &link->sent);
	wire_outbox_add(&link->outbox, &call->message);
	net_stream_wake(&link->stream);
	link_watch(link);
	return true;
}

void link_pump(struct net_link *link)
{
	while (!cds_list_empty(&link->waiting) && link->state == NET_LINK_UP) {
		struct net_call *call = cds_list_first_entry(&link->waiting, struct net_call, link);
		bool is_known = row_of(link, call)->since <= link->agreement.version;

		cds_list_del(&call->link);
		link->waiting_count--;
		if (!is_known) {
			link_fail_later(link, call, -EOPNOTSUPP);
		} else if (!put_out(link, call)) {
			cds_list_add(&call->link, &link->waiting);
			link->waiting_count++;
			return;
		}
	}
}

void net_link_call(struct net_link *link, struct net_call *call)
{
	const struct wire_op *row = row_of(link, call);
	int rc;

	assert(row->name && !link->is_freed);
	call->was_sent = false;
	call->reply_body = NULL;
	call->reply_body_size = 0;
	call->reply_slice = (struct slice){0};
	call->id = 0;
	call->held = NULL;
	if (call->reply_max == 0)
		call->reply_max = row->reply_payload_max;
	link->outstanding++;
	rc = make_message(link, row, call);
	if (rc < 0) {
		link_fail_later(link, call, rc);
		return;
	}
	if (link->net->is_stopping ||
	    ((call->flags & NET_CALL_IF_UP) && link->state != NET_LINK_UP)) {
		link_fail_later(link, call, -E_CLOSED);
		return;
	}
	cds_list_add_tail(&call->link, &link->waiting);
	link->waiting_count++;
	if (link->state == NET_LINK_UP)
		link_pump(link);
	else if (link->state == NET_LINK_IDLE && !link->is_telling)
		link_decide(link);
}

void link_message_sent(struct wire_outbox *outbox, struct wire_message *message)
{
	struct net_link *link = container_of_type(outbox, struct net_link, outbox);

	link->net->stats.frames_out++;
	if (message == &link->hello || message == &link->ping)
		return;
	struct net_call *call = container_of_type(message, struct net_call, message);
	call->was_sent = true;
	if (call->id)
		return; /* waits for its reply */
	cds_list_del(&call->link);
	link_call_done(link, call, 0);
}

/* ---- replies ---- */

int link_check_header(struct wire_decoder *decoder, const struct wire_frame *frame)
{
	struct net_link *link = container_of_type(decoder, struct net_link, decoder);
	struct error *err = &decoder->error;

	if (!(frame->flags & FRAME_REPLY))
		return error_set(err, -E_PROTOCOL, "a request from the side that accepted");
	if (link->state != NET_LINK_UP)
		return frame->payload_size > FRAME_TEXT_MAX
			       ? error_set(err, -E_PROTOCOL, "hello reply with a large payload")
			       : 0;
	if (frame->op == FRAME_OP_PING)
		return link->ping_id && frame->request == link->ping_id && !frame->payload_size
			       ? 0
			       : error_set(err, -E_PROTOCOL, "an answer to no ping of ours");
	const struct net_call *call = wire_window_owner(&link->window, frame->request);
	if (!call)
		return error_set(err, -E_PROTOCOL, "a reply to nothing (request %llu)",
				 (unsigned long long)frame->request);
	const struct wire_op *row = row_of(link, call);
	if (frame->op != call->op)
		return error_set(err, -E_PROTOCOL, "%s: answered as op %u", row->name, frame->op);
	if (frame->payload_size > call->reply_max)
		return error_set(err, -E_PROTOCOL, "%s: reply of %u bytes, %u were asked for",
				 row->name, frame->payload_size, call->reply_max);
	if (frame->status == PROTO_STATUS_OK && frame->body_size < row->reply_min)
		return error_set(err, -E_PROTOCOL, "%s: reply body of %u bytes, not %u", row->name,
				 frame->body_size, row->reply_min);
	if ((frame->flags & FRAME_OWN_CRC) && !(row->flags & WIRE_OP_REPLY_OWN_CRC))
		return error_set(err, -E_PROTOCOL, "%s: reply without a checksum", row->name);
	return 0;
}

/* The body as long as we know it at least; -ENOMEM. */
static int give_body(struct net_link *link, struct net_call *call, const struct wire_op *row,
		     const struct wire_frame *frame)
{
	call->reply_body_size = frame->body_size;
	call->reply_body = frame->body_size ? frame->body : NULL;
	if (frame->body_size >= row->reply_size ||
	    (frame->body_size == 0 && frame->status != PROTO_STATUS_OK))
		return 0;
	if (!link->reply_body)
		link->reply_body = buffer_new(loop_buffers(link->net->loop), FRAME_BODY_MAX);
	if (!link->reply_body)
		return -ENOMEM;
	if (frame->body_size)
		memcpy(link->reply_body->data, frame->body, frame->body_size);
	memset(link->reply_body->data + frame->body_size, 0,
	       (size_t)row->reply_size - frame->body_size);
	call->reply_body = link->reply_body->data;
	return 0;
}

static int take_reply(struct net_link *link, struct wire_frame *frame, struct error *err)
{
	struct net_call *call = wire_window_owner(&link->window, frame->request);
	const struct wire_op *row = row_of(link, call);

	if (give_body(link, call, row, frame) < 0)
		return error_set(err, -ENOMEM, "reply");
	if (!wire_outbox_forget(&link->outbox, &call->message))
		return error_set(err, -E_PROTOCOL, "%s: answered before it was sent", row->name);
	wire_window_give(&link->window, frame->request);
	cds_list_del(&call->link);
	call->was_sent = true;
	call->reply_slice = frame->payload;
	call->held = &link->reply_payload;
	link->reply_payload = frame->payload.buffer;
	link->failures = 0;
	link_call_done(link, call, wire_status_code(frame->status)); /* may free the call */
	buffer_put(link->reply_payload);
	link->reply_payload = NULL;
	return 0;
}

struct slice net_call_take(struct net_call *call)
{
	struct slice slice = call->reply_slice;

	assert(!slice.buffer || (call->held && *call->held == slice.buffer));
	if (slice.buffer)
		*call->held = NULL;
	return slice;
}

int link_take_frame(struct net_link *link, struct wire_frame *frame, struct error *err)
{
	int rc;

	if (frame->op == FRAME_OP_PING) {
		link->ping_id = 0;
		buffer_put(frame->payload.buffer);
		return 0;
	}
	rc = take_reply(link, frame, err);
	if (rc < 0)
		buffer_put(frame->payload.buffer);
	return rc;
}

/* ---- silence ---- */

static void send_ping(struct net_link *link)
{
	struct wire_message_spec spec = {
		.magic = link->options.protocol->magic,
		.op = FRAME_OP_PING,
		.request = ++link->ping_last,
	};

	link->ping_id = link->ping_last;
	link->ping_ns = loop_now(link->net->loop);
	(void)wire_message_init(&link->ping, loop_buffers(link->net->loop), &spec);
	wire_outbox_add(&link->outbox, &link->ping);
	net_stream_wake(&link->stream);
}

void link_watch(struct net_link *link)
{
	if (!loop_timer_is_armed(&link->timer))
		loop_timer_start(link->net->loop, &link->timer,
				 loop_now(link->net->loop) + link->net->options.silence_ns / 2);
}

/*
 * When we last had a sign of life. The end of a send is one only while the next one is under way: then
 * the other side reads, if slowly, and what we asked may not have arrived yet. A send that went
 * into the kernel's buffer says nothing.
 */
static uint64_t heard_ns(const struct net_link *link)
{
	const struct net_stream *stream = &link->stream;
	uint64_t heard = max_of(stream->received_ns, link->due_ns);

	return stream->send_size ? max_of(heard, stream->sent_ns) : heard;
}

/*
 * One timer for all calls: nothing is started and stopped per call, and an idle link has none. A
 * process that was stopped itself sees received bytes before its timers, and asks before it judges.
 */
void link_watch_fire(struct net_link *link)
{
	uint64_t now = loop_now(link->net->loop);
	uint64_t half_ns = link->net->options.silence_ns / 2;
	uint64_t heard = heard_ns(link);

	if (link->window.used == 0 && !link->ping_id && !link->stream.send_size)
		return;
	/* What came behind the question may have been on its way before it: the answer is due all the same. */
	uint64_t limit_ns = heard > link->ping_ns ? link->net->options.silence_ns : half_ns;
	if (link->ping_id && now - max_of(heard, link->ping_ns) >= limit_ns) {
		link_fail(link, -ETIMEDOUT, "silent, although something is outstanding");
		return;
	}
	if (!link->ping_id && now - heard >= half_ns && link->ping.state == WIRE_MESSAGE_IDLE)
		send_ping(link);
	uint64_t next_ns = max_of(heard, link->ping_id ? link->ping_ns : 0) + half_ns;
	loop_timer_start(link->net->loop, &link->timer, max_of(next_ns, now + half_ns / 8 + 1));
}
