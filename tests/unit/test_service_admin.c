/* The admin ops of a sheep: every one must be answered exactly once, whatever is in it. */
#include "tests/unit/admin_bench.h"

#include <stdio.h>

#include "lib/base/random.h"
#include "sheep/service/admin.h"

/* ---- hostile arguments ---- */

static void test_what_is_no_object_of_json_is_invalid(void **state)
{
	static const char *const garbage[] = {
		"x",
		"[]",
		"1",
		"null",
		"\"text\"",
		"{",
		"{}}",
		"{} {}",
		"{\"a\"",
		"{\"a\":}",
		"{'a': 1}",
		"{\"name\": \"\xff\xfe\"}",
		"{\"name\": \"a",
		"{\"size\": 1e999}x",
		"\xef\xbb\xbf{}",
	};
	struct admin_bench *bench = *state;

	admin_bench_format(bench);
	for (unsigned i = 0; i < ARRAY_COUNT(garbage); i++)
		admin_bench_expect(bench, ADMIN_OP_VDI_CREATE, garbage[i], -EINVAL);
}

static void test_deep_nesting_is_invalid(void **state)
{
	struct admin_bench *bench = *state;
	char deep[60000];
	size_t n = 0;

	n += (size_t)sprintf(deep, "{\"set\": ");
	memset(deep + n, '[', 50000);
	deep[n + 50000] = '\0';
	admin_bench_expect(bench, ADMIN_OP_VDI_CREATE, deep, -EINVAL);
}

static void test_wrong_values_are_named(void **state)
{
	static const struct {
		uint16_t op;
		const char *arguments, *word;
	} cases[] = {
		{ADMIN_OP_VDI_CREATE, "{}", "name"},
		{ADMIN_OP_VDI_CREATE, "{\"name\": 5, \"size\": 4096}", "name"},
		{ADMIN_OP_VDI_CREATE, "{\"name\": null, \"size\": 4096}", "name"},
		{ADMIN_OP_VDI_CREATE, "{\"name\": \"a\"}", "size"},
		{ADMIN_OP_VDI_CREATE, "{\"name\": \"a\", \"size\": \"4096\"}", "size"},
		{ADMIN_OP_VDI_CREATE, "{\"name\": \"a\", \"size\": -4096}", "size"},
		{ADMIN_OP_VDI_CREATE, "{\"name\": \"a\", \"size\": 4096.5}", "size"},
		{ADMIN_OP_VDI_CREATE, "{\"name\": \"a\", \"size\": 0}", "size"},
		{ADMIN_OP_VDI_CREATE, "{\"name\": \"a\", \"size\": 1000}", "1000"},
		{ADMIN_OP_VDI_CREATE, "{\"name\": \"a\", \"size\": 18446744073709551104}", "size"},
		{ADMIN_OP_VDI_CREATE, "{\"name\": \"a\", \"size\": 99999999999999999999999}",
		 "size"},
		{ADMIN_OP_VDI_CREATE, "{\"name\": \"\", \"size\": 4096}", "name"},
		{ADMIN_OP_VDI_CREATE, "{\"name\": \"a/b\", \"size\": 4096}", "name"},
		{ADMIN_OP_VDI_CREATE, "{\"name\": \"a\\u0000b\", \"size\": 4096}", "name"},
		{ADMIN_OP_VDI_CREATE, "{\"name\": \"a\", \"size\": 4096, \"set\": []}", "set"},
		{ADMIN_OP_VDI_CREATE, "{\"name\": \"a\", \"size\": 4096, \"set\": {\"access\": 1}}",
		 "access"},
		{ADMIN_OP_VDI_CREATE,
		 "{\"name\": \"a\", \"size\": 4096, \"set\": {\"access\": \"maybe\"}}", "access"},
		{ADMIN_OP_VDI_CREATE,
		 "{\"name\": \"a\", \"size\": 4096, \"set\": {\"note\": \"x\\u0000y\"}}", "note"},
		{ADMIN_OP_NODE_LIST, "{\"after\": \"1\"}", "after"},
		{ADMIN_OP_NODE_LIST, "{\"after\": -1}", "after"},
		{ADMIN_OP_PG_LIST, "{\"after\": 4294967295}", "after"},
		{ADMIN_OP_PG_LIST, "{\"not_clean\": 1}", "not_clean"},
		{ADMIN_OP_STORE_LIST, "{\"after\": \"no uuid\"}", "after"},
		{ADMIN_OP_VDI_LIST, "{\"after\": {}}", "after"},
		{ADMIN_OP_CLUSTER_FORMAT, "{\"copies\": 1000}", "copies"},
		{ADMIN_OP_CLUSTER_FORMAT, "{\"force\": \"yes\"}", "force"},
	};
	struct admin_bench *bench = *state;

	admin_bench_format(bench);
	for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
		struct json_object *document =
			admin_bench_ask(bench, cases[i].op, cases[i].arguments);
		if (bench->question.status != -EINVAL)
			fail_msg("%s: %s", cases[i].arguments, bench->question.text);
		if (!strstr(admin_bench_text(document, "error"), cases[i].word))
			fail_msg("%s: %s", cases[i].arguments, bench->question.text);
		assert_string_equal(admin_bench_text(document, "code"), "invalid");
		json_object_put(document);
	}
	assert_int_equal(cluster_volume_count(state_map(bench->node.state)), 0);
}

