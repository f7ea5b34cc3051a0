/* The state of the cluster and our proposals, on the simulated engine. */
#include "tests/unit/service_rig.h"

/* ---- running out of memory: cluster_apply() is wrapped by the linker ---- */

static bool has_no_memory;

struct cluster_map *__real_cluster_apply(const struct cluster_map *map, uint64_t index,
					 const void *command, size_t size,
					 struct cluster_result *result);
struct cluster_map *__wrap_cluster_apply(const struct cluster_map *map, uint64_t index,
					 const void *command, size_t size,
					 struct cluster_result *result);

struct cluster_map *__wrap_cluster_apply(const struct cluster_map *map, uint64_t index,
					 const void *command, size_t size,
					 struct cluster_result *result)
{
	if (!has_no_memory)
		return __real_cluster_apply(map, index, command, size, result);
	memset(result, 0, sizeof(*result));
	return NULL;
}

/* ---- what comes back ---- */

static void test_proposal_is_answered_with_the_map_changed(void **state)
{
	struct rig *rig = rig_new(NULL, 1);
	struct rig_proposal create, again;

	rig_start_all(rig, 2);
	rig_format(rig, 2);
	rig_propose(&rig->nodes[1], &create, cluster_command_volume_create("disk", GIB, 0, NULL, 0),
		    1000);
	rig_run(rig, 50);
	assert_int_equal(create.done, 1);
	assert_int_equal(create.status, PROTO_STATUS_OK);
	assert_non_null(cluster_volume(state_map(rig->nodes[1].state), create.id));
	rig_propose(&rig->nodes[0], &again, cluster_command_volume_create("disk", GIB, 0, NULL, 0),
		    1000);
	rig_run(rig, 50);
	assert_int_equal(again.done, 1);
	assert_int_equal(again.status, PROTO_STATUS_EXISTS);
	assert_string_not_equal(again.text, "");
	rig_free(rig);
}

/* Each exactly once, none taken for a repetition, whatever gets lost or doubled on the way. */
static void storm(uint64_t seed, uint32_t loss_ppm, uint32_t repeat_ppm)
{
	enum { COUNT = 3000 };
	static struct rig_proposal proposals[COUNT];
	const struct sim_log_options options = {
		.seed = seed,
		.delay_min_ns = NS_PER_MS,
		.delay_max_ns = 3 * NS_PER_MS,
		.loss_ppm = loss_ppm,
		.repeat_ppm = repeat_ppm,
		.skip_ppm = 50000,
	};
	struct rig *rig = rig_new(&options, seed);
	unsigned done = 0;

	rig_start_all(rig, 2);
	rig_format(rig, 2);
	for (unsigned i = 0; i < COUNT; i++)
		rig_propose(&rig->nodes[i % 2], &proposals[i],
			    cluster_command_setting("recovery_rate", i), 600000);
	for (unsigned turns = 0; turns < 6000 && done < COUNT; turns++) {
		rig_run(rig, 100);
		done = 0;
		for (unsigned i = 0; i < COUNT; i++)
			done += proposals[i].done == 1;
	}
	assert_int_equal(done, COUNT);
	for (unsigned i = 0; i < COUNT; i++) {
		assert_int_equal(proposals[i].done, 1);
		if (proposals[i].status != PROTO_STATUS_OK)
			fail_msg("%u: %d: %s", i, proposals[i].status, proposals[i].text);
	}
	rig_free(rig);
}

static void test_storm_over_a_good_engine_is_decided(void **state)
{
	storm(1, 0, 0);
}

static void test_lost_proposals_are_repeated_within_the_window(void **state)
{
	for (uint64_t seed = 1; seed <= 3; seed++)
		storm(seed, 300000, 0);
}

static void test_repeated_proposals_are_answered_once(void **state)
{
	storm(4, 100000, 500000);
}

static void test_no_memory_for_a_command_is_told_later(void **state)
{
	struct rig *rig = rig_new(NULL, 1);
	struct rig_proposal none;

	rig_start_all(rig, 1);
	rig_propose(&rig->nodes[0], &none, NULL, 1000);
	rig_run(rig, 1);
	assert_int_equal(none.done, 1);
	assert_int_equal(none.status, PROTO_STATUS_NO_MEMORY);
	rig_free(rig);
}

/* ---- without quorum ---- */

