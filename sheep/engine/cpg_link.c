/*
 * The connection to corosync (cpg_link.h).
 *
 * Sending. Messages wait in a list. Of those that were given to corosync at most WINDOW have not come
 * back to us: libqb wakes corosync with a byte per message and spins when it reads none, so that without
 * this bound a stopped corosync would stop us. It also keeps what others send from waiting behind ours.
 */
#include "sheep/engine/cpg_link.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/size.h"

#define WINDOW	      32u	      /* messages under way */
#define QUEUE_MAX     (2u << 20)      /* bytes that wait; one message is taken above it */
#define DISPATCH_MAX  256u	      /* events of corosync in one turn */
#define AGAIN_NS      (2 * NS_PER_MS) /* after corosync asked for it */
#define BACKOFF_MIN   (100 * NS_PER_MS)
#define BACKOFF_MAX   (2 * NS_PER_S)
#define TELL_FIRST_NS NS_PER_S
#define TELL_NS	      (10 * NS_PER_S) /* between two lines about waiting */
#define STOP_NS	      (2 * NS_PER_S)  /* for corosync to take our leave */

enum link_state {
	LINK_WAITING,
	LINK_OPENING,
	LINK_OPEN,
	LINK_CLOSING,
	LINK_ENDING,
	LINK_STOPPED,
	LINK_STATE_COUNT
};

static const uint8_t link_next[LINK_STATE_COUNT] = {
	[LINK_WAITING] = BIT(LINK_OPENING) | BIT(LINK_STOPPED),
	[LINK_OPENING] = BIT(LINK_WAITING) | BIT(LINK_OPEN) | BIT(LINK_STOPPED),
	[LINK_OPEN] = BIT(LINK_CLOSING),
	[LINK_CLOSING] = BIT(LINK_ENDING),
	[LINK_ENDING] = BIT(LINK_WAITING) | BIT(LINK_STOPPED),
};

static const char *const state_names[LINK_STATE_COUNT] = {
	[LINK_WAITING] = "waiting", [LINK_OPENING] = "opening", [LINK_OPEN] = "open",
	[LINK_CLOSING] = "closing", [LINK_ENDING] = "ending",	[LINK_STOPPED] = "stopped",
};

/* A message that waits for corosync to take it. */
struct outgoing {
	struct cds_list_head link;
	uint32_t size;
	uint8_t data[];
};

struct cpg_link {
	struct loop *loop;
	const struct cpg_link_callbacks *callbacks;
	void *context;
	char group[CPG_MAX_NAME_LENGTH];
	char name[16]; /* of threads */
	enum link_state state;
	bool is_stopping, is_dropped; /* dropped: without leaving */
	struct cpg_call *call;
	struct cpg_handles handles;
	struct loop_op cpg_op, quorum_op, stop_op;
	struct loop_hook hook;	 /* what was sent in a turn goes at its end */
	struct loop_timer timer; /* WAITING: to try; OPEN: to send; stopping: to give up */
	uint64_t backoff_ns, waiting_since_ns, told_ns;
	bool is_member;	    /* the view has us */
	bool is_in_library; /* inside a dispatch function: nothing may be closed */
	bool has_quorum;
	struct cds_list_head queue;
	uint64_t queued_bytes;
	uint32_t flying;
	bool was_refused;
};

static void send_queue(struct cpg_link *link);

/* The only place that writes link->state. */
static void link_enter(struct cpg_link *link, enum link_state next, const char *why)
{
	assert(link_next[link->state] & BIT(next));
	log_debug("corosync: %s -> %s: %s", state_names[link->state], state_names[next], why);
	link->state = next;
}

static void set_quorum(struct cpg_link *link, bool has_quorum)
{
	if (link->has_quorum == has_quorum)
		return;
	link->has_quorum = has_quorum;
	if (!link->is_stopping)
		link->callbacks->quorum(link->context, has_quorum);
}

/* ---- waiting ---- */

static const char *what_to_do(int error, enum cpg_step step)
{
	if (step == CPG_STEP_NO_VOTES)
		return "it runs without votequorum: put 'provider: corosync_votequorum' into the "
		       "section 'quorum' of corosync.conf and restart it";
	if (error == CS_ERR_ACCESS || error == CS_ERR_SECURITY)
		return "it refuses this user: allow it by a file in /etc/corosync/uidgid.d";
	if (step == CPG_STEP_JOIN)
		return "it does not let us join the group now";
	if (error == CS_ERR_VERSION)
		return "it is of a version that our libraries do not speak";
	if (error == CS_ERR_NO_MEMORY || error == CS_ERR_NO_RESOURCES)
		return "it has no memory for us (/dev/shm may be full)";
	if (error == CS_ERR_TRY_AGAIN)
		return "it is starting";
	return "it does not run on this host: start it (systemctl start corosync)";
}

