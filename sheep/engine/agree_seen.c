/*
 * Copies of the log that have less than they were seen to have: a disk that went back to an old state. Such a copy may have
 * forgotten what it promised and acknowledged, so it does not count until it is registered anew (G2).
 *
 * What is known of a copy is memory: of its votes and acknowledgements that this member heard.
 */
#include "lib/base/log.h"
#include "sheep/engine/agree_priv.h"

/* What is known of voters is what G2 rests on; there are fewer of them than rows. */
static bool is_of_voter(const struct agree_voters *voters, uint64_t log_id)
{
	for (uint32_t i = 0; i < voters->count; i++)
		if (voters->rows[i].log_id == log_id)
			return true;
	return false;
}

/* All rows are in use: one of a copy that does not vote goes, those that went back as the last. */
static struct agree_seen *row_to_reuse(struct agree *agree)
{
	struct agree_seen *regressed = &agree->seen[0];
	struct agree_voters voters;

	agree_voters_at(agree, agree_last(agree).index, &voters);
	for (uint32_t i = 0; i < AGREE_SEEN_MAX; i++) {
		struct agree_seen *row = &agree->seen[agree->seen_next++ % AGREE_SEEN_MAX];

		if (is_of_voter(&voters, row->log_id) || is_of_voter(&agree->voters, row->log_id))
			continue;
		if (!row->is_regressed)
			return row;
		regressed = row;
	}
	return regressed;
}

struct agree_seen *agree_seen(struct agree *agree, uint64_t log_id)
{
	struct agree_seen *row;

	for (uint32_t i = 0; i < agree->seen_count; i++)
		if (agree->seen[i].log_id == log_id)
			return &agree->seen[i];
	if (agree->seen_count < AGREE_SEEN_MAX)
		row = &agree->seen[agree->seen_count++];
	else
		row = row_to_reuse(agree);
	*row = (struct agree_seen){.log_id = log_id};
	return row;
}

bool agree_is_regressed(const struct agree *agree, uint64_t log_id)
{
	for (uint32_t i = 0; i < agree->seen_count; i++)
		if (agree->seen[i].log_id == log_id)
			return agree->seen[i].is_regressed;
	return false;
}

/* Its log ends before an entry that it acknowledged. */
static bool has_less(const struct agree_seen *seen, struct agree_point last)
{
	if (RULE(G2_TOLD_AHEAD) && last.term <= seen->told.term && last.index < seen->told.index)
		return true;
	return point_is_before(last, seen->acked);
}

void agree_judge_copy(struct agree *agree, const struct agree_peer *peer)
{
	struct agree_point had;
	struct agree_seen *seen;
	char node[UUID_TEXT_SIZE];

	if (!peer->log_id || peer == agree->me || agree_peer_is_double(agree, peer))
		return;
	seen = agree_seen(agree, peer->log_id);
	if (seen->is_regressed || !RULE(G2_REGRESSED) ||
	    (peer->term >= seen->promised && !has_less(seen, peer->last)))
		return;
	had = point_is_before(seen->acked, seen->told) ? seen->told : seen->acked;
	seen->is_regressed = true;
	log_error(
		"corosync: the log of node %s ends at entry %llu of term %llu, and had entry %llu of "
		"term %llu (term %llu, promised %llu): it does not vote until it is registered again",
		uuid_format(&peer->node, node), (unsigned long long)peer->last.index,
		(unsigned long long)peer->last.term, (unsigned long long)had.index,
		(unsigned long long)had.term, (unsigned long long)peer->term,
		(unsigned long long)seen->promised);
}
