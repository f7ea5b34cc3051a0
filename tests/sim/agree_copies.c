/* Directed histories: disks that are there twice, disks that went back, nodes that come back. */
#include "tests/sim/agree_directed.h"
#include "tests/sim/agree_stage.h"

/* A machine with the files, the node and so the copy of @from. */
static void start_clone(struct stage *stage, unsigned from)
{
	struct user *clone = &stage->world->users[3];

	clone->node = stage->world->users[from].node;
	clone->start = 100;
	stage->world->may_fail = true;
	(void)user_start(clone);
	stage_run_ms(stage, 500); /* it does not give up before 5 s */
}

/* With its original and nobody else it is no majority of three. */
void test_copied_disk_is_one_voter(struct stage *stage)
{
	struct agree_stats stats;
	uint64_t index;

	user_kill(&stage->world->users[stage->one], true);
	stage_run_ms(stage, 1000);
	sim_cpg_clone_disk(stage->world->sim, stage->one, 3);
	(void)user_start(&stage->world->users[stage->one]);
	start_clone(stage, stage->one);
	sim_cpg_hang_disk(stage->world->sim, stage->leader, true);
	sim_cpg_hang_disk(stage->world->sim, stage->other, true);
	stage_stats_of(stage, stage->leader, &stats);
	index = stats.last + 1;
	(void)user_propose(&stage->world->users[stage->leader], 100);
	stage_run_ms(stage, 500);
	stage_stats_of(stage, stage->leader, &stats);
	if (stats.last < index)
		world_broken(stage->world, "the stage is not as it should be");
	for (unsigned n = 0; n < 4; n++) {
		stage_stats_of(stage, n, &stats);
		if (stats.commit >= index)
			world_broken(stage->world,
				     "node %u has committed what one of three disks has", n);
	}
}

/* It has less than the original was seen to have: that is said of the copy's number, which both have. */
void test_older_copied_disk_does_not_condemn_the_original(struct stage *stage)
{
	struct agree_stats stats;
	struct user *leader;

	leader = &stage->world->users[stage->leader];
	user_kill(&stage->world->users[stage->one], true);
	stage_run_ms(stage, 1000);
	sim_cpg_clone_disk(stage->world->sim, stage->one, 3);
	(void)user_start(&stage->world->users[stage->one]);
	stage_run_ms(stage, 3000);
	for (unsigned i = 0; i < 10; i++)
		(void)user_propose(leader, 100);
	stage_run_ms(stage, 1000);
	user_kill(&stage->world->users[stage->other], true); /* so the original is needed */
	stage_run_ms(stage, 1000);
	start_clone(stage, stage->one);
	(void)user_propose(leader, 100);
	stage_run_ms(stage, 10000);
	if (!stage->world->users[3].has_failed)
		world_broken(stage->world, "a second start of a node goes on");
	stage_stats_of(stage, stage->leader, &stats); /* the original may know better for itself */
	if (stats.commit != stats.last)
		world_broken(stage->world, "%llu of %llu entries committed after a clone was here",
			     (unsigned long long)stats.commit, (unsigned long long)stats.last);
}

static void propose_all(struct stage *stage, unsigned rounds, uint32_t size)
{
	for (unsigned i = 0; i < rounds; i++) {
		for (unsigned n = 0; n < stage->world->nodes; n++)
			(void)user_propose(&stage->world->users[n], size);
		stage_run_ms(stage, 20);
	}
}

/* The disk of @node as it was at first, and a start with it that lives for @ms. */
static void start_old(struct stage *stage, unsigned node, uint64_t ms)
{
	sim_cpg_restore_disk(stage->world->sim, node);
	(void)user_start(&stage->world->users[node]);
	stage_run_ms(stage, ms);
}

/*
 * A disk of before its registration, which is struck while it is behind, and killed; the next time the image
 * does not name it, nor did its own log: it needs a new number all the same.
 */
