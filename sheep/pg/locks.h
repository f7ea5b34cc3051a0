/*
 * Range locks of objects: who may touch which blocks now.
 *
 * Locks of one object queue in the order in which they were asked for. A lock is granted when no
 * earlier one that is still there conflicts with it: they overlap, and one of them is
 * exclusive. So nobody starves, and what does not overlap does not wait.
 */
#ifndef PG_LOCKS_H
#define PG_LOCKS_H

#include <stdbool.h>
#include <stdint.h>
#include <urcu/list.h>

#include "sheep/store/store.h"

struct pg_locked; /* an object that has locks */

struct pg_locks {
	struct pg_locked *objects; /* uthash */
	struct cds_list_head spare;
	uint32_t held; /* locks, granted or not */
};

enum pg_lock_mode {
	PG_LOCK_SHARED,
	PG_LOCK_EXCLUSIVE,
	PG_LOCK_BARRIER, /* exclusive, but it does not wait for those before it that let it pass */
};

/* Embedded in its owner, which keeps it in place while it is held. */
struct pg_lock {
	/* It waited and is granted now; not called when pg_lock_take() granted it at once. */
	void (*granted)(struct pg_lock *lock);
	/* private */
	struct cds_list_head link;
	struct pg_locked *object; /* NULL: not held */
	uint32_t block, count;
	enum pg_lock_mode mode;
	bool is_granted;
	bool is_passable;
};

void pg_locks_init(struct pg_locks *locks);
void pg_locks_done(struct pg_locks *locks); /* nothing may be held */

/*
 * Ask for blocks of an object. 1: granted; 0: `granted` will be called; -ENOMEM: nothing is held.
 * @lock->granted is set.
 */
int pg_lock_take(struct pg_locks *locks, struct pg_lock *lock, const struct object_key *key,
		 enum pg_lock_mode mode, uint32_t block, uint32_t count);
/* A barrier behind @lock need not wait for it any more; others still do. */
void pg_lock_let_pass(struct pg_locks *locks, struct pg_lock *lock);
/*
 * Make an exclusive lock that waits a barrier; locks that wait before it come after it then.
 * False: it is one, or was granted already.
 */
bool pg_lock_make_barrier(struct pg_locks *locks, struct pg_lock *lock);
/* Give it back, granted or not; those that waited for it may be granted inside. Not held: nothing. */
void pg_lock_release(struct pg_locks *locks, struct pg_lock *lock);
static inline bool pg_lock_is_held(const struct pg_lock *lock)
{
	return lock->object != NULL;
}

#endif
