/*
 * The host of one NBD connection.
 *
 *   NEGOTIATING --session--> SERVING --all answered--> LINGERING --client has left, 2 s--> CLOSING
 *        |                      |                                                            |
 *        +-- refused, ABORT ----|--> LINGERING                                               v
 *        +-- error, timeout ----+------------------------------------------------------> CLOSING
 *                                                                                            |
 *              CLOSED <--backend has answered all-- FINISHING <--no operation in flight------+
 *
 * Always true: (1) at most one receive and one send are in flight; (2) bytes that were received and
 * not taken are kept in the window, and nothing is received while there are any; (3) memory that an
 * operation may touch lives until it has completed: the device is closed only in FINISHING; (4) what
 * was received is never received over while someone else has a reference to its buffer.
 *
 * Lingering: a socket closed with unread input resets the connection, and the reset may overtake the
 * last replies. So our direction is ended first, and input dropped until the client ends its own.
 *
 * Receiving: into a window of a shared buffer, whose parts become payload without a copy. Its size
 * follows the traffic: an idle or shy connection holds 8 KiB, one that fills it gets up to 256 KiB.
 * The rest of a payload that does not fit is received where it belongs; behind it the window is
 * kept small as long as payloads are large, because what falls into it of the next must be copied.
 */
#include "lib/net/nbd_link.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "lib/base/text.h"

#define WINDOW_MIN	       8192u
#define WINDOW_MAX	       (256u << 10)
#define ROOM_MIN	       (4096u + 128u) /* one small write */
#define IN_PLACE_LARGE	       (64u << 10)
#define IN_PLACE_WINDOW	       4096u
#define SPANS_MAX	       256u
#define LINGER_NS	       (2 * NS_PER_S)
#define IDLE_NS		       (5 * NS_PER_S)
#define NEGOTIATION_TIMEOUT_NS (60 * NS_PER_S)
#define SHY_RECEIVES	       32u /* so many small ones in a row halve the window */

struct nbd_link {
	struct nbd_host host;
	struct loop *loop;
	struct loop_socket *socket; /* NULL from CLOSING on */
	struct nbd_listener *listener;
	struct nbd_device *device;
	struct nbd_link_options options;
	enum nbd_link_state state;
	char why[160];
	char peer[LOOP_ADDRESS_MAX];
	struct loop_hook hook;
	struct loop_timer
		timer; /* the deadline of NEGOTIATING and LINGERING, idleness of SERVING */

	/* input */
	struct loop_op recv_op;
	struct buffer *buffer; /* unread bytes: [start, end) */
	uint32_t start, end;
	uint32_t window; /* size of the next buffer */
	uint32_t shy;
	uint32_t receives;     /* since the timer fired */
	size_t in_place;       /* of the receive in flight */
	bool is_payload_large; /* the last one was */
	bool has_ended;	       /* the client sends no more */
	bool has_told_end;     /* to the listener or the device */
	bool is_shutdown;
	uint32_t room; /* of the receive in flight, in the window */
	struct iovec recv_iov[2];

	/* output */
	struct loop_op send_op;
	bool sends_listener; /* whose bytes are on their way */
	struct iovec send_iov[SPANS_MAX];
};

static const char *const state_names[NBD_LINK_STATE_COUNT] = {
#define STATE_NAME(name, text) [NBD_LINK_##name] = text,
	NBD_LINK_STATES(STATE_NAME)
#undef STATE_NAME
};

#define TO(state) BIT(NBD_LINK_##state)
static const uint8_t next_states[NBD_LINK_STATE_COUNT] = {
	[NBD_LINK_NEGOTIATING] = TO(SERVING) | TO(LINGERING) | TO(CLOSING),
	[NBD_LINK_SERVING] = TO(LINGERING) | TO(CLOSING),
	[NBD_LINK_LINGERING] = TO(CLOSING),
	[NBD_LINK_CLOSING] = TO(FINISHING),
	[NBD_LINK_FINISHING] = TO(CLOSED),
};
#undef TO

/* The only place that writes link->state. */
static void enter(struct nbd_link *link, enum nbd_link_state next)
{
	assert(next_states[link->state] & BIT(next));
	log_debug("nbd %s: %s -> %s", link->peer, state_names[link->state], state_names[next]);
	link->state = next;
}

static void on_wake(struct nbd_host *host)
{
	struct nbd_link *link = container_of_type(host, struct nbd_link, host);

	loop_hook_arm(link->loop, &link->hook);
}

