/* collie against a scripted sheep: every command, its answer in both forms, and every refusal. */
#include <json-c/json.h>
#include <stdio.h>
#include <unistd.h>

#include "lib/base/err.h"
#include "lib/base/size.h"
#include "tests/unit/collie_run.h"
#include "tests/unit/fake_sheep.h"

static char address[128], path[64];
static struct fake_sheep *sheep;

#define RUN(...)    collie_run_argv(address, false, COLLIE_ARGS(__VA_ARGS__))
#define SCRIPT(...) fake_sheep_script(sheep, (const struct fake_step[]){__VA_ARGS__, {0}})

/* Run a command line; then the script must be used up. */
#define EXPECT(exit, out, err, ...)                                            \
	do {                                                                   \
		collie_run_expect(__LINE__, RUN(__VA_ARGS__), exit, out, err); \
		fake_sheep_check(sheep);                                       \
	} while (0)

/* With --json: what was printed is the document that the sheep gave, by value. */
static void expect_json(struct collie_run run, const char *document)
{
	struct json_tokener *tokener = json_tokener_new();
	struct json_object *want = json_tokener_parse(document);
	size_t size = strlen(run.out);

	assert_int_equal(run.exit, 0);
	assert_string_equal(run.err, "");
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
	struct json_object *got = json_tokener_parse_ex(tokener, run.out, (int)size - 1);
	assert_int_equal(json_tokener_get_error(tokener), json_tokener_success);
	assert_int_equal(run.out[size - 1], '\n');
	if (!json_object_equal(want, got))
		fail_msg("printed: %s\nnot: %s", run.out, document);
	json_object_put(want);
	json_object_put(got);
	json_tokener_free(tokener);
	collie_run_done(&run);
	fake_sheep_check(sheep);
}

/* ---- answers ---- */

#define UUID1 "11111111-aaaa-4aaa-8aaa-000000000001"
#define UUID2 "22222222-bbbb-4bbb-8bbb-000000000002"

static const char nodes[] =
	"[{\"id\":1,\"address\":\"127.0.0.1:7001\",\"zone\":\"zone1\",\"status\":\"up\","
	"\"stores\":[\"" UUID1 "\"],\"copies\":7,\"version\":\"0.1\",\"is_self\":true},"
	"{\"id\":12,\"address\":\"[2001:db8::1]:7002\",\"zone\":\"a long zone name\","
	"\"status\":\"down\",\"stores\":[\"" UUID2 "\"],\"version\":null}]";

static const char nodes_table[] =
	"NODE  ADDRESS             ZONE              STATUS  STORES  COPIES  VERSION\n"
	"   1  127.0.0.1:7001      zone1             up           1       7  0.1\n"
	"  12  [2001:db8::1]:7002  a long zone name  down         1       -  -\n";

#define INFO(status, nodes)                                                                   \
	"{\"uuid\":\"0c0ffee0-0000-4000-8000-000000000000\",\"status\":\"" status             \
	"\",\"level\":1,\"copies\":3,\"min_insync\":2,\"nodes\":" nodes                       \
	",\"pgs\":{\"total\":256,\"active\":250,\"degraded\":7,\"recovering\":3,\"down\":6}," \
	"\"recovery\":{\"objects_missing\":12,\"bytes_missing\":5242880},"                    \
	"\"stores\":{\"total\":3,\"up\":2},"                                                  \
	"\"space\":{\"size\":3298534883328,\"used\":1610612736,\"allocated\":2147483648},"    \
	"\"volumes\":4,\"quorum\":true,\"log_index\":77}"

static const char info_record[] = "cluster  0c0ffee0-0000-4000-8000-000000000000\n"
				  "status   degraded\n"
				  "copies   3, at least 2 in sync\n"
				  "level    1\n"
				  "stores   2 up of 3\n"
				  "space    1.5 GiB used, 2 GiB allocated of 3 TiB\n"
				  "volumes  4\n"
				  "PGs      250 active of 256; 7 degraded, 3 recovering, 6 down\n"
				  "missing  12 objects, 5 MiB\n";

#define VOLUME(name)                                                                            \
	"{\"name\":\"" name "\",\"id\":5,\"size\":107374182400,\"used\":null,\"snapshots\":[]," \
	"\"parent\":null,\"access\":\"single\",\"durability\":\"flush\","                       \
	"\"opened_by\":[{\"node\":1,\"mode\":\"rw\"},{\"node\":2,\"mode\":\"ro\"}],\"later\":{}}"

/* ---- commands ---- */

