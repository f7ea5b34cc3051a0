/*
 * `cluster force-recover`: an operator who accepts loss makes one store's copy of a PG the truth.
 *
 * Only for a PG that nobody else can bring back: not while it serves, not while a member that is
 * up has everything (it then waits for copies, not for data), not while members can elect one of them
 * by themselves. Who may be believed, best first: a listed member, marked or with holes; whatever store
 * the operator names. Without his word for the loss the answer only says what would be lost.
 */
#include <string.h>

#include "lib/base/size.h"
#include "lib/base/text.h"
#include "sheep/service/admin_priv.h"

static const struct cluster_seat *first_seat(const struct cluster_map *map,
					     const struct cluster_pg *pg, uint32_t with,
					     uint32_t without)
{
	for (uint32_t i = 0; i < pg->isr_count; i++)
		if ((pg->isr[i].flags & with) == with && !(pg->isr[i].flags & without) &&
		    cluster_store_is_up(map, pg->isr[i].store))
			return &pg->isr[i];
	return NULL;
}

/* Does the PG come back without loss? Then why; else NULL. */
static const char *why_not(const struct cluster_map *map, const struct cluster_pg *pg, char *out,
			   size_t size)
{
	struct text text = text_of(out, size);

	if (!pg->epoch)
		text_append(&text, "it has no stores yet and nothing to lose; it needs stores "
				   "that are up");
	else if (cluster_pg_health(map, pg) != CLUSTER_DOWN)
		text_append(&text, "it serves: there is nothing to recover");
	else if (first_seat(map, pg, 0, CLUSTER_SEAT_MARKED | CLUSTER_SEAT_HOLES))
		text_append(&text, "a store that is up has all of its data and waits for more "
				   "copies: bring back the others, or serve with fewer by `collie "
				   "cluster set min_insync N`");
	else if (first_seat(map, pg, CLUSTER_SEAT_MARKED, CLUSTER_SEAT_STALE))
		text_append(&text, "its stores were not stopped cleanly and choose one of them by "
				   "themselves: at once when all listed ones are back, else after "
				   "power_loss_wait");
	else
		return NULL;
	return out;
}

/* The listed store that is up and lacks least, as far as the map knows. 0: none; several: *@others. */
static uint32_t best_store(const struct cluster_map *map, const struct cluster_pg *pg,
			   unsigned *others)
{
	static const struct {
		uint32_t with, without;
	} ranks[] = {
		{0, CLUSTER_SEAT_MARKED}, /* in sync, with holes */
		{CLUSTER_SEAT_MARKED, CLUSTER_SEAT_STALE},
		{CLUSTER_SEAT_MARKED | CLUSTER_SEAT_STALE, 0},
	};
	uint32_t best = 0;

	*others = 0;
	for (size_t r = 0; r < ARRAY_COUNT(ranks) && !best; r++)
		for (uint32_t i = 0; i < pg->isr_count; i++) {
			const struct cluster_seat *seat = &pg->isr[i];

			if ((seat->flags & ranks[r].with) != ranks[r].with ||
			    (seat->flags & ranks[r].without) ||
			    !cluster_store_is_up(map, seat->store))
				continue;
			*others += best != 0;
			best = best ? best : seat->store;
		}
	return best;
}

static void add_store(struct text *text, const struct cluster_map *map, uint32_t id)
{
	const struct cluster_store *store = cluster_store(map, id);
	char uuid[UUID_TEXT_SIZE];

	if (store)
		text_append(text, "%.8s (node %u, %s)", uuid_format(&store->uuid, uuid),
			    store->node, cluster_store_status(map, store));
}

/* What the operator has to weigh: who is missing, who would be believed, what is lost. */
static void refuse_unconfirmed(struct admin_call *call, const struct cluster_pg *pg, uint32_t store)
{
	const struct cluster_map *map = admin_map(call);
	const struct cluster_seat *seat = cluster_pg_seat(pg, store);
	char words[1024];
	struct text text = text_of(words, sizeof(words));
	unsigned count = 0;

	text_append(&text, "pg %u: ", pg->id);
	for (uint32_t i = 0; i < pg->isr_count; i++) {
		if (cluster_store_is_up(map, pg->isr[i].store))
			continue;
		text_append(&text, "%s", count++ ? ", " : "store ");
		add_store(&text, map, pg->isr[i].store);
	}
	text_append(&text,
		    count ? " may still have all acknowledged writes: bring it back if you can. "
			  : "no store is known to have all acknowledged writes. ");
	text_append(&text, "Forcing believes store ");
	add_store(&text, map, store);
	text_append(&text, "%s: ",
		    !seat ? ", which is not listed and may have old data or none"
		    : seat->flags & CLUSTER_SEAT_STALE
			    ? ", which was being filled and lacks what had not arrived"
			    : ", which lacks some objects");
	text_append(&text, "what it lacks is lost for ever, in every volume, and this is recorded. "
			   "To do it: --yes-lose-data");
	admin_refuse(call, PROTO_STATUS_READ_ONLY, "%s", words);
}

static void on_forced(struct proposal *proposal, enum proto_status status, const char *text,
		      uint64_t id)
{
	struct admin_call *call = admin_call_of(proposal);
	const struct cluster_pg *pg = cluster_pg(admin_map(call), (uint32_t)call->subject);

	if (!admin_is_refused(call, status, text))
		admin_answer(call, doc_pg(call->node, pg), false);
}

/* 0: the call has been refused. */
static uint32_t choose_store(struct admin_call *call, const struct cluster_pg *pg)
{
	const struct cluster_map *map = admin_map(call);
	const struct cluster_store *store;
	const char *name = NULL;
	unsigned others = 0;
	uint32_t best;
	int rc = admin_text(call, "store", &name);

	if (rc < 0)
		return 0;
	if (rc > 0) {
		store = admin_store(call, name);
		if (store && !cluster_store_is_up(map, store->id)) {
			admin_refuse(call, PROTO_STATUS_BUSY, "store '%.64s' is not up", name);
			return 0;
		}
		return store ? store->id : 0;
	}
	best = best_store(map, pg, &others);
	if (!best || others)
		admin_refuse(call, PROTO_STATUS_INVALID,
			     best ? "pg %u: %u stores could be believed: name one of `collie pg "
				    "list`"
				  : "pg %u: no store that is listed is up; name one that once had "
				    "it, if there is any",
			     pg->id, others + 1);
	return best && !others ? best : 0;
}

void admin_cluster_force(struct admin_call *call)
{
	const struct cluster_map *map = admin_map(call);
	const struct cluster_pg *pg;
	uint64_t id = 0;
	bool is_confirmed = false;
	char why[512];
	uint32_t store;

	if (admin_required_number(call, "pg", UINT32_MAX, &id) < 0 ||
	    admin_flag(call, "yes_lose_data", &is_confirmed) < 0)
		return;
	pg = cluster_pg(map, (uint32_t)id);
	if (!pg) {
		admin_refuse(call, PROTO_STATUS_NOT_FOUND, "pg %u: no such placement group",
			     (unsigned)id);
		return;
	}
	if (why_not(map, pg, why, sizeof(why))) {
		admin_refuse(call, PROTO_STATUS_BUSY, "pg %u: %s", pg->id, why);
		return;
	}
	store = choose_store(call, pg);
	if (!store)
		return;
	if (!is_confirmed) {
		refuse_unconfirmed(call, pg, store);
		return;
	}
	call->subject = pg->id;
	admin_propose(call, cluster_command_pg_force(pg->id, pg->epoch, store), on_forced);
}
