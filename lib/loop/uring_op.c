/*
 * What each kind of op is to io_uring: how it is prepared, and what its result
 * means. Transfers go on until they are whole (sends, writes), or nothing more
 * comes (reads); op->result holds what has been moved so far.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "lib/loop/loop_priv.h"
#include "lib/loop/uring.h"

const struct uring_need uring_needs[] = {
	{IORING_OP_READV, "READV"},
	{IORING_OP_WRITEV, "WRITEV"},
	{IORING_OP_READ, "READ"},
	{IORING_OP_WRITE, "WRITE"},
	{IORING_OP_FSYNC, "FSYNC"},
	{IORING_OP_FALLOCATE, "FALLOCATE"},
	{IORING_OP_OPENAT, "OPENAT"},
	{IORING_OP_UNLINKAT, "UNLINKAT"},
	{IORING_OP_ACCEPT, "ACCEPT"},
	{IORING_OP_CONNECT, "CONNECT"},
	{IORING_OP_SEND, "SEND"},
	{IORING_OP_RECV, "RECV"},
	{IORING_OP_SENDMSG, "SENDMSG"},
	{IORING_OP_RECVMSG, "RECVMSG"},
	{IORING_OP_POLL_ADD, "POLL"},
	{IORING_OP_ASYNC_CANCEL, "ASYNC_CANCEL"},
	{0, NULL},
};

static void finish(struct loop_op *op, int result)
{
	/* A kernel thread that is told to stop says that it was interrupted. */
	if (result == -EINTR && (op->flags & LOOP_OP_CANCEL_ASKED))
		result = -ECANCELED;
	loop_op_finish(op, result);
}

static void submit_again(struct uring *uring, struct loop_op *op)
{
	if (op->flags & LOOP_OP_CANCEL_ASKED)
		loop_op_finish(op, -ECANCELED);
	else
		uring_push(uring, op);
}

static bool is_passing(int result)
{
	return result == -EINTR || result == -EAGAIN;
}

/* An op without progress: done, or once more. */
static bool go_again(struct uring *uring, struct loop_op *op, int result)
{
	if (!is_passing(result))
		return false;
	if (result == -EAGAIN)
		op->flags |= URING_OP_AGAIN;
	submit_again(uring, op);
	return true;
}

/* ---- transfers ---- */

static void prepare_file(struct uring *uring, struct loop_op *op, struct io_uring_sqe *sqe)
{
	int fd = posix_file_fd(op->target);
	uint64_t offset = op->offset + (uint64_t)op->result;
	const struct iovec *iov;
	struct iovec single;
	unsigned count = posix_transfer_rest(op, &iov, &single);
	bool is_read = op->kind == LOOP_OP_READ;

	if (count == 1)
		io_uring_prep_rw(is_read ? IORING_OP_READ : IORING_OP_WRITE, sqe, fd, iov->iov_base,
				 (unsigned)iov->iov_len, offset);
	else
		io_uring_prep_rw(is_read ? IORING_OP_READV : IORING_OP_WRITEV, sqe, fd, iov, count,
				 offset);
	if (op->flags & URING_OP_AGAIN)
		sqe->flags |= IOSQE_ASYNC;
}

static void prepare_stream(struct uring *uring, struct loop_op *op, struct io_uring_sqe *sqe)
{
	struct posix_socket *socket = op->target;
	const struct iovec *iov;
	struct iovec single;
	unsigned count = posix_transfer_rest(op, &iov, &single);
	bool is_recv = op->kind == LOOP_OP_RECV;

	if (count == 1) {
		io_uring_prep_rw(is_recv ? IORING_OP_RECV : IORING_OP_SEND, sqe, socket->fd,
				 iov->iov_base, (unsigned)iov->iov_len, 0);
	} else {
		/* The kernel has read it when it has taken the entry (FEAT_SUBMIT_STABLE). */
		struct msghdr *header = &uring->headers[sqe - uring->ring.sq.sqes];

		*header = (struct msghdr){.msg_iov = (struct iovec *)iov, .msg_iovlen = count};
		io_uring_prep_rw(is_recv ? IORING_OP_RECVMSG : IORING_OP_SENDMSG, sqe, socket->fd,
				 header, 1, 0);
	}
	if (!is_recv)
		sqe->msg_flags = MSG_NOSIGNAL | MSG_WAITALL;
	else if (!socket->has_more && uring->can_poll_first)
		sqe->ioprio |= IORING_RECVSEND_POLL_FIRST; /* spare the vain look */
}

