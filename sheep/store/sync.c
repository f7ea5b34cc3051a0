/*
 * Syncs of the log. One at a time, of the current segment: the one before it was synced when it was
 * left. It serves everybody whose batch was written when it began; who comes later waits for
 * the next.
 */
#include <stdlib.h>

#include "lib/base/rule.h"
#include "sheep/store/store_priv.h"

/* All for whom it was. */
static void answer(struct shard *shard)
{
	while (!cds_list_empty(&shard->held_appends)) {
		struct store_append *a =
			cds_list_first_entry(&shard->held_appends, struct store_append, link);
		if (a->lsn > shard->synced_ticket)
			break;
		cds_list_del(&a->link);
		a->done(a, 0);
	}
	while (!cds_list_empty(&shard->sync_waiters)) {
		struct sync_waiter *w =
			cds_list_first_entry(&shard->sync_waiters, struct sync_waiter, link);
		if (w->ticket > shard->synced_ticket)
			break;
		cds_list_del(&w->link);
		loop_complete(shard->loop, w->op, 0);
		cds_list_add(&w->link, &shard->spare_waiters);
	}
}

static void on_synced(struct io *io, int result)
{
	struct shard *shard = container_of_type(io, struct shard, sync_io);

	if (shard_is_failed(shard))
		return;
	shard->is_syncing = false;
	if (result < 0) {
		shard_fail(shard, result, "sync");
		return;
	}
	shard->counters.syncs++;
	shard->synced_lsn = shard->sync_lsn;
	shard->synced_ticket = shard->sync_ticket;
	answer(shard);
	checkpoint_step(shard);
	log_kick(shard);
	shard_check_stop(shard);
}

/* Everything that is written by now; what comes later needs another one. */
static void start_sync(struct shard *shard)
{
	if (shard->is_syncing || !shard->wants_sync)
		return;
	shard->wants_sync = false;
	shard->is_syncing = true;
	shard->sync_lsn = shard->written_lsn;
	shard->sync_ticket = shard->written_ticket;
	io_sync(shard, &shard->sync_io, shard->segments[shard->current].file);
}

/* Is there anybody whom a sync of what is written now would serve? */
bool log_has_sync_need(struct shard *shard)
{
	if (shard->written_lsn == shard->synced_lsn &&
	    shard->written_ticket == shard->synced_ticket)
		return false;
	if (!cds_list_empty(&shard->sync_waiters)) {
		struct sync_waiter *first =
			cds_list_first_entry(&shard->sync_waiters, struct sync_waiter, link);
		if (first->ticket <= shard->written_ticket)
			return true;
	}
	return !cds_list_empty(&shard->held_appends);
}

void log_wait_sync(struct shard *shard)
{
	shard->wants_sync = true;
	start_sync(shard);
}

void sync_init(struct shard *shard)
{
	shard->sync_io.done = on_synced;
}

void sync_abandon(struct shard *shard, int error)
{
	while (!cds_list_empty(&shard->held_appends)) {
		struct store_append *a =
			cds_list_first_entry(&shard->held_appends, struct store_append, link);
		cds_list_del(&a->link);
		a->done(a, error);
	}
	while (!cds_list_empty(&shard->sync_waiters)) {
		struct sync_waiter *w =
			cds_list_first_entry(&shard->sync_waiters, struct sync_waiter, link);
		cds_list_del(&w->link);
		loop_complete(shard->loop, w->op, error);
		cds_list_add(&w->link, &shard->spare_waiters);
	}
}

void store_sync(struct store *store, uint32_t pg, struct loop_op *op)
{
	struct shard *shard = shard_of(store, pg);
	uint64_t ticket = shard->next_ticket - 1;
	struct sync_waiter *w;

	if (shard_is_failed(shard)) {
		loop_complete(shard->loop, op, -E_STORE_FAILED);
		return;
	}
	if (!RULE(D3_SYNC_WAITS) || ticket <= shard->synced_ticket) {
		loop_complete(shard->loop, op, 0);
		return;
	}
	if (cds_list_empty(&shard->spare_waiters)) {
		w = malloc(sizeof(*w));
		if (!w) {
			loop_complete(shard->loop, op, -ENOMEM);
			return;
		}
	} else {
		w = cds_list_first_entry(&shard->spare_waiters, struct sync_waiter, link);
		cds_list_del(&w->link);
	}
	w->op = op;
	w->ticket = ticket;
	cds_list_add_tail(&w->link, &shard->sync_waiters);
	log_kick(shard);
}
