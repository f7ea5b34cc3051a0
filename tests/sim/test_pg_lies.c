/*
 * Peers that lie: strangers, impostors of the primary, epochs and sequences that cannot be, pushes that
 * nobody asked for. The answer is an error; nobody aborts, and nothing that clients wrote changes.
 */
#include "tests/sim/liar.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/crc32c.h"
#include "lib/base/size.h"

static void test_a_stranger_is_not_the_primary(void **state)
{
	struct herd *herd = liar_herd(1);
	unsigned victim = (unsigned)(herd_primary(herd, 0) + 1) % 3;
	const struct uuid stranger = uuid_make(sim_random(herd->world));
	struct liar *liar = liar_new(herd, victim, &stranger);
	uint32_t store = herd->nodes[liar->victim].store_id;
	struct peer_append append = liar_append(herd, store);
	const struct peer_collect collect = {
		.epoch = append.epoch, .reign = append.reign, .store = to_le32(store)};
	const struct peer_push push = {
		.epoch = append.epoch,
		.layer = append.layer,
		.family = append.family,
		.store = to_le32(store),
		.flags = to_le32(PEER_ENTRY_FIRST | PEER_ENTRY_LAST | PEER_ENTRY_DELETE),
		.meta_crc = to_le32(0)};
	const struct peer_list list = {
		.epoch = append.epoch, .store = to_le32(store), .rows_max = to_le32(10)};

	assert_int_equal(
		liar_tell(liar, PEER_CLASS_PEER, PEER_OP_APPEND, &append, sizeof(append), 4096),
		-E_NOT_PRIMARY);
	assert_int_equal(
		liar_tell(liar, PEER_CLASS_PEER, PEER_OP_COLLECT, &collect, sizeof(collect), 0),
		-E_NOT_PRIMARY);
	assert_int_equal(liar_tell(liar, PEER_CLASS_BULK, PEER_OP_PUSH, &push, sizeof(push), 0),
			 -E_NOT_PRIMARY);
	assert_int_equal(liar_tell(liar, PEER_CLASS_BULK, PEER_OP_LIST, &list, sizeof(list), 0),
			 -E_NOT_PRIMARY);
	herd_check(herd);
	liar_free(liar);
	herd_free(herd);
}

