/*
 * What is in doubt when a reign begins (REPLICATION, T2).
 *
 * An object named in any tail, ours included, is in doubt: it is locked before anybody is served, and
 * written again as one entry of our reign, with our content in all blocks that any tail names, and what we
 * remember of its requests (requests.c). Everything else is served at once. Until all of that is committed no
 * commit point of our reign is told to anybody, our own store included: so whoever comes after us
 * finds in some tail all that we had to settle. Wherever it stops each store has, of each object, the content and
 * the requests of one store: of its own before, or ours.
 *
 * Where our copy of it is damaged, another member's will do only in the very version that we had. An older one
 * lacks entries whose requests we remember as executed, a newer one has some that we would execute again. If
 * only a member in sync has the object whole, that one is to lead, and settles it with its own content and
 * requests (tick_handover() in lead.c). That waits for the log as long as it takes. If the heir has holes, too, so
 * that it cannot lead now, and all blocks that tails name are good here, those are settled: the others are the same
 * at all members in sync, and are healed from there. Where one of them is damaged the settle waits until the heir
 * is filled: only its reign may say what they are. Where no member in sync has it whole, but one has a copy of another version
 * in which other blocks are damaged, it is settled in the same way as soon as nobody is awaited: then both are of one
 * version, and are put together (lost.c).
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/rule.h"
#include "sheep/pg/pg_priv.h"

#define SETTLES_RUNNING 16u	 /* objects of one PG at a time */
#define VAIN_NS		NS_PER_S /* before what nobody can give now is asked for again */
#define PATIENCE_NS	NS_PER_S /* after which damage is not left to another member */

struct pg_settle {
	struct cds_list_head link; /* in the lead */
	struct pg_lead *lead;	   /* NULL: it ended */
	struct pg_set *set;
	struct pg_plan_object *object;
	struct pg_lock lock;
	bool is_running;
	bool is_out;	 /* a read, a heal or an entry */
	bool is_damaged; /* our copy was not good when we looked last */
	bool is_late;	 /* and that for so long that it is not waited for any more */
	uint64_t
		damage_ns; /* since when nobody is there to heal it, or to lead; 0: somebody may be */
	bool is_sent;	   /* it has its entry */
	bool is_vain;	   /* nor can that be, since some of it is in doubt and damaged */
	bool is_salvaged;  /* ours stays damaged: what is good of it is settled */
	uint32_t heir;	   /* who is to lead, since we cannot settle it; 0: nobody */
	uint64_t again_ns; /* not before; nobody who is there has the object */
	struct pg_heal_wait heal;
	struct store_read read;
	uint8_t states[OBJECT_BLOCKS];
	uint32_t crcs[OBJECT_BLOCKS];
	struct store_run runs[OBJECT_BLOCKS];
};

static void settle_free(struct pg_settle *settle)
{
	pg_lock_release(&settle->set->locks, &settle->lock);
	buffer_put(settle->read.data.buffer);
	free(settle->object);
	free(settle);
}

static void settle_done(struct pg_settle *settle)
{
	struct pg_lead *lead = settle->lead;

	cds_list_del(&settle->link);
	lead->settle_running--;
	lead->settle_sent--;
	lead->settle_left--;
	settle->set->counters.settled_objects++;
	settle_free(settle);
	if (lead->settle_left == 0) {
		SIM_POINT(SETTLED);
		log_debug("pg %u reign %llu: settled", lead->id, (unsigned long long)lead->reign);
	}
	pg_settle_run(lead);
}

static void on_settled(struct pg_entry *entry, int result)
{
	struct pg_settle *settle = entry->owner;

	settle->is_out = false;
	SIM_POINT(SETTLE_ONE);
	if (!settle->lead)
		settle_free(settle);
	else if (result == 0)
		settle_done(settle);
}

/* Not now: no entry, no memory, or the object was found damaged. The tick tries again. */
static void settle_later(struct pg_settle *settle)
{
	buffer_put(settle->read.data.buffer);
	settle->read.data.buffer = NULL;
	settle->is_running = false;
	settle->lead->settle_running--;
	pg_set_active(settle->lead->pg);
}

static bool is_named(const struct pg_settle *settle, uint32_t block)
{
	return settle->object->is_whole || bitmap_test(settle->object->blocks, block);
}

