/*
 * Objects of which no copy is left: their loss is told, and nothing else waits for it (REPLICATION, W2, J5).
 *
 * Trap: what another member can give is no loss. So each test asks first whether it was taken for one.
 */
#include "tests/sim/lost.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/size.h"
#include "sheep/cluster/command.h"

/* Every block of the first object can be written again; zeroes make the whole of it good. */
static void mend(struct herd *herd, unsigned node)
{
	assert_int_equal(herd_write(herd, node, 0, 512), -E_LOST);
	assert_int_equal(herd_write(herd, node, 0, 4 * KIB), 0);
	assert_int_equal(herd_read(herd, node, 0, 4 * KIB), 0);
	assert_int_equal(herd_write(herd, node, 512, 512), 0);
	assert_int_equal(herd_read(herd, node, 4 * KIB, 4 * KIB), -E_LOST);
	assert_int_equal(herd_clear(herd, node, GATEWAY_TRIM, 4 * MIB - 64 * KIB, 64 * KIB), 0);
	assert_int_equal(herd_read(herd, node, 4 * MIB - 64 * KIB, 64 * KIB), 0);
	assert_int_equal(herd_clear(herd, node, GATEWAY_ZERO, 0, 4 * MIB), 0);
	for (uint64_t at = 0; at < 4 * MIB; at += 64 * KIB)
		assert_int_equal(herd_read(herd, node, at, 64 * KIB), 0);
}

/* The other copy is of before: it must not come back in place of what was acknowledged since. */
static void test_an_object_that_nobody_has_is_an_error_and_the_rest_is_served(void **state)
{
	for (unsigned seed = 1; seed < 5; seed++) {
		struct herd *herd = lost_herd(seed, 2, 2, 1);
		unsigned p = (unsigned)herd_primary(herd, 0), b = !p;

		herd_kill(herd, b, SIM_DEATH_CERTAIN);
		assert_int_equal(herd_write(herd, p, 8 * KIB, 64 * KIB), 0);
		(void)herd_make_hole(herd, p, 0);
		/* Whoever is away may have it: nothing is given up, and nothing waits. */
		assert_int_equal(herd_read(herd, p, 0, 4 * KIB), -E_LOST);
		assert_int_equal(herd_write(herd, p, 4 * MIB, 64 * KIB), 0);
		assert_int_equal(herd_read(herd, p, 4 * MIB, 64 * KIB), 0);
		herd_run(herd, 5000);
		assert_int_equal(herd_write(herd, p, 4 * MIB, 64 * KIB), 0);
		assert_int_equal(HERD_COUNTER(herd, objects_lost), 0);
		herd_start(herd, b);
		herd_until(herd, 30000, herd_is_healthy, "healthy");
		assert_int_equal(HERD_COUNTER(herd, objects_lost), 1);
		herd_reopen(herd);
		for (unsigned n = 0; n < 2; n++) {
			assert_int_equal(lost_objects(herd, n), 1);
			assert_int_equal(herd_read(herd, n, 0, 4 * KIB), -E_LOST);
			assert_int_equal(herd_read(herd, n, 4 * MIB, 64 * KIB), 0);
		}
		mend(herd, seed % 2);
		herd_run(herd, 100);
		assert_int_equal(lost_objects(herd, 0) + lost_objects(herd, 1), 0);
		herd_load_stop(herd);
		herd_check(herd);
		herd_free(herd);
	}
}

