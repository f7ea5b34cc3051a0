#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/crc32c.h"
#include "tests/unit/store_model.h"

uint64_t model_layer(uint32_t object)
{
	return 10 + object % 2;
}

uint32_t model_index(uint32_t object)
{
	return object / 2;
}

struct object_key model_key(uint32_t object)
{
	return (struct object_key){model_layer(object), model_index(object)};
}

struct store_request model_request(const struct model_op *op, uint32_t i)
{
	return (struct store_request){.session = op->session,
				      .number = op->number + i,
				      .version = op->version,
				      .key = model_key(op->object)};
}

static bool request_is_equal(const struct store_request *a, const struct store_request *b)
{
	return a->session == b->session && a->number == b->number &&
	       version_compare(a->version, b->version) == 0 &&
	       object_key_compare(&a->key, &b->key) == 0;
}

static void set_lowest(struct model_pg *pg, uint32_t session, uint64_t lowest)
{
	if (lowest <= pg->lowest[session])
		return;
	pg->lowest[session] = lowest;
	for (uint32_t i = 0; i < MODEL_WINDOW; i++)
		if (pg->requests[session][i].number < lowest)
			pg->requests[session][i] = (struct store_request){0};
}

static void apply_object_requests(struct model_pg *pg, const struct model_op *op)
{
	const struct object_key key = model_key(op->object);

	for (uint32_t s = 0; s < MODEL_SESSIONS; s++)
		for (uint32_t i = 0; i < MODEL_WINDOW; i++) {
			struct store_request *r = &pg->requests[s][i];
			if (r->session && object_key_compare(&r->key, &key) == 0 &&
			    version_compare(r->version, op->above) > 0)
				*r = (struct store_request){0};
		}
	for (uint32_t i = 0; i < op->request_count; i++)
		pg->requests[op->session - 1][(op->number + i) % MODEL_WINDOW] =
			model_request(op, i);
}

static void apply_requests(struct model_pg *pg, const struct model_op *op)
{
	uint32_t s = (uint32_t)op->session - 1;

	if (op->kind == MODEL_END_SESSION) {
		memset(pg->requests[s], 0, sizeof(pg->requests[s]));
		pg->lowest[s] = 0;
	} else if (op->kind == MODEL_SET_REQUESTS) {
		/* One request of one session, in place of all. */
		memset(pg->requests, 0, sizeof(pg->requests));
		pg->requests[s][op->number % MODEL_WINDOW] = model_request(op, 0);
	} else if (op->flags & STORE_REQUESTS) {
		apply_object_requests(pg, op);
	} else if (op->session && !(op->flags & STORE_UNSEQUENCED)) {
		set_lowest(pg, s, op->lowest);
		pg->requests[s][op->number % MODEL_WINDOW] = model_request(op, 0);
	}
}

void model_apply(struct model *model, const struct model_op *op)
{
	struct model_pg *pg = &model->pgs[op->pg];
	struct model_object *o = &pg->objects[op->object];
	uint32_t tag = op->tag;

	apply_requests(pg, op);
	if (op->kind != MODEL_CHANGE)
		return;
	if (!(op->flags & STORE_UNSEQUENCED))
		pg->last = op->version;
	if (op->flags & STORE_DELETE) {
		memset(o, 0, sizeof(*o));
		return;
	}
	o->exists = true;
	if (op->flags & STORE_REPLACE)
		memset(o->tags, 0, sizeof(o->tags));
	for (uint32_t i = 0; i < op->run_count; i++)
		for (uint32_t j = 0; j < op->runs[i].count; j++)
			o->tags[op->runs[i].block + j] = op->runs[i].state == BLOCK_DATA ? tag++
							 : op->runs[i].state == BLOCK_ZERO
								 ? RIG_TAG_ZERO
								 : RIG_TAG_ABSENT;
	if (!(op->flags & STORE_UNSEQUENCED) || op->flags & STORE_CLEAR_MISSING)
		o->version = op->version;
	if (op->flags & STORE_SET_MISSING)
		o->is_missing = true;
	if (op->flags & STORE_CLEAR_MISSING)
		o->is_missing = false;
}

static void read_pg(struct rig *rig, uint32_t id, struct model_pg *out)
{
	struct store_request requests[MODEL_SESSIONS * MODEL_WINDOW];
	struct store_pg_info info;
	struct store_object object;
	struct object_key after;
	uint32_t count = store_requests(rig->store, id, requests, MODEL_SESSIONS * MODEL_WINDOW);
	uint32_t objects = 0;

	store_pg_info(rig->store, id, &info);
	out->last = info.last;
	assert_true(count <= MODEL_SESSIONS * MODEL_WINDOW);
	for (uint32_t i = 0; i < count; i++)
		out->requests[requests[i].session - 1][requests[i].number % MODEL_WINDOW] =
			requests[i];
	for (int more = store_object_next(rig->store, id, NULL, &object); more;
	     more = store_object_next(rig->store, id, &after, &object)) {
		after = object.key;
		uint32_t number = object.key.index * 2 + (uint32_t)(object.key.layer - 10);
		assert_true(number < RIG_OBJECTS);
		struct model_object *o = &out->objects[number];
		uint32_t data = 0;
		objects++;
		o->exists = true;
		o->version = object.version;
		o->is_missing = object.is_missing;
		assert_int_equal(object.family, rig_family(object.key.layer));
		if (o->is_missing && rig->is_damaged) {
			o->is_damaged = true;
			continue;
		}
		if (o->is_missing) {
			uint32_t tags[OBJECT_BLOCKS];
			assert_int_equal(
				rig_sums(rig, id, object.key.layer, object.key.index, tags), 0);
			memcpy(o->tags, tags, sizeof(o->tags));
			continue;
		}
		int rc = rig_read(rig, id, object.key.layer, object.key.index, 0, MODEL_BLOCKS,
				  o->tags);
		if (rig->is_damaged && (rc == -E_CHECKSUM || rc == -E_MISSING)) {
			o->is_damaged = true;
			continue;
		}
		if (rc != 0)
			fail_msg("pg %u object %u: read: %s", id, number, err_text(rc));
		for (uint32_t i = 0; i < MODEL_BLOCKS; i++)
			data += o->tags[i] != RIG_TAG_ABSENT && o->tags[i] != RIG_TAG_ZERO;
		assert_int_equal(object.data_blocks, data);
	}
	assert_int_equal(info.objects, objects);
}

