/* Joining, deltas, restarts of everything, damage, garbage (REPLICATION, J1-J6, D1, M2). */
#include "tests/sim/herd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/bitmap.h"
#include "lib/base/size.h"

static struct herd *make(uint64_t seed, unsigned nodes, uint32_t pg_count)
{
	const struct herd_options options = {.seed = seed,
					     .nodes = nodes,
					     .copies = 3,
					     .pg_count = pg_count,
					     .volume_bytes = 32 * MIB};

	return herd_new(&options);
}

static void heal(struct herd *herd)
{
	for (unsigned i = 0; i < herd->node_count; i++)
		if (!herd->nodes[i].is_up)
			herd_start(herd, i);
	herd_until(herd, 60000, herd_is_healthy, "healthy");
	herd_reopen(herd);
}

static bool two_left(struct herd *herd)
{
	struct cluster_summary summary;

	cluster_summary(herd_map(herd), &summary);
	return summary.pgs_active == summary.pgs_total && summary.nodes_up == 2;
}

/* Few blocks of large objects: what is pushed is those blocks, not the objects. */
static void test_a_store_that_was_away_gets_the_blocks_it_missed(void **state)
{
	for (unsigned seed = 1; seed <= 6; seed++) {
		struct herd *herd = make(seed, 3, 4);
		uint64_t written[BITMAP_WORDS(32 * MIB / BLOCK_SIZE)] = {0};
		unsigned away = seed % 3, up = (away + 1) % 3;

		for (uint64_t at = 0; at < 32 * MIB; at += 64 * KIB)
			assert_int_equal(herd_write(herd, at / MIB % 3, at, 64 * KIB), 0);
		herd_kill(herd, away, SIM_DEATH_CERTAIN);
		herd_until(herd, 5000, two_left, "two nodes serve");
		for (unsigned i = 0; i < 150; i++) {
			uint32_t block = (uint32_t)random_below(sim_random(herd->world),
								32 * MIB / BLOCK_SIZE - 4);
			uint32_t count = 1 + i % 3;
			assert_int_equal(herd_write(herd, up, (uint64_t)block * BLOCK_SIZE,
						    count * BLOCK_SIZE),
					 0);
			for (uint32_t b = block; b < block + count; b++)
				bitmap_set(written, b);
		}
		uint64_t before = HERD_COUNTER(herd, recovery_bytes);
		heal(herd);
		uint64_t moved = HERD_COUNTER(herd, recovery_bytes) - before;
		uint64_t distinct =
			(uint64_t)bitmap_count(written, 32 * MIB / BLOCK_SIZE) * BLOCK_SIZE;
		assert_true(moved >= distinct);
		assert_true(moved <= distinct * 11 / 10);
		herd_check(herd);
		herd_free(herd);
	}
}

static void test_a_store_joins_while_clients_write(void **state)
{
	for (unsigned seed = 10; seed < 16; seed++) {
		struct herd *herd = make(seed, 4, 2);

		herd_load_start(herd, 16);
		herd_run(herd, 500);
		herd_kill(herd, seed % 4, SIM_DEATH_CERTAIN);
		herd_run(herd, 1000);
		heal(herd);
		herd_load_stop(herd);
		herd_check(herd);
		assert_int_equal(HERD_COUNTER(herd, digest_mismatches), 0);
		herd_free(herd);
	}
}

/* Synced before it is acknowledged: only until the member is in sync, not for ever after (J4). */
static void test_a_store_that_has_joined_is_as_fast_as_the_others(void **state)
{
	struct herd *herd = make(17, 3, 2);
	struct store_counters before, after;

	assert_int_equal(herd_write(herd, 0, 0, 64 * KIB), 0);
	herd_kill(herd, 1, SIM_DEATH_CERTAIN);
	herd_until(herd, 5000, two_left, "two nodes serve");
	assert_int_equal(herd_write(herd, 0, 0, 64 * KIB), 0);
	heal(herd);
	for (unsigned i = 0; i < 30; i++)
		assert_int_equal(herd_write(herd, 0, i * 256 * KIB, 4096), 0);
	store_counters(herd->nodes[1].store, &before);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(herd_write(herd, 0, i * 256 * KIB, 4096), 0);
	store_counters(herd->nodes[1].store, &after);
	assert_true(after.batches - before.batches >= 50);
	assert_true(after.syncs - before.syncs < 20);
	herd_check(herd);
	herd_free(herd);
}

