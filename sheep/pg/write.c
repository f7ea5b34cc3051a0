/*
 * Writes, zeroes and trims at the primary: recognised, made whole blocks, and numbered.
 *
 * All this happens under the lock of the blocks. A repeated request touches the same blocks, so
 * it gets the lock when the first one is committed, and then the store knows it (Q1).
 */
#include <string.h>

#include "lib/base/rule.h"
#include "sheep/pg/pg_priv.h"

/* Below this the members' credits are too old to be believed. */
#define SPACE_MARGIN (8 * MIB)
#define DEMANDS_MAX  3u

bool pg_lead_has_space(const struct pg_lead *lead, uint64_t bytes)
{
	uint64_t need = bytes + lead->pg->set->in_flight_bytes + SPACE_MARGIN;

	if (store_credit(pg_store_of(lead->pg), lead->id) < need)
		return false;
	for (uint32_t i = 0; i < lead->member_count; i++)
		if (lead->members[i]->kind != PG_MEMBER_MARKED && lead->members[i]->credit < need)
			return false;
	return true;
}

/* ---- what it touches ---- */

struct extent {
	uint32_t begin, end;		 /* blocks that it touches */
	uint32_t whole_begin, whole_end; /* of them, those that it covers whole */
	bool has_head, has_tail;	 /* parts of the first and of another last block */
};

static struct extent extent_of(const struct pg_io *io)
{
	uint32_t end = io->offset + io->length;
	struct extent extent = {
		.begin = io->offset / BLOCK_SIZE,
		.end = (uint32_t)div_up(end, BLOCK_SIZE),
		.whole_begin = (uint32_t)div_up(io->offset, BLOCK_SIZE),
		.whole_end = end / BLOCK_SIZE,
	};

	extent.has_head = io->offset % BLOCK_SIZE != 0;
	extent.has_tail =
		end % BLOCK_SIZE != 0 && !(extent.has_head && extent.end - extent.begin == 1);
	if (extent.whole_end < extent.whole_begin)
		extent.whole_end = extent.whole_begin;
	return extent;
}

/* Cleared blocks: absent where nothing is below them, else they must hide what is. */
static uint8_t cleared(const struct pg_io *io)
{
	return io->layer_count == 1 ? BLOCK_ABSENT : BLOCK_ZERO;
}

/* ---- the end ---- */

static void on_committed(struct pg_entry *entry, int result)
{
	struct pg_work *work = entry->owner;
	struct pg_set *set = work->set;
	struct pg_io *io = work->io; /* NULL: its client was sent back, and asks again */

	work->pending--;
	set->in_flight_bytes -= (uint64_t)entry->block_count * BLOCK_SIZE;
	if (work->lead && result == 0) {
		set->counters.writes++;
		if (io) {
			set->counters.write_bytes += io->kind == PG_IO_WRITE ? io->length : 0;
			io->loss_epoch = work->lead->pg->row.loss_epoch;
		}
	}
	if (work->lead)
		pg_work_end(work, result);
	else
		pg_work_put(work);
}

static void submit(struct pg_work *work, struct pg_entry *entry)
{
	const struct pg_io *io = work->io;
	struct pg_set *set = work->set;
	int rc;

	entry->append.key = work->key;
	entry->append.family = io->family;
	entry->append.session = io->session;
	entry->append.number = io->number;
	entry->append.lowest = io->lowest;
	entry->generation = io->generation;
	entry->committed = on_committed;
	entry->owner = work;
	entry->lock = &work->lock;
	if (io->flags & PG_IO_FUA)
		entry->flags |= PEER_ENTRY_SYNC;
	rc = pg_entry_submit(entry, false);
	if (rc < 0) {
		pg_entry_drop(entry);
		if (rc == -E_MISSING) {
			pg_work_heal(work);
			return;
		}
		if (rc == -ENOSPC)
			set->counters.no_space++;
		pg_work_end(work, rc == -E_STORE_FAILED ? -E_NOT_PRIMARY : rc);
		return;
	}
	set->in_flight_bytes += (uint64_t)entry->block_count * BLOCK_SIZE;
	work->has_entry = true;
	work->pending++;
}

/* ---- making it whole ---- */

/* The blocks at its ends that it covers in part: 1 when they have to be read first. */
static bool read_ends(struct pg_work *work, const struct extent *extent)
{
	if (work->is_merged || !(extent->has_head || extent->has_tail))
		return false;
	work->set->counters.merges++;
	/* Both reads are counted before one can end: neither completes inside the call. */
	if (extent->has_head)
		pg_work_read(work, 0, extent->begin, 1);
	if (extent->has_tail)
		pg_work_read(work, 1, extent->end - 1, 1);
	return true;
}

static void put_block(uint8_t *out, const struct store_read *read)
{
	if (read->is_all_hole || !read->data.buffer)
		memset(out, 0, BLOCK_SIZE);
	else
		memcpy(out, read->data.data, BLOCK_SIZE);
}

