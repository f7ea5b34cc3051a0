/* Reads and writes of whole nodes in the simulator. */
#include "tests/sim/herd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/base/size.h"

static const struct herd_options three = {
	.seed = 1, .nodes = 3, .copies = 3, .pg_count = 4, .volume_bytes = 16 * MIB};

static void test_what_is_written_is_read_through_every_gateway(void **state)
{
	struct herd *herd = herd_new(&three);

	assert_int_equal(herd_write(herd, 0, 0, 4096), 0);
	assert_int_equal(herd_write(herd, 1, 4096, 4096), 0);
	assert_int_equal(herd_write(herd, 2, 8192, 32768), 0);
	assert_int_equal(herd_read(herd, 0, 0, 65536), 0);
	assert_int_equal(herd_flush(herd, 1), 0);
	herd_check(herd);
	herd_free(herd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_written_is_read_through_every_gateway),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
