/* lib/net on io_uring: the common suite, and what only threads show. */
#include "tests/unit/count_allocations.h"
#include "tests/unit/net_suite.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static struct loop *new_loop(struct bed *bed, const struct loop_options *options)
{
	struct error err = {0};
	struct loop *loop;

	if (loop_new(options, &loop, &err) < 0)
		fail_msg("%s", err.text);
	return loop;
}

static void quiet(struct logger *logger, enum log_level level, const char *line)
{
	if (getenv("TEST_LOG"))
		log_sink_text(logger, level, line);
}

static struct logger quiet_logger = {.level = LOG_LEVEL_DEBUG, .sink = quiet};

int bed_setup(void **state)
{
	struct bed *bed = calloc(1, sizeof(*bed));

	bed->new_loop = new_loop;
	bed->tcp_any = "127.0.0.1:0";
	bed->tcp_dead = "127.0.0.1:1";
	(void)snprintf(bed->unix_address, sizeof(bed->unix_address), "unix:test_net.%d",
		       (int)getpid());
	bed->loop = new_loop(bed, &(struct loop_options){.name = "test", .logger = &quiet_logger});
	bed->other =
		new_loop(bed, &(struct loop_options){.name = "other", .logger = &quiet_logger});
	*state = bed;
	return 0;
}

int bed_teardown(void **state)
{
	struct bed *bed = *state;

	loop_free(bed->other);
	loop_free(bed->loop);
	free(bed);
	return 0;
}

/* ---- memory ---- */

/* Once a connection has warmed up, its requests cost no memory of malloc's on either side. */
static void test_requests_allocate_nothing_in_the_steady_state(void **state)
{
	enum { CALLS = 64, WARM = 30, ROUNDS = 300 };
	struct rig *rig = rig_new(*state, NULL, NULL);
	struct net_link *link = rig_link(rig, NULL);
	struct test_call *calls = calloc(CALLS, sizeof(*calls));
	unsigned long before = 0;

	for (unsigned round = 0; round < WARM + ROUNDS; round++) {
		if (round == WARM)
			before = count_allocations();
		for (unsigned i = 0; i < CALLS; i++) {
			uint32_t size = i % 16 == 0 ? 40000 : 4096;
			test_call_init(&calls[i], OP_ECHO, i, 0);
			test_call_fill(&calls[i], rig->bed->loop, size, 1);
			calls[i].call.reply_max = size;
			net_link_call(link, &calls[i].call);
		}
		BED_UNTIL(rig->bed, net_link_outstanding(link) == 0);
		for (unsigned i = 0; i < CALLS; i++) {
			assert_true(calls[i].is_right);
			test_call_drop(&calls[i]);
		}
	}
	/* What the caches keep may still grow by a handful: by no means by request. */
	assert_in_range(count_allocations() - before, 0, ROUNDS / 10);
	free(calls);
	rig_free(rig);
}

/* ---- sessions that move to another thread ---- */

enum { WORKERS = 3, PER_LINK = 3000 };

struct worker {
	struct loop *loop;
	struct net *net;
	pthread_t thread;
	struct loop_mail stop_mail;
	unsigned opened, closed, handled, strangers;
	bool is_stopping; /* atomic */
};

static int on_worker_opened(struct net_session *session, struct error *err)
{
	struct worker *worker = net_session_context(session);

	worker->opened++;
	worker->strangers += net_session_net(session) != worker->net;
	return 0;
}

static void on_worker_closed(struct net_session *session, int error)
{
	struct worker *worker = net_session_context(session);

	worker->closed++;
}

static void on_worker_echo(struct net_request *request)
{
	struct worker *worker = net_request_context(request);
	struct slice payload = request->payload;

	worker->handled++;
	worker->strangers += !pthread_equal(pthread_self(), worker->thread);
	request->payload.buffer = NULL;
	net_reply(request, 0, request->body, request->body_size, &payload, payload.size ? 1 : 0);
}

static void *work(void *context)
{
	struct worker *worker = context;

	buffer_cache_adopt(loop_buffers(worker->loop));
	while (!__atomic_load_n(&worker->is_stopping, __ATOMIC_ACQUIRE) ||
	       !net_is_stopped(worker->net))
		(void)loop_turn(worker->loop, loop_now(worker->loop) + 5 * NS_PER_MS);
	return NULL;
}

static void stop_worker(struct loop *loop, struct loop_mail *mail)
{
	struct worker *worker = container_of_type(mail, struct worker, stop_mail);

	net_stop(worker->net);
	__atomic_store_n(&worker->is_stopping, true, __ATOMIC_RELEASE);
}

