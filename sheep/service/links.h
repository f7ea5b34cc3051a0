/*
 * The connections to the other sheep, counted over all loops, so that the engine can be told when the last one to
 * a start of a node was closed by that node's kernel: the half of the proof of a death (REPLICATION.md, G3).
 */
#ifndef SERVICE_LINKS_H
#define SERVICE_LINKS_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/uuid.h"
#include "lib/loop/loop.h"

struct links;

/*
 * @told, on @loop: the last connection to that start was closed by it (@is_closed), or there is one again.
 * NULL: no memory.
 */
struct links *links_new(struct loop *loop,
			void (*told)(void *context, const struct uuid *node, uint64_t start,
				     bool is_closed),
			void *context);
/*
 * A connection to that start was made (@is_up) or has ended, @is_by_peer: closed by its kernel. On any loop; as
 * pg_peers_watch() tells, with the links as its context.
 */
void links_changed(void *links, const struct uuid *node, uint64_t start, bool is_up,
		   bool is_by_peer);
void links_free(struct links *links); /* all loops have ended; NULL is allowed */

#endif
