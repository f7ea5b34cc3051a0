/*
 * Outside bytes into a listening sheep's sessions, on the simulated loop: HELLO, op rows, credits,
 * pings, replies, timeouts and ends.
 *
 * LLVMFuzzerTestOneInput() plays one input: 8 bytes of control (a good HELLO first or not, how the
 * stream is cut, whether the peer reads, whether handlers answer at once), then the stream, whose
 * magic and checksums may be made right. Whatever that is: nothing crashes, every session that began
 * ends, memory stays within the credit, and all of it comes back. With -fsanitize=fuzzer and
 * -DFUZZ_ENGINE it is a libFuzzer target; else main() plays generated streams from a seed:
 *
 *   fuzz_session [ROUNDS [SEED]]
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/crc32c.h"
#include "lib/base/random.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "lib/net/net.h"
#include "tests/sim/sim.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CONTROL	     8u
#define CREDIT_BYTES (256u << 10)

enum mode { /* bits of control[0] */
	    MODE_HELLO = 1u << 0,
	    MODE_SEAL = 1u << 1,
	    MODE_LATE = 1u << 2, /* handlers answer later */
	    MODE_DEAF = 1u << 3, /* the peer does not read */
};

enum { OP_ECHO = 1, OP_NOTE, OP_FILL, OP_BODY, OPS, HELD_MAX = 64 };

struct bench {
	struct sim_world *world;
	struct loop *server_loop, *peer_loop;
	struct net *net;
	struct net_listener *listener;
	struct net_request *held[HELD_MAX];
	unsigned held_count;
	bool is_late;
	unsigned opened, closed, handled;
};

static void answer(struct net_request *request)
{
	struct slice payload = request->payload;
	struct buffer *fill;

	switch (request->op) {
	case OP_NOTE:
		net_request_done(request);
		break;
	case OP_FILL:
		fill = buffer_new(loop_buffers(net_loop(net_session_net(request->session))),
				  max_of(request->reply_max, 1u));
		assert(fill);
		memset(fill->data, 1, fill->size);
		payload = slice_of(fill, 0, request->reply_max);
		net_reply(request, 0, NULL, 0, &payload, 1);
		break;
	default:
		request->payload.buffer = NULL;
		net_reply(request, 0, request->body, min_of(request->body_size, FRAME_BODY_MAX),
			  &payload, payload.size ? 1 : 0);
	}
}

static void on_request(struct net_request *request)
{
	struct bench *bench = net_request_context(request);
	const uint8_t *body = request->body;
	uint8_t sum = 0;

	/* All that the row promises may be read. */
	for (uint32_t i = 0; i < request->row->body_size; i++)
		sum ^= body[i];
	for (uint32_t i = request->body_size; i < request->row->body_size; i++)
		assert(body[i] == 0);
	request->user = (void *)(uintptr_t)sum;
	bench->handled++;
	if (bench->is_late && bench->held_count < HELD_MAX)
		bench->held[bench->held_count++] = request;
	else
		answer(request);
}

static const struct wire_op ops[OPS] = {
	[OP_ECHO] = {.name = "echo", .payload_max = 100000, .handle = on_request},
	[OP_NOTE] = {.name = "note",
		     .flags = WIRE_OP_ONEWAY,
		     .payload_max = 5000,
		     .handle = on_request},
	[OP_FILL] = {.name = "fill", .flags = WIRE_OP_OWN_CRC, .handle = on_request},
	[OP_BODY] = {.name = "body", .body_min = 8, .body_size = 400, .handle = on_request},
};

static const struct wire_protocol protocol = {
	.name = "fuzz",
	.magic = FRAME_MAGIC_PEER,
	.version_min = 1,
	.version_max = 1,
	.open_classes = 1,
	.classes = 2,
	.ops = ops,
	.op_count = OPS,
};

