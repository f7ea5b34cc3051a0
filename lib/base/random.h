/*
 * A seeded pseudo-random generator (xoshiro256**, Blackman and Vigna 2018).
 * Not for keys. A loop owns one; nothing else draws randomness, so that a
 * seed replays a run.
 */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include <stdint.h>

struct random {
	uint64_t s[4];
};

void random_init(struct random *random, uint64_t seed);
uint64_t random_u64(struct random *random);
/* Uniform in [0, bound); @bound > 0. */
uint64_t random_below(struct random *random, uint64_t bound);

#endif
