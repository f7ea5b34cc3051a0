/* What collie says without any sheep: usage, help, completion, unreachable sheep. */
#include <json-c/json.h>
#include <signal.h>
#include <unistd.h>

#include "collie/command.h"
#include "collie/failure.h"
#include "include/proto/status.h"
#include "lib/base/size.h"
#include "tests/unit/collie_run.h"

#define NOBODY "unix:/nonexistent/admin.sock"

#define EXPECT(exit, out, err, ...)                                                           \
	collie_run_expect(__LINE__, collie_run_argv(NOBODY, false, COLLIE_ARGS(__VA_ARGS__)), \
			  exit, out, err)

/* Usage errors: 64, nothing on standard output, one line that names what is wrong. */
#define USAGE(err, ...) EXPECT(COLLIE_USAGE, "", err, __VA_ARGS__)

static void test_wrong_usage_is_64_and_named(void **state)
{
	USAGE("collie: a command is missing; see `collie help`\n");
	USAGE("collie: 'nonsense': no such command; see `collie help`\n", "nonsense", "x");
	USAGE("collie: vdi: what? create list info delete rename resize set; see `collie help`\n",
	      "vdi");
	USAGE("collie: 'vdi dance': no such command; see `collie help`\n", "vdi", "dance");
	USAGE("collie: vdi create: NAME is missing; see `collie help vdi create`\n", "vdi",
	      "create");
	USAGE("collie: vdi create: SIZE is missing; see `collie help vdi create`\n", "vdi",
	      "create", "db");
	USAGE("collie: vdi create: 'more' is too much; see `collie help vdi create`\n", "vdi",
	      "create", "db", "1G", "more");
	USAGE("collie: node list: 'x' is too much; see `collie help node list`\n", "node", "list",
	      "x");
	USAGE("collie: vdi list: --copies: no such option; see `collie help vdi list`\n", "vdi",
	      "list", "--copies", "2");
	/* a command's options come after it */
	USAGE("collie: --copies: no such option; see `collie help`\n", "--copies", "2", "cluster",
	      "format");
	USAGE("collie: cluster format: --copies: N is missing; see `collie help cluster format`\n",
	      "cluster", "format", "--copies");
	USAGE("collie: cluster format: --force: takes no value; see `collie help cluster format`\n",
	      "cluster", "format", "--force=1");
	USAGE("collie: help: no such command; see `collie help`\n", "help", "help");
	USAGE("collie: vdi dance: no such command; see `collie help`\n", "help", "vdi", "dance");
	USAGE("collie: 'help' takes a noun and a verb; see `collie help`\n", "help", "vdi",
	      "create", "x");
}

static void test_wrong_values_are_64_and_named(void **state)
{
	USAGE("collie: vdi create: SIZE: '10Q' is not a size: bytes, or a number with K M G T P\n",
	      "vdi", "create", "db", "10Q");
	USAGE("collie: vdi create: SIZE: '-5' is not a size: bytes, or a number with K M G T P\n",
	      "vdi", "create", "db", "--", "-5");
	USAGE("collie: vdi create: SIZE: '99999999P' is too large\n", "vdi", "create", "db",
	      "99999999P");
	USAGE("collie: vdi create: --set: 'x' is not KEY=VALUE\n", "vdi", "create", "db", "1G",
	      "--set", "x");
	USAGE("collie: vdi create: --set: '=x' is not KEY=VALUE\n", "vdi", "create", "db", "1G",
	      "--set", "=x");
	USAGE("collie: vdi create: --set: 'a' is there twice\n", "vdi", "create", "db", "1G",
	      "--set", "a=1", "--set=a=2");
	USAGE("collie: vdi create: NAME is not clean UTF-8\n", "vdi", "create", "a\xff", "1G");
	USAGE("collie: cluster format: --copies: 'two' is not a whole number\n", "cluster",
	      "format", "--copies", "two");
	USAGE("collie: cluster wait: --status: 'fine' is not a known word; see the help\n",
	      "cluster", "wait", "--status", "fine");
	static const char *const times[] = {"0", "", "-1", "1.", "1.2345", "x", "0.000", "4000001"};
	for (size_t i = 0; i < ARRAY_COUNT(times); i++) {
		char text[128];
		snprintf(
			text, sizeof(text),
			"collie: --timeout: '%s' is not a time in seconds above 0, 4000000 at most\n",
			times[i]);
		USAGE(text, "--timeout", times[i], "vdi", "list");
	}
	USAGE("collie: vdi list: --sheep: 'here' is neither unix:PATH nor HOST:PORT\n", "-s",
	      "here", "vdi", "list");
	USAGE("collie: vdi list: --sheep: 'a:b' is neither unix:PATH nor HOST:PORT\n", "-s", "a:b",
	      "vdi", "list");
}