/* Once in a while, as long as there is none. */
static void tell_waiting(struct cpg_link *link, int error, enum cpg_step step)
{
	uint64_t now = loop_now(link->loop);

	if (!link->waiting_since_ns)
		link->waiting_since_ns = now;
	if (now < link->waiting_since_ns + TELL_FIRST_NS ||
	    (link->told_ns && now < link->told_ns + TELL_NS))
		return;
	link->told_ns = now;
	log_warning("waiting for corosync: %s (error %d)", what_to_do(error, step), error);
}

static void wait_and_try(struct cpg_link *link)
{
	loop_timer_start(link->loop, &link->timer, loop_now(link->loop) + link->backoff_ns);
	link->backoff_ns = link->backoff_ns * 2 < BACKOFF_MAX ? link->backoff_ns * 2 : BACKOFF_MAX;
}

/* ---- the end of it ---- */

static void drop_queue(struct cpg_link *link)
{
	struct outgoing *message, *next;

	cds_list_for_each_entry_safe(message, next, &link->queue, link) {
		cds_list_del(&message->link);
		free(message);
	}
	link->queued_bytes = 0;
	link->flying = 0;
	link->was_refused = false;
}

static void on_stopped(struct loop_op *op, int result)
{
	struct cpg_link *link = container_of_type(op, struct cpg_link, stop_op);

	link->callbacks->stopped(link->context);
}

static void stopped(struct cpg_link *link, const char *why)
{
	loop_timer_stop(link->loop, &link->timer);
	link_enter(link, LINK_STOPPED, why);
	link->stop_op.done = on_stopped;
	loop_complete(link->loop, &link->stop_op, 0);
}

static void on_closed(void *context)
{
	struct cpg_link *link = context;

	link->call = NULL;
	if (link->is_stopping) {
		stopped(link, "closed");
		return;
	}
	link_enter(link, LINK_WAITING, "closed");
	wait_and_try(link);
}

static void try_end(struct cpg_link *link)
{
	const char *group = link->is_stopping && !link->is_dropped ? link->group : NULL;

	if (link->state != LINK_CLOSING || link->is_in_library || loop_op_is_busy(&link->cpg_op) ||
	    loop_op_is_busy(&link->quorum_op))
		return;
	link_enter(link, LINK_ENDING, "nothing is under way");
	link->call = cpg_call_close(link->loop, link->name, group, &link->handles, on_closed, link);
	if (link->call)
		return;
	/* No memory: what a close would do is done by the end of the process. */
	log_warning("corosync: no memory to close a connection");
	on_closed(link);
}

/* The connection is of no more use, or we leave. */
static void end_connection(struct cpg_link *link, const char *why)
{
	struct cpg_view nothing = {.self = {link->handles.nodeid, link->handles.pid}};
	bool was_member = link->is_member;

	link_enter(link, LINK_CLOSING, why);
	loop_timer_stop(link->loop, &link->timer);
	if (loop_op_is_busy(&link->cpg_op))
		loop_cancel(link->loop, &link->cpg_op);
	if (loop_op_is_busy(&link->quorum_op))
		loop_cancel(link->loop, &link->quorum_op);
	link->is_member = false;
	drop_queue(link);
	set_quorum(link, false);
	if (was_member && !link->is_stopping)
		link->callbacks->view(link->context, &nothing);
	try_end(link);
}

static void lost(struct cpg_link *link, const char *what, int error)
{
	if (link->state != LINK_OPEN)
		return;
	log_warning("corosync: the connection is lost (%s: error %d): connecting again", what,
		    error);
	end_connection(link, "lost");
}

/* ---- what corosync says ---- */

static struct cpg_link *link_of(cpg_handle_t handle)
{
	void *context = NULL;

	(void)cpg_context_get(handle, &context);
	return context;
}

static enum cpg_end end_of(uint32_t reason)
{
	return reason == CPG_REASON_LEAVE      ? CPG_END_LEFT
	       : reason == CPG_REASON_PROCDOWN ? CPG_END_PROCESS
					       : CPG_END_NODE;
}

static void on_view(cpg_handle_t handle, const struct cpg_name *group,
		    const struct cpg_address *member_list, size_t member_count,
		    const struct cpg_address *left_list, size_t left_count,
		    const struct cpg_address *joined_list, size_t joined_count)
{
	struct cpg_link *link = link_of(handle);
	struct cpg_process members[CPG_MEMBERS_MAX];
	struct cpg_leaver left[CPG_MEMBERS_MAX];
	struct cpg_view view = {.self = {link->handles.nodeid, link->handles.pid},
				.members = members,
				.left = left};

	if (link->state != LINK_OPEN)
		return;
	for (size_t i = 0; i < member_count && i < CPG_MEMBERS_MAX; i++) {
		members[i] = (struct cpg_process){member_list[i].nodeid, member_list[i].pid};
		link->is_member |= cpg_process_is(members[i], view.self);
		view.count++;
	}
	for (size_t i = 0; i < left_count && i < CPG_MEMBERS_MAX; i++) {
		left[i].address = (struct cpg_process){left_list[i].nodeid, left_list[i].pid};
		left[i].end = end_of(left_list[i].reason);
		view.left_count++;
	}
	if (!link->is_member)
		return; /* our own join is still to come */
	link->callbacks->view(link->context, &view);
}

