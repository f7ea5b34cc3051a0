/*
 * Which stores each PG should be on: weighted rendezvous hashing within quotas, and
 * least movement against what the map says now.
 *
 *   1. keep   what is there stays, but what is out, drained or too many
 *   2. fill   free seats go to the store that wins the draw (store, PG) among those that
 *             have least in common with the other seats and are below their share
 *   3. level  single copies move from who has too much to who has too little, while that
 *             pays: new PGs freely, those that have data only beyond a tolerance
 *   4. lead   the same for who stands first, which moves no data
 *
 * A store that is out keeps its seat where nobody can take it. The result is data in the
 * log, so two nodes that would plan differently do no harm; that this uses floating
 * point is therefore allowed.
 */
#include "sheep/cluster/placement.h"

#include <math.h>
#include <stdlib.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "sheep/cluster/command.h"

#define PASSES_MAX 32
#define TOLERANCE  0.05 /* of a share, before data moves to even things out */
#define ROWS_MAX   1300u

/* One PG of the plan. */
struct group {
	const struct cluster_pg *pg;
	uint32_t count;
	struct place *seats[LOG_COPIES_MAX];
};

/* Data moves from who has more than `from` too much to who has less than `to` too much. */
struct bar {
	double from, to;
};

struct plan {
	struct places places;
	struct bar bar;
	struct group *groups;
	uint32_t group_count;
	uint32_t copies;
};

/* ---- the draw ---- */

/* Lower wins; a store with twice the weight wins twice as often. */
static double draw(const struct place *place, uint32_t pg)
{
	uint64_t bits = hash_u64_pair(place->store, pg) >> 11;
	double uniform = ((double)bits + 0.5) / 9007199254740992.0; /* 2^53 */

	return -log(uniform) / place->weight;
}

static double excess(const struct place *place)
{
	return (double)place->load - place->share;
}

static bool group_has(const struct group *group, const struct place *place)
{
	for (uint32_t i = 0; i < group->count; i++)
		if (group->seats[i] == place)
			return true;
	return false;
}

/* How much @place has in common with the seats but @slot: zones count before nodes. */
static uint32_t shared(const struct group *group, const struct place *place, uint32_t slot)
{
	uint32_t common = 0;

	for (uint32_t i = 0; i < group->count; i++) {
		if (i == slot)
			continue;
		common += group->seats[i]->zone == place->zone ? 100 : 0;
		common += group->seats[i]->node == place->node ? 1 : 0;
	}
	return common;
}

static void put_seat(struct group *group, uint32_t slot, struct place *place)
{
	if (slot == group->count)
		group->count++;
	else
		group->seats[slot]->load--;
	group->seats[slot] = place;
	place->load++;
}

/* ---- 1. keep ---- */

static void keep(struct plan *plan, struct group *group)
{
	for (uint32_t i = 0; i < group->pg->target_count; i++) {
		struct place *place = place_of(&plan->places, group->pg->target[i]);

		if (place)
			put_seat(group, group->count, place);
	}
}

/* Which seat should go if one must: who may not stay, then who has most in common. */
static uint32_t worst_seat(const struct group *group)
{
	uint32_t worst = 0, worst_common = 0;

	for (uint32_t i = 0; i < group->count; i++) {
		uint32_t common =
			shared(group, group->seats[i], i) + (group->seats[i]->may_stay ? 0 : 10000);

		/* Of equals the last: the first one leads. */
		if (common >= worst_common) {
			worst = i;
			worst_common = common;
		}
	}
	return worst;
}

static void trim(struct plan *plan, struct group *group)
{
	while (group->count > plan->copies) {
		uint32_t worst = worst_seat(group);

		group->seats[worst]->load--;
		group->count--;
		memmove(&group->seats[worst], &group->seats[worst + 1],
			(group->count - worst) * sizeof(group->seats[0]));
	}
}

/* ---- 2. fill ---- */

/*
 * Is @a the better one to take a seat, with that much in common with the others? PGs without data
 * leave the rest to the draw; what has data goes where it need not move again.
 */
static bool is_better(const struct group *group, const struct place *a, uint32_t a_common,
		      const struct place *b, uint32_t b_common)
{
	bool a_has_room = a->load + 0.5 < a->share, b_has_room = b->load + 0.5 < b->share;

	if (a_common != b_common)
		return a_common < b_common;
	if (a_has_room != b_has_room)
		return a_has_room;
	if (group->pg->target_count && excess(a) != excess(b))
		return excess(a) < excess(b);
	return draw(a, group->pg->id) < draw(b, group->pg->id);
}

/* NULL: nobody can. */
static struct place *best_for(struct plan *plan, const struct group *group, uint32_t slot)
{
	struct place *best = NULL;
	uint32_t best_common = 0;

