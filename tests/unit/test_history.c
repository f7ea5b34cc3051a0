/*
 * The checker of histories, against cases with a name and against brute force: for small histories all
 * orders are tried, and both must agree.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/base/random.h"
#include "lib/base/size.h"
#include "tests/sim/history.h"

enum { W, R };

/* Of sector 0; an end of 0: never. */
struct step {
	int kind;
	uint32_t value;
	uint64_t begin, end;
};

static void play(struct history *h, const struct step *steps, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		uint32_t number = history_begin(h, steps[i].begin, i);
		if (steps[i].kind == W)
			history_note_write(h, number, 0, steps[i].value);
		if (steps[i].end)
			history_end(h, number, steps[i].end);
		if (steps[i].kind == R)
			history_note_read(h, number, 0, steps[i].value);
	}
}

static bool judge(const struct step *steps, unsigned count)
{
	struct history *h = history_new(1);
	bool is_good;

	play(h, steps, count);
	is_good = history_check(h, NULL);
	history_free(h);
	return is_good;
}

#define GOOD(...)                                              \
	do {                                                   \
		const struct step steps[] = {__VA_ARGS__};     \
		assert_true(judge(steps, ARRAY_COUNT(steps))); \
	} while (0)
#define BAD(...)                                                \
	do {                                                    \
		const struct step steps[] = {__VA_ARGS__};      \
		assert_false(judge(steps, ARRAY_COUNT(steps))); \
	} while (0)

static void test_cases_by_name(void **state)
{
	GOOD({W, 1, 1, 2}, {R, 1, 3, 4});
	BAD({W, 1, 1, 2}, {R, 0, 3, 4});		  /* an acknowledged write is not there */
	BAD({R, 1, 1, 2}, {W, 1, 3, 4});		  /* read before it was written */
	GOOD({W, 1, 1, 9}, {R, 0, 2, 3}, {R, 1, 4, 5});	  /* in the middle of it */
	BAD({W, 1, 1, 9}, {R, 1, 2, 3}, {R, 0, 4, 5});	  /* and back */
	GOOD({W, 1, 1, 0}, {R, 0, 8, 9}, {R, 1, 10, 11}); /* late, and unacknowledged */
	GOOD({W, 1, 1, 0}, {R, 0, 8, 9});		  /* never */
	BAD({W, 1, 1, 0}, {W, 2, 2, 3}, {R, 1, 4, 5}, {W, 3, 6, 7}, {R, 1, 8, 9}); /* twice */
	BAD({W, 1, 1, 2}, {W, 2, 3, 4}, {R, 1, 5, 6});				   /* stale */
	GOOD({W, 1, 1, 4}, {W, 2, 2, 3}, {R, 1, 5, 6}); /* they overlapped */
	BAD({W, 1, 1, 4}, {W, 2, 2, 3}, {R, 1, 5, 6}, {R, 2, 7, 8});
	BAD({W, 1, 1, 2}, {R, 7, 3, 4}); /* nobody wrote it */
	GOOD({W, 1, 1, 2}, {W, 0, 3, 4}, {R, 0, 5, 6});
	BAD({W, 1, 1, 2}, {W, 0, 3, 4}, {R, 1, 5, 6});
	BAD({W, 1, 1, 2}, {W, 0, 3, 4}, {W, 2, 5, 6}, {R, 0, 7, 8});
	GOOD({W, 1, 1, 2}, {W, 0, 3, 0}, {R, 1, 5, 6}, {R, 0, 7, 8});
}

/* ---- eras ---- */

static bool judge_loss(bool is_flushed, bool is_early, uint32_t client, uint32_t back)
{
	const struct step before[] = {{W, 1, 1, 2}, {W, 2, 3, 4}};
	struct history *h = history_new(1);
	uint32_t number;
	bool is_good;

	play(h, before, 2); /* the second by client 1 */
	if (is_flushed && is_early) {
		number = history_begin(h, 5, client);
		history_end(h, number, 6);
		history_note_flush(h, number, 0, 1);
	}
	history_note_loss(h, 0, 1, 10);
	if (is_flushed && !is_early) {
		number = history_begin(h, 11, client);
		history_end(h, number, 12);
		history_note_flush(h, number, 0, 1);
	}
	number = history_begin(h, 20, 9);
	history_end(h, number, 21);
	history_note_read(h, number, 0, back);
	number = history_begin(h, 22, 9);
	history_end(h, number, 23);
	history_note_read(h, number, 0, back);
	is_good = history_check(h, NULL);
	history_free(h);
	return is_good;
}

