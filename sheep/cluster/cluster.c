/*
 * A map and what can be looked up in it.
 *
 * Always true: a map that somebody has a reference to is never written; what differs
 * between two maps is what a command changed, the rest is shared (trie.c).
 */
#include "sheep/cluster/cluster.h"

#include <stdlib.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "sheep/cluster/cluster_priv.h"

/* ---- kinds of items ---- */

static struct trie_item *copy_bytes(const struct trie_item *item, size_t size)
{
	struct trie_item *copy = malloc(size);
	size_t skip = offsetof(struct trie_item, key);

	if (!copy)
		return NULL;
	/* Others count at `refs` meanwhile. */
	memcpy((uint8_t *)copy + skip, (const uint8_t *)item + skip, size - skip);
	copy->refs = 1;
	return copy;
}

static void item_free(struct trie_item *item)
{
	free(item);
}

static struct trie_item *node_copy(const struct trie_item *item)
{
	return copy_bytes(item, sizeof(struct node_item));
}

static struct trie_item *store_copy(const struct trie_item *item)
{
	return copy_bytes(item, sizeof(struct store_item));
}

static struct trie_item *pg_copy(const struct trie_item *item)
{
	return copy_bytes(item, sizeof(struct pg_item));
}

static struct trie_item *bucket_copy(const struct trie_item *item)
{
	const struct bucket_item *bucket = (const struct bucket_item *)item;

	return copy_bytes(item, sizeof(*bucket) + bucket->count * sizeof(bucket->ids[0]));
}

static void volume_free(struct trie_item *item)
{
	struct volume_item *volume = (struct volume_item *)item;

	free((void *)(uintptr_t)volume->volume.layers);
	free((void *)(uintptr_t)volume->volume.openers);
	free((void *)(uintptr_t)volume->volume.properties);
	free(volume);
}

/* A list of @count elements; NULL with *@ok false when there is no memory. */
static void *list_copy(const void *from, uint32_t count, size_t size, bool *ok)
{
	void *list;

	if (!count)
		return NULL;
	list = malloc(count * size);
	if (list)
		memcpy(list, from, count * size);
	else
		*ok = false;
	return list;
}

static struct trie_item *volume_copy(const struct trie_item *item)
{
	const struct cluster_volume *from = &((const struct volume_item *)item)->volume;
	struct volume_item *copy =
		(struct volume_item *)copy_bytes(item, sizeof(struct volume_item));
	bool ok = true;

	if (!copy)
		return NULL;
	copy->volume.layers =
		list_copy(from->layers, from->layer_count, sizeof(from->layers[0]), &ok);
	copy->volume.openers =
		list_copy(from->openers, from->opener_count, sizeof(from->openers[0]), &ok);
	copy->volume.properties = properties_copy(from->properties, from->property_count, &ok);
	if (ok)
		return &copy->item;
	volume_free(&copy->item);
	return NULL;
}

static const struct trie_kind kind_nodes = {node_copy, item_free};
static const struct trie_kind kind_stores = {store_copy, item_free};
static const struct trie_kind kind_pgs = {pg_copy, item_free};
static const struct trie_kind kind_volumes = {volume_copy, volume_free};
static const struct trie_kind kind_buckets = {bucket_copy, item_free};

#define kind_node_uuids	 kind_buckets
#define kind_store_uuids kind_buckets
#define kind_sessions	 kind_buckets
#define kind_names	 kind_buckets
#define kind_layers	 kind_buckets

/* ---- references ---- */

struct cluster_map *cluster_map_new(void)
{
	struct cluster_map *map = calloc(1, sizeof(*map));

	if (!map)
		return NULL;
	map->refs = 1;
	map->next_node = 1;
	map->next_store = 1;
	map->next_id = 1;
	for (unsigned i = 0; i < CLUSTER_SETTING_COUNT; i++)
		map->settings[i] = cluster_settings[i].preset;
#define MAP_TRIE(name) map->name.kind = &kind_##name;
	MAP_TRIES(MAP_TRIE)
#undef MAP_TRIE
	return map;
}

