/*
 * What placement groups have to say. PGs that are down for the same reason, waiting for the same
 * stores, are one problem.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/size.h"
#include "lib/base/text.h"
#include "sheep/service/health.h"

#define GROUPS_MAX 64u
#define PGS_NAMED  100u /* in one problem; the count says how many there are */

/* ---- why a PG is down ---- */

enum reason {
	REASON_NEW,	 /* has no members yet */
	REASON_FLOOR,	 /* all its data is here, in too few copies; perhaps members are away */
	REASON_ABSENT,	 /* who has all its data is away, and nobody can be elected */
	REASON_ELECTION, /* those that are here stopped uncleanly, and can elect one of them */
	REASON_LOST,	 /* nobody here can lead */
};

struct group {
	enum reason reason;
	uint32_t store_count;
	uint32_t stores[LOG_SEATS_MAX]; /* that it waits for */
	uint32_t pg_count, joining;
	uint32_t pgs[PGS_NAMED];
};

static enum reason reason_of(const struct cluster_map *map, const struct cluster_pg *pg)
{
	bool has_absent = false;

	if (!pg->epoch)
		return REASON_NEW;
	for (uint32_t i = 0; i < pg->isr_count; i++) {
		bool is_up = cluster_store_is_up(map, pg->isr[i].store);
		bool is_marked = pg->isr[i].flags & CLUSTER_SEAT_MARKED;

		if (is_up && !is_marked)
			return REASON_FLOOR;
		has_absent |= !is_up && !is_marked;
	}
	for (uint32_t i = 0; i < pg->isr_count; i++)
		if (cluster_pg_is_electable(map, pg, pg->isr[i].store, NULL))
			return REASON_ELECTION;
	return has_absent ? REASON_ABSENT : REASON_LOST;
}

static void group_of(const struct cluster_map *map, const struct cluster_pg *pg, struct group *out)
{
	memset(out, 0, sizeof(*out));
	out->reason = reason_of(map, pg);
	for (uint32_t i = 0; i < pg->isr_count; i++) {
		bool is_needed =
			!(pg->isr[i].flags & CLUSTER_SEAT_MARKED) || out->reason >= REASON_ELECTION;

		if (is_needed && !cluster_store_is_up(map, pg->isr[i].store))
			out->stores[out->store_count++] = pg->isr[i].store;
	}
	/* Seats are not in order. */
	for (uint32_t i = 1; i < out->store_count; i++)
		for (uint32_t j = i; j > 0 && out->stores[j] < out->stores[j - 1]; j--) {
			uint32_t swap = out->stores[j];

			out->stores[j] = out->stores[j - 1];
			out->stores[j - 1] = swap;
		}
}

/* Its group among @groups; the last one takes what finds no room. */
static struct group *find_group(struct group *groups, uint32_t *count, const struct group *like)
{
	for (uint32_t i = 0; i < *count; i++)
		if (groups[i].reason == like->reason &&
		    groups[i].store_count == like->store_count &&
		    memcmp(groups[i].stores, like->stores, sizeof(like->stores)) == 0)
			return &groups[i];
	if (*count == GROUPS_MAX)
		return &groups[GROUPS_MAX - 1];
	groups[*count] = *like;
	return &groups[(*count)++];
}

/* ---- saying so ---- */

static const char *stores_text(const struct cluster_map *map, const uint32_t *stores,
			       uint32_t count, char *out, size_t size)
{
	struct text text = text_of(out, size);

	for (uint32_t i = 0; i < count; i++) {
		const struct cluster_store *store = cluster_store(map, stores[i]);
		const struct cluster_node *node = store ? cluster_node(map, store->node) : NULL;
		char uuid[UUID_TEXT_SIZE];

		if (node)
			text_append(&text, "%s%.8s on node %u (%s, %s)",
				    i == 0	     ? ""
				    : i + 1 == count ? " and "
						     : ", ",
				    uuid_format(&store->uuid, uuid), node->id, node->address,
				    cluster_store_status(map, store));
	}
	return out;
}

