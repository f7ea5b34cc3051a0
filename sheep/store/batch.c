/*
 * Entries are fixed structs with arrays behind them, all little-endian, sizes multiples of 8.
 * Decoding trusts nothing: the same reader serves replay, the fuzzer and our own memory.
 */
#include "sheep/store/batch.h"

#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/crc32c.h"
#include "lib/base/size.h"

void batch_begin(struct batch_writer *writer, void *data, uint32_t max)
{
	*writer =
		(struct batch_writer){.data = data, .max = max, .used = sizeof(struct disk_batch)};
}

uint32_t batch_change_size(uint32_t run_count, uint32_t data_blocks)
{
	return (uint32_t)(sizeof(struct disk_change) + run_count * sizeof(struct disk_run) +
			  round_up(data_blocks * sizeof(le32), 8));
}

uint32_t batch_move_size(uint32_t count)
{
	return (uint32_t)(sizeof(struct disk_move) + round_up(count * sizeof(le32), 8));
}

static void *put(struct batch_writer *writer, uint32_t size)
{
	void *at = writer->data + writer->used;

	assert(size % 8 == 0 && size <= batch_room(writer));
	writer->used += size;
	writer->entry_count++;
	return at;
}

static struct disk_entry entry_of(enum disk_entry_kind kind, unsigned flags, uint32_t size)
{
	return (struct disk_entry){
		.kind = (uint8_t)kind, .flags = to_le16((uint16_t)flags), .size = to_le32(size)};
}

/* The flags of an append that are part of the change. */
static unsigned change_flags(uint32_t flags)
{
	return (flags & STORE_SET_MISSING ? DISK_CHANGE_SET_MISSING : 0u) |
	       (flags & STORE_CLEAR_MISSING ? DISK_CHANGE_CLEAR_MISSING : 0u) |
	       (flags & STORE_DELETE ? DISK_CHANGE_DELETE : 0u) |
	       (flags & STORE_REPLACE ? DISK_CHANGE_REPLACE : 0u) |
	       (flags & STORE_UNSEQUENCED ? DISK_CHANGE_UNSEQUENCED : 0u) |
	       (flags & STORE_MARK ? DISK_CHANGE_MARK : 0u) |
	       (flags & STORE_WHOLE ? DISK_CHANGE_WHOLE : 0u) |
	       (flags & STORE_REQUESTS ? DISK_CHANGE_REQUESTS : 0u);
}

le32 *batch_put_change(struct batch_writer *writer, const struct store_append *append,
		       uint32_t payload, uint32_t data_blocks)
{
	uint32_t size = batch_change_size(append->run_count, data_blocks);
	struct disk_change *c = put(writer, size);
	struct disk_run *runs = (void *)(c + 1);
	le32 *crcs = (void *)(runs + append->run_count);

	*c = (struct disk_change){.entry = entry_of(DISK_CHANGE, change_flags(append->flags), size),
				  .pg = to_le32(append->pg),
				  .index = to_le32(append->key.index),
				  .layer = to_le64(append->key.layer),
				  .family = to_le64(append->family),
				  .reign = to_le64(append->version.reign),
				  .n = to_le64(append->version.n),
				  .previous_reign = to_le64(append->previous.reign),
				  .previous_n = to_le64(append->previous.n),
				  .session = to_le64(append->session),
				  .number = to_le64(append->number),
				  .lowest = to_le64(append->lowest),
				  .payload = to_le32(payload),
				  .run_count = to_le16((uint16_t)append->run_count),
				  .data_blocks = to_le16((uint16_t)data_blocks)};
	for (uint32_t i = 0; i < append->run_count; i++)
		runs[i] = (struct disk_run){.block = to_le16(append->runs[i].block),
					    .count = to_le16(append->runs[i].count),
					    .state = append->runs[i].state};
	if (data_blocks % 2)
		crcs[data_blocks] = to_le32(0);
	return crcs;
}

le32 *batch_put_move(struct batch_writer *writer, uint32_t pg, const struct object_key *key,
		     uint64_t family, uint32_t block, uint32_t count, uint32_t from,
		     uint32_t payload)
{
	uint32_t size = batch_move_size(count);
	struct disk_move *m = put(writer, size);
	le32 *crcs = (void *)(m + 1);

	*m = (struct disk_move){.entry = entry_of(DISK_MOVE, 0, size),
				.pg = to_le32(pg),
				.index = to_le32(key->index),
				.layer = to_le64(key->layer),
				.family = to_le64(family),
				.payload = to_le32(payload),
				.from = to_le32(from),
				.block = to_le16((uint16_t)block),
				.count = to_le16((uint16_t)count)};
	if (count % 2)
		crcs[count] = to_le32(0);
	return crcs;
}

