#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/crc32c.h"
#include "lib/base/hash.h"
#include "lib/base/log.h"
#include "tests/unit/store_rig.h"

static void on_failed(void *context, struct store *store, int error)
{
	struct rig *rig = context;

	rig->failed++;
	rig->failed_error = error;
}

static void on_corrupt(void *context, struct store *store, uint32_t pg,
		       const struct object_key *key)
{
	struct rig *rig = context;

	rig->corrupt++;
}

void rig_init(struct rig *rig, uint64_t seed, const struct store_options *options)
{
	*rig = (struct rig){.world = sim_world_new(seed), .options = *options};
	rig->host = sim_host_new(rig->world, "store");
}

void rig_done(struct rig *rig)
{
	if (rig->store)
		rig_crash(rig);
	sim_world_free(rig->world);
}

int rig_open(struct rig *rig, struct error *err)
{
	const struct store_callbacks callbacks = {
		.failed = on_failed, .corrupt = on_corrupt, .context = rig};

	if (!rig->loop)
		assert_int_equal(sim_loop_new(rig->world, rig->host,
					      &(struct loop_options){.name = "store"}, &rig->loop),
				 0);
	return store_open(&rig->loop, 1, RIG_PATH, &rig->options, &callbacks, &rig->store, err);
}

void rig_open_ok(struct rig *rig)
{
	struct error err = {0};

	if (rig_open(rig, &err) < 0)
		fail_msg("%s", err.text);
}

void rig_until(struct rig *rig, bool (*is_done)(void *context), void *context)
{
	uint64_t limit = sim_now(rig->world) + 60 * NS_PER_S;

	if (!is_done(context) && !sim_world_run_until(rig->world, limit, is_done, context))
		fail_msg("nothing happened for 60 s");
}

static bool never(void *context)
{
	return false;
}

void rig_settle(struct rig *rig, uint64_t ns)
{
	(void)sim_world_run_until(rig->world, sim_now(rig->world) + ns, never, NULL);
}

struct call {
	struct loop_op op;
	bool is_done;
	int result;
};

static void on_call(struct loop_op *op, int result)
{
	struct call *call = container_of_type(op, struct call, op);

	call->is_done = true;
	call->result = result;
}

static bool call_is_done(void *context)
{
	return ((struct call *)context)->is_done;
}

void rig_stop(struct rig *rig)
{
	for (unsigned i = 0; i < store_identity(rig->store)->shards; i++) {
		struct call call = {.op.done = on_call};
		store_stop_shard(rig->store, i, &call.op);
		rig_until(rig, call_is_done, &call);
		assert_int_equal(call.result, 0);
	}
	store_close(rig->store);
	rig->store = NULL;
}

void rig_crash(struct rig *rig)
{
	sim_host_crash(rig->host);
	if (rig->store)
		store_forget(rig->store);
	rig->store = NULL;
	rig->loop = NULL;
}

void rig_power_cut(struct rig *rig, enum sim_power_cut mode)
{
	sim_host_power_cut(rig->host, mode);
	if (rig->store)
		store_forget(rig->store);
	rig->store = NULL;
	rig->loop = NULL;
}

/* ---- content ---- */

uint64_t rig_family(uint64_t layer)
{
	return 7 + layer / 2;
}

void rig_fill(uint32_t tag, void *block)
{
	uint64_t *words = block;
	uint64_t word = hash_u64(tag);

	for (unsigned i = 1; i < BLOCK_SIZE / 8; i++)
		words[i] = word + i * 0x9e3779b97f4a7c15ull;
	words[0] = tag;
}

/* The tag of a block, if it is whole and one of ours. */
static uint32_t tag_of(const void *block)
{
	uint8_t expected[BLOCK_SIZE] __attribute__((aligned(8)));
	uint64_t tag;

	memcpy(&tag, block, sizeof(tag));
	rig_fill((uint32_t)tag, expected);
	if (memcmp(block, expected, BLOCK_SIZE) != 0)
		fail_msg("a block of nobody's was served");
	return (uint32_t)tag;
}

