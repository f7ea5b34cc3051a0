/* Workers of an engine in processes of their own (processes.h). */
#include "tests/engine/processes.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "lib/base/hash.h"

struct command {
	uint32_t worker, pad;
	uint64_t start;
	uint64_t asked_ns;
};

uint64_t processes_now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

struct uuid processes_node(unsigned number)
{
	struct random random;

	random_init(&random, number + 1);
	return uuid_make(&random);
}

/* ---- a worker ---- */

static void check_truth(struct worker *w)
{
	struct processes_memory *memory = w->processes->memory;
	uint64_t expected = 0;

	if (w->index >= PROCESSES_INDEX_MAX)
		abort();
	if (!atomic_compare_exchange_strong(&memory->truth[w->index], &expected, w->digest) &&
	    expected != w->digest)
		atomic_store(&memory->mismatch, w->index);
	atomic_store(&w->desk->index, w->index);
}

static void note_time(struct desk *desk)
{
	uint64_t at = processes_now(), last = atomic_exchange(&desk->last_ns, at);

	if (last && at - last > atomic_load(&desk->gap_ns))
		atomic_store(&desk->gap_ns, at - last);
}

static void on_commit(void *context, uint64_t index, const void *data, uint32_t size)
{
	struct worker *w = context;
	struct command command;
	uint64_t took;

	w->index = index;
	w->digest = hash_u64_pair(hash_u64_pair(w->digest, index), hash_bytes(data, size));
	check_truth(w);
	atomic_fetch_add(&w->desk->commits, 1);
	note_time(w->desk);
	memcpy(&command, data, sizeof(command));
	if (command.worker != w->number || command.start != w->start)
		return;
	w->under_way -= w->under_way > 0; /* the test's garbage may repeat one */
	took = processes_now() - command.asked_ns;
	atomic_fetch_add(&w->desk->own, 1);
	atomic_fetch_add(&w->desk->latency_ns, took);
	if (took > atomic_load(&w->desk->latency_max_ns))
		atomic_store(&w->desk->latency_max_ns, took);
}

static int on_install(void *context, uint64_t index, const void *data, size_t size,
		      struct error *err)
{
	struct worker *w = context;

	if (size != sizeof(w->digest))
		return error_set(err, -E_CORRUPT, "image");
	w->index = index;
	memcpy(&w->digest, data, size);
	check_truth(w);
	atomic_fetch_add(&w->desk->installs, 1);
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

	for (unsigned n = 0; n < w->processes->count; n++) {
		struct uuid id = processes_node(n);
		uint64_t start = 0;

		for (uint32_t i = 0; i < count; i++)
			if (uuid_is_equal(&id, &list[i].node))
				start = list[i].start;
		atomic_store(&w->desk->live[n], start);
	}
}

