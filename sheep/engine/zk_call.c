/*
 * Calls of the ZooKeeper client library and its events.
 *
 * The library answers on threads of its own: what it says is copied into the call (or into an
 * event) and posted to the loop. Calls that are out are in a list, so that those which a close
 * leaves without an answer are answered here.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "sheep/engine/zk_priv.h"

/* What the library tells by itself. */
struct zk_event {
	struct loop_mail mail;
	struct zk *zk;
	uint32_t life;
	int type, state;
	char path[ZK_PATH_MAX];
};

bool zk_is_passing(int rc)
{
	return rc == ZCONNECTIONLOSS || rc == ZOPERATIONTIMEOUT || rc == ZSESSIONEXPIRED ||
	       rc == ZSESSIONMOVED || rc == ZINVALIDSTATE || rc == ZCLOSING || rc == ZSYSTEMERROR ||
	       rc == ZMARSHALLINGERROR;
}

/* ---- events ---- */

static void on_event(struct loop *loop, struct loop_mail *mail)
{
	struct zk_event *event = container_of_type(mail, struct zk_event, mail);
	struct zk *zk = event->zk;
	char members[ZK_PATH_MAX];

	__atomic_fetch_sub(&zk->mails, 1, __ATOMIC_RELAXED);
	if (!zk->is_stopped && event->life == zk->life) {
		zk_path(zk, members, "/members");
		if (event->type == ZOO_SESSION_EVENT)
			zk_session_changed(zk, event->life, event->state);
		else if (strcmp(event->path, members) == 0)
			zk_members_changed(zk);
		else
			zk_read_changed(zk);
	}
	free(event);
	zk_try_quit(zk);
}

static void on_lost(struct loop *loop, struct loop_mail *mail)
{
	struct zk *zk = container_of_type(mail, struct zk, lost_mail);

	__atomic_store_n(&zk->lost_is_out, 0, __ATOMIC_RELEASE);
	__atomic_fetch_sub(&zk->mails, 1, __ATOMIC_RELAXED);
	if (!zk->is_stopped)
		zk_look_again(zk);
	zk_try_quit(zk);
}

static void post_lost(struct zk *zk)
{
	if (__atomic_exchange_n(&zk->lost_is_out, 1, __ATOMIC_ACQ_REL))
		return; /* it is on its way, and looks later than this */
	zk->lost_mail.deliver = on_lost;
	__atomic_fetch_add(&zk->mails, 1, __ATOMIC_RELAXED);
	loop_post(zk->engine.loop, &zk->lost_mail);
}

static void post_event(struct zk *zk, uint32_t life, int type, int state, const char *path)
{
	struct zk_event *event = calloc(1, sizeof(*event));

	if (!event) {
		post_lost(zk);
		return;
	}
	event->mail.deliver = on_event;
	event->zk = zk;
	event->life = life;
	event->type = type;
	event->state = state;
	if (path)
		(void)snprintf(event->path, sizeof(event->path), "%s", path);
	__atomic_fetch_add(&zk->mails, 1, __ATOMIC_RELAXED);
	loop_post(zk->engine.loop, &event->mail);
}

void zk_on_session(zhandle_t *handle, int type, int state, const char *path, void *context)
{
	const struct zk_session *session = context;

	if (type == ZOO_SESSION_EVENT)
		post_event(session->zk, session->life, type, state, NULL);
}

static void on_watch(zhandle_t *handle, int type, int state, const char *path, void *context)
{
	const struct zk_session *session = context;

	if (type != ZOO_SESSION_EVENT)
		post_event(session->zk, session->life, type, state, path);
}

/* ---- answers ---- */

static void call_free(struct zk_call *call)
{
	for (uint32_t i = 0; i < call->name_count; i++)
		free(call->names[i]);
	free(call->names);
	free(call->path);
	free(call->data);
	free(call);
}

static void on_answer(struct loop *loop, struct loop_mail *mail)
{
	struct zk_call *call = container_of_type(mail, struct zk_call, mail);
	struct zk *zk = call->zk;

	cds_list_del(&call->link);
	if (!zk->is_stopped)
		call->done(call);
	call_free(call);
	zk_try_quit(zk);
}

static void answer(struct zk_call *call, int rc)
{
	call->rc = rc;
	call->is_answered = true;
	loop_post(call->zk->engine.loop, &call->mail);
}

static void got_nothing(int rc, const void *data)
{
	answer((struct zk_call *)data, rc);
}

