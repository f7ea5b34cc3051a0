/*
 * local:DIR among real processes: killed in the middle of an append, stopped, zombies; and how fast
 * it is. Workers share memory with the test: what each saw at which index, and when.
 */
#include <dirent.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/hash.h"
#include "lib/base/size.h"
#include "sheep/engine/engine.h"

#define WORKERS	   4
#define INDEX_MAX  4000000
#define TIMEOUT_NS (60 * NS_PER_S)

/* One worker's part of the memory: the test writes the wishes, the worker the rest. */
struct desk {
	_Atomic uint32_t outstanding; /* wish: keep so many proposals under way */
	_Atomic uint32_t body_max;    /* wish: bytes of a command */
	_Atomic bool quit;	      /* wish: leave */
	_Atomic uint64_t start;	      /* of the start that runs */
	_Atomic uint64_t index, commits, installs, own, skipped;
	_Atomic uint64_t latency_ns, latency_max_ns; /* of its own commands: sum, most */
	_Atomic bool is_ready, has_failed;
	_Atomic uint64_t live[WORKERS]; /* starts as told in the list of members; 0: not in it */
	_Atomic uint64_t ended_start[WORKERS], ended_ns[WORKERS]; /* the end it was told last */
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

struct worker {
	struct memory *memory;
	struct desk *desk;
	unsigned number;
	uint64_t start;
	struct loop *loop;
	struct engine *engine;
	uint32_t under_way;
	uint64_t index, digest;
	bool has_left;
	uint8_t *body;
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

static void check_truth(struct worker *w)
{
	uint64_t expected = 0;

	if (w->index >= INDEX_MAX)
		abort();
	if (!atomic_compare_exchange_strong(&w->memory->truth[w->index], &expected, w->digest) &&
	    expected != w->digest)
		atomic_store(&w->memory->mismatch, w->index);
	atomic_store(&w->desk->index, w->index);
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
	memcpy(&command, data, sizeof(command));
	if (command.worker != w->number || command.start != w->start)
		return;
	w->under_way -= w->under_way > 0; /* the test's garbage may repeat one */
	took = now() - command.asked_ns;
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

	for (unsigned n = 0; n < WORKERS; n++) {
		struct uuid id = node_of(n);
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

	for (unsigned n = 0; n < WORKERS; n++) {
		struct uuid id = node_of(n);

		if (!uuid_is_equal(&id, node))
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

static void propose(struct worker *w)
{
	struct command command = {.worker = w->number, .start = w->start, .asked_ns = now()};
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

static void worker_run(struct worker *w, const char *dir, uint64_t compact_bytes)
{
	struct engine_options options = {
		.self = {.node = node_of(w->number), .start = w->start},
		.compact_bytes = compact_bytes,
	};
	struct logger logger = {.level = LOG_LEVEL_WARNING, .sink = log_sink_text};
	struct error err = {0};
	uint64_t skipped = 0;
	char spec[96];

	w->body = calloc(1, ENGINE_COMMAND_MAX);
	w->digest = 1;
	(void)snprintf(spec, sizeof(spec), "local:%s", dir);
	if (loop_new(&(struct loop_options){.name = "worker", .logger = &logger}, &w->loop, &err) <
		    0 ||
	    engine_open(spec, w->loop, &options, &callbacks, w, &w->engine, &err) < 0) {
		on_failed(w, &err);
		return;
	}
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
	free(w->body);
}

/* ---- the test's side ---- */

struct group {
	struct memory *memory;
	char dir[64];
	pid_t pids[WORKERS];
	uint64_t starts;
	uint64_t compact_bytes;
	struct random random;
};

static void start_worker(struct group *g, unsigned number)
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
			.memory = g->memory,
			.desk = desk,
			.number = number,
			.start = g->starts,
		};

		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		worker_run(&w, g->dir, g->compact_bytes);
		_exit(0);
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

/* All that run are ready and see each other. */
static bool all_see_all(struct group *g)
{
	for (unsigned n = 0; n < WORKERS; n++) {
		if (!g->pids[n])
			continue;
		if (!atomic_load(&g->memory->desks[n].is_ready))
			return false;
		for (unsigned m = 0; m < WORKERS; m++)
			if (g->pids[m] && atomic_load(&g->memory->desks[n].live[m]) !=
						  atomic_load(&g->memory->desks[m].start))
				return false;
	}
	return true;
}

static void start_all(struct group *g, unsigned count)
{
	for (unsigned n = 0; n < count; n++)
		start_worker(g, n);
	UNTIL(g, all_see_all(g));
}

static void set_load(struct group *g, unsigned number, uint32_t outstanding, uint32_t body_max)
{
	atomic_store(&g->memory->desks[number].body_max, body_max);
	atomic_store(&g->memory->desks[number].outstanding, outstanding);
}

static void reap(struct group *g, unsigned number)
{
	assert_int_equal(waitpid(g->pids[number], NULL, 0), g->pids[number]);
	g->pids[number] = 0;
}

static bool all_have_seen_end(struct group *g, unsigned victim, uint64_t start)
{
	for (unsigned n = 0; n < WORKERS; n++)
		if (n != victim && g->pids[n] &&
		    atomic_load(&g->memory->desks[n].ended_start[victim]) != start)
			return false;
	return true;
}

static uint64_t last_told(struct group *g, unsigned victim)
{
	uint64_t last = 0;

	for (unsigned n = 0; n < WORKERS; n++)
		if (n != victim && g->pids[n])
			last = max_of(last, atomic_load(&g->memory->desks[n].ended_ns[victim]));
	return last;
}

/* kill -9; returns how long it took until all others knew, while the process is still a zombie. */
static uint64_t kill_and_wait(struct group *g, unsigned victim)
{
	uint64_t start = atomic_load(&g->memory->desks[victim].start), begin = now();

	assert_int_equal(kill(g->pids[victim], SIGKILL), 0);
	UNTIL(g, all_have_seen_end(g, victim, start));
	reap(g, victim);
	begin = last_told(g, victim) - begin;
	return begin;
}

static bool all_at_one_index(struct group *g)
{
	uint64_t index = 0;

	for (unsigned n = 0; n < WORKERS; n++) {
		struct desk *desk = &g->memory->desks[n];

		if (!g->pids[n])
			continue;
		if (!atomic_load(&desk->is_ready) || (index && atomic_load(&desk->index) != index))
			return false;
		index = atomic_load(&desk->index);
	}
	return true;
}

/* No more proposals: all come to the same end, and stay there. */
static void settle(struct group *g)
{
	for (unsigned n = 0; n < WORKERS; n++)
		set_load(g, n, 0, 0);
	for (int i = 0; i < 3; i++) {
		(void)usleep(30000);
		UNTIL(g, all_at_one_index(g));
	}
}

static int setup(void **state)
{
	struct group *g = calloc(1, sizeof(*g));

	g->memory = mmap(NULL, sizeof(*g->memory), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_true(g->memory != MAP_FAILED);
	random_init(&g->random, 1);
	(void)snprintf(g->dir, sizeof(g->dir), "test_local_processes.------");
	memset(strchr(g->dir, '-'), 'X', 6);
	assert_non_null(mkdtemp(g->dir));
	*state = g;
	return 0;
}

static void remove_all(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	char name[512];

	while (dir && (entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		(void)snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		if (unlink(name) < 0)
			remove_all(name);
	}
	if (dir)
		(void)closedir(dir);
	(void)rmdir(path);
}

static int teardown(void **state)
{
	struct group *g = *state;

	for (unsigned n = 0; n < WORKERS; n++) {
		if (!g->pids[n])
			continue;
		(void)kill(g->pids[n], SIGKILL);
		reap(g, n);
	}
	remove_all(g->dir);
	(void)munmap(g->memory, sizeof(*g->memory));
	free(g);
	return 0;
}

static unsigned scaled(unsigned count)
{
	const char *text = getenv("SHEEPFOLD_LONG");

	return text && *text == '1' ? count : count / 10;
}

static void only_newest(char *newest, const char *name)
{
	if (strncmp(name, "file.", 5) == 0 && strcmp(name, newest) > 0)
		(void)snprintf(newest, NAME_MAX + 1, "%s", name);
}

/*
 * What a writer that was killed leaves, and worse: some bytes of the newest file, from anywhere in it,
 * appended to it.
 */
static void append_garbage(struct group *g)
{
	static uint8_t piece[70000];
	char newest[NAME_MAX + 1] = "", path[NAME_MAX + 100];
	DIR *dir = opendir(g->dir);
	struct dirent *entry;
	uint64_t size, from;
	FILE *file;

	assert_non_null(dir);
	while ((entry = readdir(dir)))
		only_newest(newest, entry->d_name);
	(void)closedir(dir);
	(void)snprintf(path, sizeof(path), "%s/%s", g->dir, newest);
	file = fopen(path, "r+");
	if (!file) /* it is old by now */
		return;
	(void)fseek(file, 0, SEEK_END);
	from = random_below(&g->random, (uint64_t)ftell(file) + 1);
	(void)fseek(file, (long)from, SEEK_SET);
	size = fread(piece, 1, 1 + random_below(&g->random, sizeof(piece)), file);
	(void)fclose(file);
	if (random_below(&g->random, 3) == 0)
		memset(piece, 0, size);
	file = fopen(path, "a");
	if (!file)
		return;
	(void)fwrite(piece, 1, size, file);
	(void)fclose(file);
}

/*
 * Workers append commands of up to 200 KB all the time and are killed at random moments, so in the
 * middle of appends too; files change under them all the time. Nobody may ever see another order.
 */
static void test_killed_in_mid_append(void **state)
{
	struct group *g = *state;
	unsigned rounds = scaled(300);
	uint64_t took, sum = 0, most = 0;

	g->compact_bytes = 2 * MIB;
	start_all(g, WORKERS);
	for (unsigned n = 0; n < WORKERS; n++)
		set_load(g, n, 4, n % 2 ? 200000 : 500);
	for (unsigned round = 0; round < rounds; round++) {
		unsigned victim = (unsigned)random_below(&g->random, WORKERS);
		unsigned other = (victim + 1) % WORKERS;
		uint64_t before;

		(void)usleep((useconds_t)random_below(&g->random, 20000));
		append_garbage(g);
		took = kill_and_wait(g, victim);
		sum += took;
		most = max_of(most, took);
		before = atomic_load(&g->memory->desks[other].own); /* the others go on */
		UNTIL(g, atomic_load(&g->memory->desks[other].own) > before);
		start_worker(g, victim);
		UNTIL(g, all_see_all(g));
	}
	settle(g);
	printf("%u kills: death known to all after %.1f ms, at most %.1f ms; %llu commands, "
	       "%llu images installed, %llu bytes of garbage skipped\n",
	       rounds, (double)sum / rounds / NS_PER_MS, (double)most / NS_PER_MS,
	       (unsigned long long)atomic_load(&g->memory->desks[0].index),
	       (unsigned long long)atomic_load(&g->memory->desks[0].installs),
	       (unsigned long long)atomic_load(&g->memory->desks[0].skipped));
	assert_true(sum / rounds < NS_PER_S / 2);
}

static void test_all_killed_at_once_come_back(void **state)
{
	struct group *g = *state;

	g->compact_bytes = 256 * KIB;
	for (unsigned round = 0; round < max_of(scaled(50), 3u); round++) {
		start_all(g, WORKERS);
		for (unsigned n = 0; n < WORKERS; n++)
			set_load(g, n, 8, 20000);
		(void)usleep((useconds_t)random_below(&g->random, 100000));
		for (unsigned n = 0; n < WORKERS; n++)
			(void)kill(g->pids[n], SIGKILL);
		for (unsigned n = 0; n < WORKERS; n++)
			reap(g, n);
	}
	start_all(g, WORKERS);
	settle(g);
}

/* A stopped member holds nothing that the others need, and forks nothing when it goes on. */
static void test_others_go_on_when_one_is_stopped(void **state)
{
	struct group *g = *state;
	struct desk *stopped = &g->memory->desks[1], *other = &g->memory->desks[2];
	uint64_t before;

	g->compact_bytes = 64 * KIB;
	start_all(g, WORKERS);
	for (unsigned n = 0; n < WORKERS; n++)
		set_load(g, n, 8, 2000);
	for (unsigned round = 0; round < max_of(scaled(30), 5u); round++) {
		(void)usleep((useconds_t)random_below(&g->random, 30000));
		assert_int_equal(kill(g->pids[1], SIGSTOP), 0);
		before = atomic_load(&other->own);
		UNTIL(g, atomic_load(&other->own) > before + 500);
		assert_true(atomic_load(&other->ended_start[1]) != atomic_load(&stopped->start));
		assert_int_equal(kill(g->pids[1], SIGCONT), 0);
		before = atomic_load(&stopped->own);
		UNTIL(g, atomic_load(&stopped->own) > before + 10);
	}
	settle(g);
	assert_true(atomic_load(&stopped->installs) > 0);
}

/* The file that proves its life is removed under it: its death is still known, and only its death. */
static void test_death_is_known_when_its_file_is_gone(void **state)
{
	struct group *g = *state;
	struct uuid id = node_of(1);
	char path[160], text[UUID_TEXT_SIZE];

	start_all(g, 3);
	(void)snprintf(path, sizeof(path), "%s/members/%s", g->dir, uuid_format(&id, text));
	assert_int_equal(unlink(path), 0);
	(void)usleep(100000);
	assert_int_equal(atomic_load(&g->memory->desks[0].ended_start[1]), 0);
	(void)kill_and_wait(g, 1);
}

/* In namespaces of our own: a file system of 3 MiB under the group's directory. */
static bool mount_small(struct group *g)
{
	return unshare(CLONE_NEWNS) == 0 &&
	       mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("tmpfs", g->dir, "tmpfs", 0, "size=3m") == 0;
}

/* A full disk stops commands, not members; when there is room again what waited is committed. */
static void test_full_disk_is_waited_for(void **state)
{
	struct group *g = *state;
	struct desk *desk = &g->memory->desks[0];
	char ballast[128];
	uint64_t own;
	FILE *file;

	if (!mount_small(g)) {
		print_message("needs root, to mount a small file system\n");
		skip();
	}
	start_all(g, 3);
	(void)snprintf(ballast, sizeof(ballast), "%s/members/ballast", g->dir);
	file = fopen(ballast, "w");
	for (unsigned i = 0; i < MIB; i++)
		(void)fputc('x', file);
	(void)fclose(file);
	for (unsigned n = 0; n < 3; n++)
		set_load(g, n, 4, 20000);
	do { /* until nothing was committed for a while */
		own = atomic_load(&desk->own);
		(void)usleep(400000);
	} while (own != atomic_load(&desk->own));
	check(g);
	/* The others propose no more, or they might have filled the room again before this one looks. */
	for (unsigned n = 1; n < 3; n++)
		set_load(g, n, 0, 20000);
	(void)unlink(ballast);
	UNTIL(g, atomic_load(&desk->own) > own + 5);
	for (unsigned n = 0; n < 3; n++) {
		(void)kill(g->pids[n], SIGKILL);
		reap(g, n);
	}
	check(g);
	(void)umount(g->dir);
}

static void measure(struct group *g, const char *what, unsigned proposers, uint32_t outstanding,
		    uint64_t *per_second)
{
	uint64_t begin, before = 0, own = 0, latency = 0;

	for (unsigned n = 0; n < WORKERS; n++) {
		atomic_store(&g->memory->desks[n].own, 0);
		atomic_store(&g->memory->desks[n].latency_ns, 0);
		atomic_store(&g->memory->desks[n].latency_max_ns, 0);
	}
	before = atomic_load(&g->memory->desks[3].commits);
	begin = now();
	for (unsigned n = 0; n < proposers; n++)
		set_load(g, n, outstanding, 200);
	(void)usleep(scaled(20) * 100000);
	*per_second =
		(atomic_load(&g->memory->desks[3].commits) - before) * NS_PER_S / (now() - begin);
	for (unsigned n = 0; n < proposers; n++) {
		own += atomic_load(&g->memory->desks[n].own);
		latency += atomic_load(&g->memory->desks[n].latency_ns);
	}
	settle(g);
	printf("%s: %llu commands/s, %.2f ms from proposal to commit\n", what,
	       (unsigned long long)*per_second, own ? (double)latency / own / NS_PER_MS : 0);
}

static void test_speed(void **state)
{
	struct group *g = *state;
	uint64_t one, many;

	start_all(g, WORKERS);
	measure(g, "one proposer of four members, one at a time", 1, 1, &one);
	measure(g, "one proposer, 32 at a time", 1, 32, &many);
	measure(g, "three proposers, 32 at a time", 3, 32, &many);
#ifndef HAVE_SANITIZERS
	assert_true(many >= 1000);
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_killed_in_mid_append, setup, teardown),
		cmocka_unit_test_setup_teardown(test_all_killed_at_once_come_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_others_go_on_when_one_is_stopped, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_death_is_known_when_its_file_is_gone, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_speed, setup, teardown),
		/* last: it moves us to another mount namespace */
		cmocka_unit_test_setup_teardown(test_full_disk_is_waited_for, setup, teardown),
	};

	return cmocka_run_group_tests_name("engine: local, processes", tests, NULL, NULL);
}
