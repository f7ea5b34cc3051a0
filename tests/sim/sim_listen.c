/*
 * Listeners of the simulator, and where addresses lead.
 *
 * A listener's key on its host is ":PORT" or "unix:PATH". An address may name
 * the host's own 10.0.0.N, all of 127.0.0.0/8, 0.0.0.0 to listen at, [::1] and
 * [::]; every port is one, whatever the address before it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/text.h"
#include "tests/sim/sim_net.h"

#define BACKLOG_MAX 1024

struct sim_listener {
	struct loop_listener base;
	struct sim_process *process;
	struct cds_list_head link;    /* of the process */
	struct cds_list_head waiting; /* accept ops, by link */
	struct sim_socket *backlog[BACKLOG_MAX];
	uint32_t backlog_first, backlog_count;
	bool is_listed;
	char key[LOOP_ADDRESS_MAX];
	UT_hash_handle hh; /* of the host */
};

/* ---- addresses ---- */

static struct sim_host *host_of_ip(struct sim_host *here, const char *ip, size_t length)
{
	struct sim_world *world = here->world;
	char text[LOOP_ADDRESS_MAX];

	memcpy(text, ip, length);
	text[length] = '\0';
	if (strncmp(text, "127.", 4) == 0 || strcmp(text, "[::1]") == 0 ||
	    strcmp(text, "0.0.0.0") == 0 || strcmp(text, "[::]") == 0)
		return here;
	for (unsigned i = 0; i < world->host_count; i++)
		if (strcmp(world->hosts[i]->address, text) == 0)
			return world->hosts[i];
	return NULL;
}

int sim_resolve(struct sim_host *host, const char *address, struct sim_host **to, char *key)
{
	const char *port = strrchr(address, ':');

	*to = host;
	if (loop_address_is_unix(address))
		return text_copy(key, LOOP_ADDRESS_MAX, address);
	*to = host_of_ip(host, address, (size_t)(port - address));
	if (!*to)
		return -EHOSTUNREACH;
	return text_copy(key, LOOP_ADDRESS_MAX, port);
}

static struct sim_listener *find(struct sim_host *host, const char *key)
{
	struct sim_listener *listener;

	HASH_FIND_STR(host->listeners, key, listener);
	return listener;
}

/* ---- listening ---- */

/* Any free port, where @key asks for one. */
static int choose_port(struct sim_host *host, char *key)
{
	if (strcmp(key, ":0") != 0)
		return 0;
	for (unsigned tries = 0; tries < 30000; tries++) {
		(void)snprintf(key, LOOP_ADDRESS_MAX, ":%u", host->next_port);
		host->next_port = host->next_port == 65535 ? 32768 : host->next_port + 1;
		if (!find(host, key))
			return 0;
	}
	return -EADDRINUSE;
}

int sim_listen(struct loop_backend *backend, const char *address, struct loop_listener **out,
	       struct error *err)
{
	struct sim_process *process = sim_loop_of(backend)->process;
	struct sim_host *host = process->host, *to = NULL;
	char key[LOOP_ADDRESS_MAX], bound[2 * LOOP_ADDRESS_MAX];
	struct sim_listener *listener;
	int rc = sim_resolve(host, address, &to, key);

	if (rc < 0 || to != host)
		return error_set(err, -EADDRNOTAVAIL, "listen on '%s'", address);
	rc = choose_port(host, key);
	if (rc < 0 || find(host, key))
		return error_set(err, -EADDRINUSE, "listen on '%s'", address);
	listener = sim_alloc(sizeof(*listener));
	listener->process = process;
	listener->is_listed = true;
	CDS_INIT_LIST_HEAD(&listener->waiting);
	cds_list_add_tail(&listener->link, &process->listeners);
	(void)text_copy(listener->key, sizeof(listener->key), key);
	HASH_ADD_STR(host->listeners, key, listener);
	if (loop_address_is_unix(address))
		(void)snprintf(bound, sizeof(bound), "%s", address);
	else
		(void)snprintf(bound, sizeof(bound), "%.*s%s",
			       (int)(strrchr(address, ':') - address), address, key);
	(void)text_copy(listener->base.address, sizeof(listener->base.address), bound);
	*out = &listener->base;
	return 0;
}

