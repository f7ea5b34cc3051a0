/*
 * Counting what layers hold, in the PGs that one loop leads: over the objects that are in memory, a slice in each turn, so
 * that clients do not wait for a store of millions of them. Nothing is kept, nothing is paid for by writes.
 */
#include <errno.h>
#include <stdlib.h>

#include "lib/base/size.h"
#include "sheep/service/figures.h"

/* In units of an object, some 25 ns each where memory is cold: a fifth of a millisecond in a turn. */
#define SLICE  8192u
#define SEARCH 32u /* for the first object of a layer */

int figures_walk_add(struct figures_walk *walk, uint32_t pg, uint32_t id, struct store *store)
{
	if (walk->seat_count == walk->seat_room) {
		uint32_t room = walk->seat_room ? walk->seat_room * 2 : 64;
		void *grown = realloc(walk->seats, room * sizeof(*walk->seats));
		if (!grown)
			return -ENOMEM;
		walk->seats = grown;
		walk->seat_room = room;
	}
	walk->seats[walk->seat_count++] = (struct figures_seat){.pg = pg, .id = id, .store = store};
	return 0;
}

void figures_walk_done(struct figures_walk *walk)
{
	free(walk->seats);
	*walk = (struct figures_walk){0};
}

/* Go on in the PG of @seat. False: the slice is used up. */
static bool count_pg(struct figures_walk *walk, const struct figures_seat *seat,
		     struct figures_use *use, uint32_t *left)
{
	while (walk->layer < use->layer_count) {
		struct figures_layer *layer = &use->layers[walk->layer];
		struct store_layer_use found = {0};
		if (*left <= SEARCH)
			return false;
		*left -= SEARCH;
		bool is_end = store_layer_use(seat->store, seat->pg, layer->layer, &walk->next,
					      *left, &found);
		*left -= (uint32_t)found.objects;
		layer->data_blocks += found.data_blocks;
		layer->missing += found.missing;
		if (!is_end)
			return false;
		walk->layer++;
		walk->next = 0;
	}
	walk->layer = 0;
	return true;
}

/*
 * Another primary may have counted a PG that is lost on the way, and our copy may be dropped by now. What was
 * counted of it cannot be taken out again, and with one PG less nobody can use the rest.
 */
bool figures_walk_step(struct figures_walk *walk, struct pg_set *set, struct figures_use *use)
{
	uint32_t left = SLICE;

	for (; walk->seat < walk->seat_count; walk->seat++) {
		const struct figures_seat *seat = &walk->seats[walk->seat];
		bool is_begun = walk->layer > 0 || walk->next > 0;
		if (!pg_set_leads(set, seat->pg, seat->id)) {
			if (!is_begun)
				continue;
			figures_use_void(use);
			return true;
		}
		if (!count_pg(walk, seat, use, &left))
			return false;
		if (figures_use_add_pg(use, seat->pg) < 0) {
			figures_use_void(use);
			return true;
		}
	}
	return true;
}
