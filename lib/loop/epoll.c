/*
 * The loop on epoll and worker threads, for where io_uring is forbidden or missing.
 *
 * Sockets are tried at once and never block; what would block waits for the edge that epoll
 * tells (each socket is watched once, in both directions, from its first use on). Files have no
 * calls that do not block: their ops go to worker threads (workers.c) and come back through the
 * eventfd that also ends a sleep. Always true: (1) an op is finished here or in epoll_op.c on the
 * loop's thread, and only queued; (2) a descriptor has one event in a turn at most, so that an
 * event may free what it names (a dial that failed); (3) a handle that is gone is watched no more
 * (its descriptor was closed, or it was detached), so that no event names it.
 */
#include "lib/loop/epoll.h"

#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "lib/loop/loop_priv.h"

#define EVENTS_MAX 256 /* of one turn; more wait for the next */
#define WATCH_MASK 3u

int epoll_watch(struct epoll *epoll, int fd, enum epoll_watch what, void *target, uint32_t events)
{
	struct epoll_event event = {
		.events = events,
		.data.u64 = (uint64_t)(uintptr_t)target | what,
	};

	assert(((uintptr_t)target & WATCH_MASK) == 0);
	return epoll_ctl(epoll->fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/* ---- waiting ---- */

static void drain(struct epoll *epoll)
{
	uint64_t count;

	(void)!read(epoll->wake_fd, &count, sizeof(count));
}

static void handle(struct epoll *epoll, const struct epoll_event *event)
{
	void *target = (void *)(uintptr_t)(event->data.u64 & ~(uint64_t)WATCH_MASK);

	switch ((enum epoll_watch)(event->data.u64 & WATCH_MASK)) {
	case EPOLL_SOCKET:
		epoll_socket_event(epoll, target, event->events);
		break;
	case EPOLL_LISTENER:
		epoll_listener_event(target);
		break;
	case EPOLL_GUEST:
		epoll_guest_event(epoll, target, event->events);
		break;
	case EPOLL_WAKE:
		drain(epoll);
		break;
	}
}

/* Sleep until @until_ns at the longest; milliseconds are rounded up. */
static int sleep_until(struct epoll *epoll, struct epoll_event *events, uint64_t until_ns)
{
	uint64_t now = until_ns && until_ns != UINT64_MAX ? posix_now(&epoll->base) : 0;
	uint64_t rest = until_ns > now ? until_ns - now : 0;
	int timeout;

	if (until_ns == UINT64_MAX || rest == 0)
		return epoll_wait(epoll->fd, events, EVENTS_MAX, rest ? -1 : 0);
	if (epoll->has_pwait2) {
		struct timespec time = {(time_t)(rest / NS_PER_S), (long)(rest % NS_PER_S)};
		int rc = epoll_pwait2(epoll->fd, events, EVENTS_MAX, &time, NULL);
		if (rc >= 0 || errno == EINTR)
			return rc;
		epoll->has_pwait2 = false; /* an old kernel, or a seccomp profile that lacks it */
	}
	timeout = (int)min_of((rest + NS_PER_MS - 1) / NS_PER_MS, (uint64_t)INT32_MAX);
	return epoll_wait(epoll->fd, events, EVENTS_MAX, timeout);
}

static int epoll_backend_wait(struct loop_backend *backend, uint64_t until_ns)
{
	struct epoll *epoll = epoll_of(backend);
	struct epoll_event events[EVENTS_MAX];
	int count;

	if (workers_collect(epoll->workers) > 0)
		until_ns = 0;
	count = sleep_until(epoll, events, until_ns);
	if (count < 0)
		return errno == EINTR ? 0 : -errno;
	for (int i = 0; i < count; i++)
		handle(epoll, &events[i]);
	(void)workers_collect(epoll->workers);
	return 0;
}

static void epoll_wake(struct loop_backend *backend)
{
	uint64_t one = 1;

	/* Cannot fail: the counter would have to be full. */
	(void)!write(epoll_of(backend)->wake_fd, &one, sizeof(one));
}

static void on_worked(void *context)
{
	epoll_wake(context);
}

/* ---- handles ---- */

/* Whoever accepts must not block when the client has left meanwhile. */
static int epoll_listen(struct loop_backend *backend, const char *address,
			struct loop_listener **out, struct error *err)
{
	int rc = posix_listen(backend, address, out, err);

	if (rc == 0)
		posix_set_nonblocking(posix_listener_fd(*out));
	return rc;
}

/* ---- life ---- */

static void epoll_free(struct loop_backend *backend)
{
	struct epoll *epoll = epoll_of(backend);

	assert(!epoll->guests);
	workers_free(epoll->workers);
	if (epoll->wake_fd >= 0)
		(void)close(epoll->wake_fd);
	if (epoll->fd >= 0)
		(void)close(epoll->fd);
	free(epoll);
}

static const struct loop_backend_ops epoll_ops = {
	.name = "epoll",
	.free = epoll_free,
	.wait = epoll_backend_wait,
	.wake = epoll_wake,
	.submit = epoll_op_submit,
	.cancel = epoll_op_cancel,
	.listen = epoll_listen,
	.socket_detach = epoll_socket_detach,
	POSIX_BACKEND_OPS,
};

int epoll_new(struct loop_backend **out, struct error *err)
{
	struct epoll *epoll = calloc(1, sizeof(*epoll));
	int rc;

	if (!epoll)
		return error_set(err, -ENOMEM, "loop");
	epoll->base.ops = &epoll_ops;
	epoll->has_pwait2 = true;
	epoll->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	epoll->fd = epoll_create1(EPOLL_CLOEXEC);
	rc = epoll->wake_fd < 0 || epoll->fd < 0 ? -errno : 0;
	if (rc == 0)
		rc = epoll_watch(epoll, epoll->wake_fd, EPOLL_WAKE, NULL, EPOLLIN);
	if (rc == 0)
		rc = workers_new(on_worked, &epoll->base, &epoll->workers);
	if (rc < 0) {
		epoll_free(&epoll->base);
		return error_set(err, rc, "epoll of a loop");
	}
	*out = &epoll->base;
	return 0;
}
