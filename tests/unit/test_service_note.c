/*
 * The note that tells a killed process from a machine that lost power, with stores that are made up:
 * each test says what the store says of itself, and what is in the note.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "sheep/service/note.h"
#include "tests/sim/sim.h"

#define BOOT_ID "/proc/sys/kernel/random/boot_id"

/* ---- the made-up store ---- */

enum { SHARDS = 3 };

struct store {
	struct store_identity identity;
	uint64_t lsns[SHARDS + 1]; /* where its log ends */
	uint64_t *note;
	char path[64]; /* a real directory: which file is locked the kernel tells */
};

const struct store_identity *store_identity(const struct store *store)
{
	return &store->identity;
}

const char *store_path(const struct store *store)
{
	return store->path;
}

uint64_t store_lsn(const struct store *store, unsigned shard)
{
	return store->lsns[shard];
}

void store_keep_note(struct store *store, uint64_t *lsns)
{
	store->note = lsns;
	for (unsigned i = 0; lsns && i < store->identity.shards; i++)
		lsns[i] = store->lsns[i];
}

struct bench {
	struct sim_world *world;
	struct sim_host *host;
	struct loop *loop;
	struct store store;
	struct note *note;
	char dir[NOTE_PATH_MAX];
};

static void write_file(struct bench *bench, const char *path, const char *text)
{
	struct loop_file *file;

	assert_int_equal(loop_sync_open(bench->loop, path,
					LOOP_FILE_WRITE | LOOP_FILE_CREATE | LOOP_FILE_TRUNCATE,
					&file, NULL),
			 0);
	assert_int_equal(loop_sync_write(bench->loop, file, text, strlen(text), 0), 0);
	loop_file_close(bench->loop, file);
}

/* As the kernel tells it. */
static void boot(struct bench *bench, unsigned number)
{
	char text[64];

	snprintf(text, sizeof(text), "%08x-1111-4222-8333-444444444444\n", number);
	write_file(bench, BOOT_ID, text);
}

static const char *note_file(struct bench *bench)
{
	static char path[NOTE_PATH_MAX + UUID_TEXT_SIZE + 8];
	char uuid[UUID_TEXT_SIZE];

	snprintf(path, sizeof(path), "%s/%s.note", bench->dir,
		 uuid_format(&bench->store.identity.uuid, uuid));
	return path;
}

static void mkdirs(struct bench *bench, const char *path)
{
	char part[NOTE_PATH_MAX];

	for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
		(void)loop_sync_mkdir(bench->loop, part);
	}
	(void)loop_sync_mkdir(bench->loop, path);
}

static void superblock_of(const char *dir, char out[96])
{
	snprintf(out, 96, "%s/superblock", dir);
}

static void make_store_dir(char out[64])
{
	char path[96];
	FILE *file;

	snprintf(out, 64, "/tmp/sheepfold-note-XXXXXX");
	assert_non_null(mkdtemp(out));
	superblock_of(out, path);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_int_equal(fclose(file), 0);
}

static void remove_store_dir(const char *dir)
{
	char path[96];

	superblock_of(dir, path);
	(void)unlink(path);
	(void)rmdir(dir);
}

static int setup(void **state)
{
	struct bench *bench = calloc(1, sizeof(*bench));
	const struct loop_options options = {.name = "test"};
	struct error err = {0};

	bench->world = sim_world_new(1);
	bench->host = sim_host_new(bench->world, "host");
	assert_int_equal(sim_loop_new(bench->world, bench->host, &options, &bench->loop), 0);
	mkdirs(bench, "/proc/sys/kernel/random");
	boot(bench, 1);
	assert_int_equal(note_dir(bench->loop, "/notes", bench->dir, &err), 0);
	bench->store = (struct store){
		.identity = {.uuid = {{7}}, .incarnation = 5, .shards = SHARDS},
		.lsns = {100, 7, 0},
	};
	make_store_dir(bench->store.path);
	*state = bench;
	return 0;
}

