/* The loop in the simulator: the common suite, and what only the simulator can do. */
#include "tests/unit/loop_suite.h"

#include <stdio.h>

#include "tests/sim/sim.h"

#define READ_WRITE (LOOP_FILE_READ | LOOP_FILE_WRITE)

struct sim_bed {
	struct bed bed;
	struct sim_world *world;
	struct sim_host *host;
};

static struct loop *new_loop(struct bed *bed, const struct loop_options *options)
{
	struct sim_bed *sim = (struct sim_bed *)bed;
	struct loop *loop;

	assert_int_equal(sim_loop_new(sim->world, sim->host, options, &loop), 0);
	return loop;
}

int bed_setup(void **state)
{
	struct sim_bed *sim = calloc(1, sizeof(*sim));
	struct bed *bed = &sim->bed;

	sim->world = sim_world_new(1);
	sim->host = sim_host_new(sim->world, "one");
	bed->new_loop = new_loop;
	bed->tcp_any = "127.0.0.1:0";
	bed->tcp_dead = "127.0.0.1:1";
	(void)snprintf(bed->directory, sizeof(bed->directory), "/tmp");
	(void)snprintf(bed->unix_address, sizeof(bed->unix_address), "unix:/tmp/socket");
	bed->loop = new_loop(bed, &(struct loop_options){.name = "test"});
	assert_int_equal(loop_sync_mkdir(bed->loop, "/tmp"), 0);
	*state = bed;
	return 0;
}

int bed_teardown(void **state)
{
	struct sim_bed *sim = *state;

	loop_free(sim->bed.other);
	if (sim->bed.loop)
		loop_free(sim->bed.loop);
	sim_world_free(sim->world);
	free(sim);
	return 0;
}

int main(void)
{
	int failed = 0;

	failed +=
		_cmocka_run_group_tests("core", loop_suite_core, loop_suite_core_count, NULL, NULL);
	failed += _cmocka_run_group_tests("files", loop_suite_files, loop_suite_files_count, NULL,
					  NULL);
	failed += _cmocka_run_group_tests("streams", loop_suite_streams, loop_suite_streams_count,
					  NULL, NULL);
	return failed != 0;
}
