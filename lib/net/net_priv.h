/* What the files of lib/net share. */
#ifndef NET_NET_PRIV_H
#define NET_NET_PRIV_H

#include "lib/net/net.h"

#define NET_SERVICES_MAX   8
#define NET_SEND_BYTES_MAX (1u << 20) /* of one send: its end is the sign of life */

struct net {
	struct loop *loop;
	struct net_options options;
	struct wire_identity identity;
	struct net_stats stats;
	bool is_stopping;

	struct net **group; /* by loop index; what net_group() was given */
	unsigned group_count;
	struct net_service services[NET_SERVICES_MAX];
	unsigned service_count;

	struct loop_hook flush;
	struct cds_list_head dirty; /* streams with output to send at the end of this turn */
	uint32_t stream_count;	    /* started and not yet closed or released */
	uint32_t busy;		    /* other operations and deferred completions in the loop */
	uint32_t incoming;	    /* sessions on their way from other loops; atomic */

	struct cds_list_head listeners;
	struct cds_list_head sessions; /* in any state */
	uint32_t session_count;
	uint64_t session_last; /* number given last */

	struct cds_list_head links;

	struct cds_list_head request_spares;
	struct cds_list_head request_chunks;
};

/* ---- net.c ---- */

/* The service of a protocol on this loop, or NULL. */
const struct net_service *net_find_service(const struct net *net, uint32_t magic);
/* A request, not zeroed; NULL: no memory. */
struct net_request *net_request_new(struct net *net);
void net_request_free(struct net *net, struct net_request *request);

/* ---- stream.c ---- */

/* Take the socket out of a stream without an operation in flight, which is over then. */
struct loop_socket *net_stream_release(struct net_stream *stream);
/* Run by the net's hook. */
void net_stream_flush(struct net_stream *stream);

/* ---- session.c ---- */

/* A socket that was accepted: read its HELLO. Takes @socket; -ENOMEM leaves it. */
int net_session_accept(struct net *net, struct loop_socket *socket, uint32_t magic);
void net_session_stop_all(struct net *net);

/* ---- listener.c ---- */

void net_listeners_stop_all(struct net *net);
/* A session has ended: whoever stopped accepting may go on. */
void net_listeners_resume(struct net *net);

/* ---- link.c ---- */

void net_link_stop_all(struct net *net);

#endif
