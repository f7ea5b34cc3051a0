/*
 * The agreement on corosync, inside (agree.h). Raft (Ongaro and Ousterhout 2014) with CPG's views in place
 * of its timeouts: its election restriction, its matching of logs by (term, index) of the entry
 * before, its rule that only entries of the leader's own term commit by being counted, its change of
 * one voter at a time.
 *
 *   agree.c          life, inputs, the timer, the roles
 *   agree_view.c     who is in the view
 *   agree_elect.c    SEEK and ASK: states, promises, votes
 *   agree_first.c    the first log of all
 *   agree_seen.c     copies that have less than they had
 *   agree_lead.c     LEAD: proposals become entries, who is behind gets what it needs
 *   agree_voters.c   LEAD: who votes, who joins, who has ended
 *   agree_follow.c   FOLLOW: append, acknowledge, ask for what is missing
 *   agree_commit.c   counting acknowledgements, applying what is committed
 *   agree_log.c      the entries in memory
 *   agree_disk.c     frames; the next file; images
 *   agree_restore.c  reading them at the start
 *   agree_send.c     what is to be said, in what order, when CPG takes it
 *   agree_outbox.c   our own proposals
 *   agree_nodes.c    the table of nodes, ends
 *
 *   OUT --view--> SEEK --the best log of a majority is ours--> ASK --majority promised--> LEAD
 *    ^             ^ ^                                          |                          |
 *    |             | +----- refused, too late, a view ----------+                          |
 *    |             +------- majority or leader gone, a higher term ----------+-------------+
 *    |             |                                                         |
 *    |             +--entries of a leader--> FOLLOW -------------------------+
 *    +--no view--- any                any --cannot go on--> STOPPED
 *
 * What is to be sent is kept as wishes (want_*), not as a queue: when CPG takes no more, the latest state
 * of a wish is what goes out later.
 */
#ifndef ENGINE_AGREE_PRIV_H
#define ENGINE_AGREE_PRIV_H

#include <urcu/list.h>

#include "lib/base/assert.h"
#include "lib/base/rule.h"
#include "lib/base/size.h"
#include "sheep/engine/agree.h"

#define AGREE_BEAT_NS	    (250 * NS_PER_MS)  /* a leader that has nothing to say says that */
#define AGREE_SILENCE_NS    (1250 * NS_PER_MS) /* a leader that did not is given up */
#define AGREE_ROUND_NS	    (300 * NS_PER_MS)  /* for states, votes; then once more */
#define AGREE_AGAIN_NS	    (500 * NS_PER_MS)  /* until a request for help is repeated */
#define AGREE_HELP_NS	    (3 * NS_PER_S) /* entries are kept for who is helped, as long as it gets on */
#define AGREE_PROPOSE_NS    (1000 * NS_PER_MS) /* until a proposal is */
#define AGREE_BLOCKED_NS    (5 * NS_PER_MS)
#define AGREE_LEAVE_NS	    (1000 * NS_PER_MS)
#define AGREE_TWICE_NS	    (5 * NS_PER_S)     /* until a second start of a node gives up */
#define AGREE_FIRST_NS	    (1000 * NS_PER_MS) /* a first view stands so long: votequorum may be late */
#define AGREE_WITNESS_NS    (2 * NS_PER_S)     /* between the two witnesses of a death */
#define AGREE_NO_QUORUM_NS  (3 * NS_PER_S)     /* a leader without votequorum gives up */
#define AGREE_WAIT_LOG_NS   (10 * NS_PER_S)

#define AGREE_COMPACT_BYTES (8u << 20)
#define AGREE_FRAME_MAX	    (1u << 20) /* of entries in a frame, unless one is larger */
#define AGREE_FLIGHT_MAX    (1u << 20) /* bytes of our proposals under way at a time */
#define AGREE_SEEN_MAX	    64u	       /* logs whose promises and acknowledgements we remember */
#define AGREE_ENDS_MAX	    256u

enum agree_role {
	AGREE_OUT,
	AGREE_SEEK,
	AGREE_ASK,
	AGREE_FOLLOW,
	AGREE_LEAD,
	AGREE_STOPPED,
	AGREE_ROLE_COUNT
};

struct agree_entry {
	uint64_t term, index;
	struct uuid node;
	uint64_t start, sequence;
	uint32_t type, size;
	uint8_t body[];
};

