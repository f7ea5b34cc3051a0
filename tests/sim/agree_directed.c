/*
 * Directed histories: three nodes that have settled, then messages that are lost, or that a member never
 * sent but might have, of an earlier time or another copy of the log.
 */
#include "tests/sim/agree_directed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/random.h"
#include "tests/sim/agree_stage.h"

static void say_ack(struct stage *stage, unsigned from, uint64_t term, uint64_t index)
{
	struct cpg_ack ack = {to_le64(stage->log_id[from]), to_le64(index)};

	stage_say(stage, from, CPG_TYPE_ACK, term, &ack, sizeof(ack));
}

/* A message of one empty entry, or (@term 0) none, behind @previous. */
static void say_entries(struct stage *stage, unsigned from, uint64_t message_term,
			uint64_t previous_term, uint64_t previous_index, uint64_t term,
			uint64_t commit)
{
	struct {
		struct cpg_entries head;
		struct cpg_entry entry;
	} body = {
		.head = {.previous_term = to_le64(previous_term),
			 .previous_index = to_le64(previous_index),
			 .commit = to_le64(commit),
			 .count = to_le32(term != 0)},
		.entry = {.term = to_le64(term),
			  .index = to_le64(previous_index + 1),
			  .type = to_le32(CPG_ENTRY_TERM)},
	};

	stage_say(stage, from, CPG_TYPE_ENTRIES, message_term, &body,
		  term ? sizeof(body) : sizeof(body.head));
}

/* One entry that everybody has and nobody acknowledges. Gives its index. */
static uint64_t append_in_doubt(struct stage *stage)
{
	struct agree_stats stats;

	stage->drops = 7;
	(void)user_propose(&stage->world->users[stage->leader], 100);
	stage_run_ms(stage, 100);
	stage_stats_of(stage, stage->one, &stats);
	if (stats.last != stats.commit + 1)
		world_broken(stage->world, "the stage is not as it should be: %llu of %llu",
			     (unsigned long long)stats.commit, (unsigned long long)stats.last);
	return stats.last;
}

/* Nobody has committed it. */
static void expect_in_doubt(struct stage *stage, uint64_t index)
{
	for (unsigned n = 0; n < 3; n++) {
		struct agree_stats stats;

		stage_stats_of(stage, n, &stats);
		if (stats.commit >= index)
			world_broken(stage->world, "node %u has committed entry %llu", n,
				     (unsigned long long)index);
	}
}

static void test_ack_of_an_older_term_does_not_count(struct stage *stage)
{
	struct agree_stats stats;
	uint64_t index;

	sim_cpg_hang_disk(stage->world->sim, stage->one, true);
	sim_cpg_hang_disk(stage->world->sim, stage->other, true);
	index = append_in_doubt(stage);
	stage_stats_of(stage, stage->leader, &stats);
	stage->drops = 0;
	say_ack(stage, stage->one, stats.term - 1, index);
	stage_run_ms(stage, 20);
	expect_in_doubt(stage, index);
}

static void test_entry_of_an_older_term_does_not_commit_by_count(struct stage *stage)
{
	struct agree_stats stats;
	uint64_t index;

	index = append_in_doubt(stage);
	user_kill(&stage->world->users[stage->leader], true);
	stage_run_ms(stage, 500);
	for (unsigned n = 0; n < 3; n++) {
		stage_stats_of(stage, n, &stats);
		if (stats.is_leader)
			break;
	}
	stage->drops = 0;
	for (unsigned n = 0; n < 3; n++) /* it has this one, of the old term, and not yet more */
		if (stage->world->users[n].core)
			stage->drops |= BIT(n);
	for (unsigned n = 0; n < 3; n++)
		if (stage->world->users[n].core && stats.term) {
			struct cpg_ack ack = {to_le64(stage->log_id[n]), to_le64(index)};

			stage->drops = 0;
			stage_say(stage, n, CPG_TYPE_ACK, stats.term, &ack, sizeof(ack));
		}
	(void)world_run(stage->world, NS_PER_MS, NULL, NULL);
	expect_in_doubt(stage, index);
}

