/*
 * What the store keeps on disk: superblock, batches, index pages, checkpoints.
 * docs/protocol/disk.md says it in words.
 *
 * A place in a shard is a block number: segment * blocks per segment + block in the
 * segment. The first block of a segment always belongs to a descriptor, so that
 * place 0 is never data and stands for "absent".
 */
#ifndef PROTO_STORE_H
#define PROTO_STORE_H

#include "include/proto/endian.h"

#define DISK_BLOCK	    4096u
#define DISK_FORMAT	    1u
#define DISK_SUPER_MAGIC    0x53465053u /* "SPFS" as bytes */
#define DISK_BATCH_MAGIC    0x42465053u /* "SPFB" */
#define DISK_PAGE_MAGIC	    0x49465053u /* "SPFI" */
#define DISK_CHECK_MAGIC    0x43465053u /* "SPFC" */
#define DISK_PLACE_ABSENT   0u
#define DISK_PLACE_ZERO	    0xffffffffu
#define DISK_PLACE_LOST	    0xfffffffeu
#define DISK_PAGE_BLOCKS    64u
#define DISK_PAGES	    16u /* of one object */
#define DISK_SEGMENT_MIN    (1u << 20)
#define DISK_SEGMENT_MAX    (1u << 30)
#define DISK_SHARDS_MAX	    64u
#define DISK_DESCRIPTOR_MAX (1u << 20)

/* ---- superblock: blocks 0 and 1 of the file "superblock" hold equal copies ---- */

enum disk_super_flags {
	DISK_SUPER_CLEAN = 1u << 0,    /* the last stop was clean */
	DISK_SUPER_LOST_LOG = 1u << 1, /* replay met damage that it could not bound */
	DISK_SUPER_HAS_CLUSTER = 1u << 2,
};

struct disk_super {
	le32 magic;
	le32 crc; /* CRC32C of the struct with this field zero */
	le32 format;
	le32 flags;    /* enum disk_super_flags */
	le64 sequence; /* of this write of the superblock: the higher copy wins */
	uint8_t uuid[16];
	uint8_t cluster[16];
	le64 incarnation;
	le64 life;	 /* raised at every open; in every batch written since */
	le64 size_bytes; /* of all segments */
	le32 shards;
	le32 segment_bytes;
	le32 segments; /* per shard */
	le32 reserved32;
	le64 created_ns; /* wall clock */
	le64 reserved[16];
};
WIRE_SIZE(struct disk_super, 232);
WIRE_OFFSET(struct disk_super, sequence, 16);
WIRE_OFFSET(struct disk_super, incarnation, 56);
WIRE_OFFSET(struct disk_super, shards, 80);

/* ---- batch: descriptor block(s), then payload blocks ---- */

struct disk_batch {
	le32 magic;
	le32 crc; /* CRC32C of descriptor_bytes from here on, with this field zero */
	uint8_t store[16];
	le32 shard;
	le32 segment;	       /* where it lies: a copy elsewhere is no batch */
	le32 block;	       /* in the segment */
	le32 blocks;	       /* of the batch, descriptor included */
	le32 descriptor_bytes; /* header and entries; the payload starts at the next block */
	le32 entry_count;
	le64 generation;   /* of the segment: one more each time one is begun */
	le64 lsn;	   /* one more for each batch of the shard */
	le64 life;	   /* of the superblock when it was written */
	le64 synced_lsn;   /* every batch up to this one is on stable storage */
	le64 checkpoint;   /* the newest durable one */
	le32 next_segment; /* where the log goes on after this segment */
	le32 reserved32;
	le64 reserved[3];
};
WIRE_SIZE(struct disk_batch, 120);
WIRE_OFFSET(struct disk_batch, shard, 24);
WIRE_OFFSET(struct disk_batch, generation, 48);
WIRE_OFFSET(struct disk_batch, next_segment, 88);

enum disk_entry_kind {
	DISK_CHANGE = 1,	  /* of an object: data, zero, trim, delete, push, settle, heal */
	DISK_MOVE = 2,		  /* blocks copied forward by the cleaner */
	DISK_PAGE = 3,		  /* a page of an object's block table */
	DISK_COMMIT = 4,	  /* a PG's commit point */
	DISK_REQUESTS = 5,	  /* executed requests, replacing those that were remembered */
	DISK_END_SESSION = 6,	  /* forget the requests of a session */
	DISK_DROP_PG = 7,	  /* forget the PG's record */
	DISK_OBJECT_REQUESTS = 8, /* of one object; they count with the CHANGE behind them */
	DISK_ENTRY_KINDS,
};