static void test_cluster_format_sends_what_was_said(void **state)
{
	SCRIPT({ADMIN_OP_CLUSTER_FORMAT, NULL, 0, INFO("degraded", "[]")});
	EXPECT(0, info_record, "", "cluster", "format");
	SCRIPT({ADMIN_OP_CLUSTER_FORMAT,
		"{\"copies\":2,\"min_insync\":1,\"pgs\":64,\"force\":true}", 0,
		INFO("healthy", "[]")});
	expect_json(RUN("--json", "cluster", "format", "--copies", "2", "--min-insync=1", "--pgs",
			"64", "--force"),
		    INFO("healthy", "[]"));
	SCRIPT({ADMIN_OP_CLUSTER_FORMAT, NULL, -EEXIST,
		"{\"error\":\"the cluster is formatted already\",\"code\":\"exists\"}"});
	EXPECT(COLLIE_EXISTS, "", "collie: cluster format: the cluster is formatted already\n",
	       "cluster", "format");
}

/* A node without a store does not count, and the format comes after the wait. */
static void test_cluster_format_waits_for_nodes(void **state)
{
#define NODE(id, status, stores) \
	"{\"id\":" #id ",\"status\":\"" status "\",\"stores\":[" stores "]}"
	SCRIPT({ADMIN_OP_NODE_LIST, NULL, 0, "[" NODE(1, "up", "\"x\"") "]"},
	       {ADMIN_OP_NODE_LIST, NULL, 0,
		"[" NODE(1, "up", "\"x\"") "," NODE(2, "up", "") "," NODE(3, "down", "\"y\"") "]"},
	       {ADMIN_OP_NODE_LIST, NULL, 0,
		"[" NODE(1, "up", "\"x\"") "," NODE(2, "up", "\"z\"") "]"},
	       {ADMIN_OP_CLUSTER_FORMAT, "{\"copies\":2}", 0, INFO("healthy", "[]")});
	EXPECT(0, NULL, "", "cluster", "format", "--wait-nodes", "2", "--copies", "2");

	SCRIPT({ADMIN_OP_NODE_LIST, NULL, 0, "[" NODE(1, "up", "\"x\"") "]",
		.action = FAKE_REPEAT});
	EXPECT(COLLIE_BUSY, "",
	       "collie: cluster format: timed out after 0.3 s: nodes up with stores: 1 of 4\n",
	       "--timeout", "0.3", "cluster", "format", "--wait-nodes", "4");
}

static void test_cluster_info_shows_the_nodes_too(void **state)
{
	char text[2048], document[2048];

	snprintf(text, sizeof(text), "%s\n%s", info_record, nodes_table);
	snprintf(document, sizeof(document), INFO("degraded", "%s"), nodes);
	SCRIPT({ADMIN_OP_CLUSTER_INFO, NULL, 0, document});
	EXPECT(0, text, "", "cluster", "info");
	SCRIPT({ADMIN_OP_CLUSTER_INFO, NULL, 0, document});
	expect_json(RUN("cluster", "info", "--json"), document);
	/* before the format, and from a sheep that says less than today's */
	SCRIPT({ADMIN_OP_CLUSTER_INFO, NULL, 0, "{\"uuid\":null,\"status\":\"unformatted\"}"});
	EXPECT(0, "cluster  -\nstatus   unformatted\n", "", "cluster", "info");
}

static void test_cluster_wait_asks_until_it_is_so(void **state)
{
	SCRIPT({ADMIN_OP_CLUSTER_INFO, NULL, 0, INFO("degraded", "[]")},
	       {ADMIN_OP_CLUSTER_INFO, NULL, 0, INFO("recovering", "[]")},
	       {ADMIN_OP_CLUSTER_INFO, NULL, 0, INFO("healthy", "[]")});
	EXPECT(0, "the cluster is healthy\n", "", "cluster", "wait");

	/* healthy is not enough when a node is missing */
	SCRIPT({ADMIN_OP_CLUSTER_INFO, NULL, 0, INFO("healthy", "[" NODE(1, "up", "") "]")},
	       {ADMIN_OP_CLUSTER_INFO, NULL, 0,
		INFO("healthy", "[" NODE(1, "up", "") "," NODE(2, "up", "") "]")});
	EXPECT(0, NULL, "", "cluster", "wait", "--nodes", "2", "--status", "healthy");

	/* before the format only nodes can be waited for */
	SCRIPT({ADMIN_OP_CLUSTER_INFO, NULL, 0, INFO("unformatted", "[" NODE(1, "up", "") "]")});
	EXPECT(0, "the cluster is unformatted\n", "", "cluster", "wait", "--nodes", "1");
	SCRIPT({ADMIN_OP_CLUSTER_INFO, NULL, 0, INFO("unformatted", "[" NODE(1, "up", "") "]"),
		.action = FAKE_REPEAT});
	EXPECT(COLLIE_BUSY, "", NULL, "cluster", "wait", "--nodes", "1", "--status", "healthy",
	       "--timeout", "0.2");
	SCRIPT({ADMIN_OP_CLUSTER_INFO, NULL, 0, INFO("degraded", "[" NODE(1, "up", "") "]"),
		.action = FAKE_REPEAT});
	EXPECT(COLLIE_BUSY, "",
	       "collie: cluster wait: timed out after 0.3 s: the cluster is degraded, 12 objects "
	       "(5 MiB) are missing; nodes up: 1\n",
	       "cluster", "wait", "--timeout", "0.3", "--nodes", "1");
}

