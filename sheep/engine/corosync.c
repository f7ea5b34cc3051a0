/*
 * The engine `corosync[:CHANNEL]`: what binds the agreement (agree.h) to corosync (cpg_link.h), to its files
 * (cpg_disk.h), to the clock and to the user. docs/internals/engines.md
 *
 *   start    files are read and checked in engine_open(); the rest begins on the loop
 *   running  everything the three tell is an input of the agreement, and what it wants goes to them
 *   leaving  the agreement says good-bye in the group; then the group is left and the files are
 *            closed; then `left`
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "sheep/engine/corosync_priv.h"

#define CHANNEL_DEFAULT "default"

static struct corosync *corosync_of(struct engine *engine)
{
	return container_of_type(engine, struct corosync, engine);
}

/* ---- the spec ---- */

static int corosync_check(const char *rest, struct error *err)
{
	if (strlen(rest) > CPG_CHANNEL_MAX)
		return error_set(err, -EINVAL, "the name of a channel has at most %d characters",
				 CPG_CHANNEL_MAX);
	for (const char *at = rest; *at; at++)
		if (!isalnum((unsigned char)*at) && !strchr("._-", *at))
			return error_set(
				err, -EINVAL,
				"'%s' is no channel of corosync: letters, digits, '.', '_' "
				"and '-' are allowed",
				rest);
	return 0;
}

/* ---- what the agreement wants ---- */

static uint64_t op_now(void *context)
{
	const struct corosync *corosync = context;

	return loop_now(corosync->engine.loop);
}

static void op_set_timer(void *context, uint64_t at_ns)
{
	struct corosync *corosync = context;

	if (at_ns == UINT64_MAX)
		loop_timer_stop(corosync->engine.loop, &corosync->timer);
	else
		loop_timer_start(corosync->engine.loop, &corosync->timer, at_ns);
}

static int op_send(void *context, const void *message, size_t size)
{
	struct corosync *corosync = context;
	int rc = cpg_link_send(corosync->link, message, size);

	/* Out of the group it is lost; the next view tells. */
	return rc == -EAGAIN ? rc : 0;
}

static void op_write(void *context, const void *data, size_t size)
{
	struct corosync *corosync = context;

	cpg_disk_append(corosync->disk, data, size);
}

static void op_write_next(void *context, uint64_t number, const void *data, size_t size)
{
	struct corosync *corosync = context;

	cpg_disk_make(corosync->disk, CPG_DISK_LOG, number, data, size);
}

static void op_write_image(void *context, uint64_t number, const void *data, size_t size)
{
	struct corosync *corosync = context;

	cpg_disk_make(corosync->disk, CPG_DISK_IMAGE, number, data, size);
}

static enum cpg_disk_kind kind_of(enum agree_file kind)
{
	return kind == AGREE_FILE_IMAGE ? CPG_DISK_IMAGE : CPG_DISK_LOG;
}

static void op_remove_below(void *context, enum agree_file kind, uint64_t number)
{
	struct corosync *corosync = context;

	cpg_disk_remove_below(corosync->disk, kind_of(kind), number);
}

static void op_commit(void *context, uint64_t index, const void *command, uint32_t size)
{
	struct corosync *corosync = context;

	engine_tell_commit(&corosync->engine, index, command, size);
}

static int op_install(void *context, uint64_t index, const void *image, size_t size,
		      struct error *err)
{
	struct corosync *corosync = context;

	return engine_tell_install(&corosync->engine, index, image, size, err);
}

static int op_snapshot(void *context, struct engine_image *out)
{
	struct corosync *corosync = context;

	return engine_take_snapshot(&corosync->engine, out);
}

static void op_ready(void *context)
{
	struct corosync *corosync = context;

	corosync->engine.log = agree_log(corosync->agree);
	engine_tell_ready(&corosync->engine);
}

static void op_members(void *context, const struct engine_member *members, uint32_t count)
{
	struct corosync *corosync = context;

	engine_tell_members(&corosync->engine, members, count);
}

static void op_ended(void *context, const struct uuid *node, uint64_t start, enum engine_end how)
{
	struct corosync *corosync = context;

	engine_tell_ended(&corosync->engine, node, start, how);
}

static void op_quorum(void *context, bool has_quorum)
{
	struct corosync *corosync = context;

	engine_tell_quorum(&corosync->engine, has_quorum);
}

static void op_failed(void *context, const struct error *err)
{
	struct corosync *corosync = context;

	engine_tell_failed(&corosync->engine, err);
}

static void op_left(void *context)
{
	corosync_close(context);
}

static const struct agree_ops ops = {
	.now = op_now,
	.set_timer = op_set_timer,
	.send = op_send,
	.write = op_write,
	.write_next = op_write_next,
	.write_image = op_write_image,
	.remove_below = op_remove_below,
	.commit = op_commit,
	.install = op_install,
	.snapshot = op_snapshot,
	.ready = op_ready,
	.members = op_members,
	.ended = op_ended,
	.quorum = op_quorum,
	.failed = op_failed,
	.left = op_left,
};