static void test_entries_behind_another_entry_are_refused(struct stage *stage)
{
	struct agree_stats stats;
	uint64_t index;

	index = append_in_doubt(stage);
	stage_stats_of(stage, stage->leader, &stats);
	say_entries(stage, stage->leader, stats.term + 1, stats.term + 1, index, stats.term + 1, 0);
	stage_run_ms(stage, 2);
	stage_stats_of(stage, stage->one, &stats);
	if (stats.last > index)
		world_broken(stage->world, "an entry is behind one that its leader does not have");
}

static void test_entries_of_an_older_term_are_refused(struct stage *stage)
{
	struct agree_stats stats;
	uint64_t last;

	user_kill(&stage->world->users[stage->leader], true);
	stage_run_ms(stage, 1000);
	(void)user_start(&stage->world->users[stage->leader]);
	stage_run_ms(stage, 1000);
	stage_find_leader(stage);
	stage_stats_of(stage, stage->one, &stats);
	last = stats.last;
	say_entries(stage, stage->other, stats.term - 1, stats.term, last, stats.term - 1, 0);
	stage_run_ms(stage, 2);
	stage_stats_of(stage, stage->one, &stats);
	if (stats.last != last)
		world_broken(stage->world, "a leader of the past appended an entry");
}

static void test_commit_is_believed_as_far_as_logs_are_equal(struct stage *stage)
{
	struct agree_stats stats;
	uint64_t index;

	index = append_in_doubt(stage);
	stage_stats_of(stage, stage->one, &stats);
	/* A leader of the next term, with another entry there that the message does not show yet. */
	say_entries(stage, stage->other, stats.term + 1, stats.term, index - 1, 0, index);
	stage_run_ms(stage, 2);
	stage_stats_of(stage, stage->one, &stats);
	if (stats.commit >= index)
		world_broken(stage->world,
			     "an entry is committed that may differ from the leader's");
}

static void test_nobody_promises_to_who_has_less(struct stage *stage)
{
	struct agree_stats stats;
	struct cpg_ask ask;

	stage_stats_of(stage, stage->other, &stats);
	ask = (struct cpg_ask){to_le64(stage->log_id[stage->other]), to_le64(stats.term),
			       to_le64(stats.last - 1)};
	stage->asked = stats.term + 1;
	stage_say(stage, stage->other, CPG_TYPE_ASK, stats.term + 1, &ask, sizeof(ask));
	stage_run_ms(stage, 20);
	if (stage->grants & (BIT(stage->one) | BIT(stage->leader)))
		world_broken(stage->world, "a vote for a log that lacks an entry");
}

static void test_another_copy_of_a_voter_does_not_count(struct stage *stage)
{
	struct agree_stats stats;
	struct cpg_state state = {0};
	uint64_t index;

	sim_cpg_hang_disk(stage->world->sim, stage->one, true);
	sim_cpg_hang_disk(stage->world->sim, stage->other, true);
	index = append_in_doubt(stage);
	stage_stats_of(stage, stage->leader, &stats);
	stage->log_id[stage->one] ^= 2;
	state.log_id = to_le64(stage->log_id[stage->one]);
	state.flags = to_le32(CPG_STATE_BORN);
	stage_say(stage, stage->one, CPG_TYPE_STATE, stats.term, &state, sizeof(state));
	stage_run_ms(stage, 2);
	stage->drops = 0;
	say_ack(stage, stage->one, stats.term, index);
	stage_run_ms(stage, 20);
	expect_in_doubt(stage, index);
}

static void test_copy_that_lost_entries_is_registered_anew(struct stage *stage)
{
	struct agree_stats stats;
	struct user *user;
	uint64_t copy;

	user = &stage->world->users[stage->one];
	stage_stats_of(stage, stage->one, &stats);
	copy = stats.copy;
	sim_cpg_save_disk(stage->world->sim, stage->one);
	for (unsigned i = 0; i < 10; i++)
		(void)user_propose(&stage->world->users[stage->leader], 100);
	world_settle(stage->world, 5 * NS_PER_S);
	user_kill(user, true);
	sim_cpg_restore_disk(stage->world->sim, stage->one);
	(void)user_start(user);
	world_settle(stage->world, 10 * NS_PER_S);
	stage_run_ms(stage, 1000);
	stage_stats_of(stage, stage->one, &stats);
	if (stats.copy == copy)
		world_broken(stage->world, "a disk that went back counts as if it had not");
	if (stats.voters != 3)
		world_broken(stage->world, "there are %u voters", stats.voters);
}

