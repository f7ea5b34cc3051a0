/*
 * A total power loss: who leads of those that may have lost something (REPLICATION, R4).
 *
 * A PG without a primary has no unmarked member that is up. Members that are marked, and have not
 * begun a join since they were in sync last, have everything that was ever flushed: while they were in
 * sync each FLUSH waited for their sync, and a primary commits nothing while a marked seat is
 * listed that is not stale (pg_put() of the map sees to that). They differ in what was not flushed. So the
 * one with the most advanced last entry is to lead, and acknowledged writes that it lacks are
 * lost: the election raises the loss epoch.
 *
 *      orphaned: nobody leads, we are marked, not stale
 *          | ask all other such members that are up for their last entry, again and again
 *          v
 *      all listed members are up and answered ------------------> decide
 *      some are away, or silent, for power_loss_wait since then --^
 *
 * To decide is to compare; only the store that finds itself the most advanced proposes, and at most
 * one proposal is applied in an epoch. Answers count in the epoch in which they were asked and
 * told: each return of a listed member begins a new one, so they are of the starts of now.
 *
 * A last entry is told only by a store whose own registration is applied (R1), as it then knows of
 * that epoch. Members that are stale are not waited for: they cannot be elected, and
 * what they have counts for nothing. The wait begins anew when a member goes away.
 *
 * Seats ask for themselves, but those with the same node and loop on the other side share a message.
 */
#include "sheep/pg/elect.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/rule.h"
#include "sheep/pg/pg_priv.h"

#define ASK_NS	   (200 * NS_PER_MS) /* between two rounds of questions */
#define FRESH_NS   (2 * NS_PER_S)    /* an answer is asked for again when it is so old */
#define STALE_NS   (6 * NS_PER_S)    /* and counts no longer then */
#define SILENCE_NS (2 * NS_PER_S)    /* at least, for a member that is up and does not answer */

_Static_assert(LOG_SEATS_MAX <= 32, "a bit for each seat");

/* What a listed member told. By its place in the row. */
struct answer {
	uint64_t told_ns; /* 0: nothing */
	struct version last;
	uint32_t missing;
};

struct pg_election {
	struct cds_list_head link; /* in the set */
	struct pg *pg;
	uint64_t epoch;
	uint64_t since_ns; /* who is up has been so, or more, since then */
	uint32_t up;	   /* seats, as bits */
	uint64_t proposed_ns;
	struct answer answers[LOG_SEATS_MAX];
};

/* ---- who counts ---- */

static bool may_be_elected(const struct pg *pg, uint32_t store)
{
	return cluster_pg_is_electable(pg->set->map, &pg->row, store, NULL);
}

/* Could it have more than we? Who is stale cannot be elected, whatever it has. */
static bool counts(const struct pg *pg, const struct cluster_seat *seat)
{
	return !(seat->flags & CLUSTER_SEAT_STALE) || may_be_elected(pg, seat->store);
}

static bool is_orphan(const struct pg *pg)
{
	return pg->state == PG_MEMBER && may_be_elected(pg, pg->store->id);
}

/* Those seats that count and are up. */
static uint32_t seats_up(const struct pg *pg)
{
	uint32_t up = 0;

	for (uint32_t i = 0; i < pg->row.isr_count; i++)
		if (counts(pg, &pg->row.isr[i]) &&
		    cluster_store_is_up(pg->set->map, pg->row.isr[i].store))
			up |= 1u << i;
	return up;
}

static bool is_answered(const struct pg_election *election, uint32_t place, uint64_t now)
{
	const struct answer *answer = &election->answers[place];

	return answer->told_ns && now < answer->told_ns + STALE_NS;
}

/* ---- an election ---- */

static struct answer own_answer(struct pg *pg, uint64_t now)
{
	struct store_pg_info info;

	store_pg_info(pg_store_of(pg), pg->id, &info);
	return (struct answer){.told_ns = now, .last = info.last, .missing = info.missing};
}

