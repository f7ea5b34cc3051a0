/* collie and a sheep that is broken, hostile, slow or of another version: each ends with its exit code and a reason. */
#include <stdio.h>
#include <unistd.h>

#include "lib/base/err.h"
#include "lib/base/size.h"
#include "tests/unit/collie_bed.h"

static void expect_senseless(void **state, int line, const char *argument, const char *why)
{
	struct collie_run run =
		collie_run_argv(BED->address, false, COLLIE_ARGS(argument, "list", "--json"));
	char want[64];

	snprintf(want, sizeof(want), "collie: %s list: the sheep's answer ", argument);
	if (run.exit != COLLIE_UNREACHABLE || strncmp(run.err, want, strlen(want)) != 0 ||
	    !strstr(run.err, why) || !strstr(run.out, "\"code\": \"protocol\""))
		fail_msg("line %d: exit %d: %s%s", line, run.exit, run.err, run.out);
	collie_run_done(&run);
	fake_sheep_check(BED->sheep);
}

static void test_answers_that_are_not_json_are_2(void **state)
{
	static const char *const garbage[] = {
		"{",
		"[",
		"[}",
		"[] x",
		"[][]",
		"nonsense",
		"\"text\"",
		"5",
		"null",
		"true",
		"[{\"name\":\"a\"]",
		"{\"name\":}",
		"[{'name':'a'}]",
		"[1,]",
		"[{\"name\":\"\xff\"}]",
		"\x01\x02\x03",
		"[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]",
		"[] /* comment */ []",
	};

	for (size_t i = 0; i < ARRAY_COUNT(garbage); i++) {
		SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, garbage[i]});
		expect_senseless(state, __LINE__, "vdi", "");
	}
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, NULL}); /* nothing at all */
	expect_senseless(state, __LINE__, "vdi", "is not JSON (0 bytes)");
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, "[]\0[]", .reply_size = 5});
	expect_senseless(state, __LINE__, "vdi", "is not JSON");
}

static void test_answers_of_the_wrong_kind_are_2(void **state)
{
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, "{}"});
	expect_senseless(state, __LINE__, "vdi", "a list was asked for");
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, "[1]"});
	expect_senseless(state, __LINE__, "vdi", "no key");
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, "[{\"size\":1}]"});
	expect_senseless(state, __LINE__, "vdi", "no key");
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, "[{\"name\":\"b\"},{\"name\":\"a\"}]"});
	expect_senseless(state, __LINE__, "vdi", "not in order");
	SCRIPT({ADMIN_OP_NODE_LIST, NULL, 0, "[{\"id\":1},{\"id\":1}]"});
	expect_senseless(state, __LINE__, "node", "not in order");
	SCRIPT({ADMIN_OP_NODE_LIST, NULL, 0, "[{\"id\":1},{\"id\":\"2\"}]"});
	expect_senseless(state, __LINE__, "node", "not in order");
	/* pages without an end */
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, "[]", .flags = ADMIN_REPLY_MORE});
	expect_senseless(state, __LINE__, "vdi", "empty page");
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, "[{\"name\":\"a\"}]", .flags = ADMIN_REPLY_MORE},
	       {ADMIN_OP_VDI_LIST, "{\"after\":\"a\"}", 0, "[{\"name\":\"a\"}]",
		.flags = ADMIN_REPLY_MORE});
	expect_senseless(state, __LINE__, "vdi", "not in order");

	SCRIPT({ADMIN_OP_CLUSTER_INFO, NULL, 0, "[]"});
	EXPECT(COLLIE_UNREACHABLE, "",
	       "collie: cluster info: the sheep's answer makes no sense: an object was asked for\n",
	       "cluster", "info");
	/* what is in an object is shown as what it is */
	SCRIPT({ADMIN_OP_VDI_INFO, "{\"name\":\"x\"}", 0,
		"{\"name\":[[\"a\"],{}],\"size\":\"big\",\"opened_by\":7,\"snapshots\":{\"a\":1}}"});
	EXPECT(0, NULL, "", "vdi", "info", "x");
}

