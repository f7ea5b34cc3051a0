/*
 * The power goes at any moment of a random life of a store: what comes back is a prefix of what was
 * appended, with everything that was synced, and nothing torn. Then life goes on from there.
 *
 * Trap: a store that is idle when the power goes proves nothing; each round counts what was in
 * flight, and the run fails if too little was.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/log.h"
#include "tests/unit/store_audit.h"
#include "tests/unit/store_life.h"

static void cut_and_check(struct life *life, uint64_t seed, uint32_t round)
{
	static const char *const names[] = {"kept all", "dropped all", "random sectors", "killed"};
	uint32_t mode = life_below(life, 4), at_least = life->durable;
	char what[80];

	snprintf(what, sizeof(what), "seed %llu round %u: %s", (unsigned long long)seed, round,
		 names[mode]);
	life->cuts_in_flight += life->completed < life->journal_count;
	if (mode == 3) {
		at_least = max_of(life->durable, life->completed);
		rig_crash(&life->rig);
	} else {
		rig_power_cut(&life->rig, (enum sim_power_cut)mode);
	}

	struct error err = {0};

	if (rig_open(&life->rig, &err) < 0)
		fail_msg("%s: %s", what, err.text);
	if (store_identity(life->rig.store)->lost_log)
		fail_msg("%s: the log is called lost", what);

	static struct model actual, expected;
	uint32_t kept;

	store_audit(life->rig.store);
	model_read(&life->rig, &actual);
	if (!life_find_prefix(life, &actual, at_least, what, &expected, &kept))
		fail();
	life->lost_entries += life->journal_count - kept;
	life->kept_unsynced += kept - at_least;
	life_check_records(life, &life->rig, &expected);
	life_adopt(life, &expected);
	life_forget_flights(life);
}

/* ---- damage ---- */

static char names[64][80];
static uint32_t name_count;

static int add_name(void *context, const char *name)
{
	if (strcmp(name, "superblock") != 0 && name_count < ARRAY_COUNT(names))
		snprintf(names[name_count++], sizeof(names[0]), "%s/%s", RIG_PATH, name);
	return 0;
}

/* Flip one bit of a block that holds something, or that begins a batch. */
static void flip_a_bit(struct life *life, bool is_descriptor)
{
	static const char magic[] = "SPFB";
	static const uint8_t zeroes[BLOCK_SIZE];
	uint8_t block[BLOCK_SIZE];

	for (;;) {
		const char *name = names[life_below(life, name_count)];
		uint64_t offset = (uint64_t)life_below(life, 256) * BLOCK_SIZE;
		if (sim_file_peek(life->rig.host, name, block, BLOCK_SIZE, offset) != BLOCK_SIZE ||
		    memcmp(block, zeroes, BLOCK_SIZE) == 0 ||
		    (is_descriptor && memcmp(block, magic, 4) != 0))
			continue;
		uint32_t at =
			life_below(life, is_descriptor || life_below(life, 2) ? 200 : BLOCK_SIZE);
		block[at] ^= (uint8_t)(1u << life_below(life, 8));
		assert_int_equal(sim_file_poke(life->rig.host, name, block + at, 1, offset + at),
				 0);
		return;
	}
}

struct outcomes {
	uint32_t harmless, marked, lost;
};

/* Is what can be read a state that the store was in; a late one unless it says that the log is lost? */
static void check_damaged(struct life *life, uint64_t seed, uint32_t named,
			  struct outcomes *outcomes)
{
	static struct model actual, expected;
	bool is_lost = store_identity(life->rig.store)->lost_log;
	uint32_t marked = 0;

	life->rig.is_damaged = true;
	model_read(&life->rig, &actual);
	for (uint32_t i = 0; i < RIG_PGS; i++)
		for (uint32_t j = 0; j < RIG_OBJECTS; j++)
			marked += actual.pgs[i].objects[j].is_damaged &&
				  !life->newest.pgs[i].objects[j].is_missing;
	if (is_lost)
		outcomes->lost++;
	else if (marked > 0)
		outcomes->marked++;
	else
		outcomes->harmless++;
	expected = (struct model){0};
	for (uint32_t k = 0; k <= life->journal_count; k++) {
		static struct model allowed;
		if (k > 0)
			model_apply(&expected, &life->journal[k - 1]);
		if (!is_lost && k < named)
			continue;
		allowed = expected;
		life_allow_forgotten(life, &allowed, &actual, k);
		if (model_is_equal(&allowed, &actual))
			return;
	}
	printf("seed %llu: lost log %d\n", (unsigned long long)seed, is_lost);
	model_print_difference(&life->newest, &actual);
	fail();
}

static bool is_long(void)
{
	const char *text = getenv("SHEEPFOLD_LONG");

	return text && *text;
}

