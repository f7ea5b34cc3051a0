/*
 * An NBD server without I/O: bytes in, callbacks; answers in, bytes out.
 *
 *   nbd_server      what all connections share: callbacks, limits, the option and command
 *                   tables. Made once, then only read: any number of threads may use it.
 *   nbd_listener    one connection in negotiation; ends with an nbd_session
 *   nbd_device      one connection in transmission, made from an nbd_session
 *   nbd_request     one request of a device, until its reply has been sent
 *
 * No descriptor, thread or clock is owned, and nothing is allocated per request once a connection
 * has warmed up. A listener, a device and its requests belong to one thread. Whoever moves the
 * bytes (the host) does
 *
 *   received bytes -> nbd_*_feed()         nbd_*_output() -> send -> nbd_*_sent()
 *
 * and is woken by nbd_host.wake when there is something to send, when a device that had stopped
 * taking input takes it again, or when the state has become one in which it must act.
 * lib/net/nbd_link.h is such a host for lib/loop. docs/internals/nbd.md explains the whole.
 *
 * Nothing that a client sends is asserted. What an embedder must keep is said here and asserted.
 */
#ifndef NBD_NBD_H
#define NBD_NBD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <urcu/list.h>

#include "include/proto/nbd.h"
#include "lib/base/buffer.h"
#include "lib/base/bytes.h"
#include "lib/base/err.h"
#include "lib/nbd/nbd_client.h"

struct nbd_server;
struct nbd_listener;
struct nbd_device;
struct nbd_request;

/* ---- exports and sessions ---- */

/* What an export is and offers; the answer of the open callback. */
struct nbd_export {
	uint64_t size; /* bytes, up to INT64_MAX */
	/*
	 * NBD_FLAG_*: what the backend can do. HAS_FLAGS is added; what contradicts READ_ONLY or
	 * was not negotiated is left out, so that a backend may give the same flags every time.
	 */
	uint16_t flags;
	/*
	 * Block sizes; 0 stands for 1, 4096 and payload_max. minimum and preferred: powers of two,
	 * minimum 65536 at most, preferred >= minimum and >= 512. Requests that are not multiples
	 * of minimum are refused here. maximum: a multiple of minimum; it is lowered to
	 * payload_max and bounds READ and WRITE.
	 */
	uint32_t block_minimum;
	uint32_t block_preferred;
	uint32_t block_maximum;
	const char *name;	 /* canonical; borrowed; NULL: the name it was opened by */
	const char *description; /* for people; borrowed; NULL: none */
	void *handle;		 /* the backend's: nbd_device_handle(), and given to close() */
};

/* Agreed on in negotiation. Bits from NBD_FEATURE_USER on are free for an embedder's options. */
enum nbd_feature {
	NBD_FEATURE_FIXED = 1u << 0,	  /* both sides speak fixed newstyle */
	NBD_FEATURE_NO_ZEROES = 1u << 1,  /* EXPORT_NAME is answered without padding */
	NBD_FEATURE_STRUCTURED = 1u << 2, /* reserved: structured replies */
	NBD_FEATURE_EXTENDED = 1u << 3,	  /* reserved: extended headers */
	NBD_FEATURE_USER = 1u << 16,
};

/* The result of a negotiation, or made by hand to start a device without one. */
struct nbd_session {
	uint64_t size;
	uint16_t flags; /* as the client was told */
	uint32_t features;
	uint32_t block_minimum;
	uint32_t block_maximum;
	void *handle;
};

enum nbd_open_purpose {
	NBD_OPEN_INFO, /* the client asks; the export is closed again at once */
	NBD_OPEN_GO,   /* the client stays */
};

/* ---- the server: callbacks, limits, tables ---- */

/* Only handle_request must be given. */
struct nbd_callbacks {
	/*
	 * A request has come, whole and checked: known command, legal flags, inside the export,
	 * aligned, permitted. Answer it with nbd_request_reply(), now or at any later time, in any
	 * order, exactly once.
	 */
	void (*handle_request)(struct nbd_request *request);

