/*
 * The disk: frames of records, one write and sync at a time, the next file, images.
 *
 * All that waits goes into the next frame: the promise, and entries that were not written. A record of an entry
 * stands in place of all of its index and above, so nothing is ever cut off, and what a power cut
 * leaves is what was written up to some frame.
 *
 * Compaction: an image of what is applied is written besides; then the next log file begins with a HEAD
 * that names it and all entries behind it; then older files go. The same way goes an image that
 * we were given, the first log, and each start: a file is never appended to that an earlier
 * process wrote to.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/crc32c.h"
#include "lib/base/log.h"
#include "sheep/engine/agree_priv.h"

static bool add_record(struct agree *agree, uint32_t type, const void *body, size_t size,
		       const void *more, size_t more_size)
{
	struct agree_bytes *frame = &agree->disk.frame;
	struct cpg_record record = {to_le32(type), to_le32((uint32_t)(size + more_size))};

	return agree_bytes_add(frame, &record, sizeof(record)) &&
	       agree_bytes_add(frame, body, size) && agree_bytes_add(frame, more, more_size);
}

static bool add_head(struct agree *agree)
{
	const struct agree_disk *disk = &agree->disk;
	struct cpg_head head = {
		.version = to_le32(CPG_VERSION),
		.image_crc = to_le32(disk->image_crc),
		.log_id = to_le64(disk->flying_log_id),
		.image_file = to_le64(disk->image_file),
		.image_size = to_le64(disk->image_size),
		.image_index = to_le64(disk->image.index),
		.image_term = to_le64(disk->image.term),
	};

	memcpy(head.log, agree->log_uuid.bytes, sizeof(head.log));
	memcpy(head.node, agree->self.node.bytes, sizeof(head.node));
	return add_record(agree, CPG_RECORD_HEAD, &head, sizeof(head), NULL, 0);
}

static bool add_promise(struct agree *agree)
{
	struct cpg_promise promise = {.term = to_le64(agree->promised)};

	memcpy(promise.node, agree->promised_to.bytes, sizeof(promise.node));
	return add_record(agree, CPG_RECORD_PROMISE, &promise, sizeof(promise), NULL, 0);
}

/* From @index on, as many as a frame may have. */
static bool add_entries(struct agree *agree, uint64_t index, size_t size_max)
{
	uint64_t last = agree_last(agree).index;

	for (; index <= last && agree->disk.frame.size < size_max; index++) {
		const struct agree_entry *entry = agree_at(agree, index);
		struct cpg_entry head;

		agree_entry_encode(entry, &head);
		if (!add_record(agree, CPG_RECORD_ENTRY, &head, sizeof(head), entry->body,
				entry->size))
			return false;
		agree->log.saved = index;
	}
	return true;
}

static bool build(struct agree *agree)
{
	struct agree_disk *disk = &agree->disk;
	struct cpg_frame frame = {.magic = to_le32(CPG_FRAME_MAGIC)};
	bool is_well;

	disk->frame.size = 0;
	if (!agree_bytes_add(&disk->frame, &frame, sizeof(frame)))
		return false;
	if (disk->is_next) {
		agree->log.saved = max_of(agree->log.saved, disk->image.index);
		is_well = add_head(agree) && add_promise(agree) &&
			  add_entries(agree, disk->image.index + 1, SIZE_MAX);
	} else {
		is_well = (agree->promised == agree->promise_durable || add_promise(agree)) &&
			  add_entries(agree, agree->log.saved + 1, AGREE_FRAME_MAX);
	}
	frame.size = to_le64(disk->frame.size);
	frame.file = to_le64(disk->is_next ? disk->file + 1 : disk->file);
	frame.number = to_le64(disk->is_next ? 0 : disk->frames);
	frame.commit = to_le64(agree->log.commit);
	memcpy(disk->frame.data, &frame, sizeof(frame));
	frame.crc = to_le32(crc32c(disk->frame.data, disk->frame.size));
	memcpy(disk->frame.data, &frame, sizeof(frame));
	return is_well;
}

