/*
 * Operations and the rules about handles, the same for every back end.
 *
 * A socket knows its recv and its send in flight, a listener its accepts, from
 * submission until delivery. A close asks for their cancelling and marks the
 * handle; whatever the back end then says, they deliver -ECANCELED, and the
 * last one to do so frees the handle. So the descriptor is closed only when
 * the kernel holds nothing, and an owner never has to ask which came first.
 */
#include <limits.h>

#include "lib/base/assert.h"
#include "lib/loop/loop_priv.h"

static void op_begin(struct loop *loop, struct loop_op *op, enum loop_op_kind kind, void *target)
{
	assert(op->state == LOOP_OP_IDLE && op->done);
	op->loop = loop;
	op->kind = (uint8_t)kind;
	op->state = LOOP_OP_SUBMITTED;
	op->flags = 0;
	op->result = 0;
	op->target = target;
	op->out.file = NULL;
	loop->ops_busy++;
}

static void op_submit(struct loop *loop, struct loop_op *op)
{
	loop->ops->submit(loop->backend, op);
}

/* Fill in what a transfer moves. False: it has ended already. */
static bool op_set_iov(struct loop_op *op, const struct iovec *iov, unsigned count)
{
	uint64_t length = 0;

	for (unsigned i = 0; i < count; i++)
		length += iov[i].iov_len;
	op->iov = iov;
	op->iov_count = count;
	op->length = length;
	if (length > 0 && length <= INT_MAX)
		return true;
	/* A recv of nothing could not be told from the end of the stream. */
	loop_op_finish(op, length || op->kind == LOOP_OP_RECV ? -EINVAL : 0);
	return false;
}

bool loop_op_is_busy(const struct loop_op *op)
{
	return op->state != LOOP_OP_IDLE;
}

void loop_cancel(struct loop *loop, struct loop_op *op)
{
	if (op->state != LOOP_OP_SUBMITTED || (op->flags & LOOP_OP_CANCEL_ASKED))
		return;
	op->flags |= LOOP_OP_CANCEL_ASKED;
	loop->ops->cancel(loop->backend, op);
}

void loop_complete(struct loop *loop, struct loop_op *op, int result)
{
	op_begin(loop, op, LOOP_OP_NONE, NULL);
	loop_op_finish(op, result);
}

/* ---- delivery ---- */

static void socket_free_if_idle(struct loop_socket *socket)
{
	struct loop *loop = socket->loop;

	if (socket->is_closing && !socket->recv && !socket->send)
		loop->ops->socket_free(loop->backend, socket);
}

static int settle_socket(struct loop_op *op)
{
	struct loop_socket *socket = op->target;
	struct loop *loop = socket->loop;
	bool is_closing = socket->is_closing;

	if (op->kind == LOOP_OP_RECV) {
		socket->recv = NULL;
	} else {
		socket->send = NULL;
		if (socket->shut_after_send && !is_closing)
			loop->ops->socket_shutdown(loop->backend, socket, LOOP_SHUTDOWN_WRITE);
	}
	socket_free_if_idle(socket);
	return is_closing ? -ECANCELED : op->result;
}

static int settle_accept(struct loop_op *op)
{
	struct loop_listener *listener = op->target;
	struct loop *loop = listener->loop;
	struct loop_op **at = &listener->accepts;

	while (*at != op)
		at = &(*at)->next;
	*at = op->next;
	if (!listener->is_closing)
		return op->result;
	if (op->out.socket) {
		loop->ops->socket_free(loop->backend, op->out.socket);
		op->out.socket = NULL;
	}
	if (!listener->accepts)
		loop->ops->listener_free(loop->backend, listener);
	return -ECANCELED;
}

void op_deliver(struct loop *loop, struct loop_op *op)
{
	int result = op->result;

	assert(op->state == LOOP_OP_READY);
	if (op->kind == LOOP_OP_RECV || op->kind == LOOP_OP_SEND)
		result = settle_socket(op);
	else if (op->kind == LOOP_OP_ACCEPT)
		result = settle_accept(op);
	op->state = LOOP_OP_IDLE;
	loop->ops_busy--;
	op->done(op, result);
}

/* ---- files ---- */

void loop_file_open(struct loop *loop, struct loop_op *op, const char *path, unsigned flags)
{
	op_begin(loop, op, LOOP_OP_OPEN, NULL);
	op->path = path;
	op->length = flags;
	op_submit(loop, op);
}

void loop_file_read(struct loop *loop, struct loop_op *op, struct loop_file *file,
		    const struct iovec *iov, unsigned count, uint64_t offset)
{
	op_begin(loop, op, LOOP_OP_READ, file);
	op->offset = offset;
	if (op_set_iov(op, iov, count))
		op_submit(loop, op);
}

void loop_file_write(struct loop *loop, struct loop_op *op, struct loop_file *file,
		     const struct iovec *iov, unsigned count, uint64_t offset)
{
	op_begin(loop, op, LOOP_OP_WRITE, file);
	op->offset = offset;
	if (op_set_iov(op, iov, count))
		op_submit(loop, op);
}

void loop_file_sync(struct loop *loop, struct loop_op *op, struct loop_file *file)
{
	op_begin(loop, op, LOOP_OP_SYNC, file);
	op->length = 0;
	op_submit(loop, op);
}

