/*
 * How a command changes its copy of the map: everything that is kept in more than one
 * place (an item and what finds it) is changed here and nowhere else, and everything
 * that is changed is noted for the delta.
 *
 * An item that was noted carries the index of the entry, so that it is noted once. The
 * first lack of memory makes the whole edit fail; until it is thrown away the map
 * stays whole, whatever its content.
 */
#include <stdlib.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "sheep/cluster/cluster_priv.h"

/* ---- the delta ---- */

static void note_id(struct cluster_edit *edit, struct cluster_ids *list, uint64_t id)
{
	if (list->count == list->room) {
		uint32_t room = list->room ? list->room * 2 : 8;
		uint64_t *ids = realloc(list->ids, room * sizeof(*ids));

		if (!ids) {
			edit->no_memory = true;
			return;
		}
		list->ids = ids;
		list->room = room;
	}
	list->ids[list->count++] = id;
}

static void note_item(struct cluster_edit *edit, struct cluster_ids *list, struct trie_item *item)
{
	if (item->noted == edit->index)
		return;
	item->noted = edit->index;
	note_id(edit, list, item->key);
}

static struct trie_item *edit_item(struct cluster_edit *edit, struct trie *trie,
				   struct cluster_ids *list, uint64_t id)
{
	struct trie_item *item = trie_edit(trie, id);

	if (item)
		note_item(edit, list, item);
	else
		edit->no_memory = true;
	return item;
}

static struct trie_item *add_item(struct cluster_edit *edit, struct trie *trie,
				  struct cluster_ids *list, uint64_t id, size_t size)
{
	struct trie_item *item = calloc(1, size);

	if (!item) {
		edit->no_memory = true;
		return NULL;
	}
	item->refs = 1;
	item->key = id;
	if (trie_put(trie, item) < 0) {
		edit->no_memory = true;
		return NULL;
	}
	note_item(edit, list, item);
	return item;
}

/* An item that goes is in the delta, once. */
static void remove_item(struct cluster_edit *edit, struct trie *trie, struct cluster_ids *list,
			uint64_t id)
{
	const struct trie_item *item = trie_find(trie, id);

	if (!item)
		return;
	if (item->noted != edit->index)
		note_id(edit, list, id);
	if (trie_remove(trie, id) < 0)
		edit->no_memory = true;
}

struct cluster_node *edit_node(struct cluster_edit *edit, uint32_t id)
{
	struct trie_item *item = edit_item(edit, &edit->map->nodes, &edit->result->nodes, id);

	return item ? &((struct node_item *)item)->node : NULL;
}

struct cluster_store *edit_store(struct cluster_edit *edit, uint32_t id)
{
	struct trie_item *item = edit_item(edit, &edit->map->stores, &edit->result->stores, id);

	return item ? &((struct store_item *)item)->store : NULL;
}

struct cluster_pg *edit_pg(struct cluster_edit *edit, uint32_t id)
{
	struct trie_item *item = edit_item(edit, &edit->map->pgs, &edit->result->pgs, id);

	return item ? &((struct pg_item *)item)->pg : NULL;
}

struct cluster_volume *edit_volume(struct cluster_edit *edit, uint64_t id)
{
	struct trie_item *item = edit_item(edit, &edit->map->volumes, &edit->result->volumes, id);

	if (!item)
		return NULL;
	((struct volume_item *)item)->volume.changed = edit->index;
	return &((struct volume_item *)item)->volume;
}

/* ---- buckets: what finds things ---- */

static struct bucket_item *bucket_new(uint64_t key, uint32_t count)
{
	struct bucket_item *bucket = malloc(sizeof(*bucket) + count * sizeof(bucket->ids[0]));

	if (!bucket)
		return NULL;
	bucket->item = (struct trie_item){.refs = 1, .key = key};
	bucket->count = count;
	return bucket;
}

/* Put (key -> id) in; ids ascend, so that equal maps have equal buckets. */
static void bucket_add(struct cluster_edit *edit, struct trie *trie, uint64_t key, uint64_t id)
{
	const struct bucket_item *old = (const struct bucket_item *)trie_find(trie, key);
	uint32_t count = old ? old->count : 0, at = 0;
	struct bucket_item *bucket = bucket_new(key, count + 1);

	if (!bucket) {
		edit->no_memory = true;
		return;
	}
	while (at < count && old->ids[at] < id) {
		bucket->ids[at] = old->ids[at];
		at++;
	}
	bucket->ids[at] = id;
	for (; at < count; at++)
		bucket->ids[at + 1] = old->ids[at];
	if (trie_put(trie, &bucket->item) < 0)
		edit->no_memory = true;
}

