/*
 * The power goes at every point of a recorded life, and the disk keeps every pattern of a bounded family of
 * what was not synced (disk_images.h). Each image is replayed, and must be a prefix of what was appended with
 * everything that was synced; replayed again it must be the same once more.
 *
 * Trap: a life in which nothing interesting happens has no interesting points. So the record is made in a store
 * that is nearly full, after a power cut that left batches of an earlier life behind the end of the log, and
 * the test fails when a checkpoint, the cleaner, a change of segment or a kind of entry is not in it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/disk_images.h"
#include "tests/unit/store_audit.h"
#include "tests/unit/store_life.h"
#include "tests/unit/store_points.h"

static const struct store_options options = {.size_bytes = 14 * MIB,
					     .segment_bytes = 1 * MIB,
					     .has_small_segments = true,
					     .cache_bytes = 1, /* the least: cold pages */
					     .batches_max = 4};

struct run {
	uint64_t seed;
	struct life *life;
	struct rig rig; /* where images are replayed */
	uint32_t checked, kept_more;
};

static uint32_t floor_of(void *context)
{
	struct life *life = context;

	life_note_completed(life);
	return life->durable;
}

static void open_image(struct run *run, const struct disk_cut *cut)
{
	struct error err = {0};

	if (rig_open(&run->rig, &err) < 0)
		fail_msg("seed %llu event %u, %s: %s", (unsigned long long)run->seed, cut->event,
			 cut->what, err.text);
	if (store_identity(run->rig.store)->lost_log)
		fail_msg("seed %llu event %u, %s: the log is called lost",
			 (unsigned long long)run->seed, cut->event, cut->what);
}

static void check(void *context, const struct disk_cut *cut)
{
	static struct model actual, again, expected;
	struct run *run = context;
	struct store_space first, second;
	uint32_t kept;
	char what[128];

	snprintf(what, sizeof(what), "seed %llu event %u, %s", (unsigned long long)run->seed,
		 cut->event, cut->what);
	open_image(run, cut);
	store_space(run->rig.store, &first);
	/* What replay read was not lost by reading it, nor was it changed. */
	rig_power_cut(&run->rig, run->checked % 2 ? SIM_DROP_UNSYNCED : SIM_KEEP_ALL);
	open_image(run, cut);
	store_space(run->rig.store, &second);
	assert_int_equal(first.live_bytes, second.live_bytes);
	assert_int_equal(first.credit_bytes, second.credit_bytes);
	assert_int_equal(first.allocated_bytes, second.allocated_bytes);
	store_audit(run->rig.store);
	model_read(&run->rig, &actual);
	if (!life_find_prefix(run->life, &actual, cut->floor, what, &expected, &kept))
		fail();
	life_check_records(run->life, &run->rig, &expected);
	run->kept_more += kept > cut->floor;
	/* Now and then life goes on: what is appended to it comes back. */
	if (run->checked++ % 16 == 0) {
		int rc = rig_put(&run->rig, 0, model_layer(0), model_index(0), 1000000, 0, 3,
				 BLOCK_DATA, 77, STORE_SYNC | STORE_ANY_PREVIOUS);
		rig_power_cut(&run->rig, SIM_DROP_UNSYNCED);
		open_image(run, cut);
		model_read(&run->rig, &again);
		if (rc == 0) {
			if (again.pgs[0].last.n != 1000000)
				fail_msg("%s: a synced entry that was appended to it is lost",
					 what);
			if (!again.pgs[0].objects[0].is_missing)
				assert_int_equal(again.pgs[0].objects[0].tags[1], 78);
			again.pgs[0].last = actual.pgs[0].last;
			again.pgs[0].objects[0] = actual.pgs[0].objects[0];
		}
		assert_memory_equal(&actual, &again, sizeof(actual));
	}
	rig_power_cut(&run->rig, SIM_KEEP_ALL);
}

static bool is_enough(const struct life *life, const struct disk_images *images,
		      const struct store_counters *from, uint32_t batches)
{
	struct store_counters now;

	store_counters(life->rig.store, &now);
	return disk_images_batches(images) >= batches && now.checkpoints > from->checkpoints &&
	       now.cleaner_bytes_moved > from->cleaner_bytes_moved;
}

/* A store with a past, whose power has just gone. */
static void make_past(struct life *life, uint64_t seed)
{
	static struct model actual, expected;
	uint32_t kept;

	life_init(life, seed, &options);
	for (uint32_t round = 0; round < 3; round++) {
		life_run(life, 2000);
		rig_power_cut(&life->rig, SIM_RANDOM_UNSYNCED);
		if (round == 2)
			return;
		rig_open_ok(&life->rig);
		model_read(&life->rig, &actual);
		assert_true(
			life_find_prefix(life, &actual, life->durable, "past", &expected, &kept));
		life_adopt(life, &expected);
		life_forget_flights(life);
	}
}

void store_points_run(uint64_t seed, uint32_t batches, uint32_t stride, struct points_tally *tally)
{
	static struct model actual, expected;
	struct life *life = calloc(1, sizeof(*life));
	struct run run = {.seed = seed, .life = life};
	struct store_counters from;
	uint32_t kept;

	make_past(life, seed);
	assert_int_equal(sim_loop_new(life->rig.world, life->rig.host,
				      &(struct loop_options){.name = "store"}, &life->rig.loop),
			 0);

	uint32_t durable = life->durable;

	/* Opening is part of the record; until it is known what there is nothing is demanded. */
	life->durable = 0;
	struct disk_images *images =
		disk_images_record(life->rig.host, life->rig.loop, RIG_PATH, floor_of, life);

	rig_open_ok(&life->rig);
	model_read(&life->rig, &actual);
	assert_true(life_find_prefix(life, &actual, durable, "past", &expected, &kept));
	life_adopt(life, &expected);
	life_forget_flights(life);
	life->pushes = life->deletes = life->trims = 0;
	store_counters(life->rig.store, &from);
	for (uint32_t i = 0; i < 200 && !is_enough(life, images, &from, batches); i++)
		life_run(life, 12);
	disk_images_stop(images);

	struct store_counters to;

	store_counters(life->rig.store, &to);
	rig_init(&run.rig, seed, &options);
	tally->images += disk_images_each(images, run.rig.world, run.rig.host, stride, check, &run);
	tally->events += disk_images_events(images);
	tally->batches += disk_images_batches(images);
	tally->checkpoints += to.checkpoints - from.checkpoints;
	tally->cleaned += to.cleaner_bytes_moved - from.cleaner_bytes_moved;
	tally->segments += to.bytes_appended / MIB - from.bytes_appended / MIB;
	tally->pushes += life->pushes;
	tally->deletes += life->deletes;
	tally->trims += life->trims;
	tally->appended += life->journal_count;
	tally->kept_more += run.kept_more;
	rig_done(&run.rig);
	disk_images_free(images);
	life_done(life);
	free(life);
}
