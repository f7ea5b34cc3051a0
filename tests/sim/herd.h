/*
 * A herd: whole nodes in one simulated world, each with the real store, net, placement groups
 * and gateway, over the simulated engine. What the daemon does around them is done here in small:
 * registration, deaths, placement.
 *
 * Clients write sectors whose content names the write, and a model says what may be read: see
 * herd_load.c.
 */
#ifndef TESTS_SIM_HERD_H
#define TESTS_SIM_HERD_H

#include "lib/net/net.h"
#include "sheep/cluster/cluster.h"
#include "sheep/gateway/gateway.h"
#include "sheep/pg/pg.h"
#include "sheep/store/store.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_engine.h"

#define HERD_NODES_MAX 5u
#define HERD_VOLUME    "disk"

struct herd;

/* A command that must be decided: repeated until it is. */
struct herd_command {
	struct cds_list_head link; /* of the node */
	struct cluster_command *command;
	uint64_t sequence;
	void *token; /* of the hub */
};

struct herd_node {
	struct herd *herd;
	unsigned number; /* from 0 */
	char name[16];
	char address[LOOP_ADDRESS_MAX];
	struct uuid uuid;
	struct logger logger;
	struct sim_host *host;
	uint64_t incarnation;
	bool is_up;
	uint64_t resumed_ns;	    /* last */
	bool says_unclean;	    /* at its next starts */
	bool was_cut;		    /* lost power or its disk since its last registration */
	uint64_t noted_incarnation; /* of its store, as registered last since power was there */
	/* of this start; NULL when it is down */
	struct loop *loop;
	struct net *net;
	struct net_listener *listener;
	struct store *store;
	struct pg_peers *peers;
	struct pg_set *set;
	struct gateway_hub *hub;
	struct gateway *gateway;
	struct engine *engine;
	struct cluster_map *map;
	struct cluster_proposer proposer;
	uint64_t start, store_incarnation;
	uint32_t id, store_id; /* 0: not registered yet */
	uint64_t session;
	struct loop_timer timer;
	bool is_ready;
	struct cds_list_head commands; /* struct herd_command, of the hub */
	struct gateway_open open;
	struct gateway_volume *volume;
	struct loop *loops[1];
	struct pg_set *sets[1];
	/* deaths that the engine told, until they are applied */
	struct {
		struct uuid node;
		uint64_t start;
	} ended[32];
	unsigned ended_count;
};

struct herd_options {
	uint64_t seed;
	unsigned nodes;
	uint32_t copies, min_insync, pg_count;
	uint64_t volume_bytes;
	uint64_t store_bytes;
	uint32_t compact_entries; /* of the log, between images; 0: 200 */
	uint32_t future_max;	  /* messages that wait for a map at a node; 0: as in the daemon */
	unsigned late;		  /* of the nodes, those that the test starts itself */
	bool is_single;		  /* access=single: one gateway writes at a time */
	bool is_bare;		  /* no volume: the test makes its own */
	bool is_quiet;		  /* log nothing but errors */
	bool is_traced;		  /* print every log line, in virtual time */
};

struct herd {
	struct herd_options options;
	struct sim_world *world;
	struct sim_log *log;
	struct uuid cluster;
	unsigned node_count;
	struct herd_node nodes[HERD_NODES_MAX];
	struct herd_load *load;
	struct pg_counters past; /* of starts that are over */
	bool may_diverge;	 /* a test damages copies */
	bool may_lose;		 /* all of them: clients may be told so */
	/* The planner takes these for lost. */
	uint32_t out_nodes[HERD_NODES_MAX], out_stores[HERD_NODES_MAX * 2];
	unsigned out_node_count, out_store_count;
	bool has_no_notes; /* every restart of a primary is fenced (L3) */
	/* A start ends: nobody will be answered by it. NULL: the load is told. */
	void (*node_died)(struct herd *herd, unsigned node);
	/* A clean stop, on the node's loop: give back its volumes. May be NULL. */
	void (*close_volumes)(struct herd *herd, unsigned node);
	/* After each map that a node applied, the first of its index. NULL: nobody asks. */
	void (*applied)(struct herd *herd, struct herd_node *node);
	uint64_t applied_index;
	/* What to do about a failure, instead of cmocka's fail(). Does not return. */
	void (*failed)(struct herd *herd, const char *text);
	void *context; /* of these */
};

/* Of all herds that were freed. */
extern struct pg_counters herd_totals;

/* Nodes up, formatted, one volume that every node has open, all PGs healthy. */
struct herd *herd_new(const struct herd_options *options);
void herd_free(struct herd *herd);

void herd_start(struct herd *herd, unsigned node);
/* The same; false: its store cannot be opened, it is down. */
bool herd_try_start(struct herd *herd, unsigned node);
/* A clean stop: everything ends by itself and is freed. */
void herd_stop(struct herd *herd, unsigned node);
/* The same, unless it takes longer: then it is killed, and this returns false. */
bool herd_try_stop(struct herd *herd, unsigned node, uint64_t ms);
/* kill -9. The others learn of it as @death says. */
void herd_kill(struct herd *herd, unsigned node, enum sim_death death);

