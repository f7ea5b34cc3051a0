/* What every engine must do, whatever carries its log (bed.h; sheep/engine/engine.h). */
#include "tests/engine/bed.h"

#include <stdio.h>

static unsigned total_commits_of(struct bed *bed, unsigned number)
{
	unsigned count = 0;

	for (uint32_t i = 0; i < bed->members[number].proposed; i++)
		count += bed->commits[number][i] != 0;
	return count;
}

/* Three propose at once: all see the same order (the bed checks it at each commit). */
static void test_order_is_the_same_on_all(void **state)
{
	struct bed *bed = *state;

	bed_start_all(bed, 3);
	for (int round = 0; round < 20; round++) {
		for (unsigned n = 0; n < 3; n++)
			bed_propose(bed, n, 5);
		bed_turn(bed);
	}
	BED_UNTIL(bed, bed_is_settled(bed));
	for (unsigned n = 0; n < 3; n++) {
		assert_int_equal(total_commits_of(bed, n), 100);
		if (bed->is_exact)
			assert_int_equal(bed->members[n].commits, 300);
	}
}

static void test_hints_come_once_when_ready(void **state)
{
	struct bed *bed = *state;

	bed_start_all(bed, 3);
	BED_UNTIL(bed, bed->members[0].has_quorum && bed->members[1].has_quorum);
	assert_int_equal(bed->members[0].live, 7);
	assert_int_equal(bed->members[0].end_count, 0);
}

static void test_command_sizes_are_bounded(void **state)
{
	struct bed *bed = *state;
	uint8_t *big = calloc(1, ENGINE_COMMAND_MAX + 1);

	bed_start_all(bed, 2);
	assert_int_equal(engine_propose(bed->members[0].engine, big, 0), -EMSGSIZE);
	assert_int_equal(engine_propose(bed->members[0].engine, big, ENGINE_COMMAND_MAX + 1),
			 -EMSGSIZE);
	free(big);
	bed->command_size = ENGINE_COMMAND_MAX;
	bed_propose(bed, 0, 2);
	bed_propose(bed, 1, 2);
	BED_UNTIL(bed, bed_is_settled(bed));
	bed->command_size = sizeof(uint64_t); /* the smallest that a bed can tell */
	bed_propose(bed, 0, 3);
	BED_UNTIL(bed, bed_is_settled(bed));
}

/* A proposer that does not stop is told to wait, and what was taken is not lost. */
static void test_full_queue_says_again(void **state)
{
	struct bed *bed = *state;
	struct member *member;
	uint8_t *big = calloc(1, ENGINE_COMMAND_MAX);
	unsigned taken = 0;
	int rc = 0;

	bed_start_all(bed, 1);
	member = &bed->members[0];
	member->proposed = 1; /* the zeroes are command 0 of member 0 */
	while (rc == 0 && taken < 1000) {
		memcpy(big + ENGINE_COMMAND_MAX / 2, &taken, sizeof(taken)); /* no two are equal */
		rc = engine_propose(member->engine, big, ENGINE_COMMAND_MAX);
		taken += rc == 0;
	}
	free(big);
	assert_int_equal(rc, -EAGAIN);
	/* What is lost does not wait. */
	assert_in_range(taken, 1, ENGINE_QUEUE_MAX / ENGINE_COMMAND_MAX * (bed->is_exact ? 1 : 2));
	BED_UNTIL(bed, member->commits >= (bed->is_exact ? taken : 1));
}

static void test_durable_when_one_restarts(void **state)
{
	struct bed *bed = *state;
	uint64_t index;

	bed_start_all(bed, 3);
	for (unsigned victim = 0; victim < 3; victim++) {
		bed_propose(bed, (victim + 1) % 3, 20);
		BED_UNTIL(bed, bed_is_settled(bed));
		bed_crash(bed, victim);
		bed_propose(bed, (victim + 2) % 3, 20); /* the others go on */
		BED_UNTIL(bed, bed_is_settled(bed));
		index = bed->members[(victim + 1) % 3].index;
		bed_start(bed, victim);
		BED_UNTIL(bed, bed->members[victim].is_ready);
		/* All that anyone had seen when it was opened is here when it is ready. */
		assert_true(bed->members[victim].index >= index);
	}
}

