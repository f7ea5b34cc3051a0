/*
 * The client's negotiation (proto.md, Fixed newstyle negotiation).
 *
 *   GREETING --newstyle--> EXPORT_REPLY ------------------------------------+
 *      |                       ^                                            v
 *      |                       | GO is not known there                    DONE
 *      +--fixed---> REPLY_HEADER <--> REPLY_DATA --ACK of GO--------------->^
 *                                        +--ACK of LIST, INFO--> LEAVING ---+
 *
 *   any --refused, broken protocol, end of stream--> FAILED
 *
 * One option is outstanding at a time: LIST, INFO or GO, then ABORT where we do not stay. A server
 * without GO gets EXPORT_NAME, as proto.md asks of clients.
 */
#include "lib/nbd/nbd_priv.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "lib/base/text.h"

#define DATA_MAX  (2 * NBD_STRING_MAX + 64u) /* longer replies are kept as far as this */
#define REPLY_MAX (1u << 20)		     /* and refused beyond that */
#define LIST_MAX  1000000u

struct nbd_connector {
	struct nbd_host *host;
	enum nbd_connector_state state;
	enum nbd_goal goal;
	void (*listed)(void *context, const char *name, const char *description);
	uint32_t option; /* outstanding */
	uint32_t features;
	uint32_t reply_type, reply_size;
	uint32_t listed_count;
	bool has_export;
	struct error error;
	struct nbd_remote remote;
	uint32_t used;
	uint8_t header[sizeof(struct nbd_option_reply)];
	uint8_t data[DATA_MAX];
	uint32_t out_start, out_end;
	uint8_t out[NBD_STRING_MAX + 256];
};

static size_t take_greeting(struct nbd_connector *c, const uint8_t *data, size_t size);
static size_t take_reply(struct nbd_connector *c, const uint8_t *data, size_t size);
static size_t take_data(struct nbd_connector *c, const uint8_t *data, size_t size);
static size_t take_export(struct nbd_connector *c, const uint8_t *data, size_t size);
static size_t drop(struct nbd_connector *c, const uint8_t *data, size_t size);

