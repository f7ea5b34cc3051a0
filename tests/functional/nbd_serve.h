/* An NBD server of a test program on one loop: connections come and go until SIGTERM or SIGINT. */
#ifndef FUNCTIONAL_NBD_SERVE_H
#define FUNCTIONAL_NBD_SERVE_H

#include <stdbool.h>
#include <urcu/list.h>

#include "lib/net/net.h"

struct nbd_serve {
	struct loop *loop;	/* borrowed */
	struct nbd_server *nbd; /* borrowed */
	/* A signal came, and connections are closed next; NULL: nothing to do. */
	void (*stopping)(struct nbd_serve *serve);
	struct loop_listener *listener;
	struct loop_op accept_op;
	struct loop_op signal_op;
	int signal_fd;
	struct cds_list_head connections;
	bool is_stopping;
};

/* @serve has its first three filled. Prints "listening on ADDRESS", with the real port. */
int nbd_serve_start(struct nbd_serve *serve, const char *address, struct error *err);
/* After the loop was stopped: what a close has cancelled completes. */
void nbd_serve_end(struct nbd_serve *serve);

#endif
