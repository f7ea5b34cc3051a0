/*
 * Placement groups: who is in sync. Shrinks, deaths and clean leaves, joins and what ends them, new targets.
 * Each rule of REPLICATION.md that the map keeps has a test with its letter, here or in test_cluster_pgs.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/unit/cluster_three.h"

/* ---- shrink ---- */

static void test_s1_shrink_is_valid_at_its_epoch_only(void **state)
{
	struct three t;
	uint64_t epoch, reign;

	(void)state;
	three_start(&t, 3, 3);
	epoch = three_pg(&t)->epoch;
	reign = three_pg(&t)->reign;
	assert_int_equal(three_shrink(&t, t.p, epoch - 1, 0, t.a), PROTO_STATUS_STALE_EPOCH);
	assert_int_equal(three_shrink(&t, t.a, epoch, 0, t.b), PROTO_STATUS_NOT_PRIMARY);
	assert_int_equal(three_shrink(&t, t.p, epoch, 0, t.p), PROTO_STATUS_INVALID);
	assert_int_equal(three_shrink(&t, t.p, epoch, 0, t.a), OK);
	assert_null(cluster_pg_seat(three_pg(&t), t.a));
	assert_true(three_pg(&t)->epoch > epoch);
	assert_int_equal(three_pg(&t)->reign, reign);
	assert_int_equal(three_pg(&t)->primary, t.p);
	assert_int_equal(three_health(&t), CLUSTER_DEGRADED);
	/* Late: names the epoch before. */
	assert_int_equal(three_shrink(&t, t.p, epoch, 0, t.b), PROTO_STATUS_STALE_EPOCH);
	script_stop(&t.script);
}

static void test_s1_shrink_stops_at_the_floor(void **state)
{
	struct three t;
	uint32_t both[2];

	(void)state;
	three_start(&t, 3, 3);
	both[0] = t.a;
	both[1] = t.b;
	/* Both are lost: one may go, the other is waited for. */
	assert_int_equal(script_run(&t.script, t.p,
				    cluster_command_pg_shrink(0, three_pg(&t)->epoch, 0, both, 2)),
			 OK);
	assert_null(cluster_pg_seat(three_pg(&t), t.a));
	assert_non_null(cluster_pg_seat(three_pg(&t), t.b));
	assert_int_equal(three_shrink(&t, t.p, three_pg(&t)->epoch, 0, t.b), PROTO_STATUS_BUSY);
	assert_non_null(strstr(t.script.result.text, "applied before"));
	script_stop(&t.script);
}

static void test_s1_diverged_member_at_the_floor_is_marked(void **state)
{
	struct three t;

	(void)state;
	three_start(&t, 3, 3);
	assert_int_equal(three_shrink(&t, t.p, three_pg(&t)->epoch, LOG_SHRINK_DIVERGED, t.a), OK);
	assert_null(cluster_pg_seat(three_pg(&t), t.a));
	assert_int_equal(three_shrink(&t, t.p, three_pg(&t)->epoch, LOG_SHRINK_DIVERGED, t.b), OK);
	assert_true(three_is_marked(&t, t.b));
	assert_false(cluster_pg_has_floor(three_map(&t), three_pg(&t)));
	assert_int_equal(three_health(&t), CLUSTER_DOWN);
	assert_int_equal(three_shrink(&t, t.p, three_pg(&t)->epoch, LOG_SHRINK_DIVERGED, t.b),
			 PROTO_STATUS_BUSY);
	/* Joins go on while it waits, and bring it back. */
	assert_int_equal(three_join(&t, t.p, t.b), OK);
	assert_int_equal(three_expand(&t, t.b, 0), OK);
	assert_false(three_is_marked(&t, t.b));
	assert_int_equal(three_health(&t), CLUSTER_DEGRADED);
	script_stop(&t.script);
}

