/*
 * What the files of sheep/pg share. The story is in docs/internals/pg.md.
 *
 *   set       all seats of one loop: maps, ticks, what waits for a later map
 *   pg        one seat (a PG on a store of ours): its state, and what it is: member or primary
 *   lead      what a seat has while its store is the primary
 *   entry     one numbered change: made, numbered, committed
 *   send      the same on its way to the members
 *   io, write client operations of a lead
 *   takeover  tails
 *   fence     the old primary
 *   requests  the table of executed requests, to a member
 *   settle    what the tails left in doubt
 *   filler    a joining, marked or holey member, as its primary fills it
 *   push      one object on its way to such a member
 *   heal      an object of ours that is missing, fetched from a member
 *   member    the other side of all that
 */
#ifndef PG_PG_PRIV_H
#define PG_PG_PRIV_H

#include <stdbool.h>
#include <stdint.h>
#include <urcu/list.h>
#include <uthash.h>

#include "include/proto/peer.h"
#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/pool.h"
#include "lib/base/size.h"
#include "sheep/pg/diff.h"
#include "sheep/pg/locks.h"
#include "sheep/pg/pg.h"
#include "sheep/pg/plan.h"
#include "sheep/pg/stream.h"

#define PG_MEMBERS_MAX	  (LOG_SEATS_MAX + LOG_COPIES_MAX)
#define PG_TICK_NS	  (20 * NS_PER_MS)
#define PG_PROPOSE_NS	  (500 * NS_PER_MS) /* between two proposals of the same */
#define PG_SLICES	  8u		    /* of an entry; more are gathered into one */
#define PG_RUNS_INLINE	  4u
#define PG_CRCS_INLINE	  12u
#define PG_GAPS_MAX	  1024u	 /* messages of one seat that came too early */
#define PG_FUTURE_MAX	  4096u	 /* messages of one set that wait for a later map */
#define PG_ENTRIES_MAX	  16384u /* not committed, of one PG: its tail must fit one message */
#define PG_COMMIT_IDLE_NS (50 * NS_PER_MS)
#define PG_ASK_AGAIN_NS	  (200 * NS_PER_MS)

struct pg;
struct pg_lead;
struct pg_member;
struct pg_filler;
struct pg_entry;
struct pg_work;

/* ---- memory for small refcounted pieces ---- */

struct pg_arena {
	struct buffer_cache *buffers;
	struct buffer *buffer;
	uint32_t used;
};

/* @size bytes aligned to 8, with a reference of their own; buffer NULL: no memory. */
struct slice pg_arena_take(struct pg_arena *arena, uint32_t size);
void pg_arena_done(struct pg_arena *arena);

/* ---- one local store ---- */

struct pg_store {
	struct cds_list_head link;
	struct store *store;
	uint32_t id;
	uint64_t incarnation;
	bool is_failed;
	bool is_known;	      /* the map shows this incarnation (R1) */
	uint64_t proposed_ns; /* STORE_FAILED */
};

/* What is remembered of a gateway's session (Q1). */
struct pg_session {
	uint64_t id;
	uint64_t lowest; /* that its requests have told */
	UT_hash_handle hh;
};

/* A message that waits: for a map, for what comes before it, for its store. */
struct pg_parked {
	struct cds_list_head link;
	struct net_request *request;
	uint64_t n;	/* of an APPEND: wait until this is applied, or the gap before is closed */
	uint64_t after; /* of one in a gap */
};

/* ---- the set ---- */

