/*
 * FOLLOW: the leader's log becomes ours.
 *
 * A message of entries names the one before its first. If ours has that one, in the same term, the logs are
 * equal up to there; what stands behind it and differs goes. If not, we say what we have and get
 * what is missing, or the state in place of it. What is on disk is acknowledged.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/crc32c.h"
#include "lib/base/log.h"
#include "sheep/engine/agree_priv.h"

static bool is_for_us(const struct agree *agree, le32 node, le32 pid)
{
	return (!from_le32(node) && !from_le32(pid)) ||
	       (from_le32(node) == agree->self_id.node && from_le32(pid) == agree->self_id.pid);
}

/* We have no log yet: that of the first leader that we hear is ours. */
static bool adopt(struct agree *agree, const struct cpg_message *message)
{
	struct uuid log;

	memcpy(log.bytes, message->log, sizeof(log.bytes));
	if (uuid_is_null(&log) ||
	    (!uuid_is_null(&agree->wanted) && !uuid_is_equal(&agree->wanted, &log)))
		return false;
	if (!uuid_is_null(&agree->log_uuid))
		return uuid_is_equal(&agree->log_uuid, &log);
	agree->log_uuid = log;
	agree->next_log_id = random_u64(agree->random) | 1;
	agree->disk.wants_next = true;
	agree_disk_go(agree);
	return true;
}

/* Whoever sends entries of a term leads it. */
static bool follow(struct agree *agree, struct agree_peer *peer, uint64_t term)
{
	if (term < agree->term && RULE(G1_OLD_TERM))
		return false;
	if (peer == agree->me)
		return false;
	if (term > agree->term)
		agree_set_term(agree, term);
	else if (agree->role == AGREE_LEAD)
		return false;
	agree->heard_ns = agree_now(agree);
	peer->is_skipped = false;
	if (agree->role == AGREE_FOLLOW && agree->head == peer)
		return true;
	agree->leader = peer->node;
	agree->head = peer;
	agree->match = 0;
	agree->told_ack = 0;
	agree->want_ack = true;
	agree->need_ns = 0;
	agree->rounds = 0;
	agree_enter(agree, AGREE_FOLLOW, "a leader");
	agree_outbox_again(agree);
	if (!RULE(G3_READY))
		agree_become_ready(agree);
	return true;
}

static bool has_previous(struct agree *agree, struct agree_point previous)
{
	if (previous.index <= agree->log.commit)
		return true;
	if (previous.index > agree_last(agree).index)
		return false;
	return agree_term_at(agree, previous.index) == previous.term || !RULE(G1_PREVIOUS);
}

static void ask_for_more(struct agree *agree)
{
	uint64_t now = agree_now(agree);

	if (now < agree->need_ns)
		return;
	if (agree->disk.is_imaging && agree->disk.is_received)
		return; /* what is missing is here, and being synced */
	agree->need_ns = now + AGREE_AGAIN_NS;
	agree->want_need = true;
}

/* One entry from the leader; false: stop here. */
static bool take(struct agree *agree, const struct cpg_entry *head, const uint8_t *body)
{
	uint64_t index = from_le64(head->index), term = from_le64(head->term);
	struct agree_entry *entry;

	if (index <= agree->log.base.index)
		return true;
	if (index <= agree_last(agree).index) {
		if (agree_term_at(agree, index) == term)
			return true;
		if (index <= agree->log.commit) {
			agree_fail_text(
				agree, -E_CORRUPT,
				"entry %llu is committed here in term %llu, and the leader has it in "
				"term %llu: the logs differ",
				(unsigned long long)index,
				(unsigned long long)agree_term_at(agree, index),
				(unsigned long long)term);
			return false;
		}
		agree_truncate(agree, index);
	}
	entry = agree_entry_new(term, index, head, body, from_le32(head->size));
	if (!entry || !agree_append(agree, entry)) {
		agree_fail_text(agree, -ENOMEM, "the log");
		return false;
	}
	return true;
}