struct agree_voter {
	struct uuid node;
	uint64_t log_id;
};

struct agree_voters {
	uint32_t count;
	struct agree_voter rows[CPG_VOTERS_MAX];
};

/* A row of the table of nodes: what the log says of the latest start of one. */
struct agree_node {
	struct uuid node;
	uint64_t start, sequence;
	uint32_t ended; /* 0, or as struct cpg_node says */
};

struct agree_nodes {
	struct agree_node *rows;
	uint32_t count, room;
};

/* A position in a log: the larger one has what the smaller one has, or better. */
struct agree_point {
	uint64_t term, index;
};

static inline bool point_is_before(struct agree_point a, struct agree_point b)
{
	return a.term < b.term || (a.term == b.term && a.index < b.index);
}

/* A member of the view. */
struct agree_peer {
	struct cds_list_head link;
	struct agree_id id;
	uint64_t number; /* in the order in which they came */
	bool is_known;	 /* it has said who it is */
	bool is_heard;	 /* its state of this view, or round, is here */
	bool is_skipped; /* it was to ask and did not */
	bool said_bye;
	/* as it said */
	struct uuid node, log, wanted;
	uint64_t start, log_id, term, commit;
	struct agree_point last;
	uint32_t flags, voter_count;
	void *info;
	uint32_t info_size;
	/* of our term */
	bool has_voted;
	uint64_t acked;
	/* we lead, it is behind */
	bool is_behind;
	uint64_t next;	    /* entry that it gets next */
	uint64_t flying;    /* through here is on its way to it */
	uint64_t helped_ns; /* when it last said what it needs, or got on */
	uint64_t asked_ns;  /* when it was sent last */
	bool gets_image;
	uint64_t image_offset;
};

/* What we heard of a copy of the log: a disk that has less than that is not that copy. */
struct agree_seen {
	uint64_t log_id;
	uint64_t promised;
	struct agree_point acked;
	/* Above what we can match: in that term it had the leader's log through there. */
	struct agree_point told;
	bool is_regressed;
};

/* The end of a start, known and not yet in the log. */
struct agree_end {
	struct uuid node;
	uint64_t start;
	enum engine_end how;
	bool is_said;
};

/* A process that CPG lost, or one that closed its connections: two halves of a proof. */
struct agree_suspect {
	struct uuid node;
	uint64_t start;
	bool is_lost, is_closed;
	uint64_t lost_ns, closed_ns;
};

struct agree_proposal {
	struct cds_list_head link;
	uint64_t sequence;
	uint32_t size;
	uint8_t body[];
};

/* Memory that grows. */
struct agree_bytes {
	uint8_t *data;
	size_t size, room;
};

struct agree_log {
	/* entries[0] is the one behind base */
	struct agree_point base;
	struct agree_entry **entries;
	size_t count, room;
	size_t bytes;
	uint64_t commit;	 /* known to be committed */
	uint64_t applied;	 /* and told, or taken into our tables */
	uint64_t user_index;	 /* of the last command told */
	uint64_t saved, durable; /* given to the disk; synced */
	uint32_t voter_entries;	 /* above `commit` */
};

struct agree_disk {
	bool is_writing, is_next; /* a write is under way; to the next file */
	bool wants_next;	  /* the next file is to be made */
	bool is_founded;	  /* a start that reads it knows that a JOIN was committed */
	bool flying_founded;
	uint64_t flying; /* through this entry */
	uint64_t flying_promise, flying_log_id;
	uint64_t file, frames; /* the log file in use, its frames */
	uint64_t written;      /* bytes in it */
	struct agree_bytes frame;
	/* the image that HEAD names */
	uint64_t image_file, image_size;
	struct agree_point image;
	uint32_t image_crc;
	/* the one that is being written */
	bool is_imaging, is_received;
	uint64_t newest_image; /* highest number that was used */
	uint8_t *image_data;
	uint64_t image_data_size;
	uint32_t image_data_crc;
	struct agree_point image_point;
};

struct agree {
	struct agree_ops ops;
	void *context;
	struct random *random;
	struct engine_member self;
	struct uuid wanted; /* options.log */
	uint64_t compact_bytes, snapshot_again_ns;