/* Bytes by chance, and a good request with bytes changed by chance. */
static void test_any_bytes_get_one_answer(void **state)
{
	static const char good[] =
		"{\"name\": \"a\", \"size\": 4096, \"after\": 1, \"set\": {\"access\": \"shared\"}}";
	struct admin_bench *bench = *state;
	struct random *random = sim_random(bench->rig->world);
	char bytes[sizeof(good)];

	admin_bench_format(bench);
	for (unsigned i = 0; i < 3000; i++) {
		uint16_t op = (uint16_t)random_below(random, ADMIN_OP_END);
		if (!admin_bench_is_served(op) || op == ADMIN_OP_CLUSTER_SHUTDOWN)
			continue;
		memcpy(bytes, good, sizeof(bytes));
		for (uint64_t n = random_below(random, 6); n > 0; n--)
			bytes[random_below(random, sizeof(bytes))] = (char)random_u64(random);
		admin_bench_send(bench, &bench->question, op, bytes,
				 random_below(random, sizeof(bytes)), 0);
		assert_int_equal(bench->question.replies, 1);
	}
}

/* ---- documents ---- */

static void test_volume_lives_and_dies(void **state)
{
	struct admin_bench *bench = *state;
	struct json_object *document;

	admin_bench_expect(bench, ADMIN_OP_VDI_CREATE, "{\"name\": \"a\", \"size\": 4096}",
			   -E_NOT_FORMATTED);
	admin_bench_format(bench);
	admin_bench_expect(bench, ADMIN_OP_CLUSTER_FORMAT, "", -EEXIST);
	document = admin_bench_ask(
		bench, ADMIN_OP_VDI_CREATE,
		"{\"name\": \"a\", \"size\": 4096, \"set\": {\"owner.team\": \"x\"}, "
		"\"unknown\": [1]}");
	assert_int_equal(bench->question.status, 0);
	assert_string_equal(admin_bench_text(document, "name"), "a");
	assert_non_null(strstr(bench->question.text, "\"owner.team\":\"x\""));
	json_object_put(document);
	admin_bench_expect(bench, ADMIN_OP_VDI_CREATE, "{\"name\": \"a\", \"size\": 4096}",
			   -EEXIST);
	admin_bench_expect(bench, ADMIN_OP_VDI_INFO, "{\"name\": \"a\"}", 0);
	admin_bench_expect(bench, ADMIN_OP_VDI_INFO, "{\"name\": \"b\"}", -E_NOT_FOUND);
	admin_bench_expect(bench, ADMIN_OP_VDI_DELETE, "{\"name\": \"a\"}", 0);
	admin_bench_expect(bench, ADMIN_OP_VDI_DELETE, "{\"name\": \"a\"}", -E_NOT_FOUND);
}

/* The document of a volume names the blocks of its own layer. */
static void expect_used(struct admin_bench *bench, struct json_object *document)
{
	const struct cluster_volume *volume = cluster_volume_by_name(
		state_map(bench->node.state), admin_bench_text(document, "name"));
	struct json_object *used;

	assert_non_null(volume);
	assert_true(json_object_object_get_ex(document, "used", &used));
	assert_int_equal(json_object_get_uint64(used), volume->layers[0] * BLOCK_SIZE);
}

