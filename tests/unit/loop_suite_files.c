/* Files: operations and blocking calls, on any back end. */
#include "tests/unit/loop_suite.h"

#define READ_WRITE (LOOP_FILE_READ | LOOP_FILE_WRITE)

static struct loop_file *open_file(struct bed *bed, const char *name, unsigned flags)
{
	struct call call = {0};

	loop_file_open(bed->loop, call_begin(&call), bed_path(bed, name), flags);
	int rc = call_wait(bed, &call);
	if (rc < 0)
		fail_msg("open '%s': %s", name, err_text(rc));
	assert_non_null(call.op.out.file);
	return call.op.out.file;
}

static int open_result(struct bed *bed, const char *name, unsigned flags)
{
	struct call call = {0};
	int rc;

	loop_file_open(bed->loop, call_begin(&call), bed_path(bed, name), flags);
	rc = call_wait(bed, &call);
	if (rc == 0)
		loop_file_close(bed->loop, call.op.out.file);
	return rc;
}

static int write_at(struct bed *bed, struct loop_file *file, const void *data, size_t size,
		    uint64_t offset)
{
	struct iovec iov = {(void *)data, size};
	struct call call = {0};

	loop_file_write(bed->loop, call_begin(&call), file, &iov, 1, offset);
	return call_wait(bed, &call);
}

static int read_at(struct bed *bed, struct loop_file *file, void *data, size_t size,
		   uint64_t offset)
{
	struct iovec iov = {data, size};
	struct call call = {0};

	loop_file_read(bed->loop, call_begin(&call), file, &iov, 1, offset);
	return call_wait(bed, &call);
}

static void test_open_follows_its_flags(void **state)
{
	struct bed *bed = *state;
	struct loop_file *file;

	assert_int_equal(open_result(bed, "a", LOOP_FILE_READ), -ENOENT);
	assert_int_equal(open_result(bed, "none/a", READ_WRITE | LOOP_FILE_CREATE), -ENOENT);
	file = open_file(bed, "a", READ_WRITE | LOOP_FILE_CREATE | LOOP_FILE_EXCLUSIVE);
	assert_false(loop_file_is_direct(file));
	assert_int_equal(write_at(bed, file, "hello", 5, 0), 5);
	loop_file_close(bed->loop, file);
	assert_int_equal(open_result(bed, "a", READ_WRITE | LOOP_FILE_CREATE | LOOP_FILE_EXCLUSIVE),
			 -EEXIST);
	assert_int_equal(open_result(bed, "a", READ_WRITE | LOOP_FILE_CREATE), 0);
	file = open_file(bed, "a", LOOP_FILE_READ);
	assert_int_equal(loop_sync_size(bed->loop, file), 5);
	assert_int_equal(write_at(bed, file, "x", 1, 0), -EBADF);
	loop_file_close(bed->loop, file);
	file = open_file(bed, "a", LOOP_FILE_WRITE | LOOP_FILE_TRUNCATE);
	assert_int_equal(loop_sync_size(bed->loop, file), 0);
	loop_file_close(bed->loop, file);
	loop_file_close(bed->loop, NULL);
}

static void test_read_is_short_only_at_the_end_of_the_file(void **state)
{
	struct bed *bed = *state;
	struct loop_file *file = open_file(bed, "a", READ_WRITE | LOOP_FILE_CREATE);
	uint8_t data[10000], back[20000];

	pattern_fill(data, sizeof(data), 1);
	assert_int_equal(write_at(bed, file, data, sizeof(data), 0), sizeof(data));
	assert_int_equal(read_at(bed, file, back, sizeof(back), 0), sizeof(data));
	assert_true(pattern_is(back, sizeof(data), 1));
	assert_int_equal(read_at(bed, file, back, 100, 9950), 50);
	assert_memory_equal(back, data + 9950, 50);
	assert_int_equal(read_at(bed, file, back, 100, 10000), 0);
	assert_int_equal(read_at(bed, file, back, 100, 1000000), 0);
	assert_int_equal(read_at(bed, file, back, 0, 0), 0);
	loop_file_close(bed->loop, file);
}

