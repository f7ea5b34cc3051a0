/*
 * One object on its way from a member to us, or given up: heal.c, heal_fetch.c, lost.c.
 */
#ifndef PG_HEAL_H
#define PG_HEAL_H

#include "sheep/pg/pg_priv.h"

#define HEAL_RANGE PEER_FETCH_BLOCKS_MAX

struct pg_heal {
	struct cds_list_head link;  /* in the lead */
	struct cds_list_head waits; /* pg_heal_wait */
	struct pg_set *set;
	struct pg *pg;
	struct pg_lead *lead; /* NULL: it ended */
	struct object_key key;
	uint64_t family;
	enum pg_heal_mode mode;
	struct pg_lock lock;
	bool is_out;	 /* an ask or an append */
	bool is_resting; /* until again_ns */
	uint64_t again_ns;
	bool any_later;	 /* a member gave no certain answer: it may have the object */
	bool any_unsure; /* so did one that has no part in the PG any more */
	uint32_t asked[PG_MEMBERS_MAX + PG_FORMERS_MAX]; /* stores, for sums */
	uint32_t asked_count;
	uint32_t store;	  /* that is asked now */
	bool is_in_sync;  /* this one */
	bool must_equal;  /* it counts only with just the version that we had */
	uint32_t heir;	  /* a member in sync that has it whole, in another version; 0: none */
	bool has_marked;  /* one in sync has a damaged copy of another version */
	bool is_fetched;  /* from one of them */
	bool is_partial;  /* ours is missing for other reasons than blocks that are damaged */
	bool is_in_place; /* ours is of this version: only what is damaged of it is written */
	bool is_begun;	  /* a part of it is written */
	struct version own, version;
	struct store_sums ours;
	struct pg_sums sums;
	struct pg_diff diff;
	uint32_t from, begin, end;
	uint32_t run_count;
	struct store_run runs[HEAL_RANGE];
	struct slice slices[HEAL_RANGE];
	uint32_t slice_count;
	uint32_t crcs[HEAL_RANGE];
	struct slice payload;
	struct store_append append;
};

void heal_free(struct pg_heal *heal);
void heal_end(struct pg_heal *heal, int result);
/*
 * A store that can be asked and was not: those listed as in sync first, then all other members, then those that were
 * members before. 0: all were.
 */
uint32_t heal_next_store(const struct pg_heal *heal);
/* Has it no part in the PG any more? Then what it cannot answer is waited for only for a time. */
bool heal_is_former(const struct pg_heal *heal, uint32_t store);
/* Somebody is away who may have it, and is waited for still. */
bool heal_is_awaited(const struct pg_heal *heal);
/* A copy of it counts only in the very version that we had. */
bool heal_must_equal(const struct pg_heal *heal, uint32_t store);
/* Ask the store for sums of its copy, and note that. False: no memory. */
bool heal_ask_sums(struct pg_heal *heal, uint32_t store, void *owner,
		   void (*done)(struct pg_ask *ask, int result));
/* It is locked: ask the next one, or decide. */
void heal_go(struct pg_heal *heal);
/*
 * This member cannot help. Only who has no good copy says so (-E_MISSING): anything else may be another answer
 * later.
 */
void heal_try_next(struct pg_heal *heal, int result);
/* Ask all of them again, later. */
void heal_rest(struct pg_heal *heal, uint64_t pause_ns);
/* The same, a moment later. */
void heal_pause(struct pg_heal *heal);

/* ---- heal_fetch.c ---- */

/* heal->store has it, in heal->version and with heal->sums: fetch it, and go on. */
void heal_fetch(struct pg_heal *heal);
/* It has none, and so shall we. */
void heal_fetch_absence(struct pg_heal *heal);
/* Ask the store for blocks of its copy, in the version heal->version. @flags: enum peer_fetch_flags. */
bool heal_ask_blocks(struct pg_heal *heal, uint32_t flags, void *owner,
		     void (*done)(struct pg_ask *ask, int result));

/* ---- lost.c ---- */

/*
 * Nobody has it. What is good of our copy becomes the object, and the rest is lost: by an entry, so that
 * all copies say the same. The heal goes on, and finds the object whole, or asks once more.
 */
void heal_give_up(struct pg_heal *heal);

#endif
