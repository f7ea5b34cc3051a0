/*
 * Index pages in memory: a clock of clean ones, a list of dirty ones, one bounded budget.
 *
 *   (on disk) --load--> LOADING --> CLEAN <--written, unchanged-- DIRTY
 *                                     +-----------change----------->+
 *
 * Only clean pages are given up. Dirty ones are written to the log in batches of their own, before a
 * checkpoint or when they take half of the budget. A page that is changed while its record is on the way
 * stays dirty.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"
#include "sheep/store/store_priv.h"

#define SLAB_PAGES   64u
#define SLAB_WAITS   256u
#define SLAB_SLOTS   64u
#define FLUSH_BLOCKS 64u
#define PAGES_MIN    64u /* for tests; a read of 64 layers at full width needs 1,024 at once */

struct load {
	struct io io;
	struct shard *shard;
	struct page *page;
	struct buffer *buffer;
	struct iovec iov;
	uint32_t segment;
};

int cache_init(struct shard *shard, uint32_t bytes)
{
	struct cache *cache = &shard->cache;

	CDS_INIT_LIST_HEAD(&cache->clean);
	CDS_INIT_LIST_HEAD(&cache->dirty);
	CDS_INIT_LIST_HEAD(&cache->spare_loads);
	cache->pages_max = max_of(bytes / (uint32_t)sizeof(struct page), PAGES_MIN);
	return 0;
}

static void free_slabs(struct slab *slab)
{
	for (struct slab *next; slab; slab = next) {
		next = slab->next;
		free(slab);
	}
}

void cache_done(struct shard *shard)
{
	struct load *load, *next;

	cds_list_for_each_entry_safe(load, next, &shard->cache.spare_loads, io.link)
		free(load);
	free_slabs(shard->cache.slabs);
	free_slabs(shard->cache.wait_slabs);
	free_slabs(shard->cache.slot_slabs);
}

/* @count nodes of @size bytes behind a slab header; NULL: no memory. */
static void *slab_new(struct slab **slabs, size_t size, uint32_t count)
{
	struct slab *slab = calloc(1, 64 + size * count);

	if (!slab)
		return NULL;
	slab->next = *slabs;
	*slabs = slab;
	return (uint8_t *)slab + 64;
}

uint64_t *cache_slots_new(struct shard *shard)
{
	struct cache *cache = &shard->cache;

	if (!cache->spare_slots) {
		uint64_t *slots =
			slab_new(&cache->slot_slabs, DISK_PAGES * sizeof(*slots), SLAB_SLOTS);
		if (!slots)
			return NULL;
		for (uint32_t i = 0; i < SLAB_SLOTS; i++, slots += DISK_PAGES)
			cache_slots_free(shard, slots);
	}

	uint64_t *slots = cache->spare_slots;

	memcpy(&cache->spare_slots, slots, sizeof(uint64_t *));
	memset(slots, 0, DISK_PAGES * sizeof(*slots));
	return slots;
}

void cache_slots_free(struct shard *shard, uint64_t *slots)
{
	if (!slots)
		return;
	memcpy(slots, &shard->cache.spare_slots, sizeof(uint64_t *));
	shard->cache.spare_slots = slots;
}

/* ---- pages come and go ---- */

static void page_free(struct cache *cache, struct page *page)
{
	page->slots = (void *)cache->spare;
	cache->spare = page;
	cache->pages--;
}

/* Give up the first clean page that nobody looked at since the last round. */
static bool evict(struct cache *cache)
{
	for (uint32_t i = 0; i < 2 * cache->pages && !cds_list_empty(&cache->clean); i++) {
		struct page *page = cds_list_first_entry(&cache->clean, struct page, link);
		cds_list_del(&page->link);
		if (page->is_referenced) {
			page->is_referenced = false;
			cds_list_add_tail(&page->link, &cache->clean);
			continue;
		}
		page->slots[page->number] = page->disk;
		page_free(cache, page);
		return true;
	}
	return false;
}

void cache_trim(struct shard *shard)
{
	struct cache *cache = &shard->cache;

	/* Who waits for pages needs all of them at once: not one is taken away until all have come,
	 * unless there are far too many. */
	while (cache->pages > cache->pages_max &&
	       (cache->loading == 0 || cache->pages > 2 * cache->pages_max) && evict(cache))
		;
}

