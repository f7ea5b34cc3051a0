/*
 * What a store knows again after it was stopped, killed or cut off the power: requests, commit points, its
 * identity, and what may not come back. And what is refused at the door.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/store_rig.h"

static void put_fifty(struct rig *rig)
{
	for (uint32_t i = 0; i < 50; i++)
		assert_int_equal(
			rig_put(rig, i % 4, 1, i, 1 + i, i * 13, 3, BLOCK_DATA, 1 + i * 3, 0), 0);
}

static void expect_fifty(struct rig *rig)
{
	for (uint32_t i = 0; i < 50; i++)
		assert_int_equal(rig_tag_at(rig, i % 4, 1, i, i * 13 + 2), 1 + i * 3 + 2);
}

static void test_everything_survives_a_clean_stop(void **state)
{
	struct rig *rig = *state;

	put_fifty(rig);
	rig_stop(rig);
	rig_open_ok(rig);
	assert_true(store_identity(rig->store)->was_clean);
	assert_false(store_identity(rig->store)->is_new);
	expect_fifty(rig);
}

/* Stopped before anybody heard of it (no quorum, say), it must not come back as a clean one. */
static void test_unclean_store_is_no_clean_one_after_a_clean_stop(void **state)
{
	struct rig *rig = *state;

	rig_stop(rig);
	for (unsigned round = 0; round < 2; round++) {
		rig_open_ok(rig);
		assert_int_equal(store_identity(rig->store)->was_clean, round == 0);
		store_set_unclean(rig->store, true);
		rig_stop(rig);
	}
	rig_open_ok(rig);
	assert_false(store_identity(rig->store)->was_clean);
	store_set_unclean(rig->store, true);
	store_set_unclean(rig->store, false);
	rig_stop(rig);
	rig_open_ok(rig);
	assert_true(store_identity(rig->store)->was_clean);
}

static void test_synced_entries_survive_a_power_cut(void **state)
{
	struct rig *rig = *state;

	put_fifty(rig);
	assert_int_equal(rig_sync(rig, 0), 0);
	rig_power_cut(rig, SIM_DROP_UNSYNCED);
	rig_open_ok(rig);
	assert_false(store_identity(rig->store)->was_clean);
	assert_false(store_identity(rig->store)->lost_log);
	expect_fifty(rig);
}

/* ---- what a PG remembers ---- */

static int put_request(struct rig *rig, uint32_t index, uint64_t n, uint64_t number,
		       uint64_t lowest)
{
	struct store_object now;
	struct rig_append a = {.append = {.pg = 2,
					  .key = {1, index},
					  .family = rig_family(1),
					  .version = {1, n},
					  .session = 5,
					  .number = number,
					  .lowest = lowest,
					  .run_count = 1},
			       .runs = {{1, 1, BLOCK_ZERO}}};
	int rc;

	if (store_object(rig->store, 2, &a.append.key, &now))
		a.append.previous = now.version;
	rc = rig_append(rig, &a, NULL);
	return rc < 0 ? rc : rig_append_wait(rig, &a);
}

static void check_tail(struct rig *rig, uint64_t first, uint64_t last)
{
	struct store_tail_entry tail[16];
	struct store_pg_info info;
	uint32_t count = store_pg_tail(rig->store, 2, tail, 16);

	store_pg_info(rig->store, 2, &info);
	assert_int_equal(info.last.n, last);
	assert_int_equal(info.commit.n, first - 1);
	assert_int_equal(count, last - first + 1);
	assert_int_equal(info.tail_count, count);
	for (uint32_t i = 0; i < count; i++) {
		assert_int_equal(tail[i].version.n, first + i);
		assert_int_equal(tail[i].session, 5);
		assert_int_equal(tail[i].number, first + i);
		assert_int_equal(tail[i].run_count, 1);
		assert_int_equal(tail[i].runs[0].block, 1);
	}
}