/* The joining store is killed again and again: it pays only for what it does not have yet. */
static void test_a_join_that_is_cut_off_goes_on_where_it_was(void **state)
{
	struct herd *herd = make(20, 3, 1);

	herd_kill(herd, 2, SIM_DEATH_CERTAIN);
	herd_until(herd, 5000, two_left, "two nodes serve");
	for (uint64_t at = 0; at < 32 * MIB; at += 64 * KIB)
		assert_int_equal(herd_write(herd, 0, at, 64 * KIB), 0);
	for (unsigned i = 0; i < 4; i++) {
		herd_start(herd, 2);
		/* Let it get some of the eight objects. */
		uint64_t pushed = HERD_COUNTER(herd, blocks_pushed);
		for (unsigned t = 0; t < 4000 && HERD_COUNTER(herd, blocks_pushed) < pushed + 600;
		     t++)
			herd_run(herd, 1);
		if (!herd_is_healthy(herd))
			herd_kill(herd, 2, SIM_DEATH_CERTAIN);
		else
			break;
	}
	heal(herd);
	/* Objects that were half way are pushed whole again: at most as many as are pushed at a time. */
	assert_true(HERD_COUNTER(herd, blocks_pushed) * BLOCK_SIZE >= 32 * MIB);
	assert_true(HERD_COUNTER(herd, blocks_pushed) * BLOCK_SIZE <= 3 * 32 * MIB);
	herd_check(herd);
	herd_free(herd);
}

static void test_all_nodes_are_killed_at_once_and_nothing_is_lost(void **state)
{
	struct herd *herd = make(30, 3, 8);

	herd_load_start(herd, 24);
	for (unsigned round = 0; round < 6; round++) {
		herd_run(herd, 300 + 37 * round);
		for (unsigned i = 0; i < 3; i++)
			herd_kill(herd, i, round % 2 ? SIM_DEATH_CERTAIN : SIM_DEATH_SILENT);
		herd_run(herd, 10);
		heal(herd);
	}
	herd_load_stop(herd);
	herd_check(herd);
	herd_free(herd);
}

/* A member that nobody can reach is shrunk away before what it missed is acknowledged. */
static void test_a_write_completes_only_when_the_silent_member_is_out(void **state)
{
	struct herd *herd = make(40, 3, 1);
	int primary = herd_primary(herd, 0);
	unsigned cut = (unsigned)(primary + 1) % 3, gateway = (unsigned)(primary + 2) % 3;

	assert_int_equal(herd_write(herd, gateway, 0, 4096), 0);
	uint32_t before = cluster_pg(herd_map(herd), 0)->isr_count;
	assert_int_equal(before, 3);
	sim_log_set_delay(herd->log, 40 * NS_PER_MS, 60 * NS_PER_MS); /* so that it can be seen */
	sim_partition(herd->nodes[primary].host, herd->nodes[cut].host);
	uint64_t done = herd_load_done(herd);
	herd_write_begin(herd, gateway, 8192, 4096);
	for (unsigned i = 0; i < 6000; i++) {
		uint64_t epoch = cluster_pg(herd_map(herd), 0)->epoch;
		uint32_t members = cluster_pg(herd->nodes[primary].map, 0)->isr_count;
		if (herd_load_done(herd) > done) {
			assert_int_equal(members, 2);
			assert_true(epoch > 0);
			break;
		}
		herd_run(herd, 1);
	}
	assert_true(herd_load_done(herd) > done);
	assert_true(HERD_COUNTER(herd, shrinks) > 0);
	sim_log_set_delay(herd->log, NS_PER_MS, 2 * NS_PER_MS);
	sim_unpartition(herd->nodes[primary].host, herd->nodes[cut].host);
	heal(herd);
	herd_check(herd);
	herd_free(herd);
}

