/* The page record: header, extents of neighbours in one state, then a checksum per data block. */
#include "sheep/store/page.h"

#include <string.h>

#include "lib/base/bytes.h"
#include "lib/base/crc32c.h"
#include "lib/base/hash.h"
#include "lib/base/size.h"

uint32_t block_seed(uint64_t family, uint32_t index, uint32_t block)
{
	return (uint32_t)hash_u64_pair(family, (uint64_t)index << 32 | block);
}

bool page_is_empty(const struct page *page)
{
	for (unsigned i = 0; i < DISK_PAGE_BLOCKS; i++)
		if (page->places[i] != DISK_PLACE_ABSENT)
			return false;
	return true;
}

/* How many blocks from @at on make one extent. */
static unsigned extent_length(const uint32_t *places, unsigned at)
{
	enum block_state state = place_state(places[at]);
	unsigned count = 1;

	while (at + count < DISK_PAGE_BLOCKS && place_state(places[at + count]) == state &&
	       (state != BLOCK_DATA || places[at + count] == places[at] + count))
		count++;
	return count;
}

uint32_t page_encode(const struct page *page, void *out)
{
	struct disk_page *head = out;
	struct disk_extent *extents = (void *)(head + 1);
	le32 crcs[DISK_PAGE_BLOCKS];
	uint8_t extent_count = 0, data_blocks = 0;

	for (unsigned i = 0; i < DISK_PAGE_BLOCKS;) {
		unsigned count = extent_length(page->places, i);
		enum block_state state = place_state(page->places[i]);
		if (state != BLOCK_ABSENT)
			extents[extent_count++] = (struct disk_extent){
				.block = (uint8_t)i,
				.count = (uint8_t)count,
				.state = (uint8_t)state,
				.place = to_le32(state == BLOCK_DATA ? page->places[i] : 0)};
		if (state == BLOCK_DATA)
			for (unsigned j = 0; j < count; j++)
				crcs[data_blocks++] = to_le32(page->crcs[i + j]);
		i += count;
	}

	uint32_t size = (uint32_t)(sizeof(*head) + extent_count * sizeof(*extents));

	memcpy((uint8_t *)out + size, crcs, data_blocks * sizeof(crcs[0]));
	size += (uint32_t)(data_blocks * sizeof(crcs[0]));

	uint32_t length = (uint32_t)round_up(size, 16);

	memset((uint8_t *)out + size, 0, length - size);
	*head = (struct disk_page){.magic = to_le32(DISK_PAGE_MAGIC),
				   .layer = to_le64(page->key.layer),
				   .index = to_le32(page->key.index),
				   .pg = to_le32(page->pg),
				   .page = page->number,
				   .extent_count = extent_count,
				   .data_blocks = data_blocks,
				   .length16 = (uint8_t)(length / 16)};
	head->crc = to_le32(crc32c(out, length));
	return length;
}

static bool extent_is_sane(const struct disk_extent *extent, unsigned from, uint64_t place_end)
{
	uint32_t place = from_le32(extent->place);

	if (extent->count == 0 || extent->block < from ||
	    !range_is_within(extent->block, extent->count, DISK_PAGE_BLOCKS))
		return false;
	if (extent->state == BLOCK_ZERO || extent->state == BLOCK_LOST)
		return place == 0;
	return extent->state == BLOCK_DATA && place > 0 &&
	       range_is_within(place, extent->count, place_end);
}

static bool is_same(const struct page *page, const struct disk_page *head, uint32_t size)
{
	return from_le32(head->magic) == DISK_PAGE_MAGIC && head->length16 * 16u == size &&
	       from_le64(head->layer) == page->key.layer &&
	       from_le32(head->index) == page->key.index && from_le32(head->pg) == page->pg &&
	       head->page == page->number;
}

uint32_t page_record_check(const void *record)
{
	const struct disk_page *head = record;

	return from_le32(head->crc) & SLOT_CHECK;
}

bool page_record_is_good(const void *record, uint32_t size, uint32_t check)
{
	struct disk_page head;

	if (size < sizeof(head))
		return false;
	memcpy(&head, record, sizeof(head));

	uint32_t crc = from_le32(head.crc);

	head.crc = to_le32(0);
	return from_le32(head.magic) == DISK_PAGE_MAGIC && (crc & SLOT_CHECK) == check &&
	       crc32c_extend(crc32c(&head, sizeof(head)), (const uint8_t *)record + sizeof(head),
			     size - sizeof(head)) == crc;
}

int page_decode(struct page *page, const void *record, uint32_t size, uint32_t check,
		uint64_t place_end)
{
	struct bytes_reader reader = bytes_reader_of(record, size);
	struct disk_page head;

	bytes_read(&reader, &head, sizeof(head));
	if (!page_record_is_good(record, size, check) || !is_same(page, &head, size))
		return -E_CHECKSUM;

	const struct disk_extent *extents =
		bytes_take(&reader, head.extent_count * sizeof(*extents));
	const le32 *crcs = bytes_take(&reader, head.data_blocks * sizeof(*crcs));
	unsigned from = 0, used = 0;

	if (reader.failed)
		return -E_CORRUPT;
	memset(page->places, 0, sizeof(page->places));
	for (unsigned i = 0; i < head.extent_count; i++) {
		const struct disk_extent *e = &extents[i];
		if (!extent_is_sane(e, from, place_end))
			return -E_CORRUPT;
		for (unsigned j = 0; j < e->count; j++) {
			bool is_data = e->state == BLOCK_DATA;
			if (is_data && used == head.data_blocks)
				return -E_CORRUPT;
			page->places[e->block + j] = is_data ? from_le32(e->place) + j
						     : e->state == BLOCK_LOST ? DISK_PLACE_LOST
									      : DISK_PLACE_ZERO;
			page->crcs[e->block + j] = is_data ? from_le32(crcs[used++]) : 0;
		}
		from = e->block + e->count;
	}
	return used == head.data_blocks ? 0 : -E_CORRUPT;
}
