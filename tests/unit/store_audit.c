#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "sheep/store/store_priv.h"
#include "tests/unit/store_audit.h"

struct audit {
	struct shard *shard;
	uint64_t *live; /* by segment */
	uint32_t unplaced;
};

static uint32_t count_page(struct audit *audit, const struct page *page)
{
	uint32_t data = 0;

	for (uint32_t i = 0; i < DISK_PAGE_BLOCKS; i++)
		if (place_state(page->places[i]) == BLOCK_DATA) {
			audit->live[place_segment(audit->shard, page->places[i])] += DISK_BLOCK;
			data++;
		}
	if (page->disk)
		audit->live[place_segment(audit->shard, slot_place(page->disk))] +=
			slot_length(page->disk);
	else
		audit->unplaced++;
	return data;
}

/* What a damaged page knew is not counted again: reading it is how that is found. */
static bool has_damaged_pages(struct shard *shard)
{
	struct pg *pg, *next;

	HASH_ITER(hh, shard->pgs, pg, next) {
		struct object *object = table_next(&pg->table, NULL);
		while (object) {
			struct object_key key = object_key_of(object);
			for (uint8_t i = 0; object->slots && i < DISK_PAGES; i++)
				if (object->slots[i])
					assert_int_equal(cache_load_now(shard, pg->id, &key,
									object->slots, i),
							 0);
			object = table_next(&pg->table, &key);
		}
	}
	return shard->counters.checksum_errors > 0;
}

static void count_object(struct audit *audit, struct object *object)
{
	uint32_t data = 0;

	for (uint8_t i = 0; object->slots && i < DISK_PAGES; i++) {
		if (!object->slots[i])
			continue;
		data += count_page(audit, cache_page(audit->shard, object->slots[i]));
	}
	assert_int_equal(object->data_blocks, data);
}

static void count_pg(struct audit *audit, struct pg *pg)
{
	struct store *store = audit->shard->store;
	struct store_digest digest, sum = {0};
	struct store_object each;
	struct object_key after;
	struct object *object;
	uint64_t data = 0;

	for (object = table_next(&pg->table, NULL); object;
	     object = table_next(&pg->table, &after)) {
		after = object_key_of(object);
		count_object(audit, object);
		data += object->data_blocks;
	}
	assert_int_equal(pg->data_blocks, data);
	for (int more = store_object_next(store, pg->id, NULL, &each); more;
	     more = store_object_next(store, pg->id, &after, &each)) {
		after = each.key;
		sum.digest += store_digest_of(&each.key, each.version);
		sum.missing += each.is_missing;
		sum.objects++;
	}
	store_pg_digest(store, pg->id, &digest);
	assert_int_equal(digest.objects, sum.objects);
	assert_int_equal(digest.missing, sum.missing);
	assert_true(digest.digest == sum.digest);
}

static void audit_shard(struct shard *shard)
{
	struct audit audit = {.shard = shard};
	struct pg *pg, *next;
	uint64_t sum = 0;

	if (has_damaged_pages(shard))
		return;
	audit.live = calloc(shard->segment_count, sizeof(*audit.live));
	HASH_ITER(hh, shard->pgs, pg, next)
		count_pg(&audit, pg);
	for (uint32_t i = 0; i < shard->segment_count; i++) {
		if (audit.live[i] != shard->segments[i].live_bytes)
			fail_msg("segment %u: %llu bytes live, %llu counted", i,
				 (unsigned long long)audit.live[i],
				 (unsigned long long)shard->segments[i].live_bytes);
		sum += audit.live[i];
	}
	assert_int_equal(sum, shard->live_bytes);
	assert_int_equal(audit.unplaced, shard->cache.unplaced);
	free(audit.live);
	cache_trim(shard);
}

void store_audit(struct store *store)
{
	for (uint32_t i = 0; i < store->shard_count; i++)
		audit_shard(&store->shards[i]);
}
