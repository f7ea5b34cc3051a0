/*
 * Settings, policies, the level: what an operator decides for the whole cluster.
 */
#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "sheep/cluster/cluster_priv.h"

const struct cluster_setting cluster_settings[CLUSTER_SETTING_COUNT] = {
#define SETTING_ROW(id, text, of_kind, value, lowest, highest, says) \
	[CLUSTER_SETTING_##id] = {.name = (text),                    \
				  .kind = CLUSTER_KIND_##of_kind,    \
				  .preset = (value),                 \
				  .min = (lowest),                   \
				  .max = (highest),                  \
				  .meaning = (says)},
	CLUSTER_SETTING_LIST(SETTING_ROW)
#undef SETTING_ROW
};

uint64_t cluster_setting(const struct cluster_map *map, enum cluster_setting_id id)
{
	assert(id < CLUSTER_SETTING_COUNT);
	return map->settings[id];
}

uint64_t cluster_setting_ns(const struct cluster_map *map, enum cluster_setting_id id)
{
	assert(cluster_settings[id].kind == CLUSTER_KIND_TIME);
	return map->settings[id] * NS_PER_MS;
}

int cluster_setting_find(const char *name)
{
	for (int i = 0; i < (int)CLUSTER_SETTING_COUNT; i++)
		if (strcmp(cluster_settings[i].name, name) == 0)
			return i;
	return -E_NOT_FOUND;
}

/* ---- as text ---- */

static const struct {
	const char *suffix;
	uint64_t ms;
} time_units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};

static int parse_time(const char *text, uint64_t *out)
{
	char digits[24];
	size_t length = strspn(text, "0123456789");
	uint64_t value, unit = 1000;
	int rc;

	if (length >= sizeof(digits))
		return -ERANGE;
	memcpy(digits, text, length);
	digits[length] = 0;
	if (text[length]) {
		unit = 0;
		for (size_t i = 0; i < ARRAY_COUNT(time_units); i++)
			if (strcmp(text + length, time_units[i].suffix) == 0)
				unit = time_units[i].ms;
		if (!unit)
			return -EINVAL;
	}
	rc = text_parse_u64(digits, UINT64_MAX / unit, &value);
	if (rc == 0)
		*out = value * unit;
	return rc;
}

static int parse_bool(const char *text, uint64_t *out)
{
	bool yes = strcmp(text, "yes") == 0 || strcmp(text, "1") == 0;

	if (!yes && strcmp(text, "no") != 0 && strcmp(text, "0") != 0)
		return -EINVAL;
	*out = yes;
	return 0;
}

static int check_range(enum cluster_setting_id id, uint64_t value, struct error *err)
{
	const struct cluster_setting *setting = &cluster_settings[id];
	char low[CLUSTER_SETTING_TEXT_MAX], high[CLUSTER_SETTING_TEXT_MAX];

	if (value >= setting->min && value <= setting->max)
		return 0;
	return error_set(err, -E_STALE, "%s must be from %s to %s", setting->name,
			 cluster_setting_format(id, setting->min, low),
			 cluster_setting_format(id, setting->max, high));
}

int cluster_setting_parse(enum cluster_setting_id id, const char *text, uint64_t *out,
			  struct error *err)
{
	const struct cluster_setting *setting = &cluster_settings[id];
	uint64_t value = 0;
	int rc;

	switch (setting->kind) {
	case CLUSTER_KIND_TIME:
		rc = parse_time(text, &value);
		break;
	case CLUSTER_KIND_SIZE:
		rc = text_parse_size(text, &value);
		break;
	case CLUSTER_KIND_BOOL:
		rc = parse_bool(text, &value);
		break;
	default:
		rc = text_parse_u64(text, UINT64_MAX, &value);
	}
	if (rc < 0)
		return error_set(err, rc, "setting '%s': '%.64s'", setting->name, text);
	if (check_range(id, value, err) < 0)
		return -ERANGE;
	*out = value;
	return 0;
}