static int teardown(void **state)
{
	struct bench *bench = *state;

	note_close(bench->note, bench->loop);
	sim_world_free(bench->world);
	remove_store_dir(bench->store.path);
	free(bench);
	return 0;
}

/* A start: what note_open() and note_publish() do are its halves. */
static void open_note(struct bench *bench)
{
	struct error err = {0};

	note_close(bench->note, bench->loop);
	bench->note = NULL;
	if (note_open(bench->loop, bench->dir, &bench->store, &bench->note, &err) < 0)
		fail_msg("%s", err.text);
}

static int publish_note(struct bench *bench, struct error *err)
{
	return note_publish(bench->note, bench->loop, bench->dir, &bench->store, err);
}

static void write_note(struct bench *bench)
{
	struct error err = {0};

	open_note(bench);
	if (publish_note(bench, &err) < 0)
		fail_msg("%s", err.text);
}

/* The store has something more in its log, and acknowledges it. */
static void acknowledge(struct bench *bench, unsigned shard, uint64_t lsn)
{
	bench->store.lsns[shard] = bench->store.note[shard] = lsn;
}

static void expect_unclean(struct bench *bench, const char *text)
{
	const char *why = note_judge(bench->loop, bench->dir, &bench->store);

	assert_non_null(why);
	if (!strstr(why, text))
		fail_msg("'%s', not '%s'", why, text);
}

static bool is_unclean(struct bench *bench)
{
	return note_judge(bench->loop, bench->dir, &bench->store) != NULL;
}

/* ---- the tests ---- */

static void test_killed_process_has_lost_nothing(void **state)
{
	struct bench *bench = *state;

	write_note(bench);
	assert_false(is_unclean(bench));
}

static void test_other_boot_may_have_lost_something(void **state)
{
	struct bench *bench = *state;

	write_note(bench);
	boot(bench, 2);
	expect_unclean(bench, "before the machine went down");
}

static void test_without_a_note_nothing_is_believed(void **state)
{
	expect_unclean(*state, "no note");
}

static void test_clean_stop_needs_no_note(void **state)
{
	struct bench *bench = *state;

	bench->store.identity.was_clean = true;
	assert_false(is_unclean(bench));
	bench->store.identity.was_clean = false;
	bench->store.identity.is_new = true;
	assert_false(is_unclean(bench));
}

static void test_damaged_log_is_unclean_whatever_the_note_says(void **state)
{
	struct bench *bench = *state;

	write_note(bench);
	bench->store.identity.lost_log = true;
	assert_true(is_unclean(bench));
	bench->store.identity.was_clean = true;
	assert_true(is_unclean(bench));
}

/* Raised, and then killed before it was registered: it has acknowledged nothing since. */
static void test_start_that_never_served_changes_nothing(void **state)
{
	struct bench *bench = *state;

	write_note(bench);
	bench->store.identity.incarnation += 3;
	assert_false(is_unclean(bench));
}

static uint64_t held(struct bench *bench)
{
	return note_held(bench->loop, bench->dir, &bench->store);
}

static void test_lock_is_the_earlier_starts_in_the_same_directory_and_boot(void **state)
{
	struct bench *bench = *state;

	assert_int_equal(held(bench), 0); /* no note */
	write_note(bench);
	assert_int_equal(held(bench), 5);
	bench->store.identity.incarnation = 7; /* raised twice, killed before it was registered */
	assert_int_equal(held(bench), 5);
	bench->store.lsns[0]--; /* it may have lost something: nobody serves it all the same */
	assert_int_equal(held(bench), 5);
	boot(bench, 2);
	assert_int_equal(held(bench), 0);
}

/* With the same note, of the same number: but its lock is another one. */
static void test_copied_directory_does_not_have_the_lock_of_the_original(void **state)
{
	struct bench *bench = *state;
	char original[64];

	write_note(bench);
	memcpy(original, bench->store.path, sizeof(original));
	make_store_dir(bench->store.path);
	assert_int_equal(held(bench), 0);
	remove_store_dir(bench->store.path);
	assert_int_equal(held(bench), 0);
	write_note(bench); /* which file it is cannot be told: no later start can be the same */
	assert_int_equal(held(bench), 0);
	memcpy(bench->store.path, original, sizeof(original));
	assert_int_equal(held(bench), 0);
}

