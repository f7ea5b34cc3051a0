/* An array of chunks in key order, each a sorted array of up to TABLE_CHUNK records. */
#include "sheep/store/table.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"

void table_init(struct table *table, struct table_saver *saver, uint32_t pg)
{
	*table = (struct table){.saver = saver, .pg = pg};
}

void table_done(struct table *table)
{
	for (uint32_t i = 0; i < table->chunk_count; i++)
		free(table->chunks[i]);
	free(table->chunks);
	table->chunks = NULL;
	table->chunk_count = table->chunks_max = 0;
	table->saver->objects -= table->object_count;
	table->object_count = 0;
}

static int compare(const struct object_key *key, const struct object *object)
{
	if (key->layer != object->layer)
		return key->layer < object->layer ? -1 : 1;
	return key->index < object->index ? -1 : key->index > object->index;
}

/* The last chunk whose first key is not above @key; 0 when there is none. */
static uint32_t chunk_of(const struct table *table, const struct object_key *key)
{
	uint32_t low = 0, high = table->chunk_count;

	while (high - low > 1) {
		uint32_t middle = (low + high) / 2;
		if (compare(key, &table->chunks[middle]->objects[0]) < 0)
			high = middle;
		else
			low = middle;
	}
	return low;
}

/* The first place in @chunk whose key is not below @key; *is_equal tells if it is the key. */
static uint32_t place_of(const struct table_chunk *chunk, const struct object_key *key,
			 bool *is_equal)
{
	uint32_t low = 0, high = chunk->count;

	*is_equal = false;
	while (low < high) {
		uint32_t middle = (low + high) / 2;
		int order = compare(key, &chunk->objects[middle]);
		if (order == 0) {
			*is_equal = true;
			return middle;
		}
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

struct object *table_find(const struct table *table, const struct object_key *key,
			  struct table_chunk **out_chunk)
{
	bool is_equal;

	if (table->chunk_count == 0)
		return NULL;

	struct table_chunk *chunk = table->chunks[chunk_of(table, key)];
	uint32_t place = place_of(chunk, key, &is_equal);

	if (!is_equal)
		return NULL;
	if (out_chunk)
		*out_chunk = chunk;
	return &chunk->objects[place];
}

/* Where the first one above @after is; NULL: there is none. */
static struct table_chunk *above(const struct table *table, const struct object_key *after,
				 uint32_t *out_place)
{
	bool is_equal;

	*out_place = 0;
	if (table->chunk_count == 0)
		return NULL;
	if (!after)
		return table->chunks[0];

	uint32_t i = chunk_of(table, after);
	uint32_t place = place_of(table->chunks[i], after, &is_equal);

	place += is_equal;
	if (place < table->chunks[i]->count) {
		*out_place = place;
		return table->chunks[i];
	}
	return i + 1 < table->chunk_count ? table->chunks[i + 1] : NULL;
}

struct object *table_next(const struct table *table, const struct object_key *after)
{
	uint32_t place;
	struct table_chunk *chunk = above(table, after, &place);

	return chunk ? &chunk->objects[place] : NULL;
}

const struct object *table_run(const struct table *table, const struct object_key *after,
			       uint32_t *out_count)
{
	uint32_t place;
	const struct table_chunk *chunk = above(table, after, &place);

	*out_count = chunk ? chunk->count - place : 0;
	return chunk ? &chunk->objects[place] : NULL;
}

/* Room for an empty chunk at @at of the array. */
static struct table_chunk *chunk_add(struct table *table, uint32_t at)
{
	if (table->chunk_count == table->chunks_max) {
		uint32_t max = table->chunks_max ? table->chunks_max * 2 : 4;
		void *chunks = realloc(table->chunks, max * sizeof(*table->chunks));
		if (!chunks)
			return NULL;
		table->chunks = chunks;
		table->chunks_max = max;
	}

	struct table_chunk *chunk = malloc(sizeof(*chunk));

	if (!chunk)
		return NULL;
	chunk->count = 0;
	chunk->saved = table->saver->sequence; /* nothing of it is in a snapshot */
	memmove(&table->chunks[at + 1], &table->chunks[at],
		(table->chunk_count - at) * sizeof(*table->chunks));
	table->chunks[at] = chunk;
	table->chunk_count++;
	return chunk;
}

/*
 * Make room in full chunk @at. At the right edge a new chunk is begun instead of splitting:
 * disks are filled in ascending order, and halves would stay half empty.
 */
static int split(struct table *table, uint32_t at, const struct object_key *key)
{
	struct table_chunk *left = table->chunks[at];
	bool is_end =
		at + 1 == table->chunk_count && compare(key, &left->objects[left->count - 1]) > 0;
	uint32_t keep = is_end ? left->count : TABLE_CHUNK / 2;
	struct table_chunk *right = chunk_add(table, at + 1);

	if (!right)
		return -1;
	right->count = left->count - keep;
	memcpy(right->objects, &left->objects[keep], right->count * sizeof(right->objects[0]));
	left->count = keep;
	return 0;
}

struct object *table_insert(struct table *table, const struct object_key *key,
			    struct table_chunk **out_chunk)
{
	bool is_equal;

	if (table->chunk_count == 0 && !chunk_add(table, 0))
		return NULL;

	uint32_t i = chunk_of(table, key);
	struct table_chunk *chunk = table->chunks[i];

	table_touch(table, chunk);
	if (chunk->count == TABLE_CHUNK) {
		if (split(table, i, key) < 0)
			return NULL;
		/* An empty right half takes the key; else whichever half it belongs to. */
		struct table_chunk *right = table->chunks[i + 1];
		if (right->count == 0 || compare(key, &right->objects[0]) >= 0)
			chunk = right;
	}

	uint32_t place = place_of(chunk, key, &is_equal);

	assert(!is_equal);
	struct object *object = &chunk->objects[place];

	memmove(object + 1, object, (chunk->count - place) * sizeof(*object));
	*object = (struct object){.layer = key->layer, .index = key->index};
	chunk->count++;
	table->object_count++;
	table->saver->objects++;
	if (out_chunk)
		*out_chunk = chunk;
	return object;
}

void table_remove(struct table *table, const struct object_key *key)
{
	bool is_equal;
	uint32_t i = chunk_of(table, key);
	struct table_chunk *chunk = table->chunks[i];

	table_touch(table, chunk);

	uint32_t place = place_of(chunk, key, &is_equal);

	assert(is_equal);
	chunk->count--;
	memmove(&chunk->objects[place], &chunk->objects[place + 1],
		(chunk->count - place) * sizeof(chunk->objects[0]));
	table->object_count--;
	table->saver->objects--;
	if (chunk->count == 0) {
		free(chunk);
		table->chunk_count--;
		memmove(&table->chunks[i], &table->chunks[i + 1],
			(table->chunk_count - i) * sizeof(*table->chunks));
	}
}
