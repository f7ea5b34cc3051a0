/* Directed histories: elections with slow disks and with leaders that stop, and first logs. */
#include <string.h>

#include "tests/sim/agree_directed.h"
#include "tests/sim/agree_stage.h"

static bool has_leader(struct stage *stage)
{
	for (unsigned n = 0; n < stage->world->nodes; n++) {
		struct agree_stats stats;

		stage_stats_of(stage, n, &stats);
		if (stats.is_leader && n != stage->leader)
			return true;
	}
	return false;
}

/*
 * A vote that waits for its sync while its member asks for a term of its own: said then, it would be a second vote in
 * that one, and with the vote for itself there could be two leaders.
 */
void test_vote_is_not_told_in_a_later_term(struct stage *stage)
{
	struct agree_stats stats;
	unsigned voter, other;
	struct cpg_ask ask;

	voter = stage->one;
	other = stage->other;
	if (memcmp(stage->world->users[voter].node.bytes, stage->world->users[other].node.bytes,
		   sizeof(struct uuid)) > 0) { /* of equal logs that of the lower node asks */
		voter = stage->other;
		other = stage->one;
	}
	stage_stats_of(stage, other, &stats);
	user_kill(&stage->world->users[stage->leader], true);
	sim_cpg_hang_disk(stage->world->sim, voter, true);
	ask = (struct cpg_ask){to_le64(stage->log_id[other]), to_le64(stats.term),
			       to_le64(stats.last)};
	stage_say(stage, other, CPG_TYPE_ASK, stats.term + 1, &ask, sizeof(ask));
	for (unsigned i = 0; i < 20; i++) {
		stage_run_ms(stage, 300);
		if (i > 3) /* its own term is promised by now, and written */
			sim_cpg_hang_disk(stage->world->sim, voter, i & 1);
	}
	(void)user_start(&stage->world->users[stage->leader]);
	sim_cpg_hang_disk(stage->world->sim, voter, false);
	world_settle(stage->world, 20 * NS_PER_S);
}

/* The rounds of an election grow until a disk's sync fits. */
bool test_slow_disks_find_a_leader(char *why, size_t size)
{
	for (uint64_t ms = 200; ms <= 800; ms += 200) {
		struct stage stage;

		stage_set_up(&stage, 3, 3);
		sim_cpg_slow_disks(stage.world->sim, ms * NS_PER_MS);
		user_kill(&stage.world->users[stage.leader], true);
		for (unsigned i = 0; i < 300 && !has_leader(&stage); i++)
			stage_run_ms(&stage, 50);
		if (!has_leader(&stage))
			world_broken(stage.world, "syncs of %llu ms: no leader after 15 s",
				     (unsigned long long)ms);
		(void)user_start(&stage.world->users[stage.leader]);
		world_settle(stage.world, 60 * NS_PER_S);
		if (!stage_tear_down(&stage, why, size))
			return false;
	}
	return true;
}

struct silence {
	struct stage *stage;
	int node; /* -1: nobody leads yet */
};

/* Of the next leader nothing is heard but that it leads. */
static bool on_message(void *context, unsigned from, const uint8_t *data, size_t size)
{
	struct silence *silence = context;
	const struct cpg_state *state = (const void *)(data + sizeof(struct cpg_message));
	struct cpg_message head;

	if (size < sizeof(head))
		return false;
	memcpy(&head, data, sizeof(head));
	if (from_le16(head.type) == CPG_TYPE_STATE) {
		if (silence->node < 0 && from != silence->stage->leader &&
		    (from_le32(state->flags) & CPG_STATE_LEADS))
			silence->node = (int)from;
		return false;
	}
	return (int)from == silence->node;
}

void test_leader_that_stops_after_its_state_is_replaced(struct stage *stage)
{
	struct silence silence = {stage, -1};
	uint64_t last;

	sim_cpg_set_filter(stage->world->sim, on_message, &silence);
	last = stage->world->last;
	user_kill(&stage->world->users[stage->leader], true);
	for (unsigned i = 0; i < 20000 && silence.node < 0; i++)
		(void)world_run(stage->world, 100 * NS_PER_US, NULL, NULL);
	if (silence.node < 0) {
		world_broken(stage->world, "nobody says that it leads");
		return;
	}
	sim_cpg_set_paused(stage->world->sim, (unsigned)silence.node, true);
	for (unsigned n = 0; n < 5; n++)
		if (n != (unsigned)silence.node)
			(void)user_propose(&stage->world->users[n], 100);
	for (unsigned i = 0; i < 100 && stage->world->last == last; i++)
		stage_run_ms(stage, 100);
	if (stage->world->last == last)
		world_broken(stage->world, "a leader that said no more than that holds all");
	sim_cpg_set_filter(stage->world->sim, NULL, NULL);
	sim_cpg_set_paused(stage->world->sim, (unsigned)silence.node, false);
	(void)user_start(&stage->world->users[stage->leader]);
	world_settle(stage->world, 20 * NS_PER_S);
}

