/*
 * Herds in which copies are damaged: one PG, 0, and a volume of four objects, with data in the first 256 KiB of each.
 * What their clients read may be lost (E_LOST).
 */
#ifndef SIM_LOST_H
#define SIM_LOST_H

#include "tests/sim/herd.h"

struct herd *lost_herd(uint64_t seed, unsigned nodes, uint32_t copies, uint32_t min_insync);
/* A setting of the cluster, applied. */
void lost_set(struct herd *herd, enum cluster_setting_id id, uint64_t value);
void lost_run_us(struct herd *herd, uint64_t us);
/* The node with this store. */
unsigned lost_node_of(const struct herd *herd, uint32_t store);
/* How many objects have lost blocks there, and how many are missing. */
uint32_t lost_objects(struct herd *herd, unsigned node);
uint32_t lost_missing(struct herd *herd, unsigned node);
/* One block of the first object is found damaged. */
void lost_mark(struct herd *herd, unsigned node, uint16_t block);
/* Of the volume's first @bytes, how many blocks that node's clients are told to be lost. */
unsigned lost_count(struct herd *herd, unsigned node, uint64_t bytes);
/* Check and free. What is lost, if anything, is the first object's. */
void lost_end(struct herd *herd);

/* Three copies and a fourth node; block 2 is in doubt: @first was cut off from the primary. */
struct lost_doubt {
	struct herd *herd;
	unsigned p, first, second, client;
};

struct lost_doubt lost_doubt(unsigned seed);
/* The primary dies, and @first is reached again. */
void lost_doubt_kill(struct lost_doubt *doubt);
/* Nothing is lost of what was flushed, and is in no tail: all but block 2. */
void lost_only_doubt(struct lost_doubt *doubt);

#endif
