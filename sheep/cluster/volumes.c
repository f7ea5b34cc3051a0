/*
 * Commands on volumes, and the one place that judges their names, sizes and properties.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "sheep/cluster/cluster_priv.h"

/* ---- names, sizes, properties ---- */

/* -EINVAL with just this text. */
static int invalid(struct error *err, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static int invalid(struct error *err, const char *format, ...)
{
	char text[ERROR_TEXT_MAX];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	/* An errno would add its own words. */
	(void)error_set(err, -E_PROTOCOL, "%s", text);
	if (err)
		err->code = -EINVAL;
	return -EINVAL;
}

int cluster_check_volume_name(const char *name, size_t length, struct error *err)
{
	const char *why = NULL;

	if (!length || length >= LOG_NAME_SIZE)
		why = "must have 1 to 255 bytes";
	else if (!text_is_clean(name, length))
		why = "must be UTF-8 without control characters";
	else if (memchr(name, '@', length) || memchr(name, '/', length))
		why = "must not have '@' or '/' in it";
	else if (name[0] == ' ' || name[length - 1] == ' ')
		why = "must not begin or end with a space";
	else if (name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.')))
		why = "must not be '.' or '..'";
	else if (length >= 3 && memcmp(name, "ro:", 3) == 0)
		why = "must not begin with 'ro:'";
	return why ? invalid(err, "a volume's name %s", why) : 0;
}

int cluster_check_volume_size(uint64_t size_bytes, struct error *err)
{
	if (!size_bytes || size_bytes % CLUSTER_VOLUME_SIZE_UNIT)
		return invalid(err, "size %llu is not a multiple of %u above 0",
			       (unsigned long long)size_bytes, CLUSTER_VOLUME_SIZE_UNIT);
	if (size_bytes > CLUSTER_VOLUME_SIZE_MAX)
		return invalid(err, "size %llu is above 16 PiB", (unsigned long long)size_bytes);
	return 0;
}

/* Properties that are fields of a volume: their values are the rows of a table. */
static const char *const access_names[] = {
	[CLUSTER_ACCESS_SINGLE] = "single",
	[CLUSTER_ACCESS_SHARED] = "shared",
};
static const char *const durability_names[] = {
	[CLUSTER_DURABILITY_FLUSH] = "flush",
	[CLUSTER_DURABILITY_ALWAYS] = "always",
};

static void set_access(struct cluster_volume *volume, unsigned value)
{
	volume->access = value;
}

static void set_durability(struct cluster_volume *volume, unsigned value)
{
	volume->durability = value;
}

static const struct known_property {
	const char *key;
	const char *const *values;
	unsigned count;
	void (*set)(struct cluster_volume *volume, unsigned value);
} known_properties[] = {
	{"access", access_names, ARRAY_COUNT(access_names), set_access},
	{"durability", durability_names, ARRAY_COUNT(durability_names), set_durability},
};

static const struct known_property *find_known(const char *key)
{
	for (size_t i = 0; i < ARRAY_COUNT(known_properties); i++)
		if (strcmp(known_properties[i].key, key) == 0)
			return &known_properties[i];
	return NULL;
}

static int find_value(const struct known_property *known, const char *value)
{
	for (unsigned i = 0; i < known->count; i++)
		if (strcmp(known->values[i], value) == 0)
			return (int)i;
	return -EINVAL;
}

int cluster_check_property(const char *key, const char *value, struct error *err)
{
	const struct known_property *known = find_known(key);
	size_t length = strlen(key);

	if (known && find_value(known, value) < 0)
		return invalid(err, "%s is '%s' or '%s', not '%.64s'", key, known->values[0],
			       known->values[1], value);
	if (!length || length >= LOG_KEY_SIZE ||
	    strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789_.-") != length)
		return invalid(err, "a property's name is 1 to %u of a-z 0-9 _ . -",
			       LOG_KEY_SIZE - 1);
	length = strlen(value);
	if (length >= LOG_VALUE_SIZE || !text_is_clean(value, length))
		return error_set(err, -EINVAL,
				 "a property's value is at most %u bytes of UTF-8 without control "
				 "characters",
				 LOG_VALUE_SIZE - 1);
	return 0;
}

struct cluster_property *properties_copy(const struct cluster_property *from, uint32_t count,
					 bool *ok)
{
	size_t size = count * sizeof(*from);
	struct cluster_property *copy;
	char *at;

	if (!count)
		return NULL;
	for (uint32_t i = 0; i < count; i++)
		size += strlen(from[i].key) + strlen(from[i].value) + 2;
	copy = malloc(size);
	if (!copy) {
		*ok = false;
		return NULL;
	}
	at = (char *)(copy + count);
	for (uint32_t i = 0; i < count; i++) {
		size_t key = strlen(from[i].key) + 1, value = strlen(from[i].value) + 1;

		copy[i].key = memcpy(at, from[i].key, key);
		copy[i].value = memcpy(at + key, from[i].value, value);
		at += key + value;
	}
	return copy;
}

/* ---- setting properties ---- */

static enum proto_status check_wire_property(struct cluster_edit *edit,
					     const struct log_property *property)
{
	struct error err = {0};

	if (!wire_text_is_valid(property->key, sizeof(property->key), false) ||
	    !wire_text_is_valid(property->value, sizeof(property->value), true))
		return refuse(edit, PROTO_STATUS_INVALID, "a property with bad fields");
	if (cluster_check_property(property->key, property->value, &err) < 0)
		return refuse(edit, PROTO_STATUS_INVALID, "%s", err.text);
	return PROTO_STATUS_OK;
}

/* Keys ascend; an empty value takes the key out. */
static enum proto_status set_free_property(struct cluster_edit *edit, struct cluster_volume *volume,
					   const struct log_property *property)
{
	struct cluster_property list[CLUSTER_VOLUME_PROPERTIES + 1];
	uint32_t count = 0, i = 0;

	while (i < volume->property_count && strcmp(volume->properties[i].key, property->key) < 0)
		list[count++] = volume->properties[i++];
	if (i < volume->property_count && strcmp(volume->properties[i].key, property->key) == 0)
		i++;
	if (property->value[0])
		list[count++] = (struct cluster_property){property->key, property->value};
	while (i < volume->property_count)
		list[count++] = volume->properties[i++];
	if (count > CLUSTER_VOLUME_PROPERTIES)
		return refuse(edit, PROTO_STATUS_NO_SPACE, "a volume has at most %u properties",
			      CLUSTER_VOLUME_PROPERTIES);
	edit_volume_properties(edit, volume, list, count);
	return PROTO_STATUS_OK;
}

static enum proto_status set_property(struct cluster_edit *edit, struct cluster_volume *volume,
				      const struct log_property *property)
{
	const struct known_property *known;
	enum proto_status status = check_wire_property(edit, property);

	if (status != PROTO_STATUS_OK)
		return status;
	known = find_known(property->key);
	if (!known)
		return set_free_property(edit, volume, property);
	known->set(volume, (unsigned)find_value(known, property->value));
	return PROTO_STATUS_OK;
}

/* ---- commands ---- */

static enum proto_status find_volume(struct cluster_edit *edit, uint64_t id,
				     const struct cluster_volume **out)
{
	*out = cluster_volume(edit->map, id);
	if (*out)
		return PROTO_STATUS_OK;
	return refuse(edit, PROTO_STATUS_NOT_FOUND, "volume %llu does not exist",
		      (unsigned long long)id);
}

static enum proto_status check_new_name(struct cluster_edit *edit, const char *name)
{
	struct error err = {0};

	if (!wire_text_is_valid(name, LOG_NAME_SIZE, false))
		return refuse(edit, PROTO_STATUS_INVALID, "a volume's name with bad bytes");
	if (cluster_check_volume_name(name, strlen(name), &err) < 0)
		return refuse(edit, PROTO_STATUS_INVALID, "%s", err.text);
	if (cluster_volume_by_name(edit->map, name))
		return refuse(edit, PROTO_STATUS_EXISTS, "volume '%.200s' exists already", name);
	return PROTO_STATUS_OK;
}

static enum proto_status check_create(struct cluster_edit *edit,
				      const struct log_volume_create *body)
{
	struct error err = {0};
	enum proto_status status = check_new_name(edit, body->name);

	if (status != PROTO_STATUS_OK)
		return status;
	if (cluster_check_volume_size(from_le64(body->size_bytes), &err) < 0)
		return refuse(edit, PROTO_STATUS_INVALID, "volume '%.100s': %s", body->name,
			      err.text);
	if (!cluster_policy(edit->map, from_le32(body->policy)))
		return refuse(edit, PROTO_STATUS_NOT_FOUND, "policy %u does not exist",
			      from_le32(body->policy));
	if (cluster_volume_count(edit->map) >= CLUSTER_VOLUMES_MAX)
		return refuse(edit, PROTO_STATUS_NO_SPACE, "a cluster has at most %u volumes",
			      CLUSTER_VOLUMES_MAX);
	return PROTO_STATUS_OK;
}

enum proto_status apply_volume_create(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_volume_create *body = log->body;
	const struct log_property *properties = log->rows;
	uint64_t id = edit->map->next_id;
	struct cluster_volume *volume;
	enum proto_status status = check_create(edit, body);

	if (status != PROTO_STATUS_OK)
		return status;
	edit->map->next_id++;
	volume = edit_add_volume(edit, id);
	if (!volume)
		return PROTO_STATUS_NO_MEMORY;
	volume->family = id;
	volume->size_bytes = from_le64(body->size_bytes);
	volume->high_bytes = volume->size_bytes;
	volume->created_s = from_le64(body->created_s);
	volume->policy = from_le32(body->policy);
	volume->generation = edit->index;
	edit_volume_name(edit, volume, body->name);
	edit_volume_layers(edit, volume, &id, 1);
	for (uint32_t i = 0; i < log->row_count && status == PROTO_STATUS_OK; i++)
		status = set_property(edit, volume, &properties[i]);
	edit->result->id = id;
	return status;
}

static enum proto_status refuse_if_open(struct cluster_edit *edit,
					const struct cluster_volume *volume)
{
	const struct cluster_node *node;

	if (!volume->opener_count)
		return PROTO_STATUS_OK;
	node = cluster_node_by_session(edit->map, volume->openers[0].session);
	return refuse(edit, PROTO_STATUS_BUSY, "volume '%.100s' is open at %u gateways, one is %s",
		      volume->name, volume->opener_count, node ? node->address : "unknown");
}

enum proto_status apply_volume_delete(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_volume_delete *body = log->body;
	const struct cluster_volume *volume;
	enum proto_status status = find_volume(edit, from_le64(body->volume), &volume);

	if (status == PROTO_STATUS_OK)
		status = refuse_if_open(edit, volume);
	if (status == PROTO_STATUS_OK) {
		edit_remove_volume(edit, volume->id);
		edit->map->garbage_index = edit->index;
	}
	return status;
}

enum proto_status apply_volume_rename(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_volume_rename *body = log->body;
	const struct cluster_volume *known;
	struct cluster_volume *volume;
	enum proto_status status = find_volume(edit, from_le64(body->volume), &known);

	if (status != PROTO_STATUS_OK)
		return status;
	if (strncmp(known->name, body->name, sizeof(body->name)) != 0)
		return refuse(edit, PROTO_STATUS_BUSY, "volume %llu is '%.200s' by now",
			      (unsigned long long)known->id, known->name);
	status = check_new_name(edit, body->to);
	if (status != PROTO_STATUS_OK)
		return status;
	volume = edit_volume(edit, known->id);
	if (!volume)
		return PROTO_STATUS_NO_MEMORY;
	edit_volume_name(edit, volume, body->to);
	return PROTO_STATUS_OK;
}

static enum proto_status check_resize(struct cluster_edit *edit,
				      const struct cluster_volume *volume,
				      const struct log_volume_resize *body)
{
	struct error err = {0};

	if (volume->size_bytes != from_le64(body->from_bytes))
		return refuse(edit, PROTO_STATUS_BUSY, "volume '%.100s' has %llu bytes by now",
			      volume->name, (unsigned long long)volume->size_bytes);
	if (cluster_check_volume_size(from_le64(body->to_bytes), &err) < 0)
		return refuse(edit, PROTO_STATUS_INVALID, "volume '%.100s': %s", volume->name,
			      err.text);
	if (from_le64(body->to_bytes) > volume->size_bytes &&
	    volume->high_bytes > volume->size_bytes)
		return refuse(edit, PROTO_STATUS_READ_ONLY,
			      "volume '%.100s' was shrunk and cannot grow again: old data might "
			      "appear behind its end; copy it to a new one",
			      volume->name);
	if (from_le64(body->to_bytes) >= volume->size_bytes)
		return PROTO_STATUS_OK;
	if (!(from_le32(body->flags) & LOG_RESIZE_SHRINK))
		return refuse(edit, PROTO_STATUS_INVALID,
			      "volume '%.100s' would shrink and lose what is behind its new end",
			      volume->name);
	return refuse_if_open(edit, volume);
}

enum proto_status apply_volume_resize(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_volume_resize *body = log->body;
	const struct cluster_volume *known;
	struct cluster_volume *volume;
	enum proto_status status = find_volume(edit, from_le64(body->volume), &known);

	if (status == PROTO_STATUS_OK)
		status = check_resize(edit, known, body);
	if (status != PROTO_STATUS_OK || from_le64(body->to_bytes) == known->size_bytes)
		return status;
	volume = edit_volume(edit, known->id);
	if (!volume)
		return PROTO_STATUS_NO_MEMORY;
	if (from_le64(body->to_bytes) < volume->size_bytes)
		edit->map->garbage_index = edit->index;
	volume->size_bytes = from_le64(body->to_bytes);
	volume->high_bytes = max_of(volume->high_bytes, volume->size_bytes);
	return PROTO_STATUS_OK;
}

/*
 * Nobody owns it, at first. From shared to single all connections that are there now end: whoever writes
 * under the old generation might be one of many. From single to shared the owner's go on: they may do
 * what they may; those that lost it before stay behind its generation.
 */
static void access_changed(struct cluster_edit *edit, struct cluster_volume *volume)
{
	volume->owner = 0;
	if (volume->access == CLUSTER_ACCESS_SINGLE)
		volume->generation = edit->index;
}

enum proto_status apply_volume_set(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_volume_set *body = log->body;
	const struct cluster_volume *known;
	struct cluster_volume *volume;
	enum proto_status status = find_volume(edit, from_le64(body->volume), &known);

	if (status != PROTO_STATUS_OK)
		return status;
	enum cluster_access before = known->access;
	volume = edit_volume(edit, known->id);
	if (!volume)
		return PROTO_STATUS_NO_MEMORY;
	status = set_property(edit, volume, &body->property);
	if (status == PROTO_STATUS_OK && volume->access != before)
		access_changed(edit, volume);
	return status;
}

/* ---- who has it open ---- */

/* The openers without @session, and with @added behind them in order if it is not NULL. */
static void replace_opener(struct cluster_edit *edit, struct cluster_volume *volume,
			   uint64_t session, const struct cluster_opener *added)
{
	struct cluster_opener *list = calloc(volume->opener_count + 1, sizeof(*list));
	uint32_t count = 0, i = 0;

	if (!list) {
		edit->no_memory = true;
		return;
	}
	for (; i < volume->opener_count && volume->openers[i].session < session; i++)
		list[count++] = volume->openers[i];
	if (i < volume->opener_count && volume->openers[i].session == session)
		i++;
	if (added)
		list[count++] = *added;
	for (; i < volume->opener_count; i++)
		list[count++] = volume->openers[i];
	edit_volume_openers(edit, volume, list, count);
	free(list);
}

static const struct cluster_opener *find_opener(const struct cluster_volume *volume,
						uint64_t session)
{
	for (uint32_t i = 0; i < volume->opener_count; i++)
		if (volume->openers[i].session == session)
			return &volume->openers[i];
	return NULL;
}

static enum proto_status check_session(struct cluster_edit *edit, uint64_t session)
{
	if (session && cluster_node_by_session(edit->map, session))
		return PROTO_STATUS_OK;
	return refuse(edit, PROTO_STATUS_STALE_SESSION, "session %llu has ended",
		      (unsigned long long)session);
}

enum proto_status apply_volume_open(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_volume_open *body = log->body;
	struct cluster_opener opener = {0};
	const struct cluster_opener *there;
	const struct cluster_volume *known;
	struct cluster_volume *volume;
	enum proto_status status = check_session(edit, from_le64(body->session));

	if (status == PROTO_STATUS_OK)
		status = find_volume(edit, from_le64(body->volume), &known);
	if (status != PROTO_STATUS_OK)
		return status;
	opener.session = from_le64(body->session);
	opener.flags = from_le32(body->flags) & LOG_OPEN_READ_ONLY;
	there = find_opener(known, opener.session);
	if (there && there->flags == opener.flags)
		return PROTO_STATUS_OK;
	volume = edit_volume(edit, known->id);
	if (!volume)
		return PROTO_STATUS_NO_MEMORY;
	replace_opener(edit, volume, opener.session, &opener);
	return PROTO_STATUS_OK;
}

enum proto_status apply_volume_close(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_volume_open *body = log->body;
	const struct cluster_volume *known;
	struct cluster_volume *volume;
	enum proto_status status = find_volume(edit, from_le64(body->volume), &known);

	if (status != PROTO_STATUS_OK || !find_opener(known, from_le64(body->session)))
		return status;
	volume = edit_volume(edit, known->id);
	if (!volume)
		return PROTO_STATUS_NO_MEMORY;
	replace_opener(edit, volume, from_le64(body->session), NULL);
	if (volume->owner == from_le64(body->session))
		volume->owner = 0;
	return PROTO_STATUS_OK;
}

enum proto_status apply_volume_own(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_volume_own *body = log->body;
	const struct cluster_opener *opener;
	const struct cluster_volume *known;
	struct cluster_volume *volume;
	enum proto_status status = check_session(edit, from_le64(body->session));

	if (status == PROTO_STATUS_OK)
		status = find_volume(edit, from_le64(body->volume), &known);
	if (status != PROTO_STATUS_OK)
		return status;
	if (known->generation != from_le64(body->generation))
		return refuse(edit, PROTO_STATUS_STALE_GENERATION,
			      "volume '%.100s' is in generation %llu by now", known->name,
			      (unsigned long long)known->generation);
	if (known->access == CLUSTER_ACCESS_SHARED)
		return refuse(edit, PROTO_STATUS_INVALID,
			      "volume '%.100s' is shared: nobody owns it", known->name);
	opener = find_opener(known, from_le64(body->session));
	if (!opener || (opener->flags & LOG_OPEN_READ_ONLY))
		return refuse(edit, PROTO_STATUS_READ_ONLY,
			      "volume '%.100s' is not open for writing there", known->name);
	if (known->owner == from_le64(body->session))
		return PROTO_STATUS_OK;
	volume = edit_volume(edit, known->id);
	if (!volume)
		return PROTO_STATUS_NO_MEMORY;
	volume->owner = from_le64(body->session);
	volume->generation = edit->index;
	return PROTO_STATUS_OK;
}

void volumes_end_session(struct cluster_edit *edit, uint64_t session)
{
	const struct cluster_volume *known;
	uint64_t after = 0;

	while ((known = cluster_volume_next(edit->map, after)) != NULL && !edit->no_memory) {
		struct cluster_volume *volume;

		after = known->id;
		if (known->owner != session && !find_opener(known, session))
			continue;
		volume = edit_volume(edit, after);
		if (!volume)
			return;
		replace_opener(edit, volume, session, NULL);
		if (volume->owner == session)
			volume->owner = 0;
	}
}
