/*
 * Dropping a PG: its objects are deleted a few at a time, so that the pages which say what they
 * occupy are read at the pace of the log, then its record goes.
 */
#include <stdlib.h>

#include "sheep/store/store_priv.h"

#define DELETES_MAX 16u

struct drop {
	struct cds_list_head link; /* shard->drops */
	struct shard *shard;
	struct loop_op *op;
	struct loop_op sync_op;
	uint32_t pg;
	uint32_t busy;
	bool is_walked;
	struct object_key after;
	bool has_after;
	struct delete
	{
		struct store_append append;
		struct drop *drop;
		bool is_busy;
	}
	deletes[DELETES_MAX];
};

static void go_on(struct drop *drop);

static void end(struct drop *drop, int result)
{
	struct shard *shard = drop->shard;
	struct loop_op *op = drop->op;

	cds_list_del(&drop->link);
	free(drop);
	loop_complete(shard->loop, op, result);
	shard_check_stop(shard);
	shard_check_gone(shard);
}

static void on_deleted(struct store_append *append, int result)
{
	struct delete *delete = container_of_type(append, struct delete, append);
	struct drop *drop = delete->drop;

	delete->is_busy = false;
	drop->busy--;
	if (shard_is_failed(drop->shard))
		return; /* drop_abandon() ends it */
	go_on(drop);
}

static void on_synced(struct loop_op *op, int result)
{
	struct drop *drop = container_of_type(op, struct drop, sync_op);
	struct shard *shard = drop->shard;
	struct pg *pg = shard_pg(shard, drop->pg);

	if (pg && pg->table.object_count == 0 && record_is_empty(&pg->record))
		shard_pg_forget(shard, pg);
	end(drop, result);
}

static int delete_one(struct drop *drop, const struct store_object *object)
{
	struct delete *delete = drop->deletes;

	while (delete->is_busy)
		delete ++;
	delete->drop = drop;
	delete->append = (struct store_append){.done = on_deleted,
					       .pg = drop->pg,
					       .family = object->family,
					       .key = object->key,
					       .flags = STORE_DELETE | STORE_UNSEQUENCED |
							STORE_ANY_PREVIOUS};

	int rc = store_append(drop->shard->store, &delete->append);

	if (rc == 0) {
		delete->is_busy = true;
		drop->busy++;
	}
	return rc;
}

static void go_on(struct drop *drop)
{
	struct store *store = drop->shard->store;
	struct store_object object;

	while (!drop->is_walked && drop->busy < DELETES_MAX) {
		if (!store_object_next(store, drop->pg, drop->has_after ? &drop->after : NULL,
				       &object)) {
			drop->is_walked = true;
			break;
		}
		if (delete_one(drop, &object) < 0)
			break; /* goes on when one in flight is done */
		drop->after = object.key;
		drop->has_after = true;
	}
	if (drop->busy > 0)
		return;
	if (!drop->is_walked || append_drop_record(drop->shard, drop->pg) < 0) {
		end(drop, -ENOMEM);
		return;
	}
	drop->sync_op.done = on_synced;
	store_sync(store, drop->pg, &drop->sync_op);
}

void store_drop_pg(struct store *store, uint32_t pg, struct loop_op *op)
{
	struct shard *shard = shard_of(store, pg);
	struct drop *drop = shard->state == SHARD_RUNNING ? calloc(1, sizeof(*drop)) : NULL;

	if (!drop) {
		loop_complete(shard->loop, op,
			      shard->state == SHARD_RUNNING ? -ENOMEM : -E_STORE_FAILED);
		return;
	}
	drop->shard = shard;
	drop->pg = pg;
	drop->op = op;
	cds_list_add_tail(&drop->link, &shard->drops);
	go_on(drop);
}

/* The appends in flight have been told already; a sync that was asked for ends by itself. */
void drop_abandon(struct shard *shard, int error)
{
	struct drop *drop, *next;

	cds_list_for_each_entry_safe(drop, next, &shard->drops, link)
		if (!loop_op_is_busy(&drop->sync_op))
			end(drop, error);
}

void drop_free(struct shard *shard)
{
	struct drop *drop, *next;

	cds_list_for_each_entry_safe(drop, next, &shard->drops, link)
		free(drop);
}
