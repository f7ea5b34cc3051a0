/*
 * Each rule of the store, switched off, is noticed; with all of them on the same tests pass.
 *
 * Each row runs in a process of its own, which must fail. Trap: a row that fails for another reason
 * proves nothing; so every check also runs with all rules on, and must pass.
 */
#define SHEEPFOLD_MUTATIONS

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/log.h"
#include "lib/base/rule.h"
#include "tests/unit/store_points.h"
#include "tests/unit/store_rig.h"

static const struct store_options small = {
	.size_bytes = 24 * MIB, .segment_bytes = 1 * MIB, .has_small_segments = true};

#define SEGMENT RIG_PATH "/segment.00.00000"

/* ---- checks ---- */

static void check_points(void **state)
{
	struct points_tally tally = {0};

	for (uint64_t seed = 1; seed <= 2; seed++)
		store_points_run(seed, 30, 3, &tally);
}

/* A store that is read and overwritten all the time, while checkpoints hang in their sync. */
static void check_reuse(void **state)
{
	static const char *const checkpoints[] = {RIG_PATH "/checkpoint.00.00000",
						  RIG_PATH "/checkpoint.00.00001"};
	const struct store_options options = {.size_bytes = 16 * MIB,
					      .segment_bytes = 1 * MIB,
					      .has_small_segments = true,
					      .deadline_ns = 3600 * NS_PER_S};
	struct rig rig;
	uint32_t synced[8] = {0};

	rig_init(&rig, 1, &options);
	rig_open_ok(&rig);
	rig_settle(&rig, 1 * NS_PER_S);
	for (unsigned i = 0; i < 2; i++)
		(void)sim_file_fault(rig.host, checkpoints[i], LOOP_OP_SYNC, 1, SIM_FAULT_HANG);
	for (uint64_t n = 1; n < 400; n++) {
		uint32_t object = (uint32_t)n % 8, tags[30];
		struct rig_append a = {.append = {.key = {1, object},
						  .family = rig_family(1),
						  .version = {1, n},
						  .flags = STORE_SYNC | STORE_ANY_PREVIOUS,
						  .run_count = 1},
				       .runs = {{0, 30, BLOCK_DATA}}};
		for (uint32_t i = 0; i < 30; i++)
			tags[i] = (uint32_t)n * 30 + i;
		assert_int_equal(rig_append(&rig, &a, tags), 0);
		rig_settle(&rig, 50 * NS_PER_MS);
		if (!a.is_done)
			break; /* it waits for the checkpoint, as it should */
		rig_append_free(&a);
		synced[object] = (uint32_t)n * 30;
	}
	rig_power_cut(&rig, SIM_DROP_UNSYNCED);
	sim_host_forget_faults(rig.host);
	rig_open_ok(&rig);
	assert_false(store_identity(rig.store)->lost_log);
	for (uint32_t i = 0; i < 8; i++) {
		uint32_t tags[30];
		assert_int_equal(rig_read(&rig, 0, 1, i, 0, 30, tags), 0);
		assert_true(tags[29] >= synced[i] + 29);
	}
	rig_done(&rig);
}

#define MOVE_OBJECTS 16u
#define MOVE_BLOCKS  96u

static void read_all(struct rig *rig, const uint32_t *newest)
{
	uint32_t tags[MOVE_BLOCKS];

	for (uint32_t i = 0; i < MOVE_OBJECTS; i++) {
		assert_int_equal(rig_read(rig, 0, 1, i, 0, MOVE_BLOCKS, tags), 0);
		assert_true(memcmp(tags, newest + i * MOVE_BLOCKS, sizeof(tags)) == 0);
	}
}

static bool are_done(void *context)
{
	const struct rig_append *a = context;

	for (unsigned i = 0; i < 8; i++)
		if (!a[i].is_done)
			return false;
	return true;
}

/* Blocks that the cleaner is copying are written at the same time: the copy must not hide what came first. */
static void check_moves(void **state)
{
	const struct store_options options = {.size_bytes = 14 * MIB,
					      .segment_bytes = 1 * MIB,
					      .has_small_segments = true,
					      .batches_max = 8};
	static uint32_t newest[MOVE_OBJECTS * MOVE_BLOCKS];
	struct store_counters counters;
	struct rig rig;
	uint32_t tag = 1;

	rig_init(&rig, 1, &options);
	rig_open_ok(&rig);
	for (uint32_t i = 0; i < MOVE_OBJECTS; i++, tag += MOVE_BLOCKS) {
		assert_int_equal(rig_put(&rig, 0, 1, i, tag, 0, MOVE_BLOCKS, BLOCK_DATA, tag, 0),
				 0);
		for (uint32_t j = 0; j < MOVE_BLOCKS; j++)
			newest[i * MOVE_BLOCKS + j] = tag + j;
	}
	for (uint32_t round = 0; round < 1500; round++) {
		struct rig_append a[8];
		for (unsigned i = 0; i < 8; i++, tag++) {
			uint32_t at = (uint32_t)random_below(sim_random(rig.world),
							     MOVE_OBJECTS * MOVE_BLOCKS);
			a[i] = (struct rig_append){
				.append = {.key = {1, at / MOVE_BLOCKS},
					   .family = rig_family(1),
					   .version = {1, tag},
					   .flags = STORE_ANY_PREVIOUS,
					   .run_count = 1},
				.runs = {{(uint16_t)(at % MOVE_BLOCKS), 1, BLOCK_DATA}}};
			assert_int_equal(rig_append(&rig, &a[i], &tag), 0);
			newest[at] = tag;
			rig_settle(&rig, random_below(sim_random(rig.world), 60) * NS_PER_US);
		}
		rig_until(&rig, are_done, a);
		for (unsigned i = 0; i < 8; i++)
			rig_append_free(&a[i]);
		if (round % 300 == 299)
			read_all(&rig, newest);
	}
	store_counters(rig.store, &counters);
	assert_true(counters.cleaner_bytes_moved > 4 * MIB);
	rig_crash(&rig);
	rig_open_ok(&rig);
	read_all(&rig, newest);
	rig_done(&rig);
}

