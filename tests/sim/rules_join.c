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

/* P dies, A loses its power and comes back alone: @ms later it leads, and what it serves is judged. */
static void lose_all_but_what_a_synced(struct stage *s, uint64_t ms)
{
	herd_cut_power(s->herd, s->a, SIM_DEATH_CERTAIN, SIM_DROP_UNSYNCED);
	herd_kill(s->herd, s->p, SIM_DEATH_CERTAIN);
	herd_start(s->herd, s->a);
	stage_until_led_by(s, s->a, ms);
	stage_open(s, s->a);
	assert_int_equal(herd_read(s->herd, s->a, 0, 4 * KIB), 0);
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
	lose_all_but_what_a_synced(&s, 10000);
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
	lose_all_but_what_a_synced(&s, 10000);
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

/* The same of an object that was compared, and waits for its push: the push would take J's copy for new. */
static void a_write_before_the_object_is_pushed(uint64_t seed)
{
	struct stage s;

	stage_begin(&s, seed, 2, 2, 1);
	stage_lose(&s, s.a);
	assert_int_equal(herd_write(s.herd, s.p, 60 * KIB, 4 * KIB), 0);
	stage_set(&s, "recovery_paused", 1);
	herd_start(s.herd, s.a);
	herd_run(s.herd, 500);
	assert_false(herd_is_healthy(s.herd));
	assert_int_equal(herd_write(s.herd, s.p, 0, 4 * KIB), 0);
	herd_run(s.herd, 50);
	stage_set(&s, "recovery_paused", 0);
	stage_end(&s);
}

/* ---- pushes and joins that are cut short ---- */

static void kill_primary(struct stage *s)
{
	herd_kill(s->herd, s->p, SIM_DEATH_CERTAIN);
}

/*
 * At the floor P pushes to J what nobody else has yet, half of it, and dies. A leads, with the version that J
 * has: J must not pass for equal (J3).
 */
static void a_push_that_ends_half_way(uint64_t seed)
{
	struct stage s;

	stage_begin(&s, seed, 3, 3, 2);
	stage_lose(&s, s.b);
	sim_link_cut(s.herd->nodes[s.p].host, s.herd->nodes[s.a].host);
	for (uint64_t i = 0; i < 30; i++)
		herd_write_begin(s.herd, s.p, MIB + i * 64 * KIB, 64 * KIB);
	herd_run(s.herd, 50);
	herd_kill(s.herd, s.a, SIM_DEATH_CERTAIN);
	stage_reach(&s, s.p);
	struct cue *cue = stage_cue(&s, SIM_POINT_PUSH_HALF, s.p, 1, kill_primary);
	herd_start(s.herd, s.b);
	stage_until_cue(&s, cue, 10000);
	herd_run(s.herd, 50);
	herd_start(s.herd, s.a);
	stage_until_led_by(&s, s.a, 20000);
	stage_end(&s);
}

static void slow_proposal(struct stage *s)
{
	sim_log_set_delay(s->herd->log, 700 * NS_PER_MS, 701 * NS_PER_MS);
}

static void hurry(struct stage *s)
{
	sim_log_set_delay(s->herd->log, NS_PER_MS, 2 * NS_PER_MS);
	herd_kill(s->herd, s->a, SIM_DEATH_CERTAIN);
}

/*
 * The expand of J's first join is still on its way while J has come back and joins again. It must not
 * be in sync by that, without what was written meanwhile (J1).
 */
static void an_expand_of_a_join_that_has_ended(uint64_t seed)
{
	struct stage s;

	stage_begin(&s, seed, 2, 2, 1);
	stage_lose(&s, s.a);
	struct cue *counted = stage_cue(&s, SIM_POINT_SEAL_COUNTED, s.p, 1, slow_proposal);
	struct cue *proposed = stage_cue(&s, SIM_POINT_EXPAND_PROPOSED, s.p, 1, hurry);
	herd_start(s.herd, s.a);
	stage_until_cue(&s, counted, 10000);
	stage_until_cue(&s, proposed, 10000);
	herd_run(s.herd, 20);
	/* Its second join goes nowhere, and P is gone as soon as J may think that it has all. */
	sim_link_set_delay(s.herd->nodes[s.p].host, s.herd->nodes[s.a].host, 5 * NS_PER_S,
			   5 * NS_PER_S);
	assert_int_equal(herd_write(s.herd, s.p, 0, 64 * KIB), 0);
	herd_start(s.herd, s.a);
	for (unsigned i = 0; i < 1500; i++) {
		herd_run(s.herd, 1);
		if (!s.herd->nodes[s.a].store_id || !stage_row_at(&s, s.a) ||
		    !stage_is_in_sync_at(&s, s.a, s.a))
			continue;
		herd_kill(s.herd, s.p, SIM_DEATH_CERTAIN);
		stage_until_led_by(&s, s.a, 5000);
		stage_open(&s, s.a);
		assert_int_equal(herd_read(s.herd, s.a, 0, 64 * KIB), 0);
		break;
	}
	sim_link_set_delay(s.herd->nodes[s.p].host, s.herd->nodes[s.a].host, 100 * NS_PER_US,
			   200 * NS_PER_US);
	stage_end(&s);
}

/* ---- what the comparison of digests is for ---- */

static void write_within(struct stage *s)
{
	for (uint64_t i = 0; i < 8; i++)
		herd_write_begin(s->herd, s->p, i * 64 * KIB, 4 * KIB);
}

/* Half of the object is pushed when clients write it. */
static void a_write_into_a_push(uint64_t seed)
{
	struct stage s;

	stage_begin(&s, seed, 2, 2, 1);
	stage_lose(&s, s.a);
	for (uint64_t at = 0; at < 3 * MIB; at += 64 * KIB)
		assert_int_equal(herd_write(s.herd, s.p, at, 64 * KIB), 0);
	struct cue *cue = stage_cue(&s, SIM_POINT_PUSH_HALF, s.p, 1, write_within);
	herd_start(s.herd, s.a);
	stage_until_cue(&s, cue, 10000);
	stage_end(&s);
}

/* The first object of the volume is missing at @node from here on, as if it had been found damaged. */
static void make_hole(struct stage *s, unsigned node)
{
	struct object_key key = herd_make_hole(s->herd, node, 0);

	pg_set_store_corrupt(s->herd->nodes[node].set, s->herd->nodes[node].store, 0, &key);
	s->herd->may_diverge = true;
}

/*
 * It is missing at P and at A, and J, who was away, has the very version of it: that is the last copy, and not to
 * be deleted since P has none (J5).
 */
static void a_join_of_who_has_the_last_copy(uint64_t seed)
{
	struct stage s;

	stage_begin(&s, seed, 3, 3, 1);
	stage_lose(&s, s.b);
	make_hole(&s, s.a);
	make_hole(&s, s.p);
	herd_run(s.herd, 500);
	herd_start(s.herd, s.b);
	herd_until(s.herd, 30000, herd_is_healthy, "healthy");
	herd_run(s.herd, 10000); /* holes are looked for again every 5 s */
	stage_end(&s);
}

/* A and B are alike, but A misses an object: whoever leads next serves all of them at once (J5). */
static void a_takeover_where_the_first_has_a_hole(uint64_t seed)
{
	struct stage s;

	stage_begin(&s, seed, 3, 3, 1);
	stage_set(&s, "recovery_paused", 1);
	make_hole(&s, s.a);
	for (unsigned i = 0; !(cluster_pg_seat(stage_row(&s), s.herd->nodes[s.a].store_id)->flags &
			       CLUSTER_SEAT_HOLES);
	     i++) {
		assert_true(i < 300);
		herd_run(s.herd, 10);
	}
	herd_kill(s.herd, s.p, SIM_DEATH_CERTAIN);
	stage_until_led_by_other(&s, s.p, 5000);
	assert_int_equal(stage_node_of(&s, stage_row(&s)->primary), s.b);
	stage_set(&s, "recovery_paused", 0);
	stage_end(&s);
}

/*
 * J's map is from before the only volume: what it is sent of that volume is no garbage, nor does it judge so before
 * it has the map under which the primary asks (M2).
 */
static void a_join_of_who_never_heard_of_the_volume(uint64_t seed)
{
	const struct cluster_property shared = {.key = "access", .value = "shared"};
	const struct herd_options options = {.seed = seed,
					     .nodes = 2,
					     .copies = 2,
					     .min_insync = 1,
					     .pg_count = 1,
					     .volume_bytes = 16 * MIB,
					     .is_bare = true};
	struct stage s;

	stage_begin_as(&s, &options);
	stage_lose(&s, s.a);
	sim_partition(s.herd->nodes[s.p].host, s.herd->nodes[s.a].host);
	herd_start(s.herd, s.a);
	for (unsigned i = 0; stage_row(&s)->join_count == 0 || i < 20; i++) {
		assert_true(i < 300);
		herd_run(s.herd, 10);
	}
	stage_log_cut(&s, s.a, true);
	for (unsigned i = 0; !cluster_volume_by_name(herd_map(s.herd), HERD_VOLUME); i++) {
		assert_true(i < 100);
		herd_propose_by(&s.herd->nodes[s.p],
				cluster_command_volume_create(HERD_VOLUME, options.volume_bytes, 0,
							      &shared, 1));
		herd_run(s.herd, 50);
	}
	stage_open(&s, s.p);
	assert_int_equal(herd_write(s.herd, s.p, 0, 64 * KIB), 0);
	stage_reach(&s, s.p);
	herd_run(s.herd, 2500); /* it is filled, but for the end */
	stage_log_cut(&s, s.a, false);
	herd_until(s.herd, 30000, herd_is_healthy, "healthy");
	assert_int_equal(HERD_COUNTER(s.herd, digest_mismatches), 0);
	stage_end(&s);
}

/* ---- FLUSH and epochs ---- */

/* G does not know of the expand; J has a write that was sent again behind it, and did not sync it (F1). */
static void a_flush_that_names_an_epoch_of_before(uint64_t seed)
{
	struct stage s;
	unsigned g;

	stage_begin(&s, seed, 3, 2, 1);
	g = 3 - s.p - s.a;
	stage_set(&s, "power_loss_wait", 1000);
	stage_lose(&s, s.a);
	assert_int_equal(herd_write(s.herd, s.p, 64 * KIB, 64 * KIB), 0);
	struct cue *cue = stage_cue(&s, SIM_POINT_EXPAND_PROPOSED, s.p, 1, NULL);
	sim_log_set_delay(s.herd->log, 10 * NS_PER_MS, 12 * NS_PER_MS);
	herd_start(s.herd, s.a);
	stage_until_cue(&s, cue, 10000);
	stage_log_cut(&s, g, true);
	sim_link_set_delay(s.herd->nodes[s.p].host, s.herd->nodes[s.a].host, 60 * NS_PER_MS,
			   60 * NS_PER_MS);
	uint64_t done = herd_load_done(s.herd);
	herd_write_begin(s.herd, g, 0, 4 * KIB);
	for (unsigned i = 0; herd_load_done(s.herd) == done && i < 2000; i++)
		herd_run(s.herd, 1);
	assert_true(herd_load_done(s.herd) > done);
	assert_true(stage_is_in_sync_at(&s, s.p, s.a));
	/* It waits for G's map where it is refused. */
	done = herd_load_done(s.herd);
	herd_flush_begin(s.herd, g);
	herd_run(s.herd, 400);
	if (herd_load_done(s.herd) > done) {
		herd_cut_power(s.herd, s.a, SIM_DEATH_CERTAIN, SIM_DROP_UNSYNCED);
		herd_kill(s.herd, s.p, SIM_DEATH_CERTAIN);
		stage_log_cut(&s, g, false);
		herd_start(s.herd, s.a);
		stage_until_led_by(&s, s.a, 10000);
		assert_int_equal(herd_read(s.herd, g, 0, 4 * KIB), 0);
	}
	stage_log_cut(&s, g, false);
	sim_link_set_delay(s.herd->nodes[s.p].host, s.herd->nodes[s.a].host, 100 * NS_PER_US,
			   200 * NS_PER_US);
	stage_end(&s);
}

/* FLUSH ends after the expand that came meanwhile: J is asked, too, though it has synced what it acknowledged. */
static void a_flush_during_which_a_store_joins(uint64_t seed)
{
	const struct sim_latency slow = {.read_max_ns = NS_PER_MS,
					 .write_max_ns = NS_PER_MS,
					 .sync_min_ns = 250 * NS_PER_MS,
					 .sync_max_ns = 250 * NS_PER_MS};
	struct stage s;

	stage_begin(&s, seed, 2, 2, 1);
	stage_set(&s, "power_loss_wait", 1000);
	stage_lose(&s, s.a);
	assert_int_equal(herd_write(s.herd, s.p, 64 * KIB, 64 * KIB), 0);
	struct cue *cue = stage_cue(&s, SIM_POINT_EXPAND_PROPOSED, s.p, 1, NULL);
	sim_log_set_delay(s.herd->log, 20 * NS_PER_MS, 25 * NS_PER_MS);
	herd_start(s.herd, s.a);
	stage_until_cue(&s, cue, 10000);
	sim_host_set_latency(s.herd->nodes[s.p].host, &slow);
	assert_int_equal(herd_write(s.herd, s.p, 0, 4 * KIB), 0);
	assert_false(stage_is_in_sync_at(&s, s.p, s.a));
	assert_int_equal(herd_flush(s.herd, s.p), 0);
	assert_true(stage_is_in_sync_at(&s, s.p, s.a));
	lose_all_but_what_a_synced(&s, 10000);
	stage_end(&s);
}

/* J's disk is slow to sync, and the write behind it, which need not be synced, is acknowledged first (F1). */
static void a_fua_that_one_member_has_not_synced(uint64_t seed)
{
	const struct sim_latency slow = {.read_max_ns = NS_PER_MS,
					 .write_max_ns = NS_PER_MS,
					 .sync_min_ns = 400 * NS_PER_MS,
					 .sync_max_ns = 400 * NS_PER_MS};
	struct stage s;

	stage_begin(&s, seed, 2, 2, 1);
	stage_set(&s, "power_loss_wait", 1000);
	assert_int_equal(herd_flush(s.herd, s.p), 0);
	sim_host_set_latency(s.herd->nodes[s.a].host, &slow);
	herd_write_fua_begin(s.herd, s.p, 0, 4 * KIB);
	herd_run(s.herd, 2);
	assert_int_equal(herd_write(s.herd, s.p, 1 * MIB, 4 * KIB), 0);
	herd_run(s.herd, 50);
	lose_all_but_what_a_synced(&s, 20000);
	stage_drop(&s); /* what was not to be synced may be gone */
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
	{"a write before the object is pushed", a_write_before_the_object_is_pushed, 75, 2,
	 "J2_SKIP_MISSING", "W2_PREVIOUS_VERSION"},
	{"a write while an expand is undecided", a_write_while_an_expand_is_undecided, 40, 2,
	 "J4_COUNT_FIRST", NULL},
	{"a push that ends half way", a_push_that_ends_half_way, 80, 2, "J3_MISSING_FIRST", NULL},
	{"an expand of a join that has ended", an_expand_of_a_join_that_has_ended, 90, 3,
	 "J1_JOIN_INDEX", NULL},
	{"a write into a push", a_write_into_a_push, 170, 3, "J4_DIGEST", "J2_UNDER_LOCK"},
	{"a write into a push", a_write_into_a_push, 170, 3, "J2_UNDER_LOCK", "J4_DIGEST"},
	{"a join of who has the last copy", a_join_of_who_has_the_last_copy, 180, 3,
	 "J5_MISSING_NOT_ABSENT", NULL},
	{"a takeover where the first has a hole", a_takeover_where_the_first_has_a_hole, 190, 2,
	 "J5_NOT_PROMOTED", NULL},
	{"a join of who never heard of the volume", a_join_of_who_never_heard_of_the_volume, 200, 2,
	 "M2_NEXT_ID", "W1_LATER_EPOCH"},
	{"a FUA that one member has not synced", a_fua_that_one_member_has_not_synced, 230, 3,
	 "F1_FUA", NULL},
	{"a flush that names an epoch of before", a_flush_that_names_an_epoch_of_before, 100, 2,
	 "F1_SYNC_EPOCH", NULL},
	{"a flush during which a store joins", a_flush_during_which_a_store_joins, 110, 2,
	 "F1_REPEAT", "J4_SYNC"},
	{NULL, NULL, 0, 0, NULL, NULL},
};
