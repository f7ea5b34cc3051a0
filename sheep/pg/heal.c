/*
 * An object of the primary that is missing there: fetched whole from a member (REPLICATION, J5, D1).
 *
 *   lock --> sums of a member's copy --> its blocks, a range at a time, into our store --> unlock
 *
 * The second half is heal_fetch.c. Under the lock nothing of the object is in flight, and every member in sync has
 * all that is committed: so any of their copies is right, with its version. Not so while the object is in
 * doubt: then only the very version that we had will do, and if a member in sync has another one, that
 * member is to lead (settle.c). A member that cannot be asked now is asked again. When all of them say no, clients
 * get an error; and when nobody is away who could have it, what is left of the object is all there is of it (lost.c).
 */
#include <stdlib.h>

#include "sheep/pg/heal.h"

#define HEAL_AGAIN_NS (200 * NS_PER_MS)
#define TELL_NS	      (10 * NS_PER_S) /* between two lines about vain heals of a PG */
#define VAIN_NS	      NS_PER_S	      /* before what nobody can give now is looked for again */
#define SHORT_NS      (5 * NS_PER_S) /* a lost member in sync is waited for, or dropped, in that time */
#define HEALS_MAX     4u	     /* that the background search begins */

/* ---- the end ---- */

void heal_free(struct pg_heal *heal)
{
	buffer_put(heal->payload.buffer);
	free(heal);
}

/* It is tried again and again: once in a while is enough. */
static void tell_failure(struct pg_heal *heal, int result)
{
	struct pg_lead *lead = heal->lead;
	uint64_t now = loop_now(heal->set->loop);

	if (lead->heal_told_ns && now < lead->heal_told_ns + TELL_NS)
		return;
	lead->heal_told_ns = now;
	log_error("pg %u: object %llu.%u: no other copy can be had: %s", heal->pg->id,
		  (unsigned long long)heal->key.layer, heal->key.index, err_text(result));
}

/* The heal of all of them is over. */
static void tell_all(struct cds_list_head *waits, int result)
{
	while (!cds_list_empty(waits)) {
		struct pg_heal_wait *wait = cds_list_first_entry(waits, struct pg_heal_wait, link);
		cds_list_del(&wait->link);
		wait->heal = NULL;
		wait->done(wait, result);
	}
}

void heal_end(struct pg_heal *heal, int result)
{
	CDS_LIST_HEAD(waits);

	cds_list_splice(&heal->waits, &waits);
	cds_list_del(&heal->link);
	heal->lead->heal_count--;
	if (result < 0) {
		heal->lead->vain_ns = loop_now(heal->set->loop);
		if (result != -E_NOT_PRIMARY)
			tell_failure(heal, result);
	} else if (heal->is_fetched) {
		heal->set->counters.objects_healed++;
	}
	pg_set_active(heal->pg);
	pg_lock_release(&heal->set->locks, &heal->lock);
	heal_free(heal);
	tell_all(&waits, result);
}

void pg_heal_cancel(struct pg_heal_wait *wait)
{
	struct pg_heal *heal = wait->heal;

	if (!heal)
		return;
	assert(heal->mode == PG_HEAL_LOCKED);
	wait->heal = NULL;
	cds_list_del(&wait->link);
	cds_list_del(&heal->link);
	heal->lead->heal_count--;
	heal->lead = NULL;
	if (!heal->is_out)
		heal_free(heal);
}

void pg_heals_end(struct pg_lead *lead)
{
	while (!cds_list_empty(&lead->heals)) {
		struct pg_heal *heal = cds_list_first_entry(&lead->heals, struct pg_heal, link);
		CDS_LIST_HEAD(waits);
		cds_list_splice(&heal->waits, &waits);
		cds_list_del(&heal->link);
		lead->heal_count--;
		heal->lead = NULL;
		pg_lock_release(&heal->set->locks, &heal->lock);
		if (!heal->is_out)
			heal_free(heal);
		tell_all(&waits, -E_NOT_PRIMARY);
	}
}

/* ---- this member cannot help ---- */

