/*
 * All seats of one loop: where maps come in, what ticks, what waits.
 *
 * A seat exists for each (PG, store of ours) that the map lists or the store has data of, if its
 * home is this loop. Seats are made when first seen and stay.
 *
 * Two things keep callbacks from running inside the calls that cause them: finished operations
 * are told from the kick, an op that the loop completes in this or the next turn; and what
 * waits for a newer map is judged again from pg_set_apply().
 *
 * An idle seat costs nothing: the tick runs only while a seat is active, and looks at those only.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/rule.h"
#include "sheep/pg/lease.h"
#include "sheep/pg/pg_priv.h"

#define IOS_DEFAULT	1024u
#define APPLIES_DEFAULT 4096u
#define FUTURE_DEFAULT	4096u
#define WORKS_MIN	16u /* of one PG; else a quarter of all */

/* ---- finding ---- */

static uint64_t seat_key(uint32_t pg, uint32_t store)
{
	return (uint64_t)pg << 32 | store;
}

struct pg *pg_find(struct pg_set *set, uint32_t id, uint32_t store)
{
	uint64_t key = seat_key(id, store);
	struct pg *pg;

	HASH_FIND(hh, set->pgs, &key, sizeof(key), pg);
	return pg;
}

struct pg_lead *pg_lead_find(struct pg_set *set, uint32_t id)
{
	struct pg_lead *lead;

	HASH_FIND(hh, set->leads, &id, sizeof(id), lead);
	return lead;
}

uint64_t pg_set_time(const struct pg_set *set, enum cluster_setting_id id)
{
	return cluster_setting_ns(set->map, id);
}

bool pg_session_is_alive(const struct pg_set *set, uint64_t session)
{
	return cluster_node_by_session(set->map, peer_session_node(session)) != NULL;
}

bool pg_is_garbage(const struct pg_set *set, uint64_t layer)
{
	return (layer < cluster_next_id(set->map) || !RULE(M2_NEXT_ID)) &&
	       !cluster_layer_is_live(set->map, layer);
}

bool pg_holds_object(const struct pg_set *set, uint32_t pg, uint64_t family, uint32_t index)
{
	const struct cluster_policy *policy =
		cluster_policy(set->map, pg >> CLUSTER_PG_POLICY_SHIFT);

	return policy && cluster_pg_of(policy, family, index) == pg;
}

/* ---- the kick ---- */

static void tell_finished(struct pg_set *set)
{
	while (!cds_list_empty(&set->finished)) {
		struct pg_io *io = cds_list_first_entry(&set->finished, struct pg_io, link);
		int result = (int)(intptr_t)io->work;

		cds_list_del(&io->link);
		io->work = NULL;
		io->done(io, result);
	}
	while (!cds_list_empty(&set->finished_syncs)) {
		struct pg_sync *sync =
			cds_list_first_entry(&set->finished_syncs, struct pg_sync, link);

		cds_list_del(&sync->link);
		sync->done(sync, sync->result);
	}
}

static bool is_quiet(struct pg_set *set)
{
	return set->busy == 0 && cds_list_empty(&set->finished) &&
	       cds_list_empty(&set->finished_syncs) && pool_busy(set->works) == 0 &&
	       pool_busy(set->entries) == 0 && pool_busy(set->calls) == 0 &&
	       pool_busy(set->applies) == 0 && pool_busy(set->remotes) == 0;
}

static void kicked(struct loop_op *op, int result)
{
	struct pg_set *set = container_of_type(op, struct pg_set, kick);

	set->is_kicked = false;
	tell_finished(set);
	pg_io_drain(set);
	tell_finished(set);
	pg_drains_run(set);
	if (set->stop_op && is_quiet(set) && !set->is_kicked) {
		struct loop_op *stop = set->stop_op;
		set->stop_op = NULL;
		loop_complete(set->loop, stop, 0);
	}
}

