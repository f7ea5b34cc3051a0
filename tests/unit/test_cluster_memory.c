/*
 * No memory, at every single allocation of a command: the map before stays as it was, nothing
 * leaks, and the same command succeeds when it is tried again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "lib/base/size.h"
#include "tests/unit/cluster_script.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *data, size_t size);
void __real_free(void *data);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *data, size_t size);
void __wrap_free(void *data);

static long until_failure; /* allocations that still succeed; below 0: all */
static bool is_counting;
static long living; /* allocations while counting that were not freed */

static bool fails(void)
{
	if (until_failure < 0)
		return false;
	return until_failure-- == 0;
}

void *__wrap_malloc(size_t size)
{
	if (fails())
		return NULL;
	living += is_counting;
	return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	if (fails())
		return NULL;
	living += is_counting;
	return __real_calloc(count, size);
}

void *__wrap_realloc(void *data, size_t size)
{
	if (fails())
		return NULL;
	living += is_counting && !data;
	return __real_realloc(data, size);
}

void __wrap_free(void *data)
{
	living -= is_counting && data;
	__real_free(data);
}

/* The n-th allocation fails, for n = 0, 1, ... until the command gets through. */
static void run_starved(struct script *script, uint32_t from, struct cluster_command *command)
{
	uint64_t index = cluster_index(script->map) + 1, before, after;
	struct cluster_result result;
	struct cluster_map *map = NULL;

	assert_non_null(command);
	cluster_command_sign(command, &script->nodes[from].proposer);
	assert_int_equal(cluster_digest(script->map, &before), 0);
	for (long n = 0; !map; n++) {
		assert_true(n < 100000);
		living = 0;
		is_counting = true;
		until_failure = n;
		map = cluster_apply(script->map, index, command->data, command->size, &result);
		until_failure = -1;
		is_counting = false;
		if (map)
			break;
		assert_int_equal(result.status, PROTO_STATUS_NO_MEMORY);
		assert_int_equal(living, 0);
		assert_int_equal(cluster_digest(script->map, &after), 0);
		assert_true(before == after);
		assert_int_equal(cluster_check(script->map, NULL), 0);
	}
	cluster_result_done(&result);
	cluster_map_put(map);
	/* What a starved attempt left behind would show here. */
	(void)script_apply(script, command->data, command->size);
	cluster_command_free(command);
}

static void test_starved_commands_change_nothing_and_leak_nothing(void **state)
{
	struct script script;
	struct cluster_property properties[] = {{"access", "shared"}, {"iops", "500"}};
	struct cluster_plan_input input = {0};
	struct cluster_command *plan[1];
	struct uuid uuid = {{9}};
	uint64_t session;

	(void)state;
	until_failure = -1;
	script_start(&script);
	script.image_every = 0;
	for (unsigned i = 0; i < 3; i++)
		(void)script_add_node(&script, i ? "b" : "a", 1);
	run_starved(&script, 1, cluster_command_format(&uuid, 3, 0, 8, 0));
	assert_int_equal(cluster_plan(script.map, &input, plan, 1), 1);
	run_starved(&script, 1, plan[0]);
	run_starved(&script, 1, cluster_command_volume_create("a", 512, 0, properties, 2));
	run_starved(&script, 1, cluster_command_volume_create("b", 512, 0, NULL, 0));
	session = cluster_node(script.map, 2)->session;
	run_starved(&script, 1, cluster_command_volume_open(1, session, 0));
	run_starved(&script, 1, cluster_command_volume_open(2, session, 0));
	run_starved(&script, 1, cluster_command_volume_rename(1, "a", "c"));
	run_starved(&script, 1, cluster_command_volume_set(1, "filters", "delay"));
	run_starved(&script, 1, cluster_command_setting("grace", 5000));
	run_starved(&script, 1, cluster_command_shutdown());
	/* Everything at once: PGs, stores, the session, its volumes. */
	run_starved(&script, 1, cluster_command_dead(2, 1));
	assert_int_equal(cluster_volume(script.map, 1)->opener_count, 0);
	run_starved(&script, 1, cluster_command_volume_delete(1));
	run_starved(&script, 1, cluster_command_volume_delete(99));
	script_stop(&script);
}

static void test_starved_decoding_gives_no_map(void **state)
{
	struct script script;
	struct cluster_map *map = NULL;
	void *image;
	size_t size;
	int rc = -ENOMEM;

	(void)state;
	until_failure = -1;
	script_start(&script);
	script_format(&script, 3, 3, 4);
	assert_int_equal(
		script_run(&script, 1, cluster_command_volume_create("a", 512, 0, NULL, 0)),
		PROTO_STATUS_OK);
	assert_int_equal(cluster_encode(script.map, &image, &size), 0);
	for (long n = 0; rc < 0; n++) {
		assert_true(n < 100000);
		living = 0;
		is_counting = true;
		until_failure = n;
		rc = cluster_decode(image, size, &map, NULL);
		until_failure = -1;
		is_counting = false;
		if (rc < 0) {
			assert_int_equal(rc, -ENOMEM);
			assert_int_equal(living, 0);
			assert_null(map);
		}
	}
	cluster_map_put(map);
	free(image);
	script_stop(&script);
}

static void test_starved_planner_leaks_nothing(void **state)
{
	struct script script;
	struct cluster_plan_input input = {0};
	struct cluster_command *plan[4];
	struct uuid uuid = {{9}};
	int count = -ENOMEM;

	(void)state;
	until_failure = -1;
	script_start(&script);
	for (unsigned i = 0; i < 3; i++)
		(void)script_add_node(&script, "a", 1);
	assert_int_equal(script_run(&script, 1, cluster_command_format(&uuid, 3, 0, 8, 0)),
			 PROTO_STATUS_OK);
	for (long n = 0; count < 0; n++) {
		living = 0;
		is_counting = true;
		until_failure = n;
		count = cluster_plan(script.map, &input, plan, 4);
		until_failure = -1;
		is_counting = false;
		if (count < 0) {
			assert_int_equal(count, -ENOMEM);
			assert_int_equal(living, 0);
		}
	}
	assert_int_equal(count, 1);
	cluster_command_free(plan[0]);
	script_stop(&script);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_starved_commands_change_nothing_and_leak_nothing),
		cmocka_unit_test(test_starved_decoding_gives_no_map),
		cmocka_unit_test(test_starved_planner_leaks_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
