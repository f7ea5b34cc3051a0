/* The epoll back end: turns and what is watched (epoll.c), ops on sockets (epoll_op.c). */
#ifndef LOOP_EPOLL_H
#define LOOP_EPOLL_H

#include <sys/epoll.h>
#include <uthash.h>

#include "lib/loop/posix.h"
#include "lib/loop/workers.h"

/* A descriptor of others, and those who wait for it: epoll takes a descriptor only once. */
struct epoll_guest {
	int fd;
	struct cds_list_head ops; /* by link */
	UT_hash_handle hh;
};

struct epoll {
	struct loop_backend base;
	int fd;
	int wake_fd; /* eventfd: wake(), and workers that have done something */
	bool has_pwait2;
	struct workers *workers;
	struct epoll_guest *guests; /* by fd */
};

static inline struct epoll *epoll_of(struct loop_backend *backend)
{
	return (struct epoll *)backend;
}

/* What an event is about: the low bits of its pointer. */
enum epoll_watch { EPOLL_SOCKET, EPOLL_LISTENER, EPOLL_GUEST, EPOLL_WAKE };

/*
 * Tell of changes of @fd from now on: once per change for sockets and listeners, for a guest as
 * long as it is so. 0 or an error.
 */
int epoll_watch(struct epoll *epoll, int fd, enum epoll_watch what, void *target, uint32_t events);

/* ---- epoll_op.c ---- */

void epoll_op_submit(struct loop_backend *backend, struct loop_op *op);
void epoll_op_cancel(struct loop_backend *backend, struct loop_op *op);
void epoll_socket_event(struct epoll *epoll, struct posix_socket *socket, uint32_t events);
void epoll_listener_event(struct posix_listener *listener);
void epoll_guest_event(struct epoll *epoll, struct epoll_guest *guest, uint32_t events);
void epoll_socket_detach(struct loop_backend *backend, struct loop_socket *socket);

#endif
