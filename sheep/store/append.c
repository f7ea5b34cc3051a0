/*
 * Entries: checked against the newest state of their object, paid for, encoded into the open batch
 * of the shard. The write goes out at the end of the turn (log.c).
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/crc32c.h"
#include "lib/base/log.h"
#include "sheep/store/store_priv.h"

/* ---- checks ---- */

/* The newest state of an object, entries in flight included. */
struct newest {
	struct version version;
	uint64_t family;
	bool exists;
	bool is_missing;
	bool is_damaged; /* in a way that a pusher may not know of */
};

static struct newest newest_of(struct shard *shard, uint32_t pg_id, const struct object_key *key)
{
	const struct flight *f = overlay_find(&shard->overlay, pg_id, key);
	struct pg *pg = shard_pg(shard, pg_id);
	const struct object *object = pg ? table_find(&pg->table, key, NULL) : NULL;
	uint8_t flags = object ? object->flags : 0;
	bool is_marked = flags & OBJECT_MARKED || (f && f->is_marked);
	bool is_damaged = flags & OBJECT_DAMAGED || (is_marked && !(flags & OBJECT_TOLD));

	if (f)
		return (struct newest){.version = f->exists ? f->version : (struct version){0},
				       .family = f->family,
				       .exists = f->exists,
				       .is_missing = f->is_missing,
				       .is_damaged = is_damaged};
	if (!object)
		return (struct newest){0};
	return (struct newest){.version = object->version,
			       .family = object->family,
			       .exists = true,
			       .is_missing = object->flags & OBJECT_MISSING,
			       .is_damaged = is_damaged};
}

/* Counts the data blocks; -EINVAL for anything that no caller may ask. */
static int check_shape(const struct store_append *a, uint32_t *out_blocks)
{
	uint32_t from = 0, blocks = 0;
	uint64_t bytes = 0;

	if (a->run_count > STORE_RUNS_MAX ||
	    (a->flags & (STORE_SET_MISSING | STORE_CLEAR_MISSING)) ==
		    (STORE_SET_MISSING | STORE_CLEAR_MISSING) ||
	    (a->flags & STORE_DELETE && a->run_count > 0) ||
	    (a->flags & STORE_REQUESTS && (a->flags & STORE_UNSEQUENCED || a->session)))
		return -EINVAL;
	for (uint32_t i = 0; i < a->run_count; i++) {
		const struct store_run *run = &a->runs[i];
		if (run->count == 0 || run->block < from || run->state > BLOCK_LOST ||
		    !range_is_within(run->block, run->count, OBJECT_BLOCKS))
			return -EINVAL;
		from = run->block + run->count;
		blocks += run->state == BLOCK_DATA ? run->count : 0;
	}
	for (uint32_t i = 0; i < a->slice_count; i++) {
		if (a->slices[i].size == 0 || a->slices[i].size % BLOCK_SIZE)
			return -EINVAL;
		bytes += a->slices[i].size;
	}
	*out_blocks = blocks;
	return bytes == (uint64_t)blocks * BLOCK_SIZE ? 0 : -EINVAL;
}

static uint32_t pages_of(uint32_t block, uint32_t count)
{
	return (block + count - 1) / DISK_PAGE_BLOCKS - block / DISK_PAGE_BLOCKS + 1;
}

/* Pages that a run of zeroes makes: where there is one already it takes nothing. */
static uint32_t new_pages_of(const struct object *object, const struct store_run *run)
{
	uint32_t first = run->block / DISK_PAGE_BLOCKS, pages = pages_of(run->block, run->count);
	uint32_t count = pages;

	for (uint32_t i = 0; object && object->slots && i < pages; i++)
		count -= object->slots[first + i] != 0;
	return count;
}

