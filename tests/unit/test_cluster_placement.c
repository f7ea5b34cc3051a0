/*
 * Placement: spread of copies and primaries, zones, weights, and that no more moves than
 * must. What is judged is the map after the planner's commands were applied.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>

#include "lib/base/size.h"
#include "lib/base/text.h"
#include "tests/unit/cluster_script.h"

#define STORES_MAX 65

struct spread {
	uint32_t copies[STORES_MAX], leads[STORES_MAX];
	uint32_t least, most, least_leads, most_leads;
};

/* Over the stores of nodes that are neither down nor draining. */
static struct spread spread_of(const struct script *script)
{
	struct spread spread = {.least = UINT32_MAX, .least_leads = UINT32_MAX};
	const struct cluster_pg *pg = cluster_pg_next(script->map, 0);
	const struct cluster_store *store = cluster_store_next(script->map, 0);

	for (; pg; pg = cluster_pg_next(script->map, pg->id + 1)) {
		for (uint32_t i = 0; i < pg->target_count; i++)
			spread.copies[pg->target[i]]++;
		if (pg->target_count)
			spread.leads[pg->target[0]]++;
	}
	for (; store; store = cluster_store_next(script->map, store->id)) {
		const struct cluster_node *node = cluster_node(script->map, store->node);

		if (!(node->flags & CLUSTER_NODE_UP) || (node->flags & CLUSTER_NODE_DRAINING))
			continue;
		spread.least = min_of(spread.least, spread.copies[store->id]);
		spread.most = max_of(spread.most, spread.copies[store->id]);
		spread.least_leads = min_of(spread.least_leads, spread.leads[store->id]);
		spread.most_leads = max_of(spread.most_leads, spread.leads[store->id]);
	}
	return spread;
}

/* Copies that are not where they were. */
static uint32_t moved_since(const struct cluster_map *before, const struct cluster_map *after)
{
	const struct cluster_pg *pg = cluster_pg_next(before, 0);
	uint32_t moved = 0;

	for (; pg; pg = cluster_pg_next(before, pg->id + 1)) {
		const struct cluster_pg *now = cluster_pg(after, pg->id);

		for (uint32_t i = 0; i < now->target_count; i++)
			moved += !cluster_pg_has_target(pg, now->target[i]);
	}
	return moved;
}

static uint32_t common_nodes(const struct cluster_map *map, const struct cluster_pg *pg)
{
	uint32_t common = 0;

	for (uint32_t i = 0; i < pg->target_count; i++)
		for (uint32_t j = 0; j < i; j++)
			common += cluster_store_node(map, pg->target[i]) ==
				  cluster_store_node(map, pg->target[j]);
	return common;
}

static uint32_t common_zones(const struct cluster_map *map, const struct cluster_pg *pg)
{
	uint32_t common = 0;

	for (uint32_t i = 0; i < pg->target_count; i++)
		for (uint32_t j = 0; j < i; j++) {
			const struct cluster_node *a =
				cluster_node(map, cluster_store_node(map, pg->target[i]));
			const struct cluster_node *b =
				cluster_node(map, cluster_store_node(map, pg->target[j]));

			common += strcmp(a->zone, b->zone) == 0;
		}
	return common;
}

static void format(struct script *script, uint32_t copies, uint32_t pgs)
{
	struct uuid uuid = {{9}};

	script->is_quick = true;
	assert_int_equal(script_run(script, 1, cluster_command_format(&uuid, copies, 0, pgs, 0)),
			 PROTO_STATUS_OK);
	script_plan(script, 0);
	script->is_quick = false;
}

static void test_three_nodes_have_all_and_lead_a_third_each(void **state)
{
	struct script script;
	struct spread spread;

	(void)state;
	script_start(&script);
	script_format(&script, 3, 3, 256);
	spread = spread_of(&script);
	assert_int_equal(spread.least, 256);
	assert_int_equal(spread.most, 256);
	assert_true(spread.most_leads - spread.least_leads <= 2);
	for (uint32_t i = 0; i < 256; i++) {
		const struct cluster_pg *pg = script_pg(&script, i);

		assert_int_equal(pg->isr_count, 3);
		assert_int_equal(pg->primary, pg->target[0]);
		assert_int_equal(cluster_pg_health(script.map, pg), CLUSTER_HEALTHY);
	}
	script_stop(&script);
}