void pg_set_kick(struct pg_set *set)
{
	if (set->is_kicked)
		return;
	set->is_kicked = true;
	loop_complete(set->loop, &set->kick, 0);
}

void pg_set_release(struct pg_set *set)
{
	assert(set->busy > 0);
	set->busy--;
	if (set->stop_op)
		pg_set_kick(set);
}

void pg_set_propose(struct pg_set *set, struct cluster_command *command)
{
	if (!command)
		return;
	if (set->is_stopping)
		cluster_command_free(command);
	else
		set->env.propose(set->env.context, command);
}

/* ---- the tick ---- */

static void ticked(struct loop_timer *timer)
{
	struct pg_set *set = container_of_type(timer, struct pg_set, tick);
	uint64_t now = loop_now(set->loop);
	CDS_LIST_HEAD(seats);

	cds_list_splice(&set->active, &seats);
	CDS_INIT_LIST_HEAD(&set->active);
	while (!cds_list_empty(&seats)) {
		struct pg *pg = cds_list_first_entry(&seats, struct pg, active);
		cds_list_del(&pg->active);
		pg->is_active = false;
		if (pg_tick(pg, now))
			pg_set_active(pg);
	}
	pg_elections_ask(set, now);
	pg_future_tick(set, now);
	if (!cds_list_empty(&set->active) || !cds_list_empty(&set->future_ios))
		pg_set_tick(set);
}

void pg_set_tick(struct pg_set *set)
{
	if (!set->is_stopping && !loop_timer_is_armed(&set->tick))
		loop_timer_start(set->loop, &set->tick, loop_now(set->loop) + PG_TICK_NS);
}

void pg_set_active(struct pg *pg)
{
	struct pg_set *set = pg->set;

	if (pg->is_active || set->is_stopping)
		return;
	pg->is_active = true;
	cds_list_add_tail(&pg->active, &set->active);
	pg_set_tick(set);
}

/* ---- seats ---- */

static struct pg *seat_new(struct pg_set *set, struct pg_store *store, uint32_t id)
{
	struct pg *pg = calloc(1, sizeof(*pg));

	if (!pg)
		return NULL;
	pg->key = seat_key(id, store->id);
	pg->id = id;
	pg->set = set;
	pg->store = store;
	pg->has_holes = true; /* that an earlier start did not tell of: the tick counts */
	CDS_INIT_LIST_HEAD(&pg->waiting);
	pg_part_init(pg);
	HASH_ADD(hh, set->pgs, key, sizeof(pg->key), pg);
	return pg;
}

static bool store_is_known(const struct pg_set *set, const struct pg_store *store)
{
	const struct cluster_store *row = cluster_store(set->map, store->id);

	return row && row->incarnation == store->incarnation;
}

static void apply_seat(struct pg_set *set, struct pg_store *store, const struct cluster_pg *row)
{
	struct pg *pg;
	bool is_named = cluster_pg_seat(row, store->id) || cluster_pg_join(row, store->id) ||
			cluster_pg_has_target(row, store->id);

	if (store_loop_of(store->store, row->id) != set->loop)
		return;
	pg = pg_find(set, row->id, store->id);
	if (!pg && !is_named)
		return;
	if (!pg)
		pg = seat_new(set, store, row->id);
	if (!pg) {
		log_error("pg %u: no memory for it on store %u", row->id, store->id);
		return;
	}
	if (store_is_known(set, store))
		pg_apply(pg, row);
	else
		pg_withdraw(pg);
}

static void apply_pg(struct pg_set *set, uint32_t id)
{
	const struct cluster_pg *row = cluster_pg(set->map, id);
	struct pg_store *store;

	if (!row)
		return;
	/* The primary's seat last: the one before it may be another of our stores, and of a PG there
	 * is one lead at a time. */
	cds_list_for_each_entry(store, &set->stores, link)
		if (store->id != row->primary)
			apply_seat(set, store, row);
	cds_list_for_each_entry(store, &set->stores, link)
		if (store->id == row->primary)
			apply_seat(set, store, row);
}

