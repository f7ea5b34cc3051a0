/*
 * The body of a checkpoint: a stream of records, cut into buffers that are written as they fill up, with
 * a running checksum. What is put here is the state of one moment; checkpoint.c sees to that.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/crc32c.h"
#include "lib/base/rule.h"
#include "sheep/store/checkpoint.h"

struct body_write {
	struct io io;
	struct checkpoint *checkpoint;
	struct buffer *buffer;
	struct iovec iov;
};

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
	if (result < 0 && !is_no_room(result)) {
		shard_fail(shard, result, "write a checkpoint");
		return;
	}
	if (result < 0)
		c->error = result; /* put off when all writes are back */
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
	room_made(shard, c->area, offset + size);
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
		if (!record_covers(slot, c->shard->applied_ticket))
			continue; /* replay will bring it, or it was taken away */
		struct disk_record_request r = {
			.entry = record_of(DISK_RECORD_REQUEST, 0, sizeof(r)),
			.pg = to_le32(pg),
			.request = {.session = to_le64(s->session),
				    .number = to_le64(slot->number),
				    .reign = to_le64(slot->version.reign),
				    .n = to_le64(slot->version.n),
				    .layer = to_le64(slot->key.layer),
				    .index = to_le32(slot->key.index)}};
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
		if (RULE(T2_TAIL_KEPT) && slot->ticket <= c->shard->applied_ticket)
			put_tail(c, pg->id, &slot->entry);
	}
	for (uint32_t i = 0; i < record->session_count; i++)
		put_session(c, pg->id, &record->sessions[i]);
}

/* Must the page itself be written: the log does not have it as it is? */
static bool is_enclosed(uint64_t slot)
{
	return slot_is_page(slot) && slot_page(slot)->state == PAGE_DIRTY;
}

/* Where a page is, and the page itself where that is needed. The old record counts as live bytes: its place
 * is kept, too. */
static void put_slot(struct checkpoint *c, uint64_t slot)
{
	uint64_t disk = slot_is_page(slot) ? slot_page(slot)->disk : slot;
	uint8_t record[DISK_PAGE_RECORD_MAX];
	struct disk_record_slot r = {.place = to_le32(0)};

	if (disk)
		r = (struct disk_record_slot){.place = to_le32(slot_place(disk)),
					      .offset16 = (uint8_t)(slot_offset(disk) / 16),
					      .length16 = (uint8_t)(slot_length(disk) / 16),
					      .check = to_le16((uint16_t)slot_check(disk))};
	body_put(c, &r, sizeof(r));
	if (is_enclosed(slot))
		body_put(c, record, page_encode(slot_page(slot), record));
}

/* Which pages the object has, and which of them go with it. Returns the size of it all. */
static uint32_t measure(const struct object *object, uint16_t *pages, uint16_t *enclosed)
{
	uint32_t size = sizeof(struct disk_record_object);
	uint8_t record[DISK_PAGE_RECORD_MAX];

	*pages = *enclosed = 0;
	for (uint32_t i = 0; object->slots && i < DISK_PAGES; i++) {
		uint64_t slot = object->slots[i];
		if (!slot)
			continue;
		*pages |= (uint16_t)BIT(i);
		size += (uint32_t)sizeof(struct disk_record_slot);
		if (!is_enclosed(slot))
			continue;
		*enclosed |= (uint16_t)BIT(i);
		size += page_encode(slot_page(slot), record);
	}
	return size;
}

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

void body_save_chunk(struct table_saver *saver, struct table *table, struct table_chunk *chunk)
{
	struct shard *shard = container_of_type(saver, struct shard, saver);
	struct checkpoint *c = shard->checkpoint;

	if (c->state != CHECKPOINT_SAVING)
		return; /* the last snapshot is complete */
	for (uint32_t i = 0; i < chunk->count; i++) {
		const struct object *object = &chunk->objects[i];
		uint16_t pages, enclosed;
		uint32_t size = measure(object, &pages, &enclosed);
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
			.lost_blocks = to_le16(object->lost_blocks),
			.pages = to_le16(pages),
			.enclosed = to_le16(enclosed)};
		body_put(c, &r, sizeof(r));
		for (uint8_t j = 0; object->slots && j < DISK_PAGES; j++)
			if (object->slots[j])
				put_slot(c, object->slots[j]);
	}
}

void body_begin(struct checkpoint *c)
{
	c->body_bytes = 0;
	c->body_crc = 0;
	c->used = 0;
	c->error = 0;
}

void body_put_shard(struct checkpoint *c)
{
	struct pg *pg, *next;

	put_segments(c);
	HASH_ITER(hh, c->shard->pgs, pg, next)
		put_pg(c, pg);
	c->shard_bytes = c->body_bytes + c->used;
}

void body_end(struct checkpoint *c)
{
	struct disk_entry end = record_of(DISK_RECORD_END, 0, sizeof(end));

	body_put(c, &end, sizeof(end));
	if (c->error == 0)
		c->error = body_flush(c);
}

void body_free(struct checkpoint *c)
{
	struct body_write *w, *next;

	cds_list_for_each_entry_safe(w, next, &c->spare, io.link)
		free(w);
	buffer_put(c->buffer);
}
