/*
 * The peer protocol: gateway to primary, primary to replica, node to node.
 * docs/protocol/peer.md
 *
 * Frames and HELLO are those of frame.h, with FRAME_MAGIC_PEER. Requests go from the
 * side that dialled to the side that accepted; two nodes that need both directions dial
 * each other. Every loop of a sheep dials the loop of the other that owns the placement
 * group, so that no request changes threads. Bodies grow at the tail: a missing tail
 * reads as zero. Little-endian, no padding. Frames of one link arrive in the order in
 * which they were sent. Payloads are data first, then checksums: so data lands aligned.
 *
 * Versions N and N-1 run mixed. A new version is a row below with one sentence; a new
 * op names it in its row of the op table (`since`).
 */
#ifndef PROTO_PEER_H
#define PROTO_PEER_H

#include "include/proto/frame.h"

/* X(number, what is new) */
#define PEER_VERSION_LIST(X) X(1, "the first version")

#define PEER_VERSION_MIN     1u
#define PEER_VERSION_MAX     1u

/* Bits of `features` in HELLO: none so far. */
#define PEER_FEATURES 0ull

/* What a link is for. A class has its own links, so that one never waits behind another. */
enum peer_class {
	PEER_CLASS_CONTROL = 0, /* beacons, questions about state; open to nodes that join */
	PEER_CLASS_CLIENT = 1,	/* gateway to primary */
	PEER_CLASS_PEER = 2,	/* primary to replica, takeover: in the order of the PG */
	PEER_CLASS_BULK = 3,	/* recovery: lists, sums, pushes */
	PEER_CLASS_COUNT
};

/* Numbers are for ever; 0 (HELLO) and 0xffff (PING) are frame.h's. */
enum peer_op {
	/* gateway to primary */
	PEER_OP_READ = 1,
	PEER_OP_WRITE = 2, /* data, zero or trim: see kind */
	PEER_OP_SYNC = 3,  /* gateway to every member's node: FLUSH */
	PEER_OP_DRAIN = 4, /* new owner to every primary's loop: are older writes over? */
	/* primary to member, class PEER */
	PEER_OP_APPEND = 16,   /* an entry */
	PEER_OP_COMMIT = 17,   /* commit points, when no entry carries them; one-way */
	PEER_OP_COLLECT = 18,  /* a new primary asks for the tail */
	PEER_OP_REQUESTS = 19, /* what was executed, in place of what the member remembers */
	PEER_OP_JOIN = 20,     /* to a joining or marked member: the stream begins */
	PEER_OP_SEAL = 21,     /* to the same, when nothing is missing: sync, and compare digests */
	PEER_OP_CONFIRM = 22,  /* to the old primary's node: it has applied its end */
	/* primary to member, class BULK */
	PEER_OP_LIST = 32,  /* objects and their versions */
	PEER_OP_SUMS = 33,  /* states and checksums of the blocks of one object */
	PEER_OP_PUSH = 34,  /* blocks of an object, outside the order */
	PEER_OP_FETCH = 35, /* blocks of an object that is missing at the primary */
	/* node to node, class CONTROL */
	PEER_OP_LAST = 40,    /* last entries of many PGs, for an election */
	PEER_OP_FIGURES = 48, /* space in use, recovery under way: for people */
	PEER_OP_BEACON = 49,  /* I am here: shall I go on? */
};

/* ---- gateway to primary ---- */

/*
 * Each loop of a gateway numbers its requests for itself, per PG. So a session on the wire and
 * in the stores is the session of the gateway's node in the map (the log index of its
 * registration), shifted, and the number of the loop. It has ended when the node's has.
 */
#define PEER_SESSION_LOOP_BITS 6

static inline uint64_t peer_session_of(uint64_t node_session, unsigned loop)
{
	return node_session << PEER_SESSION_LOOP_BITS | loop;
}

static inline uint64_t peer_session_node(uint64_t session)
{
	return session >> PEER_SESSION_LOOP_BITS;
}

enum peer_io_flags {
	PEER_IO_FUA = 1u << 0, /* acknowledge when synced on every in-sync member */
};

/*
 * PEER_OP_READ. Payload: the layers below the top, le64 each, top first.
 * Reply: payload of `length` bytes, or none and PEER_READ_HOLE.
 */
