/*
 * One object on its way to a joining store, or to a member that lost it (REPLICATION, J2, J3, J6).
 *
 *   lock the object --> sums of both copies --> the blocks that differ, in batches --> unlock
 *
 * While we hold the lock nothing of the object is in flight here, so what we read is committed, and
 * what clients write later finds the object complete there. Only where nothing can be committed
 * before this very member is in sync the lock passes entries that our store has: then what is in
 * doubt is pushed with the rest (S1). The first batch marks it missing there,
 * the last one gives it its version; what fits one batch needs no mark.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/rule.h"
#include "sheep/pg/entry_codec.h"
#include "sheep/pg/pg_priv.h"

#define PUSH_RUNS   64u	 /* of one batch */
#define PUSH_BLOCKS 256u /* with data, of one batch */

struct push_read {
	struct store_read read;
	struct pg_push *push;
};

struct pg_push {
	struct cds_list_head link; /* in the set */
	struct pg_set *set;
	struct pg *pg;
	struct pg_filler *filler; /* NULL: cancelled */
	uint32_t store;
	uint64_t join, start;
	struct object_key key;
	uint64_t family;
	struct version version, their_version;
	struct pg_lock lock;
	bool has_sums; /* theirs are worth asking for */
	bool is_whole; /* theirs is not missing */
	uint32_t pending;
	int result;
	uint32_t blocks; /* pushed */
	struct pg_heal_wait heal;
	struct store_sums ours;
	struct pg_sums theirs;
	struct pg_diff diff;
	uint32_t from;	/* block to go on from */
	uint32_t begin; /* of the batch */
	struct store_run runs[PUSH_RUNS];
	struct push_read reads[PUSH_RUNS];
	uint32_t run_count;
	uint32_t crcs[PUSH_BLOCKS];
};

/* ---- pacing ---- */

#define TOKENS_MAX_NS NS_PER_S /* what an idle second saves up */

static void earn(struct pg_set *set, uint64_t rate)
{
	uint64_t now = loop_now(set->loop);
	uint64_t ns = min_of(now - set->tokens_ns, TOKENS_MAX_NS);
	int64_t most = (int64_t)min_of(rate, (uint64_t)INT64_MAX / 2);

	set->tokens_ns = now;
	set->tokens += (int64_t)((double)rate * (double)ns / (double)NS_PER_S);
	set->tokens = min_of(set->tokens, most);
}

bool pg_recovery_may(struct pg_set *set)
{
	uint64_t rate = cluster_setting(set->map, CLUSTER_SETTING_RECOVERY_RATE);

	if (set->is_stopping || cluster_setting(set->map, CLUSTER_SETTING_RECOVERY_PAUSED) ||
	    set->pushes >= cluster_setting(set->map, CLUSTER_SETTING_RECOVERY_PARALLEL))
		return false;
	if (rate == 0)
		return true;
	earn(set, rate);
	return set->tokens > 0;
}

void pg_recovery_charge(struct pg_set *set, uint64_t bytes)
{
	set->counters.recovery_bytes += bytes;
	if (cluster_setting(set->map, CLUSTER_SETTING_RECOVERY_RATE))
		set->tokens -= (int64_t)bytes;
}

/* ---- the end ---- */

static void push_free(struct pg_push *push)
{
	for (uint32_t i = 0; i < PUSH_RUNS; i++)
		buffer_put(push->reads[i].read.data.buffer);
	free(push);
}

static void leave(struct pg_push *push)
{
	cds_list_del(&push->link);
	push->set->pushes--;
}

/*
 * The filler hears of it before the lock is given back: a write that waits for the lock must find that
 * the member wants it.
 */
static void push_end(struct pg_push *push, int result)
{
	assert(push->pending == 0);
	leave(push);
	if (push->filler)
		pg_filler_pushed(push->filler, &push->key, result, push->blocks);
	pg_lock_release(&push->set->locks, &push->lock);
	push_free(push);
}

bool pg_push_barrier(struct pg_push *push)
{
	return pg_lock_make_barrier(&push->set->locks, &push->lock);
}

void pg_push_cancel(struct pg_push *push)
{
	push->filler = NULL;
	if (push->heal.heal) { /* it must not go on without our lock */
		pg_heal_cancel(&push->heal);
		push->pending--;
	}
	leave(push);
	pg_lock_release(&push->set->locks, &push->lock);
	if (push->pending == 0)
		push_free(push);
}

/* One of what was out there is back. True: that was the last, and all is well. */
static bool is_back(struct pg_push *push, int result)
{
	push->pending--;
	if (result < 0 && push->result == 0)
		push->result = result;
	if (push->pending > 0)
		return false;
	if (!push->filler)
		push_free(push);
	else if (push->result < 0)
		push_end(push, push->result);
	else
		return true;
	return false;
}

/* ---- batches ---- */

static void next_batch(struct pg_push *push);

