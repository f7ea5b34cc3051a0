/*
 * Accepts sockets and gives them to sessions, or to whoever asked for them as they are.
 *
 *   accepting --no descriptor or memory--> paused for RETRY_NS --> accepting
 *   accepting --too many sessions here--> full --a session ends--> accepting
 *
 * A full listener leaves newcomers in the kernel's backlog: that loses nobody anything, as
 * connections without a HELLO go after their timeout.
 */
#include "lib/net/net_priv.h"

#include <stdlib.h>

#include "lib/base/log.h"
#include "lib/base/size.h"

#define RETRY_NS (100 * NS_PER_MS)

struct net_listener {
	struct net *net;
	struct loop_listener *socket;
	struct net_listener_options options;
	struct loop_op accept_op;
	struct loop_timer retry;
	struct cds_list_head link;
	bool is_full, is_closed, is_complaining;
};

static void accept_next(struct net_listener *listener)
{
	struct net *net = listener->net;

	if (listener->is_closed || loop_op_is_busy(&listener->accept_op))
		return;
	listener->is_full =
		!listener->options.accepted && net->session_count >= net->options.sessions_max;
	if (listener->is_full) {
		log_warning("listener %s: %u connections: waiting for one to end",
			    net_listener_address(listener), net->session_count);
		return;
	}
	net->busy++;
	loop_accept(net->loop, &listener->accept_op, listener->socket);
}

static void take(struct net_listener *listener, struct loop_socket *socket)
{
	struct net *net = listener->net;

	if (listener->options.accepted)
		listener->options.accepted(listener->options.context, net, socket);
	else if (net_session_accept(net, socket, listener->options.magic) < 0)
		loop_socket_close(net->loop, socket);
}

static void accept_done(struct loop_op *op, int result)
{
	struct net_listener *listener = container_of_type(op, struct net_listener, accept_op);
	struct net *net = listener->net;

	net->busy--;
	if (listener->is_closed) {
		if (result >= 0)
			loop_socket_close(net->loop, op->out.socket);
		free(listener);
		return;
	}
	if (result < 0) {
		if (!listener->is_complaining)
			log_warning("listener %s: accept: %s: trying again",
				    net_listener_address(listener), err_text(result));
		listener->is_complaining = true;
		loop_timer_start(net->loop, &listener->retry, loop_now(net->loop) + RETRY_NS);
		return;
	}
	listener->is_complaining = false;
	take(listener, op->out.socket);
	accept_next(listener);
}

static void retry_fire(struct loop_timer *timer)
{
	accept_next(container_of_type(timer, struct net_listener, retry));
}

int net_listen(struct net *net, const char *address, const struct net_listener_options *options,
	       struct net_listener **out, struct error *err)
{
	struct net_listener *listener = calloc(1, sizeof(*listener));
	int rc;

	if (!listener)
		return error_set(err, -ENOMEM, "listener %s", address);
	rc = loop_listen(net->loop, address, &listener->socket, err);
	if (rc < 0) {
		free(listener);
		return rc;
	}
	listener->net = net;
	listener->options = *options;
	listener->accept_op.done = accept_done;
	listener->retry.fire = retry_fire;
	cds_list_add_tail(&listener->link, &net->listeners);
	accept_next(listener);
	*out = listener;
	return 0;
}

const char *net_listener_address(const struct net_listener *listener)
{
	return loop_listener_address(listener->socket);
}

void net_listener_close(struct net_listener *listener)
{
	if (!listener)
		return;
	cds_list_del(&listener->link);
	loop_timer_stop(listener->net->loop, &listener->retry);
	listener->is_closed = true;
	loop_listener_close(listener->net->loop, listener->socket);
	if (!loop_op_is_busy(&listener->accept_op))
		free(listener);
}

void net_listeners_resume(struct net *net)
{
	struct net_listener *listener;

	cds_list_for_each_entry(listener, &net->listeners, link) {
		if (listener->is_full)
			accept_next(listener);
	}
}

void net_listeners_stop_all(struct net *net)
{
	struct net_listener *listener, *next;

	cds_list_for_each_entry_safe(listener, next, &net->listeners, link) {
		net_listener_close(listener);
	}
}
