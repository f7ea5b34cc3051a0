#include "sheep/pg/entry_codec.h"

#include "lib/base/crc32c.h"

uint32_t pg_runs_data_blocks(const struct store_run *runs, uint32_t count)
{
	uint32_t blocks = 0;

	for (uint32_t i = 0; i < count; i++)
		if (runs[i].state == BLOCK_DATA)
			blocks += runs[i].count;
	return blocks;
}

uint32_t pg_meta_encode(uint8_t *out, const struct store_run *runs, uint32_t run_count,
			const uint32_t *crcs, uint32_t block_count)
{
	struct peer_run *wire_runs = (void *)out;
	le32 *wire_crcs = (void *)(out + run_count * sizeof(*wire_runs));

	for (uint32_t i = 0; i < run_count; i++)
		wire_runs[i] = (struct peer_run){
			.block = to_le16(runs[i].block),
			.count = to_le16(runs[i].count),
			.state = to_le16(runs[i].state),
		};
	for (uint32_t i = 0; i < block_count; i++)
		wire_crcs[i] = to_le32(crcs[i]);
	return crc32c(out, pg_meta_size(run_count, block_count));
}

int pg_meta_decode(const uint8_t *meta, uint32_t meta_crc, uint32_t run_count, uint32_t block_count,
		   struct store_run *runs, uint32_t *crcs)
{
	const struct peer_run *wire_runs = (const void *)meta;
	const le32 *wire_crcs = (const void *)(meta + run_count * sizeof(*wire_runs));
	uint32_t next = 0, data = 0;

	if (crc32c(meta, pg_meta_size(run_count, block_count)) != meta_crc)
		return -E_CHECKSUM;
	for (uint32_t i = 0; i < run_count; i++) {
		uint32_t block = from_le16(wire_runs[i].block);
		uint32_t count = from_le16(wire_runs[i].count);
		uint32_t state = from_le16(wire_runs[i].state);

		if (block < next || count == 0 || block + count > OBJECT_BLOCKS ||
		    state > BLOCK_LOST || from_le16(wire_runs[i].reserved) != 0)
			return -EINVAL;
		next = block + count;
		data += state == BLOCK_DATA ? count : 0;
		runs[i] = (struct store_run){
			.block = (uint16_t)block,
			.count = (uint16_t)count,
			.state = (uint8_t)state,
		};
	}
	if (data != block_count)
		return -EINVAL;
	for (uint32_t i = 0; i < block_count; i++)
		crcs[i] = from_le32(wire_crcs[i]);
	return 0;
}

int pg_blocks_check(const uint8_t *data, const uint32_t *crcs, uint32_t block_count)
{
	for (uint32_t i = 0; i < block_count; i++)
		if (crc32c(data + (size_t)i * BLOCK_SIZE, BLOCK_SIZE) != crcs[i])
			return -E_CHECKSUM;
	return 0;
}
