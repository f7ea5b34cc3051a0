/*
 * A fixed pool of equal objects, for one thread. The data path allocates from
 * pools sized at start; an empty pool means "stop reading from the source".
 */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include <stddef.h>
#include <stdint.h>

struct pool;

/* @count objects of @size bytes, aligned to 64. NULL when out of memory. */
struct pool *pool_new(size_t size, uint32_t count);
/* Every object must be back. NULL is allowed. */
void pool_free(struct pool *pool);

/* A zeroed object, or NULL when all are busy. */
void *pool_get(struct pool *pool);
void pool_put(struct pool *pool, void *object);

uint32_t pool_busy(const struct pool *pool);
uint32_t pool_count(const struct pool *pool);

#endif
