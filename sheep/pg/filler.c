/*
 * A joining member, as its primary fills it (REPLICATION, J1-J6); also a member in sync that has lost
 * objects, which is only pushed those.
 *
 *   RESTING --> STARTING --stream begins--> FILLING --nothing missing--> SEALING --digests agree-->
 *      ^            |                         |  ^                         |          EXPANDING
 *      +------------+--------- broken --------+  +---- digests differ -----+
 *
 * The cursor runs through all objects in the order of their keys: those up to it have been
 * compared, by version. What differs is an item until its push is done. So what the member needs
 * of new entries is: those of objects up to the cursor that are no items. Everything else is
 * covered by a push or by a comparison that is still to come (J2).
 *
 * From SEALING on the member is counted like one in sync. That is not relaxed once an expand has been
 * proposed, until the epoch changes or the join ends: the proposal names both (J4).
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/cover.h"
#include "lib/base/rule.h"
#include "sheep/pg/filler_priv.h"

#define HEAL_AGAIN_NS (5 * NS_PER_S) /* look again at a member that still has holes */

static const uint8_t fill_next[FILL_STATE_COUNT] = {
	[FILL_RESTING] = BIT(FILL_STARTING),
	[FILL_STARTING] = BIT(FILL_RESTING) | BIT(FILL_FILLING),
	[FILL_FILLING] = BIT(FILL_RESTING) | BIT(FILL_SEALING),
	[FILL_SEALING] = BIT(FILL_RESTING) | BIT(FILL_FILLING) | BIT(FILL_EXPANDING),
	[FILL_EXPANDING] = BIT(FILL_FILLING), /* in a new epoch only; else the join must end */
};

static const char *const fill_names[FILL_STATE_COUNT] = {
	[FILL_RESTING] = "resting", [FILL_STARTING] = "starting",   [FILL_FILLING] = "filling",
	[FILL_SEALING] = "sealing", [FILL_EXPANDING] = "expanding",
};

void pg_fill_enter(struct pg_filler *filler, enum fill_state next, const char *why)
{
	assert(fill_next[filler->state] & BIT(next));
	COVER_MOVE("filler", fill_next, fill_names, filler->state, next);
	log_debug("pg %u store %u: filling: %s -> %s: %s", filler->pg->id, filler->member->store,
		  fill_names[filler->state], fill_names[next], why);
	filler->state = next;
	pg_set_active(filler->pg);
}

uint64_t pg_filler_join(const struct pg_filler *filler)
{
	return filler->join;
}

/* ---- items ---- */

struct pg_item *pg_fill_find(const struct pg_filler *filler, const struct object_key *key)
{
	struct pg_item *item;
	typeof(item->hash_key) find = {.layer = key->layer, .index = key->index};

	HASH_FIND(hh, filler->items, &find, sizeof(find), item);
	return item;
}

int pg_fill_add(struct pg_filler *filler, const struct object_key *key, uint64_t family,
		uint64_t bytes, bool has_sums)
{
	struct pg_item *item = calloc(1, sizeof(*item));

	if (!item)
		return -ENOMEM;
	item->hash_key.layer = key->layer;
	item->hash_key.index = key->index;
	item->key = *key;
	item->family = family;
	item->bytes = bytes;
	item->has_sums = has_sums;
	HASH_ADD(hh, filler->items, hash_key, sizeof(item->hash_key), item);
	cds_list_add_tail(&item->link, &filler->queue);
	filler->item_count++;
	filler->bytes += bytes;
	return 0;
}

static void item_free(struct pg_filler *filler, struct pg_item *item)
{
	if (item->push)
		pg_push_cancel(item->push);
	else
		cds_list_del(&item->link);
	HASH_DEL(filler->items, item);
	filler->item_count--;
	filler->bytes -= item->bytes;
	free(item);
}

static void items_free(struct pg_filler *filler)
{
	struct pg_item *item, *next;

	HASH_ITER(hh, filler->items, item, next)
		item_free(filler, item);
}

bool pg_filler_wants(const struct pg_filler *filler, const struct object_key *key)
{
	if (filler->state < FILL_FILLING)
		return false;
	if (RULE(J2_COMPARE_ALL) && !filler->is_end &&
	    (!filler->has_cursor || object_key_compare(key, &filler->cursor) > 0))
		return false;
	return !RULE(J2_SKIP_MISSING) || !pg_fill_find(filler, key);
}

/* ---- the beginning, and beginning again ---- */

void pg_fill_relax(struct pg_filler *filler)
{
	if (filler->member->kind != PG_MEMBER_SEALED)
		return;
	filler->member->kind = PG_MEMBER_FILLING;
	pg_lead_commit(filler->lead);
}

void pg_fill_again(struct pg_filler *filler, uint64_t pause_ns, const char *why)
{
	filler->start = ++filler->pg->set->starts;
	if (filler->state != FILL_RESTING)
		pg_fill_enter(filler, FILL_RESTING, why);
	items_free(filler);
	pg_fill_drop_list(filler);
	filler->is_asked = false;
	filler->is_list_end = false;
	filler->has_last_row = false;
	filler->has_cursor = false;
	filler->is_end = false;
	filler->expand_ns = 0;
	filler->rest_ns = loop_now(filler->pg->set->loop) + pause_ns;
	if (!pg_fill_is_heal(filler)) {
		pg_member_forget(filler->member);
		pg_fill_relax(filler);
	}
	pg_set_active(filler->pg);
}