/* Each entry starts with this; sizes are multiples of 8. */
struct disk_entry {
	uint8_t kind;
	uint8_t reserved;
	le16 flags;
	le32 size; /* bytes, this header and all that follows it included */
};
WIRE_SIZE(struct disk_entry, 8);

enum disk_change_flags {
	DISK_CHANGE_SET_MISSING = 1u << 0,
	DISK_CHANGE_CLEAR_MISSING = 1u << 1,
	DISK_CHANGE_DELETE = 1u << 2,
	DISK_CHANGE_REPLACE = 1u << 3,
	DISK_CHANGE_UNSEQUENCED = 1u << 4,
	/*
	 * The store's own note of damage; goes with SET_MISSING. previous_n: the place of the first block of its only
	 * run, and void for those that are not there any more; 0: counts wherever they are.
	 */
	DISK_CHANGE_MARK = 1u << 5,
	DISK_CHANGE_WHOLE =
		1u << 6, /* with CLEAR_MISSING: who pushed knew of all marks before it */
	DISK_CHANGE_REQUESTS = 1u << 7, /* takes the OBJECT_REQUESTS before it */
	DISK_CHANGE_KNOWN = 0xffu,
};

/* Followed by disk_run[run_count], then le32 crc[data_blocks], padded to 8. */
struct disk_change {
	struct disk_entry entry;
	le32 pg;
	le32 index;
	le64 layer;
	le64 family;
	le64 reign;
	le64 n;
	le64 previous_reign;
	le64 previous_n;
	le64 session;
	le64 number;
	le64 lowest;
	le32 payload; /* its first data block, counted from the first block after the descriptor */
	le16 run_count;
	le16 data_blocks;
};
WIRE_SIZE(struct disk_change, 96);
WIRE_OFFSET(struct disk_change, reign, 32);
WIRE_OFFSET(struct disk_change, payload, 88);

struct disk_run {
	le16 block;
	le16 count;
	uint8_t state; /* enum block_state of the store */
	uint8_t reserved[3];
};
WIRE_SIZE(struct disk_run, 8);

/* Followed by le32 crc[count], padded to 8. Void for blocks that are not at `from` any more. */
struct disk_move {
	struct disk_entry entry;
	le32 pg;
	le32 index;
	le64 layer;
	le64 family;
	le32 payload;
	le32 from; /* place of the first block; the others follow it */
	le16 block;
	le16 count;
	le32 reserved32;
};
WIRE_SIZE(struct disk_move, 48);

/* The page record is at `offset16` * 16 in payload block `payload`. */
struct disk_page_entry {
	struct disk_entry entry;
	le32 pg;
	le32 index;
	le64 layer;
	le32 payload;
	uint8_t page; /* which 64 blocks of the object */
	uint8_t offset16;
	uint8_t length16; /* of the record, in units of 16 bytes */
	uint8_t reserved;
	le32 check; /* the lower 15 bits of the record's checksum */
	le32 reserved32;
};
WIRE_SIZE(struct disk_page_entry, 40);

struct disk_commit {
	struct disk_entry entry;
	le32 pg;
	le32 reserved32;
	le64 reign;
	le64 n;
};
WIRE_SIZE(struct disk_commit, 32);

enum disk_requests_flags {
	DISK_REQUESTS_FIRST = 1u << 0, /* begins a new set */
	DISK_REQUESTS_LAST = 1u << 1,  /* completes it: it replaces the old one */
};

/* Followed by disk_request[count]. */
struct disk_requests {
	struct disk_entry entry; /* flags: enum disk_requests_flags */
	le32 pg;
	le32 count;
};
WIRE_SIZE(struct disk_requests, 16);

struct disk_request {
	le64 session;
	le64 number;
	le64 reign;
	le64 n;
	le64 layer; /* of the object */
	le32 index;
	le32 reserved32;
};
WIRE_SIZE(struct disk_request, 48);

/*
 * Followed by disk_request[count], all of the object that the next CHANGE of this PG names. In place of what
 * is remembered of it behind version `above`; nothing happens before that CHANGE.
 */
struct disk_object_requests {
	struct disk_entry entry; /* flags: enum disk_requests_flags, FIRST only */
	le32 pg;
	le32 count;
	le64 above_reign, above_n;
};
WIRE_SIZE(struct disk_object_requests, 32);

/* DISK_END_SESSION and DISK_DROP_PG (session 0). */
struct disk_forget {
	struct disk_entry entry;
	le32 pg;
	le32 reserved32;
	le64 session;
};
WIRE_SIZE(struct disk_forget, 24);

