/*
 * corosync[:CHANNEL] among real processes on real corosyncs: killed under load, all at once, and how fast it is. Workers
 * share memory with the test: what each saw at which index, and when. The connections between
 * sheep are socket pairs here: the kernel closes them when it kills.
 */
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/hash.h"
#include "lib/base/size.h"
#include "sheep/engine/engine.h"
#include "tests/engine/corosync_hosts.h"

#define WORKERS	   3
#define INDEX_MAX  1000000
#define TIMEOUT_NS (60 * NS_PER_S)

static struct corosync_hosts hosts; /* of all tests */

/* One worker's part of the memory: the test writes the wishes, the worker the rest. */
struct desk {
	_Atomic uint32_t outstanding; /* wish: keep so many proposals under way */
	_Atomic bool quit;	      /* wish: leave */
	_Atomic uint64_t start;	      /* of the start that runs */
	_Atomic uint64_t index, own;  /* own: of its commands that were committed */
	_Atomic uint64_t latency_ns;  /* of those: sum */
	_Atomic uint64_t last_ns,
		gap_ns; /* of its commits: when the last came; the longest pause */
	_Atomic bool is_ready, has_failed;
	_Atomic uint32_t live; /* bit per worker */
	_Atomic uint64_t ended_start[WORKERS], ended_ns[WORKERS];
	char failure[ERROR_TEXT_MAX];
};

struct memory {
	struct desk desks[WORKERS];
	_Atomic uint64_t mismatch; /* an index at which two disagree */
	_Atomic uint64_t truth[INDEX_MAX];
};

struct command {
	uint32_t worker, pad;
	uint64_t start;
	uint64_t asked_ns;
};

struct peer_end {
	struct loop_op op;
	struct worker *worker;
	unsigned number;
	int fd;
};

struct worker {
	struct memory *memory;
	struct desk *desk;
	unsigned number;
	uint64_t start;
	struct loop *loop;
	struct engine *engine;
	uint32_t under_way;
	uint64_t digest;
	bool has_left;
	struct peer_end peers[WORKERS];
};

static uint64_t now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static struct uuid node_of(unsigned number)
{
	struct random random;

	random_init(&random, number + 1);
	return uuid_make(&random);
}

/* ---- a worker: its state is a digest of what it saw ---- */

static void check_truth(struct worker *w, uint64_t index)
{
	uint64_t expected = 0;

	if (index >= INDEX_MAX)
		abort();
	if (!atomic_compare_exchange_strong(&w->memory->truth[index], &expected, w->digest) &&
	    expected != w->digest)
		atomic_store(&w->memory->mismatch, index);
	atomic_store(&w->desk->index, index);
}

static void note_time(struct desk *desk)
{
	uint64_t at = now(), last = atomic_exchange(&desk->last_ns, at);

	if (last && at - last > atomic_load(&desk->gap_ns))
		atomic_store(&desk->gap_ns, at - last);
}

static void on_commit(void *context, uint64_t index, const void *data, uint32_t size)
{
	struct worker *w = context;
	struct command command;

	w->digest = hash_u64_pair(hash_u64_pair(w->digest, index), hash_bytes(data, size));
	check_truth(w, index);
	memcpy(&command, data, sizeof(command));
	note_time(w->desk);
	if (command.worker != w->number || command.start != w->start)
		return;
	w->under_way -= w->under_way > 0;
	atomic_fetch_add(&w->desk->own, 1);
	atomic_fetch_add(&w->desk->latency_ns, now() - command.asked_ns);
}

static int on_install(void *context, uint64_t index, const void *data, size_t size,
		      struct error *err)
{
	struct worker *w = context;

	if (size != sizeof(w->digest))
		return error_set(err, -E_CORRUPT, "image");
	memcpy(&w->digest, data, size);
	check_truth(w, index);
	return 0;
}

static int on_snapshot(void *context, struct engine_image *out)
{
	struct worker *w = context;

	out->size = sizeof(w->digest);
	out->data = malloc(out->size);
	memcpy(out->data, &w->digest, out->size);
	return 0;
}

static void on_ready(void *context)
{
	atomic_store(&((struct worker *)context)->desk->is_ready, true);
}

static void on_members(void *context, const struct engine_member *list, uint32_t count)
{
	struct worker *w = context;
	uint32_t live = 0;

	for (unsigned n = 0; n < WORKERS; n++) {
		struct uuid id = node_of(n);

		for (uint32_t i = 0; i < count; i++)
			if (uuid_is_equal(&id, &list[i].node))
				live |= BIT(n);
	}
	atomic_store(&w->desk->live, live);
}

