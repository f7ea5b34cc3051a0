/*
 * Reads: find each block through the layers, read neighbours together, check every sum.
 *
 *   RESOLVING --pages are cold--> (wait) --> RESOLVING --> READING --> done
 *
 * Places are resolved in one step once all pages are there; the segments they lie in are pinned
 * until the data has come, so that the cleaner may move the blocks meanwhile.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/crc32c.h"
#include "lib/base/log.h"
#include "lib/base/rule.h"
#include "sheep/store/store_priv.h"

#define SMALL_BLOCKS 16u

struct work_block {
	uint32_t place;
	uint32_t crc;	/* as stored */
	uint32_t layer; /* which of the request's layers has it */
};

struct work {
	struct cds_list_head link; /* shard->works, or spare */
	struct shard *shard;
	struct store_read *read; /* one of the two */
	struct store_sums *sums;
	struct loop_op op; /* for what needs no I/O */
	struct waiter waiter;
	struct buffer *buffer;
	uint32_t ios; /* in flight */
	int result;
	bool is_abandoned;
	bool is_small;
	uint32_t bad_block;
	uint64_t bad_layer;
	struct work_block blocks[];
};

struct read_io {
	struct io io;
	struct work *work;
	struct iovec iov;
	uint32_t first, count, segment;
	bool is_half; /* of what failed as a whole */
};

/* ---- recycled memory ---- */

static void on_ready(struct waiter *waiter);
static void on_now(struct loop_op *op, int result);

static struct work *work_get(struct shard *shard, uint32_t blocks)
{
	bool is_small = blocks <= SMALL_BLOCKS;
	struct cds_list_head *spare = is_small ? &shard->spare_small : &shard->spare_large;
	uint32_t max = is_small ? SMALL_BLOCKS : OBJECT_BLOCKS;
	struct work *work;

	if (cds_list_empty(spare)) {
		work = malloc(sizeof(*work) + max * sizeof(work->blocks[0]));
		if (!work)
			return NULL;
	} else {
		work = cds_list_first_entry(spare, struct work, link);
		cds_list_del(&work->link);
	}
	memset(work, 0, sizeof(*work));
	work->shard = shard;
	work->is_small = is_small;
	work->waiter.ready = on_ready;
	work->op.done = on_now;
	cds_list_add_tail(&work->link, &shard->works);
	return work;
}

static void work_put(struct work *work)
{
	struct shard *shard = work->shard;

	buffer_put(work->buffer);
	cds_list_del(&work->link);
	cds_list_add(&work->link, work->is_small ? &shard->spare_small : &shard->spare_large);
	shard_check_stop(shard);
	shard_check_gone(shard);
}

static struct read_io *read_io_get(struct shard *shard)
{
	if (cds_list_empty(&shard->spare_ios))
		return calloc(1, sizeof(struct read_io));

	struct read_io *rio = cds_list_first_entry(&shard->spare_ios, struct read_io, io.link);

	cds_list_del(&rio->io.link);
	return rio;
}

/* ---- the answer ---- */

static void answer_read(struct work *work, int result)
{
	struct store_read *read = work->read;

	read->is_all_hole = result == 0 && !work->buffer;
	if (result == 0 && work->buffer) {
		read->data = slice_of(work->buffer, 0, read->count * BLOCK_SIZE);
		work->buffer = NULL; /* the reader has the reference */
	}
	if (result == -E_CHECKSUM) {
		read->bad_block = work->bad_block;
		read->bad_layer = work->bad_layer;
	}
	work_put(work);
	read->done(read, result);
}

/* All that was waited for has come, or failed. */
static void finish(struct work *work, int result)
{
	struct store_sums *sums = work->sums;

	if (work->is_abandoned) {
		work_put(work);
		return;
	}
	if (!sums) {
		answer_read(work, result);
		return;
	}
	work_put(work);
	sums->done(sums, result);
}

static void on_now(struct loop_op *op, int result)
{
	finish(container_of_type(op, struct work, op), result);
}

/* Never inside the call that began it. */
static void finish_later(struct work *work, int result)
{
	loop_complete(work->shard->loop, &work->op, result);
}

/* ---- reading ---- */

static void work_is_bad(struct work *work, uint32_t i, uint32_t count)
{
	struct object_key key = {.layer = work->read->layers[work->blocks[i].layer],
				 .index = work->read->index};

	work->shard->counters.checksum_errors++;
	if (work->result == 0) {
		work->result = -E_CHECKSUM;
		work->bad_block = work->read->block + i;
		work->bad_layer = key.layer;
	}
	log_error("store '%s': shard %u: pg %u object %llx.%x: %u blocks from %u at %x are damaged",
		  work->shard->store->path, work->shard->number, work->read->pg,
		  (unsigned long long)key.layer, key.index, count, work->read->block + i,
		  work->blocks[i].place);
	shard_corrupt(work->shard, work->read->pg, &key, work->read->block + i, count,
		      work->blocks[i].place);
}

