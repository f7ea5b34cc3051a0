/* lib/net in the simulator: the common suite, and what only a network of our own can do. */
#include "tests/unit/net_suite.h"

#include <stdio.h>

#include "tests/sim/sim.h"

struct sim_bed {
	struct bed bed; /* loop: the dialling machine; other: the one that serves */
	struct sim_world *world;
	struct sim_host *client, *server;
	char tcp_any[LOOP_ADDRESS_MAX], tcp_dead[LOOP_ADDRESS_MAX];
};

static uint64_t seed = 1;

static void quiet(struct logger *logger, enum log_level level, const char *line)
{
	if (getenv("TEST_LOG"))
		log_sink_text(logger, level, line);
}

static struct logger quiet_logger = {.level = LOG_LEVEL_DEBUG, .sink = quiet};

int bed_setup(void **state)
{
	const struct loop_options options = {.name = "test", .logger = &quiet_logger};
	struct sim_bed *sim = calloc(1, sizeof(*sim));
	struct bed *bed = &sim->bed;

	sim->world = sim_world_new(seed);
	sim->client = sim_host_new(sim->world, "client");
	sim->server = sim_host_new(sim->world, "server");
	(void)snprintf(sim->tcp_any, sizeof(sim->tcp_any), "%s:0", sim_host_address(sim->server));
	(void)snprintf(sim->tcp_dead, sizeof(sim->tcp_dead), "%s:1", sim_host_address(sim->server));
	bed->tcp_any = sim->tcp_any;
	bed->tcp_dead = sim->tcp_dead;
	assert_int_equal(sim_loop_new(sim->world, sim->client, &options, &bed->loop), 0);
	assert_int_equal(sim_loop_new(sim->world, sim->server, &options, &bed->other), 0);
	*state = bed;
	return 0;
}

int bed_teardown(void **state)
{
	struct sim_bed *sim = *state;

	loop_free(sim->bed.other);
	loop_free(sim->bed.loop);
	sim_world_free(sim->world);
	free(sim);
	return 0;
}

static const struct net_options quick = {
	.silence_ns = 1 * NS_PER_S,
	.connect_timeout_ns = 1 * NS_PER_S,
	.backoff_min_ns = 10 * NS_PER_MS,
	.backoff_max_ns = 100 * NS_PER_MS,
};

static struct sim_bed *sim_of(struct rig *rig)
{
	return (struct sim_bed *)rig->bed;
}

static void run_for(struct rig *rig, uint64_t ns)
{
	uint64_t end_ns = loop_now(rig->bed->loop) + ns;

	BED_UNTIL(rig->bed, loop_now(rig->bed->loop) >= end_ns);
}

/* A cut link with something outstanding is noticed in time, and comes back when it is healed. */
static void test_partition_is_noticed_within_the_silence(void **state)
{
	for (unsigned direction = 0; direction < 3; direction++) {
		struct rig *rig = rig_new(*state, &quick, &quick);
		struct sim_bed *sim = sim_of(rig);
		struct net_link *link = rig_link(rig, NULL);
		struct test_call held, call;

		test_call_init(&held, OP_HOLD, 0, 0);
		net_link_call(link, &held.call);
		BED_UNTIL(rig->bed, rig->held_count == 1);
		run_for(rig, 3 * quick.silence_ns); /* pings go on */
		assert_int_equal(held.done, 0);
		if (direction != 1)
			sim_link_cut(sim->client, sim->server);
		if (direction != 0)
			sim_link_cut(sim->server, sim->client);
		uint64_t cut_ns = loop_now(rig->bed->loop);
		assert_int_equal(test_call_wait(rig, &held), -E_CLOSED);
		assert_true(loop_now(rig->bed->loop) - cut_ns <= quick.silence_ns * 5 / 4);
		assert_int_equal(rig->down_error, -ETIMEDOUT);
		/* Dials into it time out; when it is healed one gets through. */
		test_call_init(&call, OP_ECHO, 0, 0);
		net_link_call(link, &call.call);
		assert_int_equal(test_call_wait(rig, &call), -E_CLOSED);
		sim_unpartition(sim->client, sim->server);
		test_call_init(&call, OP_ECHO, 1, 0);
		net_link_connect(link);
		BED_UNTIL(rig->bed, net_link_is_up(link));
		net_link_call(link, &call.call);
		assert_int_equal(test_call_wait(rig, &call), 0);
		/* The old session was half open at the server until the new one ended it. */
		BED_UNTIL(rig->bed, rig->closed == rig->opened - 1);
		rig_free(rig);
	}
}

