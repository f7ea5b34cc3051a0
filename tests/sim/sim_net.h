/* Streams of the simulator: packets (sim_net.c) and ends (sim_socket.c). */
#ifndef SIM_SIM_NET_H
#define SIM_SIM_NET_H

#include <uthash.h>

#include "tests/sim/sim_priv.h"

/* One end of a stream. */
struct sim_socket {
	struct loop_socket base;
	uint32_t refs; /* the handle, the other end's peer, packets */
	struct sim_process *process;
	struct cds_list_head link; /* of the process, while is_open */
	struct sim_socket *peer;   /* NULL: not connected, or closed here */
	bool is_open;		   /* there is a handle */
	bool fin_out;		   /* we send no more */
	bool fin_in;		   /* nor does the peer */
	bool is_deaf;		   /* shut both ways: what comes is thrown away */
	bool is_reset;
	struct loop_op *recv, *send, *connect; /* with us, not yet finished */
	struct cds_list_head received;	       /* DATA packets, by link */
	uint64_t unread_out;		       /* sent and not yet read by the peer */
	uint64_t last_arrival_ns;	       /* of what we sent: later packets arrive later */
};

enum sim_packet_kind {
	SIM_PACKET_SYN,
	SIM_PACKET_SYNACK,
	SIM_PACKET_REFUSED, /* carries the reason */
	SIM_PACKET_DATA,
	SIM_PACKET_WINDOW, /* there is room to send again */
	SIM_PACKET_FIN,
	SIM_PACKET_RST,
	SIM_PACKET_KINDS
};

struct sim_packet {
	struct sim_event event;
	struct cds_list_head link; /* of the world, or received by an end */
	struct cds_list_head held; /* of its link, while that is cut */
	struct sim_link *via;
	enum sim_packet_kind kind;
	struct sim_socket *from;
	struct sim_socket *to;		/* NULL for SYN */
	int reason;			/* REFUSED: what the dial gets */
	char address[LOOP_ADDRESS_MAX]; /* SYN: the listener's key */
	uint32_t size;
	uint32_t used; /* read already */
	uint8_t data[];
};

/* ---- sim_net.c ---- */

/* @size bytes follow, for the caller to fill before anything else happens. */
struct sim_packet *sim_send_packet(enum sim_packet_kind kind, struct sim_socket *from,
				   struct sim_socket *to, struct sim_link *via, uint32_t size);
void sim_packet_free(struct sim_packet *packet);

/* ---- sim_socket.c ---- */

/* The way from @from to @to. */
struct sim_link *sim_link_between(struct sim_process *from, struct sim_process *to);
/* It has arrived: takes the packet. */
void sim_packet_arrive(struct sim_packet *packet);
struct sim_socket *sim_socket_get(struct sim_socket *socket);
void sim_socket_put(struct sim_socket *socket); /* NULL is allowed */
struct sim_socket *sim_socket_new(struct sim_process *process, const char *peer);
/* The handle goes; the peer learns by FIN or RST, if it is to be told. */
void sim_socket_end(struct sim_socket *socket, bool is_told);
void sim_socket_reset(struct sim_socket *socket);

/* ---- sim_listen.c ---- */

/* A dial has arrived at @host: a new end in the listener's queue, or a refusal. */
void sim_listener_arrive(struct sim_packet *syn);
void sim_process_drop_listeners(struct sim_process *process);
void sim_accept_submit(struct loop_op *op);
void sim_accept_cancel(struct loop_op *op);
/*
 * Where @address leads from @host: the host, and the key of the listener there.
 * 0, or what the dial gets at once.
 */
int sim_resolve(struct sim_host *host, const char *address, struct sim_host **to, char *key);

#endif
