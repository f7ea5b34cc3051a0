/*
 * local:DIR when the kernel says no, or says nothing: syncs that hang or fail, appends that are cut, a
 * compaction that fails at each of its steps. The faults are put between the loop and its back end.
 */
#include <stdio.h>
#include <unistd.h>

#include "lib/loop/backend.h"
#include "lib/loop/loop_priv.h"
#include "tests/engine/local_bed.h"

/* What to do with ops of one kind by one of a member's three workers. */
enum action { ACTION_PASS, ACTION_HOLD, ACTION_FAIL, ACTION_CUT };
enum worker { WORKER_READER, WORKER_WRITER, WORKER_COMPACTOR, WORKER_COUNT };

struct fault {
	enum action action;
	int error;
	unsigned every; /* each so many-th; 0 and 1: all */
	unsigned left;	/* stop after so many; 0: never */
	unsigned met, done;
};

struct proxy {
	struct loop_backend *backend;
	const struct loop_backend_ops *real;
	struct loop_backend_ops ops;
	struct local *local;
	struct fault faults[WORKER_COUNT][LOOP_OP_KINDS];
	struct loop_op *held[WORKER_COUNT]; /* each worker has one op at a time */
	struct random random;
};

static struct proxy proxies[BED_MEMBERS];

static struct proxy *proxy_of(const struct loop_backend *backend)
{
	for (unsigned n = 0; n < BED_MEMBERS; n++)
		if (proxies[n].backend == backend)
			return &proxies[n];
	fail_msg("no proxy");
	return NULL;
}

/* Which worker's op is it? WORKER_COUNT: none of them. */
static enum worker worker_of(const struct proxy *proxy, const struct loop_op *op)
{
	if (op == &proxy->local->reader.task.op)
		return WORKER_READER;
	if (op == &proxy->local->writer.task.op)
		return WORKER_WRITER;
	return op == &proxy->local->compactor.task.op ? WORKER_COMPACTOR : WORKER_COUNT;
}

static bool is_due(struct fault *fault)
{
	if (fault->action == ACTION_PASS || (fault->left && fault->done == fault->left))
		return false;
	if (fault->every > 1 && ++fault->met % fault->every != 0)
		return false;
	fault->done++;
	return true;
}

/* A part of what an append would have written, and no more. */
static void cut_append(struct proxy *proxy, const struct loop_op *op)
{
	FILE *file = fopen(proxy->local->reader.path, "a");
	size_t size = random_below(&proxy->random, op->iov[0].iov_len + 1);

	assert_non_null(file);
	setbuf(file, NULL);
	assert_int_equal(fwrite(op->iov[0].iov_base, 1, size, file), size);
	(void)fclose(file);
}

static void submit(struct loop_backend *backend, struct loop_op *op)
{
	struct proxy *proxy = proxy_of(backend);
	enum worker worker = worker_of(proxy, op);
	struct fault *fault;

	if (worker == WORKER_COUNT || !is_due(&proxy->faults[worker][op->kind])) {
		proxy->real->submit(backend, op);
		return;
	}
	fault = &proxy->faults[worker][op->kind];
	switch (fault->action) {
	case ACTION_HOLD:
		assert_null(proxy->held[worker]);
		proxy->held[worker] = op;
		return;
	case ACTION_CUT:
		cut_append(proxy, op);
		break;
	default:
		break;
	}
	loop_op_finish(op, fault->error);
}

static void cancel(struct loop_backend *backend, struct loop_op *op)
{
	struct proxy *proxy = proxy_of(backend);

	for (unsigned w = 0; w < WORKER_COUNT; w++) {
		if (proxy->held[w] != op)
			continue;
		proxy->held[w] = NULL;
		loop_op_finish(op, -ECANCELED);
		return;
	}
	proxy->real->cancel(backend, op);
}

static void release(struct proxy *proxy, enum worker worker)
{
	struct loop_op *op = proxy->held[worker];

	memset(proxy->faults[worker], 0, sizeof(proxy->faults[worker]));
	proxy->held[worker] = NULL;
	if (op)
		proxy->real->submit(proxy->backend, op);
}

/* From now on ops of member @number go by us. */
static struct proxy *watch(struct bed *bed, unsigned number)
{
	struct proxy *proxy = &proxies[number];

