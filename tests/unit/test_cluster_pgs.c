/*
 * Placement groups: who is in sync, who leads, what a death leaves behind. Each rule of
 * REPLICATION.md that the map keeps has a test with its letter.
 *
 * Most tests have three nodes of one store, three copies, min_insync 2; PG 0 is looked
 * at, its members are found by their part in it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "lib/base/size.h"
#include "tests/unit/cluster_script.h"

#define OK PROTO_STATUS_OK

/* Store ids are node ids here. P leads PG 0, A and B follow. */
struct three {
	struct script script;
	uint32_t p, a, b;
};

static void start_three(struct three *three, uint32_t nodes, uint32_t copies)
{
	const struct cluster_pg *pg;

	script_start(&three->script);
	script_format(&three->script, nodes, copies, 8);
	pg = script_pg(&three->script, 0);
	assert_int_equal(pg->isr_count, copies);
	three->p = pg->primary;
	three->a = pg->target[1];
	three->b = copies > 2 ? pg->target[2] : 0;
}

static const struct cluster_pg *pg_of(struct three *three)
{
	return script_pg(&three->script, 0);
}

static const struct cluster_map *map_of(struct three *three)
{
	return three->script.map;
}

static uint64_t now(struct three *three)
{
	return cluster_index(three->script.map);
}

static enum proto_status shrink(struct three *three, uint32_t from, uint64_t epoch, uint32_t flags,
				uint32_t store)
{
	return script_run_twice(&three->script, from,
				cluster_command_pg_shrink(0, epoch, flags, &store, 1));
}

static enum proto_status takeover(struct three *three, uint32_t store, uint64_t epoch)
{
	const struct cluster_takeover row = {.pg = 0, .store = store, .epoch = epoch};

	return script_run_twice(&three->script, store, cluster_command_pg_takeover(&row, 1));
}

static enum proto_status join(struct three *three, uint32_t from, uint32_t store)
{
	return script_run_twice(
		&three->script, from,
		cluster_command_pg_join(0, store,
					three->script.nodes[store].stores[0].incarnation));
}

static enum proto_status expand(struct three *three, uint32_t store, uint32_t drop)
{
	const struct cluster_join *found = cluster_pg_join(pg_of(three), store);

	assert_non_null(found);
	return script_run_twice(&three->script, pg_of(three)->primary,
				cluster_command_pg_expand(0, pg_of(three)->epoch, found, drop));
}

static enum cluster_health health(struct three *three)
{
	return cluster_pg_health(map_of(three), pg_of(three));
}

static bool is_marked(struct three *three, uint32_t store)
{
	const struct cluster_seat *seat = cluster_pg_seat(pg_of(three), store);

	assert_non_null(seat);
	return seat->flags & CLUSTER_SEAT_MARKED;
}

/* ---- shrink ---- */

static void test_s1_shrink_is_valid_at_its_epoch_only(void **state)
{
	struct three t;
	uint64_t epoch, reign;

	(void)state;
	start_three(&t, 3, 3);
	epoch = pg_of(&t)->epoch;
	reign = pg_of(&t)->reign;
	assert_int_equal(shrink(&t, t.p, epoch - 1, 0, t.a), PROTO_STATUS_STALE_EPOCH);
	assert_int_equal(shrink(&t, t.a, epoch, 0, t.b), PROTO_STATUS_NOT_PRIMARY);
	assert_int_equal(shrink(&t, t.p, epoch, 0, t.p), PROTO_STATUS_INVALID);
	assert_int_equal(shrink(&t, t.p, epoch, 0, t.a), OK);
	assert_null(cluster_pg_seat(pg_of(&t), t.a));
	assert_true(pg_of(&t)->epoch > epoch);
	assert_int_equal(pg_of(&t)->reign, reign);
	assert_int_equal(pg_of(&t)->primary, t.p);
	assert_int_equal(health(&t), CLUSTER_DEGRADED);
	/* Late: names the epoch before. */
	assert_int_equal(shrink(&t, t.p, epoch, 0, t.b), PROTO_STATUS_STALE_EPOCH);
	script_stop(&t.script);
}

static void test_s1_shrink_stops_at_the_floor(void **state)
{
	struct three t;
	uint32_t both[2];

	(void)state;
	start_three(&t, 3, 3);
	both[0] = t.a;
	both[1] = t.b;
	/* Both are lost: one may go, the other is waited for. */
	assert_int_equal(script_run(&t.script, t.p,
				    cluster_command_pg_shrink(0, pg_of(&t)->epoch, 0, both, 2)),
			 OK);
	assert_null(cluster_pg_seat(pg_of(&t), t.a));
	assert_non_null(cluster_pg_seat(pg_of(&t), t.b));
	assert_int_equal(shrink(&t, t.p, pg_of(&t)->epoch, 0, t.b), PROTO_STATUS_BUSY);
	assert_non_null(strstr(t.script.result.text, "applied before"));
	script_stop(&t.script);
}

