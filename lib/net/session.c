/*
 * An accepted connection: HELLO on the loop that accepted it, then life on the loop that serves it.
 *
 *   GREETING --hello is good--> MOVING --delivered to the serving loop--> OPEN --+
 *      |                                        | refused by the service         |
 *      +--hello is refused--> REFUSING <--------+                                |
 *      |                         | text is sent                                  |
 *      +--timeout, lies----------+-----------------------------------------------+--> CLOSING
 *
 *   CLOSING --stream closed, last request answered--> freed
 *
 * Always true: (1) the service hears of a session only between `opened` and `closed`; (2) an
 * older session of the same link has ended before a newer one's first request is read; (3)
 * what a peer makes us hold is bounded: by the credit before its request is taken, by
 * a few credits of replies that it does not read, after that it is dropped (request.c).
 */
#include "lib/net/session.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "lib/base/text.h"

static const uint8_t session_next[SESSION_STATE_COUNT] = {
	[SESSION_GREETING] = BIT(SESSION_MOVING) | BIT(SESSION_REFUSING) | BIT(SESSION_CLOSING),
	[SESSION_MOVING] = BIT(SESSION_OPEN) | BIT(SESSION_REFUSING) | BIT(SESSION_CLOSING),
	[SESSION_REFUSING] = BIT(SESSION_CLOSING),
	[SESSION_OPEN] = BIT(SESSION_CLOSING),
};

static const struct net_stream_ops stream_ops;
static int check_header(struct wire_decoder *decoder, const struct wire_frame *frame);

static struct net_session *session_of(struct net_stream *stream)
{
	return container_of_type(stream, struct net_session, stream);
}

/* The only place that writes session->state. */
static void session_enter(struct net_session *session, enum session_state next)
{
	assert(session_next[session->state] & BIT(next));
	session->state = next;
}

void session_free_if_over(struct net_session *session)
{
	struct net *net = session->net;

	if (session->state != SESSION_CLOSING || !session->is_stream_gone ||
	    session->requests + session->oneways > 0)
		return;
	loop_timer_stop(net->loop, &session->watch);
	wire_decoder_done(&session->decoder);
	cds_list_del(&session->link);
	net->session_count--;
	free(session);
	net_listeners_resume(net);
}

/* Nodes come and go rarely; every command of an admin tool is a session. */
static enum log_level life_level(const struct net_session *session)
{
	return uuid_is_null(&session->agreement.peer.node) ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO;
}

static void tell_closed(struct net_session *session, int error)
{
	if (!session->was_opened)
		return;
	session->was_opened = false;
	log_info("session %llu from %s: closed: %s", (unsigned long long)session->agreement.session,
		 session->address, error ? err_text(error) : "by the other side");
	if (session->service->closed)
		session->service->closed(session, error);
}

void session_fail(struct net_session *session, int error, const char *why)
{
	if (session->state == SESSION_CLOSING)
		return;
	if (error && error != -E_SHUTDOWN) {
		log_warning("session %llu from %s: dropped: %s",
			    (unsigned long long)session->agreement.session, session->address,
			    why && *why ? why : err_text(error));
		session->net->stats.sessions_failed++;
	}
	session_enter(session, SESSION_CLOSING);
	net_stream_close(&session->stream, error);
}

/* ---- life before HELLO ---- */

static void copy_text(char *out, size_t size, const char *from)
{
	struct text text = text_of(out, size);

	text_append(&text, "%s", from);
}

static void start_watch(struct net_session *session, uint64_t after_ns)
{
	loop_timer_start(session->net->loop, &session->watch,
			 loop_now(session->net->loop) + after_ns);
}

/*
 * One timer for all that may hang: before HELLO for that, later only while something is due: the
 * rest of a frame, or the end of a send. Idle sessions have none.
 */
static void watch_fire(struct loop_timer *timer)
{
	struct net_session *session = container_of_type(timer, struct net_session, watch);
	uint64_t now = loop_now(session->net->loop);
	uint64_t silence_ns = session->net->options.silence_ns;
	bool is_sending = session->stream.send_size > 0;
	bool is_receiving = wire_decoder_is_inside(&session->decoder);

	if (session->state == SESSION_GREETING) {
		session_fail(session, -ETIMEDOUT, "no hello in time");
		return;
	}
	if (session->state != SESSION_OPEN && session->state != SESSION_REFUSING)
		return;
	if (is_sending && now - session->stream.sent_ns >= silence_ns) {
		session_fail(session, -ETIMEDOUT, "the other side does not read");
		return;
	}
	if (is_receiving && now - session->stream.received_ns >= silence_ns) {
		session_fail(session, -ETIMEDOUT, "half a frame, then silence");
		return;
	}
	if (is_sending || is_receiving)
		start_watch(session, silence_ns / 2 + 1);
}