static bool is_open(const struct nbd_link *link)
{
	return link->state == NBD_LINK_NEGOTIATING || link->state == NBD_LINK_SERVING;
}

/* ---- ends ---- */

static void begin_close(struct nbd_link *link)
{
	loop_timer_stop(link->loop, &link->timer);
	enter(link, NBD_LINK_CLOSING);
	loop_socket_close(link->loop, link->socket);
	link->socket = NULL;
	loop_hook_arm(link->loop, &link->hook);
}

static void set_reason(struct nbd_link *link, const char *why)
{
	struct text text = text_of(link->why, sizeof(link->why));

	if (!*link->why)
		text_append(&text, "%s", why);
}

void nbd_link_close(struct nbd_link *link, const char *why)
{
	if (link->state >= NBD_LINK_CLOSING)
		return;
	set_reason(link, why);
	begin_close(link);
}

/* Everything is said. */
static void end_politely(struct nbd_link *link)
{
	if (link->has_ended) {
		begin_close(link);
		return;
	}
	enter(link, NBD_LINK_LINGERING);
	link->start = link->end; /* not 0: what lies before may be a payload that is still in use */
	loop_socket_shutdown(link->loop, link->socket, false);
	loop_timer_start(link->loop, &link->timer, loop_now(link->loop) + LINGER_NS);
}

static void finish(struct nbd_link *link)
{
	const struct nbd_link_options options = link->options;

	if (loop_op_is_busy(&link->recv_op) || loop_op_is_busy(&link->send_op))
		return;
	if (link->state == NBD_LINK_CLOSING) {
		enter(link, NBD_LINK_FINISHING);
		nbd_listener_free(link->listener);
		link->listener = NULL;
		buffer_put(link->buffer);
		link->buffer = NULL;
		if (link->device)
			nbd_device_close(link->device);
	}
	if (link->device && nbd_device_state(link->device) != NBD_DEVICE_GONE)
		return;
	nbd_device_free(link->device);
	loop_hook_disarm(link->loop, &link->hook);
	enter(link, NBD_LINK_CLOSED);
	if (options.closed)
		options.closed(link, options.context, link->why);
	free(link);
}

/* ---- input ---- */

static void start_idle_timer(struct nbd_link *link)
{
	if (link->state == NBD_LINK_SERVING && !loop_timer_is_armed(&link->timer))
		loop_timer_start(link->loop, &link->timer, loop_now(link->loop) + IDLE_NS);
}

/* @got bytes came where @room bytes fitted: is the window of a good size? */
static void window_follow(struct nbd_link *link, size_t got, size_t room)
{
	if (got == room) {
		link->window = min_of(link->window * 4, WINDOW_MAX);
		link->shy = 0;
		start_idle_timer(link);
	} else if (got > link->window / 8) {
		link->shy = 0;
	} else if (++link->shy == SHY_RECEIVES) {
		link->window = max_of(link->window / 2, WINDOW_MIN);
		link->shy = 0;
	}
}

/* Room for receiving. False: no memory. */
static bool window_open(struct nbd_link *link)
{
	struct buffer *buffer = link->buffer;

	if (buffer && !buffer_is_shared(buffer))
		link->start = link->end = 0;
	if (buffer && buffer->size - link->end >= ROOM_MIN && buffer->size == link->window)
		return true;
	buffer = buffer_new(link->host.buffers, link->window);
	if (!buffer)
		return false;
	buffer_put(link->buffer);
	link->buffer = buffer;
	link->start = link->end = 0;
	return true;
}

static void receive(struct nbd_link *link)
{
	bool follows_large = link->is_payload_large;
	unsigned count = 0;

	if (link->has_ended || link->state > NBD_LINK_LINGERING || link->start < link->end ||
	    loop_op_is_busy(&link->recv_op))
		return;
	if (!window_open(link)) {
		nbd_link_close(link, "out of memory");
		return;
	}
	link->in_place = 0;
	if (link->state == NBD_LINK_SERVING && nbd_device_want(link->device, link->recv_iov)) {
		link->in_place = link->recv_iov[0].iov_len;
		count++;
	}
	link->is_payload_large = link->in_place >= IN_PLACE_LARGE;
	link->room = link->buffer->size - link->end;
	if (link->is_payload_large || follows_large)
		link->room = min_of(link->room, IN_PLACE_WINDOW);
	link->recv_iov[count].iov_base = link->buffer->data + link->end;
	link->recv_iov[count].iov_len = link->room;
	loop_recv(link->loop, &link->recv_op, link->socket, link->recv_iov, count + 1);
}

