/* corosync[:CHANNEL] against the conformance suite, on real corosyncs, one host for each member, and what only it shows. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/loop/backend.h"
#include "lib/loop/loop_priv.h"
#include "sheep/engine/corosync_priv.h"
#include "tests/engine/corosync_hosts.h"
#include "tests/engine/real_bed.h"

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

	real_bed_loop(member);
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
	bed->turn = real_bed_turn;
	bed->now = real_bed_now;
	bed->open = open_member;
	bed->crash = crash;
	bed->crash_quietly = crash_quietly;
	bed->confirm = confirm;
	bed->set_stopped = set_stopped;
	bed->set_quorum = set_quorum;
	present = bed;
	corosync_hosts_start_all(&hosts);
	*state = bed;
	return 0;
}

int bed_teardown(void **state)
{
	real_bed_end(*state);
	return 0;
}

/* ---- corosyncs go and come ---- */

static void test_log_survives_all_corosyncs(void **state)
{
	struct bed *bed = *state;

	bed->compact_bytes = 8192;
	bed_start_all(bed, 3);
	for (int round = 0; round < 3; round++) {
		for (unsigned n = 0; n < 3; n++)
			bed_propose(bed, n, 40);
		if (round == 1)
			BED_UNTIL(bed, bed_is_settled(bed));
		for (unsigned n = 0; n < BED_MEMBERS; n++)
			corosync_hosts_signal(&hosts, n, round == 2 ? SIGTERM : SIGKILL);
		BED_UNTIL(bed, !bed->members[0].has_quorum && !bed->members[1].has_quorum &&
				       !bed->members[2].has_quorum);
		corosync_hosts_start_all(&hosts);
		BED_UNTIL(bed, bed->members[0].has_quorum && bed_is_settled(bed));
	}
	/* Who lost its corosync is alive. */
	for (unsigned n = 0; n < 3; n++)
		assert_int_equal(bed->members[n].end_count, 0);
}

/* Its sheep says nothing while it hangs, and is nobody's death. */
static void test_corosync_that_hangs_is_gone_on_without(void **state)
{
	struct bed *bed = *state;

	bed_start_all(bed, 3);
	bed_propose(bed, 0, 5);
	BED_UNTIL(bed, bed_is_settled(bed));
	for (unsigned victim = 0; victim < 3; victim++) { /* one of them leads */
		unsigned other = (victim + 1) % 3;
		corosync_hosts_signal(&hosts, victim, SIGSTOP);
		bed_propose(bed, other, 5);
		BED_UNTIL(bed, bed->members[other].settled == bed->members[other].proposed);
		assert_true(bed->members[other].has_quorum);
		corosync_hosts_signal(&hosts, victim, SIGCONT);
		BED_UNTIL(bed, bed_is_settled(bed) &&
				       member_sees(&bed->members[other], &bed->members[victim]));
		assert_int_equal(bed->members[other].end_count, 0);
	}
}

static void test_leaves_though_corosync_hangs(void **state)
{
	struct bed *bed = *state;

	bed_start_all(bed, 3);
	corosync_hosts_signal(&hosts, 0, SIGSTOP);
	bed_leave(bed, 0);
	corosync_hosts_signal(&hosts, 0, SIGCONT);
	BED_UNTIL(bed, !(bed->members[1].live & BIT(0)));
}

static void test_waits_for_a_corosync_that_is_not_there_yet(void **state)
{
	struct bed *bed = *state;

	corosync_hosts_signal(&hosts, 0, SIGKILL);
	bed_start(bed, 0);
	bed_propose(bed, 0, 3);
	BED_NEVER(bed, NS_PER_S, bed->members[0].is_ready || bed->members[0].has_failed);
	corosync_hosts_start(&hosts, 0);
	BED_UNTIL(bed, bed->members[0].is_ready && bed_is_settled(bed));
}