static void copy_payload(uint8_t *out, const struct pg_io *io)
{
	for (uint32_t i = 0; i < io->slice_count; i++) {
		memcpy(out, io->slices[i].data, io->slices[i].size);
		out += io->slices[i].size;
	}
}

static int data_whole(struct pg_work *work, struct pg_entry *entry, const struct extent *extent)
{
	const struct pg_io *io = work->io;
	const struct store_run run = {
		.block = (uint16_t)extent->begin,
		.count = (uint16_t)(extent->end - extent->begin),
		.state = BLOCK_DATA,
	};
	struct buffer *buffer;
	struct slice slice;
	int rc = pg_entry_runs(entry, &run, 1);

	if (rc < 0)
		return rc;
	if (!extent->has_head && !extent->has_tail)
		return pg_entry_data(entry, io->slices, io->slice_count, NULL);
	buffer = buffer_new(work->set->arena.buffers, run.count * BLOCK_SIZE);
	if (!buffer)
		return -ENOMEM;
	slice = slice_of(buffer, 0, run.count * BLOCK_SIZE);
	if (extent->has_head)
		put_block(slice.data, &work->reads[0]);
	if (extent->has_tail)
		put_block(slice.data + (run.count - 1) * BLOCK_SIZE, &work->reads[1]);
	copy_payload(slice.data + io->offset % BLOCK_SIZE, io);
	rc = pg_entry_data(entry, &slice, 1, NULL);
	buffer_put(buffer);
	return rc;
}

/* One end of a zeroed range: what stays of its block. Returns the state the block gets. */
static uint8_t zero_part(const struct pg_work *work, const struct store_read *read, uint32_t block,
			 uint8_t *out)
{
	const struct pg_io *io = work->io;
	uint32_t at = block * BLOCK_SIZE;
	uint32_t from = max_of(io->offset, at);
	uint32_t to = min_of(io->offset + io->length, at + BLOCK_SIZE);

	if (read->is_all_hole || !read->data.buffer)
		return cleared(io);
	memcpy(out, read->data.data, BLOCK_SIZE);
	memset(out + (from - at), 0, to - from);
	return BLOCK_DATA;
}

static int zero_whole(struct pg_work *work, struct pg_entry *entry, const struct extent *extent)
{
	struct buffer *buffer = buffer_new(work->set->arena.buffers, 2 * BLOCK_SIZE);
	struct store_run runs[3];
	uint32_t count = 0, used = 0;
	int rc;

	if (!buffer)
		return -ENOMEM;
	if (extent->has_head) {
		uint8_t state = zero_part(work, &work->reads[0], extent->begin, buffer->data);
		runs[count++] = (struct store_run){
			.block = (uint16_t)extent->begin, .count = 1, .state = state};
		used += state == BLOCK_DATA;
	}
	if (extent->whole_end > extent->whole_begin)
		runs[count++] = (struct store_run){
			.block = (uint16_t)extent->whole_begin,
			.count = (uint16_t)(extent->whole_end - extent->whole_begin),
			.state = cleared(work->io),
		};
	if (extent->has_tail) {
		uint8_t state = zero_part(work, &work->reads[1], extent->end - 1,
					  buffer->data + used * BLOCK_SIZE);
		runs[count++] = (struct store_run){
			.block = (uint16_t)(extent->end - 1), .count = 1, .state = state};
		used += state == BLOCK_DATA;
	}
	rc = pg_entry_runs(entry, runs, count);
	if (rc == 0 && used > 0) {
		struct slice slice = slice_of(buffer, 0, used * BLOCK_SIZE);
		rc = pg_entry_data(entry, &slice, 1, NULL);
	}
	buffer_put(buffer);
	return rc;
}

static int trim_whole(struct pg_work *work, struct pg_entry *entry, const struct extent *extent)
{
	const struct store_run run = {
		.block = (uint16_t)extent->whole_begin,
		.count = (uint16_t)(extent->whole_end - extent->whole_begin),
		.state = cleared(work->io),
	};

	return pg_entry_runs(entry, &run, 1);
}

static bool is_all_cleared(const struct pg_io *io, const struct extent *extent)
{
	return io->kind != PG_IO_WRITE && io->layer_count == 1 &&
	       extent->whole_end - extent->whole_begin == OBJECT_BLOCKS;
}

static int build(struct pg_work *work, struct pg_entry *entry, const struct extent *extent)
{
	if (is_all_cleared(work->io, extent)) {
		entry->flags |= PEER_ENTRY_DELETE;
		return pg_entry_runs(entry, NULL, 0);
	}
	switch (work->io->kind) {
	case PG_IO_WRITE:
		return data_whole(work, entry, extent);
	case PG_IO_ZERO:
		return zero_whole(work, entry, extent);
	case PG_IO_TRIM:
		return trim_whole(work, entry, extent);
	case PG_IO_READ:
		break;
	}
	return -EINVAL;
}

/* ---- judging it ---- */