static void test_s1_diverged_member_at_the_floor_is_marked(void **state)
{
	struct three t;

	(void)state;
	start_three(&t, 3, 3);
	assert_int_equal(shrink(&t, t.p, pg_of(&t)->epoch, LOG_SHRINK_DIVERGED, t.a), OK);
	assert_null(cluster_pg_seat(pg_of(&t), t.a));
	assert_int_equal(shrink(&t, t.p, pg_of(&t)->epoch, LOG_SHRINK_DIVERGED, t.b), OK);
	assert_true(is_marked(&t, t.b));
	assert_false(cluster_pg_has_floor(map_of(&t), pg_of(&t)));
	assert_int_equal(health(&t), CLUSTER_DOWN);
	assert_int_equal(shrink(&t, t.p, pg_of(&t)->epoch, LOG_SHRINK_DIVERGED, t.b),
			 PROTO_STATUS_BUSY);
	/* Joins go on while it waits, and bring it back. */
	assert_int_equal(join(&t, t.p, t.b), OK);
	assert_int_equal(expand(&t, t.b, 0), OK);
	assert_false(is_marked(&t, t.b));
	assert_int_equal(health(&t), CLUSTER_DEGRADED);
	script_stop(&t.script);
}

static void test_s1_operator_lowers_the_floor(void **state)
{
	struct three t;

	(void)state;
	start_three(&t, 3, 3);
	assert_int_equal(script_dead(&t.script, t.p, t.a), OK);
	assert_int_equal(script_dead(&t.script, t.p, t.b), OK);
	assert_int_equal(health(&t), CLUSTER_DOWN);
	assert_int_equal(script_run_twice(&t.script, t.p, cluster_command_policy(0, 3, 1)), OK);
	assert_int_equal(pg_of(&t)->isr_count, 1);
	assert_int_equal(health(&t), CLUSTER_DEGRADED);
	script_stop(&t.script);
}

/* A second copy of a fresh command at the floor with holes: they do not count. */
static void test_j5_members_with_holes_do_not_count_for_the_floor(void **state)
{
	struct three t;
	struct cluster_command *command;

	(void)state;
	start_three(&t, 3, 3);
	command = cluster_command_pg_holes(0, pg_of(&t)->epoch, t.a, 1, true);
	assert_int_equal(script_run_twice(&t.script, t.a, command), OK);
	assert_int_equal(cluster_pg_in_sync(pg_of(&t)), 2);
	assert_int_equal(shrink(&t, t.p, pg_of(&t)->epoch, 0, t.b), PROTO_STATUS_BUSY);
	/* The one with holes may go. */
	assert_int_equal(shrink(&t, t.p, pg_of(&t)->epoch, 0, t.a), OK);
	script_stop(&t.script);

	start_three(&t, 3, 3);
	command = cluster_command_pg_holes(0, pg_of(&t)->epoch, t.a, 2, true);
	assert_int_equal(script_run(&t.script, t.a, command), PROTO_STATUS_STALE_SESSION);
	command = cluster_command_pg_holes(0, pg_of(&t)->epoch - 1, t.a, 1, true);
	assert_int_equal(script_run(&t.script, t.a, command), PROTO_STATUS_STALE_EPOCH);
	command = cluster_command_pg_holes(0, pg_of(&t)->epoch, t.a, 1, true);
	assert_int_equal(script_run(&t.script, t.a, command), OK);
	command = cluster_command_pg_holes(0, pg_of(&t)->epoch, t.a, 1, false);
	assert_int_equal(script_run(&t.script, t.p, command), OK);
	assert_int_equal(cluster_pg_in_sync(pg_of(&t)), 3);
	command = cluster_command_pg_holes(0, pg_of(&t)->epoch, t.a, 1, true);
	assert_int_equal(script_run(&t.script, t.b, command), PROTO_STATUS_NOT_PRIMARY);
	script_stop(&t.script);
}

/* ---- death and leave ---- */

static void test_dead_primary_is_replaced_in_one_entry(void **state)
{
	struct three t;

	(void)state;
	start_three(&t, 3, 3);
	assert_int_equal(script_dead(&t.script, t.a, t.p), OK);
	assert_int_equal(pg_of(&t)->primary, t.a);
	assert_int_equal(pg_of(&t)->isr_count, 2);
	assert_int_equal(pg_of(&t)->epoch, now(&t));
	assert_int_equal(pg_of(&t)->reign, now(&t));
	/* The old one is certainly dead: nobody waits. */
	assert_int_equal(cluster_pg_fence(map_of(&t), pg_of(&t)), 0);
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
	start_three(&t, 3, 3);
	assert_int_equal(script_dead(&t.script, t.p, t.b), OK);
	epoch = pg_of(&t)->epoch;
	assert_int_equal(script_dead(&t.script, t.p, t.a), OK);
	assert_non_null(cluster_pg_seat(pg_of(&t), t.a));
	assert_int_equal(pg_of(&t)->primary, t.p);
	assert_int_equal(health(&t), CLUSTER_DOWN);
	assert_int_equal(pg_of(&t)->epoch, epoch);
	/* It returns: same seat, new epoch, same reign; the primary sends again what is open. */
	assert_int_equal(script_restart(&t.script, t.a, 0), OK);
	assert_false(is_marked(&t, t.a));
	assert_int_equal(pg_of(&t)->epoch, now(&t));
	assert_true(pg_of(&t)->reign < pg_of(&t)->epoch);
	assert_int_equal(health(&t), CLUSTER_DEGRADED);
	/* B was removed meanwhile: it has no seat and must join. */
	assert_int_equal(script_restart(&t.script, t.b, 0), OK);
	assert_null(cluster_pg_seat(pg_of(&t), t.b));
	assert_true(cluster_pg_wants_join(map_of(&t), pg_of(&t), t.b));
	script_stop(&t.script);
}

