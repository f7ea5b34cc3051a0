/*
 * All copies of each placement group against each other; and whether what is told to be lost is.
 */
#include "tests/sim/herd_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/rule.h"
#include "lib/base/size.h"
#include "sheep/store/batch.h"

struct compare {
	struct store_sums sums;
	bool is_done;
	int result;
};

static void on_sums(struct store_sums *sums, int result)
{
	struct compare *compare = container_of_type(sums, struct compare, sums);

	compare->is_done = true;
	compare->result = result;
}

static struct compare *compared;

static bool is_compared(struct herd *herd)
{
	return compared->is_done;
}

static void get_sums(struct herd *herd, struct herd_node *node, uint32_t pg,
		     const struct object_key *key, struct compare *out)
{
	memset(out, 0, sizeof(*out));
	out->sums.done = on_sums;
	out->sums.pg = pg;
	out->sums.key = *key;
	out->sums.is_peek = true;
	store_sums(node->store, &out->sums);
	compared = out;
	herd_until(herd, 10000, is_compared, "sums");
	HERD_REQUIRE(herd, out->result == 0);
}

static void compare_object(struct herd *herd, struct herd_node *a, struct herd_node *b, uint32_t pg,
			   const struct object_key *key)
{
	struct compare *x = calloc(1, sizeof(*x)), *y = calloc(1, sizeof(*y));

	get_sums(herd, a, pg, key, x);
	get_sums(herd, b, pg, key, y);
	for (unsigned i = 0; i < OBJECT_BLOCKS; i++)
		if (x->sums.states[i] != y->sums.states[i] ||
		    (x->sums.states[i] == BLOCK_DATA && x->sums.crcs[i] != y->sums.crcs[i]))
			herd_fail(herd, "pg %u object %llu.%u block %u differs at %s and %s", pg,
				  (unsigned long long)key->layer, key->index, i, a->name, b->name);
	free(x);
	free(y);
}

static void compare_pg(struct herd *herd, struct herd_node *a, struct herd_node *b, uint32_t pg)
{
	struct object_key cursor;
	const struct object_key *after = NULL;
	struct store_object x, y;

	for (;;) {
		int more = store_object_next(a->store, pg, after, &x);
		int others = store_object_next(b->store, pg, after, &y);
		if (more != others || (more && object_key_compare(&x.key, &y.key) != 0))
			herd_fail(herd, "pg %u: %s and %s have other objects", pg, a->name,
				  b->name);
		if (!more)
			return;
		if (version_compare(x.version, y.version) != 0 || x.is_missing || y.is_missing)
			herd_fail(herd,
				  "pg %u object %llu.%u: %s has (%llu,%llu)%s, %s "
				  "(%llu,%llu)%s",
				  pg, (unsigned long long)x.key.layer, x.key.index, a->name,
				  (unsigned long long)x.version.reign,
				  (unsigned long long)x.version.n, x.is_missing ? " missing" : "",
				  b->name, (unsigned long long)y.version.reign,
				  (unsigned long long)y.version.n, y.is_missing ? " missing" : "");
		compare_object(herd, a, b, pg, &x.key);
		cursor = x.key;
		after = &cursor;
	}
}

static struct herd_node *node_of(struct herd *herd, uint32_t store)
{
	for (unsigned i = 0; i < herd->node_count; i++)
		if (herd->nodes[i].is_up && herd->nodes[i].store_id == store)
			return &herd->nodes[i];
	return NULL;
}

void herd_compare_copies(struct herd *herd)
{
	struct cluster_map *map = cluster_map_get(herd_map(herd));
	const struct cluster_pg *row;
	uint32_t from = 0;

	while ((row = cluster_pg_next(map, from))) {
		struct herd_node *first = node_of(herd, row->isr[0].store);
		from = row->id + 1;
		for (uint32_t i = 1; i < row->isr_count; i++) {
			struct herd_node *other = node_of(herd, row->isr[i].store);
			if (first && other)
				compare_pg(herd, first, other, row->id);
		}
	}
	cluster_map_put(map);
}

/* ---- what is lost ---- */

static bool has_all(const struct herd_node *node, uint32_t pg, const struct object_key *key,
		    const struct store_object *other)
{
	struct store_object object;

	return !store_is_failed(node->store) && store_object(node->store, pg, key, &object) > 0 &&
	       !object.is_missing && !object.is_in_flight && object.lost_blocks == 0 &&
	       version_compare(object.version, other->version) == 0;
}