	/*
	 * Open the export @name (UTF-8, borrowed, "" is the default export) and call
	 * nbd_listener_open_done(), now or later. Default: `export` below, by its name or "".
	 */
	void (*open)(struct nbd_listener *listener, const char *name,
		     enum nbd_open_purpose purpose);
	const struct nbd_export *export; /* borrowed for the server's life; only without open */
	/*
	 * Give exports by nbd_listener_list_add(), now or later, from the one that *cursor stands
	 * for on (0 at first; yours); when it returns -EAGAIN remember the place in *cursor and
	 * return: the callback runs again when there is room. After the last one call
	 * nbd_listener_list_done(). Default: `export`; without it the client is refused.
	 */
	void (*list)(struct nbd_listener *listener, uint64_t *cursor);
	/* The connection ended while open() or list() was unanswered: do not answer it any more. */
	void (*cancel)(struct nbd_listener *listener);
	/*
	 * Exactly once for each successful nbd_listener_open_done(), also if the client vanished;
	 * after all requests have been answered. @context: nbd_host.context.
	 */
	void (*close)(void *context, void *handle);

	/* A header has come and was found good, the payload has not: refuse with an error code. */
	int (*read_request)(struct nbd_request *request);
	/*
	 * Say where the payload of @request goes: give a slice of request->length bytes (its
	 * reference is taken). Default: as a slice of the received buffer where it lies in one, in
	 * a new buffer else.
	 */
	int (*read_payload)(struct nbd_request *request, struct slice *out);
	/*
	 * The reply has been sent (0) or dropped with the connection (-E_CLOSED); the request is
	 * gone after this. Exactly once for each request that handle_request got.
	 */
	void (*reply_done)(struct nbd_request *request, int result);

	/*
	 * Memory of requests: @size bytes aligned to 16, or NULL, which stops the device's input
	 * until one of its requests is freed or nbd_device_resume() is called. Both or none.
	 * Default: kept per device, grown by chunks up to in_flight_max.
	 */
	struct nbd_request *(*alloc_request)(struct nbd_device *device, size_t size);
	void (*free_request)(struct nbd_device *device, struct nbd_request *request);
};

/* 0 stands for the default. */
struct nbd_limits {
	uint32_t payload_max;	/* bytes of one READ or WRITE; 32 MiB, at least that advised */
	uint32_t in_flight_max; /* requests per connection; 256 */
	uint64_t in_flight_bytes_max; /* their payload; 64 MiB, at least payload_max */
	uint32_t options_max;	      /* options per connection; 1024 */
	uint32_t option_bytes_max;    /* data of all options of a connection; 4 MiB */
	uint32_t list_max;	      /* exports in one listing; 100000 */
	uint32_t private_size;	      /* bytes behind each request; 0 */
};

/* @callbacks is copied. NULL: out of memory. */
struct nbd_server *nbd_server_new(const struct nbd_callbacks *callbacks,
				  const struct nbd_limits *limits);
/* No listener or device may be left. NULL is allowed. */
void nbd_server_free(struct nbd_server *server);

enum nbd_phase {
	NBD_PHASE_NEWSTYLE = 1u << 0, /* the client does not know fixed newstyle: no replies */
	NBD_PHASE_FIXED = 1u << 1,
	/* TLS adds: before it where it is demanded, and behind it. */
};

enum nbd_option_traits {
	NBD_OPTION_NO_REPLY = 1u << 0,	   /* cannot be refused: the connection is dropped */
	NBD_OPTION_IGNORES_DATA = 1u << 1, /* any data is skipped, then the handler runs */
};

/* One option that a client may send. A row with reply_type and no handler is answered by itself. */
struct nbd_option {
	uint32_t number;
	const char *name; /* for logs and texts */
	uint32_t length_min;
	uint32_t length_max; /* 0: data is an error; NBD_OPTION_DATA_MAX at most */
	uint8_t phases;	     /* enum nbd_phase: where it is allowed */
	uint8_t traits;	     /* enum nbd_option_traits */
	/* Answers: nbd_listener_reply(), _ack(), _refuse(), or later. @data is borrowed. */
	void (*handle)(struct nbd_listener *listener, const struct nbd_option *option,
		       struct bytes_reader data);
	/* Without a handler: */
	uint32_t reply_type; /* NBD_REP_* */
	uint32_t grants;     /* enum nbd_feature: set with NBD_REP_ACK */
	const char *text;    /* of an error reply */
};
#define NBD_OPTION_DATA_MAX (2 * NBD_STRING_MAX)

