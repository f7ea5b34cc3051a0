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

#include "lib/base/rule.h"
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

/*
 * P asked for a hand-over, the log did not decide it for a second, and P serves on. It is decided after all while P is cut off:
 * P still has its lease then, and nobody may write before that has ended.
 */
static void test_hand_over_that_is_decided_late_lets_nothing_old_be_served(void **state)
{
	for (uint64_t seed = 1; seed <= 12; seed++) {
		struct roles r = make(300 + seed, 3, 3, 1);
		struct herd *herd = r.herd;
		uint64_t epoch = row_of(herd)->epoch;

		herd_run(herd, 300 + 41 * seed);
		sim_engine_set_cut(herd->nodes[r.p].engine, true);
		sim_partition(herd->nodes[r.p].host, herd->nodes[r.a].host);
		sim_partition(herd->nodes[r.p].host, herd->nodes[r.b].host);
		herd_propose(herd, cluster_command_pg_primary(0, epoch, herd->nodes[r.a].store_id));
		for (unsigned i = 0; i < 150; i++) {
			if (i % 4 == 0)
				herd_write_begin(herd, r.a, 0, 8 * KIB);
			herd_read_begin(herd, r.p, 0, 8 * KIB);
			herd_run(herd, 20);
		}
		assert_int_equal(herd_primary(herd, 0), r.a);
		sim_unpartition(herd->nodes[r.p].host, herd->nodes[r.a].host);
		sim_unpartition(herd->nodes[r.p].host, herd->nodes[r.b].host);
		herd_run(herd, 500);
		sim_engine_set_cut(herd->nodes[r.p].engine, false);
		end(herd);
	}
}

/* P gets nothing from the log, and hears from nobody, until somebody else has taken over. */
static void cut_off(struct roles *r)
{
	struct herd *herd = r->herd;

	sim_engine_set_cut(herd->nodes[r->p].engine, true);
	for (unsigned i = 0; i < herd->node_count; i++)
		if (i != r->p)
			sim_partition(herd->nodes[r->p].host, herd->nodes[i].host);
}

static void reach(struct roles *r)
{
	for (unsigned i = 0; i < r->herd->node_count; i++)
		if (i != r->p)
			sim_unpartition(r->herd->nodes[r->p].host, r->herd->nodes[i].host);
}

static bool is_led_by_another(struct roles *r)
{
	return herd_primary(r->herd, 0) >= 0 && herd_primary(r->herd, 0) != (int)r->p;
}

static void wait_for_takeover(struct roles *r, uint64_t ms)
{
	for (unsigned i = 0; !is_led_by_another(r) && i < ms; i++)
		herd_run(r->herd, 1);
	assert_true(is_led_by_another(r));
}

/* Reads through P that must not see what was before @r's takeover. */
static void read_at_old(struct roles *r, unsigned ms)
{
	for (unsigned i = 0; i < ms; i += 50) {
		herd_read_begin(r->herd, r->p, 0, 64 * KIB);
		herd_run(r->herd, 50);
	}
}

/* The link is back before P's log is: its beacons are acknowledged again, and must not count. */
static void test_l1_acknowledgement_of_a_newer_index_does_not_count(void **state)
{
	for (uint64_t seed = 1; seed <= 6; seed++) {
		struct roles r = make(200 + seed, 3, 3, 1);

		cut_off(&r);
		wait_for_takeover(&r, 3000);
		assert_int_equal(herd_write(r.herd, r.a, 0, 64 * KIB), 0);
		reach(&r);
		read_at_old(&r, 3000);
		sim_engine_set_cut(r.herd->nodes[r.p].engine, false);
		end(r.herd);
	}
}

/* What was proposed while the log had no quorum is lost: with the quorum it is proposed at once. */
static void test_takeover_is_asked_for_again_when_there_is_quorum(void **state)
{
	struct roles r = make(300, 3, 3, 1);
	uint64_t before = HERD_COUNTER(r.herd, silent_takeovers), asked;

	cut_off(&r);
	sim_log_set_quorum(r.herd->log, false);
	for (unsigned i = 0; HERD_COUNTER(r.herd, silent_takeovers) == before && i < 3000; i++)
		herd_run(r.herd, 1);
	asked = HERD_COUNTER(r.herd, silent_takeovers);
	assert_true(asked > before);
	herd_run(r.herd, 100); /* it would be repeated after 500 */
	assert_int_equal(HERD_COUNTER(r.herd, silent_takeovers), asked);
	for (unsigned i = 0; i < r.herd->node_count; i++)
		pg_set_ask_again(r.herd->nodes[i].set);
	herd_run(r.herd, 2);
	assert_int_equal(HERD_COUNTER(r.herd, silent_takeovers), asked + 1);
	sim_log_set_quorum(r.herd->log, true);
	wait_for_takeover(&r, 3000);
	reach(&r);
	sim_engine_set_cut(r.herd->nodes[r.p].engine, false);
	end(r.herd);
}

