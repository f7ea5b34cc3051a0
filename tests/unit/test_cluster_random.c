/*
 * Tens of thousands of random commands (cluster_dice.h). After every one: all invariants, two replicas
 * equal, the image too. The test counts what was accepted: else it would prove nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/unit/cluster_dice.h"

#define COMMANDS 30000

static void look_at_health(struct dice *dice)
{
	struct cluster_summary summary;

	cluster_summary(dice->script->map, &summary);
	assert_int_equal(summary.pgs_total, DICE_PGS);
	dice->down += summary.pgs[CLUSTER_DOWN];
	dice->healthy += summary.pgs[CLUSTER_HEALTHY];
}

static void test_random_commands_keep_every_invariant(void **state)
{
	struct script script;
	struct dice dice = {.script = &script};

	(void)state;
	for (uint64_t seed = 1; seed <= 4; seed++) {
		script_start(&script);
		dice_start(&dice, &script, seed);
		for (unsigned i = 0; i < COMMANDS / 4; i++) {
			dice_do_something(&dice);
			look_at_health(&dice);
		}
		script_stop(&script);
	}
	for (unsigned type = 0; type < LOG_TYPE_END; type++) {
		if (!dice.tried[type])
			continue;
		print_message("%-16s %6llu tried %6llu accepted\n",
			      cluster_command_name((enum log_type)type),
			      (unsigned long long)dice.tried[type],
			      (unsigned long long)dice.accepted[type]);
		/* Else the test proves nothing about it. */
		if (dice.accepted[type] < 10 || dice.accepted[type] == dice.tried[type])
			assert_true(type == LOG_REGISTER || dice.accepted[type] >= 10);
	}
	print_message("PG seconds healthy %llu down %llu\n", (unsigned long long)dice.healthy,
		      (unsigned long long)dice.down);
	assert_true(dice.healthy > 1000 && dice.down > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_commands_keep_every_invariant),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