/* Our content in all named blocks. Absent ones are said to be so: the entry names them, too. */
static uint32_t settle_runs(struct pg_settle *settle)
{
	uint32_t runs = 0, crcs = 0;

	for (uint32_t i = 0; i < OBJECT_BLOCKS; i++) {
		if (!is_named(settle, i))
			continue;
		struct store_run *last = runs ? &settle->runs[runs - 1] : NULL;
		if (last && last->block + last->count == i && last->state == settle->states[i])
			last->count++;
		else
			settle->runs[runs++] = (struct store_run){
				.block = (uint16_t)i, .count = 1, .state = settle->states[i]};
		if (settle->states[i] == BLOCK_DATA)
			settle->crcs[crcs++] = settle->crcs[i]; /* never ahead of i */
	}
	return runs;
}

static int settle_build(struct pg_settle *settle, struct pg_entry *entry)
{
	uint32_t runs = settle_runs(settle), at = 0;
	int rc = pg_entry_runs(entry, settle->runs, runs);
	struct buffer *buffer;

	if (rc < 0 || entry->block_count == 0)
		return rc;
	buffer = buffer_new(settle->set->arena.buffers, entry->block_count * BLOCK_SIZE);
	if (!buffer)
		return -ENOMEM;
	for (uint32_t r = 0; r < runs; r++) {
		uint32_t bytes = settle->runs[r].count * BLOCK_SIZE;
		if (settle->runs[r].state != BLOCK_DATA)
			continue;
		memcpy(buffer->data + at,
		       settle->read.data.data + settle->runs[r].block * BLOCK_SIZE, bytes);
		at += bytes;
	}
	struct slice slice = slice_of(buffer, 0, at);
	rc = pg_entry_data(entry, &slice, 1, settle->crcs);
	buffer_put(buffer);
	return rc;
}

static void settle_submit(struct pg_settle *settle, bool exists)
{
	struct pg_lead *lead = settle->lead;
	struct pg_entry *entry = pg_entry_new(lead);
	int rc = 0;

	if (!entry) {
		settle_later(settle);
		return;
	}
	if (!exists) {
		entry->flags |= PEER_ENTRY_DELETE;
		rc = pg_entry_runs(entry, NULL, 0);
	} else {
		rc = settle_build(settle, entry);
	}
	entry->append.key = settle->object->key;
	entry->append.family = settle->object->family;
	entry->committed = on_settled;
	entry->owner = settle;
	entry->lock = &settle->lock;
	if (rc == 0)
		rc = pg_requests_attach(entry);
	if (rc == 0)
		rc = pg_entry_submit(entry, true);
	if (rc < 0) {
		log_warning("pg %u: object %llu.%u cannot be settled now: %s", lead->id,
			    (unsigned long long)settle->object->key.layer,
			    settle->object->key.index, err_text(rc));
		if (rc == -E2BIG) /* more requests than one entry takes: until some are answered */
			settle->again_ns = loop_now(settle->set->loop) + VAIN_NS;
		pg_entry_drop(entry);
		settle_later(settle);
		return;
	}
	settle->is_out = settle->is_sent = true;
	lead->settle_sent++;
	buffer_put(settle->read.data.buffer); /* the entry has what it needs of it */
	settle->read.data.buffer = NULL;
}

/* Are all blocks good that are in doubt? */
static bool is_good(const struct pg_settle *settle)
{
	for (uint32_t i = 0; i < OBJECT_BLOCKS; i++)
		if (is_named(settle, i) && settle->states[i] == BLOCK_LOST)
			return false;
	return true;
}

/* Blocks in doubt are damaged, and good at an heir that cannot lead yet. Clients are told so. */
static void settle_in_vain(struct pg_settle *settle)
{
	settle->is_salvaged = false;
	settle->is_vain = true;
	settle->again_ns = loop_now(settle->set->loop) + VAIN_NS;
	pg_works_lost(settle->lead, &settle->object->key);
	settle_later(settle);
}

static void on_settle_read(struct store_read *read, int result)
{
	struct pg_settle *settle = container_of_type(read, struct pg_settle, read);
	struct pg_set *set = settle->set;

	settle->is_out = false;
	if (!settle->lead)
		settle_free(settle);
	else if (settle->is_salvaged && (result == -E_MISSING || (result == 0 && !is_good(settle))))
		settle_in_vain(settle);
	else if (result < 0)
		settle_later(settle); /* missing by now: healed first, then */
	else
		settle_submit(settle, true);
	pg_set_release(set);
}