static void complete_read(struct uring *uring, struct loop_op *op, int result, unsigned flags)
{
	if (result < 0) {
		if (!go_again(uring, op, result))
			finish(op, result);
		return;
	}
	op->result += result;
	if (result == 0 || posix_read_is_whole(op))
		finish(op, op->result);
	else
		submit_again(uring, op);
}

/* Writes and sends: whole or an error. */
static void complete_whole(struct uring *uring, struct loop_op *op, int result, unsigned flags)
{
	if (result <= 0) {
		if (!go_again(uring, op, result))
			finish(op, result ? result : -EIO);
		return;
	}
	op->result += result;
	if ((uint64_t)op->result == op->length)
		finish(op, op->result);
	else
		submit_again(uring, op);
}

static void complete_recv(struct uring *uring, struct loop_op *op, int result, unsigned flags)
{
	struct posix_socket *socket = op->target;

	socket->has_more = (flags & IORING_CQE_F_SOCK_NONEMPTY) ||
			   (result > 0 && (uint64_t)result == op->length);
	if (!is_passing(result))
		finish(op, result);
	else
		submit_again(uring, op);
}

/* ---- files ---- */

static void prepare_open(struct uring *uring, struct loop_op *op, struct io_uring_sqe *sqe)
{
	unsigned flags = (unsigned)op->length;

	/* The file system may have made the file before it refused O_DIRECT. */
	if (op->flags & URING_OP_PLAIN)
		flags &= ~(unsigned)(LOOP_FILE_DIRECT | LOOP_FILE_EXCLUSIVE);
	io_uring_prep_openat(sqe, AT_FDCWD, op->path, posix_open_flags(flags), POSIX_OPEN_MODE);
}

static void complete_open(struct uring *uring, struct loop_op *op, int result, unsigned flags)
{
	bool is_direct = (op->length & LOOP_FILE_DIRECT) && !(op->flags & URING_OP_PLAIN);

	if (go_again(uring, op, result))
		return;
	if (result == -EINVAL && is_direct) {
		op->flags |= URING_OP_PLAIN;
		submit_again(uring, op);
		return;
	}
	if (result >= 0)
		result = posix_file_new(result, is_direct, &op->out.file);
	finish(op, result);
}

static void prepare_sync(struct uring *uring, struct loop_op *op, struct io_uring_sqe *sqe)
{
	io_uring_prep_fsync(sqe, posix_file_fd(op->target), op->length ? 0 : IORING_FSYNC_DATASYNC);
}

static void prepare_allocate(struct uring *uring, struct loop_op *op, struct io_uring_sqe *sqe)
{
	io_uring_prep_rw(IORING_OP_FALLOCATE, sqe, posix_file_fd(op->target),
			 (void *)(uintptr_t)op->length, 0, op->offset);
}

static void prepare_unlink(struct uring *uring, struct loop_op *op, struct io_uring_sqe *sqe)
{
	io_uring_prep_unlink(sqe, op->path, 0);
}

static void complete_plain(struct uring *uring, struct loop_op *op, int result, unsigned flags)
{
	if (!go_again(uring, op, result))
		finish(op, result);
}

/* ---- connections ---- */

static void prepare_accept(struct uring *uring, struct loop_op *op, struct io_uring_sqe *sqe)
{
	io_uring_prep_accept(sqe, posix_listener_fd(op->target), NULL, NULL, SOCK_CLOEXEC);
}

