/*
 * The engine `zookeeper:HOST:PORT[,...][/ROOT]`, one member of it. docs/internals/engines.md
 *
 *   zk.c          life: the spec, the session, leaving
 *   zk_names.c    names of servers
 *   zk_dial.c     which of them serve, while there is no connection
 *   zk_call.c     the client library, whose threads answer by mail
 *   zk_read.c     the reader: format, image and segments in, commits out
 *   zk_write.c    proposals
 *   zk_compact.c  the next segment, the seal, the image, what is no longer needed
 *   zk_members.c  who lives, who has left
 *
 * Everything but the bodies of the library's callbacks runs on the loop. Each part is a small
 * sequence of steps; a step that fails because the connection does is taken again by the retry
 * timer or when the session is back.
 */
#ifndef ENGINE_ZK_PRIV_H
#define ENGINE_ZK_PRIV_H

/* The library has a struct of this name, too; we use none of its. */
#define buffer jute_buffer
#include <zookeeper/zookeeper.h>
#undef buffer

#include "include/proto/zk_log.h"
#include "sheep/engine/engine_priv.h"

#define ZK_PATH_MAX	   512
#define ZK_ROOT_MAX	   256
#define ZK_HOSTS_MAX	   1024
#define ZK_NAME_MAX	   64
#define ZK_ADDRESSES_MAX   32u
#define ZK_COMPACT_BYTES   (2u << 20)
#define ZK_SEGMENT_ENTRIES 1024u
#define ZK_READS	   64u /* entries asked for at a time */
#define ZK_RETRY_NS	   (100 * NS_PER_MS)

struct zk;
struct zk_lookup;

/* Of servers, numeric. */
struct zk_addresses {
	uint32_t count;
	char text[ZK_ADDRESSES_MAX][LOOP_ADDRESS_MAX];
};

enum zk_host_step {
	ZK_HOST_IDLE,
	ZK_HOST_CONNECTING,
	ZK_HOST_SENDING,
	ZK_HOST_RECEIVING,
};

struct zk_host {
	struct zk *zk;
	struct loop_op op;
	enum zk_host_step step;
	struct loop_socket *socket;
	struct iovec iov;
	char address[LOOP_ADDRESS_MAX];
	char reply[16];
	uint64_t at_ns; /* idle: when it is asked; else when it is asked for too long */
	uint64_t pause_ns;
	bool serves;
};

struct zk_dial {
	bool is_active;
	bool is_renamed; /* zk->addresses are others, and the servers follow when none is being asked */
	bool is_posted; /* the lookup was given up when its answer was on its way */
	uint32_t busy;
	unsigned moves;
	uint64_t move_ns; /* when the session goes over; 0: nobody serves yet */
	uint64_t lookup_ns;
	struct loop_timer timer;
	struct zk_lookup *lookup;
	uint32_t count;
	struct zk_host servers[ZK_ADDRESSES_MAX];
};

/* One call of the library. It comes back exactly once, on the loop, and is freed behind `done`. */
struct zk_call {
	struct loop_mail mail;
	struct cds_list_head link; /* in the engine while it is out */
	struct zk *zk;
	bool is_answered;
	void (*done)(struct zk_call *call);
	uint64_t number; /* the caller's */
	char about[ZK_PATH_MAX];
	int rc;	     /* a ZOO_ERRORS */
	int version; /* of the node's data */
	/* as the call gives them */
	char *path; /* of a created node */
	uint8_t *data;
	size_t size;
	char **names; /* sorted */
	uint32_t name_count;
};

enum zk_read_step {
	ZK_READ_IDLE,	/* not begun, or the session is away */
	ZK_READ_SYNC,	/* what anyone has seen is to be seen here */
	ZK_READ_ROOT,	/* is there a log? */
	ZK_READ_MAKE,	/* no: make it, node by node */
	ZK_READ_FORMAT, /* which one is it? */
	ZK_READ_NEWEST,
	ZK_READ_IMAGE,
	ZK_READ_LIST,
	ZK_READ_ENTRIES,
	ZK_READ_REST, /* all was read; the watch tells of more */
};

