/*
 * The gateway: volumes as byte ranges, cut into object I/O and sent to primaries.
 * docs/internals/gateway.md
 *
 *   gateway_hub     one per node, on the engine's loop: which volumes this node has open, as
 *                   the cluster knows it (committed opens and closes)
 *   gateway         one per loop: the map, routes to the PGs, pools
 *   gateway_volume  a volume as one connection has it open
 *   gateway_io      one request of a client
 *
 * A volume with access=single is written by one gateway at a time. The first write through another one
 * takes it over; connections that were opened before their gateway lost it never write again: what
 * they have in flight fails with -E_STALE_GENERATION, and their owner is told to close them.
 *
 * A request that a primary did not execute as far as anybody knows is sent again, with the same
 * number, when the map has changed or after a short pause; that is the one retry in the
 * system. An error that a client gets is final.
 */
#ifndef GATEWAY_GATEWAY_H
#define GATEWAY_GATEWAY_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/buffer.h"
#include "lib/loop/loop.h"
#include "sheep/cluster/cluster.h"
#include "sheep/pg/pg.h"

struct gateway;
struct gateway_hub;
struct gateway_volume;

/* ---- cutting ---- */

/* A part of a request that stays in one object. */
struct gateway_part {
	uint32_t index;	 /* of the object */
	uint32_t offset; /* bytes into the object */
	uint32_t length; /* bytes */
};

/*
 * The first part of the byte range [@offset, @offset + @length), @length > 0. The next one
 * begins at @offset + the part's length. Pure.
 */
struct gateway_part gateway_split(uint64_t offset, uint64_t length);

/* ---- one per node: who has what open ---- */

struct gateway_hub_options {
	struct loop *loop; /* of the engine */
	/*
	 * Propose an unsigned command, which is taken. It is repeated until it is decided, however long
	 * that takes; then, with the map that it made already applied, gateway_hub_decided() is to
	 * be called with @token. -ENOMEM, -E_SHUTDOWN: it is not taken on, nothing will be told.
	 */
	int (*propose)(void *context, struct cluster_command *command, void *token);
	void *context;
};

struct gateway_hub *gateway_hub_new(const struct gateway_hub_options *options);
void gateway_hub_free(struct gateway_hub *hub); /* NULL is allowed */
/* Opens that wait get -E_SHUTDOWN, as do all from now on. */
void gateway_hub_stop(struct gateway_hub *hub);
/* Never inside `propose`. @has_effect: the command was not refused. */
void gateway_hub_decided(struct gateway_hub *hub, void *token, bool has_effect);
/*
 * On each new map, after it was given or mailed to the loops' gateways. @session: ours; 0: not
 * registered.
 */
void gateway_hub_apply(struct gateway_hub *hub, struct cluster_map *map, uint64_t session);

/* ---- one per loop ---- */

struct gateway_options {
	struct loop *loop;
	unsigned loop_index;
	unsigned loop_count;
	struct gateway_hub *hub;
	struct loop *hub_loop;
	/* Indexed by loop; borrowed for the gateway's life. */
	struct loop *const *loops;
	struct pg_set *const *sets;
	struct pg_peers *peers; /* of this loop */
};

struct gateway *gateway_new(const struct gateway_options *options);
/* No volume may be open. NULL is allowed. */
void gateway_free(struct gateway *gateway);
/* On each new map, after the loop's pg_set has got it. @node, @session: ours; 0: not registered. */
void gateway_apply(struct gateway *gateway, struct cluster_map *map, uint32_t node,
		   uint64_t session);
/* Requests that wait get -E_SHUTDOWN, and from now on all that would have to wait. */
void gateway_stop(struct gateway *gateway);
/* A link of this loop has come up: what waits for it is sent again at once. */
void gateway_retry(struct gateway *gateway);
struct cluster_map *gateway_map(const struct gateway *gateway); /* borrowed */

enum gateway_open_flags {
	GATEWAY_READ_ONLY = 1u << 0,
};

