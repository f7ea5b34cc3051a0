/*
 * The engine: one ordered, durable log of commands and the live membership.
 * docs/internals/engines.md
 *
 * An engine gives exactly what is written here; nothing else may be assumed of any of
 * them. Commands are opaque bytes. The user (the map) is a pure function of the commands
 * in their order; it keeps nothing on disk of its own: at each start the engine gives it
 * the latest image, if there is one, and the commands after it.
 *
 *   engine_open()        start-up: may block; foreign data, wrong versions: an error with a text
 *     install?           the state at some index, when there is an image
 *     commit...          all that was committed since
 *     ready              everything that anyone had seen when engine_open() was called is here
 *     members, quorum    once each right after ready, then at each change
 *     commit, install, ended, snapshot, members, quorum   in any order, as they happen
 *   engine_leave()
 *     left               the last callback; then engine_free()
 *
 * Always true:
 * (1) every member sees the same commands under the same indices in the same order; what one
 *     has seen survives the loss of power of all, and (corosync, zookeeper) of any minority's disks;
 * (2) an end that was announced (`ended`) is a fact about one start of one node, never about
 *     a later one;
 * (3) callbacks run on the engine's loop, never inside a call of this header.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/uuid.h"
#include "lib/loop/loop.h"

#define ENGINE_COMMAND_MAX (512u << 10) /* bytes of a command */
#define ENGINE_IMAGE_MAX   (1u << 30)	/* bytes of an image */
#define ENGINE_INFO_MAX	   4096u	/* bytes of a member's info */
#define ENGINE_QUEUE_MAX   (16u << 20)	/* bytes proposed and not yet seen committed */
#define ENGINE_QUEUE_COUNT 4096u	/* commands proposed and not yet seen committed */

struct engine;

/* One start of one node. */
struct engine_member {
	struct uuid node;
	uint64_t start;	  /* random at each start of the process, never 0 */
	const void *info; /* what it told at engine_open(): addresses and the like; opaque */
	uint32_t info_size;
};

/* How a start of a node ended. Both are certain: that start will never serve again. */
enum engine_end {
	ENGINE_END_DIED, /* its process ended without a word */
	ENGINE_END_LEFT, /* it stopped serving, then called engine_leave() */
};

/* The state of the user as bytes, from malloc(3). */
struct engine_image {
	void *data;
	size_t size; /* at most ENGINE_IMAGE_MAX */
};

/* All must be given. */
struct engine_callbacks {
	/*
	 * The next command of the log. It is durable. @index ascends strictly, from 1; it may skip
	 * numbers (the same on all members). @command is borrowed for the call.
	 *
	 * The same bytes may come again under another index: a proposal may be repeated.
	 */
	void (*commit)(void *context, uint64_t index, const void *command, uint32_t size);
	/*
	 * Everything up to @index at once, in place of the commands up to there: at start, and
	 * later on a member that was stopped for so long that the log moved on without it. @index is
	 * above that of any commit or install before. @image is borrowed for the call. A negative
	 * result (the image is from a version this one cannot read) fails the engine.
	 */
	int (*install)(void *context, uint64_t index, const void *image, size_t size,
		       struct error *err);
	/*
	 * Give the state after the last commit or install that was delivered; the engine takes the
	 * memory. 0, or a negative error: then the log is compacted later.
	 */
	int (*snapshot)(void *context, struct engine_image *out);
	/* See above; once. */
	void (*ready)(void *context);
	/*
	 * Who is alive now, ourselves included, sorted by node: a hint. It is no licence to serve and
	 * no proof of an end. Borrowed for the call.
	 */
	void (*members)(void *context, const struct engine_member *members, uint32_t count);
	/*
	 * This start of this node has certainly ended: a fact. Every member that is alive learns it,
	 * if the engine can know it at all; after a start of our own also those that ended before
	 * and were not followed by another start of the same node. It may come more than once, and
	 * before `members` leaves it out. Nothing is said about a start that another one followed
	 * before we looked: the later start's own registration tells.
	 */
	void (*ended)(void *context, const struct uuid *node, uint64_t start, enum engine_end how);
	/* Without quorum nothing commits; proposals wait or are lost. False before the first call. */
	void (*quorum)(void *context, bool has_quorum);
	/*
	 * The engine cannot go on (its disk failed, its directory was removed, it was replaced by
	 * data of another cluster). Nothing but `left` comes after it. @err->text says what to do.
	 */
	void (*failed)(void *context, const struct error *err);
	/* engine_leave() is through: the engine may be freed. */
	void (*left)(void *context);
};

