/*
 * What the files of the store share: the shard and its parts.
 *
 * Order of things: append.c queues entries in batches, log.c writes the batches one behind the other
 * and applies them (index.c) in LSN order, cache.c holds index pages, read.c reads, segment.c
 * prepares and recycles segments, checkpoint.c and replay.c carry all this over a restart,
 * cleaner.c makes space. Each hangs its state on struct shard.
 */
#ifndef STORE_STORE_PRIV_H
#define STORE_STORE_PRIV_H

#include <errno.h>
#include <pthread.h>
#include <uthash.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "sheep/store/batch.h"
#include "sheep/store/page.h"
#include "sheep/store/record.h"
#include "sheep/store/table.h"

#define PATH_ROOM	 1024u
#define DESCRIPTOR_SIZE	 (64u << 10) /* room for entries of one batch */
#define BATCH_IOVECS_MAX 1000u	     /* the kernel takes 1,024 */
#define BATCH_BLOCKS_MAX 256u	     /* of payload, unless one entry is larger */
#define PAGE_CHARGE	 832u	     /* the largest page record, in credits */
#define CHECKPOINT_CHUNK (256u << 10)
#define SEGMENTS_MIN	 12u /* per shard */

struct shard;
struct batch;
struct store;

/* ---- io.c: operations of a shard, watched for hanging ---- */

enum io_kind { IO_READING, IO_WRITING /* and syncing */, IO_KINDS };

struct io {
	struct loop_op op;
	struct cds_list_head link; /* shard->ios, oldest first */
	struct shard *shard;
	uint64_t started_ns; /* of the time in which the loop ran */
	uint8_t kind;	     /* enum io_kind */
	uint64_t length;     /* of a read: what must come */
	void (*done)(struct io *io, int result);
	void (*forget)(struct io *io); /* the loop is gone: free what the op had; may be NULL */
};

/* `done` gets 0 or a negative error; a short read is -EIO. Once per call. */
void io_read(struct shard *shard, struct io *io, struct loop_file *file, const struct iovec *iov,
	     unsigned count, uint64_t offset);
void io_write(struct shard *shard, struct io *io, struct loop_file *file, const struct iovec *iov,
	      unsigned count, uint64_t offset);
void io_sync(struct shard *shard, struct io *io, struct loop_file *file);
void io_init(struct shard *shard);

/* Looks for operations that hang, while there are any. */
struct watch {
	struct loop_timer timer;
	uint64_t seen_ns;	    /* when it was looked last */
	uint64_t awake_ns;	    /* the time in which the loop ran, up to then */
	uint64_t done_ns[IO_KINDS]; /* in that time: the last one that was done */
};

/* ---- damage.c: what reading finds ---- */

struct damage {
	uint64_t found_ns;
	uint32_t count; /* errors, or rounds; 0: none yet */
	/* where the log ended then */
	uint64_t generation;
	uint32_t block;
	/* what could not be read first */
	uint32_t place, places;
};

/* A read of the log failed, or what came has the wrong sum: beyond a bound this stops the shard. */
void damage_unreadable(struct shard *shard, uint32_t place, uint32_t count, int error);
void damage_wrong_sum(struct shard *shard, uint32_t place);

/* ---- waiting for pages ---- */

/* Somebody who waits for `pending` things; ready() runs when the last has come. */
struct waiter {
	uint32_t pending;
	void (*ready)(struct waiter *waiter);
};

struct wait_node {
	struct cds_list_head link;
	struct waiter *waiter;
};

/* ---- segments ---- */

enum segment_state {
	SEGMENT_RAW,	   /* not yet filled with zeroes */
	SEGMENT_PREPARING, /* being filled */
	SEGMENT_FREE,
	SEGMENT_NEXT,	 /* named by the descriptors of the current one */
	SEGMENT_CURRENT, /* batches go here */
	SEGMENT_FULL,
	SEGMENT_EMPTY, /* nothing lives here; free when a checkpoint that knows is durable */
	SEGMENT_STATES
};

