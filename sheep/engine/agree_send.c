/*
 * Sending: a table of what there may be to say, the urgent first. Each row says one thing at a time,
 * from the state as it is now; what CPG does not take is said later, as it is then.
 */
#include <string.h>

#include "sheep/engine/agree_priv.h"

enum sent {
	SENT_NOTHING, /* there was nothing to say */
	SENT,
	SENT_BLOCKED, /* not now */
};

/* The message's body, behind its header. */
static uint8_t *body_of(struct agree *agree)
{
	return agree->out + sizeof(struct cpg_message);
}

static enum sent say(struct agree *agree, enum cpg_type type, uint64_t term, size_t size)
{
	struct cpg_message head = {
		.magic = to_le32(CPG_MESSAGE_MAGIC),
		.version = to_le16(CPG_VERSION),
		.type = to_le16((uint16_t)type),
		.size = to_le32((uint32_t)(sizeof(head) + size)),
		.start = to_le64(agree->self.start),
		.term = to_le64(term),
	};

	assert(sizeof(head) + size <= CPG_MESSAGE_MAX);
	memcpy(head.log, agree->log_uuid.bytes, sizeof(head.log));
	memcpy(head.node, agree->self.node.bytes, sizeof(head.node));
	agree_message_seal(agree->out, &head, sizeof(head) + size);
	if (agree->ops.send(agree->context, agree->out, sizeof(head) + size) < 0) {
		agree->is_blocked = true;
		agree->blocked_ns = agree_now(agree) + AGREE_BLOCKED_NS;
		return SENT_BLOCKED;
	}
	return SENT;
}

static enum sent say_bye(struct agree *agree)
{
	enum sent sent;

	if (!agree->want_bye)
		return SENT_NOTHING;
	sent = say(agree, CPG_TYPE_BYE, agree->term, 0);
	agree->want_bye = sent != SENT;
	return sent;
}

static enum sent say_state(struct agree *agree)
{
	struct cpg_state *state = (void *)body_of(agree);
	struct agree_voters voters;
	enum sent sent;
	uint32_t flags = 0;

	if (!agree->want_state)
		return SENT_NOTHING;
	agree_voters_at(agree, agree_last(agree).index, &voters);
	if (agree->role == AGREE_SEEK || agree->role == AGREE_ASK)
		flags |= CPG_STATE_SEEKS;
	if (agree->role == AGREE_LEAD)
		flags |= CPG_STATE_LEADS;
	if (agree->is_ready)
		flags |= CPG_STATE_READY;
	if (!agree_is_unborn(agree))
		flags |= CPG_STATE_BORN;
	if (agree->log_id && agree_voters_have(&voters, &agree->self.node, agree->log_id))
		flags |= CPG_STATE_VOTES;
	*state = (struct cpg_state){
		.log_id = to_le64(agree->log_id),
		.view = to_le64(agree->view_digest),
		.last_term = to_le64(agree_last(agree).term),
		.last_index = to_le64(agree_last(agree).index),
		.commit = to_le64(agree->log.commit),
		.flags = to_le32(flags),
		.voter_count = to_le32(voters.count),
		.info_size = to_le32(agree->self.info_size),
	};
	memcpy(state->wanted, agree->wanted.bytes, sizeof(state->wanted));
	if (agree->self.info_size)
		memcpy(state + 1, agree->self.info, agree->self.info_size);
	sent = say(agree, CPG_TYPE_STATE, agree->term, sizeof(*state) + agree->self.info_size);
	agree->want_state = sent != SENT;
	return sent;
}

static enum sent say_ask(struct agree *agree)
{
	struct cpg_ask *ask = (void *)body_of(agree);
	struct agree_point last = agree_last(agree);
	enum sent sent;

	if (!agree->want_ask || agree->role != AGREE_ASK)
		return SENT_NOTHING;
	/* Else another start of us could ask for the same term, and get the votes that this one asked for. */
	if (RULE(G1_PROMISE_SYNC) && agree->promise_durable < agree->term)
		return SENT_NOTHING;
	*ask = (struct cpg_ask){to_le64(agree->log_id), to_le64(last.term), to_le64(last.index)};
	sent = say(agree, CPG_TYPE_ASK, agree->term, sizeof(*ask));
	agree->want_ask = sent != SENT;
	if (sent == SENT)
		agree->round_ns = agree_now(agree) + agree_patience(agree); /* for the votes */
	return sent;
}

static enum sent say_vote(struct agree *agree)
{
	struct cpg_vote *vote = (void *)body_of(agree);
	enum sent sent;