static void test_s1_dead_primary_at_the_floor_is_followed_but_waited_for(void **state)
{
	struct three t;

	(void)state;
	start_three(&t, 3, 3);
	assert_int_equal(script_dead(&t.script, t.p, t.b), OK);
	assert_int_equal(script_dead(&t.script, t.a, t.p), OK);
	assert_int_equal(pg_of(&t)->primary, t.a);
	assert_non_null(cluster_pg_seat(pg_of(&t), t.p));
	assert_int_equal(health(&t), CLUSTER_DOWN);
	/* B is filled from A and takes the dead one's place, in one command. */
	assert_int_equal(script_restart(&t.script, t.b, 0), OK);
	assert_int_equal(join(&t, t.b, t.b), OK);
	assert_int_equal(health(&t), CLUSTER_DOWN);
	assert_int_equal(expand(&t, t.b, t.p), OK);
	assert_null(cluster_pg_seat(pg_of(&t), t.p));
	assert_int_equal(health(&t), CLUSTER_DEGRADED);
	script_stop(&t.script);
}

static void test_last_members_are_never_dropped(void **state)
{
	struct three t;

	(void)state;
	start_three(&t, 4, 2);
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
		assert_int_equal(cluster_pg_health(map_of(&t), script_pg(&t.script, i)),
				 CLUSTER_HEALTHY);
	script_stop(&t.script);
}

static void test_clean_stop_of_all_and_return_loses_no_seat_it_needs(void **state)
{
	struct three t;

	(void)state;
	start_three(&t, 3, 3);
	for (uint32_t node = 1; node <= 3; node++)
		assert_int_equal(script_run(&t.script, node, cluster_command_leave(node, 1)), OK);
	for (uint32_t i = 0; i < 8; i++) {
		assert_int_equal(script_pg(&t.script, i)->isr_count, 2);
		assert_int_equal(script_pg(&t.script, i)->primary, 0);
	}
	for (uint32_t node = 1; node <= 3; node++)
		assert_int_equal(script_restart(&t.script, node, 0), OK);
	assert_int_equal(health(&t), CLUSTER_DEGRADED);
	script_recover(&t.script);
	assert_int_equal(health(&t), CLUSTER_HEALTHY);
	script_stop(&t.script);
}

/* ---- restart ---- */

static void test_r1_restarted_primary_leads_in_a_new_reign(void **state)
{
	struct three t;

	(void)state;
	start_three(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.p, 0), OK);
	assert_int_equal(pg_of(&t)->primary, t.p);
	assert_int_equal(pg_of(&t)->reign, now(&t));
	assert_int_equal(pg_of(&t)->epoch, now(&t));
	/* Its earlier start was not declared dead: a paused one may go on for a lease. */
	assert_int_equal(cluster_pg_fence(map_of(&t), pg_of(&t)), now(&t));
	assert_int_equal(pg_of(&t)->fence_incarnation, 1);
	script_stop(&t.script);

	/* The lock of its store is free, so that one has ended: nothing to wait for. */
	start_three(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.p, LOG_STORE_HELD), OK);
	assert_int_equal(pg_of(&t)->reign, now(&t));
	assert_int_equal(cluster_pg_fence(map_of(&t), pg_of(&t)), 0);
	assert_int_equal(pg_of(&t)->fence_index, 0);
	assert_int_equal(cluster_store(map_of(&t), t.p)->flags, CLUSTER_STORE_UP);
	script_stop(&t.script);

	/* Declared dead before, or alone by the engine's word: nothing to wait for. */
	start_three(&t, 3, 3);
	assert_int_equal(script_dead(&t.script, t.a, t.p), OK);
	assert_int_equal(script_restart(&t.script, t.p, 0), OK);
	assert_int_equal(cluster_pg_fence(map_of(&t), pg_of(&t)), 0);
	script_stop(&t.script);
}

static void test_r3_unclean_member_keeps_a_marked_seat(void **state)
{
	struct three t;

	(void)state;
	start_three(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.a, LOG_STORE_UNCLEAN), OK);
	assert_true(is_marked(&t, t.a));
	assert_int_equal(pg_of(&t)->primary, t.p);
	assert_int_equal(cluster_pg_in_sync(pg_of(&t)), 2);
	assert_int_equal(takeover(&t, t.a, pg_of(&t)->epoch), PROTO_STATUS_INVALID);
	assert_int_equal(health(&t), CLUSTER_DEGRADED);
	/* It is filled at the word of the primary, not its own: that ends its electability. */
	assert_int_equal(join(&t, t.a, t.a), PROTO_STATUS_NOT_PRIMARY);
	assert_int_equal(join(&t, t.p, t.a), OK);
	assert_true(cluster_pg_seat(pg_of(&t), t.a)->flags & CLUSTER_SEAT_STALE);
	assert_int_equal(health(&t), CLUSTER_RECOVERING);
	assert_int_equal(expand(&t, t.a, 0), OK);
	assert_int_equal(cluster_pg_seat(pg_of(&t), t.a)->flags, 0);
	assert_int_equal(health(&t), CLUSTER_HEALTHY);
	script_stop(&t.script);
}

