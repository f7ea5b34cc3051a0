/*
 * What the engines share: the vtable of a driver, and the one place that calls the user.
 *
 *   STARTING --all that was committed is here--> READY
 *      |                                           |
 *      +------------ cannot go on -----------------+--> FAILED
 *      |                                           |      |
 *      +------------ engine_leave() ---------------+------+--> LEAVING --ops are through--> LEFT
 *
 * A driver embeds struct engine first in its own struct, calls engine_base_init(), and reports
 * what happens by the engine_tell_*() functions. They keep the contract of engine.h: nothing is
 * said after FAILED but `left`, hints and ends are only said when READY, indices ascend.
 */
#ifndef ENGINE_ENGINE_PRIV_H
#define ENGINE_ENGINE_PRIV_H

#include "sheep/engine/engine.h"

enum engine_state {
	ENGINE_STARTING,
	ENGINE_READY,
	ENGINE_FAILED,
	ENGINE_LEAVING,
	ENGINE_LEFT,
	ENGINE_STATE_COUNT
};

struct engine_driver {
	const char *name;   /* what stands before the colon of a spec */
	const char *syntax; /* for error texts */
	/* @rest: what stands after the colon, "" if there is none. Pure. */
	int (*check)(const char *rest, struct error *err);
	int (*open)(const char *rest, struct loop *loop, const struct engine_options *options,
		    const struct engine_callbacks *callbacks, void *context, struct engine **out,
		    struct error *err);
	/* The size is checked, the engine neither failed nor leaving. */
	int (*propose)(struct engine *engine, const void *command, uint32_t size);
	/* May be NULL: nothing to do. Neither failed nor leaving. */
	void (*forget)(struct engine *engine, const struct uuid *node);
	void (*link)(struct engine *engine, const struct uuid *node, uint64_t start,
		     bool is_closed);
	/* End all that is under way, then engine_tell_left(). */
	void (*leave)(struct engine *engine);
	void (*free)(struct engine *engine);
};

struct engine {
	const struct engine_driver *driver;
	struct loop *loop;
	const struct engine_callbacks *callbacks;
	void *context;
	struct engine_member self; /* info: from malloc */
	struct uuid log;
	enum engine_state state;
	bool has_quorum; /* as last told */
	uint64_t index;
	struct engine_stats stats;
};

extern const struct engine_driver corosync_driver;
extern const struct engine_driver local_driver;
extern const struct engine_driver zk_driver;

int engine_base_init(struct engine *engine, const struct engine_driver *driver, struct loop *loop,
		     const struct engine_options *options, const struct engine_callbacks *callbacks,
		     void *context, struct error *err);
void engine_base_done(struct engine *engine);

/* May anything but `left` be told? A callback may have left: ask after each. */
static inline bool engine_is_open(const struct engine *engine)
{
	return engine->state <= ENGINE_READY;
}

void engine_tell_commit(struct engine *engine, uint64_t index, const void *command, uint32_t size);
int engine_tell_install(struct engine *engine, uint64_t index, const void *image, size_t size,
			struct error *err);
int engine_take_snapshot(struct engine *engine, struct engine_image *out);
void engine_tell_ready(struct engine *engine);
void engine_tell_members(struct engine *engine, const struct engine_member *members,
			 uint32_t count);
void engine_tell_ended(struct engine *engine, const struct uuid *node, uint64_t start,
		       enum engine_end how);
void engine_tell_quorum(struct engine *engine, bool has_quorum); /* says changes only */
void engine_tell_failed(struct engine *engine, const struct error *err);
/* The engine may be gone afterwards. */
void engine_tell_left(struct engine *engine);

#endif