enum nbd_command_traits {
	NBD_COMMAND_RANGE = 1u << 0,   /* offset and length name bytes of the export */
	NBD_COMMAND_PAYLOAD = 1u << 1, /* length bytes follow the header */
	NBD_COMMAND_DATA = 1u << 2,    /* a successful reply has length bytes */
	NBD_COMMAND_WRITES = 1u << 3,  /* refused on a read-only export */
	NBD_COMMAND_GROWS = 1u << 4,   /* past the end: ENOSPC rather than EINVAL */
	NBD_COMMAND_BOUNDED = 1u << 5, /* length is bounded by block_maximum */
	NBD_COMMAND_ZEROED = 1u << 6,  /* offset and length must be 0 */
	NBD_COMMAND_ENDS = 1u << 7,    /* no reply, and nothing may follow: DISC */
};

/* One command that a client may send. */
struct nbd_command {
	uint16_t number;
	const char *name;
	uint16_t traits;   /* enum nbd_command_traits */
	uint16_t needs;	   /* NBD_FLAG_*: must have been advertised; 0: none */
	uint16_t flags;	   /* NBD_CMD_FLAG_* that are legal, besides FUA */
	uint32_t requires; /* enum nbd_feature: must have been negotiated; 0: none */
	void (*handle)(struct nbd_request *request); /* NULL: handle_request */
};

/*
 * Add a row (borrowed for the server's life), before the first listener. -EEXIST: the number is
 * taken; -ENOSPC: the table is full; -EINVAL: a number outside of the standard and vendor ranges,
 * or a row that contradicts itself.
 */
int nbd_server_add_option(struct nbd_server *server, const struct nbd_option *option);
int nbd_server_add_command(struct nbd_server *server, const struct nbd_command *command);
/* The row of a number, or NULL. O(1). */
const struct nbd_option *nbd_server_option(const struct nbd_server *server, uint32_t number);
const struct nbd_command *nbd_server_command(const struct nbd_server *server, uint16_t number);

/* Whoever moves the bytes of a connection; embedded in it, outlives listener and device. */
struct nbd_host {
	/* See above. May be called inside any function of this header; must not call back. */
	void (*wake)(struct nbd_host *host);
	struct buffer_cache *buffers; /* borrowed: for payload that is not in one received slice */
	void *context;		      /* the embedder's */
};

/* ---- listener: negotiation ---- */

#define NBD_LISTENER_STATES(X)                                                      \
	X(CLIENT_FLAGS, "greeting sent, waiting for the client's flags")            \
	X(OPTION_HEADER, "waiting for an option")                                   \
	X(OPTION_DATA, "waiting for an option's data")                              \
	X(OPTION_SKIP, "skipping an option's data")                                 \
	X(OPTION_READY, "an option is whole, earlier replies are still to be sent") \
	X(ANSWERING, "an option is being answered")                                 \
	X(OPENING, "waiting for the backend to open an export")                     \
	X(LISTING, "listing exports")                                               \
	X(ENDING, "sending the last reply")                                         \
	X(DONE, "negotiated: transmission follows")                                 \
	X(CLOSED, "over")

enum nbd_listener_state {
#define NBD_STATE_ENUM(name, text) NBD_LISTENER_##name,
	NBD_LISTENER_STATES(NBD_STATE_ENUM)
#undef NBD_STATE_ENUM
		NBD_LISTENER_STATE_COUNT
};

/* @host is borrowed. The greeting is ready to be sent. NULL: out of memory. */
struct nbd_listener *nbd_listener_new(const struct nbd_server *server, struct nbd_host *host);
/* Cancels an unanswered open or list; closes an export whose session nobody took. NULL is allowed. */
void nbd_listener_free(struct nbd_listener *listener);

/*
 * Take received bytes. Returns how many were taken: fewer than @size while an answer is awaited
 * from the backend or must be sent first (feed the rest after wake and nbd_listener_sent()), and in
 * DONE, where the rest belongs to the device. In ENDING and CLOSED all is taken and dropped.
 */
