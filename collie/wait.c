/*
 * Commands that wait. They ask, look, and ask again a little later; the sheep knows nothing of
 * the wait, so it may restart meanwhile, and an interrupted collie interrupts nothing.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "collie/command.h"
#include "lib/base/size.h"

#define PAUSE_MIN_NS (100 * NS_PER_MS)
#define PAUSE_MAX_NS NS_PER_S

const char *const wait_statuses[] = {"unformatted", "healthy", "degraded",
				     "recovering",  "down",    NULL};

/* ---- progress ---- */

void progress_show(struct collie *collie, const char *format, ...)
{
	va_list ap;

	if (!collie->io->is_terminal)
		return;
	fputs("\r\033[K", collie->io->err);
	va_start(ap, format);
	(void)vfprintf(collie->io->err, format, ap);
	va_end(ap);
	fflush(collie->io->err);
	collie->has_progress = true;
}

void progress_clear(struct collie *collie)
{
	if (collie->has_progress)
		fputs("\r\033[K", collie->io->err);
	collie->has_progress = false;
}

/* ---- what a document says ---- */

static const char *text_at(struct json_object *document, const char *key)
{
	struct json_object *value = json_object_object_get(document, key);

	return json_object_is_type(value, json_type_string) ? json_object_get_string(value) : "";
}

/* How many nodes of a list are up; @with_stores: and have a store. */
static size_t count_up(struct json_object *nodes, bool with_stores)
{
	size_t count = 0;

	for (size_t i = 0;
	     json_object_is_type(nodes, json_type_array) && i < json_object_array_length(nodes);
	     i++) {
		struct json_object *node = json_object_array_get_idx(nodes, i);
		if (!json_object_is_type(node, json_type_object))
			continue;
		struct json_object *stores = json_object_object_get(node, "stores");
		bool has_stores = json_object_is_type(stores, json_type_array) &&
				  json_object_array_length(stores) > 0;
		const char *status = text_at(node, "status");
		bool is_up = strcmp(status, "up") == 0 || strcmp(status, "draining") == 0;
		count += is_up && (has_stores || !with_stores);
	}
	return count;
}

/* ---- asking again and again ---- */

struct waiting {
	struct collie *collie;
	uint64_t pause_ns;
	bool was_reached;
	bool is_over; /* the time went by in the middle of a question */
};

/*
 * Ask; a sheep that was there before and is not now is waited for. 0 and @out, which is NULL when
 * there was no answer this time, or an exit code.
 */
static int wait_ask(struct waiting *waiting, enum admin_op op, struct json_object **out)
{
	struct collie *collie = waiting->collie;
	int rc = ask(collie, op, NULL, out);

	if (rc == 0) {
		waiting->was_reached = true;
		return 0;
	}
	if (!collie->call || !waiting->was_reached)
		return rc;
	waiting->is_over = call_now(collie->call) >= collie->deadline_ns;
	if (rc == COLLIE_UNREACHABLE || waiting->is_over) {
		progress_show(collie, "the sheep does not answer; trying again");
		*out = NULL;
		return 0;
	}
	return rc;
}

/* Pause, longer each time. False: the time is over. */
static bool wait_pause(struct waiting *waiting)
{
	struct call *call = waiting->collie->call;
	uint64_t now_ns = call_now(call);
	uint64_t pause_ns = waiting->pause_ns ? waiting->pause_ns : PAUSE_MIN_NS;

	if (waiting->is_over || now_ns >= waiting->collie->deadline_ns)
		return false;
	call_sleep(call, min_of(now_ns + pause_ns, waiting->collie->deadline_ns));
	waiting->pause_ns = min_of(pause_ns * 3 / 2, PAUSE_MAX_NS);
	return call_now(call) < waiting->collie->deadline_ns;
}

static int timed_out(struct collie *collie, const char *seen)
{
	return failure_set(&collie->failure, COLLIE_BUSY, "timed_out", "timed out after %.3g s: %s",
			   (double)collie->timeout_ns / NS_PER_S, seen);
}

/* ---- cluster wait ---- */

struct wish {
	const char *status; /* NULL: any that a formatted cluster should have */
	uint64_t nodes;	    /* 0: any */
};

static bool is_as_wished(const struct wish *wish, struct json_object *info)
{
	const char *status = text_at(info, "status");

	if (count_up(json_object_object_get(info, "nodes"), false) < wish->nodes)
		return false;
	if (wish->status)
		return strcmp(status, wish->status) == 0;
	return strcmp(status, "healthy") == 0 ||
	       (wish->nodes > 0 && strcmp(status, "unformatted") == 0);
}

int wait_cluster(struct collie *collie, struct json_object *arguments, struct json_object **out)
{
	struct waiting waiting = {.collie = collie};
	const char *status = text_at(arguments, "status");
	struct wish wish = {
		.status = *status ? status : NULL,
		.nodes = json_object_get_uint64(json_object_object_get(arguments, "nodes")),
	};
	char seen[256] = "the sheep does not answer";

	do {
		struct json_object *info = NULL;
		int rc = wait_ask(&waiting, ADMIN_OP_CLUSTER_INFO, &info);
		if (rc != 0)
			return rc;
		if (!info)
			continue;
		if (is_as_wished(&wish, info)) {
			*out = info;
			return 0;
		}
		char *line = view_expand("the cluster is {status}, {recovery.objects_missing} "
					 "objects ({recovery.bytes_missing:size}) are missing",
					 info, NULL);
		snprintf(seen, sizeof(seen), "%s; nodes up: %zu", line ? line : "",
			 count_up(json_object_object_get(info, "nodes"), false));
		free(line);
		json_object_put(info);
		progress_show(collie, "%s", seen);
	} while (wait_pause(&waiting));
	return timed_out(collie, seen);
}

/* ---- cluster format ---- */

static int wait_nodes(struct collie *collie, uint64_t wanted)
{
	struct waiting waiting = {.collie = collie};
	char seen[128] = "the sheep does not answer";

	do {
		struct json_object *nodes = NULL;
		int rc = wait_ask(&waiting, ADMIN_OP_NODE_LIST, &nodes);
		if (rc != 0)
			return rc;
		if (!nodes)
			continue;
		size_t count = count_up(nodes, true);
		json_object_put(nodes);
		if (count >= wanted)
			return 0;
		snprintf(seen, sizeof(seen), "nodes up with stores: %zu of %llu", count,
			 (unsigned long long)wanted);
		progress_show(collie, "%s", seen);
	} while (wait_pause(&waiting));
	return timed_out(collie, seen);
}

int wait_format(struct collie *collie, struct json_object *arguments, struct json_object **out)
{
	uint64_t wanted = json_object_get_uint64(json_object_object_get(arguments, "wait_nodes"));
	int rc = 0;

	json_object_object_del(arguments, "wait_nodes");
	if (wanted > 0)
		rc = wait_nodes(collie, wanted);
	return rc != 0 ? rc : ask(collie, ADMIN_OP_CLUSTER_FORMAT, arguments, out);
}