static struct json_object *add_down(struct health *health, const struct group *group,
				    const char *what)
{
	struct json_object *problem =
		health_add(health, HEALTH_ERROR, "%u placement group%s %s%s", group->pg_count,
			   group->pg_count == 1 ? "" : "s",
			   group->pg_count == 1 ? "is down" : "are down", what);
	struct json_object *pgs = json_object_object_get(problem, "pgs");

	for (uint32_t i = 0; i < group->pg_count && i < PGS_NAMED; i++)
		json_object_array_add(pgs, json_object_new_uint64(group->pgs[i]));
	for (uint32_t i = 0; i < group->store_count; i++) {
		const struct cluster_store *store = cluster_store(health->map, group->stores[i]);
		if (store)
			health_name_store(problem, store);
	}
	return problem;
}

static void say_floor(struct health *health, const struct group *group, const char *stores)
{
	const struct cluster_policy *policy = cluster_policy(health->map, 0);
	char what[768];
	struct json_object *problem;

	if (group->store_count)
		snprintf(what, sizeof(what), " with too few copies, waiting for store%s %s",
			 group->store_count == 1 ? "" : "s", stores);
	else
		snprintf(what, sizeof(what), ": fewer than %u copies are in sync",
			 policy->min_insync);
	problem = add_down(health, group, what);
	health_means(problem,
		     "all their data is here, but with fewer than min_insync (%u) copies "
		     "nobody may read or write; clients wait, nothing is lost",
		     policy->min_insync);
	if (group->joining == group->pg_count && group->joining)
		health_do(problem,
			  "wait: other stores are being filled. To serve with fewer copies "
			  "meanwhile: collie cluster set min_insync N");
	else
		health_do(problem, "start what is missing; or add a store; or serve with fewer "
				   "copies: collie cluster set min_insync N");
}

static void say_group(struct health *health, const struct group *group)
{
	char stores[640], what[768], wait[HEALTH_SPAN_MAX];
	struct json_object *problem;

	(void)stores_text(health->map, group->stores, group->store_count, stores, sizeof(stores));
	switch (group->reason) {
	case REASON_NEW:
		problem = add_down(health, group, ": no stores are given yet");
		health_means(problem, "nothing can be written there; nothing is lost");
		health_do(problem, "wait a moment; if it stays so there are no stores that may "
				   "take them: collie store list");
		break;
	case REASON_FLOOR:
		say_floor(health, group, stores);
		break;
	case REASON_ABSENT:
		snprintf(what, sizeof(what), ", waiting for store%s %s",
			 group->store_count == 1 ? "" : "s", stores);
		problem = add_down(health, group, what);
		health_means(problem, "only %s acknowledged writes; reads and writes there wait",
			     group->store_count == 1 ? "it has all" : "one of these has all");
		health_do(problem,
			  "start %s. If that is impossible for ever: collie cluster force-recover "
			  "%u says what would be lost",
			  group->store_count == 1 ? "it" : "one of them", group->pgs[0]);
		break;
	case REASON_ELECTION:
		health_span(cluster_setting_ns(health->map, CLUSTER_SETTING_POWER_LOSS_WAIT), wait);
		snprintf(what, sizeof(what), ": no store that is back was stopped cleanly%s%s",
			 group->store_count ? "; still away: " : "", stores);
		problem = add_down(health, group, what);
		health_means(problem,
			     "the one with the newest writes is chosen when all are back, "
			     "or %s after the others; writes that were never flushed may "
			     "be lost",
			     wait);
		health_do(problem, group->store_count ? "start what is away, or wait" : "wait");
		break;
	case REASON_LOST:
		snprintf(what, sizeof(what), ": no store that is up can lead%s%s",
			 group->store_count ? "; away: " : "", stores);
		problem = add_down(health, group, what);
		health_means(problem, "the copies that are here were being filled and are not "
				      "complete; reads and writes there wait");
		health_do(problem,
			  "start what is away. If that is impossible for ever: collie cluster "
			  "force-recover %u says what would be lost",
			  group->pgs[0]);
		break;
	}
}

/* ---- what is shown for ever ---- */

