/*
 * The view: who CPG says is here, and what they said of themselves. A hint for everything: nothing
 * is committed, promised or ended because of a view.
 *
 * A member that is in two views in a row keeps what is known of it; all say their state anew, so that a
 * leader learns who came and who is behind.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/hash.h"
#include "lib/base/log.h"
#include "sheep/engine/agree_priv.h"

static bool ids_are_equal(struct agree_id a, struct agree_id b)
{
	return a.node == b.node && a.pid == b.pid;
}

struct agree_peer *agree_peer_by_id(struct agree *agree, struct agree_id id)
{
	struct agree_peer *peer;

	cds_list_for_each_entry(peer, &agree->peers, link)
		if (ids_are_equal(peer->id, id))
			return peer;
	return NULL;
}

struct agree_peer *agree_peer_by_node(struct agree *agree, const struct uuid *node)
{
	struct agree_peer *peer;

	cds_list_for_each_entry(peer, &agree->peers, link)
		if (peer->is_known && !peer->said_bye && uuid_is_equal(&peer->node, node) &&
		    !agree_peer_is_double(agree, peer))
			return peer;
	return NULL;
}

/* The start that the log knows comes first, then who was here before. */
bool agree_peer_is_double(const struct agree *agree, const struct agree_peer *peer)
{
	const struct agree_node *row = agree_node_find(&agree->nodes, &peer->node);
	const struct agree_peer *other;

	cds_list_for_each_entry(other, &agree->peers, link) {
		if (other == peer || !other->is_known || other->said_bye ||
		    !uuid_is_equal(&other->node, &peer->node))
			continue;
		if (row && row->start == peer->start)
			continue;
		if ((row && row->start == other->start) || other->number < peer->number)
			return true;
	}
	return false;
}

static void peer_free(struct agree *agree, struct agree_peer *peer)
{
	if (agree->head == peer)
		agree->head = NULL;
	if (agree->me == peer)
		agree->me = NULL;
	cds_list_del(&peer->link);
	free(peer->info);
	free(peer);
}

void agree_peers_done(struct agree *agree)
{
	struct agree_peer *peer, *next;

	cds_list_for_each_entry_safe(peer, next, &agree->peers, link)
		peer_free(agree, peer);
}

/* ---- what the user is told ---- */

static int compare_members(const void *a, const void *b)
{
	const struct engine_member *left = a, *right = b;

	return memcmp(left->node.bytes, right->node.bytes, sizeof(left->node.bytes));
}

static bool is_member(struct agree *agree, const struct agree_peer *peer)
{
	return peer != agree->me && peer->is_known && !peer->said_bye &&
	       !uuid_is_equal(&peer->node, &agree->self.node) &&
	       (uuid_is_null(&peer->log) || uuid_is_equal(&peer->log, &agree->log_uuid)) &&
	       !agree_peer_is_double(agree, peer);
}

void agree_tell_members(struct agree *agree)
{
	struct engine_member *all;
	struct agree_peer *peer;
	uint32_t count = 1, room = 1;
	uint64_t digest = 1;

	if (!agree->is_ready || !agree_is_open(agree))
		return;
	cds_list_for_each_entry(peer, &agree->peers, link)
		room++;
	all = calloc(room, sizeof(*all));
	if (!all)
		return; /* the next change tells */
	all[0] = agree->self;
	cds_list_for_each_entry(peer, &agree->peers, link) {
		if (!is_member(agree, peer))
			continue;
		all[count++] = (struct engine_member){peer->node, peer->start, peer->info,
						      peer->info_size};
		digest += hash_u64_pair(peer->start, hash_bytes(peer->node.bytes, 16));
	}
	if (digest != agree->told_members) {
		agree->told_members = digest;
		agree->stats.members = count;
		qsort(all, count, sizeof(*all), compare_members);
		agree->ops.members(agree->context, all, count);
	}
	free(all);
}

static uint32_t count_voters(struct agree *agree, const struct agree_voters *voters,
			     agree_counts *counts, uint32_t *here)
{
	const struct agree_peer *peer;
	uint32_t count = 0;

	*here = 0;
	cds_list_for_each_entry(peer, &agree->peers, link) {
		if (!peer->is_known || peer->said_bye ||
		    !agree_voters_have(voters, &peer->node, peer->log_id) ||
		    (RULE(G2_DOUBLE) && agree_peer_is_double(agree, peer)))
			continue;
		++*here;
		if (counts(agree, peer) && !agree_is_regressed(agree, peer->log_id))
			count++;
	}
	return count;
}