static void test_store_older_than_its_note_was_restored(void **state)
{
	struct bench *bench = *state;

	write_note(bench);
	bench->store.identity.incarnation--;
	expect_unclean(bench, "older");
}

/* Its disk has lost its power, and the machine has not: the boot is the same, the log is shorter. */
static void test_log_must_reach_what_was_acknowledged_in_each_shard(void **state)
{
	struct bench *bench = *state;

	write_note(bench);
	for (unsigned i = 0; i < SHARDS; i++) {
		acknowledge(bench, i, 200 + i);
		assert_false(is_unclean(bench));
		bench->store.lsns[i]--;
		expect_unclean(bench, "does not reach");
		bench->store.lsns[i] += 2; /* what nobody was told of may be there */
		assert_false(is_unclean(bench));
	}
	bench->store.lsns[0] = 0;
	bench->store.identity.was_clean = true; /* synced, and nothing came after it */
	assert_false(is_unclean(bench));
}

/* --loops may change, shards never do: another number is another store's. */
static void test_note_of_other_shards_is_none(void **state)
{
	struct bench *bench = *state;

	write_note(bench);
	bench->store.identity.shards--;
	expect_unclean(bench, "no note");
	bench->store.identity.shards += 2;
	expect_unclean(bench, "no note");
	bench->store.identity.shards--;
	assert_false(is_unclean(bench));
}

/* Killed between opening and registration, the next start must find what this one did. */
static void test_start_that_never_serves_leaves_the_note_as_it_is(void **state)
{
	struct bench *bench = *state;

	write_note(bench);
	acknowledge(bench, 0, 150);
	bench->store.identity.incarnation++;
	open_note(bench);
	acknowledge(bench, 0, 160); /* by the cleaner, which waits for nobody */
	assert_false(is_unclean(bench));
	bench->store.lsns[0] = 150;
	assert_false(is_unclean(bench));
	bench->store.lsns[0] = 149;
	expect_unclean(bench, "does not reach");
	/* The same after a power failure: it must not make the next one call itself clean. */
	bench->store.lsns[0] = 150;
	boot(bench, 2);
	expect_unclean(bench, "before the machine went down");
	open_note(bench);
	expect_unclean(bench, "before the machine went down");
	assert_int_equal(publish_note(bench, NULL), 0);
	assert_false(is_unclean(bench));
}

static void test_note_that_was_found_wanting_can_be_removed(void **state)
{
	struct bench *bench = *state;
	struct error err = {0};

	write_note(bench);
	acknowledge(bench, 0, 150);
	bench->store.lsns[0] = 120;
	expect_unclean(bench, "does not reach");
	assert_int_equal(note_remove(bench->loop, bench->dir, &bench->store, &err), 0);
	bench->store.lsns[0] = 155; /* after what was lost */
	expect_unclean(bench, "no note");
	assert_int_equal(note_remove(bench->loop, bench->dir, &bench->store, &err), 0);
	mkdirs(bench, note_file(bench)); /* who knows what that is */
	assert_true(note_remove(bench->loop, bench->dir, &bench->store, &err) < 0);
	assert_non_null(strstr(err.text, bench->store.path));
	expect_unclean(bench, "no note");
}

/* What the kernel had taken may be lost when the disk refuses it (R3). */
static void test_store_that_stopped_on_an_error_is_unclean_ever_after(void **state)
{
	struct bench *bench = *state;
	struct error err = {0};

	write_note(bench);
	note_void(bench->note);
	expect_unclean(bench, "no note");
	/* Also when it stops before its registration is applied. */
	open_note(bench);
	note_void(bench->note);
	assert_true(publish_note(bench, &err) < 0);
	expect_unclean(bench, "no note");
	write_note(bench);
	assert_false(is_unclean(bench));
}

