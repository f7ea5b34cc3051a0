/*
 * SEEK and ASK: a leader is looked for, and made.
 *
 * In each view everybody says its state. When all of the view's states are here (or the round is over and a
 * majority of the voters spoke), all know who among the voters has the best log: by (term, index)
 * of its last entry, then the lowest node. It asks for a term above all that were heard of. A voter promises a term once, only
 * to who has at least as much of the log, and has the promise on disk before it says so. Who has
 * the promises of a majority of the registered voters leads. States choose who asks, no more: a wrong
 * one costs time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"
#include "sheep/engine/agree_priv.h"

/* ---- SEEK ---- */

/* A round of states or votes; these have to be synced first, and disks may be slow. */
uint64_t agree_patience(const struct agree *agree)
{
	return AGREE_ROUND_NS << min_of(agree->rounds, 4u);
}

static void begin_round(struct agree *agree, const char *why)
{
	agree->head = NULL;
	agree->want_state = true;
	agree->want_ask = false;
	agree->want_need = false;
	agree->round_ns = agree_now(agree) + agree_patience(agree);
	agree->rounds++;
	agree_enter(agree, AGREE_SEEK, why);
}

void agree_seek(struct agree *agree, const char *why)
{
	struct agree_peer *peer;

	cds_list_for_each_entry(peer, &agree->peers, link)
		peer->is_heard = false; /* what they said is too old */
	begin_round(agree, why);
}

static bool has_spoken(const struct agree *agree, const struct agree_peer *peer)
{
	(void)agree;
	return peer->is_heard;
}

static bool is_better(const struct agree_peer *a, const struct agree_peer *b)
{
	if (point_is_before(a->last, b->last) || point_is_before(b->last, a->last))
		return point_is_before(b->last, a->last);
	return memcmp(a->node.bytes, b->node.bytes, sizeof(a->node.bytes)) < 0;
}

static struct agree_peer *best_voter(struct agree *agree, const struct agree_voters *voters)
{
	struct agree_peer *peer, *best = NULL;

	cds_list_for_each_entry(peer, &agree->peers, link) {
		if (!peer->is_heard || peer->is_skipped || peer->said_bye || !peer->log_id ||
		    !agree_voters_have(voters, &peer->node, peer->log_id) ||
		    agree_is_regressed(agree, peer->log_id))
			continue;
		if (!best || is_better(peer, best))
			best = peer;
	}
	return best;
}

static bool all_spoke(struct agree *agree)
{
	const struct agree_peer *peer;

	cds_list_for_each_entry(peer, &agree->peers, link)
		if (!peer->is_heard && !peer->said_bye && !peer->is_skipped)
			return false;
	return true;
}

static bool in_lead(struct agree *agree)
{
	const struct agree_peer *peer;
	uint64_t term = 0;
	bool leads = false;

	cds_list_for_each_entry(peer, &agree->peers, link) {
		if (!peer->is_heard || !uuid_is_equal(&peer->log, &agree->log_uuid))
			continue;
		if (peer->term > term)
			leads = false;
		term = max_of(term, peer->term);
		if ((peer->flags & CPG_STATE_LEADS) && peer->term == term)
			leads = true;
	}
	return leads;
}

static void ask(struct agree *agree)
{
	agree_set_term(agree, agree->term + 1);
	agree->promised = agree->term;
	agree->promised_to = agree->self.node;
	agree->want_ask = true;
	agree->round_ns = agree_now(agree) + agree_patience(agree);
	agree->stats.elections++;
	agree_enter(agree, AGREE_ASK, "our log is the best of a majority");
	agree_disk_go(agree);
}

/* ---- rounds ---- */

void agree_consider(struct agree *agree)
{
	struct agree_voters voters;

	if (agree->role != AGREE_SEEK || agree->is_leaving || !agree->me)
		return;
	if (uuid_is_null(&agree->log_uuid)) {
		if (agree_nobody_has_log(agree) && agree_may_make_log(agree))
			agree_make_log(agree);
		return;
	}
	agree_voters_at(agree, agree_last(agree).index, &voters);
	if (!agree->votequorum || !agree->log_id || in_lead(agree) ||
	    !agree_has_majority(agree, &voters, has_spoken))
		return;
	if (!all_spoke(agree) && agree_now(agree) < agree->round_ns)
		return;
	if (agree_now(agree) < agree->granted_until_ns)
		return; /* who was promised a term has its time */
	if (best_voter(agree, &voters) == agree->me)
		ask(agree);
}