static void test_power_cut_at_any_moment_leaves_a_prefix(void **state)
{
	struct store_options options = {.size_bytes = 24 * MIB,
					.segment_bytes = 1 * MIB,
					.has_small_segments = true,
					.cache_bytes = 1, /* the least: cold pages */
					.batches_max = 4};
	struct life *life = calloc(1, sizeof(*life));
	const char *only = getenv("SHEEPFOLD_SEED");
	uint64_t first = only ? strtoull(only, NULL, 0) : 1;
	uint64_t seeds = only ? 1 : is_long() ? 200 : 12;
	struct store_counters counters;
	uint64_t cleaned = 0, checkpoints = 0, lost = 0, kept = 0, busy = 0, full = 0;

	for (uint64_t seed = first; seed < first + seeds; seed++) {
		/* Half of the stores are so small that the cleaner never rests. */
		options.size_bytes = seed % 2 ? 14 * MIB : 24 * MIB;
		life_init(life, seed, &options);
		for (uint32_t round = 0; round < 40; round++) {
			life_run(life, 1 + life_below(life, 400));
			store_counters(life->rig.store, &counters);
			cleaned += counters.cleaner_segments;
			checkpoints += counters.checkpoints;
			cut_and_check(life, seed, round);
		}
		lost += life->lost_entries;
		kept += life->kept_unsynced;
		busy += life->cuts_in_flight;
		full += life->refused_full;
		life_done(life);
	}
	printf("lost %llu entries, kept %llu that were not synced, %llu cuts with entries in flight, "
	       "%llu refused for space, %llu checkpoints, %llu segments cleaned\n",
	       (unsigned long long)lost, (unsigned long long)kept, (unsigned long long)busy,
	       (unsigned long long)full, (unsigned long long)checkpoints,
	       (unsigned long long)cleaned);
	assert_true(only || (lost > 0 && kept > 0 && busy > seeds * 10 && checkpoints > seeds &&
			     cleaned > 0));
	free(life);
}

static void drop_line(struct logger *logger, enum log_level level, const char *line)
{
}

static bool has_nothing_in_flight(void *context)
{
	struct life *life = context;

	life_note_completed(life);
	for (uint32_t i = 0; i < life->journal_count; i++)
		if (life->flights[i] && !life->flights[i]->a.is_done)
			return false;
	return true;
}

/*
 * Trap: most bits of a store mean nothing any more; the test asserts that enough of the flips
 * had to be noticed.
 */
static void test_flipped_bit_is_never_served(void **state)
{
	const struct store_options options = {.size_bytes = 24 * MIB,
					      .segment_bytes = 1 * MIB,
					      .has_small_segments = true,
					      .cache_bytes = 1};
	struct life *life = calloc(1, sizeof(*life));
	const char *only = getenv("SHEEPFOLD_SEED");
	uint64_t first = only ? strtoull(only, NULL, 0) : 1000;
	uint64_t seeds = only ? 1 : is_long() ? 5000 : 300;
	struct outcomes outcomes = {0};
	struct logger quiet = {.level = LOG_LEVEL_ERROR, .sink = NULL};
	struct logger *before = log_current();

	quiet.sink = drop_line;
	for (uint64_t seed = first; seed < first + seeds; seed++) {
		life_init(life, seed, &options);
		name_count = 0;
		assert_int_equal(loop_sync_list(life->rig.loop, RIG_PATH, add_name, NULL), 0);
		life_run(life, 200 + life_below(life, 1500));
		rig_until(&life->rig, has_nothing_in_flight, life);
		assert_int_equal(rig_sync(&life->rig, 0), 0);
		/* Damage to the very last batch looks like the end of the log, until a later one
		 * names it as synced: one more. */
		uint32_t named = life->journal_count;
		while (life->journal_count == named)
			life_change(life);
		rig_until(&life->rig, has_nothing_in_flight, life);
		assert_int_equal(rig_sync(&life->rig, 0), 0);
		if (life_below(life, 3) == 0)
			rig_stop(&life->rig);
		rig_crash(&life->rig);
		/* One: two can hit a batch and the only one that names it. */
		flip_a_bit(life, seed % 3 == 0);
		if (!only)
			log_set_current(&quiet);
		struct error err = {0};
		int rc = rig_open(&life->rig, &err);
		if (rc < 0 && !strstr(err.text, "both checkpoints"))
			fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
		if (rc == 0)
			store_audit(life->rig.store);
		if (rc == 0)
			check_damaged(life, seed, named, &outcomes);
		log_set_current(before);
		life_done(life);
	}
	printf("%u harmless, %u marked missing, %u lost logs\n", outcomes.harmless, outcomes.marked,
	       outcomes.lost);
	assert_true(only || (outcomes.marked > seeds / 20 && outcomes.lost > seeds / 50));
	free(life);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_power_cut_at_any_moment_leaves_a_prefix),
		cmocka_unit_test(test_flipped_bit_is_never_served),
	};

	return cmocka_run_group_tests(tests, rig_log_start, rig_log_stop);
}