/* Exit 2, the address and why, and a hint. */
static void test_an_unreachable_sheep_is_2_with_a_hint(void **state)
{
	static const char *const commands_without_change[] = {"info", "wait"};

	for (size_t i = 0; i < ARRAY_COUNT(commands_without_change); i++) {
		struct collie_run run = collie_run_argv(
			NOBODY, false, COLLIE_ARGS("cluster", commands_without_change[i]));
		assert_int_equal(run.exit, COLLIE_UNREACHABLE);
		assert_string_equal(run.out, "");
		assert_non_null(strstr(run.err, "/nonexistent/admin.sock"));
		assert_non_null(strstr(run.err, "No such file or directory"));
		assert_non_null(strstr(run.err, "is a sheep running there?"));
		assert_int_equal(strcspn(run.err, "\n"), strlen(run.err) - 1);
		collie_run_done(&run);
	}
	/* nobody listens at port 1 */
	struct collie_run run =
		collie_run_argv(NULL, false, COLLIE_ARGS("-s", "127.0.0.1:1", "node", "list"));
	assert_int_equal(run.exit, COLLIE_UNREACHABLE);
	assert_non_null(strstr(run.err, "reached: 127.0.0.1:1: "));
	assert_non_null(strstr(run.err, "Connection refused"));
	collie_run_done(&run);
}

static void expect_error_document(const char *text, const char *code)
{
	struct json_object *json = json_tokener_parse(text);

	assert_true(json_object_is_type(json, json_type_object));
	assert_true(json_object_is_type(json_object_object_get(json, "error"), json_type_string));
	assert_string_equal(json_object_get_string(json_object_object_get(json, "code")), code);
	json_object_put(json);
}

static void test_errors_are_json_too_when_asked_for(void **state)
{
	struct collie_run run =
		collie_run_argv(NOBODY, false, COLLIE_ARGS("--json", "cluster", "info"));

	expect_error_document(run.out, "unreachable");
	assert_true(strncmp(run.err, "collie: cluster info: ", 22) == 0);
	collie_run_done(&run);

	/* also when --json comes behind what is wrong */
	run = collie_run_argv(NOBODY, false, COLLIE_ARGS("vdi", "create", "a", "1Q", "--json"));
	assert_int_equal(run.exit, COLLIE_USAGE);
	expect_error_document(run.out, "usage");
	collie_run_done(&run);
}

static void test_help_knows_every_command(void **state)
{
	struct collie_run all = collie_run_argv(NULL, false, COLLIE_ARGS("help"));

	assert_int_equal(all.exit, 0);
	for (size_t i = 0; i < command_count; i++) {
		const struct command *c = &commands[i];
		char synopsis[256];
		assert_non_null(strstr(all.out, c->help));

		struct collie_run one =
			collie_run_argv(NULL, false, COLLIE_ARGS("help", c->noun, c->verb));
		assert_int_equal(one.exit, 0);
		assert_non_null(strstr(one.out, command_synopsis(c, synopsis, sizeof(synopsis))));
		for (size_t o = 0; o < COMMAND_OPTIONS_MAX && c->options[o].option.name; o++)
			assert_non_null(strstr(one.out, c->options[o].option.name));

		struct collie_run same =
			collie_run_argv(NULL, false, COLLIE_ARGS(c->noun, c->verb, "--help"));
		assert_int_equal(same.exit, 0);
		assert_string_equal(same.out, one.out);
		collie_run_done(&one);
		collie_run_done(&same);
	}
	EXPECT(0, all.out, "", "--help");
	EXPECT(0, all.out, "", "-h");
	EXPECT(0, "collie " PACKAGE_VERSION "\n", "", "--version");
	EXPECT(0, NULL, "", "help", "vdi");
	collie_run_done(&all);
}

/* Every command, option and operand of the table is described in the manual. */
static void test_the_manual_is_complete(void **state)
{
	char path[1024];
	static char manual[65536];

	snprintf(path, sizeof(path), "%s/docs/man/collie.8", getenv("top_srcdir") ?: ".");
	FILE *file = fopen(path, "re");
	assert_non_null(file);
	manual[fread(manual, 1, sizeof(manual) - 1, file)] = '\0';
	fclose(file);
	for (size_t i = 0; i < command_count; i++) {
		char name[64];
		snprintf(name, sizeof(name), "%s %s", commands[i].noun, commands[i].verb);
		if (!strstr(manual, name))
			fail_msg("'%s' is not in %s", name, path);
		for (size_t o = 0; o < COMMAND_OPTIONS_MAX && commands[i].options[o].option.name;
		     o++) {
			/* groff writes a minus as \- */
			char *p = name;
			for (const char *q = commands[i].options[o].option.name; *q; q++) {
				if (*q == '-')
					*p++ = '\\';
				*p++ = *q;
			}
			*p = '\0';
			if (!strstr(manual, name))
				fail_msg("option '%s' is not in %s", name, path);
		}
	}
}