/* ---- appends ---- */

static void on_append(struct store_append *append, int result)
{
	struct rig_append *a = container_of_type(append, struct rig_append, append);

	assert_false(a->is_done);
	a->is_done = true;
	a->result = result;
}

int rig_append(struct rig *rig, struct rig_append *a, const uint32_t *tags)
{
	uint32_t blocks = 0;
	int rc;

	for (uint32_t i = 0; i < a->append.run_count; i++)
		blocks += a->runs[i].state == BLOCK_DATA ? a->runs[i].count : 0;
	a->append.done = on_append;
	a->append.runs = a->runs;
	if (blocks > 0) {
		struct buffer *buffer = buffer_new(loop_buffers(rig->loop), blocks * BLOCK_SIZE);
		a->slice = slice_of(buffer, 0, blocks * BLOCK_SIZE);
		for (uint32_t i = 0; i < blocks; i++)
			rig_fill(tags[i], a->slice.data + i * BLOCK_SIZE);
		a->append.slices = &a->slice;
		a->append.slice_count = 1;
	}
	rc = store_append(rig->store, &a->append);
	if (rc < 0)
		rig_append_free(a);
	return rc;
}

int rig_append_raw(struct rig *rig, struct rig_append *a)
{
	a->append.done = on_append;
	a->append.runs = a->runs;
	return store_append(rig->store, &a->append);
}

void rig_append_free(struct rig_append *a)
{
	buffer_put(a->slice.buffer);
	a->slice.buffer = NULL;
}

static bool append_is_done(void *context)
{
	return ((struct rig_append *)context)->is_done;
}

int rig_append_wait(struct rig *rig, struct rig_append *a)
{
	rig_until(rig, append_is_done, a);
	rig_append_free(a);
	return a->result;
}

int rig_put(struct rig *rig, uint32_t pg, uint64_t layer, uint32_t index, uint64_t n,
	    uint32_t block, uint32_t count, enum block_state state, uint32_t tag, uint32_t flags)
{
	struct object_key key = {.layer = layer, .index = index};
	uint32_t *tags = calloc(OBJECT_BLOCKS, sizeof(*tags));
	struct store_object now;
	struct rig_append a = {.append = {.pg = pg,
					  .key = key,
					  .family = rig_family(layer),
					  .version = {1, n},
					  .flags = flags,
					  .run_count = count > 0},
			       .runs = {{(uint16_t)block, (uint16_t)count, (uint8_t)state}}};
	int rc;

	for (uint32_t i = 0; i < count; i++)
		tags[i] = tag + i;
	if (store_object(rig->store, pg, &key, &now))
		a.append.previous = now.version;
	rc = rig_append(rig, &a, tags);
	free(tags);
	return rc < 0 ? rc : rig_append_wait(rig, &a);
}

int rig_sync(struct rig *rig, uint32_t pg)
{
	struct call call = {.op.done = on_call};

	store_sync(rig->store, pg, &call.op);
	rig_until(rig, call_is_done, &call);
	return call.result;
}

/* ---- reads ---- */

static void on_read(struct store_read *read, int result)
{
	struct rig_reading *reading = container_of_type(read, struct rig_reading, read);

	assert_false(reading->is_done);
	reading->is_done = true;
	reading->result = result;
}

void rig_read_start(struct rig *rig, struct rig_reading *reading)
{
	reading->read.done = on_read;
	store_read(rig->store, &reading->read);
	assert_false(reading->is_done); /* never inside the call */
}

bool rig_reading_is_done(void *reading)
{
	return ((struct rig_reading *)reading)->is_done;
}

int rig_reading_wait(struct rig *rig, struct rig_reading *reading)
{
	rig_until(rig, rig_reading_is_done, reading);
	return reading->result;
}

