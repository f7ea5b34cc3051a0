/*
 * The table of executed requests, as a primary sends it to a member (REPLICATION, Q1).
 *
 * What members remember of executed requests is replaced by what we remember, before the first
 * entry of a reign: what they have of entries that are gone now goes with them. A joining store
 * gets it before it is sealed.
 */
#include <stdlib.h>

#include "sheep/pg/pg_priv.h"

struct request_table {
	struct store_request *rows;
	uint32_t count;
};

/* What our store remembers, without sessions that have ended. */
static int requests_take(struct pg_lead *lead, struct request_table *out)
{
	struct store *store = pg_store_of(lead->pg);
	uint32_t count = store_requests(store, lead->id, NULL, 0), used = 0;

	out->rows = calloc(max_of(count, 1u), sizeof(*out->rows));
	if (!out->rows)
		return -ENOMEM;
	count = min_of(store_requests(store, lead->id, out->rows, count), count);
	for (uint32_t i = 0; i < count; i++) {
		struct pg_session *session;
		HASH_FIND(hh, lead->sessions, &out->rows[i].session, sizeof(uint64_t), session);
		if (!pg_session_is_alive(lead->pg->set, out->rows[i].session) ||
		    (session && out->rows[i].number < session->lowest))
			continue;
		out->rows[used++] = out->rows[i];
	}
	out->count = used;
	return 0;
}

static void on_replaced(struct pg_ask *ask, int result)
{
	struct pg_member *member = pg_ask_member(ask);
	struct pg_lead *lead;

	if (!member || !member->owes_requests)
		return;
	lead = member->lead;
	if (result < 0) {
		member->is_broken = true;
		member->retry_ns = loop_now(lead->pg->set->loop) + PG_ASK_AGAIN_NS;
		return;
	}
	member->owes_requests = false;
	member->is_broken = true; /* what waited for it goes now */
	member->retry_ns = 0;
	pg_member_resend(member, loop_now(lead->pg->set->loop));
	pg_lead_commit(lead);
}

/* NULL: no memory. Not sent yet. */
static struct pg_ask *make_piece(struct pg_member *member, const struct request_table *table,
				 uint32_t first, uint32_t count)
{
	struct pg_ask *ask = pg_ask_new(member->lead->pg, member->store,
					count * (uint32_t)sizeof(struct peer_request_row));

	if (!ask)
		return NULL;
	struct peer_request_row *rows = (void *)ask->payload.data;
	for (uint32_t i = 0; i < count; i++)
		rows[i] = (struct peer_request_row){
			.session = to_le64(table->rows[first + i].session),
			.number = to_le64(table->rows[first + i].number),
			.reign = to_le64(table->rows[first + i].version.reign),
			.n = to_le64(table->rows[first + i].version.n),
		};
	return ask;
}

int pg_requests_send(struct pg_member *member, uint64_t n,
		     void (*done)(struct pg_ask *ask, int result), void *owner)
{
	struct request_table table;
	uint32_t first = 0;
	int rc = requests_take(member->lead, &table);

	if (rc < 0)
		return rc;
	do {
		uint32_t count = min_of(table.count - first, PEER_REQUEST_ROWS_MAX);
		bool is_last = first + count == table.count;
		struct pg_ask *ask = make_piece(member, &table, first, count);
		const struct peer_requests body = {
			.epoch = to_le64(member->lead->pg->epoch),
			.reign = to_le64(member->lead->reign),
			.n = to_le64(n),
			.pg = to_le32(member->lead->id),
			.store = to_le32(member->store),
			.first = to_le32(first),
			.row_count = to_le32(count),
			.flags = to_le32(is_last ? PEER_REQUESTS_LAST : 0),
		};
		rc = ask ? 0 : -ENOMEM;
		if (!ask)
			break;
		ask->owner = owner;
		pg_ask_send(ask, PEER_CLASS_PEER, PEER_OP_REQUESTS, &body, sizeof(body),
			    is_last ? done : NULL); /* without one before it the last one fails */
		first += count;
	} while (first < table.count);
	free(table.rows);
	return rc;
}

int pg_requests_replace(struct pg_member *member)
{
	return pg_requests_send(member, 0, on_replaced, NULL);
}
