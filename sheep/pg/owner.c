/*
 * Who may write to a volume, as its primaries see it (REPLICATION, O1).
 *
 * A write names the generation of the volume under which its connection was opened. One of an older
 * generation is refused for good, whether it comes now or has waited here and has no number yet. So
 * when a move of ownership has been applied here, only writes that have their number can still
 * land, and a new owner asks all primaries to tell when those are over (PEER_OP_DRAIN).
 *
 * Entries of a lead that does not serve are not waited for: nobody can read what they change before it
 * serves again, and then they are decided. So to everybody they were written before the move.
 */
#include <stdlib.h>

#include "lib/base/rule.h"
#include "sheep/pg/pg_priv.h"

int pg_judge_owner(const struct pg_set *set, const struct pg_io *io)
{
	const struct cluster_volume *volume = cluster_volume(set->map, io->volume);

	/* What a deleted volume has is judged by write.c. */
	if (io->kind == PG_IO_READ || !volume)
		return 0;
	if (io->generation >
	    volume->generation) /* our map has that index, and no such generation */
		return -EINVAL;
	if (!RULE(O1_GENERATION))
		return 0;
	if (io->generation < volume->generation)
		return -E_STALE_GENERATION;
	if (volume->access == CLUSTER_ACCESS_SINGLE &&
	    volume->owner != peer_session_node(io->session))
		return -E_STALE_GENERATION;
	return 0;
}

/* ---- older writes ---- */

/* Its client may have been answered: what counts is that it has its number, and no end. */
static bool is_older(const struct pg_work *work, const struct pg_drain *drain)
{
	return work->has_entry && work->volume == drain->volume &&
	       work->generation < drain->generation;
}

static bool is_drained(struct pg_set *set, const struct pg_drain *drain)
{
	struct pg_lead *lead, *next;
	const struct pg_work *work;

	if (max_of(drain->map_index, drain->generation) > set->index)
		return false;
	HASH_ITER(hh, set->leads, lead, next) {
		if (lead->pg->state != PG_SERVING && lead->pg->state != PG_LEAVING)
			continue;
		cds_list_for_each_entry(work, &lead->works, link)
			if (is_older(work, drain))
				return false;
	}
	return true;
}

void pg_drains_run(struct pg_set *set)
{
	struct pg_drain *drain, *next;

	cds_list_for_each_entry_safe(drain, next, &set->drains, link) {
		int result = set->is_stopping ? -E_SHUTDOWN : 0;
		if (result == 0 && !is_drained(set, drain))
			continue;
		cds_list_del(&drain->link);
		drain->done(drain, result);
	}
}

void pg_drain_submit(struct pg_set *set, struct pg_drain *drain)
{
	/* Looked at from the kick, which follows every map and every operation that ends. */
	cds_list_add_tail(&drain->link, &set->drains);
	pg_set_kick(set);
}

/* ---- gateways of other nodes ---- */

struct remote_drain {
	struct pg_drain drain;
	struct net_request *request;
};

static void on_drained(struct pg_drain *drain, int result)
{
	struct remote_drain *remote = container_of_type(drain, struct remote_drain, drain);

	net_reply_status(remote->request, result);
	free(remote);
}

void pg_on_drain(struct net_request *request)
{
	const struct peer_drain *body = request->body;
	struct pg_set *set = net_request_context(request);
	struct remote_drain *remote = calloc(1, sizeof(*remote));

	if (!remote) {
		net_reply_status(request, -ENOMEM);
		return;
	}
	remote->request = request;
	remote->drain = (struct pg_drain){
		.done = on_drained,
		.volume = from_le64(body->volume),
		.generation = from_le64(body->generation),
		.map_index = from_le64(body->map_index),
	};
	pg_drain_submit(set, &remote->drain);
}
