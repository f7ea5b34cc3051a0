/*
 * Directed histories: three nodes that have settled, then messages that are lost, or that a member never
 * sent but might have, of an earlier time or another copy of the log.
 */
#include "tests/sim/agree_directed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/crc32c.h"
#include "tests/sim/agree_world.h"

struct stage {
	struct world *world;
	unsigned leader, one, other;		/* nodes */
	struct cpg_message head[SIM_CPG_NODES]; /* of the last message of each */
	uint64_t log_id[SIM_CPG_NODES];
	unsigned drops;	 /* nodes whose acknowledgements are lost */
	uint64_t asked;	 /* a term */
	unsigned grants; /* nodes that have promised it */
};

static bool on_message(void *context, unsigned from, const uint8_t *data, size_t size)
{
	struct stage *stage = context;
	const void *body = data + sizeof(struct cpg_message);
	struct cpg_message head;

	if (size < sizeof(head))
		return false; /* one of ours that is none */
	memcpy(&head, data, sizeof(head));
	size -= sizeof(head);
	if (from_le32(head.magic) != CPG_MESSAGE_MAGIC)
		return false;
	stage->head[from] = head;
	switch (from_le16(head.type)) {
	case CPG_TYPE_STATE:
		if (size >= sizeof(struct cpg_state))
			stage->log_id[from] = from_le64(((const struct cpg_state *)body)->log_id);
		return false;
	case CPG_TYPE_VOTE:
		if (size >= sizeof(struct cpg_vote) && from_le64(head.term) == stage->asked &&
		    from_le32(((const struct cpg_vote *)body)->is_granted))
			stage->grants |= BIT(from);
		return false;
	case CPG_TYPE_ACK:
		return stage->drops & BIT(from);
	default:
		return false;
	}
}

static void stats_of(struct stage *stage, unsigned node, struct agree_stats *stats)
{
	*stats = (struct agree_stats){0};
	if (stage->world->users[node].core)
		agree_stats_get(stage->world->users[node].core, stats);
}

static void find_leader(struct stage *stage)
{
	for (unsigned n = 0; n < stage->world->nodes; n++) {
		struct agree_stats stats;

		stats_of(stage, n, &stats);
		if (stats.is_leader)
			stage->leader = n;
	}
	stage->one = (stage->leader + 1) % 3;
	stage->other = (stage->leader + 2) % 3;
}

static void set_up(struct stage *stage, unsigned nodes, unsigned starts)
{
	*stage = (struct stage){0};
	stage->world = world_new(&(struct sim_cpg_options){.seed = 5, .nodes = nodes});
	sim_cpg_set_filter(stage->world->sim, on_message, stage);
	for (unsigned n = 0; n < starts; n++)
		(void)user_start(&stage->world->users[n]);
	if (starts == nodes)
		world_settle(stage->world, 10 * NS_PER_S);
	else
		(void)world_run(stage->world, 5 * NS_PER_S, NULL, NULL);
	for (unsigned n = 0; n < 3; n++)
		(void)user_propose(&stage->world->users[n], 100);
	(void)world_run(stage->world, NS_PER_S, NULL, NULL);
	find_leader(stage);
}

static bool tear_down(struct stage *stage, char *why, size_t size)
{
	bool is_well = !stage->world->has_failed;

	(void)snprintf(why, size, "%s", stage->world->why);
	world_free(stage->world);
	return is_well;
}

static void run_ms(struct stage *stage, uint64_t ms)
{
	(void)world_run(stage->world, ms * NS_PER_MS, NULL, NULL);
}

/* @from says this. */
static void say(struct stage *stage, unsigned from, enum cpg_type type, uint64_t term,
		const void *body, size_t size)
{
	uint8_t data[4096];
	struct cpg_message head = stage->head[from];

	head.type = to_le16((uint16_t)type);
	head.size = to_le32((uint32_t)(sizeof(head) + size));
	head.term = to_le64(term);
	head.crc = to_le32(0);
	memcpy(data, &head, sizeof(head));
	if (size)
		memcpy(data + sizeof(head), body, size);
	head.crc = to_le32(crc32c(data, sizeof(head) + size));
	memcpy(data, &head, sizeof(head));
	sim_cpg_inject(stage->world->sim, from, data, sizeof(head) + size);
}

