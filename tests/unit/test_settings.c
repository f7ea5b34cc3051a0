/* sheep/service/settings.h: command line, file, defaults, and every refusal. */
#include "sheep/service/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/size.h"

#define ARGS(...) ((const char *[]){"sheep", ##__VA_ARGS__, NULL})
#define LOCAL	  "-c", "local:/tmp/engine"
#define X50	  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

/* A file in memory. */
static int config_fd;
static char config_path[64];

static int parse(const char *const *argv, struct settings *out, struct error *err)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	return settings_parse(out, argc, (char **)(uintptr_t)argv, err);
}

static struct settings good(const char *const *argv)
{
	struct settings settings;
	struct error err = {0};

	if (parse(argv, &settings, &err) < 0)
		fail_msg("refused: %s", err.text);
	return settings;
}

/* Refused with this text in the message. */
static void bad_at(int line, const char *const *argv, const char *text)
{
	struct settings settings;
	struct error err = {0};
	int rc = parse(argv, &settings, &err);

	if (rc == 0)
		fail_msg("line %d: accepted, wanted: %s", line, text);
	if (rc != -E_USAGE)
		fail_msg("line %d: code %d: %s", line, rc, err.text);
	if (!strstr(err.text, text))
		fail_msg("line %d: '%s' does not say '%s'", line, err.text, text);
}

#define BAD(text, ...) bad_at(__LINE__, ARGS(__VA_ARGS__), text)

static void write_config(const char *text)
{
	assert_int_equal(ftruncate(config_fd, 0), 0);
	assert_int_equal(pwrite(config_fd, text, strlen(text), 0), strlen(text));
}

static void test_defaults_are_those_of_the_manual(void **state)
{
	struct settings s = good(ARGS(LOCAL, "/srv/disk1/", "/srv/disk2"));

	assert_int_equal(s.action, SETTINGS_RUN);
	assert_string_equal(s.cluster, "local:/tmp/engine");
	assert_string_equal(s.peer, "127.0.0.1:7000");
	assert_int_equal(s.nbd.count, 1);
	assert_string_equal(s.nbd.items[0], "127.0.0.1:10809");
	assert_int_equal(s.admin.count, 1);
	assert_string_equal(s.admin.items[0], "unix:/srv/disk1/admin.sock");
	assert_int_equal(s.stores.count, 2);
	assert_string_equal(s.stores.items[1], "/srv/disk2");
	assert_in_range(s.loops, 1, 8);
	assert_true(s.zone && *s.zone);
	assert_int_equal(s.io, LOOP_BACKEND_AUTO);
	assert_int_equal(s.log_level, LOG_LEVEL_INFO);
	assert_int_equal(s.log_format, SETTINGS_LOG_TEXT);
	assert_int_equal(s.store_size, 0);
	assert_null(s.metrics);
	assert_null(s.runtime_dir);
	assert_null(s.state);
	assert_null(s.config);
	assert_false(s.is_gateway || s.is_insecure || s.is_exposed);
	settings_done(&s);
}

static void test_every_option_arrives(void **state)
{
	struct settings s = good(ARGS("--cluster=zookeeper:a:2181,b:2182/root", "-p", "[::1]:7001",
				      "-n", "127.0.0.1:1", "-n", "unix:/tmp/n", "-a", "127.0.0.1:2",
				      "-aunix:/tmp/a", "-z", "rack 1", "--loops", "64", "--io",
				      "epoll", "--store-size", "3T", "--runtime-dir", "/run/x",
				      "--log-level", "debug", "--log-format", "json", "/d"));

	assert_string_equal(s.cluster, "zookeeper:a:2181,b:2182/root");
	assert_string_equal(s.peer, "[::1]:7001");
	assert_int_equal(s.nbd.count, 2);
	assert_string_equal(s.nbd.items[1], "unix:/tmp/n");
	assert_int_equal(s.admin.count, 2);
	assert_string_equal(s.admin.items[1], "unix:/tmp/a");
	assert_string_equal(s.zone, "rack 1");
	assert_int_equal(s.loops, 64);
	assert_int_equal(s.io, LOOP_BACKEND_EPOLL);
	assert_true(s.store_size == 3 * TIB);
	assert_string_equal(s.runtime_dir, "/run/x");
	assert_int_equal(s.log_level, LOG_LEVEL_DEBUG);
	assert_int_equal(s.log_format, SETTINGS_LOG_JSON);
	assert_false(s.is_exposed);
	settings_done(&s);
}

