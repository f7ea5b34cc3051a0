/*
 * How many commands a second an engine takes, and how long each needs to be committed.
 *
 *   bench_engine SPEC DIR                          a member that only follows, until it is killed
 *   bench_engine SPEC DIR SECONDS SIZE WINDOW...   a member that proposes commands of SIZE bytes, for so long with WINDOW
 *                                                  under way at a time, for each; prints a line of JSON for each
 *
 * DIR is for the files of an engine that has some on each node. Each process is a node of its own. Commands that are
 * not seen for two seconds are proposed again, as any user of an engine must. tests/bench/engines.sh runs
 * this on several hosts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"
#include "lib/base/size.h"
#include "sheep/engine/engine.h"

#define WINDOW_MAX 1024u
#define AGAIN_NS   (2 * NS_PER_S)
#define LOOK_NS	   (50 * NS_PER_MS)

/* How each command begins; the rest is zeroes. */
struct mark {
	uint64_t start;
	uint64_t number;
};

struct slot {
	uint64_t number; /* 0: free */
	uint64_t proposed_ns, first_ns;
};

struct bench {
	struct loop *loop;
	struct engine *engine;
	struct loop_timer timer;
	struct slot slots[WINDOW_MAX];
	unsigned window;
	char **windows; /* those still to come; NULL behind them */
	uint32_t size;
	uint64_t start, number;
	uint64_t seconds, begin_ns, end_ns;
	uint64_t committed, again, sum_ns, max_ns;
	uint8_t command[ENGINE_COMMAND_MAX];
	bool is_ready, is_over;
};

static void propose(struct bench *bench, struct slot *slot)
{
	const struct mark mark = {.start = bench->start, .number = slot->number};

	memcpy(bench->command, &mark, sizeof(mark));
	/* What is refused now is lost, and proposed again by the timer. */
	(void)engine_propose(bench->engine, bench->command, bench->size);
	slot->proposed_ns = loop_clock(bench->loop);
}

static void begin_slot(struct bench *bench, struct slot *slot)
{
	slot->number = ++bench->number;
	slot->first_ns = loop_clock(bench->loop);
	propose(bench, slot);
}

static void tell(const struct bench *bench)
{
	double took = (double)(bench->end_ns - bench->begin_ns) / NS_PER_S;

	printf("{\"engine\": \"%s\", \"window\": %u, \"size\": %u, \"commands\": %llu, \"again\": %llu, "
	       "\"per_second\": %.0f, \"mean_ms\": %.2f, \"max_ms\": %.1f}\n",
	       engine_name(bench->engine), bench->window, bench->size,
	       (unsigned long long)bench->committed, (unsigned long long)bench->again,
	       (double)bench->committed / took,
	       bench->committed ? (double)bench->sum_ns / bench->committed / NS_PER_MS : 0.0,
	       (double)bench->max_ns / NS_PER_MS);
}

static void on_commit(void *context, uint64_t index, const void *command, uint32_t size)
{
	struct bench *bench = context;
	struct mark mark;
	uint64_t now = loop_clock(bench->loop), took;

	if (size < sizeof(mark) || bench->is_over)
		return;
	memcpy(&mark, command, sizeof(mark));
	if (mark.start != bench->start || mark.number == 0)
		return;
	for (unsigned i = 0; i < bench->window; i++) {
		struct slot *slot = &bench->slots[i];
		if (slot->number != mark.number)
			continue;
		took = now - slot->first_ns;
		bench->committed++;
		bench->sum_ns += took;
		if (took > bench->max_ns)
			bench->max_ns = took;
		begin_slot(bench, slot);
		return;
	}
}

static void begin(struct bench *bench)
{
	bench->begin_ns = loop_clock(bench->loop);
	for (unsigned i = 0; i < bench->window; i++)
		begin_slot(bench, &bench->slots[i]);
	loop_timer_start(bench->loop, &bench->timer, loop_now(bench->loop) + LOOK_NS);
}