/* A sheep that restarts meanwhile is asked again; one that never was there is not waited for. */
static void test_cluster_wait_survives_a_lost_connection(void **state)
{
	SCRIPT({ADMIN_OP_CLUSTER_INFO, NULL, 0, INFO("degraded", "[]")},
	       {ADMIN_OP_CLUSTER_INFO, .action = FAKE_HANG_UP},
	       {ADMIN_OP_CLUSTER_INFO, NULL, -E_SHUTDOWN, NULL},
	       {ADMIN_OP_CLUSTER_INFO, NULL, 0, INFO("healthy", "[]")});
	EXPECT(0, "the cluster is healthy\n", "", "cluster", "wait");

	SCRIPT({ADMIN_OP_CLUSTER_INFO, .action = FAKE_HANG_UP});
	EXPECT(COLLIE_UNREACHABLE, "", NULL, "cluster", "wait");
}

static void test_progress_is_for_terminals(void **state)
{
	SCRIPT({ADMIN_OP_CLUSTER_INFO, NULL, 0, INFO("degraded", "[]")},
	       {ADMIN_OP_CLUSTER_INFO, NULL, 0, INFO("healthy", "[]")});
	struct collie_run run = collie_run_argv(address, true, COLLIE_ARGS("cluster", "wait"));

	collie_run_expect(__LINE__, run, 0, "the cluster is healthy\n",
			  "\r\033[Kthe cluster is degraded, 12 objects (5 MiB) are missing; "
			  "nodes up: 0\r\033[K");
	fake_sheep_check(sheep);
}

static void test_cluster_shutdown_names_the_nodes(void **state)
{
	SCRIPT({ADMIN_OP_CLUSTER_SHUTDOWN, NULL, 0, "{\"nodes\":[1,2,3]}"});
	EXPECT(0, "told to stop: nodes 1,2,3\n", "", "cluster", "shutdown");
}

static void test_lists_are_tables(void **state)
{
	SCRIPT({ADMIN_OP_NODE_LIST, NULL, 0, nodes});
	EXPECT(0, nodes_table, "", "node", "list");
	SCRIPT({ADMIN_OP_NODE_LIST, NULL, 0, nodes});
	expect_json(RUN("--json", "node", "list"), nodes);

	SCRIPT({ADMIN_OP_STORE_LIST, NULL, 0,
		"[{\"uuid\":\"" UUID1
		"\",\"node\":1,\"path\":\"/srv/disk1\",\"size\":1099511627776,"
		"\"used\":4096,\"allocated\":67108864,\"weight\":1048576,\"status\":\"up\"},"
		"{\"uuid\":\"" UUID2 "\",\"node\":12,\"path\":null,\"size\":null,\"used\":null,"
		"\"allocated\":null,\"weight\":0,\"status\":\"down\"}]"});
	EXPECT(0,
	       "STORE                                 NODE  STATUS   SIZE   USED  ALLOCATED  FREE"
	       "   WEIGHT  PATH\n" UUID1
	       "     1  up      1 TiB  4 KiB     64 MiB     -  1048576  /srv/disk1\n" UUID2
	       "    12  down        -      -          -     -        0  -\n",
	       "", "store", "list");

	SCRIPT({ADMIN_OP_PG_LIST, "{\"not_clean\":true}", 0,
		"[{\"id\":0,\"epoch\":7,\"primary\":\"" UUID1 "\",\"isr\":[\"" UUID1 "\",\"" UUID2
		"\"],\"joining\":[],\"target\":[\"" UUID1 "\"],\"status\":\"degraded\","
		"\"forced\":1,\"loss_epoch\":5},"
		"{\"id\":255,\"epoch\":1234,\"primary\":null,\"isr\":[],\"joining\":[\"" UUID2
		"\"],\"target\":[],\"status\":\"down\"}]"});
	EXPECT(0,
	       " PG  EPOCH  STATUS    PRIMARY   IN SYNC            JOINING   TARGET    FORCED  LOSS\n"
	       "  0      7  degraded  11111111  11111111,22222222  -         11111111       1     5\n"
	       "255   1234  down      -         -                  22222222  -              -     -\n",
	       "", "pg", "list", "--not-clean");

	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, "[" VOLUME("db") "," VOLUME("wiki pages") "]"});
	EXPECT(0,
	       "NAME        ID     SIZE  USED  SNAPSHOTS  ACCESS  OPENED BY\n"
	       "db           5  100 GiB     -          0  single  1,2\n"
	       "wiki pages   5  100 GiB     -          0  single  1,2\n",
	       "", "vdi", "list");
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, "[]"});
	EXPECT(0, "NAME  ID  SIZE  USED  SNAPSHOTS  ACCESS  OPENED BY\n", "", "vdi", "list");
}

