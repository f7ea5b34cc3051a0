/*
 * LEAD: what the log is to say about nodes and voters.
 *
 * A voter is a copy of the log, known by the random number that it got when it was made: a disk that was
 * replaced is another one. Voters change by one at a time, so that any two majorities have a member in
 * common: a node whose copy is another one than the registered is removed first, then added.
 * Removed is also who was forgotten by the operator, and a copy that has less than it was seen to
 * have. Added is who is here and has an entry of this term on its disk.
 */
#include <string.h>

#include "lib/base/log.h"
#include "sheep/engine/agree_priv.h"

static bool is_forgotten(const struct agree *agree, const struct uuid *node)
{
	for (uint32_t i = 0; i < agree->forgotten_count; i++)
		if (uuid_is_equal(&agree->forgotten[i], node))
			return true;
	return false;
}

static bool belongs_here(const struct agree *agree, const struct agree_peer *peer)
{
	const struct uuid *log = uuid_is_null(&peer->log) ? &peer->wanted : &peer->log;

	return peer->is_known && !peer->said_bye &&
	       (uuid_is_null(log) || uuid_is_equal(log, &agree->log_uuid));
}

/* ---- nodes ---- */

static bool is_here(const struct agree *agree, const struct agree_peer *peer)
{
	(void)agree;
	(void)peer;
	return true;
}

/*
 * Before anybody joins, and there may be commands, all members of the view have the log, and vote, and
 * the view is a quorum for long enough to be sure: so another quorum that has no log is impossible, and
 * whoever has a log in which nobody joined may drop it for one in which somebody did.
 */
static bool may_be_born(struct agree *agree)
{
	const struct agree_peer *peer;

	if (agree_now(agree) < agree->born_ns || agree->log.voter_entries)
		return false;
	cds_list_for_each_entry(peer, &agree->peers, link)
		if (!peer->said_bye &&
		    (!peer->is_known ||
		     !agree_voters_have(&agree->voters, &peer->node, peer->log_id)))
			return false;
	return true;
}

/* One of the voters is not here, while all of them are needed. */
static bool lacks_voter(struct agree *agree)
{
	struct agree_voters voters;

	agree_voters_at(agree, agree_last(agree).index, &voters);
	return !agree_has_all(agree, &voters, is_here);
}

static void log_full(struct agree *agree)
{
	if (agree_now(agree) < agree->full_log_ns)
		return;
	agree->full_log_ns = agree_now(agree) + AGREE_WAIT_LOG_NS;
	log_error("corosync: the log knows %u nodes: remove some that are gone", CPG_NODES_MAX);
}

static void append_joins(struct agree *agree)
{
	struct agree_peer *peer;

	if (!agree->nodes_end.count && !may_be_born(agree))
		return;
	cds_list_for_each_entry(peer, &agree->peers, link) {
		const struct agree_node *row;

		if (!belongs_here(agree, peer) || agree_peer_is_double(agree, peer))
			continue;
		row = agree_node_find(&agree->nodes_end, &peer->node);
		if (row && row->start == peer->start)
			continue;
		if (!row && agree->nodes_end.count >= CPG_NODES_MAX) {
			log_full(agree);
			continue;
		}
		if (!agree_lead_append(agree, CPG_ENTRY_JOIN, &peer->node, peer->start, 0, NULL, 0))
			return;
	}
}

static void append_ends(struct agree *agree)
{
	for (uint32_t i = 0; i < agree->end_count; i++) {
		const struct agree_end *end = &agree->ends[i];
		const struct agree_node *row = agree_node_find(&agree->nodes_end, &end->node);

		if (row && row->start == end->start && !row->ended &&
		    !agree_lead_append(agree, CPG_ENTRY_ENDED, &end->node, end->start,
				       end->how == ENGINE_END_DIED ? 1 : 2, NULL, 0))
			return;
	}
}