static void test_list_in_pages_has_every_row_once(void **state)
{
	struct admin_bench *bench = *state;
	char arguments[400], after[300] = "";
	unsigned rows = 0, pages = 0;
	bool has_more = true;

	admin_bench_format(bench);
	for (unsigned i = 0; i < 2000; i++) {
		snprintf(arguments, sizeof(arguments), "{\"name\": \"%0200u\", \"size\": 4096}", i);
		admin_bench_expect(bench, ADMIN_OP_VDI_CREATE, arguments, 0);
	}
	while (has_more) {
		snprintf(arguments, sizeof(arguments), after[0] ? "{\"after\": \"%s\"}" : "{}",
			 after);
		struct json_object *page = admin_bench_ask(bench, ADMIN_OP_VDI_LIST, arguments);
		size_t count = json_object_array_length(page);
		for (size_t i = 0; i < count; i++) {
			const char *name =
				admin_bench_text(json_object_array_get_idx(page, i), "name");
			assert_true(strcmp(name, after) > 0);
			expect_used(bench, json_object_array_get_idx(page, i));
			snprintf(after, sizeof(after), "%s", name);
		}
		rows += (unsigned)count;
		pages++;
		has_more = bench->question.flags & ADMIN_REPLY_MORE;
		json_object_put(page);
	}
	assert_int_equal(rows, 2000);
	assert_true(pages > 1);
}

static void test_sheep_that_do_not_answer_are_named(void **state)
{
	struct admin_bench *bench = *state;

	admin_bench_format(bench);
	admin_bench_expect(bench, ADMIN_OP_CLUSTER_INFO, "", 0);
	assert_non_null(strstr(bench->question.text, "\"unknown_nodes\":[2]"));
	assert_non_null(strstr(bench->question.text, "\"used\":null"));
	assert_non_null(strstr(bench->question.text, "\"objects_missing\":5"));
	admin_bench_expect(bench, ADMIN_OP_RECOVERY_INFO, "", 0);
	assert_non_null(strstr(bench->question.text, "\"unknown_nodes\":[2]"));
}

static void test_use_of_a_volume_is_told_when_all_of_it_was_counted(void **state)
{
	struct admin_bench *bench = *state;
	struct json_object *document;

	admin_bench_format(bench);
	admin_bench_count_pgs(16);
	admin_bench_expect(bench, ADMIN_OP_VDI_LIST, "", 0);
	assert_int_equal(admin_bench_questions(), 0); /* there is nothing to ask about */
	admin_bench_expect(bench, ADMIN_OP_VDI_CREATE, "{\"name\": \"a\", \"size\": 4096}", 0);
	document = admin_bench_ask(bench, ADMIN_OP_VDI_INFO, "{\"name\": \"a\"}");
	expect_used(bench, document);
	json_object_put(document);
	admin_bench_count_pgs(15);
	admin_bench_expect(bench, ADMIN_OP_VDI_INFO, "{\"name\": \"a\"}", 0);
	assert_non_null(strstr(bench->question.text, "\"used\":null"));
	admin_bench_expect(bench, ADMIN_OP_VDI_LIST, "", 0);
	assert_non_null(strstr(bench->question.text, "\"used\":null"));
	admin_bench_count_pgs(16);
	admin_bench_expect(bench, ADMIN_OP_VDI_LIST, "{\"used\": false}", 0);
	assert_non_null(strstr(bench->question.text, "\"used\":null"));
	assert_int_equal(admin_bench_questions(), 0);
	admin_bench_expect(bench, ADMIN_OP_VDI_LIST, "{\"used\": 1}", -EINVAL);
}

/* ---- an operator's changes ---- */

/* The answer has these words in it. */
static void expect_words(struct admin_bench *bench, uint16_t op, const char *arguments, int status,
			 const char *words)
{
	admin_bench_expect(bench, op, arguments, status);
	if (!strstr(bench->question.text, words))
		fail_msg("%s: '%s' is not in %s", arguments, words, bench->question.text);
}

