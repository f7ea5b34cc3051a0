/*
 * Ownership of volumes (REPLICATION, O1) over whole nodes. Each history is told once with all rules, and
 * keeps its promise, and once without the rule that it is about, and does not.
 */
#include "tests/sim/herd_owner.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/rule.h"
#include "lib/base/size.h"

#define PGS	8u
#define OBJECTS 16u

/* ---- clusters ---- */

static struct herd *make(uint64_t seed, unsigned nodes)
{
	const struct herd_options options = {.seed = seed,
					     .nodes = nodes,
					     .copies = 3,
					     .min_insync = 2,
					     .pg_count = PGS,
					     .volume_bytes = (uint64_t)OBJECTS * OBJECT_SIZE,
					     .is_single = true};

	return herd_new(&options);
}

static const struct cluster_volume *volume_of(struct herd *herd)
{
	return cluster_volume_by_name(herd_map(herd), HERD_VOLUME);
}

static uint32_t pg_of(struct herd *herd, uint32_t object)
{
	return cluster_pg_of(cluster_policy(herd_map(herd), 0), volume_of(herd)->family, object);
}

/* An object whose PG this node leads. */
static uint32_t object_of(struct herd *herd, unsigned node)
{
	for (uint32_t object = 0; object < OBJECTS; object++)
		if (herd_primary(herd, pg_of(herd, object)) == (int)node)
			return object;
	fail_msg("node %u leads nothing", node);
	return 0;
}

static unsigned watched;

static bool leads_nothing(struct herd *herd)
{
	for (uint32_t pg = 0; pg < PGS; pg++) {
		const struct cluster_pg *row = cluster_pg(herd_map(herd), pg);
		if (cluster_pg_seat(row, herd->nodes[watched].store_id) ||
		    cluster_pg_join(row, herd->nodes[watched].store_id))
			return false;
	}
	return herd_is_healthy(herd);
}

/* It keeps no copies from now on: it is a gateway and nothing else. */
static void make_gateway(struct herd *herd, unsigned node)
{
	watched = node;
	herd_propose(herd, cluster_command_store_weight(herd->nodes[node].store_id, 0));
	herd_run(herd, 500);
	herd_propose(herd, cluster_command_store_weight(herd->nodes[node].store_id, 0));
	herd_until(herd, 60000, leads_nothing, "a gateway only");
}

/* ---- a new owner waits for the old one's writes ---- */

/*
 * P has given the old owner's write its number, and a member is slow to take it. The new owner's
 * write, in a PG that has nothing to do with P, must not be acknowledged before that is over.
 */
static bool older_writes_are_waited_for(uint64_t seed)
{
	struct herd *herd = make(seed, 3);
	uint32_t slow = 0;
	unsigned p = (unsigned)herd_primary(herd, pg_of(herd, slow));
	unsigned a = (p + 1) % 3, b = (p + 2) % 3;
	struct pg_status status;
	struct connection *old = connection_open(herd, a), *new;

	assert_int_equal(connection_write(herd, old, slow, 1), 0);
	new = connection_open(herd, b);
	sim_link_set_delay(herd->nodes[p].host, herd->nodes[a].host, 300 * NS_PER_MS,
			   300 * NS_PER_MS);
	struct op *older = op_begin(old, GATEWAY_WRITE, slow, 2);
	herd_run(herd, 20);
	assert_false(older->is_done);
	struct op *newer = op_begin(new, GATEWAY_WRITE, object_of(herd, b), 3);
	(void)op_await(herd, newer, 5000);
	assert_int_equal(newer->result, 0);
	assert_true(pg_set_status(herd->nodes[p].set, pg_of(herd, slow), 0, &status));
	bool is_kept = status.in_flight == 0;
	(void)op_await(herd, older, 5000);
	herd_free(herd);
	return is_kept;
}

/* ---- an old owner that does not know ---- */

/* The old owner's node lags behind the log, and its client goes on writing. */
static bool old_owners_writes_are_refused(uint64_t seed)
{
	struct herd *herd = make(seed, 4);

	make_gateway(herd, 3);
	struct connection *old = connection_open(herd, 3), *new;
	assert_int_equal(connection_write(herd, old, 0, 1), 0);
	new = connection_open(herd, 0);
	sim_engine_set_cut(herd->nodes[3].engine, true);
	assert_int_equal(connection_write(herd, new, 0, 2), 0);
	int result = connection_write(herd, old, 0, 3);
	bool is_kept = result == -E_STALE_GENERATION && connection_read(herd, new, 0) == 2;
	/* It may read what it likes: reads wait for no map. */
	assert_int_equal(connection_read(herd, old, 0), is_kept ? 2 : 3);
	sim_engine_set_cut(herd->nodes[3].engine, false);
	herd_run(herd, 1000);
	is_kept &= old->lost == 1;
	herd_free(herd);
	return is_kept;
}

