/* Directed histories: elections with slow disks, and with leaders that stop. */
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
bool test_vote_is_not_told_in_a_later_term(char *why, size_t size)
{
	struct stage stage;
	struct agree_stats stats;
	unsigned voter, other;
	struct cpg_ask ask;

	stage_set_up(&stage, 3, 3);
	voter = stage.one;
	other = stage.other;
	if (memcmp(stage.world->users[voter].node.bytes, stage.world->users[other].node.bytes,
		   sizeof(struct uuid)) > 0) { /* of equal logs that of the lower node asks */
		voter = stage.other;
		other = stage.one;
	}
	stage_stats_of(&stage, other, &stats);
	user_kill(&stage.world->users[stage.leader], true);
	sim_cpg_hang_disk(stage.world->sim, voter, true);
	ask = (struct cpg_ask){to_le64(stage.log_id[other]), to_le64(stats.term),
			       to_le64(stats.last)};
	stage_say(&stage, other, CPG_TYPE_ASK, stats.term + 1, &ask, sizeof(ask));
	for (unsigned i = 0; i < 20; i++) {
		stage_run_ms(&stage, 300);
		if (i > 3) /* its own term is promised by now, and written */
			sim_cpg_hang_disk(stage.world->sim, voter, i & 1);
	}
	(void)user_start(&stage.world->users[stage.leader]);
	sim_cpg_hang_disk(stage.world->sim, voter, false);
	world_settle(stage.world, 20 * NS_PER_S);
	return stage_tear_down(&stage, why, size);
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

bool test_leader_that_stops_after_its_state_is_replaced(char *why, size_t size)
{
	struct stage stage;
	struct silence silence = {&stage, -1};
	uint64_t last;

	stage_set_up(&stage, 5, 5);
	sim_cpg_set_filter(stage.world->sim, on_message, &silence);
	last = stage.world->last;
	user_kill(&stage.world->users[stage.leader], true);
	for (unsigned i = 0; i < 20000 && silence.node < 0; i++)
		(void)world_run(stage.world, 100 * NS_PER_US, NULL, NULL);
	if (silence.node < 0) {
		world_broken(stage.world, "nobody says that it leads");
		return stage_tear_down(&stage, why, size);
	}
	sim_cpg_set_paused(stage.world->sim, (unsigned)silence.node, true);
	for (unsigned n = 0; n < 5; n++)
		if (n != (unsigned)silence.node)
			(void)user_propose(&stage.world->users[n], 100);
	for (unsigned i = 0; i < 100 && stage.world->last == last; i++)
		stage_run_ms(&stage, 100);
	if (stage.world->last == last)
		world_broken(stage.world, "a leader that said no more than that holds all");
	sim_cpg_set_filter(stage.world->sim, NULL, NULL);
	sim_cpg_set_paused(stage.world->sim, (unsigned)silence.node, false);
	(void)user_start(&stage.world->users[stage.leader]);
	world_settle(stage.world, 20 * NS_PER_S);
	return stage_tear_down(&stage, why, size);
}
