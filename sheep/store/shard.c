/*
 * A shard: its PGs, what happens when it fails, how it stops.
 *
 *   OPENING --> RUNNING --> STOPPING --> STOPPED
 *                  |            |
 *                  +--> FAILED <+
 *
 * From RUNNING on a shard is touched by its loop's thread only. FAILED is for good: everything in flight
 * is answered, nothing is acknowledged any more, and the other shards of the store follow.
 */
#include <pthread.h>
#include <stdlib.h>

#include "lib/base/log.h"
#include "lib/base/rule.h"
#include "sheep/store/store_priv.h"

/* ---- PGs ---- */

struct shard *shard_of(const struct store *store, uint32_t pg)
{
	return &store->shards[pg % store->shard_count];
}

unsigned store_shard_of(const struct store *store, uint32_t pg)
{
	return pg % store->shard_count;
}

struct loop *store_loop_of(const struct store *store, uint32_t pg)
{
	return shard_of(store, pg)->loop;
}

struct pg *shard_pg(struct shard *shard, uint32_t id)
{
	struct pg *pg = shard->last_pg;

	if (pg && pg->id == id)
		return pg;
	HASH_FIND(hh, shard->pgs, &id, sizeof(id), pg);
	if (pg)
		shard->last_pg = pg;
	return pg;
}

struct pg *shard_pg_make(struct shard *shard, uint32_t id)
{
	struct pg *pg = shard_pg(shard, id);

	if (pg)
		return pg;
	pg = calloc(1, sizeof(*pg));
	if (!pg)
		return NULL;
	pg->id = id;
	table_init(&pg->table, &shard->saver, id);
	HASH_ADD(hh, shard->pgs, id, sizeof(pg->id), pg);
	shard->last_pg = pg;
	return pg;
}

/* The objects' pages and slots go with the cache. */
void shard_pg_free(struct pg *pg)
{
	table_done(&pg->table);
	record_done(&pg->record);
	free(pg);
}

void shard_pg_forget(struct shard *shard, struct pg *pg)
{
	if (pg->is_commit_dirty)
		cds_list_del(&pg->commit_link);
	if (shard->last_pg == pg)
		shard->last_pg = NULL;
	HASH_DEL(shard->pgs, pg);
	shard_pg_free(pg);
}

bool shard_pg_next(struct shard *shard, uint32_t from, uint32_t *out)
{
	struct pg *pg, *next;
	bool is_found = false;

	HASH_ITER(hh, shard->pgs, pg, next)
		if (pg->id >= from && (!is_found || pg->id < *out) &&
		    (pg->table.object_count > 0 || !record_is_empty(&pg->record))) {
			*out = pg->id;
			is_found = true;
		}
	return is_found;
}

/* Until its loop has turned a shard is everybody's; then its thread's. */
static bool is_here(const struct shard *shard)
{
	return !__atomic_load_n(&shard->has_run, __ATOMIC_ACQUIRE) ||
	       pthread_equal(shard->thread, pthread_self());
}

int store_pg_next(struct store *store, uint32_t from, uint32_t *out_pg)
{
	bool is_found = false;
	uint32_t id = 0;

	/* Before the loops run all are ours; then each loop asks about what it owns. */
	for (uint32_t i = 0; i < store->shard_count; i++) {
		struct shard *shard = &store->shards[i];
		if (is_here(shard) && shard_pg_next(shard, from, &id) &&
		    (!is_found || id < *out_pg)) {
			*out_pg = id;
			is_found = true;
		}
	}
	return is_found;
}

void store_pg_info(struct store *store, uint32_t pg_id, struct store_pg_info *out)
{
	const struct pg *pg = shard_pg(shard_of(store, pg_id), pg_id);

	*out = (struct store_pg_info){0};
	if (!pg)
		return;
	*out = (struct store_pg_info){.last = pg->record.last,
				      .commit = pg->record.commit,
				      .tail_count = pg->record.tail_count,
				      .objects = (uint32_t)pg->table.object_count,
				      .missing = pg->missing,
				      .lost = pg->lost,
				      .data_blocks = pg->data_blocks};
}

