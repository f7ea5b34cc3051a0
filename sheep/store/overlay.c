/*
 * What entries in flight will make of their objects: a chained hash of recycled nodes. A second hash, by
 * PG alone, is for walks over the objects of one: a step looks at what is in flight there, not at
 * everything.
 */
#include <stdlib.h>

#include "lib/base/hash.h"
#include "sheep/store/store_priv.h"

#define SLAB_NODES   256u
#define BUCKETS_INIT 1024u

struct flight_slab {
	struct flight_slab *next;
	struct flight nodes[SLAB_NODES];
};

static uint32_t bucket_of(const struct overlay *overlay, uint32_t pg, const struct object_key *key)
{
	return (uint32_t)hash_u64_pair(key->layer, (uint64_t)pg << 32 | key->index) & overlay->mask;
}

static uint32_t list_of(uint32_t pg)
{
	return (uint32_t)hash_u64(pg) % OVERLAY_PGS;
}

static bool is_same(const struct flight *f, uint32_t pg, const struct object_key *key)
{
	return f->key.index == key->index && f->key.layer == key->layer && f->pg == pg;
}

struct flight *overlay_find(const struct overlay *overlay, uint32_t pg,
			    const struct object_key *key)
{
	struct flight *f = overlay->buckets[bucket_of(overlay, pg, key)];

	while (f && !is_same(f, pg, key))
		f = f->next;
	return f;
}

static int grow(struct overlay *overlay)
{
	uint32_t mask = overlay->mask * 2 + 1;
	struct flight **old = overlay->buckets;
	struct flight **buckets = calloc(mask + 1ul, sizeof(*buckets));

	if (!buckets)
		return -ENOMEM;

	uint32_t old_mask = overlay->mask;

	overlay->buckets = buckets;
	overlay->mask = mask;
	for (uint32_t i = 0; i <= old_mask; i++)
		for (struct flight *f = old[i], *next; f; f = next) {
			uint32_t b = bucket_of(overlay, f->pg, &f->key);
			next = f->next;
			f->next = buckets[b];
			buckets[b] = f;
		}
	free(old);
	return 0;
}

static int refill(struct overlay *overlay)
{
	struct flight_slab *slab = calloc(1, sizeof(*slab));

	if (!slab)
		return -ENOMEM;
	slab->next = overlay->slabs;
	overlay->slabs = slab;
	for (uint32_t i = 0; i < SLAB_NODES; i++) {
		slab->nodes[i].next = overlay->spare;
		overlay->spare = &slab->nodes[i];
	}
	return 0;
}

struct flight *overlay_take(struct overlay *overlay, uint32_t pg, const struct object_key *key)
{
	struct flight *f = overlay_find(overlay, pg, key);

	if (f) {
		f->count++;
		return f;
	}
	if (overlay->count > overlay->mask)
		(void)grow(overlay); /* without it chains are longer, nothing worse */
	if (!overlay->spare && refill(overlay) < 0)
		return NULL;
	f = overlay->spare;
	overlay->spare = f->next;

	uint32_t b = bucket_of(overlay, pg, key);

	*f = (struct flight){.next = overlay->buckets[b], .key = *key, .pg = pg, .count = 1};
	overlay->buckets[b] = f;
	cds_list_add_tail(&f->pg_link, &overlay->by_pg[list_of(pg)]);
	overlay->count++;
	return f;
}

void overlay_release(struct overlay *overlay, uint32_t pg, const struct object_key *key)
{
	struct flight **at = &overlay->buckets[bucket_of(overlay, pg, key)];

	while (*at && !is_same(*at, pg, key))
		at = &(*at)->next;

	struct flight *f = *at;

	assert(f && f->count > 0);
	if (--f->count > 0)
		return;
	*at = f->next;
	cds_list_del(&f->pg_link);
	f->next = overlay->spare;
	overlay->spare = f;
	overlay->count--;
}

const struct flight *overlay_next(const struct overlay *overlay, uint32_t pg,
				  const struct object_key *after)
{
	const struct flight *best = NULL, *f;

	cds_list_for_each_entry(f, &overlay->by_pg[list_of(pg)], pg_link) {
		if (f->pg != pg || !f->exists || (after && object_key_compare(&f->key, after) <= 0))
			continue;
		if (!best || object_key_compare(&f->key, &best->key) < 0)
			best = f;
	}
	return best;
}

static const struct flight *skip_others(const struct overlay *overlay, uint32_t pg,
					const struct cds_list_head *at)
{
	const struct cds_list_head *head = &overlay->by_pg[list_of(pg)];

	for (; at != head; at = at->next) {
		const struct flight *f = cds_list_entry(at, struct flight, pg_link);
		if (f->pg == pg)
			return f;
	}
	return NULL;
}

const struct flight *overlay_first(const struct overlay *overlay, uint32_t pg)
{
	return skip_others(overlay, pg, overlay->by_pg[list_of(pg)].next);
}

const struct flight *overlay_after(const struct overlay *overlay, uint32_t pg,
				   const struct flight *f)
{
	return skip_others(overlay, pg, f->pg_link.next);
}

int overlay_init(struct overlay *overlay)
{
	*overlay = (struct overlay){.mask = BUCKETS_INIT - 1};
	for (uint32_t i = 0; i < OVERLAY_PGS; i++)
		CDS_INIT_LIST_HEAD(&overlay->by_pg[i]);
	overlay->buckets = calloc(BUCKETS_INIT, sizeof(*overlay->buckets));
	return overlay->buckets ? 0 : -ENOMEM;
}

void overlay_done(struct overlay *overlay)
{
	for (struct flight_slab *s = overlay->slabs, *next; s; s = next) {
		next = s->next;
		free(s);
	}
	free(overlay->buckets);
	*overlay = (struct overlay){0};
}
