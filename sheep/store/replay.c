/*
 * Replay: the batches since the checkpoint, applied by the code that applied them the first time.
 *
 * The log goes on from batch to batch, and from a segment to the one that its descriptors name as the
 * next. The first place where the batch that must come is not there, or is broken, is judged by
 * what lies behind it: some later descriptor, or the checkpoint, may name it as synced. If none does it is
 * the end of the log, and whatever lies behind was never acknowledged as synced. If one does it is
 * damage: with a good descriptor the objects whose payload is bad are marked missing and replay
 * goes on; without one the log is lost from here on, and says so.
 *
 * Batches of an earlier life (an opening of this store that ended before the log did) lie behind the end
 * and are told by their life number.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/bitmap.h"
#include "lib/base/crc32c.h"
#include "lib/base/log.h"
#include "lib/base/rule.h"
#include "sheep/store/checkpoint.h"

struct replay {
	struct shard *shard;
	uint32_t segment, block, next_segment;
	uint64_t generation, lsn; /* of the batch that must come */
	uint64_t life;		  /* none later in the log may be lower */
	uint64_t synced_lsn;	  /* named by the checkpoint and by descriptors seen */
	uint8_t *memory;	  /* one segment */
	uint32_t loaded;	  /* which one; UINT32_MAX: none */
	uint64_t batches;
	uint32_t broken; /* batches whose payload is damaged */
};

/* A batch that was found. */
struct found {
	struct batch_header header;
	const uint8_t *descriptor;
	const uint8_t *payload;
	uint32_t payload_blocks;
};

/* Replay moves segments as the log says, from whatever the checkpoint saw. */
static void set_state(struct shard *shard, uint32_t number, enum segment_state state)
{
	struct segment *segment = &shard->segments[number];

	shard->state_counts[segment->state]--;
	shard->state_counts[state]++;
	segment->state = (uint8_t)state;
}

/*
 * The checkpoint may have been taken when later segments than that of its first batch were in use
 * already: replay goes through them again.
 */
static void rewind_segments(struct shard *shard, const struct log_position *position)
{
	for (uint32_t i = 0; i < shard->segment_count; i++) {
		struct segment *segment = &shard->segments[i];
		bool is_used = segment->state == SEGMENT_FULL || segment->state == SEGMENT_CURRENT;
		if (segment->state == SEGMENT_NEXT ||
		    (is_used && segment->generation > position->generation))
			set_state(shard, i, SEGMENT_FREE);
	}
	set_state(shard, position->segment, SEGMENT_CURRENT);
	set_state(shard, position->next_segment, SEGMENT_NEXT);
}

static int load(struct replay *r, uint32_t segment, struct error *err)
{
	struct shard *shard = r->shard;
	uint64_t size = (uint64_t)shard->segment_blocks * DISK_BLOCK;

	if (r->loaded == segment)
		return 0;
	r->loaded = UINT32_MAX;
	memset(r->memory, 0, size);

	/* An unreadable part reads as zeroes, block by block: damage like any other. */
	int64_t got =
		loop_sync_read(shard->loop, shard->segments[segment].file, r->memory, size, 0);

	for (uint32_t i = 0; got < 0 && i < shard->segment_blocks; i++) {
		uint8_t *block = r->memory + (uint64_t)i * DISK_BLOCK;
		if (loop_sync_read(shard->loop, shard->segments[segment].file, block, DISK_BLOCK,
				   (uint64_t)i * DISK_BLOCK) < 0)
			memset(block, 0, DISK_BLOCK);
	}
	r->loaded = segment;
	return 0;
}

/* A whole descriptor of this store at this place of the loaded segment, of whatever age? */
static bool find_at(struct replay *r, uint32_t segment, uint32_t block, struct found *out)
{
	struct shard *shard = r->shard;
	const uint8_t *at = r->memory + (uint64_t)block * DISK_BLOCK;

	if (block >= shard->segment_blocks ||
	    batch_read_header(at, &shard->store->identity.uuid, shard->number, segment, block,
			      shard->segment_blocks, &out->header) < 0 ||
	    batch_verify(at, out->header.descriptor_bytes) < 0 ||
	    out->header.next_segment >= shard->segment_count)
		return false;

	uint32_t descriptor_blocks = batch_descriptor_blocks(out->header.descriptor_bytes);

	out->descriptor = at;
	out->payload = at + (uint64_t)descriptor_blocks * DISK_BLOCK;
	out->payload_blocks = out->header.blocks - descriptor_blocks;
	return true;
}

