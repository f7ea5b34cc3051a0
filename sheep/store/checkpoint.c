/*
 * Checkpoints: the index as it was at one moment, written while the shard goes on.
 *
 *   IDLE --due--> FLUSHING --> SAVING --> SYNCING --> SEALING --> IDLE
 *                 dirty pages  the table   the log    header, fsync
 *                 to the log
 *
 * From SAVING on one that gets ENOSPC goes back to IDLE, and is made again later, under the same number.
 *
 * The moment is the step from FLUSHING to SAVING: segments and PG records are written at
 * once, the chunks of the object tables one by one, and a chunk that is about to change is written first
 * (table_touch()). Pages that are dirty then go into the checkpoint itself. So what is read back is
 * exactly the state after the last batch applied at that moment, and replay starts behind it.
 *
 * The header is written last and carries the checksum of the body; it names a synced LSN that
 * covers every page record the body points to. The two files are used in turn.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/bytes.h"
#include "lib/base/crc32c.h"
#include "lib/base/log.h"
#include "lib/base/rule.h"
#include "sheep/store/checkpoint.h"

#define WRITES_MAX 4u /* of the body, in flight, before going on with the tables */
#define RETRY_NS   NS_PER_S

static void on_sealed(struct io *io, int result);

int checkpoint_new(struct shard *shard, struct error *err)
{
	struct checkpoint *c = calloc(1, sizeof(*c));
	unsigned flags = LOOP_FILE_READ | LOOP_FILE_WRITE | LOOP_FILE_DIRECT | LOOP_FILE_CREATE;

	if (!c)
		return error_set(err, -ENOMEM, "checkpoint");
	shard->checkpoint = c;
	c->shard = shard;
	c->seal.done = on_sealed;
	CDS_INIT_LIST_HEAD(&c->spare);
	shard->saver.save = body_save_chunk;
	c->header = buffer_new(loop_buffers(shard->loop), DISK_BLOCK);
	if (!c->header)
		return error_set(err, -ENOMEM, "checkpoint");
	for (uint32_t i = 0; i < 2; i++) {
		char path[PATH_ROOM + 64];
		store_file_name(shard->store, path, "checkpoint", shard->number, i);
		int rc = loop_sync_open(shard->loop, path, flags, &c->files[i], err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

void checkpoint_free(struct shard *shard, bool has_loop)
{
	struct checkpoint *c = shard->checkpoint;

	if (!c)
		return;
	body_free(c);
	for (uint32_t i = 0; has_loop && i < 2; i++)
		loop_file_close(shard->loop, c->files[i]);
	buffer_put(c->header);
	free(c);
	shard->checkpoint = NULL;
}

bool checkpoint_is_idle(const struct shard *shard)
{
	return shard->checkpoint->state == CHECKPOINT_IDLE;
}

bool checkpoint_is_due(const struct shard *shard)
{
	return shard->checkpoint->is_due;
}

uint64_t checkpoint_durable(const struct shard *shard)
{
	return shard->checkpoint->durable;
}

void checkpoint_log_grew(struct shard *shard, uint32_t bytes)
{
	shard->checkpoint->log_bytes += bytes;
}

/* ---- the steps ---- */

static const uint8_t next_of[CHECKPOINT_STATES] = {
	[CHECKPOINT_IDLE] = BIT(CHECKPOINT_FLUSHING) | BIT(CHECKPOINT_SAVING),
	[CHECKPOINT_FLUSHING] = BIT(CHECKPOINT_SAVING),
	[CHECKPOINT_SAVING] = BIT(CHECKPOINT_SYNCING) | BIT(CHECKPOINT_IDLE),
	[CHECKPOINT_SYNCING] = BIT(CHECKPOINT_SEALING) | BIT(CHECKPOINT_IDLE),
	[CHECKPOINT_SEALING] = BIT(CHECKPOINT_IDLE),
};

static void enter(struct checkpoint *c, enum checkpoint_state next)
{
	assert(next_of[c->state] & BIT(next));
	c->state = next;
}

/* The moment: nothing of a batch is half applied, and no set of requests is half replaced. */
static bool can_save(const struct shard *shard)
{
	return !shard->is_applying && shard->sets_in_flight == 0 && !preparer_makes_room(shard);
}

static void begin_saving(struct checkpoint *c)
{
	struct shard *shard = c->shard;

	enter(c, CHECKPOINT_SAVING);
	c->making = c->durable + 1;
	c->area = (uint32_t)(c->making & 1);
	c->room_before = c->room[c->area];
	body_begin(c);
	c->log_bytes = 0;
	c->is_due = false;
	c->is_all_saved = false;
	c->position = (struct log_position){.segment = shard->current,
					    .block = shard->block,
					    .next_segment = shard->next,
					    .generation = shard->generation,
					    .lsn = shard->next_lsn};
	if (!cds_list_empty(&shard->inflight)) {
		const struct batch *first =
			cds_list_first_entry(&shard->inflight, struct batch, link);
		c->position = (struct log_position){.segment = first->header.segment,
						    .block = first->header.block,
						    .next_segment = first->header.next_segment,
						    .generation = first->header.generation,
						    .lsn = first->header.lsn};
	}
	segment_mark_empty(shard, c->making, c->position.generation);
	body_put_shard(c);
	shard->saver.sequence++;
	c->pg = 0;
	c->has_after = false;
}

/* Save the next chunk that is not saved yet. False when there is none. */
static bool save_next(struct checkpoint *c)
{
	struct shard *shard = c->shard;
	uint32_t id;

	while (shard_pg_next(shard, c->pg, &id)) {
		struct pg *pg = shard_pg(shard, id);
		if (id != c->pg)
			c->has_after = false;
		c->pg = id;
		struct object_key after = c->after;
		struct object *object = table_next(&pg->table, c->has_after ? &after : NULL);
		if (object) {
			struct table_chunk *chunk;
			struct object_key key = object_key_of(object);
			(void)table_find(&pg->table, &key, &chunk);
			table_touch(&pg->table, chunk);
			c->after = object_key_of(&chunk->objects[chunk->count - 1]);
			c->has_after = true;
			return true;
		}
		if (c->pg == UINT32_MAX)
			return false;
		c->pg++;
		c->has_after = false;
	}
	return false;
}

static void end_saving(struct checkpoint *c)
{
	body_end(c);
	c->lsn_end = c->shard->next_lsn - 1;
	enter(c, CHECKPOINT_SYNCING);
}

static void fill_header(struct checkpoint *c)
{
	struct shard *shard = c->shard;
	struct disk_checkpoint head = {.magic = to_le32(DISK_CHECK_MAGIC),
				       .shard = to_le32(shard->number),
				       .format = to_le32(DISK_FORMAT),
				       .sequence = to_le64(c->making),
				       .life = to_le64(shard->store->life),
				       .body_bytes = to_le64(c->body_bytes),
				       .body_crc = to_le32(c->body_crc),
				       .segment = to_le32(c->position.segment),
				       .block = to_le32(c->position.block),
				       .next_segment = to_le32(c->position.next_segment),
				       .generation = to_le64(c->position.generation),
				       .lsn = to_le64(c->position.lsn),
				       .synced_lsn = to_le64(c->lsn_end)};

	memcpy(head.store, shard->store->identity.uuid.bytes, sizeof(head.store));
	head.crc = to_le32(crc32c(&head, sizeof(head)));
	memset(c->header->data, 0, DISK_BLOCK);
	memcpy(c->header->data, &head, sizeof(head));
}

static void durable(struct checkpoint *c)
{
	struct shard *shard = c->shard;

	enter(c, CHECKPOINT_IDLE);
	c->durable = c->making;
	c->last_bytes = c->body_bytes;
	if (c->retry_ns)
		log_info("store '%s': shard %u: there was room for checkpoint %llu",
			 shard->store->path, shard->number, (unsigned long long)c->durable);
	c->retry_ns = 0;
	shard->counters.checkpoints++;
	segment_release(shard, c->durable);
}

/*
 * The file system has no room for it. What was empty at its moment is so at the next one's: those segments are
 * freed by that. Its file held an older checkpoint than the newest, and is written from the start.
 */
static void put_off(struct checkpoint *c)
{
	struct shard *shard = c->shard;

	enter(c, CHECKPOINT_IDLE);
	if (!c->retry_ns)
		log_warning("store '%s': shard %u: no room for a checkpoint of %llu KiB and more: "
			    "put off",
			    shard->store->path, shard->number,
			    (unsigned long long)((DISK_BLOCK + c->body_bytes) / KIB));
	c->room[c->area] = c->room_before;
	c->error = 0;
	c->is_due = true;
	c->retry_ns = loop_now(shard->loop) + RETRY_NS;
	preparer_kick(shard); /* it stays away from the files meanwhile */
}

bool checkpoint_is_put_off(const struct shard *shard)
{
	return shard->checkpoint->retry_ns != 0;
}

static void on_sealed(struct io *io, int result)
{
	struct checkpoint *c = container_of_type(io, struct checkpoint, seal);
	struct shard *shard = c->shard;

	if (shard_is_failed(shard))
		return;
	if (is_no_room(result)) {
		put_off(c);
		log_kick(shard);
		shard_check_stop(shard);
		return;
	}
	if (result < 0) {
		shard_fail(shard, result, "seal a checkpoint");
		return;
	}
	if (!c->is_header_written) {
		c->is_header_written = true;
		SIM_POINT(CHECKPOINT_WRITTEN);
		io_sync(shard, &c->seal, c->files[c->area]);
		return;
	}
	durable(c);
	preparer_kick(shard); /* it stays away from the files meanwhile */
	log_kick(shard);
	shard_check_stop(shard);
}

static void seal(struct checkpoint *c)
{
	enter(c, CHECKPOINT_SEALING);
	fill_header(c);
	c->is_header_written = false;
	c->iov = (struct iovec){c->header->data, DISK_BLOCK};
	io_write(c->shard, &c->seal, c->files[c->area], &c->iov, 1, 0);
}

/*
 * When free segments are few a flush would cost more of them than the checkpoint frees: pages go
 * into the body then, but for those whose record keeps a cleaned segment alive. Unless there was no room
 * for such a body.
 */
static enum cache_flush_kind flush_kind(const struct shard *shard)
{
	bool is_short = segment_available(shard) <= shard->reserve;

	return is_short && !checkpoint_is_put_off(shard) ? FLUSH_CLEANED : FLUSH_ALL;
}

static void flush_pages(struct checkpoint *c)
{
	struct shard *shard = c->shard;

	/* One at a time: of two, the first could call clean what only the second has. */
	while (c->flush_left > 0 && shard->cache.flushes < 1) {
		uint32_t count = cache_flush(shard, flush_kind(shard));
		c->flush_left -= min_of(c->flush_left, count);
		if (count == 0)
			c->flush_left = 0;
	}
}

void checkpoint_step(struct shard *shard)
{
	struct checkpoint *c = shard->checkpoint;

	if (shard_is_failed(shard) || !c)
		return;
	if (c->state == CHECKPOINT_FLUSHING) {
		/* Without a free segment pages cannot go to the log: they go into the body. */
		bool is_stalled = log_is_stalled(shard);
		if (!is_stalled)
			flush_pages(c);
		if (((c->flush_left == 0 && shard->cache.flushes == 0) || is_stalled) &&
		    can_save(shard))
			begin_saving(c);
	}
	if (is_no_room(c->error)) {
		if (c->writes > 0)
			return;
		put_off(c);
		log_kick(shard);
		shard_check_stop(shard);
		return;
	}
	if (c->state == CHECKPOINT_SAVING) {
		while (c->writes < WRITES_MAX && c->error == 0 && !c->is_all_saved)
			c->is_all_saved = !save_next(c);
		if (c->is_all_saved && c->error == 0)
			end_saving(c);
		if (c->error < 0) {
			shard_fail(shard, c->error, "make a checkpoint");
			return;
		}
	}
	if (c->state == CHECKPOINT_SYNCING && c->writes == 0) {
		if (!RULE(D2_CHECKPOINT_SYNCS) || shard->synced_lsn >= c->lsn_end)
			seal(c);
		else if (shard->written_lsn >= c->lsn_end)
			log_wait_sync(shard);
	}
}

/* ---- when ---- */

/* How much log a restart may have to read: a few segments, and not less than what a checkpoint costs. */
static uint64_t interval(const struct shard *shard)
{
	uint64_t segment = shard->store->segment_bytes;
	uint64_t log = max_of(4 * segment, min_of(128 * MIB, shard->usable_bytes / 16));

	return max_of(log, 8 * shard->checkpoint->last_bytes);
}

/* Does space wait for a checkpoint? */
static bool is_space_due(const struct shard *shard)
{
	uint32_t waiting = shard->dead_count + shard->cleaned_count;
	uint32_t available = segment_available(shard);

	if (waiting == 0)
		return false;
	if (shard->has_cleaning_need || available <= shard->reserve)
		return true;
	return available < shard->watermark && waiting >= max_of(2u, shard->watermark / 4);
}

/* Half of the cache, but never more than half a segment takes: a checkpoint must find room for them. */
uint32_t checkpoint_dirty_max(const struct shard *shard)
{
	return min_of(shard->cache.pages_max, shard->store->segment_bytes / PAGE_CHARGE) / 2;
}

void checkpoint_kick(struct shard *shard, bool is_forced)
{
	struct checkpoint *c = shard->checkpoint;
	struct cache *cache = &shard->cache;

	if (is_forced)
		c->is_due = true;
	if (c->state == CHECKPOINT_IDLE && loop_now(shard->loop) < c->retry_ns) {
		if (!loop_timer_is_armed(&shard->tick) && shard->state == SHARD_RUNNING)
			loop_timer_start(shard->loop, &shard->tick, c->retry_ns);
		return;
	}
	if (c->state == CHECKPOINT_IDLE &&
	    (c->is_due || c->log_bytes >= interval(shard) || is_space_due(shard))) {
		enter(c, CHECKPOINT_FLUSHING);
		c->flush_left = cache->dirty_count;
	} else if (c->state == CHECKPOINT_IDLE &&
		   cache->dirty_count > checkpoint_dirty_max(shard) && cache->flushes == 0 &&
		   flush_kind(shard) == FLUSH_ALL) {
		(void)cache_flush(shard, FLUSH_ALL);
	}
	checkpoint_step(shard);
}

int checkpoint_write_now(struct shard *shard, struct error *err)
{
	struct checkpoint *c = shard->checkpoint;
	int rc;

	c->is_blocking = true;
	begin_saving(c);
	while (c->error == 0 && save_next(c))
		;
	end_saving(c);
	rc = c->error;
	enter(c, CHECKPOINT_SEALING);
	fill_header(c);
	if (rc == 0)
		rc = loop_sync_write(shard->loop, c->files[c->area], c->header->data, DISK_BLOCK,
				     0);
	if (rc >= 0)
		rc = loop_sync_fsync(shard->loop, c->files[c->area]);
	c->is_blocking = false;
	if (is_no_room(rc))
		put_off(c);
	if (rc < 0)
		return error_set(err, rc, "store '%s': write the checkpoint of shard %u",
				 shard->store->path, shard->number);
	durable(c);
	return 0;
}
