/*
 * The power goes at any moment of a random life of a store: what comes back is a prefix of what was
 * appended, with everything that was synced, and nothing torn. Then life goes on from there.
 *
 * Trap: a store that is idle when the power goes proves nothing; each round counts what was in
 * flight, and the run fails if too little was.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/log.h"
#include "tests/unit/store_model.h"

#define JOURNAL_MAX 8192u

struct flight {
	struct rig_append a;
	uint32_t index; /* in the journal, + 1 */
};

struct sync_call {
	struct loop_op op;
	struct life *life;
	uint32_t covers;
	bool is_busy;
};

/* One run: a store, its model, and what may be lost. */
struct life {
	struct rig rig;
	struct random *random;
	struct model base;   /* before the journal */
	struct model newest; /* base and the whole journal */
	struct model_op journal[JOURNAL_MAX];
	uint32_t journal_count;
	uint32_t durable;   /* of the journal, surely on stable storage */
	uint32_t completed; /* of the journal, acknowledged in order */
	struct flight *flights[JOURNAL_MAX];
	struct sync_call syncs[16];
	struct version told[RIG_PGS]; /* newest commit point */
	struct version tail[RIG_PGS]
			   [MODEL_TAILS]; /* sequenced versions since the last recovery's commit */
	uint32_t tail_count[RIG_PGS];
	uint64_t next_n[RIG_PGS];
	uint64_t next_number[MODEL_SESSIONS];
	uint32_t next_tag;
	/* what the run saw */
	uint64_t lost_entries, kept_unsynced, cuts_in_flight, refused_full, damages;
};

static uint32_t below(struct life *life, uint32_t bound)
{
	return (uint32_t)random_below(life->random, bound);
}

/* ---- the workload ---- */

static void on_flight(struct store_append *append, int result)
{
	struct flight *f = container_of_type(append, struct flight, a.append);

	assert_int_equal(result, 0);
	f->a.is_done = true;
}

/* What has no completion of its own (requests, ends of sessions) counts by an entry behind it. */
static void note_completed(struct life *life)
{
	for (uint32_t i = life->completed; i < life->journal_count; i++) {
		struct flight *f = life->flights[i];
		if (f && !f->a.is_done)
			break;
		if (f)
			life->completed = i + 1;
	}
	/* An entry that waited for its sync makes everything before it durable. */
	for (uint32_t i = life->completed; i < life->journal_count; i++)
		if (life->flights[i] && life->flights[i]->a.is_done &&
		    life->flights[i]->a.append.flags & STORE_SYNC)
			life->durable = max_of(life->durable, i + 1);
}

static void journal_add(struct life *life, const struct model_op *op, struct flight *flight)
{
	assert_true(life->journal_count < JOURNAL_MAX);
	life->flights[life->journal_count] = flight;
	life->journal[life->journal_count++] = *op;
	model_apply(&life->newest, op);
}

static void random_runs(struct life *life, struct model_op *op, bool is_data)
{
	uint32_t at = below(life, MODEL_BLOCKS - 64);

	op->run_count = 1 + (below(life, 4) == 0 ? below(life, 3) : 0);
	for (uint32_t i = 0; i < op->run_count; i++) {
		uint32_t count = 1 + below(life, below(life, 3) == 0 ? 30 : 4);
		uint32_t state = below(life, 10);
		if (at + count > MODEL_BLOCKS) {
			op->run_count = i;
			return;
		}
		op->runs[i] = (struct store_run){(uint16_t)at, (uint16_t)count, BLOCK_DATA};
		if (!is_data || (i > 0 && state < 4))
			op->runs[i].state = state < 5 ? BLOCK_ZERO : BLOCK_ABSENT;
		at += count + below(life, 5);
	}
}

