/*
 * Entries on their way to the members, and what comes back.
 *
 * A member's stream is one link, in order. What comes back without an answer (a reset, a map that
 * is behind, a damaged payload) goes again, in order, maybe after a pause, under the epoch of then.
 * What comes too early there waits for it; what the member has it acknowledges again.
 */
#include <string.h>

#include "lib/base/rule.h"
#include "sheep/pg/pg_priv.h"

#define RETRY_MIN_NS	(10 * NS_PER_MS)
#define RETRY_MAX_NS	(200 * NS_PER_MS)
#define FILLING_BACKLOG 256u

/* ---- to the members ---- */

static void on_append_reply(struct net_call *net_call, int result);

static void send_call(struct pg_member *member, struct pg_call *call)
{
	struct pg_entry *entry = call->entry;
	struct pg_set *set = entry->pg->set;
	const struct store_append *append = &entry->append;
	struct net_link *link =
		pg_peers_link(set->env.peers, member->store, entry->pg->id, PEER_CLASS_PEER);
	uint64_t told = pg_lead_told(member->lead);
	const struct pg_call *first = cds_list_first_entry(&member->calls, struct pg_call, link);
	struct peer_append body = {
		.epoch = to_le64(entry->pg->epoch),
		.reign = to_le64(append->version.reign),
		.n = to_le64(append->version.n),
		.after = to_le64(call->after),
		.commit_n = to_le64(told),
		.previous_reign = to_le64(append->previous.reign),
		.previous_n = to_le64(append->previous.n),
		.layer = to_le64(append->key.layer),
		.family = to_le64(append->family),
		.session = to_le64(append->session),
		.number = to_le64(append->number),
		.lowest = to_le64(append->lowest),
		.generation = to_le64(entry->generation),
		.acknowledged = to_le64(first->after),
		.pg = to_le32(entry->pg->id),
		.store = to_le32(member->store),
		.index = to_le32(append->key.index),
		.run_count = to_le16((uint16_t)entry->run_count),
		.block_count = to_le16((uint16_t)entry->block_count),
		.flags = to_le32(entry->flags),
		.meta_crc = to_le32(entry->meta_crc),
	};

	if (!link) { /* its node is gone for now: as if the link had been reset */
		member->is_broken = true;
		member->retry_ns = loop_now(set->loop) + RETRY_MAX_NS;
		return;
	}
	if (!entry->has_meta_slice)
		memcpy(body.meta, entry->meta, sizeof(body.meta));
	call->call = (struct net_call){
		.op = PEER_OP_APPEND,
		.body = &body,
		.body_size = sizeof(body),
		.slices = entry->slices,
		.slice_count = pg_entry_slices(entry),
		.done = on_append_reply,
	};
	call->is_out = true;
	member->out++;
	member->told_n = told;
	set->counters.appends_sent++;
	pg_set_hold(set);
	net_link_call(link, &call->call);
}

static bool wants(const struct pg_member *member, const struct object_key *key)
{
	switch (member->kind) {
	case PG_MEMBER_ISR:
		return true;
	case PG_MEMBER_FILLING:
	case PG_MEMBER_SEALED:
		return pg_filler_wants(member->filler, key);
	case PG_MEMBER_MARKED:
		break;
	}
	return false;
}

void pg_entry_send(struct pg_entry *entry)
{
	struct pg_lead *lead = entry->lead;

	for (uint32_t i = 0; i < lead->member_count; i++) {
		struct pg_member *member = lead->members[i];
		/* What a joining store does not take soon is pushed later: entries are few. */
		if (member->kind == PG_MEMBER_FILLING && member->is_broken &&
		    member->call_count > FILLING_BACKLOG)
			pg_filler_broken(member->filler, -EAGAIN);
		if (!wants(member, &entry->append.key))
			continue;
		struct pg_call *call = pool_get(entry->pg->set->calls);
		assert(call); /* pg_entry_new() saw to it */
		call->set = entry->pg->set;
		call->entry = entry;
		call->member = member;
		call->after = member->after_n;
		entry->refs++;
		/* Who is being filled syncs before it is in sync: FUA need not wait for it (F1). */
		call->is_needed = member->kind != PG_MEMBER_FILLING;
		entry->unacked += call->is_needed;
		member->after_n = entry->append.version.n;
		if (cds_list_empty(&member->calls))
			member->progress_ns = loop_now(call->set->loop);
		cds_list_add_tail(&call->link, &member->calls);
		member->call_count++;
		if (!member->is_broken)
			send_call(member, call);
	}
}

static void call_end(struct pg_call *call)
{
	struct pg_set *set = call->set;
	struct pg_entry *entry = call->entry;

	if (call->member) {
		cds_list_del(&call->link);
		call->member->call_count--;
		entry->unacked -= call->is_needed;
	}
	pool_put(set->calls, call);
	pg_entry_put(entry);
	if (!cds_list_empty(&set->starved) || set->stop_op)
		pg_set_kick(set);
}

void pg_member_forget(struct pg_member *member)
{
	struct pg_call *call, *next;

	cds_list_for_each_entry_safe(call, next, &member->calls, link) {
		if (call->is_out) {
			cds_list_del(&call->link);
			call->entry->unacked -= call->is_needed;
			call->member = NULL;
		} else {
			call_end(call);
		}
	}
	member->out = 0;
	member->call_count = 0;
	member->is_broken = false;
}

