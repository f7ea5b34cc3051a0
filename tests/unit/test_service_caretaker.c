/* What one live node does for all, on the simulated engine. */
#include "tests/unit/service_rig.h"

static struct rig *three(uint64_t seed)
{
	struct rig *rig = rig_new(NULL, seed);

	rig_start_all(rig, 3);
	rig_format(rig, 3);
	rig_run(rig, 500);
	return rig;
}

/* ---- deaths ---- */

static void test_certain_death_of_any_is_in_the_log_at_once(void **state)
{
	for (unsigned victim = 0; victim < 3; victim++) {
		struct rig *rig = three(10 + victim);
		struct rig_node *witness = &rig->nodes[(victim + 1) % 3];
		rig_crash(rig, victim, SIM_DEATH_CERTAIN);
		rig_run(rig, 100);
		assert_false(rig_sees_up(witness, &rig->nodes[victim]));
		assert_true(rig_see(witness, &rig->nodes[victim])->flags & CLUSTER_NODE_DEAD);
		rig_free(rig);
	}
}

static void test_suspicion_is_no_death(void **state)
{
	struct rig *rig = three(20);
	uint64_t start = rig->nodes[2].start;

	rig_crash(rig, 2, SIM_DEATH_UNKNOWN);
	rig_run(rig, 20000);
	assert_true(rig_sees_up(&rig->nodes[0], &rig->nodes[2]));
	sim_log_confirm_death(rig->log, &rig->nodes[2].uuid, start);
	rig_run(rig, 100);
	assert_false(rig_sees_up(&rig->nodes[0], &rig->nodes[2]));
	rig_free(rig);
}

/* The first in line does not act: the next one does. */
static void test_others_report_when_the_first_does_not(void **state)
{
	struct rig *rig = three(30);

	caretaker_stop(rig->nodes[0].caretaker);
	rig_crash(rig, 2, SIM_DEATH_CERTAIN);
	rig_run(rig, 200);
	assert_true(rig_sees_up(&rig->nodes[1], &rig->nodes[2]));
	rig_run(rig, 300);
	assert_false(rig_sees_up(&rig->nodes[1], &rig->nodes[2]));
	rig_free(rig);
}

/* Its registration was on its way when it died, and is committed much later. */
static void die_before_the_registration_appears(struct rig *rig, uint64_t incarnation)
{
	struct rig_node *ghost = &rig->nodes[3];
	struct rig_proposal late;

	ghost->is_mute = true;
	rig_start(rig, 3);
	rig_run(rig, 50);
	/* As it would be signed by the one that dies. */
	const struct cluster_register request = {
		.uuid = ghost->uuid,
		.cluster = *cluster_uuid(state_map(rig->nodes[0].state)),
		.incarnation = incarnation,
		.version_min = 1,
		.version_max = 1,
		.loops = 1,
		.address = "127.0.0.1:7000",
		.zone = "z",
	};
	struct cluster_command *command = cluster_command_register(&request);
	struct cluster_proposer proposer = {.start = ghost->start};
	cluster_command_sign(command, &proposer);
	rig_crash(rig, 3, SIM_DEATH_CERTAIN);
	rig_run(rig, 60000);
	assert_false(rig_sees_up(&rig->nodes[0], ghost));
	assert_int_equal(engine_propose(rig->nodes[1].engine, command->data, command->size), 0);
	cluster_command_free(command);
	rig_run(rig, 100);
	assert_int_equal(rig_see(&rig->nodes[0], ghost)->start, ghost->start);
	assert_false(rig_sees_up(&rig->nodes[0], ghost));
	rig_propose(&rig->nodes[0], &late, cluster_command_setting("recovery_rate", 1), 1000);
	rig_run(rig, 50);
	assert_int_equal(late.status, PROTO_STATUS_OK);
	rig_free(rig);
}

static void test_death_before_the_registration_appears_is_reported(void **state)
{
	die_before_the_registration_appears(three(40), 1);
}

/* An earlier start of it is in the map, and says nothing about this one. */
static void test_death_of_a_second_start_before_it_appears_is_reported(void **state)
{
	struct rig *rig = three(45);

	rig_start(rig, 3);
	rig_run(rig, 300);
	assert_true(rig_sees_up(&rig->nodes[0], &rig->nodes[3]));
	rig_crash(rig, 3, SIM_DEATH_CERTAIN);
	rig_run(rig, 300);
	assert_false(rig_sees_up(&rig->nodes[0], &rig->nodes[3]));
	die_before_the_registration_appears(rig, 2);
}

