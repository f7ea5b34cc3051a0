/* Clocks of the real kernel. */
#include <time.h>

#include "lib/base/size.h"
#include "lib/loop/posix.h"

static uint64_t read_clock(clockid_t clock)
{
	struct timespec ts;

	(void)clock_gettime(clock, &ts); /* cannot fail for these clocks */
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t posix_now(struct loop_backend *backend)
{
	return read_clock(CLOCK_BOOTTIME);
}

uint64_t posix_wall_clock(struct loop_backend *backend)
{
	return read_clock(CLOCK_REALTIME);
}
