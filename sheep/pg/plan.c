#include "sheep/pg/plan.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "lib/base/size.h"

struct node {
	struct pg_plan_object object; /* first: callers free it by this address */
	struct {
		uint64_t layer;
		uint64_t index;
	} hash_key;
	UT_hash_handle hh;
};

void pg_plan_init(struct pg_plan *plan)
{
	memset(plan, 0, sizeof(*plan));
}

void pg_plan_done(struct pg_plan *plan)
{
	struct pg_plan_object *object;

	while ((object = pg_plan_take(plan)))
		free(object);
}

static struct pg_plan_object *get(struct pg_plan *plan, const struct object_key *key,
				  uint64_t family)
{
	struct node *head = plan->by_key, *node;
	typeof(node->hash_key) find = {.layer = key->layer, .index = key->index};

	HASH_FIND(hh, head, &find, sizeof(find), node);
	if (node)
		return &node->object;
	node = calloc(1, sizeof(*node));
	if (!node)
		return NULL;
	node->hash_key = find;
	node->object.key = *key;
	node->object.family = family;
	HASH_ADD(hh, head, hash_key, sizeof(node->hash_key), node);
	plan->is_sorted = false;
	plan->by_key = head;
	plan->count++;
	return &node->object;
}

static void mark(struct pg_plan_object *object, uint32_t block, uint32_t count)
{
	for (uint32_t i = block; i < block + count; i++)
		bitmap_set(object->blocks, i);
}

int pg_plan_add_tail(struct pg_plan *plan, const struct store_tail_entry *tail, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		struct pg_plan_object *object = get(plan, &tail[i].key, tail[i].family);

		if (!object)
			return -ENOMEM;
		object->is_whole |= tail[i].run_count == 0;
		for (uint32_t r = 0; r < tail[i].run_count; r++)
			mark(object, tail[i].runs[r].block, tail[i].runs[r].count);
	}
	return 0;
}

static bool row_is_good(const struct peer_tail_row *row)
{
	uint32_t run_count = from_le32(row->run_count), next = 0;

	if (run_count > PEER_TAIL_RUNS)
		return false;
	for (uint32_t r = 0; r < run_count; r++) {
		uint32_t block = from_le16(row->runs[r].block);
		uint32_t count = from_le16(row->runs[r].count);

		if (block < next || count == 0 || block + count > OBJECT_BLOCKS)
			return false;
		next = block + count;
	}
	return true;
}

int pg_plan_add_rows(struct pg_plan *plan, const struct peer_tail_row *rows, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (!row_is_good(&rows[i]))
			return -EINVAL;
	for (uint32_t i = 0; i < count; i++) {
		struct object_key key = {.layer = from_le64(rows[i].layer),
					 .index = from_le32(rows[i].index)};
		struct pg_plan_object *object = get(plan, &key, from_le64(rows[i].family));
		uint32_t run_count = from_le32(rows[i].run_count);

		if (!object)
			return -ENOMEM;
		object->is_whole |= run_count == 0;
		for (uint32_t r = 0; r < run_count; r++)
			mark(object, from_le16(rows[i].runs[r].block),
			     from_le16(rows[i].runs[r].count));
	}
	return 0;
}

void pg_tail_encode(struct peer_tail_row *out, const struct store_tail_entry *tail, uint32_t count)
{
	if (count > 0)
		memset(out, 0, count * sizeof(*out));
	for (uint32_t i = 0; i < count; i++) {
		out[i].reign = to_le64(tail[i].version.reign);
		out[i].n = to_le64(tail[i].version.n);
		out[i].layer = to_le64(tail[i].key.layer);
		out[i].index = to_le32(tail[i].key.index);
		out[i].family = to_le64(tail[i].family);
		out[i].run_count = to_le32(tail[i].run_count);
		for (uint32_t r = 0; r < tail[i].run_count; r++) {
			out[i].runs[r].block = to_le16(tail[i].runs[r].block);
			out[i].runs[r].count = to_le16(tail[i].runs[r].count);
		}
	}
}

static int by_key(const struct node *a, const struct node *b)
{
	return object_key_compare(&a->object.key, &b->object.key);
}

struct pg_plan_object *pg_plan_take(struct pg_plan *plan)
{
	struct node *head = plan->by_key, *node = head;

	if (!head)
		return NULL;
	if (!plan->is_sorted) { /* so that a seed replays a run */
		HASH_SORT(head, by_key);
		node = head;
		plan->is_sorted = true;
	}
	HASH_DEL(head, node);
	plan->by_key = head;
	plan->count--;
	return &node->object;
}
