/*
 * Clients of a herd that loses power, and what they may read afterwards.
 *
 * Each block belongs to one client, so its writes come one after the other. It remembers them from the
 * last one that a FLUSH or a FUA has made durable. As long as power was not lost by all members in
 * sync of its PG at once, a read gives the last acknowledged one; after that, one of those
 * remembered, and the first read decides which. A write whose gateway died may happen at any time,
 * once.
 */
#ifndef TESTS_SIM_POWER_LOAD_H
#define TESTS_SIM_POWER_LOAD_H

#include "tests/sim/herd.h"

struct power_load;

struct power_load *power_load_new(struct herd *herd);
void power_load_free(struct power_load *load);
/* @clients operations at a time, through all gateways that have the volume open. */
void power_load_start(struct power_load *load, unsigned clients);
/* No new ones; waits for those in flight. */
void power_load_stop(struct power_load *load);

/*
 * These nodes (bits) lose power at once. What that may cost is worked out from the newest map: PGs whose
 * members in sync are all among them, or were cut before and did not come back. Returns how many.
 */
unsigned power_load_cut(struct power_load *load, unsigned nodes, enum sim_death death,
			enum sim_power_cut mode);

/* An operator accepts loss: any write of a block may be what is left of it. */
void power_load_forgive(struct power_load *load);

/* One at a time, through a node: the result. They follow the same rules. */
int power_load_write(struct power_load *load, unsigned node, uint32_t block);
int power_load_flush(struct power_load *load, unsigned node);
/* Does not wait. */
void power_load_write_begin(struct power_load *load, unsigned node, uint32_t block);
void power_load_flush_begin(struct power_load *load, unsigned node);
/* Operations that have not ended. */
unsigned power_load_flying(const struct power_load *load);

/* All blocks through all gateways, and the copies against each other. */
void power_load_check(struct power_load *load);
/* Nodes that are down start. */
void power_start_all(struct herd *herd);
/* They do, all becomes healthy, the load ends, everything is checked and goes on; then all is freed. */
void power_load_end(struct power_load *load);
/* FLUSHes that told of lost writes; writes acknowledged; blocks that went back behind an acknowledged write. */
unsigned power_load_losses_told(const struct power_load *load);
uint64_t power_load_acknowledged(const struct power_load *load);
unsigned power_load_gone_back(const struct power_load *load);

#endif
