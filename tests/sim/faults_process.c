/* Faults of processes and machines: killed, stopped, without power, paused. */
#include "tests/sim/faults_priv.h"

#include "lib/base/size.h"

struct herd_node *fault_node_of(struct program *program, const struct fault *fault)
{
	return &program->herd->nodes[fault->node];
}

struct sim_host *fault_host_of(struct program *program, const struct fault *fault)
{
	return fault_node_of(program, fault)->host;
}

/* An empty disk. */
void faults_replace_disk(struct program *program, unsigned number)
{
	sim_host_wipe(program->herd->nodes[number].host);
	program->is_replaced[number] = true;
}

/* What was on a disk that was replaced is lost for good, as the planner is told. */
void faults_tell_replaced(struct program *program, unsigned number)
{
	struct herd *herd = program->herd;
	struct herd_node *node = &herd->nodes[number];
	struct cluster_map *map = herd_map(herd);
	const struct cluster_store *store;

	if (!program->is_replaced[number] || !map || !node->is_up || !node->store_id)
		return;
	program->is_replaced[number] = false;
	for (store = cluster_store_next(map, 0); store;
	     store = cluster_store_next(map, store->id)) {
		bool is_known = store->node != node->id || store->id == node->store_id;
		for (unsigned i = 0; i < herd->out_store_count; i++)
			is_known |= herd->out_stores[i] == store->id;
		if (!is_known && herd->out_store_count < ARRAY_COUNT(herd->out_stores))
			herd->out_stores[herd->out_store_count++] = store->id;
	}
}

void faults_start_node(struct program *program, unsigned number)
{
	struct herd_node *node = &program->herd->nodes[number];

	if (node->is_up || program->is_removed[number])
		return;
	program_trace(program, "%s starts", node->name);
	if (herd_try_start(program->herd, number))
		return;
	/* It may have met an I/O error that was still to come. */
	sim_host_forget_faults(node->host);
	if (herd_try_start(program->herd, number))
		return;
	/* Only what we damage cannot be opened; then the operator replaces the disk. */
	HERD_REQUIRE(program->herd, (int)number == program->victim);
	faults_replace_disk(program, number);
	node->was_cut = true;
	herd_start(program->herd, number);
}

int faults_kill(struct program *program, int node, enum sim_death death)
{
	const struct cluster_map *map = herd_map(program->herd);
	const struct cluster_policy *policy = map ? cluster_policy(map, 0) : NULL;

	if (!policy)
		return -1;
	if (node < 0)
		node = herd_primary(program->herd,
				    (uint32_t)program_below(program, policy->pg_count));
	if (node < 0 || !faults_is_well(program, (unsigned)node))
		return -1;
	program_trace(program, "%s is killed", program->herd->nodes[node].name);
	herd_kill(program->herd, (unsigned)node, death);
	return node;
}

static bool begin_kill(struct program *program, struct fault *fault)
{
	herd_kill(program->herd, fault->node,
		  program_below(program, 4) == 0 ? SIM_DEATH_UNKNOWN : SIM_DEATH_CERTAIN);
	return true;
}

static bool begin_kill_silent(struct program *program, struct fault *fault)
{
	herd_kill(program->herd, fault->node, SIM_DEATH_SILENT);
	return true;
}

static bool begin_stop(struct program *program, struct fault *fault)
{
	return herd_try_stop(program->herd, fault->node, 5000) || true;
}

static void end_down(struct program *program, struct fault *fault)
{
	faults_start_node(program, fault->node);
}

static bool begin_power_cut(struct program *program, struct fault *fault)
{
	static const enum sim_power_cut modes[] = {SIM_KEEP_ALL, SIM_DROP_UNSYNCED,
						   SIM_RANDOM_UNSYNCED, SIM_RANDOM_UNSYNCED};

	if (!faults_others_hold(program, fault->node))
		return false;
	herd_cut_power(program->herd, fault->node, SIM_DEATH_SILENT,
		       modes[program_below(program, ARRAY_COUNT(modes))]);
	return true;
}

static bool begin_power_cut_all(struct program *program, struct fault *fault)
{
	for (unsigned i = 0; i < program->herd->node_count; i++)
		if (program->herd->nodes[i].is_up)
			herd_cut_power(program->herd, i, SIM_DEATH_SILENT,
				       program_below(program, 2) ? SIM_DROP_UNSYNCED
								 : SIM_RANDOM_UNSYNCED);
	return true;
}

static void end_power_cut_all(struct program *program, struct fault *fault)
{
	for (unsigned i = 0; i < program->herd->node_count; i++)
		if (program->was_added[i])
			faults_start_node(program, i);
}

static bool begin_pause(struct program *program, struct fault *fault)
{
	sim_host_pause(fault_host_of(program, fault));
	return true;
}

static bool begin_freeze(struct program *program, struct fault *fault)
{
	sim_host_freeze(fault_host_of(program, fault));
	return true;
}

static void end_pause(struct program *program, struct fault *fault)
{
	struct herd_node *node = fault_node_of(program, fault);

	sim_host_resume(node->host);
	if (node->is_up)
		sim_engine_set_lag(node->engine, sim_host_lag(node->host));
}

const struct fault_way faults_of_processes[FAULT_COUNT] = {
	[FAULT_KILL] = {begin_kill, end_down},
	[FAULT_KILL_SILENT] = {begin_kill_silent, end_down},
	[FAULT_STOP] = {begin_stop, end_down},
	[FAULT_POWER_CUT] = {begin_power_cut, end_down},
	[FAULT_POWER_CUT_ALL] = {begin_power_cut_all, end_power_cut_all},
	[FAULT_NAP] = {begin_pause, end_pause},
	[FAULT_PAUSE] = {begin_pause, end_pause},
	[FAULT_FREEZE] = {begin_freeze, end_pause},
};
