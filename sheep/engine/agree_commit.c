/*
 * What is committed, and what follows from it.
 *
 * All members see all acknowledgements, so each one counts for itself: an entry of the present term is
 * committed when a majority of the voters has it on disk, and with it all before it (Raft, 5.4.2:
 * an entry of an earlier term that a majority has may still be overwritten). Who missed some
 * acknowledgements believes the leader's number, as far as the logs are known to be equal.
 *
 * Until somebody has joined, all voters have to acknowledge: then each of them knows that somebody did, and
 * nobody drops its copy for that of another first log (agree_voters.c).
 */
#include <string.h>

#include "sheep/engine/agree_priv.h"

uint64_t agree_own_ack(const struct agree *agree)
{
	return RULE(G1_SYNC) ? min_of(agree->match, agree->log.durable) : agree->match;
}

static void seen_ack(struct agree *agree, const struct agree_peer *peer, uint64_t term,
		     uint64_t index)
{
	struct agree_point point = {term, index};
	struct agree_seen *seen;

	if (peer == agree->me || agree_peer_is_double(agree, peer))
		return;
	seen = agree_seen(agree, peer->log_id);
	if (index > agree->match) { /* we are behind: of what term the entry is we do not know */
		if (point_is_before(seen->told, point))
			seen->told = point;
		return;
	}
	/* Below its term's first entry the acknowledged one is of an older term. */
	if (agree_term_at(agree, index) != term)
		return;
	if (point_is_before(seen->acked, point))
		seen->acked = point;
}

void on_ack(struct agree *agree, struct agree_peer *peer, const struct cpg_message *message,
	    const uint8_t *body, size_t size)
{
	const struct cpg_ack *ack = (const void *)body;
	uint64_t term = from_le64(message->term), index = from_le64(ack->index);

	(void)size;
	if (RULE(G1_ACK_TERM) && term != agree->term)
		return;
	if (!peer->is_known || from_le64(ack->log_id) != peer->log_id || !peer->log_id ||
	    peer == agree->me)
		return;
	peer->acked = max_of(peer->acked, index);
	peer->helped_ns = agree_now(agree);
	seen_ack(agree, peer, term, index);
	agree_count_acks(agree);
	agree_lead_nodes(agree);
}

static bool has_acked(const struct agree *agree, const struct agree_peer *peer)
{
	return peer->acked >= agree->counted;
}

void agree_count_acks(struct agree *agree)
{
	struct agree_voters voters;
	const struct agree_peer *peer;
	uint64_t best = agree->log.commit;
	bool is_founded = agree_is_founded(agree);

	if ((agree->role != AGREE_FOLLOW && agree->role != AGREE_LEAD) || !agree->votequorum ||
	    !agree->me)
		return;
	if (agree->log_id && agree->me->log_id == agree->log_id)
		agree->me->acked = agree_own_ack(agree);
	agree_voters_at(agree, agree->match, &voters);
	cds_list_for_each_entry(peer, &agree->peers, link) {
		agree->counted = min_of(peer->acked, agree->match);
		if (agree->counted <= best)
			continue;
		if (RULE(G1_OWN_TERM) && agree_term_at(agree, agree->counted) != agree->term)
			continue;
		if (is_founded ? agree_has_majority(agree, &voters, has_acked)
			       : agree_has_all(agree, &voters, has_acked))
			best = agree->counted;
	}
	agree_commit_to(agree, best);
}

/* ---- applying ---- */

static void apply_entry(struct agree *agree, const struct agree_entry *entry)
{
	struct agree_log *log = &agree->log;
	bool is_ours =
		uuid_is_equal(&entry->node, &agree->self.node) && entry->start == agree->self.start;
	bool was_voter;

	if (!agree_nodes_apply(&agree->nodes, entry)) {
		agree_fail_text(agree, -ENOMEM, "the table of nodes");
		return;
	}
	switch (entry->type) {
	case CPG_ENTRY_COMMAND:
		log->user_index = entry->index;
		if (is_ours)
			agree_outbox_seen(agree, entry->sequence);
		if (agree_is_open(agree))
			agree->ops.commit(agree->context, entry->index, entry->body, entry->size);
		break;
	case CPG_ENTRY_VOTERS:
		log->voter_entries--;
		was_voter = agree_voters_have(&agree->voters, &agree->self.node, agree->log_id);
		(void)agree_voters_parse(entry->body, entry->size, &agree->voters);
		if (was_voter &&
		    !agree_voters_have(&agree->voters, &agree->self.node, agree->log_id))
			agree_renew_copy(agree);
		break;
	case CPG_ENTRY_JOIN:
		agree_remember(agree, &entry->node);
		if (is_ours)
			agree_become_ready(agree);
		agree_tell_members(agree); /* which of two starts counts may have changed */
		break;
	case CPG_ENTRY_ENDED:
		if (agree->is_ready && agree_is_open(agree) && !is_ours)
			agree->ops.ended(agree->context, &entry->node, entry->start,
					 entry->sequence == 1 ? ENGINE_END_DIED : ENGINE_END_LEFT);
		break;
	}
}

void agree_commit_to(struct agree *agree, uint64_t index)
{
	struct agree_log *log = &agree->log;

	index = min_of(index, agree_last(agree).index);
	if (index <= log->commit)
		return;
	log->commit = index;
	while (log->applied < log->commit && !agree->has_failed) {
		const struct agree_entry *entry = agree_at(agree, log->applied + 1);

		log->applied++;
		apply_entry(agree, entry);
	}
	agree_ends_logged(agree);
	agree_tell_quorum(agree);
	agree_lead_nodes(agree);
}
