/*
 * The segments of a shard.
 *
 *   RAW --> PREPARING --> FREE --> NEXT --> CURRENT --> FULL --> EMPTY
 *                           ^                                      |
 *                           +---- a durable checkpoint, no readers +
 *
 * The file of every segment exists since the shard was created; it is filled with zeroes before
 * its first use, in the background, so that appending and syncing never allocate. A segment
 * from which somebody reads is not reused.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"
#include "lib/base/rule.h"
#include "sheep/store/store_priv.h"

static const struct {
	const char *name;
	uint8_t next; /* mask of states */
} states[SEGMENT_STATES] = {
	[SEGMENT_RAW] = {"raw", BIT(SEGMENT_PREPARING) | BIT(SEGMENT_FREE)},
	[SEGMENT_PREPARING] = {"preparing", BIT(SEGMENT_FREE) | BIT(SEGMENT_RAW)},
	[SEGMENT_FREE] = {"free", BIT(SEGMENT_NEXT) | BIT(SEGMENT_RAW)},
	[SEGMENT_NEXT] = {"next", BIT(SEGMENT_CURRENT)},
	[SEGMENT_CURRENT] = {"current", BIT(SEGMENT_FULL)},
	[SEGMENT_FULL] = {"full", BIT(SEGMENT_EMPTY)},
	[SEGMENT_EMPTY] = {"empty", BIT(SEGMENT_FREE)},
};

const char *segment_state_name(enum segment_state state)
{
	return state < SEGMENT_STATES ? states[state].name : "unknown";
}

/* Keep dead_count: take the segment out before it changes, put it in after. */
static void count_dead(struct shard *shard, const struct segment *segment, int by)
{
	if (segment->state == SEGMENT_FULL && segment->live_bytes == 0)
		shard->dead_count += (uint32_t)by;
}

/* The only place that moves a segment while the shard runs. */
void segment_enter(struct shard *shard, uint32_t number, enum segment_state next)
{
	struct segment *segment = &shard->segments[number];

	assert(states[segment->state].next & BIT(next));
	log_debug("store '%s': shard %u segment %u: %s -> %s", shard->store->path, shard->number,
		  number, segment_state_name(segment->state), segment_state_name(next));
	shard->state_counts[segment->state]--;
	shard->state_counts[next]++;
	count_dead(shard, segment, -1);
	segment->state = (uint8_t)next;
	count_dead(shard, segment, 1);
}

void segment_live_add(struct shard *shard, uint32_t place, uint32_t bytes)
{
	struct segment *segment = &shard->segments[place_segment(shard, place)];

	count_dead(shard, segment, -1);
	segment->live_bytes += bytes;
	count_dead(shard, segment, 1);
	shard->live_bytes += bytes;
}

void segment_live_drop(struct shard *shard, uint32_t place, uint32_t bytes)
{
	struct segment *segment = &shard->segments[place_segment(shard, place)];

	/* Only after damage to an index page can more be dropped than is counted. */
	bytes = (uint32_t)min_of((uint64_t)bytes, segment->live_bytes);
	count_dead(shard, segment, -1);
	segment->live_bytes -= bytes;
	count_dead(shard, segment, 1);
	shard->live_bytes -= bytes;
}

uint32_t segment_unfilled(const struct shard *shard)
{
	return shard->state_counts[SEGMENT_RAW] + shard->state_counts[SEGMENT_PREPARING];
}

uint32_t segment_available(const struct shard *shard)
{
	uint32_t unfilled = shard->is_file_system_full ? 0 : segment_unfilled(shard);

	return shard->state_counts[SEGMENT_FREE] + unfilled;
}

int segment_pick_free(const struct shard *shard, uint32_t *out)
{
	if (shard->state_counts[SEGMENT_FREE] == 0)
		return -ENOSPC;
	for (uint32_t i = 0; i < shard->segment_count; i++)
		if (shard->segments[i].state == SEGMENT_FREE) {
			*out = i;
			return 0;
		}
	return -ENOSPC;
}

/* ---- recycling ---- */

static void release(struct shard *shard, uint32_t number)
{
	segment_enter(shard, number, SEGMENT_FREE);
	log_kick(shard);
}

void segment_pin(struct shard *shard, uint32_t number)
{
	shard->segments[number].readers++;
}

void segment_unpin(struct shard *shard, uint32_t number)
{
	struct segment *segment = &shard->segments[number];

	assert(segment->readers > 0);
	segment->readers--;
	if (segment->readers == 0 && segment->state == SEGMENT_EMPTY && shard->checkpoint &&
	    segment->empty_checkpoint <= checkpoint_durable(shard))
		release(shard, number);
}

void segment_mark_empty(struct shard *shard, uint64_t checkpoint, uint64_t replay_generation)
{
	for (uint32_t i = 0; i < shard->segment_count; i++) {
		struct segment *segment = &shard->segments[i];
		if (segment->state != SEGMENT_FULL)
			continue;
		if (segment->is_cleaned)
			shard->cleaned_count--;
		segment->is_cleaned = false;
		segment->was_barren = false; /* worth another look now and then */
		if (segment->live_bytes == 0 && segment->generation < replay_generation) {
			segment_enter(shard, i, SEGMENT_EMPTY);
			segment->empty_checkpoint = checkpoint;
		}
	}
	if (!RULE(D2_REUSE_AFTER_CHECKPOINT))
		segment_release(shard, checkpoint);
}

