/*
 * The objects of one PG in key order, in memory: chunks of sorted records.
 *
 * A record takes 48 bytes and no allocation of its own; it moves when others come and go, so
 * that a pointer to one is good until the next insert or remove. Before anything of a chunk
 * changes (the index pages of its objects included), table_touch() must be called: it lets a
 * checkpoint in progress write the chunk as it was.
 */
#ifndef STORE_TABLE_H
#define STORE_TABLE_H

#include "sheep/store/store.h"

#define TABLE_CHUNK 64u /* records; a split leaves two halves */

/*
 * A push that was worked out before damage was known does not make an object whole: CLEAR_MISSING is
 * void while it is DAMAGED (found while reading, not in the log), and while it is MARKED (by an entry
 * of our own) unless the pusher knew. Telling the object's sums is what makes a pusher know;
 * replacing or deleting it ends all damage.
 */
enum object_flags {
	OBJECT_MISSING = 1u << 0,
	OBJECT_DAMAGED = 1u << 1,
	OBJECT_MARKED = 1u << 2,
	OBJECT_TOLD = 1u << 3, /* all marks so far are known to who pushes; not on disk */
	OBJECT_PARTIAL =
		1u << 4, /* missing for another reason than blocks that are said to be lost */
	OBJECT_FLAGS = OBJECT_MISSING | OBJECT_DAMAGED | OBJECT_MARKED | OBJECT_PARTIAL,
};

struct object {
	uint64_t layer;
	uint64_t family;
	struct version version;
	uint64_t *slots; /* DISK_PAGES slots (page.h); NULL: no page exists */
	uint32_t index;
	uint16_t data_blocks;
	uint16_t flags : 5;	   /* enum object_flags */
	uint16_t lost_blocks : 11; /* up to OBJECT_BLOCKS */
};

struct table_chunk {
	uint32_t count;
	uint32_t saved; /* the last snapshot that has it */
	struct object objects[TABLE_CHUNK];
};

struct table;

/* Shared by the tables of a shard. */
struct table_saver {
	uint32_t sequence; /* raised when a snapshot begins */
	uint64_t objects;  /* in all tables */
	void (*save)(struct table_saver *saver, struct table *table, struct table_chunk *chunk);
};

struct table {
	struct table_saver *saver; /* borrowed */
	uint32_t pg;
	uint32_t chunk_count;
	uint32_t chunks_max;
	uint64_t object_count;
	struct table_chunk **chunks;
};

void table_init(struct table *table, struct table_saver *saver, uint32_t pg);
void table_done(struct table *table);

/* NULL when there is none. @out_chunk may be NULL. */
struct object *table_find(const struct table *table, const struct object_key *key,
			  struct table_chunk **out_chunk);
/* The first one above @after (NULL: the very first), or NULL. */
struct object *table_next(const struct table *table, const struct object_key *after);
/* The same with those that lie behind it in memory: *@out_count in key order. */
const struct object *table_run(const struct table *table, const struct object_key *after,
			       uint32_t *out_count);
/* A zeroed record with its key set; the key must not be there yet. Touches. NULL: no memory. */
struct object *table_insert(struct table *table, const struct object_key *key,
			    struct table_chunk **out_chunk);
/* Touches. @object is of this table. */
void table_remove(struct table *table, const struct object_key *key);
/* Anything of @chunk is about to change. */
static inline void table_touch(struct table *table, struct table_chunk *chunk)
{
	if (chunk->saved != table->saver->sequence) {
		chunk->saved = table->saver->sequence;
		table->saver->save(table->saver, table, chunk);
	}
}

static inline struct object_key object_key_of(const struct object *object)
{
	return (struct object_key){.layer = object->layer, .index = object->index};
}

#endif