static void test_write_beyond_the_end_leaves_zeroes(void **state)
{
	struct bed *bed = *state;
	struct loop_file *file = open_file(bed, "a", READ_WRITE | LOOP_FILE_CREATE);
	uint8_t back[5000];

	assert_int_equal(write_at(bed, file, "end", 3, 4500), 3);
	assert_int_equal(loop_sync_size(bed->loop, file), 4503);
	assert_int_equal(read_at(bed, file, back, sizeof(back), 0), 4503);
	for (unsigned i = 0; i < 4500; i++)
		assert_int_equal(back[i], 0);
	assert_memory_equal(back + 4500, "end", 3);
	loop_file_close(bed->loop, file);
}

/* More vectors than one system call takes, of uneven sizes. */
static void test_vectors_are_gathered_and_scattered(void **state)
{
	struct bed *bed = *state;
	enum { COUNT = 1500 };
	struct loop_file *file = open_file(bed, "a", READ_WRITE | LOOP_FILE_CREATE);
	struct iovec iov[COUNT];
	struct call call = {0};
	size_t size = 0;
	uint8_t *data, *back;

	for (unsigned i = 0; i < COUNT; i++)
		size += iov[i].iov_len = i % 37 * 11;
	data = malloc(size);
	back = calloc(1, size);
	pattern_fill(data, size, 2);
	for (size_t i = 0, at = 0; i < COUNT; at += iov[i].iov_len, i++)
		iov[i].iov_base = data + at;
	loop_file_write(bed->loop, call_begin(&call), file, iov, COUNT, 77);
	assert_int_equal(call_wait(bed, &call), size);
	for (size_t i = 0, at = 0; i < COUNT; at += iov[i].iov_len, i++)
		iov[i].iov_base = back + at;
	loop_file_read(bed->loop, call_begin(&call), file, iov, COUNT, 77);
	assert_int_equal(call_wait(bed, &call), size);
	assert_true(pattern_is(back, size, 2));
	loop_file_close(bed->loop, file);
	free(data);
	free(back);
}

static void test_direct_file_reads_and_writes_and_is_short_at_an_uneven_end(void **state)
{
	struct bed *bed = *state;
	struct loop_file *file = open_file(
		bed, "a", READ_WRITE | LOOP_FILE_CREATE | LOOP_FILE_EXCLUSIVE | LOOP_FILE_DIRECT);
	struct buffer *out = buffer_new(loop_buffers(bed->loop), 256 * KIB);
	struct buffer *in = buffer_new(loop_buffers(bed->loop), 256 * KIB);

	pattern_fill(out->data, 256 * KIB, 3);
	assert_int_equal(write_at(bed, file, out->data, 256 * KIB, 64 * KIB), 256 * KIB);
	assert_int_equal(read_at(bed, file, in->data, 256 * KIB, 64 * KIB), 256 * KIB);
	assert_true(pattern_is(in->data, 256 * KIB, 3));
	assert_int_equal(read_at(bed, file, in->data, 128 * KIB, 256 * KIB), 64 * KIB);
	if (loop_file_is_direct(file))
		assert_int_equal(write_at(bed, file, out->data + 8, 4096, 0), -EINVAL);
	assert_int_equal(loop_sync_truncate(bed->loop, file, 10000), 0);
	assert_int_equal(read_at(bed, file, in->data, 16384, 0), 10000);
	assert_int_equal(read_at(bed, file, in->data, 4096, 12288), 0);
	buffer_put(out);
	buffer_put(in);
	loop_file_close(bed->loop, file);
}

