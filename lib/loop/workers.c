/*
 * A pool of threads for one loop: a queue of ops to do, a list of those that are done.
 *
 * Threads are started when there is work and nobody idle, up to WORKERS_MAX, and stay. An op
 * is in the queue, with one thread, or in the list of the done; its fields belong to whoever
 * has it, and change hands under the mutex.
 */
#include "lib/loop/workers.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "lib/loop/posix.h"

#define WORKERS_MAX	  16u /* as many of a disk's operations are in flight at a time */
#define WORKER_STACK_SIZE (128 * KIB)

/* op->fd: where it is. (Not in op->flags, which the loop's thread writes without the mutex.) */
enum { OP_TAKEN, OP_QUEUED };

struct workers {
	void (*notify)(void *context);
	void *context;
	pthread_mutex_t mutex; /* of all below */
	pthread_cond_t work;
	struct cds_list_head queue, done; /* ops by link */
	pthread_t threads[WORKERS_MAX];
	unsigned count, idle;
	unsigned queued;
	bool is_ending;
};

/* ---- what is done ---- */

static int do_open(struct loop_op *op)
{
	return posix_sync_open(NULL, op->path, (unsigned)op->length, &op->out.file);
}

/* One round of a transfer: as many bytes as one call moves, or an error. */
static ssize_t move_some(struct loop_op *op)
{
	int fd = posix_file_fd(op->target);
	off_t offset = (off_t)(op->offset + (uint64_t)op->result);
	const struct iovec *iov;
	struct iovec single;
	int count = (int)posix_transfer_rest(op, &iov, &single);
	ssize_t n;

	do
		n = op->kind == LOOP_OP_READ ? preadv(fd, iov, count, offset)
					     : pwritev(fd, iov, count, offset);
	while (n < 0 && (errno == EINTR || errno == EAGAIN));
	return n < 0 ? -errno : n;
}

static int do_read(struct loop_op *op)
{
	ssize_t n;

	do {
		n = move_some(op);
		if (n < 0)
			return (int)n;
		op->result += (int)n;
	} while (n > 0 && !posix_read_is_whole(op));
	return op->result;
}

static int do_write(struct loop_op *op)
{
	while ((uint64_t)op->result < op->length) {
		ssize_t n = move_some(op);

		if (n <= 0)
			return n ? (int)n : -EIO;
		op->result += (int)n;
	}
	return op->result;
}

static int do_sync(struct loop_op *op)
{
	int fd = posix_file_fd(op->target);

	return (op->length ? fsync(fd) : fdatasync(fd)) < 0 ? -errno : 0;
}

static int do_allocate(struct loop_op *op)
{
	int rc;

	do
		rc = fallocate(posix_file_fd(op->target), 0, (off_t)op->offset, (off_t)op->length);
	while (rc < 0 && errno == EINTR);
	return rc < 0 ? -errno : 0;
}

static int do_unlink(struct loop_op *op)
{
	return unlink(op->path) < 0 ? -errno : 0;
}

static int (*const kinds[LOOP_OP_KINDS])(struct loop_op *op) = {
	[LOOP_OP_OPEN] = do_open, [LOOP_OP_READ] = do_read,	    [LOOP_OP_WRITE] = do_write,
	[LOOP_OP_SYNC] = do_sync, [LOOP_OP_ALLOCATE] = do_allocate, [LOOP_OP_UNLINK] = do_unlink,
};

bool workers_can(const struct loop_op *op)
{
	return kinds[op->kind] != NULL;
}

/* ---- threads ---- */

/* Under the mutex. True: the loop is to be told. */
static bool put_done(struct workers *workers, struct loop_op *op)
{
	bool was_empty = cds_list_empty(&workers->done);

	cds_list_add_tail(&op->link, &workers->done);
	return was_empty;
}

