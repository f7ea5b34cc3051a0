/* What the parts of nbd_faulty share: the server, its faults, and the commands that set them. */
#ifndef FUNCTIONAL_FAULTY_SERVER_H
#define FUNCTIONAL_FAULTY_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <urcu/list.h>

#include "tests/functional/faulty_disk.h"
#include "tests/functional/nbd_serve.h"

#define COMMAND_MAX 1024u

enum op { OP_READ, OP_WRITE, OP_FLUSH, OP_COUNT };

/* Requests of one kind that touch a range get an error. */
struct failure {
	int error; /* 0: none */
	uint64_t offset;
	uint64_t length;
};

struct server {
	struct loop *loop;
	struct faulty_disk *disk;
	struct nbd_server *nbd;
	struct nbd_export export;
	struct nbd_serve serve;

	/* faults */
	bool is_hanging[OP_COUNT];
	uint64_t delay_ns;
	struct failure failures[OP_COUNT];
	bool is_dead;  /* all gets EIO */
	bool is_lying; /* a flush does nothing */
	struct cds_list_head waiting;
	struct loop_timer timer;
	uint64_t waiting_count;
	uint64_t failed_count;

	/* the control socket: one conversation at a time */
	struct loop_listener *control;
	struct loop_op control_accept_op;
	struct loop_op control_op;
	struct loop_socket *control_socket;
	struct iovec control_iov;
	char command[COMMAND_MAX];
	char answer[COMMAND_MAX];
};
/* Nothing hangs any more; what did is performed in this turn. */
void faulty_release(struct server *server);
/* Nothing is answered any more, not even what was only delayed. */
void faulty_freeze(struct server *server);

/* Run the line in server->command (changed); its answer, a line, is in server->answer. */
void faulty_command(struct server *server);

#endif
