/* The documents of docs/protocol/admin.md, from the map and what this node knows besides. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sheep/service/admin_priv.h"

static void add_number(struct json_object *to, const char *key, uint64_t value)
{
	json_object_object_add(to, key, json_object_new_uint64(value));
}

static void add_text(struct json_object *to, const char *key, const char *value)
{
	json_object_object_add(to, key, value ? json_object_new_string(value) : NULL);
}

static struct json_object *new_uuid(const struct uuid *uuid)
{
	char text[UUID_TEXT_SIZE];

	return json_object_new_string(uuid_format(uuid, text));
}

static struct json_object *new_store_uuid(const struct cluster_map *map, uint32_t id)
{
	const struct cluster_store *store = cluster_store(map, id);

	return store ? new_uuid(&store->uuid) : NULL;
}

/* RFC 3339; NULL: not known. */
static struct json_object *new_time(uint64_t seconds)
{
	char text[32];
	time_t time = (time_t)seconds;
	struct tm parts;

	if (!seconds || !gmtime_r(&time, &parts) ||
	    !strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts))
		return NULL;
	return json_object_new_string(text);
}

/* ---- cluster ---- */

static const char *cluster_status(const struct cluster_map *map,
				  const struct cluster_summary *summary)
{
	return cluster_is_formatted(map) ? cluster_health_name(summary->health) : "unformatted";
}

/* Sums over the stores that are up; null where one of them is not known. */
static struct json_object *new_space(const struct cluster_map *map, const struct figures *figures)
{
	struct json_object *doc = json_object_new_object();
	const struct cluster_store *store;
	uint64_t size = 0, used = 0, allocated = 0;
	bool is_whole = true;

	for (store = cluster_store_next(map, 0); store;
	     store = cluster_store_next(map, store->id)) {
		const struct figures_store *told = figures_of_store(figures, store->id);
		size += store->size_bytes;
		if (told) {
			used += told->live_bytes;
			allocated += told->allocated_bytes;
		} else if (cluster_store_is_up(map, store->id)) {
			is_whole = false;
		}
	}
	add_number(doc, "size", size);
	json_object_object_add(doc, "used", is_whole ? json_object_new_uint64(used) : NULL);
	json_object_object_add(doc, "allocated",
			       is_whole ? json_object_new_uint64(allocated) : NULL);
	return doc;
}

static struct json_object *new_unknown(const struct figures *figures)
{
	struct json_object *list = json_object_new_array();

	for (uint32_t i = 0; i < figures->unknown_count; i++)
		json_object_array_add(list, json_object_new_uint64(figures->unknown[i]));
	return list;
}

struct json_object *doc_cluster(const struct node *node, const struct figures *figures)
{
	const struct cluster_map *map = state_map(node->state);
	const struct cluster_policy *policy = cluster_policy(map, 0);
	struct json_object *doc = json_object_new_object(), *part;
	const struct cluster_node *row;
	struct cluster_summary summary;
	struct node_uses uses;
	int rc = node_uses_count(&uses, map);

	cluster_summary(map, &summary);
	json_object_object_add(doc, "uuid",
			       cluster_is_formatted(map) ? new_uuid(cluster_uuid(map)) : NULL);
	add_text(doc, "status", cluster_status(map, &summary));
	add_number(doc, "level", cluster_level(map));
	add_number(doc, "copies", policy ? policy->copies : 0);
	add_number(doc, "min_insync", policy ? policy->min_insync : 0);
	part = json_object_new_array();
	for (row = cluster_node_next(map, 0); row; row = cluster_node_next(map, row->id))
		json_object_array_add(part, doc_node(node, row, rc == 0 ? &uses : NULL));
	free(uses.list);
	json_object_object_add(doc, "nodes", part);
	part = json_object_new_object();
	add_number(part, "total", summary.pgs_total);
	add_number(part, "active", summary.pgs_active);
	add_number(part, "degraded", summary.pgs_degraded);
	add_number(part, "recovering", summary.pgs[CLUSTER_RECOVERING]);
	add_number(part, "down", summary.pgs[CLUSTER_DOWN]);
	add_number(part, "forced", summary.pgs_forced);
	add_number(part, "lost", summary.pgs_lost);
	json_object_object_add(doc, "pgs", part);
	part = json_object_new_object();
	add_number(part, "objects_missing", figures->objects_missing);
	add_number(part, "bytes_missing", figures->bytes_missing);
	json_object_object_add(doc, "recovery", part);
	part = json_object_new_object();
	add_number(part, "total", summary.stores);
	add_number(part, "up", summary.stores_up);
	json_object_object_add(doc, "stores", part);
	json_object_object_add(doc, "space", new_space(map, figures));
	json_object_object_add(doc, "unknown_nodes", new_unknown(figures));
	add_number(doc, "volumes", cluster_volume_count(map));
	json_object_object_add(doc, "quorum",
			       json_object_new_boolean(state_has_quorum(node->state)));
	add_number(doc, "log_index", cluster_index(map));
	return doc;
}

