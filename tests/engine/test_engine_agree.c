/*
 * The agreement on corosync against the conformance suite, on the model of CPG, in virtual time, with several
 * seeds: what test_engine_corosync does on real corosyncs.
 */
#include <stdio.h>

#include "lib/base/log.h"
#include "sheep/engine/engine_priv.h"
#include "tests/engine/bed.h"
#include "tests/sim/sim_cpg.h"

#define TURN_NS NS_PER_MS

static uint64_t seed;
static struct sim_cpg *logged; /* whose time stands before log lines */

/* What binds an agreement to a member of the bed. */
struct bound {
	struct engine engine;
	struct sim_cpg *sim;
	unsigned number;
	struct agree *agree;
};

/* ---- the driver ---- */

static int drive_propose(struct engine *engine, const void *command, uint32_t size)
{
	return agree_propose(((struct bound *)engine)->agree, command, size);
}

static void drive_forget(struct engine *engine, const struct uuid *node)
{
	agree_forget(((struct bound *)engine)->agree, node);
}

static void drive_link(struct engine *engine, const struct uuid *node, uint64_t start,
		       bool is_closed)
{
	agree_link(((struct bound *)engine)->agree, node, start, is_closed);
}

static void drive_leave(struct engine *engine)
{
	agree_leave(((struct bound *)engine)->agree);
}

static void drive_free(struct engine *engine)
{
	engine_base_done(engine);
	free(engine);
}

static const struct engine_driver driver = {
	.name = "corosync",
	.syntax = "corosync",
	.propose = drive_propose,
	.forget = drive_forget,
	.link = drive_link,
	.leave = drive_leave,
	.free = drive_free,
};

static struct engine *engine_of(void *context)
{
	struct bound *bound = context;

	if (bound->agree)
		bound->engine.log = agree_log(bound->agree);
	return &bound->engine;
}

static void tell_commit(void *context, uint64_t index, const void *command, uint32_t size)
{
	engine_tell_commit(engine_of(context), index, command, size);
}

static int tell_install(void *context, uint64_t index, const void *image, size_t size,
			struct error *err)
{
	return engine_tell_install(engine_of(context), index, image, size, err);
}

static int tell_snapshot(void *context, struct engine_image *out)
{
	return engine_take_snapshot(engine_of(context), out);
}

static void tell_ready(void *context)
{
	engine_tell_ready(engine_of(context));
}

static void tell_members(void *context, const struct engine_member *members, uint32_t count)
{
	engine_tell_members(engine_of(context), members, count);
}

static void tell_ended(void *context, const struct uuid *node, uint64_t start, enum engine_end how)
{
	engine_tell_ended(engine_of(context), node, start, how);
}

static void tell_quorum(void *context, bool has_quorum)
{
	engine_tell_quorum(engine_of(context), has_quorum);
}

static void tell_failed(void *context, const struct error *err)
{
	engine_tell_failed(engine_of(context), err);
}

static void tell_left(void *context)
{
	struct bound *bound = context;

	sim_cpg_stop(bound->sim, bound->number);
	bound->agree = NULL;
	engine_tell_left(&bound->engine);
}

static const struct agree_ops tell = {
	.commit = tell_commit,
	.install = tell_install,
	.snapshot = tell_snapshot,
	.ready = tell_ready,
	.members = tell_members,
	.ended = tell_ended,
	.quorum = tell_quorum,
	.failed = tell_failed,
	.left = tell_left,
};

/* ---- the bed's hooks ---- */

static uint64_t now(struct bed *bed)
{
	return sim_cpg_now(bed->world);
}

static void turn(struct bed *bed)
{
	(void)sim_cpg_run(bed->world, now(bed) + TURN_NS, NULL, NULL);
}

static int open_member(struct bed *bed, struct member *member, const struct engine_options *options,
		       const struct engine_callbacks *callbacks, struct error *err)
{
	struct bound *bound = calloc(1, sizeof(*bound));
	struct agree_options own = {
		.self = options->self,
		.log = options->log,
		.compact_bytes = options->compact_bytes,
	};

	bound->sim = bed->world;
	bound->number = member->number;
	assert_int_equal(
		engine_base_init(&bound->engine, &driver, NULL, options, callbacks, member, err),
		0);
	bound->agree = sim_cpg_start(bed->world, member->number, &own, &tell, bound, err);
	if (!bound->agree) {
		drive_free(&bound->engine);
		return err->code;
	}
	member->engine = &bound->engine;
	return 0;
}

static void crash_as(struct member *member, bool is_seen)
{
	sim_cpg_kill(member->bed->world, member->number, is_seen);
	drive_free(member->engine);
	member->engine = NULL;
}

static void crash(struct bed *bed, struct member *member)
{
	(void)bed;
	crash_as(member, true);
}

static void crash_quietly(struct bed *bed, struct member *member)
{
	(void)bed;
	crash_as(member, false);
}

static void confirm(struct bed *bed, struct member *member)
{
	sim_cpg_confirm(bed->world, &member->node, member->start);
}

static void set_quorum(struct bed *bed, bool has_quorum)
{
	sim_cpg_deny_quorum(bed->world, !has_quorum);
}

static void set_stopped(struct bed *bed, struct member *member, bool is_stopped)
{
	uint8_t groups[SIM_CPG_NODES] = {0};

	/* Cut off: what a stopped process has not been handed yet waits for it, and it needs no image. */
	for (unsigned n = 0; n < BED_MEMBERS; n++)
		if (bed->members[n].is_stopped)
			groups[n] = (uint8_t)(n + 1);
	groups[member->number] = is_stopped ? (uint8_t)(member->number + 1) : 0;
	sim_cpg_partition(bed->world, groups);
}

int bed_setup(void **state)
{
	struct bed *bed = bed_new();

	bed->world = sim_cpg_new(&(struct sim_cpg_options){
		.seed = seed,
		.nodes = BED_MEMBERS,
		.again_percent = seed % 2 ? 10 : 0,
	});
	logged = bed->world;
	bed->turn = turn;
	bed->now = now;
	bed->open = open_member;
	bed->crash = crash;
	bed->crash_quietly = crash_quietly;
	bed->confirm = confirm;
	bed->set_quorum = set_quorum;
	bed->set_stopped = set_stopped;
	bed->is_exact = true;
	bed->is_late = true;
	bed->later_start_wins = true; /* tests/sim/test_agree.c tells who wins */
	bed->needs_majority = true;
	*state = bed;
	return 0;
}

int bed_teardown(void **state)
{
	struct bed *bed = *state;

	bed_stop_all(bed);
	logged = NULL;
	sim_cpg_free(bed->world);
	bed_free(bed);
	return 0;
}

/* TEST_VERBOSE=1: what happens, in virtual time. */
static void sink(struct logger *logger, enum log_level level, const char *line)
{
	(void)level;
	if (logger->level == LOG_LEVEL_DEBUG && logged)
		fprintf(stderr, "%.6f %s\n", (double)sim_cpg_now(logged) / 1e9, line);
}

int main(void)
{
	struct logger logger = {.level = LOG_LEVEL_ERROR, .sink = sink};
	unsigned seeds = bed_scaled(100);
	char name[64];
	int rc = 0;

	if (getenv("TEST_VERBOSE"))
		logger.level = LOG_LEVEL_DEBUG;
	log_set_current(&logger);
	for (seed = 1; seed <= seeds && rc == 0; seed++) {
		(void)snprintf(name, sizeof(name), "engine: agreement, seed %u", (unsigned)seed);
		rc = run_conformance(name);
	}
	return rc;
}
