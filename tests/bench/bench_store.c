/*
 * The store by itself on a real file system: appends and reads of 4 KiB at random places.
 *
 *   bench_store DIR [seconds per job [MiB of data]]
 *
 * Prints operations per second, and CPU microseconds per operation: of this thread's own code (user)
 * and with the kernel's part. DIR/bench-store is made anew and removed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/crc32c.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "sheep/store/store.h"

#define DEPTH_MAX 64u
#define PGS	  256u

struct bench;

struct slot {
	struct bench *bench;
	struct store_append append;
	struct store_read read;
	struct store_run run;
	struct slice slice;
	uint32_t crc;
	uint64_t layer;
	uint32_t object;
};

struct bench {
	struct loop *loop;
	struct store *store;
	struct random random;
	struct slot slots[DEPTH_MAX];
	struct version *versions;
	uint64_t n;
	uint32_t objects;
	uint64_t done, limit_ns;
	uint32_t busy;
	bool is_read;
	bool is_sequential;
	uint64_t next;
	uint64_t sync_every, since_sync;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void next(struct slot *slot);

static void on_append(struct store_append *append, int result)
{
	struct slot *slot = container_of_type(append, struct slot, append);

	if (result < 0) {
		fprintf(stderr, "append: %s\n", err_text(result));
		exit(1);
	}
	slot->bench->done++;
	slot->bench->busy--;
	next(slot);
}

static void on_read(struct store_read *read, int result)
{
	struct slot *slot = container_of_type(read, struct slot, read);

	if (result < 0) {
		fprintf(stderr, "read: %s\n", err_text(result));
		exit(1);
	}
	buffer_put(read->data.buffer);
	slot->bench->done++;
	slot->bench->busy--;
	next(slot);
}

static void next(struct slot *slot)
{
	struct bench *b = slot->bench;
	uint32_t blocks = b->is_sequential ? 16 : 1;

	if (b->is_sequential ? b->next >= (uint64_t)b->objects * OBJECT_BLOCKS
			     : loop_now(b->loop) >= b->limit_ns) {
		if (b->busy == 0)
			loop_stop(b->loop);
		return;
	}

	uint64_t at = b->is_sequential
			      ? b->next
			      : random_below(&b->random, (uint64_t)b->objects * OBJECT_BLOCKS);

	b->next += blocks;
	slot->object = (uint32_t)(at / OBJECT_BLOCKS);
	slot->layer = 1;
	b->busy++;
	if (b->is_read) {
		slot->read = (struct store_read){.done = on_read,
						 .pg = slot->object % PGS,
						 .family = 1,
						 .index = slot->object,
						 .layers = &slot->layer,
						 .layer_count = 1,
						 .block = (uint32_t)(at % OBJECT_BLOCKS),
						 .count = 1};
		store_read(b->store, &slot->read);
		return;
	}
	slot->run =
		(struct store_run){(uint16_t)(at % OBJECT_BLOCKS), (uint16_t)blocks, BLOCK_DATA};
	slot->slice.size = blocks * BLOCK_SIZE;
	slot->append = (struct store_append){.done = on_append,
					     .pg = slot->object % PGS,
					     .family = 1,
					     .key = {1, slot->object},
					     .version = {1, ++b->n},
					     .previous = b->versions[slot->object],
					     .session = 1,
					     .number = b->n,
					     .lowest = b->n > 256 ? b->n - 256 : 0,
					     .run_count = 1,
					     .runs = &slot->run,
					     .slice_count = 1,
					     .slices = &slot->slice,
					     .crcs = blocks == 1 ? &slot->crc : NULL};
	b->versions[slot->object] = slot->append.version;
	int rc = store_append(b->store, &slot->append);
	if (rc < 0) {
		fprintf(stderr, "append: %s\n", err_text(rc));
		exit(1);
	}
	store_set_commit(b->store, slot->append.pg, slot->append.previous);
}

static double seconds_of(struct timeval t)
{
	return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static void job(struct bench *b, const char *name, uint32_t depth, double seconds)
{
	struct rusage before, after;
	struct store_counters c0, c1;
	double start = now();

	b->done = 0;
	b->next = 0;
	(void)loop_turn(b->loop, 0);
	b->limit_ns = loop_now(b->loop) + (uint64_t)(seconds * 1e9);
	store_counters(b->store, &c0);
	getrusage(RUSAGE_SELF, &before);
	for (uint32_t i = 0; i < depth; i++)
		next(&b->slots[i]);
	(void)loop_run(b->loop);
	getrusage(RUSAGE_SELF, &after);
	store_counters(b->store, &c1);

	double took = now() - start, done = (double)b->done;
	double user = seconds_of(after.ru_utime) - seconds_of(before.ru_utime);
	double system = seconds_of(after.ru_stime) - seconds_of(before.ru_stime);
	double batches = (double)(c1.batches - c0.batches);

	printf("%-22s %9.0f /s  %6.2f us user  %6.2f us user+system", name, done / took,
	       user / done * 1e6, (user + system) / done * 1e6);
	if (batches > 0)
		printf("  %5.1f entries/batch  %.2f bytes/byte", done / batches,
		       (double)(c1.bytes_appended - c0.bytes_appended) /
			       (double)(c1.bytes_data - c0.bytes_data));
	printf("\n");
	fflush(stdout);
}

static int remove_one(void *context, const char *name)
{
	char path[2048];

	snprintf(path, sizeof(path), "%s/%s", (const char *)context, name);
	return unlink(path);
}

static void on_stopped(struct loop_op *op, int result)
{
	loop_stop(op->loop);
}

int main(int argc, char **argv)
{
	struct bench b = {.objects = 256};
	struct loop_options loop_options = {.busy_poll_us = 0};
	struct loop_op stop = {.done = on_stopped};
	struct error err = {0};
	char path[1024];
	double seconds = argc > 2 ? atof(argv[2]) : 3;
	uint64_t mib = argc > 3 ? (uint64_t)atoll(argv[3]) : 1024;

	if (argc < 2) {
		fprintf(stderr, "bench_store DIR [SECONDS [MIB]]\n");
		return 2;
	}
	b.objects = (uint32_t)(mib * MIB / OBJECT_SIZE);
	b.versions = calloc(b.objects, sizeof(*b.versions));
	random_init(&b.random, 1);
	snprintf(path, sizeof(path), "%s/bench-store", argv[1]);
	if (loop_new(&loop_options, &b.loop, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	(void)loop_sync_list(b.loop, path, remove_one, path);

	const struct store_options options = {.size_bytes = 3 * mib * MIB};

	if (store_open(&b.loop, 1, path, &options, NULL, &b.store, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	for (uint32_t i = 0; i < DEPTH_MAX; i++) {
		struct slot *slot = &b.slots[i];
		slot->bench = &b;
		slot->slice =
			slice_of(buffer_new(loop_buffers(b.loop), 16 * BLOCK_SIZE), 0, BLOCK_SIZE);
		memset(slot->slice.data, (int)i, 16 * BLOCK_SIZE);
		slot->crc = crc32c(slot->slice.data, BLOCK_SIZE);
	}
	b.is_sequential = true;
	job(&b, "fill 64k qd16", 16, 0);
	b.is_sequential = false;
	static const uint32_t depths[] = {1, 16, 64};
	for (unsigned kind = 0; kind < 2; kind++)
		for (unsigned i = 0; i < ARRAY_COUNT(depths); i++) {
			char name[64];
			snprintf(name, sizeof(name), "%s 4k qd%u", kind ? "read" : "append",
				 depths[i]);
			b.is_read = kind;
			job(&b, name, depths[i], seconds);
		}
	store_stop_shard(b.store, 0, &stop);
	(void)loop_run(b.loop);
	store_close(b.store);
	for (uint32_t i = 0; i < DEPTH_MAX; i++)
		buffer_put(b.slots[i].slice.buffer);
	(void)loop_sync_list(b.loop, path, remove_one, path);
	(void)rmdir(path);
	loop_free(b.loop);
	free(b.versions);
	return 0;
}