static void test_s1_operator_lowers_the_floor(void **state)
{
	struct three t;

	(void)state;
	three_start(&t, 3, 3);
	assert_int_equal(script_dead(&t.script, t.p, t.a), OK);
	assert_int_equal(script_dead(&t.script, t.p, t.b), OK);
	assert_int_equal(three_health(&t), CLUSTER_DOWN);
	assert_int_equal(script_run_twice(&t.script, t.p, cluster_command_policy(0, 3, 1)), OK);
	assert_int_equal(three_pg(&t)->isr_count, 1);
	assert_int_equal(three_health(&t), CLUSTER_DEGRADED);
	script_stop(&t.script);
}

/* A second copy of a fresh command at the floor with holes: they do not count. */
static void test_j5_members_with_holes_do_not_count_for_the_floor(void **state)
{
	struct three t;
	struct cluster_command *command;

	(void)state;
	three_start(&t, 3, 3);
	command = cluster_command_pg_holes(0, three_pg(&t)->epoch, t.a, 1, true);
	assert_int_equal(script_run_twice(&t.script, t.a, command), OK);
	assert_int_equal(cluster_pg_in_sync(three_pg(&t)), 2);
	assert_int_equal(three_shrink(&t, t.p, three_pg(&t)->epoch, 0, t.b), PROTO_STATUS_BUSY);
	/* The one with holes may go. */
	assert_int_equal(three_shrink(&t, t.p, three_pg(&t)->epoch, 0, t.a), OK);
	script_stop(&t.script);

	three_start(&t, 3, 3);
	command = cluster_command_pg_holes(0, three_pg(&t)->epoch, t.a, 2, true);
	assert_int_equal(script_run(&t.script, t.a, command), PROTO_STATUS_STALE_SESSION);
	command = cluster_command_pg_holes(0, three_pg(&t)->epoch - 1, t.a, 1, true);
	assert_int_equal(script_run(&t.script, t.a, command), PROTO_STATUS_STALE_EPOCH);
	command = cluster_command_pg_holes(0, three_pg(&t)->epoch, t.a, 1, true);
	assert_int_equal(script_run(&t.script, t.a, command), OK);
	command = cluster_command_pg_holes(0, three_pg(&t)->epoch, t.a, 1, false);
	assert_int_equal(script_run(&t.script, t.p, command), OK);
	assert_int_equal(cluster_pg_in_sync(three_pg(&t)), 3);
	command = cluster_command_pg_holes(0, three_pg(&t)->epoch, t.a, 1, true);
	assert_int_equal(script_run(&t.script, t.b, command), PROTO_STATUS_NOT_PRIMARY);
	script_stop(&t.script);
}

/* ---- death and leave ---- */

static void test_dead_primary_is_replaced_in_one_entry(void **state)
{
	struct three t;

	(void)state;
	three_start(&t, 3, 3);
	assert_int_equal(script_dead(&t.script, t.a, t.p), OK);
	assert_int_equal(three_pg(&t)->primary, t.a);
	assert_int_equal(three_pg(&t)->isr_count, 2);
	assert_int_equal(three_pg(&t)->epoch, three_now(&t));
	assert_int_equal(three_pg(&t)->reign, three_now(&t));
	/* The old one is certainly dead: nobody waits. */
	assert_int_equal(cluster_pg_fence(three_map(&t), three_pg(&t)), 0);
	/* Every PG it was in is in the delta, and no other. */
	assert_int_equal(t.script.result.pgs.count, 8);
	for (uint32_t i = 0; i < 8; i++) {
		assert_null(cluster_pg_seat(script_pg(&t.script, i), t.p));
		assert_int_not_equal(script_pg(&t.script, i)->primary, 0);
	}
	script_stop(&t.script);
}

static void test_dead_node_leads_elsewhere_in_equal_parts(void **state)
{
	struct script script;
	uint32_t heirs[8] = {0};

	(void)state;
	script_start(&script);
	script_format(&script, 3, 3, 256);
	script.is_quick = true;
	assert_int_equal(script_dead(&script, 1, 2), OK);
	for (uint32_t i = 0; i < 256; i++)
		heirs[script_pg(&script, i)->primary]++;
	assert_in_range(heirs[1], 128 - 25, 128 + 25);
	assert_int_equal(heirs[1] + heirs[3], 256);
	script_stop(&script);
}