/* Is a, of store x, to lead rather than b, of store y? */
static bool is_better(const struct answer *a, uint32_t x, const struct answer *b, uint32_t y)
{
	int order = RULE(R4_MOST_ADVANCED) ? version_compare(a->last, b->last) : 0;

	if (order != 0)
		return order > 0;
	if (a->missing != b->missing)
		return a->missing < b->missing;
	return x < y;
}

/* Of those that told: are we the one? */
static bool are_we_best(const struct pg_election *election, uint64_t now)
{
	struct pg *pg = election->pg;
	struct answer ours = own_answer(pg, now);

	for (uint32_t i = 0; i < pg->row.isr_count; i++) {
		const struct cluster_seat *seat = &pg->row.isr[i];
		if (seat->store == pg->store->id || !may_be_elected(pg, seat->store) ||
		    !(election->up & 1u << i) || !is_answered(election, i, now))
			continue;
		if (is_better(&election->answers[i], seat->store, &ours, pg->store->id))
			return false;
	}
	return true;
}

static bool is_due(const struct pg_election *election, uint64_t now)
{
	const struct pg *pg = election->pg;
	uint64_t wait = pg_set_time(pg->set, CLUSTER_SETTING_POWER_LOSS_WAIT);
	bool any_away = false, any_silent = false;

	for (uint32_t i = 0; i < pg->row.isr_count; i++) {
		const struct cluster_seat *seat = &pg->row.isr[i];
		if (seat->store == pg->store->id || !counts(pg, seat))
			continue;
		if (!(election->up & 1u << i))
			any_away = true;
		else if (!is_answered(election, i, now))
			any_silent = true;
	}
	if (!RULE(R4_WAIT))
		return true;
	if (any_silent)
		return now >= election->since_ns + max_of(wait, SILENCE_NS);
	return !any_away || now >= election->since_ns + wait;
}

static void propose(struct pg_election *election, uint64_t now)
{
	struct pg *pg = election->pg;
	struct answer ours = own_answer(pg, now);

	if (election->proposed_ns && now < election->proposed_ns + PG_PROPOSE_NS)
		return;
	if (!election->proposed_ns)
		log_warning(
			"pg %u epoch %llu: all copies may have lost writes that were not flushed: store "
			"%u has most, up to (%llu,%llu), and is to lead",
			pg->id, (unsigned long long)pg->epoch, pg->store->id,
			(unsigned long long)ours.last.reign, (unsigned long long)ours.last.n);
	election->proposed_ns = now;
	pg_set_propose(pg->set, cluster_command_pg_elect(pg->id, pg->epoch, pg->store->id));
	SIM_POINT(ELECTED);
}

static struct pg_election *election_begin(struct pg *pg, uint64_t now)
{
	struct pg_election *election = calloc(1, sizeof(*election));

	if (!election)
		return NULL; /* the tick tries again */
	election->pg = pg;
	election->epoch = pg->epoch;
	election->up = seats_up(pg);
	election->since_ns = now;
	pg->election = election;
	cds_list_add_tail(&election->link, &pg->set->elections);
	pg->set->elect_ns = 0;
	return election;
}

void pg_election_end(struct pg *pg)
{
	if (!pg->election)
		return;
	cds_list_del(&pg->election->link);
	free(pg->election);
	pg->election = NULL;
}

bool pg_elect_tick(struct pg *pg, uint64_t now)
{
	struct pg_election *election = pg->election;

	if (!is_orphan(pg)) {
		pg_election_end(pg);
		return false;
	}
	if (election && election->epoch != pg->epoch) {
		pg_election_end(pg);
		election = NULL;
	}
	if (!election)
		election = election_begin(pg, now);
	if (!election)
		return true;
	uint32_t up = seats_up(pg);
	if (election->up & ~up)
		election->since_ns = now; /* one more has gone */
	election->up = up;
	if (is_due(election, now) && are_we_best(election, now))
		propose(election, now);
	return true;
}