static void start_device(struct nbd_link *link)
{
	link->device = nbd_listener_start_device(link->listener);
	if (!link->device) {
		nbd_link_close(link, "out of memory");
		return;
	}
	if (link->is_shutdown)
		nbd_device_shutdown(link->device);
	link->has_told_end = false;
	loop_timer_stop(link->loop, &link->timer);
	enter(link, NBD_LINK_SERVING);
	if (link->window > WINDOW_MIN)
		start_idle_timer(link);
}

/* Hand on what is in the window, as far as it is taken; then the end, if it has come. */
static void feed(struct nbd_link *link)
{
	uint32_t size = link->end - link->start;

	if (link->state == NBD_LINK_NEGOTIATING && size > 0)
		link->start += (uint32_t)nbd_listener_feed(link->listener,
							   link->buffer->data + link->start, size);
	if (link->state == NBD_LINK_NEGOTIATING &&
	    nbd_listener_state(link->listener) == NBD_LISTENER_DONE)
		start_device(link);
	if (link->state == NBD_LINK_SERVING && link->buffer) {
		size = link->end - link->start;
		struct slice in = slice_of(link->buffer, link->start, size);
		link->start += (uint32_t)nbd_device_feed(link->device, in);
	}
	if (link->has_ended && !link->has_told_end && link->start == link->end) {
		link->has_told_end = true;
		if (link->state == NBD_LINK_NEGOTIATING)
			nbd_listener_eof(link->listener);
		else if (link->state == NBD_LINK_SERVING)
			nbd_device_eof(link->device);
	}
}

static void take(struct nbd_link *link, size_t got)
{
	size_t in_place = min_of(got, link->in_place);
	size_t rest = got - in_place;

	link->receives++;
	if (in_place > 0)
		nbd_device_filled(link->device, in_place);
	if (!link->is_payload_large && (link->in_place == 0 || rest > 0))
		window_follow(link, rest, link->room);
	link->end += (uint32_t)rest;
	feed(link);
}

static void on_received(struct loop_op *op, int result)
{
	struct nbd_link *link = container_of_type(op, struct nbd_link, recv_op);

	if (link->state >= NBD_LINK_CLOSING) {
		loop_hook_arm(link->loop, &link->hook);
		return;
	}
	if (result == 0 || (result < 0 && result != -ECANCELED)) {
		link->has_ended = true;
		if (result < 0 && is_open(link))
			nbd_link_close(link, err_text(result));
		else
			loop_hook_arm(link->loop, &link->hook);
		return;
	}
	if (link->state != NBD_LINK_LINGERING && result > 0)
		take(link, (size_t)result);
	receive(link);
}

/* ---- output ---- */

/* Has the client sent ABORT or DISC? It need not wait for what we have still to say. */
static bool has_taken_leave(const struct nbd_link *link)
{
	if (link->device)
		return nbd_device_state(link->device) == NBD_DEVICE_DRAINING;
	return nbd_listener_state(link->listener) == NBD_LISTENER_ENDING &&
	       !*nbd_listener_reason(link->listener);
}

static void on_sent(struct loop_op *op, int result)
{
	struct nbd_link *link = container_of_type(op, struct nbd_link, send_op);

	loop_hook_arm(link->loop, &link->hook);
	if (link->state >= NBD_LINK_CLOSING)
		return;
	if (result < 0) {
		nbd_link_close(link, has_taken_leave(link) ? "" : err_text(result));
		return;
	}
	if (link->sends_listener)
		nbd_listener_sent(link->listener, (size_t)result);
	else
		nbd_device_sent(link->device, (size_t)result);
}

static void transmit(struct nbd_link *link)
{
	unsigned count = 0;

	if (loop_op_is_busy(&link->send_op))
		return;
	if (link->listener) {
		count = nbd_listener_output(link->listener, link->send_iov, SPANS_MAX);
		link->sends_listener = true;
	}
	if (count == 0 && link->device) {
		/* The listener's last word has gone. */
		nbd_listener_free(link->listener);
		link->listener = NULL;
		link->sends_listener = false;
		count = nbd_device_output(link->device, link->send_iov, SPANS_MAX);
	}
	if (count > 0)
		loop_send(link->loop, &link->send_op, link->socket, link->send_iov, count);
}

