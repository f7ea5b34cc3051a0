/*
 * The world: the heap of events, hosts, processes, and running it all.
 *
 * Always true: now_ns never falls; an event's heap_index names its entry, 0
 * means not scheduled; nothing here depends on addresses or on real time.
 */
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/assert.h"
#include "lib/base/hash.h"
#include "tests/sim/sim_priv.h"

#define DELAY_SELF_MIN_NS  (5 * NS_PER_US)
#define DELAY_SELF_MAX_NS  (15 * NS_PER_US)
#define DELAY_OTHER_MIN_NS (50 * NS_PER_US)
#define DELAY_OTHER_MAX_NS (150 * NS_PER_US)

void *sim_alloc(size_t size)
{
	void *memory = calloc(1, size);

	if (!memory) {
		(void)fprintf(stderr, "sim: no memory\n");
		abort();
	}
	return memory;
}

/* ---- events ---- */

static bool is_before(const struct heap_entry *a, const struct heap_entry *b)
{
	return a->time_ns != b->time_ns ? a->time_ns < b->time_ns : a->tie < b->tie;
}

static void place(struct sim_world *world, uint32_t index, struct heap_entry entry)
{
	world->heap[index] = entry;
	entry.event->heap_index = index;
}

static void sift(struct sim_world *world, uint32_t index, struct heap_entry entry)
{
	uint32_t child;

	while (index > 1 && is_before(&entry, &world->heap[index / 2])) {
		place(world, index, world->heap[index / 2]);
		index /= 2;
	}
	while ((child = index * 2) <= world->heap_count) {
		if (child < world->heap_count &&
		    is_before(&world->heap[child + 1], &world->heap[child]))
			child++;
		if (!is_before(&world->heap[child], &entry))
			break;
		place(world, index, world->heap[child]);
		index = child;
	}
	place(world, index, entry);
}

void sim_schedule(struct sim_world *world, struct sim_event *event, uint64_t time_ns)
{
	struct heap_entry entry = {max_of(time_ns, world->now_ns), random_u64(&world->random),
				   event};

	event->time_ns = entry.time_ns;
	if (event->heap_index) {
		sift(world, event->heap_index, entry);
		return;
	}
	if (world->heap_count == world->heap_size) {
		world->heap_size = max_of(world->heap_size * 2, 1024u);
		world->heap = realloc(world->heap, (world->heap_size + 1) * sizeof(*world->heap));
		assert(world->heap);
	}
	sift(world, ++world->heap_count, entry);
}

void sim_unschedule(struct sim_world *world, struct sim_event *event)
{
	uint32_t index = event->heap_index;

	if (!index)
		return;
	assert(world->heap[index].event == event);
	event->heap_index = 0;
	struct heap_entry last = world->heap[world->heap_count--];
	if (last.event != event)
		sift(world, index, last);
}

void sim_trace_note(struct sim_world *world, uint64_t what)
{
	world->trace = hash_u64_pair(world->trace, what);
}

bool sim_step(struct sim_world *world, uint64_t until_ns)
{
	struct sim_event *event;

	if (!world->heap_count || world->heap[1].time_ns > until_ns)
		return false;
	event = world->heap[1].event;
	world->now_ns = event->time_ns;
	world->events++;
	sim_trace_note(world, event->time_ns);
	sim_unschedule(world, event);
	world->is_running = true;
	event->run(event);
	world->is_running = false;
	return true;
}

void sim_refresh(struct sim_world *world)
{
	for (unsigned i = 0; i < world->host_count; i++) {
		struct sim_process *process;
		struct sim_loop *loop;

		cds_list_for_each_entry(process, &world->hosts[i]->processes, link)
			cds_list_for_each_entry(loop, &process->loops, link)
				sim_loop_plan(loop);
	}
}

bool sim_world_run_until(struct sim_world *world, uint64_t until_ns, bool (*is_done)(void *context),
			 void *context)
{
	assert(!world->is_running);
	sim_refresh(world);
	do {
		if (is_done && is_done(context))
			return true;
	} while (sim_step(world, until_ns));
	world->now_ns = max_of(world->now_ns, until_ns);
	return false;
}

/* ---- small things ---- */

uint64_t sim_now(const struct sim_world *world)
{
	return world->now_ns;
}

struct random *sim_random(struct sim_world *world)
{
	return &world->random;
}

uint64_t sim_world_events(const struct sim_world *world)
{
	return world->events;
}

uint64_t sim_world_trace(const struct sim_world *world)
{
	return world->trace;
}

uint64_t sim_between(struct sim_world *world, uint64_t min, uint64_t max)
{
	return min + random_below(&world->random, max - min + 1);
}

bool sim_coin(struct sim_world *world)
{
	return random_u64(&world->random) >> 63;
}

/* ---- life ---- */

struct sim_world *sim_world_new(uint64_t seed)
{
	struct sim_world *world = sim_alloc(sizeof(*world));

	world->now_ns = SIM_BEGIN_NS;
	random_init(&world->random, seed);
	CDS_INIT_LIST_HEAD(&world->packets);
	CDS_INIT_LIST_HEAD(&world->spare_ops);
	return world;
}

