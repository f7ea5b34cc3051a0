/* collie against a scripted sheep: every command, its answer in both forms, and every refusal. */
#include <json-c/json.h>
#include <stdio.h>
#include <unistd.h>

#include "lib/base/err.h"
#include "lib/base/size.h"
#include "tests/unit/collie_bed.h"

/* ---- answers ---- */

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
	collie_bed_expect_json(*state,
			       RUN("--json", "cluster", "format", "--copies", "2", "--min-insync=1",
				   "--pgs", "64", "--force"),
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
	collie_bed_expect_json(*state, RUN("cluster", "info", "--json"), document);
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
	struct collie_run run = collie_run_argv(BED->address, true, COLLIE_ARGS("cluster", "wait"));

	collie_run_expect(__LINE__, run, 0, "the cluster is healthy\n",
			  "\r\033[Kthe cluster is degraded, 12 objects (5 MiB) are missing; "
			  "nodes up: 0\r\033[K");
	fake_sheep_check(BED->sheep);
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
	collie_bed_expect_json(*state, RUN("--json", "node", "list"), nodes);

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
	collie_bed_expect_json(*state, RUN("--json", "vdi", "info", "db"), VOLUME("db"));
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
	collie_bed_expect_json(*state, RUN("--json", "cluster", "health"), long_story);
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
	collie_bed_expect_json(*state, RUN("vdi", "resize", "db", "1K", "--shrink", "--json"),
			       VOLUME("db"));
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
	collie_bed_expect_json(*state, RUN("--json", "vdi", "list"),
			       "[{\"name\":\"a\"},{\"name\":\"b\"},{\"name\":\"c\"}]");
	SCRIPT({ADMIN_OP_PG_LIST, "{\"not_clean\":true}", 0, "[{\"id\":9},{\"id\":10}]",
		.flags = ADMIN_REPLY_MORE},
	       {ADMIN_OP_PG_LIST, "{\"not_clean\":true,\"after\":10}", 0, "[{\"id\":1048576}]"});
	collie_bed_expect_json(*state, RUN("--json", "pg", "list", "--not-clean"),
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
	collie_bed_expect_json(*state, RUN("--json", "vdi", "list"), page);
	SCRIPT({ADMIN_OP_VDI_LIST, NULL, 0, page});
	EXPECT(0, NULL, "", "vdi", "list");
	free(page);
}

/* ---- other addresses, and completion ---- */

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

/* Without what volumes use: names are wanted, and now. */
static void test_names_of_volumes_are_completed(void **state)
{
	SCRIPT({ADMIN_OP_VDI_LIST, "{\"used\":false}", 0,
		"[{\"name\":\"data\"},{\"name\":\"db\"},{\"name\":\"wiki\"}]"});
	EXPECT(0, "data\ndb\n", "", "complete", "vdi", "delete", "d");
	SCRIPT({ADMIN_OP_VDI_LIST, "{\"used\":false}", 0, "[{\"name\":\"a b\"},{\"name\":\"c\"}]"});
	EXPECT(0, "c\n", "", "complete", "-s", BED->address, "vdi", "info", "");
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
		cmocka_unit_test(test_tcp_and_host_names_work_too),
		cmocka_unit_test(test_names_of_volumes_are_completed),
		cmocka_unit_test(test_other_things_are_completed_too),
	};
	return cmocka_run_group_tests(tests, collie_bed_setup, collie_bed_teardown);
}