/* The same version comes back: those are the bytes (W4). */
static void test_what_a_store_that_was_away_has_is_not_lost(void **state)
{
	for (unsigned seed = 11; seed < 15; seed++) {
		struct herd *herd = lost_herd(seed, 2, 2, 1);
		unsigned p = (unsigned)herd_primary(herd, 0), b = !p;

		herd_kill(herd, b, SIM_DEATH_CERTAIN);
		assert_int_equal(herd_write(herd, p, 4 * MIB, 64 * KIB), 0);
		(void)herd_make_hole(herd, p, 0);
		assert_int_equal(herd_read(herd, p, 0, 4 * KIB), -E_LOST);
		herd_run(herd, seed * 300);
		herd->nodes[b].says_unclean = seed % 2;
		herd_start(herd, b);
		herd_until(herd, 30000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		assert_int_equal(HERD_COUNTER(herd, objects_lost), 0);
		assert_int_equal(herd_read(herd, p, 192 * KIB, 64 * KIB), 0);
		herd_load_stop(herd);
		herd_check(herd);
		herd_free(herd);
	}
}

static bool has_given_up(struct herd *herd)
{
	return HERD_COUNTER(herd, objects_lost) > 0;
}

/* Who is away for as long as after which copies are made elsewhere is not waited for. */
static void test_a_store_that_stays_away_is_not_waited_for(void **state)
{
	struct herd *herd = lost_herd(21, 2, 2, 1);
	unsigned p = (unsigned)herd_primary(herd, 0), b = !p;

	lost_set(herd, CLUSTER_SETTING_DOWN_OUT_INTERVAL, 20000);
	herd_kill(herd, b, SIM_DEATH_CERTAIN);
	assert_int_equal(herd_write(herd, p, 8 * KIB, 64 * KIB), 0);
	(void)herd_make_hole(herd, p, 0);
	assert_int_equal(herd_read(herd, p, 0, 4 * KIB), -E_LOST);
	herd_run(herd, 15000);
	assert_int_equal(HERD_COUNTER(herd, objects_lost), 0);
	herd_until(herd, 10000, has_given_up, "given up");
	herd_run(herd, 1000);
	assert_int_equal(lost_missing(herd, p), 0);
	assert_int_equal(herd_write(herd, p, 0, 4 * KIB), 0);
	herd_start(herd, b);
	herd_until(herd, 30000, herd_is_healthy, "healthy");
	herd_reopen(herd);
	assert_int_equal(herd_read(herd, b, 4 * KIB, 4 * KIB), -E_LOST);
	assert_int_equal(herd_clear(herd, b, GATEWAY_TRIM, 0, 4 * MIB), 0);
	herd_load_stop(herd);
	herd_check(herd);
	herd_free(herd);
}

/*
 * At the floor a store leads that was elected, misses an object that is in doubt, and has to fill the only other
 * one. Sim seed 3160: nobody was ever in sync again.
 */
static void test_an_elected_store_that_misses_an_object_fills_the_others(void **state)
{
	unsigned hits = 0;

	for (unsigned seed = 31; seed < 37; seed++) {
		struct herd *herd = lost_herd(seed, 2, 2, 2);
		unsigned p = (unsigned)herd_primary(herd, 0), b = !p;

		lost_set(herd, CLUSTER_SETTING_POWER_LOSS_WAIT, 1000);
		herd_run(herd, 500);
		herd_write_begin(herd, p, 0, 8 * KIB); /* in doubt */
		if (seed % 2)
			herd_write_begin(herd, p, 64 * KIB, 8 * KIB);
		herd_run(herd, 1);
		herd_cut_power(herd, b, SIM_DEATH_CERTAIN, SIM_DROP_UNSYNCED);
		herd_cut_power(herd, p, SIM_DEATH_CERTAIN, SIM_KEEP_ALL);
		herd_start(herd, p);
		herd_run(herd, 200);
		(void)herd_make_hole(herd, p, 0);
		herd_run(herd, 3000);
		herd_start(herd, b);
		herd_until(herd, 30000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		if (HERD_COUNTER(herd, objects_lost) > 0) {
			hits++;
			assert_int_equal(herd_read(herd, p, 8 * KIB, 4 * KIB), -E_LOST);
			mend(herd, p);
		}
		herd_load_stop(herd);
		herd_check(herd);
		herd_free(herd);
	}
	assert_true(hits > 0);
}

static unsigned read_all(struct herd *herd, unsigned node)
{
	unsigned refused = 0;

	for (uint64_t at = 0; at < 16 * MIB; at += 4 * KIB) {
		int result = herd_read(herd, node, at, 4 * KIB);
		assert_true(result == 0 || result == -E_LOST);
		refused += result == -E_LOST;
	}
	return refused;
}

/* Only what is damaged: its neighbours are served, and a restart changes nothing about that. */
static void test_a_single_copy_loses_the_damaged_blocks_and_no_others(void **state)
{
	unsigned hits = 0;

	for (unsigned seed = 41; seed < 45; seed++) {
		struct herd *herd = lost_herd(seed, 1, 1, 1);
		unsigned before, after;

		for (uint64_t at = 0; at < 16 * MIB; at += MIB)
			assert_int_equal(herd_write(herd, 0, at, MIB), 0);
		for (unsigned i = 0; i < 6; i++)
			(void)sim_host_rot(herd->nodes[0].host, 64 * KIB);
		herd_run(herd, 100);
		(void)read_all(herd, 0);
		herd_run(herd, 1000);
		before = read_all(herd, 0);
		assert_int_equal(lost_missing(herd, 0), 0);
		assert_true(before <= 6);
		hits += before;
		herd_stop(herd, 0);
		herd_start(herd, 0);
		herd_until(herd, 30000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		after = read_all(herd, 0);
		assert_int_equal(before, after);
		for (uint64_t at = 0; at < 16 * MIB; at += 4 * MIB)
			assert_int_equal(herd_clear(herd, 0, GATEWAY_TRIM, at, 4 * MIB), 0);
		assert_int_equal(lost_objects(herd, 0), 0);
		herd_load_stop(herd);
		herd_check(herd);
		herd_free(herd);
	}
	assert_true(hits > 0);
}

/* ---- what is damaged here, and is good elsewhere ---- */

/*
 * The primary has one damaged block; a sector of the other copy fails at its nth read. Trap: a heal that drops ours
 * first, and finds that half way.
 */
static void test_a_heal_that_meets_damage_keeps_what_is_good(void **state)
{
	for (unsigned nth = 0; nth < 5; nth++) {
		struct herd *herd = lost_herd(26, 2, 2, 1);
		unsigned p = (unsigned)herd_primary(herd, 0), b = !p;

		for (uint64_t at = 0; at < 4 * MIB; at += MIB)
			assert_int_equal(herd_write(herd, p, at, MIB), 0);
		herd_run(herd, 2000);
		if (nth)
			assert_int_equal(sim_host_fault(herd->nodes[b].host, LOOP_OP_READ, nth,
							SIM_FAULT_SECTOR),
					 0);
		lost_mark(herd, p, 5);
		herd_run(herd, 20);
		(void)herd_read(herd, p, 5 * 4 * KIB, 4 * KIB);
		herd_run(herd, 5000);
		/* At worst that sector was the same block. */
		assert_true(lost_count(herd, p, 4 * MIB) <= (nth ? 1 : 0));
		lost_end(herd);
	}
}

/* The same, where the member is healed, and the sector is the primary's. */
static void test_a_push_that_meets_damage_keeps_what_the_member_has(void **state)
{
	static const unsigned nths[] = {0, 1, 3, 20};

	for (unsigned i = 0; i < ARRAY_COUNT(nths); i++) {
		struct herd *herd = lost_herd(26, 2, 2, 1);
		unsigned p = (unsigned)herd_primary(herd, 0), b = !p;

		for (uint64_t at = 0; at < 4 * MIB; at += 64 * KIB)
			assert_int_equal(herd_write(herd, p, at, 64 * KIB), 0);
		herd_run(herd, 2000);
		if (nths[i])
			assert_int_equal(sim_host_fault(herd->nodes[p].host, LOOP_OP_READ, nths[i],
							SIM_FAULT_SECTOR),
					 0);
		lost_mark(herd, b, 5);
		herd_run(herd, 5000);
		assert_true(lost_count(herd, p, 4 * MIB) <= (nths[i] ? 1 : 0));
		lost_end(herd);
	}
}

static void test_copies_that_are_damaged_in_different_places_make_a_whole_one(void **state)
{
	struct herd *herd = lost_herd(23, 2, 2, 1);
	unsigned p = (unsigned)herd_primary(herd, 0), b = !p;

	lost_mark(herd, p, 5); /* at once: neither is healed before the other */
	lost_mark(herd, b, 9);
	herd_run(herd, 3000);
	assert_int_equal(lost_count(herd, p, 256 * KIB), 0);
	assert_int_equal(HERD_COUNTER(herd, objects_lost), 0);
	herd_until(herd, 30000, herd_is_healthy, "healthy");
	lost_end(herd);
}

/* ---- who is away ---- */

/* It was away before, for longer than is waited for: that is over. */
static void test_a_store_is_waited_for_each_time_it_goes(void **state)
{
	struct herd *herd = lost_herd(21, 2, 2, 1);
	unsigned p = (unsigned)herd_primary(herd, 0), b = !p;

	lost_set(herd, CLUSTER_SETTING_DOWN_OUT_INTERVAL, 20000);
	herd_kill(herd, b, SIM_DEATH_CERTAIN);
	(void)herd_make_hole(herd, p, 0);
	assert_int_equal(herd_read(herd, p, 0, 4 * KIB), -E_LOST);
	herd_start(herd, b);
	herd_until(herd, 30000, herd_is_healthy, "healthy");
	herd_reopen(herd);
	assert_int_equal(herd_read(herd, p, 0, 4 * KIB), 0);
	herd_run(herd, 30000);
	p = (unsigned)herd_primary(herd, 0);
	b = !p;
	herd_kill(herd, b, SIM_DEATH_CERTAIN);
	herd_run(herd, 500);
	(void)herd_make_hole(herd, p, 0);
	assert_int_equal(herd_read(herd, p, 0, 4 * KIB), -E_LOST);
	assert_int_equal(HERD_COUNTER(herd, objects_lost), 0);
	herd_start(herd, b);
	herd_until(herd, 30000, herd_is_healthy, "healthy");
	herd_reopen(herd);
	assert_int_equal(lost_count(herd, p, 256 * KIB), 0);
	lost_end(herd);
}

/* Nobody can drop it, since the others have holes: the group would wait for it for ever. */
static void test_a_listed_store_that_stays_away_does_not_stop_the_group(void **state)
{
	struct herd *herd = lost_herd(22, 3, 3, 2);
	unsigned p = (unsigned)herd_primary(herd, 0), a = (p + 1) % 3, c = (p + 2) % 3;
	const struct cluster_volume *volume = cluster_volume_by_name(herd_map(herd), HERD_VOLUME);
	struct object_key key = {.layer = volume->layers[0], .index = 0};

	lost_set(herd, CLUSTER_SETTING_DOWN_OUT_INTERVAL, 20000);
	herd_run(herd, 500);
	herd_pause(herd, c);
	herd_damage(herd, p, 0, volume->family, &key);
	herd_damage(herd, a, 0, volume->family, &key);
	herd_run(herd, 200);
	herd_kill(herd, c, SIM_DEATH_CERTAIN);
	herd_run(herd, 10000);
	assert_int_equal(HERD_COUNTER(herd, objects_lost), 0);
	herd_run(herd, 30000);
	assert_int_equal(HERD_COUNTER(herd, objects_lost), 1);
	assert_int_equal(herd_write(herd, p, 4 * MIB, 64 * KIB), 0);
	lost_end(herd);
}

/* ---- what is in doubt ---- */

/* One that has it whole is to lead. How long the log takes for that says nothing about data. */
static void test_an_heir_is_waited_for_however_long_the_log_takes(void **state)
{
	static const unsigned pauses[] = {0, 500, 1500, 3000};

	for (unsigned i = 0; i < ARRAY_COUNT(pauses); i++) {
		struct lost_doubt doubt = lost_doubt(500 + i / 3);
		struct herd *herd = doubt.herd;

		(void)herd_make_hole(herd, doubt.first, 0);
		lost_doubt_kill(&doubt);
		for (unsigned k = 0; k < 2000 && herd_primary(herd, 0) != (int)doubt.first; k++)
			herd_run(herd, 1);
		assert_int_equal(herd_primary(herd, 0), doubt.first);
		sim_log_set_quorum(herd->log, false);
		herd_run(herd, pauses[i]);
		sim_log_set_quorum(herd->log, true);
		herd_run(herd, 5000);
		assert_int_equal(herd_primary(herd, 0), doubt.second);
		assert_int_equal(herd_write(herd, doubt.client, 8 * MIB, 64 * KIB), 0);
		assert_int_equal(HERD_COUNTER(herd, objects_lost), 0);
		assert_int_equal(lost_count(herd, doubt.client, 256 * KIB), 0);
		lost_end(herd);
	}
}

/*
 * Block @block of the first object is damaged at the next primary. Who has it whole cannot lead, since it misses another
 * one, and nobody fills it. The log hears of neither before it hears that the primary is dead.
 */
static void doubt_without_heir(struct lost_doubt *doubt, uint16_t block)
{
	struct herd *herd = doubt->herd;
	struct object_key key;

	lost_set(herd, CLUSTER_SETTING_DOWN_OUT_INTERVAL, 20000);
	lost_set(herd, CLUSTER_SETTING_RECOVERY_PAUSED, 1);
	key = herd_make_hole(herd, doubt->second, 1);
	lost_doubt_kill(doubt);
	herd_run(herd, 1);
	lost_mark(herd, doubt->first, block);
	pg_set_store_corrupt(herd->nodes[doubt->second].set, herd->nodes[doubt->second].store, 0,
			     &key);
	herd_run(herd, 10000);
	assert_int_equal(herd_primary(herd, 0), doubt->first);
}

/* What is the same everywhere is had from it all the same. */
static void test_what_no_tail_names_is_healed_from_one_that_cannot_lead(void **state)
{
	struct lost_doubt doubt = lost_doubt(500);
	struct herd *herd = doubt.herd;

	doubt_without_heir(&doubt, 5);
	assert_int_equal(lost_count(herd, doubt.client, 256 * KIB), 0);
	lost_set(herd, CLUSTER_SETTING_RECOVERY_PAUSED, 0);
	herd_run(herd, 5000);
	assert_int_equal(HERD_COUNTER(herd, objects_lost), 0);
	lost_end(herd);
}

/* What is in doubt is not: it is good there, and lost for ever if it were settled without it. Nothing hangs. */
static void test_what_is_in_doubt_and_damaged_is_left_to_one_that_is_filled_first(void **state)
{
	struct lost_doubt doubt = lost_doubt(500);
	struct herd *herd = doubt.herd;

	doubt_without_heir(&doubt, 2);
	assert_int_equal(herd_read(herd, doubt.client, 8 * KIB, 4 * KIB), -E_LOST);
	assert_int_equal(herd_write(herd, doubt.client, 8 * MIB, 64 * KIB), 0);
	herd_run(herd, 30000);
	assert_int_equal(herd_read(herd, doubt.client, 8 * KIB, 4 * KIB), -E_LOST);
	assert_int_equal(herd_primary(herd, 0), doubt.first);
	lost_set(herd, CLUSTER_SETTING_RECOVERY_PAUSED, 0);
	herd_run(herd, 5000);
	assert_int_equal(herd_primary(herd, 0), doubt.second);
	assert_int_equal(lost_count(herd, doubt.client, 256 * KIB), 0);
	assert_int_equal(HERD_COUNTER(herd, objects_lost), 0);
	lost_end(herd);
}

/* ---- an entry, and damage on both sides of it ---- */

/*
 * At the floor. Both copies are damaged while an entry is on its way from one to the other: what the member
 * has is of the version before. That it is damaged is no reason not to take the entry, since nobody could go on without.
 */
static void test_an_entry_is_taken_whatever_is_damaged(void **state)
{
	static const struct {
		int primary, member; /* the block; -1: none; -2: nobody knows which */
		unsigned lost;
	} rows[] = {
		{-1, 5, 0}, {-1, -2, 0}, {7, -1, 0}, {7, 5, 0},
		{7, 2, 0},  {7, 7, 1},	 {7, -2, 1}, {2, 2, 0},
	};

	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		struct herd *herd = lost_herd(600 + i, 3, 2, 2);
		const struct cluster_pg *row = cluster_pg(herd_map(herd), 0);
		unsigned p = (unsigned)herd_primary(herd, 0), b = p, client;

		for (uint32_t k = 0; k < row->target_count; k++)
			if (row->target[k] != row->primary)
				b = lost_node_of(herd, row->target[k]);
		client = 3 - p - b;
		herd_run(herd, 500);
		sim_link_cut(herd->nodes[p].host, herd->nodes[b].host);
		herd_write_begin(herd, client, 8 * KIB, 4 * KIB);
		herd_run(herd, 20);
		if (rows[i].member == -2)
			(void)herd_make_hole(herd, b, 0);
		else if (rows[i].member >= 0)
			lost_mark(herd, b, (uint16_t)rows[i].member);
		if (rows[i].primary >= 0)
			lost_mark(herd, p, (uint16_t)rows[i].primary);
		herd_run(herd, 20);
		sim_link_heal(herd->nodes[p].host, herd->nodes[b].host);
		herd_until(herd, 30000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		assert_int_equal(lost_count(herd, client, 256 * KIB), rows[i].lost);
		assert_int_equal(HERD_COUNTER(herd, objects_lost), rows[i].lost);
		assert_int_equal(HERD_COUNTER(herd, diverged), 0);
		lost_end(herd);
	}
}

/* A sector fails at the nth read of the one that settles, and the old primary comes back. */
static void test_one_read_error_while_settling_loses_nothing_that_was_flushed(void **state)
{
	for (unsigned nth = 0; nth < 6; nth++) {
		struct lost_doubt doubt = lost_doubt(500);
		struct herd *herd = doubt.herd;

		lost_doubt_kill(&doubt);
		if (nth)
			assert_int_equal(sim_host_fault(herd->nodes[doubt.first].host, LOOP_OP_READ,
							nth, SIM_FAULT_SECTOR),
					 0);
		herd_run(herd, 300);
		herd_start(herd, doubt.p);
		herd_until(herd, 60000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		lost_only_doubt(&doubt);
		lost_end(herd);
	}
}

/* With two copies, both restarted. */
static void test_one_read_error_after_both_died_loses_nothing_that_was_flushed(void **state)
{
	for (unsigned nth = 0; nth < 6; nth++) {
		struct lost_doubt doubt = {.herd = lost_herd(250, 3, 2, 2)};
		struct herd *herd = doubt.herd;
		const struct cluster_pg *row = cluster_pg(herd_map(herd), 0);

		doubt.p = (unsigned)herd_primary(herd, 0);
		for (uint32_t i = 0; i < row->target_count; i++)
			if (row->target[i] != row->primary)
				doubt.first = lost_node_of(herd, row->target[i]);
		doubt.client = 3 - doubt.p - doubt.first;
		assert_int_equal(herd_flush(herd, doubt.client), 0);
		herd_run(herd, 500);
		sim_link_cut(herd->nodes[doubt.p].host, herd->nodes[doubt.first].host);
		herd_write_begin(herd, doubt.client, 8 * KIB, 4 * KIB);
		herd_run(herd, 20);
		herd_kill(herd, doubt.first, SIM_DEATH_CERTAIN);
		lost_doubt_kill(&doubt);
		herd_start(herd, doubt.p);
		if (nth)
			assert_int_equal(sim_host_fault(herd->nodes[doubt.p].host, LOOP_OP_READ,
							nth, SIM_FAULT_SECTOR),
					 0);
		herd_start(herd, doubt.first);
		herd_run(herd, 5000);
		herd_until(herd, 30000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		lost_only_doubt(&doubt);
		lost_end(herd);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_object_that_nobody_has_is_an_error_and_the_rest_is_served),
		cmocka_unit_test(test_what_a_store_that_was_away_has_is_not_lost),
		cmocka_unit_test(test_a_store_that_stays_away_is_not_waited_for),
		cmocka_unit_test(test_an_elected_store_that_misses_an_object_fills_the_others),
		cmocka_unit_test(test_a_single_copy_loses_the_damaged_blocks_and_no_others),
		cmocka_unit_test(test_a_heal_that_meets_damage_keeps_what_is_good),
		cmocka_unit_test(test_a_push_that_meets_damage_keeps_what_the_member_has),
		cmocka_unit_test(test_copies_that_are_damaged_in_different_places_make_a_whole_one),
		cmocka_unit_test(test_a_store_is_waited_for_each_time_it_goes),
		cmocka_unit_test(test_a_listed_store_that_stays_away_does_not_stop_the_group),
		cmocka_unit_test(test_an_heir_is_waited_for_however_long_the_log_takes),
		cmocka_unit_test(test_what_no_tail_names_is_healed_from_one_that_cannot_lead),
		cmocka_unit_test(
			test_what_is_in_doubt_and_damaged_is_left_to_one_that_is_filled_first),
		cmocka_unit_test(test_an_entry_is_taken_whatever_is_damaged),
		cmocka_unit_test(test_one_read_error_while_settling_loses_nothing_that_was_flushed),
		cmocka_unit_test(
			test_one_read_error_after_both_died_loses_nothing_that_was_flushed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
