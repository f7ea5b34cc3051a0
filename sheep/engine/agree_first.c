/*
 * The first log of all, and two of them.
 *
 * It is made by the lowest node of a view in which nobody has one. Until a JOIN is committed in it all of its
 * voters have to acknowledge, and nobody is ready: nothing in it matters to anybody, and a copy of it may be dropped for
 * another log. A JOIN that is not known to be committed may have been, so its copy is kept, unless a voter that would
 * have had to acknowledge it is here with another copy, or none. If it never did, it never will. If it did and its disk
 * was replaced since, this node was not ready yet: a start is ready when its disk knows of a committed JOIN. With such
 * nodes and empty disks alone a cluster may be founded anew.
 */
#include <string.h>

#include "lib/base/log.h"
#include "sheep/engine/agree_priv.h"

static const struct agree_entry *first_join(const struct agree *agree)
{
	for (uint64_t i = agree->log.commit + 1; i <= agree_last(agree).index; i++)
		if (agree_at(agree, i)->type == CPG_ENTRY_JOIN)
			return agree_at(agree, i);
	return NULL;
}

bool agree_is_founded(const struct agree *agree)
{
	if (agree->nodes.count)
		return true;
	for (uint64_t i = agree->log.commit + 1; i <= agree_last(agree).index; i++)
		if (agree_at(agree, i)->type == CPG_ENTRY_COMMAND)
			return true;
	return false;
}

static bool has_other_copy(const struct agree *agree, const struct agree_peer *peer,
			   const struct agree_voters *voters)
{
	if (peer == agree->me)
		return agree->log_id && agree_voters_name(voters, &peer->node) &&
		       !agree_voters_have(voters, &peer->node, agree->log_id);
	return peer->is_heard && !peer->said_bye && uuid_is_null(&peer->wanted) &&
	       !agree_peer_is_double(agree, peer) && agree_voters_name(voters, &peer->node) &&
	       !(uuid_is_equal(&peer->log, &agree->log_uuid) &&
		 agree_voters_have(voters, &peer->node, peer->log_id));
}

/* Somebody here knows that a JOIN is committed, or may. */
static bool knows_more(const struct agree *agree, const struct agree_peer *peer, uint64_t join)
{
	return uuid_is_equal(&peer->log, &agree->log_uuid) &&
	       (peer->commit >= join || (peer->flags & CPG_STATE_READY));
}

/* The JOIN in our log can never be committed: one who would have to acknowledge it has another copy. */
static bool is_dead(const struct agree *agree, const struct agree_entry *join)
{
	const struct agree_peer *peer;
	struct agree_voters voters;
	bool is_lost = false;

	if (!uuid_is_null(&agree->wanted))
		return false;
	agree_voters_at(agree, join->index - 1, &voters);
	cds_list_for_each_entry(peer, &agree->peers, link) {
		if (knows_more(agree, peer, join->index))
			return false;
		is_lost |= has_other_copy(agree, peer, &voters);
	}
	return is_lost;
}

bool agree_is_unborn(const struct agree *agree)
{
	const struct agree_entry *join;

	if (agree_is_founded(agree))
		return false;
	join = first_join(agree);
	return !join || is_dead(agree, join);
}

/*
 * As if this disk had been empty. Nothing was committed in that log without us, if we vote in it, and
 * nothing will be: until somebody has joined all of its voters have to acknowledge.
 */
void agree_drop_log(struct agree *agree)
{
	char text[UUID_TEXT_SIZE];

	if (agree->disk.is_writing || agree->disk.is_imaging)
		return; /* it says its state again */
	log_info("corosync: log %s, in which nobody joined, is dropped for another one",
		 uuid_format(&agree->log_uuid, text));
	agree_log_reset(agree, (struct agree_point){0, 0});
	agree->log_uuid = (struct uuid){0};
	agree->log_id = agree->next_log_id = 0;
	agree->promised = agree->promise_durable = 0;
	agree->promised_to = (struct uuid){0};
	agree->voters.count = 0;
	agree->disk.is_founded = agree->disk.flying_founded = false;
	agree->disk.wants_next = false;
	agree_set_term(agree, 0);
	agree_seek(agree, "there is another log");
}

