/*
 * A PG that does not serve, or where nothing moves, beside others that do: it must not take what they
 * need, the works of the loop and the credit of the links.
 */
#include "tests/sim/herd_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/base/size.h"

#define PGS 16u

/* Three nodes, two copies, both needed: PGs that share their primary and not their other member. */
struct stuck {
	struct herd *herd;
	unsigned primary, lost, gateway; /* nodes */
	uint64_t stuck_at,
		good_at; /* objects of a PG at primary and lost, and at primary and gateway */
};

static unsigned node_of(struct herd *herd, uint32_t store)
{
	for (unsigned i = 0; i < herd->node_count; i++)
		if (herd->nodes[i].store_id == store)
			return i;
	return 0;
}

/* An object of a PG that @primary leads and @member has. */
static bool find_object(struct herd *herd, unsigned primary, unsigned member, uint64_t *offset)
{
	struct cluster_map *map = herd_map(herd);
	const struct cluster_volume *volume = cluster_volume_by_name(map, HERD_VOLUME);

	for (uint32_t i = 0; i < herd->options.volume_bytes / OBJECT_SIZE; i++) {
		const struct cluster_pg *row =
			cluster_pg(map, cluster_pg_of(cluster_policy(map, 0), volume->family, i));
		if (node_of(herd, row->primary) != primary ||
		    !cluster_pg_seat(row, herd->nodes[member].store_id))
			continue;
		*offset = (uint64_t)i * OBJECT_SIZE;
		return true;
	}
	return false;
}

static struct stuck make(uint64_t seed, uint32_t pgs)
{
	const struct herd_options options = {.seed = seed,
					     .nodes = 3,
					     .copies = 2,
					     .min_insync = 2,
					     .pg_count = pgs,
					     .volume_bytes = 256 * MIB};
	struct stuck stuck = {.herd = herd_new(&options)};

	for (unsigned p = 0; p < 3; p++) {
		stuck.primary = p;
		stuck.lost = (p + 1) % 3;
		stuck.gateway = (p + 2) % 3;
		if (find_object(stuck.herd, p, stuck.lost, &stuck.stuck_at) &&
		    find_object(stuck.herd, p, stuck.gateway, &stuck.good_at))
			return stuck;
	}
	fail_msg("no two PGs with the same primary");
	return stuck;
}

/* More than there are works, and than the link has credit. */
static void begin_many(struct stuck *stuck, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		herd_write_begin(stuck->herd, stuck->gateway, stuck->stuck_at + i * 4096, 4096);
}

static void finish(struct stuck *stuck)
{
	struct herd *herd = stuck->herd;

	for (unsigned i = 0; i < 3; i++)
		if (!herd->nodes[i].is_up)
			herd_start(herd, i);
	herd_until(herd, 60000, herd_is_healthy, "healthy");
	herd_reopen(herd);
	herd_load_stop(herd);
	herd_check(herd);
	herd_free(herd);
}

/* The primary's log is cut off: requests made under a newer map than it has are not kept for ever. */
static void test_requests_of_a_newer_map_go_back_when_it_does_not_come(void **state)
{
	for (unsigned seed = 51; seed < 54; seed++) {
		struct stuck stuck = make(seed, PGS);
		struct herd *herd = stuck.herd;
		uint64_t before;

		assert_int_equal(herd_write(herd, stuck.gateway, stuck.good_at, 4096), 0);
		sim_engine_set_cut(herd->nodes[stuck.primary].engine, true);
		while (cluster_setting(herd->nodes[stuck.gateway].map,
				       CLUSTER_SETTING_CLOSE_DELAY) != 300) {
			herd_propose_by(&herd->nodes[stuck.gateway],
					cluster_command_setting("close_delay", 300));
			herd_run(herd, 50);
		}
		before = HERD_COUNTER(herd, refused);
		herd_write_begin(herd, stuck.gateway, stuck.good_at, 4096);
		herd_run(herd, 800);
		assert_int_equal(HERD_COUNTER(herd, refused), before);
		herd_run(herd, 400);
		assert_true(HERD_COUNTER(herd, refused) > before);
		sim_engine_set_cut(herd->nodes[stuck.primary].engine, false);
		herd_run(herd, 1000);
		finish(&stuck);
	}
}