struct pg_set {
	struct pg_env env;
	struct loop *loop;
	struct cluster_map *map; /* NULL before the first */
	uint64_t index;		 /* of it */
	struct cds_list_head stores;
	struct pg *pgs;	       /* uthash by pg and store; seats stay once they are made */
	struct pg_lead *leads; /* uthash by pg */
	struct pg_locks locks;
	struct pool *works, *entries, *calls, *applies, *remotes;
	struct pg_arena arena;
	struct cds_list_head arrivals; /* ios that wait for a work */
	struct cds_list_head starved;  /* works that wait for an entry */
	struct cds_list_head future_ios;
	struct cds_list_head future_syncs;
	struct cds_list_head future; /* pg_parked */
	uint32_t future_count;
	struct cds_list_head finished;	     /* ios to be told */
	struct cds_list_head finished_syncs; /* syncs to be told */
	struct cds_list_head active;	     /* seats that the tick looks at */
	struct loop_op kick;
	bool is_kicked;
	struct loop_timer tick;
	bool needs_all; /* look at all PGs at the next map */
	/* recovery */
	struct cds_list_head pushing; /* pg_push */
	uint64_t starts;	      /* numbers given to beginnings of streams */
	uint32_t pushes;	      /* objects in work: pushes and heals */
	int64_t tokens;		      /* bytes that may be pushed now; below 0: a debt */
	uint64_t tokens_ns;	      /* when they were counted last */
	/* stopping */
	bool is_stopping;
	struct loop_op *stop_op;
	uint64_t in_flight_bytes; /* data of entries that are not committed */
	uint32_t busy; /* calls, store operations and timers out there that will come back */
	struct pg_counters counters;
};

/* ---- a seat ---- */

enum pg_state {
	PG_IDLE,       /* the map gives us no part */
	PG_MEMBER,     /* in the ISR, marked or joining: another store leads, or nobody */
	PG_COLLECTING, /* we lead: not all listed members have answered with their tail */
	PG_FENCED,     /* we lead: the old primary may still think that it does */
	PG_SERVING,    /* we lead, and answer */
	PG_WAITING,    /* we lead: too few members are in sync (S1) */
	PG_LEAVING,    /* we lead, and finish what we began before another takes over */
	PG_FAILED,     /* our store has stopped */
	PG_STATE_COUNT
};

/* As member. */
struct pg_part {
	struct pg_stream stream;
	bool has_stream;  /* the position is known */
	bool is_refusing; /* it could not apply an entry: nothing more in this epoch (W2) */
	bool syncs;	  /* acknowledge only what is synced (J4) */
	uint64_t id;	  /* of the stream here: rises with every beginning and end */
	uint64_t join;	  /* PG_JOIN under which it began; 0: none */
	uint64_t start;	  /* as the primary numbered it */
	struct cds_list_head gaps;    /* pg_parked by n */
	struct cds_list_head again;   /* pg_parked by n: repeated ones, until they are applied */
	struct cds_list_head applies; /* on their way into the store, in order */
	uint32_t gap_count;
	/* A table of requests that comes in pieces. */
	struct store_request *requests;
	uint32_t request_count;
	uint64_t requests_reign, requests_n;
};

struct pg {
	UT_hash_handle hh;
	uint64_t key; /* pg << 32 | store */
	uint32_t id;
	struct pg_set *set;
	struct pg_store *store;
	struct cluster_pg row; /* as the map has it */
	uint64_t epoch;	       /* that counts here: never falls */
	enum pg_state state;
	uint64_t entered_ns;
	enum pg_role role;
	struct pg_part part;
	struct pg_lead *lead;
	struct cds_list_head waiting; /* ios, until it serves */
	uint32_t waiting_count;
	struct cds_list_head active; /* in the set, when is_active */
	bool is_active;
	bool has_data;	 /* the store may have objects or a record of it */
	bool has_holes;	 /* the store may have objects that are missing */
	bool is_dropped; /* store_drop_pg() is running */
	struct loop_op drop_op;
	uint64_t join_proposed_ns, holes_proposed_ns;
};

static inline struct store *pg_store_of(const struct pg *pg)
{
	return pg->store->store;
}

/* ---- the primary ---- */

enum pg_member_kind {
	PG_MEMBER_ISR,	   /* must have an entry before it is committed */
	PG_MEMBER_FILLING, /* is sent what it is known to need */
	PG_MEMBER_SEALED,  /* joining, and counted like the ISR from here on (J4) */
	PG_MEMBER_MARKED,  /* listed, marked, not there: nothing is sent */
};

