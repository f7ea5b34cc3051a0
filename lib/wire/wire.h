/*
 * Frames and sessions of the peer and the admin protocol, without I/O.
 * include/proto/frame.h, docs/protocol/frame.md
 *
 *   status    codes of lib/base/err.h <-> numbers on the wire
 *   op        tables that say what each op may carry, and who handles it
 *   decoder   received bytes -> frames; payloads are slices, not copies
 *   outbox    frames -> spans to send
 *   hello     who both sides are, which version they speak, what they may have outstanding
 *   window    the dialler's outstanding requests and its credit
 *
 * No descriptor, thread or clock is owned here. lib/net binds these to the loop. Nothing that
 * comes from outside is asserted; every function that judges such bytes says what it returns.
 */
#ifndef WIRE_WIRE_H
#define WIRE_WIRE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include <urcu/list.h>

#include "include/proto/frame.h"
#include "include/proto/status.h"
#include "lib/base/buffer.h"
#include "lib/base/err.h"
#include "lib/base/uuid.h"

/* ---- status ---- */

/*
 * The number that stands for @code (0 or a count: OK; a negative code of either kind). A code
 * without a number of its own becomes the nearest one: -E_CLOSED and what else is the sender's own
 * trouble TRY_AGAIN or IO.
 */
uint32_t wire_status_of(int code);
/* 0 or a negative code; a number that we do not know is -EIO. Never -E_CLOSED. */
int wire_status_code(uint32_t status);
/* "STALE_EPOCH"; never NULL. */
const char *wire_status_name(uint32_t status);

/* ---- ops and protocols ---- */

struct net_request; /* lib/net; opaque here */

enum wire_op_flags {
	/* Checksums of the payload are in the body or in itself: it is not summed here. */
	WIRE_OP_OWN_CRC = 1u << 0,
	WIRE_OP_ONEWAY = 1u << 1,	 /* a request of this op gets no reply */
	WIRE_OP_REPLY_OWN_CRC = 1u << 2, /* as OWN_CRC, for the payload of replies */
};

/* One op. The same table serves both sides; only the acceptor looks at `handle`. */
struct wire_op {
	const char *name;
	uint16_t since;	    /* protocol version that brought it; 0: the first */
	uint16_t flags;	    /* enum wire_op_flags */
	uint16_t body_min;  /* bytes that the oldest version sends; shorter is an error */
	uint16_t body_size; /* bytes that we know: shorter bodies read as zeroes up to here */
	uint16_t reply_min; /* the same for the body of a reply with status OK */
	uint16_t reply_size;
	uint32_t payload_max;	    /* of a request, bytes */
	uint32_t reply_payload_max; /* of a reply, bytes */
	/* Runs for each good request; NULL: not served here, answered UNSUPPORTED. */
	void (*handle)(struct net_request *request);
};

struct wire_protocol {
	const char *name; /* "peer", "admin": for texts */
	uint32_t magic;	  /* FRAME_MAGIC_* */
	uint16_t version_min, version_max;
	uint64_t features; /* bits that we can use */
	uint64_t required; /* bits without which we do not talk */
	/* Any class (bit of HELLO's class) may be used before both sides are in a cluster; others
	 * need the same cluster UUID on both sides. */
	uint32_t open_classes;
	uint32_t classes; /* how many there are */
	/* Index: op. Rows without a name are unknown ops, row 0 (HELLO) is one of them. */
	const struct wire_op *ops;
	uint32_t op_count;
};

/* The row of @op, or NULL when it is unknown or newer than @version. */
const struct wire_op *wire_op_find(const struct wire_protocol *protocol, uint16_t op,
				   uint16_t version);
/* "append", or "op 17"; in @out when it has no name. */
#define WIRE_OP_NAME_MAX 16
const char *wire_op_name(const struct wire_protocol *protocol, uint16_t op,
			 char out[WIRE_OP_NAME_MAX]);

/* ---- frames that come in ---- */

struct wire_frame {
	uint16_t op;
	uint16_t flags; /* enum frame_flags */
	uint32_t status;
	uint64_t request;
	uint32_t reply_max;
	uint32_t body_size;
	uint32_t payload_size;
	/* Borrowed until the next call of the decoder. Aligned for nothing: use proto types. */
	const void *body;
	/* In one piece; NULL data when there is none. The reference is the caller's from
	 * wire_decoder_next() on. */
	struct slice payload;
};

/* What a request is charged to the credit of its session. */
static inline uint64_t wire_charge(uint32_t body_size, uint32_t payload_size, uint32_t reply_max)
{
	return (uint64_t)FRAME_HEADER_SIZE + body_size + payload_size + reply_max;
}

