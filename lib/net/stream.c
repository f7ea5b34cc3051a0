/*
 * One socket: always one receive in flight unless its owner has no room, and one send while there
 * is output.
 *
 *   started --close--> closing --last operation has completed--> closed (the owner may free it)
 *      |
 *      +--release--> over (the socket goes on elsewhere)
 *
 * Output is asked for once a turn: net_stream_wake() puts the stream on its net's list of dirty ones,
 * whose hook sends what all of this turn's work has produced by one operation. Closing always
 * completes through the loop, so that `closed` never runs inside the call that caused it.
 */
#include "lib/net/net_priv.h"

#include "lib/base/assert.h"
#include "lib/base/size.h"

static void end_if_quiet(struct net_stream *stream)
{
	if (!stream->is_closing || stream->is_closed || stream->busy)
		return;
	stream->is_closed = true;
	stream->net->stream_count--;
	stream->ops->closed(stream, stream->error);
}

static void receive(struct net_stream *stream)
{
	if (stream->is_closing || stream->is_ended || loop_op_is_busy(&stream->recv_op))
		return;
	int count = stream->ops->space(stream, stream->recv_iov, ARRAY_COUNT(stream->recv_iov));
	if (count < 0) {
		net_stream_close(stream, count);
		return;
	}
	stream->is_paused = count == 0;
	if (stream->is_paused || stream->is_closing)
		return;
	stream->busy++;
	loop_recv(stream->net->loop, &stream->recv_op, stream->socket, stream->recv_iov,
		  (unsigned)count);
}

static void recv_done(struct loop_op *op, int result)
{
	struct net_stream *stream = container_of_type(op, struct net_stream, recv_op);

	stream->busy--;
	if (stream->is_closing) {
		end_if_quiet(stream);
		return;
	}
	if (result < 0) {
		net_stream_close(stream, result);
		return;
	}
	stream->received_ns = loop_now(stream->net->loop);
	stream->is_ended = result == 0;
	stream->net->stats.receives++;
	stream->net->stats.bytes_in += (uint64_t)result;
	stream->busy++; /* it stays while the owner looks at the bytes */
	stream->ops->received(stream, (size_t)result);
	stream->busy--;
	receive(stream);
	end_if_quiet(stream);
}

static void send_done(struct loop_op *op, int result)
{
	struct net_stream *stream = container_of_type(op, struct net_stream, send_op);

	stream->busy--;
	if (stream->is_closing) {
		end_if_quiet(stream);
		return;
	}
	if (result < 0) {
		net_stream_close(stream, result);
		return;
	}
	stream->sent_ns = loop_now(stream->net->loop);
	stream->net->stats.sends++;
	stream->net->stats.bytes_out += stream->send_size;
	stream->busy++;
	size_t size = stream->send_size;
	stream->send_size = 0;
	stream->ops->sent(stream, size);
	stream->busy--;
	net_stream_wake(stream);
	end_if_quiet(stream);
}

static void close_done(struct loop_op *op, int result)
{
	struct net_stream *stream = container_of_type(op, struct net_stream, close_op);

	stream->busy--;
	end_if_quiet(stream);
}

void net_stream_start(struct net_stream *stream, struct net *net, struct loop_socket *socket,
		      const struct net_stream_ops *ops)
{
	uint64_t now = loop_now(net->loop);

	*stream = (struct net_stream){
		.ops = ops,
		.net = net,
		.socket = socket,
		.received_ns = now,
		.sent_ns = now,
		.recv_op.done = recv_done,
		.send_op.done = send_done,
		.close_op.done = close_done,
	};
	net->stream_count++;
	receive(stream);
}

void net_stream_wake(struct net_stream *stream)
{
	struct net *net = stream->net;

	if (stream->is_dirty || stream->is_closing || loop_op_is_busy(&stream->send_op))
		return;
	stream->is_dirty = true;
	cds_list_add_tail(&stream->dirty, &net->dirty);
	loop_hook_arm(net->loop, &net->flush);
}

static void clean(struct net_stream *stream)
{
	if (!stream->is_dirty)
		return;
	stream->is_dirty = false;
	cds_list_del(&stream->dirty);
}

void net_stream_flush(struct net_stream *stream)
{
	unsigned count;

	clean(stream);
	assert(!loop_op_is_busy(&stream->send_op));
	count = stream->ops->output(stream, stream->send_iov, NET_STREAM_IOV_MAX);
	if (count == 0 || stream->is_closing)
		return;
	for (unsigned i = 0; i < count; i++)
		stream->send_size += stream->send_iov[i].iov_len;
	stream->sent_ns = loop_now(stream->net->loop);
	stream->busy++;
	loop_send(stream->net->loop, &stream->send_op, stream->socket, stream->send_iov, count);
}

void net_stream_resume(struct net_stream *stream)
{
	if (stream->is_paused)
		receive(stream);
}

void net_stream_close(struct net_stream *stream, int error)
{
	if (stream->is_closing)
		return;
	stream->is_closing = true;
	stream->error = error;
	clean(stream);
	loop_socket_close(stream->net->loop, stream->socket);
	stream->socket = NULL;
	stream->busy++;
	loop_complete(stream->net->loop, &stream->close_op, 0);
}

struct loop_socket *net_stream_release(struct net_stream *stream)
{
	struct loop_socket *socket = stream->socket;

	assert(!stream->is_closing && stream->busy == 0);
	clean(stream);
	stream->is_closing = true;
	stream->is_closed = true;
	stream->socket = NULL;
	stream->net->stream_count--;
	return socket;
}