static void watch(struct net_session *session)
{
	if (!loop_timer_is_armed(&session->watch))
		start_watch(session, session->net->options.silence_ns / 2 + 1);
}

static void message_sent(struct wire_outbox *outbox, struct wire_message *message)
{
	struct net_session *session = container_of_type(outbox, struct net_session, outbox);

	session_message_gone(session, message);
}

static void begin_stream(struct net_session *session, struct net *net, struct loop_socket *socket)
{
	session->net = net;
	session->is_stream_gone = false;
	wire_decoder_init(&session->decoder, session->magic, loop_buffers(net->loop));
	session->decoder.check = check_header;
	wire_outbox_init(&session->outbox, message_sent);
	cds_list_add(&session->link, &net->sessions);
	net->session_count++;
	net_stream_start(&session->stream, net, socket, &stream_ops);
}

int net_session_accept(struct net *net, struct loop_socket *socket, uint32_t magic)
{
	struct net_session *session = calloc(1, sizeof(*session));

	if (!session)
		return -ENOMEM;
	session->magic = magic;
	session->state = SESSION_GREETING;
	session->watch.fire = watch_fire;
	copy_text(session->address, sizeof(session->address), loop_socket_peer(socket));
	begin_stream(session, net, socket);
	start_watch(session, net->options.hello_timeout_ns);
	return 0;
}

/* ---- answering HELLO ---- */

static void send_hello_reply(struct net_session *session, const struct wire_protocol *protocol,
			     const struct wire_agreement *agreement, int status)
{
	struct frame_hello_reply reply;
	struct wire_message_spec spec = {
		.magic = session->magic,
		.op = FRAME_OP_HELLO,
		.flags = FRAME_REPLY,
		.request = session->hello_request,
		.status = wire_status_of(status),
		.body = &reply,
		.body_size = sizeof(reply),
		.slices = &session->refusal,
		.slice_count = session->refusal.size ? 1 : 0,
	};

	wire_hello_reply_make(&reply, protocol, &session->net->identity, agreement);
	_Static_assert(sizeof(reply) <= WIRE_BODY_INLINE, "making it cannot fail");
	(void)wire_message_init(&session->hello_reply, loop_buffers(session->net->loop), &spec);
	wire_outbox_add(&session->outbox, &session->hello_reply);
	net_stream_wake(&session->stream);
}

static void refuse(struct net_session *session, const struct wire_protocol *protocol, int code,
		   const char *text)
{
	log_warning("connection from %s: refused: %s", session->address, text);
	session->net->stats.sessions_refused++;
	session_enter(session, SESSION_REFUSING);
	copy_text(session->refusal_text, sizeof(session->refusal_text), text);
	session->refusal = (struct slice){
		.data = (uint8_t *)session->refusal_text,
		.size = (uint32_t)strlen(session->refusal_text),
	};
	send_hello_reply(session, protocol, NULL, code);
	watch(session);
}

/* Older sessions of the same link, and of earlier starts of the same node, end here and now. */
static void end_older(struct net *net, const struct wire_agreement *new, struct net_session *self)
{
	struct net_session *old, *next;

	cds_list_for_each_entry_safe(old, next, &net->sessions, link) {
		const struct wire_agreement *a = &old->agreement;
		bool is_same_node = uuid_is_equal(&a->peer.node, &new->peer.node);
		bool is_older_start = !uuid_is_null(&new->peer.node) &&
				      a->peer.incarnation < new->peer.incarnation;

		if (old == self || old->state != SESSION_OPEN || old->magic != self->magic ||
		    !is_same_node || !(a->link == new->link || is_older_start))
			continue;
		session_fail(old, -E_STALE_SESSION, "a newer session of the same peer has begun");
		tell_closed(old, -E_STALE_SESSION);
	}
}

/* Is a later start of the same node connected? Then this one is a ghost. */
static bool is_outdated(struct net *net, const struct wire_agreement *new, uint32_t magic)
{
	struct net_session *other;

	if (uuid_is_null(&new->peer.node))
		return false;
	cds_list_for_each_entry(other, &net->sessions, link) {
		const struct wire_agreement *a = &other->agreement;
		if (other->state == SESSION_OPEN && other->magic == magic &&
		    uuid_is_equal(&a->peer.node, &new->peer.node) &&
		    a->peer.incarnation > new->peer.incarnation)
			return true;
	}
	return false;
}

