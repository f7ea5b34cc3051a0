/*
 * The simulated engine (sim_engine.h).
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
#include "tests/sim/sim_engine.h"

#include <stdlib.h>
#include <string.h>
#include <urcu/list.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "sheep/engine/engine_priv.h"

#define SIM_RETRY_NS (50 * NS_PER_MS) /* a proposal that finds no quorum looks again */

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
	struct cds_list_head flights, hints;
	struct cds_list_head held; /* ends that it hears of when it is no longer cut off */
	struct loop_mail nudge;
	struct loop_timer propose_timer, deliver_timer, hint_timer;
};

static const struct engine_driver sim_driver;

static void *must(void *memory)
{
	assert(memory);
	return memory;
}

static struct sim_instance *instance_of(struct engine *engine)
{
	assert(engine->driver == &sim_driver);
	return container_of_type(engine, struct sim_instance, engine);
}

static uint64_t draw_delay(struct sim_log *log)
{
	const struct sim_log_options *o = &log->options;

	return o->delay_min_ns + random_below(&log->random, o->delay_max_ns - o->delay_min_ns + 1);
}

static bool draw(struct sim_log *log, uint32_t ppm)
{
	return ppm && random_below(&log->random, 1000000) < ppm;
}

/* ---- the log ---- */

struct sim_log *sim_log_new(const struct sim_log_options *options)
{
	struct sim_log *log = must(calloc(1, sizeof(*log)));

	log->options = *options;
	sim_log_set_delay(log, options->delay_min_ns, options->delay_max_ns);
	random_init(&log->random, options->seed);
	log->id = uuid_make(&log->random);
	log->has_quorum = true;
	CDS_INIT_LIST_HEAD(&log->nodes);
	CDS_INIT_LIST_HEAD(&log->instances);
	CDS_INIT_LIST_HEAD(&log->graves);
	return log;
}

void sim_log_free(struct sim_log *log)
{
	struct sim_instance *grave, *next_grave;
	struct sim_node *node, *next;

	if (!log)
		return;
	assert(cds_list_empty(&log->instances));
	cds_list_for_each_entry_safe(grave, next_grave, &log->graves, link)
		free(grave);
	cds_list_for_each_entry_safe(node, next, &log->nodes, link) {
		free((void *)node->member.info);
		free(node);
	}
	for (uint64_t i = log->first; i < log->end; i++)
		free(log->entries[i - log->first].data);
	free(log->entries);
	free(log->image);
	free(log);
}

void sim_log_set_delay(struct sim_log *log, uint64_t min_ns, uint64_t max_ns)
{
	log->options.delay_min_ns = min_ns;
	log->options.delay_max_ns = max_of(min_ns, max_ns);
}

uint64_t sim_log_count(const struct sim_log *log)
{
	return log->end;
}

uint64_t sim_log_last_index(const struct sim_log *log)
{
	return log->last_index;
}

/* ---- commits, on their way out ---- */

static void arm_delivery(struct sim_instance *in)
{
	bool ready_is_due = in->engine.state == ENGINE_STARTING && in->place >= in->ready_at;

	if (in->is_cut || !engine_is_open(&in->engine) ||
	    (in->engine.state == ENGINE_STARTING && !in->log->has_quorum))
		return;
	if (ready_is_due || in->wants_image || in->place < in->log->first)
		loop_timer_start(in->engine.loop, &in->deliver_timer, loop_now(in->engine.loop));
	else if (in->place < in->log->end)
		loop_timer_start(in->engine.loop, &in->deliver_timer,
				 in->dues[in->place - in->dues_first]);
}

/* The entry at log->end - 1 is new, or (at start) was there before: when does @in see it? */
static void push_due(struct sim_instance *in, uint64_t now_ns, uint64_t places)
{
	uint64_t due = max_of(now_ns, loop_now(in->engine.loop)) + draw_delay(in->log);

	if (in->place > in->dues_first) { /* drop what is behind us */
		uint64_t gone = in->place - in->dues_first;

		memmove(in->dues, in->dues + gone, (places - 1 - in->place) * sizeof(*in->dues));
		in->dues_first = in->place;
	}
	if (places - in->dues_first > in->dues_room) {
		in->dues_room = (places - in->dues_first) * 2 + 64;
		in->dues = must(realloc(in->dues, in->dues_room * sizeof(*in->dues)));
	}
	in->last_due_ns = max_of(in->last_due_ns, due);
	in->dues[places - 1 - in->dues_first] = in->last_due_ns;
}