static void test_every_size_of_cluster_is_level_at_format(void **state)
{
	(void)state;
	for (uint32_t nodes = 3; nodes <= 16; nodes++) {
		struct script script;
		struct spread spread;

		script_start(&script);
		for (uint32_t i = 0; i < nodes; i++) {
			char zone[16];
			struct text text = text_of(zone, sizeof(zone));

			text_append(&text, "z%u", i);
			(void)script_add_node(&script, zone, 1 + nodes % 3);
		}
		format(&script, 3, 256);
		spread = spread_of(&script);
		print_message("%2u nodes of %u: %u to %u copies, %u to %u primaries\n", nodes,
			      1 + nodes % 3, spread.least, spread.most, spread.least_leads,
			      spread.most_leads);
		assert_true(spread.most - spread.least <= 2);
		assert_true(spread.most_leads - spread.least_leads <= 3);
		for (uint32_t i = 0; i < 256; i++)
			assert_int_equal(common_zones(script.map, script_pg(&script, i)), 0);
		script_stop(&script);
	}
}

/* One large zone and two small ones: one copy in each all the same. */
static void test_zones_of_different_size_get_one_copy_each(void **state)
{
	struct script script;
	struct spread spread;

	(void)state;
	script_start(&script);
	for (uint32_t i = 0; i < 8; i++)
		(void)script_add_node(&script, i < 6 ? "big" : i == 6 ? "b" : "c", 1);
	format(&script, 3, 256);
	for (uint32_t i = 0; i < 256; i++)
		assert_int_equal(common_zones(script.map, script_pg(&script, i)), 0);
	spread = spread_of(&script);
	assert_int_equal(spread.copies[7], 256);
	assert_int_equal(spread.copies[8], 256);
	for (uint32_t i = 1; i <= 6; i++)
		assert_in_range(spread.copies[i], 41, 44);
	script_stop(&script);
}

static void test_two_zones_take_different_nodes(void **state)
{
	struct script script;

	(void)state;
	script_start(&script);
	for (uint32_t i = 0; i < 6; i++)
		(void)script_add_node(&script, i % 2 ? "a" : "b", 2);
	format(&script, 3, 128);
	for (uint32_t i = 0; i < 128; i++) {
		assert_int_equal(common_zones(script.map, script_pg(&script, i)), 1);
		assert_int_equal(common_nodes(script.map, script_pg(&script, i)), 0);
	}
	assert_true(spread_of(&script).most - spread_of(&script).least <= 2);
	script_stop(&script);
}

/* Two nodes and three copies: one node has two, on different stores. */
static void test_fewer_nodes_than_copies_use_different_stores(void **state)
{
	struct script script;

	(void)state;
	script_start(&script);
	(void)script_add_node(&script, "a", 3);
	(void)script_add_node(&script, "b", 3);
	format(&script, 3, 64);
	for (uint32_t i = 0; i < 64; i++) {
		assert_int_equal(script_pg(&script, i)->target_count, 3);
		assert_int_equal(common_nodes(script.map, script_pg(&script, i)), 1);
	}
	script_stop(&script);
}

static void test_weight_decides_the_share(void **state)
{
	struct script script;
	struct spread spread;

	(void)state;
	script_start(&script);
	for (uint32_t i = 0; i < 8; i++) {
		char zone[2] = {(char)('a' + i), 0};

		(void)script_add_node(&script, zone, 1);
	}
	assert_int_equal(script_run(&script, 1, cluster_command_store_weight(1, 2048)),
			 PROTO_STATUS_NOT_FORMATTED);
	format(&script, 2, 256);
	assert_int_equal(script_run(&script, 1, cluster_command_store_weight(1, 2048)),
			 PROTO_STATUS_OK);
	assert_int_equal(script_run(&script, 1, cluster_command_store_weight(2, 0)),
			 PROTO_STATUS_OK);
	script_plan(&script, 0);
	spread = spread_of(&script);
	/* 512 copies over 6 x 1024 + 2048. */
	assert_in_range(spread.copies[1], 119, 130);
	assert_int_equal(spread.copies[2], 0);
	for (uint32_t i = 3; i <= 8; i++)
		assert_in_range(spread.copies[i], 60, 68);
	script_stop(&script);
}

