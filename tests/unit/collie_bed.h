/*
 * collie against a scripted sheep: the state of a group of tests, in each of which `state` is cmocka's.
 */
#ifndef TESTS_UNIT_COLLIE_BED_H
#define TESTS_UNIT_COLLIE_BED_H

#include "tests/unit/collie_run.h"
#include "tests/unit/fake_sheep.h"

struct collie_bed {
	char address[128], path[64]; /* of the sheep's socket */
	struct fake_sheep *sheep;
};

int collie_bed_setup(void **state);
int collie_bed_teardown(void **state);

#define BED	    ((struct collie_bed *)*state)

#define RUN(...)    collie_run_argv(BED->address, false, COLLIE_ARGS(__VA_ARGS__))
#define SCRIPT(...) fake_sheep_script(BED->sheep, (const struct fake_step[]){__VA_ARGS__, {0}})

/* Run a command line; then the script must be used up. */
#define EXPECT(exit, out, err, ...)                                            \
	do {                                                                   \
		collie_run_expect(__LINE__, RUN(__VA_ARGS__), exit, out, err); \
		fake_sheep_check(BED->sheep);                                  \
	} while (0)

/* With --json: what was printed is the document that the sheep gave, by value. */
void collie_bed_expect_json(struct collie_bed *bed, struct collie_run run, const char *document);

/* Of stores. */
#define UUID1 "11111111-aaaa-4aaa-8aaa-000000000001"
#define UUID2 "22222222-bbbb-4bbb-8bbb-000000000002"

#endif