static void *work(void *argument)
{
	struct workers *workers = argument;

	(void)pthread_mutex_lock(&workers->mutex);
	for (;;) {
		while (cds_list_empty(&workers->queue) && !workers->is_ending) {
			workers->idle++;
			(void)pthread_cond_wait(&workers->work, &workers->mutex);
			workers->idle--;
		}
		if (cds_list_empty(&workers->queue))
			break;
		struct loop_op *op = cds_list_first_entry(&workers->queue, struct loop_op, link);
		cds_list_del(&op->link);
		workers->queued--;
		op->fd = OP_TAKEN;
		(void)pthread_mutex_unlock(&workers->mutex);
		int result = kinds[op->kind](op);
		(void)pthread_mutex_lock(&workers->mutex);
		op->result = result;
		if (put_done(workers, op))
			workers->notify(workers->context);
	}
	(void)pthread_mutex_unlock(&workers->mutex);
	return NULL;
}

/* Under the mutex. Signals are for the threads that the program itself has made. */
static void start_one(struct workers *workers)
{
	pthread_attr_t attr;
	sigset_t all, old;

	if (pthread_attr_init(&attr) != 0)
		return;
	(void)pthread_attr_setstacksize(&attr, WORKER_STACK_SIZE);
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	if (pthread_create(&workers->threads[workers->count], &attr, work, workers) == 0)
		workers->count++;
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	(void)pthread_attr_destroy(&attr);
}

void workers_push(struct workers *workers, struct loop_op *op)
{
	bool has_thread;

	(void)pthread_mutex_lock(&workers->mutex);
	if (workers->queued >= workers->idle && workers->count < WORKERS_MAX)
		start_one(workers);
	has_thread = workers->count > 0;
	if (has_thread) {
		op->fd = OP_QUEUED;
		cds_list_add_tail(&op->link, &workers->queue);
		workers->queued++;
		(void)pthread_cond_signal(&workers->work);
	}
	(void)pthread_mutex_unlock(&workers->mutex);
	if (!has_thread)
		loop_op_finish(op, -EAGAIN);
}

bool workers_cancel(struct workers *workers, struct loop_op *op)
{
	bool is_queued;

	(void)pthread_mutex_lock(&workers->mutex);
	is_queued = op->fd == OP_QUEUED;
	if (is_queued) {
		op->fd = OP_TAKEN;
		cds_list_del(&op->link);
		workers->queued--;
	}
	(void)pthread_mutex_unlock(&workers->mutex);
	return is_queued;
}

unsigned workers_collect(struct workers *workers)
{
	struct cds_list_head done;
	struct loop_op *op, *next;
	unsigned count = 0;

	CDS_INIT_LIST_HEAD(&done);
	(void)pthread_mutex_lock(&workers->mutex);
	cds_list_splice(&workers->done, &done);
	CDS_INIT_LIST_HEAD(&workers->done);
	(void)pthread_mutex_unlock(&workers->mutex);
	cds_list_for_each_entry_safe(op, next, &done, link) {
		loop_op_finish(op, op->result);
		count++;
	}
	return count;
}

/* ---- life ---- */

int workers_new(void (*notify)(void *context), void *context, struct workers **out)
{
	struct workers *workers = calloc(1, sizeof(*workers));

	if (!workers)
		return -ENOMEM;
	workers->notify = notify;
	workers->context = context;
	CDS_INIT_LIST_HEAD(&workers->queue);
	CDS_INIT_LIST_HEAD(&workers->done);
	(void)pthread_mutex_init(&workers->mutex, NULL);
	(void)pthread_cond_init(&workers->work, NULL);
	*out = workers;
	return 0;
}

void workers_free(struct workers *workers)
{
	if (!workers)
		return;
	assert(cds_list_empty(&workers->queue) && cds_list_empty(&workers->done));
	(void)pthread_mutex_lock(&workers->mutex);
	workers->is_ending = true;
	(void)pthread_cond_broadcast(&workers->work);
	(void)pthread_mutex_unlock(&workers->mutex);
	for (unsigned i = 0; i < workers->count; i++)
		(void)pthread_join(workers->threads[i], NULL);
	(void)pthread_cond_destroy(&workers->work);
	(void)pthread_mutex_destroy(&workers->mutex);
	free(workers);
}