void heal_try_next(struct pg_heal *heal, int result)
{
	bool is_unsure = result != -E_MISSING, is_former = heal_is_former(heal, heal->store);

	heal->any_later |= is_unsure && !is_former;
	heal->any_unsure |= is_unsure && is_former;
	heal_go(heal);
}

void heal_rest(struct pg_heal *heal, uint64_t pause_ns)
{
	heal->is_resting = true;
	heal->any_later = heal->any_unsure = false;
	heal->asked_count = 0;
	heal->heir = 0;
	heal->has_marked = false;
	heal->again_ns = loop_now(heal->set->loop) + pause_ns;
	pg_set_active(heal->pg);
}

void heal_pause(struct pg_heal *heal)
{
	heal_rest(heal, HEAL_AGAIN_NS);
}

/* ---- who has it ---- */

/* It has another version, and only just the one that we had would do. */
static void try_other(struct pg_heal *heal, uint32_t flags)
{
	bool is_open = pg_settle_is_open(heal->lead, &heal->key);
	bool is_whole = !(flags & PEER_OBJECT_MISSING);

	if (heal->is_in_sync && is_whole && !heal->heir)
		heal->heir = heal->store;
	heal->has_marked |= heal->is_in_sync && flags & PEER_OBJECT_MARKED;
	/* What is ours and not committed it may have soon. */
	heal_try_next(heal, heal->is_in_sync && !is_open ? -E_VERSION : -E_MISSING);
}

static void on_heal_sums(struct pg_ask *ask, int result)
{
	struct pg_heal *heal = ask->owner;
	const struct peer_sums_reply *reply = ask->call.reply_body;
	const struct slice *payload = &ask->call.reply_slice;
	uint32_t flags;

	heal->is_out = false;
	if (!heal->lead) {
		heal_free(heal);
		return;
	}
	if (result == 0 && pg_sums_decode(payload->data, payload->size,
					  from_le32(reply->block_count), &heal->sums) < 0)
		result = -E_PROTOCOL;
	if (result < 0) {
		heal_try_next(heal, result);
		return;
	}
	flags = from_le32(reply->flags);
	heal->version =
		(struct version){.reign = from_le64(reply->reign), .n = from_le64(reply->n)};
	if (heal->must_equal &&
	    (!(flags & PEER_OBJECT_EXISTS) || version_compare(heal->version, heal->own) != 0)) {
		try_other(heal, flags);
	} else if (!(flags & PEER_OBJECT_EXISTS)) {
		heal_fetch_absence(heal);
	} else if (flags & PEER_OBJECT_MISSING) {
		heal_try_next(heal, -E_MISSING);
	} else {
		heal_fetch(heal);
	}
}

bool heal_ask_sums(struct pg_heal *heal, uint32_t store, void *owner,
		   void (*done)(struct pg_ask *ask, int result))
{
	bool is_full = heal->asked_count == ARRAY_COUNT(heal->asked);
	struct pg_ask *ask = is_full ? NULL : pg_ask_new(heal->pg, store, 0);

	if (!ask)
		return false;
	heal->asked[heal->asked_count++] = store;
	const struct peer_sums body = {
		.epoch = to_le64(ask->epoch),
		.layer = to_le64(heal->key.layer),
		.family = to_le64(heal->family),
		.index = to_le32(heal->key.index),
		.pg = to_le32(heal->pg->id),
		.store = to_le32(store),
	};
	heal->store = store;
	ask->owner = owner;
	heal->is_out = true;
	pg_ask_send(ask, PEER_CLASS_BULK, PEER_OP_SUMS, &body, sizeof(body), done);
	return true;
}

static bool was_asked(const struct pg_heal *heal, uint32_t store)
{
	for (uint32_t i = 0; i < heal->asked_count; i++)
		if (heal->asked[i] == store)
			return true;
	return false;
}

/*
 * The next one to ask: members in sync, then all others that are there. Who was elected after a total power
 * loss has only such: where one of them has the very version it has the bytes (W4). The same goes for those that
 * have no part in the PG any more, and keep their copy until it is healthy.
 */
