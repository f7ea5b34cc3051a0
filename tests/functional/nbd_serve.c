#include "tests/functional/nbd_serve.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "lib/base/size.h"

struct connection {
	struct nbd_serve *serve;
	struct nbd_link *link;
	struct cds_list_head node;
};

static void stop_if_idle(struct nbd_serve *serve)
{
	if (serve->is_stopping && cds_list_empty(&serve->connections))
		loop_stop(serve->loop);
}

static void on_closed(struct nbd_link *link, void *context, const char *why)
{
	struct connection *connection = context;

	if (*why)
		fprintf(stderr, "nbd %s: %s\n", nbd_link_peer(link), why);
	cds_list_del(&connection->node);
	stop_if_idle(connection->serve);
	free(connection);
}

static void begin(struct nbd_serve *serve, struct loop_socket *socket)
{
	struct connection *connection = calloc(1, sizeof(*connection));
	struct nbd_link_options options = {.context = connection, .closed = on_closed};

	if (!connection) {
		loop_socket_close(serve->loop, socket);
		return;
	}
	connection->serve = serve;
	if (nbd_link_start(serve->loop, socket, serve->nbd, &options, &connection->link) < 0)
		free(connection);
	else
		cds_list_add(&connection->node, &serve->connections);
}

static void on_accepted(struct loop_op *op, int result)
{
	struct nbd_serve *serve = container_of_type(op, struct nbd_serve, accept_op);

	if (serve->is_stopping) {
		if (result == 0)
			loop_socket_close(serve->loop, op->out.socket);
		return;
	}
	if (result < 0)
		fprintf(stderr, "accept: %s\n", err_text(result));
	else
		begin(serve, op->out.socket);
	loop_accept(serve->loop, op, serve->listener);
}

static void on_signal(struct loop_op *op, int result)
{
	struct nbd_serve *serve = container_of_type(op, struct nbd_serve, signal_op);
	struct connection *connection, *next;

	serve->is_stopping = true;
	loop_listener_close(serve->loop, serve->listener);
	if (serve->stopping)
		serve->stopping(serve);
	cds_list_for_each_entry_safe(connection, next, &serve->connections, node)
		nbd_link_close(connection->link, "stopped");
	stop_if_idle(serve);
}

static void watch_signals(struct nbd_serve *serve)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	serve->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
	serve->signal_op.done = on_signal;
	loop_poll(serve->loop, &serve->signal_op, serve->signal_fd, POLLIN);
}

int nbd_serve_start(struct nbd_serve *serve, const char *address, struct error *err)
{
	int rc = loop_listen(serve->loop, address, &serve->listener, err);

	if (rc < 0)
		return rc;
	CDS_INIT_LIST_HEAD(&serve->connections);
	watch_signals(serve);
	serve->accept_op.done = on_accepted;
	loop_accept(serve->loop, &serve->accept_op, serve->listener);
	printf("listening on %s\n", loop_listener_address(serve->listener));
	fflush(stdout);
	return 0;
}

void nbd_serve_end(struct nbd_serve *serve)
{
	while (loop_op_is_busy(&serve->accept_op) || loop_op_is_busy(&serve->signal_op))
		(void)loop_turn(serve->loop, 0);
	(void)close(serve->signal_fd);
}
