#include "tests/sim/herd_owner.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/size.h"

static void on_lost(void *context)
{
	struct connection *connection = context;

	connection->lost++;
}

static void on_opened(struct gateway_open *open, int result)
{
	struct connection *connection = container_of_type(open, struct connection, open);

	assert_int_equal(result, 0);
	connection->volume = open->volume;
	connection->is_answered = true;
	gateway_watch(open->volume, on_lost, connection);
}

void connection_begin_open(struct herd *herd, unsigned node, struct connection *connection)
{
	memset(connection, 0, sizeof(*connection));
	connection->node = &herd->nodes[node];
	connection->open.done = on_opened;
	gateway_open(connection->node->gateway, &connection->open, HERD_VOLUME, 0);
}

static bool is_open(void *connection)
{
	return ((struct connection *)connection)->is_answered;
}

struct connection *connection_open(struct herd *herd, unsigned node)
{
	struct connection *connection = calloc(1, sizeof(*connection));

	connection_begin_open(herd, node, connection);
	herd_until_so(herd, 5000, is_open, connection, "open");
	herd_bury(connection);
	return connection;
}

static void on_done(struct gateway_io *io, int result)
{
	struct op *op = container_of_type(io, struct op, io);

	if (result == 0 && io->kind == GATEWAY_READ) {
		op->value = io->data[0].data[0];
		assert_int_equal(io->data[0].data[io->data[0].size - 1], op->value);
		buffer_put(io->data[0].buffer);
	}
	buffer_put(op->buffer);
	op->buffer = NULL;
	op->result = result;
	op->is_done = true;
	if (op->then)
		op->then(op);
}

static void deliver(struct loop *loop, struct loop_mail *mail)
{
	struct op *op = container_of_type(mail, struct op, mail);

	gateway_submit(&op->io);
}

struct op *op_begin_block(struct connection *connection, enum gateway_io_kind kind, uint32_t object,
			  uint32_t block, uint8_t value)
{
	struct op *op = calloc(1, sizeof(*op));

	op->connection = connection;
	op->value = value;
	op->io.done = on_done;
	op->io.volume = connection->volume;
	op->io.kind = kind;
	op->io.offset = (uint64_t)object * OBJECT_SIZE + (uint64_t)block * BLOCK_SIZE;
	op->io.length = BLOCK_SIZE;
	if (kind == GATEWAY_WRITE) {
		op->buffer = buffer_new(loop_buffers(connection->node->loop), BLOCK_SIZE);
		memset(op->buffer->data, value, BLOCK_SIZE);
		op->io.payload = slice_of(op->buffer, 0, BLOCK_SIZE);
	}
	op->mail.deliver = deliver;
	loop_post(connection->node->loop, &op->mail);
	return op;
}

struct op *op_begin(struct connection *connection, enum gateway_io_kind kind, uint32_t object,
		    uint8_t value)
{
	struct op *op = op_begin_block(connection, kind, object, 0, value);

	herd_bury(op);
	return op;
}

static bool is_done(void *op)
{
	return ((struct op *)op)->is_done;
}

int op_await(struct herd *herd, struct op *op, uint64_t ms)
{
	herd_until_so(herd, ms, is_done, op, "done");
	return op->result;
}

int connection_write(struct herd *herd, struct connection *connection, uint32_t object,
		     uint8_t value)
{
	return op_await(herd, op_begin(connection, GATEWAY_WRITE, object, value), 10000);
}

uint8_t connection_read(struct herd *herd, struct connection *connection, uint32_t object)
{
	struct op *op = op_begin(connection, GATEWAY_READ, object, 0);

	assert_int_equal(op_await(herd, op, 10000), 0);
	return op->value;
}
