/*
 * Primaries that come back before anybody has missed them, and fences (REPLICATION, L3): what is known to
 * have ended nobody waits for, and nobody waits twice.
 *
 * P leads PG 0, A is in sync.
 */
#include "tests/sim/herd_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/base/size.h"
#include "sheep/pg/pg_priv.h"

#define GRACE_MS 1500 /* the cluster's default */

struct roles {
	struct herd *herd;
	unsigned p, a;
};

static struct roles make(uint64_t seed, bool has_notes)
{
	const struct herd_options options = {.seed = seed,
					     .nodes = 3,
					     .copies = 3,
					     .min_insync = 1,
					     .pg_count = 4,
					     .volume_bytes = 16 * MIB};
	struct herd *herd = herd_new(&options);
	struct roles roles = {.herd = herd, .p = (unsigned)herd_primary(herd, 0)};

	herd->has_no_notes = !has_notes;
	roles.a = (roles.p + 1) % 3;
	assert_int_equal(herd_write(herd, roles.p, 0, 64 * KIB), 0);
	herd_load_start(herd, 12);
	herd_run(herd, 500 + seed % 7 * 61);
	(void)herd_load_longest_ns(herd);
	return roles;
}

static void end(struct herd *herd)
{
	herd_load_stop(herd);
	herd_until(herd, 30000, herd_is_healthy, "healthy");
	herd_check(herd);
	herd_free(herd);
}

static bool is_led(struct herd *herd)
{
	int node = herd_primary(herd, 0);
	const struct pg_lead *lead = node < 0 ? NULL : pg_lead_find(herd->nodes[node].set, 0);

	return lead && lead->pg->state == PG_SERVING;
}

/* Down for less than grace, and nobody is told. Returns how long clients of the others waited, in ms. */
static uint64_t restart(struct roles *r, uint64_t ms)
{
	herd_kill(r->herd, r->p, SIM_DEATH_UNKNOWN);
	herd_run(r->herd, ms);
	herd_start(r->herd, r->p);
	herd_until(r->herd, 1000 + GRACE_MS, is_led, "led");
	return herd_load_longest_ns(r->herd) / NS_PER_MS;
}

static void test_restarted_primary_does_not_wait_for_its_earlier_start(void **state)
{
	for (uint64_t seed = 1; seed <= 6; seed++) {
		struct roles r = make(seed, true);
		uint64_t ms = restart(&r, 200 * seed);

		assert_in_range(ms, 200 * seed, 200 * seed + 400);
		assert_int_equal(herd_primary(r.herd, 0), r.p);
		herd_until(r.herd, 10000, herd_is_healthy, "healthy");
		herd_reopen(r.herd);
		end(r.herd);
	}
}

/* Without a note it might be a copied directory, and the earlier start might live. Trap: a power cut
 * is one, too; so the note must not outlive it. */
static void test_restarted_primary_waits_when_its_earlier_start_may_live(void **state)
{
	struct roles r = make(10, false);

	assert_in_range(restart(&r, 300), 300 + GRACE_MS, 300 + GRACE_MS + 400);
	herd_until(r.herd, 10000, herd_is_healthy, "healthy");
	herd_reopen(r.herd);
	end(r.herd);
}

/* Who takes over later was in sync all the time: its own grace has long been over. */
static void test_fence_is_waited_for_once(void **state)
{
	for (uint64_t seed = 20; seed <= 25; seed++) {
		struct roles r = make(seed, false);

		(void)restart(&r, 300);
		herd_until(r.herd, 10000, herd_is_healthy, "healthy");
		herd_reopen(r.herd);
		herd_run(r.herd, 500);
		assert_int_equal(herd_primary(r.herd, 0), r.p);
		(void)herd_load_longest_ns(r.herd);
		herd_pause(r.herd, r.p);
		herd_run(r.herd, 2000);
		assert_int_not_equal(herd_primary(r.herd, 0), r.p);
		herd_resume(r.herd, r.p);
		/* It is filled, and the lead handed back: all that is part of one stall. */
		herd_until(r.herd, 10000, herd_is_healthy, "healthy");
		herd_run(r.herd, 1000);
		assert_int_equal(herd_primary(r.herd, 0), r.p);
		assert_in_range(herd_load_longest_ns(r.herd) / NS_PER_MS, 1000, GRACE_MS + 500);
		end(r.herd);
	}
}

/* A dead machine that refuses connections: each pause between two dials is longer than the one before. */
static void test_flush_does_not_wait_for_dials_to_who_has_gone(void **state)
{
	for (uint64_t seed = 30; seed <= 45; seed++) {
		struct roles r = make(seed, true);
		uint64_t began;

		herd_kill(r.herd, r.p, SIM_DEATH_UNKNOWN);
		began = sim_now(r.herd->world);
		assert_int_equal(herd_flush(r.herd, r.a), 0);
		assert_in_range((sim_now(r.herd->world) - began) / NS_PER_MS, 500, GRACE_MS + 500);
		herd_start(r.herd, r.p);
		herd_until(r.herd, 10000, herd_is_healthy, "healthy");
		herd_reopen(r.herd);
		end(r.herd);
	}
}

static bool is_told_failed(const struct roles *r)
{
	const struct cluster_map *map = r->herd->nodes[r->a].map;

	return cluster_store(map, r->herd->nodes[r->p].store_id)->flags & CLUSTER_STORE_FAILED;
}

/*
 * P's disk fails, and P is started again before anybody can have asked it whether it has stopped. That its earlier
 * start has died is told when the next one is registered: nobody waits for it any more.
 */
static void test_nobody_waits_for_a_start_that_died_after_its_store(void **state)
{
	for (uint64_t seed = 50; seed <= 61; seed++) {
		struct roles r = make(seed, true);
		struct herd_node *p = &r.herd->nodes[r.p];

		assert_int_equal(sim_host_fault(p->host, LOOP_OP_WRITE, 1, SIM_FAULT_EIO), 0);
		while (!is_told_failed(&r))
			(void)sim_world_run_until(
				r.herd->world, sim_now(r.herd->world) + 10 * NS_PER_US, NULL, NULL);
		uint64_t incarnation = cluster_node(r.herd->nodes[r.a].map, p->id)->incarnation;
		uint32_t id = p->id;
		herd_kill(r.herd, r.p, SIM_DEATH_UNKNOWN);
		p->was_cut = true;
		herd_start(r.herd, r.p);
		for (unsigned i = 0; i < 100; i++) {
			if (cluster_node(r.herd->nodes[r.a].map, id)->incarnation != incarnation)
				herd_propose_by(&r.herd->nodes[r.a],
						cluster_command_dead(id, incarnation));
			herd_run(r.herd, 10);
		}
		assert_in_range(herd_load_longest_ns(r.herd) / NS_PER_MS, 0, 1000);
		herd_until(r.herd, 10000, herd_is_healthy, "healthy");
		herd_reopen(r.herd);
		end(r.herd);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_restarted_primary_does_not_wait_for_its_earlier_start),
		cmocka_unit_test(test_restarted_primary_waits_when_its_earlier_start_may_live),
		cmocka_unit_test(test_fence_is_waited_for_once),
		cmocka_unit_test(test_flush_does_not_wait_for_dials_to_who_has_gone),
		cmocka_unit_test(test_nobody_waits_for_a_start_that_died_after_its_store),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
