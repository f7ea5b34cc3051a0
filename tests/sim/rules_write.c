/*
 * Histories of writes, reads and leases, each of which breaks its promise without a rule (REPLICATION, W, L, S).
 */
#include "tests/sim/stage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/*
 * A store that lost its last write to its disk, and does not know, misses an entry. The next one, to another
 * block of the same object, must not make them look alike (W2).
 */
static void an_entry_over_another_version(uint64_t seed)
{
	struct stage s;

	stage_begin(&s, seed, 2, 2, 2); /* at the floor: it stays listed while it is away */
	s.herd->may_diverge = true;
	assert_int_equal(sim_host_fault(s.herd->nodes[s.a].host, LOOP_OP_WRITE, 1, SIM_FAULT_LOST),
			 0);
	assert_int_equal(herd_write(s.herd, s.p, 8 * KIB, 4 * KIB), 0);
	herd_kill(s.herd, s.a, SIM_DEATH_CERTAIN);
	herd_run(s.herd, 100);
	herd_start(s.herd, s.a);
	herd_until(s.herd, 10000, herd_is_healthy, "healthy");
	herd_reopen(s.herd);
	assert_int_equal(herd_write(s.herd, s.p, 0, 4 * KIB), 0);
	stage_end(&s);
}

/* What nobody but P has was read from it, and is gone with it (W4). */
static void a_read_of_what_is_in_flight(uint64_t seed)
{
	struct stage s;

	stage_begin(&s, seed, 3, 3, 1);
	sim_link_cut(s.herd->nodes[s.p].host, s.herd->nodes[s.a].host);
	sim_link_cut(s.herd->nodes[s.p].host, s.herd->nodes[s.b].host);
	herd_write_begin(s.herd, s.p, 0, 4 * KIB);
	herd_run(s.herd, 5);
	herd_read_begin(s.herd, s.p, 0, 4 * KIB);
	herd_run(s.herd, 20);
	herd_kill(s.herd, s.p, SIM_DEATH_CERTAIN);
	stage_reach(&s, s.p);
	stage_until_led_by_other(&s, s.p, 5000);
	assert_int_equal(herd_read(s.herd, s.a, 0, 4 * KIB), 0);
	stage_end(&s);
}

/* P wants A out, and cannot say so; A takes over without what P acknowledged alone (S1). */
static void a_write_without_a_member_that_is_still_listed(uint64_t seed)
{
	struct stage s;

	stage_begin(&s, seed, 4, 2, 1);
	stage_log_cut(&s, s.p, true);
	sim_partition(s.herd->nodes[s.p].host, s.herd->nodes[s.a].host);
	herd_write_begin(s.herd, s.p, 0, 4 * KIB);
	for (unsigned i = 0; i < 10; i++) {
		herd_run(s.herd,
			 150); /* P holds A for silent after 1 s, A takes over after 1.5 s */
		herd_write_begin(s.herd, s.p, (i + 1) * 4 * KIB, 4 * KIB);
	}
	stage_until_led_by(&s, s.a, 5000);
	assert_int_equal(herd_read(s.herd, s.a, 0, 64 * KIB), 0);
	stage_reach(&s, s.p);
	stage_log_cut(&s, s.p, false);
	stage_end(&s);
}

/*
 * B has a write that A has not, and its tail comes late. A must not change the object before it knows, or the
 * next entry finds different versions (T1); nor before it has made them one (T2).
 */
static void a_takeover_where_one_has_more(uint64_t seed)
{
	struct stage s;

	stage_begin(&s, seed, 3, 3, 1);
	sim_link_cut(s.herd->nodes[s.p].host, s.herd->nodes[s.a].host);
	herd_write_begin(s.herd, s.p, 32 * KIB, 4 * KIB);
	herd_run(s.herd, 20);
	sim_link_set_delay(s.herd->nodes[s.b].host, s.herd->nodes[s.a].host, 100 * NS_PER_MS,
			   100 * NS_PER_MS);
	herd_kill(s.herd, s.p, SIM_DEATH_CERTAIN);
	stage_reach(&s, s.p);
	herd_write_begin(s.herd, s.a, 0, 4 * KIB);
	herd_run(s.herd, 1000);
	sim_link_set_delay(s.herd->nodes[s.b].host, s.herd->nodes[s.a].host, 100 * NS_PER_US,
			   200 * NS_PER_US);
	stage_end(&s);
}

/* ---- an expand that is decided, of which P has not heard ---- */

static void propose(struct stage *s)
{
	/* What P has proposed comes through; what it is told is late. */
	sim_log_set_delay(s->herd->log, 20 * NS_PER_MS, 40 * NS_PER_MS);
}

