/* Recovery: what clients ask for goes first, and the pace is what the operator says, at once (J6). */
#include "tests/sim/herd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/base/size.h"
#include "sheep/cluster/command.h"

#define OBJECTS 16u

static struct herd *make(uint64_t seed, uint32_t bytes)
{
	const struct herd_options options = {.seed = seed,
					     .nodes = 3,
					     .copies = 3,
					     .min_insync = 2,
					     .pg_count = 1,
					     .volume_bytes = (uint64_t)OBJECTS * OBJECT_SIZE};
	struct herd *herd = herd_new(&options);

	for (uint64_t i = 0; i < OBJECTS; i++)
		for (uint64_t at = 0; at < bytes; at += 64 * KIB)
			assert_int_equal(herd_write(herd, 0, i * OBJECT_SIZE + at, 64 * KIB), 0);
	return herd;
}

static void set(struct herd *herd, enum cluster_setting_id id, uint64_t value)
{
	for (unsigned i = 0; i < 50 && cluster_setting(herd_map(herd), id) != value; i++) {
		herd_propose(herd, cluster_command_setting(cluster_settings[id].name, value));
		herd_run(herd, 10);
	}
	assert_int_equal(cluster_setting(herd_map(herd), id), value);
	herd_run(herd, 10); /* the others have it, too */
}

static void make_hole(struct herd *herd, unsigned node, uint32_t index)
{
	struct object_key key = herd_make_hole(herd, node, index);

	pg_set_store_corrupt(herd->nodes[node].set, herd->nodes[node].store, 0, &key);
}

static unsigned missing(struct herd *herd, unsigned node)
{
	struct store_pg_info info;

	store_pg_info(herd->nodes[node].store, 0, &info);
	return info.missing;
}

static bool is_compared(struct herd *herd)
{
	return HERD_COUNTER(herd, objects_compared) >= OBJECTS;
}

static bool is_whole(struct herd *herd)
{
	const struct cluster_pg *row = cluster_pg(herd_map(herd), 0);

	for (uint32_t i = 0; i < row->isr_count; i++)
		if (row->isr[i].flags)
			return false;
	return herd_is_healthy(herd) && missing(herd, 0) + missing(herd, 1) + missing(herd, 2) == 0;
}

/* A member lacks objects, and nothing is to be recovered now. A write fills the one that it is for. */
static void test_an_object_that_a_client_writes_is_filled_first(void **state)
{
	struct herd *herd = make(1, 64 * KIB);
	unsigned primary = (unsigned)herd_primary(herd, 0), member = (primary + 1) % 3;

	set(herd, CLUSTER_SETTING_RECOVERY_PAUSED, 1);
	for (uint32_t i = 0; i < OBJECTS; i++)
		make_hole(herd, member, i);
	herd_until(herd, 20000, is_compared, "compared");
	assert_int_equal(missing(herd, member), OBJECTS);
	uint64_t epoch = cluster_pg(herd_map(herd), 0)->epoch;
	uint64_t began = sim_now(herd->world);
	assert_int_equal(herd_write(herd, member, 13 * OBJECT_SIZE + 4096, 8192), 0);
	assert_int_equal(herd_write(herd, primary, 7 * OBJECT_SIZE, 512), 0);
	assert_true(sim_now(herd->world) - began < 200 * NS_PER_MS);
	assert_int_equal(missing(herd, member), OBJECTS - 2);
	assert_int_equal(cluster_pg(herd_map(herd), 0)->epoch, epoch); /* nobody had to leave */
	assert_int_equal(HERD_COUNTER(herd, diverged), 0);
	herd_run(herd, 3000);
	assert_int_equal(missing(herd, member), OBJECTS - 2);
	set(herd, CLUSTER_SETTING_RECOVERY_PAUSED, 0);
	herd_until(herd, 5000, is_whole, "whole");
	herd_check(herd);
	herd_free(herd);
}

