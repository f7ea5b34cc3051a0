/*
 * A store that is nearly full and overwritten at random many times its size: the cleaner keeps up, content
 * stays right, figures of space stay true; at the very end nothing more fits, and a trim makes room.
 *
 * Trap: a run too short for the cleaner to be needed passes whatever it does: the test asserts how often
 * the store was written over.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/store_rig.h"

#define PGS	    4u
#define INFLIGHT    32u
#define ENTRY_MAX   64u
#define LOOKS	    8u /* reads in flight */
#define LOOK_BLOCKS 8u

struct filler {
	struct rig rig;
	struct random *random;
	uint32_t *tags;	   /* of each block of a disk that is laid over the objects */
	uint32_t *visible; /* the same, of what was acknowledged */
	uint32_t blocks;
	uint32_t next_tag;
	uint64_t n;
	struct version *versions; /* per object */
	struct slot {
		struct rig_append a;
		struct filler *filler;
		uint32_t block, tag;
		bool is_busy;
	} slots[INFLIGHT];
	uint32_t busy;
	struct look {
		struct store_read read;
		struct filler *filler;
		uint32_t block;
		uint32_t floors[LOOK_BLOCKS]; /* tags that were there when it began */
		bool is_busy;
	} looks[LOOKS];
	uint64_t looked;
};

static void on_done(struct store_append *append, int result)
{
	struct slot *slot = container_of_type(append, struct slot, a.append);

	assert_int_equal(result, 0);
	slot->a.is_done = true;
	for (uint32_t i = 0; slot->tag && i < slot->a.runs[0].count; i++)
		slot->filler->visible[slot->block + i] = slot->tag + i;
}

static void reap(struct filler *f)
{
	for (uint32_t i = 0; i < INFLIGHT; i++)
		if (f->slots[i].is_busy && f->slots[i].a.is_done) {
			rig_append_free(&f->slots[i].a);
			f->slots[i].is_busy = false;
			f->busy--;
		}
}

/* ---- reads while everything moves ---- */

/* Each block is what was acknowledged when the read began, or something newer: tags only grow. */
static void on_looked(struct store_read *read, int result)
{
	struct look *look = container_of_type(read, struct look, read);
	uint8_t expected[BLOCK_SIZE] __attribute__((aligned(8)));

	assert_int_equal(result, 0);
	for (uint32_t i = 0; i < read->count; i++) {
		uint64_t tag;
		memcpy(&tag, read->data.data + i * BLOCK_SIZE, sizeof(tag));
		rig_fill((uint32_t)tag, expected);
		assert_memory_equal(read->data.data + i * BLOCK_SIZE, expected, BLOCK_SIZE);
		assert_true(tag >= look->floors[i]);
	}
	buffer_put(read->data.buffer);
	look->is_busy = false;
	look->filler->looked++;
}

static void look_around(struct filler *f)
{
	static const uint64_t layer = 1;

	for (uint32_t i = 0; i < LOOKS; i++) {
		struct look *look = &f->looks[i];
		uint32_t block = (uint32_t)random_below(f->random, f->blocks - LOOK_BLOCKS);
		if (look->is_busy || block % OBJECT_BLOCKS > OBJECT_BLOCKS - LOOK_BLOCKS)
			continue;
		memset(look, 0, sizeof(*look));
		look->filler = f;
		look->is_busy = true;
		memcpy(look->floors, f->visible + block, sizeof(look->floors));
		look->read = (struct store_read){.done = on_looked,
						 .pg = block / OBJECT_BLOCKS % PGS,
						 .family = rig_family(1),
						 .index = block / OBJECT_BLOCKS,
						 .layers = &layer,
						 .layer_count = 1,
						 .block = block % OBJECT_BLOCKS,
						 .count = LOOK_BLOCKS};
		store_read(f->rig.store, &look->read);
	}
}

static bool has_looked(void *context)
{
	struct filler *f = context;

	for (uint32_t i = 0; i < LOOKS; i++)
		if (f->looks[i].is_busy)
			return false;
	return true;
}

static bool has_slot(void *context)
{
	struct filler *f = context;

	reap(f);
	return f->busy < INFLIGHT;
}

static bool is_idle(void *context)
{
	struct filler *f = context;

	reap(f);
	return f->busy == 0;
}

