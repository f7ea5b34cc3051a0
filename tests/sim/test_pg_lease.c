/*
 * Primaries and members that fall silent (REPLICATION, L1 to L5, R1): nobody reads the past, and
 * nobody waits for long.
 *
 * P leads PG 0, A and B are its members in the order in which they would take over.
 */
#include "tests/sim/herd_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/base/size.h"

#define STALL_MAX_NS (3 * NS_PER_S)

struct roles {
	struct herd *herd;
	unsigned p, a, b;
};

static const struct cluster_pg *row_of(struct herd *herd)
{
	return cluster_pg(herd_map(herd), 0);
}

static unsigned node_of(struct herd *herd, uint32_t store)
{
	for (unsigned i = 0; i < herd->node_count; i++)
		if (herd->nodes[i].store_id == store)
			return i;
	fail_msg("no node has store %u", store);
	return 0;
}

static struct roles make(uint64_t seed, unsigned nodes, uint32_t copies, uint32_t pgs)
{
	const struct herd_options options = {.seed = seed,
					     .nodes = nodes,
					     .copies = copies,
					     .min_insync = 1,
					     .pg_count = pgs,
					     .volume_bytes = 16 * MIB};
	struct herd *herd = herd_new(&options);
	struct roles roles = {.herd = herd, .p = (unsigned)herd_primary(herd, 0)};
	const struct cluster_pg *row = row_of(herd);

	assert_int_equal(node_of(herd, row->target[0]), roles.p);
	roles.a = node_of(herd, row->target[1]);
	roles.b = copies > 2 ? node_of(herd, row->target[2]) : roles.a;
	assert_int_equal(herd_write(herd, roles.p, 0, 64 * KIB), 0);
	return roles;
}

static void run_us(struct herd *herd, uint64_t us)
{
	(void)sim_world_run_until(herd->world, sim_now(herd->world) + us * NS_PER_US, NULL, NULL);
}

static bool is_taken_over(struct herd *herd)
{
	int primary = herd_primary(herd, 0);

	return primary >= 0 && !sim_host_is_paused(herd->nodes[primary].host);
}

static void end(struct herd *herd)
{
	herd_load_stop(herd);
	herd_until(herd, 30000, herd_is_healthy, "healthy");
	herd_check(herd);
	herd_free(herd);
}

/* ---- L1: who was paused serves no past ---- */

/* Clients of the paused node ask at the very moment when it goes on, and before its log is there. */
static void test_primary_that_wakes_up_serves_nothing_old(void **state)
{
	for (uint64_t seed = 1; seed <= 12; seed++) {
		struct roles r = make(seed, 3, 3, 1);
		struct herd *herd = r.herd;

		herd_run(herd, 300 + 37 * seed);
		herd_pause(herd, r.p);
		herd_until(herd, 3000, is_taken_over, "taken over");
		assert_int_equal(herd_write(herd, r.a, 0, 64 * KIB), 0);
		sim_engine_set_cut(herd->nodes[r.p].engine, true);
		for (unsigned i = 0; i < 8; i++)
			herd_read_begin(herd, r.p, i * 8 * KIB, 8 * KIB);
		herd_resume(herd, r.p);
		for (unsigned i = 0; i < 8; i++) {
			run_us(herd, 50 << i);
			herd_read_begin(herd, r.p, i * 8 * KIB, 8 * KIB);
		}
		herd_run(herd, 2000);
		sim_engine_set_cut(herd->nodes[r.p].engine, false);
		end(herd);
	}
}

/* The same with a network that fails in place of a process: P can be asked, and hears nothing. */
static void test_primary_that_is_cut_off_serves_nothing_old(void **state)
{
	for (uint64_t seed = 1; seed <= 6; seed++) {
		struct roles r = make(100 + seed, 3, 3, 1);
		struct herd *herd = r.herd;

		sim_engine_set_cut(herd->nodes[r.p].engine, true);
		sim_partition(herd->nodes[r.p].host, herd->nodes[r.a].host);
		sim_partition(herd->nodes[r.p].host, herd->nodes[r.b].host);
		for (unsigned i = 0; herd_primary(herd, 0) == (int)r.p; i++) {
			herd_read_begin(herd, r.p, 0, 64 * KIB); /* some are served, some wait */
			herd_run(herd, 100);
			assert_true(i < 30);
		}
		assert_int_equal(herd_write(herd, r.a, 0, 64 * KIB), 0);
		herd_read_begin(herd, r.p, 0, 64 * KIB);
		herd_run(herd, 3000);
		sim_unpartition(herd->nodes[r.p].host, herd->nodes[r.a].host);
		sim_unpartition(herd->nodes[r.p].host, herd->nodes[r.b].host);
		herd_run(herd, 500);
		sim_engine_set_cut(herd->nodes[r.p].engine, false);
		end(herd);
	}
}

/* ---- nobody waits for long ---- */

enum victim { PRIMARY, REPLICA };
enum fault { PAUSED, PARTITIONED, DEAF, MUTE, KILLED };