static void open_session(struct net_session *session)
{
	struct net *net = session->net;
	struct wire_agreement *agreement = &session->agreement;
	const struct net_service *service = net_find_service(net, session->magic);
	struct error err = {0};
	int rc = 0;

	if (!service) {
		session_fail(session, -EOPNOTSUPP, "nothing serves this protocol on this loop");
		return;
	}
	session->service = service;
	agreement->session = (uint64_t)net->options.loop_index << 48 | ++net->session_last;
	agreement->loop = net->options.loop_index;
	agreement->credit_requests = net->options.credit_requests;
	agreement->credit_bytes = net->options.credit_bytes;
	if (net->is_stopping)
		rc = error_set(&err, -E_SHUTDOWN, "shutting down");
	else if (net->session_count > net->options.sessions_max)
		rc = error_set(&err, -EBUSY, "%u connections already", net->session_count - 1);
	else if (is_outdated(net, agreement, session->magic))
		rc = error_set(&err, -E_STALE_SESSION, "a later start of this node is connected");
	if (rc == 0) {
		end_older(net, agreement, session);
		rc = service->opened ? service->opened(session, &err) : 0;
	}
	if (rc < 0) {
		refuse(session, service->protocol, rc, err.code ? err.text : err_text(rc));
		return;
	}
	session->was_opened = true;
	net->stats.sessions_opened++;
	if (session->state != SESSION_MOVING) /* `opened` has closed it */
		return;
	session_enter(session, SESSION_OPEN);
	log_write(life_level(session), "session %llu from %s: open: %s version %u, class %u",
		  (unsigned long long)agreement->session, session->address, service->protocol->name,
		  agreement->version, agreement->class);
	send_hello_reply(session, service->protocol, agreement, 0);
	net_stream_resume(&session->stream);
}

/* ---- from loop to loop ---- */

static void moved(struct loop *loop, struct loop_mail *mail)
{
	struct net_session *session = container_of_type(mail, struct net_session, mail);
	struct net *net = session->target;
	struct loop_socket *socket = session->stream.socket;

	__atomic_sub_fetch(&net->incoming, 1, __ATOMIC_RELEASE);
	loop_socket_attach(loop, socket);
	begin_stream(session, net, socket);
	open_session(session);
}

/* Runs on its own, when the stream has no operation left. */
static void move(struct loop_op *op, int result)
{
	struct net_session *session = container_of_type(op, struct net_session, move_op);
	struct net *net = session->net;

	net->busy--;
	if (session->state != SESSION_MOVING) { /* net_stop() was faster */
		session_free_if_over(session);	/* the stream may have closed before */
		return;
	}
	loop_timer_stop(net->loop, &session->watch);
	if (session->target == net) {
		open_session(session);
		return;
	}
	struct loop_socket *socket = net_stream_release(&session->stream);
	wire_decoder_done(&session->decoder);
	cds_list_del(&session->link);
	net->session_count--;
	net_listeners_resume(net);
	session->stream.socket = loop_socket_detach(net->loop, socket);
	session->mail.deliver = moved;
	__atomic_add_fetch(&session->target->incoming, 1, __ATOMIC_RELAXED);
	loop_post(session->target->loop, &session->mail);
}

/* The first frame. */
static int greet(struct net_session *session, const struct wire_frame *frame, struct error *err)
{
	struct net *net = session->net;
	const struct net_service *service = net_find_service(net, session->magic);
	int rc;

	if (!service)
		return error_set(err, -EOPNOTSUPP, "nothing serves this protocol");
	session->hello_request = frame->request;
	rc = wire_hello_judge(service->protocol, &net->identity, frame, &session->agreement, err);
	if (rc == 0 && wire_decoder_is_inside(&session->decoder))
		return error_set(err, -E_PROTOCOL, "more than hello before its reply");
	if (rc < 0) {
		refuse(session, service->protocol, rc, err->text);
		return 0;
	}
	uint16_t loop = session->agreement.loop;
	session->target = loop == FRAME_ANY_LOOP ? net : net->group[loop % net->group_count];
	session_enter(session, SESSION_MOVING);
	session->move_op.done = move;
	net->busy++;
	loop_complete(net->loop, &session->move_op, 0);
	return 0;
}

/* ---- the stream's callbacks ---- */

