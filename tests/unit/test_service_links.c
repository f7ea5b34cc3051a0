/* Connections to other sheep, counted over loops: what is told to the engine, and when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/size.h"
#include "sheep/service/links.h"

struct bench {
	struct loop *loop;
	struct links *links;
	unsigned opened, closed;
	uint64_t start; /* that was told of last */
};

static const struct uuid node_a = {{1}}, node_b = {{2}};

static void on_told(void *context, const struct uuid *node, uint64_t start, bool is_closed)
{
	struct bench *bench = context;

	bench->opened += !is_closed;
	bench->closed += is_closed;
	bench->start = start;
}

static int setup(void **state)
{
	struct bench *bench = calloc(1, sizeof(*bench));
	struct error err;

	assert_int_equal(loop_new(&(struct loop_options){.name = "links"}, &bench->loop, &err), 0);
	bench->links = links_new(bench->loop, on_told, bench);
	assert_non_null(bench->links);
	*state = bench;
	return 0;
}

static int teardown(void **state)
{
	struct bench *bench = *state;

	links_free(bench->links);
	loop_free(bench->loop);
	free(bench);
	return 0;
}

static void expect(struct bench *bench, unsigned opened, unsigned closed)
{
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(loop_turn(bench->loop, 0), 0);
	assert_int_equal(bench->opened, opened);
	assert_int_equal(bench->closed, closed);
}

static void test_only_the_last_connection_tells(void **state)
{
	struct bench *bench = *state;

	links_changed(bench->links, &node_a, 7, true, false);
	links_changed(bench->links, &node_a, 7, true, false);
	expect(bench, 1, 0);
	links_changed(bench->links, &node_a, 7, false, true);
	expect(bench, 1, 0);
	links_changed(bench->links, &node_a, 7, false, true);
	expect(bench, 1, 1);
	assert_int_equal(bench->start, 7);
	links_changed(bench->links, &node_a, 7, true, false);
	expect(bench, 2, 1);
}

static void test_what_we_closed_ourselves_proves_nothing(void **state)
{
	struct bench *bench = *state;

	links_changed(bench->links, &node_a, 7, true, false);
	links_changed(bench->links, &node_a, 7, false, false);
	expect(bench, 1, 0);
}

static void test_starts_and_nodes_are_kept_apart(void **state)
{
	struct bench *bench = *state;

	links_changed(bench->links, &node_a, 7, true, false);
	links_changed(bench->links, &node_a, 8, true, false);
	links_changed(bench->links, &node_b, 7, true, false);
	expect(bench, 3, 0);
	links_changed(bench->links, &node_a, 7, false, true);
	expect(bench, 3, 1);
	/* Of what was never made nothing is known. */
	links_changed(bench->links, &node_a, 9, false, true);
	expect(bench, 3, 1);
	links_changed(bench->links, &node_b, 7, false, true);
	expect(bench, 3, 2);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_only_the_last_connection_tells),
		TEST(test_what_we_closed_ourselves_proves_nothing),
		TEST(test_starts_and_nodes_are_kept_apart),
	};

	return cmocka_run_group_tests_name("links", tests, NULL, NULL);
}