static void on_ended(void *context, const struct uuid *node, uint64_t start, enum engine_end how)
{
	struct worker *w = context;

	for (unsigned n = 0; n < WORKERS; n++) {
		struct uuid id = node_of(n);

		if (!uuid_is_equal(&id, node) || how != ENGINE_END_DIED ||
		    atomic_load(&w->desk->ended_start[n]) == start)
			continue;
		atomic_store(&w->desk->ended_ns[n], now());
		atomic_store(&w->desk->ended_start[n], start);
	}
}

static void on_quorum(void *context, bool has_quorum)
{
}

static void on_failed(void *context, const struct error *err)
{
	struct desk *desk = ((struct worker *)context)->desk;

	memcpy(desk->failure, err->text, sizeof(desk->failure));
	atomic_store(&desk->has_failed, true);
}

static void on_left(void *context)
{
	((struct worker *)context)->has_left = true;
}

static const struct engine_callbacks callbacks = {
	.commit = on_commit,
	.install = on_install,
	.snapshot = on_snapshot,
	.ready = on_ready,
	.members = on_members,
	.ended = on_ended,
	.quorum = on_quorum,
	.failed = on_failed,
	.left = on_left,
};

static void on_peer(struct loop_op *op, int result)
{
	struct peer_end *peer = container_of_type(op, struct peer_end, op);
	struct uuid node = node_of(peer->number);

	if (result < 0)
		return;
	engine_link(peer->worker->engine, &node,
		    atomic_load(&peer->worker->memory->desks[peer->number].start), true);
}

static void watch_peers(struct worker *w)
{
	for (unsigned n = 0; n < WORKERS; n++) {
		struct peer_end *peer = &w->peers[n];

		if (!peer->fd)
			continue;
		peer->worker = w;
		peer->number = n;
		peer->op.done = on_peer;
		loop_poll(w->loop, &peer->op, peer->fd, POLLIN);
	}
}

static void propose(struct worker *w)
{
	uint8_t body[300] = {0};
	struct command command = {.worker = w->number, .start = w->start, .asked_ns = now()};
	uint32_t size = (uint32_t)(sizeof(command) + random_below(loop_random(w->loop), 250));

	memcpy(body, &command, sizeof(command));
	if (engine_propose(w->engine, body, size) == 0)
		w->under_way++;
}

static void worker_run(struct worker *w, const char *channel)
{
	char dir[128], spec[96];
	struct engine_options options = {
		.self = {.node = node_of(w->number), .start = w->start},
		.dir = dir,
	};
	struct logger logger = {.level = LOG_LEVEL_WARNING, .sink = log_sink_text};
	struct error err = {0};

	corosync_hosts_enter(&hosts, w->number);
	w->digest = 1;
	(void)snprintf(dir, sizeof(dir), "%s/%s-%u", hosts.dir, channel, w->number);
	(void)snprintf(spec, sizeof(spec), "corosync:%s", channel);
	if (loop_new(&(struct loop_options){.name = "worker", .logger = &logger}, &w->loop, &err) <
		    0 ||
	    engine_open(spec, w->loop, &options, &callbacks, w, &w->engine, &err) < 0) {
		on_failed(w, &err);
		return;
	}
	watch_peers(w);
	while (!atomic_load(&w->desk->quit)) {
		while (w->under_way < atomic_load(&w->desk->outstanding))
			propose(w);
		(void)loop_turn(w->loop, loop_now(w->loop) + 2 * NS_PER_MS);
	}
	engine_leave(w->engine);
	while (!w->has_left)
		(void)loop_turn(w->loop, loop_now(w->loop) + NS_PER_MS);
	_exit(0);
}

/* ---- the test's side ---- */

struct group {
	struct memory *memory;
	char channel[32];
	pid_t pids[WORKERS];
	uint64_t starts;
};