void loop_file_sync_all(struct loop *loop, struct loop_op *op, struct loop_file *file)
{
	op_begin(loop, op, LOOP_OP_SYNC, file);
	op->length = 1;
	op_submit(loop, op);
}

void loop_file_allocate(struct loop *loop, struct loop_op *op, struct loop_file *file,
			uint64_t offset, uint64_t length)
{
	op_begin(loop, op, LOOP_OP_ALLOCATE, file);
	op->offset = offset;
	op->length = length;
	op_submit(loop, op);
}

void loop_file_unlink(struct loop *loop, struct loop_op *op, const char *path)
{
	op_begin(loop, op, LOOP_OP_UNLINK, NULL);
	op->path = path;
	op_submit(loop, op);
}

void loop_file_close(struct loop *loop, struct loop_file *file)
{
	if (file)
		loop->ops->file_close(loop->backend, file);
}

bool loop_file_is_direct(const struct loop_file *file)
{
	return file->is_direct;
}

/* ---- sockets ---- */

int loop_listen(struct loop *loop, const char *address, struct loop_listener **out,
		struct error *err)
{
	int rc = loop_address_check(address, err);

	if (rc == 0)
		rc = loop->ops->listen(loop->backend, address, out, err);
	if (rc == 0)
		(*out)->loop = loop;
	return rc;
}

const char *loop_listener_address(const struct loop_listener *listener)
{
	return listener->address;
}

void loop_accept(struct loop *loop, struct loop_op *op, struct loop_listener *listener)
{
	assert(listener->loop == loop && !listener->is_closing);
	op_begin(loop, op, LOOP_OP_ACCEPT, listener);
	op->next = listener->accepts;
	listener->accepts = op;
	op_submit(loop, op);
}

void loop_listener_close(struct loop *loop, struct loop_listener *listener)
{
	if (!listener)
		return;
	assert(!listener->is_closing);
	listener->is_closing = true;
	for (struct loop_op *op = listener->accepts; op; op = op->next)
		loop_cancel(loop, op);
	loop->ops->listener_close(loop->backend, listener);
	if (!listener->accepts)
		loop->ops->listener_free(loop->backend, listener);
}

void loop_connect(struct loop *loop, struct loop_op *op, const char *address)
{
	op_begin(loop, op, LOOP_OP_CONNECT, NULL);
	op->path = address;
	if (loop_address_check(address, NULL) < 0)
		loop_op_finish(op, -EINVAL);
	else
		op_submit(loop, op);
}

void loop_recv(struct loop *loop, struct loop_op *op, struct loop_socket *socket,
	       const struct iovec *iov, unsigned count)
{
	assert(socket->loop == loop && !socket->recv && !socket->is_closing);
	op_begin(loop, op, LOOP_OP_RECV, socket);
	socket->recv = op;
	if (op_set_iov(op, iov, count))
		op_submit(loop, op);
}

void loop_send(struct loop *loop, struct loop_op *op, struct loop_socket *socket,
	       const struct iovec *iov, unsigned count)
{
	assert(socket->loop == loop && !socket->send && !socket->is_closing);
	op_begin(loop, op, LOOP_OP_SEND, socket);
	socket->send = op;
	if (op_set_iov(op, iov, count))
		op_submit(loop, op);
}

void loop_socket_shutdown(struct loop *loop, struct loop_socket *socket, bool both)
{
	assert(socket->loop == loop && !socket->is_closing);
	if (both)
		loop->ops->socket_shutdown(loop->backend, socket, LOOP_SHUTDOWN_BOTH);
	else if (socket->send)
		socket->shut_after_send = true;
	else
		loop->ops->socket_shutdown(loop->backend, socket, LOOP_SHUTDOWN_WRITE);
}

void loop_socket_close(struct loop *loop, struct loop_socket *socket)
{
	if (!socket)
		return;
	assert(socket->loop == loop && !socket->is_closing);
	socket->is_closing = true;
	if (socket->recv)
		loop_cancel(loop, socket->recv);
	if (socket->send)
		loop_cancel(loop, socket->send);
	if (socket->recv || socket->send) /* the peer need not wait for our next turn */
		loop->ops->socket_shutdown(loop->backend, socket, LOOP_SHUTDOWN_BOTH);
	socket_free_if_idle(socket);
}

struct loop_socket *loop_socket_detach(struct loop *loop, struct loop_socket *socket)
{
	assert(socket->loop == loop && !socket->recv && !socket->send && !socket->is_closing);
	if (loop->ops->socket_detach)
		loop->ops->socket_detach(loop->backend, socket);
	socket->loop = NULL;
	return socket;
}

void loop_socket_attach(struct loop *loop, struct loop_socket *socket)
{
	assert(!socket->loop);
	socket->loop = loop;
}

const char *loop_socket_peer(const struct loop_socket *socket)
{
	return socket->peer;
}

int loop_socket_pair(struct loop *loop, struct loop_socket **a, struct loop_socket **b)
{
	int rc = loop->ops->socket_pair(loop->backend, a, b);

	if (rc == 0)
		(*a)->loop = (*b)->loop = loop;
	return rc;
}

/* ---- descriptors of others ---- */

void loop_poll(struct loop *loop, struct loop_op *op, int fd, unsigned events)
{
	op_begin(loop, op, LOOP_OP_POLL, NULL);
	op->fd = fd;
	op->length = events;
	op_submit(loop, op);
}
