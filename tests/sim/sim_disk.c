/*
 * What lies under a file name: pages, and what of them a power cut may take.
 *
 * A page that was changed since the last sync keeps its old block beside the
 * new one, and which of its sectors changed. So a sync costs the pages that are
 * dirty, and so does a power cut. A block of zeroes is no block.
 *
 * A sync makes safe what had been written when it began: later writes have a
 * higher order. A page that was dirty before and written again after becomes
 * safe as it is, which a disk may do as well.
 *
 * Left out: a sector is either as it was at the last sync or as it is now, never
 * as between two writes.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "tests/sim/sim_priv.h"

#define FILE_SIZE_MAX	 (64 * GIB)
#define SECTORS_PER_PAGE (SIM_PAGE / SIM_SECTOR)
#define ALL_SECTORS	 ((1u << SECTORS_PER_PAGE) - 1)

struct sim_page {
	struct cds_list_head link; /* of the inode's dirty ones */
	uint8_t *data;		   /* NULL: zeroes */
	uint8_t *old;		   /* as on disk, if dirty; NULL: zeroes */
	uint64_t order;		   /* of the first write since the sync; 0: clean */
	uint8_t dirty_sectors;
	uint8_t cut_sectors; /* of these: zeroed by a truncation, which is one with the size */
	bool is_unreadable;  /* until it is written */
};

static const uint8_t zeroes[SIM_PAGE];

/* ---- blocks ---- */

static uint8_t *block_new(struct sim_world *world)
{
	struct sim_block *block = world->spare_blocks;

	if (!block)
		return sim_alloc(SIM_PAGE);
	world->spare_blocks = block->next;
	return (uint8_t *)block;
}

static void block_free(struct sim_world *world, uint8_t *data)
{
	struct sim_block *block = (void *)data;

	if (!data)
		return;
	block->next = world->spare_blocks;
	world->spare_blocks = block;
}

static const uint8_t *bytes_of(const uint8_t *block)
{
	return block ? block : zeroes;
}

/* ---- pages ---- */

static struct sim_page *page_at(struct sim_inode *inode, uint64_t index)
{
	if (index >= inode->page_count) {
		uint64_t count = max_of(inode->page_count * 2 + 16, index + 1);

		inode->pages = realloc(inode->pages, count * sizeof(inode->pages[0]));
		assert(inode->pages);
		memset(inode->pages + inode->page_count, 0,
		       (count - inode->page_count) * sizeof(inode->pages[0]));
		inode->page_count = count;
	}
	if (!inode->pages[index])
		inode->pages[index] = sim_alloc(sizeof(struct sim_page));
	return inode->pages[index];
}

static void page_clean(struct sim_inode *inode, struct sim_page *page)
{
	block_free(inode->world, page->old);
	page->old = NULL;
	page->order = 0;
	page->dirty_sectors = page->cut_sectors = 0;
	cds_list_del(&page->link);
}

/* Give the page a block of its own to change; all of it is about to be if @is_whole. */
static void page_begin(struct sim_inode *inode, struct sim_page *page, bool is_whole)
{
	uint8_t *data;

	if (page->order && page->data)
		return;
	data = block_new(inode->world);
	if (!is_whole)
		memcpy(data, bytes_of(page->data), SIM_PAGE);
	if (!page->order) {
		page->old = page->data;
		page->order = inode->fs->order;
		cds_list_add_tail(&page->link, &inode->dirty);
	}
	page->data = data;
}

static uint8_t sectors_of(uint32_t from, uint32_t size)
{
	uint32_t first = from / SIM_SECTOR, last = (from + size - 1) / SIM_SECTOR;

	return (uint8_t)((ALL_SECTORS >> (SECTORS_PER_PAGE - 1 - last + first)) << first);
}

