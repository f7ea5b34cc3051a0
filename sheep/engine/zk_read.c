/*
 * The reader: what is in ZooKeeper, in order, to the user.
 *
 *   SYNC -> ROOT -> (MAKE) -> FORMAT -> NEWEST -> (IMAGE) -> LIST <-> ENTRIES -> REST
 *                                          ^                  |        |
 *                                          +--- something was removed: an image stands for it
 *
 * A server shows changes in the order of their commits. So a list of a segment's children has no
 * gap: whatever is below its highest number and not in it was removed, and only what an image
 * stands for is ever removed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/crc32c.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "sheep/engine/zk_priv.h"

#define NUMBER_DIGITS 10

static void enter(struct zk *zk, enum zk_read_step step);

/* Did the step fail for now? Then it is taken again later. */
static bool failed_for_now(struct zk *zk, int rc)
{
	if (!zk_is_passing(rc))
		return false;
	zk->reader.is_waiting = true;
	zk_retry(zk);
	return true;
}

static void cannot(struct zk *zk, int rc)
{
	zk_fail(zk, -EIO, "ZooKeeper at %s, %s: %s", zk->hosts, zk->root, zerror(rc));
}

static uint64_t index_of(uint64_t segment, uint64_t number)
{
	return segment << 32 | number;
}

/* ---- the format ---- */

static void on_synced(struct zk_call *call)
{
	if (failed_for_now(call->zk, call->rc))
		return;
	enter(call->zk, ZK_READ_ROOT); /* nothing there: nothing to be behind of */
}

