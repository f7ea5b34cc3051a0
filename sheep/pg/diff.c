#include "sheep/pg/diff.h"

#include <string.h>

#include "lib/base/size.h"

void pg_diff_make(struct pg_diff *diff, const uint8_t *states, const uint32_t *crcs,
		  const struct pg_sums *theirs)
{
	memset(diff, 0, sizeof(*diff));
	for (uint32_t i = 0; i < OBJECT_BLOCKS; i++) {
		uint8_t other = theirs ? theirs->states[i] : BLOCK_ABSENT;

		if (states[i] == other && (other != BLOCK_DATA || crcs[i] == theirs->crcs[i]))
			continue;
		bitmap_set(diff->blocks, i);
		diff->count++;
		diff->data_count += states[i] == BLOCK_DATA;
	}
}

uint32_t pg_diff_batch(const struct pg_diff *diff, const uint8_t *states, uint32_t from,
		       uint32_t to, struct store_run *runs, uint32_t runs_max, uint32_t blocks_max,
		       uint32_t *out_count)
{
	uint32_t count = 0, data = 0, block = from;

	for (;;) {
		block = bitmap_next(diff->blocks, OBJECT_BLOCKS, block);
		if (block >= to)
			break;
		bool is_data = states[block] == BLOCK_DATA;
		if (is_data && data == blocks_max)
			break;
		struct store_run *last = count ? &runs[count - 1] : NULL;
		if (last && last->block + last->count == block && last->state == states[block]) {
			last->count++;
		} else {
			if (count == runs_max)
				break;
			runs[count++] = (struct store_run){
				.block = (uint16_t)block, .count = 1, .state = states[block]};
		}
		data += is_data;
		block++;
	}
	*out_count = count;
	return block;
}

uint32_t pg_sums_block_count(const uint8_t *states)
{
	uint32_t count = OBJECT_BLOCKS;

	while (count > 0 && states[count - 1] == BLOCK_ABSENT)
		count--;
	return count;
}

uint32_t pg_sums_size(uint32_t block_count)
{
	return (uint32_t)round_up(block_count, 4) + block_count * (uint32_t)sizeof(le32);
}

void pg_sums_encode(uint8_t *out, const uint8_t *states, const uint32_t *crcs, uint32_t block_count)
{
	le32 *wire = (void *)(out + round_up(block_count, 4));

	memset(out, 0, round_up(block_count, 4));
	memcpy(out, states, block_count);
	for (uint32_t i = 0; i < block_count; i++)
		wire[i] = to_le32(states[i] == BLOCK_DATA ? crcs[i] : 0);
}

int pg_sums_decode(const uint8_t *payload, uint32_t size, uint32_t block_count, struct pg_sums *out)
{
	if (block_count > OBJECT_BLOCKS || size != pg_sums_size(block_count))
		return -EINVAL;
	for (uint32_t i = 0; i < block_count; i++)
		if (payload[i] > BLOCK_LOST)
			return -EINVAL;

	const le32 *wire = (const void *)(payload + round_up(block_count, 4));
	memset(out, 0, sizeof(*out));
	if (block_count > 0)
		memcpy(out->states, payload, block_count);
	for (uint32_t i = 0; i < block_count; i++)
		out->crcs[i] = from_le32(wire[i]);
	return 0;
}