static void on_deliver(cpg_handle_t handle, const struct cpg_name *group, uint32_t nodeid,
		       uint32_t pid, void *data, size_t size)
{
	struct cpg_link *link = link_of(handle);
	struct cpg_process from = {nodeid, pid}, self = {link->handles.nodeid, link->handles.pid};

	if (link->state != LINK_OPEN)
		return;
	if (cpg_process_is(from, self) && link->flying)
		link->flying--;
	if (link->is_member)
		link->callbacks->message(link->context, from, data, size);
}

static void on_quorum(quorum_handle_t handle, uint32_t quorate, uint64_t ring, uint32_t count,
		      uint32_t *list)
{
	const void *context = NULL;
	struct cpg_link *link;

	(void)quorum_context_get(handle, &context);
	link = (struct cpg_link *)context;
	if (link->state == LINK_OPEN)
		set_quorum(link, quorate != 0);
}

/* ---- events ---- */

static void watch(struct cpg_link *link, struct loop_op *op, int fd)
{
	if (link->state == LINK_OPEN && !loop_op_is_busy(op))
		loop_poll(link->loop, op, fd, POLLIN);
}

static void on_cpg_event(struct loop_op *op, int result)
{
	struct cpg_link *link = container_of_type(op, struct cpg_link, cpg_op);
	cs_error_t rc = CS_OK;

	link->is_in_library = true;
	for (unsigned i = 0; i < DISPATCH_MAX && rc == CS_OK && link->state == LINK_OPEN; i++)
		rc = cpg_dispatch(link->handles.cpg, CS_DISPATCH_ONE_NONBLOCKING);
	link->is_in_library = false;
	if (rc != CS_OK && rc != CS_ERR_TRY_AGAIN)
		lost(link, "cpg_dispatch", (int)rc);
	watch(link, &link->cpg_op, link->handles.cpg_fd);
	send_queue(link);
	try_end(link);
}

static void on_quorum_event(struct loop_op *op, int result)
{
	struct cpg_link *link = container_of_type(op, struct cpg_link, quorum_op);
	cs_error_t rc = CS_OK;

	link->is_in_library = true;
	if (link->state == LINK_OPEN)
		rc = quorum_dispatch(link->handles.quorum, CS_DISPATCH_ALL);
	link->is_in_library = false;
	if (rc != CS_OK && rc != CS_ERR_TRY_AGAIN)
		lost(link, "quorum_dispatch", (int)rc);
	watch(link, &link->quorum_op, link->handles.quorum_fd);
	try_end(link);
}

static void on_opened(void *context, const struct cpg_handles *handles, int error,
		      enum cpg_step step)
{
	struct cpg_link *link = context;

	link->call = NULL;
	if (error != CS_OK) {
		tell_waiting(link, error, step);
		link_enter(link, LINK_WAITING, "it could not be opened");
		wait_and_try(link);
		return;
	}
	link->handles = *handles;
	link_enter(link, LINK_OPEN, "joined");
	log_info("corosync: connected as node %u, process %u", handles->nodeid, handles->pid);
	link->backoff_ns = BACKOFF_MIN;
	link->waiting_since_ns = link->told_ns = 0;
	/* What is there already may have made no noise that poll(2) hears again. */
	loop_complete(link->loop, &link->cpg_op, 0);
	loop_complete(link->loop, &link->quorum_op, 0);
}

static void try_open(struct cpg_link *link)
{
	const struct cpg_events events = {
		.deliver = on_deliver, .view = on_view, .quorum = on_quorum, .context = link};

	link->call = cpg_call_open(link->loop, link->name, link->group, &events, on_opened, link);
	if (link->call)
		link_enter(link, LINK_OPENING, "it is time");
	else
		wait_and_try(link);
}

/* ---- sending ---- */

static bool give(struct cpg_link *link, struct outgoing *message)
{
	struct iovec iov = {message->data, message->size};
	cs_error_t rc = cpg_mcast_joined(link->handles.cpg, CPG_TYPE_AGREED, &iov, 1);

	if (rc == CS_OK)
		return true;
	if (rc == CS_ERR_TRY_AGAIN || rc == CS_ERR_QUEUE_FULL || rc == CS_ERR_NO_MEMORY ||
	    rc == CS_ERR_NO_RESOURCES)
		loop_timer_start(link->loop, &link->timer, loop_now(link->loop) + AGAIN_NS);
	else
		lost(link, "cpg_mcast_joined", (int)rc);
	return false;
}

