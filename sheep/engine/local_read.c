/*
 * The reader of the local engine (local_priv.h).
 *
 *   load --image--> OPEN_IMAGE -> IMAGE_HEAD -> IMAGE_DATA -+
 *    |  ^                                                   v
 *    |  +--------- the file is gone ------------------- OPEN_FILE -> FILE_HEAD -+
 *    +-----------no image: the next file, or the first-----^ ^                   |
 *                                                           | |  +--------------+
 *                               HANDOVER --append ended-----+ |  v
 *                                  ^                          | BYTES <--> REST
 *                                  +------- the seal -- SYNC <--+
 *
 * What is delivered was synced by this reader after it had read it. Bytes are judged twice, before
 * the sync (is there anything to sync for?) and after it; the same bytes get the same judgement.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "lib/base/assert.h"
#include "lib/base/crc32c.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "sheep/engine/local_priv.h"

#define LOAD_TRIES 20

static void read_bytes(struct local *local);

static const uint16_t read_next[READ_STEP_COUNT] = {
	[READ_REST] = BIT(READ_BYTES) | BIT(READ_OPEN_IMAGE) | BIT(READ_OPEN_FILE),
	[READ_OPEN_IMAGE] = BIT(READ_OPEN_IMAGE) | BIT(READ_OPEN_FILE) | BIT(READ_IMAGE_HEAD),
	[READ_IMAGE_HEAD] = BIT(READ_OPEN_IMAGE) | BIT(READ_OPEN_FILE) | BIT(READ_IMAGE_DATA),
	[READ_IMAGE_DATA] = BIT(READ_OPEN_IMAGE) | BIT(READ_OPEN_FILE),
	[READ_OPEN_FILE] = BIT(READ_OPEN_IMAGE) | BIT(READ_OPEN_FILE) | BIT(READ_FILE_HEAD),
	[READ_FILE_HEAD] = BIT(READ_BYTES),
	[READ_BYTES] = BIT(READ_BYTES) | BIT(READ_SYNC) | BIT(READ_REST),
	[READ_SYNC] = BIT(READ_BYTES) | BIT(READ_REST) | BIT(READ_HANDOVER),
	[READ_HANDOVER] = BIT(READ_OPEN_FILE),
};

/* The only place that writes reader->step. */
static void read_enter(struct local *local, enum read_step next)
{
	assert(read_next[local->reader.step] & BIT(next));
	local->reader.step = next;
}

/* ---- images ---- */

static void open_file(struct local *local)
{
	struct local_reader *reader = &local->reader;

	read_enter(local, READ_OPEN_FILE);
	local_file_path(local, reader->scan.number, &reader->scan.file_id, reader->path);
	local_task_open(&reader->task, reader->path,
			LOOP_FILE_READ | LOOP_FILE_WRITE | LOOP_FILE_APPEND);
}

static void forget_image(struct local_reader *reader, struct loop *loop)
{
	loop_file_close(loop, reader->image_file);
	reader->image_file = NULL;
	free(reader->image);
	reader->image = NULL;
}

/* Load the newest image above what we have, and go on in its file. */
static void load(struct local *local)
{
	struct local_reader *reader = &local->reader;
	char path[LOCAL_PATH_MAX];
	uint64_t index, number;
	int rc = local_dir_find_image(local, local->engine.index, reader->image_ceiling, &index,
				      &number);

	if (rc < 0 && rc != -ENOENT) {
		local_fail(local, rc, "list '%s'", local->dir);
		return;
	}
	if (reader->tries++ == LOAD_TRIES) {
		local_file_path(local, reader->scan.number, &reader->scan.file_id, path);
		local_fail(local, -E_CORRUPT,
			   "the log in '%s' has a gap: '%s' is missing, and no image is newer",
			   local->dir, path);
		return;
	}
	if (rc == -ENOENT) { /* go on with the file that we know */
		open_file(local);
		return;
	}
	read_enter(local, READ_OPEN_IMAGE);
	reader->image_head.index = to_le64(index);
	local_image_path(local, index, number, reader->path);
	local_task_open(&reader->task, reader->path, LOOP_FILE_READ);
}

