/* zookeeper:... against the conformance suite, on a real server, and what only it shows. */
#define THREADED /* the library's blocking calls */
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "sheep/engine/zk_priv.h"
#include "tests/engine/real_bed.h"
#include "tests/engine/zk_server.h"

#define HUNG_NS (900 * NS_PER_MS) /* less than the library stays with a server that says nothing */
#define SLOTS	(4 * ZK_SEGMENT_ENTRIES) /* of a segment: it is sealed soon after the last */

static struct zk_server server; /* of all tests; each has a root of its own */
static unsigned roots;

struct world {
	char root[32];
	char before[96]; /* servers that are named before the real one: "HOST:PORT,"... */
};

static uint64_t slot(uint64_t index)
{
	assert_true((index & UINT32_MAX) < SLOTS);
	return (index >> 32) * SLOTS + (index & UINT32_MAX);
}

static int open_member(struct bed *bed, struct member *member, const struct engine_options *options,
		       const struct engine_callbacks *callbacks, struct error *err)
{
	struct world *world = bed->world;
	char spec[192];

	real_bed_loop(member);
	(void)snprintf(spec, sizeof(spec), "zookeeper:%s127.0.0.1:%u%s", world->before, server.port,
		       world->root);
	return engine_open(spec, member->loop, options, callbacks, member, &member->engine, err);
}

static struct zk *zk_of(struct member *member)
{
	return container_of_type(member->engine, struct zk, engine);
}

/* As near to a crash as a member in our own process can come: it does not write down that it left. */
static void crash(struct bed *bed, struct member *member)
{
	zk_of(member)->members.is_there = false;
	real_bed_drop(bed, member);
}

/* A server that does not answer: as if it had lost its quorum. */
static void set_quorum(struct bed *bed, bool has_quorum)
{
	zk_server_signal(&server, has_quorum ? SIGCONT : SIGSTOP);
}

int bed_setup(void **state)
{
	struct bed *bed = bed_new();
	struct world *world = calloc(1, sizeof(*world));

	(void)snprintf(world->root, sizeof(world->root), "/tests/%u", ++roots);
	bed->world = world;
	bed->knows_no_deaths = true;
	bed->is_late = true;
	bed->later_start_wins = true;
	bed->slot = slot;
	bed->turn = real_bed_turn;
	bed->now = real_bed_now;
	bed->open = open_member;
	bed->crash = crash;
	bed->set_quorum = set_quorum;
	*state = bed;
	return 0;
}

int bed_teardown(void **state)
{
	real_bed_end(*state);
	return 0;
}

/* ---- the server goes and comes ---- */

static void test_log_survives_the_server(void **state)
{
	struct bed *bed = *state;

	bed->compact_bytes = 8192;
	bed_start_all(bed, 3);
	for (int round = 0; round < 3; round++) {
		for (unsigned n = 0; n < 3; n++)
			bed_propose(bed, n, 40);
		if (round == 1)
			BED_UNTIL(bed, bed_is_settled(bed));
		zk_server_signal(&server, SIGKILL);
		BED_UNTIL(bed, !bed->members[0].has_quorum && !bed->members[1].has_quorum &&
				       !bed->members[2].has_quorum);
		assert_true(zk_server_start(&server));
		BED_UNTIL(bed, bed->members[0].has_quorum && bed_is_settled(bed));
	}
}

/*
 * Servers that hang: connections are made to them, and nothing is ever answered. The library alone would stay with
 * each for a second, whenever its turn comes, and its order is random: so four starts, and four losses.
 */