static void test_durable_when_all_restart(void **state)
{
	struct bed *bed = *state;
	uint64_t index;

	for (int round = 0; round < 4; round++) {
		bed_start_all(bed, 3);
		for (unsigned n = 0; n < 3; n++)
			bed_propose(bed, n, 15);
		if (round % 2) /* else they crash with proposals under way */
			BED_UNTIL(bed, bed_is_settled(bed));
		else
			BED_UNTIL(bed, bed->members[0].commits > 5);
		index = bed->members[0].index;
		for (unsigned n = 0; n < 3; n++)
			bed_crash(bed, n);
		bed_start(bed, 2);
		if (bed->needs_majority)
			bed_start(bed, 1);
		BED_UNTIL(bed, bed->members[2].is_ready);
		assert_true(bed->members[2].index >= index);
		bed_start_all(bed, 3);
		BED_UNTIL(bed, bed_is_settled(bed));
		bed_stop_all(bed);
	}
}

static void test_newcomer_gets_an_image(void **state)
{
	struct bed *bed = *state;
	unsigned snapshots = 0;

	bed->compact_bytes = 16384;
	bed_start_all(bed, 3);
	for (int round = 0; round < 10; round++) {
		for (unsigned n = 0; n < 3; n++)
			bed_propose(bed, n, 30);
		BED_UNTIL(bed, bed_is_settled(bed));
	}
	for (unsigned n = 0; n < 3; n++)
		snapshots += (unsigned)bed->members[n].snapshots;
	assert_true(snapshots >= 2);
	bed_start(bed, 3);
	bed_start(bed, 4);
	BED_UNTIL(bed, bed_is_settled(bed));
	assert_int_equal(bed->members[3].index, bed->members[0].index);
	assert_true(bed->members[3].installs + bed->members[4].installs >= 1);
	assert_true(bed->members[3].commits < 900);
	bed_propose(bed, 3, 10);
	BED_UNTIL(bed, bed_is_settled(bed));
}

static void test_image_of_a_mebibyte(void **state)
{
	struct bed *bed = *state;

	bed->compact_bytes = 65536;
	bed->command_size = 32768;
	bed->image_pad = MIB;
	bed_start_all(bed, 2);
	for (int round = 0; round < 16; round++) {
		bed_propose(bed, 0, 10);
		bed_propose(bed, 1, 10);
		BED_UNTIL(bed, bed_is_settled(bed));
	}
	assert_true(bed->members[0].snapshots + bed->members[1].snapshots >= 1);
	bed_crash(bed, 0);
	bed_crash(bed, 1);
	bed_start_all(bed, 3);
	BED_UNTIL(bed, bed_is_settled(bed));
	assert_true(bed->members[0].installs + bed->members[1].installs +
			    bed->members[2].installs >=
		    1);
}

/* The log is compacted several times while a member does not run: nobody waits for it, and it comes
 * back by an image, without ever having gone its own way. */
static void test_compaction_does_not_wait_for_the_stopped(void **state)
{
	struct bed *bed = *state;
	struct member *stopped = &bed->members[2];

	bed->compact_bytes = 8192;
	bed_start_all(bed, 3);
	for (int turn = 0; turn < 3; turn++) {
		bed_propose(bed, 2, 10); /* some of its own are under way */
		if (turn != 1)
			BED_UNTIL(bed, bed_is_settled(bed));
		bed_set_stopped(bed, 2, true);
		for (int round = 0; round < 10; round++) {
			bed_propose(bed, 0, 20);
			bed_propose(bed, 1, 20);
			BED_UNTIL(bed, bed_is_settled(bed));
		}
		bed_set_stopped(bed, 2, false);
		BED_UNTIL(bed, bed_is_settled(bed));
		assert_int_equal(stopped->index, bed->members[0].index);
	}
	assert_true(stopped->installs >= 1);
	bed_propose(bed, 2, 10);
	BED_UNTIL(bed, bed_is_settled(bed));
}

static void test_death_is_certain_and_named(void **state)
{
	struct bed *bed = *state;
	struct member *victim = &bed->members[1];
	uint64_t start;

	if (bed->knows_no_deaths)
		skip();
	bed_start_all(bed, 3);
	start = victim->start;
	bed_crash(bed, 1);
	BED_UNTIL(bed, member_knows_end(&bed->members[0], victim, start, ENGINE_END_DIED) &&
			       member_knows_end(&bed->members[2], victim, start, ENGINE_END_DIED));
	BED_UNTIL(bed, !(bed->members[0].live & BIT(1)) && !(bed->members[2].live & BIT(1)));
	/* Who comes later learns it too. */
	bed_start(bed, 3);
	BED_UNTIL(bed, member_knows_end(&bed->members[3], victim, start, ENGINE_END_DIED));
	/* The next start lives; on_ended() refuses an end of a start that runs. */
	bed_start_all(bed, 4);
	BED_NEVER(bed, 300 * NS_PER_MS, !(bed->members[0].live & BIT(1)));
	for (unsigned n = 0; n < 4; n++)
		assert_false(
			member_knows_end(&bed->members[n], victim, start + 1, ENGINE_END_DIED));
}