static void test_a_gateway_has_state_and_no_store(void **state)
{
	struct settings s = good(ARGS(LOCAL, "--gateway", "--state", "/var/lib/gw"));

	assert_true(s.is_gateway);
	assert_string_equal(s.state, "/var/lib/gw");
	assert_string_equal(s.admin.items[0], "unix:/var/lib/gw/admin.sock");
	assert_int_equal(s.stores.count, 0);
	settings_done(&s);

	BAD("--gateway needs --state", LOCAL, "--gateway");
	BAD("exclude each other", LOCAL, "--gateway", "--state", "/s", "/disk");
	BAD("--state is for --gateway", LOCAL, "--state", "/s", "/disk");
	BAD("a STORE is needed", LOCAL);
}

static void test_engine_is_required_and_known(void **state)
{
	static const char *const engines[] = {"corosync", "corosync:main", "zookeeper:h:1",
					      "zookeeper:[::1]:2181/a/b"};

	for (size_t i = 0; i < ARRAY_COUNT(engines); i++) {
		struct settings s = good(ARGS("-c", engines[i], "/d"));
		settings_done(&s);
	}
	BAD("--cluster is needed", "/d");
	BAD("--cluster is needed", "--gateway", "--state", "/s");
	BAD("--cluster: 'nonsense:1': no such engine", "-c", "nonsense:1", "/d");
	BAD("no such engine", "-c", "local", "/d");
	BAD("no such engine", "-c", "corosyncs", "/d");
	BAD("the directory is missing", "-c", "local:", "/d");
	BAD("the channel is missing", "-c", "corosync:", "/d");
	BAD("'h' is not HOST:PORT", "-c", "zookeeper:h", "/d");
	BAD("'' is not HOST:PORT", "-c", "zookeeper:", "/d");
	BAD("'' is not HOST:PORT", "-c", "zookeeper:h:1,", "/d");
	BAD("'h:0' is not HOST:PORT", "-c", "zookeeper:a:1,h:0", "/d");
	BAD("':5' is not HOST:PORT", "-c", "zookeeper::5", "/d");
	BAD("'h:65536' is not HOST:PORT", "-c", "zookeeper:h:65536/root", "/d");
}

static void test_bad_values_are_named(void **state)
{
	BAD("--loops: '0' is not a number from 1 to 64", LOCAL, "--loops", "0", "/d");
	BAD("--loops: '65'", LOCAL, "--loops", "65", "/d");
	BAD("--loops: '2x'", LOCAL, "--loops=2x", "/d");
	BAD("--io: 'aio' is none of auto, uring, epoll", LOCAL, "--io", "aio", "/d");
	BAD("--log-level: 'loud' is none of", LOCAL, "--log-level", "loud", "/d");
	BAD("--log-format: 'xml' is none of", LOCAL, "--log-format", "xml", "/d");
	BAD("--store-size: '0' is not a size", LOCAL, "--store-size", "0", "/d");
	BAD("--store-size: '10Q' is not a size", LOCAL, "--store-size", "10Q", "/d");
	BAD("--store-size: '99999999P' is too large", LOCAL, "--store-size", "99999999P", "/d");
	BAD("--zone: the value is empty", LOCAL, "-z", "", "/d");
	BAD("--zone: '" X50 "xxxxxxxxxxxxxx' has more than 63 bytes", LOCAL, "-z",
	    X50 "xxxxxxxxxxxxxx", "/d");
	BAD("--zone: the name is not clean", LOCAL, "-z", "a\nb", "/d");
	BAD("store: the value is empty", LOCAL, "");
	BAD("store: '/d' is there twice", LOCAL, "/d", "/d");
	BAD("--nbd: 'unix:/n' is there twice", LOCAL, "-n", "unix:/n", "-n", "unix:/n", "/d");
	BAD("--tls-dir: TLS is not in this version", LOCAL, "--tls-dir", "/t", "/d");
	BAD("--nothing: no such option", LOCAL, "--nothing", "/d");
	BAD("--peer: ADDR:PORT is missing", LOCAL, "/d", "-p");
	BAD("--gateway: takes no value", LOCAL, "--gateway=yes");
}

