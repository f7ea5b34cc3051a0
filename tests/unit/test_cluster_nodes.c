/* Nodes and stores: registration (R1, R2), sessions, deaths that hit one start only (L5). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "lib/base/size.h"
#include "tests/unit/cluster_script.h"

#define OK PROTO_STATUS_OK

/* What a node would register with, to be changed by a test. */
static struct cluster_register request_of(struct script *script, uint32_t node)
{
	return (struct cluster_register){
		.uuid = script->nodes[node].uuid,
		.cluster = *cluster_uuid(script->map),
		.incarnation = script->nodes[node].incarnation,
		.version_min = 1,
		.version_max = 1,
		.loops = 1,
		.address = "127.0.0.1:7001",
		.zone = "z",
		.store_count = script->nodes[node].store_count,
		.stores = script->nodes[node].stores,
	};
}

/* Register as a start of its own. */
static enum proto_status run_register(struct script *script, const struct cluster_register *request,
				      uint64_t start)
{
	struct cluster_proposer proposer = {.start = start};
	struct cluster_command *command = cluster_command_register(request);
	enum proto_status status;

	assert_non_null(command);
	cluster_command_sign(command, &proposer);
	status = script_apply(script, command->data, command->size);
	cluster_command_free(command);
	return status;
}

static void test_registration_gives_ids_and_a_session(void **state)
{
	struct script script;
	const struct cluster_node *node;
	const struct cluster_store *store;

	(void)state;
	script_start(&script);
	assert_int_equal(script_add_node(&script, "east", 2), 1);
	node = cluster_node(script.map, 1);
	assert_int_equal(node->session, cluster_index(script.map));
	assert_ptr_equal(cluster_node_by_session(script.map, node->session), node);
	assert_ptr_equal(cluster_node_by_uuid(script.map, &script.nodes[1].uuid), node);
	assert_string_equal(node->zone, "east");
	assert_int_equal(script.result.nodes.count, 1);
	assert_int_equal(script.result.stores.count, 2);
	store = cluster_store_by_uuid(script.map, &script.nodes[1].stores[1].uuid);
	assert_int_equal(store->node, 1);
	assert_int_equal(store->weight, 1024);
	assert_true(cluster_store_is_up(script.map, store->id));
	assert_string_equal(cluster_node_status(script.map, node), "up");
	script_stop(&script);
}

static void test_registration_twice_by_one_start_is_one(void **state)
{
	struct script script;
	struct cluster_register request;
	uint64_t session;

	(void)state;
	script_start(&script);
	(void)script_add_node(&script, "z", 1);
	session = cluster_node(script.map, 1)->session;
	request = request_of(&script, 1);
	assert_int_equal(run_register(&script, &request, script.nodes[1].proposer.start), OK);
	assert_int_equal(script.result.id, 1);
	assert_int_equal(script.result.nodes.count, 0);
	assert_int_equal(cluster_node(script.map, 1)->session, session);
	script_stop(&script);
}

static void test_late_registration_of_an_older_start_is_void(void **state)
{
	struct script script;
	struct cluster_register request;

	(void)state;
	script_start(&script);
	(void)script_add_node(&script, "z", 1);
	request = request_of(&script, 1);
	assert_int_equal(script_restart(&script, 1, 0), OK);
	assert_int_equal(run_register(&script, &request, 77), PROTO_STATUS_STALE_SESSION);
	assert_int_equal(cluster_node(script.map, 1)->incarnation, 2);
	/* The same incarnation with another random number is a copied directory. */
	request = request_of(&script, 1);
	assert_int_equal(run_register(&script, &request, 78), PROTO_STATUS_STALE_SESSION);
	script_stop(&script);
}