/* ---- what corosync says ---- */

static struct agree_id id_of(struct cpg_process process)
{
	return (struct agree_id){.node = process.nodeid, .pid = process.pid};
}

static void on_view(void *context, const struct cpg_view *view)
{
	static const enum agree_gone why[] = {
		[CPG_END_LEFT] = AGREE_GONE_LEFT,
		[CPG_END_PROCESS] = AGREE_GONE_PROCESS,
		[CPG_END_NODE] = AGREE_GONE_NODE,
	};
	struct corosync *corosync = context;
	struct agree_id members[CPG_MEMBERS_MAX];
	struct agree_leaver leavers[CPG_MEMBERS_MAX];
	struct agree_view out = {.self = id_of(view->self),
				 .members = members,
				 .count = view->count,
				 .leavers = leavers,
				 .leaver_count = view->left_count};

	if (!view->count) {
		agree_view(corosync->agree, NULL);
		return;
	}
	for (uint32_t i = 0; i < view->count; i++)
		members[i] = id_of(view->members[i]);
	for (uint32_t i = 0; i < view->left_count; i++)
		leavers[i] = (struct agree_leaver){.id = id_of(view->left[i].address),
						   .why = why[view->left[i].end]};
	agree_view(corosync->agree, &out);
}

/* Corosync itself has seen to it that what arrives is what was sent. */
static bool is_ours(const void *data, size_t size)
{
	const struct cpg_message *head = data;

	return size >= sizeof(*head) && from_le32(head->magic) == CPG_MESSAGE_MAGIC;
}

static void on_message(void *context, struct cpg_process from, const void *data, size_t size)
{
	struct corosync *corosync = context;

	if (is_ours(data, size)) {
		agree_deliver(corosync->agree, id_of(from), data, size);
		return;
	}
	if (!corosync->told_foreign)
		log_warning(
			"corosync: node %u, process %u sends on the group '%s%s' what is not of "
			"sheepfold: it is dropped, and so is what follows. If that program is to "
			"stay, give the sheep another channel",
			from.nodeid, from.pid, CPG_GROUP_PREFIX, corosync->channel);
	corosync->told_foreign = true;
}

static void on_quorum(void *context, bool has_quorum)
{
	struct corosync *corosync = context;

	agree_quorum(corosync->agree, has_quorum);
}

static void on_writable(void *context)
{
	struct corosync *corosync = context;

	agree_can_send(corosync->agree);
}

static void try_quit(struct corosync *corosync);

static void on_stopped(void *context)
{
	struct corosync *corosync = context;

	corosync->is_link_stopped = true;
	try_quit(corosync);
}

static const struct cpg_link_callbacks link_callbacks = {
	.view = on_view,
	.message = on_message,
	.quorum = on_quorum,
	.writable = on_writable,
	.stopped = on_stopped,
};

/* ---- what the disk and the clock say ---- */

static void on_written(void *context, enum cpg_disk_kind kind, int rc)
{
	struct corosync *corosync = context;

	corosync->engine.stats.syncs = cpg_disk_syncs(corosync->disk);
	if (kind == CPG_DISK_IMAGE)
		agree_image_written(corosync->agree, rc);
	else
		agree_written(corosync->agree, rc);
}

static void on_closed(void *context)
{
	struct corosync *corosync = context;

	corosync->is_disk_closed = true;
	try_quit(corosync);
}

static const struct cpg_disk_callbacks disk_callbacks = {
	.written = on_written,
	.closed = on_closed,
};

static void on_timer(struct loop_timer *timer)
{
	struct corosync *corosync = container_of_type(timer, struct corosync, timer);
	struct agree_stats stats;

	agree_stats_get(corosync->agree, &stats);
	corosync->engine.stats.proposals_again = stats.proposals_again;
	agree_timer(corosync->agree);
}

/* ---- the end ---- */

static void on_quit(struct loop_op *op, int result)
{
	engine_tell_left(&container_of_type(op, struct corosync, quit_op)->engine);
}

static void try_quit(struct corosync *corosync)
{
	if (!corosync->is_link_stopped || !corosync->is_disk_closed)
		return;
	corosync->quit_op.done = on_quit;
	loop_complete(corosync->engine.loop, &corosync->quit_op, 0);
}

/* The agreement is through: out of the group, so that others see that we left, and not before. */
void corosync_close(struct corosync *corosync)
{
	loop_timer_stop(corosync->engine.loop, &corosync->timer);
	if (!corosync->link)
		corosync->is_link_stopped = true;
	else if (corosync->is_crash)
		cpg_link_drop(corosync->link);
	else
		cpg_link_stop(corosync->link);
	cpg_disk_close(corosync->disk);
}