static void say_ack(struct stage *stage, unsigned from, uint64_t term, uint64_t index)
{
	struct cpg_ack ack = {to_le64(stage->log_id[from]), to_le64(index)};

	say(stage, from, CPG_TYPE_ACK, term, &ack, sizeof(ack));
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

	say(stage, from, CPG_TYPE_ENTRIES, message_term, &body,
	    term ? sizeof(body) : sizeof(body.head));
}

/* One entry that everybody has and nobody acknowledges. Gives its index. */
static uint64_t append_in_doubt(struct stage *stage)
{
	struct agree_stats stats;

	stage->drops = 7;
	(void)user_propose(&stage->world->users[stage->leader], 100);
	run_ms(stage, 100);
	stats_of(stage, stage->one, &stats);
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

		stats_of(stage, n, &stats);
		if (stats.commit >= index)
			world_broken(stage->world, "node %u has committed entry %llu", n,
				     (unsigned long long)index);
	}
}

static bool test_ack_of_an_older_term_does_not_count(char *why, size_t size)
{
	struct stage stage;
	struct agree_stats stats;
	uint64_t index;

	set_up(&stage, 3, 3);
	sim_cpg_hang_disk(stage.world->sim, stage.one, true);
	sim_cpg_hang_disk(stage.world->sim, stage.other, true);
	index = append_in_doubt(&stage);
	stats_of(&stage, stage.leader, &stats);
	stage.drops = 0;
	say_ack(&stage, stage.one, stats.term - 1, index);
	run_ms(&stage, 20);
	expect_in_doubt(&stage, index);
	return tear_down(&stage, why, size);
}

static bool test_entry_of_an_older_term_does_not_commit_by_count(char *why, size_t size)
{
	struct stage stage;
	struct agree_stats stats;
	uint64_t index;

	set_up(&stage, 3, 3);
	index = append_in_doubt(&stage);
	user_kill(&stage.world->users[stage.leader], true);
	run_ms(&stage, 500);
	for (unsigned n = 0; n < 3; n++) {
		stats_of(&stage, n, &stats);
		if (stats.is_leader)
			break;
	}
	stage.drops = 0;
	for (unsigned n = 0; n < 3; n++) /* it has this one, of the old term, and not yet more */
		if (stage.world->users[n].core)
			stage.drops |= BIT(n);
	for (unsigned n = 0; n < 3; n++)
		if (stage.world->users[n].core && stats.term) {
			struct cpg_ack ack = {to_le64(stage.log_id[n]), to_le64(index)};

			stage.drops = 0;
			say(&stage, n, CPG_TYPE_ACK, stats.term, &ack, sizeof(ack));
		}
	(void)world_run(stage.world, NS_PER_MS, NULL, NULL);
	expect_in_doubt(&stage, index);
	return tear_down(&stage, why, size);
}

static bool test_entries_behind_another_entry_are_refused(char *why, size_t size)
{
	struct stage stage;
	struct agree_stats stats;
	uint64_t index;

	set_up(&stage, 3, 3);
	index = append_in_doubt(&stage);
	stats_of(&stage, stage.leader, &stats);
	say_entries(&stage, stage.leader, stats.term + 1, stats.term + 1, index, stats.term + 1, 0);
	run_ms(&stage, 2);
	stats_of(&stage, stage.one, &stats);
	if (stats.last > index)
		world_broken(stage.world, "an entry is behind one that its leader does not have");
	return tear_down(&stage, why, size);
}

static bool test_entries_of_an_older_term_are_refused(char *why, size_t size)
{
	struct stage stage;
	struct agree_stats stats;
	uint64_t last;

	set_up(&stage, 3, 3);
	user_kill(&stage.world->users[stage.leader], true);
	run_ms(&stage, 1000);
	(void)user_start(&stage.world->users[stage.leader]);
	run_ms(&stage, 1000);
	find_leader(&stage);
	stats_of(&stage, stage.one, &stats);
	last = stats.last;
	say_entries(&stage, stage.other, stats.term - 1, stats.term, last, stats.term - 1, 0);
	run_ms(&stage, 2);
	stats_of(&stage, stage.one, &stats);
	if (stats.last != last)
		world_broken(stage.world, "a leader of the past appended an entry");
	return tear_down(&stage, why, size);
}

