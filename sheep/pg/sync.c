/*
 * FLUSH at a member's node (REPLICATION, F1): every row names a PG, its epoch and a member here; all
 * that the members have of these PGs is synced. One sync per shard serves all rows of it.
 */
#include <stdlib.h>

#include "lib/base/rule.h"
#include "sheep/pg/pg_priv.h"

struct shard_sync {
	struct loop_op op;
	struct sync_work *work;
};

struct sync_work {
	struct pg_set *set;
	struct pg_sync *sync;
	uint32_t pending;
	int result;
	uint32_t count;
	struct shard_sync shards[];
};

static void finish(struct pg_set *set, struct pg_sync *sync, int result)
{
	sync->result = result;
	cds_list_add_tail(&sync->link, &set->finished_syncs);
	pg_set_kick(set);
}

static void is_back(struct sync_work *work, int result)
{
	if (result < 0 && work->result == 0)
		work->result = -E_STORE_FAILED;
	if (--work->pending > 0)
		return;
	finish(work->set, work->sync, work->result);
	free(work);
}

static void on_synced(struct loop_op *op, int result)
{
	struct shard_sync *shard = container_of_type(op, struct shard_sync, op);
	struct pg_set *set = shard->work->set;

	is_back(shard->work, result);
	pg_set_release(set);
}

/* 0; 1: its map is to come; or why not. */
static int judge_row(struct pg_set *set, const struct pg_sync_row *row)
{
	const struct pg *pg;

	if (row->epoch > set->index)
		return 1;
	pg = pg_find(set, row->pg, row->store);
	if (!pg || !pg->store->is_known)
		return -E_NOT_FOUND;
	if (pg->state == PG_FAILED)
		return -E_STORE_FAILED;
	if (RULE(F1_SYNC_EPOCH) && row->epoch != pg->epoch)
		return -E_STALE_EPOCH;
	return pg->role == PG_ROLE_MEMBER || pg->role == PG_ROLE_PRIMARY ? 0 : -E_NOT_FOUND;
}

static bool is_same_shard(const struct pg_set *set, const struct pg_sync_row *a,
			  const struct pg_sync_row *b)
{
	const struct pg_store *store;

	if (a->store != b->store)
		return false;
	cds_list_for_each_entry(store, &set->stores, link)
		if (store->id == a->store)
			return store_shard_of(store->store, a->pg) ==
			       store_shard_of(store->store, b->pg);
	return false;
}

/* Rows by their shards: the first row of each stands for it. Few shards, many rows. */
static void collect_shards(struct sync_work *work, const struct pg_sync_row **rows)
{
	struct pg_sync *sync = work->sync;

	for (uint32_t i = 0; i < sync->row_count; i++) {
		uint32_t s = 0;
		while (s < work->count && !is_same_shard(work->set, rows[s], &sync->rows[i]))
			s++;
		if (s == work->count)
			rows[work->count++] = &sync->rows[i];
	}
}

static void start(struct pg_set *set, struct pg_sync *sync)
{
	struct sync_work *work =
		calloc(1, sizeof(*work) + sync->row_count * sizeof(struct shard_sync));
	const struct pg_sync_row **rows = calloc(sync->row_count, sizeof(struct pg_sync_row *));

	if (!work || !rows) {
		free(work);
		free(rows);
		finish(set, sync, -ENOMEM);
		return;
	}
	work->set = set;
	work->sync = sync;
	collect_shards(work, rows);
	work->pending = work->count;
	for (uint32_t s = 0, count = work->count; s < count; s++) {
		struct pg *pg = pg_find(set, rows[s]->pg, rows[s]->store);
		work->shards[s].work = work;
		work->shards[s].op.done = on_synced;
		pg_set_hold(set);
		store_sync(pg_store_of(pg), pg->id, &work->shards[s].op);
	}
	free(rows);
}

void pg_sync_begin(struct pg_set *set, struct pg_sync *sync)
{
	int rc = set->is_stopping ? -E_SHUTDOWN : 0;

	if (rc == 0 && !set->map)
		rc = 1;
	for (uint32_t i = 0; i < sync->row_count && rc == 0; i++)
		rc = judge_row(set, &sync->rows[i]);
	if (rc > 0)
		cds_list_add_tail(&sync->link, &set->future_syncs);
	else if (rc < 0 || sync->row_count == 0)
		finish(set, sync, rc);
	else
		start(set, sync);
}

void pg_sync_submit(struct pg_set *set, struct pg_sync *sync)
{
	pg_sync_begin(set, sync);
}
