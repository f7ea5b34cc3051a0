/*
 * No memory, or no space, at the wrong moment: calls of a store that fail once in a while, proposals
 * that are never made. The linker wraps them.
 */
#include "tests/sim/herd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/base/size.h"
#include "sheep/cluster/command.h"

static unsigned failures_left, failures;

int __real_store_set_requests(struct store *store, uint32_t pg,
			      const struct store_request *requests, uint32_t count);
int __wrap_store_set_requests(struct store *store, uint32_t pg,
			      const struct store_request *requests, uint32_t count);

int __wrap_store_set_requests(struct store *store, uint32_t pg,
			      const struct store_request *requests, uint32_t count)
{
	if (count > 0 && failures_left > 0) {
		failures_left--;
		failures++;
		return -ENOMEM;
	}
	return __real_store_set_requests(store, pg, requests, count);
}

static unsigned full_left;
static struct store *full_store;

int __real_store_append(struct store *store, struct store_append *append);
int __wrap_store_append(struct store *store, struct store_append *append);

int __wrap_store_append(struct store *store, struct store_append *append)
{
	if (store == full_store && full_left > 0) {
		full_left--;
		return -ENOSPC;
	}
	return __real_store_append(store, append);
}

static bool loses_hand_overs;
static unsigned hand_overs_lost;

struct cluster_command *__real_cluster_command_pg_primary(uint32_t pg, uint64_t epoch,
							  uint32_t store);
struct cluster_command *__wrap_cluster_command_pg_primary(uint32_t pg, uint64_t epoch,
							  uint32_t store);

struct cluster_command *__wrap_cluster_command_pg_primary(uint32_t pg, uint64_t epoch,
							  uint32_t store)
{
	hand_overs_lost += loses_hand_overs;
	return loses_hand_overs ? NULL : __real_cluster_command_pg_primary(pg, epoch, store);
}

static bool two_serve(struct herd *herd)
{
	struct cluster_summary summary;

	cluster_summary(herd_map(herd), &summary);
	return summary.pgs_active == summary.pgs_total && summary.nodes_up == 2;
}

/* A store that is filled gets the table of requests, or it is not in sync (Q1). */
static void test_a_store_that_did_not_take_the_requests_is_not_in_sync(void **state)
{
	const struct herd_options options = {
		.seed = 1, .nodes = 3, .copies = 3, .pg_count = 1, .volume_bytes = 8 * MIB};
	struct herd *herd = herd_new(&options);
	unsigned primary = (unsigned)herd_primary(herd, 0), away = (primary + 1) % 3;
	unsigned other = (primary + 2) % 3;
	struct store_request ours[64], theirs[64];

	herd_kill(herd, away, SIM_DEATH_CERTAIN);
	herd_until(herd, 5000, two_serve, "two nodes serve");
	for (uint64_t at = 0; at < 8 * MIB; at += 512 * KIB)
		assert_int_equal(herd_write(herd, at % (1 * MIB) ? primary : other, at, 4096), 0);
	failures = 0;
	failures_left = 3;
	herd_start(herd, away);
	herd_until(herd, 60000, herd_is_healthy, "healthy");
	assert_int_equal(failures, 3);
	uint32_t count = store_requests(herd->nodes[other].store, 0, ours, ARRAY_COUNT(ours));
	assert_true(count > 0 && count < ARRAY_COUNT(ours));
	assert_int_equal(store_requests(herd->nodes[away].store, 0, theirs, ARRAY_COUNT(theirs)),
			 count);
	herd_reopen(herd);
	herd_check(herd);
	herd_free(herd);
}

/* A member has less space than it said, for a moment. Nobody can spare it: the entry goes again. */
static void test_an_entry_that_a_member_had_no_space_for_goes_again(void **state)
{
	const struct herd_options options = {.seed = 2,
					     .nodes = 2,
					     .copies = 2,
					     .min_insync = 2,
					     .pg_count = 1,
					     .volume_bytes = 8 * MIB};
	struct herd *herd = herd_new(&options);
	unsigned primary = (unsigned)herd_primary(herd, 0);

	assert_int_equal(herd_write(herd, primary, 0, 8192), 0);
	full_store = herd->nodes[!primary].store;
	full_left = 3;
	for (uint64_t at = 0; at < 8 * MIB; at += MIB)
		assert_int_equal(herd_write(herd, primary, at, 8192), 0);
	assert_int_equal(full_left, 0);
	full_store = NULL;
	assert_int_equal(cluster_pg_in_sync(cluster_pg(herd_map(herd), 0)), 2);
	assert_int_equal(HERD_COUNTER(herd, shrinks), 0);
	herd_check(herd);
	herd_free(herd);
}

