/*
 * What a map says of the cluster's state: the words that operators read, and what a PG
 * should do next to become healthy.
 */
#include "lib/base/size.h"
#include "sheep/cluster/cluster_priv.h"

static const char *const health_names[CLUSTER_HEALTH_COUNT] = {
	[CLUSTER_HEALTHY] = "healthy",
	[CLUSTER_RECOVERING] = "recovering",
	[CLUSTER_DEGRADED] = "degraded",
	[CLUSTER_DOWN] = "down",
};

const char *cluster_health_name(enum cluster_health health)
{
	return health < CLUSTER_HEALTH_COUNT ? health_names[health] : "unknown";
}

/* Does it serve, for all the map knows? A member without mark that is not up is waited for. */
static bool pg_serves(const struct cluster_map *map, const struct cluster_pg *pg)
{
	if (!pg->primary || !cluster_pg_has_floor(map, pg))
		return false;
	for (uint32_t i = 0; i < pg->isr_count; i++)
		if (!(pg->isr[i].flags & CLUSTER_SEAT_MARKED) &&
		    !cluster_store_is_up(map, pg->isr[i].store))
			return false;
	return true;
}

/* Are the copies where they should be, and nowhere else? */
static bool is_on_target(const struct cluster_pg *pg)
{
	if (pg->isr_count != pg->target_count)
		return false;
	for (uint32_t i = 0; i < pg->isr_count; i++)
		if (!cluster_pg_has_target(pg, pg->isr[i].store))
			return false;
	return true;
}

enum cluster_health cluster_pg_health(const struct cluster_map *map, const struct cluster_pg *pg)
{
	if (!pg_serves(map, pg))
		return CLUSTER_DOWN;
	if (pg->join_count)
		return CLUSTER_RECOVERING;
	if (cluster_pg_in_sync(pg) < pg_policy(map, pg)->copies)
		return CLUSTER_DEGRADED;
	/* After a change of copies a target is too long until it is planned again. */
	return is_on_target(pg) && pg->target_count <= pg_policy(map, pg)->copies
		       ? CLUSTER_HEALTHY
		       : CLUSTER_RECOVERING;
}

static void count_pgs(const struct cluster_map *map, struct cluster_summary *out)
{
	const struct cluster_pg *pg;
	uint32_t from = 0;

	while ((pg = cluster_pg_next(map, from)) != NULL) {
		enum cluster_health health = cluster_pg_health(map, pg);

		from = pg->id + 1;
		out->pgs[health]++;
		out->pgs_total++;
		out->pgs_active += health != CLUSTER_DOWN;
		out->pgs_degraded += health != CLUSTER_DOWN &&
				     cluster_pg_in_sync(pg) < pg_policy(map, pg)->copies;
		out->pgs_forced += pg->forced > 0;
		out->pgs_lost += pg->loss_epoch > 0;
		if (health > out->health)
			out->health = health;
	}
}

void cluster_summary(const struct cluster_map *map, struct cluster_summary *out)
{
	const struct cluster_node *node;
	const struct cluster_store *store;
	uint32_t after = 0;

	memset(out, 0, sizeof(*out));
	count_pgs(map, out);
	while ((node = cluster_node_next(map, after)) != NULL) {
		after = node->id;
		out->nodes++;
		out->nodes_up += !!(node->flags & CLUSTER_NODE_UP);
	}
	after = 0;
	while ((store = cluster_store_next(map, after)) != NULL) {
		after = store->id;
		out->stores++;
		out->stores_up += cluster_store_is_up(map, store->id);
	}
	out->volumes = cluster_volume_count(map);
}

/* ---- nodes and stores ---- */

/* Does any PG want this node (0: any) and store (0: any)? */
static bool is_wanted(const struct cluster_map *map, uint32_t node, uint32_t store)
{
	const struct cluster_pg *pg;
	uint32_t from = 0;

	while ((pg = cluster_pg_next(map, from)) != NULL) {
		from = pg->id + 1;
		for (uint32_t i = 0; i < pg->target_count; i++) {
			if (store ? pg->target[i] == store
				  : cluster_store_node(map, pg->target[i]) == node)
				return true;
		}
	}
	return false;
}

static bool has_stores(const struct cluster_map *map, uint32_t node)
{
	const struct cluster_store *store;

	for (store = cluster_store_next(map, 0); store; store = cluster_store_next(map, store->id))
		if (store->node == node)
			return true;
	return false;
}

/* A gateway has no data that could be elsewhere: it is never out. */
const char *cluster_node_status(const struct cluster_map *map, const struct cluster_node *node)
{
	if (node->flags & CLUSTER_NODE_UP)
		return node->flags & CLUSTER_NODE_DRAINING ? "draining" : "up";
	return cluster_is_formatted(map) && has_stores(map, node->id) &&
			       !is_wanted(map, node->id, 0)
		       ? "out"
		       : "down";
}

const char *cluster_store_status(const struct cluster_map *map, const struct cluster_store *store)
{
	const struct cluster_node *node = cluster_node(map, store->node);

	if (store->flags & CLUSTER_STORE_FAILED)
		return "failed";
	if (!cluster_store_is_up(map, store->id))
		return cluster_is_formatted(map) && !is_wanted(map, 0, store->id) ? "out" : "down";
	return !store->weight || (node->flags & CLUSTER_NODE_DRAINING) ? "draining" : "up";
}

/* ---- what a PG should do next ---- */

static bool is_whole(const struct cluster_map *map, const struct cluster_pg *pg, uint32_t store)
{
	return pg_can_lead(map, pg, store) &&
	       !(cluster_pg_seat(pg, store)->flags & CLUSTER_SEAT_HOLES);
}

uint32_t cluster_pg_successor(const struct cluster_map *map, const struct cluster_pg *pg)
{
	if (!pg->primary || !pg->target_count)
		return 0;
	if (pg->target[0] != pg->primary && is_whole(map, pg, pg->target[0]) &&
	    (cluster_pg_health(map, pg) == CLUSTER_HEALTHY ||
	     !cluster_pg_has_target(pg, pg->primary)))
		return pg->target[0];
	if (cluster_pg_has_target(pg, pg->primary))
		return 0;
	for (uint32_t i = 1; i < pg->target_count; i++)
		if (is_whole(map, pg, pg->target[i]))
			return pg->target[i];
	return 0;
}

bool cluster_pg_wants_join(const struct cluster_map *map, const struct cluster_pg *pg,
			   uint32_t store)
{
	const struct cluster_seat *seat = cluster_pg_seat(pg, store);

	if (!pg->primary || cluster_pg_join(pg, store) || !cluster_store_is_up(map, store) ||
	    pg->join_count == LOG_COPIES_MAX)
		return false;
	return seat ? !!(seat->flags & CLUSTER_SEAT_MARKED) : cluster_pg_has_target(pg, store);
}