static void add_one_node(uint32_t nodes, uint32_t stores)
{
	struct script script;
	struct cluster_map *before;
	struct spread spread;
	uint32_t moved, share = 0, fair = 256 * 3 / (nodes + 1);

	script_start(&script);
	script.image_every = 0;
	script_format(&script, nodes, 3, 256);
	script.is_quick = true;
	before = cluster_map_get(script.map);
	(void)script_add_node(&script, "new", stores);
	for (uint32_t i = 0; i < stores; i++)
		assert_int_equal(
			script_run(&script, 1,
				   cluster_command_store_weight(script_store(&script, nodes + 1, i),
								1024 / stores)),
			PROTO_STATUS_OK);
	script_plan(&script, 0);
	moved = moved_since(before, script.map);
	spread = spread_of(&script);
	for (uint32_t i = 0; i < stores; i++)
		share += spread.copies[script_store(&script, nodes + 1, i)];
	print_message(
		"node %u of %u stores: %u copies move, its share is %u of %u; primaries %u to "
		"%u\n",
		nodes + 1, stores, moved, share, fair, spread.least_leads, spread.most_leads);
	assert_int_equal(moved, share);
	assert_in_range(share, fair * 9 / 10, fair + 1);
	cluster_map_put(before);
	before = cluster_map_get(script.map);
	script_recover(&script);
	assert_int_equal(moved_since(before, script.map), 0);
	for (uint32_t i = 0; i < 256; i++)
		assert_int_equal(cluster_pg_health(script.map, script_pg(&script, i)),
				 CLUSTER_HEALTHY);
	cluster_map_put(before);
	script_stop(&script);
}

static void test_a_new_node_takes_its_share_and_nothing_else_moves(void **state)
{
	(void)state;
	for (uint32_t nodes = 3; nodes <= 12; nodes++)
		add_one_node(nodes, 1 + nodes % 2);
}

static void test_a_node_that_is_down_keeps_its_place_until_it_is_out(void **state)
{
	struct script script;
	struct cluster_map *before;
	uint32_t share;

	(void)state;
	script_start(&script);
	script_format(&script, 6, 3, 128);
	script.is_quick = true;
	before = cluster_map_get(script.map);
	share = spread_of(&script).copies[4];
	assert_int_equal(script_dead(&script, 1, 4), PROTO_STATUS_OK);
	script_plan(&script, 0);
	assert_int_equal(moved_since(before, script.map), 0);
	assert_string_equal(cluster_node_status(script.map, cluster_node(script.map, 4)), "down");
	script_plan(&script, 4);
	assert_int_equal(moved_since(before, script.map), share);
	assert_string_equal(cluster_node_status(script.map, cluster_node(script.map, 4)), "out");
	assert_true(spread_of(&script).most - spread_of(&script).least <= 4);
	cluster_map_put(before);
	script_stop(&script);
}

/* With nobody to take over, a place that is out stays: the node may return. */
static void test_out_without_a_replacement_keeps_its_place(void **state)
{
	struct script script;
	struct cluster_map *before;

	(void)state;
	script_start(&script);
	script_format(&script, 3, 3, 32);
	before = cluster_map_get(script.map);
	assert_int_equal(script_dead(&script, 1, 3), PROTO_STATUS_OK);
	script_plan(&script, 3);
	assert_int_equal(moved_since(before, script.map), 0);
	assert_int_equal(script_pg(&script, 0)->target_count, 3);
	cluster_map_put(before);
	script_stop(&script);
}

static void test_draining_moves_what_the_node_has_and_no_more(void **state)
{
	struct script script;
	struct cluster_map *before;
	struct spread spread;
	uint32_t share;

	(void)state;
	script_start(&script);
	script_format(&script, 5, 3, 128);
	script.is_quick = true;
	share = spread_of(&script).copies[2];
	before = cluster_map_get(script.map);
	assert_int_equal(script_run(&script, 1, cluster_command_node_drain(2)), PROTO_STATUS_OK);
	script_plan(&script, 0);
	spread = spread_of(&script);
	assert_int_equal(spread.copies[2], 0);
	assert_int_equal(moved_since(before, script.map), share);
	script_recover(&script);
	for (uint32_t i = 0; i < 128; i++)
		assert_null(cluster_pg_seat(script_pg(&script, i), script_store(&script, 2, 0)));
	cluster_map_put(before);
	script_stop(&script);
}

static void test_later_stores_fill_a_cluster_that_was_formatted_too_small(void **state)
{
	struct script script;
	struct uuid uuid = {{9}};

	(void)state;
	script_start(&script);
	(void)script_add_node(&script, "a", 1);
	assert_int_equal(script_run(&script, 1, cluster_command_format(&uuid, 3, 0, 16, 0)),
			 PROTO_STATUS_INVALID);
	assert_int_equal(
		script_run(&script, 1, cluster_command_format(&uuid, 3, 0, 16, LOG_FORMAT_FORCE)),
		PROTO_STATUS_OK);
	script_plan(&script, 0);
	assert_int_equal(cluster_pg_health(script.map, script_pg(&script, 0)), CLUSTER_DOWN);
	(void)script_add_node(&script, "b", 1);
	(void)script_add_node(&script, "c", 1);
	script_plan(&script, 0);
	script_recover(&script);
	for (uint32_t i = 0; i < 16; i++)
		assert_int_equal(cluster_pg_health(script.map, script_pg(&script, i)),
				 CLUSTER_HEALTHY);
	assert_true(spread_of(&script).most_leads - spread_of(&script).least_leads <= 2);
	script_stop(&script);
}

