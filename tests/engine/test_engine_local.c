/*
 * local:DIR against the conformance suite, all members in one process: their locks belong to open
 * file descriptions, so they tell them apart. test_local_processes.c has real processes.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/engine/local_bed.h"
#include "tests/unit/scratch.h"

/* ---- what only files can suffer ---- */

static uint64_t size_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_size;
}

static void put(const char *path, const void *data, size_t size, uint64_t offset)
{
	int fd = open(path, O_WRONLY | O_CREAT, 0600);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, data, size, (off_t)offset), size);
	(void)close(fd);
}

/* What a power cut may leave behind what was synced: zeroes, anything, parts of records, less. */
static void spoil_tail(struct random *random, const char *path, uint64_t synced)
{
	static uint8_t bytes[6000];
	uint64_t size = size_of(path);
	size_t length = 1 + random_below(random, sizeof(bytes) - 1);
	int fd;

	switch (random_below(random, 4)) {
	case 0:
		memset(bytes, 0, sizeof(bytes));
		break;
	case 1:
		for (size_t i = 0; i < length; i++)
			bytes[i] = (uint8_t)random_u64(random);
		break;
	case 2: /* from a record's beginning on, or from anywhere */
		fd = open(path, O_RDONLY);
		length = (size_t)pread(fd, bytes, length,
				       (off_t)(random_below(random, 2)
						       ? sizeof(struct local_file)
						       : random_below(random, size)));
		(void)close(fd);
		break;
	default:
		assert_int_equal(
			truncate(path, (off_t)(synced + random_below(random, size - synced + 1))),
			0);
		return;
	}
	if (random_below(random, 2)) /* over what was not synced */
		size = synced;
	put(path, bytes, length, size);
}

static void test_spoilt_tails_change_no_decision(void **state)
{
	struct bed *bed = *state;
	struct random random;
	char path[LOCAL_PATH_MAX];
	uint64_t synced = 0;

	random_init(&random, 7);
	bed->is_exact = false;
	bed->compact_bytes = 100000;
	bed_start_all(bed, 3);
	for (unsigned round = 0; round < max_of(bed_scaled(300), 30u); round++) {
		for (unsigned n = 0; n < 3; n++)
			bed_propose(bed, n, 10);
		for (uint64_t turns = random_below(&random, 30); turns; turns--)
			bed_turn(bed);
		*path = 0;
		for (unsigned n = 0; n < 3; n++) {
			const struct local_reader *reader = &local_of(bed, n)->reader;
			bool is_opening =
				reader->step >= READ_OPEN_IMAGE && reader->step <= READ_FILE_HEAD;
			/* A file is synced with its head before anyone is told of it. */
			uint64_t offset = is_opening ? sizeof(struct local_file) : reader->offset;

			if (*path && strcmp(path, reader->path) > 0)
				continue; /* it lags in an older file, which may be gone */
			if (*path && strcmp(path, reader->path) == 0)
				synced = max_of(synced, offset);
			else
				synced = offset;
			(void)snprintf(path, sizeof(path), "%s", reader->path);
		}
		local_bed_crash_all(bed);
		if (strstr(path, "/file.")) /* else it was opening an image */
			spoil_tail(&random, path, synced);
		bed_start_all(bed, 3);
	}
	BED_UNTIL(bed, bed_is_settled(bed));
	local_bed_crash_all(bed);
	bed_start_all(bed, 4); /* and whoever reads it all later decides the same */
	BED_UNTIL(bed, bed_is_settled(bed));
}

static void find_file(struct bed *bed, const char *prefix, bool last, char *out, size_t size)
{
	struct local_world *world = bed->world;
	DIR *dir = opendir(world->dir);
	struct dirent *entry;

	*out = 0;
	while ((entry = readdir(dir))) {
		char path[512];

		(void)snprintf(path, sizeof(path), "%s/%s", world->dir, entry->d_name);
		if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0 &&
		    (!*out || (strcmp(path, out) > 0) == last))
			(void)snprintf(out, size, "%s", path);
	}
	(void)closedir(dir);
	assert_true(*out);
}

static void fill_with_images(struct bed *bed)
{
	bed->compact_bytes = 8192;
	bed_start_all(bed, 2);
	for (int round = 0; round < 6; round++) {
		bed_propose(bed, 0, 40);
		BED_UNTIL(bed, bed_is_settled(bed));
	}
	BED_UNTIL(bed, bed->members[0].snapshots + bed->members[1].snapshots >= 2 &&
			       local_of(bed, 0)->compactor.step == COMPACT_IDLE &&
			       local_of(bed, 1)->compactor.step == COMPACT_IDLE);
	local_bed_crash_all(bed);
}

static void test_damaged_image_is_replaced_by_an_older_one(void **state)
{
	struct bed *bed = *state;
	char path[512];

	fill_with_images(bed);
	find_file(bed, "image.", true, path, sizeof(path));
	put(path, "damage", 6, sizeof(struct local_image) + 3);
	bed_start_all(bed, 2);
	BED_UNTIL(bed, bed_is_settled(bed));
}