struct pg_member {
	struct pg_lead *lead;
	uint32_t store, node;
	enum pg_member_kind kind;
	uint64_t has_n;		    /* the highest entry that it has acknowledged */
	uint64_t after_n;	    /* the last entry put into its stream */
	struct cds_list_head calls; /* APPENDs that it has not acknowledged, by n */
	uint32_t call_count;
	uint32_t out;	   /* of them, those that are with the link */
	bool is_broken;	   /* some came back without an answer: nothing new is sent before them */
	uint64_t retry_ns; /* then from when on it is tried again */
	uint32_t retries;
	uint64_t progress_ns; /* when it last acknowledged something, or had nothing to */
	int refused;	      /* why it must leave; 0: it need not */
	uint64_t told_n;      /* commit point that it was told last */
	uint64_t credit;      /* bytes, as it reported last */
	/* its answer to COLLECT */
	bool has_answered, is_asked;
	uint64_t ask_ns;
	/* REQUESTS that must be there before anything counts */
	bool owes_requests;
	struct pg_filler *filler;
};

/* One APPEND to one member. */
struct pg_call {
	struct net_call call;
	struct pg_set *set;
	struct pg_entry *entry;
	struct pg_member *member; /* NULL: it is none any more */
	struct cds_list_head link;
	uint64_t after;
	bool is_out;
	struct slice slices[PG_SLICES + 1];
};

struct pg_entry {
	struct cds_list_head link; /* in the lead, until committed */
	struct pg *pg;
	struct pg_lead *lead; /* NULL: it ended */
	struct store_append append;
	uint32_t refs;	  /* the store, each call, the lead */
	uint32_t unacked; /* calls to members that are not acknowledged */
	bool is_stored;
	uint32_t flags; /* enum peer_entry_flags */
	uint64_t generation;
	uint64_t sent_ns;
	/* Once: 0, or why nobody knows whether it will be committed. NULL: nobody waits. */
	void (*committed)(struct pg_entry *entry, int result);
	void *owner;
	struct pg_lock *lock;	/* of the owner: lets barriers pass once our store has the entry */
	struct store_run *runs; /* inline, or from malloc(3) */
	uint32_t run_count;
	uint32_t *crcs; /* inline, or in crcs_slice */
	uint32_t block_count;
	uint32_t meta_crc;
	uint32_t slice_count; /* of data; one more when the meta is behind it */
	bool has_meta_slice;
	struct slice crcs_slice;
	struct slice slices[PG_SLICES + 1];
	struct store_run runs_inline[PG_RUNS_INLINE];
	uint32_t crcs_inline[PG_CRCS_INLINE];
	uint8_t meta[PEER_META_INLINE];
};

/* An object that is being settled. */
struct pg_settle;

struct pg_lead {
	UT_hash_handle hh;
	uint32_t id; /* of the PG */
	struct pg *pg;
	uint64_t reign;
	uint64_t next_n;   /* of the next entry */
	uint64_t stored_n; /* our own store has everything up to here */
	uint64_t commit_n;
	uint64_t commit_ns;	      /* when it last rose */
	struct cds_list_head entries; /* not committed, by n */
	uint32_t entry_count;
	uint32_t sync_waits; /* entries in all logs that are not synced everywhere */
	struct pg_member *members[PG_MEMBERS_MAX]; /* all but ourselves */
	uint32_t member_count;
	struct cds_list_head works;		  /* client operations */
	struct pg_session *sessions;		  /* uthash */
	uint64_t shrink_ns, handover_ns, join_ns; /* last proposals */
	uint64_t tick_ns;
	uint64_t members_epoch; /* pg_lead_members() has run for it */
	bool needs_members;	/* it ran out of memory */
	/* takeover */
	struct pg_plan plan;
	struct cds_list_head settles;
	uint32_t settle_left; /* objects not yet committed: no commit point is told before */
	uint32_t settle_running;
	uint32_t settle_sent; /* of settle_left, those that have their entry */
	uint64_t collect_ns;  /* when the members were asked */
	bool has_own_tail;    /* in the plan */
	bool has_settled;     /* pg_settle_start() has run */
	uint64_t fence_ns;    /* serve from then on; 0: no fence */
	uint64_t fence_index, fence_ask_ns;
	bool is_fence_asked, is_fence_confirmed;
	/* objects of ours that are missing */
	struct cds_list_head heals;
	uint32_t heal_count;
	struct object_key heal_cursor;
	bool has_heal_cursor;
	/* garbage */
	struct object_key garbage_cursor;
	bool has_garbage_cursor, is_garbage_due;
	uint32_t garbage_running;
};