int pg_filler_new(struct pg_member *member, uint64_t join, uint64_t incarnation)
{
	struct pg_filler *filler = calloc(1, sizeof(*filler));

	if (!filler)
		return -ENOMEM;
	filler->member = member;
	filler->lead = member->lead;
	filler->pg = member->lead->pg;
	filler->join = join;
	filler->incarnation = incarnation;
	filler->start = ++filler->pg->set->starts;
	CDS_INIT_LIST_HEAD(&filler->queue);
	member->filler = filler;
	if (join)
		filler->pg->set->counters.joins++;
	pg_set_active(filler->pg);
	return 0;
}

void pg_filler_free(struct pg_filler *filler)
{
	if (!filler)
		return;
	filler->member->filler = NULL;
	items_free(filler);
	pg_fill_drop_list(filler);
	free(filler);
}

/* The filler that sent this ask, if it has not begun again since. */
struct pg_filler *pg_fill_of(const struct pg_ask *ask)
{
	struct pg_member *member = pg_ask_member(ask);
	struct pg_filler *filler = member ? member->filler : NULL;

	return filler && filler->start == (uint64_t)(uintptr_t)ask->owner ? filler : NULL;
}

void pg_filler_broken(struct pg_filler *filler, int why)
{
	if (filler->state == FILL_RESTING)
		return;
	if (filler->state == FILL_EXPANDING) { /* not relaxed: the join must end */
		pg_member_refuse(filler->member, why);
		return;
	}
	log_debug("pg %u: filling store %u begins again: %s", filler->pg->id, filler->member->store,
		  err_text(why));
	pg_fill_again(filler, PG_FILL_REST_NS, err_text(why));
}

static void on_joined(struct pg_ask *ask, int result)
{
	struct pg_filler *filler = pg_fill_of(ask);

	if (!filler || filler->state != FILL_STARTING)
		return;
	if (result < 0)
		pg_filler_broken(filler, result);
	else
		pg_fill_enter(filler, FILL_FILLING, "its stream has begun");
}

static void begin(struct pg_filler *filler)
{
	struct pg_member *member = filler->member;
	struct pg_ask *ask;

	pg_fill_enter(filler, FILL_STARTING, pg_fill_is_heal(filler) ? "it has holes" : "it joins");
	if (pg_fill_is_heal(filler)) {
		pg_fill_enter(filler, FILL_FILLING, "its stream goes on");
		return;
	}
	ask = pg_ask_new(filler->pg, member->store, 0);
	if (!ask) {
		pg_fill_again(filler, PG_FILL_REST_NS, "no memory");
		return;
	}
	member->after_n = filler->lead->next_n - 1;
	filler->doubt_n = member->after_n; /* an older beginning may have pushed what is in doubt */
	const struct peer_join body = {
		.epoch = to_le64(ask->epoch),
		.reign = to_le64(filler->lead->reign),
		.n = to_le64(member->after_n),
		.join = to_le64(filler->join),
		.start = to_le64(filler->start),
		.incarnation = to_le64(filler->incarnation),
		.pg = to_le32(filler->pg->id),
		.store = to_le32(member->store),
	};
	ask->owner = pg_fill_tag(filler);
	pg_ask_send(ask, PEER_CLASS_PEER, PEER_OP_JOIN, &body, sizeof(body), on_joined);
}

/* ---- pushing ---- */

/* False: no memory. */
static bool push_item(struct pg_filler *filler, struct pg_item *item)
{
	const struct pg_push_target target = {.pg = filler->pg,
					      .store = filler->member->store,
					      .join = filler->join,
					      .start = filler->start};

	item->push = pg_push_new(filler, &target, &item->key, item->family, item->has_sums);
	if (!item->push)
		return false;
	cds_list_del(&item->link);
	pg_push_start(item->push);
	return true;
}

bool pg_filler_demand(struct pg_filler *filler, const struct object_key *key)
{
	struct pg_item *item;

	if (!filler || filler->member->refused)
		return false;
	item = pg_fill_find(filler, key);
	return item && (item->push || push_item(filler, item));
}

static void pump(struct pg_filler *filler)
{
	uint64_t start = filler->start;

	if (filler->is_pumping)
		return;
	filler->is_pumping = true;
	/* A push may end inside, with the wish to begin again. */
	while (filler->start == start && !cds_list_empty(&filler->queue) &&
	       loop_now(filler->pg->set->loop) >= filler->rest_ns &&
	       pg_recovery_may(filler->pg->set)) {
		struct pg_item *item = cds_list_first_entry(&filler->queue, struct pg_item, link);
		if (!push_item(filler, item))
			break;
	}
	filler->is_pumping = false;
}