static int on_opened(struct net_session *session, struct error *err)
{
	struct bench *bench = net_session_context(session);

	bench->opened++;
	return 0;
}

static void on_closed(struct net_session *session, int error)
{
	struct bench *bench = net_session_context(session);

	bench->closed++;
}

static void mute(struct logger *logger, enum log_level level, const char *line)
{
}

static struct logger muted = {.level = LOG_LEVEL_DEBUG, .sink = mute};

static void bench_init(struct bench *bench)
{
	const struct wire_identity self = {.node = {{1}}, .loops = 1};
	const struct net_options options = {.credit_requests = 8, .credit_bytes = CREDIT_BYTES};
	const struct loop_options loop_options = {.name = "fuzz", .logger = &muted};
	struct error err = {0};

	*bench = (struct bench){.world = sim_world_new(1)};
	struct sim_host *host = sim_host_new(bench->world, "one");
	assert(sim_loop_new(bench->world, host, &loop_options, &bench->server_loop) == 0);
	assert(sim_loop_new(bench->world, host, &loop_options, &bench->peer_loop) == 0);
	assert(net_new(bench->server_loop, &options, &self, &bench->net, &err) == 0);
	assert(net_serve(bench->net, &(struct net_service){.protocol = &protocol,
							   .context = bench,
							   .opened = on_opened,
							   .closed = on_closed}) == 0);
	assert(net_listen(bench->net, "127.0.0.1:7000",
			  &(struct net_listener_options){.magic = FRAME_MAGIC_PEER},
			  &bench->listener, &err) == 0);
}

static void turn(struct bench *bench, uint64_t wait_ns)
{
	assert(loop_turn(bench->server_loop, 0) == 0);
	assert(loop_turn(bench->peer_loop, loop_now(bench->peer_loop) + wait_ns) == 0);
	/* 8 requests, 3 credits of replies, what is being received, and slack for size classes. */
	assert(buffer_cache_busy(loop_buffers(bench->server_loop)) < 200);
}

static void release(struct bench *bench)
{
	unsigned count = bench->held_count;

	bench->held_count = 0;
	for (unsigned i = 0; i < count; i++)
		answer(bench->held[i]);
}

/* ---- the peer ---- */

struct peer {
	struct loop_socket *socket;
	struct loop_op connect, recv, send;
	struct iovec recv_iov, send_iov;
	uint8_t junk[4096];
	bool is_up, is_ended;
};

static void connected(struct loop_op *op, int result)
{
	struct peer *peer = container_of_type(op, struct peer, connect);

	assert(result == 0);
	peer->socket = op->out.socket;
	peer->is_up = true;
}

static void received(struct loop_op *op, int result)
{
	struct peer *peer = container_of_type(op, struct peer, recv);

	peer->is_ended = result <= 0;
	if (!peer->is_ended)
		loop_recv(op->loop, op, peer->socket, &peer->recv_iov, 1);
}

static void sent(struct loop_op *op, int result)
{
	struct peer *peer = container_of_type(op, struct peer, send);

	peer->is_ended |= result < 0;
}

/* Push @size bytes out; gives up when the other side has ended it or does not take them. */
static void push(struct bench *bench, struct peer *peer, const uint8_t *data, size_t size)
{
	peer->send_iov = (struct iovec){(void *)(uintptr_t)data, size};
	loop_send(bench->peer_loop, &peer->send, peer->socket, &peer->send_iov, 1);
	for (unsigned i = 0; i < 40 && loop_op_is_busy(&peer->send); i++)
		turn(bench, NS_PER_MS);
	if (loop_op_is_busy(&peer->send))
		peer->is_ended = true;
}

