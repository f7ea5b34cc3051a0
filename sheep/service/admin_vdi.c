/* The ops on volumes. */
#include <stdlib.h>
#include <string.h>

#include "lib/base/size.h"
#include "sheep/service/admin_priv.h"

#define USED_DIGITS 20u /* more than the null in their place */

static void on_created(struct proposal *proposal, enum proto_status status, const char *text,
		       uint64_t id)
{
	struct admin_call *call = admin_call_of(proposal);

	if (admin_is_refused(call, status, text))
		return;
	const struct cluster_volume *volume = cluster_volume(admin_map(call), id);
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

void admin_vdi_create(struct admin_call *call)
{
	struct cluster_property properties[CLUSTER_VOLUME_PROPERTIES];
	const char *name = admin_required_text(call, "name");
	uint64_t size = 0;
	struct error err = {0};

	if (!name)
		return;
	if (admin_required_number(call, "size", UINT64_MAX, &size) < 0)
		return;
	int count = properties_of(call, properties);
	if (count < 0)
		return;
	if (cluster_check_volume_name(name, strlen(name), &err) < 0 ||
	    cluster_check_volume_size(size, &err) < 0) {
		admin_refuse(call, PROTO_STATUS_INVALID, "%s", err.text);
		return;
	}
	struct cluster_command *command =
		cluster_command_volume_create(name, size, 0, properties, (uint32_t)count);
	if (command)
		cluster_command_set_created(command, loop_wall_clock(call->node->workers[0].loop) /
							     NS_PER_S);
	admin_propose(call, command, on_created);
}

/* ---- looking ---- */

/* The layers of the volumes that are asked about. */
struct layer_set {
	uint64_t list[PEER_FIGURES_LAYERS_MAX];
	uint32_t count;
};

_Static_assert(LOG_LAYERS_MAX <= PEER_FIGURES_LAYERS_MAX, "one volume can always be asked about");

/* False: there is no room for them. */
static bool layers_add(struct layer_set *layers, const struct cluster_volume *volume)
{
	if (layers->count + volume->layer_count > PEER_FIGURES_LAYERS_MAX)
		return false;
	memcpy(&layers->list[layers->count], volume->layers,
	       volume->layer_count * sizeof(layers->list[0]));
	layers->count += volume->layer_count;
	return true;
}

static int compare_layers(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Volumes may share some. */
static void layers_sort(struct layer_set *layers)
{
	uint32_t kept = 0;

	qsort(layers->list, layers->count, sizeof(layers->list[0]), compare_layers);
	for (uint32_t i = 0; i < layers->count; i++)
		if (kept == 0 || layers->list[i] != layers->list[kept - 1])
			layers->list[kept++] = layers->list[i];
	layers->count = kept;
}

/* The volumes are those of the map when the question began; one that is gone since then has no figure. */
static void answer_volumes(struct admin_call *call, const struct figures *figures)
{
	struct json_object *result = json_object_get(call->result);

	if (json_object_is_type(result, json_type_array))
		for (size_t i = 0; i < json_object_array_length(result); i++)
			doc_volume_use(json_object_array_get_idx(result, i), call->node, figures);
	else
		doc_volume_use(result, call->node, figures);
	admin_answer(call, result, call->has_more);
}

/* Answer with @result (taken) when it is known what the volumes in it use. */
static void answer_with_use(struct admin_call *call, struct json_object *result, bool has_more,
			    struct layer_set *layers)
{
	layers_sort(layers);
	call->result = result;
	call->has_more = has_more;
	admin_gather_layers(call, layers->list, layers->count, answer_volumes);
}

static int compare_volumes(const void *a, const void *b)
{
	const struct cluster_volume *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

/* A page of the volumes of which some layers are asked about. */
static void answer_page(struct admin_call *call, const struct cluster_volume **rows, uint32_t count,
			struct layer_set *layers)
{
	struct json_object *page = json_object_new_array();
	bool has_room = true, is_wanted = true;
	size_t size = 0;
	uint32_t i;

	if (admin_flag(call, "used", &is_wanted) < 0) {
		json_object_put(page);
		return;
	}
	for (i = 0; i < count && has_room && layers_add(layers, rows[i]); i++) {
		size += USED_DIGITS;
		has_room = admin_page_add(page, &size, doc_volume(call->node, rows[i]));
	}
	if (is_wanted && i > 0)
		answer_with_use(call, page, i < count, layers);
	else
		admin_answer(call, page, i < count);
}

void admin_vdi_list(struct admin_call *call)
{
	const struct cluster_map *map = admin_map(call);
	const char *after = NULL;
	const struct cluster_volume *row, **rows;
	uint32_t count = 0;

	if (admin_text(call, "after", &after) < 0)
		return;
	struct layer_set *layers = calloc(1, sizeof(*layers));
	rows = calloc(cluster_volume_count(map) + 1, sizeof(*rows));
	if (!rows || !layers) {
		free(rows);
		free(layers);
		admin_refuse(call, PROTO_STATUS_NO_MEMORY, "%s", "");
		return;
	}
	for (row = cluster_volume_next(map, 0); row; row = cluster_volume_next(map, row->id))
		if (!after || strcmp(row->name, after) > 0)
			rows[count++] = row;
	qsort(rows, count, sizeof(*rows), compare_volumes);
	answer_page(call, rows, count, layers);
	free(rows);
	free(layers);
}

/* The volume that `name` names. NULL: the call has been refused. */
static const struct cluster_volume *volume_of(struct admin_call *call)
{
	const char *name = admin_required_text(call, "name");
	const struct cluster_volume *volume;

	if (!name)
		return NULL;
	volume = cluster_volume_by_name(admin_map(call), name);
	if (!volume)
		admin_refuse(call, PROTO_STATUS_NOT_FOUND, "volume '%s': no such volume", name);
	return volume;
}

void admin_vdi_info(struct admin_call *call)
{
	const struct cluster_volume *volume = volume_of(call);
	struct layer_set *layers;

	if (!volume)
		return;
	layers = calloc(1, sizeof(*layers));
	if (!layers) {
		admin_refuse(call, PROTO_STATUS_NO_MEMORY, "%s", "");
		return;
	}
	(void)layers_add(layers, volume);
	answer_with_use(call, doc_volume(call->node, volume), false, layers);
	free(layers);
}

static void on_deleted(struct proposal *proposal, enum proto_status status, const char *text,
		       uint64_t id)
{
	struct admin_call *call = admin_call_of(proposal);

	if (admin_is_refused(call, status, text))
		return;
	struct json_object *doc = json_object_new_object(), *name;
	json_object_object_get_ex(call->arguments, "name", &name);
	json_object_object_add(doc, "name", json_object_get(name));
	json_object_object_add(doc, "id", json_object_new_uint64(id));
	admin_answer(call, doc, false);
}

void admin_vdi_delete(struct admin_call *call)
{
	const struct cluster_volume *volume = volume_of(call);

	if (volume)
		admin_propose(call, cluster_command_volume_delete(volume->id), on_deleted);
}

/* ---- changing one ---- */

/* The volume as it is after the change. */
static void on_changed(struct proposal *proposal, enum proto_status status, const char *text,
		       uint64_t id)
{
	struct admin_call *call = admin_call_of(proposal);
	const struct cluster_volume *volume = cluster_volume(admin_map(call), call->subject);

	if (admin_is_refused(call, status, text))
		return;
	if (volume)
		admin_answer(call, doc_volume(call->node, volume), false);
	else
		admin_refuse(call, PROTO_STATUS_NOT_FOUND, "changed, and deleted at once");
}

static void change(struct admin_call *call, const struct cluster_volume *volume,
		   struct cluster_command *command)
{
	call->subject = volume->id;
	admin_propose(call, command, on_changed);
}

void admin_vdi_rename(struct admin_call *call)
{
	const struct cluster_volume *volume = volume_of(call);
	const char *to = volume ? admin_required_text(call, "to") : NULL;
	struct error err = {0};

	if (!to)
		return;
	if (cluster_check_volume_name(to, strlen(to), &err) < 0)
		admin_refuse(call, PROTO_STATUS_INVALID, "%s", err.text);
	else
		change(call, volume, cluster_command_volume_rename(volume->id, volume->name, to));
}

void admin_vdi_set(struct admin_call *call)
{
	const struct cluster_volume *volume = volume_of(call);
	const char *key = volume ? admin_required_text(call, "key") : NULL;
	const char *value = key ? admin_required_text(call, "value") : NULL;
	struct error err = {0};

	if (!value)
		return;
	if (cluster_check_property(key, value, &err) < 0)
		admin_refuse(call, PROTO_STATUS_INVALID, "%s", err.text);
	else
		change(call, volume, cluster_command_volume_set(volume->id, key, value));
}

void admin_vdi_resize(struct admin_call *call)
{
	const struct cluster_volume *volume = volume_of(call);
	uint64_t size = 0;
	bool may_shrink = false;
	struct error err = {0};

	if (!volume || admin_required_number(call, "size", UINT64_MAX, &size) < 0 ||
	    admin_flag(call, "shrink", &may_shrink) < 0)
		return;
	if (cluster_check_volume_size(size, &err) < 0)
		admin_refuse(call, PROTO_STATUS_INVALID, "volume '%s': %s", volume->name, err.text);
	else
		change(call, volume,
		       cluster_command_volume_resize(volume->id, volume->size_bytes, size,
						     may_shrink ? LOG_RESIZE_SHRINK : 0));
}