/* The dead stay listed below the floor: they may hold what nobody else has. */
static void test_s1_dead_member_at_the_floor_stays_and_returns_to_its_seat(void **state)
{
	struct three t;
	uint64_t epoch;

	(void)state;
	three_start(&t, 3, 3);
	assert_int_equal(script_dead(&t.script, t.p, t.b), OK);
	epoch = three_pg(&t)->epoch;
	assert_int_equal(script_dead(&t.script, t.p, t.a), OK);
	assert_non_null(cluster_pg_seat(three_pg(&t), t.a));
	assert_int_equal(three_pg(&t)->primary, t.p);
	assert_int_equal(three_health(&t), CLUSTER_DOWN);
	assert_int_equal(three_pg(&t)->epoch, epoch);
	/* It returns: same seat, new epoch, same reign; the primary sends again what is open. */
	assert_int_equal(script_restart(&t.script, t.a, 0), OK);
	assert_false(three_is_marked(&t, t.a));
	assert_int_equal(three_pg(&t)->epoch, three_now(&t));
	assert_true(three_pg(&t)->reign < three_pg(&t)->epoch);
	assert_int_equal(three_health(&t), CLUSTER_DEGRADED);
	/* B was removed meanwhile: it has no seat and must join. */
	assert_int_equal(script_restart(&t.script, t.b, 0), OK);
	assert_null(cluster_pg_seat(three_pg(&t), t.b));
	assert_true(cluster_pg_wants_join(three_map(&t), three_pg(&t), t.b));
	script_stop(&t.script);
}

static void test_s1_dead_primary_at_the_floor_is_followed_but_waited_for(void **state)
{
	struct three t;

	(void)state;
	three_start(&t, 3, 3);
	assert_int_equal(script_dead(&t.script, t.p, t.b), OK);
	assert_int_equal(script_dead(&t.script, t.a, t.p), OK);
	assert_int_equal(three_pg(&t)->primary, t.a);
	assert_non_null(cluster_pg_seat(three_pg(&t), t.p));
	assert_int_equal(three_health(&t), CLUSTER_DOWN);
	/* B is filled from A and takes the dead one's place, in one command. */
	assert_int_equal(script_restart(&t.script, t.b, 0), OK);
	assert_int_equal(three_join(&t, t.b, t.b), OK);
	assert_int_equal(three_health(&t), CLUSTER_DOWN);
	assert_int_equal(three_expand(&t, t.b, t.p), OK);
	assert_null(cluster_pg_seat(three_pg(&t), t.p));
	assert_int_equal(three_health(&t), CLUSTER_DEGRADED);
	script_stop(&t.script);
}

static void test_last_members_are_never_dropped(void **state)
{
	struct three t;

	(void)state;
	three_start(&t, 4, 2);
	for (uint32_t node = 2; node <= 4; node++)
		assert_int_equal(script_dead(&t.script, 1, node), OK);
	for (uint32_t i = 0; i < 8; i++)
		assert_true(script_pg(&t.script, i)->isr_count >= 1);
	/* With nobody up there is no primary; the first to return leads. */
	for (uint32_t i = 0; i < 8; i++) {
		const struct cluster_pg *pg = script_pg(&t.script, i);

		assert_int_equal(pg->primary == 0, cluster_pg_seat(pg, 1) == NULL);
	}
	for (uint32_t node = 2; node <= 4; node++)
		assert_int_equal(script_restart(&t.script, node, 0), OK);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_not_equal(script_pg(&t.script, i)->primary, 0);
	script_recover(&t.script);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(cluster_pg_health(three_map(&t), script_pg(&t.script, i)),
				 CLUSTER_HEALTHY);
	script_stop(&t.script);
}

