/*
 * corosync[:CHANNEL] among real processes on real corosyncs: killed under load, all at once, and how fast it is. The
 * connections between sheep are socket pairs here: the kernel closes them when it kills.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>

#include "tests/engine/corosync_hosts.h"
#include "tests/engine/processes.h"

#define WORKERS 3

static struct corosync_hosts hosts; /* of all tests */

struct peer_end {
	struct loop_op op;
	struct worker *worker;
	unsigned number;
};

struct group {
	struct processes processes;
	char channel[32];
	int pairs[WORKERS][WORKERS]; /* [i][k]: i's end of its connection with k */
	/* in a worker's process */
	char dir[128];
	struct peer_end peers[WORKERS];
};

/* ---- a worker ---- */

static void enter(struct worker *w, struct engine_options *options)
{
	struct group *g = w->processes->world;

	for (unsigned i = 0; i < WORKERS; i++)
		for (unsigned k = 0; k < WORKERS; k++)
			if (i != k && i != w->number)
				(void)close(g->pairs[i][k]);
	corosync_hosts_enter(&hosts, w->number);
	(void)snprintf(g->dir, sizeof(g->dir), "%s/%s-%u", hosts.dir, g->channel, w->number);
	(void)snprintf(w->spec, sizeof(w->spec), "corosync:%s", g->channel);
	options->dir = g->dir;
}

static void on_peer(struct loop_op *op, int result)
{
	struct peer_end *peer = container_of_type(op, struct peer_end, op);
	struct processes_memory *memory = peer->worker->processes->memory;
	struct uuid node = processes_node(peer->number);

	if (result >= 0)
		engine_link(peer->worker->engine, &node,
			    atomic_load(&memory->desks[peer->number].start), true);
}

static void opened(struct worker *w)
{
	struct group *g = w->processes->world;

	for (unsigned n = 0; n < WORKERS; n++) {
		struct peer_end *peer = &g->peers[n];

		if (n == w->number)
			continue;
		peer->worker = w;
		peer->number = n;
		peer->op.done = on_peer;
		loop_poll(w->loop, &peer->op, g->pairs[w->number][n], POLLIN);
	}
}

/* ---- the test's side ---- */

#define UNTIL(g, condition) PROCESSES_UNTIL(&(g)->processes, condition)

static struct desk *desk_of(struct group *g, unsigned number)
{
	return &g->processes.memory->desks[number];
}

static void start_all(struct group *g)
{
	int pair[2];

	for (unsigned i = 0; i < WORKERS; i++)
		for (unsigned k = i + 1; k < WORKERS; k++) {
			assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair),
					 0);
			g->pairs[i][k] = pair[0];
			g->pairs[k][i] = pair[1];
		}
	for (unsigned n = 0; n < WORKERS; n++)
		processes_start(&g->processes, n);
	for (unsigned i = 0; i < WORKERS; i++)
		for (unsigned k = 0; k < WORKERS; k++)
			if (i != k)
				(void)close(g->pairs[i][k]);
	UNTIL(g, processes_see_all(&g->processes));
}

static void set_load(struct group *g, uint32_t outstanding)
{
	for (unsigned n = 0; n < WORKERS; n++)
		processes_set_load(&g->processes, n, outstanding, 250);
}

static int setup(void **state)
{
	static unsigned channels;
	struct group *g = calloc(1, sizeof(*g));

	processes_init(&g->processes, WORKERS);
	g->processes.world = g;
	g->processes.enter = enter;
	g->processes.opened = opened;
	(void)snprintf(g->channel, sizeof(g->channel), "processes-%u", ++channels);
	*state = g;
	return 0;
}

static int teardown(void **state)
{
	struct group *g = *state;

	processes_done(&g->processes);
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
	UNTIL(g, atomic_load(&desk_of(g, 0)->own) > 50);
	for (victim = 0; victim < WORKERS; victim++) {
		struct desk *other = desk_of(g, (victim + 1) % WORKERS);
		uint64_t start = atomic_load(&desk_of(g, victim)->start), begin = processes_now(),
			 told;
		uint64_t own = atomic_load(&other->own);

		for (unsigned n = 0; n < WORKERS; n++)
			atomic_store(&desk_of(g, n)->gap_ns, 0);
		assert_int_equal(kill(g->processes.pids[victim], SIGKILL), 0);
		UNTIL(g, processes_know_death(&g->processes, victim, start));
		told = atomic_load(&other->died_ns[victim]) - begin;
		UNTIL(g, atomic_load(&other->own) > own + 50);
		print_message(
			"worker %u: its death was known after %.1f ms; longest pause of commits "
			"%.1f ms\n",
			victim, (double)told / NS_PER_MS,
			(double)atomic_load(&other->gap_ns) / NS_PER_MS);
		/* All anew, for the connections. */
		processes_kill_all(&g->processes);
		start_all(g);
	}
	set_load(g, 0);
	UNTIL(g, processes_are_at_one_index(&g->processes));
}

/* All at once, with proposals under way, again and again: what anyone saw stays. */
static void test_all_killed_at_once_have_one_log(void **state)
{
	struct group *g = *state;

	start_all(g);
	set_load(g, 20);
	for (unsigned round = 0; round < 4; round++) {
		uint64_t own = atomic_load(&desk_of(g, 0)->own), most = 0;

		UNTIL(g, atomic_load(&desk_of(g, 0)->own) > own + 100);
		processes_kill_all(&g->processes);
		for (unsigned n = 0; n < WORKERS; n++)
			most = max_of(most, atomic_load(&desk_of(g, n)->index));
		start_all(g);
		for (unsigned n = 0; n < WORKERS; n++)
			assert_true(atomic_load(&desk_of(g, n)->index) >= most);
	}
	set_load(g, 0);
	UNTIL(g, processes_are_at_one_index(&g->processes));
}

static uint64_t own_of_all(struct group *g)
{
	uint64_t own = 0;

	for (unsigned n = 0; n < WORKERS; n++)
		own += atomic_load(&desk_of(g, n)->own);
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
		atomic_store(&desk_of(g, 1)->outstanding, loads[i]);
		own = own_of_all(g);
		UNTIL(g, own_of_all(g) > own + 20);
		own = own_of_all(g);
		latency = atomic_load(&desk_of(g, 1)->latency_ns);
		count = atomic_load(&desk_of(g, 1)->own);
		begin = processes_now();
		UNTIL(g, processes_now() > begin + NS_PER_S);
		latency = atomic_load(&desk_of(g, 1)->latency_ns) - latency;
		count = atomic_load(&desk_of(g, 1)->own) - count;
		assert_true(count > 0);
		print_message(
			"%u under way by %s: %.0f commands/s, %.2f ms from proposal to commit\n",
			loads[i], i ? "each of three" : "one",
			(double)(own_of_all(g) - own) * NS_PER_S /
				(double)(processes_now() - begin),
			(double)latency / (double)count / NS_PER_MS);
	}
	set_load(g, 0);
	UNTIL(g, processes_are_at_one_index(&g->processes));
	for (unsigned n = 0; n < WORKERS; n++)
		atomic_store(&desk_of(g, n)->quit, true);
	for (unsigned n = 0; n < WORKERS; n++)
		processes_reap(&g->processes, n);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

static int run(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_killed_process_is_known_to_be_dead_and_gone_on_without),
		TEST(test_all_killed_at_once_have_one_log),
		TEST(test_how_fast_it_is),
	};

	corosync_hosts_start_all(&hosts);
	return cmocka_run_group_tests_name("corosync processes", tests, NULL, NULL);
}

int main(void)
{
	return corosync_hosts_run(&hosts, WORKERS, run);
}