static void nudge(struct sim_instance *in)
{
	if (in->is_nudged)
		return;
	in->is_nudged = true;
	loop_post(in->engine.loop, &in->nudge);
}

static void log_append(struct sim_log *log, const void *data, uint32_t size, uint64_t now_ns)
{
	struct sim_entry *entry;
	struct sim_instance *in;

	if (log->end - log->first == log->room) {
		log->room = log->room * 2 + 64;
		log->entries = must(realloc(log->entries, log->room * sizeof(*log->entries)));
	}
	log->last_index++;
	if (draw(log, log->options.skip_ppm))
		log->last_index += 1 + random_below(&log->random, 5);
	entry = &log->entries[log->end - log->first];
	entry->index = log->last_index;
	entry->size = size;
	entry->data = must(malloc(size));
	memcpy(entry->data, data, size);
	log->end++;
	cds_list_for_each_entry(in, &log->instances, link) {
		push_due(in, now_ns, log->end);
		nudge(in);
	}
}

/* @in, which has just delivered, makes the next image; old entries go, but for a few. */
static void compact(struct sim_instance *in)
{
	struct sim_log *log = in->log;
	uint64_t step = log->options.compact_entries;
	struct engine_image image;
	uint64_t first;

	if (!step || in->place < log->image_place + step || !engine_is_open(&in->engine) ||
	    engine_take_snapshot(&in->engine, &image) < 0)
		return;
	free(log->image);
	log->image = image.data;
	log->image_size = image.size;
	log->image_index = in->engine.index;
	log->image_place = in->place;
	first = log->image_place - random_below(&log->random, step);
	for (uint64_t i = log->first; i < first; i++)
		free(log->entries[i - log->first].data);
	if (first > log->first) {
		memmove(log->entries, log->entries + (first - log->first),
			(log->end - first) * sizeof(*log->entries));
		log->first = first;
	}
}

static void deliver_image(struct sim_instance *in)
{
	struct sim_log *log = in->log;
	struct error err = {0};

	in->wants_image = false;
	in->place = log->image_place;
	if (engine_tell_install(&in->engine, log->image_index, log->image, log->image_size, &err) <
	    0)
		engine_tell_failed(&in->engine, &err);
}

static void deliver_entry(struct sim_instance *in)
{
	const struct sim_entry *entry = &in->log->entries[in->place - in->log->first];
	void *copy = must(malloc(entry->size)); /* what is read past its end is found */
	uint32_t size = entry->size;
	uint64_t index = entry->index;

	memcpy(copy, entry->data, size);
	in->place++;
	engine_tell_commit(&in->engine, index, copy, size);
	free(copy);
	compact(in);
}

static void push_hint(struct sim_instance *in, struct sim_hint what);

static void become_ready(struct sim_instance *in)
{
	struct sim_node *node;

	engine_tell_ready(&in->engine);
	push_hint(in, (struct sim_hint){.kind = SIM_HINT_MEMBERS});
	push_hint(in, (struct sim_hint){.kind = SIM_HINT_QUORUM});
	cds_list_for_each_entry(node, &in->log->nodes, link)
		if (node->life == SIM_DIED || node->life == SIM_LEFT)
			push_hint(in, (struct sim_hint){.kind = SIM_HINT_ENDED,
							.node = node->member.node,
							.start = node->member.start,
							.how = node->life == SIM_LEFT
								       ? ENGINE_END_LEFT
								       : ENGINE_END_DIED});
}

static void on_deliver(struct loop_timer *timer)
{
	struct sim_instance *in = container_of_type(timer, struct sim_instance, deliver_timer);
	struct sim_log *log = in->log;
	uint64_t now = loop_now(in->engine.loop);

	if (in->is_dead || in->is_cut || !engine_is_open(&in->engine) ||
	    (in->engine.state == ENGINE_STARTING && !log->has_quorum))
		return;
	if (in->wants_image || in->place < log->first)
		deliver_image(in);
	else if (in->place < log->end && in->dues[in->place - in->dues_first] <= now)
		deliver_entry(in);
	if (in->engine.state == ENGINE_STARTING && in->place >= in->ready_at)
		become_ready(in);
	arm_delivery(in);
}

/* ---- proposals, on their way in ---- */

static void arm_proposals(struct sim_instance *in)
{
	struct sim_flight *flight;
	uint64_t due = UINT64_MAX;

	cds_list_for_each_entry(flight, &in->flights, link)
		due = min_of(due, flight->due_ns);
	if (due == UINT64_MAX)
		loop_timer_stop(in->engine.loop, &in->propose_timer);
	else
		loop_timer_start(in->engine.loop, &in->propose_timer, due);
}