struct peer_read {
	le64 epoch;	/* of the PG, as the gateway's map has it */
	le64 map_index; /* log index of the gateway's map */
	le64 volume;
	le64 generation; /* of the volume, as the connection was opened */
	le64 family;
	le64 layer; /* the top */
	le32 pg;
	le32 index;	  /* of the object in its layer */
	le32 offset;	  /* bytes into the object */
	le32 length;	  /* bytes, > 0; offset + length <= OBJECT_SIZE */
	le32 flags;	  /* zero */
	le32 layer_count; /* with the top, 1 to 64 */
};
WIRE_SIZE(struct peer_read, 72);
WIRE_OFFSET(struct peer_read, pg, 48);

struct peer_read_reply {
	le32 flags;	  /* enum peer_read_flags */
	le32 payload_crc; /* of the payload as a whole */
	le64 epoch;	  /* the primary's, when it answered */
};
WIRE_SIZE(struct peer_read_reply, 16);

enum peer_read_flags {
	PEER_READ_HOLE = 1u << 0, /* all zeroes: no payload */
};

enum peer_write_kind {
	PEER_WRITE_DATA = 0,
	PEER_WRITE_ZERO = 1, /* reads as zeroes afterwards; space is given back */
	PEER_WRITE_TRIM = 2, /* as ZERO, but parts of blocks may keep their content */
};

/*
 * PEER_OP_WRITE. Payload: the data, `length` bytes (PEER_WRITE_DATA only), then the layers
 * below the top, le64 each, top first: what a write of part of a block is completed from.
 */
struct peer_write {
	le64 epoch;
	le64 map_index;
	le64 volume;
	le64 generation;
	le64 family;
	le64 layer;   /* the top: writes go there */
	le64 session; /* of the gateway's loop: peer_session_of() */
	le64 number;  /* of the request in its session and PG, from 1 */
	le64 lowest;  /* the lowest number that the session still waits for in this PG */
	le32 pg;
	le32 index;
	le32 offset;	  /* bytes into the object */
	le32 length;	  /* bytes, > 0; offset + length <= OBJECT_SIZE */
	le32 flags;	  /* enum peer_io_flags */
	le32 kind;	  /* enum peer_write_kind */
	le32 payload_crc; /* of the payload as a whole */
	le32 layer_count; /* with the top: whether a trimmed block may become absent */
};
WIRE_SIZE(struct peer_write, 104);
WIRE_OFFSET(struct peer_write, session, 48);
WIRE_OFFSET(struct peer_write, pg, 72);

struct peer_write_reply {
	le64 epoch;	 /* the primary's, when it answered */
	le64 loss_epoch; /* of the PG: the gateway's FLUSH compares */
};
WIRE_SIZE(struct peer_write_reply, 16);

/*
 * PEER_OP_SYNC, to every node with in-sync members of the PGs that were written since
 * the last FLUSH. Payload: rows of struct peer_sync_row. A member in another epoch refuses
 * with STALE_EPOCH or waits (FUTURE_EPOCH); otherwise the reply comes when everything that
 * the node's member has of each PG is on stable storage.
 */
struct peer_sync {
	le64 map_index;
	le32 row_count;
	le32 reserved;
};
WIRE_SIZE(struct peer_sync, 16);

struct peer_sync_row {
	le64 epoch;
	le32 pg;
	le32 store; /* id of the member, from the map */
};
WIRE_SIZE(struct peer_sync_row, 16);

/*
 * PEER_OP_DRAIN, from a gateway that has become owner of a volume, to every loop that leads PGs of its
 * policy. Answered when the receiver's map has reached `map_index` and `generation`, and no write of
 * the volume of an older generation is in flight in a PG that it leads and serves.
 */
struct peer_drain {
	le64 volume;
	le64 generation;
	le64 map_index; /* of the gateway's map: by it the receiver leads PGs */
};
WIRE_SIZE(struct peer_drain, 24);

/* ---- primary to member ----
 *
 * Every message names the PG, the member (a store of the receiving node) and the sender's epoch.
 * A member answers STALE_EPOCH to an older one than its own; a later one waits until its own
 * map is there. Then the sender's node must have the primary's store, else NOT_PRIMARY.
 */

