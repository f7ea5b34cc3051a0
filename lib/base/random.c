#include "lib/base/random.h"

#include "lib/base/assert.h"
#include "lib/base/hash.h"

void random_init(struct random *random, uint64_t seed)
{
	for (int i = 0; i < 4; i++) {
		seed += 0x9e3779b97f4a7c15ull;
		random->s[i] = hash_u64(seed);
	}
}

static uint64_t rotl(uint64_t x, int k)
{
	return (x << k) | (x >> (64 - k));
}

uint64_t random_u64(struct random *random)
{
	uint64_t *s = random->s;
	uint64_t result = rotl(s[1] * 5, 7) * 9;
	uint64_t t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return result;
}

uint64_t random_below(struct random *random, uint64_t bound)
{
	assert(bound > 0);
	/* Refuse the last, incomplete run of residues: no bias. */
	uint64_t threshold = -bound % bound;
	for (;;) {
		uint64_t r = random_u64(random);
		if (r >= threshold)
			return r % bound;
	}
}
