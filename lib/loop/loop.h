/*
 * The loop: the one thing that touches the world.
 *
 * A loop is a reactor owned by one thread: time, timers, files, sockets and
 * randomness come from it and from nothing else, so that the simulated back end
 * (tests/sim) can run the same code in virtual time from one seed. Back ends
 * implement lib/loop/backend.h.
 *
 * A turn: wait; collect completions into the ready queue; run at most
 * `turn_max` of them; run due timers; deliver mail; run the end-of-turn hooks
 * that were armed (first LOOP_HOOK_COMMIT, then LOOP_HOOK_FLUSH). All that
 * arrived in one turn thus shares one write and one sync.
 *
 * Promises: every submitted op completes exactly once, cancelled or not; no
 * completion runs inside the call that submitted it; a full submission ring
 * queues and is never an error. Unless it says "any thread", a function may be
 * called by the loop's own thread only (or before it runs).
 */
#ifndef LOOP_LOOP_H
#define LOOP_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include <urcu/list.h>
#include <urcu/wfcqueue.h>

#include "lib/base/buffer.h"
#include "lib/base/err.h"
#include "lib/base/log.h"
#include "lib/base/random.h"

struct loop;
struct loop_file;
struct loop_socket;
struct loop_listener;
struct loop_backend; /* lib/loop/backend.h */

/* ---- life ---- */

enum loop_backend_kind { LOOP_BACKEND_AUTO, LOOP_BACKEND_URING, LOOP_BACKEND_EPOLL };

struct loop_options {
	enum loop_backend_kind backend;
	const char *name;      /* for logs; borrowed */
	struct logger *logger; /* borrowed; current while the loop runs; NULL: the default */
	uint64_t seed;	       /* of loop_random(); 0: from the system */
	uint32_t turn_max;     /* completions run per turn; 0: 256 */
	/* Look again for up to so long before sleeping, while that pays; 0: sleep at once. */
	uint32_t busy_poll_us;
};

/*
 * Make a loop, on any thread. Ops, timers and hooks may be started at once; the thread of the
 * first turn owns the loop from then on. Where io_uring is forbidden or lacks something,
 * LOOP_BACKEND_URING fails with a text that names what is missing and what to do, and
 * LOOP_BACKEND_AUTO takes epoll, and says so in the log.
 */
int loop_new(const struct loop_options *options, struct loop **out, struct error *err);
/* Any thread, when the owner turns it no more. No op may be in flight. NULL is allowed. */
void loop_free(struct loop *loop);

/* Turn until loop_stop(). Returns 0, or the error of the back end. */
int loop_run(struct loop *loop);
/* One turn; waits for something to do, at most until @deadline_ns (0: do not wait). */
int loop_turn(struct loop *loop, uint64_t deadline_ns);
void loop_stop(struct loop *loop); /* any thread */
const char *loop_backend_name(const struct loop *loop);

/* CLOCK_BOOTTIME in ns, read once per turn. */
uint64_t loop_now(const struct loop *loop);
/* The same clock, read now: for what must not be older than this very moment. */
uint64_t loop_clock(const struct loop *loop);
/* Wall clock in ns since 1970, for what people read; never for decisions. */
uint64_t loop_wall_clock(const struct loop *loop);
struct random *loop_random(struct loop *loop);
/* The loop's own cache of payload buffers. */
struct buffer_cache *loop_buffers(struct loop *loop);

/* ---- operations ---- */

/*
 * One operation, embedded in its owner, which outlives it; zeroed before its first use. `done`
 * gets the result: a count or 0, or a negative errno. Set `done`, submit by one of the functions
 * below, and do not touch it until `done` runs (it may be submitted again from there).
 */
struct loop_op {
	void (*done)(struct loop_op *op, int result);
	union { /* what an operation gives besides its result; owned by the caller from then on */
		struct loop_file *file;
		struct loop_socket *socket;
	} out;
	/* private to lib/loop and the back ends */
	struct cds_list_head link;
	struct loop *loop;
	int result;
	uint8_t kind;
	uint8_t state;
	uint16_t flags;
	int fd;
	uint32_t iov_count;
	uint64_t offset;
	uint64_t length;
	const struct iovec *iov;
	void *target;
	const char *path;
	void *backend;
	struct loop_op *next; /* of a listener's accepts */
};

/* Is it submitted and not yet done? */
bool loop_op_is_busy(const struct loop_op *op);
/* Ask for an early end: the op completes soon, with -ECANCELED unless it was faster. */
void loop_cancel(struct loop *loop, struct loop_op *op);
/* Queue the completion of an op that the loop knows nothing about; runs in this or the next turn. */
void loop_complete(struct loop *loop, struct loop_op *op, int result);