static void test_without_quorum_the_deadline_ends_the_waiting(void **state)
{
	struct rig *rig = rig_new(NULL, 2);
	struct rig_proposal create, later;

	rig_start_all(rig, 2);
	rig_format(rig, 2);
	sim_log_set_quorum(rig->log, false);
	rig_run(rig, 100);
	assert_false(state_has_quorum(rig->nodes[0].state));
	rig_propose(&rig->nodes[0], &create, cluster_command_volume_create("disk", GIB, 0, NULL, 0),
		    2000);
	rig_propose(&rig->nodes[0], &later, cluster_command_volume_create("other", GIB, 0, NULL, 0),
		    60000);
	rig_run(rig, 1900);
	assert_int_equal(create.done, 0);
	rig_run(rig, 600);
	assert_int_equal(create.done, 1);
	assert_int_equal(create.status, PROTO_STATUS_NO_QUORUM);
	sim_log_set_quorum(rig->log, true);
	rig_run(rig, 2000);
	assert_int_equal(create.done, 1);
	assert_int_equal(later.done, 1);
	assert_int_equal(later.status, PROTO_STATUS_OK);
	rig_free(rig);
}

/* The engine keeps what it is given: repetitions would be all that it commits when it has quorum again. */
static void test_without_quorum_nothing_piles_up_in_the_engine(void **state)
{
	struct rig *rig = rig_new(NULL, 4);
	struct state *first;
	struct rig_proposal create;
	uint64_t before;

	rig_start_all(rig, 2);
	rig_format(rig, 2);
	first = rig->nodes[0].state;
	sim_log_set_quorum(rig->log, false);
	rig_run(rig, 100);
	before = cluster_index(state_map(first));
	rig_propose(&rig->nodes[0], &create, cluster_command_volume_create("disk", GIB, 0, NULL, 0),
		    60000);
	for (unsigned i = 0; i < 20; i++) {
		state_propose(first, cluster_command_volume_create("nobody's", GIB, 0, NULL, 0),
			      NULL, UINT64_MAX);
		rig_run(rig, 500);
	}
	assert_int_equal(create.done, 0);
	sim_log_set_quorum(rig->log, true);
	rig_run(rig, 5000);
	assert_int_equal(create.done, 1);
	assert_int_equal(create.status, PROTO_STATUS_OK);
	/* Placement may have moved, too. */
	assert_in_range(cluster_index(state_map(first)), before + 1, before + 4);
	rig_free(rig);
}

static void test_registration_waits_for_quorum(void **state)
{
	struct rig *rig = rig_new(NULL, 3);

	rig_start_all(rig, 1);
	sim_log_set_quorum(rig->log, false);
	rig_start(rig, 1);
	rig_run(rig, 120000);
	assert_int_equal(rig->nodes[1].registered, 0);
	sim_log_set_quorum(rig->log, true);
	rig_run(rig, 2000);
	assert_int_equal(rig->nodes[1].registered, 1);
	assert_int_equal(rig->nodes[1].registered_status, PROTO_STATUS_OK);
	assert_true(rig_sees_up(&rig->nodes[0], &rig->nodes[1]));
	rig_free(rig);
}

/* ---- the end ---- */

static void test_leaving_ends_what_is_pending(void **state)
{
	struct rig *rig = rig_new(NULL, 4);
	static struct rig_proposal proposals[600];
	struct rig_proposal late;

	rig_start_all(rig, 1);
	for (unsigned i = 0; i < 600; i++) /* undecided and queued */
		rig_propose(&rig->nodes[0], &proposals[i],
			    cluster_command_setting("recovery_rate", i), 5000);
	caretaker_stop(rig->nodes[0].caretaker);
	state_leave(rig->nodes[0].state);
	for (unsigned i = 0; i < 600; i++) {
		assert_int_equal(proposals[i].done, 1);
		assert_int_equal(proposals[i].status, PROTO_STATUS_SHUTDOWN);
	}
	rig_propose(&rig->nodes[0], &late, cluster_command_shutdown(), 5000);
	rig_run(rig, 100);
	assert_int_equal(late.done, 1);
	assert_int_equal(late.status, PROTO_STATUS_SHUTDOWN);
	assert_true(rig->nodes[0].has_left);
	caretaker_free(rig->nodes[0].caretaker);
	state_free(rig->nodes[0].state);
	rig->nodes[0].state = NULL;
	rig_free(rig);
}

static void test_failure_of_the_engine_is_told(void **state)
{
	struct rig *rig = rig_new(NULL, 5);
	struct rig_proposal create;

	rig_start_all(rig, 1);
	sim_engine_fail(rig->nodes[0].engine, "its disk is gone");
	rig_run(rig, 10);
	assert_true(rig->nodes[0].has_failed);
	rig_propose(&rig->nodes[0], &create, cluster_command_shutdown(), 1000);
	rig_run(rig, 2000);
	assert_int_equal(create.done, 1);
	assert_true(create.status == PROTO_STATUS_TIMED_OUT ||
		    create.status == PROTO_STATUS_NO_QUORUM);
	rig_free(rig);
}

/* ---- images ---- */

static struct sim_log_options compacting(uint64_t seed)
{
	return (struct sim_log_options){.seed = seed,
					.delay_min_ns = NS_PER_MS,
					.delay_max_ns = 2 * NS_PER_MS,
					.compact_entries = 20};
}

