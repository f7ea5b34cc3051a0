/* lib/net on io_uring: the common suite, and what only threads show. */
#include "tests/unit/net_suite.h"

#include <stdio.h>
#include <unistd.h>

static struct loop *new_loop(struct bed *bed, const struct loop_options *options)
{
	struct error err = {0};
	struct loop *loop;

	if (loop_new(options, &loop, &err) < 0)
		fail_msg("%s", err.text);
	return loop;
}

static void quiet(struct logger *logger, enum log_level level, const char *line)
{
	if (getenv("TEST_LOG"))
		log_sink_text(logger, level, line);
}

static struct logger quiet_logger = {.level = LOG_LEVEL_DEBUG, .sink = quiet};

int bed_setup(void **state)
{
	struct bed *bed = calloc(1, sizeof(*bed));

	bed->new_loop = new_loop;
	bed->tcp_any = "127.0.0.1:0";
	bed->tcp_dead = "127.0.0.1:1";
	(void)snprintf(bed->unix_address, sizeof(bed->unix_address), "unix:test_net.%d",
		       (int)getpid());
	bed->loop = new_loop(bed, &(struct loop_options){.name = "test", .logger = &quiet_logger});
	bed->other =
		new_loop(bed, &(struct loop_options){.name = "other", .logger = &quiet_logger});
	*state = bed;
	return 0;
}

int bed_teardown(void **state)
{
	struct bed *bed = *state;

	loop_free(bed->other);
	loop_free(bed->loop);
	free(bed);
	return 0;
}

int main(void)
{
	int failed = 0;

	failed += _cmocka_run_group_tests("net: calls", net_suite_calls, net_suite_calls_count,
					  NULL, NULL);
	failed += _cmocka_run_group_tests("net: lies", net_suite_lies, net_suite_lies_count, NULL,
					  NULL);
	return failed;
}
