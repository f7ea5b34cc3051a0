/*
 * Elections after a total power loss, who may be elected, and directories that are not what they were
 * (REPLICATION, R2 to R4): one history each. TEST_MUTATE=RULE switches a rule off (lib/base/rule.h): then
 * the test that is its own fails.
 */
#ifndef SHEEPFOLD_MUTATIONS /* for who reads this file alone */
#define SHEEPFOLD_MUTATIONS
#endif
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/rule.h"
#include "lib/base/size.h"
#include "tests/sim/herd_priv.h"
#include "tests/sim/power_load.h"

#define ALL 0x7u

/* Copies on all of @nodes but the @late last; one PG, so that the test knows whom it looks at. */
static struct herd *one_pg(uint64_t seed, unsigned nodes, unsigned late, uint32_t copies,
			   uint32_t min_insync)
{
	const struct herd_options options = {.seed = seed,
					     .nodes = nodes,
					     .late = late,
					     .copies = copies,
					     .min_insync = min_insync,
					     .pg_count = 1,
					     .volume_bytes = 16 * MIB};

	return herd_new(&options);
}

static const struct cluster_pg *row_of(struct herd *herd)
{
	return cluster_pg(herd_map(herd), 0);
}

static const struct cluster_seat *seat_of(struct herd *herd, unsigned node)
{
	return cluster_pg_seat(row_of(herd), herd->nodes[node].store_id);
}

static void set(struct herd *herd, const char *name, uint64_t value)
{
	while (cluster_setting(herd_map(herd),
			       (enum cluster_setting_id)cluster_setting_find(name)) != value) {
		herd_propose(herd, cluster_command_setting(name, value));
		herd_run(herd, 50);
	}
}

static bool has_primary(struct herd *herd)
{
	return herd_primary(herd, 0) >= 0;
}

static bool all_registered(struct herd *herd)
{
	for (unsigned n = 0; n < herd->node_count; n++)
		if (herd->nodes[n].is_up && !herd->nodes[n].store_id)
			return false;
	return true;
}

static void start_and_register(struct herd *herd, unsigned node)
{
	herd_start(herd, node);
	herd_until(herd, 5000, all_registered, "registered");
}

/* The members have everything in their logs; then these lose what they did not sync, those do not. */
static void cut_unevenly(struct power_load *load, unsigned keeping, unsigned losing)
{
	if (losing)
		(void)power_load_cut(load, losing, SIM_DEATH_CERTAIN, SIM_DROP_UNSYNCED);
	if (keeping)
		(void)power_load_cut(load, keeping, SIM_DEATH_CERTAIN, SIM_KEEP_ALL);
}

static void write_some(struct power_load *load, unsigned node, uint32_t from, unsigned count)
{
	for (uint32_t i = 0; i < count; i++)
		assert_int_equal(power_load_write(load, node, from + i * 97), 0);
}

/* Whoever kept most leads, whichever that is, and nothing is lost that it kept. */
static void test_the_most_advanced_leads(void **state)
{
	for (unsigned best = 0; best < 3; best++) {
		struct herd *herd = one_pg(100 + best, 3, 0, 3, 2);
		struct power_load *load = power_load_new(herd);
		uint64_t loss_epoch;

		write_some(load, 0, 0, 20);
		assert_int_equal(power_load_flush(load, 0), 0);
		write_some(load, 1, 5, 20);
		cut_unevenly(load, 1u << best, ALL & ~(1u << best));
		power_start_all(herd);
		herd_until(herd, 5000, has_primary, "led");
		assert_int_equal(herd_primary(herd, 0), best);
		herd_until(herd, 10000, herd_is_healthy, "healthy");
		loss_epoch = row_of(herd)->loss_epoch;
		assert_true(loss_epoch > 0);
		herd_reopen(herd);
		power_load_check(load);
		assert_int_equal(power_load_gone_back(load), 0);
		power_load_end(load);
	}
}

