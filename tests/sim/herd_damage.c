/*
 * Copies that are damaged: as a whole, and one block as if a read had found it.
 */
#include "tests/sim/herd_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sheep/store/store_priv.h"

/* ---- holes ---- */

struct hole {
	struct store_append append;
	bool is_there;
};

static void on_hole(struct store_append *append, int result)
{
	assert_int_equal(result, 0);
	container_of_type(append, struct hole, append)->is_there = true;
}

static bool hole_is_there(void *context)
{
	return ((struct hole *)context)->is_there;
}

struct object_key herd_make_hole(struct herd *herd, unsigned node, uint32_t index)
{
	const struct cluster_volume *volume = cluster_volume_by_name(herd_map(herd), HERD_VOLUME);
	struct hole hole = {
		.append = {.done = on_hole,
			   .family = volume->family,
			   .key = {.layer = volume->layers[0], .index = index},
			   .flags = STORE_UNSEQUENCED | STORE_ANY_PREVIOUS | STORE_SET_MISSING}};
	struct store_object object;

	assert_true(store_object(herd->nodes[node].store, 0, &hole.append.key, &object) > 0);
	hole.append.version = object.version;
	assert_int_equal(store_append(herd->nodes[node].store, &hole.append), 0);
	(void)sim_world_run_until(herd->world, sim_now(herd->world) + 100 * NS_PER_MS,
				  hole_is_there, &hole);
	assert_true(hole.is_there);
	return hole.append.key;
}

struct spoil {
	struct store_append append;
	struct herd_node *node;
};

static void on_damaged(struct store_append *append, int result)
{
	struct spoil *spoil = container_of_type(append, struct spoil, append);
	struct herd_node *node = spoil->node;

	if (result == 0 && node->set)
		pg_set_store_corrupt(node->set, node->store, append->pg, &append->key);
}

bool herd_damage(struct herd *herd, unsigned node, uint32_t pg, uint64_t family,
		 const struct object_key *key)
{
	struct spoil *spoil = calloc(1, sizeof(*spoil));
	struct store_object object;

	assert_non_null(spoil);
	herd_bury(spoil); /* its start may be killed meanwhile */
	assert_true(store_object(herd->nodes[node].store, pg, key, &object) > 0);
	spoil->node = &herd->nodes[node];
	spoil->append = (struct store_append){.done = on_damaged,
					      .pg = pg,
					      .family = family,
					      .key = *key,
					      .version = object.version,
					      .flags = STORE_UNSEQUENCED | STORE_ANY_PREVIOUS |
						       STORE_SET_MISSING};
	return store_append(herd->nodes[node].store, &spoil->append) == 0;
}

/* ---- damage ---- */

/* Where the block lives. 0: it is no data, or its page is not in memory. */
static uint32_t place_of(struct shard *shard, uint32_t pg_id, const struct object_key *key,
			 uint16_t block)
{
	struct pg *pg = shard_pg(shard, pg_id);
	struct object *object = pg ? table_find(&pg->table, key, NULL) : NULL;
	uint64_t slot = object && object->slots ? object->slots[block / DISK_PAGE_BLOCKS] : 0;
	uint32_t place = slot_is_page(slot) ? slot_page(slot)->places[block % DISK_PAGE_BLOCKS] : 0;

	return place_state(place) == BLOCK_DATA ? place : 0;
}

bool herd_damage_block(struct herd *herd, unsigned node, uint32_t pg, const struct object_key *key,
		       uint16_t block)
{
	struct shard *shard = shard_of(herd->nodes[node].store, pg);
	uint32_t place = place_of(shard, pg, key, block);

	if (shard->state != SHARD_RUNNING || place == 0)
		return false;
	shard_corrupt(shard, pg, key, block, 1, place);
	return true;
}
