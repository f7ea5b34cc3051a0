/*
 * How long the store holds its loop when it holds many objects, and what they cost in memory.
 *
 *   bench_turns DIR [OBJECTS [PGS]]
 *
 * Fills a store with objects of 16 index pages each (of zeroes: a full object costs the index the same, and
 * the disk nothing), then overwrites some while checkpoints are made, drops a PG, stops, and opens it again. For
 * each step it prints the longest turns by the CPU time of this thread, so that other processes do not count.
 * DIR/bench-turns is made anew and removed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/log.h"
#include "lib/base/size.h"
#include "sheep/store/store.h"

#define DEPTH 64u

struct bench;

struct slot {
	struct bench *bench;
	struct store_append append;
	struct store_run run;
	bool is_busy;
};

struct bench {
	struct loop *loop;
	struct store *store;
	struct random random;
	struct slot slots[DEPTH];
	uint32_t objects, pgs, next, limit;
	uint64_t n;
	bool is_random;
	bool is_done;
	uint64_t turns, over_ms[64]; /* by milliseconds */
	double longest;
};

static double clock_of(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t rss_bytes(void)
{
	unsigned long pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	if (!file || fscanf(file, "%*u %lu", &pages) != 1)
		pages = 0;
	if (file)
		(void)fclose(file);
	return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void die(const char *what, int rc)
{
	fprintf(stderr, "%s: %s\n", what, err_text(rc));
	exit(1);
}

static void turn(struct bench *b)
{
	double before = clock_of(CLOCK_THREAD_CPUTIME_ID);
	int rc = loop_turn(b->loop, loop_now(b->loop) + 100 * NS_PER_MS);
	double took = clock_of(CLOCK_THREAD_CPUTIME_ID) - before;

	if (rc < 0 && rc != -ETIME)
		die("turn", rc);
	b->turns++;
	if (took > b->longest)
		b->longest = took;
	b->over_ms[min_of((uint64_t)(took * 1e3), (uint64_t)ARRAY_COUNT(b->over_ms) - 1)]++;
}

static void report(struct bench *b, const char *what, double start)
{
	uint64_t over5 = 0, over20 = 0;

	for (size_t i = 5; i < ARRAY_COUNT(b->over_ms); i++) {
		over5 += b->over_ms[i];
		over20 += i >= 20 ? b->over_ms[i] : 0;
	}
	printf("%-34s %7.2f s %9llu turns, longest %7.2f ms, %llu over 5 ms, %llu over 20 ms\n",
	       what, clock_of(CLOCK_MONOTONIC) - start, (unsigned long long)b->turns,
	       b->longest * 1e3, (unsigned long long)over5, (unsigned long long)over20);
	(void)fflush(stdout);
	b->turns = 0;
	b->longest = 0;
	memset(b->over_ms, 0, sizeof(b->over_ms));
}

/* ---- load ---- */

static void next(struct slot *slot);

static void on_append(struct store_append *append, int result)
{
	struct slot *slot = container_of_type(append, struct slot, append);

	if (result < 0)
		die("append", result);
	slot->is_busy = false;
	next(slot);
}

static void next(struct slot *slot)
{
	struct bench *b = slot->bench;
	uint32_t object;

	if (b->next == b->limit)
		return;
	object = b->is_random ? (uint32_t)random_below(&b->random, b->objects) : b->next;
	b->next++;
	slot->run = (struct store_run){0, b->is_random ? 1 : OBJECT_BLOCKS, BLOCK_ZERO};
	slot->append = (struct store_append){.done = on_append,
					     .pg = object % b->pgs,
					     .family = 1,
					     .key = {1, object},
					     .version = {1, ++b->n},
					     .flags = STORE_ANY_PREVIOUS,
					     .run_count = 1,
					     .runs = &slot->run};
	int rc = store_append(b->store, &slot->append);
	if (rc < 0)
		die("append", rc);
	slot->is_busy = true;
	store_set_commit(b->store, slot->append.pg, slot->append.version);
}

static bool is_busy(const struct bench *b)
{
	for (uint32_t i = 0; i < DEPTH; i++)
		if (b->slots[i].is_busy)
			return true;
	return false;
}

static void load(struct bench *b, const char *what, uint32_t count)
{
	double start = clock_of(CLOCK_MONOTONIC);

	b->next = 0;
	b->limit = count;
	for (uint32_t i = 0; i < DEPTH; i++)
		next(&b->slots[i]);
	while (is_busy(b))
		turn(b);
	report(b, what, start);
}

/* ---- other steps ---- */

static struct bench *waiting;

static void on_op(struct loop_op *op, int result)
{
	if (result < 0)
		die("operation", result);
	waiting->is_done = true;
}

static void wait_for(struct bench *b, const char *what)
{
	double start = clock_of(CLOCK_MONOTONIC);

	while (!b->is_done)
		turn(b);
	report(b, what, start);
}

static void drop(struct bench *b)
{
	struct loop_op op = {.done = on_op};

	b->is_done = false;
	store_drop_pg(b->store, 0, &op);
	wait_for(b, "drop a PG");
}

static void stop(struct bench *b)
{
	struct loop_op op = {.done = on_op};

	b->is_done = false;
	store_stop_shard(b->store, 0, &op);
	wait_for(b, "stop, with a checkpoint");
	store_close(b->store);
}

static void open_store(struct bench *b, const char *path)
{
	const struct store_options options = {.size_bytes = 16 * GIB, .cache_bytes = 64u << 20};
	double start = clock_of(CLOCK_MONOTONIC);
	struct error err = {0};

	if (store_open(&b->loop, 1, path, &options, NULL, &b->store, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		exit(1);
	}
	printf("%-34s %7.2f s\n", "open", clock_of(CLOCK_MONOTONIC) - start);
}

static int remove_one(void *context, const char *name)
{
	char path[2048];

	snprintf(path, sizeof(path), "%s/%s", (const char *)context, name);
	return unlink(path);
}

static void print_checkpoint(const char *path)
{
	char name[2048];
	FILE *file;
	long size = 0;

	for (unsigned i = 0; i < 2; i++) {
		snprintf(name, sizeof(name), "%s/checkpoint.00.0000%u", path, i);
		file = fopen(name, "r");
		if (file && fseek(file, 0, SEEK_END) == 0 && ftell(file) > size)
			size = ftell(file);
		if (file)
			(void)fclose(file);
	}
	printf("the larger checkpoint has %.1f MiB\n", (double)size / (double)MIB);
}

int main(int argc, char **argv)
{
	struct bench b = {.objects = argc > 2 ? (uint32_t)atoi(argv[2]) : 1000000,
			  .pgs = argc > 3 ? (uint32_t)atoi(argv[3]) : 64};
	struct loop_options loop_options = {.busy_poll_us = 0};
	struct error err = {0};
	char path[1024];
	uint64_t before;

	if (argc < 2) {
		fprintf(stderr, "bench_turns DIR [OBJECTS [PGS]]\n");
		return 2;
	}
	waiting = &b;
	random_init(&b.random, 1);
	for (uint32_t i = 0; i < DEPTH; i++)
		b.slots[i].bench = &b;
	snprintf(path, sizeof(path), "%s/bench-turns", argv[1]);
	if (loop_new(&loop_options, &b.loop, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	(void)loop_sync_list(b.loop, path, remove_one, path);
	open_store(&b, path);
	before = rss_bytes();
	load(&b, "make the objects", b.objects);
	b.is_random = true;
	load(&b, "overwrite at random", b.objects / 4);
	printf("%.0f bytes of memory per object, the cache of pages included\n",
	       (double)(rss_bytes() - before) / b.objects);
	stop(&b);
	print_checkpoint(path);
	before = rss_bytes();
	open_store(&b, path);
	load(&b, "overwrite at random, cold", b.objects / 16);
	drop(&b);
	stop(&b);
	(void)loop_sync_list(b.loop, path, remove_one, path);
	(void)rmdir(path);
	loop_free(b.loop);
	return 0;
}