	if (!agree->wants_vote)
		return SENT_NOTHING;
	if (agree->vote_is_granted && RULE(G1_PROMISE_SYNC) &&
	    agree->promise_durable < agree->promised)
		return SENT_NOTHING;
	*vote = (struct cpg_vote){
		.log_id = to_le64(agree->log_id),
		.is_granted = to_le32(agree->vote_is_granted),
	};
	memcpy(vote->candidate, agree->vote_for.bytes, sizeof(vote->candidate));
	sent = say(agree, CPG_TYPE_VOTE, agree->vote_is_granted ? agree->promised : agree->term,
		   sizeof(*vote));
	agree->wants_vote = sent != SENT;
	return sent;
}

static enum sent say_ack(struct agree *agree)
{
	struct cpg_ack *ack = (void *)body_of(agree);
	uint64_t index = agree_own_ack(agree);
	enum sent sent;

	if (!agree->want_ack || !agree->log_id ||
	    (agree->role != AGREE_FOLLOW && agree->role != AGREE_LEAD))
		return SENT_NOTHING;
	*ack = (struct cpg_ack){to_le64(agree->log_id), to_le64(index)};
	sent = say(agree, CPG_TYPE_ACK, agree->term, sizeof(*ack));
	agree->want_ack = sent != SENT;
	if (sent == SENT)
		agree->told_ack = index;
	return sent;
}

static enum sent say_need(struct agree *agree)
{
	struct cpg_need *need = (void *)body_of(agree);
	struct agree_point last = agree_last(agree);
	enum sent sent;

	if (!agree->want_need || agree->role != AGREE_FOLLOW)
		return SENT_NOTHING;
	*need = (struct cpg_need){to_le64(last.term), to_le64(last.index),
				  to_le64(agree->log.commit)};
	sent = say(agree, CPG_TYPE_NEED, agree->term, sizeof(*need));
	agree->want_need = sent != SENT;
	return sent;
}

static enum sent say_received(struct agree *agree)
{
	enum sent sent;

	if (!agree->want_received)
		return SENT_NOTHING;
	memcpy(body_of(agree), &agree->received, sizeof(agree->received));
	sent = say(agree, CPG_TYPE_RECEIVED, agree->term, sizeof(agree->received));
	agree->want_received = sent != SENT;
	return sent;
}

/* ---- the leader's ---- */

/* Entries from @first to @last at most, for @peer or (NULL) for all. @sent_last: the last one that fitted. */
static enum sent say_entries(struct agree *agree, const struct agree_peer *peer, uint64_t first,
			     uint64_t last, uint64_t *sent_last)
{
	struct cpg_entries *entries = (void *)body_of(agree);
	uint8_t *at = (uint8_t *)(entries + 1);
	uint32_t count = 0;
	size_t size = 0;

	*entries = (struct cpg_entries){
		.previous_term = to_le64(agree_term_at(agree, first - 1)),
		.previous_index = to_le64(first - 1),
		.commit = to_le64(agree->log.commit),
	};
	if (peer) {
		entries->to_node = to_le32(peer->id.node);
		entries->to_pid = to_le32(peer->id.pid);
	}
	for (uint64_t i = first; i <= last; i++) {
		const struct agree_entry *entry = agree_at(agree, i);
		size_t more = sizeof(struct cpg_entry) + entry->size;

		if (count && size + more > CPG_BATCH_MAX)
			break;
		agree_entry_encode(entry, (struct cpg_entry *)(void *)(at + size));
		memcpy(at + size + sizeof(struct cpg_entry), entry->body, entry->size);
		size += more;
		count++;
	}
	entries->count = to_le32(count);
	*sent_last = first + count - 1;
	return say(agree, CPG_TYPE_ENTRIES, agree->term, sizeof(*entries) + size);
}

static enum sent say_new_entries(struct agree *agree)
{
	uint64_t last = agree_last(agree).index, sent_last;
	enum sent sent;

	if (agree->role != AGREE_LEAD || (agree->sent == last && !agree->want_beat))
		return SENT_NOTHING;
	sent = say_entries(agree, NULL, agree->sent + 1, last, &sent_last);
	if (sent != SENT)
		return sent;
	agree->sent = sent_last;
	agree->want_beat = false;
	agree->beat_ns = agree_now(agree) + AGREE_BEAT_NS;
	return sent;
}

