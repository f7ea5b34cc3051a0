/*
 * An NBD server of one disk that fails on command.
 *
 *   nbd_faulty ADDRESS CONTROL SIZE [IMAGE]     serves; CONTROL is a unix socket's path
 *   nbd_faulty -c CONTROL WORD...               sends one command and prints the answer
 *
 * The disk (faulty_disk.h) is in memory and has a volatile cache. Prints "listening on ADDRESS" and
 * serves the export "" until SIGTERM. Commands are one line, and so are answers, "ok ..." or "error ...":
 * see the table. A power cut is
 *
 *   cut random 17 /tmp/after    what survives is in /tmp/after; from now on nothing is answered
 *   (SIGKILL whoever uses the disk)
 *   release error               what waits gets EIO, so that it can end; so does all that follows
 *
 * Requests pass in this order: hang, delay, failure, the disk. A request that waits is performed when it is
 * let go, not when it came: a hung disk has not written yet.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/base/size.h"
#include "lib/base/text.h"
#include "tests/functional/faulty_server.h"

#define FLAGS                                                           \
	(NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | \
	 NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_CAN_MULTI_CONN)
#define CACHE_MAX (64 * MIB)
/* Behind each request. */
struct waiting {
	struct cds_list_head node;
	struct nbd_request *request;
	uint64_t due_ns; /* UINT64_MAX: hangs */
};
/* ---- requests ---- */

static enum op op_of(const struct nbd_request *request)
{
	if (request->type == NBD_CMD_READ)
		return OP_READ;
	return request->type == NBD_CMD_FLUSH ? OP_FLUSH : OP_WRITE;
}

static int error_for(const struct server *server, const struct nbd_request *request)
{
	const struct failure *failure = &server->failures[op_of(request)];

	if (server->is_dead)
		return -EIO;
	if (!failure->error)
		return 0;
	/* A flush has no range: it fails whatever the range is. */
	if (request->type != NBD_CMD_FLUSH &&
	    !ranges_overlap(request->offset, request->length, failure->offset, failure->length))
		return 0;
	return failure->error;
}

static int change(struct server *server, struct nbd_request *request)
{
	enum faulty_durability durability =
		request->flags & NBD_CMD_FLAG_FUA ? FAULTY_DURABLE : FAULTY_CACHED;
	const void *data = request->type == NBD_CMD_WRITE ? request->payload.data : NULL;

	return faulty_disk_write(server->disk, request->offset, data, request->length,
				 server->is_lying ? FAULTY_CACHED : durability);
}

static void perform(struct server *server, struct nbd_request *request)
{
	int rc = error_for(server, request);

	if (rc < 0) {
		server->failed_count++;
		nbd_request_reply(request, rc, NULL, 0);
		return;
	}
	if (request->type == NBD_CMD_READ) {
		struct slice data = {
			.data = (uint8_t *)faulty_disk_at(server->disk, request->offset),
			.size = (uint32_t)request->length,
		};

		nbd_request_reply(request, 0, &data, 1);
		return;
	}
	if (request->type != NBD_CMD_FLUSH)
		rc = change(server, request);
	else if (!server->is_lying)
		faulty_disk_flush(server->disk);
	nbd_request_reply(request, rc, NULL, 0);
}

static void let_go(struct server *server, struct waiting *waiting)
{
	cds_list_del(&waiting->node);
	server->waiting_count--;
	perform(server, waiting->request);
}

/* Perform what is due, and wait for the next. Delays are few and alike: a list is enough. */
static void on_timer(struct loop_timer *timer)
{
	struct server *server = container_of_type(timer, struct server, timer);
	uint64_t now = loop_now(server->loop), next_due = UINT64_MAX;
	struct waiting *waiting, *next;

	cds_list_for_each_entry_safe(waiting, next, &server->waiting, node) {
		if (waiting->due_ns <= now)
			let_go(server, waiting);
		else
			next_due = min_of(next_due, waiting->due_ns);
	}
	if (next_due != UINT64_MAX)
		loop_timer_start(server->loop, &server->timer, next_due);
}

static void handle_request(struct nbd_request *request)
{
	struct server *server = nbd_device_handle(request->device);
	struct waiting *waiting = nbd_request_private(request);
	bool hangs = server->is_hanging[op_of(request)];

	if (!hangs && !server->delay_ns) {
		perform(server, request);
		return;
	}
	*waiting = (struct waiting){
		.request = request,
		.due_ns = hangs ? UINT64_MAX : loop_now(server->loop) + server->delay_ns,
	};
	cds_list_add_tail(&waiting->node, &server->waiting);
	server->waiting_count++;
	if (!hangs && !loop_timer_is_armed(&server->timer))
		loop_timer_start(server->loop, &server->timer, waiting->due_ns);
}

void faulty_release(struct server *server)
{
	struct waiting *waiting;

	memset(server->is_hanging, 0, sizeof(server->is_hanging));
	cds_list_for_each_entry(waiting, &server->waiting, node)
		waiting->due_ns = 0;
	loop_timer_start(server->loop, &server->timer, loop_now(server->loop));
}

void faulty_freeze(struct server *server)
{
	struct waiting *waiting;

	for (unsigned i = 0; i < OP_COUNT; i++)
		server->is_hanging[i] = true;
	cds_list_for_each_entry(waiting, &server->waiting, node)
		waiting->due_ns = UINT64_MAX;
}
/* ---- the control socket ---- */

