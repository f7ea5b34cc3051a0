/*
 * Placement groups: replication, takeover, recovery. docs/internals/pg.md
 *
 * A pg_set holds every seat (a PG on a store of ours) whose home is one loop, over all of
 * the node's stores. It is called on that loop only. Gateways hand it object I/O for PGs whose
 * primary is one of our stores; peers reach it through the ops of pg_peer_protocol.
 *
 * A node needs, on each loop: a net, pg_peers on it, a pg_set with the stores, and
 * net_serve() of pg_peer_protocol with the set as context; then each map as it comes.
 */
#ifndef PG_PG_H
#define PG_PG_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buffer.h"
#include "lib/loop/loop.h"
#include "lib/net/net.h"
#include "sheep/cluster/cluster.h"
#include "sheep/store/store.h"

struct pg_set;
struct pg_peers;

/* ---- links to the other sheep ---- */

/*
 * The links of one loop, one for each (node, loop of that node, class) that was ever asked
 * for. Our own node is dialled like any other: a PG may have two stores of one node.
 */
int pg_peers_new(struct net *net, struct pg_peers **out, struct error *err);
void pg_peers_free(struct pg_peers *peers); /* calls get -E_CLOSED; NULL is allowed */
/* Calls get -E_CLOSED, and there are no links any more. pg_set_stop() does it. */
void pg_peers_stop(struct pg_peers *peers);
/* Addresses, loops and stores are those of this map from now on (a reference is taken). */
void pg_peers_apply(struct pg_peers *peers, struct cluster_map *map);
/*
 * Tell when a connection to that start of a node is made (@is_up), and when it has ended: @is_by_peer: its kernel
 * closed it. On the loop of @peers, from now until pg_peers_stop() has returned. Set it before links are made.
 */
void pg_peers_watch(struct pg_peers *peers,
		    void (*changed)(void *context, const struct uuid *node, uint64_t start,
				    bool is_up, bool is_by_peer),
		    void *context);
/*
 * The link to the loop of @store's node that is home of @pg, or NULL: the map has no such
 * store, its node is not up, or there is no memory. Borrowed for this turn: keep the ids, not
 * the link. @class: enum peer_class.
 */
struct net_link *pg_peers_link(struct pg_peers *peers, uint32_t store, uint32_t pg, unsigned class);
/* The same by node and loop, FRAME_ANY_LOOP included. */
struct net_link *pg_peers_node_link(struct pg_peers *peers, uint32_t node, uint16_t loop,
				    unsigned class);
/* Which loop of its node is the home of (@store, @pg), as the map has it; FRAME_ANY_LOOP: unknown. */
uint16_t pg_peers_loop_of(const struct cluster_map *map, uint32_t store, uint32_t pg);

/* What peers speak: for links, and with the handlers for net_serve(), context: the pg_set. */
extern const struct wire_protocol pg_peer_protocol;

/* ---- life ---- */

struct pg_env {
	struct loop *loop;
	struct pg_peers *peers; /* of this loop; borrowed */
	void *context;
	/* Ask for @command to be signed, proposed and freed. It may be lost; what still matters
	 * is proposed again. May be called inside any call of this header. */
	void (*propose)(void *context, struct cluster_command *command);
	uint32_t ios_max;     /* client operations in work at a time; 0: 1024. More wait */
	uint32_t appends_max; /* APPENDs to members outstanding; 0: 4 times ios_max */
	uint32_t future_max;  /* messages that wait for a later map; 0: 4096. More are refused */
};

int pg_set_new(const struct pg_env *env, struct pg_set **out, struct error *err);
/*
 * The sets of all loops of this node, before any loop runs: beacons come and go on the loop of the first
 * one, and all have their leases by them. Without this a primary with members on other nodes serves
 * no reads. The array is copied. -ENOMEM.
 */
int pg_set_group(struct pg_set *const *sets, unsigned count, struct error *err);
/*
 * A store of ours, once it is registered; @incarnation: as it was registered. Its PGs whose home
 * is this loop take part from the next pg_set_apply() on that shows this incarnation.
 */
int pg_set_add_store(struct pg_set *set, struct store *store, uint32_t id, uint64_t incarnation);
/*
 * A newer map (a reference is taken). @pgs: those that changed since the last one; NULL: any.
 * pg_peers_apply() comes before.
 */
void pg_set_apply(struct pg_set *set, struct cluster_map *map, const uint64_t *pgs, uint32_t count);
/*
 * What was asked of the log since it lost its quorum is lost: what is still wanted is asked for at once, not when it would be
 * repeated. On the set's loop.
 */
void pg_set_ask_again(struct pg_set *set);
/* What the store's callbacks said, on this loop. */
void pg_set_store_failed(struct pg_set *set, struct store *store, int error);
void pg_set_store_corrupt(struct pg_set *set, struct store *store, uint32_t pg,
			  const struct object_key *key);