/* ---- set.c ---- */

struct pg *pg_find(struct pg_set *set, uint32_t pg, uint32_t store);
struct pg_lead *pg_lead_find(struct pg_set *set, uint32_t pg);
/* Something waits in the set's lists: look at them soon. */
void pg_set_kick(struct pg_set *set);
/* The tick looks at this seat until it says that nothing is left to do. */
void pg_set_active(struct pg *pg);
/* NULL commands (no memory) are dropped: what matters is proposed again. */
void pg_set_propose(struct pg_set *set, struct cluster_command *command);
uint64_t pg_set_time(const struct pg_set *set, enum cluster_setting_id id);
/* Is the gateway's session, with or without the number of a loop, still in the map? */
bool pg_session_is_alive(const struct pg_set *set, uint64_t session);
/* One more, or one less, thing out there. */
static inline void pg_set_hold(struct pg_set *set)
{
	set->busy++;
}
void pg_set_release(struct pg_set *set);
/* Is @layer of a volume that was deleted? (M2) */
bool pg_is_garbage(const struct pg_set *set, uint64_t layer);
/* Does the object belong to this PG? For what peers say. */
bool pg_holds_object(const struct pg_set *set, uint32_t pg, uint64_t family, uint32_t index);

/* ---- pg.c ---- */

const char *pg_state_name(enum pg_state state);
void pg_enter(struct pg *pg, enum pg_state next, const char *why);
/* The map changed for this seat. */
void pg_apply(struct pg *pg, const struct cluster_pg *row);
/* Our store is gone. */
void pg_fail(struct pg *pg);
/* From the tick. False: nothing to look at any more. */
bool pg_tick(struct pg *pg, uint64_t now);
/* Go on towards serving, as far as it can. */
void pg_advance(struct pg *pg);
/* Serving clients, or could as soon as the floor is there again. */
static inline bool pg_is_leading(const struct pg *pg)
{
	return pg->state >= PG_COLLECTING && pg->state <= PG_LEAVING;
}

/* ---- lead.c ---- */

int pg_lead_begin(struct pg *pg);
void pg_lead_end(struct pg *pg, int result);
/* Members, kinds and links as the row has them now. 0 or -ENOMEM. */
int pg_lead_members(struct pg_lead *lead);
struct pg_member *pg_lead_member(const struct pg_lead *lead, uint32_t store);
bool pg_lead_tick(struct pg_lead *lead, uint64_t now);
/* In sync, but down, or it should leave. */
bool pg_member_is_lost(const struct pg_member *member);
/* Are all other members in sync lost? Then only a joining one can end the wait (S1). */
bool pg_lead_is_alone(const struct pg_lead *lead);
/* Enough members are in sync: what they all have may be acknowledged (S1, W3). */
bool pg_lead_may_commit(const struct pg_lead *lead);
/* Whatever is in doubt, entries up to @n too, is in the logs of all members in sync. */
bool pg_lead_is_everywhere(const struct pg_lead *lead, uint64_t n);
/* The commit point that may be told (T2). */
uint64_t pg_lead_told(const struct pg_lead *lead);
/* A member must go: it is proposed, now and again. */
void pg_member_refuse(struct pg_member *member, int why);

/* ---- entry.c ---- */

