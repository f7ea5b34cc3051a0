/*
 * Leases: what loop 0 learned from beacons, for all loops of the node (REPLICATION, L1).
 */
#ifndef PG_LEASE_H
#define PG_LEASE_H

#include "sheep/pg/work.h"

/* ---- the table: lease_table.c ---- */

struct pg_leases;

struct pg_leases *pg_leases_new(void); /* NULL: no memory */
void pg_leases_free(struct pg_leases *leases);

/* Loop 0 only: @node acknowledged the beacon that was sent at @sent_ns, under a map of @index. */
void pg_leases_note(struct pg_leases *leases, uint32_t node, uint64_t sent_ns, uint64_t index);
/* Loop 0 only: it has acknowledged none for a lease, or does so again. */
void pg_leases_set_silent(struct pg_leases *leases, uint32_t node, bool is_silent);
/* Loop 0 only: nothing that this node, or anybody, acknowledged counts any more. */
void pg_leases_drop(struct pg_leases *leases, uint32_t node);
void pg_leases_clear(struct pg_leases *leases);
/* Loop 0 only: we hear from fewer than half of the others: it is we who are cut off, probably. */
void pg_leases_set_isolated(struct pg_leases *leases, bool is_isolated);
/* Loop 0 only: @node is no more, its row may be used for another one. */
void pg_leases_forget(struct pg_leases *leases, uint32_t node);

/*
 * Any loop: when the latest beacon was sent that @node has acknowledged and that counts under a map
 * of @index. 0: none.
 */
uint64_t pg_leases_sent(const struct pg_leases *leases, uint32_t node, uint64_t index);
bool pg_leases_is_silent(const struct pg_leases *leases, uint32_t node);
bool pg_leases_is_isolated(const struct pg_leases *leases);

/* ---- judging: lease.c ---- */

/* Does nobody else serve this PG? @arrived_ns: loop_clock() when the operation came. */
bool pg_lead_has_lease(const struct pg_lead *lead, uint64_t arrived_ns);
/* The work cannot be answered without a lease: it is judged again when there is news. */
void pg_lease_wait(struct pg_work *work);
/* Loop 0: give the set back what it posted by waiting. */
void pg_lease_mail_return(struct pg_set *set);
/* Judge again what waits: the map is another one, or beacons were acknowledged. */
void pg_leases_rejudge(struct pg_set *set);
/* On the member's loop: its node has fallen silent. Those that lead with it look at their members. */
void pg_set_look_at_members(struct pg_set *set);

/* ---- beacons: beacon.c ---- */

struct pg_beacons;

/* Loop 0: a newer map is in the set. @old: the one before, or NULL. */
void pg_beacons_apply(struct pg_beacons *beacons, const struct cluster_map *old,
		      const uint64_t *pgs, uint32_t count);
/* Loop 0: takeovers that were proposed may be lost: look at once, and propose them again. */
void pg_beacons_ask_again(struct pg_beacons *beacons);
/* Loop 0: operations of @set wait for a beacon that was sent at @needed_ns or later. */
void pg_beacons_want(struct pg_beacons *beacons, struct pg_set *set, uint64_t needed_ns);
void pg_beacons_stop(struct pg_beacons *beacons);
void pg_beacons_free(struct pg_beacons *beacons); /* NULL is allowed */
void pg_on_beacon(struct net_request *request);

#endif