/*
 * Serve nobody any more: waiting and later operations get -E_SHUTDOWN. @op completes when
 * nothing of the set is in flight; then the stores may be stopped and the set freed.
 */
void pg_set_stop(struct pg_set *set, struct loop_op *op);
/* After pg_set_stop() completed, or if nothing was ever added; the first of a group last. NULL is
 * allowed. */
void pg_set_free(struct pg_set *set);

/* ---- object I/O, as the primary serves it ---- */

enum pg_io_kind { PG_IO_READ, PG_IO_WRITE, PG_IO_ZERO, PG_IO_TRIM };

enum pg_io_flags {
	PG_IO_FUA = 1u << 0, /* complete when synced on every in-sync member */
};

/*
 * One read or write within one object. Embedded in its owner; everything it points to is
 * borrowed until done.
 */
struct pg_io {
	/*
	 * 0, or:
	 *   -E_NOT_PRIMARY, -E_STALE_EPOCH, -E_FUTURE_EPOCH, -E_CLOSED: not executed here as far as
	 *	this answer knows: wait for a newer map, send again with the same number;
	 *   -ENOSPC, -EIO, -E_LOST, -E_STALE_SESSION, -E_STALE_GENERATION, -ENOMEM: the client's error.
	 * Never inside pg_submit().
	 */
	void (*done)(struct pg_io *io, int result);
	enum pg_io_kind kind;
	uint32_t flags; /* enum pg_io_flags */
	uint32_t pg;
	uint64_t epoch;	    /* of the PG, in the map the request was made under */
	uint64_t map_index; /* of that map */
	uint64_t volume;
	uint64_t generation;
	uint64_t family;
	const uint64_t *layers; /* top first; writes go to the top */
	uint32_t layer_count;
	uint32_t index;	 /* of the object */
	uint32_t offset; /* bytes into the object, any */
	uint32_t length; /* bytes, > 0 */
	/* writes */
	/*
	 * REPLICATION, Q1: the session of one loop of a gateway, peer_session_of(). Numbers are per
	 * session and PG, from 1; those below `lowest` will not be sent again.
	 */
	uint64_t session, number, lowest;
	const struct slice *slices; /* PG_IO_WRITE: exactly @length bytes */
	uint32_t slice_count;
	/* results */
	struct slice data;   /* of a read: @length bytes, the owner's reference; unset if is_hole */
	bool is_hole;	     /* of a read: all zeroes, no buffer was made */
	uint64_t loss_epoch; /* of the PG, with every success */
	/* private */
	struct cds_list_head link;
	uint64_t parked_ns; /* since when it waits for a map; 0: it never did */
	void *work;
};

/* Serve @io if a store of ours is the primary of its PG, on this set's loop. */
void pg_submit(struct pg_set *set, struct pg_io *io);

/* ---- FLUSH ---- */

struct pg_sync_row {
	uint64_t epoch; /* of the PG, in the map the request was made under */
	uint32_t pg;
	uint32_t store; /* a member of ours whose home is this loop */
};

/* What PEER_OP_SYNC asks of a remote node, asked of our own. Borrowed until done. */
struct pg_sync {
	/*
	 * 0: all that each member has of its PG is on stable storage. -E_STALE_EPOCH, -E_NOT_FOUND
	 * (no member here), -E_CLOSED, -E_SHUTDOWN: see a newer map, ask again;
	 * -E_STORE_FAILED: the same, the member will be removed. Never inside pg_sync_submit().
	 */
	void (*done)(struct pg_sync *sync, int result);
	const struct pg_sync_row *rows;
	uint32_t row_count;
	/* private */
	struct cds_list_head link;
	struct loop_op op;
	void *work;
	int result;
};

void pg_sync_submit(struct pg_set *set, struct pg_sync *sync);

/* ---- moves of ownership ---- */

/*
 * What PEER_OP_DRAIN asks of a remote node, asked of our own: is every write of @volume over that was
 * made under a generation older than @generation? Embedded in its owner.
 */
struct pg_drain {
	/*
	 * 0: the map here has reached @generation and @map_index, and no older write can land by a PG
	 * that is led from this loop; -E_SHUTDOWN. Never inside pg_drain_submit().
	 */
	void (*done)(struct pg_drain *drain, int result);
	uint64_t volume, generation, map_index;
	/* private */
	struct cds_list_head link;
};

void pg_drain_submit(struct pg_set *set, struct pg_drain *drain);

/* ---- figures ---- */