uint32_t heal_next_store(const struct pg_heal *heal)
{
	const struct pg_lead *lead = heal->lead;

	for (unsigned pass = 0; pass < 2; pass++)
		for (uint32_t i = 0; i < lead->member_count; i++) {
			const struct pg_member *member = lead->members[i];
			if ((member->kind == PG_MEMBER_ISR) == (pass == 0) &&
			    pg_member_may_be_asked(member) && !was_asked(heal, member->store))
				return member->store;
		}
	for (uint32_t i = 0; i < heal->pg->former_count; i++) {
		const struct pg_former *former = &heal->pg->formers[i];
		if (pg_former_may_be_asked(heal->pg, former) && !was_asked(heal, former->store))
			return former->store;
	}
	return 0;
}

bool heal_is_former(const struct pg_heal *heal, uint32_t store)
{
	return !pg_lead_member(heal->lead, store);
}

/* Somebody in sync cannot be asked: it may be dropped soon, or be back. */
static bool is_short(const struct pg_lead *lead)
{
	for (uint32_t i = 0; i < lead->member_count; i++)
		if (lead->members[i]->kind == PG_MEMBER_ISR &&
		    !pg_member_may_be_asked(lead->members[i]))
			return true;
	return false;
}

bool heal_is_awaited(const struct pg_heal *heal)
{
	uint64_t wait_ns = pg_set_time(heal->set, CLUSTER_SETTING_DOWN_OUT_INTERVAL);

	return pg_absence_is_younger(heal->lead, wait_ns) ||
	       (heal->any_unsure && pg_former_is_younger(heal->pg, wait_ns));
}

/* Everybody who is there was asked, and has no good copy. */
static void decide_alone(struct pg_heal *heal)
{
	struct pg_lead *lead = heal->lead;

	if (heal_is_awaited(heal)) {
		if (is_short(lead) && pg_absence_is_younger(lead, SHORT_NS))
			heal_pause(heal);
		else
			heal_end(heal, -E_LOST); /* others need the push's place, meanwhile */
	} else if (lead->pg->state == PG_SERVING || lead->pg->state == PG_WAITING) {
		heal_give_up(heal);
	} else {
		heal_pause(heal); /* entries are not numbered before all tails are known */
	}
}

/* Everybody was asked. Who has all of it in another version is left the lead, or settled with. */
static void heal_decide(struct pg_heal *heal)
{
	struct pg_lead *lead = heal->lead;

	if (heal->heir && pg_settle_yield(lead, &heal->key, heal->heir))
		heal_end(heal, -E_NOT_PRIMARY);
	else if (heal->any_later)
		heal_pause(heal);
	else if (heal->heir && pg_settle_is_late(lead, &heal->key) &&
		 pg_settle_salvage(lead, &heal->key))
		heal_end(heal, -E_LOST); /* the settle goes on with what it has */
	else if (heal->heir)
		heal_pause(heal);
	else if (heal->has_marked && !heal_is_awaited(heal) &&
		 pg_settle_salvage_apart(lead, &heal->key))
		heal_end(heal, -E_LOST); /* and what is damaged is put together at its version */
	else
		decide_alone(heal);
}

/* Our own entry has the object, and is not committed: then only just that version will do. */
static bool is_uncommitted(const struct pg_heal *heal)
{
	return heal->own.reign == heal->lead->reign && heal->own.n > heal->lead->commit_n;
}

/* Has it all that is committed? Who has refused an entry may lack anything. */
static bool is_in_sync(const struct pg_lead *lead, uint32_t store)
{
	const struct pg_member *member = pg_lead_member(lead, store);

	return member && member->kind == PG_MEMBER_ISR &&
	       (!member->refused || pg_member_is_late(member));
}

bool heal_must_equal(const struct pg_heal *heal, uint32_t store)
{
	return !is_in_sync(heal->lead, store) || is_uncommitted(heal) ||
	       pg_settle_is_open(heal->lead, &heal->key);
}

void heal_go(struct pg_heal *heal)
{
	uint32_t store;
	struct store_object object;
	bool exists = store_object(pg_store_of(heal->pg), heal->pg->id, &heal->key, &object) > 0;

	if (exists && object.is_in_flight) {
		heal_rest(heal, 0); /* what is said to be lost is on its way, or a mark of damage */
		return;
	}
	if (!exists || !object.is_missing) {
		heal_end(heal, 0); /* by somebody else, or for good */
		return;
	}
	heal->family = object.family;
	heal->own = object.version;
	heal->is_partial = object.is_partial;
	store = heal_next_store(heal);
	if (!store) {
		heal_decide(heal);
		return;
	}
	heal->is_in_sync = is_in_sync(heal->lead, store);
	heal->must_equal = heal_must_equal(heal, store);
	if (!heal_ask_sums(heal, store, heal, on_heal_sums))
		heal_pause(heal);
}

