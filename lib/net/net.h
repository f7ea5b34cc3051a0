/*
 * Streams, listeners and links: lib/wire and lib/nbd on lib/loop. docs/internals/net.md
 *
 *   net            what the streams of one loop share; one per loop
 *   net_stream     a socket that is read as fast as its owner takes it and written once a turn
 *   net_listener   accepts sockets, reads their HELLO, hands them to the loop that shall serve
 *   net_service    what is served to the sessions of one protocol on one loop
 *   net_session    an accepted connection after HELLO
 *   net_request    one request of a session, until it is answered
 *   net_link       the dialling side: connects when needed, again after a failure
 *   net_call       one request of ours, until its reply has come
 *
 * Requests go from the side that dialled to the side that accepted, replies go back. Frames of one
 * link arrive in the order in which they were sent. Everything here is called on the thread of the
 * net's loop, and no callback runs inside the call that caused it, unless it says otherwise.
 * Nothing is allocated per request once a connection has warmed up.
 */
#ifndef NET_NET_H
#define NET_NET_H

#include <stdbool.h>
#include <stdint.h>
#include <urcu/list.h>

#include "lib/base/buffer.h"
#include "lib/base/err.h"
#include "lib/loop/loop.h"
#include "lib/net/nbd_link.h"
#include "lib/wire/wire.h"

struct net;
struct net_listener;
struct net_session;
struct net_link;
struct net_stream;

/* ---- net: one per loop ---- */

/* 0 stands for the default. */
struct net_options {
	uint16_t loop_index;   /* the number of this loop, as HELLO names it */
	uint32_t sessions_max; /* accepted connections, those before HELLO included; 1024 */
	uint32_t
		credit_requests; /* granted to each session; 256, WIRE_CREDIT_REQUESTS_MAX at most */
	uint64_t credit_bytes;	 /* granted to each session; 64 MiB */
	uint64_t hello_timeout_ns;   /* a connection without HELLO is closed after; 5 s */
	uint64_t connect_timeout_ns; /* for connecting, and again for the reply to HELLO; 3 s */
	uint64_t silence_ns;	     /* no byte for so long where some are due: reset; 3 s */
	uint64_t backoff_min_ns; /* first pause between two dials; doubles, with jitter; 20 ms */
	uint64_t backoff_max_ns; /* 2 s */
};

/* @identity is copied: what HELLOs of both directions say of us. */
int net_new(struct loop *loop, const struct net_options *options,
	    const struct wire_identity *identity, struct net **out, struct error *err);
/*
 * The nets of all loops of this process, by loop index, so that a listener can hand over
 * connections. Before any of the loops runs. The array is copied. A single net needs no group.
 */
void net_group(struct net *const *nets, unsigned count);
/* From the next HELLO on. Connections that are up are not touched. */
void net_set_identity(struct net *net, const struct wire_identity *identity);
const struct wire_identity *net_identity(const struct net *net);
struct loop *net_loop(const struct net *net);
/* A setting of the cluster that may change at run time. */
void net_set_silence(struct net *net, uint64_t silence_ns);

/* Close all listeners, sessions and links; goes on over some turns. */
void net_stop(struct net *net);
/* Has all that net_stop() began ended? Then (or if nothing was ever opened) it may be freed. */
bool net_is_stopped(struct net *net);
void net_free(struct net *net); /* NULL is allowed */

/* Counters since the start, of this loop. */
struct net_stats {
	uint64_t bytes_in, bytes_out;
	uint64_t frames_in, frames_out;
	uint64_t receives, sends; /* completed operations: how well we batch */
	uint64_t sessions_opened, sessions_refused, sessions_failed; /* failed: by an error */
	uint64_t dials, dials_failed, link_resets;
};
const struct net_stats *net_stats(const struct net *net);

/* ---- calls: requests of ours ---- */

enum net_call_flags {
	NET_CALL_IF_UP = 1u << 0, /* do not wait for a link that is not up */
};