static const struct {
	const char *name;
	uint8_t next;
	size_t (*take)(struct nbd_connector *c, const uint8_t *data, size_t size);
} states[NBD_CONNECTOR_STATE_COUNT] = {
#define STATE_TEXT(state, text) [NBD_CONNECTOR_##state].name = text,
	NBD_CONNECTOR_STATES(STATE_TEXT)
#undef STATE_TEXT
#define STATE(state, function, ...) \
	[NBD_CONNECTOR_##state].take = function, [NBD_CONNECTOR_##state].next = __VA_ARGS__
#define TO(state) BIT(NBD_CONNECTOR_##state)
		STATE(GREETING, take_greeting, TO(REPLY_HEADER) | TO(EXPORT_REPLY) | TO(FAILED)),
	STATE(REPLY_HEADER, take_reply, TO(REPLY_DATA) | TO(FAILED)),
	STATE(REPLY_DATA, take_data,
	      TO(REPLY_HEADER) | TO(EXPORT_REPLY) | TO(LEAVING) | TO(DONE) | TO(FAILED)),
	STATE(EXPORT_REPLY, take_export, TO(DONE) | TO(FAILED)),
	STATE(LEAVING, drop, TO(DONE)),
	STATE(DONE, NULL, 0),
	STATE(FAILED, drop, 0),
#undef STATE
#undef TO
};

/* The only place that writes connector->state. */
static void enter(struct nbd_connector *c, enum nbd_connector_state next)
{
	assert(states[c->state].next & BIT(next));
	c->state = next;
	c->used = 0;
	c->host->wake(c->host);
}

static void fail(struct nbd_connector *c, int rc, const char *what)
{
	(void)error_set(&c->error, rc, "%s", what);
	enter(c, NBD_CONNECTOR_FAILED);
}

/* ---- output ---- */

static void say(struct nbd_connector *c, const void *data, size_t size)
{
	assert(size <= sizeof(c->out) - c->out_end);
	if (size > 0)
		memcpy(c->out + c->out_end, data, size);
	c->out_end += (uint32_t)size;
	c->host->wake(c->host);
}

static void say_option(struct nbd_connector *c, uint32_t option, const void *data, size_t size)
{
	struct nbd_option_header header = {
		.magic = to_be64(NBD_OPTION_MAGIC),
		.option = to_be32(option),
		.length = to_be32((uint32_t)size),
	};

	c->option = option;
	say(c, &header, sizeof(header));
	say(c, data, size);
}

static void say_info_or_go(struct nbd_connector *c)
{
	static const uint16_t infos[] = {NBD_INFO_NAME, NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE};
	uint8_t data[NBD_STRING_MAX + 32];
	struct bytes_writer writer = bytes_writer_of(data, sizeof(data));
	be32 name_size = to_be32((uint32_t)strlen(c->remote.name));
	be16 count = to_be16(ARRAY_COUNT(infos));

	bytes_write(&writer, &name_size, sizeof(name_size));
	bytes_write(&writer, c->remote.name, strlen(c->remote.name));
	bytes_write(&writer, &count, sizeof(count));
	for (size_t i = 0; i < ARRAY_COUNT(infos); i++) {
		be16 info = to_be16(infos[i]);
		bytes_write(&writer, &info, sizeof(info));
	}
	assert(!writer.failed);
	say_option(c, c->goal == NBD_GOAL_INFO ? NBD_OPT_INFO : NBD_OPT_GO, data, writer.used);
}

static void say_export_name(struct nbd_connector *c)
{
	say_option(c, NBD_OPT_EXPORT_NAME, c->remote.name, strlen(c->remote.name));
	enter(c, NBD_CONNECTOR_EXPORT_REPLY);
}

unsigned nbd_connector_output(struct nbd_connector *c, struct iovec *iov, unsigned max)
{
	if (c->out_start == c->out_end || max == 0 || c->state == NBD_CONNECTOR_FAILED)
		return 0;
	iov[0].iov_base = c->out + c->out_start;
	iov[0].iov_len = c->out_end - c->out_start;
	return 1;
}

void nbd_connector_sent(struct nbd_connector *c, size_t bytes)
{
	assert(bytes <= c->out_end - c->out_start);
	c->out_start += (uint32_t)bytes;
	if (c->out_start < c->out_end)
		return;
	c->out_start = c->out_end = 0;
	if (c->state == NBD_CONNECTOR_LEAVING)
		enter(c, NBD_CONNECTOR_DONE);
}

/* ---- input ---- */

/* Collect @want bytes in @to, of which @keep fit. Returns what was taken. */
static size_t collect(struct nbd_connector *c, uint8_t *to, size_t keep, size_t want,
		      const uint8_t *data, size_t size)
{
	size_t n = min_of(size, want - c->used);

	if (c->used < keep)
		memcpy(to + c->used, data, min_of(n, keep - c->used));
	c->used += (uint32_t)n;
	return n;
}

static size_t drop(struct nbd_connector *c, const uint8_t *data, size_t size)
{
	return size;
}

static void greet(struct nbd_connector *c, uint32_t offered)
{
	struct nbd_client_flags flags;

	c->features = offered & (NBD_HANDSHAKE_FIXED_NEWSTYLE | NBD_HANDSHAKE_NO_ZEROES);
	flags.flags = to_be32(c->features);
	say(c, &flags, sizeof(flags));
	if (c->features & NBD_FEATURE_FIXED) {
		if (c->goal == NBD_GOAL_LIST)
			say_option(c, NBD_OPT_LIST, NULL, 0);
		else
			say_info_or_go(c);
		enter(c, NBD_CONNECTOR_REPLY_HEADER);
	} else if (c->goal == NBD_GOAL_GO) {
		say_export_name(c);
	} else {
		fail(c, -EOPNOTSUPP, "the server only knows how to open an export");
	}
}

static size_t take_greeting(struct nbd_connector *c, const uint8_t *data, size_t size)
{
	size_t n =
		collect(c, c->header, sizeof(c->header), sizeof(struct nbd_greeting), data, size);
	const struct nbd_greeting *greeting = (const void *)c->header;

	if (c->used < sizeof(*greeting))
		return n;
	if (from_be64(greeting->magic) != NBD_GREETING_MAGIC)
		fail(c, -E_PROTOCOL, "this is not an NBD server");
	else if (from_be64(greeting->version) == NBD_OLDSTYLE_MAGIC)
		fail(c, -E_PROTOCOL, "the server speaks oldstyle NBD, which is not supported");
	else if (from_be64(greeting->version) != NBD_OPTION_MAGIC)
		fail(c, -E_PROTOCOL, "the server speaks an unknown style of NBD");
	else
		greet(c, from_be16(greeting->flags));
	return n;
}

static size_t take_export(struct nbd_connector *c, const uint8_t *data, size_t size)
{
	size_t zeroes = c->features & NBD_FEATURE_NO_ZEROES ? 0 : NBD_EXPORT_ZEROES;
	size_t n = collect(c, c->data, sizeof(c->data), sizeof(struct nbd_export_reply) + zeroes,
			   data, size);
	const struct nbd_export_reply *reply = (const void *)c->data;

	if (c->used < sizeof(*reply) + zeroes)
		return n;
	c->remote.size = from_be64(reply->size);
	c->remote.flags = from_be16(reply->flags);
	if (c->remote.size > INT64_MAX)
		fail(c, -E_PROTOCOL, "the export has an impossible size");
	else
		enter(c, NBD_CONNECTOR_DONE);
	return n;
}

/* ---- replies ---- */

static bool take_string(char out[NBD_STRING_MAX + 1], const void *data, size_t size)
{
	if (!data || size > NBD_STRING_MAX || !text_is_clean(data, size))
		return false;
	memcpy(out, data, size);
	out[size] = '\0';
	return true;
}

static bool on_listed(struct nbd_connector *c, struct bytes_reader data)
{
	be32 name_size;

	bytes_read(&data, &name_size, sizeof(name_size));
	const void *name = bytes_take(&data, from_be32(name_size));
	size_t rest = data.left;
	if (data.failed || c->goal != NBD_GOAL_LIST || ++c->listed_count > LIST_MAX)
		return false;
	/* A name that is not text cannot be asked for: leave it out. */
	if (take_string(c->remote.name, name, from_be32(name_size)) && c->listed) {
		if (!take_string(c->remote.description, bytes_take(&data, rest), rest))
			c->remote.description[0] = '\0';
		c->listed(c->host->context, c->remote.name, c->remote.description);
	}
	return true;
}

static bool on_block_sizes(struct nbd_connector *c, const struct nbd_info_block_size *info)
{
	struct nbd_remote *remote = &c->remote;

	remote->has_block_sizes = true;
	remote->block_minimum = from_be32(info->minimum);
	remote->block_preferred = from_be32(info->preferred);
	remote->block_maximum = from_be32(info->maximum);
	return is_power_of_two(remote->block_minimum) && is_power_of_two(remote->block_preferred) &&
	       remote->block_maximum >= remote->block_minimum;
}

static bool on_info(struct nbd_connector *c, struct bytes_reader data)
{
	const void *start = data.data;
	size_t size = data.left;
	be16 type;

	bytes_read(&data, &type, sizeof(type));
	if (data.failed || c->goal == NBD_GOAL_LIST)
		return false;
	uint16_t info = from_be16(type);
	if (info == NBD_INFO_EXPORT) {
		const struct nbd_info_export *export = start;
		if (size != sizeof(*export) || from_be64(export->size) > INT64_MAX)
			return false;
		c->has_export = true;
		c->remote.size = from_be64(export->size);
		c->remote.flags = from_be16(export->flags);
	} else if (info == NBD_INFO_BLOCK_SIZE) {
		return size == sizeof(struct nbd_info_block_size) && on_block_sizes(c, start);
	} else if (info == NBD_INFO_NAME) {
		return take_string(c->remote.name, data.data, data.left);
	} else if (info == NBD_INFO_DESCRIPTION) {
		return take_string(c->remote.description, data.data, data.left);
	}
	return true; /* of other kinds nothing is wanted */
}

static void on_ack(struct nbd_connector *c)
{
	if (c->goal != NBD_GOAL_LIST && !c->has_export) {
		fail(c, -E_PROTOCOL, "the server did not say how large the export is");
	} else if (c->goal == NBD_GOAL_GO) {
		enter(c, NBD_CONNECTOR_DONE);
	} else {
		say_option(c, NBD_OPT_ABORT, NULL, 0);
		enter(c, NBD_CONNECTOR_LEAVING);
	}
}

static const struct {
	uint32_t type;
	int rc;
	const char *text; /* if the server gives none */
} refusals[] = {
	{NBD_REP_ERR_UNSUP, -EOPNOTSUPP, "the server does not know this option"},
	{NBD_REP_ERR_POLICY, -EPERM, "the server does not allow it"},
	{NBD_REP_ERR_INVALID, -EINVAL, "the server finds the request invalid"},
	{NBD_REP_ERR_PLATFORM, -EOPNOTSUPP, "the server's platform does not support it"},
	{NBD_REP_ERR_TLS_REQD, -EPERM, "the server demands TLS"},
	{NBD_REP_ERR_UNKNOWN, -E_NOT_FOUND, "the server has no such export"},
	{NBD_REP_ERR_SHUTDOWN, -E_SHUTDOWN, "the server is shutting down"},
	{NBD_REP_ERR_BLOCK_SIZE_REQD, -EINVAL, "the server demands that block sizes are obeyed"},
	{NBD_REP_ERR_TOO_BIG, -E2BIG, "the request or its answer is too large"},
};

static void on_refused(struct nbd_connector *c, struct bytes_reader data)
{
	int rc = -E_PROTOCOL;
	const char *text = "the server refused for an unknown reason";

	if (c->reply_type == NBD_REP_ERR_UNSUP && c->option == NBD_OPT_GO) {
		say_export_name(c);
		return;
	}
	for (size_t i = 0; i < ARRAY_COUNT(refusals); i++)
		if (refusals[i].type == c->reply_type) {
			rc = refusals[i].rc;
			text = refusals[i].text;
		}
	c->error.code = rc;
	struct text out = text_of(c->error.text, sizeof(c->error.text));
	text_append(&out, "%s", text);
	if (data.left > 0 && text_is_clean((const char *)data.data, data.left))
		text_append(&out, ": %.*s", (int)data.left, (const char *)data.data);
	enter(c, NBD_CONNECTOR_FAILED);
}

static void on_reply(struct nbd_connector *c)
{
	uint32_t size = min_of(c->reply_size, DATA_MAX);
	struct bytes_reader data = bytes_reader_of(c->data, size);
	bool is_good = false;

	if (c->reply_type & NBD_REP_ERROR) {
		on_refused(c, data);
		return;
	}
	if (c->reply_type == NBD_REP_ACK && size == 0) {
		on_ack(c);
		return;
	}
	if (c->reply_type == NBD_REP_SERVER)
		is_good = on_listed(c, data);
	else if (c->reply_type == NBD_REP_INFO)
		is_good = on_info(c, data);
	if (is_good)
		enter(c, NBD_CONNECTOR_REPLY_HEADER);
	else
		fail(c, -E_PROTOCOL, "the server's reply cannot be understood");
}

static size_t take_reply(struct nbd_connector *c, const uint8_t *data, size_t size)
{
	size_t n = collect(c, c->header, sizeof(c->header), sizeof(c->header), data, size);
	const struct nbd_option_reply *reply = (const void *)c->header;

	if (c->used < sizeof(*reply))
		return n;
	c->reply_type = from_be32(reply->type);
	c->reply_size = from_be32(reply->length);
	if (from_be64(reply->magic) != NBD_OPTION_REPLY_MAGIC ||
	    from_be32(reply->option) != c->option || c->reply_size > REPLY_MAX) {
		fail(c, -E_PROTOCOL, "the server's reply cannot be understood");
		return n;
	}
	enter(c, NBD_CONNECTOR_REPLY_DATA);
	if (c->reply_size == 0)
		on_reply(c);
	return n;
}

static size_t take_data(struct nbd_connector *c, const uint8_t *data, size_t size)
{
	size_t n = collect(c, c->data, sizeof(c->data), c->reply_size, data, size);

	if (c->used == c->reply_size)
		on_reply(c);
	return n;
}

size_t nbd_connector_feed(struct nbd_connector *c, const void *data, size_t size)
{
	const uint8_t *at = data;
	size_t left = size;

	while (left > 0 && states[c->state].take) {
		size_t n = states[c->state].take(c, at, left);
		at += n;
		left -= n;
	}
	return size - left;
}

void nbd_connector_eof(struct nbd_connector *c)
{
	if (c->state == NBD_CONNECTOR_LEAVING)
		enter(c, NBD_CONNECTOR_DONE);
	else if (c->state == NBD_CONNECTOR_EXPORT_REPLY)
		fail(c, -E_NOT_FOUND, "the server ended the connection: is there such an export?");
	else if (c->state < NBD_CONNECTOR_LEAVING)
		fail(c, -E_CLOSED, "the server ended the connection");
}

/* ---- life ---- */

struct nbd_connector *nbd_connector_new(const struct nbd_connector_options *options,
					struct nbd_host *host)
{
	struct nbd_connector *c = calloc(1, sizeof(*c));
	const char *name = options->name ? options->name : "";

	if (!c)
		return NULL;
	c->host = host;
	c->goal = options->goal;
	c->listed = options->listed;
	c->state = NBD_CONNECTOR_GREETING;
	c->remote.block_minimum = 1;
	c->remote.block_preferred = 4096;
	c->remote.block_maximum = 32 << 20;
	if (!take_string(c->remote.name, name, strlen(name)))
		fail(c, -EINVAL, "the name of an export is UTF-8, of 4096 bytes at most");
	return c;
}

void nbd_connector_free(struct nbd_connector *c)
{
	free(c);
}

enum nbd_connector_state nbd_connector_state(const struct nbd_connector *c)
{
	return c->state;
}

const char *nbd_connector_state_name(enum nbd_connector_state state)
{
	return state < NBD_CONNECTOR_STATE_COUNT ? states[state].name : "unknown";
}

int nbd_connector_result(const struct nbd_connector *c, struct error *err)
{
	if (err && c->error.code)
		*err = c->error;
	return c->error.code;
}

const struct nbd_remote *nbd_connector_remote(const struct nbd_connector *c)
{
	return &c->remote;
}