static void say_record(struct health *health, bool is_forced)
{
	uint32_t count = is_forced ? health->summary.pgs_forced : health->summary.pgs_lost;
	const struct cluster_pg *pg;
	struct json_object *problem, *pgs;
	uint64_t last = 0;
	uint32_t named = 0;

	if (!count)
		return;
	problem =
		health_add(health, HEALTH_NOTE,
			   is_forced ? "for the record: an operator accepted loss in %u "
				       "placement group%s"
				     : "for the record: acknowledged writes may have been lost in "
				       "%u placement group%s",
			   count, count == 1 ? "" : "s");
	pgs = json_object_object_get(problem, "pgs");
	for (pg = cluster_pg_next(health->map, 0); pg;
	     pg = cluster_pg_next(health->map, pg->id + 1)) {
		if (is_forced ? !pg->forced : !pg->loss_epoch)
			continue;
		last = max_of(last, pg->loss_epoch);
		if (named++ < PGS_NAMED)
			json_object_array_add(pgs, json_object_new_uint64(pg->id));
	}
	if (is_forced)
		health_means(problem,
			     "they went on from a copy that was not complete: volumes that "
			     "were in use then should be checked");
	else
		health_means(problem,
			     "all their in-sync copies stopped uncleanly at once, last at log "
			     "index %llu; what had been flushed is there; programs that were told "
			     "of a failed flush know",
			     (unsigned long long)last);
	health_do(problem, "nothing; this stays for ever");
}

/* ---- marks, copies that are missing ---- */

static void say_marked(struct health *health, const struct cluster_store *store)
{
	const struct cluster_pg *pg;
	uint32_t marked = 0, holes = 0;
	char uuid[UUID_TEXT_SIZE];
	struct json_object *problem;

	for (pg = cluster_pg_next(health->map, 0); pg;
	     pg = cluster_pg_next(health->map, pg->id + 1)) {
		const struct cluster_seat *seat = cluster_pg_seat(pg, store->id);

		marked += seat && (seat->flags & CLUSTER_SEAT_MARKED);
		holes += seat && (seat->flags & CLUSTER_SEAT_HOLES);
	}
	(void)uuid_format(&store->uuid, uuid);
	if (marked) {
		problem =
			health_add(health, HEALTH_WARNING,
				   "store %.8s (node %u, %s) is not trusted in %u placement "
				   "group%s",
				   uuid, store->node, store->path, marked, marked == 1 ? "" : "s");
		health_name_store(problem, store);
		health_means(problem,
			     store->flags & CLUSTER_STORE_UNCLEAN
				     ? "it was not stopped cleanly and may lack writes that it "
				       "acknowledged: it is compared with the others and filled"
				     : "it could not apply some writes: it is compared with the "
				       "others and filled");
		health_do(problem, "wait; collie recovery info shows how far it is");
	}
	if (holes) {
		problem = health_add(health, HEALTH_WARNING,
				     "store %.8s (node %u, %s) lacks objects in %u placement "
				     "group%s",
				     uuid, store->node, store->path, holes, holes == 1 ? "" : "s");
		health_name_store(problem, store);
		health_means(problem, "blocks there did not pass their checksum; they are fetched "
				      "from other copies, and never served as they are");
		health_do(problem, "wait; if it happens again replace the disk");
	}
}

/* ---- objects that cannot be read ---- */

static bool has_layer(const struct cluster_volume *volume, uint64_t layer)
{
	for (uint32_t i = 0; i < volume->layer_count; i++)
		if (volume->layers[i] == layer)
			return true;
	return false;
}

/* Those of @volume, lost or only not found, as text. Returns how many there are. */
static uint32_t list_lost(const struct health *health, const struct cluster_volume *volume,
			  bool is_lost, struct text *text, struct json_object *pgs)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < health->figures->lost_count; i++) {
		const struct figures_lost *lost = &health->figures->lost[i];
		if ((lost->blocks > 0) != is_lost || !has_layer(volume, lost->layer))
			continue;
		text_append(text, "%spg %u object %llu.%u (from byte %llu on", count ? ", " : "",
			    lost->pg, (unsigned long long)lost->layer, lost->index,
			    (unsigned long long)lost->index * OBJECT_SIZE);
		if (is_lost)
			text_append(text, ", %u of its blocks", lost->blocks);
		text_append(text, ")");
		if (pgs)
			json_object_array_add(pgs, json_object_new_uint64(lost->pg));
		count++;
	}
	return count;
}