/* One entry over [block, block + count) of the disk, within one object. */
static int put(struct filler *f, uint32_t block, uint32_t count, enum block_state state)
{
	uint32_t object = block / OBJECT_BLOCKS, tags[ENTRY_MAX];
	struct slot *slot = f->slots;

	rig_until(&f->rig, has_slot, f);
	while (slot->is_busy)
		slot++;
	memset(slot, 0, sizeof(*slot));
	slot->a.append = (struct store_append){.pg = object % PGS,
					       .key = {.layer = 1, .index = object},
					       .family = rig_family(1),
					       .version = {1, ++f->n},
					       .previous = f->versions[object],
					       .run_count = 1};
	slot->a.runs[0] = (struct store_run){(uint16_t)(block % OBJECT_BLOCKS), (uint16_t)count,
					     (uint8_t)state};
	for (uint32_t i = 0; i < count && state == BLOCK_DATA; i++)
		tags[i] = f->next_tag++;
	const struct store_request request = {8, f->n, {1, f->n}, slot->a.append.key};

	if (f->n % 64 == 0) { /* as an entry that settles what was in doubt */
		slot->a.append.flags |= STORE_REQUESTS;
		slot->a.append.requests = &request;
		slot->a.append.request_count = 1;
	}

	int rc = rig_append(&f->rig, &slot->a, tags);

	if (rc < 0)
		return rc;
	slot->a.append.done = on_done;
	slot->filler = f;
	slot->block = block;
	slot->tag = state == BLOCK_DATA ? tags[0] : 0;
	slot->is_busy = true;
	f->busy++;
	f->versions[object] = slot->a.append.version;
	for (uint32_t i = 0; i < count; i++)
		f->tags[block + i] = state == BLOCK_DATA ? tags[i] : RIG_TAG_ABSENT;
	return 0;
}

static void check_content(struct filler *f)
{
	static uint32_t tags[OBJECT_BLOCKS];

	rig_until(&f->rig, is_idle, f);
	rig_until(&f->rig, has_looked, f);
	for (uint32_t object = 0; object * OBJECT_BLOCKS < f->blocks; object++) {
		uint32_t first = object * OBJECT_BLOCKS;
		uint32_t count = min_of(f->blocks - first, OBJECT_BLOCKS);
		assert_int_equal(rig_read(&f->rig, object % PGS, 1, object, 0, count, tags), 0);
		assert_memory_equal(tags, f->tags + first, count * sizeof(tags[0]));
	}
}

static uint64_t written_blocks(const struct filler *f)
{
	uint64_t count = 0;

	for (uint32_t i = 0; i < f->blocks; i++)
		count += f->tags[i] != RIG_TAG_ABSENT;
	return count;
}

/* Live bytes are the data and the pages that describe it: 832 of 262,144 at most. */
static void check_space(struct filler *f)
{
	uint64_t data = written_blocks(f) * BLOCK_SIZE;
	struct store_space space;

	rig_until(&f->rig, is_idle, f);
	rig_settle(&f->rig, 10 * NS_PER_MS);
	store_space(f->rig.store, &space);
	assert_true(space.live_bytes >= data);
	assert_true(space.live_bytes <= data + data / 100 + 1 * MIB);
	assert_true(space.allocated_bytes <= space.size_bytes);
	assert_true(space.allocated_bytes >= space.live_bytes);
}

static void filler_init(struct filler *f, uint64_t size, uint32_t percent)
{
	const struct store_options options = {
		.size_bytes = size, .segment_bytes = 1 * MIB, .has_small_segments = true};

	memset(f, 0, sizeof(*f));
	/* Reads take long enough for the cleaner to empty what they read from. */
	const struct sim_latency latency = {.read_min_ns = 50 * NS_PER_US,
					    .read_max_ns = 50 * NS_PER_MS,
					    .write_min_ns = 20 * NS_PER_US,
					    .write_max_ns = 80 * NS_PER_US,
					    .sync_min_ns = 30 * NS_PER_US,
					    .sync_max_ns = 100 * NS_PER_US};

	rig_init(&f->rig, 7, &options);
	sim_host_set_latency(f->rig.host, &latency);
	f->random = sim_random(f->rig.world);
	rig_open_ok(&f->rig);
	f->next_tag = 1;
	/* Room for the disk, and for what the last test writes until the store is full. */
	f->tags = calloc(2 * size / BLOCK_SIZE, sizeof(*f->tags));
	f->visible = calloc(2 * size / BLOCK_SIZE, sizeof(*f->visible));
	f->versions = calloc(2 * size / OBJECT_SIZE + 1, sizeof(*f->versions));
	f->blocks = (uint32_t)(store_credit(f->rig.store, 0) / 100 * percent / BLOCK_SIZE);
}

