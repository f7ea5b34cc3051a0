/*
 * The map as bytes, and bytes as a map. include/proto/log.h has the layout.
 *
 * The bytes come from peers and disks: nothing in them is believed. Lengths and counts
 * are bounded by the reader, ids must ascend, and what was read must pass
 * cluster_check() before anybody sees it.
 */
#include <stdlib.h>

#include "lib/base/assert.h"
#include "lib/base/bytes.h"
#include "lib/base/crc32c.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "sheep/cluster/cluster_priv.h"

_Static_assert(CLUSTER_SEQUENCE_WINDOW == LOG_WINDOW_WORDS * 64, "window in the image");

/* ---- writing ---- */

struct out {
	uint8_t *data;
	size_t size, room;
	bool failed;
};

static void out_put(struct out *out, const void *data, size_t size)
{
	if (out->failed || !size)
		return;
	if (size > out->room - out->size) {
		size_t room = (out->size + size) * 2;
		uint8_t *grown = realloc(out->data, room);

		if (!grown) {
			out->failed = true;
			return;
		}
		out->data = grown;
		out->room = room;
	}
	memcpy(out->data + out->size, data, size);
	out->size += size;
}

static void put_head(struct out *out, const struct cluster_map *map)
{
	struct log_image image = {
		.magic = to_le32(LOG_IMAGE_MAGIC),
		.version = to_le32(LOG_IMAGE_VERSION),
		.level = to_le32(map->level),
		.cluster = uuid_to_log(&map->uuid),
		.index = to_le64(map->index),
		.next_id = to_le64(map->next_id),
		.next_node = to_le32(map->next_node),
		.next_store = to_le32(map->next_store),
		.shutdown = to_le64(map->shutdown),
		.setting_count = to_le32(CLUSTER_SETTING_COUNT),
		.policy_count = to_le32(map->policy_count),
		.node_count = to_le32(map->nodes.count),
		.store_count = to_le32(map->stores.count),
		.pg_count = to_le32(map->pgs.count),
		.volume_count = to_le32(map->volumes.count),
	};

	out_put(out, &image, sizeof(image));
	for (unsigned i = 0; i < CLUSTER_SETTING_COUNT; i++) {
		struct log_image_setting setting = {.value = to_le64(map->settings[i])};

		(void)text_copy(setting.name, sizeof(setting.name), cluster_settings[i].name);
		out_put(out, &setting, sizeof(setting));
	}
	for (uint32_t i = 0; i < map->policy_count; i++) {
		struct log_image_policy policy = {
			.copies = to_le32(map->policies[i].copies),
			.min_insync = to_le32(map->policies[i].min_insync),
			.pg_count = to_le32(map->policies[i].pg_count),
		};

		out_put(out, &policy, sizeof(policy));
	}
}

static void put_node(struct out *out, const struct cluster_node *node)
{
	struct log_image_node image = {
		.uuid = uuid_to_log(&node->uuid),
		.id = to_le32(node->id),
		.flags = to_le32(node->flags),
		.incarnation = to_le64(node->incarnation),
		.start = to_le64(node->start),
		.session = to_le64(node->session),
		.version_min = to_le32(node->version_min),
		.version_max = to_le32(node->version_max),
		.loops = to_le32(node->loops),
		.sequence = to_le64(node->sequence),
	};

	for (unsigned i = 0; i < LOG_WINDOW_WORDS; i++)
		image.applied[i] = to_le64(node->applied[i]);
	memcpy(image.address, node->address, sizeof(image.address));
	memcpy(image.zone, node->zone, sizeof(image.zone));
	out_put(out, &image, sizeof(image));
}

static void put_store(struct out *out, const struct cluster_store *store)
{
	struct log_image_store image = {
		.uuid = uuid_to_log(&store->uuid),
		.id = to_le32(store->id),
		.node = to_le32(store->node),
		.flags = to_le32(store->flags),
		.weight = to_le32(store->weight),
		.shards = to_le32(store->shards),
		.incarnation = to_le64(store->incarnation),
		.start = to_le64(store->start),
		.size_bytes = to_le64(store->size_bytes),
	};

	memcpy(image.path, store->path, sizeof(image.path));
	out_put(out, &image, sizeof(image));
}

