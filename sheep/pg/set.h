/*
 * A set, its seats, and what they keep: set.c, pg.c, arena.c.
 */
#ifndef PG_SET_H
#define PG_SET_H

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
#define PG_ENTRIES_MAX	  16384u /* not committed, of one PG: its tail must fit one message */
#define PG_COMMIT_IDLE_NS (50 * NS_PER_MS)
#define PG_ASK_AGAIN_NS	  (200 * NS_PER_MS)
#define PG_PATIENCE_NS	  NS_PER_S /* of clients' operations with a PG where nothing moves */

struct pg_lead;
struct pg_filler;
struct pg_election;
struct pg_leases;
struct pg_beacons;

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

/* awake.c */
struct pg_awake {
	struct loop_timer timer;
	uint64_t ran_ns, seen_ns; /* how long the loop had run when it was looked at last */
	uint64_t paused_ns;	  /* ran_ns after the last pause; 0: none */
};

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
	struct cds_list_head crowded;  /* seats that have room for ios that wait */
	uint32_t works_max;	       /* of one PG */
	struct cds_list_head future_ios;
	struct cds_list_head future_syncs;
	struct cds_list_head future; /* pg_parked */
	uint32_t future_count, future_max;
	struct cds_list_head finished;	     /* ios to be told */
	struct cds_list_head finished_syncs; /* syncs to be told */
	struct cds_list_head drains;	     /* pg_drain: until older writes are over */
	struct cds_list_head active;	     /* seats that the tick looks at */
	struct loop_op kick;
	bool is_kicked;
	struct loop_timer tick;
	struct pg_awake awake;
	bool needs_all;			/* look at all PGs at the next map */
	struct cds_list_head elections; /* pg_election */
	uint64_t elect_ns;		/* when they asked last */
	/* leases */
	uint32_t node; /* ours; 0: not in the map */
	struct pg_leases *leases;
	struct pg_beacons *beacons;	/* called on their loop only */
	struct loop *home;		/* that loop */
	struct cds_list_head leaseless; /* works that cannot be answered without a lease */
	struct {
		struct loop_mail mail; /* to the beacons and back */
		bool is_out;
		uint64_t needed_ns;
		struct cds_list_head link; /* of those that wait there */
	} lease_mail;
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

/* A store that had a part in the PG, or was to have one, and has none in `row`. */
struct pg_former {
	uint32_t store;
	uint64_t since_ns;
};

#define PG_FORMERS_MAX 8u /* the oldest one goes for the next */

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
	struct pg_election *election; /* NULL: somebody leads, or we could not */
	struct cds_list_head waiting; /* ios, until it serves, or has room */
	uint32_t waiting_count;
	uint64_t progress_ns;	      /* when its state changed last, or a work of it ended */
	struct cds_list_head crowded; /* in the set, when is_crowded */
	bool is_crowded;
	struct cds_list_head active; /* in the set, when is_active */
	bool is_active;
	struct pg_former formers[PG_FORMERS_MAX];
	uint32_t former_count;
	bool has_data;			/* the store may have objects or a record of it */
	uint64_t fence_index, fence_ns; /* of `row`, and since when we had it as a member (L3) */
	bool has_holes;			/* the store may have objects that are missing */
	bool is_dropped;		/* store_drop_pg() is running */
	struct loop_op drop_op;
	uint64_t join_proposed_ns, holes_proposed_ns;
};

static inline struct store *pg_store_of(const struct pg *pg)
{
	return pg->store->store;
}

/* ---- set.c ---- */

struct pg *pg_find(struct pg_set *set, uint32_t pg, uint32_t store);
struct pg_lead *pg_lead_find(struct pg_set *set, uint32_t pg);
/* Something waits in the set's lists: look at them soon. */
void pg_set_kick(struct pg_set *set);
/* The tick looks at this seat until it says that nothing is left to do. */
void pg_set_active(struct pg *pg);
/* There will be a tick soon, whether a seat is active or not. */
void pg_set_tick(struct pg_set *set);
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

/* ---- awake.c ---- */

/* On the loop of the set, now and again. */
void pg_awake_start(struct pg_set *set);
/* For how long the loop has run: pauses of it do not count. */
uint64_t pg_awake_ns(const struct pg_set *set);
/* Has it just been paused? Then the map may be of before. */
bool pg_awake_was_paused(const struct pg_set *set);

/* ---- peers.c ---- */

/* Of our node, in this start. */
uint64_t pg_peers_incarnation(const struct pg_peers *peers);
/* Our node in the map, if this very start of it is registered and up there; else NULL. */
const struct cluster_node *pg_peers_self(const struct pg_peers *peers,
					 const struct cluster_map *map);

/* ---- pg.c ---- */

const char *pg_state_name(enum pg_state state);
void pg_enter(struct pg *pg, enum pg_state next, const char *why);
/* The map changed for this seat. */
void pg_apply(struct pg *pg, const struct cluster_pg *row);
/* Another start of our store is registered, or ours is not yet: no part in anything (R1). */
void pg_withdraw(struct pg *pg);
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

#endif