static int read_blocks(struct work *work, uint32_t i, uint32_t count, bool is_half);

/*
 * One sector that cannot be read is an error of all that was read with it, and its neighbours may be the only
 * good copy. So what failed is read again, in halves, down to the blocks that cannot be read by themselves. All of
 * that is one error of the disk.
 */
static void read_halves(struct work *work, const struct read_io *rio)
{
	uint32_t half = rio->count / 2;
	int rc = read_blocks(work, rio->first, half, true);

	if (rc == 0)
		rc = read_blocks(work, rio->first + half, rio->count - half, true);
	if (rc < 0 && work->result == 0)
		work->result = rc;
}

/* The blocks of one operation. What they show may stop the shard, and then the work is abandoned. */

static void check_blocks(struct work *work, const struct read_io *rio, int result)
{
	struct store_read *read = work->read;

	if (result < 0) {
		if (!rio->is_half)
			damage_unreadable(work->shard, work->blocks[rio->first].place, rio->count,
					  result);
		if (work->is_abandoned)
			return;
		if (rio->count > 1)
			read_halves(work, rio);
		else
			work_is_bad(work, rio->first, 1);
		return;
	}
	for (uint32_t i = rio->first; i < rio->first + rio->count && !work->is_abandoned; i++) {
		uint32_t crc = crc32c(work->buffer->data + i * BLOCK_SIZE, BLOCK_SIZE);
		uint32_t seed = block_seed(read->family, read->index, read->block + i);
		if (RULE(D3_BLOCK_SUMS) && (crc ^ seed) != work->blocks[i].crc) {
			work_is_bad(work, i, 1);
			damage_wrong_sum(work->shard, work->blocks[i].place);
			continue;
		}
		if (read->crcs)
			read->crcs[i] = crc;
	}
}

static void on_read(struct io *io, int result)
{
	struct read_io *rio = container_of_type(io, struct read_io, io);
	struct work *work = rio->work;
	struct shard *shard = work->shard;

	if (!work->is_abandoned)
		check_blocks(work, rio, result);
	segment_unpin(shard, rio->segment);
	cds_list_add(&rio->io.link, &shard->spare_ios);
	if (--work->ios == 0)
		finish(work, work->result);
}

/* How many blocks from @i on lie one behind the other. */
static uint32_t neighbours(const struct work *work, uint32_t i, uint32_t count)
{
	uint32_t n = 1;

	while (i + n < count && place_state(work->blocks[i + n].place) == BLOCK_DATA &&
	       work->blocks[i + n].place == work->blocks[i].place + n)
		n++;
	return n;
}

static void forget_read_io(struct io *io)
{
	free(container_of_type(io, struct read_io, io));
}

static int read_blocks(struct work *work, uint32_t i, uint32_t count, bool is_half)
{
	struct shard *shard = work->shard;
	uint32_t place = work->blocks[i].place;
	struct read_io *rio = read_io_get(shard);

	if (!rio)
		return -ENOMEM;
	rio->io.done = on_read;
	rio->io.forget = forget_read_io;
	rio->work = work;
	rio->first = i;
	rio->count = count;
	rio->is_half = is_half;
	rio->segment = place_segment(shard, place);
	rio->iov = (struct iovec){work->buffer->data + i * BLOCK_SIZE, (size_t)count * BLOCK_SIZE};
	work->ios++;
	segment_pin(shard, rio->segment);
	shard->counters.reads++;
	shard->counters.bytes_read += (uint64_t)count * BLOCK_SIZE;
	io_read(shard, &rio->io, shard->segments[rio->segment].file, &rio->iov, 1,
		(uint64_t)(place % shard->segment_blocks) * DISK_BLOCK);
	return 0;
}

/* CRC32C of 4,096 zero bytes. */
#define ZERO_CRC 0x98f94189u

