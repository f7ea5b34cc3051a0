/*
 * What each kind of op is to epoll: tried at once, and again when an event says that it may go on.
 * op->result holds what a send has moved so far.
 */
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "lib/loop/epoll.h"

static bool is_pending(const struct loop_op *op, enum loop_op_kind kind)
{
	return op && op->state == LOOP_OP_SUBMITTED && op->kind == kind;
}

static bool would_block(int error)
{
	return error == EAGAIN || error == EWOULDBLOCK;
}

/* ---- streams ---- */

/* Edges are told from here on; the first at once when there is something already. */
static int watch_socket(struct epoll *epoll, struct posix_socket *socket)
{
	int rc = socket->is_watched ? 0
				    : epoll_watch(epoll, socket->fd, EPOLL_SOCKET, socket,
						  EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);

	if (rc == 0)
		socket->is_watched = true;
	return rc;
}

static void try_recv(struct posix_socket *socket, struct loop_op *op)
{
	const struct iovec *iov;
	struct iovec single;
	unsigned count = posix_transfer_rest(op, &iov, &single);
	struct msghdr header = {.msg_iov = (struct iovec *)iov, .msg_iovlen = count};
	ssize_t n;

	do
		n = recvmsg(socket->fd, &header, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && would_block(errno)) {
		socket->has_more = false;
		return;
	}
	/* Less than we asked for: it is empty, and the next byte makes an edge; its end has made one. */
	socket->has_more =
		socket->is_hung || n < 0 || (uint64_t)n == op->length || count < op->iov_count;
	loop_op_finish(op, n < 0 ? -errno : (int)n);
}

static void try_send(struct posix_socket *socket, struct loop_op *op)
{
	while ((uint64_t)op->result < op->length) {
		const struct iovec *iov;
		struct iovec single;
		unsigned count = posix_transfer_rest(op, &iov, &single);
		struct msghdr header = {.msg_iov = (struct iovec *)iov, .msg_iovlen = count};
		ssize_t n = sendmsg(socket->fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && would_block(errno))
			return;
		if (n <= 0) {
			loop_op_finish(op, n ? -errno : -EIO);
			return;
		}
		op->result += (int)n;
	}
	loop_op_finish(op, op->result);
}

static void submit_recv(struct epoll *epoll, struct loop_op *op)
{
	struct posix_socket *socket = op->target;
	int rc = watch_socket(epoll, socket);

	if (rc < 0)
		loop_op_finish(op, rc);
	else if (socket->has_more)
		try_recv(socket, op);
}

static void submit_send(struct epoll *epoll, struct loop_op *op)
{
	struct posix_socket *socket = op->target;
	int rc = watch_socket(epoll, socket);

	if (rc < 0)
		loop_op_finish(op, rc);
	else
		try_send(socket, op);
}

/* ---- connections ---- */

static void end_connect(struct epoll *epoll, struct loop_op *op, int result)
{
	struct posix_socket *socket = op->target;

	socket->connect = NULL;
	if (result == 0)
		result = posix_socket_connected(&socket->base);
	if (result == 0)
		op->out.socket = &socket->base;
	else
		posix_socket_free(&epoll->base, &socket->base);
	loop_op_finish(op, result);
}

static void submit_connect(struct epoll *epoll, struct loop_op *op)
{
	struct loop_socket *base = NULL;
	struct posix_socket *socket;
	struct address address;
	int rc = address_parse(op->path, &address, NULL);

	if (rc == 0)
		rc = posix_socket_open(&address, op->path, &base);
	if (rc < 0) {
		loop_op_finish(op, rc);
		return;
	}
	base->loop = op->loop;
	op->target = base;
	socket = (struct posix_socket *)base;
	posix_set_nonblocking(socket->fd);
	rc = connect(socket->fd, (struct sockaddr *)&address.storage, address.length) < 0 ? -errno
											  : 0;
	if (rc != -EINPROGRESS) {
		end_connect(epoll, op, rc);
		return;
	}
	socket->connect = op;
	rc = watch_socket(epoll, socket);
	if (rc < 0)
		end_connect(epoll, op, rc);
}

static int connect_result(int fd)
{
	int error = 0;
	socklen_t length = sizeof(error);

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0 ? -errno : -error;
}

void epoll_socket_event(struct epoll *epoll, struct posix_socket *socket, uint32_t events)
{
	if (socket->connect) {
		if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
			end_connect(epoll, socket->connect, connect_result(socket->fd));
		return; /* it may be gone; who gets it tries before he waits */
	}
	if (events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP))
		socket->is_hung = true;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)) {
		socket->has_more = true;
		if (is_pending(socket->base.recv, LOOP_OP_RECV))
			try_recv(socket, socket->base.recv);
	}
	if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) &&
	    is_pending(socket->base.send, LOOP_OP_SEND))
		try_send(socket, socket->base.send);
}

void epoll_socket_detach(struct loop_backend *backend, struct loop_socket *base)
{
	struct posix_socket *socket = (struct posix_socket *)base;

	if (socket->is_watched)
		(void)epoll_ctl(epoll_of(backend)->fd, EPOLL_CTL_DEL, socket->fd, NULL);
	socket->is_watched = false;
	socket->has_more = true;
}

/* ---- listeners ---- */

