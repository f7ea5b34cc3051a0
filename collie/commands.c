/* The commands, in the order in which the help shows them. */
#include "collie/command.h"

#include <string.h>

#include "lib/base/size.h"
#include "lib/base/text.h"

/* ---- how answers are shown ---- */

#define COLUMNS(...) ((const struct column[]){__VA_ARGS__, {0}})

static const struct view view_nodes = {
	.kind = VIEW_TABLE,
	.columns = COLUMNS({"NODE", "{id}", COLUMN_RIGHT}, {"ADDRESS", "{address}"},
			   {"ZONE", "{zone}"}, {"STATUS", "{status}"},
			   {"STORES", "{stores:count}", COLUMN_RIGHT}, {"VERSION", "{version}"}),
};

static const struct view view_cluster = {
	.kind = VIEW_RECORD,
	.columns = COLUMNS({"cluster", "{uuid}"}, {"status", "{status}"},
			   {"copies", "{copies}, at least {min_insync} in sync", COLUMN_OPTIONAL},
			   {"level", "{level}", COLUMN_OPTIONAL},
			   {"stores", "{stores.up} up of {stores.total}", COLUMN_OPTIONAL},
			   {"space",
			    "{space.used:size} used, {space.allocated:size} allocated of "
			    "{space.size:size}",
			    COLUMN_OPTIONAL},
			   {"volumes", "{volumes}", COLUMN_OPTIONAL},
			   {"PGs",
			    "{pgs.active} active of {pgs.total}; {pgs.degraded} degraded, "
			    "{pgs.recovering} recovering, {pgs.down} down",
			    COLUMN_OPTIONAL},
			   {"missing",
			    "{recovery.objects_missing} objects, "
			    "{recovery.bytes_missing:size}",
			    COLUMN_OPTIONAL}),
	.list_path = "nodes",
	.list_view = &view_nodes,
};

static const struct view view_shutdown = {
	.kind = VIEW_LINE,
	.columns = COLUMNS({"", "told to stop: nodes {nodes}"}),
};

static const struct view view_wait = {
	.kind = VIEW_LINE,
	.columns = COLUMNS({"", "the cluster is {status}"}),
};

static const struct view view_stores = {
	.kind = VIEW_TABLE,
	.columns = COLUMNS({"STORE", "{uuid}"}, {"NODE", "{node}", COLUMN_RIGHT},
			   {"STATUS", "{status}"}, {"SIZE", "{size:size}", COLUMN_RIGHT},
			   {"USED", "{used:size}", COLUMN_RIGHT},
			   {"ALLOCATED", "{allocated:size}", COLUMN_RIGHT},
			   {"WEIGHT", "{weight}", COLUMN_RIGHT}, {"PATH", "{path}"}),
};

static const struct view view_pgs = {
	.kind = VIEW_TABLE,
	.columns = COLUMNS({"PG", "{id}", COLUMN_RIGHT}, {"EPOCH", "{epoch}", COLUMN_RIGHT},
			   {"STATUS", "{status}"}, {"PRIMARY", "{primary:short}"},
			   {"IN SYNC", "{isr:short}"}, {"JOINING", "{joining:short}"},
			   {"TARGET", "{target:short}"}),
};

static const struct view view_recovering = {
	.kind = VIEW_TABLE,
	.columns = COLUMNS({"PG", "{id}", COLUMN_RIGHT}, {"STORE", "{store:short}"},
			   {"OBJECTS", "{objects_missing}", COLUMN_RIGHT},
			   {"MISSING", "{bytes_missing:size}", COLUMN_RIGHT}),
};

static const struct view view_recovery = {
	.kind = VIEW_RECORD,
	.columns = COLUMNS({"status", "{status}"},
			   {"missing", "{objects_missing} objects, {bytes_missing:size}"},
			   {"moved", "{objects_moved} objects, {bytes_moved:size}"},
			   {"speed", "{bytes_per_second:size}/s"},
			   {"time left", "{seconds_left:time}", COLUMN_OPTIONAL},
			   {"throttle", "{throttle:size}", COLUMN_OPTIONAL}),
	.list_path = "pgs",
	.list_view = &view_recovering,
};

static const struct view view_volume = {
	.kind = VIEW_RECORD,
	.columns = COLUMNS({"name", "{name}"}, {"id", "{id}"}, {"size", "{size:size}"},
			   {"used", "{used:size}"}, {"access", "{access}"},
			   {"durability", "{durability}", COLUMN_OPTIONAL},
			   {"opened by", "{opened_by.node}"},
			   {"snapshots", "{snapshots}", COLUMN_OPTIONAL},
			   {"parent", "{parent}", COLUMN_OPTIONAL}),
};

static const struct view view_volumes = {
	.kind = VIEW_TABLE,
	.columns = COLUMNS({"NAME", "{name}"}, {"ID", "{id}", COLUMN_RIGHT},
			   {"SIZE", "{size:size}", COLUMN_RIGHT},
			   {"USED", "{used:size}", COLUMN_RIGHT},
			   {"SNAPSHOTS", "{snapshots:count}", COLUMN_RIGHT}, {"ACCESS", "{access}"},
			   {"OPENED BY", "{opened_by.node}"}),
};