bool agree_has_majority(struct agree *agree, const struct agree_voters *voters,
			agree_counts *counts)
{
	uint32_t here, count = count_voters(agree, voters, counts, &here);

	return count > (RULE(G1_MAJORITY) ? voters->count : here) / 2;
}

bool agree_has_all(struct agree *agree, const struct agree_voters *voters, agree_counts *counts)
{
	uint32_t here;

	return count_voters(agree, voters, counts, &here) == voters->count;
}

static bool is_here(const struct agree *agree, const struct agree_peer *peer)
{
	(void)agree;
	(void)peer;
	return true;
}

bool agree_view_has_majority(struct agree *agree)
{
	struct agree_voters voters;

	agree_voters_at(agree, agree_last(agree).index, &voters);
	return voters.count && agree_has_majority(agree, &voters, is_here);
}

void agree_tell_quorum(struct agree *agree)
{
	bool has = agree->votequorum && agree->role != AGREE_OUT && agree_view_has_majority(agree);

	agree->told_quorum = has;
	if (agree->is_ready && agree_is_open(agree))
		agree->ops.quorum(agree->context, has);
}

/* ---- changes ---- */

static bool view_has(const struct agree_view *view, struct agree_id id)
{
	for (uint32_t i = 0; i < view->count; i++)
		if (ids_are_equal(view->members[i], id))
			return true;
	return false;
}

static void remove_leavers(struct agree *agree, const struct agree_view *view)
{
	struct agree_peer *peer, *next;

	for (uint32_t i = 0; i < view->leaver_count; i++) {
		peer = agree_peer_by_id(agree, view->leavers[i].id);
		if (peer && view->leavers[i].why == AGREE_GONE_PROCESS && !peer->said_bye)
			agree_peer_lost(agree, peer);
		if (peer &&
		    peer != agree->me) /* it may be another one's of the same name that is here now */
			peer_free(agree, peer);
	}
	cds_list_for_each_entry_safe(peer, next, &agree->peers, link)
		if (!view_has(view, peer->id))
			peer_free(agree, peer);
}

static bool add_comers(struct agree *agree, const struct agree_view *view)
{
	for (uint32_t i = 0; i < view->count; i++) {
		struct agree_peer *peer = agree_peer_by_id(agree, view->members[i]);

		if (peer)
			continue;
		peer = calloc(1, sizeof(*peer));
		if (!peer)
			return false;
		peer->id = view->members[i];
		peer->number = ++agree->peer_number;
		cds_list_add_tail(&peer->link, &agree->peers);
	}
	agree->self_id = view->self;
	agree->me = agree_peer_by_id(agree, view->self);
	return true;
}

static uint64_t digest_of(const struct agree_view *view)
{
	uint64_t digest = view->count;

	/* A sum: CPG's order of the members is its own affair. */
	for (uint32_t i = 0; i < view->count; i++)
		digest += hash_u64_pair(view->members[i].node, view->members[i].pid);
	return digest;
}

static void go_out(struct agree *agree, const char *why)
{
	agree_peers_done(agree);
	agree->view_digest = 0;
	if (agree->role != AGREE_OUT)
		agree_enter(agree, AGREE_OUT, why);
	agree_tell_quorum(agree);
	agree_tell_members(agree);
}

static void go_on(struct agree *agree)
{
	switch (agree->role) {
	case AGREE_LEAD:
		if (agree_view_has_majority(agree)) {
			agree->want_beat = true;
			return;
		}
		break;
	case AGREE_FOLLOW:
		if (agree->head) {
			agree->heard_ns = agree_now(agree);
			agree->want_ack = true; /* for those who came */
			return;
		}
		break;
	default:
		break;
	}
	agree_seek(agree, "a new view");
}

void agree_take_view(struct agree *agree, const struct agree_view *view)
{
	struct agree_peer *peer;

	if (!view || !view_has(view, view->self)) {
		go_out(agree, "the connection to corosync is lost");
		return;
	}
	remove_leavers(agree, view);
	if (!add_comers(agree, view)) {
		agree_fail_text(agree, -ENOMEM, "a view of %u members", view->count);
		return;
	}
	agree->view_digest = digest_of(view);
	agree->granted_until_ns = 0;
	cds_list_for_each_entry(peer, &agree->peers, link) {
		peer->is_heard = false;
		peer->is_skipped = false;
	}
	log_info("corosync: a view of %u members", view->count);
	agree->rounds = 0;
	agree->born_ns = agree_now(agree) + AGREE_FIRST_NS;
	agree->want_state = true;
	for (uint32_t i = 0; i < agree->end_count; i++)
		agree->ends[i].is_said = false;
	go_on(agree);
	agree_judge_suspects(agree);
	agree_tell_quorum(agree);
	agree_tell_members(agree);
}
