/*
 * An NBD server of one disk in memory: lib/nbd and lib/net/nbd_link.h on lib/loop, and nothing else.
 *
 *   nbd_memory [-r] ADDRESS SIZE
 *
 * Prints "listening on ADDRESS" (with the real port) and serves the export "memory", also as "",
 * until SIGTERM or SIGINT. -r: read-only. Reads are sent from the disk's own memory.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/poll.h>
#include <unistd.h>

#include "lib/base/size.h"
#include "lib/base/text.h"
#include "lib/net/net.h"

#define FLAGS                                                                                 \
	(NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_CACHE | \
	 NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO | NBD_FLAG_CAN_MULTI_CONN)

struct memory {
	struct loop *loop;
	struct loop_listener *listener;
	struct loop_op accept_op;
	struct loop_op signal_op;
	int signal_fd;
	struct nbd_server *server;
	struct nbd_export export;
	uint8_t *disk;
	struct cds_list_head connections;
	bool is_stopping;
};

struct connection {
	struct memory *memory;
	struct nbd_link *link;
	struct cds_list_head node;
};

/* ---- the disk ---- */

/* Whole pages are given back, which zeroes them. */
static void zero(struct memory *memory, uint64_t offset, uint64_t length)
{
	uint64_t first = round_up(offset, 4096), end = offset + length;
	uint64_t last = round_down(end, 4096);

	if (first >= last) {
		memset(memory->disk + offset, 0, length);
		return;
	}
	memset(memory->disk + offset, 0, first - offset);
	memset(memory->disk + last, 0, end - last);
	if (madvise(memory->disk + first, last - first, MADV_DONTNEED) < 0)
		memset(memory->disk + first, 0, last - first);
}

static void handle_request(struct nbd_request *request)
{
	struct memory *memory = nbd_device_handle(request->device);
	uint8_t *at = memory->disk + request->offset;

	if (request->type == NBD_CMD_READ) {
		struct slice data = {.data = at, .size = (uint32_t)request->length};
		nbd_request_reply(request, 0, &data, 1);
		return;
	}
	if (request->type == NBD_CMD_WRITE)
		memcpy(at, request->payload.data, request->payload.size);
	else if (request->type == NBD_CMD_WRITE_ZEROES || request->type == NBD_CMD_TRIM)
		zero(memory, request->offset, request->length);
	nbd_request_reply(request, 0, NULL, 0);
}

/* ---- connections ---- */

static void stop_if_idle(struct memory *memory)
{
	if (memory->is_stopping && cds_list_empty(&memory->connections))
		loop_stop(memory->loop);
}

static void on_closed(struct nbd_link *link, void *context, const char *why)
{
	struct connection *connection = context;

	if (*why)
		fprintf(stderr, "nbd %s: %s\n", nbd_link_peer(link), why);
	cds_list_del(&connection->node);
	stop_if_idle(connection->memory);
	free(connection);
}

static void serve(struct memory *memory, struct loop_socket *socket)
{
	struct connection *connection = calloc(1, sizeof(*connection));
	struct nbd_link_options options = {.context = connection, .closed = on_closed};

	if (!connection) {
		loop_socket_close(memory->loop, socket);
		return;
	}
	connection->memory = memory;
	if (nbd_link_start(memory->loop, socket, memory->server, &options, &connection->link) < 0) {
		free(connection);
		return;
	}
	cds_list_add(&connection->node, &memory->connections);
}

static void on_accepted(struct loop_op *op, int result)
{
	struct memory *memory = container_of_type(op, struct memory, accept_op);

	if (memory->is_stopping) {
		if (result == 0)
			loop_socket_close(memory->loop, op->out.socket);
		return;
	}
	if (result < 0)
		fprintf(stderr, "accept: %s\n", err_text(result));
	else
		serve(memory, op->out.socket);
	loop_accept(memory->loop, op, memory->listener);
}

static void on_signal(struct loop_op *op, int result)
{
	struct memory *memory = container_of_type(op, struct memory, signal_op);
	struct connection *connection, *next;

	memory->is_stopping = true;
	loop_listener_close(memory->loop, memory->listener);
	cds_list_for_each_entry_safe(connection, next, &memory->connections, node)
		nbd_link_close(connection->link, "stopped");
	stop_if_idle(memory);
}

/* ---- life ---- */

static void watch_signals(struct memory *memory)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	memory->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
	memory->signal_op.done = on_signal;
	loop_poll(memory->loop, &memory->signal_op, memory->signal_fd, POLLIN);
}

static int run(struct memory *memory, const char *address, struct error *err)
{
	struct loop_options options = {.name = "nbd_memory"};
	struct nbd_callbacks callbacks = {
		.handle_request = handle_request,
		.export = &memory->export,
	};
	int rc = loop_new(&options, &memory->loop, err);

	if (rc < 0)
		return rc;
	rc = loop_listen(memory->loop, address, &memory->listener, err);
	if (rc < 0)
		return rc;
	memory->server = nbd_server_new(&callbacks, NULL);
	if (!memory->server)
		return error_set(err, -ENOMEM, "server");
	watch_signals(memory);
	memory->accept_op.done = on_accepted;
	loop_accept(memory->loop, &memory->accept_op, memory->listener);
	printf("listening on %s\n", loop_listener_address(memory->listener));
	fflush(stdout);
	rc = loop_run(memory->loop);
	/* What a close has cancelled completes in another turn. */
	while (loop_op_is_busy(&memory->accept_op) || loop_op_is_busy(&memory->signal_op))
		(void)loop_turn(memory->loop, 0);
	return rc;
}

int main(int argc, char **argv)
{
	struct memory memory = {.signal_fd = -1};
	struct error err = {0};
	uint64_t size = 0;
	int option;

	memory.export = (struct nbd_export){
		.name = "memory",
		.description = "a disk in memory",
		.flags = FLAGS,
		.handle = &memory,
	};
	while ((option = getopt(argc, argv, "r")) != -1) {
		if (option != 'r')
			return 2;
		memory.export.flags |= NBD_FLAG_READ_ONLY;
	}
	if (argc - optind != 2 || text_parse_size(argv[optind + 1], &size) < 0 || size == 0) {
		fprintf(stderr, "usage: nbd_memory [-r] ADDRESS SIZE\n");
		return 2;
	}
	CDS_INIT_LIST_HEAD(&memory.connections);
	memory.export.size = size;
	memory.disk = mmap(NULL, size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory.disk == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	if (run(&memory, argv[optind], &err) < 0) {
		fprintf(stderr, "nbd_memory: %s\n", err.text);
		return 1;
	}
	nbd_server_free(memory.server);
	loop_free(memory.loop);
	(void)munmap(memory.disk, size);
	(void)close(memory.signal_fd);
	return 0;
}