/* NULL: no room now; what waits is tried again when there is. */
struct pg_entry *pg_entry_new(struct pg_lead *lead);
void pg_entry_put(struct pg_entry *entry);
/* Give up one that was not submitted. */
void pg_entry_drop(struct pg_entry *entry);
/* 0 or -ENOMEM. */
int pg_entry_runs(struct pg_entry *entry, const struct store_run *runs, uint32_t count);
/*
 * The data of the data runs: takes references; slices without a buffer, or that do not hold whole
 * blocks, are copied. @crcs: of each block, or NULL. 0 or -ENOMEM.
 */
int pg_entry_data(struct pg_entry *entry, const struct slice *slices, uint32_t count,
		  const uint32_t *crcs);
/*
 * Number it, append it to our store and send it to the members. append's key, family, session,
 * number and lowest are set. Negative: not done, the caller drops it.
 */
int pg_entry_submit(struct pg_entry *entry, bool any_previous);
/* Commit what can be. */
void pg_lead_commit(struct pg_lead *lead);
/* Our part of a lead that ends: nobody knows what becomes of its entries. */
void pg_entries_end(struct pg_lead *lead, int result);

/* ---- send.c ---- */

/* To all members that want it. */
void pg_entry_send(struct pg_entry *entry);
/* Send again what is not acknowledged, when everything has come back. */
void pg_member_resend(struct pg_member *member, uint64_t now);
/* Tell it the commit point by a message of its own. */
void pg_commit_tell(struct pg_member *member, uint64_t commit_n);
/* Forget what was to be sent to it. */
void pg_member_forget(struct pg_member *member);

/* ---- io.c ---- */

/* Waits for an object of ours to be healed: a client operation, a push, a settle. */
struct pg_heal_wait {
	struct cds_list_head link;
	void (*done)(struct pg_heal_wait *wait, int result);
};

struct pg_work {
	struct pg_set *set;
	struct pg_io *io;	      /* NULL: answered */
	struct pg_lead *lead;	      /* NULL: it ended */
	struct cds_list_head link;    /* in the lead */
	struct cds_list_head starved; /* in the set, when is_starved */
	bool is_starved;
	struct pg_lock lock;
	struct object_key key;
	uint32_t block, count; /* that it touches */
	uint32_t pending;      /* reads, entry and heal out there */
	uint32_t heals;	       /* tries */
	int result;	       /* of the reads: the first error */
	struct pg_heal_wait heal;
	bool is_merged;		    /* the blocks at its ends were read */
	bool has_entry;		    /* it has its number */
	struct store_read reads[2]; /* the read; or the first and the last block of a write */
	uint64_t layers[STORE_LAYERS_MAX];
};

void pg_io_begin(struct pg_set *set, struct pg_io *io);
/* Tell its owner, soon. */
void pg_io_finish(struct pg_set *set, struct pg_io *io, int result);
/* Answer; lock and memory go when nothing is out there. */
void pg_work_end(struct pg_work *work, int result);
/* One that was ended: nothing is out there any more, maybe. */
void pg_work_put(struct pg_work *work);
/* Take the lock (again) and go. */
void pg_work_start(struct pg_work *work);
/* Some layer's object is missing here: wait until it is healed, then start again. */
void pg_work_heal(struct pg_work *work);
/* Read blocks through all layers; pg_work_read() goes on when all reads are back. */
void pg_work_read(struct pg_work *work, unsigned slot, uint32_t block, uint32_t count);
/* No entry is to be had: try again when one is. */
void pg_work_starve(struct pg_work *work);
/* All ios of a seat that wait: judge them again. */
void pg_io_rejudge(struct pg *pg);
void pg_works_end(struct pg_lead *lead, int result);
/* Those of sessions that have ended (Q2). */
void pg_works_end_sessions(struct pg_lead *lead);
void pg_io_drain(struct pg_set *set); /* from the kick */

/* ---- write.c ---- */

void pg_write_go(struct pg_work *work);
/* The primary decides whether there is space, for all members (DESIGN 6, Full). */
bool pg_lead_has_space(const struct pg_lead *lead, uint64_t bytes);