static bool test_commit_is_believed_as_far_as_logs_are_equal(char *why, size_t size)
{
	struct stage stage;
	struct agree_stats stats;
	uint64_t index;

	set_up(&stage, 3, 3);
	index = append_in_doubt(&stage);
	stats_of(&stage, stage.one, &stats);
	/* A leader of the next term, with another entry there that the message does not show yet. */
	say_entries(&stage, stage.other, stats.term + 1, stats.term, index - 1, 0, index);
	run_ms(&stage, 2);
	stats_of(&stage, stage.one, &stats);
	if (stats.commit >= index)
		world_broken(stage.world,
			     "an entry is committed that may differ from the leader's");
	return tear_down(&stage, why, size);
}

static bool test_nobody_promises_to_who_has_less(char *why, size_t size)
{
	struct stage stage;
	struct agree_stats stats;
	struct cpg_ask ask;

	set_up(&stage, 3, 3);
	stats_of(&stage, stage.other, &stats);
	ask = (struct cpg_ask){to_le64(stage.log_id[stage.other]), to_le64(stats.term),
			       to_le64(stats.last - 1)};
	stage.asked = stats.term + 1;
	say(&stage, stage.other, CPG_TYPE_ASK, stats.term + 1, &ask, sizeof(ask));
	run_ms(&stage, 20);
	if (stage.grants & (BIT(stage.one) | BIT(stage.leader)))
		world_broken(stage.world, "a vote for a log that lacks an entry");
	return tear_down(&stage, why, size);
}

static bool test_another_copy_of_a_voter_does_not_count(char *why, size_t size)
{
	struct stage stage;
	struct agree_stats stats;
	struct cpg_state state = {0};
	uint64_t index;

	set_up(&stage, 3, 3);
	sim_cpg_hang_disk(stage.world->sim, stage.one, true);
	sim_cpg_hang_disk(stage.world->sim, stage.other, true);
	index = append_in_doubt(&stage);
	stats_of(&stage, stage.leader, &stats);
	stage.log_id[stage.one] ^= 2;
	state.log_id = to_le64(stage.log_id[stage.one]);
	state.flags = to_le32(CPG_STATE_BORN);
	say(&stage, stage.one, CPG_TYPE_STATE, stats.term, &state, sizeof(state));
	run_ms(&stage, 2);
	stage.drops = 0;
	say_ack(&stage, stage.one, stats.term, index);
	run_ms(&stage, 20);
	expect_in_doubt(&stage, index);
	return tear_down(&stage, why, size);
}

static bool test_copy_that_lost_entries_is_registered_anew(char *why, size_t size)
{
	struct stage stage;
	struct agree_stats stats;
	struct user *user;
	uint64_t copy;

	set_up(&stage, 3, 3);
	user = &stage.world->users[stage.one];
	stats_of(&stage, stage.one, &stats);
	copy = stats.copy;
	sim_cpg_save_disk(stage.world->sim, stage.one);
	for (unsigned i = 0; i < 10; i++)
		(void)user_propose(&stage.world->users[stage.leader], 100);
	world_settle(stage.world, 5 * NS_PER_S);
	user_kill(user, true);
	sim_cpg_restore_disk(stage.world->sim, stage.one);
	(void)user_start(user);
	world_settle(stage.world, 10 * NS_PER_S);
	run_ms(&stage, 1000);
	stats_of(&stage, stage.one, &stats);
	if (stats.copy == copy)
		world_broken(stage.world, "a disk that went back counts as if it had not");
	if (stats.voters != 3)
		world_broken(stage.world, "there are %u voters", stats.voters);
	return tear_down(&stage, why, size);
}

static bool test_voters_change_one_at_a_time(char *why, size_t size)
{
	struct stage stage;
	struct agree_stats stats;

	set_up(&stage, 6, 3);
	for (unsigned n = 3; n < 6; n++)
		(void)user_start(&stage.world->users[n]);
	for (unsigned i = 0; i < 5000; i++) {
		(void)world_run(stage.world, 100 * NS_PER_US, NULL, NULL);
		for (unsigned n = 0; n < 6; n++) {
			stats_of(&stage, n, &stats);
			if (stats.is_leader && stats.voter_changes > 1)
				world_broken(stage.world, "%u changes of voters at a time",
					     stats.voter_changes);
		}
	}
	world_settle(stage.world, 5 * NS_PER_S);
	stats_of(&stage, 0, &stats);
	if (stats.voters != 6)
		world_broken(stage.world, "there are %u voters", stats.voters);
	return tear_down(&stage, why, size);
}

