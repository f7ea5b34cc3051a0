/*
 * What members of the engine `corosync[:CHANNEL]` say to each other, and what they keep on disk
 * (docs/protocol/corosync.md).
 *
 * The log is a row of entries. Each has an index, from 1 without gaps, and the term in which a
 * leader made it. Two logs that have an entry of the same index and term are equal up to there.
 */
#ifndef PROTO_CPG_LOG_H
#define PROTO_CPG_LOG_H

#include "include/proto/endian.h"

#define CPG_VERSION	  1u
#define CPG_MESSAGE_MAGIC 0x6d677063u /* "cpgm" */
#define CPG_FRAME_MAGIC	  0x66677063u /* "cpgf" */
#define CPG_IMAGE_MAGIC	  0x69677063u /* "cpgi" */

#define CPG_INFO_MAX	  4096u	       /* bytes that a member tells of itself */
#define CPG_COMMAND_MAX	  (512u << 10) /* of one command */
#define CPG_BATCH_MAX	  (256u << 10) /* of entries in a message, unless one alone is larger */
#define CPG_CHUNK_MAX	  (256u << 10) /* of an image in a message */
#define CPG_MESSAGE_MAX	  (CPG_COMMAND_MAX + 4096u)
#define CPG_VOTERS_MAX	  32u
#define CPG_NODES_MAX	  1024u /* nodes that a log remembers */

/* ---- messages ---- */

/* X(name, number) */
#define CPG_TYPE_LIST(X)                                                      \
	X(STATE, 1)    /* who I am, what I have */                            \
	X(ASK, 2)      /* promise me this term */                             \
	X(VOTE, 3)     /* yes or no */                                        \
	X(ENTRIES, 4)  /* from the leader: append these; with none, a beat */ \
	X(ACK, 5)      /* what I have on disk */                              \
	X(NEED, 6)     /* I cannot append what the leader sent */             \
	X(IMAGE, 7)    /* a part of the state, for one member */              \
	X(RECEIVED, 8) /* that part came */                                   \
	X(PROPOSAL, 9) /* please, leader */                                   \
	X(ENDED, 10)   /* that start of that node has ended */                \
	X(BYE, 11)     /* I have stopped serving and leave */

enum cpg_type {
#define CPG_TYPE_ENUM(name, number) CPG_TYPE_##name = number,
	CPG_TYPE_LIST(CPG_TYPE_ENUM)
#undef CPG_TYPE_ENUM
};

/* Before each message. */
struct cpg_message {
	le32 magic;
	le16 version;
	le16 type;
	le32 size;	  /* of the whole message */
	le32 crc;	  /* CRC32C of the whole message with this field zero */
	uint8_t log[16];  /* the log it is about; zero: none yet */
	uint8_t node[16]; /* the sender */
	le64 start;
	le64 term; /* the one it is about; STATE: the highest that the sender knows */
};
WIRE_SIZE(struct cpg_message, 64);
WIRE_OFFSET(struct cpg_message, log, 16);
WIRE_OFFSET(struct cpg_message, term, 56);

enum cpg_state_flag {
	CPG_STATE_SEEKS = 1 << 0, /* it knows no leader in this view */
	CPG_STATE_LEADS = 1 << 1, /* it leads the term that it names */
	CPG_STATE_READY = 1 << 2, /* its user was told that all is there */
	CPG_STATE_VOTES = 1 << 3, /* it is a voter as far as it knows */
	CPG_STATE_BORN = 1 << 4,  /* somebody has joined in its log: it may have commands */
};

struct cpg_state {
	le64 log_id; /* of its copy of the log: random when the copy was made; zero: it has none */
	le64 view;   /* digest of the view that it is said in */
	le64 last_term;
	le64 last_index;
	le64 commit;
	uint8_t wanted[16]; /* the log that it belonged to before; zero: any */
	le32 flags;
	le32 voter_count; /* of its log, as far as it knows */
	le32 info_size;	  /* bytes that follow */
	le32 reserved;
};
WIRE_SIZE(struct cpg_state, 72);

struct cpg_ask {
	le64 log_id;
	le64 last_term;
	le64 last_index;
};
WIRE_SIZE(struct cpg_ask, 24);

struct cpg_vote {
	uint8_t candidate[16];
	le64 log_id;
	le32 is_granted;
	le32 reserved;
};
WIRE_SIZE(struct cpg_vote, 32);

struct cpg_entries {
	le32 to_node; /* one member's name in CPG; zero: for all */
	le32 to_pid;
	le64 previous_term; /* the entry before the first one here */
	le64 previous_index;
	le64 commit; /* as far as the sender knows */
	le32 count;  /* of entries that follow */
	le32 reserved;
};
WIRE_SIZE(struct cpg_entries, 40);

