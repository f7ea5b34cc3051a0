/*
 * What a seat has while its store is the primary: its members, and its place in the order.
 * lead.c, garbage.c.
 */
#ifndef PG_LEAD_H
#define PG_LEAD_H

#include "sheep/pg/set.h"

enum pg_member_kind {
	PG_MEMBER_ISR,	   /* must have an entry before it is committed */
	PG_MEMBER_FILLING, /* is sent what it is known to need */
	PG_MEMBER_SEALED,  /* joining, and counted like the ISR from here on (J4) */
	PG_MEMBER_MARKED,  /* listed, marked, not there: nothing is sent */
};

/* How long acknowledging takes, smoothed. */
struct pg_pace {
	uint64_t latency_ns;
	uint64_t noted_ns; /* 0: never */
};

/* A store that was removed because it was slow. */
struct pg_exile {
	uint32_t store;
	uint32_t times;
	uint64_t until_ns; /* it is not filled before */
};

/* A store that is away and may have objects of the PG. */
struct pg_absence {
	uint32_t store;
	uint64_t since_ns;
};

/* Listed, of the target, or one of them before. */
#define PG_ABSENCES_MAX (PG_MEMBERS_MAX + LOG_COPIES_MAX + PG_FORMERS_MAX)

struct pg_member {
	struct pg_lead *lead;
	uint32_t store, node;
	enum pg_member_kind kind;
	uint64_t has_n;		    /* the highest entry that it has acknowledged */
	uint64_t after_n;	    /* the last entry put into its stream */
	struct cds_list_head calls; /* APPENDs that it has not acknowledged, by n */
	uint32_t call_count;
	uint32_t out;	   /* of them, those that are with the link */
	bool is_broken;	   /* some came back without an answer: nothing new is sent before them */
	uint64_t retry_ns; /* then from when on it is tried again */
	uint32_t retries;
	uint64_t progress_ns; /* when it last acknowledged something, or had nothing to */
	int refused;	      /* why it must leave; 0: it need not */
	uint64_t told_n;      /* commit point that it was told last */
	uint64_t credit;      /* bytes, as it reported last */
	struct pg_pace pace;
	uint64_t slow_ns; /* since when it is far slower than the others; 0: it is not */
	bool is_evicted;  /* its removal for that is proposed */
	/* its answer to COLLECT */
	bool has_answered, is_asked;
	uint64_t ask_ns;
	struct pg_filler *filler;
};

struct pg_lead {
	UT_hash_handle hh;
	uint32_t id; /* of the PG */
	struct pg *pg;
	uint64_t reign;
	uint64_t next_n;   /* of the next entry */
	uint64_t stored_n; /* our own store has everything up to here */
	uint64_t commit_n;
	uint64_t commit_ns;	      /* when it last rose */
	struct cds_list_head entries; /* not committed, by n */
	uint32_t entry_count;
	uint32_t sync_waits; /* entries in all logs that are not synced everywhere */
	struct pg_member *members[PG_MEMBERS_MAX]; /* all but ourselves */
	uint32_t member_count;
	struct cds_list_head works; /* client operations */
	uint32_t work_count;
	struct pg_session *sessions;		  /* uthash */
	uint64_t shrink_ns, handover_ns, join_ns; /* last proposals */
	uint64_t leaving_ns;			  /* since when it is LEAVING; 0: not seen yet */
	uint64_t undecided_ns,
		undecided_index; /* when the log did not decide that, and the map's */
	uint64_t tick_ns;
	struct pg_pace pace; /* of our own store */
	uint64_t slow_ns;    /* last proposal to remove a slow member */
	struct pg_exile exiles[PG_MEMBERS_MAX];
	uint32_t exile_count;
	uint64_t members_epoch; /* pg_lead_members() has run for it */
	bool needs_members;	/* it ran out of memory */
	/* takeover */
	struct pg_plan plan;
	struct cds_list_head settles;
	uint32_t settle_left; /* objects not yet committed: no commit point is told before */
	uint32_t settle_running;
	uint32_t settle_sent; /* of settle_left, those that have their entry */
	uint64_t collect_ns;  /* when the members were asked */
	bool has_own_tail;    /* in the plan */
	bool has_settled;     /* pg_settle_start() has run */
	uint64_t fence_ns;    /* serve from then on; 0: no fence */
	uint64_t fence_index, fence_ask_ns;
	bool is_fence_asked, is_fence_confirmed;
	/* objects of ours that are missing */
	struct cds_list_head heals;
	uint32_t heal_count;
	uint64_t heal_told_ns; /* when a vain one was logged last */
	uint64_t vain_ns;      /* when the last one ended in vain */
	struct pg_absence absences[PG_ABSENCES_MAX];
	uint32_t absence_count;
	struct object_key heal_cursor;
	bool has_heal_cursor;
	/* garbage */
	struct object_key garbage_cursor;
	bool has_garbage_cursor, is_garbage_due;
	uint32_t garbage_running;
};

