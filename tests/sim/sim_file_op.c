/*
 * Operations on files: they take a while, then happen at one instant. A sync
 * covers the writes that had ended when it began. Faults are met at the end.
 */
#include <string.h>

#include "lib/base/assert.h"
#include "tests/sim/sim_priv.h"

static struct sim_host *host_of(const struct loop_op *op)
{
	return sim_loop_of_op(op)->process->host;
}

static struct sim_inode *inode_of(const struct loop_op *op)
{
	return op->target ? ((struct sim_file *)op->target)->inode : NULL;
}

/* ---- faults ---- */

static int meet(struct sim_faults *faults, enum loop_op_kind kind)
{
	for (unsigned i = 0; i < SIM_FAULTS_MAX; i++)
		if (faults->rows[i].kind == kind && --faults->rows[i].countdown == 0) {
			faults->rows[i].kind = LOOP_OP_NONE;
			return faults->rows[i].fault;
		}
	return -1;
}

int sim_fault_meet(struct sim_inode *inode, enum loop_op_kind kind)
{
	int fault = meet(&inode->faults, kind);

	return fault < 0 ? meet(&inode->fs->faults, kind) : fault;
}

static int arm(struct sim_faults *faults, enum loop_op_kind kind, unsigned nth,
	       enum sim_fault fault)
{
	assert(kind != LOOP_OP_NONE && nth > 0);
	for (unsigned i = 0; i < SIM_FAULTS_MAX; i++)
		if (faults->rows[i].kind == kind)
			return -EBUSY;
	for (unsigned i = 0; i < SIM_FAULTS_MAX; i++)
		if (faults->rows[i].kind == LOOP_OP_NONE) {
			faults->rows[i].kind = (uint8_t)kind;
			faults->rows[i].fault = (uint8_t)fault;
			faults->rows[i].countdown = nth;
			return 0;
		}
	return -EBUSY;
}

int sim_file_fault(struct sim_host *host, const char *path, enum loop_op_kind kind, unsigned nth,
		   enum sim_fault fault)
{
	struct sim_inode *inode = sim_fs_find(host, path);

	return inode ? arm(&inode->faults, kind, nth, fault) : -ENOENT;
}

int sim_host_fault(struct sim_host *host, enum loop_op_kind kind, unsigned nth,
		   enum sim_fault fault)
{
	return arm(&host->fs.faults, kind, nth, fault);
}

void sim_host_forget_faults(struct sim_host *host)
{
	struct sim_inode *inode;

	memset(&host->fs.faults, 0, sizeof(host->fs.faults));
	cds_list_for_each_entry(inode, &host->fs.inodes, link)
		memset(&inode->faults, 0, sizeof(inode->faults));
}

static void unhang(struct sim_inode *inode)
{
	struct sim_op *op, *next;

	cds_list_for_each_entry_safe(op, next, &inode->hanging, hanging) {
		op->hangs_on = NULL;
		cds_list_del(&op->hanging);
		sim_schedule(inode->world, &op->event, inode->world->now_ns);
	}
}

void sim_host_hang_disk(struct sim_host *host, bool is_hanging)
{
	struct sim_inode *inode;

	host->fs.is_hanging = is_hanging;
	if (is_hanging)
		return;
	cds_list_for_each_entry(inode, &host->fs.inodes, link)
		unhang(inode);
}

void sim_host_break_reads(struct sim_host *host, enum sim_reads how)
{
	host->fs.reads = (uint8_t)how;
}

int sim_file_unhang(struct sim_host *host, const char *path)
{
	struct sim_inode *inode = sim_fs_find(host, path);

	if (!inode)
		return -ENOENT;
	unhang(inode);
	return 0;
}

/* ---- watching ---- */

void sim_host_watch_disk(struct sim_host *host, struct sim_disk_watch *watch)
{
	host->fs.watch = watch;
}

void sim_file_tell(struct sim_host *host, enum sim_disk_event what, const void *op,
		   const struct sim_inode *inode, const struct iovec *iov, unsigned count,
		   uint64_t offset)
{
	struct sim_disk_watch *watch = host->fs.watch;

	if (watch)
		watch->event(watch, what, op, sim_fs_path(host, inode), iov, count, offset);
}

static void tell_begun(struct sim_host *host, const struct loop_op *op)
{
	if (op->kind == LOOP_OP_WRITE)
		sim_file_tell(host, SIM_DISK_WRITE_BEGUN, op, inode_of(op), op->iov, op->iov_count,
			      op->offset);
	else if (op->kind == LOOP_OP_SYNC)
		sim_file_tell(host, SIM_DISK_SYNC_BEGUN, op, inode_of(op), NULL, 0, 0);
}