/* Embedded in its owner. */
struct gateway_open {
	/*
	 * 0 and `volume`, when the cluster has committed that this node has it open; or -E_NOT_FOUND,
	 * -E_NOT_FORMATTED, -E_SHUTDOWN, -ENOMEM. Never inside gateway_open().
	 */
	void (*done)(struct gateway_open *open, int result);
	struct gateway_volume *volume; /* the connection's: gateway_close() gives it back */
	/* private */
	struct gateway *gateway;
	struct loop_mail mail;
	char name[LOG_NAME_SIZE];
	uint32_t flags;
	int result;
	uint64_t id;
	uint64_t index; /* log index of the map that has it open */
	uint64_t since; /* log index since which this node uses it */
	struct cds_list_head link;
};

/* @name: of a volume; copied. */
void gateway_open(struct gateway *gateway, struct gateway_open *open, const char *name,
		  unsigned flags);
/*
 * Give it back; no I/O of it may be in flight. The cluster hears of the last one `close_delay` later.
 */
void gateway_close(struct gateway_volume *volume);
/*
 * @lost runs once, never inside a call, when this connection has written and never may again: close it
 * soon. Until then its reads go on, and its writes fail.
 */
void gateway_watch(struct gateway_volume *volume, void (*lost)(void *context), void *context);

uint64_t gateway_volume_size(const struct gateway_volume *volume);
const char *gateway_volume_name(const struct gateway_volume *volume);

/* ---- I/O ---- */

enum gateway_io_kind { GATEWAY_READ, GATEWAY_WRITE, GATEWAY_ZERO, GATEWAY_TRIM, GATEWAY_FLUSH };

enum gateway_io_flags {
	GATEWAY_FUA = 1u << 0,
};

#define GATEWAY_READ_MAX  (32u << 20)
#define GATEWAY_PARTS_MAX (GATEWAY_READ_MAX / OBJECT_SIZE + 1)

/* One request, embedded in its owner. */
struct gateway_io {
	/*
	 * 0, -ENOSPC, -EIO, -ETIMEDOUT (`request_timeout`; a write may still be executed), -ENOMEM,
	 * -E_LOST_WRITES (of a FLUSH), -E_STALE_GENERATION (of a write: see above), -E_SHUTDOWN (the
	 * volume is gone, or we stop). Never inside gateway_submit().
	 */
	void (*done)(struct gateway_io *io, int result);
	struct gateway_volume *volume;
	enum gateway_io_kind kind;
	uint32_t flags;	      /* enum gateway_io_flags */
	uint64_t offset;      /* bytes; in range: offset + length <= size */
	uint64_t length;      /* bytes, > 0 but of a FLUSH; READ: GATEWAY_READ_MAX at most */
	struct slice payload; /* WRITE: exactly length bytes; borrowed until done */
	/* READ: what was read, in order; the owner's references. Slices without a buffer are
	 * zeroes that live for ever. */
	struct slice data[GATEWAY_PARTS_MAX];
	uint32_t data_count;
	/* private */
	uint64_t next;	 /* offset of the first part that is not sent */
	uint32_t flying; /* parts sent and not done */
	uint32_t parts;	 /* sent so far */
	uint8_t stage;	 /* enum io_stage */
	int result;
	int ending;	      /* the error that it ends with if it cannot go on; 0: it goes on */
	uint64_t deadline_ns; /* 0: none */
	struct loop_op done_op;
	struct cds_list_head link; /* in what it waits for */
	struct cds_list_head pieces;
	struct cds_list_head in_gateway;
};

void gateway_submit(struct gateway_io *io);

struct gateway_counters {
	uint64_t reads, writes, zeroes, trims, flushes;
	uint64_t bytes_read, bytes_written;
	uint64_t retries;  /* parts sent again */
	uint64_t parked;   /* parts that wait now */
	uint64_t errors;   /* requests that failed */
	uint64_t timeouts; /* of them, those that took longer than request_timeout */
	uint64_t moves;	   /* times that volumes became ours to write here */
	uint64_t losses;   /* connections that lost the right to write */
};
const struct gateway_counters *gateway_counters(const struct gateway *gateway);

#endif
