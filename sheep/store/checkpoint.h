/* The checkpoint of a shard, in the making and as read back. Shared by its writer and its reader. */
#ifndef STORE_CHECKPOINT_H
#define STORE_CHECKPOINT_H

#include "sheep/store/store_priv.h"

enum checkpoint_state {
	CHECKPOINT_IDLE,
	CHECKPOINT_FLUSHING,
	CHECKPOINT_SAVING,
	CHECKPOINT_SYNCING,
	CHECKPOINT_SEALING,
	CHECKPOINT_STATES
};

/* Where a batch begins. */
struct log_position {
	uint32_t segment, block, next_segment;
	uint64_t generation, lsn;
};

struct checkpoint {
	struct shard *shard;
	uint8_t state; /* enum checkpoint_state */
	bool is_due;
	bool is_blocking; /* at start-up */
	bool is_all_saved;
	bool is_header_written;
	uint32_t flush_left; /* pages to be written before SAVING */
	struct loop_file *files[2];
	uint64_t durable;   /* sequence number of the newest */
	uint64_t making;    /* and of the one in progress */
	uint32_t area;	    /* which file it goes to */
	uint64_t log_bytes; /* appended since the last one began */
	uint64_t last_bytes;
	struct log_position position;
	uint64_t lsn_end; /* the log must be synced up to here before the header is written */
	/* the body */
	struct buffer *buffer;
	uint32_t used;
	uint64_t body_bytes;
	uint32_t body_crc;
	uint32_t writes; /* in flight */
	int error;
	uint64_t shard_bytes; /* of the newest one: all but objects */
	uint64_t room[2];     /* of each file: what is written, so that there is space for it */
	uint64_t room_before; /* when this one began */
	uint64_t retry_ns;    /* put off until then; 0: not */
	struct cds_list_head spare;
	/* the next chunk to save */
	uint32_t pg;
	bool has_after;
	struct object_key after;
	struct io seal;
	struct iovec iov;
	struct buffer *header;
	/* as read at start-up */
	uint64_t synced_lsn, life;
};

/* body.c: errors are kept in c->error */
void body_begin(struct checkpoint *c);
void body_put_shard(struct checkpoint *c); /* segments, and what PGs remember */
void body_save_chunk(struct table_saver *saver, struct table *table, struct table_chunk *chunk);
void body_end(struct checkpoint *c);
void body_free(struct checkpoint *c);

#endif
