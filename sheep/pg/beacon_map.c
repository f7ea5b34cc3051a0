/*
 * What the map says to beacons: who there is to send them to, what they share with us, and the settings.
 *
 * Placement groups are counted once; after that only those that a command has changed are, out as they
 * were and in as they are. So a map costs its changes.
 */
#include "lib/base/log.h"
#include "lib/base/rule.h"
#include "lib/base/size.h"
#include "sheep/pg/beacon.h"
#include "sheep/pg/pg_priv.h"

static bool is_ours(const struct pg_beacons *beacons, const struct cluster_map *map, uint32_t store)
{
	return cluster_store_node(map, store) == beacons->home->node;
}

/* Both listed, or joining: as many times as it has stores there. */
static void count_store(struct pg_beacons *beacons, const struct cluster_map *map, uint32_t store,
			int change)
{
	uint32_t node = cluster_store_node(map, store);
	struct beacon_peer *peer;

	if (!node || node == beacons->home->node)
		return;
	peer = beacons_peer_get(beacons, node);
	if (!peer) {
		/* Without it we neither lead with that node nor take over from it: wait for memory. */
		log_error("node %u: no memory to send it beacons", node);
		beacons->must_count = true;
		return;
	}
	peer->shared += (uint32_t)change;
}

static void count_pg(struct pg_beacons *beacons, const struct cluster_map *map,
		     const struct cluster_pg *row, int change)
{
	uint32_t leader = row ? cluster_pg_primary_node(map, row) : 0;
	bool is_listed = false, is_in_sync = false;

	for (uint32_t i = 0; row && i < row->isr_count; i++)
		if (is_ours(beacons, map, row->isr[i].store)) {
			is_listed = true;
			is_in_sync |= !(row->isr[i].flags & CLUSTER_SEAT_MARKED);
		}
	for (uint32_t i = 0; row && i < row->join_count; i++)
		is_listed |= is_ours(beacons, map, row->joining[i].store);
	if (!is_listed)
		return;
	for (uint32_t i = 0; i < row->isr_count; i++)
		count_store(beacons, map, row->isr[i].store, change);
	for (uint32_t i = 0; i < row->join_count; i++)
		count_store(beacons, map, row->joining[i].store, change);
	struct beacon_peer *peer = is_in_sync ? beacons_peer(beacons, leader) : NULL;
	if (peer)
		peer->leads += (uint32_t)change;
}

static void count_all(struct pg_beacons *beacons)
{
	const struct cluster_map *map = beacons->home->map;
	struct beacon_peer *peer, *next;
	const struct cluster_pg *row;

	beacons->must_count = false;
	HASH_ITER(hh, beacons->peers, peer, next)
		peer->shared = peer->leads = 0;
	for (uint32_t from = 0; (row = cluster_pg_next(map, from)); from = row->id + 1)
		count_pg(beacons, map, row, 1);
}

static void peer_apply(struct beacon_peer *peer)
{
	struct pg_beacons *beacons = peer->beacons;
	const struct cluster_map *map = beacons->home->map;
	const struct cluster_node *node = cluster_node(map, peer->node);
	uint64_t session = node && node->flags & CLUSTER_NODE_UP ? node->session : 0;
	uint64_t now = loop_clock(beacons->home->loop);
	bool was_active = peer->was_active && session == peer->session;

	peer->session = session;
	silence_apply(peer);
	if (!beacon_peer_is_active(peer)) {
		beacon_set_silent(peer, false);
		peer->is_renouncing = false;
		peer->deaf_ns = 0;
		if (!node)
			pg_leases_forget(beacons->leases, peer->node);
		return;
	}
	/* It has had no occasion to send or to acknowledge anything before. */
	if (!was_active) {
		peer->since_ns = now;
		beacon_set_silent(peer, false);
		peer->is_renouncing = false;
		beacons->next_ns = now;
		loop_timer_start(beacons->home->loop, &beacons->timer, now);
	}
	if (RULE(R1_GRACE_FROM_REGISTRATION) && (!was_active || (!peer->led && peer->leads)))
		peer->heard_ns = max_of(peer->heard_ns, now);
}

static void apply_settings(struct pg_beacons *beacons)
{
	const struct pg_set *home = beacons->home;
	uint64_t lease_ns = pg_set_time(home, CLUSTER_SETTING_LEASE);

	if (lease_ns != beacons->lease_ns) {
		/* They promised as much as the old one needed. */
		pg_leases_clear(beacons->leases);
		beacons->next_ns = 0;
		loop_timer_stop(home->loop, &beacons->timer); /* beacons_plan() starts it */
	}
	beacons->lease_ns = lease_ns;
	beacons->grace_ns = pg_set_time(home, CLUSTER_SETTING_GRACE);
	beacons->beacon_ns = pg_set_time(home, CLUSTER_SETTING_BEACON);
}

void pg_beacons_apply(struct pg_beacons *beacons, const struct cluster_map *old,
		      const uint64_t *pgs, uint32_t count)
{
	const struct cluster_map *map = beacons->home->map;
	const struct cluster_node *self = pg_peers_self(beacons->home->env.peers, map);
	uint32_t node = self ? self->id : 0;
	struct beacon_peer *peer, *next;

	HASH_ITER(hh, beacons->peers, peer, next) {
		peer->was_active = beacon_peer_is_active(peer);
		peer->led = peer->leads;
	}
	apply_settings(beacons);
	if (!old || !pgs || beacons->must_count || node != beacons->home->node) {
		beacons->home->node = node;
		count_all(beacons);
	} else {
		for (uint32_t i = 0; i < count; i++) {
			count_pg(beacons, old, cluster_pg(old, (uint32_t)pgs[i]), -1);
			count_pg(beacons, map, cluster_pg(map, (uint32_t)pgs[i]), 1);
		}
	}
	HASH_ITER(hh, beacons->peers, peer, next)
		peer_apply(peer);
	beacons_plan(beacons);
}
