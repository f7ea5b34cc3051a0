/* The files of the engine on corosync, on a real loop. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/size.h"
#include "sheep/engine/cpg_disk.h"

#define TIMEOUT_NS (10 * NS_PER_S)

static bool may_mount; /* in a namespace of our own */

struct bench {
	struct loop *loop;
	struct cpg_disk *disk;
	char top[64], dir[80];
	unsigned written[CPG_DISK_KINDS];
	int rc[CPG_DISK_KINDS];
	bool has_closed, in_call;
};

static uint64_t now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void on_written(void *context, enum cpg_disk_kind kind, int rc)
{
	struct bench *bench = context;

	assert_false(bench->in_call);
	bench->written[kind]++;
	bench->rc[kind] = rc;
}

static void on_closed(void *context)
{
	struct bench *bench = context;

	assert_false(bench->in_call);
	bench->has_closed = true;
}

static const struct cpg_disk_callbacks callbacks = {.written = on_written, .closed = on_closed};

#define UNTIL(bench, condition)                                                           \
	do {                                                                              \
		uint64_t end_ = now() + TIMEOUT_NS;                                       \
		while (!(condition)) {                                                    \
			if (now() > end_)                                                 \
				fail_msg("never came: %s", #condition);                   \
			assert_int_equal(loop_turn((bench)->loop, now() + NS_PER_MS), 0); \
		}                                                                         \
	} while (0)

static int open_disk(struct bench *bench, struct error *err)
{
	return cpg_disk_open(bench->loop, bench->dir, &callbacks, bench, &bench->disk, err);
}

static void close_disk(struct bench *bench)
{
	bench->in_call = true;
	cpg_disk_close(bench->disk);
	bench->in_call = false;
	UNTIL(bench, bench->has_closed);
	bench->has_closed = false;
	cpg_disk_free(bench->disk);
	bench->disk = NULL;
}

static int setup(void **state)
{
	struct bench *bench = calloc(1, sizeof(*bench));
	struct error err = {0};

	(void)snprintf(bench->top, sizeof(bench->top), "/tmp/sheepfold-disk.XXXXXX");
	assert_non_null(mkdtemp(bench->top));
	(void)snprintf(bench->dir, sizeof(bench->dir), "%s/corosync", bench->top);
	assert_int_equal(loop_new(&(struct loop_options){.name = "disk"}, &bench->loop, &err), 0);
	assert_int_equal(open_disk(bench, &err), 0);
	*state = bench;
	return 0;
}

static int teardown(void **state)
{
	struct bench *bench = *state;
	char command[128];

	if (bench->disk)
		close_disk(bench);
	loop_free(bench->loop);
	(void)umount(bench->dir);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", bench->top);
	(void)!system(command);
	free(bench);
	return 0;
}

static void make(struct bench *bench, enum cpg_disk_kind kind, uint64_t number, const char *text)
{
	unsigned before = bench->written[kind];

	bench->in_call = true;
	cpg_disk_make(bench->disk, kind, number, text, strlen(text));
	bench->in_call = false;
	UNTIL(bench, bench->written[kind] == before + 1);
	assert_int_equal(bench->rc[kind], 0);
}

static void append(struct bench *bench, const char *text)
{
	unsigned before = bench->written[CPG_DISK_LOG];

	bench->in_call = true;
	cpg_disk_append(bench->disk, text, strlen(text));
	bench->in_call = false;
	UNTIL(bench, bench->written[CPG_DISK_LOG] == before + 1);
	assert_int_equal(bench->rc[CPG_DISK_LOG], 0);
}

static void expect(struct bench *bench, enum cpg_disk_kind kind, uint64_t number, const char *text)
{
	void *data;
	size_t size;

	assert_int_equal(cpg_disk_read(bench->disk, kind, number, &data, &size), 0);
	assert_int_equal(size, strlen(text));
	assert_memory_equal(data, text, size);
	free(data);
}

static bool is_there(struct bench *bench, const char *kind, unsigned number)
{
	char path[160];

	(void)snprintf(path, sizeof(path), "%s/%s.%020u", bench->dir, kind, number);
	return access(path, F_OK) == 0;
}

/* ---- */

static void test_what_was_written_is_there_after_a_restart(void **state)
{
	struct bench *bench = *state;
	struct error err = {0};
	const uint64_t *logs;
	uint32_t count;

	make(bench, CPG_DISK_LOG, 9, "nine");
	append(bench, ", ninety");
	make(bench, CPG_DISK_IMAGE, 10, "picture");
	append(bench, ", nine hundred");
	make(bench, CPG_DISK_LOG, 10, "ten");
	append(bench, "th");
	close_disk(bench);
	assert_int_equal(open_disk(bench, &err), 0);
	logs = cpg_disk_logs(bench->disk, &count);
	assert_int_equal(count, 2);
	assert_int_equal(logs[0], 9);
	assert_int_equal(logs[1], 10);
	expect(bench, CPG_DISK_LOG, 9, "nine, ninety, nine hundred");
	expect(bench, CPG_DISK_LOG, 10, "tenth");
	expect(bench, CPG_DISK_IMAGE, 10, "picture");
}

static void test_file_that_a_crash_left_is_made_anew(void **state)
{
	struct bench *bench = *state;
	struct error err = {0};

	make(bench, CPG_DISK_LOG, 3, "much that is wrong");
	close_disk(bench);
	assert_int_equal(open_disk(bench, &err), 0);
	make(bench, CPG_DISK_LOG, 3, "right");
	expect(bench, CPG_DISK_LOG, 3, "right");
}

static void test_older_files_go(void **state)
{
	struct bench *bench = *state;
	struct error err = {0};
	uint32_t count;

	for (unsigned number = 1; number < 6; number++) {
		make(bench, CPG_DISK_LOG, number, "x");
		make(bench, CPG_DISK_IMAGE, number, "y");
	}
	cpg_disk_remove_below(bench->disk, CPG_DISK_LOG, 3);
	cpg_disk_remove_below(bench->disk, CPG_DISK_IMAGE, 4);
	cpg_disk_remove_below(bench->disk, CPG_DISK_LOG, 5);
	UNTIL(bench, !is_there(bench, "log", 4) && !is_there(bench, "image", 3));
	close_disk(bench);
	assert_int_equal(open_disk(bench, &err), 0);
	assert_int_equal(cpg_disk_logs(bench->disk, &count)[0], 5);
	assert_int_equal(count, 1);
	assert_true(is_there(bench, "image", 4) && !is_there(bench, "image", 1));
}

static void test_two_at_once_are_refused(void **state)
{
	struct bench *bench = *state;
	struct cpg_disk *second = NULL;
	struct error err = {0};

	assert_int_equal(cpg_disk_open(bench->loop, bench->dir, &callbacks, bench, &second, &err),
			 -EBUSY);
	assert_non_null(strstr(err.text, "running already"));
	assert_null(second);
	assert_int_equal(
		cpg_disk_open(bench->loop, "/proc/no/such", &callbacks, bench, &second, &err),
		-ENOENT);
}

static void test_close_ends_what_is_under_way(void **state)
{
	struct bench *bench = *state;

	make(bench, CPG_DISK_LOG, 1, "x");
	cpg_disk_append(bench->disk, "yyyy", 4);
	cpg_disk_make(bench->disk, CPG_DISK_IMAGE, 2, "zzzz", 4);
	close_disk(bench);
	assert_int_equal(bench->written[CPG_DISK_LOG], 1);
	assert_int_equal(bench->written[CPG_DISK_IMAGE], 0);
}

/* It goes on by itself when there is room, at the place where it stopped. */
static void test_full_disk_is_waited_for(void **state)
{
	struct bench *bench = *state;
	char fill[160], big[32 << 10];
	struct error err = {0};
	void *data;
	size_t size;
	FILE *file;

	close_disk(bench);
	if (!may_mount || mount("none", bench->dir, "tmpfs", 0, "size=128k") < 0)
		skip();
	assert_int_equal(open_disk(bench, &err), 0);
	make(bench, CPG_DISK_LOG, 1, "first");
	(void)snprintf(fill, sizeof(fill), "%s/fill", bench->dir);
	file = fopen(fill, "w");
	while (fputc('x', file) != EOF && fflush(file) == 0)
		;
	(void)fclose(file);
	memset(big, 'b', sizeof(big));
	cpg_disk_append(bench->disk, big, sizeof(big));
	cpg_disk_make(bench->disk, CPG_DISK_IMAGE, 2, big, sizeof(big));
	for (uint64_t end = now() + 300 * NS_PER_MS; now() < end;)
		assert_int_equal(loop_turn(bench->loop, end), 0);
	assert_int_equal(bench->written[CPG_DISK_LOG], 1);
	assert_int_equal(bench->written[CPG_DISK_IMAGE], 0);
	assert_int_equal(unlink(fill), 0);
	UNTIL(bench, bench->written[CPG_DISK_LOG] == 2 && bench->written[CPG_DISK_IMAGE] == 1);
	assert_int_equal(bench->rc[CPG_DISK_LOG], 0);
	assert_int_equal(cpg_disk_read(bench->disk, CPG_DISK_LOG, 1, &data, &size), 0);
	assert_int_equal(size, 5 + sizeof(big));
	assert_memory_equal((uint8_t *)data + 5, big, sizeof(big));
	free(data);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_what_was_written_is_there_after_a_restart),
		TEST(test_file_that_a_crash_left_is_made_anew),
		TEST(test_older_files_go),
		TEST(test_two_at_once_are_refused),
		TEST(test_close_ends_what_is_under_way),
		TEST(test_full_disk_is_waited_for),
	};

	/* Before the first loop: its threads stay in the namespace they were made in. */
	may_mount = unshare(CLONE_NEWNS) == 0 &&
		    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
	return cmocka_run_group_tests_name("cpg disk", tests, NULL, NULL);
}