/* X(name, unit, help) */
#define PG_COUNTER_LIST(X)                                                                    \
	X(reads, "", "reads served as primary")                                               \
	X(writes, "", "writes, zeroes and trims committed as primary")                        \
	X(read_bytes, "bytes", "bytes read by clients")                                       \
	X(write_bytes, "bytes", "bytes written by clients")                                   \
	X(merges, "", "writes of parts of blocks that were made whole")                       \
	X(duplicates, "", "requests that had been executed before")                           \
	X(refused, "", "client operations refused: wrong epoch, session or primary")          \
	X(no_space, "", "writes refused for lack of space")                                   \
	X(appends_sent, "", "entries sent to members")                                        \
	X(appends_resent, "", "of these, sent again after a change of epoch or a reset")      \
	X(appends_received, "", "entries received as member")                                 \
	X(appends_refused, "", "entries received and refused")                                \
	X(diverged, "", "entries that a store of this node, in sync, could not apply")        \
	X(takeovers, "", "PGs that a store of this node began to lead")                       \
	X(settled_objects, "", "objects settled after takeovers")                             \
	X(shrinks, "", "members removed at this node's wish")                                 \
	X(evictions, "", "of these, for being far slower than the others")                    \
	X(joins, "", "joins that this node's stores began as primary")                        \
	X(expands, "", "joins completed as primary")                                          \
	X(digest_mismatches, "", "digests of a joining member that differed: compared again") \
	X(objects_compared, "", "objects compared with joining members")                      \
	X(objects_pushed, "", "objects pushed to joining members, deletions included")        \
	X(blocks_pushed, "", "blocks pushed with their data")                                 \
	X(recovery_bytes, "bytes", "bytes of block data pushed or fetched to recover copies") \
	X(objects_healed, "", "objects of our stores that were fetched from another copy")    \
	X(objects_lost, "", "objects of which blocks were left in no copy")                   \
	X(garbage_objects, "", "objects of deleted volumes removed")                          \
	X(beacons_sent, "", "beacons sent to other nodes")                                    \
	X(beacons_acknowledged, "", "of these, acknowledged")                                 \
	X(beacons_late, "", "of these, acknowledged after more than a quarter of the lease")  \
	X(beacons_refused, "", "beacons of others that this node did not acknowledge")        \
	X(leases_lost, "", "nodes that acknowledged no beacon for a lease")                   \
	X(lease_waits, "", "reads and repeated writes that waited for a lease")               \
	X(silent_takeovers, "", "PGs that this node asked to lead because of silence")

struct pg_counters {
#define PG_COUNTER_FIELD(name, unit, help) uint64_t name;
	PG_COUNTER_LIST(PG_COUNTER_FIELD)
#undef PG_COUNTER_FIELD
};

struct pg_counter {
	const char *name, *unit, *help;
	uint32_t offset; /* of a uint64_t in struct pg_counters */
};

extern const struct pg_counter pg_counter_table[];
extern const uint32_t pg_counter_count;

const struct pg_counters *pg_set_counters(const struct pg_set *set);

enum pg_role { PG_ROLE_NONE, PG_ROLE_MEMBER, PG_ROLE_JOINING, PG_ROLE_PRIMARY };

/* A joining or marked member, as the primary sees it. */
struct pg_join_status {
	uint32_t store;
	bool is_listing;	  /* not all objects have been compared yet */
	uint64_t objects_missing; /* of those compared: known to differ, not yet pushed */
	uint64_t bytes_missing;	  /* at most, of these objects */
	uint64_t objects_pushed, bytes_pushed;
};

/* One seat of this loop. */
struct pg_status {
	uint32_t pg;
	uint32_t store; /* ours */
	uint64_t epoch;
	enum pg_role role;
	const char *state;  /* for people: "serving", "collecting", ... */
	uint32_t in_flight; /* entries not yet committed */
	uint32_t waiting;   /* client operations that wait */
	uint32_t objects;   /* at our store */
	uint32_t missing;   /* of them: not to be trusted */
	uint32_t lost;	    /* of them: with blocks that no copy has, or if missing not this one */
	uint64_t data_bytes;
	uint32_t join_count;
	struct pg_join_status joins[LOG_SEATS_MAX];
};

/* Our seat with the lowest (pg, store) at or above (@pg, @store): 1, or 0 when there is none. */
int pg_set_status(const struct pg_set *set, uint32_t pg, uint32_t store, struct pg_status *out);
/* Does our @store lead @pg, at work or on the way there? Then it has all that was acknowledged, but for missing objects. */
bool pg_set_leads(struct pg_set *set, uint32_t pg, uint32_t store);

/* What the point LOSS_DECLARED (lib/base/rule.h) is about: an object, with what is about to be told of it. */
struct pg_loss {
	uint32_t pg;
	struct object_key key;
	struct version version; /* that the blocks were looked for in */
	const uint8_t *states;	/* OBJECT_BLOCKS */
};

#endif