/* The end of one start says nothing about the next. */
static void test_death_does_not_hit_a_later_start(void **state)
{
	struct rig *rig = three(50);
	uint64_t start = rig->nodes[2].start;

	rig_crash(rig, 2, SIM_DEATH_UNKNOWN);
	rig_start(rig, 2);
	rig_run(rig, 500);
	assert_true(rig_sees_up(&rig->nodes[0], &rig->nodes[2]));
	sim_log_confirm_death(rig->log, &rig->nodes[2].uuid, start);
	rig_run(rig, 5000);
	assert_true(rig_sees_up(&rig->nodes[0], &rig->nodes[2]));
	assert_int_equal(rig_see(&rig->nodes[0], &rig->nodes[2])->start, rig->nodes[2].start);
	rig_free(rig);
}

/* All were killed; the first that comes back learns of the others' ends before it is registered. */
static void test_sheep_that_comes_back_alone_reports_after_it_is_registered(void **state)
{
	struct rig *rig = three(60);

	sim_log_set_quorum(rig->log, false); /* nobody reports anybody */
	for (unsigned i = 0; i < 3; i++)
		rig_crash(rig, i, SIM_DEATH_CERTAIN);
	rig->nodes[1].is_mute = true;
	sim_log_set_quorum(rig->log, true);
	rig_start(rig, 1);
	rig_run(rig, 300);
	uint64_t before = sim_log_count(rig->log);
	rig_run(rig, 5000);
	assert_int_equal(sim_log_count(rig->log), before); /* nothing that the log would refuse */
	rig_register(&rig->nodes[1]);
	rig_run(rig, 100);
	assert_true(rig_sees_up(&rig->nodes[1], &rig->nodes[1]));
	assert_false(rig_sees_up(&rig->nodes[1], &rig->nodes[0]));
	assert_false(rig_sees_up(&rig->nodes[1], &rig->nodes[2]));
	rig_free(rig);
}

static void test_death_is_reported_when_quorum_is_back(void **state)
{
	struct rig *rig = three(70);

	sim_log_set_quorum(rig->log, false);
	rig_crash(rig, 0, SIM_DEATH_CERTAIN);
	rig_run(rig, 60000);
	assert_true(rig_sees_up(&rig->nodes[1], &rig->nodes[0]));
	sim_log_set_quorum(rig->log, true);
	rig_run(rig, 2000);
	assert_false(rig_sees_up(&rig->nodes[1], &rig->nodes[0]));
	rig_free(rig);
}

/* ---- placement ---- */

static unsigned targets(const struct rig_node *node, uint32_t store)
{
	const struct cluster_map *map = state_map(node->state);
	unsigned count = 0;

	for (uint32_t i = 0; i < 16; i++)
		count += cluster_pg_has_target(cluster_pg(map, i), store);
	return count;
}

static void test_new_cluster_gets_its_plan_at_once(void **state)
{
	struct rig *rig = rig_new(NULL, 80);
	struct cluster_summary summary;
	const struct uuid uuid = {{9}};
	struct rig_proposal format;

	rig_start_all(rig, 3);
	rig_propose(&rig->nodes[0], &format, cluster_command_format(&uuid, 3, 2, 16, 0), 1000);
	while (!format.done)
		(void)sim_world_run_until(rig->world, sim_now(rig->world) + NS_PER_MS / 10, NULL,
					  NULL);
	assert_int_equal(format.status, PROTO_STATUS_OK);
	/* Whoever waits for "healthy" from this moment on is not told so too early. */
	cluster_summary(state_map(rig->nodes[0].state), &summary);
	if (!targets(&rig->nodes[0], 1))
		assert_int_not_equal(summary.health, CLUSTER_HEALTHY);
	rig_run(rig, 20);
	assert_int_equal(targets(&rig->nodes[0], 1), 16);
	cluster_summary(state_map(rig->nodes[0].state), &summary);
	assert_int_equal(summary.health, CLUSTER_HEALTHY);
	rig_free(rig);
}

