/*
 * Small pieces of refcounted buffers, so that what goes with a payload (runs, checksums) can be
 * handed to the store and to links like the payload itself, without an allocation each.
 */
#include "sheep/pg/pg_priv.h"

#define ARENA_BUFFER (64u << 10)

struct slice pg_arena_take(struct pg_arena *arena, uint32_t size)
{
	uint32_t room = (uint32_t)round_up(size, 8);
	struct slice piece;

	if (!arena->buffer || arena->used + room > arena->buffer->size) {
		struct buffer *buffer = buffer_new(arena->buffers, max_of(room, ARENA_BUFFER));
		if (!buffer)
			return (struct slice){.buffer = NULL};
		buffer_put(arena->buffer);
		arena->buffer = buffer;
		arena->used = 0;
	}
	piece = slice_of(buffer_get(arena->buffer), arena->used, size);
	arena->used += room;
	return piece;
}

void pg_arena_done(struct pg_arena *arena)
{
	buffer_put(arena->buffer);
	arena->buffer = NULL;
}
