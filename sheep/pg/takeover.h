/*
 * A reign begins: takeover.c, fence.c, requests.c, settle.c.
 */
#ifndef PG_TAKEOVER_H
#define PG_TAKEOVER_H

#include "sheep/pg/ask.h"
#include "sheep/pg/entry.h"

/* ---- takeover.c ---- */

/* Must its tail be known before anybody is served? (T1) */
static inline bool pg_member_must_answer(const struct pg_member *member)
{
	return member->kind == PG_MEMBER_ISR;
}
/* Rows of a peer: objects of this PG, as many as it says? 0 or -EINVAL. */
int pg_tail_check(const struct pg *pg, const struct peer_tail_row *rows, uint32_t size,
		  uint32_t count);
/* Ask all listed members for their tails, anew. */
void pg_collect_start(struct pg_lead *lead);
void pg_collect_tick(struct pg_lead *lead, uint64_t now);
bool pg_collect_is_done(const struct pg_lead *lead);

/* ---- fence.c ---- */

void pg_fence_ask(struct pg_lead *lead);
void pg_fence_tick(struct pg_lead *lead, uint64_t now);

/* ---- requests.c ---- */

/*
 * The requests executed here, to a member, in the order of the entries, behind entry @n. @done tells
 * whether it has taken all of them. 0 or -ENOMEM.
 */
int pg_requests_send(struct pg_member *member, uint64_t n,
		     void (*done)(struct pg_ask *ask, int result), void *owner);
/*
 * An entry that makes its object what we have, whatever the members have: what we remember of the object's
 * requests goes with it. Its key is set. 0, -ENOMEM, or -E2BIG.
 */
int pg_requests_attach(struct pg_entry *entry);

/* ---- settle.c ---- */

/* Tails are here: lock what is in doubt. 0 or -ENOMEM. */
int pg_settle_start(struct pg_lead *lead);
void pg_settle_run(struct pg_lead *lead);
void pg_settle_end(struct pg_lead *lead);
/*
 * Is the object in doubt, or may it be, and not written again yet? Then nobody's copy will do but one of
 * the very version that ours had.
 */
bool pg_settle_is_open(const struct pg_lead *lead, const struct object_key *key);
/* It is open, and damaged, and nobody who could heal it or lead was there for a while. */
bool pg_settle_is_late(const struct pg_lead *lead, const struct object_key *key);
/*
 * It is late, and a member in sync that cannot lead has all of it in another version: settle what is in doubt, if
 * all of that is good at ours, which stays as it is. After that its version is everywhere the same, and ours is
 * healed. False: it is not open.
 */
bool pg_settle_salvage(struct pg_lead *lead, const struct object_key *key);
/*
 * Nobody has all of it, and a member in sync has a damaged copy of another version: the same, but only once. False: it is
 * not open, or what is in doubt is damaged here.
 */
bool pg_settle_salvage_apart(struct pg_lead *lead, const struct object_key *key);
/*
 * Nobody has that: @store, in sync, has the object whole, in its own version. False: that does not help, since the
 * object is not in doubt, or the store has holes, too.
 */
bool pg_settle_yield(struct pg_lead *lead, const struct object_key *key, uint32_t store);
/* Who is to lead, since we cannot settle what is left. 0: we can, or nobody is there. */
uint32_t pg_settle_heir(const struct pg_lead *lead);

#endif