/* It says that it is the primary's node, and the victim cannot know better. */
static void test_an_impostor_is_held_to_the_protocol(void **state)
{
	struct herd *herd = liar_herd(2);
	struct liar *liar = liar_new_impostor(herd);
	uint32_t store = liar->store;
	const struct peer_append good = liar_append(herd, store);
	struct peer_append lie;

#define TELL_APPEND(size) \
	liar_tell(liar, PEER_CLASS_PEER, PEER_OP_APPEND, &lie, sizeof(lie), (size))
	lie = good; /* an older epoch */
	lie.epoch = to_le64(from_le64(good.epoch) - 1);
	assert_int_equal(TELL_APPEND(4096), -E_STALE_EPOCH);
	lie = good; /* one that our map must know, and does not */
	lie.epoch = to_le64(from_le64(good.epoch) + 1);
	assert_int_equal(TELL_APPEND(4096), -E_PROTOCOL);
	lie = good; /* a PG, a store that we do not have */
	lie.pg = to_le32(77);
	assert_int_equal(TELL_APPEND(4096), -E_NOT_FOUND);
	lie = good;
	lie.store = to_le32(99);
	assert_int_equal(TELL_APPEND(4096), -E_NOT_FOUND);
	lie = good; /* another reign */
	lie.reign = to_le64(from_le64(good.reign) + 1);
	assert_int_equal(TELL_APPEND(4096), -E_PROTOCOL);
	lie = good; /* numbers that go back */
	lie.after = lie.n;
	assert_int_equal(TELL_APPEND(4096), -E_PROTOCOL);
	lie = good; /* more acknowledged than was sent */
	lie.acknowledged = to_le64(from_le64(good.after) + 1);
	assert_int_equal(TELL_APPEND(4096), -E_PROTOCOL);
	lie = good; /* n 0 */
	lie.n = lie.after = to_le64(0);
	assert_int_equal(TELL_APPEND(4096), -E_PROTOCOL);
	lie = good; /* other lengths than the blocks */
	assert_int_equal(TELL_APPEND(8192), -E_PROTOCOL);
	lie = good;
	lie.block_count = to_le16(1025);
	assert_int_equal(TELL_APPEND(4096), -E_PROTOCOL);
	lie = good;
	lie.run_count = to_le16(0xffff);
	assert_int_equal(TELL_APPEND(4096), -E_PROTOCOL);
	lie = good; /* content that is not what its checksum says */
	liar->buffer->data[100] ^= 1;
	assert_int_equal(TELL_APPEND(4096), -E_CHECKSUM);
	liar->buffer->data[100] ^= 1;
	lie = good;
	lie.meta[3] ^= 1;
	assert_int_equal(TELL_APPEND(4096), -E_CHECKSUM);
	lie = good; /* requests of the object that are not there, too many, or not alone */
	lie.flags = to_le32(PEER_ENTRY_ANY | PEER_ENTRY_REQUESTS);
	struct peer_entry_requests *rows = (void *)(liar->buffer->data + 4096);
	const uint32_t rows_size = sizeof(*rows) + 2 * sizeof(struct peer_entry_row);
	assert_int_equal(TELL_APPEND(4096), -E_PROTOCOL);
	assert_int_equal(TELL_APPEND(4096 + 23), -E_PROTOCOL);
	assert_int_equal(TELL_APPEND(4096 + rows_size + 1), -E_PROTOCOL);
	rows->row_count = to_le32(UINT32_MAX);
	assert_int_equal(TELL_APPEND(4096 + rows_size), -E_PROTOCOL);
	rows->row_count = to_le32(2);
	assert_int_equal(TELL_APPEND(4096 + rows_size), -E_CHECKSUM);
	lie.session = to_le64(1);
	assert_int_equal(TELL_APPEND(4096 + rows_size), -E_PROTOCOL);
	lie = good; /* another version before it than the object has (W2) */
	lie.previous_reign = good.reign;
	lie.previous_n = to_le64(77);
	assert_int_equal(TELL_APPEND(4096), -E_VERSION);
	liar_free(liar);
	herd_free(herd);
}

/* Nothing but a join or a loss that we know of ourselves lets anybody change an object out of order. */
static void test_a_push_that_nobody_asked_for_is_refused(void **state)
{
	struct herd *herd = liar_herd(3);
	struct liar *liar = liar_new_impostor(herd);
	uint32_t store = liar->store;
	const struct peer_append append = liar_append(herd, store);
	struct peer_push push = {.epoch = append.epoch,
				 .reign = append.reign,
				 .n = to_le64(1),
				 .layer = append.layer,
				 .family = append.family,
				 .store = to_le32(store),
				 .run_count = append.run_count,
				 .block_count = append.block_count,
				 .flags = to_le32(PEER_ENTRY_FIRST | PEER_ENTRY_LAST),
				 .meta_crc = append.meta_crc};
	const struct peer_join join = {.epoch = append.epoch,
				       .reign = append.reign,
				       .join = to_le64(1),
				       .start = to_le64(1),
				       .incarnation = to_le64(1),
				       .store = to_le32(store)};
	const struct peer_seal seal = {.epoch = append.epoch,
				       .reign = append.reign,
				       .join = to_le64(1),
				       .start = to_le64(1),
				       .store = to_le32(store)};

	memcpy(push.meta, append.meta, sizeof(push.meta));
	assert_int_equal(liar_tell(liar, PEER_CLASS_BULK, PEER_OP_PUSH, &push, sizeof(push), 4096),
			 -E_VERSION);
	push.join = push.start = to_le64(1);
	assert_int_equal(liar_tell(liar, PEER_CLASS_BULK, PEER_OP_PUSH, &push, sizeof(push), 4096),
			 -E_STALE);
	assert_int_equal(liar_tell(liar, PEER_CLASS_PEER, PEER_OP_JOIN, &join, sizeof(join), 0),
			 -E_STALE);
	assert_int_equal(liar_tell(liar, PEER_CLASS_PEER, PEER_OP_SEAL, &seal, sizeof(seal), 0),
			 -E_STALE);
	liar_free(liar);
	herd_check(herd);
	herd_free(herd);
}

