/* The ops, one function each, and the table of them. */
#include <stdlib.h>
#include <string.h>

#include "lib/base/size.h"
#include "sheep/service/admin_priv.h"

static struct cluster_map *map_of(const struct admin_call *call)
{
	return state_map(call->node->state);
}

/* Most changes end like this: refuse with what the map says, or go on. */
static bool is_refused(struct admin_call *call, enum proto_status status, const char *text)
{
	if (status != PROTO_STATUS_OK)
		admin_refuse(call, status, "%s", text);
	return status != PROTO_STATUS_OK;
}

/* A required text. NULL: the call has been refused. */
static const char *required_text(struct admin_call *call, const char *key)
{
	const char *text = NULL;
	int rc = admin_text(call, key, &text);

	if (rc == 0)
		admin_refuse(call, PROTO_STATUS_INVALID, "argument '%s' is missing", key);
	return text;
}

/* ---- cluster ---- */

static void answer_cluster(struct admin_call *call, const struct figures *figures)
{
	admin_answer(call, doc_cluster(call->node, figures), false);
}

static void on_formatted(struct proposal *proposal, enum proto_status status, const char *text,
			 uint64_t id)
{
	struct admin_call *call = admin_call_of(proposal);

	if (!is_refused(call, status, text))
		admin_gather(call, answer_cluster);
}

static void cluster_format(struct admin_call *call)
{
	uint64_t copies = 3, min_insync = 0, pgs = 256;
	bool is_forced = false;

	if (admin_number(call, "copies", LOG_COPIES_MAX, &copies) < 0 ||
	    admin_number(call, "min_insync", LOG_COPIES_MAX, &min_insync) < 0 ||
	    admin_number(call, "pgs", CLUSTER_PG_COUNT_MAX, &pgs) < 0 ||
	    admin_flag(call, "force", &is_forced) < 0)
		return;
	struct uuid uuid = uuid_make(loop_random(call->node->workers[0].loop));
	admin_propose(call,
		      cluster_command_format(&uuid, (uint32_t)copies, (uint32_t)min_insync,
					     (uint32_t)pgs, is_forced ? LOG_FORMAT_FORCE : 0),
		      on_formatted);
}

static void cluster_info(struct admin_call *call)
{
	admin_gather(call, answer_cluster);
}

static void on_shutdown(struct proposal *proposal, enum proto_status status, const char *text,
			uint64_t id)
{
	struct admin_call *call = admin_call_of(proposal);
	const struct cluster_map *map = map_of(call);
	struct json_object *doc, *nodes;
	const struct cluster_node *node;

	if (is_refused(call, status, text))
		return;
	doc = json_object_new_object();
	nodes = json_object_new_array();
	for (node = cluster_node_next(map, 0); node; node = cluster_node_next(map, node->id))
		if (node->flags & CLUSTER_NODE_UP)
			json_object_array_add(nodes, json_object_new_uint64(node->id));
	json_object_object_add(doc, "nodes", nodes);
	admin_answer(call, doc, false);
}

static void cluster_shutdown(struct admin_call *call)
{
	admin_propose(call, cluster_command_shutdown(), on_shutdown);
}

/* ---- lists ---- */

/* Add a row to a page. False: the page is full. */
static bool page_add(struct json_object *page, size_t *size, struct json_object *row)
{
	*size += strlen(json_object_to_json_string_ext(row, JSON_C_TO_STRING_PLAIN)) + 1;
	json_object_array_add(page, row);
	return *size < ADMIN_PAGE_SIZE;
}

static void node_list(struct admin_call *call)
{
	uint64_t after = 0;
	size_t size = 0;

	if (admin_number(call, "after", UINT32_MAX, &after) < 0)
		return;
	struct json_object *page = json_object_new_array();
	const struct cluster_node *row = cluster_node_next(map_of(call), (uint32_t)after);
	bool has_room = true;
	while (row && has_room) {
		has_room = page_add(page, &size, doc_node(call->node, row));
		row = cluster_node_next(map_of(call), row->id);
	}
	admin_answer(call, page, row != NULL);
}

static int compare_stores(const void *a, const void *b)
{
	const struct cluster_store *const *x = a, *const *y = b;

	return memcmp((*x)->uuid.bytes, (*y)->uuid.bytes, sizeof((*x)->uuid.bytes));
}