const char *cluster_setting_format(enum cluster_setting_id id, uint64_t value,
				   char out[CLUSTER_SETTING_TEXT_MAX])
{
	struct text text = text_of(out, CLUSTER_SETTING_TEXT_MAX);

	switch (cluster_settings[id].kind) {
	case CLUSTER_KIND_TIME:
		if (value % 1000)
			text_append(&text, "%llums", (unsigned long long)value);
		else
			text_append(&text, "%llus", (unsigned long long)value / 1000);
		break;
	case CLUSTER_KIND_BOOL:
		text_append(&text, "%s", value ? "yes" : "no");
		break;
	default:
		text_append(&text, "%llu", (unsigned long long)value);
	}
	return out;
}

/* ---- as commands ---- */

/* What settings must be to each other, for REPLICATION L1 and L2. */
static const char *misfit(const uint64_t *settings)
{
	uint64_t lease = settings[CLUSTER_SETTING_LEASE];
	uint64_t grace = settings[CLUSTER_SETTING_GRACE];
	uint64_t beacon = settings[CLUSTER_SETTING_BEACON];

	if (grace * 4 < lease * 5)
		return "grace must be at least 5/4 of lease";
	if (lease && beacon * 3 > lease)
		return "beacon must be at most 1/3 of lease";
	return NULL;
}

enum proto_status apply_setting(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_setting *body = log->body;
	uint64_t value = from_le64(body->value), before;
	struct error err = {0};
	const char *why;
	int id = wire_text_is_valid(body->name, sizeof(body->name), false)
			 ? cluster_setting_find(body->name)
			 : -E_NOT_FOUND;

	if (id < 0)
		return refuse(edit, PROTO_STATUS_NOT_FOUND, "there is no setting '%.63s'",
			      body->name);
	if (check_range((enum cluster_setting_id)id, value, &err) < 0)
		return refuse(edit, PROTO_STATUS_INVALID, "%s", err.text);
	before = edit->map->settings[id];
	edit->map->settings[id] = value;
	why = misfit(edit->map->settings);
	if (why)
		return refuse(edit, PROTO_STATUS_INVALID, "%s", why);
	if (before != value)
		edit->result->changed |= CLUSTER_CHANGED_SETTINGS;
	return PROTO_STATUS_OK;
}

/* @min_insync 0: the default. */
static enum proto_status check_policy(struct cluster_edit *edit, uint32_t copies,
				      uint32_t min_insync)
{
	if (!copies || copies > LOG_COPIES_MAX)
		return refuse(edit, PROTO_STATUS_INVALID, "copies must be from 1 to %u",
			      LOG_COPIES_MAX);
	if (min_insync > copies)
		return refuse(edit, PROTO_STATUS_INVALID,
			      "min_insync must be from 1 to copies: %u is more than %u", min_insync,
			      copies);
	return PROTO_STATUS_OK;
}

static uint32_t default_min_insync(uint32_t copies, uint32_t asked)
{
	return asked ? asked : copies > 1 ? copies - 1 : 1;
}

enum proto_status apply_policy(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_policy *body = log->body;
	uint32_t id = from_le32(body->policy), copies = from_le32(body->copies);
	uint32_t min_insync = from_le32(body->min_insync);
	struct cluster_policy *policy;
	enum proto_status status;

	if (!cluster_policy(edit->map, id))
		return refuse(edit, PROTO_STATUS_NOT_FOUND, "policy %u does not exist", id);
	policy = &edit->map->policies[id];
	if (copies == LOG_POLICY_KEEP)
		copies = policy->copies;
	if (min_insync == LOG_POLICY_KEEP)
		min_insync = policy->min_insync;
	status = check_policy(edit, copies, min_insync);
	if (status != PROTO_STATUS_OK)
		return status;
	min_insync = default_min_insync(copies, min_insync);
	if (policy->copies == copies && policy->min_insync == min_insync)
		return PROTO_STATUS_OK;
	policy->copies = copies;
	policy->min_insync = min_insync;
	edit->result->changed |= CLUSTER_CHANGED_SETTINGS;
	pgs_settle(edit, OLD_IS_SILENT);
	return PROTO_STATUS_OK;
}

/* The first node whose version range does not have @level; NULL: all can. */
static const struct cluster_node *who_cannot(const struct cluster_map *map, uint32_t level)
{
	const struct cluster_node *node;
	uint32_t after = 0;

	while ((node = cluster_node_next(map, after)) != NULL) {
		if (level < node->version_min || level > node->version_max)
			return node;
		after = node->id;
	}
	return NULL;
}