static bool is_joining(struct herd *herd)
{
	return cluster_pg(herd_map(herd), 0)->join_count > 0;
}

/* A store that joins takes pushes of the beginning that it knows, and of no other one (J6). */
static void test_a_push_of_another_beginning_is_refused(void **state)
{
	struct herd *herd = liar_herd(23);
	unsigned primary = (unsigned)herd_primary(herd, 0), victim = (primary + 1) % 3;
	uint32_t store = herd->nodes[victim].store_id;
	struct peer_append append;
	struct liar *liar;

	herd_kill(herd, victim, SIM_DEATH_CERTAIN);
	for (unsigned i = 0; i < 20; i++) { /* until it is decided, and known to all */
		herd_propose(herd, cluster_command_setting("recovery_paused", 1));
		herd_run(herd, 20);
	}
	assert_int_equal(herd_write(herd, primary, 0, 4 * KIB), 0);
	herd_start(herd, victim);
	herd_until(herd, 5000, is_joining, "joining");
	herd_run(herd, 500); /* its stream has begun, and nothing is pushed */
	assert_true(is_joining(herd));
	liar = liar_new_impostor(herd);
	append = liar_append(herd, store);
	struct peer_push push = {
		.epoch = append.epoch,
		.join = to_le64(cluster_pg_join(cluster_pg(herd_map(herd), 0), store)->index),
		.start = to_le64(1u << 20),
		.reign = append.reign,
		.n = to_le64(1),
		.layer = append.layer,
		.family = append.family,
		.store = to_le32(store),
		.run_count = append.run_count,
		.block_count = append.block_count,
		.flags = to_le32(PEER_ENTRY_FIRST | PEER_ENTRY_LAST),
		.meta_crc = append.meta_crc};
	memcpy(push.meta, append.meta, sizeof(push.meta));
	assert_int_equal(liar_tell(liar, PEER_CLASS_BULK, PEER_OP_PUSH, &push, sizeof(push), 4096),
			 -E_STALE);
	liar_free(liar);
	while (!herd_is_healthy(herd)) {
		herd_propose(herd, cluster_command_setting("recovery_paused", 0));
		herd_run(herd, 100);
	}
	herd_reopen(herd);
	herd_check(herd);
	herd_free(herd);
}

/*
 * The primary gave a push up with its connection, and an entry came by another one before it: a member in sync that misses the
 * object is not taken back to what was pushed (W2).
 */
static void test_a_push_of_before_an_entry_is_refused(void **state)
{
	struct herd *herd = liar_herd(29);
	unsigned primary = (unsigned)herd_primary(herd, 0);
	struct liar *liar = liar_new_impostor(herd);
	struct store *store = herd->nodes[liar->victim].store;
	const struct peer_append append = liar_append(herd, liar->store);
	struct store_object before, after;
	struct object_key key;

	assert_int_equal(herd_write(herd, primary, 0, 4 * KIB), 0);
	for (unsigned i = 0; i < 20; i++) { /* until it is decided, and known to all */
		herd_propose(herd, cluster_command_setting("recovery_paused", 1));
		herd_run(herd, 20);
	}
	key = herd_make_hole(herd, liar->victim, 0);
	herd_run(herd, 20);
	assert_int_equal(store_object(store, 0, &key, &before), 1);
	assert_true(before.is_missing && before.version.n > 1);
	struct peer_push push = {.epoch = append.epoch,
				 .reign = to_le64(before.version.reign),
				 .n = to_le64(before.version.n - 1),
				 .layer = append.layer,
				 .family = append.family,
				 .index = to_le32(key.index),
				 .store = append.store,
				 .run_count = append.run_count,
				 .block_count = append.block_count,
				 .flags = to_le32(PEER_ENTRY_FIRST | PEER_ENTRY_LAST),
				 .meta_crc = append.meta_crc};
	memcpy(push.meta, append.meta, sizeof(push.meta));
	assert_int_equal(liar_tell(liar, PEER_CLASS_BULK, PEER_OP_PUSH, &push, sizeof(push), 4096),
			 -E_VERSION);
	assert_int_equal(store_object(store, 0, &key, &after), 1);
	assert_true(after.is_missing);
	assert_int_equal(version_compare(before.version, after.version), 0);
	liar_free(liar);
	assert_int_equal(herd_write(herd, primary, 0, 4 * KIB), 0); /* it comes upon the hole */
	for (unsigned i = 0; i < 50 && after.is_missing; i++) {
		herd_propose(herd, cluster_command_setting("recovery_paused", 0));
		herd_run(herd, 100);
		assert_int_equal(store_object(store, 0, &key, &after), 1);
	}
	assert_false(after.is_missing);
	herd_check(herd);
	herd_free(herd);
}