static void test_bad_registrations_are_refused(void **state)
{
	struct script script;
	struct cluster_register request;
	struct cluster_register_store stores[2];
	struct uuid other = {{3}};

	(void)state;
	script_start(&script);
	script_format(&script, 3, 3, 8);
	request = request_of(&script, 1);
	request.uuid = other;

	request.cluster = other;
	assert_int_equal(run_register(&script, &request, 5), PROTO_STATUS_WRONG_CLUSTER);
	assert_non_null(strstr(script.result.text, "03000000-"));
	assert_non_null(strstr(script.result.text, "09000000-"));
	request.cluster = *cluster_uuid(script.map);

	request.version_min = 2;
	request.version_max = 3;
	assert_int_equal(run_register(&script, &request, 5), PROTO_STATUS_WRONG_VERSION);
	assert_non_null(strstr(script.result.text, "2 to 3"));
	request.version_min = 4;
	assert_int_equal(run_register(&script, &request, 5), PROTO_STATUS_INVALID);
	request.version_min = request.version_max = 1;

	/* Node 1 is up and has this store. */
	assert_int_equal(run_register(&script, &request, 5), PROTO_STATUS_BUSY);

	request.zone = "";
	assert_int_equal(run_register(&script, &request, 5), PROTO_STATUS_INVALID);
	request.zone = "a\nb";
	assert_int_equal(run_register(&script, &request, 5), PROTO_STATUS_INVALID);
	request.zone = "z";
	request.incarnation = 0;
	assert_int_equal(run_register(&script, &request, 5), PROTO_STATUS_INVALID);
	request.incarnation = 1;

	stores[0] = stores[1] = script.nodes[1].stores[0];
	stores[0].uuid = stores[1].uuid = other;
	request.stores = stores;
	request.store_count = 2;
	assert_int_equal(run_register(&script, &request, 5), PROTO_STATUS_INVALID);
	assert_int_equal(cluster_node_count(script.map), 3);
	request.store_count = 1;
	assert_int_equal(run_register(&script, &request, 5), OK);
	script_stop(&script);
}

static void test_stamped_store_is_refused_before_format(void **state)
{
	struct script script;
	struct cluster_register request;

	(void)state;
	script_start(&script);
	(void)script_add_node(&script, "z", 1);
	request = request_of(&script, 1);
	request.uuid = (struct uuid){{4}};
	request.cluster = (struct uuid){{5}};
	request.store_count = 0;
	assert_int_equal(run_register(&script, &request, 5), PROTO_STATUS_WRONG_CLUSTER);
	assert_non_null(strstr(script.result.text, "not formatted"));
	script_stop(&script);
}

static void test_death_hits_one_start_only(void **state)
{
	struct script script;
	uint64_t session;

	(void)state;
	script_start(&script);
	script_format(&script, 3, 3, 8);
	assert_int_equal(script_restart(&script, 3, 0), OK);
	session = cluster_node(script.map, 3)->session;
	/* It ends the wait of those who lead in its place, and nothing else. */
	assert_int_equal(script_run(&script, 1, cluster_command_dead(3, 1)), OK);
	assert_int_equal(script_run(&script, 1, cluster_command_dead(3, 1)),
			 PROTO_STATUS_STALE_SESSION);
	assert_int_equal(cluster_node(script.map, 3)->session, session);
	assert_int_equal(script_run_twice(&script, 1, cluster_command_dead(3, 2)), OK);
	assert_int_equal(cluster_node(script.map, 3)->session, 0);
	assert_null(cluster_node_by_session(script.map, session));
	assert_int_equal(script_run(&script, 1, cluster_command_dead(3, 2)),
			 PROTO_STATUS_STALE_SESSION);
	assert_int_equal(script_run(&script, 1, cluster_command_dead(99, 1)),
			 PROTO_STATUS_NOT_FOUND);
	script_stop(&script);
}

/* What a dead start proposed and what arrives late does nothing. */
static void test_commands_of_an_ended_start_are_void(void **state)
{
	struct script script;
	struct cluster_command *late = cluster_command_volume_create("late", 512, 0, NULL, 0);

	(void)state;
	script_start(&script);
	script_format(&script, 3, 3, 8);
	cluster_command_sign(late, &script.nodes[2].proposer);
	assert_int_equal(script_dead(&script, 1, 2), OK);
	assert_int_equal(script_apply(&script, late->data, late->size), PROTO_STATUS_STALE_SESSION);
	assert_int_equal(script_restart(&script, 2, 0), OK);
	assert_int_equal(script_apply(&script, late->data, late->size), PROTO_STATUS_STALE_SESSION);
	assert_null(cluster_volume_by_name(script.map, "late"));
	cluster_command_free(late);
	script_stop(&script);
}

