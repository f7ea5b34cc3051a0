/*
 * The codec of batches: descriptor entries written and read. Sans-I/O.
 *
 * A batch is a descriptor (header, entries) in whole blocks, then its payload in whole blocks.
 * The writer appends entries; the header is filled in last, when its place in the log is known.
 */
#ifndef STORE_BATCH_H
#define STORE_BATCH_H

#include "include/proto/store.h"
#include "sheep/store/store.h"

/* Flags of an append that only the store itself sets, beside enum store_entry_flags. */
#define STORE_MARK (1u << 30) /* its note of damage */
/* An entry of the order that replaces all there is: nothing that was not to be trusted is left. */
static inline bool store_makes_whole(uint32_t flags)
{
	return (flags & STORE_REPLACE) && !(flags & (STORE_UNSEQUENCED | STORE_SET_MISSING));
}

/*
 * The place of the first block of a MARK: the others of its run lay behind it. It names no version, so it is kept there. 0: a
 * mark that counts wherever the blocks are.
 */
static inline struct version batch_mark_place(uint32_t place)
{
	return (struct version){.n = place};
}

#define STORE_WHOLE (1u << 31) /* CLEAR_MISSING by a pusher who knows of all marks */

struct batch_writer {
	uint8_t *data; /* borrowed, BUFFER_ALIGN aligned, max bytes */
	uint32_t used;
	uint32_t max;
	uint32_t entry_count;
};

/* Everything of a header that is not of its entries. */
struct batch_header {
	struct uuid store;
	uint32_t shard;
	uint32_t segment;
	uint32_t block;
	uint32_t blocks;
	uint32_t next_segment;
	uint32_t descriptor_bytes;
	uint32_t entry_count;
	uint64_t generation;
	uint64_t lsn;
	uint64_t life;
	uint64_t synced_lsn;
	uint64_t checkpoint;
};

/* One entry of any kind; fields that its kind does not have are zero. Borrows the descriptor. */
struct batch_entry {
	enum disk_entry_kind kind;
	uint32_t flags;
	uint32_t pg;
	struct object_key key;
	uint64_t family;
	struct version version;
	struct version previous; /* OBJECT_REQUESTS: `above` */
	uint64_t session;
	uint64_t number;
	uint64_t lowest;
	uint32_t payload; /* first block of its data in the payload */
	uint32_t run_count;
	const struct disk_run *runs;
	uint32_t data_blocks;
	const le32 *crcs;  /* as stored, one per data block */
	uint32_t from;	   /* MOVE: place */
	uint32_t block;	   /* MOVE: first block; PAGE: number of the page */
	uint32_t offset16; /* PAGE */
	uint32_t length16; /* PAGE */
	uint32_t check;	   /* PAGE */
	uint32_t request_count;
	const struct disk_request *requests;
};

void batch_begin(struct batch_writer *writer, void *data, uint32_t max);

/* Bytes that an entry of this shape takes. */
uint32_t batch_change_size(uint32_t run_count, uint32_t data_blocks);
uint32_t batch_move_size(uint32_t count);

/*
 * Add an entry; the writer must have room. The _change and _move forms return where the stored
 * checksums (plain ^ seed) go, one per data block.
 */
le32 *batch_put_change(struct batch_writer *writer, const struct store_append *append,
		       uint32_t payload, uint32_t data_blocks);
le32 *batch_put_move(struct batch_writer *writer, uint32_t pg, const struct object_key *key,
		     uint64_t family, uint32_t block, uint32_t count, uint32_t from,
		     uint32_t payload);
void batch_put_page(struct batch_writer *writer, uint32_t pg, const struct object_key *key,
		    uint8_t page, uint32_t payload, uint32_t offset, uint32_t length,
		    uint32_t check);
void batch_put_commit(struct batch_writer *writer, uint32_t pg, struct version commit);
void batch_put_requests(struct batch_writer *writer, uint32_t pg, unsigned flags,
			const struct store_request *requests, uint32_t count);
/* Of one object, for the change that follows; @flags: DISK_REQUESTS_FIRST or 0. */
void batch_put_object_requests(struct batch_writer *writer, uint32_t pg, unsigned flags,
			       struct version above, const struct store_request *requests,
			       uint32_t count);
void batch_put_forget(struct batch_writer *writer, enum disk_entry_kind kind, uint32_t pg,
		      uint64_t session);

static inline uint32_t batch_room(const struct batch_writer *writer)
{
	return writer->max - writer->used;
}

static inline uint32_t batch_descriptor_blocks(uint32_t descriptor_bytes)
{
	return (descriptor_bytes + DISK_BLOCK - 1) / DISK_BLOCK;
}

/* Fill in the header (descriptor_bytes and entry_count are taken from the writer), zero the rest of
 * the last block, and seal it all with the checksum. */
void batch_seal(struct batch_writer *writer, struct batch_header *header);

/*
 * Does a block at this place begin a batch of this store? Checks all but the checksum of the
 * entries. 0 and *@out, or -E_CORRUPT.
 */
int batch_read_header(const void *block, const struct uuid *store, uint32_t shard, uint32_t segment,
		      uint32_t block_index, uint32_t segment_blocks, struct batch_header *out);
/* Is the descriptor whole? @descriptor: descriptor_bytes. 0 or -E_CHECKSUM. */
int batch_verify(const void *descriptor, uint32_t descriptor_bytes);

/*
 * The entry at *@offset (0: the first), which moves on. 1, 0 at the end, or -E_CORRUPT. @place_end:
 * the shard's blocks; @payload_blocks: what payload places must stay below.
 */
int batch_next(const void *descriptor, uint32_t descriptor_bytes, uint32_t payload_blocks,
	       uint64_t place_end, uint32_t *offset, struct batch_entry *out);

#endif