static void test_r3_unclean_primary_hands_over_and_is_fenced(void **state)
{
	struct three t;

	(void)state;
	start_three(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.p, LOG_STORE_UNCLEAN), OK);
	assert_true(is_marked(&t, t.p));
	assert_int_equal(pg_of(&t)->primary, t.a);
	/* L3: made by a registration, so it waits for grace. */
	assert_int_equal(cluster_pg_fence(map_of(&t), pg_of(&t)), now(&t));
	assert_int_equal(pg_of(&t)->fence_store, t.p);
	assert_int_equal(pg_of(&t)->fence_incarnation, 1);
	script_stop(&t.script);

	/* It has lost what it acknowledged, but nobody serves from it. */
	start_three(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.p, LOG_STORE_UNCLEAN | LOG_STORE_HELD), OK);
	assert_int_equal(pg_of(&t)->primary, t.a);
	assert_int_equal(cluster_pg_fence(map_of(&t), pg_of(&t)), 0);
	script_stop(&t.script);

	/* What is new, or restored, is not what its earlier start had. */
	start_three(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.p, LOG_STORE_NEW | LOG_STORE_HELD), OK);
	assert_int_equal(pg_of(&t)->primary, t.a);
	assert_int_equal(cluster_pg_fence(map_of(&t), pg_of(&t)), now(&t));
	script_stop(&t.script);
	start_three(&t, 3, 3);
	t.script.nodes[t.p].stores[0].incarnation -= 1;
	assert_int_equal(script_restart(&t.script, t.p, LOG_STORE_HELD), OK);
	assert_int_equal(pg_of(&t)->primary, t.a);
	assert_int_equal(cluster_pg_fence(map_of(&t), pg_of(&t)), now(&t));
	script_stop(&t.script);
}

static void test_r2_restored_store_is_marked_and_never_elected(void **state)
{
	struct three t;

	(void)state;
	start_three(&t, 3, 3);
	/* The node's start is new, the store's number is not: a backup was put back. */
	t.script.nodes[t.a].stores[0].incarnation = 0;
	assert_int_equal(script_restart(&t.script, t.a, 0), OK);
	assert_int_equal(cluster_store(map_of(&t), t.a)->incarnation, 1);
	assert_int_equal(cluster_pg_seat(pg_of(&t), t.a)->flags,
			 CLUSTER_SEAT_MARKED | CLUSTER_SEAT_STALE);
	script_stop(&t.script);
}

static void test_r4_power_failure_of_all_elects_one_marked_member(void **state)
{
	struct three t;
	bool all_marked;
	struct cluster_command *command;

	(void)state;
	start_three(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.a, LOG_STORE_UNCLEAN), OK);
	assert_int_equal(script_restart(&t.script, t.p, LOG_STORE_UNCLEAN), OK);
	/* B is still up for all that the log knows. */
	assert_int_equal(pg_of(&t)->primary, t.b);
	command = cluster_command_pg_elect(0, pg_of(&t)->epoch, t.a);
	assert_int_equal(script_run(&t.script, t.a, command), PROTO_STATUS_INVALID);
	assert_int_equal(script_restart(&t.script, t.b, LOG_STORE_UNCLEAN), OK);
	assert_int_equal(pg_of(&t)->primary, 0);
	assert_int_equal(health(&t), CLUSTER_DOWN);
	/* Nobody can begin a join before somebody leads. */
	assert_int_equal(join(&t, t.a, t.a), PROTO_STATUS_NOT_PRIMARY);
	assert_true(cluster_pg_is_electable(map_of(&t), pg_of(&t), t.a, &all_marked));
	assert_true(all_marked);
	command = cluster_command_pg_elect(0, pg_of(&t)->epoch, t.a);
	assert_int_equal(script_run(&t.script, t.b, command), PROTO_STATUS_READ_ONLY);
	command = cluster_command_pg_elect(0, pg_of(&t)->epoch, t.a);
	assert_int_equal(script_run_twice(&t.script, t.a, command), OK);
	assert_int_equal(pg_of(&t)->primary, t.a);
	assert_false(is_marked(&t, t.a));
	assert_true(is_marked(&t, t.b));
	assert_int_equal(pg_of(&t)->loss_epoch, pg_of(&t)->epoch);
	/* It leads, but serves only when the floor is there again. */
	assert_int_equal(health(&t), CLUSTER_DOWN);
	script_recover(&t.script);
	assert_int_equal(health(&t), CLUSTER_HEALTHY);
	assert_true(pg_of(&t)->loss_epoch > 0);
	script_stop(&t.script);
}