/* The image cannot be used: another one, or the log from its beginning, may do. */
static void image_is_bad(struct local *local, const char *why)
{
	struct local_reader *reader = &local->reader;

	log_warning("engine local: image '%s': %s: looking for an older one", reader->path, why);
	forget_image(reader, local->engine.loop);
	load(local);
}

static void on_image_open(struct local *local, int result)
{
	struct local_reader *reader = &local->reader;

	if (result == -ENOENT) { /* a newer one replaced it meanwhile */
		load(local);
		return;
	}
	if (result < 0) {
		local_fail(local, result, "'%s'", reader->path);
		return;
	}
	reader->image_file = reader->task.op.out.file;
	reader->image_ceiling = from_le64(reader->image_head.index);
	read_enter(local, READ_IMAGE_HEAD);
	reader->iov = (struct iovec){&reader->image_head, sizeof(reader->image_head)};
	loop_file_read(local->engine.loop, local_task_start(&reader->task), reader->image_file,
		       &reader->iov, 1, 0);
}

static void on_image_head(struct local *local, int result)
{
	struct local_reader *reader = &local->reader;
	struct local_image *head = &reader->image_head;
	int rc = result == (int)sizeof(*head) ? local_image_check(local, head) : -E_CORRUPT;

	if (rc == 0 && from_le64(head->index) != reader->image_ceiling)
		rc = -E_CORRUPT;
	if (rc < 0) {
		image_is_bad(local, err_text(result < 0 ? result : rc));
		return;
	}
	reader->image = malloc(from_le64(head->size) + 1);
	if (!reader->image) {
		local_fail(local, -ENOMEM, "image '%s'", reader->path);
		return;
	}
	read_enter(local, READ_IMAGE_DATA);
	reader->iov = (struct iovec){reader->image, from_le64(head->size) + 1};
	loop_file_read(local->engine.loop, local_task_start(&reader->task), reader->image_file,
		       &reader->iov, 1, sizeof(*head));
}

static void on_image_data(struct local *local, int result)
{
	struct local_reader *reader = &local->reader;
	struct local_image *head = &reader->image_head;
	uint64_t size = from_le64(head->size);
	struct error err = {0};
	int rc;

	if (result < 0 || (uint64_t)result != size ||
	    crc32c(reader->image, size) != from_le32(head->data_crc)) {
		image_is_bad(local, result < 0 ? err_text(result) : "damaged");
		return;
	}
	rc = engine_tell_install(&local->engine, from_le64(head->index), reader->image, size, &err);
	forget_image(reader, local->engine.loop);
	if (local->is_stopped)
		return;
	if (rc < 0) {
		local_fail(local, rc, "image '%s': %s", reader->path, err.text);
		return;
	}
	local->image_size = size;
	reader->image_ceiling = UINT64_MAX;
	reader->scan = (struct scan){.number = from_le64(head->number)};
	memcpy(reader->scan.file_id.bytes, head->id, sizeof(head->id));
	open_file(local);
}

/* ---- files ---- */

static void on_file_open(struct local *local, int result)
{
	struct local_reader *reader = &local->reader;

	if (result == -ENOENT) { /* the log has moved on, behind a newer image */
		load(local);
		return;
	}
	if (result < 0) {
		local_fail(local, result, "'%s'", reader->path);
		return;
	}
	reader->file = reader->task.op.out.file;
	reader->watch = local_watch(local, reader->path, IN_MODIFY | IN_ATTRIB);
	reader->is_gone = access(reader->path, F_OK) < 0;
	if (reader->watch < 0 && !reader->is_gone) {
		local_fail(local, -ENOSPC, "watch '%s': raise fs.inotify.max_user_watches",
			   reader->path);
		return;
	}
	reader->have = 0;
	read_enter(local, READ_FILE_HEAD);
	reader->iov = (struct iovec){reader->buffer, sizeof(struct local_file)};
	loop_file_read(local->engine.loop, local_task_start(&reader->task), reader->file,
		       &reader->iov, 1, 0);
}

