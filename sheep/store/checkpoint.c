/*
 * Checkpoints: the index as it was at one moment, written while the shard goes on.
 *
 *   IDLE --due--> FLUSHING --> SAVING --> SYNCING --> SEALING --> IDLE
 *                 dirty pages  the table   the log    header, fsync
 *                 to the log
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
#include "sheep/store/checkpoint.h"

#define WRITES_MAX 4u

struct body_write {
	struct io io;
	struct checkpoint *checkpoint;
	struct buffer *buffer;
	struct iovec iov;
};

/*
 * Damage that was found while reading is written like a mark: a pusher that knew of it makes it good in
 * the log that follows. Unless entries are in flight: these were made without knowing.
 */
static unsigned flags_of(struct shard *shard, uint32_t pg, const struct object *object)
{
	struct object_key key = object_key_of(object);
	unsigned flags = object->flags & OBJECT_FLAGS;

	if (flags & OBJECT_DAMAGED && !overlay_find(&shard->overlay, pg, &key))
		flags ^= OBJECT_DAMAGED | OBJECT_MARKED;
	return flags | (object->flags & OBJECT_MARKED);
}

static void save_chunk(struct table_saver *saver, struct table *table, struct table_chunk *chunk);
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
	shard->saver.save = save_chunk;
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
	struct body_write *w, *next;

	if (!c)
		return;
	cds_list_for_each_entry_safe(w, next, &c->spare, io.link)
		free(w);
	for (uint32_t i = 0; has_loop && i < 2; i++)
		loop_file_close(shard->loop, c->files[i]);
	buffer_put(c->header);
	buffer_put(c->buffer);
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

/* ---- the body ---- */

static void on_body_written(struct io *io, int result)
{
	struct body_write *w = container_of_type(io, struct body_write, io);
	struct checkpoint *c = w->checkpoint;
	struct shard *shard = c->shard;

	c->writes--;
	buffer_put(w->buffer);
	cds_list_add(&w->io.link, &c->spare);
	if (shard_is_failed(shard))
		return;
	if (result < 0) {
		shard_fail(shard, result, "write a checkpoint");
		return;
	}
	checkpoint_step(shard);
}

static void forget_body_write(struct io *io)
{
	struct body_write *w = container_of_type(io, struct body_write, io);

	buffer_put(w->buffer);
	free(w);
}

/* Write the full (or last) buffer out. */
static int body_flush(struct checkpoint *c)
{
	struct shard *shard = c->shard;
	uint32_t size = (uint32_t)round_up(c->used, DISK_BLOCK);
	uint64_t offset = DISK_BLOCK + c->body_bytes;

	if (c->used == 0)
		return 0;
	c->body_crc = crc32c_extend(c->body_crc, c->buffer->data, c->used);
	memset(c->buffer->data + c->used, 0, size - c->used);
	c->body_bytes += c->used;
	c->used = 0;
	if (c->is_blocking)
		return loop_sync_write(shard->loop, c->files[c->area], c->buffer->data, size,
				       offset);

	struct body_write *w;

	if (cds_list_empty(&c->spare)) {
		w = calloc(1, sizeof(*w));
		if (!w)
			return -ENOMEM;
	} else {
		w = cds_list_first_entry(&c->spare, struct body_write, io.link);
		cds_list_del(&w->io.link);
	}
	w->io.done = on_body_written;
	w->io.forget = forget_body_write;
	w->checkpoint = c;
	w->buffer = c->buffer;
	w->iov = (struct iovec){w->buffer->data, size};
	c->buffer = NULL;
	c->writes++;
	io_write(shard, &w->io, c->files[c->area], &w->iov, 1, offset);
	return 0;
}

static void body_put(struct checkpoint *c, const void *data, uint32_t size)
{
	const uint8_t *from = data;

	while (size > 0 && c->error == 0) {
		if (!c->buffer) {
			c->buffer = buffer_new(loop_buffers(c->shard->loop), CHECKPOINT_CHUNK);
			if (!c->buffer) {
				c->error = -ENOMEM;
				return;
			}
		}
		uint32_t part = (uint32_t)min_of(size, CHECKPOINT_CHUNK - c->used);
		memcpy(c->buffer->data + c->used, from, part);
		c->used += part;
		from += part;
		size -= part;
		if (c->used == CHECKPOINT_CHUNK)
			c->error = body_flush(c);
	}
}

static struct disk_entry record_of(enum disk_record_kind kind, unsigned flags, uint32_t size)
{
	return (struct disk_entry){
		.kind = (uint8_t)kind, .flags = to_le16((uint16_t)flags), .size = to_le32(size)};
}