struct zk_reader {
	enum zk_read_step step;
	unsigned making; /* which node */
	uint64_t segment;
	uint64_t next;	 /* number in the segment of the first entry that was not read */
	bool is_changed; /* the watch has fired since the last list */
	bool is_waiting; /* the step is to be taken again */
	uint32_t calls;	 /* under way */
	/* entries that are there, by number; answers wait here for those before them */
	uint64_t *numbers;
	struct zk_call **answers;
	uint32_t count, asked, told;
	/* the image */
	struct zk_newest newest;
	uint8_t *image;
};

struct zk_proposal;

struct zk_writer {
	struct cds_list_head proposals; /* by sequence, but for a seal, which is the first */
	uint64_t sequence;
	uint64_t bytes;
	uint32_t count, flying;
};

enum zk_compact_step {
	ZK_COMPACT_IDLE,
	ZK_COMPACT_NEXT, /* the next segment is made */
	ZK_COMPACT_SEAL, /* the seal is proposed */
	ZK_COMPACT_DIR,	 /* ours was the first: the image */
	ZK_COMPACT_CHUNKS,
	ZK_COMPACT_OLD, /* which one is the newest so far? */
	ZK_COMPACT_NEWEST,
	ZK_COMPACT_IMAGES, /* what is no longer needed goes: images, then segments */
	ZK_COMPACT_SEGMENTS,
};

struct zk_compactor {
	enum zk_compact_step step;
	bool is_waiting;
	uint64_t bytes, entries; /* in the segment, so far */
	uint64_t seal;		 /* its sequence */
	uint64_t index, segment;
	struct engine_image image;
	char name[40];
	uint64_t chunk;
	int newest_version; /* -1: there is none */
	uint32_t deletes;   /* under way */
};

struct zk_peer;

struct zk_members {
	bool is_there;	 /* our own node is */
	bool is_looking; /* a look is under way */
	bool is_changed;
	bool is_waiting;
	bool was_told;
	uint32_t calls;
	struct cds_list_head peers;
	char **ended; /* names that were told */
	uint32_t ended_count;
};

/* What the library's threads know. Lives until its handle is closed. */
struct zk_session {
	struct zk *zk;
	uint32_t life;
};

struct zk {
	struct engine engine;
	char hosts[ZK_HOSTS_MAX];
	char root[ZK_ROOT_MAX];	       /* "/..." without a slash at its end */
	struct zk_addresses addresses; /* of hosts, as they were last */
	bool is_numeric;	       /* hosts has no names */
	struct uuid expected;
	uint64_t compact_bytes;
	zhandle_t *handle;
	struct zk_session *session; /* of the handle */
	uint32_t life;		    /* rises with each session */
	bool is_connected;
	bool is_behind; /* perhaps: the handle is new, and its server may not have seen what we have */
	bool is_syncing;
	bool is_stopped; /* failed or leaving */
	uint64_t waiting_since_ns, told_ns, told_no_log_ns;
	struct cds_list_head calls;
	uint32_t mails; /* atomic: events on their way here */
	/* Something was told for which there was no memory: look at everything. */
	struct loop_mail lost_mail;
	uint32_t lost_is_out; /* atomic */
	struct loop_timer retry, leave_timer;
	struct zk_dial dial;
	struct loop_op quit_op;
	struct loop_mail leave_mail;
	bool is_noting; /* leaving: that we do is being written down */
	bool is_closed; /* leaving: the session is */
	bool is_quitting;
	struct zk_reader reader;
	struct zk_writer writer;
	struct zk_compactor compactor;
	struct zk_members members;
};

/* ---- zk.c ---- */

