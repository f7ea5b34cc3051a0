/*
 * The cleaner copies what is alive in a segment to the end of the log, so that the segment
 * becomes empty.
 *
 *   IDLE --space is short--> READING --> LOADING --> MOVING --> READING ... --> IDLE
 *            a victim        a window    cold pages   copies     the next window
 *
 * The victim is the segment with the best ratio of space won to work, weighted by age (Rosenblum and
 * Ousterhout, section 3.6). Its batches say what once was in them; the index says what still is. A copy
 * names the place it came from and counts only while the block is there. Index pages are only
 * made dirty: the next flush writes them elsewhere.
 *
 * Pace: each byte that callers append buys the cleaner some bytes, the more the scarcer free
 * segments are; when callers have to wait for space it runs at full speed.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/crc32c.h"
#include "lib/base/log.h"
#include "sheep/store/store_priv.h"

#define WINDOW_BLOCKS 256u
#define TICK_NS	      (50 * NS_PER_MS)
#define TICK_BYTES    (4 * MIB)

enum cleaner_state { CLEANER_IDLE, CLEANER_READING, CLEANER_LOADING, CLEANER_MOVING };

struct cleaner {
	struct shard *shard;
	uint8_t state; /* enum cleaner_state */
	uint32_t victim;
	uint32_t block; /* start of the window in the victim */
	uint32_t window_blocks;
	uint32_t at;	 /* next batch, from the window's start */
	uint32_t needed; /* blocks that the next window must have at least */
	uint32_t moves;	 /* batches in flight */
	uint64_t found;	 /* live things seen in this victim */
	int64_t budget;	 /* bytes */
	struct buffer *buffer;
	struct batch *out;
	struct io io;
	struct iovec iov;
	struct waiter waiter;
};

static void on_window(struct io *io, int result);
static void on_pages(struct waiter *waiter);
static void on_tick(struct loop_timer *timer);
static void go_on(struct cleaner *cleaner);

int cleaner_new(struct shard *shard)
{
	struct cleaner *cleaner = calloc(1, sizeof(*cleaner));

	if (!cleaner)
		return -ENOMEM;
	shard->cleaner = cleaner;
	cleaner->shard = shard;
	cleaner->io.done = on_window;
	cleaner->waiter.ready = on_pages;
	shard->tick.fire = on_tick;
	return 0;
}

void cleaner_free(struct shard *shard)
{
	if (!shard->cleaner)
		return;
	if (shard->cleaner->out) /* the shard failed while it was filled */
		batch_destroy(shard->cleaner->out);
	buffer_put(shard->cleaner->buffer);
	free(shard->cleaner);
	shard->cleaner = NULL;
}

bool cleaner_is_idle(const struct shard *shard)
{
	return shard->cleaner->state == CLEANER_IDLE;
}

/* ---- when, and how fast ---- */

/* Free segments, those included that the next checkpoint frees. */
static uint32_t expected(const struct shard *shard)
{
	return segment_available(shard) + shard->state_counts[SEGMENT_EMPTY] + shard->dead_count +
	       shard->cleaned_count;
}

void cleaner_log_grew(struct shard *shard, uint32_t bytes)
{
	struct cleaner *cleaner = shard->cleaner;
	uint32_t have = expected(shard), span = shard->watermark - shard->reserve;

	if (have >= shard->watermark) {
		cleaner->budget = 0;
		return;
	}

	uint32_t short_by = min_of(shard->watermark - have, span);

	cleaner->budget += (int64_t)bytes * (1 + 11 * (int64_t)short_by / span);
}

static void on_tick(struct loop_timer *timer)
{
	struct shard *shard = container_of_type(timer, struct shard, tick);

	if (shard->state != SHARD_RUNNING)
		return;
	shard->cleaner->budget += (int64_t)TICK_BYTES;
	log_kick(shard);
}

/* ---- the victim ---- */