	*proxy = (struct proxy){
		.backend = loop_backend_of(bed->members[number].loop),
		.local = local_of(bed, number),
	};
	proxy->real = bed->members[number].loop->ops;
	proxy->ops = *proxy->real;
	proxy->ops.submit = submit;
	proxy->ops.cancel = cancel;
	bed->members[number].loop->ops = &proxy->ops;
	random_init(&proxy->random, number + 1);
	return proxy;
}

static void unwatch(struct proxy *proxy)
{
	proxy->backend->loop->ops = proxy->real;
	proxy->backend = NULL;
}

/* ---- the tests ---- */

static void test_nothing_is_seen_before_it_is_synced(void **state)
{
	struct bed *bed = *state;
	struct proxy *proxy;
	uint64_t index;

	bed_start_all(bed, 2);
	bed_propose(bed, 0, 5);
	BED_UNTIL(bed, bed_is_settled(bed));
	index = bed->members[1].index;
	proxy = watch(bed, 1);
	proxy->faults[WORKER_READER][LOOP_OP_SYNC].action = ACTION_HOLD;
	bed_propose(bed, 0, 5);
	bed_propose(bed, 1, 5); /* its own too */
	BED_UNTIL(bed, proxy->held[WORKER_READER]);
	BED_NEVER(bed, 200 * NS_PER_MS, bed->members[1].index != index);
	assert_true(bed->members[0].index > index); /* the other has its own sync */
	release(proxy, WORKER_READER);
	BED_UNTIL(bed, bed_is_settled(bed));
	unwatch(proxy);
}

static void test_failed_sync_fails_the_engine(void **state)
{
	struct bed *bed = *state;
	struct proxy *proxy;
	uint64_t index;

	bed_start_all(bed, 2);
	index = bed->members[1].index;
	proxy = watch(bed, 1);
	proxy->faults[WORKER_READER][LOOP_OP_SYNC] = (struct fault){ACTION_FAIL, -EIO};
	bed_propose(bed, 0, 5);
	BED_UNTIL(bed, bed->members[1].has_failed);
	assert_int_equal(bed->members[1].failure.code, -EIO);
	assert_non_null(strstr(bed->members[1].failure.text, "sync"));
	assert_int_equal(bed->members[1].index, index);
	BED_UNTIL(bed, bed->members[0].settled == 5);
	bed_leave(bed, 1);
	unwatch(proxy);
}

static void test_failed_append_fails_the_engine(void **state)
{
	struct bed *bed = *state;
	struct proxy *proxy;

	bed_start_all(bed, 2);
	proxy = watch(bed, 1);
	proxy->faults[WORKER_WRITER][LOOP_OP_WRITE] = (struct fault){ACTION_FAIL, -EIO};
	bed_propose(bed, 1, 5);
	BED_UNTIL(bed, bed->members[1].has_failed);
	assert_non_null(strstr(bed->members[1].failure.text, "append"));
	bed_leave(bed, 1);
	unwatch(proxy);
	bed_start_all(bed, 2);
	BED_UNTIL(bed, bed_is_settled(bed));
}

/* Every other append is cut somewhere, as by a full disk: all is committed in the end, once. */
static void test_cut_appends_are_sent_again(void **state)
{
	struct bed *bed = *state;
	struct engine_stats stats;
	struct proxy *proxy;

	bed->compact_bytes = 20000;
	bed_start_all(bed, 3);
	proxy = watch(bed, 1);
	proxy->faults[WORKER_WRITER][LOOP_OP_WRITE] =
		(struct fault){.action = ACTION_CUT, .error = -ENOSPC, .every = 2};
	for (int round = 0; round < 15; round++) {
		for (unsigned n = 0; n < 3; n++)
			bed_propose(bed, n, 10);
		BED_UNTIL(bed, bed_is_settled(bed));
	}
	assert_true(proxy->faults[WORKER_WRITER][LOOP_OP_WRITE].done > 5);
	engine_stats_get(bed->members[1].engine, &stats);
	assert_true(stats.proposals_again > 0);
	for (unsigned n = 0; n < 3; n++)
		if (!bed->members[n].installs)
			assert_int_equal(bed->members[n].commits, 450);
	bed_leave(bed, 1);
	unwatch(proxy);
}

