/* What the files of the figures share. */
#ifndef SERVICE_FIGURES_PRIV_H
#define SERVICE_FIGURES_PRIV_H

#include "sheep/service/figures.h"
#include "sheep/service/node_priv.h"

/* ---- figures_gather.c ---- */

struct figures_gather {
	struct node *node;
	struct worker *home; /* who asks */
	void (*done)(struct figures_gather *gather, struct figures *figures);
	void *context;
	uint32_t pg; /* or FIGURES_NO_PG */
	unsigned left;
	struct figures figures;
	struct store_pg_info copies[CLUSTER_NODE_STORES_MAX]; /* of that PG, by our stores */
};

/* Ask our own loops. `done` runs on @home, whose answer is to be done with: figures_done(). -ENOMEM: nothing has begun. */
int figures_gather(struct node *node, struct worker *home, const struct figures_question *question,
		   void (*done)(struct figures_gather *gather, struct figures *figures),
		   void *context);

/* For qsort(): most missing first. */
int figures_row_compare(const void *a, const void *b);
/* All but stores. */
void figures_add(struct figures *to, const struct figures *from);
void figures_add_store(struct figures *figures, const struct figures_store *store);

#endif