static void test_recovery_info_shows_what_is_left(void **state)
{
	SCRIPT({ADMIN_OP_RECOVERY_INFO, NULL, 0,
		"{\"status\":\"running\",\"objects_missing\":100,\"bytes_missing\":419430400,"
		"\"objects_moved\":5,\"bytes_moved\":20971520,\"bytes_per_second\":104857600,"
		"\"seconds_left\":64,\"throttle\":null,\"pgs\":[{\"id\":9,\"store\":\"" UUID1
		"\",\"objects_missing\":100,\"bytes_missing\":419430400}]}"});
	EXPECT(0,
	       "status     running\n"
	       "missing    100 objects, 400 MiB\n"
	       "moved      5 objects, 20 MiB\n"
	       "speed      100 MiB/s\n"
	       "time left  1 m 4 s\n"
	       "\n"
	       "PG  STORE     OBJECTS  MISSING\n"
	       " 9  11111111      100  400 MiB\n",
	       "", "recovery", "info");
}

static void test_volumes_are_made_shown_and_deleted(void **state)
{
	SCRIPT({ADMIN_OP_VDI_CREATE,
		"{\"name\":\"db\",\"size\":107374182400,\"set\":{\"access\":\"shared\",\"x\":\"a=b\"}}",
		0, VOLUME("db")});
	EXPECT(0,
	       "name        db\nid          5\nsize        100 GiB\nused        -\n"
	       "access      single\ndurability  flush\nopened by   1,2\n",
	       "", "vdi", "create", "--set", "access=shared", "db", "100G", "--set=x=a=b");
	SCRIPT({ADMIN_OP_VDI_CREATE, "{\"name\":\"-odd\",\"size\":512}", 0, VOLUME("-odd")});
	EXPECT(0, NULL, "", "vdi", "create", "--", "-odd", "512");
	SCRIPT({ADMIN_OP_VDI_INFO, "{\"name\":\"db\"}", 0, VOLUME("db")});
	expect_json(RUN("--json", "vdi", "info", "db"), VOLUME("db"));
	SCRIPT({ADMIN_OP_VDI_DELETE, "{\"name\":\"db\"}", 0, "{\"name\":\"db\",\"id\":5}"});
	EXPECT(0, "volume 'db' is deleted\n", "", "vdi", "delete", "db");
}

static void test_cluster_health_tells_stories(void **state)
{
	static const char long_story[] =
		"{\"status\":\"down\",\"problems\":["
		"{\"severity\":\"error\",\"what\":\"2 placement groups are down: they need store "
		"11111111 on node 2 (10.0.0.2:7000, down)\",\"meaning\":\"only it has all "
		"acknowledged writes; reads and writes there wait\",\"action\":\"start it\","
		"\"pgs\":[1,2],\"stores\":[\"" UUID1 "\"],\"nodes\":[]},"
		"{\"severity\":\"note\",\"what\":\"short\",\"meaning\":\"so\",\"action\":\"\"}]}";

	SCRIPT({ADMIN_OP_CLUSTER_HEALTH, NULL, 0, long_story});
	EXPECT(0,
	       "the cluster is down\n"
	       "\n"
	       "error: 2 placement groups are down: they need store 11111111 on node 2\n"
	       "(10.0.0.2:7000, down)\n"
	       "  only it has all acknowledged writes; reads and writes there wait\n"
	       "  > start it\n"
	       "\n"
	       "note: short\n"
	       "  so\n",
	       "", "cluster", "health");
	SCRIPT({ADMIN_OP_CLUSTER_HEALTH, NULL, 0, long_story});
	expect_json(RUN("--json", "cluster", "health"), long_story);
	SCRIPT({ADMIN_OP_CLUSTER_HEALTH, NULL, 0, "{\"status\":\"healthy\",\"problems\":[]}"});
	EXPECT(0, "the cluster is healthy\nnothing to report\n", "", "cluster", "health");
}