static void put_pg(struct out *out, const struct cluster_pg *pg)
{
	struct log_image_pg image = {
		.id = to_le32(pg->id),
		.primary = to_le32(pg->primary),
		.epoch = to_le64(pg->epoch),
		.reign = to_le64(pg->reign),
		.loss_epoch = to_le64(pg->loss_epoch),
		.target_index = to_le64(pg->target_index),
		.fence_index = to_le64(pg->fence_index),
		.fence_incarnation = to_le64(pg->fence_incarnation),
		.fence_store = to_le32(pg->fence_store),
		.fence_node = to_le32(pg->fence_node),
		.forced = to_le32(pg->forced),
		.isr_count = to_le16((uint16_t)pg->isr_count),
		.join_count = to_le16((uint16_t)pg->join_count),
		.target_count = to_le16((uint16_t)pg->target_count),
	};

	out_put(out, &image, sizeof(image));
	for (uint32_t i = 0; i < pg->isr_count; i++) {
		struct log_image_seat seat = {.store = to_le32(pg->isr[i].store),
					      .flags = to_le32(pg->isr[i].flags)};

		out_put(out, &seat, sizeof(seat));
	}
	for (uint32_t i = 0; i < pg->join_count; i++) {
		struct log_image_join join = {
			.store = to_le32(pg->joining[i].store),
			.index = to_le64(pg->joining[i].index),
			.incarnation = to_le64(pg->joining[i].incarnation),
		};

		out_put(out, &join, sizeof(join));
	}
	for (uint32_t i = 0; i < pg->target_count; i++) {
		le32 store = to_le32(pg->target[i]);

		out_put(out, &store, sizeof(store));
	}
}

static void put_properties(struct out *out, const struct cluster_volume *volume)
{
	for (uint32_t i = 0; i < volume->property_count; i++) {
		const struct cluster_property *property = &volume->properties[i];
		size_t key = strlen(property->key), value = strlen(property->value);
		struct log_image_property image = {.key_length = to_le16((uint16_t)key),
						   .value_length = to_le16((uint16_t)value)};

		out_put(out, &image, sizeof(image));
		out_put(out, property->key, key);
		out_put(out, property->value, value);
	}
}

static void put_volume(struct out *out, const struct cluster_volume *volume)
{
	size_t name_length = strlen(volume->name);
	struct log_image_volume image = {
		.id = to_le64(volume->id),
		.family = to_le64(volume->family),
		.size_bytes = to_le64(volume->size_bytes),
		.generation = to_le64(volume->generation),
		.owner = to_le64(volume->owner),
		.created = to_le64(volume->created),
		.changed = to_le64(volume->changed),
		.high_bytes = to_le64(volume->high_bytes),
		.created_s = to_le64(volume->created_s),
		.policy = to_le32(volume->policy),
		.access = to_le16((uint16_t)volume->access),
		.durability = to_le16((uint16_t)volume->durability),
		.name_length = to_le16((uint16_t)name_length),
		.layer_count = to_le16((uint16_t)volume->layer_count),
		.opener_count = to_le16((uint16_t)volume->opener_count),
		.property_count = to_le16((uint16_t)volume->property_count),
	};

	out_put(out, &image, sizeof(image));
	out_put(out, volume->name, name_length);
	for (uint32_t i = 0; i < volume->layer_count; i++) {
		le64 layer = to_le64(volume->layers[i]);

		out_put(out, &layer, sizeof(layer));
	}
	for (uint32_t i = 0; i < volume->opener_count; i++) {
		struct log_image_opener opener = {
			.session = to_le64(volume->openers[i].session),
			.flags = to_le32(volume->openers[i].flags),
		};

		out_put(out, &opener, sizeof(opener));
	}
	put_properties(out, volume);
}

/* CRC of all bytes, the header's own field taken as zero. */
static uint32_t image_crc(const uint8_t *data, size_t size)
{
	static const uint8_t zero[sizeof(le32)];
	size_t at = offsetof(struct log_image, crc), after = at + sizeof(zero);
	uint32_t crc = crc32c_extend(crc32c(data, at), zero, sizeof(zero));

	return crc32c_extend(crc, data + after, size - after);
}

