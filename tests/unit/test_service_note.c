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

#include <cmocka.h>

#include "sheep/service/note.h"
#include "tests/sim/sim.h"

#define BOOT_ID "/proc/sys/kernel/random/boot_id"

/* ---- the made-up store ---- */

struct store {
	struct store_identity identity;
};

const struct store_identity *store_identity(const struct store *store)
{
	return &store->identity;
}

const char *store_path(const struct store *store)
{
	return "/store";
}

struct bench {
	struct sim_world *world;
	struct sim_host *host;
	struct loop *loop;
	struct store store;
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
	bench->store.identity = (struct store_identity){.uuid = {{7}}, .incarnation = 5};
	*state = bench;
	return 0;
}

static int teardown(void **state)
{
	struct bench *bench = *state;

	sim_world_free(bench->world);
	free(bench);
	return 0;
}

static void write_note(struct bench *bench)
{
	struct error err = {0};

	if (note_write(bench->loop, bench->dir, &bench->store, &err) < 0)
		fail_msg("%s", err.text);
}

static bool is_unclean(struct bench *bench)
{
	return note_is_unclean(bench->loop, bench->dir, &bench->store);
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
	assert_true(is_unclean(bench));
}

static void test_without_a_note_nothing_is_believed(void **state)
{
	assert_true(is_unclean(*state));
}

static void test_clean_stop_needs_no_note(void **state)
{
	struct bench *bench = *state;

	bench->store.identity.was_clean = true;
	assert_false(is_unclean(bench));
	bench->store.identity = (struct store_identity){.is_new = true};
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

static void test_store_older_than_its_note_was_restored(void **state)
{
	struct bench *bench = *state;

	write_note(bench);
	bench->store.identity.incarnation--;
	assert_true(is_unclean(bench));
}

static void test_garbage_is_no_note(void **state)
{
	static const char *const garbage[] = {
		"",
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
	assert_true(note_write(bench->loop, bench->dir, &bench->store, &err) < 0);
	assert_non_null(strstr(err.text, "/store"));
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
		NOTE_TEST(test_start_that_never_served_changes_nothing),
		NOTE_TEST(test_store_older_than_its_note_was_restored),
		NOTE_TEST(test_garbage_is_no_note),
		NOTE_TEST(test_unknown_boot_is_unclean_and_writes_no_note),
		NOTE_TEST(test_directory_that_cannot_be_is_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