static void test_each_sequence_number_counts_once_in_any_order(void **state)
{
	struct script script;
	struct cluster_proposer *proposer;
	struct cluster_command *commands[8];
	uint64_t base;

	(void)state;
	script_start(&script);
	script_format(&script, 3, 3, 8);
	proposer = &script.nodes[1].proposer;
	for (unsigned i = 0; i < 8; i++) {
		char name[2] = {(char)('a' + i), 0};

		commands[i] = cluster_command_volume_create(name, 512, 0, NULL, 0);
		cluster_command_sign(commands[i], proposer);
	}
	for (unsigned i = 8; i-- > 0;)
		assert_int_equal(script_apply(&script, commands[i]->data, commands[i]->size), OK);
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(script_apply(&script, commands[i]->data, commands[i]->size),
				 PROTO_STATUS_EXISTS);
		cluster_command_free(commands[i]);
	}
	assert_int_equal(cluster_volume_count(script.map), 8);

	/* A refused one is remembered too: its proposer has told somebody so. */
	commands[0] = cluster_command_volume_delete(99);
	commands[1] = cluster_command_volume_create("z", 512, 0, NULL, 0);
	cluster_command_sign(commands[0], proposer);
	cluster_command_sign(commands[1], proposer);
	assert_int_equal(script_apply(&script, commands[0]->data, commands[0]->size),
			 PROTO_STATUS_NOT_FOUND);
	assert_int_equal(script_apply(&script, commands[0]->data, commands[0]->size),
			 PROTO_STATUS_EXISTS);

	/* One that is a window behind is taken for a repeated one. */
	base = proposer->sequence;
	proposer->sequence += CLUSTER_SEQUENCE_WINDOW - 1;
	assert_int_equal(
		script_run(&script, 1, cluster_command_volume_create("y", 512, 0, NULL, 0)), OK);
	assert_int_equal(script_apply(&script, commands[1]->data, commands[1]->size),
			 PROTO_STATUS_EXISTS);
	proposer->sequence = base;
	assert_int_equal(
		script_run(&script, 1, cluster_command_volume_create("x", 512, 0, NULL, 0)), OK);
	cluster_command_free(commands[0]);
	cluster_command_free(commands[1]);
	script_stop(&script);
}

static void test_a_store_can_move_to_another_node(void **state)
{
	struct script script;
	uint32_t store;

	(void)state;
	script_start(&script);
	script_format(&script, 3, 3, 8);
	store = script_store(&script, 3, 0);
	(void)script_add_node(&script, "new", 0);
	script.nodes[4].stores[0] = script.nodes[3].stores[0];
	script.nodes[4].store_count = 1;
	assert_int_equal(script_restart(&script, 4, 0), PROTO_STATUS_BUSY);
	script.nodes[4].proposer.node = 4;
	assert_int_equal(script_dead(&script, 1, 3), OK);
	assert_int_equal(script_restart(&script, 4, 0), OK);
	assert_int_equal(cluster_store_node(script.map, store), 4);
	assert_true(cluster_store_is_up(script.map, store));
	/* Its old node returns without it. */
	script.nodes[3].store_count = 0;
	assert_int_equal(script_restart(&script, 3, 0), OK);
	assert_int_equal(cluster_store_node(script.map, store), 4);
	assert_true(cluster_store_is_up(script.map, store));
	script_stop(&script);
}

static void test_a_node_returns_without_one_of_its_stores(void **state)
{
	struct script script;
	struct uuid uuid = {{9}};
	uint32_t gone;

	(void)state;
	script_start(&script);
	for (unsigned i = 0; i < 3; i++)
		(void)script_add_node(&script, i ? i == 1 ? "b" : "c" : "a", 2);
	assert_int_equal(script_run(&script, 1, cluster_command_format(&uuid, 3, 2, 16, 0)), OK);
	script_plan(&script, 0);
	gone = script_store(&script, 2, 1);
	script.nodes[2].store_count = 1;
	assert_int_equal(script_restart(&script, 2, 0), OK);
	assert_false(cluster_store_is_up(script.map, gone));
	for (uint32_t i = 0; i < 16; i++)
		assert_null(cluster_pg_seat(script_pg(&script, i), gone));
	script_stop(&script);
}

static void test_leave_is_by_the_node_itself(void **state)
{
	struct script script;

	(void)state;
	script_start(&script);
	script_format(&script, 3, 3, 8);
	assert_int_equal(script_run(&script, 1, cluster_command_leave(2, 1)),
			 PROTO_STATUS_READ_ONLY);
	assert_int_equal(script_run(&script, 2, cluster_command_leave(2, 2)),
			 PROTO_STATUS_STALE_SESSION);
	assert_int_equal(script_run(&script, 2, cluster_command_leave(2, 1)), OK);
	assert_true(cluster_node(script.map, 2)->flags & CLUSTER_NODE_LEFT);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_not_equal(cluster_pg_primary_node(script.map, script_pg(&script, i)), 2);
	script_stop(&script);
}

