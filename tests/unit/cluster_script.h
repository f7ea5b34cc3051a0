/*
 * A cluster's log in a test: every command is applied to two replicas, which must stay
 * equal; every map must pass cluster_check(), and every so often one of them is
 * replaced by its own image.
 */
#ifndef UNIT_CLUSTER_SCRIPT_H
#define UNIT_CLUSTER_SCRIPT_H

#include "sheep/cluster/cluster.h"

#define SCRIPT_NODES 32

struct script_node {
	struct uuid uuid;
	uint64_t incarnation;
	struct cluster_proposer proposer;
	char zone[LOG_ZONE_SIZE];
	uint32_t store_count;
	struct cluster_register_store stores[8];
};

struct script {
	struct cluster_map *map, *twin;
	struct cluster_result result; /* of the last command */
	uint64_t applied;
	unsigned image_every;			    /* commands; 0: never */
	bool is_quick;				    /* no check after each command */
	struct script_node nodes[SCRIPT_NODES + 1]; /* by id; 0 is unused */
	uint32_t node_count;
	/* After each command that was applied; may apply others. NULL: nobody asks. */
	void (*applied_one)(struct script *script, const void *command, size_t size);
	void *context; /* of applied_one */
};

void script_start(struct script *script);
void script_stop(struct script *script);

/* Apply bytes; all checks. Returns the status. */
enum proto_status script_apply(struct script *script, const void *command, size_t size);
/* Sign as node @from, apply, free. */
enum proto_status script_run(struct script *script, uint32_t from, struct cluster_command *command);
/* The same twice, as a repeated proposal is: the second time nothing happens. */
enum proto_status script_run_twice(struct script *script, uint32_t from,
				   struct cluster_command *command);

/* A new node with @stores stores of 1 GiB, registered. Its id is the next one from 1. */
uint32_t script_add_node(struct script *script, const char *zone, uint32_t stores);
/* Start a known node again, with these flags for every store. */
enum proto_status script_restart(struct script *script, uint32_t node, uint32_t store_flags);
enum proto_status script_dead(struct script *script, uint32_t from, uint32_t node);
/* Format and place: @nodes nodes of one store each are added first, zones z1, z2, ... */
void script_format(struct script *script, uint32_t nodes, uint32_t copies, uint32_t pgs);
/* Plan and apply until nothing changes; @out_node: counts as out, or 0. */
void script_plan(struct script *script, uint32_t out_node);
/* Join and expand every store that wants to, until none does. */
void script_recover(struct script *script);

uint32_t script_store(const struct script *script, uint32_t node, uint32_t nth);
const struct cluster_pg *script_pg(const struct script *script, uint32_t id);

#endif
