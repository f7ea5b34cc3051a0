/*
 * Entries: numbered changes, on their way into our store and every member's (REPLICATION, W1-W3).
 *
 * An entry gets its number when our own store has taken it, and goes to all members in the same
 * turn. It is committed when our store and every member that must have it have all entries up to
 * it: so positions are compared, not entries, and commits come in order.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/crc32c.h"
#include "lib/base/rule.h"
#include "sheep/pg/entry_codec.h"
#include "sheep/pg/pg_priv.h"

/* ---- making one ---- */

struct pg_entry *pg_entry_new(struct pg_lead *lead)
{
	struct pg_set *set = lead->pg->set;
	struct pg_entry *entry;

	if (pool_count(set->calls) - pool_busy(set->calls) < lead->member_count ||
	    lead->entry_count >= PG_ENTRIES_MAX)
		return NULL;
	entry = pool_get(set->entries);
	if (!entry)
		return NULL;
	entry->pg = lead->pg;
	entry->lead = lead;
	entry->refs = 1;
	return entry;
}

void pg_entry_put(struct pg_entry *entry)
{
	struct pg_set *set = entry->pg->set;

	assert(entry->refs > 0);
	if (--entry->refs > 0)
		return;
	for (uint32_t i = 0; i < entry->slice_count + entry->has_meta_slice; i++)
		buffer_put(entry->slices[i].buffer);
	buffer_put(entry->requests.buffer);
	buffer_put(entry->crcs_slice.buffer);
	if (entry->runs != entry->runs_inline)
		free(entry->runs);
	pool_put(set->entries, entry);
	if (!cds_list_empty(&set->starved) || set->stop_op)
		pg_set_kick(set);
}

void pg_entry_drop(struct pg_entry *entry)
{
	assert(entry->refs == 1);
	pg_entry_put(entry);
}

int pg_entry_runs(struct pg_entry *entry, const struct store_run *runs, uint32_t count)
{
	entry->runs = entry->runs_inline;
	if (count > PG_RUNS_INLINE) {
		entry->runs = malloc(count * sizeof(*runs));
		if (!entry->runs)
			return -ENOMEM;
	}
	if (count > 0)
		memcpy(entry->runs, runs, count * sizeof(*runs));
	entry->run_count = count;
	entry->block_count = pg_runs_data_blocks(runs, count);
	return 0;
}

static bool is_usable(const struct slice *slices, uint32_t count)
{
	if (count > PG_SLICES)
		return false;
	for (uint32_t i = 0; i < count; i++)
		if (!slices[i].buffer || slices[i].size % BLOCK_SIZE)
			return false;
	return true;
}

static int gather(struct pg_entry *entry, const struct slice *slices, uint32_t count)
{
	uint32_t size = entry->block_count * BLOCK_SIZE, used = 0;
	struct buffer *buffer = buffer_new(entry->pg->set->arena.buffers, size);

	if (!buffer)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		assert(used + slices[i].size <= size);
		if (slices[i].size > 0)
			memcpy(buffer->data + used, slices[i].data, slices[i].size);
		used += slices[i].size;
	}
	assert(used == size);
	entry->slices[0] = slice_of(buffer, 0, size);
	entry->slice_count = 1;
	return 0;
}

static int take_slices(struct pg_entry *entry, const struct slice *slices, uint32_t count)
{
	if (!is_usable(slices, count))
		return gather(entry, slices, count);
	for (uint32_t i = 0; i < count; i++) {
		entry->slices[i] = slices[i];
		buffer_get(slices[i].buffer);
	}
	entry->slice_count = count;
	return 0;
}

static void sum_blocks(struct pg_entry *entry)
{
	uint32_t next = 0;

	for (uint32_t i = 0; i < entry->slice_count; i++)
		for (uint32_t at = 0; at < entry->slices[i].size; at += BLOCK_SIZE)
			entry->crcs[next++] = crc32c(entry->slices[i].data + at, BLOCK_SIZE);
	assert(next == entry->block_count);
}