static void end_conversation(struct server *server)
{
	if (server->control_socket)
		loop_socket_close(server->loop, server->control_socket);
	server->control_socket = NULL;
	if (!server->serve.is_stopping)
		loop_accept(server->loop, &server->control_accept_op, server->control);
}

static void on_answered(struct loop_op *op, int result)
{
	end_conversation(container_of_type(op, struct server, control_op));
}

static void on_command(struct loop_op *op, int result)
{
	struct server *server = container_of_type(op, struct server, control_op);

	if (result <= 0 || server->command[result - 1] != '\n') {
		end_conversation(server);
		return;
	}
	server->command[result - 1] = 0;
	faulty_command(server);
	server->control_iov = (struct iovec){server->answer, strlen(server->answer)};
	op->done = on_answered;
	loop_send(server->loop, op, server->control_socket, &server->control_iov, 1);
}

/* A command is one line in one send, from our own client. */
static void on_control(struct loop_op *op, int result)
{
	struct server *server = container_of_type(op, struct server, control_accept_op);

	if (result < 0)
		return;
	server->control_socket = op->out.socket;
	if (server->serve.is_stopping) {
		end_conversation(server);
		return;
	}
	server->control_op.done = on_command;
	server->control_iov = (struct iovec){server->command, sizeof(server->command)};
	loop_recv(server->loop, &server->control_op, server->control_socket, &server->control_iov,
		  1);
}

/* The other side of it: send the words, print the answer. */
static int ask(const char *path, char **words)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char line[COMMAND_MAX];
	struct text text = text_of(line, sizeof(line));
	ssize_t n;

	for (; *words; words++)
		text_append(&text, "%s%s", *words, words[1] ? " " : "\n");
	if (fd < 0 || text.is_cut ||
	    text_copy(address.sun_path, sizeof(address.sun_path), path) < 0 ||
	    connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    write(fd, line, text.used) != (ssize_t)text.used) {
		perror(path);
		return 2;
	}
	n = read(fd, line, sizeof(line) - 1);
	line[max_of(n, (ssize_t)0)] = 0;
	fputs(line, stdout);
	(void)close(fd);
	return strncmp(line, "ok", 2) == 0 ? 0 : 1;
}

/* ---- life ---- */

/* Whoever waits is answered, as a connection ends only with its last request. */
static void on_stopping(struct nbd_serve *serve)
{
	struct server *server = container_of_type(serve, struct server, serve);

	loop_listener_close(server->loop, server->control);
	if (server->control_socket)
		loop_socket_shutdown(server->loop, server->control_socket, true);
	server->is_dead = true;
	faulty_release(server);
}

static int start(struct server *server, const char *address, const char *control, struct error *err)
{
	const struct loop_options options = {.name = "nbd_faulty"};
	const struct nbd_limits limits = {.private_size = sizeof(struct waiting)};
	const struct nbd_callbacks callbacks = {
		.handle_request = handle_request,
		.export = &server->export,
	};
	char path[LOOP_ADDRESS_MAX];
	struct text text = text_of(path, sizeof(path));
	int rc = loop_new(&options, &server->loop, err);

	text_append(&text, "unix:%s", control);
	if (rc == 0)
		rc = loop_listen(server->loop, path, &server->control, err);
	if (rc < 0)
		return rc;
	server->nbd = nbd_server_new(&callbacks, &limits);
	if (!server->nbd)
		return error_set(err, -ENOMEM, "server");
	server->timer.fire = on_timer;
	server->control_accept_op.done = on_control;
	loop_accept(server->loop, &server->control_accept_op, server->control);
	server->serve.loop = server->loop;
	server->serve.nbd = server->nbd;
	server->serve.stopping = on_stopping;
	return nbd_serve_start(&server->serve, address, err);
}

static int run(struct server *server)
{
	int rc = loop_run(server->loop);

	/* What a close has cancelled completes in another turn. */
	nbd_serve_end(&server->serve);
	while (loop_op_is_busy(&server->control_accept_op) || loop_op_is_busy(&server->control_op))
		(void)loop_turn(server->loop, 0);
	if (server->control_socket)
		loop_socket_close(server->loop, server->control_socket);
	loop_timer_stop(server->loop, &server->timer);
	nbd_server_free(server->nbd);
	loop_free(server->loop);
	faulty_disk_free(server->disk);
	return rc;
}

int main(int argc, char **argv)
{
	struct server server = {0};
	struct error err = {0};
	uint64_t size = 0;

	if (argc > 3 && strcmp(argv[1], "-c") == 0)
		return ask(argv[2], argv + 3);
	if (argc < 4 || argc > 5 || text_parse_size(argv[3], &size) < 0 || !size || size % 4096) {
		fprintf(stderr, "usage: nbd_faulty ADDRESS CONTROL SIZE [IMAGE]\n"
				"       nbd_faulty -c CONTROL WORD...\n");
		return 2;
	}
	server.export = (struct nbd_export){
		.name = "disk",
		.description = "a disk that fails on command",
		.size = size,
		.flags = FLAGS,
		.handle = &server,
	};
	CDS_INIT_LIST_HEAD(&server.waiting);
	if (faulty_disk_new(size, CACHE_MAX, &server.disk) < 0) {
		fprintf(stderr, "nbd_faulty: no memory for the disk\n");
		return 1;
	}
	if ((argc == 5 && faulty_disk_load(server.disk, argv[4], &err) < 0) ||
	    start(&server, argv[1], argv[2], &err) < 0) {
		fprintf(stderr, "nbd_faulty: %s\n", err.text);
		return 1;
	}
	return run(&server) < 0 ? 1 : 0;
}