static void test_tail_commit_and_requests_survive_restart_of_any_kind(void **state)
{
	struct rig *rig = *state;
	struct version v;

	for (uint64_t n = 1; n <= 8; n++)
		assert_int_equal(put_request(rig, (uint32_t)n % 3, n, n, n > 4 ? n - 4 : 0), 0);
	check_tail(rig, 1, 8);
	store_set_commit(rig->store, 2, (struct version){1, 5});
	check_tail(rig, 6, 8);
	/* A commit point goes with the next batch, not by itself. */
	assert_int_equal(put_request(rig, 0, 9, 9, 5), 0);
	assert_int_equal(rig_sync(rig, 2), 0);
	for (unsigned kind = 0; kind < 4; kind++) {
		if (kind == 0)
			rig_power_cut(rig, SIM_DROP_UNSYNCED);
		else if (kind == 1)
			rig_crash(rig);
		else
			rig_stop(rig);
		rig_open_ok(rig);
		check_tail(rig, 6, 9);
		assert_int_equal(store_request_find(rig->store, 2, 5, 4, &v), 0);
		for (uint64_t n = 5; n <= 9; n++) {
			assert_int_equal(store_request_find(rig->store, 2, 5, n, &v), 1);
			assert_int_equal(v.n, n);
		}
		assert_int_equal(store_request_find(rig->store, 2, 6, 7, &v), 0);
	}
}

static void test_request_outside_of_its_window_is_refused(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(put_request(rig, 0, 1, 5000, 4000), 0);
	assert_int_equal(put_request(rig, 0, 2, 3999, 0), -EINVAL);
	assert_int_equal(put_request(rig, 0, 3, 4000 + STORE_SESSION_WINDOW, 0), -EINVAL);
	assert_int_equal(put_request(rig, 0, 4, 4000 + STORE_SESSION_WINDOW - 1, 0), 0);
}

static void test_requests_are_replaced_as_a_whole(void **state)
{
	struct rig *rig = *state;
	struct store_request *requests = calloc(3000, sizeof(*requests));
	struct store_request got[4];
	struct version v;

	assert_int_equal(put_request(rig, 0, 1, 1, 0), 0);
	for (uint32_t i = 0; i < 3000; i++)
		requests[i] = (struct store_request){8, 100000 + i, {2, i + 1}, {10, i % 3}};
	assert_int_equal(store_set_requests(rig->store, 2, requests, 3000), 0);
	assert_int_equal(store_request_find(rig->store, 2, 5, 1, &v), 0);
	assert_int_equal(store_requests(rig->store, 2, got, 4), 3000);
	assert_int_equal(put_request(rig, 0, 2, 2, 0), 0);
	assert_int_equal(rig_sync(rig, 2), 0);
	rig_power_cut(rig, SIM_DROP_UNSYNCED);
	rig_open_ok(rig);
	assert_int_equal(store_request_find(rig->store, 2, 5, 1, &v), 0);
	assert_int_equal(store_request_find(rig->store, 2, 5, 2, &v), 1);
	assert_int_equal(store_requests(rig->store, 2, got, 4), 3001);
	assert_int_equal(store_request_find(rig->store, 2, 8, 102999, &v), 1);
	assert_int_equal(v.n, 3000);
	for (unsigned kind = 0; kind < 2; kind++) { /* from the log, and from a checkpoint */
		const struct object_key key = {10, 1};
		assert_int_equal(
			store_object_requests(rig->store, 2, &key, (struct version){2, 0}, got, 4),
			1000);
		assert_int_equal(got[0].number, 100001);
		rig_stop(rig);
		rig_open_ok(rig);
	}
	store_end_session(rig->store, 2, 8);
	assert_int_equal(store_requests(rig->store, 2, got, 4), 1);
	rig_stop(rig);
	rig_open_ok(rig);
	assert_int_equal(store_requests(rig->store, 2, got, 4), 1);
	free(requests);
}

/*
 * An entry that replaces the requests of its object: they are there if and only if the change is, however many
 * batches they take.
 */