static const struct view view_deleted = {
	.kind = VIEW_LINE,
	.columns = COLUMNS({"", "volume '{name}' is deleted"}),
};

/* ---- the table ---- */

#define OPERAND_VOLUME                                                            \
	{                                                                         \
		.option = {.name = "NAME"}, .kind = ARGUMENT_TEXT, .key = "name", \
		.complete = COMPLETE_VOLUME                                       \
	}

const struct command commands[] = {
	{
		.noun = "cluster",
		.verb = "format",
		.help = "make a cluster of the stores that are registered",
		.more = "The first command of a cluster. Stores that register later are used too.\n"
			"Copies go to different zones where there are enough of them. A write is\n"
			"acknowledged only while at least --min-insync copies take it.",
		.op = ADMIN_OP_CLUSTER_FORMAT,
		.options =
			{
				{.option = {"copies", 0, "N", "copies of everything (default: 3)"},
				 .kind = ARGUMENT_COUNT,
				 .key = "copies"},
				{.option = {"min-insync", 0, "N",
					    "serve only with so many (default: copies - 1,\n"
					    "at least 1)"},
				 .kind = ARGUMENT_COUNT,
				 .key = "min_insync"},
				{.option = {"pgs", 0, "N",
					    "placement groups, a power of two (default: 256)"},
				 .kind = ARGUMENT_COUNT,
				 .key = "pgs"},
				{.option = {"wait-nodes", 0, "N",
					    "first wait until N nodes with stores are up"},
				 .kind = ARGUMENT_COUNT,
				 .key = "wait_nodes"},
				{.option = {"force", 0, NULL,
					    "although there are fewer stores than copies"},
				 .kind = ARGUMENT_FLAG,
				 .key = "force"},
			},
		.view = &view_cluster,
		.run = wait_format,
	},
	{
		.noun = "cluster",
		.verb = "info",
		.help = "how the cluster is",
		.more = "Status: unformatted; down, some placement group does not serve; degraded, there\n"
			"are too few copies of something; recovering, and they are being made; healthy.",
		.op = ADMIN_OP_CLUSTER_INFO,
		.view = &view_cluster,
	},
	{
		.noun = "cluster",
		.verb = "wait",
		.help = "wait until the cluster is as wished",
		.more = "Exits with 6 when that is not so after --timeout. With --nodes alone a\n"
			"cluster that is not formatted yet is good enough.",
		.op = ADMIN_OP_CLUSTER_INFO,
		.options =
			{
				{.option = {"status", 0, "STATUS",
					    "which status (default: healthy)"},
				 .kind = ARGUMENT_WORD,
				 .key = "status",
				 .words = wait_statuses},
				{.option = {"nodes", 0, "N", "and so many nodes up, or more"},
				 .kind = ARGUMENT_COUNT,
				 .key = "nodes"},
			},
		.view = &view_wait,
		.run = wait_cluster,
	},
	{
		.noun = "cluster",
		.verb = "shutdown",
		.help = "stop every sheep cleanly",
		.op = ADMIN_OP_CLUSTER_SHUTDOWN,
		.view = &view_shutdown,
	},
	{
		.noun = "node",
		.verb = "list",
		.help = "the machines, and whether they are up",
		.op = ADMIN_OP_NODE_LIST,
		.view = &view_nodes,
	},
	{
		.noun = "store",
		.verb = "list",
		.help = "the disks, and how full they are",
		.more = "USED: live data. ALLOCATED: the segments that hold it, and what is to be\n"
			"cleaned there.",
		.op = ADMIN_OP_STORE_LIST,
		.view = &view_stores,
	},
	{
		.noun = "pg",
		.verb = "list",
		.help = "the placement groups, and who holds them",
		.op = ADMIN_OP_PG_LIST,
		.options =
			{
				{.option = {"not-clean", 0, NULL,
					    "only those with something to be done"},
				 .kind = ARGUMENT_FLAG,
				 .key = "not_clean"},
			},
		.view = &view_pgs,
	},
	{
		.noun = "vdi",
		.verb = "create",
		.help = "make a volume",
		.more = "It takes space only for what is written to it.",
		.op = ADMIN_OP_VDI_CREATE,
		.operands =
			{
				{.option = {.name = "NAME"}, .kind = ARGUMENT_TEXT, .key = "name"},
				{.option = {.name = "SIZE"}, .kind = ARGUMENT_SIZE, .key = "size"},
			},
		.options =
			{
				{.option = {"set", 0, "KEY=VALUE", "a property; repeatable"},
				 .kind = ARGUMENT_PROPERTY,
				 .key = "set"},
			},
		.view = &view_volume,
	},
	{
		.noun = "vdi",
		.verb = "list",
		.help = "the volumes",
		.op = ADMIN_OP_VDI_LIST,
		.view = &view_volumes,
	},
	{
		.noun = "vdi",
		.verb = "info",
		.help = "all about a volume",
		.op = ADMIN_OP_VDI_INFO,
		.operands = {OPERAND_VOLUME},
		.view = &view_volume,
	},
	{
		.noun = "vdi",
		.verb = "delete",
		.help = "delete a volume and its data",
		.more = "Refused with 6 while it is open; the message says where.",
		.op = ADMIN_OP_VDI_DELETE,
		.operands = {OPERAND_VOLUME},
		.view = &view_deleted,
	},
	{
		.noun = "recovery",
		.verb = "info",
		.help = "what is being copied to get all copies back",
		.op = ADMIN_OP_RECOVERY_INFO,
		.view = &view_recovery,
	},
};

