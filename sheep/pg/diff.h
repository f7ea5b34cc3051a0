/*
 * Which blocks of an object another copy lacks, by states and checksums (REPLICATION, J6). Pure.
 */
#ifndef PG_DIFF_H
#define PG_DIFF_H

#include <stdbool.h>
#include <stdint.h>

#include "include/proto/peer.h"
#include "lib/base/bitmap.h"
#include "sheep/store/store.h"

/* States and checksums of one copy; `crcs` count where the state is BLOCK_DATA only. */
struct pg_sums {
	uint8_t states[OBJECT_BLOCKS];
	uint32_t crcs[OBJECT_BLOCKS];
};

struct pg_diff {
	uint64_t blocks[BITMAP_WORDS(OBJECT_BLOCKS)]; /* to be pushed */
	uint32_t count;				      /* of them */
	uint32_t data_count;			      /* of them, those with data */
};

/* @theirs: NULL: they have nothing, or nothing that counts (the push replaces all). */
void pg_diff_make(struct pg_diff *diff, const uint8_t *states, const uint32_t *crcs,
		  const struct pg_sums *theirs);

/*
 * The next batch of runs of blocks @from to @to - 1, taken from @states: @runs_max runs and
 * @blocks_max data blocks at most (a run may be cut). Returns the block to go on from;
 * OBJECT_BLOCKS: nothing is left anywhere. @out_count: 0 only when there was nothing.
 */
uint32_t pg_diff_batch(const struct pg_diff *diff, const uint8_t *states, uint32_t from,
		       uint32_t to, struct store_run *runs, uint32_t runs_max, uint32_t blocks_max,
		       uint32_t *out_count);

/* The reply to SUMS, both ways. Decoding: 0, or -EINVAL for a size or a state that cannot be. */
uint32_t pg_sums_block_count(const uint8_t *states); /* without absent ones at the end */
uint32_t pg_sums_size(uint32_t block_count);	     /* bytes of payload */
void pg_sums_encode(uint8_t *out, const uint8_t *states, const uint32_t *crcs,
		    uint32_t block_count);
int pg_sums_decode(const uint8_t *payload, uint32_t size, uint32_t block_count,
		   struct pg_sums *out);

#endif
