/*
 * A node that lies: in the present epoch of a placement group that it does not lead it asks a member for what
 * only the primary may have. Nobody who keeps to the protocol can do that, so this is the one who does not.
 */
#include "tests/sim/faults_priv.h"

#include <stdlib.h>
#include <string.h>

#include "include/proto/peer.h"
#include "lib/base/assert.h"
#include "lib/base/size.h"

struct stray {
	struct loop_mail mail;
	struct net_call call;
	struct herd *herd;
	struct herd_node *node; /* that lies */
	uint64_t dice;
	uint32_t pg, store;
};

static void on_answered(struct net_call *call, int result)
{
	struct stray *stray = container_of_type(call, struct stray, call);

	if (result == 0)
		herd_fail(stray->herd, "pg %u: store %u obeys %s, which does not lead it",
			  stray->pg, stray->store, stray->node->name);
}

static void send(struct stray *stray, const struct cluster_pg *row)
{
	const struct peer_collect collect = {.epoch = to_le64(row->epoch),
					     .reign = to_le64(row->reign),
					     .pg = to_le32(row->id),
					     .store = to_le32(stray->store)};
	const struct peer_list list = {.epoch = to_le64(row->epoch),
				       .pg = to_le32(row->id),
				       .store = to_le32(stray->store),
				       .rows_max = to_le32(10)};
	bool is_list = stray->dice & 1;
	struct net_link *link = pg_peers_link(stray->node->peers, stray->store, row->id,
					      is_list ? PEER_CLASS_BULK : PEER_CLASS_PEER);

	if (!link)
		return;
	stray->pg = row->id;
	stray->call = (struct net_call){.op = is_list ? PEER_OP_LIST : PEER_OP_COLLECT,
					.body = is_list ? (const void *)&list : &collect,
					.body_size = is_list ? sizeof(list) : sizeof(collect),
					.done = on_answered};
	net_link_call(link, &stray->call);
}

/* On its loop, under its own map: who leads there is decided by the epoch, however old that is. */
static void deliver(struct loop *loop, struct loop_mail *mail)
{
	struct stray *stray = container_of_type(mail, struct stray, mail);
	struct herd_node *node = stray->node;
	const struct cluster_pg *row;
	uint64_t count = 0, pick = stray->dice >> 8;
	const struct cluster_pg *chosen = NULL;

	for (uint32_t from = 0; (row = cluster_pg_next(node->map, from)); from = row->id + 1)
		for (uint32_t i = 0; i < row->isr_count; i++) {
			uint32_t at = cluster_store_node(node->map, row->isr[i].store);
			if (!row->primary || at == node->id ||
			    cluster_pg_primary_node(node->map, row) == node->id ||
			    pick++ % ++count != 0)
				continue;
			chosen = row;
			stray->store = row->isr[i].store;
		}
	if (chosen)
		send(stray, chosen);
}

static bool begin_stray(struct program *program, struct fault *fault)
{
	struct herd_node *node = fault_node_of(program, fault);
	struct stray *stray;

	if (!node->is_up || !node->id)
		return false;
	stray = calloc(1, sizeof(*stray));
	assert(stray);
	herd_bury(stray); /* its node may die before the answer */
	stray->herd = program->herd;
	stray->node = node;
	stray->dice = program_below(program, UINT32_MAX);
	stray->mail.deliver = deliver;
	loop_post(node->loop, &stray->mail);
	return true;
}

const struct fault_way faults_of_liars[FAULT_COUNT] = {
	[FAULT_STRAY] = {begin_stray, NULL},
};
