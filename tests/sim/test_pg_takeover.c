/* Primaries that die with writes in flight, at every point in time (REPLICATION, T1, T2, Q1). */
#include "tests/sim/herd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/base/size.h"

static struct herd *one_pg(uint64_t seed, unsigned nodes)
{
	const struct herd_options options = {.seed = seed,
					     .nodes = nodes,
					     .copies = 3,
					     .min_insync = 1,
					     .pg_count = 1,
					     .volume_bytes = 16 * MIB};

	return herd_new(&options);
}

/* From @node each other node is @step_ns further away than the one before. */
static void spread(struct herd *herd, unsigned node, uint64_t step_ns)
{
	uint64_t delay = 50 * NS_PER_US;

	for (unsigned i = 0; i < herd->node_count; i++) {
		if (i == node)
			continue;
		sim_link_set_delay(herd->nodes[node].host, herd->nodes[i].host, delay, delay);
		delay += step_ns;
	}
}

static void run_us(struct herd *herd, uint64_t us)
{
	(void)sim_world_run_until(herd->world, sim_now(herd->world) + us * NS_PER_US, NULL, NULL);
}

static unsigned other_than(unsigned node)
{
	return node == 0 ? 1 : 0;
}

static void settle_and_check(struct herd *herd)
{
	for (unsigned i = 0; i < herd->node_count; i++)
		if (!herd->nodes[i].is_up)
			herd_start(herd, i);
	herd_until(herd, 60000, herd_is_healthy, "healthy");
	herd_reopen(herd);
	herd_load_stop(herd);
	herd_check(herd);
}

/* Twelve writes to four objects, some of them to the same blocks' neighbours. */
static void begin_writes(struct herd *herd, unsigned node)
{
	for (unsigned i = 0; i < 12; i++)
		herd_write_begin(herd, node, (i % 4) * 4 * MIB + i * 6144, 4096 + (i % 3) * 1024);
}

static void test_nothing_is_lost_whenever_the_primary_dies(void **state)
{
	for (unsigned point = 0; point < 40; point++) {
		struct herd *herd = one_pg(100 + point, 3);
		unsigned primary = (unsigned)herd_primary(herd, 0);
		/* Half of the time the gateway dies with it: nobody tries again. */
		unsigned gateway = point % 2 ? primary : other_than(primary);

		assert_int_equal(herd_write(herd, gateway, 0, 65536), 0);
		spread(herd, primary, 15 * NS_PER_MS); /* longer than the log takes */
		begin_writes(herd, gateway);
		run_us(herd, 100 * point);
		herd_kill(herd, primary, SIM_DEATH_CERTAIN);
		settle_and_check(herd);
		herd_free(herd);
	}
}

static void test_nothing_is_lost_when_the_next_primary_dies_while_it_settles(void **state)
{
	for (unsigned point = 0; point < 40; point++) {
		struct herd *herd = one_pg(200 + point, 4);
		unsigned primary = (unsigned)herd_primary(herd, 0);
		unsigned gateway = point % 2 ? primary : other_than(primary);
		int next = -1;

		assert_int_equal(herd_write(herd, gateway, 0, 65536), 0);
		spread(herd, primary, 15 * NS_PER_MS);
		begin_writes(herd, gateway);
		run_us(herd, 300 + 100 * point);
		herd_kill(herd, primary, SIM_DEATH_CERTAIN);
		for (unsigned i = 0; i < 2000 && (next < 0 || next == (int)primary); i++) {
			run_us(herd, 50);
			next = herd_primary(herd, 0);
		}
		assert_true(next >= 0);
		spread(herd, (unsigned)next, 10 * NS_PER_MS);
		run_us(herd, 1000 * point);
		herd_kill(herd, (unsigned)next, SIM_DEATH_CERTAIN);
		settle_and_check(herd);
		herd_free(herd);
	}
}

/* A write that is on its way to the members is read by nobody: it may die with the primary (W4). */
static void test_what_was_read_is_never_taken_back(void **state)
{
	for (unsigned point = 0; point < 12; point++) {
		struct herd *herd = one_pg(300 + point, 3);
		unsigned primary = (unsigned)herd_primary(herd, 0);
		unsigned reader = other_than(primary);

		assert_int_equal(herd_write(herd, reader, 0, 65536), 0);
		for (unsigned i = 0; i < herd->node_count; i++)
			if (i != primary && i != reader)
				sim_link_set_delay(herd->nodes[primary].host, herd->nodes[i].host,
						   15 * NS_PER_MS, 15 * NS_PER_MS);
		herd_write_begin(herd, primary, 4096, 8192);
		run_us(herd, 300 + 100 * point);
		herd_read_begin(herd, reader, 0, 65536);
		run_us(herd, 4000);
		/* Whoever leads next has it, or has not. */
		sim_link_cut(herd->nodes[primary].host, herd->nodes[reader].host);
		herd_kill(herd, primary, SIM_DEATH_CERTAIN);
		herd_run(herd, 100);
		sim_link_heal(herd->nodes[primary].host, herd->nodes[reader].host);
		settle_and_check(herd);
		herd_free(herd);
	}
}

