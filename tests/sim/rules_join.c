/*
 * Histories of joins, FLUSH and retries, each of which breaks its promise without a rule (REPLICATION, J, F,
 * Q).
 */
#include "tests/sim/stage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- between the seal and the expand ---- */

static void slow_log(struct stage *s)
{
	sim_log_set_delay(s->herd->log, 100 * NS_PER_MS, 150 * NS_PER_MS);
}

/* A has lost what was written since, and joins; an expand is proposed, and takes a while. */
static void join_until_proposed(struct stage *s, uint64_t seed)
{
	stage_begin(s, seed, 2, 2, 1);
	stage_set(s, "power_loss_wait", 1000);
	stage_lose(s, s->a);
	assert_int_equal(herd_write(s->herd, s->p, 64 * KIB, 64 * KIB), 0);
	struct cue *cue = stage_cue(s, SIM_POINT_EXPAND_PROPOSED, s->p, 1, slow_log);
	herd_start(s->herd, s->a);
	stage_until_cue(s, cue, 10000);
}

static void until_expanded(struct stage *s)
{
	for (unsigned i = 0; !stage_is_in_sync_at(s, s->p, s->a); i++) {
		if (i > 3000)
			herd_fail(s->herd, "no expand");
		herd_run(s->herd, 1);
	}
	sim_log_set_delay(s->herd->log, NS_PER_MS, 2 * NS_PER_MS);
}

/* Acknowledged by P alone; then J is in sync, leads, and never had it (W3). */
static void a_write_while_an_expand_is_undecided(uint64_t seed)
{
	struct stage s;

	join_until_proposed(&s, seed);
	sim_link_cut(s.herd->nodes[s.p].host, s.herd->nodes[s.a].host);
	herd_write_begin(s.herd, s.p, 0, 4 * KIB);
	until_expanded(&s);
	herd_kill(s.herd, s.p, SIM_DEATH_CERTAIN);
	stage_reach(&s, s.p);
	stage_until_led_by(&s, s.a, 5000);
	stage_open(&s, s.a);
	assert_int_equal(herd_read(s.herd, s.a, 0, 4 * KIB), 0);
	stage_end(&s);
}

/* FLUSH asked P only, as J was not in sync; then J is, and all that is left loses power (J4). */
static void a_flush_while_an_expand_is_undecided(uint64_t seed)
{
	struct stage s;

	join_until_proposed(&s, seed);
	assert_int_equal(herd_write(s.herd, s.p, 0, 4 * KIB), 0);
	assert_int_equal(herd_flush(s.herd, s.p), 0);
	assert_false(stage_is_in_sync_at(&s, s.p, s.a));
	until_expanded(&s);
	herd_cut_power(s.herd, s.a, SIM_DEATH_CERTAIN, SIM_DROP_UNSYNCED);
	herd_kill(s.herd, s.p, SIM_DEATH_CERTAIN);
	herd_start(s.herd, s.a);
	stage_until_led_by(&s, s.a, 10000);
	stage_open(&s, s.a);
	assert_int_equal(herd_read(s.herd, s.a, 0, 4 * KIB), 0);
	stage_end(&s);
}

/* A member that was never asked to sync is all that is left (F1). */
static void a_flush_that_one_member_did_not_hear_of(uint64_t seed)
{
	struct stage s;

	stage_begin(&s, seed, 2, 2, 1);
	stage_set(&s, "power_loss_wait", 1000);
	assert_int_equal(herd_write(s.herd, s.p, 0, 4 * KIB), 0);
	assert_int_equal(herd_flush(s.herd, s.p), 0);
	herd_cut_power(s.herd, s.a, SIM_DEATH_CERTAIN, SIM_DROP_UNSYNCED);
	herd_kill(s.herd, s.p, SIM_DEATH_CERTAIN);
	herd_start(s.herd, s.a);
	stage_until_led_by(&s, s.a, 10000);
	stage_open(&s, s.a);
	assert_int_equal(herd_read(s.herd, s.a, 0, 4 * KIB), 0);
	stage_end(&s);
}

/* ---- entries of objects that were not compared ---- */

/*
 * The last block was changed while J was away, the first one changes before J's copy is compared: J must not
 * have the new version with the old last block.
 */
static void a_write_before_the_object_is_compared(uint64_t seed)
{
	struct stage s;

	stage_begin(&s, seed, 2, 2, 1);
	stage_lose(&s, s.a);
	assert_int_equal(herd_write(s.herd, s.p, 60 * KIB, 4 * KIB), 0);
	herd_start(s.herd, s.a);
	for (unsigned i = 0; i < 2000 && !herd_is_healthy(s.herd); i++) {
		herd_write_begin(s.herd, s.p, i % 14 * 4 * KIB, 4 * KIB);
		for (unsigned t = 0; t < 50; t++)
			stage_run_us(&s, 20);
	}
	stage_end(&s);
}

const struct history_row rules_join[] = {
	{"a write while an expand is undecided", a_write_while_an_expand_is_undecided, 40, 2,
	 "W3_SEALED_ACKNOWLEDGE", NULL},
	{"a flush while an expand is undecided", a_flush_while_an_expand_is_undecided, 50, 2,
	 "J4_SYNC", NULL},
	{"a flush that one member did not hear of", a_flush_that_one_member_did_not_hear_of, 60, 2,
	 "F1_ALL_SYNCED", NULL},
	{"a write before the object is compared", a_write_before_the_object_is_compared, 70, 3,
	 "J2_COMPARE_ALL", "W2_PREVIOUS_VERSION"},
	{NULL, NULL, 0, 0, NULL, NULL},
};