/* A run of blocks that are to be in one state. */
struct peer_run {
	le16 block;
	le16 count; /* > 0; runs ascend and do not overlap */
	le16 state; /* as `enum block_state` of the store: 0 absent, 1 data, 2 zero */
	le16 reserved;
};
WIRE_SIZE(struct peer_run, 8);

/*
 * What an APPEND or PUSH changes: `run_count` runs, then a CRC32C (le32, unseeded) for each block
 * of their data runs: `block_count` of them. They lie in the body if they fit there, else at
 * the end of the payload, behind the data. `meta_crc` is of these bytes.
 */
#define PEER_META_INLINE 56u

enum peer_entry_flags {
	PEER_ENTRY_SYNC = 1u << 0,    /* acknowledge when it is on stable storage */
	PEER_ENTRY_DELETE = 1u << 1,  /* the object is absent afterwards */
	PEER_ENTRY_ANY = 1u << 2,     /* settle: whatever version the object has */
	PEER_ENTRY_REPLACE = 1u << 3, /* blocks outside the runs become absent */
	PEER_ENTRY_FIRST = 1u << 4,   /* PUSH: the object is missing from here on */
	PEER_ENTRY_LAST = 1u << 5,    /* PUSH: it is complete now, at the version named */
	PEER_ENTRY_REQUESTS =
		1u << 6, /* APPEND: the payload ends with struct peer_entry_requests */
};

/*
 * With an entry that makes the object what the primary has: so it is with the requests that were executed
 * on it. They take the place of those of this object that the member remembers behind version
 * `above`, which is committed. Followed by peer_entry_row[row_count].
 */
struct peer_entry_requests {
	le64 above_reign;
	le64 above_n;
	le32 row_count;
	le32 crc; /* CRC32C of this struct, with this field zero, and of the rows */
};
WIRE_SIZE(struct peer_entry_requests, 24);

struct peer_entry_row {
	le64 session;
	le64 number;
	le64 reign; /* version of its entry */
	le64 n;
};
WIRE_SIZE(struct peer_entry_row, 32);

#define PEER_ENTRY_ROWS_MAX 16384u

/*
 * PEER_OP_APPEND, class PEER. Entries of one reign ascend by n; `after` is the n of the entry sent to
 * this member before (0: none), so that numbers that were not sent do not look like a gap. A
 * member that has the entry answers as if it had come now. One that restarted finds its place by
 * its log and by `acknowledged`: numbers that it was not sent are in no log.
 */
struct peer_append {
	le64 epoch; /* the sender's, now */
	le64 reign; /* with n: the version */
	le64 n;
	le64 after;
	le64 commit_n; /* everything of this reign up to here is committed; 0: nothing is known */
	le64 previous_reign; /* the version that the object had before; zero: it was absent */
	le64 previous_n;
	le64 layer;
	le64 family;
	le64 session; /* of the request; 0: none */
	le64 number;
	le64 lowest;
	le64 generation;   /* of the volume */
	le64 acknowledged; /* the member has, by its own word, everything up to here; <= after */
	le32 pg;
	le32 store;
	le32 index;
	le16 run_count;
	le16 block_count;
	le32 flags; /* enum peer_entry_flags */
	le32 meta_crc;
	uint8_t meta[PEER_META_INLINE];
};
WIRE_SIZE(struct peer_append, 192);
WIRE_OFFSET(struct peer_append, pg, 112);
WIRE_OFFSET(struct peer_append, meta, 136);

enum peer_append_reply_flags {
	/* A joining member could not apply it: the object is missing there now. */
	PEER_APPEND_MISSING = 1u << 0,
};

struct peer_append_reply {
	le64 epoch;
	le64 applied_n; /* the member has everything of this reign up to here in its log */
	le64 credit;	/* bytes that its shard can still take */
	le32 flags;	/* enum peer_append_reply_flags */
	le32 reserved;
};
WIRE_SIZE(struct peer_append_reply, 32);

/* PEER_OP_COMMIT. Payload: rows. Nobody answers; what comes too late or too early is ignored. */
struct peer_commit {
	le32 row_count;
	le32 reserved;
};
WIRE_SIZE(struct peer_commit, 8);

struct peer_commit_row {
	le64 epoch;
	le64 reign;
	le64 commit_n;
	le32 pg;
	le32 store;
};
WIRE_SIZE(struct peer_commit_row, 32);

/*
 * PEER_OP_COLLECT: the member refuses older epochs from now on and expects entry 1 of `reign`. Reply
 * payload: rows, oldest first.
 */
