/*
 * What an operator changes for the whole cluster: settings, nodes, stores, recovery. Each is one entry
 * of the log; what it sets off (moves of data, for one) is the cluster's work, not this call's.
 *
 * A setting is a row of the map's table, or of one more here: copies and min_insync belong to a policy.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/size.h"
#include "lib/base/text.h"
#include "sheep/service/admin_priv.h"

/* ---- settings ---- */

/* What `cluster settings` shows of one, and `cluster set` takes. */
struct row {
	const char *key, *kind, *unit, *meaning;
	uint64_t number;
	char value[CLUSTER_SETTING_TEXT_MAX], preset[CLUSTER_SETTING_TEXT_MAX];
};

static const struct {
	const char *name, *unit;
} kinds[] = {
	[CLUSTER_KIND_TIME] = {"time", "ms"},
	[CLUSTER_KIND_SIZE] = {"size", "bytes"},
	[CLUSTER_KIND_COUNT] = {"count", ""},
	[CLUSTER_KIND_BOOL] = {"bool", ""},
};

/* Settings that are fields of policy 0. */
static const struct policy_setting {
	const char *key, *meaning;
	size_t offset; /* of a uint32_t in struct cluster_policy */
} policy_settings[] = {
	{"copies", "copies of everything", offsetof(struct cluster_policy, copies)},
	{"min_insync",
	 "a placement group serves only while so many copies are in sync; default: copies - 1",
	 offsetof(struct cluster_policy, min_insync)},
};

static uint32_t policy_value(const struct cluster_policy *policy, const struct policy_setting *row)
{
	uint32_t value;

	memcpy(&value, (const char *)policy + row->offset, sizeof(value));
	return value;
}

static uint32_t policy_preset(const struct cluster_policy *policy, const struct policy_setting *row)
{
	if (row->offset == offsetof(struct cluster_policy, copies))
		return 3;
	return policy->copies > 1 ? policy->copies - 1 : 1;
}

static void fill_setting(struct row *row, const struct cluster_map *map, enum cluster_setting_id id)
{
	const struct cluster_setting *setting = &cluster_settings[id];

	row->key = setting->name;
	row->kind = kinds[setting->kind].name;
	row->unit = kinds[setting->kind].unit;
	row->meaning = setting->meaning;
	row->number = cluster_setting(map, id);
	(void)cluster_setting_format(id, row->number, row->value);
	(void)cluster_setting_format(id, setting->preset, row->preset);
}

static void fill_policy(struct row *row, const struct cluster_policy *policy,
			const struct policy_setting *setting)
{
	struct text value = text_of(row->value, sizeof(row->value));
	struct text preset = text_of(row->preset, sizeof(row->preset));

	row->key = setting->key;
	row->kind = kinds[CLUSTER_KIND_COUNT].name;
	row->unit = kinds[CLUSTER_KIND_COUNT].unit;
	row->meaning = setting->meaning;
	row->number = policy_value(policy, setting);
	text_append(&value, "%u", (unsigned)row->number);
	text_append(&preset, "%u", policy_preset(policy, setting));
}

static struct json_object *doc_setting(const struct row *row)
{
	struct json_object *doc = json_object_new_object();

	json_object_object_add(doc, "key", json_object_new_string(row->key));
	json_object_object_add(doc, "value", json_object_new_string(row->value));
	json_object_object_add(doc, "default", json_object_new_string(row->preset));
	json_object_object_add(doc, "kind", json_object_new_string(row->kind));
	json_object_object_add(doc, "number", json_object_new_uint64(row->number));
	json_object_object_add(doc, "unit", json_object_new_string(row->unit));
	json_object_object_add(doc, "meaning", json_object_new_string(row->meaning));
	return doc;
}

#define ROWS_MAX (CLUSTER_SETTING_COUNT + ARRAY_COUNT(policy_settings))

static int compare_rows(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	return strcmp(x->key, y->key);
}

/* Of an unformatted cluster there is no policy yet. */
static size_t all_rows(const struct cluster_map *map, struct row *rows)
{
	const struct cluster_policy *policy = cluster_policy(map, 0);
	size_t count = 0;

	for (int i = 0; i < (int)CLUSTER_SETTING_COUNT; i++)
		fill_setting(&rows[count++], map, (enum cluster_setting_id)i);
	for (size_t i = 0; policy && i < ARRAY_COUNT(policy_settings); i++)
		fill_policy(&rows[count++], policy, &policy_settings[i]);
	qsort(rows, count, sizeof(rows[0]), compare_rows);
	return count;
}