/* Flags that a caller would use on an object in this state. */
static uint32_t random_flags(struct life *life, const struct model_object *o)
{
	uint32_t dice = below(life, 100), flags = 0;

	if (dice < 6)
		flags = STORE_DELETE |
			(below(life, 2) ? STORE_UNSEQUENCED | STORE_ANY_PREVIOUS : 0);
	else if (dice < 12)
		flags = STORE_UNSEQUENCED | STORE_ANY_PREVIOUS | STORE_SET_MISSING;
	else if (dice < 18)
		flags = STORE_UNSEQUENCED | STORE_ANY_PREVIOUS;
	else if (dice < 26)
		flags = STORE_UNSEQUENCED | STORE_ANY_PREVIOUS | STORE_CLEAR_MISSING |
			(below(life, 2) ? STORE_REPLACE : 0);
	else if (dice < 32)
		flags = STORE_ANY_PREVIOUS;
	if (o->is_missing && below(life, 2))
		flags = STORE_UNSEQUENCED | STORE_ANY_PREVIOUS | STORE_CLEAR_MISSING |
			STORE_REPLACE;
	if (o->is_missing)
		flags |= STORE_ANY_PREVIOUS;
	return flags | (below(life, 12) == 0 ? STORE_SYNC : 0);
}

static void set_session(struct life *life, struct model_op *op)
{
	uint32_t s = below(life, MODEL_SESSIONS);

	op->session = s + 1;
	op->number = life->next_number[s]++;
	op->lowest = op->number > 20 ? op->number - 20 : 0;
}

static void change(struct life *life)
{
	struct model_op op = {.pg = below(life, RIG_PGS), .object = below(life, RIG_OBJECTS)};
	const struct model_object *o = &life->newest.pgs[op.pg].objects[op.object];
	uint32_t tags[4 * 32], blocks = 0;
	struct flight *f = calloc(1, sizeof(*f));

	op.flags = random_flags(life, o);
	op.version = (struct version){1, ++life->next_n[op.pg]};
	op.tag = life->next_tag;
	if (!(op.flags & STORE_DELETE))
		random_runs(life, &op, below(life, 8) > 0);
	if (!(op.flags & STORE_UNSEQUENCED) && below(life, 3) > 0)
		set_session(life, &op);
	f->a.append = (struct store_append){
		.pg = op.pg,
		.key = {.layer = model_layer(op.object), .index = model_index(op.object)},
		.family = rig_family(model_layer(op.object)),
		.version = op.version,
		.previous = o->version,
		.session = op.session,
		.number = op.number,
		.lowest = op.lowest,
		.flags = op.flags,
		.run_count = op.run_count};
	memcpy(f->a.runs, op.runs, sizeof(op.runs));
	for (uint32_t i = 0; i < op.run_count; i++)
		if (op.runs[i].state == BLOCK_DATA)
			blocks += op.runs[i].count;
	for (uint32_t i = 0; i < blocks; i++)
		tags[i] = op.tag + i;
	life->next_tag += blocks;

	int rc = rig_append(&life->rig, &f->a, tags);

	if (rc < 0) {
		free(f);
		assert_int_equal(rc, -ENOSPC);
		life->refused_full++;
		return;
	}
	f->a.append.done = on_flight;
	journal_add(life, &op, f);
	if (!(op.flags & STORE_UNSEQUENCED)) {
		assert_true(life->tail_count[op.pg] < MODEL_TAILS);
		life->tail[op.pg][life->tail_count[op.pg]++] = op.version;
	}
}

static void change_requests(struct life *life)
{
	struct model_op op = {.kind = below(life, 2) ? MODEL_SET_REQUESTS : MODEL_END_SESSION,
			      .pg = below(life, RIG_PGS),
			      .session = 1 + below(life, MODEL_SESSIONS)};

	if (op.kind == MODEL_END_SESSION) {
		store_end_session(life->rig.store, op.pg, op.session);
	} else {
		op.number = life->next_number[op.session - 1]++;
		op.version = (struct version){1, op.number};
		struct store_request request = {
			.session = op.session, .number = op.number, .version = op.version};
		assert_int_equal(store_set_requests(life->rig.store, op.pg, &request, 1), 0);
	}
	journal_add(life, &op, NULL);
}

/* A commit point is somewhere among what was appended. */
static void tell_commit(struct life *life)
{
	uint32_t pg = below(life, RIG_PGS), count = life->tail_count[pg];

	if (count == 0)
		return;

	struct version commit = life->tail[pg][below(life, count)];

	if (version_compare(commit, life->told[pg]) > 0)
		life->told[pg] = commit;
	store_set_commit(life->rig.store, pg, commit);
}