static void put_segments(struct checkpoint *c)
{
	for (uint32_t i = 0; i < c->shard->segment_count; i++) {
		const struct segment *s = &c->shard->segments[i];
		struct disk_record_segment r = {
			.entry = record_of(DISK_RECORD_SEGMENT, s->is_prepared, sizeof(r)),
			.segment = to_le32(i),
			.state = to_le32(s->state),
			.generation = to_le64(s->generation),
			.live_bytes = to_le64(s->live_bytes),
			.written_lsn = to_le64(s->written_lsn)};
		body_put(c, &r, sizeof(r));
	}
}

static void put_tail(struct checkpoint *c, uint32_t pg, const struct store_tail_entry *e)
{
	struct disk_record_tail r = {.entry = record_of(DISK_RECORD_TAIL, 0, sizeof(r)),
				     .pg = to_le32(pg),
				     .index = to_le32(e->key.index),
				     .layer = to_le64(e->key.layer),
				     .family = to_le64(e->family),
				     .reign = to_le64(e->version.reign),
				     .n = to_le64(e->version.n),
				     .previous_reign = to_le64(e->previous.reign),
				     .previous_n = to_le64(e->previous.n),
				     .session = to_le64(e->session),
				     .number = to_le64(e->number),
				     .run_count = to_le32(e->run_count)};

	for (uint32_t i = 0; i < e->run_count; i++) {
		r.runs[i].block = to_le16(e->runs[i].block);
		r.runs[i].count = to_le16(e->runs[i].count);
	}
	body_put(c, &r, sizeof(r));
}

static void put_session(struct checkpoint *c, uint32_t pg, const struct session_record *s)
{
	struct disk_record_session head = {.entry = record_of(DISK_RECORD_SESSION, 0, sizeof(head)),
					   .pg = to_le32(pg),
					   .session = to_le64(s->session),
					   .lowest = to_le64(s->lowest)};

	body_put(c, &head, sizeof(head));
	for (uint32_t i = 0; i < s->count; i++) {
		const struct request_slot *slot = &s->slots[s->head + i];
		if (slot->ticket > c->shard->applied_ticket)
			continue; /* replay will bring it */
		struct disk_record_request r = {
			.entry = record_of(DISK_RECORD_REQUEST, 0, sizeof(r)),
			.pg = to_le32(pg),
			.request = {.session = to_le64(s->session),
				    .number = to_le64(slot->number),
				    .reign = to_le64(slot->version.reign),
				    .n = to_le64(slot->version.n)}};
		body_put(c, &r, sizeof(r));
	}
}

/* What of a PG's record is in the log up to here. */
static void put_pg(struct checkpoint *c, const struct pg *pg)
{
	const struct pg_record *record = &pg->record;
	struct version commit = record->commit;

	if (record_is_empty(record))
		return;

	if (version_compare(commit, record->last_applied) > 0)
		commit = record->last_applied;

	struct disk_record_pg r = {.entry = record_of(DISK_RECORD_PG, 0, sizeof(r)),
				   .pg = to_le32(pg->id),
				   .last_reign = to_le64(record->last_applied.reign),
				   .last_n = to_le64(record->last_applied.n),
				   .commit_reign = to_le64(commit.reign),
				   .commit_n = to_le64(commit.n)};

	body_put(c, &r, sizeof(r));
	for (uint32_t i = 0; i < record->tail_count; i++) {
		const struct tail_slot *slot = &record->tail[record->tail_head + i];
		if (slot->ticket <= c->shard->applied_ticket)
			put_tail(c, pg->id, &slot->entry);
	}
	for (uint32_t i = 0; i < record->session_count; i++)
		put_session(c, pg->id, &record->sessions[i]);
}

/* Where a page is, or the page itself when the log does not have it as it is. */
static void put_slot(struct checkpoint *c, uint8_t number, uint64_t slot)
{
	const struct page *page = slot_is_page(slot) ? slot_page(slot) : NULL;
	uint8_t record[DISK_PAGE_RECORD_MAX];
	struct disk_record_slot r = {.page = number};
	uint64_t disk = page ? page->disk : slot;

	if (disk) {
		r.offset16 = (uint8_t)(slot_offset(disk) / 16);
		r.length16 = (uint8_t)(slot_length(disk) / 16);
		r.place = to_le32(slot_place(disk));
		r.check = to_le32(slot_check(disk));
	}
	if (!page || page->state != PAGE_DIRTY) {
		body_put(c, &r, sizeof(r));
		return;
	}

	uint32_t length = page_encode(page, record);

	/* The old record still counts as live bytes: its place is kept, too. */
	r.has_page = 1;
	body_put(c, &r, sizeof(r));
	body_put(c, record, length);
}

