#include "sheep/pg/locks.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"

struct pg_locked {
	struct {
		uint64_t layer;
		uint64_t index; /* 64 bits: no padding in the key */
	} key;
	struct cds_list_head locks; /* in the order in which they were asked for */
	union {
		UT_hash_handle hh;
		struct cds_list_head spare;
	};
};

void pg_locks_init(struct pg_locks *locks)
{
	memset(locks, 0, sizeof(*locks));
	CDS_INIT_LIST_HEAD(&locks->spare);
}

void pg_locks_done(struct pg_locks *locks)
{
	struct pg_locked *object, *next;

	assert(locks->held == 0);
	cds_list_for_each_entry_safe(object, next, &locks->spare, spare)
		free(object);
	CDS_INIT_LIST_HEAD(&locks->spare);
}

static struct pg_locked *object_get(struct pg_locks *locks, const struct object_key *key)
{
	struct pg_locked *object;
	typeof(object->key) find = {.layer = key->layer, .index = key->index};

	HASH_FIND(hh, locks->objects, &find, sizeof(find), object);
	if (object)
		return object;
	if (!cds_list_empty(&locks->spare)) {
		object = cds_list_first_entry(&locks->spare, struct pg_locked, spare);
		cds_list_del(&object->spare);
	} else {
		object = malloc(sizeof(*object));
		if (!object)
			return NULL;
	}
	memset(object, 0, sizeof(*object));
	object->key = find;
	CDS_INIT_LIST_HEAD(&object->locks);
	HASH_ADD(hh, locks->objects, key, sizeof(object->key), object);
	return object;
}

/* Must @b wait for @a, which was there before it? */
static bool conflicts(const struct pg_lock *a, const struct pg_lock *b)
{
	if (a->mode == PG_LOCK_SHARED && b->mode == PG_LOCK_SHARED)
		return false;
	if (b->mode == PG_LOCK_BARRIER && a->is_passable)
		return false;
	return ranges_overlap(a->block, a->count, b->block, b->count);
}

/* Does nothing before it in the queue conflict with it? */
static bool is_free(const struct pg_locked *object, const struct pg_lock *lock)
{
	const struct pg_lock *other;

	cds_list_for_each_entry(other, &object->locks, link) {
		if (other == lock)
			return true;
		if (conflicts(other, lock))
			return false;
	}
	return true;
}

int pg_lock_take(struct pg_locks *locks, struct pg_lock *lock, const struct object_key *key,
		 enum pg_lock_mode mode, uint32_t block, uint32_t count)
{
	struct pg_locked *object = object_get(locks, key);

	assert(!lock->object && count > 0);
	if (!object)
		return -ENOMEM;
	lock->object = object;
	lock->block = block;
	lock->count = count;
	lock->mode = mode;
	lock->is_passable = false;
	cds_list_add_tail(&lock->link, &object->locks);
	lock->is_granted = is_free(object, lock);
	locks->held++;
	return lock->is_granted;
}

/*
 * One at a time, from the front again each time: `granted` may release this and other locks of the
 * object, or take new ones.
 */
static void grant_next(struct pg_locks *locks, const struct object_key *key)
{
	struct pg_locked *object;
	typeof(object->key) find = {.layer = key->layer, .index = key->index};
	struct pg_lock *lock;

again:
	HASH_FIND(hh, locks->objects, &find, sizeof(find), object);
	if (!object)
		return;
	cds_list_for_each_entry(lock, &object->locks, link) {
		if (lock->is_granted || !is_free(object, lock))
			continue;
		lock->is_granted = true;
		lock->granted(lock);
		goto again;
	}
}

static void try_waiting(struct pg_locks *locks, const struct pg_lock *lock)
{
	struct object_key key = {.layer = lock->object->key.layer,
				 .index = (uint32_t)lock->object->key.index};

	grant_next(locks, &key);
}

void pg_lock_let_pass(struct pg_locks *locks, struct pg_lock *lock)
{
	if (!lock->object || lock->is_passable)
		return;
	lock->is_passable = true;
	try_waiting(locks, lock);
}

/* Those that wait before it, for others or for those that it passes, wait behind it from now on. */
static void overtake(struct pg_lock *lock)
{
	struct pg_lock *other, *next;
	struct cds_list_head *at = &lock->link;

	cds_list_for_each_entry_safe(other, next, &lock->object->locks, link) {
		if (other == lock)
			break;
		if (other->is_granted)
			continue;
		cds_list_del(&other->link);
		cds_list_add(&other->link, at);
		at = &other->link;
	}
}

bool pg_lock_make_barrier(struct pg_locks *locks, struct pg_lock *lock)
{
	if (!lock->object || lock->is_granted || lock->mode != PG_LOCK_EXCLUSIVE)
		return false;
	lock->mode = PG_LOCK_BARRIER;
	overtake(lock);
	try_waiting(locks, lock);
	return true;
}

void pg_lock_release(struct pg_locks *locks, struct pg_lock *lock)
{
	struct pg_locked *object = lock->object;

	if (!object)
		return;
	struct object_key key = {.layer = object->key.layer, .index = (uint32_t)object->key.index};
	cds_list_del(&lock->link);
	lock->object = NULL;
	lock->is_granted = false;
	locks->held--;
	if (!cds_list_empty(&object->locks)) {
		grant_next(locks, &key);
		return;
	}
	HASH_DEL(locks->objects, object);
	cds_list_add(&object->spare, &locks->spare);
}