void model_read(struct rig *rig, struct model *out)
{
	memset(out, 0, sizeof(*out));
	for (uint32_t i = 0; i < RIG_PGS; i++)
		read_pg(rig, i, &out->pgs[i]);
}

/* A missing object is not served, but its content is there, and a push may build on it. */
static bool content_is_equal(const struct model_object *expected, const struct model_object *actual)
{
	uint8_t block[BLOCK_SIZE] __attribute__((aligned(8)));

	if (!actual->is_missing)
		return memcmp(expected->tags, actual->tags, sizeof(actual->tags)) == 0;
	for (uint32_t i = 0; i < MODEL_BLOCKS; i++) {
		uint32_t tag = expected->tags[i];
		if (tag == actual->tags[i] && (tag == RIG_TAG_ABSENT || tag == RIG_TAG_ZERO))
			continue;
		rig_fill(tag, block);
		if (crc32c(block, BLOCK_SIZE) != actual->tags[i])
			return false;
	}
	return true;
}

static bool object_is_equal(const struct model_object *expected, const struct model_object *actual)
{
	if (actual->is_damaged)
		return expected->exists;
	return expected->exists == actual->exists && expected->is_missing == actual->is_missing &&
	       version_compare(expected->version, actual->version) == 0 &&
	       content_is_equal(expected, actual);
}

static bool requests_are_equal(const struct model_pg *a, const struct model_pg *b)
{
	for (uint32_t s = 0; s < MODEL_SESSIONS; s++)
		for (uint32_t i = 0; i < MODEL_WINDOW; i++)
			if (!request_is_equal(&a->requests[s][i], &b->requests[s][i]))
				return false;
	return true;
}

bool model_is_equal(const struct model *a, const struct model *b)
{
	for (uint32_t i = 0; i < RIG_PGS; i++) {
		const struct model_pg *p = &a->pgs[i], *q = &b->pgs[i];
		if (version_compare(p->last, q->last) != 0 || !requests_are_equal(p, q))
			return false;
		for (uint32_t j = 0; j < RIG_OBJECTS; j++)
			if (!object_is_equal(&p->objects[j], &q->objects[j]))
				return false;
	}
	return true;
}

uint32_t model_distance(const struct model *a, const struct model *b)
{
	uint32_t distance = 0;

	for (uint32_t i = 0; i < RIG_PGS; i++) {
		distance += version_compare(a->pgs[i].last, b->pgs[i].last) != 0;
		distance += !requests_are_equal(&a->pgs[i], &b->pgs[i]);
		for (uint32_t j = 0; j < RIG_OBJECTS; j++)
			distance += !object_is_equal(&a->pgs[i].objects[j], &b->pgs[i].objects[j]);
	}
	return distance;
}

static void print_object(uint32_t pg, uint32_t number, const struct model_object *e,
			 const struct model_object *a)
{
	printf("pg %u object %u: expected exists %d missing %d version %llu, is %d %d %llu\n", pg,
	       number, e->exists, e->is_missing, (unsigned long long)e->version.n, a->exists,
	       a->is_missing, (unsigned long long)a->version.n);
	for (uint32_t i = 0, shown = 0; i < MODEL_BLOCKS && shown < 8; i++)
		if (e->tags[i] != a->tags[i]) {
			printf("  block %u: expected %u, is %u\n", i, e->tags[i], a->tags[i]);
			shown++;
		}
}

void model_print_difference(const struct model *expected, const struct model *actual)
{
	for (uint32_t i = 0; i < RIG_PGS; i++) {
		const struct model_pg *e = &expected->pgs[i], *a = &actual->pgs[i];
		if (version_compare(e->last, a->last) != 0)
			printf("pg %u: expected last %llu, is %llu\n", i,
			       (unsigned long long)e->last.n, (unsigned long long)a->last.n);
		for (uint32_t s = 0; s < MODEL_SESSIONS; s++)
			for (uint32_t j = 0; j < MODEL_WINDOW; j++)
				if (!request_is_equal(&e->requests[s][j], &a->requests[s][j]))
					printf("pg %u: request %u:%llu, is %llu\n", i, s + 1,
					       (unsigned long long)e->requests[s][j].number,
					       (unsigned long long)a->requests[s][j].number);
		for (uint32_t j = 0; j < RIG_OBJECTS; j++)
			if (!object_is_equal(&e->objects[j], &a->objects[j]))
				print_object(i, j, &e->objects[j], &a->objects[j]);
	}
}
