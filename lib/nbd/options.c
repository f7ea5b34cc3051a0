/*
 * The options of the standard, and what EXPORT_NAME, ABORT, LIST, INFO and GO mean.
 *
 * Everything that can be wrong with an option as such (unknown, not now, too long, data where none
 * belongs) is refused by the listener from the row; a handler only reads what its data says.
 * Rows that answer ERR_UNSUP by themselves are options of the standard that are not served yet:
 * they are rows so that a client gets a text that says so.
 */
#include "lib/nbd/nbd_priv.h"

#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "lib/base/text.h"

#define ALL_PHASES (NBD_PHASE_NEWSTYLE | NBD_PHASE_FIXED)

/* ---- names ---- */

/* Keep a name that a client sent, closed by a zero. False if it cannot be one. */
static bool take_name(struct nbd_listener *l, const void *name, size_t size)
{
	if (!name || size > NBD_STRING_MAX || !text_is_clean(name, size))
		return false;
	memcpy(l->question.name, name, size);
	l->question.name[size] = '\0';
	return true;
}

static void open_export(struct nbd_listener *l)
{
	enum nbd_open_purpose purpose =
		l->question.number == NBD_OPT_INFO ? NBD_OPEN_INFO : NBD_OPEN_GO;

	listener_enter(l, NBD_LISTENER_OPENING);
	l->server->callbacks.open(l, l->question.name, purpose);
}

static void on_export_name(struct nbd_listener *l, const struct nbd_option *row,
			   struct bytes_reader data)
{
	size_t size = data.left;

	if (!take_name(l, bytes_take(&data, size), size)) {
		nbd_listener_refuse(l, NBD_REP_ERR_INVALID, "the export's name is not UTF-8");
		return;
	}
	open_export(l);
}

static void on_info_or_go(struct nbd_listener *l, const struct nbd_option *row,
			  struct bytes_reader data)
{
	be32 name_size;
	be16 count;

	bytes_read(&data, &name_size, sizeof(name_size));
	const void *name = bytes_take(&data, from_be32(name_size));
	bytes_read(&data, &count, sizeof(count));
	for (uint32_t i = 0; i < from_be16(count); i++) {
		be16 info;
		bytes_read(&data, &info, sizeof(info));
		/* What is not known is ignored, what is asked for twice is told once. */
		if (from_be16(info) < 32)
			l->question.infos |= BIT(from_be16(info));
	}
	if (!bytes_done(&data)) {
		nbd_listener_refuse(l, NBD_REP_ERR_INVALID,
				    "the lengths inside of the option do not add up");
		return;
	}
	if (from_be32(name_size) > NBD_STRING_MAX) {
		nbd_listener_refuse(l, NBD_REP_ERR_TOO_BIG, "the export's name is too long");
		return;
	}
	if (!take_name(l, name, from_be32(name_size))) {
		nbd_listener_refuse(l, NBD_REP_ERR_INVALID,
				    "the export's name is not UTF-8, or has control characters");
		return;
	}
	open_export(l);
}

/* ---- the answer of the backend ---- */

/* Flags that cannot be true together, or not without what was negotiated, are left out. */
static uint16_t offered_flags(uint16_t flags)
{
	flags |= NBD_FLAG_HAS_FLAGS;
	flags &= (uint16_t) ~(NBD_FLAG_SEND_DF | NBD_FLAG_SEND_RESIZE |
			      NBD_FLAG_BLOCK_STATUS_PAYLOAD);
	if (flags & NBD_FLAG_READ_ONLY)
		flags &= (uint16_t) ~(NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES |
				      NBD_FLAG_SEND_FAST_ZERO);
	if (!(flags & NBD_FLAG_SEND_WRITE_ZEROES))
		flags &= (uint16_t)~NBD_FLAG_SEND_FAST_ZERO;
	return flags;
}

static uint32_t preferred_of(const struct nbd_export *export)
{
	return export->block_preferred ? export->block_preferred : 4096;
}

int session_of_export(const struct nbd_server *server, const struct nbd_export *export,
		      uint32_t features, struct nbd_session *out)
{
	uint32_t minimum = export->block_minimum ? export->block_minimum : 1;
	uint32_t preferred = preferred_of(export);
	uint32_t maximum = server->limits.payload_max;

	if (export->block_maximum)
		maximum = min_of(maximum, export->block_maximum);
	if (!is_power_of_two(minimum) || minimum > 65536 || !is_power_of_two(preferred) ||
	    preferred < max_of(minimum, 512u) || export->size > INT64_MAX)
		return -EINVAL;
	maximum = (uint32_t)round_down(maximum, minimum);
	if (maximum < min_of((uint64_t)preferred, export->size) || maximum == 0)
		return -EINVAL;
	*out = (struct nbd_session){
		.size = export->size,
		.flags = offered_flags(export->flags),
		.features = features,
		.block_minimum = minimum,
		.block_maximum = maximum,
		.handle = export->handle,
	};
	return 0;
}