static void start_worker(struct group *g, unsigned number, int pairs[WORKERS][WORKERS])
{
	struct desk *desk = &g->memory->desks[number];

	assert_int_equal(g->pids[number], 0);
	atomic_store(&desk->quit, false);
	atomic_store(&desk->is_ready, false);
	atomic_store(&desk->start, ++g->starts);
	g->pids[number] = fork();
	assert_true(g->pids[number] >= 0);
	if (g->pids[number] == 0) {
		struct worker w = {
			.memory = g->memory, .desk = desk, .number = number, .start = g->starts};

		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (unsigned i = 0; i < WORKERS; i++)
			for (unsigned k = 0; k < WORKERS; k++)
				if (i == number && i != k)
					w.peers[k].fd = pairs[i][k];
				else if (i != k)
					(void)close(pairs[i][k]);
		worker_run(&w, g->channel);
		_exit(1);
	}
}

static void check(struct group *g)
{
	assert_int_equal(atomic_load(&g->memory->mismatch), 0);
	for (unsigned n = 0; n < WORKERS; n++)
		if (atomic_load(&g->memory->desks[n].has_failed))
			fail_msg("worker %u: %s", n, g->memory->desks[n].failure);
}

#define UNTIL(g, condition)                                             \
	do {                                                            \
		uint64_t end_ = now() + TIMEOUT_NS;                     \
		while (!(condition)) {                                  \
			if (now() > end_)                               \
				fail_msg("never came: %s", #condition); \
			check(g);                                       \
			(void)usleep(200);                              \
		}                                                       \
	} while (0)

static bool all_see_all(struct group *g)
{
	for (unsigned n = 0; n < WORKERS; n++)
		if (!atomic_load(&g->memory->desks[n].is_ready) ||
		    atomic_load(&g->memory->desks[n].live) != BIT(WORKERS) - 1)
			return false;
	return true;
}

static void start_all(struct group *g)
{
	int pairs[WORKERS][WORKERS] = {0}, pair[2];

	for (unsigned i = 0; i < WORKERS; i++)
		for (unsigned k = i + 1; k < WORKERS; k++) {
			assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair),
					 0);
			pairs[i][k] = pair[0];
			pairs[k][i] = pair[1];
		}
	for (unsigned n = 0; n < WORKERS; n++)
		start_worker(g, n, pairs);
	for (unsigned i = 0; i < WORKERS; i++)
		for (unsigned k = 0; k < WORKERS; k++)
			if (i != k)
				(void)close(pairs[i][k]);
	UNTIL(g, all_see_all(g));
}

static void reap(struct group *g, unsigned number)
{
	assert_int_equal(waitpid(g->pids[number], NULL, 0), g->pids[number]);
	g->pids[number] = 0;
}

static void set_load(struct group *g, uint32_t outstanding)
{
	for (unsigned n = 0; n < WORKERS; n++)
		atomic_store(&g->memory->desks[n].outstanding, outstanding);
}

static bool all_know_end(struct group *g, unsigned victim, uint64_t start)
{
	for (unsigned n = 0; n < WORKERS; n++)
		if (n != victim && atomic_load(&g->memory->desks[n].ended_start[victim]) != start)
			return false;
	return true;
}

static bool all_at_one_index(struct group *g)
{
	uint64_t index = atomic_load(&g->memory->desks[0].index);

	for (unsigned n = 1; n < WORKERS; n++)
		if (atomic_load(&g->memory->desks[n].index) != index)
			return false;
	return true;
}