static void filler_done(struct filler *f)
{
	rig_crash(&f->rig);
	for (uint32_t i = 0; i < INFLIGHT; i++)
		rig_append_free(&f->slots[i].a);
	free(f->tags);
	free(f->visible);
	free(f->versions);
	rig_done(&f->rig);
}

static void fill(struct filler *f)
{
	for (uint32_t block = 0; block < f->blocks; block += ENTRY_MAX)
		assert_int_equal(put(f, block, min_of(ENTRY_MAX, f->blocks - block), BLOCK_DATA),
				 0);
}

/* Overwrite at random, @blocks blocks in all. */
static void overwrite(struct filler *f, uint64_t blocks)
{
	while (blocks > 0) {
		uint32_t count = 1 + (uint32_t)random_below(f->random, 4);
		uint32_t block = (uint32_t)random_below(f->random, f->blocks - count);
		count = min_of(count, OBJECT_BLOCKS - block % OBJECT_BLOCKS);
		int rc = put(f, block, count, BLOCK_DATA);
		if (rc == -ENOSPC) {
			/* Each entry in flight takes its credit before it gives any back. */
			rig_until(&f->rig, is_idle, f);
			rc = put(f, block, count, BLOCK_DATA);
		}
		assert_int_equal(rc, 0);
		if (random_below(f->random, 8) == 0)
			look_around(f);
		blocks -= min_of(blocks, (uint64_t)count);
	}
}

static bool is_long(void)
{
	const char *text = getenv("SHEEPFOLD_LONG");

	return text && *text;
}

static void test_random_overwrites_at_85_percent_stay_right_and_cheap(void **state)
{
	struct filler *f = calloc(1, sizeof(*f));
	struct store_counters before, after;
	uint64_t size = 256 * MIB, times10 = is_long() ? 100 : 20;

	filler_init(f, size, 85);
	fill(f);
	check_content(f);
	check_space(f);
	store_counters(f->rig.store, &before);
	for (uint64_t i = 0; i < times10; i += 5) {
		overwrite(f, size / BLOCK_SIZE / 2);
		check_content(f);
		check_space(f);
	}
	store_counters(f->rig.store, &after);
	assert_true(f->looked > 1000);

	double data = (double)(after.bytes_data - before.bytes_data);
	double moved = (double)(after.cleaner_bytes_moved - before.cleaner_bytes_moved);
	double appended = (double)(after.bytes_appended - before.bytes_appended);

	printf("85 %% full, overwritten %.1f times: cleaner wrote %.2f per byte, all that was appended %.2f; "
	       "%llu checkpoints, %llu segments cleaned\n",
	       data / (double)size, moved / data, appended / data,
	       (unsigned long long)(after.checkpoints - before.checkpoints),
	       (unsigned long long)(after.cleaner_segments - before.cleaner_segments));
	assert_true(data >= (double)size * (double)times10 / 10);
	assert_true(moved > 0);
	assert_true((data + moved) / data < 5);
	/* And it all comes back. */
	rig_stop(&f->rig);
	rig_open_ok(&f->rig);
	check_content(f);
	check_space(f);
	filler_done(f);
	free(f);
}

/* Dear, but it never stops: what is kept free is enough to go on making space. */
static void test_random_overwrites_at_96_percent_go_on(void **state)
{
	struct filler *f = calloc(1, sizeof(*f));

	for (unsigned i = 0; i < 3; i++) {
		filler_init(f, (20 + 30 * i) * MIB, 96);
		fill(f);
		check_content(f);
		for (unsigned j = 0; j < 4; j++) {
			overwrite(f, f->blocks / 2);
			check_content(f);
			check_space(f);
		}
		filler_done(f);
	}
	free(f);
}

/* Whatever was accepted completes, however the last bytes of credit are used up. */
static void test_store_filled_to_its_credit_completes_all_it_took(void **state)
{
	static const uint32_t sizes[] = {1, 16, ENTRY_MAX};
	struct filler *f = calloc(1, sizeof(*f));

	for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
		uint32_t block = 0;
		filler_init(f, 64 * MIB, 100);
		for (bool is_retry = false;;) {
			int rc = put(f, block, sizes[i], BLOCK_DATA);
			if (rc == 0) {
				block += sizes[i];
				is_retry = false;
				continue;
			}
			assert_int_equal(rc, -ENOSPC);
			rig_until(&f->rig, is_idle, f);
			if (is_retry)
				break;
			is_retry = true;
		}
		f->blocks = block;
		assert_true(store_credit(f->rig.store, 0) < (sizes[i] + 2) * BLOCK_SIZE);
		check_content(f);
		filler_done(f);
	}
	free(f);
}

