/*
 * The dialling side: one connection, made when something wants to be sent, made again after it was
 * lost.
 *
 *            call, connect                 socket            reply to HELLO
 *   IDLE ---------------> CONNECTING ------------> GREETING ---------------> UP
 *    ^  \                     |  failed               | failed               | failed
 *    |   \ too early          |                       v                      v
 *    |    \                   |                    CLOSING <-----------------+
 *    |     v                  v                       |
 *    +-- WAITING <------------+-----------------------+  (IDLE if nothing waits for it)
 *             pause is over: CONNECTING
 *
 * Always true: (1) a call is on one list: waiting (for the link or for credit), sent (it has credit
 * and is in the outbox or out), failed (it was never sent; told in the next completion), until it is
 * done; (2) CLOSING ends only when the loop has given back the socket's operations, and only then
 * the calls are completed: nothing of a call is in use any more; (3) calls leave in order.
 */
#include "lib/net/link.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "lib/base/text.h"

static const uint8_t link_next[NET_LINK_STATE_COUNT] = {
	[NET_LINK_IDLE] = BIT(NET_LINK_CONNECTING) | BIT(NET_LINK_WAITING),
	[NET_LINK_CONNECTING] = BIT(NET_LINK_GREETING) | BIT(NET_LINK_WAITING) | BIT(NET_LINK_IDLE),
	[NET_LINK_GREETING] = BIT(NET_LINK_UP) | BIT(NET_LINK_CLOSING),
	[NET_LINK_UP] = BIT(NET_LINK_CLOSING),
	[NET_LINK_CLOSING] = BIT(NET_LINK_WAITING) | BIT(NET_LINK_IDLE),
	[NET_LINK_WAITING] = BIT(NET_LINK_CONNECTING) | BIT(NET_LINK_IDLE),
};

static const struct net_stream_ops stream_ops;

static struct net_link *link_of(struct net_stream *stream)
{
	return container_of_type(stream, struct net_link, stream);
}

/* The only place that writes link->state. */
static void link_enter(struct net_link *link, enum net_link_state next)
{
	assert(link_next[link->state] & BIT(next));
	link->state = next;
}

static bool is_wanted(const struct net_link *link)
{
	return !link->is_freed && !link->net->is_stopping &&
	       (link->is_kept || link->waiting_count > 0);
}

/* Has it got another address since the last dial? */
static bool has_moved(const struct net_link *link)
{
	return strcmp(link->address, link->dialled) != 0;
}

/* ---- when it ends ---- */

void link_free_if_over(struct net_link *link)
{
	if (!link->is_freed || link->state != NET_LINK_IDLE || link->is_telling ||
	    loop_op_is_busy(&link->fail_op))
		return;
	assert(cds_list_empty(&link->waiting) && cds_list_empty(&link->sent) &&
	       cds_list_empty(&link->failed));
	wire_decoder_done(&link->decoder);
	wire_window_done(&link->window);
	buffer_put(link->reply_body);
	cds_list_del(&link->link);
	free(link);
}

/* Say why, once for each reason. */
static void log_failure(struct net_link *link, bool was_up)
{
	bool is_known = !was_up && link->logged_code == link->error.code;

	link->logged_code = link->error.code;
	if (is_known)
		log_debug("link to %s: %s", link->address, link->error.text);
	else
		log_warning("link to %s: %s: %s", link->address, was_up ? "lost" : "no connection",
			    link->error.text);
}

/* The pause before the next dial: doubles, half of it random. */
static uint64_t next_pause(struct net_link *link)
{
	const struct net_options *options = &link->net->options;
	uint64_t pause_ns = options->backoff_min_ns << min_of(link->failures, 20u);

	pause_ns = min_of(pause_ns, options->backoff_max_ns);
	link->failures++;
	return pause_ns / 2 + random_below(loop_random(link->net->loop), pause_ns / 2 + 1);
}

static void dial(struct net_link *link);

static void fail_waiting(struct net_link *link)
{
	while (!cds_list_empty(&link->waiting)) {
		struct net_call *call = cds_list_first_entry(&link->waiting, struct net_call, link);
		cds_list_del(&call->link);
		link->waiting_count--;
		link_fail_later(link, call, -E_CLOSED);
	}
}

/* From a state without operations: dial now, later, or not. */
void link_decide(struct net_link *link)
{
	uint64_t now = loop_now(link->net->loop);

	if (!is_wanted(link)) {
		fail_waiting(link);
		loop_timer_stop(link->net->loop, &link->timer);
		if (link->state != NET_LINK_IDLE)
			link_enter(link, NET_LINK_IDLE);
		link_free_if_over(link);
		return;
	}
	if (link->not_before_ns > now) {
		if (link->state != NET_LINK_WAITING)
			link_enter(link, NET_LINK_WAITING);
		loop_timer_start(link->net->loop, &link->timer, link->not_before_ns);
		return;
	}
	dial(link);
}

