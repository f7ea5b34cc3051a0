/*
 * The client's side of NBD, without I/O; see lib/nbd/nbd.h for how bytes and a host are handled.
 *
 *   nbd_connector   negotiation: one export (GO, INFO) or the listing
 *   nbd_client      transmission: many calls in flight
 *   nbd_call        one request of ours, embedded in its owner
 *
 * What a server sends is checked as what a client sends is: a server that breaks the protocol ends
 * the connection with an error, it never makes us read or write where we should not.
 */
#ifndef NBD_NBD_CLIENT_H
#define NBD_NBD_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <urcu/list.h>

#include "include/proto/nbd.h"
#include "lib/base/buffer.h"
#include "lib/base/err.h"

struct nbd_host;
struct nbd_connector;
struct nbd_client;

/* ---- connector: negotiation ---- */

enum nbd_goal {
	NBD_GOAL_GO,   /* use the export */
	NBD_GOAL_INFO, /* ask about it and leave */
	NBD_GOAL_LIST, /* list the exports and leave */
};

struct nbd_connector_options {
	enum nbd_goal goal;
	const char *name; /* of the export, borrowed; "" is the default one */
	/* For NBD_GOAL_LIST: one export; strings are borrowed. */
	void (*listed)(void *context, const char *name, const char *description);
};

/* What the server says of the export. */
struct nbd_remote {
	uint64_t size;
	uint16_t flags; /* NBD_FLAG_* */
	uint32_t block_minimum, block_preferred, block_maximum;
	bool has_block_sizes; /* it told them; else they are 1, 4096 and 32 MiB */
	char name[NBD_STRING_MAX + 1];
	char description[NBD_STRING_MAX + 1];
};

#define NBD_CONNECTOR_STATES(X)                                  \
	X(GREETING, "waiting for the server's greeting")         \
	X(REPLY_HEADER, "waiting for a reply")                   \
	X(REPLY_DATA, "waiting for a reply's data")              \
	X(EXPORT_REPLY, "waiting for the answer to EXPORT_NAME") \
	X(LEAVING, "the goal is reached, saying goodbye")        \
	X(DONE, "the goal is reached")                           \
	X(FAILED, "refused, or the server broke the protocol")

enum nbd_connector_state {
#define NBD_STATE_ENUM(name, text) NBD_CONNECTOR_##name,
	NBD_CONNECTOR_STATES(NBD_STATE_ENUM)
#undef NBD_STATE_ENUM
		NBD_CONNECTOR_STATE_COUNT
};

/* @host is borrowed. NULL: out of memory. -EINVAL of a name is found by nbd_connector_result(). */
struct nbd_connector *nbd_connector_new(const struct nbd_connector_options *options,
					struct nbd_host *host);
void nbd_connector_free(struct nbd_connector *connector); /* NULL is allowed */

/* As nbd_listener_feed() and its kin. What is not taken in DONE belongs to the nbd_client. */
size_t nbd_connector_feed(struct nbd_connector *connector, const void *data, size_t size);
void nbd_connector_eof(struct nbd_connector *connector);
unsigned nbd_connector_output(struct nbd_connector *connector, struct iovec *iov, unsigned max);
void nbd_connector_sent(struct nbd_connector *connector, size_t bytes);

enum nbd_connector_state nbd_connector_state(const struct nbd_connector *connector);
const char *nbd_connector_state_name(enum nbd_connector_state state);
/* Why FAILED, with the server's text if it gave one; 0 else. @err may be NULL. */
int nbd_connector_result(const struct nbd_connector *connector, struct error *err);
/* After GO or INFO: borrowed. */
const struct nbd_remote *nbd_connector_remote(const struct nbd_connector *connector);

/* ---- client: transmission ---- */

/* Set the first group; all may be changed and called again from `done` on. */
struct nbd_call {
	uint16_t type;	/* NBD_CMD_* */
	uint16_t flags; /* NBD_CMD_FLAG_* */
	uint64_t offset;
	uint32_t length;
	void *into;		    /* READ: length bytes, borrowed until done */
	const struct slice *slices; /* WRITE: length bytes in all; array and memory borrowed */
	uint32_t slice_count;
	/*
	 * Exactly once, never inside nbd_client_call(). 0, the error of the server as -errno, or
	 * -E_CLOSED: the connection ended first, and a request that changes something may or may
	 * not have been executed.
	 */
	void (*done)(struct nbd_call *call, int result);

	/* private to lib/nbd */
	bool is_sent, is_answered;
	int result;
	uint32_t slot;
	struct nbd_request_header header;
	struct cds_list_head link;
};

/* @in_flight_max: requests that the server has at a time; 0: 64. More calls wait here. */
struct nbd_client *nbd_client_new(const struct nbd_remote *remote, uint32_t in_flight_max,
				  struct nbd_host *host);
/* Only closed. NULL is allowed. */
void nbd_client_free(struct nbd_client *client);

/*
 * Send @call. 0, or (then `done` does not run): -EINVAL: beyond the export or longer than its maximum;
 * -EPERM: it is read-only; -EOPNOTSUPP: the server does not offer it; -E_CLOSED.
 */
int nbd_client_call(struct nbd_client *client, struct nbd_call *call);
/* Say goodbye when all calls are done; then nbd_client_is_finished(). No call may follow. */
void nbd_client_disconnect(struct nbd_client *client);

/* All is taken, unless the server breaks the protocol: then nbd_client_error() says how. */
void nbd_client_feed(struct nbd_client *client, const void *data, size_t size);
/* As nbd_device_want() and nbd_device_filled(): a READ's data comes straight to its place. */
bool nbd_client_want(struct nbd_client *client, struct iovec *out);
void nbd_client_filled(struct nbd_client *client, size_t bytes);
unsigned nbd_client_output(struct nbd_client *client, struct iovec *iov, unsigned max);
void nbd_client_sent(struct nbd_client *client, size_t bytes);
/* The connection is gone, and nothing of it is in use: calls that are left get -E_CLOSED. */
void nbd_client_close(struct nbd_client *client);

/* 0, or -E_PROTOCOL: close the connection. @why may be NULL. */
int nbd_client_error(const struct nbd_client *client, const char **why);
/* The goodbye has been sent: close the connection. */
bool nbd_client_is_finished(const struct nbd_client *client);
uint32_t nbd_client_in_flight(const struct nbd_client *client); /* and waiting */

#endif