/* Is it the batch that must come here? */
static bool is_expected(const struct replay *r, const struct found *f, uint64_t generation)
{
	return f->header.generation == generation && f->header.lsn == r->lsn &&
	       f->header.life >= r->life;
}

/* ---- judging the end ---- */

/*
 * Scan what lies behind a broken place: this segment from @block on, then the next ones as
 * long as they hold batches of this log. Raises r->synced_lsn to what they name. A later
 * generation in this place, or a later checkpoint than ours, is proof of damage by itself.
 */
static bool scan_behind(struct replay *r, struct error *err)
{
	struct shard *shard = r->shard;
	uint32_t segment = r->segment, block = r->block, next = r->next_segment;
	uint64_t generation = r->generation;
	bool is_damage = false, was_found = true;

	/* One segment without batches may lie between: its batches may be the lost ones. */
	for (unsigned hops = 0; hops <= shard->segment_count && (was_found || hops < 2); hops++) {
		was_found = false;
		if (load(r, segment, err) < 0)
			return true;
		for (; block < shard->segment_blocks; block++) {
			struct found f;
			if (!find_at(r, segment, block, &f) || f.header.life < r->life ||
			    f.header.lsn < r->lsn)
				continue;
			if (f.header.generation < generation)
				continue;
			if (f.header.generation > generation ||
			    f.header.checkpoint > shard->checkpoint->durable) {
				is_damage = true;
				continue;
			}
			was_found = true;
			next = f.header.next_segment;
			r->synced_lsn = max_of(r->synced_lsn, f.header.synced_lsn);
		}
		segment = next;
		block = 0;
		generation++;
	}
	return RULE(D3_CORRUPT_IS_NO_TAIL) && (is_damage || r->synced_lsn >= r->lsn);
}

/* ---- the PG's record: at run time it is kept when the entry is queued ---- */

static int remember(struct pg *pg, const struct batch_entry *e)
{
	struct store_tail_entry tail = {.version = e->version,
					.previous = e->previous,
					.key = e->key,
					.family = e->family,
					.session = e->session,
					.number = e->number};

	if (e->flags & DISK_CHANGE_UNSEQUENCED)
		return 0;
	for (uint32_t i = 0; i < e->run_count; i++)
		record_tail_add_run(&tail, from_le16(e->runs[i].block),
				    from_le16(e->runs[i].count));
	pg->record.last = version_max(pg->record.last, e->version);

	int rc = record_add_tail(&pg->record, &tail, 0);

	if (rc == 0 && e->flags & DISK_CHANGE_REQUESTS)
		rc = record_set_object(&pg->record, &e->key, pg->record.staged_above,
				       pg->record.staged, pg->record.staged_count, 0, 0);
	if (rc < 0 || !e->session)
		return rc;
	const struct store_request request = {
		.session = e->session, .number = e->number, .version = e->version, .key = e->key};
	rc = record_add_request(&pg->record, &request, e->lowest, 0);
	return rc == -EINVAL ? 0 : rc;
}