static bool is_duplicate(const struct pg_work *work, struct version *out)
{
	return RULE(Q1_EXECUTED) && work->io->session &&
	       store_request_find(pg_store_of(work->lead->pg), work->lead->id, work->io->session,
				  work->io->number, out) > 0;
}

/*
 * It has its number, and with FUA it is synced, too: the entry of our reign has given its lock back, so it
 * is by everybody. Of an older reign nobody knows.
 */
static bool is_synced(const struct pg_work *work, struct version version)
{
	return !(work->io->flags & PG_IO_FUA) || !RULE(F1_FUA) ||
	       version.reign == work->lead->reign;
}

bool pg_write_end_early(struct pg_work *work)
{
	struct version version;

	if (!is_duplicate(work, &version) || !is_synced(work, version))
		return false;
	work->set->counters.duplicates++;
	pg_work_answer(work);
	return true;
}

/* Only volumes of the map get new objects: what comes late for a deleted one would stay. */
static bool may_create(const struct pg_work *work)
{
	const struct cluster_volume *volume = cluster_volume(work->set->map, work->io->volume);

	return volume && volume->family == work->io->family &&
	       cluster_layer_is_live(work->set->map, work->key.layer);
}

/* Members in sync that have lost it get it first: an entry on top of nothing they could not apply. */
static bool is_filled_first(struct pg_work *work)
{
	struct pg_lead *lead = work->lead;
	bool any = false;

	if (work->demands == DEMANDS_MAX)
		return false;
	for (uint32_t i = 0; i < lead->member_count; i++)
		if (lead->members[i]->kind == PG_MEMBER_ISR)
			any |= pg_filler_demand(lead->members[i]->filler, &work->key);
	if (!any)
		return false;
	/* The push waits for our lock; now we wait for its. */
	work->demands++;
	pg_work_forget_reads(work);
	pg_lock_release(&work->set->locks, &work->lock);
	pg_work_start(work);
	return true;
}

/*
 * It is as it should be, and with FUA that is to be so after a power loss, too. What made it so may be
 * synced nowhere: an older write, or a settled one. An entry behind that, which changes nothing
 * and is synced by all, says when. It has the number of the request: who asks once more finds it.
 */
static void answer_unchanged(struct pg_work *work, bool exists)
{
	struct pg_entry *entry;
	int rc;

	if (!(work->io->flags & PG_IO_FUA) || !RULE(F1_FUA)) {
		pg_work_answer(work);
		return;
	}
	entry = pg_entry_new(work->lead);
	if (!entry) {
		pg_work_starve(work);
		return;
	}
	if (!exists)
		entry->flags |= PEER_ENTRY_DELETE;
	rc = pg_entry_runs(entry, NULL, 0);
	if (rc < 0) {
		pg_entry_drop(entry);
		pg_work_end(work, rc);
		return;
	}
	submit(work, entry);
}

/* What needs no entry, or cannot have one: true when the work is over, or waits. */
static bool is_settled_early(struct pg_work *work, const struct extent *extent)
{
	struct pg_io *io = work->io;
	struct store_object object;
	struct version version;
	bool exists;

	if (pg_write_end_early(work))
		return true;
	exists = store_object(pg_store_of(work->lead->pg), work->lead->id, &work->key, &object) > 0;
	if (exists && object.is_missing) {
		pg_work_heal(work);
		return true;
	}
	if (is_filled_first(work))
		return true;
	if (is_duplicate(work, &version)) {
		answer_unchanged(work, exists);
		return true;
	}
	if (io->kind == PG_IO_TRIM && extent->whole_end == extent->whole_begin) {
		pg_work_answer(work);
		return true;
	}
	if (io->kind != PG_IO_WRITE && io->layer_count == 1 && !exists) {
		answer_unchanged(work, exists); /* it reads as zeroes already */
		return true;
	}
	if (!exists && !may_create(work)) {
		pg_work_end(work, -E_NOT_FOUND);
		return true;
	}
	/* An object of zeroes that hide what is below them takes little, but not nothing. */
	if ((io->kind == PG_IO_WRITE || !exists) &&
	    !pg_lead_has_space(work->lead,
			       io->kind == PG_IO_WRITE ? (uint64_t)work->count * BLOCK_SIZE : 0)) {
		work->set->counters.no_space++;
		pg_work_end(work, -ENOSPC);
		return true;
	}
	return false;
}

void pg_write_go(struct pg_work *work)
{
	struct extent extent = extent_of(work->io);
	struct pg_entry *entry;
	int rc = pg_judge_owner(work->set, work->io);

	if (rc < 0) { /* the volume has moved while this waited */
		pg_work_end(work, rc);
		return;
	}
	if (is_settled_early(work, &extent))
		return;
	if (work->io->kind != PG_IO_TRIM && read_ends(work, &extent))
		return;
	entry = pg_entry_new(work->lead);
	if (!entry) {
		pg_work_starve(work);
		return;
	}
	rc = build(work, entry, &extent);
	if (rc < 0) {
		pg_entry_drop(entry);
		pg_work_end(work, rc);
		return;
	}
	submit(work, entry);
}
