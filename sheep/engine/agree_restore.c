/*
 * Reading the files at the start.
 *
 * The newest log file whose first frame is whole is the log, with the image that it names. A newer one without a whole first
 * frame was being made when the power went. In a file, frames are read while they are whole; the one that is
 * not was being written, unless a later one stands behind it: then a part of the log that was
 * acknowledged is damaged, and nothing is guessed.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/crc32c.h"
#include "lib/base/log.h"
#include "sheep/engine/agree_priv.h"

typedef int read_file(void *context, enum agree_file kind, uint64_t number, void **data,
		      size_t *size);

/* A whole frame at @at? */
static bool frame_is_whole(const uint8_t *at, size_t left, uint64_t file, struct cpg_frame *out)
{
	struct cpg_frame frame;
	uint32_t crc;

	if (left < sizeof(frame))
		return false;
	memcpy(&frame, at, sizeof(frame));
	*out = frame;
	if (from_le32(frame.magic) != CPG_FRAME_MAGIC || from_le64(frame.file) != file ||
	    from_le64(frame.size) < sizeof(frame) || from_le64(frame.size) > left)
		return false;
	frame.crc = to_le32(0);
	crc = crc32c(&frame, sizeof(frame));
	crc = crc32c_extend(crc, at + sizeof(frame), from_le64(frame.size) - sizeof(frame));
	return crc == from_le32(out->crc);
}

/* Is there a whole frame behind the broken one at @at that was written after it? */
static bool has_later_frame(const uint8_t *at, size_t left, uint64_t file, uint64_t number)
{
	struct cpg_frame frame;

	for (size_t i = 1; i + sizeof(frame) <= left; i++)
		if (at[i] == (CPG_FRAME_MAGIC & 0xff) &&
		    frame_is_whole(at + i, left - i, file, &frame) &&
		    from_le64(frame.number) > number)
			return true;
	return false;
}

/* ---- records ---- */

static int take_head(struct agree *agree, const uint8_t *body, size_t size, struct error *err)
{
	struct cpg_head head;
	struct uuid node;
	char ours[UUID_TEXT_SIZE], theirs[UUID_TEXT_SIZE];

	if (size < sizeof(head))
		return -E_CORRUPT;
	memcpy(&head, body, sizeof(head));
	if (from_le32(head.version) != CPG_VERSION)
		return error_set(
			err, -E_WRONG_VERSION,
			"the log is of version %u, this sheep knows %u: use the one that wrote it",
			from_le32(head.version), CPG_VERSION);
	memcpy(node.bytes, head.node, sizeof(node.bytes));
	memcpy(agree->log_uuid.bytes, head.log, sizeof(head.log));
	if (!uuid_is_equal(&node, &agree->self.node))
		return error_set(
			err, -E_WRONG_CLUSTER,
			"the log belongs to node %s, this is node %s: a copied directory cannot be used",
			uuid_format(&node, theirs), uuid_format(&agree->self.node, ours));
	if (!uuid_is_null(&agree->wanted) && !uuid_is_equal(&agree->wanted, &agree->log_uuid))
		return error_set(
			err, -E_WRONG_CLUSTER,
			"the log is %s, this node belongs to %s: put the right files there, or empty "
			"the directory",
			uuid_format(&agree->log_uuid, theirs), uuid_format(&agree->wanted, ours));
	agree->log_id = from_le64(head.log_id);
	agree->disk.image_file = from_le64(head.image_file);
	agree->disk.image_size = from_le64(head.image_size);
	agree->disk.image_crc = from_le32(head.image_crc);
	agree->disk.image =
		(struct agree_point){from_le64(head.image_term), from_le64(head.image_index)};
	agree->log.base = agree->disk.image;
	agree->log.commit = agree->log.applied = agree->log.base.index;
	return 0;
}

static int take_promise(struct agree *agree, const uint8_t *body, size_t size)
{
	struct cpg_promise promise;

	if (size < sizeof(promise))
		return -E_CORRUPT;
	memcpy(&promise, body, sizeof(promise));
	agree->promised = from_le64(promise.term);
	memcpy(agree->promised_to.bytes, promise.node, sizeof(promise.node));
	return 0;
}