static void on_sync_call(struct loop_op *op, int result)
{
	struct sync_call *call = container_of_type(op, struct sync_call, op);

	assert_int_equal(result, 0);
	call->is_busy = false;
	call->life->durable = max_of(call->life->durable, call->covers);
}

static void ask_sync(struct life *life)
{
	for (unsigned i = 0; i < ARRAY_COUNT(life->syncs); i++) {
		struct sync_call *call = &life->syncs[i];
		if (call->is_busy)
			continue;
		*call = (struct sync_call){.op.done = on_sync_call,
					   .life = life,
					   .covers = life->journal_count,
					   .is_busy = true};
		store_sync(life->rig.store, below(life, RIG_PGS), &call->op);
		return;
	}
}

static void act(struct life *life)
{
	uint32_t dice = below(life, 100);

	if (dice < 84)
		change(life);
	else if (dice < 89)
		ask_sync(life);
	else if (dice < 95)
		tell_commit(life);
	else
		change_requests(life);
}

/* ---- checking ---- */

/* The tail is what came after the commit point on disk, and that is one that was told. */
static void check_record(struct life *life, uint32_t pg, struct version last)
{
	static struct store_tail_entry tail[MODEL_TAILS];
	struct store_pg_info info;
	uint32_t count = store_pg_tail(life->rig.store, pg, tail, MODEL_TAILS), at = 0;

	store_pg_info(life->rig.store, pg, &info);
	assert_true(version_compare(info.commit, life->told[pg]) <= 0);
	assert_int_equal(info.tail_count, count);
	for (uint32_t i = 0; i < life->tail_count[pg]; i++) {
		struct version v = life->tail[pg][i];
		if (version_compare(v, info.commit) <= 0 || version_compare(v, last) > 0)
			continue;
		assert_true(at < count);
		assert_int_equal(tail[at].version.n, v.n);
		at++;
	}
	assert_int_equal(at, count);
	/* What was lost is gone from our memory, too. */
	while (life->tail_count[pg] > 0 &&
	       version_compare(life->tail[pg][life->tail_count[pg] - 1], last) > 0)
		life->tail_count[pg]--;
	uint32_t gone = 0;
	while (gone < life->tail_count[pg] &&
	       version_compare(life->tail[pg][gone], info.commit) <= 0)
		gone++;
	life->tail_count[pg] -= gone;
	memmove(life->tail[pg], life->tail[pg] + gone,
		life->tail_count[pg] * sizeof(life->tail[pg][0]));
	life->told[pg] = info.commit;
}

/* Is the request remembered in every state from @from on? */
static bool stays(const struct life *life, const struct model *at, uint32_t from, uint32_t pg,
		  uint32_t session, uint32_t slot)
{
	static struct model state;
	const struct store_request *r = &at->pgs[pg].requests[session][slot];

	state = *at;
	for (uint32_t k = from; k < life->journal_count; k++) {
		model_apply(&state, &life->journal[k]);
		if (state.pgs[pg].requests[session][slot].number != r->number)
			return false;
	}
	return true;
}

/*
 * That a session does not wait for a number any more, or has ended, is true whatever becomes of the
 * entry that said so: a checkpoint may know it already. Forget what the store forgot with such a reason.
 */
static void allow_forgotten(const struct life *life, struct model *expected,
			    const struct model *actual, uint32_t k)
{
	for (uint32_t pg = 0; pg < RIG_PGS; pg++)
		for (uint32_t s = 0; s < MODEL_SESSIONS; s++)
			for (uint32_t i = 0; i < MODEL_WINDOW; i++) {
				struct store_request *e = &expected->pgs[pg].requests[s][i];
				if (e->session && !actual->pgs[pg].requests[s][i].session &&
				    !stays(life, expected, k, pg, s, i))
					*e = (struct store_request){0};
			}
}

