/*
 * A primary's node is silent: its members take over (REPLICATION, L2, T1).
 *
 * `grace` after the last beacon that came from there the first live member of each PG asks for it, the next
 * ones later, each by its place: so that usually one asks. What many PGs ask for is one
 * command. The old primary goes out by it; where the floor forbids that nobody asks, because without the
 * old primary's answer nobody could be served anyway.
 *
 * The other way to become silent is to be deaf: then its beacons come and say that our answers do not reach
 * it, and that it counts none of them any more. So at the second of these we may take over
 * at once, in place of the answer.
 *
 * From the proposal until the PG's epoch has moved the node is held: no beacon of it is acknowledged,
 * and the proposal is repeated. Else its lease could begin anew while the takeover is on its way.
 */
#include <stdlib.h>

#include "lib/base/rule.h"
#include "sheep/pg/beacon.h"
#include "sheep/pg/pg_priv.h"

#define ROWS_MAX 1024u /* of one command; more follow in others */
#define TELL_NS	 (10 * NS_PER_S)
_Static_assert(ROWS_MAX <= CLUSTER_TAKEOVERS_MAX, "a command takes them");

/* ---- holds ---- */

static struct beacon_hold *hold_find(const struct beacon_peer *peer, uint32_t pg)
{
	struct beacon_hold *hold;

	HASH_FIND(hh, peer->holds, &pg, sizeof(pg), hold);
	return hold;
}

static void hold_free(struct beacon_peer *peer, struct beacon_hold *hold)
{
	HASH_DEL(peer->holds, hold);
	free(hold);
}

void silence_apply(struct beacon_peer *peer)
{
	const struct cluster_map *map = peer->beacons->home->map;
	struct beacon_hold *hold, *next;

	HASH_ITER(hh, peer->holds, hold, next) {
		const struct cluster_pg *row = cluster_pg(map, hold->pg);
		/* A store that is down leads by no command of before: it is up again in a newer epoch. */
		if (!row || row->epoch != hold->epoch || !cluster_store_is_up(map, hold->store))
			hold_free(peer, hold);
	}
}

void silence_ask_again(struct beacon_peer *peer)
{
	struct beacon_hold *hold, *next;

	HASH_ITER(hh, peer->holds, hold, next)
		hold->proposed_ns = 0;
}

void silence_end(struct beacon_peer *peer)
{
	struct beacon_hold *hold, *next;

	HASH_ITER(hh, peer->holds, hold, next)
		hold_free(peer, hold);
}

/* ---- who may lead ---- */

static bool may_lead(const struct beacon_peer *peer, const struct cluster_pg *row, uint32_t store)
{
	const struct cluster_map *map = peer->beacons->home->map;
	const struct cluster_seat *seat = cluster_pg_seat(row, store);

	return seat && !(seat->flags & (CLUSTER_SEAT_MARKED | CLUSTER_SEAT_HOLES)) &&
	       cluster_store_is_up(map, store) && cluster_store_node(map, store) != peer->node;
}

static bool is_ours(const struct pg_set *set, uint32_t id)
{
	const struct pg_store *store;

	cds_list_for_each_entry(store, &set->stores, link)
		if (store->id == id)
			return store->is_known && !store->is_failed;
	return false;
}

/* Is the store on a node that we believe to be there? */
static bool is_heard(const struct pg_beacons *beacons, uint32_t store)
{
	uint32_t node = cluster_store_node(beacons->home->map, store);
	const struct beacon_peer *peer = beacons_peer(beacons, node);

	return peer && !peer->is_silent;
}

/*
 * The store of ours that should lead, and how many others come before it: those of the target first, as
 * in the map's own choice, so that one node's primaries spread over the others. 0: none.
 */
static uint32_t candidate(const struct beacon_peer *peer, const struct cluster_pg *row,
			  uint32_t *rank)
{
	const struct pg_beacons *beacons = peer->beacons;

	*rank = 0;
	for (uint32_t i = 0; i < row->target_count + row->isr_count; i++) {
		bool is_target = i < row->target_count;
		uint32_t store = is_target ? row->target[i] : row->isr[i - row->target_count].store;
		if ((!is_target && cluster_pg_has_target(row, store)) ||
		    !may_lead(peer, row, store))
			continue;
		if (is_ours(beacons->home, store))
			return store;
		*rank += is_heard(beacons, store);
	}
	return 0;
}

/* ---- asking ---- */

struct batch {
	struct beacon_peer *peer;
	uint64_t now, due_ns, step_ns, since_ns;
	uint64_t again_ns;     /* when one of them is to be proposed again */
	uint32_t count, fresh; /* fresh: asked for the first time */
	struct cluster_takeover rows[ROWS_MAX];
};