#define COMPLETE(words, ...) EXPECT(0, words, "", "complete", __VA_ARGS__)

static void test_completion_follows_the_table(void **state)
{
	COMPLETE("cluster\nnode\nstore\npg\nvdi\nrecovery\nhelp\n", "");
	COMPLETE("vdi\n", "v");
	COMPLETE("create\nlist\ninfo\ndelete\nrename\nresize\nset\n", "vdi", "");
	COMPLETE("info\n", "-s", "unix:/x", "--json", "vdi", "i");
	COMPLETE("--sheep\n--json\n--timeout\n--help\n--version\n", "-");
	COMPLETE("--copies\n", "cluster", "format", "--c");
	COMPLETE("unformatted\nhealthy\ndegraded\nrecovering\ndown\n", "cluster", "wait",
		 "--status", "");
	COMPLETE("", "cluster", "format", "--copies", "");
	COMPLETE("create\nlist\ninfo\ndelete\nrename\nresize\nset\n", "help", "vdi", "");
	COMPLETE("", "nonsense", "");
	COMPLETE("", "vdi", "create", "");
	/* names of volumes would come from a sheep: there is none, and nobody complains */
	COMPLETE("", "vdi", "info", "");
	EXPECT(0, "cluster\nnode\nstore\npg\nvdi\nrecovery\nhelp\n", "", "complete");
}

static void test_output_that_cannot_be_written_is_told(void **state)
{
	char *text = NULL;
	size_t size;
	struct collie_io io = {.out = fopen("/dev/full", "we"),
			       .err = open_memstream(&text, &size)};

	assert_int_equal(collie_run(2, (char *[]){(char *)"collie", (char *)"help", NULL}, &io),
			 COLLIE_UNREACHABLE);
	fclose(io.err);
	assert_string_equal(text, "collie: standard output: No space left on device\n");
	(void)fclose(io.out);
	free(text);

	/* a reader who has seen enough is no error */
	int pipes[2];
	assert_int_equal(pipe(pipes), 0);
	close(pipes[0]);
	signal(SIGPIPE, SIG_IGN);
	io.out = fdopen(pipes[1], "w");
	io.err = open_memstream(&text, &size);
	assert_int_equal(collie_run(2, (char *[]){(char *)"collie", (char *)"help", NULL}, &io), 0);
	fclose(io.err);
	assert_string_equal(text, "");
	(void)fclose(io.out);
	free(text);
}

static void test_every_status_has_its_exit_code(void **state)
{
	static const struct {
		uint32_t status;
		enum collie_exit exit;
		const char *code;
	} rows[] = {
		{PROTO_STATUS_OK, COLLIE_DONE, "ok"},
		{PROTO_STATUS_INVALID, COLLIE_REFUSED, "invalid"},
		{PROTO_STATUS_NOT_FORMATTED, COLLIE_REFUSED, "not_formatted"},
		{PROTO_STATUS_NO_QUORUM, COLLIE_BUSY, "no_quorum"},
		{PROTO_STATUS_UNSUPPORTED, COLLIE_REFUSED, "unsupported"},
		{PROTO_STATUS_IO, COLLIE_UNREACHABLE, "io"},
		{PROTO_STATUS_SHUTDOWN, COLLIE_UNREACHABLE, "shutdown"},
		{PROTO_STATUS_EXISTS, COLLIE_EXISTS, "exists"},
		{PROTO_STATUS_NO_SPACE, COLLIE_NO_SPACE, "no_space"},
		{PROTO_STATUS_NOT_FOUND, COLLIE_NOT_FOUND, "not_found"},
		{PROTO_STATUS_BUSY, COLLIE_BUSY, "busy"},
		{PROTO_STATUS_TIMED_OUT, COLLIE_BUSY, "timed_out"},
		{7777, COLLIE_UNREACHABLE, "status_7777"},
	};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct failure failure;
		assert_int_equal(failure_from_status(&failure, rows[i].status, "x\ny", 3),
				 rows[i].exit);
		assert_string_equal(failure.code, rows[i].code);
		assert_string_equal(failure.text, "x?y");
		failure_from_status(&failure, rows[i].status, NULL, 0);
		assert_true(failure.text[0]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wrong_usage_is_64_and_named),
		cmocka_unit_test(test_wrong_values_are_64_and_named),
		cmocka_unit_test(test_an_unreachable_sheep_is_2_with_a_hint),
		cmocka_unit_test(test_errors_are_json_too_when_asked_for),
		cmocka_unit_test(test_help_knows_every_command),
		cmocka_unit_test(test_the_manual_is_complete),
		cmocka_unit_test(test_completion_follows_the_table),
		cmocka_unit_test(test_output_that_cannot_be_written_is_told),
		cmocka_unit_test(test_every_status_has_its_exit_code),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