/* Its process stands still meanwhile, with writes in its hands and on the wire. */
static bool paused_owners_writes_are_refused(uint64_t seed)
{
	struct herd *herd = make(seed, 4);
	struct op *ghosts[8];

	make_gateway(herd, 3);
	struct connection *old = connection_open(herd, 3), *new, *again;
	assert_int_equal(connection_write(herd, old, 0, 1), 0);
	for (unsigned i = 0; i < 3; i++) /* its writes are long on their way */
		sim_link_set_delay(herd->nodes[3].host, herd->nodes[i].host, 2 * NS_PER_MS,
				   60 * NS_PER_MS);
	for (uint32_t i = 0; i < 8; i++)
		ghosts[i] = op_begin(old, GATEWAY_WRITE, i, 9);
	herd_run(herd, 1);
	sim_host_pause(herd->nodes[3].host);
	new = connection_open(herd, 1);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(connection_write(herd, new, i, 2), 0);
	herd_run(herd, 4000);
	sim_host_resume(herd->nodes[3].host);
	for (uint32_t i = 0; i < 8; i++)
		(void)op_await(herd, ghosts[i], 20000);
	herd_run(herd, 500);
	bool is_kept = old->lost == 1;
	for (uint32_t i = 0; i < 8; i++)
		is_kept &= connection_read(herd, new, i) == 2;
	is_kept &= connection_write(herd, old, 0, 9) == -E_STALE_GENERATION;
	/* A new connection through it begins anew. */
	again = connection_open(herd, 3);
	is_kept &= connection_write(herd, again, 0, 4) == 0 && connection_read(herd, new, 0) == 4;
	herd_run(herd, 500);
	is_kept &= new->lost == 1;
	herd_free(herd);
	return is_kept;
}

/* ---- an old connection ---- */

static bool old_connections_retake_nothing(uint64_t seed)
{
	struct herd *herd = make(seed, 3);
	struct connection *silent = connection_open(herd, 0), *old = connection_open(herd, 0), *new;

	assert_int_equal(connection_write(herd, old, 0, 1), 0);
	new = connection_open(herd, 1); /* as the target of a migration does, before it begins */
	assert_int_equal(connection_write(herd, old, 0, 2), 0);
	assert_int_equal(connection_write(herd, new, 0, 3), 0);
	herd_run(herd, 500);
	bool is_kept = connection_write(herd, old, 0, 4) == -E_STALE_GENERATION;
	is_kept &= connection_write(herd, silent, 0, 5) == -E_STALE_GENERATION;
	herd_run(herd, 500);
	is_kept &= old->lost == 1 && silent->lost == 1 && new->lost == 0;
	is_kept &= connection_read(herd, old, 0) == 3; /* through any gateway */
	is_kept &= connection_write(herd, new, 0, 6) == 0;
	is_kept &= volume_of(herd)->owner == herd->nodes[1].session;
	herd_free(herd);
	return is_kept;
}

/* ---- the tests of these ---- */

static const struct {
	const char *rule, *name;
	bool (*history)(uint64_t seed);
} histories[] = {
	{"O1_FENCE", "a new owner waits for older writes", older_writes_are_waited_for},
	{"O1_GENERATION", "an owner that lags is refused", old_owners_writes_are_refused},
	{"O1_NO_RETAKE", "an old connection retakes nothing", old_connections_retake_nothing},
};

static void test_each_history_keeps_its_promise(void **state)
{
	for (unsigned i = 0; i < ARRAY_COUNT(histories); i++)
		for (uint64_t seed = 1; seed < 4; seed++)
			assert_true(histories[i].history(seed));
}

static void test_each_rule_is_missed_when_it_is_off(void **state)
{
	for (unsigned i = 0; i < ARRAY_COUNT(histories); i++) {
		assert_true(rule_switch_off(histories[i].rule));
		bool is_kept = histories[i].history(1);
		rule_switch_all_on();
		if (is_kept)
			fail_msg("nobody notices that %s is off", histories[i].rule);
	}
}

/* For tests/sim/mutations: says so when a history catches it. */
static int mutate(const char *rule)
{
	for (unsigned i = 0; i < ARRAY_COUNT(histories); i++)
		if (strcmp(histories[i].rule, rule) == 0 && rule_switch_off(rule) &&
		    !histories[i].history(1))
			printf("CAUGHT by test_ownership: %s\n", histories[i].name);
	return 0;
}