static void settle_read(struct pg_settle *settle)
{
	settle->read = (struct store_read){
		.done = on_settle_read,
		.pg = settle->lead->id,
		.family = settle->object->family,
		.index = settle->object->key.index,
		.layers = &settle->object->key.layer,
		.layer_count = 1,
		.count = OBJECT_BLOCKS,
		.is_salvage = settle->is_salvaged,
		.crcs = settle->crcs,
		.states = settle->states,
	};
	pg_set_hold(settle->set);
	store_read(pg_store_of(settle->lead->pg), &settle->read);
}

static void on_settle_healed(struct pg_heal_wait *wait, int result)
{
	struct pg_settle *settle = container_of_type(wait, struct pg_settle, heal);

	settle->is_out = false;
	if (!settle->lead) {
		settle_free(settle);
		return;
	}
	if (result < 0 && !settle->is_salvaged)
		settle->again_ns = loop_now(settle->set->loop) + VAIN_NS;
	if (result != -E_NOT_PRIMARY)
		settle->heir = 0;
	if (result == -E_LOST && !settle->is_salvaged)
		pg_works_lost(settle->lead, &settle->object->key);
	settle_later(settle);
}

static void settle_go(struct pg_settle *settle)
{
	struct store *store = pg_store_of(settle->lead->pg);
	struct store_object object;
	int exists = store_object(store, settle->lead->id, &settle->object->key, &object);

	settle->is_running = true;
	settle->is_damaged = exists > 0 && object.is_missing;
	if (!settle->is_damaged) {
		settle->heir = 0;
		settle->is_salvaged = settle->is_vain = false;
	}
	settle->lead->settle_running++;
	/* Reads do not see yet what the old primary sent last: it would be settled as never written. */
	if (exists > 0 && object.is_in_flight) {
		settle_later(settle);
		return;
	}
	if (exists <= 0) {
		settle_submit(settle, false);
		return;
	}
	settle->is_out = true;
	if (object.is_missing && !settle->is_salvaged) {
		settle->heal.done = on_settle_healed;
		pg_heal_object(settle->lead, &settle->object->key, PG_HEAL_LOCKED, &settle->heal);
		return;
	}
	settle_read(settle);
}

/* Where nothing can be committed, those that have their entry hold up nobody else. */
static bool is_busy(const struct pg_lead *lead)
{
	return lead->settle_running - (pg_lead_is_short(lead) ? lead->settle_sent : 0) >=
	       SETTLES_RUNNING;
}

/* Somebody is to settle it who can: that waits for the log only. */
static bool has_heir(const struct pg_lead *lead, const struct pg_settle *settle)
{
	const struct cluster_seat *seat = cluster_pg_seat(&lead->pg->row, settle->heir);

	return settle->heir && seat && !seat->flags &&
	       cluster_store_is_up(lead->pg->set->map, settle->heir);
}

/*
 * What is damaged and cannot be had from anybody who is there, nor be left to anybody, is not waited for any
 * longer: what is good of it is settled.
 */
static void tick_damage(struct pg_lead *lead, uint64_t now)
{
	struct pg_settle *settle;
	bool any = false;

	for (uint32_t i = 0; i < lead->member_count; i++)
		any |= lead->members[i]->kind == PG_MEMBER_ISR &&
		       pg_member_is_lost(lead->members[i]);
	cds_list_for_each_entry(settle, &lead->settles, link) {
		if (any || !settle->is_damaged || has_heir(lead, settle))
			settle->damage_ns = 0;
		else if (!settle->damage_ns)
			settle->damage_ns = now;
		settle->is_late = settle->damage_ns && now >= settle->damage_ns + PATIENCE_NS;
	}
}

void pg_settle_run(struct pg_lead *lead)
{
	uint64_t now = loop_now(lead->pg->set->loop);
	struct pg_settle *settle;

	if (lead->pg->state != PG_SERVING && lead->pg->state != PG_WAITING)
		return;
	if (lead->settle_left > 0)
		tick_damage(lead, now);
again:
	if (is_busy(lead))
		return;
	cds_list_for_each_entry(settle, &lead->settles, link) {
		if (settle->is_running || !settle->lock.is_granted || now < settle->again_ns)
			continue;
		settle_go(settle);
		if (!settle->is_running)
			return; /* there is no room: the tick goes on */
		goto again;
	}
}

/* ---- what we cannot settle ---- */

static struct pg_settle *find_open(const struct pg_lead *lead, const struct object_key *key)
{
	struct pg_settle *settle;

	cds_list_for_each_entry(settle, &lead->settles, link)
		if (!settle->is_sent && object_key_compare(&settle->object->key, key) == 0)
			return settle;
	return NULL;
}