void batch_put_page(struct batch_writer *writer, uint32_t pg, const struct object_key *key,
		    uint8_t page, uint32_t payload, uint32_t offset, uint32_t length,
		    uint32_t check)
{
	struct disk_page_entry *p = put(writer, sizeof(*p));

	*p = (struct disk_page_entry){.entry = entry_of(DISK_PAGE, 0, sizeof(*p)),
				      .pg = to_le32(pg),
				      .index = to_le32(key->index),
				      .layer = to_le64(key->layer),
				      .payload = to_le32(payload),
				      .page = page,
				      .offset16 = (uint8_t)(offset / 16),
				      .length16 = (uint8_t)(length / 16),
				      .check = to_le32(check)};
}

void batch_put_commit(struct batch_writer *writer, uint32_t pg, struct version commit)
{
	struct disk_commit *c = put(writer, sizeof(*c));

	*c = (struct disk_commit){.entry = entry_of(DISK_COMMIT, 0, sizeof(*c)),
				  .pg = to_le32(pg),
				  .reign = to_le64(commit.reign),
				  .n = to_le64(commit.n)};
}

static void encode_requests(struct disk_request *out, const struct store_request *requests,
			    uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		out[i] = (struct disk_request){.session = to_le64(requests[i].session),
					       .number = to_le64(requests[i].number),
					       .reign = to_le64(requests[i].version.reign),
					       .n = to_le64(requests[i].version.n),
					       .layer = to_le64(requests[i].key.layer),
					       .index = to_le32(requests[i].key.index)};
}

void batch_put_requests(struct batch_writer *writer, uint32_t pg, unsigned flags,
			const struct store_request *requests, uint32_t count)
{
	uint32_t size =
		(uint32_t)(sizeof(struct disk_requests) + count * sizeof(struct disk_request));
	struct disk_requests *r = put(writer, size);

	*r = (struct disk_requests){.entry = entry_of(DISK_REQUESTS, flags, size),
				    .pg = to_le32(pg),
				    .count = to_le32(count)};
	encode_requests((void *)(r + 1), requests, count);
}

void batch_put_object_requests(struct batch_writer *writer, uint32_t pg, unsigned flags,
			       struct version above, const struct store_request *requests,
			       uint32_t count)
{
	uint32_t size = (uint32_t)(sizeof(struct disk_object_requests) +
				   count * sizeof(struct disk_request));
	struct disk_object_requests *r = put(writer, size);

	*r = (struct disk_object_requests){.entry = entry_of(DISK_OBJECT_REQUESTS, flags, size),
					   .pg = to_le32(pg),
					   .count = to_le32(count),
					   .above_reign = to_le64(above.reign),
					   .above_n = to_le64(above.n)};
	encode_requests((void *)(r + 1), requests, count);
}

void batch_put_forget(struct batch_writer *writer, enum disk_entry_kind kind, uint32_t pg,
		      uint64_t session)
{
	struct disk_forget *f = put(writer, sizeof(*f));

	*f = (struct disk_forget){.entry = entry_of(kind, 0, sizeof(*f)),
				  .pg = to_le32(pg),
				  .session = to_le64(session)};
}

void batch_seal(struct batch_writer *writer, struct batch_header *header)
{
	struct disk_batch *head = (void *)writer->data;
	uint32_t end = batch_descriptor_blocks(writer->used) * DISK_BLOCK;

	header->descriptor_bytes = writer->used;
	header->entry_count = writer->entry_count;
	memset(writer->data + writer->used, 0, end - writer->used);
	*head = (struct disk_batch){.magic = to_le32(DISK_BATCH_MAGIC),
				    .shard = to_le32(header->shard),
				    .segment = to_le32(header->segment),
				    .block = to_le32(header->block),
				    .blocks = to_le32(header->blocks),
				    .descriptor_bytes = to_le32(writer->used),
				    .entry_count = to_le32(writer->entry_count),
				    .generation = to_le64(header->generation),
				    .lsn = to_le64(header->lsn),
				    .life = to_le64(header->life),
				    .synced_lsn = to_le64(header->synced_lsn),
				    .checkpoint = to_le64(header->checkpoint),
				    .next_segment = to_le32(header->next_segment)};
	memcpy(head->store, header->store.bytes, sizeof(head->store));
	head->crc = to_le32(crc32c(writer->data, writer->used));
}