static void test_r4_election_marks_unmarked_members_that_stayed_away(void **state)
{
	struct three t;
	bool all_marked = true;
	struct cluster_command *command;

	(void)state;
	start_three(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.a, LOG_STORE_UNCLEAN), OK);
	assert_int_equal(script_restart(&t.script, t.b, LOG_STORE_UNCLEAN), OK);
	assert_int_equal(script_dead(&t.script, t.a, t.p), OK);
	assert_int_equal(pg_of(&t)->primary, 0);
	assert_true(cluster_pg_is_electable(map_of(&t), pg_of(&t), t.b, &all_marked));
	assert_false(all_marked);
	command = cluster_command_pg_elect(0, pg_of(&t)->epoch, t.b);
	assert_int_equal(script_run(&t.script, t.b, command), OK);
	assert_int_equal(cluster_pg_seat(pg_of(&t), t.p)->flags,
			 CLUSTER_SEAT_MARKED | CLUSTER_SEAT_STALE);
	/* The old primary returns clean, and has another history all the same. */
	assert_int_equal(script_restart(&t.script, t.p, 0), OK);
	assert_true(is_marked(&t, t.p));
	assert_int_equal(pg_of(&t)->primary, t.b);
	script_stop(&t.script);
}

static void test_r4_half_filled_joiner_cannot_be_elected(void **state)
{
	struct three t;
	struct cluster_command *command;

	(void)state;
	start_three(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.a, LOG_STORE_UNCLEAN), OK);
	assert_int_equal(join(&t, t.p, t.a), OK);
	for (uint32_t node = 1; node <= 3; node++)
		assert_int_equal(script_restart(&t.script, node, LOG_STORE_UNCLEAN), OK);
	assert_int_equal(pg_of(&t)->primary, 0);
	assert_int_equal(pg_of(&t)->join_count, 0);
	assert_false(cluster_pg_is_electable(map_of(&t), pg_of(&t), t.a, NULL));
	command = cluster_command_pg_elect(0, pg_of(&t)->epoch, t.a);
	assert_int_equal(script_run(&t.script, t.a, command), PROTO_STATUS_INVALID);
	assert_true(cluster_pg_is_electable(map_of(&t), pg_of(&t), t.p, NULL));
	script_stop(&t.script);
}

/* ---- who leads ---- */

static void test_t1_takeover_drops_the_silent_primary(void **state)
{
	struct three t;
	uint64_t epoch;

	(void)state;
	start_three(&t, 3, 3);
	epoch = pg_of(&t)->epoch;
	const struct cluster_takeover of_another = {.store = t.a, .epoch = epoch};
	assert_int_equal(script_run(&t.script, t.b, cluster_command_pg_takeover(&of_another, 1)),
			 PROTO_STATUS_READ_ONLY);
	assert_int_equal(takeover(&t, t.a, epoch), OK);
	assert_int_equal(pg_of(&t)->primary, t.a);
	assert_int_equal(pg_of(&t)->isr_count, 2);
	assert_null(cluster_pg_seat(pg_of(&t), t.p));
	assert_true(pg_of(&t)->reign > epoch);
	assert_int_equal(pg_of(&t)->epoch, pg_of(&t)->reign);
	assert_int_equal(cluster_pg_fence(map_of(&t), pg_of(&t)), 0);
	/* The other one was late. */
	assert_int_equal(takeover(&t, t.b, epoch), PROTO_STATUS_STALE_EPOCH);
	script_stop(&t.script);
}

/* The old primary stays a member, whose answer is needed; but it leads no more (L2). */
static void test_s1_takeover_never_breaks_the_floor(void **state)
{
	struct three t;

	(void)state;
	start_three(&t, 3, 3);
	assert_int_equal(shrink(&t, t.p, pg_of(&t)->epoch, 0, t.b), OK);
	uint64_t epoch = pg_of(&t)->epoch;
	assert_int_equal(takeover(&t, t.a, epoch), OK);
	assert_int_equal(pg_of(&t)->primary, t.a);
	assert_int_equal(pg_of(&t)->isr_count, 2);
	assert_true(pg_of(&t)->epoch > epoch);
	assert_int_equal(pg_of(&t)->epoch, pg_of(&t)->reign);
	script_stop(&t.script);
}

/* One entry for all that a silent node led; what came late in it is no reason to refuse the rest. */
static void test_takeover_judges_each_row_by_itself(void **state)
{
	struct three t;
	uint64_t epoch;

	(void)state;
	start_three(&t, 3, 3);
	epoch = pg_of(&t)->epoch;
	const struct cluster_takeover rows[] = {
		{.pg = 0, .store = t.a, .epoch = epoch - 1},
		{.pg = 12345, .store = t.a, .epoch = epoch},
		{.pg = 0, .store = t.a, .epoch = epoch},
		{.pg = 0, .store = t.a, .epoch = epoch},
	};
	assert_int_equal(script_run(&t.script, t.a, cluster_command_pg_takeover(rows, 2)),
			 PROTO_STATUS_STALE_EPOCH);
	assert_int_equal(script_run(&t.script, t.a, cluster_command_pg_takeover(rows, 4)), OK);
	assert_int_equal(pg_of(&t)->primary, t.a);
	assert_int_equal(pg_of(&t)->isr_count, 2);
	assert_int_equal(script_run(&t.script, t.a, cluster_command_pg_takeover(rows, 0)),
			 PROTO_STATUS_INVALID);
	script_stop(&t.script);
}

