/*
 * Elections after a total power loss: elect.c.
 */
#ifndef PG_ELECT_H
#define PG_ELECT_H

#include "sheep/pg/set.h"

struct net_request;

/* From the tick of a seat. True: nobody leads, and our store may be elected. */
bool pg_elect_tick(struct pg *pg, uint64_t now);
/* From the set's tick: ask for last entries, of all seats together. */
void pg_elections_ask(struct pg_set *set, uint64_t now);
/* The seat goes, or its store. */
void pg_election_end(struct pg *pg);
/* PEER_OP_LAST */
void pg_on_last(struct net_request *request);

#endif
