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

/* Every kind of operation at every alignment, over and over in few places. */
static void test_small_and_crooked_operations_are_made_whole(void **state)
{
	static const enum gateway_io_kind kinds[] = {GATEWAY_WRITE, GATEWAY_WRITE, GATEWAY_ZERO,
						     GATEWAY_READ};
	struct herd *herd = herd_new(&three);
	struct random *random = sim_random(herd->world);

	for (unsigned i = 0; i < 1500; i++) {
		enum gateway_io_kind kind = kinds[random_below(random, ARRAY_COUNT(kinds))];
		uint32_t length = 512 * (1 + (uint32_t)random_below(random, 40));
		uint64_t offset = 4 * MIB - 16384 + 512 * random_below(random, 64 - 40 + 1);
		unsigned node = (unsigned)random_below(random, 3);
		assert_int_equal(kind == GATEWAY_WRITE ? herd_write(herd, node, offset, length)
				 : kind == GATEWAY_READ
					 ? herd_read(herd, node, offset, length)
					 : herd_clear(herd, node, kind, offset, length),
				 0);
	}
	assert_true(HERD_COUNTER(herd, merges) > 100);
	/* Whole objects go, and come back. */
	assert_int_equal(herd_clear(herd, 0, GATEWAY_TRIM, 0, 4 * MIB), 0);
	assert_int_equal(herd_clear(herd, 1, GATEWAY_ZERO, 4 * MIB, 4 * MIB), 0);
	assert_int_equal(herd_read(herd, 2, 0, 64 * KIB), 0);
	assert_int_equal(herd_write(herd, 1, 4096, 512), 0);
	herd_check(herd);
	herd_free(herd);
}

static void test_large_writes_take_one_entry_and_are_whole(void **state)
{
	struct herd *herd = herd_new(&three);

	for (unsigned i = 0; i < 12; i++)
		assert_int_equal(herd_write(herd, i % 3, i * 256 * KIB + (i % 2) * 512, 64 * KIB),
				 0);
	herd_load_start(herd, 48);
	herd_run(herd, 3000);
	herd_load_stop(herd);
	herd_check(herd);
	assert_int_equal(HERD_COUNTER(herd, appends_resent), 0);
	assert_int_equal(HERD_COUNTER(herd, shrinks), 0);
	herd_free(herd);
}

/* Nothing is left behind, and the others go on. */
static void test_a_node_that_stops_cleanly_gives_everything_back(void **state)
{
	for (unsigned node = 0; node < 3; node++) {
		struct herd *herd = herd_new(&three);

		herd_load_start(herd, 12);
		herd_run(herd, 300 + node);
		herd_stop(herd, node);
		herd_run(herd, 1000);
		herd_start(herd, node);
		herd_until(herd, 60000, herd_is_healthy, "healthy");
		herd_reopen(herd);
		herd_load_stop(herd);
		herd_check(herd);
		herd_free(herd);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_written_is_read_through_every_gateway),
		cmocka_unit_test(test_small_and_crooked_operations_are_made_whole),
		cmocka_unit_test(test_large_writes_take_one_entry_and_are_whole),
		cmocka_unit_test(test_a_node_that_stops_cleanly_gives_everything_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
