/*
 * Our connection to the corosync of this host: views, messages in agreed order, and quorum.
 *
 *   WAITING --timer--> OPENING --joined--> OPEN --error--> CLOSING --polls are through--> ENDING
 *      ^                  |                                                                 |
 *      +---not there------+-----------------------------------------------------------------+
 *   any --cpg_link_stop()--> the same way --> STOPPED
 *
 * It comes back by itself, for ever. Nothing of it blocks the loop: what may is done on a thread
 * (cpg_call.h). What was not sent is lost with the connection; a view always follows then. All callbacks
 * run on the loop, never inside a call of this header.
 */
#ifndef ENGINE_CPG_LINK_H
#define ENGINE_CPG_LINK_H

#include "sheep/engine/cpg_call.h"

/* A process in the group, as corosync names it. */
struct cpg_process {
	uint32_t nodeid;
	uint32_t pid;
};

static inline bool cpg_process_is(struct cpg_process a, struct cpg_process b)
{
	return a.nodeid == b.nodeid && a.pid == b.pid;
}

#define CPG_CHANNEL_MAX	 100 /* bytes of a channel's name */
#define CPG_GROUP_PREFIX "sheepfold:"

/* Why a process is no longer in the group, as corosync says. */
enum cpg_end {
	CPG_END_LEFT,	 /* it said so */
	CPG_END_PROCESS, /* its connection to its corosync closed */
	CPG_END_NODE,	 /* its node, or its corosync, is out of reach */
};

struct cpg_leaver {
	struct cpg_process address;
	enum cpg_end end;
};

struct cpg_view {
	struct cpg_process self;
	const struct cpg_process *members; /* we are among them; none: we are out of the group */
	uint32_t count;
	const struct cpg_leaver *left;
	uint32_t left_count;
};

struct cpg_link_callbacks {
	void (*view)(void *context, const struct cpg_view *view);
	void (*message)(void *context, struct cpg_process from, const void *data, size_t size);
	/* As votequorum says; false before the first call, and with every loss of the connection. */
	void (*quorum)(void *context, bool has_quorum);
	/* cpg_link_send() was refused, and takes more now. */
	void (*writable)(void *context);
	void (*stopped)(void *context);
};

struct cpg_link;

/* @channel is copied, @callbacks are borrowed until `stopped`. NULL: no memory. */
struct cpg_link *cpg_link_new(struct loop *loop, const char *channel,
			      const struct cpg_link_callbacks *callbacks, void *context);
/*
 * To all of the view, ourselves included. 0: taken (copied); -EAGAIN: too much waits, or there is no
 * memory: `writable` follows; -E_CLOSED: we are in no view.
 */
int cpg_link_send(struct cpg_link *link, const void *data, size_t size);
/* Leave the group and close; `stopped` follows, after two seconds even if corosync hangs. */
void cpg_link_stop(struct cpg_link *link);
/* As if the process had ended: closes without leaving. For tests. */
void cpg_link_drop(struct cpg_link *link);
void cpg_link_free(struct cpg_link *link); /* after `stopped`, or never in use; NULL is allowed */

#endif