/* What an entry may take at most, in credits: its blocks, and records of pages it touches or makes. */
static uint32_t charge_for(struct shard *shard, const struct store_append *a, uint32_t blocks)
{
	const struct flight *f = overlay_find(&shard->overlay, a->pg, &a->key);
	struct pg *pg = shard_pg(shard, a->pg);
	const struct object *object =
		pg && (!f || f->exists) ? table_find(&pg->table, &a->key, NULL) : NULL;
	uint32_t pages = 0;

	for (uint32_t i = 0; i < a->run_count; i++)
		if (a->runs[i].state == BLOCK_DATA)
			pages += pages_of(a->runs[i].block, a->runs[i].count);
		else if (a->runs[i].state != BLOCK_ABSENT)
			pages += new_pages_of(object, &a->runs[i]);
	return blocks * BLOCK_SIZE + min_of(pages, DISK_PAGES) * PAGE_CHARGE;
}

static int check_object(const struct newest *now, const struct store_append *a)
{
	const uint32_t no_matter = STORE_ANY_PREVIOUS | STORE_SET_MISSING | STORE_CLEAR_MISSING |
				   STORE_DELETE | STORE_UNSEQUENCED;

	if (!(a->flags & STORE_ANY_PREVIOUS) && version_compare(now->version, a->previous) != 0)
		return -E_VERSION;
	if (now->is_missing && !(a->flags & no_matter))
		return -E_MISSING;
	/* Sums are seeded by the family: it is a property of the layer. */
	if (now->exists && now->family != a->family && !(a->flags & STORE_DELETE))
		return -EINVAL;
	return 0;
}

/* Pushes, and entries that a primary has granted, may use a quarter of what is kept for the cleaner: recovery
 * goes on where clients cannot write, and credits that were reported too late evict nobody. */
static int check_space(struct shard *shard, const struct store_append *a, uint32_t charge)
{
	uint64_t credit = log_credit(shard);

	if (charge == 0)
		return 0;
	if (shard->is_file_system_full || room_is_low(shard))
		preparer_kick(shard); /* perhaps there is room again: now and then it looks */
	if (room_is_used_up(shard, ROOM_ANY))
		return -ENOSPC;
	if (a->flags & (STORE_UNSEQUENCED | STORE_GRANTED)) {
		uint64_t extra = (uint64_t)shard->reserve / 4 * shard->store->segment_bytes;
		uint64_t used = shard->live_bytes + shard->pending_bytes + charge;
		return used <= log_usable(shard) + extra ? 0 : -ENOSPC;
	}
	return charge <= credit ? 0 : -ENOSPC;
}

/* ---- encoding ---- */

static struct batch *batch_for(struct shard *shard, uint32_t entry_bytes, uint32_t blocks,
			       uint32_t iovecs)
{
	if (shard->open && !batch_has_room(shard->open, entry_bytes, blocks, iovecs))
		log_queue_open(shard);
	if (!shard->open)
		shard->open = batch_get(shard, false);
	return shard->open;
}

/* Payload that direct I/O does not take as it is gets copied. */
static int add_slice(struct shard *shard, struct batch *batch, const struct slice *slice)
{
	if ((uintptr_t)slice->data % BUFFER_ALIGN == 0) {
		batch_add_iov(batch, slice->data, slice->size);
		return 0;
	}

	struct buffer *copy = buffer_new(loop_buffers(shard->loop), slice->size);

	if (!copy)
		return -ENOMEM;
	memcpy(copy->data, slice->data, slice->size);
	batch_add_iov(batch, copy->data, slice->size);
	return batch_hold(batch, copy);
}

/* Sums as they are stored, from the caller's or from the data. */
static void fill_crcs(const struct store_append *a, le32 *out)
{
	const struct slice *slice = a->slices;
	uint32_t at = 0, used = 0;

	for (uint32_t i = 0; i < a->run_count; i++) {
		if (a->runs[i].state != BLOCK_DATA)
			continue;
		for (uint32_t j = 0; j < a->runs[i].count; j++, used++) {
			uint32_t seed = block_seed(a->family, a->key.index, a->runs[i].block + j);
			if (a->crcs) {
				out[used] = to_le32(a->crcs[used] ^ seed);
				continue;
			}
			if (at == slice->size) {
				slice++;
				at = 0;
			}
			out[used] = to_le32(crc32c(slice->data + at, BLOCK_SIZE) ^ seed);
			at += BLOCK_SIZE;
		}
	}
}

