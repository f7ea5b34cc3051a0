#include "tests/unit/nbd_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/text.h"

void nbd_world_answer(struct nbd_world *world, struct nbd_request *request)
{
	uint8_t *at = world->disk + request->offset;
	struct slice data = {.data = at, .size = (uint32_t)request->length};

	if (request->type == WRITE)
		memcpy(at, request->payload.data, request->payload.size);
	if (request->type == WRITE && world->keeps) {
		world->kept = request->payload;
		request->payload.buffer = NULL;
	}
	world->copied = nbd_device_stats(request->device)->copied;
	nbd_request_reply(request, 0, &data, request->type == READ);
}

static void on_request(struct nbd_request *request)
{
	struct nbd_world *world = nbd_device_context(request->device);

	if (world->holds)
		world->held[world->held_count++] = request;
	else
		nbd_world_answer(world, request);
}

static void on_export_closed(void *context, void *handle)
{
	((struct nbd_world *)context)->closed++;
}

static void on_link_closed(struct nbd_link *link, void *context, const char *why)
{
	struct nbd_world *world = context;

	assert_ptr_equal(link, world->link);
	assert_false(world->is_closed);
	world->is_closed = true;
	world->link = NULL;
	assert_int_equal(text_copy(world->why, sizeof(world->why), why), 0);
}

static void on_client_sent(struct loop_op *op, int result)
{
	container_of_type(op, struct nbd_world, send_op)->is_sent = true;
}

void nbd_world_receive(struct nbd_world *world)
{
	world->recv_iov = (struct iovec){world->chunk, sizeof(world->chunk)};
	loop_recv(world->loop, &world->recv_op, world->socket, &world->recv_iov, 1);
}

static void on_client_received(struct loop_op *op, int result)
{
	struct nbd_world *world = container_of_type(op, struct nbd_world, recv_op);

	if (result <= 0) {
		world->has_end = true;
		return;
	}
	blob_append(&world->in, world->chunk, (size_t)result);
	nbd_world_receive(world);
}

bool nbd_world_is_closed(struct nbd_world *world)
{
	return world->is_closed;
}

bool nbd_world_has_ended(struct nbd_world *world)
{
	return world->has_end;
}

bool nbd_world_is_sent(struct nbd_world *world)
{
	return world->is_sent;
}

void nbd_world_until(struct nbd_world *world, bool (*is_so)(struct nbd_world *world))
{
	uint64_t end = loop_now(world->loop) + DEADLINE_NS;

	while (!is_so(world)) {
		assert_true(loop_now(world->loop) < end);
		assert_int_equal(loop_turn(world->loop, loop_now(world->loop) + 20 * NS_PER_MS), 0);
	}
}

bool nbd_world_has_received(struct nbd_world *world)
{
	return world->in.size >= world->wanted;
}

void nbd_world_expect(struct nbd_world *world, struct blob *server)
{
	world->wanted = server->size;
	nbd_world_until(world, nbd_world_has_received);
	assert_int_equal(world->in.size, server->size);
	assert_memory_equal(world->in.data, server->data, server->size);
	world->in.size = server->size = 0;
}

void nbd_world_send_start(struct nbd_world *world, const struct blob *client)
{
	world->is_sent = false;
	world->send_iov = (struct iovec){client->data, client->size};
	loop_send(world->loop, &world->send_op, world->socket, &world->send_iov, 1);
}

void nbd_world_send(struct nbd_world *world, struct blob *client)
{
	nbd_world_send_start(world, client);
	nbd_world_until(world, nbd_world_is_sent);
	client->size = 0;
}

static void make_loop(struct nbd_world *world, bool is_simulated,
		      const struct loop_options *options)
{
	if (!is_simulated) {
		assert_int_equal(loop_new(options, &world->loop, NULL), 0);
		return;
	}
	world->sim = sim_world_new(1);
	struct sim_host *host = sim_host_new(world->sim, "host");
	assert_int_equal(sim_loop_new(world->sim, host, options, &world->loop), 0);
}

void nbd_world_begin(struct nbd_world *world, const bool *is_simulated, uint64_t timeout_ns)
{
	struct loop_options options = {.name = "test"};
	struct nbd_callbacks callbacks = {
		.handle_request = on_request,
		.close = on_export_closed,
		.export = &world->export,
	};
	struct nbd_link_options link = {
		.context = world,
		.closed = on_link_closed,
		.negotiation_timeout_ns = timeout_ns,
	};
	struct loop_socket *socket;

	*world = (struct nbd_world){.export = {.size = DISK, .flags = NBD_FLAG_SEND_FLUSH}};
	world->disk = calloc(1, DISK);
	make_loop(world, is_simulated && *is_simulated, &options);
	world->server = nbd_server_new(&callbacks, NULL);
	assert_int_equal(loop_socket_pair(world->loop, &socket, &world->socket), 0);
	world->send_op.done = on_client_sent;
	world->recv_op.done = on_client_received;
	assert_int_equal(nbd_link_start(world->loop, socket, world->server, &link, &world->link),
			 0);
}

void nbd_world_leave(struct nbd_world *world)
{
	if (!world->socket)
		return;
	loop_socket_close(world->loop, world->socket);
	world->socket = NULL;
}

void nbd_world_finish(struct nbd_world *world)
{
	nbd_world_leave(world);
	nbd_world_until(world, nbd_world_is_closed);
	while (loop_op_is_busy(&world->recv_op) || loop_op_is_busy(&world->send_op))
		(void)loop_turn(world->loop, 0);
	assert_int_equal(buffer_cache_busy(loop_buffers(world->loop)), 0);
	nbd_server_free(world->server);
	loop_free(world->loop);
	sim_world_free(world->sim);
	blob_free(&world->in);
	free(world->disk);
}

void nbd_world_negotiate(struct nbd_world *world)
{
	struct blob client = {0}, server = {0};

	nbd_world_receive(world);
	client_hello(&client, 3);
	client_option(&client, 1, "", 0);
	nbd_world_send(world, &client);
	server_greeting(&server);
	blob_add(&server, "8 2", (uint64_t)DISK, 5ull);
	nbd_world_expect(world, &server);
	assert_int_equal(nbd_link_state(world->link), NBD_LINK_SERVING);
	blob_free(&client);
	blob_free(&server);
}
