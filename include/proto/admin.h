/*
 * The admin protocol: collie, or any other tool, to a sheep. docs/protocol/admin.md
 *
 * Frames as in frame.h (magic FRAME_MAGIC_ADMIN), a HELLO first, then requests. Every
 * request has the same small body and every reply too; what differs from command to
 * command is the payload: one JSON document (RFC 8259, UTF-8). Of a request it is
 * an object of arguments, of a reply the very document that `collie --json` prints,
 * of a refusal {"error": text, "code": name}. Keys are added, never renamed, and nobody
 * minds a key that he does not know: that is how old and new work together for ever.
 */
#ifndef PROTO_ADMIN_H
#define PROTO_ADMIN_H

#include "include/proto/endian.h"

/* Raised when an op is added, so that HELLO tells a client what to expect. */
#define ADMIN_VERSION_MIN 1u
#define ADMIN_VERSION_MAX 2u

/*
 * X(name, number, text, since, key)
 *
 * One row per command of collie that asks a sheep. Numbers are for ever, 0 is HELLO, and
 * each noun has a range: cluster 1, node 32, store 48, pg 64, recovery 80, vdi 96,
 * scrub 160. @since: the first protocol version that has it. @key: a list comes in pages
 * sorted by this key of its rows; NULL: the reply is one object.
 */
#define ADMIN_OP_LIST(X)                                       \
	X(CLUSTER_FORMAT, 1, "cluster format", 1, NULL)        \
	X(CLUSTER_INFO, 2, "cluster info", 1, NULL)            \
	X(CLUSTER_SHUTDOWN, 3, "cluster shutdown", 1, NULL)    \
	X(CLUSTER_SET, 4, "cluster set", 2, NULL)              \
	X(CLUSTER_SETTINGS, 5, "cluster settings", 2, "key")   \
	X(CLUSTER_HEALTH, 6, "cluster health", 2, NULL)        \
	X(CLUSTER_FORCE, 7, "cluster force-recover", 2, NULL)  \
	X(NODE_LIST, 32, "node list", 1, "id")                 \
	X(NODE_DRAIN, 33, "node drain", 2, NULL)               \
	X(NODE_UNDRAIN, 34, "node undrain", 2, NULL)           \
	X(NODE_REMOVE, 35, "node remove", 2, NULL)             \
	X(STORE_LIST, 48, "store list", 1, "uuid")             \
	X(STORE_SET, 49, "store set", 2, NULL)                 \
	X(PG_LIST, 64, "pg list", 1, "id")                     \
	X(RECOVERY_INFO, 80, "recovery info", 1, NULL)         \
	X(RECOVERY_PAUSE, 81, "recovery pause", 2, NULL)       \
	X(RECOVERY_RESUME, 82, "recovery resume", 2, NULL)     \
	X(RECOVERY_THROTTLE, 83, "recovery throttle", 2, NULL) \
	X(VDI_CREATE, 96, "vdi create", 1, NULL)               \
	X(VDI_LIST, 97, "vdi list", 1, "name")                 \
	X(VDI_INFO, 98, "vdi info", 1, NULL)                   \
	X(VDI_DELETE, 99, "vdi delete", 1, NULL)               \
	X(VDI_RENAME, 100, "vdi rename", 2, NULL)              \
	X(VDI_RESIZE, 101, "vdi resize", 2, NULL)              \
	X(VDI_SET, 102, "vdi set", 2, NULL)

enum admin_op {
#define ADMIN_OP_ENUM(name, number, text, since, key) ADMIN_OP_##name = (number),
	ADMIN_OP_LIST(ADMIN_OP_ENUM)
#undef ADMIN_OP_ENUM
	ADMIN_OP_END /* above every number */
};

/* Arguments are small; a longer payload in a request is refused with INVALID. */
#define ADMIN_ARGUMENTS_MAX (64u << 10)
/* Nesting of any document, arguments or result. */
#define ADMIN_JSON_DEPTH_MAX 16u
/*
 * A list ends its page with the row that makes it this long, so that no reply comes near
 * FRAME_PAYLOAD_MAX and no loop is busy for long with one. A row is ADMIN_ROW_MAX at most.
 */
#define ADMIN_PAGE_SIZE (512u << 10)
#define ADMIN_ROW_MAX	(1u << 20)
#define ADMIN_REPLY_MAX (2u << 20) /* the longest payload of any reply */
_Static_assert(ADMIN_PAGE_SIZE + ADMIN_ROW_MAX < ADMIN_REPLY_MAX, "a page fits in a reply");

/* The body of every request. Payload: a JSON object, or nothing for no arguments. */
struct admin_request {
	/*
	 * How long the client waits, from now. A sheep that cannot answer by then says
	 * TIMED_OUT, and that the change may still happen if it may. 0: the sheep's default.
	 */
	le32 deadline_ms;
	le32 flags; /* zero, else INVALID */
};
WIRE_SIZE(struct admin_request, 8);

enum admin_reply_flags {
	/* A list goes on: ask again, with "after" = the key of the last row. */
	ADMIN_REPLY_MORE = 1u << 0,
};

/* The body of every reply, also of a refusal. */
struct admin_reply {
	le32 flags; /* enum admin_reply_flags; others are ignored */
	le32 reserved;
};
WIRE_SIZE(struct admin_reply, 8);

#endif
