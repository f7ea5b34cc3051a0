/*
 * Blocks that are damaged at some of the copies, and good at others: whatever else happens to those meanwhile, nothing
 * is lost, and nobody says so (REPLICATION, W4, J5).
 *
 * Trap: a block that is lost at one member only, though nobody was told, passes no point where it would be judged.
 * So each test looks at what the stores have in the end.
 */
#include "tests/sim/lost.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/base/size.h"

/* Disks on which something else happens between a question and its answer. */
static void make_slow(struct herd *herd, unsigned node, uint64_t read_min_ms, uint64_t read_max_ms)
{
	const struct sim_latency slow = {.read_min_ns = read_min_ms * NS_PER_MS,
					 .read_max_ns = read_max_ms * NS_PER_MS,
					 .write_min_ns = 1 * NS_PER_MS,
					 .write_max_ns = 6 * NS_PER_MS,
					 .sync_min_ns = 1 * NS_PER_MS,
					 .sync_max_ns = 6 * NS_PER_MS};

	sim_host_set_latency(herd->nodes[node].host, &slow);
}

/* The first object's copy there. */
static struct store_object copy_of(struct herd *herd, unsigned node)
{
	const struct cluster_volume *volume = cluster_volume_by_name(herd_map(herd), HERD_VOLUME);
	const struct object_key key = {.layer = volume->layers[0], .index = 0};
	struct store_object object;

	assert_int_equal(store_object(herd->nodes[node].store, 0, &key, &object), 1);
	return object;
}

/* Nobody was told of a loss, and nobody has one to himself. */
static void assert_nothing_is_lost(struct herd *herd)
{
	assert_int_equal(HERD_COUNTER(herd, objects_lost), 0);
	for (unsigned n = 0; n < herd->node_count; n++)
		if (herd->nodes[n].is_up)
			assert_int_equal(lost_objects(herd, n), 0);
}

/* ---- found while it is healed ---- */

/* Two reads at once find two bad blocks: the second one while the heal of the first one begins. */
static void test_damage_that_is_found_during_a_heal_is_healed_too(void **state)
{
	struct herd *herd = lost_herd(23, 2, 2, 1);
	unsigned p = (unsigned)herd_primary(herd, 0), b = !p;

	make_slow(herd, p, 1, 60);
	sim_link_set_delay(herd->nodes[p].host, herd->nodes[b].host, NS_PER_MS, 2 * NS_PER_MS);
	sim_link_set_delay(herd->nodes[b].host, herd->nodes[p].host, NS_PER_MS, 2 * NS_PER_MS);
	for (unsigned i = 0; i < 100; i++) {
		herd_run(herd, 61000); /* so that it is no disk on which everything is damaged */
		sim_host_break_reads(herd->nodes[p].host, SIM_READS_LIE);
		herd_read_begin(herd, p, 5 * 4 * KIB, 4 * KIB);
		herd_read_begin(herd, p, 9 * 4 * KIB, 4 * KIB);
		herd_run(herd, 65);
		sim_host_break_reads(herd->nodes[p].host, SIM_READS_WORK);
		herd_run(herd, 2000);
		assert_int_equal(herd_primary(herd, 0), p);
		assert_false(copy_of(herd, p).is_missing);
		assert_nothing_is_lost(herd);
	}
	assert_true(HERD_COUNTER(herd, objects_healed) >= 100);
	lost_end(herd);
}

/* ---- found, and not told yet ---- */