/* What was pushed may be an entry that is not committed, if it passed its lock. */
static void doubt(struct pg_filler *filler, const struct object_key *key)
{
	const struct pg_lead *lead = filler->lead;
	struct store_object object;
	uint64_t n = lead->next_n - 1;

	if (store_object(pg_store_of(filler->pg), filler->pg->id, key, &object) > 0)
		n = object.version.reign == lead->reign ? object.version.n : 0;
	filler->doubt_n = max_of(filler->doubt_n, n);
}

void pg_filler_pushed(struct pg_filler *filler, const struct object_key *key, int result,
		      uint32_t blocks)
{
	struct pg_item *item = pg_fill_find(filler, key);

	assert(item && item->push);
	item->push = NULL;
	cds_list_add_tail(&item->link, &filler->queue);
	filler->blocks_pushed += blocks;
	pg_set_active(filler->pg);
	if (result == 0) {
		doubt(filler, key);
		filler->objects_pushed++;
		filler->pg->set->counters.objects_pushed++;
		item_free(filler, item);
		pg_filler_tick(filler, loop_now(filler->pg->set->loop));
		return;
	}
	/* The next try compares again: half of it may be there. */
	item->has_sums = true;
	filler->rest_ns = loop_now(filler->pg->set->loop) + PG_FILL_REST_NS;
	if (result == -EINVAL || result == -E_PROTOCOL || result == -E_STORE_FAILED)
		pg_member_refuse(filler->member, result);
	else if (result == -E_STALE) /* it does not know this beginning */
		pg_filler_broken(filler, result);
}

bool pg_filler_is_undecided(const struct pg_filler *filler)
{
	return filler->state == FILL_EXPANDING;
}

void pg_filler_missing(struct pg_filler *filler, const struct object_key *key, uint64_t family)
{
	struct store_object object;
	uint64_t bytes = 0;

	assert(filler->state != FILL_EXPANDING);
	if (filler->state != FILL_FILLING) {
		pg_filler_broken(filler, -E_MISSING);
		return;
	}
	if (pg_fill_find(filler, key))
		return;
	if (store_object(pg_store_of(filler->pg), filler->pg->id, key, &object) > 0)
		bytes = (uint64_t)object.data_blocks * BLOCK_SIZE;
	if (pg_fill_add(filler, key, family, bytes, true) < 0)
		pg_filler_broken(filler, -ENOMEM);
}

/* ---- the tick ---- */

void pg_filler_epoch(struct pg_filler *filler)
{
	/* What was proposed names another epoch: it is decided. A seal is judged when it is back. */
	if (filler->state == FILL_EXPANDING) {
		pg_fill_enter(filler, FILL_FILLING, "the epoch changed");
		pg_fill_relax(filler);
	}
	pg_set_active(filler->pg);
}

/*
 * Everything that waits for members who are lost waits for this one, if they cannot be spared. Pushes
 * must not wait for it in turn. What is pushed in doubt is told with the seal.
 */
static void let_pushes_pass(struct pg_filler *filler)
{
	struct pg_item *item, *next;

	HASH_ITER(hh, filler->items, item, next) {
		if (item->push && pg_push_barrier(item->push))
			return; /* it may be done, and the table another: the next tick goes on */
	}
}

static void tick_filling(struct pg_filler *filler, uint64_t now)
{
	if (!filler->is_end) {
		if (!filler->is_asked && filler->row == filler->row_count && !filler->is_list_end &&
		    now >= filler->rest_ns)
			pg_fill_ask_list(filler);
		else if (!filler->is_asked)
			pg_fill_compare(filler);
	}
	pump(filler);
	if (!pg_fill_is_heal(filler) && filler->item_count > 0 && pg_lead_is_short(filler->lead))
		let_pushes_pass(filler);
	if (filler->state != FILL_FILLING || !filler->is_end || filler->item_count > 0)
		return;
	if (!pg_fill_is_heal(filler))
		pg_fill_seal(filler);
	else
		pg_fill_again(filler, HEAL_AGAIN_NS, "nothing is missing that we know of");
}

bool pg_filler_tick(struct pg_filler *filler, uint64_t now)
{
	switch (filler->state) {
	case FILL_RESTING:
		if (now >= filler->rest_ns && !filler->member->refused &&
		    pg_slow_may_join(filler->lead, filler->member->store, now))
			begin(filler);
		break;
	case FILL_FILLING:
		if (!filler->member->refused)
			tick_filling(filler, now);
		break;
	case FILL_EXPANDING:
		if (now >= filler->expand_ns + PG_PROPOSE_NS)
			pg_fill_propose(filler, now);
		break;
	case FILL_STARTING:
	case FILL_SEALING:
	case FILL_STATE_COUNT:
		break;
	}
	return true;
}

void pg_filler_status(const struct pg_filler *filler, struct pg_join_status *out)
{
	*out = (struct pg_join_status){
		.store = filler->member->store,
		.is_listing = !filler->is_end,
		.objects_missing = filler->item_count,
		.bytes_missing = filler->bytes,
		.objects_pushed = filler->objects_pushed,
		.bytes_pushed = filler->blocks_pushed * BLOCK_SIZE,
	};
}
