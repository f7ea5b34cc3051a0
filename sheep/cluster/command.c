/*
 * Making commands. Each constructor is the struct of include/proto/log.h with its
 * fields filled in; what may be in them is judged where it is applied.
 */
#include "sheep/cluster/command.h"

#include <stdlib.h>

#include "lib/base/assert.h"
#include "lib/base/text.h"

/* A command of @type with @rows rows, all zero after its header. */
static struct cluster_command *command_new(enum log_type type, uint32_t rows)
{
	const struct command_row *row = command_row(type);
	size_t size;
	struct cluster_command *command;
	struct log_command *header;

	assert(row);
	size = sizeof(*header) + row->body_size + (size_t)rows * row->row_size;
	if (rows > row->rows_max || size > LOG_COMMAND_MAX)
		return NULL;
	command = calloc(1, sizeof(*command) + size);
	if (!command)
		return NULL;
	command->size = (uint32_t)size;
	header = (void *)command->data;
	header->magic = to_le32(LOG_COMMAND_MAGIC);
	header->version = to_le16(LOG_COMMAND_VERSION);
	header->type = to_le16((uint16_t)type);
	header->size = to_le32((uint32_t)size);
	header->row_count = to_le32(rows);
	return command;
}

static void *body_of(struct cluster_command *command)
{
	return command->data + sizeof(struct log_command);
}

static void *rows_of(struct cluster_command *command)
{
	const struct log_command *header = (const void *)command->data;

	return (uint8_t *)body_of(command) + command_row(from_le16(header->type))->body_size;
}

void cluster_command_free(struct cluster_command *command)
{
	free(command);
}

/* @command, or NULL (and it is freed) when a text did not fit. */
static struct cluster_command *if_fits(struct cluster_command *command, int rc)
{
	if (rc >= 0)
		return command;
	cluster_command_free(command);
	return NULL;
}

struct cluster_command *cluster_command_format(const struct uuid *cluster, uint32_t copies,
					       uint32_t min_insync, uint32_t pg_count,
					       uint32_t flags)
{
	struct cluster_command *command = command_new(LOG_FORMAT, 0);
	struct log_format *body;

	if (!command)
		return NULL;
	body = body_of(command);
	body->cluster = uuid_to_log(cluster);
	body->level = to_le32(CLUSTER_LEVEL);
	body->copies = to_le32(copies);
	body->min_insync = to_le32(min_insync);
	body->pg_count = to_le32(pg_count);
	body->flags = to_le32(flags);
	return command;
}

static int fill_store(struct log_register_store *row, const struct cluster_register_store *store)
{
	row->uuid = uuid_to_log(&store->uuid);
	row->incarnation = to_le64(store->incarnation);
	row->start = to_le64(store->start);
	row->size_bytes = to_le64(store->size_bytes);
	row->shards = to_le32(store->shards);
	row->flags = to_le32(store->flags);
	return text_copy(row->path, sizeof(row->path), store->path);
}

struct cluster_command *cluster_command_register(const struct cluster_register *request)
{
	struct cluster_command *command = command_new(LOG_REGISTER, request->store_count);
	struct log_register *body;
	struct log_register_store *rows;
	int rc;

	if (!command)
		return NULL;
	body = body_of(command);
	rows = rows_of(command);
	body->uuid = uuid_to_log(&request->uuid);
	body->cluster = uuid_to_log(&request->cluster);
	body->incarnation = to_le64(request->incarnation);
	body->version_min = to_le32(request->version_min);
	body->version_max = to_le32(request->version_max);
	body->loops = to_le32(request->loops);
	body->flags = to_le32(request->flags);
	rc = text_copy(body->address, sizeof(body->address), request->address);
	if (rc == 0)
		rc = text_copy(body->zone, sizeof(body->zone), request->zone);
	for (uint32_t i = 0; rc == 0 && i < request->store_count; i++)
		rc = fill_store(&rows[i], &request->stores[i]);
	return if_fits(command, rc);
}

