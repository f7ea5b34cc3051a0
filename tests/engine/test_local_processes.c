/*
 * local:DIR among real processes: killed in the middle of an append, stopped, zombies; and how fast
 * it is.
 */
#include <dirent.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

#include "tests/engine/processes.h"
#include "tests/unit/scratch.h"

#define WORKERS 4

struct group {
	struct processes processes;
	char dir[64];
	struct random random;
};

static void enter(struct worker *w, struct engine_options *options)
{
	struct group *g = w->processes->world;

	(void)snprintf(w->spec, sizeof(w->spec), "local:%s", g->dir);
}

static struct desk *desk_of(struct group *g, unsigned number)
{
	return &g->processes.memory->desks[number];
}

#define UNTIL(g, condition) PROCESSES_UNTIL(&(g)->processes, condition)

static void start_all(struct group *g, unsigned count)
{
	for (unsigned n = 0; n < count; n++)
		processes_start(&g->processes, n);
	UNTIL(g, processes_see_all(&g->processes));
}

static void set_load(struct group *g, unsigned number, uint32_t outstanding, uint32_t body_max)
{
	processes_set_load(&g->processes, number, outstanding, body_max);
}

static uint64_t last_told(struct group *g, unsigned victim)
{
	uint64_t last = 0;

	for (unsigned n = 0; n < g->processes.count; n++)
		if (n != victim && g->processes.pids[n])
			last = max_of(last, atomic_load(&desk_of(g, n)->died_ns[victim]));
	return last;
}

/* kill -9; returns how long it took until all others knew, while the process is still a zombie. */
static uint64_t kill_and_wait(struct group *g, unsigned victim)
{
	uint64_t start = atomic_load(&desk_of(g, victim)->start), begin = processes_now();

	assert_int_equal(kill(g->processes.pids[victim], SIGKILL), 0);
	UNTIL(g, processes_know_death(&g->processes, victim, start));
	processes_reap(&g->processes, victim);
	return last_told(g, victim) - begin;
}

/* So long that the next thing happens anywhere in what they do. */
static void pass(struct group *g, unsigned most_us)
{
	(void)usleep((useconds_t)random_below(&g->random, most_us));
}

static int setup(void **state)
{
	struct group *g = calloc(1, sizeof(*g));

	processes_init(&g->processes, WORKERS);
	g->processes.world = g;
	g->processes.enter = enter;
	random_init(&g->random, 1);
	scratch_make(g->dir, sizeof(g->dir), "test_local_processes");
	*state = g;
	return 0;
}

static int teardown(void **state)
{
	struct group *g = *state;

	processes_done(&g->processes);
	scratch_remove(g->dir);
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

	g->processes.compact_bytes = 2 * MIB;
	start_all(g, WORKERS);
	for (unsigned n = 0; n < WORKERS; n++)
		set_load(g, n, 4, n % 2 ? 200000 : 500);
	for (unsigned round = 0; round < rounds; round++) {
		unsigned victim = (unsigned)random_below(&g->random, WORKERS);
		unsigned other = (victim + 1) % WORKERS;
		uint64_t before;

		pass(g, 20000);
		append_garbage(g);
		took = kill_and_wait(g, victim);
		sum += took;
		most = max_of(most, took);
		before = atomic_load(&desk_of(g, other)->own); /* the others go on */
		UNTIL(g, atomic_load(&desk_of(g, other)->own) > before);
		processes_start(&g->processes, victim);
		UNTIL(g, processes_see_all(&g->processes));
	}
	processes_settle(&g->processes);
	printf("%u kills: death known to all after %.1f ms, at most %.1f ms; %llu commands, "
	       "%llu images installed, %llu bytes of garbage skipped\n",
	       rounds, (double)sum / rounds / NS_PER_MS, (double)most / NS_PER_MS,
	       (unsigned long long)atomic_load(&desk_of(g, 0)->index),
	       (unsigned long long)atomic_load(&desk_of(g, 0)->installs),
	       (unsigned long long)atomic_load(&desk_of(g, 0)->skipped));
	assert_true(sum / rounds < NS_PER_S / 2);
}