/* Until J's map has J in sync, and P's has not. False: P's was first. */
static bool is_expanded_without(struct stage *s, unsigned p, unsigned j)
{
	for (unsigned i = 0; i < 100000; i++) {
		if (stage_is_in_sync_at(s, p, j))
			return false;
		if (stage_is_in_sync_at(s, j, j))
			return true;
		stage_run_us(s, 20);
	}
	herd_fail(s->herd, "no expand");
}

/* P serves alone, J has been expanded and takes over: P must have needed J's lease before (L1). */
static void a_read_after_an_expand_that_is_not_applied(uint64_t seed)
{
	unsigned told = 0;

	for (uint64_t at = seed; at < seed + 8; at++) {
		struct stage s;
		stage_begin(&s, at, 2, 2, 1);
		stage_lose(&s, s.a);
		assert_int_equal(herd_write(s.herd, s.p, 64 * KIB, 64 * KIB), 0);
		struct cue *cue = stage_cue(&s, SIM_POINT_EXPAND_PROPOSED, s.p, 1, propose);
		herd_start(s.herd, s.a);
		stage_until_cue(&s, cue, 10000);
		if (is_expanded_without(&s, s.p, s.a)) {
			told++;
			stage_log_cut(&s, s.p, true);
			stage_isolate(&s, s.p);
			sim_log_set_delay(s.herd->log, NS_PER_MS, 2 * NS_PER_MS);
			stage_until_led_by(&s, s.a, 5000);
			stage_open(&s, s.a);
			assert_int_equal(herd_write(s.herd, s.a, 0, 64 * KIB), 0);
			for (unsigned i = 0; i < 10; i++) {
				herd_read_begin(s.herd, s.p, 0, 64 * KIB);
				herd_run(s.herd, 50);
			}
			stage_reach(&s, s.p);
			stage_log_cut(&s, s.p, false);
		}
		sim_log_set_delay(s.herd->log, NS_PER_MS, 2 * NS_PER_MS);
		stage_end(&s);
	}
	assert_true(told > 0);
}

/*
 * J is in sync by its own map, and need not sync what it is sent under that; P's message is from before. What J
 * acknowledges under an old epoch FLUSH does not know of (W1).
 */
static void a_write_from_the_epoch_before(uint64_t seed)
{
	unsigned told = 0;

	for (uint64_t at = seed; at < seed + 8; at++) {
		struct stage s;
		stage_begin(&s, at, 2, 2, 1);
		stage_set(&s, "power_loss_wait", 1000);
		stage_lose(&s, s.a);
		assert_int_equal(herd_write(s.herd, s.p, 64 * KIB, 64 * KIB), 0);
		struct cue *cue = stage_cue(&s, SIM_POINT_EXPAND_PROPOSED, s.p, 1, propose);
		herd_start(s.herd, s.a);
		stage_until_cue(&s, cue, 10000);
		if (is_expanded_without(&s, s.p, s.a)) {
			told++;
			stage_log_cut(&s, s.p, true);
			herd_write_begin(s.herd, s.p, 0, 4 * KIB);
			herd_run(s.herd, 20);
			assert_int_equal(herd_flush(s.herd, s.p), 0);
			herd_cut_power(s.herd, s.a, SIM_DEATH_CERTAIN, SIM_DROP_UNSYNCED);
			herd_kill(s.herd, s.p, SIM_DEATH_CERTAIN);
			herd_start(s.herd, s.a);
			sim_log_set_delay(s.herd->log, NS_PER_MS, 2 * NS_PER_MS);
			stage_until_led_by(&s, s.a, 10000);
			stage_open(&s, s.a);
			assert_int_equal(herd_read(s.herd, s.a, 0, 4 * KIB), 0);
		}
		sim_log_set_delay(s.herd->log, NS_PER_MS, 2 * NS_PER_MS);
		stage_end(&s);
	}
	assert_true(told > 0);
}

/* ---- one who should not answer ---- */

static void read_in_vain(struct stage *s, unsigned node, unsigned ms)
{
	for (unsigned i = 0; i < ms; i += 20) {
		herd_read_begin(s->herd, node, 0, 64 * KIB);
		herd_run(s->herd, 20);
	}
}

/*
 * Without leases a read at P asks A. A has taken over, started again, and its map is as old as P's: it must
 * not answer before it knows what became of its earlier start (R1).
 */