enum cpg_entry_type {
	CPG_ENTRY_TERM = 1,    /* a leader's first; nothing in it */
	CPG_ENTRY_COMMAND = 2, /* body: the command */
	CPG_ENTRY_VOTERS = 3,  /* body: struct cpg_voter for each, from here on */
	CPG_ENTRY_JOIN = 4,    /* node and start: this start takes part */
	CPG_ENTRY_ENDED = 5,   /* node, start; sequence: 1 it died, 2 it left */
	CPG_ENTRY_FORGET = 6,  /* node: it was removed from the cluster */
};

/* In messages and on disk. */
struct cpg_entry {
	le64 term;
	le64 index;
	uint8_t node[16]; /* the proposer of a command */
	le64 start;
	le64 sequence; /* of its commands, from 1 without gaps in each start */
	le32 type;
	le32 size; /* bytes that follow */
};
WIRE_SIZE(struct cpg_entry, 56);

struct cpg_voter {
	uint8_t node[16];
	le64 log_id;
};
WIRE_SIZE(struct cpg_voter, 24);

struct cpg_ack {
	le64 log_id;
	le64 index; /* equal to the log of this term's leader up to here, and on disk */
};
WIRE_SIZE(struct cpg_ack, 16);

struct cpg_need {
	le64 last_term;
	le64 last_index;
	le64 commit;
};
WIRE_SIZE(struct cpg_need, 24);

/* A part of the bytes of an image file, which begin with struct cpg_image. */
struct cpg_part {
	le32 to_node;
	le32 to_pid;
	le64 index; /* of the image */
	le64 size;  /* of the whole file */
	le64 offset;
	le32 length;
	le32 crc; /* of the whole file */
};
WIRE_SIZE(struct cpg_part, 40);

struct cpg_received {
	le64 index;
	le64 offset; /* all before it is here */
};
WIRE_SIZE(struct cpg_received, 16);

struct cpg_proposal {
	le64 sequence;
	le32 size; /* of the command that follows */
	le32 reserved;
};
WIRE_SIZE(struct cpg_proposal, 16);

struct cpg_ended {
	uint8_t node[16];
	le64 start;
	le32 how; /* 1: it died, 2: it left */
	le32 reserved;
};
WIRE_SIZE(struct cpg_ended, 32);

/* ---- on disk ---- */

/*
 * A log file is a row of frames, each written and synced by itself. What is broken at the end is the frame
 * that was being written; a broken one with a later one behind it is damage. The first frame begins
 * with a HEAD and has all that the file before it had, so that no other file but its image is needed.
 */
struct cpg_frame {
	le32 magic;
	le32 crc;    /* CRC32C of the frame with this field zero */
	le64 size;   /* of the frame */
	le64 file;   /* number of the file: in its name too */
	le64 number; /* of the frame in the file, from 0 */
	le64 commit; /* everything up to here was known to be committed */
};
WIRE_SIZE(struct cpg_frame, 40);

enum cpg_record_type {
	CPG_RECORD_HEAD = 1,	/* struct cpg_head */
	CPG_RECORD_PROMISE = 2, /* struct cpg_promise */
	CPG_RECORD_ENTRY =
		3, /* struct cpg_entry and its body: in place of all entries of its index and above */
};

struct cpg_record {
	le32 type;
	le32 size; /* bytes that follow */
};
WIRE_SIZE(struct cpg_record, 8);

struct cpg_head {
	le32 version;
	le32 image_crc;
	uint8_t log[16];
	uint8_t node[16];
	le64 log_id;
	le64 image_file; /* number of the image file; 0: none */
	le64 image_size;
	le64 image_index; /* the entries begin behind it */
	le64 image_term;
};
WIRE_SIZE(struct cpg_head, 80);

/* Nobody else gets this term, and nobody a lower one. */
struct cpg_promise {
	le64 term;
	uint8_t node[16]; /* to whom; zero: nobody */
};
WIRE_SIZE(struct cpg_promise, 24);

/* The state at an index: this, then the voters, the nodes, and the bytes of the user. */
struct cpg_image {
	le32 magic;
	le32 version;
	uint8_t log[16];
	le64 index;
	le64 term;
	le64 user_index;  /* of the last command in it */
	le64 user_size;	  /* bytes */
	le32 voter_count; /* struct cpg_voter */
	le32 node_count;  /* struct cpg_node */
};
WIRE_SIZE(struct cpg_image, 64);

/* What the log knows of the latest start of a node. */
struct cpg_node {
	uint8_t node[16];
	le64 start;
	le64 sequence; /* of its last command */
	le32 ended;    /* 0: not; 1: it died; 2: it left */
	le32 reserved;
};
WIRE_SIZE(struct cpg_node, 40);

#endif