/* ---- the first log ---- */

static bool all_are_ready(void *context)
{
	const struct world *world = context;

	for (unsigned n = 0; n < world->nodes; n++)
		if (!world->users[n].is_ready)
			return false;
	return true;
}

/*
 * All are killed as soon as all are ready, and one disk is replaced: the two that are left must know that the log
 * was in use.
 */
bool test_who_was_ready_does_not_drop_its_log(char *why, size_t size)
{
	for (unsigned blank = 0; blank < 3; blank++) {
		struct stage stage = {0};
		struct world *world = world_new(&(struct sim_cpg_options){
			.seed = 5, .nodes = 3, .write_max_ns = 10 * NS_PER_MS});

		stage.world = world;
		for (unsigned n = 0; n < 3; n++)
			(void)user_start(&world->users[n]);
		if (!world_run(world, 20 * NS_PER_S, all_are_ready, world))
			world_broken(world, "they do not become ready");
		for (unsigned n = 0; n < 3; n++)
			user_kill(&world->users[n], true);
		sim_cpg_blank_disk(world->sim, blank);
		for (unsigned n = 0; n < 3; n++)
			(void)user_start(&world->users[n]);
		world_settle(world, 20 * NS_PER_S);
		if (world->is_void)
			world_broken(world, "a second log was made");
		if (!stage_tear_down(&stage, why, size))
			return false;
	}
	return true;
}

/* Disks other than that of the first leader hang from when all vote: it alone has the first JOIN. */
static void leave_join_with_one(struct stage *stage)
{
	struct agree_stats stats = {0};

	for (unsigned i = 0; i < 40000 && (stats.voters < 3 || stats.voter_changes); i++) {
		(void)world_run(stage->world, 50 * NS_PER_US, NULL, NULL);
		stage_find_leader(stage);
		stage_stats_of(stage, stage->leader, &stats);
	}
	sim_cpg_hang_disk(stage->world->sim, stage->one, true);
	sim_cpg_hang_disk(stage->world->sim, stage->other, true);
	stage_run_ms(stage, 2000);
	stage_stats_of(stage, stage->leader, &stats);
	if (stats.last == stats.commit || stage->world->users[stage->leader].is_ready)
		world_broken(stage->world, "the stage is not as it should be: %llu of %llu",
			     (unsigned long long)stats.commit, (unsigned long long)stats.last);
	for (unsigned n = 0; n < 3; n++)
		user_kill(&stage->world->users[n], true);
	sim_cpg_hang_disk(stage->world->sim, stage->one, false);
	sim_cpg_hang_disk(stage->world->sim, stage->other, false);
}

/* Nobody was ready, two disks are empty: they begin anew, and who has the old log gives way. */
bool test_first_log_that_can_never_be_used_gives_way(char *why, size_t size)
{
	struct stage stage = {0};

	stage.world = world_new(&(struct sim_cpg_options){.seed = 5, .nodes = 3});
	for (unsigned n = 0; n < 3; n++)
		(void)user_start(&stage.world->users[n]);
	leave_join_with_one(&stage);
	sim_cpg_blank_disk(stage.world->sim, stage.one);
	sim_cpg_blank_disk(stage.world->sim, stage.other);
	(void)user_start(&stage.world->users[stage.one]);
	(void)user_start(&stage.world->users[stage.other]);
	stage_run_ms(&stage, 5000);
	(void)user_start(&stage.world->users[stage.leader]);
	world_settle(stage.world, 20 * NS_PER_S);
	return stage_tear_down(&stage, why, size);
}

/* The same with all at once: the log has a majority and a leader, and one voter's copy is gone. */
bool test_first_log_without_one_of_its_voters_gives_way(char *why, size_t size)
{
	struct stage stage = {0};

	stage.world = world_new(&(struct sim_cpg_options){.seed = 5, .nodes = 3});
	for (unsigned n = 0; n < 3; n++)
		(void)user_start(&stage.world->users[n]);
	leave_join_with_one(&stage);
	sim_cpg_blank_disk(stage.world->sim, stage.one);
	for (unsigned n = 0; n < 3; n++)
		(void)user_start(&stage.world->users[n]);
	world_settle(stage.world, 30 * NS_PER_S);
	return stage_tear_down(&stage, why, size);
}