static void test_an_owner_that_was_paused_is_refused(void **state)
{
	for (uint64_t seed = 3; seed < 6; seed++)
		assert_true(paused_owners_writes_are_refused(seed));
}

/* ---- a primary that dies while it is asked ---- */

static void test_the_primary_dies_during_the_fence(void **state)
{
	for (uint64_t seed = 10; seed < 14; seed++) {
		struct herd *herd = make(seed, 3);
		unsigned p = (unsigned)herd_primary(herd, pg_of(herd, 0));
		unsigned a = (p + 1) % 3, b = (p + 2) % 3;
		struct connection *old = connection_open(herd, a), *new;
		bool is_killed = seed % 2;

		assert_int_equal(connection_write(herd, old, 0, 1), 0);
		new = connection_open(herd, b);
		sim_link_set_delay(herd->nodes[p].host, herd->nodes[a].host, 900 * NS_PER_MS,
				   900 * NS_PER_MS);
		struct op *older = op_begin(old, GATEWAY_WRITE, 0, 2);
		herd_run(herd, 20);
		struct op *newer = op_begin(new, GATEWAY_WRITE, 1, 3);
		herd_run(herd, 100);
		assert_false(newer->is_done);
		if (is_killed)
			herd_kill(herd, p, SIM_DEATH_CERTAIN);
		else
			sim_host_pause(herd->nodes[p].host);
		assert_int_equal(op_await(herd, newer, 5000), 0);
		(void)op_await(herd, older, 20000);
		/* Which of both it is has been decided, and everybody says the same. */
		uint8_t value = connection_read(herd, new, 0);
		assert_true(value == 2 || (value == 1 && older->result < 0));
		assert_int_equal(connection_read(herd, old, 0), value);
		if (!is_killed)
			sim_host_resume(herd->nodes[p].host);
		herd_run(herd, 2000);
		assert_int_equal(connection_read(herd, new, 0), value);
		assert_int_equal(connection_read(herd, old, 0), value);
		herd_free(herd);
	}
}

/* ---- two that want it all the time ---- */

#define CONTENDERS 3u
#define OWN_BLOCKS 4u
#define GHOSTS	   4u
#define BLOCKS	   (CONTENDERS * OWN_BLOCKS)

/*
 * Each writes its own blocks, some at a time, and comes again when it has lost the volume. Between two
 * acknowledged writes of one connection nobody else was owner: so the others' blocks do not change.
 *
 *   connect -> write -> read all -> write -> read all, compare with the last ones -> write ...
 */
struct contender {
	struct herd *herd;
	unsigned number;
	struct connection *connection;
	uint32_t ghosts; /* writes in flight that nobody waits for */
	bool is_over;	 /* this connection has failed */
	bool is_stopping;
	unsigned reads; /* that are not back */
	bool has_seen;
	uint8_t seen[BLOCKS], now[BLOCKS];
	uint8_t next;
	unsigned writes, tenures, checks;
	unsigned violations;
	struct sim_event event;
};

static void on_ghost(struct op *op);
static void on_write(struct op *op);

static uint32_t place_of(uint32_t block)
{
	return block % OBJECTS; /* one block in each object: all PGs take part */
}

static struct op *contend(struct contender *me, enum gateway_io_kind kind, uint32_t block,
			  void (*then)(struct op *op))
{
	struct op *op = op_begin_block(me->connection, kind, place_of(block), block, ++me->next);

	op->context = me;
	op->then = then;
	return op;
}

static uint32_t own_block(struct contender *me)
{
	return me->number * OWN_BLOCKS +
	       (uint32_t)random_below(sim_random(me->herd->world), OWN_BLOCKS);
}

static void try_end(struct contender *me)
{
	if (!me->is_over || me->ghosts > 0 || me->reads > 0 || !me->connection->volume)
		return;
	gateway_close(me->connection->volume);
	me->connection->volume = NULL;
	sim_schedule(me->herd->world, &me->event,
		     sim_now(me->herd->world) +
			     random_below(sim_random(me->herd->world), 1000 * NS_PER_MS));
}

static void release_ghosts(struct contender *me)
{
	while (me->ghosts < GHOSTS && !me->is_over) {
		me->ghosts++;
		(void)contend(me, GATEWAY_WRITE, own_block(me), on_ghost);
	}
}

static void on_ghost(struct op *op)
{
	struct contender *me = op->context;

	me->ghosts--;
	if (op->result < 0)
		me->is_over = true;
	else
		me->writes++;
	free(op);
	release_ghosts(me);
	try_end(me);
}

