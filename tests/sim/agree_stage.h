/*
 * The stage of a directed history: some nodes on the model of CPG that have settled, whose messages are looked at,
 * lost, or said in the name of one of them.
 */
#ifndef AGREE_STAGE_H
#define AGREE_STAGE_H

#include "tests/sim/agree_world.h"

struct stage {
	struct world *world;
	unsigned leader, one, other;		/* nodes */
	struct cpg_message head[SIM_CPG_NODES]; /* of the last message of each */
	uint64_t log_id[SIM_CPG_NODES];
	unsigned drops;	 /* nodes whose acknowledgements are lost */
	uint64_t asked;	 /* a term */
	unsigned grants; /* nodes that have promised it */
};

/* @nodes machines; a sheep starts on the first @starts, and they settle. */
void stage_set_up(struct stage *stage, unsigned nodes, unsigned starts);
/* Whether nothing was broken; else @why says what was. */
bool stage_tear_down(struct stage *stage, char *why, size_t size);
void stage_run_ms(struct stage *stage, uint64_t ms);
/* Zeroes if none runs there. */
void stage_stats_of(struct stage *stage, unsigned node, struct agree_stats *stats);
/* `leader`, and `one` and `other` of the first three. */
void stage_find_leader(struct stage *stage);
/* @from says this, in the name of its latest message. */
void stage_say(struct stage *stage, unsigned from, enum cpg_type type, uint64_t term,
	       const void *body, size_t size);

#endif
