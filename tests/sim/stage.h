/*
 * A stage for directed histories: who leads placement group 0, who is a member, and cues, which say what
 * to do when a node comes to a point of the protocol (lib/base/rule.h).
 *
 * P leads, A and B are its members in the order in which they would take over.
 */
#ifndef TESTS_SIM_STAGE_H
#define TESTS_SIM_STAGE_H

#include "tests/sim/herd_priv.h"

#include "lib/base/rule.h"

#define STAGE_CUES 4u
#define STAGE_ANY  HERD_NODES_MAX /* of the nodes */

struct stage;

struct cue {
	struct sim_event event;
	struct stage *stage;
	enum sim_point point;
	unsigned node;	    /* that comes there, or STAGE_ANY */
	unsigned countdown; /* it acts when this is 0 */
	bool is_armed, has_come;
	void (*act)(struct stage *stage); /* in the world, right after that turn; NULL: nothing */
};

struct stage {
	struct herd *herd;
	unsigned p, a, b; /* a and b are the same with two copies */
	struct cue cues[STAGE_CUES];
};

/* Everybody is in sync, and 64 KiB at 0 are written and committed at all. */
void stage_begin(struct stage *stage, uint64_t seed, unsigned nodes, uint32_t copies,
		 uint32_t min_insync);
/* The same, of a herd that is made otherwise. */
void stage_begin_as(struct stage *stage, const struct herd_options *options);
/* No operation is left; everything is in order, all copies are equal. */
void stage_end(struct stage *stage);
/* Nothing is checked. */
void stage_drop(struct stage *stage);

/* When @node comes to @point for the @nth time from now on. */
struct cue *stage_cue(struct stage *stage, enum sim_point point, unsigned node, unsigned nth,
		      void (*act)(struct stage *stage));
void stage_until_cue(struct stage *stage, const struct cue *cue, uint64_t ms);
/* Does not wait for ever. */
bool stage_try_cue(struct stage *stage, const struct cue *cue, uint64_t ms);

void stage_run_us(struct stage *stage, uint64_t us);
const struct cluster_pg *stage_row(struct stage *stage);
/* Of PG 0, as @node's map has it. */
const struct cluster_pg *stage_row_at(struct stage *stage, unsigned node);
unsigned stage_node_of(struct stage *stage, uint32_t store);
bool stage_is_in_sync_at(struct stage *stage, unsigned node, unsigned member);
/* A setting, and until all who are up know it. */
void stage_set(struct stage *stage, const char *name, uint64_t value);
/* Nobody hears this node, nor it anybody; its log is another matter. */
void stage_isolate(struct stage *stage, unsigned node);
void stage_reach(struct stage *stage, unsigned node);
void stage_log_cut(struct stage *stage, unsigned node, bool is_cut);
/* It dies, the others know, and it leaves the in-sync set. */
void stage_lose(struct stage *stage, unsigned node);
/* Another store than @node's leads PG 0, and serves. */
void stage_until_led_by_other(struct stage *stage, unsigned node, uint64_t ms);
void stage_until_led_by(struct stage *stage, unsigned node, uint64_t ms);
/* Everything is up and healthy, and has the volume open. */
void stage_heal(struct stage *stage);
/* The volume is open at @node again. */
void stage_open(struct stage *stage, unsigned node);

/* One history: fails (cmocka's way) where a promise is broken. */
struct history_row {
	const char *name;
	void (*run)(uint64_t seed);
	uint64_t first, count; /* seeds */
	const char *rule;      /* that it needs */
	const char *
		cover; /* a rule that keeps the promise without it, and not without both; or NULL */
};

#endif