static void bucket_remove(struct cluster_edit *edit, struct trie *trie, uint64_t key, uint64_t id)
{
	const struct bucket_item *old = (const struct bucket_item *)trie_find(trie, key);
	struct bucket_item *bucket;
	uint32_t count = 0;

	if (!old)
		return;
	if (old->count == 1 && old->ids[0] == id) {
		if (trie_remove(trie, key) < 0)
			edit->no_memory = true;
		return;
	}
	bucket = bucket_new(key, old->count - 1);
	if (!bucket) {
		edit->no_memory = true;
		return;
	}
	for (uint32_t i = 0; i < old->count && count < bucket->count; i++)
		if (old->ids[i] != id)
			bucket->ids[count++] = old->ids[i];
	if (trie_put(trie, &bucket->item) < 0)
		edit->no_memory = true;
}

static uint64_t uuid_hash(const struct uuid *uuid)
{
	return hash_bytes(uuid->bytes, sizeof(uuid->bytes));
}

/* ---- nodes and stores ---- */

struct cluster_node *edit_add_node(struct cluster_edit *edit, uint32_t id, const struct uuid *uuid)
{
	struct node_item *item = (struct node_item *)add_item(
		edit, &edit->map->nodes, &edit->result->nodes, id, sizeof(struct node_item));

	if (!item)
		return NULL;
	item->node.id = id;
	item->node.uuid = *uuid;
	bucket_add(edit, &edit->map->node_uuids, uuid_hash(uuid), id);
	return &item->node;
}

struct cluster_store *edit_add_store(struct cluster_edit *edit, uint32_t id,
				     const struct uuid *uuid)
{
	struct store_item *item = (struct store_item *)add_item(
		edit, &edit->map->stores, &edit->result->stores, id, sizeof(struct store_item));

	if (!item)
		return NULL;
	item->store.id = id;
	item->store.uuid = *uuid;
	bucket_add(edit, &edit->map->store_uuids, uuid_hash(uuid), id);
	return &item->store;
}

void edit_remove_node(struct cluster_edit *edit, uint32_t id)
{
	const struct cluster_node *node = cluster_node(edit->map, id);

	bucket_remove(edit, &edit->map->node_uuids, uuid_hash(&node->uuid), id);
	remove_item(edit, &edit->map->nodes, &edit->result->nodes, id);
}

void edit_remove_store(struct cluster_edit *edit, uint32_t id)
{
	const struct cluster_store *store = cluster_store(edit->map, id);

	bucket_remove(edit, &edit->map->store_uuids, uuid_hash(&store->uuid), id);
	remove_item(edit, &edit->map->stores, &edit->result->stores, id);
}

void edit_node_session(struct cluster_edit *edit, struct cluster_node *node, uint64_t session)
{
	if (node->session)
		bucket_remove(edit, &edit->map->sessions, node->session, node->id);
	node->session = session;
	if (session)
		bucket_add(edit, &edit->map->sessions, session, node->id);
}

/* ---- which commands of a node were applied ---- */

bool node_has_applied(const struct cluster_node *node, uint64_t sequence)
{
	uint64_t bit = sequence % CLUSTER_SEQUENCE_WINDOW;

	if (sequence > node->sequence)
		return false;
	if (node->sequence - sequence >= CLUSTER_SEQUENCE_WINDOW)
		return true; /* too old to tell: as if */
	return node->applied[bit / 64] >> (bit % 64) & 1;
}

static void window_set(struct cluster_node *node, uint64_t sequence, uint64_t value)
{
	uint64_t bit = sequence % CLUSTER_SEQUENCE_WINDOW;

	node->applied[bit / 64] &= ~(1ull << (bit % 64));
	node->applied[bit / 64] |= value << (bit % 64);
}

