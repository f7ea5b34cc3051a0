/* The commands, in the order in which the help shows them. */
#include "collie/command.h"

#include "lib/base/size.h"

/* ---- how answers are shown ---- */

#define COLUMNS(...) ((const struct column[]){__VA_ARGS__, {0}})

static const struct view view_nodes = {
	.kind = VIEW_TABLE,
	.columns = COLUMNS({"NODE", "{id}", COLUMN_RIGHT}, {"ADDRESS", "{address}"},
			   {"ZONE", "{zone}"}, {"STATUS", "{status}"},
			   {"STORES", "{stores:count}", COLUMN_RIGHT},
			   {"COPIES", "{copies}", COLUMN_RIGHT}, {"VERSION", "{version}"}),
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
			   {"FREE", "{free:size}", COLUMN_RIGHT},
			   {"WEIGHT", "{weight}", COLUMN_RIGHT}, {"PATH", "{path}"}),
};

static const struct view view_store = {
	.kind = VIEW_LINE,
	.columns = COLUMNS({"", "store {uuid} is {status}, weight {weight}"}),
};

static const struct view view_node = {
	.kind = VIEW_LINE,
	.columns = COLUMNS({"", "node {id} is {status} and holds {copies} copies"}),
};

static const struct view view_removed = {
	.kind = VIEW_LINE,
	.columns = COLUMNS({"", "node {id} is forgotten"}),
};

static const struct view view_setting = {
	.kind = VIEW_LINE,
	.columns = COLUMNS({"", "{key} is {value} (default: {default})"}),
};

static const struct view view_settings = {
	.kind = VIEW_TABLE,
	.columns = COLUMNS({"KEY", "{key}"}, {"VALUE", "{value}", COLUMN_RIGHT},
			   {"DEFAULT", "{default}", COLUMN_RIGHT}, {"MEANING", "{meaning}"}),
};

static const struct view view_problem = {
	.kind = VIEW_STORY,
	.columns = COLUMNS({"", "{severity}: {what}"}, {"  ", "{meaning}"}, {"  > ", "{action}"}),
};

static const struct view view_health = {
	.kind = VIEW_STORY,
	.columns = COLUMNS({"", "the cluster is {status}"}),
	.list_path = "problems",
	.list_view = &view_problem,
	.nothing = "nothing to report",
};

static const struct view view_pgs = {
	.kind = VIEW_TABLE,
	.columns = COLUMNS({"PG", "{id}", COLUMN_RIGHT}, {"EPOCH", "{epoch}", COLUMN_RIGHT},
			   {"STATUS", "{status}"}, {"PRIMARY", "{primary:short}"},
			   {"IN SYNC", "{isr:short}"}, {"JOINING", "{joining:short}"},
			   {"TARGET", "{target:short}"}, {"FORCED", "{forced}", COLUMN_RIGHT},
			   {"LOSS", "{loss_epoch}", COLUMN_RIGHT}),
};