	for (uint32_t i = 0; i < plan->places.count; i++) {
		struct place *place = &plan->places.list[i];
		uint32_t common;

		if (!place->may_take || group_has(group, place))
			continue;
		common = shared(group, place, slot);
		if (!best || is_better(group, place, common, best, best_common)) {
			best = place;
			best_common = common;
		}
	}
	return best;
}

static void fill(struct plan *plan, struct group *group)
{
	struct place *place;

	for (uint32_t i = 0; i < group->count; i++) {
		if (group->seats[i]->may_stay)
			continue;
		place = best_for(plan, group, i);
		if (place)
			put_seat(group, i, place);
	}
	while (group->count < plan->copies) {
		place = best_for(plan, group, group->count);
		if (!place)
			return;
		put_seat(group, group->count, place);
	}
}

/* ---- 3. level ---- */

/*
 * Does it pay that @to holds a copy instead of @from? A PG that has data moves only from who has
 * too much to who has too little, and only beyond the tolerance.
 */
static bool pays(const struct plan *plan, const struct group *group, const struct place *from,
		 const struct place *to)
{
	double gain = excess(from) - excess(to);

	/* No data is there yet: it has to go somewhere, so why not there. */
	if (!cluster_pg_has_target(group->pg, from->store))
		return gain > 1.0 + 1e-6;
	return excess(from) > plan->bar.from && excess(to) < plan->bar.to &&
	       gain > 1.0 + TOLERANCE * from->share;
}

/* Who should take @slot over? NULL: it stays. */
static struct place *better_for(struct plan *plan, const struct group *group, uint32_t slot)
{
	const struct place *from = group->seats[slot];
	uint32_t common = shared(group, from, slot), best_common = common;
	struct place *best = NULL;

	for (uint32_t i = 0; i < plan->places.count; i++) {
		struct place *place = &plan->places.list[i];
		uint32_t its;

		if (!place->may_take || group_has(group, place))
			continue;
		its = shared(group, place, slot);
		if (its > best_common || (its == common && !pays(plan, group, from, place)))
			continue;
		if (!best || its < best_common || excess(place) < excess(best)) {
			best = place;
			best_common = its;
		}
	}
	return best;
}

/* One copy at most: of the seat that has most too much. Who is down for a while keeps what it has. */
static bool level_group(struct plan *plan, struct group *group)
{
	struct place *best = NULL;
	uint32_t slot = 0;

	for (uint32_t i = 0; i < group->count; i++) {
		struct place *place;

		if (!group->seats[i]->may_take)
			continue;
		place = better_for(plan, group, i);
		if (place && (!best || excess(group->seats[i]) > excess(group->seats[slot]))) {
			best = place;
			slot = i;
		}
	}
	if (best)
		put_seat(group, slot, best);
	return best != NULL;
}

static bool level_all(struct plan *plan, struct bar bar)
{
	bool moved = false;

	plan->bar = bar;
	for (uint32_t i = 0; i < plan->group_count; i++)
		moved |= level_group(plan, &plan->groups[i]);
	return moved;
}

/*
 * First from those who have too much to those who have too little. Only what is still missing, or too much,
 * then is taken from, or given to, those who have just enough: so a small new store gets its share
 * of many large ones, and hardly anything moves twice.
 */
static void level(struct plan *plan)
{
	static const struct bar none = {.from = INFINITY}; /* what moves anyway, and no other */
	static const struct bar both = {.from = 0.5, .to = -0.5};
	static const struct bar few = {.from = 0, .to = -1}, many = {.from = 1, .to = 0};

	for (unsigned pass = 0; pass < PASSES_MAX && level_all(plan, none); pass++)
		;
	for (unsigned pass = 0; pass < PASSES_MAX; pass++)
		if (!level_all(plan, both) && !level_all(plan, few) && !level_all(plan, many))
			return;
}

/* ---- 4. lead ---- */

static double lead_excess(const struct place *place)
{
	return (double)place->leads - place->lead_share;
}

static void swap_seats(struct group *group, uint32_t slot)
{
	struct place *first = group->seats[0];

	group->seats[0] = group->seats[slot];
	group->seats[slot] = first;
	first->leads--;
	group->seats[0]->leads++;
}

static bool lead_group(struct group *group)
{
	double gain = 1.0 + 1e-6 + (group->pg->epoch ? TOLERANCE * group->seats[0]->lead_share : 0);
	uint32_t best = 0;

	for (uint32_t i = 1; i < group->count; i++) {
		const struct place *place = group->seats[i];

		if (!place->may_take)
			continue;
		if (!group->seats[0]->may_stay && !best)
			best = i;
		else if (lead_excess(group->seats[0]) - lead_excess(place) > gain &&
			 lead_excess(place) < lead_excess(group->seats[best]))
			best = i;
	}
	if (best)
		swap_seats(group, best);
	return best != 0;
}