/*
 * The next primary has the entries of the old one on their way into its store, where they are not to be
 * read yet. It waits for them: else it would settle their objects with what they had before, and answer
 * those who try again that their writes were executed.
 */
static void test_entries_on_their_way_to_the_disk_are_not_settled_away(void **state)
{
	for (unsigned point = 0; point < 12; point++) {
		struct herd *herd = one_pg(400 + point, 3);
		unsigned primary = (unsigned)herd_primary(herd, 0), gateway = other_than(primary);

		for (unsigned i = 0; i < 4; i++)
			assert_int_equal(herd_write(herd, gateway, i * 4 * MIB, 131072), 0);
		for (unsigned i = 0; i < herd->node_count; i++)
			if (i != primary)
				sim_host_hang_disk(herd->nodes[i].host, true);
		begin_writes(herd, gateway);
		run_us(herd, 200 + 100 * point);
		herd_kill(herd, primary, SIM_DEATH_CERTAIN);
		herd_run(herd, 100 + 20 * point);
		for (unsigned i = 0; i < herd->node_count; i++)
			if (i != primary)
				sim_host_hang_disk(herd->nodes[i].host, false);
		settle_and_check(herd);
		herd_free(herd);
	}
}

static unsigned node_of_store(const struct herd *herd, uint32_t store)
{
	for (unsigned i = 0; i < herd->node_count; i++)
		if (herd->nodes[i].store_id == store)
			return i;
	return herd->node_count;
}

/*
 * The next primary lacks the entry, and its own copy of the object rots. The copy with the entry will not do: its
 * request would be executed again, over what was written since. So who has the entry leads.
 */
static void test_what_is_damaged_and_in_doubt_is_settled_by_who_has_it_whole(void **state)
{
	for (unsigned seed = 500; seed < 506; seed++) {
		struct herd *herd = one_pg(seed, 4);
		const struct cluster_pg *row = cluster_pg(herd_map(herd), 0);
		unsigned p = (unsigned)herd_primary(herd, 0), member[2], count = 0, c;

		assert_int_equal(row->target_count, 3);
		for (uint32_t i = 0; i < row->target_count; i++)
			if (row->target[i] != row->primary)
				member[count++] = node_of_store(herd, row->target[i]);
		c = 6 - p - member[0] - member[1];
		herd->may_diverge = true;
		for (uint64_t at = 0; at < 8 * MIB; at += 4 * MIB)
			assert_int_equal(herd_write(herd, c, at, 64 * KIB), 0);
		herd_run(herd, 500);
		sim_link_cut(herd->nodes[p].host, herd->nodes[member[0]].host);
		herd_write_begin(herd, c, 8 * KIB, 4 * KIB);
		herd_write_begin(herd, c, 4 * MIB + 8 * KIB, 4 * KIB); /* and one that is well */
		herd_run(herd, 20);
		(void)herd_make_hole(herd, member[0], 0);
		herd_kill(herd, p, SIM_DEATH_CERTAIN);
		sim_link_heal(herd->nodes[p].host, herd->nodes[member[0]].host);
		for (unsigned i = 0; i < 2000 && herd_primary(herd, 0) != (int)member[0]; i++)
			herd_run(herd, 1);
		assert_int_equal(herd_primary(herd, 0), member[0]);
		for (unsigned i = 0; i < 2000 && herd_primary(herd, 0) != (int)member[1]; i++)
			herd_run(herd, 1);
		assert_int_equal(herd_primary(herd, 0), member[1]);
		assert_int_equal(herd_read(herd, c, 8 * KIB, 4 * KIB), 0);
		settle_and_check(herd);
		assert_int_equal(HERD_COUNTER(herd, objects_lost), 0);
		herd_free(herd);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_is_lost_whenever_the_primary_dies),
		cmocka_unit_test(test_what_was_read_is_never_taken_back),
		cmocka_unit_test(test_entries_on_their_way_to_the_disk_are_not_settled_away),
		cmocka_unit_test(test_what_is_damaged_and_in_doubt_is_settled_by_who_has_it_whole),
		cmocka_unit_test(test_nothing_is_lost_when_the_next_primary_dies_while_it_settles),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