/* The round is over and there is no leader: who should have asked did not; or nobody could. */
static void next_round(struct agree *agree)
{
	struct agree_voters voters;
	struct agree_peer *best = NULL;

	if (agree->role == AGREE_SEEK) {
		agree_consider(agree);
		if (agree->role == AGREE_SEEK && agree->rounds > 2 && agree_is_unborn(agree) &&
		    agree_may_make_log(agree)) { /* first logs that nobody can go on with */
			if (!uuid_is_null(&agree->log_uuid))
				agree_drop_log(agree);
			if (uuid_is_null(&agree->log_uuid))
				agree_make_log(agree);
		}
		if (agree->role != AGREE_SEEK)
			return;
		agree_voters_at(agree, agree_last(agree).index, &voters);
		if (agree_has_majority(agree, &voters, has_spoken))
			best = best_voter(agree, &voters);
		if (best && best != agree->me && !in_lead(agree))
			best->is_skipped = true;
	}
	if (in_lead(agree))
		agree_seek(agree, "who says it leads says no more");
	else
		begin_round(agree, "nobody leads yet");
}

/* The voters that are not here, as far as @size has room for their names. */
static void name_missing(struct agree *agree, char *out, size_t size)
{
	struct agree_voters voters;
	uint32_t missing = 0;
	size_t used;

	agree_voters_at(agree, agree_last(agree).index, &voters);
	for (uint32_t i = 0; i < voters.count; i++)
		missing += !agree_peer_by_node(agree, &voters.rows[i].node);
	used = (size_t)snprintf(out, size,
				"%u of %u voters are not here, start their sheep:", missing,
				voters.count);
	for (uint32_t i = 0; i < voters.count && used + UUID_TEXT_SIZE + 1 < size; i++) {
		char node[UUID_TEXT_SIZE];

		if (!agree_peer_by_node(agree, &voters.rows[i].node))
			used += (size_t)snprintf(out + used, size - used, " %s",
						 uuid_format(&voters.rows[i].node, node));
	}
}

/* We have no log, others do: how many of its voters are here? */
static bool count_theirs(struct agree *agree, char *out, size_t size)
{
	const struct agree_peer *peer;
	uint32_t voters = 0, here = 0;

	cds_list_for_each_entry(peer, &agree->peers, link) {
		if (uuid_is_null(&peer->log))
			continue;
		voters = max_of(voters, peer->voter_count);
		here += (peer->flags & CPG_STATE_VOTES) != 0;
	}
	(void)snprintf(out, size, "%u of the %u voters of the log are here, and none leads", here,
		       voters);
	return voters;
}

static void log_waiting(struct agree *agree)
{
	const char *why = "no member of this view leads";
	char text[256];

	if (agree_now(agree) < agree->wait_log_ns)
		return;
	agree->wait_log_ns = agree_now(agree) + AGREE_WAIT_LOG_NS;
	if (!agree->votequorum) {
		why = "corosync has no quorum: more of its nodes are needed (corosync-quorumtool -s)";
	} else if (uuid_is_null(&agree->log_uuid) && !uuid_is_null(&agree->wanted)) {
		why = "this node's copy of the log is gone: a member that has one is needed";
	} else if (uuid_is_null(&agree->log_uuid)) {
		why = count_theirs(agree, text, sizeof(text)) ? text : "no member has a log yet";
	} else if (!agree_view_has_majority(agree)) {
		name_missing(agree, text, sizeof(text));
		why = text;
	}
	log_warning("corosync: waiting: %s", why);
}

void agree_seek_timer(struct agree *agree)
{
	if (agree_now(agree) < agree->round_ns)
		return;
	log_waiting(agree);
	next_round(agree);
}

/* ---- states ---- */

static bool take_state(struct agree_peer *peer, const struct cpg_message *message,
		       const struct cpg_state *state)
{
	uint32_t info_size = from_le32(state->info_size);
	void *info = malloc(info_size + 1);

	if (!info)
		return false;
	if (info_size)
		memcpy(info, state + 1, info_size);
	free(peer->info);
	peer->info = info;
	peer->info_size = info_size;
	memcpy(peer->node.bytes, message->node, sizeof(message->node));
	memcpy(peer->log.bytes, message->log, sizeof(message->log));
	memcpy(peer->wanted.bytes, state->wanted, sizeof(state->wanted));
	if (peer->log_id != from_le64(state->log_id))
		peer->acked = 0; /* that was another copy */
	peer->start = from_le64(message->start);
	peer->log_id = from_le64(state->log_id);
	peer->term = from_le64(message->term);
	peer->last =
		(struct agree_point){from_le64(state->last_term), from_le64(state->last_index)};
	peer->commit = from_le64(state->commit);
	peer->flags = from_le32(state->flags);
	peer->voter_count = from_le32(state->voter_count);
	peer->is_known = true;
	return true;
}

static void judge_double(struct agree *agree)
{
	if (!agree->me || !agree->me->is_known || !agree_peer_is_double(agree, agree->me))
		agree->twice_ns = 0;
	else if (!agree->twice_ns)
		agree->twice_ns = agree_now(agree) + AGREE_TWICE_NS;
}