static void test_append_goes_to_the_end_whatever_the_offset(void **state)
{
	struct bed *bed = *state;
	struct loop_file *file =
		open_file(bed, "a", LOOP_FILE_WRITE | LOOP_FILE_CREATE | LOOP_FILE_APPEND);
	struct loop_file *reader = open_file(bed, "a", LOOP_FILE_READ);
	char back[16] = "";

	assert_int_equal(write_at(bed, file, "one", 3, 0), 3);
	assert_int_equal(write_at(bed, file, "two", 3, 0), 3);
	assert_int_equal(read_at(bed, reader, back, sizeof(back), 0), 6);
	assert_string_equal(back, "onetwo");
	loop_file_close(bed->loop, file);
	loop_file_close(bed->loop, reader);
}

static void test_sync_allocate_and_unlink(void **state)
{
	struct bed *bed = *state;
	struct loop_file *file = open_file(bed, "a", READ_WRITE | LOOP_FILE_CREATE);
	struct call call = {0};
	char back[8];

	loop_file_allocate(bed->loop, call_begin(&call), file, 0, MIB);
	assert_int_equal(call_wait(bed, &call), 0);
	assert_int_equal(loop_sync_size(bed->loop, file), MIB);
	assert_int_equal(write_at(bed, file, "data", 4, 0), 4);
	loop_file_sync(bed->loop, call_begin(&call), file);
	assert_int_equal(call_wait(bed, &call), 0);
	loop_file_unlink(bed->loop, call_begin(&call), bed_path(bed, "a"));
	assert_int_equal(call_wait(bed, &call), 0);
	loop_file_unlink(bed->loop, call_begin(&call), bed_path(bed, "a"));
	assert_int_equal(call_wait(bed, &call), -ENOENT);
	/* Open files live on without a name. */
	assert_int_equal(read_at(bed, file, back, 4, 0), 4);
	assert_memory_equal(back, "data", 4);
	loop_file_close(bed->loop, file);
}

/* More than any ring holds, none waited for in between. */
static void test_thousands_of_ops_at_once_all_complete(void **state)
{
	struct bed *bed = *state;
	enum { COUNT = 6000 };
	struct loop_file *file = open_file(bed, "a", READ_WRITE | LOOP_FILE_CREATE);
	struct call *calls = calloc(COUNT, sizeof(*calls));
	struct iovec *iov = calloc(COUNT, sizeof(*iov));
	uint32_t *words = calloc(COUNT, sizeof(*words));
	uint32_t *back = calloc(COUNT, sizeof(*back));

	for (uint32_t i = 0; i < COUNT; i++) {
		words[i] = i * 2654435761u;
		iov[i] = (struct iovec){&words[i], sizeof(words[i])};
		loop_file_write(bed->loop, call_begin(&calls[i]), file, &iov[i], 1, i * 4ull);
	}
	for (unsigned i = 0; i < COUNT; i++)
		assert_int_equal(calls[i].completions, 0);
	for (unsigned i = 0; i < COUNT; i++) {
		BED_UNTIL(bed, calls[i].completions);
		assert_int_equal(calls[i].result, 4);
		assert_int_equal(calls[i].completions, 1);
	}
	assert_int_equal(read_at(bed, file, back, COUNT * 4, 0), COUNT * 4);
	assert_memory_equal(words, back, COUNT * 4);
	loop_file_close(bed->loop, file);
	free(calls);
	free(iov);
	free(words);
	free(back);
}

/* Whether a cancel comes in time or not: one completion, with the result or -ECANCELED. */
static void test_cancelled_file_op_completes_once(void **state)
{
	struct bed *bed = *state;
	enum { COUNT = 2000 };
	struct loop_file *file = open_file(bed, "a", READ_WRITE | LOOP_FILE_CREATE);
	struct call *calls = calloc(COUNT, sizeof(*calls));
	struct iovec iov = {(char[]){"abcd"}, 4};

	for (unsigned i = 0; i < COUNT; i++)
		loop_file_write(bed->loop, call_begin(&calls[i]), file, &iov, 1, i * 4ull);
	for (unsigned i = 0; i < COUNT; i += 2) {
		loop_cancel(bed->loop, &calls[i].op);
		loop_cancel(bed->loop, &calls[i].op);
		assert_int_equal(calls[i].completions, 0);
	}
	for (unsigned i = 0; i < COUNT; i++) {
		BED_UNTIL(bed, calls[i].completions);
		assert_int_equal(calls[i].completions, 1);
		if (calls[i].result != -ECANCELED || i % 2)
			assert_int_equal(calls[i].result, 4);
	}
	/* Nothing of it is left that would keep the loop awake. */
	for (unsigned i = 0; i < 5; i++)
		bed_turn(bed);
	uint64_t until_ns = loop_now(bed->loop) + 5 * NS_PER_MS;
	assert_int_equal(loop_turn(bed->loop, until_ns), 0);
	assert_true(loop_now(bed->loop) >= until_ns);
	loop_file_close(bed->loop, file);
	free(calls);
}

