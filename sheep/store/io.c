/*
 * Operations on the store's files. Each is on the shard's list while it is in flight, oldest
 * first; a timer looks at the oldest and stops the store when it hangs.
 */
#include "lib/base/log.h"
#include "sheep/store/store_priv.h"

static void on_done(struct loop_op *op, int result)
{
	struct io *io = container_of_type(op, struct io, op);

	cds_list_del(&io->link);
	if (result >= 0)
		result = io->length && (uint64_t)result < io->length ? -EIO : 0;
	io->done(io, result);
}

static void start(struct shard *shard, struct io *io, uint64_t length)
{
	io->op.done = on_done;
	io->shard = shard;
	io->started_ns = loop_now(shard->loop);
	io->length = length;
	cds_list_add_tail(&io->link, &shard->ios);
}

static uint64_t length_of(const struct iovec *iov, unsigned count)
{
	uint64_t length = 0;

	for (unsigned i = 0; i < count; i++)
		length += iov[i].iov_len;
	return length;
}

void io_read(struct shard *shard, struct io *io, struct loop_file *file, const struct iovec *iov,
	     unsigned count, uint64_t offset)
{
	start(shard, io, length_of(iov, count));
	loop_file_read(shard->loop, &io->op, file, iov, count, offset);
}

void io_write(struct shard *shard, struct io *io, struct loop_file *file, const struct iovec *iov,
	      unsigned count, uint64_t offset)
{
	start(shard, io, 0);
	loop_file_write(shard->loop, &io->op, file, iov, count, offset);
}

void io_sync(struct shard *shard, struct io *io, struct loop_file *file)
{
	start(shard, io, 0);
	loop_file_sync(shard->loop, &io->op, file);
}

static void on_watch(struct loop_timer *timer)
{
	struct shard *shard = container_of_type(timer, struct shard, watch);
	uint64_t now = loop_now(shard->loop), limit = shard->store->options.hang_ns;

	if (shard_is_failed(shard))
		return;
	/* A loop that did not run cannot tell a hung disk from its own sleep. */
	bool was_awake = now - shard->watched_ns < limit / 2;

	shard->watched_ns = now;
	if (was_awake && !cds_list_empty(&shard->ios)) {
		struct io *oldest = cds_list_first_entry(&shard->ios, struct io, link);
		if (now - oldest->started_ns >= limit) {
			shard_fail(shard, -ETIMEDOUT, "an operation hangs");
			return;
		}
	}
	loop_timer_start(shard->loop, timer, now + limit / 4);
}

void io_start_watch(struct shard *shard)
{
	shard->watch.fire = on_watch;
	shard->watched_ns = loop_now(shard->loop);
	loop_timer_start(shard->loop, &shard->watch,
			 loop_now(shard->loop) + shard->store->options.hang_ns / 4);
}
