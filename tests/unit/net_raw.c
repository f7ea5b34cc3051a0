/* A peer made by hand, for what an honest one would not send. */
#include "tests/unit/net_suite.h"
#include "tests/unit/wire_frames.h"

static void received(struct loop_op *op, int result)
{
	struct raw *raw = container_of_type(op, struct raw, recv.op);

	if (result <= 0) {
		raw->is_ended = true;
		return;
	}
	raw->size += (size_t)result;
	if (raw->size == raw->room) { /* only the amount counts then */
		raw->size -= 4096;
	}
	raw->iov = (struct iovec){raw->data + raw->size, raw->room - raw->size};
	loop_recv(raw->loop, op, raw->socket, &raw->iov, 1);
}

static struct raw *raw_new(struct bed *bed, struct loop *loop, struct loop_socket *socket)
{
	struct raw *raw = calloc(1, sizeof(*raw));

	raw->bed = bed;
	raw->loop = loop;
	raw->socket = socket;
	raw->room = 1 << 20;
	raw->data = malloc(raw->room);
	return raw;
}

void raw_read(struct raw *raw)
{
	raw->is_reading = true;
	raw->recv.op.done = received;
	raw->iov = (struct iovec){raw->data, raw->room};
	loop_recv(raw->loop, &raw->recv.op, raw->socket, &raw->iov, 1);
}

struct raw *raw_dial(struct bed *bed, const char *address)
{
	struct call call = {0};

	loop_connect(bed->loop, call_begin(&call), address);
	BED_UNTIL(bed, call.completions);
	assert_int_equal(call.result, 0);
	struct raw *raw = raw_new(bed, bed->loop, call.op.out.socket);
	raw_read(raw);
	return raw;
}

struct raw *raw_accept(struct bed *bed, struct loop_listener *listener)
{
	struct call call = {0};

	loop_accept(bed->other, call_begin(&call), listener);
	BED_UNTIL(bed, call.completions);
	assert_int_equal(call.result, 0);
	return raw_new(bed, bed->other, call.op.out.socket);
}

void raw_free(struct raw *raw)
{
	loop_socket_close(raw->loop, raw->socket);
	BED_UNTIL(raw->bed, !loop_op_is_busy(&raw->recv.op) && !loop_op_is_busy(&raw->send.op));
	free(raw->data);
	free(raw);
}

bool raw_send(struct raw *raw, const void *data, size_t size)
{
	raw->send_iov = (struct iovec){(void *)(uintptr_t)data, size};
	loop_send(raw->loop, call_begin(&raw->send), raw->socket, &raw->send_iov, 1);
	BED_UNTIL(raw->bed, raw->send.completions || raw->is_ended);
	return raw->send.completions && raw->send.result >= 0;
}

bool raw_frame(struct raw *raw, uint16_t op, uint16_t flags, uint64_t request, uint32_t body_size,
	       uint32_t payload_size, uint32_t reply_max)
{
	struct test_frame frame = {.op = op,
				   .flags = flags,
				   .request = request,
				   .reply_max = reply_max,
				   .body_size = body_size,
				   .payload_size = payload_size};
	uint8_t *bytes = malloc(FRAME_HEADER_SIZE + body_size + payload_size);
	size_t size = test_encode(bytes, &frame, 0);
	bool is_sent = raw_send(raw, bytes, size);

	BED_UNTIL(raw->bed, !loop_op_is_busy(&raw->send.op) || raw->is_ended);
	if (!loop_op_is_busy(&raw->send.op))
		free(bytes);
	return is_sent;
}

void raw_hello(struct raw *raw, const struct wire_identity *self, uint64_t link)
{
	uint8_t bytes[FRAME_HEADER_SIZE + sizeof(struct frame_hello) + 8] = {0};
	struct frame_hello *hello = (void *)(bytes + FRAME_HEADER_SIZE);
	struct frame_header header = {
		.magic = to_le32(FRAME_MAGIC_PEER),
		.request = to_le64(1),
		.body_size = to_le32(sizeof(*hello)),
	};

	wire_hello_make(hello, &test_protocol, self, 1, 0, link);
	header.body_crc = to_le32(crc32c(hello, sizeof(*hello)));
	header.header_crc = to_le32(crc32c(&header, offsetof(struct frame_header, header_crc)));
	memcpy(bytes, &header, sizeof(header));
	assert_true(raw->prefix_size <= 8);
	assert_true(raw_send(raw, bytes, sizeof(bytes) - 8 + raw->prefix_size));
}

void raw_expect(struct raw *raw, size_t size)
{
	BED_UNTIL(raw->bed, raw->size >= size || raw->is_ended);
	assert_true(raw->size >= size);
}