static uint32_t object_record_size(const struct object *object, uint32_t *slot_count)
{
	uint32_t size = sizeof(struct disk_record_object);
	uint8_t record[DISK_PAGE_RECORD_MAX];

	*slot_count = 0;
	for (uint32_t i = 0; object->slots && i < DISK_PAGES; i++) {
		uint64_t slot = object->slots[i];
		if (!slot)
			continue;
		(*slot_count)++;
		size += (uint32_t)sizeof(struct disk_record_slot);
		if (slot_is_page(slot) && slot_page(slot)->state == PAGE_DIRTY)
			size += page_encode(slot_page(slot), record);
	}
	return size;
}

static void save_chunk(struct table_saver *saver, struct table *table, struct table_chunk *chunk)
{
	struct shard *shard = container_of_type(saver, struct shard, saver);
	struct checkpoint *c = shard->checkpoint;

	if (c->state != CHECKPOINT_SAVING)
		return; /* the last snapshot is complete */
	for (uint32_t i = 0; i < chunk->count; i++) {
		const struct object *object = &chunk->objects[i];
		uint32_t slot_count;
		uint32_t size = object_record_size(object, &slot_count);
		struct disk_record_object r = {
			.entry = record_of(DISK_RECORD_OBJECT, flags_of(shard, table->pg, object),
					   size),
			.pg = to_le32(table->pg),
			.index = to_le32(object->index),
			.layer = to_le64(object->layer),
			.family = to_le64(object->family),
			.reign = to_le64(object->version.reign),
			.n = to_le64(object->version.n),
			.data_blocks = to_le16(object->data_blocks),
			.slot_count = to_le16((uint16_t)slot_count)};
		body_put(c, &r, sizeof(r));
		for (uint8_t j = 0; object->slots && j < DISK_PAGES; j++)
			if (object->slots[j])
				put_slot(c, j, object->slots[j]);
	}
}

/* ---- the steps ---- */

static const uint8_t next_of[CHECKPOINT_STATES] = {
	[CHECKPOINT_IDLE] = BIT(CHECKPOINT_FLUSHING) | BIT(CHECKPOINT_SAVING),
	[CHECKPOINT_FLUSHING] = BIT(CHECKPOINT_SAVING),
	[CHECKPOINT_SAVING] = BIT(CHECKPOINT_SYNCING),
	[CHECKPOINT_SYNCING] = BIT(CHECKPOINT_SEALING),
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
	return !shard->is_applying && shard->sets_in_flight == 0;
}

static void begin_saving(struct checkpoint *c)
{
	struct shard *shard = c->shard;
	struct pg *pg, *next;

	enter(c, CHECKPOINT_SAVING);
	c->making = c->durable + 1;
	c->area = (uint32_t)(c->making & 1);
	c->body_bytes = 0;
	c->body_crc = 0;
	c->used = 0;
	c->error = 0;
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
	put_segments(c);
	HASH_ITER(hh, shard->pgs, pg, next)
		put_pg(c, pg);
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
	struct disk_entry end = record_of(DISK_RECORD_END, 0, sizeof(end));

	body_put(c, &end, sizeof(end));
	if (c->error == 0)
		c->error = body_flush(c);
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
	shard->counters.checkpoints++;
	segment_release(shard, c->durable);
}

static void on_sealed(struct io *io, int result)
{
	struct checkpoint *c = container_of_type(io, struct checkpoint, seal);
	struct shard *shard = c->shard;

	if (shard_is_failed(shard))
		return;
	if (result < 0) {
		shard_fail(shard, result, "seal a checkpoint");
		return;
	}
	if (!c->is_header_written) {
		c->is_header_written = true;
		io_sync(shard, &c->seal, c->files[c->area]);
		return;
	}
	durable(c);
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

static void flush_pages(struct checkpoint *c)
{
	struct shard *shard = c->shard;

	while (c->flush_left > 0 && shard->cache.flushes < 2) {
		uint32_t count = cache_flush(shard);
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
		if (shard->synced_lsn >= c->lsn_end)
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

void checkpoint_kick(struct shard *shard, bool is_forced)
{
	struct checkpoint *c = shard->checkpoint;
	struct cache *cache = &shard->cache;

	if (is_forced)
		c->is_due = true;
	if (c->state == CHECKPOINT_IDLE &&
	    (c->is_due || c->log_bytes >= interval(shard) || is_space_due(shard))) {
		enter(c, CHECKPOINT_FLUSHING);
		c->flush_left = cache->dirty_count;
	} else if (c->state == CHECKPOINT_IDLE && cache->dirty_count > cache->pages_max / 2 &&
		   cache->flushes == 0) {
		(void)cache_flush(shard);
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
	if (rc < 0)
		return error_set(err, rc, "store '%s': write the checkpoint of shard %u",
				 shard->store->path, shard->number);
	durable(c);
	return 0;
}
