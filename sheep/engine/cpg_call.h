/*
 * What may block for long when corosync hangs: opening and closing our connections to it. Each of
 * these runs on a thread of its own and answers by mail, so that the loop never waits.
 *
 * A call that is given up is left behind: it frees what it has when corosync answers, or ends with the
 * process.
 */
#ifndef ENGINE_CPG_CALL_H
#define ENGINE_CPG_CALL_H

#include <corosync/cpg.h>
#include <corosync/quorum.h>

#include "lib/loop/loop.h"

/* Two connections: to CPG, joined to the group, and to the quorum service, tracked. */
struct cpg_handles {
	cpg_handle_t cpg;
	quorum_handle_t quorum;
	bool has_cpg, has_quorum;
	int cpg_fd, quorum_fd;
	uint32_t nodeid, pid; /* who we are on the group */
};

/* What opening them ran into. */
enum cpg_step {
	CPG_STEP_CONNECT,  /* cpg_initialize() and what follows it */
	CPG_STEP_QUORUM,   /* the quorum service */
	CPG_STEP_NO_VOTES, /* corosync runs without votequorum */
	CPG_STEP_JOIN,
};

struct cpg_call;

typedef void cpg_call_opened(void *context, const struct cpg_handles *handles, int error,
			     enum cpg_step step);

/* Callbacks of the connections; all run inside the dispatch functions. */
struct cpg_events {
	cpg_deliver_fn_t deliver;
	cpg_confchg_fn_t view;
	quorum_notification_fn_t quorum;
	void *context; /* cpg_context_get(), quorum_context_get() */
};

/*
 * Open both and join @group. @done once, by mail on @loop: @error CS_OK, or a cs_error_t, and where it was.
 * @name: of the thread, 15 bytes at most. NULL: no memory, or no thread.
 */
struct cpg_call *cpg_call_open(struct loop *loop, const char *name, const char *group,
			       const struct cpg_events *events, cpg_call_opened *done,
			       void *context);
/* Leave the group if @group is given, and close what is open. @done once, by mail. */
struct cpg_call *cpg_call_close(struct loop *loop, const char *name, const char *group,
				const struct cpg_handles *handles, void (*done)(void *context),
				void *context);
/* Nobody waits for it any more: `done` does not come, and what it opens is closed again. */
void cpg_call_give_up(struct cpg_call *call);

#endif
