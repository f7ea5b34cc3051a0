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
	struct gateway_volume *volume;
	struct chain *chain; /* a reference */
	struct route *route;
	uint32_t place; /* of its data in the parent */
	uint32_t tries;
	uint64_t retry_ns; /* PARKED: when to try without a reason; */
	struct slice payload;
	struct cds_list_head order; /* route.order */
	struct cds_list_head link;  /* route.held or gateway.parked */
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

struct gateway_volume {
	struct gateway *gateway;
	uint64_t id;
	uint32_t uses; /* 0: closed, and kept for what it knows of unflushed writes */
	bool is_gone;  /* deleted while open: every request fails */
	/* from the map */
	char name[LOG_NAME_SIZE];
	uint64_t size_bytes;
	uint64_t generation;
	uint64_t family;
	uint32_t policy;
	bool is_durable; /* every write is FUA */
	struct chain *chain;
	/* FLUSH */
	uint32_t dirt_count;
	struct dirt *dirt;  /* by number of the PG in its policy */
	bool has_strangers; /* others may have written since our last flush of everything */
	struct flush *flush;
	struct cds_list_head flush_waiters; /* gateway_io: for the one after it */
	struct cds_list_head link;	    /* gateway.volumes */
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
	struct cds_list_head starved; /* gateway_io */
	struct cds_list_head volumes;
	struct cds_list_head flushes; /* that wait for a map */
	struct loop_timer retry_timer;
	struct gateway_counters counters;
	bool is_stopping;
};

/* route.c */
int route_set_map(struct gateway *gateway, struct cluster_map *map);
/* Send a new piece; it comes back by piece_done(), later. */
void route_submit(struct piece *piece);
void route_retry_changed(struct gateway *gateway);
void route_free(struct gateway *gateway);

/* io.c */
void piece_done(struct piece *piece, int result);
void io_pump(struct gateway_io *io);
void io_done(struct gateway_io *io, int result);

/* volume.c */
struct chain *chain_get(struct chain *chain);
void chain_put(struct chain *chain);

/* flush.c */
void flush_submit(struct gateway_io *io);
void flush_map_changed(struct gateway *gateway);
void flush_retry(struct gateway *gateway);
/* A write was acknowledged. */
void flush_note_write(struct gateway_volume *volume, uint32_t pg, uint64_t loss_epoch);
/* Fails what waits, when the volume goes. */
void flush_cancel(struct gateway_volume *volume);

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
