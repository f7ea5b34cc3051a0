/*
 * The other nodes, as the beacons of loop 0 see them: beacon.c, beacon_map.c, silence.c.
 */
#ifndef PG_BEACON_H
#define PG_BEACON_H

#include "sheep/pg/lease.h"

#define BEACON_CALLS 8u /* unanswered at a time, to one node */

struct beacon_peer;

struct beacon_call {
	struct net_call call;
	struct beacon_peer *peer;
	uint64_t sent_ns;
	bool is_out;
};

/* A takeover that we asked for: while it is undecided the node's beacons are not acknowledged. */
struct beacon_hold {
	UT_hash_handle hh;
	uint32_t pg;
	uint32_t store; /* of ours, that is to lead */
	uint64_t epoch;
	uint64_t proposed_ns;
};

struct beacon_peer {
	UT_hash_handle hh;
	uint32_t node;
	struct pg_beacons *beacons;
	uint64_t session; /* of the node; 0: it is not up */
	/* As the map has it: placement groups in which both of us are listed, and those of them in
	 * which it has the primary and we are in sync. */
	uint32_t shared, leads;
	bool was_active; /* under the map before */
	uint32_t led;
	/* what we send */
	struct beacon_call calls[BEACON_CALLS];
	uint32_t out;
	uint32_t sequence;     /* of the latest */
	uint64_t sent_ns;      /* of the latest */
	uint64_t wanted_ns;    /* somebody waits for one that is sent then or later */
	uint64_t acked_ns;     /* when the latest that it acknowledged was sent */
	uint64_t since_ns;     /* since when it might have acknowledged */
	uint64_t renounced_ns; /* what was sent before counts no more */
	bool is_renouncing;    /* none for most of a lease: beacons say so */
	bool is_silent;	       /* it has acknowledged none for a lease */
	bool is_evicted;       /* and our primaries are to remove its stores */
	/* what it sends */
	uint64_t heard_session;	   /* the latest of which start ... */
	uint32_t heard_sequence;   /* ... and its number */
	uint64_t heard_ns;	   /* the latest; or since when it might have been heard */
	uint64_t promised_ns;	   /* we take nothing over before */
	uint64_t deaf_ns;	   /* since when it renounces, one after another; 0: it does not */
	struct beacon_hold *holds; /* uthash */
	uint64_t told_ns;	   /* when the log was last told that we take over */
};

struct pg_beacons {
	struct pg_set *home; /* of loop 0 */
	struct pg_set **sets;
	unsigned set_count;
	struct pg_leases *leases;
	struct beacon_peer *peers;		/* uthash; they stay */
	uint64_t lease_ns, grace_ns, beacon_ns; /* as the map has them */
	struct loop_timer timer;
	uint64_t next_ns;	      /* when beacons are sent again */
	struct cds_list_head waiting; /* mails of sets that wait for news */
	struct loop_timer return_timer;
	bool must_count; /* there was no memory for a peer */
	bool must_tell;	 /* the other loops of a silence */
	bool is_stopped;
};

/* Is there anything between us? Both registered, and sharing a placement group. */
bool beacon_peer_is_active(const struct beacon_peer *peer);
/* Our own registration is applied, and nothing has ended it since (R1). */
bool beacons_are_registered(const struct pg_beacons *beacons);

/* NULL: we never had anything to do with that node. */
struct beacon_peer *beacons_peer(const struct pg_beacons *beacons, uint32_t node);

/* The same; made if need be. NULL: no memory. */
struct beacon_peer *beacons_peer_get(struct pg_beacons *beacons, uint32_t node);
/* It has acknowledged none for a lease, or does so again. */
void beacon_set_silent(struct beacon_peer *peer, bool is_silent);
/* Start the timer, or stop it, as there is somebody to send beacons to. */
void beacons_plan(struct pg_beacons *beacons);

/* ---- silence.c ---- */

/* Take over what its silence leaves without a primary, and ask again. Returns when to look again. */
uint64_t silence_judge(struct beacon_peer *peer, uint64_t now);
/* It renounced all that we promised, by a beacon that is not acknowledged yet: take over from it. */
void silence_renounced(struct beacon_peer *peer, uint64_t now);
/* The map has changed: which proposals are decided? */
void silence_apply(struct beacon_peer *peer);
void silence_end(struct beacon_peer *peer);
/* What was proposed may be lost: it is proposed at the next look, whenever that was. */
void silence_ask_again(struct beacon_peer *peer);

#endif
