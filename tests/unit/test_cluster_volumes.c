/* Volumes: names, sizes, properties, who has them open, who owns them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "lib/base/size.h"
#include "lib/base/text.h"
#include "tests/unit/cluster_script.h"

#define OK PROTO_STATUS_OK

static void start(struct script *script)
{
	script_start(script);
	script_format(script, 3, 3, 8);
}

static enum proto_status create(struct script *script, const char *name, uint64_t size)
{
	return script_run_twice(script, 1, cluster_command_volume_create(name, size, 0, NULL, 0));
}

static const struct cluster_volume *volume_named(struct script *script, const char *name)
{
	const struct cluster_volume *volume = cluster_volume_by_name(script->map, name);

	assert_non_null(volume);
	return volume;
}

static uint64_t session_of(struct script *script, uint32_t node)
{
	return cluster_node(script->map, node)->session;
}

static enum proto_status set(struct script *script, uint64_t volume, const char *key,
			     const char *value)
{
	return script_run(script, 1, cluster_command_volume_set(volume, key, value));
}

/* ---- names and sizes ---- */

static void test_names_are_judged_in_one_place(void **state)
{
	static const struct {
		const char *name;
		size_t length;
		bool is_good;
	} cases[] = {
		{"a", 1, true},		{"disk-1.img", 10, true}, {"Größe", 7, true},
		{"a b", 3, true},	{"a:b", 3, true},	  {"...", 3, true},
		{"ro", 2, true},	{"rom:", 4, true},	  {"", 0, false},
		{"a@b", 3, false},	{"@", 1, false},	  {"a/b", 3, false},
		{" a", 2, false},	{"a ", 2, false},	  {".", 1, false},
		{"..", 2, false},	{"ro:a", 4, false},	  {"ro:", 3, false},
		{"a\nb", 3, false},	{"a\0b", 3, false},	  {"\xff", 1, false},
		{"\xc3\x28", 2, false}, {"\x7f", 1, false},
	};
	char longest[LOG_NAME_SIZE + 1];

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		struct error err = {0};
		int rc = cluster_check_volume_name(cases[i].name, cases[i].length, &err);

		assert_int_equal(rc, cases[i].is_good ? 0 : -EINVAL);
		assert_int_equal(err.text[0] != 0, rc != 0);
	}
	memset(longest, 'x', sizeof(longest));
	assert_int_equal(cluster_check_volume_name(longest, 255, NULL), 0);
	assert_int_equal(cluster_check_volume_name(longest, 256, NULL), -EINVAL);
}

static void test_sizes_are_judged_in_one_place(void **state)
{
	(void)state;
	assert_int_equal(cluster_check_volume_size(512, NULL), 0);
	assert_int_equal(cluster_check_volume_size(16 * PIB, NULL), 0);
	assert_int_equal(cluster_check_volume_size(0, NULL), -EINVAL);
	assert_int_equal(cluster_check_volume_size(1000, NULL), -EINVAL);
	assert_int_equal(cluster_check_volume_size(16 * PIB + 512, NULL), -EINVAL);
	assert_int_equal(cluster_check_volume_size(UINT64_MAX, NULL), -EINVAL);
}

/* ---- creation, deletion, names ---- */

static void test_create_gives_an_id_that_is_never_reused(void **state)
{
	struct script script;
	const struct cluster_volume *volume;
	uint64_t first;

	(void)state;
	start(&script);
	assert_int_equal(create(&script, "db", GIB), OK);
	volume = volume_named(&script, "db");
	first = volume->id;
	assert_int_equal(volume->family, first);
	assert_int_equal(volume->layer_count, 1);
	assert_int_equal(volume->layers[0], first);
	assert_int_equal(volume->size_bytes, GIB);
	assert_int_equal(volume->generation, volume->created);
	assert_int_equal(volume->access, CLUSTER_ACCESS_SINGLE);
	assert_true(cluster_layer_is_live(script.map, first));
	assert_int_equal(create(&script, "db", GIB), PROTO_STATUS_EXISTS);
	assert_int_equal(script_run_twice(&script, 1, cluster_command_volume_delete(first)), OK);
	assert_null(cluster_volume_by_name(script.map, "db"));
	assert_false(cluster_layer_is_live(script.map, first));
	assert_true(first < cluster_next_id(script.map));
	assert_int_equal(script_run(&script, 1, cluster_command_volume_delete(first)),
			 PROTO_STATUS_NOT_FOUND);
	assert_int_equal(create(&script, "db", GIB), OK);
	assert_true(volume_named(&script, "db")->id > first);
	script_stop(&script);
}

