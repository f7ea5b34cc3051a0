/*
 * The note of the last LSNs: a store that is made up, and real files, as the note is mapped memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/text.h"
#include "sheep/service/note_lsn.h"

/* ---- the made-up store ---- */

struct store {
	struct store_identity identity;
	uint64_t lsns[2]; /* where its log ends */
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
	for (unsigned i = 0; lsns && i < 2; i++)
		lsns[i] = store->lsns[i];
}

static char dir[64];

/* A start of it whose registration is applied, and that acknowledges up to @a and @b. */
static void start(struct store *store, uint64_t a, uint64_t b)
{
	struct note_lsn *note;

	assert_int_equal(note_lsn_open(dir, store, &note, NULL), 0);
	assert_int_equal(note_lsn_publish(note, dir, store, NULL), 0);
	store->note[0] = store->lsns[0] = a;
	store->note[1] = store->lsns[1] = b;
	note_lsn_close(note);
}

static int setup(void **state)
{
	static unsigned number;
	struct store *store = calloc(1, sizeof(*store));

	store->identity = (struct store_identity){
		.uuid = {{(uint8_t)++number}}, .incarnation = 1, .shards = 2};
	*state = store;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static void test_log_that_reaches_the_note_is_believed_and_a_shorter_one_is_not(void **state)
{
	struct store *store = *state;

	start(store, 100, 7);
	assert_false(note_lsn_is_short(dir, store));
	store->lsns[1] = 6;
	assert_true(note_lsn_is_short(dir, store));
	store->identity.was_clean = true; /* synced, and nothing came after it */
	assert_false(note_lsn_is_short(dir, store));
}

static void test_store_without_its_note_or_with_another_number_of_shards_is_short(void **state)
{
	struct store *store = *state;

	assert_true(note_lsn_is_short(dir, store));
	store->identity.is_new = true;
	assert_false(note_lsn_is_short(dir, store));
	store->identity.is_new = false;
	start(store, 3, 3);
	store->identity.shards = 1;
	assert_true(note_lsn_is_short(dir, store));
}

/* Killed between opening and registration, the next start must find the same as this one. */
static void test_new_note_counts_from_its_registration_on(void **state)
{
	struct store *store = *state;
	struct note_lsn *note;

	start(store, 100, 7);
	store->lsns[0] = 90;
	assert_true(note_lsn_is_short(dir, store));
	assert_int_equal(note_lsn_open(dir, store, &note, NULL), 0);
	assert_true(note_lsn_is_short(dir, store));
	assert_int_equal(note_lsn_publish(note, dir, store, NULL), 0);
	assert_false(note_lsn_is_short(dir, store));
	note_lsn_close(note);
}

static void test_start_that_could_not_keep_a_note_leaves_none(void **state)
{
	struct store *store = *state;

	start(store, 5, 5);
	assert_int_equal(note_lsn_publish(NULL, dir, store, NULL), 0);
	assert_true(note_lsn_is_short(dir, store));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_log_that_reaches_the_note_is_believed_and_a_shorter_one_is_not),
		TEST(test_store_without_its_note_or_with_another_number_of_shards_is_short),
		TEST(test_new_note_counts_from_its_registration_on),
		TEST(test_start_that_could_not_keep_a_note_leaves_none),
	};
	char command[96];
	int rc;

	(void)text_copy(dir, sizeof(dir), "/tmp/note_lsn.XXXXXX");
	if (!mkdtemp(dir))
		return 1;
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command) == 0 ? rc : 1;
}