void agree_disk_go(struct agree *agree)
{
	struct agree_disk *disk = &agree->disk;

	if (disk->is_writing || agree->has_failed || agree->has_left ||
	    uuid_is_null(&agree->log_uuid))
		return;
	if (!disk->wants_next && agree->promised == agree->promise_durable &&
	    agree->log.saved == agree_last(agree).index &&
	    (!agree->wants_ready || disk->is_founded || !agree->nodes.count))
		return;
	disk->is_next = disk->wants_next;
	disk->wants_next = false;
	disk->flying_log_id = agree->next_log_id ? agree->next_log_id : agree->log_id;
	disk->flying_promise = agree->promised;
	if (!build(agree)) {
		agree_fail_text(agree, -ENOMEM, "a frame of the log");
		return;
	}
	disk->flying = agree->log.saved;
	disk->flying_founded = agree->nodes.count && agree->log.saved >= agree->log.commit;
	disk->is_writing = true;
	agree->stats.frames++;
	if (disk->is_next)
		agree->ops.write_next(agree->context, disk->file + 1, disk->frame.data,
				      disk->frame.size);
	else
		agree->ops.write(agree->context, disk->frame.data, disk->frame.size);
}

static void next_done(struct agree *agree)
{
	struct agree_disk *disk = &agree->disk;

	disk->file++;
	disk->frames = 0;
	disk->written = 0;
	if (disk->flying_log_id == agree->next_log_id)
		agree->next_log_id = 0;
	if (agree->log_id != disk->flying_log_id) {
		agree->told_ack = 0; /* by that copy nothing was acknowledged */
		agree->want_ack = true;
	}
	agree->log_id = disk->flying_log_id;
	if (agree->me && agree->me->log_id != agree->log_id) {
		agree->me->log_id = agree->log_id;
		agree->me->acked = 0;
	}
	agree->want_state = true;
	agree->ops.remove_below(agree->context, AGREE_FILE_LOG, disk->file);
	if (!disk->wants_next) /* what the next one names is on its way */
		agree->ops.remove_below(agree->context, AGREE_FILE_IMAGE, disk->image_file);
}

/* Returns to agree.c, which takes the input to its end. */
void agree_take_written(struct agree *agree, int rc)
{
	struct agree_disk *disk = &agree->disk;

	assert(disk->is_writing);
	disk->is_writing = false;
	if (agree->has_failed)
		return;
	if (rc < 0) {
		agree_fail_text(agree, rc, "the log cannot be written: %s", err_text(rc));
		return;
	}
	if (disk->is_next)
		next_done(agree);
	disk->frames++;
	disk->written += disk->frame.size;
	agree->log.durable = max_of(agree->log.durable, disk->flying);
	agree->promise_durable = max_of(agree->promise_durable, disk->flying_promise);
	disk->is_founded |= disk->flying_founded;
	if (agree->wants_ready && disk->is_founded)
		agree_become_ready(agree);
	if (agree_own_ack(agree) > agree->told_ack)
		agree->want_ack = true;
	agree_count_votes(agree);
	agree_count_acks(agree);
	agree_lead_nodes(agree);
	agree_disk_go(agree);
}

void agree_renew_copy(struct agree *agree)
{
	if (agree->is_leaving)
		return;
	log_warning(
		"corosync: this node's copy of the log was struck from the voters: it is registered "
		"anew");
	agree->next_log_id = random_u64(agree->random) | 1;
	agree->disk.wants_next = true;
}

/* ---- images ---- */

static void write_image(struct agree *agree, uint8_t *data, uint64_t size, struct agree_point point,
			bool is_received)
{
	struct agree_disk *disk = &agree->disk;

	disk->is_imaging = true;
	disk->is_received = is_received;
	disk->image_data = data;
	disk->image_data_size = size;
	disk->image_data_crc = crc32c(data, size);
	disk->image_point = point;
	disk->newest_image++;
	agree->ops.write_image(agree->context, disk->newest_image, data, size);
}