static const struct view view_forced = {
	.kind = VIEW_LINE,
	.columns = COLUMNS({"", "pg {id} goes on from store {primary}; loss accepted {forced} "
				"time(s)"}),
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
			   {"used", "{used:size}"}, {"created", "{created}", COLUMN_OPTIONAL},
			   {"access", "{access}"}, {"durability", "{durability}", COLUMN_OPTIONAL},
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

static const char *const store_keys[] = {"weight", NULL};

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
		.noun = "cluster",
		.verb = "health",
		.help = "what is wrong, what it means, what to do",
		.more = "An error: data cannot be reached, or soon not be written. A warning: less is safe\n"
			"than should be. A note: good to know; loss of data stays there for ever.",
		.op = ADMIN_OP_CLUSTER_HEALTH,
		.view = &view_health,
	},
	{
		.noun = "cluster",
		.verb = "settings",
		.help = "the settings, their defaults and meaning",
		.op = ADMIN_OP_CLUSTER_SETTINGS,
		.view = &view_settings,
	},
	{
		.noun = "cluster",
		.verb = "set",
		.help = "change a setting for the whole cluster",
		.more = "Times: 1500ms, 2s, 10m, 1h; a bare number is seconds. Sizes: bytes, or with K M G T P.\n"
			"\"default\" takes the default again.",
		.op = ADMIN_OP_CLUSTER_SET,
		.operands = {{.option = {.name = "KEY"},
			      .kind = ARGUMENT_TEXT,
			      .key = "key",
			      .complete = COMPLETE_SETTING},
			     {.option = {.name = "VALUE"}, .kind = ARGUMENT_TEXT, .key = "value"}},
		.view = &view_setting,
	},
	{
		.noun = "cluster",
		.verb = "force-recover",
		.help = "accept loss: serve a placement group from what is left",
		.more = "For a placement group whose complete copies will never come back. Without\n"
			"--yes-lose-data it says who may still have them, and what would be lost. The STORE\n"
			"to believe is the listed one with the newest data if it is not given. Refused with 6\n"
			"while the group can come back by itself. Recorded, and shown for ever.",
		.op = ADMIN_OP_CLUSTER_FORCE,
		.operands = {{.option = {.name = "PG"}, .kind = ARGUMENT_COUNT, .key = "pg"},
			     {.option = {.name = "STORE"},
			      .kind = ARGUMENT_TEXT,
			      .key = "store",
			      .complete = COMPLETE_STORE,
			      .is_optional = true}},
		.options = {{.option = {"yes-lose-data", 0, NULL, "do it"},
			     .kind = ARGUMENT_FLAG,
			     .key = "yes_lose_data"}},
		.view = &view_forced,
	},
	{
		.noun = "node",
		.verb = "list",
		.help = "the machines, and whether they are up",
		.op = ADMIN_OP_NODE_LIST,
		.view = &view_nodes,
	},
	{
		.noun = "node",
		.verb = "drain",
		.help = "move its data to others; it stays in sync meanwhile",
		.more = "A copy leaves the node when it is complete elsewhere; `node list` shows how many are\n"
			"left. Then stop it and remove it. A node that is down gives up its share at once.",
		.op = ADMIN_OP_NODE_DRAIN,
		.operands = {{.option = {.name = "ID"},
			      .kind = ARGUMENT_COUNT,
			      .key = "id",
			      .complete = COMPLETE_NODE}},
		.view = &view_node,
	},
	{
		.noun = "node",
		.verb = "undrain",
		.help = "let it have data again",
		.op = ADMIN_OP_NODE_UNDRAIN,
		.operands = {{.option = {.name = "ID"},
			      .kind = ARGUMENT_COUNT,
			      .key = "id",
			      .complete = COMPLETE_NODE}},
		.view = &view_node,
	},
	{
		.noun = "node",
		.verb = "remove",
		.help = "forget a node",
		.more = "Refused with 6 while it is up, and while a placement group still lists a copy there.",
		.op = ADMIN_OP_NODE_REMOVE,
		.operands = {{.option = {.name = "ID"},
			      .kind = ARGUMENT_COUNT,
			      .key = "id",
			      .complete = COMPLETE_NODE}},
		.view = &view_removed,
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
		.noun = "store",
		.verb = "set",
		.help = "change the weight of a store",
		.more = "weight N: its share of the data against others; at first its size in MiB. 0: to hold\n"
			"nothing. \"default\" is by its size again. The first digits of the UUID will do.",
		.op = ADMIN_OP_STORE_SET,
		.operands = {{.option = {.name = "UUID"},
			      .kind = ARGUMENT_TEXT,
			      .key = "uuid",
			      .complete = COMPLETE_STORE},
			     {.option = {.name = "KEY"},
			      .kind = ARGUMENT_WORD,
			      .key = "key",
			      .words = store_keys},
			     {.option = {.name = "VALUE"}, .kind = ARGUMENT_TEXT, .key = "value"}},
		.view = &view_store,
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
		.more = "USED: what was written and not trimmed since, one copy of it. A dash: some sheep did\n"
			"not answer.",
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
		.noun = "vdi",
		.verb = "rename",
		.help = "give a volume another name",
		.more = "Also while it is open: connections stay.",
		.op = ADMIN_OP_VDI_RENAME,
		.operands = {OPERAND_VOLUME,
			     {.option = {.name = "NEW"}, .kind = ARGUMENT_TEXT, .key = "to"}},
		.view = &view_volume,
	},
	{
		.noun = "vdi",
		.verb = "resize",
		.help = "change the size of a volume",
		.more = "Growing is live; a client sees the new size when it connects again. Shrinking loses\n"
			"what is behind the new end, for ever: it needs --shrink, and the volume must\n"
			"be closed. A volume that was shrunk does not grow again.",
		.op = ADMIN_OP_VDI_RESIZE,
		.operands = {OPERAND_VOLUME,
			     {.option = {.name = "SIZE"}, .kind = ARGUMENT_SIZE, .key = "size"}},
		.options = {{.option = {"shrink", 0, NULL, "smaller is meant"},
			     .kind = ARGUMENT_FLAG,
			     .key = "shrink"}},
		.view = &view_volume,
	},
	{
		.noun = "vdi",
		.verb = "set",
		.help = "change a property of a volume",
		.more = "access: single (one gateway writes at a time) or shared. durability: flush, or always\n"
			"(each write is on stable storage before it is acknowledged). Other keys are notes of\n"
			"your own; an empty VALUE removes them.",
		.op = ADMIN_OP_VDI_SET,
		.operands = {OPERAND_VOLUME,
			     {.option = {.name = "KEY"},
			      .kind = ARGUMENT_TEXT,
			      .key = "key",
			      .complete = COMPLETE_PROPERTY},
			     {.option = {.name = "VALUE"}, .kind = ARGUMENT_TEXT, .key = "value"}},
		.view = &view_volume,
	},
	{
		.noun = "recovery",
		.verb = "info",
		.help = "what is being copied to get all copies back",
		.op = ADMIN_OP_RECOVERY_INFO,
		.view = &view_recovery,
	},
	{
		.noun = "recovery",
		.verb = "pause",
		.help = "make no copies but those that clients wait for",
		.op = ADMIN_OP_RECOVERY_PAUSE,
		.view = &view_recovery,
	},
	{
		.noun = "recovery",
		.verb = "resume",
		.help = "make the missing copies again",
		.op = ADMIN_OP_RECOVERY_RESUME,
		.view = &view_recovery,
	},
	{
		.noun = "recovery",
		.verb = "throttle",
		.help = "limit what each sheep copies, in bytes a second",
		.more = "0 takes the limit off.",
		.op = ADMIN_OP_RECOVERY_THROTTLE,
		.operands = {{.option = {.name = "BYTES/S"}, .kind = ARGUMENT_SIZE, .key = "rate"}},
		.view = &view_recovery,
	},
};

const size_t command_count = ARRAY_COUNT(commands);
