/*
 * One suite for all back ends of the loop: what lib/loop/loop.h promises, asked
 * of a test bed that a program sets up on io_uring or in the simulator.
 *
 *   test_loop.c       io_uring, and what only real threads and kernels show
 *   test_sim_loop.c   the simulator, and what only it can do
 */
#ifndef TESTS_UNIT_LOOP_SUITE_H
#define TESTS_UNIT_LOOP_SUITE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/size.h"
#include "lib/loop/loop.h"

struct bed {
	struct loop *loop;  /* a fresh one for each test */
	struct loop *other; /* on the same machine, made by bed_other() */
	struct loop *(*new_loop)(struct bed *bed, const struct loop_options *options);
	char directory[64];    /* an empty one of this test */
	char unix_address[96]; /* "unix:..." in it */
	const char *tcp_any;   /* to listen at: any port of this machine */
	const char *tcp_dead;  /* nobody listens there */
};

/* Given by the program: a bed for each test. */
int bed_setup(void **state);
int bed_teardown(void **state);
#define BED_TEST(test) cmocka_unit_test_setup_teardown(test, bed_setup, bed_teardown)

struct loop *bed_other(struct bed *bed);
/* A path in the test's directory; four may be in use at a time. */
const char *bed_path(struct bed *bed, const char *name);
/* Turn all loops of the bed once, sleeping for 10 ms at most. */
void bed_turn(struct bed *bed);

/* Turn until @condition; fails after 20 s of the loop's time. */
#define BED_UNTIL(bed, condition)                                       \
	do {                                                            \
		uint64_t end_ = loop_now((bed)->loop) + 20 * NS_PER_S;  \
		while (!(condition)) {                                  \
			if (loop_now((bed)->loop) > end_)               \
				fail_msg("never came: %s", #condition); \
			bed_turn(bed);                                  \
		}                                                       \
	} while (0)

/* An op with its result; counts completions and notices one inside the submitting call. */
struct call {
	struct loop_op op;
	int result;
	unsigned completions;
};

/* Prepare @call for one more use; returns its op. */
struct loop_op *call_begin(struct call *call);
/* It has been submitted, so it has not ended; wait until it has. Returns the result. */
int call_wait(struct bed *bed, struct call *call);

/* A connected TCP pair: [0] dialled, [1] accepted. */
void bed_connect(struct bed *bed, const char *listen_at, struct loop_socket *out[2]);
/* Fills with bytes that depend on @seed and the place. */
void pattern_fill(uint8_t *data, size_t size, uint64_t seed);
bool pattern_is(const uint8_t *data, size_t size, uint64_t seed);

extern const struct CMUnitTest loop_suite_core[];
extern const size_t loop_suite_core_count;
extern const struct CMUnitTest loop_suite_files[];
extern const size_t loop_suite_files_count;
extern const struct CMUnitTest loop_suite_streams[];
extern const size_t loop_suite_streams_count;
/* Real back ends only. */
extern const struct CMUnitTest loop_suite_kernel[];
extern const size_t loop_suite_kernel_count;

#endif
