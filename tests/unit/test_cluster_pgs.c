/*
 * Placement groups: who leads, and who returns to which seat. Each rule of REPLICATION.md that the map keeps
 * has a test with its letter, here or in test_cluster_isr.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "lib/base/size.h"
#include "tests/unit/cluster_three.h"

/* ---- restart ---- */

static void test_r1_restarted_primary_leads_in_a_new_reign(void **state)
{
	struct three t;

	(void)state;
	three_start(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.p, 0), OK);
	assert_int_equal(three_pg(&t)->primary, t.p);
	assert_int_equal(three_pg(&t)->reign, three_now(&t));
	assert_int_equal(three_pg(&t)->epoch, three_now(&t));
	/* Its earlier start was not declared dead: a paused one may go on for a lease. */
	assert_int_equal(cluster_pg_fence(three_map(&t), three_pg(&t)), three_now(&t));
	assert_int_equal(three_pg(&t)->fence_incarnation, 1);
	script_stop(&t.script);

	/* The lock of its store is free, so that one has ended: nothing to wait for. */
	three_start(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.p, LOG_STORE_HELD), OK);
	assert_int_equal(three_pg(&t)->reign, three_now(&t));
	assert_int_equal(cluster_pg_fence(three_map(&t), three_pg(&t)), 0);
	assert_int_equal(three_pg(&t)->fence_index, 0);
	assert_int_equal(cluster_store(three_map(&t), t.p)->flags, CLUSTER_STORE_UP);
	script_stop(&t.script);

	/* Declared dead before, or alone by the engine's word: nothing to wait for. */
	three_start(&t, 3, 3);
	assert_int_equal(script_dead(&t.script, t.a, t.p), OK);
	assert_int_equal(script_restart(&t.script, t.p, 0), OK);
	assert_int_equal(cluster_pg_fence(three_map(&t), three_pg(&t)), 0);
	script_stop(&t.script);
}

static void test_r3_unclean_member_keeps_a_marked_seat(void **state)
{
	struct three t;

	(void)state;
	three_start(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.a, LOG_STORE_UNCLEAN), OK);
	assert_true(three_is_marked(&t, t.a));
	assert_int_equal(three_pg(&t)->primary, t.p);
	assert_int_equal(cluster_pg_in_sync(three_pg(&t)), 2);
	assert_int_equal(three_takeover(&t, t.a, three_pg(&t)->epoch), PROTO_STATUS_INVALID);
	assert_int_equal(three_health(&t), CLUSTER_DEGRADED);
	/* It is filled at the word of the primary, not its own: that ends its electability. */
	assert_int_equal(three_join(&t, t.a, t.a), PROTO_STATUS_NOT_PRIMARY);
	assert_int_equal(three_join(&t, t.p, t.a), OK);
	assert_true(cluster_pg_seat(three_pg(&t), t.a)->flags & CLUSTER_SEAT_STALE);
	assert_int_equal(three_health(&t), CLUSTER_RECOVERING);
	assert_int_equal(three_expand(&t, t.a, 0), OK);
	assert_int_equal(cluster_pg_seat(three_pg(&t), t.a)->flags, 0);
	assert_int_equal(three_health(&t), CLUSTER_HEALTHY);
	script_stop(&t.script);
}

static void test_r3_unclean_primary_hands_over_and_is_fenced(void **state)
{
	struct three t;

	(void)state;
	three_start(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.p, LOG_STORE_UNCLEAN), OK);
	assert_true(three_is_marked(&t, t.p));
	assert_int_equal(three_pg(&t)->primary, t.a);
	/* L3: made by a registration, so it waits for grace. */
	assert_int_equal(cluster_pg_fence(three_map(&t), three_pg(&t)), three_now(&t));
	assert_int_equal(three_pg(&t)->fence_store, t.p);
	assert_int_equal(three_pg(&t)->fence_incarnation, 1);
	script_stop(&t.script);

	/* It has lost what it acknowledged, but nobody serves from it. */
	three_start(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.p, LOG_STORE_UNCLEAN | LOG_STORE_HELD), OK);
	assert_int_equal(three_pg(&t)->primary, t.a);
	assert_int_equal(cluster_pg_fence(three_map(&t), three_pg(&t)), 0);
	script_stop(&t.script);

	/* What is new, or restored, is not what its earlier start had. */
	three_start(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.p, LOG_STORE_NEW | LOG_STORE_HELD), OK);
	assert_int_equal(three_pg(&t)->primary, t.a);
	assert_int_equal(cluster_pg_fence(three_map(&t), three_pg(&t)), three_now(&t));
	script_stop(&t.script);
	three_start(&t, 3, 3);
	t.script.nodes[t.p].stores[0].incarnation -= 1;
	assert_int_equal(script_restart(&t.script, t.p, LOG_STORE_HELD), OK);
	assert_int_equal(three_pg(&t)->primary, t.a);
	assert_int_equal(cluster_pg_fence(three_map(&t), three_pg(&t)), three_now(&t));
	script_stop(&t.script);
}