static int setup(void **state)
{
	static unsigned channels;
	struct group *g = calloc(1, sizeof(*g));

	g->memory = mmap(NULL, sizeof(*g->memory), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_true(g->memory != MAP_FAILED);
	(void)snprintf(g->channel, sizeof(g->channel), "processes-%u", ++channels);
	*state = g;
	return 0;
}

static int teardown(void **state)
{
	struct group *g = *state;

	for (unsigned n = 0; n < WORKERS; n++)
		if (g->pids[n]) {
			(void)kill(g->pids[n], SIGKILL);
			reap(g, n);
		}
	(void)munmap(g->memory, sizeof(*g->memory));
	free(g);
	return 0;
}

/* ---- */

/* kill -9 under load: a certain death, known at once, and the log goes on, whoever led. */
static void test_killed_process_is_known_to_be_dead_and_gone_on_without(void **state)
{
	struct group *g = *state;
	unsigned victim;

	start_all(g);
	set_load(g, 4);
	UNTIL(g, atomic_load(&g->memory->desks[0].own) > 50);
	for (victim = 0; victim < WORKERS; victim++) {
		struct desk *other = &g->memory->desks[(victim + 1) % WORKERS];
		uint64_t start = atomic_load(&g->memory->desks[victim].start), begin = now(), told;
		uint64_t own = atomic_load(&other->own);

		for (unsigned n = 0; n < WORKERS; n++)
			atomic_store(&g->memory->desks[n].gap_ns, 0);
		assert_int_equal(kill(g->pids[victim], SIGKILL), 0);
		UNTIL(g, all_know_end(g, victim, start));
		told = atomic_load(&other->ended_ns[victim]) - begin;
		UNTIL(g, atomic_load(&other->own) > own + 50);
		print_message(
			"worker %u: its death was known after %.1f ms; longest pause of commits "
			"%.1f ms\n",
			victim, (double)told / NS_PER_MS,
			(double)atomic_load(&other->gap_ns) / NS_PER_MS);
		/* All anew, for the connections. */
		for (unsigned n = 0; n < WORKERS; n++) {
			if (n != victim)
				(void)kill(g->pids[n], SIGKILL);
			reap(g, n);
		}
		start_all(g);
	}
	set_load(g, 0);
	UNTIL(g, all_at_one_index(g));
}

/* All at once, with proposals under way, again and again: what anyone saw stays. */
static void test_all_killed_at_once_have_one_log(void **state)
{
	struct group *g = *state;

	start_all(g);
	set_load(g, 20);
	for (unsigned round = 0; round < 4; round++) {
		uint64_t own = atomic_load(&g->memory->desks[0].own), most = 0;

		UNTIL(g, atomic_load(&g->memory->desks[0].own) > own + 100);
		for (unsigned n = 0; n < WORKERS; n++)
			(void)kill(g->pids[n], SIGKILL);
		for (unsigned n = 0; n < WORKERS; n++) {
			reap(g, n);
			most = max_of(most, atomic_load(&g->memory->desks[n].index));
		}
		start_all(g);
		for (unsigned n = 0; n < WORKERS; n++)
			assert_true(atomic_load(&g->memory->desks[n].index) >= most);
	}
	set_load(g, 0);
	UNTIL(g, all_at_one_index(g));
}

static uint64_t own_of_all(struct group *g)
{
	uint64_t own = 0;

	for (unsigned n = 0; n < WORKERS; n++)
		own += atomic_load(&g->memory->desks[n].own);
	return own;
}

/* Figures, for docs/internals/engines.md; nothing is asserted of them. */
static void test_how_fast_it_is(void **state)
{
	static const uint32_t loads[] = {1, 16, 64};
	struct group *g = *state;

	start_all(g);
	for (unsigned i = 0; i < ARRAY_COUNT(loads); i++) {
		uint64_t own, begin, latency, count;

		set_load(g, i ? loads[i] : 0);
		atomic_store(&g->memory->desks[1].outstanding, loads[i]);
		own = own_of_all(g);
		UNTIL(g, own_of_all(g) > own + 20);
		own = own_of_all(g);
		latency = atomic_load(&g->memory->desks[1].latency_ns);
		count = atomic_load(&g->memory->desks[1].own);
		begin = now();
		UNTIL(g, now() > begin + NS_PER_S);
		latency = atomic_load(&g->memory->desks[1].latency_ns) - latency;
		count = atomic_load(&g->memory->desks[1].own) - count;
		assert_true(count > 0);
		print_message(
			"%u under way by %s: %.0f commands/s, %.2f ms from proposal to commit\n",
			loads[i], i ? "each of three" : "one",
			(double)(own_of_all(g) - own) * NS_PER_S / (double)(now() - begin),
			(double)latency / (double)count / NS_PER_MS);
	}
	set_load(g, 0);
	UNTIL(g, all_at_one_index(g));
	for (unsigned n = 0; n < WORKERS; n++)
		atomic_store(&g->memory->desks[n].quit, true);
	for (unsigned n = 0; n < WORKERS; n++)
		reap(g, n);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_killed_process_is_known_to_be_dead_and_gone_on_without),
		TEST(test_all_killed_at_once_have_one_log),
		TEST(test_how_fast_it_is),
	};
	const char *why = corosync_hosts_init(&hosts, WORKERS);
	int failed;

	if (why) {
		corosync_hosts_done(&hosts);
		(void)fprintf(stderr, "skipped: %s\n", why);
		return 77;
	}
	for (unsigned n = 0; n < WORKERS; n++)
		corosync_hosts_start(&hosts, n);
	failed = cmocka_run_group_tests_name("corosync processes", tests, NULL, NULL);
	corosync_hosts_done(&hosts);
	return failed != 0;
}