static void land(struct sim_instance *in, struct sim_flight *flight, uint64_t now_ns)
{
	for (int i = 0; i < (flight->twice ? 2 : 1); i++)
		log_append(in->log, flight->data, flight->size, now_ns);
	cds_list_del(&flight->link);
	free(flight);
}

static void on_proposals(struct loop_timer *timer)
{
	struct sim_instance *in = container_of_type(timer, struct sim_instance, propose_timer);
	uint64_t now = loop_now(in->engine.loop);
	bool can = in->log->has_quorum && !in->is_cut && engine_is_open(&in->engine);
	struct sim_flight *flight, *next;

	if (in->is_dead)
		return;
	cds_list_for_each_entry_safe(flight, next, &in->flights, link) {
		if (flight->due_ns > now)
			continue;
		if (can)
			land(in, flight, now);
		else
			flight->due_ns = now + SIM_RETRY_NS;
	}
	arm_proposals(in);
}

static int sim_propose(struct engine *engine, const void *command, uint32_t size)
{
	struct sim_instance *in = instance_of(engine);
	struct sim_flight *flight, *other;
	uint64_t queued = size;
	uint32_t count = 0;

	cds_list_for_each_entry(other, &in->flights, link) {
		queued += other->size;
		count++;
	}
	if (queued > ENGINE_QUEUE_MAX || count >= ENGINE_QUEUE_COUNT)
		return -EAGAIN;
	if (draw(in->log, in->log->options.loss_ppm))
		return 0;
	flight = must(malloc(sizeof(*flight) + size));
	flight->due_ns = loop_now(engine->loop) + draw_delay(in->log);
	flight->twice = draw(in->log, in->log->options.repeat_ppm);
	flight->size = size;
	memcpy(flight->data, command, size);
	cds_list_add_tail(&flight->link, &in->flights);
	arm_proposals(in);
	return 0;
}

/* ---- hints ---- */

static void push_hint(struct sim_instance *in, struct sim_hint what)
{
	struct sim_hint *hint;

	/* The rest is told when it is ready. */
	if (in->engine.state == ENGINE_STARTING && what.kind != SIM_HINT_FAIL)
		return;
	hint = must(malloc(sizeof(*hint)));
	*hint = what;
	if (in->is_cut && what.kind == SIM_HINT_ENDED) {
		cds_list_add_tail(&hint->link, &in->held);
		return;
	}
	in->last_hint_ns =
		max_of(in->last_hint_ns, loop_now(in->engine.loop) + draw_delay(in->log));
	hint->due_ns = in->last_hint_ns;
	cds_list_add_tail(&hint->link, &in->hints);
	nudge(in);
}

/* To all who can hear it. */
static void broadcast(struct sim_log *log, struct sim_hint what)
{
	struct sim_instance *in;

	cds_list_for_each_entry(in, &log->instances, link)
		push_hint(in, what);
}

static void broadcast_end(struct sim_node *node, struct sim_log *log, enum engine_end how)
{
	broadcast(log, (struct sim_hint){.kind = SIM_HINT_ENDED,
					 .node = node->member.node,
					 .start = node->member.start,
					 .how = how});
}

static void tell_members(struct sim_instance *in)
{
	struct engine_member *members = NULL;
	struct sim_node *node;
	uint32_t count = 0;

	cds_list_for_each_entry(node, &in->log->nodes, link) {
		if (in->is_cut ? node != in->node
			       : node->life != SIM_ALIVE && node->life != SIM_HIDDEN)
			continue;
		members = must(realloc(members, (count + 1) * sizeof(*members)));
		members[count++] = node->member;
	}
	engine_tell_members(&in->engine, members, count);
	free(members);
}

static void arm_hints(struct sim_instance *in)
{
	struct sim_hint *first;

	if (cds_list_empty(&in->hints))
		return;
	first = cds_list_first_entry(&in->hints, struct sim_hint, link);
	loop_timer_start(in->engine.loop, &in->hint_timer, first->due_ns);
}

static void on_nudge(struct loop *loop, struct loop_mail *mail)
{
	struct sim_instance *in = container_of_type(mail, struct sim_instance, nudge);

	in->is_nudged = false;
	if (in->is_dead)
		return;
	arm_delivery(in);
	arm_hints(in);
}