static int start_reading(struct work *work)
{
	struct store_read *read = work->read;
	uint32_t count = read->count;
	bool has_data = false;

	for (uint32_t i = 0; i < count; i++) {
		has_data |= place_state(work->blocks[i].place) == BLOCK_DATA;
		if (place_state(work->blocks[i].place) == BLOCK_LOST && !read->states)
			return -E_LOST;
	}
	if (has_data) {
		work->buffer = buffer_new(loop_buffers(work->shard->loop), count * BLOCK_SIZE);
		if (!work->buffer)
			return -ENOMEM;
	}
	for (uint32_t i = 0; i < count;) {
		enum block_state state = place_state(work->blocks[i].place);
		uint32_t n = state == BLOCK_DATA ? neighbours(work, i, count) : 1;
		if (read->states)
			memset(read->states + i, state, n);
		if (state == BLOCK_DATA) {
			int rc = read_blocks(work, i, n, false);
			if (rc < 0)
				work->result = rc;
		} else {
			if (work->buffer)
				memset(work->buffer->data + i * BLOCK_SIZE, 0, BLOCK_SIZE);
			if (read->crcs)
				read->crcs[i] = ZERO_CRC;
		}
		i += n;
	}
	return work->result;
}

/* ---- resolving ---- */

/* Blocks [from, to) of one page in one layer. */
static uint32_t take_places(struct work *work, const struct page *page, uint32_t from, uint32_t to,
			    uint32_t layer)
{
	uint32_t found = 0;

	for (uint32_t b = from; b < to; b++) {
		struct work_block *block = &work->blocks[b - work->read->block];
		uint32_t place = page->places[b % DISK_PAGE_BLOCKS];
		if (block->place != DISK_PLACE_ABSENT || place == DISK_PLACE_ABSENT)
			continue;
		*block = (struct work_block){
			.place = place, .crc = page->crcs[b % DISK_PAGE_BLOCKS], .layer = layer};
		found++;
	}
	return found;
}

/* One layer. Takes from *left what it has; -EAGAIN when pages are on their way. */
static int resolve_layer(struct work *work, struct object *object, uint32_t layer, uint32_t *left)
{
	struct store_read *read = work->read;
	struct object_key key = object_key_of(object);
	uint32_t end = read->block + read->count;
	bool waiting = false;

	for (uint32_t from = read->block; from < end;) {
		uint32_t number = from / DISK_PAGE_BLOCKS;
		uint32_t to = min_of(end, (number + 1) * DISK_PAGE_BLOCKS);
		if (object->slots && object->slots[number]) {
			int rc = cache_load(work->shard, read->pg, &key, object->slots,
					    (uint8_t)number, &work->waiter);
			if (rc < 0)
				return rc;
			if (rc > 0)
				waiting = true;
			else
				*left -= take_places(work,
						     cache_page(work->shard, object->slots[number]),
						     from, to, layer);
		}
		from = to;
	}
	return waiting ? -EAGAIN : 0;
}

/* Everything but the blocks that are lost is as it should be. */
static bool is_salvageable(const struct object *object)
{
	return !(object->flags & (OBJECT_PARTIAL | OBJECT_DAMAGED));
}