/* It is killed right after it marked a block, and is back before it is dropped: nothing else begins to look. */
static void test_a_hole_of_an_earlier_start_is_told(void **state)
{
	for (unsigned us = 500; us < 30000; us += 3000) {
		struct herd *herd = lost_herd(23, 2, 2, 1);
		unsigned p = (unsigned)herd_primary(herd, 0), b = !p;

		herd_run(herd, 1000);
		lost_mark(herd, b, 5);
		lost_run_us(herd, us);
		herd_kill(herd, b, SIM_DEATH_SILENT);
		herd_run(herd, 20);
		herd_start(herd, b);
		herd_run(herd, 10000);
		herd_until(herd, 30000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		assert_int_equal(lost_missing(herd, b), 0);
		assert_nothing_is_lost(herd);
		lost_end(herd);
	}
}

/* The seat looks before the disk has the mark, and then nothing makes it look again. */
static void test_a_hole_that_is_long_in_flight_is_told(void **state)
{
	for (unsigned is_primary = 0; is_primary < 2; is_primary++) {
		struct herd *herd = lost_herd(23, 2, 2, 1);
		unsigned p = (unsigned)herd_primary(herd, 0), at = is_primary ? p : !p;
		struct sim_latency slow = {.write_min_ns = 200 * NS_PER_MS,
					   .write_max_ns = 300 * NS_PER_MS};

		herd_run(herd, 5000);
		sim_host_set_latency(herd->nodes[at].host, &slow);
		lost_mark(herd, at, 5);
		herd_run(herd, 5000);
		assert_int_equal(lost_missing(herd, at), 0);
		assert_int_equal(copy_of(herd, at).lost_blocks, 0);
		assert_nothing_is_lost(herd);
		lost_end(herd);
	}
}

static bool is_joining(struct herd *herd, unsigned node)
{
	return cluster_pg_join(cluster_pg(herd_map(herd), 0), herd->nodes[node].store_id) != NULL;
}

/*
 * C leads after a restart, so that it has to fetch the pages of the object before it can compare; a block is found
 * damaged meanwhile. Nothing else differs at B that has to be read: some of the object was trimmed while it was away.
 */
static void test_a_push_that_compares_while_damage_is_found_sends_no_loss(void **state)
{
	for (unsigned ms = 0; ms < 60; ms += 2) {
		struct herd *herd = lost_herd(40 + ms % 3, 3, 3, 1);
		unsigned p = (unsigned)herd_primary(herd, 0), b = (p + 1) % 3, c = (p + 2) % 3;

		for (uint64_t at = 0; at < 4 * MIB; at += MIB)
			assert_int_equal(herd_write(herd, p, at, MIB), 0);
		herd_kill(herd, b, SIM_DEATH_CERTAIN);
		assert_int_equal(herd_clear(herd, p, GATEWAY_TRIM, 4 * MIB - 64 * KIB, 64 * KIB),
				 0);
		assert_int_equal(herd_flush(herd, p), 0);
		herd_run(herd, 1000);
		herd_stop(herd, c);
		herd_start(herd, c);
		herd_run(herd, 3000);
		herd_kill(herd, p, SIM_DEATH_CERTAIN);
		herd_run(herd, 1000);
		herd_start(herd, p);
		herd_run(herd, 3000);
		assert_int_equal(herd_primary(herd, 0), c);
		herd_reopen(herd);
		assert_int_equal(herd_read(herd, c, 5 * 4 * KIB, 4 * KIB),
				 0); /* this page is there */
		make_slow(herd, c, 2, 40);
		herd_start(herd, b);
		for (unsigned i = 0; i < 10000 && !is_joining(herd, b); i++)
			lost_run_us(herd, 100);
		herd_run(herd, ms);
		lost_mark(herd, c, 5);
		herd_run(herd, 8000);
		assert_nothing_is_lost(herd);
		herd_reopen(herd);
		lost_end(herd);
	}
}

/* ---- who goes, and comes back ---- */

/*
 * Both have damage, in different places. The other one restarts while the primary reads what is good of its own copy,
 * after it had decided that nobody is away.
 */
static void test_who_leaves_while_a_loss_is_put_together_is_waited_for(void **state)
{
	for (unsigned ms = 20; ms < 80; ms += 4) {
		struct herd *herd = lost_herd(23, 2, 2, 1);
		unsigned p = (unsigned)herd_primary(herd, 0), b = !p;

		herd_run(herd, 1000);
		make_slow(herd, p, 20, 40);
		lost_mark(herd, p, 5);
		lost_mark(herd, b, 9);
		herd_run(herd, ms);
		herd_kill(herd, b, SIM_DEATH_CERTAIN);
		herd_run(herd, 10000);
		assert_int_equal(HERD_COUNTER(herd, objects_lost), 0);
		herd_start(herd, b);
		herd_until(herd, 30000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		assert_int_equal(lost_count(herd, p, 256 * KIB), 0);
		assert_nothing_is_lost(herd);
		lost_end(herd);
	}
}

/* Two copies, damaged in different places, and both lose power: an elected store has only joining ones to ask. */
static void test_damaged_copies_are_put_together_by_an_elected_store(void **state)
{
	for (unsigned seed = 31; seed < 35; seed++) {
		struct herd *herd = lost_herd(seed, 2, 2, 1 + seed % 2);
		unsigned p = (unsigned)herd_primary(herd, 0), b = !p;

		lost_set(herd, CLUSTER_SETTING_POWER_LOSS_WAIT, 1000);
		assert_int_equal(herd_flush(herd, p), 0);
		herd_run(herd, 2000);
		lost_mark(herd, p, 5);
		lost_mark(herd, b, 9);
		herd_run(herd, 5);
		herd_cut_power(herd, b, SIM_DEATH_CERTAIN, SIM_KEEP_ALL);
		herd_cut_power(herd, p, SIM_DEATH_CERTAIN, SIM_KEEP_ALL);
		herd_start(herd, p);
		herd_start(herd, b);
		herd_until(herd, 60000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		assert_int_equal(lost_count(herd, p, 256 * KIB), 0);
		assert_nothing_is_lost(herd);
		lost_end(herd);
	}
}

/* ---- who has no part in the group any more ---- */

/* Two copies, of which one is to move to a third node, that is not filled yet. */
struct move {
	struct herd *herd;
	unsigned p, b;	/* leads; is not of the target any more */
	uint32_t index; /* of an object that the third node has not got */
	struct object_key key;
};

/* False: with this seed another copy moves. */
static bool move_begin(struct move *move, uint64_t seed)
{
	const struct herd_options options = {.seed = seed,
					     .nodes = 3,
					     .copies = 2,
					     .min_insync = 1,
					     .pg_count = 4,
					     .volume_bytes = 64 * MIB,
					     .late = 1};
	struct herd *herd = herd_new(&options);
	const struct cluster_pg *row;
	struct store_object object;

	move->herd = herd;
	for (uint64_t at = 0; at < 64 * MIB; at += 4 * MIB)
		assert_int_equal(herd_write(herd, 0, at, 64 * KIB), 0);
	herd->may_diverge = herd->may_lose = true;
	lost_set(herd, CLUSTER_SETTING_RECOVERY_PAUSED, 1);
	herd_start(herd, 2);
	herd_run(herd, 5000);
	move->p = (unsigned)herd_primary(herd, 0);
	move->b = !move->p;
	row = cluster_pg(herd_map(herd), 0);
	if (move->p > 1 || !cluster_pg_has_target(row, herd->nodes[move->p].store_id) ||
	    cluster_pg_has_target(row, herd->nodes[move->b].store_id) ||
	    !cluster_pg_seat(row, herd->nodes[move->b].store_id))
		return false;
	move->key.layer = cluster_volume_by_name(herd_map(herd), HERD_VOLUME)->layers[0];
	for (move->index = 0; move->index < 16; move->index++) {
		move->key.index = move->index;
		if (store_object(herd->nodes[move->p].store, 0, &move->key, &object) > 0)
			return true;
	}
	return false;
}

static void move_end(struct move *move)
{
	struct herd *herd = move->herd;

	lost_set(herd, CLUSTER_SETTING_RECOVERY_PAUSED, 0);
	herd_until(herd, 60000, herd_is_healthy, "healthy");
	herd_reopen(herd);
	assert_int_equal(herd_read(herd, 2, move->index * 4 * MIB, 64 * KIB), 0);
	assert_nothing_is_lost(herd);
	herd_load_stop(herd);
	herd_check(herd);
	herd_free(herd);
}

/* It is not listed, not of the target, and nobody lets it join: but it has what is damaged here. */
static void test_a_former_member_is_waited_for_and_asked(void **state)
{
	unsigned hits = 0;

	for (unsigned seed = 1; seed < 20 && hits < 3; seed++) {
		struct move move;
		struct herd *herd;

		if (!move_begin(&move, seed)) {
			herd_load_stop(move.herd);
			herd_free(move.herd);
			continue;
		}
		hits++;
		herd = move.herd;
		herd_kill(herd, move.b, SIM_DEATH_CERTAIN);
		herd_run(herd, 2000);
		assert_null(cluster_pg_seat(cluster_pg(herd_map(herd), 0),
					    herd->nodes[move.b].store_id));
		assert_true(herd_damage_block(herd, move.p, 0, &move.key, 5));
		herd_run(herd, 20);
		assert_int_equal(herd_read(herd, move.p, move.index * 4 * MIB, 64 * KIB), -E_LOST);
		herd_run(herd, 3000);
		assert_int_equal(HERD_COUNTER(herd, objects_lost), 0);
		herd_start(herd, move.b);
		herd_run(herd, 3000);
		assert_int_equal(herd_read(herd, move.p, move.index * 4 * MIB, 64 * KIB), 0);
		move_end(&move);
	}
	assert_true(hits > 0);
}

/* The same where it was only cut off for a moment, and is damaged in another place. */
static void test_a_former_member_that_is_up_gives_what_it_has(void **state)
{
	unsigned hits = 0;

	for (unsigned seed = 1; seed < 20 && hits < 3; seed++) {
		struct move move;
		struct herd *herd;

		if (!move_begin(&move, seed)) {
			herd_load_stop(move.herd);
			herd_free(move.herd);
			continue;
		}
		herd = move.herd;
		herd_pause(herd, move.b);
		for (unsigned i = 0; i < 50 && cluster_pg_seat(cluster_pg(herd_map(herd), 0),
							       herd->nodes[move.b].store_id);
		     i++) {
			herd_read_begin(herd, move.p, move.index * 4 * MIB, 4 * KIB);
			herd_run(herd, 100);
		}
		herd_resume(herd, move.b);
		herd_run(herd, 3000);
		assert_null(cluster_pg_seat(cluster_pg(herd_map(herd), 0),
					    herd->nodes[move.b].store_id));
		assert_true(herd_damage_block(herd, move.p, 0, &move.key, 5));
		if (hits++ > 0)
			assert_true(herd_damage_block(herd, move.b, 0, &move.key, 9));
		herd_run(herd, 3000);
		assert_int_equal(herd_read(herd, move.p, move.index * 4 * MIB, 64 * KIB), 0);
		move_end(&move);
	}
	assert_true(hits > 1);
}

/* ---- who was not there itself ---- */

/* The primary is stopped for longer than is waited for, while the other one is back after a moment. */
static void test_a_primary_that_was_stopped_does_not_count_that_time(void **state)
{
	static const unsigned befores[] = {500, 15000, 19900};

	for (unsigned i = 0; i < ARRAY_COUNT(befores); i++) {
		struct herd *herd = lost_herd(21 + i, 2, 2, 1);
		unsigned p = (unsigned)herd_primary(herd, 0), b = !p;

		lost_set(herd, CLUSTER_SETTING_DOWN_OUT_INTERVAL, 20000);
		herd_kill(herd, b, SIM_DEATH_CERTAIN);
		herd_run(herd, befores[i]);
		(void)herd_make_hole(herd, p,
				     0); /* nothing of it is good: that is decided at once */
		assert_int_equal(herd_read(herd, p, 5 * 4 * KIB, 4 * KIB), -E_LOST);
		herd_pause(herd, p);
		herd_run(herd, 100);
		herd_start(herd, b);
		herd_run(herd, 30000);
		herd_resume(herd, p);
		herd_until(herd, 60000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		assert_int_equal(herd_read(herd, p, 5 * 4 * KIB, 4 * KIB), 0);
		assert_nothing_is_lost(herd);
		lost_end(herd);
	}
}

/* ---- in doubt ---- */

/* The new primary and the other member have a block damaged each, and different versions, since one write was under way. */
static void test_what_is_in_doubt_is_settled_before_copies_are_put_together(void **state)
{
	for (unsigned seed = 500; seed < 504; seed++) {
		struct lost_doubt doubt = lost_doubt(seed);
		struct herd *herd = doubt.herd;

		lost_doubt_kill(&doubt);
		herd_run(herd, 1);
		lost_mark(herd, doubt.first, 5);
		lost_mark(herd, doubt.second, 9);
		herd_run(herd, 300);
		herd_start(herd, doubt.p);
		herd_until(herd, 60000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		lost_only_doubt(&doubt);
		assert_nothing_is_lost(herd);
		lost_end(herd);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_damage_that_is_found_during_a_heal_is_healed_too),
		cmocka_unit_test(test_a_hole_of_an_earlier_start_is_told),
		cmocka_unit_test(test_a_hole_that_is_long_in_flight_is_told),
		cmocka_unit_test(test_a_push_that_compares_while_damage_is_found_sends_no_loss),
		cmocka_unit_test(test_who_leaves_while_a_loss_is_put_together_is_waited_for),
		cmocka_unit_test(test_damaged_copies_are_put_together_by_an_elected_store),
		cmocka_unit_test(test_a_former_member_is_waited_for_and_asked),
		cmocka_unit_test(test_a_former_member_that_is_up_gives_what_it_has),
		cmocka_unit_test(test_a_primary_that_was_stopped_does_not_count_that_time),
		cmocka_unit_test(test_what_is_in_doubt_is_settled_before_copies_are_put_together),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
