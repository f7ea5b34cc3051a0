/* What the gateway's own files share. */
#ifndef GATEWAY_PRIV_H
#define GATEWAY_PRIV_H

#include <urcu/list.h>

#include "include/proto/peer.h"
#include "lib/base/pool.h"
#include "lib/net/net.h"
#include "sheep/gateway/gateway.h"

/*
 * Parts in flight per loop. NBD connections are bounded by requests and bytes of their own;
 * this bounds their sum, and with it the memory. Who finds none waits in `starved`.
 */
#define GATEWAY_PIECES_MAX 4096u
/* Parts of one request in flight: a TRIM of 4 GiB has a thousand and must not take them all. */
#define GATEWAY_IO_WINDOW    32u
#define GATEWAY_RETRY_MIN_NS (20 * NS_PER_MS)
#define GATEWAY_RETRY_MAX_NS (200 * NS_PER_MS)
#define GATEWAY_PATIENCE_NS  (1 * NS_PER_S) /* of what asks many: a flush, a new owner */

/* The layers of a volume, top first; as pieces in flight see them. */
struct chain {
	uint32_t refs;
	uint32_t count;
	uint64_t layers[LOG_LAYERS_MAX];
	le64 below[LOG_LAYERS_MAX]; /* those under the top, as the wire has them */
};

/* Writes of this loop to one PG: their numbers, and those that wait. */
struct route {
	uint64_t next_number;	    /* numbers are per session and PG, from 1 */
	struct cds_list_head order; /* numbered writes that are not done, ascending */
	struct cds_list_head held;  /* writes that wait for the window */
};

/*
 *   HELD --window--> SENT --answer--> (done)
 *                    |  ^
 *     not executed   v  | newer map, link up, or a pause
 *                   PARKED
 */
enum piece_state { PIECE_NEW, PIECE_HELD, PIECE_SENT, PIECE_PARKED, PIECE_STATE_COUNT };

/* A part of a request on its way. */
struct piece {
	struct pg_io io;
	enum piece_state state;
	struct gateway *gateway;
	struct gateway_io *parent;
	struct volume *volume;
	struct chain *chain; /* a reference */
	struct route *route;
	uint32_t place; /* of its data in the parent */
	uint32_t tries;
	uint64_t retry_ns; /* PARKED: when to try without a reason; */
	struct slice payload;
	struct cds_list_head order; /* route.order */
	struct cds_list_head link;  /* route.held or gateway.parked */
	struct cds_list_head in_io; /* parent->pieces */
	struct net_call call;
	struct loop_mail mail; /* to the PG's loop and back */
	unsigned home;	       /* the PG's loop */
};

/* What a volume has written to one PG since it was opened here. */
struct dirt {
	uint64_t written;    /* acknowledged writes */
	uint64_t flushed;    /* of them, known to be on stable storage */
	uint64_t loss_epoch; /* of the PG at the first write that is not flushed */
};

struct flush;

/*
 * May this loop write to a volume with access=single? (owner.c)
 *
 *   IDLE --a write comes--> ASKED --the map has us as owner--> DRAINING --all confirmed--> HELD
 *     ^                                                                                     |
 *     +------------------------------- from any: the map has not ---------------------------+
 *
 * IDLE, and the map has us (another loop of ours asked): DRAINING at the first write.
 */
enum owner_state { OWNER_IDLE, OWNER_ASKED, OWNER_DRAINING, OWNER_HELD, OWNER_STATE_COUNT };

/* An open volume on one loop: what its connections there share. */
struct volume {
	struct gateway *gateway;
	uint64_t id;
	uint32_t uses; /* connections; 0: closed, and kept for what it knows of unflushed writes */
	bool is_gone;  /* deleted while open: every request fails */
	struct cds_list_head connections;
	/* from the map */
	char name[LOG_NAME_SIZE];
	uint64_t size_bytes;
	uint64_t generation;
	uint64_t family;
	uint32_t policy;
	bool is_durable; /* every write is FUA */
	bool is_shared;	 /* any gateway may write at any time */
	bool is_ours;	 /* this node owns it */
	struct chain *chain;
	/* who may write */
	enum owner_state owner_state;
	struct cds_list_head owner_waiters; /* gateway_io: writes, until it is HELD */
	uint64_t owner_retry_ns;	    /* ask again; 0: answers are awaited */
	uint32_t owner_tries;
	struct cds_list_head drains; /* struct drain: who was asked under this generation */
	/* FLUSH */
	uint32_t dirt_count;
	struct dirt *dirt;  /* by number of the PG in its policy */
	bool has_others;    /* by the map of now, others may write */
	bool has_strangers; /* others may have written since our last flush of everything */
	uint64_t losses;    /* how often a FLUSH found that acknowledged writes are lost */
	bool has_untold;    /* a connection closed before it could be told */
	struct flush *flush;
	struct cds_list_head flush_waiters; /* gateway_io: for the one after it */
	struct cds_list_head link;	    /* gateway.volumes */
};

