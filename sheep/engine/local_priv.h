/*
 * The engine `local:DIR`, one member of it. docs/internals/engines.md
 *
 *   local.c          life: opening, tasks, leaving, inotify
 *   local_dir.c      the directory: names, creation, heads of files
 *   local_read.c     the reader: images and files in, commits out
 *   local_write.c    the writer: proposals in, one append after the other
 *   local_compact.c  the next file, the seal, the image
 *   local_members.c  who lives: locks, pidfds
 *
 * Decisions (which bytes count) are made in scan.c and outbox.c, which own nothing.
 */
#ifndef ENGINE_LOCAL_PRIV_H
#define ENGINE_LOCAL_PRIV_H

#include <limits.h>
#include <sys/types.h>

#include "sheep/engine/engine_priv.h"
#include "sheep/engine/outbox.h"
#include "sheep/engine/scan.h"

#define LOCAL_READ_SIZE	    (RECORD_MAX + (1u << 20)) /* a whole record always fits */
#define LOCAL_WRITE_SIZE    (RECORD_MAX + (64u << 10))
#define LOCAL_COMPACT_BYTES (8ull << 20)
#define LOCAL_KEEP_FILES \
	1 /* before the one that the newest image names: a member that was
			       * stopped for a moment reads on without an image */
#define LOCAL_NAME_MAX 96
#define LOCAL_PATH_MAX (PATH_MAX + LOCAL_NAME_MAX)

struct local;

/* An operation under way. While any is, the engine cannot be freed. */
struct local_task {
	struct loop_op op;
	struct local *local;
	void (*then)(struct local_task *task, int result); /* not when the engine has stopped */
	bool gives_file;
	bool is_busy;
};

enum read_step {
	READ_REST, /* at the end of the file: woken by local_read_on() */
	READ_OPEN_IMAGE,
	READ_IMAGE_HEAD,
	READ_IMAGE_DATA,
	READ_OPEN_FILE,
	READ_FILE_HEAD,
	READ_BYTES,
	READ_SYNC,
	READ_HANDOVER, /* sealed; the append under way must end first */
	READ_STEP_COUNT
};

struct local_reader {
	enum read_step step;
	struct local_task task;
	struct loop_file *file; /* the current one; also appended to. NULL before READ_FILE_HEAD */
	char path[LOCAL_PATH_MAX];
	struct scan scan;
	bool is_dirty;	 /* something was appended since the last read started */
	bool is_gone;	 /* its name is */
	bool was_gone;	 /* it was when the last read started */
	bool at_end;	 /* the last read came to the end */
	uint64_t offset; /* in the file, of buffer[0] */
	size_t have;
	size_t asked;
	uint8_t *buffer; /* LOCAL_READ_SIZE */
	struct iovec iov;
	int watch;
	unsigned tries; /* loads in a row that found a file gone */
	/* the image being loaded */
	struct loop_file *image_file;
	uint64_t image_ceiling; /* those at this index and above are broken */
	struct local_image image_head;
	uint8_t *image;
};

struct local_writer {
	struct local_task task;
	struct loop_hook hook;
	struct loop_timer retry;
	struct outbox outbox;
	uint8_t *buffer; /* LOCAL_WRITE_SIZE */
	struct iovec iov;
	bool is_failing; /* the last append did not work */
};

enum compact_step {
	COMPACT_IDLE,
	COMPACT_CREATE, /* the next file: made, its head written, synced, its name synced */
	COMPACT_HEAD,
	COMPACT_HEAD_SYNC,
	COMPACT_NAME_SYNC,
	COMPACT_SEALING, /* the seal is proposed */
	COMPACT_IMAGE,	 /* our seal was the first: the image, likewise */
	COMPACT_IMAGE_DATA,
	COMPACT_IMAGE_SYNC,
	COMPACT_IMAGE_NAME_SYNC,
	COMPACT_STEP_COUNT
};

struct local_compactor {
	enum compact_step step;
	struct local_task task;
	struct loop_file *dir;
	struct loop_file *file;
	bool is_late; /* another's seal came first */
	struct uuid id;
	uint64_t number;
	uint64_t seal; /* its sequence in the outbox */
	uint64_t at;   /* seal at this offset */
	char path[LOCAL_PATH_MAX], final[LOCAL_PATH_MAX];
	struct local_file head;
	struct local_image image_head;
	struct engine_image image;
	struct iovec iov[2];
};

