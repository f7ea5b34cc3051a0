/*
 * Reading a checkpoint back. The newer of the two valid ones counts; every record is checked before
 * it is used, and a body that its header's checksum does not cover is no checkpoint.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/bytes.h"
#include "lib/base/crc32c.h"
#include "lib/base/log.h"
#include "sheep/store/checkpoint.h"

struct candidate {
	struct disk_checkpoint head;
	uint8_t *body; /* malloc */
	uint64_t body_bytes;
	uint32_t area;
};

static bool head_is_sane(const struct shard *shard, const struct disk_checkpoint *from)
{
	struct disk_checkpoint head = *from;
	uint32_t crc = from_le32(head.crc);

	head.crc = to_le32(0);
	return from_le32(head.magic) == DISK_CHECK_MAGIC && crc32c(&head, sizeof(head)) == crc &&
	       memcmp(head.store, shard->store->identity.uuid.bytes, sizeof(head.store)) == 0 &&
	       from_le32(head.shard) == shard->number && from_le32(head.format) == DISK_FORMAT &&
	       from_le32(head.segment) < shard->segment_count &&
	       from_le32(head.next_segment) < shard->segment_count &&
	       from_le32(head.block) <= shard->segment_blocks;
}

/* 1 and the candidate, 0 when the file holds no valid checkpoint, or an error. */
static int read_area(struct shard *shard, uint32_t area, struct candidate *out, struct error *err)
{
	struct loop_file *file = shard->checkpoint->files[area];
	uint8_t *block = shard->checkpoint->header->data;
	int64_t got = loop_sync_read(shard->loop, file, block, DISK_BLOCK, 0);
	int64_t size = loop_sync_size(shard->loop, file);

	*out = (struct candidate){.area = area};
	if (got != DISK_BLOCK || size < DISK_BLOCK)
		return 0;
	memcpy(&out->head, block, sizeof(out->head));
	out->body_bytes = from_le64(out->head.body_bytes);
	if (!head_is_sane(shard, &out->head) || out->body_bytes > (uint64_t)size - DISK_BLOCK)
		return 0;

	uint64_t room = round_up(out->body_bytes, DISK_BLOCK);

	out->body = aligned_alloc(DISK_BLOCK, max_of(room, (uint64_t)DISK_BLOCK));
	if (!out->body)
		return error_set(err, -ENOMEM, "a checkpoint of %llu bytes",
				 (unsigned long long)out->body_bytes);
	got = loop_sync_read(shard->loop, file, out->body, room, DISK_BLOCK);
	if (got < (int64_t)out->body_bytes ||
	    crc32c(out->body, out->body_bytes) != from_le32(out->head.body_crc)) {
		free(out->body);
		out->body = NULL;
		return 0;
	}
	return 1;
}

/* ---- records ---- */

struct restore {
	struct shard *shard;
	struct error *err;
};

static int load_segment(struct restore *restore, const void *at, uint32_t size)
{
	const struct disk_record_segment *r = at;
	struct shard *shard = restore->shard;
	uint32_t number = from_le32(r->segment), state = from_le32(r->state);
	bool is_prepared = from_le16(r->entry.flags) & 1;

	if (number >= shard->segment_count || state >= SEGMENT_STATES)
		return -E_CORRUPT;

	struct segment *segment = &shard->segments[number];

	/* What was empty needed this checkpoint; zeroes that were half written are written again. */
	if (state == SEGMENT_EMPTY)
		state = SEGMENT_FREE;
	if (state == SEGMENT_PREPARING || !is_prepared)
		state = SEGMENT_RAW;
	shard->state_counts[segment->state]--;
	shard->state_counts[state]++;
	segment->state = (uint8_t)state;
	segment->is_prepared = is_prepared;
	segment->generation = from_le64(r->generation);
	segment->live_bytes = from_le64(r->live_bytes);
	segment->written_lsn = from_le64(r->written_lsn);
	shard->live_bytes += segment->live_bytes;
	return 0;
}

static struct version version_of(le64 reign, le64 n)
{
	return (struct version){.reign = from_le64(reign), .n = from_le64(n)};
}

static int load_pg(struct restore *restore, const void *at, uint32_t size)
{
	const struct disk_record_pg *r = at;
	struct pg *pg = shard_pg_make(restore->shard, from_le32(r->pg));

	if (!pg)
		return -ENOMEM;
	pg->record.last = pg->record.last_applied = version_of(r->last_reign, r->last_n);
	pg->record.commit = version_of(r->commit_reign, r->commit_n);
	return 0;
}

