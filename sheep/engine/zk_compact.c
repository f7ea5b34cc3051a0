/*
 * Compaction: when a segment is full whoever's entry made it so seals it, and if its seal is the
 * first it writes the image of the state there. What the image stands for is removed, but for one
 * segment: a member that was stopped for a moment reads on without an image.
 *
 *   IDLE -> NEXT -> SEAL -> DIR -> CHUNKS -> OLD -> NEWEST -> IMAGES -> SEGMENTS -> IDLE
 *
 * Should its maker die on the way the log is just longer until the next one.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/crc32c.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "sheep/engine/zk_priv.h"

#define KEEP_SEGMENTS 1u

static void enter(struct zk *zk, enum zk_compact_step step);

static void forget_image(struct zk_compactor *compactor)
{
	free(compactor->image.data);
	compactor->image = (struct engine_image){0};
}

/* Not now; or not at all, with a word about why. */
static bool failed(struct zk *zk, int rc, const char *what)
{
	if (rc == ZOK)
		return false;
	if (zk_is_passing(rc)) {
		zk->compactor.is_waiting = true;
		zk_retry(zk);
		return true;
	}
	log_warning("the log in ZooKeeper cannot be compacted now: %s: %s", what, zerror(rc));
	forget_image(&zk->compactor);
	enter(zk, ZK_COMPACT_IDLE);
	return true;
}

/* ---- the seal ---- */

void zk_compact_entry(struct zk *zk, size_t size, bool is_ours)
{
	struct zk_compactor *compactor = &zk->compactor;

	compactor->bytes += size;
	compactor->entries++;
	if (is_ours && compactor->step == ZK_COMPACT_IDLE &&
	    (compactor->bytes >= zk->compact_bytes || compactor->entries >= ZK_SEGMENT_ENTRIES)) {
		compactor->segment = zk->reader.segment + 1;
		enter(zk, ZK_COMPACT_NEXT);
	}
}

static void on_next(struct zk_call *call)
{
	struct zk *zk = call->zk;
	le64 sealed = to_le64(zk->compactor.segment - 1);
	int64_t seal;

	if (zk->compactor.step != ZK_COMPACT_NEXT ||
	    failed(zk, call->rc == ZNODEEXISTS ? ZOK : call->rc, "the next segment"))
		return;
	if (zk->compactor.segment != zk->reader.segment + 1) {
		enter(zk, ZK_COMPACT_IDLE); /* another was faster */
		return;
	}
	seal = zk_write_add(zk, ZK_ENTRY_SEAL, &sealed, sizeof(sealed));
	if (failed(zk, seal < 0 ? ZSYSTEMERROR : ZOK, "a seal"))
		return;
	zk->compactor.seal = (uint64_t)seal;
	enter(zk, ZK_COMPACT_SEAL);
	zk_write_go(zk);
}

void zk_compact_sealed(struct zk *zk, uint64_t own_sequence)
{
	struct zk_compactor *compactor = &zk->compactor;

	if (compactor->step != ZK_COMPACT_SEAL) {
		if (compactor->step == ZK_COMPACT_NEXT)
			enter(zk, ZK_COMPACT_IDLE);
		return;
	}
	if (own_sequence != compactor->seal) {
		zk_write_drop(zk, compactor->seal); /* another's came first */
		enter(zk, ZK_COMPACT_IDLE);
		return;
	}
	if (engine_take_snapshot(&zk->engine, &compactor->image) < 0 || zk->is_stopped) {
		enter(zk, ZK_COMPACT_IDLE);
		return;
	}
	compactor->index = zk->engine.index; /* of the last command before the seal */
	compactor->chunk = 0;
	(void)snprintf(compactor->name, sizeof(compactor->name), "%016" PRIx64 "-%016" PRIx64,
		       compactor->index, zk->engine.self.start);
	enter(zk, ZK_COMPACT_DIR);
}

/* ---- the image ---- */

static void on_dir(struct zk_call *call)
{
	if (!failed(call->zk, call->rc == ZNODEEXISTS ? ZOK : call->rc, "an image"))
		enter(call->zk, ZK_COMPACT_CHUNKS);
}

static void on_chunk(struct zk_call *call)
{
	struct zk_compactor *compactor = &call->zk->compactor;

	if (failed(call->zk, call->rc == ZNODEEXISTS ? ZOK : call->rc, "an image"))
		return;
	compactor->chunk++;
	enter(call->zk, ZK_COMPACT_CHUNKS);
}

static bool write_chunk(struct zk *zk)
{
	struct zk_compactor *compactor = &zk->compactor;
	size_t at = compactor->chunk * ZK_CHUNK_SIZE;
	char path[ZK_PATH_MAX];

	if (at >= compactor->image.size) {
		enter(zk, ZK_COMPACT_OLD);
		return true;
	}
	zk_path(zk, path, "/image/%s/c-%08" PRIu64, compactor->name, compactor->chunk);
	return zk_create(zk, path, (uint8_t *)compactor->image.data + at,
			 min_of(compactor->image.size - at, (size_t)ZK_CHUNK_SIZE), ZOO_PERSISTENT,
			 0, on_chunk);
}

static void on_old(struct zk_call *call)
{
	struct zk *zk = call->zk;
	const struct zk_newest *old = (const void *)call->data;

	if (failed(zk, call->rc == ZNONODE ? ZOK : call->rc, "the newest image"))
		return;
	zk->compactor.newest_version = call->rc == ZNONODE ? -1 : call->version;
	if (call->rc == ZOK && call->size >= sizeof(*old) &&
	    from_le64(old->index) >= zk->compactor.index) {
		/* Another one went further: ours is cleaned away like any old one. */
		forget_image(&zk->compactor);
		enter(zk, ZK_COMPACT_IDLE);
		return;
	}
	enter(zk, ZK_COMPACT_NEWEST);
}