static void say_lost_of(struct health *health, const struct cluster_volume *volume, bool is_lost)
{
	struct json_object *problem, *pgs = json_object_new_array();
	char words[800], span[HEALTH_SPAN_MAX];
	struct text text = text_of(words, sizeof(words));

	if (!list_lost(health, volume, is_lost, &text, pgs)) {
		json_object_put(pgs);
		return;
	}
	problem = health_add(health, HEALTH_ERROR,
			     is_lost ? "volume '%.64s': data is lost: %s"
				     : "volume '%.64s': no store that is up has %s",
			     volume->name, words);
	json_object_object_add(problem, "pgs", pgs);
	if (is_lost) {
		health_means(problem, "no copy passed its checksum; reading these blocks fails "
				      "with an I/O error, everything else is served");
		health_do(problem, "restore them from a backup, or write, trim or zero them: a "
				   "block is good again as soon as it is written whole");
		return;
	}
	health_means(problem,
		     "stores that are away may have it: until they are back reads there fail or "
		     "wait. After %s without them what nobody has is lost",
		     health_span(cluster_setting_ns(health->map, CLUSTER_SETTING_DOWN_OUT_INTERVAL),
				 span));
	health_do(problem, "start what is away");
}

static void say_lost(struct health *health)
{
	const struct cluster_volume *volume;
	uint64_t all = health->figures->objects_lost + health->figures->objects_unread;

	if (all == 0)
		return;
	for (volume = cluster_volume_next(health->map, 0); volume;
	     volume = cluster_volume_next(health->map, volume->id)) {
		say_lost_of(health, volume, true);
		say_lost_of(health, volume, false);
	}
	if (all > health->figures->lost_count)
		health_add(health, HEALTH_NOTE, "%llu more objects cannot be read",
			   (unsigned long long)(all - health->figures->lost_count));
}

static void say_degraded(struct health *health)
{
	uint32_t degraded = health->summary.pgs_degraded;
	uint32_t filling = health->summary.pgs[CLUSTER_RECOVERING];
	struct json_object *problem;

	if (degraded) {
		problem = health_add(health, HEALTH_WARNING,
				     "%u placement group%s serve%s with fewer copies than wanted",
				     degraded, degraded == 1 ? "" : "s", degraded == 1 ? "s" : "");
		health_means(problem, "another fault may stop them, or cost data");
		if (filling)
			health_do(problem,
				  "wait: copies are being made in %u; collie recovery info",
				  filling);
		else
			health_do(problem, "bring back what is down, or add a store");
	} else if (filling) {
		problem = health_add(health, HEALTH_NOTE,
				     "%u placement group%s moving to other stores", filling,
				     filling == 1 ? " is" : "s are");
		health_means(problem, "all have their copies; the old ones go when the new ones "
				      "are complete");
		health_do(problem, "wait; collie recovery info");
	}
}

void health_say_pgs(struct health *health)
{
	struct group *groups = calloc(GROUPS_MAX, sizeof(*groups)), like;
	const struct cluster_store *store;
	const struct cluster_pg *pg;
	uint32_t count = 0;

	for (pg = cluster_pg_next(health->map, 0); groups && pg;
	     pg = cluster_pg_next(health->map, pg->id + 1)) {
		if (cluster_pg_health(health->map, pg) != CLUSTER_DOWN)
			continue;
		group_of(health->map, pg, &like);
		struct group *group = find_group(groups, &count, &like);
		if (group->pg_count < PGS_NAMED)
			group->pgs[group->pg_count] = pg->id;
		group->pg_count++;
		group->joining += pg->join_count > 0;
	}
	for (uint32_t i = 0; i < count; i++)
		say_group(health, &groups[i]);
	free(groups);
	say_lost(health);
	say_degraded(health);
	if (health->summary.health != CLUSTER_HEALTHY)
		for (store = cluster_store_next(health->map, 0); store;
		     store = cluster_store_next(health->map, store->id))
			say_marked(health, store);
	say_record(health, true);
	say_record(health, false);
}
