/*
 * Calls of corosync's libraries that may block (cpg_call.h).
 *
 *   RUNNING --the thread is through--> POSTED --mail--> gone, with `done`
 *      |                                 |
 *      +--cpg_call_give_up()--> LEFT     +--cpg_call_give_up()--> LEFT --mail--> gone
 *                                |
 *                                +--the thread is through--> gone; what it opened is closed
 */
#include "sheep/engine/cpg_call.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"

#define THREAD_NAME_MAX 16
#define TRIES		10 /* of what corosync asks to be tried again */
#define TRY_AGAIN_US	20000

enum call_state { CALL_RUNNING, CALL_POSTED, CALL_LEFT };

struct cpg_call {
	struct loop_mail mail;
	struct loop *loop;
	pthread_mutex_t mutex; /* for `state` */
	enum call_state state;
	bool is_open; /* else it closes */
	char name[THREAD_NAME_MAX];
	struct cpg_name group; /* length 0: it is not left */
	struct cpg_events events;
	struct cpg_handles handles;
	int error;
	enum cpg_step step;
	cpg_call_opened *opened;
	void (*closed)(void *context);
	void *context;
};

static void call_free(struct cpg_call *call)
{
	(void)pthread_mutex_destroy(&call->mutex);
	free(call);
}

/* ---- on the thread ---- */

static int open_cpg(struct cpg_call *call)
{
	cpg_model_v1_data_t model = {
		.model = CPG_MODEL_V1,
		.cpg_deliver_fn = call->events.deliver,
		.cpg_confchg_fn = call->events.view,
	};
	struct cpg_handles *handles = &call->handles;
	unsigned nodeid = 0;
	cs_error_t rc = cpg_model_initialize(&handles->cpg, CPG_MODEL_V1,
					     (cpg_model_data_t *)&model, call->events.context);

	if (rc != CS_OK)
		return (int)rc;
	handles->has_cpg = true;
	rc = cpg_local_get(handles->cpg, &nodeid);
	if (rc == CS_OK)
		rc = cpg_fd_get(handles->cpg, &handles->cpg_fd);
	handles->nodeid = nodeid;
	handles->pid = (uint32_t)getpid();
	return (int)rc;
}

static int open_quorum(struct cpg_call *call)
{
	quorum_callbacks_t callbacks = {.quorum_notify_fn = call->events.quorum};
	struct cpg_handles *handles = &call->handles;
	uint32_t type = QUORUM_FREE;
	cs_error_t rc = quorum_initialize(&handles->quorum, &callbacks, &type);

	if (rc != CS_OK)
		return (int)rc;
	handles->has_quorum = true;
	if (type == QUORUM_FREE) {
		call->step = CPG_STEP_NO_VOTES;
		return CS_ERR_NOT_SUPPORTED;
	}
	rc = quorum_context_set(handles->quorum, call->events.context);
	if (rc == CS_OK)
		rc = quorum_fd_get(handles->quorum, &handles->quorum_fd);
	if (rc == CS_OK)
		rc = quorum_trackstart(handles->quorum, CS_TRACK_CURRENT | CS_TRACK_CHANGES);
	return (int)rc;
}

/* While the ring is formed anew corosync wants to be asked again. */
static int join(struct cpg_call *call)
{
	int rc = CS_ERR_TRY_AGAIN;

	for (unsigned i = 0; i < TRIES && rc == CS_ERR_TRY_AGAIN; i++) {
		if (i)
			(void)usleep(TRY_AGAIN_US);
		rc = (int)cpg_join(call->handles.cpg, &call->group);
	}
	return rc;
}

static void close_all(struct cpg_call *call)
{
	struct cpg_handles *handles = &call->handles;

	if (handles->has_quorum)
		(void)quorum_finalize(handles->quorum);
	if (handles->has_cpg && !call->is_open && call->group.length)
		(void)cpg_leave(handles->cpg, &call->group);
	if (handles->has_cpg)
		(void)cpg_finalize(handles->cpg);
	*handles = (struct cpg_handles){0};
}

