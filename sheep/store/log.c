/*
 * The log of a shard: batches are written one behind the other, several at once, and applied in LSN
 * order.
 *
 *   OPEN (takes entries) --> QUEUED --> WRITING --> WRITTEN --(all before it applied)--> gone
 *
 * Two queues feed it: the callers' and the internal one (cleaner, index pages), which goes first. A
 * batch gets its LSN and its place when it is submitted. The current segment is left when the next
 * batch does not fit: everything in it is written and synced before the first write to the next
 * one. Callers' batches do not take the last free segments: those are for what makes space.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"
#include "lib/base/rule.h"
#include "sheep/store/store_priv.h"

static void submit_all(struct shard *shard);
static void apply_written(struct shard *shard);

/* ---- queues ---- */

void log_queue_open(struct shard *shard)
{
	struct batch *batch = shard->open;

	if (!batch)
		return;
	shard->open = NULL;
	batch->state = BATCH_QUEUED;
	cds_list_add_tail(&batch->link, &shard->queue);
}

void log_queue_internal(struct batch *batch)
{
	batch->state = BATCH_QUEUED;
	cds_list_add_tail(&batch->link, &batch->shard->internal);
	log_kick(batch->shard);
}

void log_kick(struct shard *shard)
{
	if (shard->state == SHARD_RUNNING || shard->state == SHARD_STOPPING)
		loop_hook_arm(shard->loop, &shard->hook);
}

static void on_turn_end(struct loop_hook *hook)
{
	struct shard *shard = container_of_type(hook, struct shard, hook);

	if (!shard->has_run) {
		shard->thread = pthread_self();
		__atomic_store_n(&shard->has_run, true, __ATOMIC_RELEASE);
	}
	submit_all(shard);
	shard_publish(shard);
}

/* ---- submitting ---- */

/* The commit points that moved go with this batch: as many as fit into it and the segment. */
static void add_commits(struct batch *batch)
{
	struct shard *shard = batch->shard;
	uint32_t left = shard->segment_blocks - shard->block - batch->payload_blocks;
	uint32_t end = min_of(batch->writer.max, left * DISK_BLOCK);
	struct pg *pg, *next;

	cds_list_for_each_entry_safe(pg, next, &shard->commit_dirty, commit_link) {
		if (batch->writer.used + sizeof(struct disk_commit) > end)
			return;
		batch_put_commit(&batch->writer, pg->id, pg->record.commit);
		pg->is_commit_dirty = false;
		cds_list_del(&pg->commit_link);
	}
}

static void submit(struct batch *batch, uint32_t descriptor_blocks)
{
	struct shard *shard = batch->shard;
	uint32_t blocks = descriptor_blocks + batch->payload_blocks;

	assert(shard->block + blocks <= shard->segment_blocks);

	batch->header = (struct batch_header){.store = shard->store->identity.uuid,
					      .shard = shard->number,
					      .segment = shard->current,
					      .block = shard->block,
					      .blocks = blocks,
					      .next_segment = shard->next,
					      .generation = shard->generation,
					      .lsn = shard->next_lsn++,
					      .life = shard->store->life,
					      .synced_lsn = shard->synced_lsn,
					      .checkpoint = checkpoint_durable(shard)};
	batch_seal(&batch->writer, &batch->header);
	batch->iov[0] = (struct iovec){batch->writer.data, descriptor_blocks * DISK_BLOCK};
	batch->state = BATCH_WRITING;
	cds_list_del(&batch->link);
	cds_list_add_tail(&batch->link, &shard->inflight);
	shard->inflight_count++;
	shard->segments[shard->current].written_lsn = batch->header.lsn;
	io_write(shard, &batch->io, shard->segments[shard->current].file, batch->iov,
		 batch->iov_count, (uint64_t)shard->block * DISK_BLOCK);
	shard->block += blocks;
	shard->counters.batches++;
	shard->counters.entries += batch->writer.entry_count;
	shard->counters.bytes_appended += (uint64_t)blocks * DISK_BLOCK;
	checkpoint_log_grew(shard, blocks * DISK_BLOCK);
	if (!batch->is_internal)
		cleaner_log_grew(shard, blocks * DISK_BLOCK);
}

/* Free segments that callers leave to the cleaner. */
static uint32_t kept_free(const struct shard *shard)
{
	return shard->sets_in_flight ? 0 : max_of(3u, shard->reserve / 2);
}

/*
 * Go on in the next segment: possible when all of this one is synced and another free one can be
 * named. Returns false when it has to wait.
 */
