/*
 * Files of the engine on corosync (cpg_disk.h).
 *
 * Each kind has a writer:
 *
 *   IDLE --make--> OPENING --> WRITING --> SYNCING --made--> NAMING --> IDLE, `written`
 *     |                          ^  |         |                          ^
 *     +--append------------------+  |         +--appended----------------+
 *                                   +--the disk is full--> PAUSING --timer--> WRITING
 *
 * A file is made under its own name: one that a crash left without its end is seen to be so by who
 * reads it, and is made anew. A write that failed for want of room is made again at the same place. A sync
 * that failed is final: what the disk has is not known any more.
 */
#include "sheep/engine/cpg_disk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "lib/base/text.h"

#define DISK_PATH_MAX 4096
#define PAUSE_NS      (100 * NS_PER_MS)
#define LOCK_TRIES    10
#define LOCK_PAUSE_US 50000

enum writer_state {
	WRITER_IDLE,
	WRITER_OPENING,
	WRITER_WRITING,
	WRITER_PAUSING,
	WRITER_SYNCING,
	WRITER_NAMING,
	WRITER_STATE_COUNT
};

static const uint8_t writer_next[WRITER_STATE_COUNT] = {
	[WRITER_IDLE] = BIT(WRITER_OPENING) | BIT(WRITER_WRITING),
	[WRITER_OPENING] = BIT(WRITER_WRITING) | BIT(WRITER_PAUSING) | BIT(WRITER_IDLE),
	[WRITER_WRITING] = BIT(WRITER_SYNCING) | BIT(WRITER_PAUSING) | BIT(WRITER_IDLE),
	[WRITER_PAUSING] = BIT(WRITER_OPENING) | BIT(WRITER_WRITING) | BIT(WRITER_IDLE),
	[WRITER_SYNCING] = BIT(WRITER_NAMING) | BIT(WRITER_IDLE),
	[WRITER_NAMING] = BIT(WRITER_IDLE),
};

/* One kind of files, and what is being written. */
struct writer {
	struct cpg_disk *disk;
	enum cpg_disk_kind kind;
	enum writer_state state;
	struct loop_op op;
	struct loop_timer timer;
	struct loop_file *file;
	uint64_t end; /* bytes that are written and synced */
	struct iovec iov;
	bool is_new, is_failing;
	char path[DISK_PATH_MAX];
};

/* Files that are there. */
struct numbers {
	uint64_t *items;
	uint32_t count, room;
};

struct cpg_disk {
	struct loop *loop;
	const struct cpg_disk_callbacks *callbacks;
	void *context;
	char *dir;
	struct loop_file *lock, *names; /* names: the directory */
	struct writer writers[CPG_DISK_KINDS];
	struct numbers files[CPG_DISK_KINDS];
	struct loop_op unlink_op, close_op;
	char unlink_path[DISK_PATH_MAX];
	uint64_t keep[CPG_DISK_KINDS]; /* files below go */
	uint64_t syncs;
	bool is_closing;
};

static const char *const kind_names[CPG_DISK_KINDS] = {
	[CPG_DISK_LOG] = "log",
	[CPG_DISK_IMAGE] = "image",
};

/* The only place that writes writer->state. */
static void writer_enter(struct writer *writer, enum writer_state next)
{
	assert(writer_next[writer->state] & BIT(next));
	writer->state = next;
}

/* ---- names ---- */

static void make_path(const struct cpg_disk *disk, enum cpg_disk_kind kind, uint64_t number,
		      char out[DISK_PATH_MAX])
{
	/* cpg_disk_open() saw that there is room. */
	(void)snprintf(out, DISK_PATH_MAX, "%s/%s.%020" PRIu64, disk->dir, kind_names[kind],
		       number);
}

static int numbers_add(struct numbers *numbers, uint64_t number)
{
	uint32_t at = numbers->count;

	while (at && numbers->items[at - 1] > number)
		at--;
	if (at && numbers->items[at - 1] == number)
		return 0;
	if (numbers->count == numbers->room) {
		uint32_t room = numbers->room ? numbers->room * 2 : 16;
		uint64_t *items = realloc(numbers->items, room * sizeof(*items));
		if (!items)
			return -ENOMEM;
		numbers->items = items;
		numbers->room = room;
	}
	memmove(numbers->items + at + 1, numbers->items + at,
		(numbers->count - at) * sizeof(*numbers->items));
	numbers->items[at] = number;
	numbers->count++;
	return 0;
}

