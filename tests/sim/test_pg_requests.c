/* Requests that come again: what is answered, and when (REPLICATION, Q1, Q2). */
#include "tests/sim/raw.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/size.h"
#include "sheep/cluster/command.h"

static void test_a_repeated_write_is_not_executed_again_by_anybody(void **state)
{
	struct herd *herd = raw_herd(1, 1);
	unsigned first = (unsigned)herd_primary(herd, 0), owner = (first + 1) % 3;
	uint64_t session = raw_session(herd, owner);

	assert_int_equal(raw_write(herd, session, 1, 1, 'w'), 0);
	assert_int_equal(raw_write(herd, session, 2, 1, 'x'), 0);
	/* The same primary. */
	assert_int_equal(raw_write(herd, session, 1, 1, 'w'), 0);
	assert_int_equal(raw_read(herd), 'x');
	/* The next one. */
	herd_kill(herd, first, SIM_DEATH_CERTAIN);
	herd_until(herd, 10000, raw_is_led, "led by another");
	assert_int_equal(raw_write(herd, session, 1, 1, 'w'), 0);
	assert_int_equal(raw_read(herd), 'x');
	/* One that was away when it was executed, and was filled. */
	assert_int_equal(raw_write(herd, session, 3, 1, 'y'), 0);
	assert_int_equal(raw_write(herd, session, 4, 1, 'z'), 0);
	raw_heal(herd);
	for (unsigned i = 0; i < 50 && herd_primary(herd, 0) != (int)first; i++)
		herd_run(herd, 100); /* the target's first leads again */
	assert_int_equal(herd_primary(herd, 0), (int)first);
	herd_until(herd, 10000, raw_is_led, "led again");
	assert_int_equal(raw_write(herd, session, 3, 1, 'y'), 0);
	assert_int_equal(raw_write(herd, session, 1, 1, 'w'), 0);
	assert_int_equal(raw_read(herd), 'z');
	assert_true(HERD_COUNTER(herd, duplicates) >= 3);
	herd_free(herd);
}

static void test_a_late_request_is_refused(void **state)
{
	struct herd *herd = raw_herd(2, 1);
	unsigned owner = (unsigned)(herd_primary(herd, 0) + 1) % 3;
	uint64_t session = raw_session(herd, owner);

	assert_int_equal(raw_write(herd, session, 1, 1, 'w'), 0);
	assert_int_equal(raw_write(herd, session, 2, 2, 'x'), 0); /* 1 was answered */
	assert_int_equal(raw_write(herd, session, 1, 1, 'w'), -E_STALE_SESSION);
	assert_int_equal(raw_read(herd), 'x');
	/* Numbers that cannot be. */
	assert_int_equal(raw_write(herd, session, 0, 0, 'y'), -EINVAL);
	assert_int_equal(raw_write(herd, session, 5, 6, 'y'), -EINVAL);
	assert_int_equal(raw_write(herd, session, 5000, 1, 'y'), -EINVAL);
	/* The session ends with its node. */
	herd_kill(herd, owner, SIM_DEATH_CERTAIN);
	herd_until(herd, 10000, raw_is_led, "led");
	herd_run(herd, 500);
	assert_int_equal(raw_write(herd, session, 3, 3, 'z'), -E_STALE_SESSION);
	assert_int_equal(raw_read(herd), 'x');
	herd_free(herd);
}

static bool has_its_members(struct herd *herd)
{
	struct pg_status status;
	unsigned members = 0;

	for (unsigned i = 0; i < herd->node_count; i++)
		members += herd->nodes[i].is_up &&
			   pg_set_status(herd->nodes[i].set, 0, 0, &status) &&
			   status.role != PG_ROLE_NONE;
	return members == 2 && raw_is_led(herd);
}

