/*
 * The note on the real kernel, and a process that is killed while its store, which is made up, stores to it. What is
 * judged, and how, is in test_service_note.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/size.h"
#include "sheep/service/note.h"

/* ---- the made-up store ---- */

enum { SHARDS = 64 };

struct store {
	struct store_identity identity;
	uint64_t lsns[SHARDS]; /* where its log ends */
	uint64_t *note;
};

const struct store_identity *store_identity(const struct store *store)
{
	return &store->identity;
}

const char *store_path(const struct store *store)
{
	return "/store";
}

uint64_t store_lsn(const struct store *store, unsigned shard)
{
	return store->lsns[shard];
}

void store_keep_note(struct store *store, uint64_t *lsns)
{
	store->note = lsns;
	for (unsigned i = 0; i < store->identity.shards; i++)
		__atomic_store_n(&lsns[i], store->lsns[i], __ATOMIC_RELEASE);
}

struct bench {
	struct loop *loop;
	struct store stores[2];
	char dir[NOTE_PATH_MAX];
};

static struct loop *new_loop(void)
{
	struct error err = {0};
	struct loop *loop;

	if (loop_new(&(struct loop_options){.name = "test"}, &loop, &err) < 0)
		fail_msg("%s", err.text);
	return loop;
}

static int setup(void **state)
{
	struct bench *bench = calloc(1, sizeof(*bench));
	char made[] = "/tmp/sheepfold-note.------", deeper[64];
	struct error err = {0};

	memset(strchr(made, '.') + 1, 'X', 6);
	assert_non_null(mkdtemp(made));
	snprintf(deeper, sizeof(deeper), "%s/run", made);
	bench->loop = new_loop();
	assert_int_equal(note_dir(bench->loop, deeper, bench->dir, &err), 0);
	for (unsigned i = 0; i < ARRAY_COUNT(bench->stores); i++)
		bench->stores[i].identity = (struct store_identity){
			.uuid = {{(uint8_t)(7 + i)}}, .incarnation = 5, .shards = SHARDS >> i};
	*state = bench;
	return 0;
}

static int teardown(void **state)
{
	struct bench *bench = *state;
	char command[NOTE_PATH_MAX + 32];

	loop_free(bench->loop);
	*strrchr(bench->dir, '/') = '\0';
	snprintf(command, sizeof(command), "rm -rf '%s'", bench->dir);
	assert_int_equal(system(command), 0);
	free(bench);
	return 0;
}

static const char *judge(struct bench *bench, struct store *store)
{
	return note_judge(bench->loop, bench->dir, store);
}

/* ---- the tests ---- */

enum { LAST = 1000 };

