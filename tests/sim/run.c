/*
 * One seed of the simulator:
 *
 *   run [--trace] [--mutate RULE] SEED
 *   run --rules
 *
 * Prints the seed first and last. 0: all is well; 1: it failed, and what failed is printed; 2: usage.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/rule.h"
#include "lib/base/text.h"
#include "tests/sim/program.h"

static int usage(void)
{
	(void)fprintf(stderr, "usage: run [--trace] [--mutate RULE] SEED | --rules\n");
	for (unsigned i = 0; i < RULE_COUNT; i++)
		(void)fprintf(stderr, "  %-28s %s\n", rule_table[i].name, rule_table[i].text);
	return 2;
}

int main(int argc, char **argv)
{
	struct program_options options = {0};
	struct program_figures figures = {0};
	bool has_seed = false;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--rules") == 0) {
			for (unsigned k = 0; k < RULE_COUNT; k++)
				(void)printf("%s\n", rule_table[k].name);
			return 0;
		}
		if (strcmp(argv[i], "--trace") == 0) {
			options.is_traced = true;
		} else if (strcmp(argv[i], "--mutate") == 0 && i + 1 < argc) {
			options.mutation = argv[++i];
			if (!rule_switch_off(options.mutation))
				return usage();
		} else if (!has_seed && text_parse_u64(argv[i], UINT64_MAX, &options.seed) == 0) {
			has_seed = true;
		} else {
			return usage();
		}
	}
	if (!has_seed)
		return usage();
	(void)printf("seed %" PRIu64 "\n", options.seed);
	(void)fflush(stdout);
	program_run(&options, &figures);
	(void)printf("%" PRIu64 " operations, %" PRIu64 " events, trace %016" PRIx64
		     "\nseed %" PRIu64 " is well\n",
		     figures.operations, figures.events, figures.trace, options.seed);
	return 0;
}