void on_state(struct agree *agree, struct agree_peer *peer, const struct cpg_message *message,
	      const uint8_t *body, size_t size)
{
	const struct cpg_state *state = (const void *)body;

	if (size != sizeof(*state) + from_le32(state->info_size) ||
	    from_le32(state->info_size) > CPG_INFO_MAX || !from_le64(message->start))
		return;
	if (!take_state(peer, message, state))
		return;
	agree_peer_lives(agree, peer);
	if (!(peer->flags & CPG_STATE_BORN) && agree->role == AGREE_LEAD && peer != agree->me &&
	    !uuid_is_equal(&peer->log, &agree->log_uuid))
		agree->want_state = true; /* it may give way, if it did not yet */
	if (from_le64(state->view) == agree->view_digest)
		peer->is_heard = true;
	if (agree_judge_other_log(agree, peer))
		return;
	agree_judge_copy(agree, peer);
	judge_double(agree);
	agree_tell_members(agree);
	agree_tell_quorum(agree);
	if (uuid_is_equal(&peer->log, &agree->log_uuid) && peer->term > agree->term)
		agree_see_term(agree, peer->term, "a member knows a later term");
	if ((peer->flags & CPG_STATE_SEEKS) && peer != agree->me) {
		if (agree->role == AGREE_LEAD)
			agree->want_beat = true;
		else if (agree->role == AGREE_FOLLOW)
			agree->want_state = true;
	}
	agree_consider(agree);
}

/* ---- promises and votes ---- */

static bool may_promise(struct agree *agree, const struct agree_peer *peer, uint64_t term,
			const struct cpg_ask *ask)
{
	struct agree_point theirs = {from_le64(ask->last_term), from_le64(ask->last_index)};

	if (term < agree->term)
		return false;
	if (RULE(G1_ONE_PROMISE) && term <= agree->promised &&
	    !(term == agree->promised && uuid_is_equal(&agree->promised_to, &peer->node)))
		return false;
	if (RULE(G1_BEST_LOG) && point_is_before(theirs, agree_last(agree)))
		return false;
	/* In this term there is a leader already, whom we follow. */
	return !(term == agree->term && (agree->role == AGREE_FOLLOW || agree->role == AGREE_LEAD));
}

void on_ask(struct agree *agree, struct agree_peer *peer, const struct cpg_message *message,
	    const uint8_t *body, size_t size)
{
	const struct cpg_ask *ask = (const void *)body;
	uint64_t term = from_le64(message->term);

	(void)size;
	peer->is_skipped = false;
	if (peer == agree->me || !agree->log_id)
		return;
	agree->vote_for = peer->node;
	agree->vote_is_granted = may_promise(agree, peer, term, ask);
	if (agree->vote_is_granted) {
		agree_see_term(agree, term, "another member asks for a later term");
		agree->promised = term;
		agree->promised_to = peer->node;
		agree->granted_until_ns = agree_now(agree) + agree_patience(agree);
		if (agree->role == AGREE_SEEK)
			agree->round_ns = agree->granted_until_ns;
	} else if (term > agree->term) {
		agree_see_term(agree, term, "another member asks for a later term");
	}
	agree->wants_vote = true;
	agree_disk_go(agree);
}

static bool has_voted(const struct agree *agree, const struct agree_peer *peer)
{
	if (peer == agree->me)
		return agree->promise_durable == agree->term || !RULE(G1_PROMISE_SYNC);
	return peer->has_voted;
}

void agree_count_votes(struct agree *agree)
{
	struct agree_voters voters;

	if (agree->role != AGREE_ASK)
		return;
	agree_voters_at(agree, agree_last(agree).index, &voters);
	if (agree_has_majority(agree, &voters, has_voted))
		agree_lead(agree);
}

void on_vote(struct agree *agree, struct agree_peer *peer, const struct cpg_message *message,
	     const uint8_t *body, size_t size)
{
	const struct cpg_vote *vote = (const void *)body;
	uint64_t term = from_le64(message->term);

	(void)size;
	if (from_le32(vote->is_granted) && from_le64(vote->log_id) == peer->log_id) {
		struct agree_seen *seen = agree_seen(agree, peer->log_id);

		seen->promised = max_of(seen->promised, term);
	}
	if (term > agree->term) {
		agree_see_term(agree, term, "a member promised a later term");
		return;
	}
	if (term != agree->term || agree->role != AGREE_ASK ||
	    memcmp(vote->candidate, agree->self.node.bytes, sizeof(vote->candidate)) != 0 ||
	    from_le64(vote->log_id) != peer->log_id || !from_le32(vote->is_granted))
		return;
	peer->has_voted = true;
	agree_count_votes(agree);
}
