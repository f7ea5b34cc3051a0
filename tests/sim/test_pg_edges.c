/*
 * The seams between what a seat is and what it was: locks that are granted while a lead ends, joins
 * that end under a push, proposals that nobody wants any more. Each of these histories was a bug.
 */
#include "tests/sim/herd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/size.h"
#include "sheep/cluster/command.h"
#include "tests/sim/herd_priv.h"

static struct herd *make(uint64_t seed, unsigned nodes, uint32_t copies, uint32_t min_insync)
{
	const struct herd_options options = {.seed = seed,
					     .nodes = nodes,
					     .copies = copies,
					     .min_insync = min_insync,
					     .pg_count = 1,
					     .volume_bytes = 32 * MIB};

	return herd_new(&options);
}

static void run_us(struct herd *herd, uint64_t us)
{
	(void)sim_world_run_until(herd->world, sim_now(herd->world) + us * NS_PER_US, NULL, NULL);
}

static unsigned node_of(struct herd *herd, uint32_t store)
{
	for (unsigned i = 0; i < herd->node_count; i++)
		if (herd->nodes[i].store_id == store)
			return i;
	fail_msg("seed %llu: store %u is nobody's", (unsigned long long)herd->options.seed, store);
	return 0;
}

static const struct cluster_pg *row_of(struct herd *herd)
{
	return cluster_pg(herd_map(herd), 0);
}

static bool has_state(struct herd *herd, unsigned node, const char *name)
{
	struct pg_status status;

	return pg_set_status(herd->nodes[node].set, 0, 0, &status) &&
	       strcmp(status.state, name) == 0;
}

static void heal(struct herd *herd)
{
	for (unsigned i = 0; i < herd->node_count; i++)
		if (!herd->nodes[i].is_up)
			herd_start(herd, i);
	herd_until(herd, 60000, herd_is_healthy, "healthy");
	herd_reopen(herd);
}

static void heal_and_check(struct herd *herd)
{
	heal(herd);
	herd_load_stop(herd);
	herd_check(herd);
	herd_free(herd);
}

/* ---- the end of a lead ---- */

/*
 * A write waits for the lock of an object that is being settled, when another store is made primary.
 * The lock is given back then; the write must not become an entry of the reign that is over.
 */
static void test_a_write_that_waited_for_a_lock_is_no_entry_of_a_reign_that_is_over(void **state)
{
	unsigned hits = 0;

	for (unsigned seed = 1; seed < 4; seed++) {
		struct herd *herd = make(seed, 3, 3, 1);
		unsigned x = (unsigned)herd_primary(herd, 0);
		unsigned p = node_of(herd, row_of(herd)->target[1]);
		unsigned b = node_of(herd, row_of(herd)->target[2]);
		struct store_pg_info before, after;

		assert_int_equal(herd_write(herd, p, 0, 64 * KIB), 0);
		sim_link_set_delay(herd->nodes[x].host, herd->nodes[b].host, 50 * NS_PER_MS,
				   50 * NS_PER_MS);
		herd_write_begin(herd, x, 0, 8 * KIB);
		herd_run(herd, 5);
		herd_kill(herd, x, SIM_DEATH_CERTAIN);
		for (unsigned i = 0; i < 40000 && !has_state(herd, p, "serving"); i++)
			run_us(herd, 50);
		if (!has_state(herd, p, "serving")) { /* the other one leads */
			heal_and_check(herd);
			continue;
		}
		sim_partition(herd->nodes[p].host, herd->nodes[b].host);
		herd_write_begin(herd, p, 0, 8 * KIB); /* behind the settle */
		herd_run(herd, 5);
		store_pg_info(herd->nodes[p].store, 0, &before);
		for (unsigned i = 0; i < 400 && !has_state(herd, p, "member"); i++) {
			const struct cluster_takeover row = {.store = herd->nodes[b].store_id,
							     .epoch = row_of(herd)->epoch};
			if (i % 10 == 0)
				herd_propose_by(&herd->nodes[b],
						cluster_command_pg_takeover(&row, 1));
			herd_run(herd, 1);
		}
		assert_true(has_state(herd, p, "member"));
		store_pg_info(herd->nodes[p].store, 0, &after);
		assert_true(before.tail_count > 0);
		assert_int_equal(after.last.reign, before.last.reign);
		assert_int_equal(after.last.n, before.last.n);
		hits++;
		sim_unpartition(herd->nodes[p].host, herd->nodes[b].host);
		heal_and_check(herd);
	}
	assert_true(hits > 0);
}

/* ---- the end of a join ---- */

static bool is_filled(struct herd *herd)
{
	return HERD_COUNTER(herd, objects_compared) > 0;
}

/*
 * Its pushes hold locks that clients' writes wait for. The join ends: by itself, or because the store
 * starts again. The writes go on, and must not ask what the store wants.
 */
