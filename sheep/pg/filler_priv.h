/*
 * What the files of a filler share (filler.c, filler_list.c, filler_seal.c).
 */
#ifndef PG_FILLER_PRIV_H
#define PG_FILLER_PRIV_H

#include "sheep/pg/pg_priv.h"

#define PG_FILL_REST_NS (200 * NS_PER_MS)

enum fill_state {
	FILL_RESTING,
	FILL_STARTING,
	FILL_FILLING,
	FILL_SEALING,
	FILL_EXPANDING,
	FILL_STATE_COUNT
};

/* An object that the member misses. */
struct pg_item {
	struct {
		uint64_t layer;
		uint64_t index;
	} hash_key;
	UT_hash_handle hh;
	struct cds_list_head link; /* in the queue, while it is not being pushed */
	struct object_key key;
	uint64_t family;
	uint64_t bytes;
	bool has_sums;
	struct pg_push *push;
};

struct pg_filler {
	struct pg_member *member;
	struct pg_lead *lead;
	struct pg *pg;
	uint64_t join, incarnation;
	uint64_t start; /* number of this beginning: asks of an older one do not count */
	enum fill_state state;
	uint64_t rest_ns;
	bool has_cursor, is_end;
	struct object_key cursor;
	/* rows of the member's list, not yet compared */
	bool is_asked; /* for a list */
	bool is_list_end;
	struct slice list;
	uint32_t row, row_count;
	struct object_key last_row; /* of the list, for the next one */
	bool has_last_row;
	struct pg_item *items; /* uthash */
	struct cds_list_head queue;
	uint32_t item_count;
	uint64_t bytes;
	bool is_pumping;
	bool has_requests; /* the member has our table, as of the seal */
	uint64_t digest, objects;
	uint64_t doubt_n; /* entries up to here may have been pushed before they were committed */
	uint64_t expand_ns;
	uint64_t objects_pushed, blocks_pushed;
};

/* It heals a member in sync: there is no join. */
static inline bool pg_fill_is_heal(const struct pg_filler *filler)
{
	return filler->join == 0;
}

/* ---- filler.c ---- */

void pg_fill_enter(struct pg_filler *filler, enum fill_state next, const char *why);
struct pg_item *pg_fill_find(const struct pg_filler *filler, const struct object_key *key);
/* It misses an object. 0 or -ENOMEM. */
int pg_fill_add(struct pg_filler *filler, const struct object_key *key, uint64_t family,
		uint64_t bytes, bool has_sums);
/* A sealed one is not counted any more. */
void pg_fill_relax(struct pg_filler *filler);
/* From the start, after a pause. */
void pg_fill_again(struct pg_filler *filler, uint64_t pause_ns, const char *why);
/* The filler that sent this ask, if it has not begun again since. */
struct pg_filler *pg_fill_of(const struct pg_ask *ask);
/* Owner of an ask: pg_fill_of() knows it by that. */
static inline void *pg_fill_tag(const struct pg_filler *filler)
{
	return (void *)(uintptr_t)filler->start;
}

/* ---- filler_list.c ---- */

void pg_fill_drop_list(struct pg_filler *filler);
void pg_fill_ask_list(struct pg_filler *filler);
/* Compare what is here of both lists; is_end when all is done. */
void pg_fill_compare(struct pg_filler *filler);

/* ---- filler_seal.c ---- */

void pg_fill_seal(struct pg_filler *filler);
/* Now and again, until it is decided. */
void pg_fill_propose(struct pg_filler *filler, uint64_t now);

#endif