static void tell_done(struct sim_host *host, const struct loop_op *op)
{
	if (op->kind == LOOP_OP_WRITE)
		sim_file_tell(host, SIM_DISK_WRITE_DONE, op, inode_of(op), NULL, 0, 0);
	else if (op->kind == LOOP_OP_SYNC)
		sim_file_tell(host, SIM_DISK_SYNC_DONE, op, inode_of(op), NULL, 0, 0);
}

/* ---- what each kind does ---- */

static int do_open(struct loop_op *op, struct sim_op *sim_op)
{
	return sim_fs_open(sim_loop_of_op(op)->process, op->path, (unsigned)op->length,
			   &op->out.file);
}

static int do_read(struct loop_op *op, struct sim_op *sim_op)
{
	uint64_t offset = op->offset;
	int done = 0;

	if (!(((struct sim_file *)op->target)->flags & LOOP_FILE_READ))
		return -EBADF;
	if (!sim_inode_is_readable(inode_of(op), op->length, offset))
		return -EIO;
	for (uint32_t i = 0; i < op->iov_count; i++) {
		uint64_t n = sim_inode_read(inode_of(op), op->iov[i].iov_base, op->iov[i].iov_len,
					    offset);

		done += (int)n;
		offset += n;
		if (n < op->iov[i].iov_len)
			break;
	}
	return done;
}

static int do_write(struct loop_op *op, struct sim_op *sim_op)
{
	struct sim_file *file = op->target;
	uint64_t offset = file->flags & LOOP_FILE_APPEND ? file->inode->size : op->offset;
	int rc = 0;

	if (!(file->flags & LOOP_FILE_WRITE))
		return -EBADF;
	for (uint32_t i = 0; i < op->iov_count && rc == 0; i++) {
		rc = sim_inode_write(file->inode, op->iov[i].iov_base, op->iov[i].iov_len, offset);
		offset += op->iov[i].iov_len;
	}
	return rc < 0 ? rc : (int)op->length;
}

static int do_sync(struct loop_op *op, struct sim_op *sim_op)
{
	sim_inode_sync(inode_of(op), sim_op->begin_order);
	return 0;
}

static int do_allocate(struct loop_op *op, struct sim_op *sim_op)
{
	struct sim_file *file = op->target;
	uint64_t end = op->offset + op->length;

	if (!(file->flags & LOOP_FILE_WRITE))
		return -EBADF;
	if (op->length == 0 || end < op->offset)
		return -EINVAL;
	return end > file->inode->size ? sim_inode_resize(file->inode, end) : 0;
}

static int do_unlink(struct loop_op *op, struct sim_op *sim_op)
{
	return sim_fs_unlink(host_of(op), op->path);
}

enum { LATENCY_READ, LATENCY_WRITE, LATENCY_SYNC };

static const struct {
	int (*perform)(struct loop_op *op, struct sim_op *sim_op);
	uint8_t latency;
} kinds[LOOP_OP_KINDS] = {
	[LOOP_OP_OPEN] = {do_open, LATENCY_READ},
	[LOOP_OP_READ] = {do_read, LATENCY_READ},
	[LOOP_OP_WRITE] = {do_write, LATENCY_WRITE},
	[LOOP_OP_SYNC] = {do_sync, LATENCY_SYNC},
	[LOOP_OP_ALLOCATE] = {do_allocate, LATENCY_WRITE},
	[LOOP_OP_UNLINK] = {do_unlink, LATENCY_WRITE},
};

/* ---- their lives ---- */

static uint64_t draw_latency(struct sim_host *host, enum loop_op_kind kind)
{
	const struct sim_latency *l = &host->fs.latency;

	if (kinds[kind].latency == LATENCY_READ)
		return sim_between(host->world, l->read_min_ns, l->read_max_ns);
	if (kinds[kind].latency == LATENCY_WRITE)
		return sim_between(host->world, l->write_min_ns, l->write_max_ns);
	return sim_between(host->world, l->sync_min_ns, l->sync_max_ns);
}

/* A write that lands on the wrong blocks of its file: others lose what they had. */
static int misdirect(struct loop_op *op, struct sim_op *sim_op)
{
	uint64_t offset = op->offset, size = inode_of(op)->size, result;

	if (op->kind != LOOP_OP_WRITE || size < 2 * op->length)
		return kinds[op->kind].perform(op, sim_op);
	op->offset = (offset + round_up(op->length, (uint64_t)SIM_PAGE) +
		      random_below(&sim_op->world->random, size / SIM_PAGE) * SIM_PAGE) %
		     round_down(size - op->length, (uint64_t)SIM_PAGE);
	result = (uint64_t)kinds[op->kind].perform(op, sim_op);
	op->offset = offset;
	return (int)result;
}

