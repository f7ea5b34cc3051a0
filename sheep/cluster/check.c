/*
 * Every invariant of a map, in one place. Tests run it after every command; what was
 * decoded from bytes must pass it before anybody sees it.
 */
#include "lib/base/size.h"
#include "sheep/cluster/cluster_priv.h"

static bool is_listed(const struct bucket_item *bucket, uint64_t id)
{
	for (uint32_t i = 0; bucket && i < bucket->count; i++)
		if (bucket->ids[i] == id)
			return true;
	return false;
}

static bool is_found(const struct trie *trie, uint64_t key, uint64_t id)
{
	return is_listed((const struct bucket_item *)trie_find(trie, key), id);
}

/* How many (key -> id) pairs an index has. */
static uint64_t count_pairs(const struct trie *trie)
{
	const struct trie_item *item = trie_next(trie, 0);
	uint64_t count = 0;

	while (item) {
		count += ((const struct bucket_item *)item)->count;
		item = item->key == UINT64_MAX ? NULL : trie_next(trie, item->key + 1);
	}
	return count;
}

/* ---- nodes and stores ---- */

static int check_node(const struct cluster_map *map, const struct cluster_node *node,
		      struct error *err)
{
	bool is_up = node->flags & CLUSTER_NODE_UP;
	uint32_t ends = node->flags & (CLUSTER_NODE_DEAD | CLUSTER_NODE_LEFT);

	if (!node->id || node->id >= map->next_node)
		return error_set(err, -E_CORRUPT, "node %u was never given out", node->id);
	if (cluster_node_by_uuid(map, &node->uuid) != node)
		return error_set(err, -E_CORRUPT, "node %u is not found by UUID", node->id);
	if (is_up != (node->session != 0) || node->session > map->index)
		return error_set(err, -E_CORRUPT, "node %u: flags %u with session %llu", node->id,
				 node->flags, (unsigned long long)node->session);
	if (is_up ? ends : ends != CLUSTER_NODE_DEAD && ends != CLUSTER_NODE_LEFT)
		return error_set(err, -E_CORRUPT, "node %u: flags %u", node->id, node->flags);
	if (is_up && cluster_node_by_session(map, node->session) != node)
		return error_set(err, -E_CORRUPT, "node %u is not found by session", node->id);
	if (!wire_text_is_valid(node->address, sizeof(node->address), false) ||
	    !wire_text_is_valid(node->zone, sizeof(node->zone), false))
		return error_set(err, -E_CORRUPT, "node %u has a bad address or zone", node->id);
	return 0;
}

static int check_nodes(const struct cluster_map *map, struct error *err)
{
	const struct cluster_node *node;
	uint32_t after = 0, sessions = 0, nodes = 0;
	int rc = 0;

	while (rc == 0 && (node = cluster_node_next(map, after)) != NULL) {
		after = node->id;
		nodes++;
		sessions += node->session != 0;
		rc = check_node(map, node, err);
	}
	if (rc < 0)
		return rc;
	if (nodes != map->nodes.count || nodes > CLUSTER_NODES_MAX ||
	    count_pairs(&map->node_uuids) != nodes || count_pairs(&map->sessions) != sessions)
		return error_set(err, -E_CORRUPT, "%u nodes do not match what finds them", nodes);
	return 0;
}

static int check_store(const struct cluster_map *map, const struct cluster_store *store,
		       struct error *err)
{
	const struct cluster_node *node = cluster_node(map, store->node);

	if (!store->id || store->id >= map->next_store)
		return error_set(err, -E_CORRUPT, "store %u was never given out", store->id);
	if (cluster_store_by_uuid(map, &store->uuid) != store)
		return error_set(err, -E_CORRUPT, "store %u is not found by UUID", store->id);
	if (!node)
		return error_set(err, -E_CORRUPT, "store %u of no node", store->id);
	if ((store->flags & CLUSTER_STORE_UP) && !(node->flags & CLUSTER_NODE_UP))
		return error_set(err, -E_CORRUPT, "store %u is up, its node is not", store->id);
	if (!store->incarnation || !store->size_bytes ||
	    !wire_text_is_valid(store->path, sizeof(store->path), true))
		return error_set(err, -E_CORRUPT, "store %u has bad fields", store->id);
	return 0;
}

static int check_stores(const struct cluster_map *map, struct error *err)
{
	const struct cluster_store *store;
	uint32_t after = 0, stores = 0;
	int rc = 0;

	while (rc == 0 && (store = cluster_store_next(map, after)) != NULL) {
		after = store->id;
		stores++;
		rc = check_store(map, store, err);
	}
	if (rc < 0)
		return rc;
	if (stores != map->stores.count || stores > CLUSTER_STORES_MAX ||
	    count_pairs(&map->store_uuids) != stores)
		return error_set(err, -E_CORRUPT, "%u stores do not match what finds them", stores);
	return 0;
}

/* ---- PGs ---- */

#define SEAT_FLAGS (CLUSTER_SEAT_MARKED | CLUSTER_SEAT_STALE | CLUSTER_SEAT_HOLES)

