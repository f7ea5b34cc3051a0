/*
 * The simulated back end of the loop: turns as events of the world.
 *
 * A loop turns when it is kicked (a completion, mail, stop), a moment later so
 * that what comes together is handled together, and when its own next deadline
 * comes. A caller from outside may also turn it: the world then runs until that
 * loop would turn, and the turn is the caller's.
 */
#include <stdlib.h>

#include "lib/base/assert.h"
#include "tests/sim/sim_priv.h"

#define TURN_NS	    NS_PER_US /* what a turn costs */
#define KICK_MIN_NS (1 * NS_PER_US)
#define KICK_MAX_NS (5 * NS_PER_US)

static struct sim_world *world_of(const struct sim_loop *loop)
{
	return loop->process->host->world;
}

/* ---- turns ---- */

static void turn_by(struct sim_loop *loop, uint64_t time_ns)
{
	if (!loop->turn.heap_index || loop->turn.time_ns > time_ns)
		sim_schedule(world_of(loop), &loop->turn, time_ns);
}

void sim_loop_kick(struct sim_loop *loop)
{
	struct sim_world *world = world_of(loop);

	/* While it turns, the end of the turn looks for what is left to do. */
	if (loop->is_turning ||
	    (loop->turn.heap_index && loop->turn.time_ns <= world->now_ns + KICK_MIN_NS))
		return;
	turn_by(loop, world->now_ns + sim_between(world, KICK_MIN_NS, KICK_MAX_NS));
}

void sim_loop_plan(struct sim_loop *loop)
{
	uint64_t deadline_ns = loop_next_deadline(loop->base.loop);

	loop_expect_wake(loop->base.loop);
	if (deadline_ns == 0)
		turn_by(loop, world_of(loop)->now_ns + TURN_NS);
	else if (deadline_ns != UINT64_MAX)
		turn_by(loop, deadline_ns + loop->process->host->lag_ns);
}

void sim_loop_resume(struct sim_loop *loop)
{
	sim_loop_kick(loop);
	sim_loop_plan(loop);
}

static void on_turn(struct sim_event *event)
{
	struct sim_loop *loop = container_of_type(event, struct sim_loop, turn);

	if (loop->process->host->is_paused)
		return;
	if (loop->is_waiting) {
		loop->is_kicked = true;
		return;
	}
	loop->is_turning = true;
	(void)loop_turn(loop->base.loop, 0);
	loop->is_turning = false;
	sim_loop_plan(loop);
}

/* A caller from outside. Time moves even if it does not wait, or it might ask for ever. */
static int sim_wait(struct loop_backend *backend, uint64_t until_ns)
{
	struct sim_loop *loop = sim_loop_of(backend);
	struct sim_world *world = world_of(loop);

	if (loop->is_turning)
		return 0;
	assert(!world->is_running);
	until_ns = max_of(until_ns, world->now_ns + TURN_NS);
	sim_refresh(world);
	loop->is_kicked = false;
	loop->is_waiting = true;
	while (!loop->is_kicked && sim_step(world, until_ns))
		;
	loop->is_waiting = false;
	if (loop->is_kicked)
		return 0;
	if (until_ns == UINT64_MAX)
		return -EDEADLK; /* nothing can ever happen again */
	world->now_ns = until_ns;
	return 0;
}

static void sim_wake(struct loop_backend *backend)
{
	loop_expect_wake(backend->loop);
	sim_loop_kick(sim_loop_of(backend));
}

static uint64_t backend_now(struct loop_backend *backend)
{
	const struct sim_host *host = sim_loop_of(backend)->process->host;
	uint64_t now_ns = host->frozen_ns ? host->frozen_ns : host->world->now_ns;

	return now_ns - host->lag_ns;
}

static uint64_t backend_wall_clock(struct loop_backend *backend)
{
	return SIM_WALL_NS + backend_now(backend);
}

/* ---- ops ---- */

struct sim_op *sim_op_new(struct loop_op *op, void (*run)(struct sim_event *event))
{
	struct sim_loop *loop = sim_loop_of_op(op);
	struct sim_world *world = world_of(loop);
	struct sim_op *sim_op;

	if (cds_list_empty(&world->spare_ops)) {
		sim_op = sim_alloc(sizeof(*sim_op));
	} else {
		sim_op = cds_list_first_entry(&world->spare_ops, struct sim_op, link);
		cds_list_del(&sim_op->link);
	}
	*sim_op = (struct sim_op){.event.run = run, .world = world, .op = op};
	cds_list_add_tail(&sim_op->link, &loop->ops);
	op->backend = sim_op;
	return sim_op;
}

