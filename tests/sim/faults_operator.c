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

static void end_setting(struct program *program, struct fault *fault)
{
}

/* A proposal may be lost, or late: as an operator would, again until it is there. */
void faults_mend_settings(struct program *program)
{
	struct cluster_map *map = herd_map(program->herd);

	if (map && cluster_setting(map, CLUSTER_SETTING_RECOVERY_PAUSED))
		herd_propose(program->herd, cluster_command_setting("recovery_paused", 0));
	if (map && cluster_setting(map, CLUSTER_SETTING_RECOVERY_RATE))
		herd_propose(program->herd, cluster_command_setting("recovery_rate", 0));
}

const struct fault_way faults_of_operators[FAULT_COUNT] = {
	[FAULT_CREATE] = {begin_create, NULL},
	[FAULT_DELETE] = {begin_delete, NULL},
	[FAULT_ADD_NODE] = {begin_add_node, NULL},
	[FAULT_REMOVE_NODE] = {begin_remove_node, NULL},
	[FAULT_SETTING] = {begin_setting, end_setting},
};