static void test_a_write_of_an_ended_session_is_refused(void **state)
{
	struct herd *herd = liar_herd(4);
	unsigned primary = (unsigned)herd_primary(herd, 0);
	const struct uuid stranger = uuid_make(sim_random(herd->world));
	struct liar *liar = liar_new(herd, primary, &stranger);
	const struct peer_append append = liar_append(herd, 0);
	const struct cluster_volume *volume = cluster_volume_by_name(herd_map(herd), HERD_VOLUME);
	struct peer_write write = {.epoch = append.epoch,
				   .map_index = append.epoch,
				   .volume = to_le64(volume->id),
				   .generation = to_le64(volume->generation),
				   .family = append.family,
				   .layer = append.layer,
				   .session = to_le64(peer_session_of(123456, 0)),
				   .number = to_le64(1),
				   .lowest = to_le64(1),
				   .length = to_le32(4096),
				   .layer_count = to_le32(1)};
	uint8_t block[BLOCK_SIZE];

	memset(block, 0x5a, sizeof(block));
	write.payload_crc = to_le32(crc32c(block, sizeof(block)));
	assert_int_equal(
		liar_tell(liar, PEER_CLASS_CLIENT, PEER_OP_WRITE, &write, sizeof(write), 4096),
		-E_STALE_SESSION);
	write.generation = to_le64(volume->generation - 1);
	assert_int_equal(
		liar_tell(liar, PEER_CLASS_CLIENT, PEER_OP_WRITE, &write, sizeof(write), 4096),
		-E_STALE_GENERATION);
	write.generation = to_le64(volume->generation + 1); /* the map knows better */
	assert_int_equal(
		liar_tell(liar, PEER_CLASS_CLIENT, PEER_OP_WRITE, &write, sizeof(write), 4096),
		-EINVAL);
	write.payload_crc = to_le32(1);
	assert_int_equal(
		liar_tell(liar, PEER_CLASS_CLIENT, PEER_OP_WRITE, &write, sizeof(write), 4096),
		-E_CHECKSUM);
	write.offset = to_le32(OBJECT_SIZE - 1);
	write.payload_crc = to_le32(crc32c(block, sizeof(block)));
	assert_int_equal(
		liar_tell(liar, PEER_CLASS_CLIENT, PEER_OP_WRITE, &write, sizeof(write), 4096),
		-EINVAL);
	liar_free(liar);
	herd_check(herd);
	herd_free(herd);
}