static void host_free(struct sim_host *host)
{
	struct sim_process *process, *next;

	cds_list_for_each_entry_safe(process, next, &host->processes, link) {
		assert(cds_list_empty(&process->loops));
		free(process);
	}
	sim_fs_done(host);
	free(host);
}

void sim_world_free(struct sim_world *world)
{
	struct sim_op *op, *next_op;
	struct sim_process *process;

	if (!world)
		return;
	for (unsigned i = 0; i < world->host_count; i++)
		cds_list_for_each_entry(process, &world->hosts[i]->processes, link)
			sim_process_kill(process);
	sim_net_done(world);
	for (unsigned i = 0; i < world->host_count; i++)
		host_free(world->hosts[i]);
	cds_list_for_each_entry_safe(op, next_op, &world->spare_ops, link)
		free(op);
	while (world->spare_blocks) {
		struct sim_block *block = world->spare_blocks;

		world->spare_blocks = block->next;
		free(block);
	}
	free(world->heap);
	free(world);
}

struct sim_host *sim_host_new(struct sim_world *world, const char *name)
{
	struct sim_host *host;

	if (world->host_count == SIM_HOSTS_MAX)
		return NULL;
	host = sim_alloc(sizeof(*host));
	host->world = world;
	host->name = name;
	host->is_up = true;
	host->index = world->host_count;
	(void)snprintf(host->address, sizeof(host->address), "10.0.0.%u", host->index + 1);
	world->hosts[world->host_count++] = host;
	CDS_INIT_LIST_HEAD(&host->processes);
	host->first = sim_process_new(host);
	sim_fs_init(host);
	sim_net_init(host);
	for (unsigned i = 0; i < world->host_count; i++) {
		struct sim_host *other = world->hosts[i];
		bool is_self = other == host;
		uint64_t min = is_self ? DELAY_SELF_MIN_NS : DELAY_OTHER_MIN_NS;
		uint64_t max = is_self ? DELAY_SELF_MAX_NS : DELAY_OTHER_MAX_NS;

		sim_link_set_delay(host, other, min, max);
		sim_link_set_delay(other, host, min, max);
	}
	return host;
}

const char *sim_host_address(const struct sim_host *host)
{
	return host->address;
}

const char *sim_host_name(const struct sim_host *host)
{
	return host->name;
}

struct sim_process *sim_process_new(struct sim_host *host)
{
	struct sim_process *process = sim_alloc(sizeof(*process));

	process->host = host;
	CDS_INIT_LIST_HEAD(&process->loops);
	CDS_INIT_LIST_HEAD(&process->files);
	CDS_INIT_LIST_HEAD(&process->sockets);
	CDS_INIT_LIST_HEAD(&process->listeners);
	cds_list_add_tail(&process->link, &host->processes);
	return process;
}

/* ---- pauses ---- */

void sim_host_pause(struct sim_host *host)
{
	host->is_paused = true;
}

void sim_host_resume(struct sim_host *host)
{
	struct sim_process *process;
	struct sim_loop *loop;

	if (!host->is_paused)
		return;
	if (host->frozen_ns)
		host->lag_ns += host->world->now_ns - host->frozen_ns;
	host->frozen_ns = 0;
	host->is_paused = false;
	cds_list_for_each_entry(process, &host->processes, link)
		cds_list_for_each_entry(loop, &process->loops, link)
			sim_loop_resume(loop);
}

bool sim_host_is_paused(const struct sim_host *host)
{
	return host->is_paused;
}

void sim_host_freeze(struct sim_host *host)
{
	if (!host->frozen_ns)
		host->frozen_ns = host->world->now_ns;
	sim_host_pause(host);
}

void sim_host_thaw(struct sim_host *host)
{
	sim_host_resume(host);
}

uint64_t sim_host_lag(const struct sim_host *host)
{
	return host->lag_ns;
}

/* ---- deaths ---- */

static void process_die(struct sim_process *process, bool is_told)
{
	struct sim_loop *loop, *next_loop;
	struct sim_file *file, *next_file;

	/* Loops first: ops in flight still need their files. */
	cds_list_for_each_entry_safe(loop, next_loop, &process->loops, link) {
		assert(!loop->is_turning && !loop->is_waiting);
		sim_loop_destroy(loop);
	}
	sim_process_drop_streams(process, is_told);
	cds_list_for_each_entry_safe(file, next_file, &process->files, link)
		sim_file_free(file);
}

void sim_process_kill(struct sim_process *process)
{
	process_die(process, true);
}

void sim_host_crash(struct sim_host *host)
{
	struct sim_process *process;

	cds_list_for_each_entry(process, &host->processes, link)
		process_die(process, true);
}

void sim_host_power_cut(struct sim_host *host, enum sim_power_cut mode)
{
	struct sim_process *process;

	host->is_up = false;
	cds_list_for_each_entry(process, &host->processes, link)
		process_die(process, false);
	sim_fs_power_cut(host, mode);
}