static int on_name(void *context, const char *name)
{
	struct cpg_disk *disk = context;

	for (unsigned kind = 0; kind < CPG_DISK_KINDS; kind++) {
		size_t length = strlen(kind_names[kind]);
		uint64_t number;

		if (strncmp(name, kind_names[kind], length) == 0 && name[length] == '.' &&
		    text_parse_u64(name + length + 1, UINT64_MAX, &number) == 0)
			return numbers_add(&disk->files[kind], number);
	}
	return 0;
}

/* ---- opening ---- */

static int lock_dir(struct cpg_disk *disk, struct error *err)
{
	char path[DISK_PATH_MAX];
	int rc;

	(void)snprintf(path, sizeof(path), "%s/lock", disk->dir);
	rc = loop_sync_open(disk->loop, path, LOOP_FILE_READ | LOOP_FILE_WRITE | LOOP_FILE_CREATE,
			    &disk->lock, err);
	if (rc < 0)
		return rc;
	rc = loop_sync_lock(disk->loop, disk->lock);
	/* One that was killed a moment ago may be on its way out. */
	for (unsigned tries = 0; rc == -EAGAIN && tries < LOCK_TRIES; tries++) {
		(void)usleep(LOCK_PAUSE_US);
		rc = loop_sync_lock(disk->loop, disk->lock);
	}
	if (rc == -EAGAIN)
		return error_set(err, -EBUSY, "'%s' is in use: this node is running already",
				 disk->dir);
	return rc < 0 ? error_set(err, rc, "'%s'", path) : 0;
}

static int open_dir(struct cpg_disk *disk, struct error *err)
{
	char parent[DISK_PATH_MAX];
	int rc = loop_sync_mkdir(disk->loop, disk->dir);
	char *slash;

	if (rc < 0 && rc != -EEXIST)
		return error_set(err, rc, "'%s'", disk->dir);
	(void)snprintf(parent, sizeof(parent), "%s", disk->dir);
	slash = strrchr(parent, '/');
	if (slash)
		slash[slash == parent] = '\0';
	rc = loop_sync_fsync_dir(disk->loop, slash ? parent : ".");
	/* The parent may not be ours to open; then whoever made DIR there has to keep it. */
	if (rc < 0 && rc != -EACCES)
		return error_set(err, rc, "'%s'", parent);
	rc = lock_dir(disk, err);
	if (rc == 0)
		rc = loop_sync_open(disk->loop, disk->dir, LOOP_FILE_READ, &disk->names, err);
	if (rc < 0)
		return rc;
	rc = loop_sync_list(disk->loop, disk->dir, on_name, disk);
	return rc < 0 ? error_set(err, rc, "'%s'", disk->dir) : 0;
}

static void on_op(struct loop_op *op, int result);
static void on_pause(struct loop_timer *timer);
static void on_unlinked(struct loop_op *op, int result);

int cpg_disk_open(struct loop *loop, const char *dir, const struct cpg_disk_callbacks *callbacks,
		  void *context, struct cpg_disk **out, struct error *err)
{
	struct cpg_disk *disk;
	int rc;

	if (strlen(dir) > DISK_PATH_MAX - 64)
		return error_set(err, -ENAMETOOLONG, "'%s'", dir);
	disk = calloc(1, sizeof(*disk));
	if (!disk)
		return error_set(err, -ENOMEM, "'%s'", dir);
	disk->loop = loop;
	disk->callbacks = callbacks;
	disk->context = context;
	disk->dir = strdup(dir);
	disk->unlink_op.done = on_unlinked;
	for (unsigned i = 0; i < CPG_DISK_KINDS; i++) {
		struct writer *writer = &disk->writers[i];

		writer->disk = disk;
		writer->kind = (enum cpg_disk_kind)i;
		writer->op.done = on_op;
		writer->timer.fire = on_pause;
	}
	rc = disk->dir ? open_dir(disk, err) : error_set(err, -ENOMEM, "'%s'", dir);
	if (rc < 0) {
		cpg_disk_free(disk);
		return rc;
	}
	*out = disk;
	return 0;
}