bool herd_is_lost(struct herd *herd, uint64_t family, const struct object_key *key)
{
	const struct cluster_map *map = herd_map(herd);
	const struct cluster_policy *policy = cluster_policy(map, 0);
	const struct cluster_pg *row = cluster_pg(map, cluster_pg_of(policy, family, key->index));
	const struct herd_node *primary = row ? node_of(herd, row->primary) : NULL;
	struct store_object object;

	if (!primary)
		return true; /* it was lost, or not: the one that knew is gone */
	if (store_object(primary->store, row->id, key, &object) <= 0 ||
	    (!object.is_missing && object.lost_blocks == 0))
		return HERD_COUNTER(herd, objects_lost) > 0; /* written again since */
	for (uint32_t i = 0; i < row->isr_count; i++) {
		const struct herd_node *node = node_of(herd, row->isr[i].store);
		if (node && !(row->isr[i].flags & CLUSTER_SEAT_MARKED) &&
		    has_all(node, row->id, key, &object))
			return false;
	}
	return true;
}

/* ---- the moment before it is lost ---- */

/*
 * The entry that tells of a loss takes the object away everywhere: after it every loss looks right. So each copy of the same
 * version is looked at right before, block by block, whatever part its store has in the group. Those of stores that are
 * down are not: how long they were is for the tests to say.
 */
#ifdef SHEEPFOLD_MUTATIONS

struct verdict {
	struct sim_event event;
	struct store_sums sums;
	struct herd *herd;
	unsigned node;
	uint32_t pg;
	struct object_key key;
	struct version version;
	uint8_t states[OBJECT_BLOCKS];
};

static struct herd *judged;

static void on_verdict(struct store_sums *sums, int result)
{
	const struct verdict *verdict = container_of_type(sums, struct verdict, sums);

	if (result < 0 || version_compare(sums->version, verdict->version) != 0)
		return;
	for (unsigned i = 0; i < OBJECT_BLOCKS; i++)
		if (verdict->states[i] == BLOCK_LOST && sums->states[i] == BLOCK_DATA)
			herd_fail(verdict->herd,
				  "pg %u object %llu.%u block %u is told to be lost, and %s has it",
				  verdict->pg, (unsigned long long)verdict->key.layer,
				  verdict->key.index, i, verdict->herd->nodes[verdict->node].name);
}

/* In a turn of its own, before anything can have come from the node that declares it. */
static void judge(struct sim_event *event)
{
	struct verdict *verdict = container_of_type(event, struct verdict, event);
	const struct herd_node *node = &verdict->herd->nodes[verdict->node];
	struct store_object object;

	if (!node->is_up || store_is_failed(node->store) ||
	    store_object(node->store, verdict->pg, &verdict->key, &object) <= 0 ||
	    object.is_partial || object.is_in_flight)
		return;
	verdict->sums.done = on_verdict;
	verdict->sums.pg = verdict->pg;
	verdict->sums.key = verdict->key;
	verdict->sums.is_peek = true;
	store_sums(node->store, &verdict->sums);
}

static void on_loss(enum sim_point point, const void *subject)
{
	const struct pg_loss *loss = subject;
	const struct cluster_pg *row;

	if (!judged || point != SIM_POINT_LOSS_DECLARED)
		return;
	row = cluster_pg(herd_map(judged), loss->pg);
	for (unsigned i = 0; row && i < judged->node_count; i++) {
		const struct herd_node *node = &judged->nodes[i];
		struct verdict *verdict;
		if (!node->is_up || !node->store_id || node->store_id == row->primary)
			continue;
		verdict = calloc(1, sizeof(*verdict));
		assert_non_null(verdict);
		herd_bury(verdict); /* the node may die before it answers */
		verdict->herd = judged;
		verdict->node = i;
		verdict->pg = loss->pg;
		verdict->key = loss->key;
		verdict->version = loss->version;
		memcpy(verdict->states, loss->states, sizeof(verdict->states));
		verdict->event.run = judge;
		sim_schedule(judged->world, &verdict->event, sim_now(judged->world) + 1);
	}
}

void herd_judge_losses(struct herd *herd)
{
	judged = herd;
	sim_subject_hook = herd ? on_loss : NULL;
}

#else

void herd_judge_losses(struct herd *herd)
{
	(void)herd;
}

#endif
