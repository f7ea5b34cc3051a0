/* corosync[:CHANNEL] against the conformance suite, on real corosyncs, one host for each member, and what only it shows. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "sheep/engine/corosync_priv.h"
#include "tests/engine/bed.h"
#include "tests/engine/corosync_hosts.h"

#define TURN_NS (NS_PER_MS / 10)

static struct corosync_hosts hosts; /* of all tests; each has a channel of its own */
static unsigned channels;
static struct bed *present;

struct world {
	unsigned channel;
};

/* ---- each member connects to the corosync of its own host: by the name of the thread that does so ---- */

cs_error_t __real_cpg_model_initialize(cpg_handle_t *handle, cpg_model_t model,
				       cpg_model_data_t *data, void *context);
cs_error_t __wrap_cpg_model_initialize(cpg_handle_t *handle, cpg_model_t model,
				       cpg_model_data_t *data, void *context);

cs_error_t __wrap_cpg_model_initialize(cpg_handle_t *handle, cpg_model_t model,
				       cpg_model_data_t *data, void *context)
{
	char name[16];
	unsigned host;

	if (pthread_getname_np(pthread_self(), name, sizeof(name)) != 0 ||
	    sscanf(name, "host-%u", &host) != 1)
		return CS_ERR_LIBRARY;
	corosync_hosts_enter(&hosts, host);
	return __real_cpg_model_initialize(handle, model, data, context);
}

struct cpg_call *__real_cpg_call_open(struct loop *loop, const char *name, const char *group,
				      const struct cpg_events *events, cpg_call_opened *done,
				      void *context);
struct cpg_call *__wrap_cpg_call_open(struct loop *loop, const char *name, const char *group,
				      const struct cpg_events *events, cpg_call_opened *done,
				      void *context);

struct cpg_call *__wrap_cpg_call_open(struct loop *loop, const char *name, const char *group,
				      const struct cpg_events *events, cpg_call_opened *done,
				      void *context)
{
	char host[16] = "";

	for (unsigned n = 0; n < BED_MEMBERS; n++)
		if (present->members[n].loop == loop)
			(void)snprintf(host, sizeof(host), "host-%u", n);
	return __real_cpg_call_open(loop, host, group, events, done, context);
}

/* ---- the bed ---- */

static uint64_t now(struct bed *bed)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void turn(struct bed *bed)
{
	for (unsigned n = 0; n < BED_MEMBERS; n++) {
		struct member *member = &bed->members[n];

		if (member->loop && !member->is_stopped)
			assert_int_equal(loop_turn(member->loop, now(bed) + TURN_NS), 0);
	}
}

static void dir_of(struct bed *bed, unsigned number, char out[128])
{
	struct world *world = bed->world;

	(void)snprintf(out, 128, "%s/test-%u-%u", hosts.dir, world->channel, number);
}

static int open_member(struct bed *bed, struct member *member, const struct engine_options *options,
		       const struct engine_callbacks *callbacks, struct error *err)
{
	struct engine_options with_dir = *options;
	struct world *world = bed->world;
	char spec[64], dir[128];

	if (!member->loop)
		assert_int_equal(
			loop_new(&(struct loop_options){.name = "member"}, &member->loop, err), 0);
	dir_of(bed, member->number, dir);
	with_dir.dir = dir;
	(void)snprintf(spec, sizeof(spec), "corosync:test-%u", world->channel);
	return engine_open(spec, member->loop, &with_dir, callbacks, member, &member->engine, err);
}

static struct corosync *corosync_of(struct member *member)
{
	return container_of_type(member->engine, struct corosync, engine);
}

/* As near to a crash as a member in our own process can come: it says nothing, and writes nothing any more. */
static void crash_quietly(struct bed *bed, struct member *member)
{
	struct engine *engine = member->engine;

	member->is_stopped = false;
	corosync_of(member)->is_crash = true;
	engine->state = ENGINE_LEAVING;
	corosync_close(corosync_of(member));
	member->engine = NULL;
	member->is_leaving = true;
	BED_UNTIL(bed, member->has_left);
	engine_free(engine);
}

/* Its kernel closes its connections to the others. */
static void confirm(struct bed *bed, struct member *member)
{
	for (unsigned n = 0; n < BED_MEMBERS; n++)
		if (bed->members[n].engine)
			engine_link(bed->members[n].engine, &member->node, member->start, true);
}

static void crash(struct bed *bed, struct member *member)
{
	crash_quietly(bed, member);
	confirm(bed, member);
}

/* Each host alone: no corosync has quorum. */
static void set_quorum(struct bed *bed, bool has_quorum)
{
	for (unsigned n = 0; n < BED_MEMBERS; n++)
		corosync_hosts_cut(&hosts, n, !has_quorum);
}

/* Its host, as a whole: for a process alone corosync would keep what it is sent. */
static void set_stopped(struct bed *bed, struct member *member, bool is_stopped)
{
	corosync_hosts_cut(&hosts, member->number, is_stopped);
}

int bed_setup(void **state)
{
	struct bed *bed = bed_new();
	struct world *world = calloc(1, sizeof(*world));

	world->channel = ++channels;
	bed->world = world;
	bed->is_late = true;
	bed->needs_majority = true;
	bed->turn = turn;
	bed->now = now;
	bed->open = open_member;
	bed->crash = crash;
	bed->crash_quietly = crash_quietly;
	bed->confirm = confirm;
	bed->set_stopped = set_stopped;
	bed->set_quorum = set_quorum;
	present = bed;
	for (unsigned n = 0; n < BED_MEMBERS; n++)
		if (!hosts.hosts[n].corosync)
			corosync_hosts_start(&hosts, n);
	*state = bed;
	return 0;
}

int bed_teardown(void **state)
{
	struct bed *bed = *state;

	bed_stop_all(bed);
	for (unsigned n = 0; n < BED_MEMBERS; n++)
		loop_free(bed->members[n].loop);
	free(bed->world);
	bed_free(bed);
	return 0;
}

int main(void)
{
	const char *why = corosync_hosts_init(&hosts, BED_MEMBERS);
	int failed;

	if (why) {
		corosync_hosts_done(&hosts);
		(void)fprintf(stderr, "skipped: %s\n", why);
		return 77;
	}
	if (getenv("FILTER"))
		cmocka_set_test_filter(getenv("FILTER"));
	failed = run_conformance("corosync");
	corosync_hosts_done(&hosts);
	return failed != 0;
}
