#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/store_life.h"

uint32_t life_below(struct life *life, uint32_t bound)
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
void life_note_completed(struct life *life)
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
	uint32_t at = life_below(life, MODEL_BLOCKS - 64);

	op->run_count = 1 + (life_below(life, 4) == 0 ? life_below(life, 3) : 0);
	for (uint32_t i = 0; i < op->run_count; i++) {
		uint32_t count = 1 + life_below(life, life_below(life, 3) == 0 ? 30 : 4);
		uint32_t state = life_below(life, 10);
		if (at + count > MODEL_BLOCKS) {
			op->run_count = i;
			return;
		}
		op->runs[i] = (struct store_run){(uint16_t)at, (uint16_t)count, BLOCK_DATA};
		if (!is_data || (i > 0 && state < 4))
			op->runs[i].state = state < 5 ? BLOCK_ZERO : BLOCK_ABSENT;
		at += count + life_below(life, 5);
	}
}

/* Flags that a caller would use on an object in this state. */
static uint32_t random_flags(struct life *life, const struct model_object *o)
{
	uint32_t dice = life_below(life, 100), flags = 0;

	if (dice < 6)
		flags = STORE_DELETE |
			(life_below(life, 2) ? STORE_UNSEQUENCED | STORE_ANY_PREVIOUS : 0);
	else if (dice < 12)
		flags = STORE_UNSEQUENCED | STORE_ANY_PREVIOUS | STORE_SET_MISSING;
	else if (dice < 18)
		flags = STORE_UNSEQUENCED | STORE_ANY_PREVIOUS;
	else if (dice < 26)
		flags = STORE_UNSEQUENCED | STORE_ANY_PREVIOUS | STORE_CLEAR_MISSING |
			(life_below(life, 2) ? STORE_REPLACE : 0);
	else if (dice < 32)
		flags = STORE_ANY_PREVIOUS;
	if (o->is_missing && life_below(life, 2))
		flags = STORE_UNSEQUENCED | STORE_ANY_PREVIOUS | STORE_CLEAR_MISSING |
			STORE_REPLACE;
	if (o->is_missing)
		flags |= STORE_ANY_PREVIOUS;
	return flags | (life_below(life, 12) == 0 ? STORE_SYNC : 0);
}

static void set_session(struct life *life, struct model_op *op)
{
	uint32_t s = life_below(life, MODEL_SESSIONS);

	op->session = s + 1;
	op->number = life->next_number[s]++;
	op->lowest = op->number > 20 ? op->number - 20 : 0;
}

/* As a settle does it: some requests in place of those of the object, of all or of the newest ones. */
static void set_requests(struct life *life, struct model_op *op, struct store_request *out)
{
	uint32_t s = life_below(life, MODEL_SESSIONS), newest = (uint32_t)life->next_n[op->pg];

	op->session = s + 1;
	op->number = life->next_number[s];
	op->request_count = life_below(life, 4);
	op->flags |= STORE_REQUESTS;
	if (life_below(life, 2))
		op->above = (struct version){1, newest - min_of(newest, life_below(life, 40))};
	life->next_number[s] += op->request_count;
	for (uint32_t i = 0; i < op->request_count; i++)
		out[i] = model_request(op, i);
}

void life_change(struct life *life)
{
	struct model_op op = {.pg = life_below(life, RIG_PGS),
			      .object = life_below(life, RIG_OBJECTS)};
	const struct model_object *o = &life->newest.pgs[op.pg].objects[op.object];
	uint32_t tags[4 * 32], blocks = 0;
	struct flight *f = calloc(1, sizeof(*f));

	op.flags = random_flags(life, o);
	op.version = (struct version){1, ++life->next_n[op.pg]};
	op.tag = life->next_tag;
	if (!(op.flags & STORE_DELETE))
		random_runs(life, &op, life_below(life, 8) > 0);
	struct store_request requests[4];
	if (!(op.flags & STORE_UNSEQUENCED) && life_below(life, 3) > 0)
		set_session(life, &op);
	else if (!(op.flags & STORE_UNSEQUENCED) && op.flags & STORE_ANY_PREVIOUS)
		set_requests(life, &op, requests);
	f->a.append = (struct store_append){
		.pg = op.pg,
		.key = {.layer = model_layer(op.object), .index = model_index(op.object)},
		.family = rig_family(model_layer(op.object)),
		.version = op.version,
		.previous = o->version,
		.session = op.flags & STORE_REQUESTS ? 0 : op.session,
		.number = op.number,
		.lowest = op.lowest,
		.flags = op.flags,
		.requests = requests,
		.request_count = op.request_count,
		.above = op.above,
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
	life->pushes += (op.flags & STORE_CLEAR_MISSING) != 0;
	life->deletes += (op.flags & STORE_DELETE) != 0;
	life->trims += op.run_count > 0 && blocks == 0;
	if (!(op.flags & STORE_UNSEQUENCED)) {
		assert_true(life->tail_count[op.pg] < MODEL_TAILS);
		life->tail[op.pg][life->tail_count[op.pg]++] = op.version;
	}
}

static void change_requests(struct life *life)
{
	struct model_op op = {.kind = life_below(life, 2) ? MODEL_SET_REQUESTS : MODEL_END_SESSION,
			      .pg = life_below(life, RIG_PGS),
			      .session = 1 + life_below(life, MODEL_SESSIONS)};

	if (op.kind == MODEL_END_SESSION) {
		store_end_session(life->rig.store, op.pg, op.session);
	} else {
		op.number = life->next_number[op.session - 1]++;
		op.version = (struct version){1, op.number};
		op.object = life_below(life, RIG_OBJECTS);
		struct store_request request = model_request(&op, 0);
		assert_int_equal(store_set_requests(life->rig.store, op.pg, &request, 1), 0);
	}
	journal_add(life, &op, NULL);
}

/* A commit point is somewhere among what was appended. */
static void tell_commit(struct life *life)
{
	uint32_t pg = life_below(life, RIG_PGS), count = life->tail_count[pg];

	if (count == 0)
		return;

	struct version commit = life->tail[pg][life_below(life, count)];

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
		store_sync(life->rig.store, life_below(life, RIG_PGS), &call->op);
		return;
	}
}