static enum proto_status refuse_level(struct cluster_edit *edit, const struct cluster_node *node,
				      uint32_t level)
{
	return refuse(edit, PROTO_STATUS_WRONG_VERSION,
		      "node %u speaks versions %u to %u and cannot have level %u", node->id,
		      node->version_min, node->version_max, level);
}

/* The map does not change: whoever applies it while it runs, stops. */
/* Kept, for those who get it in an image. */
enum proto_status apply_shutdown(struct cluster_edit *edit, const struct log_body *log)
{
	edit->map->shutdown = edit->index;
	return PROTO_STATUS_OK;
}

enum proto_status apply_level(struct cluster_edit *edit, const struct log_body *log)
{
	uint32_t level = from_le32(((const struct log_set_level *)log->body)->level);
	const struct cluster_node *node = who_cannot(edit->map, level);

	if (level <= edit->map->level)
		return refuse(edit, PROTO_STATUS_EXISTS, "the cluster is at level %u already",
			      edit->map->level);
	if (node)
		return refuse_level(edit, node, level);
	edit->map->level = level;
	edit->result->changed |= CLUSTER_CHANGED_SETTINGS;
	return PROTO_STATUS_OK;
}

static uint32_t count_stores_up(const struct cluster_map *map)
{
	const struct cluster_store *store;
	uint32_t after = 0, count = 0;

	while ((store = cluster_store_next(map, after)) != NULL) {
		count += cluster_store_is_up(map, store->id);
		after = store->id;
	}
	return count;
}

static enum proto_status check_format(struct cluster_edit *edit, const struct log_format *body)
{
	struct uuid uuid = uuid_from_log(&body->cluster);
	uint32_t copies = from_le32(body->copies), pg_count = from_le32(body->pg_count);
	uint32_t stores = count_stores_up(edit->map);
	const struct cluster_node *node = who_cannot(edit->map, from_le32(body->level));
	char text[UUID_TEXT_SIZE];
	enum proto_status status;

	if (cluster_is_formatted(edit->map))
		return refuse(edit, PROTO_STATUS_EXISTS, "the cluster is formatted already: %s",
			      uuid_format(&edit->map->uuid, text));
	status = check_policy(edit, copies, from_le32(body->min_insync));
	if (status != PROTO_STATUS_OK)
		return status;
	if (pg_count > CLUSTER_PG_COUNT_MAX || (pg_count && !is_power_of_two(pg_count)))
		return refuse(edit, PROTO_STATUS_INVALID,
			      "the number of placement groups must be a power of two up to %u",
			      CLUSTER_PG_COUNT_MAX);
	if (uuid_is_null(&uuid) || !from_le32(body->level))
		return refuse(edit, PROTO_STATUS_INVALID, "a format with bad fields");
	if (node)
		return refuse_level(edit, node, from_le32(body->level));
	if (!stores || (stores < copies && !(from_le32(body->flags) & LOG_FORMAT_FORCE)))
		return refuse(edit, PROTO_STATUS_INVALID,
			      "%u copies need as many stores, %u are registered", copies, stores);
	return PROTO_STATUS_OK;
}

/* The PGs have no members yet: the first RETARGET of each gives it those. */
enum proto_status apply_format(struct cluster_edit *edit, const struct log_body *log)
{
	const struct log_format *body = log->body;
	struct cluster_map *map = edit->map;
	struct cluster_policy *policy = &map->policies[0];
	uint32_t pg_count = from_le32(body->pg_count);
	enum proto_status status = check_format(edit, body);

	if (status != PROTO_STATUS_OK)
		return status;
	map->uuid = uuid_from_log(&body->cluster);
	map->level = from_le32(body->level);
	map->policy_count = 1;
	policy->id = 0;
	policy->copies = from_le32(body->copies);
	policy->min_insync = default_min_insync(policy->copies, from_le32(body->min_insync));
	policy->pg_count = pg_count ? pg_count : 256;
	for (uint32_t i = 0; i < policy->pg_count && !edit->no_memory; i++)
		(void)edit_add_pg(edit, i);
	edit->result->changed |= CLUSTER_CHANGED_SETTINGS | CLUSTER_CHANGED_FORMATTED;
	return PROTO_STATUS_OK;
}
