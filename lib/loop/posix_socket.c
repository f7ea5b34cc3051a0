/*
 * Sockets of the real kernel: handles, listening, and the calls that do not
 * wait. Descriptors stay blocking for io_uring, which waits by itself; epoll
 * sets O_NONBLOCK where a call has no flag for it.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/base/text.h"
#include "lib/loop/posix.h"

#define LISTEN_BACKLOG 1024 /* the kernel lowers it to net.core.somaxconn */

static void set_option(int fd, int level, int option)
{
	int one = 1;

	(void)setsockopt(fd, level, option, &one, sizeof(one));
}

void posix_set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	(void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

int posix_socket_new(int fd, struct loop_socket **out)
{
	struct posix_socket *socket = calloc(1, sizeof(*socket));

	if (!socket) {
		(void)close(fd);
		return -ENOMEM;
	}
	socket->fd = fd;
	socket->has_more = true;
	*out = &socket->base;
	return 0;
}

int posix_socket_open(const struct address *address, const char *text, struct loop_socket **out)
{
	int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int rc;

	if (fd < 0)
		return -errno;
	if (address->storage.ss_family != AF_UNIX)
		set_option(fd, IPPROTO_TCP, TCP_NODELAY);
	rc = posix_socket_new(fd, out);
	if (rc == 0)
		(void)text_copy((*out)->peer, sizeof((*out)->peer), text);
	return rc;
}

void posix_socket_accepted(struct loop_socket *socket)
{
	int fd = posix_socket_fd(socket);
	struct address peer = {.length = sizeof(peer.storage)};
	struct ucred ucred;
	socklen_t length = sizeof(ucred);

	if (getpeername(fd, (struct sockaddr *)&peer.storage, &peer.length) < 0) {
		(void)text_copy(socket->peer, sizeof(socket->peer), "gone");
		return;
	}
	if (peer.storage.ss_family != AF_UNIX) {
		set_option(fd, IPPROTO_TCP, TCP_NODELAY);
		address_format(&peer, socket->peer);
	} else if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &ucred, &length) == 0) {
		(void)snprintf(socket->peer, sizeof(socket->peer), "unix:pid=%d,uid=%u",
			       (int)ucred.pid, (unsigned)ucred.uid);
	} else {
		(void)text_copy(socket->peer, sizeof(socket->peer), "unix:");
	}
}

/*
 * Dialling a free port of the ephemeral range on this machine can pick that
 * very port as its own end and so connect to itself; nobody could listen there.
 */
int posix_socket_connected(struct loop_socket *socket)
{
	int fd = posix_socket_fd(socket);
	struct address here = {.length = sizeof(here.storage)};
	struct address there = {.length = sizeof(there.storage)};

	if (getsockname(fd, (struct sockaddr *)&here.storage, &here.length) < 0 ||
	    getpeername(fd, (struct sockaddr *)&there.storage, &there.length) < 0)
		return -errno;
	if (here.storage.ss_family == AF_UNIX)
		return 0;
	return memcmp(&here, &there, sizeof(here)) == 0 ? -ECONNREFUSED : 0;
}

void posix_socket_free(struct loop_backend *backend, struct loop_socket *socket)
{
	(void)close(posix_socket_fd(socket));
	free(socket);
}

void posix_socket_shutdown(struct loop_backend *backend, struct loop_socket *socket,
			   enum loop_shutdown how)
{
	(void)shutdown(posix_socket_fd(socket), how == LOOP_SHUTDOWN_BOTH ? SHUT_RDWR : SHUT_WR);
}

int posix_socket_pair(struct loop_backend *backend, struct loop_socket **a, struct loop_socket **b)
{
	struct loop_socket *first, *second;
	int fds[2];
	int rc;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	rc = posix_socket_new(fds[0], &first);
	if (rc < 0) {
		(void)close(fds[1]);
		return rc;
	}
	rc = posix_socket_new(fds[1], &second);
	if (rc < 0) {
		posix_socket_free(backend, first);
		return rc;
	}
	(void)text_copy(first->peer, sizeof(first->peer), "unix:pair");
	(void)text_copy(second->peer, sizeof(second->peer), "unix:pair");
	*a = first;
	*b = second;
	return 0;
}

