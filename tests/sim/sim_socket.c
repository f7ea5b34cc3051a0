/*
 * Ends of streams.
 *
 * An end lives as long as its handle, the other end or a packet names it, so
 * that what arrives late finds a closed end and is answered by a reset. Sent
 * bytes count against a window until the peer's owner has read them: a send
 * waits when the peer does not read, as with real socket buffers.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/text.h"
#include "tests/sim/sim_net.h"

#define WINDOW_BYTES	 (256 * KIB)
#define PACKET_MAX_BYTES (64 * KIB)
#define DIAL_TIMEOUT_NS	 (127 * NS_PER_S)

static struct sim_socket *sim_socket_of(struct loop_socket *socket)
{
	return (struct sim_socket *)socket;
}

/* ---- life ---- */

struct sim_socket *sim_socket_new(struct sim_process *process, const char *peer)
{
	struct sim_socket *socket = sim_alloc(sizeof(*socket));

	socket->refs = 1;
	socket->process = process;
	socket->is_open = true;
	CDS_INIT_LIST_HEAD(&socket->received);
	cds_list_add_tail(&socket->link, &process->sockets);
	(void)text_copy(socket->base.peer, sizeof(socket->base.peer), peer);
	return socket;
}

struct sim_socket *sim_socket_get(struct sim_socket *socket)
{
	socket->refs++;
	return socket;
}

void sim_socket_put(struct sim_socket *socket)
{
	if (!socket || --socket->refs > 0)
		return;
	assert(!socket->is_open && !socket->peer && cds_list_empty(&socket->received));
	free(socket);
}

static struct sim_packet *send_to_peer(struct sim_socket *socket, enum sim_packet_kind kind,
				       uint32_t size)
{
	return sim_send_packet(kind, socket, socket->peer,
			       sim_link_between(socket->process, socket->peer->process), size);
}

/* Throw away what nobody read. Was there any? */
static bool drop_received(struct sim_socket *socket)
{
	struct sim_packet *packet, *next;
	bool any = !cds_list_empty(&socket->received);

	cds_list_for_each_entry_safe(packet, next, &socket->received, link)
		sim_packet_free(packet);
	return any;
}

void sim_socket_end(struct sim_socket *socket, bool is_told)
{
	struct sim_socket *peer = socket->peer;
	bool has_unread;

	assert(socket->is_open);
	has_unread = drop_received(socket);
	socket->is_open = false;
	if (peer && is_told && !socket->is_reset) {
		if (has_unread)
			(void)send_to_peer(socket, SIM_PACKET_RST, 0);
		else if (!socket->fin_out)
			(void)send_to_peer(socket, SIM_PACKET_FIN, 0);
	}
	socket->peer = NULL;
	cds_list_del(&socket->link);
	sim_socket_put(peer);
	sim_socket_put(socket);
}

void sim_socket_free(struct loop_backend *backend, struct loop_socket *socket)
{
	sim_socket_end(sim_socket_of(socket), true);
}

int sim_socket_pair(struct loop_backend *backend, struct loop_socket **a, struct loop_socket **b)
{
	struct sim_process *process = sim_loop_of(backend)->process;
	struct sim_socket *first = sim_socket_new(process, "unix:pair");
	struct sim_socket *second = sim_socket_new(process, "unix:pair");

	first->peer = sim_socket_get(second);
	second->peer = sim_socket_get(first);
	*a = &first->base;
	*b = &second->base;
	return 0;
}

/* ---- receiving ---- */

static void finish_recv(struct sim_socket *socket, int result)
{
	struct loop_op *op = socket->recv;

	socket->recv = NULL;
	sim_finish(op, result);
}

/* Copies from the packets into the op's vectors; packets that are used up go. */
static uint32_t take_received(struct sim_socket *socket, const struct loop_op *op)
{
	uint32_t total = 0;

	for (uint32_t i = 0; i < op->iov_count; i++) {
		uint8_t *to = op->iov[i].iov_base;
		size_t room = op->iov[i].iov_len;

		while (room > 0 && !cds_list_empty(&socket->received)) {
			struct sim_packet *packet =
				cds_list_first_entry(&socket->received, struct sim_packet, link);
			uint32_t n = (uint32_t)min_of(room, (size_t)(packet->size - packet->used));

			memcpy(to, packet->data + packet->used, n);
			to += n;
			room -= n;
			total += n;
			packet->used += n;
			if (packet->used == packet->size)
				sim_packet_free(packet);
		}
	}
	return total;
}

