/*
 * Objects on their way, to a member or to us: push.c, heal.c, heal_fetch.c.
 */
#ifndef PG_RECOVERY_H
#define PG_RECOVERY_H

#include "sheep/pg/lead.h"

/* Bytes were moved: pace. */
void pg_recovery_charge(struct pg_set *set, uint64_t bytes);
/* May another object be begun? */
bool pg_recovery_may(struct pg_set *set);

struct pg_push;

struct pg_push_target {
	struct pg *pg;
	uint32_t store;
	uint64_t join, start; /* as PEER_OP_JOIN told them; 0: a heal */
};

/* @has_sums: the copy there is worth comparing with. NULL: no memory. */
struct pg_push *pg_push_new(struct pg_filler *filler, const struct pg_push_target *target,
			    const struct object_key *key, uint64_t family, bool has_sums);
/* Off it goes; pg_filler_pushed() tells the end, maybe inside this call. */
void pg_push_start(struct pg_push *push);
/* It need not wait for what cannot be committed without it (S1). False: that is so already. */
bool pg_push_barrier(struct pg_push *push);
/* The filler is not interested any more. */
void pg_push_cancel(struct pg_push *push);
/* The filler's side. */
void pg_filler_pushed(struct pg_filler *filler, const struct object_key *key, int result,
		      uint32_t blocks);

enum pg_heal_mode {
	PG_HEAL_UNLOCKED, /* the caller has no lock of the object: it is taken here */
	PG_HEAL_LOCKED,	  /* the caller has locked all of it, exclusively */
};

/* Waits for an object of ours to be healed: a client operation, a push, a settle. */
struct pg_heal_wait {
	struct cds_list_head link;
	void (*done)(struct pg_heal_wait *wait, int result);
	struct pg_heal *heal; /* NULL: not yet, or it is over */
};

/*
 * Heal an object of ours that is missing, from another member. @wait->done (set by the caller) gets
 * the result: once, maybe inside this call. 0: it is not missing any more, but blocks of it may be lost;
 * -E_LOST: nobody who is there has it; -E_NOT_PRIMARY.
 */
void pg_heal_object(struct pg_lead *lead, const struct object_key *key, enum pg_heal_mode mode,
		    struct pg_heal_wait *wait);
/* Who waited locked the object and gives that back: the heal ends, and @wait->done is not called. */
void pg_heal_cancel(struct pg_heal_wait *wait);
void pg_heals_end(struct pg_lead *lead);
/* Ask again for those that no member could be asked for. */
void pg_heal_wake(struct pg_lead *lead, uint64_t now);
/* Look for missing objects in the background. True: there may be more. */
bool pg_heal_tick(struct pg_lead *lead);

#endif