static void test_servers_that_hang_hold_up_nobody(void **state)
{
	struct bed *bed = *state;
	struct world *world = bed->world;
	int hung[3];

	for (unsigned i = 0; i < ARRAY_COUNT(hung); i++) {
		struct sockaddr_in address = {.sin_family = AF_INET,
					      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		socklen_t length = sizeof(address);
		size_t used = strlen(world->before);
		hung[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(bind(hung[i], (void *)&address, sizeof(address)), 0);
		assert_int_equal(listen(hung[i], 100), 0);
		assert_int_equal(getsockname(hung[i], (void *)&address, &length), 0);
		(void)snprintf(world->before + used, sizeof(world->before) - used, "127.0.0.1:%u,",
			       ntohs(address.sin_port));
	}
	for (unsigned n = 0; n < 4; n++) {
		uint64_t begun_ns = real_bed_now(bed);
		bed_start(bed, n);
		BED_UNTIL(bed, bed->members[n].is_ready);
		assert_true(real_bed_now(bed) < begun_ns + HUNG_NS);
	}
	for (unsigned n = 0; n < 4; n++)
		bed_propose(bed, n, 10);
	zk_server_signal(&server, SIGKILL);
	BED_UNTIL(bed, !bed->members[0].has_quorum && !bed->members[1].has_quorum &&
			       !bed->members[2].has_quorum && !bed->members[3].has_quorum);
	/* They hang with one of the others by now, for a second each time. */
	BED_NEVER(bed, NS_PER_S / 2, bed->members[0].has_quorum);
	assert_true(zk_server_start(&server));
	uint64_t served_ns = real_bed_now(bed);
	BED_UNTIL(bed, bed->members[0].has_quorum && bed->members[1].has_quorum &&
			       bed->members[2].has_quorum && bed->members[3].has_quorum);
	assert_true(real_bed_now(bed) < served_ns + HUNG_NS);
	BED_UNTIL(bed, bed_is_settled(bed));
	for (unsigned i = 0; i < ARRAY_COUNT(hung); i++)
		(void)close(hung[i]);
}

static void test_names_become_addresses(void **state)
{
	struct zk_addresses addresses;

	assert_true(zk_names_are_numeric("10.0.0.1:2181,[::1]:7,::1:8"));
	assert_false(zk_names_are_numeric("10.0.0.1:2181,localhost:2181"));
	zk_names_resolve("127.0.0.1:2181,[::1]:7,::1:8,127.0.0.1:2181,no.such.invalid:1",
			 &addresses);
	assert_int_equal(addresses.count, 3);
	assert_string_equal(addresses.text[0], "127.0.0.1:2181");
	assert_string_equal(addresses.text[1], "[::1]:7");
	assert_string_equal(addresses.text[2], "[::1]:8");
	zk_names_resolve("no.such.invalid:1", &addresses);
	assert_int_equal(addresses.count, 0);
}

/* A name that nobody knows yet is waited for, and the loop does not wait with it. */
static void test_unknown_names_are_waited_for(void **state)
{
	struct bed *bed = *state;
	struct world *world = bed->world;
	struct zk *zk;

	(void)snprintf(world->before, sizeof(world->before), "no.such.invalid:1/x,");
	bed_start(bed, 0);
	zk = zk_of(&bed->members[0]);
	BED_NEVER(bed, NS_PER_S, bed->members[0].is_ready || bed->members[0].has_failed);
	assert_string_equal(zk->hosts, "no.such.invalid:1");
	/* Now somebody does. */
	(void)snprintf(zk->hosts, sizeof(zk->hosts), "localhost:%u", server.port);
	(void)snprintf(zk->root, sizeof(zk->root), "%s", world->root);
	BED_UNTIL(bed, bed->members[0].is_ready);
}

/* Expiry is a leave and a return: nobody stops, and nobody is said to have died. */
static void test_session_that_expires_is_begun_anew(void **state)
{
	struct bed *bed = *state;
	struct member *member = &bed->members[1];
	uint32_t life;

	bed_start_all(bed, 3);
	life = zk_of(member)->life;
	/* The server forgets the session, as if it had been silent for too long. */
	zk_session_changed(zk_of(member), life, ZOO_EXPIRED_SESSION_STATE);
	bed_propose(bed, 0, 10);
	bed_propose(bed, 1, 10);
	BED_UNTIL(bed, zk_of(member)->life > life && bed->members[1].has_quorum);
	BED_UNTIL(bed, bed_is_settled(bed) && (bed->members[0].live & BIT(1)) &&
			       (bed->members[1].live & BIT(0)));
	assert_int_equal(bed->members[0].end_count, 0);
	assert_false(member->has_failed);
}

/* What was told of starts long gone is forgotten: a sheep that runs for years does not grow by it. */
static void test_ends_of_starts_long_gone_are_forgotten(void **state)
{
	struct bed *bed = *state;

	bed_start_all(bed, 2);
	for (unsigned round = 0; round < 5; round++) {
		uint64_t start = bed->members[1].start;
		bed_leave(bed, 1);
		BED_UNTIL(bed, member_knows_end(&bed->members[0], &bed->members[1], start,
						ENGINE_END_LEFT));
		bed_start_all(bed, 2);
	}
	bed_leave(bed, 1);
	BED_UNTIL(bed, !(bed->members[0].live & BIT(1)));
	assert_int_equal(zk_of(&bed->members[0])->members.ended_count, 1);
}

/* Without memory for an event everything is looked at, so that nothing is missed for good. */
static void test_event_that_was_lost_is_made_up_for(void **state)
{
	struct bed *bed = *state;
	struct zk *zk;

	bed_start_all(bed, 2);
	zk = zk_of(&bed->members[1]);
	zk->is_connected = false; /* as if nobody had told that it is */
	bed_propose(bed, 0, 5);
	BED_NEVER(bed, 300 * NS_PER_MS, zk->is_connected);
	zk_look_again(zk);
	assert_true(zk->is_connected);
	BED_UNTIL(bed, bed_is_settled(bed));
}

static void test_waits_for_a_server_that_is_not_there_yet(void **state)
{
	struct bed *bed = *state;

	zk_server_signal(&server, SIGKILL);
	bed_start(bed, 0);
	bed_propose(bed, 0, 3);
	BED_NEVER(bed, NS_PER_S, bed->members[0].is_ready || bed->members[0].has_failed);
	assert_true(zk_server_start(&server));
	BED_UNTIL(bed, bed->members[0].is_ready && bed_is_settled(bed));
}

static void test_leaves_though_no_server_answers(void **state)
{
	struct bed *bed = *state;

	bed_start_all(bed, 2);
	zk_server_signal(&server, SIGSTOP);
	bed_leave(bed, 0);
	zk_server_signal(&server, SIGCONT);
	BED_UNTIL(bed, !(bed->members[1].live & BIT(0)));
}

/* Of two starts of one node (a copied directory) the later goes on, and the earlier one stops. */
static void test_later_start_of_a_node_replaces_the_earlier(void **state)
{
	struct bed *bed = *state;
	struct world *world = bed->world;
	struct member *first = &bed->members[0];
	char name[ZK_NAME_MAX], path[ZK_PATH_MAX];

	bed_start_all(bed, 2);
	zhandle_t *handle = zk_of(&bed->members[1])->handle;
	zk_member_name(&first->node, first->start + 7, name);
	(void)snprintf(path, sizeof(path), "%s/members/%s", world->root, name);
	assert_int_equal(
		zoo_create(handle, path, "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT, NULL, 0),
		ZOK);
	zk_member_name(&first->node, first->start, name);
	(void)snprintf(path, sizeof(path), "%s/members/%s", world->root, name);
	assert_int_equal(zoo_delete(handle, path, -1), ZOK);
	BED_UNTIL(bed, first->has_failed);
	assert_non_null(strstr(first->failure.text, "running already"));
	assert_int_equal(first->failure.code, -EBUSY);
	assert_false(bed->members[1].has_failed);
}

/* ---- what else may be in ZooKeeper ---- */

/* Data that was lost, or a wrong root: who belongs to a log founds no other one, and goes on when its log is back. */
static void test_log_that_is_gone_is_waited_for_and_not_made(void **state)
{
	struct bed *bed = *state;
	struct world *world = bed->world;
	char path[ZK_PATH_MAX];
	struct zk_format format = {.magic = to_le64(ZK_FORMAT_MAGIC),
				   .version = to_le32(ZK_VERSION)};
	static const char *const parts[] = {"",	      "/log",	  "/log/0000000001",
					    "/image", "/members", "/ended"};

	bed_start_all(bed, 1);
	zhandle_t *handle = zk_of(&bed->members[0])->handle;
	(void)snprintf(world->root, sizeof(world->root), "/tests/%u", ++roots);
	memset(bed->log.bytes, 7, sizeof(bed->log.bytes));
	bed_start(bed, 1);
	BED_NEVER(bed, 3 * NS_PER_S, bed->members[1].is_ready || bed->members[1].has_failed);
	assert_int_equal(zoo_exists(handle, world->root, 0, NULL), ZNONODE);
	for (unsigned i = 0; i < ARRAY_COUNT(parts); i++) {
		(void)snprintf(path, sizeof(path), "%s%s", world->root, parts[i]);
		assert_int_equal(zoo_create(handle, path, NULL, -1, &ZOO_OPEN_ACL_UNSAFE,
					    ZOO_PERSISTENT, NULL, 0),
				 ZOK);
	}
	BED_NEVER(bed, NS_PER_S, bed->members[1].is_ready || bed->members[1].has_failed);
	memcpy(format.log, bed->log.bytes, sizeof(format.log));
	(void)snprintf(path, sizeof(path), "%s/format", world->root);
	assert_int_equal(zoo_create(handle, path, (const char *)&format, sizeof(format),
				    &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT, NULL, 0),
			 ZOK);
	BED_UNTIL(bed, bed->members[1].is_ready);
}

static void test_foreign_data_under_the_root_is_refused(void **state)
{
	struct bed *bed = *state;
	struct world *world = bed->world;
	struct error err = {0};

	bed_start_all(bed, 1);
	(void)snprintf(world->root, sizeof(world->root),
		       "/tests"); /* other logs' roots are in it */
	bed_start_fails(bed, 1, -E_CORRUPT, &err);
	assert_non_null(strstr(err.text, "other data"));
	(void)snprintf(world->root, sizeof(world->root), "/zookeeper");
	assert_int_equal(bed_try_start(bed, 1, &err), -EINVAL);
}

static void test_specs(void **state)
{
	struct error err = {0};

	assert_int_equal(engine_check_spec("zookeeper:a:2181", &err), 0);
	assert_int_equal(engine_check_spec("zookeeper:a:2181,b:2181,[::1]:2181/x/y", &err), 0);
	assert_int_equal(engine_check_spec("zookeeper:", &err), -EINVAL);
	assert_int_equal(engine_check_spec("zookeeper", &err), -EINVAL);
	assert_int_equal(engine_check_spec("zookeeper:a", &err), -EINVAL);
	assert_int_equal(engine_check_spec("zookeeper:a:0", &err), -EINVAL);
	assert_int_equal(engine_check_spec("zookeeper:a:99999", &err), -EINVAL);
	assert_int_equal(engine_check_spec("zookeeper:a:1,", &err), -EINVAL);
	assert_int_equal(engine_check_spec("zookeeper:a:1/", &err), -EINVAL);
	assert_int_equal(engine_check_spec("zookeeper:a:1/x/", &err), -EINVAL);
	assert_int_equal(engine_check_spec("zookeeper:a:1/x//y", &err), -EINVAL);
	assert_int_equal(engine_check_spec("zookeeper:a:1/zookeeper", &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_specs),
		cmocka_unit_test(test_names_become_addresses),
		BED_TEST(test_servers_that_hang_hold_up_nobody),
		BED_TEST(test_unknown_names_are_waited_for),
		BED_TEST(test_log_survives_the_server),
		BED_TEST(test_session_that_expires_is_begun_anew),
		BED_TEST(test_ends_of_starts_long_gone_are_forgotten),
		BED_TEST(test_event_that_was_lost_is_made_up_for),
		BED_TEST(test_waits_for_a_server_that_is_not_there_yet),
		BED_TEST(test_leaves_though_no_server_answers),
		BED_TEST(test_later_start_of_a_node_replaces_the_earlier),
		BED_TEST(test_log_that_is_gone_is_waited_for_and_not_made),
		BED_TEST(test_foreign_data_under_the_root_is_refused),
	};
	int failed;

	if (!zk_server_is_installed()) {
		(void)fprintf(stderr, "skipped: no ZooKeeper server is installed\n");
		return 77;
	}
	if (!zk_server_init(&server)) {
		zk_server_done(&server);
		(void)fprintf(stderr, "the ZooKeeper server does not start\n");
		return 1;
	}
	failed = run_conformance("zookeeper");
	failed += cmocka_run_group_tests_name("only zookeeper", tests, NULL, NULL);
	zk_server_done(&server);
	return failed != 0;
}
