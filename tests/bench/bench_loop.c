/*
 * What the loop itself costs: round trips and batches over TCP on loopback,
 * mail between two loops, direct reads. Prints time and CPU per operation and
 * side. For people and for docs/internals/loop.md; nothing here can fail a build.
 *
 *   bench_loop [SECONDS [FILE]]   FILE: an existing big one, for the direct reads
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "lib/loop/loop.h"

enum { REQUEST = 64, REPLY = 4096, DEPTH_MAX = 64, READ_BYTES = 256 * 1024 };

struct side {
	struct loop *loop;
	pthread_t thread;
	struct loop_socket *socket;
	struct loop_op recv, send;
	struct loop_hook hook;
	struct loop_timer stop;
	struct loop_mail mail;
	struct side *other;
	uint8_t *in, *out;
	struct iovec in_iov, out_iov;
	uint64_t unit_in, unit_out; /* bytes of what comes and of what goes */
	uint64_t got_bytes;	    /* towards the next unit */
	uint64_t owed;		    /* units to send */
	uint64_t units;		    /* handled */
	uint64_t seconds;
	uint64_t turns;
	double cpu_us;
	bool is_client;
	bool is_over;
};

static double thread_cpu_us(void)
{
	struct rusage usage;

	(void)getrusage(RUSAGE_THREAD, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static struct loop *make_loop(uint32_t busy_poll_us)
{
	struct error err = {0};
	struct loop *loop;

	if (loop_new(&(struct loop_options){.busy_poll_us = busy_poll_us}, &loop, &err) < 0) {
		(void)fprintf(stderr, "bench_loop: %s\n", err.text);
		exit(1);
	}
	return loop;
}

static void *run_side(void *argument)
{
	struct side *side = argument;
	double before = thread_cpu_us();

	(void)loop_run(side->loop);
	side->cpu_us = thread_cpu_us() - before;
	return NULL;
}

static void on_stop(struct loop_timer *timer)
{
	struct side *side = container_of_type(timer, struct side, stop);

	side->is_over = true;
	loop_stop(side->loop);
	loop_stop(side->other->loop);
}

static void run_pair(struct side *client, struct side *server)
{
	loop_timer_start(client->loop, &client->stop,
			 loop_now(client->loop) + client->seconds * NS_PER_S);
	(void)pthread_create(&server->thread, NULL, run_side, server);
	(void)pthread_create(&client->thread, NULL, run_side, client);
	(void)pthread_join(client->thread, NULL);
	(void)pthread_join(server->thread, NULL);
}

static void report(const char *what, const struct side *client, const struct side *server)
{
	printf("%-34s %9.0f/s  %7.2f us each  CPU %6.2f + %6.2f us\n", what,
	       (double)client->units / (double)client->seconds,
	       (double)client->seconds * 1e6 / (double)client->units,
	       client->cpu_us / (double)client->units, server->cpu_us / (double)client->units);
	(void)fflush(stdout);
}

/* ---- streams ---- */

static void on_flush(struct loop_hook *hook)
{
	struct side *side = container_of_type(hook, struct side, hook);

	if (side->owed == 0 || loop_op_is_busy(&side->send))
		return;
	side->out_iov = (struct iovec){side->out, side->owed * side->unit_out};
	side->owed = 0;
	loop_send(side->loop, &side->send, side->socket, &side->out_iov, 1);
}

static void on_sent(struct loop_op *op, int result)
{
	struct side *side = container_of_type(op, struct side, send);

	if (result > 0 && side->owed)
		loop_hook_arm(side->loop, &side->hook);
}

static void on_received(struct loop_op *op, int result)
{
	struct side *side = container_of_type(op, struct side, recv);

	if (result <= 0)
		return;
	side->got_bytes += (uint64_t)result;
	side->owed += side->got_bytes / side->unit_in;
	side->units += side->got_bytes / side->unit_in;
	side->got_bytes %= side->unit_in;
	side->turns++;
	loop_hook_arm(side->loop, &side->hook);
	loop_recv(side->loop, &side->recv, side->socket, &side->in_iov, 1);
}

static void side_begin(struct side *side)
{
	side->in = malloc(READ_BYTES);
	side->out = calloc(DEPTH_MAX, REPLY);
	side->in_iov = (struct iovec){side->in, READ_BYTES};
	side->recv.done = on_received;
	side->send.done = on_sent;
	side->hook = (struct loop_hook){.run = on_flush, .phase = LOOP_HOOK_FLUSH};
	side->stop.fire = on_stop;
	loop_recv(side->loop, &side->recv, side->socket, &side->in_iov, 1);
}

static void on_joined(struct loop_op *op, int result)
{
	assert(result == 0);
}

static void join_sides(struct side *client, struct side *server, const char *address)
{
	struct loop_op accept = {.done = on_joined}, dial = {.done = on_joined};
	struct loop *loop = make_loop(0); /* of this thread: the others get theirs by attaching */
	struct loop_listener *listener;
	struct error err = {0};

	if (loop_listen(loop, address, &listener, &err) < 0) {
		(void)fprintf(stderr, "bench_loop: %s\n", err.text);
		exit(1);
	}
	loop_accept(loop, &accept, listener);
	loop_connect(loop, &dial, loop_listener_address(listener));
	while (loop_op_is_busy(&accept) || loop_op_is_busy(&dial))
		(void)loop_turn(loop, loop_now(loop) + NS_PER_S);
	loop_listener_close(loop, listener);
	server->socket = loop_socket_detach(loop, accept.out.socket);
	client->socket = loop_socket_detach(loop, dial.out.socket);
	loop_socket_attach(server->loop, server->socket);
	loop_socket_attach(client->loop, client->socket);
	loop_free(loop);
}

static void bench_streams(const char *what, const char *address, unsigned depth,
			  uint32_t busy_poll_us, uint64_t seconds)
{
	struct side client = {.is_client = true, .seconds = seconds, .owed = depth};
	struct side server = {0};

	client.other = &server;
	server.other = &client;
	client.unit_out = server.unit_in = REQUEST;
	client.unit_in = server.unit_out = REPLY;
	client.loop = make_loop(busy_poll_us);
	server.loop = make_loop(busy_poll_us);
	join_sides(&client, &server, address);
	side_begin(&client);
	side_begin(&server);
	loop_hook_arm(client.loop, &client.hook);
	run_pair(&client, &server);
	report(what, &client, &server);
	/* The loops' threads are gone, and with them who could end the ops: the process does. */
}

/* ---- mail ---- */

static void on_mail(struct loop *loop, struct loop_mail *mail)
{
	struct side *to = container_of_type(mail, struct side, mail);

	/* One message goes to and fro; it is embedded in the client. */
	to->units++;
	loop_post(loop == to->loop ? to->other->loop : to->loop, mail);
}

static void bench_mail(const char *what, uint32_t busy_poll_us, uint64_t seconds)
{
	struct side client = {.seconds = seconds, .mail.deliver = on_mail, .stop.fire = on_stop};
	struct side server = {.other = &client};

	client.other = &server;
	client.loop = make_loop(busy_poll_us);
	server.loop = make_loop(busy_poll_us);
	loop_post(server.loop, &client.mail);
	run_pair(&client, &server);
	client.units /= 2;
	report(what, &client, &server);
	loop_free(client.loop);
	loop_free(server.loop);
}

/* ---- files ---- */

struct reader {
	struct loop_op op;
	struct iovec iov;
	struct files *files;
};

struct files {
	struct loop *loop;
	struct loop_file *file;
	uint64_t pages;
	uint64_t reads;
	uint64_t end_ns;
	unsigned busy;
	struct reader readers[DEPTH_MAX];
};

static void read_next(struct reader *reader)
{
	struct files *files = reader->files;

	files->busy++;
	loop_file_read(files->loop, &reader->op, files->file, &reader->iov, 1,
		       random_below(loop_random(files->loop), files->pages) * 4096);
}

static void on_read(struct loop_op *op, int result)
{
	struct reader *reader = container_of_type(op, struct reader, op);

	reader->files->busy--;
	reader->files->reads += result == 4096;
	if (loop_now(reader->files->loop) < reader->files->end_ns)
		read_next(reader);
}

static void bench_files(const char *path, unsigned depth, uint64_t seconds)
{
	struct files files = {.loop = make_loop(0)};
	struct error err = {0};
	double cpu;

	if (loop_sync_open(files.loop, path, LOOP_FILE_READ | LOOP_FILE_DIRECT, &files.file, &err) <
	    0) {
		(void)fprintf(stderr, "bench_loop: %s\n", err.text);
		exit(1);
	}
	files.pages = (uint64_t)loop_sync_size(files.loop, files.file) / 4096;
	files.end_ns = loop_now(files.loop) + seconds * NS_PER_S;
	cpu = thread_cpu_us();
	for (unsigned i = 0; i < depth && files.pages; i++) {
		struct reader *reader = &files.readers[i];

		reader->files = &files;
		reader->op.done = on_read;
		reader->iov = (struct iovec){aligned_alloc(4096, 4096), 4096};
		read_next(reader);
	}
	while (files.busy)
		(void)loop_turn(files.loop, UINT64_MAX);
	cpu = thread_cpu_us() - cpu;
	printf("direct 4 KiB reads, %2u in flight    %9.0f/s  %7.2f us each  CPU %6.2f us\n", depth,
	       (double)files.reads / (double)seconds, (double)seconds * 1e6 / (double)files.reads,
	       cpu / (double)files.reads);
	loop_file_close(files.loop, files.file);
	loop_free(files.loop);
}

int main(int argc, char **argv)
{
	uint64_t seconds = 2;

	if (argc > 1 && (text_parse_u64(argv[1], 3600, &seconds) < 0 || seconds == 0)) {
		(void)fprintf(stderr, "usage: bench_loop [SECONDS [FILE]]\n");
		return 2;
	}
	bench_streams("tcp ping-pong, asleep", "127.0.0.1:0", 1, 0, seconds);
	bench_streams("tcp ping-pong, busy 50 us", "127.0.0.1:0", 1, 50, seconds);
	bench_streams("tcp, 64 in flight, asleep", "127.0.0.1:0", 64, 0, seconds);
	bench_streams("tcp, 64 in flight, busy 50 us", "127.0.0.1:0", 64, 50, seconds);
	bench_mail("mail there and back, asleep", 0, seconds);
	bench_mail("mail there and back, busy 50 us", 50, seconds);
	if (argc > 2) {
		bench_files(argv[2], 1, seconds);
		bench_files(argv[2], 64, seconds);
	}
	return 0;
}