static int pick_victim(struct shard *shard, uint32_t *out)
{
	/* A segment that the cleaner has packed itself is not worth another pass. */
	double worth = shard->store->segment_bytes < 16 * MIB ? 0.93 : 0.95;
	double best = 0;

	for (uint32_t i = 0; i < shard->segment_count; i++) {
		const struct segment *s = &shard->segments[i];
		if (s->state != SEGMENT_FULL || s->is_cleaned || s->was_barren ||
		    s->is_unreadable || s->live_bytes == 0)
			continue;
		double used = (double)s->live_bytes / shard->store->segment_bytes;
		double age = (double)(shard->next_lsn - s->written_lsn);
		double score = (1 - used) * age / (1 + used);
		if (used < worth && score > best) {
			best = score;
			*out = i;
		}
	}
	return best > 0 ? 0 : -ENOENT;
}

static void read_window(struct cleaner *cleaner)
{
	struct shard *shard = cleaner->shard;
	uint32_t left = shard->segment_blocks - cleaner->block;
	uint32_t blocks = min_of(left, max_of(WINDOW_BLOCKS, cleaner->needed));

	buffer_put(cleaner->buffer);
	cleaner->buffer = buffer_new(loop_buffers(shard->loop), blocks * DISK_BLOCK);
	if (!cleaner->buffer) {
		shard_fail(shard, -ENOMEM, "clean a segment");
		return;
	}
	cleaner->state = CLEANER_READING;
	cleaner->window_blocks = blocks;
	cleaner->at = 0;
	cleaner->needed = 0;
	cleaner->iov = (struct iovec){cleaner->buffer->data, (size_t)blocks * DISK_BLOCK};
	io_read(shard, &cleaner->io, shard->segments[cleaner->victim].file, &cleaner->iov, 1,
		(uint64_t)cleaner->block * DISK_BLOCK);
}

static void finish(struct cleaner *cleaner)
{
	struct shard *shard = cleaner->shard;
	struct segment *segment = &shard->segments[cleaner->victim];

	cleaner->state = CLEANER_IDLE;
	buffer_put(cleaner->buffer);
	cleaner->buffer = NULL;
	shard->counters.cleaner_segments++;
	if (segment->live_bytes > 0 && cleaner->found > 0) {
		segment->is_cleaned = true;
		shard->cleaned_count++;
	} else if (segment->live_bytes > 0) {
		/* What lives there cannot be found from its batches: damage. It stays. */
		segment->was_barren = true;
	}
	segment_unpin(shard, cleaner->victim);
	log_kick(shard);
	shard_check_stop(shard);
}

/*
 * When free segments are few, those that a checkpoint is about to free come first: so what is free after
 * a victim and its checkpoint is never less than before, and three free ones, which callers
 * leave, are always enough for the next.
 */
static bool must_wait(const struct shard *shard)
{
	uint32_t waiting =
		shard->dead_count + shard->cleaned_count + shard->state_counts[SEGMENT_EMPTY];

	return waiting > 0 && segment_available(shard) <= shard->reserve;
}

/* All of a victim must fit, or the log ends in the middle of it with nothing won. */
static bool has_room(const struct shard *shard, uint32_t victim)
{
	uint64_t live = shard->segments[victim].live_bytes, segment = shard->store->segment_bytes;
	uint64_t room = (uint64_t)(shard->segment_blocks - shard->block) * DISK_BLOCK +
			shard->state_counts[SEGMENT_FREE] * segment;

	return room >= live + live / 8 + segment / 8;
}

