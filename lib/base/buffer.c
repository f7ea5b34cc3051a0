/*
 * Size classes are powers of two from 4 KiB to 8 MiB. The owner's thread takes
 * and returns without a lock; other threads return to `remote`, which the owner
 * collects when a class is empty.
 */
#include "lib/base/buffer.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"

#define CLASS_MIN_BITS 12
#define CLASS_COUNT    12 /* 4 KiB .. 8 MiB */

struct buffer_cache {
	pthread_t owner;
	size_t keep_bytes;
	size_t kept_bytes;
	struct buffer *spare[CLASS_COUNT];
	uint32_t busy;	/* atomic */
	bool is_closed; /* under lock */
	pthread_mutex_t lock;
	struct buffer *remote; /* under lock */
};

static unsigned class_of(uint32_t size)
{
	unsigned bits = CLASS_MIN_BITS;

	while ((1ull << bits) < size)
		bits++;
	return bits - CLASS_MIN_BITS;
}

struct buffer_cache *buffer_cache_new(size_t keep_bytes)
{
	struct buffer_cache *cache = calloc(1, sizeof(*cache));

	if (!cache)
		return NULL;
	cache->owner = pthread_self();
	cache->keep_bytes = keep_bytes;
	pthread_mutex_init(&cache->lock, NULL);
	return cache;
}

void buffer_cache_adopt(struct buffer_cache *cache)
{
	cache->owner = pthread_self();
}

static void buffer_destroy(struct buffer *buffer)
{
	free(buffer->data);
	free(buffer);
}

static void cache_destroy(struct buffer_cache *cache)
{
	for (unsigned i = 0; i < CLASS_COUNT; i++)
		for (struct buffer *b = cache->spare[i], *next; b; b = next) {
			next = b->next;
			buffer_destroy(b);
		}
	for (struct buffer *b = cache->remote, *next; b; b = next) {
		next = b->next;
		buffer_destroy(b);
	}
	pthread_mutex_destroy(&cache->lock);
	free(cache);
}

void buffer_cache_free(struct buffer_cache *cache)
{
	if (!cache)
		return;
	pthread_mutex_lock(&cache->lock);
	cache->is_closed = true;
	bool is_last = __atomic_load_n(&cache->busy, __ATOMIC_ACQUIRE) == 0;
	pthread_mutex_unlock(&cache->lock);
	if (is_last)
		cache_destroy(cache);
}

static void keep(struct buffer_cache *cache, struct buffer *buffer)
{
	unsigned class = class_of(buffer->size);

	if (cache->kept_bytes + buffer->size > cache->keep_bytes) {
		buffer_destroy(buffer);
		return;
	}
	cache->kept_bytes += buffer->size;
	buffer->next = cache->spare[class];
	cache->spare[class] = buffer;
}

static void collect_remote(struct buffer_cache *cache)
{
	pthread_mutex_lock(&cache->lock);
	struct buffer *list = cache->remote;
	cache->remote = NULL;
	pthread_mutex_unlock(&cache->lock);
	while (list) {
		struct buffer *next = list->next;
		keep(cache, list);
		list = next;
	}
}

static struct buffer *take_spare(struct buffer_cache *cache, unsigned class)
{
	if (!cache->spare[class] && __atomic_load_n(&cache->remote, __ATOMIC_RELAXED))
		collect_remote(cache);
	struct buffer *buffer = cache->spare[class];
	if (buffer) {
		cache->spare[class] = buffer->next;
		cache->kept_bytes -= buffer->size;
	}
	return buffer;
}

struct buffer *buffer_new(struct buffer_cache *cache, uint32_t size)
{
	unsigned class = class_of(size);
	bool is_classed = class < CLASS_COUNT;
	struct buffer *buffer = is_classed ? take_spare(cache, class) : NULL;

	assert(pthread_equal(cache->owner, pthread_self()));
	if (!buffer) {
		buffer = calloc(1, sizeof(*buffer));
		if (!buffer)
			return NULL;
		buffer->size = is_classed ? 1u << (class + CLASS_MIN_BITS)
					  : (uint32_t)round_up(size, BUFFER_ALIGN);
		buffer->data = aligned_alloc(BUFFER_ALIGN, buffer->size);
		if (!buffer->data) {
			free(buffer);
			return NULL;
		}
		buffer->home = cache;
	}
	buffer->refs = 1;
	buffer->next = NULL;
	__atomic_add_fetch(&cache->busy, 1, __ATOMIC_RELAXED);
	return buffer;
}

struct buffer *buffer_get(struct buffer *buffer)
{
	__atomic_add_fetch(&buffer->refs, 1, __ATOMIC_RELAXED);
	return buffer;
}

void buffer_put(struct buffer *buffer)
{
	if (!buffer || __atomic_sub_fetch(&buffer->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;

	struct buffer_cache *cache = buffer->home;
	bool is_classed = class_of(buffer->size) < CLASS_COUNT;
	bool is_mine = pthread_equal(cache->owner, pthread_self());

	pthread_mutex_t *lock = &cache->lock;
	if (!is_classed) {
		buffer_destroy(buffer);
	} else if (is_mine && !__atomic_load_n(&cache->is_closed, __ATOMIC_RELAXED)) {
		keep(cache, buffer);
		__atomic_sub_fetch(&cache->busy, 1, __ATOMIC_RELEASE);
		return;
	}
	/* From another thread, too large to keep, or the cache is given up. */
	pthread_mutex_lock(lock);
	if (is_classed) {
		buffer->next = cache->remote;
		__atomic_store_n(&cache->remote, buffer, __ATOMIC_RELAXED);
	}
	bool is_last = __atomic_sub_fetch(&cache->busy, 1, __ATOMIC_ACQ_REL) == 0;
	bool is_closed = cache->is_closed;
	pthread_mutex_unlock(lock);
	if (is_last && is_closed)
		cache_destroy(cache);
}

uint32_t buffer_cache_busy(const struct buffer_cache *cache)
{
	return __atomic_load_n(&cache->busy, __ATOMIC_ACQUIRE);
}