static void send_queue(struct cpg_link *link)
{
	while (link->state == LINK_OPEN && link->is_member && link->flying < WINDOW &&
	       !cds_list_empty(&link->queue) && !loop_timer_is_armed(&link->timer)) {
		struct outgoing *message =
			cds_list_first_entry(&link->queue, struct outgoing, link);

		if (!give(link, message))
			return;
		link->flying++;
		link->queued_bytes -= message->size;
		cds_list_del(&message->link);
		free(message);
	}
	if (link->was_refused && link->is_member && link->queued_bytes < QUEUE_MAX / 2) {
		link->was_refused = false;
		link->callbacks->writable(link->context);
	}
}

int cpg_link_send(struct cpg_link *link, const void *data, size_t size)
{
	struct outgoing *message;

	if (link->state != LINK_OPEN || !link->is_member)
		return -E_CLOSED;
	if (link->queued_bytes >= QUEUE_MAX) {
		link->was_refused = true;
		return -EAGAIN;
	}
	message = malloc(sizeof(*message) + size);
	if (!message) {
		link->was_refused = true;
		loop_timer_start(link->loop, &link->timer, loop_now(link->loop) + AGAIN_NS);
		return -EAGAIN;
	}
	message->size = (uint32_t)size;
	memcpy(message->data, data, size);
	cds_list_add_tail(&message->link, &link->queue);
	link->queued_bytes += size;
	loop_hook_arm(link->loop, &link->hook);
	return 0;
}

/* ---- life ---- */

static void on_timer(struct loop_timer *timer)
{
	struct cpg_link *link = container_of_type(timer, struct cpg_link, timer);

	if (link->is_stopping && link->call) {
		/* It hangs. Its end, or that of our process, ends our membership. */
		log_warning("corosync does not answer: leaving without its word");
		cpg_call_give_up(link->call);
		link->call = NULL;
		stopped(link, "given up");
	} else if (link->is_stopping) {
		loop_timer_start(link->loop, timer, loop_now(link->loop) + STOP_NS);
	} else if (link->state == LINK_WAITING) {
		try_open(link);
	} else {
		send_queue(link);
	}
}

static void on_hook(struct loop_hook *hook)
{
	send_queue(container_of_type(hook, struct cpg_link, hook));
}

struct cpg_link *cpg_link_new(struct loop *loop, const char *channel,
			      const struct cpg_link_callbacks *callbacks, void *context)
{
	struct cpg_link *link = calloc(1, sizeof(*link));

	if (!link)
		return NULL;
	assert(strlen(channel) <= CPG_CHANNEL_MAX);
	link->loop = loop;
	link->callbacks = callbacks;
	link->context = context;
	(void)snprintf(link->group, sizeof(link->group), CPG_GROUP_PREFIX "%s", channel);
	(void)snprintf(link->name, sizeof(link->name), "cpg-%08x",
		       (unsigned)random_u64(loop_random(loop)));
	link->state = LINK_WAITING;
	link->backoff_ns = BACKOFF_MIN;
	link->cpg_op.done = on_cpg_event;
	link->quorum_op.done = on_quorum_event;
	link->hook = (struct loop_hook){.run = on_hook, .phase = LOOP_HOOK_FLUSH};
	link->timer.fire = on_timer;
	CDS_INIT_LIST_HEAD(&link->queue);
	loop_timer_start(loop, &link->timer, loop_now(loop));
	return link;
}

static void stop(struct cpg_link *link)
{
	assert(!link->is_stopping);
	link->is_stopping = true;
	if (link->state == LINK_OPENING) {
		cpg_call_give_up(link->call);
		link->call = NULL;
	}
	if (link->state == LINK_WAITING || link->state == LINK_OPENING) {
		stopped(link, "told to");
		return;
	}
	if (link->state == LINK_OPEN)
		end_connection(link, "told to");
	/* Closed for want of memory within the call: stopped already. */
	if (link->state != LINK_STOPPED)
		loop_timer_start(link->loop, &link->timer, loop_now(link->loop) + STOP_NS);
}

void cpg_link_stop(struct cpg_link *link)
{
	stop(link);
}

void cpg_link_drop(struct cpg_link *link)
{
	link->is_dropped = true;
	stop(link);
}

void cpg_link_free(struct cpg_link *link)
{
	if (!link)
		return;
	loop_timer_stop(link->loop, &link->timer);
	loop_hook_disarm(link->loop, &link->hook);
	drop_queue(link);
	free(link);
}