/* Two halves: one of them goes on, or none, and they are one again by themselves. */
static void test_halves_become_one_again(void **state)
{
	struct bed *bed = *state;

	bed_start_all(bed, 3);
	for (unsigned alone = 0; alone < 3; alone++) {
		unsigned other = (alone + 1) % 3;

		for (unsigned n = 0; n < 3; n++)
			bed_propose(bed, n, 10);
		corosync_hosts_cut(&hosts, alone, true);
		bed_propose(bed, other, 10);
		BED_UNTIL(bed, bed->members[other].settled == bed->members[other].proposed &&
				       !bed->members[alone].has_quorum);
		bed_propose(bed, alone, 10);
		corosync_hosts_cut(&hosts, alone, false);
		BED_UNTIL(bed, bed_is_settled(bed));
	}
	for (unsigned n = 0; n < 3; n++)
		assert_int_equal(bed->members[n].end_count, 0);
}

/* A process that died is known to be dead only when its connections were closed, too: either may come first. */
static void test_closed_connections_alone_are_no_death(void **state)
{
	struct bed *bed = *state;

	bed_start_all(bed, 3);
	confirm(bed, &bed->members[1]);
	BED_NEVER(bed, NS_PER_S, bed->members[0].end_count);
	engine_link(bed->members[0].engine, &bed->members[1].node, bed->members[1].start, false);
	engine_link(bed->members[2].engine, &bed->members[1].node, bed->members[1].start, false);
	crash_quietly(bed, &bed->members[1]);
	BED_UNTIL(bed, !(bed->members[0].live & BIT(1)));
	BED_NEVER(bed, NS_PER_S, bed->members[0].end_count);
}

/* ---- what else may be there ---- */

/* A program that uses our group for something else, in a process and on a host of its own. */
static void be_a_stranger(const char *channel)
{
	cpg_callbacks_t callbacks = {0};
	struct cpg_name group;
	cpg_handle_t handle;
	struct random random;
	int rc;

	corosync_hosts_enter(&hosts, BED_MEMBERS - 1);
	group.length = (uint32_t)snprintf(group.value, sizeof(group.value), "%s%s",
					  CPG_GROUP_PREFIX, channel);
	rc = cpg_initialize(&handle, &callbacks) != CS_OK || cpg_join(handle, &group) != CS_OK;
	random_init(&random, 1);
	for (unsigned i = 0; i < 500 && !rc; i++) {
		uint8_t data[512];
		struct iovec iov = {data, 1 + random_below(&random, sizeof(data))};
		struct cpg_message head = {.magic = to_le32(CPG_MESSAGE_MAGIC),
					   .version = to_le16((uint16_t)(i % 3)),
					   .type = to_le16((uint16_t)(i % 14)),
					   .size = to_le32((uint32_t)iov.iov_len)};

		for (size_t at = 0; at < sizeof(data); at++)
			data[at] = (uint8_t)random_u64(&random);
		if (i % 2)
			memcpy(data, &head, sizeof(head));
		(void)cpg_mcast_joined(handle, CPG_TYPE_AGREED, &iov, 1);
		(void)usleep(500);
	}
	_exit(rc);
}

static void test_strange_messages_are_dropped(void **state)
{
	struct bed *bed = *state;
	struct world *world = bed->world;
	char channel[32];
	int status = 1;
	pid_t pid;

	bed_start_all(bed, 3);
	(void)snprintf(channel, sizeof(channel), "test-%u", world->channel);
	pid = fork();
	if (pid == 0)
		be_a_stranger(channel);
	while (waitpid(pid, &status, WNOHANG) == 0) {
		for (unsigned n = 0; n < 3; n++)
			if (bed->members[n].proposed < bed->members[n].settled + 5)
				bed_propose(bed, n, 1);
		bed_turn(bed);
	}
	assert_int_equal(status, 0);
	BED_UNTIL(bed, bed_is_settled(bed));
	for (unsigned n = 0; n < 3; n++) {
		assert_false(bed->members[n].has_failed);
		assert_true(corosync_of(&bed->members[n])->told_foreign);
		assert_int_equal(bed->members[n].live, 7);
	}
}