static const char *wrong_seat(const struct cluster_map *map, const struct cluster_pg *pg,
			      const struct cluster_seat *seat)
{
	bool is_marked = seat->flags & CLUSTER_SEAT_MARKED;

	if (!cluster_store(map, seat->store))
		return "lists a store that does not exist";
	if (cluster_pg_seat(pg, seat->store) != seat)
		return "lists a store twice";
	if ((seat->flags & ~(uint32_t)SEAT_FLAGS) ||
	    (is_marked ? seat->flags & CLUSTER_SEAT_HOLES : seat->flags & CLUSTER_SEAT_STALE))
		return "has a seat with bad flags";
	if (!cluster_store_is_up(map, seat->store) && cluster_pg_may_lose(map, pg, seat->store))
		return "lists an absent member that it could lose";
	if (!pg->primary && pg_can_lead(map, pg, seat->store))
		return "has no primary, but who could be";
	return NULL;
}

static const char *wrong_join(const struct cluster_map *map, const struct cluster_pg *pg,
			      const struct cluster_join *join)
{
	const struct cluster_seat *seat = cluster_pg_seat(pg, join->store);
	const struct cluster_store *store = cluster_store(map, join->store);

	if (!store || !cluster_store_is_up(map, join->store) ||
	    join->incarnation != store->incarnation)
		return "has a join of a start that is over";
	if (cluster_pg_join(pg, join->store) != join)
		return "has two joins of one store";
	if (seat ? !(seat->flags & CLUSTER_SEAT_STALE) : !cluster_pg_has_target(pg, join->store))
		return "has a join of a store without a place";
	if (!join->index || join->index > map->index)
		return "has a join from the future";
	return NULL;
}

static const char *wrong_numbers(const struct cluster_map *map, const struct cluster_pg *pg)
{
	if (pg->isr_count > LOG_SEATS_MAX || pg->join_count > LOG_COPIES_MAX ||
	    pg->target_count > LOG_COPIES_MAX)
		return "has too many of something";
	if (pg->reign > pg->epoch || pg->epoch > map->index || pg->loss_epoch > pg->epoch ||
	    pg->fence_index > pg->epoch || pg->target_index > map->index)
		return "has epochs out of order";
	if (!pg->epoch != !pg->isr_count)
		return "has members without an epoch, or an epoch without members";
	if (!pg->fence_index && (pg->fence_store || pg->fence_node || pg->fence_incarnation))
		return "has a fence without an index";
	return NULL;
}

static const char *wrong_pg(const struct cluster_map *map, const struct cluster_pg *pg)
{
	const char *why = wrong_numbers(map, pg);

	for (uint32_t i = 0; !why && i < pg->isr_count; i++)
		why = wrong_seat(map, pg, &pg->isr[i]);
	for (uint32_t i = 0; !why && i < pg->join_count; i++)
		why = wrong_join(map, pg, &pg->joining[i]);
	for (uint32_t i = 0; !why && i < pg->target_count; i++) {
		if (!cluster_store(map, pg->target[i]))
			why = "aims at a store that does not exist";
		for (uint32_t j = 0; j < i; j++)
			if (pg->target[i] == pg->target[j])
				why = "aims at a store twice";
	}
	if (!why && pg->primary && !pg_can_lead(map, pg, pg->primary))
		why = "has a primary that cannot lead";
	return why;
}

static int check_policies(const struct cluster_map *map, struct error *err)
{
	uint64_t pgs = 0;

	if (map->shutdown > map->index)
		return error_set(err, -E_CORRUPT, "shut down in the future");
	if (map->policy_count > CLUSTER_POLICIES_MAX ||
	    uuid_is_null(&map->uuid) != (map->policy_count == 0) ||
	    !map->level != (map->policy_count == 0))
		return error_set(err, -E_CORRUPT, "half formatted");
	for (uint32_t i = 0; i < map->policy_count; i++) {
		const struct cluster_policy *policy = &map->policies[i];

		if (policy->id != i || !policy->copies || policy->copies > LOG_COPIES_MAX ||
		    !policy->min_insync || policy->min_insync > policy->copies ||
		    !is_power_of_two(policy->pg_count) || policy->pg_count > CLUSTER_PG_COUNT_MAX)
			return error_set(err, -E_CORRUPT, "policy %u has bad numbers", i);
		pgs += policy->pg_count;
	}
	if (pgs != map->pgs.count)
		return error_set(err, -E_CORRUPT, "%u placement groups, the policies have %llu",
				 map->pgs.count, (unsigned long long)pgs);
	return 0;
}