void cleaner_kick(struct shard *shard)
{
	struct cleaner *cleaner = shard->cleaner;

	if (!shard_makes_space(shard) || cleaner->state != CLEANER_IDLE ||
	    expected(shard) >= shard->watermark || must_wait(shard))
		return;
	if (cleaner->budget <= 0 && !shard->has_cleaning_need) {
		if (!loop_timer_is_armed(&shard->tick))
			loop_timer_start(shard->loop, &shard->tick,
					 loop_now(shard->loop) + TICK_NS);
		return;
	}
	if (pick_victim(shard, &cleaner->victim) < 0 || !has_room(shard, cleaner->victim))
		return;
	segment_pin(shard, cleaner->victim);
	cleaner->block = 0;
	cleaner->found = 0;
	cleaner->needed = 0;
	read_window(cleaner);
}

/* ---- what is alive ---- */

struct block_source {
	const struct batch_entry *entry;
	uint32_t run, used; /* of a change */
};

/* The object's block that data block @i of the entry is; call with ascending @i. */
static uint32_t block_of(struct block_source *s, uint32_t i)
{
	const struct batch_entry *e = s->entry;

	if (e->kind == DISK_MOVE)
		return e->block + i;
	while (e->runs[s->run].state != BLOCK_DATA || s->used == from_le16(e->runs[s->run].count)) {
		s->run++;
		s->used = 0;
	}
	return from_le16(e->runs[s->run].block) + s->used++;
}

static struct object *object_of(struct shard *shard, const struct batch_entry *e)
{
	struct pg *pg = shard_pg(shard, e->pg);
	struct object *object = pg ? table_find(&pg->table, &e->key, NULL) : NULL;

	return object && object->slots ? object : NULL;
}

static int need(struct cleaner *cleaner, const struct batch_entry *e, struct object *object,
		uint32_t number)
{
	int rc = object->slots[number] ? cache_load(cleaner->shard, e->pg, &e->key, object->slots,
						    (uint8_t)number, &cleaner->waiter)
				       : 0;

	return rc < 0 ? rc : 0;
}

/* Bring the pages that an entry's blocks are in into memory. */
static int need_pages(struct cleaner *cleaner, const struct batch_entry *e)
{
	struct object *object = object_of(cleaner->shard, e);
	struct block_source source = {.entry = e};
	uint32_t last = UINT32_MAX;
	int rc = 0;

	if (!object)
		return 0;
	if (e->kind == DISK_PAGE)
		return need(cleaner, e, object, e->block);
	for (uint32_t i = 0; i < e->data_blocks && rc == 0; i++) {
		uint32_t number = block_of(&source, i) / DISK_PAGE_BLOCKS;
		if (number != last)
			rc = need(cleaner, e, object, number);
		last = number;
	}
	return rc;
}

/* ---- moving ---- */

static void on_moved(struct batch *batch, void *context)
{
	struct cleaner *cleaner = context;

	cleaner->moves--;
	if (cleaner->moves == 0 && cleaner->state == CLEANER_MOVING)
		go_on(cleaner);
}

static void queue_out(struct cleaner *cleaner)
{
	if (!cleaner->out)
		return;
	cleaner->moves++;
	log_queue_internal(cleaner->out);
	cleaner->out = NULL;
}

static struct batch *out_for(struct cleaner *cleaner, uint32_t count)
{
	if (cleaner->out && !batch_has_room(cleaner->out, batch_move_size(count), count, 1))
		queue_out(cleaner);
	if (cleaner->out)
		return cleaner->out;
	cleaner->out = batch_get(cleaner->shard, true);
	if (!cleaner->out || batch_hold(cleaner->out, buffer_get(cleaner->buffer)) < 0)
		return NULL;
	cleaner->out->applied = on_moved;
	cleaner->out->context = cleaner;
	return cleaner->out;
}

struct move {
	uint32_t block, count, place;
	const uint8_t *data;
	uint32_t crcs[DISK_PAGE_BLOCKS];
};

static int put_move(struct cleaner *cleaner, const struct batch_entry *e, uint64_t family,
		    struct move *m)
{
	struct batch *out;
	le32 *crcs;

