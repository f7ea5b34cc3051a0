/*
 * Which objects there are: the table, and over it what is in flight. Both are in key order per PG, so a
 * walk merges them.
 */
#include "sheep/store/store_priv.h"

static void describe(const struct flight *f, const struct object *object, struct store_object *out)
{
	*out = (struct store_object){0};
	if (object)
		*out = (struct store_object){.key = object_key_of(object),
					     .family = object->family,
					     .version = object->version,
					     .is_missing = object->flags & OBJECT_MISSING,
					     .is_partial = object->flags &
							   (OBJECT_PARTIAL | OBJECT_DAMAGED),
					     .data_blocks = object->data_blocks,
					     .lost_blocks = object->lost_blocks};
	if (f) {
		out->key = f->key;
		out->family = f->family;
		out->version = f->version;
		out->is_missing = f->is_missing;
		out->is_partial |= f->is_missing;
		out->is_in_flight = true;
	}
}

int store_object(struct store *store, uint32_t pg_id, const struct object_key *key,
		 struct store_object *out)
{
	struct shard *shard = shard_of(store, pg_id);
	struct pg *pg = shard_pg(shard, pg_id);
	const struct flight *f = overlay_find(&shard->overlay, pg_id, key);
	const struct object *object = pg ? table_find(&pg->table, key, NULL) : NULL;

	if (f ? !f->exists : !object)
		return 0;
	describe(f, object, out);
	return 1;
}

int store_object_next(struct store *store, uint32_t pg_id, const struct object_key *after,
		      struct store_object *out)
{
	struct shard *shard = shard_of(store, pg_id);
	struct pg *pg = shard_pg(shard, pg_id);
	const struct flight *f = overlay_next(&shard->overlay, pg_id, after);
	const struct object *object = pg ? table_next(&pg->table, after) : NULL;

	while (object) {
		struct object_key key = object_key_of(object);
		const struct flight *own = overlay_find(&shard->overlay, pg_id, &key);
		if (f && object_key_compare(&f->key, &key) < 0)
			break;
		if (!own || own->exists) {
			describe(own, object, out);
			return 1;
		}
		object = table_next(&pg->table, &key); /* its deletion is in flight */
	}
	if (!f)
		return 0;
	describe(f, NULL, out);
	return 1;
}

/* ---- all of a layer ---- */

/* The key right below (@layer, @index); false: there is none. */
static bool key_below(uint64_t layer, uint32_t index, struct object_key *out)
{
	if (index > 0)
		*out = (struct object_key){.layer = layer, .index = index - 1};
	else
		*out = (struct object_key){.layer = layer - 1, .index = UINT32_MAX};
	return index > 0 || layer > 0;
}

static void add_use(struct store_layer_use *use, const struct object *object)
{
	use->objects++;
	use->missing += (object->flags & OBJECT_MISSING) != 0;
	use->data_blocks += object->data_blocks;
}

/* From run to run of the table: a search for each of them, not for each object. */
bool store_layer_use(struct store *store, uint32_t pg_id, uint64_t layer, uint64_t *next,
		     uint32_t max, struct store_layer_use *use)
{
	const struct pg *pg = shard_pg(shard_of(store, pg_id), pg_id);
	uint32_t count;

	if (!pg)
		return true;
	while (*next <= UINT32_MAX) {
		struct object_key below;
		bool has_below = key_below(layer, (uint32_t)*next, &below);
		const struct object *run = table_run(&pg->table, has_below ? &below : NULL, &count);
		if (count == 0)
			return true;
		for (uint32_t i = 0; i < count; i++) {
			if (run[i].layer != layer)
				return true;
			if (max == 0)
				return false;
			add_use(use, &run[i]);
			*next = (uint64_t)run[i].index + 1;
			max--;
		}
	}
	return true;
}

/* ---- all of a PG ---- */

/* In place of what the table has of an object comes what is in flight. */
static void replace(const struct pg *pg, const struct flight *f, struct store_digest *out)
{
	const struct object *object = pg ? table_find(&pg->table, &f->key, NULL) : NULL;

	if (object) {
		out->digest -= store_digest_of(&f->key, object->version);
		out->missing -= (object->flags & OBJECT_MISSING) != 0;
		out->objects--;
	}
	if (f->exists) {
		out->digest += store_digest_of(&f->key, f->version);
		out->missing += f->is_missing;
		out->objects++;
	}
}

void store_pg_digest(struct store *store, uint32_t pg_id, struct store_digest *out)
{
	struct shard *shard = shard_of(store, pg_id);
	const struct pg *pg = shard_pg(shard, pg_id);
	const struct flight *f;

	*out = (struct store_digest){0};
	if (pg)
		*out = (struct store_digest){.digest = pg->digest,
					     .objects = pg->table.object_count,
					     .missing = pg->missing};
	for (f = overlay_first(&shard->overlay, pg_id); f;
	     f = overlay_after(&shard->overlay, pg_id, f))
		replace(pg, f, out);
}