/* Another process, with a loop of its own: opens, publishes, "acknowledges" up to LAST in each shard, and dies. */
static void live_and_be_killed(struct bench *bench, bool is_registered)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct loop *loop = new_loop();
		for (unsigned i = 0; i < ARRAY_COUNT(bench->stores); i++) {
			struct store *store = &bench->stores[i];
			struct note *note;
			if (note_open(loop, bench->dir, store, &note, NULL) < 0)
				_exit(1);
			if (is_registered && note_publish(note, loop, bench->dir, store, NULL) < 0)
				_exit(1);
			for (uint64_t lsn = 1; lsn <= LAST; lsn++)
				for (unsigned s = 0; s < store->identity.shards; s++)
					__atomic_store_n(&store->note[s], lsn, __ATOMIC_RELEASE);
		}
		(void)raise(SIGKILL);
		_exit(1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void set_logs(struct bench *bench, uint64_t lsn)
{
	for (unsigned i = 0; i < ARRAY_COUNT(bench->stores); i++)
		for (unsigned s = 0; s < SHARDS; s++)
			bench->stores[i].lsns[s] = lsn;
}

static void test_what_was_stored_before_a_kill_is_asked_of_the_log(void **state)
{
	struct bench *bench = *state;

	live_and_be_killed(bench, true);
	set_logs(bench, LAST);
	for (unsigned i = 0; i < ARRAY_COUNT(bench->stores); i++) {
		struct store *store = &bench->stores[i];
		unsigned last = store->identity.shards - 1;
		assert_null(judge(bench, store));
		store->lsns[last] = LAST - 1;
		assert_non_null(strstr(judge(bench, store), "does not reach"));
		store->lsns[last] = LAST;
		assert_null(judge(bench, store));
	}
	/* Each has its own. */
	bench->stores[0].lsns[0] = 0;
	assert_non_null(judge(bench, &bench->stores[0]));
	assert_null(judge(bench, &bench->stores[1]));
}

static void test_start_that_was_killed_before_its_registration_changes_nothing(void **state)
{
	struct bench *bench = *state;
	struct store *store = &bench->stores[0];

	live_and_be_killed(bench, false);
	set_logs(bench, 2 * LAST);
	assert_non_null(strstr(judge(bench, store), "no note"));
	live_and_be_killed(bench, true); /* over the .new of the other */
	store->lsns[3] = LAST;
	assert_null(judge(bench, store));
	bench->stores[0].identity.incarnation++;
	set_logs(bench, 2 * LAST);
	live_and_be_killed(bench, false);
	store->lsns[3] = LAST;
	assert_null(judge(bench, store));
	store->lsns[3] = LAST - 1;
	assert_non_null(judge(bench, store));
}

static unsigned count_files(const char *dir)
{
	DIR *open = opendir(dir);
	unsigned count = 0;
	const struct dirent *entry;

	assert_non_null(open);
	while ((entry = readdir(open)))
		count += entry->d_name[0] != '.';
	(void)closedir(open);
	return count;
}

static void test_note_follows_the_file_over_its_new_name_and_leaves_one(void **state)
{
	struct bench *bench = *state;
	struct store *store = &bench->stores[0];
	struct error err = {0};
	struct note *note;

	for (unsigned round = 0; round < 3; round++) {
		assert_int_equal(note_open(bench->loop, bench->dir, store, &note, &err), 0);
		assert_int_equal(note_publish(note, bench->loop, bench->dir, store, &err), 0);
		store->note[1] = store->lsns[1] + 10;
		assert_non_null(judge(bench, store));
		store->lsns[1] += 10;
		assert_null(judge(bench, store));
		note_close(note, bench->loop);
		assert_null(judge(bench, store));
		assert_int_equal(count_files(bench->dir), 1);
	}
	assert_int_equal(note_remove(bench->loop, bench->dir, store, &err), 0);
	assert_int_equal(count_files(bench->dir), 0);
	assert_non_null(judge(bench, store));
}

/* The directory goes while the sheep runs (a tidy operator): its note is nowhere, and it lives on. */
static void test_directory_that_vanishes_is_an_error_and_no_note(void **state)
{
	struct bench *bench = *state;
	struct store *store = &bench->stores[0];
	char command[NOTE_PATH_MAX + 32];
	struct error err = {0};
	struct note *note;

	assert_int_equal(note_open(bench->loop, bench->dir, store, &note, &err), 0);
	snprintf(command, sizeof(command), "rm -rf '%s'", bench->dir);
	assert_int_equal(system(command), 0);
	assert_true(note_publish(note, bench->loop, bench->dir, store, &err) < 0);
	assert_int_equal(note_remove(bench->loop, bench->dir, store, &err), 0);
	store->note[0] = 1;
	assert_non_null(judge(bench, store));
	note_close(note, bench->loop);
}

int main(void)
{
#define NOTE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		NOTE_TEST(test_what_was_stored_before_a_kill_is_asked_of_the_log),
		NOTE_TEST(test_start_that_was_killed_before_its_registration_changes_nothing),
		NOTE_TEST(test_note_follows_the_file_over_its_new_name_and_leaves_one),
		NOTE_TEST(test_directory_that_vanishes_is_an_error_and_no_note),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
