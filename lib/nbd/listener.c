/*
 * One connection in negotiation (proto.md, Newstyle and Fixed newstyle negotiation).
 *
 *   CLIENT_FLAGS --> OPTION_HEADER --> OPTION_DATA --+--> OPTION_READY --> ANSWERING
 *                     ^          |                   |                        |
 *                     |          +----> OPTION_SKIP -+                        |
 *                     |   (refused, or its data is ignored)   +---------------+---------+
 *                     |                                       |               |         |
 *                     +--------- answered ----------------- OPENING        LISTING      |
 *                                                             |                         |
 *                                        DONE <-- GO, EXPORT_NAME      ENDING <-- ABORT +
 *
 *   any --> CLOSED: the client broke a rule that cannot be answered, or left
 *
 * Always true: (1) one option is answered at a time, and only when all earlier replies have been
 * sent, so that the output has room for whatever a handler says; (2) what an option is refused for
 * is decided from its header, before its data is kept; (3) data of one option never becomes
 * another: the declared length is consumed whatever the answer is; (4) a session is handed out or
 * its export closed, never both.
 */
#include "lib/nbd/nbd_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "lib/base/text.h"

#define OFFERED (NBD_HANDSHAKE_FIXED_NEWSTYLE | NBD_HANDSHAKE_NO_ZEROES)
/* The handshake flags are the lowest features, so they need no translation. */
_Static_assert((unsigned)NBD_FEATURE_FIXED == NBD_HANDSHAKE_FIXED_NEWSTYLE, "same bit");
_Static_assert((unsigned)NBD_FEATURE_NO_ZEROES == NBD_HANDSHAKE_NO_ZEROES, "same bit");

static size_t take_client_flags(struct nbd_listener *l, const uint8_t *data, size_t size);
static size_t take_option_header(struct nbd_listener *l, const uint8_t *data, size_t size);
static size_t take_option_data(struct nbd_listener *l, const uint8_t *data, size_t size);
static size_t take_skipped(struct nbd_listener *l, const uint8_t *data, size_t size);
static size_t drop(struct nbd_listener *l, const uint8_t *data, size_t size);