bool pg_settle_is_open(const struct pg_lead *lead, const struct object_key *key)
{
	return RULE(T2_OWN_CONTENT) && (!lead->has_settled || find_open(lead, key));
}

bool pg_settle_is_late(const struct pg_lead *lead, const struct object_key *key)
{
	const struct pg_settle *settle = find_open(lead, key);

	return settle && settle->is_late;
}

bool pg_settle_salvage(struct pg_lead *lead, const struct object_key *key)
{
	struct pg_settle *settle = find_open(lead, key);

	if (settle)
		settle->is_salvaged = true;
	return settle != NULL;
}

bool pg_settle_salvage_apart(struct pg_lead *lead, const struct object_key *key)
{
	struct pg_settle *settle = find_open(lead, key);

	if (!settle || settle->is_vain)
		return false;
	settle->is_salvaged = true;
	return true;
}

bool pg_settle_yield(struct pg_lead *lead, const struct object_key *key, uint32_t store)
{
	struct pg_settle *settle = find_open(lead, key);
	const struct cluster_seat *seat = cluster_pg_seat(&lead->pg->row, store);

	/* One with holes of its own might give the lead back for another object, for ever. */
	if (!settle || !seat || seat->flags)
		return false;
	settle->heir = store;
	return true;
}

uint32_t pg_settle_heir(const struct pg_lead *lead)
{
	const struct cluster_seat *own = cluster_pg_seat(&lead->pg->row, lead->pg->store->id);
	const struct pg_settle *settle;

	if (!own || !(own->flags & CLUSTER_SEAT_HOLES))
		return 0; /* the log is to know first why */
	cds_list_for_each_entry(settle, &lead->settles, link)
		if (has_heir(lead, settle))
			return settle->heir;
	return 0;
}

/* ---- the beginning and the end ---- */

/* A push to a joining store had it; clients queue behind us. */
static void on_settle_granted(struct pg_lock *lock)
{
	pg_set_active(container_of_type(lock, struct pg_settle, lock)->lead->pg);
}

static int settle_new(struct pg_lead *lead, struct pg_plan_object *object)
{
	struct pg_settle *settle = calloc(1, sizeof(*settle));

	if (!settle)
		return -ENOMEM;
	settle->lead = lead;
	settle->set = lead->pg->set;
	settle->object = object;
	settle->lock.granted = on_settle_granted;
	int rc = pg_lock_take(&settle->set->locks, &settle->lock, &object->key, PG_LOCK_EXCLUSIVE,
			      0, OBJECT_BLOCKS);
	if (rc < 0) {
		free(settle);
		return rc;
	}
	cds_list_add_tail(&settle->link, &lead->settles);
	lead->settle_left++;
	return 0;
}

static int add_own_tail(struct pg_lead *lead)
{
	struct store *store = pg_store_of(lead->pg);
	uint32_t count = store_pg_tail(store, lead->id, NULL, 0);
	struct store_tail_entry *tail;
	int rc;

	if (count == 0)
		return 0;
	tail = calloc(count, sizeof(*tail));
	if (!tail)
		return -ENOMEM;
	count = min_of(store_pg_tail(store, lead->id, tail, count), count);
	rc = pg_plan_add_tail(&lead->plan, tail, count);
	free(tail);
	return rc;
}

int pg_settle_start(struct pg_lead *lead)
{
	struct pg_plan_object *object;
	int rc = lead->has_own_tail ? 0 : add_own_tail(lead);

	if (rc < 0)
		return rc;
	lead->has_own_tail = true;
	while (RULE(T2_SETTLE) && (object = pg_plan_take(&lead->plan))) {
		rc = settle_new(lead, object);
		if (rc < 0) {
			free(object); /* its row comes again: the members are asked again */
			lead->has_own_tail = false;
			pg_collect_start(lead);
			return rc;
		}
	}
	lead->has_settled = true;
	if (lead->settle_left > 0)
		log_info("pg %u epoch %llu: %u objects are in doubt and are settled", lead->id,
			 (unsigned long long)lead->pg->epoch, lead->settle_left);
	return 0;
}

void pg_settle_end(struct pg_lead *lead)
{
	struct pg_settle *settle, *next;

	cds_list_for_each_entry_safe(settle, next, &lead->settles, link) {
		cds_list_del(&settle->link);
		settle->lead = NULL;
		pg_lock_release(&settle->set->locks, &settle->lock);
		if (!settle->is_out)
			settle_free(settle);
	}
	lead->settle_left = 0;
	lead->settle_running = 0;
	lead->settle_sent = 0;
}