static void test_r2_restored_store_is_marked_and_never_elected(void **state)
{
	struct three t;

	(void)state;
	three_start(&t, 3, 3);
	/* The node's start is new, the store's number is not: a backup was put back. */
	t.script.nodes[t.a].stores[0].incarnation = 0;
	assert_int_equal(script_restart(&t.script, t.a, 0), OK);
	assert_int_equal(cluster_store(three_map(&t), t.a)->incarnation, 1);
	assert_int_equal(cluster_pg_seat(three_pg(&t), t.a)->flags,
			 CLUSTER_SEAT_MARKED | CLUSTER_SEAT_STALE);
	script_stop(&t.script);
}

static void test_r4_power_failure_of_all_elects_one_marked_member(void **state)
{
	struct three t;
	bool all_marked;
	struct cluster_command *command;

	(void)state;
	three_start(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.a, LOG_STORE_UNCLEAN), OK);
	assert_int_equal(script_restart(&t.script, t.p, LOG_STORE_UNCLEAN), OK);
	/* B is still up for all that the log knows. */
	assert_int_equal(three_pg(&t)->primary, t.b);
	command = cluster_command_pg_elect(0, three_pg(&t)->epoch, t.a);
	assert_int_equal(script_run(&t.script, t.a, command), PROTO_STATUS_INVALID);
	assert_int_equal(script_restart(&t.script, t.b, LOG_STORE_UNCLEAN), OK);
	assert_int_equal(three_pg(&t)->primary, 0);
	assert_int_equal(three_health(&t), CLUSTER_DOWN);
	/* Nobody can begin a join before somebody leads. */
	assert_int_equal(three_join(&t, t.a, t.a), PROTO_STATUS_NOT_PRIMARY);
	assert_true(cluster_pg_is_electable(three_map(&t), three_pg(&t), t.a, &all_marked));
	assert_true(all_marked);
	command = cluster_command_pg_elect(0, three_pg(&t)->epoch, t.a);
	assert_int_equal(script_run(&t.script, t.b, command), PROTO_STATUS_READ_ONLY);
	command = cluster_command_pg_elect(0, three_pg(&t)->epoch, t.a);
	assert_int_equal(script_run_twice(&t.script, t.a, command), OK);
	assert_int_equal(three_pg(&t)->primary, t.a);
	assert_false(three_is_marked(&t, t.a));
	assert_true(three_is_marked(&t, t.b));
	assert_int_equal(three_pg(&t)->loss_epoch, three_pg(&t)->epoch);
	/* It leads, but serves only when the floor is there again. */
	assert_int_equal(three_health(&t), CLUSTER_DOWN);
	script_recover(&t.script);
	assert_int_equal(three_health(&t), CLUSTER_HEALTHY);
	assert_true(three_pg(&t)->loss_epoch > 0);
	script_stop(&t.script);
}

static void test_r4_election_marks_unmarked_members_that_stayed_away(void **state)
{
	struct three t;
	bool all_marked = true;
	struct cluster_command *command;

	(void)state;
	three_start(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.a, LOG_STORE_UNCLEAN), OK);
	assert_int_equal(script_restart(&t.script, t.b, LOG_STORE_UNCLEAN), OK);
	assert_int_equal(script_dead(&t.script, t.a, t.p), OK);
	assert_int_equal(three_pg(&t)->primary, 0);
	assert_true(cluster_pg_is_electable(three_map(&t), three_pg(&t), t.b, &all_marked));
	assert_false(all_marked);
	command = cluster_command_pg_elect(0, three_pg(&t)->epoch, t.b);
	assert_int_equal(script_run(&t.script, t.b, command), OK);
	assert_int_equal(cluster_pg_seat(three_pg(&t), t.p)->flags,
			 CLUSTER_SEAT_MARKED | CLUSTER_SEAT_STALE);
	/* The old primary returns clean, and has another history all the same. */
	assert_int_equal(script_restart(&t.script, t.p, 0), OK);
	assert_true(three_is_marked(&t, t.p));
	assert_int_equal(three_pg(&t)->primary, t.b);
	script_stop(&t.script);
}