static void test_the_delta_names_what_changed(void **state)
{
	struct script script;
	uint64_t id;

	(void)state;
	start(&script);
	assert_int_equal(
		script_run(&script, 1, cluster_command_volume_create("a", 512, 0, NULL, 0)), OK);
	id = script.result.id;
	assert_int_equal(script.result.volumes.count, 1);
	assert_true(script.result.volumes.ids[0] == id);
	assert_int_equal(script.result.pgs.count, 0);
	assert_int_equal(script.result.nodes.count, 0);
	assert_int_equal(script_run(&script, 2, cluster_command_volume_delete(id)), OK);
	assert_int_equal(script.result.volumes.count, 1);
	assert_true(script.result.volumes.ids[0] == id);
	assert_int_equal(script.result.node, 2);
	assert_int_equal(script.result.start, script.nodes[2].proposer.start);
	assert_int_equal(script.result.sequence, script.nodes[2].proposer.sequence);
	script_stop(&script);
}

static void test_bad_creations_are_refused_with_a_text(void **state)
{
	struct script script;
	struct cluster_property bad[] = {{"access", "both"}};

	(void)state;
	start(&script);
	assert_int_equal(create(&script, "a@b", 512), PROTO_STATUS_INVALID);
	assert_int_equal(
		script_run(&script, 1, cluster_command_volume_create("a", 1000, 0, NULL, 0)),
		PROTO_STATUS_INVALID);
	assert_string_equal(script.result.text,
			    "volume 'a': size 1000 is not a multiple of 512 above 0");
	assert_int_equal(
		script_run(&script, 1, cluster_command_volume_create("a", 512, 1, NULL, 0)),
		PROTO_STATUS_NOT_FOUND);
	assert_int_equal(script_run(&script, 1, cluster_command_volume_create("a", 512, 0, bad, 1)),
			 PROTO_STATUS_INVALID);
	assert_int_equal(cluster_volume_count(script.map), 0);
	/* An id was begun to be given out, and the attempt left nothing. */
	assert_int_equal(cluster_next_id(script.map), 1);
	script_stop(&script);
}

static void test_rename_is_conditional_on_the_name(void **state)
{
	struct script script;
	uint64_t id;

	(void)state;
	start(&script);
	assert_int_equal(create(&script, "a", 512), OK);
	assert_int_equal(create(&script, "b", 512), OK);
	id = volume_named(&script, "a")->id;
	assert_int_equal(script_run(&script, 1, cluster_command_volume_rename(id, "a", "b")),
			 PROTO_STATUS_EXISTS);
	assert_int_equal(script_run(&script, 1, cluster_command_volume_rename(id, "x", "c")),
			 PROTO_STATUS_BUSY);
	assert_int_equal(script_run(&script, 1, cluster_command_volume_rename(id, "a", "c/d")),
			 PROTO_STATUS_INVALID);
	assert_int_equal(script_run_twice(&script, 1, cluster_command_volume_rename(id, "a", "c")),
			 OK);
	assert_null(cluster_volume_by_name(script.map, "a"));
	assert_int_equal(volume_named(&script, "c")->id, id);
	assert_int_equal(script_run(&script, 1, cluster_command_volume_rename(99, "a", "c")),
			 PROTO_STATUS_NOT_FOUND);
	script_stop(&script);
}