static size_t make_hello(uint8_t *out)
{
	const struct wire_identity self = {.node = {{2}}, .node_id = 2, .incarnation = 3};
	struct frame_header header = {.magic = to_le32(FRAME_MAGIC_PEER),
				      .request = to_le64(1),
				      .body_size = to_le32(sizeof(struct frame_hello))};
	struct frame_hello hello;

	wire_hello_make(&hello, &protocol, &self, 0, 0, 1);
	header.body_crc = to_le32(crc32c(&hello, sizeof(hello)));
	header.header_crc = to_le32(crc32c(&header, offsetof(struct frame_header, header_crc)));
	memcpy(out, &header, sizeof(header));
	memcpy(out + sizeof(header), &hello, sizeof(hello));
	return sizeof(header) + sizeof(hello);
}

/* Walk over the bytes as frames and make right what only a checksum would catch. */
static void seal(uint8_t *data, size_t size)
{
	for (size_t at = 0; at + FRAME_HEADER_SIZE <= size;) {
		struct frame_header header;
		memcpy(&header, data + at, sizeof(header));
		uint8_t *bytes = data + at + FRAME_HEADER_SIZE;
		size_t left = size - at - FRAME_HEADER_SIZE;
		size_t body = from_le32(header.body_size), payload = from_le32(header.payload_size);
		bool has_crc = payload && !(from_le16(header.flags) & FRAME_OWN_CRC);
		bool has_all = body <= left && payload <= left - body;
		header.magic = to_le32(FRAME_MAGIC_PEER);
		header.body_crc = to_le32(has_all && body ? crc32c(bytes, body) : 0);
		header.payload_crc =
			to_le32(has_all && has_crc ? crc32c(bytes + body, payload) : 0);
		header.header_crc =
			to_le32(crc32c(&header, offsetof(struct frame_header, header_crc)));
		memcpy(data + at, &header, sizeof(header));
		if (!has_all)
			return;
		at += FRAME_HEADER_SIZE + body + payload;
	}
}

static void play(struct bench *bench, const uint8_t *control, const uint8_t *data, size_t size)
{
	struct peer peer = {.connect.done = connected, .recv.done = received, .send.done = sent};
	uint8_t hello[FRAME_HEADER_SIZE + sizeof(struct frame_hello)];
	unsigned step = 0;

	loop_connect(bench->peer_loop, &peer.connect, "127.0.0.1:7000");
	while (!peer.is_up)
		turn(bench, NS_PER_MS);
	peer.recv_iov = (struct iovec){peer.junk, sizeof(peer.junk)};
	if (!(control[0] & MODE_DEAF))
		loop_recv(bench->peer_loop, &peer.recv, peer.socket, &peer.recv_iov, 1);
	if (control[0] & MODE_HELLO) {
		push(bench, &peer, hello, make_hello(hello));
		for (unsigned i = 0; i < 100 && bench->opened == 0; i++)
			turn(bench, NS_PER_MS);
		assert(bench->opened == 1);
	}
	while (size && !peer.is_ended) {
		uint8_t cut = control[1 + step++ % 7];
		size_t n = min_of(size, 1 + (size_t)cut * cut);
		push(bench, &peer, data, n);
		data += n;
		size -= n;
		if (cut % 3 == 0)
			release(bench);
		if (cut == 255)
			turn(bench, 4 * NS_PER_S);
	}
	turn(bench, NS_PER_MS);
	loop_socket_close(bench->peer_loop, peer.socket);
	while (loop_op_is_busy(&peer.recv) || loop_op_is_busy(&peer.send))
		turn(bench, NS_PER_MS);
}

static uint64_t total_handled, total_opened;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bench bench;

	if (size < CONTROL)
		return 0;
	uint8_t *stream = malloc(size - CONTROL + 1);
	assert(stream);
	memcpy(stream, data + CONTROL, size - CONTROL);
	if (data[0] & MODE_SEAL)
		seal(stream, size - CONTROL);
	bench_init(&bench);
	bench.is_late = data[0] & MODE_LATE;
	play(&bench, data, stream, size - CONTROL);
	release(&bench);
	bench.is_late = false;
	net_stop(bench.net);
	for (unsigned i = 0; i < 1000 && !net_is_stopped(bench.net); i++)
		turn(&bench, NS_PER_MS);
	assert(net_is_stopped(bench.net));
	assert(bench.opened == bench.closed);
	total_handled += bench.handled;
	total_opened += bench.opened;
	net_free(bench.net);
	assert(buffer_cache_busy(loop_buffers(bench.server_loop)) == 0);
	loop_free(bench.server_loop);
	loop_free(bench.peer_loop);
	sim_world_free(bench.world);
	free(stream);
	return 0;
}

