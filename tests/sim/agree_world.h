/*
 * Users of the agreement on the model of CPG, who check at every step what it promises: all commit the
 * same commands under the same indices; nothing that anyone saw is lost; nothing is there
 * twice; ends are true; a start that is ready has what anyone had seen before.
 */
#ifndef AGREE_WORLD_H
#define AGREE_WORLD_H

#include "tests/sim/agree_oracle.h"
#include "tests/sim/sim_cpg.h"

#define WORLD_INDEX_MAX	 200000
#define WORLD_STARTS_MAX 256
#define WORLD_COMMANDS	 8192 /* of one start */

struct world;

struct user {
	struct world *world;
	unsigned number;
	struct uuid node;
	uint64_t start;	    /* 1 and on; its index in `fate` */
	struct agree *core; /* NULL: not running */
	bool is_ready, has_quorum, is_leaving, has_failed;
	bool was_ready;	 /* some start of it */
	bool is_blanked; /* its disk was replaced */
	struct error failure;
	uint64_t index, digest, must;
	uint64_t commits, installs, snapshots;
	uint32_t proposed, live;
	uint32_t seen; /* of its own, in this start */
	uint8_t fate
		[WORLD_STARTS_MAX]; /* 0: runs or never did; 1: killed; 2: left; 3: killed while leaving */
	bool told[WORLD_STARTS_MAX]; /* some other user was told of that end */
	uint8_t *done;		     /* per start and command: it was committed */
};

struct world {
	struct sim_cpg *sim;
	unsigned nodes;
	uint64_t compact_bytes;
	struct uuid wanted;
	struct user users[SIM_CPG_NODES];
	uint64_t *truth; /* digest at an index */
	uint64_t last;	 /* the highest that anyone has seen */
	bool has_failed; /* a promise was broken */
	/* Nodes made a log of their own while nobody ran who had the first one, and not all had it
	 * yet, or any more: that is not promised to be impossible. The run ends. */
	bool is_void;
	struct uuid log;
	bool may_fail; /* a user that fails is no broken promise */
	char why[256];
	uint64_t commits;
	struct oracle oracle;
};

struct world *world_new(const struct sim_cpg_options *options);
void world_free(struct world *world);
/* A broken promise: noted, with the first one's text. */
void world_broken(struct world *world, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

bool user_start(struct user *user); /* false: its files were refused; noted in failure */
void user_start_all(struct world *world);
void user_kill(struct user *user, bool is_seen);
void user_power_cut(struct user *user);
void user_leave(struct user *user);
/* A command of @size bytes (at least 16). False: not taken. */
bool user_propose(struct user *user, uint32_t size);

bool world_run(struct world *world, uint64_t ns, bool (*is_done)(void *context), void *context);
/* All run, are ready, have quorum, see each other and have committed all that the present starts proposed. */
bool world_is_settled(void *world);
/* Within @ns; else a broken promise. */
void world_settle(struct world *world, uint64_t ns);

#endif