static struct cluster_command *node_incarnation(enum log_type type, uint32_t node,
						uint64_t incarnation)
{
	struct cluster_command *command = command_new(type, 0);
	struct log_node_incarnation *body;

	if (!command)
		return NULL;
	body = body_of(command);
	body->node = to_le32(node);
	body->incarnation = to_le64(incarnation);
	return command;
}

struct cluster_command *cluster_command_dead(uint32_t node, uint64_t incarnation)
{
	return node_incarnation(LOG_DEAD, node, incarnation);
}

struct cluster_command *cluster_command_leave(uint32_t node, uint64_t incarnation)
{
	return node_incarnation(LOG_LEAVE, node, incarnation);
}

struct cluster_command *cluster_command_store_failed(uint32_t store, uint64_t incarnation)
{
	struct cluster_command *command = command_new(LOG_STORE_FAILED, 0);
	struct log_store_failed *body;

	if (!command)
		return NULL;
	body = body_of(command);
	body->store = to_le32(store);
	body->incarnation = to_le64(incarnation);
	return command;
}

struct cluster_command *cluster_command_store_weight(uint32_t store, uint32_t weight)
{
	struct cluster_command *command = command_new(LOG_STORE_WEIGHT, 0);
	struct log_store_weight *body;

	if (!command)
		return NULL;
	body = body_of(command);
	body->store = to_le32(store);
	body->weight = to_le32(weight);
	return command;
}

static struct cluster_command *node_command(enum log_type type, uint32_t node)
{
	struct cluster_command *command = command_new(type, 0);

	if (command)
		((struct log_node *)body_of(command))->node = to_le32(node);
	return command;
}

struct cluster_command *cluster_command_node_drain(uint32_t node)
{
	return node_command(LOG_NODE_DRAIN, node);
}

struct cluster_command *cluster_command_node_undrain(uint32_t node)
{
	return node_command(LOG_NODE_UNDRAIN, node);
}

struct cluster_command *cluster_command_node_remove(uint32_t node)
{
	return node_command(LOG_NODE_REMOVE, node);
}

struct cluster_command *cluster_command_setting(const char *name, uint64_t value)
{
	struct cluster_command *command = command_new(LOG_SETTING, 0);
	struct log_setting *body;

	if (!command)
		return NULL;
	body = body_of(command);
	body->value = to_le64(value);
	return if_fits(command, text_copy(body->name, sizeof(body->name), name));
}

struct cluster_command *cluster_command_policy(uint32_t policy, uint32_t copies,
					       uint32_t min_insync)
{
	struct cluster_command *command = command_new(LOG_POLICY, 0);
	struct log_policy *body;

	if (!command)
		return NULL;
	body = body_of(command);
	body->policy = to_le32(policy);
	body->copies = to_le32(copies);
	body->min_insync = to_le32(min_insync);
	return command;
}

struct cluster_command *cluster_command_level(uint32_t level)
{
	struct cluster_command *command = command_new(LOG_LEVEL, 0);

	if (command)
		((struct log_set_level *)body_of(command))->level = to_le32(level);
	return command;
}

struct cluster_command *cluster_command_shutdown(void)
{
	return command_new(LOG_SHUTDOWN, 0);
}

/* ---- PGs ---- */

struct cluster_command *cluster_command_retarget(const struct log_retarget_row *rows,
						 uint32_t count)
{
	struct cluster_command *command = command_new(LOG_RETARGET, count);

	if (command)
		memcpy(rows_of(command), rows, count * sizeof(*rows));
	return command;
}

struct cluster_command *cluster_command_pg_shrink(uint32_t pg, uint64_t epoch, uint32_t flags,
						  const uint32_t *stores, uint32_t count)
{
	struct cluster_command *command = command_new(LOG_PG_SHRINK, count);
	struct log_pg_shrink *body;
	le32 *rows;

	if (!command)
		return NULL;
	body = body_of(command);
	body->pg = to_le32(pg);
	body->epoch = to_le64(epoch);
	body->flags = to_le32(flags);
	rows = rows_of(command);
	for (uint32_t i = 0; i < count; i++)
		rows[i] = to_le32(stores[i]);
	return command;
}

