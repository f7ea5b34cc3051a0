/*
 * Commands on nodes and stores: who is there, in which start.
 *
 *             REGISTER                   DEAD                 REGISTER (later incarnation)
 *   unknown ------------> UP (session) --------> DEAD ----------------------> UP (new session)
 *                          |   ^  |     LEAVE                                  ^
 *                          `---'  `------------> LEFT ------------------------'
 *                        REGISTER                   `--NODE_REMOVE--> forgotten
 *
 * A session is the log index of a registration: it ends with the start that it belongs
 * to, and what was opened under it closes.
 */
#include <stdlib.h>

#include "lib/base/assert.h"
#include "lib/base/rule.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "sheep/cluster/cluster_priv.h"

#define STORE_FLAGS (LOG_STORE_UNCLEAN | LOG_STORE_NEW | LOG_STORE_HELD)

/* ---- is a registration acceptable? ---- */

static enum proto_status check_register_form(struct cluster_edit *edit,
					     const struct log_register *body,
					     const struct log_register_store *rows, uint32_t count)
{
	struct uuid uuid = uuid_from_log(&body->uuid);

	if (uuid_is_null(&uuid) || !from_le64(body->incarnation) ||
	    !wire_text_is_valid(body->address, sizeof(body->address), false) ||
	    !wire_text_is_valid(body->zone, sizeof(body->zone), false) ||
	    from_le32(body->version_min) > from_le32(body->version_max))
		return refuse(edit, PROTO_STATUS_INVALID, "a registration with bad fields");
	for (uint32_t i = 0; i < count; i++) {
		uuid = uuid_from_log(&rows[i].uuid);
		if (uuid_is_null(&uuid) || !from_le64(rows[i].incarnation) ||
		    (from_le32(rows[i].flags) & ~(uint32_t)STORE_FLAGS) ||
		    !from_le64(rows[i].size_bytes) ||
		    !wire_text_is_valid(rows[i].path, sizeof(rows[i].path), true))
			return refuse(edit, PROTO_STATUS_INVALID, "store %u has bad fields", i);
		for (uint32_t j = 0; j < i; j++)
			if (memcmp(&rows[j].uuid, &rows[i].uuid, sizeof(rows[i].uuid)) == 0)
				return refuse(edit, PROTO_STATUS_INVALID,
					      "stores %s and %s have the same UUID", rows[j].path,
					      rows[i].path);
	}
	return PROTO_STATUS_OK;
}

static enum proto_status check_cluster(struct cluster_edit *edit, const struct log_register *body)
{
	const struct cluster_map *map = edit->map;
	struct uuid stamped = uuid_from_log(&body->cluster);
	char theirs[UUID_TEXT_SIZE], ours[UUID_TEXT_SIZE];

	if (!uuid_is_null(&stamped) && !uuid_is_equal(&stamped, &map->uuid))
		return refuse(edit, PROTO_STATUS_WRONG_CLUSTER,
			      "the stores belong to cluster %s, this is %s",
			      uuid_format(&stamped, theirs),
			      cluster_is_formatted(map) ? uuid_format(&map->uuid, ours)
							: "not formatted");
	if (cluster_is_formatted(map) && (map->level < from_le32(body->version_min) ||
					  map->level > from_le32(body->version_max)))
		return refuse(edit, PROTO_STATUS_WRONG_VERSION,
			      "the node speaks versions %u to %u, the cluster is at level %u",
			      from_le32(body->version_min), from_le32(body->version_max),
			      map->level);
	return PROTO_STATUS_OK;
}

/* A store that another live start has in use cannot be taken from it. */
static enum proto_status check_stores(struct cluster_edit *edit, uint32_t node,
				      const struct log_register_store *rows, uint32_t count)
{
	uint32_t added = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct uuid uuid = uuid_from_log(&rows[i].uuid);
		const struct cluster_store *store = cluster_store_by_uuid(edit->map, &uuid);

		added += !store;
		if (store && store->node != node && cluster_store_is_up(edit->map, store->id))
			return refuse(edit, PROTO_STATUS_BUSY,
				      "store %s is in use by node %u: is it a copy?", rows[i].path,
				      store->node);
	}
	if (cluster_store_count(edit->map) + added > CLUSTER_STORES_MAX)
		return refuse(edit, PROTO_STATUS_NO_SPACE, "a cluster has at most %u stores",
			      CLUSTER_STORES_MAX);
	return PROTO_STATUS_OK;
}