static void test_leave_is_told_as_leave(void **state)
{
	struct bed *bed = *state;
	struct member *gone = &bed->members[2];
	uint64_t start;

	bed_start_all(bed, 3);
	start = gone->start;
	bed_leave(bed, 2);
	BED_UNTIL(bed, member_knows_end(&bed->members[0], gone, start, ENGINE_END_LEFT) &&
			       member_knows_end(&bed->members[1], gone, start, ENGINE_END_LEFT));
	assert_false(member_knows_end(&bed->members[0], gone, start, ENGINE_END_DIED));
	bed_start(bed, 3);
	BED_UNTIL(bed, member_knows_end(&bed->members[3], gone, start, ENGINE_END_LEFT));
	bed_start_all(bed, 4);
}

static void test_ends_of_many_starts(void **state)
{
	struct bed *bed = *state;
	struct member *victim = &bed->members[1];

	bed_start_all(bed, 2);
	for (int round = 0; round < 10; round++) {
		uint64_t start = victim->start;

		bed_propose(bed, 0, 3);
		if (bed->knows_no_deaths)
			bed_leave(bed, 1);
		else
			bed_crash(bed, 1);
		BED_UNTIL(bed, member_knows_end(&bed->members[0], victim, start,
						bed->knows_no_deaths ? ENGINE_END_LEFT
								     : ENGINE_END_DIED));
		bed_start_all(bed, 2);
	}
	BED_UNTIL(bed, bed_is_settled(bed));
}

/* Without certainty nobody is told that it is dead. */
static void test_uncertain_death_is_no_end(void **state)
{
	struct bed *bed = *state;
	struct member *victim = &bed->members[1];
	uint64_t start;

	if (bed->knows_no_deaths) {
		bed_start_all(bed, 3);
		bed_crash(bed, 1);
		BED_UNTIL(bed, !(bed->members[0].live & BIT(1)));
		BED_NEVER(bed, NS_PER_S, bed->members[0].end_count);
		return;
	}
	if (!bed->crash_quietly)
		skip();
	bed_start_all(bed, 3);
	start = victim->start;
	bed->crash_quietly(bed, victim);
	BED_UNTIL(bed, !(bed->members[0].live & BIT(1)));
	BED_NEVER(bed, NS_PER_S, bed->members[0].end_count);
	bed->confirm(bed, victim);
	BED_UNTIL(bed, member_knows_end(&bed->members[0], victim, start, ENGINE_END_DIED));
}

static void test_nothing_commits_without_quorum(void **state)
{
	struct bed *bed = *state;
	uint64_t index;

	if (!bed->set_quorum)
		skip();
	bed_start_all(bed, 3);
	bed_propose(bed, 0, 10);
	BED_UNTIL(bed, bed_is_settled(bed));
	bed->set_quorum(bed, false);
	BED_UNTIL(bed, !bed->members[0].has_quorum && !bed->members[2].has_quorum);
	index = bed->members[0].index;
	bed_propose(bed, 0, 10);
	bed_propose(bed, 1, 10);
	BED_NEVER(bed, 3 * NS_PER_S, bed->members[2].index != index);
	bed->set_quorum(bed, true);
	BED_UNTIL(bed, bed->members[0].has_quorum && bed_is_settled(bed));
}

static void test_second_start_of_a_running_node_is_refused(void **state)
{
	struct bed *bed = *state;
	struct error err = {0};

	bed_start_all(bed, 2);
	if (bed->later_start_wins)
		skip(); /* a test of its own */
	assert_int_equal(bed_try_start(bed, 0, &err), -EBUSY);
	assert_non_null(strstr(err.text, "running already"));
	bed_propose(bed, 0, 5); /* and the first one is not hurt */
	BED_UNTIL(bed, bed_is_settled(bed));
	bed_leave(bed, 0);
	bed_start_all(bed, 2);
}

static void test_another_log_is_refused(void **state)
{
	struct bed *bed = *state;
	struct error err = {0};

	bed_start_all(bed, 1);
	bed->log = engine_log(bed->members[0].engine);
	assert_false(uuid_is_null(&bed->log));
	bed_start_all(bed, 2); /* the right one */
	bed->log.bytes[3] ^= 1;
	bed_start_fails(bed, 2, -E_WRONG_CLUSTER, &err);
	assert_true(err.text[0]);
}