static bool one_left(struct herd *herd)
{
	struct cluster_summary summary;

	cluster_summary(herd_map(herd), &summary);
	return summary.nodes_up == 1;
}

/*
 * Two of three are lost, one after the other; the first returns. The floor of two keeps the second one
 * listed, whatever had been led by whom: the PGs wait until the first is filled, then go on without
 * the second (S1).
 */
static void test_below_the_floor_a_returning_store_is_filled_and_ends_the_wait(void **state)
{
	for (unsigned seed = 70; seed < 74; seed++) {
		struct herd *herd = make(seed, 3, 4);
		unsigned a = seed % 3, b = (a + 1) % 3, c = (a + 2) % 3;

		for (uint64_t at = 0; at < 32 * MIB; at += MIB)
			assert_int_equal(herd_write(herd, c, at, 16 * KIB), 0);
		herd_kill(herd, a, SIM_DEATH_CERTAIN);
		herd_until(herd, 5000, two_left, "two nodes serve");
		for (uint64_t at = 0; at < 32 * MIB; at += 2 * MIB)
			assert_int_equal(herd_write(herd, c, at, 8 * KIB), 0);
		for (uint64_t at = 0; at < 8; at++) /* some of them in flight */
			herd_write_begin(herd, c, at * 4 * MIB + 64 * KIB, 16 * KIB);
		herd_run(herd, seed % 2);
		herd_kill(herd, b, SIM_DEATH_CERTAIN);
		herd_until(herd, 5000, one_left, "one node left");
		herd_write_begin(herd, c, 512 * KIB, 4096);
		herd_run(herd, 2000);
		herd_start(herd, a);
		herd_until(herd, 30000, two_left, "two nodes serve again");
		assert_int_equal(herd_write(herd, c, 640 * KIB, 4096), 0);
		herd_load_stop(herd);
		heal(herd);
		herd_check(herd);
		herd_free(herd);
	}
}

static bool all_in_sync(struct herd *herd)
{
	const struct cluster_pg *row = cluster_pg(herd_map(herd), 0);

	return cluster_pg_in_sync(row) == 3 && row->join_count == 0;
}

/*
 * It came by pushes, is as far as its primary, and has no entry of this reign in its log. When it is
 * started again, unmarked, it must still know where it was (W1).
 */
static void test_a_store_that_joined_by_pushes_knows_its_place_when_it_restarts(void **state)
{
	for (unsigned seed = 110; seed < 114; seed++) {
		struct herd *herd = make(seed, 3, 1);
		unsigned p = (unsigned)herd_primary(herd, 0), a = (p + 1) % 3, b = (p + 2) % 3;

		assert_int_equal(herd_write(herd, p, 0, 4096), 0);
		herd_kill(herd, b, SIM_DEATH_CERTAIN);
		herd_until(herd, 20000, two_left, "two nodes serve");
		for (unsigned i = 0; i < 5; i++)
			assert_int_equal(herd_write(herd, p, 4096 * i, 4096), 0);
		herd_start(herd, b);
		herd_until(herd, 60000, all_in_sync, "in sync");
		assert_int_equal(herd_flush(herd, p), 0);
		assert_int_equal(herd_primary(herd, 0), p);
		if (seed % 2)
			assert_int_equal(herd_write(herd, p, 8 * MIB, 4096), 0);
		herd_kill(herd, a, SIM_DEATH_CERTAIN); /* at the floor now: the other one stays */
		herd_until(herd, 20000, two_left, "two nodes serve again");
		herd_kill(herd, b, SIM_DEATH_CERTAIN);
		herd_run(herd, 1000);
		herd_start(herd, b);
		herd_until(herd, 20000, two_left, "two nodes serve once more");
		assert_int_equal(herd_primary(herd, 0), p);
		for (unsigned i = 0; i < 5; i++)
			herd_write_begin(herd, p, 4096 * i, 4096);
		herd_load_stop(herd);
		heal(herd);
		herd_check(herd);
		herd_free(herd);
	}
}