/*
 * A connection or a dial is over: complete what waited for it, then tell, then go on. A call that
 * is made meanwhile waits for the next dial.
 */
static void ended(struct net_link *link, bool was_up)
{
	CDS_LIST_HEAD(calls);
	int error = link->error.code;

	assert(!link->is_telling);
	link->is_telling = true;
	cds_list_splice(&link->waiting, &calls);
	CDS_INIT_LIST_HEAD(&link->waiting);
	cds_list_splice(&link->sent, &calls); /* in front: they were made first */
	CDS_INIT_LIST_HEAD(&link->sent);
	link->waiting_count = 0;
	while (!cds_list_empty(&calls)) {
		struct net_call *call = cds_list_first_entry(&calls, struct net_call, link);
		cds_list_del(&call->link);
		link_call_done(link, call, -E_CLOSED);
	}
	if (link->options.changed && !link->is_freed && (error || was_up))
		link->options.changed(link, false, error);
	link->is_telling = false;
	link_decide(link);
}

/* A dial came to nothing before there was a stream. */
static void dial_failed(struct net_link *link)
{
	if (has_moved(link) && is_wanted(link)) { /* it was the wrong address */
		link_enter(link, NET_LINK_WAITING);
		link_decide(link);
		return;
	}
	link->net->stats.dials_failed++;
	log_failure(link, false);
	link->not_before_ns = loop_now(link->net->loop) + next_pause(link);
	link_enter(link, NET_LINK_WAITING);
	ended(link, false);
}

/* End the connection; the rest happens when its stream has closed. */
void link_fail(struct net_link *link, int error, const char *why)
{
	bool was_up = link->state == NET_LINK_UP;

	if (link->state != NET_LINK_UP && link->state != NET_LINK_GREETING)
		return;
	link->error.code = error;
	link_copy_text(link->error.text, sizeof(link->error.text),
		       why && *why ? why : err_text(error));
	if (!link->is_freed && error != -E_SHUTDOWN)
		log_failure(link, was_up);
	if (was_up)
		link->net->stats.link_resets++;
	else
		link->net->stats.dials_failed++;
	link->was_up = was_up;
	link_enter(link, NET_LINK_CLOSING);
	net_stream_close(&link->stream, error);
}

static void stream_closed(struct net_stream *stream, int error)
{
	struct net_link *link = link_of(stream);
	const struct net_options *options = &link->net->options;
	struct net_call *call;
	uint64_t now = loop_now(link->net->loop);

	link_fail(link, error, NULL); /* where the stream ended by itself */
	loop_timer_stop(link->net->loop, &link->timer);
	cds_list_for_each_entry(call, &link->sent, link) {
		call->was_sent = call->message.state != WIRE_MESSAGE_QUEUED;
	}
	while (wire_outbox_drop(&link->outbox))
		;
	wire_decoder_done(&link->decoder);
	/* A connection that lived for a while starts the pauses anew. */
	if (link->was_up && now - link->up_ns >= options->backoff_max_ns)
		link->failures = 0;
	link->not_before_ns = now + next_pause(link);
	ended(link, link->was_up);
}

/* ---- dialling ---- */

void link_copy_text(char *out, size_t size, const char *from)
{
	struct text text = text_of(out, size);

	text_append(&text, "%s", from);
}

static void dial(struct net_link *link)
{
	struct net *net = link->net;

	link_enter(link, NET_LINK_CONNECTING);
	net->stats.dials++;
	net->busy++;
	memcpy(link->dialled, link->address, sizeof(link->dialled));
	loop_timer_start(net->loop, &link->timer,
			 loop_now(net->loop) + net->options.connect_timeout_ns);
	loop_connect(net->loop, &link->connect_op, link->dialled);
}

static void send_hello(struct net_link *link)
{
	const struct wire_protocol *protocol = link->options.protocol;
	struct frame_hello hello;
	struct wire_message_spec spec = {
		.magic = protocol->magic,
		.op = FRAME_OP_HELLO,
		.request = 1,
		.body = &hello,
		.body_size = sizeof(hello),
	};

	wire_hello_make(&hello, protocol, &link->net->identity, link->options.class,
			link->options.loop, link->name);
	_Static_assert(sizeof(hello) <= WIRE_BODY_INLINE, "making it cannot fail");
	(void)wire_message_init(&link->hello, loop_buffers(link->net->loop), &spec);
	wire_outbox_add(&link->outbox, &link->hello);
	net_stream_wake(&link->stream);
}

