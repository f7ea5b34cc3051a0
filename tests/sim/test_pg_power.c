/*
 * Machines that lose power: one, two, all (REPLICATION, R1 to R4, F1). A member that comes back may lack
 * what it acknowledged and did not sync; one machine, or two of three, cost nothing that was
 * acknowledged; all of them at once cost what was not flushed, and the next FLUSH says so.
 *
 * TEST_MUTATE=RULE switches a rule off (lib/base/rule.h): then tests are to fail.
 */
#ifndef SHEEPFOLD_MUTATIONS /* for who reads this file alone */
#define SHEEPFOLD_MUTATIONS
#endif
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/rule.h"
#include "lib/base/size.h"
#include "tests/sim/herd_priv.h"
#include "tests/sim/power_load.h"

#define ALL 0x7u

static struct herd *three(uint64_t seed, unsigned late)
{
	const struct herd_options options = {.seed = seed,
					     .nodes = 3 + late,
					     .late = late,
					     .copies = 3,
					     .min_insync = 2,
					     .pg_count = 2,
					     .volume_bytes = 16 * MIB};

	return herd_new(&options);
}

static uint64_t any(struct herd *herd, uint64_t below)
{
	return random_below(sim_random(herd->world), below);
}

/* ---- one, two, all ---- */

static void test_one_machine_costs_nothing(void **state)
{
	for (unsigned seed = 1; seed < 13; seed++) {
		struct herd *herd = three(seed, 0);
		struct power_load *load = power_load_new(herd);

		power_load_start(load, 16);
		for (unsigned round = 0; round < 4; round++) {
			unsigned node = (unsigned)any(herd, 3);
			herd_run(herd, 200 + any(herd, 300));
			assert_int_equal(power_load_cut(load, 1u << node, SIM_DEATH_CERTAIN,
							SIM_RANDOM_UNSYNCED),
					 0);
			herd_run(herd, any(herd, 500));
			herd_start(herd, node);
			herd_until(herd, 60000, herd_is_healthy, "healthy");
			herd_reopen(herd);
		}
		assert_int_equal(power_load_losses_told(load), 0);
		assert_int_equal(power_load_gone_back(load), 0);
		power_load_end(load);
	}
}

static void test_two_of_three_machines_cost_nothing(void **state)
{
	for (unsigned seed = 21; seed < 33; seed++) {
		struct herd *herd = three(seed, 0);
		struct power_load *load = power_load_new(herd);

		power_load_start(load, 16);
		for (unsigned round = 0; round < 3; round++) {
			unsigned kept = (unsigned)any(herd, 3);
			herd_run(herd, 200 + any(herd, 300));
			assert_int_equal(power_load_cut(load, ALL & ~(1u << kept),
							SIM_DEATH_CERTAIN, SIM_RANDOM_UNSYNCED),
					 0);
			herd_run(herd, any(herd, 500));
			power_start_all(herd);
			herd_until(herd, 60000, herd_is_healthy, "healthy");
			herd_reopen(herd);
		}
		assert_int_equal(power_load_losses_told(load), 0);
		assert_int_equal(power_load_gone_back(load), 0);
		power_load_end(load);
	}
}

/* The machines of PG 0. */
static unsigned members(struct herd *herd)
{
	const struct cluster_pg *row = cluster_pg(herd_map(herd), 0);
	unsigned nodes = 0;

	for (unsigned n = 0; n < herd->node_count; n++)
		if (cluster_pg_seat(row, herd->nodes[n].store_id))
			nodes |= 1u << n;
	return nodes;
}

/*
 * With a fourth machine its gateway lives through it, as do other PGs' members; the map has all of the dead
 * as up, or knows.
 */
static void test_all_machines_cost_what_was_not_flushed(void **state)
{
	unsigned told = 0, gone_back = 0;

	for (unsigned seed = 41; seed < 61; seed++) {
		struct herd *herd = three(seed, seed % 2);
		struct power_load *load = power_load_new(herd);

		power_start_all(herd);
		herd_run(herd, 1000);
		herd_until(herd, 10000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		power_load_start(load, 16);
		for (unsigned round = 0; round < 3; round++) {
			unsigned lost;
			herd_run(herd, 200 + any(herd, 300));
			lost = power_load_cut(load, members(herd),
					      round % 2 ? SIM_DEATH_SILENT : SIM_DEATH_CERTAIN,
					      SIM_RANDOM_UNSYNCED);
			assert_in_range(lost, seed % 2 ? 1 : 2, 2);
			herd_run(herd, any(herd, 500));
			for (unsigned n = 0; n < herd->node_count; n++) {
				unsigned next = (n + round) % herd->node_count;
				if (herd->nodes[next].is_up)
					continue;
				herd_start(herd, next);
				herd_run(herd, any(herd, 300));
			}
			/* At once when all have answered, long before power_loss_wait. */
			herd_until(herd, 10000, herd_is_healthy, "healthy");
			herd_reopen(herd);
		}
		told += power_load_losses_told(load);
		gone_back += power_load_gone_back(load);
		power_load_end(load);
	}
	/* Else nothing was tested. */
	assert_true(told > 0);
	assert_true(gone_back > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_machine_costs_nothing),
		cmocka_unit_test(test_two_of_three_machines_cost_nothing),
		cmocka_unit_test(test_all_machines_cost_what_was_not_flushed),
	};
	const char *mutate = getenv("TEST_MUTATE");

	if (mutate && !rule_switch_off(mutate)) {
		(void)fprintf(stderr, "no such rule: %s\n", mutate);
		return 1;
	}
	if (getenv("TEST_ONLY"))
		cmocka_set_test_filter(getenv("TEST_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
