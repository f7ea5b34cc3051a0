/*
 * Gateways of other nodes: READ, WRITE and SYNC become what the gateway of our own node asks for
 * by calls.
 */
#include <stdlib.h>

#include "lib/base/crc32c.h"
#include "sheep/pg/pg_priv.h"

struct remote {
	struct pg_io io;
	struct pg_set *set;
	struct net_request *request;
	struct slice data;
	uint64_t layers[STORE_LAYERS_MAX];
};

size_t pg_remote_size(void)
{
	return sizeof(struct remote);
}

/* The top layer from the body, the others from the payload. False: they do not fit. */
static bool take_layers(struct remote *remote, uint64_t top, uint32_t count, const uint8_t *below,
			uint32_t below_size)
{
	const le64 *ids = (const void *)below;

	if (count < 1 || count > STORE_LAYERS_MAX ||
	    below_size != (count - 1) * (uint32_t)sizeof(*ids))
		return false;
	remote->layers[0] = top;
	for (uint32_t i = 1; i < count; i++)
		remote->layers[i] = from_le64(ids[i - 1]);
	remote->io.layers = remote->layers;
	remote->io.layer_count = count;
	return true;
}

static struct remote *remote_new(struct net_request *request)
{
	struct pg_set *set = net_request_context(request);
	struct remote *remote = pool_get(set->remotes);

	if (!remote) {
		net_reply_status(request, -EAGAIN);
		return NULL;
	}
	remote->set = set;
	remote->request = request;
	return remote;
}

static void remote_free(struct remote *remote)
{
	struct pg_set *set = remote->set;

	pool_put(set->remotes, remote);
	if (set->stop_op)
		pg_set_kick(set);
}

static void refuse(struct remote *remote, int status)
{
	net_reply_status(remote->request, status);
	remote_free(remote);
}

static uint64_t epoch_of(const struct remote *remote)
{
	const struct pg_lead *lead = pg_lead_find(remote->set, remote->io.pg);

	return lead ? lead->pg->epoch : remote->io.epoch;
}

/* ---- READ ---- */

static void on_read_done(struct pg_io *io, int result)
{
	struct remote *remote = container_of_type(io, struct remote, io);
	struct peer_read_reply reply = {.epoch = to_le64(epoch_of(remote))};

	if (result < 0) {
		refuse(remote, result);
		return;
	}
	if (io->is_hole)
		reply.flags = to_le32(PEER_READ_HOLE);
	else
		reply.payload_crc = to_le32(crc32c(io->data.data, io->data.size));
	net_reply(remote->request, 0, &reply, sizeof(reply), &io->data, !io->is_hole);
	remote_free(remote);
}

void pg_on_read(struct net_request *request)
{
	const struct peer_read *body = request->body;
	struct remote *remote = remote_new(request);

	if (!remote)
		return;
	remote->io = (struct pg_io){
		.done = on_read_done,
		.kind = PG_IO_READ,
		.pg = from_le32(body->pg),
		.epoch = from_le64(body->epoch),
		.map_index = from_le64(body->map_index),
		.volume = from_le64(body->volume),
		.generation = from_le64(body->generation),
		.family = from_le64(body->family),
		.index = from_le32(body->index),
		.offset = from_le32(body->offset),
		.length = from_le32(body->length),
	};
	if (from_le32(body->flags) != 0 || request->reply_max < remote->io.length ||
	    !take_layers(remote, from_le64(body->layer), from_le32(body->layer_count),
			 request->payload.data, request->payload.size))
		refuse(remote, -EINVAL);
	else
		pg_submit(remote->set, &remote->io);
}

/* ---- WRITE ---- */

static void on_write_done(struct pg_io *io, int result)
{
	struct remote *remote = container_of_type(io, struct remote, io);
	const struct peer_write_reply reply = {
		.epoch = to_le64(epoch_of(remote)),
		.loss_epoch = to_le64(io->loss_epoch),
	};

	if (result < 0) {
		refuse(remote, result);
		return;
	}
	net_reply(remote->request, 0, &reply, sizeof(reply), NULL, 0);
	remote_free(remote);
}

