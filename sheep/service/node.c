/*
 * The life of a sheep from when it is open until it serves; open.c is before, stop.c after.
 *
 * Always true: (1) nothing is acknowledged before our own registration has been applied here
 * (R1); (2) a store's incarnation is raised on disk before it is registered, but for a restored
 * store's; (3) the engine's loop is worker 0's, and only there are state, hub, caretaker and this
 * file's functions called once the loops run.
 */
#include "sheep/service/node.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

#include "include/proto/peer.h"
#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "sheep/service/admin.h"
#include "sheep/service/exports.h"
#include "sheep/service/figures.h"
#include "sheep/service/identity.h"
#include "sheep/service/node_priv.h"
#include "sheep/service/note.h"

/* Registration waits for quorum as long as it takes. */
#define FOR_EVER UINT64_MAX

static const uint8_t phase_next[NODE_PHASE_COUNT] = {
	[NODE_JOINING] = BIT(NODE_REGISTERING) | BIT(NODE_STOPPING),
	[NODE_REGISTERING] = BIT(NODE_RUNNING) | BIT(NODE_STOPPING),
	[NODE_RUNNING] = BIT(NODE_STOPPING),
	[NODE_STOPPING] = BIT(NODE_STOPPED),
};

static const char *const phase_names[NODE_PHASE_COUNT] = {
	"joining", "registering", "running", "stopping", "stopped",
};

/* The line that `systemctl status` shows. */
static void tell_systemd(const struct node *node, const char *why)
{
	bool is_stuck =
		node->state && node->phase < NODE_STOPPING && !state_has_quorum(node->state);

	(void)sd_notifyf(0, "STATUS=%s: %s%s", phase_names[node->phase], why,
			 is_stuck ? "; no quorum: nothing can be changed" : "");
}

void node_enter(struct node *node, enum node_phase next, const char *why)
{
	assert(phase_next[node->phase] & BIT(next));
	log_info("sheep: %s -> %s: %s", phase_names[node->phase], phase_names[next], why);
	node->phase = next;
	tell_systemd(node, why);
}

bool node_is_serving(const struct node *node)
{
	return node->phase == NODE_RUNNING ||
	       (node->phase == NODE_STOPPING && node->stop_stage == 0 && node->session);
}

void node_fail(struct node *node, const struct error *err)
{
	if (node->failure.code == 0)
		node->failure = *err;
	log_error("sheep: %s", err->text);
	node_stop(node, "it cannot go on");
}

/* ---- who we are ---- */

struct wire_identity node_identity(const struct node *node)
{
	struct wire_identity identity = {
		.node = node->uuid,
		.node_id = node->id,
		.incarnation = node->incarnation,
		.nonce = node->start,
		.loops = (uint16_t)node->worker_count,
	};

	if (node->state && cluster_is_formatted(state_map(node->state)))
		identity.cluster = *cluster_uuid(state_map(node->state));
	return identity;
}

/* ---- stores against the cluster ---- */

static int check_cluster(const struct node *node, const struct cluster_map *map, struct error *err)
{
	char theirs[UUID_TEXT_SIZE], ours[UUID_TEXT_SIZE];

	for (unsigned i = 0; i < node->store_count; i++) {
		const struct store *store = node->stores[i].store;
		const struct uuid *stamp = &store_identity(store)->cluster;
		if (uuid_is_null(stamp))
			continue;
		if (!cluster_is_formatted(map))
			return error_set(
				err, -E_WRONG_CLUSTER,
				"store '%s' belongs to cluster %s, and the cluster at '%s' "
				"is not formatted: is --cluster right?",
				store_path(store), uuid_format(stamp, theirs),
				node->settings->cluster);
		if (!uuid_is_equal(stamp, cluster_uuid(map)))
			return error_set(
				err, -E_WRONG_CLUSTER,
				"store '%s' belongs to cluster %s, and the cluster at '%s' "
				"is %s",
				store_path(store), uuid_format(stamp, theirs),
				node->settings->cluster, uuid_format(cluster_uuid(map), ours));
	}
	if (node->wrong_log.code < 0) {
		*err = node->wrong_log;
		return err->code;
	}
	if (cluster_level(map) > pg_peer_protocol.version_max)
		return error_set(err, -E_WRONG_VERSION,
				 "the cluster is at level %u, and this sheep speaks peer protocol "
				 "%u to %u: use a newer one",
				 cluster_level(map), pg_peer_protocol.version_min,
				 pg_peer_protocol.version_max);
	return 0;
}