/* Three loops in three threads behind one listener: each link is served by the loop it asked for. */
static void test_sessions_are_served_by_the_loop_they_name(void **state)
{
	static struct wire_op ops[2];
	struct wire_protocol protocol = test_protocol;
	struct bed *bed = *state;
	struct worker workers[WORKERS] = {0};
	struct net *nets[WORKERS], *client;
	struct net_listener *listener;
	struct net_link *links[WORKERS * 2];
	struct test_call *calls = calloc(WORKERS * 2 * PER_LINK, sizeof(*calls));
	struct error err = {0};

	ops[OP_ECHO] = test_protocol.ops[OP_ECHO];
	ops[OP_ECHO].handle = on_worker_echo;
	protocol.ops = ops;
	protocol.op_count = ARRAY_COUNT(ops);
	for (uint16_t i = 0; i < WORKERS; i++) {
		workers[i].loop = new_loop(
			bed, &(struct loop_options){.name = "worker", .logger = &quiet_logger});
		assert_int_equal(net_new(workers[i].loop, &(struct net_options){.loop_index = i},
					 &identity_a, &workers[i].net, &err),
				 0);
		nets[i] = workers[i].net;
		assert_int_equal(
			net_serve(nets[i], &(struct net_service){.protocol = &protocol,
								 .context = &workers[i],
								 .opened = on_worker_opened,
								 .closed = on_worker_closed}),
			0);
	}
	net_group(nets, WORKERS);
	assert_int_equal(net_listen(nets[0], bed->tcp_any,
				    &(struct net_listener_options){.magic = FRAME_MAGIC_PEER},
				    &listener, &err),
			 0);
	char address[LOOP_ADDRESS_MAX];
	(void)snprintf(address, sizeof(address), "%s", net_listener_address(listener));
	for (unsigned i = 0; i < WORKERS; i++) {
		workers[i].stop_mail.deliver = stop_worker;
		assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}

	assert_int_equal(net_new(bed->loop, &(struct net_options){0}, &identity_b, &client, &err),
			 0);
	for (unsigned k = 0; k < WORKERS * 2; k++) {
		struct net_link_options options = {.address = address,
						   .protocol = &test_protocol,
						   .class = 1,
						   .loop = (uint16_t)k}; /* modulo their number */
		assert_int_equal(net_link_new(client, &options, &links[k], &err), 0);
		for (unsigned i = 0; i < PER_LINK; i++) {
			struct test_call *call = &calls[k * PER_LINK + i];
			test_call_init(call, OP_ECHO, i, 0);
			if (i % 10 == 0)
				test_call_fill(call, bed->loop, 1 + i, 1);
			call->call.reply_max = 1 + i;
			net_link_call(links[k], &call->call);
		}
	}
	for (unsigned k = 0; k < WORKERS * 2; k++) {
		while (net_link_outstanding(links[k]))
			(void)loop_turn(bed->loop, loop_now(bed->loop) + 10 * NS_PER_MS);
		assert_int_equal(net_link_agreement(links[k])->loop, k % WORKERS);
		net_link_free(links[k]);
	}
	for (unsigned i = 0; i < WORKERS * 2 * PER_LINK; i++) {
		assert_int_equal(calls[i].result, 0);
		assert_true(calls[i].is_right);
		test_call_drop(&calls[i]);
	}
	net_stop(client);
	while (!net_is_stopped(client))
		(void)loop_turn(bed->loop, loop_now(bed->loop) + NS_PER_MS);
	net_free(client);
	for (unsigned i = 0; i < WORKERS; i++)
		loop_post(workers[i].loop, &workers[i].stop_mail);
	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
	for (unsigned i = 0; i < WORKERS; i++) {
		assert_int_equal(workers[i].opened, 2);
		assert_int_equal(workers[i].closed, 2);
		assert_int_equal(workers[i].handled, 2 * PER_LINK);
		assert_int_equal(workers[i].strangers, 0);
		net_free(workers[i].net);
		buffer_cache_adopt(loop_buffers(workers[i].loop));
		loop_free(workers[i].loop);
	}
	free(calls);
}

/* The same over a unix socket, which collie uses. */
static void test_unix_sockets_serve_as_well(void **state)
{
	struct bed *bed = *state;
	const char *tcp = bed->tcp_any;

	bed->tcp_any = bed->unix_address;
	struct rig *rig = rig_new(bed, NULL, NULL);
	struct net_link *link = rig_link(rig, NULL);
	struct test_call calls[100];
	for (unsigned i = 0; i < ARRAY_COUNT(calls); i++) {
		test_call_init(&calls[i], OP_ECHO, i, 0);
		test_call_fill(&calls[i], bed->loop, 1 + i * 1000, 2);
		calls[i].call.reply_max = 1 + i * 1000;
		net_link_call(link, &calls[i].call);
	}
	BED_UNTIL(bed, net_link_outstanding(link) == 0);
	for (unsigned i = 0; i < ARRAY_COUNT(calls); i++) {
		assert_true(calls[i].is_right);
		test_call_drop(&calls[i]);
	}
	rig_free(rig);
	bed->tcp_any = tcp;
}

int main(void)
{
	const struct CMUnitTest threads[] = {
		BED_TEST(test_sessions_are_served_by_the_loop_they_name),
		BED_TEST(test_unix_sockets_serve_as_well),
		BED_TEST(test_requests_allocate_nothing_in_the_steady_state),
	};
	int failed = 0;

	failed += _cmocka_run_group_tests("net: calls", net_suite_calls, net_suite_calls_count,
					  NULL, NULL);
	failed += _cmocka_run_group_tests("net: lies", net_suite_lies, net_suite_lies_count, NULL,
					  NULL);
	failed += _cmocka_run_group_tests("net: life", net_suite_life, net_suite_life_count, NULL,
					  NULL);
	failed += cmocka_run_group_tests_name("net: on real loops", threads, NULL, NULL);
	return failed != 0;
}