static void page_write(struct sim_inode *inode, uint64_t index, const uint8_t *data, uint32_t from,
		       uint32_t size)
{
	struct sim_page *page = page_at(inode, index);
	bool is_whole = size == SIM_PAGE;

	inode->unreadable -= page->is_unreadable;
	page->is_unreadable = false;
	page_begin(inode, page, is_whole);
	page->dirty_sectors |= sectors_of(from, size);
	page->cut_sectors &= (uint8_t)~sectors_of(from, size);
	if (is_whole && memcmp(data, zeroes, SIM_PAGE) == 0) {
		block_free(inode->world, page->data);
		page->data = NULL;
	} else {
		memcpy(page->data + from, data, size);
	}
}

/* ---- mapped memory ---- */

static void write_pages(struct sim_inode *inode, const void *data, uint64_t size, uint64_t offset)
{
	const uint8_t *from = data;
	uint64_t end = offset + size;

	inode->fs->order++;
	for (uint64_t at = offset; at < end;) {
		uint32_t begin = (uint32_t)(at % SIM_PAGE);
		uint32_t n = (uint32_t)min_of(end - at, (uint64_t)(SIM_PAGE - begin));

		page_write(inode, at / SIM_PAGE, from, begin, n);
		from += n;
		at += n;
	}
}

/* What processes stored there since the last look is in the file. */
static void take_map(struct sim_inode *inode)
{
	if (!inode->map || memcmp(inode->map, inode->map_taken, inode->map_size) == 0)
		return;
	write_pages(inode, inode->map, inode->map_size, 0);
	memcpy(inode->map_taken, inode->map, inode->map_size);
}

static void read_pages(struct sim_inode *inode, void *data, uint64_t end, uint64_t offset)
{
	uint8_t *out = data;

	for (uint64_t at = offset; at < end;) {
		uint64_t index = at / SIM_PAGE;
		uint32_t from = (uint32_t)(at % SIM_PAGE);
		uint64_t n = min_of(end - at, (uint64_t)(SIM_PAGE - from));
		const struct sim_page *page =
			index < inode->page_count ? inode->pages[index] : NULL;

		memcpy(out, bytes_of(page ? page->data : NULL) + from, n);
		out += n;
		at += n;
	}
}

/* The file was changed under the memory. */
static void give_map(struct sim_inode *inode)
{
	if (!inode->map)
		return;
	read_pages(inode, inode->map, inode->map_size, 0);
	memcpy(inode->map_taken, inode->map, inode->map_size);
}

int sim_inode_map(struct sim_inode *inode, uint64_t size, void **out)
{
	if (size == 0 || size > inode->size || (inode->map && inode->map_size != size))
		return -EINVAL;
	if (!inode->map) {
		inode->map = sim_alloc(size);
		inode->map_taken = sim_alloc(size);
		inode->map_size = size;
		give_map(inode);
	}
	inode->map_users++;
	*out = inode->map;
	return 0;
}

void sim_inode_unmap(struct sim_inode *inode)
{
	if (--inode->map_users > 0)
		return;
	take_map(inode);
	free(inode->map);
	free(inode->map_taken);
	inode->map = inode->map_taken = NULL;
}

/* ---- reading and writing ---- */

uint64_t sim_inode_read(struct sim_inode *inode, void *data, uint64_t size, uint64_t offset)
{
	uint64_t end = min_of(inode->size, offset + size);

	if (offset >= end)
		return 0;
	take_map(inode);
	read_pages(inode, data, end, offset);
	return end - offset;
}

static void set_size(struct sim_inode *inode, uint64_t size)
{
	if (size == inode->size)
		return;
	inode->fs->used_bytes += size - inode->size;
	inode->size = size;
	if (!inode->size_order)
		inode->size_order = inode->fs->order;
}

static int check_growth(struct sim_inode *inode, uint64_t size)
{
	struct sim_fs *fs = inode->fs;

	if (size > FILE_SIZE_MAX)
		return -EFBIG;
	if (size > inode->size && size - inode->size + fs->used_bytes > fs->size_bytes)
		return -ENOSPC;
	return 0;
}