/* ---- timers, hooks, mail ---- */

struct loop_timer {
	void (*fire)(struct loop_timer *timer);
	uint64_t deadline_ns;
	uint32_t heap_index; /* private; 0: not armed */
};

/* Fires once, at or after @deadline_ns (of loop_now()). Starting an armed timer moves it. */
void loop_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t deadline_ns);
void loop_timer_stop(struct loop *loop, struct loop_timer *timer); /* not armed: nothing */
static inline bool loop_timer_is_armed(const struct loop_timer *timer)
{
	return timer->heap_index != 0;
}

enum loop_hook_phase { LOOP_HOOK_COMMIT, LOOP_HOOK_FLUSH, LOOP_HOOK_PHASES };

struct loop_hook {
	void (*run)(struct loop_hook *hook);
	enum loop_hook_phase phase;
	bool is_armed; /* private */
	struct cds_list_head link;
};

/*
 * Run once at the end of this turn. A hook that arms one of a later phase gets it run in the same
 * turn; one of the same or an earlier phase runs in the next, which then does not sleep.
 */
void loop_hook_arm(struct loop *loop, struct loop_hook *hook);
void loop_hook_disarm(struct loop *loop, struct loop_hook *hook);

/* A message to another loop: embedded in its owner, which the receiver owns after delivery. */
struct loop_mail {
	void (*deliver)(struct loop *loop, struct loop_mail *mail);
	struct cds_wfcq_node node; /* private */
};

/* Deliver on @to's thread, in order per sender. Any thread. */
void loop_post(struct loop *to, struct loop_mail *mail);

/* ---- files ---- */

enum loop_file_flags {
	LOOP_FILE_READ = 1u << 0,
	LOOP_FILE_WRITE = 1u << 1,
	LOOP_FILE_CREATE = 1u << 2,
	LOOP_FILE_EXCLUSIVE = 1u << 3, /* with CREATE: -EEXIST if it is there */
	LOOP_FILE_TRUNCATE = 1u << 4,
	LOOP_FILE_APPEND = 1u << 5,
	/* O_DIRECT; where the file system refuses it the file is opened buffered
	 * (loop_file_is_direct() tells). Memory, offset and length: multiples of 4096. */
	LOOP_FILE_DIRECT = 1u << 6,
};

/*
 * Ops on files. Paths are absolute or relative to the working directory, borrowed until done, as
 * are iovecs and the memory they name. Reads give the count (short only at the end of the file);
 * a write is whole or an error.
 */
void loop_file_open(struct loop *loop, struct loop_op *op, const char *path, unsigned flags);
void loop_file_read(struct loop *loop, struct loop_op *op, struct loop_file *file,
		    const struct iovec *iov, unsigned count, uint64_t offset);
void loop_file_write(struct loop *loop, struct loop_op *op, struct loop_file *file,
		     const struct iovec *iov, unsigned count, uint64_t offset);
/* fdatasync(2): data and what is needed to read it back. */
void loop_file_sync(struct loop *loop, struct loop_op *op, struct loop_file *file);
/* fsync(2). Of a directory, opened for reading (not in the simulator): the names in it. */
void loop_file_sync_all(struct loop *loop, struct loop_op *op, struct loop_file *file);
/* fallocate(2), mode 0. */
void loop_file_allocate(struct loop *loop, struct loop_op *op, struct loop_file *file,
			uint64_t offset, uint64_t length);
void loop_file_unlink(struct loop *loop, struct loop_op *op, const char *path);
/* No op may be in flight on it. NULL is allowed. */
void loop_file_close(struct loop *loop, struct loop_file *file);
bool loop_file_is_direct(const struct loop_file *file);

/*
 * The same, at once and blocking: for start-up, shutdown and tools only. Results as above, short
 * reads only at the end of the file. The error text names the path.
 */
int loop_sync_open(struct loop *loop, const char *path, unsigned flags, struct loop_file **out,
		   struct error *err);
int64_t loop_sync_read(struct loop *loop, struct loop_file *file, void *data, size_t size,
		       uint64_t offset);
int loop_sync_write(struct loop *loop, struct loop_file *file, const void *data, size_t size,
		    uint64_t offset);
