#include "lib/base/bitmap.h"
#include "lib/base/buffer.h"
#include "lib/base/bytes.h"
#include "lib/base/crc32c.h"
#include "lib/base/err.h"
#include "lib/base/pool.h"
#include "lib/base/random.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "lib/base/uuid.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_crc32c_has_the_standard_value(void **state)
{
	assert_int_equal(crc32c("123456789", 9), 0xe3069283u);
	assert_int_equal(crc32c("", 0), 0);
	assert_int_equal(crc32c_extend(crc32c("1234", 4), "56789", 5), 0xe3069283u);
}

static void test_error_recode_drops_the_text_of_errno(void **state)
{
	struct error err;

	error_set(&err, -EINVAL, "address 'x' is bad");
	assert_int_equal(error_recode(&err, -E_USAGE), -E_USAGE);
	assert_string_equal(err.text, "address 'x' is bad");
	assert_int_equal(err.code, -E_USAGE);
	error_set(&err, -E_STALE, "a: overtaken by another change");
	error_recode(&err, -EIO);
	assert_string_equal(err.text, "a: overtaken by another change");
	assert_int_equal(error_recode(NULL, -EIO), -EIO);
}

static void test_error_text_grows_outward(void **state)
{
	struct error err = {0};

	assert_int_equal(error_set(&err, -EIO, "open"), -EIO);
	assert_int_equal(error_wrap(&err, -EIO, "segment '%s'", "7"), -EIO);
	assert_string_equal(err.text, "segment '7': open: Input/output error");
	assert_int_equal(error_set(&err, -E_VERSION, "wrong"), -E_VERSION);
	assert_string_equal(err.text, "wrong");
	assert_int_equal(error_set(NULL, -EIO, "x"), -EIO);
	assert_string_equal(err_text(-E_CHECKSUM), "checksum mismatch");
}

static void test_reader_at_the_end_fails_and_stays_failed(void **state)
{
	uint8_t data[4] = {1, 2, 3, 4}, out[4];
	struct bytes_reader r = bytes_reader_of(data, sizeof(data));

	bytes_read(&r, out, 3);
	assert_int_equal(out[2], 3);
	assert_null(bytes_take(&r, 2));
	assert_null(bytes_take(&r, 1));
	assert_true(r.failed);
	assert_false(bytes_done(&r));
}

static void test_writer_never_overruns(void **state)
{
	uint8_t data[4];
	struct bytes_writer w = bytes_writer_of(data, sizeof(data));

	bytes_write(&w, "abc", 3);
	bytes_write(&w, "de", 2);
	assert_true(w.failed);
	assert_int_equal(w.used, 3);
}

static void test_pool_when_empty_gives_null(void **state)
{
	struct pool *pool = pool_new(100, 2);
	void *a = pool_get(pool), *b = pool_get(pool);

	assert_non_null(a);
	assert_non_null(b);
	assert_null(pool_get(pool));
	pool_put(pool, a);
	assert_ptr_equal(pool_get(pool), a);
	pool_put(pool, a);
	pool_put(pool, b);
	assert_int_equal(pool_busy(pool), 0);
	pool_free(pool);
}

static void *put_elsewhere(void *buffer)
{
	buffer_put(buffer);
	return NULL;
}

static void test_buffer_put_on_another_thread_comes_home(void **state)
{
	struct buffer_cache *cache = buffer_cache_new(1 << 20);
	struct buffer *a = buffer_new(cache, 5000);
	pthread_t thread;

	assert_int_equal(a->size, 8192);
	assert_int_equal((uintptr_t)a->data % BUFFER_ALIGN, 0);
	pthread_create(&thread, NULL, put_elsewhere, a);
	pthread_join(thread, NULL);
	assert_int_equal(buffer_cache_busy(cache), 0);
	struct buffer *b = buffer_new(cache, 8192);
	assert_ptr_equal(a, b);
	buffer_cache_free(cache);
	buffer_put(b); /* the last one takes the cache with it */
}

static void test_sizes_are_parsed_strictly(void **state)
{
	static const struct {
		const char *text;
		int rc;
		uint64_t value;
	} rows[] = {
		{"0", 0, 0},
		{"512", 0, 512},
		{"1K", 0, 1024},
		{"16P", 0, 16 * PIB},
		{"", -EINVAL, 0},
		{"K", -EINVAL, 0},
		{"1k", -EINVAL, 0},
		{"1 K", -EINVAL, 0},
		{"-1", -EINVAL, 0},
		{"1KB", -EINVAL, 0},
		{"18446744073709551616", -ERANGE, 0},
		{"99999P", -ERANGE, 0},
	};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		uint64_t value = 0;
		assert_int_equal(text_parse_size(rows[i].text, &value), rows[i].rc);
		assert_int_equal(value, rows[i].value);
	}
}

static void test_unclean_text_is_seen(void **state)
{
	assert_true(text_is_clean("volume-1 \xc3\xa4\xf0\x9f\x90\x91", 15));
	assert_false(text_is_clean("a\0b", 3));
	assert_false(text_is_clean("\xc0\x80", 2));
	assert_false(text_is_clean("\xed\xa0\x80", 3));
	assert_false(text_is_clean("\xc2\x85", 2));
	assert_false(text_is_clean("\xc3", 1));
	assert_false(text_is_clean("\n", 1));
}

static void test_uuid_survives_its_text(void **state)
{
	struct random random;
	char text[UUID_TEXT_SIZE];
	struct uuid again;

	random_init(&random, 1);
	struct uuid uuid = uuid_make(&random);
	assert_int_equal(uuid_parse(uuid_format(&uuid, text), &again), 0);
	assert_true(uuid_is_equal(&uuid, &again));
	assert_int_equal(uuid_parse("", &again), -EINVAL);
	text[35] = '\0';
	assert_int_equal(uuid_parse(text, &again), -EINVAL);
}

static void test_bitmap_finds_the_next(void **state)
{
	uint64_t map[BITMAP_WORDS(130)] = {0};

	bitmap_set(map, 0);
	bitmap_set(map, 64);
	bitmap_set(map, 129);
	assert_int_equal(bitmap_next(map, 130, 0), 0);
	assert_int_equal(bitmap_next(map, 130, 1), 64);
	assert_int_equal(bitmap_next(map, 130, 65), 129);
	assert_int_equal(bitmap_next(map, 129, 65), 129);
	assert_int_equal(bitmap_count(map, 130), 3);
	bitmap_clear(map, 64);
	assert_false(bitmap_test(map, 64));
}

static void test_random_repeats_from_its_seed(void **state)
{
	struct random a, b;

	random_init(&a, 42);
	random_init(&b, 42);
	for (int i = 0; i < 100; i++)
		assert_true(random_u64(&a) == random_u64(&b));
	for (int i = 0; i < 1000; i++)
		assert_true(random_below(&a, 7) < 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crc32c_has_the_standard_value),
		cmocka_unit_test(test_error_text_grows_outward),
		cmocka_unit_test(test_error_recode_drops_the_text_of_errno),
		cmocka_unit_test(test_reader_at_the_end_fails_and_stays_failed),
		cmocka_unit_test(test_writer_never_overruns),
		cmocka_unit_test(test_pool_when_empty_gives_null),
		cmocka_unit_test(test_buffer_put_on_another_thread_comes_home),
		cmocka_unit_test(test_sizes_are_parsed_strictly),
		cmocka_unit_test(test_unclean_text_is_seen),
		cmocka_unit_test(test_uuid_survives_its_text),
		cmocka_unit_test(test_bitmap_finds_the_next),
		cmocka_unit_test(test_random_repeats_from_its_seed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