/* What is asked for again and again, for as long as the log does not decide, is told once in a while. */
static void batch_tell(struct batch *batch)
{
	struct beacon_peer *peer = batch->peer;

	if (!batch->fresh && batch->now < peer->told_ns + TELL_NS)
		return;
	peer->told_ns = batch->now;
	log_warning("node %u: %s for %llu ms: taking over %u placement groups", peer->node,
		    peer->deaf_ns ? "hears nothing" : "no beacons",
		    (unsigned long long)((batch->now - batch->since_ns) / NS_PER_MS), batch->count);
}

static void batch_send(struct batch *batch)
{
	struct pg_set *home = batch->peer->beacons->home;

	if (batch->count == 0)
		return;
	batch_tell(batch);
	home->counters.silent_takeovers += batch->count;
	pg_set_propose(home, cluster_command_pg_takeover(batch->rows, batch->count));
	batch->count = 0;
	batch->fresh = 0;
	SIM_POINT(TAKEOVER_PROPOSED);
}

static void ask(struct batch *batch, const struct cluster_pg *row, uint32_t store)
{
	struct beacon_hold *hold = hold_find(batch->peer, row->id);

	if (hold && batch->now < hold->proposed_ns + PG_PROPOSE_NS) {
		batch->again_ns = min_of(batch->again_ns, hold->proposed_ns + PG_PROPOSE_NS);
		return;
	}
	if (!hold) {
		hold = calloc(1, sizeof(*hold));
		if (!hold)
			return; /* later, then: not without it */
		hold->pg = row->id;
		hold->store = store;
		hold->epoch = row->epoch;
		HASH_ADD(hh, batch->peer->holds, pg, sizeof(hold->pg), hold);
		batch->fresh++;
	}
	hold->proposed_ns = batch->now;
	batch->again_ns = min_of(batch->again_ns, batch->now + PG_PROPOSE_NS);
	batch->rows[batch->count++] =
		(struct cluster_takeover){.pg = row->id, .store = store, .epoch = row->epoch};
	if (batch->count == ROWS_MAX)
		batch_send(batch);
}

static void look_at_pg(struct batch *batch, const struct cluster_pg *row)
{
	const struct cluster_map *map = batch->peer->beacons->home->map;
	const struct beacon_hold *hold = hold_find(batch->peer, row->id);
	uint32_t rank, store;

	if (cluster_pg_primary_node(map, row) != batch->peer->node)
		return;
	/* What was asked for once is asked for until it is decided, also if we would not begin now. */
	if (hold) {
		ask(batch, row, hold->store);
		return;
	}
	if (!cluster_pg_may_lose(map, row, row->primary))
		return;
	store = candidate(batch->peer, row, &rank);
	if (store && batch->now >= batch->due_ns + rank * batch->step_ns)
		ask(batch, row, store);
}

static uint64_t step_of(const struct beacon_peer *peer)
{
	return max_of(peer->beacons->grace_ns / 4, NS_PER_MS);
}

/* All PGs that it leads; this happens rarely. When something is to be proposed again, at the soonest. */
static uint64_t look_at_pgs(struct beacon_peer *peer, uint64_t now, uint64_t due_ns)
{
	const struct cluster_map *map = peer->beacons->home->map;
	struct batch *batch = calloc(1, sizeof(*batch));
	const struct cluster_pg *row;
	uint64_t again_ns;

	if (!batch)
		return now + PG_PROPOSE_NS; /* later, then */
	batch->peer = peer;
	batch->now = now;
	batch->due_ns = due_ns;
	batch->again_ns = UINT64_MAX;
	batch->step_ns = step_of(peer);
	batch->since_ns = peer->deaf_ns ? peer->deaf_ns : peer->heard_ns;
	for (uint32_t from = 0; (row = cluster_pg_next(map, from)); from = row->id + 1)
		look_at_pg(batch, row);
	batch_send(batch);
	again_ns = batch->again_ns;
	free(batch);
	return again_ns;
}

uint64_t silence_judge(struct beacon_peer *peer, uint64_t now)
{
	const struct pg_beacons *beacons = peer->beacons;
	uint64_t grace_ns = RULE(L2_GRACE) ? beacons->grace_ns : beacons->grace_ns / 2;
	uint64_t due_ns = peer->heard_ns + grace_ns, step_ns = step_of(peer);

	/* An older promise may have been longer. */
	if (RULE(L2_GRACE))
		due_ns = max_of(due_ns, peer->promised_ns);
	if (!peer->leads)
		return UINT64_MAX;
	if (now < due_ns && !peer->holds)
		return due_ns;
	/* Others wait for their turn in steps; what was asked for and got lost is asked for in time. */
	uint64_t again_ns = look_at_pgs(peer, now, due_ns);
	uint64_t steps = now < due_ns ? 0 : (now - due_ns) / step_ns + 1;
	return min_of(again_ns, due_ns + steps * step_ns);
}

void silence_renounced(struct beacon_peer *peer, uint64_t now)
{
	(void)look_at_pgs(peer, now, peer->deaf_ns);
}
