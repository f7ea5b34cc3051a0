/* The nodes of service_rig.h. */
#include "tests/unit/service_rig.h"

#include <stdio.h>

#include "lib/base/assert.h"

static void on_registered(struct proposal *proposal, enum proto_status status, const char *text,
			  uint64_t id)
{
	struct rig_node *node = container_of_type(proposal, struct rig_node, registration);

	node->registered++;
	node->registered_status = status;
	if (status == PROTO_STATUS_OK) {
		state_set_node(node->state, (uint32_t)id);
		caretaker_applied(node->caretaker, state_map(node->state));
	}
}

void rig_register(struct rig_node *node)
{
	const struct cluster_map *map = state_map(node->state);
	const struct cluster_node *known = cluster_node_by_uuid(map, &node->uuid);
	char path[16], zone[16];
	const struct cluster_register_store store = {
		.uuid = {{0x80, (uint8_t)(node->number + 1)}},
		.incarnation = known ? known->incarnation + 1 : 1,
		.start = node->start,
		.size_bytes = GIB,
		.shards = 1,
		.path = path,
	};
	const struct cluster_register request = {
		.uuid = node->uuid,
		.cluster = *cluster_uuid(map),
		.incarnation = store.incarnation,
		.version_min = 1,
		.version_max = 1,
		.loops = 1,
		.flags = LOG_REGISTER_ALONE,
		.address = "127.0.0.1:7000",
		.zone = zone,
		.store_count = 1,
		.stores = &store,
	};

	snprintf(path, sizeof(path), "/store%u", node->number);
	snprintf(zone, sizeof(zone), "zone%u", node->number);
	node->incarnation = request.incarnation;
	node->registration.done = on_registered;
	state_propose(node->state, cluster_command_register(&request), &node->registration,
		      UINT64_MAX);
}

static void on_ready(void *context)
{
	struct rig_node *node = context;

	assert_false(node->is_ready);
	node->is_ready = true;
	if (!node->is_mute)
		rig_register(node);
}

static void on_applied(void *context, struct cluster_map *map, const struct cluster_result *result)
{
	struct rig_node *node = context;
	struct error err = {0};

	assert_true(node->is_ready);
	assert_ptr_equal(map, state_map(node->state));
	if (cluster_check(map, &err) < 0)
		fail_msg("%s", err.text);
	node->applied++;
	caretaker_applied(node->caretaker, map);
}

static void on_members(void *context, const struct engine_member *members, uint32_t count)
{
	struct rig_node *node = context;

	caretaker_members(node->caretaker, members, count);
}

static void on_ended(void *context, const struct uuid *uuid, uint64_t start)
{
	struct rig_node *node = context;

	caretaker_ended(node->caretaker, uuid, start);
}

static void on_quorum(void *context, bool has_quorum)
{
}

static void on_failed(void *context, const struct error *err)
{
	struct rig_node *node = context;

	node->has_failed = true;
}

static void on_left(void *context)
{
	struct rig_node *node = context;

	node->has_left = true;
}

static const struct state_callbacks callbacks = {
	.ready = on_ready,
	.applied = on_applied,
	.members = on_members,
	.ended = on_ended,
	.quorum = on_quorum,
	.failed = on_failed,
	.left = on_left,
};

static int open_engine(void *opener, struct loop *loop, const struct engine_options *options,
		       const struct engine_callbacks *engine_callbacks, void *context,
		       struct engine **out, struct error *err)
{
	struct rig_node *node = opener;
	int rc =
		sim_engine_open(node->rig->log, loop, options, engine_callbacks, context, out, err);

	node->engine = *out;
	return rc;
}

struct rig_node *rig_start(struct rig *rig, unsigned number)
{
	struct rig_node *node = &rig->nodes[number];
	const struct loop_options loop_options = {.name = "node"};
	struct error err = {0};

	assert_null(node->state);
	node->uuid = (struct uuid){{(uint8_t)(number + 1)}};
	node->start = random_u64(sim_random(rig->world)) | 1;
	node->is_ready = node->has_left = node->has_failed = false;
	node->applied = 0;
	node->registered = 0;
	assert_int_equal(sim_loop_new(rig->world, node->host, &loop_options, &node->loop), 0);
	const struct state_options options = {
		.loop = node->loop,
		.open_engine = open_engine,
		.opener = node,
		.node = node->uuid,
		.start = node->start,
		.callbacks = &callbacks,
		.context = node,
	};
	if (state_open(&options, &node->state, &err) < 0)
		fail_msg("%s", err.text);
	node->caretaker = caretaker_new(node->loop, node->state, &node->uuid);
	assert_non_null(node->caretaker);
	return node;
}