int batch_read_header(const void *block, const struct uuid *store, uint32_t shard, uint32_t segment,
		      uint32_t block_index, uint32_t segment_blocks, struct batch_header *out)
{
	const struct disk_batch *head = block;
	struct batch_header h = {.shard = from_le32(head->shard),
				 .segment = from_le32(head->segment),
				 .block = from_le32(head->block),
				 .blocks = from_le32(head->blocks),
				 .next_segment = from_le32(head->next_segment),
				 .descriptor_bytes = from_le32(head->descriptor_bytes),
				 .entry_count = from_le32(head->entry_count),
				 .generation = from_le64(head->generation),
				 .lsn = from_le64(head->lsn),
				 .life = from_le64(head->life),
				 .synced_lsn = from_le64(head->synced_lsn),
				 .checkpoint = from_le64(head->checkpoint)};

	memcpy(h.store.bytes, head->store, sizeof(h.store.bytes));
	if (from_le32(head->magic) != DISK_BATCH_MAGIC || !uuid_is_equal(&h.store, store) ||
	    h.shard != shard || h.segment != segment || h.block != block_index)
		return -E_CORRUPT;
	if (h.descriptor_bytes < sizeof(*head) || h.descriptor_bytes > DISK_DESCRIPTOR_MAX ||
	    batch_descriptor_blocks(h.descriptor_bytes) > h.blocks ||
	    !range_is_within(h.block, h.blocks, segment_blocks))
		return -E_CORRUPT;
	*out = h;
	return 0;
}

int batch_verify(const void *descriptor, uint32_t descriptor_bytes)
{
	struct disk_batch head;

	memcpy(&head, descriptor, sizeof(head));

	uint32_t crc = from_le32(head.crc);

	head.crc = to_le32(0);
	crc ^= crc32c_extend(crc32c(&head, sizeof(head)),
			     (const uint8_t *)descriptor + sizeof(head),
			     descriptor_bytes - sizeof(head));
	return crc ? -E_CHECKSUM : 0;
}

/* ---- reading entries ---- */

struct limits {
	uint32_t payload_blocks;
	uint64_t place_end;
};

static struct version version_of(le64 reign, le64 n)
{
	return (struct version){.reign = from_le64(reign), .n = from_le64(n)};
}

/* Runs ascend within the object, and as many blocks are data as the entry says? */
static bool runs_are_sane(const struct disk_run *runs, uint32_t count, uint32_t data_blocks)
{
	uint32_t from = 0, data = 0;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t block = from_le16(runs[i].block), length = from_le16(runs[i].count);
		if (length == 0 || block < from || !range_is_within(block, length, OBJECT_BLOCKS) ||
		    runs[i].state > BLOCK_LOST)
			return false;
		from = block + length;
		data += runs[i].state == BLOCK_DATA ? length : 0;
	}
	return data == data_blocks;
}

static int read_change(const void *at, uint32_t size, const struct limits *limits,
		       struct batch_entry *out)
{
	const struct disk_change *c = at;
	uint32_t run_count = from_le16(c->run_count), data_blocks = from_le16(c->data_blocks);

	if (size != batch_change_size(run_count, data_blocks) || out->flags & ~DISK_CHANGE_KNOWN)
		return -E_CORRUPT;
	out->pg = from_le32(c->pg);
	out->key = (struct object_key){.layer = from_le64(c->layer), .index = from_le32(c->index)};
	out->family = from_le64(c->family);
	out->version = version_of(c->reign, c->n);
	out->previous = version_of(c->previous_reign, c->previous_n);
	out->session = from_le64(c->session);
	out->number = from_le64(c->number);
	out->lowest = from_le64(c->lowest);
	out->payload = from_le32(c->payload);
	out->run_count = run_count;
	out->runs = (const void *)(c + 1);
	out->data_blocks = data_blocks;
	out->crcs = (const void *)(out->runs + run_count);
	if (!range_is_within(out->payload, data_blocks, limits->payload_blocks) ||
	    !runs_are_sane(out->runs, run_count, data_blocks))
		return -E_CORRUPT;
	return 0;
}

static int read_move(const void *at, uint32_t size, const struct limits *limits,
		     struct batch_entry *out)
{
	const struct disk_move *m = at;

	out->data_blocks = from_le16(m->count);
	if (size != batch_move_size(out->data_blocks) || out->data_blocks == 0)
		return -E_CORRUPT;
	out->pg = from_le32(m->pg);
	out->key = (struct object_key){.layer = from_le64(m->layer), .index = from_le32(m->index)};
	out->family = from_le64(m->family);
	out->payload = from_le32(m->payload);
	out->from = from_le32(m->from);
	out->block = from_le16(m->block);
	out->crcs = (const void *)(m + 1);
	if (!range_is_within(out->payload, out->data_blocks, limits->payload_blocks) ||
	    !range_is_within(out->from, out->data_blocks, limits->place_end) || out->from == 0 ||
	    !range_is_within(out->block, out->data_blocks, OBJECT_BLOCKS))
		return -E_CORRUPT;
	return 0;
}