static void test_resize_is_conditional_on_the_size(void **state)
{
	struct script script;
	uint64_t id;

	(void)state;
	start(&script);
	assert_int_equal(create(&script, "a", MIB), OK);
	id = volume_named(&script, "a")->id;
	assert_int_equal(
		script_run_twice(&script, 1, cluster_command_volume_resize(id, MIB, 2 * MIB, 0)),
		OK);
	assert_int_equal(script_run(&script, 1, cluster_command_volume_resize(id, MIB, 3 * MIB, 0)),
			 PROTO_STATUS_BUSY);
	assert_int_equal(script_run(&script, 1, cluster_command_volume_resize(id, 2 * MIB, MIB, 0)),
			 PROTO_STATUS_INVALID);
	assert_int_equal(script_run(&script, 1, cluster_command_volume_resize(id, 2 * MIB, 700, 0)),
			 PROTO_STATUS_INVALID);
	assert_int_equal(
		script_run(&script, 1, cluster_command_volume_open(id, session_of(&script, 1), 0)),
		OK);
	assert_int_equal(
		script_run(&script, 1,
			   cluster_command_volume_resize(id, 2 * MIB, MIB, LOG_RESIZE_SHRINK)),
		PROTO_STATUS_BUSY);
	assert_int_equal(
		script_run(&script, 1, cluster_command_volume_close(id, session_of(&script, 1))),
		OK);
	assert_int_equal(
		script_run(&script, 1,
			   cluster_command_volume_resize(id, 2 * MIB, MIB, LOG_RESIZE_SHRINK)),
		OK);
	assert_int_equal(volume_named(&script, "a")->size_bytes, MIB);
	script_stop(&script);
}

/* What was behind its end may still be at some store, and must not appear again. */
static void test_volume_that_was_shrunk_does_not_grow(void **state)
{
	struct script script;
	uint64_t id, garbage;

	(void)state;
	start(&script);
	assert_int_equal(create(&script, "a", 10 * MIB), OK);
	id = volume_named(&script, "a")->id;
	garbage = cluster_garbage_index(script.map);
	assert_int_equal(
		script_run(&script, 1, cluster_command_volume_resize(id, 10 * MIB, 20 * MIB, 0)),
		OK);
	assert_int_equal(cluster_garbage_index(script.map), garbage);
	assert_int_equal(cluster_layer_end(script.map, id), 20 * MIB);
	assert_int_equal(
		script_run(&script, 1,
			   cluster_command_volume_resize(id, 20 * MIB, 5 * MIB, LOG_RESIZE_SHRINK)),
		OK);
	assert_int_equal(cluster_layer_end(script.map, id), 5 * MIB);
	assert_int_equal(cluster_garbage_index(script.map), cluster_index(script.map));
	assert_int_equal(
		script_run(&script, 1, cluster_command_volume_resize(id, 5 * MIB, 6 * MIB, 0)),
		PROTO_STATUS_READ_ONLY);
	assert_int_equal(
		script_run(&script, 1,
			   cluster_command_volume_resize(id, 5 * MIB, 4 * MIB, LOG_RESIZE_SHRINK)),
		OK);
	assert_int_equal(script_run(&script, 1, cluster_command_volume_delete(id)), OK);
	assert_int_equal(cluster_layer_end(script.map, id), 0);
	assert_int_equal(cluster_garbage_index(script.map), cluster_index(script.map));
	script_stop(&script);
}

/* ---- properties ---- */

static void test_known_properties_become_fields(void **state)
{
	struct script script;
	struct cluster_property properties[] = {{"access", "shared"}, {"durability", "always"}};
	uint64_t id;

	(void)state;
	start(&script);
	assert_int_equal(
		script_run(&script, 1, cluster_command_volume_create("a", 512, 0, properties, 2)),
		OK);
	id = script.result.id;
	assert_int_equal(volume_named(&script, "a")->access, CLUSTER_ACCESS_SHARED);
	assert_int_equal(volume_named(&script, "a")->durability, CLUSTER_DURABILITY_ALWAYS);
	assert_int_equal(volume_named(&script, "a")->property_count, 0);
	assert_int_equal(set(&script, id, "access", "single"), OK);
	assert_int_equal(volume_named(&script, "a")->access, CLUSTER_ACCESS_SINGLE);
	assert_int_equal(set(&script, id, "access", ""), PROTO_STATUS_INVALID);
	assert_int_equal(set(&script, id, "durability", "never"), PROTO_STATUS_INVALID);
	assert_non_null(strstr(script.result.text, "'flush' or 'always'"));
	assert_int_equal(set(&script, 99, "access", "single"), PROTO_STATUS_NOT_FOUND);
	script_stop(&script);
}