static bool switch_segment(struct shard *shard, bool is_internal)
{
	uint32_t keep = is_internal ? 0 : kept_free(shard);
	uint32_t picked;

	if (shard->state_counts[SEGMENT_FREE] <= keep || segment_pick_free(shard, &picked) < 0) {
		shard->has_cleaning_need = true;
		shard->is_internal_stalled |= is_internal;
		preparer_kick(shard);
		return false;
	}
	if (shard->written_lsn + 1 != shard->next_lsn)
		return false; /* its completion comes back here */
	if (RULE(D2_SYNC_BEFORE_LEAVING) && shard->synced_lsn != shard->written_lsn) {
		log_wait_sync(shard);
		return false;
	}
	segment_enter(shard, shard->current, SEGMENT_FULL);
	shard->current = shard->next;
	segment_enter(shard, shard->current, SEGMENT_CURRENT);
	shard->next = picked;
	segment_enter(shard, picked, SEGMENT_NEXT);
	shard->block = 0;
	shard->segments[shard->current].generation = ++shard->generation;
	shard->segments[shard->current].was_barren = false;
	shard->segments[shard->current].is_unreadable = false;
	preparer_kick(shard);
	SIM_POINT(SEGMENT_LEFT);
	return true;
}

/* Submit @batch if the log takes it now. */
static bool try_submit(struct shard *shard, struct batch *batch)
{
	uint32_t left = shard->segment_blocks - shard->block;

	if (shard->inflight_count >= shard->batches_max)
		return false;
	/* Not even the rest of this segment: the cleaner counts on it. */
	if (!batch->is_internal && shard->state_counts[SEGMENT_FREE] < kept_free(shard)) {
		shard->has_cleaning_need = true;
		preparer_kick(shard);
		return false;
	}
	if (batch_descriptor_blocks(batch->writer.used) + batch->payload_blocks > left &&
	    !switch_segment(shard, batch->is_internal))
		return false;
	add_commits(batch);
	submit(batch, batch_descriptor_blocks(batch->writer.used));
	return true;
}

static struct batch *first_of(struct cds_list_head *list)
{
	return cds_list_empty(list) ? NULL : cds_list_first_entry(list, struct batch, link);
}

static void submit_all(struct shard *shard)
{
	struct batch *batch;

	if (shard_is_failed(shard))
		return;
	shard->has_cleaning_need = false;
	shard->is_internal_stalled = false;
	while ((batch = first_of(&shard->internal)))
		if (!try_submit(shard, batch))
			break;
	while (!batch) {
		if (cds_list_empty(&shard->queue) && shard->inflight_count < shard->batches_max)
			log_queue_open(shard);
		batch = first_of(&shard->queue);
		if (!batch || !try_submit(shard, batch))
			break;
		batch = NULL;
	}
	if (log_has_sync_need(shard))
		log_wait_sync(shard);
	checkpoint_kick(shard, false);
	cleaner_kick(shard);
}

bool log_is_stalled(const struct shard *shard)
{
	return shard->is_internal_stalled;
}

/* ---- completing ---- */

/* The longest prefix of the batches in flight that is written counts for syncs. */
static void advance_written(struct shard *shard)
{
	struct batch *batch;

	cds_list_for_each_entry(batch, &shard->inflight, link) {
		if (batch->state != BATCH_WRITTEN)
			return;
		if (batch->header.lsn <= shard->written_lsn)
			continue;
		shard->written_lsn = batch->header.lsn;
		if (batch->ticket)
			shard->written_ticket = batch->ticket;
	}
}

void log_on_written(struct io *io, int result)
{
	struct batch *batch = container_of_type(io, struct batch, io);
	struct shard *shard = batch->shard;

	if (batch->is_abandoned) {
		batch_destroy(batch);
		return;
	}
	batch->state = BATCH_WRITTEN;
	if (result < 0) {
		shard_fail(shard, result, "append");
		return;
	}
	advance_written(shard);
	apply_written(shard);
	log_kick(shard);
}

/* Apply from where it stopped. Returns 0, -EAGAIN (pages are on their way), or an error. */
static int apply_batch(struct batch *batch)
{
	struct shard *shard = batch->shard;
	uint32_t payload_place = batch->header.segment * shard->segment_blocks +
				 batch->header.block +
				 batch_descriptor_blocks(batch->header.descriptor_bytes);
	struct batch_entry entry;
	int rc;

	for (;;) {
		uint32_t offset = batch->apply_offset;
		rc = batch_next(batch->writer.data, batch->header.descriptor_bytes,
				batch->payload_blocks, shard_places(shard), &offset, &entry);
		if (rc <= 0)
			return rc;
		rc = index_apply(shard, &entry, payload_place, &batch->waiter);
		if (rc < 0)
			return rc;
		batch->apply_offset = offset;
		if (entry.kind == DISK_CHANGE)
			overlay_release(&shard->overlay, entry.pg, &entry.key);
	}
}