/* Bring what the change needs into memory while it is being written. */
static void prefetch(struct shard *shard, struct pg *pg, const struct store_append *a)
{
	struct object *object = table_find(&pg->table, &a->key, NULL);
	bool is_all = a->flags & (STORE_DELETE | STORE_REPLACE);

	if (!object || !object->slots)
		return;
	for (uint32_t i = 0; i < (is_all ? 1 : a->run_count); i++) {
		uint32_t first = is_all ? 0 : a->runs[i].block / DISK_PAGE_BLOCKS;
		uint32_t last = is_all ? DISK_PAGES - 1
				       : (uint32_t)(a->runs[i].block + a->runs[i].count - 1) /
						 DISK_PAGE_BLOCKS;
		for (; first <= last; first++)
			if (object->slots[first] && !slot_is_page(object->slots[first]))
				(void)cache_load(shard, pg->id, &a->key, object->slots,
						 (uint8_t)first, NULL);
	}
}

/* ---- what the PG remembers ---- */

static int remember(struct shard *shard, struct pg *pg, const struct store_append *a,
		    uint64_t ticket)
{
	struct store_tail_entry tail = {.version = a->version,
					.previous = a->previous,
					.key = a->key,
					.family = a->family,
					.session = a->session,
					.number = a->number};

	if (a->flags & STORE_UNSEQUENCED)
		return 0;
	for (uint32_t i = 0; i < a->run_count; i++)
		record_tail_add_run(&tail, a->runs[i].block, a->runs[i].count);

	int rc = record_add_tail(&pg->record, &tail, ticket);

	const struct store_request request = {
		.session = a->session, .number = a->number, .version = a->version, .key = a->key};

	if (rc == 0 && a->flags & STORE_REQUESTS)
		rc = record_set_object(&pg->record, &a->key, a->above, a->requests,
				       a->request_count, ticket, shard->applied_ticket);
	if (rc == 0 && a->session)
		rc = record_add_request(&pg->record, &request, a->lowest, ticket);
	if (rc == 0)
		pg->record.last = version_max(pg->record.last, a->version);
	return rc;
}

static void fly(struct flight *f, const struct store_append *a, const struct newest *now)
{
	bool moves = !(a->flags & STORE_UNSEQUENCED) || (a->flags & STORE_CLEAR_MISSING);

	f->family = a->family;
	f->is_marked |= (a->flags & STORE_MARK) != 0;
	if (a->flags & STORE_DELETE) {
		f->exists = false;
		f->is_missing = false;
		return;
	}
	f->version = moves ? a->version : now->version;
	f->exists = true;
	f->is_missing = a->flags & STORE_SET_MISSING  ? true
			: store_makes_whole(a->flags) ? false
			: a->flags & STORE_CLEAR_MISSING
				? now->is_damaged && !(a->flags & STORE_REPLACE)
				: now->is_missing;
}

/* ---- requests ---- */

#define REQUESTS_PART	  1024u /* of one batch */
#define REQUESTS_TOGETHER 768u	/* and with any change */

/* A batch with room for an entry of the PG's record, or NULL. */
static struct batch *record_batch(struct shard *shard, uint32_t bytes)
{
	if (shard->state != SHARD_RUNNING)
		return NULL;
	log_kick(shard);
	return batch_for(shard, bytes, 0, 0);
}

static bool has_requests_apart(const struct store_append *a)
{
	return a->flags & STORE_REQUESTS && a->request_count > REQUESTS_TOGETHER;
}

static uint32_t entry_size(const struct store_append *a, uint32_t blocks)
{
	uint32_t size = batch_change_size(a->run_count, blocks);

	if (a->flags & STORE_REQUESTS && !has_requests_apart(a))
		size += (uint32_t)(sizeof(struct disk_object_requests) +
				   a->request_count * sizeof(struct disk_request));
	return size;
}

