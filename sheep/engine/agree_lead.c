/*
 * LEAD: proposals become entries; who is behind gets entries or an image.
 *
 * An entry is made when its proposal is delivered, goes to our own disk and, in batches, to all others at the same
 * time. Who cannot append what it got says what it has. It is given what it lacks, one message at a
 * time, behind what is for all, until it has all that was sent to all: from then on it takes part as
 * the others do. If we do not have the entries any more it gets the state, in chunks.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/crc32c.h"
#include "lib/base/log.h"
#include "sheep/engine/agree_priv.h"

static bool count_nodes(struct agree *agree)
{
	if (!agree_nodes_copy(&agree->nodes_end, &agree->nodes))
		return false;
	for (uint64_t i = agree->log.applied + 1; i <= agree_last(agree).index; i++)
		if (!agree_nodes_apply(&agree->nodes_end, agree_at(agree, i)))
			return false;
	return true;
}

bool agree_lead_append(struct agree *agree, uint32_t type, const struct uuid *node, uint64_t start,
		       uint64_t sequence, const void *body, uint32_t size)
{
	struct cpg_entry head = {
		.start = to_le64(start),
		.sequence = to_le64(sequence),
		.type = to_le32(type),
	};
	struct agree_entry *entry;

	memcpy(head.node, node->bytes, sizeof(head.node));
	entry = agree_entry_new(agree->term, agree_last(agree).index + 1, &head, body, size);
	if (!entry || !agree_append(agree, entry) ||
	    (agree->role == AGREE_LEAD && !agree_nodes_apply(&agree->nodes_end, entry))) {
		agree_fail_text(agree, -ENOMEM, "the log");
		return false;
	}
	agree->match = entry->index;
	return true;
}

void agree_lead(struct agree *agree)
{
	struct agree_peer *peer;

	if (!count_nodes(agree)) {
		agree_fail_text(agree, -ENOMEM, "the log");
		return;
	}
	cds_list_for_each_entry(peer, &agree->peers, link) {
		peer->is_behind = peer->gets_image = false;
		peer->flying = 0;
	}
	agree->leader = agree->self.node;
	agree->head = agree->me;
	agree->sent = agree_last(agree).index;
	agree->match = agree->sent;
	agree->told_ack = 0;
	agree->rounds = 0;
	agree->want_state = true;
	agree_enter(agree, AGREE_LEAD, "a majority promised");
	log_info("corosync: this node leads term %llu from entry %llu on",
		 (unsigned long long)agree->term, (unsigned long long)agree->sent + 1);
	if (!agree_lead_append(agree, CPG_ENTRY_TERM, &agree->self.node, agree->self.start, 0, NULL,
			       0))
		return;
	agree->term_index = agree_last(agree).index;
	agree_lead_nodes(agree);
	agree_outbox_again(agree);
}

void agree_lead_done(struct agree *agree)
{
	free(agree->image);
	agree->image = NULL;
}

/* ---- proposals ---- */

void on_proposal(struct agree *agree, struct agree_peer *peer, const struct cpg_message *message,
		 const uint8_t *body, size_t size)
{
	const struct cpg_proposal *proposal = (const void *)body;
	uint32_t length = from_le32(proposal->size);
	uint64_t sequence = from_le64(proposal->sequence);
	const struct agree_node *row;

	if (agree->role != AGREE_LEAD || !agree->votequorum || !length ||
	    length > CPG_COMMAND_MAX || size != sizeof(*proposal) + length ||
	    from_le64(message->start) != peer->start)
		return;
	/* Only the next one: then none is there twice, and none is missing before a later one. */
	row = agree_node_find(&agree->nodes_end, &peer->node);
	if (!row || row->start != peer->start || sequence != row->sequence + 1)
		return;
	(void)agree_lead_append(agree, CPG_ENTRY_COMMAND, &peer->node, peer->start, sequence,
				proposal + 1, length);
	agree_disk_go(agree);
}

/* ---- who is behind ---- */

