/*
 * `cluster health`: what is wrong, what that means, what to do; one problem for each cause, not for each
 * effect. From the map and what the other sheep tell; what PGs have to say is in health_pgs.c.
 *
 *   error     data cannot be reached, or soon cannot be written
 *   warning   less is safe than should be; somebody should act, or wait and see that it passes
 *   note      worth knowing; loss that was accepted or suffered stays here for ever
 */
#include "sheep/service/health.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/size.h"
#include "lib/base/text.h"

/* Of a store's size: below it is nearly full. */
#define FREE_LOW_PERCENT 15
#define FREE_MIN_PERCENT 4

static const char *const severity_names[] = {
	[HEALTH_ERROR] = "error", [HEALTH_WARNING] = "warning", [HEALTH_NOTE] = "note"};

/* ---- one problem ---- */

static void set_text(struct json_object *problem, const char *key, const char *format, va_list ap)
{
	char words[1024];

	vsnprintf(words, sizeof(words), format, ap);
	json_object_object_add(problem, key, json_object_new_string(words));
}

struct json_object *health_add(struct health *health, enum health_severity severity,
			       const char *format, ...)
{
	struct json_object *problem = json_object_new_object();
	va_list ap;

	json_object_object_add(problem, "severity",
			       json_object_new_string(severity_names[severity]));
	va_start(ap, format);
	set_text(problem, "what", format, ap);
	va_end(ap);
	json_object_object_add(problem, "meaning", json_object_new_string(""));
	json_object_object_add(problem, "action", json_object_new_string(""));
	json_object_object_add(problem, "pgs", json_object_new_array());
	json_object_object_add(problem, "stores", json_object_new_array());
	json_object_object_add(problem, "nodes", json_object_new_array());
	json_object_array_add(health->problems[severity], problem);
	return problem;
}

void health_means(struct json_object *problem, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	set_text(problem, "meaning", format, ap);
	va_end(ap);
}

void health_do(struct json_object *problem, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	set_text(problem, "action", format, ap);
	va_end(ap);
}

void health_name_store(struct json_object *problem, const struct cluster_store *store)
{
	char uuid[UUID_TEXT_SIZE];

	json_object_array_add(json_object_object_get(problem, "stores"),
			      json_object_new_string(uuid_format(&store->uuid, uuid)));
}

static void name_node(struct json_object *problem, const struct cluster_node *node)
{
	json_object_array_add(json_object_object_get(problem, "nodes"),
			      json_object_new_uint64(node->id));
}

const char *health_span(uint64_t ns, char out[HEALTH_SPAN_MAX])
{
	struct text text = text_of(out, HEALTH_SPAN_MAX);
	uint64_t seconds = ns / NS_PER_S;

	if (seconds < 120)
		text_append(&text, "%llu s", (unsigned long long)seconds);
	else if (seconds < 7200)
		text_append(&text, "%llu min", (unsigned long long)(seconds + 30) / 60);
	else
		text_append(&text, "%llu h", (unsigned long long)seconds / 3600);
	return out;
}

/* ---- nodes ---- */

static bool has_stores(const struct cluster_map *map, uint32_t node)
{
	const struct cluster_store *store;

	for (store = cluster_store_next(map, 0); store; store = cluster_store_next(map, store->id))
		if (store->node == node)
			return true;
	return false;
}

/* Its share is elsewhere, or should be. */
static void say_out(struct json_object *problem, const struct cluster_node *node,
		    const struct node_use *use)
{
	if (use->targets) {
		health_means(problem,
			     "%u copies should be made elsewhere, but no other store can "
			     "take them",
			     use->targets);
		health_do(problem, "start it, or add stores");
		return;
	}
	health_means(problem,
		     "its share has been given to other stores; %u copies are still needed "
		     "of it",
		     use->seats);
	if (use->seats)
		health_do(problem, "start it if you can");
	else
		health_do(problem, "start it, or forget it: collie node remove %u", node->id);
}