/*
 * They lie before the change that takes them, and if they are many in batches before its own: a log that ends between
 * has neither. No checkpoint begins there: its log would have the change without them.
 */
static int put_requests_apart(struct shard *shard, const struct store_append *a)
{
	uint32_t done = 0;

	do {
		uint32_t part = min_of(a->request_count - done, REQUESTS_PART);
		struct batch *batch =
			record_batch(shard, (uint32_t)(sizeof(struct disk_object_requests) +
						       part * sizeof(struct disk_request)));
		if (!batch)
			return -ENOMEM;
		batch_put_object_requests(&batch->writer, a->pg,
					  done == 0 ? DISK_REQUESTS_FIRST : 0u, a->above,
					  a->requests + done, part);
		done += part;
	} while (done < a->request_count);
	return 0;
}

/* ---- the entry points ---- */

static int check(struct shard *shard, const struct store_append *a, const struct newest *now,
		 uint32_t *out_blocks, uint32_t *out_charge)
{
	int rc = check_shape(a, out_blocks);

	if (rc < 0)
		return rc;
	if (*out_blocks > shard->entry_blocks_max || a->slice_count > STORE_SLICES_MAX)
		return -E2BIG;
	rc = check_object(now, a);
	if (rc < 0)
		return rc;
	*out_charge = charge_for(shard, a, *out_blocks);
	return check_space(shard, a, *out_charge);
}

uint32_t store_entry_blocks_max(const struct store *store)
{
	return store->shards[0].entry_blocks_max;
}

int store_append(struct store *store, struct store_append *a)
{
	struct shard *shard = shard_of(store, a->pg);
	uint32_t blocks, charge;

	if (shard->state != SHARD_RUNNING)
		return shard->state == SHARD_FAILED ? -E_STORE_FAILED : -E_SHUTDOWN;

	struct newest now = newest_of(shard, a->pg, &a->key);
	int rc = check(shard, a, &now, &blocks, &charge);

	if (rc < 0)
		return rc;

	struct pg *pg = shard_pg_make(shard, a->pg);

	if (a->session && pg && !(a->flags & STORE_UNSEQUENCED) &&
	    !record_may_use(&pg->record, a->session, a->number, a->lowest))
		return -EINVAL;
	if (pg && has_requests_apart(a) && put_requests_apart(shard, a) < 0)
		return -ENOMEM;

	struct batch *batch =
		pg ? batch_for(shard, entry_size(a, blocks), blocks, a->slice_count) : NULL;

	if (!batch)
		return -ENOMEM;

	struct flight *f = overlay_take(&shard->overlay, a->pg, &a->key);

	if (!f)
		return -ENOMEM;
	rc = remember(shard, pg, a, batch->ticket);
	for (uint32_t i = 0; i < a->slice_count && rc == 0; i++)
		rc = add_slice(shard, batch, &a->slices[i]);
	if (rc < 0) {
		/* Out of memory half way: what is remembered would have no entry. */
		overlay_release(&shard->overlay, a->pg, &a->key);
		shard_fail(shard, rc, "queue an entry");
		return -E_STORE_FAILED;
	}
	a->flags &= ~STORE_WHOLE;
	if (a->flags & STORE_CLEAR_MISSING && !now.is_damaged)
		a->flags |= STORE_WHOLE;
	fly(f, a, &now);
	if (has_requests_apart(a)) {
		batch->sets++;
		shard->sets_in_flight++;
	} else if (a->flags & STORE_REQUESTS) {
		batch_put_object_requests(&batch->writer, a->pg, DISK_REQUESTS_FIRST, a->above,
					  a->requests, a->request_count);
	}
	fill_crcs(a, batch_put_change(&batch->writer, a, batch->payload_blocks, blocks));
	batch->payload_blocks += blocks;
	batch->charge += charge;
	shard->pending_bytes += charge;
	shard->counters.bytes_data += (uint64_t)blocks * BLOCK_SIZE;
	a->batch = batch;
	a->lsn = batch->ticket;
	cds_list_add_tail(&a->link, &batch->appends);
	prefetch(shard, pg, a);
	log_kick(shard);
	return 0;
}