static void test_r4_half_filled_joiner_cannot_be_elected(void **state)
{
	struct three t;
	struct cluster_command *command;

	(void)state;
	three_start(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.a, LOG_STORE_UNCLEAN), OK);
	assert_int_equal(three_join(&t, t.p, t.a), OK);
	for (uint32_t node = 1; node <= 3; node++)
		assert_int_equal(script_restart(&t.script, node, LOG_STORE_UNCLEAN), OK);
	assert_int_equal(three_pg(&t)->primary, 0);
	assert_int_equal(three_pg(&t)->join_count, 0);
	assert_false(cluster_pg_is_electable(three_map(&t), three_pg(&t), t.a, NULL));
	command = cluster_command_pg_elect(0, three_pg(&t)->epoch, t.a);
	assert_int_equal(script_run(&t.script, t.a, command), PROTO_STATUS_INVALID);
	assert_true(cluster_pg_is_electable(three_map(&t), three_pg(&t), t.p, NULL));
	script_stop(&t.script);
}

/* ---- who leads ---- */

static void test_t1_takeover_drops_the_silent_primary(void **state)
{
	struct three t;
	uint64_t epoch;

	(void)state;
	three_start(&t, 3, 3);
	epoch = three_pg(&t)->epoch;
	const struct cluster_takeover of_another = {.store = t.a, .epoch = epoch};
	assert_int_equal(script_run(&t.script, t.b, cluster_command_pg_takeover(&of_another, 1)),
			 PROTO_STATUS_READ_ONLY);
	assert_int_equal(three_takeover(&t, t.a, epoch), OK);
	assert_int_equal(three_pg(&t)->primary, t.a);
	assert_int_equal(three_pg(&t)->isr_count, 2);
	assert_null(cluster_pg_seat(three_pg(&t), t.p));
	assert_true(three_pg(&t)->reign > epoch);
	assert_int_equal(three_pg(&t)->epoch, three_pg(&t)->reign);
	assert_int_equal(cluster_pg_fence(three_map(&t), three_pg(&t)), 0);
	/* The other one was late. */
	assert_int_equal(three_takeover(&t, t.b, epoch), PROTO_STATUS_STALE_EPOCH);
	script_stop(&t.script);
}

/* The old primary stays a member, whose answer is needed; but it leads no more (L2). */
static void test_s1_takeover_never_breaks_the_floor(void **state)
{
	struct three t;

	(void)state;
	three_start(&t, 3, 3);
	assert_int_equal(three_shrink(&t, t.p, three_pg(&t)->epoch, 0, t.b), OK);
	uint64_t epoch = three_pg(&t)->epoch;
	assert_int_equal(three_takeover(&t, t.a, epoch), OK);
	assert_int_equal(three_pg(&t)->primary, t.a);
	assert_int_equal(three_pg(&t)->isr_count, 2);
	assert_true(three_pg(&t)->epoch > epoch);
	assert_int_equal(three_pg(&t)->epoch, three_pg(&t)->reign);
	script_stop(&t.script);
}

/* One entry for all that a silent node led; what came late in it is no reason to refuse the rest. */
static void test_takeover_judges_each_row_by_itself(void **state)
{
	struct three t;
	uint64_t epoch;

	(void)state;
	three_start(&t, 3, 3);
	epoch = three_pg(&t)->epoch;
	const struct cluster_takeover rows[] = {
		{.pg = 0, .store = t.a, .epoch = epoch - 1},
		{.pg = 12345, .store = t.a, .epoch = epoch},
		{.pg = 0, .store = t.a, .epoch = epoch},
		{.pg = 0, .store = t.a, .epoch = epoch},
	};
	assert_int_equal(script_run(&t.script, t.a, cluster_command_pg_takeover(rows, 2)),
			 PROTO_STATUS_STALE_EPOCH);
	assert_int_equal(script_run(&t.script, t.a, cluster_command_pg_takeover(rows, 4)), OK);
	assert_int_equal(three_pg(&t)->primary, t.a);
	assert_int_equal(three_pg(&t)->isr_count, 2);
	assert_int_equal(script_run(&t.script, t.a, cluster_command_pg_takeover(rows, 0)),
			 PROTO_STATUS_INVALID);
	script_stop(&t.script);
}