static void say_node_down(struct health *health, const struct cluster_node *node)
{
	const struct node_use *use = node_use(&health->uses, node->id);
	uint64_t interval = cluster_setting_ns(health->map, CLUSTER_SETTING_DOWN_OUT_INTERVAL);
	uint64_t down = caretaker_down_ns(health->node->caretaker, node->id);
	bool is_gateway = !has_stores(health->map, node->id);
	char since[HEALTH_SPAN_MAX], left[HEALTH_SPAN_MAX];
	struct json_object *problem =
		health_add(health, is_gateway ? HEALTH_NOTE : HEALTH_WARNING,
			   "node %u (%s, zone %s) has been down for %s or more", node->id,
			   node->address, node->zone, health_span(down, since));

	name_node(problem, node);
	if (is_gateway) {
		health_means(problem, "it has no store: only the clients that used it miss it");
		health_do(problem, "start it, or forget it: collie node remove %u", node->id);
	} else if (use->targets == 0 || down >= interval) {
		say_out(problem, node, use);
	} else {
		health_means(problem,
			     "%u copies of data are not kept up; if it stays away they are made "
			     "elsewhere in %s",
			     use->targets, health_span(interval - down, left));
		health_do(problem,
			  "start it: it then gets what it missed and nothing else. To have its "
			  "share made elsewhere now: collie node drain %u",
			  node->id);
	}
}

static void say_draining(struct health *health, const struct cluster_node *node)
{
	const struct node_use *use = node_use(&health->uses, node->id);
	struct json_object *problem =
		health_add(health, HEALTH_NOTE, "node %u (%s) is draining: %u copies are left",
			   node->id, node->address, use->seats);

	name_node(problem, node);
	if (use->targets) {
		health_means(problem, "for %u of them there is no other store", use->targets);
		health_do(problem, "add a node or a store, or: collie node undrain %u", node->id);
	} else if (use->seats) {
		health_means(problem, "it stays in sync until each copy is complete elsewhere");
		health_do(problem, "wait; collie recovery info shows how long");
	} else {
		health_means(problem, "nothing is left on it");
		health_do(problem, "stop it, then: collie node remove %u", node->id);
	}
}

static void say_nodes(struct health *health)
{
	const struct cluster_map *map = health->map;
	const struct cluster_node *node;

	for (node = cluster_node_next(map, 0); node; node = cluster_node_next(map, node->id)) {
		if (!(node->flags & CLUSTER_NODE_UP))
			say_node_down(health, node);
		else if (node->flags & CLUSTER_NODE_DRAINING)
			say_draining(health, node);
	}
	for (uint32_t i = 0; i < health->figures->unknown_count; i++) {
		node = cluster_node(map, health->figures->unknown[i]);
		if (!node)
			continue;
		struct json_object *problem =
			health_add(health, HEALTH_WARNING,
				   "node %u (%s) is up, but did not answer within a second",
				   node->id, node->address);
		name_node(problem, node);
		health_means(problem,
			     "it is very busy, hangs, or cannot be reached from node %u; "
			     "what it knows is missing here",
			     health->node->id);
		health_do(problem, "ask again; if it stays so look at its log and its network");
	}
}

/* ---- stores ---- */

static void say_space(struct health *health, const struct cluster_store *store)
{
	const struct figures_store *told = figures_of_store(health->figures, store->id);
	uint64_t size = store->size_bytes;
	char left[TEXT_SIZE_MAX], uuid[UUID_TEXT_SIZE];
	struct json_object *problem;

	if (!told || told->credit_bytes >= size / 100 * FREE_LOW_PERCENT)
		return;
	bool is_full = told->credit_bytes < size / 100 * FREE_MIN_PERCENT;
	problem = health_add(health, is_full ? HEALTH_ERROR : HEALTH_WARNING,
			     "store %.8s (node %u, %s) is %s: %s are left",
			     uuid_format(&store->uuid, uuid), store->node, store->path,
			     is_full ? "full" : "nearly full",
			     text_format_size(told->credit_bytes, left));
	health_name_store(problem, store);
	health_means(problem, "%s; reading, trimming and deleting work",
		     is_full ? "writes to new places of the volumes fail with \"no space\" where "
			       "it has a copy"
			     : "when it is full writes fail with \"no space\" where it has a copy");
	health_do(problem,
		  "delete or trim data, add stores, or give it less: collie store set "
		  "%.8s weight N",
		  uuid);
}