void zk_fail(struct zk *zk, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* ROOT and what follows; @out of ZK_PATH_MAX bytes. */
void zk_path(const struct zk *zk, char *out, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Some part has is_waiting: take its step again, soon. */
void zk_retry(struct zk *zk);
/* Everything that was out has come back: tell `left` if we leave. */
void zk_try_quit(struct zk *zk);
/* There is none, and we belong to one: the reader looks again, later. */
void zk_wait_for_log(struct zk *zk);
/* The session goes on with other servers, unless it has a connection. */
void zk_session_move(struct zk *zk, const struct zk_addresses *servers);
/* NODE-START */
void zk_member_name(const struct uuid *node, uint64_t start, char out[ZK_NAME_MAX]);

/* ---- zk_names.c ---- */

typedef void zk_lookup_done(struct zk *zk, const struct zk_addresses *addresses);

/* No name that would have to be asked for? */
bool zk_names_are_numeric(const char *hosts);
/* May block. Those that have no address are left out. */
void zk_names_resolve(const char *hosts, struct zk_addresses *out);
/* The same for zk->hosts, without: @done once, by mail. NULL: no memory, or no thread. */
struct zk_lookup *zk_lookup_start(struct zk *zk, zk_lookup_done *done);
/* True: it is gone. False: its mail is on its way, and brings NULL. */
bool zk_lookup_give_up(struct zk_lookup *lookup);

/* ---- zk_dial.c ---- */

void zk_dial_start(struct zk *zk); /* there is no connection */
void zk_dial_stop(struct zk *zk);
/* After zk_dial_stop(): is nothing under way any more? Else zk_try_quit() is called when it is. */
bool zk_dial_end(struct zk *zk);

/* ---- zk_call.c ---- */

/* From the library's threads. */
void zk_on_session(zhandle_t *handle, int type, int state, const char *path, void *context);

/*
 * Calls. False: it could not be made (no session, no memory): is_waiting, and zk_retry().
 * Everything is copied.
 */
bool zk_sync(struct zk *zk, const char *path, void (*done)(struct zk_call *call));
bool zk_get(struct zk *zk, const char *path, uint64_t number, void (*done)(struct zk_call *call));
bool zk_list(struct zk *zk, const char *path, bool has_watch, uint64_t number,
	     void (*done)(struct zk_call *call));
bool zk_create(struct zk *zk, const char *path, const void *data, size_t size, int mode,
	       uint64_t number, void (*done)(struct zk_call *call));
bool zk_set(struct zk *zk, const char *path, const void *data, size_t size, int version,
	    void (*done)(struct zk_call *call));
bool zk_delete(struct zk *zk, const char *path, uint64_t number,
	       void (*done)(struct zk_call *call));
/* After zookeeper_close(): those that it did not answer. */
void zk_calls_end(struct zk *zk);
/* Did it fail because of the connection, so that nobody knows what became of it? */
bool zk_is_passing(int rc);
void zk_session_changed(struct zk *zk, uint32_t life, int state);
/* An event was lost: the state is as the library says, and anything may have changed. */
void zk_look_again(struct zk *zk);

/* ---- zk_read.c ---- */

void zk_read_go(struct zk *zk); /* begin, or take the step again */
void zk_read_stop(struct zk *zk);
void zk_read_changed(struct zk *zk); /* the watch */
/*
 * The entry @data of ours was made as @path in the present segment. True: it was delivered, and is not found in the
 * writer's list by zk_write_seen().
 */
bool zk_read_own(struct zk *zk, const char *path, const void *data, size_t size);
void zk_read_done(struct zk *zk);

/* ---- zk_write.c ---- */

int zk_propose(struct engine *engine, const void *command, uint32_t size);
/* Returns its sequence, or a negative error. */
int64_t zk_write_add(struct zk *zk, enum zk_entry_type type, const void *body, uint32_t size);
void zk_write_go(struct zk *zk);
/* An entry that counts: is it ours? Then it is gone from here. */
bool zk_write_seen(struct zk *zk, const struct zk_entry *entry);
void zk_write_drop(struct zk *zk, uint64_t sequence);
/* The reader is past the seal of a segment: what we put into it and did not see does not count. */
void zk_write_sealed(struct zk *zk);
void zk_write_done(struct zk *zk);

/* ---- zk_compact.c ---- */

void zk_compact_go(struct zk *zk);
void zk_compact_entry(struct zk *zk, size_t size, bool is_ours);
/* @own_sequence: of the seal, if it is ours; else 0. */
void zk_compact_sealed(struct zk *zk, uint64_t own_sequence);
void zk_compact_done(struct zk *zk);

/* ---- zk_members.c ---- */

void zk_members_go(struct zk *zk);
void zk_members_changed(struct zk *zk); /* the watch */
void zk_members_lost(struct zk *zk);	/* the session has ended, and our node with it */
void zk_members_done(struct zk *zk);

#endif
