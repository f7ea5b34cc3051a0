/*
 * NBD on the wire: big-endian, as in doc/proto.md of NetworkBlockDevice/nbd.
 *
 *   S: nbd_greeting     C: nbd_client_flags
 *   C: nbd_option + data        S: nbd_option_reply + data, one or more
 *   C: nbd_request_header (+ payload)        S: nbd_simple_reply (+ payload)
 *
 * The numbers are the protocol's. docs/protocol/nbd.md says what is served.
 */
#ifndef PROTO_NBD_H
#define PROTO_NBD_H

#include "include/proto/endian.h"

#define NBD_STRING_MAX 4096u /* bytes of a name or text; proto.md, Conventions */

/* ---- handshake ---- */

#define NBD_GREETING_MAGIC     0x4e42444d41474943ull /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC       0x49484156454f5054ull /* "IHAVEOPT" */
#define NBD_OPTION_REPLY_MAGIC 0x0003e889045565a9ull
#define NBD_OLDSTYLE_MAGIC     0x0000420281861253ull /* never sent by us; refused by our client */

enum nbd_handshake_flags { /* server's and client's bits have the same places */
	NBD_HANDSHAKE_FIXED_NEWSTYLE = 1u << 0,
	NBD_HANDSHAKE_NO_ZEROES = 1u << 1,
};

struct nbd_greeting {
	be64 magic;   /* NBD_GREETING_MAGIC */
	be64 version; /* NBD_OPTION_MAGIC: newstyle */
	be16 flags;   /* enum nbd_handshake_flags */
};
WIRE_SIZE(struct nbd_greeting, 18);

struct nbd_client_flags {
	be32 flags; /* enum nbd_handshake_flags */
};
WIRE_SIZE(struct nbd_client_flags, 4);

enum nbd_option_number {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT = 2,
	NBD_OPT_LIST = 3,
	NBD_OPT_PEEK_EXPORT = 4, /* withdrawn */
	NBD_OPT_STARTTLS = 5,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT = 10,
	NBD_OPT_EXTENDED_HEADERS = 11,
};

/* Numbers of our own: docs/protocol/nbd.md. */
#define NBD_OPT_VENDOR_FIRST 0x53460000u
#define NBD_OPT_VENDOR_LAST  0x5346ffffu

struct nbd_option_header {
	be64 magic; /* NBD_OPTION_MAGIC */
	be32 option;
	be32 length; /* of the data that follows */
};
WIRE_SIZE(struct nbd_option_header, 16);
WIRE_OFFSET(struct nbd_option_header, length, 12);

#define NBD_REP_ERROR 0x80000000u

enum nbd_reply_number {
	NBD_REP_ACK = 1,
	NBD_REP_SERVER = 2,
	NBD_REP_INFO = 3,
	NBD_REP_META_CONTEXT = 4,
};
#define NBD_REP_ERR_UNSUP	    (NBD_REP_ERROR + 1)
#define NBD_REP_ERR_POLICY	    (NBD_REP_ERROR + 2)
#define NBD_REP_ERR_INVALID	    (NBD_REP_ERROR + 3)
#define NBD_REP_ERR_PLATFORM	    (NBD_REP_ERROR + 4)
#define NBD_REP_ERR_TLS_REQD	    (NBD_REP_ERROR + 5)
#define NBD_REP_ERR_UNKNOWN	    (NBD_REP_ERROR + 6)
#define NBD_REP_ERR_SHUTDOWN	    (NBD_REP_ERROR + 7)
#define NBD_REP_ERR_BLOCK_SIZE_REQD (NBD_REP_ERROR + 8)
#define NBD_REP_ERR_TOO_BIG	    (NBD_REP_ERROR + 9)

struct nbd_option_reply {
	be64 magic; /* NBD_OPTION_REPLY_MAGIC */
	be32 option; /* as the client sent it */
	be32 type;   /* NBD_REP_* */
	be32 length; /* of the data that follows */
};
WIRE_SIZE(struct nbd_option_reply, 20);
WIRE_OFFSET(struct nbd_option_reply, type, 12);
WIRE_OFFSET(struct nbd_option_reply, length, 16);

/* The answer to EXPORT_NAME; the zeroes are left out if NO_ZEROES was agreed on. */
#define NBD_EXPORT_ZEROES 124u
struct nbd_export_reply {
	be64 size;
	be16 flags; /* NBD_FLAG_* */
};
WIRE_SIZE(struct nbd_export_reply, 10);

