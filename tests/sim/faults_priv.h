/* What the files of faults share: see faults.c. */
#ifndef TESTS_SIM_FAULTS_PRIV_H
#define TESTS_SIM_FAULTS_PRIV_H

#include "tests/sim/herd_priv.h"
#include "tests/sim/program.h"

struct fault_way {
	/* False: not now. */
	bool (*begin)(struct program *program, struct fault *fault);
	void (*end)(struct program *program, struct fault *fault); /* NULL: it is over at once */
};

/* By kind; each kind is in one of them. */
extern const struct fault_way faults_of_processes[FAULT_COUNT], faults_of_network[FAULT_COUNT],
	faults_of_disks[FAULT_COUNT], faults_of_operators[FAULT_COUNT],
	faults_of_liars[FAULT_COUNT];

struct herd_node *fault_node_of(struct program *program, const struct fault *fault);
struct sim_host *fault_host_of(struct program *program, const struct fault *fault);

/* Any node that is well. False: there is none. */
bool faults_pick_well(struct program *program, unsigned *node);
/* An empty disk, at the next start of the node. */
void faults_replace_disk(struct program *program, unsigned number);
/* What was on a disk that was replaced is lost for good, as the planner is told. */
void faults_tell_replaced(struct program *program, unsigned number);
/* Something at the victim is found damaged. False: nothing can be now. */
bool faults_damage_victim(struct program *program);
/* A node whose store has stopped starts again. */
void faults_restart_if_failed(struct program *program, unsigned number);
/* Is one of this kind under way? */
bool faults_is_running(const struct program *program, enum fault_kind kind);
/* What operators have slowed or paused goes on: a proposal may be lost, so this is said again until it is so. */
void faults_mend_settings(struct program *program);

#endif
