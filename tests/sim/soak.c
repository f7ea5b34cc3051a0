/*
 * Many seeds of the simulator:
 *
 *   soak [--seconds N | --seeds FIRST COUNT] [--mutate RULE] [--until-failure] [--quiet]
 *
 * Each batch of seeds runs in a process of its own, so that a crash costs one seed and is one. At the
 * end a table says how often everything was hit; what never was stands in it, too. 0: all are well;
 * 1: some failed, and which stands on the last line, or so many ran that all should have been hit, and something never
 * was; 2: usage.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/cover.h"
#include "lib/base/rule.h"
#include "lib/base/text.h"
#include "tests/sim/program.h"

#define BATCH	     10u
#define SEED_SECONDS 60u /* of real time: one that takes longer hangs */
#define ROWS_MAX     256u
#define MACHINES_MAX 8u
#define FAILED_MAX   200u
#define SEEDS_ENOUGH 2000u /* so many hit everything */
#define NEVER_MAX    32u

/* What the processes share. */
struct shared {
	uint64_t current, done;
	struct program_figures figures;
	unsigned long rows[ROWS_MAX], points[SIM_POINT_COUNT];
	unsigned long moves[MACHINES_MAX][COVER_STATES_MAX][COVER_STATES_MAX];
	bool is_rule_built[RULE_COUNT];
};

struct soak {
	uint64_t first, count; /* count 0: as long as there is time */
	double seconds;
	const char *mutation;
	bool is_until_failure, is_quiet;
	struct shared *shared;
	uint64_t failed[FAILED_MAX];
	unsigned failed_count;
	struct {
		const char *group;
		char what[64];
	} never[NEVER_MAX];
	unsigned never_count;
	struct timespec begin;
};

static double elapsed(const struct soak *soak)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - soak->begin.tv_sec) +
	       (double)(now.tv_nsec - soak->begin.tv_nsec) / 1e9;
}

/* ---- a batch, in a process of its own ---- */

static void share_coverage(struct shared *shared)
{
	unsigned i = 0;

	for (struct cover_row *const *row = __start_cover_rows; row < __stop_cover_rows; row++, i++)
		if (i < ROWS_MAX)
			shared->rows[i] += (*row)->hits;
	i = 0;
	for (struct cover_machine *const *machine = __start_cover_machines;
	     machine < __stop_cover_machines && i < MACHINES_MAX; machine++, i++)
		for (unsigned from = 0; from < (*machine)->count; from++)
			for (unsigned to = 0; to < (*machine)->count; to++)
				shared->moves[i][from][to] += (*machine)->hits[from][to];
	for (i = 0; i < SIM_POINT_COUNT; i++)
		shared->points[i] += sim_point_table[i].hits;
	for (i = 0; i < RULE_COUNT; i++)
		shared->is_rule_built[i] |= rule_table[i].is_asked;
}

static void run_batch(struct soak *soak, uint64_t first, uint64_t count)
{
	struct shared *shared = soak->shared;

	for (uint64_t seed = first; seed < first + count; seed++) {
		const struct program_options options = {.seed = seed, .mutation = soak->mutation};
		shared->current = seed;
		(void)alarm(SEED_SECONDS);
		program_run(&options, &shared->figures);
		shared->done++;
		if (!soak->count && elapsed(soak) > soak->seconds)
			break;
	}
	shared->current++;
	share_coverage(shared);
}