static void test_missing_file_is_named(void **state)
{
	struct bed *bed = *state;
	char path[512];
	struct member *member;

	fill_with_images(bed);
	find_file(bed, "file.", true, path, sizeof(path));
	assert_int_equal(unlink(path), 0);
	member = bed_start(bed, 0);
	BED_UNTIL(bed, member->has_failed);
	assert_int_equal(member->failure.code, -E_CORRUPT);
	assert_non_null(strstr(member->failure.text, path));
	assert_false(member->is_ready);
}

static void test_foreign_directory_is_refused(void **state)
{
	struct bed *bed = *state;
	struct local_world *world = bed->world;
	struct error err = {0};
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/precious", world->dir);
	put(path, "data", 4, 0);
	assert_int_equal(bed_try_start(bed, 0, &err), -ENOTEMPTY);
	assert_non_null(strstr(err.text, "precious"));
	assert_int_equal(unlink(path), 0);
	/* Parts of a log without its root: never a new log on top of it. */
	(void)snprintf(path, sizeof(path), "%s/image.00000000000000000007.0000000003", world->dir);
	put(path, "data", 4, 0);
	assert_int_equal(bed_try_start(bed, 0, &err), -E_CORRUPT);
	assert_non_null(strstr(err.text, "missing"));
	assert_int_equal(unlink(path), 0);
	bed_start_all(bed, 1);
}

static void test_root_of_another_kind_or_version_is_refused(void **state)
{
	struct bed *bed = *state;
	struct local_world *world = bed->world;
	struct error err = {0};
	struct local_root root;
	char path[128];
	int fd;

	bed_start_all(bed, 1);
	bed_leave(bed, 0);
	(void)snprintf(path, sizeof(path), "%s/log", world->dir);
	fd = open(path, O_RDONLY);
	assert_int_equal(read(fd, &root, sizeof(root)), sizeof(root));
	(void)close(fd);
	root.version = to_le32(LOCAL_VERSION + 1);
	put(path, &root, sizeof(root), 0);
	assert_int_equal(bed_try_start(bed, 0, &err), -E_WRONG_VERSION);
	assert_non_null(strstr(err.text, "format 2"));
	put(path, "some text that is long enough to look like something of its own....", 64, 0);
	assert_int_equal(bed_try_start(bed, 0, &err), -E_CORRUPT);
	assert_int_equal(truncate(path, 10), 0);
	assert_int_equal(bed_try_start(bed, 0, &err), -E_CORRUPT);
}

static void test_directory_removed_under_us_fails_the_engine(void **state)
{
	struct bed *bed = *state;
	struct local_world *world = bed->world;
	uint64_t command = 0;

	bed_start_all(bed, 2);
	scratch_remove(world->dir);
	BED_UNTIL(bed, bed->members[0].has_failed && bed->members[1].has_failed);
	assert_non_null(strstr(bed->members[0].failure.text, "removed"));
	assert_int_equal(engine_propose(bed->members[0].engine, &command, sizeof(command)),
			 -E_SHUTDOWN);
	bed_leave(bed, 0);
}

static void test_garbage_among_the_members_is_ignored(void **state)
{
	struct bed *bed = *state;
	struct local_world *world = bed->world;
	char path[128], text[UUID_TEXT_SIZE];

	bed_start_all(bed, 2);
	(void)snprintf(path, sizeof(path), "%s/members/%s", world->dir,
		       uuid_format(&bed->members[4].node, text));
	put(path, "what is this", 12, 0);
	(void)snprintf(path, sizeof(path), "%s/members/readme", world->dir);
	put(path, "nothing", 7, 0);
	bed_start_all(bed, 3);
	bed_start_all(bed, 5); /* and node 4 takes its place */
	assert_int_equal(bed->members[0].end_count, 0);
}

static void test_specs(void **state)
{
	struct error err = {0};

	assert_int_equal(engine_check_spec("local:/some/where", &err), 0);
	assert_int_equal(engine_check_spec("local:", &err), -EINVAL);
	assert_int_equal(engine_check_spec("local", &err), -EINVAL);
	assert_int_equal(engine_check_spec("", &err), -EINVAL);
	assert_int_equal(engine_check_spec("locale:/x", &err), -EINVAL);
	assert_non_null(strstr(err.text, "local:DIR"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TEST(test_spoilt_tails_change_no_decision),
		BED_TEST(test_damaged_image_is_replaced_by_an_older_one),
		BED_TEST(test_missing_file_is_named),
		BED_TEST(test_foreign_directory_is_refused),
		BED_TEST(test_root_of_another_kind_or_version_is_refused),
		BED_TEST(test_directory_removed_under_us_fails_the_engine),
		BED_TEST(test_garbage_among_the_members_is_ignored),
		cmocka_unit_test(test_specs),
	};
	int rc = run_conformance("engine: local");

	return rc ? rc : cmocka_run_group_tests_name("engine: local, files", tests, NULL, NULL);
}
