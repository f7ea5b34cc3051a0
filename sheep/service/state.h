/*
 * The cluster's state as this node has it: the engine's commands applied to the map, and what this
 * node proposes. Lives on the engine's loop.
 */
#ifndef SERVICE_STATE_H
#define SERVICE_STATE_H

#include <urcu/list.h>

#include "sheep/cluster/cluster.h"
#include "sheep/engine/engine.h"

struct state;

/* Nothing is called inside the functions below, but what state_leave() says. */
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

/* One start of this node. Borrowed for the call, but the callbacks. */
struct state_options {
	struct loop *loop;
	const char *engine;	/* a spec, as engine_open() takes it */
	const char *engine_dir; /* for what it keeps on this node; may be NULL */
	/* In its place, as engine_open() without the spec: engines that are not in its table. */
	int (*open_engine)(void *opener, struct loop *loop, const struct engine_options *options,
			   const struct engine_callbacks *callbacks, void *context,
			   struct engine **out, struct error *err);
	void *opener;
	struct uuid node;
	struct uuid log; /* the one that this node belongs to; null: none yet */
	uint64_t start;	 /* random, not 0 */
	const struct state_callbacks *callbacks;
	void *context;
};

int state_open(const struct state_options *options, struct state **out, struct error *err);
/* Leave the engine; `left` follows. What is pending ends with SHUTDOWN, inside this call. */
void state_leave(struct state *state);
void state_free(struct state *state); /* after `left`; NULL is allowed */
/* Free the memory of a state whose engine and loop are gone (a simulated crash); nobody is told. */
void state_forget(struct state *state);

struct cluster_map *state_map(const struct state *state); /* borrowed */
bool state_has_quorum(const struct state *state);
/* As engine_link(). */
void state_peer_link(struct state *state, const struct uuid *node, uint64_t start, bool is_closed);
const char *state_engine_name(const struct state *state);
struct uuid state_log(const struct state *state); /* as engine_log() */
/* Our id, as REGISTER gave it: commands are signed with it from now on. */
void state_set_node(struct state *state, uint32_t node);
uint32_t state_node(const struct state *state); /* 0: we are not registered yet */

/* A command on its way, for somebody who waits for it; embedded in its owner. */
struct proposal {
	/*
	 * Exactly once. @status and @text as cluster_apply() gave them, with the map already
	 * changed; or TIMED_OUT, NO_QUORUM, SHUTDOWN: it may still happen; NO_MEMORY: it does not.
	 */
	void (*done)(struct proposal *proposal, enum proto_status status, const char *text,
		     uint64_t id);
	/* private */
	struct cds_list_head link;
	struct cluster_command *command; /* NULL: there was no memory for it */
	uint64_t sequence;		 /* 0: not signed yet */
	uint64_t again_ns, pause_ns, deadline_ns;
};

/*
 * Sign and propose @command (taken; NULL: out of memory) until it has been applied, at the longest
 * until @deadline_ns (UINT64_MAX: for ever). @proposal: who waits; NULL: nobody, and it may be lost.
 */
void state_propose(struct state *state, struct cluster_command *command, struct proposal *proposal,
		   uint64_t deadline_ns);

#endif