void segment_release(struct shard *shard, uint64_t durable_checkpoint)
{
	for (uint32_t i = 0; i < shard->segment_count; i++) {
		struct segment *segment = &shard->segments[i];
		if (segment->state == SEGMENT_EMPTY && segment->readers == 0 &&
		    segment->empty_checkpoint <= durable_checkpoint)
			release(shard, i);
	}
}

/* ---- files ---- */

static int open_one(struct shard *shard, uint32_t number, unsigned flags, struct error *err)
{
	char path[PATH_ROOM + 64];

	store_file_name(shard->store, path, "segment", shard->number, number);
	return loop_sync_open(shard->loop, path,
			      LOOP_FILE_READ | LOOP_FILE_WRITE | LOOP_FILE_DIRECT | flags,
			      &shard->segments[number].file, err);
}

static int open_all(struct shard *shard, unsigned flags, struct error *err)
{
	for (uint32_t i = 0; i < shard->segment_count; i++) {
		int rc = open_one(shard, i, flags, err);
		if (rc == -EMFILE || rc == -ENFILE)
			return error_set(err, rc, "store '%s': %u segments need as many open files",
					 shard->store->path, shard->segment_count);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int segment_create_all(struct shard *shard, struct error *err)
{
	return open_all(shard, LOOP_FILE_CREATE, err);
}

int segment_open_all(struct shard *shard, struct error *err)
{
	return open_all(shard, 0, err);
}

/* ---- zeroes ---- */

/*
 * Fills raw segments, one at a time: WRITING until the end, then SYNCING, then the next one. When the
 * file system is full it stops where it is; a later append lets it try again, from there. The files of
 * checkpoints come first (MAKING_ROOM, a step at a time): room.c.
 */
struct preparer {
	struct shard *shard;
	struct io io;
	struct iovec iov;
	struct buffer *zeroes;
	enum { PREPARER_IDLE, PREPARER_WRITING, PREPARER_SYNCING, PREPARER_MAKING_ROOM } state;
	uint32_t area; /* MAKING_ROOM: of which checkpoint file, and up to where */
	uint64_t end;
	uint32_t segment;
	uint64_t offset;
	bool is_halfway;   /* `segment` is filled up to `offset` */
	uint64_t retry_ns; /* the file system was full: not before */
};

#define ZEROES_SIZE (1u << 20)
#define RETRY_NS    NS_PER_S

int segment_prepare_now(struct shard *shard, uint32_t number, struct error *err)
{
	struct segment *segment = &shard->segments[number];
	struct preparer *preparer = shard->preparer;
	int rc = 0;

	for (uint64_t at = 0; at < shard->store->segment_bytes && rc >= 0; at += ZEROES_SIZE)
		rc = loop_sync_write(shard->loop, segment->file, preparer->zeroes->data,
				     ZEROES_SIZE, at);
	if (rc >= 0)
		rc = loop_sync_fsync(shard->loop, segment->file);
	if (rc < 0)
		return error_set(err, rc, "store '%s': fill segment %u of shard %u",
				 shard->store->path, number, shard->number);
	segment->is_prepared = true;
	segment_enter(shard, number, SEGMENT_FREE);
	return 0;
}

static void write_next(struct preparer *preparer)
{
	struct shard *shard = preparer->shard;

	preparer->iov = (struct iovec){preparer->zeroes->data, ZEROES_SIZE};
	io_write(shard, &preparer->io, shard->segments[preparer->segment].file, &preparer->iov, 1,
		 preparer->offset);
}

/* So many are kept ready. */
static bool wants_more(const struct shard *shard)
{
	return shard->state_counts[SEGMENT_FREE] < shard->reserve + 4 &&
	       shard->state_counts[SEGMENT_RAW] > 0;
}

static void go_on(struct preparer *preparer)
{
	struct shard *shard = preparer->shard;

	preparer->state = PREPARER_IDLE;
	preparer->retry_ns = 0;
	/* What is left counts again once there is as much ahead as ever. */
	if (shard->is_file_system_full && !wants_more(shard) && !room_is_low(shard)) {
		shard->is_file_system_full = false;
		log_info("store '%s': shard %u: the file system has room again", shard->store->path,
			 shard->number);
	}
	preparer_kick(shard);
	log_kick(shard);
	shard_check_stop(shard);
}

static void on_prepared(struct preparer *preparer)
{
	struct shard *shard = preparer->shard;

	shard->segments[preparer->segment].is_prepared = true;
	segment_enter(shard, preparer->segment, SEGMENT_FREE);
	go_on(preparer);
}

static void on_room(struct preparer *preparer)
{
	room_made(preparer->shard, preparer->area, preparer->end);
	go_on(preparer);
}

/* The file system has no room: what is prepared is all there is, until somebody makes room. */
static void on_full(struct preparer *preparer)
{
	struct shard *shard = preparer->shard;

	if (!shard->is_file_system_full)
		log_warning(
			"store '%s': shard %u: the file system is full: going on with %u of %u segments",
			shard->store->path, shard->number,
			shard->segment_count - segment_unfilled(shard), shard->segment_count);
	shard->is_file_system_full = true;
	if (preparer->state != PREPARER_MAKING_ROOM) {
		segment_enter(shard, preparer->segment, SEGMENT_RAW);
		/* A sync that found no room does not say where it is missing: again from the start. */
		preparer->is_halfway = preparer->state == PREPARER_WRITING && preparer->offset > 0;
	}
	preparer->state = PREPARER_IDLE;
	preparer->retry_ns = loop_now(shard->loop) + RETRY_NS;
	log_kick(shard);
	shard_check_stop(shard);
}

static void on_prepare_io(struct io *io, int result)
{
	struct preparer *preparer = container_of_type(io, struct preparer, io);
	struct shard *shard = preparer->shard;

	if (shard_is_failed(shard))
		return;
	if (result == -ENOSPC || result == -EDQUOT) {
		on_full(preparer);
		return;
	}
	if (result < 0) {
		shard_fail(shard, result, "filling a segment with zeroes");
		return;
	}
	if (preparer->state == PREPARER_MAKING_ROOM) {
		on_room(preparer);
		return;
	}
	if (preparer->state == PREPARER_SYNCING) {
		on_prepared(preparer);
		return;
	}
	preparer->offset += ZEROES_SIZE;
	if (preparer->offset < shard->store->segment_bytes) {
		write_next(preparer);
		return;
	}
	preparer->state = PREPARER_SYNCING;
	io_sync(shard, &preparer->io, shard->segments[preparer->segment].file);
}

int preparer_new(struct shard *shard)
{
	struct preparer *preparer = calloc(1, sizeof(*preparer));

	if (!preparer)
		return -ENOMEM;
	shard->preparer = preparer;
	preparer->shard = shard;
	preparer->io.done = on_prepare_io;
	preparer->zeroes = buffer_new(loop_buffers(shard->loop), ZEROES_SIZE);
	if (!preparer->zeroes)
		return -ENOMEM;
	memset(preparer->zeroes->data, 0, ZEROES_SIZE);
	return 0;
}

void preparer_free(struct shard *shard)
{
	if (!shard->preparer)
		return;
	buffer_put(shard->preparer->zeroes);
	free(shard->preparer);
	shard->preparer = NULL;
}

bool preparer_is_idle(const struct shard *shard)
{
	return shard->preparer->state == PREPARER_IDLE;
}

bool preparer_makes_room(const struct shard *shard)
{
	return shard->preparer->state == PREPARER_MAKING_ROOM;
}

void *preparer_zeroes(const struct shard *shard)
{
	return shard->preparer->zeroes->data;
}

/* A segment that is partly filled comes first. */
static uint32_t pick_raw(const struct shard *shard)
{
	uint32_t i = 0;

	if (shard->preparer->is_halfway)
		return shard->preparer->segment;
	while (shard->segments[i].state != SEGMENT_RAW)
		i++;
	return i;
}

static bool is_wanted(const struct shard *shard)
{
	bool is_low = room_is_low(shard);

	if (!shard->is_file_system_full)
		return wants_more(shard) || is_low;
	return loop_now(shard->loop) >= shard->preparer->retry_ns &&
	       (shard->state_counts[SEGMENT_RAW] > 0 || is_low);
}

static void fill_segment(struct preparer *preparer)
{
	preparer->segment = pick_raw(preparer->shard);
	segment_enter(preparer->shard, preparer->segment, SEGMENT_PREPARING);
	if (!preparer->is_halfway)
		preparer->offset = 0;
	preparer->is_halfway = false;
	preparer->state = PREPARER_WRITING;
	write_next(preparer);
}

static void make_room(struct preparer *preparer, uint64_t offset, uint32_t length)
{
	preparer->end = offset + length;
	preparer->state = PREPARER_MAKING_ROOM;
	preparer->iov = (struct iovec){preparer->zeroes->data, length};
	io_write(preparer->shard, &preparer->io, room_file(preparer->shard, preparer->area),
		 &preparer->iov, 1, offset);
}

void preparer_kick(struct shard *shard)
{
	struct preparer *preparer = shard->preparer;
	uint64_t offset;
	uint32_t length;

	if (preparer->state != PREPARER_IDLE || !shard_makes_space(shard) || !is_wanted(shard))
		return;
	/* Not while a checkpoint is written: its end comes back here. */
	if (checkpoint_is_idle(shard) && room_lacks(shard, &preparer->area, &offset, &length))
		make_room(preparer, offset, length);
	else if (wants_more(shard) ||
		 (shard->is_file_system_full && shard->state_counts[SEGMENT_RAW] > 0))
		fill_segment(preparer);
}