static void apply_all(struct pg_set *set)
{
	const struct cluster_pg *row;
	uint32_t from = 0;

	while ((row = cluster_pg_next(set->map, from))) {
		from = row->id + 1;
		apply_pg(set, row->id);
		if (from == 0)
			break;
	}
}

int pg_set_add_store(struct pg_set *set, struct store *store, uint32_t id, uint64_t incarnation)
{
	struct pg_store *ours = calloc(1, sizeof(*ours));
	uint32_t pg_id;

	if (!ours)
		return -ENOMEM;
	ours->store = store;
	ours->id = id;
	ours->incarnation = incarnation;
	ours->is_failed = store_is_failed(store);
	cds_list_add_tail(&ours->link, &set->stores);
	for (uint32_t from = 0; store_pg_next(store, from, &pg_id); from = pg_id + 1) {
		if (store_loop_of(store, pg_id) == set->loop) {
			struct pg *pg = seat_new(set, ours, pg_id);
			if (!pg)
				return -ENOMEM;
			pg->has_data = true;
		}
		if (pg_id == UINT32_MAX)
			break;
	}
	set->needs_all = true;
	return 0;
}

static void end_session(struct pg_set *set, uint64_t session, unsigned loops)
{
	struct pg *pg, *next;

	HASH_ITER(hh, set->pgs, pg, next) {
		if (pg->store->is_failed || (!pg->has_data && pg->state == PG_IDLE))
			continue;
		for (unsigned loop = 0; loop < loops; loop++)
			store_end_session(pg_store_of(pg), pg->id, peer_session_of(session, loop));
	}
}

/* Q2: sessions of the old map that are not in the new one any more. */
static void end_sessions(struct pg_set *set, const struct cluster_map *old)
{
	const struct cluster_node *node;
	bool any = false;

	for (uint32_t id = 0; (node = cluster_node_next(old, id)); id = node->id) {
		if (!node->session || cluster_node_by_session(set->map, node->session))
			continue;
		end_session(set, node->session,
			    min_of(max_of(node->loops, 1u), 1u << PEER_SESSION_LOOP_BITS));
		any = true;
	}
	if (!any)
		return;
	struct pg_lead *lead, *next;
	HASH_ITER(hh, set->leads, lead, next)
		pg_works_end_sessions(lead);
}

/* Those that ended while the store was down. What it remembers is from before, so older than the map. */
static void end_forgotten_sessions(struct pg_set *set, struct pg *pg)
{
	struct store *store = pg_store_of(pg);
	uint32_t count = store_requests(store, pg->id, NULL, 0);
	struct store_request *rows = count ? calloc(count, sizeof(*rows)) : NULL;
	uint64_t last = 0;

	if (!rows)
		return;
	count = min_of(store_requests(store, pg->id, rows, count), count);
	for (uint32_t i = 0; i < count; i++) {
		if (rows[i].session == last || pg_session_is_alive(set, rows[i].session))
			continue;
		last = rows[i].session;
		store_end_session(store, pg->id, last);
	}
	free(rows);
}

/* The map shows our registration, or that of another start. */
static void store_set_known(struct pg_set *set, struct pg_store *store, bool is_known)
{
	struct pg *pg, *next;

	store->is_known = is_known;
	set->needs_all = true; /* it takes part from now on, or no more: that changes no PG */
	if (!is_known || store->is_failed)
		return;
	HASH_ITER(hh, set->pgs, pg, next)
		if (pg->store == store)
			end_forgotten_sessions(set, pg);
}

/* M2: what volumes leave behind is looked for when some have gone, or were shrunk. */
static void look_for_garbage(struct pg_set *set)
{
	struct pg_lead *lead, *next;

	HASH_ITER(hh, set->leads, lead, next) {
		lead->is_garbage_due = true;
		lead->has_garbage_cursor = false;
		pg_set_active(lead->pg);
	}
}