/* The seats of a new PG in the order of the draw: the next in line differ from PG to PG. */
static void order_new(struct group *group)
{
	for (uint32_t i = 1; i < group->count; i++)
		for (uint32_t j = i; j > 0 && draw(group->seats[j], group->pg->id) <
						      draw(group->seats[j - 1], group->pg->id);
		     j--) {
			struct place *swap = group->seats[j];

			group->seats[j] = group->seats[j - 1];
			group->seats[j - 1] = swap;
		}
}

static void lead(struct plan *plan)
{
	bool moved = true;

	for (uint32_t i = 0; i < plan->group_count; i++) {
		struct group *group = &plan->groups[i];

		if (!group->pg->target_count)
			order_new(group);
		if (group->count)
			group->seats[0]->leads++;
		for (uint32_t j = 0; j < group->count; j++)
			if (group->seats[j]->may_stay)
				group->seats[j]->lead_share += 1.0 / group->count;
	}
	for (unsigned pass = 0; moved && pass < PASSES_MAX; pass++) {
		moved = false;
		for (uint32_t i = 0; i < plan->group_count; i++)
			if (plan->groups[i].count)
				moved |= lead_group(&plan->groups[i]);
	}
}

/* ---- the plan as commands ---- */

static bool is_same(const struct group *group)
{
	if (group->count != group->pg->target_count)
		return false;
	for (uint32_t i = 0; i < group->count; i++)
		if (group->seats[i]->store != group->pg->target[i])
			return false;
	return true;
}

static void fill_row(struct log_retarget_row *row, const struct group *group)
{
	memset(row, 0, sizeof(*row));
	row->pg = to_le32(group->pg->id);
	row->count = to_le32(group->count);
	row->target_index = to_le64(group->pg->target_index);
	for (uint32_t i = 0; i < group->count; i++)
		row->stores[i] = to_le32(group->seats[i]->store);
}

/* Commands for the groups that differ, from out[done] on. The number there are, or -ENOMEM. */
static int emit(const struct plan *plan, struct cluster_command **out, unsigned done, unsigned max)
{
	struct log_retarget_row *rows = calloc(ROWS_MAX, sizeof(*rows));
	uint32_t count = 0;

	if (!rows)
		return -ENOMEM;
	for (uint32_t i = 0; i <= plan->group_count && done < max; i++) {
		bool is_end = i == plan->group_count;

		if (!is_end && plan->groups[i].count && !is_same(&plan->groups[i]))
			fill_row(&rows[count++], &plan->groups[i]);
		if (!count || (!is_end && count < ROWS_MAX))
			continue;
		out[done] = cluster_command_retarget(rows, count);
		if (!out[done]) {
			free(rows);
			return -ENOMEM;
		}
		done++;
		count = 0;
	}
	free(rows);
	return (int)done;
}

/* The groups of one policy. 0 or -ENOMEM. */
static int plan_init(struct plan *plan, const struct cluster_map *map,
		     const struct cluster_policy *policy, const struct cluster_plan_input *input)
{
	uint32_t first = policy->id << CLUSTER_PG_POLICY_SHIFT;
	const struct cluster_pg *pg = cluster_pg_next(map, first);
	int rc;

	memset(plan, 0, sizeof(*plan));
	plan->copies = policy->copies;
	plan->groups = calloc(policy->pg_count, sizeof(*plan->groups));
	if (!plan->groups)
		return -ENOMEM;
	rc = places_init(&plan->places, map, input);
	if (rc < 0)
		return rc;
	for (; pg && pg->id >> CLUSTER_PG_POLICY_SHIFT == policy->id;
	     pg = cluster_pg_next(map, pg->id + 1))
		plan->groups[plan->group_count++].pg = pg;
	return places_share(&plan->places, policy->copies, policy->pg_count);
}

static void plan_done(struct plan *plan)
{
	places_done(&plan->places);
	free(plan->groups);
}

static void plan_make(struct plan *plan)
{
	for (uint32_t i = 0; i < plan->group_count; i++) {
		keep(plan, &plan->groups[i]);
		trim(plan, &plan->groups[i]);
	}
	for (uint32_t i = 0; i < plan->group_count; i++)
		fill(plan, &plan->groups[i]);
	level(plan);
	lead(plan);
}

int cluster_plan(const struct cluster_map *map, const struct cluster_plan_input *input,
		 struct cluster_command **out, unsigned max)
{
	unsigned done = 0;

	for (uint32_t i = 0; i < map->policy_count && done < max; i++) {
		struct plan plan;
		int rc = plan_init(&plan, map, &map->policies[i], input);

		if (rc == 0) {
			plan_make(&plan);
			rc = emit(&plan, out, done, max);
		}
		plan_done(&plan);
		if (rc < 0) {
			while (done > 0)
				cluster_command_free(out[--done]);
			return rc;
		}
		done = (unsigned)rc;
	}
	return (int)done;
}