struct cluster_map *map_clone(const struct cluster_map *map)
{
	struct cluster_map *clone = malloc(sizeof(*clone));
	size_t skip = offsetof(struct cluster_map, level);

	if (!clone)
		return NULL;
	/* Others count at `refs` meanwhile. */
	memcpy((uint8_t *)clone + skip, (const uint8_t *)map + skip, sizeof(*clone) - skip);
	clone->refs = 1;
#define MAP_TRIE(name) trie_share(&clone->name, &map->name);
	MAP_TRIES(MAP_TRIE)
#undef MAP_TRIE
	return clone;
}

struct cluster_map *cluster_map_get(struct cluster_map *map)
{
	(void)__atomic_fetch_add(&map->refs, 1, __ATOMIC_RELAXED);
	return map;
}

void cluster_map_put(struct cluster_map *map)
{
	if (!map || __atomic_fetch_sub(&map->refs, 1, __ATOMIC_ACQ_REL) != 1)
		return;
#define MAP_TRIE(name) trie_done(&map->name);
	MAP_TRIES(MAP_TRIE)
#undef MAP_TRIE
	free(map);
}

/* ---- the map ---- */

uint64_t cluster_index(const struct cluster_map *map)
{
	return map->index;
}

bool cluster_is_formatted(const struct cluster_map *map)
{
	return map->policy_count > 0;
}

const struct uuid *cluster_uuid(const struct cluster_map *map)
{
	return &map->uuid;
}

uint32_t cluster_level(const struct cluster_map *map)
{
	return map->level;
}

uint64_t cluster_shutdown_index(const struct cluster_map *map)
{
	return map->shutdown;
}

uint64_t cluster_next_id(const struct cluster_map *map)
{
	return map->next_id;
}

/* ---- nodes and stores ---- */

static const struct cluster_node *node_of(const struct trie_item *item)
{
	return item ? &((const struct node_item *)item)->node : NULL;
}

static const struct bucket_item *bucket_find(const struct trie *trie, uint64_t key)
{
	return (const struct bucket_item *)trie_find(trie, key);
}

const struct cluster_node *cluster_node(const struct cluster_map *map, uint32_t id)
{
	return node_of(trie_find(&map->nodes, id));
}

const struct cluster_node *cluster_node_next(const struct cluster_map *map, uint32_t after)
{
	return node_of(trie_next(&map->nodes, (uint64_t)after + 1));
}

const struct cluster_node *cluster_node_by_uuid(const struct cluster_map *map,
						const struct uuid *uuid)
{
	const struct bucket_item *bucket =
		bucket_find(&map->node_uuids, hash_bytes(uuid->bytes, sizeof(uuid->bytes)));

	for (uint32_t i = 0; bucket && i < bucket->count; i++) {
		const struct cluster_node *node = cluster_node(map, (uint32_t)bucket->ids[i]);

		if (node && uuid_is_equal(&node->uuid, uuid))
			return node;
	}
	return NULL;
}

const struct cluster_node *cluster_node_by_session(const struct cluster_map *map, uint64_t session)
{
	const struct bucket_item *bucket = bucket_find(&map->sessions, session);

	return bucket ? cluster_node(map, (uint32_t)bucket->ids[0]) : NULL;
}

uint32_t cluster_node_count(const struct cluster_map *map)
{
	return map->nodes.count;
}

static const struct cluster_store *store_of(const struct trie_item *item)
{
	return item ? &((const struct store_item *)item)->store : NULL;
}

const struct cluster_store *cluster_store(const struct cluster_map *map, uint32_t id)
{
	return store_of(trie_find(&map->stores, id));
}

const struct cluster_store *cluster_store_next(const struct cluster_map *map, uint32_t after)
{
	return store_of(trie_next(&map->stores, (uint64_t)after + 1));
}