static void test_writes_go_on_when_the_join_ends_that_held_their_locks(void **state)
{
	for (unsigned point = 0; point < 12; point++) {
		struct herd *herd = make(30 + point, 3, 3, 2);
		unsigned p = (unsigned)herd_primary(herd, 0), b = (p + 1) % 3;

		for (uint64_t at = 0; at < 32 * MIB; at += 128 * KIB)
			assert_int_equal(herd_write(herd, p, at, 64 * KIB), 0);
		herd_load_start(herd, 48);
		herd_run(herd, 200);
		herd_kill(herd, b, SIM_DEATH_SILENT); /* so that it keeps its seat, marked */
		herd_run(herd, 100);
		sim_link_set_delay(herd->nodes[p].host, herd->nodes[b].host, 10 * NS_PER_MS,
				   12 * NS_PER_MS);
		herd->nodes[b].says_unclean = true;
		herd_start(herd, b);
		herd_until(herd, 20000, is_filled, "compared");
		herd_run(herd, 1 + 5 * (point / 2));
		const struct cluster_join *join =
			cluster_pg_join(row_of(herd), herd->nodes[b].store_id);
		if (point % 2) {
			herd_kill(herd, b, SIM_DEATH_SILENT);
			herd_start(herd, b);
		} else if (join) {
			for (unsigned i = 0; i < 5; i++) /* some are lost */
				herd_propose_by(&herd->nodes[b],
						cluster_command_pg_leave_join(
							0, herd->nodes[b].store_id, join->index));
		}
		herd_run(herd, 500);
		heal_and_check(herd);
	}
}

/* ---- between the tail and the requests ---- */

/*
 * It has told its tail, is started again, and gets the table of requests first: no entry comes before
 * that, and nobody asks for its tail again. It must find its place then (W1).
 */
static void test_a_member_that_restarts_between_its_tail_and_the_requests_goes_on(void **state)
{
	unsigned hits = 0;

	for (unsigned seed = 60; seed < 66; seed++) {
		struct herd *herd = make(seed, 3, 3, 2);
		unsigned x = (unsigned)herd_primary(herd, 0);
		unsigned p = node_of(herd, row_of(herd)->target[1]);
		unsigned b = node_of(herd, row_of(herd)->target[2]);

		assert_int_equal(herd_write(herd, p, 0, 64 * KIB), 0);
		sim_link_set_delay(herd->nodes[p].host, herd->nodes[b].host, 20 * NS_PER_MS,
				   20 * NS_PER_MS);
		herd_kill(herd, x,
			  SIM_DEATH_CERTAIN); /* at the floor: the other one stays listed */
		for (unsigned i = 0; i < 20000 && !has_state(herd, p, "serving"); i++)
			run_us(herd, 100);
		if (!has_state(herd, p, "serving")) { /* the other one leads */
			heal_and_check(herd);
			continue;
		}
		hits++;
		herd_kill(herd, b, SIM_DEATH_CERTAIN);
		herd_run(herd, 100);
		sim_link_set_delay(herd->nodes[p].host, herd->nodes[b].host, 50 * NS_PER_US,
				   NS_PER_MS);
		herd_start(herd, b);
		assert_int_equal(herd_write(herd, p, 8 * MIB, 4096), 0);
		heal_and_check(herd);
	}
	assert_true(hits > 0);
}

/* ---- holes ---- */

/* The object is there with its version, but its content is not to be trusted. */
static void make_hole(struct herd *herd, unsigned node, uint32_t index)
{
	struct object_key key = herd_make_hole(herd, node, index);

	herd->may_diverge = true;
	pg_set_store_corrupt(herd->nodes[node].set, herd->nodes[node].store, 0, &key);
}

static bool has_flags(struct herd *herd, uint32_t flags)
{
	const struct cluster_pg *row = row_of(herd);

	for (uint32_t i = 0; i < row->isr_count; i++)
		if (row->isr[i].flags & flags)
			return true;
	return false;
}

static bool has_holes(struct herd *herd)
{
	return has_flags(herd, CLUSTER_SEAT_HOLES);
}

static bool has_none(struct herd *herd)
{
	return !has_flags(herd, CLUSTER_SEAT_HOLES) && herd_is_healthy(herd);
}

/* A PG that is whole again costs nothing: nobody goes on comparing. */
static void test_a_member_that_was_healed_is_not_compared_for_ever(void **state)
{
	struct herd *herd = make(20, 3, 3, 2);
	unsigned member = (unsigned)(herd_primary(herd, 0) + 1) % 3;

	for (uint64_t at = 0; at < 32 * MIB; at += 4 * MIB)
		assert_int_equal(herd_write(herd, 0, at, 64 * KIB), 0);
	make_hole(herd, member, 3);
	herd_until(herd, 20000, has_holes, "known to have a hole");
	herd_until(herd, 20000, has_none, "whole again");
	herd_run(herd, 1000);
	uint64_t compared = HERD_COUNTER(herd, objects_compared);
	assert_true(compared > 0);
	herd_run(herd, 20000);
	assert_int_equal(HERD_COUNTER(herd, objects_compared), compared);
	heal_and_check(herd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			test_a_write_that_waited_for_a_lock_is_no_entry_of_a_reign_that_is_over),
		cmocka_unit_test(test_writes_go_on_when_the_join_ends_that_held_their_locks),
		cmocka_unit_test(
			test_a_member_that_restarts_between_its_tail_and_the_requests_goes_on),
		cmocka_unit_test(test_a_member_that_was_healed_is_not_compared_for_ever),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