int sim_inode_write(struct sim_inode *inode, const void *data, uint64_t size, uint64_t offset)
{
	uint64_t end = offset + size;
	int rc = check_growth(inode, end);

	if (rc < 0 || size == 0)
		return rc;
	take_map(inode);
	write_pages(inode, data, size, offset);
	set_size(inode, max_of(inode->size, end));
	give_map(inode);
	return 0;
}

/* What lies beyond @size is zeroes; on disk only when the size is. */
static void cut_beyond(struct sim_inode *inode, uint64_t size)
{
	for (uint64_t index = size / SIM_PAGE; index < inode->page_count; index++) {
		uint32_t from = index == size / SIM_PAGE ? (uint32_t)(size % SIM_PAGE) : 0;
		struct sim_page *page = inode->pages[index];

		if (!page || (!page->data && !page->order))
			continue;
		page_write(inode, index, zeroes, from, SIM_PAGE - from);
		page->cut_sectors |= sectors_of(from, SIM_PAGE - from);
	}
}

int sim_inode_resize(struct sim_inode *inode, uint64_t size)
{
	int rc = check_growth(inode, size);

	if (rc < 0)
		return rc;
	assert(!inode->map || size >= inode->map_size); /* else the next store there is a SIGBUS */
	inode->fs->order++;
	if (size < inode->size)
		cut_beyond(inode, size);
	set_size(inode, size);
	return 0;
}

/* ---- damage ---- */

bool sim_inode_rot(struct sim_inode *inode, uint64_t from)
{
	for (uint64_t i = 0; i < inode->page_count; i++) {
		struct sim_page *page = inode->pages[(from + i) % inode->page_count];
		uint64_t bit = random_below(&inode->world->random, SIM_PAGE * 8);

		if (!page || !page->data)
			continue;
		page->data[bit / 8] ^= (uint8_t)BIT(bit % 8);
		if (page->old && page->old != page->data)
			page->old[bit / 8] ^= (uint8_t)BIT(bit % 8);
		return true;
	}
	return false;
}

bool sim_host_rot(struct sim_host *host, uint64_t size_min)
{
	uint64_t pages = 0, pick;
	struct sim_inode *inode;

	cds_list_for_each_entry(inode, &host->fs.inodes, link)
		if (inode->size > size_min)
			pages += inode->page_count;
	if (!pages)
		return false;
	for (unsigned i = 0; i < 16; i++) { /* some files have nothing in them */
		pick = random_below(&host->world->random, pages);
		cds_list_for_each_entry(inode, &host->fs.inodes, link) {
			if (inode->size <= size_min)
				continue;
			if (pick < inode->page_count)
				break;
			pick -= inode->page_count;
		}
		if (sim_inode_rot(inode, pick))
			return true;
	}
	return false;
}

void sim_inode_break_page(struct sim_inode *inode, uint64_t offset)
{
	struct sim_page *page = page_at(inode, offset / SIM_PAGE);

	inode->unreadable += !page->is_unreadable;
	page->is_unreadable = true;
}

void sim_fs_mend_pages(struct sim_host *host)
{
	struct sim_inode *inode;

	cds_list_for_each_entry(inode, &host->fs.inodes, link)
		for (uint64_t i = 0; inode->unreadable > 0; i++)
			if (inode->pages[i] && inode->pages[i]->is_unreadable) {
				inode->pages[i]->is_unreadable = false;
				inode->unreadable--;
			}
}

bool sim_inode_is_readable(const struct sim_inode *inode, uint64_t size, uint64_t offset)
{
	uint64_t end =
		min_of(round_up(offset + size, (uint64_t)SIM_PAGE) / SIM_PAGE, inode->page_count);

	for (uint64_t i = offset / SIM_PAGE; inode->unreadable > 0 && i < end; i++)
		if (inode->pages[i] && inode->pages[i]->is_unreadable)
			return false;
	return true;
}

/* ---- sync and power ---- */