static void test_full_store_refuses_writes_until_something_is_trimmed(void **state)
{
	struct filler *f = calloc(1, sizeof(*f));
	uint32_t block;

	filler_init(f, 32 * MIB, 60);
	fill(f);
	/* Go on until it is full; what was refused has left no trace. */
	for (block = f->blocks;;) {
		bool was_idle = f->busy == 0;
		int rc = put(f, block, 1, BLOCK_DATA);
		if (rc == 0) {
			block++;
			continue;
		}
		assert_int_equal(rc, -ENOSPC);
		if (was_idle)
			break;
		rig_until(&f->rig, is_idle, f); /* what was put by for pages comes back */
	}
	f->blocks = block;
	assert_true(store_credit(f->rig.store, 0) < 2 * BLOCK_SIZE);
	check_content(f);
	/* Overwriting needs room first, too; reading, zeroes and trims do not. */
	for (uint32_t i = 0; i < 4096; i++)
		assert_int_equal(put(f, (i * 977) % (f->blocks - 1) / 16 * 16, 1, BLOCK_ZERO), 0);
	rig_until(&f->rig, is_idle, f);
	for (uint32_t i = 0; i < f->blocks; i += 16)
		assert_int_equal(put(f, i, 1, BLOCK_ABSENT), 0);
	rig_until(&f->rig, is_idle, f);
	assert_true(store_credit(f->rig.store, 0) >= f->blocks / 16 * BLOCK_SIZE / 2);
	for (uint32_t i = 0; i < f->blocks / 40; i++)
		assert_int_equal(put(f, i * 16, 1, BLOCK_DATA), 0);
	check_content(f);
	filler_done(f);
	free(f);
}

/* Zeroes over nothing take index pages: they end as data does. Absence takes nothing. */
static void test_zeroes_over_nothing_are_paid_for(void **state)
{
	const struct store_options options = {
		.size_bytes = 24 * MIB, .segment_bytes = 1 * MIB, .has_small_segments = true};
	struct rig *rig = calloc(1, sizeof(*rig));
	uint64_t credit;
	uint32_t n = 0, tag;
	int rc;

	rig_init(rig, 5, &options);
	rig_open_ok(rig);
	credit = store_credit(rig->store, 0);
	while ((rc = rig_put(rig, 0, 1, n, n + 1, 0, OBJECT_BLOCKS, BLOCK_ZERO, 0, 0)) == 0)
		if (++n == 100000)
			fail_msg("zeroes without end");
	assert_int_equal(rc, -ENOSPC);
	/* Sixteen pages each, of at least 48 bytes and at most a page's charge. */
	assert_true((uint64_t)n * 16 * 832 >= credit / 2);
	assert_true((uint64_t)n * 16 * 48 <= credit);
	/* And one page each, until not even that fits. */
	for (uint32_t i = 0; (rc = rig_put(rig, 0, 3, i, n + 1, 0, 1, BLOCK_ZERO, 0, 0)) == 0; i++)
		assert_true(i < 1000);
	assert_int_equal(rc, -ENOSPC);
	assert_int_equal(rig_put(rig, 0, 2, 0, n + 1, 0, OBJECT_BLOCKS, BLOCK_ABSENT, 0, 0), 0);
	/* Where there is a page zeroes go on, and an object that goes makes room. */
	assert_int_equal(rig_put(rig, 0, 1, 0, n + 2, 5, 100, BLOCK_ZERO, 0, 0), 0);
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(
			rig_put(rig, 0, 1, i, n + 3 + i, 0, 0, BLOCK_ABSENT, 0, STORE_DELETE), 0);
	rig_settle(rig, 1 * NS_PER_S);
	assert_int_equal(rig_put(rig, 0, 2, 1, n + 20, 0, 1, BLOCK_ZERO, 0, 0), 0);
	assert_int_equal(rig_read(rig, 0, 1, n - 1, 1000, 1, &tag), 0);
	assert_int_equal(tag, RIG_TAG_ZERO);
	rig_done(rig);
	free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_overwrites_at_85_percent_stay_right_and_cheap),
		cmocka_unit_test(test_random_overwrites_at_96_percent_go_on),
		cmocka_unit_test(test_store_filled_to_its_credit_completes_all_it_took),
		cmocka_unit_test(test_full_store_refuses_writes_until_something_is_trimmed),
		cmocka_unit_test(test_zeroes_over_nothing_are_paid_for),
	};

	return cmocka_run_group_tests(tests, rig_log_start, rig_log_stop);
}
