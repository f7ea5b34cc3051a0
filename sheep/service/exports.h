/*
 * Volumes as NBD exports, on one loop: `NAME`, and "" for the only volume there is.
 */
#ifndef SERVICE_EXPORTS_H
#define SERVICE_EXPORTS_H

#include "lib/net/net.h"
#include "sheep/gateway/gateway.h"

struct exports;

struct exports *exports_new(struct net *net, struct gateway *gateway);
/* Without connections only. NULL is allowed. */
void exports_free(struct exports *exports);
/* Serve a client that has connected; @socket is attached to this loop. */
void exports_serve(struct exports *exports, struct loop_socket *socket);
/* Finish what is in flight, close all; @op completes when no connection is left. */
void exports_stop(struct exports *exports, struct loop_op *op);
/* Do not wait for what is in flight any longer. */
void exports_close(struct exports *exports);

struct exports_counters {
	uint64_t connections; /* since the start */
	uint32_t open;
};
const struct exports_counters *exports_counters(const struct exports *exports);

#endif