void sim_inode_sync(struct sim_inode *inode, uint64_t order)
{
	struct sim_page *page, *next;

	take_map(inode);
	cds_list_for_each_entry_safe(page, next, &inode->dirty, link)
		if (page->order <= order)
			page_clean(inode, page);
	if (inode->size_order && inode->size_order <= order) {
		inode->synced_size = inode->size;
		inode->size_order = 0;
	}
}

/* Those of the @lost sectors that are dirty are as they were. */
static void page_revert(struct sim_inode *inode, struct sim_page *page, unsigned lost)
{
	lost &= page->dirty_sectors;
	if (lost && !page->data)
		page->data = memset(block_new(inode->world), 0, SIM_PAGE);
	for (uint32_t s = 0; s < SECTORS_PER_PAGE; s++)
		if (lost & BIT(s))
			memcpy(page->data + s * SIM_SECTOR, bytes_of(page->old) + s * SIM_SECTOR,
			       SIM_SECTOR);
}

void sim_inode_copy(struct sim_inode *to, struct sim_inode *from)
{
	int rc = sim_inode_resize(to, from->size);

	take_map(from);

	for (uint64_t i = 0; i < from->page_count && rc == 0; i++)
		if (from->pages[i] && from->pages[i]->data && i * SIM_PAGE < from->size)
			rc = sim_inode_write(to, from->pages[i]->data,
					     min_of(SIM_PAGE, from->size - i * SIM_PAGE),
					     i * SIM_PAGE);
	assert(rc == 0);
	sim_inode_sync(to, UINT64_MAX);
}

void sim_inode_power_cut(struct sim_inode *inode, enum sim_power_cut mode)
{
	struct sim_page *page, *next;
	bool is_old_size = mode == SIM_DROP_UNSYNCED ||
			   (mode == SIM_RANDOM_UNSYNCED && sim_coin(inode->world));

	take_map(inode);
	cds_list_for_each_entry_safe(page, next, &inode->dirty, link) {
		unsigned lost = mode == SIM_DROP_UNSYNCED ? ALL_SECTORS : 0;

		if (mode == SIM_RANDOM_UNSYNCED)
			lost = (unsigned)random_below(&inode->world->random, ALL_SECTORS + 1);
		lost = is_old_size ? lost | page->cut_sectors : lost & ~(unsigned)page->cut_sectors;
		page_revert(inode, page, lost);
		page_clean(inode, page);
	}
	if (inode->size_order && is_old_size) {
		inode->fs->used_bytes += inode->synced_size - inode->size;
		inode->size = inode->synced_size;
	}
	/* Nothing of a lost tail shines through when the file grows again. */
	cut_beyond(inode, inode->size);
	inode->size_order = inode->fs->order;
	give_map(inode);
	sim_inode_sync(inode, UINT64_MAX);
	inode->locker = NULL;
}

/* ---- life ---- */

struct sim_inode *sim_inode_new(struct sim_host *host, bool is_directory)
{
	struct sim_inode *inode = sim_alloc(sizeof(*inode));

	inode->fs = &host->fs;
	inode->world = host->world;
	inode->is_directory = is_directory;
	CDS_INIT_LIST_HEAD(&inode->dirty);
	CDS_INIT_LIST_HEAD(&inode->hanging);
	cds_list_add_tail(&inode->link, &host->fs.inodes);
	return inode;
}

void sim_inode_put(struct sim_inode *inode)
{
	if (!inode || --inode->refs > 0)
		return;
	assert(cds_list_empty(&inode->hanging));
	sim_inode_sync(inode, UINT64_MAX);
	for (uint64_t i = 0; i < inode->page_count; i++) {
		if (inode->pages[i])
			block_free(inode->world, inode->pages[i]->data);
		free(inode->pages[i]);
	}
	inode->fs->used_bytes -= inode->size;
	cds_list_del(&inode->link);
	free(inode->pages);
	free(inode);
}
