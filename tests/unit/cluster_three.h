/*
 * PG 0 of a small cluster, for the tests of what the map does with a placement group. Most have three nodes of one
 * store, three copies and min_insync 2; the members are found by their part in the PG.
 */
#ifndef TESTS_CLUSTER_THREE_H
#define TESTS_CLUSTER_THREE_H

#include "lib/base/size.h"
#include "tests/unit/cluster_script.h"

#define OK PROTO_STATUS_OK

/* Store ids are node ids here. P leads PG 0, A and B follow. */
struct three {
	struct script script;
	uint32_t p, a, b;
};

/* @nodes of one store each, all at once in a cluster of @copies. */
void three_start(struct three *three, uint32_t nodes, uint32_t copies);
const struct cluster_pg *three_pg(struct three *three);
const struct cluster_map *three_map(struct three *three);
uint64_t three_now(struct three *three);

/* Each is proposed twice, as script_run_twice() says. @from and @store: store ids. */
enum proto_status three_shrink(struct three *three, uint32_t from, uint64_t epoch, uint32_t flags,
			       uint32_t store);
enum proto_status three_takeover(struct three *three, uint32_t store, uint64_t epoch);
enum proto_status three_join(struct three *three, uint32_t from, uint32_t store);
/* What has joined becomes a member; its join must be there. @drop: who leaves for it, or 0. */
enum proto_status three_expand(struct three *three, uint32_t store, uint32_t drop);

enum cluster_health three_health(struct three *three);
/* Of a store that has a seat. */
bool three_is_marked(struct three *three, uint32_t store);

#endif
