/*
 * A program: one seed's cluster, clients, faults and checks. docs/internals/simulator.md
 *
 *   program.c   what the seed decides, its course, and the checks at its end
 *   faults.c    the table of faults
 *   strike.c    faults at named points of the protocol
 *   coup.c      takeovers while the floor moves
 *   workload.c  volumes, clients, and what they saw (history.h)
 */
#ifndef TESTS_SIM_PROGRAM_H
#define TESTS_SIM_PROGRAM_H

#include "lib/base/rule.h"
#include "tests/sim/herd.h"
#include "tests/sim/history.h"

struct program;
struct workload;

/* ---- faults.c ---- */

/* X(NAME, text, weight, duration_min_ms, duration_max_ms, flags) */
#define FAULT_LIST(X)                                                            \
	X(KILL, "kill", 8, 50, 5000, FAULT_OF_NODE | FAULT_SINGLE)               \
	X(KILL_SILENT, "kill-silent", 4, 50, 6000, FAULT_OF_NODE | FAULT_SINGLE) \
	X(STOP, "stop", 4, 50, 4000, FAULT_OF_NODE | FAULT_SINGLE)               \
	X(POWER_CUT, "power-cut", 5, 50, 5000, FAULT_OF_NODE)                    \
	X(POWER_CUT_ALL, "power-cut-all", 2, 50, 3000, 0)                        \
	X(NAP, "nap", 4, 5, 200, FAULT_OF_NODE | FAULT_SINGLE)                   \
	X(PAUSE, "pause", 4, 200, 6000, FAULT_OF_NODE | FAULT_SINGLE)            \
	X(FREEZE, "freeze", 2, 50, 4000, FAULT_OF_NODE | FAULT_NEEDS_ZERO_LEASE) \
	X(CUT, "cut", 6, 10, 4000, 0)                                            \
	X(CUT_ONE_WAY, "cut-one-way", 6, 10, 4000, 0)                            \
	X(ISOLATE, "isolate", 3, 50, 5000, FAULT_OF_NODE | FAULT_SINGLE)         \
	X(RESET, "reset", 8, 0, 0, FAULT_SINGLE)                                 \
	X(DELAY, "delay", 5, 100, 6000, FAULT_SINGLE)                            \
	X(CLOG, "clog", 3, 100, 3000, 0)                                         \
	X(LOG_DELAY, "log-delay", 4, 100, 5000, 0)                               \
	X(LOG_CUT, "log-cut", 3, 50, 4000, FAULT_OF_NODE)                        \
	X(QUORUM, "quorum", 3, 50, 3000, 0)                                      \
	X(SLOW_DISK, "slow-disk", 3, 100, 5000, FAULT_OF_NODE)                   \
	X(CRAWL, "crawl", 2, 7000, 12000, FAULT_OF_NODE)                         \
	X(HANG, "hang", 3, 10, 6000, FAULT_OF_NODE | FAULT_SINGLE)               \
	X(EIO, "eio", 3, 100, 4000, FAULT_OF_NODE | FAULT_SINGLE)                \
	X(FULL, "full", 2, 100, 4000, FAULT_OF_NODE)                             \
	X(ROT, "rot", 8, 0, 0, FAULT_OF_VICTIM)                                  \
	X(LOST_WRITE, "lost-write", 5, 0, 0, FAULT_OF_VICTIM)                    \
	X(MISDIRECT, "misdirect", 5, 0, 0, FAULT_OF_VICTIM)                      \
	X(BLANK, "blank", 4, 50, 3000, FAULT_OF_VICTIM)                          \
	X(LOSE, "lose", 1, 0, 0, FAULT_OF_VICTIM)                                \
	X(SECTOR, "sector", 8, 0, 0, FAULT_OF_VICTIM)                            \
	X(STRIKE, "strike", 30, 100, 4000, 0)                                    \
	X(COUP, "coup", 8, 2500, 6000, 0)                                        \
	X(STRAY, "stray", 2, 0, 0, FAULT_SINGLE)                                 \
	X(CREATE, "create", 5, 0, 0, FAULT_NO_HARM)                              \
	X(DELETE, "delete", 5, 0, 0, FAULT_NO_HARM)                              \
	X(ADD_NODE, "add-node", 2, 0, 0, FAULT_NO_HARM)                          \
	X(REMOVE_NODE, "remove-node", 1, 0, 0, FAULT_NO_HARM)                    \
	X(SETTING, "setting", 2, 100, 5000, FAULT_NO_HARM)                       \
	X(FLOOR, "floor", 3, 100, 6000, 0)

