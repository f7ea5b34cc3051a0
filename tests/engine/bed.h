/*
 * A bed for engines under test: some members of one log, each on a loop of its own, and a user in
 * each that keeps what it was told and checks the contract of sheep/engine/engine.h at every step.
 *
 *   test_engine_sim.c     the simulated engine, in virtual time
 *   test_engine_local.c   local:DIR, in one process
 *   conformance.c         the suite that both (and each later engine) must pass
 *
 * What every bed checks by itself: callbacks never come inside a call, nothing comes out of its
 * order, indices ascend, and whoever has seen index i has had the same commands up to there as
 * all others ever, also before restarts.
 */
#ifndef TESTS_ENGINE_BED_H
#define TESTS_ENGINE_BED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/size.h"
#include "sheep/engine/engine.h"

#define BED_MEMBERS	 6
#define BED_COMMANDS_MAX 20000 /* of each member over all its starts */
#define BED_INDEX_MAX	 400000
#define BED_ENDS_MAX	 64

struct bed;

/* In which callback a member is to leave. */
enum moment {
	MOMENT_NEVER,
	MOMENT_COMMIT,
	MOMENT_INSTALL,
	MOMENT_SNAPSHOT,
	MOMENT_READY,
	MOMENT_MEMBERS,
	MOMENT_ENDED,
	MOMENT_QUORUM,
	MOMENT_COUNT
};

struct seen_end {
	struct uuid node;
	uint64_t start;
	enum engine_end how;
};

/* The user of one engine: its state is a digest of the commands so far. */
struct member {
	struct bed *bed;
	unsigned number;
	struct uuid node;
	uint64_t start;	       /* of the latest start */
	struct engine *engine; /* NULL: not running */
	struct loop *loop;
	bool is_stopped; /* as under SIGSTOP; the simulator cuts it off instead */
	/* since the latest start */
	bool is_ready, has_quorum, has_failed, is_leaving, has_left;
	enum moment leave_at; /* it leaves there, and is freed in `left` */
	uint64_t index, digest, commits, installs, snapshots;
	uint32_t live; /* members as told; bit per member of the bed */
	uint64_t live_start[BED_MEMBERS];
	struct seen_end ends[BED_ENDS_MAX];
	unsigned end_count;
	struct error failure;
	/* over all starts */
	uint32_t proposed; /* commands 0 ... proposed - 1 exist */
	uint32_t settled;  /* those below are committed */
	uint64_t asked_ns; /* when command `settled` was last proposed */
};

struct bed {
	struct member members[BED_MEMBERS];
	uint64_t truth[BED_INDEX_MAX]; /* digest at a slot, of an index; 0: nobody was there */
	uint8_t commits[BED_MEMBERS][BED_COMMANDS_MAX];
	size_t image_pad;	/* bytes added to each image */
	uint32_t command_size;	/* of commands; 0: small ones of various sizes */
	uint64_t compact_bytes; /* engine_options */
	struct uuid log;	/* engine_options */
	bool in_call;
	uint64_t ask_again_ns; /* propose again what was not committed after so long */
	/* given by the program */
	bool is_exact;	       /* it never commits a proposal twice, nor loses one but by a crash */
	bool knows_no_deaths;  /* only who leaves is said to have ended */
	bool is_late;	       /* what engine_open() refuses elsewhere fails later */
	bool later_start_wins; /* of two starts of a node at a time */
	bool needs_majority;   /* most of those that ever ran have to run */
	void *world;
	uint64_t (*slot)(uint64_t index); /* in `truth`; NULL: the index itself */
	void (*turn)(struct bed *bed);
	uint64_t (*now)(struct bed *bed);
	int (*open)(struct bed *bed, struct member *member, const struct engine_options *options,
		    const struct engine_callbacks *callbacks, struct error *err);
	/* The process of this member is gone: a certain death. */
	void (*crash)(struct bed *bed, struct member *member);
	/* The same, but nobody knows for certain; and how it is found out. NULL: no such thing. */
	void (*crash_quietly)(struct bed *bed, struct member *member);
	void (*confirm)(struct bed *bed, struct member *member);
	void (*set_stopped)(struct bed *bed, struct member *member,
			    bool is_stopped);		      /* may be NULL */
	void (*set_quorum)(struct bed *bed, bool has_quorum); /* NULL: it cannot be lost */
};

/* Given by the program, which fills the hooks. */
int bed_setup(void **state);
int bed_teardown(void **state);
#define BED_TEST(test) cmocka_unit_test_setup_teardown(test, bed_setup, bed_teardown)

/* A bed without members; the program adds its hooks. */
struct bed *bed_new(void);
/* All engines are gone. */
void bed_free(struct bed *bed);

/* Start member @number, as a new start of its node; fails the test if it cannot. */
struct member *bed_start(struct bed *bed, unsigned number);
int bed_try_start(struct bed *bed, unsigned number, struct error *err);
/* It cannot start, for this reason; text in *@err. */
void bed_start_fails(struct bed *bed, unsigned number, int code, struct error *err);
/* The same and wait until all of 0 ... @count - 1 are ready and see each other. */
void bed_start_all(struct bed *bed, unsigned count);
void bed_leave(struct bed *bed, unsigned number); /* and free */
void bed_crash(struct bed *bed, unsigned number);
void bed_set_stopped(struct bed *bed, unsigned number, bool is_stopped);
void bed_stop_all(struct bed *bed); /* all leave */

/* Propose @count more commands; those not committed in time are proposed again by bed_turn(). */
void bed_propose(struct bed *bed, unsigned number, uint32_t count);
void bed_turn(struct bed *bed);
/* Have all running members seen all that was proposed by running members, and the same? */
bool bed_is_settled(struct bed *bed);
bool member_sees(const struct member *member, const struct member *other);
bool member_knows_end(const struct member *member, const struct member *other, uint64_t start,
		      enum engine_end how);

/* SHEEPFOLD_LONG=1: everything; else a tenth. */
unsigned bed_scaled(unsigned count);

#define BED_TIMEOUT_NS (30 * NS_PER_S)

#define BED_UNTIL(bed, condition)                                       \
	do {                                                            \
		uint64_t end_ = (bed)->now(bed) + BED_TIMEOUT_NS;       \
		while (!(condition)) {                                  \
			if ((bed)->now(bed) > end_)                     \
				fail_msg("never came: %s", #condition); \
			bed_turn(bed);                                  \
		}                                                       \
	} while (0)

/* Nothing of the kind happens within @ns. */
#define BED_NEVER(bed, ns, condition)                                                   \
	do {                                                                            \
		for (uint64_t end_ = (bed)->now(bed) + (ns); (bed)->now(bed) < end_;) { \
			bed_turn(bed);                                                  \
			if (condition)                                                  \
				fail_msg("happened: %s", #condition);                   \
		}                                                                       \
	} while (0)

/* The suite. */
int run_conformance(const char *name);

#endif