enum nbd_info_number {
	NBD_INFO_EXPORT = 0,
	NBD_INFO_NAME = 1,
	NBD_INFO_DESCRIPTION = 2,
	NBD_INFO_BLOCK_SIZE = 3,
};

struct nbd_info_export {
	be16 type; /* NBD_INFO_EXPORT */
	be64 size;
	be16 flags; /* NBD_FLAG_* */
};
WIRE_SIZE(struct nbd_info_export, 12);
WIRE_OFFSET(struct nbd_info_export, flags, 10);

struct nbd_info_block_size {
	be16 type; /* NBD_INFO_BLOCK_SIZE */
	be32 minimum;
	be32 preferred;
	be32 maximum;
};
WIRE_SIZE(struct nbd_info_block_size, 14);
WIRE_OFFSET(struct nbd_info_block_size, maximum, 10);

/* ---- transmission ---- */

enum nbd_transmission_flags {
	NBD_FLAG_HAS_FLAGS = 1u << 0,
	NBD_FLAG_READ_ONLY = 1u << 1,
	NBD_FLAG_SEND_FLUSH = 1u << 2,
	NBD_FLAG_SEND_FUA = 1u << 3,
	NBD_FLAG_ROTATIONAL = 1u << 4,
	NBD_FLAG_SEND_TRIM = 1u << 5,
	NBD_FLAG_SEND_WRITE_ZEROES = 1u << 6,
	NBD_FLAG_SEND_DF = 1u << 7,
	NBD_FLAG_CAN_MULTI_CONN = 1u << 8,
	NBD_FLAG_SEND_RESIZE = 1u << 9,
	NBD_FLAG_SEND_CACHE = 1u << 10,
	NBD_FLAG_SEND_FAST_ZERO = 1u << 11,
	NBD_FLAG_BLOCK_STATUS_PAYLOAD = 1u << 12,
};

enum nbd_command_number {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_CACHE = 5,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
	NBD_CMD_RESIZE = 8,
};

#define NBD_CMD_VENDOR_FIRST 0xb000u
#define NBD_CMD_VENDOR_LAST  0xb0ffu

enum nbd_command_flags {
	NBD_CMD_FLAG_FUA = 1u << 0,
	NBD_CMD_FLAG_NO_HOLE = 1u << 1,
	NBD_CMD_FLAG_DF = 1u << 2,
	NBD_CMD_FLAG_REQ_ONE = 1u << 3,
	NBD_CMD_FLAG_FAST_ZERO = 1u << 4,
	NBD_CMD_FLAG_PAYLOAD_LEN = 1u << 5,
};

#define NBD_REQUEST_MAGIC	   0x25609513u
#define NBD_SIMPLE_REPLY_MAGIC	   0x67446698u
#define NBD_STRUCTURED_REPLY_MAGIC 0x668e33efu

struct nbd_request_header {
	be32 magic; /* NBD_REQUEST_MAGIC */
	be16 flags; /* NBD_CMD_FLAG_* */
	be16 type;  /* NBD_CMD_* */
	be64 cookie; /* the client's; comes back in the reply */
	be64 offset;
	be32 length;
};
WIRE_SIZE(struct nbd_request_header, 28);
WIRE_OFFSET(struct nbd_request_header, cookie, 8);
WIRE_OFFSET(struct nbd_request_header, offset, 16);
WIRE_OFFSET(struct nbd_request_header, length, 24);

struct nbd_simple_reply {
	be32 magic; /* NBD_SIMPLE_REPLY_MAGIC */
	be32 error; /* enum nbd_error; 0: a READ's data follows */
	be64 cookie;
};
WIRE_SIZE(struct nbd_simple_reply, 16);
WIRE_OFFSET(struct nbd_simple_reply, cookie, 8);

enum nbd_error {
	NBD_SUCCESS = 0,
	NBD_EPERM = 1,
	NBD_EIO = 5,
	NBD_ENOMEM = 12,
	NBD_EINVAL = 22,
	NBD_ENOSPC = 28,
	NBD_EOVERFLOW = 75,
	NBD_ENOTSUP = 95,
	NBD_ESHUTDOWN = 108,
};

#endif