/* A start of a node speaks for itself: that an earlier one leads no more it cannot know (L3). */
static void test_another_start_does_not_confirm_for_the_one_that_led(void **state)
{
	struct herd *herd = liar_herd(5);
	const struct uuid stranger = uuid_make(sim_random(herd->world));
	struct liar *liar = liar_new(herd, 1, &stranger);
	struct peer_confirm confirm = {.epoch = to_le64(cluster_pg(herd_map(herd), 0)->epoch),
				       .incarnation = to_le64(herd->nodes[1].incarnation),
				       .store = to_le32(herd->nodes[1].store_id)};

	assert_int_equal(
		liar_tell(liar, PEER_CLASS_PEER, PEER_OP_CONFIRM, &confirm, sizeof(confirm), 0), 0);
	confirm.incarnation = to_le64(herd->nodes[1].incarnation - 1);
	assert_int_equal(
		liar_tell(liar, PEER_CLASS_PEER, PEER_OP_CONFIRM, &confirm, sizeof(confirm), 0),
		-E_STALE);
	liar_free(liar);
	herd_free(herd);
}

/* A copy of its directory was started elsewhere: what this start has does not count any more (R1, R2). */
static void test_a_start_that_was_overtaken_leads_no_more(void **state)
{
	struct herd *herd = liar_herd(6);
	unsigned primary = (unsigned)herd_primary(herd, 0);
	struct herd_node *node = &herd->nodes[primary];
	const struct cluster_register_store store = {
		.uuid = store_identity(node->store)->uuid,
		.incarnation = node->store_incarnation + 1,
		.start = node->start + 1,
		.size_bytes = 128 * MIB,
		.shards = 1,
		.flags = LOG_STORE_UNCLEAN,
		.path = "/copy",
	};
	const struct cluster_register request = {
		.uuid = node->uuid,
		.cluster = store_identity(node->store)->cluster,
		.incarnation = node->incarnation + 1,
		.version_min = PEER_VERSION_MIN,
		.version_max = PEER_VERSION_MAX,
		.loops = 1,
		.address = "10.0.0.99:7000",
		.zone = node->name,
		.store_count = 1,
		.stores = &store,
	};
	struct cluster_proposer copy = {.start = node->start + 1};
	struct cluster_command *command = cluster_command_register(&request);
	struct pg_status status;

	cluster_command_sign(command, &copy);
	for (unsigned i = 0; i < 200; i++) { /* a proposal may be lost */
		(void)engine_propose(herd->nodes[(primary + 1) % 3].engine, command->data,
				     command->size);
		herd_run(herd, 10);
		if (!pg_set_status(node->set, 0, 0, &status))
			break;
	}
	cluster_command_free(command);
	assert_int_equal(pg_set_status(node->set, 0, 0, &status), 0);
	herd_free(herd);
}

/*
 * Beacons on a connection that was given up come late: the primary renounced what it had by them, and has been
 * acknowledged since. Whoever believed them would take over from one that serves.
 */
static void test_beacons_that_were_overtaken_are_refused(void **state)
{
	struct herd *herd = liar_herd(7);
	unsigned primary = (unsigned)herd_primary(herd, 0);
	struct liar *liar = liar_new_impostor(herd);
	const struct cluster_node *row = cluster_node(herd_map(herd), herd->nodes[primary].id);
	uint64_t takeovers = HERD_COUNTER(herd, silent_takeovers);
	struct peer_beacon beacon = {.session = to_le64(row->session),
				     .flags = to_le32(PEER_BEACON_RENOUNCES)};

	herd_run(herd, 2000); /* it has sent more than three */
	for (uint32_t i = 1; i <= 3; i++) {
		beacon.sequence = to_le32(i);
		assert_int_equal(liar_tell(liar, PEER_CLASS_CONTROL, PEER_OP_BEACON, &beacon,
					   sizeof(beacon), 0),
				 -EAGAIN);
		herd_run(herd, 200);
	}
	assert_int_equal(HERD_COUNTER(herd, silent_takeovers), takeovers);
	assert_int_equal(herd_primary(herd, 0), primary);
	herd_check(herd);
	liar_free(liar);
	herd_free(herd);
}

