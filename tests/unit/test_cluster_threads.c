/*
 * One thread applies, others read: each holds its reference, nobody locks while reading. The pointer
 * itself is passed under a lock, as a mailbox would. Meant for a run under ThreadSanitizer;
 * without it, it still finds freed maps.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "lib/base/size.h"
#include "lib/base/text.h"
#include "tests/unit/cluster_script.h"

#define READERS	 3
#define COMMANDS 3000

struct shared {
	pthread_mutex_t lock;
	struct cluster_map *map;
	bool is_over;
};

static struct cluster_map *take(struct shared *shared, bool *is_over)
{
	struct cluster_map *map;

	pthread_mutex_lock(&shared->lock);
	map = cluster_map_get(shared->map);
	*is_over = shared->is_over;
	pthread_mutex_unlock(&shared->lock);
	return map;
}

static void publish(struct shared *shared, struct cluster_map *map, bool is_over)
{
	struct cluster_map *old;

	pthread_mutex_lock(&shared->lock);
	old = shared->map;
	shared->map = cluster_map_get(map);
	shared->is_over = is_over;
	pthread_mutex_unlock(&shared->lock);
	cluster_map_put(old);
}

/* Returns NULL if every map it saw was whole and none was older than the one before. */
static void *read_maps(void *context)
{
	uint64_t last = 0;
	bool is_over = false, is_bad = false;

	while (!is_over && !is_bad) {
		struct cluster_map *map = take(context, &is_over);

		is_bad = cluster_index(map) < last || cluster_check(map, NULL) < 0;
		last = cluster_index(map);
		cluster_map_put(map);
	}
	return is_bad ? context : NULL;
}

static void do_something(struct script *script, unsigned i)
{
	char name[16];
	struct text text = text_of(name, sizeof(name));

	text_append(&text, "v%u", i % 50);
	if (i % 100 == 99)
		assert_int_equal(script_restart(script, 2 + i / 100 % 2, i % 3), PROTO_STATUS_OK);
	else if (cluster_volume_by_name(script->map, name))
		assert_int_equal(script_run(script, 1,
					    cluster_command_volume_delete(
						    cluster_volume_by_name(script->map, name)->id)),
				 PROTO_STATUS_OK);
	else
		assert_int_equal(
			script_run(script, 1, cluster_command_volume_create(name, 512, 0, NULL, 0)),
			PROTO_STATUS_OK);
}

static void test_maps_are_read_while_others_are_made(void **state)
{
	struct script script;
	struct shared shared = {.is_over = false};
	pthread_t readers[READERS];

	(void)state;
	assert_int_equal(pthread_mutex_init(&shared.lock, NULL), 0);
	script_start(&script);
	script_format(&script, 3, 3, 16);
	script.is_quick = true;
	script.image_every = 0;
	shared.map = cluster_map_get(script.map);
	for (unsigned i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, read_maps, &shared), 0);
	for (unsigned i = 0; i < COMMANDS; i++) {
		do_something(&script, i);
		publish(&shared, script.map, i + 1 == COMMANDS);
	}
	for (unsigned i = 0; i < READERS; i++) {
		void *bad;

		assert_int_equal(pthread_join(readers[i], &bad), 0);
		assert_null(bad);
	}
	(void)pthread_mutex_destroy(&shared.lock);
	cluster_map_put(shared.map);
	script_stop(&script);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_maps_are_read_while_others_are_made),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