static void test_bad_addresses_are_refused(void **state)
{
	BAD("--peer: 'unix:/p': ADDR:PORT is needed", LOCAL, "-p", "unix:/p", "/d");
	BAD("--peer: '0.0.0.0:7000': name the address", LOCAL, "--insecure", "-p", "0.0.0.0:7000",
	    "/d");
	BAD("--peer: '[::]:7000': name the address", LOCAL, "--insecure", "-p", "[::]:7000", "/d");
	BAD("--peer: ", LOCAL, "-p", "127.0.0.1", "/d");
	BAD("--peer: ", LOCAL, "-p", "127.0.0.1:70000", "/d");
	BAD("metrics are not in this version yet", LOCAL, "-m", "127.0.0.1:9000", "/d");
	BAD("--nbd: ", LOCAL, "-n", "unix:", "/d");
	BAD("--admin: ", LOCAL, "-a", "localhost:5", "/d");
}

static void test_unix_paths_over_107_bytes_are_refused(void **state)
{
	/* "/" + 106 */
	struct settings s = good(ARGS(LOCAL, "-n", "unix:/" X50 X50 "123456", "/d"));

	settings_done(&s);
	BAD("--nbd: ", LOCAL, "-n", "unix:/" X50 X50 "1234567", "/d");
	BAD("107", LOCAL, "-a", "unix:/" X50 X50 "1234567", "/d");
	/* the default counts too, and the message says what to give */
	BAD("--admin is not given", LOCAL, "/" X50 X50);
	s = good(ARGS(LOCAL, "-a", "unix:/tmp/a", "/" X50 X50));
	settings_done(&s);
}

static void test_beyond_loopback_needs_insecure(void **state)
{
	struct settings s;

	BAD("10.0.0.1:7000: whoever reaches this", LOCAL, "-p", "10.0.0.1:7000", "/d");
	BAD("0.0.0.0:99: whoever reaches this", LOCAL, "-a", "0.0.0.0:99", "/d");
	BAD("[fe80::1]:99: whoever", LOCAL, "-a", "unix:/a", "-a", "[fe80::1]:99", "/d");

	s = good(ARGS(LOCAL, "--insecure", "-p", "10.0.0.1:7000", "/d"));
	assert_true(s.is_exposed);
	assert_string_equal(settings_exposure(&s), "10.0.0.1:7000");
	settings_done(&s);

	s = good(ARGS(LOCAL, "--insecure", "-p", "127.3.2.1:7000", "/d"));
	assert_true(s.is_insecure);
	assert_false(s.is_exposed);
	assert_null(settings_exposure(&s));
	settings_done(&s);

	/* NBD has its own rules */
	s = good(ARGS(LOCAL, "-n", "0.0.0.0:10809", "/d"));
	assert_false(s.is_exposed);
	settings_done(&s);
}

static void test_help_and_version_need_nothing_else(void **state)
{
	struct settings s = good(ARGS("--version"));

	assert_int_equal(s.action, SETTINGS_VERSION);
	settings_done(&s);
	s = good(ARGS("/d", "--help", "--nonsense"));
	assert_int_equal(s.action, SETTINGS_HELP);
	settings_done(&s);
}

static void test_the_file_sets_what_the_line_does_not(void **state)
{
	write_config("# a comment\n"
		     "\n"
		     "  cluster = local:/from file # not a comment  \n"
		     "peer=127.0.0.1:1\r\n"
		     "nbd = 127.0.0.1:2\n"
		     "nbd = 127.0.0.1:3\n"
		     "store = /file1\n"
		     "store = /file2\n"
		     "loops = 5\n"
		     "insecure = on\n"
		     "log-level = debug");
	struct settings s = good(ARGS("--config", config_path));

	assert_string_equal(s.cluster, "local:/from file # not a comment");
	assert_string_equal(s.peer, "127.0.0.1:1");
	assert_int_equal(s.nbd.count, 2);
	assert_string_equal(s.nbd.items[1], "127.0.0.1:3");
	assert_int_equal(s.stores.count, 2);
	assert_int_equal(s.loops, 5);
	assert_true(s.is_insecure);
	assert_int_equal(s.log_level, LOG_LEVEL_DEBUG);
	assert_string_equal(s.config, config_path);
	settings_done(&s);

	/* lists are replaced as a whole, whatever the order on the line */
	s = good(ARGS("-n", "unix:/n", "--config", config_path, "/line", "--loops=7"));
	assert_int_equal(s.nbd.count, 1);
	assert_string_equal(s.nbd.items[0], "unix:/n");
	assert_int_equal(s.stores.count, 1);
	assert_string_equal(s.stores.items[0], "/line");
	assert_int_equal(s.loops, 7);
	assert_string_equal(s.peer, "127.0.0.1:1");
	settings_done(&s);
}

