/*
 * The engine on ZooKeeper: the spec, the session, life.
 *
 * A session is never a licence to serve, and its end no proof of anything: nobody is ever said to
 * have died here, only to have left, which the leaver itself writes down. When the session
 * expires another one is begun and everything is looked at again.
 */
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "sheep/engine/zk_priv.h"

#define SESSION_TIMEOUT_MS 1500 /* the servers have bounds of their own: 2 to 20 ticks */
#define TELL_FIRST_NS	   NS_PER_S
#define TELL_NS		   (10 * NS_PER_S) /* between two lines about waiting */
#define LOOK_AGAIN_NS	   NS_PER_S	   /* for a log that is not there */
#define LEAVE_NS	   (2 * NS_PER_S)  /* to write down that we leave */
#define ROOT_DEFAULT	   "/sheepfold"

static struct zk *zk_of(struct engine *engine)
{
	return container_of_type(engine, struct zk, engine);
}

/* ---- the spec ---- */

static int check_host(const char *text, size_t length, struct error *err)
{
	char host[256];
	const char *colon;
	uint64_t port;

	if (length == 0 || length >= sizeof(host))
		return error_set(err, -EINVAL, "engine 'zookeeper' needs HOST:PORT[,HOST:PORT]...");
	memcpy(host, text, length);
	host[length] = '\0';
	colon = strrchr(host, ':');
	if (!colon || colon == host || text_parse_u64(colon + 1, 65535, &port) < 0 || port == 0)
		return error_set(err, -EINVAL, "'%s' is not HOST:PORT", host);
	return 0;
}

static int check_root(const char *root, struct error *err)
{
	size_t length = strlen(root);

	if (length < 2 || length >= ZK_ROOT_MAX || root[length - 1] == '/' || strstr(root, "//") ||
	    strstr(root, "/.") || strcmp(root, "/zookeeper") == 0 ||
	    strncmp(root, "/zookeeper/", 11) == 0)
		return error_set(err, -EINVAL, "'%s' is no path for the log in ZooKeeper", root);
	for (const char *at = root; *at; at++)
		if ((unsigned char)*at <= ' ' || (unsigned char)*at >= 0x7f)
			return error_set(err, -EINVAL, "'%s' is no path for the log in ZooKeeper",
					 root);
	return 0;
}

static int zk_check(const char *rest, struct error *err)
{
	size_t hosts = strcspn(rest, "/");
	const char *at = rest;
	int rc = 0;

	if (hosts >= ZK_HOSTS_MAX)
		return error_set(err, -EINVAL, "the list of ZooKeeper servers is too long");
	do {
		size_t length = strcspn(at, ",/");
		rc = check_host(at, length, err);
		at += length;
	} while (rc == 0 && *at == ',' && at++);
	if (rc == 0 && rest[hosts])
		rc = check_root(rest + hosts, err);
	return rc;
}

/* ---- small things ---- */

void zk_path(const struct zk *zk, char *out, const char *format, ...)
{
	size_t used = strlen(zk->root);
	va_list args;

	memcpy(out, zk->root, used);
	va_start(args, format);
	(void)vsnprintf(out + used, ZK_PATH_MAX - used, format, args);
	va_end(args);
}

void zk_member_name(const struct uuid *node, uint64_t start, char out[ZK_NAME_MAX])
{
	char text[UUID_TEXT_SIZE];

	uuid_format(node, text);
	(void)snprintf(out, ZK_NAME_MAX, "%s-%016llx", text, (unsigned long long)start);
}

/* ---- the session ---- */

static void close_session(struct zk *zk)
{
	if (!zk->handle)
		return;
	(void)zookeeper_close(zk->handle);
	zk->handle = NULL;
	zk->is_connected = false;
	zk_calls_end(zk);
	free(zk->session);
	zk->session = NULL;
}

/*
 * As the library wants them: without the brackets of IPv6. And an odd number: it goes on by two after a failure, so that of an
 * even number it only ever tries the half, and pauses at the end of the list, which it then never comes to.
 */
