/*
 * What one live node does for the whole cluster: it reports certain deaths, and computes where
 * data should be. Every node runs it; the live one with the lowest id acts at once, the
 * others only when the log does not show the effect in time. Twice does no harm: each command
 * carries its condition.
 */
#ifndef SERVICE_CARETAKER_H
#define SERVICE_CARETAKER_H

#include "sheep/service/state.h"

struct caretaker;

/* @node: of us. NULL: out of memory. */
struct caretaker *caretaker_new(struct loop *loop, struct state *state, const struct uuid *node);
void caretaker_free(struct caretaker *caretaker); /* NULL is allowed */

void caretaker_members(struct caretaker *caretaker, const struct engine_member *members,
		       uint32_t count);
void caretaker_ended(struct caretaker *caretaker, const struct uuid *node, uint64_t start);
void caretaker_applied(struct caretaker *caretaker, struct cluster_map *map);
/* Act no more. */
void caretaker_stop(struct caretaker *caretaker);

/* Has this node been down for longer than down_out_interval, as this node saw it? */
bool caretaker_is_out(const struct caretaker *caretaker, uint32_t node);
/* For how long this node has seen it down; 0: it is up, or we do not know. */
uint64_t caretaker_down_ns(const struct caretaker *caretaker, uint32_t node);

#endif