/* Diego Ongaro's mail of July 2015 to raft-dev: without this a change of one voter is not safe either. */
static bool test_voters_change_when_the_term_has_committed(char *why, size_t size)
{
	struct stage stage;
	struct agree_stats stats;

	set_up(&stage, 5, 4);
	user_kill(&stage.world->users[stage.leader], true);
	stage.drops = 15;
	(void)user_start(&stage.world->users[4]);
	for (unsigned i = 0; i < 200; i++) {
		run_ms(&stage, 5);
		for (unsigned n = 0; n < 4; n++) {
			stats_of(&stage, n, &stats);
			if (stats.voter_changes)
				world_broken(stage.world,
					     "voters change in a term without a committed entry");
		}
	}
	stage.drops = 0;
	(void)user_start(&stage.world->users[stage.leader]);
	world_settle(stage.world, 10 * NS_PER_S);
	return tear_down(&stage, why, size);
}

/* ---- not for a rule ---- */

static bool test_forgotten_node_votes_no_more(char *why, size_t size)
{
	struct stage stage;
	struct agree_stats stats;
	struct uuid node;

	set_up(&stage, 4, 4);
	node = stage.world->users[stage.one].node;
	user_kill(&stage.world->users[stage.one], true);
	run_ms(&stage, 1000);
	for (unsigned n = 0; n < 4; n++)
		if (stage.world->users[n].core)
			agree_forget(stage.world->users[n].core, &node);
	run_ms(&stage, 1000);
	stats_of(&stage, stage.leader, &stats);
	if (stats.voters != 3)
		world_broken(stage.world, "there are %u voters, and one was forgotten",
			     stats.voters);
	return tear_down(&stage, why, size);
}

static bool test_second_start_of_a_running_node_fails(char *why, size_t size)
{
	struct stage stage;
	struct user *copy;

	set_up(&stage, 4, 3);
	copy = &stage.world->users[3];
	copy->node = stage.world->users[0].node; /* a copied directory */
	copy->start = 100;
	stage.world->may_fail = true;
	(void)user_start(copy);
	run_ms(&stage, 8000);
	if (!copy->has_failed || copy->failure.code != -EBUSY || copy->is_ready)
		world_broken(stage.world, "a second start of a node goes on: %s",
			     copy->failure.text);
	if (stage.world->users[0].has_failed)
		world_broken(stage.world, "the first start failed: %s",
			     stage.world->users[0].failure.text);
	return tear_down(&stage, why, size);
}

static bool test_silent_leader_is_replaced(char *why, size_t size)
{
	struct stage stage;
	uint64_t began, last;

	set_up(&stage, 3, 3);
	sim_cpg_set_paused(stage.world->sim, stage.leader, true);
	began = sim_cpg_now(stage.world->sim);
	last = stage.world->last;
	for (unsigned i = 0; i < 30 && stage.world->last == last; i++) {
		(void)user_propose(&stage.world->users[stage.one], 100);
		run_ms(&stage, 100);
	}
	if (sim_cpg_now(stage.world->sim) - began > 2 * NS_PER_S)
		world_broken(
			stage.world, "a leader that is stopped holds all for %llu ms",
			(unsigned long long)((sim_cpg_now(stage.world->sim) - began) / NS_PER_MS));
	sim_cpg_set_paused(stage.world->sim, stage.leader, false);
	world_settle(stage.world, 10 * NS_PER_S);
	return tear_down(&stage, why, size);
}

static bool test_damage_in_the_middle_of_a_log_is_named(char *why, size_t size)
{
	struct stage stage;
	struct user *user;
	uint8_t *bytes;
	size_t length;

	set_up(&stage, 3, 3);
	user = &stage.world->users[stage.one];
	for (unsigned i = 0; i < 10; i++) {
		(void)user_propose(user, 100);
		run_ms(&stage, 50);
	}
	user_kill(user, true);
	bytes = sim_cpg_log_bytes(stage.world->sim, stage.one, &length);
	bytes[length / 2] ^= 4;
	stage.world->may_fail = true;
	if (user_start(user) || user->failure.code != -E_CORRUPT)
		world_broken(stage.world, "a damaged log is believed: %s", user->failure.text);
	return tear_down(&stage, why, size);
}

