/* At the floor of min_insync: what is acknowledged there, and what ends the wait (REPLICATION, S1, T2). */
#include "tests/sim/herd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/size.h"
#include "sheep/cluster/command.h"

static struct herd *pair(uint64_t seed)
{
	const struct herd_options options = {.seed = seed,
					     .nodes = 2,
					     .copies = 2,
					     .min_insync = 2,
					     .pg_count = 1,
					     .volume_bytes = 64 * MIB};

	return herd_new(&options);
}

/* ---- holes ---- */

/* The object is there with its version, but its content is not to be trusted. */
static void make_hole(struct herd *herd, unsigned node, uint32_t index)
{
	(void)herd_make_hole(herd, node, index);
	herd->may_diverge = true;
}

struct forgery {
	struct store_append append;
	bool is_there;
};

static void on_forged(struct store_append *append, int result)
{
	struct forgery *forgery = container_of_type(append, struct forgery, append);

	assert_int_equal(result, 0);
	forgery->is_there = true;
}

/* What no rule allows: its copy says that it is of an earlier version. The next entry finds that. */
static void forge_version(struct herd *herd, unsigned node, uint32_t index)
{
	const struct cluster_volume *volume = cluster_volume_by_name(herd_map(herd), HERD_VOLUME);
	struct forgery forgery = {
		.append = {.done = on_forged,
			   .family = volume->family,
			   .key = {.layer = volume->layers[0], .index = index},
			   .version = {.reign = 1, .n = 1},
			   .flags = STORE_UNSEQUENCED | STORE_ANY_PREVIOUS | STORE_CLEAR_MISSING}};

	herd->may_diverge = true;
	assert_int_equal(store_append(herd->nodes[node].store, &forgery.append), 0);
	for (unsigned i = 0; i < 100 && !forgery.is_there; i++)
		herd_run(herd, 1);
	assert_true(forgery.is_there);
}

static unsigned unmarked(struct herd *herd, unsigned node)
{
	const struct cluster_pg *row = cluster_pg(herd->nodes[node].map, 0);
	unsigned count = 0;

	for (uint32_t i = 0; i < row->isr_count; i++)
		count += !(row->isr[i].flags & CLUSTER_SEAT_MARKED);
	return count;
}

/* The other member cannot apply it and is marked; one copy is not enough. */
static void test_a_write_that_marks_the_other_member_waits_until_it_is_filled(void **state)
{
	for (unsigned seed = 1; seed < 7; seed++) {
		struct herd *herd = pair(seed);
		unsigned primary = (unsigned)herd_primary(herd, 0), member = !primary;
		bool was_alone = false;

		for (uint64_t at = 0; at < 64 * MIB; at += 4 * MIB)
			assert_int_equal(herd_write(herd, primary, at, 64 * KIB), 0);
		forge_version(herd, member, 0);
		uint64_t done = herd_load_done(herd);
		herd_write_begin(herd, primary, 0, 16 * KIB);
		if (seed % 2) /* one that waits for it, and one that does not */
			herd_write_begin(herd, primary, 8 * KIB, 16 * KIB);
		if (seed % 3)
			herd_write_begin(herd, primary, 4 * MIB, 16 * KIB);
		for (unsigned i = 0; i < 30000 && herd_load_done(herd) == done; i++) {
			was_alone |= unmarked(herd, primary) == 1;
			herd_run(herd, 1);
		}
		assert_true(herd_load_done(herd) > done);
		assert_true(was_alone);
		assert_int_equal(unmarked(herd, primary), 2);
		herd_until(herd, 30000, herd_is_healthy, "healthy");
		herd_load_stop(herd);
		herd_check(herd);
		herd_free(herd);
	}
}

static void test_it_is_so_under_load(void **state)
{
	for (unsigned seed = 11; seed < 15; seed++) {
		struct herd *herd = pair(seed);
		unsigned primary = (unsigned)herd_primary(herd, 0), member = !primary;

		for (uint64_t at = 0; at < 64 * MIB; at += 4 * MIB)
			assert_int_equal(herd_write(herd, primary, at, 64 * KIB), 0);
		herd_load_start(herd, 32);
		herd_run(herd, 300);
		for (uint32_t i = 0; i < 4; i++)
			(i % 2 ? make_hole : forge_version)(herd, member, i);
		herd_run(herd, 2000);
		herd_until(herd, 60000, herd_is_healthy, "healthy");
		herd_load_stop(herd);
		herd_check(herd);
		herd_free(herd);
	}
}

