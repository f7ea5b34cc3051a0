/*
 * One command of the log: is it whole, is it new, may it, then what it does.
 *
 *   bytes --parse--> row of the table --proposer is known, command is new--> apply function
 *     |                                   |                                      |
 *     `-- garbage, unknown ---------------`-- not registered, repeated ----------`-- refused
 *                          the map differs in its index only
 *
 * The table below is the answer to "what if this comes late, or twice" for every command.
 * What applies to all of them: (start, sequence) of a command that was applied, or
 * refused, is remembered with its proposer, and a proposer whose start has ended can
 * change nothing any more.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/assert.h"
#include "lib/base/crc32c.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "sheep/cluster/command.h"

#define ROW(NAME, body, row, rows, need, fn, when, ...)   \
	[LOG_##NAME] = {.name = #NAME,                    \
			.body_size = sizeof(struct body), \
			.row_size = (row),                \
			.rows_max = (rows),               \
			.needs = (need),                  \
			.apply = (fn),                    \
			.void_when = (when),              \
			##__VA_ARGS__}
#define RESERVED(body)                                  \
	.reserved_at = offsetof(struct body, reserved), \
	.reserved_size = sizeof(((struct body *)0)->reserved)
#define FLAGS(body, known) .flags_at = offsetof(struct body, flags), .flags_known = (known)
#define BOTH		   (NEEDS_NODE | NEEDS_FORMAT)

static const struct command_row command_rows[LOG_TYPE_END] = {
	ROW(FORMAT, log_format, 0, 0, NEEDS_NODE, apply_format, "the cluster is formatted",
	    RESERVED(log_format), FLAGS(log_format, LOG_FORMAT_FORCE)),
	ROW(REGISTER, log_register, sizeof(struct log_register_store), CLUSTER_NODE_STORES_MAX, 0,
	    apply_register,
	    "the node is registered in this incarnation or a later one (R2 judges each store by its "
	    "own incarnation and random number)",
	    FLAGS(log_register, LOG_REGISTER_ALONE)),
	ROW(DEAD, log_node_incarnation, 0, 0, NEEDS_NODE, apply_dead,
	    "the node is not up in just this incarnation (L5), and nobody is fenced from it",
	    RESERVED(log_node_incarnation)),
	ROW(LEAVE, log_node_incarnation, 0, 0, NEEDS_NODE, apply_leave,
	    "the node is not up in just this incarnation, or another one says it",
	    RESERVED(log_node_incarnation)),
	ROW(STORE_FAILED, log_store_failed, 0, 0, NEEDS_NODE, apply_store_failed,
	    "the store is not up in just this incarnation", RESERVED(log_store_failed)),
	ROW(STORE_WEIGHT, log_store_weight, 0, 0, BOTH, apply_store_weight, "it is so already"),
	ROW(NODE_DRAIN, log_node, 0, 0, BOTH, apply_node_drain, "it is so already",
	    RESERVED(log_node)),
	ROW(NODE_UNDRAIN, log_node, 0, 0, BOTH, apply_node_undrain, "it is so already",
	    RESERVED(log_node)),
	ROW(NODE_REMOVE, log_node, 0, 0, NEEDS_NODE, apply_node_remove,
	    "there is no such node, it is up, or a PG lists one of its stores", RESERVED(log_node)),
	ROW(SETTING, log_setting, 0, 0, BOTH, apply_setting, "it is so already"),
	ROW(POLICY, log_policy, 0, 0, BOTH, apply_policy, "it is so already", RESERVED(log_policy)),
	ROW(LEVEL, log_set_level, 0, 0, BOTH, apply_level,
	    "the level is not above the present one, or a node cannot", RESERVED(log_set_level)),
	ROW(SHUTDOWN, log_shutdown, 0, 0, NEEDS_NODE, apply_shutdown,
	    "its proposer has been started again since", RESERVED(log_shutdown)),
	ROW(RETARGET, log_retarget, sizeof(struct log_retarget_row), 1300, BOTH, apply_retarget,
	    "row by row: the PG's target_index is another one", RESERVED(log_retarget)),
	ROW(PG_SHRINK, log_pg_shrink, sizeof(le32), LOG_SEATS_MAX, BOTH, apply_pg_shrink,
	    "the epoch is another one, or the floor would be broken (S1)",
	    FLAGS(log_pg_shrink, LOG_SHRINK_DIVERGED)),
	ROW(PG_TAKEOVER, log_pg_takeover, sizeof(struct log_pg_store), CLUSTER_TAKEOVERS_MAX, BOTH,
	    apply_pg_takeover,
	    "row by row: the epoch is another one, or the store is not in sync (T1)",
	    RESERVED(log_pg_takeover)),
	ROW(PG_PRIMARY, log_pg_store, 0, 0, BOTH, apply_pg_primary,
	    "the epoch is another one, or the store is not in sync"),
	ROW(PG_JOIN, log_pg_join, 0, 0, BOTH, apply_pg_join,
	    "the store's incarnation is another one, it is in sync or joining (J1)"),
	ROW(PG_LEAVE_JOIN, log_pg_leave_join, 0, 0, BOTH, apply_pg_leave_join,
	    "that join (by its log index) has ended"),
	ROW(PG_EXPAND, log_pg_expand, 0, 0, BOTH, apply_pg_expand,
	    "the epoch, the join's index or the store's incarnation is another one (J1)",
	    RESERVED(log_pg_expand)),
	ROW(PG_HOLES, log_pg_holes, 0, 0, BOTH, apply_pg_holes,
	    "the epoch or the store's incarnation is another one, or it is so already",
	    RESERVED(log_pg_holes)),
	ROW(PG_ELECT, log_pg_store, 0, 0, BOTH, apply_pg_elect,
	    "the epoch is another one, or an unmarked member is up (R4)"),
	ROW(PG_FORCE, log_pg_store, 0, 0, BOTH, apply_pg_force,
	    "the epoch is another one, or the PG serves"),
	ROW(VOLUME_CREATE, log_volume_create, sizeof(struct log_property),
	    CLUSTER_VOLUME_PROPERTIES, BOTH, apply_volume_create, "the name is taken",
	    RESERVED(log_volume_create)),
	ROW(VOLUME_DELETE, log_volume_delete, 0, 0, BOTH, apply_volume_delete,
	    "there is no such volume any more (ids are never reused), or it is open"),
	ROW(VOLUME_RENAME, log_volume_rename, 0, 0, BOTH, apply_volume_rename,
	    "the volume has another name than the proposer saw, or the new one is taken"),
	ROW(VOLUME_RESIZE, log_volume_resize, 0, 0, BOTH, apply_volume_resize,
	    "the volume has another size than the proposer saw", RESERVED(log_volume_resize),
	    FLAGS(log_volume_resize, LOG_RESIZE_SHRINK)),
	ROW(VOLUME_SET, log_volume_set, 0, 0, BOTH, apply_volume_set,
	    "there is no such volume any more"),
	ROW(VOLUME_OPEN, log_volume_open, 0, 0, BOTH, apply_volume_open,
	    "the session has ended, or there is no such volume", RESERVED(log_volume_open),
	    FLAGS(log_volume_open, LOG_OPEN_READ_ONLY)),
	ROW(VOLUME_CLOSE, log_volume_open, 0, 0, BOTH, apply_volume_close,
	    "the session does not have it open", RESERVED(log_volume_open),
	    FLAGS(log_volume_open, LOG_OPEN_READ_ONLY)),
	ROW(VOLUME_OWN, log_volume_own, 0, 0, BOTH, apply_volume_own,
	    "the generation is another one, the session has ended, or the volume is shared (O1)"),
};

const struct command_row *command_row(uint32_t type)
{
	return type < LOG_TYPE_END && command_rows[type].name ? &command_rows[type] : NULL;
}

const char *cluster_command_name(enum log_type type)
{
	const struct command_row *row = command_row(type);

	return row ? row->name : "unknown";
}

/* ---- is it whole? ---- */

