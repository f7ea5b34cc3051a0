/*
 * The cluster's state as this node has it: the engine's commands applied to the map, and what this
 * node proposes. Lives on the engine's loop.
 */
#ifndef SERVICE_STATE_H
#define SERVICE_STATE_H

#include "sheep/cluster/cluster.h"
#include "sheep/engine/engine.h"

struct state;

/* Nothing is called inside state_open() or state_propose(). */
struct state_callbacks {
	/* Everything known at the start is applied. Once, before the first `applied`. */
	void (*ready)(void *context);
	/*
	 * The map has changed. @result: what did it; NULL: an image was installed, any part may have
	 * changed. Borrowed.
	 */
	void (*applied)(void *context, struct cluster_map *map,
			const struct cluster_result *result);
	void (*members)(void *context, const struct engine_member *members, uint32_t count);
	/* This start of this node has certainly ended. */
	void (*ended)(void *context, const struct uuid *node, uint64_t start);
	void (*quorum)(void *context, bool has_quorum);
	/* The engine has given up. @err says what to do. */
	void (*failed)(void *context, const struct error *err);
	void (*left)(void *context);
};

/* One start of this node; info and its addresses are borrowed for the call. */
int state_open(struct loop *loop, const char *engine_spec, const struct uuid *node, uint64_t start,
	       const struct state_callbacks *callbacks, void *context, struct state **out,
	       struct error *err);
/* Give up what is pending and leave the engine; `left` follows. */
void state_leave(struct state *state);
void state_free(struct state *state); /* after `left`; NULL is allowed */

struct cluster_map *state_map(const struct state *state); /* borrowed */
bool state_has_quorum(const struct state *state);
const char *state_engine_name(const struct state *state);
/* Our id, as REGISTER gave it: commands are signed with it from now on. */
void state_set_node(struct state *state, uint32_t node);

/* Somebody who waits for a command to be applied; embedded in its owner. */
struct proposal {
	/*
	 * Exactly once. @status and @text as cluster_apply() gave them, with the map already
	 * changed; or TIMED_OUT, NO_QUORUM, SHUTDOWN, NO_MEMORY: it may still happen.
	 */
	void (*done)(struct proposal *proposal, enum proto_status status, const char *text,
		     uint64_t id);
};

/*
 * Sign and propose @command (taken; NULL: out of memory) until it has been applied, at the longest
 * until @deadline_ns. @proposal: who waits; NULL: nobody.
 */
void state_propose(struct state *state, struct cluster_command *command, struct proposal *proposal,
		   uint64_t deadline_ns);

#endif