/* OK: go on; EXISTS: this start is registered already. */
static enum proto_status check_start(struct cluster_edit *edit, const struct log_register *body,
				     const struct cluster_node *node)
{
	uint64_t incarnation = from_le64(body->incarnation);

	if (!node && cluster_node_count(edit->map) >= CLUSTER_NODES_MAX)
		return refuse(edit, PROTO_STATUS_NO_SPACE, "a cluster has at most %u nodes",
			      CLUSTER_NODES_MAX);
	if (!node || incarnation > node->incarnation)
		return PROTO_STATUS_OK;
	if (incarnation < node->incarnation || node->start != edit->result->start)
		return refuse(
			edit, PROTO_STATUS_STALE_SESSION,
			"node %u is registered in incarnation %llu, this is %llu: a restored or "
			"copied directory?",
			node->id, (unsigned long long)node->incarnation,
			(unsigned long long)incarnation);
	return PROTO_STATUS_EXISTS;
}

/* ---- registering ---- */

/*
 * R2: a start that is not above the registered one comes from a copy or a backup. What is new, or
 * came from another node, cannot be what the earlier start had.
 */
static uint32_t flags_of_store(const struct cluster_store *store, uint32_t node,
			       const struct log_register_store *row)
{
	uint32_t flags = from_le32(row->flags);

	if (RULE(R2_INCARNATION) && store->incarnation &&
	    from_le64(row->incarnation) <= store->incarnation)
		flags |= LOG_STORE_NEW;
	if ((flags & LOG_STORE_NEW) || store->node != node)
		flags &= ~(uint32_t)LOG_STORE_HELD;
	return flags;
}

static uint32_t weight_of_size(uint64_t size_bytes)
{
	uint64_t mib = size_bytes / MIB;

	return mib > UINT32_MAX ? UINT32_MAX : mib ? (uint32_t)mib : 1;
}

static void register_store(struct cluster_edit *edit, uint32_t node,
			   const struct log_register_store *row, struct restart *restart)
{
	struct uuid uuid = uuid_from_log(&row->uuid);
	const struct cluster_store *known = cluster_store_by_uuid(edit->map, &uuid);
	struct cluster_store *store;

	store = known ? edit_store(edit, known->id)
		      : edit_add_store(edit, edit->map->next_store++, &uuid);
	if (!store)
		return;
	restart->store = store->id;
	restart->flags = flags_of_store(store, node, row);
	if (!known)
		store->weight = weight_of_size(from_le64(row->size_bytes));
	store->node = node;
	store->flags = CLUSTER_STORE_UP;
	if (restart->flags & (LOG_STORE_UNCLEAN | LOG_STORE_NEW))
		store->flags |= CLUSTER_STORE_UNCLEAN;
	store->shards = from_le32(row->shards);
	store->incarnation = from_le64(row->incarnation);
	store->start = from_le64(row->start);
	store->size_bytes = from_le64(row->size_bytes);
	memcpy(store->path, row->path, sizeof(store->path));
}

/* The stores of a start that is over are not there until the next one registers them. */
static void take_down_stores(struct cluster_edit *edit, uint32_t node)
{
	const struct cluster_store *store = NULL;
	uint32_t id = 0;

	while ((store = cluster_store_next(edit->map, id)) != NULL && !edit->no_memory) {
		id = store->id;
		if (store->node == node && (store->flags & CLUSTER_STORE_UP)) {
			struct cluster_store *down = edit_store(edit, id);

			if (down)
				down->flags &= ~(uint32_t)CLUSTER_STORE_UP;
		}
	}
}

static void end_session(struct cluster_edit *edit, struct cluster_node *node)
{
	uint64_t session = node->session;

	edit_node_session(edit, node, 0);
	if (session)
		volumes_end_session(edit, session);
}

static struct cluster_node *register_node(struct cluster_edit *edit,
					  const struct cluster_node *known,
					  const struct log_register *body)
{
	struct uuid uuid = uuid_from_log(&body->uuid);
	struct cluster_node *node = known ? edit_node(edit, known->id)
					  : edit_add_node(edit, edit->map->next_node++, &uuid);

	if (!node)
		return NULL;
	end_session(edit, node);
	take_down_stores(edit, node->id);
	node->flags = CLUSTER_NODE_UP | (node->flags & CLUSTER_NODE_DRAINING);
	node->incarnation = from_le64(body->incarnation);
	node->start = edit->result->start;
	node->version_min = from_le32(body->version_min);
	node->version_max = from_le32(body->version_max);
	node->loops = from_le32(body->loops);
	memcpy(node->address, body->address, sizeof(node->address));
	memcpy(node->zone, body->zone, sizeof(node->zone));
	node->sequence = 0;
	memset(node->applied, 0, sizeof(node->applied));
	edit_node_session(edit, node, edit->index);
	return node;
}