static void test_other_properties_are_kept_in_order(void **state)
{
	struct script script;
	const struct cluster_volume *volume;
	uint64_t id;
	char key[16];

	(void)state;
	start(&script);
	assert_int_equal(create(&script, "a", 512), OK);
	id = volume_named(&script, "a")->id;
	assert_int_equal(set(&script, id, "iops", "500"), OK);
	assert_int_equal(set(&script, id, "filters", "delay:wdelay=10ms"), OK);
	assert_int_equal(set(&script, id, "iops", "700"), OK);
	volume = volume_named(&script, "a");
	assert_int_equal(volume->property_count, 2);
	assert_string_equal(volume->properties[0].key, "filters");
	assert_string_equal(volume->properties[1].value, "700");
	assert_int_equal(set(&script, id, "filters", ""), OK);
	assert_int_equal(volume_named(&script, "a")->property_count, 1);
	assert_int_equal(set(&script, id, "No Key", "1"), PROTO_STATUS_INVALID);
	assert_int_equal(set(&script, id, "x", "a\tb"), PROTO_STATUS_INVALID);
	for (unsigned i = 0; i < CLUSTER_VOLUME_PROPERTIES; i++) {
		struct text text = text_of(key, sizeof(key));

		text_append(&text, "k%u", i);
		assert_int_equal(set(&script, id, key, "v"),
				 i + 1 < CLUSTER_VOLUME_PROPERTIES ? OK : PROTO_STATUS_NO_SPACE);
	}
	script_stop(&script);
}

/* ---- open and close ---- */

static void test_delete_refuses_while_open_and_says_where(void **state)
{
	struct script script;
	struct cluster_command *command;
	uint64_t id, session;

	(void)state;
	start(&script);
	assert_int_equal(create(&script, "a", 512), OK);
	id = volume_named(&script, "a")->id;
	session = session_of(&script, 2);
	command = cluster_command_volume_open(id, session, LOG_OPEN_READ_ONLY);
	assert_int_equal(script_run_twice(&script, 2, command), OK);
	assert_int_equal(volume_named(&script, "a")->opener_count, 1);
	assert_int_equal(volume_named(&script, "a")->openers[0].flags, LOG_OPEN_READ_ONLY);
	assert_int_equal(script_run(&script, 1, cluster_command_volume_delete(id)),
			 PROTO_STATUS_BUSY);
	assert_non_null(strstr(script.result.text, "127.0.0.1:7002"));
	assert_int_equal(script_run_twice(&script, 2, cluster_command_volume_close(id, session)),
			 OK);
	assert_int_equal(script_run(&script, 2, cluster_command_volume_close(id, session)), OK);
	assert_int_equal(script_run(&script, 1, cluster_command_volume_delete(id)), OK);
	script_stop(&script);
}

/* The open of a start that has ended, repeated, does not keep the volume for ever. */
static void test_late_open_is_void_when_its_session_has_ended(void **state)
{
	struct script script;
	struct cluster_command *open;
	uint64_t id;

	(void)state;
	start(&script);
	assert_int_equal(create(&script, "a", 512), OK);
	id = volume_named(&script, "a")->id;
	open = cluster_command_volume_open(id, session_of(&script, 2), 0);
	cluster_command_sign(open, &script.nodes[2].proposer);
	assert_int_equal(script_apply(&script, open->data, open->size), OK);
	assert_int_equal(
		script_run(&script, 2, cluster_command_volume_close(id, session_of(&script, 2))),
		OK);
	/* The copy comes after the close. */
	assert_int_equal(script_apply(&script, open->data, open->size), PROTO_STATUS_EXISTS);
	assert_int_equal(volume_named(&script, "a")->opener_count, 0);
	cluster_command_free(open);
	open = cluster_command_volume_open(id, session_of(&script, 2), 0);
	assert_int_equal(script_dead(&script, 1, 2), OK);
	assert_int_equal(script_run(&script, 1, open), PROTO_STATUS_STALE_SESSION);
	script_stop(&script);
}