enum fault_flags {
	FAULT_OF_NODE = 1u << 0,   /* of one that has no other such fault */
	FAULT_OF_VICTIM = 1u << 1, /* damages data: of one node in the whole program */
	FAULT_SINGLE = 1u << 2,	   /* clients elsewhere stall for 3 s at most, if it comes alone */
	FAULT_NO_HARM = 1u << 3,   /* an operator's work: counted, and no fault */
	FAULT_NEEDS_ZERO_LEASE = 1u << 4,
};

enum fault_kind {
#define FAULT_ENUM(name, text, weight, min, max, flags) FAULT_##name,
	FAULT_LIST(FAULT_ENUM)
#undef FAULT_ENUM
		FAULT_COUNT
};

struct fault_row {
	const char *name;
	unsigned weight;
	uint64_t min_ms, max_ms;
	unsigned flags;
};
extern const struct fault_row fault_table[FAULT_COUNT];

struct fault {
	enum fault_kind kind;
	unsigned node, other;
	uint64_t end_ns;
};

#define FAULTS_MAX 12

/* What is done to the node that comes to a point of the protocol (lib/base/rule.h). */
enum strike_action {
	STRIKE_KILL,
	STRIKE_POWER,
	STRIKE_NAP,
	STRIKE_CUT,	 /* it cannot send to another */
	STRIKE_DEAFEN,	 /* it cannot hear from another */
	STRIKE_RESET,	 /* its streams to another */
	STRIKE_OTHER,	 /* another is killed */
	STRIKE_CUT_KILL, /* it cannot send to another, and is killed before it can again */
	STRIKE_CHAIN,	 /* the same, and soon after a third one is killed, too */
	STRIKE_EIO,	 /* its disk fails */
	STRIKE_DAMAGE,	 /* something at the victim is found damaged */
	STRIKE_ACTIONS
};

struct strike {
	struct program *program;
	bool is_armed, has_struck;
	bool is_of_victim;	   /* waits for the victim to come there */
	bool is_of_joining;	   /* for anybody while the victim is being filled */
	int killed;		   /* so that somebody comes there; -1: nobody */
	struct sim_event restart;  /* of it */
	unsigned point, countdown; /* enum sim_point */
	enum strike_action action;
	unsigned node, other, third, step;
	uint64_t delay_ns, length_ns;
	struct sim_event event;
};

/* How it falls silent. */
enum coup_way {
	COUP_PAUSED,
	COUP_ISOLATED, /* from the log, too */
	COUP_DEAF,     /* it hears nobody but the log */
	COUP_WAYS
};

enum coup_state { COUP_OVER, COUP_ARMED, COUP_BEGUN, COUP_SILENT, COUP_ASKED };

struct coup {
	struct program *program;
	enum coup_state state;
	unsigned point, countdown; /* enum sim_point */
	enum coup_way way;
	bool is_lowered, is_raised; /* the floor: when it is silenced, when somebody asks to lead */
	unsigned node, by;
	int killed; /* so that somebody comes to the point; -1: nobody */
	struct sim_event event, cause;
};

/* ---- program.c ---- */

struct program_options {
	uint64_t seed;
	bool is_traced;
	const char *mutation; /* NULL: none */
};

/* What a run hit and did: added up over many. */
struct program_figures {
	uint64_t operations, sectors, events, trace, virtual_ns;
	uint64_t lost; /* operations that were refused because nobody has the data any more */
	uint64_t longest_stall_ns; /* of clients far from the fault, under single faults */
	uint64_t faults[FAULT_COUNT];
	struct pg_counters pg;
};

