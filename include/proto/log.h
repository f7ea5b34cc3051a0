/*
 * Commands of the cluster's log, and the image that replaces a compacted log.
 *
 *   struct log_command | body (one struct per type) | rows (`row_count` of them)
 *
 * What a command does, and when it does nothing, is sheep/cluster's one table
 * (docs/protocol/cluster-log.md). A number is never reused; reserved fields are
 * zero. Texts are UTF-8, closed by a zero and padded with zeroes.
 */
#ifndef PROTO_LOG_H
#define PROTO_LOG_H

#include "include/proto/endian.h"

#define LOG_COMMAND_MAGIC   0x434c5053u /* "SPLC" as bytes */
#define LOG_COMMAND_VERSION 1u
#define LOG_COMMAND_MAX	    65536u /* bytes, header and rows included */
#define LOG_IMAGE_MAGIC	    0x494c5053u /* "SPLI" */
#define LOG_IMAGE_VERSION   1u

#define LOG_NAME_SIZE	  256u /* volume names and paths */
#define LOG_ADDRESS_SIZE  128u
#define LOG_ZONE_SIZE	  64u
#define LOG_KEY_SIZE	  64u /* names of settings and properties */
#define LOG_VALUE_SIZE	  1024u
#define LOG_COPIES_MAX	  8u
#define LOG_SEATS_MAX	  16u /* of one PG: while it moves both the old and the new are listed */
#define LOG_LAYERS_MAX	  64u

/* X(name, number) */
#define LOG_TYPE_LIST(X)                                                                           \
	X(FORMAT, 1)                                                                               \
	X(REGISTER, 2)                                                                             \
	X(DEAD, 3)                                                                                 \
	X(LEAVE, 4)                                                                                \
	X(STORE_FAILED, 5)                                                                         \
	X(STORE_WEIGHT, 6)                                                                         \
	X(NODE_DRAIN, 7)                                                                           \
	X(NODE_UNDRAIN, 8)                                                                         \
	X(NODE_REMOVE, 9)                                                                          \
	X(SETTING, 10)                                                                             \
	X(POLICY, 11)                                                                              \
	X(LEVEL, 12)                                                                               \
	X(SHUTDOWN, 13)                                                                               \
	X(RETARGET, 20)                                                                            \
	X(PG_SHRINK, 21)                                                                           \
	X(PG_TAKEOVER, 22)                                                                         \
	X(PG_PRIMARY, 23)                                                                          \
	X(PG_JOIN, 24)                                                                             \
	X(PG_LEAVE_JOIN, 25)                                                                       \
	X(PG_EXPAND, 26)                                                                           \
	X(PG_HOLES, 27)                                                                            \
	X(PG_ELECT, 28)                                                                            \
	X(PG_FORCE, 29)                                                                            \
	X(VOLUME_CREATE, 40)                                                                       \
	X(VOLUME_DELETE, 41)                                                                       \
	X(VOLUME_RENAME, 42)                                                                       \
	X(VOLUME_RESIZE, 43)                                                                       \
	X(VOLUME_SET, 44)                                                                          \
	X(VOLUME_OPEN, 45)                                                                         \
	X(VOLUME_CLOSE, 46)                                                                        \
	X(VOLUME_OWN, 47)

enum log_type {
#define LOG_TYPE_ENUM(name, number) LOG_##name = (number),
	LOG_TYPE_LIST(LOG_TYPE_ENUM)
#undef LOG_TYPE_ENUM
	LOG_TYPE_END = 48
};

/*
 * (start, sequence) names the command: its proposer knows its own entry by it when
 * it is applied, and a second copy of it does nothing.
 */
struct log_command {
	le32 magic;
	le16 version;
	le16 type;	/* enum log_type */
	le32 size;	/* bytes, this header included */
	le32 crc;	/* CRC32C of the whole command with this field zero */
	le32 node;	/* proposer's id; 0 in REGISTER, which gives it */
	le32 row_count; /* rows after the body */
	le64 start;	/* random number of the proposer's process */
	le64 sequence;	/* from 1 in each start */
};
WIRE_SIZE(struct log_command, 40);
WIRE_OFFSET(struct log_command, node, 16);
WIRE_OFFSET(struct log_command, start, 24);

