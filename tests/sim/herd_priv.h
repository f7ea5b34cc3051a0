/* What the files of the herd share. */
#ifndef TESTS_SIM_HERD_PRIV_H
#define TESTS_SIM_HERD_PRIV_H

#include "lib/base/size.h"
#include "tests/sim/herd.h"

#define HERD_TICK_NS (50 * NS_PER_MS)

/* ---- herd_daemon.c ---- */

/* Sign by the node (@context), propose, and free. A NULL command is one that found no memory. */
void herd_propose_by(void *context, struct cluster_command *command);
/* The same for the hub of a gateway, which is told the decision. */
int herd_propose_for_hub(void *context, struct cluster_command *command, void *token);
void herd_command_free(struct herd_command *command);
extern const struct engine_callbacks herd_engine_callbacks;
void herd_ticked(struct loop_timer *timer);

/* ---- herd_node.c ---- */

/* Sets node->volume when it is open. */
void herd_open_volume(struct herd_node *node);
void herd_add_counters(struct pg_counters *to, const struct pg_counters *from);

/* From now on: what is about to be told to be lost must be damaged in each copy in sync. NULL: no more. */
void herd_judge_losses(struct herd *herd);

#endif
