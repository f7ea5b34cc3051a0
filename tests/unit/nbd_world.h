/*
 * An NBD connection of lib/net, on the real loop or on the simulated one, with a disk in memory behind it. The client is
 * the other end of a socket pair, spoken to byte by byte.
 */
#ifndef TESTS_UNIT_NBD_WORLD_H
#define TESTS_UNIT_NBD_WORLD_H

#include "lib/base/size.h"
#include "lib/net/net.h"
#include "tests/sim/sim.h"
#include "tests/unit/nbd_peer.h"

#define DISK	    (8u << 20)
#define DEADLINE_NS (20 * NS_PER_S)
#define HELD_MAX    300u

enum { READ, WRITE, DISC, FLUSH };

struct nbd_world {
	struct sim_world *sim; /* NULL: real */
	struct loop *loop;
	struct nbd_server *server;
	struct nbd_link *link;
	struct nbd_export export;
	uint8_t *disk;
	bool holds;
	bool is_closed; /* the link */
	char why[128];
	unsigned closed;   /* the export */
	struct slice kept; /* of the last write; `keeps` */
	bool keeps;
	struct nbd_request *held[HELD_MAX];
	unsigned held_count;
	uint64_t copied;
	/* the client */
	struct loop_socket *socket;
	struct loop_op send_op, recv_op;
	struct iovec send_iov, recv_iov;
	bool is_sent, has_end;
	struct blob in;
	uint8_t chunk[65536];
	uint64_t wanted; /* bytes, requests or a time: what a test waits for */
};

/* As the backend does. */
void nbd_world_answer(struct nbd_world *world, struct nbd_request *request);
/* The client takes all that comes, from here on. */
void nbd_world_receive(struct nbd_world *world);
/* For nbd_world_until(): the link is; the client sees the end; all of it was sent; `wanted` bytes have come. */
bool nbd_world_is_closed(struct nbd_world *world);
bool nbd_world_has_ended(struct nbd_world *world);
bool nbd_world_is_sent(struct nbd_world *world);
bool nbd_world_has_received(struct nbd_world *world);
void nbd_world_until(struct nbd_world *world, bool (*is_so)(struct nbd_world *world));
/* This comes, and nothing more; forgets both. */
void nbd_world_expect(struct nbd_world *world, struct blob *server);
/* Does not wait. */
void nbd_world_send_start(struct nbd_world *world, const struct blob *client);
void nbd_world_send(struct nbd_world *world, struct blob *client);
/* @is_simulated: NULL counts as false. @timeout_ns: of the negotiation; 0: the usual. */
void nbd_world_begin(struct nbd_world *world, const bool *is_simulated, uint64_t timeout_ns);
/* The client goes without a word. */
void nbd_world_leave(struct nbd_world *world);
/* It does, and all is freed. */
void nbd_world_finish(struct nbd_world *world);
/* Up to transmission, with EXPORT_NAME and no zeroes. */
void nbd_world_negotiate(struct nbd_world *world);

#endif