/* ---- listening ---- */

/* Is nobody behind the socket file at @address? Then it may be replaced. */
static bool is_abandoned(const struct address *address)
{
	const struct sockaddr_un *un = (const void *)&address->storage;
	struct stat st;
	int fd, rc;

	if (lstat(un->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return false;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return false;
	rc = connect(fd, (const struct sockaddr *)un, address->length) < 0 ? -errno : 0;
	(void)close(fd);
	return rc == -ECONNREFUSED;
}

static int bind_to(int fd, const struct address *address)
{
	const struct sockaddr *sockaddr = (const void *)&address->storage;

	if (bind(fd, sockaddr, address->length) == 0)
		return 0;
	if (errno == EADDRINUSE && sockaddr->sa_family == AF_UNIX && is_abandoned(address)) {
		(void)unlink(((const struct sockaddr_un *)sockaddr)->sun_path);
		if (bind(fd, sockaddr, address->length) == 0)
			return 0;
	}
	return -errno;
}

/* What is bound now: the port, or the file that is ours to remove. */
static void note_bound(struct posix_listener *listener, const char *text,
		       const struct address *asked)
{
	struct address bound = {.length = sizeof(bound.storage)};
	struct stat st;

	(void)text_copy(listener->base.address, sizeof(listener->base.address), text);
	if (asked->storage.ss_family == AF_UNIX) {
		if (stat(((const struct sockaddr_un *)&asked->storage)->sun_path, &st) == 0) {
			listener->inode = st.st_ino;
			listener->device = st.st_dev;
		}
		return;
	}
	if (getsockname(listener->fd, (struct sockaddr *)&bound.storage, &bound.length) == 0)
		address_format(&bound, listener->base.address);
}

int posix_listen(struct loop_backend *backend, const char *address, struct loop_listener **out,
		 struct error *err)
{
	struct posix_listener *listener = NULL;
	struct address parsed;
	int fd, rc;

	rc = address_parse(address, &parsed, err);
	if (rc < 0)
		return rc;
	fd = socket(parsed.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_set(err, -errno, "listen on '%s'", address);
	if (parsed.storage.ss_family != AF_UNIX)
		set_option(fd, SOL_SOCKET, SO_REUSEADDR);
	if (parsed.storage.ss_family == AF_INET6)
		set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY);
	listener = calloc(1, sizeof(*listener));
	rc = listener ? bind_to(fd, &parsed) : -ENOMEM;
	if (rc == 0 && listen(fd, LISTEN_BACKLOG) < 0)
		rc = -errno;
	if (rc < 0) {
		free(listener);
		(void)close(fd);
		return error_set(err, rc, "listen on '%s'", address);
	}
	listener->fd = fd;
	note_bound(listener, address, &parsed);
	*out = &listener->base;
	return 0;
}

void posix_listener_close(struct loop_backend *backend, struct loop_listener *base)
{
	struct posix_listener *listener = (struct posix_listener *)base;
	const char *path = base->address + strlen("unix:");
	struct stat st;

	/* Refuses whoever comes from now on, though an accept in flight keeps the descriptor. */
	(void)shutdown(listener->fd, SHUT_RDWR);
	if (!loop_address_is_unix(base->address))
		return;
	/* Another process may have replaced the file: then it is not ours to remove. */
	if (stat(path, &st) == 0 && st.st_ino == listener->inode && st.st_dev == listener->device)
		(void)unlink(path);
}

void posix_listener_free(struct loop_backend *backend, struct loop_listener *listener)
{
	(void)close(posix_listener_fd(listener));
	free(listener);
}