static uint32_t self_of(const struct pg_set *set)
{
	const struct cluster_node *self = pg_peers_self(set->env.peers, set->map);

	return self ? self->id : 0;
}

void pg_set_apply(struct pg_set *set, struct cluster_map *map, const uint64_t *pgs, uint32_t count)
{
	struct cluster_map *old = set->map;

	if (set->is_stopping || (old && cluster_index(map) < set->index))
		return;
	pg_awake_start(set);
	set->map = cluster_map_get(map);
	set->index = cluster_index(map);
	if (set->beacons && set->home == set->loop)
		pg_beacons_apply(set->beacons, old, pgs, count);
	else
		set->node = self_of(set);
	if (old)
		end_sessions(set, old);
	if (old && (!pgs || cluster_garbage_index(map) != cluster_garbage_index(old)))
		look_for_garbage(set);
	struct pg_store *store;
	cds_list_for_each_entry(store, &set->stores, link)
		if (store->is_known != store_is_known(set, store))
			store_set_known(set, store, !store->is_known);
	if (!pgs || set->needs_all) {
		set->needs_all = false;
		apply_all(set);
	} else {
		for (uint32_t i = 0; i < count; i++)
			apply_pg(set, (uint32_t)pgs[i]);
	}
	cluster_map_put(old);
	pg_future_run(set);
	pg_leases_rejudge(set);
	pg_set_kick(set);
}

/* ---- a store that stops ---- */

static struct pg_store *find_store(struct pg_set *set, const struct store *store)
{
	struct pg_store *ours;

	cds_list_for_each_entry(ours, &set->stores, link)
		if (ours->store == store)
			return ours;
	return NULL;
}

void pg_set_store_failed(struct pg_set *set, struct store *store, int error)
{
	struct pg_store *ours = find_store(set, store);
	struct pg *pg, *next;

	if (!ours || ours->is_failed)
		return;
	log_error("store %u: stopped: %s: its placement groups live on elsewhere", ours->id,
		  err_text(error));
	ours->is_failed = true;
	HASH_ITER(hh, set->pgs, pg, next)
		if (pg->store == ours)
			pg_fail(pg);
}

void pg_set_ask_again(struct pg_set *set)
{
	struct pg *pg, *next;

	if (set->is_stopping)
		return;
	HASH_ITER(hh, set->pgs, pg, next)
		if (pg->lead)
			pg->lead->shrink_ns = pg->lead->join_ns = pg->lead->undecided_ns = 0;
	/* Takeovers first: they are few entries, and work follows them. The tick comes soon enough. */
	if (set->beacons && set->home == set->loop)
		pg_beacons_ask_again(set->beacons);
}

void pg_set_store_corrupt(struct pg_set *set, struct store *store, uint32_t id,
			  const struct object_key *key)
{
	struct pg_store *ours = find_store(set, store);
	struct pg *pg = ours ? pg_find(set, id, ours->id) : NULL;

	log_warning("pg %u: store %u: object %llu.%u is damaged here and is to be healed", id,
		    ours ? ours->id : 0, (unsigned long long)key->layer, key->index);
	if (!pg)
		return;
	if (pg->lead)
		pg->lead->has_heal_cursor = false;
	pg->has_holes = true;
	pg_set_active(pg);
}

/* ---- life ---- */