static void greet(struct net_link *link, struct loop_socket *socket)
{
	struct net *net = link->net;

	link_enter(link, NET_LINK_GREETING);
	wire_decoder_init(&link->decoder, link->options.protocol->magic, loop_buffers(net->loop));
	link->decoder.check = link_check_header;
	wire_outbox_init(&link->outbox, link_message_sent);
	link->ping = (struct wire_message){0};
	link->ping_id = 0;
	loop_timer_start(net->loop, &link->timer,
			 loop_now(net->loop) + net->options.connect_timeout_ns);
	net_stream_start(&link->stream, net, socket, &stream_ops);
	send_hello(link);
}

static void connect_done(struct loop_op *op, int result)
{
	struct net_link *link = container_of_type(op, struct net_link, connect_op);
	struct net *net = link->net;
	bool is_in_time = loop_timer_is_armed(&link->timer);

	net->busy--;
	loop_timer_stop(net->loop, &link->timer);
	if (result >= 0 && is_wanted(link) && !has_moved(link)) {
		greet(link, op->out.socket);
		return;
	}
	if (result >= 0)
		loop_socket_close(net->loop, op->out.socket);
	if (result == -ECANCELED && !is_in_time)
		result = -ETIMEDOUT;
	if (result >= 0)
		result = -ECANCELED;
	(void)error_set(&link->error, result, "connect");
	dial_failed(link);
}

/* The reply to HELLO. */
static int greeted(struct net_link *link, const struct wire_frame *frame, struct error *err)
{
	struct net *net = link->net;
	struct wire_agreement *agreement = &link->agreement;
	const struct uuid *node = &link->options.node;
	char want[UUID_TEXT_SIZE], have[UUID_TEXT_SIZE];
	int rc;

	*agreement = (struct wire_agreement){.class = link->options.class, .link = link->name};
	rc = wire_hello_reply_judge(link->options.protocol, &net->identity, frame, agreement, err);
	if (rc < 0)
		return rc;
	if (!uuid_is_null(node) && !uuid_is_equal(node, &agreement->peer.node))
		return error_set(err, -E_NOT_FOUND, "node %s is expected here, found %s",
				 uuid_format(node, want), uuid_format(&agreement->peer.node, have));
	rc = wire_window_open(&link->window, agreement->credit_requests, agreement->credit_bytes);
	if (rc < 0)
		return error_set(err, rc, "window");
	loop_timer_stop(net->loop, &link->timer);
	link_enter(link, NET_LINK_UP);
	link->up_ns = loop_now(net->loop);
	link->logged_code = 0;
	log_info("link to %s: up: %s version %u, class %u, loop %u, session %llu", link->address,
		 link->options.protocol->name, agreement->version, agreement->class,
		 agreement->loop, (unsigned long long)agreement->session);
	if (link->options.changed)
		link->options.changed(link, true, 0);
	return 0;
}

static void timer_fire(struct loop_timer *timer)
{
	struct net_link *link = container_of_type(timer, struct net_link, timer);

	switch (link->state) {
	case NET_LINK_CONNECTING:
		loop_cancel(link->net->loop, &link->connect_op);
		break;
	case NET_LINK_GREETING:
		link_fail(link, -ETIMEDOUT, "no answer to hello in time");
		break;
	case NET_LINK_UP:
		link_watch_fire(link);
		break;
	case NET_LINK_WAITING:
		link_decide(link);
		break;
	case NET_LINK_IDLE:
	case NET_LINK_CLOSING:
	case NET_LINK_STATE_COUNT:
		break;
	}
}

/* ---- the stream's callbacks ---- */

static int stream_space(struct net_stream *stream, struct iovec *iov, unsigned max)
{
	return wire_decoder_space(&link_of(stream)->decoder, iov);
}

static bool is_reading(const struct net_link *link)
{
	return link->state == NET_LINK_UP || link->state == NET_LINK_GREETING;
}

static void stream_received(struct net_stream *stream, size_t size)
{
	struct net_link *link = link_of(stream);
	struct wire_frame frame;
	struct error err = {0};
	int rc = 0;

	if (size == 0) {
		link_fail(link, -E_CLOSED, "closed by the other side");
		return;
	}
	wire_decoder_received(&link->decoder, size);
	while (rc == 0 && is_reading(link)) {
		int got = wire_decoder_next(&link->decoder, &frame);
		if (got < 0)
			rc = error_set(&err, got, "%s", wire_decoder_error(&link->decoder));
		if (got <= 0)
			break;
		link->net->stats.frames_in++;
		if (link->state == NET_LINK_UP) {
			rc = link_take_frame(link, &frame, &err);
		} else {
			rc = greeted(link, &frame, &err);
			buffer_put(frame.payload.buffer);
		}
	}
	if (rc < 0)
		link_fail(link, rc, err.text);
	else if (link->state == NET_LINK_UP)
		link_pump(link);
}

