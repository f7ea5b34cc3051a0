/*
 * Mixing functions whose results are part of the disk and wire formats
 * (placement groups, checksum seeds): they never change.
 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stdint.h>

/* A bijection of 64 bits: the finaliser of SplitMix64 (Steele, Lea, Flood 2014). */
static inline uint64_t hash_u64(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static inline uint64_t hash_u64_pair(uint64_t a, uint64_t b)
{
	return hash_u64(hash_u64(a + 0x9e3779b97f4a7c15ull) ^ (b + 0x9e3779b97f4a7c15ull));
}

/* 64-bit FNV-1a of bytes, then mixed. */
static inline uint64_t hash_bytes(const void *data, uint64_t size)
{
	const uint8_t *p = data;
	uint64_t h = 0xcbf29ce484222325ull;

	for (uint64_t i = 0; i < size; i++)
		h = (h ^ p[i]) * 0x100000001b3ull;
	return hash_u64(h);
}

#endif