static void test_hand_over_is_by_the_primary(void **state)
{
	struct three t;
	struct cluster_command *command;

	(void)state;
	three_start(&t, 3, 3);
	command = cluster_command_pg_primary(0, three_pg(&t)->epoch, t.a);
	assert_int_equal(script_run(&t.script, t.a, command), PROTO_STATUS_NOT_PRIMARY);
	command = cluster_command_pg_primary(0, three_pg(&t)->epoch - 1, t.a);
	assert_int_equal(script_run(&t.script, t.p, command), PROTO_STATUS_STALE_EPOCH);
	command = cluster_command_pg_primary(0, three_pg(&t)->epoch, t.a);
	assert_int_equal(script_run_twice(&t.script, t.p, command), OK);
	assert_int_equal(three_pg(&t)->primary, t.a);
	assert_int_equal(cluster_pg_fence(three_map(&t), three_pg(&t)), 0);
	/* The target's first store is who should lead. */
	assert_int_equal(cluster_pg_successor(three_map(&t), three_pg(&t)), t.p);
	script_stop(&t.script);
}

/*
 * P1 started again and leads; P2 took over, perhaps before P1 had served: its earlier start may still be
 * serving. Only a primary that has served itself hands over, so nobody else serves then.
 */
static void test_l3_a_fence_outlives_a_second_change(void **state)
{
	struct three t;
	struct cluster_command *command;
	uint64_t first;

	(void)state;
	three_start(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.p, 0), OK);
	first = three_now(&t);
	assert_int_equal(three_takeover(&t, t.b, three_pg(&t)->epoch), OK);
	assert_int_equal(three_pg(&t)->primary, t.b);
	assert_int_equal(cluster_pg_fence(three_map(&t), three_pg(&t)), first);
	/* A second one that may be serving: neither of them alone can end the wait. */
	assert_int_equal(script_restart(&t.script, t.b, 0), OK);
	assert_int_equal(three_pg(&t)->primary, t.b);
	assert_int_equal(cluster_pg_fence(three_map(&t), three_pg(&t)), three_now(&t));
	assert_int_equal(three_pg(&t)->fence_store, 0);
	script_stop(&t.script);

	three_start(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.p, LOG_STORE_UNCLEAN), OK);
	command = cluster_command_pg_primary(0, three_pg(&t)->epoch, t.b);
	assert_int_equal(script_run_twice(&t.script, t.a, command), OK);
	assert_int_equal(three_pg(&t)->primary, t.b);
	assert_int_equal(cluster_pg_fence(three_map(&t), three_pg(&t)), 0);
	assert_int_equal(three_pg(&t)->fence_index, 0);
	script_stop(&t.script);
}

static void test_l3_death_of_the_old_primary_ends_the_wait(void **state)
{
	struct three t;
	uint64_t fence;

	(void)state;
	three_start(&t, 3, 3);
	/* Force is the one command by which another leads while the old one is up. */
	assert_int_equal(script_dead(&t.script, t.p, t.a), OK);
	assert_int_equal(script_dead(&t.script, t.p, t.b), OK);
	assert_int_equal(script_restart(&t.script, t.a, LOG_STORE_NEW), OK);
	assert_int_equal(three_health(&t), CLUSTER_DOWN);
	assert_int_equal(script_run_twice(&t.script, t.a,
					  cluster_command_pg_force(0, three_pg(&t)->epoch, t.a)),
			 OK);
	assert_int_equal(three_pg(&t)->primary, t.a);
	assert_int_equal(three_pg(&t)->forced, 1);
	assert_int_equal(three_pg(&t)->isr_count, 1);
	fence = cluster_pg_fence(three_map(&t), three_pg(&t));
	assert_true(fence && fence == three_pg(&t)->loss_epoch);
	assert_int_equal(script_dead(&t.script, t.a, t.p), OK);
	assert_int_equal(cluster_pg_fence(three_map(&t), three_pg(&t)), 0);
	script_stop(&t.script);
}