struct program {
	struct program_options options;
	struct random random; /* its course; the world has its own */
	struct herd *herd;
	struct workload *workload;
	struct program_figures *figures;
	/* what the seed decided */
	unsigned node_count;
	uint32_t copies, min_insync;
	bool is_single; /* one fault at a time, and stalls are judged */
	bool is_kind_on[FAULT_COUNT];
	int victim; /* -1: nobody's data is damaged */
	uint64_t lease_ms;
	bool is_set; /* the map has the settings of the program */
	/* its course */
	struct fault faults[FAULTS_MAX];
	unsigned fault_count;
	struct strike strike;
	struct coup coup;
	uint64_t next_fault_ns, end_ns;
	bool is_over; /* all faults are healed, none begins */
	bool is_removed[HERD_NODES_MAX], is_leaving[HERD_NODES_MAX], was_added[HERD_NODES_MAX];
	uint64_t well_ns[HERD_NODES_MAX]; /* since when a node has had no fault */
	bool is_replaced[HERD_NODES_MAX]; /* its disk, and the planner was not told */
	uint64_t loss_epochs[64];	  /* of the PGs, as seen last */
	bool has_lost;			  /* some rose */
	bool is_small;			  /* stores for the volumes */
	bool may_be_full;		  /* clients may be refused for lack of space */
};

/* Run one program. What fails prints the seed and ends the process. @figures: filled in. */
void program_run(const struct program_options *options, struct program_figures *figures);
uint64_t program_below(struct program *program, uint64_t bound);
/* A line of the trace, if there is one. */
void program_trace(struct program *program, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* ---- faults.c ---- */

/* Begin one that may be now; false: none could. */
bool faults_begin(struct program *program);
/* End those whose time has come. */
void faults_tick(struct program *program);
/* End all, and start whoever is down. */
void faults_heal(struct program *program);
/* Nodes whose store has stopped start again, as an operator would have it, once faults have ended. */
void faults_restart_failed(struct program *program);
/* When the next one ends; UINT64_MAX: none will. */
uint64_t faults_next_end(const struct program *program);
/* Take back what a strike did, or disarm it. */
void strike_end(struct program *program);
bool strike_begin(struct program *program);
bool strike_has_node(const struct program *program, unsigned node);
/* The same of a coup (coup.c). */
bool coup_begin(struct program *program);
void coup_end(struct program *program);
bool coup_has_node(const struct program *program, unsigned node);
/* What waits for a point of the protocol, called at each. */
void strike_on_point(enum sim_point point);
void coup_on_point(enum sim_point point);
/* A node that is up, has no fault, and stays. */
bool faults_is_well(const struct program *program, unsigned node);
/* Kill a node that is well and leads something, or @node if that is not -1. The number, or -1. */
int faults_kill(struct program *program, int node, enum sim_death death);
/* Would each PG that its store is in sync for still have another such member, up and whole? */
bool faults_others_hold(struct program *program, unsigned node);
void faults_start_node(struct program *program, unsigned node);
/* Has it a fault of its own? */
bool faults_has_node(const struct program *program, unsigned node);

/* ---- workload.c ---- */

struct workload *workload_new(struct program *program);
void workload_free(struct workload *workload);
void workload_start(struct workload *workload);
/* Open and close handles, create and delete volumes: as often as one likes. */
void workload_tick(struct workload *workload);
/* All volumes are open everywhere, or gone. */
bool workload_is_settled(struct workload *workload);
/* All clients at once: a fault is to meet operations in flight. */
void workload_burst(struct workload *workload);
void workload_stop(struct workload *workload); /* no new operations */
bool workload_is_idle(struct workload *workload);
bool workload_create(struct workload *workload); /* false: there are enough */
bool workload_delete(struct workload *workload); /* false: there are too few */
/* Of these PGs acknowledged writes may be lost, from now on. */
void workload_note_loss(struct workload *workload, uint32_t pg);
/* Everything through some gateway, then all histories. */
void workload_check(struct workload *workload);
/* Since when the oldest operation of a node without a fault waits; 0: none. */
uint64_t workload_oldest(struct workload *workload);
uint64_t workload_operations(const struct workload *workload);
void workload_print_waiting(struct workload *workload);

#endif
