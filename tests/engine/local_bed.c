/* A bed of members of one local log, all in this process (local_bed.h). */
#include "tests/engine/local_bed.h"

#include <dirent.h>
#include <stdio.h>
#include <unistd.h>

#define TURN_NS (NS_PER_MS / 10)

static uint64_t now(struct bed *bed)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void turn(struct bed *bed)
{
	for (unsigned n = 0; n < BED_MEMBERS; n++) {
		struct member *member = &bed->members[n];

		if (member->loop && !member->is_stopped)
			assert_int_equal(loop_turn(member->loop, now(bed) + TURN_NS), 0);
	}
}

static int open_member(struct bed *bed, struct member *member, const struct engine_options *options,
		       const struct engine_callbacks *callbacks, struct error *err)
{
	struct local_world *world = bed->world;
	char spec[96];

	if (!member->loop)
		assert_int_equal(
			loop_new(&(struct loop_options){.name = "member"}, &member->loop, err), 0);
	(void)snprintf(spec, sizeof(spec), "local:%s", world->dir);
	return engine_open(spec, member->loop, options, callbacks, member, &member->engine, err);
}

void local_bed_crash(struct bed *bed, struct member *member)
{
	struct engine *engine = member->engine;

	member->is_stopped = false;
	local_members_drop(container_of_type(engine, struct local, engine));
	member->engine = NULL;
	member->is_leaving = true;
	engine_leave(engine);
	BED_UNTIL(bed, member->has_left);
	engine_free(engine);
}

void local_bed_remove(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	char name[512];

	while (dir && (entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		(void)snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		if (unlink(name) < 0)
			local_bed_remove(name);
	}
	if (dir)
		(void)closedir(dir);
	(void)rmdir(path);
}

int bed_setup(void **state)
{
	struct bed *bed = bed_new();
	struct local_world *world = calloc(1, sizeof(*world));

	bed->world = world;
	bed->is_exact = true;
	bed->turn = turn;
	bed->now = now;
	bed->open = open_member;
	bed->crash = local_bed_crash;
	(void)snprintf(world->dir, sizeof(world->dir), "test_engine_local.------");
	memset(strchr(world->dir, '-'), 'X', 6);
	assert_non_null(mkdtemp(world->dir));
	*state = bed;
	return 0;
}

int bed_teardown(void **state)
{
	struct bed *bed = *state;
	struct local_world *world = bed->world;

	bed_stop_all(bed);
	for (unsigned n = 0; n < BED_MEMBERS; n++)
		loop_free(bed->members[n].loop);
	local_bed_remove(world->dir);
	free(world);
	bed_free(bed);
	return 0;
}

struct local *local_of(struct bed *bed, unsigned number)
{
	return container_of_type(bed->members[number].engine, struct local, engine);
}

void local_bed_crash_all(struct bed *bed)
{
	for (unsigned n = 0; n < BED_MEMBERS; n++)
		bed->members[n].is_stopped = true;
	for (unsigned n = 0; n < BED_MEMBERS; n++)
		if (bed->members[n].engine)
			local_bed_crash(bed, &bed->members[n]);
	for (unsigned n = 0; n < BED_MEMBERS; n++)
		bed->members[n].is_stopped = false;
}