/* Its machine loses power, and what its disk had not synced as @mode says. */
void herd_cut_power(struct herd *herd, unsigned node, enum sim_death death,
		    enum sim_power_cut mode);

/* SIGSTOP and SIGCONT. New operations of the load leave out a node that is paused. */
void herd_pause(struct herd *herd, unsigned node);
void herd_resume(struct herd *herd, unsigned node);

/* Prints the seed, the time and the text, and ends the test. */
void herd_fail(struct herd *herd, const char *format, ...)
	__attribute__((format(printf, 2, 3), noreturn));
#define HERD_REQUIRE(herd, claim)                                                           \
	do {                                                                                \
		if (!(claim))                                                               \
			herd_fail(herd, "%s:%d: not true: %s", __func__, __LINE__, #claim); \
	} while (0)

/* All nodes that are up open the volume again. */
void herd_reopen(struct herd *herd);
/* Memory of a crashed start: it stays, since its loop is gone, and is no leak. */
void herd_bury(void *memory);

/* Fails the test, with the seed, when it does not become true within @ms of virtual time. */
void herd_until(struct herd *herd, uint64_t ms, bool (*is_done)(struct herd *herd),
		const char *what);
/* The same of anything. */
void herd_until_so(struct herd *herd, uint64_t ms, bool (*is_so)(void *context), void *context,
		   const char *what);
void herd_run(struct herd *herd, uint64_t ms);
/* What the newest map and every node say of each PG, to stderr. */
void herd_print(struct herd *herd);
bool herd_is_healthy(struct herd *herd);
/* The newest map that any live node has. */
struct cluster_map *herd_map(struct herd *herd);
/* Propose by the first node that is up; it may be lost. */
void herd_propose(struct herd *herd, struct cluster_command *command);
/* Number of the node that leads this PG, or -1. */
int herd_primary(struct herd *herd, uint32_t pg);
/* Sum of a counter over all nodes, starts that are over included. */
uint64_t herd_counter(struct herd *herd, size_t offset);
#define HERD_COUNTER(herd, field) herd_counter(herd, offsetof(struct pg_counters, field))

/* ---- the load ---- */

struct herd_load;

/* @clients: operations at a time, over all nodes. It runs while the world runs, until stopped. */
void herd_load_start(struct herd *herd, unsigned clients);
/* No new operations; waits for those in flight. */
void herd_load_stop(struct herd *herd);
/* Of a node that was killed: nobody will answer them. */
void herd_load_node_died(struct herd *herd, unsigned node);
uint64_t herd_load_done(struct herd *herd);
/*
 * The longest that any operation took, those in flight included; counted from the last call on. Without
 * those whose gateway was paused meanwhile.
 */
uint64_t herd_load_longest_ns(struct herd *herd);
/* One write and one read through a node, at once, waiting for the end; result of it. */
int herd_write(struct herd *herd, unsigned node, uint64_t offset, uint32_t length);
int herd_read(struct herd *herd, unsigned node, uint64_t offset, uint32_t length);
int herd_clear(struct herd *herd, unsigned node, enum gateway_io_kind kind, uint64_t offset,
	       uint32_t length);
int herd_flush(struct herd *herd, unsigned node);
/* Begin a write and do not wait; it is checked like the others. */
void herd_write_begin(struct herd *herd, unsigned node, uint64_t offset, uint32_t length);
void herd_read_begin(struct herd *herd, unsigned node, uint64_t offset, uint32_t length);
void herd_write_fua_begin(struct herd *herd, unsigned node, uint64_t offset, uint32_t length);
void herd_flush_begin(struct herd *herd, unsigned node);
void herd_load_free(struct herd *herd);
/*
 * Object @index of the volume, in PG 0, is missing at @node from here on, with its version: what a bad block that
 * was found does. Returns its key.
 */
struct object_key herd_make_hole(struct herd *herd, unsigned node, uint32_t index);
/*
 * The same of any object that it has, at once; it is in force when the disk has it. False: not now.
 */
bool herd_damage(struct herd *herd, unsigned node, uint32_t pg, uint64_t family,
		 const struct object_key *key);
/*
 * One block of the object is found damaged there, with all that follows when a read finds it. False: there is nothing to
 * read: it has no data, or where it lies is not in memory.
 */
bool herd_damage_block(struct herd *herd, unsigned node, uint32_t pg, const struct object_key *key,
		       uint16_t block);
/*
 * May reads of the object be refused as lost? Its primary misses it or has lost blocks of it, and nobody who
 * is up and in sync has more.
 */
bool herd_is_lost(struct herd *herd, uint64_t family, const struct object_key *key);
/* All members in sync of each PG have the same objects, versions and sums. */
void herd_compare_copies(struct herd *herd);
/* Everything through every gateway, and all copies of each PG against each other. */
void herd_check(struct herd *herd);

#endif
