/*
 * The store: objects on one disk, log-structured. docs/internals/store.md
 *
 * A store is a directory, divided at creation into shards. PG p lives in shard
 * p mod shards, and a shard belongs to one loop. Nothing is overwritten in
 * place: every change is an entry of a batch that is appended to the shard's
 * current segment, and an index says where each block is now.
 *
 * Nothing here knows what an epoch means: the store keeps the versions it is given,
 * per object and per PG, and what a primary needs to settle and to recognise retries
 * (tails, commit points, executed requests) survives restart, checkpoint and cleaner.
 *
 * Unless it says otherwise a function is called on the loop of the PG's shard.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buffer.h"
#include "lib/base/err.h"
#include "lib/base/hash.h"
#include "lib/base/uuid.h"
#include "lib/loop/loop.h"

#define BLOCK_SIZE	     4096u
#define OBJECT_SIZE	     (4u << 20)
#define OBJECT_BLOCKS	     (OBJECT_SIZE / BLOCK_SIZE)
#define STORE_LAYERS_MAX     64 /* of one read */
#define STORE_RUNS_MAX	     OBJECT_BLOCKS
#define STORE_SLICES_MAX     900u  /* of one entry */
#define STORE_SESSION_WINDOW 4096u /* numbers above a session's lowest (REPLICATION, Q1) */

struct store;

/* One 4 MiB piece of a layer. The family decides its PG and seeds its checksums. */
struct object_key {
	uint64_t layer;
	uint32_t index;
};

static inline int object_key_compare(const struct object_key *a, const struct object_key *b)
{
	if (a->layer != b->layer)
		return a->layer < b->layer ? -1 : 1;
	return a->index < b->index ? -1 : a->index > b->index;
}

/* REPLICATION, W1: the epoch in which the primary was made, and n from 1 in each reign. */
struct version {
	uint64_t reign;
	uint64_t n;
};

static inline int version_compare(struct version a, struct version b)
{
	if (a.reign != b.reign)
		return a.reign < b.reign ? -1 : 1;
	return a.n < b.n ? -1 : a.n > b.n;
}

static inline struct version version_max(struct version a, struct version b)
{
	return version_compare(a, b) >= 0 ? a : b;
}

static inline bool version_is_zero(struct version v)
{
	return v.reign == 0 && v.n == 0;
}

/* ---- life ---- */

struct store_options {
	uint64_t size_bytes;	 /* at creation; 0: 95 % of the free space */
	uint32_t segment_bytes;	 /* at creation; a power of two, 8 MiB to 1 GiB; 0: 64 MiB */
	bool has_small_segments; /* 1 MiB and more: no entry of a whole object fits; for tests */
	uint32_t shards;	 /* at creation; 0: @loops of store_open() */
	uint32_t cache_bytes;	 /* of index pages in memory, per shard; 0: 64 MiB */
	uint32_t batches_max;	 /* in flight per shard; 0: a good value */
	uint64_t deadline_ns;	 /* see store_set_deadline(); 0: 2 s */
};

struct store_callbacks {
	/* The first error from write or sync, a hung operation, or damage without an end: nothing
	 * is acknowledged any more. Once, on the loop of the shard that saw it. */
	void (*failed)(void *context, struct store *store, int error);
	/* A block failed its checksum: the object is marked missing until it is pushed again. On the
	 * loop of its shard. What replay finds is marked before store_open() returns, without a
	 * call: store_pg_info() counts it. */
	void (*corrupt)(void *context, struct store *store, uint32_t pg,
			const struct object_key *key);
	void *context;
};

struct store_identity {
	struct uuid uuid;     /* of the store, made at creation */
	struct uuid cluster;  /* null until store_set_cluster() */
	uint64_t incarnation; /* of the last start that was recorded */
	bool was_clean;	      /* the last stop was store_close() after a full sync */
	bool is_new;	      /* created by this store_open() */
	/* Replay met damage it could not bound (DESIGN 6, Replay), in this or an earlier start:
	 * stays until store_clear_lost_log(). */
	bool lost_log;
	uint32_t shards;
};