/* Which prefix of the journal is it? The base becomes that. */
static void check_prefix(struct life *life, uint32_t at_least, const char *what)
{
	static struct model actual, expected;
	bool is_found = false;

	model_read(&life->rig, &actual);
	expected = life->base;
	for (uint32_t k = 0; k <= life->journal_count && !is_found; k++) {
		if (k > 0)
			model_apply(&expected, &life->journal[k - 1]);
		if (k < at_least)
			continue;
		static struct model allowed;
		allowed = expected;
		if (!model_is_equal(&allowed, &actual))
			allow_forgotten(life, &allowed, &actual, k);
		if (!model_is_equal(&allowed, &actual))
			continue;
		expected = allowed;
		is_found = true;
		life->lost_entries += life->journal_count - k;
		life->kept_unsynced += k - at_least;
	}
	if (!is_found) {
		uint32_t best = 0, least = UINT32_MAX;
		expected = life->base;
		for (uint32_t k = 0; k <= life->journal_count; k++) {
			if (k > 0)
				model_apply(&expected, &life->journal[k - 1]);
			if (model_distance(&expected, &actual) < least) {
				least = model_distance(&expected, &actual);
				best = k;
			}
		}
		expected = life->base;
		for (uint32_t k = 0; k < best; k++)
			model_apply(&expected, &life->journal[k]);
		printf("%s: none of %u to %u entries gives what was found; nearest is %u:\n", what,
		       at_least, life->journal_count, best);
		model_print_difference(&expected, &actual);
		fail();
	}
	for (uint32_t i = 0; i < RIG_PGS; i++)
		check_record(life, i, expected.pgs[i].last);
	/* Lowest numbers are not told by the store: take those of the model. */
	life->base = expected;
	life->newest = expected;
}

static void forget_flights(struct life *life)
{
	for (uint32_t i = 0; i < life->journal_count; i++) {
		if (!life->flights[i])
			continue;
		rig_append_free(&life->flights[i]->a);
		free(life->flights[i]);
	}
	life->journal_count = life->durable = life->completed = 0;
	memset(life->syncs, 0, sizeof(life->syncs));
}

/* ---- a life ---- */

struct limit {
	struct life *life;
	uint64_t events;
};

static bool has_passed(void *context)
{
	const struct limit *limit = context;

	return sim_world_events(limit->life->rig.world) >= limit->events;
}

static void run_events(struct life *life, uint32_t count)
{
	struct limit limit = {life, sim_world_events(life->rig.world) + count};

	(void)sim_world_run_until(life->rig.world, sim_now(life->rig.world) + 100 * NS_PER_MS,
				  has_passed, &limit);
}

static void live(struct life *life, uint32_t events)
{
	uint64_t end = sim_world_events(life->rig.world) + events;

	while (sim_world_events(life->rig.world) < end) {
		for (uint32_t n = below(life, 6); n > 0 && life->journal_count < JOURNAL_MAX; n--)
			act(life);
		run_events(life, 1 + below(life, 12));
	}
	note_completed(life);
}

static void cut_and_check(struct life *life, uint64_t seed, uint32_t round)
{
	static const char *const names[] = {"kept all", "dropped all", "random sectors", "killed"};
	uint32_t mode = below(life, 4), at_least = life->durable;
	char what[80];

	snprintf(what, sizeof(what), "seed %llu round %u: %s", (unsigned long long)seed, round,
		 names[mode]);
	life->cuts_in_flight += life->completed < life->journal_count;
	if (mode == 3) {
		at_least = max_of(life->durable, life->completed);
		rig_crash(&life->rig);
	} else {
		rig_power_cut(&life->rig, (enum sim_power_cut)mode);
	}

	struct error err = {0};

	if (rig_open(&life->rig, &err) < 0)
		fail_msg("%s: %s", what, err.text);
	if (store_identity(life->rig.store)->lost_log)
		fail_msg("%s: the log is called lost", what);
	check_prefix(life, at_least, what);
	forget_flights(life);
}

static void life_init(struct life *life, uint64_t seed, const struct store_options *options)
{
	memset(life, 0, sizeof(*life));
	rig_init(&life->rig, seed, options);
	life->random = sim_random(life->rig.world);
	life->next_tag = 1;
	rig_open_ok(&life->rig);
}