/* A state without `take` leaves its input to whoever feeds. */
static const struct {
	const char *name;
	uint16_t next;
	size_t (*take)(struct nbd_listener *l, const uint8_t *data, size_t size);
} states[NBD_LISTENER_STATE_COUNT] = {
#define STATE_TEXT(state, text) [NBD_LISTENER_##state].name = text,
	NBD_LISTENER_STATES(STATE_TEXT)
#undef STATE_TEXT
#define STATE(state, function, ...) \
	[NBD_LISTENER_##state].take = function, [NBD_LISTENER_##state].next = __VA_ARGS__
#define TO(state) BIT(NBD_LISTENER_##state)
		STATE(CLIENT_FLAGS, take_client_flags, TO(OPTION_HEADER) | TO(ENDING) | TO(CLOSED)),
	STATE(OPTION_HEADER, take_option_header,
	      TO(OPTION_DATA) | TO(OPTION_SKIP) | TO(OPTION_READY) | TO(ENDING) | TO(CLOSED)),
	STATE(OPTION_DATA, take_option_data, TO(OPTION_READY) | TO(ENDING) | TO(CLOSED)),
	STATE(OPTION_SKIP, take_skipped, TO(OPTION_READY) | TO(ENDING) | TO(CLOSED)),
	STATE(OPTION_READY, NULL, TO(ANSWERING)),
	STATE(ANSWERING, NULL,
	      TO(OPTION_HEADER) | TO(OPENING) | TO(LISTING) | TO(ENDING) | TO(CLOSED)),
	STATE(OPENING, NULL, TO(OPTION_HEADER) | TO(DONE) | TO(ENDING) | TO(CLOSED)),
	STATE(LISTING, NULL, TO(OPTION_HEADER) | TO(ENDING) | TO(CLOSED)),
	STATE(ENDING, drop, TO(CLOSED)),
	STATE(DONE, NULL, 0),
	STATE(CLOSED, drop, 0),
#undef STATE
#undef TO
};

/* The only place that writes listener->state. */
void listener_enter(struct nbd_listener *l, enum nbd_listener_state next)
{
	assert(states[l->state].next & BIT(next));
	l->state = next;
	if (next >= NBD_LISTENER_ENDING)
		l->host->wake(l->host);
}

void listener_fail(struct nbd_listener *l, const char *reason)
{
	(void)snprintf(l->reason, sizeof(l->reason), "%s", reason);
	listener_enter(l, listener_has_output(l) ? NBD_LISTENER_ENDING : NBD_LISTENER_CLOSED);
}

/* ---- output ---- */

bool listener_has_output(const struct nbd_listener *l)
{
	return l->out_start < l->out_end;
}

size_t listener_room(const struct nbd_listener *l)
{
	return sizeof(l->out) - l->out_end;
}

void *listener_reserve(struct nbd_listener *l, size_t size)
{
	bool was_empty = !listener_has_output(l);

	assert(size <= listener_room(l));
	void *at = l->out + l->out_end;
	l->out_end += (uint32_t)size;
	if (was_empty)
		l->host->wake(l->host);
	return at;
}

void nbd_listener_reply(struct nbd_listener *l, uint32_t type, const void *data, size_t size)
{
	uint8_t *at = listener_reserve(l, sizeof(struct nbd_option_reply) + size);

	*(struct nbd_option_reply *)at = (struct nbd_option_reply){
		.magic = to_be64(NBD_OPTION_REPLY_MAGIC),
		.option = to_be32(l->question.number),
		.type = to_be32(type),
		.length = to_be32((uint32_t)size),
	};
	if (size > 0)
		memcpy(at + sizeof(struct nbd_option_reply), data, size);
}

void nbd_listener_ack(struct nbd_listener *l, uint32_t grants)
{
	nbd_listener_reply(l, NBD_REP_ACK, NULL, 0);
	l->features |= grants;
	listener_answered(l);
}

void nbd_listener_refuse(struct nbd_listener *l, uint32_t type, const char *format, ...)
{
	const struct nbd_option *row = l->question.row;
	char text[NBD_TEXT_MAX];
	va_list ap;

	va_start(ap, format);
	int n = vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	size_t size = n < 0 ? 0 : min_of((size_t)n, sizeof(text) - 1);
	/* A cut may have split a character, and a backend's text may hold anything. */
	while (size > 0 && !text_is_clean(text, size))
		size--;
	if (row && (row->traits & NBD_OPTION_NO_REPLY)) {
		text[size] = '\0';
		listener_fail(l, text);
		return;
	}
	assert(type & NBD_REP_ERROR);
	nbd_listener_reply(l, type, text, size);
	listener_answered(l);
}

void listener_answered(struct nbd_listener *l)
{
	listener_enter(l, l->is_eof ? NBD_LISTENER_ENDING : NBD_LISTENER_OPTION_HEADER);
	l->used = 0;
	if (l->state == NBD_LISTENER_ENDING && !listener_has_output(l))
		listener_enter(l, NBD_LISTENER_CLOSED);
	else if (l->state == NBD_LISTENER_OPTION_HEADER)
		l->host->wake(l->host);
}

unsigned nbd_listener_output(struct nbd_listener *l, struct iovec *iov, unsigned max)
{
	if (!listener_has_output(l) || max == 0)
		return 0;
	iov[0].iov_base = l->out + l->out_start;
	iov[0].iov_len = l->out_end - l->out_start;
	return 1;
}

static void dispatch(struct nbd_listener *l);

void nbd_listener_sent(struct nbd_listener *l, size_t bytes)
{
	assert(bytes <= l->out_end - l->out_start);
	l->out_start += (uint32_t)bytes;
	if (listener_has_output(l))
		return;
	l->out_start = l->out_end = 0;
	if (l->state == NBD_LISTENER_ENDING) {
		listener_enter(l, NBD_LISTENER_CLOSED);
	} else if (l->state == NBD_LISTENER_OPTION_READY) {
		dispatch(l);
	} else if (l->state == NBD_LISTENER_LISTING && l->question.is_waiting_for_room) {
		l->question.is_waiting_for_room = false;
		l->server->callbacks.list(l, &l->question.cursor);
	}
}

/* ---- input ---- */

/* Collect @want bytes in @to. Returns what was taken; l->used tells how many are there. */
static size_t collect(struct nbd_listener *l, uint8_t *to, size_t want, const uint8_t *data,
		      size_t size)
{
	size_t n = min_of(size, want - l->used);

	memcpy(to + l->used, data, n);
	l->used += (uint32_t)n;
	return n;
}

static size_t drop(struct nbd_listener *l, const uint8_t *data, size_t size)
{
	return size;
}

static size_t take_client_flags(struct nbd_listener *l, const uint8_t *data, size_t size)
{
	size_t n = collect(l, l->header, sizeof(struct nbd_client_flags), data, size);

	if (l->used < sizeof(struct nbd_client_flags))
		return n;
	const struct nbd_client_flags *client = (const void *)l->header;
	uint32_t flags = from_be32(client->flags);
	l->used = 0;
	if (flags & ~(uint32_t)OFFERED) {
		listener_fail(l, "the client set unknown handshake flags");
		return n;
	}
	l->features = flags;
	listener_enter(l, NBD_LISTENER_OPTION_HEADER);
	return n;
}

static enum nbd_phase phase_of(const struct nbd_listener *l)
{
	return l->features & NBD_FEATURE_FIXED ? NBD_PHASE_FIXED : NBD_PHASE_NEWSTYLE;
}

/* What the option is refused with, from its header alone; 0 if it is not. */
static uint32_t judge(const struct nbd_listener *l, const struct nbd_option *row, uint32_t length,
		      const char **text)
{
	bool is_abort = row && row->number == NBD_OPT_ABORT;

	if (l->is_shutdown && !is_abort) {
		*text = "the server is shutting down";
		return NBD_REP_ERR_SHUTDOWN;
	}
	if (!row) {
		*text = "this option is not known here";
		return NBD_REP_ERR_UNSUP;
	}
	if (!(row->phases & phase_of(l))) {
		*text = "this option is not allowed at this point";
		return NBD_REP_ERR_POLICY;
	}
	if (row->traits & NBD_OPTION_IGNORES_DATA)
		return 0;
	if (length > row->length_max) {
		*text = row->length_max ? "the option's data is too long"
					: "this option takes no data";
		return row->length_max ? NBD_REP_ERR_TOO_BIG : NBD_REP_ERR_INVALID;
	}
	if (length < row->length_min) {
		*text = "the option's data is too short";
		return NBD_REP_ERR_INVALID;
	}
	return 0;
}

/* The client asks for more than a connection may: the last answer it gets. */
static void refuse_and_end(struct nbd_listener *l)
{
	const struct nbd_option *row = l->question.row;
	static const char text[] = "too much option data on one connection";

	(void)snprintf(l->reason, sizeof(l->reason), "%s", text);
	if ((row && (row->traits & NBD_OPTION_NO_REPLY)) || !(l->features & NBD_FEATURE_FIXED) ||
	    listener_room(l) < sizeof(struct nbd_option_reply) + sizeof(text)) {
		listener_fail(l, text);
		return;
	}
	nbd_listener_reply(l, NBD_REP_ERR_TOO_BIG, text, strlen(text));
	listener_enter(l, NBD_LISTENER_ENDING);
}

static void begin_option(struct nbd_listener *l)
{
	const struct nbd_option_header *header = (const void *)l->header;
	struct nbd_question *q = &l->question;

	if (from_be64(header->magic) != NBD_OPTION_MAGIC) {
		listener_fail(l, "an option without its magic number");
		return;
	}
	l->used = 0;
	memset(q, 0, offsetof(struct nbd_question, name));
	q->number = from_be32(header->option);
	q->length = from_be32(header->length);
	q->row = nbd_server_option(l->server, q->number);
	l->option_bytes += q->length;
	if (++l->option_count > l->server->limits.options_max) {
		listener_fail(l, "too many options on one connection");
		return;
	}
	if (l->option_bytes > l->server->limits.option_bytes_max) {
		refuse_and_end(l);
		return;
	}
	q->refusal = judge(l, q->row, q->length, &q->refusal_text);
	bool has_no_reply = q->row && (q->row->traits & NBD_OPTION_NO_REPLY);
	if (q->refusal && (has_no_reply || phase_of(l) == NBD_PHASE_NEWSTYLE)) {
		listener_fail(l, q->refusal_text);
		return;
	}
	bool is_kept = !q->refusal && !(q->row->traits & NBD_OPTION_IGNORES_DATA);
	if (q->length == 0) {
		listener_enter(l, NBD_LISTENER_OPTION_READY);
		dispatch(l);
	} else if (is_kept) {
		listener_enter(l, NBD_LISTENER_OPTION_DATA);
	} else {
		l->skip_left = q->length;
		listener_enter(l, NBD_LISTENER_OPTION_SKIP);
	}
}

static size_t take_option_header(struct nbd_listener *l, const uint8_t *data, size_t size)
{
	size_t n = collect(l, l->header, sizeof(l->header), data, size);

	if (l->used == sizeof(l->header))
		begin_option(l);
	return n;
}

static size_t take_option_data(struct nbd_listener *l, const uint8_t *data, size_t size)
{
	size_t n = collect(l, l->data, l->question.length, data, size);

	if (l->used == l->question.length) {
		listener_enter(l, NBD_LISTENER_OPTION_READY);
		dispatch(l);
	}
	return n;
}

static size_t take_skipped(struct nbd_listener *l, const uint8_t *data, size_t size)
{
	size_t n = min_of(size, (size_t)l->skip_left);

	l->skip_left -= (uint32_t)n;
	if (l->skip_left == 0) {
		listener_enter(l, NBD_LISTENER_OPTION_READY);
		dispatch(l);
	}
	return n;
}

static void answer_by_row(struct nbd_listener *l, const struct nbd_option *row)
{
	if (row->reply_type & NBD_REP_ERROR) {
		nbd_listener_refuse(l, row->reply_type, "%s", row->text ? row->text : "");
		return;
	}
	assert(row->reply_type == NBD_REP_ACK);
	nbd_listener_ack(l, row->grants);
}

/* In OPTION_READY: answer, unless earlier replies are still in the way. */
static void dispatch(struct nbd_listener *l)
{
	const struct nbd_question *q = &l->question;

	if (listener_has_output(l))
		return;
	listener_enter(l, NBD_LISTENER_ANSWERING);
	if (q->refusal)
		nbd_listener_refuse(l, q->refusal, "%s", q->refusal_text);
	else if (q->row->handle)
		q->row->handle(l, q->row, bytes_reader_of(l->data, l->used));
	else
		answer_by_row(l, q->row);
}

size_t nbd_listener_feed(struct nbd_listener *l, const void *data, size_t size)
{
	const uint8_t *at = data;
	size_t left = size;

	while (left > 0 && states[l->state].take) {
		size_t n = states[l->state].take(l, at, left);
		at += n;
		left -= n;
	}
	return size - left;
}

void nbd_listener_eof(struct nbd_listener *l)
{
	bool is_midway = l->state == NBD_LISTENER_OPTION_DATA ||
			 l->state == NBD_LISTENER_OPTION_SKIP || l->used > 0;

	l->is_eof = true;
	if (l->state > NBD_LISTENER_OPTION_SKIP)
		return; /* what is being answered gets its answer */
	if (is_midway || l->state == NBD_LISTENER_CLIENT_FLAGS)
		(void)snprintf(l->reason, sizeof(l->reason), "the client left in mid-sentence");
	listener_enter(l, NBD_LISTENER_ENDING);
	if (!listener_has_output(l))
		listener_enter(l, NBD_LISTENER_CLOSED);
}

/* ---- life ---- */

struct nbd_listener *nbd_listener_new(const struct nbd_server *server, struct nbd_host *host)
{
	struct nbd_listener *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->server = server;
	l->host = host;
	l->state = NBD_LISTENER_CLIENT_FLAGS;
	l->out_end = sizeof(struct nbd_greeting);
	*(struct nbd_greeting *)l->out = (struct nbd_greeting){
		.magic = to_be64(NBD_GREETING_MAGIC),
		.version = to_be64(NBD_OPTION_MAGIC),
		.flags = to_be16(OFFERED),
	};
	return l;
}

void nbd_listener_free(struct nbd_listener *l)
{
	if (!l)
		return;
	bool is_asked = l->state == NBD_LISTENER_OPENING || l->state == NBD_LISTENER_LISTING ||
			l->state == NBD_LISTENER_ANSWERING;

	if (is_asked && l->server->callbacks.cancel)
		l->server->callbacks.cancel(l);
	if (l->has_session)
		l->server->callbacks.close(l->host->context, l->session.handle);
	free(l);
}

void nbd_listener_shutdown(struct nbd_listener *l)
{
	l->is_shutdown = true;
}

struct nbd_session nbd_listener_take_session(struct nbd_listener *l)
{
	assert(l->state == NBD_LISTENER_DONE && l->has_session);
	l->has_session = false;
	return l->session;
}

struct nbd_device *nbd_listener_start_device(struct nbd_listener *l)
{
	assert(l->state == NBD_LISTENER_DONE && l->has_session);
	struct nbd_device *device = nbd_device_new(l->server, &l->session, l->host);

	if (device)
		l->has_session = false;
	return device;
}

enum nbd_listener_state nbd_listener_state(const struct nbd_listener *l)
{
	return l->state;
}

const char *nbd_listener_state_name(enum nbd_listener_state state)
{
	return state < NBD_LISTENER_STATE_COUNT ? states[state].name : "unknown";
}

const char *nbd_listener_reason(const struct nbd_listener *l)
{
	return l->reason;
}

void *nbd_listener_context(const struct nbd_listener *l)
{
	return l->host->context;
}

const struct nbd_server *nbd_listener_server(const struct nbd_listener *l)
{
	return l->server;
}

uint32_t nbd_listener_features(const struct nbd_listener *l)
{
	return l->features;
}
