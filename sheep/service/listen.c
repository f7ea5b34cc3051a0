/* Listeners: peers on every address of --peer, clients on every one of --nbd. */
#include <stdlib.h>

#include <systemd/sd-daemon.h>

#include "include/proto/frame.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "sheep/service/exports.h"
#include "sheep/service/node_priv.h"

int node_listen_peers(struct node *node, struct error *err)
{
	const struct net_listener_options options = {.magic = FRAME_MAGIC_PEER};

	return net_listen(node->workers[0].net, node->settings->peer, &options,
			  &node->peer_listener, err);
}

/* ---- NBD: accepted on the engine's loop, served on all in turn ---- */

struct socket_mail {
	struct loop_mail mail;
	struct worker *worker;
	struct loop_socket *socket;
};

static void deliver_socket(struct loop *loop, struct loop_mail *loop_mail)
{
	struct socket_mail *mail = container_of_type(loop_mail, struct socket_mail, mail);

	loop_socket_attach(loop, mail->socket);
	exports_serve(mail->worker->exports, mail->socket);
	free(mail);
}

static void on_client(void *context, struct net *net, struct loop_socket *socket)
{
	struct node *node = context;
	struct worker *worker = &node->workers[node->next_worker++ % node->worker_count];
	struct socket_mail *mail;

	if (worker->index == 0) {
		exports_serve(worker->exports, socket);
		return;
	}
	mail = calloc(1, sizeof(*mail));
	if (!mail) {
		log_error("nbd: out of memory for a connection");
		loop_socket_close(net_loop(net), socket);
		return;
	}
	mail->worker = worker;
	mail->socket = loop_socket_detach(net_loop(net), socket);
	mail->mail.deliver = deliver_socket;
	loop_post(worker->loop, &mail->mail);
}

int node_listen_clients(struct node *node, struct error *err)
{
	const struct net_listener_options options = {.accepted = on_client, .context = node};
	const struct settings_list *list = &node->settings->nbd;

	for (unsigned i = 0; i < list->count; i++) {
		int rc = net_listen(node->workers[0].net, list->items[i], &options,
				    &node->nbd_listeners[i], err);
		if (rc < 0)
			return error_wrap(err, rc, "nbd");
		node->nbd_listener_count = i + 1;
		log_info("nbd: listening on %s", net_listener_address(node->nbd_listeners[i]));
	}
	log_info("peer: listening on %s", net_listener_address(node->peer_listener));
	(void)sd_notify(0, "READY=1");
	return 0;
}

void node_listen_stop(struct node *node)
{
	(void)sd_notify(0, "STOPPING=1");
	for (unsigned i = 0; i < node->nbd_listener_count; i++)
		net_listener_close(node->nbd_listeners[i]);
	node->nbd_listener_count = 0;
}