size_t nbd_listener_feed(struct nbd_listener *listener, const void *data, size_t size);
/* The client sends no more. */
void nbd_listener_eof(struct nbd_listener *listener);
/* Spans to send, at most @max; the same until nbd_listener_sent() says that bytes have gone. */
unsigned nbd_listener_output(struct nbd_listener *listener, struct iovec *iov, unsigned max);
void nbd_listener_sent(struct nbd_listener *listener, size_t bytes);
/* Answer further options but ABORT with ERR_SHUTDOWN. */
void nbd_listener_shutdown(struct nbd_listener *listener);

enum nbd_listener_state nbd_listener_state(const struct nbd_listener *listener);
const char *nbd_listener_state_name(enum nbd_listener_state state);
/* Why it ended, for logs; "" if by the protocol's rules. Borrowed. */
const char *nbd_listener_reason(const struct nbd_listener *listener);
void *nbd_listener_context(const struct nbd_listener *listener); /* nbd_host.context */
const struct nbd_server *nbd_listener_server(const struct nbd_listener *listener);
uint32_t nbd_listener_features(const struct nbd_listener *listener);

/*
 * In DONE: take the session, and with it the duty to close its handle (a device does that).
 * Output that is left must be sent before any of the device's.
 */
struct nbd_session nbd_listener_take_session(struct nbd_listener *listener);
/* The same, into a device with the same host. NULL: out of memory, the listener has it still. */
struct nbd_device *nbd_listener_start_device(struct nbd_listener *listener);

/*
 * Answer the open callback. @rc: 0, or an error code, whose text the client gets (-ENOENT and
 * -E_NOT_FOUND: unknown; -EPERM, -EACCES, -EBUSY: policy; -E_SHUTDOWN: shutdown; others: the export
 * is not available). @export: with 0 only, borrowed for the call. @text: for the client, NULL: the
 * code's own; no more than a line.
 */
void nbd_listener_open_done(struct nbd_listener *listener, int rc, const struct nbd_export *export,
			    const char *text);
/*
 * One entry of the listing. @description may be NULL. 0; -EAGAIN: no room now (see list);
 * -E2BIG: list_max is reached (call list_done with it); -EINVAL: not UTF-8 or too long, left out.
 */
int nbd_listener_list_add(struct nbd_listener *listener, const char *name, const char *description);
void nbd_listener_list_done(struct nbd_listener *listener, int rc, const char *text);

/* For handlers of options: a reply with data (the option goes on), the final one, a refusal. */
#define NBD_REPLY_DATA_MAX (2 * NBD_STRING_MAX + 64) /* of all replies of one handler's run */
void nbd_listener_reply(struct nbd_listener *listener, uint32_t type, const void *data,
			size_t size);