const size_t command_count = ARRAY_COUNT(commands);

/* ---- reading it ---- */

const struct command *command_find(const char *noun, const char *verb)
{
	for (size_t i = 0; i < command_count; i++)
		if (strcmp(commands[i].noun, noun) == 0 &&
		    (!verb || strcmp(commands[i].verb, verb) == 0))
			return &commands[i];
	return NULL;
}

struct option_table command_options(const struct command *command)
{
	struct option_table table = {&command->options[0].option, 0, sizeof(command->options[0])};

	while (table.count < COMMAND_OPTIONS_MAX && command->options[table.count].option.name)
		table.count++;
	return table;
}

const char *command_synopsis(const struct command *command, char *out, size_t size)
{
	struct text text = text_of(out, size);

	text_append(&text, "%s %s", command->noun, command->verb);
	for (size_t i = 0; i < COMMAND_OPERANDS_MAX && command->operands[i].option.name; i++)
		text_append(&text, " %s", command->operands[i].option.name);
	for (size_t i = 0; i < COMMAND_OPTIONS_MAX && command->options[i].option.name; i++) {
		const struct argument *argument = &command->options[i];
		text_append(&text, " [--%s%s%s]%s", argument->option.name,
			    argument->option.value ? " " : "",
			    argument->option.value ? argument->option.value : "",
			    argument->kind == ARGUMENT_PROPERTY ? "..." : "");
	}
	return out;
}

static int bad_argument(const struct argument *argument, struct failure *failure, const char *value,
			const char *wanted)
{
	return failure_set(failure, COLLIE_USAGE, "usage", "%s%s: '%s' is not %s",
			   argument->option.help ? "--" : "", argument->option.name, value, wanted);
}

static int add_property(const struct argument *argument, const char *value,
			struct json_object *arguments, struct failure *failure)
{
	const char *equals = strchr(value, '=');
	struct json_object *properties = NULL;
	char key[128];

	if (!equals || equals == value || (size_t)(equals - value) >= sizeof(key))
		return bad_argument(argument, failure, value, "KEY=VALUE");
	memcpy(key, value, (size_t)(equals - value));
	key[equals - value] = '\0';
	if (!json_object_object_get_ex(arguments, argument->key, &properties)) {
		properties = json_object_new_object();
		json_object_object_add(arguments, argument->key, properties);
	}
	if (json_object_object_get_ex(properties, key, NULL))
		return failure_set(failure, COLLIE_USAGE, "usage", "--%s: '%s' is there twice",
				   argument->option.name, key);
	json_object_object_add(properties, key, json_object_new_string(equals + 1));
	return 0;
}

static bool is_word(const char *const *words, const char *value)
{
	while (*words && strcmp(*words, value) != 0)
		words++;
	return *words;
}

int command_argument(const struct argument *argument, const char *value,
		     struct json_object *arguments, struct failure *failure)
{
	struct json_object *json = NULL;
	uint64_t number;
	int rc;

	switch ((enum argument_kind)argument->kind) {
	case ARGUMENT_TEXT:
		if (!text_is_clean(value, strlen(value)))
			return failure_set(failure, COLLIE_USAGE, "usage", "%s is not clean UTF-8",
					   argument->option.name);
		json = json_object_new_string(value);
		break;
	case ARGUMENT_COUNT:
		if (text_parse_u64(value, INT32_MAX, &number) < 0)
			return bad_argument(argument, failure, value, "a whole number");
		json = json_object_new_uint64(number);
		break;
	case ARGUMENT_SIZE:
		rc = text_parse_size(value, &number);
		if (rc == -ERANGE)
			return failure_set(failure, COLLIE_USAGE, "usage", "%s: '%s' is too large",
					   argument->option.name, value);
		if (rc < 0)
			return bad_argument(argument, failure, value,
					    "a size: bytes, or a number with K M G T P");
		json = json_object_new_uint64(number);
		break;
	case ARGUMENT_FLAG:
		json = json_object_new_boolean(1);
		break;
	case ARGUMENT_WORD:
		if (!is_word(argument->words, value))
			return bad_argument(argument, failure, value, "a known word; see the help");
		json = json_object_new_string(value);
		break;
	case ARGUMENT_PROPERTY:
		return add_property(argument, value, arguments, failure);
	}
	json_object_object_add(arguments, argument->key, json);
	return 0;
}