	if (m->count == 0)
		return 0;
	out = out_for(cleaner, m->count);
	if (!out)
		return -ENOMEM;
	crcs = batch_put_move(&out->writer, e->pg, &e->key, family, m->block, m->count, m->place,
			      out->payload_blocks);
	for (uint32_t i = 0; i < m->count; i++)
		crcs[i] = to_le32(m->crcs[i]);
	batch_add_iov(out, (void *)(uintptr_t)m->data, m->count * DISK_BLOCK);
	out->payload_blocks += m->count;
	cleaner->budget -= (int64_t)m->count * DISK_BLOCK;
	cleaner->shard->counters.cleaner_bytes_moved += (uint64_t)m->count * DISK_BLOCK;
	cleaner->found += m->count;
	m->count = 0;
	return 0;
}

/* Add a live block to the move in the making; moves stay short so that they fit any batch. */
static int add_block(struct cleaner *cleaner, const struct batch_entry *e, uint64_t family,
		     struct move *m, uint32_t block, uint32_t place, const uint8_t *data)
{
	uint32_t stored = crc32c(data, DISK_BLOCK) ^ block_seed(family, e->key.index, block);
	bool follows = m->count > 0 && m->count < 16 && block == m->block + m->count &&
		       place == m->place + m->count;

	if (!follows) {
		int rc = put_move(cleaner, e, family, m);
		if (rc < 0)
			return rc;
		*m = (struct move){.block = block, .place = place, .data = data};
	}
	m->crcs[m->count++] = stored;
	return 0;
}

static int move_data(struct cleaner *cleaner, const struct batch_entry *e, uint32_t payload_place,
		     const uint8_t *payload)
{
	struct shard *shard = cleaner->shard;
	struct object *object = object_of(shard, e);
	struct block_source source = {.entry = e};
	struct move move = {.count = 0};
	int rc = 0;

	for (uint32_t i = 0; object && i < e->data_blocks && rc == 0; i++) {
		uint32_t block = block_of(&source, i), place = payload_place + e->payload + i;
		const uint8_t *data = payload + (uint64_t)(e->payload + i) * DISK_BLOCK;
		const struct page *page =
			cache_page(shard, object->slots[block / DISK_PAGE_BLOCKS]);
		if (!page || page->places[block % DISK_PAGE_BLOCKS] != place)
			continue;
		uint32_t crc =
			crc32c(data, DISK_BLOCK) ^ block_seed(object->family, e->key.index, block);
		if (crc != page->crcs[block % DISK_PAGE_BLOCKS]) {
			shard->counters.checksum_errors++;
			shard_corrupt(shard, e->pg, &e->key, block, 1, place);
			damage_wrong_sum(shard, place);
			if (shard_is_failed(shard))
				return -E_STORE_FAILED;
			continue;
		}
		rc = add_block(cleaner, e, object->family, &move, block, place, data);
	}
	return rc == 0 && object ? put_move(cleaner, e, object->family, &move) : rc;
}

static void move_page(struct cleaner *cleaner, const struct batch_entry *e, uint32_t payload_place)
{
	struct shard *shard = cleaner->shard;
	struct object *object = object_of(shard, e);
	struct page *page = object ? cache_page(shard, object->slots[e->block]) : NULL;

	if (!page || slot_place(page->disk) != payload_place + e->payload ||
	    slot_offset(page->disk) != e->offset16 * 16)
		return;
	cache_dirty(shard, page);
	cleaner->found++;
	cleaner->budget -= slot_length(page->disk);
}

/* ---- the window ---- */

enum pass { PASS_PAGES, PASS_MOVE };

/* Go through the entries of one batch. */
static int walk_batch(struct cleaner *cleaner, const struct batch_header *header, const uint8_t *at,
		      enum pass pass)
{
	struct shard *shard = cleaner->shard;
	uint32_t descriptor = batch_descriptor_blocks(header->descriptor_bytes);
	uint32_t payload_place =
		cleaner->victim * shard->segment_blocks + header->block + descriptor;
	struct batch_entry e;
	uint32_t offset = 0;
	int rc;