static int load_tail(struct restore *restore, const void *at, uint32_t size)
{
	const struct disk_record_tail *r = at;
	struct pg *pg = shard_pg_make(restore->shard, from_le32(r->pg));
	struct store_tail_entry e = {
		.version = version_of(r->reign, r->n),
		.previous = version_of(r->previous_reign, r->previous_n),
		.key = {.layer = from_le64(r->layer), .index = from_le32(r->index)},
		.family = from_le64(r->family),
		.session = from_le64(r->session),
		.number = from_le64(r->number),
		.run_count = from_le32(r->run_count)};

	if (!pg)
		return -ENOMEM;
	if (e.run_count > ARRAY_COUNT(e.runs))
		return -E_CORRUPT;
	for (uint32_t i = 0; i < e.run_count; i++) {
		e.runs[i].block = from_le16(r->runs[i].block);
		e.runs[i].count = from_le16(r->runs[i].count);
	}
	return record_add_tail(&pg->record, &e, 0);
}

static int load_session(struct restore *restore, const void *at, uint32_t size)
{
	const struct disk_record_session *r = at;
	struct pg *pg = shard_pg_make(restore->shard, from_le32(r->pg));

	return pg ? record_set_lowest(&pg->record, from_le64(r->session), from_le64(r->lowest))
		  : -ENOMEM;
}

static int load_request(struct restore *restore, const void *at, uint32_t size)
{
	const struct disk_record_request *r = at;
	struct pg *pg = shard_pg_make(restore->shard, from_le32(r->pg));

	const struct store_request request = {.session = from_le64(r->request.session),
					      .number = from_le64(r->request.number),
					      .version = version_of(r->request.reign, r->request.n),
					      .key = {.layer = from_le64(r->request.layer),
						      .index = from_le32(r->request.index)}};

	return pg ? record_add_request(&pg->record, &request, 0, 0) : -ENOMEM;
}

/* One slot; a page that follows it is dirty from the start. */
static int load_slot(struct shard *shard, struct pg *pg, struct object *object, uint8_t number,
		     bool is_enclosed, struct bytes_reader *reader)
{
	const struct disk_record_slot *r = bytes_take(reader, sizeof(*r));
	const struct disk_page *head;
	struct object_key key = object_key_of(object);

	if (!r)
		return -E_CORRUPT;

	uint32_t place = from_le32(r->place);

	if (place >= shard_places(shard) || (place == 0 && !is_enclosed) ||
	    (place && (r->length16 == 0 || (r->offset16 + r->length16) * 16 > DISK_BLOCK)))
		return -E_CORRUPT;
	if (place)
		object->slots[number] =
			slot_of_disk(place, r->offset16, r->length16, from_le16(r->check));
	if (!is_enclosed)
		return 0;
	if (reader->left < sizeof(*head))
		return -E_CORRUPT;
	head = (const void *)reader->data;

	uint32_t length = head->length16 * 16u;
	const void *record = bytes_take(reader, length);
	uint64_t disk = object->slots[number];

	if (!record)
		return -E_CORRUPT;
	object->slots[number] = 0;

	struct page *page = cache_add(shard, pg->id, &key, object->slots, number);

	if (!page)
		return -ENOMEM;
	page->disk = disk;
	if (disk)
		shard->cache.unplaced--;
	return page_decode(page, record, length, page_record_check(record), shard_places(shard));
}

static int load_object(struct restore *restore, const void *at, uint32_t size)
{
	const struct disk_record_object *r = at;
	struct shard *shard = restore->shard;
	struct object_key key = {.layer = from_le64(r->layer), .index = from_le32(r->index)};
	struct bytes_reader reader = bytes_reader_of(r + 1, size - sizeof(*r));
	struct pg *pg = shard_pg_make(shard, from_le32(r->pg));

	if (!pg)
		return -ENOMEM;

	uint16_t pages = from_le16(r->pages), enclosed = from_le16(r->enclosed);

	if (table_find(&pg->table, &key, NULL) || (enclosed & ~pages))
		return -E_CORRUPT;

	struct object *object = table_insert(&pg->table, &key, NULL);

	if (!object)
		return -ENOMEM;
	object->family = from_le64(r->family);
	object->version = version_of(r->reign, r->n);
	object->data_blocks = from_le16(r->data_blocks);
	if (from_le16(r->lost_blocks) > OBJECT_BLOCKS)
		return -E_CORRUPT;
	object->lost_blocks = from_le16(r->lost_blocks) & 0x7ffu;
	object->flags = from_le16(r->entry.flags) & OBJECT_FLAGS;
	pg->digest += store_digest_of(&key, object->version);
	pg->data_blocks += object->data_blocks;
	pg->missing += object->flags & OBJECT_MISSING ? 1 : 0;
	pg->lost += object->lost_blocks > 0;
	if (pages) {
		object->slots = cache_slots_new(shard);
		if (!object->slots)
			return -ENOMEM;
	}
	for (uint8_t i = 0; i < DISK_PAGES; i++) {
		if (!(pages & BIT(i)))
			continue;
		int rc = load_slot(shard, pg, object, i, enclosed & BIT(i), &reader);
		if (rc < 0)
			return rc;
	}
	return bytes_done(&reader) ? 0 : -E_CORRUPT;
}

