/*
 * An NBD server of one disk in memory: lib/nbd and lib/net/nbd_link.h on lib/loop, and nothing else.
 *
 *   nbd_memory [-r] ADDRESS SIZE
 *
 * Prints "listening on ADDRESS" (with the real port) and serves the export "memory", also as "",
 * until SIGTERM or SIGINT. -r: read-only. Reads are sent from the disk's own memory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/size.h"
#include "lib/base/text.h"
#include "tests/functional/nbd_serve.h"

#define FLAGS                                                                                 \
	(NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_CACHE | \
	 NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO | NBD_FLAG_CAN_MULTI_CONN)

struct memory {
	struct loop *loop;
	struct nbd_server *server;
	struct nbd_export export;
	uint8_t *disk;
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

static int run(struct memory *memory, const char *address, struct error *err)
{
	struct loop_options options = {.name = "nbd_memory"};
	struct nbd_callbacks callbacks = {
		.handle_request = handle_request,
		.export = &memory->export,
	};
	struct nbd_serve serve = {0};
	int rc = loop_new(&options, &memory->loop, err);

	if (rc < 0)
		return rc;
	memory->server = nbd_server_new(&callbacks, NULL);
	if (!memory->server)
		return error_set(err, -ENOMEM, "server");
	serve.loop = memory->loop;
	serve.nbd = memory->server;
	rc = nbd_serve_start(&serve, address, err);
	if (rc < 0)
		return rc;
	rc = loop_run(memory->loop);
	nbd_serve_end(&serve);
	return rc;
}

int main(int argc, char **argv)
{
	struct memory memory = {0};
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
	return 0;
}