const uint64_t *cpg_disk_logs(const struct cpg_disk *disk, uint32_t *count)
{
	*count = disk->files[CPG_DISK_LOG].count;
	return disk->files[CPG_DISK_LOG].items;
}

int cpg_disk_read(struct cpg_disk *disk, enum cpg_disk_kind kind, uint64_t number, void **data,
		  size_t *size)
{
	char path[DISK_PATH_MAX];
	struct loop_file *file;
	int64_t n;
	int rc;

	make_path(disk, kind, number, path);
	rc = loop_sync_open(disk->loop, path, LOOP_FILE_READ, &file, NULL);
	if (rc < 0)
		return rc;
	rc = loop_sync_fsync(disk->loop, file);
	if (rc == 0)
		rc = loop_sync_fsync_dir(disk->loop, disk->dir);
	n = rc < 0 ? rc : loop_sync_size(disk->loop, file);
	*data = n >= 0 ? malloc((size_t)n + 1) : NULL;
	if (n >= 0 && !*data)
		n = -ENOMEM;
	if (n > 0)
		n = loop_sync_read(disk->loop, file, *data, (size_t)n, 0);
	loop_file_close(disk->loop, file);
	if (n < 0) {
		free(*data);
		return (int)n;
	}
	*size = (size_t)n;
	return 0;
}

/* ---- writing ---- */

/* What passes when somebody makes room. */
static bool may_pass(int error)
{
	return error == -ENOSPC || error == -EDQUOT || error == -ENOMEM || error == -EINTR ||
	       error == -EAGAIN || error == -EMFILE || error == -ENFILE;
}

static void write_on(struct writer *writer)
{
	writer_enter(writer, WRITER_WRITING);
	loop_file_write(writer->disk->loop, &writer->op, writer->file, &writer->iov, 1,
			writer->end);
}

static void open_file(struct writer *writer)
{
	writer_enter(writer, WRITER_OPENING);
	loop_file_open(writer->disk->loop, &writer->op, writer->path,
		       LOOP_FILE_WRITE | LOOP_FILE_CREATE | LOOP_FILE_TRUNCATE);
}

static void ended(struct writer *writer, int rc)
{
	struct cpg_disk *disk = writer->disk;

	writer_enter(writer, WRITER_IDLE);
	if (rc == 0)
		writer->end += writer->iov.iov_len;
	if (writer->kind == CPG_DISK_IMAGE) {
		loop_file_close(disk->loop, writer->file);
		writer->file = NULL;
	}
	disk->callbacks->written(disk->context, writer->kind, rc);
}

static void failed(struct writer *writer, int rc)
{
	struct cpg_disk *disk = writer->disk;

	if (writer->state == WRITER_SYNCING || writer->state == WRITER_NAMING || !may_pass(rc)) {
		ended(writer, rc);
		return;
	}
	if (!writer->is_failing)
		log_warning("engine corosync: write to '%s': %s: trying again every %u ms",
			    writer->path, err_text(rc), (unsigned)(PAUSE_NS / NS_PER_MS));
	writer->is_failing = true;
	writer_enter(writer, WRITER_PAUSING);
	loop_timer_start(disk->loop, &writer->timer, loop_now(disk->loop) + PAUSE_NS);
}

static void on_pause(struct loop_timer *timer)
{
	struct writer *writer = container_of_type(timer, struct writer, timer);

	if (writer->file)
		write_on(writer);
	else
		open_file(writer);
}

static void written(struct writer *writer)
{
	if (writer->is_failing)
		log_info("engine corosync: writes to '%s' work again", writer->path);
	writer->is_failing = false;
	writer_enter(writer, WRITER_SYNCING);
	writer->disk->syncs++;
	loop_file_sync(writer->disk->loop, &writer->op, writer->file);
}

static void synced(struct writer *writer)
{
	if (!writer->is_new) {
		ended(writer, 0);
		return;
	}
	writer->is_new = false;
	writer_enter(writer, WRITER_NAMING);
	loop_file_sync_all(writer->disk->loop, &writer->op, writer->disk->names);
}

static void try_close(struct cpg_disk *disk);

static void on_op(struct loop_op *op, int result)
{
	struct writer *writer = container_of_type(op, struct writer, op);

	if (writer->state == WRITER_OPENING && result >= 0)
		writer->file = op->out.file;
	if (writer->disk->is_closing)
		try_close(writer->disk);
	else if (result < 0)
		failed(writer, result);
	else if (writer->state == WRITER_OPENING)
		write_on(writer);
	else if (writer->state == WRITER_WRITING)
		written(writer);
	else if (writer->state == WRITER_SYNCING)
		synced(writer);
	else
		ended(writer, 0);
}

