/*
 * The index: what entries do to objects and their pages. The same code runs when a batch
 * completes and at replay, so that both come to the same state, the live bytes of every segment
 * included.
 *
 * An entry is applied whole: first every page that it needs is brought into memory (-EAGAIN until they
 * are there), then it changes things without waiting.
 */
#include <string.h>

#include "lib/base/bitmap.h"
#include "lib/base/log.h"
#include "lib/base/rule.h"
#include "sheep/store/store_priv.h"

/* ---- pages that an entry needs ---- */

/* Bring page @number of @object into memory if it exists. Adds to *waiting. */
static int need_page(struct shard *shard, uint32_t pg, const struct object *object, uint32_t number,
		     struct waiter *waiter, int *waiting)
{
	struct object_key key = object_key_of(object);

	if (!object->slots || object->slots[number] == 0)
		return 0;
	if (!waiter)
		return cache_load_now(shard, pg, &key, object->slots, (uint8_t)number);

	int rc = cache_load(shard, pg, &key, object->slots, (uint8_t)number, waiter);

	if (rc > 0)
		*waiting = 1;
	return rc < 0 ? rc : 0;
}

static int need_range(struct shard *shard, uint32_t pg, const struct object *object, uint32_t block,
		      uint32_t count, struct waiter *waiter, int *waiting)
{
	uint32_t last = (block + count - 1) / DISK_PAGE_BLOCKS;

	for (uint32_t i = block / DISK_PAGE_BLOCKS; i <= last; i++) {
		int rc = need_page(shard, pg, object, i, waiter, waiting);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int need_pages(struct shard *shard, const struct object *object, const struct batch_entry *e,
		      struct waiter *waiter)
{
	int waiting = 0, rc = 0;

	if (e->kind == DISK_MOVE) {
		rc = need_range(shard, e->pg, object, e->block, e->data_blocks, waiter, &waiting);
	} else if (e->flags & (DISK_CHANGE_DELETE | DISK_CHANGE_REPLACE)) {
		rc = need_range(shard, e->pg, object, 0, OBJECT_BLOCKS, waiter, &waiting);
	} else {
		for (uint32_t i = 0; i < e->run_count && rc == 0; i++)
			rc = need_range(shard, e->pg, object, from_le16(e->runs[i].block),
					from_le16(e->runs[i].count), waiter, &waiting);
	}
	if (rc < 0)
		return rc;
	return waiting ? -EAGAIN : 0;
}

/* ---- blocks ---- */

struct target {
	struct shard *shard;
	struct pg *pg;
	struct object *object;
};

static void count_lost(struct target *t, bool was_lost, bool is_lost)
{
	if (was_lost == is_lost)
		return;
	if (is_lost && t->object->lost_blocks++ == 0)
		t->pg->lost++;
	if (was_lost && --t->object->lost_blocks == 0)
		t->pg->lost--;
}

/* One block gets a new place and sum: live bytes and counts follow. */
static void set_block(struct target *t, struct page *page, uint32_t block, uint32_t place,
		      uint32_t crc)
{
	uint32_t *at = &page->places[block % DISK_PAGE_BLOCKS];

	count_lost(t, place_state(*at) == BLOCK_LOST, place_state(place) == BLOCK_LOST);
	if (place_state(*at) == BLOCK_DATA) {
		segment_live_drop(t->shard, *at, DISK_BLOCK);
		t->object->data_blocks--;
		t->pg->data_blocks--;
	}
	if (place_state(place) == BLOCK_DATA) {
		segment_live_add(t->shard, place, DISK_BLOCK);
		t->object->data_blocks++;
		t->pg->data_blocks++;
	}
	*at = place;
	page->crcs[block % DISK_PAGE_BLOCKS] = crc;
}

/* The page of a block, to be changed; NULL when it does not exist and @is_wanted is false, or no memory. */
static struct page *page_for(struct target *t, uint32_t number, bool is_wanted)
{
	struct object *object = t->object;
	struct object_key key = object_key_of(object);

	if (!object->slots && is_wanted)
		object->slots = cache_slots_new(t->shard);
	if (!object->slots)
		return NULL;
	if (object->slots[number] == 0)
		return is_wanted ? cache_add(t->shard, t->pg->id, &key, object->slots,
					     (uint8_t)number)
				 : NULL;

	struct page *page = cache_page(t->shard, object->slots[number]);

	assert(page); /* need_pages() brought it */
	cache_dirty(t->shard, page);
	return page;
}

/* Pages that hold nothing any more go, so that an absent range costs nothing. */
static void drop_if_empty(struct target *t, uint32_t number)
{
	struct page *page = cache_page(t->shard, t->object->slots[number]);

	if (page && page_is_empty(page))
		cache_drop(t->shard, t->object->slots, (uint8_t)number);
}

static int set_run(struct target *t, uint32_t block, uint32_t count, enum block_state state,
		   uint32_t place, const le32 *crcs)
{
	uint32_t end = block + count;

	while (block < end) {
		uint32_t number = block / DISK_PAGE_BLOCKS;
		uint32_t stop = min_of(end, (number + 1) * DISK_PAGE_BLOCKS);
		struct page *page = page_for(t, number, state != BLOCK_ABSENT);
		if (!page && state != BLOCK_ABSENT)
			return -ENOMEM;
		for (; page && block < stop; block++)
			switch (state) {
			case BLOCK_DATA:
				set_block(t, page, block, place++, from_le32(*crcs++));
				break;
			case BLOCK_ZERO:
				set_block(t, page, block, DISK_PLACE_ZERO, 0);
				break;
			case BLOCK_LOST:
				set_block(t, page, block, DISK_PLACE_LOST, 0);
				break;
			case BLOCK_ABSENT:
				set_block(t, page, block, DISK_PLACE_ABSENT, 0);
				break;
			}
		if (page && state == BLOCK_ABSENT)
			drop_if_empty(t, number);
		block = stop;
	}
	return 0;
}

/* Everything the object has goes back; the record stays. */
static void clear_object(struct target *t)
{
	(void)set_run(t, 0, OBJECT_BLOCKS, BLOCK_ABSENT, 0, NULL);
	if (!t->object->slots)
		return;
	for (uint8_t i = 0; i < DISK_PAGES; i++)
		cache_drop(t->shard, t->object->slots, i);
	cache_slots_free(t->shard, t->object->slots);
	t->object->slots = NULL;
	/* Blocks of which a damaged page knew: nobody knows where they are, but they are not the object's. */
	t->pg->data_blocks -= t->object->data_blocks;
	t->object->data_blocks = 0;
	t->pg->lost -= t->object->lost_blocks > 0;
	t->object->lost_blocks = 0;
}

static void set_missing(struct target *t, bool is_missing)
{
	bool was_missing = t->object->flags & OBJECT_MISSING;

	if (is_missing == was_missing)
		return;
	t->object->flags ^= OBJECT_MISSING;
	t->object->flags &= (uint8_t)~OBJECT_PARTIAL;
	t->pg->missing += is_missing ? 1u : ~0u;
}

/* ---- entries ---- */

static int apply_runs(struct target *t, const struct batch_entry *e, uint32_t payload_place)
{
	uint32_t place = payload_place + e->payload, used = 0;

	for (uint32_t i = 0; i < e->run_count; i++) {
		uint32_t block = from_le16(e->runs[i].block), count = from_le16(e->runs[i].count);
		enum block_state state = e->runs[i].state;
		int rc = set_run(t, block, count, state, place + used, e->crcs + used);
		if (rc < 0)
			return rc;
		used += state == BLOCK_DATA ? count : 0;
	}
	return 0;
}

/*
 * A mark of damage (D1): void for a block that lives elsewhere by now, since what was written there is not what was
 * read. False: it is void for all of them.
 */
static bool apply_mark(struct target *t, const struct batch_entry *e)
{
	uint32_t place = (uint32_t)e->previous.n, block = from_le16(e->runs[0].block);
	bool any = false;

	for (uint32_t i = 0; i < from_le16(e->runs[0].count); i++) {
		struct page *page = page_for(t, (block + i) / DISK_PAGE_BLOCKS, false);
		if (!page || page->places[(block + i) % DISK_PAGE_BLOCKS] != place + i)
			continue;
		set_block(t, page, block + i, DISK_PLACE_LOST, 0);
		any = true;
	}
	return any;
}

static bool is_placed_mark(const struct batch_entry *e)
{
	return e->flags & DISK_CHANGE_MARK && e->run_count == 1 && e->previous.n != 0;
}

static void apply_flags(struct target *t, const struct batch_entry *e)
{
	struct object *object = t->object;
	const uint8_t damage = OBJECT_DAMAGED | OBJECT_MARKED;

	if (e->flags & DISK_CHANGE_REPLACE)
		object->flags &= (uint8_t)~damage;
	if (e->flags & DISK_CHANGE_WHOLE)
		object->flags &= (uint8_t) ~(OBJECT_MARKED | OBJECT_TOLD);
	if (e->flags & DISK_CHANGE_MARK)
		object->flags |= OBJECT_MARKED;
	if (e->flags & DISK_CHANGE_SET_MISSING) {
		set_missing(t, true);
		if (!(e->flags & DISK_CHANGE_MARK) || e->run_count == 0)
			object->flags |= OBJECT_PARTIAL;
	} else if ((e->flags & DISK_CHANGE_REPLACE) && !(e->flags & DISK_CHANGE_UNSEQUENCED)) {
		set_missing(t, false);
	} else if (e->flags & DISK_CHANGE_CLEAR_MISSING && !(object->flags & damage)) {
		set_missing(t, false);
	}
}

/* An object that the entry is about: found, or made when the entry makes it. */
static int find_target(struct shard *shard, const struct batch_entry *e, bool is_wanted,
		       struct target *out)
{
	struct table_chunk *chunk;

	out->shard = shard;
	out->object = NULL;
	out->pg = is_wanted ? shard_pg_make(shard, e->pg) : shard_pg(shard, e->pg);
	if (!out->pg)
		return is_wanted ? -ENOMEM : 0;
	out->object = table_find(&out->pg->table, &e->key, &chunk);
	if (out->object)
		table_touch(&out->pg->table, chunk);
	else if (is_wanted)
		out->object = table_insert(&out->pg->table, &e->key, NULL);
	return out->object || !is_wanted ? 0 : -ENOMEM;
}

static int apply_change(struct shard *shard, const struct batch_entry *e, uint32_t payload_place,
			struct waiter *waiter)
{
	struct pg *pg = shard_pg(shard, e->pg);
	struct object *object = pg ? table_find(&pg->table, &e->key, NULL) : NULL;
	bool is_delete = e->flags & DISK_CHANGE_DELETE;
	struct target t;
	int rc = object ? need_pages(shard, object, e, waiter) : 0;

	if (rc < 0)
		return rc;

	uint64_t digest = object ? store_digest_of(&e->key, object->version) : 0;

	rc = find_target(shard, e, !is_delete, &t);
	if (rc < 0)
		return rc;
	if (object)
		t.pg->digest -= digest;
	if (t.object && (e->flags & (DISK_CHANGE_DELETE | DISK_CHANGE_REPLACE)))
		clear_object(&t);
	if (is_delete) {
		if (t.object) {
			set_missing(&t, false);
			table_remove(&t.pg->table, &e->key);
		}
	} else {
		bool is_void = is_placed_mark(e) && !apply_mark(&t, e);
		t.object->family = e->family;
		if (!is_placed_mark(e))
			rc = apply_runs(&t, e, payload_place);
		if (!(e->flags & DISK_CHANGE_UNSEQUENCED) || (e->flags & DISK_CHANGE_CLEAR_MISSING))
			t.object->version = e->version;
		if (!is_void)
			apply_flags(&t, e);
		t.pg->digest += store_digest_of(&e->key, t.object->version);
	}
	if (!(e->flags & DISK_CHANGE_UNSEQUENCED) && t.pg)
		t.pg->record.last_applied = version_max(t.pg->record.last_applied, e->version);
	return rc;
}

/*
 * Blocks that are still where the cleaner found them live in the copy from now on (D1). A copy that is damaged
 * (@bad, at replay) leaves its block where it was: that is still there, since no segment is reused
 * before a checkpoint that knows. Its page counts as changed all the same: the record of it that follows
 * in the log names the copy and must not be taken for what the page is now.
 */
static int apply_move(struct shard *shard, const struct batch_entry *e, uint32_t payload_place,
		      const uint64_t *bad, struct waiter *waiter)
{
	struct pg *pg = shard_pg(shard, e->pg);
	struct object *object = pg ? table_find(&pg->table, &e->key, NULL) : NULL;
	struct target t;

	if (!object || !object->slots)
		return 0;

	int rc = need_pages(shard, object, e, waiter);

	if (rc < 0)
		return rc;
	(void)find_target(shard, e, false, &t);
	for (uint32_t i = 0; i < e->data_blocks; i++) {
		uint32_t block = e->block + i;
		struct page *page = cache_page(shard, t.object->slots[block / DISK_PAGE_BLOCKS]);
		if (!page ||
		    (RULE(D1_MOVE_VOID) && page->places[block % DISK_PAGE_BLOCKS] != e->from + i))
			continue;
		cache_dirty(shard, page);
		if (!bad || !bitmap_test(bad, i))
			set_block(&t, page, block, payload_place + e->payload + i,
				  from_le32(e->crcs[i]));
	}
	return 0;
}

/* Void when the page does not exist any more; its content is never taken from here. */
static int apply_page(struct shard *shard, const struct batch_entry *e, uint32_t payload_place)
{
	struct target t;

	(void)find_target(shard, e, false, &t);
	if (t.object && t.object->slots && t.object->slots[e->block])
		cache_placed(shard, t.object->slots, (uint8_t)e->block,
			     slot_of_disk(payload_place + e->payload, (uint8_t)e->offset16,
					  (uint8_t)e->length16, e->check));
	return 0;
}

int index_apply(struct shard *shard, const struct batch_entry *e, uint32_t payload_place,
		struct waiter *waiter)
{
	switch (e->kind) {
	case DISK_CHANGE:
		return apply_change(shard, e, payload_place, waiter);
	case DISK_MOVE:
		return apply_move(shard, e, payload_place, NULL, waiter);
	case DISK_PAGE:
		return apply_page(shard, e, payload_place);
	case DISK_COMMIT:
	case DISK_REQUESTS:
	case DISK_OBJECT_REQUESTS:
	case DISK_END_SESSION:
	case DISK_DROP_PG:
	case DISK_ENTRY_KINDS:
		break; /* of the PG's record: done when appended, or by replay */
	}
	return 0;
}

void index_damage(struct shard *shard, uint32_t pg, const struct object_key *key)
{
	struct batch_entry e = {.pg = pg, .key = *key};
	struct target t;

	(void)find_target(shard, &e, false, &t);
	if (!t.object)
		return;
	set_missing(&t, true);
	t.object->flags |= OBJECT_DAMAGED | OBJECT_PARTIAL;
	t.object->flags &= (uint8_t)~OBJECT_TOLD;
}

/*
 * Good blocks are taken as always, bad ones are lost: so the pages come to the same places as the
 * first time but for these, and whoever compares sums sees that they are not there.
 */
int index_apply_broken(struct shard *shard, const struct batch_entry *e, uint32_t payload_place,
		       const uint64_t *bad)
{
	struct batch_entry change = *e;
	struct target t;
	int rc;

	if (e->kind == DISK_MOVE)
		return apply_move(shard, e, payload_place, bad, NULL);
	/* A page whose record is bad is in memory as it should be, and dirty. */
	if (e->kind != DISK_CHANGE)
		return 0;
	change.flags &= (uint32_t)~DISK_CHANGE_CLEAR_MISSING;
	change.flags |= DISK_CHANGE_SET_MISSING;
	rc = apply_change(shard, &change, payload_place, NULL);
	if (rc < 0)
		return rc;
	(void)find_target(shard, e, false, &t);
	for (uint32_t i = 0, used = 0; t.object && i < e->run_count; i++) {
		uint32_t block = from_le16(e->runs[i].block), count = from_le16(e->runs[i].count);
		for (uint32_t j = 0; e->runs[i].state == BLOCK_DATA && j < count; j++)
			if (bitmap_test(bad, used++))
				(void)set_run(&t, block + j, 1, BLOCK_LOST, 0, NULL);
	}
	index_damage(shard, e->pg, &e->key);
	return 0;
}
