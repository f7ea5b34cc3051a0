/*
 * A simulated engine: one log in memory, many instances on (simulated) loops of one thread.
 *
 * It keeps the contract of sheep/engine/engine.h and nothing more: commits reach each instance
 * late and at different times, proposals are delayed, overtake each other, are lost or repeated,
 * indices skip numbers, instances that lag get an image, hints lag behind the truth. Quorum, cuts and
 * deaths (certain or not) come on command. All is drawn from one seed.
 *
 * The loops may be real ones too; then they must turn on one thread. The functions below that are not
 * about one engine's own work may be called from anywhere but a callback of the engine they name.
 */
#ifndef TESTS_SIM_SIM_ENGINE_H
#define TESTS_SIM_SIM_ENGINE_H

#include "sheep/engine/engine.h"

struct sim_log;

struct sim_log_options {
	uint64_t seed;
	/* Of a proposal on its way in, of a commit or a hint on its way out, each by itself. */
	uint64_t delay_min_ns, delay_max_ns;
	uint32_t loss_ppm;	  /* proposals that vanish */
	uint32_t repeat_ppm;	  /* proposals that are committed twice */
	uint32_t skip_ppm;	  /* commits before which index numbers are left out */
	uint32_t compact_entries; /* entries between images; 0: never */
};

/* A log without entries. It is the durable part: it outlives all instances. */
struct sim_log *sim_log_new(const struct sim_log_options *options);
/* No instance may be left. NULL is allowed. */
void sim_log_free(struct sim_log *log);

/* As engine_open(); the instance obeys the calls of engine.h. */
int sim_engine_open(struct sim_log *log, struct loop *loop, const struct engine_options *options,
		    const struct engine_callbacks *callbacks, void *context, struct engine **out,
		    struct error *err);

/* What the others learn of a crash. */
enum sim_death {
	SIM_DEATH_CERTAIN, /* members without it, and `ended` */
	SIM_DEATH_UNKNOWN, /* members without it; `ended` only by sim_log_confirm_death() */
	SIM_DEATH_SILENT,  /* nothing, until sim_log_confirm_death() or a new start */
};

/*
 * The process is gone, now: no callback any more, @engine is gone. Each of its proposals under way is
 * committed or lost, by chance. Before or after sim_process_kill(), which leaves its loop.
 */
void sim_engine_crash(struct engine *engine, enum sim_death death);
/* The others learn for certain that this start, which crashed, has ended. */
void sim_log_confirm_death(struct sim_log *log, const struct uuid *node, uint64_t start);

/* Without quorum nothing more is committed; what is already goes on being delivered. */
void sim_log_set_quorum(struct sim_log *log, bool has_quorum);
/*
 * A cut instance gets nothing, has no quorum, and its proposals wait; the others lose sight of it. Another start of
 * its node may be opened meanwhile: then it stays cut.
 */
void sim_engine_set_cut(struct engine *engine, bool is_cut);
/* The clock of this instance's loop is so far behind the others'. */
void sim_engine_set_lag(struct engine *engine, uint64_t lag_ns);
/* The engine of this instance gives up. @why is borrowed for ever. */
void sim_engine_fail(struct engine *engine, const char *why);
void sim_log_set_delay(struct sim_log *log, uint64_t min_ns, uint64_t max_ns);

/* For checkers: how many entries were ever committed, and which index the last has. */
uint64_t sim_log_count(const struct sim_log *log);
uint64_t sim_log_last_index(const struct sim_log *log);

#endif
