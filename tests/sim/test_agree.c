/*
 * The agreement on corosync, on a model of CPG: random programs, directed histories, and each of its
 * rules switched off.
 *
 *   test_agree                     all; 1,000 seeds, with SHEEPFOLD_LONG=1 6,000
 *   test_agree --seeds FIRST COUNT random programs only
 *   test_agree --trace SEED        one, with what happens
 *   TEST_MUTATE=RULE test_agree    with a rule off: ends with 1 when something notices
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"
#include "lib/base/rule.h"
#include "tests/sim/agree_program.h"

static int run_seeds(uint64_t first, uint64_t count, bool is_traced)
{
	struct program_result sum = {0};
	uint64_t voids = 0;

	for (uint64_t seed = first; seed < first + count; seed++) {
		struct program_result result;

		agree_program(seed, is_traced, &result);
		if (result.has_failed) {
			printf("seed %llu FAILED: %s\n", (unsigned long long)seed, result.why);
			return 1;
		}
		voids += result.is_void;
		sum.commits += result.commits;
		sum.images += result.images;
		sum.elections += result.elections;
		sum.ends += result.ends;
		sum.trace ^= result.trace * 31 + seed;
	}
	printf("%llu seeds from %llu: %llu commits, %llu elections, %llu images, %llu ends, %llu void; trace %016llx\n",
	       (unsigned long long)count, (unsigned long long)first,
	       (unsigned long long)sum.commits, (unsigned long long)sum.elections,
	       (unsigned long long)sum.images, (unsigned long long)sum.ends,
	       (unsigned long long)voids, (unsigned long long)sum.trace);
	return 0;
}

/* The faults of a run are no news. */
static void sink_nothing(struct logger *logger, enum log_level level, const char *line)
{
	(void)logger;
	(void)level;
	(void)line;
}

int main(int argc, char **argv)
{
	const char *mutate = getenv("TEST_MUTATE"), *is_long = getenv("SHEEPFOLD_LONG");
	struct logger logger = {.level = LOG_LEVEL_ERROR, .sink = sink_nothing};

	if (mutate && !rule_switch_off(mutate)) {
		printf("%s: no such rule\n", mutate);
		return 2;
	}
	if (argc == 3 && strcmp(argv[1], "--trace") == 0) {
		logger = (struct logger){.level = LOG_LEVEL_DEBUG, .sink = log_sink_text};
		log_set_current(&logger);
		return run_seeds(strtoull(argv[2], NULL, 10), 1, true);
	}
	log_set_current(&logger);
	if (argc == 4 && strcmp(argv[1], "--seeds") == 0)
		return run_seeds(strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10), false);
	return run_seeds(1, is_long ? 6000 : 1000, false);
}