static void append_forgotten(struct agree *agree)
{
	for (uint32_t i = 0; i < agree->forgotten_count; i++) {
		const struct uuid *node = &agree->forgotten[i];
		bool votes = false;

		for (uint32_t v = 0; v < agree->voters.count; v++)
			votes |= uuid_is_equal(&agree->voters.rows[v].node, node);
		if (!votes && agree_node_find(&agree->nodes_end, node) &&
		    !agree_peer_by_node(agree, node) &&
		    !agree_lead_append(agree, CPG_ENTRY_FORGET, node, 0, 0, NULL, 0))
			return;
	}
}

/* ---- voters ---- */

static bool must_go(struct agree *agree, const struct agree_voter *voter)
{
	const struct agree_peer *peer = agree_peer_by_node(agree, &voter->node);

	if (!peer)
		return is_forgotten(agree, &voter->node);
	if (peer == agree->me)
		return voter->log_id != agree->log_id;
	return peer->is_heard && peer->log_id &&
	       (peer->log_id != voter->log_id || agree_is_regressed(agree, voter->log_id));
}

/* One voter less; false: none has to go, or too few would be left here to go on. */
static bool remove_one(struct agree *agree, struct agree_voters *voters)
{
	for (uint32_t i = 0; i < voters->count && voters->count > 1; i++) {
		struct agree_voters fewer = *voters;
		char node[UUID_TEXT_SIZE];

		if (!must_go(agree, &voters->rows[i]))
			continue;
		fewer.rows[i] = fewer.rows[--fewer.count];
		if (!agree_has_majority(agree, &fewer, is_here))
			continue;
		log_info("corosync: a copy of the log on node %s votes no longer",
			 uuid_format(&voters->rows[i].node, node));
		*voters = fewer;
		return true;
	}
	return false;
}

static bool add_one(struct agree *agree, struct agree_voters *voters)
{
	struct agree_peer *peer;

	if (voters->count == CPG_VOTERS_MAX)
		return false;
	cds_list_for_each_entry(peer, &agree->peers, link) {
		bool is_there = false;
		char node[UUID_TEXT_SIZE];

		for (uint32_t i = 0; i < voters->count; i++)
			is_there |= uuid_is_equal(&voters->rows[i].node, &peer->node);
		if (is_there || !belongs_here(agree, peer) || !peer->log_id ||
		    !uuid_is_equal(&peer->log, &agree->log_uuid) ||
		    agree_peer_is_double(agree, peer) || agree_is_regressed(agree, peer->log_id) ||
		    peer->acked < agree->term_index)
			continue;
		log_info("corosync: node %s votes from now on", uuid_format(&peer->node, node));
		voters->rows[voters->count++] = (struct agree_voter){peer->node, peer->log_id};
		return true;
	}
	return false;
}

static void change_voters(struct agree *agree)
{
	struct agree_voters voters;
	struct cpg_voter rows[CPG_VOTERS_MAX];

	if (RULE(G2_ONE_AT_A_TIME) && agree->log.voter_entries)
		return;
	if (RULE(G2_OWN_TERM_FIRST) && agree->log.commit < agree->term_index)
		return;
	if (agree->nodes_end.count && !agree_is_founded(agree))
		return; /* all whose acknowledgement the first JOIN needs are known when it is made */
	agree_voters_at(agree, agree_last(agree).index, &voters);
	if (!(agree_is_founded(agree) && remove_one(agree, &voters)) && !add_one(agree, &voters))
		return;
	(void)agree_lead_append(agree, CPG_ENTRY_VOTERS, &agree->self.node, agree->self.start, 0,
				rows, (uint32_t)agree_voters_encode(&voters, rows));
}

void agree_lead_nodes(struct agree *agree)
{
	if (agree->role != AGREE_LEAD || !agree->votequorum || !agree_is_open(agree))
		return;
	if (agree_is_unborn(agree) && agree_now(agree) >= agree->born_ns && lacks_voter(agree)) {
		agree_drop_log(agree); /* it would wait for ever */
		return;
	}
	append_joins(agree);
	if (agree->role == AGREE_LEAD)
		append_ends(agree);
	if (agree->role == AGREE_LEAD)
		append_forgotten(agree);
	if (agree->role == AGREE_LEAD)
		change_voters(agree);
	agree_disk_go(agree);
}
