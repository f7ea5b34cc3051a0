/*
 * Timers: a binary heap, ordered by (deadline, order of starting).
 *
 * Always true: entries[i] is not later than its children; an armed timer's
 * heap_index names its entry, an unarmed one's is 0.
 */
#include <stdlib.h>

#include "lib/base/assert.h"
#include "lib/loop/loop_priv.h"

#define HEAP_SIZE_FIRST 256 /* a heap that never grew costs 6 KiB */

int timer_heap_init(struct timer_heap *heap)
{
	*heap = (struct timer_heap){.size = HEAP_SIZE_FIRST};
	heap->entries = malloc((heap->size + 1) * sizeof(*heap->entries));
	return heap->entries ? 0 : -ENOMEM;
}

void timer_heap_done(struct timer_heap *heap)
{
	free(heap->entries);
	heap->entries = NULL;
}

static bool is_before(const struct timer_entry *a, const struct timer_entry *b)
{
	if (a->deadline_ns != b->deadline_ns)
		return a->deadline_ns < b->deadline_ns;
	return a->order < b->order;
}

static void place(struct timer_heap *heap, uint32_t index, const struct timer_entry *entry)
{
	heap->entries[index] = *entry;
	entry->timer->heap_index = index;
}

static void sift_up(struct timer_heap *heap, uint32_t index, struct timer_entry entry)
{
	while (index > 1 && is_before(&entry, &heap->entries[index / 2])) {
		place(heap, index, &heap->entries[index / 2]);
		index /= 2;
	}
	place(heap, index, &entry);
}

static void sift_down(struct timer_heap *heap, uint32_t index, struct timer_entry entry)
{
	uint32_t child;

	while ((child = index * 2) <= heap->count) {
		if (child < heap->count &&
		    is_before(&heap->entries[child + 1], &heap->entries[child]))
			child++;
		if (!is_before(&heap->entries[child], &entry))
			break;
		place(heap, index, &heap->entries[child]);
		index = child;
	}
	place(heap, index, &entry);
}

/* Put @entry where the entry at @index was. */
static void sift(struct timer_heap *heap, uint32_t index, struct timer_entry entry)
{
	if (index > 1 && is_before(&entry, &heap->entries[index / 2]))
		sift_up(heap, index, entry);
	else
		sift_down(heap, index, entry);
}

static void grow(struct timer_heap *heap)
{
	uint32_t size = heap->size * 2;
	struct timer_entry *entries = realloc(heap->entries, (size + 1) * sizeof(*heap->entries));

	/* A timer that silently never fires would be a lease that never ends. */
	if (!entries) {
		log_error("loop: no memory for %u timers", size);
		abort();
	}
	heap->entries = entries;
	heap->size = size;
}

void timer_heap_start(struct timer_heap *heap, struct loop_timer *timer, uint64_t deadline_ns)
{
	struct timer_entry entry = {deadline_ns, heap->started++, timer};

	timer->deadline_ns = deadline_ns;
	if (timer->heap_index) {
		assert(heap->entries[timer->heap_index].timer == timer);
		sift(heap, timer->heap_index, entry);
		return;
	}
	if (heap->count == heap->size)
		grow(heap);
	sift_up(heap, ++heap->count, entry);
}

void timer_heap_stop(struct timer_heap *heap, struct loop_timer *timer)
{
	uint32_t index = timer->heap_index;

	if (!index)
		return;
	assert(index <= heap->count && heap->entries[index].timer == timer);
	timer->heap_index = 0;
	struct timer_entry last = heap->entries[heap->count--];
	if (last.timer != timer)
		sift(heap, index, last);
}

uint64_t timer_heap_next(const struct timer_heap *heap)
{
	return heap->count ? heap->entries[1].deadline_ns : UINT64_MAX;
}

struct loop_timer *timer_heap_pop(struct timer_heap *heap, uint64_t now_ns)
{
	if (!heap->count || heap->entries[1].deadline_ns > now_ns)
		return NULL;
	struct loop_timer *timer = heap->entries[1].timer;
	timer_heap_stop(heap, timer);
	return timer;
}