static void test_a_dead_gateway_closes_what_it_had_open(void **state)
{
	struct script script;
	char name[16];

	(void)state;
	start(&script);
	for (unsigned i = 0; i < 20; i++) {
		struct text text = text_of(name, sizeof(name));
		uint64_t id;

		text_append(&text, "v%u", i);
		assert_int_equal(create(&script, name, 512), OK);
		id = volume_named(&script, name)->id;
		assert_int_equal(script_run(&script, 3,
					    cluster_command_volume_open(
						    id, session_of(&script, 1 + i % 3), 0)),
				 OK);
	}
	assert_int_equal(script_run(&script, 2,
				    cluster_command_volume_own(
					    volume_named(&script, "v1")->id, session_of(&script, 2),
					    volume_named(&script, "v1")->generation)),
			 OK);
	assert_int_equal(script_dead(&script, 1, 2), OK);
	assert_int_equal(script.result.volumes.count, 7);
	assert_int_equal(volume_named(&script, "v1")->opener_count, 0);
	assert_int_equal(volume_named(&script, "v1")->owner, 0);
	assert_int_equal(volume_named(&script, "v0")->opener_count, 1);
	/* A restart without a death ends the session too. */
	assert_int_equal(script_restart(&script, 3, 0), OK);
	assert_int_equal(volume_named(&script, "v2")->opener_count, 0);
	script_stop(&script);
}

static void test_o1_ownership_moves_only_at_its_generation(void **state)
{
	struct script script;
	struct cluster_command *command;
	uint64_t id, first, one, two;

	(void)state;
	start(&script);
	assert_int_equal(create(&script, "a", 512), OK);
	id = volume_named(&script, "a")->id;
	one = session_of(&script, 1);
	two = session_of(&script, 2);
	first = volume_named(&script, "a")->generation;
	assert_int_equal(script_run(&script, 1, cluster_command_volume_own(id, one, first)),
			 PROTO_STATUS_READ_ONLY);
	assert_int_equal(script_run(&script, 1, cluster_command_volume_open(id, one, 0)), OK);
	assert_int_equal(script_run(&script, 2, cluster_command_volume_open(id, two, 0)), OK);
	assert_int_equal(script_run_twice(&script, 1, cluster_command_volume_own(id, one, first)),
			 OK);
	assert_int_equal(volume_named(&script, "a")->owner, one);
	assert_int_equal(volume_named(&script, "a")->generation, cluster_index(script.map) - 1);
	/* A connection that was opened before cannot take it back. */
	command = cluster_command_volume_own(id, two, first);
	assert_int_equal(script_run(&script, 2, command), PROTO_STATUS_STALE_GENERATION);
	command = cluster_command_volume_own(id, two, volume_named(&script, "a")->generation);
	assert_int_equal(script_run(&script, 2, command), OK);
	assert_int_equal(volume_named(&script, "a")->owner, two);
	/* The owner asking again changes nothing. */
	first = volume_named(&script, "a")->generation;
	assert_int_equal(script_run(&script, 2, cluster_command_volume_own(id, two, first)), OK);
	assert_int_equal(volume_named(&script, "a")->generation, first);
	/* Who opened for reading never owns. */
	assert_int_equal(
		script_run(&script, 1, cluster_command_volume_open(id, one, LOG_OPEN_READ_ONLY)),
		OK);
	assert_int_equal(script_run(&script, 1, cluster_command_volume_own(id, one, first)),
			 PROTO_STATUS_READ_ONLY);
	script_stop(&script);
}