static struct sim_socket *take_backlog(struct sim_listener *listener)
{
	struct sim_socket *socket = listener->backlog[listener->backlog_first];

	listener->backlog_first = (listener->backlog_first + 1) % BACKLOG_MAX;
	listener->backlog_count--;
	return socket;
}

/* Nobody comes in any more; who waits at the door is turned away. */
static void unlist(struct sim_listener *listener, bool is_dying)
{
	if (!listener->is_listed)
		return;
	listener->is_listed = false;
	HASH_DEL(listener->process->host->listeners, listener);
	/* Ends of a dying process go with all its others. */
	while (listener->backlog_count > 0 && !is_dying)
		sim_socket_end(take_backlog(listener), true);
}

void sim_listener_close(struct loop_backend *backend, struct loop_listener *listener)
{
	unlist((struct sim_listener *)listener, false);
}

void sim_listener_free(struct loop_backend *backend, struct loop_listener *base)
{
	struct sim_listener *listener = (struct sim_listener *)base;

	cds_list_del(&listener->link);
	free(listener);
}

void sim_process_drop_listeners(struct sim_process *process)
{
	struct sim_listener *listener, *next;

	cds_list_for_each_entry_safe(listener, next, &process->listeners, link) {
		unlist(listener, true);
		cds_list_del(&listener->link);
		free(listener);
	}
}

/* ---- accepting ---- */

static void finish_accept(struct loop_op *op, struct sim_socket *socket)
{
	socket->base.loop = op->loop;
	op->out.socket = &socket->base;
	sim_finish(op, 0);
}

void sim_accept_submit(struct loop_op *op)
{
	struct sim_listener *listener = op->target;

	if (listener->backlog_count > 0)
		finish_accept(op, take_backlog(listener));
	else
		cds_list_add_tail(&op->link, &listener->waiting);
}

void sim_accept_cancel(struct loop_op *op)
{
	cds_list_del(&op->link);
	sim_finish(op, -ECANCELED);
}

static void refuse(struct sim_packet *syn, struct sim_host *host)
{
	/* There is no end here that could answer; the dialling one stands in. */
	struct sim_packet *packet =
		sim_send_packet(SIM_PACKET_REFUSED, syn->from, syn->from,
				&host->links[syn->from->process->host->index], 0);

	packet->reason = loop_address_is_unix(syn->address) ? -ENOENT : -ECONNREFUSED;
}

void sim_listener_arrive(struct sim_packet *syn)
{
	struct sim_host *host = syn->via->to;
	struct sim_listener *listener = find(host, syn->address);
	struct sim_socket *socket;
	char peer[LOOP_ADDRESS_MAX];

	if (!syn->from->is_open)
		return; /* it has given up */
	if (!listener || listener->backlog_count == BACKLOG_MAX) {
		refuse(syn, host);
		return;
	}
	if (loop_address_is_unix(syn->address))
		(void)snprintf(peer, sizeof(peer), "unix:pid=%u,uid=0", syn->via->from->index + 1);
	else
		(void)snprintf(peer, sizeof(peer), "%s:%u", syn->via->from->address,
			       32768u + (unsigned)(host->world->events % 28000));
	socket = sim_socket_new(listener->process, peer);
	socket->peer = sim_socket_get(syn->from);
	(void)sim_send_packet(SIM_PACKET_SYNACK, socket, syn->from,
			      sim_link_between(listener->process, syn->from->process), 0);
	if (cds_list_empty(&listener->waiting)) {
		listener->backlog[(listener->backlog_first + listener->backlog_count++) %
				  BACKLOG_MAX] = socket;
	} else {
		struct loop_op *op = cds_list_first_entry(&listener->waiting, struct loop_op, link);

		cds_list_del(&op->link);
		finish_accept(op, socket);
	}
}
