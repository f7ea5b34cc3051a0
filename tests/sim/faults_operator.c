/* What operators do meanwhile. */
#include "tests/sim/faults_priv.h"

#include "lib/base/size.h"

static bool begin_create(struct program *program, struct fault *fault)
{
	return workload_create(program->workload);
}

static bool begin_delete(struct program *program, struct fault *fault)
{
	return workload_delete(program->workload);
}

static bool begin_add_node(struct program *program, struct fault *fault)
{
	for (unsigned i = 0; i < program->herd->node_count; i++)
		if (!program->was_added[i]) {
			program->was_added[i] = true;
			herd_start(program->herd, i);
			return true;
		}
	return false;
}

static bool begin_remove_node(struct program *program, struct fault *fault)
{
	unsigned left = 0, node;

	for (unsigned i = 0; i < program->herd->node_count; i++)
		left += program->was_added[i] && !program->is_removed[i] && !program->is_leaving[i];
	if (left <= program->copies || left <= 3 || !faults_pick_well(program, &node) ||
	    !program->herd->nodes[node].id)
		return false;
	fault->node = node;
	program->is_leaving[node] = true;
	return true;
}

static bool begin_setting(struct program *program, struct fault *fault)
{
	static const struct {
		const char *name;
		uint64_t values[3];
	} rows[] = {
		{"recovery_rate", {0, 4 * MIB, 64 * MIB}},
		{"recovery_parallel", {1, 2, 8}},
		{"recovery_paused", {1, 1, 0}},
		{"settle_deadline", {500, 1000, 2000}},
		{"write_deadline", {500, 1000, 2000}},
	};
	unsigned row = (unsigned)program_below(program, ARRAY_COUNT(rows));

	herd_propose(program->herd,
		     cluster_command_setting(rows[row].name,
					     rows[row].values[program_below(program, 3)]));
	return true;
}

/* Of settings and floors: faults_mend_settings() does it. */
static void end_setting(struct program *program, struct fault *fault)
{
}

/* Another number of members in sync is needed for a time. Two at least where one may be damaged. */
static bool begin_floor(struct program *program, struct fault *fault)
{
	uint32_t least = program->victim < 0 ? 1 : 2;
	uint32_t floor = least + (uint32_t)program_below(program, program->copies - least + 1);

	if (faults_is_running(program, FAULT_COUP))
		return false;
	herd_propose(program->herd, cluster_command_policy(0, LOG_POLICY_KEEP, floor));
	return true;
}

/* Somebody else moves it. */
static bool is_floor_held(const struct program *program)
{
	return faults_is_running(program, FAULT_FLOOR) || faults_is_running(program, FAULT_COUP) ||
	       (program->strike.has_struck && program->strike.is_of_victim);
}

static void mend_floor(struct program *program, const struct cluster_map *map)
{
	const struct cluster_policy *policy = cluster_policy(map, 0);

	if (policy && !is_floor_held(program) && policy->min_insync != program->min_insync)
		herd_propose(program->herd,
			     cluster_command_policy(0, LOG_POLICY_KEEP, program->min_insync));
}

/* A proposal may be lost, or late: as an operator would, again until it is there. */
void faults_mend_settings(struct program *program)
{
	struct cluster_map *map = herd_map(program->herd);

	if (map)
		mend_floor(program, map);
	if (!map || faults_is_running(program, FAULT_SETTING))
		return;
	if (cluster_setting(map, CLUSTER_SETTING_RECOVERY_PAUSED))
		herd_propose(program->herd, cluster_command_setting("recovery_paused", 0));
	if (cluster_setting(map, CLUSTER_SETTING_RECOVERY_RATE))
		herd_propose(program->herd, cluster_command_setting("recovery_rate", 0));
}

const struct fault_way faults_of_operators[FAULT_COUNT] = {
	[FAULT_CREATE] = {begin_create, NULL},
	[FAULT_DELETE] = {begin_delete, NULL},
	[FAULT_ADD_NODE] = {begin_add_node, NULL},
	[FAULT_REMOVE_NODE] = {begin_remove_node, NULL},
	[FAULT_SETTING] = {begin_setting, end_setting},
	[FAULT_FLOOR] = {begin_floor, end_setting},
};
