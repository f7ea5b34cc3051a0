/*
 * What the daemon does around a node of the herd, in small: registration, deaths, placement, and
 * giving each new map to those who live by it.
 */
#include "tests/sim/herd_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "include/proto/peer.h"
#include "lib/base/assert.h"
#include "lib/base/rule.h"
#include "lib/base/size.h"

/* ---- proposals ---- */

void herd_propose_by(void *context, struct cluster_command *command)
{
	struct herd_node *node = context;

	if (!command)
		return;
	cluster_command_sign(command, &node->proposer);
	(void)engine_propose(node->engine, command->data, command->size);
	cluster_command_free(command);
}

int herd_propose_for_hub(void *context, struct cluster_command *command, void *token)
{
	struct herd_node *node = context;

	struct herd_command *mine = malloc(sizeof(*mine));

	HERD_REQUIRE(node->herd, mine);
	cluster_command_sign(command, &node->proposer);
	*mine = (struct herd_command){
		.command = command, .sequence = node->proposer.sequence, .token = token};
	cds_list_add_tail(&mine->link, &node->commands);
	(void)engine_propose(node->engine, command->data, command->size);
	return 0;
}

void herd_command_free(struct herd_command *command)
{
	cds_list_del(&command->link);
	cluster_command_free(command->command);
	free(command);
}

static void note_hub_decision(struct herd_node *node, const struct cluster_result *result)
{
	struct herd_command *mine, *next;

	if (result->start != node->start)
		return;
	cds_list_for_each_entry_safe(mine, next, &node->commands, link) {
		void *token = mine->token;
		if (result->sequence != mine->sequence)
			continue;
		herd_command_free(mine);
		gateway_hub_decided(node->hub, token, result->status == PROTO_STATUS_OK);
		return;
	}
}

/* ---- registration ---- */

/* As the daemon's note tells: the same directory, since the last boot, as the start that is registered. */
static bool is_held(const struct herd_node *node)
{
	const struct cluster_store *known =
		cluster_store_by_uuid(node->map, &store_identity(node->store)->uuid);

	return !node->herd->has_no_notes && known && node->noted_incarnation &&
	       known->incarnation == node->noted_incarnation;
}

static void register_self(struct herd_node *node)
{
	const struct cluster_register_store store = {
		.uuid = store_identity(node->store)->uuid,
		.incarnation = node->store_incarnation,
		.start = node->start,
		.size_bytes = node->herd->options.store_bytes,
		.shards = store_identity(node->store)->shards,
		.flags = (store_identity(node->store)->is_new ||
					  store_identity(node->store)->lost_log
				  ? LOG_STORE_NEW
				  : 0) |
			 (node->says_unclean || node->was_cut ? LOG_STORE_UNCLEAN : 0) |
			 (is_held(node) ? LOG_STORE_HELD : 0),
		.path = "/disk",
	};
	const struct cluster_register request = {
		.uuid = node->uuid,
		.cluster = store_identity(node->store)->cluster,
		.incarnation = node->incarnation,
		.version_min = PEER_VERSION_MIN,
		.version_max = PEER_VERSION_MAX,
		.loops = 1,
		.address = node->address,
		.zone = node->name,
		.store_count = 1,
		.stores = &store,
	};

	herd_propose_by(node, cluster_command_register(&request));
}

static void note_registration(struct herd_node *node)
{
	const struct cluster_node *row = cluster_node_by_uuid(node->map, &node->uuid);
	const struct uuid uuid = store_identity(node->store)->uuid;
	const struct cluster_store *store = cluster_store_by_uuid(node->map, &uuid);

	if (!row || row->start != node->start)
		return;
	node->session = row->session;
	if (!node->id) {
		struct wire_identity identity = *net_identity(node->net);
		node->id = row->id;
		node->proposer.node = row->id;
		identity.node_id = row->id;
		net_set_identity(node->net, &identity);
	}
	if (!node->store_id && store && store->incarnation == node->store_incarnation) {
		struct error err;
		node->store_id = store->id;
		node->was_cut = false;
		node->noted_incarnation = node->store_incarnation;
		SIM_POINT(REGISTERED);
		if (store_identity(node->store)->lost_log)
			(void)store_clear_lost_log(node->store, &err);
		HERD_REQUIRE(node->herd, pg_set_add_store(node->set, node->store, store->id,
							  node->store_incarnation) == 0);
	}
}

static void note_cluster(struct herd_node *node)
{
	struct error err;

	if (!cluster_is_formatted(node->map) ||
	    uuid_is_equal(&net_identity(node->net)->cluster, cluster_uuid(node->map)))
		return;
	struct wire_identity identity = *net_identity(node->net);
	identity.cluster = *cluster_uuid(node->map);
	net_set_identity(node->net, &identity);
	if (uuid_is_null(&store_identity(node->store)->cluster))
		HERD_REQUIRE(node->herd,
			     store_set_cluster(node->store, &identity.cluster, &err) == 0);
}

/* ---- the log ---- */