void sim_op_free(struct sim_op *op)
{
	if (!op)
		return;
	sim_unschedule(op->world, &op->event);
	if (op->hangs_on)
		cds_list_del(&op->hanging);
	op->op->backend = NULL;
	cds_list_del(&op->link);
	cds_list_add(&op->link, &op->world->spare_ops);
}

void sim_finish(struct loop_op *op, int result)
{
	struct sim_loop *loop = sim_loop_of_op(op);

	sim_trace_note(world_of(loop), ((uint64_t)op->kind << 32) | (uint32_t)result);
	loop_op_finish(op, result);
	sim_loop_kick(loop);
}

static bool is_of_sockets(const struct loop_op *op)
{
	return op->kind == LOOP_OP_ACCEPT || op->kind == LOOP_OP_CONNECT ||
	       op->kind == LOOP_OP_RECV || op->kind == LOOP_OP_SEND;
}

static void sim_submit(struct loop_backend *backend, struct loop_op *op)
{
	op->backend = NULL;
	if (op->kind == LOOP_OP_POLL)
		sim_finish(op, -ENOTSUP);
	else if (is_of_sockets(op))
		sim_socket_submit(sim_loop_of(backend), op);
	else
		sim_file_submit(sim_loop_of(backend), op);
}

static void sim_cancel(struct loop_backend *backend, struct loop_op *op)
{
	if (is_of_sockets(op))
		sim_socket_cancel(sim_loop_of(backend), op);
	else
		sim_file_cancel(sim_loop_of(backend), op);
}

/* ---- blocking calls: done in no time ---- */

static struct sim_process *process_of(struct loop_backend *backend)
{
	return sim_loop_of(backend)->process;
}

static struct sim_file *sim_file_of(struct loop_file *file)
{
	return (struct sim_file *)file;
}

static void file_close(struct loop_backend *backend, struct loop_file *file)
{
	sim_file_free(sim_file_of(file));
}

static int sync_open(struct loop_backend *backend, const char *path, unsigned flags,
		     struct loop_file **out)
{
	return sim_fs_open(process_of(backend), path, flags, out);
}

static int64_t sync_read(struct loop_backend *backend, struct loop_file *file, void *data,
			 size_t size, uint64_t offset)
{
	if (!(sim_file_of(file)->flags & LOOP_FILE_READ))
		return -EBADF;
	if (sim_fault_meet(sim_file_of(file)->inode, LOOP_OP_READ) >= 0 ||
	    process_of(backend)->host->fs.reads == SIM_READS_FAIL ||
	    !sim_inode_is_readable(sim_file_of(file)->inode, size, offset))
		return -EIO;
	return (int64_t)sim_inode_read(sim_file_of(file)->inode, data, size, offset);
}

static int sync_write(struct loop_backend *backend, struct loop_file *file, const void *data,
		      size_t size, uint64_t offset)
{
	struct sim_file *mine = sim_file_of(file);

	if (!(mine->flags & LOOP_FILE_WRITE))
		return -EBADF;
	if (sim_fault_meet(mine->inode, LOOP_OP_WRITE) >= 0)
		return -EIO;
	if (mine->flags & LOOP_FILE_APPEND)
		offset = mine->inode->size;

	struct sim_host *host = process_of(backend)->host;
	struct iovec iov = {(void *)(uintptr_t)data, size};

	sim_file_tell(host, SIM_DISK_WRITE_BEGUN, data, mine->inode, &iov, 1, offset);
	int rc = sim_inode_write(mine->inode, data, size, offset);
	sim_file_tell(host, SIM_DISK_WRITE_DONE, data, mine->inode, NULL, 0, 0);
	return rc;
}

static int sync_fsync(struct loop_backend *backend, struct loop_file *file)
{
	struct sim_inode *inode = sim_file_of(file)->inode;

	if (sim_fault_meet(inode, LOOP_OP_SYNC) >= 0)
		return -EIO;
	sim_file_tell(process_of(backend)->host, SIM_DISK_SYNC_BEGUN, file, inode, NULL, 0, 0);
	sim_inode_sync(inode, UINT64_MAX);
	sim_file_tell(process_of(backend)->host, SIM_DISK_SYNC_DONE, file, inode, NULL, 0, 0);
	return 0;
}

static int64_t sync_size(struct loop_backend *backend, struct loop_file *file)
{
	return (int64_t)sim_file_of(file)->inode->size;
}

static int sync_truncate(struct loop_backend *backend, struct loop_file *file, uint64_t size)
{
	if (!(sim_file_of(file)->flags & LOOP_FILE_WRITE))
		return -EINVAL;
	return sim_inode_resize(sim_file_of(file)->inode, size);
}

static int sync_unlink(struct loop_backend *backend, const char *path)
{
	return sim_fs_unlink(process_of(backend)->host, path);
}

