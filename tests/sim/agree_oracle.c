/* One vote of a copy, and one leader, in a term (agree_oracle.h). */
#include "tests/sim/agree_oracle.h"

#include <string.h>

#include "include/proto/cpg_log.h"
#include "lib/base/hash.h"

static struct uuid uuid_at(const uint8_t *bytes)
{
	struct uuid uuid;

	memcpy(uuid.bytes, bytes, sizeof(uuid.bytes));
	return uuid;
}

/* False: the same was given to somebody else. */
static bool is_first(struct oracle *oracle, const struct oracle_row *given)
{
	uint64_t digest = hash_u64_pair(hash_u64_pair(given->term, given->copy + given->from),
					hash_bytes(given->log.bytes, sizeof(given->log.bytes)));
	struct oracle_row *row = &oracle->rows[digest % ORACLE_ROOM];

	if (row->term == given->term && row->copy == given->copy && row->from == given->from &&
	    uuid_is_equal(&row->log, &given->log))
		return uuid_is_equal(&row->to, &given->to) && row->start == given->start;
	*row = *given;
	return true;
}

static bool vote_is_first(struct oracle *oracle, unsigned from, const struct cpg_message *head,
			  le64 copy, const uint8_t *candidate)
{
	struct oracle_row row = {
		.log = uuid_at(head->log),
		.term = from_le64(head->term),
		.copy = from_le64(copy),
		.from = from,
		.to = uuid_at(candidate),
	};

	return is_first(oracle, &row);
}

static bool leader_is_first(struct oracle *oracle, const struct cpg_message *head)
{
	struct oracle_row row = {
		.log = uuid_at(head->log),
		.term = from_le64(head->term),
		.to = uuid_at(head->node),
		.start = from_le64(head->start),
	};

	return is_first(oracle, &row);
}

const char *oracle_hear(struct oracle *oracle, unsigned from, const uint8_t *data, size_t size)
{
	const void *body = data + sizeof(struct cpg_message);
	const struct cpg_state *state = body;
	const struct cpg_vote *vote = body;
	const struct cpg_ask *ask = body;
	struct cpg_message head;
	bool is_well = true, is_vote = false;

	if (size < sizeof(head))
		return NULL;
	memcpy(&head, data, sizeof(head));
	switch (from_le16(head.type)) {
	case CPG_TYPE_VOTE:
		is_vote = true;
		is_well = !from_le32(vote->is_granted) ||
			  vote_is_first(oracle, from, &head, vote->log_id, vote->candidate);
		break;
	case CPG_TYPE_ASK: /* who asks votes for itself */
		is_vote = true;
		is_well = vote_is_first(oracle, from, &head, ask->log_id, head.node);
		break;
	case CPG_TYPE_STATE:
		is_well = !(from_le32(state->flags) & CPG_STATE_LEADS) ||
			  leader_is_first(oracle, &head);
		break;
	case CPG_TYPE_ENTRIES:
	case CPG_TYPE_IMAGE:
		is_well = leader_is_first(oracle, &head);
		break;
	default:
		break;
	}
	if (is_well)
		return NULL;
	return is_vote ? "it votes twice in a term" : "it leads a term that had another leader";
}