	enum agree_role role;
	bool wants_ready; /* as soon as our disk knows that somebody has joined */
	bool is_ready, is_leaving, has_left, has_failed, has_restored;
	bool votequorum, told_quorum;
	uint64_t leave_at_ns;

	/* the log */
	struct uuid log_uuid;
	uint64_t log_id;      /* of our copy; 0: none that is on disk */
	uint64_t next_log_id; /* of the next file; 0: as before */
	struct agree_log log;
	struct agree_disk disk;
	struct agree_voters voters; /* as committed */
	struct agree_nodes nodes;

	/* what agree_restore() found, until agree_start() */
	uint8_t *restored;
	size_t restored_size, restored_user;
	uint64_t restored_index, restored_commit;

	/* terms */
	uint64_t term;	    /* highest known */
	struct uuid leader; /* of `term`, if known */
	uint64_t promised;  /* term */
	struct uuid promised_to;
	uint64_t promise_durable; /* term */
	bool wants_vote, vote_is_granted;
	struct uuid vote_for;

	/* the view */
	struct cds_list_head peers;   /* ourselves among them */
	struct agree_peer *me, *head; /* ourselves; the leader we follow */
	struct agree_id self_id;
	uint64_t view_digest, peer_number, told_members;
	uint64_t granted_until_ns; /* somebody else was promised a term lately */
	uint64_t round_ns;	   /* end of the round of SEEK or ASK */
	uint32_t rounds;	   /* without a leader */
	uint64_t born_ns;  /* the view, and votequorum's word, are old enough for a first log */
	uint64_t heard_ns; /* of the leader */
	uint64_t twice_ns; /* another start of our node is here since; 0: none */
	uint64_t wait_log_ns, foreign_log_ns, full_log_ns;
	uint64_t no_quorum_ns; /* since when votequorum says no */

	/* following */
	uint64_t match; /* our log is the leader's through here, in this term */
	uint64_t need_ns, told_ack;
	uint64_t counted; /* while acknowledgements are counted: the entry */
	struct agree_bytes part;
	struct cpg_part part_head;

	/* leading */
	struct agree_nodes nodes_end; /* with what is not committed */
	uint64_t sent, beat_ns, term_index;
	uint8_t *image;
	uint64_t image_size;
	uint32_t image_crc;
	struct agree_point image_point;

	/* sending */
	bool is_blocked, is_inside, bye_came, wants_turn;
	uint64_t blocked_ns;
	bool want_state, want_ask, want_ack, want_need, want_received, want_bye, want_beat;
	struct cpg_received received;
	uint8_t *out; /* CPG_MESSAGE_MAX bytes */

	/* our proposals */
	struct cds_list_head proposals;
	struct agree_proposal *unsent; /* the first one that is not in flight; NULL: none */
	uint64_t next_sequence, sent_sequence;
	size_t proposal_bytes, flying_bytes;
	uint32_t proposal_count;
	uint64_t proposed_ns; /* when the flight began, or progressed */

	struct agree_seen seen[AGREE_SEEN_MAX];
	uint32_t seen_count, seen_next;
	struct agree_end ends[AGREE_ENDS_MAX];
	uint32_t end_count;
	struct agree_suspect suspects[AGREE_ENDS_MAX];
	uint32_t suspect_count;
	struct uuid forgotten[AGREE_ENDS_MAX];
	uint32_t forgotten_count;

	struct agree_stats stats;
};

/* ---- agree.c ---- */