struct log_uuid {
	uint8_t bytes[16];
};

enum log_format_flags {
	LOG_FORMAT_FORCE = 1u << 0, /* though there are fewer stores than copies */
};

struct log_format {
	struct log_uuid cluster;
	le32 level;
	le32 copies;
	le32 min_insync; /* 0: copies - 1, at least 1 */
	le32 pg_count;	 /* 0: 256 */
	le32 flags;	 /* enum log_format_flags */
	le32 reserved;
};
WIRE_SIZE(struct log_format, 40);

enum log_store_flags {
	LOG_STORE_UNCLEAN = 1u << 0, /* may have lost what it acknowledged (R3) */
	LOG_STORE_NEW = 1u << 1,     /* has nothing, or nothing that can be believed */
	/* It is the very directory that the start registered last had, and this start holds its
	 * lock: nobody else serves from it (L3). */
	LOG_STORE_HELD = 1u << 2,
};

enum log_register_flags {
	/* The engine's word that no earlier start of this node lives (it holds the lock that
	 * the earlier one held): whoever takes over from it need not wait. */
	LOG_REGISTER_ALONE = 1u << 0,
};

/* Rows: struct log_register_store. */
struct log_register {
	struct log_uuid uuid;	 /* of the node */
	struct log_uuid cluster; /* that its stores are stamped with; null: none */
	le64 incarnation;	 /* of the node: rises with every start */
	le32 version_min;	 /* of the peer protocol */
	le32 version_max;
	le32 loops;
	le32 flags; /* enum log_register_flags */
	char address[LOG_ADDRESS_SIZE]; /* HOST:PORT of the peer protocol */
	char zone[LOG_ZONE_SIZE];
};
WIRE_SIZE(struct log_register, 248);
WIRE_OFFSET(struct log_register, address, 56);

struct log_register_store {
	struct log_uuid uuid;
	le64 incarnation; /* of the store: raised durably before this is proposed */
	le64 start;	  /* random number of this start (R2) */
	le64 size_bytes;
	le32 shards;
	le32 flags; /* enum log_store_flags */
	char path[LOG_NAME_SIZE];
};
WIRE_SIZE(struct log_register_store, 304);

/* DEAD: certainly dead, says the engine. LEAVE: a clean stop, by the node itself. */
struct log_node_incarnation {
	le32 node;
	le32 reserved;
	le64 incarnation;
};
WIRE_SIZE(struct log_node_incarnation, 16);

struct log_store_failed {
	le32 store;
	le32 reserved;
	le64 incarnation;
};
WIRE_SIZE(struct log_store_failed, 16);

struct log_store_weight {
	le32 store;
	le32 weight;
};
WIRE_SIZE(struct log_store_weight, 8);

/* NODE_DRAIN, NODE_UNDRAIN, NODE_REMOVE */
struct log_node {
	le32 node;
	le32 reserved;
};
WIRE_SIZE(struct log_node, 8);

struct log_setting {
	char name[LOG_KEY_SIZE];
	le64 value; /* in the setting's own unit */
};
WIRE_SIZE(struct log_setting, 72);

#define LOG_POLICY_KEEP UINT32_MAX /* of a number below: stays as it is */

struct log_policy {
	le32 policy;
	le32 copies;
	le32 min_insync; /* 0: copies - 1, at least 1 */
	le32 reserved;
};
WIRE_SIZE(struct log_policy, 16);

struct log_set_level {
	le32 level;
	le32 reserved;
};
WIRE_SIZE(struct log_set_level, 8);

/* SHUTDOWN: every node that is running when it is committed stops as if it were told to. */
struct log_shutdown {
	le64 reserved;
};
WIRE_SIZE(struct log_shutdown, 8);

/* RETARGET has an empty body of 8 bytes and these rows. */
struct log_retarget {
	le64 reserved;
};
WIRE_SIZE(struct log_retarget, 8);