/*
 * Open the store in directory @path, creating it if the directory is empty or absent, and replay
 * its log: blocking, before the loops run. Shard s is bound to loops[s % loop_count]. A second
 * open by anybody fails with -EBUSY; a directory with other files, an unknown format or a
 * damaged superblock with an error that names it.
 */
int store_open(struct loop *const *loops, unsigned loop_count, const char *path,
	       const struct store_options *options, const struct store_callbacks *callbacks,
	       struct store **out, struct error *err);
/* Durable, blocking: at start-up (incarnation) and at format or join (cluster, first loop's thread). */
int store_set_incarnation(struct store *store, uint64_t incarnation, struct error *err);
int store_set_cluster(struct store *store, const struct uuid *cluster, struct error *err);
/* The registration that says so is applied: lost_log need not be told at the next start. As above. */
int store_clear_lost_log(struct store *store, struct error *err);
/*
 * It may have lost something, and nobody has been told of that: store_close() is not to mark it clean, or the next start would
 * forget it. Until the registration that says so is applied. On the first loop's thread, or before the loops run.
 */
void store_set_unclean(struct store *store, bool is_unclean);
const struct store_identity *store_identity(const struct store *store);
const char *store_path(const struct store *store);
bool store_is_failed(const struct store *store);
/*
 * How long an operation of the disk (read, write, sync) may take, from its submission to the kernel, before the
 * disk counts as hung: that stops the store as an I/O error does. Not while others of its kind are
 * done meanwhile: a disk that is only overloaded stays, up to four times the deadline. Any thread; from the next
 * look on, of which there are 16 in a deadline.
 */
void store_set_deadline(struct store *store, uint64_t deadline_ns);

/*
 * The LSN of the last batch in the index of a shard: right after store_open(), where its log ends. On the
 * shard's loop, or before the loops run.
 */
uint64_t store_lsn(const struct store *store, unsigned shard);
/*
 * A note of the last LSN of each shard that anything acknowledged rests on, for a memory that a kill of this
 * process survives (R3): after it the log must reach what the note says, or it has lost something. Kept from
 * now on, each stored before the acknowledgement. @lsns: one per shard, borrowed until store_close(); before the
 * loops run. NULL: none.
 */
void store_keep_note(struct store *store, uint64_t *lsns);

/*
 * Stop a shard: completes @op when nothing of it is in flight, its log is synced and a checkpoint
 * is written; no call on it may follow. When all shards have stopped, store_close() marks the store clean
 * (unless it has failed or is set unclean) and frees it. It never waits: a failed one goes with the last message that its shards
 * have sent each other and with the last operation that was in flight; one that hangs for ever keeps its
 * memory for ever. None of its loops turns meanwhile, but for the caller's own. A store_close() of a
 * store that has neither stopped nor failed is a crash: for tests.
 */
void store_stop_shard(struct store *store, unsigned shard, struct loop_op *op);
void store_close(struct store *store);
/* Free the memory of a store whose loops are gone (a simulated crash): touches no loop. */
void store_forget(struct store *store);

unsigned store_shard_of(const struct store *store, uint32_t pg);
struct loop *store_loop_of(const struct store *store, uint32_t pg);

/* ---- entries ---- */

enum block_state {
	BLOCK_ABSENT = 0, /* look at the parent layer */
	BLOCK_DATA = 1,
	BLOCK_ZERO = 2,
	BLOCK_LOST = 3, /* there was data, and no copy has it any more: it cannot be read */
};

/* A run of blocks of one object that are to be in one state. */
struct store_run {
	uint16_t block;
	uint16_t count; /* > 0, runs ascend and do not overlap */
	uint8_t state;	/* enum block_state */
};