static void on_hint(struct loop_timer *timer)
{
	struct sim_instance *in = container_of_type(timer, struct sim_instance, hint_timer);
	struct sim_hint *first, hint;
	struct error err = {0};

	if (in->is_dead)
		return;
	first = cds_list_first_entry(&in->hints, struct sim_hint, link);
	hint = *first;
	cds_list_del(&first->link);
	free(first);
	arm_hints(in);
	switch (hint.kind) {
	case SIM_HINT_ENDED:
		engine_tell_ended(&in->engine, &hint.node, hint.start, hint.how);
		break;
	case SIM_HINT_MEMBERS:
		tell_members(in);
		break;
	case SIM_HINT_QUORUM: /* what is true now: one on its way may be overtaken by a cut */
		engine_tell_quorum(&in->engine, in->log->has_quorum && !in->is_cut);
		break;
	case SIM_HINT_FAIL:
		error_set(&err, -EIO, "%s", hint.why);
		engine_tell_failed(&in->engine, &err);
		break;
	case SIM_HINT_LEFT:
		engine_tell_left(&in->engine);
		break;
	}
}

/* ---- life of an instance ---- */

static struct sim_node *find_node(struct sim_log *log, const struct uuid *id)
{
	struct sim_node *node;

	cds_list_for_each_entry(node, &log->nodes, link)
		if (uuid_is_equal(&node->member.node, id))
			return node;
	return NULL;
}

static struct sim_node *add_node(struct sim_log *log, const struct uuid *id)
{
	struct cds_list_head *at = &log->nodes;
	struct sim_node *node, *other;

	cds_list_for_each_entry(other, &log->nodes, link) {
		if (memcmp(other->member.node.bytes, id->bytes, sizeof(id->bytes)) > 0)
			break;
		at = &other->link;
	}
	node = must(calloc(1, sizeof(*node)));
	node->member.node = *id;
	cds_list_add(&node->link, at);
	return node;
}

static void set_member(struct sim_node *node, struct sim_instance *in)
{
	free((void *)node->member.info);
	node->member = in->engine.self;
	node->member.info = must(malloc(in->engine.self.info_size + 1));
	memcpy((void *)node->member.info, in->engine.self.info, in->engine.self.info_size);
	node->life = SIM_ALIVE;
	node->instance = in;
	in->node = node;
}

int sim_engine_open(struct sim_log *log, struct loop *loop, const struct engine_options *options,
		    const struct engine_callbacks *callbacks, void *context, struct engine **out,
		    struct error *err)
{
	struct sim_node *node = find_node(log, &options->self.node);
	struct sim_instance *in;
	int rc;

	if (!uuid_is_null(&options->log) && !uuid_is_equal(&options->log, &log->id))
		return error_set(err, -E_WRONG_CLUSTER, "simulated log");
	if (node && node->instance)
		return error_set(err, -EBUSY, "this node is running already");
	in = must(calloc(1, sizeof(*in)));
	rc = engine_base_init(&in->engine, &sim_driver, loop, options, callbacks, context, err);
	if (rc < 0) {
		free(in);
		return rc;
	}
	in->engine.log = log->id;
	in->log = log;
	in->deliver_timer.fire = on_deliver;
	in->propose_timer.fire = on_proposals;
	in->hint_timer.fire = on_hint;
	in->nudge.deliver = on_nudge;
	CDS_INIT_LIST_HEAD(&in->flights);
	CDS_INIT_LIST_HEAD(&in->hints);
	CDS_INIT_LIST_HEAD(&in->held);
	set_member(node ? node : add_node(log, &options->self.node), in);
	in->ready_at = log->end;
	in->wants_image = log->image_place && random_below(&log->random, 2);
	in->dues_first = log->first;
	for (uint64_t places = log->first + 1; places <= log->end; places++)
		push_due(in, loop_now(loop), places);
	broadcast(log, (struct sim_hint){.kind = SIM_HINT_MEMBERS});
	cds_list_add_tail(&in->link, &log->instances);
	arm_delivery(in);
	*out = &in->engine;
	return 0;
}

/* It takes no more part; what others learn of it is the caller's. */
static void detach(struct sim_instance *in, enum sim_life life)
{
	cds_list_del(&in->link);
	in->node->instance = NULL;
	in->node->life = life;
}