/* Returns the seed to go on with. */
static uint64_t batch(struct soak *soak, uint64_t first, uint64_t count)
{
	int status = 0;
	pid_t pid;

	(void)fflush(stdout);
	pid = fork();
	if (pid == 0) {
		if (soak->is_quiet)
			stderr = freopen("/dev/null", "w", stderr);
		run_batch(soak, first, count);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid) {
		perror("soak");
		exit(2);
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return soak->shared->current;
	if (WIFSIGNALED(status))
		(void)fprintf(stderr, "seed %" PRIu64 " FAILED: %s\n", soak->shared->current,
			      strsignal(WTERMSIG(status)));
	if (soak->failed_count < FAILED_MAX)
		soak->failed[soak->failed_count++] = soak->shared->current;
	return soak->shared->current + 1;
}

/* ---- the table ---- */

static void print_row(struct soak *soak, const char *group, const char *what, unsigned long hits)
{
	if (!soak->is_quiet)
		(void)printf("%-9s %-44s %12lu%s\n", group, what, hits, hits ? "" : "  NEVER");
	if (hits || soak->never_count == NEVER_MAX)
		return;
	soak->never[soak->never_count].group = group;
	(void)snprintf(soak->never[soak->never_count].what, sizeof(soak->never[0].what), "%s",
		       what);
	soak->never_count++;
}

/* Rules of ownership, of the store's middle and of the agreement have histories of their own: they need not be asked for here. */
static void print_rules(const struct soak *soak)
{
	unsigned count = 0;

	for (unsigned i = 0; i < RULE_COUNT; i++)
		count += soak->shared->is_rule_built[i];
	(void)printf("%-9s %-44s %12u\n", "rule", "asked for by some seed", count);
}

/* What only lies of peers and disks bring about (test_pg_lies, test_pg_floor): zero is as it should be. */
static bool is_welcome_zero(const char *counter)
{
	static const char *const names[] = {"diverged", "appends_refused"};

	for (unsigned i = 0; i < ARRAY_COUNT(names); i++)
		if (strcmp(counter, names[i]) == 0)
			return true;
	return false;
}

static void print_counter(struct soak *soak, const char *name, unsigned long hits)
{
	if (hits || !is_welcome_zero(name))
		print_row(soak, "counter", name, hits);
	else if (!soak->is_quiet)
		(void)printf("%-9s %-44s %12lu\n", "counter", name, hits);
}

static void print_coverage(struct soak *soak)
{
	const struct shared *shared = soak->shared;
	unsigned i = 0;

	for (unsigned k = 0; k < FAULT_COUNT; k++)
		print_row(soak, "fault", fault_table[k].name,
			  (unsigned long)shared->figures.faults[k]);
	for (struct cover_machine *const *machine = __start_cover_machines;
	     machine < __stop_cover_machines && i < MACHINES_MAX; machine++, i++)
		for (unsigned from = 0; from < (*machine)->count; from++)
			for (unsigned to = 0; to < (*machine)->count; to++) {
				char text[64];
				if (!((*machine)->moves[from] & BIT(to)))
					continue;
				(void)snprintf(text, sizeof(text), "%s -> %s",
					       (*machine)->state_names[from],
					       (*machine)->state_names[to]);
				print_row(soak, (*machine)->name, text, shared->moves[i][from][to]);
			}
	i = 0;
	for (struct cover_row *const *row = __start_cover_rows; row < __stop_cover_rows; row++, i++)
		if (i < ROWS_MAX)
			print_row(soak, "path", (*row)->what, shared->rows[i]);
	for (i = 0; i < pg_counter_count; i++)
		print_counter(
			soak, pg_counter_table[i].name,
			(unsigned long)*(
				const uint64_t *)(const void *)((const char *)&shared->figures.pg +
								pg_counter_table[i].offset));
	for (i = 0; i < SIM_POINT_COUNT; i++)
		print_row(soak, "point", sim_point_table[i].name, shared->points[i]);
	if (!soak->is_quiet)
		print_rules(soak);
}

/* False: so many seeds ran that it is a failure. A rule that is off may well keep something from happening. */
static bool print_never(const struct soak *soak)
{
	uint64_t count = soak->shared->done + soak->failed_count;

	if (!soak->never_count || soak->mutation || count < SEEDS_ENOUGH)
		return true;
	(void)printf("never hit in %" PRIu64 " seeds:\n", count);
	for (unsigned i = 0; i < soak->never_count; i++)
		(void)printf("  %s: %s\n", soak->never[i].group, soak->never[i].what);
	return false;
}

static void print_summary(const struct soak *soak)
{
	const struct program_figures *figures = &soak->shared->figures;
	double seeds = (double)soak->shared->done, seconds = elapsed(soak);
	uint64_t faults = 0;

	for (unsigned i = 0; i < FAULT_COUNT; i++)
		if (!(fault_table[i].flags & FAULT_NO_HARM))
			faults += figures->faults[i];
	if (!soak->shared->done)
		seeds = 1;
	(void)printf("%" PRIu64
		     " seeds in %.1f s: %.0f a minute; each %.1f virtual s, %.0f operations, "
		     "%.1f faults, %.0f sectors judged\n",
		     soak->shared->done, seconds, seeds * 60 / seconds,
		     (double)figures->virtual_ns / 1e9 / seeds, (double)figures->operations / seeds,
		     (double)faults / seeds, (double)figures->sectors / seeds);
	(void)printf("operations refused since nobody has the data: %" PRIu64 "\n", figures->lost);
	(void)printf("longest stall under a single fault: %.3f s\n",
		     (double)figures->longest_stall_ns / 1e9);
	if (!soak->failed_count) {
		(void)printf("no seed failed\n");
		return;
	}
	(void)printf("%u seeds failed:", soak->failed_count);
	for (unsigned i = 0; i < soak->failed_count; i++)
		(void)printf(" %" PRIu64, soak->failed[i]);
	(void)printf("\n");
}

/* ---- the program ---- */

static int usage(void)
{
	(void)fprintf(stderr, "usage: soak [--seconds N | --seeds FIRST COUNT] [--mutate RULE] "
			      "[--until-failure] [--quiet]\n");
	return 2;
}

static int parse(struct soak *soak, int argc, char **argv)
{
	uint64_t number;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc &&
		    text_parse_u64(argv[i + 1], UINT32_MAX, &number) == 0) {
			soak->seconds = (double)number;
			soak->count = 0;
			i++;
		} else if (strcmp(argv[i], "--seeds") == 0 && i + 2 < argc &&
			   text_parse_u64(argv[i + 1], UINT64_MAX, &soak->first) == 0 &&
			   text_parse_u64(argv[i + 2], UINT32_MAX, &soak->count) == 0) {
			i += 2;
		} else if (strcmp(argv[i], "--mutate") == 0 && i + 1 < argc) {
			soak->mutation = argv[++i];
			if (!rule_switch_off(soak->mutation))
				return -1;
		} else if (strcmp(argv[i], "--until-failure") == 0) {
			soak->is_until_failure = true;
		} else if (strcmp(argv[i], "--quiet") == 0) {
			soak->is_quiet = true;
		} else {
			return -1;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct soak soak = {.first = 1, .seconds = 60};
	bool is_covered;
	uint64_t seed;

	if (parse(&soak, argc, argv) < 0)
		return usage();
	soak.shared = mmap(NULL, sizeof(*soak.shared), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (soak.shared == MAP_FAILED) {
		perror("soak");
		return 2;
	}
	(void)clock_gettime(CLOCK_MONOTONIC, &soak.begin);
	seed = soak.first;
	while (soak.count ? seed < soak.first + soak.count : elapsed(&soak) < soak.seconds) {
		uint64_t count = soak.count
					 ? min_of((uint64_t)BATCH, soak.first + soak.count - seed)
					 : BATCH;
		seed = batch(&soak, seed, count);
		if (soak.is_until_failure && soak.failed_count)
			break;
	}
	print_coverage(&soak);
	for (unsigned i = 0; i < RULE_COUNT; i++)
		if (!soak.failed_count && rule_table[i].is_off && !soak.shared->is_rule_built[i])
			(void)printf("%s was never asked for\n", rule_table[i].name);
	is_covered = print_never(&soak);
	print_summary(&soak);
	return soak.failed_count || !is_covered ? 1 : 0;
}