struct peer_collect {
	le64 epoch;
	le64 reign;
	le32 pg;
	le32 store;
};
WIRE_SIZE(struct peer_collect, 24);

struct peer_collect_reply {
	le64 epoch;
	le64 last_reign; /* version of the member's newest entry */
	le64 last_n;
	le64 commit_reign; /* the commit point it knows */
	le64 commit_n;
	le64 credit;
	le32 row_count;
	le32 missing; /* objects */
};
WIRE_SIZE(struct peer_collect_reply, 56);

struct peer_tail_run {
	le16 block;
	le16 count;
};

#define PEER_TAIL_RUNS 4u

struct peer_tail_row {
	le64 reign;
	le64 n;
	le64 layer;
	le64 family;
	le32 index;
	le32 run_count; /* 0: the whole object */
	struct peer_tail_run runs[PEER_TAIL_RUNS];
};
WIRE_SIZE(struct peer_tail_row, 56);

#define PEER_TAIL_ROWS_MAX 65536u

enum peer_requests_flags {
	PEER_REQUESTS_LAST = 1u << 0, /* the table is complete: it replaces the member's */
};

/*
 * PEER_OP_REQUESTS, to a joining member, in the order of the entries: the requests that were executed up to
 * entry `n`. Payload: rows; a table may come in several pieces, by `first`.
 */
struct peer_requests {
	le64 epoch;
	le64 reign;
	le64 n;
	le32 pg;
	le32 store;
	le32 first; /* rows in the pieces before */
	le32 row_count;
	le32 flags; /* enum peer_requests_flags */
	le32 reserved;
};
WIRE_SIZE(struct peer_requests, 48);

struct peer_request_row {
	le64 session;
	le64 number;
	le64 reign;
	le64 n;
	le64 layer; /* of the object */
	le32 index;
	le32 reserved;
};
WIRE_SIZE(struct peer_request_row, 48);

#define PEER_REQUEST_ROWS_MAX 32768u /* of one message */

/* The reply to JOIN, REQUESTS, CONFIRM and PUSH. */
struct peer_ack {
	le64 epoch;
	le64 credit;
};
WIRE_SIZE(struct peer_ack, 16);

/*
 * PEER_OP_JOIN: the member's stream begins; the next entry has `after` = n. A second one, for
 * the same or another join, begins anew: pushes that name an earlier `start` are refused.
 */
struct peer_join {
	le64 epoch;
	le64 reign;
	le64 n;
	le64 join;	  /* log index of the PG_JOIN */
	le64 start;	  /* number that the primary gives to this beginning; not 0 */
	le64 incarnation; /* of the member's store, as the map has it */
	le32 pg;
	le32 store;
};
WIRE_SIZE(struct peer_join, 56);

/*
 * PEER_OP_SEAL, in the order of the entries: everything up to n was sent or pushed. The member syncs,
 * answers with its digest at n, and acknowledges only what is synced until an APPEND
 * comes under an epoch that has it in sync, or PEER_OP_JOIN. Digest: see docs/protocol/peer.md.
 */
/* Payload: peer_tail_row, the primary's tail, if some of it may be in no log but the primary's. */
struct peer_seal {
	le64 epoch;
	le64 reign;
	le64 n;
	le64 after;
	le64 join;
	le64 start;
	le64 map_index; /* the member judges which layers exist by this map or a later one */
	le32 pg;
	le32 store;
	le32 row_count;
	le32 reserved;
};
WIRE_SIZE(struct peer_seal, 72);

struct peer_seal_reply {
	le64 epoch;
	le64 digest;
	le64 objects;
	le64 missing;
};
WIRE_SIZE(struct peer_seal_reply, 32);

/*
 * PEER_OP_CONFIRM: answered when the receiver has applied the log up to `epoch`, if it is the start of
 * its node that is asked; STALE: another one, that knows nothing of it.
 */
struct peer_confirm {
	le64 epoch;
	le64 incarnation; /* of the node, when it led */
	le32 pg;
	le32 store;
};
WIRE_SIZE(struct peer_confirm, 24);

enum peer_object_flags {
	PEER_OBJECT_EXISTS = 1u << 0,
	PEER_OBJECT_MISSING = 1u << 1, /* its content is not to be trusted */
	/* SUMS: of what is missing all blocks but the lost ones are good, in this version. */
	PEER_OBJECT_MARKED = 1u << 2,
};