static void bad_config(const char *text, const char *message)
{
	write_config(text);
	bad_at(0, ARGS(LOCAL, "/d", "--loops", "2", "--config", config_path), message);
}

static void test_errors_in_the_file_name_the_line(void **state)
{
	bad_config("peer = 127.0.0.1:5\nnonsense\n", ": line 2: 'nonsense' is not KEY = VALUE");
	bad_config("\n\ncolour = red\n", ": line 3: 'colour': no such setting");
	bad_config("zone =\n", ": line 1: zone: the value is empty");
	bad_config("zone = a\nzone = b\n", ": line 2: zone: set in line 1 already");
	bad_config("insecure = maybe\n", ": line 1: insecure: 'maybe' is neither yes nor no");
	bad_config("config = /x\n", "'config' belongs on the command line");
	bad_config("version = yes\n", "'version' belongs on the command line");
	bad_config("= 5\n", "'': no such setting");
	/* a line that loses to the command line must be right all the same */
	bad_config("loops = 99\n", ": line 1: loops: '99' is not a number");
	bad_at(__LINE__, ARGS(LOCAL, "/d", "--config", "/nonexistent/file"),
	       "/nonexistent/file: No such file");
	bad_at(__LINE__, ARGS(LOCAL, "/d", "--config", "/tmp"), "/tmp: Is a directory");
	bad_at(__LINE__, ARGS(LOCAL, "/d", "--config", "/dev/zero"), "more than 65536 bytes");
}

static void test_the_file_may_not_expose_either(void **state)
{
	bad_config("peer = 10.1.1.1:7000\n", "10.1.1.1:7000: whoever reaches");
}

static void test_help_names_every_option_of_the_contract(void **state)
{
	static const char *const options[] = {
		"-c, --cluster ENGINE",
		"-p, --peer ADDR:PORT",
		"-n, --nbd",
		"-a, --admin",
		"-m, --metrics ADDR:PORT",
		"-z, --zone NAME",
		"--loops N",
		"--io BACKEND",
		"--store-size BYTES",
		"--runtime-dir DIR",
		"--insecure",
		"--version",
		"--config FILE",
		"--log-level LEVEL",
		"--log-format FORMAT",
		"--tls-dir DIR",
		"--gateway",
		"--state DIR",
	};
	char *text;
	size_t size;
	FILE *file = open_memstream(&text, &size);

	settings_print_help(file);
	fclose(file);
	for (size_t i = 0; i < ARRAY_COUNT(options); i++)
		if (!strstr(text, options[i]))
			fail_msg("'%s' is not in the help:\n%s", options[i], text);
	for (char *rest = text, *line; (line = strsep(&rest, "\n"));)
		if (strlen(line) > 100)
			fail_msg("a long line: %s", line);
	free(text);
}

static int make_config(void **state)
{
	config_fd = memfd_create("config", MFD_CLOEXEC);
	snprintf(config_path, sizeof(config_path), "/proc/self/fd/%d", config_fd);
	return config_fd < 0;
}

static int close_config(void **state)
{
	return close(config_fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults_are_those_of_the_manual),
		cmocka_unit_test(test_every_option_arrives),
		cmocka_unit_test(test_a_gateway_has_state_and_no_store),
		cmocka_unit_test(test_engine_is_required_and_known),
		cmocka_unit_test(test_bad_values_are_named),
		cmocka_unit_test(test_bad_addresses_are_refused),
		cmocka_unit_test(test_unix_paths_over_107_bytes_are_refused),
		cmocka_unit_test(test_beyond_loopback_needs_insecure),
		cmocka_unit_test(test_help_and_version_need_nothing_else),
		cmocka_unit_test(test_the_file_sets_what_the_line_does_not),
		cmocka_unit_test(test_errors_in_the_file_name_the_line),
		cmocka_unit_test(test_the_file_may_not_expose_either),
		cmocka_unit_test(test_help_names_every_option_of_the_contract),
	};
	return cmocka_run_group_tests(tests, make_config, close_config);
}