static void answer_stores(struct admin_call *call, const struct figures *figures)
{
	const struct cluster_map *map = map_of(call);
	const char *after_text = NULL;
	struct uuid after = {{0}};
	const struct cluster_store *row, **rows;
	uint32_t count = 0, i = 0;
	size_t size = 0;

	int rc = admin_text(call, "after", &after_text);
	if (rc < 0)
		return;
	if (rc > 0 && uuid_parse(after_text, &after) < 0) {
		admin_refuse(call, PROTO_STATUS_INVALID, "argument 'after' is no UUID");
		return;
	}
	rows = calloc(cluster_store_count(map) + 1, sizeof(*rows));
	if (!rows) {
		admin_refuse(call, PROTO_STATUS_NO_MEMORY, "%s", "");
		return;
	}
	for (row = cluster_store_next(map, 0); row; row = cluster_store_next(map, row->id))
		if (memcmp(row->uuid.bytes, after.bytes, sizeof(after.bytes)) > 0)
			rows[count++] = row;
	qsort(rows, count, sizeof(*rows), compare_stores);
	struct json_object *page = json_object_new_array();
	for (bool has_room = true; i < count && has_room; i++)
		has_room = page_add(page, &size, doc_store(call->node, rows[i], figures));
	free(rows);
	admin_answer(call, page, i < count);
}

static void store_list(struct admin_call *call)
{
	admin_gather(call, answer_stores);
}

static void pg_list(struct admin_call *call)
{
	const struct cluster_map *map = map_of(call);
	uint64_t after = 0;
	bool not_clean = false, has_room = true;
	size_t size = 0;

	int rc = admin_number(call, "after", UINT32_MAX - 1, &after);
	if (rc < 0 || admin_flag(call, "not_clean", &not_clean) < 0)
		return;
	struct json_object *page = json_object_new_array();
	const struct cluster_pg *row = cluster_pg_next(map, rc ? (uint32_t)after + 1 : 0);
	while (row && has_room) {
		if (!not_clean || strcmp(pg_status_name(map, row), "clean") != 0)
			has_room = page_add(page, &size, doc_pg(call->node, row));
		row = cluster_pg_next(map, row->id + 1);
	}
	admin_answer(call, page, row != NULL);
}

static void answer_recovery(struct admin_call *call, const struct figures *figures)
{
	uint64_t rate = admin_recovery_rate(call, figures);

	admin_answer(call, doc_recovery(call->node, figures, rate), false);
}

static void recovery_info(struct admin_call *call)
{
	admin_gather(call, answer_recovery);
}

/* ---- volumes ---- */

static void on_created(struct proposal *proposal, enum proto_status status, const char *text,
		       uint64_t id)
{
	struct admin_call *call = admin_call_of(proposal);

	if (is_refused(call, status, text))
		return;
	const struct cluster_volume *volume = cluster_volume(map_of(call), id);
	if (volume)
		admin_answer(call, doc_volume(call->node, volume), false);
	else
		admin_refuse(call, PROTO_STATUS_NOT_FOUND, "created, and deleted at once");
}

/* The properties of `set`. -1: the call has been refused. */
static int properties_of(struct admin_call *call, struct cluster_property *out)
{
	struct json_object *set;
	int count = 0;

	if (!call->arguments || !json_object_object_get_ex(call->arguments, "set", &set) || !set)
		return 0;
	if (json_object_get_type(set) != json_type_object) {
		admin_refuse(call, PROTO_STATUS_INVALID, "argument 'set' is not an object");
		return -1;
	}
	json_object_object_foreach(set, key, value)
	{
		struct error err = {0};
		if (json_object_get_type(value) != json_type_string) {
			admin_refuse(call, PROTO_STATUS_INVALID, "property '%s' is not a string",
				     key);
			return -1;
		}
		if (strlen(json_object_get_string(value)) !=
		    (size_t)json_object_get_string_len(value)) {
			admin_refuse(call, PROTO_STATUS_INVALID, "property '%s' has a zero byte",
				     key);
			return -1;
		}
		if (count == CLUSTER_VOLUME_PROPERTIES) {
			admin_refuse(call, PROTO_STATUS_INVALID, "more than %u properties",
				     CLUSTER_VOLUME_PROPERTIES);
			return -1;
		}
		out[count] = (struct cluster_property){.key = key,
						       .value = json_object_get_string(value)};
		if (cluster_check_property(out[count].key, out[count].value, &err) < 0) {
			admin_refuse(call, PROTO_STATUS_INVALID, "%s", err.text);
			return -1;
		}
		count++;
	}
	return count;
}

