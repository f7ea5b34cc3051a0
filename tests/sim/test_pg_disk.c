/*
 * Disks of whole nodes that hang or err: the cluster goes on without them (DESIGN, the promise, 3).
 *
 * Trap: with many clients something is always done; what counts is how long each single one waits.
 */
#include "tests/sim/herd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/base/size.h"

static struct herd *loaded(uint64_t seed)
{
	const struct herd_options options = {
		.seed = seed, .nodes = 3, .copies = 3, .pg_count = 8, .volume_bytes = 64 * MIB};
	struct herd *herd = herd_new(&options);

	herd_load_start(herd, 32);
	herd_run(herd, 1000);
	(void)herd_load_longest_ns(herd);
	return herd;
}

static void test_hung_disk_stops_its_store_and_clients_wait_less_than_three_seconds(void **state)
{
	uint64_t longest = 0;

	for (unsigned seed = 1; seed <= 4; seed++) {
		struct herd *herd = loaded(seed);
		unsigned node = seed % 3;
		uint64_t stall, done;

		sim_host_hang_disk(herd->nodes[node].host, true);
		herd_run(herd, 1900);
		assert_false(store_is_failed(herd->nodes[node].store));
		herd_run(herd, 300);
		assert_true(store_is_failed(herd->nodes[node].store));
		herd_run(herd, 4000);
		stall = herd_load_longest_ns(herd);
		longest = max_of(longest, stall);
		if (stall >= 3 * NS_PER_S)
			fail_msg("seed %u: somebody waited for %llu ms", seed,
				 (unsigned long long)(stall / NS_PER_MS));
		assert_true(stall >= 1 * NS_PER_S); /* it was felt */
		/* The node itself goes on: as a gateway it serves its clients. */
		done = herd_load_done(herd);
		herd_run(herd, 1000);
		assert_true(herd_load_done(herd) > done + 100);
		assert_true(herd_load_longest_ns(herd) < 1 * NS_PER_S);
		/* It comes back as a process of its own, and is filled. */
		herd_kill(herd, node, SIM_DEATH_CERTAIN);
		sim_host_hang_disk(herd->nodes[node].host, false);
		herd->nodes[node].says_unclean = true;
		herd_start(herd, node);
		herd_until(herd, 60000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		herd_load_stop(herd);
		herd_check(herd);
		herd_free(herd);
	}
	printf("the longest that a client waited: %llu ms\n",
	       (unsigned long long)(longest / NS_PER_MS));
}

/*
 * Nothing can be read and everything be written: a heal is written, read, and fails again. Clients of PGs
 * that such a store leads must not wait for the end of that.
 */
static void test_disk_that_reads_nothing_stops_its_store(void **state)
{
	for (unsigned seed = 31; seed <= 34; seed++) {
		struct herd *herd = loaded(seed);
		unsigned node = seed % 3;
		bool fails = seed < 34; /* else what comes is wrong */
		uint64_t stall;

		sim_host_break_reads(herd->nodes[node].host,
				     fails ? SIM_READS_FAIL : SIM_READS_LIE);
		herd_run(herd, fails ? 2000 : 20000);
		assert_true(store_is_failed(herd->nodes[node].store));
		herd_run(herd, 3000);
		stall = herd_load_longest_ns(herd);
		if (fails && stall >= 3 * NS_PER_S)
			fail_msg("seed %u: somebody waited for %llu ms", seed,
				 (unsigned long long)(stall / NS_PER_MS));
		herd_kill(herd, node, SIM_DEATH_CERTAIN);
		sim_host_break_reads(herd->nodes[node].host, SIM_READS_WORK);
		herd->nodes[node].says_unclean = true;
		herd_start(herd, node);
		herd_until(herd, 60000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		herd_load_stop(herd);
		herd_check(herd);
		herd_free(herd);
	}
}

/* File systems that have less room than their stores: clients get ENOSPC, and no store is lost. */
static void test_file_systems_that_fill_up_stop_no_store(void **state)
{
	for (unsigned seed = 41; seed <= 43; seed++) {
		struct herd *herd = loaded(seed);

		for (unsigned i = 0; i < 3; i++)
			sim_host_set_disk_size(herd->nodes[i].host,
					       sim_host_disk_used(herd->nodes[i].host) +
						       seed % 4 * 3 * MIB);
		herd_run(herd, 20000);
		for (unsigned i = 0; i < 3; i++)
			assert_false(store_is_failed(herd->nodes[i].store));
		herd_load_stop(herd);
		herd_check(herd);
		herd_free(herd);
	}
}

/* A clean stop of a node whose disk hangs does not wait for the disk. */
static void test_node_with_a_hung_disk_stops(void **state)
{
	for (unsigned seed = 11; seed <= 12; seed++) {
		struct herd *herd = loaded(seed);
		unsigned node = seed % 3;

		sim_host_hang_disk(herd->nodes[node].host, true);
		herd_run(herd, 3000);
		assert_true(store_is_failed(herd->nodes[node].store));
		herd_load_stop(herd);
		herd_stop(herd, node); /* it sees that nothing is left */
		herd_run(herd, 1000);
		herd_load_start(herd, 32);
		herd_run(herd, 1000);
		herd_load_stop(herd);
		herd_check(herd);
		herd_free(herd);
	}
}

/* Slow for all is not hung: disks on which everything takes half a second lose nobody. */
static void test_slow_disks_of_all_stop_nobody(void **state)
{
	const struct sim_latency slow = {.read_min_ns = 200 * NS_PER_MS,
					 .read_max_ns = 900 * NS_PER_MS,
					 .write_min_ns = 200 * NS_PER_MS,
					 .write_max_ns = 900 * NS_PER_MS,
					 .sync_min_ns = 200 * NS_PER_MS,
					 .sync_max_ns = 900 * NS_PER_MS};
	struct herd *herd = loaded(21);

	for (unsigned i = 0; i < 3; i++)
		sim_host_set_latency(herd->nodes[i].host, &slow);
	herd_run(herd, 20000);
	for (unsigned i = 0; i < 3; i++)
		assert_false(store_is_failed(herd->nodes[i].store));
	herd_until(herd, 60000, herd_is_healthy, "healthy");
	herd_load_stop(herd);
	herd_check(herd);
	herd_free(herd);
}

/*
 * The heir has the dead primary's last write in its log, and its disk has not written it yet. Reads do
 * not see it then; settled by what they see it would be gone, and the client, who sends it again, be
 * told that it was executed.
 */
static void test_what_the_heir_has_not_written_yet_is_settled_as_it_was_sent(void **state)
{
	unsigned hits = 0;

	for (unsigned seed = 1; seed <= 12; seed++) {
		const struct herd_options options = {.seed = seed,
						     .nodes = 3,
						     .copies = 3,
						     .pg_count = 1,
						     .volume_bytes = 32 * MIB};
		struct herd *herd = herd_new(&options);
		unsigned dead = (unsigned)herd_primary(herd, 0), slow = (dead + 1 + seed % 2) % 3;

		assert_int_equal(herd_write(herd, slow, 0, 64 * KIB), 0);
		sim_host_hang_disk(herd->nodes[slow].host, true);
		herd_write_begin(herd, slow, 0, 8 * KIB);
		herd_run(herd, 10);
		herd_kill(herd, dead, SIM_DEATH_CERTAIN);
		herd_run(herd, 100);
		sim_host_hang_disk(herd->nodes[slow].host, false);
		herd_run(herd, 500);
		hits += herd_primary(herd, 0) == (int)slow;
		assert_int_equal(herd_read(herd, slow, 0, 64 * KIB), 0);
		herd_start(herd, dead);
		herd_until(herd, 60000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		herd_load_stop(herd);
		herd_check(herd);
		herd_free(herd);
	}
	assert_true(hits >= 3); /* it was the slow one that led */
}

static bool is_damaged(struct herd *herd, unsigned node, const struct object_key *key)
{
	struct store_object object;

	assert_true(store_object(herd->nodes[node].store, 0, key, &object) > 0);
	return object.is_missing;
}

/*
 * A write that was lost on the way to the disk left many bad blocks in one object, and others find one after the
 * other. Each is healed from another copy, so whoever waits for that gets no error, however many there are.
 */
static void test_damage_that_others_find_is_no_error_of_a_write(void **state)
{
	const struct herd_options options = {
		.seed = 5, .nodes = 3, .copies = 3, .pg_count = 1, .volume_bytes = 4 * MIB};
	struct herd *herd = herd_new(&options);
	unsigned p = (unsigned)herd_primary(herd, 0);
	const struct cluster_volume *volume = cluster_volume_by_name(herd_map(herd), HERD_VOLUME);
	const struct object_key key = {.layer = volume->layers[0], .index = 0};
	uint64_t done;

	assert_int_equal(herd_write(herd, p, 0, 256 * KIB), 0);
	herd->may_diverge = true;
	assert_true(herd_damage_block(herd, p, 0, &key, 0));
	herd_run(herd, 1);
	done = herd_load_done(herd);
	herd_write_begin(herd, p, 0, 512);
	for (unsigned i = 1; i <= 12; i++) {
		while (HERD_COUNTER(herd, objects_healed) < i)
			(void)sim_world_run_until(
				herd->world, sim_now(herd->world) + 10 * NS_PER_US, NULL, NULL);
		assert_true(herd_damage_block(herd, p, 0, &key, (uint16_t)i));
		while (!is_damaged(herd, p, &key))
			(void)sim_world_run_until(
				herd->world, sim_now(herd->world) + 10 * NS_PER_US, NULL, NULL);
	}
	assert_int_equal(herd_load_done(herd),
			 done); /* it waits: this is what it had to live through */
	herd_run(herd, 1000);
	assert_int_equal(herd_load_done(herd), done + 1);
	herd_until(herd, 30000, herd_is_healthy, "healthy");
	herd_check(herd);
	herd_free(herd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			test_hung_disk_stops_its_store_and_clients_wait_less_than_three_seconds),
		cmocka_unit_test(test_disk_that_reads_nothing_stops_its_store),
		cmocka_unit_test(test_file_systems_that_fill_up_stop_no_store),
		cmocka_unit_test(test_node_with_a_hung_disk_stops),
		cmocka_unit_test(test_slow_disks_of_all_stop_nobody),
		cmocka_unit_test(test_what_the_heir_has_not_written_yet_is_settled_as_it_was_sent),
		cmocka_unit_test(test_damage_that_others_find_is_no_error_of_a_write),
	};
	struct logger logger = {.level = LOG_LEVEL_ERROR, .sink = log_sink_text};

	if (getenv("SHEEPFOLD_TEST_LOG"))
		logger.level = LOG_LEVEL_DEBUG;
	log_set_current(&logger);
	if (getenv("ONLY"))
		cmocka_set_test_filter(getenv("ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
