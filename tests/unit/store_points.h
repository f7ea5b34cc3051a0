/* The power goes at every point of one recorded life of a store: store_points.c tells how. */
#ifndef TESTS_STORE_POINTS_H
#define TESTS_STORE_POINTS_H

#include <stdint.h>

/* What was in the records, and how much was tried. */
struct points_tally {
	uint64_t events, batches, images, checkpoints, cleaned, segments;
	uint64_t pushes, deletes, trims, appended, kept_more;
};

/*
 * Record one life, at least @batches batches long, and check every @stride-th image that a power cut may leave.
 * Fails the test that runs. Adds to @tally.
 */
void store_points_run(uint64_t seed, uint32_t batches, uint32_t stride, struct points_tally *tally);

#endif
