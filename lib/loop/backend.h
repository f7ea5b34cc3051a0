/*
 * What a back end gives the loop: io_uring (uring.c), epoll and threads (epoll.c), the
 * simulator (tests/sim/sim_loop.c).
 *
 * The core owns the turn, the ready queue, timers, hooks, mail and the rules
 * about handles: which ops of a socket are in flight, what a close does to
 * them, when a handle's memory goes. A back end starts ops, ends them by
 * loop_op_finish() (never from within submit() or cancel() of another op than
 * the one named), waits, and does the calls that end at once.
 *
 * An op:   IDLE --loop_*()--> SUBMITTED --loop_op_finish()--> READY --done()--> IDLE
 *
 * Handles are made by the back end, which puts the structs below first in its own.
 */
#ifndef LOOP_BACKEND_H
#define LOOP_BACKEND_H

#include "lib/loop/loop.h"

enum loop_op_kind {
	LOOP_OP_NONE, /* loop_complete() */
	LOOP_OP_OPEN,
	LOOP_OP_READ,
	LOOP_OP_WRITE,
	LOOP_OP_SYNC,
	LOOP_OP_ALLOCATE,
	LOOP_OP_UNLINK,
	LOOP_OP_ACCEPT,
	LOOP_OP_CONNECT,
	LOOP_OP_RECV,
	LOOP_OP_SEND,
	LOOP_OP_POLL,
	LOOP_OP_KINDS
};

enum loop_op_state { LOOP_OP_IDLE, LOOP_OP_SUBMITTED, LOOP_OP_READY };

/* op->flags; the upper byte belongs to the back end. */
#define LOOP_OP_CANCEL_ASKED  0x0001u
#define LOOP_OP_BACKEND_FLAGS 0xff00u

/*
 * What submit() finds in an op:
 *
 *   OPEN      path, length = enum loop_file_flags; gives out.file
 *   READ ...  target = loop_file, iov, iov_count, offset, length = bytes (1 .. INT32_MAX)
 *   SYNC      target, length: 0 fdatasync(2), 1 fsync(2)
 *   ALLOCATE  target, offset, length
 *   ACCEPT    target = loop_listener; gives out.socket
 *   CONNECT   path = the address, checked; gives out.socket
 *   RECV/SEND target = loop_socket, iov, iov_count, length as above
 *   POLL      fd, length = events
 *
 * result is 0 and may hold the progress of a transfer; link, fd (not for POLL),
 * backend and the upper byte of flags are free for use until loop_op_finish().
 */

struct loop_file {
	bool is_direct;
};

struct loop_listener {
	struct loop *loop;
	struct loop_op *accepts; /* in flight, linked by next */
	bool is_closing;
	char address[LOOP_ADDRESS_MAX];
};

struct loop_socket {
	struct loop *loop;
	struct loop_op *recv, *send; /* in flight until delivered */
	bool is_closing;
	bool shut_after_send;
	char peer[LOOP_ADDRESS_MAX];
};

enum loop_shutdown { LOOP_SHUTDOWN_WRITE, LOOP_SHUTDOWN_BOTH };

struct loop_backend {
	const struct loop_backend_ops *ops;
	struct loop *loop; /* set by loop_new_on() */
};

struct loop_backend_ops {
	const char *name;
	void (*free)(struct loop_backend *backend);

	/* ---- turns ---- */

	/* Around loop_run(), on its thread. May be NULL. */
	void (*run_start)(struct loop_backend *backend);
	void (*run_stop)(struct loop_backend *backend);
	/*
	 * Start what was submitted, then collect completions; when there is none wait for one or
	 * for wake() until @until_ns (0: do not wait, UINT64_MAX: for ever). 0 or an error that
	 * ends loop_run().
	 */
	int (*wait)(struct loop_backend *backend, uint64_t until_ns);
	/* Would wait(0) find something? Cheap: asked in a busy poll. May be NULL: no busy poll. */
	bool (*has_events)(struct loop_backend *backend);
	/* End a wait, or the next one. Any thread; called at most once per sleep. */
	void (*wake)(struct loop_backend *backend);
	uint64_t (*now)(struct loop_backend *backend);
	uint64_t (*wall_clock)(struct loop_backend *backend);

