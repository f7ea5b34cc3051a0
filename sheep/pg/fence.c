/*
 * A new primary and the old one (REPLICATION, L3): unless it was a takeover of one that is certainly
 * dead, nobody is served before the old primary's node has confirmed that it applied the change,
 * or enough time has passed since we, in sync, applied it: whoever leads later has waited already.
 */
#include "sheep/pg/pg_priv.h"

static void on_confirmed(struct pg_ask *ask, int result)
{
	struct pg_lead *lead = ask->pg->lead;

	if (!lead || lead->reign != ask->reign)
		return;
	lead->is_fence_asked = false; /* if it was in vain, the tick asks again */
	if (result == 0 && lead->fence_index <= ask->epoch) {
		lead->is_fence_confirmed = true;
		pg_advance(ask->pg);
	}
}

void pg_fence_ask(struct pg_lead *lead)
{
	struct pg *pg = lead->pg;
	struct pg_ask *ask;

	lead->fence_ask_ns = loop_now(pg->set->loop);
	if (!pg->row.fence_store) /* several may be serving: only time tells */
		return;
	ask = pg_ask_new(pg, pg->row.fence_store, 0);
	if (!ask)
		return;
	const struct peer_confirm body = {
		.epoch = to_le64(pg->epoch),
		.incarnation = to_le64(pg->row.fence_incarnation),
		.pg = to_le32(pg->id),
		.store = to_le32(pg->row.fence_store),
	};
	lead->is_fence_asked = true;
	pg_ask_send(ask, PEER_CLASS_PEER, PEER_OP_CONFIRM, &body, sizeof(body), on_confirmed);
}

void pg_fence_tick(struct pg_lead *lead, uint64_t now)
{
	if (now < lead->fence_ns && !lead->is_fence_confirmed && !lead->is_fence_asked &&
	    now >= lead->fence_ask_ns + PG_ASK_AGAIN_NS)
		pg_fence_ask(lead);
}
