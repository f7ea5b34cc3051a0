/*
 * Placement groups: replication, takeover, recovery. docs/internals/pg.md
 *
 * A pg_set holds every PG of this node whose home is one loop, over all of the node's
 * stores. It is called on that loop only. Gateways hand it object I/O for PGs whose primary
 * is one of our stores; peers reach it through the ops of pg_peer_ops().
 */
#ifndef PG_PG_H
#define PG_PG_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buffer.h"
#include "lib/loop/loop.h"
#include "sheep/store/store.h"

struct pg_set;
struct cluster_map;

/* ---- object I/O, as the primary serves it ---- */

enum pg_io_kind { PG_IO_READ, PG_IO_WRITE, PG_IO_ZERO, PG_IO_TRIM };

enum pg_io_flags {
	PG_IO_FUA = 1u << 0, /* complete when synced on every in-sync member */
};

/*
 * One read or write within one object. Embedded in its owner; everything it points to is
 * borrowed until done.
 */
struct pg_io {
	/*
	 * 0, or:
	 *   -E_NOT_PRIMARY, -E_STALE_EPOCH, -E_FUTURE_EPOCH, -E_CLOSED: not executed here as far as
	 *	this answer knows: wait for a newer map, send again with the same number;
	 *   -ENOSPC, -EIO, -E_STALE_SESSION, -E_STALE_GENERATION, -ENOMEM: the client's error.
	 * Never inside pg_submit().
	 */
	void (*done)(struct pg_io *io, int result);
	enum pg_io_kind kind;
	uint32_t flags; /* enum pg_io_flags */
	uint32_t pg;
	uint64_t epoch;	    /* of the PG, in the map the request was made under */
	uint64_t map_index; /* of that map */
	uint64_t volume;
	uint64_t generation;
	uint64_t family;
	const uint64_t *layers; /* top first; writes go to the top */
	uint32_t layer_count;
	uint32_t index;	 /* of the object */
	uint32_t offset; /* bytes into the object, any */
	uint32_t length; /* bytes, > 0 */
	/* writes */
	uint64_t session, number, lowest; /* REPLICATION, Q1 */
	const struct slice *slices;	  /* PG_IO_WRITE: exactly @length bytes */
	uint32_t slice_count;
	/* results */
	struct slice data;   /* of a read: @length bytes, the owner's reference; unset if is_hole */
	bool is_hole;	     /* of a read: all zeroes, no buffer was made */
	uint64_t loss_epoch; /* of the PG, with every success */
	/* private */
	struct cds_list_head link;
	void *work;
};

/* Serve @io if a store of ours is the primary of its PG, on this set's loop. */
void pg_submit(struct pg_set *set, struct pg_io *io);

#endif