struct segment {
	struct loop_file *file;
	uint64_t generation;
	uint64_t live_bytes;
	uint64_t written_lsn;	   /* of its last batch: its age */
	uint64_t empty_checkpoint; /* EMPTY: the checkpoint that frees it */
	uint32_t readers;
	uint8_t state; /* enum segment_state */
	bool is_prepared;
	bool is_cleaned;    /* all moved, its last pages wait for the next checkpoint */
	bool was_barren;    /* a whole pass found nothing alive in it */
	bool is_unreadable; /* in part: the cleaner leaves it alone */
};

/* ---- batches ---- */

enum batch_state { BATCH_OPEN, BATCH_QUEUED, BATCH_WRITING, BATCH_WRITTEN, BATCH_STATES };

struct batch {
	struct cds_list_head link; /* queue, or in flight, or spare */
	struct io io;
	struct shard *shard;
	uint8_t state; /* enum batch_state */
	bool is_internal;
	bool is_abandoned; /* the shard failed: its buffers are never used again */
	struct batch_writer writer;
	struct batch_header header;
	struct buffer *descriptor;
	uint32_t payload_blocks;
	uint32_t blocks_max; /* of payload: what fits where it will probably go */
	uint32_t iov_count;  /* iov[0] is the descriptor */
	struct iovec iov[BATCH_IOVECS_MAX + 1];
	uint64_t ticket; /* of foreground batches, ascending; 0: internal */
	struct cds_list_head appends;
	struct buffer **held; /* dropped when it is applied */
	uint32_t held_count, held_max;
	uint32_t apply_offset; /* entries before are applied */
	uint32_t sets;	       /* of requests, with parts in other batches */
	uint64_t charge;       /* of its entries, in credits */
	struct waiter waiter;  /* for pages while it is applied */
	void (*applied)(struct batch *batch, void *context);
	void *context;
};

struct sync_waiter {
	struct cds_list_head link;
	uint64_t ticket;
	struct loop_op *op;
};

/* ---- objects in flight ---- */

struct flight {
	struct flight *next;
	struct cds_list_head pg_link; /* overlay->by_pg */
	struct object_key key;
	uint64_t family;
	struct version version; /* as of the newest entry */
	uint32_t pg;
	uint32_t count; /* entries in flight */
	bool exists;
	bool is_missing;
	bool is_marked; /* a mark of damage is in flight */
};

#define OVERLAY_PGS 256u

struct overlay {
	struct flight **buckets;
	struct cds_list_head
		by_pg[OVERLAY_PGS]; /* for walks: flights of one PG and of few others */
	uint32_t mask;
	uint32_t count;
	struct flight *spare;
	void *slabs;
};

/* ---- PGs ---- */

struct pg {
	uint32_t id;
	UT_hash_handle hh;
	struct table table;
	struct pg_record record;
	uint64_t digest; /* of the objects in the table */
	uint32_t missing;
	uint32_t lost; /* objects with lost blocks */
	uint64_t data_blocks;
	bool is_commit_dirty;
	struct cds_list_head commit_link;
	bool is_dropping;
};

/* ---- the shard ---- */

enum shard_state {
	SHARD_OPENING, /* replay: blocking, no op in flight */
	SHARD_RUNNING,
	SHARD_STOPPING,
	SHARD_STOPPED,
	SHARD_FAILED,
	SHARD_STATES
};

struct slab {
	struct slab *next;
};

struct cache {
	struct cds_list_head clean; /* a clock: the head is looked at first */
	struct cds_list_head dirty;
	struct page *spare;
	struct slab *slabs;
	struct wait_node *spare_waits;
	struct slab *wait_slabs;
	uint64_t *spare_slots;
	struct slab *slot_slabs;
	struct cds_list_head spare_loads;
	uint32_t pages, pages_max;
	uint32_t dirty_count;
	uint32_t unplaced; /* pages that have no record on disk yet */
	uint32_t loading;
	uint32_t flushes; /* flush batches in flight */
};

struct checkpoint;
struct drop;
struct cleaner;
struct preparer;

