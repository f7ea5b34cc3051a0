/* Units, checked arithmetic and rounding. */
#ifndef BASE_SIZE_H
#define BASE_SIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KIB		   (1ull << 10)
#define MIB		   (1ull << 20)
#define GIB		   (1ull << 30)
#define TIB		   (1ull << 40)
#define PIB		   (1ull << 50)

#define NS_PER_US	   1000ull
#define NS_PER_MS	   1000000ull
#define NS_PER_S	   1000000000ull

#define BIT(n)		   (1u << (n))
#define ARRAY_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define container_of_type(pointer, type, member) \
	((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#define min_of(a, b)                               \
	({                                         \
		__typeof__(a) min_a_ = (a);        \
		__typeof__(b) min_b_ = (b);        \
		min_a_ < min_b_ ? min_a_ : min_b_; \
	})
#define max_of(a, b)                               \
	({                                         \
		__typeof__(a) max_a_ = (a);        \
		__typeof__(b) max_b_ = (b);        \
		max_a_ > max_b_ ? max_a_ : max_b_; \
	})

static inline bool is_power_of_two(uint64_t value)
{
	return value && !(value & (value - 1));
}

/* @unit: a power of two. */
static inline uint64_t round_down(uint64_t value, uint64_t unit)
{
	return value & ~(unit - 1);
}

static inline uint64_t round_up(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) & ~(unit - 1);
}

static inline uint64_t div_up(uint64_t value, uint64_t unit)
{
	return value / unit + (value % unit != 0);
}

/* Does [offset, offset + length) lie within [0, size)? Never overflows. */
static inline bool range_is_within(uint64_t offset, uint64_t length, uint64_t size)
{
	return offset <= size && length <= size - offset;
}

static inline bool ranges_overlap(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
	return a < b + b_length && b < a + a_length;
}

#endif
