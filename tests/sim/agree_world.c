/* What users of the agreement are told, and whether it is right (agree_world.h). */
#include "tests/sim/agree_world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/hash.h"

struct command {
	uint32_t user, number;
	uint64_t start;
};

struct image {
	uint64_t digest, index;
};

void world_broken(struct world *world, const char *format, ...)
{
	va_list arguments;

	if (world->has_failed)
		return;
	world->has_failed = true;
	va_start(arguments, format);
	(void)vsnprintf(world->why, sizeof(world->why), format, arguments);
	va_end(arguments);
}

/* ---- what is told ---- */

static void check_truth(struct user *user, const char *what)
{
	struct world *world = user->world;

	if (user->index >= WORLD_INDEX_MAX) {
		world_broken(world, "too many entries");
		return;
	}
	if (!world->truth[user->index])
		world->truth[user->index] = user->digest;
	if (world->truth[user->index] != user->digest)
		world_broken(world, "user %u has another %s at %llu than one had before",
			     user->number, what, (unsigned long long)user->index);
	world->last = max_of(world->last, user->index);
}

/* It began with an empty disk, and nobody ran who had the log. */
static bool is_alone_anew(const struct user *user)
{
	const struct world *world = user->world;

	for (unsigned n = 0; n < world->nodes; n++) {
		const struct user *other = &world->users[n];
		struct uuid log;

		if (other == user || !other->core)
			continue;
		log = agree_log(other->core);
		if (uuid_is_equal(&log, &world->log))
			return false;
	}
	return user->is_blanked;
}

/* Is it the one log? */
static bool is_this_log(struct user *user)
{
	struct world *world = user->world;
	struct uuid log = agree_log(user->core);

	if (uuid_is_null(&world->log))
		world->log = log;
	if (uuid_is_equal(&world->log, &log))
		return true;
	world->is_void = is_alone_anew(user);
	for (unsigned n = 0; n < world->nodes; n++)
		world->is_void |= !world->users[n].was_ready;
	if (world->is_void)
		return false;
	world_broken(world, "user %u has another log", user->number);
	return false;
}

static uint8_t *done_at(struct world *world, const struct command *command)
{
	struct user *owner = &world->users[command->user];

	return &owner->done[command->start * WORLD_COMMANDS + command->number];
}

static void on_commit(void *context, uint64_t index, const void *data, uint32_t size)
{
	struct user *user = context;
	struct world *world = user->world;
	struct command command;
	uint8_t *done;

	if (!is_this_log(user))
		return;
	memcpy(&command, data, sizeof(command));
	if (size < sizeof(command) || command.user >= world->nodes ||
	    command.start >= WORLD_STARTS_MAX || command.number >= WORLD_COMMANDS) {
		world_broken(world, "user %u was given what nobody proposed", user->number);
		return;
	}
	if (index <= user->index)
		world_broken(world, "user %u: index %llu after %llu", user->number,
			     (unsigned long long)index, (unsigned long long)user->index);
	done = done_at(world, &command);
	if (!world->truth[index] && index < WORLD_INDEX_MAX && *done)
		world_broken(world, "command %u of user %u is there twice", command.number,
			     command.user);
	if (!*done && command.start == world->users[command.user].start)
		world->users[command.user].seen++;
	*done = 1;
	user->index = index;
	user->digest = hash_u64_pair(hash_u64_pair(user->digest, index), hash_bytes(data, size));
	user->commits++;
	world->commits++;
	check_truth(user, "command");
}

static int on_install(void *context, uint64_t index, const void *data, size_t size,
		      struct error *err)
{
	struct user *user = context;
	struct image image;

	if (!is_this_log(user))
		return 0;
	if (size < sizeof(image)) {
		world_broken(user->world, "user %u was given an image of %zu bytes", user->number,
			     size);
		return -E_CORRUPT;
	}
	memcpy(&image, data, sizeof(image));
	if (index <= user->index || image.index != index)
		world_broken(user->world, "user %u at %llu: image of %llu at %llu", user->number,
			     (unsigned long long)user->index, (unsigned long long)image.index,
			     (unsigned long long)index);
	user->index = index;
	user->digest = image.digest;
	user->installs++;
	check_truth(user, "image");
	return 0;
}