struct shard_figures { /* published for other threads */
	uint64_t live_bytes, allocated_bytes, credit_bytes;
	struct store_counters counters;
};

struct shard {
	struct store *store;
	struct loop *loop;
	uint32_t number;
	uint8_t state; /* enum shard_state */
	int error;

	/* the log */
	struct segment *segments;
	uint32_t segment_count;
	uint32_t segment_blocks;
	uint32_t entry_blocks_max;
	uint32_t batch_blocks_max;
	uint32_t current, next, block; /* where the next batch goes */
	uint64_t generation;	       /* of the current segment */
	uint64_t next_lsn;
	uint64_t written_lsn, applied_lsn, synced_lsn;
	uint64_t next_ticket, written_ticket, applied_ticket, synced_ticket;
	uint32_t state_counts[SEGMENT_STATES];
	uint32_t reserve;	/* segments that only the cleaner may use */
	uint32_t watermark;	/* below so many available ones it works */
	uint32_t dead_count;	/* FULL, nothing alive: a checkpoint makes them EMPTY */
	uint32_t cleaned_count; /* FULL, all moved but for index pages */
	bool is_file_system_full;
	bool has_cleaning_need;	  /* batches wait for a free segment */
	bool is_internal_stalled; /* even those that make space */

	/* batches */
	struct batch *open;
	struct cds_list_head queue;    /* of the callers, in order */
	struct cds_list_head internal; /* of the cleaner and the cache */
	struct cds_list_head inflight; /* in LSN order */
	struct cds_list_head spare_batches;
	uint32_t inflight_count, batches_max;
	bool is_applying;
	uint32_t sets_in_flight;
	struct cds_list_head held_appends; /* applied, wait for their sync */
	struct loop_hook hook;
	struct io sync_io;
	bool is_syncing, wants_sync;
	uint64_t sync_lsn, sync_ticket;
	struct cds_list_head sync_waiters;
	struct cds_list_head spare_waiters;
	struct cds_list_head commit_dirty;

	/* the index */
	struct pg *pgs;
	struct pg *last_pg; /* the one that was asked for last */
	struct table_saver saver;
	struct overlay overlay;
	struct cache cache;

	/* space */
	uint64_t usable_bytes;
	uint64_t live_bytes;
	uint64_t pending_bytes;

	struct cds_list_head works; /* reads and sums in progress */
	struct cds_list_head spare_small, spare_large;
	struct cds_list_head spare_ios;

	struct checkpoint *checkpoint;
	struct cleaner *cleaner;
	struct preparer *preparer;
	struct cds_list_head drops, marks;

	struct cds_list_head ios;
	struct watch watch;
	struct damage unreadable, wrong_sums;
	struct loop_timer tick; /* the cleaner's and preparer's patience */
	struct loop_op *stop_op;
	uint8_t stop_stage;
	struct loop_mail fail_mail;
	struct loop_op gone_op; /* what was in flight when the store was closed has come back */
	bool is_awaited;	/* the closed store stays until then */
	bool was_damaged;	/* replay found it: a checkpoint before anything else */
	bool has_run;		/* atomic: `thread` is set */
	pthread_t thread;	/* of the loop */
	struct shard_figures figures;
	struct store_counters counters;
};

struct store {
	char path[PATH_ROOM];
	struct loop *loop; /* of the first shard: for blocking work */
	struct store_options options;
	struct store_callbacks callbacks;
	struct store_identity identity;
	struct loop_file *super_file;
	uint64_t super_sequence;
	uint64_t life;
	uint64_t size_bytes;
	uint64_t created_ns;
	uint64_t deadline_ns; /* atomic: of an operation of the disk */
	uint64_t *note;	      /* borrowed: the last LSN of each shard; NULL: none */
	uint32_t segment_bytes;
	uint32_t segments; /* per shard */
	uint32_t shard_count;
	bool is_clean;	   /* as the superblock on disk says */
	bool is_unclean;   /* it stays so, however it is closed: store_set_unclean() */
	bool is_failed;	   /* atomic */
	bool was_reported; /* atomic: failed() was called */
	uint32_t users;	   /* atomic: who has opened it, and mail on its way to shards */
	struct shard *shards;
};