int cluster_encode(const struct cluster_map *map, void **data, size_t *size)
{
	struct out out = {0};
	const struct cluster_volume *volume = cluster_volume_next(map, 0);
	const struct cluster_store *store = cluster_store_next(map, 0);
	const struct cluster_node *node = cluster_node_next(map, 0);
	const struct cluster_pg *pg = cluster_pg_next(map, 0);
	struct log_image *image;

	put_head(&out, map);
	for (; node; node = cluster_node_next(map, node->id))
		put_node(&out, node);
	for (; store; store = cluster_store_next(map, store->id))
		put_store(&out, store);
	for (; pg; pg = cluster_pg_next(map, pg->id + 1))
		put_pg(&out, pg);
	for (; volume; volume = cluster_volume_next(map, volume->id))
		put_volume(&out, volume);
	if (out.failed) {
		free(out.data);
		return -ENOMEM;
	}
	image = (struct log_image *)out.data;
	image->size = to_le64(out.size);
	image->crc = to_le32(image_crc(out.data, out.size));
	*data = out.data;
	*size = out.size;
	return 0;
}

int cluster_digest(const struct cluster_map *map, uint64_t *out)
{
	void *data;
	size_t size;
	int rc = cluster_encode(map, &data, &size);

	if (rc < 0)
		return rc;
	*out = hash_bytes(data, size);
	free(data);
	return 0;
}

/* ---- reading ---- */

static void get_settings(struct cluster_map *map, struct bytes_reader *in, uint32_t count)
{
	for (uint32_t i = 0; i < count && !in->failed; i++) {
		const struct log_image_setting *setting = bytes_take(in, sizeof(*setting));
		int id;

		if (!setting)
			return;
		if (!wire_text_is_valid(setting->name, sizeof(setting->name), false)) {
			in->failed = true;
			return;
		}
		/* One that we do not know is a newer version's. */
		id = cluster_setting_find(setting->name);
		if (id >= 0)
			map->settings[id] = from_le64(setting->value);
	}
}

static void get_policies(struct cluster_map *map, struct bytes_reader *in, uint32_t count)
{
	if (count > CLUSTER_POLICIES_MAX) {
		in->failed = true;
		return;
	}
	for (uint32_t i = 0; i < count; i++) {
		struct log_image_policy policy;

		bytes_read(in, &policy, sizeof(policy));
		map->policies[i] = (struct cluster_policy){
			.id = i,
			.copies = from_le32(policy.copies),
			.min_insync = from_le32(policy.min_insync),
			.pg_count = from_le32(policy.pg_count),
		};
	}
	map->policy_count = count;
}

/* Ids ascend: no thing can come twice. */
static bool ascends(struct bytes_reader *in, uint64_t *last, uint64_t id)
{
	if (in->failed || id <= *last) {
		in->failed = true;
		return false;
	}
	*last = id;
	return true;
}

static void get_node(struct cluster_edit *edit, struct bytes_reader *in, uint64_t *last)
{
	struct log_image_node image;
	struct cluster_node *node;
	struct uuid uuid;

	bytes_read(in, &image, sizeof(image));
	if (!ascends(in, last, from_le32(image.id)))
		return;
	uuid = uuid_from_log(&image.uuid);
	node = edit_add_node(edit, from_le32(image.id), &uuid);
	if (!node)
		return;
	node->flags = from_le32(image.flags);
	node->incarnation = from_le64(image.incarnation);
	node->start = from_le64(image.start);
	node->version_min = from_le32(image.version_min);
	node->version_max = from_le32(image.version_max);
	node->loops = from_le32(image.loops);
	node->sequence = from_le64(image.sequence);
	for (unsigned i = 0; i < LOG_WINDOW_WORDS; i++)
		node->applied[i] = from_le64(image.applied[i]);
	memcpy(node->address, image.address, sizeof(node->address));
	memcpy(node->zone, image.zone, sizeof(node->zone));
	edit_node_session(edit, node, from_le64(image.session));
}

static void get_store(struct cluster_edit *edit, struct bytes_reader *in, uint64_t *last)
{
	struct log_image_store image;
	struct cluster_store *store;
	struct uuid uuid;

	bytes_read(in, &image, sizeof(image));
	if (!ascends(in, last, from_le32(image.id)))
		return;
	uuid = uuid_from_log(&image.uuid);
	store = edit_add_store(edit, from_le32(image.id), &uuid);
	if (!store)
		return;
	store->node = from_le32(image.node);
	store->flags = from_le32(image.flags);
	store->weight = from_le32(image.weight);
	store->shards = from_le32(image.shards);
	store->incarnation = from_le64(image.incarnation);
	store->start = from_le64(image.start);
	store->size_bytes = from_le64(image.size_bytes);
	memcpy(store->path, image.path, sizeof(store->path));
}