static void test_requests_of_an_object_come_with_the_change(void **state)
{
	struct rig *rig = *state;
	struct store_request *requests = calloc(3000, sizeof(*requests));
	struct rig_append a = {.append = {.pg = 2,
					  .key = {1, 0},
					  .family = rig_family(1),
					  .version = {2, 1},
					  .flags = STORE_ANY_PREVIOUS | STORE_REQUESTS,
					  .requests = requests,
					  .request_count = 3000,
					  .above = {1, 1},
					  .run_count = 1},
			       .runs = {{1, 1, BLOCK_ZERO}}};
	struct store_object object;
	static struct rig_append tries[40];
	unsigned with = 0, without = 0;
	struct version v;

	for (uint32_t i = 0; i < 3000; i++)
		requests[i] = (struct store_request){8, 100000 + i, {1, i + 10}, {1, 0}};
	for (uint64_t n = 1; n <= 6; n++) /* of object 0 or 1, in turn */
		assert_int_equal(put_request(rig, n % 2 == 0, n, n, 0), 0);
	assert_int_equal(rig_sync(rig, 2), 0);
	for (unsigned cut = 0; with == 0; cut++) {
		assert_true(cut < ARRAY_COUNT(tries));
		tries[cut] = a;
		assert_int_equal(rig_append(rig, &tries[cut], NULL), 0);
		assert_int_equal(store_request_find(rig->store, 2, 5, 3, &v), 0);
		assert_int_equal(store_request_find(rig->store, 2, 5, 4, &v), 1);
		rig_settle(rig, cut * 10 * NS_PER_US);
		rig_power_cut(rig, SIM_RANDOM_UNSYNCED);
		rig_open_ok(rig);
		assert_int_equal(store_object(rig->store, 2, &a.append.key, &object), 1);
		bool is_there = object.version.reign == 2;
		with += is_there;
		without += !is_there;
		for (uint64_t n = 1; n <= 6; n++)
			assert_int_equal(store_request_find(rig->store, 2, 5, n, &v),
					 !is_there || n % 2 == 0 || n == 1);
		assert_int_equal(store_requests(rig->store, 2, NULL, 0), is_there ? 3004 : 6);
	}
	assert_true(without > 0);
	free(requests);
}

/* ---- identity and refusals ---- */

static void test_identity_is_kept(void **state)
{
	struct rig *rig = *state;
	struct uuid uuid = store_identity(rig->store)->uuid, other = uuid;
	struct error err = {0};

	assert_true(store_identity(rig->store)->is_new);
	assert_int_equal(store_set_incarnation(rig->store, 17, &err), 0);
	assert_int_equal(store_set_cluster(rig->store, &uuid, &err), 0);
	other.bytes[0] ^= 1;
	assert_int_equal(store_set_cluster(rig->store, &other, &err), -E_WRONG_CLUSTER);
	assert_non_null(strstr(err.text, "belongs to cluster"));
	rig_power_cut(rig, SIM_DROP_UNSYNCED);
	rig_open_ok(rig);
	assert_true(uuid_is_equal(&store_identity(rig->store)->uuid, &uuid));
	assert_true(uuid_is_equal(&store_identity(rig->store)->cluster, &uuid));
	assert_int_equal(store_identity(rig->store)->incarnation, 17);
	assert_false(store_identity(rig->store)->was_clean);
}

static void test_second_open_is_refused(void **state)
{
	struct rig *rig = *state;
	struct sim_process *process = sim_process_new(rig->host);
	struct loop *loop;
	struct store *store;
	struct error err = {0};

	assert_int_equal(sim_process_loop_new(process, &(struct loop_options){0}, &loop), 0);
	assert_int_equal(store_open(&loop, 1, RIG_PATH, &rig_small, NULL, &store, &err), -EBUSY);
	assert_non_null(strstr(err.text, "in use"));
}

static void poke_super(struct rig *rig, unsigned copies, uint32_t offset)
{
	for (unsigned i = 0; i < 2; i++) {
		uint8_t byte;
		if (!(copies & BIT(i)))
			continue;
		assert_int_equal(sim_file_peek(rig->host, RIG_PATH "/superblock", &byte, 1,
					       i * 4096 + offset),
				 1);
		byte ^= 0x40;
		assert_int_equal(sim_file_poke(rig->host, RIG_PATH "/superblock", &byte, 1,
					       i * 4096 + offset),
				 0);
	}
}

static void test_one_damaged_superblock_copy_is_survived_two_are_named(void **state)
{
	struct rig *rig = *state;
	struct error err = {0};

	for (unsigned copies = 1; copies <= 3; copies++) {
		rig_stop(rig);
		poke_super(rig, copies, 60);
		if (copies < 3)
			rig_open_ok(rig);
	}
	assert_int_equal(rig_open(rig, &err), -E_CHECKSUM);
	assert_non_null(strstr(err.text, RIG_PATH));
	assert_non_null(strstr(err.text, "superblock"));
}

/* An object that does not fit an entry is for tests: callers send whole ones. */
static void test_segments_too_small_for_an_object_are_refused(void **state)
{
	struct rig *rig = *state;
	struct store_options options = {.size_bytes = 96 * MIB, .segment_bytes = 4 * MIB};
	struct store *store;
	struct error err = {0};

	assert_int_equal(store_open(&rig->loop, 1, "/other", &options, NULL, &store, &err),
			 -EINVAL);
	assert_non_null(strstr(err.text, "8 MiB"));
	options.segment_bytes = 8 * MIB;
	assert_int_equal(store_open(&rig->loop, 1, "/other", &options, NULL, &store, &err), 0);
	assert_int_equal(store_entry_blocks_max(store), OBJECT_BLOCKS);
	rig_crash(rig); /* of both: nothing comes back that one of them would have to wait for */
	store_forget(store);
}