static int check_pgs(const struct cluster_map *map, struct error *err)
{
	const struct cluster_pg *pg;
	uint32_t from = 0, pgs = 0;
	const char *why = NULL;

	while ((pg = cluster_pg_next(map, from)) != NULL) {
		const struct cluster_policy *policy = pg_policy(map, pg);

		if (!policy || (pg->id & ((1u << CLUSTER_PG_POLICY_SHIFT) - 1)) >= policy->pg_count)
			why = "belongs to no policy";
		else
			why = wrong_pg(map, pg);
		if (why)
			return error_set(err, -E_CORRUPT, "pg %u %s", pg->id, why);
		from = pg->id + 1;
		pgs++;
	}
	if (pgs != map->pgs.count)
		return error_set(err, -E_CORRUPT, "%u placement groups of %u", pgs, map->pgs.count);
	return 0;
}

/* ---- volumes ---- */

static const char *wrong_openers(const struct cluster_map *map, const struct cluster_volume *volume)
{
	uint64_t last = 0;

	for (uint32_t i = 0; i < volume->opener_count; i++) {
		if (volume->openers[i].session <= last)
			return "has openers out of order";
		last = volume->openers[i].session;
		if (!cluster_node_by_session(map, last))
			return "is open in a session that has ended";
	}
	if (volume->owner && !cluster_node_by_session(map, volume->owner))
		return "is owned by a session that has ended";
	return NULL;
}

static const char *wrong_properties(const struct cluster_volume *volume)
{
	if (volume->property_count > CLUSTER_VOLUME_PROPERTIES)
		return "has too many properties";
	for (uint32_t i = 0; i < volume->property_count; i++) {
		const struct cluster_property *property = &volume->properties[i];

		if (i && strcmp(volume->properties[i - 1].key, property->key) >= 0)
			return "has properties out of order";
		if (!property->value[0] ||
		    cluster_check_property(property->key, property->value, NULL) < 0)
			return "has a bad property";
	}
	return NULL;
}

static const char *wrong_volume(const struct cluster_map *map, const struct cluster_volume *volume)
{
	const char *why;

	if (!volume->id || volume->id >= map->next_id || volume->family >= map->next_id)
		return "has an id that was never given out";
	if (cluster_check_volume_name(volume->name, strnlen(volume->name, LOG_NAME_SIZE), NULL) <
		    0 ||
	    cluster_check_volume_size(volume->size_bytes, NULL) < 0)
		return "has a bad name or size";
	if (volume->high_bytes < volume->size_bytes ||
	    cluster_check_volume_size(volume->high_bytes, NULL) < 0)
		return "was never as large as it is";
	if (cluster_volume_by_name(map, volume->name) != volume)
		return "is not found by its name";
	if (!cluster_policy(map, volume->policy))
		return "has a policy that does not exist";
	if (volume->access > CLUSTER_ACCESS_SHARED ||
	    volume->durability > CLUSTER_DURABILITY_ALWAYS)
		return "has a bad access or durability";
	if (volume->access == CLUSTER_ACCESS_SHARED && volume->owner)
		return "is shared and has an owner";
	if (!volume->layer_count || volume->layer_count > LOG_LAYERS_MAX)
		return "has no layers, or too many";
	for (uint32_t i = 0; i < volume->layer_count; i++)
		if (!volume->layers[i] || volume->layers[i] >= map->next_id ||
		    !is_found(&map->layers, volume->layers[i], volume->id))
			return "has a layer that does not lead back to it";
	if (volume->created > volume->changed || volume->changed > map->index ||
	    volume->generation < volume->created || volume->generation > map->index)
		return "has indices out of order";
	why = wrong_openers(map, volume);
	return why ? why : wrong_properties(volume);
}

static int check_volumes(const struct cluster_map *map, struct error *err)
{
	const struct cluster_volume *volume;
	uint64_t after = 0, layers = 0;
	uint32_t volumes = 0;

	while ((volume = cluster_volume_next(map, after)) != NULL) {
		const char *why = wrong_volume(map, volume);

		if (why)
			return error_set(err, -E_CORRUPT, "volume %llu %s",
					 (unsigned long long)volume->id, why);
		after = volume->id;
		layers += volume->layer_count;
		volumes++;
	}
	if (volumes != map->volumes.count || volumes > CLUSTER_VOLUMES_MAX ||
	    count_pairs(&map->names) != volumes || count_pairs(&map->layers) != layers)
		return error_set(err, -E_CORRUPT, "%u volumes do not match what finds them",
				 volumes);
	return 0;
}

static int check_settings(const struct cluster_map *map, struct error *err)
{
	for (unsigned i = 0; i < CLUSTER_SETTING_COUNT; i++)
		if (map->settings[i] < cluster_settings[i].min ||
		    map->settings[i] > cluster_settings[i].max)
			return error_set(err, -E_CORRUPT, "setting %s has a bad value",
					 cluster_settings[i].name);
	return 0;
}

int cluster_check(const struct cluster_map *map, struct error *err)
{
	int rc = check_policies(map, err);

	if (rc == 0)
		rc = check_settings(map, err);
	if (rc == 0)
		rc = check_nodes(map, err);
	if (rc == 0)
		rc = check_stores(map, err);
	if (rc == 0)
		rc = check_pgs(map, err);
	return rc < 0 ? rc : check_volumes(map, err);
}
