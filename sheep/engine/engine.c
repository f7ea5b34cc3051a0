/*
 * What all engines have in common: the table of drivers, and telling the user (engine_priv.h).
 */
#include "sheep/engine/engine_priv.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "lib/base/text.h"

#ifdef __SANITIZE_ADDRESS__
/*
 * What libraries leave behind. libzookeeper_mt 3.8 forgets what it was asked and did not answer when it is closed. A
 * connection of libqb stays open when the loop goes before the news that it was made (cpg_call.h): at the end of a process, or of
 * a member that a test kills.
 */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libzookeeper_mt\nleak:libqb.so\n";
}
#endif

static const struct engine_driver *const drivers[] = {
	&corosync_driver,
	&local_driver,
	&zk_driver,
};

static const uint8_t engine_next[ENGINE_STATE_COUNT] = {
	[ENGINE_STARTING] = BIT(ENGINE_READY) | BIT(ENGINE_FAILED) | BIT(ENGINE_LEAVING),
	[ENGINE_READY] = BIT(ENGINE_FAILED) | BIT(ENGINE_LEAVING),
	[ENGINE_FAILED] = BIT(ENGINE_LEAVING),
	[ENGINE_LEAVING] = BIT(ENGINE_LEFT),
};

static const char *const state_names[ENGINE_STATE_COUNT] = {
	[ENGINE_STARTING] = "starting", [ENGINE_READY] = "ready", [ENGINE_FAILED] = "failed",
	[ENGINE_LEAVING] = "leaving",	[ENGINE_LEFT] = "left",
};

/* The only place that writes engine->state. */
static void engine_enter(struct engine *engine, enum engine_state next, const char *why)
{
	assert(engine_next[engine->state] & BIT(next));
	log_debug("engine %s: %s -> %s: %s", engine->driver->name, state_names[engine->state],
		  state_names[next], why);
	engine->state = next;
}

/* ---- specs ---- */

static const struct engine_driver *find_driver(const char *spec, const char **rest,
					       struct error *err)
{
	size_t length = strcspn(spec, ":");
	char known[256] = "";
	struct text text = text_of(known, sizeof(known));

	for (size_t i = 0; i < ARRAY_COUNT(drivers); i++) {
		const struct engine_driver *driver = drivers[i];

		if (strlen(driver->name) == length && memcmp(driver->name, spec, length) == 0) {
			*rest = spec[length] ? spec + length + 1 : "";
			return driver;
		}
		text_append(&text, "%s%s", i ? ", " : "", driver->syntax);
	}
	error_set(err, -EINVAL, "engine '%s' is not known: use one of %s", spec, known);
	return NULL;
}

int engine_check_spec(const char *spec, struct error *err)
{
	const char *rest;
	const struct engine_driver *driver = find_driver(spec, &rest, err);

	return driver ? driver->check(rest, err) : -EINVAL;
}

/* ---- life ---- */

int engine_open(const char *spec, struct loop *loop, const struct engine_options *options,
		const struct engine_callbacks *callbacks, void *context, struct engine **out,
		struct error *err)
{
	const char *rest;
	const struct engine_driver *driver = find_driver(spec, &rest, err);
	int rc;

	if (!driver)
		return -EINVAL;
	rc = driver->check(rest, err);
	if (rc < 0)
		return rc;
	return driver->open(rest, loop, options, callbacks, context, out, err);
}

int engine_base_init(struct engine *engine, const struct engine_driver *driver, struct loop *loop,
		     const struct engine_options *options, const struct engine_callbacks *callbacks,
		     void *context, struct error *err)
{
	const struct engine_member *self = &options->self;
	void *info;

	assert(callbacks->commit && callbacks->install && callbacks->snapshot && callbacks->ready &&
	       callbacks->members && callbacks->ended && callbacks->quorum && callbacks->failed &&
	       callbacks->left);
	assert(self->start != 0 && !uuid_is_null(&self->node));
	if (self->info_size > ENGINE_INFO_MAX)
		return error_set(err, -EINVAL, "info of %u bytes: at most %u", self->info_size,
				 ENGINE_INFO_MAX);
	info = malloc(self->info_size + 1);
	if (!info)
		return error_set(err, -ENOMEM, "engine");
	if (self->info_size)
		memcpy(info, self->info, self->info_size);
	engine->driver = driver;
	engine->loop = loop;
	engine->callbacks = callbacks;
	engine->context = context;
	engine->self = *self;
	engine->self.info = info;
	engine->state = ENGINE_STARTING;
	return 0;
}