static void test_second_in_line_plans_when_the_first_does_not(void **state)
{
	struct rig *rig = rig_new(NULL, 90);

	rig_start_all(rig, 3);
	caretaker_stop(rig->nodes[0].caretaker);
	rig_format(rig, 3);
	rig_run(rig, 1000);
	assert_int_equal(targets(&rig->nodes[0], 1), 0);
	rig_run(rig, 2000);
	assert_int_equal(targets(&rig->nodes[0], 1), 16);
	rig_free(rig);
}

static void set_down_out(struct rig *rig, uint64_t ms)
{
	struct rig_proposal set;

	rig_propose(&rig->nodes[1], &set, cluster_command_setting("down_out_interval", ms), 1000);
	rig_run(rig, 50);
	assert_int_equal(set.status, PROTO_STATUS_OK);
}

static void test_node_down_for_long_gives_up_its_place(void **state)
{
	struct rig *rig = three(100);

	set_down_out(rig, 10000);
	rig_start(rig, 3);
	rig_run(rig, 1000);
	uint32_t store = rig->nodes[0].number + 1;
	assert_true(targets(&rig->nodes[1], store) > 0);
	rig_crash(rig, 0, SIM_DEATH_CERTAIN);
	unsigned at_first = targets(&rig->nodes[1], store);
	rig_run(rig, 8000);
	assert_int_equal(targets(&rig->nodes[1], store), at_first); /* a reboot moves nothing */
	assert_false(caretaker_is_out(rig->nodes[1].caretaker, 1));
	rig_run(rig, 4000);
	assert_true(caretaker_is_out(rig->nodes[1].caretaker, 1));
	assert_int_equal(targets(&rig->nodes[1], store), 0);
	rig_free(rig);
}

static void test_failed_store_gives_up_its_place_too(void **state)
{
	struct rig *rig = three(110);
	struct rig_proposal failed;

	set_down_out(rig, 10000);
	rig_start(rig, 3);
	rig_run(rig, 1000);
	rig_propose(&rig->nodes[2], &failed,
		    cluster_command_store_failed(3, rig->nodes[2].incarnation), 1000);
	rig_run(rig, 100);
	assert_int_equal(failed.status, PROTO_STATUS_OK);
	rig_run(rig, 8000);
	assert_true(targets(&rig->nodes[1], 3) > 0);
	rig_run(rig, 4000);
	assert_int_equal(targets(&rig->nodes[1], 3), 0);
	rig_free(rig);
}

/* ---- one for all ---- */

/* What is committed while @ms go by. */
static uint64_t committed(struct rig *rig, uint64_t ms)
{
	uint64_t before = sim_log_count(rig->log);

	rig_run(rig, ms);
	return sim_log_count(rig->log) - before;
}

/* A death is one entry and a plan is one, though three look after the cluster: the others see that it was
 * done. */
static void test_only_the_first_in_line_acts(void **state)
{
	struct rig *rig = three(120);

	assert_int_equal(committed(rig, 20000), 0);
	rig_start(rig, 3);
	assert_int_equal(committed(rig, 20000), 2); /* its registration, the plan */
	assert_true(targets(&rig->nodes[1], 4) > 0);
	rig_crash(rig, 2, SIM_DEATH_CERTAIN);
	assert_int_equal(committed(rig, 20000), 1); /* its death: a reboot moves nothing */
	rig_free(rig);
}

/* The first one restarts; meanwhile the second acts, afterwards the first again, and alone. */
static void test_first_in_line_restarts_and_acts_again(void **state)
{
	struct rig *rig = three(130);

	rig_crash(rig, 0, SIM_DEATH_CERTAIN);
	assert_int_equal(committed(rig, 10000), 1);
	rig_start(rig, 3);
	assert_int_equal(committed(rig, 10000), 2);
	rig_start(rig, 0);
	assert_int_equal(committed(rig, 10000), 2); /* what it had moves to the new one, too */
	rig_crash(rig, 3, SIM_DEATH_CERTAIN);
	assert_int_equal(committed(rig, 10000), 1);
	assert_false(rig_sees_up(&rig->nodes[1], &rig->nodes[3]));
	caretaker_stop(rig->nodes[1].caretaker);
	caretaker_stop(rig->nodes[2].caretaker);
	set_down_out(rig, 5000);
	rig_run(rig, 12000);
	assert_int_equal(targets(&rig->nodes[1], 4), 0); /* the first one saw to it */
	rig_free(rig);
}