/* ---- waiting, with something unsettled ---- */

static void test_an_unclean_member_is_filled_though_objects_are_in_doubt(void **state)
{
	for (unsigned seed = 21; seed < 29; seed++) {
		struct herd *herd = pair(seed);
		unsigned primary = (unsigned)herd_primary(herd, 0);

		herd_load_start(herd, 64);
		herd_run(herd, 1000 + seed % 4);
		herd_kill(herd, primary, SIM_DEATH_CERTAIN);
		herd_run(herd, 1000);
		herd->nodes[primary].says_unclean = true;
		herd_start(herd, primary);
		herd_until(herd, 60000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		herd_load_stop(herd);
		herd_check(herd);
		herd_free(herd);
	}
}

/*
 * Each object in doubt is locked until it has its entry, and none is committed while the seat waits:
 * so more than are settled at a time must get theirs, or the pushes of the others never end.
 */
static void test_the_wait_ends_with_many_objects_in_doubt(void **state)
{
	for (unsigned seed = 51; seed < 54; seed++) {
		const struct herd_options options = {.seed = seed,
						     .nodes = 2,
						     .copies = 2,
						     .min_insync = 2,
						     .pg_count = 1,
						     .volume_bytes = 256 * MIB};
		struct herd *herd = herd_new(&options);
		unsigned primary = (unsigned)herd_primary(herd, 0), member = !primary;
		struct store_pg_info info;

		for (uint64_t at = 0; at < 256 * MIB; at += 4 * MIB)
			assert_int_equal(herd_write(herd, primary, at, 16 * KIB), 0);
		herd_run(herd, 200);
		herd_kill(herd, member, SIM_DEATH_CERTAIN);
		for (uint64_t at = 0; at < 240 * MIB; at += 4 * MIB)
			herd_write_begin(herd, primary, at, 8 * KIB);
		herd_run(herd, 200);
		herd_kill(herd, primary, SIM_DEATH_CERTAIN);
		herd_start(herd, primary);
		herd_run(herd, 500);
		store_pg_info(herd->nodes[primary].store, 0, &info);
		assert_true(info.tail_count >= 60);
		herd->nodes[member].says_unclean = true;
		herd_start(herd, member);
		herd_until(herd, 60000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		herd_load_stop(herd);
		herd_check(herd);
		herd_free(herd);
	}
}

static bool is_whole(struct herd *herd)
{
	struct store_pg_info info;

	for (unsigned i = 0; i < herd->node_count; i++) {
		if (!herd->nodes[i].is_up)
			continue;
		store_pg_info(herd->nodes[i].store, 0, &info);
		if (info.missing > 0)
			return false;
	}
	return herd_is_healthy(herd);
}

/* Its own holes take the primary below the floor: it must fill them there. */
static void test_a_primary_with_holes_at_the_floor_heals(void **state)
{
	for (unsigned seed = 31; seed < 35; seed++) {
		struct herd *herd = pair(seed);
		unsigned primary = (unsigned)herd_primary(herd, 0);

		for (uint64_t at = 0; at < 64 * MIB; at += 4 * MIB)
			assert_int_equal(herd_write(herd, primary, at, 64 * KIB), 0);
		for (uint32_t i = 0; i < 16; i++)
			make_hole(herd, primary, i);
		herd_write_begin(herd, primary, 0, 8 * KIB);
		herd_until(herd, 60000, is_whole, "whole");
		herd_load_stop(herd);
		herd_check(herd);
		herd_free(herd);
	}
}

/* ---- joins while something is in doubt ---- */

static unsigned node_of(struct herd *herd, uint32_t store)
{
	for (unsigned i = 0; i < herd->node_count; i++)
		if (herd->nodes[i].store_id == store)
			return i;
	return 0;
}

static bool newcomer_is_known(struct herd *herd)
{
	const struct herd_node *newcomer = &herd->nodes[herd->node_count - 1];

	return newcomer->store_id && cluster_store_is_up(herd_map(herd), newcomer->store_id);
}

/* The PG is to be at these three. */
static void retarget(struct herd *herd, unsigned a, unsigned b, unsigned c)
{
	const struct log_retarget_row row = {
		.pg = to_le32(0),
		.count = to_le32(3),
		.target_index = to_le64(cluster_pg(herd_map(herd), 0)->target_index),
		.stores = {to_le32(herd->nodes[a].store_id), to_le32(herd->nodes[b].store_id),
			   to_le32(herd->nodes[c].store_id)},
	};

	herd_propose(herd, cluster_command_retarget(&row, 1));
}

static bool is_in_sync(struct herd *herd, unsigned node)
{
	const struct cluster_pg *row = cluster_pg(herd_map(herd), 0);
	const struct cluster_seat *seat = cluster_pg_seat(row, herd->nodes[node].store_id);

	return seat && !(seat->flags & CLUSTER_SEAT_MARKED);
}

/*
 * The old primary's last write is at one member only, and that leads. The other one cannot tell its
 * tail: nothing can be settled. A store that is filled now has the write, by a push and no entry: it
 * must name it in its tail all the same, as the one that has not seen it may lead later (T2).
 */
static void test_a_join_does_not_meet_a_member_whose_tail_is_unknown(void **state)
{
	unsigned hits = 0;

	for (unsigned seed = 41; seed < 47; seed++) {
		const struct herd_options options = {.seed = seed,
						     .nodes = 4,
						     .late = 1,
						     .copies = 3,
						     .min_insync = 2,
						     .pg_count = 1,
						     .volume_bytes = 16 * MIB};
		struct herd *herd = herd_new(&options);
		unsigned x = (unsigned)herd_primary(herd, 0), p, b;

		for (uint64_t at = 0; at < 16 * MIB; at += MIB)
			assert_int_equal(herd_write(herd, x, at, 16 * KIB), 0);
		p = node_of(herd, cluster_pg(herd_map(herd), 0)->target[1]);
		b = node_of(herd, cluster_pg(herd_map(herd), 0)->target[2]);
		sim_partition(herd->nodes[x].host, herd->nodes[b].host);
		herd_write_begin(herd, x, 0, 8 * KIB);
		herd_run(herd, 20);
		sim_partition(herd->nodes[p].host, herd->nodes[b].host);
		herd_kill(herd, x, SIM_DEATH_CERTAIN);
		herd_start(herd, 3);
		herd_until(herd, 5000, newcomer_is_known, "the new node known");
		retarget(herd, p, b, 3);
		for (unsigned i = 0; i < 60000 && !is_in_sync(herd, 3); i++)
			herd_run(herd, 1);
		assert_true(is_in_sync(herd, 3));
		hits += herd_primary(herd, 0) == (int)p;
		sim_unpartition(herd->nodes[p].host, herd->nodes[b].host);
		sim_unpartition(herd->nodes[x].host, herd->nodes[b].host);
		herd_run(herd, seed % 3 * 500);
		herd_kill(herd, p, SIM_DEATH_CERTAIN);
		herd_start(herd, x);
		herd_run(herd, 500);
		herd_start(herd, p);
		herd_until(herd, 60000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		herd_load_stop(herd);
		assert_int_equal(HERD_COUNTER(herd, diverged), 0);
		herd_check(herd);
		herd_free(herd);
	}
	assert_true(hits > 0);
}

/*
 * The other member answers so late that it is to leave, which the floor forbids, and what it has to
 * answer is all there is of an object in doubt. Nothing is committed before that is healed, so no
 * acknowledgement takes back what is held against it.
 */
static void test_a_primary_with_holes_heals_from_a_member_that_was_late(void **state)
{
	for (unsigned seed = 71; seed < 77; seed++) {
		struct herd *herd = pair(seed);
		unsigned primary = (unsigned)herd_primary(herd, 0), member = !primary;

		assert_int_equal(herd_write(herd, primary, 0, 64 * KIB), 0);
		herd_run(herd, 500); /* the commit point is told: a write behind it is in doubt */
		herd_write_begin(herd, primary, 0, 8 * KIB);
		herd_run(herd, 1);
		herd_kill(herd, primary, SIM_DEATH_CERTAIN);
		herd_pause(herd, member);
		herd_start(herd, primary);
		herd_run(herd, 8000); /* settle_deadline, and some */
		make_hole(herd, primary, 0);
		if (seed % 2)
			herd_resume(herd, member);
		else
			herd_kill(herd, member, SIM_DEATH_CERTAIN);
		herd_run(herd, 100);
		if (seed % 2 == 0)
			herd_start(herd, member);
		herd_until(herd, 30000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		herd_load_stop(herd);
		herd_check(herd);
		herd_free(herd);
	}
}

static void retarget_to(struct herd *herd, const unsigned *nodes, uint32_t count)
{
	struct log_retarget_row row = {
		.pg = to_le32(0),
		.count = to_le32(count),
		.target_index = to_le64(cluster_pg(herd_map(herd), 0)->target_index),
	};

	for (uint32_t i = 0; i < count; i++)
		row.stores[i] = to_le32(herd->nodes[nodes[i]].store_id);
	for (unsigned i = 0; i < 5; i++) { /* some are lost */
		herd_propose(herd, cluster_command_retarget(&row, 1));
		herd_run(herd, 10);
	}
}

/*
 * The same with two members lost at once, whom the floor of three keeps listed. The new one has what
 * is in doubt, and when the others come back and lead, it must say so: else they serve what was before
 * it, and it has what nobody else has (T2).
 */
static void test_a_store_that_joins_names_what_is_in_doubt_where_several_are_lost(void **state)
{
	unsigned hits = 0;

	for (unsigned seed = 61; seed < 65; seed++) {
		const struct herd_options options = {.seed = seed,
						     .nodes = 5,
						     .late = 1,
						     .copies = 4,
						     .min_insync = 3,
						     .pg_count = 1,
						     .volume_bytes = 16 * MIB};
		struct herd *herd = herd_new(&options);
		unsigned x = (unsigned)herd_primary(herd, 0), others[3];

		for (uint64_t at = 0; at < 16 * MIB; at += MIB)
			assert_int_equal(herd_write(herd, x, at, 16 * KIB), 0);
		for (unsigned i = 0; i < 3; i++)
			others[i] = node_of(herd, cluster_pg(herd_map(herd), 0)->target[1 + i]);
		unsigned p = others[0], b = others[1], c = others[2];
		herd_run(herd, 200);
		sim_partition(herd->nodes[x].host, herd->nodes[b].host);
		sim_partition(herd->nodes[x].host, herd->nodes[c].host);
		for (uint64_t at = 0; at < 16 * MIB; at += 4 * MIB)
			herd_write_begin(herd, x, at + 4096, 8 * KIB);
		herd_run(herd, 20);
		sim_partition(herd->nodes[p].host, herd->nodes[b].host);
		sim_partition(herd->nodes[p].host, herd->nodes[c].host);
		herd_kill(herd, x, SIM_DEATH_CERTAIN);
		herd_run(herd, 100);
		herd_kill(herd, b, SIM_DEATH_CERTAIN);
		herd_kill(herd, c, SIM_DEATH_CERTAIN);
		sim_unpartition(herd->nodes[p].host, herd->nodes[b].host);
		sim_unpartition(herd->nodes[p].host, herd->nodes[c].host);
		sim_unpartition(herd->nodes[x].host, herd->nodes[b].host);
		sim_unpartition(herd->nodes[x].host, herd->nodes[c].host);
		herd_start(herd, 4);
		herd_until(herd, 5000, newcomer_is_known, "the new node known");
		retarget_to(herd, (unsigned[]){p, b, c, 4}, 4);
		for (unsigned i = 0; i < 20000 && !is_in_sync(herd, 4); i++)
			herd_run(herd, 1);
		assert_true(is_in_sync(herd, 4));
		hits += herd_primary(herd, 0) == (int)p &&
			(is_in_sync(herd, b) || is_in_sync(herd, c));
		if (seed % 2)
			herd_run(herd, 3000);
		herd_kill(herd, p, SIM_DEATH_CERTAIN);
		herd_start(herd, b);
		herd_start(herd, c);
		herd_run(herd, 2000);
		herd_reopen(herd);
		for (uint64_t at = 0; at < 16 * MIB; at += 4 * MIB)
			assert_int_equal(herd_write(herd, b, at + 4096, 4096), 0);
		herd_start(herd, p);
		herd_until(herd, 60000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		herd_load_stop(herd);
		assert_int_equal(HERD_COUNTER(herd, diverged), 0);
		herd_check(herd);
		herd_free(herd);
	}
	assert_true(hits > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_write_that_marks_the_other_member_waits_until_it_is_filled),
		cmocka_unit_test(test_it_is_so_under_load),
		cmocka_unit_test(test_an_unclean_member_is_filled_though_objects_are_in_doubt),
		cmocka_unit_test(test_the_wait_ends_with_many_objects_in_doubt),
		cmocka_unit_test(test_a_primary_with_holes_at_the_floor_heals),
		cmocka_unit_test(test_a_primary_with_holes_heals_from_a_member_that_was_late),
		cmocka_unit_test(test_a_join_does_not_meet_a_member_whose_tail_is_unknown),
		cmocka_unit_test(
			test_a_store_that_joins_names_what_is_in_doubt_where_several_are_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