/* The death of the very start that is waited for is told when the next one is registered. */
static void test_l3_late_death_ends_the_wait_and_hits_no_later_start(void **state)
{
	struct three t;

	(void)state;
	three_start(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.p, LOG_STORE_UNCLEAN), OK);
	assert_int_equal(three_pg(&t)->primary, t.a);
	assert_int_equal(cluster_pg_fence(three_map(&t), three_pg(&t)), three_now(&t));
	/* Of no start that anybody waits for: the present one, the next, another node's. */
	assert_int_equal(script_run(&t.script, t.a, cluster_command_dead(t.p, 3)),
			 PROTO_STATUS_STALE_SESSION);
	assert_int_equal(script_run(&t.script, t.a, cluster_command_dead(t.b, 0)),
			 PROTO_STATUS_STALE_SESSION);
	assert_int_not_equal(cluster_pg_fence(three_map(&t), three_pg(&t)), 0);
	uint64_t epoch = three_pg(&t)->epoch;
	assert_int_equal(script_run_twice(&t.script, t.a, cluster_command_dead(t.p, 1)), OK);
	assert_int_equal(cluster_pg_fence(three_map(&t), three_pg(&t)), 0);
	assert_int_equal(three_pg(&t)->fence_index, 0);
	assert_int_equal(three_pg(&t)->epoch, epoch);
	assert_int_equal(three_pg(&t)->primary, t.a);
	assert_true(cluster_store_is_up(three_map(&t), t.p));
	assert_int_equal(script_run(&t.script, t.a, cluster_command_dead(t.p, 1)),
			 PROTO_STATUS_STALE_SESSION);
	script_stop(&t.script);

	/* Where two may be serving, the end of one is not enough. */
	three_start(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.p, LOG_STORE_UNCLEAN), OK);
	assert_int_equal(script_restart(&t.script, t.a, 0), OK);
	assert_int_equal(three_pg(&t)->fence_store, 0);
	(void)script_run(&t.script, t.b,
			 cluster_command_dead(t.p, 1)); /* other PGs wait for it alone */
	assert_int_not_equal(cluster_pg_fence(three_map(&t), three_pg(&t)), 0);
	script_stop(&t.script);

	/* And a death that came in time has ended it for good. */
	three_start(&t, 3, 3);
	assert_int_equal(script_run(&t.script, t.p, cluster_command_store_failed(t.p, 1)), OK);
	assert_int_equal(three_pg(&t)->primary, t.a);
	assert_int_not_equal(cluster_pg_fence(three_map(&t), three_pg(&t)), 0);
	assert_int_equal(script_dead(&t.script, t.a, t.p), OK);
	assert_int_equal(script_restart(&t.script, t.p, LOG_STORE_UNCLEAN), OK);
	assert_int_equal(cluster_pg_fence(three_map(&t), three_pg(&t)), 0);
	script_stop(&t.script);
}

static void test_force_is_for_what_does_not_serve(void **state)
{
	struct three t;

	(void)state;
	three_start(&t, 3, 3);
	assert_int_equal(
		script_run(&t.script, t.p, cluster_command_pg_force(0, three_pg(&t)->epoch, t.p)),
		PROTO_STATUS_BUSY);
	assert_int_equal(script_dead(&t.script, t.p, t.a), OK);
	assert_int_equal(script_dead(&t.script, t.p, t.b), OK);
	assert_int_equal(
		script_run(&t.script, t.p, cluster_command_pg_force(0, three_pg(&t)->epoch, t.a)),
		PROTO_STATUS_INVALID);
	assert_int_equal(script_run(&t.script, t.p,
				    cluster_command_pg_force(0, three_pg(&t)->epoch - 1, t.p)),
			 PROTO_STATUS_STALE_EPOCH);
	script_stop(&t.script);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_r1_restarted_primary_leads_in_a_new_reign),
		cmocka_unit_test(test_r3_unclean_member_keeps_a_marked_seat),
		cmocka_unit_test(test_r3_unclean_primary_hands_over_and_is_fenced),
		cmocka_unit_test(test_r2_restored_store_is_marked_and_never_elected),
		cmocka_unit_test(test_r4_power_failure_of_all_elects_one_marked_member),
		cmocka_unit_test(test_r4_election_marks_unmarked_members_that_stayed_away),
		cmocka_unit_test(test_r4_half_filled_joiner_cannot_be_elected),
		cmocka_unit_test(test_t1_takeover_drops_the_silent_primary),
		cmocka_unit_test(test_s1_takeover_never_breaks_the_floor),
		cmocka_unit_test(test_takeover_judges_each_row_by_itself),
		cmocka_unit_test(test_hand_over_is_by_the_primary),
		cmocka_unit_test(test_l3_a_fence_outlives_a_second_change),
		cmocka_unit_test(test_l3_death_of_the_old_primary_ends_the_wait),
		cmocka_unit_test(test_l3_late_death_ends_the_wait_and_hits_no_later_start),
		cmocka_unit_test(test_force_is_for_what_does_not_serve),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