static void list_servers(const struct zk_addresses *servers, char *out, size_t size)
{
	struct text text = text_of(out, size);
	uint32_t count = servers->count | 1;

	for (uint32_t i = 0; i < count; i++) {
		const char *address = servers->text[i % servers->count];
		const char *colon = strrchr(address, ':');
		size_t bracket = address[0] == '[';

		text_append(&text, "%s%.*s%s", i ? "," : "",
			    (int)((size_t)(colon - address) - 2 * bracket), address + bracket,
			    colon);
	}
}

/*
 * The library's threads take no signals: they would end the process where the sheep waits for them. They are given
 * addresses, and are not to look them up each time something happens.
 */
static zhandle_t *init_library(const struct zk_addresses *servers, const clientid_t *id,
			       struct zk_session *session)
{
	char list[(ZK_ADDRESSES_MAX + 1) * LOOP_ADDRESS_MAX];
	zhandle_t *handle;
	sigset_t all, old;

	list_servers(servers, list, sizeof(list));
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	handle = zookeeper_init(list, zk_on_session, SESSION_TIMEOUT_MS, id, session, 0);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (handle)
		(void)zoo_set_servers_resolution_delay(handle, -1);
	return handle;
}

/* @id: of a session that goes on; NULL: a new one. */
static int open_session(struct zk *zk, const struct zk_addresses *servers, const clientid_t *id)
{
	struct zk_session *session = calloc(1, sizeof(*session));

	if (!session)
		return -ENOMEM;
	session->zk = zk;
	session->life = ++zk->life;
	zk->session = session;
	zk->is_behind = true;
	zk->is_syncing = false;
	zk->handle = init_library(servers, id, session);
	if (zk->handle)
		return 0;
	free(session);
	zk->session = NULL;
	return errno ? -errno : -EIO;
}

/*
 * What the library knows of the session besides its number, which changes it has seen, does not come
 * along: so everything waits for a sync (is_behind). Should the library have got a connection in this very moment, it
 * ends the session when it is closed: then it is another one that goes on, as after an expiry.
 */
void zk_session_move(struct zk *zk, const struct zk_addresses *servers)
{
	clientid_t id = {0};

	if (zk->is_stopped || zk->is_connected)
		return;
	if (zk->handle) {
		if (zoo_state(zk->handle) == ZOO_CONNECTED_STATE || is_unrecoverable(zk->handle))
			return; /* that is about to be told */
		id = *zoo_client_id(zk->handle);
	}
	log_debug("zookeeper: %s serves: going over", servers->text[0]);
	close_session(zk);
	if (open_session(zk, servers, id.client_id ? &id : NULL) < 0)
		zk_retry(zk);
}

/* Once in a while, as long as nobody answers. */
static void tell_waiting(struct zk *zk)
{
	uint64_t now = loop_now(zk->engine.loop);

	if (zk->is_connected)
		return;
	if (!zk->waiting_since_ns)
		zk->waiting_since_ns = now;
	if (now < zk->waiting_since_ns + TELL_FIRST_NS ||
	    (zk->told_ns && now < zk->told_ns + TELL_NS))
		return;
	zk->told_ns = now;
	log_warning("waiting for ZooKeeper at %s: no server answers, or they have no quorum",
		    zk->hosts);
}

static void restart_parts(struct zk *zk)
{
	zk_members_go(zk);
	zk_read_go(zk);
	zk_write_go(zk);
	zk_compact_go(zk);
}

static void on_caught_up(struct zk_call *call)
{
	struct zk *zk = call->zk;

	zk->is_syncing = false;
	if (call->rc == ZOK) {
		zk->is_behind = false;
		restart_parts(zk);
	} else {
		zk_retry(zk);
	}
}

/* There is a connection. The server of a new handle may be behind what we have seen. */
static void go_on(struct zk *zk)
{
	if (!zk->is_behind) {
		restart_parts(zk);
		return;
	}
	zk_write_go(zk); /* what is appended is appended, wherever we read */
	if (!zk->is_syncing)
		zk->is_syncing = zk_sync(zk, "/", on_caught_up);
	if (!zk->is_syncing)
		zk_retry(zk);
}