static struct cluster_command *pg_store(enum log_type type, uint32_t pg, uint64_t epoch,
					uint32_t store)
{
	struct cluster_command *command = command_new(type, 0);
	struct log_pg_store *body;

	if (!command)
		return NULL;
	body = body_of(command);
	body->pg = to_le32(pg);
	body->store = to_le32(store);
	body->epoch = to_le64(epoch);
	return command;
}

struct cluster_command *cluster_command_pg_takeover(const struct cluster_takeover *rows,
						    uint32_t count)
{
	struct cluster_command *command = command_new(LOG_PG_TAKEOVER, count);
	struct log_pg_store *to = command ? rows_of(command) : NULL;

	for (uint32_t i = 0; command && i < count; i++)
		to[i] = (struct log_pg_store){.pg = to_le32(rows[i].pg),
					      .store = to_le32(rows[i].store),
					      .epoch = to_le64(rows[i].epoch)};
	return command;
}

struct cluster_command *cluster_command_pg_primary(uint32_t pg, uint64_t epoch, uint32_t store)
{
	return pg_store(LOG_PG_PRIMARY, pg, epoch, store);
}

struct cluster_command *cluster_command_pg_elect(uint32_t pg, uint64_t epoch, uint32_t store)
{
	return pg_store(LOG_PG_ELECT, pg, epoch, store);
}

struct cluster_command *cluster_command_pg_force(uint32_t pg, uint64_t epoch, uint32_t store)
{
	return pg_store(LOG_PG_FORCE, pg, epoch, store);
}

struct cluster_command *cluster_command_pg_join(uint32_t pg, uint32_t store, uint64_t incarnation)
{
	struct cluster_command *command = command_new(LOG_PG_JOIN, 0);
	struct log_pg_join *body;

	if (!command)
		return NULL;
	body = body_of(command);
	body->pg = to_le32(pg);
	body->store = to_le32(store);
	body->incarnation = to_le64(incarnation);
	return command;
}

struct cluster_command *cluster_command_pg_leave_join(uint32_t pg, uint32_t store, uint64_t join)
{
	struct cluster_command *command = command_new(LOG_PG_LEAVE_JOIN, 0);
	struct log_pg_leave_join *body;

	if (!command)
		return NULL;
	body = body_of(command);
	body->pg = to_le32(pg);
	body->store = to_le32(store);
	body->join = to_le64(join);
	return command;
}

struct cluster_command *cluster_command_pg_expand(uint32_t pg, uint64_t epoch,
						  const struct cluster_join *join, uint32_t drop)
{
	struct cluster_command *command = command_new(LOG_PG_EXPAND, 0);
	struct log_pg_expand *body;

	if (!command)
		return NULL;
	body = body_of(command);
	body->pg = to_le32(pg);
	body->store = to_le32(join->store);
	body->epoch = to_le64(epoch);
	body->join = to_le64(join->index);
	body->incarnation = to_le64(join->incarnation);
	body->drop = to_le32(drop);
	return command;
}

struct cluster_command *cluster_command_pg_holes(uint32_t pg, uint64_t epoch, uint32_t store,
						 uint64_t incarnation, bool has_holes)
{
	struct cluster_command *command = command_new(LOG_PG_HOLES, 0);
	struct log_pg_holes *body;

	if (!command)
		return NULL;
	body = body_of(command);
	body->pg = to_le32(pg);
	body->store = to_le32(store);
	body->epoch = to_le64(epoch);
	body->incarnation = to_le64(incarnation);
	body->has_holes = to_le32(has_holes);
	return command;
}

/* ---- volumes ---- */

static int fill_property(struct log_property *to, const char *key, const char *value)
{
	int rc = text_copy(to->key, sizeof(to->key), key);

	return rc < 0 ? rc : text_copy(to->value, sizeof(to->value), value);
}