static int sync_rename(struct loop_backend *backend, const char *from, const char *to)
{
	return sim_fs_rename(process_of(backend)->host, from, to);
}

static int sync_mkdir(struct loop_backend *backend, const char *path)
{
	return sim_fs_mkdir(process_of(backend)->host, path);
}

static int sync_fsync_dir(struct loop_backend *backend, const char *path)
{
	return sim_fs_sync_directory(process_of(backend)->host, path);
}

static int sync_list(struct loop_backend *backend, const char *path,
		     int (*each)(void *context, const char *name), void *context)
{
	return sim_fs_list(process_of(backend)->host, path, each, context);
}

static int sync_free_space(struct loop_backend *backend, const char *path, uint64_t *out_bytes)
{
	struct sim_fs *fs = &process_of(backend)->host->fs;

	if (!sim_fs_find(process_of(backend)->host, path))
		return -ENOENT;
	*out_bytes = fs->size_bytes > fs->used_bytes ? fs->size_bytes - fs->used_bytes : 0;
	return 0;
}

static int sync_is_locked(struct loop_backend *backend, struct loop_file *file)
{
	struct sim_file *locker = sim_file_of(file)->inode->locker;

	return locker && locker != sim_file_of(file);
}

static int sync_lock(struct loop_backend *backend, struct loop_file *file)
{
	if (sync_is_locked(backend, file))
		return -EAGAIN;
	sim_file_of(file)->inode->locker = sim_file_of(file);
	return 0;
}

static int sync_map(struct loop_backend *backend, struct loop_file *file, size_t size, void **out)
{
	const unsigned both = LOOP_FILE_READ | LOOP_FILE_WRITE;
	struct sim_file *mine = sim_file_of(file);

	if ((mine->flags & both) != both)
		return -EACCES;
	int rc = mine->is_mapped ? -EINVAL : sim_inode_map(mine->inode, size, out);
	mine->is_mapped |= rc == 0;
	return rc;
}

/* ---- life ---- */

static void forget_ops(struct sim_loop *loop)
{
	struct sim_op *op, *next;

	cds_list_for_each_entry_safe(op, next, &loop->ops, link) {
		sim_file_op_lost(op);
		sim_op_free(op);
	}
}

static void sim_free(struct loop_backend *backend)
{
	struct sim_loop *loop = sim_loop_of(backend);

	forget_ops(loop);
	sim_unschedule(world_of(loop), &loop->turn);
	cds_list_del(&loop->link);
	free(loop);
}

void sim_loop_destroy(struct sim_loop *loop)
{
	loop_abandon(loop->base.loop);
}

static const struct loop_backend_ops sim_ops = {
	.name = "sim",
	.free = sim_free,
	.wait = sim_wait,
	.wake = sim_wake,
	.now = backend_now,
	.wall_clock = backend_wall_clock,
	.submit = sim_submit,
	.cancel = sim_cancel,
	.file_close = file_close,
	.listen = sim_listen,
	.listener_close = sim_listener_close,
	.listener_free = sim_listener_free,
	.socket_free = sim_socket_free,
	.socket_shutdown = sim_socket_shutdown,
	.socket_pair = sim_socket_pair,
	.sync_open = sync_open,
	.sync_read = sync_read,
	.sync_write = sync_write,
	.sync_fsync = sync_fsync,
	.sync_size = sync_size,
	.sync_truncate = sync_truncate,
	.sync_unlink = sync_unlink,
	.sync_rename = sync_rename,
	.sync_mkdir = sync_mkdir,
	.sync_fsync_dir = sync_fsync_dir,
	.sync_list = sync_list,
	.sync_free_space = sync_free_space,
	.sync_lock = sync_lock,
	.sync_is_locked = sync_is_locked,
	.sync_map = sync_map,
};

int sim_process_loop_new(struct sim_process *process, const struct loop_options *options,
			 struct loop **out)
{
	struct sim_loop *loop = sim_alloc(sizeof(*loop));
	struct loop_options filled = *options;
	int rc;

	if (!filled.seed)
		filled.seed = random_u64(&process->host->world->random);
	loop->base.ops = &sim_ops;
	loop->process = process;
	loop->turn.run = on_turn;
	CDS_INIT_LIST_HEAD(&loop->ops);
	cds_list_add_tail(&loop->link, &process->loops);
	rc = loop_new_on(&filled, &loop->base, out);
	if (rc < 0)
		return rc;
	loop_expect_wake(*out);
	sim_host_resume(process->host);
	if (!process->host->is_up) {
		process->host->is_up = true;
		sim_net_release(process->host);
	}
	return 0;
}

int sim_loop_new(struct sim_world *world, struct sim_host *host, const struct loop_options *options,
		 struct loop **out)
{
	assert(host->world == world);
	return sim_process_loop_new(host->first, options, out);
}