/* The link is back between the proposal and its commit. */
static void test_l2_nothing_is_acknowledged_while_a_takeover_is_proposed(void **state)
{
	for (uint64_t seed = 1; seed <= 6; seed++) {
		struct roles r = make(300 + seed, 3, 3, 1);
		uint64_t before = HERD_COUNTER(r.herd, silent_takeovers);

		cut_off(&r);
		sim_log_set_delay(r.herd->log, 90 * NS_PER_MS, 120 * NS_PER_MS);
		for (unsigned i = 0; HERD_COUNTER(r.herd, silent_takeovers) == before && i < 3000;
		     i++)
			herd_run(r.herd, 1);
		assert_true(HERD_COUNTER(r.herd, silent_takeovers) > before);
		/* A new connection has no bytes of before that it must wait for. */
		for (unsigned i = 0; i < r.herd->node_count; i++)
			if (i != r.p)
				sim_reset_streams(r.herd->nodes[r.p].host, r.herd->nodes[i].host);
		reach(&r);
		wait_for_takeover(&r, 3000);
		assert_int_equal(herd_write(r.herd, r.a, 0, 64 * KIB), 0);
		read_at_old(&r, 2000);
		sim_log_set_delay(r.herd->log, 200 * NS_PER_US, 5 * NS_PER_MS);
		sim_engine_set_cut(r.herd->nodes[r.p].engine, false);
		end(r.herd);
	}
}

/* What the start before promised is kept: B's grace begins with its registration. */
static void test_r1_grace_counts_from_the_registration(void **state)
{
	for (uint64_t seed = 1; seed <= 6; seed++) {
		struct roles r = make(400 + seed, 2, 2, 1);

		herd_run(r.herd, 200 + 31 * seed);
		cut_off(&r);
		herd_kill(r.herd, r.a, SIM_DEATH_CERTAIN);
		herd_start(r.herd, r.a);
		for (unsigned i = 0; i < 80; i++) {
			if (i % 2)
				herd_read_begin(r.herd, r.p, 0, 64 * KIB);
			if (is_led_by_another(&r) && r.herd->nodes[r.a].session)
				break;
			herd_run(r.herd, 50);
		}
		wait_for_takeover(&r, 3000);
		herd_run(r.herd, 20);
		struct herd *herd = r.herd;
		for (unsigned i = 0; !herd->nodes[r.a].volume && i < 100; i++) {
			if (i % 10 == 0)
				herd_open_volume(&herd->nodes[r.a]);
			herd_run(herd, 10);
		}
		assert_int_equal(herd_write(herd, r.a, 0, 64 * KIB), 0);
		read_at_old(&r, 2000);
		reach(&r);
		sim_engine_set_cut(herd->nodes[r.p].engine, false);
		end(herd);
	}
}

static void set(struct roles *r, const char *name, uint64_t value)
{
	struct herd *herd = r->herd;
	int id = cluster_setting_find(name);

	assert_true(id >= 0);
	for (unsigned i = 0;
	     i < 100 && cluster_setting(herd_map(herd), (enum cluster_setting_id)id) != value;
	     i++) {
		herd_propose_by(&herd->nodes[r->b], cluster_command_setting(name, value));
		herd_run(herd, 50);
	}
	assert_int_equal(cluster_setting(herd_map(herd), (enum cluster_setting_id)id), value);
	herd_run(herd, 50);
}

/* Its clock did not count the time in which it was stopped: only a beacon sent after the read helps. */
static void test_l4_without_leases_each_read_is_confirmed(void **state)
{
	for (uint64_t seed = 1; seed <= 6; seed++) {
		struct roles r = make(500 + seed, 3, 3, 1);
		struct herd *herd = r.herd;

		set(&r, "lease", 0);
		herd_load_start(herd, 8);
		herd_run(herd, 500);
		assert_in_range(herd_load_longest_ns(herd), 0, 50 * NS_PER_MS);
		herd_load_stop(herd);
		sim_host_freeze(herd->nodes[r.p].host);
		wait_for_takeover(&r, 3000);
		assert_int_equal(herd_write(herd, r.a, 0, 64 * KIB), 0);
		sim_engine_set_cut(herd->nodes[r.p].engine, true);
		herd_read_begin(herd, r.p, 0, 64 * KIB);
		sim_host_thaw(herd->nodes[r.p].host);
		herd->nodes[r.p].resumed_ns = sim_now(herd->world);
		read_at_old(&r, 1000);
		sim_engine_set_cut(herd->nodes[r.p].engine, false);
		end(herd);
	}
}