static void test_o1_a_change_of_access_leaves_no_old_mode_writer(void **state)
{
	struct script script;
	uint64_t id, one, two, owned;

	(void)state;
	start(&script);
	assert_int_equal(create(&script, "a", 512), OK);
	id = volume_named(&script, "a")->id;
	one = session_of(&script, 1);
	two = session_of(&script, 2);
	assert_int_equal(script_run(&script, 1, cluster_command_volume_open(id, one, 0)), OK);
	assert_int_equal(script_run(&script, 2, cluster_command_volume_open(id, two, 0)), OK);
	assert_int_equal(script_run(&script, 1,
				    cluster_command_volume_own(
					    id, one, volume_named(&script, "a")->generation)),
			 OK);
	owned = volume_named(&script, "a")->generation;
	/* The owner may go on; nobody owns it, and nobody can. */
	assert_int_equal(
		script_run_twice(&script, 3, cluster_command_volume_set(id, "access", "shared")),
		OK);
	assert_int_equal(volume_named(&script, "a")->generation, owned);
	assert_int_equal(volume_named(&script, "a")->owner, 0);
	assert_int_equal(script_run(&script, 2, cluster_command_volume_own(id, two, owned)),
			 PROTO_STATUS_INVALID);
	/* The same again changes nothing; the other way ends all that there is. */
	assert_int_equal(script_run(&script, 3, cluster_command_volume_set(id, "access", "shared")),
			 OK);
	assert_int_equal(volume_named(&script, "a")->generation, owned);
	assert_int_equal(
		script_run_twice(&script, 3, cluster_command_volume_set(id, "access", "single")),
		OK);
	assert_int_equal(volume_named(&script, "a")->generation, cluster_index(script.map) - 1);
	assert_int_equal(volume_named(&script, "a")->owner, 0);
	assert_int_equal(script_run(&script, 1, cluster_command_volume_own(id, one, owned)),
			 PROTO_STATUS_STALE_GENERATION);
	script_stop(&script);
}

/* ---- lookup ---- */

static void test_objects_spread_over_the_pgs_of_their_policy(void **state)
{
	struct cluster_policy policy = {.id = 2, .pg_count = 256};
	uint32_t counts[256] = {0}, least = UINT32_MAX, most = 0;

	(void)state;
	for (uint64_t family = 1; family <= 100; family++)
		for (uint32_t index = 0; index < 1000; index++) {
			uint32_t pg = cluster_pg_of(&policy, family, index);

			assert_int_equal(pg >> CLUSTER_PG_POLICY_SHIFT, 2);
			counts[pg & 255]++;
		}
	for (unsigned i = 0; i < 256; i++) {
		least = min_of(least, counts[i]);
		most = max_of(most, counts[i]);
	}
	assert_in_range(least, 300, 390);
	assert_in_range(most, 391, 480);
	/* Part of the disk format. */
	assert_int_equal(cluster_pg_of(&policy, 1, 0) & 255, 0x64);
	assert_int_equal(cluster_pg_of(&policy, 7, 12345) & 255, 0x0d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_are_judged_in_one_place),
		cmocka_unit_test(test_sizes_are_judged_in_one_place),
		cmocka_unit_test(test_create_gives_an_id_that_is_never_reused),
		cmocka_unit_test(test_the_delta_names_what_changed),
		cmocka_unit_test(test_bad_creations_are_refused_with_a_text),
		cmocka_unit_test(test_rename_is_conditional_on_the_name),
		cmocka_unit_test(test_resize_is_conditional_on_the_size),
		cmocka_unit_test(test_volume_that_was_shrunk_does_not_grow),
		cmocka_unit_test(test_known_properties_become_fields),
		cmocka_unit_test(test_other_properties_are_kept_in_order),
		cmocka_unit_test(test_delete_refuses_while_open_and_says_where),
		cmocka_unit_test(test_late_open_is_void_when_its_session_has_ended),
		cmocka_unit_test(test_a_dead_gateway_closes_what_it_had_open),
		cmocka_unit_test(test_o1_ownership_moves_only_at_its_generation),
		cmocka_unit_test(test_o1_a_change_of_access_leaves_no_old_mode_writer),
		cmocka_unit_test(test_objects_spread_over_the_pgs_of_their_policy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