int store_set_requests(struct store *store, uint32_t pg_id, const struct store_request *requests,
		       uint32_t count)
{
	struct shard *shard = shard_of(store, pg_id);
	struct pg *pg = shard_pg_make(shard, pg_id);
	struct batch *batch = NULL;
	uint32_t done = 0;

	if (shard->state != SHARD_RUNNING)
		return -E_STORE_FAILED;
	if (!pg)
		return -ENOMEM;
	do {
		uint32_t part = min_of(count - done, REQUESTS_PART);
		unsigned flags = (done == 0 ? DISK_REQUESTS_FIRST : 0u) |
				 (done + part == count ? DISK_REQUESTS_LAST : 0u);
		batch = record_batch(shard, (uint32_t)(sizeof(struct disk_requests) +
						       part * sizeof(struct disk_request)));
		if (!batch)
			return -ENOMEM;
		batch_put_requests(&batch->writer, pg_id, flags, requests + done, part);
		if (count > REQUESTS_PART) {
			batch->sets++;
			shard->sets_in_flight++;
		}
		done += part;
	} while (done < count);
	return record_set_requests(&pg->record, requests, count, batch->ticket,
				   shard->applied_ticket);
}

void store_end_session(struct store *store, uint32_t pg_id, uint64_t session)
{
	struct shard *shard = shard_of(store, pg_id);
	struct pg *pg = shard_pg(shard, pg_id);
	struct batch *batch = pg ? record_batch(shard, sizeof(struct disk_forget)) : NULL;

	if (!batch)
		return;
	batch_put_forget(&batch->writer, DISK_END_SESSION, pg_id, session);
	record_end_session(&pg->record, session);
}

int append_drop_record(struct shard *shard, uint32_t pg_id)
{
	struct pg *pg = shard_pg(shard, pg_id);
	struct batch *batch = record_batch(shard, sizeof(struct disk_forget));

	if (!batch)
		return -ENOMEM;
	batch_put_forget(&batch->writer, DISK_DROP_PG, pg_id, 0);
	if (pg)
		record_done(&pg->record);
	return 0;
}

void store_set_commit(struct store *store, uint32_t pg_id, struct version commit)
{
	struct shard *shard = shard_of(store, pg_id);
	struct pg *pg = shard_pg_make(shard, pg_id);

	if (!pg || !record_set_commit(&pg->record, commit) || pg->is_commit_dirty)
		return;
	pg->is_commit_dirty = true;
	cds_list_add_tail(&pg->commit_link, &shard->commit_dirty);
}

/* ---- completion ---- */

void append_applied(struct batch *batch)
{
	struct shard *shard = batch->shard;

	while (!cds_list_empty(&batch->appends)) {
		struct store_append *a =
			cds_list_first_entry(&batch->appends, struct store_append, link);
		cds_list_del(&a->link);
		if (a->flags & STORE_SYNC && a->lsn > shard->synced_ticket)
			cds_list_add_tail(&a->link, &shard->held_appends);
		else
			a->done(a, 0);
	}
}

/* The kernel may still read the payload: our reference keeps it from being used again. */
void append_abandon(struct batch *batch, int error)
{
	bool is_busy = batch->state == BATCH_WRITING;

	while (!cds_list_empty(&batch->appends)) {
		struct store_append *a =
			cds_list_first_entry(&batch->appends, struct store_append, link);
		cds_list_del(&a->link);
		for (uint32_t i = 0; is_busy && i < a->slice_count; i++)
			if (a->slices[i].buffer)
				(void)batch_hold(batch, buffer_get(a->slices[i].buffer));
		a->done(a, error);
	}
}