static void test_settings_are_shown_and_set(void **state)
{
	SCRIPT({ADMIN_OP_CLUSTER_SETTINGS, NULL, 0,
		"[{\"key\":\"copies\",\"value\":\"2\",\"default\":\"3\",\"meaning\":\"copies of "
		"everything\"},{\"key\":\"lease\",\"value\":\"1500ms\",\"default\":\"1s\","
		"\"meaning\":\"how long\"}]"});
	EXPECT(0,
	       "KEY      VALUE  DEFAULT  MEANING\n"
	       "copies       2        3  copies of everything\n"
	       "lease   1500ms       1s  how long\n",
	       "", "cluster", "settings");
	SCRIPT({ADMIN_OP_CLUSTER_SET, "{\"key\":\"lease\",\"value\":\"2s\"}", 0,
		"{\"key\":\"lease\",\"value\":\"2s\",\"default\":\"1s\"}"});
	EXPECT(0, "lease is 2s (default: 1s)\n", "", "cluster", "set", "lease", "2s");
}

static void test_operators_commands_send_what_was_said(void **state)
{
#define NODE_NOW(status) "{\"id\":2,\"status\":\"" status "\",\"copies\":64}"
	SCRIPT({ADMIN_OP_NODE_DRAIN, "{\"id\":2}", 0, NODE_NOW("draining")});
	EXPECT(0, "node 2 is draining and holds 64 copies\n", "", "node", "drain", "2");
	SCRIPT({ADMIN_OP_NODE_UNDRAIN, "{\"id\":2}", 0, NODE_NOW("up")});
	EXPECT(0, "node 2 is up and holds 64 copies\n", "", "node", "undrain", "2");
	SCRIPT({ADMIN_OP_NODE_REMOVE, "{\"id\":2}", 0, "{\"id\":2}"});
	EXPECT(0, "node 2 is forgotten\n", "", "node", "remove", "2");
	SCRIPT({ADMIN_OP_STORE_SET, "{\"uuid\":\"1111\",\"key\":\"weight\",\"value\":\"0\"}", 0,
		"{\"uuid\":\"" UUID1 "\",\"status\":\"draining\",\"weight\":0}"});
	EXPECT(0, "store " UUID1 " is draining, weight 0\n", "", "store", "set", "1111", "weight",
	       "0");
	EXPECT(COLLIE_USAGE, "", NULL, "store", "set", "1111", "colour", "0");
	SCRIPT({ADMIN_OP_CLUSTER_FORCE, "{\"pg\":7}", -EROFS,
		"{\"error\":\"pg 7: it would lose much\",\"code\":\"read_only\"}"});
	EXPECT(COLLIE_REFUSED, "", "collie: cluster force-recover: pg 7: it would lose much\n",
	       "cluster", "force-recover", "7");
	SCRIPT({ADMIN_OP_CLUSTER_FORCE, "{\"pg\":7,\"store\":\"1111\",\"yes_lose_data\":true}", 0,
		"{\"id\":7,\"primary\":\"" UUID1 "\",\"forced\":1}"});
	EXPECT(0, "pg 7 goes on from store " UUID1 "; loss accepted 1 time(s)\n", "", "cluster",
	       "force-recover", "7", "1111", "--yes-lose-data");
	EXPECT(COLLIE_USAGE, "", NULL, "cluster", "force-recover");
	SCRIPT({ADMIN_OP_RECOVERY_PAUSE, NULL, 0, "{\"status\":\"paused\"}"});
	EXPECT(0, NULL, "", "recovery", "pause");
	SCRIPT({ADMIN_OP_RECOVERY_RESUME, NULL, 0, "{\"status\":\"idle\"}"});
	EXPECT(0, NULL, "", "recovery", "resume");
	SCRIPT({ADMIN_OP_RECOVERY_THROTTLE, "{\"rate\":52428800}", 0,
		"{\"status\":\"idle\",\"throttle\":52428800}"});
	EXPECT(0, NULL, "", "recovery", "throttle", "50M");
	EXPECT(COLLIE_USAGE, "", NULL, "recovery", "throttle", "fast");
}