static void say_store_failed(struct health *health, const struct cluster_store *store)
{
	uint64_t interval = cluster_setting_ns(health->map, CLUSTER_SETTING_DOWN_OUT_INTERVAL);
	char uuid[UUID_TEXT_SIZE], span[HEALTH_SPAN_MAX];
	struct json_object *problem =
		health_add(health, store->weight ? HEALTH_WARNING : HEALTH_NOTE,
			   "store %.8s (node %u, %s) stopped after an I/O error%s",
			   uuid_format(&store->uuid, uuid), store->node, store->path,
			   store->weight ? "" : ", and is to hold nothing");

	health_name_store(problem, store);
	health_do(problem, "look at the kernel's log; replace the disk and start the sheep with a "
			   "new directory, or with this one if the fault is gone");
	if (!store->weight)
		return;
	health_means(problem,
		     "its copies are made elsewhere %s after that, where other stores have room; "
		     "at once by: collie store set %.8s weight 0",
		     health_span(interval, span), uuid);
}

static void say_store_missing(struct health *health, const struct cluster_store *store)
{
	char uuid[UUID_TEXT_SIZE];
	struct json_object *problem =
		health_add(health, store->weight ? HEALTH_WARNING : HEALTH_NOTE,
			   "store %.8s (%s) was not started with its node %u",
			   uuid_format(&store->uuid, uuid), store->path, store->node);

	health_name_store(problem, store);
	health_means(problem, "%s",
		     store->weight ? "its copies are not kept up" : "it is to hold nothing");
	health_do(problem,
		  "start the sheep with this directory too; if it is gone, have its copies made "
		  "elsewhere: collie store set %.8s weight 0",
		  uuid);
}

/* A node that is down speaks for its stores. */
static void say_store(struct health *health, const struct cluster_store *store)
{
	const struct cluster_node *node = cluster_node(health->map, store->node);

	if (!(node->flags & CLUSTER_NODE_UP))
		return;
	if (store->flags & CLUSTER_STORE_FAILED)
		say_store_failed(health, store);
	else if (!(store->flags & CLUSTER_STORE_UP))
		say_store_missing(health, store);
	else
		say_space(health, store);
}

/* ---- the cluster as a whole ---- */

static uint32_t count_zones(const struct cluster_map *map)
{
	const struct cluster_node *node, *other;
	uint32_t zones = 0;

	for (node = cluster_node_next(map, 0); node; node = cluster_node_next(map, node->id)) {
		if (!has_stores(map, node->id))
			continue;
		for (other = cluster_node_next(map, 0);
		     other != node &&
		     (!has_stores(map, other->id) || strcmp(other->zone, node->zone) != 0);
		     other = cluster_node_next(map, other->id))
			;
		zones += other == node;
	}
	return zones;
}

static void say_policy(struct health *health)
{
	const struct cluster_policy *policy = cluster_policy(health->map, 0);
	uint32_t zones = count_zones(health->map);
	struct json_object *problem;

	if (zones < policy->copies) {
		problem = health_add(health, HEALTH_NOTE, "%u copies are kept in %u zone%s",
				     policy->copies, zones, zones == 1 ? "" : "s");
		health_means(problem, "some copies of the same data share a zone: losing it takes "
				      "all of these");
		health_do(problem, "name the failure domains (sheep --zone), or add one");
	}
	if (policy->copies > 1 && policy->min_insync == policy->copies) {
		problem = health_add(health, HEALTH_NOTE,
				     "min_insync is %u, as many as there are "
				     "copies",
				     policy->min_insync);
		health_means(problem, "any single fault stops reads and writes until it is mended");
		health_do(problem, "collie cluster set min_insync %u", policy->copies - 1);
	}
}