void edit_node_applied(struct cluster_edit *edit, uint32_t id, uint64_t sequence)
{
	struct trie_item *item = trie_edit(&edit->map->nodes, id);
	struct cluster_node *node;

	if (!item) {
		edit->no_memory = true;
		return;
	}
	node = &((struct node_item *)item)->node;
	if (sequence > node->sequence) {
		/* The window moves up: what comes into it was not applied yet. */
		if (sequence - node->sequence >= CLUSTER_SEQUENCE_WINDOW)
			memset(node->applied, 0, sizeof(node->applied));
		else
			for (uint64_t s = node->sequence + 1; s < sequence; s++)
				window_set(node, s, 0);
		node->sequence = sequence;
	}
	window_set(node, sequence, 1);
}

/* ---- PGs ---- */

struct cluster_pg *edit_add_pg(struct cluster_edit *edit, uint32_t id)
{
	struct pg_item *item = (struct pg_item *)add_item(edit, &edit->map->pgs, &edit->result->pgs,
							  id, sizeof(struct pg_item));

	if (!item)
		return NULL;
	item->pg.id = id;
	return &item->pg;
}

/* ---- volumes ---- */

struct cluster_volume *edit_add_volume(struct cluster_edit *edit, uint64_t id)
{
	struct volume_item *item = (struct volume_item *)add_item(
		edit, &edit->map->volumes, &edit->result->volumes, id, sizeof(struct volume_item));

	if (!item)
		return NULL;
	item->volume.id = id;
	item->volume.created = edit->index;
	item->volume.changed = edit->index;
	return &item->volume;
}

void edit_volume_name(struct cluster_edit *edit, struct cluster_volume *volume, const char *name)
{
	struct trie *names = &edit->map->names;
	char text[LOG_NAME_SIZE];

	/* The caller checked its length. */
	if (text_copy(text, sizeof(text), name) < 0)
		return;
	if (volume->name[0])
		bucket_remove(edit, names, hash_bytes(volume->name, strlen(volume->name)),
			      volume->id);
	memset(volume->name, 0, sizeof(volume->name));
	(void)text_copy(volume->name, sizeof(volume->name), text);
	if (name[0])
		bucket_add(edit, names, hash_bytes(text, strlen(text)), volume->id);
}

/* Put a copy of @count elements in the place of *@list. */
static bool replace_list(struct cluster_edit *edit, const void **list, const void *from,
			 uint32_t count, size_t size)
{
	void *copy = NULL;

	if (count) {
		copy = malloc(count * size);
		if (!copy) {
			edit->no_memory = true;
			return false;
		}
		memcpy(copy, from, count * size);
	}
	free((void *)(uintptr_t)*list);
	*list = copy;
	return true;
}

void edit_volume_layers(struct cluster_edit *edit, struct cluster_volume *volume,
			const uint64_t *layers, uint32_t count)
{
	for (uint32_t i = 0; i < volume->layer_count; i++)
		bucket_remove(edit, &edit->map->layers, volume->layers[i], volume->id);
	volume->layer_count = 0;
	if (!replace_list(edit, (const void **)&volume->layers, layers, count, sizeof(*layers)))
		return;
	volume->layer_count = count;
	for (uint32_t i = 0; i < count; i++)
		bucket_add(edit, &edit->map->layers, volume->layers[i], volume->id);
}

void edit_volume_openers(struct cluster_edit *edit, struct cluster_volume *volume,
			 const struct cluster_opener *openers, uint32_t count)
{
	if (replace_list(edit, (const void **)&volume->openers, openers, count, sizeof(*openers)))
		volume->opener_count = count;
}

void edit_volume_properties(struct cluster_edit *edit, struct cluster_volume *volume,
			    const struct cluster_property *properties, uint32_t count)
{
	bool ok = true;
	struct cluster_property *copy = properties_copy(properties, count, &ok);

	if (!ok) {
		edit->no_memory = true;
		return;
	}
	free((void *)(uintptr_t)volume->properties);
	volume->properties = copy;
	volume->property_count = count;
}

void edit_remove_volume(struct cluster_edit *edit, uint64_t id)
{
	struct cluster_volume *volume = edit_volume(edit, id);

	if (!volume)
		return;
	edit_volume_name(edit, volume, "");
	edit_volume_layers(edit, volume, NULL, 0);
	remove_item(edit, &edit->map->volumes, &edit->result->volumes, id);
}