bool test_struck_copy_that_gets_an_image_votes_again(char *why, size_t size)
{
	for (uint64_t ms = 4; ms <= 50; ms += 4) {
		struct stage stage;
		struct agree_stats stats = {0};

		stage_set_up(&stage, 4, 3);
		stage.world->compact_bytes = 8192;
		stage.world->may_fail =
			true; /* what it had seen is not there when it starts again */
		for (unsigned n = 0; n < 3; n++) { /* each takes the limit when it starts */
			user_kill(&stage.world->users[n], true);
			(void)user_start(&stage.world->users[n]);
		}
		stage_run_ms(&stage, 5000);
		(void)user_start(&stage.world->users[3]);
		for (unsigned i = 0; i < 20000 && !stats.copy; i++) {
			(void)world_run(stage.world, 50 * NS_PER_US, NULL, NULL);
			stage_stats_of(&stage, 3, &stats);
		}
		sim_cpg_save_disk(stage.world->sim, 3);
		world_settle(stage.world, 10 * NS_PER_S);
		propose_all(&stage, 100, 200);
		world_settle(stage.world, 10 * NS_PER_S);
		user_kill(&stage.world->users[3], true);
		propose_all(&stage, 200, 500);
		start_old(&stage, 3, ms);
		user_kill(&stage.world->users[3], true);
		stage_run_ms(&stage, 2000);
		start_old(&stage, 3, 2000);
		propose_all(&stage, 10, 500);
		stage_run_ms(&stage, 20000);
		stage_stats_of(&stage, 3, &stats);
		if (stats.voters != 4)
			world_broken(stage.world, "a struck copy got an image: %u of 4 vote",
				     stats.voters);
		if (!stage_tear_down(&stage, why, size))
			return false;
	}
	return true;
}

/* Its row in the log, with the number of its last command, may not go a second time. */
void test_forgotten_node_that_came_back_goes_on_after_a_partition(struct stage *stage)
{
	uint8_t groups[SIM_CPG_NODES] = {0};
	struct user *user;

	user = &stage->world->users[stage->one];
	user_kill(user, true);
	stage_run_ms(stage, 1000);
	for (unsigned n = 0; n < 4; n++)
		if (stage->world->users[n].core)
			agree_forget(stage->world->users[n].core, &user->node);
	stage_run_ms(stage, 1000);
	(void)user_start(user);
	stage_run_ms(stage, 3000);
	for (unsigned i = 0; i < 5; i++)
		(void)user_propose(user, 100);
	stage_run_ms(stage, 1000);
	groups[stage->one] = 1;
	sim_cpg_partition(stage->world->sim, groups);
	stage_run_ms(stage, 2000);
	sim_cpg_heal(stage->world->sim);
	stage_run_ms(stage, 3000);
	for (unsigned i = 0; i < 5; i++)
		(void)user_propose(user, 100);
	world_settle(stage->world, 10 * NS_PER_S);
}

/* What it acknowledged is not here yet, as in a member that is behind, and then its disk has less. */
void test_who_is_behind_remembers_what_a_copy_had(struct stage *stage)
{
	struct agree_stats stats;
	struct cpg_ack ack;
	uint64_t copy;

	stage_stats_of(stage, stage->one, &stats);
	copy = stats.copy;
	ack = (struct cpg_ack){to_le64(stage->log_id[stage->one]), to_le64(stats.last + 5)};
	stage_say(stage, stage->one, CPG_TYPE_ACK, stats.term, &ack, sizeof(ack));
	stage_run_ms(stage, 20);
	user_kill(&stage->world->users[stage->other], true); /* all say their states again */
	stage_run_ms(stage, 500);
	(void)user_start(&stage->world->users[stage->other]);
	world_settle(stage->world, 10 * NS_PER_S);
	stage_run_ms(stage, 1000);
	stage_stats_of(stage, stage->one, &stats);
	if (stats.copy == copy)
		world_broken(stage->world, "a copy that lacks what it acknowledged counts");
	if (stats.voters != 3)
		world_broken(stage->world, "there are %u voters", stats.voters);
}
