/* The hub's inner side: what the loops' gateways ask of it. */
#ifndef GATEWAY_HUB_H
#define GATEWAY_HUB_H

#include "sheep/gateway/gateway.h"

/*
 * On the hub's loop: answer by posting open->mail to its gateway's loop, with result, id and index
 * set, when the cluster has committed that this node has the volume open.
 */
void hub_open(struct gateway_hub *hub, struct gateway_open *open);

/* From any loop: one use less. @is_dirty: acknowledged writes of that loop are not flushed. */
void hub_close(struct gateway_hub *hub, struct loop *hub_loop, uint64_t volume, unsigned flags,
	       bool is_dirty);

/*
 * From any loop: this node is to own the volume, which it has open for writing, if it still has
 * @generation. What comes of it the map tells. 0 or -ENOMEM.
 */
int hub_own(struct gateway_hub *hub, struct loop *hub_loop, uint64_t volume, uint64_t generation);

#endif
