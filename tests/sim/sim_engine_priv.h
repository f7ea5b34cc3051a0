/*
 * Inside the simulated engine (sim_engine.h).
 *
 * The log is an array of entries, numbered by place (0, 1, ...: dense) besides their index (which
 * skips). Entries below log->first are gone; the image covers them. Each instance has
 *   flights   its proposals on their way in: due times, any order
 *   dues      when it may see entry `place`, `place + 1`, ...: ascending
 *   hints     ends, members, quorum, left: ascending due times
 * and one timer for each of the three. Instances reach each other by mail only (a nudge: look at
 * your queues), as threads would. One that crashed stays in memory until the log goes, since its
 * loop may still know its timers and its mail.
 */
#ifndef TESTS_SIM_SIM_ENGINE_PRIV_H
#define TESTS_SIM_SIM_ENGINE_PRIV_H

#include <urcu/list.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "sheep/engine/engine_priv.h"
#include "tests/sim/sim_engine.h"

struct sim_entry {
	uint64_t index;
	uint32_t size;
	void *data;
};

enum sim_life { SIM_ALIVE, SIM_HIDDEN, SIM_GONE, SIM_DIED, SIM_LEFT };

/* The latest start of a node, as the world knows it; they are never forgotten. */
struct sim_node {
	struct cds_list_head link; /* sorted by node */
	struct engine_member member;
	enum sim_life life;
	struct sim_instance *instance; /* NULL when it is not running */
};

struct sim_log {
	struct sim_log_options options;
	struct random random;
	struct uuid id;
	bool has_quorum;
	struct sim_entry *entries; /* of the places first ... end - 1 */
	uint64_t first, end, room;
	uint64_t last_index;
	void *image; /* of all entries at places below image_place */
	size_t image_size;
	uint64_t image_index, image_place;
	struct cds_list_head nodes, instances, graves;
};

struct sim_flight {
	struct cds_list_head link;
	uint64_t due_ns;
	uint32_t size;
	bool twice;
	uint8_t data[];
};

enum sim_hint_kind {
	SIM_HINT_ENDED,
	SIM_HINT_MEMBERS,
	SIM_HINT_QUORUM,
	SIM_HINT_FAIL,
	SIM_HINT_LEFT
};

struct sim_hint {
	struct cds_list_head link;
	enum sim_hint_kind kind;
	uint64_t due_ns;
	struct uuid node;
	uint64_t start;
	enum engine_end how;
	const char *why;
};

struct sim_instance {
	struct engine engine;
	struct cds_list_head link;
	struct sim_log *log;
	struct sim_node *node;
	bool is_dead;
	bool is_nudged; /* the mail is on its way */
	bool is_cut;
	bool wants_image;  /* first of all */
	uint64_t place;	   /* of the next entry to deliver */
	uint64_t ready_at; /* ready when `place` is here */
	uint64_t *dues;	   /* of places dues_first ... log->end - 1 */
	uint64_t dues_first, dues_room;
	uint64_t last_due_ns, last_hint_ns;
	uint64_t lag_ns; /* of our clock behind the world's, in which only places are told */
	struct cds_list_head flights, hints;
	struct cds_list_head held; /* ends that it hears of when it is no longer cut off */
	struct loop_mail nudge;
	struct loop_timer propose_timer, deliver_timer, hint_timer;
};

static inline void *sim_must(void *memory)
{
	assert(memory);
	return memory;
}

/* ---- sim_log.c ---- */

uint64_t sim_draw_delay(struct sim_log *log);
bool sim_draw(struct sim_log *log, uint32_t ppm);
/* Commit @data at @now_ns of the world: every instance sees it later, each at its own time. */
void sim_log_append(struct sim_log *log, const void *data, uint32_t size, uint64_t now_ns);
/* Make @in look at its queues, from anywhere. */
void sim_nudge(struct sim_instance *in);
/* On @in's own loop: arm its timer for what it is to be given next. */
void sim_arm_delivery(struct sim_instance *in);
void sim_on_deliver(struct loop_timer *timer);
/* When does @in see the entry at @places - 1, committed at @now_ns of the world? */
void sim_push_due(struct sim_instance *in, uint64_t now_ns, uint64_t places);

/* ---- sim_engine.c ---- */

void sim_become_ready(struct sim_instance *in);

#endif