static void got_string(int rc, const char *value, const void *data)
{
	struct zk_call *call = (struct zk_call *)data;

	if (rc == ZOK && value) {
		call->path = strdup(value);
		rc = call->path ? ZOK : ZSYSTEMERROR;
	}
	answer(call, rc);
}

static void got_stat(int rc, const struct Stat *stat, const void *data)
{
	answer((struct zk_call *)data, rc);
}

static void got_data(int rc, const char *value, int length, const struct Stat *stat,
		     const void *data)
{
	struct zk_call *call = (struct zk_call *)data;

	if (rc == ZOK) {
		call->size = length > 0 ? (size_t)length : 0;
		call->data = malloc(call->size + 1);
		call->version = stat ? stat->version : -1;
		if (call->data && call->size)
			memcpy(call->data, value, call->size);
		rc = call->data ? ZOK : ZSYSTEMERROR;
	}
	answer(call, rc);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void got_names(int rc, const struct String_vector *strings, const void *data)
{
	struct zk_call *call = (struct zk_call *)data;
	int count = rc == ZOK && strings ? strings->count : 0;

	if (count > 0) {
		call->names = calloc((size_t)count, sizeof(*call->names));
		for (int i = 0; call->names && i < count; i++) {
			call->names[i] = strdup(strings->data[i]);
			if (!call->names[i])
				break;
			call->name_count++;
		}
		if (call->name_count == (uint32_t)count)
			qsort(call->names, (size_t)count, sizeof(*call->names), compare_names);
		else
			rc = ZSYSTEMERROR;
	}
	answer(call, rc);
}

/* ---- calls ---- */

static struct zk_call *call_new(struct zk *zk, const char *path, uint64_t number,
				void (*done)(struct zk_call *call))
{
	struct zk_call *call = zk->handle && zk->is_connected ? calloc(1, sizeof(*call)) : NULL;

	if (!call)
		return NULL;
	call->mail.deliver = on_answer;
	call->zk = zk;
	call->number = number;
	(void)snprintf(call->about, sizeof(call->about), "%s", path);
	call->done = done;
	cds_list_add_tail(&call->link, &zk->calls);
	return call;
}

static bool made(struct zk_call *call, int rc)
{
	if (rc == ZOK)
		return true;
	cds_list_del(&call->link);
	call_free(call);
	return false;
}

bool zk_sync(struct zk *zk, const char *path, void (*done)(struct zk_call *call))
{
	struct zk_call *call = call_new(zk, path, 0, done);

	return call && made(call, zoo_async(zk->handle, path, got_string, call));
}

bool zk_get(struct zk *zk, const char *path, uint64_t number, void (*done)(struct zk_call *call))
{
	struct zk_call *call = call_new(zk, path, number, done);

	return call && made(call, zoo_aget(zk->handle, path, 0, got_data, call));
}

bool zk_list(struct zk *zk, const char *path, bool has_watch, uint64_t number,
	     void (*done)(struct zk_call *call))
{
	struct zk_call *call = call_new(zk, path, number, done);

	return call && made(call, zoo_awget_children(zk->handle, path, has_watch ? on_watch : NULL,
						     zk->session, got_names, call));
}

bool zk_create(struct zk *zk, const char *path, const void *data, size_t size, int mode,
	       uint64_t number, void (*done)(struct zk_call *call))
{
	struct zk_call *call = call_new(zk, path, number, done);

	return call && made(call, zoo_acreate(zk->handle, path, data, (int)size,
					      &ZOO_OPEN_ACL_UNSAFE, mode, got_string, call));
}

bool zk_set(struct zk *zk, const char *path, const void *data, size_t size, int version,
	    void (*done)(struct zk_call *call))
{
	struct zk_call *call = call_new(zk, path, 0, done);

	return call &&
	       made(call, zoo_aset(zk->handle, path, data, (int)size, version, got_stat, call));
}

bool zk_delete(struct zk *zk, const char *path, uint64_t number, void (*done)(struct zk_call *call))
{
	struct zk_call *call = call_new(zk, path, number, done);

	return call && made(call, zoo_adelete(zk->handle, path, -1, got_nothing, call));
}

void zk_calls_end(struct zk *zk)
{
	struct zk_call *call;

	cds_list_for_each_entry(call, &zk->calls, link)
		if (!call->is_answered)
			answer(call, ZCLOSING);
}