uint32_t store_pg_tail(struct store *store, uint32_t pg_id, struct store_tail_entry *out,
		       uint32_t max)
{
	const struct pg *pg = shard_pg(shard_of(store, pg_id), pg_id);

	return pg ? record_tail(&pg->record, out, max) : 0;
}

int store_request_find(struct store *store, uint32_t pg_id, uint64_t session, uint64_t number,
		       struct version *out)
{
	const struct pg *pg = shard_pg(shard_of(store, pg_id), pg_id);

	return pg ? record_find_request(&pg->record, session, number, out) : 0;
}

uint32_t store_object_requests(struct store *store, uint32_t pg_id, const struct object_key *key,
			       struct version above, struct store_request *out, uint32_t max)
{
	struct pg *pg = shard_pg(shard_of(store, pg_id), pg_id);

	return pg ? record_object_requests(&pg->record, key, above, out, max) : 0;
}

uint32_t store_requests(struct store *store, uint32_t pg_id, struct store_request *out,
			uint32_t max)
{
	const struct pg *pg = shard_pg(shard_of(store, pg_id), pg_id);

	return pg ? record_requests(&pg->record, out, max) : 0;
}

/* ---- failing ---- */

void shard_on_fail_mail(struct loop *loop, struct loop_mail *mail)
{
	struct shard *shard = container_of_type(mail, struct shard, fail_mail);

	shard_fail(shard, -E_STORE_FAILED, "another shard of the store");
	store_put(shard->store);
}

void shard_fail(struct shard *shard, int error, const char *what)
{
	struct store *store = shard->store;

	if (shard->state == SHARD_FAILED || shard->state == SHARD_STOPPED || !RULE(D3_FAIL_STOP))
		return;

	bool is_first = !__atomic_exchange_n(&store->is_failed, true, __ATOMIC_ACQ_REL);

	if (is_first)
		log_error("store '%s': shard %u: %s: %s: the store stops", store->path,
			  shard->number, what, err_text(error));
	shard->state = SHARD_FAILED;
	shard->error = error;
	loop_hook_disarm(shard->loop, &shard->hook);
	loop_timer_stop(shard->loop, &shard->watch.timer);
	loop_timer_stop(shard->loop, &shard->tick);
	log_abandon(shard, -E_STORE_FAILED);
	read_abandon(shard, -E_STORE_FAILED);
	drop_abandon(shard, -E_STORE_FAILED);
	if (shard->stop_op) {
		loop_complete(shard->loop, shard->stop_op, -E_STORE_FAILED);
		shard->stop_op = NULL;
	}
	if (!is_first)
		return;
	for (uint32_t i = 0; i < store->shard_count; i++)
		if (&store->shards[i] != shard) {
			store_get(store);
			loop_post(store->shards[i].loop, &store->shards[i].fail_mail);
		}
	if (store->callbacks.failed)
		store->callbacks.failed(store->callbacks.context, store, error);
}

/* ---- after the end ---- */

bool shard_is_busy(struct shard *shard)
{
	return !cds_list_empty(&shard->ios) || !cds_list_empty(&shard->works) ||
	       !cds_list_empty(&shard->drops);
}

static void on_gone(struct loop_op *op, int result)
{
	store_put(container_of_type(op, struct shard, gone_op)->store);
}

void shard_await(struct shard *shard)
{
	store_get(shard->store);
	shard->is_awaited = true;
	shard->gone_op.done = on_gone;
}

/* In a turn of its own: who calls this still uses the shard. */
void shard_check_gone(struct shard *shard)
{
	if (!shard->is_awaited || shard_is_busy(shard))
		return;
	shard->is_awaited = false;
	loop_complete(shard->loop, &shard->gone_op, 0);
}

bool store_is_failed(const struct store *store)
{
	return __atomic_load_n(&store->is_failed, __ATOMIC_ACQUIRE);
}

/* An entry of our own that marks an object. */
struct mark {
	struct cds_list_head link; /* shard->marks */
	struct store_append append;
	struct store_run run;
};

