/*
 * A request and its parts: cut, sent, joined.
 *
 * Parts are made as pieces are free and the request's window allows, in ascending order; the
 * request is done when all are. The first error stops further parts, and is the request's.
 */
#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "sheep/gateway/gateway_priv.h"

/*
 * What holes read as. Never written, and not const only so that it takes no room in the program
 * (.bss); a run of it has no buffer and lives for ever.
 */
static uint8_t zeroes[OBJECT_SIZE];

static const enum pg_io_kind pg_kinds[] = {
	[GATEWAY_READ] = PG_IO_READ,
	[GATEWAY_WRITE] = PG_IO_WRITE,
	[GATEWAY_ZERO] = PG_IO_ZERO,
	[GATEWAY_TRIM] = PG_IO_TRIM,
};

void io_done(struct gateway_io *io, int result)
{
	struct gateway_counters *counters = &io->volume->gateway->counters;

	if (result < 0) {
		counters->errors++;
		for (uint32_t i = 0; i < io->data_count; i++)
			buffer_put(io->data[i].buffer);
		io->data_count = 0;
	}
	io->done(io, result);
}

static void on_done_op(struct loop_op *op, int result)
{
	io_done(container_of_type(op, struct gateway_io, done_op), result);
}

static void io_done_later(struct gateway_io *io, int result)
{
	io->done_op = (struct loop_op){.done = on_done_op};
	loop_complete(io->volume->gateway->loop, &io->done_op, result);
}

static void piece_start(struct piece *piece, struct gateway_io *io, struct gateway_part part)
{
	struct gateway_volume *volume = io->volume;
	struct gateway *gateway = volume->gateway;
	struct pg_io *pg_io = &piece->io;

	piece->gateway = gateway;
	piece->parent = io;
	piece->volume = volume;
	piece->chain = chain_get(volume->chain);
	piece->place = io->parts;
	pg_io->kind = pg_kinds[io->kind];
	pg_io->pg = cluster_pg_of(cluster_policy(gateway->map, volume->policy), volume->family,
				  part.index);
	pg_io->volume = volume->id;
	pg_io->generation = volume->generation;
	pg_io->family = volume->family;
	pg_io->layers = piece->chain->layers;
	pg_io->layer_count = piece->chain->count;
	pg_io->index = part.index;
	pg_io->offset = part.offset;
	pg_io->length = part.length;
	if (io->kind != GATEWAY_READ && ((io->flags & GATEWAY_FUA) || volume->is_durable))
		pg_io->flags |= PG_IO_FUA;
	if (io->kind == GATEWAY_WRITE) {
		piece->payload = io->payload;
		piece->payload.data += io->next - io->offset;
		piece->payload.size = part.length;
		pg_io->slices = &piece->payload;
		pg_io->slice_count = 1;
	}
	route_submit(piece);
}

/*
 * Send as many further parts as may be. None of them ends in here: what would refuse them at once
 * is looked at first, so @io is still there afterwards.
 */
void io_pump(struct gateway_io *io)
{
	struct gateway *gateway = io->volume->gateway;
	uint64_t end = io->offset + io->length;

	if (io->next < end && io->result == 0 && (io->volume->is_gone || gateway->is_stopping))
		io->result = -E_SHUTDOWN;
	while (io->next < end && io->result == 0 && io->flying < GATEWAY_IO_WINDOW) {
		struct piece *piece = pool_get(gateway->pieces);
		if (!piece) {
			cds_list_add_tail(&io->link, &gateway->starved);
			io->is_starved = true;
			return;
		}
		struct gateway_part part = gateway_split(io->next, end - io->next);
		io->flying++;
		piece_start(piece, io, part);
		io->next += part.length;
		io->parts++;
	}
}

static void piece_take_data(struct piece *piece)
{
	struct gateway_io *io = piece->parent;
	struct slice *slice = &io->data[piece->place];

	assert(piece->place < GATEWAY_PARTS_MAX);
	if (piece->io.is_hole)
		*slice = (struct slice){.data = zeroes, .size = piece->io.length};
	else
		*slice = piece->io.data;
	io->data_count = max_of(io->data_count, piece->place + 1);
}

/* Go on with what is left, or end. */
static void io_advance(struct gateway_io *io)
{
	if (io->result < 0 && io->is_starved) {
		cds_list_del(&io->link);
		io->is_starved = false;
	}
	if (!io->is_starved)
		io_pump(io);
	if (!io->is_starved && io->flying == 0)
		io_done(io, io->result);
}

/* Pieces have become free: the requests that wait longest get them. One may want none any more. */
static void feed_starved(struct gateway *gateway)
{
	while (!cds_list_empty(&gateway->starved) &&
	       pool_busy(gateway->pieces) < pool_count(gateway->pieces)) {
		struct gateway_io *io =
			cds_list_first_entry(&gateway->starved, struct gateway_io, link);
		cds_list_del(&io->link);
		io->is_starved = false;
		io_advance(io);
	}
}

void piece_done(struct piece *piece, int result)
{
	struct gateway *gateway = piece->gateway;
	struct gateway_io *io = piece->parent;

	if (result == 0 && io->kind == GATEWAY_READ)
		piece_take_data(piece);
	else if (result == 0)
		flush_note_write(piece->volume, piece->io.pg, piece->io.loss_epoch);
	chain_put(piece->chain);
	pool_put(gateway->pieces, piece);
	io->flying--;
	if (result < 0 && io->result == 0)
		io->result = result;
	io_advance(io);
	feed_starved(gateway);
}

static void count(struct gateway_counters *counters, const struct gateway_io *io)
{
	uint64_t *const by_kind[] = {
		[GATEWAY_READ] = &counters->reads,    [GATEWAY_WRITE] = &counters->writes,
		[GATEWAY_ZERO] = &counters->zeroes,   [GATEWAY_TRIM] = &counters->trims,
		[GATEWAY_FLUSH] = &counters->flushes,
	};

	++*by_kind[io->kind];
	if (io->kind == GATEWAY_READ)
		counters->bytes_read += io->length;
	if (io->kind == GATEWAY_WRITE)
		counters->bytes_written += io->length;
}

void gateway_submit(struct gateway_io *io)
{
	struct gateway_volume *volume = io->volume;

	count(&volume->gateway->counters, io);
	io->next = io->offset;
	io->flying = io->parts = 0;
	io->is_starved = false;
	io->result = 0;
	io->data_count = 0;
	if (volume->is_gone || volume->gateway->is_stopping) {
		io_done_later(io, -E_SHUTDOWN);
	} else if (io->kind == GATEWAY_FLUSH) {
		flush_submit(io);
	} else {
		assert(io->length > 0);
		assert(io->kind != GATEWAY_READ || io->length <= GATEWAY_READ_MAX);
		assert(io->kind != GATEWAY_WRITE || io->payload.size == io->length);
		if (!range_is_within(io->offset, io->length, volume->size_bytes))
			io_done_later(io, -EINVAL); /* it has been made smaller meanwhile */
		else
			io_pump(io);
	}
}