/* PEER_OP_LIST: the objects above (after_layer, after_index) in key order. Reply payload: rows. */
struct peer_list {
	le64 epoch;
	le64 after_layer;
	le32 after_index;
	le32 has_after; /* 0: from the very first */
	le32 pg;
	le32 store;
	le32 rows_max;
	le32 reserved;
};
WIRE_SIZE(struct peer_list, 40);

struct peer_list_reply {
	le64 epoch;
	le32 row_count;
	le32 is_end; /* 1: there are no more */
};
WIRE_SIZE(struct peer_list_reply, 16);

struct peer_list_row {
	le64 layer;
	le64 family;
	le64 reign;
	le64 n;
	le32 index;
	le32 flags; /* enum peer_object_flags */
};
WIRE_SIZE(struct peer_list_row, 40);

#define PEER_LIST_ROWS_MAX 8192u

/*
 * PEER_OP_SUMS. Reply payload: the states of blocks 0 to block_count - 1, a byte each, padded with
 * zeroes to a multiple of 4; then their CRC32Cs, le32 each. The blocks above are absent.
 */
struct peer_sums {
	le64 epoch;
	le64 layer;
	le64 family;
	le32 index;
	le32 pg;
	le32 store;
	le32 reserved;
};
WIRE_SIZE(struct peer_sums, 40);

struct peer_sums_reply {
	le64 epoch;
	le64 reign; /* version of the object */
	le64 n;
	le32 flags; /* enum peer_object_flags */
	le32 block_count;
};
WIRE_SIZE(struct peer_sums_reply, 32);

/*
 * PEER_OP_PUSH: blocks of one object to a joining or marked member, or a heal of a member in
 * sync (at equal version; -E_VERSION: what it misses is of a later one). FIRST and LAST may come together; DELETE with both and without runs.
 */
struct peer_push {
	le64 epoch;
	le64 join;  /* log index of the PG_JOIN; 0: a heal of a member in sync */
	le64 start; /* as JOIN gave it */
	le64 reign; /* version of the whole object, as it is after LAST */
	le64 n;
	le64 layer;
	le64 family;
	le32 index;
	le32 pg;
	le32 store;
	le16 run_count;
	le16 block_count;
	le32 flags; /* enum peer_entry_flags */
	le32 meta_crc;
	uint8_t meta[PEER_META_INLINE];
};
WIRE_SIZE(struct peer_push, 136);
WIRE_OFFSET(struct peer_push, meta, 80);

/* PEER_OP_FETCH. Reply payload: the content of the blocks, zeroes where there is no data. */
struct peer_fetch {
	le64 epoch;
	le64 layer;
	le64 family;
	le64 reign; /* the version that the object must have, else VERSION */
	le64 n;
	le32 index;
	le32 block;
	le32 count; /* PEER_FETCH_BLOCKS_MAX at most */
	le32 pg;
	le32 store;
	le32 flags; /* enum peer_fetch_flags */
};
WIRE_SIZE(struct peer_fetch, 64);

#define PEER_FETCH_BLOCKS_MAX 256u

enum peer_fetch_flags {
	PEER_FETCH_MARKED = 1u << 0, /* the object may be missing there, but MARKED */
};

struct peer_fetch_reply {
	le64 epoch;
	le64 reign;
	le64 n;
};
WIRE_SIZE(struct peer_fetch_reply, 24);

/* ---- node to node ---- */

/*
 * PEER_OP_LAST: which entry of each PG is the newest at that store? Payload: rows. The reply's payload
 * has a row for each of those that the receiver can speak for: the store is its own, its
 * registration is applied there, and the PG is in just that epoch there.
 */
struct peer_last {
	le32 row_count;
	le32 reserved;
};
WIRE_SIZE(struct peer_last, 8);

struct peer_last_row {
	le64 epoch;
	le32 pg;
	le32 store;
};
WIRE_SIZE(struct peer_last_row, 16);

#define PEER_LAST_ROWS_MAX 1024u

struct peer_last_reply {
	le32 row_count;
	le32 reserved;
};
WIRE_SIZE(struct peer_last_reply, 8);

