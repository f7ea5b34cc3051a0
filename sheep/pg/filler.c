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

#include "sheep/pg/pg_priv.h"

#define ITEMS_MAX     4096u /* the cursor waits when there are more */
#define STEPS_MAX     512u  /* objects compared in one go */
#define REST_NS	      (200 * NS_PER_MS)
#define DIFFER_NS     NS_PER_S	     /* after digests that differ */
#define HEAL_AGAIN_NS (5 * NS_PER_S) /* look again at a member that still has holes */

enum fill_state {
	FILL_RESTING,
	FILL_STARTING,
	FILL_FILLING,
	FILL_SEALING,
	FILL_EXPANDING,
	FILL_STATE_COUNT
};

static const uint8_t fill_next[FILL_STATE_COUNT] = {
	[FILL_RESTING] = BIT(FILL_STARTING),
	[FILL_STARTING] = BIT(FILL_RESTING) | BIT(FILL_FILLING),
	[FILL_FILLING] = BIT(FILL_RESTING) | BIT(FILL_SEALING),
	[FILL_SEALING] = BIT(FILL_RESTING) | BIT(FILL_FILLING) | BIT(FILL_EXPANDING),
	[FILL_EXPANDING] = BIT(FILL_RESTING) | BIT(FILL_FILLING),
};

/* An object that the member misses. */
struct item {
	struct {
		uint64_t layer;
		uint64_t index;
	} hash_key;
	UT_hash_handle hh;
	struct cds_list_head link; /* in the queue, while it is not being pushed */
	struct object_key key;
	uint64_t family;
	uint64_t bytes;
	bool has_sums;
	struct pg_push *push;
};

struct pg_filler {
	struct pg_member *member;
	struct pg_lead *lead;
	struct pg *pg;
	uint64_t join, incarnation;
	uint64_t start; /* number of this beginning: asks of an older one do not count */
	enum fill_state state;
	uint64_t rest_ns;
	bool has_cursor, is_end;
	struct object_key cursor;
	/* rows of the member's list, not yet compared */
	bool is_asked; /* for a list */
	bool is_list_end;
	struct slice list;
	uint32_t row, row_count;
	struct object_key last_row; /* of the list, for the next one */
	bool has_last_row;
	struct item *items; /* uthash */
	struct cds_list_head queue;
	uint32_t item_count;
	uint64_t bytes;
	bool is_pumping;
	uint64_t digest, objects;
	uint64_t doubt_n; /* entries up to here may have been pushed before they were committed */
	uint32_t drop;	  /* a lost member that goes when this one is in sync; 0: none */
	uint64_t expand_ns;
	uint64_t objects_pushed, blocks_pushed;
};

static void fill_enter(struct pg_filler *filler, enum fill_state next, const char *why)
{
	static const char *const names[FILL_STATE_COUNT] = {"resting", "starting", "filling",
							    "sealing", "expanding"};

	assert(fill_next[filler->state] & BIT(next));
	log_debug("pg %u store %u: filling: %s -> %s: %s", filler->pg->id, filler->member->store,
		  names[filler->state], names[next], why);
	filler->state = next;
	pg_set_active(filler->pg);
}

static bool is_heal(const struct pg_filler *filler)
{
	return filler->join == 0;
}

uint64_t pg_filler_join(const struct pg_filler *filler)
{
	return filler->join;
}

/* ---- items ---- */

static struct item *item_find(const struct pg_filler *filler, const struct object_key *key)
{
	struct item *item;
	typeof(item->hash_key) find = {.layer = key->layer, .index = key->index};

	HASH_FIND(hh, filler->items, &find, sizeof(find), item);
	return item;
}

static int item_add(struct pg_filler *filler, const struct object_key *key, uint64_t family,
		    uint64_t bytes, bool has_sums)
{
	struct item *item = calloc(1, sizeof(*item));

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

static void item_free(struct pg_filler *filler, struct item *item)
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
	struct item *item, *next;

	HASH_ITER(hh, filler->items, item, next)
		item_free(filler, item);
}

bool pg_filler_wants(const struct pg_filler *filler, const struct object_key *key)
{
	if (filler->state < FILL_FILLING)
		return false;
	if (!filler->is_end &&
	    (!filler->has_cursor || object_key_compare(key, &filler->cursor) > 0))
		return false;
	return !item_find(filler, key);
}

