/*
 * The table of executed requests, as a primary sends it to members (REPLICATION, Q1).
 *
 * A store remembers a request as executed if and only if its own copy of the object has what the request
 * did: so whoever leads next answers those who ask again by what it has. Therefore both change together. An
 * entry brings its request; one that makes an object what we have, whatever members had (settle.c,
 * lost.c), brings ours of this object, and what members remember of it goes in the same batch. A joining
 * store, which nobody elects, gets all of them when it has all objects, before it is sealed.
 *
 * Up to the commit point that we know all members in sync remember the same, so what is behind it is enough.
 */
#include <stdlib.h>

#include "lib/base/crc32c.h"
#include "sheep/pg/pg_priv.h"

struct request_table {
	struct store_request *rows;
	uint32_t count;
};

/* Without sessions that have ended, and what they do not wait for any more. */
static void keep_living(const struct pg_lead *lead, struct request_table *table, uint32_t count)
{
	uint32_t used = 0;

	for (uint32_t i = 0; i < count; i++) {
		const struct store_request *row = &table->rows[i];
		struct pg_session *session;
		HASH_FIND(hh, lead->sessions, &row->session, sizeof(uint64_t), session);
		if (!pg_session_is_alive(lead->pg->set, row->session) ||
		    (session && row->number < session->lowest))
			continue;
		table->rows[used++] = *row;
	}
	table->count = used;
}

/* What our store remembers. */
static int requests_take(struct pg_lead *lead, struct request_table *out)
{
	struct store *store = pg_store_of(lead->pg);
	uint32_t count = store_requests(store, lead->id, NULL, 0);

	out->rows = calloc(max_of(count, 1u), sizeof(*out->rows));
	if (!out->rows)
		return -ENOMEM;
	count = min_of(store_requests(store, lead->id, out->rows, count), count);
	keep_living(lead, out, count);
	return 0;
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
			.layer = to_le64(table->rows[first + i].key.layer),
			.index = to_le32(table->rows[first + i].key.index),
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

/* ---- with an entry ---- */

/* Those of the object that may not be everywhere. 0, -ENOMEM or -E2BIG. */
static int object_take(struct pg_lead *lead, const struct object_key *key, struct version above,
		       struct request_table *out)
{
	struct store *store = pg_store_of(lead->pg);
	uint32_t count = store_object_requests(store, lead->id, key, above, NULL, 0);

	out->count = 0;
	out->rows = calloc(max_of(count, 1u), sizeof(*out->rows));
	if (!out->rows)
		return -ENOMEM;
	count = min_of(store_object_requests(store, lead->id, key, above, out->rows, count), count);
	keep_living(lead, out, count);
	if (out->count <= PEER_ENTRY_ROWS_MAX)
		return 0;
	free(out->rows);
	return -E2BIG;
}

static void encode(uint8_t *at, const struct request_table *table, struct version above)
{
	struct peer_entry_requests *head = (void *)at;
	struct peer_entry_row *rows = (void *)(head + 1);

	*head = (struct peer_entry_requests){.above_reign = to_le64(above.reign),
					     .above_n = to_le64(above.n),
					     .row_count = to_le32(table->count)};
	for (uint32_t i = 0; i < table->count; i++)
		rows[i] = (struct peer_entry_row){
			.session = to_le64(table->rows[i].session),
			.number = to_le64(table->rows[i].number),
			.reign = to_le64(table->rows[i].version.reign),
			.n = to_le64(table->rows[i].version.n),
		};
	head->crc = to_le32(crc32c(at, sizeof(*head) + table->count * sizeof(*rows)));
}

int pg_requests_attach(struct pg_entry *entry)
{
	struct pg_lead *lead = entry->lead;
	struct request_table table;
	struct store_pg_info info;
	struct buffer *buffer;
	uint32_t size;
	int rc;

	store_pg_info(pg_store_of(lead->pg), lead->id, &info);
	rc = object_take(lead, &entry->append.key, info.commit, &table);
	if (rc < 0)
		return rc;
	size = (uint32_t)(sizeof(struct peer_entry_requests) +
			  table.count * sizeof(struct peer_entry_row));
	buffer = buffer_new(lead->pg->set->arena.buffers, size);
	if (buffer) {
		entry->requests = slice_of(buffer, 0, size);
		encode(entry->requests.data, &table, info.commit);
		entry->flags |= PEER_ENTRY_REQUESTS;
	}
	free(table.rows);
	return buffer ? 0 : -ENOMEM;
}