static void test_store_keeps_no_note_where_none_can_be_made(void **state)
{
	struct bench *bench = *state;
	struct error err = {0};
	struct note *note;

	write_note(bench);
	assert_true(note_open(bench->loop, "/no/such/place", &bench->store, &note, &err) < 0);
	assert_non_null(strstr(err.text, "/no/such/place"));
	sim_host_set_disk_size(bench->host, 0);
	assert_int_equal(note_open(bench->loop, bench->dir, &bench->store, &note, &err), -ENOSPC);
}

static void test_garbage_is_no_note(void **state)
{
	static const char *const garbage[] = {
		"",
		"00000001-1111-4222-8333-444444444444 5\n", /* an older sheep's: no LSNs */
		"\n",
		"00000001-1111-4222-8333-444444444444",
		"00000001-1111-4222-8333-444444444444 x",
		"5 00000001-1111-4222-8333-444444444444",
		"00000001-1111-4222-8333-44444444444 5",
		"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff 5",
	};
	struct bench *bench = *state;
	char *large = malloc(100000);

	for (unsigned i = 0; i < sizeof(garbage) / sizeof(garbage[0]); i++) {
		write_file(bench, note_file(bench), garbage[i]);
		assert_true(is_unclean(bench));
	}
	memset(large, '5', 99999);
	large[99999] = '\0';
	write_file(bench, note_file(bench), large);
	assert_true(is_unclean(bench));
	free(large);
	write_file(bench, note_file(bench), "");
	write_note(bench); /* it takes the place of garbage, whole */
	assert_false(is_unclean(bench));
}

static void test_unknown_boot_is_unclean_and_writes_no_note(void **state)
{
	struct bench *bench = *state;
	struct error err = {0};

	write_note(bench);
	write_file(bench, BOOT_ID, "not a boot id\n");
	assert_true(is_unclean(bench));
	open_note(bench);
	assert_true(publish_note(bench, &err) < 0);
	assert_non_null(strstr(err.text, bench->store.path));
}

static void test_directory_that_cannot_be_is_named(void **state)
{
	struct bench *bench = *state;
	struct error err = {0};
	char dir[NOTE_PATH_MAX];

	assert_true(note_dir(bench->loop, "/no/such/place", dir, &err) < 0);
	assert_non_null(strstr(err.text, "/no/such/place"));
	assert_int_equal(note_dir(bench->loop, "/notes", dir, &err), 0); /* it is there: fine */
}

int main(void)
{
#define NOTE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		NOTE_TEST(test_killed_process_has_lost_nothing),
		NOTE_TEST(test_other_boot_may_have_lost_something),
		NOTE_TEST(test_without_a_note_nothing_is_believed),
		NOTE_TEST(test_clean_stop_needs_no_note),
		NOTE_TEST(test_damaged_log_is_unclean_whatever_the_note_says),
		NOTE_TEST(test_lock_is_the_earlier_starts_in_the_same_directory_and_boot),
		NOTE_TEST(test_copied_directory_does_not_have_the_lock_of_the_original),
		NOTE_TEST(test_start_that_never_served_changes_nothing),
		NOTE_TEST(test_store_older_than_its_note_was_restored),
		NOTE_TEST(test_log_must_reach_what_was_acknowledged_in_each_shard),
		NOTE_TEST(test_note_of_other_shards_is_none),
		NOTE_TEST(test_start_that_never_serves_leaves_the_note_as_it_is),
		NOTE_TEST(test_note_that_was_found_wanting_can_be_removed),
		NOTE_TEST(test_store_that_stopped_on_an_error_is_unclean_ever_after),
		NOTE_TEST(test_store_keeps_no_note_where_none_can_be_made),
		NOTE_TEST(test_garbage_is_no_note),
		NOTE_TEST(test_unknown_boot_is_unclean_and_writes_no_note),
		NOTE_TEST(test_directory_that_cannot_be_is_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