/* Whoever restarts has not seen since when a node is down: it counts anew, never from too early. */
static void test_time_out_counts_from_the_caretakers_start(void **state)
{
	struct rig *rig = three(140);

	set_down_out(rig, 10000);
	rig_start(rig, 3);
	rig_run(rig, 1000);
	rig_crash(rig, 0, SIM_DEATH_CERTAIN);
	rig_run(rig, 6000);
	for (unsigned i = 1; i < 4; i++)
		rig_crash(rig, i, SIM_DEATH_CERTAIN);
	for (unsigned i = 1; i < 4; i++)
		rig_start(rig, i);
	rig_run(rig, 8000);
	assert_true(targets(&rig->nodes[1], 1) > 0);
	assert_false(caretaker_is_out(rig->nodes[1].caretaker, 1));
	assert_true(caretaker_down_ns(rig->nodes[1].caretaker, 1) < 8001 * NS_PER_MS);
	rig_run(rig, 6000);
	assert_int_equal(targets(&rig->nodes[1], 1), 0);
	rig_free(rig);
}

/* One that has seen a node down for longer acts first; the other does not take it back. */
static void test_two_views_of_who_is_out_come_to_rest(void **state)
{
	struct rig *rig = three(150);

	set_down_out(rig, 10000);
	rig_start(rig, 3);
	rig_run(rig, 1000);
	rig_crash(rig, 2, SIM_DEATH_CERTAIN);
	rig_run(rig, 5000);
	rig_crash(rig, 0, SIM_DEATH_CERTAIN); /* first in line, and knows nothing when it is back */
	rig_start(rig, 0);
	rig_run(rig, 8500);
	assert_false(caretaker_is_out(rig->nodes[0].caretaker, 3));
	assert_true(caretaker_is_out(rig->nodes[1].caretaker, 3));
	assert_int_equal(targets(&rig->nodes[1], 3), 0);
	assert_int_equal(committed(rig, 20000), 0);
	rig_free(rig);
}

static void test_drained_node_gets_nothing_until_it_is_undrained(void **state)
{
	struct rig *rig = three(160);
	struct rig_proposal change;

	rig_start(rig, 3);
	rig_run(rig, 1000);
	rig_propose(&rig->nodes[0], &change, cluster_command_node_drain(2), 1000);
	rig_run(rig, 1000);
	assert_int_equal(change.status, PROTO_STATUS_OK);
	assert_int_equal(targets(&rig->nodes[1], 2), 0);
	assert_int_equal(committed(rig, 10000), 0);
	rig_propose(&rig->nodes[0], &change, cluster_command_node_undrain(2), 1000);
	rig_run(rig, 1000);
	assert_int_equal(change.status, PROTO_STATUS_OK);
	assert_in_range(targets(&rig->nodes[1], 2), 10, 13);
	assert_int_equal(committed(rig, 10000), 0);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_certain_death_of_any_is_in_the_log_at_once),
		cmocka_unit_test(test_suspicion_is_no_death),
		cmocka_unit_test(test_others_report_when_the_first_does_not),
		cmocka_unit_test(test_death_before_the_registration_appears_is_reported),
		cmocka_unit_test(test_death_of_a_second_start_before_it_appears_is_reported),
		cmocka_unit_test(test_death_does_not_hit_a_later_start),
		cmocka_unit_test(test_sheep_that_comes_back_alone_reports_after_it_is_registered),
		cmocka_unit_test(test_death_is_reported_when_quorum_is_back),
		cmocka_unit_test(test_new_cluster_gets_its_plan_at_once),
		cmocka_unit_test(test_second_in_line_plans_when_the_first_does_not),
		cmocka_unit_test(test_node_down_for_long_gives_up_its_place),
		cmocka_unit_test(test_failed_store_gives_up_its_place_too),
		cmocka_unit_test(test_only_the_first_in_line_acts),
		cmocka_unit_test(test_first_in_line_restarts_and_acts_again),
		cmocka_unit_test(test_time_out_counts_from_the_caretakers_start),
		cmocka_unit_test(test_two_views_of_who_is_out_come_to_rest),
		cmocka_unit_test(test_drained_node_gets_nothing_until_it_is_undrained),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