enum store_entry_flags {
	STORE_ANY_PREVIOUS = 1u << 0,  /* settle, push: whatever version the object has */
	STORE_SET_MISSING = 1u << 1,   /* the content is not to be trusted from here on (J3) */
	STORE_CLEAR_MISSING = 1u << 2, /* the last batch of a push: complete at `version` */
	STORE_DELETE = 1u << 3,	 /* the object becomes absent, after the runs (there are none) */
	STORE_REPLACE = 1u << 4, /* blocks outside the runs become absent: a push of all; an
				  * entry of the order makes the object whole */
	STORE_UNSEQUENCED = 1u << 5, /* push, heal, garbage: not an entry of the PG's order; does
				       * not move last/tail, does not change the version unless
				       * CLEAR_MISSING or DELETE is set */
	STORE_SYNC = 1u << 6,	     /* complete only when the batch is on stable storage */
	STORE_GRANTED = 1u << 7,     /* another store has judged that there is space for it: may use
				  * as much as UNSEQUENCED ones */
	STORE_REQUESTS = 1u << 8,    /* `requests` in place of what is remembered of the object's
				      * requests behind version `above` (Q1) */
};

/* A request that was executed (Q1). */
struct store_request {
	uint64_t session;
	uint64_t number;
	struct version version; /* of its entry */
	struct object_key key;	/* of the object */
};

/*
 * One entry: whole or not at all, after every entry of the same shard appended before it. All
 * memory is borrowed until `done`, slices hold their own references.
 */
struct store_append {
	/*
	 * 0, or -E_STORE_FAILED. Never inside store_append(). In the order of the appends, but
	 * that an entry with STORE_SYNC waits for its sync and lets later ones without it pass.
	 * The change is visible to reads when this runs.
	 */
	void (*done)(struct store_append *append, int result);
	uint32_t pg;
	uint64_t family;
	struct object_key key;
	struct version version;	 /* of the entry; the object's from now on */
	struct version previous; /* the object must have this one (W2); zero: must be absent */
	uint64_t session;	 /* 0: no client request (settle, merge) */
	uint64_t number;	 /* of the request in the session */
	uint64_t lowest;	 /* the lowest number the session still waits for */
	uint32_t flags;		 /* enum store_entry_flags */
	uint32_t run_count;
	const struct store_run *runs;
	uint32_t slice_count;
	const struct slice *slices; /* payload of the data runs, in order; whole blocks */
	const uint32_t *crcs;	    /* plain CRC32C per data block, in order; NULL: computed here */
	/* with STORE_REQUESTS: of this object; they are there if and only if the change is */
	const struct store_request *requests;
	uint32_t request_count;
	struct version above;
	/* private */
	struct cds_list_head link;
	uint64_t lsn;
	void *batch;
};

/*
 * Append. Returns 0 when it is queued (then `done` will run), or at once: -E_VERSION (the object has
 * another version, counting entries in flight), -E_MISSING (it is missing and nothing in flags says
 * that does not matter), -ENOSPC (no credit: never for what only frees space, which are absent runs,
 * deletions, and zeroes where something has been written before; for
 * UNSEQUENCED and GRANTED ones only when a quarter of the reserve is used up as well), -E_STORE_FAILED,
 * -E_SHUTDOWN (the shard stops), -E2BIG (more data than store_entry_blocks_max(), or too many slices), -ENOMEM, -EINVAL
 * (also for another family than the object has, and for a number outside of its session's window).
 */
int store_append(struct store *store, struct store_append *append);
/* Data blocks that one entry may have: a whole object unless segments are smaller than 8 MiB. */
uint32_t store_entry_blocks_max(const struct store *store);

/* Complete @op when everything appended to @pg's shard so far is on stable storage; shared by all who wait. */
void store_sync(struct store *store, uint32_t pg, struct loop_op *op);

/* ---- reading ---- */