int pg_set_new(const struct pg_env *env, struct pg_set **out, struct error *err)
{
	struct pg_set *set = calloc(1, sizeof(*set));
	uint32_t ios = env->ios_max ? env->ios_max : IOS_DEFAULT;
	uint32_t appends = env->appends_max ? env->appends_max : 4 * ios;

	if (!set)
		return error_set(err, -ENOMEM, "placement groups");
	set->env = *env;
	set->loop = env->loop;
	CDS_INIT_LIST_HEAD(&set->stores);
	CDS_INIT_LIST_HEAD(&set->arrivals);
	CDS_INIT_LIST_HEAD(&set->starved);
	CDS_INIT_LIST_HEAD(&set->crowded);
	CDS_INIT_LIST_HEAD(&set->future_ios);
	CDS_INIT_LIST_HEAD(&set->future_syncs);
	CDS_INIT_LIST_HEAD(&set->future);
	CDS_INIT_LIST_HEAD(&set->finished);
	CDS_INIT_LIST_HEAD(&set->finished_syncs);
	CDS_INIT_LIST_HEAD(&set->drains);
	CDS_INIT_LIST_HEAD(&set->active);
	CDS_INIT_LIST_HEAD(&set->pushing);
	CDS_INIT_LIST_HEAD(&set->elections);
	CDS_INIT_LIST_HEAD(&set->leaseless);
	pg_locks_init(&set->locks);
	set->arena.buffers = loop_buffers(set->loop);
	set->kick.done = kicked;
	set->tick.fire = ticked;
	set->tokens_ns = loop_now(set->loop);
	set->works_max = max_of(ios / 4, WORKS_MIN);
	set->future_max = env->future_max ? env->future_max : FUTURE_DEFAULT;
	set->works = pool_new(sizeof(struct pg_work), ios);
	set->entries = pool_new(sizeof(struct pg_entry), 2 * ios);
	set->calls = pool_new(sizeof(struct pg_call), appends);
	set->applies = pool_new(pg_apply_size(), APPLIES_DEFAULT);
	set->remotes = pool_new(pg_remote_size(), 4 * ios);
	if (!set->works || !set->entries || !set->calls || !set->applies || !set->remotes) {
		pg_set_free(set);
		return error_set(err, -ENOMEM, "placement groups");
	}
	*out = set;
	return 0;
}

static void refuse_ios(struct pg_set *set, struct cds_list_head *list)
{
	while (!cds_list_empty(list)) {
		struct pg_io *io = cds_list_first_entry(list, struct pg_io, link);
		cds_list_del(&io->link);
		pg_io_finish(set, io, -E_SHUTDOWN);
	}
}

void pg_set_stop(struct pg_set *set, struct loop_op *op)
{
	struct pg *pg, *next;

	assert(!set->is_stopping);
	set->is_stopping = true;
	set->stop_op = op;
	loop_timer_stop(set->loop, &set->tick);
	loop_timer_stop(set->loop, &set->awake.timer);
	if (set->beacons && set->home == set->loop)
		pg_beacons_stop(set->beacons);
	refuse_ios(set, &set->future_ios);
	refuse_ios(set, &set->arrivals);
	HASH_ITER(hh, set->pgs, pg, next) {
		pg_lead_end(pg, -E_SHUTDOWN);
		pg_election_end(pg);
		refuse_ios(set, &pg->waiting);
		pg_part_end(pg, -E_SHUTDOWN);
	}
	pg_future_run(set);
	/* Some of what we asked may wait there for a map that does not come. */
	pg_peers_stop(set->env.peers);
	pg_set_kick(set);
}

void pg_set_free(struct pg_set *set)
{
	struct pg *pg, *next;
	struct pg_store *store, *next_store;

	if (!set)
		return;
	loop_timer_stop(set->loop, &set->tick);
	loop_timer_stop(set->loop, &set->awake.timer);
	HASH_ITER(hh, set->pgs, pg, next) {
		HASH_DEL(set->pgs, pg);
		pg_election_end(pg);
		free(pg->part.requests);
		free(pg);
	}
	cds_list_for_each_entry_safe(store, next_store, &set->stores, link)
		free(store);
	pool_free(set->works);
	pool_free(set->entries);
	pool_free(set->calls);
	pool_free(set->applies);
	pool_free(set->remotes);
	pg_arena_done(&set->arena);
	pg_locks_done(&set->locks);
	cluster_map_put(set->map);
	if (set->home == set->loop)
		pg_beacons_free(set->beacons);
	free(set);
}
