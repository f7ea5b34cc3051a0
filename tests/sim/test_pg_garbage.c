/*
 * Garbage: every op with numbers that are small, of this cluster, or anything, from a stranger and from the primary's
 * node. Nobody aborts, and nothing that clients wrote changes.
 */
#include "tests/sim/liar.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/size.h"

static const struct {
	uint16_t op;
	uint8_t class;
	uint16_t body;
	uint32_t payload;
} ops[] = {
	{PEER_OP_READ, PEER_CLASS_CLIENT, sizeof(struct peer_read), 504},
	{PEER_OP_WRITE, PEER_CLASS_CLIENT, sizeof(struct peer_write), 8192},
	{PEER_OP_SYNC, PEER_CLASS_CLIENT, sizeof(struct peer_sync), 160},
	{PEER_OP_DRAIN, PEER_CLASS_CLIENT, sizeof(struct peer_drain), 0},
	{PEER_OP_APPEND, PEER_CLASS_PEER, sizeof(struct peer_append), 8192},
	{PEER_OP_COLLECT, PEER_CLASS_PEER, sizeof(struct peer_collect), 0},
	{PEER_OP_REQUESTS, PEER_CLASS_PEER, sizeof(struct peer_requests), 320},
	{PEER_OP_JOIN, PEER_CLASS_PEER, sizeof(struct peer_join), 0},
	{PEER_OP_SEAL, PEER_CLASS_PEER, sizeof(struct peer_seal), 0},
	{PEER_OP_CONFIRM, PEER_CLASS_PEER, sizeof(struct peer_confirm), 0},
	{PEER_OP_LIST, PEER_CLASS_BULK, sizeof(struct peer_list), 0},
	{PEER_OP_SUMS, PEER_CLASS_BULK, sizeof(struct peer_sums), 0},
	{PEER_OP_PUSH, PEER_CLASS_BULK, sizeof(struct peer_push), 8192},
	{PEER_OP_FETCH, PEER_CLASS_BULK, sizeof(struct peer_fetch), 0},
};

/* Small numbers, numbers of this cluster, and anything. */
static uint64_t any_number(struct herd *herd)
{
	const struct cluster_pg *row = cluster_pg(herd_map(herd), 0);
	struct random *random = sim_random(herd->world);

	switch (random_below(random, 6)) {
	case 0:
		return 0;
	case 1:
		return row->epoch;
	case 2:
		return row->reign;
	case 3:
		return UINT64_MAX - random_below(random, 3);
	case 4:
		return random_u64(random);
	default:
		return random_below(random, 1100);
	}
}

static void one_of_garbage(struct liar *liar, uint32_t store)
{
	struct herd *herd = liar->herd;
	struct random *random = sim_random(herd->world);
	unsigned i = (unsigned)random_below(random, ARRAY_COUNT(ops));
	uint8_t body[256];
	uint32_t payload = (uint32_t)random_below(random, ops[i].payload + 1u);

	for (unsigned at = 0; at < sizeof(body); at += 4) {
		uint64_t number = random_below(random, 8) ? any_number(herd) : store;
		memcpy(body + at, &number, 4);
	}
	if (random_below(random, 4)) { /* the epoch comes first in most */
		uint64_t epoch = cluster_pg(herd_map(herd), 0)->epoch;
		memcpy(body, &epoch, sizeof(epoch));
	}
	if (random_below(random, 2))
		payload = ops[i].payload;
	liar_drop(liar, ops[i].class, ops[i].op, body, ops[i].body, payload);
}

static void test_garbage_in_every_op_aborts_nobody(void **state)
{
	for (unsigned seed = 10; seed < 14; seed++) {
		struct herd *herd = liar_herd(seed);
		unsigned primary = (unsigned)herd_primary(herd, 0);
		unsigned victim = seed % 2 ? primary : (primary + 1) % 3;
		const struct uuid self = seed % 4 < 2 ? herd->nodes[primary].uuid
						      : uuid_make(sim_random(herd->world));
		struct liar *liar = liar_new(herd, victim, &self);

		herd->may_diverge = true;
		for (unsigned i = 0; i < 3000; i++) {
			one_of_garbage(liar, herd->nodes[victim].store_id);
			if (i % 20 == 0)
				herd_run(herd, 2);
		}
		herd_run(herd, 2000);
		liar_free(liar);
		herd_until(herd, 60000, herd_is_healthy, "healthy after garbage");
		herd_check(herd);
		herd_free(herd);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_garbage_in_every_op_aborts_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