static int resolve(struct work *work)
{
	struct store_read *read = work->read;
	struct pg *pg = shard_pg(work->shard, read->pg);
	uint32_t left = read->count;

	for (uint32_t i = 0; i < read->count; i++)
		work->blocks[i].place = DISK_PLACE_ABSENT;
	for (uint32_t l = 0; pg && l < read->layer_count && left > 0; l++) {
		struct object_key key = {.layer = read->layers[l], .index = read->index};
		struct object *object = table_find(&pg->table, &key, NULL);
		if (!object)
			continue;
		if (object->flags & OBJECT_MISSING &&
		    !(read->is_salvage && is_salvageable(object))) {
			read->bad_layer = key.layer;
			return -E_MISSING;
		}
		int rc = resolve_layer(work, object, l, &left);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Block states and sums of a whole object. */
static int resolve_sums(struct work *work)
{
	struct store_sums *sums = work->sums;
	struct pg *pg = shard_pg(work->shard, sums->pg);
	struct object *object = pg ? table_find(&pg->table, &sums->key, NULL) : NULL;
	bool waiting = false;

	memset(sums->states, 0, sizeof(sums->states));
	sums->version = object ? object->version : (struct version){0};
	sums->is_missing = object && object->flags & OBJECT_MISSING;
	for (uint32_t i = 0; object && object->slots && i < DISK_PAGES; i++) {
		if (!object->slots[i])
			continue;
		int rc = cache_load(work->shard, sums->pg, &sums->key, object->slots, (uint8_t)i,
				    &work->waiter);
		if (rc < 0)
			return rc;
		if (rc > 0) {
			waiting = true;
			continue;
		}
		const struct page *page = cache_page(work->shard, object->slots[i]);
		for (uint32_t j = 0; j < DISK_PAGE_BLOCKS; j++) {
			uint32_t block = i * DISK_PAGE_BLOCKS + j;
			sums->states[block] = (uint8_t)place_state(page->places[j]);
			sums->crcs[block] =
				page->crcs[j] ^ block_seed(object->family, sums->key.index, block);
		}
	}
	if (waiting)
		return -EAGAIN;
	for (uint32_t i = 0; i < OBJECT_BLOCKS; i++)
		if (sums->states[i] != BLOCK_DATA)
			sums->crcs[i] = ZERO_CRC;
	/* Who pushes from here on knows what is not there, unless a mark is in flight: these sums do not show it. */
	const struct flight *f = overlay_find(&work->shard->overlay, sums->pg, &sums->key);

	if (!sums->is_peek && object && object->flags & OBJECT_MISSING &&
	    (!f || (f->is_missing && !f->is_marked))) {
		struct table_chunk *chunk;
		object = table_find(&pg->table, &sums->key, &chunk);
		table_touch(&pg->table, chunk);
		object->flags &= (uint8_t)~OBJECT_DAMAGED;
		object->flags |= OBJECT_TOLD;
	}
	return 0;
}

/* Returns a result that ends the work, or 1 when I/O or pages are on their way. */
static int advance(struct work *work)
{
	int rc = work->sums ? resolve_sums(work) : resolve(work);

	if (rc == -EAGAIN)
		return 1;
	if (rc == 0 && !work->sums)
		rc = start_reading(work);
	return work->ios > 0 ? 1 : rc;
}

static void on_ready(struct waiter *waiter)
{
	struct work *work = container_of_type(waiter, struct work, waiter);
	int rc = work->is_abandoned ? 0 : advance(work);

	if (rc <= 0)
		finish(work, rc);
}

static void begin(struct work *work)
{
	int rc = advance(work);

	if (rc <= 0)
		finish_later(work, rc);
}

/* ---- the entry points ---- */

/* Refused before there is a work: answered by an op of its own. */
struct refusal {
	struct loop_op op;
	struct store_read *read;
	struct store_sums *sums;
};

static void on_refused(struct loop_op *op, int result)
{
	struct refusal *refusal = container_of_type(op, struct refusal, op);
	struct store_read *read = refusal->read;
	struct store_sums *sums = refusal->sums;

	free(refusal);
	if (read)
		read->done(read, result);
	else
		sums->done(sums, result);
}

static void refuse(struct shard *shard, struct store_read *read, struct store_sums *sums,
		   int result)
{
	struct refusal *refusal = malloc(sizeof(*refusal));

	assert(refusal); /* 200 bytes on a path that only a failed store takes */
	*refusal = (struct refusal){.op.done = on_refused, .read = read, .sums = sums};
	loop_complete(shard->loop, &refusal->op, result);
}

void store_read(struct store *store, struct store_read *read)
{
	struct shard *shard = shard_of(store, read->pg);
	struct work *work;

	read->data = (struct slice){0};
	read->is_all_hole = false;
	assert(read->layer_count > 0 && read->layer_count <= STORE_LAYERS_MAX);
	assert(read->count > 0 && range_is_within(read->block, read->count, OBJECT_BLOCKS));
	if (shard_is_failed(shard)) {
		refuse(shard, read, NULL, -E_STORE_FAILED);
		return;
	}
	work = work_get(shard, read->count);
	if (!work) {
		refuse(shard, read, NULL, -ENOMEM);
		return;
	}
	work->read = read;
	begin(work);
}

void store_sums(struct store *store, struct store_sums *sums)
{
	struct shard *shard = shard_of(store, sums->pg);
	struct work *work = shard_is_failed(shard) ? NULL : work_get(shard, 1);

	if (!work) {
		refuse(shard, NULL, sums, shard_is_failed(shard) ? -E_STORE_FAILED : -ENOMEM);
		return;
	}
	work->sums = sums;
	begin(work);
}

/* ---- the end ---- */

/* Works with I/O in flight keep their buffers until it comes back, if ever. */
void read_abandon(struct shard *shard, int error)
{
	struct work *work, *next;

	cds_list_for_each_entry_safe(work, next, &shard->works, link) {
		if (work->is_abandoned || loop_op_is_busy(&work->op))
			continue; /* the latter is answered by its own op */
		work->is_abandoned = true;
		if (work->sums)
			work->sums->done(work->sums, error);
		else
			work->read->done(work->read, error);
	}
}

void read_free(struct shard *shard)
{
	struct cds_list_head *lists[] = {&shard->spare_small, &shard->spare_large};
	struct read_io *rio, *rio_next;
	struct work *work, *next;

	cds_list_for_each_entry_safe(work, next, &shard->works, link) {
		buffer_put(work->buffer);
		free(work);
	}
	for (unsigned i = 0; i < ARRAY_COUNT(lists); i++)
		cds_list_for_each_entry_safe(work, next, lists[i], link)
			free(work);
	cds_list_for_each_entry_safe(rio, rio_next, &shard->spare_ios, io.link)
		free(rio);
}