static inline bool shard_is_failed(const struct shard *shard)
{
	return shard->state == SHARD_FAILED;
}

/* A shard that stops makes no more space than what it has queued needs. */
static inline bool shard_makes_space(const struct shard *shard)
{
	return shard->state == SHARD_RUNNING ||
	       (shard->state == SHARD_STOPPING && shard->has_cleaning_need);
}

static inline uint64_t shard_places(const struct shard *shard)
{
	return (uint64_t)shard->segment_count * shard->segment_blocks;
}

static inline uint32_t place_segment(const struct shard *shard, uint32_t place)
{
	return place / shard->segment_blocks;
}

/* shard.c */
struct shard *shard_of(const struct store *store, uint32_t pg);
struct pg *shard_pg(struct shard *shard, uint32_t pg);	    /* NULL: unknown */
struct pg *shard_pg_make(struct shard *shard, uint32_t pg); /* NULL: no memory */
bool shard_pg_next(struct shard *shard, uint32_t from, uint32_t *out);
void shard_pg_forget(struct shard *shard, struct pg *pg);
void shard_pg_free(struct pg *pg); /* its pages and slots go with the cache */
void shard_free_marks(struct shard *shard);
void shard_on_fail_mail(struct loop *loop, struct loop_mail *mail);
/* The first error from write or sync, or a hung operation. */
void shard_fail(struct shard *shard, int error, const char *what);
/*
 * Blocks of the object that lie one behind the other from @place on are damaged (@count 0: which ones nobody knows):
 * mark it missing and them lost in the log, and report it. Of a block that was written elsewhere since, the mark
 * says nothing.
 */
void shard_corrupt(struct shard *shard, uint32_t pg, const struct object_key *key, uint32_t block,
		   uint32_t count, uint32_t place);
/* Something that a stop may wait for has ended. */
void shard_check_stop(struct shard *shard);
/* Of a store that was closed after it failed: its memory stays until nothing of it is in flight. */
bool shard_is_busy(struct shard *shard);
void shard_await(struct shard *shard);
void shard_check_gone(struct shard *shard);
/* store.c */
void store_get(struct store *store);
/* The last one frees it. */
void store_put(struct store *store);
void shard_publish(struct shard *shard); /* figures, for other threads */
/* What entries may take of a shard that has so many segments. */
uint64_t store_usable_bytes(const struct store *store, uint32_t segments);
void store_file_name(const struct store *store, char out[PATH_ROOM + 64], const char *kind,
		     uint32_t shard, uint32_t number);

/* super.c */
/* Open and lock the superblock; read it, or tell that the store is to be created. */
int super_open(struct store *store, bool *out_is_new, struct error *err);
/* Everything else is on stable storage: from here on the directory is a store. */
int super_finish_creation(struct store *store, struct error *err);
int super_write(struct store *store, struct error *err);

/* segment.c */
void segment_enter(struct shard *shard, uint32_t number, enum segment_state next);
const char *segment_state_name(enum segment_state state);
void segment_live_add(struct shard *shard, uint32_t place, uint32_t bytes);
void segment_live_drop(struct shard *shard, uint32_t place, uint32_t bytes);
void segment_pin(struct shard *shard, uint32_t number);
void segment_unpin(struct shard *shard, uint32_t number);
int segment_pick_free(const struct shard *shard, uint32_t *out);
/* Free what the durable checkpoint no longer needs. */
void segment_release(struct shard *shard, uint64_t durable_checkpoint);
void segment_mark_empty(struct shard *shard, uint64_t checkpoint, uint64_t replay_generation);
int segment_create_all(struct shard *shard, struct error *err);
int segment_open_all(struct shard *shard, struct error *err);
int segment_prepare_now(struct shard *shard, uint32_t number, struct error *err);
int preparer_new(struct shard *shard);
void preparer_free(struct shard *shard);
void preparer_kick(struct shard *shard);
bool preparer_is_idle(const struct shard *shard);
/* It writes to a file of checkpoints: for a moment none may begin. */
bool preparer_makes_room(const struct shard *shard);
void *preparer_zeroes(const struct shard *shard); /* 1 MiB */
/* Segments that are not filled with zeroes yet: the file system must have room for them. */
uint32_t segment_unfilled(const struct shard *shard);
/* Segments that are or can be made free. */
uint32_t segment_available(const struct shard *shard);