static bool test_disk_that_fails_stops_its_member_only(char *why, size_t size)
{
	struct stage stage;
	struct user *user;

	set_up(&stage, 3, 3);
	user = &stage.world->users[stage.one];
	stage.world->may_fail = true;
	sim_cpg_fail_disk(stage.world->sim, stage.one);
	for (unsigned i = 0; i < 10; i++)
		(void)user_propose(&stage.world->users[stage.other], 100);
	run_ms(&stage, 500);
	if (!user->has_failed || user->failure.code != -EIO)
		world_broken(stage.world, "a disk failed, and its member goes on");
	if (stage.world->users[stage.other].seen != stage.world->users[stage.other].proposed)
		world_broken(stage.world, "the others do not go on");
	return tear_down(&stage, why, size);
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

		set_up(&stage, 3, 3);
		stage.world->may_fail = true;
		for (unsigned i = 0; i < 200; i++) {
			uint8_t body[512] = {0};
			enum cpg_type type = (enum cpg_type)(1 + random_below(&random, 12));
			size_t length = sizes[type];
			struct agree_stats stats;

			if (random_below(&random, 4) == 0)
				length = random_below(&random, sizeof(body));

			stats_of(&stage, stage.leader, &stats);
			for (size_t at = 0; at < length; at++) /* small numbers, mostly */
				if (random_below(&random, 6) == 0)
					body[at] = (uint8_t)random_below(
						&random, random_below(&random, 4) ? 16 : 256);
			say(&stage, (unsigned)random_below(&random, 3), type,
			    stats.term + random_below(&random, 3), body, length);
			if (random_below(&random, 10) == 0)
				sim_cpg_inject(stage.world->sim, (unsigned)random_below(&random, 3),
					       body, length);
			(void)user_propose(&stage.world->users[random_below(&random, 3)], 100);
			(void)sim_cpg_run(stage.world->sim,
					  sim_cpg_now(stage.world->sim) + 5 * NS_PER_MS, NULL,
					  NULL);
		}
		(void)tear_down(&stage, why, size);
	}
	return true;
}

#define NO_RULE RULE_COUNT

/* clang-format off */
const struct directed directed_table[] = {
	{"an acknowledgement of an older term does not count", RULE_G1_ACK_TERM, test_ack_of_an_older_term_does_not_count},
	{"an entry of an older term does not commit by count", RULE_G1_OWN_TERM, test_entry_of_an_older_term_does_not_commit_by_count},
	{"entries behind another entry are refused", RULE_G1_PREVIOUS, test_entries_behind_another_entry_are_refused},
	{"entries of an older term are refused", RULE_G1_OLD_TERM, test_entries_of_an_older_term_are_refused},
	{"the leader's commit is believed as far as logs are equal", RULE_G1_COMMIT_MATCH, test_commit_is_believed_as_far_as_logs_are_equal},
	{"nobody promises to who has less", RULE_G1_BEST_LOG, test_nobody_promises_to_who_has_less},
	{"another copy of a voter does not count", RULE_G2_LOG_ID, test_another_copy_of_a_voter_does_not_count},
	{"a copy that lost entries is registered anew", RULE_G2_REGRESSED, test_copy_that_lost_entries_is_registered_anew},
	{"voters change one at a time", RULE_G2_ONE_AT_A_TIME, test_voters_change_one_at_a_time},
	{"voters change when the term has committed", RULE_G2_OWN_TERM_FIRST, test_voters_change_when_the_term_has_committed},
	{"a forgotten node votes no more", NO_RULE, test_forgotten_node_votes_no_more},
	{"a second start of a running node fails", NO_RULE, test_second_start_of_a_running_node_fails},
	{"a silent leader is replaced", NO_RULE, test_silent_leader_is_replaced},
	{"damage in the middle of a log is named", NO_RULE, test_damage_in_the_middle_of_a_log_is_named},
	{"random messages crash nobody", NO_RULE, test_random_messages_crash_nobody},
	{"a disk that fails stops its member only", NO_RULE, test_disk_that_fails_stops_its_member_only},
};
/* clang-format on */
const unsigned directed_count = ARRAY_COUNT(directed_table);
