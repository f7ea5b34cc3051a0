/*
 * Random commands for a cluster_script: most of them plausible, made from the map as it is, some of
 * them nonsense, late or repeated. (Commands made of random numbers alone are all refused.)
 */
#ifndef UNIT_CLUSTER_DICE_H
#define UNIT_CLUSTER_DICE_H

#include "lib/base/random.h"
#include "tests/unit/cluster_script.h"

#define DICE_NODES 7u
#define DICE_PGS   16u

struct dice {
	struct random random;
	struct script *script;
	uint64_t tried[LOG_TYPE_END], accepted[LOG_TYPE_END];
	uint64_t healthy, down;
};

/* A cluster of DICE_NODES nodes with two stores each, formatted and placed. */
void dice_start(struct dice *dice, struct script *script, uint64_t seed);
/* One command, or a few. */
void dice_do_something(struct dice *dice);
uint32_t dice_roll(struct dice *dice, uint32_t sides);

#endif