static void an_answer_from_the_past(uint64_t seed)
{
	unsigned told = 0;

	for (uint64_t at = seed; at < seed + 10; at++) {
		struct stage s;
		uint64_t epoch;

		stage_begin(&s, at, 2, 2, 1);
		stage_set(&s, "lease", 0);
		epoch = stage_row(&s)->epoch;
		stage_log_cut(&s, s.p, true);
		stage_isolate(&s, s.p);
		stage_until_led_by(&s, s.a, 5000);
		assert_int_equal(herd_write(s.herd, s.a, 0, 64 * KIB), 0);
		herd_kill(s.herd, s.a, SIM_DEATH_CERTAIN);
		sim_log_set_delay(s.herd->log, NS_PER_MS, 3000 * NS_PER_MS);
		stage_reach(&s, s.p);
		herd_start(s.herd, s.a);
		for (unsigned i = 0; i < 150 && !s.herd->nodes[s.a].store_id; i++) {
			const struct cluster_pg *row = stage_row_at(&s, s.a);
			told += row && row->epoch == epoch;
			read_in_vain(&s, s.p, 20);
		}
		sim_log_set_delay(s.herd->log, NS_PER_MS, 2 * NS_PER_MS);
		stage_log_cut(&s, s.p, false);
		stage_end(&s);
	}
	assert_true(told > 10);
}

/*
 * A copy of P's directory starts elsewhere while P still runs, and hears nothing of it: whoever leads now
 * must not serve as long as P may (L3).
 */
static void a_second_start_while_the_first_one_serves(uint64_t seed)
{
	const struct herd_options options = {.seed = seed,
					     .nodes = 3,
					     .late = 1,
					     .copies = 2,
					     .min_insync = 1,
					     .pg_count = 1,
					     .volume_bytes = 16 * MIB};
	struct herd_node *copy;
	struct stage s;

	stage_begin_as(&s, &options);
	copy = &s.herd->nodes[2];
	copy->uuid = s.herd->nodes[s.p].uuid;
	copy->incarnation = s.herd->nodes[s.p].incarnation;
	herd_run(s.herd, 100);
	stage_log_cut(&s, s.p, true);
	stage_isolate(&s, s.p);
	sim_host_copy_disk(copy->host, s.herd->nodes[s.p].host);
	herd_start(s.herd, 2);
	herd_write_begin(s.herd, s.a, 0, 64 * KIB);
	read_in_vain(&s, s.p, 1500);
	herd_run(s.herd, 3000);
	assert_int_equal(herd_read(s.herd, s.a, 0, 64 * KIB), 0);
	herd_kill(s.herd, s.p, SIM_DEATH_SILENT);
	stage_drop(&s);
}

/* A's takeover is decided once more, long after it was asked for: P has done nothing since (S0). */
static void a_takeover_that_comes_late(uint64_t seed)
{
	struct stage s;
	uint64_t epoch;

	stage_begin(&s, seed, 3, 3, 1);
	epoch = stage_row(&s)->epoch;
	herd_kill(s.herd, s.p, SIM_DEATH_CERTAIN);
	stage_until_led_by(&s, s.a, 5000);
	stage_heal(&s);
	stage_until_led_by(&s, s.p, 10000);
	herd_run(s.herd, 300);
	stage_log_cut(&s, s.p, true);
	for (unsigned i = 0; i < 4; i++) {
		const struct cluster_takeover row = {
			.pg = 0, .store = s.herd->nodes[s.a].store_id, .epoch = epoch};
		herd_propose_by(&s.herd->nodes[s.a], cluster_command_pg_takeover(&row, 1));
		herd_run(s.herd, 10);
	}
	herd_run(s.herd, 50);
	herd_write_begin(s.herd, s.a, 0, 64 * KIB);
	read_in_vain(&s, s.p, 1000);
	stage_log_cut(&s, s.p, false);
	stage_end(&s);
}

/* A lost its power for a moment, and with it what it had acknowledged and not synced; then it is all that is left (R3). */
static void a_member_that_lost_its_power_leads(uint64_t seed)
{
	struct stage s;

	stage_begin(&s, seed, 2, 2, 1);
	assert_int_equal(herd_flush(s.herd, s.p), 0);
	assert_int_equal(herd_write(s.herd, s.p, 0, 64 * KIB), 0);
	herd_cut_power(s.herd, s.a, SIM_DEATH_SILENT, SIM_DROP_UNSYNCED);
	herd_start(s.herd, s.a);
	herd_until(s.herd, 10000, herd_is_healthy, "healthy");
	herd_run(s.herd, 200);
	herd_kill(s.herd, s.p, SIM_DEATH_CERTAIN);
	stage_until_led_by(&s, s.a, 5000);
	stage_open(&s, s.a);
	assert_int_equal(herd_read(s.herd, s.a, 0, 64 * KIB), 0);
	stage_end(&s);
}

/* ---- two takeovers in one settle ---- */

static void kill_second(struct stage *s)
{
	herd_kill(s->herd, s->a, SIM_DEATH_CERTAIN);
}

/*
 * B has writes of 40 objects that nobody else has. A settles them, and dies when it is through with the
 * first ones: what is left must still be in B's tail, whatever commit point it was told (T2).
 */