static enum sent say_part(struct agree *agree, struct agree_peer *peer)
{
	struct cpg_part *part = (void *)body_of(agree);
	uint64_t left = agree->image_size - peer->image_offset;
	uint32_t length = (uint32_t)min_of(left, (uint64_t)CPG_CHUNK_MAX);
	enum sent sent;

	*part = (struct cpg_part){
		.to_node = to_le32(peer->id.node),
		.to_pid = to_le32(peer->id.pid),
		.index = to_le64(agree->image_point.index),
		.size = to_le64(agree->image_size),
		.offset = to_le64(peer->image_offset),
		.length = to_le32(length),
		.crc = to_le32(agree->image_crc),
	};
	memcpy(part + 1, agree->image + peer->image_offset, length);
	sent = say(agree, CPG_TYPE_IMAGE, agree->term, sizeof(*part) + length);
	if (sent == SENT)
		peer->asked_ns = agree_now(agree);
	return sent;
}

/* The next message to somebody who is behind: when what it got before is on its disk. */
static enum sent say_help_to(struct agree *agree, struct agree_peer *peer)
{
	enum sent sent;
	uint64_t sent_last;

	if (peer->gets_image)
		return peer->asked_ns ? SENT_NOTHING : say_part(agree, peer);
	if (peer->flying && peer->acked < peer->flying)
		return SENT_NOTHING;
	if (peer->next > agree->sent) {
		peer->is_behind = false;
		return SENT_NOTHING;
	}
	if (peer->next <= agree->log.base.index) {
		peer->is_behind = false; /* it asks again, and gets an image */
		return SENT_NOTHING;
	}
	sent = say_entries(agree, peer, peer->next, agree->sent, &sent_last);
	if (sent != SENT)
		return sent;
	peer->asked_ns = agree_now(agree);
	peer->flying = sent_last;
	peer->next = sent_last + 1;
	if (peer->next > agree->sent)
		peer->is_behind = false; /* what comes after it gets as all do */
	return sent;
}

static enum sent say_help(struct agree *agree)
{
	struct agree_peer *peer;

	if (agree->role != AGREE_LEAD)
		return SENT_NOTHING;
	cds_list_for_each_entry(peer, &agree->peers, link) {
		enum sent sent = peer->is_behind ? say_help_to(agree, peer) : SENT_NOTHING;

		if (sent != SENT_NOTHING)
			return sent;
	}
	return SENT_NOTHING;
}

/* ---- and everybody's ---- */

static enum sent say_ended(struct agree *agree)
{
	struct cpg_ended *ended = (void *)body_of(agree);

	for (uint32_t i = 0; i < agree->end_count; i++) {
		struct agree_end *end = &agree->ends[i];
		enum sent sent;

		if (end->is_said)
			continue;
		*ended = (struct cpg_ended){
			.start = to_le64(end->start),
			.how = to_le32(end->how == ENGINE_END_DIED ? 1 : 2),
		};
		memcpy(ended->node, end->node.bytes, sizeof(ended->node));
		sent = say(agree, CPG_TYPE_ENDED, agree->term, sizeof(*ended));
		end->is_said = sent == SENT;
		return sent;
	}
	return SENT_NOTHING;
}

static enum sent say_proposal(struct agree *agree)
{
	struct cpg_proposal *out = (void *)body_of(agree);
	const struct agree_proposal *proposal = agree_outbox_next(agree);
	enum sent sent;

	if (!proposal)
		return SENT_NOTHING;
	*out = (struct cpg_proposal){to_le64(proposal->sequence), to_le32(proposal->size), {0}};
	memcpy(out + 1, proposal->body, proposal->size);
	sent = say(agree, CPG_TYPE_PROPOSAL, agree->term, sizeof(*out) + proposal->size);
	if (sent == SENT)
		agree_outbox_sent(agree, proposal);
	return sent;
}

typedef enum sent sayer(struct agree *agree);

static sayer *const sayers[] = {
	say_bye,      say_state,       say_ask,	 say_vote,  say_ack,	  say_need,
	say_received, say_new_entries, say_help, say_ended, say_proposal,
};

void agree_pump(struct agree *agree)
{
	if (!agree->me || agree->has_failed || agree->has_left)
		return;
	if (agree->is_blocked && agree_now(agree) < agree->blocked_ns)
		return;
	agree->is_blocked = false;
	for (size_t i = 0; i < ARRAY_COUNT(sayers); i++) {
		enum sent sent;

		if (agree->is_leaving && i)
			return; /* nothing else any more */
		do {
			sent = sayers[i](agree);
		} while (sent == SENT);
		if (sent == SENT_BLOCKED)
			return;
	}
}