static void batch_finish(struct batch *batch)
{
	struct shard *shard = batch->shard;

	cds_list_del(&batch->link);
	CDS_INIT_LIST_HEAD(&batch->link);
	shard->inflight_count--;
	shard->applied_lsn = batch->header.lsn;
	if (shard->store->note)
		__atomic_store_n(&shard->store->note[shard->number], batch->header.lsn,
				 __ATOMIC_RELEASE);
	if (batch->ticket)
		shard->applied_ticket = batch->ticket;
	shard->sets_in_flight -= batch->sets;
	shard->pending_bytes -= batch->charge;
	append_applied(batch);
	if (batch->applied)
		batch->applied(batch, batch->context);
	batch_put(batch);
	cache_trim(shard);
}

static void apply_written(struct shard *shard)
{
	/* A caller's `done` may bring us here again by way of a failure. */
	while (!shard_is_failed(shard)) {
		struct batch *batch = first_of(&shard->inflight);
		if (!batch || batch->state != BATCH_WRITTEN || batch->waiter.pending > 0)
			break;
		shard->is_applying = true;
		int rc = apply_batch(batch);
		if (rc == -EAGAIN)
			return;
		shard->is_applying = false;
		if (rc < 0) {
			shard_fail(shard, rc, "apply a batch");
			return;
		}
		batch_finish(batch);
	}
	if (!shard_is_failed(shard)) {
		checkpoint_step(shard);
		shard_check_stop(shard);
	}
}

void log_on_pages(struct waiter *waiter)
{
	struct batch *batch = container_of_type(waiter, struct batch, waiter);

	if (batch->is_abandoned) {
		batch_destroy(batch);
		return;
	}
	log_kick(batch->shard);
	apply_written(batch->shard);
}

/* ---- the end ---- */

bool log_is_idle(struct shard *shard)
{
	return !shard->open && cds_list_empty(&shard->queue) && cds_list_empty(&shard->internal) &&
	       cds_list_empty(&shard->inflight) && !shard->is_syncing;
}

/* A hung write may still read its payload: what the callers give back is kept from reuse. */
static void leak(struct batch *batch)
{
	batch->is_abandoned = true;
	cds_list_del(&batch->link);
	CDS_INIT_LIST_HEAD(&batch->link);
}

void log_abandon(struct shard *shard, int error)
{
	struct cds_list_head *lists[] = {&shard->inflight, &shard->queue, &shard->internal};

	log_queue_open(shard);
	for (unsigned i = 0; i < ARRAY_COUNT(lists); i++) {
		struct batch *batch;
		while ((batch = first_of(lists[i]))) {
			bool is_busy = batch->state == BATCH_WRITING || batch->waiter.pending > 0;
			leak(batch);
			append_abandon(batch, error);
			if (!is_busy)
				batch_destroy(batch);
		}
	}
	shard->inflight_count = 0;
	sync_abandon(shard, error);
}

int log_new(struct shard *shard)
{
	CDS_INIT_LIST_HEAD(&shard->queue);
	CDS_INIT_LIST_HEAD(&shard->internal);
	CDS_INIT_LIST_HEAD(&shard->inflight);
	CDS_INIT_LIST_HEAD(&shard->spare_batches);
	CDS_INIT_LIST_HEAD(&shard->held_appends);
	CDS_INIT_LIST_HEAD(&shard->sync_waiters);
	CDS_INIT_LIST_HEAD(&shard->spare_waiters);
	CDS_INIT_LIST_HEAD(&shard->commit_dirty);
	sync_init(shard);
	shard->hook.run = on_turn_end;
	shard->hook.phase = LOOP_HOOK_COMMIT;
	shard->next_ticket = 1;
	return 0;
}

void log_free(struct shard *shard)
{
	struct cds_list_head *lists[] = {&shard->inflight, &shard->queue, &shard->internal,
					 &shard->spare_batches};
	struct sync_waiter *w, *next;
	struct batch *batch;

	log_queue_open(shard);
	for (unsigned i = 0; i < ARRAY_COUNT(lists); i++)
		while ((batch = first_of(lists[i]))) {
			cds_list_del(&batch->link);
			batch_destroy(batch);
		}
	cds_list_for_each_entry_safe(w, next, &shard->spare_waiters, link)
		free(w);
	cds_list_for_each_entry_safe(w, next, &shard->sync_waiters, link)
		free(w);
}

/* ---- credit ---- */

/* Segments that cannot be had do not count. */
uint64_t log_usable(const struct shard *shard)
{
	uint32_t unfilled = shard->is_file_system_full ? segment_unfilled(shard) : 0;

	return unfilled ? store_usable_bytes(shard->store, shard->segment_count - unfilled)
			: shard->usable_bytes;
}

uint64_t log_credit(const struct shard *shard)
{
	uint64_t usable = log_usable(shard);
	uint64_t used = shard->live_bytes + shard->pending_bytes +
			(uint64_t)shard->cache.unplaced * PAGE_CHARGE;

	if (room_is_used_up(shard, ROOM_CLIENT))
		return 0;
	return usable > used ? usable - used : 0;
}