static void publish(struct herd_node *node, struct cluster_map *map, const uint64_t *pgs,
		    uint32_t count)
{
	cluster_map_put(node->map);
	node->map = map;
	note_registration(node);
	note_cluster(node);
	store_set_deadline(node->store, cluster_setting_ns(map, CLUSTER_SETTING_STORE_DEADLINE));
	pg_peers_apply(node->peers, map);
	pg_set_apply(node->set, map, pgs, count);
	gateway_apply(node->gateway, map, node->id, node->session);
	gateway_hub_apply(node->hub, map, node->session);
}

static void on_commit(void *context, uint64_t index, const void *command, uint32_t size)
{
	struct herd_node *node = context;
	struct cluster_result result = {0};
	struct error err;
	struct cluster_map *map = cluster_apply(node->map, index, command, size, &result);

	HERD_REQUIRE(node->herd, map);
	log_debug("log %llu: %s: %s %s", (unsigned long long)index,
		  cluster_command_name(result.type), wire_status_name(result.status), result.text);
	if (cluster_check(map, &err) < 0)
		herd_fail(node->herd, "%s after log entry %llu: %s", node->name,
			  (unsigned long long)index, err.text);
	publish(node, map, result.pgs.ids, result.pgs.count);
	note_hub_decision(node, &result);
	cluster_result_done(&result);
	if (node->herd->applied && index > node->herd->applied_index) {
		node->herd->applied_index = index;
		node->herd->applied(node->herd, node);
	}
}

static int on_install(void *context, uint64_t index, const void *image, size_t size,
		      struct error *err)
{
	struct herd_node *node = context;
	struct cluster_map *map;
	int rc = cluster_decode(image, size, &map, err);

	if (rc < 0)
		return rc;
	publish(node, map, NULL, 0);
	return 0;
}

static int on_snapshot(void *context, struct engine_image *out)
{
	struct herd_node *node = context;

	return cluster_encode(node->map, &out->data, &out->size);
}

static void on_ready(void *context)
{
	struct herd_node *node = context;

	node->is_ready = true;
	register_self(node);
}

static void on_members(void *context, const struct engine_member *members, uint32_t count)
{
	(void)context;
	(void)members;
	(void)count;
}

static void on_ended(void *context, const struct uuid *uuid, uint64_t start, enum engine_end how)
{
	struct herd_node *node = context;

	(void)how;
	if (node->ended_count == ARRAY_COUNT(node->ended))
		return;
	node->ended[node->ended_count].node = *uuid;
	node->ended[node->ended_count].start = start;
	node->ended_count++;
	loop_timer_start(node->loop, &node->timer, loop_now(node->loop));
}

static void on_quorum(void *context, bool has_quorum)
{
	(void)context;
	(void)has_quorum;
}

static void on_failed(void *context, const struct error *err)
{
	struct herd_node *node = context;

	herd_fail(node->herd, "%s: engine: %s", node->name, err->text);
}

static void on_left(void *context)
{
	(void)context;
}

const struct engine_callbacks herd_engine_callbacks = {
	.commit = on_commit,
	.install = on_install,
	.snapshot = on_snapshot,
	.ready = on_ready,
	.members = on_members,
	.ended = on_ended,
	.quorum = on_quorum,
	.failed = on_failed,
	.left = on_left,
};

/* ---- ticks ---- */

static void propose_deaths(struct herd_node *node)
{
	unsigned i = 0;

	while (i < node->ended_count) {
		const struct cluster_node *row =
			cluster_node_by_uuid(node->map, &node->ended[i].node);
		if (!row || row->start != node->ended[i].start || !(row->flags & CLUSTER_NODE_UP)) {
			node->ended[i] = node->ended[--node->ended_count];
			continue;
		}
		herd_propose_by(node, cluster_command_dead(row->id, row->incarnation));
		i++;
	}
}

static bool is_planner(const struct herd_node *node)
{
	const struct cluster_node *row = NULL;

	if (!node->id || !cluster_is_formatted(node->map))
		return false;
	for (uint32_t id = 0; (row = cluster_node_next(node->map, id)); id = row->id)
		if (row->flags & CLUSTER_NODE_UP)
			return row->id == node->id;
	return false;
}

void herd_ticked(struct loop_timer *timer)
{
	struct herd_node *node = container_of_type(timer, struct herd_node, timer);
	const struct cluster_node *row = cluster_node_by_uuid(node->map, &node->uuid);
	struct herd_command *command;

	if (node->is_ready && (!row || row->start != node->start))
		register_self(node);
	cds_list_for_each_entry(command, &node->commands, link)
		(void)engine_propose(node->engine, command->command->data, command->command->size);
	propose_deaths(node);
	if (is_planner(node)) {
		struct cluster_command *commands[8];
		const struct cluster_plan_input input = {
			.out_nodes = node->herd->out_nodes,
			.out_node_count = node->herd->out_node_count,
			.out_stores = node->herd->out_stores,
			.out_store_count = node->herd->out_store_count,
		};
		int count = cluster_plan(node->map, &input, commands, ARRAY_COUNT(commands));
		for (int i = 0; i < count; i++)
			herd_propose_by(node, commands[i]);
	}
	loop_timer_start(node->loop, timer, loop_now(node->loop) + HERD_TICK_NS);
}