/* The entries of a message, checked whole before any is taken. */
static bool are_valid(const struct cpg_entries *entries, size_t size, uint64_t term)
{
	const uint8_t *at = (const uint8_t *)(entries + 1);
	size_t left = size - sizeof(*entries);
	uint64_t index = from_le64(entries->previous_index);

	for (uint32_t i = 0; i < from_le32(entries->count); i++) {
		const struct cpg_entry *entry = (const void *)at;

		if (left < sizeof(*entry) || !agree_entry_is_valid(entry, left - sizeof(*entry)) ||
		    from_le64(entry->index) != ++index || from_le64(entry->term) > term)
			return false;
		at += sizeof(*entry) + from_le32(entry->size);
		left -= sizeof(*entry) + from_le32(entry->size);
	}
	return left == 0;
}

static void take_all(struct agree *agree, const struct cpg_entries *entries)
{
	const uint8_t *at = (const uint8_t *)(entries + 1);
	uint64_t index = from_le64(entries->previous_index);

	for (uint32_t i = 0; i < from_le32(entries->count); i++) {
		const struct cpg_entry *entry = (const void *)at;

		if (!take(agree, entry, at + sizeof(*entry)))
			return;
		index = from_le64(entry->index);
		at += sizeof(*entry) + from_le32(entry->size);
	}
	agree->match = max_of(agree->match, index);
}

void on_entries(struct agree *agree, struct agree_peer *peer, const struct cpg_message *message,
		const uint8_t *body, size_t size)
{
	const struct cpg_entries *entries = (const void *)body;
	struct agree_point previous = {from_le64(entries->previous_term),
				       from_le64(entries->previous_index)};
	uint64_t term = from_le64(message->term), commit = from_le64(entries->commit);

	if (!peer->is_known || !are_valid(entries, size, term) || !adopt(agree, message) ||
	    !follow(agree, peer, term) || !is_for_us(agree, entries->to_node, entries->to_pid))
		return;
	if (!has_previous(agree, previous)) {
		ask_for_more(agree);
		return;
	}
	if (from_le32(entries->count))
		agree->need_ns = 0;
	take_all(agree, entries);
	if (agree->has_failed)
		return;
	agree_disk_go(agree);
	if (agree_own_ack(agree) > agree->told_ack)
		agree->want_ack = true;
	if (agree->votequorum)
		agree_commit_to(agree,
				RULE(G1_COMMIT_MATCH) ? min_of(commit, agree->match) : commit);
	agree_count_acks(agree);
}

/* ---- the state in place of entries ---- */

static void answer_part(struct agree *agree, uint64_t index, uint64_t offset)
{
	agree->received = (struct cpg_received){to_le64(index), to_le64(offset)};
	agree->want_received = true;
}

static bool begin_part(struct agree *agree, const struct cpg_part *part)
{
	uint64_t size = from_le64(part->size);

	if (size < sizeof(struct cpg_image) || size > ENGINE_IMAGE_MAX + MIB)
		return false;
	agree->part.size = 0;
	agree->part_head = *part;
	return true;
}

