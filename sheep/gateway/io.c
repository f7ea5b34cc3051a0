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

	cds_list_del(&io->in_gateway);
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
	struct gateway_io *io = container_of_type(op, struct gateway_io, done_op);

	if (io->stage == IO_ENDING)
		io_done(io, io->result);
	else if (io->ending)
		io_done(io, io->ending);
	else
		flush_start_one(io);
}

static void io_done_later(struct gateway_io *io, int result)
{
	io->stage = IO_ENDING;
	io->result = result;
	loop_complete(io->volume->gateway->loop, &io->done_op, 0);
}

static void piece_start(struct piece *piece, struct gateway_io *io, struct gateway_part part)
{
	struct volume *volume = io->volume->shared;
	struct gateway *gateway = volume->gateway;
	struct pg_io *pg_io = &piece->io;

	piece->gateway = gateway;
	piece->parent = io;
	piece->volume = volume;
	piece->chain = chain_get(volume->chain);
	piece->place = io->parts;
	cds_list_add_tail(&piece->in_io, &io->pieces);
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

/* None of them ends in here: what would refuse them at once has been looked at. */
void io_pump(struct gateway_io *io)
{
	struct gateway *gateway = io->volume->gateway;
	uint64_t end = io->offset + io->length;

	if (io->next < end && io->result == 0)
		io->result = io->ending;
	while (io->next < end && io->result == 0 && io->flying < GATEWAY_IO_WINDOW) {
		struct piece *piece = pool_get(gateway->pieces);
		if (!piece) {
			cds_list_add_tail(&io->link, &gateway->starved);
			io->stage = IO_STARVED;
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
	if (io->result < 0 && io->stage == IO_STARVED) {
		cds_list_del(&io->link);
		io->stage = IO_RUNNING;
	}
	if (io->stage != IO_STARVED)
		io_pump(io);
	if (io->stage != IO_STARVED && io->flying == 0)
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
		io->stage = IO_RUNNING;
		io_advance(io);
	}
}

void piece_done(struct piece *piece, int result)
{
	struct gateway *gateway = piece->gateway;
	struct gateway_io *io = piece->parent;

	if (result == 0 && io->kind == GATEWAY_READ)
		piece_take_data(piece);
	else if (result == 0 && !(piece->io.flags & PG_IO_FUA))
		flush_note_write(piece->volume, piece->io.pg, piece->io.loss_epoch);
	chain_put(piece->chain);
	cds_list_del(&piece->in_io);
	pool_put(gateway->pieces, piece);
	io->flying--;
	if (result < 0 && io->result == 0)
		io->result = result;
	io_advance(io);
	feed_starved(gateway);
}

/* ---- ending early ---- */

static void abort_running(struct gateway_io *io)
{
	struct piece *piece, *next;

	if (io->stage == IO_STARVED)
		cds_list_del(&io->link);
	io->stage = IO_RUNNING;
	io->flying++; /* it does not end before we are through */
	cds_list_for_each_entry_safe(piece, next, &io->pieces, in_io)
		route_abort(piece, io->ending);
	io->flying--;
	io_advance(io);
}

void io_abort(struct gateway_io *io, int result)
{
	if (io->ending)
		return;
	io->ending = result;
	switch ((enum io_stage)io->stage) {
	case IO_ENDING:
	case IO_FLUSH:
		break;
	case IO_WAITING:
		cds_list_del(&io->link);
		io_done(io, result);
		break;
	case IO_STARVED:
	case IO_RUNNING:
		abort_running(io);
		break;
	}
}

static void abort_list(struct cds_list_head *list, const struct volume *volume,
		       const struct gateway_volume *connection, int result)
{
	CDS_LIST_HEAD(ios);

	/* One by one off the list: the end of one may end others, and begin new ones. */
	cds_list_splice(list, &ios);
	CDS_INIT_LIST_HEAD(list);
	while (!cds_list_empty(&ios)) {
		struct gateway_io *io = cds_list_first_entry(&ios, struct gateway_io, in_gateway);
		cds_list_del(&io->in_gateway);
		cds_list_add_tail(&io->in_gateway, list);
		if ((!volume || io->volume->shared == volume) &&
		    (!connection || io->volume == connection))
			io_abort(io, result);
	}
}

void io_abort_all(struct gateway *gateway, const struct volume *volume,
		  const struct gateway_volume *connection, int result)
{
	abort_list(&gateway->ios, volume, connection, result);
	abort_list(&gateway->timed_ios, volume, connection, result);
}

void io_expire(struct gateway *gateway, uint64_t now)
{
	while (!cds_list_empty(&gateway->timed_ios)) {
		struct gateway_io *io =
			cds_list_first_entry(&gateway->timed_ios, struct gateway_io, in_gateway);
		if (io->deadline_ns > now) {
			gateway_wake_at(gateway, io->deadline_ns);
			return;
		}
		cds_list_del(&io->in_gateway);
		cds_list_add_tail(&io->in_gateway, &gateway->ios);
		gateway->counters.timeouts++;
		io_abort(io, -ETIMEDOUT);
	}
}

/* ---- beginning ---- */

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

static void note_begin(struct gateway *gateway, struct gateway_io *io)
{
	uint64_t timeout_ns = cluster_setting_ns(gateway->map, CLUSTER_SETTING_REQUEST_TIMEOUT);

	count(&gateway->counters, io);
	io->next = io->offset;
	io->flying = io->parts = 0;
	io->stage = IO_RUNNING;
	io->result = io->ending = 0;
	io->data_count = 0;
	io->done_op = (struct loop_op){.done = on_done_op};
	CDS_INIT_LIST_HEAD(&io->pieces);
	io->deadline_ns = timeout_ns ? loop_now(gateway->loop) + timeout_ns : 0;
	cds_list_add_tail(&io->in_gateway, timeout_ns ? &gateway->timed_ios : &gateway->ios);
	if (timeout_ns)
		gateway_wake_at(gateway, io->deadline_ns);
}

void gateway_submit(struct gateway_io *io)
{
	struct volume *volume = io->volume->shared;
	struct gateway *gateway = volume->gateway;

	note_begin(gateway, io);
	if (volume->is_gone || gateway->is_stopping) {
		io_done_later(io, -E_SHUTDOWN);
		return;
	}
	if (io->kind == GATEWAY_FLUSH) {
		/* By way of the loop: it may end at once, and all of this turn share one. */
		io->stage = IO_FLUSH;
		loop_complete(gateway->loop, &io->done_op, 0);
		return;
	}
	assert(io->length > 0);
	assert(io->kind != GATEWAY_READ || io->length <= GATEWAY_READ_MAX);
	assert(io->kind != GATEWAY_WRITE || io->payload.size == io->length);
	if (!range_is_within(io->offset, io->length, volume->size_bytes)) {
		io_done_later(io, -EINVAL); /* it has been made smaller meanwhile */
		return;
	}
	int rc = io->kind == GATEWAY_READ ? 1 : owner_admit(io);
	if (rc < 0)
		io_done_later(io, rc);
	else if (rc > 0)
		io_pump(io);
}