/* An idle link costs nothing, so it cannot know: it survives a partition that nobody used. */
static void test_idle_link_exchanges_nothing(void **state)
{
	struct rig *rig = rig_new(*state, &quick, &quick);
	struct net_link *link = rig_link(rig, NULL);
	struct test_call call;

	test_call_init(&call, OP_ECHO, 0, 0);
	net_link_call(link, &call.call);
	assert_int_equal(test_call_wait(rig, &call), 0);
	run_for(rig, 2 * quick.silence_ns);
	uint64_t events = sim_world_events(sim_of(rig)->world);
	uint64_t bytes = net_stats(rig->server)->bytes_in;
	sim_partition(sim_of(rig)->client, sim_of(rig)->server);
	/* One long wait: the loops themselves do not wake up for it. */
	(void)loop_turn(rig->bed->loop, loop_now(rig->bed->loop) + 3600 * NS_PER_S);
	assert_true(sim_world_events(sim_of(rig)->world) - events < 10);
	sim_unpartition(sim_of(rig)->client, sim_of(rig)->server);
	assert_int_equal(net_stats(rig->server)->bytes_in, bytes);
	assert_true(net_link_is_up(link));
	test_call_init(&call, OP_ECHO, 0, 0);
	net_link_call(link, &call.call);
	assert_int_equal(test_call_wait(rig, &call), 0);
	assert_int_equal(rig->downs, 0);
	rig_free(rig);
}

/* A machine that loses its power says nothing: the silence tells. */
static void test_dead_machine_is_noticed_by_its_silence(void **state)
{
	struct rig *rig = rig_new(*state, &quick, &quick);
	struct sim_bed *sim = sim_of(rig);
	struct net_link *link = rig_link(rig, NULL);
	struct test_call calls[20];

	net_link_connect(link);
	BED_UNTIL(rig->bed, net_link_is_up(link));
	for (unsigned i = 0; i < ARRAY_COUNT(calls); i++) {
		test_call_init(&calls[i], i % 2 ? OP_HOLD : OP_ECHO, i, 0);
		net_link_call(link, &calls[i].call);
	}
	BED_UNTIL(rig->bed, rig->held_count == 10);
	/* As the other machine sees it: nothing comes back any more. */
	sim_partition(sim->client, sim->server);
	BED_UNTIL(rig->bed, net_link_outstanding(link) == 0);
	for (unsigned i = 0; i < ARRAY_COUNT(calls); i++)
		assert_int_equal(calls[i].done, 1);
	sim_unpartition(sim->client, sim->server);
	rig_free(rig);
}

/* One-way requests have no replies that could be missing, but their send has an end. */
static void test_oneway_requests_into_nowhere_are_noticed(void **state)
{
	enum { NOTES = 8000 }; /* more than any socket buffer takes */
	struct rig *rig = rig_new(*state, &quick, &quick);
	struct net_link *link = rig_link(rig, NULL);
	struct test_call *notes = calloc(NOTES, sizeof(*notes));
	struct slice payload = slice_of(buffer_new(loop_buffers(rig->bed->loop), 4096), 0, 4096);
	unsigned closed = 0;

	net_link_connect(link);
	BED_UNTIL(rig->bed, net_link_is_up(link));
	sim_link_cut(sim_of(rig)->client, sim_of(rig)->server);
	uint64_t cut_ns = loop_now(rig->bed->loop);
	for (unsigned i = 0; i < NOTES; i++) {
		test_call_init(&notes[i], OP_NOTE, i, 0);
		notes[i].call.slices = &payload;
		notes[i].call.slice_count = 1;
		net_link_call(link, &notes[i].call);
	}
	BED_UNTIL(rig->bed, net_link_outstanding(link) == 0);
	assert_true(loop_now(rig->bed->loop) - cut_ns <= 2 * quick.silence_ns);
	for (unsigned i = 0; i < NOTES; i++) {
		assert_int_equal(notes[i].done, 1);
		closed += notes[i].result == -E_CLOSED;
	}
	assert_true(closed > 0);
	sim_unpartition(sim_of(rig)->client, sim_of(rig)->server);
	buffer_put(payload.buffer);
	free(notes);
	rig_free(rig);
}