static void complete_accept(struct uring *uring, struct loop_op *op, int result, unsigned flags)
{
	struct loop_listener *listener = op->target;

	if (listener->is_closing && result < 0)
		result = -ECANCELED;
	/* A client that left before it was accepted is not our listener's trouble. */
	if (result == -ECONNABORTED || is_passing(result)) {
		submit_again(uring, op);
		return;
	}
	if (result >= 0)
		result = posix_socket_new(result, &op->out.socket);
	if (result == 0) {
		op->out.socket->loop = op->loop;
		posix_socket_accepted(op->out.socket);
	}
	finish(op, result);
}

static bool begin_connect(struct loop_op *op)
{
	struct loop_socket *socket = NULL;
	struct address *address = malloc(sizeof(*address));
	int rc = address ? address_parse(op->path, address, NULL) : -ENOMEM;

	if (rc == 0)
		rc = posix_socket_open(address, op->path, &socket);
	if (rc < 0) {
		free(address);
		finish(op, rc);
		return false;
	}
	socket->loop = op->loop;
	op->target = socket;
	op->backend = address; /* lives until the kernel is done */
	return true;
}

static void prepare_connect(struct uring *uring, struct loop_op *op, struct io_uring_sqe *sqe)
{
	struct address *address = op->backend;

	io_uring_prep_connect(sqe, posix_socket_fd(op->target),
			      (struct sockaddr *)&address->storage, address->length);
}

static void complete_connect(struct uring *uring, struct loop_op *op, int result, unsigned flags)
{
	struct loop_socket *socket = op->target;

	free(op->backend);
	if (result == 0)
		result = posix_socket_connected(socket);
	if (result == 0)
		op->out.socket = socket;
	else
		posix_socket_free(&uring->base, socket);
	finish(op, result);
}

static void prepare_poll(struct uring *uring, struct loop_op *op, struct io_uring_sqe *sqe)
{
	io_uring_prep_poll_add(sqe, op->fd, (unsigned)op->length);
}

/* ---- the table ---- */

static const struct {
	bool (*begin)(struct loop_op *op); /* may be NULL */
	void (*prepare)(struct uring *uring, struct loop_op *op, struct io_uring_sqe *sqe);
	void (*complete)(struct uring *uring, struct loop_op *op, int result, unsigned flags);
} kinds[LOOP_OP_KINDS] = {
	[LOOP_OP_OPEN] = {NULL, prepare_open, complete_open},
	[LOOP_OP_READ] = {NULL, prepare_file, complete_read},
	[LOOP_OP_WRITE] = {NULL, prepare_file, complete_whole},
	[LOOP_OP_SYNC] = {NULL, prepare_sync, complete_plain},
	[LOOP_OP_ALLOCATE] = {NULL, prepare_allocate, complete_plain},
	[LOOP_OP_UNLINK] = {NULL, prepare_unlink, complete_plain},
	[LOOP_OP_ACCEPT] = {NULL, prepare_accept, complete_accept},
	[LOOP_OP_CONNECT] = {begin_connect, prepare_connect, complete_connect},
	[LOOP_OP_RECV] = {NULL, prepare_stream, complete_recv},
	[LOOP_OP_SEND] = {NULL, prepare_stream, complete_whole},
	[LOOP_OP_POLL] = {NULL, prepare_poll, complete_plain},
};

bool uring_op_begin(struct loop_op *op)
{
	return !kinds[op->kind].begin || kinds[op->kind].begin(op);
}

void uring_op_prepare(struct uring *uring, struct loop_op *op, struct io_uring_sqe *sqe)
{
	kinds[op->kind].prepare(uring, op, sqe);
}

void uring_op_complete(struct uring *uring, struct loop_op *op, int result, unsigned flags)
{
	assert(op->state == LOOP_OP_SUBMITTED);
	kinds[op->kind].complete(uring, op, result, flags);
}