/* ---- once a turn ---- */

static void look_for_the_end(struct nbd_link *link)
{
	bool is_sending = loop_op_is_busy(&link->send_op);

	if (link->state == NBD_LINK_NEGOTIATING) {
		if (nbd_listener_state(link->listener) == NBD_LISTENER_CLOSED && !is_sending) {
			set_reason(link, nbd_listener_reason(link->listener));
			end_politely(link);
		}
	} else if (link->state == NBD_LINK_SERVING) {
		enum nbd_device_state state = nbd_device_state(link->device);
		if (state == NBD_DEVICE_FAILED)
			nbd_link_close(link, nbd_device_reason(link->device));
		if (state == NBD_DEVICE_DRAINED && !is_sending) {
			set_reason(link, nbd_device_reason(link->device));
			end_politely(link);
		}
	}
	if (link->state == NBD_LINK_LINGERING && link->has_ended)
		begin_close(link);
}

static void on_turn(struct loop_hook *hook)
{
	struct nbd_link *link = container_of_type(hook, struct nbd_link, hook);

	if (is_open(link)) {
		feed(link);
		if (is_open(link))
			transmit(link);
		look_for_the_end(link);
	} else if (link->state == NBD_LINK_LINGERING) {
		look_for_the_end(link);
	}
	if (link->state >= NBD_LINK_CLOSING)
		finish(link); /* may free it */
	else
		receive(link);
}

static void on_timer(struct loop_timer *timer)
{
	struct nbd_link *link = container_of_type(timer, struct nbd_link, timer);

	if (link->state == NBD_LINK_NEGOTIATING) {
		nbd_link_close(link, "negotiation takes too long");
	} else if (link->state == NBD_LINK_LINGERING) {
		begin_close(link);
	} else if (link->receives > 0) {
		link->receives = 0;
		start_idle_timer(link);
	} else {
		/* Idle: give the memory back. */
		link->window = WINDOW_MIN;
		if (loop_op_is_busy(&link->recv_op) && link->buffer->size > WINDOW_MIN)
			loop_cancel(link->loop, &link->recv_op);
	}
}

/* ---- life ---- */

int nbd_link_start(struct loop *loop, struct loop_socket *socket, const struct nbd_server *server,
		   const struct nbd_link_options *options, struct nbd_link **out)
{
	struct nbd_link *link = calloc(1, sizeof(*link));
	uint64_t timeout_ns = options->negotiation_timeout_ns;

	if (!link)
		goto fail;
	link->host.wake = on_wake;
	link->host.buffers = loop_buffers(loop);
	link->host.context = options->context;
	link->loop = loop;
	link->socket = socket;
	link->options = *options;
	link->window = WINDOW_MIN;
	link->recv_op.done = on_received;
	link->send_op.done = on_sent;
	link->timer.fire = on_timer;
	link->hook.run = on_turn;
	link->hook.phase = LOOP_HOOK_FLUSH;
	(void)text_copy(link->peer, sizeof(link->peer), loop_socket_peer(socket));
	link->listener = nbd_listener_new(server, &link->host);
	if (!link->listener)
		goto fail;
	loop_timer_start(loop, &link->timer,
			 loop_now(loop) + (timeout_ns ? timeout_ns : NEGOTIATION_TIMEOUT_NS));
	loop_hook_arm(loop, &link->hook);
	*out = link;
	return 0;
fail:
	free(link);
	loop_socket_close(loop, socket);
	return -ENOMEM;
}

void nbd_link_shutdown(struct nbd_link *link)
{
	link->is_shutdown = true;
	if (link->state == NBD_LINK_NEGOTIATING)
		nbd_listener_shutdown(link->listener);
	else if (link->state == NBD_LINK_SERVING)
		nbd_device_shutdown(link->device);
}

enum nbd_link_state nbd_link_state(const struct nbd_link *link)
{
	return link->state;
}

const char *nbd_link_state_name(enum nbd_link_state state)
{
	return state < NBD_LINK_STATE_COUNT ? state_names[state] : "unknown";
}

const char *nbd_link_peer(const struct nbd_link *link)
{
	return link->peer;
}

struct loop *nbd_link_loop(const struct nbd_link *link)
{
	return link->loop;
}

struct nbd_device *nbd_link_device(const struct nbd_link *link)
{
	return link->device;
}