static struct page *page_new(struct shard *shard)
{
	struct cache *cache = &shard->cache;

	if (!cache->spare) {
		struct page *pages = slab_new(&cache->slabs, sizeof(*pages), SLAB_PAGES);
		if (!pages)
			return NULL;
		cache->pages += SLAB_PAGES;
		for (uint32_t i = 0; i < SLAB_PAGES; i++)
			page_free(cache, &pages[i]);
	}

	struct page *page = cache->spare;

	cache->spare = (void *)page->slots;
	cache->pages++;
	memset(page, 0, sizeof(*page));
	CDS_INIT_LIST_HEAD(&page->waits);
	return page;
}

static struct page *page_make(struct shard *shard, uint32_t pg, const struct object_key *key,
			      uint64_t *slots, uint8_t number)
{
	struct page *page = page_new(shard);

	if (!page)
		return NULL;
	page->slots = slots;
	page->number = number;
	page->key = *key;
	page->pg = pg;
	page->disk = slots[number];
	page->is_referenced = true;
	slots[number] = slot_of_page(page);
	return page;
}

struct page *cache_page(struct shard *shard, uint64_t slot)
{
	struct page *page = slot_is_page(slot) ? slot_page(slot) : NULL;

	if (!page || page->state == PAGE_LOADING)
		return NULL;
	page->is_referenced = true;
	return page;
}

struct page *cache_add(struct shard *shard, uint32_t pg, const struct object_key *key,
		       uint64_t *slots, uint8_t number)
{
	struct page *page = page_make(shard, pg, key, slots, number);

	if (!page)
		return NULL;
	page->state = PAGE_DIRTY;
	page->change = 1;
	cds_list_add_tail(&page->link, &shard->cache.dirty);
	shard->cache.dirty_count++;
	shard->cache.unplaced++;
	return page;
}

void cache_dirty(struct shard *shard, struct page *page)
{
	page->change++;
	if (page->state == PAGE_DIRTY)
		return;
	cds_list_del(&page->link);
	page->state = PAGE_DIRTY;
	cds_list_add_tail(&page->link, &shard->cache.dirty);
	shard->cache.dirty_count++;
}

void cache_drop(struct shard *shard, uint64_t *slots, uint8_t number)
{
	struct cache *cache = &shard->cache;
	uint64_t slot = slots[number], disk = slot;

	if (slot == 0)
		return;
	if (slot_is_page(slot)) {
		struct page *page = slot_page(slot);
		disk = page->disk;
		if (disk == 0)
			cache->unplaced--;
		if (page->state == PAGE_LOADING) {
			page->slots = NULL; /* freed when it comes */
		} else {
			cds_list_del(&page->link);
			if (page->state == PAGE_DIRTY)
				cache->dirty_count--;
			page_free(cache, page);
		}
	}
	if (disk)
		segment_live_drop(shard, slot_place(disk), slot_length(disk));
	slots[number] = 0;
}

void cache_placed(struct shard *shard, uint64_t *slots, uint8_t number, uint64_t disk)
{
	struct cache *cache = &shard->cache;
	uint64_t slot = slots[number], old = slot;

	if (slot_is_page(slot)) {
		struct page *page = slot_page(slot);
		old = page->disk;
		page->disk = disk;
		if (old == 0)
			cache->unplaced--;
		/* At replay is_flushing is never set: what was changed since stays dirty. */
		if (page->is_flushing && page->change == page->flush_change) {
			assert(page->state == PAGE_DIRTY);
			page->state = PAGE_CLEAN;
			cds_list_del(&page->link);
			cds_list_add_tail(&page->link, &cache->clean);
			cache->dirty_count--;
		}
		page->is_flushing = false;
	} else {
		slots[number] = disk;
	}
	if (old)
		segment_live_drop(shard, slot_place(old), slot_length(old));
	segment_live_add(shard, slot_place(disk), slot_length(disk));
}

/* ---- loading ---- */

static void forget_load(struct io *io)
{
	struct load *load = container_of_type(io, struct load, io);

	buffer_put(load->buffer);
	free(load);
}

