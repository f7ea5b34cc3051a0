/*
 * What lib/net costs: requests over loopback TCP, two processes of one loop each. Prints
 * operations, latency and CPU per operation of each side, as kernel and user time. For people and
 * for docs/internals/net.md; nothing here can fail a build.
 *
 *   bench_net [SECONDS]
 */
#include <stdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "lib/net/net.h"

enum { DEPTH_MAX = 256, BLOCK = 4096, OP_WRITE = 1, OP_READ = 2 };

struct bench_body {
	le64 words[12]; /* about as long as a write of the peer protocol */
};

static struct buffer *block;

static void on_write(struct net_request *request)
{
	const struct bench_body *body = request->body;

	net_reply(request, 0, body, 16, NULL, 0);
}

static void on_read(struct net_request *request)
{
	const struct bench_body *body = request->body;
	uint32_t size = (uint32_t)from_le64(body->words[0]);
	struct slice slice = slice_of(buffer_get(block), 0, size);

	net_reply(request, 0, body, 16, &slice, 1);
}

static const struct wire_op ops[] = {
	[OP_WRITE] = {.name = "write",
		      .body_min = sizeof(struct bench_body),
		      .body_size = sizeof(struct bench_body),
		      .reply_min = 16,
		      .reply_size = 16,
		      .payload_max = 4 << 20,
		      .handle = on_write},
	[OP_READ] = {.name = "read",
		     .body_min = sizeof(struct bench_body),
		     .body_size = sizeof(struct bench_body),
		     .reply_min = 16,
		     .reply_size = 16,
		     .reply_payload_max = 4 << 20,
		     .handle = on_read},
};

static const struct wire_protocol protocol = {
	.name = "bench",
	.magic = FRAME_MAGIC_PEER,
	.version_min = 1,
	.version_max = 1,
	.open_classes = 1,
	.classes = 1,
	.ops = ops,
	.op_count = ARRAY_COUNT(ops),
};

struct usage {
	double user_us, system_us;
	struct net_stats stats;
};

static struct usage usage_now(const struct net *net)
{
	struct rusage r;

	(void)getrusage(RUSAGE_SELF, &r);
	return (struct usage){
		.user_us = (double)r.ru_utime.tv_sec * 1e6 + (double)r.ru_utime.tv_usec,
		.system_us = (double)r.ru_stime.tv_sec * 1e6 + (double)r.ru_stime.tv_usec,
		.stats = *net_stats(net),
	};
}

static struct usage usage_since(const struct usage *then, const struct net *net)
{
	struct usage u = usage_now(net);

	u.user_us -= then->user_us;
	u.system_us -= then->system_us;
	u.stats.receives -= then->stats.receives;
	u.stats.sends -= then->stats.sends;
	return u;
}

static struct net *new_net(void)
{
	struct error err = {0};
	struct loop *loop;
	struct net *net;

	if (loop_new(&(struct loop_options){.name = "bench"}, &loop, &err) < 0 ||
	    net_new(loop, &(struct net_options){0}, &(struct wire_identity){.loops = 1}, &net,
		    &err) < 0) {
		(void)fprintf(stderr, "bench_net: %s\n", err.text);
		exit(1);
	}
	block = buffer_new(loop_buffers(loop), 4 << 20);
	memset(block->data, 7, 4 << 20);
	return net;
}

/* ---- the server, in a process of its own ---- */

struct server {
	struct usage begin;
	int out; /* a pipe: what a session has cost, when it ends */
	bool is_over;
};

static int on_opened(struct net_session *session, struct error *err)
{
	struct server *server = net_session_context(session);

	server->begin = usage_now(net_session_net(session));
	return 0;
}

static void on_closed(struct net_session *session, int error)
{
	struct server *server = net_session_context(session);
	struct usage usage = usage_since(&server->begin, net_session_net(session));

	if (write(server->out, &usage, sizeof(usage)) != sizeof(usage))
		exit(1);
}

static void serve(int out)
{
	struct server server = {.out = out};
	struct net_listener *listener;
	struct error err = {0};
	struct net *net = new_net();
	char address[LOOP_ADDRESS_MAX] = {0};
	const struct net_service service = {.protocol = &protocol,
					    .context = &server,
					    .opened = on_opened,
					    .closed = on_closed};

	if (net_serve(net, &service) < 0 ||
	    net_listen(net, "127.0.0.1:0",
		       &(struct net_listener_options){.magic = FRAME_MAGIC_PEER}, &listener,
		       &err) < 0)
		exit(1);
	(void)snprintf(address, sizeof(address), "%s", net_listener_address(listener));
	if (write(out, address, sizeof(address)) != sizeof(address))
		exit(1);
	(void)loop_run(net_loop(net));
}

/* ---- the client ---- */

struct job {
	const char *name;
	uint16_t op;
	uint32_t size;
	unsigned depth;
};

struct client {
	struct net *net;
	struct net_link *link;
	struct job job;
	uint64_t done, bytes;
	bool is_over;
	struct worker {
		struct net_call call;
		struct client *client;
		struct bench_body body;
		struct slice slice;
	} workers[DEPTH_MAX];
};