static void on_marked(struct store_append *append, int result)
{
	struct mark *mark = container_of_type(append, struct mark, append);

	cds_list_del(&mark->link);
	free(mark);
}

void shard_corrupt(struct shard *shard, uint32_t pg_id, const struct object_key *key,
		   uint32_t block, uint32_t count, uint32_t place)
{
	struct store *store = shard->store;
	struct store_object object;
	struct mark *mark;

	if (shard->state != SHARD_RUNNING || !store_object(store, pg_id, key, &object) ||
	    (object.is_missing && count == 0))
		return;
	struct pg *pg = shard_pg(shard, pg_id);
	struct object *known = pg ? table_find(&pg->table, key, NULL) : NULL;

	if (known)
		known->flags &= (uint8_t)~OBJECT_TOLD;
	mark = calloc(1, sizeof(*mark));
	if (mark) {
		mark->run = (struct store_run){(uint16_t)block, (uint16_t)count, BLOCK_LOST};
		mark->append =
			(struct store_append){.done = on_marked,
					      .pg = pg_id,
					      .family = object.family,
					      .key = *key,
					      .previous = batch_mark_place(place),
					      .flags = STORE_SET_MISSING | STORE_UNSEQUENCED |
						       STORE_ANY_PREVIOUS | STORE_MARK,
					      .runs = &mark->run,
					      .run_count = count > 0};
		if (store_append(store, &mark->append) < 0)
			free(mark);
		else
			cds_list_add(&mark->link, &shard->marks);
	}
	if (!object.is_missing && store->callbacks.corrupt)
		store->callbacks.corrupt(store->callbacks.context, store, pg_id, key);
}

void shard_free_marks(struct shard *shard)
{
	struct mark *mark, *next;

	cds_list_for_each_entry_safe(mark, next, &shard->marks, link)
		free(mark);
}

/* ---- stopping ---- */

enum stop_stage { STOP_DRAINING, STOP_CHECKPOINT, STOP_DONE };

static bool is_quiet(struct shard *shard)
{
	return log_is_idle(shard) && cds_list_empty(&shard->works) &&
	       cds_list_empty(&shard->drops) && cds_list_empty(&shard->held_appends) &&
	       cds_list_empty(&shard->sync_waiters) && shard->cache.loading == 0 &&
	       cleaner_is_idle(shard) && preparer_is_idle(shard) && checkpoint_is_idle(shard);
}

static void stopped(struct shard *shard)
{
	struct loop_op *op = shard->stop_op;

	shard->stop_stage = STOP_DONE;
	shard->state = SHARD_STOPPED;
	shard->stop_op = NULL;
	shard_publish(shard);
	loop_hook_disarm(shard->loop, &shard->hook);
	loop_timer_stop(shard->loop, &shard->watch.timer);
	loop_timer_stop(shard->loop, &shard->tick);
	loop_complete(shard->loop, op, 0);
}

void shard_check_stop(struct shard *shard)
{
	if (shard->state != SHARD_STOPPING || !is_quiet(shard))
		return;
	if (shard->stop_stage == STOP_DRAINING) {
		shard->stop_stage = STOP_CHECKPOINT;
		checkpoint_kick(shard, true);
		if (!checkpoint_is_put_off(shard))
			return;
	}
	if (!checkpoint_is_due(shard))
		stopped(shard);
	else if (checkpoint_is_put_off(shard)) {
		/* Without room for one the log alone has to tell, at the next start. */
		if (shard->synced_lsn == shard->written_lsn)
			stopped(shard);
		else
			log_wait_sync(shard);
	}
}

void store_stop_shard(struct store *store, unsigned number, struct loop_op *op)
{
	struct shard *shard = &store->shards[number];

	if (shard->state != SHARD_RUNNING) {
		loop_complete(shard->loop, op, shard->state == SHARD_FAILED ? -E_STORE_FAILED : 0);
		return;
	}
	shard->stop_op = op;
	shard->state = SHARD_STOPPING;
	log_kick(shard);
	shard_check_stop(shard);
}