/*
 * One request, embedded in its owner, which keeps it in place until `done`. Set the first group
 * and leave the rest alone; all may be changed and called again from `done` on.
 */
struct net_call {
	uint16_t op;
	uint16_t flags; /* enum net_call_flags */
	uint32_t body_size;
	const void *body;	    /* copied by net_link_call() */
	const struct slice *slices; /* the payload: array and memory borrowed until done */
	uint32_t slice_count;
	/* Longest reply payload wanted; 0: as the op's row says. It is charged to the credit:
	 * whoever asks for more than it needs has fewer calls outstanding. */
	uint32_t reply_max;
	/*
	 * Exactly once, never inside net_link_call(). @result: 0 or the negative code of the reply's
	 * status; -E_CLOSED: there is no reply, because the link was reset, refused or given up
	 * (net_link_error() says why), and nothing else gives -E_CLOSED; then was_sent tells
	 * whether the request may have been executed. -EOPNOTSUPP: the op is newer than the link's
	 * version. A one-way request is done when it has been sent. The reply is valid until
	 * `done` returns; net_call_take() keeps its payload. The call may be freed or made again
	 * from `done` on.
	 */
	void (*done)(struct net_call *call, int result);

	/* the reply */
	const void *reply_body;	  /* as long as the op's reply_size at least; NULL if result is
				 * not 0 and it has none */
	uint32_t reply_body_size; /* as it came */
	struct slice reply_slice; /* its payload, in one piece; data is NULL if there is none */
	bool was_sent;

	/* private */
	int error;
	uint64_t charge;
	uint64_t id;	      /* 0: has none (yet) */
	struct buffer **held; /* the link's reference to the reply's payload */
	struct cds_list_head link;
	struct wire_message message;
};

/*
 * In `done`: take over the reference to the reply's payload, which is the caller's to put from then on.
 */
struct slice net_call_take(struct net_call *call);

/* ---- links: the dialling side ---- */

enum net_link_state {
	NET_LINK_IDLE,	     /* nothing to do, or never used */
	NET_LINK_CONNECTING, /* waiting for the socket */
	NET_LINK_GREETING,   /* waiting for the reply to HELLO */
	NET_LINK_UP,
	NET_LINK_CLOSING, /* waiting for the loop to give back what it has of us */
	NET_LINK_WAITING, /* between two dials */
	NET_LINK_STATE_COUNT
};

struct net_link_options {
	const char *address;		      /* copied; see loop_address_check() */
	const struct wire_protocol *protocol; /* borrowed; handlers are not used */
	uint16_t class;
	uint16_t loop;	  /* of the other side; FRAME_ANY_LOOP: any */
	struct uuid node; /* who must answer; null: whoever does */
	void *context;
	/*
	 * It is up, or no longer up (@error: why; the calls that were outstanding have been
	 * completed before), or a dial has failed. May be NULL.
	 */
	void (*changed)(struct net_link *link, bool is_up, int error);
};

/*
 * Make a link. It dials when there is something to send, or by net_link_connect(), and dials again,
 * with growing jittered pauses, as long as something waits for it or net_link_connect() holds.
 */
int net_link_new(struct net *net, const struct net_link_options *options, struct net_link **out,
		 struct error *err);
/*
 * Give it up: calls complete with -E_CLOSED (later, as always); `changed` does not run any more.
 * The handle is gone at once. NULL is allowed.
 */
void net_link_free(struct net_link *link);
/* Keep it up from now on, without waiting for the first call. */
void net_link_connect(struct net_link *link);
/* Dial there from now on; a connection to another address is reset. 0, -EINVAL or -ENOMEM. */
int net_link_set_address(struct net_link *link, const char *address);
/* End the connection or the dial now, as if it had failed; waiting calls get -E_CLOSED. A pause between
 * two dials stays as it is: calls that waited for its end get -E_CLOSED (later, as always). */
void net_link_reset(struct net_link *link, int error, const char *why);

/*
 * Send @call; in order, when the link is up and the other side's credit allows. Calls wait for a
 * dial in progress or to come, and get -E_CLOSED when it fails.
 */