static void corosync_leave(struct engine *engine)
{
	struct corosync *corosync = corosync_of(engine);

	corosync->is_leaving = true;
	if (corosync->is_started)
		agree_leave(corosync->agree);
	else if (!loop_op_is_busy(&corosync->start_op))
		loop_complete(engine->loop, &corosync->start_op, 0);
}

static void corosync_free(struct engine *engine)
{
	struct corosync *corosync = corosync_of(engine);

	loop_timer_stop(engine->loop, &corosync->timer);
	cpg_link_free(corosync->link);
	agree_free(corosync->agree);
	cpg_disk_free(corosync->disk);
	engine_base_done(engine);
	free(corosync);
}

/* ---- the beginning ---- */

static void on_start(struct loop_op *op, int result)
{
	struct corosync *corosync = container_of_type(op, struct corosync, start_op);

	if (corosync->is_leaving) {
		corosync_close(corosync);
		return;
	}
	corosync->is_started = true;
	corosync->link =
		cpg_link_new(corosync->engine.loop, corosync->channel, &link_callbacks, corosync);
	if (!corosync->link) {
		struct error err;
		(void)error_set(&err, -ENOMEM, "connection to corosync");
		engine_tell_failed(&corosync->engine, &err);
		return;
	}
	agree_start(corosync->agree);
}

static int read_file(void *context, enum agree_file kind, uint64_t number, void **data,
		     size_t *size)
{
	struct corosync *corosync = context;

	return cpg_disk_read(corosync->disk, kind_of(kind), number, data, size);
}

static int restore(struct corosync *corosync, const char *dir, struct error *err)
{
	const uint64_t *numbers;
	uint32_t count;
	int rc;

	numbers = cpg_disk_logs(corosync->disk, &count);
	if (!count)
		return 0;
	rc = agree_restore(corosync->agree, numbers, count, read_file, err);
	if (rc == 0)
		corosync->engine.log = agree_log(corosync->agree);
	return rc < 0 ? error_wrap(err, rc, "the log in '%s'", dir) : 0;
}

static int open_parts(struct corosync *corosync, const struct engine_options *options,
		      struct error *err)
{
	const struct agree_options agree_options = {
		.self = corosync->engine.self,
		.log = options->log,
		.compact_bytes = options->compact_bytes,
		.random = loop_random(corosync->engine.loop),
	};
	int rc = cpg_disk_open(corosync->engine.loop, options->dir, &disk_callbacks, corosync,
			       &corosync->disk, err);

	if (rc < 0)
		return rc;
	corosync->agree = agree_new(&agree_options, &ops, corosync);
	if (!corosync->agree)
		return error_set(err, -ENOMEM, "engine");
	return restore(corosync, options->dir, err);
}

static int corosync_open(const char *rest, struct loop *loop, const struct engine_options *options,
			 const struct engine_callbacks *callbacks, void *context,
			 struct engine **out, struct error *err)
{
	struct corosync *corosync;
	int rc;

	if (!options->dir)
		return error_set(err, -EINVAL,
				 "the engine keeps its log in a directory, and none is given");
	corosync = calloc(1, sizeof(*corosync));
	if (!corosync)
		return error_set(err, -ENOMEM, "engine");
	memcpy(corosync->channel, *rest ? rest : CHANNEL_DEFAULT,
	       strlen(*rest ? rest : CHANNEL_DEFAULT) + 1);
	corosync->timer.fire = on_timer;
	corosync->start_op.done = on_start;
	rc = engine_base_init(&corosync->engine, &corosync_driver, loop, options, callbacks,
			      context, err);
	if (rc == 0)
		rc = open_parts(corosync, options, err);
	if (rc < 0) {
		corosync_free(&corosync->engine);
		return rc;
	}
	loop_complete(loop, &corosync->start_op, 0);
	*out = &corosync->engine;
	return 0;
}

/* ---- the calls ---- */

static int corosync_propose(struct engine *engine, const void *command, uint32_t size)
{
	return agree_propose(corosync_of(engine)->agree, command, size);
}

static void corosync_forget(struct engine *engine, const struct uuid *node)
{
	agree_forget(corosync_of(engine)->agree, node);
}

static void corosync_peer(struct engine *engine, const struct uuid *node, uint64_t start,
			  bool is_closed)
{
	agree_link(corosync_of(engine)->agree, node, start, is_closed);
}

const struct engine_driver corosync_driver = {
	.name = "corosync",
	.syntax = "corosync[:CHANNEL]",
	.check = corosync_check,
	.open = corosync_open,
	.propose = corosync_propose,
	.leave = corosync_leave,
	.free = corosync_free,
	.forget = corosync_forget,
	.link = corosync_peer,
};
