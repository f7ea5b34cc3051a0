/* What is told of connections to other sheep: a proof of a death needs to know who closed them (REPLICATION.md, G3). */
#include "tests/sim/herd_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/base/size.h"

/* Of one start of one node, as another one was told. */
struct told {
	struct uuid node;
	uint64_t start;
	unsigned up, by_peer, by_us;
};

static void on_told(void *context, const struct uuid *node, uint64_t start, bool is_up,
		    bool is_by_peer)
{
	struct told *told = context;

	if (!uuid_is_equal(node, &told->node) || start != told->start)
		return;
	told->up += is_up;
	told->by_peer += !is_up && is_by_peer;
	told->by_us += !is_up && !is_by_peer;
}

static struct herd *begin(uint64_t seed, struct told *told)
{
	const struct herd_options options = {.seed = seed,
					     .nodes = 3,
					     .copies = 3,
					     .min_insync = 2,
					     .pg_count = 4,
					     .volume_bytes = 16 * MIB};
	struct herd *herd = herd_new(&options);

	*told = (struct told){.node = herd->nodes[1].uuid, .start = herd->nodes[1].start};
	pg_peers_watch(herd->nodes[0].peers, on_told, told);
	herd_run(herd, 200);
	return herd;
}

static void end(struct herd *herd)
{
	pg_peers_watch(herd->nodes[0].peers, NULL, NULL);
	herd_free(herd);
}

static void test_killed_process_closes_its_connections(void **state)
{
	for (uint64_t seed = 1; seed < 6; seed++) {
		struct told told;
		struct herd *herd = begin(seed, &told);

		assert_int_equal(told.by_peer + told.by_us, 0);
		herd_kill(herd, 1, SIM_DEATH_SILENT);
		herd_run(herd, 50);
		assert_true(told.by_peer > 0);
		assert_int_equal(told.by_us, 0);
		end(herd);
	}
}

/* Nobody closes anything then: what ends later is given up by us. */
static void test_lost_power_is_no_close(void **state)
{
	for (uint64_t seed = 1; seed < 6; seed++) {
		struct told told;
		struct herd *herd = begin(seed, &told);

		herd_cut_power(herd, 1, SIM_DEATH_SILENT, SIM_DROP_UNSYNCED);
		herd_run(herd, 5000);
		assert_true(told.by_us > 0);
		assert_int_equal(told.by_peer, 0);
		end(herd);
	}
}

/* The next start of the node is told by its own number. */
static void test_next_start_is_another(void **state)
{
	struct told told;
	struct herd *herd = begin(7, &told);

	herd_kill(herd, 1, SIM_DEATH_CERTAIN);
	herd_run(herd, 50);
	told = (struct told){.node = told.node, .start = told.start};
	herd_start(herd, 1);
	herd_until(herd, 60000, herd_is_healthy, "healthy");
	assert_int_equal(told.up, 0);
	told.start = herd->nodes[1].start;
	herd_kill(herd, 1, SIM_DEATH_SILENT);
	herd_run(herd, 50);
	assert_true(told.by_peer > 0);
	end(herd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_killed_process_closes_its_connections),
		cmocka_unit_test(test_lost_power_is_no_close),
		cmocka_unit_test(test_next_start_is_another),
	};

	return cmocka_run_group_tests_name("peers", tests, NULL, NULL);
}