static void vdi_create(struct admin_call *call)
{
	struct cluster_property properties[CLUSTER_VOLUME_PROPERTIES];
	const char *name = required_text(call, "name");
	uint64_t size = 0;
	struct error err = {0};

	if (!name)
		return;
	int rc = admin_number(call, "size", UINT64_MAX, &size);
	if (rc < 0)
		return;
	if (rc == 0) {
		admin_refuse(call, PROTO_STATUS_INVALID, "argument 'size' is missing");
		return;
	}
	int count = properties_of(call, properties);
	if (count < 0)
		return;
	if (cluster_check_volume_name(name, strlen(name), &err) < 0 ||
	    cluster_check_volume_size(size, &err) < 0) {
		admin_refuse(call, PROTO_STATUS_INVALID, "%s", err.text);
		return;
	}
	admin_propose(call,
		      cluster_command_volume_create(name, size, 0, properties, (uint32_t)count),
		      on_created);
}

static int compare_volumes(const void *a, const void *b)
{
	const struct cluster_volume *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

static void vdi_list(struct admin_call *call)
{
	const struct cluster_map *map = map_of(call);
	const char *after = NULL;
	const struct cluster_volume *row, **rows;
	uint32_t count = 0, i = 0;
	size_t size = 0;

	if (admin_text(call, "after", &after) < 0)
		return;
	rows = calloc(cluster_volume_count(map) + 1, sizeof(*rows));
	if (!rows) {
		admin_refuse(call, PROTO_STATUS_NO_MEMORY, "%s", "");
		return;
	}
	for (row = cluster_volume_next(map, 0); row; row = cluster_volume_next(map, row->id))
		if (!after || strcmp(row->name, after) > 0)
			rows[count++] = row;
	qsort(rows, count, sizeof(*rows), compare_volumes);
	struct json_object *page = json_object_new_array();
	for (bool has_room = true; i < count && has_room; i++)
		has_room = page_add(page, &size, doc_volume(call->node, rows[i]));
	free(rows);
	admin_answer(call, page, i < count);
}

/* The volume that `name` names. NULL: the call has been refused. */
static const struct cluster_volume *volume_of(struct admin_call *call)
{
	const char *name = required_text(call, "name");
	const struct cluster_volume *volume;

	if (!name)
		return NULL;
	volume = cluster_volume_by_name(map_of(call), name);
	if (!volume)
		admin_refuse(call, PROTO_STATUS_NOT_FOUND, "volume '%s': no such volume", name);
	return volume;
}

static void vdi_info(struct admin_call *call)
{
	const struct cluster_volume *volume = volume_of(call);

	if (volume)
		admin_answer(call, doc_volume(call->node, volume), false);
}

static void on_deleted(struct proposal *proposal, enum proto_status status, const char *text,
		       uint64_t id)
{
	struct admin_call *call = admin_call_of(proposal);

	if (is_refused(call, status, text))
		return;
	struct json_object *doc = json_object_new_object(), *name;
	json_object_object_get_ex(call->arguments, "name", &name);
	json_object_object_add(doc, "name", json_object_get(name));
	json_object_object_add(doc, "id", json_object_new_uint64(id));
	admin_answer(call, doc, false);
}

static void vdi_delete(struct admin_call *call)
{
	const struct cluster_volume *volume = volume_of(call);

	if (volume)
		admin_propose(call, cluster_command_volume_delete(volume->id), on_deleted);
}

/* Every op of admin.h has a row here. */
const struct admin_row admin_rows[ADMIN_OP_END] = {
	[ADMIN_OP_CLUSTER_FORMAT] = {"cluster format", cluster_format},
	[ADMIN_OP_CLUSTER_INFO] = {"cluster info", cluster_info},
	[ADMIN_OP_CLUSTER_SHUTDOWN] = {"cluster shutdown", cluster_shutdown},
	[ADMIN_OP_NODE_LIST] = {"node list", node_list},
	[ADMIN_OP_STORE_LIST] = {"store list", store_list},
	[ADMIN_OP_PG_LIST] = {"pg list", pg_list},
	[ADMIN_OP_RECOVERY_INFO] = {"recovery info", recovery_info},
	[ADMIN_OP_VDI_CREATE] = {"vdi create", vdi_create},
	[ADMIN_OP_VDI_LIST] = {"vdi list", vdi_list},
	[ADMIN_OP_VDI_INFO] = {"vdi info", vdi_info},
	[ADMIN_OP_VDI_DELETE] = {"vdi delete", vdi_delete},
};