static void test_a_silent_sheep_times_out_with_6(void **state)
{
	SCRIPT({ADMIN_OP_VDI_CREATE, "{\"name\":\"a\",\"size\":512}", .action = FAKE_SILENCE});
	EXPECT(COLLIE_BUSY, "",
	       "collie: vdi create: no answer in time; what was asked may still happen\n",
	       "--timeout", "0.2", "vdi", "create", "a", "512");
	/* it was told to be a little faster than that */
	assert_in_range(fake_sheep_deadline_ms(BED->sheep), 150, 190);
}

static void test_a_lost_connection_leaves_the_outcome_open(void **state)
{
	SCRIPT({ADMIN_OP_VDI_CREATE, "{\"name\":\"a\",\"size\":512}", .action = FAKE_HANG_UP});
	struct collie_run run = RUN("--json", "vdi", "create", "a", "512");

	assert_int_equal(run.exit, COLLIE_UNREACHABLE);
	assert_non_null(strstr(run.err, "whether it was done is not known"));
	assert_non_null(strstr(run.out, "\"code\": \"connection_lost\""));
	collie_run_done(&run);
	fake_sheep_check(BED->sheep); /* it was not sent a second time */
}

/* A sheep that no longer (or not yet) speaks our version says so, and both ranges are named. */
static void test_no_common_version_is_2(void **state)
{
	struct fake_sheep *other = fake_sheep_start("127.0.0.1:0", 77);
	struct collie_run run = RUN("-s", fake_sheep_address(other), "vdi", "list");

	assert_int_equal(run.exit, COLLIE_UNREACHABLE);
	assert_non_null(strstr(run.err, "77"));
	assert_non_null(strstr(run.err, "version"));
	assert_null(strstr(run.err, "is a sheep running there"));
	collie_run_done(&run);
	fake_sheep_stop(other);
}

/* Nothing is waited for longer than was said, also where nobody answers HELLO. */
static void test_a_stopped_sheep_is_2_when_the_time_is_over(void **state)
{
	char other[128];

	snprintf(other, sizeof(other), "unix:%s.raw", BED->path);
	struct fake_socket *raw = fake_socket_start(other + strlen("unix:"), "", 0, false);
	struct collie_run run = RUN("-s", other, "--timeout", "0.2", "cluster", "wait");

	assert_int_equal(run.exit, COLLIE_UNREACHABLE);
	assert_non_null(strstr(run.err, "no answer in time"));
	collie_run_done(&run);
	fake_socket_stop(raw);
}

/* Bytes that are no protocol at all: exit 2 and one line, soon. */
static void test_garbage_on_the_socket_is_2(void **state)
{
	static uint8_t bytes[4096];
	static const struct {
		uint32_t size;
		int fill;
		bool hang_up;
	} rows[] = {{0, 0, true},	{1, 'x', true},	  {64, 0, true},
		    {4096, 0xff, true}, {4096, 0, false}, {63, 'S', true}};
	char other[128];

	snprintf(other, sizeof(other), "unix:%s.raw", BED->path);
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		memset(bytes, rows[i].fill, sizeof(bytes));
		struct fake_socket *raw = fake_socket_start(other + strlen("unix:"), bytes,
							    rows[i].size, rows[i].hang_up);
		struct collie_run run = RUN("-s", other, "cluster", "info");
		if (run.exit != COLLIE_UNREACHABLE || run.out[0] ||
		    !strstr(run.err, "is that the admin address of a sheep?\n"))
			fail_msg("row %zu: exit %d: %s%s", i, run.exit, run.out, run.err);
		collie_run_done(&run);
		fake_socket_stop(raw);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers_that_are_not_json_are_2),
		cmocka_unit_test(test_answers_of_the_wrong_kind_are_2),
		cmocka_unit_test(test_a_silent_sheep_times_out_with_6),
		cmocka_unit_test(test_a_lost_connection_leaves_the_outcome_open),
		cmocka_unit_test(test_no_common_version_is_2),
		cmocka_unit_test(test_a_stopped_sheep_is_2_when_the_time_is_over),
		cmocka_unit_test(test_garbage_on_the_socket_is_2),
	};
	return cmocka_run_group_tests(tests, collie_bed_setup, collie_bed_teardown);
}