/* Nobody tells a store later which gateways ended while it was down (Q2). */
static void test_a_session_that_ended_while_a_store_was_down_is_forgotten_there(void **state)
{
	const struct herd_options options = {.seed = 20,
					     .nodes = 3,
					     .copies = 2,
					     .min_insync = 2,
					     .pg_count = 1,
					     .volume_bytes = 4 * MIB};
	struct herd *herd = herd_new(&options);
	const struct cluster_pg *row = cluster_pg(herd_map(herd), 0);
	unsigned owner = 0, member = 0;

	for (unsigned n = 0; n < 3; n++) {
		if (!cluster_pg_seat(row, herd->nodes[n].store_id))
			owner = n;
		else if ((int)n != herd_primary(herd, 0))
			member = n;
	}
	uint64_t session = raw_session(herd, owner);
	assert_int_equal(raw_write(herd, session, 1, 1, 'w'), 0);
	herd_run(herd, 100);
	assert_int_equal(raw_remembered(herd, member, session), 1);
	herd_kill(herd, member, SIM_DEATH_CERTAIN); /* at the floor: it stays listed */
	herd_run(herd, 500);
	herd_kill(herd, owner, SIM_DEATH_CERTAIN);
	herd_run(herd, 500);
	herd_start(herd, member);
	herd_until(herd, 20000, has_its_members, "in sync again");
	assert_int_equal(raw_remembered(herd, member, session), 0);
	herd_free(herd);
}

/*
 * A write with FUA reaches the heir alone, and its primary dies. The heir settles it: so the other member
 * has it, too, but need not have synced it. Its client, who sends it again, may hear that it is done only
 * when it is synced everywhere. Then the heir's machine is lost, and the other one loses power.
 */
static void test_a_repeated_write_with_fua_is_synced_before_it_is_answered(void **state)
{
	unsigned hits = 0;

	for (unsigned seed = 30; seed < 34; seed++) {
		struct herd *herd = raw_herd(seed, 1);
		const struct cluster_pg *row = cluster_pg(herd_map(herd), 0);
		unsigned first = (unsigned)herd_primary(herd, 0), heir = 3, other = 3;

		for (uint32_t i = 0; i < row->target_count; i++)
			for (unsigned n = 0; n < 3; n++)
				if (herd->nodes[n].store_id == row->target[i] && n != first)
					*(heir == 3 ? &heir : &other) = n;
		uint64_t session = raw_session(herd, other);
		assert_int_equal(raw_write(herd, session, 1, 1, 'v'), 0);
		herd_run(herd, 200); /* commit points are told */
		sim_link_set_delay(herd->nodes[first].host, herd->nodes[other].host, 50 * NS_PER_MS,
				   50 * NS_PER_MS);
		struct raw *lost = raw_begin(herd, PG_IO_WRITE, session, 2, 2, 'w');
		lost->io.flags = PG_IO_FUA;
		herd_run(herd, 5);
		herd_kill(herd, first, SIM_DEATH_CERTAIN);
		herd_bury(lost);
		herd_until(herd, 10000, raw_is_led, "led by the heir");
		if (herd_primary(herd, 0) == (int)heir && raw_read(herd) == 'w') {
			struct raw *again = raw_begin(herd, PG_IO_WRITE, session, 2, 2, 'w');
			again->io.flags = PG_IO_FUA;
			assert_int_equal(raw_await(herd, again), 0);
			raw_free(again);
			hits++;
			herd_cut_power(herd, other, SIM_DEATH_CERTAIN, SIM_DROP_UNSYNCED);
			herd_cut_power(herd, heir, SIM_DEATH_CERTAIN, SIM_DROP_UNSYNCED);
			herd_start(herd, other);
			herd_until(herd, 200000, raw_is_led, "led by the one that is left");
			assert_int_equal(raw_read(herd), 'w');
		}
		herd_free(herd);
	}
	assert_true(hits > 0);
}

static int clear_object(struct herd *herd, uint64_t session, uint64_t number, uint32_t flags)
{
	struct raw *raw = raw_begin(herd, PG_IO_ZERO, session, number, number, 0);
	int result;

	raw->io.length = OBJECT_SIZE;
	raw->io.flags = flags;
	result = raw_await(herd, raw);
	free(raw);
	return result;
}

