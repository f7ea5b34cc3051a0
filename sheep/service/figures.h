/*
 * What only the loops of each sheep know: space in use, recovery under way. Asked of all sheep that
 * are up, by PEER_OP_FIGURES; who does not answer in time is left out, and named.
 */
#ifndef SERVICE_FIGURES_H
#define SERVICE_FIGURES_H

#include <urcu/list.h>

#include "include/proto/peer.h"
#include "lib/wire/wire.h"
#include "lib/loop/loop.h"
#include "sheep/cluster/cluster.h"
#include "sheep/pg/pg.h"
#include "sheep/store/store.h"

struct node;
struct figures_service;

/* Joining members that lack most; others are only counted. */
#define FIGURES_ROWS_MAX 100u

struct figures_row {
	uint32_t pg;
	uint32_t store;
	uint64_t objects_missing, bytes_missing;
};

/* An object that clients cannot read, or not all of; others are only counted. */
#define FIGURES_LOST_MAX 32u

struct figures_lost {
	uint64_t layer;
	uint32_t index, pg;
	uint32_t blocks; /* that no copy has; 0: it is missing, and may be found yet */
};

struct figures_store {
	uint32_t store;
	uint64_t size_bytes, live_bytes, allocated_bytes, credit_bytes;
	/* of the PG that was asked for, if any */
	struct version last; /* of its newest entry; zero: it has nothing */
	uint32_t objects, missing;
};

/* What a layer holds in the PGs that were counted. */
struct figures_layer {
	uint64_t layer;
	uint64_t data_blocks;
	uint64_t missing; /* objects of which nobody knows what they hold */
};

struct figures_use {
	uint32_t layer_count;
	struct figures_layer *layers; /* ascending; malloc'ed */
	uint32_t pg_count, pg_room;
	uint32_t *pgs;	 /* that were counted; malloc'ed */
	bool is_unclear; /* some PG may be in it twice, or half */
};

struct figures {
	uint64_t objects_missing, bytes_missing;
	uint64_t objects_moved, bytes_moved; /* since the starts of the sheep */
	uint32_t row_count;
	struct figures_row rows[FIGURES_ROWS_MAX]; /* most missing first */
	uint64_t objects_lost, objects_unread;
	uint32_t lost_count;
	struct figures_lost lost[FIGURES_LOST_MAX];
	uint32_t store_count;
	struct figures_store *stores; /* malloc'ed */
	uint32_t unknown_count;
	uint32_t *unknown; /* nodes that are up and did not answer; malloc'ed */
	struct figures_use use;
};

#define FIGURES_NO_PG UINT32_MAX

/* What to ask besides. */
struct figures_question {
	uint32_t pg;		/* what do the stores have of it? FIGURES_NO_PG: of none */
	uint32_t layer_count;	/* PEER_FIGURES_LAYERS_MAX at most */
	const uint64_t *layers; /* what do they hold? Ascending */
};

/* One question, embedded in its owner until `done`. */
struct figures_query {
	/* Once, later, on the engine's loop. The figures are the owner's: figures_done(). */
	void (*done)(struct figures_query *query, struct figures *figures);
	/* private */
	struct figures figures;
	struct node *node;
	uint32_t pg;
	struct slice layers; /* as they are asked for; the buffer is ours */
	unsigned left;	     /* answers that are due, our own among them */
	bool is_over;
	struct cds_list_head asks;
	struct loop_timer timer;
};

void figures_done(struct figures *figures);
/* NULL: this store's node did not tell. */
const struct figures_store *figures_of_store(const struct figures *figures, uint32_t store);

struct figures_service *figures_new(struct node *node); /* NULL: out of memory */
void figures_free(struct figures_service *service);	/* after figures_stop(); NULL is allowed */
/* The peer protocol with our row in it: for net_serve() on every loop. */
const struct wire_protocol *figures_protocol(const struct figures_service *service);