static void open_all(struct cpg_call *call)
{
	call->step = CPG_STEP_CONNECT;
	call->error = open_cpg(call);
	if (call->error == CS_OK) {
		call->step = CPG_STEP_QUORUM;
		call->error = open_quorum(call);
	}
	if (call->error == CS_OK) {
		call->step = CPG_STEP_JOIN;
		call->error = join(call);
	}
	if (call->error != CS_OK)
		close_all(call);
}

static void *run(void *context)
{
	struct cpg_call *call = context;
	bool is_left;

	(void)pthread_setname_np(pthread_self(), call->name);
	if (call->is_open)
		open_all(call);
	else
		close_all(call);
	(void)pthread_mutex_lock(&call->mutex);
	is_left = call->state == CALL_LEFT;
	if (!is_left) {
		call->state = CALL_POSTED;
		loop_post(call->loop, &call->mail);
	}
	(void)pthread_mutex_unlock(&call->mutex);
	if (is_left) {
		close_all(call);
		call_free(call);
	}
	return NULL;
}

/* ---- on the loop ---- */

static void on_nobodys_close(void *context)
{
}

/* It may block: not here. Without memory it stays open until the process ends. */
static void close_quietly(struct cpg_call *call)
{
	if (call->handles.has_cpg)
		(void)cpg_call_close(call->loop, call->name, NULL, &call->handles, on_nobodys_close,
				     NULL);
}

static void deliver(struct loop *loop, struct loop_mail *mail)
{
	struct cpg_call *call = container_of_type(mail, struct cpg_call, mail);
	bool is_left;

	/* The thread posts inside the lock: after this it does not touch the call. */
	(void)pthread_mutex_lock(&call->mutex);
	is_left = call->state == CALL_LEFT;
	(void)pthread_mutex_unlock(&call->mutex);
	if (is_left)
		close_quietly(call);
	else if (call->is_open)
		call->opened(call->context, &call->handles, call->error, call->step);
	else
		call->closed(call->context);
	call_free(call);
}

static struct cpg_call *call_new(struct loop *loop, const char *name, const char *group,
				 void *context)
{
	struct cpg_call *call = calloc(1, sizeof(*call));

	if (!call)
		return NULL;
	assert(!group || strlen(group) < sizeof(call->group.value));
	call->mail.deliver = deliver;
	call->loop = loop;
	call->context = context;
	(void)pthread_mutex_init(&call->mutex, NULL);
	(void)snprintf(call->name, sizeof(call->name), "%s", name);
	if (group) {
		call->group.length = (uint32_t)strlen(group);
		memcpy(call->group.value, group, call->group.length);
	}
	return call;
}

static struct cpg_call *start(struct cpg_call *call)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int rc;

	(void)pthread_attr_init(&attributes);
	(void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	rc = pthread_create(&thread, &attributes, run, call);
	(void)pthread_attr_destroy(&attributes);
	if (rc == 0)
		return call;
	call_free(call);
	return NULL;
}

struct cpg_call *cpg_call_open(struct loop *loop, const char *name, const char *group,
			       const struct cpg_events *events, cpg_call_opened *done,
			       void *context)
{
	struct cpg_call *call = call_new(loop, name, group, context);

	if (!call)
		return NULL;
	call->is_open = true;
	call->events = *events;
	call->opened = done;
	return start(call);
}

struct cpg_call *cpg_call_close(struct loop *loop, const char *name, const char *group,
				const struct cpg_handles *handles, void (*done)(void *context),
				void *context)
{
	struct cpg_call *call = call_new(loop, name, group, context);

	if (!call)
		return NULL;
	call->handles = *handles;
	call->closed = done;
	return start(call);
}

void cpg_call_give_up(struct cpg_call *call)
{
	(void)pthread_mutex_lock(&call->mutex);
	call->state = CALL_LEFT;
	(void)pthread_mutex_unlock(&call->mutex);
}