static void strike(struct roles *r, unsigned node, enum fault fault)
{
	struct sim_host *host = r->herd->nodes[node].host;

	if (fault == PAUSED)
		herd_pause(r->herd, node);
	if (fault == KILLED)
		herd_kill(r->herd, node, SIM_DEATH_CERTAIN);
	for (unsigned i = 0; i < r->herd->node_count; i++) {
		struct sim_host *other = r->herd->nodes[i].host;
		if (i == node)
			continue;
		if (fault == PARTITIONED || fault == DEAF)
			sim_link_cut(other, host);
		if (fault == PARTITIONED || fault == MUTE)
			sim_link_cut(host, other);
	}
	/* What it has in flight, and what comes to it, is not counted. */
	if (fault != KILLED && fault != PAUSED)
		r->herd->nodes[node].resumed_ns = UINT64_MAX;
}

static void relieve(struct roles *r, unsigned node, enum fault fault)
{
	struct sim_host *host = r->herd->nodes[node].host;

	if (fault == KILLED) {
		herd_start(r->herd, node);
		return;
	}
	for (unsigned i = 0; i < r->herd->node_count; i++)
		if (i != node)
			sim_unpartition(host, r->herd->nodes[i].host);
	herd_resume(r->herd, node);
}

static uint64_t stall(uint64_t seed, unsigned nodes, enum victim victim, enum fault fault)
{
	struct roles r = make(seed, nodes, min_of(nodes, 3u), 4);
	unsigned node = victim == PRIMARY ? r.p : r.a;
	uint64_t longest;

	herd_load_start(r.herd, 12);
	herd_run(r.herd, 500 + seed % 7 * 61);
	(void)herd_load_longest_ns(r.herd);
	strike(&r, node, fault);
	herd_run(r.herd, 6000);
	longest = herd_load_longest_ns(r.herd);
	relieve(&r, node, fault);
	herd_run(r.herd, 3000);
	if (fault == KILLED)
		herd_reopen(r.herd);
	end(r.herd);
	return longest;
}

static void measure(unsigned nodes, enum victim victim, enum fault fault, uint64_t limit_ns)
{
	static const char *const names[] = {"paused", "partitioned", "deaf", "mute", "killed"};
	uint64_t longest = 0;

	for (uint64_t seed = 1; seed <= 3; seed++)
		longest = max_of(longest, stall(1000 * nodes + 100 * victim + 10 * fault + seed,
						nodes, victim, fault));
	print_message("%u nodes, %s %s: longest stall %llu ms\n", nodes,
		      victim == PRIMARY ? "primary" : "replica", names[fault],
		      (unsigned long long)(longest / NS_PER_MS));
	assert_in_range(longest, 0, limit_ns);
}

static void test_paused_primary_stalls_clients_less_than_three_seconds(void **state)
{
	measure(2, PRIMARY, PAUSED, STALL_MAX_NS);
	measure(3, PRIMARY, PAUSED, STALL_MAX_NS);
}

static void test_paused_replica_stalls_clients_less_than_three_seconds(void **state)
{
	measure(2, REPLICA, PAUSED, STALL_MAX_NS);
	measure(3, REPLICA, PAUSED, STALL_MAX_NS);
}

/* Two nodes that cannot talk: clients of one of them have no copy in reach. So three. */
static void test_primary_that_is_cut_off_stalls_clients_less_than_three_seconds(void **state)
{
	measure(3, PRIMARY, PARTITIONED, STALL_MAX_NS);
	measure(3, PRIMARY, MUTE, STALL_MAX_NS);
}

static void test_replica_that_is_cut_off_stalls_clients_less_than_three_seconds(void **state)
{
	measure(3, REPLICA, PARTITIONED, STALL_MAX_NS);
	measure(3, REPLICA, MUTE, STALL_MAX_NS);
	measure(3, REPLICA, DEAF, STALL_MAX_NS);
}

static void test_certain_death_stalls_clients_much_less_than_a_second(void **state)
{
	for (unsigned nodes = 2; nodes <= 3; nodes++) {
		measure(nodes, PRIMARY, KILLED, NS_PER_S / 2);
		measure(nodes, REPLICA, KILLED, NS_PER_S / 2);
	}
}

/* test_pg_lease [TEST]: a pattern of names. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_primary_that_wakes_up_serves_nothing_old),
		cmocka_unit_test(test_primary_that_is_cut_off_serves_nothing_old),
		cmocka_unit_test(test_paused_primary_stalls_clients_less_than_three_seconds),
		cmocka_unit_test(test_paused_replica_stalls_clients_less_than_three_seconds),
		cmocka_unit_test(
			test_primary_that_is_cut_off_stalls_clients_less_than_three_seconds),
		cmocka_unit_test(
			test_replica_that_is_cut_off_stalls_clients_less_than_three_seconds),
		cmocka_unit_test(test_certain_death_stalls_clients_much_less_than_a_second),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
