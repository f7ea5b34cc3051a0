/*
 * An engine among real processes, which can be killed and stopped at any moment. Workers share memory with the test: what
 * each saw at which index, and when. A worker's state is a digest of what it saw, so that two that disagree about any
 * index are noticed.
 */
#ifndef TESTS_ENGINE_PROCESSES_H
#define TESTS_ENGINE_PROCESSES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/size.h"
#include "sheep/engine/engine.h"

#define WORKERS_MAX	    4
#define PROCESSES_INDEX_MAX 4000000
#define PROCESSES_BODY_MAX  200000

/* One worker's part of the memory: the test writes the wishes, the worker the rest. */
struct desk {
	_Atomic uint32_t outstanding; /* wish: keep so many proposals under way */
	_Atomic uint32_t body_max;    /* wish: bytes of a command, PROCESSES_BODY_MAX at most */
	_Atomic bool quit;	      /* wish: leave */
	_Atomic uint64_t start;	      /* of the start that runs */
	_Atomic uint64_t index, commits, installs, skipped;
	_Atomic uint64_t own;			     /* of its commands that were committed */
	_Atomic uint64_t latency_ns, latency_max_ns; /* of those: sum, most */
	_Atomic uint64_t last_ns, gap_ns; /* of commits: when the last came; the longest pause */
	_Atomic bool is_ready, has_failed;
	_Atomic uint64_t live[WORKERS_MAX];  /* starts as told in the list of members; 0: none */
	_Atomic uint64_t ended[WORKERS_MAX]; /* the start that it was told last has ended */
	_Atomic uint64_t died[WORKERS_MAX], died_ns[WORKERS_MAX]; /* has died; when told first */
	char failure[ERROR_TEXT_MAX];
};

struct processes_memory {
	struct desk desks[WORKERS_MAX];
	_Atomic uint64_t mismatch; /* an index at which two disagree */
	_Atomic uint64_t truth[PROCESSES_INDEX_MAX];
};

struct processes;

/* In the worker's process. */
struct worker {
	struct processes *processes;
	struct desk *desk;
	unsigned number;
	uint64_t start;
	struct loop *loop;
	struct engine *engine;
	char spec[128];
	uint32_t under_way;
	uint64_t index, digest;
	bool has_left;
	uint8_t body[PROCESSES_BODY_MAX + 64];
};

/* The test's side. */
struct processes {
	struct processes_memory *memory;
	unsigned count; /* of workers, at most; node @number is processes_node(@number) */
	pid_t pids[WORKERS_MAX];
	uint64_t starts;
	uint64_t compact_bytes;
	/* given by the program; called in the worker's process */
	void *world;
	/* It is to fill worker->spec, and may add to the options. */
	void (*enter)(struct worker *worker, struct engine_options *options);
	void (*opened)(struct worker *worker); /* NULL: nothing to do */
};

void processes_init(struct processes *processes, unsigned count);
/* Kills those that run. */
void processes_done(struct processes *processes);

/* CLOCK_BOOTTIME, as the workers see it. */
uint64_t processes_now(void);
struct uuid processes_node(unsigned number);

/* Another start of its node. */
void processes_start(struct processes *processes, unsigned number);
void processes_reap(struct processes *processes, unsigned number);
/* kill -9 of all that run. */
void processes_kill_all(struct processes *processes);
void processes_set_load(struct processes *processes, unsigned number, uint32_t outstanding,
			uint32_t body_max);

/* No two disagree, and nobody has failed; else the test fails. */
void processes_check(struct processes *processes);
/* All that run are ready and see each other. */
bool processes_see_all(struct processes *processes);
/* All others that run have been told that this start has died. */
bool processes_know_death(struct processes *processes, unsigned victim, uint64_t start);
bool processes_are_at_one_index(struct processes *processes);
/* No more proposals: all come to the same end, and stay there. */
void processes_settle(struct processes *processes);

#define PROCESSES_TIMEOUT_NS (60 * NS_PER_S)

#define PROCESSES_UNTIL(processes, condition)                           \
	do {                                                            \
		uint64_t end_ = processes_now() + PROCESSES_TIMEOUT_NS; \
		while (!(condition)) {                                  \
			if (processes_now() > end_)                     \
				fail_msg("never came: %s", #condition); \
			processes_check(processes);                     \
			(void)usleep(200);                              \
		}                                                       \
	} while (0)

#endif