static void test_leave_at_once_and_after_proposals(void **state)
{
	struct bed *bed = *state;
	struct engine *engine;
	uint64_t command = 0;

	bed_start_all(bed, 1);
	bed_start(bed, 1); /* not ready yet */
	engine = bed->members[1].engine;
	bed_leave(bed, 1);
	(void)engine;
	bed_start_all(bed, 2);
	bed_propose(bed, 1, 5);
	engine = bed->members[1].engine;
	bed->members[1].is_leaving = true;
	engine_leave(engine);
	assert_int_equal(engine_propose(engine, &command, sizeof(command)), -E_SHUTDOWN);
	bed->members[1].engine = NULL;
	BED_UNTIL(bed, bed->members[1].has_left);
	engine_free(engine);
	bed_start_all(bed, 2); /* what was lost is proposed again by the next start */
	BED_UNTIL(bed, bed_is_settled(bed));
}

/* A user may leave in any callback, and free the engine in `left`. */
static void test_leave_inside_any_callback(void **state)
{
	struct bed *bed = *state;
	struct member *member = &bed->members[1];

	bed->compact_bytes = 4096;
	bed_start_all(bed, 1);
	bed_start(bed, 2);
	for (int round = 0; round < 12; round++) { /* so that there is an image */
		bed_propose(bed, 0, 30);
		BED_UNTIL(bed, bed_is_settled(bed));
	}
	for (unsigned moment = MOMENT_COMMIT; moment < MOMENT_COUNT; moment++) {
		bed_start(bed, 1);
		member->leave_at = (enum moment)moment;
		if (moment == MOMENT_ENDED) {
			BED_UNTIL(bed, member->is_ready);
			if (bed->knows_no_deaths)
				bed_leave(bed, 2);
			else
				bed_crash(bed, 2);
		}
		for (int round = 0; round < 200 && !member->has_left; round++) {
			if (moment == MOMENT_COMMIT || moment == MOMENT_SNAPSHOT) {
				bed_propose(bed, 0, 1);
				if (member->is_ready && !member->is_leaving)
					bed_propose(bed, 1, 3);
			}
			bed_turn(bed);
			bed_turn(bed);
		}
		if (moment == MOMENT_INSTALL || moment == MOMENT_SNAPSHOT) {
			if (!member->has_left) /* not every engine comes to it each time */
				bed_leave(bed, 1);
		} else {
			BED_UNTIL(bed, member->has_left);
		}
		if (moment == MOMENT_ENDED)
			bed_start(bed, 2);
	}
	bed_start_all(bed, 3);
	BED_UNTIL(bed, bed_is_settled(bed));
}

/* 10,000 commands (a tenth in the plain run) of four, with a crash and a newcomer in between. */
static void test_ten_thousand_commands(void **state)
{
	struct bed *bed = *state;
	unsigned each = bed_scaled(10000) / 4;

	bed->compact_bytes = 65536;
	bed_start_all(bed, 4);
	for (unsigned done = 0; done < each; done += 25) {
		for (unsigned n = 0; n < 4; n++)
			if (bed->members[n].engine)
				bed_propose(bed, n, 25);
		if (done == each / 2 / 25 * 25)
			bed_crash(bed, 3);
		if (done == each * 3 / 4 / 25 * 25)
			bed_start(bed, 5);
		for (unsigned n = 0; n < 3; n++)
			BED_UNTIL(bed, bed->members[n].settled + 500 > bed->members[n].proposed);
	}
	bed_start(bed, 3);
	BED_UNTIL(bed, bed_is_settled(bed));
	for (unsigned n = 0; n < 3; n++)
		assert_int_equal(total_commits_of(bed, n), (each + 24) / 25 * 25);
}

int run_conformance(const char *name)
{
	const struct CMUnitTest tests[] = {
		BED_TEST(test_order_is_the_same_on_all),
		BED_TEST(test_hints_come_once_when_ready),
		BED_TEST(test_command_sizes_are_bounded),
		BED_TEST(test_full_queue_says_again),
		BED_TEST(test_durable_when_one_restarts),
		BED_TEST(test_durable_when_all_restart),
		BED_TEST(test_newcomer_gets_an_image),
		BED_TEST(test_image_of_a_mebibyte),
		BED_TEST(test_compaction_does_not_wait_for_the_stopped),
		BED_TEST(test_death_is_certain_and_named),
		BED_TEST(test_leave_is_told_as_leave),
		BED_TEST(test_ends_of_many_starts),
		BED_TEST(test_uncertain_death_is_no_end),
		BED_TEST(test_nothing_commits_without_quorum),
		BED_TEST(test_second_start_of_a_running_node_is_refused),
		BED_TEST(test_another_log_is_refused),
		BED_TEST(test_leave_at_once_and_after_proposals),
		BED_TEST(test_leave_inside_any_callback),
		BED_TEST(test_ten_thousand_commands),
	};

	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}