static void test_clean_stop_of_all_and_return_loses_no_seat_it_needs(void **state)
{
	struct three t;

	(void)state;
	three_start(&t, 3, 3);
	for (uint32_t node = 1; node <= 3; node++)
		assert_int_equal(script_run(&t.script, node, cluster_command_leave(node, 1)), OK);
	for (uint32_t i = 0; i < 8; i++) {
		assert_int_equal(script_pg(&t.script, i)->isr_count, 2);
		assert_int_equal(script_pg(&t.script, i)->primary, 0);
	}
	for (uint32_t node = 1; node <= 3; node++)
		assert_int_equal(script_restart(&t.script, node, 0), OK);
	assert_int_equal(three_health(&t), CLUSTER_DEGRADED);
	script_recover(&t.script);
	assert_int_equal(three_health(&t), CLUSTER_HEALTHY);
	script_stop(&t.script);
}

/* ---- joining ---- */

static void test_j1_join_is_named_by_index_and_incarnation(void **state)
{
	struct three t;
	struct cluster_join old;
	struct cluster_command *command;

	(void)state;
	three_start(&t, 3, 3);
	assert_int_equal(three_shrink(&t, t.p, three_pg(&t)->epoch, 0, t.a), OK);
	command = cluster_command_pg_join(0, t.a, 2);
	assert_int_equal(script_run(&t.script, t.a, command), PROTO_STATUS_STALE_SESSION);
	assert_int_equal(three_join(&t, t.a, t.a), OK);
	old = *cluster_pg_join(three_pg(&t), t.a);
	assert_int_equal(three_health(&t), CLUSTER_RECOVERING);
	/* A second one says which there is. */
	command = cluster_command_pg_join(0, t.a, 1);
	assert_int_equal(script_run(&t.script, t.a, command), PROTO_STATUS_EXISTS);
	/* A new start ends it, and a delayed expand of the old one does nothing. */
	assert_int_equal(script_restart(&t.script, t.a, 0), OK);
	assert_null(cluster_pg_join(three_pg(&t), t.a));
	command = cluster_command_pg_expand(0, three_pg(&t)->epoch, &old, 0);
	assert_int_equal(script_run(&t.script, t.p, command), PROTO_STATUS_NOT_FOUND);
	assert_int_equal(three_join(&t, t.a, t.a), OK);
	command = cluster_command_pg_expand(0, three_pg(&t)->epoch, &old, 0);
	assert_int_equal(script_run(&t.script, t.p, command), PROTO_STATUS_NOT_FOUND);
	assert_int_equal(three_expand(&t, t.a, 0), OK);
	assert_int_equal(three_health(&t), CLUSTER_HEALTHY);
	script_stop(&t.script);
}

/* The store gave up and began again in the same start and epoch: what was compared before is void. */
static void test_j1_second_join_of_one_start_is_another_join(void **state)
{
	struct three t;
	struct cluster_join old;
	struct cluster_command *command;

	(void)state;
	three_start(&t, 3, 3);
	assert_int_equal(three_shrink(&t, t.p, three_pg(&t)->epoch, 0, t.a), OK);
	assert_int_equal(three_join(&t, t.a, t.a), OK);
	old = *cluster_pg_join(three_pg(&t), t.a);
	command = cluster_command_pg_leave_join(0, t.a, old.index);
	assert_int_equal(script_run(&t.script, t.a, command), OK);
	assert_int_equal(three_join(&t, t.a, t.a), OK);
	assert_int_equal(cluster_pg_join(three_pg(&t), t.a)->incarnation, old.incarnation);
	command = cluster_command_pg_expand(0, three_pg(&t)->epoch, &old, 0);
	assert_int_equal(script_run(&t.script, t.p, command), PROTO_STATUS_NOT_FOUND);
	assert_null(cluster_pg_seat(three_pg(&t), t.a));
	script_stop(&t.script);
}