static void on_file_head(struct local *local, int result)
{
	struct local_reader *reader = &local->reader;
	struct local_file head;
	int rc = -E_CORRUPT;

	if (result == (int)sizeof(head)) {
		memcpy(&head, reader->buffer, sizeof(head));
		rc = local_file_check(local, &head, reader->scan.number, &reader->scan.file_id);
	} else if (result < 0) {
		rc = result;
	}
	if (rc < 0) {
		local_fail(local, rc, "the head of '%s'", reader->path);
		return;
	}
	reader->offset = sizeof(head);
	reader->tries = 0;
	local->compactor.at = max_of(local->compact_bytes, 2 * local->image_size);
	read_bytes(local);
}

static void read_bytes(struct local *local)
{
	struct local_reader *reader = &local->reader;

	read_enter(local, READ_BYTES);
	reader->is_dirty = false;
	reader->was_gone = reader->is_gone;
	reader->asked = LOCAL_READ_SIZE - reader->have;
	assert(reader->asked > 0);
	outbox_read_start(&local->writer.outbox);
	reader->iov = (struct iovec){reader->buffer + reader->have, reader->asked};
	loop_file_read(local->engine.loop, local_task_start(&reader->task), reader->file,
		       &reader->iov, 1, reader->offset + reader->have);
}

static void drop_bytes(struct local_reader *reader, size_t size)
{
	reader->have -= size;
	reader->offset += size;
	memmove(reader->buffer, reader->buffer + size, reader->have);
}

/* At the end of a file that is not sealed: we have all there is. */
static void on_end(struct local *local)
{
	struct local_reader *reader = &local->reader;

	if (reader->was_gone) { /* else it was sealed and left by the others since we read */
		local_fail(local, -E_NOT_FOUND, "'%s' was removed under the running cluster",
			   reader->path);
		return;
	}
	local->engine.stats.proposals_again += outbox_read_end(&local->writer.outbox);
	read_enter(local, READ_REST);
	if (local->engine.state == ENGINE_STARTING) {
		engine_tell_ready(&local->engine);
		if (!local->is_stopped)
			local_members_scan(local);
		if (!local->is_stopped)
			engine_tell_quorum(&local->engine, true);
	}
	if (local->is_stopped)
		return;
	local_write_on(local);
	if (reader->is_dirty)
		read_bytes(local);
}

static void go_on(struct local *local)
{
	if (local->reader.at_end)
		on_end(local);
	else
		read_bytes(local);
}

static void on_bytes(struct local *local, int result)
{
	struct local_reader *reader = &local->reader;
	struct scan probe = reader->scan;
	struct record record;
	enum scan_event event;
	size_t step;

	if (result < 0) {
		local_fail(local, result, "read '%s'", reader->path);
		return;
	}
	reader->have += (size_t)result;
	reader->at_end = (size_t)result < reader->asked;
	event = scan_next(&probe, reader->buffer, reader->have, &record, &step);
	if (event == SCAN_NEWER) {
		local_fail(local, -E_WRONG_VERSION, "'%s' has records of a newer version",
			   reader->path);
		return;
	}
	if (event == SCAN_MORE) { /* garbage at most */
		local->engine.stats.skipped_bytes +=
			probe.skipped_bytes - reader->scan.skipped_bytes;
		reader->scan = probe;
		drop_bytes(reader, step);
		go_on(local);
		return;
	}
	read_enter(local, READ_SYNC);
	loop_file_sync(local->engine.loop, local_task_start(&reader->task), reader->file);
}

/* Returns whether it was ours. */
static bool deliver(struct local *local, const struct record *record)
{
	bool is_ours = outbox_seen(&local->writer.outbox, record);
	uint8_t *body = (uint8_t *)record->body; /* in our buffer */

	record_mask(record->mask, body, record->length);
	engine_tell_commit(&local->engine, local->engine.index + 1, body, record->length);
	return is_ours;
}