/* ---- the beginning, and beginning again ---- */

static void drop_list(struct pg_filler *filler)
{
	buffer_put(filler->list.buffer);
	filler->list = (struct slice){.buffer = NULL};
	filler->row = filler->row_count = 0;
}

static void relax(struct pg_filler *filler)
{
	if (filler->member->kind != PG_MEMBER_SEALED)
		return;
	filler->member->kind = PG_MEMBER_FILLING;
	pg_lead_commit(filler->lead);
}

static void begin_again(struct pg_filler *filler, uint64_t pause_ns, const char *why)
{
	filler->start = ++filler->pg->set->starts;
	if (filler->state != FILL_RESTING)
		fill_enter(filler, FILL_RESTING, why);
	items_free(filler);
	drop_list(filler);
	filler->is_asked = false;
	filler->is_list_end = false;
	filler->has_last_row = false;
	filler->has_cursor = false;
	filler->is_end = false;
	filler->expand_ns = 0;
	filler->rest_ns = loop_now(filler->pg->set->loop) + pause_ns;
	if (!is_heal(filler)) {
		pg_member_forget(filler->member);
		relax(filler);
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
	drop_list(filler);
	free(filler);
}

/* The filler that sent this ask, if it has not begun again since. */
static struct pg_filler *filler_of(const struct pg_ask *ask)
{
	struct pg_member *member = pg_ask_member(ask);
	struct pg_filler *filler = member ? member->filler : NULL;

	return filler && filler->start == (uint64_t)(uintptr_t)ask->owner ? filler : NULL;
}

static void *tag(const struct pg_filler *filler)
{
	return (void *)(uintptr_t)filler->start;
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
	begin_again(filler, REST_NS, err_text(why));
}

static void on_joined(struct pg_ask *ask, int result)
{
	struct pg_filler *filler = filler_of(ask);

	if (!filler || filler->state != FILL_STARTING)
		return;
	if (result < 0)
		pg_filler_broken(filler, result);
	else
		fill_enter(filler, FILL_FILLING, "its stream has begun");
}

static void begin(struct pg_filler *filler)
{
	struct pg_member *member = filler->member;
	struct pg_ask *ask;

	fill_enter(filler, FILL_STARTING, is_heal(filler) ? "it has holes" : "it joins");
	if (is_heal(filler)) {
		fill_enter(filler, FILL_FILLING, "its stream goes on");
		return;
	}
	ask = pg_ask_new(filler->pg, member->store, 0);
	if (!ask) {
		begin_again(filler, REST_NS, "no memory");
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
	ask->owner = tag(filler);
	pg_ask_send(ask, PEER_CLASS_PEER, PEER_OP_JOIN, &body, sizeof(body), on_joined);
}

/* ---- comparing ---- */

static void on_list(struct pg_ask *ask, int result)
{
	struct pg_filler *filler = filler_of(ask);
	const struct peer_list_reply *reply = ask->call.reply_body;
	const struct slice *payload = &ask->call.reply_slice;

	if (!filler || filler->state != FILL_FILLING)
		return;
	if (result < 0) {
		filler->rest_ns = loop_now(filler->pg->set->loop) + REST_NS;
		filler->is_asked = false; /* again, from the tick */
		return;
	}
	filler->row = 0;
	filler->row_count = from_le32(reply->row_count);
	if (filler->row_count > PEER_LIST_ROWS_MAX ||
	    payload->size != filler->row_count * sizeof(struct peer_list_row) ||
	    (filler->row_count == 0 && !from_le32(reply->is_end))) {
		filler->row_count = 0;
		pg_member_refuse(filler->member, -E_PROTOCOL);
		return;
	}
	filler->is_list_end = from_le32(reply->is_end);
	filler->list = net_call_take(&ask->call);
	filler->is_asked = false;
	filler->rest_ns = 0;
	pg_set_active(filler->pg);
	pg_filler_tick(filler, loop_now(filler->pg->set->loop));
}

static void ask_list(struct pg_filler *filler)
{
	struct pg_ask *ask = pg_ask_new(filler->pg, filler->member->store, 0);

	if (!ask)
		return;
	const struct peer_list body = {
		.epoch = to_le64(ask->epoch),
		.after_layer = to_le64(filler->last_row.layer),
		.after_index = to_le32(filler->last_row.index),
		.has_after = to_le32(filler->has_last_row),
		.pg = to_le32(filler->pg->id),
		.store = to_le32(filler->member->store),
		.rows_max = to_le32(PEER_LIST_ROWS_MAX),
	};
	drop_list(filler);
	ask->owner = tag(filler);
	filler->is_asked = true;
	pg_ask_send(ask, PEER_CLASS_BULK, PEER_OP_LIST, &body, sizeof(body), on_list);
}

struct pair {
	struct object_key key;
	bool has_ours, has_theirs;
	struct store_object ours;
	struct version their_version;
	uint64_t their_family;
	bool they_miss;
};

static const struct peer_list_row *next_row(const struct pg_filler *filler)
{
	if (filler->row == filler->row_count)
		return NULL;
	return (const struct peer_list_row *)(const void *)filler->list.data + filler->row;
}

/* The next object that either side has. False: their next rows are needed first, or all is done. */
static bool next_pair(struct pg_filler *filler, struct pair *pair)
{
	const struct peer_list_row *row = next_row(filler);
	struct object_key theirs;
	int order;

	if (!row && !filler->is_list_end)
		return false;
	memset(pair, 0, sizeof(*pair));
	pair->has_ours =
		store_object_next(pg_store_of(filler->pg), filler->pg->id,
				  filler->has_cursor ? &filler->cursor : NULL, &pair->ours) > 0;
	if (!row && !pair->has_ours) {
		filler->is_end = true;
		return false;
	}
	if (row) {
		theirs.layer = from_le64(row->layer);
		theirs.index = from_le32(row->index);
	}
	order = !row ? -1 : !pair->has_ours ? 1 : object_key_compare(&pair->ours.key, &theirs);
	pair->has_ours = order <= 0;
	pair->has_theirs = order >= 0;
	pair->key = order <= 0 ? pair->ours.key : theirs;
	if (pair->has_theirs) {
		pair->their_version =
			(struct version){.reign = from_le64(row->reign), .n = from_le64(row->n)};
		pair->their_family = from_le64(row->family);
		pair->they_miss = from_le32(row->flags) & PEER_OBJECT_MISSING;
	}
	return true;
}

static bool differs(const struct pg_filler *filler, const struct pair *pair)
{
	/* Ours goes by an entry of the order, and theirs with it. */
	if (pair->has_ours && pg_is_garbage(filler->pg->set, pair->key.layer))
		return false;
	if (is_heal(filler)) /* it is in sync: only what it lost */
		return pair->has_theirs && pair->they_miss;
	return !pair->has_ours || !pair->has_theirs || pair->they_miss || pair->ours.is_missing ||
	       version_compare(pair->ours.version, pair->their_version) != 0;
}

/* The keys of a list ascend, and belong here. */
static bool row_is_good(const struct pg_filler *filler, const struct pair *pair)
{
	return !pair->has_theirs ||
	       ((!filler->has_last_row || object_key_compare(&filler->last_row, &pair->key) < 0) &&
		pg_holds_object(filler->pg->set, filler->pg->id, pair->their_family,
				pair->key.index));
}

static void compare_some(struct pg_filler *filler)
{
	struct pair pair;

	for (uint32_t i = 0; i < STEPS_MAX && filler->item_count < ITEMS_MAX; i++) {
		if (!next_pair(filler, &pair))
			return;
		if (!row_is_good(filler, &pair)) {
			pg_member_refuse(filler->member, -E_PROTOCOL);
			return;
		}
		if (differs(filler, &pair) && !item_find(filler, &pair.key)) {
			uint64_t blocks = pair.has_ours ? pair.ours.data_blocks : 0;
			uint64_t family = pair.has_ours ? pair.ours.family : pair.their_family;
			if (item_add(filler, &pair.key, family, blocks * BLOCK_SIZE,
				     pair.has_theirs && !pair.they_miss) < 0)
				return; /* the tick goes on from here */
		}
		filler->pg->set->counters.objects_compared++;
		filler->cursor = pair.key;
		filler->has_cursor = true;
		if (pair.has_theirs) {
			filler->last_row = pair.key;
			filler->has_last_row = true;
			filler->row++;
		}
	}
}

/* ---- pushing ---- */

static void pump(struct pg_filler *filler)
{
	struct pg_push_target target = {.pg = filler->pg,
					.store = filler->member->store,
					.join = filler->join,
					.start = filler->start};
	uint64_t start = filler->start;

	if (filler->is_pumping)
		return;
	filler->is_pumping = true;
	/* A push may end inside, with the wish to begin again. */
	while (filler->start == start && !cds_list_empty(&filler->queue) &&
	       loop_now(filler->pg->set->loop) >= filler->rest_ns &&
	       pg_recovery_may(filler->pg->set)) {
		struct item *item = cds_list_first_entry(&filler->queue, struct item, link);
		item->push = pg_push_new(filler, &target, &item->key, item->family, item->has_sums);
		if (!item->push)
			break;
		cds_list_del(&item->link);
		pg_push_start(item->push);
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
	struct item *item = item_find(filler, key);

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
	filler->rest_ns = loop_now(filler->pg->set->loop) + REST_NS;
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
	if (item_find(filler, key))
		return;
	if (store_object(pg_store_of(filler->pg), filler->pg->id, key, &object) > 0)
		bytes = (uint64_t)object.data_blocks * BLOCK_SIZE;
	if (item_add(filler, key, family, bytes, true) < 0)
		pg_filler_broken(filler, -ENOMEM);
}

/* ---- seal and expand ---- */

static void propose_expand(struct pg_filler *filler, uint64_t now)
{
	struct pg *pg = filler->pg;
	const struct cluster_join join = {.store = filler->member->store,
					  .index = filler->join,
					  .incarnation = filler->incarnation};

	filler->expand_ns = now;
	/* A lost member whose tail nobody has must not come back to lead (T2): it goes with this. */
	if (filler->drop && !cluster_pg_may_swap(pg->set->map, &pg->row, filler->drop))
		return;
	pg_set_propose(pg->set, cluster_command_pg_expand(pg->id, pg->epoch, &join, filler->drop));
}

static void on_sealed(struct pg_ask *ask, int result)
{
	struct pg_filler *filler = filler_of(ask);
	const struct peer_seal_reply *reply = ask->call.reply_body;
	const struct pg_member *lost;

	if (!filler || filler->state != FILL_SEALING)
		return;
	if (result < 0) {
		pg_filler_broken(filler, result);
		return;
	}
	if (ask->epoch != filler->pg->epoch) {
		fill_enter(filler, FILL_FILLING, "the epoch changed");
		relax(filler);
		return;
	}
	lost = pg_lead_member(filler->lead, filler->drop);
	if (lost && !pg_member_is_lost(lost)) {
		fill_enter(filler, FILL_FILLING, "a member that was lost is back");
		relax(filler);
		return;
	}
	if (from_le64(reply->digest) != filler->digest ||
	    from_le64(reply->objects) != filler->objects || from_le64(reply->missing) != 0) {
		filler->pg->set->counters.digest_mismatches++;
		log_warning("pg %u: store %u: %llu objects, %llu missing, other digest than ours "
			    "(%llu objects): compared again",
			    filler->pg->id, filler->member->store,
			    (unsigned long long)from_le64(reply->objects),
			    (unsigned long long)from_le64(reply->missing),
			    (unsigned long long)filler->objects);
		begin_again(filler, DIFFER_NS, "digests differ");
		return;
	}
	fill_enter(filler, FILL_EXPANDING, "digests agree");
	filler->pg->set->counters.expands++;
	propose_expand(filler, loop_now(filler->pg->set->loop));
}

void pg_digest(struct pg *pg, uint64_t *digest, uint64_t *objects, uint64_t *missing)
{
	struct object_key cursor;
	const struct object_key *after = NULL;
	struct store_object object;

	*digest = *objects = *missing = 0;
	while (store_object_next(pg_store_of(pg), pg->id, after, &object) > 0) {
		cursor = object.key;
		after = &cursor;
		if (pg_is_garbage(pg->set, object.key.layer))
			continue;
		*missing += object.is_missing;
		*objects += 1;
		*digest += pg_digest_of(&object.key, object.version);
	}
}

static void seal(struct pg_filler *filler)
{
	struct pg_member *member = filler->member;
	struct pg_lead *lead = filler->lead;
	uint64_t n = lead->next_n - 1, after = member->after_n, missing;
	struct pg_ask *ask;

	/* In the order of the entries: not while some of them wait to be sent again. */
	if (member->is_broken || member->refused)
		return;
	if (pg_requests_send(member, after) < 0)
		return;
	ask = pg_ask_new(filler->pg, member->store, 0);
	if (!ask)
		return;
	const struct peer_seal body = {
		.epoch = to_le64(ask->epoch),
		.reign = to_le64(lead->reign),
		.n = to_le64(n),
		.after = to_le64(after),
		.join = to_le64(filler->join),
		.start = to_le64(filler->start),
		.map_index = to_le64(filler->pg->set->index),
		.pg = to_le32(filler->pg->id),
		.store = to_le32(member->store),
	};
	fill_enter(filler, FILL_SEALING, "nothing is missing");
	member->kind = PG_MEMBER_SEALED;
	member->after_n = n;
	pg_digest(filler->pg, &filler->digest, &filler->objects, &missing);
	ask->owner = tag(filler);
	pg_ask_send(ask, PEER_CLASS_PEER, PEER_OP_SEAL, &body, sizeof(body), on_sealed);
}

void pg_filler_epoch(struct pg_filler *filler)
{
	/* What was proposed names another epoch: it is decided. A seal is judged when it is back. */
	if (filler->state == FILL_EXPANDING) {
		fill_enter(filler, FILL_FILLING, "the epoch changed");
		relax(filler);
	}
	pg_set_active(filler->pg);
}

/*
 * Everything that waits for members who are down waits for this one. Pushes must not wait for it in
 * turn. What is pushed in doubt is in no tail of the member: harmless while nobody else is up who
 * could lead without it, and if somebody comes back, the seal waits for the commit.
 */
static void let_pushes_pass(struct pg_filler *filler)
{
	struct item *item, *next;

	HASH_ITER(hh, filler->items, item, next) {
		if (item->push && pg_push_barrier(item->push))
			return; /* it may be done, and the table another: the next tick goes on */
	}
}

/*
 * What is in doubt must be in all logs of those that could lead without this member (T2). Where that
 * cannot be, because they are lost, one of them goes with the expand, and it alone may be up.
 */
static bool may_seal(struct pg_filler *filler)
{
	const struct pg_lead *lead = filler->lead;
	const struct pg *pg = filler->pg;
	uint32_t lost = 0, up = 0;

	filler->drop = 0;
	if (pg_lead_is_everywhere(lead, filler->doubt_n))
		return true;
	if (!pg_lead_is_alone(lead))
		return false;
	for (uint32_t i = 0; i < lead->member_count; i++) {
		uint32_t store = lead->members[i]->store;
		if (lead->members[i]->kind != PG_MEMBER_ISR)
			continue;
		lost++;
		up += cluster_store_is_up(pg->set->map, store);
		if (cluster_pg_may_swap(pg->set->map, &pg->row, store))
			filler->drop = store;
	}
	return up == 0 || (lost == 1 && filler->drop);
}

/* ---- the tick ---- */

static void tick_filling(struct pg_filler *filler, uint64_t now)
{
	if (!filler->is_end) {
		if (!filler->is_asked && filler->row == filler->row_count && !filler->is_list_end &&
		    now >= filler->rest_ns)
			ask_list(filler);
		else if (!filler->is_asked)
			compare_some(filler);
	}
	pump(filler);
	if (!is_heal(filler) && filler->item_count > 0 &&
	    (pg_lead_is_alone(filler->lead) || !pg_lead_may_commit(filler->lead)))
		let_pushes_pass(filler);
	if (filler->state != FILL_FILLING || !filler->is_end || filler->item_count > 0)
		return;
	if (!is_heal(filler) && may_seal(filler))
		seal(filler);
	else if (is_heal(filler))
		begin_again(filler, HEAL_AGAIN_NS, "nothing is missing that we know of");
}

bool pg_filler_tick(struct pg_filler *filler, uint64_t now)
{
	switch (filler->state) {
	case FILL_RESTING:
		if (now >= filler->rest_ns && !filler->member->refused)
			begin(filler);
		break;
	case FILL_FILLING:
		if (!filler->member->refused)
			tick_filling(filler, now);
		break;
	case FILL_EXPANDING:
		if (now >= filler->expand_ns + PG_PROPOSE_NS)
			propose_expand(filler, now);
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
