/*
 * NBD on one side, the gateway on the other. Everything a request needs lies behind the
 * library's own request: nothing is allocated for it here.
 */
#include "sheep/service/exports.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "lib/net/nbd_link.h"

#define EXPORT_FLAGS                                                    \
	(NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | \
	 NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE)

struct exports {
	struct net *net;
	struct loop *loop;
	struct gateway *gateway;
	struct nbd_server *server;
	struct cds_list_head clients;
	struct cds_list_head opens; /* struct opening, those without a listener too */
	struct loop_op *stop_op;
	bool is_stopping;
	struct exports_counters counters;
};

/* One connection. */
struct client {
	struct exports *exports;
	struct nbd_link *link;
	struct cds_list_head in_exports;
};

/* An export being opened; it outlives a listener that vanishes. */
struct opening {
	struct gateway_open open;
	struct exports *exports;
	struct nbd_listener *listener; /* NULL: it has gone */
	struct cds_list_head link;
};

/* What a request has of ours. */
struct job {
	struct gateway_io io;
	struct nbd_request *request;
};

static void stop_if_done(struct exports *exports)
{
	if (!exports->stop_op || !cds_list_empty(&exports->clients) ||
	    !cds_list_empty(&exports->opens))
		return;
	loop_complete(exports->loop, exports->stop_op, 0);
	exports->stop_op = NULL;
}

/* ---- negotiation ---- */

static struct nbd_export export_of(const struct cluster_volume *volume)
{
	return (struct nbd_export){
		.size = volume->size_bytes,
		.flags = EXPORT_FLAGS,
		.block_minimum = 1,
		.block_preferred = BLOCK_SIZE,
		.block_maximum = GATEWAY_READ_MAX,
		.name = volume->name,
	};
}

/* The volume that an export name means: "" is the only one there is. */
static const struct cluster_volume *find_volume(struct exports *exports, const char *name)
{
	struct cluster_map *map = gateway_map(exports->gateway);

	if (name[0])
		return cluster_volume_by_name(map, name);
	return cluster_volume_count(map) == 1 ? cluster_volume_next(map, 0) : NULL;
}

/* Another gateway has taken over what this client wrote to. */
static void on_lost(void *context)
{
	struct client *client = context;

	nbd_link_shutdown(client->link);
}

static void on_opened(struct gateway_open *open, int result)
{
	struct opening *opening = container_of_type(open, struct opening, open);
	struct exports *exports = opening->exports;
	struct nbd_listener *listener = opening->listener;

	cds_list_del(&opening->link);
	if (result == 0 && !listener) {
		gateway_close(open->volume);
	} else if (result < 0 && listener) {
		nbd_listener_open_done(listener, result, NULL, NULL);
	} else if (listener) {
		const struct cluster_volume *volume =
			cluster_volume(gateway_map(exports->gateway), open->id);
		assert(volume); /* it cannot be deleted while we have it open */
		struct nbd_export export = export_of(volume);
		export.handle = open->volume;
		gateway_watch(open->volume, on_lost, nbd_listener_context(listener));
		nbd_listener_open_done(listener, 0, &export, NULL);
	}
	free(opening);
	stop_if_done(exports);
}

static void on_open(struct nbd_listener *listener, const char *name, enum nbd_open_purpose purpose)
{
	struct client *client = nbd_listener_context(listener);
	struct exports *exports = client->exports;
	const struct cluster_volume *volume = find_volume(exports, name);
	struct opening *opening;

	if (exports->is_stopping) {
		nbd_listener_open_done(listener, -E_SHUTDOWN, NULL, NULL);
		return;
	}
	if (!volume) {
		nbd_listener_open_done(listener, -E_NOT_FOUND, NULL,
				       name[0] ? "no such volume"
					       : "name a volume: there is not exactly one");
		return;
	}
	if (purpose == NBD_OPEN_INFO) {
		struct nbd_export export = export_of(volume);
		nbd_listener_open_done(listener, 0, &export, NULL);
		return;
	}
	opening = calloc(1, sizeof(*opening));
	if (!opening) {
		nbd_listener_open_done(listener, -ENOMEM, NULL, NULL);
		return;
	}
	opening->exports = exports;
	opening->listener = listener;
	opening->open.done = on_opened;
	cds_list_add_tail(&opening->link, &exports->opens);
	gateway_open(exports->gateway, &opening->open, volume->name, 0);
}

static void on_cancel(struct nbd_listener *listener)
{
	struct client *client = nbd_listener_context(listener);
	struct opening *opening;

	cds_list_for_each_entry(opening, &client->exports->opens, link)
		if (opening->listener == listener)
			opening->listener = NULL;
}

