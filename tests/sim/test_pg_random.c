/*
 * Seeded runs of whole nodes: load, kills with certain deaths, restarts; then everything must be
 * healthy, readable through every gateway, and alike on all copies.
 *
 *   test_pg_random [FIRST [COUNT]]
 */
#include "tests/sim/herd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/base/size.h"

static uint64_t first_seed = 1, seed_count = 40;

static uint64_t below(struct herd *herd, uint64_t bound)
{
	return random_below(sim_random(herd->world), bound);
}

static unsigned up_count(const struct herd *herd)
{
	unsigned count = 0;

	for (unsigned i = 0; i < herd->node_count; i++)
		count += herd->nodes[i].is_up;
	return count;
}

static void kill_one(struct herd *herd)
{
	unsigned node = (unsigned)below(herd, herd->node_count);

	if (herd->nodes[node].is_up)
		herd_kill(herd, node, SIM_DEATH_CERTAIN);
}

static void start_one(struct herd *herd)
{
	for (unsigned i = 0; i < herd->node_count; i++)
		if (!herd->nodes[i].is_up) {
			herd_start(herd, i);
			return;
		}
}

static void start_all(struct herd *herd)
{
	while (up_count(herd) < herd->node_count)
		start_one(herd);
}

static void reset_one(struct herd *herd)
{
	unsigned a = (unsigned)below(herd, herd->node_count);
	unsigned b = (unsigned)below(herd, herd->node_count);

	sim_reset_streams(herd->nodes[a].host, herd->nodes[b].host);
}

/* Some ways are longer than others, so that members differ when somebody dies. */
static void vary_delays(struct herd *herd)
{
	for (unsigned a = 0; a < herd->node_count; a++)
		for (unsigned b = 0; b < herd->node_count; b++) {
			uint64_t min = 20 * NS_PER_US + below(herd, 2 * NS_PER_MS);
			if (a != b && below(herd, 2))
				sim_link_set_delay(herd->nodes[a].host, herd->nodes[b].host, min,
						   min + below(herd, NS_PER_MS));
		}
}

/* A way is blocked for a time, in one direction or in both; the log is not. */
static void block_one(struct herd *herd)
{
	unsigned a = (unsigned)below(herd, herd->node_count);
	unsigned b = (a + 1 + (unsigned)below(herd, herd->node_count - 1)) % herd->node_count;

	sim_link_cut(herd->nodes[a].host, herd->nodes[b].host);
	if (below(herd, 2))
		sim_link_cut(herd->nodes[b].host, herd->nodes[a].host);
	herd_run(herd, below(herd, 2) ? below(herd, 500) : below(herd, 5000));
	sim_unpartition(herd->nodes[a].host, herd->nodes[b].host);
}

static void run_seed(uint64_t seed)
{
	struct random random;
	random_init(&random, seed);
	const struct herd_options options = {
		.seed = seed,
		.nodes = 3 + (unsigned)random_below(&random, 3),
		.copies = 2 + (unsigned)random_below(&random, 2),
		.min_insync = (unsigned)random_below(&random, 2),
		.pg_count = 1u << random_below(&random, 4),
		.volume_bytes = 8 * MIB << random_below(&random, 2),
	};
	struct herd *herd = herd_new(&options);

	vary_delays(herd);
	herd_load_start(herd, 4 + (unsigned)below(herd, 20));
	for (unsigned step = 0; step < 6; step++) {
		herd_run(herd, 20 + below(herd, 600));
		switch (below(herd, 7)) {
		case 0:
		case 1:
			kill_one(herd);
			break;
		case 2:
			start_one(herd);
			break;
		case 3:
			reset_one(herd);
			break;
		case 4:
			start_all(herd);
			herd_until(herd, 60000, herd_is_healthy, "healthy in between");
			herd_reopen(herd);
			break;
		case 5:
			block_one(herd);
			break;
		case 6: /* all at once */
			for (unsigned i = 0; i < herd->node_count; i++)
				if (herd->nodes[i].is_up)
					herd_kill(herd, i, SIM_DEATH_CERTAIN);
			start_all(herd);
			break;
		}
	}
	start_all(herd);
	herd_until(herd, 60000, herd_is_healthy, "healthy at the end");
	herd_reopen(herd);
	herd_load_stop(herd);
	herd_check(herd);
	herd_free(herd);
}

static void test_seeds(void **state)
{
	for (uint64_t seed = first_seed; seed < first_seed + seed_count; seed++) {
		if (getenv("TEST_SEEDS"))
			(void)fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
		run_seed(seed);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_seeds),
	};

	if (argc > 1) {
		first_seed = strtoull(argv[1], NULL, 10);
		seed_count = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
	}
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	for (uint32_t i = 0; i < pg_counter_count; i++)
		(void)printf("# %-20s %llu\n", pg_counter_table[i].name,
			     (unsigned long long)*(
				     const uint64_t *)(const void *)((const char *)&herd_totals +
								     pg_counter_table[i].offset));
	return failed;
}
