/*
 * What peers send, before it is looked into: whose is it, and under which map?
 *
 * A message of an older epoch than the seat's is refused for good. One that names an index beyond our
 * map waits for it; the map then tells whether it spoke the truth. What waits keeps its order.
 */
#include <stdlib.h>

#include "lib/base/cover.h"
#include "lib/base/rule.h"
#include "sheep/pg/pg_priv.h"

void pg_park_future(struct pg_set *set, struct net_request *request)
{
	struct pg_parked *parked;

	if (set->future_count >= set->future_max) {
		COVER("gate: too many wait for the map");
		net_reply_status(request, -E_FUTURE_EPOCH);
		return;
	}
	parked = calloc(1, sizeof(*parked));
	if (!parked) {
		net_reply_status(request, -ENOMEM);
		return;
	}
	parked->request = request;
	COVER("gate: waits for the map");
	cds_list_add_tail(&parked->link, &set->future);
	set->future_count++;
}

void pg_future_run(struct pg_set *set)
{
	CDS_LIST_HEAD(requests);
	CDS_LIST_HEAD(ios);
	CDS_LIST_HEAD(syncs);

	cds_list_splice(&set->future, &requests);
	CDS_INIT_LIST_HEAD(&set->future);
	set->future_count = 0;
	cds_list_splice(&set->future_ios, &ios);
	CDS_INIT_LIST_HEAD(&set->future_ios);
	cds_list_splice(&set->future_syncs, &syncs);
	CDS_INIT_LIST_HEAD(&set->future_syncs);
	while (!cds_list_empty(&requests)) {
		struct pg_parked *parked = cds_list_first_entry(&requests, struct pg_parked, link);
		struct net_request *request = parked->request;
		cds_list_del(&parked->link);
		free(parked);
		request->row->handle(request);
	}
	while (!cds_list_empty(&ios)) {
		struct pg_io *io = cds_list_first_entry(&ios, struct pg_io, link);
		cds_list_del(&io->link);
		pg_io_begin(set, io);
	}
	while (!cds_list_empty(&syncs)) {
		struct pg_sync *sync = cds_list_first_entry(&syncs, struct pg_sync, link);
		cds_list_del(&sync->link);
		pg_sync_begin(set, sync);
	}
}

/*
 * Our log may be cut off: then this map never comes, and another store leads by now. Gateways learn of
 * that, and ask whom their map names then. The list is in the order in which they came.
 */
void pg_future_tick(struct pg_set *set, uint64_t now)
{
	while (!cds_list_empty(&set->future_ios)) {
		struct pg_io *io = cds_list_first_entry(&set->future_ios, struct pg_io, link);
		if (now < io->parked_ns + PG_PATIENCE_NS)
			return;
		cds_list_del(&io->link);
		pg_io_finish(set, io, -E_NOT_PRIMARY);
	}
}

/* Is it the node of the present primary who speaks? */
static bool is_primary(const struct pg *pg, const struct net_request *request)
{
	const struct wire_agreement *agreement = net_session_agreement(request->session);
	uint32_t node = cluster_pg_primary_node(pg->set->map, &pg->row);
	const struct cluster_node *row = node ? cluster_node(pg->set->map, node) : NULL;

	return row && uuid_is_equal(&row->uuid, &agreement->peer.node);
}

static int judge(const struct pg *pg, const struct net_request *request, uint64_t epoch)
{
	if (!pg || !pg->store->is_known)
		return COVERED("gate: no such seat", -E_NOT_FOUND);
	if (pg->state == PG_FAILED)
		return COVERED("gate: failed store", -E_STORE_FAILED);
	if (RULE(W1_OLD_EPOCH) && epoch < pg->epoch)
		return COVERED("gate: older epoch", -E_STALE_EPOCH);
	if (epoch > pg->epoch) /* our map has that index, and no such epoch */
		return -E_PROTOCOL;
	if (!is_primary(pg, request) || pg->role == PG_ROLE_PRIMARY)
		return COVERED("gate: not from the primary", -E_NOT_PRIMARY);
	return 0;
}

/* NULL: it was answered, or waits for a newer map. */
static struct pg *gate(struct net_request *request, uint64_t epoch, uint32_t id, uint32_t store,
		       uint64_t index, bool is_open)
{
	struct pg_set *set = net_request_context(request);
	struct pg *pg;
	int rc;

	if (set->is_stopping) {
		net_reply_status(request, -E_SHUTDOWN);
		return NULL;
	}
	if (RULE(W1_LATER_EPOCH) && max_of(epoch, index) > set->index) {
		pg_park_future(set, request);
		return NULL;
	}
	pg = pg_find(set, id, store);
	rc = judge(pg, request, epoch);
	if (rc == 0 && pg->role == PG_ROLE_NONE && !is_open)
		rc = -E_NOT_FOUND;
	if (rc == 0)
		return pg;
	net_reply_status(request, rc);
	return NULL;
}

struct pg *pg_gate(struct net_request *request, uint64_t epoch, uint32_t id, uint32_t store,
		   uint64_t index)
{
	return gate(request, epoch, id, store, index, false);
}

struct pg *pg_gate_read(struct net_request *request, uint64_t epoch, uint32_t id, uint32_t store)
{
	return gate(request, epoch, id, store, 0, true);
}

void pg_on_confirm(struct net_request *request)
{
	const struct peer_confirm *body = request->body;
	struct pg_set *set = net_request_context(request);
	const struct peer_ack reply = {.epoch = body->epoch};

	/* An earlier start may be running still: of that we know nothing. */
	if (from_le64(body->incarnation) != pg_peers_incarnation(set->env.peers))
		net_reply_status(request, COVERED("confirm: of an earlier start", -E_STALE));
	else if (set->is_stopping)
		net_reply(request, 0, &reply, sizeof(reply), NULL, 0); /* we serve nobody */
	else if (from_le64(body->epoch) > set->index)
		pg_park_future(set, request);
	else
		net_reply(request, 0, &reply, sizeof(reply), NULL, 0);
}