/* ---- calls that block ---- */

static int note_name(void *context, const char *name)
{
	char *names = context;

	(void)strncat(names, name, 60 - strlen(names));
	(void)strncat(names, " ", 60 - strlen(names));
	return strcmp(name, "stop") == 0 ? 7 : 0;
}

static void test_blocking_calls_do_what_they_say(void **state)
{
	struct bed *bed = *state;
	struct loop *loop = bed->loop;
	struct loop_file *file;
	struct error err = {0};
	char names[64] = "", back[16] = "";
	uint64_t free_bytes = 0;

	assert_int_equal(loop_sync_open(loop, bed_path(bed, "no"), LOOP_FILE_READ, &file, &err),
			 -ENOENT);
	assert_non_null(strstr(err.text, bed_path(bed, "no")));
	assert_int_equal(loop_sync_mkdir(loop, bed_path(bed, "d")), 0);
	assert_int_equal(loop_sync_mkdir(loop, bed_path(bed, "d")), -EEXIST);
	assert_int_equal(loop_sync_open(loop, bed_path(bed, "d/x"), READ_WRITE | LOOP_FILE_CREATE,
					&file, &err),
			 0);
	assert_int_equal(loop_sync_write(loop, file, "0123456789", 10, 0), 0);
	assert_int_equal(loop_sync_fsync(loop, file), 0);
	assert_int_equal(loop_sync_size(loop, file), 10);
	assert_int_equal(loop_sync_truncate(loop, file, 6), 0);
	assert_int_equal(loop_sync_read(loop, file, back, sizeof(back), 2), 4);
	assert_string_equal(back, "2345");
	loop_file_close(loop, file);
	assert_int_equal(loop_sync_fsync_dir(loop, bed_path(bed, "d")), 0);
	assert_int_equal(loop_sync_rename(loop, bed_path(bed, "d/x"), bed_path(bed, "stop")), 0);
	assert_int_equal(loop_sync_rename(loop, bed_path(bed, "d/x"), bed_path(bed, "y")), -ENOENT);
	assert_int_equal(loop_sync_open(loop, bed_path(bed, "zz"),
					LOOP_FILE_WRITE | LOOP_FILE_CREATE, &file, &err),
			 0);
	loop_file_close(loop, file);
	assert_int_equal(loop_sync_list(loop, bed_path(bed, "d"), note_name, names), 0);
	assert_string_equal(names, "");
	assert_int_equal(loop_sync_list(loop, bed->directory, note_name, names), 7);
	assert_string_equal(names, "d stop ");
	assert_int_equal(loop_sync_list(loop, bed_path(bed, "no"), note_name, names), -ENOENT);
	assert_int_equal(loop_sync_free_space(loop, bed->directory, &free_bytes), 0);
	assert_true(free_bytes > MIB);
	assert_int_equal(loop_sync_unlink(loop, bed_path(bed, "zz")), 0);
	assert_int_equal(loop_sync_unlink(loop, bed_path(bed, "zz")), -ENOENT);
}