static void drop_queues(struct sim_instance *in)
{
	struct sim_flight *flight, *next_flight;
	struct sim_hint *hint, *next_hint;

	cds_list_for_each_entry_safe(flight, next_flight, &in->flights, link)
		free(flight);
	cds_list_for_each_entry_safe(hint, next_hint, &in->hints, link)
		free(hint);
	cds_list_for_each_entry_safe(hint, next_hint, &in->held, link)
		free(hint);
	CDS_INIT_LIST_HEAD(&in->flights);
	CDS_INIT_LIST_HEAD(&in->hints);
	CDS_INIT_LIST_HEAD(&in->held);
}

/* What is left is its struct, with timers and mail that a loop may know. */
static void bury(struct sim_instance *in)
{
	in->is_dead = true;
	drop_queues(in);
	free(in->dues);
	engine_base_done(&in->engine);
	cds_list_add(&in->link, &in->log->graves);
}

static void sim_free(struct engine *engine)
{
	struct sim_instance *in = instance_of(engine);

	loop_timer_stop(engine->loop, &in->deliver_timer);
	loop_timer_stop(engine->loop, &in->propose_timer);
	loop_timer_stop(engine->loop, &in->hint_timer);
	bury(in);
}

static void sim_leave(struct engine *engine)
{
	struct sim_instance *in = instance_of(engine);

	detach(in, in->is_cut ? SIM_GONE : SIM_LEFT); /* nobody hears who is cut off */
	drop_queues(in);
	if (!in->is_cut)
		broadcast_end(in->node, in->log, ENGINE_END_LEFT);
	broadcast(in->log, (struct sim_hint){.kind = SIM_HINT_MEMBERS});
	push_hint(in, (struct sim_hint){.kind = SIM_HINT_LEFT});
}

void sim_engine_crash(struct engine *engine, enum sim_death death)
{
	static const enum sim_life life_after[] = {
		[SIM_DEATH_CERTAIN] = SIM_DIED,
		[SIM_DEATH_UNKNOWN] = SIM_GONE,
		[SIM_DEATH_SILENT] = SIM_HIDDEN,
	};
	struct sim_instance *in = instance_of(engine);
	struct sim_log *log = in->log;
	struct sim_flight *flight, *next;

	if (in->engine.state < ENGINE_LEAVING) {
		detach(in, life_after[death]);
		cds_list_for_each_entry_safe(flight, next, &in->flights, link)
			if (log->has_quorum && !in->is_cut && draw(log, 500000))
				land(in, flight, flight->due_ns);
		if (death == SIM_DEATH_CERTAIN)
			broadcast_end(in->node, log, ENGINE_END_DIED);
		if (death != SIM_DEATH_SILENT)
			broadcast(log, (struct sim_hint){.kind = SIM_HINT_MEMBERS});
	}
	bury(in);
}

void sim_log_confirm_death(struct sim_log *log, const struct uuid *id, uint64_t start)
{
	struct sim_node *node = find_node(log, id);

	if (!node || node->instance || node->member.start != start)
		return;
	node->life = SIM_DIED;
	broadcast_end(node, log, ENGINE_END_DIED);
	broadcast(log, (struct sim_hint){.kind = SIM_HINT_MEMBERS});
}

void sim_log_set_quorum(struct sim_log *log, bool has_quorum)
{
	struct sim_instance *in;

	log->has_quorum = has_quorum;
	cds_list_for_each_entry(in, &log->instances, link) {
		push_hint(in, (struct sim_hint){.kind = SIM_HINT_QUORUM});
		nudge(in);
	}
}

void sim_engine_set_cut(struct engine *engine, bool is_cut)
{
	struct sim_instance *in = instance_of(engine);
	struct sim_hint *hint, *next;

	if (in->is_cut == is_cut || !engine_is_open(engine))
		return;
	in->is_cut = is_cut;
	in->node->life = is_cut ? SIM_GONE : SIM_ALIVE;
	cds_list_for_each_entry_safe(hint, next, &in->held, link) {
		cds_list_del(&hint->link);
		push_hint(in, *hint);
		free(hint);
	}
	push_hint(in, (struct sim_hint){.kind = SIM_HINT_QUORUM});
	broadcast(in->log, (struct sim_hint){.kind = SIM_HINT_MEMBERS});
	nudge(in);
}

void sim_engine_fail(struct engine *engine, const char *why)
{
	push_hint(instance_of(engine), (struct sim_hint){.kind = SIM_HINT_FAIL, .why = why});
}

static int sim_check(const char *rest, struct error *err)
{
	return 0;
}

static const struct engine_driver sim_driver = {
	.name = "sim",
	.syntax = "sim",
	.check = sim_check,
	.propose = sim_propose,
	.leave = sim_leave,
	.free = sim_free,
};