static int take_write(struct remote *remote)
{
	static const enum pg_io_kind kinds[] = {
		[PEER_WRITE_DATA] = PG_IO_WRITE,
		[PEER_WRITE_ZERO] = PG_IO_ZERO,
		[PEER_WRITE_TRIM] = PG_IO_TRIM,
	};
	const struct net_request *request = remote->request;
	const struct peer_write *body = request->body;
	const struct slice *payload = &request->payload;
	uint32_t kind = from_le32(body->kind), flags = from_le32(body->flags);
	uint32_t size = kind == PEER_WRITE_DATA ? remote->io.length : 0;

	if (kind >= ARRAY_COUNT(kinds) || (flags & ~(uint32_t)PEER_IO_FUA) ||
	    payload->size < size ||
	    !take_layers(remote, from_le64(body->layer), from_le32(body->layer_count),
			 payload->data + size, payload->size - size))
		return -EINVAL;
	remote->io.kind = kinds[kind];
	remote->io.flags = flags & PEER_IO_FUA ? PG_IO_FUA : 0;
	if (size == 0)
		return 0;
	remote->data = *payload;
	remote->data.size = size;
	remote->io.slices = &remote->data;
	remote->io.slice_count = 1;
	return crc32c(payload->data, size) == from_le32(body->payload_crc) ? 0 : -E_CHECKSUM;
}

void pg_on_write(struct net_request *request)
{
	const struct peer_write *body = request->body;
	struct remote *remote = remote_new(request);
	int rc;

	if (!remote)
		return;
	remote->io = (struct pg_io){
		.done = on_write_done,
		.pg = from_le32(body->pg),
		.epoch = from_le64(body->epoch),
		.map_index = from_le64(body->map_index),
		.volume = from_le64(body->volume),
		.generation = from_le64(body->generation),
		.family = from_le64(body->family),
		.index = from_le32(body->index),
		.offset = from_le32(body->offset),
		.length = from_le32(body->length),
		.session = from_le64(body->session),
		.number = from_le64(body->number),
		.lowest = from_le64(body->lowest),
	};
	rc = take_write(remote);
	if (rc < 0)
		refuse(remote, rc);
	else
		pg_submit(remote->set, &remote->io);
}

/* ---- SYNC ---- */

struct remote_sync {
	struct pg_sync sync;
	struct net_request *request;
	struct pg_sync_row rows[];
};

static void on_sync_done(struct pg_sync *sync, int result)
{
	struct remote_sync *remote = container_of_type(sync, struct remote_sync, sync);

	net_reply_status(remote->request, result);
	free(remote);
}

void pg_on_sync(struct net_request *request)
{
	const struct peer_sync *body = request->body;
	struct pg_set *set = net_request_context(request);
	const struct peer_sync_row *rows = (const void *)request->payload.data;
	uint32_t count = from_le32(body->row_count);
	struct remote_sync *remote;

	if (request->payload.size != (uint64_t)count * sizeof(*rows)) {
		net_reply_status(request, -EINVAL);
		return;
	}
	remote = calloc(1, sizeof(*remote) + count * sizeof(remote->rows[0]));
	if (!remote) {
		net_reply_status(request, -ENOMEM);
		return;
	}
	for (uint32_t i = 0; i < count; i++)
		remote->rows[i] = (struct pg_sync_row){
			.epoch = from_le64(rows[i].epoch),
			.pg = from_le32(rows[i].pg),
			.store = from_le32(rows[i].store),
		};
	remote->request = request;
	remote->sync.done = on_sync_done;
	remote->sync.rows = remote->rows;
	remote->sync.row_count = count;
	pg_sync_submit(set, &remote->sync);
}