static int stage_requests(struct pg_record *record, const struct batch_entry *e)
{
	if (e->flags & DISK_REQUESTS_FIRST)
		record->staged_count = 0;
	for (uint32_t i = 0; i < e->request_count; i++) {
		const struct disk_request *q = &e->requests[i];
		const struct store_request request = {
			.session = from_le64(q->session),
			.number = from_le64(q->number),
			.version = {.reign = from_le64(q->reign), .n = from_le64(q->n)},
			.key = {.layer = from_le64(q->layer), .index = from_le32(q->index)}};
		int rc = record_stage_requests(record, &request, 1);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int replace_requests(struct pg *pg, const struct batch_entry *e)
{
	struct pg_record *record = &pg->record;
	int rc = stage_requests(record, e);

	if (rc < 0 || !(e->flags & DISK_REQUESTS_LAST))
		return rc;
	return record_set_requests(record, record->staged, record->staged_count, 0, 0);
}

static int apply_record(struct shard *shard, const struct batch_entry *e)
{
	struct pg *pg;

	if (e->kind == DISK_MOVE || e->kind == DISK_PAGE)
		return 0;
	pg = shard_pg_make(shard, e->pg);
	if (!pg)
		return -ENOMEM;
	switch (e->kind) {
	case DISK_CHANGE:
		return remember(pg, e);
	case DISK_COMMIT:
		(void)record_set_commit(&pg->record, e->version);
		return 0;
	case DISK_REQUESTS:
		return replace_requests(pg, e);
	case DISK_OBJECT_REQUESTS:
		pg->record.staged_above = e->previous;
		return stage_requests(&pg->record, e);
	case DISK_END_SESSION:
		record_end_session(&pg->record, e->session);
		return 0;
	case DISK_DROP_PG:
		record_done(&pg->record);
		return 0;
	case DISK_MOVE:
	case DISK_PAGE:
	case DISK_ENTRY_KINDS:
		break;
	}
	return 0;
}

/* ---- batches ---- */

/* How many data blocks of the entry (or its page record) are damaged; @bad gets a bit for each. */
static uint32_t find_damage(const struct found *f, const struct batch_entry *e, uint64_t *bad)
{
	uint32_t count = 0;

	memset(bad, 0, BITMAP_WORDS(OBJECT_BLOCKS) * sizeof(*bad));
	if (e->kind == DISK_PAGE) {
		const uint8_t *record =
			f->payload + (uint64_t)e->payload * DISK_BLOCK + e->offset16 * 16;
		return !page_record_is_good(record, e->length16 * 16, e->check);
	}
	for (uint32_t i = 0, run = 0, block = 0; i < e->data_blocks; i++) {
		/* Which block of the object it is: of a move they follow each other, else the runs say. */
		uint32_t number = e->block + i;
		if (e->kind == DISK_CHANGE) {
			while (e->runs[run].state != BLOCK_DATA ||
			       block == from_le16(e->runs[run].count)) {
				run++;
				block = 0;
			}
			number = from_le16(e->runs[run].block) + block++;
		}
		uint32_t crc =
			crc32c(f->payload + (uint64_t)(e->payload + i) * DISK_BLOCK, DISK_BLOCK);
		if ((crc ^ block_seed(e->family, e->key.index, number)) != from_le32(e->crcs[i])) {
			bitmap_set(bad, i);
			count++;
		}
	}
	return count;
}

/* 1: every entry decodes and every payload matches; 0: payload is damaged; -E_CORRUPT: nonsense. */
static int check_batch(struct replay *r, const struct found *f)
{
	struct batch_entry e;
	uint64_t bad[BITMAP_WORDS(OBJECT_BLOCKS)];
	uint32_t offset = 0, count = 0;
	bool is_good = true;
	int rc;

	while ((rc = batch_next(f->descriptor, f->header.descriptor_bytes, f->payload_blocks,
				shard_places(r->shard), &offset, &e)) > 0) {
		is_good = is_good && find_damage(f, &e, bad) == 0;
		count++;
	}
	if (rc < 0 || count != f->header.entry_count)
		return -E_CORRUPT;
	return is_good;
}

static int apply_batch(struct replay *r, const struct found *f)
{
	struct shard *shard = r->shard;
	uint32_t payload_place = f->header.segment * shard->segment_blocks + f->header.block +
				 batch_descriptor_blocks(f->header.descriptor_bytes);
	uint64_t bad[BITMAP_WORDS(OBJECT_BLOCKS)];
	struct batch_entry e;
	uint32_t offset = 0;
	int rc;

	while ((rc = batch_next(f->descriptor, f->header.descriptor_bytes, f->payload_blocks,
				shard_places(shard), &offset, &e)) > 0) {
		rc = apply_record(shard, &e);
		if (rc == 0)
			rc = find_damage(f, &e, bad) == 0
				     ? index_apply(shard, &e, payload_place, NULL)
				     : index_apply_broken(shard, &e, payload_place, bad);
		if (rc < 0)
			return rc;
	}
	return rc;
}

static bool find_here(struct replay *r, struct found *out, struct error *err)
{
	return load(r, r->segment, err) == 0 && find_at(r, r->segment, r->block, out) &&
	       is_expected(r, out, r->generation);
}

/* The segment is left when a batch does not fit. */
static bool find_ahead(struct replay *r, struct found *out, struct error *err)
{
	return load(r, r->next_segment, err) == 0 && find_at(r, r->next_segment, 0, out) &&
	       is_expected(r, out, r->generation + 1);
}

/*
 * The batch that must come: here, or at the head of the next segment. *@state: what check_batch() says of it,
 * -E_CORRUPT when there is none. When the one here is broken, one of a later life may be ahead: that
 * opening ended the log before the broken one, and what it wrote first did not fit into the rest.
 */
static bool find_next(struct replay *r, struct found *out, int *state, struct error *err)
{
	bool is_here = find_here(r, out, err);
	uint64_t life = is_here ? out->header.life : 0;

	*state = -E_CORRUPT;
	if (is_here)
		*state = check_batch(r, out);
	if (*state > 0)
		return true;
	if (find_ahead(r, out, err) && (!is_here || out->header.life > life)) {
		*state = check_batch(r, out);
		return true;
	}
	return is_here && find_here(r, out, err);
}

static void enter_segment(struct replay *r, const struct found *f)
{
	struct shard *shard = r->shard;

	if (f->header.segment != r->segment) {
		set_state(shard, r->segment, SEGMENT_FULL);
		set_state(shard, f->header.segment, SEGMENT_CURRENT);
		shard->segments[f->header.segment].is_prepared = true;
		r->segment = f->header.segment;
		r->generation = f->header.generation;
	}
	if (f->header.next_segment != r->next_segment ||
	    shard->segments[r->next_segment].state != SEGMENT_NEXT) {
		set_state(shard, f->header.next_segment, SEGMENT_NEXT);
		shard->segments[f->header.next_segment].is_prepared = true;
		r->next_segment = f->header.next_segment;
	}
	shard->segments[r->segment].generation = r->generation;
	shard->segments[r->segment].written_lsn = f->header.lsn;
	r->block = f->header.block + f->header.blocks;
	r->lsn++;
	r->life = f->header.life;
	r->synced_lsn = max_of(r->synced_lsn, f->header.synced_lsn);
}

static int replay_all(struct replay *r, struct error *err)
{
	struct shard *shard = r->shard;
	struct store_identity *identity = &shard->store->identity;
	struct found f;

	for (;;) {
		int state;
		(void)find_next(r, &f, &state, err);
		if (state <= 0) {
			bool is_damage = scan_behind(r, err);
			if (!is_damage && RULE(D0_ONE_LOG))
				return 0; /* the end: what is broken was never synced */
			if (state < 0) {
				log_error(
					"store '%s': shard %u: the log is lost from batch %llu on, "
					"though %llu was synced",
					shard->store->path, shard->number,
					(unsigned long long)r->lsn,
					(unsigned long long)r->synced_lsn);
				identity->lost_log = true;
				return 0;
			}
			/* The scan may have loaded other segments. */
			if (!find_next(r, &f, &state, err))
				return error_set(err, -EIO,
						 "store '%s': a batch that was there is gone",
						 shard->store->path);
			r->broken++;
		}
		enter_segment(r, &f);
		int rc = apply_batch(r, &f);
		if (rc < 0)
			return error_set(err, rc, "store '%s': replay batch %llu of shard %u",
					 shard->store->path, (unsigned long long)f.header.lsn,
					 shard->number);
		cache_trim(shard);
		r->batches++;
		shard->checkpoint->log_bytes += (uint64_t)f.header.blocks * DISK_BLOCK;
	}
}

static void take_position(struct shard *shard, const struct replay *r)
{
	shard->current = r->segment;
	shard->next = r->next_segment;
	shard->block = r->block;
	shard->generation = r->generation;
	shard->next_lsn = r->lsn;
	shard->written_lsn = shard->applied_lsn = shard->synced_lsn = r->lsn - 1;
}

static void count_dead(struct shard *shard)
{
	shard->dead_count = 0;
	for (uint32_t i = 0; i < shard->segment_count; i++)
		if (shard->segments[i].state == SEGMENT_FULL && shard->segments[i].live_bytes == 0)
			shard->dead_count++;
}

int replay_run(struct shard *shard, struct error *err)
{
	const struct checkpoint *c = shard->checkpoint;
	struct replay r = {.shard = shard,
			   .segment = c->position.segment,
			   .block = c->position.block,
			   .next_segment = c->position.next_segment,
			   .generation = c->position.generation,
			   .lsn = c->position.lsn,
			   .life = c->life,
			   .synced_lsn = c->synced_lsn,
			   .loaded = UINT32_MAX};

	r.memory = aligned_alloc(DISK_BLOCK, (uint64_t)shard->segment_blocks * DISK_BLOCK);
	if (!r.memory)
		return error_set(err, -ENOMEM, "replay of shard %u", shard->number);
	rewind_segments(shard, &c->position);

	int rc = replay_all(&r, err);

	free(r.memory);
	if (rc < 0)
		return rc;
	take_position(shard, &r);
	shard->was_damaged = r.broken > 0 || shard->store->identity.lost_log;
	count_dead(shard);
	if (r.batches > 0)
		log_info(
			"store '%s': shard %u: replayed %llu batches since checkpoint %llu, %u damaged",
			shard->store->path, shard->number, (unsigned long long)r.batches,
			(unsigned long long)c->durable, r.broken);
	/* Everything that was replayed counts as synced from here on. */
	rc = loop_sync_fsync(shard->loop, shard->segments[shard->current].file);
	if (rc < 0)
		return error_set(err, rc, "store '%s': sync segment %u", shard->store->path,
				 shard->current);
	return 0;
}