static void get_pg_lists(struct cluster_pg *pg, struct bytes_reader *in)
{
	for (uint32_t i = 0; i < pg->isr_count; i++) {
		struct log_image_seat seat;

		bytes_read(in, &seat, sizeof(seat));
		pg->isr[i].store = from_le32(seat.store);
		pg->isr[i].flags = from_le32(seat.flags);
	}
	for (uint32_t i = 0; i < pg->join_count; i++) {
		struct log_image_join join;

		bytes_read(in, &join, sizeof(join));
		pg->joining[i].store = from_le32(join.store);
		pg->joining[i].index = from_le64(join.index);
		pg->joining[i].incarnation = from_le64(join.incarnation);
	}
	for (uint32_t i = 0; i < pg->target_count; i++) {
		le32 store;

		bytes_read(in, &store, sizeof(store));
		pg->target[i] = from_le32(store);
	}
}

static void get_pg(struct cluster_edit *edit, struct bytes_reader *in, uint64_t *last)
{
	struct log_image_pg image;
	struct cluster_pg *pg;

	bytes_read(in, &image, sizeof(image));
	if (from_le16(image.isr_count) > LOG_SEATS_MAX ||
	    from_le16(image.join_count) > LOG_COPIES_MAX ||
	    from_le16(image.target_count) > LOG_COPIES_MAX)
		in->failed = true;
	/* PG 0 exists. */
	if (!ascends(in, last, (uint64_t)from_le32(image.id) + 1))
		return;
	pg = edit_add_pg(edit, from_le32(image.id));
	if (!pg)
		return;
	pg->primary = from_le32(image.primary);
	pg->epoch = from_le64(image.epoch);
	pg->reign = from_le64(image.reign);
	pg->loss_epoch = from_le64(image.loss_epoch);
	pg->target_index = from_le64(image.target_index);
	pg->fence_index = from_le64(image.fence_index);
	pg->fence_incarnation = from_le64(image.fence_incarnation);
	pg->fence_store = from_le32(image.fence_store);
	pg->fence_node = from_le32(image.fence_node);
	pg->forced = from_le32(image.forced);
	pg->isr_count = from_le16(image.isr_count);
	pg->join_count = from_le16(image.join_count);
	pg->target_count = from_le16(image.target_count);
	get_pg_lists(pg, in);
}

static void get_volume_lists(struct cluster_edit *edit, struct bytes_reader *in,
			     struct cluster_volume *volume, const struct log_image_volume *image)
{
	uint32_t openers = from_le16(image->opener_count), layers = from_le16(image->layer_count);
	struct cluster_opener opener_list[CLUSTER_VOLUME_OPENERS] = {0};
	uint64_t layer_list[LOG_LAYERS_MAX] = {0};

	if (openers > CLUSTER_VOLUME_OPENERS || layers > LOG_LAYERS_MAX) {
		in->failed = true;
		return;
	}
	for (uint32_t i = 0; i < layers; i++) {
		le64 layer;

		bytes_read(in, &layer, sizeof(layer));
		layer_list[i] = from_le64(layer);
	}
	for (uint32_t i = 0; i < openers; i++) {
		struct log_image_opener opener;

		bytes_read(in, &opener, sizeof(opener));
		opener_list[i].session = from_le64(opener.session);
		opener_list[i].flags = from_le32(opener.flags);
	}
	edit_volume_layers(edit, volume, layer_list, layers);
	edit_volume_openers(edit, volume, opener_list, openers);
}

/* A text of @length bytes, closed in @out. */
static void get_text(struct bytes_reader *in, char *out, size_t size, size_t length)
{
	if (length >= size) {
		in->failed = true;
		return;
	}
	bytes_read(in, out, length);
	out[length] = 0;
	if (strlen(out) != length)
		in->failed = true;
}

static void get_properties(struct cluster_edit *edit, struct bytes_reader *in,
			   struct cluster_volume *volume, uint32_t count)
{
	struct log_property texts[CLUSTER_VOLUME_PROPERTIES];
	struct cluster_property list[CLUSTER_VOLUME_PROPERTIES];

	if (count > CLUSTER_VOLUME_PROPERTIES) {
		in->failed = true;
		return;
	}
	for (uint32_t i = 0; i < count && !in->failed; i++) {
		struct log_image_property image;

		bytes_read(in, &image, sizeof(image));
		get_text(in, texts[i].key, sizeof(texts[i].key), from_le16(image.key_length));
		get_text(in, texts[i].value, sizeof(texts[i].value), from_le16(image.value_length));
		list[i] = (struct cluster_property){texts[i].key, texts[i].value};
	}
	if (!in->failed)
		edit_volume_properties(edit, volume, list, count);
}