/* A seat that may have lost something is marked, filled by lists, and then in sync again (R3). */
static void test_an_unclean_store_keeps_its_seat_and_is_filled(void **state)
{
	for (unsigned seed = 80; seed < 84; seed++) {
		struct herd *herd = make(seed, 3, 4);
		unsigned node = seed % 3;

		herd_load_start(herd, 12);
		herd_run(herd, 300);
		herd->nodes[node].says_unclean = true;
		herd_kill(herd, node, SIM_DEATH_SILENT);
		herd_start(herd, node);
		herd_run(herd, 1000);
		heal(herd);
		herd_load_stop(herd);
		assert_true(HERD_COUNTER(herd, expands) > 0);
		herd_check(herd);
		herd_free(herd);
	}
}

static bool nothing_is_left_over(struct herd *herd)
{
	struct cluster_map *map = herd_map(herd);

	if (!herd_is_healthy(herd))
		return false;
	for (uint32_t pg = 0; pg < herd->options.pg_count; pg++)
		for (unsigned i = 0; i < herd->node_count; i++) {
			struct store_pg_info info;
			store_pg_info(herd->nodes[i].store, pg, &info);
			if (info.objects > 0 &&
			    !cluster_pg_seat(cluster_pg(map, pg), herd->nodes[i].store_id))
				return false;
		}
	return true;
}

static bool newcomer_has_seats(struct herd *herd)
{
	struct cluster_map *map = herd_map(herd);
	const struct herd_node *newcomer = &herd->nodes[herd->node_count - 1];
	unsigned seats = 0;

	for (uint32_t pg = 0; pg < herd->options.pg_count; pg++)
		seats += cluster_pg_seat(cluster_pg(map, pg), newcomer->store_id) != NULL;
	return seats >= herd->options.pg_count / 2;
}

static void test_a_new_node_gets_its_share_and_the_others_drop_theirs(void **state)
{
	const struct herd_options options = {.seed = 90,
					     .nodes = 4,
					     .late = 1,
					     .copies = 3,
					     .pg_count = 8,
					     .volume_bytes = 64 * MIB};
	struct herd *herd = herd_new(&options);

	for (uint64_t at = 0; at < 64 * MIB; at += MIB)
		assert_int_equal(herd_write(herd, 0, at, 8 * KIB), 0);
	herd_load_start(herd, 8);
	herd_start(herd, 3);
	herd_until(herd, 60000, newcomer_has_seats, "a share for the new node");
	herd_until(herd, 60000, nothing_is_left_over, "dropped where it moved away from");
	herd_reopen(herd);
	herd_load_stop(herd);
	herd_check(herd);
	herd_free(herd);
}

/* ---- damage ---- */

/* Spoil a byte of every block on the node's disk that holds this write's content of @sector. */
static unsigned damage(struct herd *herd, unsigned node, uint32_t sector, uint32_t tag)
{
	static uint8_t segment[8 << 20];
	struct sim_host *host = herd->nodes[node].host;
	unsigned hits = 0;
	char path[64];

	for (unsigned s = 0; s < 64; s++) {
		(void)snprintf(path, sizeof(path), "/disk/segment.00.%05u", s);
		int64_t size = sim_file_peek(host, path, segment, sizeof(segment), 0);
		for (int64_t at = 0; at + 4096 <= size; at += 4096) {
			uint64_t word;
			memcpy(&word, segment + at, sizeof(word));
			if (word != ((uint64_t)sector << 32 | tag))
				continue;
			const uint8_t bad = (uint8_t)~segment[at + 700];
			assert_int_equal(sim_file_poke(host, path, &bad, 1, (uint64_t)at + 700), 0);
			hits++;
		}
	}
	return hits;
}

static bool has_no_holes(struct herd *herd)
{
	const struct cluster_pg *row = cluster_pg(herd_map(herd), 0);
	struct pg_status status;

	for (uint32_t i = 0; i < row->isr_count; i++)
		if (row->isr[i].flags)
			return false;
	for (unsigned i = 0; i < herd->node_count; i++)
		if (herd->nodes[i].is_up && pg_set_status(herd->nodes[i].set, 0, 0, &status) &&
		    status.missing)
			return false;
	return herd_is_healthy(herd);
}

