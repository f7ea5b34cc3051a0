/*
 * The frame that the peer and the admin protocol share, and how every
 * connection of theirs begins. docs/protocol/frame.md
 *
 *   header (64 bytes) | body (fixed struct of the op, grows at the tail) | payload
 *
 * Requests go from the side that dialled to the side that accepted, replies
 * the other way; a reply carries the request's op and id. The first request
 * of a connection is FRAME_OP_HELLO, and nothing is sent before its reply.
 *
 * Common rules: reserved fields are zero, and a frame in which one is not is
 * refused; a body that is shorter than the reader's struct is continued with
 * zeroes, one that is longer is cut. Only what the common version says may be sent.
 */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include "include/proto/endian.h"

#define FRAME_MAGIC_PEER  0x50465053u /* "SPFP" as bytes */
#define FRAME_MAGIC_ADMIN 0x41465053u /* "SPFA" */
#define FRAME_HEADER_SIZE 64u
#define FRAME_BODY_MAX	  4096u
#define FRAME_PAYLOAD_MAX (5u << 20) /* one object and its checksums fit */
#define FRAME_TEXT_MAX	  511u	     /* of the text that may come with a refusal */

/* These belong to the frame layer in every protocol; the protocol's own ops lie between. */
enum frame_op {
	FRAME_OP_HELLO = 0,
	FRAME_OP_PING = 0xffff, /* empty; answered at once; costs no credit; one at a time */
};

enum frame_flags {
	FRAME_REPLY = 1u << 0,	/* answers `request`; else it is a request */
	FRAME_ONEWAY = 1u << 1, /* a request that gets no reply */
	/* The payload has its checksums in the body or in itself: payload_crc is zero. */
	FRAME_OWN_CRC = 1u << 2,
};

struct frame_header {
	le32 magic;	   /* FRAME_MAGIC_*: tells the protocols apart */
	le16 op;	   /* enum frame_op, or the protocol's own */
	le16 flags;	   /* enum frame_flags */
	le64 request;	   /* chosen by the requester, unique in its session; 0: one-way */
	le32 status;	   /* enum proto_status; 0 in requests */
	le32 body_size;	   /* bytes, FRAME_BODY_MAX at most */
	le32 payload_size; /* bytes, FRAME_PAYLOAD_MAX at most */
	le32 body_crc;	   /* CRC32C of the body; 0 if there is none */
	le32 payload_crc;  /* CRC32C of the payload; 0 if there is none, or FRAME_OWN_CRC */
	/* In requests: the longest reply payload the requester takes, charged to its
	 * credit; in replies zero. */
	le32 reply_max;
	le32 reserved[5];
	le32 header_crc; /* CRC32C of the 60 bytes above */
};
WIRE_SIZE(struct frame_header, FRAME_HEADER_SIZE);
WIRE_OFFSET(struct frame_header, request, 8);
WIRE_OFFSET(struct frame_header, status, 16);
WIRE_OFFSET(struct frame_header, body_size, 20);
WIRE_OFFSET(struct frame_header, payload_crc, 32);
WIRE_OFFSET(struct frame_header, reply_max, 36);
WIRE_OFFSET(struct frame_header, header_crc, 60);

#define FRAME_ANY_LOOP 0xffffu

enum frame_hello_flags {
	FRAME_HELLO_UNCLEAN = 1u << 0, /* this start may have lost acknowledged writes */
	FRAME_HELLO_GATEWAY = 1u << 1, /* a sheep without stores */
};

/* Body of HELLO. Its first 128 bytes never change: every version reads them. */
struct frame_hello {
	le16	version_min; /* the range that the dialler speaks */
	le16	version_max;
	le16	class;	     /* peer.h: enum peer_class; admin: 0 */
	le16	loop;	     /* which loop of the acceptor shall serve; or FRAME_ANY_LOOP */
	le64	features;    /* bits that the dialler can use */
	le64	required;    /* bits without which it does not go on */
	uint8_t cluster[16]; /* UUID; null: the dialler belongs to none yet, or does not care */
	uint8_t node[16];    /* UUID; null: a client that is no node */
	le64	incarnation; /* of the node's start */
	le64	nonce;	     /* random number of the node's start */
	le64	link;	     /* the dialler's name for this link, the same after a reconnect */
	le32	node_id;     /* 0: not registered yet */
	le32	flags;	     /* enum frame_hello_flags */
	le64	reserved[5];
};
WIRE_SIZE(struct frame_hello, 128);
WIRE_OFFSET(struct frame_hello, features, 8);
WIRE_OFFSET(struct frame_hello, cluster, 24);
WIRE_OFFSET(struct frame_hello, incarnation, 56);
WIRE_OFFSET(struct frame_hello, node_id, 80);

/*
 * Body of the reply to HELLO. Other status than OK: a refusal; `version` and the credits are
 * zero, the rest is filled in, the payload is a text (UTF-8, FRAME_TEXT_MAX) and the connection ends.
 */
struct frame_hello_reply {
	le16	version_min; /* the range that the acceptor speaks */
	le16	version_max;
	le16	version;     /* the highest common one: both speak it from here on */
	le16	loop;	     /* which loop serves */
	le64	features;    /* bits that both can use */
	le64	required;    /* bits without which the acceptor does not go on */
	uint8_t cluster[16]; /* of the acceptor; null: none yet */
	uint8_t node[16];
	le64	incarnation;
	le64	nonce;
	le64	session;     /* number of this session, unique in the acceptor's start */
	le32	node_id;
	le32	flags;	     /* enum frame_hello_flags */
	le16	loops;	     /* how many loops the acceptor has */
	le16	reserved16;
	le32	credit_requests; /* requests that may be outstanding */
	le64	credit_bytes;	 /* what they may be charged in sum */
	le64	reserved[3];
};
WIRE_SIZE(struct frame_hello_reply, 128);
WIRE_OFFSET(struct frame_hello_reply, features, 8);
WIRE_OFFSET(struct frame_hello_reply, cluster, 24);
WIRE_OFFSET(struct frame_hello_reply, session, 72);
WIRE_OFFSET(struct frame_hello_reply, loops, 88);
WIRE_OFFSET(struct frame_hello_reply, credit_bytes, 96);

#endif
