/*
 * Compaction of the local log (local_priv.h).
 *
 *   IDLE -> CREATE -> HEAD -> HEAD_SYNC -> NAME_SYNC -> SEALING -> IMAGE -> IMAGE_DATA -> IMAGE_SYNC
 *    ^        |         |         |            |           |         |          |            |
 *    |        |         |         |            |      another's      |          |            v
 *    +--------+---------+---------+------------+----- seal first ----+----------+-- IMAGE_NAME_SYNC
 *
 * The next file exists, synced, under a random id before a seal names it; so who comes to the seal
 * opens that file or finds that the log went on without it, but never makes a second one: a member
 * that was stopped at the seal cannot fork the log. The member whose seal counts takes the image
 * there; if it dies, the log is longer until the next seal. Old files go when the image's name
 * is synced. Whatever fails here is said once and tried again one `compact_bytes` later.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/assert.h"
#include "lib/base/crc32c.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "sheep/engine/local_priv.h"

static const uint16_t compact_next[COMPACT_STEP_COUNT] = {
	[COMPACT_IDLE] = BIT(COMPACT_CREATE),
	[COMPACT_CREATE] = BIT(COMPACT_HEAD) | BIT(COMPACT_IDLE),
	[COMPACT_HEAD] = BIT(COMPACT_HEAD_SYNC) | BIT(COMPACT_IDLE),
	[COMPACT_HEAD_SYNC] = BIT(COMPACT_NAME_SYNC) | BIT(COMPACT_IDLE),
	[COMPACT_NAME_SYNC] = BIT(COMPACT_SEALING) | BIT(COMPACT_IDLE),
	[COMPACT_SEALING] = BIT(COMPACT_IMAGE) | BIT(COMPACT_IDLE),
	[COMPACT_IMAGE] = BIT(COMPACT_IMAGE_DATA) | BIT(COMPACT_IDLE),
	[COMPACT_IMAGE_DATA] = BIT(COMPACT_IMAGE_SYNC) | BIT(COMPACT_IDLE),
	[COMPACT_IMAGE_SYNC] = BIT(COMPACT_IMAGE_NAME_SYNC) | BIT(COMPACT_IDLE),
	[COMPACT_IMAGE_NAME_SYNC] = BIT(COMPACT_IDLE),
};

/* The only place that writes compactor->step. */
static void compact_enter(struct local_compactor *compactor, enum compact_step next)
{
	assert(compact_next[compactor->step] & BIT(next));
	compactor->step = next;
}

static void end(struct local *local)
{
	struct local_compactor *compactor = &local->compactor;

	loop_file_close(local->engine.loop, compactor->file);
	compactor->file = NULL;
	free(compactor->image.data);
	compactor->image = (struct engine_image){0};
	compact_enter(compactor, COMPACT_IDLE);
}

static void give_up(struct local *local, int error)
{
	struct local_compactor *compactor = &local->compactor;

	if (error != -ENOENT) /* else another's newer image made ours needless */
		log_warning("engine local: compaction: '%s': %s: trying again later",
			    compactor->path, err_text(error));
	compactor->at = local->reader.offset + local->compact_bytes;
	(void)unlink(compactor->path);
	end(local);
}

/* ---- the next file and the seal ---- */

static void start(struct local *local)
{
	struct local_compactor *compactor = &local->compactor;

	compactor->id = uuid_make(loop_random(local->engine.loop));
	compactor->number = local->reader.scan.number + 1;
	compactor->is_late = false;
	local_file_path(local, compactor->number, &compactor->id, compactor->path);
	local_file_head(local, compactor->number, &compactor->id, &compactor->head);
	compact_enter(compactor, COMPACT_CREATE);
	local_task_open(&compactor->task, compactor->path,
			LOOP_FILE_WRITE | LOOP_FILE_CREATE | LOOP_FILE_EXCLUSIVE);
}

void local_compact_on_record(struct local *local, uint64_t offset, bool is_ours)
{
	struct local_compactor *compactor = &local->compactor;
	uint64_t at = compactor->at;

	/* Whoever wrote the record past the mark; if it died, anybody a little later. */
	if (!is_ours)
		at += at / 2;
	if (compactor->step == COMPACT_IDLE && local->engine.state == ENGINE_READY && offset >= at)
		start(local);
}

static void propose_seal(struct local *local)
{
	struct local_compactor *compactor = &local->compactor;
	struct local_seal seal;
	int64_t sequence;

	scan_seal_body(&compactor->id, compactor->number, &seal);
	sequence = outbox_add(&local->writer.outbox, LOCAL_RECORD_SEAL, &seal, sizeof(seal));
	if (sequence < 0) {
		give_up(local, (int)sequence);
		return;
	}
	compactor->seal = (uint64_t)sequence;
	compact_enter(compactor, COMPACT_SEALING);
	local_write_on(local);
}

/* ---- the image ---- */