/* One that is away may have more: it is waited for, but not for ever. */
static void test_an_election_waits_for_who_is_away(void **state)
{
	for (unsigned returns = 0; returns < 2; returns++) {
		struct herd *herd = one_pg(110 + returns, 3, 0, 3, 2);
		struct power_load *load = power_load_new(herd);

		set(herd, "power_loss_wait", 20000);
		write_some(load, 0, 0, 20);
		assert_int_equal(power_load_flush(load, 0), 0);
		write_some(load, 1, 5, 20);
		cut_unevenly(load, 1u << 2, 3);
		herd_run(herd, 1000);
		start_and_register(herd, 0);
		start_and_register(herd, 1);
		herd_run(herd, 19000);
		assert_int_equal(row_of(herd)->primary, 0);
		if (returns) {
			herd_start(herd, 2);
			herd_until(herd, 5000, has_primary, "led");
			assert_int_equal(herd_primary(herd, 0), 2);
		} else {
			herd_until(herd, 5000, has_primary, "led");
			assert_true(herd_primary(herd, 0) < 2);
			/* Those two go on, and make another history than the third one has. */
			herd_run(herd, 3000);
			herd_reopen(herd);
			write_some(load, 0, 5, 10);
			assert_int_equal(power_load_flush(load, 0), 0);
		}
		power_load_end(load);
	}
}

/* All are marked, and the one that has most goes away again before the last one returns. */
static void test_an_election_waits_for_a_marked_member_that_is_away_again(void **state)
{
	struct herd *herd = one_pg(120, 3, 0, 3, 2);
	struct power_load *load = power_load_new(herd);

	set(herd, "power_loss_wait", 20000);
	write_some(load, 0, 0, 20);
	assert_int_equal(power_load_flush(load, 0), 0);
	write_some(load, 1, 5, 20);
	cut_unevenly(load, 1u << 0, 6);
	herd_run(herd, 1000);
	start_and_register(herd, 0);
	herd_run(herd, 100);
	herd_kill(herd, 0, SIM_DEATH_CERTAIN);
	start_and_register(herd, 1);
	herd_run(herd, 15000);
	start_and_register(herd, 2);
	herd_run(herd, 19000);
	assert_int_equal(row_of(herd)->primary, 0);
	for (uint32_t i = 0; i < row_of(herd)->isr_count; i++)
		assert_int_equal(row_of(herd)->isr[i].flags, CLUSTER_SEAT_MARKED);
	herd_until(herd, 5000, has_primary, "led");
	assert_true(herd_primary(herd, 0) > 0);
	power_load_end(load);
}

/* One that is up and cannot be asked is as good as away. */
static void test_an_election_does_not_wait_for_ever_for_an_answer(void **state)
{
	struct herd *herd = one_pg(125, 3, 0, 3, 2);
	struct power_load *load = power_load_new(herd);

	set(herd, "power_loss_wait", 5000);
	write_some(load, 0, 0, 20);
	(void)power_load_cut(load, ALL, SIM_DEATH_CERTAIN, SIM_RANDOM_UNSYNCED);
	for (unsigned n = 0; n < 2; n++)
		sim_partition(herd->nodes[n].host, herd->nodes[2].host);
	for (unsigned n = 0; n < 3; n++)
		start_and_register(herd, n);
	herd_run(herd, 4500);
	assert_int_equal(row_of(herd)->primary, 0);
	herd_until(herd, 3000, has_primary, "led");
	for (unsigned n = 0; n < 2; n++)
		sim_unpartition(herd->nodes[n].host, herd->nodes[2].host);
	power_load_end(load);
}

/* ---- who may be elected ---- */

/* Object 0 is there with its version, but its content is not to be trusted. */
static void make_hole(struct herd *herd, unsigned node)
{
	(void)herd_make_hole(herd, node, 0);
	herd->may_diverge = true;
}

