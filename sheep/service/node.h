/*
 * One sheep: its loops, stores, engine, and what listens. sheep.c makes one and runs it;
 * docs/internals/service.md has its life.
 */
#ifndef SERVICE_NODE_H
#define SERVICE_NODE_H

#include "lib/base/err.h"
#include "sheep/service/settings.h"

struct node;

/* Open the stores and the engine; nothing is served yet. @settings: borrowed. Blocking. */
int node_open(const struct settings *settings, struct logger *logger, struct node **out,
	      struct error *err);
/*
 * Run until SIGTERM, SIGINT or `cluster shutdown` (returns 0 after a clean stop), or until the
 * node cannot go on (a negative code with a text).
 */
int node_run(struct node *node, struct error *err);
void node_free(struct node *node); /* NULL is allowed */

#endif