void admin_cluster_settings(struct admin_call *call)
{
	struct row rows[ROWS_MAX];
	const char *after = "";
	struct json_object *page;
	size_t count, size = 0;

	if (admin_text(call, "after", &after) < 0)
		return;
	page = json_object_new_array();
	count = all_rows(admin_map(call), rows);
	for (size_t i = 0; i < count; i++)
		if (strcmp(rows[i].key, after) > 0)
			(void)admin_page_add(page, &size, doc_setting(&rows[i]));
	admin_answer(call, page, false); /* they all fit in a page */
}

/* The setting as it is now. */
static void on_set(struct proposal *proposal, enum proto_status status, const char *text,
		   uint64_t id)
{
	struct admin_call *call = admin_call_of(proposal);
	struct row rows[ROWS_MAX];
	size_t count;
	const char *key = NULL;

	if (admin_is_refused(call, status, text) || admin_text(call, "key", &key) <= 0)
		return;
	count = all_rows(admin_map(call), rows);
	for (size_t i = 0; i < count; i++)
		if (strcmp(rows[i].key, key) == 0) {
			admin_answer(call, doc_setting(&rows[i]), false);
			return;
		}
	admin_refuse(call, PROTO_STATUS_NOT_FOUND, "there is no setting '%s'", key);
}

static void set_policy(struct admin_call *call, const struct policy_setting *row, const char *value)
{
	const struct cluster_policy *policy = cluster_policy(admin_map(call), 0);
	bool is_copies = row->offset == offsetof(struct cluster_policy, copies);
	uint64_t number = 0;

	if (!policy) {
		admin_refuse(call, PROTO_STATUS_NOT_FORMATTED, "%s", "");
		return;
	}
	if (strcmp(value, "default") == 0)
		number = policy_preset(policy, row);
	else if (text_parse_u64(value, LOG_COPIES_MAX, &number) < 0 || number == 0) {
		admin_refuse(call, PROTO_STATUS_INVALID, "%s must be from 1 to %u, not '%.64s'",
			     row->key, LOG_COPIES_MAX, value);
		return;
	}
	admin_propose(call,
		      cluster_command_policy(0, is_copies ? (uint32_t)number : LOG_POLICY_KEEP,
					     is_copies ? LOG_POLICY_KEEP : (uint32_t)number),
		      on_set);
}

static void set_setting(struct admin_call *call, enum cluster_setting_id id, const char *value)
{
	uint64_t number = cluster_settings[id].preset;
	struct error err = {0};

	if (strcmp(value, "default") != 0 && cluster_setting_parse(id, value, &number, &err) < 0)
		admin_refuse(call, PROTO_STATUS_INVALID, "%s", err.text);
	else
		admin_propose(call, cluster_command_setting(cluster_settings[id].name, number),
			      on_set);
}

void admin_cluster_set(struct admin_call *call)
{
	const char *key = admin_required_text(call, "key");
	const char *value = key ? admin_required_text(call, "value") : NULL;
	int id;

	if (!value)
		return;
	for (size_t i = 0; i < ARRAY_COUNT(policy_settings); i++)
		if (strcmp(policy_settings[i].key, key) == 0) {
			set_policy(call, &policy_settings[i], value);
			return;
		}
	id = cluster_setting_find(key);
	if (id < 0)
		admin_refuse(call, PROTO_STATUS_NOT_FOUND, "there is no setting '%.64s'", key);
	else
		set_setting(call, (enum cluster_setting_id)id, value);
}

/* ---- recovery ---- */

static void on_recovery(struct proposal *proposal, enum proto_status status, const char *text,
			uint64_t id)
{
	struct admin_call *call = admin_call_of(proposal);

	if (!admin_is_refused(call, status, text))
		admin_gather(call, admin_answer_recovery);
}

static void set_recovery(struct admin_call *call, enum cluster_setting_id id, uint64_t value)
{
	admin_propose(call, cluster_command_setting(cluster_settings[id].name, value), on_recovery);
}

void admin_recovery_pause(struct admin_call *call)
{
	set_recovery(call, CLUSTER_SETTING_RECOVERY_PAUSED, 1);
}

void admin_recovery_resume(struct admin_call *call)
{
	set_recovery(call, CLUSTER_SETTING_RECOVERY_PAUSED, 0);
}

void admin_recovery_throttle(struct admin_call *call)
{
	uint64_t rate = 0;

	if (admin_required_number(call, "rate", UINT64_MAX, &rate) == 0)
		set_recovery(call, CLUSTER_SETTING_RECOVERY_RATE, rate);
}

/* ---- nodes ---- */

