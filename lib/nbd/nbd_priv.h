/* What the files of lib/nbd share. */
#ifndef NBD_NBD_PRIV_H
#define NBD_NBD_PRIV_H

#include "lib/nbd/nbd.h"

#define NBD_OPTIONS_LOW	     32u /* standard options are below, dispatched by index */
#define NBD_OPTIONS_VENDOR   64u /* slots of the hash of vendor options; a power of two */
#define NBD_COMMANDS_LOW     16u
#define NBD_COMMANDS_VENDOR  256u
#define NBD_TEXT_MAX	     256u   /* of an error reply, with the closing zero */
#define NBD_LISTENER_OUT_MAX 20480u /* two runs of a handler, and an error on top */

struct nbd_server {
	struct nbd_callbacks callbacks;
	struct nbd_limits limits;
	uint32_t request_size; /* with the private bytes, rounded up */
	const struct nbd_option *options[NBD_OPTIONS_LOW];
	const struct nbd_option *vendor_options[NBD_OPTIONS_VENDOR];
	uint32_t vendor_option_count;
	const struct nbd_command *commands[NBD_COMMANDS_LOW];
	const struct nbd_command *vendor_commands[NBD_COMMANDS_VENDOR];
};

/* The rows of the standard, closed by one with a NULL name. */
extern const struct nbd_option nbd_standard_options[];
extern const struct nbd_command nbd_standard_commands[];

/* ---- listener ---- */

/* The option that is being answered. */
struct nbd_question {
	const struct nbd_option *row; /* NULL: unknown */
	uint32_t number;
	uint32_t length;
	uint32_t refusal; /* NBD_REP_ERR_*: decided from the header; 0: none */
	const char *refusal_text;
	/* EXPORT_NAME, INFO, GO: */
	char name[NBD_STRING_MAX + 1];
	uint32_t infos; /* BIT(enum nbd_info_number): asked for */
	/* LIST: */
	uint64_t cursor;
	uint32_t listed;
	bool is_waiting_for_room;
	bool is_too_long;
};

struct nbd_listener {
	const struct nbd_server *server;
	struct nbd_host *host;
	enum nbd_listener_state state;
	uint32_t features;
	bool is_eof;
	bool is_shutdown;
	bool has_session;
	char reason[NBD_TEXT_MAX];
	struct nbd_session session;
	uint32_t option_count;
	uint64_t option_bytes;
	struct nbd_question question;
	uint32_t used; /* bytes of header or data collected so far */
	uint32_t skip_left;
	uint8_t header[sizeof(struct nbd_option_header)];
	uint32_t out_start;
	uint32_t out_end;
	uint8_t data[NBD_OPTION_DATA_MAX];
	uint8_t out[NBD_LISTENER_OUT_MAX];
};

void listener_enter(struct nbd_listener *listener, enum nbd_listener_state next);
/* Drop the connection: nothing more is answered, earlier replies are sent. */
void listener_fail(struct nbd_listener *listener, const char *reason);
/* Room for @size bytes of output. */
void *listener_reserve(struct nbd_listener *listener, size_t size);
size_t listener_room(const struct nbd_listener *listener);
bool listener_has_output(const struct nbd_listener *listener);
/* The answer is complete: back to waiting for options, or to the end. */
void listener_answered(struct nbd_listener *listener);
/* Give the backend the next part of a listing. */
void listener_list(struct nbd_listener *listener);

/* A valid session of what the backend said, or -EINVAL. */
int session_of_export(const struct nbd_server *server, const struct nbd_export *export,
		      uint32_t features, struct nbd_session *out);
/* The reply type for an error of open or list. */
uint32_t nbd_refusal_of(int rc);

/* ---- device ---- */

enum request_stage {
	REQUEST_SPARE,
	REQUEST_ARRIVING, /* its payload is awaited */
	REQUEST_HANDED,	  /* the backend has it */
	REQUEST_REPLIED,  /* in the output queue */
};

struct request_chunk {
	struct request_chunk *next;
};

struct nbd_device {
	const struct nbd_server *server;
	struct nbd_host *host;
	enum nbd_device_state state;
	bool is_eof;
	bool is_shutdown;
	uint16_t legal_flags; /* NBD_CMD_FLAG_* that were advertised */
	const char *reason;
	struct nbd_session session;

	/* input */
	uint8_t header[sizeof(struct nbd_request_header)];
	uint32_t header_used;
	struct nbd_request *current; /* in PAYLOAD */
	uint64_t payload_used;	     /* in PAYLOAD: bytes that are there */
	uint64_t skip_left;	     /* in SKIP */

	/* requests */
	uint32_t in_flight; /* all but spare ones */
	uint32_t handed;
	uint64_t in_flight_bytes;
	uint32_t made; /* in chunks */
	struct cds_list_head spare;
	struct request_chunk *chunks;

	/* output */
	struct cds_list_head replies;
	size_t sent; /* bytes of the first reply that have gone */

	struct nbd_device_stats stats;
};

void device_enter(struct nbd_device *device, enum nbd_device_state next);
/* After anything that may have been the last thing awaited. */
void device_settle(struct nbd_device *device);
void device_wake(struct nbd_device *device);

/* NULL: a limit is reached or there is no memory. @payload: bytes that count as in flight. */
struct nbd_request *request_new(struct nbd_device *device, uint64_t payload);
void request_free(struct nbd_request *request);
/* Queue the reply of a request that no backend has seen: no data. */
void request_answer(struct nbd_request *request, int rc);
/* Give it to the backend. */
void request_hand(struct nbd_request *request);
void requests_done(struct nbd_device *device); /* frees the chunks */
/* Drop all queued replies. */
void replies_drop(struct nbd_device *device);

#endif
