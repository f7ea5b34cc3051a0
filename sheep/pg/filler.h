/*
 * A member that is filled: filler.c, filler_list.c, filler_seal.c.
 */
#ifndef PG_FILLER_H
#define PG_FILLER_H

#include "sheep/pg/lead.h"

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
/*
 * A client is to write an object that a member in sync has lost: it goes before all others, whatever the
 * pace. True: it is on its way, and whoever wants its lock afterwards finds the member whole.
 */
bool pg_filler_demand(struct pg_filler *filler, const struct object_key *key);
/* Its stream broke. */
void pg_filler_broken(struct pg_filler *filler, int why);
/* The epoch changed and it is still there. */
void pg_filler_epoch(struct pg_filler *filler);
bool pg_filler_tick(struct pg_filler *filler, uint64_t now);
/* Order-independent, over all objects that are no garbage; those in flight included. */
void pg_digest(struct pg *pg, uint64_t *digest, uint64_t *objects, uint64_t *missing);
void pg_filler_status(const struct pg_filler *filler, struct pg_join_status *out);

#endif
