/* No memory at the wrong moment: calls of a store that fail once in a while (the linker wraps them). */
#include "tests/sim/herd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/base/size.h"

static unsigned failures_left, failures;

int __real_store_set_requests(struct store *store, uint32_t pg,
			      const struct store_request *requests, uint32_t count);
int __wrap_store_set_requests(struct store *store, uint32_t pg,
			      const struct store_request *requests, uint32_t count);

int __wrap_store_set_requests(struct store *store, uint32_t pg,
			      const struct store_request *requests, uint32_t count)
{
	if (count > 0 && failures_left > 0) {
		failures_left--;
		failures++;
		return -ENOMEM;
	}
	return __real_store_set_requests(store, pg, requests, count);
}

static bool two_serve(struct herd *herd)
{
	struct cluster_summary summary;

	cluster_summary(herd_map(herd), &summary);
	return summary.pgs_active == summary.pgs_total && summary.nodes_up == 2;
}

/* A store that is filled gets the table of requests, or it is not in sync (Q1). */
static void test_a_store_that_did_not_take_the_requests_is_not_in_sync(void **state)
{
	const struct herd_options options = {
		.seed = 1, .nodes = 3, .copies = 3, .pg_count = 1, .volume_bytes = 8 * MIB};
	struct herd *herd = herd_new(&options);
	unsigned primary = (unsigned)herd_primary(herd, 0), away = (primary + 1) % 3;
	unsigned other = (primary + 2) % 3;
	struct store_request ours[64], theirs[64];

	herd_kill(herd, away, SIM_DEATH_CERTAIN);
	herd_until(herd, 5000, two_serve, "two nodes serve");
	for (uint64_t at = 0; at < 8 * MIB; at += 512 * KIB)
		assert_int_equal(herd_write(herd, at % (1 * MIB) ? primary : other, at, 4096), 0);
	failures = 0;
	failures_left = 3;
	herd_start(herd, away);
	herd_until(herd, 60000, herd_is_healthy, "healthy");
	assert_int_equal(failures, 3);
	uint32_t count = store_requests(herd->nodes[other].store, 0, ours, ARRAY_COUNT(ours));
	assert_true(count > 0 && count < ARRAY_COUNT(ours));
	assert_int_equal(store_requests(herd->nodes[away].store, 0, theirs, ARRAY_COUNT(theirs)),
			 count);
	herd_reopen(herd);
	herd_check(herd);
	herd_free(herd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_store_that_did_not_take_the_requests_is_not_in_sync),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