void zk_session_changed(struct zk *zk, uint32_t life, int state)
{
	if (state == ZOO_CONNECTED_STATE) {
		bool was_connected = zk->is_connected;
		zk->is_connected = true;
		zk->waiting_since_ns = 0;
		zk->told_ns = 0;
		zk_dial_stop(zk);
		engine_tell_quorum(&zk->engine, true);
		if (!was_connected && !zk->is_stopped)
			go_on(zk);
	} else if (state == ZOO_EXPIRED_SESSION_STATE || state == ZOO_AUTH_FAILED_STATE) {
		log_warning("the session with ZooKeeper has expired: beginning another one");
		close_session(zk);
		zk_dial_stop(zk); /* who serves was found for the ended one: it begins anew */
		zk_members_lost(zk);
		engine_tell_quorum(&zk->engine, false);
		zk_retry(zk); /* it opens one */
	} else {
		zk->is_connected = false;
		engine_tell_quorum(&zk->engine, false);
		if (!zk->is_stopped)
			zk_dial_start(zk);
		zk_retry(zk);
	}
}

void zk_look_again(struct zk *zk)
{
	if (!zk->handle)
		return; /* the retry timer begins a session */
	zk_session_changed(zk, zk->life, zoo_state(zk->handle));
	if (zk->is_stopped || !zk->is_connected || zk->is_behind)
		return;
	zk_members_changed(zk);
	if (!zk->is_stopped)
		zk_read_changed(zk);
}

static void begin_session(struct zk *zk)
{
	if (zk->addresses.count && open_session(zk, &zk->addresses, NULL) < 0)
		log_warning("no session with ZooKeeper can be begun now");
	zk_dial_start(zk);
}

static void on_retry(struct loop_timer *timer)
{
	struct zk *zk = container_of_type(timer, struct zk, retry);

	if (zk->is_stopped)
		return;
	if (!zk->handle)
		begin_session(zk);
	tell_waiting(zk);
	if (!zk->is_connected) {
		zk_retry(zk);
		return;
	}
	if (zk->is_behind) {
		go_on(zk);
		return;
	}
	if (zk->members.is_waiting)
		zk_members_go(zk);
	if (zk->reader.is_waiting && !zk->is_stopped)
		zk_read_go(zk);
	if (!zk->is_stopped)
		zk_write_go(zk);
	if (zk->compactor.is_waiting && !zk->is_stopped)
		zk_compact_go(zk);
}

void zk_retry(struct zk *zk)
{
	if (!zk->is_stopped && !loop_timer_is_armed(&zk->retry))
		loop_timer_start(zk->engine.loop, &zk->retry,
				 loop_now(zk->engine.loop) + ZK_RETRY_NS);
}

void zk_wait_for_log(struct zk *zk)
{
	uint64_t now = loop_now(zk->engine.loop);
	char text[UUID_TEXT_SIZE];

	zk->reader.is_waiting = true;
	if (!loop_timer_is_armed(&zk->retry))
		loop_timer_start(zk->engine.loop, &zk->retry, now + LOOK_AGAIN_NS);
	if (zk->told_no_log_ns && now < zk->told_no_log_ns + TELL_NS)
		return;
	zk->told_no_log_ns = now;
	log_warning("zookeeper: waiting: there is no log at %s on %s, and this node belongs to log "
		    "%s: bring the data of ZooKeeper back, or correct --cluster",
		    zk->root, zk->hosts, uuid_format(&zk->expected, text));
}

/* ---- the end ---- */

static void stop(struct zk *zk)
{
	zk->is_stopped = true;
	loop_timer_stop(zk->engine.loop, &zk->retry);
	zk_dial_stop(zk);
}

void zk_fail(struct zk *zk, int code, const char *format, ...)
{
	struct error err = {0};
	char what[ERROR_TEXT_MAX - 1];
	va_list args;

	if (zk->is_stopped)
		return;
	va_start(args, format);
	(void)vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	error_set(&err, code, "%s", what);
	stop(zk);
	engine_tell_failed(&zk->engine, &err);
}

static void on_quit(struct loop_op *op, int result)
{
	engine_tell_left(&container_of_type(op, struct zk, quit_op)->engine);
}

void zk_try_quit(struct zk *zk)
{
	if (!zk->is_closed || zk->is_quitting || zk->is_noting || !cds_list_empty(&zk->calls) ||
	    __atomic_load_n(&zk->mails, __ATOMIC_RELAXED) || !zk_dial_end(zk))
		return;
	zk->is_quitting = true;
	zk->quit_op.done = on_quit;
	loop_complete(zk->engine.loop, &zk->quit_op, 0);
}