struct store_read {
	/*
	 * 0; -E_MISSING; -E_CHECKSUM (then `bad_block` and `bad_layer` say where; nothing of the
	 * data may be served; the object has been reported by `corrupt`); -E_LOST (some block is
	 * BLOCK_LOST, and there are no `states` to say which); -E_STORE_FAILED; -ENOMEM.
	 */
	void (*done)(struct store_read *read, int result);
	uint32_t pg;
	uint64_t family;
	uint32_t index;
	const uint64_t *layers; /* top first; a block absent in one is looked up in the next */
	uint32_t layer_count;	/* 1 to STORE_LAYERS_MAX */
	uint32_t block, count;	/* whole blocks */
	/* Of an object that is missing read what is good, with `states`: -E_MISSING if nobody knows. */
	bool is_salvage;
	/* results */
	struct slice data; /* count * BLOCK_SIZE bytes, zeroes where absent or zero; the reader
			       * owns the reference; not set when all blocks are holes */
	bool is_all_hole;  /* nothing but absent and zero blocks: no buffer was made */
	uint32_t *crcs;	 /* in: room for @count plain CRC32Cs, or NULL. Of holes: of 4096 zeroes */
	uint8_t *states; /* in: room for @count enum block_state, or NULL */
	uint32_t bad_block;
	uint64_t bad_layer;
	/* private */
	struct cds_list_head link;
	void *work;
};

/* Reads what is visible when this is called; never completes inside the call. */
void store_read(struct store *store, struct store_read *read);

struct store_object {
	struct object_key key;
	uint64_t family;
	struct version version; /* of the newest entry, in flight ones included */
	bool is_missing;
	bool is_partial;      /* missing, and not only for blocks that are said to be lost */
	bool is_in_flight;    /* that entry is not visible to reads yet */
	uint32_t data_blocks; /* blocks that take space */
	uint32_t lost_blocks; /* of what reads see; if it is missing: of this copy */
};

/* 1 and *@out when the object exists (missing ones do), 0 when it is absent. */
int store_object(struct store *store, uint32_t pg, const struct object_key *key,
		 struct store_object *out);
/* The first object of @pg above @after (NULL: the very first), in key order. 1, or 0 at the end. */
int store_object_next(struct store *store, uint32_t pg, const struct object_key *after,
		      struct store_object *out);

/* What objects of one layer add up to. */
struct store_layer_use {
	uint64_t objects;
	uint64_t missing;     /* of them: what they hold here is not to be trusted */
	uint64_t data_blocks; /* blocks that take space, as reads see them */
};

/*
 * Add to *@use what @pg's objects of @layer hold from index *@next (first 0) on: @max objects at most. True: those
 * were all; false: go on later, from *@next. An object that is written meanwhile counts once.
 */
bool store_layer_use(struct store *store, uint32_t pg, uint64_t layer, uint64_t *next, uint32_t max,
		     struct store_layer_use *use);

/*
 * Block states and plain CRC32Cs of one object, for delta pushes; absent objects are all absent. Whoever asks knows what is
 * lost of it from then on: a push that clears MISSING counts.
 */
struct store_sums {
	void (*done)(struct store_sums *sums,
		     int result); /* 0, -E_STORE_FAILED, -EIO, -E_CHECKSUM */
	uint32_t pg;
	struct object_key key;
	bool is_peek;		/* no push follows: what the store knows stays as it is */
	struct version version; /* out: what the sums are of */
	bool is_missing;	/* out */
	uint8_t states[OBJECT_BLOCKS];
	uint32_t crcs[OBJECT_BLOCKS];
	/* private */
	struct cds_list_head link;
	void *work;
};
void store_sums(struct store *store, struct store_sums *sums);

/* ---- what a PG remembers ---- */