static void tell_string(struct nbd_listener *l, enum nbd_info_number info, const char *string)
{
	uint8_t data[sizeof(be16) + NBD_STRING_MAX];
	size_t size = strlen(string);
	be16 type = to_be16(info);

	if (size > NBD_STRING_MAX || !text_is_clean(string, size))
		return;
	memcpy(data, &type, sizeof(type));
	memcpy(data + sizeof(type), string, size);
	nbd_listener_reply(l, NBD_REP_INFO, data, sizeof(type) + size);
}

static void tell_export(struct nbd_listener *l, const struct nbd_session *session,
			const struct nbd_export *export)
{
	const struct nbd_question *q = &l->question;
	struct nbd_info_export info = {
		.type = to_be16(NBD_INFO_EXPORT),
		.size = to_be64(session->size),
		.flags = to_be16(session->flags),
	};
	/* Always, for the maximum is not the default (proto.md, Block size constraints). */
	struct nbd_info_block_size sizes = {
		.type = to_be16(NBD_INFO_BLOCK_SIZE),
		.minimum = to_be32(session->block_minimum),
		.preferred = to_be32(preferred_of(export)),
		.maximum = to_be32(session->block_maximum),
	};

	nbd_listener_reply(l, NBD_REP_INFO, &info, sizeof(info));
	nbd_listener_reply(l, NBD_REP_INFO, &sizes, sizeof(sizes));
	if (q->infos & BIT(NBD_INFO_NAME))
		tell_string(l, NBD_INFO_NAME, export->name ? export->name : q->name);
	if ((q->infos & BIT(NBD_INFO_DESCRIPTION)) && export->description)
		tell_string(l, NBD_INFO_DESCRIPTION, export->description);
}

static void tell_old_style(struct nbd_listener *l, const struct nbd_session *session)
{
	size_t zeroes = l->features & NBD_FEATURE_NO_ZEROES ? 0 : NBD_EXPORT_ZEROES;
	uint8_t *at = listener_reserve(l, sizeof(struct nbd_export_reply) + zeroes);

	*(struct nbd_export_reply *)at = (struct nbd_export_reply){
		.size = to_be64(session->size),
		.flags = to_be16(session->flags),
	};
	memset(at + sizeof(struct nbd_export_reply), 0, zeroes);
}

void nbd_listener_open_done(struct nbd_listener *l, int rc, const struct nbd_export *export,
			    const char *text)
{
	struct nbd_session session;
	void *handle = rc == 0 ? export->handle : NULL;

	assert(l->state == NBD_LISTENER_OPENING);
	if (rc != 0) {
		nbd_listener_refuse(l, nbd_refusal_of(rc), "%s", text ? text : err_text(rc));
		return;
	}
	rc = session_of_export(l->server, export, l->features, &session);
	if (rc < 0) {
		l->server->callbacks.close(l->host->context, handle);
		nbd_listener_refuse(l, NBD_REP_ERR_UNKNOWN,
				    "the export has a size or block sizes that NBD cannot express");
		return;
	}
	if (l->question.number == NBD_OPT_EXPORT_NAME)
		tell_old_style(l, &session);
	else
		tell_export(l, &session, export);
	if (l->question.number == NBD_OPT_INFO) {
		l->server->callbacks.close(l->host->context, handle);
		nbd_listener_ack(l, 0);
		return;
	}
	if (l->question.number == NBD_OPT_GO)
		nbd_listener_reply(l, NBD_REP_ACK, NULL, 0);
	l->session = session;
	l->has_session = true;
	listener_enter(l, NBD_LISTENER_DONE);
}

/* ---- ABORT and LIST ---- */

static void on_abort(struct nbd_listener *l, const struct nbd_option *row, struct bytes_reader data)
{
	nbd_listener_reply(l, NBD_REP_ACK, NULL, 0);
	listener_enter(l, NBD_LISTENER_ENDING);
}

static void on_list(struct nbd_listener *l, const struct nbd_option *row, struct bytes_reader data)
{
	listener_enter(l, NBD_LISTENER_LISTING);
	l->server->callbacks.list(l, &l->question.cursor);
}

