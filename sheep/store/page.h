/*
 * Index pages: where 64 blocks of an object are, in memory and as a record on disk. Sans-I/O.
 *
 * A slot names a page of an object: 0 (it does not exist), the place of its record on
 * disk, or a pointer to the page in memory.
 */
#ifndef STORE_PAGE_H
#define STORE_PAGE_H

#include <urcu/list.h>

#include "include/proto/store.h"
#include "lib/base/assert.h"
#include "sheep/store/store.h"

#define SLOT_POINTER (1ull << 63)
#define SLOT_CHECK   0x7fffu /* bits of a record's checksum that its slot remembers */

enum page_state { PAGE_LOADING, PAGE_CLEAN, PAGE_DIRTY };

struct page {
	uint64_t *slots;	    /* of its object; NULL: the object is gone (detached) */
	uint64_t disk;		    /* slot value of its record, 0: none yet */
	struct cds_list_head link;  /* clean: the clock; dirty: the dirty list */
	struct cds_list_head waits; /* of a loading page */
	struct object_key key;
	uint32_t pg;
	uint32_t change;       /* raised by each change */
	uint32_t flush_change; /* what the record in flight has */
	uint8_t number;
	uint8_t state; /* enum page_state */
	bool is_referenced;
	bool is_flushing;
	uint32_t places[DISK_PAGE_BLOCKS]; /* DISK_PLACE_*, or where it is */
	uint32_t crcs[DISK_PAGE_BLOCKS];   /* as stored: plain CRC32C ^ seed; of data blocks */
};

static inline bool slot_is_page(uint64_t slot)
{
	return slot & SLOT_POINTER;
}

static inline struct page *slot_page(uint64_t slot)
{
	return (struct page *)(uintptr_t)(slot & ~SLOT_POINTER);
}

static inline uint64_t slot_of_page(const struct page *page)
{
	return (uint64_t)(uintptr_t)page | SLOT_POINTER;
}

/* The check tells a record from a later or earlier one of the same page in the same place. */
static inline uint64_t slot_of_disk(uint32_t place, uint8_t offset16, uint8_t length16,
				    uint32_t check)
{
	return (uint64_t)(check & SLOT_CHECK) << 48 | (uint64_t)place << 16 |
	       (uint64_t)offset16 << 8 | length16;
}

static inline uint32_t slot_check(uint64_t slot)
{
	return (uint32_t)(slot >> 48) & SLOT_CHECK;
}

static inline uint32_t slot_place(uint64_t slot)
{
	return (uint32_t)(slot >> 16);
}

static inline uint32_t slot_offset(uint64_t slot)
{
	return (uint32_t)(slot >> 8 & 0xff) * 16;
}

static inline uint32_t slot_length(uint64_t slot)
{
	return (uint32_t)(slot & 0xff) * 16;
}

static inline enum block_state place_state(uint32_t place)
{
	return place == DISK_PLACE_ABSENT ? BLOCK_ABSENT
	       : place == DISK_PLACE_ZERO ? BLOCK_ZERO
	       : place == DISK_PLACE_LOST ? BLOCK_LOST
					  : BLOCK_DATA;
}

/* The seed of a block's checksum: the same on every replica, whatever moves it. */
uint32_t block_seed(uint64_t family, uint32_t index, uint32_t block);

/* Write the record to @out (DISK_PAGE_RECORD_MAX bytes of room). Returns its length, a multiple of 16. */
uint32_t page_encode(const struct page *page, void *out);
/*
 * Read a record of @size bytes into places and crcs of @page, whose key, pg and number say what it
 * must be. Places must be below @place_end. 0, -E_CHECKSUM, or -E_CORRUPT.
 */
int page_decode(struct page *page, const void *record, uint32_t size, uint32_t check,
		uint64_t place_end);
/* Does the record's checksum match, and is it the one that is looked for? */
bool page_record_is_good(const void *record, uint32_t size, uint32_t check);
uint32_t page_record_check(const void *record);
bool page_is_empty(const struct page *page);

#endif