/* The peer may send @bytes more; tell it if it waits for that. */
static void open_window(struct sim_socket *socket, uint64_t bytes)
{
	struct sim_socket *peer = socket->peer;

	if (!peer)
		return;
	peer->unread_out -= bytes;
	if (peer->send)
		(void)send_to_peer(socket, SIM_PACKET_WINDOW, 0);
}

static void try_recv(struct sim_socket *socket)
{
	uint32_t count;

	if (!socket->recv)
		return;
	if (!cds_list_empty(&socket->received)) {
		count = take_received(socket, socket->recv);
		finish_recv(socket, (int)count);
		open_window(socket, count);
	} else if (socket->is_deaf || (socket->fin_in && !socket->is_reset)) {
		finish_recv(socket, 0);
	} else if (socket->is_reset) {
		finish_recv(socket, -ECONNRESET);
	}
}

/* ---- sending ---- */

static void finish_send(struct sim_socket *socket, int result)
{
	struct loop_op *op = socket->send;

	socket->send = NULL;
	sim_finish(op, result);
}

/* @size bytes of @op's vectors from @skip on. */
static void gather(const struct loop_op *op, uint64_t skip, uint8_t *out, uint32_t size)
{
	for (const struct iovec *iov = op->iov; size > 0; iov++) {
		if (skip >= iov->iov_len) {
			skip -= iov->iov_len;
			continue;
		}
		uint32_t n = (uint32_t)min_of((uint64_t)size, iov->iov_len - skip);
		memcpy(out, (const uint8_t *)iov->iov_base + skip, n);
		out += n;
		size -= n;
		skip = 0;
	}
}

static void try_send(struct sim_socket *socket)
{
	struct loop_op *op = socket->send;

	if (!op)
		return;
	if (socket->is_reset || !socket->peer) {
		finish_send(socket, -ECONNRESET);
		return;
	}
	if (socket->fin_out) {
		finish_send(socket, -EPIPE);
		return;
	}
	while ((uint64_t)op->result < op->length && socket->unread_out < WINDOW_BYTES) {
		uint64_t rest = op->length - (uint64_t)op->result;
		uint64_t room = min_of(WINDOW_BYTES - socket->unread_out, PACKET_MAX_BYTES);
		uint32_t size = (uint32_t)min_of(rest, (uint64_t)room);
		struct sim_packet *packet = send_to_peer(socket, SIM_PACKET_DATA, size);

		gather(op, (uint64_t)op->result, packet->data, size);
		op->result += (int)size;
		socket->unread_out += size;
	}
	if ((uint64_t)op->result == op->length)
		finish_send(socket, op->result);
}

void sim_socket_reset(struct sim_socket *socket)
{
	struct loop_op *op = socket->connect;

	socket->is_reset = true;
	if (op) {
		socket->connect = NULL;
		sim_op_free(op->backend);
		sim_socket_end(socket, false);
		sim_finish(op, -ECONNRESET);
		return;
	}
	try_recv(socket);
	try_send(socket);
}

void sim_socket_shutdown(struct loop_backend *backend, struct loop_socket *base,
			 enum loop_shutdown how)
{
	struct sim_socket *socket = sim_socket_of(base);

	if (socket->peer && !socket->fin_out && !socket->is_reset)
		(void)send_to_peer(socket, SIM_PACKET_FIN, 0);
	socket->fin_out = true;
	if (how == LOOP_SHUTDOWN_BOTH) {
		(void)drop_received(socket);
		socket->is_deaf = true;
		try_recv(socket);
	}
	try_send(socket);
}

/* ---- dialling ---- */

static void finish_connect(struct sim_socket *socket, int result)
{
	struct loop_op *op = socket->connect;

	socket->connect = NULL;
	sim_op_free(op->backend);
	if (result == 0)
		op->out.socket = &socket->base;
	else
		sim_socket_end(socket, true);
	sim_finish(op, result);
}

static void on_dial_timeout(struct sim_event *event)
{
	struct sim_op *sim_op = container_of_type(event, struct sim_op, event);

	finish_connect(sim_op->op->target, -ETIMEDOUT);
}

static void connect_submit(struct sim_loop *loop, struct loop_op *op)
{
	struct sim_world *world = loop->process->host->world;
	char key[LOOP_ADDRESS_MAX];
	struct sim_socket *socket;
	struct sim_packet *syn;
	struct sim_host *to;
	struct sim_op *deadline;
	int rc = sim_resolve(loop->process->host, op->path, &to, key);

	if (rc < 0) {
		sim_finish(op, rc);
		return;
	}
	socket = sim_socket_new(loop->process, op->path);
	socket->base.loop = op->loop;
	socket->connect = op;
	op->target = socket;
	deadline = sim_op_new(op, on_dial_timeout);
	sim_schedule(world, &deadline->event, world->now_ns + DIAL_TIMEOUT_NS);
	syn = sim_send_packet(SIM_PACKET_SYN, socket, NULL, &loop->process->host->links[to->index],
			      0);
	(void)text_copy(syn->address, sizeof(syn->address), key);
}