void rig_reading_free(struct rig_reading *reading)
{
	buffer_put(reading->read.data.buffer);
	reading->read.data.buffer = NULL;
}

int rig_read(struct rig *rig, uint32_t pg, uint64_t layer, uint32_t index, uint32_t block,
	     uint32_t count, uint32_t *tags)
{
	static const uint8_t zeroes[BLOCK_SIZE];
	uint8_t *states = malloc(count);
	uint32_t *crcs = malloc(count * sizeof(*crcs));
	struct rig_reading r = {.read = {.pg = pg,
					 .family = rig_family(layer),
					 .index = index,
					 .layers = &layer,
					 .layer_count = 1,
					 .block = block,
					 .count = count,
					 .states = states,
					 .crcs = crcs}};

	rig_read_start(rig, &r);
	(void)rig_reading_wait(rig, &r);
	for (uint32_t i = 0; i < count && r.result == 0; i++) {
		const uint8_t *data =
			r.read.is_all_hole ? zeroes : r.read.data.data + i * BLOCK_SIZE;
		assert_int_equal(crcs[i], crc32c(data, BLOCK_SIZE));
		if (states[i] == BLOCK_DATA) {
			tags[i] = tag_of(data);
		} else {
			assert_true(memcmp(data, zeroes, BLOCK_SIZE) == 0);
			tags[i] = states[i] == BLOCK_ZERO ? RIG_TAG_ZERO : RIG_TAG_ABSENT;
		}
	}
	rig_reading_free(&r);
	free(states);
	free(crcs);
	return r.result;
}

uint32_t rig_tag_at(struct rig *rig, uint32_t pg, uint64_t layer, uint32_t index, uint32_t block)
{
	uint32_t tag;

	assert_int_equal(rig_read(rig, pg, layer, index, block, 1, &tag), 0);
	return tag;
}

struct summing {
	struct store_sums sums;
	bool is_done;
	int result;
};

static void on_sums(struct store_sums *sums, int result)
{
	struct summing *s = container_of_type(sums, struct summing, sums);

	s->is_done = true;
	s->result = result;
}

static bool summing_is_done(void *context)
{
	return ((struct summing *)context)->is_done;
}

int rig_sums(struct rig *rig, uint32_t pg, uint64_t layer, uint32_t index, uint32_t *tags)
{
	struct summing *s = calloc(1, sizeof(*s));
	int result;

	s->sums.done = on_sums;
	s->sums.pg = pg;
	s->sums.key = (struct object_key){.layer = layer, .index = index};
	store_sums(rig->store, &s->sums);
	assert_false(s->is_done);
	rig_until(rig, summing_is_done, s);
	for (uint32_t i = 0; i < OBJECT_BLOCKS; i++)
		tags[i] = s->sums.states[i] == BLOCK_DATA   ? s->sums.crcs[i]
			  : s->sums.states[i] == BLOCK_ZERO ? RIG_TAG_ZERO
							    : RIG_TAG_ABSENT;
	result = s->result;
	free(s);
	return result;
}

/* ---- cmocka ---- */

const struct store_options rig_small = {
	.size_bytes = 24 * MIB, .segment_bytes = 1 * MIB, .has_small_segments = true};

int rig_setup(void **state, const struct store_options *options)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	rig_init(rig, 1, options);
	rig_open_ok(rig);
	*state = rig;
	return 0;
}

int rig_setup_small(void **state)
{
	return rig_setup(state, &rig_small);
}

int rig_teardown(void **state)
{
	rig_done(*state);
	free(*state);
	return 0;
}

int rig_log_start(void **state)
{
	struct logger *logger = calloc(1, sizeof(*logger));

	logger->level = getenv("SHEEPFOLD_TEST_LOG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR;
	logger->sink = log_sink_text;
	log_set_current(logger);
	*state = logger;
	return 0;
}

int rig_log_stop(void **state)
{
	log_set_current(NULL);
	free(*state);
	return 0;
}
