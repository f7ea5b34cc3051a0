/*
 * `cluster force-recover`: an operator who accepts loss makes one store's copy of a PG the truth.
 *
 * Only for a PG that nobody else can bring back: not while it serves, not while a member that is
 * up has everything (it then waits for copies, not for data), not while members can elect one of them
 * by themselves. All sheep that are up are asked what their stores have of it, listed there or not; the
 * one with the newest entry is to be believed, or the one that the operator names. Without his word for
 * the loss the answer only says who has what.
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

/* ---- whom to believe ---- */

struct candidate {
	const struct cluster_store *store;
	const struct figures_store *told;
	const struct cluster_seat *seat; /* NULL: not listed */
};

/* In sync, as far as holes go; else the newest entry; then who lacks fewer objects. */
static bool is_better(const struct candidate *a, const struct candidate *b)
{
	bool a_synced = a->seat && !(a->seat->flags & CLUSTER_SEAT_MARKED);
	bool b_synced = b->seat && !(b->seat->flags & CLUSTER_SEAT_MARKED);
	int order = version_compare(a->told->last, b->told->last);

	if (a_synced != b_synced)
		return a_synced;
	if (order != 0)
		return order > 0;
	return a->told->missing < b->told->missing;
}

#define CANDIDATES_MAX 6u /* that are told of; the best ones */

/* Stores that are up and have something of the PG, or a place in it, best first. */
static uint32_t find_candidates(const struct cluster_map *map, const struct cluster_pg *pg,
				const struct figures *figures, struct candidate *out)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < figures->store_count; i++) {
		const struct figures_store *told = &figures->stores[i];
		struct candidate next = {cluster_store(map, told->store), told,
					 cluster_pg_seat(pg, told->store)};
		uint32_t at = count;

		if (!next.store || !cluster_store_is_up(map, told->store) ||
		    (!told->objects && !told->last.reign &&
		     !cluster_pg_has_target(pg, told->store)))
			continue;
		while (at > 0 && is_better(&next, &out[at - 1]))
			at--;
		if (at == CANDIDATES_MAX)
			continue;
		count = min_of(count + 1, CANDIDATES_MAX);
		memmove(&out[at + 1], &out[at], (count - 1 - at) * sizeof(*out));
		out[at] = next;
	}
	return count;
}

/* ---- telling ---- */

static void add_store(struct text *text, const struct cluster_map *map,
		      const struct cluster_store *store)
{
	char uuid[UUID_TEXT_SIZE];

	if (store)
		text_append(text, "%.8s (node %u, %s)", uuid_format(&store->uuid, uuid),
			    store->node, cluster_store_status(map, store));
}

static void add_candidate(struct text *text, const struct cluster_map *map,
			  const struct candidate *candidate)
{
	add_store(text, map, candidate->store);
	text_append(text, ": %u objects, %u of them not whole, newest write (%llu,%llu)%s",
		    candidate->told->objects, candidate->told->missing,
		    (unsigned long long)candidate->told->last.reign,
		    (unsigned long long)candidate->told->last.n,
		    !candidate->seat ? ", not listed"
		    : candidate->seat->flags & CLUSTER_SEAT_STALE
			    ? ", was being filled and may lack more"
			    : "");
}

/* What the operator has to weigh: who is missing, who would be believed, what else there is. */
static void refuse_unconfirmed(struct admin_call *call, const struct cluster_pg *pg,
			       const struct cluster_store *store, const struct candidate *others,
			       uint32_t count)
{
	const struct cluster_map *map = admin_map(call);
	char words[1400];
	struct text text = text_of(words, sizeof(words));
	unsigned away = 0;

	text_append(&text, "pg %u: ", pg->id);
	for (uint32_t i = 0; i < pg->isr_count; i++) {
		if (cluster_store_is_up(map, pg->isr[i].store))
			continue;
		text_append(&text, "%s", away++ ? ", " : "store ");
		add_store(&text, map, cluster_store(map, pg->isr[i].store));
	}
	text_append(&text,
		    away ? " may still have all acknowledged writes: bring it back if you can. "
			 : "no store is known to have all acknowledged writes. ");
	text_append(&text, "Believing store ");
	add_store(&text, map, store);
	text_append(&text, " loses for ever what it lacks, in every volume, and is recorded; to do "
			   "it: --yes-lose-data. There is: ");
	for (uint32_t i = 0; i < count; i++) {
		text_append(&text, "%s", i ? "; " : "");
		add_candidate(&text, map, &others[i]);
	}
	if (count == 0)
		text_append(&text, "no store that is up and has anything of it");
	admin_refuse(call, PROTO_STATUS_READ_ONLY, "%s", words);
}

