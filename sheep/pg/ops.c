/* The ops of the peer protocol, one row each. */
#include "sheep/pg/lease.h"
#include "sheep/pg/pg_priv.h"

#define ROW(op_name, type, reply_type)                                                      \
	.name = op_name, .body_min = sizeof(struct type), .body_size = sizeof(struct type), \
	.reply_min = sizeof(struct reply_type), .reply_size = sizeof(struct reply_type)

#define META_MAX (OBJECT_BLOCKS * (uint32_t)(sizeof(struct peer_run) + sizeof(le32)))
#define ROWS_MAX                                        \
	(uint32_t)(sizeof(struct peer_entry_requests) + \
		   PEER_ENTRY_ROWS_MAX * sizeof(struct peer_entry_row))
_Static_assert(OBJECT_SIZE + META_MAX + ROWS_MAX <= FRAME_PAYLOAD_MAX, "an entry fits a frame");

static const struct wire_op ops[] = {
	[PEER_OP_READ] =
		{
			ROW("read", peer_read, peer_read_reply),
			.flags = WIRE_OP_REPLY_OWN_CRC,
			.payload_max = (LOG_LAYERS_MAX - 1) * sizeof(le64),
			.reply_payload_max = OBJECT_SIZE,
			.handle = pg_on_read,
		},
	[PEER_OP_WRITE] =
		{
			ROW("write", peer_write, peer_write_reply),
			.flags = WIRE_OP_OWN_CRC,
			.payload_max = OBJECT_SIZE + (LOG_LAYERS_MAX - 1) * sizeof(le64),
			.handle = pg_on_write,
		},
	[PEER_OP_SYNC] =
		{
			.name = "sync",
			.body_min = sizeof(struct peer_sync),
			.body_size = sizeof(struct peer_sync),
			.payload_max = FRAME_PAYLOAD_MAX,
			.handle = pg_on_sync,
		},
	[PEER_OP_DRAIN] =
		{
			.name = "drain",
			.body_min = sizeof(struct peer_drain),
			.body_size = sizeof(struct peer_drain),
			.handle = pg_on_drain,
		},
	[PEER_OP_APPEND] =
		{
			ROW("append", peer_append, peer_append_reply),
			.flags = WIRE_OP_OWN_CRC,
			.payload_max = OBJECT_SIZE + META_MAX + ROWS_MAX,
			.handle = pg_on_append,
		},
	[PEER_OP_COMMIT] =
		{
			.name = "commit",
			.flags = WIRE_OP_ONEWAY,
			.body_min = sizeof(struct peer_commit),
			.body_size = sizeof(struct peer_commit),
			.payload_max = FRAME_PAYLOAD_MAX,
			.handle = pg_on_commit,
		},
	[PEER_OP_COLLECT] =
		{
			ROW("collect", peer_collect, peer_collect_reply),
			.reply_payload_max = PEER_TAIL_ROWS_MAX * sizeof(struct peer_tail_row),
			.handle = pg_on_collect,
		},
	[PEER_OP_REQUESTS] =
		{
			ROW("requests", peer_requests, peer_ack),
			.payload_max = PEER_REQUEST_ROWS_MAX * sizeof(struct peer_request_row),
			.handle = pg_on_requests,
		},
	[PEER_OP_JOIN] =
		{
			ROW("join", peer_join, peer_ack),
			.handle = pg_on_join,
		},
	[PEER_OP_SEAL] =
		{
			ROW("seal", peer_seal, peer_seal_reply),
			.payload_max = PEER_TAIL_ROWS_MAX * sizeof(struct peer_tail_row),
			.handle = pg_on_seal,
		},
	[PEER_OP_CONFIRM] =
		{
			ROW("confirm", peer_confirm, peer_ack),
			.handle = pg_on_confirm,
		},
	[PEER_OP_LIST] =
		{
			ROW("list", peer_list, peer_list_reply),
			.reply_payload_max = PEER_LIST_ROWS_MAX * sizeof(struct peer_list_row),
			.handle = pg_on_list,
		},
	[PEER_OP_SUMS] =
		{
			ROW("sums", peer_sums, peer_sums_reply),
			.reply_payload_max = OBJECT_BLOCKS * (1 + sizeof(le32)),
			.handle = pg_on_sums,
		},
	[PEER_OP_PUSH] =
		{
			ROW("push", peer_push, peer_ack),
			.flags = WIRE_OP_OWN_CRC,
			.payload_max = OBJECT_SIZE + META_MAX,
			.handle = pg_on_push,
		},
	[PEER_OP_LAST] =
		{
			ROW("last", peer_last, peer_last_reply),
			.payload_max = PEER_LAST_ROWS_MAX * sizeof(struct peer_last_row),
			.reply_payload_max = PEER_LAST_ROWS_MAX * sizeof(struct peer_last_answer),
			.handle = pg_on_last,
		},
	[PEER_OP_FETCH] =
		{
			ROW("fetch", peer_fetch, peer_fetch_reply),
			.reply_payload_max = PEER_FETCH_BLOCKS_MAX * BLOCK_SIZE,
			.handle = pg_on_fetch,
		},
	[PEER_OP_BEACON] =
		{
			ROW("beacon", peer_beacon, peer_beacon_reply),
			.handle = pg_on_beacon,
		},
};

const struct wire_protocol pg_peer_protocol = {
	.name = "peer",
	.magic = FRAME_MAGIC_PEER,
	.version_min = PEER_VERSION_MIN,
	.version_max = PEER_VERSION_MAX,
	.features = PEER_FEATURES,
	.open_classes = BIT(PEER_CLASS_CONTROL),
	.classes = PEER_CLASS_COUNT,
	.ops = ops,
	.op_count = ARRAY_COUNT(ops),
};