static void test_a_damaged_block_is_answered_from_another_copy_and_healed(void **state)
{
	struct herd *herd = make(50, 3, 1);
	unsigned primary = (unsigned)herd_primary(herd, 0);

	herd->may_diverge = true;
	assert_int_equal(herd_write(herd, 0, 0, 64 * KIB), 0); /* tag 1 */
	assert_int_equal(herd_write(herd, 0, 128 * KIB, 64 * KIB), 0);
	herd_run(herd, 200);
	assert_true(damage(herd, primary, 8, 1) > 0);
	for (unsigned n = 0; n < 3; n++)
		assert_int_equal(herd_read(herd, n, 0, 64 * KIB), 0);
	assert_true(HERD_COUNTER(herd, objects_healed) > 0);
	assert_int_equal(herd_write(herd, 1, 4096, 8192), 0);
	herd_until(herd, 30000, has_no_holes, "whole again");
	herd_check(herd);
	herd_free(herd);
}

struct touch {
	struct store_read read;
	uint64_t layer;
	bool is_done;
	int result;
};

static struct touch touch;

static void on_touched(struct store_read *read, int result)
{
	touch.is_done = true;
	touch.result = result;
}

static bool is_touched(struct herd *herd)
{
	return touch.is_done;
}

/* Found at a member that does not lead: the log hears of the hole, and the primary fills it (S1, D1). */
static void test_a_damaged_block_of_a_member_is_filled_by_the_primary(void **state)
{
	struct herd *herd = make(55, 3, 1);
	unsigned member = (unsigned)(herd_primary(herd, 0) + 1) % 3;
	const struct cluster_volume *volume = cluster_volume_by_name(herd_map(herd), HERD_VOLUME);

	herd->may_diverge = true;
	/* All eight objects are in the one PG; a write into a hole would make the member leave. */
	assert_int_equal(herd_write(herd, 0, 0, 64 * KIB), 0); /* tag 1 */
	herd_run(herd, 200);
	assert_true(damage(herd, member, 8, 1) > 0);
	memset(&touch, 0, sizeof(touch));
	touch.layer = volume->layers[0];
	touch.read = (struct store_read){.done = on_touched,
					 .family = volume->family,
					 .layers = &touch.layer,
					 .layer_count = 1,
					 .count = 16};
	store_read(herd->nodes[member].store, &touch.read);
	herd_until(herd, 10000, is_touched, "read");
	assert_int_equal(touch.result, -E_CHECKSUM);
	uint64_t epoch = cluster_pg(herd_map(herd), 0)->epoch;
	herd_run(herd, 100);
	herd_until(herd, 30000, has_no_holes, "whole again");
	assert_int_equal(cluster_pg(herd_map(herd), 0)->epoch, epoch); /* it never left */
	assert_true(HERD_COUNTER(herd, objects_pushed) > 0);
	memset(&touch, 0, sizeof(touch));
	touch.layer = volume->layers[0];
	touch.read = (struct store_read){.done = on_touched,
					 .family = volume->family,
					 .layers = &touch.layer,
					 .layer_count = 1,
					 .count = 16};
	store_read(herd->nodes[member].store, &touch.read);
	herd_until(herd, 10000, is_touched, "read again");
	assert_int_equal(touch.result, 0);
	buffer_put(touch.read.data.buffer);
	herd_check(herd);
	herd_free(herd);
}

/* ---- a disk that fails ---- */

static bool others_serve(struct herd *herd)
{
	struct cluster_map *map = herd_map(herd);

	for (uint32_t pg = 0; pg < herd->options.pg_count; pg++) {
		const struct cluster_pg *row = cluster_pg(map, pg);
		if (!row->primary || row->isr_count != 2)
			return false;
	}
	return true;
}

