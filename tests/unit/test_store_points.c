/* The power goes at every point of recorded lives: store_points.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/store_points.h"
#include "tests/unit/store_rig.h"

static void test_power_cut_at_every_point_leaves_a_prefix(void **state)
{
	const char *only = getenv("SHEEPFOLD_SEED"), *is_long = getenv("SHEEPFOLD_LONG");
	uint64_t first = only ? strtoull(only, NULL, 0) : 1;
	uint64_t seeds = only ? 1 : is_long && *is_long ? 8 : 2;
	uint32_t batches = is_long && *is_long ? 50 : 30;
	struct points_tally tally = {0};

	for (uint64_t seed = first; seed < first + seeds; seed++)
		store_points_run(seed, batches, 1, &tally);
	/* What is not in the record was not cut. */
	printf("%llu disk events, %llu batches of %llu entries, %llu segments, %llu checkpoints, "
	       "%llu KiB moved, %llu pushes, %llu deletes, %llu trims: %llu images, "
	       "%llu kept more than they had to\n",
	       (unsigned long long)tally.events, (unsigned long long)tally.batches,
	       (unsigned long long)tally.appended, (unsigned long long)tally.segments,
	       (unsigned long long)tally.checkpoints, (unsigned long long)(tally.cleaned / 1024),
	       (unsigned long long)tally.pushes, (unsigned long long)tally.deletes,
	       (unsigned long long)tally.trims, (unsigned long long)tally.images,
	       (unsigned long long)tally.kept_more);
	assert_true(only || (tally.segments > 0 && tally.checkpoints > 0 && tally.cleaned > 0 &&
			     tally.pushes > 0 && tally.deletes > 0 && tally.trims > 0 &&
			     tally.images > 1000 && tally.kept_more > 100));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_power_cut_at_every_point_leaves_a_prefix),
	};

	return cmocka_run_group_tests(tests, rig_log_start, rig_log_stop);
}