enum proto_status apply_register(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_register *body = log->body;
	const struct log_register_store *rows = log->rows;
	struct uuid uuid = uuid_from_log(&body->uuid);
	const struct cluster_node *known = cluster_node_by_uuid(edit->map, &uuid);
	struct restart restarts[CLUSTER_NODE_STORES_MAX] = {0};
	struct cluster_node *node;
	enum silence silence = OLD_IS_SILENT;
	enum proto_status status = check_register_form(edit, body, rows, log->row_count);

	if (status == PROTO_STATUS_OK)
		status = check_cluster(edit, body);
	if (status == PROTO_STATUS_OK)
		status = check_start(edit, body, known);
	if (status == PROTO_STATUS_EXISTS) {
		edit->result->id = known->id;
		return PROTO_STATUS_OK;
	}
	if (status == PROTO_STATUS_OK)
		status = check_stores(edit, known ? known->id : 0, rows, log->row_count);
	if (status != PROTO_STATUS_OK)
		return status;
	if (known) {
		edit->restarted_node = known->id;
		edit->restarted_incarnation = known->incarnation;
		if ((known->flags & CLUSTER_NODE_UP) &&
		    !(from_le32(body->flags) & LOG_REGISTER_ALONE))
			silence = OLD_MAY_SERVE;
	}
	node = register_node(edit, known, body);
	if (!node)
		return PROTO_STATUS_NO_MEMORY;
	edit->node = node->id;
	edit->result->id = node->id;
	for (uint32_t i = 0; i < log->row_count; i++)
		register_store(edit, node->id, &rows[i], &restarts[i]);
	pgs_restart(edit, restarts, log->row_count, silence);
	return PROTO_STATUS_OK;
}

/* ---- leaving ---- */

/* The node, if it is up in this incarnation. */
static enum proto_status find_start(struct cluster_edit *edit,
				    const struct log_node_incarnation *body,
				    const struct cluster_node **out)
{
	const struct cluster_node *node = cluster_node(edit->map, from_le32(body->node));

	if (!node)
		return refuse(edit, PROTO_STATUS_NOT_FOUND, "node %u does not exist",
			      from_le32(body->node));
	if (!(node->flags & CLUSTER_NODE_UP) ||
	    (RULE(L5_INCARNATION) && node->incarnation != from_le64(body->incarnation)))
		return refuse(edit, PROTO_STATUS_STALE_SESSION,
			      "node %u is not up in incarnation %llu", node->id,
			      (unsigned long long)from_le64(body->incarnation));
	*out = node;
	return PROTO_STATUS_OK;
}

static enum proto_status end_start(struct cluster_edit *edit, uint32_t id, uint32_t flag)
{
	struct cluster_node *node = edit_node(edit, id);

	if (!node)
		return PROTO_STATUS_NO_MEMORY;
	node->flags = (node->flags & ~(uint32_t)CLUSTER_NODE_UP) | flag;
	end_session(edit, node);
	take_down_stores(edit, id);
	(void)pgs_end_fences(edit, id, node->incarnation);
	pgs_settle(edit, OLD_IS_SILENT);
	edit->result->id = id;
	return PROTO_STATUS_OK;
}

/* L5: a death that comes late takes nothing from a later start, but nobody waits for the dead one any more. */
static bool ends_fences(struct cluster_edit *edit, const struct log_node_incarnation *body)
{
	const struct cluster_node *node = cluster_node(edit->map, from_le32(body->node));
	uint64_t incarnation = from_le64(body->incarnation);

	return node && incarnation < node->incarnation && RULE(L5_INCARNATION) &&
	       pgs_end_fences(edit, node->id, incarnation);
}

enum proto_status apply_dead(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_node_incarnation *body = log->body;
	const struct cluster_node *node = NULL;
	enum proto_status status;

	if (ends_fences(edit, body)) {
		edit->result->id = from_le32(body->node);
		return PROTO_STATUS_OK;
	}
	status = find_start(edit, body, &node);
	return status == PROTO_STATUS_OK ? end_start(edit, node->id, CLUSTER_NODE_DEAD) : status;
}

/* The node has stopped serving before it says so. */
enum proto_status apply_leave(struct cluster_edit *edit, const struct log_body *log)
{
	const struct cluster_node *node = NULL;
	enum proto_status status = find_start(edit, log->body, &node);

	if (status != PROTO_STATUS_OK)
		return status;
	if (node->id != edit->node)
		return refuse(edit, PROTO_STATUS_READ_ONLY, "only node %u itself can leave",
			      node->id);
	return end_start(edit, node->id, CLUSTER_NODE_LEFT);
}

/* Its node has stopped serving from it before it says so. */
enum proto_status apply_store_failed(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_store_failed *body = log->body;
	const struct cluster_store *known = cluster_store(edit->map, from_le32(body->store));
	struct cluster_store *store;

	if (!known || !cluster_store_is_up(edit->map, known->id) ||
	    known->incarnation != from_le64(body->incarnation))
		return refuse(edit, PROTO_STATUS_STALE_SESSION,
			      "store %u is not up in that incarnation", from_le32(body->store));
	if (known->node != edit->node)
		return refuse(edit, PROTO_STATUS_READ_ONLY, "store %u is not one of node %u",
			      known->id, edit->node);
	store = edit_store(edit, known->id);
	if (!store)
		return PROTO_STATUS_NO_MEMORY;
	store->flags |= CLUSTER_STORE_FAILED;
	/* One loop of the node has said so; another may have yet to hear of it. It confirms that soon. */
	pgs_settle(edit, OLD_MAY_SERVE);
	return PROTO_STATUS_OK;
}