/* The node that `id` names. NULL: the call has been refused. */
static const struct cluster_node *node_of(struct admin_call *call)
{
	const struct cluster_node *node;
	uint64_t id = 0;

	if (admin_required_number(call, "id", UINT32_MAX, &id) < 0)
		return NULL;
	node = cluster_node(admin_map(call), (uint32_t)id);
	call->subject = id;
	if (!node)
		admin_refuse(call, PROTO_STATUS_NOT_FOUND, "node %u: no such node", (unsigned)id);
	return node;
}

static void on_node(struct proposal *proposal, enum proto_status status, const char *text,
		    uint64_t id)
{
	struct admin_call *call = admin_call_of(proposal);
	const struct cluster_node *node = cluster_node(admin_map(call), (uint32_t)call->subject);

	struct node_uses uses;

	if (admin_is_refused(call, status, text))
		return;
	if (!node) {
		admin_refuse(call, PROTO_STATUS_NOT_FOUND, "changed, and removed at once");
		return;
	}
	int rc = node_uses_count(&uses, admin_map(call));
	admin_answer(call, doc_node(call->node, node, rc == 0 ? &uses : NULL), false);
	free(uses.list);
}

void admin_node_drain(struct admin_call *call)
{
	const struct cluster_node *node = node_of(call);

	if (node)
		admin_propose(call, cluster_command_node_drain(node->id), on_node);
}

void admin_node_undrain(struct admin_call *call)
{
	const struct cluster_node *node = node_of(call);

	if (node)
		admin_propose(call, cluster_command_node_undrain(node->id), on_node);
}

static void on_removed(struct proposal *proposal, enum proto_status status, const char *text,
		       uint64_t id)
{
	struct admin_call *call = admin_call_of(proposal);
	struct json_object *doc;

	if (admin_is_refused(call, status, text))
		return;
	doc = json_object_new_object();
	json_object_object_add(doc, "id", json_object_new_uint64(call->subject));
	admin_answer(call, doc, false);
}

void admin_node_remove(struct admin_call *call)
{
	const struct cluster_node *node = node_of(call);

	if (node)
		admin_propose(call, cluster_command_node_remove(node->id), on_removed);
}

/* ---- stores ---- */

const struct cluster_store *admin_store(struct admin_call *call, const char *text)
{
	const struct cluster_map *map = admin_map(call);
	const struct cluster_store *store, *found = NULL;
	char uuid[UUID_TEXT_SIZE];
	size_t length = strlen(text);

	for (store = cluster_store_next(map, 0); store;
	     store = cluster_store_next(map, store->id)) {
		if (strncmp(uuid_format(&store->uuid, uuid), text, length) != 0)
			continue;
		if (found) {
			admin_refuse(call, PROTO_STATUS_INVALID,
				     "store '%.64s': several begin with that", text);
			return NULL;
		}
		found = store;
	}
	if (!found || length < 4)
		admin_refuse(call, PROTO_STATUS_NOT_FOUND, "store '%.64s': no such store", text);
	return length < 4 ? NULL : found;
}

static void answer_store(struct admin_call *call, const struct figures *figures)
{
	const struct cluster_store *store = cluster_store(admin_map(call), (uint32_t)call->subject);

	if (store)
		admin_answer(call, doc_store(call->node, store, figures), false);
	else
		admin_refuse(call, PROTO_STATUS_NOT_FOUND, "changed, and removed at once");
}

static void on_store(struct proposal *proposal, enum proto_status status, const char *text,
		     uint64_t id)
{
	struct admin_call *call = admin_call_of(proposal);

	if (!admin_is_refused(call, status, text))
		admin_gather(call, answer_store);
}

void admin_store_set(struct admin_call *call)
{
	const char *uuid = admin_required_text(call, "uuid");
	const char *key = uuid ? admin_required_text(call, "key") : NULL;
	const char *value = key ? admin_required_text(call, "value") : NULL;
	const struct cluster_store *store = value ? admin_store(call, uuid) : NULL;
	uint64_t weight = 0;

	if (!store)
		return;
	if (strcmp(key, "weight") != 0) {
		admin_refuse(call, PROTO_STATUS_NOT_FOUND, "a store has no '%.64s' to set: weight",
			     key);
		return;
	}
	if (strcmp(value, "default") == 0)
		weight = max_of(store->size_bytes / MIB, 1ull);
	else if (text_parse_u64(value, UINT32_MAX, &weight) < 0) {
		admin_refuse(call, PROTO_STATUS_INVALID,
			     "weight is a whole number from 0 to %u, not '%.64s'", UINT32_MAX,
			     value);
		return;
	}
	call->subject = store->id;
	admin_propose(call,
		      cluster_command_store_weight(store->id,
						   (uint32_t)min_of(weight, (uint64_t)UINT32_MAX)),
		      on_store);
}
