/*
 * Our own proposals: kept until they are seen committed, sent in the order in which they came, at most
 * AGREE_FLIGHT_MAX bytes ahead.
 *
 * A leader appends only the next one of each start, so those that are sent again do no harm, and what was lost is
 * sent again with all behind it: when another leader appears, or nothing has been committed for a
 * while.
 *
 * Nothing that was taken is lost as long as we live. So a command that waits here already is not taken twice: a user
 * who asks again and again while there is no quorum would else flood the log when it is back.
 */
#include <stdlib.h>
#include <string.h>

#include "sheep/engine/agree_priv.h"

/* The one behind; NULL: @proposal is the last. */
static struct agree_proposal *behind(struct agree *agree, const struct agree_proposal *proposal)
{
	if (proposal->link.next == &agree->proposals)
		return NULL;
	return cds_list_entry(proposal->link.next, struct agree_proposal, link);
}

static bool is_waiting(const struct agree *agree, const void *command, uint32_t size)
{
	const struct agree_proposal *proposal;

	cds_list_for_each_entry(proposal, &agree->proposals, link)
		if (proposal->size == size && memcmp(proposal->body, command, size) == 0)
			return true;
	return false;
}

int agree_propose(struct agree *agree, const void *command, uint32_t size)
{
	struct agree_proposal *proposal;

	if (!agree_is_open(agree))
		return -E_SHUTDOWN;
	if (is_waiting(agree, command, size))
		return 0;
	if (agree->proposal_count == ENGINE_QUEUE_COUNT ||
	    agree->proposal_bytes + size > ENGINE_QUEUE_MAX)
		return -EAGAIN;
	proposal = malloc(sizeof(*proposal) + size);
	if (!proposal)
		return -EAGAIN;
	proposal->sequence = ++agree->next_sequence;
	proposal->size = size;
	memcpy(proposal->body, command, size);
	cds_list_add_tail(&proposal->link, &agree->proposals);
	if (!agree->unsent)
		agree->unsent = proposal;
	agree->proposal_count++;
	agree->proposal_bytes += size;
	if (!agree->is_inside)
		agree_pump(agree);
	return 0;
}

void agree_outbox_seen(struct agree *agree, uint64_t sequence)
{
	struct agree_proposal *proposal, *next;

	cds_list_for_each_entry_safe(proposal, next, &agree->proposals, link) {
		if (proposal->sequence > sequence)
			break;
		agree->proposal_count--;
		agree->proposal_bytes -= proposal->size;
		if (proposal->sequence <= agree->sent_sequence)
			agree->flying_bytes -= proposal->size;
		if (agree->unsent == proposal)
			agree->unsent = behind(agree, proposal);
		cds_list_del(&proposal->link);
		free(proposal);
	}
	agree->sent_sequence = max_of(agree->sent_sequence, sequence);
	agree->proposed_ns = agree_now(agree);
}

void agree_outbox_again(struct agree *agree)
{
	struct agree_proposal *proposal;

	if (cds_list_empty(&agree->proposals))
		return;
	proposal = cds_list_first_entry(&agree->proposals, struct agree_proposal, link);
	if (agree->sent_sequence >= proposal->sequence)
		agree->stats.proposals_again += agree->sent_sequence - proposal->sequence + 1;
	agree->sent_sequence = proposal->sequence - 1;
	agree->unsent = proposal;
	agree->flying_bytes = 0;
}

const struct agree_proposal *agree_outbox_next(struct agree *agree)
{
	const struct agree_node *row;

	if ((agree->role != AGREE_FOLLOW && agree->role != AGREE_LEAD) || !agree->votequorum ||
	    !agree->unsent || agree->flying_bytes >= AGREE_FLIGHT_MAX)
		return NULL;
	row = agree_node_find(&agree->nodes, &agree->self.node);
	if (!row || row->start != agree->self.start)
		return NULL; /* it would not be taken yet */
	assert(agree->unsent->sequence == agree->sent_sequence + 1);
	return agree->unsent;
}

void agree_outbox_sent(struct agree *agree, const struct agree_proposal *proposal)
{
	if (!agree->flying_bytes)
		agree->proposed_ns = agree_now(agree);
	agree->sent_sequence = proposal->sequence;
	agree->unsent = behind(agree, proposal);
	agree->flying_bytes += proposal->size;
}

void agree_outbox_done(struct agree *agree)
{
	struct agree_proposal *proposal, *next;

	cds_list_for_each_entry_safe(proposal, next, &agree->proposals, link)
		free(proposal);
	CDS_INIT_LIST_HEAD(&agree->proposals);
	agree->unsent = NULL;
}