void agree_compact_go(struct agree *agree)
{
	struct agree_disk *disk = &agree->disk;
	uint64_t limit = agree->compact_bytes, size;
	struct agree_point point = {agree_term_at(agree, agree->log.applied), agree->log.applied};
	uint8_t *data;

	if (!limit)
		limit = max_of((uint64_t)AGREE_COMPACT_BYTES, 2 * disk->image_size);
	if (disk->is_imaging || disk->wants_next || (disk->is_writing && disk->is_next) ||
	    disk->written < limit || point.index <= disk->image.index || !agree->is_ready ||
	    !agree_is_open(agree) || agree_now(agree) < agree->snapshot_again_ns)
		return;
	if (agree_make_image(agree, &data, &size) < 0) {
		agree->snapshot_again_ns = agree_now(agree) + NS_PER_S;
		return;
	}
	write_image(agree, data, size, point, false);
}

/* The last entry that nobody who is being helped needs from us. */
static uint64_t not_needed(struct agree *agree)
{
	uint64_t end = agree->disk.image.index, now = agree_now(agree);
	const struct agree_peer *peer;

	if (agree->role != AGREE_LEAD)
		return end;
	end = min_of(end, agree->sent); /* alone we commit before the others hear of it */
	cds_list_for_each_entry(peer, &agree->peers, link) {
		if (!peer->is_behind || now > peer->helped_ns + AGREE_HELP_NS)
			continue;
		end = min_of(end, peer->gets_image ? agree->image_point.index : peer->next - 1);
	}
	return end;
}

/* Some of what the image has is kept, for members that are only a little behind. */
static void forget_entries(struct agree *agree)
{
	uint64_t keep = agree->compact_bytes ? agree->compact_bytes / 2 : AGREE_COMPACT_BYTES / 2;
	uint64_t index = agree->log.base.index, end = not_needed(agree);
	size_t bytes = agree->log.bytes;

	while (bytes > keep && index < end) {
		const struct agree_entry *entry = agree_at(agree, ++index);

		bytes -= sizeof(*entry) + entry->size;
	}
	agree_drop(agree, index);
}

void agree_take_image(struct agree *agree)
{
	uint64_t size = agree->part.size;
	struct agree_point point = {0, from_le64(agree->part_head.index)};
	uint8_t *data = agree->part.data;

	if (agree->disk.is_imaging || size == 0 || size != from_le64(agree->part_head.size))
		return;
	agree->part = (struct agree_bytes){0};
	if (crc32c(data, size) != from_le32(agree->part_head.crc)) {
		log_warning("corosync: an image came damaged: it is asked for again");
		free(data);
		return;
	}
	write_image(agree, data, size, point, true);
}

void agree_take_image_written(struct agree *agree, int rc)
{
	struct agree_disk *disk = &agree->disk;

	assert(disk->is_imaging);
	disk->is_imaging = false;
	if (!agree->has_failed && rc < 0)
		agree_fail_text(agree, rc, "an image cannot be written: %s", err_text(rc));
	if (!agree->has_failed && disk->is_received) {
		agree_install(agree);
	} else if (!agree->has_failed && disk->image_point.index > disk->image.index) {
		disk->image = disk->image_point;
		disk->image_file = disk->newest_image;
		disk->image_size = disk->image_data_size;
		disk->image_crc = disk->image_data_crc;
		disk->wants_next = true;
		forget_entries(agree);
	}
	free(disk->image_data);
	disk->image_data = NULL;
	if (!agree->has_failed) {
		agree_take_image(agree); /* one may have come in the meantime */
		agree_disk_go(agree);
	}
}

void agree_disk_done(struct agree *agree)
{
	free(agree->disk.frame.data);
	free(agree->disk.image_data);
	agree->disk.frame = (struct agree_bytes){0};
	agree->disk.image_data = NULL;
}
