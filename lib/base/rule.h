/*
 * The rules of replication, each of which can be switched off to see whether the tests notice.
 *
 * The one line that decides by a rule asks for it: `if (RULE(W1_OLD_EPOCH) && epoch < pg->epoch)`.
 * In normal builds RULE() is the constant true and costs nothing. The simulator is built with
 * SHEEPFOLD_MUTATIONS: there it asks a table, which a run changes before it begins. A rule without
 * its RULE() line cannot be proved to matter: put it at one line only, the one that decides.
 *
 * SIM_POINT() names a place in the protocol, between two steps of which a crash must not come
 * between, or is worth to. In the simulator's build a directed schedule acts there; else it is
 * nothing.
 *
 * docs/internals/simulator.md tells how both are used.
 */
#ifndef BASE_RULE_H
#define BASE_RULE_H

#include <stdbool.h>
#include <stddef.h>

/* clang-format off */
#define RULE_LIST(X) \
	/* writes, versions, reads */ \
	X(W1_OLD_EPOCH, "messages of an older epoch are refused, by who told its tail above all (T1)") \
	X(W1_LATER_EPOCH, "a message of a later epoch waits for the map") \
	X(W1_ORDER, "a member applies entries in order") \
	X(W1_RESEND, "what is not acknowledged is sent again when the epoch changes") \
	X(W2_PREVIOUS_VERSION, "an entry is applied only over the version that it names") \
	X(W3_ALL_ACKNOWLEDGE, "a write is acknowledged when every member in sync has it") \
	X(W3_SEALED_ACKNOWLEDGE, "and every joining member whose expand is proposed") \
	X(W4_READS_WAIT, "a read waits for the writes before it that it overlaps: no uncommitted data") \
	/* leases */ \
	X(L1_LEASE, "a primary serves reads only while every member renewed its lease") \
	X(L1_JOINING, "joining members with an undecided expand renew the lease, too") \
	X(L1_INDEX, "a beacon's acknowledgement counts when the log index it names is applied here") \
	X(L1_PROMISE, "an acknowledgement counts only if what it promises covers the lease") \
	X(L2_NO_ACK_AFTER_PROPOSAL, "who proposed a takeover acknowledges no beacon of that node") \
	X(L2_GRACE, "a takeover after silence waits for grace") \
	X(L3_FENCE, "a primary made by another command waits until the old one cannot serve") \
	X(L4_CONFIRM, "without leases a beacon that was sent after it confirms each read") \
	X(L4_NO_BLAME, "a node that did not run itself blames nobody for silence") \
	X(L5_INCARNATION, "a death never hits a later incarnation") \
	/* shrink, floor, takeover */ \
	X(S0_CONDITION, "commands that come late or twice do nothing") \
	X(S1_SHRINK_FIRST, "writes that a member missed complete after its shrink is applied") \
	X(S1_FLOOR, "the members in sync are never fewer than min_insync") \
	X(S1_COMMIT_FLOOR, "nothing is committed by fewer than min_insync members") \
	X(T1_ALL_TAILS, "a new primary serves when every member has told its tail") \
	X(T2_SETTLE, "objects that a tail names are settled before they are served") \
	X(T2_OWN_CONTENT, "an object in doubt is settled with one store's content and requests") \
	X(T2_COMMIT_POINT, "no commit point is told before all that is in doubt is committed") \
	X(T2_TAIL_OF_JOINER, "a joining store gets the tail of its primary before its expand") \
	X(T2_TAIL_KEPT, "commit points and tails survive checkpoint and cleaner") \
	/* join and recovery */ \
	X(J1_JOIN_INDEX, "expand names the join that it ends") \
	X(J1_NEW_INCARNATION, "a new incarnation ends the join") \
	X(J2_COMPARE_ALL, "at a joining member each object is missing until it was compared") \
	X(J2_SKIP_MISSING, "entries of objects that are missing there are not sent to it") \
	X(J2_UNDER_LOCK, "an object is compared and pushed under its lock") \
	X(J3_MISSING_FIRST, "an object is recorded as missing before its first block is pushed") \
	X(J4_COUNT_FIRST, "the primary counts a joining member before it asks for its expand") \
	X(J4_SYNC, "a joining member syncs before its expand, and acknowledges only what is synced") \
	X(J4_DIGEST, "digests are compared before the expand") \
	X(J5_MISSING_NOT_ABSENT, "a missing object is fetched and never deleted elsewhere for it") \
	X(J5_NOT_PROMOTED, "a member with missing objects does not lead and does not count") \
	X(J5_DELETE_ABSENT, "what is absent at the primary, deleted in the meantime, is deleted at the joiner") \
	X(J6_PUSH_VERSION, "a push never overwrites a newer write") \
	/* restart and power */ \
	X(R1_REGISTERED_FIRST, "a store answers nothing before its registration is applied") \
	X(R1_GRACE_FROM_REGISTRATION, "its grace counts from its registration") \
	X(R1_NEW_EPOCH, "a primary that restarts serves only in a new epoch") \
	X(R2_INCARNATION, "an older or a second start of an incarnation is not in sync") \
	X(R2_BLANK, "a blank store is not in sync") \
	X(R3_UNCLEAN_MARK, "a store that is not proved clean is marked") \
	X(R3_MARKED_NOT_LEADING, "a marked member does not lead while an unmarked one is listed") \
	X(R4_MOST_ADVANCED, "after a total power loss the most advanced member leads") \
	X(R4_NO_JOINER, "a member that has begun a join cannot be elected") \
	X(R4_LOSS_EPOCH, "an election raises the loss epoch") \
	X(R4_COMPARE, "after a total power loss the others are compared with the leader") \
	X(R4_WAIT, "an election waits for those that may be more advanced") \
	X(R4_COMMIT, "nothing is committed while a member that lacks it could be elected") \
	X(R4_FLUSH, "no FLUSH ends while a member that it does not reach could be elected") \
	/* retry */ \
	X(Q1_EXECUTED, "a request that was executed is not executed again") \
	X(Q1_ROWS_FORGOTTEN, "what a member remembers of an object that is settled is forgotten") \
	X(Q1_ROWS_TAKEN, "a member takes the primary's requests of an object that is settled") \
	X(Q1_TABLE_COPIED, "a joining member gets the table of requests before its expand") \
	X(Q1_LATE, "a request below its session's lowest is refused") \
	X(Q1_COMMITTED, "a recognised write is answered when it is committed in this epoch") \
	X(Q2_OLD_SESSION, "a new session ends the older ones of its gateway") \
	/* FLUSH */ \
	X(F1_ALL_SYNCED, "FLUSH waits for the sync of every member in sync") \
	X(F1_SYNC_EPOCH, "a member in another epoch refuses a sync") \
	X(F1_REPEAT, "FLUSH repeats where an epoch changed") \
	X(F1_LOSS_EPOCH, "FLUSH fails when a loss epoch rose") \
	X(F1_FUA, "a write with FUA is acknowledged when every member has synced it") \
	/* ownership */ \
	X(O1_GENERATION, "an old owner's write is refused") \
	X(O1_NO_RETAKE, "an old connection does not retake ownership") \
	X(O1_FENCE, "a new owner waits until no older write can land") \
	/* garbage */ \
	X(M2_NEXT_ID, "an object is garbage only below the next volume id of the map that judges") \
	/* the store */ \
	X(D0_ONE_LOG, "a power cut leaves a prefix of each placement group") \
	X(D1_MOVE_VOID, "a cleaner's move is void where the block has gone elsewhere") \
	X(D1_HEAL_VERSION, "a heal happens at equal version") \
	X(D2_SYNC_BEFORE_LEAVING, "a segment is synced before it is left") \
	X(D2_CHECKPOINT_SYNCS, "a checkpoint syncs the log first") \
	X(D2_REUSE_AFTER_CHECKPOINT, "a segment is reused after a checkpoint that no longer needs it") \
	X(D3_CORRUPT_IS_NO_TAIL, "a broken batch below a synced one is damage, not the end of the log") \
	X(D3_BLOCK_SUMS, "a block is read only with the right sum") \
	X(D3_SYNC_WAITS, "a sync is answered when the disk has said so") \
	X(D3_FAIL_STOP, "the first error of the disk stops the store") \
	/* the log on corosync */ \
	X(G1_PREVIOUS, "an entry is appended only behind the entry that its leader has before it") \
	X(G1_OLD_TERM, "entries of an older term than one that was promised are refused") \
	X(G1_ACK_TERM, "an acknowledgement counts in its own term only") \
	X(G1_OWN_TERM, "only entries of the leader's own term commit by being counted") \
	X(G1_SYNC, "what is acknowledged is synced") \
	X(G1_PROMISE_SYNC, "a promise is on disk before it is told") \
	X(G1_ONE_PROMISE, "a term is promised to one member only") \
	X(G1_VOTE_ONCE, "a vote that was not told when its term was over is never told") \
	X(G1_BEST_LOG, "a term is promised only to who has as much of the log") \
	X(G1_MAJORITY, "a majority of the voters commits, not of those who are here") \
	X(G1_COMMIT_MATCH, "what the leader calls committed is so here as far as the logs are known to be equal") \
	X(G2_LOG_ID, "a voter is a copy of the log, not a node") \
	X(G2_DOUBLE, "two processes with one copy of the log are one voter") \
	X(G2_REGRESSED, "a copy that has less than it was seen to have does not count") \
	X(G2_FOUNDED, "a start is ready when its disk knows that somebody has joined") \
	X(G2_TOLD_AHEAD, "what a copy acknowledged is remembered by who is behind, too") \
	X(G2_ONE_AT_A_TIME, "voters change one at a time") \
	X(G2_OWN_TERM_FIRST, "voters change only when an entry of the leader's term is committed") \
	X(G2_FIRST_LOG, "nobody makes a log while another member may have one") \
	X(G3_TWO_WITNESSES, "a process has ended when CPG lost it and its connections were closed") \
	X(G3_READY, "a start is ready when what the leader appended after it came is committed")

