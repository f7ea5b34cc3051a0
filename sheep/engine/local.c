/*
 * The engine `local:DIR`: life of a member (local_priv.h).
 *
 * engine_open() makes or checks the directory and takes this node's place, blocking. The rest is
 * tasks on the loop. When the engine stops (it fails, or leaves) its tasks are cancelled, end
 * without a `then`, and after the last one `left` may be told.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "sheep/engine/local_priv.h"

static struct local *local_of(struct engine *engine)
{
	return container_of_type(engine, struct local, engine);
}

/* ---- tasks ---- */

/* The loop may be inside a call of ours: `left` comes by the quit task. */
static void try_quit(struct local *local)
{
	if (local->engine.state != ENGINE_LEAVING || local->busy)
		return;
	loop_complete(local->engine.loop, local_task_start(&local->quit_task), 0);
}

static void task_done(struct loop_op *op, int result)
{
	struct local_task *task = container_of_type(op, struct local_task, op);
	struct local *local = task->local;

	task->is_busy = false;
	local->busy--;
	if (task == &local->quit_task) {
		engine_tell_left(&local->engine);
		return;
	}
	if (!local->is_stopped) {
		task->then(task, result);
		return;
	}
	if (task->gives_file && result >= 0)
		loop_file_close(local->engine.loop, op->out.file);
	try_quit(local);
}

void local_task_init(struct local *local, struct local_task *task,
		     void (*then)(struct local_task *, int))
{
	*task = (struct local_task){.op.done = task_done, .local = local, .then = then};
}

struct loop_op *local_task_start(struct local_task *task)
{
	assert(!task->is_busy);
	task->is_busy = true;
	task->gives_file = false;
	task->local->busy++;
	return &task->op;
}

void local_task_open(struct local_task *task, const char *path, unsigned flags)
{
	struct loop_op *op = local_task_start(task);

	task->gives_file = true;
	loop_file_open(task->local->engine.loop, op, path, flags);
}

static void cancel(struct local *local, struct local_task *task)
{
	if (task->is_busy)
		loop_cancel(local->engine.loop, &task->op);
}

static void stop(struct local *local)
{
	local->is_stopped = true;
	loop_hook_disarm(local->engine.loop, &local->writer.hook);
	loop_timer_stop(local->engine.loop, &local->writer.retry);
	cancel(local, &local->reader.task);
	cancel(local, &local->writer.task);
	cancel(local, &local->compactor.task);
	cancel(local, &local->watch_task);
	local_members_stop(local);
}

void local_fail(struct local *local, int code, const char *format, ...)
{
	struct error err = {0};
	char what[ERROR_TEXT_MAX - 1];
	va_list args;

	if (local->is_stopped)
		return;
	va_start(args, format);
	(void)vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	error_set(&err, code, "%s", what);
	stop(local);
	engine_tell_failed(&local->engine, &err);
}

/* ---- inotify ---- */

int local_watch(struct local *local, const char *path, uint32_t events)
{
	return inotify_add_watch(local->inotify, path, events);
}

void local_unwatch(struct local *local, int watch)
{
	if (watch >= 0)
		(void)inotify_rm_watch(local->inotify, watch);
}

static void wait_for_events(struct local *local)
{
	loop_poll(local->engine.loop, local_task_start(&local->watch_task), local->inotify, POLLIN);
}

struct seen {
	bool file, members;
	uint32_t file_events;
};

static void note_event(struct local *local, const struct inotify_event *event, struct seen *seen)
{
	if (event->mask & IN_Q_OVERFLOW) {
		seen->file = seen->members = true;
		seen->file_events |= IN_ATTRIB;
	} else if (event->wd == local->reader.watch) {
		seen->file = true;
		seen->file_events |= event->mask;
	} else if (event->wd == local->members.watch) {
		seen->members = true;
	}
}

static void on_watch(struct local_task *task, int result)
{
	struct local *local = task->local;
	char buffer[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
	struct seen seen = {0};
	ssize_t got;

	if (result < 0) {
		local_fail(local, result, "inotify");
		return;
	}
	while ((got = read(local->inotify, buffer, sizeof(buffer))) > 0) {
		for (ssize_t at = 0; at < got;) {
			const struct inotify_event *event = (const void *)(buffer + at);

			note_event(local, event, &seen);
			at += (ssize_t)(sizeof(*event) + event->len);
		}
	}
	wait_for_events(local);
	if (seen.file)
		local_read_watched(local, seen.file_events);
	if (seen.members && !local->is_stopped)
		local_members_look(local);
}

/* ---- life ---- */

static void local_free(struct engine *engine)
{
	struct local *local = local_of(engine);

	local_compact_done(local);
	local_write_done(local);
	local_read_done(local);
	local_members_done(local);
	if (local->inotify >= 0)
		(void)close(local->inotify);
	engine_base_done(engine);
	free(local);
}

static void local_leave(struct engine *engine)
{
	struct local *local = local_of(engine);

	local_members_leave(local);
	if (!local->is_stopped)
		stop(local);
	try_quit(local);
}

static int start(struct local *local, const struct uuid *expected, struct error *err)
{
	struct uuid first_file;
	int rc;

	rc = local_dir_open(local, expected, &first_file, err);
	if (rc < 0)
		return rc;
	local->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (local->inotify < 0)
		return error_set(err, -errno,
				 "inotify (raise fs.inotify.max_user_instances if it is full)");
	rc = local_write_init(local, err);
	if (rc == 0)
		rc = local_read_init(local, &first_file, err);
	if (rc == 0)
		rc = local_compact_init(local, err);
	if (rc == 0)
		rc = local_members_init(local, err);
	return rc;
}

static int local_open(const char *rest, struct loop *loop, const struct engine_options *options,
		      const struct engine_callbacks *callbacks, void *context, struct engine **out,
		      struct error *err)
{
	struct local *local = calloc(1, sizeof(*local));
	int rc;

	if (!local)
		return error_set(err, -ENOMEM, "engine");
	rc = engine_base_init(&local->engine, &local_driver, loop, options, callbacks, context,
			      err);
	if (rc < 0) {
		free(local);
		return rc;
	}
	local->inotify = -1;
	local->members.lock = -1;
	local->members.dirfd = -1;
	local->members.watch = -1;
	local->compact_bytes =
		options->compact_bytes ? options->compact_bytes : LOCAL_COMPACT_BYTES;
	CDS_INIT_LIST_HEAD(&local->members.peers);
	CDS_INIT_LIST_HEAD(&local->writer.outbox.entries);
	local_task_init(local, &local->watch_task, on_watch);
	local_task_init(local, &local->quit_task, NULL);
	rc = text_copy(local->dir, sizeof(local->dir), rest);
	if (rc < 0)
		rc = error_set(err, rc, "directory");
	if (rc == 0)
		rc = start(local, &options->log, err);
	if (rc < 0) {
		local_free(&local->engine);
		return rc;
	}
	wait_for_events(local);
	local_read_start(local);
	*out = &local->engine;
	return 0;
}

static int local_check(const char *rest, struct error *err)
{
	return *rest ? 0 : error_set(err, -EINVAL, "engine 'local' needs a directory: local:DIR");
}

const struct engine_driver local_driver = {
	.name = "local",
	.syntax = "local:DIR",
	.check = local_check,
	.open = local_open,
	.propose = local_propose,
	.leave = local_leave,
	.free = local_free,
};