static unsigned stream_output(struct net_stream *stream, struct iovec *iov, unsigned max)
{
	return wire_outbox_output(&link_of(stream)->outbox, iov, max, NET_SEND_BYTES_MAX);
}

static void stream_sent(struct net_stream *stream, size_t size)
{
	wire_outbox_sent(&link_of(stream)->outbox);
}

static const struct net_stream_ops stream_ops = {
	.space = stream_space,
	.received = stream_received,
	.output = stream_output,
	.sent = stream_sent,
	.closed = stream_closed,
};

/* ---- for owners ---- */

int net_link_new(struct net *net, const struct net_link_options *options, struct net_link **out,
		 struct error *err)
{
	struct net_link *link;
	int rc = loop_address_check(options->address, err);

	if (rc < 0)
		return rc;
	link = calloc(1, sizeof(*link));
	if (!link)
		return error_set(err, -ENOMEM, "link to %s", options->address);
	link->net = net;
	link->options = *options;
	link->options.address = NULL;
	link_copy_text(link->address, sizeof(link->address), options->address);
	link->name = random_u64(loop_random(net->loop));
	link->connect_op.done = connect_done;
	link->timer.fire = timer_fire;
	CDS_INIT_LIST_HEAD(&link->waiting);
	CDS_INIT_LIST_HEAD(&link->sent);
	CDS_INIT_LIST_HEAD(&link->failed);
	cds_list_add_tail(&link->link, &net->links);
	*out = link;
	return 0;
}

/* Let go of whatever it does. */
static void give_up(struct net_link *link, int error, const char *why)
{
	switch (link->state) {
	case NET_LINK_CONNECTING:
		loop_cancel(link->net->loop, &link->connect_op);
		break;
	case NET_LINK_GREETING:
	case NET_LINK_UP:
		link_fail(link, error, why);
		break;
	case NET_LINK_WAITING:
	case NET_LINK_IDLE:
		if (!link->is_telling)
			link_decide(link);
		break;
	case NET_LINK_CLOSING:
	case NET_LINK_STATE_COUNT:
		break;
	}
}

void net_link_free(struct net_link *link)
{
	if (!link)
		return;
	link->is_freed = true;
	give_up(link, -E_CLOSED, "given up");
}

void net_link_stop_all(struct net *net)
{
	struct net_link *link, *next;

	cds_list_for_each_entry_safe(link, next, &net->links, link) {
		give_up(link, -E_SHUTDOWN, "shutting down");
	}
}

void net_link_connect(struct net_link *link)
{
	link->is_kept = true;
	if (link->state == NET_LINK_IDLE && !link->is_telling)
		link_decide(link);
}

int net_link_set_address(struct net_link *link, const char *address)
{
	int rc = loop_address_check(address, NULL);

	if (rc < 0)
		return rc;
	if (strcmp(link->address, address) == 0)
		return 0;
	link_copy_text(link->address, sizeof(link->address), address);
	link->failures = 0;
	link->not_before_ns = 0;
	give_up(link, -E_CLOSED, "its address has changed");
	return 0;
}

void net_link_reset(struct net_link *link, int error, const char *why)
{
	switch (link->state) {
	case NET_LINK_CONNECTING:
		loop_cancel(link->net->loop, &link->connect_op);
		break;
	case NET_LINK_WAITING:
		fail_waiting(link); /* the pause goes on, for those who come now */
		break;
	case NET_LINK_GREETING:
	case NET_LINK_UP:
		link_fail(link, error, why);
		break;
	case NET_LINK_IDLE:
	case NET_LINK_CLOSING:
	case NET_LINK_STATE_COUNT:
		break;
	}
}

uint32_t net_link_outstanding(const struct net_link *link)
{
	return link->outstanding;
}

uint32_t net_link_waiting(const struct net_link *link)
{
	return link->waiting_count;
}

enum net_link_state net_link_state(const struct net_link *link)
{
	return link->state;
}

const struct wire_agreement *net_link_agreement(const struct net_link *link)
{
	return &link->agreement;
}

const struct error *net_link_error(const struct net_link *link)
{
	return &link->error;
}

void *net_link_context(const struct net_link *link)
{
	return link->options.context;
}

const char *net_link_address(const struct net_link *link)
{
	return link->address;
}