static void test_hand_over_is_by_the_primary(void **state)
{
	struct three t;
	struct cluster_command *command;

	(void)state;
	start_three(&t, 3, 3);
	command = cluster_command_pg_primary(0, pg_of(&t)->epoch, t.a);
	assert_int_equal(script_run(&t.script, t.a, command), PROTO_STATUS_NOT_PRIMARY);
	command = cluster_command_pg_primary(0, pg_of(&t)->epoch - 1, t.a);
	assert_int_equal(script_run(&t.script, t.p, command), PROTO_STATUS_STALE_EPOCH);
	command = cluster_command_pg_primary(0, pg_of(&t)->epoch, t.a);
	assert_int_equal(script_run_twice(&t.script, t.p, command), OK);
	assert_int_equal(pg_of(&t)->primary, t.a);
	assert_int_equal(cluster_pg_fence(map_of(&t), pg_of(&t)), 0);
	/* The target's first store is who should lead. */
	assert_int_equal(cluster_pg_successor(map_of(&t), pg_of(&t)), t.p);
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
	start_three(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.p, 0), OK);
	first = now(&t);
	assert_int_equal(takeover(&t, t.b, pg_of(&t)->epoch), OK);
	assert_int_equal(pg_of(&t)->primary, t.b);
	assert_int_equal(cluster_pg_fence(map_of(&t), pg_of(&t)), first);
	/* A second one that may be serving: neither of them alone can end the wait. */
	assert_int_equal(script_restart(&t.script, t.b, 0), OK);
	assert_int_equal(pg_of(&t)->primary, t.b);
	assert_int_equal(cluster_pg_fence(map_of(&t), pg_of(&t)), now(&t));
	assert_int_equal(pg_of(&t)->fence_store, 0);
	script_stop(&t.script);

	start_three(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.p, LOG_STORE_UNCLEAN), OK);
	command = cluster_command_pg_primary(0, pg_of(&t)->epoch, t.b);
	assert_int_equal(script_run_twice(&t.script, t.a, command), OK);
	assert_int_equal(pg_of(&t)->primary, t.b);
	assert_int_equal(cluster_pg_fence(map_of(&t), pg_of(&t)), 0);
	assert_int_equal(pg_of(&t)->fence_index, 0);
	script_stop(&t.script);
}

static void test_l3_death_of_the_old_primary_ends_the_wait(void **state)
{
	struct three t;
	uint64_t fence;

	(void)state;
	start_three(&t, 3, 3);
	/* Force is the one command by which another leads while the old one is up. */
	assert_int_equal(script_dead(&t.script, t.p, t.a), OK);
	assert_int_equal(script_dead(&t.script, t.p, t.b), OK);
	assert_int_equal(script_restart(&t.script, t.a, LOG_STORE_NEW), OK);
	assert_int_equal(health(&t), CLUSTER_DOWN);
	assert_int_equal(script_run_twice(&t.script, t.a,
					  cluster_command_pg_force(0, pg_of(&t)->epoch, t.a)),
			 OK);
	assert_int_equal(pg_of(&t)->primary, t.a);
	assert_int_equal(pg_of(&t)->forced, 1);
	assert_int_equal(pg_of(&t)->isr_count, 1);
	fence = cluster_pg_fence(map_of(&t), pg_of(&t));
	assert_true(fence && fence == pg_of(&t)->loss_epoch);
	assert_int_equal(script_dead(&t.script, t.a, t.p), OK);
	assert_int_equal(cluster_pg_fence(map_of(&t), pg_of(&t)), 0);
	script_stop(&t.script);
}

/* The death of the very start that is waited for is told when the next one is registered. */
static void test_l3_late_death_ends_the_wait_and_hits_no_later_start(void **state)
{
	struct three t;

	(void)state;
	start_three(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.p, LOG_STORE_UNCLEAN), OK);
	assert_int_equal(pg_of(&t)->primary, t.a);
	assert_int_equal(cluster_pg_fence(map_of(&t), pg_of(&t)), now(&t));
	/* Of no start that anybody waits for: the present one, the next, another node's. */
	assert_int_equal(script_run(&t.script, t.a, cluster_command_dead(t.p, 3)),
			 PROTO_STATUS_STALE_SESSION);
	assert_int_equal(script_run(&t.script, t.a, cluster_command_dead(t.b, 0)),
			 PROTO_STATUS_STALE_SESSION);
	assert_int_not_equal(cluster_pg_fence(map_of(&t), pg_of(&t)), 0);
	uint64_t epoch = pg_of(&t)->epoch;
	assert_int_equal(script_run_twice(&t.script, t.a, cluster_command_dead(t.p, 1)), OK);
	assert_int_equal(cluster_pg_fence(map_of(&t), pg_of(&t)), 0);
	assert_int_equal(pg_of(&t)->fence_index, 0);
	assert_int_equal(pg_of(&t)->epoch, epoch);
	assert_int_equal(pg_of(&t)->primary, t.a);
	assert_true(cluster_store_is_up(map_of(&t), t.p));
	assert_int_equal(script_run(&t.script, t.a, cluster_command_dead(t.p, 1)),
			 PROTO_STATUS_STALE_SESSION);
	script_stop(&t.script);

	/* Where two may be serving, the end of one is not enough. */
	start_three(&t, 3, 3);
	assert_int_equal(script_restart(&t.script, t.p, LOG_STORE_UNCLEAN), OK);
	assert_int_equal(script_restart(&t.script, t.a, 0), OK);
	assert_int_equal(pg_of(&t)->fence_store, 0);
	(void)script_run(&t.script, t.b,
			 cluster_command_dead(t.p, 1)); /* other PGs wait for it alone */
	assert_int_not_equal(cluster_pg_fence(map_of(&t), pg_of(&t)), 0);
	script_stop(&t.script);

	/* And a death that came in time has ended it for good. */
	start_three(&t, 3, 3);
	assert_int_equal(script_run(&t.script, t.p, cluster_command_store_failed(t.p, 1)), OK);
	assert_int_equal(pg_of(&t)->primary, t.a);
	assert_int_not_equal(cluster_pg_fence(map_of(&t), pg_of(&t)), 0);
	assert_int_equal(script_dead(&t.script, t.a, t.p), OK);
	assert_int_equal(script_restart(&t.script, t.p, LOG_STORE_UNCLEAN), OK);
	assert_int_equal(cluster_pg_fence(map_of(&t), pg_of(&t)), 0);
	script_stop(&t.script);
}

