#include "tests/unit/cluster_script.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "lib/base/text.h"

void script_start(struct script *script)
{
	memset(script, 0, sizeof(*script));
	script->map = cluster_map_new();
	script->twin = cluster_map_new();
	script->image_every = 16;
	assert_non_null(script->map);
	assert_non_null(script->twin);
}

void script_stop(struct script *script)
{
	cluster_result_done(&script->result);
	cluster_map_put(script->map);
	cluster_map_put(script->twin);
}

static void check_map(const struct cluster_map *map)
{
	struct error err = {0};

	if (cluster_check(map, &err) < 0)
		fail_msg("index %llu: %s", (unsigned long long)cluster_index(map), err.text);
}

/* Through bytes and back: the same map. */
static void check_image(struct script *script)
{
	struct error err = {0};
	struct cluster_map *copy = NULL;
	uint64_t before, after, twin;
	void *data;
	size_t size;

	assert_int_equal(cluster_encode(script->map, &data, &size), 0);
	if (cluster_decode(data, size, &copy, &err) < 0)
		fail_msg("its own image: %s", err.text);
	free(data);
	assert_int_equal(cluster_digest(script->map, &before), 0);
	assert_int_equal(cluster_digest(copy, &after), 0);
	assert_int_equal(cluster_digest(script->twin, &twin), 0);
	assert_true(before == after);
	assert_true(before == twin);
	cluster_map_put(script->map);
	script->map = copy;
}

enum proto_status script_apply(struct script *script, const void *command, size_t size)
{
	struct cluster_result twin = {0};
	struct cluster_map *next, *next_twin;
	uint64_t index = cluster_index(script->map) + 1;

	cluster_result_done(&script->result);
	next = cluster_apply(script->map, index, command, size, &script->result);
	next_twin = cluster_apply(script->twin, index, command, size, &twin);
	assert_non_null(next);
	assert_non_null(next_twin);
	assert_int_equal(script->result.status, twin.status);
	assert_string_equal(script->result.text, twin.text);
	assert_int_equal(script->result.pgs.count, twin.pgs.count);
	cluster_result_done(&twin);
	cluster_map_put(script->map);
	cluster_map_put(script->twin);
	script->map = next;
	script->twin = next_twin;
	script->applied++;
	if (!script->is_quick)
		check_map(next);
	if (script->image_every && script->applied % script->image_every == 0)
		check_image(script);
	if ((script->result.status == PROTO_STATUS_OK) == (script->result.text[0] != 0))
		fail_msg("status %d with text '%s'", script->result.status, script->result.text);
	if (script->applied_one)
		script->applied_one(script, command, size);
	return script->result.status;
}

enum proto_status script_run(struct script *script, uint32_t from, struct cluster_command *command)
{
	enum proto_status status;

	assert_non_null(command);
	cluster_command_sign(command, &script->nodes[from].proposer);
	status = script_apply(script, command->data, command->size);
	cluster_command_free(command);
	return status;
}

enum proto_status script_run_twice(struct script *script, uint32_t from,
				   struct cluster_command *command)
{
	enum proto_status first;

	assert_non_null(command);
	cluster_command_sign(command, &script->nodes[from].proposer);
	first = script_apply(script, command->data, command->size);
	(void)script_apply(script, command->data, command->size);
	assert_int_equal(script->result.pgs.count, 0);
	assert_int_equal(script->result.volumes.count, 0);
	assert_int_equal(script->result.nodes.count, 0);
	assert_int_equal(script->result.stores.count, 0);
	assert_int_equal(script->result.changed, 0);
	cluster_command_free(command);
	return first;
}

static enum proto_status register_again(struct script *script, uint32_t id)
{
	struct script_node *node = &script->nodes[id];
	char address[64];
	struct text text = text_of(address, sizeof(address));
	struct cluster_register request = {
		.uuid = node->uuid,
		.cluster = *cluster_uuid(script->map),
		.incarnation = node->incarnation,
		.version_min = 1,
		.version_max = 1,
		.loops = 1,
		.address = address,
		.zone = node->zone,
		.store_count = node->store_count,
		.stores = node->stores,
	};

	text_append(&text, "127.0.0.1:%u", 7000 + id);
	node->proposer = (struct cluster_proposer){.start = node->incarnation * 1000 + id};
	if (script_run(script, id, cluster_command_register(&request)) != PROTO_STATUS_OK)
		return script->result.status;
	assert_int_equal(script->result.id, id);
	node->proposer.node = id;
	return PROTO_STATUS_OK;
}