void on_image(struct agree *agree, struct agree_peer *peer, const struct cpg_message *message,
	      const uint8_t *body, size_t size)
{
	const struct cpg_part *part = (const void *)body;
	uint64_t index = from_le64(part->index), offset = from_le64(part->offset);
	uint32_t length = from_le32(part->length);

	if (size != sizeof(*part) + length || !adopt(agree, message) ||
	    !follow(agree, peer, from_le64(message->term)) ||
	    !is_for_us(agree, part->to_node, part->to_pid))
		return;
	agree->need_ns = agree_now(agree) + AGREE_AGAIN_NS * 4;
	if (index <= agree->log.applied) { /* not needed any more */
		answer_part(agree, index, from_le64(part->size));
		return;
	}
	if (offset == 0 && !begin_part(agree, part))
		return;
	if (index != from_le64(agree->part_head.index) ||
	    part->crc.raw != agree->part_head.crc.raw || offset != agree->part.size ||
	    offset + length > from_le64(agree->part_head.size)) {
		if (index == from_le64(agree->part_head.index))
			answer_part(agree, index, agree->part.size);
		return;
	}
	if (!agree_bytes_add(&agree->part, part + 1, length)) {
		agree_fail_text(agree, -ENOMEM, "an image of %llu bytes",
				(unsigned long long)from_le64(part->size));
		return;
	}
	if (agree->part.size < from_le64(agree->part_head.size))
		answer_part(agree, index, agree->part.size);
	else
		agree_take_image(agree);
}

void agree_install(struct agree *agree)
{
	struct agree_disk *disk = &agree->disk;
	struct agree_voters voters;
	struct agree_nodes nodes = {0};
	const struct agree_node *row;
	const uint8_t *user;
	struct cpg_image head;
	struct error err = {0};
	uint64_t index, user_index;
	bool was_voter;

	if (!agree_image_parse(disk->image_data, disk->image_data_size, &head, &voters, &nodes,
			       &user)) {
		agree_nodes_done(&nodes);
		return;
	}
	if (memcmp(head.log, agree->log_uuid.bytes, sizeof(head.log)) != 0) {
		log_warning("corosync: an image of another log came: it is not taken");
		agree_nodes_done(&nodes);
		return;
	}
	index = from_le64(head.index);
	if (index <= agree->log.applied) {
		agree_nodes_done(&nodes);
		answer_part(agree, index, disk->image_data_size);
		return;
	}
	user_index = from_le64(head.user_index);
	if (agree_term_at(agree, index) ==
	    from_le64(head.term)) { /* the entries behind it are good */
		agree->log.voter_entries = 0;
		for (uint64_t i = index + 1; i <= agree_last(agree).index; i++)
			agree->log.voter_entries += agree_at(agree, i)->type == CPG_ENTRY_VOTERS;
		agree->log.commit = agree->log.applied = index;
		agree_drop(agree, index);
		agree->log.durable = 0;
		disk->flying = 0;
	} else {
		agree_log_reset(agree, (struct agree_point){from_le64(head.term), index});
	}
	agree->match = min_of(max_of(agree->match, index), agree_last(agree).index);
	disk->image = (struct agree_point){from_le64(head.term), index};
	disk->image_file = disk->newest_image;
	disk->image_size = disk->image_data_size;
	disk->image_crc = disk->image_data_crc;
	disk->wants_next = true;
	was_voter = agree_voters_have(&agree->voters, &agree->self.node, agree->log_id);
	agree->voters = voters;
	agree_nodes_done(&agree->nodes);
	agree->nodes = nodes;
	if ((was_voter || agree->has_restored) &&
	    !agree_voters_have(&voters, &agree->self.node, agree->log_id))
		agree_renew_copy(agree);
	agree->stats.images_taken++;
	log_debug("corosync: the state at entry %llu came", (unsigned long long)index);
	if (user_index > agree->log.user_index) {
		agree->log.user_index = user_index;
		if (agree_is_open(agree) &&
		    agree->ops.install(agree->context, user_index, user, from_le64(head.user_size),
				       &err) < 0) {
			agree_fail(agree, &err);
			return;
		}
	}
	row = agree_node_find(&agree->nodes, &agree->self.node);
	if (row && row->start == agree->self.start) {
		agree_outbox_seen(agree, row->sequence);
		agree_become_ready(agree);
	}
	agree->need_ns = 0;
	answer_part(agree, index, disk->image_data_size);
	agree_disk_go(agree);
}

void agree_follow_done(struct agree *agree)
{
	free(agree->part.data);
	agree->part = (struct agree_bytes){0};
}