void nbd_listener_ack(struct nbd_listener *listener, uint32_t grants);
void nbd_listener_refuse(struct nbd_listener *listener, uint32_t type, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* ---- device: transmission ---- */

#define NBD_DEVICE_STATES(X)                                             \
	X(HEADER, "waiting for a request")                               \
	X(PAYLOAD, "receiving a payload")                                \
	X(SKIP, "skipping the payload of a refused request")             \
	X(BLOCKED, "a limit is reached: takes no input")                 \
	X(DRAINING, "takes no more requests, answers those in flight")   \
	X(DRAINED, "all is answered and sent: to be closed")             \
	X(FAILED, "the client broke the protocol: to be closed at once") \
	X(CLOSED, "no connection, the backend has still requests")       \
	X(GONE, "nothing is left: may be freed")

enum nbd_device_state {
#define NBD_STATE_ENUM(name, text) NBD_DEVICE_##name,
	NBD_DEVICE_STATES(NBD_STATE_ENUM)
#undef NBD_STATE_ENUM
		NBD_DEVICE_STATE_COUNT
};

/*
 * Start transmission on @session, whose handle the device closes; @host is borrowed. NULL: out of
 * memory (the handle is still the caller's).
 */
struct nbd_device *nbd_device_new(const struct nbd_server *server,
				  const struct nbd_session *session, struct nbd_host *host);
/* Only in state GONE. NULL is allowed. */
void nbd_device_free(struct nbd_device *device);

/*
 * Take received bytes. @in is borrowed; payload that lies in it is kept by a reference to its
 * buffer (copied if it has none). Returns how many bytes were taken; fewer than given while
 * BLOCKED: feed the rest after wake, be it 0 bytes. From DRAINING on all is taken and dropped.
 */
size_t nbd_device_feed(struct nbd_device *device, struct slice in);
/*
 * While a payload is awaited: where its missing bytes go, so that they are received in place. The
 * host may receive up to out->iov_len bytes there, then (in the same call: a second iovec) into its
 * own buffer, and says with nbd_device_filled() how many came in place. False: none is awaited.
 */
bool nbd_device_want(struct nbd_device *device, struct iovec *out);
void nbd_device_filled(struct nbd_device *device, size_t bytes);
/* The client sends no more: what is in flight is answered and sent, a half request is dropped. */
void nbd_device_eof(struct nbd_device *device);
/* Input stopped by alloc_request may go on. */
void nbd_device_resume(struct nbd_device *device);

/* Spans to send, at most @max; the same until nbd_device_sent() says that bytes have gone. */
unsigned nbd_device_output(struct nbd_device *device, struct iovec *iov, unsigned max);
/* Releases what has been sent whole. */
void nbd_device_sent(struct nbd_device *device, size_t bytes);

/* Requests from now on get ESHUTDOWN; DRAINED when those in flight are answered and sent. */
void nbd_device_shutdown(struct nbd_device *device);
/*
 * The connection is gone, no span of it is being sent or received: replies are dropped. GONE (at
 * once, or later with wake) when the backend has answered everything and close() has run.
 */
void nbd_device_close(struct nbd_device *device);

enum nbd_device_state nbd_device_state(const struct nbd_device *device);
const char *nbd_device_state_name(enum nbd_device_state state);
/* Does it take input? */
bool nbd_device_is_open(const struct nbd_device *device);
/* Why it ended, for logs; "" if by the protocol's rules. */
const char *nbd_device_reason(const struct nbd_device *device);
const struct nbd_session *nbd_device_session(const struct nbd_device *device);
void *nbd_device_handle(const struct nbd_device *device);  /* nbd_export.handle */
void *nbd_device_context(const struct nbd_device *device); /* nbd_host.context */
uint32_t nbd_device_in_flight(const struct nbd_device *device);

struct nbd_device_stats {
	uint64_t requests; /* read, refused ones included */
	uint64_t refused;  /* by the library */
	uint64_t bytes_in; /* payload */
	uint64_t bytes_out;
	uint64_t copied; /* payload bytes that were copied */
	uint64_t grown;	 /* times that memory for requests was allocated */
};
const struct nbd_device_stats *nbd_device_stats(const struct nbd_device *device);

/* ---- requests ---- */

#define NBD_REPLY_SLICES 4

/* One request. Public members are the embedder's to read until it replies. */
struct nbd_request {
	struct nbd_device *device;
	const struct nbd_command *command;
	uint64_t offset;
	uint64_t length;
	uint64_t cookie;
	uint16_t type;	/* NBD_CMD_* */
	uint16_t flags; /* NBD_CMD_FLAG_* */
	/*
	 * A WRITE's data. Held by the request and released when it is freed; an embedder that
	 * needs it longer takes a reference. Take it whole by setting payload.buffer to NULL.
	 */
	struct slice payload;

	/* private to lib/nbd */
	uint8_t stage;
	bool was_handed;
	uint32_t slice_count;
	uint64_t counted; /* payload bytes in flight */
	struct nbd_simple_reply reply;
	uint64_t data_size; /* bytes behind the reply */
	const struct slice *slices;
	struct slice own_slices[NBD_REPLY_SLICES];
	struct cds_list_head link;
};

/* private_size bytes behind the request, contents undefined at first; aligned to 16. */
void *nbd_request_private(struct nbd_request *request);

/*
 * Answer @request; it is the library's from now on. @rc: 0, or an error code (-errno or -E_*).
 * @slices: with 0 only, for a command whose reply has data: exactly request->length bytes. The
 * slices' references are taken, and put when sent or dropped; memory without a buffer is borrowed
 * until reply_done. The array is copied if @count is at most NBD_REPLY_SLICES, else borrowed until
 * reply_done (the private bytes are a good place). With an error the slices are not looked at.
 */
void nbd_request_reply(struct nbd_request *request, int rc, const struct slice *slices,
		       unsigned count);

/* The NBD error for an error code of either kind: the one place that maps. */
enum nbd_error nbd_error_of(int rc);

#endif