/* Zeroes where zeroes are already change nothing, but with FUA they are to stay. */
static void test_zeroes_with_fua_over_zeroes_are_synced_before_they_are_answered(void **state)
{
	struct herd *herd = raw_herd(40, 1);
	uint64_t session = raw_session(herd, 0);

	struct raw *raw = raw_begin(herd, PG_IO_WRITE, session, 2, 2, 'w');
	raw->io.flags = PG_IO_FUA;
	assert_int_equal(raw_await(herd, raw), 0);
	raw_free(raw);
	assert_int_equal(clear_object(herd, session, 3, 0), 0);
	assert_int_equal(clear_object(herd, session, 4, PG_IO_FUA), 0);
	for (unsigned i = 0; i < 3; i++)
		herd_cut_power(herd, i, SIM_DEATH_CERTAIN, SIM_DROP_UNSYNCED);
	for (unsigned i = 0; i < 3; i++)
		herd_start(herd, i);
	herd_until(herd, 10000, raw_is_led, "led again");
	assert_int_equal(raw_read(herd), 0);
	herd_free(herd);
}

static void pause_recovery(struct herd *herd, uint64_t value)
{
	for (unsigned i = 0;
	     i < 50 && cluster_setting(herd_map(herd), CLUSTER_SETTING_RECOVERY_PAUSED) != value;
	     i++) {
		herd_propose(herd, cluster_command_setting("recovery_paused", value));
		herd_run(herd, 100);
	}
}

/*
 * A store that is being filled is sent a write with FUA, and falls silent. The write does not need it, and
 * when it is given up nothing else may happen in this PG that would let the write end.
 */
static void test_fua_does_not_wait_for_ever_for_a_store_that_was_being_filled(void **state)
{
	struct herd *herd = raw_herd(50, 1);
	unsigned first = (unsigned)herd_primary(herd, 0), filled = (first + 1) % 3;
	uint64_t session = raw_session(herd, (first + 2) % 3);

	assert_int_equal(raw_write(herd, session, 1, 1, 'v'), 0);
	herd_kill(herd, filled, SIM_DEATH_CERTAIN);
	herd_run(herd, 500);
	pause_recovery(herd, 1);
	assert_int_equal(herd_write(herd, (first + 2) % 3, OBJECT_SIZE, 4096),
			 0); /* it lacks this */
	herd_start(herd, filled);
	herd_run(herd, 1000);
	assert_int_equal(herd_primary(herd, 0), (int)first);
	sim_partition(herd->nodes[first].host, herd->nodes[filled].host);
	struct raw *raw = raw_begin(herd, PG_IO_WRITE, session, 2, 2, 'w');
	raw->io.flags = PG_IO_FUA;
	int result = raw_await(herd, raw);
	while (result == -E_NOT_PRIMARY) { /* as its gateway would */
		raw_free(raw);
		raw = raw_begin(herd, PG_IO_WRITE, session, 2, 2, 'w');
		raw->io.flags = PG_IO_FUA;
		result = raw_await(herd, raw);
		HERD_REQUIRE(herd, sim_now(herd->world) < 1030 * NS_PER_S);
	}
	assert_int_equal(result, 0);
	raw_free(raw);
	sim_unpartition(herd->nodes[first].host, herd->nodes[filled].host);
	pause_recovery(herd, 0);
	raw_heal(herd);
	assert_int_equal(raw_read(herd), 'w');
	herd_free(herd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_repeated_write_is_not_executed_again_by_anybody),
		cmocka_unit_test(test_a_late_request_is_refused),
		cmocka_unit_test(
			test_a_session_that_ended_while_a_store_was_down_is_forgotten_there),
		cmocka_unit_test(test_a_repeated_write_with_fua_is_synced_before_it_is_answered),
		cmocka_unit_test(
			test_zeroes_with_fua_over_zeroes_are_synced_before_they_are_answered),
		cmocka_unit_test(test_fua_does_not_wait_for_ever_for_a_store_that_was_being_filled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