/*
 * `grace` and `lease` are raised, and A does not know: it takes over after the old grace. P must not count
 * on the new lease by what A acknowledges.
 */
static void test_l1_new_settings_count_only_with_those_who_know_them(void **state)
{
	for (uint64_t seed = 1; seed <= 6; seed++) {
		struct roles r = make(520 + seed, 3, 3, 1);
		struct herd *herd = r.herd;

		sim_engine_set_cut(herd->nodes[r.a].engine, true);
		set(&r, "grace", 20000);
		set(&r, "lease", 10000);
		herd_run(herd, 300);
		/* From here on P is alone with what it knows, and A proposes when it can. */
		cut_off(&r);
		herd_run(herd, 1600);
		sim_engine_set_cut(herd->nodes[r.a].engine, false);
		wait_for_takeover(&r, 3000);
		assert_int_equal(herd_write(herd, r.a, 0, 64 * KIB), 0);
		read_at_old(&r, 3000);
		set(&r, "lease", 1000);
		set(&r, "grace", 1500);
		reach(&r);
		sim_engine_set_cut(herd->nodes[r.p].engine, false);
		end(herd);
	}
}

/* ---- blame, and deaths ---- */

static void test_who_was_stopped_blames_nobody(void **state)
{
	for (uint64_t seed = 1; seed <= 6; seed++) {
		unsigned nodes = 2 + seed % 2;
		struct roles r = make(600 + seed, nodes, nodes, 1);
		uint64_t shrinks = HERD_COUNTER(r.herd, shrinks);
		uint64_t takeovers = HERD_COUNTER(r.herd, silent_takeovers);
		unsigned node = seed % 4 < 2 ? r.p : r.a;

		/* Not for long enough to be taken over from, or longer as nobody but P evicts. */
		herd_pause(r.herd, node);
		herd_run(r.herd, node == r.p ? 1150 : 800);
		herd_resume(r.herd, node);
		herd_run(r.herd, 3000);
		assert_int_equal(HERD_COUNTER(r.herd, shrinks), shrinks);
		assert_int_equal(HERD_COUNTER(r.herd, silent_takeovers), takeovers);
		assert_int_equal(herd_primary(r.herd, 0), r.p);
		end(r.herd);
	}
}

