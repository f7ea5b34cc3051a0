/*
 * What layers hold, added up from what each PG's primary says. The sums count each object once only if they are over
 * each PG once: every part names its PGs, and a figure is told only when those are all that the volume's policy has.
 * Who asks while a PG changes hands may see it counted by nobody, or by two: then the figure is not known.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "sheep/service/figures.h"

int figures_use_init(struct figures_use *use, const uint64_t *layers, uint32_t count)
{
	*use = (struct figures_use){0};
	if (count == 0)
		return 0;
	use->layers = calloc(count, sizeof(*use->layers));
	if (!use->layers)
		return -ENOMEM;
	use->layer_count = count;
	for (uint32_t i = 0; i < count; i++)
		use->layers[i].layer = layers[i];
	return 0;
}

void figures_use_done(struct figures_use *use)
{
	free(use->layers);
	free(use->pgs);
	*use = (struct figures_use){0};
}

static int make_room(struct figures_use *use, uint32_t more)
{
	uint32_t need = use->pg_count + more, room = max_of(use->pg_room, 64u);

	while (room < need)
		room *= 2;
	if (room == use->pg_room)
		return 0;
	void *grown = realloc(use->pgs, room * sizeof(*use->pgs));
	if (!grown)
		return -ENOMEM;
	use->pgs = grown;
	use->pg_room = room;
	return 0;
}

int figures_use_add_pg(struct figures_use *use, uint32_t pg)
{
	if (make_room(use, 1) < 0)
		return -ENOMEM;
	use->pgs[use->pg_count++] = pg;
	return 0;
}

void figures_use_void(struct figures_use *use)
{
	for (uint32_t i = 0; i < use->layer_count; i++)
		use->layers[i].data_blocks = use->layers[i].missing = 0;
	use->pg_count = 0;
}

void figures_use_add(struct figures_use *to, const struct figures_use *from)
{
	to->is_unclear |= from->is_unclear;
	if (to->layer_count == 0 || from->pg_count == 0)
		return;
	assert(to->layer_count == from->layer_count);
	if (make_room(to, from->pg_count) < 0) {
		to->is_unclear = true;
		return;
	}
	memcpy(to->pgs + to->pg_count, from->pgs, from->pg_count * sizeof(*to->pgs));
	to->pg_count += from->pg_count;
	for (uint32_t i = 0; i < to->layer_count; i++) {
		to->layers[i].data_blocks += from->layers[i].data_blocks;
		to->layers[i].missing += from->layers[i].missing;
	}
}

static int compare_pgs(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

void figures_use_close(struct figures_use *use)
{
	if (use->pg_count > 0)
		qsort(use->pgs, use->pg_count, sizeof(*use->pgs), compare_pgs);
	for (uint32_t i = 1; i < use->pg_count; i++)
		use->is_unclear |= use->pgs[i] == use->pgs[i - 1];
}

bool figures_use_is_of(const struct figures_use *use, const struct cluster_map *map, uint32_t node)
{
	for (uint32_t i = 0; i < use->pg_count; i++) {
		const struct cluster_pg *pg = cluster_pg(map, use->pgs[i]);
		if (!pg || !pg->primary || cluster_store_node(map, pg->primary) != node)
			return false;
	}
	return true;
}

/* How many PGs are below @pg? */
static uint32_t rank_of(const struct figures_use *use, uint64_t pg)
{
	uint32_t low = 0, high = use->pg_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (use->pgs[middle] < pg)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* None is in it twice, so that their number tells. */
static bool has_all_of(const struct figures_use *use, const struct cluster_policy *policy)
{
	uint64_t first = (uint64_t)policy->id << CLUSTER_PG_POLICY_SHIFT;

	return rank_of(use, first + policy->pg_count) - rank_of(use, first) == policy->pg_count;
}

static int compare_layers(const void *a, const void *b)
{
	const struct figures_layer *x = a, *y = b;

	return x->layer < y->layer ? -1 : x->layer > y->layer;
}

bool figures_used(const struct figures_use *use, const struct cluster_map *map,
		  const struct cluster_volume *volume, uint64_t *out_bytes)
{
	const struct cluster_policy *policy = cluster_policy(map, volume->policy);
	uint64_t blocks = 0;

	if (use->layer_count == 0 || use->is_unclear || !policy || !has_all_of(use, policy))
		return false;
	for (uint32_t i = 0; i < volume->layer_count; i++) {
		const struct figures_layer key = {.layer = volume->layers[i]};
		const struct figures_layer *layer =
			bsearch(&key, use->layers, use->layer_count, sizeof(key), compare_layers);
		if (!layer || layer->missing > 0)
			return false;
		blocks += layer->data_blocks;
	}
	*out_bytes = blocks * BLOCK_SIZE;
	return true;
}
