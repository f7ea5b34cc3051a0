/*
 * What an APPEND or PUSH changes, as bytes: its runs and the checksums of its data blocks
 * (include/proto/peer.h, "meta"). Pure.
 */
#ifndef PG_ENTRY_CODEC_H
#define PG_ENTRY_CODEC_H

#include <stdbool.h>
#include <stdint.h>

#include "include/proto/peer.h"
#include "sheep/store/store.h"

static inline uint32_t pg_meta_size(uint32_t run_count, uint32_t block_count)
{
	return run_count * (uint32_t)sizeof(struct peer_run) + block_count * (uint32_t)sizeof(le32);
}

static inline bool pg_meta_is_inline(uint32_t run_count, uint32_t block_count)
{
	return pg_meta_size(run_count, block_count) <= PEER_META_INLINE;
}

/* Data blocks of the runs. */
uint32_t pg_runs_data_blocks(const struct store_run *runs, uint32_t count);

/* @out: pg_meta_size() bytes. Returns their CRC32C. */
uint32_t pg_meta_encode(uint8_t *out, const struct store_run *runs, uint32_t run_count,
			const uint32_t *crcs, uint32_t block_count);

/*
 * Decode what a peer sent. @meta: pg_meta_size() bytes. @runs, @crcs: room for what the counts say,
 * which the caller has bounded by OBJECT_BLOCKS each. 0; -E_CHECKSUM: damaged on the way;
 * -EINVAL: runs that do not ascend, leave the object, or do not fit the number of blocks.
 */
int pg_meta_decode(const uint8_t *meta, uint32_t meta_crc, uint32_t run_count, uint32_t block_count,
		   struct store_run *runs, uint32_t *crcs);

/* Do the blocks have these checksums? 0 or -E_CHECKSUM. */
int pg_blocks_check(const uint8_t *data, const uint32_t *crcs, uint32_t block_count);

#endif
