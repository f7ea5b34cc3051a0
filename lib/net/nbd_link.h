/*
 * An NBD server's connection on lib/loop: the host of lib/nbd's listener and device.
 *
 * It takes an accepted socket, negotiates, serves, and ends by itself when the client leaves, breaks
 * the protocol or is too slow to negotiate. All that was read in a turn of the loop is handed to the
 * backend in that turn, and all that was answered is sent in one call at its end.
 */
#ifndef NET_NBD_LINK_H
#define NET_NBD_LINK_H

#include "lib/loop/loop.h"
#include "lib/nbd/nbd.h"

struct nbd_link;

#define NBD_LINK_STATES(X)                                            \
	X(NEGOTIATING, "negotiating")                                 \
	X(SERVING, "serving")                                         \
	X(LINGERING, "waiting for the client to have read all")       \
	X(CLOSING, "waiting for the socket's operations to end")      \
	X(FINISHING, "waiting for the backend to answer what it has") \
	X(CLOSED, "closed")

enum nbd_link_state {
#define NBD_LINK_STATE_ENUM(name, text) NBD_LINK_##name,
	NBD_LINK_STATES(NBD_LINK_STATE_ENUM)
#undef NBD_LINK_STATE_ENUM
		NBD_LINK_STATE_COUNT
};

struct nbd_link_options {
	/* What the library's callbacks get as nbd_listener_context() and nbd_device_context(). */
	void *context;
	/*
	 * The connection is over and all is released; the link is gone when this returns. @why:
	 * for the log; "" if the client ended it by the protocol's rules. From the loop, never
	 * inside a call.
	 */
	void (*closed)(struct nbd_link *link, void *context, const char *why);
	uint64_t negotiation_timeout_ns; /* 0: 60 s; the client must have got to transmission */
};

/*
 * Serve @socket (taken in any case). @server is borrowed and outlives the link. 0 or -ENOMEM.
 */
int nbd_link_start(struct loop *loop, struct loop_socket *socket, const struct nbd_server *server,
		   const struct nbd_link_options *options, struct nbd_link **out);
/* Refuse what comes from now on, answer what is in flight, then close. */
void nbd_link_shutdown(struct nbd_link *link);
/* Drop the connection now. `closed` comes when the backend has answered what it has. */
void nbd_link_close(struct nbd_link *link, const char *why);

enum nbd_link_state nbd_link_state(const struct nbd_link *link);
const char *nbd_link_state_name(enum nbd_link_state state);
const char *nbd_link_peer(const struct nbd_link *link); /* for logs */
struct loop *nbd_link_loop(const struct nbd_link *link);
/* NULL before transmission. */
struct nbd_device *nbd_link_device(const struct nbd_link *link);

#endif
