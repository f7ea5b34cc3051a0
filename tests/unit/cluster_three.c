#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/unit/cluster_three.h"

void three_start(struct three *three, uint32_t nodes, uint32_t copies)
{
	const struct cluster_pg *pg;

	script_start(&three->script);
	script_format(&three->script, nodes, copies, 8);
	pg = script_pg(&three->script, 0);
	assert_int_equal(pg->isr_count, copies);
	three->p = pg->primary;
	three->a = pg->target[1];
	three->b = copies > 2 ? pg->target[2] : 0;
}

const struct cluster_pg *three_pg(struct three *three)
{
	return script_pg(&three->script, 0);
}

const struct cluster_map *three_map(struct three *three)
{
	return three->script.map;
}

uint64_t three_now(struct three *three)
{
	return cluster_index(three->script.map);
}

enum proto_status three_shrink(struct three *three, uint32_t from, uint64_t epoch, uint32_t flags,
			       uint32_t store)
{
	return script_run_twice(&three->script, from,
				cluster_command_pg_shrink(0, epoch, flags, &store, 1));
}

enum proto_status three_takeover(struct three *three, uint32_t store, uint64_t epoch)
{
	const struct cluster_takeover row = {.pg = 0, .store = store, .epoch = epoch};

	return script_run_twice(&three->script, store, cluster_command_pg_takeover(&row, 1));
}

enum proto_status three_join(struct three *three, uint32_t from, uint32_t store)
{
	return script_run_twice(
		&three->script, from,
		cluster_command_pg_join(0, store,
					three->script.nodes[store].stores[0].incarnation));
}

enum proto_status three_expand(struct three *three, uint32_t store, uint32_t drop)
{
	const struct cluster_join *found = cluster_pg_join(three_pg(three), store);

	assert_non_null(found);
	return script_run_twice(&three->script, three_pg(three)->primary,
				cluster_command_pg_expand(0, three_pg(three)->epoch, found, drop));
}

enum cluster_health three_health(struct three *three)
{
	return cluster_pg_health(three_map(three), three_pg(three));
}

bool three_is_marked(struct three *three, uint32_t store)
{
	const struct cluster_seat *seat = cluster_pg_seat(three_pg(three), store);

	assert_non_null(seat);
	return seat->flags & CLUSTER_SEAT_MARKED;
}