static void retarget(struct herd *herd, uint32_t a, uint32_t b, uint32_t c)
{
	const struct log_retarget_row row = {
		.pg = to_le32(0),
		.count = to_le32(3),
		.target_index = to_le64(cluster_pg(herd_map(herd), 0)->target_index),
		.stores = {to_le32(a), to_le32(b), to_le32(c)},
	};

	for (unsigned i = 0; i < 5; i++) { /* some are lost */
		herd_propose(herd, cluster_command_retarget(&row, 1));
		herd_run(herd, 10);
	}
}

/* Another store is to lead; that is proposed in vain, and then it is not to lead any more. */
static void test_a_hand_over_that_was_lost_and_is_not_wanted_any_more_ends(void **state)
{
	const struct herd_options options = {
		.seed = 3, .nodes = 3, .copies = 3, .pg_count = 1, .volume_bytes = 8 * MIB};
	struct herd *herd = herd_new(&options);
	struct cluster_pg row = *cluster_pg(herd_map(herd), 0);

	assert_int_equal(herd_write(herd, 0, 0, 8192), 0);
	loses_hand_overs = true;
	hand_overs_lost = 0;
	retarget(herd, row.target[1], row.target[0], row.target[2]);
	herd_run(herd, 300);
	assert_true(hand_overs_lost > 0);
	retarget(herd, row.target[0], row.target[1], row.target[2]);
	uint64_t began = sim_now(herd->world);
	assert_int_equal(herd_write(herd, 0, 4096, 8192), 0);
	assert_true(sim_now(herd->world) - began < 5 * NS_PER_S);
	/* And once more: a hand-over of before must not be taken for one of now. */
	retarget(herd, row.target[1], row.target[0], row.target[2]);
	herd_run(herd, 300);
	retarget(herd, row.target[0], row.target[1], row.target[2]);
	assert_int_equal(herd_write(herd, 0, 4096, 8192), 0);
	assert_int_equal(cluster_pg(herd_map(herd), 0)->primary, row.primary);
	loses_hand_overs = false;
	herd_check(herd);
	herd_free(herd);
}

static bool is_led_by(void *context)
{
	struct herd *herd = context;
	const struct cluster_pg *row = cluster_pg(herd_map(herd), 0);

	return row->primary == row->target[0];
}

/* The log has no quorum, say: clients do not wait until it has. */
static void test_a_hand_over_that_is_not_decided_does_not_stop_clients(void **state)
{
	const struct herd_options options = {
		.seed = 4, .nodes = 3, .copies = 3, .pg_count = 1, .volume_bytes = 8 * MIB};
	struct herd *herd = herd_new(&options);
	const struct cluster_pg row = *cluster_pg(herd_map(herd), 0);
	unsigned before;

	assert_int_equal(herd_write(herd, 0, 0, 8192), 0);
	loses_hand_overs = true;
	hand_overs_lost = 0;
	retarget(herd, row.target[1], row.target[0], row.target[2]);
	herd_run(herd, 300);
	assert_true(hand_overs_lost > 0);
	for (unsigned i = 0; i < 20; i++) {
		uint64_t began = sim_now(herd->world);
		assert_int_equal(herd_write(herd, 0, 4096, 8192), 0);
		assert_true(sim_now(herd->world) - began < 2 * NS_PER_S);
		if (i == 0)
			before = hand_overs_lost;
		herd_run(herd, 500);
	}
	assert_int_equal(hand_overs_lost, before); /* nor do they wait again and again */
	assert_int_equal(cluster_pg(herd_map(herd), 0)->primary, row.primary);
	loses_hand_overs = false;
	herd_propose(herd, cluster_command_setting("recovery_paused", 0)); /* the log goes on */
	herd_until_so(herd, 5000, is_led_by, herd, "led by the first of its target");
	assert_int_equal(herd_write(herd, 0, 4096, 8192), 0);
	herd_check(herd);
	herd_free(herd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_store_that_did_not_take_the_requests_is_not_in_sync),
		cmocka_unit_test(test_an_entry_that_a_member_had_no_space_for_goes_again),
		cmocka_unit_test(test_a_hand_over_that_was_lost_and_is_not_wanted_any_more_ends),
		cmocka_unit_test(test_a_hand_over_that_is_not_decided_does_not_stop_clients),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