static int wait_for(struct shard *shard, struct page *page, struct waiter *waiter)
{
	struct cache *cache = &shard->cache;

	if (!cache->spare_waits) {
		struct wait_node *nodes = slab_new(&cache->wait_slabs, sizeof(*nodes), SLAB_WAITS);
		if (!nodes)
			return -ENOMEM;
		for (uint32_t i = 0; i < SLAB_WAITS; i++) {
			nodes[i].waiter = (void *)cache->spare_waits;
			cache->spare_waits = &nodes[i];
		}
	}

	struct wait_node *node = cache->spare_waits;

	cache->spare_waits = (void *)node->waiter;
	node->waiter = waiter;
	waiter->pending++;
	cds_list_add_tail(&node->link, &page->waits);
	return 1;
}

/* A record that is broken: what it said is lost, and the object with it. */
static void page_lost(struct shard *shard, struct page *page)
{
	if (shard_is_failed(shard))
		return;
	log_error("store '%s': shard %u: pg %u object %llx.%x: index page %u is damaged",
		  shard->store->path, shard->number, page->pg, (unsigned long long)page->key.layer,
		  page->key.index, page->number);
	memset(page->places, 0, sizeof(page->places));
	shard->counters.checksum_errors++;
	damage_wrong_sum(shard, slot_place(page->disk));
	/* What the page said is not served as a hole, nor does a push that does not know make it good. */
	shard_corrupt(shard, page->pg, &page->key, 0, 0, 0);
	index_damage(shard, page->pg, &page->key);
}

static void load_finish(struct shard *shard, struct page *page, const uint8_t *block, int result)
{
	bool is_lost = page->slots &&
		       (result < 0 ||
			page_decode(page, block + slot_offset(page->disk), slot_length(page->disk),
				    slot_check(page->disk), shard_places(shard)) < 0);

	page->state = PAGE_CLEAN;
	page->is_referenced = true;
	cds_list_add_tail(&page->link, &shard->cache.clean);
	if (is_lost)
		page_lost(shard, page);
}

static void on_loaded(struct io *io, int result)
{
	struct load *load = container_of_type(io, struct load, io);
	struct shard *shard = load->shard;
	struct page *page = load->page;
	struct cds_list_head waits;

	shard->cache.loading--;
	if (result < 0)
		damage_unreadable(shard, slot_place(page->disk), 1, result);
	segment_unpin(shard, load->segment);
	load_finish(shard, page, load->buffer->data, result);
	buffer_put(load->buffer);
	cds_list_add(&io->link, &shard->cache.spare_loads);
	/* Woken waiters may load, change or drop pages, this one too: take the list off first. */
	CDS_INIT_LIST_HEAD(&waits);
	cds_list_splice(&page->waits, &waits);
	CDS_INIT_LIST_HEAD(&page->waits);
	if (!page->slots) {
		cds_list_del(&page->link);
		page_free(&shard->cache, page);
	}
	while (!cds_list_empty(&waits)) {
		struct wait_node *node = cds_list_first_entry(&waits, struct wait_node, link);
		struct waiter *waiter = node->waiter;
		cds_list_del(&node->link);
		node->waiter = (void *)shard->cache.spare_waits;
		shard->cache.spare_waits = node;
		if (--waiter->pending == 0)
			waiter->ready(waiter);
	}
	cache_trim(shard);
	shard_check_stop(shard);
}

static struct load *load_get(struct cache *cache)
{
	if (cds_list_empty(&cache->spare_loads))
		return calloc(1, sizeof(struct load));

	struct load *load = cds_list_first_entry(&cache->spare_loads, struct load, io.link);

	cds_list_del(&load->io.link);
	return load;
}