/*
 * Points: what has just happened.
 */
#define SIM_POINT_LIST(X) \
	X(ENTRY_SUBMITTED, "a primary gave an entry to its store and to the members") \
	X(ENTRY_COMMITTED, "an entry is committed, nobody was told") \
	X(ENTRY_APPLIED, "a member has an entry in its log, and has not acknowledged it") \
	X(TAKEOVER_PROPOSED, "a member asked for a takeover") \
	X(TAIL_TOLD, "a member told its tail") \
	X(SETTLE_ONE, "one object in doubt was written again here, at no other member") \
	X(SETTLED, "all that was in doubt is committed") \
	X(LEADS, "a store is to lead, and asks for tails") \
	X(FENCED, "a new primary waits for the old one's silence") \
	X(SERVING, "a new primary begins to serve") \
	X(WAITING, "a primary has too few members in sync to serve") \
	X(LEAVING, "a primary stops serving, for another one") \
	X(PUSH_HALF, "some blocks of a push have come, its version has not") \
	X(PUSH_DONE, "a push ended") \
	X(SEAL_COUNTED, "a joining member is counted, and was not told to seal") \
	X(SEALED, "a joining member has synced, its expand is not proposed") \
	X(EXPAND_PROPOSED, "an expand is proposed and not decided") \
	X(SHRINK_PROPOSED, "a shrink is proposed and not decided") \
	X(BEACON_ACKNOWLEDGED, "a beacon was acknowledged") \
	X(REGISTERED, "a registration is applied") \
	X(CHECKPOINT_WRITTEN, "a checkpoint is written and not yet durable") \
	X(SEGMENT_LEFT, "a segment was left") \
	X(ELECTED, "a marked member asked to be elected") \
	X(LOSS_DECLARED, "a primary is about to tell that blocks are lost")
