/*
 * The agreement of the engine `corosync[:CHANNEL]`: which command has which index, who leads, who
 * votes. Sans-I/O: a driver carries its messages by CPG, keeps its files and calls the user.
 * docs/internals/engines.md, docs/decisions/0009-corosync-agreement.md, docs/protocol/corosync.md
 *
 *   in    agree_view, agree_deliver, agree_written, agree_timer, ... : events, on the engine's loop
 *   out   struct agree_ops
 *
 * An op that does I/O (write, write_next, write_image, send, set_timer) must not call back into the core
 * before it has returned. Ops that tell (commit ... left) come inside of the inputs, but never
 * inside agree_propose(), agree_leave(), agree_forget() and agree_link(): these the user calls, also from within what it
 * is told. So a driver calls engine_tell_*() in them as it is.
 *
 * Always true: (1) what commits has been synced by a majority of the registered voters; (2) CPG
 * is believed in nothing but the order in which this member was handed its messages: views and
 * leavers are hints; (3) a voter promises a term once, and the promise is on disk before it is told.
 */
#ifndef ENGINE_AGREE_H
#define ENGINE_AGREE_H

#include "include/proto/cpg_log.h"
#include "lib/base/err.h"
#include "lib/base/random.h"
#include "lib/base/uuid.h"
#include "sheep/engine/engine.h"

struct agree;

/* CPG's name of a member. */
struct agree_id {
	uint32_t node; /* corosync's nodeid */
	uint32_t pid;
};

/* Why a member is not in a view that was in the one before. */
enum agree_gone {
	AGREE_GONE_LEFT,    /* CPG_REASON_LEAVE: it called cpg_leave() */
	AGREE_GONE_PROCESS, /* CPG_REASON_PROCDOWN: the corosync of its node lives and lost it */
	AGREE_GONE_NODE,    /* CPG_REASON_NODEDOWN and all else */
};

struct agree_leaver {
	struct agree_id id;
	enum agree_gone why;
};

struct agree_view {
	struct agree_id self;
	const struct agree_id *members; /* ourselves among them; in CPG's order */
	uint32_t count;
	const struct agree_leaver *leavers; /* since the view before */
	uint32_t leaver_count;
};

enum agree_file { AGREE_FILE_LOG, AGREE_FILE_IMAGE };

/* All must be given. Memory that an op is handed is borrowed until its completion, else for the call. */
struct agree_ops {
	uint64_t (*now)(void *context); /* CLOCK_BOOTTIME, ns */
	/* agree_timer() at this time, or soon if that is past; there is one timer, this moves it. UINT64_MAX: never. */
	void (*set_timer)(void *context, uint64_t at_ns);

	/*
	 * Multicast a message (at most CPG_MESSAGE_MAX bytes; copied) to the group, ourselves included.
	 * 0, or -EAGAIN: not now; agree_can_send() when to try again. It is handed to
	 * agree_deliver() of every member of the view, in one order; never from within this call.
	 */
	int (*send)(void *context, const void *message, size_t size);

	/*
	 * Append to the log file in use and sync it; then agree_written(). One at a time. A full
	 * disk is waited for by the driver; any other error is final.
	 */
	void (*write)(void *context, const void *data, size_t size);
	/*
	 * Make log file @number with this content, synced, its name too (a file of that number, left by a
	 * crash, is replaced); then agree_written(). What is appended after goes there.
	 */
	void (*write_next)(void *context, uint64_t number, const void *data, size_t size);
	/* The same with image file @number; then agree_image_written(). One at a time; writes go on besides. */
	void (*write_image)(void *context, uint64_t number, const void *data, size_t size);
	/* Remove the files of this kind with lower numbers; nobody waits. */
	void (*remove_below)(void *context, enum agree_file kind, uint64_t number);

