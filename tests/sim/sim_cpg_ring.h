/* Rings of daemons, and what they have for processes (sim_cpg.h). */
#ifndef SIM_CPG_RING_H
#define SIM_CPG_RING_H

#include "tests/sim/sim_cpg_priv.h"

void message_put(struct message *message);
/* The node's daemon is to order this. */
void ring_send(struct node *node, enum order_kind kind, const void *data, size_t size);
/* The process joins; or its connection is lost, and it is told. */
void ring_connect(struct node *node);
void ring_disconnect(struct node *node);
/* Rings as daemons and partitions are now. */
void rings_form(struct sim_cpg *sim);
/* Its word may have changed; @is_asked: it is said anyway. */
void sim_cpg_votequorum(struct node *node, bool is_asked);
void inbox_clear(struct node *node);
void inbox_go(struct node *node);
void links_change(struct node *node, bool is_closed);

#endif
