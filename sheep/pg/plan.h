/*
 * What a new primary must settle: the objects named in any tail, and of each the blocks that any
 * tail names (REPLICATION, T2). Pure.
 */
#ifndef PG_PLAN_H
#define PG_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "include/proto/peer.h"
#include "lib/base/bitmap.h"
#include "sheep/store/store.h"

struct pg_plan_object {
	struct object_key key;
	uint64_t family;
	bool is_whole; /* every block, whatever `blocks` says: it was deleted or made anew */
	uint64_t blocks[BITMAP_WORDS(OBJECT_BLOCKS)];
};

struct pg_plan {
	void *by_key; /* uthash */
	uint32_t count;
	bool is_sorted;
};

void pg_plan_init(struct pg_plan *plan);
void pg_plan_done(struct pg_plan *plan);

/* Our own tail. 0 or -ENOMEM. */
int pg_plan_add_tail(struct pg_plan *plan, const struct store_tail_entry *tail, uint32_t count);
/* A member's. 0, -ENOMEM, or -EINVAL: rows that cannot be true (then nothing counts as added). */
int pg_plan_add_rows(struct pg_plan *plan, const struct peer_tail_row *rows, uint32_t count);
/* The same rows from our tail, for a new primary elsewhere. */
void pg_tail_encode(struct peer_tail_row *out, const struct store_tail_entry *tail, uint32_t count);

/* Take out the object with the lowest key, or NULL. The caller frees it by free(3). */
struct pg_plan_object *pg_plan_take(struct pg_plan *plan);

#endif