/* One connection. */
struct gateway_volume {
	struct volume *shared;
	struct gateway *gateway;
	unsigned flags;	      /* of its open */
	uint64_t generation;  /* of the volume, since it may write under it */
	bool has_written;     /* or tried to */
	bool is_lost;	      /* it never writes again */
	bool is_ending;	      /* lost_op is ending what it has in flight */
	bool is_closed;	      /* freed when lost_op is through */
	uint64_t losses_told; /* of volume.losses */
	void (*lost)(void *context);
	void *context;
	struct loop_op lost_op;
	struct cds_list_head link; /* volume.connections */
};

/* Where a request is. */
enum io_stage {
	IO_ENDING,  /* io->done_op brings the result */
	IO_FLUSH,   /* of this turn: io->done_op starts it */
	IO_WAITING, /* by io->link: for ownership, or for a flush */
	IO_STARVED, /* by io->link: for memory for its next part */
	IO_RUNNING,
};

struct gateway {
	struct gateway_options options;
	struct loop *loop;
	struct cluster_map *map;
	uint32_t node;
	uint64_t session; /* as requests name it; 0: not registered */
	struct pool *pieces;
	struct route *routes; /* by policy, then by number */
	uint32_t route_first[CLUSTER_POLICIES_MAX + 1];
	struct cds_list_head parked;
	/* gateway_io, by in_gateway: those without a deadline, or behind it; the others, oldest first */
	struct cds_list_head ios, timed_ios;
	struct cds_list_head starved; /* gateway_io */
	struct cds_list_head volumes;
	struct cds_list_head flushes; /* that wait for a map */
	struct loop_timer retry_timer;
	uint64_t wake_ns;     /* when it fires */
	bool has_owner_retry; /* of a volume */
	struct gateway_counters counters;
	bool is_stopping;
};

/* route.c */
int route_set_map(struct gateway *gateway, struct cluster_map *map);
/* Send a new piece; it comes back by piece_done(), later. */
void route_submit(struct piece *piece);
/* End a piece that is HELD or PARKED, with an error. */
void route_abort(struct piece *piece, int result);
void route_retry_changed(struct gateway *gateway);
void route_free(struct gateway *gateway);
/* Look after what waits, at @time_ns at the latest. */
void gateway_wake_at(struct gateway *gateway, uint64_t time_ns);

/* io.c */
void piece_done(struct piece *piece, int result);
/* Send as many further parts as may be; the request is still there afterwards. */
void io_pump(struct gateway_io *io);
void io_done(struct gateway_io *io, int result);
/*
 * It is to end, as soon as what it has at primaries is back: what they need is the owner's. Maybe
 * inside this call.
 */
void io_abort(struct gateway_io *io, int result);
/* The same for all of a connection (NULL: of a volume; NULL: all). */
void io_abort_all(struct gateway *gateway, const struct volume *volume,
		  const struct gateway_volume *connection, int result);
/* Those whose time is over. */
void io_expire(struct gateway *gateway, uint64_t now);

/* volume.c */
struct chain *chain_get(struct chain *chain);
void chain_put(struct chain *chain);
/* Something of it has ended: is it still needed? */
void volume_release(struct volume *volume);

/* owner.c */

/* A write: 1: it may go now; 0: it waits, and goes or fails by itself; or an error. */
int owner_admit(struct gateway_io *io);
/* The map has changed, and the volume with it; @old_generation: before. */
void owner_apply(struct volume *volume, uint64_t old_generation);
void owner_retry(struct gateway *gateway, uint64_t now);
/* The volume goes. */
void owner_end(struct volume *volume);

/* flush.c */
/* From the loop: all of one turn share one. */
void flush_start_one(struct gateway_io *io);
void flush_map_changed(struct gateway *gateway);
void flush_retry(struct gateway *gateway, uint64_t now);
/* A write was acknowledged. */
void flush_note_write(struct volume *volume, uint32_t pg, uint64_t loss_epoch);
/* A volume without waiters that goes: what is asked is not awaited any more. */
void flush_cancel(struct volume *volume);

/* Of one PG, in its policy: an index for the arrays above. */
static inline uint32_t pg_number(uint32_t pg)
{
	return pg & ((1u << CLUSTER_PG_POLICY_SHIFT) - 1);
}

static inline uint32_t pg_policy(uint32_t pg)
{
	return pg >> CLUSTER_PG_POLICY_SHIFT;
}

#endif