int loop_sync_fsync(struct loop *loop, struct loop_file *file);
int64_t loop_sync_size(struct loop *loop, struct loop_file *file);
int loop_sync_truncate(struct loop *loop, struct loop_file *file, uint64_t size);
int loop_sync_unlink(struct loop *loop, const char *path);
/* rename(2), then the directory is synced. */
int loop_sync_rename(struct loop *loop, const char *from, const char *to);
int loop_sync_mkdir(struct loop *loop, const char *path); /* -EEXIST when it is there */
int loop_sync_fsync_dir(struct loop *loop, const char *path);
/* Calls @each for every name but . and .., sorted by bytes; stops at and returns its first
 * non-zero result. */
int loop_sync_list(struct loop *loop, const char *path,
		   int (*each)(void *context, const char *name), void *context);
/* Free bytes for us on the file system of @path. */
int loop_sync_free_space(struct loop *loop, const char *path, uint64_t *out_bytes);
/*
 * An exclusive lock of the open file description (fcntl(2), F_OFD_SETLK), until it is closed.
 * -EAGAIN when another holds it.
 */
int loop_sync_lock(struct loop *loop, struct loop_file *file);
/* Is it locked by another? 1, 0 or an error. */
int loop_sync_is_locked(struct loop *loop, struct loop_file *file);
/*
 * The first @size bytes of @file, open for reading and writing and at least that long, as memory (mmap(2), shared): what
 * any thread stores there is in the file at once, and outlives the process. Once per handle, until it is closed.
 * Write the bytes before: a hole that is stored to may find the file system full, and that is fatal.
 */
int loop_sync_map(struct loop *loop, struct loop_file *file, size_t size, void **out);

/* ---- sockets ---- */

#define LOOP_ADDRESS_MAX 128 /* with the closing zero; longer unix paths are refused */

/*
 * Addresses are text: "ADDR:PORT" (numeric IPv4, or IPv6 in brackets) or
 * "unix:PATH" (107 bytes at most). 0, or -EINVAL with a text.
 */
int loop_address_check(const char *address, struct error *err);
bool loop_address_is_unix(const char *address);
/* 127.0.0.0/8, [::1] or unix. */
bool loop_address_is_loopback(const char *address);

/*
 * Listen at once. Port 0: any free port; loop_listener_address() tells which. An abandoned unix
 * socket file is replaced, a live one is -EADDRINUSE.
 */
int loop_listen(struct loop *loop, const char *address, struct loop_listener **out,
		struct error *err);
const char *loop_listener_address(const struct loop_listener *listener);
/*
 * Gives op->out.socket. Several may be in flight. Errors are accept(2)'s; -EMFILE and the like come
 * at once again until something is closed, so wait a while before the next.
 */
void loop_accept(struct loop *loop, struct loop_op *op, struct loop_listener *listener);
/* Cancels accepts in flight; removes a unix socket's file. NULL is allowed. */
void loop_listener_close(struct loop *loop, struct loop_listener *listener);

/* Gives op->out.socket. @address is borrowed until done. TCP_NODELAY is on. */
void loop_connect(struct loop *loop, struct loop_op *op, const char *address);
/* At least one byte, 0 at the end of the stream. One recv in flight per socket. */
void loop_recv(struct loop *loop, struct loop_op *op, struct loop_socket *socket,
	       const struct iovec *iov, unsigned count);
/* All bytes or an error. One send in flight per socket. */
void loop_send(struct loop *loop, struct loop_op *op, struct loop_socket *socket,
	       const struct iovec *iov, unsigned count);
/* Ends our direction (SHUT_WR) once the send in flight is done, or both at once. */
void loop_socket_shutdown(struct loop *loop, struct loop_socket *socket, bool both);
/* Ops in flight complete with -ECANCELED (later, as always); the handle is gone at once. */
void loop_socket_close(struct loop *loop, struct loop_socket *socket);
/*
 * Take a socket without ops in flight from its loop and give it to another: detach on the old
 * loop's thread, post the result, attach on the new one's.
 */
struct loop_socket *loop_socket_detach(struct loop *loop, struct loop_socket *socket);
void loop_socket_attach(struct loop *loop, struct loop_socket *socket);
/* The other side, for logs: "ADDR:PORT", or "unix:" and what is known (pid, uid). */
const char *loop_socket_peer(const struct loop_socket *socket);

/* Two connected sockets, for tests and embedding. */
int loop_socket_pair(struct loop *loop, struct loop_socket **a, struct loop_socket **b);

/* ---- descriptors of others (inotify, pidfd, signalfd) ---- */

/* Completes with the poll(2) events that came. Real back ends only; simulated: -ENOTSUP. */
void loop_poll(struct loop *loop, struct loop_op *op, int fd, unsigned events);

#endif