static void on_pushed(struct pg_ask *ask, int result)
{
	struct pg_push *push = ask->owner;

	if (!is_back(push, result))
		return;
	if (push->from < OBJECT_BLOCKS) {
		SIM_POINT(PUSH_HALF);
		next_batch(push);
	} else {
		SIM_POINT(PUSH_DONE);
		push_end(push, 0);
	}
}

static uint32_t batch_flags(const struct pg_push *push)
{
	uint32_t flags = 0;

	if (push->begin == 0)
		flags |= PEER_ENTRY_FIRST | (push->has_sums ? 0 : PEER_ENTRY_REPLACE);
	if (push->from == OBJECT_BLOCKS)
		flags |= PEER_ENTRY_LAST;
	return flags;
}

static uint32_t copy_blocks(struct pg_push *push, uint8_t *out)
{
	uint32_t at = 0;

	for (uint32_t i = 0; i < push->run_count; i++) {
		uint32_t bytes = push->runs[i].count * BLOCK_SIZE;
		struct store_read *read = &push->reads[i].read;
		if (push->runs[i].state != BLOCK_DATA)
			continue;
		if (read->is_all_hole)
			memset(out + at, 0, bytes);
		else
			memcpy(out + at, read->data.data, bytes);
		at += bytes;
		buffer_put(read->data.buffer);
		read->data.buffer = NULL;
	}
	return at;
}

static void send_batch(struct pg_push *push, uint32_t flags)
{
	uint32_t blocks = pg_runs_data_blocks(push->runs, push->run_count);
	uint32_t meta_size = pg_meta_size(push->run_count, blocks);
	bool is_inline = pg_meta_is_inline(push->run_count, blocks);
	struct pg_ask *ask = pg_ask_new(push->pg, push->store,
					blocks * BLOCK_SIZE + (is_inline ? 0 : meta_size));
	struct peer_push body = {
		.join = to_le64(push->join),
		.start = to_le64(push->start),
		.reign = to_le64(push->version.reign),
		.n = to_le64(push->version.n),
		.layer = to_le64(push->key.layer),
		.family = to_le64(push->family),
		.index = to_le32(push->key.index),
		.pg = to_le32(push->pg->id),
		.store = to_le32(push->store),
		.run_count = to_le16((uint16_t)push->run_count),
		.block_count = to_le16((uint16_t)blocks),
		.flags = to_le32(flags),
	};

	if (!ask) {
		push_end(push, -ENOMEM);
		return;
	}
	uint32_t used = copy_blocks(push, ask->payload.data);
	uint8_t *meta = is_inline ? body.meta : ask->payload.data + used;
	body.epoch = to_le64(ask->epoch);
	body.meta_crc =
		to_le32(pg_meta_encode(meta, push->runs, push->run_count, push->crcs, blocks));
	ask->owner = push;
	push->pending++;
	push->blocks += blocks;
	push->set->counters.blocks_pushed += blocks;
	pg_recovery_charge(push->set, (uint64_t)blocks * BLOCK_SIZE);
	pg_ask_send(ask, PEER_CLASS_BULK, PEER_OP_PUSH, &body, sizeof(body), on_pushed);
}

static void on_batch_read(struct store_read *read, int result)
{
	struct pg_push *push = container_of_type(read, struct push_read, read)->push;
	struct pg_set *set = push->set;

	if (is_back(push, result))
		send_batch(push, batch_flags(push));
	pg_set_release(set);
}

static void read_run(struct pg_push *push, uint32_t i, uint32_t *crcs)
{
	push->reads[i].push = push;
	push->reads[i].read = (struct store_read){
		.done = on_batch_read,
		.pg = push->pg->id,
		.family = push->family,
		.index = push->key.index,
		.layers = &push->key.layer,
		.layer_count = 1,
		.block = push->runs[i].block,
		.count = push->runs[i].count,
		.crcs = crcs,
	};
	pg_set_hold(push->set);
	store_read(pg_store_of(push->pg), &push->reads[i].read);
}

static void next_batch(struct pg_push *push)
{
	uint32_t data = 0;

	push->begin = push->from;
	push->from = pg_diff_batch(&push->diff, push->ours.states, push->from, OBJECT_BLOCKS,
				   push->runs, PUSH_RUNS, PUSH_BLOCKS, &push->run_count);
	push->pending = 1; /* so that it cannot end before all are on their way */
	for (uint32_t i = 0; i < push->run_count; i++) {
		if (push->runs[i].state != BLOCK_DATA)
			continue;
		push->pending++;
		read_run(push, i, push->crcs + data);
		data += push->runs[i].count;
	}
	if (is_back(push, 0))
		send_batch(push, batch_flags(push));
}

/* ---- sums ---- */

static void compare(struct pg_push *push)
{
	if (push->has_sums && push->is_whole &&
	    version_compare(push->their_version, push->version) == 0) {
		push_end(push, 0); /* it has come meanwhile, by an older start of this join */
		return;
	}
	pg_diff_make(&push->diff, push->ours.states, push->ours.crcs,
		     push->has_sums ? &push->theirs : NULL);
	push->from = 0;
	next_batch(push);
}

