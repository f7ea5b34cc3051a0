/*
 * Client operations of a lead: io.c, write.c.
 */
#ifndef PG_WORK_H
#define PG_WORK_H

#include "sheep/pg/entry.h"
#include "sheep/pg/recovery.h"

struct pg_work {
	struct pg_set *set;
	struct pg_io *io;	      /* NULL: answered; its entry may be out there still */
	struct pg_lead *lead;	      /* NULL: it ended */
	struct cds_list_head link;    /* in the lead */
	struct cds_list_head starved; /* in the set, when is_starved */
	bool is_starved;
	struct cds_list_head leaseless; /* in the set, when is_leaseless */
	bool is_leaseless, has_waited;
	uint64_t arrived_ns; /* loop_clock() */
	struct pg_lock lock;
	struct object_key key;
	uint64_t volume, generation; /* as the operation names them */
	uint32_t block, count;	     /* that it touches */
	uint32_t pending;	     /* reads, entry and heal out there */
	uint32_t heals;		     /* tries */
	uint32_t demands;	     /* tries to have it filled at members first */
	int result;		     /* of the reads: the first error */
	struct pg_heal_wait heal;
	int failure;		    /* what it is to be told, with a lease like any answer */
	bool is_merged;		    /* the blocks at its ends were read */
	bool has_entry;		    /* it has its number */
	struct store_read reads[2]; /* the read; or the first and the last block of a write */
	uint64_t layers[STORE_LAYERS_MAX];
};

void pg_io_begin(struct pg_set *set, struct pg_io *io);
/* Tell its owner, soon. */
void pg_io_finish(struct pg_set *set, struct pg_io *io, int result);
/* Answer; lock and memory go when nothing is out there. */
void pg_work_end(struct pg_work *work, int result);
/* One that was ended: nothing is out there any more, maybe. */
void pg_work_put(struct pg_work *work);
/* Take the lock (again) and go. */
void pg_work_start(struct pg_work *work);
/* What was read under the lock does not count any more. */
void pg_work_forget_reads(struct pg_work *work);
/* Some layer's object is missing here: wait until it is healed, then start again. */
void pg_work_heal(struct pg_work *work);
/* Read blocks through all layers; pg_work_read() goes on when all reads are back. */
void pg_work_read(struct pg_work *work, unsigned slot, uint32_t block, uint32_t count);
/* No entry is to be had: try again when one is. */
void pg_work_starve(struct pg_work *work);
/* It is executed, and changed nothing: answered as soon as nobody else can have served meanwhile. */
void pg_work_answer(struct pg_work *work);
/* All ios of a seat that wait: judge them again. */
void pg_io_rejudge(struct pg *pg);
/*
 * Where nothing has moved for PG_PATIENCE_NS the operations go back to their gateways, which send
 * them again: they would keep others waiting that need the same links. True: there are some.
 */
bool pg_io_tick(struct pg *pg);
/* Those that wait for the object: nobody who is there has it. */
void pg_works_lost(struct pg_lead *lead, const struct object_key *key);
void pg_works_end(struct pg_lead *lead, int result);
/* Those of sessions that have ended (Q2). */
void pg_works_end_sessions(struct pg_lead *lead);
void pg_io_drain(struct pg_set *set); /* from the kick */

/* ---- write.c ---- */

void pg_write_go(struct pg_work *work);
/* True: it was executed before, and is answered. Committed, if its blocks are locked (Q1). */
bool pg_write_end_early(struct pg_work *work);
/* The primary decides whether there is space, for all members (DESIGN 6, Full). */
bool pg_lead_has_space(const struct pg_lead *lead, uint64_t bytes);

/* ---- owner.c ---- */

/* May its gateway write to its volume now (O1)? 0, -E_STALE_GENERATION, -EINVAL; reads: 0. */
int pg_judge_owner(const struct pg_set *set, const struct pg_io *io);
void pg_drains_run(struct pg_set *set); /* from the kick */
void pg_on_drain(struct net_request *request);

#endif