struct log_retarget_row {
	le32 pg;
	le32 count;	 /* stores, LOG_COPIES_MAX at most */
	le64 target_index; /* what the proposer saw; else the row does nothing */
	le32 stores[LOG_COPIES_MAX]; /* the first one should lead */
};
WIRE_SIZE(struct log_retarget_row, 48);

enum log_shrink_flags {
	/* The members are known to lack writes (they could not apply one): where the floor
	 * forbids to remove them they are marked. */
	LOG_SHRINK_DIVERGED = 1u << 0,
};

/* Rows: le32 store. */
struct log_pg_shrink {
	le32 pg;
	le32 flags; /* enum log_shrink_flags */
	le64 epoch;
};
WIRE_SIZE(struct log_pg_shrink, 16);

/* PG_TAKEOVER has these rows: struct log_pg_store. */
struct log_pg_takeover {
	le64 reserved;
};
WIRE_SIZE(struct log_pg_takeover, 8);

/* PG_PRIMARY, PG_ELECT, PG_FORCE, and a row of PG_TAKEOVER: `store` is to lead. */
struct log_pg_store {
	le32 pg;
	le32 store;
	le64 epoch;
};
WIRE_SIZE(struct log_pg_store, 16);

struct log_pg_join {
	le32 pg;
	le32 store;
	le64 incarnation; /* of the store */
};
WIRE_SIZE(struct log_pg_join, 16);

struct log_pg_leave_join {
	le32 pg;
	le32 store;
	le64 join; /* log index of the PG_JOIN */
};
WIRE_SIZE(struct log_pg_leave_join, 16);

struct log_pg_expand {
	le32 pg;
	le32 store;
	le64 epoch;
	le64 join;	  /* log index of the PG_JOIN */
	le64 incarnation; /* of the store */
	le32 drop;	  /* a lost member that goes in the same step, or 0 */
	le32 reserved;
};
WIRE_SIZE(struct log_pg_expand, 40);

struct log_pg_holes {
	le32 pg;
	le32 store;
	le64 epoch;
	le64 incarnation; /* of the store */
	le32 has_holes;	  /* 1: objects are missing there; 0: none is any more */
	le32 reserved;
};
WIRE_SIZE(struct log_pg_holes, 32);

struct log_property {
	char key[LOG_KEY_SIZE];
	char value[LOG_VALUE_SIZE];
};
WIRE_SIZE(struct log_property, 1088);

/* Rows: struct log_property. */
struct log_volume_create {
	char name[LOG_NAME_SIZE];
	le64 size_bytes;
	le64 created_s; /* by the proposer's clock, since 1970; 0: unknown */
	le32 policy;
	le32 reserved;
};
WIRE_SIZE(struct log_volume_create, 280);

struct log_volume_delete {
	le64 volume;
};
WIRE_SIZE(struct log_volume_delete, 8);

struct log_volume_rename {
	le64 volume;
	char name[LOG_NAME_SIZE]; /* the one that it has */
	char to[LOG_NAME_SIZE];
};
WIRE_SIZE(struct log_volume_rename, 520);

enum log_resize_flags {
	LOG_RESIZE_SHRINK = 1u << 0, /* smaller is meant */
};

struct log_volume_resize {
	le64 volume;
	le64 from_bytes; /* the size that it has */
	le64 to_bytes;
	le32 flags; /* enum log_resize_flags */
	le32 reserved;
};
WIRE_SIZE(struct log_volume_resize, 32);

struct log_volume_set {
	le64 volume;
	struct log_property property; /* an empty value removes it */
};
WIRE_SIZE(struct log_volume_set, 1096);

enum log_open_flags {
	LOG_OPEN_READ_ONLY = 1u << 0,
};

/* VOLUME_OPEN, VOLUME_CLOSE: of a gateway, not of a connection. */
struct log_volume_open {
	le64 volume;
	le64 session;
	le32 flags; /* enum log_open_flags */
	le32 reserved;
};
WIRE_SIZE(struct log_volume_open, 24);