/* ---- arrivals ---- */

static void on_synack(struct sim_socket *socket, struct sim_packet *packet)
{
	socket->peer = sim_socket_get(packet->from);
	finish_connect(socket, 0);
}

static void on_refused(struct sim_socket *socket, struct sim_packet *packet)
{
	finish_connect(socket, packet->reason);
}

static void on_data(struct sim_socket *socket, struct sim_packet *packet)
{
	if (socket->is_reset || socket->is_deaf) {
		open_window(socket, packet->size);
		sim_packet_free(packet);
		return;
	}
	cds_list_del(&packet->link);
	cds_list_add_tail(&packet->link, &socket->received);
	try_recv(socket);
}

static void on_window(struct sim_socket *socket, struct sim_packet *packet)
{
	try_send(socket);
}

static void on_fin(struct sim_socket *socket, struct sim_packet *packet)
{
	socket->fin_in = true;
	try_recv(socket);
}

static void on_rst(struct sim_socket *socket, struct sim_packet *packet)
{
	sim_socket_reset(socket);
}

static const struct {
	void (*arrive)(struct sim_socket *socket, struct sim_packet *packet);
	bool is_taken;	  /* by arrive() */
	bool is_answered; /* by a reset when the end is closed */
} kinds[SIM_PACKET_KINDS] = {
	[SIM_PACKET_SYNACK] = {on_synack, .is_answered = true},
	[SIM_PACKET_REFUSED] = {on_refused},
	[SIM_PACKET_DATA] = {on_data, .is_taken = true, .is_answered = true},
	[SIM_PACKET_WINDOW] = {on_window},
	[SIM_PACKET_FIN] = {on_fin},
	[SIM_PACKET_RST] = {on_rst},
};

void sim_packet_arrive(struct sim_packet *packet)
{
	struct sim_socket *to = packet->to;
	bool is_taken;

	if (packet->kind == SIM_PACKET_SYN) {
		sim_listener_arrive(packet);
		sim_packet_free(packet);
		return;
	}
	if (!to->is_open) {
		if (kinds[packet->kind].is_answered)
			(void)sim_send_packet(SIM_PACKET_RST, to, packet->from,
					      sim_link_between(to->process, packet->from->process),
					      0);
		sim_packet_free(packet);
		return;
	}
	(void)sim_socket_get(to);
	is_taken = kinds[packet->kind].is_taken;
	kinds[packet->kind].arrive(to, packet);
	if (!is_taken)
		sim_packet_free(packet);
	sim_socket_put(to);
}

/* ---- the back end's side ---- */

void sim_socket_submit(struct sim_loop *loop, struct loop_op *op)
{
	struct sim_socket *socket = op->target;

	switch (op->kind) {
	case LOOP_OP_ACCEPT:
		sim_accept_submit(op);
		break;
	case LOOP_OP_CONNECT:
		connect_submit(loop, op);
		break;
	case LOOP_OP_RECV:
		socket->recv = op;
		try_recv(socket);
		break;
	default:
		socket->send = op;
		try_send(socket);
		break;
	}
}

void sim_socket_cancel(struct sim_loop *loop, struct loop_op *op)
{
	struct sim_socket *socket = op->target;

	switch (op->kind) {
	case LOOP_OP_ACCEPT:
		sim_accept_cancel(op);
		break;
	case LOOP_OP_CONNECT:
		finish_connect(socket, -ECANCELED);
		break;
	case LOOP_OP_RECV:
		finish_recv(socket, -ECANCELED);
		break;
	default:
		finish_send(socket, -ECANCELED);
		break;
	}
}

void sim_process_drop_streams(struct sim_process *process, bool is_told)
{
	sim_process_drop_listeners(process);
	while (!cds_list_empty(&process->sockets)) {
		struct sim_socket *socket =
			cds_list_first_entry(&process->sockets, struct sim_socket, link);

		socket->recv = socket->send = socket->connect = NULL;
		if (is_told && socket->peer && !socket->is_reset) {
			(void)send_to_peer(socket, SIM_PACKET_RST, 0);
			socket->is_reset = true;
		}
		sim_socket_end(socket, is_told);
	}
}