static void test_join_needs_a_place_and_a_primary(void **state)
{
	struct three t;

	(void)state;
	three_start(&t, 4, 3);
	for (uint32_t store = 1; store <= 4; store++)
		if (!cluster_pg_has_target(three_pg(&t), store))
			assert_int_equal(three_join(&t, store, store), PROTO_STATUS_INVALID);
	assert_int_equal(three_join(&t, t.a, t.a), PROTO_STATUS_EXISTS);
	assert_int_equal(script_run(&t.script, t.a, cluster_command_pg_join(0, 77, 1)),
			 PROTO_STATUS_NOT_FOUND);
	assert_int_equal(script_run(&t.script, t.a, cluster_command_pg_join(77, t.a, 1)),
			 PROTO_STATUS_NOT_FOUND);
	assert_int_equal(three_shrink(&t, t.p, three_pg(&t)->epoch, 0, t.a), OK);
	assert_int_equal(three_join(&t, t.b, t.a), PROTO_STATUS_NOT_PRIMARY);
	script_stop(&t.script);
}

static void test_expand_needs_epoch_and_primary(void **state)
{
	struct three t;
	struct cluster_join found;
	struct cluster_command *command;

	(void)state;
	three_start(&t, 3, 3);
	assert_int_equal(three_shrink(&t, t.p, three_pg(&t)->epoch, 0, t.a), OK);
	assert_int_equal(three_join(&t, t.a, t.a), OK);
	found = *cluster_pg_join(three_pg(&t), t.a);
	command = cluster_command_pg_expand(0, three_pg(&t)->epoch - 1, &found, 0);
	assert_int_equal(script_run(&t.script, t.p, command), PROTO_STATUS_STALE_EPOCH);
	command = cluster_command_pg_expand(0, three_pg(&t)->epoch, &found, 0);
	assert_int_equal(script_run(&t.script, t.a, command), PROTO_STATUS_NOT_PRIMARY);
	found.incarnation++;
	command = cluster_command_pg_expand(0, three_pg(&t)->epoch, &found, 0);
	assert_int_equal(script_run(&t.script, t.p, command), PROTO_STATUS_NOT_FOUND);
	found.incarnation--;
	command = cluster_command_pg_expand(0, three_pg(&t)->epoch, &found, t.p);
	assert_int_equal(script_run(&t.script, t.p, command), PROTO_STATUS_BUSY);
	assert_non_null(cluster_pg_join(three_pg(&t), t.a));
	script_stop(&t.script);
}

static void test_leave_join_names_its_join(void **state)
{
	struct three t;
	uint64_t index;
	struct cluster_command *command;

	(void)state;
	three_start(&t, 3, 3);
	assert_int_equal(three_shrink(&t, t.p, three_pg(&t)->epoch, 0, t.a), OK);
	assert_int_equal(three_join(&t, t.a, t.a), OK);
	index = cluster_pg_join(three_pg(&t), t.a)->index;
	command = cluster_command_pg_leave_join(0, t.a, index + 1);
	assert_int_equal(script_run(&t.script, t.a, command), PROTO_STATUS_NOT_FOUND);
	command = cluster_command_pg_leave_join(0, t.a, index);
	assert_int_equal(script_run(&t.script, t.b, command), PROTO_STATUS_NOT_PRIMARY);
	command = cluster_command_pg_leave_join(0, t.a, index);
	assert_int_equal(script_run_twice(&t.script, t.a, command), OK);
	assert_int_equal(three_pg(&t)->join_count, 0);
	script_stop(&t.script);
}

static void test_death_of_a_joiner_ends_its_join(void **state)
{
	struct three t;

	(void)state;
	three_start(&t, 3, 3);
	assert_int_equal(three_shrink(&t, t.p, three_pg(&t)->epoch, 0, t.a), OK);
	assert_int_equal(three_join(&t, t.a, t.a), OK);
	assert_int_equal(script_dead(&t.script, t.p, t.a), OK);
	assert_int_equal(three_pg(&t)->join_count, 0);
	assert_int_equal(three_health(&t), CLUSTER_DEGRADED);
	script_stop(&t.script);
}