/* An append that hangs keeps its member from proposing, and from leaving a sealed file; nobody else. */
static void test_hung_append_holds_up_nobody_else(void **state)
{
	struct bed *bed = *state;
	struct proxy *proxy;

	bed->compact_bytes = 8192;
	bed_start_all(bed, 2);
	proxy = watch(bed, 1);
	proxy->faults[WORKER_WRITER][LOOP_OP_WRITE].action = ACTION_HOLD;
	bed_propose(bed, 1, 5);
	BED_UNTIL(bed, proxy->held[WORKER_WRITER]);
	for (int round = 0; round < 10; round++) {
		bed_propose(bed, 0, 30);
		BED_UNTIL(bed, bed->members[0].settled == bed->members[0].proposed);
	}
	assert_true(bed->members[0].snapshots > 0);
	release(proxy, WORKER_WRITER); /* it lands in a file that is long over */
	BED_UNTIL(bed, bed_is_settled(bed));
	bed_leave(bed, 1);
	unwatch(proxy);
}

/* Each step of each compaction fails in turn: the log goes on, and is compacted when it works again. */
static void test_compaction_may_fail_at_each_step(void **state)
{
	static const enum loop_op_kind kinds[] = {LOOP_OP_OPEN, LOOP_OP_WRITE, LOOP_OP_SYNC};
	struct bed *bed = *state;
	struct proxy *proxy;

	bed->compact_bytes = 6000;
	for (unsigned i = 0; i < ARRAY_COUNT(kinds); i++) {
		for (unsigned every = 1; every <= 4; every++) {
			uint64_t before;

			bed_start_all(bed, 2);
			proxy = watch(bed, 0);
			proxy->faults[WORKER_COMPACTOR][kinds[i]] = (struct fault){
				.action = ACTION_FAIL, .error = -ENOSPC, .every = every};
			for (int round = 0; round < 60; round++) {
				if (round > 6 && proxy->faults[WORKER_COMPACTOR][kinds[i]].done)
					break;
				bed_propose(bed, 0, 25);
				BED_UNTIL(bed, bed_is_settled(bed));
			}
			assert_true(proxy->faults[WORKER_COMPACTOR][kinds[i]].done > 0);
			release(proxy, WORKER_COMPACTOR);
			before = bed->members[0].snapshots + bed->members[1].snapshots;
			while (bed->members[0].snapshots + bed->members[1].snapshots == before) {
				bed_propose(bed, 0, 25);
				BED_UNTIL(bed, bed_is_settled(bed));
			}
			bed_leave(bed, 0);
			unwatch(proxy);
		}
	}
	bed_start_all(bed, 3);
	BED_UNTIL(bed, bed_is_settled(bed));
}

/* A compaction that hangs at a step: another's goes through, ours ends without harm. */
static void test_compaction_that_hangs_is_overtaken(void **state)
{
	static const enum loop_op_kind kinds[] = {LOOP_OP_OPEN, LOOP_OP_WRITE, LOOP_OP_SYNC};
	struct bed *bed = *state;
	struct proxy *proxy;

	bed->compact_bytes = 6000;
	for (unsigned i = 0; i < ARRAY_COUNT(kinds); i++) {
		for (unsigned every = 1; every <= 4; every++) {
			uint64_t before;

			bed_start_all(bed, 2);
			proxy = watch(bed, 0);
			proxy->faults[WORKER_COMPACTOR][kinds[i]] =
				(struct fault){.action = ACTION_HOLD, .every = every, .left = 1};
			for (int round = 0; round < 40 && !proxy->held[WORKER_COMPACTOR]; round++) {
				bed_propose(bed, 0, 20);
				BED_UNTIL(bed, bed_is_settled(bed));
			}
			assert_non_null(proxy->held[WORKER_COMPACTOR]);
			before = bed->members[1].snapshots;
			while (bed->members[1].snapshots < before + 2) {
				bed_propose(bed, 1, 20);
				BED_UNTIL(bed, bed_is_settled(bed));
			}
			release(proxy, WORKER_COMPACTOR);
			bed_propose(bed, 0, 20);
			BED_UNTIL(bed, bed_is_settled(bed));
			bed_leave(bed, 0);
			unwatch(proxy);
			bed_leave(bed, 1);
		}
	}
	bed_start_all(bed, 3);
	BED_UNTIL(bed, bed_is_settled(bed));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BED_TEST(test_nothing_is_seen_before_it_is_synced),
		BED_TEST(test_failed_sync_fails_the_engine),
		BED_TEST(test_failed_append_fails_the_engine),
		BED_TEST(test_cut_appends_are_sent_again),
		BED_TEST(test_hung_append_holds_up_nobody_else),
		BED_TEST(test_compaction_may_fail_at_each_step),
		BED_TEST(test_compaction_that_hangs_is_overtaken),
	};

	return cmocka_run_group_tests_name("engine: local, faults", tests, NULL, NULL);
}