static void test_volumes_are_renamed_resized_and_set(void **state)
{
	SCRIPT({ADMIN_OP_VDI_RENAME, "{\"name\":\"db\",\"to\":\"wiki\"}", 0, VOLUME("wiki")});
	EXPECT(0, NULL, "", "vdi", "rename", "db", "wiki");
	SCRIPT({ADMIN_OP_VDI_RESIZE, "{\"name\":\"db\",\"size\":1099511627776}", 0, VOLUME("db")});
	EXPECT(0, NULL, "", "vdi", "resize", "db", "1T");
	SCRIPT({ADMIN_OP_VDI_RESIZE, "{\"name\":\"db\",\"size\":1024,\"shrink\":true}", 0,
		VOLUME("db")});
	expect_json(RUN("vdi", "resize", "db", "1K", "--shrink", "--json"), VOLUME("db"));
	SCRIPT({ADMIN_OP_VDI_SET, "{\"name\":\"db\",\"key\":\"access\",\"value\":\"shared\"}", 0,
		VOLUME("db")});
	EXPECT(0, NULL, "", "vdi", "set", "db", "access", "shared");
	SCRIPT({ADMIN_OP_VDI_SET, "{\"name\":\"db\",\"key\":\"team\",\"value\":\"\"}", 0,
		VOLUME("db")});
	EXPECT(0, NULL, "", "vdi", "set", "db", "team", "");
}

/* Whatever the volume's name and size: the sheep judges, its words arrive, and the exit code. */
static void test_refusals_have_their_exit_codes(void **state)
{
	static const struct {
		int status, exit;
		const char *code;
	} rows[] = {
		{-EINVAL, COLLIE_REFUSED, "invalid"},
		{-E_NOT_FORMATTED, COLLIE_REFUSED, "not_formatted"},
		{-EIO, COLLIE_UNREACHABLE, "io"},
		{-EEXIST, COLLIE_EXISTS, "exists"},
		{-ENOSPC, COLLIE_NO_SPACE, "no_space"},
		{-E_NOT_FOUND, COLLIE_NOT_FOUND, "not_found"},
		{-EBUSY, COLLIE_BUSY, "busy"},
		{-ETIMEDOUT, COLLIE_BUSY, "timed_out"},
	};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		char want[256];
		SCRIPT({ADMIN_OP_VDI_DELETE, "{\"name\":\"a/b\"}", rows[i].status,
			"{\"error\":\"volume 'a/b': so it is\",\"code\":\"?\",\"more\":1}"});
		EXPECT(rows[i].exit, "", "collie: vdi delete: volume 'a/b': so it is\n", "vdi",
		       "delete", "a/b");
		SCRIPT({ADMIN_OP_VDI_DELETE, "{\"name\":\"x\"}", rows[i].status, "plain text\x1b"});
		EXPECT(rows[i].exit, "", "collie: vdi delete: plain text?\n", "vdi", "delete", "x");
		SCRIPT({ADMIN_OP_VDI_DELETE, "{\"name\":\"x\"}", rows[i].status, NULL});
		struct collie_run run = RUN("--json", "vdi", "delete", "x");
		snprintf(want, sizeof(want), "\"code\": \"%s\"", rows[i].code);
		if (run.exit != rows[i].exit || !strstr(run.out, want))
			fail_msg("exit %d, %s, not %d, %s", run.exit, run.out, rows[i].exit, want);
		collie_run_done(&run);
	}
}

/* ---- pages ---- */

static void test_pages_become_one_list(void **state)
{
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, "[{\"name\":\"a\"},{\"name\":\"b\"}]",
		.flags = ADMIN_REPLY_MORE},
	       {ADMIN_OP_VDI_LIST, "{\"after\":\"b\"}", 0, "[{\"name\":\"c\"}]",
		.flags = ADMIN_REPLY_MORE},
	       {ADMIN_OP_VDI_LIST, "{\"after\":\"c\"}", 0, "[]"});
	expect_json(RUN("--json", "vdi", "list"),
		    "[{\"name\":\"a\"},{\"name\":\"b\"},{\"name\":\"c\"}]");
	SCRIPT({ADMIN_OP_PG_LIST, "{\"not_clean\":true}", 0, "[{\"id\":9},{\"id\":10}]",
		.flags = ADMIN_REPLY_MORE},
	       {ADMIN_OP_PG_LIST, "{\"not_clean\":true,\"after\":10}", 0, "[{\"id\":1048576}]"});
	expect_json(RUN("--json", "pg", "list", "--not-clean"),
		    "[{\"id\":9},{\"id\":10},{\"id\":1048576}]");
}