static void life_done(struct life *life)
{
	rig_crash(&life->rig);
	forget_flights(life);
	rig_done(&life->rig);
}

/* ---- damage ---- */

static char names[64][80];
static uint32_t name_count;

static int add_name(void *context, const char *name)
{
	if (strcmp(name, "superblock") != 0 && name_count < ARRAY_COUNT(names))
		snprintf(names[name_count++], sizeof(names[0]), "%s/%s", RIG_PATH, name);
	return 0;
}

/* Flip one bit of a block that holds something, or that begins a batch. */
static void flip_a_bit(struct life *life, bool is_descriptor)
{
	static const char magic[] = "SPFB";
	static const uint8_t zeroes[BLOCK_SIZE];
	uint8_t block[BLOCK_SIZE];

	for (;;) {
		const char *name = names[below(life, name_count)];
		uint64_t offset = (uint64_t)below(life, 256) * BLOCK_SIZE;
		if (sim_file_peek(life->rig.host, name, block, BLOCK_SIZE, offset) != BLOCK_SIZE ||
		    memcmp(block, zeroes, BLOCK_SIZE) == 0 ||
		    (is_descriptor && memcmp(block, magic, 4) != 0))
			continue;
		uint32_t at = below(life, is_descriptor || below(life, 2) ? 200 : BLOCK_SIZE);
		block[at] ^= (uint8_t)(1u << below(life, 8));
		assert_int_equal(sim_file_poke(life->rig.host, name, block + at, 1, offset + at),
				 0);
		return;
	}
}

struct outcomes {
	uint32_t harmless, marked, lost;
};

/* Is what can be read a state that the store was in; a late one unless it says that the log is lost? */
static void check_damaged(struct life *life, uint64_t seed, uint32_t named,
			  struct outcomes *outcomes)
{
	static struct model actual, expected;
	bool is_lost = store_identity(life->rig.store)->lost_log;
	uint32_t marked = 0;

	life->rig.is_damaged = true;
	model_read(&life->rig, &actual);
	for (uint32_t i = 0; i < RIG_PGS; i++)
		for (uint32_t j = 0; j < RIG_OBJECTS; j++)
			marked += actual.pgs[i].objects[j].is_damaged &&
				  !life->newest.pgs[i].objects[j].is_missing;
	if (is_lost)
		outcomes->lost++;
	else if (marked > 0)
		outcomes->marked++;
	else
		outcomes->harmless++;
	expected = (struct model){0};
	for (uint32_t k = 0; k <= life->journal_count; k++) {
		static struct model allowed;
		if (k > 0)
			model_apply(&expected, &life->journal[k - 1]);
		if (!is_lost && k < named)
			continue;
		allowed = expected;
		allow_forgotten(life, &allowed, &actual, k);
		if (model_is_equal(&allowed, &actual))
			return;
	}
	printf("seed %llu: lost log %d\n", (unsigned long long)seed, is_lost);
	model_print_difference(&life->newest, &actual);
	fail();
}

static bool is_long(void)
{
	const char *text = getenv("SHEEPFOLD_LONG");

	return text && *text;
}