/* Damage in the middle of what was synced is said, whatever it hits. */
static void check_damage(void **state)
{
	struct rig rig;
	struct store_object object;

	rig_init(&rig, 1, &small);
	rig_open_ok(&rig);
	for (uint32_t i = 1; i <= 10; i++)
		assert_int_equal(rig_put(&rig, 0, 1, i, i, 0, 1, BLOCK_DATA, i, STORE_SYNC), 0);
	rig_crash(&rig);
	/* A batch is a descriptor and one block: the descriptor of the fifth. */
	assert_int_equal(sim_file_poke(rig.host, SEGMENT, "?", 1, 8ull * BLOCK_SIZE + 100), 0);
	rig_open_ok(&rig);
	assert_true(store_identity(rig.store)->lost_log ||
		    store_object(rig.store, 0, &(struct object_key){1, 10}, &object));
	rig_done(&rig);
}

static void check_sums(void **state)
{
	struct rig rig;
	uint32_t tag;

	rig_init(&rig, 1, &small);
	rig_open_ok(&rig);
	assert_int_equal(rig_put(&rig, 0, 1, 0, 1, 0, 1, BLOCK_DATA, 5, STORE_SYNC), 0);
	assert_int_equal(sim_file_poke(rig.host, SEGMENT, "?", 1, BLOCK_SIZE + 100), 0);
	assert_int_equal(rig_read(&rig, 0, 1, 0, 0, 1, &tag), -E_CHECKSUM);
	rig_done(&rig);
}

static void check_fail_stop(void **state)
{
	struct rig rig;

	rig_init(&rig, 1, &small);
	rig_open_ok(&rig);
	rig_settle(&rig, 1 * NS_PER_S);
	assert_int_equal(sim_file_fault(rig.host, SEGMENT, LOOP_OP_WRITE, 1, SIM_FAULT_EIO), 0);
	assert_int_equal(rig_put(&rig, 0, 1, 0, 1, 0, 1, BLOCK_DATA, 5, 0), -E_STORE_FAILED);
	rig_done(&rig);
}

static const struct row {
	const char *rule;
	void (*check)(void **state);
} rows[] = {
	{"D0_ONE_LOG", check_points},
	{"D1_MOVE_VOID", check_moves},
	{"D2_SYNC_BEFORE_LEAVING", check_points},
	{"D2_CHECKPOINT_SYNCS", check_points},
	{"D2_REUSE_AFTER_CHECKPOINT", check_reuse},
	{"D3_CORRUPT_IS_NO_TAIL", check_damage},
	{"D3_BLOCK_SUMS", check_sums},
	{"D3_SYNC_WAITS", check_points},
	{"D3_FAIL_STOP", check_fail_stop},
	{"T2_TAIL_KEPT", check_points},
};

/* ---- processes ---- */

static void drop_line(struct logger *logger, enum log_level level, const char *line)
{
}

static int run_alone(const char *rule, void (*check)(void **state), const char *name)
{
	const struct CMUnitTest tests[] = {{.name = name, .test_func = check}};
	struct logger logger = {.level = LOG_LEVEL_ERROR, .sink = drop_line};

	log_set_current(&logger);
	alarm(120); /* a rule that is off may make things wait for ever */
	if (rule && !rule_switch_off(rule))
		return 0;
	if (rule && (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr)))
		return 0;
	return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}

/* Does the check fail? */
static bool fails(const char *rule, void (*check)(void **state), const char *name)
{
	int status;

	(void)fflush(stdout);
	pid_t pid = fork();

	if (pid == 0)
		_exit(run_alone(rule, check, name));
	return pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) ||
	       WEXITSTATUS(status) != 0;
}

int main(void)
{
	int missed = 0;

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		bool is_new = true;
		for (size_t j = 0; j < i; j++)
			is_new &= rows[j].check != rows[i].check;
		if (is_new && fails(NULL, rows[i].check, rows[i].rule)) {
			printf("%s: its check fails with all rules on\n", rows[i].rule);
			missed++;
		}
	}
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		bool is_caught = fails(rows[i].rule, rows[i].check, rows[i].rule);
		printf("%-28s %s\n", rows[i].rule, is_caught ? "caught" : "NOT CAUGHT");
		missed += !is_caught;
	}
	return missed > 0;
}
