/*
 * Some nodes of a made-up cluster, for tests of the service: each has a state on the simulated
 * engine and a caretaker, and registers itself as a sheep would.
 */
#ifndef TESTS_UNIT_SERVICE_RIG_H
#define TESTS_UNIT_SERVICE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/size.h"
#include "sheep/service/caretaker.h"
#include "sheep/service/state.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_engine.h"

#define RIG_NODES 4

struct rig;

struct rig_node {
	struct rig *rig;
	unsigned number;
	struct sim_host *host;
	struct loop *loop;
	struct state *state; /* NULL: not running */
	struct caretaker *caretaker;
	struct engine *engine; /* to break it */
	struct uuid uuid;
	uint64_t start;
	uint64_t incarnation;
	bool is_mute; /* does not register by itself */
	bool is_ready, has_left, has_failed;
	uint64_t applied; /* calls */
	struct proposal registration;
	int registered; /* times decided */
	enum proto_status registered_status;
};

struct rig {
	struct sim_world *world;
	struct sim_log *log;
	struct rig_node nodes[RIG_NODES];
};

/* @options: NULL for an exact log without delays worth speaking of. */
struct rig *rig_new(const struct sim_log_options *options, uint64_t seed);
void rig_free(struct rig *rig);

struct rig_node *rig_start(struct rig *rig, unsigned number);
/* It registers, with one store; rig_start() does it unless the node is mute. */
void rig_register(struct rig_node *node);
void rig_crash(struct rig *rig, unsigned number, enum sim_death death);
void rig_run(struct rig *rig, uint64_t ms);
/* Start @count nodes, wait until all are registered. */
void rig_start_all(struct rig *rig, unsigned count);
void rig_format(struct rig *rig, unsigned copies);

/* The node as the map of @who has it. */
const struct cluster_node *rig_see(const struct rig_node *who, const struct rig_node *whom);
bool rig_sees_up(const struct rig_node *who, const struct rig_node *whom);

/* A proposal that counts its answers. */
struct rig_proposal {
	struct proposal proposal;
	int done;
	enum proto_status status;
	uint64_t id;
	char text[256];
	uint64_t index_when_done; /* of the map */
	struct rig_node *node;
};

void rig_propose(struct rig_node *node, struct rig_proposal *proposal,
		 struct cluster_command *command, uint64_t ms);

#endif
