#include "lib/base/pool.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"

struct pool_node {
	struct pool_node *next;
};

struct pool {
	size_t size; /* of one object, rounded up */
	uint32_t count;
	uint32_t busy;
	uint32_t used; /* of memory; what is behind was never handed out, and costs no page yet */
	struct pool_node *spare;
	uint8_t *memory;
};

struct pool *pool_new(size_t size, uint32_t count)
{
	struct pool *pool = calloc(1, sizeof(*pool));
	size_t bytes;

	if (!pool)
		return NULL;
	pool->size = round_up(max_of(size, sizeof(struct pool_node)), 64);
	pool->count = count;
	if (__builtin_mul_overflow(pool->size, (size_t)count, &bytes))
		goto fail;
	pool->memory = aligned_alloc(64, max_of(bytes, (size_t)64));
	if (!pool->memory)
		goto fail;
	return pool;
fail:
	free(pool);
	return NULL;
}

void pool_free(struct pool *pool)
{
	if (!pool)
		return;
	assert(pool->busy == 0);
	free(pool->memory);
	free(pool);
}

void *pool_get(struct pool *pool)
{
	struct pool_node *node = pool->spare;

	if (node)
		pool->spare = node->next;
	else if (pool->used < pool->count)
		node = (void *)(pool->memory + pool->used++ * pool->size);
	else
		return NULL;
	pool->busy++;
	memset(node, 0, pool->size);
	return node;
}

void pool_put(struct pool *pool, void *object)
{
	struct pool_node *node = object;

	assert((uint8_t *)object >= pool->memory &&
	       (uint8_t *)object < pool->memory + pool->size * pool->count);
	assert(pool->busy > 0);
	node->next = pool->spare;
	pool->spare = node;
	pool->busy--;
}

uint32_t pool_busy(const struct pool *pool)
{
	return pool->busy;
}

uint32_t pool_count(const struct pool *pool)
{
	return pool->count;
}