/* ---- lead.c ---- */

int pg_lead_begin(struct pg *pg);
void pg_lead_end(struct pg *pg, int result);
/* It is ending: whoever is granted a lock now does nothing with it. */
static inline bool pg_lead_is_over(const struct pg_lead *lead)
{
	return lead->pg->lead != lead;
}
/* Members, kinds and links as the row has them now. 0 or -ENOMEM. */
int pg_lead_members(struct pg_lead *lead);
struct pg_member *pg_lead_member(const struct pg_lead *lead, uint32_t store);
bool pg_lead_tick(struct pg_lead *lead, uint64_t now);
/* In sync, but down, or it should leave. */
bool pg_member_is_lost(const struct pg_member *member);
/* A member in sync is lost: if it cannot be spared, only a joining one can end the wait (S1). */
bool pg_lead_is_short(const struct pg_lead *lead);
/* Enough members are in sync: what they all have may be acknowledged (S1, W3). */
bool pg_lead_may_commit(const struct pg_lead *lead);
/* Whatever is in doubt, entries up to @n too, is in the logs of all members in sync. */
bool pg_lead_is_everywhere(const struct pg_lead *lead, uint64_t n);
/* The commit point that may be told (T2). */
uint64_t pg_lead_told(const struct pg_lead *lead);
/* What is held against it may pass by itself: it was late, or its node silent. */
static inline bool pg_member_is_late(const struct pg_member *member)
{
	return member->refused == -ETIMEDOUT || member->refused == -EHOSTDOWN;
}
/* A member must go: it is proposed, now and again. */
void pg_member_refuse(struct pg_member *member, int why);

/* ---- absent.c ---- */

/* It is up, and nothing is held against it that makes what it says of its copies worthless. */
bool pg_member_may_be_asked(const struct pg_member *member);
/* The row is about to change to @row: who loses its part in it? */
void pg_formers_note(struct pg *pg, const struct cluster_pg *row);
/* One that is up, and may have kept its copy. */
bool pg_former_may_be_asked(const struct pg *pg, const struct pg_former *former);
/* Has one lost its part less than @age_ns ago? */
bool pg_former_is_younger(const struct pg *pg, uint64_t age_ns);
/* Look who is away by now. */
void pg_absences_note(struct pg_lead *lead);
/* Is somebody away who may have objects of ours, and not yet for @age_ns? */
bool pg_absence_is_younger(struct pg_lead *lead, uint64_t age_ns);

/* ---- slow.c ---- */

/* Something sent at @sent_ns was acknowledged. */
void pg_pace_note(struct pg_pace *pace, uint64_t now, uint64_t sent_ns);
/* True: somebody is slow. */
bool pg_slow_tick(struct pg_lead *lead, uint64_t now);
/* The member is not listed any more. */
void pg_slow_gone(struct pg_lead *lead, const struct pg_member *member);
/* May this joining store be filled now? */
bool pg_slow_may_join(struct pg_lead *lead, uint32_t store, uint64_t now);

/* ---- garbage.c ---- */

/* True: there may be more. */
bool pg_garbage_tick(struct pg_lead *lead);

#endif
