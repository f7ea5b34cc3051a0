/*
 * Entries, and the messages that carry them: entry.c, send.c.
 */
#ifndef PG_ENTRY_H
#define PG_ENTRY_H

#include "sheep/pg/lead.h"

/* One APPEND to one member. */
struct pg_call {
	struct net_call call;
	struct pg_set *set;
	struct pg_entry *entry;
	struct pg_member *member; /* NULL: it is none any more */
	struct cds_list_head link;
	uint64_t after;
	bool is_out;
	bool is_needed; /* its answer, for an entry with FUA to end */
	struct slice slices[PG_SLICES + 1];
};

struct pg_entry {
	struct cds_list_head link; /* in the lead, until committed */
	struct pg *pg;
	struct pg_lead *lead; /* NULL: it ended */
	struct store_append append;
	uint32_t refs;	  /* the store, each call, the lead */
	uint32_t unacked; /* calls that are needed, and not acknowledged */
	bool is_stored;
	uint32_t flags; /* enum peer_entry_flags */
	uint64_t generation;
	uint64_t sent_ns;
	/* Once: 0, or why nobody knows whether it will be committed. NULL: nobody waits. */
	void (*committed)(struct pg_entry *entry, int result);
	void *owner;
	struct pg_lock *lock;	/* of the owner: lets barriers pass once our store has the entry */
	struct store_run *runs; /* inline, or from malloc(3) */
	uint32_t run_count;
	uint32_t *crcs; /* inline, or in crcs_slice */
	uint32_t block_count;
	uint32_t meta_crc;
	uint32_t slice_count; /* of data; the meta may follow, and then the requests */
	bool has_meta_slice;
	struct slice requests; /* of its object, as members get them */
	struct slice crcs_slice;
	struct slice slices[PG_SLICES + 2];
	struct store_run runs_inline[PG_RUNS_INLINE];
	uint32_t crcs_inline[PG_CRCS_INLINE];
	uint8_t meta[PEER_META_INLINE];
};

/* ---- entry.c ---- */

/* NULL: no room now; what waits is tried again when there is. */
struct pg_entry *pg_entry_new(struct pg_lead *lead);
/* One reference less; the last one frees it. */
void pg_entry_put(struct pg_entry *entry);
/* Give up one that was not submitted. */
void pg_entry_drop(struct pg_entry *entry);
/* 0 or -ENOMEM. */
int pg_entry_runs(struct pg_entry *entry, const struct store_run *runs, uint32_t count);
/*
 * The data of the data runs: takes references; slices without a buffer, or that do not hold whole
 * blocks, are copied. @crcs: of each block, or NULL. 0 or -ENOMEM.
 */
int pg_entry_data(struct pg_entry *entry, const struct slice *slices, uint32_t count,
		  const uint32_t *crcs);
/* All slices of it, as they go to members. */
static inline uint32_t pg_entry_slices(const struct pg_entry *entry)
{
	return entry->slice_count + entry->has_meta_slice + (entry->requests.buffer != NULL);
}
/*
 * Number it, append it to our store and send it to the members. append's key, family, session,
 * number and lowest are set. Negative: not done, the caller drops it.
 */
int pg_entry_submit(struct pg_entry *entry, bool any_previous);
/* Commit what can be. */
void pg_lead_commit(struct pg_lead *lead);
/* Our part of a lead that ends: nobody knows what becomes of its entries. */
void pg_entries_end(struct pg_lead *lead, int result);

/* ---- send.c ---- */

/* To all members that want it. */
void pg_entry_send(struct pg_entry *entry);
/* Send again what is not acknowledged, when everything has come back. */
void pg_member_resend(struct pg_member *member, uint64_t now);
/* Tell it the commit point by a message of its own. */
void pg_commit_tell(struct pg_member *member, uint64_t commit_n);
/* Forget what was to be sent to it. */
void pg_member_forget(struct pg_member *member);

#endif