static void a_second_takeover_within_a_settle(uint64_t seed)
{
	const struct herd_options options = {.seed = seed,
					     .nodes = 4,
					     .copies = 4,
					     .min_insync = 1,
					     .pg_count = 1,
					     .volume_bytes = 42ull * 4 * MIB};
	struct stage s;
	unsigned c;

	stage_begin_as(&s, &options);
	c = 6 - s.p - s.a - s.b;
	sim_link_cut(s.herd->nodes[s.p].host, s.herd->nodes[s.a].host);
	sim_link_cut(s.herd->nodes[s.p].host, s.herd->nodes[c].host);
	for (uint64_t i = 1; i <= 40; i++)
		herd_write_begin(s.herd, s.p, i * 4 * MIB, 4 * KIB);
	herd_run(s.herd, 100);
	struct cue *cue = stage_cue(&s, SIM_POINT_ENTRY_APPLIED, s.b, 18, kill_second);
	herd_kill(s.herd, s.p, SIM_DEATH_CERTAIN);
	stage_reach(&s, s.p);
	stage_until_cue(&s, cue, 10000);
	stage_until_led_by(&s, s.b, 10000);
	for (uint64_t i = 1; i <= 40; i++)
		assert_int_equal(herd_read(s.herd, s.b, i * 4 * MIB, 4 * KIB), 0);
	herd_kill(s.herd, s.b, SIM_DEATH_CERTAIN);
	stage_until_led_by(&s, c, 10000);
	for (uint64_t i = 1; i <= 40; i++)
		assert_int_equal(herd_read(s.herd, c, i * 4 * MIB, 4 * KIB), 0);
	stage_drop(&s);
}

/*
 * P alone has the entry, and the block with it rots. The older copy of A must not take its place as long as P
 * remembers the request as executed: it comes again, and would be answered without its data (T2, Q1).
 */
static void an_object_in_doubt_that_is_damaged(uint64_t seed)
{
	struct stage s;
	unsigned c;

	stage_begin(&s, seed, 3, 2, 2);
	c = 3 - s.p - s.a;
	s.herd->may_diverge = true;
	sim_link_cut(s.herd->nodes[s.p].host, s.herd->nodes[s.a].host);
	herd_write_begin(s.herd, c, 8 * KIB, 4 * KIB);
	herd_run(s.herd, 20);
	herd_kill(s.herd, s.a, SIM_DEATH_CERTAIN);
	(void)herd_make_hole(s.herd, s.p, 0);
	herd_kill(s.herd, s.p, SIM_DEATH_CERTAIN);
	stage_reach(&s, s.p);
	herd_start(s.herd, s.p);
	herd_start(s.herd, s.a);
	stage_heal(&s);
	assert_int_equal(HERD_COUNTER(s.herd, objects_lost), 0);
	assert_int_equal(herd_read(s.herd, c, 8 * KIB, 4 * KIB), 0);
	stage_end(&s);
}

const struct history_row rules_write[] = {
	{"an entry over another version", an_entry_over_another_version, 1, 2,
	 "W2_PREVIOUS_VERSION", NULL},
	{"a read of what is in flight", a_read_of_what_is_in_flight, 10, 2, "W4_READS_WAIT", NULL},
	{"a write without a member that is still listed",
	 a_write_without_a_member_that_is_still_listed, 20, 2, "S1_SHRINK_FIRST", NULL},
	{"a write without a member that is still listed",
	 a_write_without_a_member_that_is_still_listed, 20, 1, "W3_ALL_ACKNOWLEDGE", NULL},
	{"a takeover where one has more", a_takeover_where_one_has_more, 220, 2, "T1_ALL_TAILS",
	 NULL},
	{"a takeover where one has more", a_takeover_where_one_has_more, 220, 2, "T2_SETTLE", NULL},
	{"an object in doubt that is damaged", an_object_in_doubt_that_is_damaged, 250, 4,
	 "T2_OWN_CONTENT", NULL},
	{"a read after an expand that is not applied", a_read_after_an_expand_that_is_not_applied,
	 30, 1, "L1_JOINING", NULL},
	{"a write from the epoch before", a_write_from_the_epoch_before, 210, 1, "W1_OLD_EPOCH",
	 NULL},
	{"an answer from the past", an_answer_from_the_past, 120, 1, "R1_REGISTERED_FIRST", NULL},
	{"a member that lost its power leads", a_member_that_lost_its_power_leads, 240, 3,
	 "R3_UNCLEAN_MARK", NULL},
	{"a second start while the first one serves", a_second_start_while_the_first_one_serves,
	 140, 3, "L3_FENCE", NULL},
	{"a takeover that comes late", a_takeover_that_comes_late, 150, 2, "S0_CONDITION", NULL},
	{"a second takeover within a settle", a_second_takeover_within_a_settle, 160, 3,
	 "T2_COMMIT_POINT", NULL},
	{NULL, NULL, 0, 0, NULL, NULL},
};
