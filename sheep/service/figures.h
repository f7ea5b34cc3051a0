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
};

/* One question, embedded in its owner until `done`. */
struct figures_query {
	/* Once, later, on the engine's loop. The figures are the owner's: figures_done(). */
	void (*done)(struct figures_query *query, struct figures *figures);
	/* private */
	struct figures figures;
	struct node *node;
	uint32_t pg;
	unsigned left; /* answers that are due, our own among them */
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

/* ---- figures_rows.c ---- */

/* Add what cannot be read of a PG that @store, one of ours on this loop, leads. */
void figures_look_for_lost(struct figures *figures, struct store *store,
			   const struct pg_status *status);
/* All rows, one kind behind the other. */
void figures_pack(const struct figures *figures, void *out);
/* The rows have been counted. */
void figures_unpack_lost(struct figures *figures, const struct peer_figures_reply *reply,
			 const struct peer_figures_lost *rows);

#define FIGURES_NO_PG UINT32_MAX
/*
 * On the engine's loop: ask all sheep that are up, until @deadline_ns at most. @pg: what do the stores
 * have of it? FIGURES_NO_PG: of none.
 */
void figures_ask(struct figures_service *service, struct figures_query *query, uint32_t pg,
		 uint64_t deadline_ns);
/* Give up the links; questions that wait for others end soon. */
void figures_stop(struct figures_service *service);

#endif