/* Numbers that are out of all bounds, in the ops that read or remember. */
static void test_ranges_tables_and_commit_points_that_lie_are_refused(void **state)
{
	struct herd *herd = liar_herd(7);
	struct liar *liar = liar_new_impostor(herd);
	uint32_t store = liar->store;
	const struct peer_append append = liar_append(herd, store);
	const struct peer_collect collect = {.epoch = append.epoch,
					     .reign = to_le64(from_le64(append.reign) + 1),
					     .store = to_le32(store)};
	struct peer_requests requests = {.epoch = append.epoch,
					 .reign = append.reign,
					 .store = to_le32(store),
					 .flags = to_le32(PEER_REQUESTS_LAST)};
	struct peer_fetch fetch = {.epoch = append.epoch,
				   .layer = append.layer,
				   .family = append.family,
				   .reign = append.reign,
				   .n = to_le64(77),
				   .store = to_le32(store),
				   .count = to_le32(1)};
	const struct peer_commit commit = {.row_count = to_le32(1)};
	struct peer_commit_row *row = (void *)liar->buffer->data;
	struct store *victims = herd->nodes[liar->victim].store;
	uint32_t remembered = store_requests(victims, 0, NULL, 0);
	struct store_pg_info info;

	assert_int_equal(
		liar_tell(liar, PEER_CLASS_PEER, PEER_OP_COLLECT, &collect, sizeof(collect), 0),
		-E_PROTOCOL);
	/* Who is in sync remembers what its own copies have, and takes no table of others (Q1). */
	for (uint64_t n = 0; n < 4; n++) {
		requests.n = to_le64(n);
		assert_int_equal(liar_tell(liar, PEER_CLASS_PEER, PEER_OP_REQUESTS, &requests,
					   sizeof(requests), 0),
				 -E_STALE);
	}
	assert_true(remembered > 0);
	assert_int_equal(store_requests(victims, 0, NULL, 0), remembered);
	assert_int_equal(liar_tell(liar, PEER_CLASS_BULK, PEER_OP_FETCH, &fetch, sizeof(fetch), 0),
			 -E_VERSION);
	fetch.count = to_le32(0);
	assert_int_equal(liar_tell(liar, PEER_CLASS_BULK, PEER_OP_FETCH, &fetch, sizeof(fetch), 0),
			 -E_PROTOCOL);
	fetch.count = to_le32(2);
	fetch.block = to_le32(OBJECT_BLOCKS - 1);
	assert_int_equal(liar_tell(liar, PEER_CLASS_BULK, PEER_OP_FETCH, &fetch, sizeof(fetch), 0),
			 -E_PROTOCOL);
	fetch.block = to_le32(UINT32_MAX);
	assert_int_equal(liar_tell(liar, PEER_CLASS_BULK, PEER_OP_FETCH, &fetch, sizeof(fetch), 0),
			 -E_PROTOCOL);
	/* Nothing of this is acknowledged: it is judged by what is there afterwards. */
	*row = (struct peer_commit_row){.epoch = append.epoch,
					.reign = append.reign,
					.commit_n = to_le64(UINT64_MAX),
					.store = to_le32(store)};
	liar_drop(liar, PEER_CLASS_PEER, PEER_OP_COMMIT, &commit, sizeof(commit), sizeof(*row));
	herd_run(herd, 200);
	store_pg_info(herd->nodes[liar->victim].store, 0, &info);
	assert_true(version_compare(info.commit, info.last) <= 0);
	liar_free(liar);
	herd_check(herd);
	herd_free(herd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_stranger_is_not_the_primary),
		cmocka_unit_test(test_an_impostor_is_held_to_the_protocol),
		cmocka_unit_test(test_a_push_that_nobody_asked_for_is_refused),
		cmocka_unit_test(test_a_push_of_another_beginning_is_refused),
		cmocka_unit_test(test_a_push_of_before_an_entry_is_refused),
		cmocka_unit_test(test_a_write_of_an_ended_session_is_refused),
		cmocka_unit_test(test_another_start_does_not_confirm_for_the_one_that_led),
		cmocka_unit_test(test_a_start_that_was_overtaken_leads_no_more),
		cmocka_unit_test(test_beacons_that_were_overtaken_are_refused),
		cmocka_unit_test(test_ranges_tables_and_commit_points_that_lie_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