void cpg_disk_append(struct cpg_disk *disk, const void *data, size_t size)
{
	struct writer *writer = &disk->writers[CPG_DISK_LOG];

	assert(writer->file);
	writer->iov = (struct iovec){(void *)data, size};
	write_on(writer);
}

void cpg_disk_make(struct cpg_disk *disk, enum cpg_disk_kind kind, uint64_t number,
		   const void *data, size_t size)
{
	struct writer *writer = &disk->writers[kind];

	assert(writer->state == WRITER_IDLE);
	loop_file_close(disk->loop, writer->file);
	writer->file = NULL;
	writer->end = 0;
	writer->is_new = true;
	writer->iov = (struct iovec){(void *)data, size};
	make_path(disk, kind, number, writer->path);
	/* Without memory for its number it stays there until it is found at the next start. */
	(void)numbers_add(&disk->files[kind], number);
	open_file(writer);
}

uint64_t cpg_disk_syncs(const struct cpg_disk *disk)
{
	return disk->syncs;
}

/* ---- removing ---- */

/* One after the other. */
static void unlink_next(struct cpg_disk *disk)
{
	if (disk->is_closing || loop_op_is_busy(&disk->unlink_op))
		return;
	for (unsigned kind = 0; kind < CPG_DISK_KINDS; kind++) {
		struct numbers *numbers = &disk->files[kind];

		if (!numbers->count || numbers->items[0] >= disk->keep[kind])
			continue;
		make_path(disk, (enum cpg_disk_kind)kind, numbers->items[0], disk->unlink_path);
		numbers->count--;
		memmove(numbers->items, numbers->items + 1,
			numbers->count * sizeof(*numbers->items));
		loop_file_unlink(disk->loop, &disk->unlink_op, disk->unlink_path);
		return;
	}
}

static void on_unlinked(struct loop_op *op, int result)
{
	struct cpg_disk *disk = container_of_type(op, struct cpg_disk, unlink_op);

	if (result < 0 && result != -ENOENT && result != -ECANCELED)
		log_warning("engine corosync: remove '%s': %s: it stays until the next start",
			    disk->unlink_path, err_text(result));
	unlink_next(disk);
	if (disk->is_closing)
		try_close(disk);
}

void cpg_disk_remove_below(struct cpg_disk *disk, enum cpg_disk_kind kind, uint64_t number)
{
	if (number > disk->keep[kind])
		disk->keep[kind] = number;
	unlink_next(disk);
}

/* ---- the end ---- */

static void on_closed(struct loop_op *op, int result)
{
	struct cpg_disk *disk = container_of_type(op, struct cpg_disk, close_op);

	disk->callbacks->closed(disk->context);
}

static void try_close(struct cpg_disk *disk)
{
	bool is_busy = loop_op_is_busy(&disk->unlink_op) || loop_op_is_busy(&disk->close_op);

	for (unsigned i = 0; i < CPG_DISK_KINDS; i++)
		is_busy |= loop_op_is_busy(&disk->writers[i].op);
	if (is_busy)
		return;
	disk->close_op.done = on_closed;
	loop_complete(disk->loop, &disk->close_op, 0);
}

void cpg_disk_close(struct cpg_disk *disk)
{
	assert(!disk->is_closing);
	disk->is_closing = true;
	for (unsigned i = 0; i < CPG_DISK_KINDS; i++) {
		struct writer *writer = &disk->writers[i];

		loop_timer_stop(disk->loop, &writer->timer);
		if (loop_op_is_busy(&writer->op))
			loop_cancel(disk->loop, &writer->op);
	}
	try_close(disk);
}

void cpg_disk_free(struct cpg_disk *disk)
{
	if (!disk)
		return;
	for (unsigned i = 0; i < CPG_DISK_KINDS; i++) {
		loop_file_close(disk->loop, disk->writers[i].file);
		free(disk->files[i].items);
	}
	loop_file_close(disk->loop, disk->names);
	loop_file_close(disk->loop, disk->lock);
	free(disk->dir);
	free(disk);
}