static void close_all(struct zk *zk)
{
	if (zk->is_closed)
		return;
	loop_timer_stop(zk->engine.loop, &zk->leave_timer);
	close_session(zk);
	zk->is_closed = true;
	zk_try_quit(zk);
}

static void on_leave_timer(struct loop_timer *timer)
{
	close_all(container_of_type(timer, struct zk, leave_timer));
}

static void leave_noted(struct loop *loop, struct loop_mail *mail)
{
	struct zk *zk = container_of_type(mail, struct zk, leave_mail);

	zk->is_noting = false;
	close_all(zk);
	zk_try_quit(zk);
}

/* It is written down, or cannot be: the engine has stopped, so that this is no usual answer. */
static void on_leave_noted(int rc, const char *value, const void *data)
{
	struct zk *zk = (struct zk *)data;

	zk->leave_mail.deliver = leave_noted;
	loop_post(zk->engine.loop, &zk->leave_mail);
}

static void zk_leave(struct engine *engine)
{
	struct zk *zk = zk_of(engine);
	bool was_there = zk->members.is_there && zk->is_connected && zk->handle;
	char name[ZK_NAME_MAX], path[ZK_PATH_MAX];

	if (!zk->is_stopped)
		stop(zk);
	zk_member_name(&engine->self.node, engine->self.start, name);
	zk_path(zk, path, "/ended/%s", name);
	zk->is_noting = was_there && zoo_acreate(zk->handle, path, NULL, -1, &ZOO_OPEN_ACL_UNSAFE,
						 ZOO_PERSISTENT, on_leave_noted, zk) == ZOK;
	if (zk->is_noting)
		loop_timer_start(engine->loop, &zk->leave_timer, loop_now(engine->loop) + LEAVE_NS);
	else
		close_all(zk);
}

static void zk_free(struct engine *engine)
{
	struct zk *zk = zk_of(engine);

	zk_compact_done(zk);
	zk_write_done(zk);
	zk_read_done(zk);
	zk_members_done(zk);
	engine_base_done(engine);
	free(zk);
}

/* ---- the beginning ---- */

static int zk_open(const char *rest, struct loop *loop, const struct engine_options *options,
		   const struct engine_callbacks *callbacks, void *context, struct engine **out,
		   struct error *err)
{
	struct zk *zk = calloc(1, sizeof(*zk));
	size_t hosts = strcspn(rest, "/");
	int rc;

	if (!zk)
		return error_set(err, -ENOMEM, "engine");
	rc = engine_base_init(&zk->engine, &zk_driver, loop, options, callbacks, context, err);
	if (rc < 0) {
		free(zk);
		return rc;
	}
	memcpy(zk->hosts, rest, hosts);
	(void)text_copy(zk->root, sizeof(zk->root), rest[hosts] ? rest + hosts : ROOT_DEFAULT);
	zk->expected = options->log;
	zk->compact_bytes = options->compact_bytes ? options->compact_bytes : ZK_COMPACT_BYTES;
	CDS_INIT_LIST_HEAD(&zk->calls);
	CDS_INIT_LIST_HEAD(&zk->writer.proposals);
	CDS_INIT_LIST_HEAD(&zk->members.peers);
	zk->retry.fire = on_retry;
	zk->leave_timer.fire = on_leave_timer;
	zoo_set_debug_level((ZooLogLevel)0); /* it writes to standard error by itself */
	zk->is_numeric = zk_names_are_numeric(zk->hosts);
	zk_names_resolve(zk->hosts, &zk->addresses);
	zk->dial.is_renamed = true;
	rc = zk->addresses.count ? open_session(zk, &zk->addresses, NULL) : 0;
	if (rc < 0) {
		zk_free(&zk->engine);
		return error_set(err, rc, "the client library of ZooKeeper");
	}
	zk_dial_start(zk);
	zk_retry(zk);
	*out = &zk->engine;
	return 0;
}

const struct engine_driver zk_driver = {
	.name = "zookeeper",
	.syntax = "zookeeper:HOST:PORT[,HOST:PORT]...[/ROOT]",
	.check = zk_check,
	.open = zk_open,
	.propose = zk_propose,
	.leave = zk_leave,
	.free = zk_free,
};