static void test_foreign_directory_is_refused_and_left_alone(void **state)
{
	struct rig *rig = *state;
	struct loop_file *file;
	struct error err = {0};
	struct store *store;

	assert_int_equal(loop_sync_mkdir(rig->loop, "/other"), 0);
	assert_int_equal(loop_sync_open(rig->loop, "/other/letters",
					LOOP_FILE_WRITE | LOOP_FILE_CREATE, &file, &err),
			 0);
	loop_file_close(rig->loop, file);
	assert_int_equal(store_open(&rig->loop, 1, "/other", &rig_small, NULL, &store, &err),
			 -ENOTEMPTY);
	assert_non_null(strstr(err.text, "letters"));
}

/* ---- logs and checkpoints ---- */

/* The trap of a log that is overwritten at its end: what was behind the end fits exactly. */
static void test_batches_behind_the_end_of_an_earlier_life_never_come_back(void **state)
{
	struct rig *rig = *state;
	static const uint8_t zeroes[BLOCK_SIZE];
	struct store_object object;

	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(rig_put(rig, 0, 1, i, i + 1, 0, 1, BLOCK_DATA, 10 + i, 0), 0);
	rig_crash(rig);
	/* The second batch is lost: blocks 2 and 3 of the segment. */
	assert_int_equal(sim_file_poke(rig->host, RIG_PATH "/segment.00.00000", zeroes, BLOCK_SIZE,
				       2 * BLOCK_SIZE),
			 0);
	rig_open_ok(rig);
	assert_int_equal(store_object(rig->store, 0, &(struct object_key){1, 0}, &object), 1);
	for (uint32_t i = 1; i < 4; i++)
		assert_int_equal(store_object(rig->store, 0, &(struct object_key){1, i}, &object),
				 0);
	/* Another one of its length takes its place, and the store dies again. */
	assert_int_equal(rig_put(rig, 0, 1, 9, 2, 0, 1, BLOCK_DATA, 90, 0), 0);
	rig_crash(rig);
	rig_open_ok(rig);
	assert_int_equal(rig_tag_at(rig, 0, 1, 9, 0), 90);
	for (uint32_t i = 1; i < 4; i++)
		assert_int_equal(store_object(rig->store, 0, &(struct object_key){1, i}, &object),
				 0);
	assert_false(store_identity(rig->store)->lost_log);
}

static uint64_t checkpoints_of(struct rig *rig)
{
	struct store_counters counters;

	store_counters(rig->store, &counters);
	return counters.checkpoints;
}

/* Read after a kill, lost with the power: what was appended meanwhile must not call it durable. */
static void test_checkpoint_that_was_never_synced_may_vanish_again(void **state)
{
	struct rig *rig = *state;
	uint32_t count = 0;

	rig_settle(rig, 1 * NS_PER_S);
	assert_int_equal(sim_file_fault(rig->host, RIG_PATH "/checkpoint.00.00000", LOOP_OP_SYNC, 1,
					SIM_FAULT_HANG),
			 0);
	/* Until the second checkpoint (the first was at creation) hangs in its sync. */
	for (; count < 150; count++)
		assert_int_equal(rig_put(rig, 0, 1, count % 20, count + 1, 0, 16, BLOCK_DATA,
					 1 + count * 16, 0),
				 0);
	assert_int_equal(checkpoints_of(rig), 1);
	rig_crash(rig);
	rig_open_ok(rig);
	assert_int_equal(rig_put(rig, 0, 2, 0, 1000, 0, 1, BLOCK_DATA, 77777, 0), 0);
	assert_int_equal(rig_sync(rig, 0), 0);
	assert_int_equal(rig_put(rig, 0, 2, 1, 1001, 0, 1, BLOCK_DATA, 88888, 0), 0);
	assert_int_equal(rig_sync(rig, 0), 0);
	rig_power_cut(rig, SIM_DROP_UNSYNCED);
	rig_open_ok(rig);
	assert_false(store_identity(rig->store)->lost_log);
	assert_int_equal(rig_tag_at(rig, 0, 2, 0, 0), 77777);
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(rig_tag_at(rig, 0, 1, i, 3) % 16, 4);
}