static void test_a_large_list_arrives_whole(void **state)
{
	/* 20,000 rows, in one page as large as a page may be */
	char *page = malloc(ADMIN_REPLY_MAX);
	size_t used = 0;

	for (unsigned i = 0; i < 20000; i++)
		used += (size_t)snprintf(page + used, ADMIN_REPLY_MAX - used,
					 "%c{\"name\":\"volume-%08u\",\"size\":%u}", i ? ',' : '[',
					 i, i);
	page[used++] = ']';
	page[used] = '\0';
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, page});
	expect_json(RUN("--json", "vdi", "list"), page);
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, page});
	EXPECT(0, NULL, "", "vdi", "list");
	free(page);
}

/* ---- a sheep that is broken, hostile or slow ---- */

static void expect_senseless(int line, const char *argument, const char *why)
{
	struct collie_run run =
		collie_run_argv(address, false, COLLIE_ARGS(argument, "list", "--json"));
	char want[64];

	snprintf(want, sizeof(want), "collie: %s list: the sheep's answer ", argument);
	if (run.exit != COLLIE_UNREACHABLE || strncmp(run.err, want, strlen(want)) != 0 ||
	    !strstr(run.err, why) || !strstr(run.out, "\"code\": \"protocol\""))
		fail_msg("line %d: exit %d: %s%s", line, run.exit, run.err, run.out);
	collie_run_done(&run);
	fake_sheep_check(sheep);
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
		expect_senseless(__LINE__, "vdi", "");
	}
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, NULL}); /* nothing at all */
	expect_senseless(__LINE__, "vdi", "is not JSON (0 bytes)");
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, "[]\0[]", .reply_size = 5});
	expect_senseless(__LINE__, "vdi", "is not JSON");
}

static void test_answers_of_the_wrong_kind_are_2(void **state)
{
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, "{}"});
	expect_senseless(__LINE__, "vdi", "a list was asked for");
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, "[1]"});
	expect_senseless(__LINE__, "vdi", "no key");
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, "[{\"size\":1}]"});
	expect_senseless(__LINE__, "vdi", "no key");
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, "[{\"name\":\"b\"},{\"name\":\"a\"}]"});
	expect_senseless(__LINE__, "vdi", "not in order");
	SCRIPT({ADMIN_OP_NODE_LIST, NULL, 0, "[{\"id\":1},{\"id\":1}]"});
	expect_senseless(__LINE__, "node", "not in order");
	SCRIPT({ADMIN_OP_NODE_LIST, NULL, 0, "[{\"id\":1},{\"id\":\"2\"}]"});
	expect_senseless(__LINE__, "node", "not in order");
	/* pages without an end */
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, "[]", .flags = ADMIN_REPLY_MORE});
	expect_senseless(__LINE__, "vdi", "empty page");
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, "[{\"name\":\"a\"}]", .flags = ADMIN_REPLY_MORE},
	       {ADMIN_OP_VDI_LIST, "{\"after\":\"a\"}", 0, "[{\"name\":\"a\"}]",
		.flags = ADMIN_REPLY_MORE});
	expect_senseless(__LINE__, "vdi", "not in order");

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
	assert_in_range(fake_sheep_deadline_ms(sheep), 150, 190);
}

static void test_a_lost_connection_leaves_the_outcome_open(void **state)
{
	SCRIPT({ADMIN_OP_VDI_CREATE, "{\"name\":\"a\",\"size\":512}", .action = FAKE_HANG_UP});
	struct collie_run run = RUN("--json", "vdi", "create", "a", "512");

	assert_int_equal(run.exit, COLLIE_UNREACHABLE);
	assert_non_null(strstr(run.err, "whether it was done is not known"));
	assert_non_null(strstr(run.out, "\"code\": \"connection_lost\""));
	collie_run_done(&run);
	fake_sheep_check(sheep); /* it was not sent a second time */
}

static void test_tcp_and_host_names_work_too(void **state)
{
	struct fake_sheep *tcp = fake_sheep_start("127.0.0.1:0", ADMIN_VERSION_MAX);
	const char *port = strrchr(fake_sheep_address(tcp), ':');
	char name[64];

	/* localhost may be ::1 first, where nobody listens */
	snprintf(name, sizeof(name), "localhost%s", port);
	fake_sheep_script(tcp, (const struct fake_step[]){
				       {ADMIN_OP_VDI_LIST, NULL, 0, "[]", .action = FAKE_REPEAT}});
	collie_run_expect(__LINE__, RUN("-s", name, "vdi", "list"), 0, NULL, "");
	collie_run_expect(__LINE__, RUN("-s", fake_sheep_address(tcp), "vdi", "list"), 0, NULL, "");
	fake_sheep_check(tcp);
	fake_sheep_stop(tcp);
}

