/*
 * Room for checkpoints in a file system that may have less of it than the store was told to use.
 *
 * Without a checkpoint no segment is ever freed, so the two files have what the next one needs before
 * segments take the rest: they are filled with zeroes up to what is wanted when the store is opened, and
 * by the preparer (segment.c) before it fills a segment, and when the table of objects has grown.
 *
 *   needed   a checkpoint of now, however many pages are dirty
 *   low      needed and twice the slack are more than there is: the preparer is woken
 *   wanted   of twice as many objects, three times the slack, and something for each segment
 *
 * When the file system has no more, clients get ENOSPC for what would make the table larger than its
 * room; trims and deletions go on and make it smaller. A checkpoint that is written into zeroes needs no
 * new space on a file system that writes in place; if it gets ENOSPC after all it is put off
 * (checkpoint.c).
 */
#include "lib/base/log.h"
#include "sheep/store/checkpoint.h"

#define STEP_MAX  MIB /* both files in turn */
#define FREE_LEFT 4u  /* segments, for the cleaner to work with */

static uint64_t slack(const struct shard *shard)
{
	return max_of(64 * KIB, (uint64_t)shard->store->segment_bytes / 64);
}

static uint64_t needed_for(const struct shard *shard, uint64_t objects)
{
	uint64_t record =
		sizeof(struct disk_record_object) + DISK_PAGES * sizeof(struct disk_record_slot);
	uint64_t pages = min_of(objects * DISK_PAGES, (uint64_t)checkpoint_dirty_max(shard));
	uint64_t body = shard->checkpoint->shard_bytes + objects * record +
			pages * DISK_PAGE_RECORD_MAX + sizeof(struct disk_entry);

	return DISK_BLOCK + round_up(body, (uint64_t)DISK_BLOCK);
}

static uint64_t needed(const struct shard *shard)
{
	return needed_for(shard, shard->saver.objects);
}

static uint64_t wanted(const struct shard *shard)
{
	uint64_t segments = shard->segment_count - shard->state_counts[SEGMENT_RAW];
	uint64_t each = shard->store->segment_bytes / 256;

	return round_up(needed_for(shard, 2 * shard->saver.objects) + 3 * slack(shard) +
				shard->checkpoint->shard_bytes + segments * each,
			(uint64_t)DISK_BLOCK);
}

static uint64_t room_of(const struct shard *shard)
{
	return min_of(shard->checkpoint->room[0], shard->checkpoint->room[1]);
}

bool room_is_low(const struct shard *shard)
{
	return needed(shard) + 2 * slack(shard) > room_of(shard);
}

bool room_is_used_up(const struct shard *shard, enum room_user user)
{
	bool is_client = user == ROOM_CLIENT;
	uint64_t left = is_client ? slack(shard) : 0;

	/* Without checkpoints nothing is freed: there is as much as there is. */
	if (checkpoint_is_put_off(shard) &&
	    segment_available(shard) <= (is_client ? shard->watermark : shard->reserve))
		return true;
	return shard->is_file_system_full && needed(shard) + left > room_of(shard);
}

bool room_lacks(const struct shard *shard, uint32_t *out_area, uint64_t *out_offset,
		uint32_t *out_length)
{
	const uint64_t *room = shard->checkpoint->room;
	uint64_t want = wanted(shard), step = min_of(slack(shard), STEP_MAX);
	uint32_t area = room[1] < room[0];

	if (room[area] >= want)
		return false;
	*out_area = area;
	*out_offset = room[area];
	*out_length = (uint32_t)min_of(want - room[area], step);
	return true;
}

void room_made(struct shard *shard, uint32_t area, uint64_t end)
{
	struct checkpoint *c = shard->checkpoint;

	c->room[area] = max_of(c->room[area], end);
}

struct loop_file *room_file(const struct shard *shard, uint32_t area)
{
	return shard->checkpoint->files[area];
}

/* ---- at the opening: blocking ---- */

static int fill(struct shard *shard)
{
	uint32_t area, length;
	uint64_t offset;
	int rc = 0;

	while (rc >= 0 && room_lacks(shard, &area, &offset, &length)) {
		rc = loop_sync_write(shard->loop, room_file(shard, area), preparer_zeroes(shard),
				     length, offset);
		if (rc >= 0)
			room_made(shard, area, offset + length);
	}
	return rc;
}

static int give_back(struct shard *shard, uint32_t number)
{
	struct segment *segment = &shard->segments[number];

	segment->is_prepared = false;
	if (segment->state == SEGMENT_FREE)
		segment_enter(shard, number, SEGMENT_RAW);
	return loop_sync_size(shard->loop, segment->file) > 0
		       ? loop_sync_truncate(shard->loop, segment->file, 0)
		       : 0;
}

/* Segments that hold nothing but zeroes give their space back: those that are not ready, or one that is. */
static int take_from(struct shard *shard, enum segment_state state)
{
	int rc = 0;

	for (uint32_t i = 0; i < shard->segment_count && rc >= 0; i++) {
		if (shard->segments[i].state != state)
			continue;
		if (state == SEGMENT_FREE)
			return shard->state_counts[state] > FREE_LEFT ? give_back(shard, i) : 0;
		rc = give_back(shard, i);
	}
	return rc;
}

/* The checkpoint that says so may be older than a segment's loss of its space. */
static void find_given_back(struct shard *shard)
{
	for (uint32_t i = 0; i < shard->segment_count; i++) {
		struct segment *segment = &shard->segments[i];
		if (segment->state != SEGMENT_FREE ||
		    loop_sync_size(shard->loop, segment->file) >= shard->store->segment_bytes)
			continue;
		segment->is_prepared = false;
		segment_enter(shard, i, SEGMENT_RAW);
	}
}

int room_open(struct shard *shard, struct error *err)
{
	struct checkpoint *c = shard->checkpoint;
	int rc;

	for (uint32_t i = 0; i < 2; i++) {
		int64_t size = loop_sync_size(shard->loop, c->files[i]);
		c->room[i] = size > 0 ? round_down((uint64_t)size, (uint64_t)DISK_BLOCK) : 0;
	}
	find_given_back(shard);
	rc = fill(shard);
	for (unsigned i = 0; i < 2 && is_no_room(rc); i++) {
		rc = take_from(shard, i == 0 ? SEGMENT_RAW : SEGMENT_FREE);
		if (rc >= 0)
			rc = fill(shard);
	}
	if (is_no_room(rc)) {
		log_warning("store '%s': shard %u: the file system is full: %llu KiB for a "
			    "checkpoint, %llu are needed now",
			    shard->store->path, shard->number,
			    (unsigned long long)(room_of(shard) / KIB),
			    (unsigned long long)(needed(shard) / KIB));
		shard->is_file_system_full = true;
		return 0;
	}
	return rc < 0 ? error_set(err, rc, "store '%s': make room for checkpoints of shard %u",
				  shard->store->path, shard->number)
		      : 0;
}