static void test_l5_a_late_death_hits_no_later_start(void **state)
{
	struct roles r = make(700, 3, 3, 1);
	const struct cluster_node *row = cluster_node(herd_map(r.herd), r.herd->nodes[r.p].id);
	uint32_t id = row->id;
	uint64_t incarnation = row->incarnation;

	herd_kill(r.herd, r.p, SIM_DEATH_CERTAIN);
	herd_start(r.herd, r.p);
	herd_until(r.herd, 10000, herd_is_healthy, "healthy");
	for (unsigned i = 0; i < 20; i++) {
		herd_propose(r.herd, cluster_command_dead(id, incarnation));
		herd_run(r.herd, 20);
		row = cluster_node(herd_map(r.herd), id);
		assert_true(row->flags & CLUSTER_NODE_UP);
		assert_true(row->incarnation > incarnation);
	}
	herd_reopen(r.herd);
	end(r.herd);
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
	measure(3, PRIMARY, DEAF, STALL_MAX_NS);
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

/*
 * A asks for a takeover, and the floor has risen by the time that the log has it. The link heals: whatever
 * the log made of that, the PG is served again; A must not refuse P's beacons for ever.
 */
static void test_takeover_that_the_floor_forbids_by_now_ends_all_the_same(void **state)
{
	for (uint64_t seed = 1; seed <= 4; seed++) {
		struct roles r = make(900 + seed, 3, 2, 1);
		uint64_t before = HERD_COUNTER(r.herd, silent_takeovers);
		unsigned other = 3 - r.p - r.a;

		sim_log_set_delay(r.herd->log, 90 * NS_PER_MS, 120 * NS_PER_MS);
		cut_off(&r);
		herd_run(r.herd, 1250); /* P evicts nobody, it waits for two graces more */
		for (unsigned i = 0; HERD_COUNTER(r.herd, silent_takeovers) == before && i < 3000;
		     i++) {
			if (i % 20 == 0)
				herd_propose_by(&r.herd->nodes[other],
						cluster_command_policy(0, 2, 2));
			herd_run(r.herd, 1);
		}
		assert_true(HERD_COUNTER(r.herd, silent_takeovers) > before);
		reach(&r);
		sim_engine_set_cut(r.herd->nodes[r.p].engine, false);
		sim_log_set_delay(r.herd->log, 200 * NS_PER_US, 5 * NS_PER_MS);
		herd_run(r.herd, 5000);
		assert_int_equal(cluster_policy(herd_map(r.herd), 0)->min_insync, 2);
		assert_int_equal(herd_read(r.herd, r.p, 0, 64 * KIB), 0);
		end(r.herd);
	}
}

/*
 * B's operation waits for a dial to P, which nobody answers, when the map names another primary. Dials come
 * and end at their own times: whatever moment the map comes at, the operation goes there soon.
 */
static void test_what_waits_for_a_dial_to_the_old_primary_turns_to_the_new_one(void **state)
{
	for (uint64_t seed = 1; seed <= 30; seed++) {
		struct roles r = make(1000 + seed, 3, 3, 1);
		struct herd *herd = r.herd;
		const struct herd_node *b = &herd->nodes[r.b];
		uint64_t delay_ns = 20 * seed * NS_PER_MS;

		assert_int_equal(herd_write(herd, r.b, 0, 4 * KIB), 0);
		cut_off(&r);
		herd_write_begin(herd, r.b, 0, 4 * KIB);
		sim_log_set_delay(herd->log, delay_ns, delay_ns);
		uint64_t done = herd_load_done(herd);
		for (unsigned i = 0; node_of(herd, cluster_pg(b->map, 0)->primary) == r.p; i++) {
			herd_run(herd, 1);
			assert_true(i < 4000);
		}
		assert_int_equal(herd_load_done(herd), done);
		herd_run(herd, 150);
		assert_int_equal(herd_load_done(herd), done + 1);
		reach(&r);
		sim_engine_set_cut(herd->nodes[r.p].engine, false);
		sim_log_set_delay(herd->log, 200 * NS_PER_US, 5 * NS_PER_MS);
		end(herd);
	}
}

/* Nothing that was proposed arrives: it is proposed again as soon as it may be, and not at another one's turn. */
static void test_a_takeover_that_is_lost_is_asked_for_again_in_time(void **state)
{
	struct roles r = make(1100, 3, 3, 1);
	uint64_t before = HERD_COUNTER(r.herd, silent_takeovers);
	uint64_t times[3];

	cut_off(&r);
	/* B's turn would come, too. */
	sim_log_set_delay(r.herd->log, 10 * NS_PER_S, 10 * NS_PER_S);
	herd_pause(r.herd, r.b);
	for (unsigned n = 0; n < 3; n++) {
		for (unsigned i = 0; HERD_COUNTER(r.herd, silent_takeovers) <= before + n; i++) {
			herd_run(r.herd, 1);
			assert_true(i < 3000);
		}
		times[n] = sim_now(r.herd->world);
	}
	for (unsigned n = 1; n < 3; n++)
		assert_in_range((times[n] - times[n - 1]) / NS_PER_MS, 499, 510);
	sim_log_set_delay(r.herd->log, 200 * NS_PER_US, 5 * NS_PER_MS);
	herd_resume(r.herd, r.b);
	reach(&r);
	sim_engine_set_cut(r.herd->nodes[r.p].engine, false);
	end(r.herd);
}

/* test_pg_lease [TEST [RULE]]: a pattern of names, and a rule that is switched off. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_primary_that_wakes_up_serves_nothing_old),
		cmocka_unit_test(test_primary_that_is_cut_off_serves_nothing_old),
		cmocka_unit_test(test_hand_over_that_is_decided_late_lets_nothing_old_be_served),
		cmocka_unit_test(test_l1_acknowledgement_of_a_newer_index_does_not_count),
		cmocka_unit_test(test_takeover_is_asked_for_again_when_there_is_quorum),
		cmocka_unit_test(test_l2_nothing_is_acknowledged_while_a_takeover_is_proposed),
		cmocka_unit_test(test_r1_grace_counts_from_the_registration),
		cmocka_unit_test(test_takeover_that_the_floor_forbids_by_now_ends_all_the_same),
		cmocka_unit_test(
			test_what_waits_for_a_dial_to_the_old_primary_turns_to_the_new_one),
		cmocka_unit_test(test_a_takeover_that_is_lost_is_asked_for_again_in_time),
		cmocka_unit_test(test_l4_without_leases_each_read_is_confirmed),
		cmocka_unit_test(test_l1_new_settings_count_only_with_those_who_know_them),
		cmocka_unit_test(test_who_was_stopped_blames_nobody),
		cmocka_unit_test(test_l5_a_late_death_hits_no_later_start),
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
	if (argc > 2 && !rule_switch_off(argv[2]))
		return 2;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
