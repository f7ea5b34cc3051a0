/*
 * Operations on the store's files, and when the disk is called hung.
 *
 * Each operation is on the shard's list from its submission to the kernel until it is done, oldest
 * first; entries that wait for their turn in the store are on none. While the list is not empty a
 * timer looks at it. The disk hangs, and the store stops, when
 *
 *   - an operation is older than the deadline, and since then nothing of its kind has been done:
 *     reads that go on say nothing of writes and syncs, and the other way round; or
 *   - an operation is older than so many deadlines (HANG_FACTOR), whatever else goes on.
 *
 * So a disk that has more to do than it can do in time, but does it, stays: overload evicts nobody.
 *
 * Age is counted while the loop runs. A loop that did not run for a while (a stopped process, a machine
 * that swaps) finds many operations done, or as late as itself: such a while counts as two looks.
 */
#include "lib/base/log.h"
#include "sheep/store/store_priv.h"

#define HANG_FACTOR	   4u
#define LOOKS_PER_DEADLINE 16u

static uint64_t deadline_of(const struct shard *shard)
{
	return __atomic_load_n(&shard->store->deadline_ns, __ATOMIC_RELAXED);
}

static uint64_t look_interval(const struct shard *shard)
{
	return max_of(deadline_of(shard) / LOOKS_PER_DEADLINE, NS_PER_MS);
}

/* The time in which the loop ran. */
static uint64_t awake_ns(const struct shard *shard)
{
	const struct watch *watch = &shard->watch;
	uint64_t passed = loop_now(shard->loop) - watch->seen_ns;

	return watch->awake_ns + min_of(passed, 2 * look_interval(shard));
}

static void look_again(struct shard *shard)
{
	struct watch *watch = &shard->watch;

	watch->awake_ns = awake_ns(shard);
	watch->seen_ns = loop_now(shard->loop);
	loop_timer_start(shard->loop, &watch->timer, watch->seen_ns + look_interval(shard));
}

static bool is_hung(const struct shard *shard, const struct io *io)
{
	uint64_t now = awake_ns(shard), limit = deadline_of(shard);
	uint64_t last_done = shard->watch.done_ns[io->kind];

	return now - io->started_ns >= HANG_FACTOR * limit ||
	       (now - io->started_ns >= limit && now - last_done >= limit);
}

static void on_look(struct loop_timer *timer)
{
	struct shard *shard = container_of_type(timer, struct shard, watch.timer);
	bool is_seen[IO_KINDS] = {false};
	struct io *io;

	if (shard_is_failed(shard) || cds_list_empty(&shard->ios))
		return; /* the next operation begins again */
	look_again(shard);
	/* The oldest of each kind. */
	cds_list_for_each_entry(io, &shard->ios, link) {
		if (is_seen[io->kind])
			continue;
		is_seen[io->kind] = true;
		if (is_hung(shard, io)) {
			shard_fail(shard, -ETIMEDOUT,
				   io->kind == IO_READING ? "a read hangs" : "a write hangs");
			return;
		}
		if (is_seen[IO_READING] && is_seen[IO_WRITING])
			return;
	}
}

void io_init(struct shard *shard)
{
	shard->watch.timer.fire = on_look;
	CDS_INIT_LIST_HEAD(&shard->ios);
}

static void on_done(struct loop_op *op, int result)
{
	struct io *io = container_of_type(op, struct io, op);
	struct shard *shard = io->shard;

	cds_list_del(&io->link);
	shard->watch.done_ns[io->kind] = awake_ns(shard);
	if (result >= 0)
		result = io->length && (uint64_t)result < io->length ? -EIO : 0;
	io->done(io, result);
	shard_check_gone(shard);
}

static void start(struct shard *shard, struct io *io, enum io_kind kind, uint64_t length)
{
	io->op.done = on_done;
	io->shard = shard;
	io->kind = (uint8_t)kind;
	io->length = length;
	/* Not armed, or for a deadline that was longer. */
	if (!loop_timer_is_armed(&shard->watch.timer) ||
	    shard->watch.timer.deadline_ns > loop_now(shard->loop) + look_interval(shard))
		look_again(shard);
	io->started_ns = awake_ns(shard);
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
	start(shard, io, IO_READING, length_of(iov, count));
	loop_file_read(shard->loop, &io->op, file, iov, count, offset);
}

void io_write(struct shard *shard, struct io *io, struct loop_file *file, const struct iovec *iov,
	      unsigned count, uint64_t offset)
{
	start(shard, io, IO_WRITING, 0);
	loop_file_write(shard->loop, &io->op, file, iov, count, offset);
}

void io_sync(struct shard *shard, struct io *io, struct loop_file *file)
{
	start(shard, io, IO_WRITING, 0);
	loop_file_sync(shard->loop, &io->op, file);
}
