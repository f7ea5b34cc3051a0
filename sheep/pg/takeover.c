/*
 * A new primary asks for tails (REPLICATION, T1).
 *
 * Every unmarked member that is still listed tells its tail, in the present epoch, and obeys no
 * older one from then on. What the tails name is settled (settle.c). A member that does not answer
 * in time must leave.
 */
#include "lib/base/rule.h"
#include "sheep/pg/pg_priv.h"

int pg_tail_check(const struct pg *pg, const struct peer_tail_row *rows, uint32_t size,
		  uint32_t count)
{
	if (count > PEER_TAIL_ROWS_MAX || size != count * sizeof(*rows))
		return -EINVAL;
	for (uint32_t i = 0; i < count; i++)
		if (!pg_holds_object(pg->set, pg->id, from_le64(rows[i].family),
				     from_le32(rows[i].index)))
			return -EINVAL;
	return 0;
}

static void on_tail(struct pg_ask *ask, int result)
{
	struct pg_member *member = pg_ask_member(ask);
	const struct peer_collect_reply *reply = ask->call.reply_body;
	const struct slice *payload = &ask->call.reply_slice;
	struct pg *pg = ask->pg;
	int rc;

	if (!member || pg->epoch != ask->epoch || pg->state != PG_COLLECTING)
		return;
	member->is_asked = false;
	if (result < 0) {
		if (result == -E_STORE_FAILED)
			pg_member_refuse(member, result);
		return; /* the tick asks again */
	}
	rc = pg_tail_check(pg, (const void *)payload->data, payload->size,
			   from_le32(reply->row_count));
	if (rc == 0)
		rc = pg_plan_add_rows(&member->lead->plan, (const void *)payload->data,
				      from_le32(reply->row_count));
	if (rc == -EINVAL)
		pg_member_refuse(member, -E_PROTOCOL);
	if (rc < 0)
		return;
	member->credit = from_le64(reply->credit);
	member->has_answered = true;
	if (pg_member_is_late(member))
		member->refused = 0; /* at the floor nothing else may ever take that back */
	pg_advance(pg);
}

static void ask_tail(struct pg_member *member, uint64_t now)
{
	struct pg *pg = member->lead->pg;
	struct pg_ask *ask = pg_ask_new(pg, member->store, 0);
	const struct peer_collect body = {
		.epoch = to_le64(pg->epoch),
		.reign = to_le64(member->lead->reign),
		.pg = to_le32(pg->id),
		.store = to_le32(member->store),
	};

	if (!ask)
		return;
	member->is_asked = true;
	member->ask_ns = now;
	pg_ask_send(ask, PEER_CLASS_PEER, PEER_OP_COLLECT, &body, sizeof(body), on_tail);
}

void pg_collect_start(struct pg_lead *lead)
{
	uint64_t now = loop_now(lead->pg->set->loop);

	lead->collect_ns = now;
	for (uint32_t i = 0; i < lead->member_count; i++) {
		struct pg_member *member = lead->members[i];
		member->has_answered = false;
		member->is_asked = false; /* an answer of an older epoch does not count */
		if (pg_member_must_answer(member))
			ask_tail(member, now);
	}
}

void pg_collect_tick(struct pg_lead *lead, uint64_t now)
{
	uint64_t deadline =
		lead->collect_ns + pg_set_time(lead->pg->set, CLUSTER_SETTING_SETTLE_DEADLINE);

	for (uint32_t i = 0; i < lead->member_count; i++) {
		struct pg_member *member = lead->members[i];
		if (!pg_member_must_answer(member) || member->has_answered)
			continue;
		if (!member->is_asked && now >= member->ask_ns + PG_ASK_AGAIN_NS)
			ask_tail(member, now);
		if (now >= deadline)
			pg_member_refuse(member, -ETIMEDOUT);
	}
}

bool pg_collect_is_done(const struct pg_lead *lead)
{
	for (uint32_t i = 0; i < lead->member_count; i++)
		if (RULE(T1_ALL_TAILS) && pg_member_must_answer(lead->members[i]) &&
		    !lead->members[i]->has_answered)
			return false;
	return !lead->needs_members;
}