static void on_ended(void *context, const struct uuid *node, uint64_t start, enum engine_end how)
{
	struct worker *w = context;

	for (unsigned n = 0; n < w->processes->count; n++) {
		struct uuid id = processes_node(n);

		if (!uuid_is_equal(&id, node))
			continue;
		atomic_store(&w->desk->ended[n], start);
		if (how != ENGINE_END_DIED || atomic_load(&w->desk->died[n]) == start)
			continue;
		atomic_store(&w->desk->died_ns[n], processes_now());
		atomic_store(&w->desk->died[n], start);
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

static void propose(struct worker *w)
{
	struct command command = {
		.worker = w->number, .start = w->start, .asked_ns = processes_now()};
	uint64_t most = atomic_load(&w->desk->body_max);
	uint32_t size = (uint32_t)(sizeof(command) + random_below(loop_random(w->loop), most + 1));

	memcpy(w->body, &command, sizeof(command));
	if (engine_propose(w->engine, w->body, size) == 0)
		w->under_way++;
}

static void note_skipped(struct worker *w, uint64_t *before)
{
	struct engine_stats stats;

	engine_stats_get(w->engine, &stats);
	atomic_fetch_add(&w->desk->skipped, stats.skipped_bytes - *before);
	*before = stats.skipped_bytes;
}

static void worker_run(struct worker *w)
{
	struct engine_options options = {
		.self = {.node = processes_node(w->number), .start = w->start},
		.compact_bytes = w->processes->compact_bytes,
	};
	struct logger logger = {.level = LOG_LEVEL_WARNING, .sink = log_sink_text};
	const struct loop_options loop_options = {.name = "worker", .logger = &logger};
	struct error err = {0};
	uint64_t skipped = 0;

	w->digest = 1;
	w->processes->enter(w, &options);
	if (loop_new(&loop_options, &w->loop, &err) < 0 ||
	    engine_open(w->spec, w->loop, &options, &callbacks, w, &w->engine, &err) < 0) {
		on_failed(w, &err);
		return;
	}
	if (w->processes->opened)
		w->processes->opened(w);
	while (!atomic_load(&w->desk->quit)) {
		while (w->under_way < atomic_load(&w->desk->outstanding))
			propose(w);
		(void)loop_turn(w->loop, loop_now(w->loop) + 2 * NS_PER_MS);
		note_skipped(w, &skipped);
	}
	engine_leave(w->engine);
	while (!w->has_left)
		(void)loop_turn(w->loop, loop_now(w->loop) + NS_PER_MS);
	engine_free(w->engine);
	loop_free(w->loop);
}

/* ---- the test's side ---- */

void processes_init(struct processes *processes, unsigned count)
{
	assert_true(count <= WORKERS_MAX);
	*processes = (struct processes){.count = count};
	processes->memory = mmap(NULL, sizeof(*processes->memory), PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_true(processes->memory != MAP_FAILED);
}

void processes_done(struct processes *processes)
{
	processes_kill_all(processes);
	(void)munmap(processes->memory, sizeof(*processes->memory));
}

void processes_start(struct processes *processes, unsigned number)
{
	struct desk *desk = &processes->memory->desks[number];

	assert_int_equal(processes->pids[number], 0);
	atomic_store(&desk->quit, false);
	atomic_store(&desk->is_ready, false);
	atomic_store(&desk->start, ++processes->starts);
	processes->pids[number] = fork();
	assert_true(processes->pids[number] >= 0);
	if (processes->pids[number] == 0) {
		struct worker *w = calloc(1, sizeof(*w));

		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		w->processes = processes;
		w->desk = desk;
		w->number = number;
		w->start = processes->starts;
		worker_run(w);
		_exit(0);
	}
}

void processes_reap(struct processes *processes, unsigned number)
{
	assert_int_equal(waitpid(processes->pids[number], NULL, 0), processes->pids[number]);
	processes->pids[number] = 0;
}

void processes_kill_all(struct processes *processes)
{
	for (unsigned n = 0; n < processes->count; n++)
		if (processes->pids[n])
			(void)kill(processes->pids[n], SIGKILL);
	for (unsigned n = 0; n < processes->count; n++)
		if (processes->pids[n])
			processes_reap(processes, n);
}

void processes_set_load(struct processes *processes, unsigned number, uint32_t outstanding,
			uint32_t body_max)
{
	assert_true(body_max <= PROCESSES_BODY_MAX);
	atomic_store(&processes->memory->desks[number].body_max, body_max);
	atomic_store(&processes->memory->desks[number].outstanding, outstanding);
}

void processes_check(struct processes *processes)
{
	struct processes_memory *memory = processes->memory;

	assert_int_equal(atomic_load(&memory->mismatch), 0);
	for (unsigned n = 0; n < processes->count; n++)
		if (atomic_load(&memory->desks[n].has_failed))
			fail_msg("worker %u: %s", n, memory->desks[n].failure);
}

bool processes_see_all(struct processes *processes)
{
	struct desk *desks = processes->memory->desks;

	for (unsigned n = 0; n < processes->count; n++) {
		if (!processes->pids[n])
			continue;
		if (!atomic_load(&desks[n].is_ready))
			return false;
		for (unsigned m = 0; m < processes->count; m++)
			if (processes->pids[m] &&
			    atomic_load(&desks[n].live[m]) != atomic_load(&desks[m].start))
				return false;
	}
	return true;
}

bool processes_know_death(struct processes *processes, unsigned victim, uint64_t start)
{
	for (unsigned n = 0; n < processes->count; n++)
		if (n != victim && processes->pids[n] &&
		    atomic_load(&processes->memory->desks[n].died[victim]) != start)
			return false;
	return true;
}

bool processes_are_at_one_index(struct processes *processes)
{
	uint64_t index = 0;

	for (unsigned n = 0; n < processes->count; n++) {
		struct desk *desk = &processes->memory->desks[n];

		if (!processes->pids[n])
			continue;
		if (!atomic_load(&desk->is_ready) || (index && atomic_load(&desk->index) != index))
			return false;
		index = atomic_load(&desk->index);
	}
	return true;
}

void processes_settle(struct processes *processes)
{
	for (unsigned n = 0; n < processes->count; n++)
		processes_set_load(processes, n, 0, 0);
	for (int i = 0; i < 3; i++) {
		(void)usleep(30000); /* they stay there: nothing is to come any more */
		PROCESSES_UNTIL(processes, processes_are_at_one_index(processes));
	}
}