static int take_entry(struct agree *agree, const uint8_t *body, size_t size)
{
	const struct cpg_entry *head = (const void *)body;
	struct agree_entry *entry;
	uint64_t index;

	if (size < sizeof(*head) || !agree_entry_is_valid(head, size - sizeof(*head)) ||
	    from_le32(head->size) != size - sizeof(*head))
		return -E_CORRUPT;
	index = from_le64(head->index);
	if (index <= agree->log.base.index)
		return 0;
	if (index > agree_last(agree).index + 1)
		return -E_CORRUPT;
	if (index <= agree_last(agree).index)
		agree_truncate(agree, index);
	entry = agree_entry_new(from_le64(head->term), index, head, head + 1,
				from_le32(head->size));
	if (!entry || !agree_append(agree, entry))
		return -ENOMEM;
	return 0;
}

static int take_frame(struct agree *agree, const uint8_t *at, size_t size, struct error *err)
{
	bool is_first = true;

	while (size >= sizeof(struct cpg_record)) {
		struct cpg_record record;
		uint32_t type, length;
		int rc = 0;

		memcpy(&record, at, sizeof(record));
		type = from_le32(record.type);
		length = from_le32(record.size);
		at += sizeof(record);
		size -= sizeof(record);
		if (length > size)
			return -E_CORRUPT;
		if (type == CPG_RECORD_HEAD)
			rc = is_first ? take_head(agree, at, length, err) : -E_CORRUPT;
		else if (type == CPG_RECORD_PROMISE)
			rc = take_promise(agree, at, length);
		else if (type == CPG_RECORD_ENTRY)
			rc = take_entry(agree, at, length);
		if (rc < 0)
			return rc;
		is_first = false;
		at += length;
		size -= length;
	}
	return size ? -E_CORRUPT : 0;
}

/* 0, -ENOENT: the first frame is not whole and nothing is behind it. */
static int take_file(struct agree *agree, uint64_t file, const uint8_t *data, size_t size,
		     uint64_t *commit, struct error *err)
{
	size_t offset = 0;
	uint64_t number = 0;

	for (; offset < size; number++) {
		struct cpg_frame frame;
		int rc;

		if (!frame_is_whole(data + offset, size - offset, file, &frame) ||
		    from_le64(frame.number) != number)
			break;
		*commit = max_of(*commit, from_le64(frame.commit));
		rc = take_frame(agree, data + offset + sizeof(frame),
				from_le64(frame.size) - sizeof(frame), err);
		if (rc < 0) {
			if (err->code == 0)
				error_set(err, rc,
					  "file %llu: frame %llu at byte %zu is not understood",
					  (unsigned long long)file, (unsigned long long)number,
					  offset);
			return rc;
		}
		offset += from_le64(frame.size);
	}
	if (offset < size && has_later_frame(data + offset, size - offset, file, number))
		return error_set(
			err, -E_CORRUPT,
			"file %llu is damaged at byte %zu: empty the directory, and this node gets the "
			"log from the others",
			(unsigned long long)file, offset);
	return number ? 0 : -ENOENT;
}

/* ---- images ---- */

static void parse_nodes(const struct cpg_node *from, uint32_t count, struct agree_nodes *out)
{
	for (uint32_t i = 0; i < count; i++) {
		struct agree_node *row = &out->rows[i];

		memcpy(row->node.bytes, from[i].node, sizeof(from[i].node));
		row->start = from_le64(from[i].start);
		row->sequence = from_le64(from[i].sequence);
		row->ended = from_le32(from[i].ended);
	}
	out->count = count;
}

bool agree_image_parse(const uint8_t *data, uint64_t size, struct cpg_image *head,
		       struct agree_voters *voters, struct agree_nodes *nodes, const uint8_t **user)
{
	uint64_t tables;
	uint32_t voter_count, node_count;

	if (size < sizeof(*head))
		return false;
	memcpy(head, data, sizeof(*head));
	voter_count = from_le32(head->voter_count);
	node_count = from_le32(head->node_count);
	if (from_le32(head->magic) != CPG_IMAGE_MAGIC || from_le32(head->version) != CPG_VERSION ||
	    voter_count > CPG_VOTERS_MAX || node_count > CPG_NODES_MAX + 1)
		return false;
	tables = sizeof(*head) + voter_count * sizeof(struct cpg_voter) +
		 node_count * sizeof(struct cpg_node);
	if (size < tables || from_le64(head->user_size) != size - tables)
		return false;
	data += sizeof(*head);
	if (!agree_voters_parse(data, voter_count * sizeof(struct cpg_voter), voters))
		return false;
	data += voter_count * sizeof(struct cpg_voter);
	nodes->rows = malloc((node_count + 1) * sizeof(*nodes->rows));
	if (!nodes->rows)
		return false;
	nodes->room = node_count + 1;
	parse_nodes((const void *)data, node_count, nodes);
	*user = data + node_count * sizeof(struct cpg_node);
	return true;
}

