/*
 * The frame that the peer and the admin protocol share.
 *
 *   header (64 bytes) | body (fixed struct of the op, grows at the tail) | payload
 *
 * Requests go from the side that dialled to the side that accepted, replies
 * the other way; a reply carries the request's op and id. docs/protocol/frame.md
 */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include "include/proto/endian.h"

#define FRAME_MAGIC_PEER    0x50465053u /* "SPFP" as bytes */
#define FRAME_MAGIC_ADMIN   0x41465053u /* "SPFA" */
#define FRAME_HEADER_SIZE   64u
#define FRAME_BODY_MAX	    4096u
#define FRAME_PAYLOAD_MAX   (5u << 20) /* one object and its checksums fit */

enum frame_flags {
	FRAME_REPLY = 1u << 0,	/* answers `request`; else it is a request */
	FRAME_ONEWAY = 1u << 1, /* a request that gets no reply */
};

struct frame_header {
	le32 magic;	 /* FRAME_MAGIC_*: tells the protocols apart */
	le16 op;	 /* row of the protocol's op table; 0 is HELLO */
	le16 flags;	 /* enum frame_flags */
	le64 request;	 /* chosen by the requester, unique in its session */
	le32 status;	 /* enum proto_status; 0 in requests */
	le32 body_size;	 /* bytes, FRAME_BODY_MAX at most */
	le32 payload_size; /* bytes, FRAME_PAYLOAD_MAX at most */
	le32 body_crc;	 /* CRC32C of the body */
	le32 payload_crc; /* CRC32C of the payload, or 0 if the op has its own */
	le32 reserved32;
	le64 reserved[2]; /* zero */
	le32 reserved_tail;
	le32 header_crc; /* CRC32C of the 60 bytes above */
};
WIRE_SIZE(struct frame_header, FRAME_HEADER_SIZE);
WIRE_OFFSET(struct frame_header, request, 8);
WIRE_OFFSET(struct frame_header, body_size, 20);
WIRE_OFFSET(struct frame_header, header_crc, 60);

#endif