static int load_end(struct restore *restore, const void *at, uint32_t size)
{
	return 1;
}

static const struct {
	uint32_t size;
	bool is_open; /* more may follow the struct */
	int (*load)(struct restore *restore, const void *at, uint32_t size);
} records[] = {
	[DISK_RECORD_SEGMENT] = {sizeof(struct disk_record_segment), false, load_segment},
	[DISK_RECORD_PG] = {sizeof(struct disk_record_pg), false, load_pg},
	[DISK_RECORD_TAIL] = {sizeof(struct disk_record_tail), false, load_tail},
	[DISK_RECORD_REQUEST] = {sizeof(struct disk_record_request), false, load_request},
	[DISK_RECORD_OBJECT] = {sizeof(struct disk_record_object), true, load_object},
	[DISK_RECORD_END] = {sizeof(struct disk_entry), false, load_end},
	[DISK_RECORD_SESSION] = {sizeof(struct disk_record_session), false, load_session},
};

static int load_body(struct restore *restore, const struct candidate *from)
{
	struct bytes_reader reader = bytes_reader_of(from->body, from->body_bytes);

	for (;;) {
		const struct disk_entry *entry = (const void *)reader.data;
		if (reader.left < sizeof(*entry))
			return -E_CORRUPT; /* the end record is missing */

		uint32_t size = from_le32(entry->size);

		if (entry->kind >= ARRAY_COUNT(records) || !records[entry->kind].load ||
		    size < records[entry->kind].size ||
		    (!records[entry->kind].is_open && size != records[entry->kind].size) ||
		    !bytes_take(&reader, size))
			return -E_CORRUPT;

		if (entry->kind != DISK_RECORD_OBJECT)
			restore->shard->checkpoint->shard_bytes += size;

		int rc = records[entry->kind].load(restore, entry, size);

		if (rc != 0)
			return rc < 0 ? rc : 0;
	}
}

static void take_head(struct shard *shard, const struct candidate *from)
{
	struct checkpoint *c = shard->checkpoint;
	const struct disk_checkpoint *head = &from->head;

	c->durable = from_le64(head->sequence);
	c->area = from->area;
	c->last_bytes = from->body_bytes;
	c->life = from_le64(head->life);
	c->synced_lsn = from_le64(head->synced_lsn);
	c->position = (struct log_position){.segment = from_le32(head->segment),
					    .block = from_le32(head->block),
					    .next_segment = from_le32(head->next_segment),
					    .generation = from_le64(head->generation),
					    .lsn = from_le64(head->lsn)};
}

int checkpoint_load(struct shard *shard, struct error *err)
{
	struct candidate c[2];
	struct restore restore = {.shard = shard, .err = err};
	int found[2];

	for (uint32_t i = 0; i < 2; i++) {
		found[i] = read_area(shard, i, &c[i], err);
		if (found[i] < 0) {
			if (i == 1)
				free(c[0].body);
			return found[i];
		}
	}
	if (!found[0] && !found[1])
		return error_set(err, -E_CORRUPT,
				 "store '%s': both checkpoints of shard %u are damaged",
				 shard->store->path, shard->number);

	uint32_t best = !found[0] ||
			(found[1] && from_le64(c[1].head.sequence) > from_le64(c[0].head.sequence));
	int rc = load_body(&restore, &c[best]);

	take_head(shard, &c[best]);
	free(c[0].body);
	free(c[1].body);
	if (rc < 0)
		return error_set(err, rc, "store '%s': the checkpoint of shard %u makes no sense",
				 shard->store->path, shard->number);
	/* After a crash what was read may not be on stable storage; from here on batches call it so. */
	rc = loop_sync_fsync(shard->loop, shard->checkpoint->files[best]);
	return rc < 0 ? error_set(err, rc, "store '%s': sync the checkpoint of shard %u",
				  shard->store->path, shard->number)
		      : 0;
}