static void test_damaged_files_stop_the_start(void **state)
{
	struct bed *bed = *state;
	struct error err = {0};
	char dir[128], path[192];
	FILE *file;

	dir_of(bed, 0, dir);
	assert_int_equal(mkdir(dir, 0700), 0);
	(void)snprintf(path, sizeof(path), "%s/log.00000000000000000007", dir);
	file = fopen(path, "w");
	(void)fprintf(file, "this is no log");
	(void)fclose(file);
	assert_int_equal(bed_try_start(bed, 0, &err), -E_CORRUPT);
	assert_non_null(strstr(err.text, dir));
	assert_non_null(strstr(err.text, "empty the directory"));
	assert_int_equal(unlink(path), 0);
	bed_start_all(bed, 1);
}

/* A node whose disk was lost: its old copy of the log votes no more, its new one does. */
static void test_node_with_an_empty_disk_comes_back(void **state)
{
	struct bed *bed = *state;
	char dir[128], command[192];

	bed_start_all(bed, 3);
	bed_propose(bed, 0, 20);
	BED_UNTIL(bed, bed_is_settled(bed));
	bed_crash(bed, 2);
	dir_of(bed, 2, dir);
	(void)snprintf(command, sizeof(command), "rm -r '%s'", dir);
	assert_int_equal(system(command), 0);
	bed_start_all(bed, 3);
	bed_propose(bed, 1, 20);
	BED_UNTIL(bed, bed_is_settled(bed));
	/* It counts: with it and one of the others it goes on. */
	bed_crash(bed, 0);
	bed_propose(bed, 2, 5);
	BED_UNTIL(bed, bed_is_settled(bed));
	bed_start_all(bed, 3);
	BED_UNTIL(bed, bed_is_settled(bed));
}

static uint32_t voters_of(struct member *member)
{
	struct agree_stats stats;

	agree_stats_get(corosync_of(member)->agree, &stats);
	return stats.voters;
}

static void test_removed_nodes_do_not_count(void **state)
{
	struct bed *bed = *state;

	bed_start_all(bed, 4);
	bed_propose(bed, 0, 5);
	BED_UNTIL(bed, bed_is_settled(bed));
	bed_leave(bed, 3);
	for (unsigned n = 0; n < 3; n++)
		engine_forget(bed->members[n].engine, &bed->members[3].node);
	BED_UNTIL(bed, voters_of(&bed->members[0]) == 3);
	bed_crash(bed, 2); /* two of three are a majority, two of four were none */
	bed_propose(bed, 0, 5);
	BED_UNTIL(bed, bed_is_settled(bed));
}

/* ---- disks that say no, or nothing: between a member's loop and its back end ---- */

struct faulty {
	struct loop_backend *backend;
	const struct loop_backend_ops *real;
	struct loop_backend_ops ops;
	int error;	      /* of syncs; 0: they hang */
	struct loop_op *held; /* at most one: the log's */
};

static struct faulty faulties[BED_MEMBERS];

static struct faulty *faulty_of(const struct loop_backend *backend)
{
	for (unsigned n = 0; n < BED_MEMBERS; n++)
		if (faulties[n].backend == backend)
			return &faulties[n];
	fail_msg("nobody's back end");
	return NULL;
}

static void faulty_submit(struct loop_backend *backend, struct loop_op *op)
{
	struct faulty *faulty = faulty_of(backend);

	if (op->kind != LOOP_OP_SYNC)
		faulty->real->submit(backend, op);
	else if (faulty->error)
		loop_op_finish(op, faulty->error);
	else
		faulty->held = op;
}

static void faulty_cancel(struct loop_backend *backend, struct loop_op *op)
{
	struct faulty *faulty = faulty_of(backend);

	if (op != faulty->held) {
		faulty->real->cancel(backend, op);
		return;
	}
	faulty->held = NULL;
	loop_op_finish(op, -ECANCELED);
}

static void break_disk(struct bed *bed, unsigned number, int error)
{
	struct faulty *faulty = &faulties[number];
	struct loop *loop = bed->members[number].loop;

	*faulty = (struct faulty){.backend = loop_backend_of(loop),
				  .real = loop->ops,
				  .ops = *loop->ops,
				  .error = error};
	faulty->ops.submit = faulty_submit;
	faulty->ops.cancel = faulty_cancel;
	loop->ops = &faulty->ops;
}