int nbd_listener_list_add(struct nbd_listener *l, const char *name, const char *description)
{
	size_t name_size = strlen(name), description_size = description ? strlen(description) : 0;
	size_t reserve = sizeof(struct nbd_option_reply) + NBD_TEXT_MAX; /* for the last word */
	struct nbd_question *q = &l->question;

	assert(l->state == NBD_LISTENER_LISTING);
	if (name_size > NBD_STRING_MAX || !text_is_clean(name, name_size) ||
	    description_size > NBD_STRING_MAX || !text_is_clean(description, description_size))
		return -EINVAL;
	if (q->listed == l->server->limits.list_max) {
		q->is_too_long = true;
		return -E2BIG;
	}
	size_t size = sizeof(be32) + name_size + description_size;
	if (listener_room(l) < sizeof(struct nbd_option_reply) + size + reserve) {
		q->is_waiting_for_room = true;
		return -EAGAIN;
	}
	uint8_t data[sizeof(be32) + 2 * NBD_STRING_MAX];
	be32 prefix = to_be32((uint32_t)name_size);
	memcpy(data, &prefix, sizeof(prefix));
	memcpy(data + sizeof(prefix), name, name_size);
	if (description_size > 0)
		memcpy(data + sizeof(prefix) + name_size, description, description_size);
	nbd_listener_reply(l, NBD_REP_SERVER, data, size);
	q->listed++;
	return 0;
}

void nbd_listener_list_done(struct nbd_listener *l, int rc, const char *text)
{
	assert(l->state == NBD_LISTENER_LISTING);
	if (rc == 0 && l->question.is_too_long) {
		rc = -E2BIG;
		text = NULL;
	}
	if (rc == 0)
		nbd_listener_ack(l, 0);
	else if (rc == -E2BIG && !text)
		nbd_listener_refuse(l, NBD_REP_ERR_TOO_BIG, "only the first %u exports are listed",
				    l->server->limits.list_max);
	else
		nbd_listener_refuse(l, nbd_refusal_of(rc), "%s", text ? text : err_text(rc));
}

/* ---- the table ---- */

#define NOT_SERVED(option_number, option_name, why)                                              \
	{                                                                                        \
		.number = option_number, .name = option_name, .length_max = NBD_OPTION_DATA_MAX, \
		.phases = NBD_PHASE_FIXED, .traits = NBD_OPTION_IGNORES_DATA,                    \
		.reply_type = NBD_REP_ERR_UNSUP, .text = why,                                    \
	}

const struct nbd_option nbd_standard_options[] = {
	{
		.number = NBD_OPT_EXPORT_NAME,
		.name = "EXPORT_NAME",
		.length_max = NBD_STRING_MAX,
		.phases = ALL_PHASES,
		.traits = NBD_OPTION_NO_REPLY,
		.handle = on_export_name,
	},
	{
		.number = NBD_OPT_ABORT,
		.name = "ABORT",
		.phases = NBD_PHASE_FIXED,
		.traits = NBD_OPTION_IGNORES_DATA,
		.handle = on_abort,
	},
	{
		.number = NBD_OPT_LIST,
		.name = "LIST",
		.phases = NBD_PHASE_FIXED,
		.handle = on_list,
	},
	{
		.number = NBD_OPT_INFO,
		.name = "INFO",
		.length_min = sizeof(be32) + sizeof(be16),
		.length_max = NBD_OPTION_DATA_MAX,
		.phases = NBD_PHASE_FIXED,
		.handle = on_info_or_go,
	},
	{
		.number = NBD_OPT_GO,
		.name = "GO",
		.length_min = sizeof(be32) + sizeof(be16),
		.length_max = NBD_OPTION_DATA_MAX,
		.phases = NBD_PHASE_FIXED,
		.handle = on_info_or_go,
	},
	NOT_SERVED(NBD_OPT_PEEK_EXPORT, "PEEK_EXPORT", "PEEK_EXPORT was withdrawn; use INFO"),
	NOT_SERVED(NBD_OPT_STARTTLS, "STARTTLS", "this server does not offer TLS"),
	NOT_SERVED(NBD_OPT_STRUCTURED_REPLY, "STRUCTURED_REPLY",
		   "this server does not send structured replies"),
	NOT_SERVED(NBD_OPT_LIST_META_CONTEXT, "LIST_META_CONTEXT",
		   "this server has no metadata contexts"),
	NOT_SERVED(NBD_OPT_SET_META_CONTEXT, "SET_META_CONTEXT",
		   "this server has no metadata contexts"),
	NOT_SERVED(NBD_OPT_EXTENDED_HEADERS, "EXTENDED_HEADERS",
		   "this server does not send extended headers"),
	{0},
};
