#include "tests/engine/real_bed.h"

#include <time.h>

#define TURN_NS (NS_PER_MS / 10)

uint64_t real_bed_now(struct bed *bed)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

void real_bed_turn(struct bed *bed)
{
	for (unsigned n = 0; n < BED_MEMBERS; n++) {
		struct member *member = &bed->members[n];

		if (member->loop && !member->is_stopped)
			assert_int_equal(loop_turn(member->loop, real_bed_now(bed) + TURN_NS), 0);
	}
}

void real_bed_loop(struct member *member)
{
	struct error err = {0};

	if (!member->loop &&
	    loop_new(&(struct loop_options){.name = "member"}, &member->loop, &err) < 0)
		fail_msg("%s", err.text);
}

void real_bed_drop(struct bed *bed, struct member *member)
{
	struct engine *engine = member->engine;

	member->is_stopped = false;
	member->engine = NULL;
	member->is_leaving = true;
	engine_leave(engine);
	BED_UNTIL(bed, member->has_left);
	engine_free(engine);
}

void real_bed_end(struct bed *bed)
{
	bed_stop_all(bed);
	for (unsigned n = 0; n < BED_MEMBERS; n++)
		loop_free(bed->members[n].loop);
	free(bed->world);
	bed_free(bed);
}