static void test_a_loss_takes_back_what_was_not_flushed_and_nothing_else(void **state)
{
	assert_true(judge_loss(false, false, 0, 2));
	assert_true(judge_loss(false, false, 0, 1));
	assert_true(judge_loss(false, false, 0, 0));
	assert_false(judge_loss(false, false, 0, 3));
	assert_true(judge_loss(true, true, 0, 2));
	assert_false(judge_loss(true, true, 0, 1));
	assert_false(judge_loss(true, true, 0, 0));
	/* A FLUSH after it speaks for the writes of its own client only. */
	assert_true(judge_loss(true, false, 7, 1));
	assert_false(judge_loss(true, false, 1, 1));
	assert_true(judge_loss(true, false, 1, 2));
}

static void test_after_a_loss_one_old_value_is_back_not_two(void **state)
{
	const struct step before[] = {{W, 1, 1, 2}, {W, 2, 3, 4}};
	const struct step after[] = {{R, 1, 20, 21}, {R, 2, 22, 23}};
	struct history *h = history_new(1);

	play(h, before, 2);
	history_note_loss(h, 0, 1, 10);
	play(h, after, 2);
	assert_false(history_check(h, NULL));
	history_free(h);
}

/* ---- brute force ---- */

#define STEPS_MAX 7

/* Is there an order of the rest that real time allows? Unacknowledged writes may be left out. */
static bool has_order(const struct step *steps, unsigned count, unsigned done, uint32_t value)
{
	bool is_left = false;

	for (unsigned i = 0; i < count; i++) {
		bool may_be_next = !(done & BIT(i));
		if (!may_be_next)
			continue;
		if (steps[i].end)
			is_left = true;
		for (unsigned j = 0; j < count; j++)
			if (!(done & BIT(j)) && steps[j].end && steps[j].end < steps[i].begin)
				may_be_next = false;
		if (!may_be_next || (steps[i].kind == R && steps[i].value != value))
			continue;
		if (has_order(steps, count, done | BIT(i),
			      steps[i].kind == W ? steps[i].value : value))
			return true;
	}
	return !is_left;
}

static void test_agrees_with_brute_force(void **state)
{
	unsigned good = 0, bad = 0;
	struct random random;

	random_init(&random, 1);
	for (unsigned round = 0; round < 60000; round++) {
		struct step steps[STEPS_MAX];
		unsigned count = 2 + (unsigned)random_below(&random, STEPS_MAX - 1), writes = 0;
		bool expected;

		for (unsigned i = 0; i < count; i++) {
			struct step *step = &steps[i];
			step->begin = 1 + random_below(&random, 20);
			step->end = step->begin + 1 + random_below(&random, 6);
			step->kind = i < 2 || random_below(&random, 3) ? W : R;
			if (i >= 2)
				step->kind = random_below(&random, 3) ? R : W;
			if (step->kind == W) {
				step->value = ++writes;
				if (random_below(&random, 6) == 0)
					step->end = 0;
			} else {
				step->value = 1 + (uint32_t)random_below(&random, writes);
			}
		}
		expected = has_order(steps, count, 0, 0);
		if (judge(steps, count) != expected)
			fail_msg("round %u: %s by brute force", round, expected ? "good" : "bad");
		good += expected;
		bad += !expected;
	}
	assert_true(good > 5000 && bad > 5000);
}

/* With zeroes it may let a bad one pass, and never calls a good one bad. */
static void test_zeroes_invent_nothing(void **state)
{
	unsigned good = 0, found = 0, bad = 0;
	struct random random;

	random_init(&random, 2);
	for (unsigned round = 0; round < 60000; round++) {
		struct step steps[STEPS_MAX];
		unsigned count = 2 + (unsigned)random_below(&random, STEPS_MAX - 1), writes = 0;
		bool is_good;

		for (unsigned i = 0; i < count; i++) {
			struct step *step = &steps[i];
			step->begin = 1 + random_below(&random, 20);
			step->end = step->begin + 1 + random_below(&random, 6);
			step->kind = random_below(&random, 2) ? R : W;
			step->value = random_below(&random, 2) ? 0 : 1;
			if (step->kind == W && step->value)
				step->value = ++writes;
			else if (step->value)
				step->value =
					writes ? 1 + (uint32_t)random_below(&random, writes) : 0;
		}
		is_good = judge(steps, count);
		if (has_order(steps, count, 0, 0)) {
			assert_true(is_good);
			good++;
		} else {
			bad++;
			found += !is_good;
		}
	}
	assert_true(good > 5000 && found > bad * 9 / 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cases_by_name),
		cmocka_unit_test(test_a_loss_takes_back_what_was_not_flushed_and_nothing_else),
		cmocka_unit_test(test_after_a_loss_one_old_value_is_back_not_two),
		cmocka_unit_test(test_agrees_with_brute_force),
		cmocka_unit_test(test_zeroes_invent_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