static void test_lock_belongs_to_one_open_file_until_it_is_closed(void **state)
{
	struct bed *bed = *state;
	struct loop_file *a = open_file(bed, "lock", READ_WRITE | LOOP_FILE_CREATE);
	struct loop_file *b = open_file(bed, "lock", READ_WRITE);

	assert_int_equal(loop_sync_is_locked(bed->loop, b), 0);
	assert_int_equal(loop_sync_lock(bed->loop, a), 0);
	assert_int_equal(loop_sync_lock(bed->loop, a), 0);
	assert_int_equal(loop_sync_is_locked(bed->loop, a), 0);
	assert_int_equal(loop_sync_is_locked(bed->loop, b), 1);
	assert_int_equal(loop_sync_lock(bed->loop, b), -EAGAIN);
	loop_file_close(bed->loop, a);
	assert_int_equal(loop_sync_is_locked(bed->loop, b), 0);
	assert_int_equal(loop_sync_lock(bed->loop, b), 0);
	loop_file_close(bed->loop, b);
}

static void test_mapped_file_has_what_was_stored_and_memory_what_was_written(void **state)
{
	struct bed *bed = *state;
	struct loop *loop = bed->loop;
	struct loop_file *a = open_file(bed, "map", READ_WRITE | LOOP_FILE_CREATE);
	struct loop_file *b = open_file(bed, "map", READ_WRITE);
	struct loop_file *only_read = open_file(bed, "map", LOOP_FILE_READ);
	char text[6] = "", *map, *other;

	assert_int_equal(loop_sync_map(loop, a, 5, (void **)&map), -EINVAL); /* it is empty */
	assert_int_equal(loop_sync_write(loop, a, "abcdefg", 7, 0), 0);
	assert_int_equal(loop_sync_map(loop, a, 8, (void **)&map), -EINVAL);
	assert_int_equal(loop_sync_map(loop, only_read, 5, (void **)&map), -EACCES);
	assert_int_equal(loop_sync_map(loop, a, 5, (void **)&map), 0);
	assert_memory_equal(map, "abcde", 5);
	map[1] = 'B';
	assert_int_equal(loop_sync_read(loop, b, text, 5, 0), 5);
	assert_string_equal(text, "aBcde");
	assert_int_equal(loop_sync_write(loop, b, "CD", 2, 2), 0);
	assert_memory_equal(map, "aBCDe", 5);
	assert_int_equal(loop_sync_map(loop, b, 5, (void **)&other), 0);
	other[4] = 'E';
	assert_int_equal(map[4], 'E');
	/* It follows the file, not the name, and goes with the handle; the bytes stay. */
	assert_int_equal(loop_sync_rename(loop, bed_path(bed, "map"), bed_path(bed, "moved")), 0);
	map[0] = 'A';
	loop_file_close(loop, a);
	loop_file_close(loop, b);
	loop_file_close(loop, only_read);
	a = open_file(bed, "moved", LOOP_FILE_READ);
	assert_int_equal(loop_sync_read(loop, a, text, 5, 0), 5);
	assert_string_equal(text, "ABCDE");
	loop_file_close(loop, a);
}

const struct CMUnitTest loop_suite_files[] = {
	BED_TEST(test_open_follows_its_flags),
	BED_TEST(test_read_is_short_only_at_the_end_of_the_file),
	BED_TEST(test_write_beyond_the_end_leaves_zeroes),
	BED_TEST(test_vectors_are_gathered_and_scattered),
	BED_TEST(test_direct_file_reads_and_writes_and_is_short_at_an_uneven_end),
	BED_TEST(test_append_goes_to_the_end_whatever_the_offset),
	BED_TEST(test_sync_allocate_and_unlink),
	BED_TEST(test_thousands_of_ops_at_once_all_complete),
	BED_TEST(test_cancelled_file_op_completes_once),
	BED_TEST(test_blocking_calls_do_what_they_say),
	BED_TEST(test_mapped_file_has_what_was_stored_and_memory_what_was_written),
	BED_TEST(test_lock_belongs_to_one_open_file_until_it_is_closed),
};
const size_t loop_suite_files_count = ARRAY_COUNT(loop_suite_files);
