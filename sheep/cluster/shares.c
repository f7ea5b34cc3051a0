/*
 * How much each store should hold.
 *
 * Weight is handed out from the top: zones, then the nodes of a zone, then the stores
 * of a node. Who would get more, or less, than the rule of distinct zones and nodes
 * allows gets just that, and the rest is shared by the others: with three copies in three
 * zones each zone has one of each, whatever its size; with three in two, one or two.
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

/* A zone, a node of a zone, or a store of a node. */
struct part {
	double weight, low, high, share;
	uint32_t room;	 /* stores: it can have one copy of a PG on each */
	uint32_t nodes;	 /* with stores */
	uint32_t inside; /* of a node: its zone */
};

static double clamp(double value, double low, double high)
{
	return value < low ? low : value > high ? high : value;
}

/* Share @total by weight; nobody gets less than its low nor more than its high. */
static void hand_out(struct part *parts, uint32_t count, double total)
{
	double least = 0, most = 1;

	for (uint32_t i = 0; i < count; i++)
		if (parts[i].weight > 0)
			most = max_of(most, parts[i].high / parts[i].weight);
	/* What everybody gets for a unit of weight: the sum rises with it. */
	for (unsigned step = 0; step < 64; step++) {
		double rate = (least + most) / 2, sum = 0;

		for (uint32_t i = 0; i < count; i++)
			sum += clamp(parts[i].weight * rate, parts[i].low, parts[i].high);
		if (sum < total)
			least = rate;
		else
			most = rate;
	}
	for (uint32_t i = 0; i < count; i++)
		parts[i].share = clamp(parts[i].weight * most, parts[i].low, parts[i].high);
}

/* How many copies of one PG the fullest part has when @copies of them are spread as evenly as there is
 * room. */
static uint32_t level_of(const struct part *parts, uint32_t count, uint32_t copies)
{
	for (uint32_t level = 1; level < copies; level++) {
		uint32_t sum = 0;

		for (uint32_t i = 0; i < count; i++)
			sum += min_of(parts[i].room, level);
		if (sum >= copies)
			return level;
	}
	return copies;
}

/* Within @level a part takes no more than it has nodes, if the others can then take the rest. */
static void narrow(struct part *parts, uint32_t count, uint32_t copies, uint32_t level)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < count; i++)
		sum += min_of(parts[i].nodes, level);
	for (uint32_t i = 0; i < count && sum >= copies; i++)
		parts[i].room = parts[i].nodes;
}

/*
 * What the rule of distinct zones and nodes leaves each part: @fewest to @most copies of every PG are in
 * these parts together, as evenly as there is room; what the others cannot have it must.
 */
static void bound(struct part *parts, uint32_t count, uint32_t fewest, uint32_t most,
		  uint32_t pg_count)
{
	uint32_t level = level_of(parts, count, most), sum = 0, even;

	narrow(parts, count, most, level);
	even = fewest ? level_of(parts, count, fewest) - 1 : 0;
	for (uint32_t i = 0; i < count; i++)
		sum += min_of(parts[i].room, level);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t high = min_of(parts[i].room, level);
		uint32_t others = sum - high, low = min_of(parts[i].room, even);

		if (fewest > others)
			low = max_of(low, min_of(fewest - others, high));
		parts[i].low = (double)pg_count * low;
		parts[i].high = (double)pg_count * high;
	}
}

/* The nodes of @zone share what it gets. */
static void share_in_zone(const struct places *places, uint32_t zone, const struct part *whole,
			  uint32_t pg_count, struct part *nodes, struct part *mine)
{
	for (uint32_t n = 0; n < places->node_count; n++) {
		mine[n] = (struct part){.weight = 0};
		if (nodes[n].weight > 0 && nodes[n].inside == zone)
			mine[n] = nodes[n];
	}
	bound(mine, places->node_count, (uint32_t)(whole->low / pg_count),
	      (uint32_t)(whole->high / pg_count), pg_count);
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
						.high = is_here ? pg_count : 0};
		}
		hand_out(mine, places->count, nodes[n].share);
		for (uint32_t i = 0; i < places->count; i++)
			if (places->list[i].node == n)
				places->list[i].share = mine[i].share;
	}
}

static void add_up(const struct places *places, struct part *zones, struct part *nodes)
{
	for (uint32_t i = 0; i < places->count; i++) {
		const struct place *place = &places->list[i];

		nodes[place->node].inside = place->zone;
		if (!place->may_stay)
			continue;
		zones[place->zone].nodes += nodes[place->node].room == 0;
		nodes[place->node].nodes = 1;
		nodes[place->node].weight += place->weight;
		nodes[place->node].room++;
		zones[place->zone].weight += place->weight;
		zones[place->zone].room++;
	}
}

int places_share(struct places *places, uint32_t copies, uint32_t pg_count)
{
	uint32_t most = max_of(places->count, 1u);
	struct part *zones = calloc(most, sizeof(*zones));
	struct part *nodes = calloc(most, sizeof(*nodes));
	struct part *mine = calloc(most, sizeof(*mine));
	int rc = zones && nodes && mine ? 0 : -ENOMEM;

	if (rc == 0) {
		add_up(places, zones, nodes);
		bound(zones, places->zone_count, copies, copies, pg_count);
		hand_out(zones, places->zone_count, (double)copies * pg_count);
		for (uint32_t z = 0; z < places->zone_count; z++)
			share_in_zone(places, z, &zones[z], pg_count, nodes, mine);
		share_in_nodes(places, nodes, mine, pg_count);
	}
	free(zones);
	free(nodes);
	free(mine);
	return rc;
}
