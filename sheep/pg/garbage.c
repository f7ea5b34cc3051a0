/*
 * Objects of deleted volumes, and behind the end of shrunk ones (REPLICATION, M2, D0): the primary removes them by entries of its order,
 * so that all copies stay alike. A store that comes back later has them deleted by its lists.
 */
#include "sheep/pg/pg_priv.h"

#define STEPS_MAX   256u /* objects looked at in one tick */
#define RUNNING_MAX 16u

static void on_removed(struct pg_entry *entry, int result)
{
	if (result < 0) /* the lead has ended: another one does it again */
		return;
	entry->pg->lead->garbage_running--;
	entry->pg->set->counters.garbage_objects++;
}

static bool remove_object(struct pg_lead *lead, const struct store_object *object)
{
	struct pg_entry *entry = pg_entry_new(lead);

	if (!entry)
		return false;
	entry->append.key = object->key;
	entry->append.family = object->family;
	entry->flags = PEER_ENTRY_DELETE;
	entry->committed = on_removed;
	if (pg_entry_runs(entry, NULL, 0) < 0 || pg_entry_submit(entry, true) < 0) {
		pg_entry_drop(entry);
		return false;
	}
	lead->garbage_running++;
	return true;
}

/* Of a volume that is no more, or behind the end of one that was shrunk. */
static bool is_garbage(const struct pg_set *set, const struct object_key *key)
{
	return pg_is_garbage(set, key->layer) ||
	       (cluster_layer_is_live(set->map, key->layer) &&
		(uint64_t)key->index * OBJECT_SIZE >= cluster_layer_end(set->map, key->layer));
}

bool pg_garbage_tick(struct pg_lead *lead)
{
	struct pg_set *set = lead->pg->set;
	struct store *store = pg_store_of(lead->pg);
	struct store_object object;

	if (!lead->is_garbage_due)
		return false;
	if (lead->settle_left > 0)
		return true; /* settling would write again what was just removed */
	for (uint32_t i = 0; i < STEPS_MAX && lead->garbage_running < RUNNING_MAX; i++) {
		const struct object_key *after =
			lead->has_garbage_cursor ? &lead->garbage_cursor : NULL;
		if (store_object_next(store, lead->id, after, &object) <= 0) {
			lead->has_garbage_cursor = false;
			lead->is_garbage_due = false;
			return false;
		}
		if (is_garbage(set, &object.key) && !remove_object(lead, &object))
			return true; /* no room now */
		lead->garbage_cursor = object.key;
		lead->has_garbage_cursor = true;
	}
	return true;
}
