/*
 * Histories that random seeds hardly reach, one or more for a rule: with all rules on each keeps its promise;
 * without its rule it does not (docs/internals/simulator.md).
 *
 *   test_pg_rules [PATTERN | RULE]     all histories, with all rules and without their own
 *   test_pg_rules --mutate RULE...     CAUGHT by ..., or COVERED by another rule; nothing: neither
 *
 * TEST_MUTATE=RULE switches one off besides, to see how a history fails; TEST_LOG=1 shows what everybody did.
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

/* @out "" when nothing notices. */
static void judge_row(const struct history_row *row, char *out, size_t size)
{
	out[0] = '\0';
	if (!passes(row, row->rule, NULL, false))
		(void)snprintf(out, size, "CAUGHT by test_pg_rules: %s", row->name);
	else if (row->cover && passes(row, row->cover, NULL, false) &&
		 !passes(row, row->rule, row->cover, false))
		(void)snprintf(out, size, "COVERED by %s: %s", row->cover, row->name);
}

/* For tests/sim/mutations. What fails with all rules says nothing about one. */
static void mutate(const char *rule, bool is_named)
{
	const struct history_row *row;
	char how[256] = "", next[256];

	for (unsigned i = 0; (row = row_at(i)) && how[1] != 'A'; i++) {
		if (strcmp(row->rule, rule) != 0 || !passes(row, NULL, NULL, true))
			continue;
		judge_row(row, next, sizeof(next));
		if (next[0])
			memcpy(how, next, sizeof(how));
	}
	if (is_named)
		printf("%-24s ", rule);
	if (how[0] || is_named)
		printf("%s\n", how);
}

/* Every history with all rules, and without its own. */
static bool check(const char *pattern)
{
	const struct history_row *row;
	bool is_well = true;
	char how[256];

	for (unsigned i = 0; (row = row_at(i)); i++) {
		if (pattern && !strstr(row->name, pattern) && strcmp(row->rule, pattern) != 0)
			continue;
		if (!passes(row, NULL, NULL, true)) {
			printf("FAILED with all rules: %s\n", row->name);
			is_well = false;
			continue;
		}
		judge_row(row, how, sizeof(how));
		printf("%s without %s: %s\n", how[0] ? "ok" : "FAILED", row->rule,
		       how[0] ? how : row->name);
		is_well &= how[0] != '\0';
	}
	return is_well;
}

int main(int argc, char **argv)
{
	if (argc > 2 && strcmp(argv[1], "--mutate") == 0) {
		for (int i = 2; i < argc; i++)
			mutate(argv[i], argc > 3);
		return 0;
	}
	/* No test of cmocka's is running: a history that fails ends its process. */
	return check(argc > 1 ? argv[1] : NULL) ? 0 : 1;
}