static void test_voters_change_one_at_a_time(struct stage *stage)
{
	struct agree_stats stats;

	for (unsigned n = 3; n < 6; n++)
		(void)user_start(&stage->world->users[n]);
	for (unsigned i = 0; i < 5000; i++) {
		(void)world_run(stage->world, 100 * NS_PER_US, NULL, NULL);
		for (unsigned n = 0; n < 6; n++) {
			stage_stats_of(stage, n, &stats);
			if (stats.is_leader && stats.voter_changes > 1)
				world_broken(stage->world, "%u changes of voters at a time",
					     stats.voter_changes);
		}
	}
	world_settle(stage->world, 5 * NS_PER_S);
	stage_stats_of(stage, 0, &stats);
	if (stats.voters != 6)
		world_broken(stage->world, "there are %u voters", stats.voters);
}

/* Diego Ongaro's mail of July 2015 to raft-dev: without this a change of one voter is not safe either. */
static void test_voters_change_when_the_term_has_committed(struct stage *stage)
{
	struct agree_stats stats;

	user_kill(&stage->world->users[stage->leader], true);
	stage->drops = 15;
	(void)user_start(&stage->world->users[4]);
	for (unsigned i = 0; i < 200; i++) {
		stage_run_ms(stage, 5);
		for (unsigned n = 0; n < 4; n++) {
			stage_stats_of(stage, n, &stats);
			if (stats.voter_changes)
				world_broken(stage->world,
					     "voters change in a term without a committed entry");
		}
	}
	stage->drops = 0;
	(void)user_start(&stage->world->users[stage->leader]);
	world_settle(stage->world, 10 * NS_PER_S);
}

/* ---- not for a rule ---- */

static void test_forgotten_node_votes_no_more(struct stage *stage)
{
	struct agree_stats stats;
	struct uuid node;

	node = stage->world->users[stage->one].node;
	user_kill(&stage->world->users[stage->one], true);
	stage_run_ms(stage, 1000);
	for (unsigned n = 0; n < 4; n++)
		if (stage->world->users[n].core)
			agree_forget(stage->world->users[n].core, &node);
	stage_run_ms(stage, 1000);
	stage_stats_of(stage, stage->leader, &stats);
	if (stats.voters != 3)
		world_broken(stage->world, "there are %u voters, and one was forgotten",
			     stats.voters);
}

static void test_second_start_of_a_running_node_fails(struct stage *stage)
{
	struct user *copy;

	copy = &stage->world->users[3];
	copy->node = stage->world->users[0].node; /* a copied directory */
	copy->start = 100;
	stage->world->may_fail = true;
	(void)user_start(copy);
	stage_run_ms(stage, 8000);
	if (!copy->has_failed || copy->failure.code != -EBUSY || copy->is_ready)
		world_broken(stage->world, "a second start of a node goes on: %s",
			     copy->failure.text);
	if (stage->world->users[0].has_failed)
		world_broken(stage->world, "the first start failed: %s",
			     stage->world->users[0].failure.text);
}

static void test_silent_leader_is_replaced(struct stage *stage)
{
	uint64_t began, last;

	sim_cpg_set_paused(stage->world->sim, stage->leader, true);
	began = sim_cpg_now(stage->world->sim);
	last = stage->world->last;
	for (unsigned i = 0; i < 30 && stage->world->last == last; i++) {
		(void)user_propose(&stage->world->users[stage->one], 100);
		stage_run_ms(stage, 100);
	}
	if (sim_cpg_now(stage->world->sim) - began > 2 * NS_PER_S)
		world_broken(
			stage->world, "a leader that is stopped holds all for %llu ms",
			(unsigned long long)((sim_cpg_now(stage->world->sim) - began) / NS_PER_MS));
	sim_cpg_set_paused(stage->world->sim, stage->leader, false);
	world_settle(stage->world, 10 * NS_PER_S);
}