static void on_heal_granted(struct pg_lock *lock)
{
	struct pg_heal *heal = container_of_type(lock, struct pg_heal, lock);

	if (heal->lead && !pg_lead_is_over(heal->lead))
		heal_go(heal);
}

static struct pg_heal *find(struct pg_lead *lead, const struct object_key *key)
{
	struct pg_heal *heal;

	cds_list_for_each_entry(heal, &lead->heals, link)
		if (heal->mode == PG_HEAL_UNLOCKED && object_key_compare(&heal->key, key) == 0)
			return heal;
	return NULL;
}

static void add_wait(struct pg_heal *heal, struct pg_heal_wait *wait)
{
	cds_list_add_tail(&wait->link, &heal->waits);
	wait->heal = heal;
}

void pg_heal_object(struct pg_lead *lead, const struct object_key *key, enum pg_heal_mode mode,
		    struct pg_heal_wait *wait)
{
	struct pg_heal *heal = mode == PG_HEAL_UNLOCKED ? find(lead, key) : NULL;
	int rc = 1;

	if (heal) {
		if (wait)
			add_wait(heal, wait);
		return;
	}
	heal = calloc(1, sizeof(*heal));
	if (!heal) {
		if (wait)
			wait->done(wait, -ENOMEM);
		return;
	}
	CDS_INIT_LIST_HEAD(&heal->waits);
	heal->set = lead->pg->set;
	heal->pg = lead->pg;
	heal->lead = lead;
	heal->key = *key;
	heal->mode = mode;
	heal->lock.granted = on_heal_granted;
	if (wait)
		add_wait(heal, wait);
	cds_list_add_tail(&heal->link, &lead->heals);
	lead->heal_count++;
	if (mode == PG_HEAL_UNLOCKED)
		rc = pg_lock_take(&heal->set->locks, &heal->lock, key, PG_LOCK_EXCLUSIVE, 0,
				  OBJECT_BLOCKS);
	if (rc < 0)
		heal_end(heal, rc);
	else if (rc > 0)
		heal_go(heal);
}

/* ---- in the background ---- */

static bool begin_search(struct pg_lead *lead)
{
	struct store *store = pg_store_of(lead->pg);
	struct store_object object;
	const struct object_key *after = lead->has_heal_cursor ? &lead->heal_cursor : NULL;

	/* What clients ask for is healed at once, whatever is set. */
	for (unsigned i = 0;
	     i < 256 && lead->heal_count < HEALS_MAX && pg_recovery_may(lead->pg->set); i++) {
		if (store_object_next(store, lead->id, after, &object) <= 0) {
			lead->has_heal_cursor = false;
			return false;
		}
		lead->heal_cursor = object.key;
		lead->has_heal_cursor = true;
		after = &lead->heal_cursor;
		if (object.is_missing)
			pg_heal_object(lead, &object.key, PG_HEAL_UNLOCKED, NULL);
	}
	return true;
}

void pg_heal_wake(struct pg_lead *lead, uint64_t now)
{
	struct pg_heal *heal, *next;

	cds_list_for_each_entry_safe(heal, next, &lead->heals, link) {
		if (!heal->is_resting || now < heal->again_ns)
			continue;
		heal->is_resting = false;
		heal_go(heal);
		break; /* it may have ended, and others with it */
	}
}

bool pg_heal_tick(struct pg_lead *lead)
{
	struct store_pg_info info;

	if (lead->heal_count > 0)
		return true;
	store_pg_info(pg_store_of(lead->pg), lead->id, &info);
	if (info.missing == 0)
		return false;
	lead->pg->has_holes = true;
	if (loop_now(lead->pg->set->loop) >= lead->vain_ns + VAIN_NS)
		(void)begin_search(lead);
	return true;
}
