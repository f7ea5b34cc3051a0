/* What the files of the load of power cuts share: power_load.c, power_judge.c. */
#ifndef TESTS_SIM_POWER_PRIV_H
#define TESTS_SIM_POWER_PRIV_H

#include "tests/sim/herd_priv.h"
#include "tests/sim/power_load.h"

#define BLOCK	    4096u
#define RECORDS	    64u /* of one block, not durable; a full one waits for a FLUSH */
#define CLIENTS_MAX 32u
#define NAP_MAX_NS  (3 * NS_PER_MS)

/* One content of a block. */
struct record {
	uint32_t tag;
	uint64_t seq;	   /* when it was acknowledged, or read */
	uint64_t lost_seq; /* the first loss of power since: it may be gone; 0: none */
};

struct block {
	uint32_t count;
	struct record
		records[RECORDS]; /* the first one is durable, the last one is what it holds */
	uint32_t maybe_count;
	uint32_t maybes[RECORDS];
	bool is_busy, is_forgiven;
	uint64_t lost_seq; /* when power was lost last; above the last record: any of them */
};

enum kind { READ, WRITE, FLUSH };

struct op {
	struct gateway_io io;
	struct power_load *load;
	struct herd_node *node;
	struct sim_event *client; /* NULL: of a test */
	struct cds_list_head link;
	struct loop_mail mail;
	enum kind kind;
	uint32_t block, tag;
	uint64_t start_seq;
	bool is_over; /* nobody is interested any more */
	bool is_done;
	int result;
	struct buffer *buffer;
};

struct client {
	struct sim_event event;
	struct power_load *load;
	unsigned number;
};

struct power_load {
	struct herd *herd;
	struct buffer_cache *buffers;
	uint32_t block_count;
	struct block *blocks;
	struct cds_list_head ops;
	struct client clients[CLIENTS_MAX];
	unsigned client_count, flying;
	bool is_running;
	uint32_t next_tag;
	uint64_t seq; /* of the last thing that was learnt */
	uint64_t acknowledged;
	/* By node: losses up to here were told to it, or its volume was opened after. */
	uint64_t told_seq[HERD_NODES_MAX];
	unsigned losses_told, gone_back;
	bool is_cut[HERD_NODES_MAX]; /* and not registered since */
	uint32_t stores[HERD_NODES_MAX];
};

/* ---- power_judge.c ---- */

/* The content of a block that was written under @tag; 0: nothing was. */
void power_fill(uint8_t *out, uint32_t block, uint32_t tag);
/* The tag of what was read; fails the test if nobody wrote that there. */
uint32_t power_tag_of(struct power_load *load, const uint8_t *data, uint32_t block);
/* It holds this from now on. */
void power_add_record(struct power_load *load, struct block *block, uint32_t tag);
/* Record @i is durable: what was before it comes back no more. */
void power_make_durable(struct block *block, uint32_t i);
/* It was read as @tag: may it be? And what does that tell? */
void power_judge(struct power_load *load, struct herd_node *node, uint32_t number, uint32_t tag);
/*
 * A FLUSH: what was acknowledged before @op began is durable, or it would have failed. What an earlier loss may have
 * taken, that this client was told of, is not: whatever losses came after that.
 */
void power_flushed(struct power_load *load, const struct op *op);
/* Power was lost at @seq by all that had it. */
void power_lose_block(struct block *block, uint64_t seq);

#endif