int agree_make_image(struct agree *agree, uint8_t **out, uint64_t *size)
{
	struct engine_image user = {0};
	struct cpg_image head = {
		.magic = to_le32(CPG_IMAGE_MAGIC),
		.version = to_le32(CPG_VERSION),
		.index = to_le64(agree->log.applied),
		.term = to_le64(agree_term_at(agree, agree->log.applied)),
		.user_index = to_le64(agree->log.user_index),
		.voter_count = to_le32(agree->voters.count),
		.node_count = to_le32(agree->nodes.count),
	};
	uint8_t *data, *at;
	int rc;

	if (agree->log.user_index) {
		rc = agree->ops.snapshot(agree->context, &user);
		if (rc < 0)
			return rc;
	}
	memcpy(head.log, agree->log_uuid.bytes, sizeof(head.log));
	head.user_size = to_le64(user.size);
	*size = sizeof(head) + agree->voters.count * sizeof(struct cpg_voter) +
		agree->nodes.count * sizeof(struct cpg_node) + user.size;
	data = malloc(*size);
	if (!data) {
		free(user.data);
		return -ENOMEM;
	}
	memcpy(data, &head, sizeof(head));
	at = data + sizeof(head);
	at += agree_voters_encode(&agree->voters, (struct cpg_voter *)(void *)at);
	for (uint32_t i = 0; i < agree->nodes.count; i++) {
		const struct agree_node *row = &agree->nodes.rows[i];
		struct cpg_node node = {
			.start = to_le64(row->start),
			.sequence = to_le64(row->sequence),
			.ended = to_le32(row->ended),
		};

		memcpy(node.node, row->node.bytes, sizeof(node.node));
		memcpy(at, &node, sizeof(node));
		at += sizeof(node);
	}
	if (user.size)
		memcpy(at, user.data, user.size);
	free(user.data);
	*out = data;
	return 0;
}

static bool image_is_used(struct agree *agree)
{
	const struct agree_peer *peer;

	cds_list_for_each_entry(peer, &agree->peers, link)
		if (peer->gets_image)
			return true;
	return false;
}

/* The image that is being sent, if our entries go on behind it, or a new one: then all begin again. */
static bool have_image(struct agree *agree)
{
	struct agree_point point = {agree_term_at(agree, agree->log.applied), agree->log.applied};
	struct agree_peer *peer;

	if (agree->image && image_is_used(agree) &&
	    agree->image_point.index >= agree->log.base.index)
		return true;
	cds_list_for_each_entry(peer, &agree->peers, link)
		peer->image_offset = peer->asked_ns = 0;
	agree_lead_done(agree);
	if (agree_make_image(agree, &agree->image, &agree->image_size) < 0) {
		agree->image = NULL;
		agree->image_size = 0;
		cds_list_for_each_entry(peer, &agree->peers, link) {
			if (peer->gets_image)
				peer->gets_image = peer->is_behind = false; /* it asks again */
		}
		return false;
	}
	agree->image_crc = crc32c(agree->image, agree->image_size);
	agree->image_point = point;
	agree->stats.images_sent++;
	return true;
}

void on_need(struct agree *agree, struct agree_peer *peer, const struct cpg_message *message,
	     const uint8_t *body, size_t size)
{
	const struct cpg_need *need = (const void *)body;
	uint64_t last = from_le64(need->last_index), now = agree_now(agree);

	(void)size;
	if (agree->role != AGREE_LEAD || peer == agree->me ||
	    from_le64(message->term) != agree->term)
		return;
	if (peer->is_behind && now < peer->asked_ns + AGREE_AGAIN_NS)
		return; /* it is being helped */
	if (last > agree_last(agree).index || last < agree->log.base.index ||
	    agree_term_at(agree, last) != from_le64(need->last_term))
		last = min_of(from_le64(need->commit), agree_last(agree).index);
	peer->is_behind = true;
	peer->helped_ns = now;
	peer->gets_image = false;
	peer->flying = 0;
	peer->next = last + 1;
	peer->asked_ns = now;
	if (last < agree->log.base.index) {
		peer->gets_image = have_image(agree);
		peer->is_behind = peer->gets_image; /* else it asks again */
		peer->image_offset = 0;
		peer->asked_ns = 0;
	}
	log_debug("corosync: node %u has %llu entries: it gets %s", peer->id.node,
		  (unsigned long long)last, peer->gets_image ? "the state" : "the rest");
}

void on_received(struct agree *agree, struct agree_peer *peer, const struct cpg_message *message,
		 const uint8_t *body, size_t size)
{
	const struct cpg_received *received = (const void *)body;
	uint64_t offset = from_le64(received->offset);

	(void)size;
	if (agree->role != AGREE_LEAD || from_le64(message->term) != agree->term ||
	    !peer->gets_image || from_le64(received->index) != agree->image_point.index)
		return;
	peer->image_offset = min_of(offset, agree->image_size);
	peer->asked_ns = 0;
	peer->helped_ns = agree_now(agree);
	if (peer->image_offset < agree->image_size)
		return;
	peer->gets_image = false;
	peer->next = agree->image_point.index + 1;
	peer->flying = 0;
	if (!image_is_used(agree))
		agree_lead_done(agree);
	if (peer->next <= agree->log.base.index) { /* it took that long */
		peer->gets_image = have_image(agree);
		peer->is_behind = peer->gets_image;
		peer->image_offset = 0;
	}
}
