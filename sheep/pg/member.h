/*
 * What other nodes send to a seat: gate.c, member.c, member_turns.c, member_bulk.c, sync.c, client.c.
 */
#ifndef PG_MEMBER_H
#define PG_MEMBER_H

#include "sheep/pg/set.h"

/* ---- gate.c: what peers send, before it is looked into ---- */

/*
 * Is this request for a seat of ours, by its present primary, in the present epoch? NULL: it was
 * answered, or waits for a newer map. @index: what our map must have reached, besides @epoch.
 */
struct pg *pg_gate(struct net_request *request, uint64_t epoch, uint32_t pg, uint32_t store,
		   uint64_t index);
/* The same for a question about its copy: a seat that has no part in the PG any more answers as long as it has that. */
struct pg *pg_gate_read(struct net_request *request, uint64_t epoch, uint32_t pg, uint32_t store);
/* Wait until our map has reached a higher index. */
void pg_park_future(struct pg_set *set, struct net_request *request);
void pg_future_run(struct pg_set *set);
/* Client operations that have waited for a map for PG_PATIENCE_NS go back to their gateways. */
void pg_future_tick(struct pg_set *set, uint64_t now); /* a newer map is here, or we stop */
/* PEER_OP_CONFIRM */
void pg_on_confirm(struct net_request *request);

/* ---- member.c: the stream ---- */

size_t pg_apply_size(void); /* of what an APPEND in work takes */
void pg_part_init(struct pg *pg);
/* The epoch changed: what waits under an older one is refused (W1). */
void pg_part_epoch(struct pg *pg);
/* The stream has ended: another reign, another join, or no part any more. */
void pg_part_reset(struct pg *pg);
/* Answer what was parked at this seat. */
void pg_part_end(struct pg *pg, int status);
/* A stream begins behind entry @n. */
void pg_part_begin(struct pg *pg, uint64_t reign, uint64_t n);
/* A member in sync that restarted: its store, and what it acknowledged, tell where it was. */
void pg_part_find(struct pg *pg, uint64_t acknowledged);
void pg_on_append(struct net_request *request);
void pg_on_commit(struct net_request *request);

/* ---- member_turns.c: takeovers and joins, as the member sees them ---- */

void pg_on_collect(struct net_request *request);
void pg_on_requests(struct net_request *request);
void pg_on_join(struct net_request *request);
void pg_on_seal(struct net_request *request);

/* ---- member_bulk.c: recovery, as the member sees it ---- */

void pg_on_list(struct net_request *request);
void pg_on_sums(struct net_request *request);
void pg_on_push(struct net_request *request);
void pg_on_fetch(struct net_request *request);

/* ---- sync.c ---- */

void pg_sync_begin(struct pg_set *set, struct pg_sync *sync);

/* ---- client.c: gateways of other nodes ---- */

size_t pg_remote_size(void);
void pg_on_read(struct net_request *request);
void pg_on_write(struct net_request *request);
void pg_on_sync(struct net_request *request);

#endif