struct json_object *doc_recovery(const struct node *node, const struct figures *figures,
				 uint64_t recovery_rate)
{
	const struct cluster_map *map = state_map(node->state);
	struct json_object *doc = json_object_new_object(), *rows = json_object_new_array();
	bool is_paused = cluster_setting(map, CLUSTER_SETTING_RECOVERY_PAUSED);
	uint64_t rate = cluster_setting(map, CLUSTER_SETTING_RECOVERY_RATE);

	add_text(doc, "status", !figures->row_count ? "idle" : is_paused ? "paused" : "running");
	add_number(doc, "objects_missing", figures->objects_missing);
	add_number(doc, "bytes_missing", figures->bytes_missing);
	add_number(doc, "objects_moved", figures->objects_moved);
	add_number(doc, "bytes_moved", figures->bytes_moved);
	add_number(doc, "bytes_per_second", recovery_rate);
	json_object_object_add(
		doc, "seconds_left",
		recovery_rate ? json_object_new_uint64(figures->bytes_missing / recovery_rate)
			      : NULL);
	json_object_object_add(doc, "throttle", rate ? json_object_new_uint64(rate) : NULL);
	for (uint32_t i = 0; i < figures->row_count; i++) {
		struct json_object *row = json_object_new_object();
		add_number(row, "id", figures->rows[i].pg);
		json_object_object_add(row, "store", new_store_uuid(map, figures->rows[i].store));
		add_number(row, "objects_missing", figures->rows[i].objects_missing);
		add_number(row, "bytes_missing", figures->rows[i].bytes_missing);
		json_object_array_add(rows, row);
	}
	json_object_object_add(doc, "pgs", rows);
	json_object_object_add(doc, "unknown_nodes", new_unknown(figures));
	return doc;
}

/* ---- nodes, stores, PGs ---- */

static void count_use(struct node_uses *uses, uint32_t node, uint32_t seats, uint32_t targets)
{
	if (node >= uses->count)
		return;
	uses->list[node].seats += seats;
	uses->list[node].targets += targets;
}

int node_uses_count(struct node_uses *uses, const struct cluster_map *map)
{
	const struct cluster_node *node;
	const struct cluster_pg *pg;

	uses->count = 0;
	for (node = cluster_node_next(map, 0); node; node = cluster_node_next(map, node->id))
		uses->count = node->id + 1;
	uses->list = calloc(uses->count + 1, sizeof(*uses->list));
	if (!uses->list)
		return -ENOMEM;
	for (pg = cluster_pg_next(map, 0); pg; pg = cluster_pg_next(map, pg->id + 1)) {
		for (uint32_t i = 0; i < pg->isr_count; i++)
			count_use(uses, cluster_store_node(map, pg->isr[i].store), 1, 0);
		for (uint32_t i = 0; i < pg->target_count; i++)
			count_use(uses, cluster_store_node(map, pg->target[i]), 0, 1);
	}
	return 0;
}

const struct node_use *node_use(const struct node_uses *uses, uint32_t node)
{
	static const struct node_use none;

	return node < uses->count ? &uses->list[node] : &none;
}

struct json_object *doc_node(const struct node *node, const struct cluster_node *row,
			     const struct node_uses *uses)
{
	const struct cluster_map *map = state_map(node->state);
	struct json_object *doc = json_object_new_object(), *stores = json_object_new_array();
	const struct cluster_store *store;
	bool is_self = row->id == node->id;
	bool is_out = !(row->flags & CLUSTER_NODE_UP) && caretaker_is_out(node->caretaker, row->id);

	for (store = cluster_store_next(map, 0); store; store = cluster_store_next(map, store->id))
		if (store->node == row->id)
			json_object_array_add(stores, new_uuid(&store->uuid));
	add_number(doc, "id", row->id);
	add_text(doc, "address", row->address);
	add_text(doc, "zone", row->zone);
	add_text(doc, "status", is_out ? "out" : cluster_node_status(map, row));
	json_object_object_add(doc, "stores", stores);
	json_object_object_add(doc, "copies",
			       uses ? json_object_new_uint64(node_use(uses, row->id)->seats)
				    : NULL);
	json_object_object_add(doc, "share",
			       uses ? json_object_new_uint64(node_use(uses, row->id)->targets)
				    : NULL);
	add_text(doc, "version", is_self ? PACKAGE_VERSION : NULL);
	json_object_object_add(doc, "is_self", json_object_new_boolean(is_self));
	return doc;
}

