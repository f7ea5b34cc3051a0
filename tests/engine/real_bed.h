/*
 * What beds (bed.h) of engines on the real clock share: all members are in this process, each on a loop of its own.
 */
#ifndef TESTS_ENGINE_REAL_BED_H
#define TESTS_ENGINE_REAL_BED_H

#include "tests/engine/bed.h"

/* Hooks of a bed. */
uint64_t real_bed_now(struct bed *bed);
void real_bed_turn(struct bed *bed);

/* The member has a loop when this returns. */
void real_bed_loop(struct member *member);
/* The end of a member that was made to look like a crash: it leaves, and is freed. */
void real_bed_drop(struct bed *bed, struct member *member);
/* All leave; frees the loops, the bed and its world. */
void real_bed_end(struct bed *bed);

#endif