static void get_volume(struct cluster_edit *edit, struct bytes_reader *in, uint64_t *last)
{
	struct log_image_volume image;
	struct cluster_volume *volume;
	char name[LOG_NAME_SIZE] = {0};

	bytes_read(in, &image, sizeof(image));
	get_text(in, name, sizeof(name), from_le16(image.name_length));
	if (!ascends(in, last, from_le64(image.id)) || !name[0])
		return;
	volume = edit_add_volume(edit, from_le64(image.id));
	if (!volume)
		return;
	volume->family = from_le64(image.family);
	volume->size_bytes = from_le64(image.size_bytes);
	volume->generation = from_le64(image.generation);
	volume->owner = from_le64(image.owner);
	volume->created = from_le64(image.created);
	volume->changed = from_le64(image.changed);
	volume->high_bytes = from_le64(image.high_bytes);
	volume->created_s = from_le64(image.created_s);
	volume->policy = from_le32(image.policy);
	volume->access = from_le16(image.access);
	volume->durability = from_le16(image.durability);
	edit_volume_name(edit, volume, name);
	get_volume_lists(edit, in, volume, &image);
	get_properties(edit, in, volume, from_le16(image.property_count));
}

typedef void get_fn(struct cluster_edit *edit, struct bytes_reader *in, uint64_t *last);

static void get_all(struct cluster_edit *edit, struct bytes_reader *in, uint32_t count, get_fn *get)
{
	uint64_t last = 0;

	for (uint32_t i = 0; i < count && !in->failed && !edit->no_memory; i++)
		get(edit, in, &last);
}

static int check_head(const struct log_image *image, size_t size, struct error *err)
{
	if (size < sizeof(*image) || from_le32(image->magic) != LOG_IMAGE_MAGIC)
		return error_set(err, -E_CORRUPT, "%zu bytes that are no map", size);
	if (from_le32(image->version) != LOG_IMAGE_VERSION)
		return error_set(err, -E_WRONG_VERSION, "a map of version %u, this is %u",
				 from_le32(image->version), LOG_IMAGE_VERSION);
	if (from_le64(image->size) != size ||
	    from_le32(image->crc) != image_crc((const uint8_t *)image, size))
		return error_set(err, -E_CORRUPT, "a map of %llu bytes, %zu are there or broken",
				 (unsigned long long)from_le64(image->size), size);
	return 0;
}

static void get_map(struct cluster_edit *edit, const struct log_image *image,
		    struct bytes_reader *in)
{
	struct cluster_map *map = edit->map;

	map->level = from_le32(image->level);
	map->uuid = uuid_from_log(&image->cluster);
	map->index = from_le64(image->index);
	map->next_id = from_le64(image->next_id);
	map->next_node = from_le32(image->next_node);
	map->next_store = from_le32(image->next_store);
	map->shutdown = from_le64(image->shutdown);
	get_settings(map, in, from_le32(image->setting_count));
	get_policies(map, in, from_le32(image->policy_count));
	get_all(edit, in, from_le32(image->node_count), get_node);
	get_all(edit, in, from_le32(image->store_count), get_store);
	get_all(edit, in, from_le32(image->pg_count), get_pg);
	get_all(edit, in, from_le32(image->volume_count), get_volume);
}

int cluster_decode(const void *data, size_t size, struct cluster_map **out, struct error *err)
{
	const struct log_image *image = data;
	struct bytes_reader in = bytes_reader_of(data, size);
	struct cluster_result delta = {0};
	struct cluster_edit edit = {.result = &delta};
	int rc = check_head(image, size, err);

	if (rc < 0)
		return rc;
	edit.map = cluster_map_new();
	if (!edit.map)
		return -ENOMEM;
	edit.index = from_le64(image->index);
	(void)bytes_take(&in, sizeof(*image));
	get_map(&edit, image, &in);
	cluster_result_done(&delta);
	if (edit.no_memory)
		rc = -ENOMEM;
	else if (!bytes_done(&in))
		rc = error_set(err, -E_CORRUPT, "a map whose parts do not fit together");
	else
		rc = cluster_check(edit.map, err);
	if (rc < 0) {
		cluster_map_put(edit.map);
		return rc;
	}
	*out = edit.map;
	return 0;
}