#define WIRE_DECODER_BUFFER_MIN (8u << 10)
#define WIRE_DECODER_BUFFER_MAX (256u << 10)

/*
 * An incremental decoder, embedded in its owner. It owns the buffers that are received into: they
 * grow while the stream keeps them full and shrink when it does not. A payload that lies in
 * one of them whole is a slice of it. One that spans receives gets a buffer of its own, aligned
 * to 4096, and the rest of it is received there directly.
 */
struct wire_decoder {
	uint32_t magic;
	struct buffer_cache *buffers;
	/*
	 * Called when a header is whole and good, before any memory for its payload is taken: 0, or
	 * a negative code that ends the stream. @frame has no body and payload yet. May be NULL.
	 */
	int (*check)(struct wire_decoder *decoder, const struct wire_frame *frame);
	/* private */
	struct buffer *inbox;
	uint32_t begin, end; /* of the bytes in the inbox not yet taken */
	uint32_t want;	     /* size of the next inbox */
	uint32_t idle_rounds;
	struct buffer *payload; /* of the frame whose payload spans receives */
	uint32_t payload_have;
	uint32_t space_inbox; /* what the last space() offered, by part */
	uint32_t space_payload;
	struct wire_frame frame;
	uint32_t expected_body_crc, expected_payload_crc;
	bool has_header;
	struct buffer *held_body; /* private copy of a body whose inbox has moved on */
	struct error error;
};

void wire_decoder_init(struct wire_decoder *decoder, uint32_t magic, struct buffer_cache *buffers);
/* Drops what it holds. May be used again after another init. */
void wire_decoder_done(struct wire_decoder *decoder);
/*
 * Where the next bytes go: fills one or two spans and returns how many, or -ENOMEM. The memory
 * is the decoder's and stays until wire_decoder_received().
 */
int wire_decoder_space(struct wire_decoder *decoder, struct iovec iov[2]);
/* @size bytes have been received into the spans of the last wire_decoder_space(). */
void wire_decoder_received(struct wire_decoder *decoder, size_t size);
/*
 * The next whole frame: 1; 0: more bytes are needed; or -E_PROTOCOL, -E_CHECKSUM, -ENOMEM or what
 * `check` said: the stream is lost, and every later call says the same.
 */
int wire_decoder_next(struct wire_decoder *decoder, struct wire_frame *frame);
/* What was wrong, after an error. */
const char *wire_decoder_error(const struct wire_decoder *decoder);
/* Has it part of a frame? */
bool wire_decoder_is_inside(const struct wire_decoder *decoder);

/* ---- frames that go out ---- */

#define WIRE_BODY_INLINE 192u

/* A frame to send, embedded in its owner, which keeps it in place until it was sent or dropped. */
struct wire_message {
	struct cds_list_head link; /* private, as all below */
	const struct slice *slices;
	uint32_t slice_count;
	uint32_t head_size;
	uint64_t size;	      /* of the frame */
	uint8_t state;	      /* enum wire_message_state */
	struct buffer *spill; /* header and body when they are larger than `head` */
	uint8_t head[FRAME_HEADER_SIZE + WIRE_BODY_INLINE];
};

enum wire_message_state { WIRE_MESSAGE_IDLE, WIRE_MESSAGE_QUEUED, WIRE_MESSAGE_IN_FLIGHT };

/* What a frame shall say. */
struct wire_message_spec {
	uint32_t magic;
	uint16_t op;
	uint16_t flags; /* enum frame_flags; FRAME_OWN_CRC: the payload is not summed here */
	uint64_t request;
	uint32_t status;
	uint32_t reply_max;
	const void *body; /* copied */
	uint32_t body_size;
	uint32_t slice_count;
	const struct slice *slices; /* array and memory borrowed until sent or dropped */
};

/*
 * Make the frame. Sizes are the caller's promise: body FRAME_BODY_MAX, payload FRAME_PAYLOAD_MAX at
 * most. Returns 0 or -ENOMEM (only with bodies over WIRE_BODY_INLINE).
 */
int wire_message_init(struct wire_message *message, struct buffer_cache *buffers,
		      const struct wire_message_spec *spec);
/* Change the number of the request, before it is in an outbox. */
void wire_message_set_request(struct wire_message *message, uint64_t request);
/* Gives back the spill. Not while it is in an outbox. */
void wire_message_done(struct wire_message *message);