static int take_image(struct agree *agree, const uint8_t *data, size_t size, struct error *err)
{
	struct agree_disk *disk = &agree->disk;
	struct cpg_image head;
	const uint8_t *user;

	if (size != disk->image_size || crc32c(data, size) != disk->image_crc ||
	    !agree_image_parse(data, size, &head, &agree->voters, &agree->nodes, &user) ||
	    from_le64(head.index) != disk->image.index ||
	    memcmp(head.log, agree->log_uuid.bytes, sizeof(head.log)) != 0)
		return error_set(
			err, -E_CORRUPT,
			"image %llu is damaged: empty the directory, and this node gets the log from "
			"the others",
			(unsigned long long)disk->image_file);
	agree->restored_index = from_le64(head.user_index);
	agree->restored_user = (size_t)(user - data);
	return 0;
}

static int read_image(struct agree *agree, read_file *read, struct error *err)
{
	void *data = NULL;
	size_t size = 0;
	int rc;

	if (!agree->disk.image_file)
		return 0;
	rc = read(agree->context, AGREE_FILE_IMAGE, agree->disk.image_file, &data, &size);
	if (rc < 0)
		return error_set(err, rc, "image %llu", (unsigned long long)agree->disk.image_file);
	rc = take_image(agree, data, size, err);
	if (rc < 0) {
		free(data);
		return rc;
	}
	agree->restored = data;
	agree->restored_size = size;
	return 0;
}

int agree_restore(struct agree *agree, const uint64_t *numbers, uint32_t count, read_file *read,
		  struct error *err)
{
	struct agree_log *log = &agree->log;
	struct error own = {0};
	uint64_t commit = 0;
	int rc = -ENOENT;

	assert(agree->role == AGREE_OUT && uuid_is_null(&agree->log_uuid));
	if (!err)
		err = &own;
	err->code = 0;
	for (uint32_t i = count; i > 0 && rc == -ENOENT; i--) {
		void *data = NULL;
		size_t size = 0;

		rc = read(agree->context, AGREE_FILE_LOG, numbers[i - 1], &data, &size);
		if (rc < 0)
			return error_set(err, rc, "log file %llu",
					 (unsigned long long)numbers[i - 1]);
		rc = take_file(agree, numbers[i - 1], data, size, &commit, err);
		free(data);
	}
	agree->disk.file = count ? numbers[count - 1] : 0;
	if (rc == -ENOENT && (!count || numbers[0] == 1)) {
		agree->disk.file =
			0; /* the first file of all was being made: nobody has heard of it */
		return 0;
	}
	if (rc == -ENOENT)
		return error_set(
			err, -E_CORRUPT,
			"no log file is whole: empty the directory, and this node gets the log from the "
			"others");
	if (rc < 0)
		return rc;
	rc = read_image(agree, read, err);
	if (rc < 0)
		return rc;
	agree->disk.newest_image = agree->disk.image_file;
	agree->has_restored = true;
	agree->restored_commit = min_of(commit, agree_last(agree).index);
	/* Read is not synced: it counts when the next file has it. */
	log->saved = agree_last(agree).index;
	log->durable = agree->promise_durable = 0;
	agree->term = max_of(agree->promised, agree_last(agree).term);
	agree->disk.wants_next = true;
	return 0;
}

void agree_restore_tell(struct agree *agree)
{
	struct error err = {0};

	if (!agree->has_restored)
		return;
	if (agree->restored && agree->restored_index) {
		agree->log.user_index = agree->restored_index;
		if (agree->ops.install(agree->context, agree->restored_index,
				       agree->restored + agree->restored_user,
				       agree->restored_size - agree->restored_user, &err) < 0)
			agree_fail(agree, &err);
	}
	free(agree->restored);
	agree->restored = NULL;
	if (!agree->has_failed)
		agree_commit_to(agree, agree->restored_commit);
	agree->disk.is_founded = agree->nodes.count != 0;
}