static void test_settings_are_set_within_their_bounds(void **state)
{
	struct admin_bench *bench = *state;

	admin_bench_expect(bench, ADMIN_OP_CLUSTER_SET, "{\"key\": \"copies\", \"value\": \"2\"}",
			   -E_NOT_FORMATTED);
	admin_bench_format(bench);
	expect_words(bench, ADMIN_OP_CLUSTER_SETTINGS, "", 0, "\"key\":\"min_insync\"");
	expect_words(bench, ADMIN_OP_CLUSTER_SET, "{\"key\": \"lease\", \"value\": \"800ms\"}", 0,
		     "\"value\":\"800ms\",\"default\":\"1s\"");
	expect_words(bench, ADMIN_OP_CLUSTER_SET, "{\"key\": \"lease\", \"value\": \"9h\"}",
		     -EINVAL, "lease must be from");
	expect_words(bench, ADMIN_OP_CLUSTER_SET, "{\"key\": \"beacon\", \"value\": \"300ms\"}",
		     -EINVAL, "1/3 of lease");
	expect_words(bench, ADMIN_OP_CLUSTER_SET, "{\"key\": \"lease\", \"value\": \"default\"}", 0,
		     "\"value\":\"1s\"");
	admin_bench_expect(bench, ADMIN_OP_CLUSTER_SET, "{\"key\": \"leash\", \"value\": \"1s\"}",
			   -E_NOT_FOUND);
	expect_words(bench, ADMIN_OP_CLUSTER_SET, "{\"key\": \"min_insync\", \"value\": \"2\"}",
		     -EINVAL, "copies");
	admin_bench_expect(bench, ADMIN_OP_CLUSTER_SET, "{\"key\": \"copies\", \"value\": \"3\"}",
			   0);
	admin_bench_expect(bench, ADMIN_OP_CLUSTER_SET,
			   "{\"key\": \"min_insync\", \"value\": \"2\"}", 0);
	const struct cluster_policy *policy = cluster_policy(state_map(bench->node.state), 0);
	assert_int_equal(policy->copies, 3);
	assert_int_equal(policy->min_insync, 2);
	expect_words(bench, ADMIN_OP_RECOVERY_THROTTLE, "{\"rate\": 1048576}", 0,
		     "\"throttle\":1048576");
	admin_bench_expect(bench, ADMIN_OP_RECOVERY_THROTTLE, "{}", -EINVAL);
}

static void test_nodes_and_stores_are_changed_by_name(void **state)
{
	struct admin_bench *bench = *state;

	admin_bench_format(bench);
	rig_run(bench->rig, 500);
	expect_words(bench, ADMIN_OP_NODE_REMOVE, "{\"id\": 1}", -EBUSY, "is up");
	admin_bench_expect(bench, ADMIN_OP_NODE_REMOVE, "{\"id\": 9}", -E_NOT_FOUND);
	admin_bench_expect(bench, ADMIN_OP_NODE_DRAIN, "{}", -EINVAL);
	expect_words(bench, ADMIN_OP_NODE_DRAIN, "{\"id\": 1}", 0, "\"status\":\"draining\"");
	assert_non_null(strstr(bench->question.text, "\"copies\":16"));
	expect_words(bench, ADMIN_OP_CLUSTER_HEALTH, "", 0, "there is no other store");
	expect_words(bench, ADMIN_OP_NODE_UNDRAIN, "{\"id\": 1}", 0, "\"status\":\"up\"");
	expect_words(bench, ADMIN_OP_STORE_SET,
		     "{\"uuid\": \"8001\", \"key\": \"weight\", \"value\": \"7\"}", 0,
		     "\"weight\":7");
	admin_bench_expect(bench, ADMIN_OP_STORE_SET,
			   "{\"uuid\": \"8001\", \"key\": \"weight\", \"value\": \"x\"}", -EINVAL);
	admin_bench_expect(bench, ADMIN_OP_STORE_SET,
			   "{\"uuid\": \"800\", \"key\": \"weight\", \"value\": \"7\"}",
			   -E_NOT_FOUND);
	admin_bench_expect(bench, ADMIN_OP_STORE_SET,
			   "{\"uuid\": \"8001\", \"key\": \"size\", \"value\": \"7\"}",
			   -E_NOT_FOUND);
}