static int check_header(struct wire_decoder *decoder, const struct wire_frame *frame)
{
	struct net_session *session = container_of_type(decoder, struct net_session, decoder);

	if (session->state == SESSION_OPEN)
		return session_check_header(decoder, frame);
	if (frame->op != FRAME_OP_HELLO || frame->payload_size)
		return error_set(&decoder->error, -E_PROTOCOL, "the first frame is no hello");
	return 0;
}

static int stream_space(struct net_stream *stream, struct iovec *iov, unsigned max)
{
	struct net_session *session = session_of(stream);

	if (session->state == SESSION_GREETING || session->state == SESSION_OPEN)
		return wire_decoder_space(&session->decoder, iov);
	return 0;
}

static void stream_received(struct net_stream *stream, size_t size)
{
	struct net_session *session = session_of(stream);
	struct wire_frame frame;
	struct error err = {0};
	int rc = 1;

	if (size == 0) {
		bool is_cut = wire_decoder_is_inside(&session->decoder);
		session_fail(session, is_cut ? -E_PROTOCOL : 0, "ended inside a frame");
		return;
	}
	wire_decoder_received(&session->decoder, size);
	while (rc > 0 && (session->state == SESSION_GREETING || session->state == SESSION_OPEN)) {
		rc = wire_decoder_next(&session->decoder, &frame);
		if (rc < 0)
			(void)error_set(&err, rc, "%s", wire_decoder_error(&session->decoder));
		if (rc <= 0)
			break;
		session->net->stats.frames_in++;
		rc = session->state == SESSION_OPEN ? session_take_frame(session, &frame, &err)
						    : greet(session, &frame, &err);
		rc = rc < 0 ? rc : 1;
	}
	if (rc < 0)
		session_fail(session, rc, err.text);
	else if (session->state == SESSION_OPEN && wire_decoder_is_inside(&session->decoder))
		watch(session);
}

static unsigned stream_output(struct net_stream *stream, struct iovec *iov, unsigned max)
{
	struct net_session *session = session_of(stream);
	unsigned count = wire_outbox_output(&session->outbox, iov, max, NET_SEND_BYTES_MAX);
	if (count > 0)
		watch(session);
	return count;
}

static void stream_sent(struct net_stream *stream, size_t size)
{
	struct net_session *session = session_of(stream);

	wire_outbox_sent(&session->outbox);
	if (session->state == SESSION_REFUSING && session->outbox.queued_bytes == 0)
		session_fail(session, 0, NULL);
}

static void stream_closed(struct net_stream *stream, int error)
{
	struct net_session *session = session_of(stream);
	struct wire_message *message;

	if (session->state != SESSION_CLOSING) /* the stream ended by itself */
		session_fail(session, error, NULL);
	while ((message = wire_outbox_drop(&session->outbox)))
		session_message_gone(session, message);
	loop_timer_stop(session->net->loop, &session->watch);
	tell_closed(session, error);
	session->is_stream_gone = true;
	if (!loop_op_is_busy(&session->move_op))
		session_free_if_over(session);
}

static const struct net_stream_ops stream_ops = {
	.space = stream_space,
	.received = stream_received,
	.output = stream_output,
	.sent = stream_sent,
	.closed = stream_closed,
};

/* ---- for services ---- */

void net_session_stop_all(struct net *net)
{
	struct net_session *session, *next;

	cds_list_for_each_entry_safe(session, next, &net->sessions, link) {
		net_session_close(session, -E_SHUTDOWN, "shutting down");
	}
}

void net_session_close(struct net_session *session, int error, const char *why)
{
	session_fail(session, error, why);
}

void net_session_each(struct net *net, bool (*each)(struct net_session *session, void *context),
		      void *context)
{
	struct net_session *session, *next;

	cds_list_for_each_entry_safe(session, next, &net->sessions, link) {
		if (session->state == SESSION_OPEN && !each(session, context))
			return;
	}
}

uint64_t net_session_number(const struct net_session *session)
{
	return session->agreement.session;
}

const struct wire_agreement *net_session_agreement(const struct net_session *session)
{
	return &session->agreement;
}

const char *net_session_address(const struct net_session *session)
{
	return session->address;
}

void *net_session_context(const struct net_session *session)
{
	return session->service->context;
}

struct net *net_session_net(const struct net_session *session)
{
	return session->net;
}

void net_session_set_user(struct net_session *session, void *user)
{
	session->user = user;
}

void *net_session_user(const struct net_session *session)
{
	return session->user;
}

bool net_session_is_open(const struct net_session *session)
{
	return session->state == SESSION_OPEN;
}
