/*
 * Histories that random seeds hardly reach, one or more for a rule: with all rules on each keeps its promise;
 * without its rule it does not (docs/internals/simulator.md).
 *
 *   test_pg_rules [PATTERN | RULE]     all histories, with all rules; then some of the rules are switched off
 *   test_pg_rules --mutate RULE...     CAUGHT by ..., or COVERED by another rule; nothing: neither
 *
 * A rule that another one covers is one of two lines of defence: without it the history passes, without
 * both it does not.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/rule.h"
#include "lib/base/size.h"
#include "tests/sim/stage.h"

#define TIME_MAX_S 60u

extern const struct history_row rules_write[], rules_join[];

static const struct history_row *const tables[] = {rules_write, rules_join};

/* What every check switches off: some that cost little, of all kinds. */
static const char *const often[] = {"W2_PREVIOUS_VERSION", "W4_READS_WAIT", "S1_SHRINK_FIRST",
				    "W3_SEALED_ACKNOWLEDGE", "F1_ALL_SYNCED"};

static const struct history_row *row_at(unsigned number)
{
	for (unsigned t = 0; t < ARRAY_COUNT(tables); t++)
		for (const struct history_row *row = tables[t]; row->name; row++)
			if (number-- == 0)
				return row;
	return NULL;
}

/* In a process of its own, since it may end anyhow. */
static bool passes(const struct history_row *row, const char *off, const char *off_too,
		   bool is_loud)
{
	int status = 0;
	pid_t child;

	(void)fflush(NULL);
	child = fork();
	if (child < 0) {
		perror("fork");
		exit(2);
	}
	if (child == 0) {
		if (!is_loud && !getenv("TEST_LOG") && !freopen("/dev/null", "w", stderr))
			_exit(3);
		(void)alarm(TIME_MAX_S);
		if ((off && !rule_switch_off(off)) || (off_too && !rule_switch_off(off_too)))
			_exit(2);
		for (uint64_t i = 0; i < row->count; i++)
			row->run(row->first + i);
		_exit(0);
	}
	(void)waitpid(child, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 2) {
		(void)fprintf(stderr, "no such rule\n");
		exit(2);
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* "" when nothing caught it. */
static void judge(const char *rule, char *out, size_t size)
{
	const struct history_row *row;

	out[0] = '\0';
	for (unsigned i = 0; (row = row_at(i)); i++) {
		if (strcmp(row->rule, rule) != 0)
			continue;
		if (!passes(row, rule, NULL, false)) {
			(void)snprintf(out, size, "CAUGHT by test_pg_rules: %s", row->name);
			return;
		}
		if (row->cover && passes(row, row->cover, NULL, false) &&
		    !passes(row, rule, row->cover, false))
			(void)snprintf(out, size, "COVERED by %s: %s", row->cover, row->name);
	}
}

static bool keep_their_promises(const char *pattern)
{
	const struct history_row *row;
	bool is_well = true;

	for (unsigned i = 0; (row = row_at(i)); i++) {
		bool is_kept;
		if (pattern && !strstr(row->name, pattern) && strcmp(row->rule, pattern) != 0)
			continue;
		is_kept = passes(row, NULL, NULL, true);
		printf("%s %s: %s\n", is_kept ? "ok" : "FAILED", row->rule, row->name);
		is_well &= is_kept;
	}
	return is_well;
}

static bool are_missed(void)
{
	bool is_well = true;
	char how[256];

	for (unsigned i = 0; i < ARRAY_COUNT(often); i++) {
		judge(often[i], how, sizeof(how));
		printf("%s without %s: %s\n", how[0] ? "ok" : "FAILED", often[i], how);
		is_well &= how[0] != '\0';
	}
	return is_well;
}

int main(int argc, char **argv)
{
	const char *pattern = argc > 1 ? argv[1] : NULL;

	if (argc > 2 && strcmp(argv[1], "--mutate") == 0) {
		for (int i = 2; i < argc; i++) {
			char how[256];
			judge(argv[i], how, sizeof(how));
			if (argc > 3)
				printf("%-24s ", argv[i]);
			if (how[0] || argc > 3)
				printf("%s\n", how);
		}
		return 0;
	}
	/* No test of cmocka's is running: a history that fails ends its process. */
	return keep_their_promises(pattern) && (pattern || are_missed()) ? 0 : 1;
}
