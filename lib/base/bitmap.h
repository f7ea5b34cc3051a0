/* Bitmaps over caller-owned words of 64 bits. */
#ifndef BASE_BITMAP_H
#define BASE_BITMAP_H

#include <stdbool.h>
#include <stdint.h>

#define BITMAP_WORDS(bits) (((bits) + 63) / 64)

static inline bool bitmap_test(const uint64_t *map, uint32_t bit)
{
	return map[bit / 64] >> (bit % 64) & 1;
}

static inline void bitmap_set(uint64_t *map, uint32_t bit)
{
	map[bit / 64] |= 1ull << (bit % 64);
}

static inline void bitmap_clear(uint64_t *map, uint32_t bit)
{
	map[bit / 64] &= ~(1ull << (bit % 64));
}

/* The first set bit at or after @from, or @bits if there is none. */
static inline uint32_t bitmap_next(const uint64_t *map, uint32_t bits, uint32_t from)
{
	for (uint32_t i = from; i < bits;) {
		uint64_t word = map[i / 64] >> (i % 64);
		if (word) {
			i += (uint32_t)__builtin_ctzll(word);
			return i < bits ? i : bits;
		}
		i = (i / 64 + 1) * 64;
	}
	return bits;
}

static inline uint32_t bitmap_count(const uint64_t *map, uint32_t bits)
{
	uint32_t count = 0;

	for (uint32_t i = bitmap_next(map, bits, 0); i < bits; i = bitmap_next(map, bits, i + 1))
		count++;
	return count;
}

#endif