void net_link_call(struct net_link *link, struct net_call *call);
/*
 * Calls that were made and are not done, and of them those that wait for credit or for the
 * link.
 */
uint32_t net_link_outstanding(const struct net_link *link);
uint32_t net_link_waiting(const struct net_link *link);

enum net_link_state net_link_state(const struct net_link *link);
static inline bool net_link_is_up(const struct net_link *link)
{
	return net_link_state(link) == NET_LINK_UP;
}
/* While it is up: who is there, the version, the credits. */
const struct wire_agreement *net_link_agreement(const struct net_link *link);
/* Why it went down last: code and text; code 0: it never did. */
const struct error *net_link_error(const struct net_link *link);
void *net_link_context(const struct net_link *link);
const char *net_link_address(const struct net_link *link);

/* ---- services: what is served ---- */

struct net_service {
	const struct wire_protocol *protocol; /* borrowed; with handlers */
	void *context;			      /* for the handlers on this loop */
	/*
	 * A session that HELLO allows is about to begin on its loop: 0, or a code and a text for the
	 * refusal. Older sessions of the same link, and of earlier starts of the same node,
	 * have been closed before. May be NULL.
	 */
	int (*opened)(struct net_session *session, struct error *err);
	/*
	 * It is over (0: the other side closed it); no request of it will come any more, those that
	 * are not answered yet may still be, to no effect. For each session that `opened` let in.
	 * The session is gone when its last request has been answered. May be NULL.
	 */
	void (*closed)(struct net_session *session, int error);
};

/*
 * Serve sessions of this protocol on this net's loop, however many listeners there are. @service is
 * copied; one per protocol. -EEXIST, -ENOMEM.
 */
int net_serve(struct net *net, const struct net_service *service);

/* Unique in this start of this process: names the peer's session, where a descriptor would be reused. */
uint64_t net_session_number(const struct net_session *session);
const struct wire_agreement *net_session_agreement(const struct net_session *session);
const char *net_session_address(const struct net_session *session); /* of the peer, for logs */
void *net_session_context(const struct net_session *session);	    /* of the service */
struct net *net_session_net(const struct net_session *session);
/* A pointer of the service's own. */
void net_session_set_user(struct net_session *session, void *user);
void *net_session_user(const struct net_session *session);
bool net_session_is_open(const struct net_session *session);
/* End it; `closed` runs later. @error and @why: for the log. */
void net_session_close(struct net_session *session, int error, const char *why);
/* All open sessions of this net, until @each says false. Sessions may be closed from it. */
void net_session_each(struct net *net, bool (*each)(struct net_session *session, void *context),
		      void *context);

#define NET_REQUEST_BODY_INLINE 256u
#define NET_REPLY_SLICES	8u

/*
 * One request. Its handler runs once; it is answered exactly once by net_reply(), from the handler or
 * at any later time on this loop, and is gone with that. One-way requests are given back by
 * net_request_done() instead.
 */
struct net_request {
	struct net_session *session;
	const struct wire_op *row;
	uint16_t op;
	uint16_t version;   /* of the session */
	uint32_t body_size; /* as it came */
	const void *body;   /* as long as the row's body_size at least, until the answer */
	/* Until the answer; to keep it, take its reference over by setting .buffer to NULL. */
	struct slice payload;
	uint32_t reply_max;   /* longest reply payload that the requester takes */
	uint64_t received_ns; /* loop_now() */
	void *user;	      /* the handler's own */

	/* private */
	uint64_t id;
	uint64_t charge;
	bool is_oneway;
	struct cds_list_head link;
	struct buffer *body_buffer;
	uint8_t body_inline[NET_REQUEST_BODY_INLINE];
	struct slice reply_inline[NET_REPLY_SLICES];
	struct slice *reply_slices;
	struct buffer *reply_buffer;
	uint32_t reply_count;
	struct wire_message message;
};