static void say_versions(struct health *health)
{
	const struct cluster_map *map = health->map;
	const struct cluster_node *node = cluster_node_next(map, 0);
	uint32_t least = UINT32_MAX, most = 0, level = cluster_level(map);
	struct json_object *problem;

	for (; node; node = cluster_node_next(map, node->id)) {
		least = min_of(least, node->version_max);
		most = max_of(most, node->version_max);
	}
	if (least == most && least <= level)
		return;
	problem = health_add(health, HEALTH_NOTE,
			     "the cluster is at level %u; its sheep can do %u to %u", level, least,
			     most);
	health_means(problem, least == most ? "an upgrade is complete but for its last step"
					    : "an upgrade is under way");
	health_do(problem, "start the newer sheep everywhere; then the level can be raised");
}

static void say_recovery(struct health *health)
{
	const struct cluster_map *map = health->map;
	uint64_t rate = cluster_setting(map, CLUSTER_SETTING_RECOVERY_RATE);
	bool has_work = health->summary.health != CLUSTER_HEALTHY;
	char text[TEXT_SIZE_MAX];
	struct json_object *problem;

	if (cluster_setting(map, CLUSTER_SETTING_RECOVERY_PAUSED)) {
		problem = health_add(health, has_work ? HEALTH_WARNING : HEALTH_NOTE,
				     "recovery is paused");
		health_means(problem, "copies that are missing are not made, but for objects that "
				      "clients wait for");
		health_do(problem, "collie recovery resume");
	} else if (rate && has_work) {
		problem = health_add(health, HEALTH_NOTE,
				     "recovery is throttled to %s/s for each sheep",
				     text_format_size(rate, text));
		health_means(problem, "missing copies take longer to make");
		health_do(problem, "collie recovery throttle 0 takes the limit off");
	}
}

static void say_quorum(struct health *health)
{
	struct json_object *problem;

	if (state_has_quorum(health->node->state))
		return;
	problem = health_add(health, HEALTH_ERROR, "node %u sees no quorum", health->node->id);
	health_means(problem, "nothing can change here: no volume can be opened, no fault be "
			      "reacted to; what is below may be out of date");
	health_do(problem, "bring back the other machines, or their cluster engine, or the network "
			   "between them");
}

/* ---- the document ---- */

static struct json_object *document(struct health *health)
{
	struct json_object *doc = json_object_new_object(), *all = json_object_new_array();
	const char *status = cluster_is_formatted(health->map)
				     ? cluster_health_name(health->summary.health)
				     : "unformatted";

	for (unsigned s = 0; s < HEALTH_SEVERITIES; s++) {
		size_t count = json_object_array_length(health->problems[s]);
		for (size_t i = 0; i < count; i++)
			json_object_array_add(all, json_object_get(json_object_array_get_idx(
							   health->problems[s], i)));
		json_object_put(health->problems[s]);
	}
	json_object_object_add(doc, "status", json_object_new_string(status));
	json_object_object_add(doc, "problems", all);
	return doc;
}

static void answer(struct admin_call *call, const struct figures *figures)
{
	struct health health = {.node = call->node, .map = admin_map(call), .figures = figures};
	const struct cluster_store *store;

	for (unsigned s = 0; s < HEALTH_SEVERITIES; s++)
		health.problems[s] = json_object_new_array();
	cluster_summary(health.map, &health.summary);
	say_quorum(&health);
	if (!cluster_is_formatted(health.map)) {
		struct json_object *problem =
			health_add(&health, HEALTH_ERROR, "there is no cluster yet");
		health_means(problem, "no volume can be made");
		health_do(problem, "start the other sheep, then: collie cluster format "
				   "--wait-nodes N");
	} else if (node_uses_count(&health.uses, health.map) < 0) {
		for (unsigned s = 0; s < HEALTH_SEVERITIES; s++)
			json_object_put(health.problems[s]);
		admin_refuse(call, PROTO_STATUS_NO_MEMORY, "%s", "");
		return;
	} else {
		health_say_pgs(&health);
		say_nodes(&health);
		for (store = cluster_store_next(health.map, 0); store;
		     store = cluster_store_next(health.map, store->id))
			say_store(&health, store);
		say_recovery(&health);
		say_policy(&health);
		say_versions(&health);
	}
	free(health.uses.list);
	admin_answer(call, document(&health), false);
}

void admin_cluster_health(struct admin_call *call)
{
	admin_gather(call, answer);
}