/* pool.c */
struct batch *batch_get(struct shard *shard, bool is_internal);
void batch_put(struct batch *batch);
void batch_destroy(struct batch *batch);
int batch_hold(struct batch *batch, struct buffer *buffer); /* takes the reference */
void batch_add_iov(struct batch *batch, void *data, uint32_t size);
bool batch_has_room(const struct batch *batch, uint32_t entry_bytes, uint32_t blocks,
		    uint32_t iovecs);

/* sync.c */
void sync_init(struct shard *shard);
/* Is there anybody whom a sync of what is written now would serve? */
bool log_has_sync_need(struct shard *shard);
void log_wait_sync(struct shard *shard);
void sync_abandon(struct shard *shard, int error);

/* log.c */
void log_on_written(struct io *io, int result);
void log_on_pages(struct waiter *waiter);
void log_queue_open(struct shard *shard);
void log_queue_internal(struct batch *batch);
void log_kick(struct shard *shard); /* submit at the end of the turn */
void log_abandon(struct shard *shard, int error);
bool log_is_idle(struct shard *shard);
bool log_is_stalled(const struct shard *shard);
uint64_t log_credit(const struct shard *shard);
uint64_t log_usable(const struct shard *shard);
int log_new(struct shard *shard);
void log_free(struct shard *shard);

/* append.c */
/* The batch is in the index: tell its callers, or keep those that wait for a sync. */
void append_applied(struct batch *batch);
void append_abandon(struct batch *batch, int error);
/* The record of a PG goes, with the next batch. */
int append_drop_record(struct shard *shard, uint32_t pg);

/* overlay.c */
struct flight *overlay_find(const struct overlay *overlay, uint32_t pg,
			    const struct object_key *key);
/* One more entry in flight for it; the caller fills in what a new one (count 1) holds. */
struct flight *overlay_take(struct overlay *overlay, uint32_t pg, const struct object_key *key);
void overlay_release(struct overlay *overlay, uint32_t pg, const struct object_key *key);
const struct flight *overlay_next(const struct overlay *overlay, uint32_t pg,
				  const struct object_key *after);
/* All of one PG, in no order; NULL: no more. */
const struct flight *overlay_first(const struct overlay *overlay, uint32_t pg);
const struct flight *overlay_after(const struct overlay *overlay, uint32_t pg,
				   const struct flight *f);
int overlay_init(struct overlay *overlay);
void overlay_done(struct overlay *overlay);

/* cache.c */
int cache_init(struct shard *shard, uint32_t bytes);
void cache_done(struct shard *shard);
/* A slot array for an object without pages. NULL: no memory. */
uint64_t *cache_slots_new(struct shard *shard);
void cache_slots_free(struct shard *shard, uint64_t *slots);
/* The page in memory, or NULL when it does not exist or is not there (yet). */
struct page *cache_page(struct shard *shard, uint64_t slot);
/*
 * Bring a page that exists into memory; @waiter is told when it is there. 0: it is there; 1: it
 * will be; -ENOMEM. NULL waiter: nobody waits.
 */
int cache_load(struct shard *shard, uint32_t pg, const struct object_key *key, uint64_t *slots,
	       uint8_t number, struct waiter *waiter);
/* At start-up: the same, blocking. */
int cache_load_now(struct shard *shard, uint32_t pg, const struct object_key *key, uint64_t *slots,
		   uint8_t number);