static void on_our_sums(struct store_sums *sums, int result)
{
	struct pg_push *push = container_of_type(sums, struct pg_push, ours);
	struct pg_set *set = push->set;

	/* Damage that was found while pages came: LOST in these sums is ours alone. The next try heals it first (J5). */
	if (result == 0 && sums->is_missing)
		result = -E_MISSING;
	if (is_back(push, result))
		compare(push);
	pg_set_release(set);
}

static void on_their_sums(struct pg_ask *ask, int result)
{
	struct pg_push *push = ask->owner;
	const struct peer_sums_reply *reply = ask->call.reply_body;
	const struct slice *payload = &ask->call.reply_slice;

	if (result == 0) {
		uint32_t flags = from_le32(reply->flags);
		result = pg_sums_decode(payload->data, payload->size, from_le32(reply->block_count),
					&push->theirs);
		push->their_version = (struct version){.reign = from_le64(reply->reign),
						       .n = from_le64(reply->n)};
		push->is_whole = !(flags & PEER_OBJECT_MISSING);
		/*
		 * A copy that is not to be trusted is no base: its sums may be of other bytes. But where only
		 * some blocks of this very version are damaged the others stay: they may be all there is.
		 */
		if (!(flags & PEER_OBJECT_EXISTS) ||
		    (!push->is_whole && (!(flags & PEER_OBJECT_MARKED) ||
					 version_compare(push->their_version, push->version) != 0)))
			push->has_sums = false;
		if (result == -EINVAL)
			result = -E_PROTOCOL;
	}
	if (is_back(push, result))
		compare(push);
}

static int ask_sums(struct pg_push *push)
{
	struct pg_ask *ask = pg_ask_new(push->pg, push->store, 0);

	if (!ask)
		return -ENOMEM;
	const struct peer_sums body = {
		.epoch = to_le64(ask->epoch),
		.layer = to_le64(push->key.layer),
		.family = to_le64(push->family),
		.index = to_le32(push->key.index),
		.pg = to_le32(push->pg->id),
		.store = to_le32(push->store),
	};
	ask->owner = push;
	push->pending++;
	pg_ask_send(ask, PEER_CLASS_BULK, PEER_OP_SUMS, &body, sizeof(body), on_their_sums);
	return 0;
}

/* ---- the beginning ---- */

static void push_go(struct pg_push *push);

static void on_push_healed(struct pg_heal_wait *wait, int result)
{
	struct pg_push *push = container_of_type(wait, struct pg_push, heal);

	if (is_back(push, result))
		push_go(push);
}

/* It is locked, and nothing of it is in flight. */
static void push_go(struct pg_push *push)
{
	struct store *store = pg_store_of(push->pg);
	struct store_object object;

	if (store_object(store, push->pg->id, &push->key, &object) <= 0 ||
	    (object.is_missing && !RULE(J5_MISSING_NOT_ABSENT))) {
		push->run_count = 0;
		push->from = OBJECT_BLOCKS;
		send_batch(push, PEER_ENTRY_FIRST | PEER_ENTRY_LAST | PEER_ENTRY_DELETE);
		return;
	}
	if (object.is_missing) { /* J5: ours first */
		push->pending++;
		push->heal.done = on_push_healed;
		pg_heal_object(push->pg->lead, &push->key, PG_HEAL_LOCKED, &push->heal);
		return;
	}
	push->family = object.family;
	push->version = object.version;
	push->ours.done = on_our_sums;
	push->ours.pg = push->pg->id;
	push->ours.key = push->key;
	push->pending++;
	pg_set_hold(push->set);
	store_sums(store, &push->ours);
	if (push->has_sums && ask_sums(push) < 0)
		push->has_sums = false;
}

static void on_push_granted(struct pg_lock *lock)
{
	struct pg_push *push = container_of_type(lock, struct pg_push, lock);

	if (push->filler && push->pg->lead)
		push_go(push);
}

struct pg_push *pg_push_new(struct pg_filler *filler, const struct pg_push_target *target,
			    const struct object_key *key, uint64_t family, bool has_sums)
{
	struct pg_push *push = calloc(1, sizeof(*push));

	if (!push)
		return NULL;
	push->set = target->pg->set;
	push->pg = target->pg;
	push->filler = filler;
	push->store = target->store;
	push->join = target->join;
	push->start = target->start;
	push->key = *key;
	push->family = family;
	push->has_sums = has_sums;
	push->lock.granted = on_push_granted;
	cds_list_add_tail(&push->link, &push->set->pushing);
	push->set->pushes++;
	return push;
}

void pg_push_start(struct pg_push *push)
{
	int rc = 1;

	if (RULE(J2_UNDER_LOCK))
		rc = pg_lock_take(&push->set->locks, &push->lock, &push->key, PG_LOCK_EXCLUSIVE, 0,
				  OBJECT_BLOCKS);

	if (rc < 0)
		push_end(push, rc);
	else if (rc > 0)
		push_go(push);
}