int pg_entry_data(struct pg_entry *entry, const struct slice *slices, uint32_t count,
		  const uint32_t *crcs)
{
	if (take_slices(entry, slices, count) < 0)
		return -ENOMEM;
	entry->crcs = entry->crcs_inline;
	if (entry->block_count > PG_CRCS_INLINE) {
		entry->crcs_slice = pg_arena_take(&entry->pg->set->arena,
						  entry->block_count * (uint32_t)sizeof(*crcs));
		if (!entry->crcs_slice.buffer)
			return -ENOMEM;
		entry->crcs = (void *)entry->crcs_slice.data;
	}
	if (crcs)
		memcpy(entry->crcs, crcs, entry->block_count * sizeof(*crcs));
	else
		sum_blocks(entry);
	return 0;
}

/* Runs and checksums as the members get them. */
static int make_meta(struct pg_entry *entry)
{
	uint32_t size = pg_meta_size(entry->run_count, entry->block_count);
	uint8_t *out = entry->meta;

	if (size > PEER_META_INLINE) {
		struct slice piece = pg_arena_take(&entry->pg->set->arena, size);
		if (!piece.buffer)
			return -ENOMEM;
		entry->slices[entry->slice_count] = piece;
		entry->has_meta_slice = true;
		out = piece.data;
	}
	entry->meta_crc =
		pg_meta_encode(out, entry->runs, entry->run_count, entry->crcs, entry->block_count);
	return 0;
}

/* ---- numbering and committing ---- */

static void on_stored(struct store_append *append, int result)
{
	struct pg_entry *entry = container_of_type(append, struct pg_entry, append);
	struct pg_set *set = entry->pg->set;
	struct pg_lead *lead = entry->lead;

	pg_set_release(set);
	/* In order, but for those that are synced: being behind them means having them. */
	entry->is_stored = true;
	if (lead && result == 0) {
		lead->stored_n = max_of(lead->stored_n, append->version.n);
		pg_pace_note(&lead->pace, loop_now(set->loop), entry->sent_ns);
	}
	if (lead && result == 0 && entry->lock)
		pg_lock_let_pass(&set->locks, entry->lock);
	pg_entry_put(entry);
	if (lead && result == 0)
		pg_lead_commit(lead);
	else if (lead)
		pg_set_store_failed(set, pg_store_of(lead->pg), result);
}

int pg_entry_submit(struct pg_entry *entry, bool any_previous)
{
	struct pg_lead *lead = entry->lead;
	struct pg *pg = entry->pg;
	struct pg_set *set = pg->set;
	struct store_append *append = &entry->append;
	struct store_object object;
	int rc = make_meta(entry);

	if (rc < 0)
		return rc;
	entry->slices[entry->slice_count + entry->has_meta_slice] = entry->requests;
	append->done = on_stored;
	append->pg = pg->id;
	append->version = (struct version){.reign = lead->reign, .n = lead->next_n};
	if (store_object(pg_store_of(pg), pg->id, &append->key, &object) > 0)
		append->previous = object.version;
	append->runs = entry->runs;
	append->run_count = entry->run_count;
	append->slices = entry->slices;
	append->slice_count = entry->slice_count;
	append->crcs = entry->block_count ? entry->crcs : NULL;
	append->flags = 0;
	if (any_previous) {
		append->flags |= STORE_ANY_PREVIOUS;
		entry->flags |= PEER_ENTRY_ANY;
	}
	if (entry->flags & PEER_ENTRY_DELETE)
		append->flags |= STORE_DELETE;
	if (entry->flags & PEER_ENTRY_REPLACE)
		append->flags |= STORE_REPLACE;
	if (entry->flags & PEER_ENTRY_SYNC)
		append->flags |= STORE_SYNC;
	rc = store_append(pg_store_of(pg), append);
	if (rc < 0)
		return rc;
	pg_set_hold(set);
	entry->refs++; /* the store's; the first one is the lead's now */
	lead->next_n++;
	lead->entry_count++;
	entry->sent_ns = loop_now(set->loop);
	cds_list_add_tail(&entry->link, &lead->entries);
	pg_entry_send(entry);
	pg_set_active(pg);
	SIM_POINT(ENTRY_SUBMITTED);
	return 0;
}