/* On the engine's loop: ask all sheep that are up, until @deadline_ns at most. @question is copied. */
void figures_ask(struct figures_service *service, struct figures_query *query,
		 const struct figures_question *question, uint64_t deadline_ns);
/* Give up the links; questions that wait for others end soon. */
void figures_stop(struct figures_service *service);

/* ---- figures_rows.c: on the wire ---- */

#define FIGURES_PGS_MAX (CLUSTER_POLICIES_MAX * CLUSTER_PG_COUNT_MAX)

/* The payload of a reply, looked at where it is. */
struct figures_view {
	uint32_t store_count, row_count, lost_count, layer_count, pg_count;
	const struct peer_figures_store *stores;
	const struct peer_figures_row *rows;
	const struct peer_figures_lost *lost;
	const struct peer_figures_layer *layers;
	const le32 *pgs;
};

/* Add what cannot be read of a PG that @store, one of ours on this loop, leads. */
void figures_look_for_lost(struct figures *figures, struct store *store,
			   const struct pg_status *status);
/* Bytes that all rows take, and the rows, one kind behind the other. */
uint32_t figures_packed_size(const struct figures *figures);
void figures_pack(const struct figures *figures, void *out);
/* -E_PROTOCOL: no reply to a question about @layer_count layers can be like this. */
int figures_look_at(const struct peer_figures_reply *reply, const struct slice *payload,
		    uint32_t layer_count, struct figures_view *out);
/* What @view says, but for its stores. 0 or -ENOMEM; either way figures_done(). */
int figures_unpack(const struct peer_figures_reply *reply, const struct figures_view *view,
		   const struct figures_use *asked, struct figures *out);
/* The layers that are asked for, to @out[]. -EINVAL: they do not ascend, or are not as many as they say. */
int figures_unpack_question(const struct peer_figures *body, const struct slice *payload,
			    uint64_t *out);

/* ---- figures_use.c: adding up what layers hold ---- */

/* @layers: ascending. 0 or -ENOMEM, then it is empty. */
int figures_use_init(struct figures_use *use, const uint64_t *layers, uint32_t count);
void figures_use_done(struct figures_use *use);
/* @pg has been counted. 0 or -ENOMEM. */
int figures_use_add_pg(struct figures_use *use, uint32_t pg);
/* Of the same layers, in other PGs. */
void figures_use_add(struct figures_use *to, const struct figures_use *from);
/* They are no good: count nothing. */
void figures_use_void(struct figures_use *use);
/* All parts are in: PGs ascend from here on. */
void figures_use_close(struct figures_use *use);
/* Are all these PGs led by @node? By another one they may be counted, too. */
bool figures_use_is_of(const struct figures_use *use, const struct cluster_map *map, uint32_t node);
/*
 * Bytes that the layers of @volume hold, one copy. False: not known, because one of its layers was not asked for, a
 * PG was not counted, or counted twice, or something in it is missing.
 */
bool figures_used(const struct figures_use *use, const struct cluster_map *map,
		  const struct cluster_volume *volume, uint64_t *out_bytes);

/* ---- figures_walk.c: counting, on one loop ---- */

struct figures_seat {
	uint32_t pg;
	uint32_t id; /* of the store */
	struct store *store;
};

/* Zeroed; then the seats, then the steps. */
struct figures_walk {
	uint32_t seat_count, seat_room;
	struct figures_seat *seats; /* malloc'ed */
	/* private: the place */
	uint32_t seat, layer;
	uint64_t next;
};

int figures_walk_add(struct figures_walk *walk, uint32_t pg, uint32_t id, struct store *store);
void figures_walk_done(struct figures_walk *walk);
/*
 * Count on into @use, for no longer than a turn of the loop can bear. False: there is more to do, in another turn. PGs
 * that are not led here, or not to the end, are not in @use.
 */
bool figures_walk_step(struct figures_walk *walk, struct pg_set *set, struct figures_use *use);

#endif