static void test_damage_in_the_middle_of_a_log_is_named(struct stage *stage)
{
	struct user *user;
	uint8_t *bytes;
	size_t length;

	user = &stage->world->users[stage->one];
	for (unsigned i = 0; i < 10; i++) {
		(void)user_propose(user, 100);
		stage_run_ms(stage, 50);
	}
	user_kill(user, true);
	bytes = sim_cpg_log_bytes(stage->world->sim, stage->one, &length);
	bytes[length / 2] ^= 4;
	stage->world->may_fail = true;
	if (user_start(user) || user->failure.code != -E_CORRUPT)
		world_broken(stage->world, "a damaged log is believed: %s", user->failure.text);
}

static void test_disk_that_fails_stops_its_member_only(struct stage *stage)
{
	struct user *user;

	user = &stage->world->users[stage->one];
	stage->world->may_fail = true;
	sim_cpg_fail_disk(stage->world->sim, stage->one);
	for (unsigned i = 0; i < 10; i++)
		(void)user_propose(&stage->world->users[stage->other], 100);
	stage_run_ms(stage, 500);
	if (!user->has_failed || user->failure.code != -EIO)
		world_broken(stage->world, "a disk failed, and its member goes on");
	if (stage->world->users[stage->other].seen != stage->world->users[stage->other].proposed)
		world_broken(stage->world, "the others do not go on");
}

/* Whole messages of any content: what they say may be believed, but nobody falls over it. */
static bool test_random_messages_crash_nobody(char *why, size_t size)
{
	static const uint32_t sizes[] = {
		[CPG_TYPE_STATE] = sizeof(struct cpg_state),
		[CPG_TYPE_ASK] = sizeof(struct cpg_ask),
		[CPG_TYPE_VOTE] = sizeof(struct cpg_vote),
		[CPG_TYPE_ENTRIES] = sizeof(struct cpg_entries) + sizeof(struct cpg_entry),
		[CPG_TYPE_ACK] = sizeof(struct cpg_ack),
		[CPG_TYPE_NEED] = sizeof(struct cpg_need),
		[CPG_TYPE_IMAGE] = sizeof(struct cpg_part),
		[CPG_TYPE_RECEIVED] = sizeof(struct cpg_received),
		[CPG_TYPE_PROPOSAL] = sizeof(struct cpg_proposal),
		[CPG_TYPE_ENDED] = sizeof(struct cpg_ended),
		[CPG_TYPE_BYE] = 0,
		[12] = 7,
	};
	struct random random;

	random_init(&random, 77);
	for (unsigned round = 0; round < 20; round++) {
		struct stage stage;

		stage_set_up(&stage, 3, 3);
		stage.world->may_fail = true;
		for (unsigned i = 0; i < 200; i++) {
			uint8_t body[512] = {0};
			enum cpg_type type = (enum cpg_type)(1 + random_below(&random, 12));
			size_t length = sizes[type];
			struct agree_stats stats;

			if (random_below(&random, 4) == 0)
				length = random_below(&random, sizeof(body));

			stage_stats_of(&stage, stage.leader, &stats);
			for (size_t at = 0; at < length; at++) /* small numbers, mostly */
				if (random_below(&random, 6) == 0)
					body[at] = (uint8_t)random_below(
						&random, random_below(&random, 4) ? 16 : 256);
			stage_say(&stage, (unsigned)random_below(&random, 3), type,
				  stats.term + random_below(&random, 3), body, length);
			if (random_below(&random, 10) == 0)
				sim_cpg_inject(stage.world->sim, (unsigned)random_below(&random, 3),
					       body, length);
			(void)user_propose(&stage.world->users[random_below(&random, 3)], 100);
			(void)sim_cpg_run(stage.world->sim,
					  sim_cpg_now(stage.world->sim) + 5 * NS_PER_MS, NULL,
					  NULL);
		}
		(void)stage_tear_down(&stage, why, size);
	}
	return true;
}