/* A zone appears: copies that shared one go there, without being asked twice. */
static void test_new_zone_separates_copies(void **state)
{
	struct script script;

	(void)state;
	script_start(&script);
	for (uint32_t i = 0; i < 4; i++)
		(void)script_add_node(&script, i < 2 ? "a" : "b", 1);
	format(&script, 3, 64);
	assert_int_equal(common_zones(script.map, script_pg(&script, 0)), 1);
	script.is_quick = true;
	(void)script_add_node(&script, "c", 1);
	script_plan(&script, 0);
	for (uint32_t i = 0; i < 64; i++)
		assert_int_equal(common_zones(script.map, script_pg(&script, i)), 0);
	script_stop(&script);
}

static void test_fewer_copies_shrink_the_targets(void **state)
{
	struct script script;

	(void)state;
	script_start(&script);
	script_format(&script, 4, 3, 32);
	assert_int_equal(script_run(&script, 1, cluster_command_policy(0, 2, 1)), PROTO_STATUS_OK);
	script_plan(&script, 0);
	script_recover(&script);
	for (uint32_t i = 0; i < 32; i++) {
		assert_int_equal(script_pg(&script, i)->target_count, 2);
		assert_int_equal(script_pg(&script, i)->isr_count, 2);
	}
	script_stop(&script);
}

static double seconds(void)
{
	struct timespec now;

	assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &now), 0);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Planning runs on the loop that also applies the log: it must not take long. */
static void test_large_clusters_are_planned_fast(void **state)
{
	struct script script;
	struct spread spread;
	struct cluster_plan_input input = {0};
	struct cluster_command *plan[8];
	struct uuid uuid = {{9}};
	double begin;

	(void)state;
	script_start(&script);
	script.is_quick = true;
	script.image_every = 0;
	for (uint32_t i = 0; i < 32; i++) {
		char zone[2] = {(char)('a' + i % 8), 0};

		(void)script_add_node(&script, zone, 2);
	}
	assert_int_equal(script_run(&script, 1, cluster_command_format(&uuid, 3, 0, 4096, 0)),
			 PROTO_STATUS_OK);
	for (unsigned round = 0; round < 2; round++) {
		int count;

		begin = seconds();
		count = cluster_plan(script.map, &input, plan, 8);
		print_message("64 stores, 4096 PGs: %s planned in %.0f ms, %d commands\n",
			      round ? "again" : "first", (seconds() - begin) * 1e3, count);
		assert_true(seconds() - begin < 5);
		assert_int_equal(count, round ? 0 : 4);
		begin = seconds();
		for (int i = 0; i < count; i++)
			assert_int_equal(script_run(&script, 1, plan[i]), PROTO_STATUS_OK);
		if (count)
			print_message("applied twice in %.0f ms\n", (seconds() - begin) * 1e3);
	}
	spread = spread_of(&script);
	assert_true(spread.most - spread.least <= 2);
	assert_true(spread.most_leads - spread.least_leads <= 4);
	script_stop(&script);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_three_nodes_have_all_and_lead_a_third_each),
		cmocka_unit_test(test_every_size_of_cluster_is_level_at_format),
		cmocka_unit_test(test_zones_of_different_size_get_one_copy_each),
		cmocka_unit_test(test_two_zones_take_different_nodes),
		cmocka_unit_test(test_fewer_nodes_than_copies_use_different_stores),
		cmocka_unit_test(test_weight_decides_the_share),
		cmocka_unit_test(test_a_new_node_takes_its_share_and_nothing_else_moves),
		cmocka_unit_test(test_a_node_that_is_down_keeps_its_place_until_it_is_out),
		cmocka_unit_test(test_out_without_a_replacement_keeps_its_place),
		cmocka_unit_test(test_draining_moves_what_the_node_has_and_no_more),
		cmocka_unit_test(test_later_stores_fill_a_cluster_that_was_formatted_too_small),
		cmocka_unit_test(test_new_zone_separates_copies),
		cmocka_unit_test(test_fewer_copies_shrink_the_targets),
		cmocka_unit_test(test_large_clusters_are_planned_fast),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