static void test_force_is_for_what_does_not_serve(void **state)
{
	struct three t;

	(void)state;
	start_three(&t, 3, 3);
	assert_int_equal(
		script_run(&t.script, t.p, cluster_command_pg_force(0, pg_of(&t)->epoch, t.p)),
		PROTO_STATUS_BUSY);
	assert_int_equal(script_dead(&t.script, t.p, t.a), OK);
	assert_int_equal(script_dead(&t.script, t.p, t.b), OK);
	assert_int_equal(
		script_run(&t.script, t.p, cluster_command_pg_force(0, pg_of(&t)->epoch, t.a)),
		PROTO_STATUS_INVALID);
	assert_int_equal(
		script_run(&t.script, t.p, cluster_command_pg_force(0, pg_of(&t)->epoch - 1, t.p)),
		PROTO_STATUS_STALE_EPOCH);
	script_stop(&t.script);
}

/* ---- joining ---- */

static void test_j1_join_is_named_by_index_and_incarnation(void **state)
{
	struct three t;
	struct cluster_join old;
	struct cluster_command *command;

	(void)state;
	start_three(&t, 3, 3);
	assert_int_equal(shrink(&t, t.p, pg_of(&t)->epoch, 0, t.a), OK);
	command = cluster_command_pg_join(0, t.a, 2);
	assert_int_equal(script_run(&t.script, t.a, command), PROTO_STATUS_STALE_SESSION);
	assert_int_equal(join(&t, t.a, t.a), OK);
	old = *cluster_pg_join(pg_of(&t), t.a);
	assert_int_equal(health(&t), CLUSTER_RECOVERING);
	/* A second one says which there is. */
	command = cluster_command_pg_join(0, t.a, 1);
	assert_int_equal(script_run(&t.script, t.a, command), PROTO_STATUS_EXISTS);
	/* A new start ends it, and a delayed expand of the old one does nothing. */
	assert_int_equal(script_restart(&t.script, t.a, 0), OK);
	assert_null(cluster_pg_join(pg_of(&t), t.a));
	command = cluster_command_pg_expand(0, pg_of(&t)->epoch, &old, 0);
	assert_int_equal(script_run(&t.script, t.p, command), PROTO_STATUS_NOT_FOUND);
	assert_int_equal(join(&t, t.a, t.a), OK);
	command = cluster_command_pg_expand(0, pg_of(&t)->epoch, &old, 0);
	assert_int_equal(script_run(&t.script, t.p, command), PROTO_STATUS_NOT_FOUND);
	assert_int_equal(expand(&t, t.a, 0), OK);
	assert_int_equal(health(&t), CLUSTER_HEALTHY);
	script_stop(&t.script);
}

/* The store gave up and began again in the same start and epoch: what was compared before is void. */
static void test_j1_second_join_of_one_start_is_another_join(void **state)
{
	struct three t;
	struct cluster_join old;
	struct cluster_command *command;

	(void)state;
	start_three(&t, 3, 3);
	assert_int_equal(shrink(&t, t.p, pg_of(&t)->epoch, 0, t.a), OK);
	assert_int_equal(join(&t, t.a, t.a), OK);
	old = *cluster_pg_join(pg_of(&t), t.a);
	command = cluster_command_pg_leave_join(0, t.a, old.index);
	assert_int_equal(script_run(&t.script, t.a, command), OK);
	assert_int_equal(join(&t, t.a, t.a), OK);
	assert_int_equal(cluster_pg_join(pg_of(&t), t.a)->incarnation, old.incarnation);
	command = cluster_command_pg_expand(0, pg_of(&t)->epoch, &old, 0);
	assert_int_equal(script_run(&t.script, t.p, command), PROTO_STATUS_NOT_FOUND);
	assert_null(cluster_pg_seat(pg_of(&t), t.a));
	script_stop(&t.script);
}

