/*
 * What a member that is filled has, compared with what we have: the cursor of filler.c.
 *
 * Its list comes in pieces, in the order of the keys; ours is walked beside it.
 */
#include <string.h>

#include "lib/base/rule.h"
#include "sheep/pg/filler_priv.h"

#define ITEMS_MAX 4096u /* the cursor waits when there are more */
#define STEPS_MAX 512u	/* objects compared in one go */

void pg_fill_drop_list(struct pg_filler *filler)
{
	buffer_put(filler->list.buffer);
	filler->list = (struct slice){.buffer = NULL};
	filler->row = filler->row_count = 0;
}

static void on_list(struct pg_ask *ask, int result)
{
	struct pg_filler *filler = pg_fill_of(ask);
	const struct peer_list_reply *reply = ask->call.reply_body;
	const struct slice *payload = &ask->call.reply_slice;

	if (!filler || filler->state != FILL_FILLING)
		return;
	if (result < 0) {
		filler->rest_ns = loop_now(filler->pg->set->loop) + PG_FILL_REST_NS;
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

void pg_fill_ask_list(struct pg_filler *filler)
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
	pg_fill_drop_list(filler);
	ask->owner = pg_fill_tag(filler);
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
	if (pg_fill_is_heal(filler)) /* it is in sync: only what it lost */
		return pair->has_theirs && pair->they_miss;
	if (!pair->has_ours)
		return RULE(J5_DELETE_ABSENT);
	return !pair->has_theirs || pair->they_miss || pair->ours.is_missing ||
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

void pg_fill_compare(struct pg_filler *filler)
{
	struct pair pair;

	for (uint32_t i = 0; i < STEPS_MAX && filler->item_count < ITEMS_MAX; i++) {
		if (!next_pair(filler, &pair))
			return;
		if (!row_is_good(filler, &pair)) {
			pg_member_refuse(filler->member, -E_PROTOCOL);
			return;
		}
		if (differs(filler, &pair) && !pg_fill_find(filler, &pair.key)) {
			uint64_t blocks = pair.has_ours ? pair.ours.data_blocks : 0;
			uint64_t family = pair.has_ours ? pair.ours.family : pair.their_family;
			if (pg_fill_add(filler, &pair.key, family, blocks * BLOCK_SIZE,
					pair.has_theirs) < 0)
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