static void on_read(struct op *op)
{
	struct contender *me = op->context;
	uint32_t block = (uint32_t)(op->io.offset % OBJECT_SIZE / BLOCK_SIZE);

	me->now[block] = op->value;
	if (op->result < 0)
		me->is_over = true;
	free(op);
	if (--me->reads == 0 && !me->is_over) {
		me->ghosts++;
		(void)contend(me, GATEWAY_WRITE, own_block(me), on_write);
	}
	try_end(me);
}

/* The map of what was read before it holds: it was ours in between. */
static void on_write(struct op *op)
{
	struct contender *me = op->context;

	me->ghosts--;
	if (op->result < 0 || me->is_stopping) {
		me->is_over = true;
	} else {
		me->writes++;
		if (me->connection->is_answered) /* its first: it is ours */
			me->tenures++;
		else if (me->has_seen)
			for (uint32_t i = 0; i < BLOCKS; i++)
				me->violations +=
					i / OWN_BLOCKS != me->number && me->now[i] != me->seen[i];
		me->checks += me->has_seen;
		me->has_seen = !me->connection->is_answered;
		me->connection->is_answered = false; /* from now on it has written */
		memcpy(me->seen, me->now, sizeof(me->seen));
		for (uint32_t i = 0; i < BLOCKS; i++) {
			me->reads++;
			(void)contend(me, GATEWAY_READ, i, on_read);
		}
		release_ghosts(me);
	}
	free(op);
	try_end(me);
}

static void on_contender_open(struct gateway_open *open, int result)
{
	struct connection *connection = container_of_type(open, struct connection, open);
	struct contender *me = connection->context;

	assert_int_equal(result, 0);
	connection->volume = open->volume;
	connection->is_answered = true; /* its next write is its first */
	me->ghosts++;
	(void)contend(me, GATEWAY_WRITE, own_block(me), on_write);
}

static void on_contender(struct sim_event *event)
{
	struct contender *me = container_of_type(event, struct contender, event);
	struct connection *connection = me->connection;

	if (me->is_stopping)
		return;
	memset(connection, 0, sizeof(*connection));
	me->is_over = me->has_seen = false;
	connection->node = &me->herd->nodes[me->number];
	connection->context = me;
	connection->open.done = on_contender_open;
	gateway_open(connection->node->gateway, &connection->open, HERD_VOLUME, 0);
}

static struct contender *contenders;

static bool all_idle(struct herd *herd)
{
	for (unsigned i = 0; i < CONTENDERS; i++)
		if (contenders[i].ghosts + contenders[i].reads > 0 ||
		    contenders[i].connection->volume)
			return false;
	return true;
}

static unsigned run_contest(uint64_t seed, unsigned ms)
{
	struct herd *herd = make(seed, 3);
	struct contender them[CONTENDERS] = {0};
	struct connection connections[CONTENDERS] = {0};
	unsigned violations = 0, checks = 0;

	contenders = them;
	for (unsigned i = 0; i < CONTENDERS; i++) {
		for (unsigned j = 0; j < 3; j++)
			if (i != j)
				sim_link_set_delay(herd->nodes[i].host, herd->nodes[j].host,
						   20 * NS_PER_US, 30 * NS_PER_MS);
		them[i].herd = herd;
		them[i].number = i;
		them[i].connection = &connections[i];
		them[i].event.run = on_contender;
		sim_schedule(herd->world, &them[i].event, sim_now(herd->world) + 1);
	}
	herd_run(herd, ms);
	for (unsigned i = 0; i < CONTENDERS; i++)
		them[i].is_stopping = them[i].is_over = true;
	herd_until(herd, 20000, all_idle, "all contenders idle");
	for (unsigned i = 0; i < CONTENDERS; i++) {
		violations += them[i].violations;
		print_message("seed %llu: %u: %u tenures, %u writes, %u checks, %u wrong\n",
			      (unsigned long long)seed, i, them[i].tenures, them[i].writes,
			      them[i].checks, them[i].violations);
		/* Nobody is kept out for ever, and nobody has it in vain. */
		assert_true(them[i].tenures >= ms / 3000);
		assert_true(them[i].writes >= 4 * them[i].tenures);
		checks += them[i].checks;
	}
	assert_true(checks > 20);
	herd_free(herd);
	return violations;
}

static void test_contenders_take_turns(void **state)
{
	for (uint64_t seed = 20; seed < 23; seed++)
		assert_int_equal(run_contest(seed, 20000), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_history_keeps_its_promise),
		cmocka_unit_test(test_each_rule_is_missed_when_it_is_off),
		cmocka_unit_test(test_an_owner_that_was_paused_is_refused),
		cmocka_unit_test(test_the_primary_dies_during_the_fence),
		cmocka_unit_test(test_contenders_take_turns),
	};

	if (argc == 3 && strcmp(argv[1], "--mutate") == 0)
		return mutate(argv[2]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