static void test_volumes_are_changed(void **state)
{
	struct admin_bench *bench = *state;

	admin_bench_format(bench);
	expect_words(bench, ADMIN_OP_VDI_CREATE, "{\"name\": \"a\", \"size\": 8192}", 0,
		     "\"created\":\"");
	admin_bench_expect(bench, ADMIN_OP_VDI_CREATE, "{\"name\": \"b\", \"size\": 8192}", 0);
	admin_bench_expect(bench, ADMIN_OP_VDI_RENAME, "{\"name\": \"a\", \"to\": \"b\"}", -EEXIST);
	admin_bench_expect(bench, ADMIN_OP_VDI_RENAME, "{\"name\": \"a\"}", -EINVAL);
	expect_words(bench, ADMIN_OP_VDI_RENAME, "{\"name\": \"a\", \"to\": \"c\"}", 0,
		     "\"name\":\"c\"");
	expect_words(bench, ADMIN_OP_VDI_RESIZE, "{\"name\": \"c\", \"size\": 16384}", 0,
		     "\"size\":16384");
	expect_words(bench, ADMIN_OP_VDI_RESIZE, "{\"name\": \"c\", \"size\": 4096}", -EINVAL,
		     "would shrink");
	admin_bench_expect(bench, ADMIN_OP_VDI_RESIZE,
			   "{\"name\": \"c\", \"size\": 4096, \"shrink\": true}", 0);
	expect_words(bench, ADMIN_OP_VDI_RESIZE, "{\"name\": \"c\", \"size\": 16384}", -EPERM,
		     "was shrunk");
	expect_words(bench, ADMIN_OP_VDI_SET,
		     "{\"name\": \"c\", \"key\": \"access\", \"value\": \"shared\"}", 0,
		     "\"access\":\"shared\"");
	expect_words(bench, ADMIN_OP_VDI_SET,
		     "{\"name\": \"c\", \"key\": \"access\", \"value\": \"none\"}", -EINVAL,
		     "access");
}

/* The store that a PG needs is named; loss is refused while it can be avoided, and recorded. */
static void test_loss_is_accepted_by_name_and_recorded(void **state)
{
	struct admin_bench *bench = *state;
	struct rig_node *second = &bench->rig->nodes[1];
	char arguments[128];
	uint32_t pg = 0;

	rig_start(bench->rig, 1);
	rig_run(bench->rig, 500);
	expect_words(bench, ADMIN_OP_CLUSTER_HEALTH, "", 0, "there is no cluster yet");
	admin_bench_format(bench);
	rig_run(bench->rig, 500);
	const struct cluster_map *map = state_map(bench->node.state);
	const struct cluster_store *store = cluster_store_next(map, cluster_store_next(map, 0)->id);
	while (pg < 16 && !cluster_pg_seat(cluster_pg(map, pg), store->id))
		pg++;
	assert_true(pg < 16);
	snprintf(arguments, sizeof(arguments), "{\"pg\": %u}", pg);
	expect_words(bench, ADMIN_OP_CLUSTER_FORCE, arguments, -EBUSY, "it serves");
	rig_crash(bench->rig, second->number, SIM_DEATH_CERTAIN);
	rig_run(bench->rig, 500);
	expect_words(bench, ADMIN_OP_CLUSTER_HEALTH, "", 0, "waiting for store 80020000 on node 2");
	assert_non_null(strstr(bench->question.text, "\"severity\":\"error\""));
	assert_non_null(strstr(bench->question.text, "has been down for"));
	/* Nobody told what it has of it. */
	expect_words(bench, ADMIN_OP_CLUSTER_FORCE, arguments, -EBUSY, "node 2");
	snprintf(arguments, sizeof(arguments), "{\"pg\": %u, \"store\": \"8002\"}", pg);
	expect_words(bench, ADMIN_OP_CLUSTER_FORCE, arguments, -EBUSY, "is not up");
	snprintf(arguments, sizeof(arguments), "{\"pg\": %u, \"store\": \"8001\"}", pg);
	expect_words(bench, ADMIN_OP_CLUSTER_FORCE, arguments, -EPERM,
		     "store 80020000 (node 2, down) may still have all");
	assert_int_equal(cluster_pg(state_map(bench->node.state), pg)->forced, 0);
	snprintf(arguments, sizeof(arguments),
		 "{\"pg\": %u, \"store\": \"8001\", \"yes_lose_data\": true}", pg);
	expect_words(bench, ADMIN_OP_CLUSTER_FORCE, arguments, 0, "\"forced\":1");
	expect_words(bench, ADMIN_OP_CLUSTER_HEALTH, "", 0, "an operator accepted loss in 1 ");
	expect_words(bench, ADMIN_OP_CLUSTER_FORCE, arguments, -EBUSY, "it serves");
	admin_bench_expect(bench, ADMIN_OP_CLUSTER_FORCE, "{\"pg\": 99}", -E_NOT_FOUND);
	expect_words(bench, ADMIN_OP_NODE_REMOVE, "{\"id\": 2}", -EBUSY, "still listed in");
}

/* ---- deadlines and the end ---- */