static void test_node_that_lags_gets_an_image_and_is_equal(void **state)
{
	const struct sim_log_options options = compacting(6);
	struct rig *rig = rig_new(&options, 6);
	struct rig_proposal proposal;
	uint64_t digests[2];

	rig_start_all(rig, 2);
	rig_format(rig, 2);
	sim_engine_set_cut(rig->nodes[1].engine, true);
	for (unsigned i = 0; i < 100; i++) {
		rig_propose(&rig->nodes[0], &proposal, cluster_command_setting("recovery_rate", i),
			    1000);
		rig_run(rig, 10);
	}
	sim_engine_set_cut(rig->nodes[1].engine, false);
	rig_run(rig, 3000);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(cluster_digest(state_map(rig->nodes[i].state), &digests[i]), 0);
	assert_int_equal(digests[0], digests[1]);
	rig_free(rig);
}

/*
 * The command was applied, but only the image knows how it went. Its repetition is refused as "exists",
 * which here does not mean that the volume was there before.
 */
static void test_outcome_hidden_by_an_image_is_not_guessed(void **state)
{
	const struct sim_log_options options = compacting(7);
	struct rig *rig = rig_new(&options, 7);
	struct rig_proposal create, other;

	rig_start_all(rig, 2);
	rig_format(rig, 2);
	rig_propose(&rig->nodes[1], &create, cluster_command_volume_create("disk", GIB, 0, NULL, 0),
		    60000);
	/* It is on its way when we no longer hear. */
	for (unsigned i = 0;
	     i < 100 && !cluster_volume_by_name(state_map(rig->nodes[0].state), "disk") &&
	     !create.done;
	     i++)
		(void)sim_world_run_until(rig->world, sim_now(rig->world) + NS_PER_MS / 20, NULL,
					  NULL);
	if (create.done) { /* ours was told first: nothing to show with this seed */
		rig_free(rig);
		fail_msg("another seed is needed");
	}
	sim_engine_set_cut(rig->nodes[1].engine, true);
	for (unsigned i = 0; i < 100; i++) {
		rig_propose(&rig->nodes[0], &other, cluster_command_setting("recovery_rate", i),
			    1000);
		rig_run(rig, 10);
	}
	sim_engine_set_cut(rig->nodes[1].engine, false);
	rig_run(rig, 3000);
	assert_int_equal(create.done, 1);
	assert_int_equal(create.status, PROTO_STATUS_TIMED_OUT);
	assert_non_null(cluster_volume_by_name(state_map(rig->nodes[1].state), "disk"));
	rig_free(rig);
}

/* A map without one of the commands must neither be used nor be given to others. */
static void test_map_that_misses_a_command_is_not_handed_on(void **state)
{
	const struct sim_log_options options = compacting(8);
	struct rig *rig = rig_new(&options, 8);
	static struct rig_proposal proposals[61];
	uint64_t before;

	rig_start_all(rig, 1);
	rig_format(rig, 1);
	before = cluster_index(state_map(rig->nodes[0].state));
	has_no_memory = true;
	rig_propose(&rig->nodes[0], &proposals[60], cluster_command_setting("recovery_rate", 1),
		    100);
	rig_run(rig, 50);
	has_no_memory = false;
	assert_true(rig->nodes[0].has_failed);
	for (unsigned i = 0; i < 60; i++) {
		rig_propose(&rig->nodes[0], &proposals[i],
			    cluster_command_setting("recovery_rate", 2 + i), 1000);
		rig_run(rig, 1000);
	}
	assert_int_equal(cluster_index(state_map(rig->nodes[0].state)), before);
	/* Whoever comes has all of it. */
	rig_start(rig, 1);
	rig_run(rig, 3000);
	assert_int_equal(rig->nodes[1].registered_status, PROTO_STATUS_OK);
	assert_true(cluster_setting(state_map(rig->nodes[1].state), CLUSTER_SETTING_RECOVERY_RATE) >
		    1);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_proposal_is_answered_with_the_map_changed),
		cmocka_unit_test(test_storm_over_a_good_engine_is_decided),
		cmocka_unit_test(test_lost_proposals_are_repeated_within_the_window),
		cmocka_unit_test(test_repeated_proposals_are_answered_once),
		cmocka_unit_test(test_no_memory_for_a_command_is_told_later),
		cmocka_unit_test(test_without_quorum_the_deadline_ends_the_waiting),
		cmocka_unit_test(test_without_quorum_nothing_piles_up_in_the_engine),
		cmocka_unit_test(test_registration_waits_for_quorum),
		cmocka_unit_test(test_leaving_ends_what_is_pending),
		cmocka_unit_test(test_failure_of_the_engine_is_told),
		cmocka_unit_test(test_node_that_lags_gets_an_image_and_is_equal),
		cmocka_unit_test(test_outcome_hidden_by_an_image_is_not_guessed),
		cmocka_unit_test(test_map_that_misses_a_command_is_not_handed_on),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