static void test_power_cut_at_any_moment_leaves_a_prefix(void **state)
{
	struct store_options options = {.size_bytes = 24 * MIB,
					.segment_bytes = 1 * MIB,
					.cache_bytes = 1, /* the least: cold pages */
					.batches_max = 4};
	struct life *life = calloc(1, sizeof(*life));
	const char *only = getenv("SHEEPFOLD_SEED");
	uint64_t first = only ? strtoull(only, NULL, 0) : 1;
	uint64_t seeds = only ? 1 : is_long() ? 200 : 12;
	struct store_counters counters;
	uint64_t cleaned = 0, checkpoints = 0, lost = 0, kept = 0, busy = 0, full = 0;

	for (uint64_t seed = first; seed < first + seeds; seed++) {
		/* Half of the stores are so small that the cleaner never rests. */
		options.size_bytes = seed % 2 ? 14 * MIB : 24 * MIB;
		life_init(life, seed, &options);
		for (uint32_t round = 0; round < 40; round++) {
			live(life, 1 + below(life, 400));
			store_counters(life->rig.store, &counters);
			cleaned += counters.cleaner_segments;
			checkpoints += counters.checkpoints;
			cut_and_check(life, seed, round);
		}
		lost += life->lost_entries;
		kept += life->kept_unsynced;
		busy += life->cuts_in_flight;
		full += life->refused_full;
		life_done(life);
	}
	printf("lost %llu entries, kept %llu that were not synced, %llu cuts with entries in flight, "
	       "%llu refused for space, %llu checkpoints, %llu segments cleaned\n",
	       (unsigned long long)lost, (unsigned long long)kept, (unsigned long long)busy,
	       (unsigned long long)full, (unsigned long long)checkpoints,
	       (unsigned long long)cleaned);
	assert_true(only || (lost > 0 && kept > 0 && busy > seeds * 10 && checkpoints > seeds &&
			     cleaned > 0));
	free(life);
}

static void drop_line(struct logger *logger, enum log_level level, const char *line)
{
}

static bool has_nothing_in_flight(void *context)
{
	struct life *life = context;

	note_completed(life);
	for (uint32_t i = 0; i < life->journal_count; i++)
		if (life->flights[i] && !life->flights[i]->a.is_done)
			return false;
	return true;
}

/*
 * Trap: most bits of a store mean nothing any more; the test asserts that enough of the flips
 * had to be noticed.
 */
static void test_flipped_bit_is_never_served(void **state)
{
	const struct store_options options = {
		.size_bytes = 24 * MIB, .segment_bytes = 1 * MIB, .cache_bytes = 1};
	struct life *life = calloc(1, sizeof(*life));
	const char *only = getenv("SHEEPFOLD_SEED");
	uint64_t first = only ? strtoull(only, NULL, 0) : 1000;
	uint64_t seeds = only ? 1 : is_long() ? 5000 : 300;
	struct outcomes outcomes = {0};
	struct logger quiet = {.level = LOG_LEVEL_ERROR, .sink = NULL};
	struct logger *before = log_current();

	quiet.sink = drop_line;
	for (uint64_t seed = first; seed < first + seeds; seed++) {
		life_init(life, seed, &options);
		name_count = 0;
		assert_int_equal(loop_sync_list(life->rig.loop, RIG_PATH, add_name, NULL), 0);
		live(life, 200 + below(life, 1500));
		rig_until(&life->rig, has_nothing_in_flight, life);
		assert_int_equal(rig_sync(&life->rig, 0), 0);
		/* Damage to the very last batch looks like the end of the log, until a later one
		 * names it as synced: one more. */
		uint32_t named = life->journal_count;
		while (life->journal_count == named)
			change(life);
		rig_until(&life->rig, has_nothing_in_flight, life);
		assert_int_equal(rig_sync(&life->rig, 0), 0);
		if (below(life, 3) == 0)
			rig_stop(&life->rig);
		rig_crash(&life->rig);
		/* One: two can hit a batch and the only one that names it. */
		flip_a_bit(life, seed % 3 == 0);
		if (!only)
			log_set_current(&quiet);
		struct error err = {0};
		int rc = rig_open(&life->rig, &err);
		if (rc < 0 && !strstr(err.text, "both checkpoints"))
			fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
		if (rc == 0)
			check_damaged(life, seed, named, &outcomes);
		log_set_current(before);
		life_done(life);
	}
	printf("%u harmless, %u marked missing, %u lost logs\n", outcomes.harmless, outcomes.marked,
	       outcomes.lost);
	assert_true(only || (outcomes.marked > seeds / 20 && outcomes.lost > seeds / 50));
	free(life);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_power_cut_at_any_moment_leaves_a_prefix),
		cmocka_unit_test(test_flipped_bit_is_never_served),
	};
	struct logger logger = {.level = LOG_LEVEL_ERROR, .sink = log_sink_text};

	if (getenv("SHEEPFOLD_TEST_LOG"))
		logger.level = LOG_LEVEL_DEBUG;
	log_set_current(&logger);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