static int read_page(const void *at, uint32_t size, const struct limits *limits,
		     struct batch_entry *out)
{
	const struct disk_page_entry *p = at;

	out->pg = from_le32(p->pg);
	out->key = (struct object_key){.layer = from_le64(p->layer), .index = from_le32(p->index)};
	out->payload = from_le32(p->payload);
	out->block = p->page;
	out->offset16 = p->offset16;
	out->length16 = p->length16;
	out->check = from_le32(p->check);
	if (out->block >= DISK_PAGES || out->length16 == 0 ||
	    (out->offset16 + out->length16) * 16 > DISK_BLOCK ||
	    out->payload >= limits->payload_blocks)
		return -E_CORRUPT;
	return 0;
}

static int read_commit(const void *at, uint32_t size, const struct limits *limits,
		       struct batch_entry *out)
{
	const struct disk_commit *c = at;

	out->pg = from_le32(c->pg);
	out->version = version_of(c->reign, c->n);
	return 0;
}

static int read_requests(const void *at, uint32_t size, const struct limits *limits,
			 struct batch_entry *out)
{
	const struct disk_requests *r = at;

	out->pg = from_le32(r->pg);
	out->request_count = from_le32(r->count);
	out->requests = (const void *)(r + 1);
	if ((size - sizeof(*r)) / sizeof(struct disk_request) != out->request_count ||
	    (size - sizeof(*r)) % sizeof(struct disk_request))
		return -E_CORRUPT;
	return 0;
}

static int read_object_requests(const void *at, uint32_t size, const struct limits *limits,
				struct batch_entry *out)
{
	const struct disk_object_requests *r = at;

	out->pg = from_le32(r->pg);
	out->previous = version_of(r->above_reign, r->above_n);
	out->request_count = from_le32(r->count);
	out->requests = (const void *)(r + 1);
	if ((size - sizeof(*r)) / sizeof(struct disk_request) != out->request_count ||
	    (size - sizeof(*r)) % sizeof(struct disk_request))
		return -E_CORRUPT;
	return 0;
}

static int read_forget(const void *at, uint32_t size, const struct limits *limits,
		       struct batch_entry *out)
{
	const struct disk_forget *f = at;

	out->pg = from_le32(f->pg);
	out->session = from_le64(f->session);
	return 0;
}

static const struct {
	uint32_t size_min;
	bool is_fixed; /* nothing follows the struct */
	int (*read)(const void *at, uint32_t size, const struct limits *limits,
		    struct batch_entry *out);
} kinds[DISK_ENTRY_KINDS] = {
	[DISK_CHANGE] = {sizeof(struct disk_change), false, read_change},
	[DISK_MOVE] = {sizeof(struct disk_move), false, read_move},
	[DISK_PAGE] = {sizeof(struct disk_page_entry), true, read_page},
	[DISK_COMMIT] = {sizeof(struct disk_commit), true, read_commit},
	[DISK_REQUESTS] = {sizeof(struct disk_requests), false, read_requests},
	[DISK_END_SESSION] = {sizeof(struct disk_forget), true, read_forget},
	[DISK_DROP_PG] = {sizeof(struct disk_forget), true, read_forget},
	[DISK_OBJECT_REQUESTS] = {sizeof(struct disk_object_requests), false, read_object_requests},
};

int batch_next(const void *descriptor, uint32_t descriptor_bytes, uint32_t payload_blocks,
	       uint64_t place_end, uint32_t *offset, struct batch_entry *out)
{
	uint32_t at = *offset ? *offset : (uint32_t)sizeof(struct disk_batch);
	const struct disk_entry *entry = (const void *)((const uint8_t *)descriptor + at);
	const struct limits limits = {payload_blocks, place_end};

	if (at == descriptor_bytes)
		return 0;
	if (!range_is_within(at, sizeof(*entry), descriptor_bytes))
		return -E_CORRUPT;

	uint32_t size = from_le32(entry->size);

	if (!range_is_within(at, size, descriptor_bytes) || size % 8 ||
	    entry->kind >= DISK_ENTRY_KINDS || !kinds[entry->kind].read ||
	    size < kinds[entry->kind].size_min ||
	    (kinds[entry->kind].is_fixed && size != kinds[entry->kind].size_min))
		return -E_CORRUPT;
	memset(out, 0, sizeof(*out));
	out->kind = entry->kind;
	out->flags = from_le16(entry->flags);
	*offset = at + size;

	int rc = kinds[entry->kind].read(entry, size, &limits, out);

	return rc < 0 ? rc : 1;
}