/* The CRC of the whole command, its own field taken as zero. */
static uint32_t command_crc(const struct log_command *header, size_t size)
{
	static const uint8_t zero[sizeof(header->crc)];
	const uint8_t *bytes = (const void *)header;
	size_t at = offsetof(struct log_command, crc), after = at + sizeof(zero);
	uint32_t crc = crc32c(bytes, at);

	crc = crc32c_extend(crc, zero, sizeof(zero));
	return crc32c_extend(crc, bytes + after, size - after);
}

/* Fields that mean nothing yet must say nothing, so that they can mean something later. */
static bool is_plain(const struct command_row *row, const uint8_t *body)
{
	le32 flags = to_le32(0);

	for (uint32_t i = 0; i < row->reserved_size; i++)
		if (body[row->reserved_at + i])
			return false;
	memcpy(&flags, body + row->flags_at, row->flags_known ? sizeof(flags) : 0);
	return !row->flags_known || !(from_le32(flags) & ~row->flags_known);
}

enum proto_status command_parse(const void *command, size_t size, struct log_body *out,
				struct error *err)
{
	const struct log_command *header = command;
	const struct command_row *row;
	uint32_t rows;

	if (size < sizeof(*header) || size > LOG_COMMAND_MAX ||
	    from_le32(header->magic) != LOG_COMMAND_MAGIC || from_le32(header->size) != size ||
	    from_le32(header->crc) != command_crc(header, size)) {
		(void)error_set(err, -E_PROTOCOL, "%zu bytes that are no command", size);
		return PROTO_STATUS_PROTOCOL;
	}
	row = command_row(from_le16(header->type));
	if (!row || from_le16(header->version) != LOG_COMMAND_VERSION) {
		(void)error_set(err, -E_PROTOCOL, "command %u of version %u is not known",
				from_le16(header->type), from_le16(header->version));
		return PROTO_STATUS_UNSUPPORTED;
	}
	rows = from_le32(header->row_count);
	if (rows > row->rows_max ||
	    size != sizeof(*header) + row->body_size + (size_t)rows * row->row_size) {
		(void)error_set(err, -E_PROTOCOL, "%s of %zu bytes with %u rows", row->name, size,
				rows);
		return PROTO_STATUS_PROTOCOL;
	}
	if (!is_plain(row, (const uint8_t *)(header + 1))) {
		(void)error_set(err, -E_PROTOCOL, "%s with unknown flags or reserved fields set",
				row->name);
		return PROTO_STATUS_UNSUPPORTED;
	}
	*out = (struct log_body){
		.header = header,
		.body = header + 1,
		.rows = (const uint8_t *)(header + 1) + row->body_size,
		.row_count = rows,
	};
	return PROTO_STATUS_OK;
}

