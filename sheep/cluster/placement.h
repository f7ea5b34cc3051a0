/* What the planner knows of each store, and how much each of them should hold. */
#ifndef CLUSTER_PLACEMENT_H
#define CLUSTER_PLACEMENT_H

#include "sheep/cluster/cluster_priv.h"

/* A store as the planner sees it. */
struct place {
	uint32_t store;
	uint32_t node, zone; /* numbers from 0 */
	uint32_t weight;
	bool may_stay; /* what it has may stay, and counts as its share */
	bool may_take; /* it may get more */
	double share;  /* copies that it should hold */
	uint32_t load; /* copies that it holds in the plan */
	double lead_share;
	uint32_t leads;
};

struct places {
	struct place *list; /* by store id */
	uint32_t count;
	uint32_t node_count, zone_count;
};

/* 0 or -ENOMEM. */
int places_init(struct places *places, const struct cluster_map *map,
		const struct cluster_plan_input *input);
void places_done(struct places *places);
/* NULL: there is no such store. */
struct place *place_of(struct places *places, uint32_t store);

/*
 * Fill in every share for @copies of @pg_count PGs: by weight, but no zone gets more than one copy of
 * a PG while there are zones enough, nor a node, nor ever a store. 0 or -ENOMEM.
 */
int places_share(struct places *places, uint32_t copies, uint32_t pg_count);

#endif