/* ---- takeover.c ---- */

/* Must its tail be known before anybody is served? (T1) */
static inline bool pg_member_must_answer(const struct pg_member *member)
{
	return member->kind == PG_MEMBER_ISR;
}
/* Ask all listed members for their tails, anew. */
void pg_collect_start(struct pg_lead *lead);
void pg_collect_tick(struct pg_lead *lead, uint64_t now);
bool pg_collect_is_done(const struct pg_lead *lead);

/* ---- fence.c ---- */

void pg_fence_ask(struct pg_lead *lead);
void pg_fence_tick(struct pg_lead *lead, uint64_t now);

/* ---- requests.c ---- */

/* The requests executed here, to a member, in the order of the entries. 0 or -ENOMEM. */
int pg_requests_send(struct pg_member *member, uint64_t n);

/* ---- settle.c ---- */

/* Tails are here: lock what is in doubt, replace the members' requests. 0 or -ENOMEM. */
int pg_settle_start(struct pg_lead *lead);
void pg_settle_run(struct pg_lead *lead);
void pg_settle_end(struct pg_lead *lead);

/* ---- filler.c ---- */

int pg_filler_new(struct pg_member *member, uint64_t join, uint64_t incarnation);
void pg_filler_free(struct pg_filler *filler);		 /* NULL is allowed */
uint64_t pg_filler_join(const struct pg_filler *filler); /* log index of the PG_JOIN; 0: heals */
/* Does this member need the entry? Not what it is missing as a whole, nor what comes later (J2). */
bool pg_filler_wants(const struct pg_filler *filler, const struct object_key *key);
/* The member told that the object is missing there; not when undecided. */
void pg_filler_missing(struct pg_filler *filler, const struct object_key *key, uint64_t family);
/* Has an expand been proposed in this epoch? Then nothing may be relaxed (J4). */
bool pg_filler_is_undecided(const struct pg_filler *filler);
/* Its stream broke. */
void pg_filler_broken(struct pg_filler *filler, int why);
/* The epoch changed and it is still there. */
void pg_filler_epoch(struct pg_filler *filler);
bool pg_filler_tick(struct pg_filler *filler, uint64_t now);
/* Order-independent, over all objects that are no garbage; those in flight included. */
void pg_digest(struct pg *pg, uint64_t *digest, uint64_t *objects, uint64_t *missing);
void pg_filler_status(const struct pg_filler *filler, struct pg_join_status *out);

/* ---- ask.c: calls that are rare ---- */

struct pg_ask {
	struct net_call call;
	struct pg *pg;
	uint64_t reign, epoch; /* of the PG when it was sent */
	uint32_t store;	       /* that is asked */
	/* Once; the ask is freed behind it. NULL: nobody cares. */
	void (*done)(struct pg_ask *ask, int result);
	void *owner;
	struct slice payload; /* of the request */
	struct loop_op back;  /* when there is no link */
};

/* @payload_size: bytes of ask->payload to be filled in by the caller; NULL: no memory. */
struct pg_ask *pg_ask_new(struct pg *pg, uint32_t store, uint32_t payload_size);
/* Off it goes; always comes back, -E_CLOSED when there is no link. */
void pg_ask_send(struct pg_ask *ask, unsigned class, uint16_t op, const void *body,
		 uint32_t body_size, void (*done)(struct pg_ask *ask, int result));
/* The member that was asked, if we still lead in the same reign. */
struct pg_member *pg_ask_member(const struct pg_ask *ask);

/* ---- recovery tasks: push.c, heal.c ---- */

/* Bytes were moved: pace. */
void pg_recovery_charge(struct pg_set *set, uint64_t bytes);
/* May another object be begun? */
bool pg_recovery_may(struct pg_set *set);

struct pg_push;

struct pg_push_target {
	struct pg *pg;
	uint32_t store;
	uint64_t join, start; /* as PEER_OP_JOIN told them; 0: a heal */
};