/* Give up pages beyond the budget: between operations, since they rely on what they loaded. */
void cache_trim(struct shard *shard);
/* A new page, dirty and empty, in an empty slot. */
struct page *cache_add(struct shard *shard, uint32_t pg, const struct object_key *key,
		       uint64_t *slots, uint8_t number);
void cache_dirty(struct shard *shard, struct page *page);
/* The page and its record go: of an object that is deleted, or all absent. */
void cache_drop(struct shard *shard, uint64_t *slots, uint8_t number);
/* The record of a page is in the log now. */
void cache_placed(struct shard *shard, uint64_t *slots, uint8_t number, uint64_t disk);
enum cache_flush_kind {
	FLUSH_ALL,
	FLUSH_CLEANED, /* only pages whose record is in a segment that the cleaner has emptied */
};
/* Write dirty pages, one batch; returns how many. */
uint32_t cache_flush(struct shard *shard, enum cache_flush_kind kind);

/* index.c */
/*
 * Apply an entry whose payload begins at @payload_place. 0, or -EAGAIN: pages are on their way,
 * @waiter is told; or -ENOMEM. At start-up @waiter is NULL and pages are read at once.
 */
int index_apply(struct shard *shard, const struct batch_entry *entry, uint32_t payload_place,
		struct waiter *waiter);
/* Blocks of the object are lost: it is missing at once, before the log says so. */
void index_damage(struct shard *shard, uint32_t pg, const struct object_key *key);
/* Apply an entry of which data blocks (@bad: a bitmap of them, in order) are damaged: replay only. */
int index_apply_broken(struct shard *shard, const struct batch_entry *entry, uint32_t payload_place,
		       const uint64_t *bad);

/* read.c */
void read_abandon(struct shard *shard, int error);
void read_free(struct shard *shard);

/* checkpoint.c */
int checkpoint_new(struct shard *shard, struct error *err);
void checkpoint_free(struct shard *shard, bool has_loop);
bool checkpoint_is_due(const struct shard *shard);
/* Begin one if it is due (or @is_forced). */
void checkpoint_kick(struct shard *shard, bool is_forced);
void checkpoint_step(struct shard *shard);
bool checkpoint_is_idle(const struct shard *shard);
uint64_t checkpoint_durable(const struct shard *shard);
void checkpoint_log_grew(struct shard *shard, uint32_t bytes);
int checkpoint_write_now(struct shard *shard, struct error *err);
/* Read the newest valid one into the shard: position, segments, PGs, objects. */
int checkpoint_load(struct shard *shard, struct error *err);

/* Another checkpoint comes, but not now: the file system had no room for it. */
bool checkpoint_is_put_off(const struct shard *shard);
/* So many pages may be dirty. */
uint32_t checkpoint_dirty_max(const struct shard *shard);

static inline bool is_no_room(int rc)
{
	return rc == -ENOSPC || rc == -EDQUOT;
}

/* room.c: what the files of checkpoints have, for sure */
int room_open(struct shard *shard, struct error *err);
bool room_is_low(const struct shard *shard);
/* Nothing may be written that makes the next checkpoint larger: not by clients; or by nobody. */
enum room_user { ROOM_CLIENT, ROOM_ANY };
bool room_is_used_up(const struct shard *shard, enum room_user user);
/* What is to be filled with zeroes next; false: nothing. Not while a checkpoint is written. */
bool room_lacks(const struct shard *shard, uint32_t *out_area, uint64_t *out_offset,
		uint32_t *out_length);
/* The file is written up to @end, or is about to be. */
void room_made(struct shard *shard, uint32_t area, uint64_t end);
struct loop_file *room_file(const struct shard *shard, uint32_t area);

/* replay.c */
int replay_run(struct shard *shard, struct error *err);

/* drop.c */
void drop_abandon(struct shard *shard, int error);
void drop_free(struct shard *shard);

/* cleaner.c */
int cleaner_new(struct shard *shard);
void cleaner_free(struct shard *shard);
void cleaner_kick(struct shard *shard);
bool cleaner_is_idle(const struct shard *shard);
void cleaner_log_grew(struct shard *shard, uint32_t bytes);

#endif