static void test_deadline_without_quorum_gets_one_answer_in_time(void **state)
{
	static const char create[] = "{\"name\": \"a\", \"size\": 4096}";
	struct admin_bench *bench = *state;

	admin_bench_format(bench);
	sim_log_set_quorum(bench->rig->log, false);
	rig_run(bench->rig, 50);
	admin_bench_send(bench, &bench->question, ADMIN_OP_VDI_CREATE, create, strlen(create),
			 2000);
	rig_run(bench->rig, 1500);
	assert_int_equal(bench->question.replies, 0);
	rig_run(bench->rig, 600);
	assert_int_equal(bench->question.replies, 1);
	assert_int_equal(bench->question.status, -E_NO_QUORUM);
	sim_log_set_quorum(bench->rig->log, true);
	rig_run(bench->rig, 2000);
	assert_int_equal(bench->question.replies, 1);
}

static void test_stop_answers_what_waits_and_refuses_the_rest(void **state)
{
	static const char create[] = "{\"name\": \"a\", \"size\": 4096}";
	struct admin_bench *bench = *state;
	struct rig_node *first = &bench->rig->nodes[0];
	struct admin_question *late = calloc(1, sizeof(*late));

	admin_bench_format(bench);
	sim_log_set_quorum(bench->rig->log, false);
	admin_bench_send(bench, &bench->question, ADMIN_OP_VDI_CREATE, create, strlen(create),
			 60000);
	bench->node.phase = NODE_STOPPING;
	admin_bench_send(bench, late, ADMIN_OP_CLUSTER_INFO, "", 0, 0);
	assert_int_equal(late->replies, 1);
	assert_int_equal(late->status, -E_SHUTDOWN);
	free(late);
	assert_int_equal(bench->question.replies, 0);
	caretaker_stop(first->caretaker);
	state_leave(first->state);
	assert_int_equal(bench->question.replies, 1);
	assert_int_equal(bench->question.status, -E_SHUTDOWN);
	rig_run(bench->rig, 100);
	caretaker_free(first->caretaker);
	state_free(first->state);
	first->state = NULL;
}

static void test_change_before_the_registration_waits_for_it(void **state)
{
	static const char format_one[] = "{\"copies\": 1, \"pgs\": 16}";
	struct admin_bench *bench = *state;
	struct admin_question *early = calloc(2, sizeof(*early));

	bench->node.phase = NODE_REGISTERING;
	admin_bench_send(bench, &early[0], ADMIN_OP_CLUSTER_FORMAT, format_one, strlen(format_one),
			 60000);
	admin_bench_send(bench, &early[1], ADMIN_OP_CLUSTER_FORMAT, format_one, strlen(format_one),
			 1000);
	rig_run(bench->rig, 1100);
	assert_int_equal(early[0].replies, 0);
	assert_int_equal(early[1].replies, 1); /* before its client gives up */
	assert_int_equal(early[1].status, -ETIMEDOUT);
	admin_bench_expect(bench, ADMIN_OP_CLUSTER_INFO, "", 0);
	bench->node.phase = NODE_RUNNING;
	admin_resume(bench->node.admin);
	rig_run(bench->rig, 100);
	assert_int_equal(early[0].replies, 1);
	assert_int_equal(early[0].status, 0);
	free(early);
}

int main(void)
{
#define ADMIN_TEST(name) \
	cmocka_unit_test_setup_teardown(name, admin_bench_setup, admin_bench_teardown)
	const struct CMUnitTest tests[] = {
		ADMIN_TEST(test_what_is_no_object_of_json_is_invalid),
		ADMIN_TEST(test_deep_nesting_is_invalid),
		ADMIN_TEST(test_wrong_values_are_named),
		ADMIN_TEST(test_any_bytes_get_one_answer),
		ADMIN_TEST(test_volume_lives_and_dies),
		ADMIN_TEST(test_list_in_pages_has_every_row_once),
		ADMIN_TEST(test_sheep_that_do_not_answer_are_named),
		ADMIN_TEST(test_use_of_a_volume_is_told_when_all_of_it_was_counted),
		ADMIN_TEST(test_settings_are_set_within_their_bounds),
		ADMIN_TEST(test_nodes_and_stores_are_changed_by_name),
		ADMIN_TEST(test_volumes_are_changed),
		ADMIN_TEST(test_loss_is_accepted_by_name_and_recorded),
		ADMIN_TEST(test_deadline_without_quorum_gets_one_answer_in_time),
		ADMIN_TEST(test_stop_answers_what_waits_and_refuses_the_rest),
		ADMIN_TEST(test_change_before_the_registration_waits_for_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