static void start_image(struct local *local)
{
	struct local_compactor *compactor = &local->compactor;
	struct local_image *head = &compactor->image_head;
	char text[UUID_TEXT_SIZE];
	int rc;

	rc = engine_take_snapshot(&local->engine, &compactor->image);
	if (local->is_stopped) /* it left while we asked */
		return;
	if (rc < 0) {
		log_warning("engine local: compaction: no snapshot: %s: trying again later",
			    err_text(rc));
		end(local);
		return;
	}
	local->image_size = compactor->image.size;
	*head = (struct local_image){
		.magic = to_le64(LOCAL_IMAGE_MAGIC),
		.version = to_le32(LOCAL_VERSION),
		.number = to_le64(compactor->number),
		.index = to_le64(local->engine.index),
		.size = to_le64(compactor->image.size),
		.data_crc = to_le32(crc32c(compactor->image.data, compactor->image.size)),
	};
	memcpy(head->log, local->engine.log.bytes, sizeof(head->log));
	memcpy(head->id, compactor->id.bytes, sizeof(head->id));
	local_image_seal(head);
	local_image_path(local, local->engine.index, compactor->number, compactor->final);
	(void)snprintf(compactor->path, sizeof(compactor->path), "%s/tmp.image.%020llu.%010llu.%s",
		       local->dir, (unsigned long long)local->engine.index,
		       (unsigned long long)compactor->number, uuid_format(&compactor->id, text));
	compact_enter(compactor, COMPACT_IMAGE);
	local_task_open(&compactor->task, compactor->path,
			LOOP_FILE_WRITE | LOOP_FILE_CREATE | LOOP_FILE_TRUNCATE);
}

void local_compact_on_seal(struct local *local)
{
	struct local_compactor *compactor = &local->compactor;
	const struct scan *scan = &local->reader.scan;

	if (compactor->step == COMPACT_IDLE || compactor->step >= COMPACT_IMAGE)
		return;
	if (compactor->step < COMPACT_SEALING) { /* its task is under way */
		compactor->is_late = true;
		return;
	}
	if (uuid_is_equal(&scan->next_id, &compactor->id)) {
		start_image(local);
		return;
	}
	outbox_drop(&local->writer.outbox, compactor->seal);
	(void)unlink(compactor->path);
	end(local);
}

static void image_done(struct local *local)
{
	struct local_compactor *compactor = &local->compactor;

	log_info("engine local: log compacted: image of %zu bytes at index %llu, file %llu",
		 compactor->image.size, (unsigned long long)from_le64(compactor->image_head.index),
		 (unsigned long long)compactor->number);
	local_dir_clean(local, compactor->number);
	end(local);
}

/* ---- steps ---- */

static void write_head(struct local *local)
{
	struct local_compactor *compactor = &local->compactor;

	compactor->file = compactor->task.op.out.file;
	compactor->iov[0] = (struct iovec){&compactor->head, sizeof(compactor->head)};
	compact_enter(compactor, COMPACT_HEAD);
	loop_file_write(local->engine.loop, local_task_start(&compactor->task), compactor->file,
			compactor->iov, 1, 0);
}

static void write_image(struct local *local)
{
	struct local_compactor *compactor = &local->compactor;

	compactor->file = compactor->task.op.out.file;
	compactor->iov[0] = (struct iovec){&compactor->image_head, sizeof(compactor->image_head)};
	compactor->iov[1] = (struct iovec){compactor->image.data, compactor->image.size};
	compact_enter(compactor, COMPACT_IMAGE_DATA);
	loop_file_write(local->engine.loop, local_task_start(&compactor->task), compactor->file,
			compactor->iov, compactor->image.size ? 2 : 1, 0);
}

static void sync_file(struct local *local)
{
	struct local_compactor *compactor = &local->compactor;

	compact_enter(compactor,
		      compactor->step == COMPACT_HEAD ? COMPACT_HEAD_SYNC : COMPACT_IMAGE_SYNC);
	loop_file_sync(local->engine.loop, local_task_start(&compactor->task), compactor->file);
}

static void sync_name(struct local *local)
{
	struct local_compactor *compactor = &local->compactor;
	bool is_image = compactor->step == COMPACT_IMAGE_SYNC;

	loop_file_close(local->engine.loop, compactor->file);
	compactor->file = NULL;
	if (is_image && rename(compactor->path, compactor->final) < 0) {
		give_up(local, -errno);
		return;
	}
	compact_enter(compactor, is_image ? COMPACT_IMAGE_NAME_SYNC : COMPACT_NAME_SYNC);
	loop_file_sync(local->engine.loop, local_task_start(&compactor->task), compactor->dir);
}

static void on_task(struct local_task *task, int result)
{
	static void (*const handlers[COMPACT_STEP_COUNT])(struct local *) = {
		[COMPACT_CREATE] = write_head,	  [COMPACT_HEAD] = sync_file,
		[COMPACT_HEAD_SYNC] = sync_name,  [COMPACT_NAME_SYNC] = propose_seal,
		[COMPACT_IMAGE] = write_image,	  [COMPACT_IMAGE_DATA] = sync_file,
		[COMPACT_IMAGE_SYNC] = sync_name, [COMPACT_IMAGE_NAME_SYNC] = image_done,
	};
	struct local *local = task->local;
	struct local_compactor *compactor = &local->compactor;

	if (result < 0) {
		give_up(local, result);
	} else if (compactor->is_late && compactor->step < COMPACT_SEALING) {
		if (compactor->step == COMPACT_CREATE)
			compactor->file = task->op.out.file;
		(void)unlink(compactor->path);
		end(local);
	} else {
		handlers[compactor->step](local);
	}
}

int local_compact_init(struct local *local, struct error *err)
{
	struct local_compactor *compactor = &local->compactor;

	local_task_init(local, &compactor->task, on_task);
	return loop_sync_open(local->engine.loop, local->dir, LOOP_FILE_READ, &compactor->dir, err);
}

void local_compact_done(struct local *local)
{
	struct local_compactor *compactor = &local->compactor;

	loop_file_close(local->engine.loop, compactor->file);
	loop_file_close(local->engine.loop, compactor->dir);
	free(compactor->image.data);
}