/* clang-format on */

enum rule {
#define RULE_ENUM(name, text) RULE_##name,
	RULE_LIST(RULE_ENUM)
#undef RULE_ENUM
		RULE_COUNT
};

enum sim_point {
#define SIM_POINT_ENUM(name, text) SIM_POINT_##name,
	SIM_POINT_LIST(SIM_POINT_ENUM)
#undef SIM_POINT_ENUM
		SIM_POINT_COUNT
};

#ifdef SHEEPFOLD_MUTATIONS

struct rule_row {
	const char *name, *text;
	bool is_off;
	bool is_asked; /* some line asked for it in this process: it is built in */
};
extern struct rule_row rule_table[RULE_COUNT];
/* False: no such rule. Any case. */
bool rule_switch_off(const char *name);
void rule_switch_all_on(void);

static inline bool rule_is_on(enum rule rule)
{
	rule_table[rule].is_asked = true;
	return !rule_table[rule].is_off;
}
#define RULE(name) rule_is_on(RULE_##name)

struct sim_point_row {
	const char *name, *text;
	unsigned long hits;
};
extern struct sim_point_row sim_point_table[SIM_POINT_COUNT];
/* SIM_POINT_COUNT: no such point. Any case. */
enum sim_point sim_point_by_name(const char *name);
/* Called at each hit of any point, with the caller's log current, that says where. NULL: nobody. */
extern void (*sim_point_hook)(enum sim_point point);
void sim_point_hit(enum sim_point point);
#define SIM_POINT(name) sim_point_hit(SIM_POINT_##name)
/* A point that is about something: whoever judges it needs to know about what. Called after sim_point_hook. */
extern void (*sim_subject_hook)(enum sim_point point, const void *subject);
void sim_subject_hit(enum sim_point point, const void *subject);
#define SIM_POINT_OF(name, subject) sim_subject_hit(SIM_POINT_##name, subject)

#else

#define RULE(name)		    ((void)RULE_##name, true)
#define SIM_POINT(name)		    ((void)SIM_POINT_##name)
#define SIM_POINT_OF(name, subject) ((void)SIM_POINT_##name, (void)(subject))

#endif

#endif