static void test_remove_forgets_a_node_that_nobody_needs(void **state)
{
	struct script script;
	struct cluster_register request;

	(void)state;
	script_start(&script);
	script_format(&script, 4, 3, 16);
	assert_int_equal(script_run(&script, 1, cluster_command_node_remove(4)), PROTO_STATUS_BUSY);
	assert_int_equal(script_run(&script, 1, cluster_command_node_drain(4)), OK);
	assert_int_equal(script_run(&script, 1, cluster_command_node_drain(4)), OK);
	assert_int_equal(script.result.nodes.count, 0);
	assert_string_equal(cluster_node_status(script.map, cluster_node(script.map, 4)),
			    "draining");
	script_plan(&script, 0);
	script_recover(&script);
	assert_int_equal(script_dead(&script, 1, 4), OK);
	assert_int_equal(script_run_twice(&script, 1, cluster_command_node_remove(4)), OK);
	assert_null(cluster_node(script.map, 4));
	assert_int_equal(cluster_store_count(script.map), 3);
	assert_int_equal(script_run(&script, 1, cluster_command_node_remove(4)),
			 PROTO_STATUS_NOT_FOUND);
	/* It may come back: as a new node, its store as a new store. */
	request = request_of(&script, 4);
	assert_int_equal(run_register(&script, &request, 5), OK);
	assert_int_equal(script.result.id, 5);
	assert_int_equal(script_store(&script, 4, 0), 5);
	script_stop(&script);
}

static void test_remove_refuses_while_the_floor_needs_a_store(void **state)
{
	struct script script;

	(void)state;
	script_start(&script);
	script_format(&script, 3, 3, 8);
	assert_int_equal(script_dead(&script, 1, 2), OK);
	assert_int_equal(script_dead(&script, 1, 3), OK);
	/* Node 2 went first and holds no seat any more; node 3 does. */
	assert_int_equal(script_run(&script, 1, cluster_command_node_remove(3)), PROTO_STATUS_BUSY);
	assert_non_null(strstr(script.result.text, "8 placement groups"));
	assert_int_equal(script_run(&script, 1, cluster_command_node_remove(2)), OK);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(script_pg(&script, i)->target_count, 2);
	script_stop(&script);
}

static void test_failed_store_goes_and_its_next_start_returns(void **state)
{
	struct script script;
	uint32_t store;

	(void)state;
	script_start(&script);
	script_format(&script, 3, 3, 8);
	store = script_store(&script, 2, 0);
	assert_int_equal(script_run(&script, 1, cluster_command_store_failed(store, 1)),
			 PROTO_STATUS_READ_ONLY);
	assert_int_equal(script_run(&script, 2, cluster_command_store_failed(store, 2)),
			 PROTO_STATUS_STALE_SESSION);
	assert_int_equal(script_run_twice(&script, 2, cluster_command_store_failed(store, 1)), OK);
	assert_string_equal(cluster_store_status(script.map, cluster_store(script.map, store)),
			    "failed");
	for (uint32_t i = 0; i < 8; i++)
		assert_null(cluster_pg_seat(script_pg(&script, i), store));
	assert_int_equal(script_restart(&script, 2, LOG_STORE_UNCLEAN), OK);
	assert_true(cluster_store_is_up(script.map, store));
	script_recover(&script);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(cluster_pg_health(script.map, script_pg(&script, i)),
				 CLUSTER_HEALTHY);
	script_stop(&script);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registration_gives_ids_and_a_session),
		cmocka_unit_test(test_registration_twice_by_one_start_is_one),
		cmocka_unit_test(test_late_registration_of_an_older_start_is_void),
		cmocka_unit_test(test_bad_registrations_are_refused),
		cmocka_unit_test(test_stamped_store_is_refused_before_format),
		cmocka_unit_test(test_death_hits_one_start_only),
		cmocka_unit_test(test_commands_of_an_ended_start_are_void),
		cmocka_unit_test(test_each_sequence_number_counts_once_in_any_order),
		cmocka_unit_test(test_a_store_can_move_to_another_node),
		cmocka_unit_test(test_a_node_returns_without_one_of_its_stores),
		cmocka_unit_test(test_leave_is_by_the_node_itself),
		cmocka_unit_test(test_remove_forgets_a_node_that_nobody_needs),
		cmocka_unit_test(test_remove_refuses_while_the_floor_needs_a_store),
		cmocka_unit_test(test_failed_store_goes_and_its_next_start_returns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
