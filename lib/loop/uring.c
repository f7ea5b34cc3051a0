/*
 * The loop on io_uring: one ring per loop.
 *
 * Ops become submission entries at once and go to the kernel together with the
 * next wait: a turn is one system call, or none when nothing was submitted and
 * nothing has come. Always true: (1) entries reach the kernel in the order in
 * which they were made, so that a cancel never meets a later life of its op;
 * (2) an op is in the ring, in the backlog or with the kernel, never in two;
 * (3) completions are only queued here, never run.
 *
 * The ring is made disabled and enabled by the first turn, so that it may be
 * made and filled by another thread than the one that will own it.
 *
 * Where the kernel has it (6.1), completions run deferred: work that the kernel
 * has to do for an op is done in our own wait, without interrupting us.
 */
#include "lib/loop/uring.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "lib/loop/loop_priv.h"

#define SQ_ENTRIES 512
#define CQ_ENTRIES 4096 /* beyond that the kernel queues for us (FEAT_NODROP) */

/* user_data: an op, or one of these. */
enum { USER_DATA_CANCEL = 1, USER_DATA_WAKE = 2 };

static struct uring *uring_of(struct loop_backend *backend)
{
	return (struct uring *)backend;
}

/* ---- submitting ---- */

/* False: the ring is full. */
static bool push_op(struct uring *uring, struct loop_op *op)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);

	if (!sqe)
		return false;
	uring_op_prepare(uring, op, sqe);
	io_uring_sqe_set_data(sqe, op);
	return true;
}

static bool push_cancel(struct uring *uring, struct loop_op *op)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);

	if (!sqe)
		return false;
	io_uring_prep_cancel(sqe, op, 0);
	io_uring_sqe_set_data64(sqe, USER_DATA_CANCEL);
	return true;
}

void uring_push(struct uring *uring, struct loop_op *op)
{
	if (cds_list_empty(&uring->backlog) && push_op(uring, op))
		return;
	op->flags |= URING_OP_BACKLOG;
	cds_list_add_tail(&op->link, &uring->backlog);
}

static void uring_submit(struct loop_backend *backend, struct loop_op *op)
{
	if (uring_op_begin(op))
		uring_push(uring_of(backend), op);
}

static void uring_cancel(struct loop_backend *backend, struct loop_op *op)
{
	struct uring *uring = uring_of(backend);

	if (op->flags & URING_OP_BACKLOG) {
		op->flags &= (uint16_t)~URING_OP_BACKLOG;
		cds_list_del(&op->link);
		uring_op_complete(uring, op, -ECANCELED, 0);
	} else if (!push_cancel(uring, op)) {
		op->flags |= URING_OP_CANCELS;
		cds_list_add_tail(&op->link, &uring->cancels);
	}
}

static void arm_wake(struct uring *uring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);

	if (!sqe)
		return; /* the ring is full: this turn will not sleep, the next tries again */
	io_uring_prep_read(sqe, uring->wake_fd, &uring->wake_value, sizeof(uring->wake_value), 0);
	io_uring_sqe_set_data64(sqe, USER_DATA_WAKE);
	uring->is_wake_armed = true;
}

/* What found the ring full earlier. */
static void push_queued(struct uring *uring)
{
	while (!cds_list_empty(&uring->cancels)) {
		struct loop_op *op = cds_list_first_entry(&uring->cancels, struct loop_op, link);

		if (!push_cancel(uring, op))
			return;
		op->flags &= (uint16_t)~URING_OP_CANCELS;
		cds_list_del(&op->link);
	}
	while (!cds_list_empty(&uring->backlog)) {
		struct loop_op *op = cds_list_first_entry(&uring->backlog, struct loop_op, link);

		if (!io_uring_sq_space_left(&uring->ring))
			return;
		op->flags &= (uint16_t)~URING_OP_BACKLOG;
		cds_list_del(&op->link);
		(void)push_op(uring, op);
	}
}

/* ---- waiting ---- */