bool agree_may_make_log(struct agree *agree)
{
	const struct agree_peer *peer;

	if (!agree->votequorum || !uuid_is_null(&agree->wanted) || agree->is_leaving)
		return false;
	cds_list_for_each_entry(peer, &agree->peers, link) {
		if (!RULE(G2_FIRST_LOG))
			continue;
		if (!peer->is_heard && !peer->said_bye)
			return false;
		if ((peer->flags & CPG_STATE_BORN) || !uuid_is_null(&peer->wanted))
			return false;
		if (memcmp(peer->node.bytes, agree->self.node.bytes, sizeof(peer->node.bytes)) < 0)
			return false;
	}
	return true;
}

bool agree_nobody_has_log(struct agree *agree)
{
	const struct agree_peer *peer;

	cds_list_for_each_entry(peer, &agree->peers, link)
		if (!uuid_is_null(&peer->log) && RULE(G2_FIRST_LOG))
			return false;
	return true;
}

void agree_make_log(struct agree *agree)
{
	struct agree_voters voters = {.count = 1};
	struct cpg_voter rows[CPG_VOTERS_MAX];

	agree->log_uuid = uuid_make(agree->random);
	agree->next_log_id = random_u64(agree->random) | 1;
	agree->disk.wants_next = true;
	agree_set_term(agree, 1);
	agree->promised = 1;
	agree->promised_to = agree->self.node;
	voters.rows[0] = (struct agree_voter){agree->self.node, agree->next_log_id};
	agree->log_id = agree->me->log_id =
		agree->next_log_id; /* nothing is said in its name before it is on disk */
	log_info("corosync: no member has a log: this one makes it");
	if (!agree_lead_append(agree, CPG_ENTRY_VOTERS, &agree->self.node, agree->self.start, 0,
			       rows, (uint32_t)agree_voters_encode(&voters, rows)))
		return;
	agree_enter(agree, AGREE_ASK, "the first log");
	agree_lead(agree);
}

/* ---- another log ---- */

static void fail_for_other_log(struct agree *agree, const struct agree_peer *peer)
{
	char ours[UUID_TEXT_SIZE], theirs[UUID_TEXT_SIZE], node[UUID_TEXT_SIZE];
	const struct uuid *own = uuid_is_null(&agree->log_uuid) ? &agree->wanted : &agree->log_uuid;

	agree_fail_text(
		agree, -E_WRONG_CLUSTER,
		"two clusters are on this channel of corosync: this node belongs to log %s, node %s "
		"to log %s. Use another channel (--cluster corosync:CHANNEL); or, if this node is "
		"to join that cluster, give it an empty directory",
		uuid_format(own, ours), uuid_format(&peer->node, node),
		uuid_format(&peer->log, theirs));
}

static bool is_more(struct agree *agree, const struct agree_peer *peer, const struct uuid *own)
{
	struct agree_voters voters;

	agree_voters_at(agree, agree_last(agree).index, &voters);
	if (peer->voter_count != voters.count)
		return peer->voter_count > voters.count;
	return memcmp(peer->log.bytes, own->bytes, sizeof(own->bytes)) < 0;
}

/*
 * A member with another log on our channel. One in which nobody joined gives way. Else it is another cluster:
 * who was here first, or has more voters, stays.
 */
bool agree_judge_other_log(struct agree *agree, const struct agree_peer *peer)
{
	bool has_log = !uuid_is_null(&agree->log_uuid);
	const struct uuid *own = has_log ? &agree->log_uuid : &agree->wanted;
	bool they_run = peer->flags & (CPG_STATE_READY | CPG_STATE_LEADS);
	bool is_born = peer->flags & CPG_STATE_BORN;

	if (uuid_is_null(own) || uuid_is_null(&peer->log) || uuid_is_equal(own, &peer->log))
		return false;
	if (has_log && agree_is_unborn(agree)) {
		bool has_leader = agree->role == AGREE_LEAD || agree->role == AGREE_FOLLOW;

		if ((is_born && they_run) ||
		    ((peer->flags & CPG_STATE_LEADS) && (!has_leader || is_more(agree, peer, own))))
			agree_drop_log(agree);
		return true;
	}
	if ((peer->flags & CPG_STATE_READY) && (!agree->is_ready || is_more(agree, peer, own))) {
		fail_for_other_log(agree, peer);
		return true;
	}
	if (is_born && agree_now(agree) >= agree->wait_log_ns) {
		char node[UUID_TEXT_SIZE];

		agree->wait_log_ns = agree_now(agree) + AGREE_WAIT_LOG_NS;
		log_warning("corosync: node %s of another cluster is on this channel",
			    uuid_format(&peer->node, node));
	}
	return true;
}
