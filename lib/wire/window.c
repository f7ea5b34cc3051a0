/*
 * The dialler's outstanding requests.
 *
 * An id is (count << 16 | slot): the slot finds the owner at once, the count makes the id
 * unique in its session, so that a reply to a request that was answered before meets nobody.
 */
#include "lib/wire/wire.h"

#include <stdlib.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"

#define SLOT_BITS 16
#define SLOT_NONE UINT32_MAX

struct wire_slot {
	void *owner; /* NULL: free */
	uint64_t id; /* of the request, or of the last one */
	uint64_t charge;
	uint32_t free_next;
};

_Static_assert(WIRE_CREDIT_REQUESTS_MAX <= 1u << SLOT_BITS, "a slot number fits into an id");

int wire_window_open(struct wire_window *window, uint32_t requests, uint64_t bytes)
{
	requests = min_of(max_of(requests, 1u), WIRE_CREDIT_REQUESTS_MAX);
	if (requests != window->slot_count) {
		struct wire_slot *slots = calloc(requests, sizeof(*slots));
		if (!slots)
			return -ENOMEM;
		free(window->slots);
		window->slots = slots;
		window->slot_count = requests;
	}
	for (uint32_t i = 0; i < requests; i++) {
		window->slots[i] = (struct wire_slot){
			.id = i,
			.free_next = i + 1 < requests ? i + 1 : SLOT_NONE,
		};
	}
	window->used = 0;
	window->free_first = 0;
	window->bytes_used = 0;
	window->bytes_max = bytes;
	return 0;
}

void wire_window_done(struct wire_window *window)
{
	free(window->slots);
	*window = (struct wire_window){0};
}

uint64_t wire_window_take(struct wire_window *window, uint64_t charge, void *owner)
{
	bool has_bytes = window->bytes_used + charge <= window->bytes_max || window->used == 0;

	if (window->used == window->slot_count || !has_bytes)
		return 0;
	struct wire_slot *slot = &window->slots[window->free_first];
	window->free_first = slot->free_next;
	window->used++;
	window->bytes_used += charge;
	slot->owner = owner;
	slot->charge = charge;
	slot->id += 1ull << SLOT_BITS;
	return slot->id;
}

static struct wire_slot *find(const struct wire_window *window, uint64_t id)
{
	uint64_t index = id & ((1ull << SLOT_BITS) - 1);

	if (index >= window->slot_count)
		return NULL;
	struct wire_slot *slot = &window->slots[index];
	return slot->owner && slot->id == id ? slot : NULL;
}

void *wire_window_owner(const struct wire_window *window, uint64_t id)
{
	const struct wire_slot *slot = find(window, id);

	return slot ? slot->owner : NULL;
}

void wire_window_give(struct wire_window *window, uint64_t id)
{
	struct wire_slot *slot = find(window, id);

	assert(slot);
	slot->owner = NULL;
	slot->free_next = window->free_first;
	window->free_first = (uint32_t)(slot - window->slots);
	window->used--;
	window->bytes_used -= slot->charge;
}