/* ---- the command ---- */

static void on_forced(struct proposal *proposal, enum proto_status status, const char *text,
		      uint64_t id)
{
	struct admin_call *call = admin_call_of(proposal);
	const struct cluster_pg *pg = cluster_pg(admin_map(call), (uint32_t)call->subject);

	if (!admin_is_refused(call, status, text))
		admin_answer(call, doc_pg(call->node, pg), false);
}

/* The store that the operator names, else the best one. NULL: the call has been refused. */
static const struct cluster_store *choose_store(struct admin_call *call,
						const struct cluster_pg *pg,
						const struct figures *figures,
						const struct candidate *best, uint32_t count)
{
	const struct cluster_store *store;
	const char *name = NULL;
	int rc = admin_text(call, "store", &name);

	if (rc < 0)
		return NULL;
	if (rc == 0 && figures->unknown_count) {
		admin_refuse(
			call, PROTO_STATUS_BUSY,
			"pg %u: node %u is up and did not say what it has of it: try again, or "
			"name the store",
			pg->id, figures->unknown[0]);
		return NULL;
	}
	if (rc == 0 && count == 0) {
		admin_refuse(
			call, PROTO_STATUS_BUSY,
			"pg %u: no store that is up has anything of it, or a place in it: start "
			"one, or name the one that is to begin with nothing",
			pg->id);
		return NULL;
	}
	if (rc == 0)
		return best->store;
	store = admin_store(call, name);
	if (store && !cluster_store_is_up(admin_map(call), store->id)) {
		admin_refuse(call, PROTO_STATUS_BUSY, "store '%.64s' is not up", name);
		return NULL;
	}
	return store;
}

/* The PG that `pg` names, if it may be forced. NULL: the call has been refused. */
static const struct cluster_pg *pg_to_force(struct admin_call *call)
{
	const struct cluster_pg *pg;
	uint64_t id = 0;
	char why[512];

	if (admin_required_number(call, "pg", UINT32_MAX, &id) < 0)
		return NULL;
	pg = cluster_pg(admin_map(call), (uint32_t)id);
	if (!pg) {
		admin_refuse(call, PROTO_STATUS_NOT_FOUND, "pg %u: no such placement group",
			     (unsigned)id);
		return NULL;
	}
	if (why_not(admin_map(call), pg, why, sizeof(why))) {
		admin_refuse(call, PROTO_STATUS_BUSY, "pg %u: %s", pg->id, why);
		return NULL;
	}
	return pg;
}

static void force(struct admin_call *call, const struct figures *figures)
{
	struct candidate candidates[CANDIDATES_MAX + 1];
	const struct cluster_pg *pg = pg_to_force(call); /* it may have come back meanwhile */
	const struct cluster_store *store;
	bool is_confirmed = false;
	uint32_t count;

	if (!pg || admin_flag(call, "yes_lose_data", &is_confirmed) < 0)
		return;
	count = find_candidates(admin_map(call), pg, figures, candidates);
	store = choose_store(call, pg, figures, &candidates[0], count);
	if (!store)
		return;
	if (!is_confirmed) {
		refuse_unconfirmed(call, pg, store, candidates, count);
		return;
	}
	call->subject = pg->id;
	admin_propose(call, cluster_command_pg_force(pg->id, pg->epoch, store->id), on_forced);
}

void admin_cluster_force(struct admin_call *call)
{
	const struct cluster_pg *pg = pg_to_force(call);

	if (pg)
		admin_gather_copies(call, pg->id, force);
}
