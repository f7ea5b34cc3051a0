/*
 * The agreement on corosync, on a model of CPG: random programs, directed histories, and each of its
 * rules switched off.
 *
 *   test_agree                     all; 1,000 seeds, with SHEEPFOLD_LONG=1 6,000
 *   test_agree --seeds FIRST COUNT random programs only
 *   test_agree --directed          directed histories only
 *   test_agree --trace SEED        one, with what happens
 *   TEST_MUTATE=RULE test_agree    with a rule off: ends with 1 when something notices
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/log.h"
#include "tests/sim/agree_directed.h"
#include "tests/sim/agree_program.h"

#define MUTANT_SEEDS 4000 /* of which one has to notice, where no directed history does */

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
	printf("%llu seeds from %llu: %llu commits, %llu elections, %llu images, %llu ends, %llu void; trace "
	       "%016llx\n",
	       (unsigned long long)count, (unsigned long long)first,
	       (unsigned long long)sum.commits, (unsigned long long)sum.elections,
	       (unsigned long long)sum.images, (unsigned long long)sum.ends,
	       (unsigned long long)voids, (unsigned long long)sum.trace);
	return 0;
}

static int run_directed(enum rule rule)
{
	int rc = 0;

	for (unsigned i = 0; i < directed_count; i++) {
		char why[256];

		if (rule != RULE_COUNT && directed_table[i].rule != rule)
			continue;
		if (directed_run(&directed_table[i], why, sizeof(why)))
			continue;
		printf("%s: FAILED: %s\n", directed_table[i].name, why);
		rc = 1;
	}
	return rc;
}

/* The same seed: the same run. */
static int run_twice(uint64_t seed)
{
	struct program_result a, b;

	agree_program(seed, false, &a);
	agree_program(seed, false, &b);
	if (a.trace == b.trace && a.commits == b.commits)
		return 0;
	printf("seed %llu is not the same twice\n", (unsigned long long)seed);
	return 1;
}

static int run_mutant(enum rule rule)
{
	if (run_directed(rule))
		return 1;
	return run_seeds(1, MUTANT_SEEDS, false);
}

/* Each rule off, in a process of its own: an assertion notices, too. */
static int run_mutants(void)
{
	int rc = 0;

	for (unsigned i = RULE_G1_PREVIOUS; i <= RULE_G3_READY; i++) {
		int status = 0;
		pid_t pid;

		(void)fflush(stdout);
		pid = fork();
		if (pid == 0) {
			(void)alarm(300);
			if (!freopen("/dev/null", "w", stdout) ||
			    !freopen("/dev/null", "w", stderr))
				_exit(2);
			(void)rule_switch_off(rule_table[i].name);
			_exit(run_mutant((enum rule)i));
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid)
			return 1;
		if (WIFEXITED(status) && WEXITSTATUS(status) == 1)
			continue;
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT)
			continue;
		printf("without %s (%s) nothing fails\n", rule_table[i].name, rule_table[i].text);
		rc = 1;
	}
	return rc;
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
	bool is_mutant = mutate != NULL;

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
	if (run_directed(RULE_COUNT))
		return 1;
	if (argc == 2 && strcmp(argv[1], "--directed") == 0)
		return 0;
	if (is_mutant)
		return run_seeds(1, MUTANT_SEEDS, false);
	return run_twice(7) || run_seeds(1, is_long ? 6000 : 1000, false) || run_mutants();
}