static void next_window(struct bench *bench)
{
	unsigned long window = *bench->windows ? strtoul(*bench->windows++, NULL, 10) : 0;

	bench->window = (unsigned)min_of(window, (unsigned long)WINDOW_MAX);
	bench->committed = bench->again = bench->sum_ns = bench->max_ns = 0;
	if (bench->window) {
		begin(bench);
		return;
	}
	bench->is_over = true;
	engine_leave(bench->engine);
}

static void on_timer(struct loop_timer *timer)
{
	struct bench *bench = container_of_type(timer, struct bench, timer);
	uint64_t now = loop_clock(bench->loop);

	if (now >= bench->begin_ns + bench->seconds * NS_PER_S) {
		bench->end_ns = now;
		tell(bench);
		next_window(bench);
		return;
	}
	for (unsigned i = 0; i < bench->window; i++) {
		if (now < bench->slots[i].proposed_ns + AGAIN_NS)
			continue;
		bench->again++;
		propose(bench, &bench->slots[i]);
	}
	loop_timer_start(bench->loop, timer, loop_now(bench->loop) + LOOK_NS);
}

static int on_install(void *context, uint64_t index, const void *image, size_t size,
		      struct error *err)
{
	return 0;
}

/* The state is nothing: a byte stands for it. */
static int on_snapshot(void *context, struct engine_image *out)
{
	out->data = calloc(1, 1);
	out->size = 1;
	return out->data ? 0 : -ENOMEM;
}

static void on_ready(void *context)
{
	struct bench *bench = context;

	bench->is_ready = true;
	fprintf(stderr, "ready\n");
}

static void on_members(void *context, const struct engine_member *members, uint32_t count)
{
}

static void on_ended(void *context, const struct uuid *node, uint64_t start, enum engine_end how)
{
}

static void on_quorum(void *context, bool has_quorum)
{
	struct bench *bench = context;

	if (has_quorum && bench->is_ready && bench->seconds && !bench->begin_ns)
		next_window(bench);
}

static void on_failed(void *context, const struct error *err)
{
	fprintf(stderr, "bench_engine: %s\n", err->text);
	exit(1);
}

static void on_left(void *context)
{
	struct bench *bench = context;

	loop_stop(bench->loop);
}

static const struct engine_callbacks callbacks = {
	.commit = on_commit,
	.install = on_install,
	.snapshot = on_snapshot,
	.ready = on_ready,
	.members = on_members,
	.ended = on_ended,
	.quorum = on_quorum,
	.failed = on_failed,
	.left = on_left,
};

static uint32_t number_of(int argc, char **argv, int at, uint32_t otherwise, uint32_t max)
{
	unsigned long value = argc > at ? strtoul(argv[at], NULL, 10) : otherwise;

	return value > max ? max : (uint32_t)value;
}

int main(int argc, char **argv)
{
	struct bench *bench = calloc(1, sizeof(*bench));
	struct engine_options options = {0};
	struct error err = {0};

	if (argc < 3 || !bench) {
		fprintf(stderr, "usage: bench_engine SPEC DIR [SECONDS SIZE WINDOW...]\n");
		return 64;
	}
	bench->seconds = number_of(argc, argv, 3, 0, 86400);
	bench->size = number_of(argc, argv, 4, 200, ENGINE_COMMAND_MAX);
	bench->windows = argv + min_of(argc, 5);
	if (bench->size < sizeof(struct mark))
		bench->size = sizeof(struct mark);
	bench->timer.fire = on_timer;
	if (loop_new(&(struct loop_options){.name = "bench"}, &bench->loop, &err) < 0)
		goto fail;
	bench->start = random_u64(loop_random(bench->loop)) | 1;
	options.self.node = uuid_make(loop_random(bench->loop));
	options.self.start = bench->start;
	options.dir = argv[2];
	if (engine_open(argv[1], bench->loop, &options, &callbacks, bench, &bench->engine, &err) <
	    0)
		goto fail;
	(void)loop_run(bench->loop);
	engine_free(bench->engine);
	loop_free(bench->loop);
	free(bench);
	return 0;
fail:
	fprintf(stderr, "bench_engine: %s\n", err.text);
	return 1;
}
