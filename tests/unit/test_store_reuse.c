/*
 * No segment is written again before the checkpoint that frees it is on stable storage: checkpoints hang
 * in their last sync, the store is overwritten until it waits for one, and then the power goes.
 *
 * Trap: a store that has free segments left when the power goes has reused none, right or wrong. Each run
 * goes on until the log stops, and counts how often it went round.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/store_rig.h"

#define OBJECTS	     8u
#define ENTRY_BLOCKS 30u
#define SEGMENTS     24u
#define ROUND	     (SEGMENTS * 256u / (ENTRY_BLOCKS + 1)) /* entries in as many blocks as there are */

static const struct store_options options = {.size_bytes = SEGMENTS * MIB,
					     .segment_bytes = 1 * MIB,
					     .has_small_segments = true,
					     .deadline_ns = 3600 * NS_PER_S};

struct life {
	struct rig rig;
	uint64_t n;
	uint32_t synced[OBJECTS]; /* first tag of what was acknowledged last; 0: nothing */
	struct rig_append a;
};

static bool is_done(void *context)
{
	return ((struct life *)context)->a.is_done;
}

/* Overwrite the next object. False: nothing came of it for a long time. */
static bool rewrite(struct life *life)
{
	struct rig_append *a = &life->a;
	uint32_t object = (uint32_t)(life->n % OBJECTS), tags[ENTRY_BLOCKS];
	uint32_t tag = 1 + (uint32_t)life->n * ENTRY_BLOCKS;

	for (uint32_t i = 0; i < ENTRY_BLOCKS; i++)
		tags[i] = tag + i;
	*a = (struct rig_append){.append = {.key = {1, object},
					    .family = rig_family(1),
					    .version = {1, ++life->n},
					    .flags = STORE_SYNC | STORE_ANY_PREVIOUS,
					    .run_count = 1},
				 .runs = {{0, ENTRY_BLOCKS, BLOCK_DATA}}};
	assert_int_equal(rig_append(&life->rig, a, tags), 0);
	if (!sim_world_run_until(life->rig.world, sim_now(life->rig.world) + 2 * NS_PER_S, is_done,
				 life))
		return false;
	rig_append_free(a);
	assert_int_equal(a->result, 0);
	life->synced[object] = tag;
	return true;
}

/* How many entries the log took before it stopped. */
static uint32_t rewrite_until_it_stops(struct life *life)
{
	uint32_t count = 0;

	while (rewrite(life))
		if (++count > 4 * ROUND)
			fail_msg("segments are reused though no checkpoint is durable");
	assert_false(store_is_failed(life->rig.store));
	return count;
}

/* The checkpoints of a file are all written, and none is synced. */
static void hang_checkpoint(struct life *life, const char *path)
{
	assert_int_equal(sim_file_fault(life->rig.host, path, LOOP_OP_SYNC, 1, SIM_FAULT_HANG), 0);
}

/* After a crash: the entry that waited is gone with everything else that was in memory. */
static void come_back(struct life *life)
{
	rig_append_free(&life->a);
	rig_open_ok(&life->rig);
	assert_false(store_identity(life->rig.store)->lost_log);
	for (uint32_t object = 0; object < OBJECTS; object++) {
		uint32_t tags[ENTRY_BLOCKS];
		assert_int_equal(rig_read(&life->rig, 0, 1, object, 0, ENTRY_BLOCKS, tags), 0);
		for (uint32_t i = 0; i < ENTRY_BLOCKS; i++)
			assert_int_equal(tags[i], life->synced[object] + i);
	}
	assert_int_equal(life->rig.corrupt, 0);
}

static int setup(void **state)
{
	struct life *life = calloc(1, sizeof(*life));

	rig_init(&life->rig, 1, &options);
	rig_open_ok(&life->rig);
	rig_settle(&life->rig, 1 * NS_PER_S);
	*state = life;
	return 0;
}

static int teardown(void **state)
{
	struct life *life = *state;

	rig_done(&life->rig);
	free(life);
	return 0;
}

static void test_no_segment_is_reused_before_its_checkpoint_is_durable(void **state)
{
	struct life *life = *state;

	/* The second checkpoint: the first was at creation, and is all that there will be. */
	hang_checkpoint(life, RIG_PATH "/checkpoint.00.00000");
	assert_in_range(rewrite_until_it_stops(life), ROUND / 2, ROUND);
	rig_power_cut(&life->rig, SIM_DROP_UNSYNCED);
	come_back(life);
	for (uint32_t i = 0; i < 2 * ROUND; i++)
		assert_true(rewrite(life));
}

static void on_read(struct store_read *read, int result)
{
	assert_int_equal(result, 0);
	buffer_put(read->data.buffer);
	read->count = 0;
}

/* The last reader that leaves an empty segment does not free it before its time. */
static void test_reader_that_ends_frees_nothing_too_early(void **state)
{
	static const uint64_t layer = 1;
	struct life *life = *state;
	struct store_read read = {.done = on_read,
				  .family = rig_family(1),
				  .layers = &layer,
				  .layer_count = 1,
				  .count = 1};

	assert_true(rewrite(life));
	assert_int_equal(sim_file_fault(life->rig.host, RIG_PATH "/segment.00.00000", LOOP_OP_READ,
					1, SIM_FAULT_HANG),
			 0);
	store_read(life->rig.store, &read);
	hang_checkpoint(life, RIG_PATH "/checkpoint.00.00000");
	(void)rewrite_until_it_stops(life);
	assert_int_equal(read.count, 1);
	assert_int_equal(sim_file_unhang(life->rig.host, RIG_PATH "/segment.00.00000"), 0);
	rig_settle(&life->rig, 1 * NS_PER_S);
	assert_int_equal(read.count, 0);
	assert_false(life->a.is_done);
	rig_power_cut(&life->rig, SIM_DROP_UNSYNCED);
	come_back(life);
}

/* What is read after a kill may be in memory only: it frees segments, so it is synced first. */
static void test_checkpoint_that_is_loaded_is_made_durable(void **state)
{
	struct life *life = *state;

	hang_checkpoint(life, RIG_PATH "/checkpoint.00.00000");
	(void)rewrite_until_it_stops(life);
	rig_crash(&life->rig);
	/* The third one hangs as well: on disk its file still has the checkpoint of the creation. */
	hang_checkpoint(life, RIG_PATH "/checkpoint.00.00001");
	come_back(life);
	assert_true(rewrite_until_it_stops(life) > ROUND / 10);
	rig_power_cut(&life->rig, SIM_DROP_UNSYNCED);
	come_back(life);
	for (uint32_t i = 0; i < 2 * ROUND; i++)
		assert_true(rewrite(life));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_no_segment_is_reused_before_its_checkpoint_is_durable),
		TEST(test_reader_that_ends_frees_nothing_too_early),
		TEST(test_checkpoint_that_is_loaded_is_made_durable),
	};
#undef TEST
	return cmocka_run_group_tests(tests, rig_log_start, rig_log_stop);
}