#define NO_RULE RULE_COUNT

/* clang-format off */
const struct directed directed_table[] = {
	{"an acknowledgement of an older term does not count", RULE_G1_ACK_TERM, 3, 3, test_ack_of_an_older_term_does_not_count},
	{"an entry of an older term does not commit by count", RULE_G1_OWN_TERM, 3, 3, test_entry_of_an_older_term_does_not_commit_by_count},
	{"entries behind another entry are refused", RULE_G1_PREVIOUS, 3, 3, test_entries_behind_another_entry_are_refused},
	{"entries of an older term are refused", RULE_G1_OLD_TERM, 3, 3, test_entries_of_an_older_term_are_refused},
	{"the leader's commit is believed as far as logs are equal", RULE_G1_COMMIT_MATCH, 3, 3, test_commit_is_believed_as_far_as_logs_are_equal},
	{"nobody promises to who has less", RULE_G1_BEST_LOG, 3, 3, test_nobody_promises_to_who_has_less},
	{"a vote is not told in a later term", RULE_G1_VOTE_ONCE, 3, 3, test_vote_is_not_told_in_a_later_term},
	{"a copied disk is one voter", RULE_G2_DOUBLE, 4, 3, test_copied_disk_is_one_voter},
	{"who is behind remembers what a copy had", RULE_G2_TOLD_AHEAD, 3, 3, test_who_is_behind_remembers_what_a_copy_had},
	{"who was ready does not drop its log", RULE_G2_FOUNDED, .run = test_who_was_ready_does_not_drop_its_log},
	{"another copy of a voter does not count", RULE_G2_LOG_ID, 3, 3, test_another_copy_of_a_voter_does_not_count},
	{"a copy that lost entries is registered anew", RULE_G2_REGRESSED, 3, 3, test_copy_that_lost_entries_is_registered_anew},
	{"voters change one at a time", RULE_G2_ONE_AT_A_TIME, 6, 3, test_voters_change_one_at_a_time},
	{"voters change when the term has committed", RULE_G2_OWN_TERM_FIRST, 5, 4, test_voters_change_when_the_term_has_committed},
	{"a forgotten node votes no more", NO_RULE, 4, 4, test_forgotten_node_votes_no_more},
	{"a second start of a running node fails", NO_RULE, 4, 3, test_second_start_of_a_running_node_fails},
	{"a silent leader is replaced", NO_RULE, 3, 3, test_silent_leader_is_replaced},
	{"slow disks find a leader", NO_RULE, .run = test_slow_disks_find_a_leader},
	{"a leader that stops after its state is replaced", NO_RULE, 5, 5, test_leader_that_stops_after_its_state_is_replaced},
	{"an older copied disk does not condemn the original", NO_RULE, 4, 3, test_older_copied_disk_does_not_condemn_the_original},
	{"a struck copy that gets an image votes again", NO_RULE, .run = test_struck_copy_that_gets_an_image_votes_again},
	{"a forgotten node that came back goes on after a partition", NO_RULE, 4, 4, test_forgotten_node_that_came_back_goes_on_after_a_partition},
	{"a first log that can never be used gives way", NO_RULE, .run = test_first_log_that_can_never_be_used_gives_way},
	{"a first log without one of its voters gives way", NO_RULE, .run = test_first_log_without_one_of_its_voters_gives_way},
	{"damage in the middle of a log is named", NO_RULE, 3, 3, test_damage_in_the_middle_of_a_log_is_named},
	{"random messages crash nobody", NO_RULE, .run = test_random_messages_crash_nobody},
	{"a disk that fails stops its member only", NO_RULE, 3, 3, test_disk_that_fails_stops_its_member_only},
};
/* clang-format on */
const unsigned directed_count = ARRAY_COUNT(directed_table);

bool directed_run(const struct directed *directed, char *why, size_t size)
{
	struct stage stage;

	if (directed->run)
		return directed->run(why, size);
	stage_set_up(&stage, directed->nodes, directed->starts);
	directed->play(&stage);
	return stage_tear_down(&stage, why, size);
}