#ifndef FUZZ_ENGINE

/* One frame that is mostly right. */
static size_t add_frame(uint8_t *out, struct random *random)
{
	static const uint16_t numbers[] = {1, 1, 1, 2, 3, 3, 4, 4, 5, 77, FRAME_OP_PING, 0};
	uint16_t op = numbers[random_below(random, ARRAY_COUNT(numbers))];
	bool is_oneway = (op == OP_NOTE) != (random_below(random, 50) == 0);
	uint32_t body = (uint32_t)random_below(random, op == OP_BODY ? 600 : 40);
	uint32_t payload =
		op == OP_ECHO || op == OP_NOTE
			? (uint32_t)random_below(random, random_below(random, 6) ? 3000 : 110000)
			: 0;
	struct frame_header header = {
		.op = to_le16(op),
		.flags = to_le16(is_oneway			 ? FRAME_ONEWAY
				 : random_below(random, 60) == 0 ? FRAME_REPLY
								 : 0),
		.request = to_le64(is_oneway ? 0 : random_u64(random) | 1),
		.body_size = to_le32(body),
		.payload_size = to_le32(payload),
		.reply_max = to_le32(is_oneway ? 0 : (uint32_t)random_below(random, 120000)),
	};

	memset(out + sizeof(header), (int)random_below(random, 256), (size_t)body + payload);
	memcpy(out, &header, sizeof(header));
	return sizeof(header) + body + payload;
}

static size_t make_input(uint8_t *out, struct random *random)
{
	size_t size = CONTROL;

	for (unsigned i = 0; i < CONTROL; i++)
		out[i] = (uint8_t)random_u64(random);
	out[0] |= random_below(random, 10) ? MODE_HELLO : 0;
	out[0] |= random_below(random, 10) ? MODE_SEAL : 0;
	for (uint64_t i = 1 + random_below(random, 30); i-- > 0;)
		size += add_frame(out + size, random);
	for (uint64_t i = random_below(random, 2); i-- > 0;)
		out[CONTROL + random_below(random, size - CONTROL)] ^=
			(uint8_t)(1u << random_below(random, 8));
	if (random_below(random, 4) == 0)
		size -= random_below(random, size - CONTROL);
	return size;
}

int main(int argc, char **argv)
{
	uint64_t rounds = 400, seed = 1;
	struct random random;
	uint8_t *input = malloc(8 << 20);

	if ((argc > 1 && text_parse_u64(argv[1], UINT64_MAX, &rounds) < 0) ||
	    (argc > 2 && text_parse_u64(argv[2], UINT64_MAX, &seed) < 0) || !input) {
		(void)fprintf(stderr, "usage: fuzz_session [ROUNDS [SEED]]\n");
		return 2;
	}
	for (uint64_t i = 0; i < rounds; i++) {
		random_init(&random, seed + i);
		(void)LLVMFuzzerTestOneInput(input, make_input(input, &random));
	}
	free(input);
	printf("fuzz_session: %" PRIu64 " connections from seed %" PRIu64 ", %" PRIu64
	       " sessions, %" PRIu64 " requests handled\n",
	       rounds, seed, total_opened, total_handled);
	/* A fuzzer that gets nowhere would find nothing. */
	return rounds < 100 || (total_opened > rounds / 2 && total_handled > 2 * rounds) ? 0 : 1;
}

#endif