static void on_list(struct nbd_listener *listener, uint64_t *cursor)
{
	struct client *client = nbd_listener_context(listener);
	struct cluster_map *map = gateway_map(client->exports->gateway);
	const struct cluster_volume *volume;

	while ((volume = cluster_volume_next(map, *cursor))) {
		int rc = nbd_listener_list_add(listener, volume->name, NULL);
		if (rc == -EAGAIN)
			return;
		if (rc == -E2BIG)
			break;
		*cursor = volume->id;
	}
	nbd_listener_list_done(listener, 0, NULL);
}

static void on_close(void *context, void *handle)
{
	if (handle)
		gateway_close(handle);
}

/* ---- requests ---- */

static void on_io_done(struct gateway_io *io, int result)
{
	struct job *job = container_of_type(io, struct job, io);

	nbd_request_reply(job->request, result, io->data, io->data_count);
}

static void on_request(struct nbd_request *request)
{
	static const struct {
		bool is_known;
		enum gateway_io_kind kind;
	} kinds[] = {
		[NBD_CMD_READ] = {true, GATEWAY_READ},
		[NBD_CMD_WRITE] = {true, GATEWAY_WRITE},
		[NBD_CMD_FLUSH] = {true, GATEWAY_FLUSH},
		[NBD_CMD_TRIM] = {true, GATEWAY_TRIM},
		[NBD_CMD_WRITE_ZEROES] = {true, GATEWAY_ZERO},
	};
	struct job *job = nbd_request_private(request);
	bool is_known = request->type < ARRAY_COUNT(kinds) && kinds[request->type].is_known;

	/* CACHE is advice that costs nothing to ignore; a range of no bytes is done. */
	if (!is_known || (request->length == 0 && request->type != NBD_CMD_FLUSH)) {
		nbd_request_reply(request, request->type == NBD_CMD_CACHE || is_known ? 0 : -EINVAL,
				  NULL, 0);
		return;
	}
	job->request = request;
	job->io = (struct gateway_io){
		.done = on_io_done,
		.volume = nbd_device_handle(request->device),
		.kind = kinds[request->type].kind,
		.flags = request->flags & NBD_CMD_FLAG_FUA ? GATEWAY_FUA : 0,
		.offset = request->offset,
		.length = request->length,
		.payload = request->payload,
	};
	gateway_submit(&job->io);
}

/* ---- connections ---- */

static void on_link_closed(struct nbd_link *link, void *context, const char *why)
{
	struct client *client = context;
	struct exports *exports = client->exports;

	if (why[0])
		log_info("nbd: connection closed: %s", why);
	cds_list_del(&client->in_exports);
	exports->counters.open--;
	free(client);
	stop_if_done(exports);
}

void exports_serve(struct exports *exports, struct loop_socket *socket)
{
	struct client *client = calloc(1, sizeof(*client));
	const struct nbd_link_options options = {.context = client, .closed = on_link_closed};

	if (!client || exports->is_stopping) {
		loop_socket_close(exports->loop, socket);
		free(client);
		return;
	}
	client->exports = exports;
	int rc = nbd_link_start(exports->loop, socket, exports->server, &options, &client->link);
	if (rc < 0) {
		log_error("nbd: connection refused: %s", err_text(rc));
		free(client);
		return;
	}
	cds_list_add_tail(&client->in_exports, &exports->clients);
	exports->counters.connections++;
	exports->counters.open++;
}

/* ---- life ---- */

struct exports *exports_new(struct net *net, struct gateway *gateway)
{
	static const struct nbd_callbacks callbacks = {
		.handle_request = on_request,
		.open = on_open,
		.list = on_list,
		.cancel = on_cancel,
		.close = on_close,
	};
	static const struct nbd_limits limits = {
		.payload_max = GATEWAY_READ_MAX,
		.private_size = sizeof(struct job),
	};
	struct exports *exports = calloc(1, sizeof(*exports));

	if (!exports)
		return NULL;
	exports->net = net;
	exports->loop = net_loop(net);
	exports->gateway = gateway;
	CDS_INIT_LIST_HEAD(&exports->clients);
	CDS_INIT_LIST_HEAD(&exports->opens);
	exports->server = nbd_server_new(&callbacks, &limits);
	if (!exports->server) {
		free(exports);
		return NULL;
	}
	return exports;
}

void exports_free(struct exports *exports)
{
	if (!exports)
		return;
	assert(cds_list_empty(&exports->clients));
	nbd_server_free(exports->server);
	free(exports);
}

void exports_stop(struct exports *exports, struct loop_op *op)
{
	struct client *client, *next;

	exports->is_stopping = true;
	exports->stop_op = op;
	cds_list_for_each_entry_safe(client, next, &exports->clients, in_exports)
		nbd_link_shutdown(client->link);
	stop_if_done(exports);
}

void exports_close(struct exports *exports)
{
	struct client *client, *next;

	cds_list_for_each_entry_safe(client, next, &exports->clients, in_exports)
		nbd_link_close(client->link, "the sheep stops");
}

const struct exports_counters *exports_counters(const struct exports *exports)
{
	return &exports->counters;
}