/* Frames in the order in which they are to be sent. */
struct wire_outbox {
	struct cds_list_head queue;
	struct cds_list_head in_flight;
	uint64_t queued_bytes;	  /* of messages in the queue and in flight, not yet sent */
	uint64_t in_flight_bytes; /* of the last wire_outbox_output() */
	uint64_t cursor;	  /* bytes of the queue's first message that were sent before */
	/* A message was sent whole and is out of the outbox; its owner may free it. */
	void (*sent)(struct wire_outbox *outbox, struct wire_message *message);
};

void wire_outbox_init(struct wire_outbox *outbox,
		      void (*sent)(struct wire_outbox *outbox, struct wire_message *message));
void wire_outbox_add(struct wire_outbox *outbox, struct wire_message *message);
/*
 * Spans for one send: up to @max and about @bytes_max bytes; a message may be cut. 0: nothing to
 * send. Not again before wire_outbox_sent().
 */
unsigned wire_outbox_output(struct wire_outbox *outbox, struct iovec *iov, unsigned max,
			    uint64_t bytes_max);
/* Everything that wire_outbox_output() gave has been sent. */
void wire_outbox_sent(struct wire_outbox *outbox);
/*
 * Take out a message, although its bytes may be in a send that has not been reported yet. False,
 * and nothing is done, when part of it was not given to a send so far.
 */
bool wire_outbox_forget(struct wire_outbox *outbox, struct wire_message *message);
/* Take out and return any message, the first one first; NULL: none is left. Of a dead stream. */
struct wire_message *wire_outbox_drop(struct wire_outbox *outbox);

/* ---- HELLO ---- */

/* Who we are, as HELLO says it. */
struct wire_identity {
	struct uuid cluster; /* null: none yet */
	struct uuid node;    /* null: a client that is no node */
	uint32_t node_id;    /* 0: not registered yet */
	uint32_t flags;	     /* enum frame_hello_flags */
	uint64_t incarnation;
	uint64_t nonce;
	uint16_t loops;
};

/* What a HELLO agreed on, as either side keeps it. */
struct wire_agreement {
	struct wire_identity peer; /* who is there */
	uint64_t features;
	uint64_t session; /* the acceptor's number for it */
	uint64_t link;	  /* the dialler's */
	uint16_t version;
	uint16_t class;
	uint16_t loop; /* of the acceptor */
	uint32_t credit_requests;
	uint64_t credit_bytes;
};

#define WIRE_CREDIT_REQUESTS_MAX 4096u

void wire_hello_make(struct frame_hello *out, const struct wire_protocol *protocol,
		     const struct wire_identity *self, uint16_t class, uint16_t loop,
		     uint64_t link);
/*
 * The acceptor's judgement of a first frame: fills what was agreed on (all but session, loop and
 * credits), or -E_PROTOCOL, -E_WRONG_VERSION (names both ranges), -E_WRONG_CLUSTER (names both
 * UUIDs), -E_NOT_FORMATTED, -EOPNOTSUPP (a feature that one side requires is missing in the other).
 * After an error @out->peer is filled in as far as it could be read.
 */
int wire_hello_judge(const struct wire_protocol *protocol, const struct wire_identity *self,
		     const struct wire_frame *frame, struct wire_agreement *out, struct error *err);
/* @agreement: NULL in a refusal. */
void wire_hello_reply_make(struct frame_hello_reply *out, const struct wire_protocol *protocol,
			   const struct wire_identity *self,
			   const struct wire_agreement *agreement);
/*
 * The dialler's judgement of the answer. @out comes with class and link set. A refusal returns the
 * code of its status and its text; else the same errors as above.
 */
int wire_hello_reply_judge(const struct wire_protocol *protocol, const struct wire_identity *self,
			   const struct wire_frame *frame, struct wire_agreement *out,
			   struct error *err);

/* ---- the dialler's window ---- */

struct wire_slot;

/* Requests that wait for replies: finds the owner of an id in O(1), and keeps to the credit. */
struct wire_window {
	struct wire_slot *slots;
	uint32_t slot_count;
	uint32_t used;
	uint32_t free_first;
	uint64_t bytes_used;
	uint64_t bytes_max;
};

/* An empty window; what waited in it is forgotten. -ENOMEM. */
int wire_window_open(struct wire_window *window, uint32_t requests, uint64_t bytes);
void wire_window_done(struct wire_window *window);
/*
 * An id for a request of @owner, or 0 when the credit is used up. One request may always be
 * outstanding, whatever its charge.
 */
uint64_t wire_window_take(struct wire_window *window, uint64_t charge, void *owner);
/* Who waits for the reply to @id; NULL: nobody. */
void *wire_window_owner(const struct wire_window *window, uint64_t id);
/* Give back the credit of @id, which has an owner. */
void wire_window_give(struct wire_window *window, uint64_t id);

#endif