/* The primary lacks them: a read fetches the one that it is for. */
static void test_an_object_that_a_client_reads_is_fetched_first(void **state)
{
	struct herd *herd = make(2, 64 * KIB);
	unsigned primary = (unsigned)herd_primary(herd, 0);

	set(herd, CLUSTER_SETTING_RECOVERY_PAUSED, 1);
	for (uint32_t i = 0; i < OBJECTS; i++)
		make_hole(herd, primary, i);
	herd_run(herd, 1000);
	assert_int_equal(missing(herd, primary), OBJECTS);
	uint64_t began = sim_now(herd->world);
	assert_int_equal(herd_read(herd, primary, 13 * OBJECT_SIZE, 64 * KIB), 0);
	assert_true(sim_now(herd->world) - began < 200 * NS_PER_MS);
	assert_int_equal(missing(herd, primary), OBJECTS - 1);
	herd_run(herd, 3000);
	assert_int_equal(missing(herd, primary), OBJECTS - 1);
	set(herd, CLUSTER_SETTING_RECOVERY_PAUSED, 0);
	herd_until(herd, 5000, is_whole, "whole");
	herd_check(herd);
	herd_free(herd);
}

/* A store is away while all objects are written, and returns over a long way. */
static struct herd *joining(uint64_t seed)
{
	struct herd *herd = make(seed, 64 * KIB);
	unsigned p = (unsigned)herd_primary(herd, 0), b = (p + 1) % 3;

	herd_kill(herd, b, SIM_DEATH_CERTAIN);
	herd_run(herd, 500);
	for (uint64_t i = 0; i < OBJECTS; i++)
		for (uint64_t at = 0; at < MIB; at += 64 * KIB)
			assert_int_equal(herd_write(herd, p, i * OBJECT_SIZE + at, 64 * KIB), 0);
	set(herd, CLUSTER_SETTING_RECOVERY_PARALLEL, 1);
	sim_link_set_delay(herd->nodes[p].host, herd->nodes[b].host, 20 * NS_PER_MS,
			   20 * NS_PER_MS);
	return herd;
}

static bool has_pushed(struct herd *herd)
{
	return HERD_COUNTER(herd, objects_pushed) >= 2;
}

static uint64_t pushed(struct herd *herd)
{
	return HERD_COUNTER(herd, blocks_pushed) * BLOCK_SIZE;
}

static void finish(struct herd *herd, uint64_t ms)
{
	herd_until(herd, ms, herd_is_healthy, "healthy");
	herd_reopen(herd);
	herd_check(herd);
	herd_free(herd);
}

static void test_a_join_pauses_and_goes_on_at_once(void **state)
{
	struct herd *herd = joining(3);

	herd_start(herd, ((unsigned)herd_primary(herd, 0) + 1) % 3);
	herd_until(herd, 10000, has_pushed, "some are pushed");
	set(herd, CLUSTER_SETTING_RECOVERY_PAUSED, 1);
	herd_run(herd, 200); /* what had begun */
	uint64_t before = pushed(herd);
	assert_true(before < OBJECTS * MIB);
	herd_run(herd, 5000);
	assert_int_equal(pushed(herd), before);
	set(herd, CLUSTER_SETTING_RECOVERY_PAUSED, 0);
	herd_run(herd, 200);
	assert_true(pushed(herd) > before);
	finish(herd, 10000);
}

static void test_a_join_goes_at_the_rate_that_is_set_now(void **state)
{
	struct herd *herd = joining(4);

	set(herd, CLUSTER_SETTING_RECOVERY_RATE, MIB);
	herd_start(herd, ((unsigned)herd_primary(herd, 0) + 1) % 3);
	herd_until(herd, 10000, has_pushed, "some are pushed");
	uint64_t before = pushed(herd);
	herd_run(herd, 5000);
	uint64_t moved = pushed(herd) - before;
	assert_true(moved >= 4 * MIB && moved <= 7 * MIB); /* an object more or less */
	set(herd, CLUSTER_SETTING_RECOVERY_RATE, 0);
	finish(herd, 3000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_object_that_a_client_writes_is_filled_first),
		cmocka_unit_test(test_an_object_that_a_client_reads_is_fetched_first),
		cmocka_unit_test(test_a_join_pauses_and_goes_on_at_once),
		cmocka_unit_test(test_a_join_goes_at_the_rate_that_is_set_now),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