static bool has_completions(struct uring *uring)
{
	unsigned flags = IO_URING_READ_ONCE(*uring->ring.sq.kflags);

	return io_uring_cq_ready(&uring->ring) ||
	       (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
}

static bool uring_has_events(struct loop_backend *backend)
{
	return has_completions(uring_of(backend));
}

static int enter(struct uring *uring, uint64_t until_ns)
{
	struct io_uring *ring = &uring->ring;
	unsigned flags = IO_URING_READ_ONCE(*ring->sq.kflags);
	uint64_t now = until_ns && until_ns != UINT64_MAX ? posix_now(&uring->base) : 0;
	struct __kernel_timespec timeout;
	struct io_uring_cqe *cqe;

	if (until_ns == UINT64_MAX)
		return io_uring_submit_and_wait(ring, 1);
	if (until_ns > now) {
		timeout.tv_sec = (long long)((until_ns - now) / NS_PER_S);
		timeout.tv_nsec = (long long)((until_ns - now) % NS_PER_S);
		return io_uring_submit_and_wait_timeout(ring, &cqe, 1, &timeout, NULL);
	}
	if (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW))
		return io_uring_submit_and_get_events(ring);
	return io_uring_sq_ready(ring) ? io_uring_submit(ring) : 0;
}

static void collect(struct uring *uring)
{
	struct io_uring_cqe *cqe;
	unsigned head, count = 0;

	io_uring_for_each_cqe(&uring->ring, head, cqe)
	{
		uint64_t data = cqe->user_data;

		count++;
		if (data == USER_DATA_WAKE) {
			uring->is_wake_armed = false;
		} else if (data != USER_DATA_CANCEL) {
			struct loop_op *op = (struct loop_op *)(uintptr_t)data;

			if (op->flags & URING_OP_CANCELS) {
				op->flags &= (uint16_t)~URING_OP_CANCELS;
				cds_list_del(&op->link);
			}
			uring_op_complete(uring, op, cqe->res, cqe->flags);
		}
	}
	io_uring_cq_advance(&uring->ring, count);
}

/* The library has a call for it since 2.4 only (in 2.3 its header has, the library has not). */
static int enable(struct uring *uring)
{
	long rc = syscall(__NR_io_uring_register, uring->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS,
			  NULL, 0);

	if (rc < 0)
		return -errno;
	uring->is_enabled = true;
	return 0;
}

static int uring_wait(struct loop_backend *backend, uint64_t until_ns)
{
	struct uring *uring = uring_of(backend);
	int rc;

	if (!uring->is_enabled) {
		rc = enable(uring);
		if (rc < 0)
			return rc;
	}
	if (!uring->is_wake_armed)
		arm_wake(uring);
	push_queued(uring);
	/* What waits for a slot must not wait for an event. */
	if (!uring->is_wake_armed || !cds_list_empty(&uring->backlog) ||
	    !cds_list_empty(&uring->cancels))
		until_ns = 0;
	rc = enter(uring, until_ns);
	collect(uring);
	/* Busy and again: the completion queue was full, or memory is short; both pass. */
	if (rc < 0 && rc != -ETIME && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY)
		return rc;
	return 0;
}

static void uring_wake(struct loop_backend *backend)
{
	uint64_t one = 1;

	/* Cannot fail: the counter would have to be full. */
	(void)!write(uring_of(backend)->wake_fd, &one, sizeof(one));
}

static void uring_run_start(struct loop_backend *backend)
{
	/* Saves looking up the descriptor at each call; belongs to the thread. Not vital. */
	(void)io_uring_register_ring_fd(&uring_of(backend)->ring);
}

static void uring_run_stop(struct loop_backend *backend)
{
	(void)io_uring_unregister_ring_fd(&uring_of(backend)->ring);
}

/* ---- life ---- */

/* From the best to the oldest that will do; the first that the kernel takes. */
static const unsigned setup_flags[] = {
	IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN |
		IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,			 /* 6.1 */
	IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL, /* 5.19 */
	0,
};

#define FEATURES_NEEDED                                                           \
	(IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_FAST_POLL | \
	 IORING_FEAT_EXT_ARG)