enum proto_status cluster_command_check(const void *command, size_t size, struct error *err)
{
	struct log_body log;

	return command_parse(command, size, &log, err);
}

uint64_t cluster_command_sequence(const void *command, size_t size, uint64_t start)
{
	const struct log_command *header = command;
	struct log_body log;

	if (command_parse(command, size, &log, NULL) != PROTO_STATUS_OK)
		return 0;
	return from_le64(header->start) == start ? from_le64(header->sequence) : 0;
}

bool wire_text_is_valid(const char *text, size_t size, bool may_be_empty)
{
	size_t length = strnlen(text, size);

	if (length == size || (!length && !may_be_empty) || !text_is_clean(text, length))
		return false;
	for (size_t i = length; i < size; i++)
		if (text[i])
			return false;
	return true;
}

/* The other way: the CRC goes in last. */
void cluster_command_sign(struct cluster_command *command, struct cluster_proposer *proposer)
{
	struct log_command *header = (void *)command->data;

	header->node = to_le32(proposer->node);
	header->start = to_le64(proposer->start);
	header->sequence = to_le64(++proposer->sequence);
	header->crc = to_le32(command_crc(header, command->size));
}

/* ---- applying ---- */

enum proto_status refuse(struct cluster_edit *edit, enum proto_status status, const char *format,
			 ...)
{
	char *text = edit->result->text;
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(edit->result->text), format, args);
	va_end(args);
	return status;
}