/* An entry after the commit point, as a new primary needs it to settle (T1, T2). */
struct store_tail_entry {
	struct version version;
	struct version previous;
	struct object_key key;
	uint64_t family;
	uint64_t session;
	uint64_t number;
	uint32_t run_count; /* the blocks it touched, merged */
	struct {
		uint16_t block, count;
	} runs[4]; /* one run over all of them when there were more */
};

struct store_pg_info {
	struct version last;   /* of the newest entry appended, in flight ones included */
	struct version commit; /* the commit point as last told by store_set_commit() */
	uint32_t tail_count;
	uint32_t objects;
	uint32_t missing;
	uint32_t lost; /* objects with lost blocks, missing ones included */
	uint64_t data_blocks;
};

void store_pg_info(struct store *store, uint32_t pg, struct store_pg_info *out);

/* What all objects of a PG add up to, of the newest entries, in flight ones included. */
struct store_digest {
	uint64_t digest; /* the sum of store_digest_of() */
	uint64_t objects;
	uint64_t missing;
};

/* What one object adds; order does not matter. */
static inline uint64_t store_digest_of(const struct object_key *key, struct version version)
{
	return hash_u64_pair(hash_u64_pair(key->layer, key->index),
			     hash_u64_pair(version.reign, version.n));
}

/* Kept as entries are applied: costs what is in flight. */
void store_pg_digest(struct store *store, uint32_t pg, struct store_digest *out);
/* Every entry up to @commit is committed: the tail shrinks. Written with the next batch, not by itself. */
void store_set_commit(struct store *store, uint32_t pg, struct version commit);
/* Copy the tail, oldest first, to @out of @max. Returns how many there are. */
uint32_t store_pg_tail(struct store *store, uint32_t pg, struct store_tail_entry *out,
		       uint32_t max);
/* Was (session, number) executed here? 1 and its version, or 0. */
int store_request_find(struct store *store, uint32_t pg, uint64_t session, uint64_t number,
		       struct version *out);
/* All that are remembered of @pg. Returns how many there are; copies @max at most. */
uint32_t store_requests(struct store *store, uint32_t pg, struct store_request *out, uint32_t max);
/* The same of one object, of those with a version behind @above. */
uint32_t store_object_requests(struct store *store, uint32_t pg, const struct object_key *key,
			       struct version above, struct store_request *out, uint32_t max);
/* Replace what is remembered (join); durable with the next batch. */
int store_set_requests(struct store *store, uint32_t pg, const struct store_request *requests,
		       uint32_t count);
/* A session ended: forget its requests. */
void store_end_session(struct store *store, uint32_t pg, uint64_t session);

/*
 * Forget everything of a PG that this store no longer holds: its objects become garbage, its record
 * goes. Completes @op when that is on stable storage.
 */
void store_drop_pg(struct store *store, uint32_t pg, struct loop_op *op);
/* The PGs of which the store has objects or a record, ascending: 1 and *@out_pg >= @from, or 0.
 * Before the loops run, or per shard on its loop (others' PGs are skipped then). */
int store_pg_next(struct store *store, uint32_t from, uint32_t *out_pg);

/* ---- space and figures ---- */

struct store_space {
	uint64_t size_bytes;
	uint64_t live_bytes;	  /* blocks that are referenced, and what describes them */
	uint64_t allocated_bytes; /* segments in use */
	uint64_t credit_bytes;	  /* what may still be written before ENOSPC */
};
/* Any thread; a little behind. */
void store_space(const struct store *store, struct store_space *out);
/* Credit of @pg's shard, exact, for the primary's decision and the reports to it. */
uint64_t store_credit(const struct store *store, uint32_t pg);

struct store_counters {
	uint64_t batches, entries, bytes_appended, bytes_data, syncs, reads, bytes_read;
	uint64_t cleaner_bytes_moved, cleaner_segments, checkpoints, checksum_errors;
};
/* Summed over the shards; any thread; a little behind. */
void store_counters(const struct store *store, struct store_counters *out);

#endif