static void on_synced(struct local *local, int result)
{
	struct local_reader *reader = &local->reader;
	uint64_t skipped = reader->scan.skipped_bytes;
	struct record record;
	enum scan_event event;
	size_t used = 0, step;
	bool is_ours;

	if (result < 0) {
		local_fail(local, result, "sync '%s'", reader->path);
		return;
	}
	local->engine.stats.syncs++;
	do {
		event = scan_next(&reader->scan, reader->buffer + used, reader->have - used,
				  &record, &step);
		used += step;
		if (event != SCAN_COMMAND)
			continue;
		is_ours = deliver(local, &record);
		if (local->is_stopped)
			return;
		local_compact_on_record(local, reader->offset + used, is_ours);
	} while (event == SCAN_COMMAND);
	local->engine.stats.skipped_bytes += reader->scan.skipped_bytes - skipped;
	drop_bytes(reader, used);
	if (event == SCAN_SEAL) {
		outbox_seen(&local->writer.outbox, &record);
		local_compact_on_seal(local);
		if (local->is_stopped)
			return;
		read_enter(local, READ_HANDOVER);
		local_read_handover(local);
	} else if (event == SCAN_NEWER) {
		local_fail(local, -E_WRONG_VERSION, "'%s' has records of a newer version",
			   reader->path);
	} else {
		go_on(local);
	}
}

void local_read_handover(struct local *local)
{
	struct local_reader *reader = &local->reader;

	if (reader->step != READ_HANDOVER || local->writer.task.is_busy)
		return;
	local->engine.stats.proposals_again += outbox_file_left(&local->writer.outbox);
	local_unwatch(local, reader->watch);
	reader->watch = -1;
	loop_file_close(local->engine.loop, reader->file);
	reader->file = NULL;
	reader->scan =
		(struct scan){.file_id = reader->scan.next_id, .number = reader->scan.number + 1};
	open_file(local);
}

/* ---- the rest ---- */

static void on_start(struct local *local, int result)
{
	load(local);
}

static void on_task(struct local_task *task, int result)
{
	static void (*const handlers[READ_STEP_COUNT])(struct local *, int) = {
		[READ_REST] = on_start,
		[READ_OPEN_IMAGE] = on_image_open,
		[READ_IMAGE_HEAD] = on_image_head,
		[READ_IMAGE_DATA] = on_image_data,
		[READ_OPEN_FILE] = on_file_open,
		[READ_FILE_HEAD] = on_file_head,
		[READ_BYTES] = on_bytes,
		[READ_SYNC] = on_synced,
	};

	handlers[task->local->reader.step](task->local, result);
}

void local_read_start(struct local *local)
{
	loop_complete(local->engine.loop, local_task_start(&local->reader.task), 0);
}

void local_read_on(struct local *local)
{
	if (local->is_stopped)
		return;
	local->reader.is_dirty = true;
	if (local->reader.step == READ_REST && local->reader.file)
		read_bytes(local);
}

void local_read_watched(struct local *local, uint32_t events)
{
	struct local_reader *reader = &local->reader;

	if ((events & (IN_ATTRIB | IN_IGNORED)) && access(reader->path, F_OK) < 0)
		reader->is_gone = true;
	local_read_on(local);
}

int local_read_init(struct local *local, const struct uuid *first_file, struct error *err)
{
	struct local_reader *reader = &local->reader;

	local_task_init(local, &reader->task, on_task);
	reader->watch = -1;
	reader->image_ceiling = UINT64_MAX;
	reader->scan = (struct scan){.file_id = *first_file, .number = 1};
	reader->buffer = malloc(LOCAL_READ_SIZE);
	return reader->buffer ? 0 : error_set(err, -ENOMEM, "read buffer");
}

void local_read_done(struct local *local)
{
	struct local_reader *reader = &local->reader;

	forget_image(reader, local->engine.loop);
	loop_file_close(local->engine.loop, reader->file);
	free(reader->buffer);
}