/* Who has most leads, though an object is damaged there: a marked member has the very version of it. */
static void test_an_elected_store_is_healed_by_a_marked_member(void **state)
{
	for (unsigned best = 0; best < 2; best++) {
		struct herd *herd = one_pg(127 + best, 2, 0, 2, 1);
		struct power_load *load = power_load_new(herd);

		write_some(load, 0, 0, 8);
		assert_int_equal(power_load_flush(load, 0), 0);
		write_some(load, 1, 3 * 1024, 5);
		make_hole(herd, best);
		cut_unevenly(load, 1u << best, 3 & ~(1u << best));
		power_start_all(herd);
		herd_until(herd, 5000, has_primary, "led");
		assert_int_equal(herd_primary(herd, 0), best);
		power_load_end(load);
	}
}

static bool is_joining(struct herd *herd)
{
	return row_of(herd)->join_count > 0;
}

static struct version last_of(struct herd *herd, unsigned node)
{
	struct store_pg_info info;

	store_pg_info(herd->nodes[node].store, 0, &info);
	return info.last;
}

/*
 * A half-filled store has the newest entry, and holes: it lost its power first, was marked and began a
 * join; then the other one, too, loses its newest entries.
 */
static void test_a_joiner_with_the_newest_entry_is_not_elected(void **state)
{
	for (unsigned seed = 130; seed < 134; seed++) {
		struct herd *herd = one_pg(seed, 2, 0, 2, 1);
		struct power_load *load = power_load_new(herd);
		unsigned primary = (unsigned)herd_primary(herd, 0), joiner = !primary;

		set(herd, "recovery_paused", 1);
		write_some(load, primary, 3 * 1024, 10); /* both have that, for good */
		assert_int_equal(power_load_flush(load, primary), 0);
		write_some(load, primary, 0, 20);
		(void)power_load_cut(load, 1u << joiner, SIM_DEATH_SILENT, SIM_DROP_UNSYNCED);
		start_and_register(herd, joiner);
		herd_until(herd, 5000, is_joining, "joining");
		assert_int_equal(power_load_flush(load, primary),
				 0); /* one copy now, by min_insync */
		herd_run(herd, 500);
		write_some(load, primary, 3 * 1024, 10);
		herd_run(herd, 100);
		assert_int_equal(version_compare(last_of(herd, primary), last_of(herd, joiner)), 0);
		cut_unevenly(load, 1u << joiner, 1u << primary);
		power_start_all(herd);
		herd_until(herd, 5000, all_registered, "registered");
		assert_true(version_compare(last_of(herd, primary), last_of(herd, joiner)) < 0);
		herd_until(herd, 5000, has_primary, "led");
		set(herd, "recovery_paused", 0);
		power_load_end(load);
	}
}

/*
 * A member that lost power is marked, and not yet joining. What is written, or flushed, by the others
 * now it lacks; so if they go away for good, before its join begins, it must not have been kept.
 */
static void keep_without(unsigned seed, bool is_flush)
{
	struct herd *herd = one_pg(seed, 2, 0, 2, 1);
	struct power_load *load = power_load_new(herd);
	unsigned primary = (unsigned)herd_primary(herd, 0), member = !primary;
	const struct cluster_seat *seat;

	set(herd, "power_loss_wait", 2000);
	write_some(load, primary, 0, 10);
	assert_int_equal(power_load_flush(load, primary), 0);
	write_some(load, primary, 0, 10);
	(void)power_load_cut(load, 1u << member, SIM_DEATH_SILENT, SIM_DROP_UNSYNCED);
	sim_log_set_delay(herd->log, 10 * NS_PER_MS, 20 * NS_PER_MS);
	herd_start(herd, member);
	while (!(seat = seat_of(herd, member)) || !(seat->flags & CLUSTER_SEAT_MARKED))
		(void)sim_world_run_until(herd->world, sim_now(herd->world) + 50 * NS_PER_US, NULL,
					  NULL);
	if (is_flush)
		power_load_flush_begin(load, primary);
	else
		power_load_write_begin(load, primary, 0);
	while (power_load_flying(load) > 0 && !(seat_of(herd, member)->flags & CLUSTER_SEAT_STALE))
		(void)sim_world_run_until(herd->world, sim_now(herd->world) + 50 * NS_PER_US, NULL,
					  NULL);
	if (power_load_flying(load) == 0) {
		herd_kill(herd, primary, SIM_DEATH_CERTAIN);
		herd_run(herd, 10000);
	}
	power_load_end(load);
}

