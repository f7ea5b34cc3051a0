#include "lib/base/size.h"
#include "sheep/gateway/gateway.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_parts_cover_a_range_without_gaps(void **state)
{
	static const struct {
		uint64_t offset, length;
		unsigned parts;
	} rows[] = {
		{0, 1, 1},
		{0, OBJECT_SIZE, 1},
		{1, OBJECT_SIZE, 2},
		{OBJECT_SIZE - 1, 1, 1},
		{OBJECT_SIZE - 1, 2, 2},
		{5, 32 * MIB, 9},
		{0, 32 * MIB, 8},
		{16 * PIB - 1, 1, 1},
		{3 * GIB + 7, 4 * GIB, 1025},
	};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		uint64_t at = rows[i].offset, end = at + rows[i].length;
		unsigned parts = 0;
		while (at < end) {
			struct gateway_part part = gateway_split(at, end - at);
			assert_int_equal((uint64_t)part.index * OBJECT_SIZE + part.offset, at);
			assert_true(part.length > 0 && part.offset + part.length <= OBJECT_SIZE);
			at += part.length;
			parts++;
		}
		assert_int_equal(at, end);
		assert_int_equal(parts, rows[i].parts);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parts_cover_a_range_without_gaps),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