struct local_peer;

struct local_members {
	int lock; /* our file, locked while we live */
	int dirfd;
	int watch;
	struct cds_list_head peers; /* by node, then by when they were found */
	struct loop_timer probe;
	uint64_t probe_after_ns; /* doubles */
};

struct local {
	struct engine engine;
	char dir[PATH_MAX];
	bool is_stopped; /* failed or leaving: tasks end without a `then` */
	unsigned busy;	 /* tasks */
	uint64_t compact_bytes;
	uint64_t image_size; /* of the last image seen */
	int inotify;
	int root_watch;
	struct local_task watch_task, quit_task;
	struct local_reader reader;
	struct local_writer writer;
	struct local_compactor compactor;
	struct local_members members;
};

/* ---- local.c ---- */

void local_task_init(struct local *local, struct local_task *task,
		     void (*then)(struct local_task *, int));
/* Before submitting the op that it returns. */
struct loop_op *local_task_start(struct local_task *task);
/* Open a file; @path is borrowed until it is done. */
void local_task_open(struct local_task *task, const char *path, unsigned flags);
/* Stop, and tell the user why. */
void local_fail(struct local *local, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Watch a file; -1 when it is gone or cannot be watched. */
int local_watch(struct local *local, const char *path, uint32_t events);
void local_unwatch(struct local *local, int watch);

/* ---- local_dir.c ---- */

int local_dir_open(struct local *local, const struct uuid *expected, struct uuid *first_file,
		   struct error *err);
void local_file_path(const struct local *local, uint64_t number, const struct uuid *id, char *out);
void local_image_path(const struct local *local, uint64_t index, uint64_t number, char *out);
/* The newest image with above < index < below: fills index and number; -ENOENT. */
int local_dir_find_image(struct local *local, uint64_t above, uint64_t below, uint64_t *index,
			 uint64_t *number);
/* Remove what an image made of file @number on does without. */
void local_dir_clean(struct local *local, uint64_t number);
void local_file_head(const struct local *local, uint64_t number, const struct uuid *id,
		     struct local_file *out);
/* 0, or why not: -E_CORRUPT, -E_WRONG_VERSION, -E_WRONG_CLUSTER. */
int local_file_check(const struct local *local, const struct local_file *head, uint64_t number,
		     const struct uuid *id);
int local_image_check(const struct local *local, const struct local_image *head);
void local_image_seal(struct local_image *head);

/* ---- local_read.c ---- */

int local_read_init(struct local *local, const struct uuid *first_file, struct error *err);
void local_read_done(struct local *local);
/* Load the newest image, and go on in its file; nothing is told before this has returned. */
void local_read_start(struct local *local);
/* There may be more in the file. */
void local_read_on(struct local *local);
void local_read_watched(struct local *local, uint32_t events);
/* The append has ended: the reader may leave the file. */
void local_read_handover(struct local *local);

/* ---- local_write.c ---- */

int local_write_init(struct local *local, struct error *err);
void local_write_done(struct local *local);
/* Append what waits, if nothing is under way. */
void local_write_on(struct local *local);
int local_propose(struct engine *engine, const void *command, uint32_t size);

/* ---- local_compact.c ---- */

int local_compact_init(struct local *local, struct error *err);
void local_compact_done(struct local *local);
/* A record that ends at @offset was delivered. */
void local_compact_on_record(struct local *local, uint64_t offset, bool is_ours);
/* The file is sealed; all before the seal was delivered. */
void local_compact_on_seal(struct local *local);

/* ---- local_members.c ---- */

/* Take our place, or -EBUSY when another start of this node lives. */
int local_members_init(struct local *local, struct error *err);
void local_members_done(struct local *local);
/* Look at all, tell what is new. */
void local_members_scan(struct local *local);
/* An event says that somebody may have come or gone: look now and again soon. */
void local_members_look(struct local *local);
void local_members_stop(struct local *local);
/* Say that we leave, and give up the lock. */
void local_members_leave(struct local *local);
/* Give up the lock without a word: what a crash does. For tests. */
void local_members_drop(struct local *local);

#endif
