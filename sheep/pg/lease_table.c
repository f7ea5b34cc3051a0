/*
 * A row of one cache line per node: written by loop 0 at each acknowledgement, read by all loops at each
 * read. A sequence lock per row, so that neither side ever waits for the other: whoever reads while it is
 * written tries again a few times, then takes it for "no lease", which costs time and nothing else.
 *
 * Acknowledgements of two log indices are kept. The newest may name an index that a loop's map has yet to
 * reach; then the one before still counts there.
 *
 * Rows are found by hashing and never move. A row is used again only when its node has left the map.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/bitmap.h"
#include "lib/base/rule.h"
#include "sheep/pg/lease.h"

#define ROWS  (2 * CLUSTER_NODES_MAX)
#define ACKS  2u
#define TRIES 16u

struct ack {
	uint64_t sent_ns, index;
};

struct row {
	uint32_t sequence; /* odd: being written */
	uint32_t node;	   /* 0: never used */
	uint32_t is_silent;
	uint32_t reserved;
	struct ack acks[ACKS]; /* newest first */
	uint64_t padding[2];
};
_Static_assert(sizeof(struct row) == 64, "one cache line");

struct pg_leases {
	struct row rows[ROWS];
	uint32_t is_isolated;
	uint64_t is_gone[ROWS / 64]; /* loop 0's: rows whose node has left the map */
};

struct pg_leases *pg_leases_new(void)
{
	struct pg_leases *leases = aligned_alloc(64, round_up(sizeof(*leases), 64));

	if (leases)
		memset(leases, 0, sizeof(*leases));
	return leases;
}

void pg_leases_free(struct pg_leases *leases)
{
	free(leases);
}

static uint32_t place_of(uint32_t node)
{
	return (uint32_t)((node * 0x9e3779b97f4a7c15ull) >> 32) % ROWS;
}

/* ---- writing ---- */

static void write_begin(struct row *row)
{
	__atomic_store_n(&row->sequence, row->sequence + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

static void write_end(struct row *row)
{
	__atomic_store_n(&row->sequence, row->sequence + 1, __ATOMIC_RELEASE);
}

static void put_ack(struct ack *to, uint64_t sent_ns, uint64_t index)
{
	__atomic_store_n(&to->sent_ns, sent_ns, __ATOMIC_RELAXED);
	__atomic_store_n(&to->index, index, __ATOMIC_RELAXED);
}

static void wipe(struct row *row, uint32_t node)
{
	write_begin(row);
	__atomic_store_n(&row->node, node, __ATOMIC_RELAXED);
	__atomic_store_n(&row->is_silent, 0, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < ACKS; i++)
		put_ack(&row->acks[i], 0, 0);
	write_end(row);
}

/* Its row, made if need be. There are twice as many as nodes, so one is always found. */
static struct row *own_row(struct pg_leases *leases, uint32_t node)
{
	uint32_t free_at = ROWS;

	for (uint32_t i = 0, at = place_of(node); i < ROWS; i++, at = (at + 1) % ROWS) {
		if (leases->rows[at].node == node)
			return &leases->rows[at];
		if (free_at == ROWS &&
		    (leases->rows[at].node == 0 || bitmap_test(leases->is_gone, at)))
			free_at = at;
		if (leases->rows[at].node == 0)
			break;
	}
	assert(free_at < ROWS);
	bitmap_clear(leases->is_gone, free_at);
	wipe(&leases->rows[free_at], node);
	return &leases->rows[free_at];
}

void pg_leases_note(struct pg_leases *leases, uint32_t node, uint64_t sent_ns, uint64_t index)
{
	struct row *row = own_row(leases, node);
	struct ack newest = row->acks[0];

	if (sent_ns <= newest.sent_ns)
		return; /* overtaken */
	write_begin(row);
	if (index != newest.index)
		put_ack(&row->acks[1], newest.sent_ns, newest.index);
	put_ack(&row->acks[0], sent_ns, index);
	write_end(row);
}

void pg_leases_set_silent(struct pg_leases *leases, uint32_t node, bool is_silent)
{
	__atomic_store_n(&own_row(leases, node)->is_silent, is_silent, __ATOMIC_RELAXED);
}

static void drop(struct row *row)
{
	write_begin(row);
	for (unsigned i = 0; i < ACKS; i++)
		put_ack(&row->acks[i], 0, 0);
	write_end(row);
}

void pg_leases_drop(struct pg_leases *leases, uint32_t node)
{
	drop(own_row(leases, node));
}

void pg_leases_clear(struct pg_leases *leases)
{
	for (uint32_t i = 0; i < ROWS; i++)
		if (leases->rows[i].node)
			drop(&leases->rows[i]);
}

void pg_leases_set_isolated(struct pg_leases *leases, bool is_isolated)
{
	__atomic_store_n(&leases->is_isolated, is_isolated, __ATOMIC_RELAXED);
}

bool pg_leases_is_isolated(const struct pg_leases *leases)
{
	return leases && __atomic_load_n(&leases->is_isolated, __ATOMIC_RELAXED);
}

void pg_leases_forget(struct pg_leases *leases, uint32_t node)
{
	struct row *row = own_row(leases, node);
	uint32_t at = (uint32_t)(row - leases->rows);

	wipe(row, node);
	bitmap_set(leases->is_gone, at);
}

/* ---- reading ---- */

static const struct row *find_row(const struct pg_leases *leases, uint32_t node)
{
	for (uint32_t i = 0, at = place_of(node); i < ROWS; i++, at = (at + 1) % ROWS) {
		uint32_t found = __atomic_load_n(&leases->rows[at].node, __ATOMIC_RELAXED);
		if (found == node)
			return &leases->rows[at];
		if (found == 0)
			break;
	}
	return NULL;
}

static bool read_row(const struct row *row, uint32_t node, struct ack out[ACKS])
{
	for (unsigned i = 0; i < TRIES; i++) {
		uint32_t before = __atomic_load_n(&row->sequence, __ATOMIC_ACQUIRE);
		uint32_t found = __atomic_load_n(&row->node, __ATOMIC_RELAXED);

		for (unsigned k = 0; k < ACKS; k++) {
			out[k].sent_ns = __atomic_load_n(&row->acks[k].sent_ns, __ATOMIC_RELAXED);
			out[k].index = __atomic_load_n(&row->acks[k].index, __ATOMIC_RELAXED);
		}
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (before % 2 == 0 && found == node &&
		    __atomic_load_n(&row->sequence, __ATOMIC_RELAXED) == before)
			return true;
	}
	return false;
}

uint64_t pg_leases_sent(const struct pg_leases *leases, uint32_t node, uint64_t index)
{
	const struct row *row = find_row(leases, node);
	struct ack acks[ACKS];

	if (!row || !read_row(row, node, acks))
		return 0;
	for (unsigned i = 0; i < ACKS; i++) /* newest first */
		if (!RULE(L1_INDEX) || acks[i].index <= index)
			return acks[i].sent_ns;
	return 0;
}

bool pg_leases_is_silent(const struct pg_leases *leases, uint32_t node)
{
	const struct row *row = leases ? find_row(leases, node) : NULL;

	return row && __atomic_load_n(&row->is_silent, __ATOMIC_RELAXED);
}