/* ---- targets ---- */

static void test_retarget_is_void_when_the_target_has_changed(void **state)
{
	struct three t;
	struct cluster_plan_input input = {0};
	struct cluster_command *first[4], *second[4];

	(void)state;
	three_start(&t, 3, 3);
	(void)script_add_node(&t.script, "z9", 1);
	assert_int_equal(cluster_plan(three_map(&t), &input, first, 4), 1);
	assert_int_equal(cluster_plan(three_map(&t), &input, second, 4), 1);
	assert_int_equal(script_run(&t.script, 1, first[0]), OK);
	assert_int_equal(script_run(&t.script, 2, second[0]), PROTO_STATUS_STALE_EPOCH);
	assert_int_equal(t.script.result.pgs.count, 0);
	script_stop(&t.script);
}

/* The surplus goes as soon as all of the target is in sync; the primary last, by itself. */
static void test_move_to_a_new_target_drops_the_old_members(void **state)
{
	struct three t;
	uint32_t moved = 0;

	(void)state;
	three_start(&t, 3, 3);
	assert_int_equal(script_run(&t.script, 1, cluster_command_store_weight(t.p, 0)), OK);
	(void)script_add_node(&t.script, "z9", 1);
	script_plan(&t.script, 0);
	assert_false(cluster_pg_has_target(three_pg(&t), t.p));
	assert_int_equal(three_health(&t), CLUSTER_RECOVERING);
	for (uint32_t i = 0; i < 8; i++)
		moved += !!cluster_pg_seat(script_pg(&t.script, i), t.p);
	assert_int_equal(moved, 8);
	assert_int_equal(three_join(&t, 4, 4), OK);
	assert_int_equal(three_expand(&t, 4, 0), OK);
	assert_int_equal(three_pg(&t)->isr_count, 4);
	assert_int_equal(cluster_pg_successor(three_map(&t), three_pg(&t)),
			 three_pg(&t)->target[0]);
	script_recover(&t.script);
	assert_int_equal(three_pg(&t)->isr_count, 3);
	assert_null(cluster_pg_seat(three_pg(&t), t.p));
	assert_int_equal(three_health(&t), CLUSTER_HEALTHY);
	script_stop(&t.script);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_s1_shrink_is_valid_at_its_epoch_only),
		cmocka_unit_test(test_s1_shrink_stops_at_the_floor),
		cmocka_unit_test(test_s1_diverged_member_at_the_floor_is_marked),
		cmocka_unit_test(test_s1_operator_lowers_the_floor),
		cmocka_unit_test(test_j5_members_with_holes_do_not_count_for_the_floor),
		cmocka_unit_test(test_dead_primary_is_replaced_in_one_entry),
		cmocka_unit_test(test_dead_node_leads_elsewhere_in_equal_parts),
		cmocka_unit_test(test_s1_dead_member_at_the_floor_stays_and_returns_to_its_seat),
		cmocka_unit_test(test_s1_dead_primary_at_the_floor_is_followed_but_waited_for),
		cmocka_unit_test(test_last_members_are_never_dropped),
		cmocka_unit_test(test_clean_stop_of_all_and_return_loses_no_seat_it_needs),
		cmocka_unit_test(test_j1_join_is_named_by_index_and_incarnation),
		cmocka_unit_test(test_j1_second_join_of_one_start_is_another_join),
		cmocka_unit_test(test_join_needs_a_place_and_a_primary),
		cmocka_unit_test(test_expand_needs_epoch_and_primary),
		cmocka_unit_test(test_leave_join_names_its_join),
		cmocka_unit_test(test_death_of_a_joiner_ends_its_join),
		cmocka_unit_test(test_retarget_is_void_when_the_target_has_changed),
		cmocka_unit_test(test_move_to_a_new_target_drops_the_old_members),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
