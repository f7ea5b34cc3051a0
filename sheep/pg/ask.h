/*
 * Calls to peers that are rare: ask.c.
 */
#ifndef PG_ASK_H
#define PG_ASK_H

#include "sheep/pg/lead.h"

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

#endif