int cache_load(struct shard *shard, uint32_t pg, const struct object_key *key, uint64_t *slots,
	       uint8_t number, struct waiter *waiter)
{
	if (slot_is_page(slots[number])) {
		struct page *page = slot_page(slots[number]);
		if (page->state != PAGE_LOADING)
			return 0;
		return waiter ? wait_for(shard, page, waiter) : 1;
	}

	struct load *load = load_get(&shard->cache);
	struct buffer *buffer = buffer_new(loop_buffers(shard->loop), DISK_BLOCK);
	uint64_t disk = slots[number];
	struct page *page = load && buffer ? page_make(shard, pg, key, slots, number) : NULL;

	if (!page || (waiter && wait_for(shard, page, waiter) < 0)) {
		if (page) {
			slots[number] = disk;
			page_free(&shard->cache, page);
		}
		buffer_put(buffer);
		if (load)
			cds_list_add(&load->io.link, &shard->cache.spare_loads);
		return -ENOMEM;
	}
	page->state = PAGE_LOADING;
	*load = (struct load){.shard = shard,
			      .page = page,
			      .buffer = buffer,
			      .segment = place_segment(shard, slot_place(disk)),
			      .iov = {.iov_base = buffer->data, .iov_len = DISK_BLOCK}};
	load->io.done = on_loaded;
	load->io.forget = forget_load;
	shard->cache.loading++;
	segment_pin(shard, load->segment);
	io_read(shard, &load->io, shard->segments[load->segment].file, &load->iov, 1,
		(uint64_t)(slot_place(disk) % shard->segment_blocks) * DISK_BLOCK);
	return 1;
}

int cache_load_now(struct shard *shard, uint32_t pg, const struct object_key *key, uint64_t *slots,
		   uint8_t number)
{
	if (slot_is_page(slots[number]))
		return 0;

	uint64_t disk = slots[number];
	struct segment *segment = &shard->segments[place_segment(shard, slot_place(disk))];
	struct buffer *buffer = buffer_new(loop_buffers(shard->loop), DISK_BLOCK);
	struct page *page = buffer ? page_make(shard, pg, key, slots, number) : NULL;

	if (!page) {
		buffer_put(buffer);
		return -ENOMEM;
	}

	int64_t got =
		loop_sync_read(shard->loop, segment->file, buffer->data, DISK_BLOCK,
			       (uint64_t)(slot_place(disk) % shard->segment_blocks) * DISK_BLOCK);

	load_finish(shard, page, buffer->data, got == DISK_BLOCK ? 0 : -EIO);
	buffer_put(buffer);
	return 0;
}

/* ---- writing ---- */

static void on_flushed(struct batch *batch, void *context)
{
	struct shard *shard = context;

	shard->cache.flushes--;
	checkpoint_step(shard);
	shard_check_stop(shard);
}

static bool is_wanted(const struct shard *shard, const struct page *page,
		      enum cache_flush_kind kind)
{
	if (page->is_flushing)
		return false;
	return kind == FLUSH_ALL ||
	       (page->disk &&
		shard->segments[place_segment(shard, slot_place(page->disk))].is_cleaned);
}

uint32_t cache_flush(struct shard *shard, enum cache_flush_kind kind)
{
	struct cache *cache = &shard->cache;
	struct buffer *buffer = buffer_new(loop_buffers(shard->loop), FLUSH_BLOCKS * DISK_BLOCK);
	struct batch *batch = buffer ? batch_get(shard, true) : NULL;
	uint32_t block = 0, offset = 0, count = 0;
	uint8_t record[DISK_PAGE_RECORD_MAX];
	struct page *page, *next;

	if (!batch) {
		buffer_put(buffer);
		return 0;
	}
	cds_list_for_each_entry_safe(page, next, &cache->dirty, link) {
		if (!is_wanted(shard, page, kind))
			continue;
		uint32_t length = page_encode(page, record);
		if (offset + length > DISK_BLOCK) {
			memset(buffer->data + block * DISK_BLOCK + offset, 0, DISK_BLOCK - offset);
			block++;
			offset = 0;
		}
		if (block == FLUSH_BLOCKS ||
		    batch_room(&batch->writer) < sizeof(struct disk_page_entry) * 2)
			break;
		memcpy(buffer->data + block * DISK_BLOCK + offset, record, length);
		batch_put_page(&batch->writer, page->pg, &page->key, page->number, block, offset,
			       length, page_record_check(record));
		page->is_flushing = true;
		page->flush_change = page->change;
		offset += length;
		count++;
	}
	if (count == 0) {
		buffer_put(buffer);
		batch_put(batch);
		return 0;
	}
	if (offset > 0) {
		memset(buffer->data + block * DISK_BLOCK + offset, 0, DISK_BLOCK - offset);
		block++;
	}
	batch_add_iov(batch, buffer->data, block * DISK_BLOCK);
	batch->payload_blocks = block;
	(void)batch_hold(batch, buffer);
	batch->applied = on_flushed;
	batch->context = shard;
	cache->flushes++;
	log_queue_internal(batch);
	return count;
}