/* ---- asking ---- */

/* One message to one loop of one node. */
struct ask {
	struct net_call call;
	struct cds_list_head link;
	struct pg_set *set;
	uint32_t node;
	uint16_t home;
	uint32_t count;
	struct slice payload;
};

static void ask_free(struct ask *ask)
{
	buffer_put(ask->payload.buffer);
	free(ask);
}

/* A row of the reply: it may name any PG and store, so it is believed only of the node that has it. */
static void take_answer(struct ask *ask, const struct peer_last_answer *row, uint64_t now)
{
	struct pg_set *set = ask->set;
	uint32_t store = from_le32(row->store);
	const struct pg_store *ours;

	if (cluster_store_node(set->map, store) != ask->node)
		return;
	cds_list_for_each_entry(ours, &set->stores, link) {
		struct pg *pg = pg_find(set, from_le32(row->pg), ours->id);
		const struct cluster_seat *seat = pg ? cluster_pg_seat(&pg->row, store) : NULL;
		if (!seat || !pg->election || pg->election->epoch != from_le64(row->epoch) ||
		    pg->epoch != pg->election->epoch)
			continue;
		pg->election->answers[seat - pg->row.isr] = (struct answer){
			.told_ns = now,
			.last = {.reign = from_le64(row->reign), .n = from_le64(row->n)},
			.missing = from_le32(row->missing),
		};
		pg_set_active(pg);
	}
}

static void on_last_told(struct net_call *call, int result)
{
	struct ask *ask = container_of_type(call, struct ask, call);
	struct pg_set *set = ask->set;
	const struct peer_last_reply *reply = call->reply_body;
	const struct peer_last_answer *rows = (const void *)call->reply_slice.data;
	uint32_t count = result == 0 ? from_le32(reply->row_count) : 0;

	if (set->is_stopping || count > ask->count ||
	    call->reply_slice.size != count * sizeof(*rows))
		count = 0; /* asked again */
	for (uint32_t i = 0; i < count; i++)
		take_answer(ask, &rows[i], loop_now(set->loop));
	ask_free(ask);
	pg_set_release(set);
}

static void send_ask(struct ask *ask)
{
	struct pg_set *set = ask->set;
	struct net_link *link =
		pg_peers_node_link(set->env.peers, ask->node, ask->home, PEER_CLASS_CONTROL);
	const struct peer_last body = {.row_count = to_le32(ask->count)};

	cds_list_del(&ask->link);
	if (!link) {
		ask_free(ask);
		return;
	}
	ask->payload.size = ask->count * (uint32_t)sizeof(struct peer_last_row);
	ask->call = (struct net_call){
		.op = PEER_OP_LAST,
		.body = &body,
		.body_size = sizeof(body),
		.slices = &ask->payload,
		.slice_count = 1,
		.reply_max = ask->count * (uint32_t)sizeof(struct peer_last_answer),
		.done = on_last_told,
	};
	pg_set_hold(set);
	net_link_call(link, &ask->call);
}

static struct ask *ask_new(struct pg_set *set, uint32_t node, uint16_t home)
{
	const uint32_t size = PEER_LAST_ROWS_MAX * (uint32_t)sizeof(struct peer_last_row);
	struct buffer *buffer = buffer_new(set->arena.buffers, size);
	struct ask *ask = buffer ? calloc(1, sizeof(*ask)) : NULL;

	if (!ask) {
		buffer_put(buffer);
		return NULL;
	}
	ask->set = set;
	ask->node = node;
	ask->home = home;
	ask->payload = slice_of(buffer, 0, size);
	return ask;
}