static int explain(int rc, struct error *err)
{
	switch (rc) {
	case -EPERM:
	case -EACCES:
		return error_set(
			err, rc,
			"io_uring is forbidden here: set the sysctl kernel.io_uring_disabled "
			"to 0, or allow io_uring_setup, io_uring_enter and io_uring_register "
			"in the container's seccomp profile");
	case -ENOSYS:
		return error_set(
			err, rc,
			"this kernel has no io_uring, or a seccomp profile hides it: use Linux "
			"5.11 or later and allow io_uring_setup, io_uring_enter and "
			"io_uring_register");
	case -ENOMEM:
		return error_set(err, rc,
				 "no memory for an io_uring: raise the limit of locked memory "
				 "(ulimit -l, LimitMEMLOCK=)");
	default:
		return error_set(err, rc, "io_uring_setup");
	}
}

static int make_ring(struct uring *uring, struct error *err)
{
	int rc = -EINVAL;

	for (unsigned i = 0; i < ARRAY_COUNT(setup_flags) && rc == -EINVAL; i++) {
		struct io_uring_params params = {
			.flags = setup_flags[i] | IORING_SETUP_CQSIZE | IORING_SETUP_R_DISABLED,
			.cq_entries = CQ_ENTRIES,
		};

		rc = io_uring_queue_init_params(SQ_ENTRIES, &uring->ring, &params);
		uring->can_poll_first = setup_flags[i] & IORING_SETUP_COOP_TASKRUN;
	}
	return rc < 0 ? explain(rc, err) : 0;
}

static int check_ring(struct io_uring *ring, struct error *err)
{
	struct io_uring_probe *probe;
	int rc = 0;

	if ((ring->features & FEATURES_NEEDED) != FEATURES_NEEDED)
		return error_set(err, -ENOTSUP,
				 "io_uring of this kernel is too old (features 0x%x, needed 0x%x): "
				 "use Linux 5.11 or later",
				 ring->features, FEATURES_NEEDED);
	probe = io_uring_get_probe_ring(ring);
	if (!probe)
		return error_set(err, -ENOTSUP,
				 "io_uring of this kernel cannot be probed: a seccomp profile may "
				 "forbid io_uring_register");
	for (const struct uring_need *need = uring_needs; need->name && rc == 0; need++)
		if (!io_uring_opcode_supported(probe, need->opcode))
			rc = error_set(err, -ENOTSUP,
				       "io_uring of this kernel lacks %s: use Linux 5.11 or later",
				       need->name);
	io_uring_free_probe(probe);
	return rc;
}

static void uring_free(struct loop_backend *backend)
{
	struct uring *uring = uring_of(backend);

	io_uring_queue_exit(&uring->ring);
	(void)close(uring->wake_fd);
	free(uring->headers);
	free(uring);
}

static const struct loop_backend_ops uring_ops = {
	.name = "io_uring",
	.free = uring_free,
	.run_start = uring_run_start,
	.run_stop = uring_run_stop,
	.wait = uring_wait,
	.has_events = uring_has_events,
	.wake = uring_wake,
	.submit = uring_submit,
	.cancel = uring_cancel,
	.listen = posix_listen,
	POSIX_BACKEND_OPS,
};

int uring_new(struct loop_backend **out, struct error *err)
{
	struct uring *uring = calloc(1, sizeof(*uring));
	int rc;

	if (!uring)
		return error_set(err, -ENOMEM, "loop");
	uring->base.ops = &uring_ops;
	CDS_INIT_LIST_HEAD(&uring->backlog);
	CDS_INIT_LIST_HEAD(&uring->cancels);
	rc = make_ring(uring, err);
	if (rc < 0)
		goto fail;
	rc = check_ring(&uring->ring, err);
	if (rc < 0)
		goto fail_ring;
	uring->wake_fd = eventfd(0, EFD_CLOEXEC);
	uring->headers = calloc(uring->ring.sq.ring_entries, sizeof(*uring->headers));
	if (uring->wake_fd >= 0 && uring->headers) {
		*out = &uring->base;
		return 0;
	}
	rc = error_set(err, uring->headers ? -errno : -ENOMEM, "eventfd of a loop");
	if (uring->wake_fd >= 0)
		(void)close(uring->wake_fd);
	free(uring->headers);
fail_ring:
	io_uring_queue_exit(&uring->ring);
fail:
	free(uring);
	return rc;
}