static int on_snapshot(void *context, struct engine_image *out)
{
	struct user *user = context;
	struct image image = {user->digest, user->index};
	size_t size = sizeof(image) + user->index % 5000;

	out->data = calloc(1, size);
	out->size = size;
	memcpy(out->data, &image, sizeof(image));
	user->snapshots++;
	return 0;
}

static void on_ready(void *context)
{
	struct user *user = context;

	if (!is_this_log(user))
		return;
	if (user->is_ready)
		world_broken(user->world, "user %u is ready twice", user->number);
	user->is_ready = user->was_ready = true;
	if (user->index < user->must)
		world_broken(user->world,
			     "user %u is ready at %llu, and %llu was seen before it began",
			     user->number, (unsigned long long)user->index,
			     (unsigned long long)user->must);
}

static void on_members(void *context, const struct engine_member *members, uint32_t count)
{
	struct user *user = context;

	user->live = 0;
	for (uint32_t i = 0; i < count; i++)
		for (unsigned n = 0; n < user->world->nodes; n++)
			if (uuid_is_equal(&members[i].node, &user->world->users[n].node) &&
			    members[i].start == user->world->users[n].start)
				user->live |= BIT(n);
}

static void on_ended(void *context, const struct uuid *node, uint64_t start, enum engine_end how)
{
	struct user *user = context;
	struct world *world = user->world;

	for (unsigned n = 0; n < world->nodes; n++) {
		struct user *other = &world->users[n];

		if (!uuid_is_equal(node, &other->node) || start >= WORLD_STARTS_MAX)
			continue;
		other->told[start] = true;
		if (other->fate[start] == 0 && !(other->is_leaving && other->start == start))
			world_broken(
				world,
				"user %u was told that start %llu of user %u has ended: it runs",
				user->number, (unsigned long long)start, n);
		if (other->fate[start] == 1 && how == ENGINE_END_LEFT)
			world_broken(world, "user %u was told that user %u had left: it was killed",
				     user->number, n);
	}
}

static void on_quorum(void *context, bool has_quorum)
{
	((struct user *)context)->has_quorum = has_quorum;
}

static void on_failed(void *context, const struct error *err)
{
	struct user *user = context;

	user->has_failed = true;
	user->failure = *err;
	if (!user->world->may_fail && is_this_log(user))
		world_broken(user->world, "user %u failed: %s", user->number, err->text);
}

static void on_left(void *context)
{
	struct user *user = context;

	sim_cpg_stop(user->world->sim, user->number);
	user->core = NULL;
	user->fate[user->start] = 2;
}

static const struct agree_ops tell = {
	.commit = on_commit,
	.install = on_install,
	.snapshot = on_snapshot,
	.ready = on_ready,
	.members = on_members,
	.ended = on_ended,
	.quorum = on_quorum,
	.failed = on_failed,
	.left = on_left,
};

/* ---- life ---- */

bool user_start(struct user *user)
{
	struct world *world = user->world;
	char info[32];
	struct agree_options options = {
		.self = {.node = user->node, .start = user->start + 1, .info = info},
		.compact_bytes = world->compact_bytes,
		.log = world->wanted,
	};

	assert(!user->core && user->start + 1 < WORLD_STARTS_MAX);
	(void)snprintf(info, sizeof(info), "user %u", user->number);
	options.self.info_size = (uint32_t)strlen(info);
	user->start++;
	user->is_ready = user->has_quorum = user->is_leaving = user->has_failed = false;
	user->index = 0;
	user->digest = 1;
	user->proposed = user->seen = user->live = 0;
	user->must = world->last;
	user->failure = (struct error){0};
	user->core = sim_cpg_start(world->sim, user->number, &options, &tell, user, &user->failure);
	if (!user->core) {
		user->fate[user->start] = 1;
		if (!world->may_fail)
			world_broken(world, "user %u does not start: %s", user->number,
				     user->failure.text);
	}
	return user->core;
}

void user_start_all(struct world *world)
{
	for (unsigned n = 0; n < world->nodes; n++) {
		sim_cpg_set_daemon(world->sim, n, true);
		if (!world->users[n].core)
			(void)user_start(&world->users[n]);
	}
}