struct log_volume_own {
	le64 volume;
	le64 session;	 /* the owner to be */
	le64 generation; /* that the proposer saw; else it does nothing */
};
WIRE_SIZE(struct log_volume_own, 24);

/*
 * The image: everything that the commands up to `index` have made.
 *
 *   log_image | settings | policies | nodes | stores | PGs | volumes
 *
 * Each kind ascends by id (settings: as the writer lists them; policies: 0, 1, ...), so
 * that equal maps give equal bytes.
 */
struct log_image {
	le32 magic;
	le32 version;
	le64 size; /* bytes of all */
	le32 crc;  /* CRC32C of all with this field zero */
	le32 level;
	struct log_uuid cluster; /* null: not formatted */
	le64 index;
	le64 next_id;
	le64 shutdown; /* index of the last SHUTDOWN; 0: none */
	le32 next_node;
	le32 next_store;
	le32 setting_count;
	le32 policy_count;
	le32 node_count;
	le32 store_count;
	le32 pg_count;
	le32 volume_count;
};
WIRE_SIZE(struct log_image, 96);
WIRE_OFFSET(struct log_image, cluster, 24);

struct log_image_setting {
	char name[LOG_KEY_SIZE];
	le64 value;
};
WIRE_SIZE(struct log_image_setting, 72);

struct log_image_policy {
	le32 copies;
	le32 min_insync;
	le32 pg_count;
	le32 reserved;
};
WIRE_SIZE(struct log_image_policy, 16);

#define LOG_WINDOW_WORDS 16u /* of the commands of a node that were applied */

struct log_image_node {
	struct log_uuid uuid;
	le32 id;
	le32 flags; /* enum cluster_node_flags */
	le64 incarnation;
	le64 start;
	le64 session;
	le32 version_min;
	le32 version_max;
	le32 loops;
	le32 reserved;
	le64 sequence;
	le64 applied[LOG_WINDOW_WORDS];
	char address[LOG_ADDRESS_SIZE];
	char zone[LOG_ZONE_SIZE];
};
WIRE_SIZE(struct log_image_node, 392);

struct log_image_store {
	struct log_uuid uuid;
	le32 id;
	le32 node;
	le32 flags; /* enum cluster_store_flags */
	le32 weight;
	le32 shards;
	le32 reserved;
	le64 incarnation;
	le64 start;
	le64 size_bytes;
	char path[LOG_NAME_SIZE];
};
WIRE_SIZE(struct log_image_store, 320);

/* Then its seats, joins and targets (le32 each). */
struct log_image_pg {
	le32 id;
	le32 primary;
	le64 epoch;
	le64 reign;
	le64 loss_epoch;
	le64 target_index;
	le64 fence_index;
	le64 fence_incarnation;
	le32 fence_store;
	le32 fence_node;
	le32 forced;
	le16 isr_count;
	le16 join_count;
	le16 target_count;
	le16 reserved[3];
};
WIRE_SIZE(struct log_image_pg, 80);

struct log_image_seat {
	le32 store;
	le32 flags; /* enum cluster_seat_flags */
};
WIRE_SIZE(struct log_image_seat, 8);

struct log_image_join {
	le32 store;
	le32 reserved;
	le64 index;
	le64 incarnation;
};
WIRE_SIZE(struct log_image_join, 24);

/* Then its name, layers (le64 each), openers and properties. */
struct log_image_volume {
	le64 id;
	le64 family;
	le64 size_bytes;
	le64 generation;
	le64 owner;
	le64 created;
	le64 changed;
	le64 high_bytes;
	le64 created_s;
	le32 policy;
	le16 access;
	le16 durability;
	le16 name_length;
	le16 layer_count;
	le16 opener_count;
	le16 property_count;
};
WIRE_SIZE(struct log_image_volume, 88);

struct log_image_opener {
	le64 session;
	le32 flags;
	le32 reserved;
};
WIRE_SIZE(struct log_image_opener, 16);

/* Then key and value. */
struct log_image_property {
	le16 key_length;
	le16 value_length;
};
WIRE_SIZE(struct log_image_property, 4);

#endif
