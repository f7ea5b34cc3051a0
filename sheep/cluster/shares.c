/*
 * How much each store should hold.
 *
 * Weight is handed out from the top: zones, then the nodes of a zone, then the stores
 * of a node. Who would get more than the rule of distinct zones and nodes allows is cut
 * to that, and the rest is shared by the others: with three copies in three zones each
 * zone has one of each, whatever its size.
 */
#include <stdlib.h>

#include "lib/base/size.h"
#include "sheep/cluster/placement.h"

/* ---- who there is ---- */

static bool is_in(uint32_t id, const uint32_t *list, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (list[i] == id)
			return true;
	return false;
}

/* The number of @node's zone: that of an earlier node with the same name, or a new one. */
static uint32_t zone_number(const struct cluster_map *map, const struct places *places,
			    const struct cluster_node *node)
{
	for (uint32_t i = 0; i < places->count; i++) {
		const struct place *place = &places->list[i];
		const struct cluster_node *other =
			cluster_node(map, cluster_store_node(map, place->store));

		if (strcmp(other->zone, node->zone) == 0)
			return place->zone;
	}
	return places->zone_count;
}

static uint32_t node_number(const struct cluster_map *map, const struct places *places,
			    uint32_t node)
{
	for (uint32_t i = 0; i < places->count; i++)
		if (cluster_store_node(map, places->list[i].store) == node)
			return places->list[i].node;
	return places->node_count;
}

static void add_place(struct places *places, const struct cluster_map *map,
		      const struct cluster_store *store, const struct cluster_plan_input *input)
{
	const struct cluster_node *node = cluster_node(map, store->node);
	struct place *place = &places->list[places->count];

	place->store = store->id;
	place->node = node_number(map, places, node->id);
	place->zone = zone_number(map, places, node);
	place->weight = store->weight;
	place->may_stay = store->weight && !(node->flags & CLUSTER_NODE_DRAINING) &&
			  !is_in(node->id, input->out_nodes, input->out_node_count) &&
			  !is_in(store->id, input->out_stores, input->out_store_count);
	place->may_take = place->may_stay && cluster_store_is_up(map, store->id);
	places->count++;
	places->node_count = max_of(places->node_count, place->node + 1);
	places->zone_count = max_of(places->zone_count, place->zone + 1);
}

int places_init(struct places *places, const struct cluster_map *map,
		const struct cluster_plan_input *input)
{
	const struct cluster_store *store = cluster_store_next(map, 0);

	memset(places, 0, sizeof(*places));
	places->list = calloc(cluster_store_count(map) + 1, sizeof(*places->list));
	if (!places->list)
		return -ENOMEM;
	for (; store; store = cluster_store_next(map, store->id))
		add_place(places, map, store, input);
	return 0;
}

void places_done(struct places *places)
{
	free(places->list);
	places->list = NULL;
}

struct place *place_of(struct places *places, uint32_t store)
{
	uint32_t low = 0, high = places->count;

	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (places->list[middle].store < store)
			low = middle + 1;
		else
			high = middle;
	}
	return low < places->count && places->list[low].store == store ? &places->list[low] : NULL;
}

/* ---- handing out ---- */

struct part {
	double weight, cap, share;
	bool is_full;
	uint32_t inside; /* parts of the next level with weight */
};

/* Share @total by weight; nobody gets more than its cap. */
static void hand_out(struct part *parts, uint32_t count, double total)
{
	bool again = true;

	while (again) {
		double weight = 0, left = total;

		again = false;
		for (uint32_t i = 0; i < count; i++) {
			if (parts[i].is_full)
				left -= parts[i].cap;
			else
				weight += parts[i].weight;
		}
		for (uint32_t i = 0; i < count; i++) {
			struct part *part = &parts[i];

			if (part->is_full)
				continue;
			part->share = weight > 0 && left > 0 ? left * part->weight / weight : 0;
			if (part->share > part->cap) {
				part->share = part->cap;
				part->is_full = true;
				again = true;
			}
		}
	}
}

static uint32_t count_weighty(const struct part *parts, uint32_t count)
{
	uint32_t weighty = 0;

	for (uint32_t i = 0; i < count; i++)
		weighty += parts[i].weight > 0;
	return weighty;
}

/* The nodes of @zone share what it gets; @per_pg copies of a PG are in it at most. */
static void share_in_zone(const struct places *places, uint32_t zone, const struct part *whole,
			  uint32_t per_pg, uint32_t pg_count, struct part *nodes, struct part *mine)
{
	uint32_t count = 0;

	for (uint32_t n = 0; n < places->node_count; n++)
		nodes[n].is_full = false;
	for (uint32_t n = 0; n < places->node_count; n++) {
		mine[n] = (struct part){.cap = 0};
		if (nodes[n].weight > 0 && nodes[n].inside == zone) {
			mine[n].weight = nodes[n].weight;
			count++;
		}
	}
	for (uint32_t n = 0; n < places->node_count; n++)
		mine[n].cap = mine[n].weight > 0 ? (double)pg_count * div_up(per_pg, count) : 0;
	hand_out(mine, places->node_count, whole->share);
	for (uint32_t n = 0; n < places->node_count; n++)
		if (mine[n].weight > 0)
			nodes[n].share = mine[n].share;
}

static void share_in_nodes(struct places *places, const struct part *nodes, struct part *mine,
			   uint32_t pg_count)
{
	for (uint32_t n = 0; n < places->node_count; n++) {
		for (uint32_t i = 0; i < places->count; i++) {
			const struct place *place = &places->list[i];
			bool is_here = place->node == n && place->may_stay;

			mine[i] = (struct part){.weight = is_here ? place->weight : 0,
						.cap = is_here ? pg_count : 0};
		}
		hand_out(mine, places->count, nodes[n].share);
		for (uint32_t i = 0; i < places->count; i++)
			if (places->list[i].node == n)
				places->list[i].share = mine[i].share;
	}
}

int places_share(struct places *places, uint32_t copies, uint32_t pg_count)
{
	uint32_t most = max_of(places->count, 1u), zone_count;
	struct part *zones = calloc(most, sizeof(*zones));
	struct part *nodes = calloc(most, sizeof(*nodes)); /* inside: here its zone */
	struct part *mine = calloc(most, sizeof(*mine));
	int rc = zones && nodes && mine ? 0 : -ENOMEM;

	if (rc < 0)
		goto out;
	for (uint32_t i = 0; i < places->count; i++) {
		const struct place *place = &places->list[i];

		nodes[place->node].inside = place->zone;
		if (!place->may_stay)
			continue;
		nodes[place->node].weight += place->weight;
		zones[place->zone].weight += place->weight;
	}
	zone_count = max_of(count_weighty(zones, places->zone_count), 1u);
	for (uint32_t z = 0; z < places->zone_count; z++)
		zones[z].cap = (double)pg_count * div_up(copies, zone_count);
	hand_out(zones, places->zone_count, (double)copies * pg_count);
	for (uint32_t z = 0; z < places->zone_count; z++)
		share_in_zone(places, z, &zones[z], (uint32_t)div_up(copies, zone_count), pg_count,
			      nodes, mine);
	share_in_nodes(places, nodes, mine, pg_count);
out:
	free(zones);
	free(nodes);
	free(mine);
	return rc;
}