/* The message that goes where @store's seat lives, with room for a row; NULL: no memory now. */
static struct ask *ask_for(struct pg_set *set, struct cds_list_head *asks, uint32_t store,
			   uint32_t pg)
{
	uint32_t node = cluster_store_node(set->map, store);
	uint16_t home = pg_peers_loop_of(set->map, store, pg);
	struct ask *ask;

	cds_list_for_each_entry(ask, asks, link)
		if (ask->node == node && ask->home == home && ask->count < PEER_LAST_ROWS_MAX)
			return ask;
	ask = ask_new(set, node, home);
	if (ask)
		cds_list_add(&ask->link, asks);
	return ask;
}

static void ask_all(struct pg_election *election, struct cds_list_head *asks, uint64_t now)
{
	struct pg *pg = election->pg;

	for (uint32_t i = 0; i < pg->row.isr_count; i++) {
		uint32_t store = pg->row.isr[i].store;
		struct answer *answer = &election->answers[i];
		struct ask *ask;
		if (store == pg->store->id || !(election->up & 1u << i) ||
		    (answer->told_ns && now < answer->told_ns + FRESH_NS))
			continue;
		ask = ask_for(pg->set, asks, store, pg->id);
		if (!ask)
			return;
		struct peer_last_row *rows = (void *)ask->payload.data;
		rows[ask->count++] = (struct peer_last_row){
			.epoch = to_le64(pg->epoch),
			.pg = to_le32(pg->id),
			.store = to_le32(store),
		};
	}
}

void pg_elections_ask(struct pg_set *set, uint64_t now)
{
	struct pg_election *election;
	struct ask *ask, *next;
	CDS_LIST_HEAD(asks);

	if (cds_list_empty(&set->elections) || (set->elect_ns && now < set->elect_ns + ASK_NS))
		return;
	set->elect_ns = now;
	cds_list_for_each_entry(election, &set->elections, link)
		ask_all(election, &asks, now);
	cds_list_for_each_entry_safe(ask, next, &asks, link)
		send_ask(ask);
}

/* ---- answering ---- */

/* R1: a store whose registration is not applied here is in no epoch that could be asked about. */
static bool answer_row(struct pg_set *set, const struct peer_last_row *row,
		       struct peer_last_answer *out)
{
	struct pg *pg = pg_find(set, from_le32(row->pg), from_le32(row->store));
	struct store_pg_info info;

	if (!pg || !pg->store->is_known || pg->store->is_failed ||
	    pg->epoch != from_le64(row->epoch))
		return false;
	store_pg_info(pg_store_of(pg), pg->id, &info);
	*out = (struct peer_last_answer){
		.epoch = row->epoch,
		.reign = to_le64(info.last.reign),
		.n = to_le64(info.last.n),
		.pg = row->pg,
		.store = row->store,
		.missing = to_le32(info.missing),
	};
	return true;
}

void pg_on_last(struct net_request *request)
{
	const struct peer_last *body = request->body;
	const struct peer_last_row *rows = (const void *)request->payload.data;
	struct pg_set *set = net_request_context(request);
	uint32_t count = from_le32(body->row_count);
	struct peer_last_reply reply = {.row_count = to_le32(0)};
	uint32_t told = 0;

	if (count == 0 || count > PEER_LAST_ROWS_MAX ||
	    request->payload.size != count * sizeof(*rows) ||
	    request->reply_max < count * sizeof(struct peer_last_answer)) {
		net_reply_status(request, -E_PROTOCOL);
		return;
	}
	uint32_t size = count * (uint32_t)sizeof(struct peer_last_answer);
	struct buffer *buffer = buffer_new(set->arena.buffers, size);
	if (!buffer) {
		net_reply_status(request, -ENOMEM);
		return;
	}
	struct peer_last_answer *answers = (void *)buffer->data;
	for (uint32_t i = 0; i < count && !set->is_stopping; i++)
		told += answer_row(set, &rows[i], &answers[told]);
	reply.row_count = to_le32(told);
	struct slice slice = slice_of(buffer, 0, told * (uint32_t)sizeof(*answers));
	if (told == 0)
		buffer_put(buffer);
	net_reply(request, 0, &reply, sizeof(reply), &slice, told > 0);
}