/* ---- what the operator asks for ---- */

enum proto_status apply_store_weight(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_store_weight *body = log->body;
	const struct cluster_store *known = cluster_store(edit->map, from_le32(body->store));
	struct cluster_store *store;

	if (!known)
		return refuse(edit, PROTO_STATUS_NOT_FOUND, "store %u does not exist",
			      from_le32(body->store));
	if (known->weight == from_le32(body->weight))
		return PROTO_STATUS_OK;
	store = edit_store(edit, known->id);
	if (!store)
		return PROTO_STATUS_NO_MEMORY;
	store->weight = from_le32(body->weight);
	return PROTO_STATUS_OK;
}

static enum proto_status set_draining(struct cluster_edit *edit, const struct log_node *body,
				      uint32_t flag)
{
	const struct cluster_node *known = cluster_node(edit->map, from_le32(body->node));
	struct cluster_node *node;

	if (!known)
		return refuse(edit, PROTO_STATUS_NOT_FOUND, "node %u does not exist",
			      from_le32(body->node));
	if ((known->flags & CLUSTER_NODE_DRAINING) == flag)
		return PROTO_STATUS_OK;
	node = edit_node(edit, known->id);
	if (!node)
		return PROTO_STATUS_NO_MEMORY;
	node->flags ^= CLUSTER_NODE_DRAINING;
	return PROTO_STATUS_OK;
}

enum proto_status apply_node_drain(struct cluster_edit *edit, const struct log_body *log)
{
	return set_draining(edit, log->body, CLUSTER_NODE_DRAINING);
}

enum proto_status apply_node_undrain(struct cluster_edit *edit, const struct log_body *log)
{
	return set_draining(edit, log->body, 0);
}

/* How many PGs list a store of @node, and the first of them in @first. */
static uint32_t count_seats_of(const struct cluster_map *map, uint32_t node, uint32_t *first)
{
	const struct cluster_pg *pg;
	uint32_t from = 0, count = 0;

	while ((pg = cluster_pg_next(map, from)) != NULL) {
		from = pg->id + 1;
		for (uint32_t i = 0; i < pg->isr_count; i++) {
			if (cluster_store_node(map, pg->isr[i].store) != node)
				continue;
			if (!count++)
				*first = pg->id;
			break;
		}
	}
	return count;
}

/* A target that names a store which is no more gets another one from the planner. */
static void drop_targets_of(struct cluster_edit *edit, uint32_t node)
{
	const struct cluster_pg *pg;
	uint32_t from = 0;

	while ((pg = cluster_pg_next(edit->map, from)) != NULL && !edit->no_memory) {
		struct cluster_pg next;
		uint32_t kept = 0;

		from = pg->id + 1;
		memcpy(&next, pg, sizeof(next));
		memset(next.target, 0, sizeof(next.target));
		for (uint32_t i = 0; i < pg->target_count; i++)
			if (cluster_store_node(edit->map, pg->target[i]) != node)
				next.target[kept++] = pg->target[i];
		if (kept == pg->target_count)
			continue;
		next.target_count = kept;
		next.target_index = edit->index;
		pg_put(edit, &next, OLD_IS_SILENT);
	}
}

enum proto_status apply_node_remove(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_node *body = log->body;
	uint32_t id = from_le32(body->node), seats, first = 0, after = 0;
	const struct cluster_node *node = cluster_node(edit->map, id);
	const struct cluster_store *store;

	if (!node)
		return refuse(edit, PROTO_STATUS_NOT_FOUND, "node %u does not exist", id);
	if (node->flags & CLUSTER_NODE_UP)
		return refuse(edit, PROTO_STATUS_BUSY,
			      "node %u is up: drain it, then stop it, then remove it", id);
	seats = count_seats_of(edit->map, id, &first);
	if (seats)
		return refuse(edit, PROTO_STATUS_BUSY,
			      "node %u is still listed in %u placement groups (%u is one): they "
			      "need its copies until others are in sync, or for ever if nobody "
			      "else has them; see `collie cluster health`",
			      id, seats, first);
	drop_targets_of(edit, id);
	while ((store = cluster_store_next(edit->map, after)) != NULL && !edit->no_memory) {
		after = store->id;
		if (store->node == id)
			edit_remove_store(edit, after);
	}
	edit_remove_node(edit, id);
	return PROTO_STATUS_OK;
}
