/*
 * The end of a join: seal, digests, expand (REPLICATION, J4).
 *
 * The member is counted like one in sync before it is asked to seal. What it and we have is compared at
 * one number of the order. From the proposal of the expand on nothing is relaxed until it is decided.
 */
#include <stdlib.h>

#include "lib/base/rule.h"
#include "sheep/pg/filler_priv.h"

#define DIFFER_NS NS_PER_S /* after digests that differ */

void pg_fill_propose(struct pg_filler *filler, uint64_t now)
{
	struct pg *pg = filler->pg;
	const struct cluster_join join = {.store = filler->member->store,
					  .index = filler->join,
					  .incarnation = filler->incarnation};

	filler->expand_ns = now;
	pg_set_propose(pg->set, cluster_command_pg_expand(pg->id, pg->epoch, &join, 0));
	SIM_POINT(EXPAND_PROPOSED);
}

/* Without our table of requests it would execute some of them again, once it leads (Q1). */
static void on_requests_taken(struct pg_ask *ask, int result)
{
	struct pg_filler *filler = pg_fill_of(ask);

	if (!filler || filler->state != FILL_SEALING)
		return;
	if (result < 0)
		pg_filler_broken(filler, result);
	else
		filler->has_requests = true;
}

static bool is_alike(const struct pg_filler *filler, const struct peer_seal_reply *reply)
{
	return from_le64(reply->digest) == filler->digest &&
	       from_le64(reply->objects) == filler->objects && from_le64(reply->missing) == 0;
}

static void on_sealed(struct pg_ask *ask, int result)
{
	struct pg_filler *filler = pg_fill_of(ask);
	const struct peer_seal_reply *reply = ask->call.reply_body;

	if (!filler || filler->state != FILL_SEALING)
		return;
	if (result < 0) {
		pg_filler_broken(filler, result);
		return;
	}
	if (!filler->has_requests) { /* its answer comes first, or is lost with the link */
		pg_filler_broken(filler, -EAGAIN);
		return;
	}
	if (ask->epoch != filler->pg->epoch) {
		pg_fill_enter(filler, FILL_FILLING, "the epoch changed");
		pg_fill_relax(filler);
		return;
	}
	if (RULE(J4_DIGEST) && !is_alike(filler, reply)) {
		filler->pg->set->counters.digest_mismatches++;
		log_warning("pg %u: store %u: %llu objects, %llu missing, other digest than ours "
			    "(%llu objects): compared again",
			    filler->pg->id, filler->member->store,
			    (unsigned long long)from_le64(reply->objects),
			    (unsigned long long)from_le64(reply->missing),
			    (unsigned long long)filler->objects);
		pg_fill_again(filler, DIFFER_NS, "digests differ");
		return;
	}
	SIM_POINT(SEALED);
	pg_fill_enter(filler, FILL_EXPANDING, "digests agree");
	filler->pg->set->counters.expands++;
	pg_fill_propose(filler, loop_now(filler->pg->set->loop));
}

void pg_digest(struct pg *pg, uint64_t *digest, uint64_t *objects, uint64_t *missing)
{
	struct object_key cursor;
	const struct object_key *after = NULL;
	struct store_digest sum;
	struct store_object object;

	store_pg_digest(pg_store_of(pg), pg->id, &sum);
	/* The store has the sum of all; garbage, of which others may have other rests, goes out. */
	while (store_object_next(pg_store_of(pg), pg->id, after, &object) > 0) {
		cursor = object.key;
		after = &cursor;
		if (!pg_is_garbage(pg->set, object.key.layer)) {
			cursor.index = UINT32_MAX; /* on to the next layer */
			continue;
		}
		sum.missing -= object.is_missing;
		sum.objects -= 1;
		sum.digest -= store_digest_of(&object.key, object.version);
	}
	*digest = sum.digest;
	*objects = sum.objects;
	*missing = sum.missing;
}

/*
 * What the member was pushed may be in doubt: not in the logs of all those that could lead without it.
 * It is in no entry that the member got, so its tail does not name it; it gets our tail with the
 * seal, and then it is as good a witness as we are (T2).
 */
static struct pg_ask *make_seal(struct pg_filler *filler, uint32_t *row_count)
{
	struct pg *pg = filler->pg;
	struct store *store = pg_store_of(pg);
	struct store_tail_entry *tail;
	struct pg_ask *ask;

	*row_count = 0;
	if (!RULE(T2_TAIL_OF_JOINER) || pg_lead_is_everywhere(filler->lead, filler->doubt_n))
		return pg_ask_new(pg, filler->member->store, 0);
	*row_count = store_pg_tail(store, pg->id, NULL, 0);
	if (*row_count > PEER_TAIL_ROWS_MAX)
		return NULL;
	tail = calloc(max_of(*row_count, 1u), sizeof(*tail));
	ask = tail ? pg_ask_new(pg, filler->member->store,
				*row_count * (uint32_t)sizeof(struct peer_tail_row))
		   : NULL;
	if (ask) {
		(void)store_pg_tail(store, pg->id, tail, *row_count);
		pg_tail_encode((void *)ask->payload.data, tail, *row_count);
	}
	free(tail);
	return ask;
}

void pg_fill_seal(struct pg_filler *filler)
{
	struct pg_member *member = filler->member;
	struct pg_lead *lead = filler->lead;
	uint64_t n = lead->next_n - 1, after = member->after_n, missing;
	struct pg_ask *ask;
	uint32_t row_count;

	/* In the order of the entries: not while some of them wait to be sent again. */
	if (member->is_broken || member->refused)
		return;
	filler->has_requests = !RULE(Q1_TABLE_COPIED);
	if (!filler->has_requests &&
	    pg_requests_send(member, after, on_requests_taken, pg_fill_tag(filler)) < 0)
		return;
	ask = make_seal(filler, &row_count);
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
		.row_count = to_le32(row_count),
	};
	pg_fill_enter(filler, FILL_SEALING, "nothing is missing");
	if (RULE(J4_COUNT_FIRST))
		member->kind = PG_MEMBER_SEALED;
	member->after_n = n;
	SIM_POINT(SEAL_COUNTED);
	pg_digest(filler->pg, &filler->digest, &filler->objects, &missing);
	ask->owner = pg_fill_tag(filler);
	pg_ask_send(ask, PEER_CLASS_PEER, PEER_OP_SEAL, &body, sizeof(body), on_sealed);
}