/* ---- their answers ---- */

/* What an answer without success means. */
enum answer {
	ANSWER_AGAIN,  /* send it again */
	ANSWER_REFUSE, /* the member cannot have it */
};

static enum answer answer_of(int result)
{
	static const int again[] = {
		-E_CLOSED,   -E_STALE_EPOCH, -E_FUTURE_EPOCH, -E_NOT_PRIMARY, -EAGAIN,
		-E_CHECKSUM, -ENOMEM,	     -ENOSPC,	      -E_NOT_FOUND,   -ETIMEDOUT,
		-E_SHUTDOWN, -E_STALE,	     -EBUSY,
	};

	for (size_t i = 0; i < ARRAY_COUNT(again); i++)
		if (result == again[i])
			return ANSWER_AGAIN;
	return ANSWER_REFUSE;
}

static uint64_t retry_pause(uint32_t retries)
{
	uint64_t pause = RETRY_MIN_NS << min_of(retries, 8u);

	return min_of(pause, RETRY_MAX_NS);
}

static void broke(struct pg_member *member)
{
	uint64_t now = loop_now(member->lead->pg->set->loop);

	if (!member->is_broken) {
		uint64_t pause = member->retries == 0 ? 0 : retry_pause(member->retries);
		member->is_broken = true;
		member->retries++;
		member->retry_ns = now + pause;
	}
}

/* Nobody may act as if such a member did not count: it must leave by the log. */
static bool must_leave(const struct pg_member *member)
{
	return member->kind == PG_MEMBER_ISR || pg_filler_is_undecided(member->filler);
}

/* It has the entry, or can do without it. */
static void acknowledged(struct pg_member *member, struct pg_call *call, bool is_missing)
{
	const struct object_key key = call->entry->append.key;
	uint64_t family = call->entry->append.family;
	struct pg_lead *lead = member->lead;

	member->has_n = max_of(member->has_n, call->entry->append.version.n);
	if (!member->is_broken)
		pg_pace_note(&member->pace, loop_now(lead->pg->set->loop), call->entry->sent_ns);
	call_end(call);
	if (is_missing)
		pg_filler_missing(member->filler, &key, family);
	if (member->is_broken)
		pg_member_resend(member, loop_now(lead->pg->set->loop));
	pg_lead_commit(lead);
}

static void not_acknowledged(struct pg_member *member, int result)
{
	if (answer_of(result) == ANSWER_REFUSE && !must_leave(member)) {
		pg_filler_broken(member->filler, result); /* forgets the call, too */
		return;
	}
	if (answer_of(result) == ANSWER_REFUSE)
		pg_member_refuse(member, result);
	broke(member);
	pg_member_resend(member, loop_now(member->lead->pg->set->loop));
}

static void on_append_reply(struct net_call *net_call, int result)
{
	struct pg_call *call = container_of_type(net_call, struct pg_call, call);
	struct pg_set *set = call->set;
	struct pg_member *member = call->member;
	const struct peer_append_reply *reply = net_call->reply_body;
	bool is_missing = result == 0 && from_le32(reply->flags) & PEER_APPEND_MISSING;

	call->is_out = false;
	if (!member) {
		call_end(call);
		pg_set_release(set);
		return;
	}
	member->out--;
	if (result == 0) {
		if (member->refused == -ETIMEDOUT && !is_missing)
			member->refused = 0; /* it is back before the log has decided */
		member->credit = from_le64(reply->credit);
		member->retries = 0;
		member->progress_ns = loop_now(set->loop);
	}
	if (is_missing && must_leave(member))
		not_acknowledged(member, -E_MISSING);
	else if (result == 0)
		acknowledged(member, call, is_missing);
	else
		not_acknowledged(member, result);
	pg_set_release(set);
}

/* What is out there may wait for what came back: so nobody waits for it. */
void pg_member_resend(struct pg_member *member, uint64_t now)
{
	struct pg_set *set = member->lead->pg->set;
	struct pg_call *call, *next;

	pg_set_active(member->lead->pg);
	if (!RULE(W1_RESEND) || now < member->retry_ns ||
	    (member->refused && !pg_member_is_late(member)))
		return;
	member->is_broken = false;
	cds_list_for_each_entry_safe(call, next, &member->calls, link) {
		if (call->is_out)
			continue;
		set->counters.appends_resent++;
		send_call(member, call);
		if (member->is_broken)
			break; /* there is no link */
	}
}

/* ---- commit points by themselves ---- */

void pg_commit_tell(struct pg_member *member, uint64_t commit_n)
{
	struct pg *pg = member->lead->pg;

	member->told_n = commit_n;
	const struct peer_commit body = {.row_count = to_le32(1)};
	struct pg_ask *ask = pg_ask_new(pg, member->store, sizeof(struct peer_commit_row));
	struct peer_commit_row *row;

	if (!ask)
		return;
	row = (void *)ask->payload.data;
	*row = (struct peer_commit_row){
		.epoch = to_le64(pg->epoch),
		.reign = to_le64(member->lead->reign),
		.commit_n = to_le64(commit_n),
		.pg = to_le32(pg->id),
		.store = to_le32(member->store),
	};
	pg_ask_send(ask, PEER_CLASS_PEER, PEER_OP_COMMIT, &body, sizeof(body), NULL);
}