static void mend_disk(struct bed *bed, unsigned number)
{
	struct faulty *faulty = &faulties[number];

	bed->members[number].loop->ops = faulty->real;
	if (faulty->held)
		faulty->real->submit(faulty->backend, faulty->held);
	faulty->backend = NULL;
}

/* Whoever leads: the others' disks are a majority. Those of two are not. */
static void test_disks_that_hang_are_waited_for(void **state)
{
	struct bed *bed = *state;
	uint64_t index;

	bed_start_all(bed, 3);
	for (unsigned victim = 0; victim < 3; victim++) {
		unsigned other = (victim + 1) % 3;

		break_disk(bed, victim, 0);
		bed_propose(bed, other, 20);
		bed_propose(bed, victim, 5);
		BED_UNTIL(bed, bed_is_settled(bed)); /* also here: it knows what the others have */
		break_disk(bed, other, 0);
		index = bed->members[other].index;
		bed_propose(bed, (victim + 2) % 3, 5);
		BED_NEVER(bed, 300 * NS_PER_MS, bed->members[other].index != index);
		mend_disk(bed, other);
		mend_disk(bed, victim);
		BED_UNTIL(bed, bed_is_settled(bed));
	}
}

/* What the disk has then is not known: the engine stops, and a start reads it anew. */
static void test_disk_that_fails_fails_the_engine(void **state)
{
	struct bed *bed = *state;

	bed_start_all(bed, 3);
	for (unsigned victim = 0; victim < 3; victim++) {
		unsigned other = (victim + 1) % 3;

		break_disk(bed, victim, -EIO);
		bed_propose(bed, other, 20);
		BED_UNTIL(bed, bed->members[victim].has_failed &&
				       bed->members[other].settled == bed->members[other].proposed);
		assert_non_null(strstr(bed->members[victim].failure.text, "cannot be written"));
		bed_leave(bed, victim);
		mend_disk(bed, victim);
		bed_start_all(bed, 3);
		BED_UNTIL(bed, bed_is_settled(bed));
	}
}

static void test_specs(void **state)
{
	struct error err = {0};
	char longest[160] = "corosync:", *at = longest + strlen(longest);

	assert_int_equal(engine_check_spec("corosync", &err), 0);
	assert_int_equal(engine_check_spec("corosync:", &err), 0);
	assert_int_equal(engine_check_spec("corosync:my-channel_2.x", &err), 0);
	assert_int_equal(engine_check_spec("corosync:a b", &err), -EINVAL);
	assert_int_equal(engine_check_spec("corosync:a/b", &err), -EINVAL);
	assert_int_equal(engine_check_spec("corosync2", &err), -EINVAL);
	assert_non_null(strstr(err.text, "corosync[:CHANNEL]"));
	memset(at, 'x', CPG_CHANNEL_MAX);
	assert_int_equal(engine_check_spec(longest, &err), 0);
	at[CPG_CHANNEL_MAX] = 'x';
	assert_int_equal(engine_check_spec(longest, &err), -EINVAL);
}

static int run(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_specs),
		BED_TEST(test_log_survives_all_corosyncs),
		BED_TEST(test_corosync_that_hangs_is_gone_on_without),
		BED_TEST(test_leaves_though_corosync_hangs),
		BED_TEST(test_waits_for_a_corosync_that_is_not_there_yet),
		BED_TEST(test_halves_become_one_again),
		BED_TEST(test_closed_connections_alone_are_no_death),
		BED_TEST(test_strange_messages_are_dropped),
		BED_TEST(test_damaged_files_stop_the_start),
		BED_TEST(test_node_with_an_empty_disk_comes_back),
		BED_TEST(test_removed_nodes_do_not_count),
		BED_TEST(test_disks_that_hang_are_waited_for),
		BED_TEST(test_disk_that_fails_fails_the_engine),
	};

	return run_conformance("corosync") +
	       cmocka_run_group_tests_name("only corosync", tests, NULL, NULL);
}

int main(void)
{
	return corosync_hosts_run(&hosts, BED_MEMBERS, run);
}