/* May this proposer change anything, and is the command new? */
static enum proto_status check_proposer(struct cluster_edit *edit, const struct command_row *row)
{
	const struct cluster_result *result = edit->result;
	const struct cluster_node *node;

	if (!result->sequence)
		return refuse(edit, PROTO_STATUS_PROTOCOL, "a command without a sequence number");
	if (row->needs & NEEDS_NODE) {
		node = cluster_node(edit->map, result->node);
		if (!node || !node->session || node->start != result->start)
			return refuse(edit, PROTO_STATUS_STALE_SESSION,
				      "the session of node %u that proposed it has ended",
				      result->node);
		if (node_has_applied(node, result->sequence))
			return refuse(edit, PROTO_STATUS_EXISTS, "it was applied before");
		edit->node = node->id;
	}
	if ((row->needs & NEEDS_FORMAT) && !cluster_is_formatted(edit->map))
		return refuse(edit, PROTO_STATUS_NOT_FORMATTED, "the cluster is not formatted");
	return PROTO_STATUS_OK;
}

static enum proto_status apply_parsed(struct cluster_edit *edit, const struct log_body *log)
{
	struct cluster_result *result = edit->result;
	const struct command_row *row = command_row(from_le16(log->header->type));
	enum proto_status status;

	result->type = (enum log_type)from_le16(log->header->type);
	result->node = from_le32(log->header->node);
	result->start = from_le64(log->header->start);
	result->sequence = from_le64(log->header->sequence);
	status = check_proposer(edit, row);
	return status == PROTO_STATUS_OK ? row->apply(edit, log) : status;
}

static struct cluster_map *clone_at(const struct cluster_map *map, uint64_t index)
{
	struct cluster_map *clone = map_clone(map);

	if (clone)
		clone->index = index;
	return clone;
}

static void forget_delta(struct cluster_result *result)
{
	result->id = 0;
	result->changed = 0;
	result->nodes.count = 0;
	result->stores.count = 0;
	result->pgs.count = 0;
	result->volumes.count = 0;
}

struct cluster_map *cluster_apply(const struct cluster_map *map, uint64_t index,
				  const void *command, size_t size, struct cluster_result *result)
{
	struct cluster_edit edit = {.result = result, .index = index};
	struct log_body log;
	struct error err = {0};

	assert(index > map->index);
	memset(result, 0, sizeof(*result));
	edit.map = clone_at(map, index);
	if (!edit.map)
		goto fail;
	result->status = command_parse(command, size, &log, &err);
	if (result->status == PROTO_STATUS_OK)
		result->status = apply_parsed(&edit, &log);
	else
		(void)text_copy(result->text, sizeof(result->text), err.text);
	if (result->status != PROTO_STATUS_OK && !edit.no_memory) {
		/* What it may have begun is thrown away. */
		cluster_map_put(edit.map);
		forget_delta(result);
		edit.map = clone_at(map, index);
		if (!edit.map)
			goto fail;
	}
	if (edit.node)
		edit_node_applied(&edit, edit.node, result->sequence);
	if (!edit.no_memory)
		return edit.map;
fail:
	cluster_map_put(edit.map);
	cluster_result_done(result);
	memset(result, 0, sizeof(*result));
	result->status = PROTO_STATUS_NO_MEMORY;
	return NULL;
}

void cluster_result_done(struct cluster_result *result)
{
	free(result->nodes.ids);
	free(result->stores.ids);
	free(result->pgs.ids);
	free(result->volumes.ids);
	memset(&result->nodes, 0, sizeof(result->nodes));
	memset(&result->stores, 0, sizeof(result->stores));
	memset(&result->pgs, 0, sizeof(result->pgs));
	memset(&result->volumes, 0, sizeof(result->volumes));
}