/* False: nobody is there. */
static bool try_accept(struct posix_listener *listener, struct loop_op *op)
{
	int fd;

	/* A client that left before it was accepted is not our listener's trouble. */
	do
		fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
	while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
	if (fd < 0 && would_block(errno))
		return false;
	int rc = fd < 0 ? -errno : posix_socket_new(fd, &op->out.socket);
	if (rc == 0) {
		op->out.socket->loop = op->loop;
		posix_socket_accepted(op->out.socket);
	}
	loop_op_finish(op, rc);
	return true;
}

static void submit_accept(struct epoll *epoll, struct loop_op *op)
{
	struct posix_listener *listener = op->target;
	int rc = listener->is_watched ? 0
				      : epoll_watch(epoll, listener->fd, EPOLL_LISTENER, listener,
						    EPOLLIN | EPOLLET);

	listener->is_watched = rc == 0;
	if (rc < 0)
		loop_op_finish(op, rc);
	else
		(void)try_accept(listener, op);
}

void epoll_listener_event(struct posix_listener *listener)
{
	for (struct loop_op *op = listener->base.accepts; op; op = op->next)
		if (is_pending(op, LOOP_OP_ACCEPT) && !try_accept(listener, op))
			return;
}

/* ---- descriptors of others ---- */

static uint32_t events_wanted(const struct epoll_guest *guest)
{
	struct loop_op *op;
	uint32_t events = 0;

	cds_list_for_each_entry(op, &guest->ops, link)
		events |= (uint32_t)op->length;
	return events;
}

/* Watch for what is still wanted, or no more. */
static void guest_renew(struct epoll *epoll, struct epoll_guest *guest)
{
	struct epoll_event event = {
		.events = events_wanted(guest),
		.data.u64 = (uint64_t)(uintptr_t)guest | EPOLL_GUEST,
	};

	if (!cds_list_empty(&guest->ops)) {
		(void)epoll_ctl(epoll->fd, EPOLL_CTL_MOD, guest->fd, &event);
		return;
	}
	(void)epoll_ctl(epoll->fd, EPOLL_CTL_DEL, guest->fd, NULL);
	HASH_DEL(epoll->guests, guest);
	free(guest);
}

static void submit_poll(struct epoll *epoll, struct loop_op *op)
{
	struct epoll_guest *guest;
	int rc;

	HASH_FIND_INT(epoll->guests, &op->fd, guest);
	if (guest) {
		cds_list_add_tail(&op->link, &guest->ops);
		guest_renew(epoll, guest);
		return;
	}
	guest = calloc(1, sizeof(*guest));
	rc = guest ? epoll_watch(epoll, op->fd, EPOLL_GUEST, guest, (uint32_t)op->length) : -ENOMEM;
	if (rc < 0) {
		free(guest);
		loop_op_finish(op, rc);
		return;
	}
	guest->fd = op->fd;
	CDS_INIT_LIST_HEAD(&guest->ops);
	cds_list_add_tail(&op->link, &guest->ops);
	HASH_ADD_INT(epoll->guests, fd, guest);
}

void epoll_guest_event(struct epoll *epoll, struct epoll_guest *guest, uint32_t events)
{
	struct loop_op *op, *next;

	cds_list_for_each_entry_safe(op, next, &guest->ops, link) {
		uint32_t seen = events & ((uint32_t)op->length | EPOLLERR | EPOLLHUP);

		if (!seen)
			continue;
		cds_list_del(&op->link);
		loop_op_finish(op, (int)seen);
	}
	guest_renew(epoll, guest);
}

static void cancel_poll(struct epoll *epoll, struct loop_op *op)
{
	struct epoll_guest *guest;

	HASH_FIND_INT(epoll->guests, &op->fd, guest);
	assert(guest);
	cds_list_del(&op->link);
	guest_renew(epoll, guest);
}

/* epoll has the same numbers as poll(2). */
_Static_assert(EPOLLIN == POLLIN && EPOLLOUT == POLLOUT && EPOLLERR == POLLERR &&
		       EPOLLHUP == POLLHUP && EPOLLPRI == POLLPRI,
	       "events of poll(2) are passed on as they are");

/* ---- the seam ---- */

static void (*const submits[LOOP_OP_KINDS])(struct epoll *epoll, struct loop_op *op) = {
	[LOOP_OP_ACCEPT] = submit_accept, [LOOP_OP_CONNECT] = submit_connect,
	[LOOP_OP_RECV] = submit_recv,	  [LOOP_OP_SEND] = submit_send,
	[LOOP_OP_POLL] = submit_poll,
};

void epoll_op_submit(struct loop_backend *backend, struct loop_op *op)
{
	struct epoll *epoll = epoll_of(backend);

	if (workers_can(op))
		workers_push(epoll->workers, op);
	else
		submits[op->kind](epoll, op);
}

/* What waits for an event ends at once; what a worker has begun ends by itself. */
void epoll_op_cancel(struct loop_backend *backend, struct loop_op *op)
{
	struct epoll *epoll = epoll_of(backend);

	if (workers_can(op) && !workers_cancel(epoll->workers, op))
		return;
	if (op->kind == LOOP_OP_CONNECT) {
		end_connect(epoll, op, -ECANCELED);
		return;
	}
	if (op->kind == LOOP_OP_POLL)
		cancel_poll(epoll, op);
	loop_op_finish(op, -ECANCELED);
}