static void test_join_needs_a_place_and_a_primary(void **state)
{
	struct three t;

	(void)state;
	start_three(&t, 4, 3);
	for (uint32_t store = 1; store <= 4; store++)
		if (!cluster_pg_has_target(pg_of(&t), store))
			assert_int_equal(join(&t, store, store), PROTO_STATUS_INVALID);
	assert_int_equal(join(&t, t.a, t.a), PROTO_STATUS_EXISTS);
	assert_int_equal(script_run(&t.script, t.a, cluster_command_pg_join(0, 77, 1)),
			 PROTO_STATUS_NOT_FOUND);
	assert_int_equal(script_run(&t.script, t.a, cluster_command_pg_join(77, t.a, 1)),
			 PROTO_STATUS_NOT_FOUND);
	assert_int_equal(shrink(&t, t.p, pg_of(&t)->epoch, 0, t.a), OK);
	assert_int_equal(join(&t, t.b, t.a), PROTO_STATUS_NOT_PRIMARY);
	script_stop(&t.script);
}

static void test_expand_needs_epoch_and_primary(void **state)
{
	struct three t;
	struct cluster_join found;
	struct cluster_command *command;

	(void)state;
	start_three(&t, 3, 3);
	assert_int_equal(shrink(&t, t.p, pg_of(&t)->epoch, 0, t.a), OK);
	assert_int_equal(join(&t, t.a, t.a), OK);
	found = *cluster_pg_join(pg_of(&t), t.a);
	command = cluster_command_pg_expand(0, pg_of(&t)->epoch - 1, &found, 0);
	assert_int_equal(script_run(&t.script, t.p, command), PROTO_STATUS_STALE_EPOCH);
	command = cluster_command_pg_expand(0, pg_of(&t)->epoch, &found, 0);
	assert_int_equal(script_run(&t.script, t.a, command), PROTO_STATUS_NOT_PRIMARY);
	found.incarnation++;
	command = cluster_command_pg_expand(0, pg_of(&t)->epoch, &found, 0);
	assert_int_equal(script_run(&t.script, t.p, command), PROTO_STATUS_NOT_FOUND);
	found.incarnation--;
	command = cluster_command_pg_expand(0, pg_of(&t)->epoch, &found, t.p);
	assert_int_equal(script_run(&t.script, t.p, command), PROTO_STATUS_BUSY);
	assert_non_null(cluster_pg_join(pg_of(&t), t.a));
	script_stop(&t.script);
}

static void test_leave_join_names_its_join(void **state)
{
	struct three t;
	uint64_t index;
	struct cluster_command *command;

	(void)state;
	start_three(&t, 3, 3);
	assert_int_equal(shrink(&t, t.p, pg_of(&t)->epoch, 0, t.a), OK);
	assert_int_equal(join(&t, t.a, t.a), OK);
	index = cluster_pg_join(pg_of(&t), t.a)->index;
	command = cluster_command_pg_leave_join(0, t.a, index + 1);
	assert_int_equal(script_run(&t.script, t.a, command), PROTO_STATUS_NOT_FOUND);
	command = cluster_command_pg_leave_join(0, t.a, index);
	assert_int_equal(script_run(&t.script, t.b, command), PROTO_STATUS_NOT_PRIMARY);
	command = cluster_command_pg_leave_join(0, t.a, index);
	assert_int_equal(script_run_twice(&t.script, t.a, command), OK);
	assert_int_equal(pg_of(&t)->join_count, 0);
	script_stop(&t.script);
}

static void test_death_of_a_joiner_ends_its_join(void **state)
{
	struct three t;

	(void)state;
	start_three(&t, 3, 3);
	assert_int_equal(shrink(&t, t.p, pg_of(&t)->epoch, 0, t.a), OK);
	assert_int_equal(join(&t, t.a, t.a), OK);
	assert_int_equal(script_dead(&t.script, t.p, t.a), OK);
	assert_int_equal(pg_of(&t)->join_count, 0);
	assert_int_equal(health(&t), CLUSTER_DEGRADED);
	script_stop(&t.script);
}

/* ---- targets ---- */

static void test_retarget_is_void_when_the_target_has_changed(void **state)
{
	struct three t;
	struct cluster_plan_input input = {0};
	struct cluster_command *first[4], *second[4];

	(void)state;
	start_three(&t, 3, 3);
	(void)script_add_node(&t.script, "z9", 1);
	assert_int_equal(cluster_plan(map_of(&t), &input, first, 4), 1);
	assert_int_equal(cluster_plan(map_of(&t), &input, second, 4), 1);
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
	start_three(&t, 3, 3);
	assert_int_equal(script_run(&t.script, 1, cluster_command_store_weight(t.p, 0)), OK);
	(void)script_add_node(&t.script, "z9", 1);
	script_plan(&t.script, 0);
	assert_false(cluster_pg_has_target(pg_of(&t), t.p));
	assert_int_equal(health(&t), CLUSTER_RECOVERING);
	for (uint32_t i = 0; i < 8; i++)
		moved += !!cluster_pg_seat(script_pg(&t.script, i), t.p);
	assert_int_equal(moved, 8);
	assert_int_equal(join(&t, 4, 4), OK);
	assert_int_equal(expand(&t, 4, 0), OK);
	assert_int_equal(pg_of(&t)->isr_count, 4);
	assert_int_equal(cluster_pg_successor(map_of(&t), pg_of(&t)), pg_of(&t)->target[0]);
	script_recover(&t.script);
	assert_int_equal(pg_of(&t)->isr_count, 3);
	assert_null(cluster_pg_seat(pg_of(&t), t.p));
	assert_int_equal(health(&t), CLUSTER_HEALTHY);
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