struct engine_options {
	struct engine_member self; /* info is copied */
	/* The log this node belonged to before; another one is -E_WRONG_CLUSTER. Null: any. */
	struct uuid log;
	/* Bytes of log after which it is compacted; 0: a good value. For tests. */
	uint64_t compact_bytes;
	/*
	 * The directory of an engine that keeps its log on each node (corosync): this node's alone, made
	 * when it is not there. NULL is well for the others. Borrowed for engine_open().
	 */
	const char *dir;
};

/*
 * Join by @spec: "local:DIR", "corosync[:CHANNEL]" or "zookeeper:HOST:PORT[,...][/ROOT]".
 *
 * May block shortly (start-up). Everything is borrowed but @callbacks and @context, which must
 * live until `left`. Errors, all with a text that says what to do (it does not repeat @spec): -EINVAL (the spec),
 * -EBUSY (this node is running already), -E_WRONG_CLUSTER, -E_WRONG_VERSION (a log format of
 * another version), -E_CORRUPT, -errno.
 */
int engine_open(const char *spec, struct loop *loop, const struct engine_options *options,
		const struct engine_callbacks *callbacks, void *context, struct engine **out,
		struct error *err);

/* Is @spec well-formed and known here? 0, or -EINVAL with a text that lists what is known. */
int engine_check_spec(const char *spec, struct error *err);

/*
 * Ask for @command (1 to ENGINE_COMMAND_MAX bytes, copied) to be appended. It never answers: the
 * proposer recognises its own command when it is committed. It may be lost (then propose it
 * again; a lost one may still commit late), may be committed twice, and may overtake an earlier
 * one. So every command carries a condition under which it is a no-op (REPLICATION.md, S0).
 *
 * 0: taken; -EMSGSIZE: the size; -EAGAIN: too many wait, try later;
 * -E_NO_QUORUM: not taken now; -E_SHUTDOWN: after failed or engine_leave().
 */
int engine_propose(struct engine *engine, const void *command, uint32_t size);

/*
 * The operator removed @node from the cluster: call it on every member when that command is applied (again
 * is well). An engine that counts votes of nodes (corosync) stops counting that node's.
 */
void engine_forget(struct engine *engine, const struct uuid *node);

/*
 * How our connections to that start are: @is_closed when its kernel closed one (an end of stream or a reset came; not: we
 * closed it, or it was silent), false when one was made. An engine that needs a second witness for a
 * death (corosync; REPLICATION.md, G3) takes it from here.
 */
void engine_link(struct engine *engine, const struct uuid *node, uint64_t start, bool is_closed);

/*
 * Leave. The caller has stopped serving before: others may act on the end at once. Proposals
 * that wait are lost. No callback but `left` comes any more. Once; also after `failed`.
 */
void engine_leave(struct engine *engine);

/* After `left` only. NULL is allowed. */
void engine_free(struct engine *engine);

/* The UUID that this log got when it was created: to be remembered for engine_options.log. */
struct uuid engine_log(const struct engine *engine);
/* "local", "corosync", "zookeeper". */
const char *engine_name(const struct engine *engine);
/* Index of the last commit or install that was delivered; 0: none. */
uint64_t engine_index(const struct engine *engine);

struct engine_stats {
	uint64_t proposals;	  /* taken by engine_propose() */
	uint64_t proposals_again; /* sent again by the engine: lost on the way */
	uint64_t commits;	  /* delivered */
	uint64_t commit_bytes;
	uint64_t syncs;
	uint64_t installs;
	uint64_t snapshots;
	uint64_t skipped_bytes; /* torn records and other garbage in the log */
};

void engine_stats_get(const struct engine *engine, struct engine_stats *out);

#endif