/* It asks for less than would be too much, and does not read it. */
static void test_peer_that_does_not_read_is_dropped_in_time(void **state)
{
	struct rig *rig = rig_new(*state, &quick, NULL);
	struct bed *bed = rig->bed;
	struct call dial = {0};

	loop_connect(bed->loop, call_begin(&dial), net_listener_address(rig->listener));
	BED_UNTIL(bed, dial.completions);
	struct raw raw = {.bed = bed, .loop = bed->loop, .socket = dial.op.out.socket};
	raw_hello(&raw, &identity_b, 1);
	BED_UNTIL(bed, rig->opened == 1);
	for (unsigned i = 0; i < 30; i++) /* the echo of 1 MiB each */
		assert_true(raw_frame(&raw, OP_ECHO, 0, i + 1, 8, 1 << 20, 1 << 20));
	uint64_t asked_ns = loop_now(bed->loop);
	BED_UNTIL(bed, rig->closed == 1);
	assert_int_equal(rig->closed_error, -ETIMEDOUT);
	assert_in_range(loop_now(bed->loop) - asked_ns, quick.silence_ns / 2, quick.silence_ns * 2);
	loop_socket_close(bed->loop, raw.socket);
	bed_turn(bed);
	rig_free(rig);
}

/* How long until the link is up again after its session is closed by the server. */
static uint64_t time_of_return(struct rig *rig)
{
	unsigned ups = rig->ups;
	uint64_t from_ns = loop_now(rig->bed->loop);

	BED_UNTIL(rig->bed, rig->session);
	net_session_close(rig->session, -EIO, "for a test");
	BED_UNTIL(rig->bed, rig->ups > ups);
	return loop_now(rig->bed->loop) - from_ns;
}

/* Connections that die young make the pauses grow; one that lived lets them start anew. */
static void test_pauses_forget_what_is_long_ago(void **state)
{
	struct rig *rig = rig_new(*state, NULL,
				  &(struct net_options){.backoff_min_ns = 20 * NS_PER_MS,
							.backoff_max_ns = 2 * NS_PER_S});
	struct net_link *link = rig_link(rig, NULL);
	uint64_t pause_ns = 0;

	net_link_connect(link);
	BED_UNTIL(rig->bed, net_link_is_up(link));
	assert_true(time_of_return(rig) < 30 * NS_PER_MS);
	for (unsigned i = 0; i < 8; i++)
		pause_ns = time_of_return(rig);
	assert_true(pause_ns > 900 * NS_PER_MS);
	run_for(rig, 3 * NS_PER_S);
	assert_true(time_of_return(rig) < 30 * NS_PER_MS);
	/* Nor has the dead end of an old address anything to do with a new one. */
	for (unsigned i = 0; i < 8; i++)
		pause_ns = time_of_return(rig);
	assert_true(pause_ns > 900 * NS_PER_MS);
	struct net_listener *second;
	struct error err = {0};
	assert_int_equal(net_listen(rig->server, rig->bed->tcp_any,
				    &(struct net_listener_options){.magic = FRAME_MAGIC_PEER},
				    &second, &err),
			 0);
	unsigned ups = rig->ups;
	uint64_t from_ns = loop_now(rig->bed->loop);
	assert_int_equal(net_link_set_address(link, net_listener_address(second)), 0);
	BED_UNTIL(rig->bed, rig->ups > ups);
	assert_true(loop_now(rig->bed->loop) - from_ns < 30 * NS_PER_MS);
	rig_free(rig);
}

struct chaos {
	struct rig *rig;
	struct net_link *links[4];
	struct test_call calls[4][50];
	struct random random;
};

static void chaos_call(struct chaos *chaos, unsigned link, unsigned i)
{
	struct test_call *call = &chaos->calls[link][i];
	uint32_t size = (uint32_t)random_below(&chaos->random, i % 10 ? 6000 : 300000);

	test_call_init(call, OP_ECHO, link * 100 + i, 0);
	if (size)
		test_call_fill(call, chaos->rig->bed->loop, size, 1 + i % 4);
	call->call.reply_max = max_of(size, 1u);
	net_link_call(chaos->links[link], &call->call);
}