void user_kill(struct user *user, bool is_seen)
{
	if (!user->core)
		return;
	user->fate[user->start] = user->is_leaving ? 3 : 1;
	user->core = NULL;
	sim_cpg_kill(user->world->sim, user->number, is_seen);
}

void user_power_cut(struct user *user)
{
	if (user->core)
		user->fate[user->start] = user->is_leaving ? 3 : 1;
	user->core = NULL;
	sim_cpg_power_cut(user->world->sim, user->number);
}

void user_leave(struct user *user)
{
	if (!user->core || user->is_leaving)
		return;
	user->is_leaving = true;
	agree_leave(user->core);
}

bool user_propose(struct user *user, uint32_t size)
{
	struct command command = {user->number, user->proposed, user->start};
	uint8_t *data;
	int rc;

	if (!user->core || !user->is_ready || user->is_leaving || user->has_failed ||
	    user->proposed == WORLD_COMMANDS - 1)
		return false;
	size = max_of(size, (uint32_t)sizeof(command));
	data = calloc(1, size);
	memcpy(data, &command, sizeof(command));
	rc = agree_propose(user->core, data, size);
	free(data);
	user->proposed += rc == 0;
	return rc == 0;
}

static void on_said(void *context, unsigned from, const uint8_t *data, size_t size)
{
	struct world *world = context;
	const char *what = oracle_hear(&world->oracle, from, data, size);

	if (what)
		world_broken(world, "user %u: %s", from, what);
}

struct world *world_new(const struct sim_cpg_options *options)
{
	struct world *world = calloc(1, sizeof(*world));
	struct random random;

	random_init(&random, 4711);
	world->sim = sim_cpg_new(options);
	world->nodes = options->nodes;
	sim_cpg_set_witness(world->sim, on_said, world);
	world->truth = calloc(WORLD_INDEX_MAX, sizeof(*world->truth));
	world->truth[0] = 1;
	for (unsigned n = 0; n < SIM_CPG_NODES; n++) {
		world->users[n].world = world;
		world->users[n].number = n;
		world->users[n].node = uuid_make(&random);
		world->users[n].done =
			n < world->nodes ? calloc(WORLD_STARTS_MAX, WORLD_COMMANDS) : NULL;
	}
	return world;
}

void world_free(struct world *world)
{
	sim_cpg_free(world->sim);
	for (unsigned n = 0; n < SIM_CPG_NODES; n++)
		free(world->users[n].done);
	free(world->truth);
	free(world);
}

/* ---- running ---- */

struct until {
	struct world *world;
	bool (*is_done)(void *context);
	void *context;
};

static bool is_over(void *context)
{
	struct until *until = context;

	return until->world->has_failed || until->world->is_void ||
	       (until->is_done && until->is_done(until->context));
}

bool world_run(struct world *world, uint64_t ns, bool (*is_done)(void *context), void *context)
{
	struct until until = {world, is_done, context};

	return sim_cpg_run(world->sim, sim_cpg_now(world->sim) + ns, is_over, &until) &&
	       !world->has_failed && !world->is_void;
}

bool world_is_settled(void *context)
{
	const struct world *world = context;

	for (unsigned n = 0; n < world->nodes; n++) {
		const struct user *user = &world->users[n];

		if (!user->core || !user->is_ready || !user->has_quorum ||
		    user->live != BIT(world->nodes) - 1 || user->seen != user->proposed ||
		    user->index != world->users[0].index || user->index != world->last)
			return false;
	}
	return true;
}

void world_settle(struct world *world, uint64_t ns)
{
	if (world->has_failed || world->is_void)
		return;
	if (world_run(world, ns, world_is_settled, world) || world->has_failed || world->is_void)
		return;
	for (unsigned n = 0; n < world->nodes; n++) {
		const struct user *user = &world->users[n];

		if (!user->core || !user->is_ready || !user->has_quorum ||
		    user->live != BIT(world->nodes) - 1 || user->seen != user->proposed ||
		    user->index != world->last) {
			world_broken(
				world,
				"user %u does not settle: runs %d, ready %d, quorum %d, sees %x, "
				"committed %u of %u, at %llu of %llu",
				n, user->core != NULL, user->is_ready, user->has_quorum, user->live,
				user->seen, user->proposed, (unsigned long long)user->index,
				(unsigned long long)world->last);
			return;
		}
	}
	world_broken(world, "they do not settle");
}