void agree_enter(struct agree *agree, enum agree_role next, const char *why);
/* Nothing works after it but agree_leave(). */
void agree_fail(struct agree *agree, const struct error *err);
void agree_fail_text(struct agree *agree, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
bool agree_is_open(const struct agree *agree);
uint64_t agree_now(const struct agree *agree);
/* Something higher than `term` was heard. */
void agree_see_term(struct agree *agree, uint64_t term, const char *why);
/* A term begins for us: nobody has voted or acknowledged in it. */
void agree_set_term(struct agree *agree, uint64_t term);
void agree_become_ready(struct agree *agree);
/* agree_timer(), as soon as may be. */
void agree_turn_soon(struct agree *agree);

/* ---- agree_view.c ---- */

void agree_take_view(struct agree *agree, const struct agree_view *view);
struct agree_peer *agree_peer_by_id(struct agree *agree, struct agree_id id);
struct agree_peer *agree_peer_by_node(struct agree *agree, const struct uuid *node);
void agree_peers_done(struct agree *agree);
void agree_tell_members(struct agree *agree);
void agree_tell_quorum(struct agree *agree);
/* Another start of its node stands before it. */
bool agree_peer_is_double(const struct agree *agree, const struct agree_peer *peer);
/* Does this one's word count? */
typedef bool agree_counts(const struct agree *agree, const struct agree_peer *peer);
bool agree_has_majority(struct agree *agree, const struct agree_voters *voters,
			agree_counts *counts);
bool agree_has_all(struct agree *agree, const struct agree_voters *voters, agree_counts *counts);
bool agree_view_has_majority(struct agree *agree);

/* ---- agree_elect.c ---- */

void agree_seek(struct agree *agree, const char *why);
uint64_t agree_patience(const struct agree *agree); /* how long a round of it lasts */
void agree_seek_timer(struct agree *agree);
void agree_consider(struct agree *agree); /* is it for us to ask? */
void agree_count_votes(struct agree *agree);
void on_state(struct agree *agree, struct agree_peer *peer, const struct cpg_message *message,
	      const uint8_t *body, size_t size);
void on_ask(struct agree *agree, struct agree_peer *peer, const struct cpg_message *message,
	    const uint8_t *body, size_t size);
void on_vote(struct agree *agree, struct agree_peer *peer, const struct cpg_message *message,
	     const uint8_t *body, size_t size);

/* ---- agree_seen.c ---- */

struct agree_seen *agree_seen(struct agree *agree, uint64_t log_id);
bool agree_is_regressed(const struct agree *agree, uint64_t log_id);
/* Has the copy of @peer what it was seen to have? */
void agree_judge_copy(struct agree *agree, const struct agree_peer *peer);

/* ---- agree_first.c ---- */

/* Nobody has joined in our log, or can any more: nothing in it matters to anybody. */
bool agree_is_unborn(const struct agree *agree);
/*
 * A JOIN is known to have been committed, or must have been: a majority decides from here on. A command is proposed
 * by a start whose JOIN is committed.
 */
bool agree_is_founded(const struct agree *agree);
/* As if the disk were empty; not while it is written. */
void agree_drop_log(struct agree *agree);
bool agree_nobody_has_log(struct agree *agree);
bool agree_may_make_log(struct agree *agree);
void agree_make_log(struct agree *agree);
/* A member's log against ours. True: it is another one, which was dealt with. */
bool agree_judge_other_log(struct agree *agree, const struct agree_peer *peer);

/* ---- agree_lead.c ---- */

void agree_lead(struct agree *agree);
void agree_lead_done(struct agree *agree); /* it ended */
/* Append an entry of our own; false: no memory. */
bool agree_lead_append(struct agree *agree, uint32_t type, const struct uuid *node, uint64_t start,
		       uint64_t sequence, const void *body, uint32_t size);
void on_need(struct agree *agree, struct agree_peer *peer, const struct cpg_message *message,
	     const uint8_t *body, size_t size);
void on_received(struct agree *agree, struct agree_peer *peer, const struct cpg_message *message,
		 const uint8_t *body, size_t size);
void on_proposal(struct agree *agree, struct agree_peer *peer, const struct cpg_message *message,
		 const uint8_t *body, size_t size);
/* The bytes of an image of what is applied, from malloc. */
int agree_make_image(struct agree *agree, uint8_t **out, uint64_t *size);

/* ---- agree_voters.c ---- */

/* Do what a leader has to do about voters and nodes now. */
void agree_lead_nodes(struct agree *agree);

/* ---- agree_follow.c ---- */

void on_entries(struct agree *agree, struct agree_peer *peer, const struct cpg_message *message,
		const uint8_t *body, size_t size);
void on_image(struct agree *agree, struct agree_peer *peer, const struct cpg_message *message,
	      const uint8_t *body, size_t size);
/* A received image is on disk. */
void agree_install(struct agree *agree);
void agree_follow_done(struct agree *agree);

/* ---- agree_commit.c ---- */

void on_ack(struct agree *agree, struct agree_peer *peer, const struct cpg_message *message,
	    const uint8_t *body, size_t size);
/* What our own acknowledgement names. */
uint64_t agree_own_ack(const struct agree *agree);
void agree_commit_to(struct agree *agree, uint64_t index);
void agree_count_acks(struct agree *agree);

/* ---- agree_log.c ---- */

struct agree_point agree_last(const struct agree *agree);
/* NULL: it is not in memory. */
const struct agree_entry *agree_at(const struct agree *agree, uint64_t index);
/* Term of the entry at @index; 0: unknown. The base is known. */
uint64_t agree_term_at(const struct agree *agree, uint64_t index);
struct agree_entry *agree_entry_new(uint64_t term, uint64_t index, const struct cpg_entry *from,
				    const void *body, uint32_t size);
/* Takes @entry, which is the next one. False: no memory; then it is freed. */
bool agree_append(struct agree *agree, struct agree_entry *entry);
void agree_truncate(struct agree *agree, uint64_t index); /* this one and all behind it go */
void agree_drop(struct agree *agree, uint64_t index);	  /* this one and all before it go */
void agree_log_reset(struct agree *agree, struct agree_point base);
void agree_log_done(struct agree *agree);
/* The voters that the entries up to @index name. */
void agree_voters_at(const struct agree *agree, uint64_t index, struct agree_voters *out);
bool agree_voters_name(const struct agree_voters *voters, const struct uuid *node);
bool agree_voters_have(const struct agree_voters *voters, const struct uuid *node, uint64_t log_id);
bool agree_voters_parse(const void *body, size_t size, struct agree_voters *out);
size_t agree_voters_encode(const struct agree_voters *voters, struct cpg_voter *out);
bool agree_bytes_add(struct agree_bytes *bytes, const void *data, size_t size);
void agree_entry_encode(const struct agree_entry *entry, struct cpg_entry *out);
/* Is what came from outside an entry? @left: bytes at @body. */
bool agree_entry_is_valid(const struct cpg_entry *entry, size_t left);

/* ---- agree_disk.c ---- */

void agree_disk_go(struct agree *agree); /* write what there is to write */
void agree_compact_go(struct agree *agree);
/* Our copy was struck from the voters: it gets another number. */
void agree_renew_copy(struct agree *agree);
void agree_disk_done(struct agree *agree);
/* The image that came whole is to be written and installed. */
void agree_take_image(struct agree *agree);
void agree_take_written(struct agree *agree, int rc);
void agree_take_image_written(struct agree *agree, int rc);

/* ---- agree_restore.c ---- */

bool agree_image_parse(const uint8_t *data, uint64_t size, struct cpg_image *head,
		       struct agree_voters *voters, struct agree_nodes *nodes,
		       const uint8_t **user);
/* Tell the user of the image that was found. */
void agree_restore_tell(struct agree *agree);

/* ---- agree_send.c ---- */

void agree_pump(struct agree *agree);
void agree_message_seal(uint8_t *data, struct cpg_message *head, size_t size);

/* ---- agree_outbox.c ---- */

/* One of ours is committed. */
void agree_outbox_seen(struct agree *agree, uint64_t sequence);
void agree_outbox_again(struct agree *agree); /* a new leader: all that waits goes to it */
void agree_outbox_done(struct agree *agree);
/* The next one that may be sent now; NULL: none. */
const struct agree_proposal *agree_outbox_next(struct agree *agree);
void agree_outbox_sent(struct agree *agree, const struct agree_proposal *proposal);

/* ---- agree_nodes.c ---- */

struct agree_node *agree_node_find(const struct agree_nodes *nodes, const struct uuid *node);
/* Take an entry into the table. False: no memory. */
bool agree_nodes_apply(struct agree_nodes *nodes, const struct agree_entry *entry);
bool agree_nodes_copy(struct agree_nodes *to, const struct agree_nodes *from);
void agree_nodes_done(struct agree_nodes *nodes);
/* A fact: tell it, and have it written into the log. */
void agree_end(struct agree *agree, const struct uuid *node, uint64_t start, enum engine_end how);
void agree_peer_lost(struct agree *agree, const struct agree_peer *peer);
void agree_peer_lives(struct agree *agree, const struct agree_peer *peer);
/* A node that was forgotten takes part again. */
void agree_remember(struct agree *agree, const struct uuid *node);
void agree_ends_logged(struct agree *agree); /* those that need no entry any more go */
void agree_judge_suspects(struct agree *agree);
void on_ended(struct agree *agree, struct agree_peer *peer, const struct cpg_message *message,
	      const uint8_t *body, size_t size);

#endif