static void chaos_fault(struct chaos *chaos)
{
	struct sim_bed *sim = sim_of(chaos->rig);
	struct net_link *link = chaos->links[random_below(&chaos->random, 4)];

	switch (random_below(&chaos->random, 6)) {
	case 0:
		sim_reset_streams(sim->client, sim->server);
		break;
	case 1:
		sim_link_cut(sim->client, sim->server);
		break;
	case 2:
		sim_link_cut(sim->server, sim->client);
		break;
	case 3:
		sim_unpartition(sim->client, sim->server);
		break;
	case 4:
		net_link_reset(link, -EIO, "at random");
		break;
	case 5:
		sim_link_set_delay(sim->client, sim->server, NS_PER_US,
				   random_below(&chaos->random, 20 * NS_PER_MS) + NS_PER_US);
		break;
	}
}

/* Everything at random: whatever happens, each call completes once and is answered right or closed. */
static void chaos_run(struct bed *bed, uint64_t chaos_seed)
{
	struct chaos *chaos = calloc(1, sizeof(*chaos));
	struct rig *rig = rig_new(
		bed, &(struct net_options){.credit_requests = 16, .credit_bytes = 2 << 20}, &quick);
	unsigned answered = 0;

	random_init(&chaos->random, chaos_seed);
	chaos->rig = rig;
	for (unsigned k = 0; k < 4; k++)
		chaos->links[k] = rig_link(rig, NULL);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned k = 0; k < 4; k++)
			for (unsigned i = 0; i < 50; i++)
				chaos_call(chaos, k, i);
		for (unsigned i = random_below(&chaos->random, 6); i-- > 0;) {
			run_for(rig, random_below(&chaos->random, 300 * NS_PER_MS));
			chaos_fault(chaos);
		}
		sim_unpartition(sim_of(rig)->client, sim_of(rig)->server);
		for (unsigned k = 0; k < 4; k++) {
			BED_UNTIL(bed, net_link_outstanding(chaos->links[k]) == 0);
			for (unsigned i = 0; i < 50; i++) {
				struct test_call *call = &chaos->calls[k][i];
				assert_int_equal(call->done, 1);
				if (call->result == 0)
					assert_true(call->is_right);
				else
					assert_int_equal(call->result, -E_CLOSED);
				answered += call->result == 0;
				test_call_drop(call);
			}
		}
	}
	assert_true(answered > 0);
	for (unsigned k = 1; k < 4; k++)
		net_link_free(chaos->links[k]);
	rig_free(rig);
	free(chaos);
}

static void test_chaos_loses_and_doubles_nothing(void **state)
{
	for (uint64_t i = 1; i <= 40; i++)
		chaos_run(*state, i);
}

/* One seed is one history, down to the event. */
static void test_same_seed_same_history(void **state)
{
	uint64_t traces[2];

	for (unsigned i = 0; i < 2; i++) {
		void *bed;
		seed = 99;
		assert_int_equal(bed_setup(&bed), 0);
		chaos_run(bed, 5);
		traces[i] = sim_world_trace(((struct sim_bed *)bed)->world);
		assert_int_equal(bed_teardown(&bed), 0);
	}
	assert_int_equal(traces[0], traces[1]);
}

int main(void)
{
	const struct CMUnitTest only_here[] = {
		BED_TEST(test_partition_is_noticed_within_the_silence),
		BED_TEST(test_idle_link_exchanges_nothing),
		BED_TEST(test_dead_machine_is_noticed_by_its_silence),
		BED_TEST(test_oneway_requests_into_nowhere_are_noticed),
		BED_TEST(test_peer_that_does_not_read_is_dropped_in_time),
		BED_TEST(test_pauses_forget_what_is_long_ago),
		BED_TEST(test_chaos_loses_and_doubles_nothing),
		BED_TEST(test_same_seed_same_history),
	};
	int failed = 0;

	failed += _cmocka_run_group_tests("sim net: calls", net_suite_calls, net_suite_calls_count,
					  NULL, NULL);
	failed += _cmocka_run_group_tests("sim net: lies", net_suite_lies, net_suite_lies_count,
					  NULL, NULL);
	failed += _cmocka_run_group_tests("sim net: life", net_suite_life, net_suite_life_count,
					  NULL, NULL);
	failed += cmocka_run_group_tests_name("sim net: only here", only_here, NULL, NULL);
	return failed != 0;
}
