/*
 * Calls that are too rare for a pool: takeovers, joins, recovery. One that cannot be sent comes back
 * like one that was lost.
 */
#include <stdlib.h>

#include "sheep/pg/pg_priv.h"

struct pg_ask *pg_ask_new(struct pg *pg, uint32_t store, uint32_t payload_size)
{
	struct pg_ask *ask = calloc(1, sizeof(*ask));

	if (!ask)
		return NULL;
	if (payload_size > 0) {
		struct buffer *buffer = buffer_new(pg->set->arena.buffers, payload_size);
		if (!buffer) {
			free(ask);
			return NULL;
		}
		ask->payload = slice_of(buffer, 0, payload_size);
	}
	ask->pg = pg;
	ask->store = store;
	ask->reign = pg->row.reign;
	ask->epoch = pg->epoch;
	return ask;
}

static void answered(struct net_call *call, int result)
{
	struct pg_ask *ask = container_of_type(call, struct pg_ask, call);
	struct pg_set *set = ask->pg->set;

	if (ask->done)
		ask->done(ask, result);
	buffer_put(ask->payload.buffer);
	free(ask);
	pg_set_release(set);
}

/* There was no link: the loop brings it back. */
static void came_back(struct loop_op *op, int result)
{
	answered(&container_of_type(op, struct pg_ask, back)->call, -E_CLOSED);
}

void pg_ask_send(struct pg_ask *ask, unsigned class, uint16_t op, const void *body,
		 uint32_t body_size, void (*done)(struct pg_ask *ask, int result))
{
	struct pg_set *set = ask->pg->set;
	struct net_link *link = pg_peers_link(set->env.peers, ask->store, ask->pg->id, class);

	ask->done = done;
	ask->call = (struct net_call){
		.op = op,
		.body = body,
		.body_size = body_size,
		.slices = &ask->payload,
		.slice_count = ask->payload.size > 0,
		.done = answered,
	};
	pg_set_hold(set);
	if (link) {
		net_link_call(link, &ask->call);
		return;
	}
	ask->back.done = came_back;
	loop_complete(set->loop, &ask->back, 0);
}

struct pg_member *pg_ask_member(const struct pg_ask *ask)
{
	const struct pg_lead *lead = ask->pg->lead;

	return lead && lead->reign == ask->reign ? pg_lead_member(lead, ask->store) : NULL;
}