/* Its member is down and needed: it waits. Its neighbours answer within their time. */
static void test_a_group_that_waits_leaves_the_others_what_they_need(void **state)
{
	for (unsigned seed = 1; seed < 4; seed++) {
		struct stuck stuck = make(seed, PGS);
		struct herd *herd = stuck.herd;

		assert_int_equal(herd_write(herd, stuck.gateway, stuck.good_at, 4096), 0);
		herd_kill(herd, stuck.lost, SIM_DEATH_CERTAIN);
		herd_run(herd, 500);
		begin_many(&stuck, 600);
		herd_run(herd, 200);
		uint64_t began = sim_now(herd->world);
		for (unsigned i = 0; i < 20; i++)
			assert_int_equal(
				herd_write(herd, stuck.gateway, stuck.good_at + i * 4096, 4096), 0);
		assert_true(sim_now(herd->world) - began < 2 * NS_PER_S);
		herd_run(herd, 3000);
		began = sim_now(herd->world); /* and the longer it lasts the less it costs */
		for (unsigned i = 0; i < 20; i++)
			assert_int_equal(
				herd_write(herd, stuck.gateway, stuck.good_at + i * 4096, 4096), 0);
		assert_true(sim_now(herd->world) - began < NS_PER_S);
		finish(&stuck);
	}
}

/*
 * It serves as far as anybody knows, but its member does not answer, and cannot be spared. Writes have
 * their entries, and wait; their clients are sent back, ask again, and are recognised later.
 */
static void test_a_group_whose_writes_hang_leaves_the_others_what_they_need(void **state)
{
	for (unsigned seed = 11; seed < 14; seed++) {
		struct stuck stuck = make(seed, PGS);
		struct herd *herd = stuck.herd;

		assert_int_equal(herd_write(herd, stuck.gateway, stuck.good_at, 4096), 0);
		sim_partition(herd->nodes[stuck.primary].host, herd->nodes[stuck.lost].host);
		begin_many(&stuck, 600);
		herd_run(herd, 200);
		uint64_t began = sim_now(herd->world);
		for (unsigned i = 0; i < 20; i++)
			assert_int_equal(
				herd_write(herd, stuck.gateway, stuck.good_at + i * 4096, 4096), 0);
		assert_true(sim_now(herd->world) - began < 3 * NS_PER_S);
		herd_run(herd, 3000);
		sim_unpartition(herd->nodes[stuck.primary].host, herd->nodes[stuck.lost].host);
		finish(&stuck);
	}
}

/* Objects of other PGs that share both nodes with the first one. */
static unsigned find_others(struct stuck *stuck, uint64_t *offsets, unsigned max)
{
	struct herd *herd = stuck->herd;
	struct cluster_map *map = herd_map(herd);
	const struct cluster_volume *volume = cluster_volume_by_name(map, HERD_VOLUME);
	uint32_t pgs[64];
	unsigned count = 0;

	for (uint32_t i = 0; i < herd->options.volume_bytes / OBJECT_SIZE && count < max; i++) {
		uint32_t pg = cluster_pg_of(cluster_policy(map, 0), volume->family, i);
		const struct cluster_pg *row = cluster_pg(map, pg);
		bool is_new = true;
		for (unsigned k = 0; k < count; k++)
			is_new = is_new && pgs[k] != pg;
		if (!is_new || node_of(herd, row->primary) != stuck->primary ||
		    !cluster_pg_seat(row, herd->nodes[stuck->lost].store_id))
			continue;
		pgs[count] = pg;
		offsets[count++] = (uint64_t)i * OBJECT_SIZE;
	}
	return count;
}

/* The same with many such groups: what all of them hold must not be everything. */
static void test_many_groups_whose_writes_hang_leave_the_others_what_they_need(void **state)
{
	for (unsigned seed = 21; seed < 23; seed++) {
		struct stuck stuck = make(seed, 64);
		struct herd *herd = stuck.herd;
		uint64_t offsets[8];
		unsigned count = find_others(&stuck, offsets, ARRAY_COUNT(offsets));

		HERD_REQUIRE(herd, count > 5);
		assert_int_equal(herd_write(herd, stuck.gateway, stuck.good_at, 4096), 0);
		sim_partition(herd->nodes[stuck.primary].host, herd->nodes[stuck.lost].host);
		for (unsigned k = 0; k < count; k++)
			for (unsigned i = 0; i < 100; i++)
				herd_write_begin(herd, stuck.gateway, offsets[k] + i * 4096, 4096);
		herd_run(herd, 4000);
		uint64_t began = sim_now(herd->world);
		for (unsigned i = 0; i < 20; i++)
			assert_int_equal(
				herd_write(herd, stuck.gateway, stuck.good_at + i * 4096, 4096), 0);
		assert_true(sim_now(herd->world) - began < 3 * NS_PER_S);
		sim_unpartition(herd->nodes[stuck.primary].host, herd->nodes[stuck.lost].host);
		finish(&stuck);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requests_of_a_newer_map_go_back_when_it_does_not_come),
		cmocka_unit_test(test_a_group_that_waits_leaves_the_others_what_they_need),
		cmocka_unit_test(test_a_group_whose_writes_hang_leaves_the_others_what_they_need),
		cmocka_unit_test(
			test_many_groups_whose_writes_hang_leave_the_others_what_they_need),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