static void test_names_of_volumes_are_completed(void **state)
{
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0,
		"[{\"name\":\"data\"},{\"name\":\"db\"},{\"name\":\"wiki\"}]"});
	EXPECT(0, "data\ndb\n", "", "complete", "vdi", "delete", "d");
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, "[{\"name\":\"a b\"},{\"name\":\"c\"}]"});
	EXPECT(0, "c\n", "", "complete", "-s", address, "vdi", "info", "");
}

static void test_other_things_are_completed_too(void **state)
{
	SCRIPT({ADMIN_OP_CLUSTER_SETTINGS, NULL, 0,
		"[{\"key\":\"copies\"},{\"key\":\"grace\"},{\"key\":\"lease\"}]"});
	EXPECT(0, "lease\n", "", "complete", "cluster", "set", "l");
	EXPECT(0, "", "", "complete", "cluster", "set", "lease", "");
	SCRIPT({ADMIN_OP_NODE_LIST, NULL, 0, "[{\"id\":1},{\"id\":12},{\"id\":20}]"});
	EXPECT(0, "1\n12\n", "", "complete", "node", "drain", "1");
	SCRIPT({ADMIN_OP_STORE_LIST, NULL, 0,
		"[{\"uuid\":\"" UUID1 "\"},{\"uuid\":\"" UUID2 "\"}]"});
	EXPECT(0, UUID2 "\n", "", "complete", "store", "set", "2");
	EXPECT(0, "weight\n", "", "complete", "store", "set", UUID1, "");
	EXPECT(0, "access\ndurability\n", "", "complete", "vdi", "set", "db", "");
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

	snprintf(other, sizeof(other), "unix:%s.raw", path);
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

	snprintf(other, sizeof(other), "unix:%s.raw", path);
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

static int start(void **state)
{
	snprintf(path, sizeof(path), "/tmp/test_collie.%d", (int)getpid());
	snprintf(address, sizeof(address), "unix:%s", path);
	sheep = fake_sheep_start(address, ADMIN_VERSION_MAX);
	return 0;
}

static int stop(void **state)
{
	fake_sheep_stop(sheep);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cluster_format_sends_what_was_said),
		cmocka_unit_test(test_cluster_format_waits_for_nodes),
		cmocka_unit_test(test_cluster_info_shows_the_nodes_too),
		cmocka_unit_test(test_cluster_wait_asks_until_it_is_so),
		cmocka_unit_test(test_cluster_wait_survives_a_lost_connection),
		cmocka_unit_test(test_progress_is_for_terminals),
		cmocka_unit_test(test_cluster_shutdown_names_the_nodes),
		cmocka_unit_test(test_lists_are_tables),
		cmocka_unit_test(test_recovery_info_shows_what_is_left),
		cmocka_unit_test(test_volumes_are_made_shown_and_deleted),
		cmocka_unit_test(test_cluster_health_tells_stories),
		cmocka_unit_test(test_settings_are_shown_and_set),
		cmocka_unit_test(test_operators_commands_send_what_was_said),
		cmocka_unit_test(test_volumes_are_renamed_resized_and_set),
		cmocka_unit_test(test_refusals_have_their_exit_codes),
		cmocka_unit_test(test_pages_become_one_list),
		cmocka_unit_test(test_a_large_list_arrives_whole),
		cmocka_unit_test(test_answers_that_are_not_json_are_2),
		cmocka_unit_test(test_answers_of_the_wrong_kind_are_2),
		cmocka_unit_test(test_a_silent_sheep_times_out_with_6),
		cmocka_unit_test(test_a_lost_connection_leaves_the_outcome_open),
		cmocka_unit_test(test_tcp_and_host_names_work_too),
		cmocka_unit_test(test_names_of_volumes_are_completed),
		cmocka_unit_test(test_other_things_are_completed_too),
		cmocka_unit_test(test_no_common_version_is_2),
		cmocka_unit_test(test_a_stopped_sheep_is_2_when_the_time_is_over),
		cmocka_unit_test(test_garbage_on_the_socket_is_2),
	};
	return cmocka_run_group_tests(tests, start, stop);
}