uint32_t script_add_node(struct script *script, const char *zone, uint32_t stores)
{
	uint32_t id = ++script->node_count;
	struct script_node *node = &script->nodes[id];

	assert_true(id <= SCRIPT_NODES && stores <= ARRAY_COUNT(node->stores));
	node->uuid.bytes[0] = 1;
	node->uuid.bytes[15] = (uint8_t)id;
	node->incarnation = 1;
	assert_int_equal(text_copy(node->zone, sizeof(node->zone), zone), 0);
	node->store_count = stores;
	for (uint32_t i = 0; i < stores; i++) {
		struct cluster_register_store *store = &node->stores[i];

		*store = (struct cluster_register_store){.incarnation = 1,
							 .start = id,
							 .size_bytes = GIB,
							 .shards = 1,
							 .path = "/data"};
		store->uuid.bytes[0] = 2;
		store->uuid.bytes[14] = (uint8_t)i;
		store->uuid.bytes[15] = (uint8_t)id;
	}
	assert_int_equal(register_again(script, id), PROTO_STATUS_OK);
	return id;
}

enum proto_status script_restart(struct script *script, uint32_t id, uint32_t store_flags)
{
	struct script_node *node = &script->nodes[id];

	node->incarnation++;
	for (uint32_t i = 0; i < node->store_count; i++) {
		node->stores[i].incarnation++;
		node->stores[i].start++;
		node->stores[i].flags = store_flags;
	}
	return register_again(script, id);
}

enum proto_status script_dead(struct script *script, uint32_t from, uint32_t node)
{
	return script_run(script, from,
			  cluster_command_dead(node, script->nodes[node].incarnation));
}

void script_plan(struct script *script, uint32_t out_node)
{
	struct cluster_plan_input input = {.out_nodes = &out_node, .out_node_count = out_node != 0};
	struct cluster_command *commands[8];
	uint32_t planner = cluster_node_next(script->map, 0)->id;
	int count;

	while (!(cluster_node(script->map, planner)->flags & CLUSTER_NODE_UP))
		planner = cluster_node_next(script->map, planner)->id;
	for (unsigned round = 0; round < 10; round++) {
		count = cluster_plan(script->map, &input, commands, ARRAY_COUNT(commands));
		assert_true(count >= 0);
		if (!count)
			return;
		for (int i = 0; i < count; i++)
			assert_int_equal(script_run(script, planner, commands[i]), PROTO_STATUS_OK);
	}
	fail_msg("the plan does not come to rest");
}

void script_format(struct script *script, uint32_t nodes, uint32_t copies, uint32_t pgs)
{
	struct uuid uuid = {{9}};

	for (uint32_t i = 1; i <= nodes; i++) {
		char zone[16];
		struct text text = text_of(zone, sizeof(zone));

		text_append(&text, "z%u", i);
		(void)script_add_node(script, zone, 1);
	}
	assert_int_equal(script_run(script, 1, cluster_command_format(&uuid, copies, 0, pgs, 0)),
			 PROTO_STATUS_OK);
	script_plan(script, 0);
}

/* One step of one PG towards health. */
static bool recover_pg(struct script *script, uint32_t id)
{
	const struct cluster_pg *pg = script_pg(script, id);
	uint32_t node = cluster_pg_primary_node(script->map, pg), store = 0;
	const struct cluster_store *next;

	while ((next = cluster_store_next(script->map, store)) != NULL) {
		store = next->id;
		if (!cluster_pg_wants_join(script->map, pg, store))
			continue;
		assert_int_equal(script_run(script, node,
					    cluster_command_pg_join(id, store, next->incarnation)),
				 PROTO_STATUS_OK);
		assert_int_equal(script->result.id, cluster_index(script->map));
		return true;
	}
	if (pg->join_count) {
		assert_int_equal(
			script_run(script, node,
				   cluster_command_pg_expand(id, pg->epoch, &pg->joining[0], 0)),
			PROTO_STATUS_OK);
		return true;
	}
	store = cluster_pg_successor(script->map, pg);
	if (store)
		assert_int_equal(
			script_run(script, node, cluster_command_pg_primary(id, pg->epoch, store)),
			PROTO_STATUS_OK);
	return store != 0;
}

void script_recover(struct script *script)
{
	const struct cluster_pg *pg;
	uint32_t from = 0;

	while ((pg = cluster_pg_next(script->map, from)) != NULL) {
		uint32_t id = pg->id;

		while (recover_pg(script, id))
			;
		from = id + 1;
	}
}

uint32_t script_store(const struct script *script, uint32_t node, uint32_t nth)
{
	const struct cluster_store *store =
		cluster_store_by_uuid(script->map, &script->nodes[node].stores[nth].uuid);

	assert_non_null(store);
	return store->id;
}

const struct cluster_pg *script_pg(const struct script *script, uint32_t id)
{
	const struct cluster_pg *pg = cluster_pg(script->map, id);

	assert_non_null(pg);
	return pg;
}