struct peer_last_answer {
	le64 epoch;
	le64 reign; /* version of the newest entry of the order; zero: none */
	le64 n;
	le32 pg;
	le32 store;
	le32 missing; /* objects */
	le32 reserved;
};
WIRE_SIZE(struct peer_last_answer, 40);

/*
 * PEER_OP_BEACON, to loop 0 of a node with which the sender shares a PG. An acknowledgement is a
 * promise: for `grace_ms` from now no store of the receiver asks to take over from the sender's. It
 * is kept back while the receiver has asked for that and the log has not decided (BUSY), and
 * before its own registration is applied (TRY_AGAIN). It counts under a map that has reached `index`.
 */
enum peer_beacon_flags {
	/* The sender has had no acknowledgement for a lease, and none of an earlier beacon counts any more:
	 * what was promised by them is void. */
	PEER_BEACON_RENOUNCES = 1u << 0,
};

struct peer_beacon {
	le64 session; /* of the sender: the log index of its registration */
	le32 flags;   /* enum peer_beacon_flags */
	/* One more with each beacon of this start to this receiver, modulo 2^32. Connections that were
	 * given up may still deliver what was sent on them: overtaken beacons are refused. */
	le32 sequence;
};
WIRE_SIZE(struct peer_beacon, 16);

struct peer_beacon_reply {
	le64 session; /* of the receiver */
	le64 index;   /* that its map has reached */
	le32 grace_ms;
	le32 reserved;
};
WIRE_SIZE(struct peer_beacon_reply, 24);

/*
 * PEER_OP_FIGURES: what this sheep's loops and stores know at the moment, summed. Reply payload: rows of
 * its stores, then of joining or marked members that its PGs fill, those that lack most first (not
 * all, the sums count all), then of objects that cannot be read (not all of them, either).
 *
 * Payload: the layers of which it is to say what they hold, le64 each, ascending. Then the reply's payload goes on with a row
 * for each, in the same order, and the ids (le32, ascending) of the PGs that these were counted over: led by the sheep from
 * the count's beginning to its end. With less the sums are not used: who asks adds up what is told of all PGs.
 */
enum peer_figures_flags {
	PEER_FIGURES_PG =
		1u << 0, /* and what each store has of `pg`, whether it is listed or not */
};

#define PEER_FIGURES_LAYERS_MAX 8192u

struct peer_figures {
	le32 flags;
	le32 pg;
	le32 layer_count; /* of the payload */
	le32 reserved;
};
WIRE_SIZE(struct peer_figures, 16);

struct peer_figures_reply {
	le64 objects_missing; /* at members that our primaries fill, as far as known */
	le64 bytes_missing;
	le64 objects_moved; /* pushed since this start */
	le64 bytes_moved;
	le32 store_count;
	le32 row_count;
	le64 objects_lost;   /* of PGs that it leads: with blocks that no copy has */
	le64 objects_unread; /* missing at the primary, that is */
	le32 lost_count;
	le32 layer_count; /* as many as were asked for */
	le32 pg_count;	  /* 0: it could not count to the end */
	le32 reserved;
};
WIRE_SIZE(struct peer_figures_reply, 72);
WIRE_OFFSET(struct peer_figures_reply, pg_count, 64);

struct peer_figures_store {
	le64 size_bytes;
	le64 live_bytes;
	le64 allocated_bytes;
	le64 credit_bytes; /* that may still be written there */
	le64 last_reign;   /* of the PG that was asked for: its newest entry; zero: none */
	le64 last_n;
	le32 objects; /* of that PG */
	le32 missing; /* of these: not to be trusted */
	le32 store;   /* id in the map */
	le32 reserved;
};
WIRE_SIZE(struct peer_figures_store, 64);

struct peer_figures_row {
	le64 objects_missing;
	le64 bytes_missing;
	le32 pg;
	le32 store;
};
WIRE_SIZE(struct peer_figures_row, 24);

struct peer_figures_lost {
	le64 layer;
	le32 index;
	le32 pg;
	le32 blocks; /* that are lost; 0: the object is missing, and may be found yet */
	le32 reserved;
};
WIRE_SIZE(struct peer_figures_lost, 24);

struct peer_figures_layer {
	le64 data_blocks;
	le64 missing; /* objects that are missing at the primary: nobody knows what they hold */
};
WIRE_SIZE(struct peer_figures_layer, 16);

#endif