	/* ---- operations ---- */

	void (*submit)(struct loop_backend *backend, struct loop_op *op);
	/* @op is SUBMITTED; called once. It still finishes by loop_op_finish(), once. */
	void (*cancel)(struct loop_backend *backend, struct loop_op *op);

	/* ---- handles; as in loop.h where the names agree ---- */

	void (*file_close)(struct loop_backend *backend, struct loop_file *file);
	int (*listen)(struct loop_backend *backend, const char *address, struct loop_listener **out,
		      struct error *err);
	/* The name is free for another listener; accepts are being cancelled. */
	void (*listener_close)(struct loop_backend *backend, struct loop_listener *listener);
	/* No op is in flight any more, here and below. */
	void (*listener_free)(struct loop_backend *backend, struct loop_listener *listener);
	void (*socket_free)(struct loop_backend *backend, struct loop_socket *socket);
	/* Here ops may be in flight. */
	void (*socket_shutdown)(struct loop_backend *backend, struct loop_socket *socket,
				enum loop_shutdown how);
	int (*socket_pair)(struct loop_backend *backend, struct loop_socket **a,
			   struct loop_socket **b);
	/* It goes to another loop: nothing here may know it any more. May be NULL. */
	void (*socket_detach)(struct loop_backend *backend, struct loop_socket *socket);

	/* ---- calls that block ---- */

	int (*sync_open)(struct loop_backend *backend, const char *path, unsigned flags,
			 struct loop_file **out);
	int64_t (*sync_read)(struct loop_backend *backend, struct loop_file *file, void *data,
			     size_t size, uint64_t offset);
	int (*sync_write)(struct loop_backend *backend, struct loop_file *file, const void *data,
			  size_t size, uint64_t offset);
	int (*sync_fsync)(struct loop_backend *backend, struct loop_file *file);
	int64_t (*sync_size)(struct loop_backend *backend, struct loop_file *file);
	int (*sync_truncate)(struct loop_backend *backend, struct loop_file *file, uint64_t size);
	int (*sync_unlink)(struct loop_backend *backend, const char *path);
	int (*sync_rename)(struct loop_backend *backend, const char *from, const char *to);
	int (*sync_mkdir)(struct loop_backend *backend, const char *path);
	int (*sync_fsync_dir)(struct loop_backend *backend, const char *path);
	int (*sync_list)(struct loop_backend *backend, const char *path,
			 int (*each)(void *context, const char *name), void *context);
	int (*sync_free_space)(struct loop_backend *backend, const char *path, uint64_t *out_bytes);
	int (*sync_lock)(struct loop_backend *backend, struct loop_file *file);
	int (*sync_is_locked)(struct loop_backend *backend, struct loop_file *file);
	int (*sync_map)(struct loop_backend *backend, struct loop_file *file, size_t size,
			void **out); /* file_close() unmaps */
};

/*
 * A loop on @backend, which the loop takes, also on failure (-ENOMEM).
 * options->backend is ignored; a seed of 0 is taken as it is.
 */
int loop_new_on(const struct loop_options *options, struct loop_backend *backend,
		struct loop **out);

/*
 * As loop_free(), but ops in flight, timers, hooks and mail vanish undone: the
 * death of a simulated process. Their owners' memory must still be there.
 */
void loop_abandon(struct loop *loop);

/* @op, SUBMITTED, has ended: it runs in this or the next turn. The loop's thread only. */
void loop_op_finish(struct loop_op *op, int result);

/*
 * When the next turn has something to do by itself: 0 (now), the deadline of
 * the first timer, or UINT64_MAX.
 */
uint64_t loop_next_deadline(struct loop *loop);

/*
 * The next loop_post() or loop_stop() is to call wake(): for a back end whose
 * loops sleep outside of wait().
 */
void loop_expect_wake(struct loop *loop);

struct loop_backend *loop_backend_of(const struct loop *loop);

#endif