/*
 * Up to where a member has everything in its log: what it acknowledged last, as it takes
 * entries in order; and to before the first that it has not acknowledged, because what it was
 * not sent it was pushed, or has from before this reign.
 */
static uint64_t member_has(struct pg_member *member)
{
	const struct pg_call *first;

	if (cds_list_empty(&member->calls))
		return UINT64_MAX;
	first = cds_list_first_entry(&member->calls, struct pg_call, link);
	return max_of(member->has_n, first->entry->append.version.n - 1);
}

/* Must it have an entry before that is committed? */
static bool is_counted(const struct pg_member *member)
{
	if (member->kind == PG_MEMBER_SEALED)
		return RULE(W3_SEALED_ACKNOWLEDGE);
	if (!RULE(S1_SHRINK_FIRST) && member->refused)
		return false;
	return RULE(W3_ALL_ACKNOWLEDGE) && member->kind == PG_MEMBER_ISR;
}

/* W3: up to where our store and everybody who must have it has everything. */
static uint64_t commit_limit(const struct pg_lead *lead)
{
	uint64_t limit = lead->stored_n;

	for (uint32_t i = 0; i < lead->member_count; i++) {
		struct pg_member *member = lead->members[i];
		if (!is_counted(member))
			continue;
		uint64_t has = member_has(member);
		limit = min_of(limit, has);
	}
	return limit;
}

bool pg_lead_is_everywhere(const struct pg_lead *lead, uint64_t n)
{
	return lead->has_settled && lead->settle_left == lead->settle_sent &&
	       commit_limit(lead) >= n;
}

/*
 * One that is to be synced waits for its own answers from everybody; those behind it do not wait
 * for it, and being in every log they are no less committed.
 */
static bool is_complete(const struct pg_entry *entry)
{
	return !RULE(F1_FUA) || !(entry->flags & PEER_ENTRY_SYNC) ||
	       (entry->is_stored && entry->unacked == 0);
}

/* From the front each time: whoever is told may begin new entries, behind all others. */
static void commit_entries(struct pg_lead *lead)
{
	struct pg_entry *entry;

again:
	lead->sync_waits = 0;
	cds_list_for_each_entry(entry, &lead->entries, link) {
		if (entry->append.version.n > lead->commit_n)
			break;
		if (!is_complete(entry)) {
			lead->sync_waits++;
			continue;
		}
		cds_list_del(&entry->link);
		lead->entry_count--;
		entry->lead = NULL;
		if (entry->committed)
			entry->committed(entry, 0);
		pg_entry_put(entry);
		goto again;
	}
}

void pg_lead_commit(struct pg_lead *lead)
{
	struct pg *pg = lead->pg;
	uint64_t limit;

	/* Below the floor fewer than min_insync copies would be all there is of it (S1). */
	if (lead->entry_count == 0 || (RULE(S1_COMMIT_FLOOR) && !pg_lead_may_commit(lead)))
		return;
	/* R4: who is marked and has it not could still be elected, until its join begins. */
	if (RULE(R4_COMMIT) && cluster_pg_may_elect(&pg->row))
		return;
	limit = commit_limit(lead);
	if (limit <= lead->commit_n && lead->sync_waits == 0)
		return;
	if (limit > lead->commit_n) {
		lead->commit_n = limit;
		lead->commit_ns = loop_now(pg->set->loop);
		SIM_POINT(ENTRY_COMMITTED);
	}
	commit_entries(lead);
	if (pg_lead_told(lead))
		store_set_commit(pg_store_of(pg), pg->id,
				 (struct version){.reign = lead->reign, .n = pg_lead_told(lead)});
}

void pg_entries_end(struct pg_lead *lead, int result)
{
	while (!cds_list_empty(&lead->entries)) {
		struct pg_entry *entry =
			cds_list_first_entry(&lead->entries, struct pg_entry, link);
		cds_list_del(&entry->link);
		lead->entry_count--;
		entry->lead = NULL;
		if (entry->committed)
			entry->committed(entry, result);
		pg_entry_put(entry);
	}
}