static void test_all_killed_at_once_come_back(void **state)
{
	struct group *g = *state;

	g->processes.compact_bytes = 256 * KIB;
	for (unsigned round = 0; round < max_of(scaled(50), 3u); round++) {
		start_all(g, WORKERS);
		for (unsigned n = 0; n < WORKERS; n++)
			set_load(g, n, 8, 20000);
		pass(g, 100000);
		processes_kill_all(&g->processes);
	}
	start_all(g, WORKERS);
	processes_settle(&g->processes);
}

/* A stopped member holds nothing that the others need, and forks nothing when it goes on. */
static void test_others_go_on_when_one_is_stopped(void **state)
{
	struct group *g = *state;
	struct desk *stopped = desk_of(g, 1), *other = desk_of(g, 2);
	uint64_t before;

	g->processes.compact_bytes = 64 * KIB;
	start_all(g, WORKERS);
	for (unsigned n = 0; n < WORKERS; n++)
		set_load(g, n, 8, 2000);
	for (unsigned round = 0; round < max_of(scaled(30), 5u); round++) {
		pass(g, 30000);
		assert_int_equal(kill(g->processes.pids[1], SIGSTOP), 0);
		before = atomic_load(&other->own);
		UNTIL(g, atomic_load(&other->own) > before + 500);
		assert_true(atomic_load(&other->ended[1]) != atomic_load(&stopped->start));
		assert_int_equal(kill(g->processes.pids[1], SIGCONT), 0);
		before = atomic_load(&stopped->own);
		UNTIL(g, atomic_load(&stopped->own) > before + 10);
	}
	processes_settle(&g->processes);
	assert_true(atomic_load(&stopped->installs) > 0);
}

/* The file that proves its life is removed under it: its death is still known, and only its death. */
static void test_death_is_known_when_its_file_is_gone(void **state)
{
	struct group *g = *state;
	struct uuid id = processes_node(1);
	char path[160], text[UUID_TEXT_SIZE];

	start_all(g, 3);
	(void)snprintf(path, sizeof(path), "%s/members/%s", g->dir, uuid_format(&id, text));
	assert_int_equal(unlink(path), 0);
	(void)usleep(100000); /* nothing is to come of it */
	assert_int_equal(atomic_load(&desk_of(g, 0)->ended[1]), 0);
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
	struct desk *desk = desk_of(g, 0);
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
	processes_check(&g->processes);
	/* The others propose no more, or they might have filled the room again before this one looks. */
	for (unsigned n = 1; n < 3; n++)
		set_load(g, n, 0, 20000);
	(void)unlink(ballast);
	UNTIL(g, atomic_load(&desk->own) > own + 5);
	processes_kill_all(&g->processes);
	processes_check(&g->processes);
	(void)umount(g->dir);
}

static void measure(struct group *g, const char *what, unsigned proposers, uint32_t outstanding,
		    uint64_t *per_second)
{
	uint64_t begin, before = 0, own = 0, latency = 0;

	for (unsigned n = 0; n < WORKERS; n++) {
		atomic_store(&desk_of(g, n)->own, 0);
		atomic_store(&desk_of(g, n)->latency_ns, 0);
		atomic_store(&desk_of(g, n)->latency_max_ns, 0);
	}
	before = atomic_load(&desk_of(g, 3)->commits);
	begin = processes_now();
	for (unsigned n = 0; n < proposers; n++)
		set_load(g, n, outstanding, 200);
	(void)usleep(scaled(20) * 100000); /* so long is counted */
	*per_second = (atomic_load(&desk_of(g, 3)->commits) - before) * NS_PER_S /
		      (processes_now() - begin);
	for (unsigned n = 0; n < proposers; n++) {
		own += atomic_load(&desk_of(g, n)->own);
		latency += atomic_load(&desk_of(g, n)->latency_ns);
	}
	processes_settle(&g->processes);
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