static void act(struct life *life)
{
	uint32_t dice = life_below(life, 100);

	if (dice < 84)
		life_change(life);
	else if (dice < 89)
		ask_sync(life);
	else if (dice < 95)
		tell_commit(life);
	else
		change_requests(life);
}

/* ---- checking ---- */

/* The tail is what came after the commit point on disk, and that is one that was told. */
static void check_record(const struct life *life, struct rig *rig, uint32_t pg, struct version last)
{
	static struct store_tail_entry tail[MODEL_TAILS];
	struct store_pg_info info;
	uint32_t count = store_pg_tail(rig->store, pg, tail, MODEL_TAILS), at = 0;

	store_pg_info(rig->store, pg, &info);
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
}

void life_check_records(const struct life *life, struct rig *rig, const struct model *expected)
{
	for (uint32_t i = 0; i < RIG_PGS; i++)
		check_record(life, rig, i, expected->pgs[i].last);
}

/* What was lost is gone from our memory, too. */
static void adopt_record(struct life *life, uint32_t pg, struct version last)
{
	struct store_pg_info info;
	uint32_t gone = 0;

	store_pg_info(life->rig.store, pg, &info);
	while (life->tail_count[pg] > 0 &&
	       version_compare(life->tail[pg][life->tail_count[pg] - 1], last) > 0)
		life->tail_count[pg]--;
	while (gone < life->tail_count[pg] &&
	       version_compare(life->tail[pg][gone], info.commit) <= 0)
		gone++;
	life->tail_count[pg] -= gone;
	memmove(life->tail[pg], life->tail[pg] + gone,
		life->tail_count[pg] * sizeof(life->tail[pg][0]));
	life->told[pg] = info.commit;
}

void life_adopt(struct life *life, const struct model *expected)
{
	for (uint32_t i = 0; i < RIG_PGS; i++)
		adopt_record(life, i, expected->pgs[i].last);
	/* Lowest numbers are not told by the store: take those of the model. */
	life->base = *expected;
	life->newest = *expected;
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
void life_allow_forgotten(const struct life *life, struct model *expected,
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

static void print_nearest(const struct life *life, const struct model *actual, uint32_t at_least,
			  const char *what)
{
	static struct model expected;
	uint32_t best = 0, least = UINT32_MAX;

	expected = life->base;
	for (uint32_t k = 0; k <= life->journal_count; k++) {
		if (k > 0)
			model_apply(&expected, &life->journal[k - 1]);
		if (model_distance(&expected, actual) < least) {
			least = model_distance(&expected, actual);
			best = k;
		}
	}
	expected = life->base;
	for (uint32_t k = 0; k < best; k++)
		model_apply(&expected, &life->journal[k]);
	printf("%s: none of %u to %u entries gives what was found; nearest is %u:\n", what,
	       at_least, life->journal_count, best);
	model_print_difference(&expected, actual);
}

bool life_find_prefix(const struct life *life, const struct model *actual, uint32_t at_least,
		      const char *what, struct model *expected, uint32_t *count)
{
	static struct model allowed;

	*expected = life->base;
	for (uint32_t k = 0; k <= life->journal_count; k++) {
		if (k > 0)
			model_apply(expected, &life->journal[k - 1]);
		if (k < at_least)
			continue;
		allowed = *expected;
		if (!model_is_equal(&allowed, actual))
			life_allow_forgotten(life, &allowed, actual, k);
		if (!model_is_equal(&allowed, actual))
			continue;
		*expected = allowed;
		*count = k;
		return true;
	}
	print_nearest(life, actual, at_least, what);
	return false;
}

void life_forget_flights(struct life *life)
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

void life_run(struct life *life, uint32_t events)
{
	uint64_t end = sim_world_events(life->rig.world) + events;

	while (sim_world_events(life->rig.world) < end) {
		for (uint32_t n = life_below(life, 6); n > 0 && life->journal_count < JOURNAL_MAX;
		     n--)
			act(life);
		run_events(life, 1 + life_below(life, 12));
	}
	life_note_completed(life);
}

void life_init(struct life *life, uint64_t seed, const struct store_options *options)
{
	memset(life, 0, sizeof(*life));
	rig_init(&life->rig, seed, options);
	life->random = sim_random(life->rig.world);
	life->next_tag = 1;
	rig_open_ok(&life->rig);
}

void life_done(struct life *life)
{
	rig_crash(&life->rig);
	life_forget_flights(life);
	rig_done(&life->rig);
}
