/*
 * What reading finds: when damage is healed, and when it is the disk that is broken.
 *
 * Whoever reads marks what is damaged, and a copy of it is written elsewhere (shard_corrupt()). On a
 * disk that is broken this has no end: writes work, the copy is read, and is damaged, too. So a shard
 * remembers where its log ended when damage was found: what lies behind was written after that, the
 * heal included.
 *
 * Errors of the disk (the kernel's, short reads included): one place in WINDOW_NS is healed. A place is
 * what lies within NEAR_BLOCKS of the first one, since several may have asked for it at once; after READS_MAX
 * of them it is no sector any more. The store stops at an error elsewhere, or in what was written since.
 *
 * Wrong checksums: however many there are, they are healed. Damage in what was written since begins the
 * next round, and the store stops after ROUNDS_MAX of them.
 */
#include "lib/base/log.h"
#include "sheep/store/store_priv.h"

#define WINDOW_NS   (60 * NS_PER_S)
#define NEAR_BLOCKS 256u
#define READS_MAX   64u
#define ROUNDS_MAX  3u

/* Is this damage the first one for a while? Then the next ones are measured by it. */
static bool is_first(struct shard *shard, struct damage *damage)
{
	return damage->count == 0 || loop_now(shard->loop) - damage->found_ns >= WINDOW_NS;
}

static void remember(struct shard *shard, struct damage *damage, uint32_t count)
{
	damage->found_ns = loop_now(shard->loop);
	damage->count = count;
	damage->generation = shard->generation;
	damage->block = shard->block;
}

static bool was_written_since(const struct shard *shard, const struct damage *damage,
			      uint32_t place)
{
	uint64_t generation = shard->segments[place_segment(shard, place)].generation;

	return generation > damage->generation ||
	       (generation == damage->generation && place % shard->segment_blocks >= damage->block);
}

static bool is_near(const struct damage *damage, uint32_t place, uint32_t count)
{
	return (uint64_t)place + count + NEAR_BLOCKS > damage->place &&
	       place < (uint64_t)damage->place + damage->places + NEAR_BLOCKS;
}

void damage_unreadable(struct shard *shard, uint32_t place, uint32_t count, int error)
{
	struct damage *damage = &shard->unreadable;

	if (shard->state == SHARD_OPENING || shard_is_failed(shard))
		return;
	if (is_first(shard, damage)) {
		log_warning("store '%s': shard %u: %u blocks at %x of the log cannot be read: %s: "
			    "what is lost of them is healed, once",
			    shard->store->path, shard->number, count, place, err_text(error));
		remember(shard, damage, 1);
		damage->place = place;
		damage->places = count;
		return;
	}
	damage->count++;
	if (was_written_since(shard, damage, place))
		shard_fail(shard, error, "reading what was written after a read error");
	else if (!is_near(damage, place, count))
		shard_fail(shard, error, "a second read error within a minute");
	else if (damage->count > READS_MAX)
		shard_fail(shard, error, "too many read errors in one place");
}

void damage_wrong_sum(struct shard *shard, uint32_t place)
{
	struct damage *damage = &shard->wrong_sums;

	if (shard->state == SHARD_OPENING || shard_is_failed(shard))
		return;
	if (is_first(shard, damage))
		remember(shard, damage, 1);
	else if (was_written_since(shard, damage, place))
		remember(shard, damage, damage->count + 1);
	if (damage->count > ROUNDS_MAX)
		shard_fail(shard, -E_CHECKSUM, "what was healed is damaged again and again");
}