int node_explain(const struct node *node, int rc, struct error *err)
{
	char text[UUID_TEXT_SIZE];

	for (unsigned i = 0; rc == -E_WRONG_CLUSTER && i < node->store_count; i++) {
		const struct store *store = node->stores[i].store;
		const struct uuid *stamp = &store_identity(store)->cluster;
		if (!uuid_is_null(stamp))
			return error_wrap(err, rc, "store '%s' belongs to cluster %s",
					  store_path(store), uuid_format(stamp, text));
	}
	return rc;
}

/*
 * The cluster is formatted: from now on this node has something to lose. It takes part in no other log (an empty engine
 * must not found a new one), and its stores are stamped.
 */
static int stamp_stores(struct node *node, const struct cluster_map *map, struct error *err)
{
	const struct uuid log = state_log(node->state);

	if (!uuid_is_equal(&node->log, &log)) {
		unsigned count;
		char *const *paths = node_directories(node, &count);
		int rc = identity_keep_log(node->workers[0].loop, paths, count, &log, err);
		if (rc < 0)
			return rc;
		node->log = log;
	}
	for (unsigned i = 0; i < node->store_count; i++) {
		struct store *store = node->stores[i].store;
		if (!uuid_is_null(&store_identity(store)->cluster))
			continue;
		int rc = store_set_cluster(store, cluster_uuid(map), err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* ---- registration ---- */

/* Take over ids and session as the map has them. False: it does not have us. */
static bool find_ourselves(struct node *node, const struct cluster_map *map)
{
	const struct cluster_node *self = cluster_node_by_uuid(map, &node->uuid);

	if (!self || self->start != node->start || !(self->flags & CLUSTER_NODE_UP))
		return false;
	node->id = self->id;
	node->session = self->session;
	for (unsigned i = 0; i < node->store_count; i++) {
		struct node_store *store = &node->stores[i];
		const struct cluster_store *mine =
			cluster_store_by_uuid(map, &store_identity(store->store)->uuid);
		store->id = mine ? mine->id : 0;
	}
	return true;
}

/* What the log knows now need not be told again, and may be on disk. */
static int confirm_registration(struct node *node, struct error *err)
{
	for (unsigned i = 0; i < node->store_count; i++) {
		struct node_store *store = &node->stores[i];
		int rc = 0;
		if (store->is_stale)
			rc = store_set_incarnation(store->store, store->incarnation, err);
		if (rc == 0 && store_identity(store->store)->lost_log)
			rc = store_clear_lost_log(store->store, err);
		if (rc < 0)
			return rc;
		store_set_unclean(store->store, false);
	}
	return 0;
}

/* From here on our stores acknowledge: the notes of earlier starts must be gone by then. */
static int publish_notes(struct node *node, struct error *err)
{
	struct loop *loop = node->workers[0].loop;

	for (unsigned i = 0; i < node->store_count; i++) {
		struct node_store *store = &node->stores[i];
		struct error why = {0};
		if (store->note &&
		    note_publish(store->note, loop, node->note_dir, store->store, &why) == 0)
			continue;
		if (store->note) /* only the next start pays: it fills its copies again, by lists */
			log_warning("%s: after a crash it will count as unclean", why.text);
		int rc = note_remove(loop, node->note_dir, store->store, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static void start_serving(struct node *node)
{
	struct error err = {0};
	int rc = confirm_registration(node, &err);

	if (rc < 0) {
		node_fail(node, &err);
		return;
	}
	rc = publish_notes(node, &err);
	if (rc == 0 && cluster_is_formatted(state_map(node->state)))
		rc = stamp_stores(node, state_map(node->state), &err);
	if (rc == 0) {
		node_publish_stores(node);
		node_publish(node, state_map(node->state), NULL);
		rc = node_listen_clients(node, &err);
	}
	if (rc < 0)
		node_fail(node, &err);
}

/* Whether the command came by itself or in an image: it is for every session before it. */
static void obey_shutdown(struct node *node, const struct cluster_map *map)
{
	if (cluster_shutdown_index(map) > node->session)
		node_stop(node, "cluster shutdown");
}

static void on_registered(struct proposal *proposal, enum proto_status status, const char *text,
			  uint64_t id)
{
	struct node *node = container_of_type(proposal, struct node, register_proposal);
	struct error err = {0};

	if (status == PROTO_STATUS_OK) {
		state_set_node(node->state, (uint32_t)id);
		caretaker_applied(node->caretaker, state_map(node->state)); /* it may act now */
	}
	if (node->phase != NODE_REGISTERING) {
		/* We stop already; the log has us all the same, and is to hear that we leave. */
		if (status == PROTO_STATUS_OK)
			(void)find_ourselves(node, state_map(node->state));
		return;
	}
	if (status != PROTO_STATUS_OK || !find_ourselves(node, state_map(node->state))) {
		error_set(&err, -E_STALE, "the cluster refuses this sheep: %s", text);
		node_fail(node, &err);
		return;
	}
	node_enter(node, NODE_RUNNING, "registered");
	start_serving(node);
	admin_resume(node->admin);
	if (node->phase == NODE_RUNNING)
		obey_shutdown(node, state_map(node->state));
}

/*
 * A store that is behind the cluster's memory of it is a restored one: it registers as new (R2). Its own
 * number stays what it is until that is in the log, so that a start after a crash sees it, too.
 */
static int raise_incarnations(struct node *node, struct error *err)
{
	for (unsigned i = 0; i < node->store_count; i++) {
		struct node_store *store = &node->stores[i];
		const struct store_identity *identity = store_identity(store->store);
		const struct cluster_store *known =
			cluster_store_by_uuid(state_map(node->state), &identity->uuid);
		store->is_stale = known && identity->incarnation < known->incarnation;
		store->incarnation =
			(store->is_stale ? known->incarnation : identity->incarnation) + 1;
		store->is_held = known && !store->is_stale && store->held &&
				 store->held == known->incarnation;
		if (store->is_stale) {
			log_warning(
				"store '%s': was started %llu times, and the cluster knows of "
				"start %llu: restored from a backup? Its copies are filled again",
				store_path(store->store), (unsigned long long)identity->incarnation,
				(unsigned long long)known->incarnation);
			continue;
		}
		int rc = store_set_incarnation(store->store, store->incarnation, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/*
 * Others may have more of everything, what was flushed included: so it cannot be elected. A log of which a
 * synced part is lost ends too early for that, too (R4).
 */
static bool is_unbelievable(const struct node_store *store)
{
	const struct store_identity *identity = store_identity(store->store);

	return identity->is_new || identity->lost_log || store->is_stale;
}

static struct cluster_command *register_command(const struct node *node)
{
	const struct cluster_map *map = state_map(node->state);
	struct cluster_register_store rows[SETTINGS_LIST_MAX];
	struct cluster_register request = {
		.uuid = node->uuid,
		.incarnation = node->incarnation,
		.version_min = pg_peer_protocol.version_min,
		.version_max = pg_peer_protocol.version_max,
		.loops = node->worker_count,
		/* `local` lets a node in only when the lock of its earlier start is free. */
		.flags = strcmp(state_engine_name(node->state), "local") == 0 ? LOG_REGISTER_ALONE
									      : 0,
		.address = net_listener_address(node->peer_listener),
		.zone = node->settings->zone,
		.store_count = node->store_count,
		.stores = rows,
	};

	if (cluster_is_formatted(map))
		request.cluster = *cluster_uuid(map);
	for (unsigned i = 0; i < node->store_count; i++) {
		const struct node_store *store = &node->stores[i];
		const struct store_identity *identity = store_identity(store->store);
		struct store_space space;
		store_space(store->store, &space);
		rows[i] = (struct cluster_register_store){
			.uuid = identity->uuid,
			.incarnation = store->incarnation,
			.start = store->start,
			.size_bytes = space.size_bytes,
			.shards = identity->shards,
			.flags = (store->is_unclean ? LOG_STORE_UNCLEAN : 0u) |
				 (is_unbelievable(store) ? LOG_STORE_NEW : 0u) |
				 (store->is_held ? LOG_STORE_HELD : 0u),
			.path = store_path(store->store),
		};
	}
	return cluster_command_register(&request);
}

/* ---- what the cluster's state tells ---- */

static void on_ready(void *context)
{
	struct node *node = context;
	const struct cluster_map *map = state_map(node->state);
	const struct cluster_node *self = cluster_node_by_uuid(map, &node->uuid);
	struct error err = {0};
	int rc = check_cluster(node, map, &err);

	if (node->phase != NODE_JOINING)
		return;
	if (rc == 0)
		rc = raise_incarnations(node, &err);
	if (rc < 0) {
		node_fail(node, &err);
		return;
	}
	node->incarnation = self ? self->incarnation + 1 : 1;
	node_enter(node, NODE_REGISTERING, "the log has been read");
	node->register_proposal.done = on_registered;
	state_propose(node->state, register_command(node), &node->register_proposal, FOR_EVER);
}

static void on_applied(void *context, struct cluster_map *map, const struct cluster_result *result)
{
	struct node *node = context;
	struct error err = {0};

	caretaker_applied(node->caretaker, map);
	if (!node_is_serving(node))
		return;
	bool is_us = find_ourselves(node, map);
	/* Also after an image: the entry of the format itself may never come. */
	if (cluster_is_formatted(map) && stamp_stores(node, map, &err) < 0) {
		node_fail(node, &err);
		return;
	}
	node_publish(node, map, result);
	if (node->phase != NODE_RUNNING)
		return;
	if (!is_us) {
		error_set(&err, -E_STALE_SESSION,
			  "the cluster took this sheep for dead: start it again");
		node_fail(node, &err);
	} else {
		obey_shutdown(node, map);
	}
}

static void on_members(void *context, const struct engine_member *members, uint32_t count)
{
	struct node *node = context;

	caretaker_members(node->caretaker, members, count);
}

static void on_ended(void *context, const struct uuid *uuid, uint64_t start)
{
	struct node *node = context;

	caretaker_ended(node->caretaker, uuid, start);
}

static void on_quorum(void *context, bool has_quorum)
{
	struct node *node = context;

	tell_systemd(node, has_quorum ? "with quorum" : "waiting");
	if (has_quorum && node_is_serving(node))
		node_ask_again(node);
}

static void on_engine_failed(void *context, const struct error *err)
{
	struct node *node = context;
	struct error why = *err;

	(void)node_explain(node, why.code, &why);
	node_fail(node, &why);
}

static void on_left(void *context)
{
	struct node *node = context;

	node_left(node);
}

const struct state_callbacks node_state_callbacks = {
	.ready = on_ready,
	.applied = on_applied,
	.members = on_members,
	.ended = on_ended,
	.quorum = on_quorum,
	.failed = on_engine_failed,
	.left = on_left,
};

/* ---- running ---- */

static void *run_worker(void *context)
{
	struct worker *worker = context;

	return (void *)(intptr_t)loop_run(worker->loop);
}

static void join_worker(struct worker *worker)
{
	if (!worker->has_thread)
		return;
	loop_stop(worker->loop);
	(void)pthread_join(worker->thread, NULL);
	worker->has_thread = false;
}

int node_run(struct node *node, struct error *err)
{
	int rc = 0;

	for (unsigned i = 1; i < node->worker_count && rc == 0; i++) {
		rc = -pthread_create(&node->workers[i].thread, NULL, run_worker, &node->workers[i]);
		node->workers[i].has_thread = rc == 0;
	}
	if (rc < 0) {
		error_set(err, rc, "thread of a loop");
		for (unsigned i = 1; i < node->worker_count; i++)
			join_worker(&node->workers[i]);
		return rc;
	}
	rc = loop_run(node->workers[0].loop);
	for (unsigned i = 1; i < node->worker_count; i++)
		join_worker(&node->workers[i]);
	if (rc < 0)
		return error_set(err, rc, "loop");
	if (node->failure.code < 0) {
		*err = node->failure;
		return node->failure.code;
	}
	return 0;
}

void node_free(struct node *node)
{
	if (!node)
		return;
	if (node->phase != NODE_STOPPED && !node->is_abandoned)
		return; /* it broke in mid-flight, and the process ends: there is nothing to take apart */
	admin_free(node->admin);
	caretaker_free(node->caretaker);
	state_free(node->state);
	for (unsigned i = 0; i < node->worker_count; i++) {
		struct worker *worker = &node->workers[i];
		exports_free(worker->exports);
		gateway_free(worker->gateway);
		pg_set_free(worker->set);
		pg_peers_free(worker->peers);
		cluster_map_put(worker->map);
	}
	gateway_hub_free(node->hub);
	for (unsigned i = 0; i < node->store_count; i++) {
		store_close(node->stores[i].store);
		note_close(node->stores[i].note, node->workers[0].loop);
	}
	for (unsigned i = 0; i < node->worker_count; i++) {
		net_free(node->workers[i].net);
		loop_free(node->workers[i].loop);
	}
	if (node->signal_fd >= 0)
		(void)close(node->signal_fd);
	figures_free(node->figures);
	links_free(node->links);
	free(node->note_dir);
	free(node->stores);
	free(node->sets);
	free(node->loops);
	free(node->workers);
	free(node);
}
