/* The table of ops, and those that look at the cluster as a whole or in lists. */
#include <stdlib.h>
#include <string.h>

#include "lib/base/size.h"
#include "sheep/service/admin_priv.h"

/* ---- cluster ---- */

static void answer_cluster(struct admin_call *call, const struct figures *figures)
{
	admin_answer(call, doc_cluster(call->node, figures), false);
}

static void on_formatted(struct proposal *proposal, enum proto_status status, const char *text,
			 uint64_t id)
{
	struct admin_call *call = admin_call_of(proposal);

	if (!admin_is_refused(call, status, text))
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
	const struct cluster_map *map = admin_map(call);
	struct json_object *doc, *nodes;
	const struct cluster_node *node;

	if (admin_is_refused(call, status, text))
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

static void node_list(struct admin_call *call)
{
	uint64_t after = 0;
	size_t size = 0;

	if (admin_number(call, "after", UINT32_MAX, &after) < 0)
		return;
	struct node_uses uses;
	int rc = node_uses_count(&uses, admin_map(call));
	struct json_object *page = json_object_new_array();
	const struct cluster_node *row = cluster_node_next(admin_map(call), (uint32_t)after);
	bool has_room = true;
	while (row && has_room) {
		has_room = admin_page_add(page, &size,
					  doc_node(call->node, row, rc == 0 ? &uses : NULL));
		row = cluster_node_next(admin_map(call), row->id);
	}
	free(uses.list);
	admin_answer(call, page, row != NULL);
}

static int compare_stores(const void *a, const void *b)
{
	const struct cluster_store *const *x = a, *const *y = b;

	return memcmp((*x)->uuid.bytes, (*y)->uuid.bytes, sizeof((*x)->uuid.bytes));
}

static void answer_stores(struct admin_call *call, const struct figures *figures)
{
	const struct cluster_map *map = admin_map(call);
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
		has_room = admin_page_add(page, &size, doc_store(call->node, rows[i], figures));
	free(rows);
	admin_answer(call, page, i < count);
}

static void store_list(struct admin_call *call)
{
	admin_gather(call, answer_stores);
}

static void pg_list(struct admin_call *call)
{
	const struct cluster_map *map = admin_map(call);
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
			has_room = admin_page_add(page, &size, doc_pg(call->node, row));
		row = cluster_pg_next(map, row->id + 1);
	}
	admin_answer(call, page, row != NULL);
}

void admin_answer_recovery(struct admin_call *call, const struct figures *figures)
{
	uint64_t rate = admin_recovery_rate(call, figures);

	admin_answer(call, doc_recovery(call->node, figures, rate), false);
}

static void recovery_info(struct admin_call *call)
{
	admin_gather(call, admin_answer_recovery);
}

/* Every op of admin.h has a row here. */
const struct admin_row admin_rows[ADMIN_OP_END] = {
	[ADMIN_OP_CLUSTER_FORMAT] = {"cluster format", cluster_format},
	[ADMIN_OP_CLUSTER_INFO] = {"cluster info", cluster_info},
	[ADMIN_OP_CLUSTER_SHUTDOWN] = {"cluster shutdown", cluster_shutdown},
	[ADMIN_OP_CLUSTER_SET] = {"cluster set", admin_cluster_set},
	[ADMIN_OP_CLUSTER_SETTINGS] = {"cluster settings", admin_cluster_settings},
	[ADMIN_OP_CLUSTER_HEALTH] = {"cluster health", admin_cluster_health},
	[ADMIN_OP_CLUSTER_FORCE] = {"cluster force-recover", admin_cluster_force},
	[ADMIN_OP_NODE_LIST] = {"node list", node_list},
	[ADMIN_OP_NODE_DRAIN] = {"node drain", admin_node_drain},
	[ADMIN_OP_NODE_UNDRAIN] = {"node undrain", admin_node_undrain},
	[ADMIN_OP_NODE_REMOVE] = {"node remove", admin_node_remove},
	[ADMIN_OP_STORE_LIST] = {"store list", store_list},
	[ADMIN_OP_STORE_SET] = {"store set", admin_store_set},
	[ADMIN_OP_PG_LIST] = {"pg list", pg_list},
	[ADMIN_OP_RECOVERY_INFO] = {"recovery info", recovery_info},
	[ADMIN_OP_RECOVERY_PAUSE] = {"recovery pause", admin_recovery_pause},
	[ADMIN_OP_RECOVERY_RESUME] = {"recovery resume", admin_recovery_resume},
	[ADMIN_OP_RECOVERY_THROTTLE] = {"recovery throttle", admin_recovery_throttle},
	[ADMIN_OP_VDI_CREATE] = {"vdi create", admin_vdi_create},
	[ADMIN_OP_VDI_LIST] = {"vdi list", admin_vdi_list},
	[ADMIN_OP_VDI_INFO] = {"vdi info", admin_vdi_info},
	[ADMIN_OP_VDI_DELETE] = {"vdi delete", admin_vdi_delete},
	[ADMIN_OP_VDI_RENAME] = {"vdi rename", admin_vdi_rename},
	[ADMIN_OP_VDI_RESIZE] = {"vdi resize", admin_vdi_resize},
	[ADMIN_OP_VDI_SET] = {"vdi set", admin_vdi_set},
};