static void on_told(struct zk_call *call)
{
	struct zk *zk = call->zk;

	if (call->rc == ZBADVERSION || call->rc == ZNODEEXISTS || zk_is_passing(call->rc)) {
		/* Another was faster, or it was us and nobody knows: look again. */
		zk->compactor.step = ZK_COMPACT_OLD;
		zk->compactor.is_waiting = true;
		zk_retry(zk);
		return;
	}
	if (failed(zk, call->rc, "the newest image"))
		return;
	forget_image(&zk->compactor);
	enter(zk, ZK_COMPACT_IMAGES);
}

static bool tell_newest(struct zk *zk)
{
	struct zk_compactor *compactor = &zk->compactor;
	struct zk_newest newest = {
		.magic = to_le64(ZK_NEWEST_MAGIC),
		.version = to_le32(ZK_VERSION),
		.crc = to_le32(crc32c(compactor->image.data, compactor->image.size)),
		.index = to_le64(compactor->index),
		.segment = to_le64(compactor->segment),
		.size = to_le64(compactor->image.size),
	};
	char path[ZK_PATH_MAX];

	(void)text_copy(newest.name, sizeof(newest.name), compactor->name);
	zk_path(zk, path, "/newest");
	if (compactor->newest_version < 0)
		return zk_create(zk, path, &newest, sizeof(newest), ZOO_PERSISTENT, 0, on_told);
	return zk_set(zk, path, &newest, sizeof(newest), compactor->newest_version, on_told);
}

/* ---- what is no longer needed ---- */

static void on_deleted(struct zk_call *call)
{
	call->zk->compactor.deletes--; /* what is left is found by the next one */
}

/* All children, then the directory: requests of a session are executed in their order. */
static void delete_all(struct zk *zk, const char *directory, const struct zk_call *list)
{
	char path[ZK_PATH_MAX];

	for (uint32_t i = 0; i < list->name_count; i++) {
		(void)snprintf(path, sizeof(path), "%.*s/%s", ZK_PATH_MAX - ZK_NAME_MAX - 2,
			       directory, list->names[i]);
		if (!zk_delete(zk, path, 0, on_deleted))
			return;
		zk->compactor.deletes++;
	}
	if (zk_delete(zk, directory, 0, on_deleted))
		zk->compactor.deletes++;
}

static void on_old_one(struct zk_call *call)
{
	call->zk->compactor.deletes--;
	if (call->rc == ZOK)
		delete_all(call->zk, call->about, call);
}

static void delete_one(struct zk *zk, const char *directory, const char *name)
{
	char path[ZK_PATH_MAX];

	zk_path(zk, path, "/%s/%s", directory, name);
	if (zk_list(zk, path, false, 0, on_old_one))
		zk->compactor.deletes++;
}

static void on_segments(struct zk_call *call)
{
	struct zk *zk = call->zk;
	uint64_t segment;

	if (failed(zk, call->rc, "old segments"))
		return;
	for (uint32_t i = 0; i < call->name_count; i++)
		if (text_parse_u64(call->names[i], UINT64_MAX, &segment) == 0 &&
		    segment + KEEP_SEGMENTS < zk->compactor.segment)
			delete_one(zk, "log", call->names[i]);
	enter(zk, ZK_COMPACT_IDLE);
}

/* Names ascend with the index: those above ours are in the making, maybe. */
static void on_images(struct zk_call *call)
{
	struct zk *zk = call->zk;

	if (failed(zk, call->rc, "old images"))
		return;
	for (uint32_t i = 0; i < call->name_count; i++)
		if (strcmp(call->names[i], zk->compactor.name) < 0)
			delete_one(zk, "image", call->names[i]);
	enter(zk, ZK_COMPACT_SEGMENTS);
}

/* ---- steps ---- */

static bool take_step(struct zk *zk)
{
	struct zk_compactor *compactor = &zk->compactor;
	char path[ZK_PATH_MAX];

	switch (compactor->step) {
	case ZK_COMPACT_NEXT:
		zk_path(zk, path, "/log/%010" PRIu64, compactor->segment);
		return zk_create(zk, path, NULL, 0, ZOO_PERSISTENT, 0, on_next);
	case ZK_COMPACT_DIR:
		zk_path(zk, path, "/image/%s", compactor->name);
		return zk_create(zk, path, NULL, 0, ZOO_PERSISTENT, 0, on_dir);
	case ZK_COMPACT_CHUNKS:
		return write_chunk(zk);
	case ZK_COMPACT_OLD:
		zk_path(zk, path, "/newest");
		return zk_get(zk, path, 0, on_old);
	case ZK_COMPACT_NEWEST:
		return tell_newest(zk);
	case ZK_COMPACT_IMAGES:
		zk_path(zk, path, "/image");
		return zk_list(zk, path, false, 0, on_images);
	case ZK_COMPACT_SEGMENTS:
		zk_path(zk, path, "/log");
		return zk_list(zk, path, false, 0, on_segments);
	case ZK_COMPACT_SEAL:
	case ZK_COMPACT_IDLE:
		return true;
	}
	return true;
}

/* The only place that writes the step, but for the one that waits. */
static void enter(struct zk *zk, enum zk_compact_step step)
{
	if (zk->is_stopped)
		return;
	zk->compactor.step = step;
	if (take_step(zk) || zk->is_stopped)
		return;
	zk->compactor.is_waiting = true;
	zk_retry(zk);
}

void zk_compact_go(struct zk *zk)
{
	if (!zk->compactor.is_waiting)
		return;
	zk->compactor.is_waiting = false;
	enter(zk, zk->compactor.step);
}

void zk_compact_done(struct zk *zk)
{
	forget_image(&zk->compactor);
}