static void test_shards_are_logs_of_their_own_and_keep_their_number(void **state)
{
	struct rig *rig = *state;

	rig_stop(rig);
	rig_done(rig);
	rig_init(rig, 2,
		 &(struct store_options){.size_bytes = 40 * MIB,
					 .segment_bytes = 1 * MIB,
					 .has_small_segments = true,
					 .shards = 3});
	rig_open_ok(rig);
	for (unsigned kind = 0; kind < 3; kind++) {
		uint32_t pg, seen = 0;
		assert_int_equal(store_identity(rig->store)->shards, 3);
		for (uint32_t i = 0; i < 30; i++) {
			assert_int_equal(store_shard_of(rig->store, i), i % 3);
			assert_int_equal(rig_put(rig, i, 1, i, 1 + kind, kind, 1, BLOCK_DATA,
						 1 + kind * 100 + i, 0),
					 0);
		}
		for (uint32_t i = 0; i < 3; i++)
			assert_int_equal(rig_sync(rig, i), 0);
		rig->options.shards = 1 + kind; /* says nothing once the store is made */
		if (kind == 0)
			rig_power_cut(rig, SIM_DROP_UNSYNCED);
		else
			rig_stop(rig);
		rig_open_ok(rig);
		for (int more = store_pg_next(rig->store, 0, &pg); more;
		     more = store_pg_next(rig->store, pg + 1, &pg))
			assert_int_equal(pg, seen++);
		assert_int_equal(seen, 30);
		for (uint32_t i = 0; i < 30; i++)
			assert_int_equal(rig_tag_at(rig, i, 1, i, kind), 1 + kind * 100 + i);
	}
	/* When one fails all do. */
	assert_int_equal(sim_file_fault(rig->host, RIG_PATH "/segment.01.00000", LOOP_OP_WRITE, 1,
					SIM_FAULT_EIO),
			 0);
	assert_int_equal(rig_put(rig, 1, 2, 0, 1000, 0, 1, BLOCK_ZERO, 0, 0), -E_STORE_FAILED);
	rig_settle(rig, 10 * NS_PER_MS);
	assert_int_equal(rig_put(rig, 2, 2, 0, 1000, 0, 1, BLOCK_ZERO, 0, 0), -E_STORE_FAILED);
	assert_int_equal(rig->failed, 1);
}

/* More PGs than one block of a descriptor takes, at every fill of a segment. */
static void test_commit_points_of_many_pgs_stay_within_the_segment(void **state)
{
	struct rig *rig = *state;

	for (uint32_t round = 0; round < 60; round++) {
		for (uint32_t pg = 0; pg < 300; pg++)
			store_set_commit(rig->store, pg, (struct version){1, round + 1});
		assert_int_equal(rig_put(rig, round % 7, 1, round % 5, round + 1, 0, 1 + round % 30,
					 BLOCK_DATA, 1 + round * 40, 0),
				 0);
	}
	assert_int_equal(rig_sync(rig, 0), 0);
	rig_power_cut(rig, SIM_DROP_UNSYNCED);
	rig_open_ok(rig);
	assert_false(store_identity(rig->store)->lost_log);
	for (uint32_t pg = 0; pg < 300; pg++) {
		struct store_pg_info info;
		store_pg_info(rig->store, pg, &info);
		assert_true(info.commit.n >= 58);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup_small, rig_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_everything_survives_a_clean_stop),
		TEST(test_unclean_store_is_no_clean_one_after_a_clean_stop),
		TEST(test_synced_entries_survive_a_power_cut),
		TEST(test_tail_commit_and_requests_survive_restart_of_any_kind),
		TEST(test_request_outside_of_its_window_is_refused),
		TEST(test_requests_are_replaced_as_a_whole),
		TEST(test_requests_of_an_object_come_with_the_change),
		TEST(test_identity_is_kept),
		TEST(test_second_open_is_refused),
		TEST(test_one_damaged_superblock_copy_is_survived_two_are_named),
		TEST(test_segments_too_small_for_an_object_are_refused),
		TEST(test_foreign_directory_is_refused_and_left_alone),
		TEST(test_batches_behind_the_end_of_an_earlier_life_never_come_back),
		TEST(test_checkpoint_that_was_never_synced_may_vanish_again),
		TEST(test_shards_are_logs_of_their_own_and_keep_their_number),
		TEST(test_commit_points_of_many_pgs_stay_within_the_segment),
	};
#undef TEST
	return cmocka_run_group_tests(tests, rig_log_start, rig_log_stop);
}