static void submit(struct worker *worker)
{
	const struct job *job = &worker->client->job;

	worker->body.words[0] = to_le64(job->size);
	worker->slice = slice_of(block, 0, job->size);
	worker->call.op = job->op;
	worker->call.body = &worker->body;
	worker->call.body_size = sizeof(worker->body);
	worker->call.slices = &worker->slice;
	worker->call.slice_count = job->op == OP_WRITE ? 1 : 0;
	worker->call.reply_max = job->op == OP_READ ? job->size : 0;
	net_link_call(worker->client->link, &worker->call);
}

static void on_done(struct net_call *call, int result)
{
	struct worker *worker = container_of_type(call, struct worker, call);

	assert(result == 0);
	worker->client->done++;
	if (!worker->client->is_over)
		submit(worker);
}

static void run(const char *address, int in, const struct job *job, double seconds)
{
	static struct client client;
	struct net_link_options options = {.address = address, .protocol = &protocol};
	struct usage theirs, ours;
	struct error err = {0};

	memset(&client, 0, sizeof(client));
	client.net = new_net();
	client.job = *job;
	if (net_link_new(client.net, &options, &client.link, &err) < 0)
		exit(1);
	struct loop *loop = net_loop(client.net);
	net_link_connect(client.link);
	while (!net_link_is_up(client.link))
		(void)loop_turn(loop, loop_now(loop) + NS_PER_S);
	struct usage begin = usage_now(client.net);
	uint64_t begin_ns = loop_now(loop);
	uint64_t end_ns = begin_ns + (uint64_t)(seconds * 1e9);
	for (unsigned i = 0; i < job->depth; i++) {
		client.workers[i].client = &client;
		client.workers[i].call.done = on_done;
		submit(&client.workers[i]);
	}
	while (loop_now(loop) < end_ns)
		(void)loop_turn(loop, end_ns);
	client.is_over = true;
	while (net_link_outstanding(client.link))
		(void)loop_turn(loop, loop_now(loop) + NS_PER_S);
	ours = usage_since(&begin, client.net);
	double elapsed_us = (double)(loop_now(loop) - begin_ns) / 1e3;
	net_link_free(client.link);
	net_stop(client.net);
	while (!net_is_stopped(client.net))
		(void)loop_turn(loop, loop_now(loop) + NS_PER_S);
	if (read(in, &theirs, sizeof(theirs)) != sizeof(theirs))
		exit(1);

	double n = (double)client.done;
	printf("%-6s %7u %5u %9.0f %8.1f | %6.2f %6.2f %6.2f %6.1f | %6.2f %6.2f %6.2f %6.1f\n",
	       job->name, job->size, job->depth, n / elapsed_us * 1e6, elapsed_us * job->depth / n,
	       (ours.user_us + ours.system_us) / n, ours.user_us / n, ours.system_us / n,
	       n / (double)ours.stats.sends, (theirs.user_us + theirs.system_us) / n,
	       theirs.user_us / n, theirs.system_us / n, n / (double)theirs.stats.sends);
	buffer_put(block);
	net_free(client.net);
	loop_free(loop);
}

int main(int argc, char **argv)
{
	static const struct job jobs[] = {
		{"write", OP_WRITE, BLOCK, 1},	     {"read", OP_READ, BLOCK, 1},
		{"write", OP_WRITE, BLOCK, 16},	     {"read", OP_READ, BLOCK, 16},
		{"write", OP_WRITE, BLOCK, 64},	     {"read", OP_READ, BLOCK, 64},
		{"write", OP_WRITE, BLOCK, 256},     {"read", OP_READ, BLOCK, 256},
		{"write", OP_WRITE, 256 * 1024, 16}, {"read", OP_READ, 256 * 1024, 16},
		{"write", OP_WRITE, 4 << 20, 4},     {"read", OP_READ, 4 << 20, 4},
	};
	double seconds = argc > 1 ? strtod(argv[1], NULL) : 2;
	char address[LOOP_ADDRESS_MAX];
	int pipes[2];

	if (pipe(pipes) < 0)
		return 1;
	pid_t child = fork();
	if (child == 0) {
		serve(pipes[1]);
		exit(0);
	}
	if (read(pipes[0], address, sizeof(address)) != sizeof(address))
		return 1;
	struct logger *none = &(struct logger){.level = LOG_LEVEL_ERROR, .sink = log_sink_text};
	(void)log_set_current(none);
	printf("                                        |   caller: us CPU           |   server: us "
	       "CPU\n");
	printf("op        bytes depth     ops/s  mean us |    all   user system /send |    all   "
	       "user system /send\n");
	for (unsigned i = 0; i < ARRAY_COUNT(jobs); i++)
		run(address, pipes[0], &jobs[i], seconds);
	(void)kill(child, SIGKILL);
	(void)waitpid(child, NULL, 0);
	return 0;
}