/* The store stops, its node lives: others lead at once, clients of every gateway see nothing of it. */
static void test_a_store_that_fails_leaves_and_clients_go_on(void **state)
{
	for (unsigned seed = 100; seed < 103; seed++) {
		struct herd *herd = make(seed, 3, 4);
		unsigned node = seed % 3;
		char path[64];
		int rc = -ENOENT;

		herd_load_start(herd, 16);
		herd_run(herd, 200);
		for (unsigned s = 0; s < 16; s++) {
			(void)snprintf(path, sizeof(path), "/disk/segment.00.%05u", s);
			rc = sim_file_fault(herd->nodes[node].host, path, LOOP_OP_WRITE,
					    1 + seed % 5, SIM_FAULT_EIO);
			if (s == 0)
				assert_int_equal(rc, 0);
		}
		herd_until(herd, 20000, others_serve, "two copies elsewhere");
		herd_run(herd, 500);
		herd_load_stop(herd);
		/* Every segment that there was has its fault: some starts fail again. */
		for (unsigned t = 0; t < 20 && !herd_is_healthy(herd); t++) {
			herd_kill(herd, node, SIM_DEATH_CERTAIN);
			herd_start(herd, node);
			for (unsigned ms = 0; ms < 2000 && !herd_is_healthy(herd); ms += 100)
				herd_run(herd, 100);
		}
		heal(herd);
		herd_check(herd);
		herd_free(herd);
	}
}

/* ---- garbage ---- */

static bool is_gone(struct herd *herd)
{
	struct store_pg_info info;

	for (unsigned i = 0; i < herd->node_count; i++)
		for (uint32_t pg = 0; pg < herd->options.pg_count; pg++) {
			if (!herd->nodes[i].is_up)
				continue;
			store_pg_info(herd->nodes[i].store, pg, &info);
			if (info.objects > 0)
				return false;
		}
	return true;
}

static bool is_deleted(struct herd *herd)
{
	for (unsigned i = 0; i < herd->node_count; i++)
		if (herd->nodes[i].is_up && cluster_volume_by_name(herd->nodes[i].map, HERD_VOLUME))
			return false;
	return true;
}

static void
test_objects_of_a_deleted_volume_go_everywhere_even_on_a_store_that_was_away(void **state)
{
	struct herd *herd = make(60, 3, 4);
	uint64_t id = cluster_volume_by_name(herd_map(herd), HERD_VOLUME)->id;

	for (uint64_t at = 0; at < 32 * MIB; at += MIB)
		assert_int_equal(herd_write(herd, 0, at, 16 * KIB), 0);
	herd_kill(herd, 2, SIM_DEATH_CERTAIN);
	herd_until(herd, 5000, two_left, "two nodes serve");
	for (unsigned i = 0; i < 2; i++) {
		gateway_close(herd->nodes[i].volume);
		herd->nodes[i].volume = NULL;
	}
	for (unsigned i = 0; i < 100 && !is_deleted(herd); i++) {
		herd_propose(herd, cluster_command_volume_delete(id));
		herd_run(herd, 200);
	}
	assert_true(is_deleted(herd));
	herd_start(herd, 2);
	herd_until(herd, 60000, herd_is_healthy, "healthy");
	herd_until(herd, 60000, is_gone, "rid of the garbage");
	herd_free(herd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_store_that_was_away_gets_the_blocks_it_missed),
		cmocka_unit_test(test_a_store_joins_while_clients_write),
		cmocka_unit_test(test_a_store_that_has_joined_is_as_fast_as_the_others),
		cmocka_unit_test(test_a_join_that_is_cut_off_goes_on_where_it_was),
		cmocka_unit_test(test_all_nodes_are_killed_at_once_and_nothing_is_lost),
		cmocka_unit_test(test_a_write_completes_only_when_the_silent_member_is_out),
		cmocka_unit_test(
			test_below_the_floor_a_returning_store_is_filled_and_ends_the_wait),
		cmocka_unit_test(
			test_a_store_that_joined_by_pushes_knows_its_place_when_it_restarts),
		cmocka_unit_test(test_an_unclean_store_keeps_its_seat_and_is_filled),
		cmocka_unit_test(test_a_new_node_gets_its_share_and_the_others_drop_theirs),
		cmocka_unit_test(test_a_damaged_block_is_answered_from_another_copy_and_healed),
		cmocka_unit_test(test_a_damaged_block_of_a_member_is_filled_by_the_primary),
		cmocka_unit_test(test_a_store_that_fails_leaves_and_clients_go_on),
		cmocka_unit_test(
			test_objects_of_a_deleted_volume_go_everywhere_even_on_a_store_that_was_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