struct cluster_command *cluster_command_volume_create(const char *name, uint64_t size_bytes,
						      uint32_t policy,
						      const struct cluster_property *properties,
						      uint32_t property_count)
{
	struct cluster_command *command = command_new(LOG_VOLUME_CREATE, property_count);
	struct log_volume_create *body;
	struct log_property *rows;
	int rc;

	if (!command)
		return NULL;
	body = body_of(command);
	rows = rows_of(command);
	body->size_bytes = to_le64(size_bytes);
	body->policy = to_le32(policy);
	rc = text_copy(body->name, sizeof(body->name), name);
	for (uint32_t i = 0; rc == 0 && i < property_count; i++)
		rc = fill_property(&rows[i], properties[i].key, properties[i].value);
	return if_fits(command, rc);
}

void cluster_command_set_created(struct cluster_command *command, uint64_t created_s)
{
	struct log_volume_create *body = (void *)(command->data + sizeof(struct log_command));

	body->created_s = to_le64(created_s);
}

struct cluster_command *cluster_command_volume_delete(uint64_t volume)
{
	struct cluster_command *command = command_new(LOG_VOLUME_DELETE, 0);

	if (command)
		((struct log_volume_delete *)body_of(command))->volume = to_le64(volume);
	return command;
}

struct cluster_command *cluster_command_volume_rename(uint64_t volume, const char *name,
						      const char *to)
{
	struct cluster_command *command = command_new(LOG_VOLUME_RENAME, 0);
	struct log_volume_rename *body;
	int rc;

	if (!command)
		return NULL;
	body = body_of(command);
	body->volume = to_le64(volume);
	rc = text_copy(body->name, sizeof(body->name), name);
	if (rc == 0)
		rc = text_copy(body->to, sizeof(body->to), to);
	return if_fits(command, rc);
}

struct cluster_command *cluster_command_volume_resize(uint64_t volume, uint64_t from_bytes,
						      uint64_t to_bytes, uint32_t flags)
{
	struct cluster_command *command = command_new(LOG_VOLUME_RESIZE, 0);
	struct log_volume_resize *body;

	if (!command)
		return NULL;
	body = body_of(command);
	body->volume = to_le64(volume);
	body->from_bytes = to_le64(from_bytes);
	body->to_bytes = to_le64(to_bytes);
	body->flags = to_le32(flags);
	return command;
}

struct cluster_command *cluster_command_volume_set(uint64_t volume, const char *key,
						   const char *value)
{
	struct cluster_command *command = command_new(LOG_VOLUME_SET, 0);
	struct log_volume_set *body;

	if (!command)
		return NULL;
	body = body_of(command);
	body->volume = to_le64(volume);
	return if_fits(command, fill_property(&body->property, key, value));
}

static struct cluster_command *volume_open(enum log_type type, uint64_t volume, uint64_t session,
					   uint32_t flags)
{
	struct cluster_command *command = command_new(type, 0);
	struct log_volume_open *body;

	if (!command)
		return NULL;
	body = body_of(command);
	body->volume = to_le64(volume);
	body->session = to_le64(session);
	body->flags = to_le32(flags);
	return command;
}

struct cluster_command *cluster_command_volume_open(uint64_t volume, uint64_t session,
						    uint32_t flags)
{
	return volume_open(LOG_VOLUME_OPEN, volume, session, flags);
}

struct cluster_command *cluster_command_volume_close(uint64_t volume, uint64_t session)
{
	return volume_open(LOG_VOLUME_CLOSE, volume, session, 0);
}

struct cluster_command *cluster_command_volume_own(uint64_t volume, uint64_t session,
						   uint64_t generation)
{
	struct cluster_command *command = command_new(LOG_VOLUME_OWN, 0);
	struct log_volume_own *body;

	if (!command)
		return NULL;
	body = body_of(command);
	body->volume = to_le64(volume);
	body->session = to_le64(session);
	body->generation = to_le64(generation);
	return command;
}
