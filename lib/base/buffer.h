/*
 * Refcounted, page-aligned payload buffers and slices of them.
 *
 * Nobody copies to keep: a slice holds a reference to its buffer. A cache
 * keeps freed buffers by size class for its owner's thread; the last reference
 * may be dropped on any thread, the buffer then goes home by a locked list.
 */
#ifndef BASE_BUFFER_H
#define BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BUFFER_ALIGN 4096u

struct buffer_cache;

struct buffer {
	uint8_t *data; /* aligned to BUFFER_ALIGN */
	uint32_t size; /* bytes at data, at least what was asked for */
	uint32_t refs; /* atomic; private */
	struct buffer_cache *home;
	struct buffer *next; /* private */
};

/* A run of bytes in a buffer. A slice that is kept holds a reference. */
struct slice {
	struct buffer *buffer; /* may be NULL for memory with another owner */
	uint8_t *data;
	uint32_t size;
};

/*
 * A cache that keeps at most @keep_bytes of spare buffers. It belongs to the
 * calling thread, or to the one that calls buffer_cache_adopt() later.
 */
struct buffer_cache *buffer_cache_new(size_t keep_bytes);
void buffer_cache_adopt(struct buffer_cache *cache);
/* Gives up the cache; it goes when its last buffer has come home. NULL is allowed. */
void buffer_cache_free(struct buffer_cache *cache);

/* A buffer of at least @size bytes with one reference, contents undefined; NULL: no memory. */
struct buffer *buffer_new(struct buffer_cache *cache, uint32_t size);
struct buffer *buffer_get(struct buffer *buffer); /* one reference more; returns @buffer */
void buffer_put(struct buffer *buffer);		  /* NULL is allowed */

/* Does anyone hold a reference besides the caller? If not, its bytes may be overwritten. */
static inline bool buffer_is_shared(const struct buffer *buffer)
{
	return __atomic_load_n(&buffer->refs, __ATOMIC_ACQUIRE) != 1;
}

static inline struct slice slice_of(struct buffer *buffer, uint32_t offset, uint32_t size)
{
	return (struct slice){.buffer = buffer, .data = buffer->data + offset, .size = size};
}

/* How many buffers of this cache are in use: for leak checks. */
uint32_t buffer_cache_busy(const struct buffer_cache *cache);

#endif