static void stop(struct rig_node *node)
{
	caretaker_stop(node->caretaker);
	state_leave(node->state);
	for (unsigned i = 0; i < 1000 && !node->has_left; i++)
		rig_run(node->rig, 10);
	assert_true(node->has_left);
	caretaker_free(node->caretaker);
	state_free(node->state);
	node->state = NULL;
}

/*
 * The memory of a process that is gone stays behind, as its engine and loop are no more and the state
 * cannot be taken apart: the rig frees what it can reach.
 */
void rig_crash(struct rig *rig, unsigned number, enum sim_death death)
{
	struct rig_node *node = &rig->nodes[number];

	caretaker_free(node->caretaker);
	sim_engine_crash(node->engine, death);
	state_forget(node->state);
	sim_host_crash(node->host);
	node->state = NULL;
	node->loop = NULL;
}

struct rig *rig_new(const struct sim_log_options *options, uint64_t seed)
{
	static const char *const names[RIG_NODES] = {"a", "b", "c", "d"};
	const struct sim_log_options exact = {
		.seed = seed, .delay_min_ns = NS_PER_MS, .delay_max_ns = 2 * NS_PER_MS};
	struct rig *rig = calloc(1, sizeof(*rig));

	assert_non_null(rig);
	rig->world = sim_world_new(seed);
	rig->log = sim_log_new(options ? options : &exact);
	for (unsigned i = 0; i < RIG_NODES; i++) {
		rig->nodes[i].rig = rig;
		rig->nodes[i].number = i;
		rig->nodes[i].host = sim_host_new(rig->world, names[i]);
	}
	return rig;
}

void rig_free(struct rig *rig)
{
	for (unsigned i = 0; i < RIG_NODES; i++)
		if (rig->nodes[i].state)
			stop(&rig->nodes[i]);
	sim_world_free(rig->world);
	sim_log_free(rig->log);
	free(rig);
}

void rig_run(struct rig *rig, uint64_t ms)
{
	(void)sim_world_run_until(rig->world, sim_now(rig->world) + ms * NS_PER_MS, NULL, NULL);
}

void rig_start_all(struct rig *rig, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct rig_node *node = rig_start(rig, i);
		for (unsigned turns = 0; turns < 1000 && !node->registered; turns++)
			rig_run(rig, 10);
		assert_int_equal(node->registered_status, PROTO_STATUS_OK);
	}
	rig_run(rig, 20);
}

const struct cluster_node *rig_see(const struct rig_node *who, const struct rig_node *whom)
{
	return cluster_node_by_uuid(state_map(who->state), &whom->uuid);
}

bool rig_sees_up(const struct rig_node *who, const struct rig_node *whom)
{
	const struct cluster_node *node = rig_see(who, whom);

	return node && (node->flags & CLUSTER_NODE_UP);
}

static void on_done(struct proposal *proposal, enum proto_status status, const char *text,
		    uint64_t id)
{
	struct rig_proposal *mine = container_of_type(proposal, struct rig_proposal, proposal);

	mine->done++;
	mine->status = status;
	mine->id = id;
	snprintf(mine->text, sizeof(mine->text), "%s", text);
	mine->index_when_done = cluster_index(state_map(mine->node->state));
}

void rig_propose(struct rig_node *node, struct rig_proposal *proposal,
		 struct cluster_command *command, uint64_t ms)
{
	*proposal = (struct rig_proposal){.proposal.done = on_done, .node = node};
	state_propose(node->state, command, &proposal->proposal,
		      ms == UINT64_MAX ? ms : loop_now(node->loop) + ms * NS_PER_MS);
	assert_int_equal(proposal->done, 0); /* never inside */
}

void rig_format(struct rig *rig, unsigned copies)
{
	const struct uuid uuid = {{9}};
	struct rig_proposal format;

	rig_propose(&rig->nodes[0], &format, cluster_command_format(&uuid, copies, 1, 16, 0), 5000);
	for (unsigned i = 0; i < 500 && !format.done; i++)
		rig_run(rig, 10);
	assert_int_equal(format.status, PROTO_STATUS_OK);
}