static void test_nothing_is_kept_without_a_member_that_can_be_elected(void **state)
{
	for (unsigned seed = 140; seed < 143; seed++) {
		keep_without(seed, false);
		keep_without(seed, true);
	}
}

/* ---- directories that are put back, copied, or empty ---- */

/* An older copy of the directory is put back: it has less than it acknowledged, and does not know. */
static void test_a_restored_directory_is_filled_again(void **state)
{
	for (unsigned seed = 150; seed < 154; seed++) {
		struct herd *herd = one_pg(seed, 2, 0, 2, 2);
		struct power_load *load = power_load_new(herd);
		unsigned member = seed % 2;
		struct sim_host *host = herd->nodes[member].host;
		struct sim_host *shelf = sim_host_new(herd->world, "shelf");

		write_some(load, 0, 0, 20);
		assert_int_equal(power_load_flush(load, 0), 0);
		herd_stop(herd, member);
		sim_host_copy_disk(shelf, host);
		start_and_register(herd, member);
		herd_until(herd, 10000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		write_some(load, 1, 0, 30);
		assert_int_equal(power_load_flush(load, 1), 0);
		herd_kill(herd, member, SIM_DEATH_CERTAIN);
		sim_host_wipe(host);
		sim_host_copy_disk(host, shelf);
		start_and_register(herd, member);
		assert_true(seat_of(herd, member)->flags & CLUSTER_SEAT_MARKED);
		assert_true(seat_of(herd, member)->flags & CLUSTER_SEAT_STALE);
		power_load_end(load);
	}
}

/* All lose power, and one of them comes back with an older directory: it cannot be elected. */
static void test_a_restored_directory_is_not_elected(void **state)
{
	struct herd *herd = one_pg(160, 2, 0, 2, 1);
	struct power_load *load = power_load_new(herd);
	struct sim_host *shelf = sim_host_new(herd->world, "shelf");

	write_some(load, 0, 0, 20);
	assert_int_equal(power_load_flush(load, 0), 0);
	herd_stop(herd, 0);
	sim_host_copy_disk(shelf, herd->nodes[0].host);
	start_and_register(herd, 0);
	herd_until(herd, 10000, herd_is_healthy, "healthy");
	herd_reopen(herd);
	set(herd, "power_loss_wait", 1000);
	write_some(load, 1, 0, 30);
	assert_int_equal(power_load_flush(load, 1), 0);
	(void)power_load_cut(load, 3, SIM_DEATH_SILENT, SIM_RANDOM_UNSYNCED);
	sim_host_wipe(herd->nodes[0].host);
	sim_host_copy_disk(herd->nodes[0].host, shelf);
	start_and_register(herd, 0);
	herd_run(herd, 10000); /* much longer than power_loss_wait */
	assert_int_not_equal(herd_primary(herd, 0), 0);
	power_load_end(load);
}

/* A second machine with a copy: refused while the first is up; taken for a restored one afterwards. */
static void test_a_copied_directory_is_refused_or_filled_again(void **state)
{
	struct herd *herd = one_pg(170, 3, 1, 2, 2);
	struct power_load *load = power_load_new(herd);
	struct herd_node *first = &herd->nodes[0], *second = &herd->nodes[2];

	write_some(load, 0, 0, 20);
	assert_int_equal(power_load_flush(load, 0), 0);
	herd_stop(herd, 0);
	sim_host_copy_disk(second->host, first->host);
	start_and_register(herd, 0);
	herd_until(herd, 10000, herd_is_healthy, "healthy");
	herd_reopen(herd);
	write_some(load, 1, 0, 30);
	assert_int_equal(power_load_flush(load, 1), 0);
	herd_start(herd, 2);
	herd_run(herd, 3000);
	assert_int_equal(second->store_id, 0); /* refused, again and again */
	assert_true(herd_primary(herd, 0) == 0 || herd_primary(herd, 0) == 1);
	power_load_check(load);
	herd_kill(herd, 0, SIM_DEATH_CERTAIN);
	herd_until(herd, 5000, all_registered, "the second one registered");
	/* It has the number of the first one, raised at its own start: the same, and not the same start. */
	assert_true(seat_of(herd, 2)->flags & CLUSTER_SEAT_MARKED);
	herd_until(herd, 10000, herd_is_healthy, "healthy");
	herd_open_volume(&herd->nodes[2]);
	herd_run(herd, 500);
	power_load_check(load);
	/* And the first one comes back: now it is the copy. */
	herd_kill(herd, 2, SIM_DEATH_CERTAIN);
	start_and_register(herd, 0);
	herd_until(herd, 10000, herd_is_healthy, "healthy");
	herd_reopen(herd);
	power_load_stop(load);
	power_load_check(load);
	power_load_free(load);
	herd_free(herd);
}

/* An empty directory under the old path is another store: it counts for nobody. */
static void test_a_blank_store_is_nobody(void **state)
{
	struct herd *herd = one_pg(180, 2, 0, 2, 2);
	struct power_load *load = power_load_new(herd);
	uint32_t old = herd->nodes[0].store_id;

	write_some(load, 1, 0, 20);
	assert_int_equal(power_load_flush(load, 1), 0);
	herd_kill(herd, 0, SIM_DEATH_CERTAIN);
	sim_host_wipe(herd->nodes[0].host);
	start_and_register(herd, 0);
	assert_int_not_equal(herd->nodes[0].store_id, old);
	herd_run(herd, 2000);
	assert_null(seat_of(herd, 0));
	assert_non_null(cluster_pg_seat(row_of(herd), old)); /* at the floor it is waited for */
	/* The disk is given up: then the new one takes its place, and is filled. */
	herd->out_stores[herd->out_store_count++] = old;
	power_load_end(load);
}

/* ---- an operator accepts loss ---- */

static bool is_forced(struct herd *herd)
{
	return row_of(herd)->forced > 0;
}

/*
 * A was away when P went on alone. P dies; the operator believes A. Gateways hear of the loss, it is
 * recorded for ever, and P, when it comes back, has another history.
 */
static void test_a_forced_store_leads_and_who_returns_is_filled_from_it(void **state)
{
	for (unsigned seed = 190; seed < 194; seed++) {
		struct herd *herd = one_pg(seed, 3, 0, 2, 1);
		struct power_load *load = power_load_new(herd);
		unsigned p = (unsigned)herd_primary(herd, 0), a = 3, gateway;
		uint64_t old_loss;

		for (unsigned n = 0; n < 3; n++)
			if (n != p && seat_of(herd, n))
				a = n;
		assert_true(a < 3);
		gateway = 3 - p - a;
		write_some(load, gateway, 0, 20);
		assert_int_equal(power_load_flush(load, gateway), 0);
		herd_kill(herd, a, SIM_DEATH_CERTAIN);
		herd_run(herd, 500);
		write_some(load, gateway, 0, 25); /* on P alone */
		if (seed % 2)
			assert_int_equal(power_load_flush(load, gateway), 0);
		write_some(load, gateway, 0, 10);
		herd_kill(herd, p, SIM_DEATH_CERTAIN);
		start_and_register(herd, a);
		herd_run(herd, 5000);
		assert_int_equal(herd_primary(herd, 0), -1); /* nobody believes A by itself */
		old_loss = row_of(herd)->loss_epoch;
		power_load_forgive(load);
		while (!is_forced(herd)) {
			herd_propose(herd, cluster_command_pg_force(0, row_of(herd)->epoch,
								    herd->nodes[a].store_id));
			herd_run(herd, 100);
		}
		assert_int_equal(row_of(herd)->forced, 1);
		assert_true(row_of(herd)->loss_epoch > old_loss);
		herd_until(herd, 5000, has_primary, "led");
		assert_int_equal(herd_primary(herd, 0), a);
		assert_int_equal(power_load_flush(load, gateway), -E_LOST_WRITES);
		herd_reopen(herd);
		write_some(load, gateway, 3, 10);
		start_and_register(herd, p);
		assert_null(seat_of(herd, p)); /* not trusted: it joins like a stranger */
		herd_until(herd, 20000, herd_is_healthy, "healthy");
		assert_int_equal(row_of(herd)->forced, 1);
		power_load_end(load);
	}
}

/* Flip a bit of a batch's descriptor, in the middle of all batches of the log's first segment. */
static void damage_log(struct herd_node *node)
{
	static const char path[] = "/disk/segment.00.00000";
	uint64_t places[512];
	uint32_t count = 0;
	uint8_t head[64];

	for (uint64_t at = 0;
	     sim_file_peek(node->host, path, head, sizeof(head), at) == (int64_t)sizeof(head) &&
	     count < ARRAY_COUNT(places);
	     at += BLOCK_SIZE)
		if (memcmp(head, "SPFB", 4) == 0)
			places[count++] = at;
	assert_true(count > 20);
	uint64_t at = places[count / 2] + 40;
	assert_int_equal(sim_file_peek(node->host, path, head, 1, at), 1);
	head[0] ^= 1;
	assert_int_equal(sim_file_poke(node->host, path, head, 1, at), 0);
}

/*
 * Its log ends before what it had synced, for a bad block in the middle. It is the only one that is back
 * after power_loss_wait, and must not lead for all that: the other one has what was flushed, and comes.
 */
static void test_a_store_that_lost_a_part_of_its_log_is_not_elected(void **state)
{
	for (unsigned seed = 220; seed < 223; seed++) {
		struct herd *herd = one_pg(seed, 2, 0, 2, 1 + seed % 2);
		struct power_load *load = power_load_new(herd);

		set(herd, "power_loss_wait", 1000);
		for (unsigned i = 0; i < 10; i++) {
			write_some(load, 0, i, 4);
			assert_int_equal(power_load_flush(load, 0), 0);
		}
		cut_unevenly(load, 0x3, 0);
		damage_log(&herd->nodes[0]);
		start_and_register(herd, 0);
		assert_true(seat_of(herd, 0)->flags & CLUSTER_SEAT_STALE);
		herd_run(herd, 10000);
		assert_int_equal(row_of(herd)->primary, 0);
		start_and_register(herd, 1);
		herd_until(herd, 5000, has_primary, "led");
		assert_int_equal(herd_primary(herd, 0), 1);
		herd_until(herd, 20000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		power_load_check(load);
		power_load_end(load);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_most_advanced_leads),
		cmocka_unit_test(test_an_election_waits_for_who_is_away),
		cmocka_unit_test(test_an_election_waits_for_a_marked_member_that_is_away_again),
		cmocka_unit_test(test_an_election_does_not_wait_for_ever_for_an_answer),
		cmocka_unit_test(test_an_elected_store_is_healed_by_a_marked_member),
		cmocka_unit_test(test_a_joiner_with_the_newest_entry_is_not_elected),
		cmocka_unit_test(test_nothing_is_kept_without_a_member_that_can_be_elected),
		cmocka_unit_test(test_a_restored_directory_is_filled_again),
		cmocka_unit_test(test_a_restored_directory_is_not_elected),
		cmocka_unit_test(test_a_copied_directory_is_refused_or_filled_again),
		cmocka_unit_test(test_a_blank_store_is_nobody),
		cmocka_unit_test(test_a_store_that_lost_a_part_of_its_log_is_not_elected),
		cmocka_unit_test(test_a_forced_store_leads_and_who_returns_is_filled_from_it),
	};
	const char *mutate = getenv("TEST_MUTATE");

	if (mutate && !rule_switch_off(mutate)) {
		(void)fprintf(stderr, "no such rule: %s\n", mutate);
		return 1;
	}
	if (getenv("TEST_ONLY"))
		cmocka_set_test_filter(getenv("TEST_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
