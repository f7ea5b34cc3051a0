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

#define PEER_VERSION_MIN 1u
#define PEER_VERSION_MAX 1u

/* Bits of `features` in HELLO: none so far. */
#define PEER_FEATURES 0ull

/* What a link is for. A class has its own links, so that one never waits behind another. */
enum peer_class {
	PEER_CLASS_CONTROL = 0, /* beacons, questions about state; open to nodes that join */
	PEER_CLASS_CLIENT = 1,	/* gateway to primary */
	PEER_CLASS_PEER = 2,	/* primary to replica, recovery, takeover */
	PEER_CLASS_COUNT
};

/* Numbers are for ever; 0 (HELLO) and 0xffff (PING) are frame.h's. */
enum peer_op {
	/* gateway to primary */
	PEER_OP_READ = 1,
	PEER_OP_WRITE = 2, /* data, zero or trim: see kind */
	PEER_OP_SYNC = 3,  /* gateway to every member's node: FLUSH */
};

/* ---- gateway to primary ---- */

enum peer_io_flags {
	PEER_IO_FUA = 1u << 0, /* acknowledge when synced on every in-sync member */
};

/*
 * PEER_OP_READ. Payload: the layers below the top, le64 each, top first.
 * Reply: payload of `length` bytes, or none and PEER_READ_HOLE.
 */
struct peer_read {
	le64 epoch;	 /* of the PG, as the gateway's map has it */
	le64 map_index;	 /* log index of the gateway's map */
	le64 volume;
	le64 generation; /* of the volume, as the connection was opened */
	le64 family;
	le64 layer;	 /* the top */
	le32 pg;
	le32 index;	 /* of the object in its layer */
	le32 offset;	 /* bytes into the object */
	le32 length;	 /* bytes, > 0; offset + length <= OBJECT_SIZE */
	le32 flags;	 /* zero */
	le32 layer_count; /* with the top, 1 to 64 */
};
WIRE_SIZE(struct peer_read, 72);
WIRE_OFFSET(struct peer_read, pg, 48);

struct peer_read_reply {
	le32 flags; /* enum peer_read_flags */
	le32 payload_crc; /* of the payload as a whole */
	le64 epoch; /* the primary's, when it answered */
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

/* PEER_OP_WRITE. Payload: the data, `length` bytes (PEER_WRITE_DATA only). */
struct peer_write {
	le64 epoch;
	le64 map_index;
	le64 volume;
	le64 generation;
	le64 family;
	le64 layer;	 /* the top: writes go there */
	le64 session;	 /* of the gateway, from the map */
	le64 number;	 /* of the request in its session, from 1 */
	le64 lowest;	 /* the lowest number the session still waits for */
	le32 pg;
	le32 index;
	le32 offset;	 /* bytes into the object */
	le32 length;	 /* bytes, > 0; offset + length <= OBJECT_SIZE */
	le32 flags;	 /* enum peer_io_flags */
	le32 kind;	 /* enum peer_write_kind */
	le32 payload_crc; /* of the payload as a whole */
	le32 layer_count; /* with the top: whether a trimmed block may become absent */
};
WIRE_SIZE(struct peer_write, 104);
WIRE_OFFSET(struct peer_write, session, 48);
WIRE_OFFSET(struct peer_write, pg, 72);

struct peer_write_reply {
	le64 epoch; /* the primary's, when it answered */
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

#endif