static bool is_ours(const char *name)
{
	static const char *const names[] = {"log", "format", "newest", "image", "members", "ended"};

	for (unsigned i = 0; i < ARRAY_COUNT(names); i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

static void on_root(struct zk_call *call)
{
	struct zk *zk = call->zk;
	bool has_format = false;

	if (failed_for_now(zk, call->rc))
		return;
	if (call->rc != ZOK && call->rc != ZNONODE) {
		cannot(zk, call->rc);
		return;
	}
	for (uint32_t i = 0; i < call->name_count; i++) {
		if (!is_ours(call->names[i])) {
			zk_fail(zk, -E_CORRUPT,
				"%s in ZooKeeper holds other data ('%s'): give the log a path of "
				"its own (zookeeper:HOSTS/ROOT)",
				zk->root, call->names[i]);
			return;
		}
		has_format |= strcmp(call->names[i], "format") == 0;
	}
	if (!has_format && !uuid_is_null(&zk->expected)) {
		zk_wait_for_log(zk); /* it may be brought back; another one is not ours */
		return;
	}
	zk->reader.making = 0;
	enter(zk, has_format ? ZK_READ_FORMAT : ZK_READ_MAKE);
}

/* The @i-th node of a new log, the format last: its data, if it has some. False: that was all. */
static bool node_to_make(struct zk *zk, unsigned i, char *path, struct zk_format *format,
			 size_t *size)
{
	static const char *const rest[] = {"/log",     "/log/0000000001", "/image",
					   "/members", "/ended",	  "/format"};
	unsigned depth = 0;

	*size = 0;
	for (const char *at = zk->root; *at; at++)
		depth += *at == '/';
	if (i < depth) { /* the components of ROOT */
		const char *at = zk->root;
		for (unsigned n = 0; n <= i; n++)
			at += 1 + strcspn(at + 1, "/");
		memcpy(path, zk->root, (size_t)(at - zk->root));
		path[at - zk->root] = '\0';
		return true;
	}
	i -= depth;
	if (i >= ARRAY_COUNT(rest))
		return false;
	zk_path(zk, path, "%s", rest[i]);
	if (i == ARRAY_COUNT(rest) - 1) {
		struct uuid log = uuid_make(loop_random(zk->engine.loop));
		*format = (struct zk_format){.magic = to_le64(ZK_FORMAT_MAGIC),
					     .version = to_le32(ZK_VERSION)};
		memcpy(format->log, log.bytes, sizeof(format->log));
		*size = sizeof(*format);
	}
	return true;
}

static void on_made(struct zk_call *call)
{
	struct zk *zk = call->zk;

	if (failed_for_now(zk, call->rc))
		return;
	if (call->rc != ZOK && call->rc != ZNODEEXISTS) {
		cannot(zk, call->rc);
		return;
	}
	zk->reader.making++;
	enter(zk, ZK_READ_MAKE);
}

static bool make_next(struct zk *zk)
{
	char path[ZK_PATH_MAX];
	struct zk_format format;
	size_t size;

	if (node_to_make(zk, zk->reader.making, path, &format, &size))
		return zk_create(zk, path, size ? &format : NULL, size, ZOO_PERSISTENT, 0, on_made);
	enter(zk, ZK_READ_FORMAT);
	return true;
}

static void on_format(struct zk_call *call)
{
	struct zk *zk = call->zk;
	const struct zk_format *format = (const void *)call->data;

	if (failed_for_now(zk, call->rc))
		return;
	if (call->rc != ZOK) {
		cannot(zk, call->rc);
		return;
	}
	if (call->size < sizeof(*format) || from_le64(format->magic) != ZK_FORMAT_MAGIC) {
		zk_fail(zk, -E_CORRUPT, "%s/format in ZooKeeper is not ours", zk->root);
		return;
	}
	if (from_le32(format->version) != ZK_VERSION) {
		zk_fail(zk, -E_WRONG_VERSION,
			"the log at %s in ZooKeeper has format %u, this program knows %u", zk->root,
			from_le32(format->version), ZK_VERSION);
		return;
	}
	memcpy(zk->engine.log.bytes, format->log, sizeof(format->log));
	if (!uuid_is_null(&zk->expected) && !uuid_is_equal(&zk->expected, &zk->engine.log)) {
		char have[UUID_TEXT_SIZE], want[UUID_TEXT_SIZE];
		zk_fail(zk, -E_WRONG_CLUSTER,
			"%s in ZooKeeper is the log %s, this node belongs to %s", zk->root,
			uuid_format(&zk->engine.log, have), uuid_format(&zk->expected, want));
		return;
	}
	zk_members_go(zk);
	enter(zk, ZK_READ_NEWEST);
}

/* ---- the image ---- */

static void begin_segment(struct zk *zk, uint64_t segment)
{
	zk->reader.segment = segment;
	zk->reader.next = 0;
	zk->compactor.bytes = 0;
	zk->compactor.entries = 0;
}

static void forget_image(struct zk_reader *reader)
{
	free(reader->image);
	reader->image = NULL;
}

static void on_newest(struct zk_call *call)
{
	struct zk *zk = call->zk;
	struct zk_reader *reader = &zk->reader;
	const struct zk_newest *newest = (const void *)call->data;

	if (failed_for_now(zk, call->rc))
		return;
	if (call->rc == ZNONODE) {
		if (reader->segment == 0)
			begin_segment(zk, 1);
		enter(zk, ZK_READ_LIST);
		return;
	}
	if (call->rc != ZOK) {
		cannot(zk, call->rc);
		return;
	}
	if (call->size < sizeof(*newest) || from_le64(newest->magic) != ZK_NEWEST_MAGIC ||
	    from_le32(newest->version) != ZK_VERSION ||
	    from_le64(newest->size) > ENGINE_IMAGE_MAX || !from_le64(newest->segment) ||
	    !memchr(newest->name, '\0', sizeof(newest->name))) {
		zk_fail(zk, -E_CORRUPT, "%s/newest in ZooKeeper is broken", zk->root);
		return;
	}
	memcpy(&reader->newest, newest, sizeof(*newest));
	if (from_le64(newest->segment) <= reader->segment) {
		enter(zk, ZK_READ_LIST); /* we are as far as that */
		return;
	}
	forget_image(reader);
	reader->image = malloc(from_le64(newest->size) + 1);
	if (!reader->image) {
		(void)failed_for_now(zk, ZSYSTEMERROR);
		return;
	}
	reader->asked = reader->told = 0;
	enter(zk, ZK_READ_IMAGE);
}

static void install(struct zk *zk)
{
	struct zk_reader *reader = &zk->reader;
	size_t size = from_le64(reader->newest.size);
	struct error err = {0};
	int rc;

	if (crc32c(reader->image, size) != from_le32(reader->newest.crc)) {
		zk_fail(zk, -E_CORRUPT, "the image %s at %s in ZooKeeper is broken",
			reader->newest.name, zk->root);
		return;
	}
	rc = 0;
	if (from_le64(reader->newest.index) > zk->engine.index) /* else we lack the seal only */
		rc = engine_tell_install(&zk->engine, from_le64(reader->newest.index),
					 reader->image, size, &err);
	forget_image(reader);
	if (rc < 0) {
		zk_fail(zk, rc, "%s", err.text);
		return;
	}
	if (zk->is_stopped)
		return;
	begin_segment(zk, from_le64(reader->newest.segment));
	zk_write_sealed(zk);
	enter(zk, ZK_READ_LIST);
}

static void on_chunk(struct zk_call *call)
{
	struct zk *zk = call->zk;
	struct zk_reader *reader = &zk->reader;
	uint64_t size = from_le64(reader->newest.size);
	uint64_t at = call->number * ZK_CHUNK_SIZE;

	reader->calls--;
	if (reader->step != ZK_READ_IMAGE || !reader->image)
		return;
	if (call->rc == ZNONODE) { /* another image has taken its place */
		enter(zk, ZK_READ_NEWEST);
		return;
	}
	if (call->rc != ZOK) {
		if (!failed_for_now(zk, call->rc))
			cannot(zk, call->rc);
		return;
	}
	if (at >= size || call->size != min_of(size - at, (uint64_t)ZK_CHUNK_SIZE)) {
		zk_fail(zk, -E_CORRUPT, "the image %s at %s in ZooKeeper is broken",
			reader->newest.name, zk->root);
		return;
	}
	memcpy(reader->image + at, call->data, call->size);
	reader->told++;
	enter(zk, ZK_READ_IMAGE);
}

/* A few chunks at a time; taken again after a loss it begins with the first. */
static bool read_image(struct zk *zk)
{
	struct zk_reader *reader = &zk->reader;
	uint64_t size = from_le64(reader->newest.size);
	uint32_t count = (uint32_t)((size + ZK_CHUNK_SIZE - 1) / ZK_CHUNK_SIZE);
	char path[ZK_PATH_MAX];

	if (reader->told == count) {
		install(zk);
		return true;
	}
	while (reader->asked < count && reader->asked < reader->told + 4) {
		zk_path(zk, path, "/image/%s/c-%08u", reader->newest.name, reader->asked);
		if (!zk_get(zk, path, reader->asked, on_chunk))
			return false;
		reader->asked++;
		reader->calls++;
	}
	return true;
}

/* ---- a segment ---- */

static void forget_entries(struct zk_reader *reader)
{
	for (uint32_t i = 0; i < reader->count; i++) {
		struct zk_call *answer = reader->answers[i];
		if (answer) {
			free(answer->data);
			free(answer);
		}
	}
	free(reader->numbers);
	free(reader->answers);
	reader->numbers = NULL;
	reader->answers = NULL;
	reader->count = reader->asked = reader->told = 0;
}

static bool number_of(const char *name, uint64_t *out)
{
	if (strncmp(name, "e-", 2) != 0 || strlen(name) != 2 + NUMBER_DIGITS)
		return false;
	return text_parse_u64(name + 2, INT32_MAX, out) == 0;
}

static void on_list(struct zk_call *call)
{
	struct zk *zk = call->zk;
	struct zk_reader *reader = &zk->reader;

	if (failed_for_now(zk, call->rc))
		return;
	if (call->rc == ZNONODE) {
		/* An image stands for it. (It was made before it was sealed, so it was there.) */
		reader->is_waiting = true;
		zk_retry(zk);
		return;
	}
	if (call->rc != ZOK) {
		cannot(zk, call->rc);
		return;
	}
	forget_entries(reader);
	reader->numbers = calloc(call->name_count + 1, sizeof(*reader->numbers));
	reader->answers = calloc(call->name_count + 1, sizeof(struct zk_call *));
	if (!reader->numbers || !reader->answers) {
		(void)failed_for_now(zk, ZSYSTEMERROR);
		return;
	}
	for (uint32_t i = 0; i < call->name_count; i++) {
		uint64_t number;
		if (number_of(call->names[i], &number) && number >= reader->next)
			reader->numbers[reader->count++] = number;
	}
	enter(zk, ZK_READ_ENTRIES);
}

/* One that is there, in its turn. False: the segment was sealed, or the user had enough. */
static bool take(struct zk *zk, uint64_t number, const uint8_t *data, size_t size)
{
	struct zk_reader *reader = &zk->reader;
	const struct zk_entry *entry = (const void *)data;
	uint64_t index = index_of(reader->segment, number);

	reader->next = number + 1;
	if (size < sizeof(*entry) || from_le64(entry->magic) != ZK_ENTRY_MAGIC) {
		zk->engine.stats.skipped_bytes += size;
		return true;
	}
	if (from_le32(entry->type) == ZK_ENTRY_SEAL) {
		const le64 *sealed = (const void *)(entry + 1);
		bool is_own = zk_write_seen(zk, entry);
		/* One that was meant for an earlier segment, and came late, seals nothing. */
		if (size < sizeof(*entry) + sizeof(*sealed) ||
		    from_le64(*sealed) != reader->segment)
			return true;
		begin_segment(zk, reader->segment + 1);
		zk_compact_sealed(zk, is_own ? from_le64(entry->sequence) : 0);
		zk_write_sealed(zk);
		return false;
	}
	if (from_le32(entry->type) != ZK_ENTRY_COMMAND || size == sizeof(*entry)) {
		zk->engine.stats.skipped_bytes += size;
		return true;
	}
	bool is_own = zk_write_seen(zk, entry);
	engine_tell_commit(&zk->engine, index, entry + 1, (uint32_t)(size - sizeof(*entry)));
	if (!zk->is_stopped)
		zk_compact_entry(zk, size, is_own);
	return !zk->is_stopped;
}

/*
 * Whose number is known is committed, and so is all before it. When that was all read the entry need not be: it is the
 * next one. A seal is: what is being read would be taken for the next segment's.
 */
bool zk_read_own(struct zk *zk, const char *path, const void *data, size_t size)
{
	struct zk_reader *reader = &zk->reader;
	const struct zk_entry *entry = data;
	const char *name = path ? strrchr(path, '/') : NULL;
	uint64_t number;

	if ((reader->step != ZK_READ_REST && reader->step != ZK_READ_LIST) || !name ||
	    !number_of(name + 1, &number) || number != reader->next ||
	    from_le32(entry->type) != ZK_ENTRY_COMMAND)
		return false;
	(void)take(zk, number, data, size);
	return true;
}

/* Those whose turn has come. */
static void take_some(struct zk *zk)
{
	struct zk_reader *reader = &zk->reader;

	while (reader->told < reader->count && reader->answers[reader->told]) {
		struct zk_call *answer = reader->answers[reader->told];
		uint64_t number = reader->numbers[reader->told];
		bool more;

		reader->answers[reader->told++] = NULL;
		more = take(zk, number, answer->data, answer->size);
		free(answer->data);
		free(answer);
		if (zk->is_stopped)
			return;
		if (!more) {
			enter(zk, ZK_READ_LIST); /* the next segment */
			return;
		}
	}
	enter(zk, ZK_READ_ENTRIES);
}

static void on_entry(struct zk_call *call)
{
	struct zk *zk = call->zk;
	struct zk_reader *reader = &zk->reader;
	struct zk_call *answer;

	reader->calls--;
	if (reader->step != ZK_READ_ENTRIES || reader->is_waiting ||
	    call->number >> 32 != (reader->segment & UINT32_MAX))
		return; /* of a list that was left */
	if (call->rc == ZNONODE) {
		enter(zk, ZK_READ_NEWEST);
		return;
	}
	if (call->rc != ZOK) {
		if (!failed_for_now(zk, call->rc))
			cannot(zk, call->rc);
		return;
	}
	for (uint32_t i = reader->told; i < reader->asked; i++) {
		if (reader->numbers[i] != (call->number & UINT32_MAX) || reader->answers[i])
			continue;
		answer = calloc(1, sizeof(*answer));
		if (!answer) {
			(void)failed_for_now(zk, ZSYSTEMERROR);
			return;
		}
		answer->data = call->data;
		answer->size = call->size;
		call->data = NULL;
		reader->answers[i] = answer;
		break;
	}
	take_some(zk);
}

static bool read_entries(struct zk *zk)
{
	struct zk_reader *reader = &zk->reader;
	char path[ZK_PATH_MAX];

	if (reader->told == reader->count) {
		forget_entries(reader);
		enter(zk, reader->is_changed ? ZK_READ_LIST : ZK_READ_REST);
		return true;
	}
	while (reader->asked < reader->count && reader->asked < reader->told + ZK_READS) {
		uint64_t number = reader->numbers[reader->asked];
		zk_path(zk, path, "/log/%010" PRIu64 "/e-%010" PRIu64, reader->segment, number);
		if (!zk_get(zk, path, reader->segment << 32 | number, on_entry))
			return false;
		reader->asked++;
		reader->calls++;
	}
	return true;
}

static bool read_list(struct zk *zk)
{
	char path[ZK_PATH_MAX];

	zk->reader.is_changed = false; /* what comes after the list was made fires the watch */
	zk_path(zk, path, "/log/%010" PRIu64, zk->reader.segment);
	return zk_list(zk, path, true, 0, on_list);
}

/* ---- steps ---- */

static bool take_step(struct zk *zk)
{
	char path[ZK_PATH_MAX];

	switch (zk->reader.step) {
	case ZK_READ_SYNC:
		return zk_sync(zk, "/", on_synced);
	case ZK_READ_ROOT:
		return zk_list(zk, zk->root, false, 0, on_root);
	case ZK_READ_MAKE:
		return make_next(zk);
	case ZK_READ_FORMAT:
		zk_path(zk, path, "/format");
		return zk_get(zk, path, 0, on_format);
	case ZK_READ_NEWEST:
		forget_entries(&zk->reader);
		zk_path(zk, path, "/newest");
		return zk_get(zk, path, 0, on_newest);
	case ZK_READ_IMAGE:
		return read_image(zk);
	case ZK_READ_LIST:
		forget_entries(&zk->reader);
		return read_list(zk);
	case ZK_READ_ENTRIES:
		return read_entries(zk);
	case ZK_READ_REST:
		if (zk->engine.state == ENGINE_STARTING) {
			engine_tell_ready(&zk->engine);
			if (!zk->is_stopped)
				engine_tell_quorum(&zk->engine, zk->is_connected);
			if (!zk->is_stopped)
				zk_members_changed(zk);
		}
		return true;
	case ZK_READ_IDLE:
		return true;
	}
	return true;
}

/* The only place that writes the step. */
static void enter(struct zk *zk, enum zk_read_step step)
{
	if (zk->is_stopped)
		return;
	zk->reader.step = step;
	if (take_step(zk) || zk->is_stopped)
		return;
	zk->reader.is_waiting = true;
	zk_retry(zk);
}

/*
 * Begin, or go on after the session was away: a new one may be with a server that is behind, and
 * watches of an ended one are gone. So all but the very beginning is begun with a sync and a list.
 */
void zk_read_go(struct zk *zk)
{
	struct zk_reader *reader = &zk->reader;

	if (reader->calls) { /* answers of before: they come, and then we go on */
		reader->is_waiting = true;
		zk_retry(zk);
		return;
	}
	reader->is_waiting = false;
	forget_image(reader);
	enter(zk, reader->segment ? ZK_READ_NEWEST : ZK_READ_SYNC);
}

void zk_read_changed(struct zk *zk)
{
	zk->reader.is_changed = true;
	if (zk->reader.step == ZK_READ_REST)
		enter(zk, ZK_READ_LIST);
}

void zk_read_done(struct zk *zk)
{
	forget_image(&zk->reader);
	forget_entries(&zk->reader);
}