/* @has_sums: the copy there is worth comparing with. NULL: no memory. */
struct pg_push *pg_push_new(struct pg_filler *filler, const struct pg_push_target *target,
			    const struct object_key *key, uint64_t family, bool has_sums);
/* Off it goes; pg_filler_pushed() tells the end, maybe inside this call. */
void pg_push_start(struct pg_push *push);
/* It need not wait for what cannot be committed without it (S1). False: that is so already. */
bool pg_push_barrier(struct pg_push *push);
/* The filler is not interested any more. */
void pg_push_cancel(struct pg_push *push);
/* The filler's side. */
void pg_filler_pushed(struct pg_filler *filler, const struct object_key *key, int result,
		      uint32_t blocks);

enum pg_heal_mode {
	PG_HEAL_UNLOCKED, /* the caller has no lock of the object: it is taken here */
	PG_HEAL_LOCKED,	  /* the caller has locked all of it, exclusively */
};

/*
 * Heal an object of ours that is missing, from another member. @wait->done (set by the caller) gets
 * the result: once, maybe inside this call. 0; -EIO: no member has it; -E_NOT_PRIMARY.
 */
void pg_heal_object(struct pg_lead *lead, const struct object_key *key, enum pg_heal_mode mode,
		    struct pg_heal_wait *wait);
void pg_heals_end(struct pg_lead *lead);
/* Ask again for those that no member could be asked for. */
void pg_heal_wake(struct pg_lead *lead, uint64_t now);
/* Look for missing objects in the background. True: there may be more. */
bool pg_heal_tick(struct pg_lead *lead);

/* ---- garbage.c ---- */

/* True: there may be more. */
bool pg_garbage_tick(struct pg_lead *lead);

/* ---- gate.c: what peers send, before it is looked into ---- */

/*
 * Is this request for a seat of ours, by its present primary, in the present epoch? NULL: it was
 * answered, or waits for a newer map. @index: what our map must have reached, besides @epoch.
 */
struct pg *pg_gate(struct net_request *request, uint64_t epoch, uint32_t pg, uint32_t store,
		   uint64_t index);
/* Wait until our map has reached a higher index. */
void pg_park_future(struct pg_set *set, struct net_request *request);
void pg_future_run(struct pg_set *set); /* a newer map is here, or we stop */
/* PEER_OP_CONFIRM */
void pg_on_confirm(struct net_request *request);

/* ---- member.c: the stream ---- */

size_t pg_apply_size(void); /* of what an APPEND in work takes */
void pg_part_init(struct pg *pg);
/* The epoch changed: what waits under an older one is refused (W1). */
void pg_part_epoch(struct pg *pg);
/* The stream has ended: another reign, another join, or no part any more. */
void pg_part_reset(struct pg *pg);
/* Answer what was parked at this seat. */
void pg_part_end(struct pg *pg, int status);
/* A stream begins behind entry @n. */
void pg_part_begin(struct pg *pg, uint64_t reign, uint64_t n);
/* A member in sync that restarted: its store, and what it acknowledged, tell where it was. */
void pg_part_find(struct pg *pg, uint64_t acknowledged);
void pg_on_append(struct net_request *request);
void pg_on_commit(struct net_request *request);

/* ---- member_turns.c: takeovers and joins, as the member sees them ---- */

void pg_on_collect(struct net_request *request);
void pg_on_requests(struct net_request *request);
void pg_on_join(struct net_request *request);
void pg_on_seal(struct net_request *request);

/* ---- member_bulk.c: recovery, as the member sees it ---- */

void pg_on_list(struct net_request *request);
void pg_on_sums(struct net_request *request);
void pg_on_push(struct net_request *request);
void pg_on_fetch(struct net_request *request);

/* ---- sync.c ---- */

void pg_sync_begin(struct pg_set *set, struct pg_sync *sync);

/* ---- client.c: gateways of other nodes ---- */

size_t pg_remote_size(void);
void pg_on_read(struct net_request *request);
void pg_on_write(struct net_request *request);
void pg_on_sync(struct net_request *request);

#endif