	/* As the callbacks of engine.h; engine_tell_*() and engine_take_snapshot() fit. */
	void (*commit)(void *context, uint64_t index, const void *command, uint32_t size);
	int (*install)(void *context, uint64_t index, const void *image, size_t size,
		       struct error *err);
	int (*snapshot)(void *context, struct engine_image *out);
	void (*ready)(void *context);
	void (*members)(void *context, const struct engine_member *members, uint32_t count);
	void (*ended)(void *context, const struct uuid *node, uint64_t start, enum engine_end how);
	void (*quorum)(void *context, bool has_quorum); /* may say what it said before */
	void (*failed)(void *context, const struct error *err);
	/* agree_leave() is through: nothing is under way but writes, which the driver waits for. Close CPG, then agree_free(). */
	void (*left)(void *context);
};

struct agree_options {
	struct engine_member self; /* info is copied */
	struct uuid log;	   /* engine_options */
	uint64_t compact_bytes;
	struct random *random; /* the loop's; borrowed for ever */
};

/* NULL: no memory. */
struct agree *agree_new(const struct agree_options *options, const struct agree_ops *ops,
			void *context);
/* No write may be under way. NULL is allowed. */
void agree_free(struct agree *agree);

/*
 * What the disk has. A file and its name are to be synced before @read gives it: what is built upon it must not
 * outlive it. @numbers: of its log files, ascending. @read gives a file's bytes, from malloc(3): 0, or
 * -errno (-ENOENT: there is no such file). Once, before agree_start(); without files it need not be called.
 *
 * 0; -E_CORRUPT, -E_WRONG_VERSION, -E_WRONG_CLUSTER (options.log, or another node's files), -ENOMEM, or what @read gave:
 * with a text. Nothing is written.
 */
int agree_restore(struct agree *agree, const uint64_t *numbers, uint32_t count,
		  int (*read)(void *context, enum agree_file kind, uint64_t number, void **data,
			      size_t *size),
		  struct error *err);

/* Begin. Tells what agree_restore() found (install, commit), and sets the timer. From the loop: it is an input. */
void agree_start(struct agree *agree);

/* ---- inputs; ops are called inside ---- */

/* The group has changed; NULL: the connection to corosync is lost. */
void agree_view(struct agree *agree, const struct agree_view *view);
/* @from may be anyone and @data anything. In the order in which CPG gave views and messages. */
void agree_deliver(struct agree *agree, struct agree_id from, const void *data, size_t size);
void agree_can_send(struct agree *agree);
void agree_written(struct agree *agree, int rc);       /* of write or write_next */
void agree_image_written(struct agree *agree, int rc); /* of write_image */
void agree_timer(struct agree *agree);
/* Votequorum says so. False at first. */
void agree_quorum(struct agree *agree, bool has_quorum);

/* ---- calls of the user; nothing is told inside ---- */

/* The size is right. 0, or -EAGAIN: too many wait. */
int agree_propose(struct agree *agree, const void *command, uint32_t size);
/* Say good-bye; `left` comes from agree_timer() or another input, within a second at most. */
void agree_leave(struct agree *agree);
/*
 * @node was removed from the cluster by its operator: it is no voter from now on, whatever logs it has. Every
 * member is to be told (engine_forget() when the removal is applied); more than once is well.
 */
void agree_forget(struct agree *agree, const struct uuid *node);
/*
 * How the connections between this process and that start are: @is_closed when the other kernel closed one (an end of
 * stream or a reset came; not: we closed it, it timed out), false when one was made. With CPG's
 * AGREE_GONE_PROCESS it is the proof of a death (REPLICATION.md, G3: each by itself is no proof).
 */
void agree_link(struct agree *agree, const struct uuid *node, uint64_t start, bool is_closed);

/* ---- looking ---- */

struct uuid agree_log(const struct agree *agree); /* null: not known yet */
struct agree_stats {
	uint64_t term, commit, last;
	uint64_t proposals_again, elections, truncated, images_sent, images_taken, frames;
	uint64_t copy; /* the number of our copy of the log; 0: none is on disk */
	uint32_t voters, members;
	uint32_t voter_changes; /* in entries that are not committed */
	bool is_leader;
};
void agree_stats_get(const struct agree *agree, struct agree_stats *out);

#endif