/*
 * Answer. @status: 0 or a negative code (lib/wire finds its number). The body is copied. @slices: the
 * array is copied, the reference of each slice's buffer is taken (memory without a buffer must
 * live for ever). The payload may be up to reply_max. Replies are sent at the end of the turn; to
 * a session that is gone they are dropped quietly.
 */
void net_reply(struct net_request *request, int status, const void *body, uint32_t body_size,
	       const struct slice *slices, uint32_t slice_count);
/* The same without a payload, and a refusal with a text as payload (cut to FRAME_TEXT_MAX). */
void net_reply_status(struct net_request *request, int status);
void net_reply_text(struct net_request *request, int status, const char *text);
/* A one-way request needs no more. */
void net_request_done(struct net_request *request);
/* Of the service that serves it. */
void *net_request_context(const struct net_request *request);

/* ---- listeners ---- */

struct net_listener_options {
	/*
	 * NULL: the connections speak a protocol of frames that is served by net_serve() on the
	 * loops of the group. Else sockets are given here as they are accepted, on the
	 * listener's loop, and are the callback's.
	 */
	void (*accepted)(void *context, struct net *net, struct loop_socket *socket);
	void *context;
	uint32_t magic; /* without `accepted`: the only protocol taken here, FRAME_MAGIC_* */
};

/* Listen and accept from now on. Running out of descriptors or memory pauses it. */
int net_listen(struct net *net, const char *address, const struct net_listener_options *options,
	       struct net_listener **out, struct error *err);
const char *net_listener_address(const struct net_listener *listener); /* with the real port */
/* Connections that were accepted stay. NULL is allowed. */
void net_listener_close(struct net_listener *listener);

/* ---- streams: what links, sessions and lib/net/nbd_link.h are built on ---- */

#define NET_STREAM_IOV_MAX 256u

/*
 * A stream moves the bytes of one socket. It always has one receive in flight unless it is
 * paused, and one send while there is output; it asks for output once a turn, in the hook
 * LOOP_HOOK_FLUSH, after net_stream_wake().
 */
struct net_stream_ops {
	/* Memory for the next bytes: fills spans, returns how many; 0: pause; or an error. */
	int (*space)(struct net_stream *stream, struct iovec *iov, unsigned max);
	/* @size bytes have come into it; 0: the other side sends no more. */
	void (*received)(struct net_stream *stream, size_t size);
	/* Spans to send next, all of which stay until `sent`; 0: nothing. */
	unsigned (*output)(struct net_stream *stream, struct iovec *iov, unsigned max);
	void (*sent)(struct net_stream *stream, size_t size);
	/*
	 * Exactly once, the last of all: nothing of the stream is in use any more. @error: 0 after
	 * net_stream_close(stream, 0), else why. The owner may free it here.
	 */
	void (*closed)(struct net_stream *stream, int error);
};

struct net_stream {
	const struct net_stream_ops *ops;
	struct net *net;
	struct loop_socket *socket;
	uint64_t received_ns; /* when bytes came last, or the stream began */
	uint64_t sent_ns;     /* when a send ended last, or the one in flight began */
	/* private */
	struct loop_op recv_op, send_op, close_op;
	struct cds_list_head dirty;
	size_t send_size;
	int error;
	bool is_dirty, is_paused, is_ended, is_closing, is_closed;
	unsigned busy;
	struct iovec recv_iov[4];
	struct iovec send_iov[NET_STREAM_IOV_MAX];
};

/* Begin; @socket is the stream's from now on. */
void net_stream_start(struct net_stream *stream, struct net *net, struct loop_socket *socket,
		      const struct net_stream_ops *ops);
/* There is output. Cheap, any number of times. */
void net_stream_wake(struct net_stream *stream);
/* Go on reading after space() gave 0. */
void net_stream_resume(struct net_stream *stream);
/* Drop it; `closed` runs later with @error. Nothing else runs any more. More calls do nothing. */
void net_stream_close(struct net_stream *stream, int error);

/* ---- NBD: see lib/net/nbd_link.h ---- */

#endif
