/*
 * A store on a simulated machine, driven step by step, for the tests of sheep/store: what is written is
 * also kept in a model, against which the store's answers are checked.
 */
#ifndef TESTS_STORE_RIG_H
#define TESTS_STORE_RIG_H

#include "lib/base/size.h"
#include "sheep/store/store.h"
#include "tests/sim/sim.h"

#define RIG_PATH       "/disk"
#define RIG_PGS	       3u
#define RIG_OBJECTS    6u /* per PG */
#define RIG_TAG_ABSENT 0u
#define RIG_TAG_ZERO   UINT32_MAX

struct rig {
	struct sim_world *world;
	struct sim_host *host;
	struct loop *loop;
	struct store *store;
	struct store_options options;
	unsigned failed, corrupt;
	bool is_damaged; /* reads may fail their checksum: such objects count as missing */
	int failed_error;
};

void rig_init(struct rig *rig, uint64_t seed, const struct store_options *options);
void rig_done(struct rig *rig);
/* Makes a loop if there is none. */
int rig_open(struct rig *rig, struct error *err);
void rig_open_ok(struct rig *rig);
/* Stops every shard and closes. */
void rig_stop(struct rig *rig);
/* kill -9 */
void rig_crash(struct rig *rig);
void rig_power_cut(struct rig *rig, enum sim_power_cut mode);
/* Run until @is_done says so; fails the test after 60 virtual seconds. */
void rig_until(struct rig *rig, bool (*is_done)(void *context), void *context);
void rig_settle(struct rig *rig, uint64_t ns);

/* 4,096 bytes that belong to @tag. */
void rig_fill(uint32_t tag, void *block);

/* An append with memory of its own. */
struct rig_append {
	struct store_append append;
	struct store_run runs[8];
	struct slice slice;
	bool is_done;
	int result;
};

/* @tags: one per data block, in order. Returns what store_append() said. */
int rig_append(struct rig *rig, struct rig_append *a, const uint32_t *tags);
/* With the caller's own slices. */
int rig_append_raw(struct rig *rig, struct rig_append *a);
void rig_append_free(struct rig_append *a);
/* Wait for it. */
int rig_append_wait(struct rig *rig, struct rig_append *a);
/* One run in one state, sequenced, previous taken from the store; waits. */
int rig_put(struct rig *rig, uint32_t pg, uint64_t layer, uint32_t index, uint64_t n,
	    uint32_t block, uint32_t count, enum block_state state, uint32_t tag, uint32_t flags);
int rig_sync(struct rig *rig, uint32_t pg);
/*
 * Read blocks of one layer: tags as the content says (RIG_TAG_ABSENT and RIG_TAG_ZERO by state).
 * The result of the read; fails the test when content is none of ours.
 */
int rig_read(struct rig *rig, uint32_t pg, uint64_t layer, uint32_t index, uint32_t block,
	     uint32_t count, uint32_t *tags);
/* Of one block, which must be readable. */
uint32_t rig_tag_at(struct rig *rig, uint32_t pg, uint64_t layer, uint32_t index, uint32_t block);
/*
 * The same of a whole object, missing or not, from store_sums(): where there is data, the CRC32C of the
 * block in place of its tag. @tags: OBJECT_BLOCKS.
 */
int rig_sums(struct rig *rig, uint32_t pg, uint64_t layer, uint32_t index, uint32_t *tags);
uint64_t rig_family(uint64_t layer);

/* A read of the caller's own making. */
struct rig_reading {
	struct store_read read;
	bool is_done;
	int result;
};

/* Sets what is called at its end, no more. What was read stays with the caller until it is freed. */
void rig_read_start(struct rig *rig, struct rig_reading *reading);
/* For rig_until(). */
bool rig_reading_is_done(void *reading);
/* Wait for it. Returns its result. */
int rig_reading_wait(struct rig *rig, struct rig_reading *reading);
void rig_reading_free(struct rig_reading *reading);

/* 24 MiB in segments of 1 MiB. */
extern const struct store_options rig_small;

/* For cmocka: the state of a test is a rig whose store is open; @rig_teardown frees it. */
int rig_setup(void **state, const struct store_options *options);
int rig_setup_small(void **state);
int rig_teardown(void **state);
/* Of a group: errors are shown, and all there is with SHEEPFOLD_TEST_LOG in the environment. */
int rig_log_start(void **state);
int rig_log_stop(void **state);

#endif