	while ((rc = batch_next(at, header->descriptor_bytes, header->blocks - descriptor,
				shard_places(shard), &offset, &e)) > 0) {
		if (pass == PASS_PAGES)
			rc = need_pages(cleaner, &e);
		else if (e.kind == DISK_PAGE)
			move_page(cleaner, &e, payload_place);
		else
			rc = move_data(cleaner, &e, payload_place,
				       at + (uint64_t)descriptor * DISK_BLOCK);
		if (rc < 0)
			return rc;
	}
	return rc == -E_CORRUPT ? 0 : rc;
}

/*
 * Work through the batches of the window. Stops when pages have to be loaded (LOADING), or at the end
 * of the window: then waits for the copies (MOVING).
 */
static void work(struct cleaner *cleaner)
{
	struct shard *shard = cleaner->shard;
	struct segment *segment = &shard->segments[cleaner->victim];
	int rc = 0;

	while (cleaner->at < cleaner->window_blocks && rc == 0) {
		const uint8_t *at = cleaner->buffer->data + (uint64_t)cleaner->at * DISK_BLOCK;
		uint32_t left = cleaner->window_blocks - cleaner->at;
		struct batch_header h;
		/* Not a batch: the unused end, or damage. Look at every block. */
		if (batch_read_header(at, &shard->store->identity.uuid, shard->number,
				      cleaner->victim, cleaner->block + cleaner->at,
				      shard->segment_blocks, &h) < 0 ||
		    h.generation != segment->generation) {
			cleaner->at++;
			continue;
		}
		if (h.blocks > left) {
			cleaner->needed = h.blocks;
			break;
		}
		if (batch_verify(at, h.descriptor_bytes) < 0) {
			cleaner->at++;
			continue;
		}
		cleaner->waiter.pending = 1; /* ours, so that it does not fire in here */
		rc = walk_batch(cleaner, &h, at, PASS_PAGES);
		if (--cleaner->waiter.pending > 0) {
			cleaner->state = CLEANER_LOADING;
			return;
		}
		if (rc == 0)
			rc = walk_batch(cleaner, &h, at, PASS_MOVE);
		cleaner->at += h.blocks;
	}
	if (rc < 0) {
		shard_fail(shard, rc, "clean a segment");
		return;
	}
	cleaner->state = CLEANER_MOVING;
	queue_out(cleaner);
	if (cleaner->moves == 0)
		go_on(cleaner);
}

static void go_on(struct cleaner *cleaner)
{
	struct shard *shard = cleaner->shard;

	if (shard_is_failed(shard))
		return;
	cleaner->block += cleaner->at;
	if (cleaner->block >= shard->segment_blocks || !shard_makes_space(shard))
		finish(cleaner);
	else
		read_window(cleaner);
}

static void on_window(struct io *io, int result)
{
	struct cleaner *cleaner = container_of_type(io, struct cleaner, io);
	struct shard *shard = cleaner->shard;

	if (shard_is_failed(shard))
		return;
	if (result < 0) {
		/* Unreadable: leave the segment alone; reads of what lives there find out. */
		log_error("store '%s': shard %u: segment %u cannot be read: %s", shard->store->path,
			  shard->number, cleaner->victim, err_text(result));
		shard->segments[cleaner->victim].is_unreadable = true;
		cleaner->found = 0;
		damage_unreadable(shard, cleaner->victim * shard->segment_blocks + cleaner->block,
				  cleaner->window_blocks, result);
		if (!shard_is_failed(shard))
			finish(cleaner);
		return;
	}
	work(cleaner);
}

static void on_pages(struct waiter *waiter)
{
	struct cleaner *cleaner = container_of_type(waiter, struct cleaner, waiter);

	if (!shard_is_failed(cleaner->shard) && cleaner->state == CLEANER_LOADING)
		work(cleaner);
}
