/* A bed of members of one local log, all in this process (local_bed.h). */
#include "tests/engine/local_bed.h"

#include <stdio.h>

#include "tests/engine/real_bed.h"
#include "tests/unit/scratch.h"

static int open_member(struct bed *bed, struct member *member, const struct engine_options *options,
		       const struct engine_callbacks *callbacks, struct error *err)
{
	struct local_world *world = bed->world;
	char spec[96];

	real_bed_loop(member);
	(void)snprintf(spec, sizeof(spec), "local:%s", world->dir);
	return engine_open(spec, member->loop, options, callbacks, member, &member->engine, err);
}

void local_bed_crash(struct bed *bed, struct member *member)
{
	local_members_drop(container_of_type(member->engine, struct local, engine));
	real_bed_drop(bed, member);
}

int bed_setup(void **state)
{
	struct bed *bed = bed_new();
	struct local_world *world = calloc(1, sizeof(*world));

	bed->world = world;
	bed->is_exact = true;
	bed->turn = real_bed_turn;
	bed->now = real_bed_now;
	bed->open = open_member;
	bed->crash = local_bed_crash;
	scratch_make(world->dir, sizeof(world->dir), "test_engine_local");
	*state = bed;
	return 0;
}

int bed_teardown(void **state)
{
	struct bed *bed = *state;
	struct local_world world = *(struct local_world *)bed->world;

	real_bed_end(bed);
	scratch_remove(world.dir);
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