const struct cluster_store *cluster_store_by_uuid(const struct cluster_map *map,
						  const struct uuid *uuid)
{
	const struct bucket_item *bucket =
		bucket_find(&map->store_uuids, hash_bytes(uuid->bytes, sizeof(uuid->bytes)));

	for (uint32_t i = 0; bucket && i < bucket->count; i++) {
		const struct cluster_store *store = cluster_store(map, (uint32_t)bucket->ids[i]);

		if (store && uuid_is_equal(&store->uuid, uuid))
			return store;
	}
	return NULL;
}

uint32_t cluster_store_count(const struct cluster_map *map)
{
	return map->stores.count;
}

bool cluster_store_is_up(const struct cluster_map *map, uint32_t id)
{
	const struct cluster_store *store = cluster_store(map, id);
	const struct cluster_node *node = store ? cluster_node(map, store->node) : NULL;

	return node && (node->flags & CLUSTER_NODE_UP) && (store->flags & CLUSTER_STORE_UP) &&
	       !(store->flags & CLUSTER_STORE_FAILED);
}

uint32_t cluster_store_node(const struct cluster_map *map, uint32_t id)
{
	const struct cluster_store *store = cluster_store(map, id);

	return store ? store->node : 0;
}

/* ---- policies and PGs ---- */

const struct cluster_policy *cluster_policy(const struct cluster_map *map, uint32_t id)
{
	return id < map->policy_count ? &map->policies[id] : NULL;
}

uint32_t cluster_policy_count(const struct cluster_map *map)
{
	return map->policy_count;
}

static const struct cluster_pg *pg_of(const struct trie_item *item)
{
	return item ? &((const struct pg_item *)item)->pg : NULL;
}

const struct cluster_pg *cluster_pg(const struct cluster_map *map, uint32_t id)
{
	return pg_of(trie_find(&map->pgs, id));
}

const struct cluster_pg *cluster_pg_next(const struct cluster_map *map, uint32_t from)
{
	return pg_of(trie_next(&map->pgs, from));
}

uint32_t cluster_pg_total(const struct cluster_map *map)
{
	return map->pgs.count;
}

/* ---- volumes ---- */

static const struct cluster_volume *volume_of(const struct trie_item *item)
{
	return item ? &((const struct volume_item *)item)->volume : NULL;
}

const struct cluster_volume *cluster_volume(const struct cluster_map *map, uint64_t id)
{
	return volume_of(trie_find(&map->volumes, id));
}

const struct cluster_volume *cluster_volume_next(const struct cluster_map *map, uint64_t after)
{
	return after == UINT64_MAX ? NULL : volume_of(trie_next(&map->volumes, after + 1));
}

const struct cluster_volume *cluster_volume_by_name(const struct cluster_map *map, const char *name)
{
	const struct bucket_item *bucket = bucket_find(&map->names, hash_bytes(name, strlen(name)));

	for (uint32_t i = 0; bucket && i < bucket->count; i++) {
		const struct cluster_volume *volume = cluster_volume(map, bucket->ids[i]);

		if (volume && strcmp(volume->name, name) == 0)
			return volume;
	}
	return NULL;
}

uint32_t cluster_volume_count(const struct cluster_map *map)
{
	return map->volumes.count;
}

bool cluster_layer_is_live(const struct cluster_map *map, uint64_t layer)
{
	return trie_find(&map->layers, layer) != NULL;
}

uint64_t cluster_layer_end(const struct cluster_map *map, uint64_t layer)
{
	const struct trie_item *item = trie_find(&map->layers, layer);
	const struct bucket_item *bucket = (const void *)item;
	uint64_t end = 0;

	for (uint32_t i = 0; bucket && i < bucket->count; i++) {
		const struct cluster_volume *volume = cluster_volume(map, bucket->ids[i]);

		if (volume)
			end = max_of(end, volume->size_bytes);
	}
	return end;
}

uint64_t cluster_garbage_index(const struct cluster_map *map)
{
	return map->garbage_index;
}