void engine_base_done(struct engine *engine)
{
	free((void *)engine->self.info);
	engine->self.info = NULL;
}

int engine_propose(struct engine *engine, const void *command, uint32_t size)
{
	int rc;

	if (!engine_is_open(engine))
		return -E_SHUTDOWN;
	if (size == 0 || size > ENGINE_COMMAND_MAX)
		return -EMSGSIZE;
	rc = engine->driver->propose(engine, command, size);
	if (rc == 0)
		engine->stats.proposals++;
	return rc;
}

void engine_forget(struct engine *engine, const struct uuid *node)
{
	if (engine_is_open(engine) && engine->driver->forget)
		engine->driver->forget(engine, node);
}

void engine_link(struct engine *engine, const struct uuid *node, uint64_t start, bool is_closed)
{
	if (engine_is_open(engine) && engine->driver->link)
		engine->driver->link(engine, node, start, is_closed);
}

void engine_leave(struct engine *engine)
{
	engine_enter(engine, ENGINE_LEAVING, "told to");
	engine->driver->leave(engine);
}

void engine_free(struct engine *engine)
{
	if (!engine)
		return;
	assert(engine->state == ENGINE_LEFT);
	engine->driver->free(engine);
}

struct uuid engine_log(const struct engine *engine)
{
	return engine->log;
}

const char *engine_name(const struct engine *engine)
{
	return engine->driver->name;
}

uint64_t engine_index(const struct engine *engine)
{
	return engine->index;
}

void engine_stats_get(const struct engine *engine, struct engine_stats *out)
{
	*out = engine->stats;
}

/* ---- telling the user ---- */

void engine_tell_commit(struct engine *engine, uint64_t index, const void *command, uint32_t size)
{
	if (!engine_is_open(engine))
		return;
	assert(index > engine->index);
	engine->index = index;
	engine->stats.commits++;
	engine->stats.commit_bytes += size;
	engine->callbacks->commit(engine->context, index, command, size);
}

int engine_tell_install(struct engine *engine, uint64_t index, const void *image, size_t size,
			struct error *err)
{
	if (!engine_is_open(engine))
		return 0;
	assert(index > engine->index);
	engine->index = index;
	engine->stats.installs++;
	return engine->callbacks->install(engine->context, index, image, size, err);
}

int engine_take_snapshot(struct engine *engine, struct engine_image *out)
{
	struct engine_image image = {0};
	int rc;

	assert(engine_is_open(engine));
	rc = engine->callbacks->snapshot(engine->context, &image);
	if (rc < 0)
		return rc;
	if (image.size > ENGINE_IMAGE_MAX) {
		free(image.data);
		return -EFBIG;
	}
	engine->stats.snapshots++;
	*out = image;
	return 0;
}

void engine_tell_ready(struct engine *engine)
{
	if (engine->state != ENGINE_STARTING)
		return;
	engine_enter(engine, ENGINE_READY, "all that was committed is here");
	engine->callbacks->ready(engine->context);
}

void engine_tell_members(struct engine *engine, const struct engine_member *members, uint32_t count)
{
	if (engine->state == ENGINE_READY)
		engine->callbacks->members(engine->context, members, count);
}

void engine_tell_ended(struct engine *engine, const struct uuid *node, uint64_t start,
		       enum engine_end how)
{
	if (engine->state == ENGINE_READY)
		engine->callbacks->ended(engine->context, node, start, how);
}

void engine_tell_quorum(struct engine *engine, bool has_quorum)
{
	if (engine->state != ENGINE_READY || engine->has_quorum == has_quorum)
		return;
	engine->has_quorum = has_quorum;
	engine->callbacks->quorum(engine->context, has_quorum);
}

void engine_tell_failed(struct engine *engine, const struct error *err)
{
	if (!engine_is_open(engine))
		return;
	engine_enter(engine, ENGINE_FAILED, err->text);
	engine->callbacks->failed(engine->context, err);
}

void engine_tell_left(struct engine *engine)
{
	engine_enter(engine, ENGINE_LEFT, "through");
	engine->callbacks->left(engine->context);
}