/* Of a read: one of its pages, from now on. */
static int break_sector(struct loop_op *op, struct sim_op *sim_op)
{
	uint64_t pages = op->length / SIM_PAGE;

	if (op->kind != LOOP_OP_READ || pages == 0)
		return -EIO;
	sim_fs_mend_pages(host_of(op));
	sim_inode_break_page(inode_of(op),
			     op->offset + random_below(&sim_op->world->random, pages) * SIM_PAGE);
	return kinds[op->kind].perform(op, sim_op);
}

static int perform(struct loop_op *op, struct sim_op *sim_op, int fault)
{
	switch (fault) {
	case SIM_FAULT_EIO:
		return -EIO;
	case SIM_FAULT_ENOSPC:
		return -ENOSPC;
	case SIM_FAULT_LOST:
		return op->kind == LOOP_OP_WRITE ? (int)op->length : 0;
	case SIM_FAULT_SECTOR:
		return break_sector(op, sim_op);
	case SIM_FAULT_MISDIRECT:
		return misdirect(op, sim_op);
	default:
		return kinds[op->kind].perform(op, sim_op);
	}
}

static void on_end(struct sim_event *event)
{
	struct sim_op *sim_op = container_of_type(event, struct sim_op, event);
	struct loop_op *op = sim_op->op;
	struct sim_inode *inode = inode_of(op);
	int fault = -1, result;

	if (inode && inode->fs->is_hanging)
		fault = SIM_FAULT_HANG;
	else if (inode)
		fault = sim_fault_meet(inode, op->kind);
	if (fault == SIM_FAULT_HANG) {
		sim_op->hangs_on = inode;
		cds_list_add_tail(&sim_op->hanging, &inode->hanging);
		return;
	}
	if (inode && op->kind == LOOP_OP_READ && inode->fs->reads == SIM_READS_FAIL)
		fault = SIM_FAULT_EIO;
	result = perform(op, sim_op, fault);
	if (inode && op->kind == LOOP_OP_READ && inode->fs->reads == SIM_READS_LIE && result > 0)
		((uint8_t *)op->iov[0].iov_base)[40] ^= 1;
	tell_done(host_of(op), op);
	sim_op_free(sim_op);
	sim_finish(op, result);
}

/* As the kernel does for O_DIRECT, and stricter than some disks ask. */
static bool is_misaligned(const struct loop_op *op)
{
	const struct loop_file *file = op->target;

	if (!file || !file->is_direct || (op->kind != LOOP_OP_READ && op->kind != LOOP_OP_WRITE))
		return false;
	if (op->offset % SIM_PAGE)
		return true;
	for (uint32_t i = 0; i < op->iov_count; i++)
		if ((uintptr_t)op->iov[i].iov_base % SIM_PAGE || op->iov[i].iov_len % SIM_PAGE)
			return true;
	return false;
}

void sim_file_submit(struct sim_loop *loop, struct loop_op *op)
{
	struct sim_host *host = loop->process->host;
	struct sim_op *sim_op;

	if (is_misaligned(op)) {
		sim_finish(op, -EINVAL);
		return;
	}
	sim_op = sim_op_new(op, on_end);
	sim_op->begin_order = host->fs.order;
	tell_begun(host, op);
	sim_schedule(host->world, &sim_op->event,
		     host->world->now_ns + draw_latency(host, op->kind));
}

void sim_file_cancel(struct sim_loop *loop, struct loop_op *op)
{
	struct sim_op *sim_op = op->backend;

	/* What has reached the disk cannot be called back, nor can what hangs there. */
	if (sim_op->hangs_on || sim_coin(loop->process->host->world))
		return;
	sim_op_free(sim_op);
	sim_finish(op, -ECANCELED);
}

void sim_file_op_lost(struct sim_op *sim_op)
{
	struct loop_op *op = sim_op->op;

	if ((op->kind == LOOP_OP_WRITE || op->kind == LOOP_OP_UNLINK ||
	     op->kind == LOOP_OP_ALLOCATE) &&
	    !sim_op->hangs_on && sim_coin(sim_op->world)) {
		(void)kinds[op->kind].perform(op, sim_op);
		tell_done(host_of(op), op);
	}
}