struct json_object *doc_store(const struct node *node, const struct cluster_store *row,
			      const struct figures *figures)
{
	struct json_object *doc = json_object_new_object();
	const struct figures_store *told = figures_of_store(figures, row->id);

	json_object_object_add(doc, "uuid", new_uuid(&row->uuid));
	add_number(doc, "node", row->node);
	add_text(doc, "path", row->path);
	add_number(doc, "size", row->size_bytes);
	json_object_object_add(doc, "used", told ? json_object_new_uint64(told->live_bytes) : NULL);
	json_object_object_add(doc, "allocated",
			       told ? json_object_new_uint64(told->allocated_bytes) : NULL);
	json_object_object_add(doc, "free",
			       told ? json_object_new_uint64(told->credit_bytes) : NULL);
	add_number(doc, "weight", row->weight);
	add_text(doc, "status", cluster_store_status(state_map(node->state), row));
	return doc;
}

const char *pg_status_name(const struct cluster_map *map, const struct cluster_pg *pg)
{
	enum cluster_health health = cluster_pg_health(map, pg);

	return health == CLUSTER_HEALTHY ? "clean" : cluster_health_name(health);
}

struct json_object *doc_pg(const struct node *node, const struct cluster_pg *row)
{
	const struct cluster_map *map = state_map(node->state);
	struct json_object *doc = json_object_new_object(), *list;

	add_number(doc, "id", row->id);
	add_number(doc, "epoch", row->epoch);
	json_object_object_add(doc, "primary",
			       row->primary ? new_store_uuid(map, row->primary) : NULL);
	list = json_object_new_array();
	for (uint32_t i = 0; i < row->isr_count; i++)
		if (!(row->isr[i].flags & CLUSTER_SEAT_MARKED))
			json_object_array_add(list, new_store_uuid(map, row->isr[i].store));
	json_object_object_add(doc, "isr", list);
	list = json_object_new_array();
	for (uint32_t i = 0; i < row->join_count; i++)
		json_object_array_add(list, new_store_uuid(map, row->joining[i].store));
	json_object_object_add(doc, "joining", list);
	list = json_object_new_array();
	for (uint32_t i = 0; i < row->isr_count; i++)
		if (row->isr[i].flags & CLUSTER_SEAT_MARKED)
			json_object_array_add(list, new_store_uuid(map, row->isr[i].store));
	json_object_object_add(doc, "marked", list);
	list = json_object_new_array();
	for (uint32_t i = 0; i < row->target_count; i++)
		json_object_array_add(list, new_store_uuid(map, row->target[i]));
	json_object_object_add(doc, "target", list);
	add_text(doc, "status", pg_status_name(map, row));
	add_number(doc, "forced", row->forced);
	add_number(doc, "loss_epoch", row->loss_epoch);
	return doc;
}

/* ---- volumes ---- */

struct json_object *doc_volume(const struct node *node, const struct cluster_volume *row)
{
	const struct cluster_map *map = state_map(node->state);
	struct json_object *doc = json_object_new_object(), *openers = json_object_new_array();
	struct json_object *properties = json_object_new_object();

	add_text(doc, "name", row->name);
	add_number(doc, "id", row->id);
	add_number(doc, "size", row->size_bytes);
	json_object_object_add(doc, "created", new_time(row->created_s));
	json_object_object_add(doc, "used", NULL); /* doc_volume_use() */
	json_object_object_add(doc, "snapshots", json_object_new_array());
	json_object_object_add(doc, "parent", NULL);
	add_text(doc, "access", row->access == CLUSTER_ACCESS_SHARED ? "shared" : "single");
	add_text(doc, "durability",
		 row->durability == CLUSTER_DURABILITY_ALWAYS ? "always" : "flush");
	for (uint32_t i = 0; i < row->opener_count; i++) {
		struct json_object *opener = json_object_new_object();
		const struct cluster_node *who =
			cluster_node_by_session(map, row->openers[i].session);
		add_number(opener, "node", who ? who->id : 0);
		add_text(opener, "mode", row->openers[i].flags & LOG_OPEN_READ_ONLY ? "ro" : "rw");
		json_object_array_add(openers, opener);
	}
	json_object_object_add(doc, "opened_by", openers);
	for (uint32_t i = 0; i < row->property_count; i++)
		add_text(properties, row->properties[i].key, row->properties[i].value);
	json_object_object_add(doc, "properties", properties);
	return doc;
}

void doc_volume_use(struct json_object *doc, const struct node *node, const struct figures *figures)
{
	const struct cluster_map *map = state_map(node->state);
	const struct cluster_volume *row;
	struct json_object *id = NULL;
	uint64_t used;

	json_object_object_get_ex(doc, "id", &id);
	row = cluster_volume(map, json_object_get_uint64(id));
	if (row && figures_used(&figures->use, map, row, &used))
		add_number(doc, "used", used);
}