/* ---- index page: the block table of 64 blocks ---- */

/* Followed by disk_extent[extent_count], le32 crc of each data block, zeroes up to a multiple of 16. */
struct disk_page {
	le32 magic;
	le32 crc; /* CRC32C of the record with this field zero */
	le64 layer;
	le32 index;
	le32 pg;
	uint8_t page;
	uint8_t extent_count;
	uint8_t data_blocks;
	uint8_t length16;
	le32 reserved32;
};
WIRE_SIZE(struct disk_page, 32);

struct disk_extent {
	uint8_t block; /* in the page */
	uint8_t count;
	uint8_t state; /* data, zero or lost; what no extent names is absent */
	uint8_t reserved;
	le32 place; /* of the first block, when it is data */
};
WIRE_SIZE(struct disk_extent, 8);

#define DISK_PAGE_RECORD_MAX (32u + 64u * 8u + 64u * 4u)

/* ---- checkpoint: one header block, then the body, in one of two files in turn ---- */

struct disk_checkpoint {
	le32 magic;
	le32 crc; /* CRC32C of the struct with this field zero */
	uint8_t store[16];
	le32 shard;
	le32 format;
	le64 sequence;
	le64 life;
	le64 body_bytes;
	le32 body_crc;
	le32 segment; /* replay starts here, at `block`, with batch `lsn` */
	le32 block;
	le32 next_segment;
	le64 generation;
	le64 lsn;
	le64 synced_lsn; /* the log is whole at least up to this batch */
	le64 reserved[3];
};
WIRE_SIZE(struct disk_checkpoint, 120);
WIRE_OFFSET(struct disk_checkpoint, body_crc, 56);
WIRE_OFFSET(struct disk_checkpoint, generation, 72);

enum disk_record_kind {
	DISK_RECORD_SEGMENT = 1,
	DISK_RECORD_PG = 2,
	DISK_RECORD_TAIL = 3,
	DISK_RECORD_REQUEST = 4,
	DISK_RECORD_OBJECT = 5,
	DISK_RECORD_END = 6,
	DISK_RECORD_SESSION = 7,
};

struct disk_record_segment {
	struct disk_entry entry; /* flags: 1 when it was filled with zeroes */
	le32 segment;
	le32 state;
	le64 generation;
	le64 live_bytes;
	le64 written_lsn; /* last batch in it, for the cleaner's idea of age */
};
WIRE_SIZE(struct disk_record_segment, 40);

struct disk_record_pg {
	struct disk_entry entry;
	le32 pg;
	le32 reserved32;
	le64 last_reign, last_n;
	le64 commit_reign, commit_n;
};
WIRE_SIZE(struct disk_record_pg, 48);

struct disk_record_tail {
	struct disk_entry entry;
	le32 pg;
	le32 index;
	le64 layer;
	le64 family;
	le64 reign, n;
	le64 previous_reign, previous_n;
	le64 session, number;
	le32 run_count;
	struct {
		le16 block, count;
	} runs[4];
	le32 reserved32;
};
WIRE_SIZE(struct disk_record_tail, 104);

struct disk_record_session {
	struct disk_entry entry;
	le32 pg;
	le32 reserved32;
	le64 session;
	le64 lowest;
};
WIRE_SIZE(struct disk_record_session, 32);

struct disk_record_request {
	struct disk_entry entry;
	le32 pg;
	le32 reserved32;
	struct disk_request request;
};
WIRE_SIZE(struct disk_record_request, 64);

/*
 * Followed by one disk_record_slot per page that exists, ascending. A page that was not in the log as it was
 * when the checkpoint began follows its slot as a whole record (disk_page).
 */
struct disk_record_object {
	struct disk_entry entry; /* flags: 1: missing, 2: damaged, 4: marked, 16: partial (docs) */
	le32 pg;
	le32 index;
	le64 layer;
	le64 family;
	le64 reign, n;
	le16 data_blocks;
	le16 pages;    /* bit i: page i exists */
	le16 enclosed; /* bit i: and follows; the log's is an older one, or none */
	le16 lost_blocks;
};
WIRE_SIZE(struct disk_record_object, 56);

struct disk_record_slot {
	le32 place; /* of the record in the log, or 0 */
	uint8_t offset16;
	uint8_t length16;
	le16 check; /* the lower 15 bits of its checksum */
};
WIRE_SIZE(struct disk_record_slot, 8);

#endif
