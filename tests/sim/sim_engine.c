/* The simulated engine: proposals, hints, and the life of an instance (sim_engine_priv.h). */
#include "tests/sim/sim_engine.h"

#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_engine_priv.h"

#define SIM_RETRY_NS (50 * NS_PER_MS) /* a proposal that finds no quorum looks again */

static const struct engine_driver sim_driver;

static struct sim_instance *instance_of(struct engine *engine)
{
	assert(engine->driver == &sim_driver);
	return container_of_type(engine, struct sim_instance, engine);
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
		sim_log_append(in->log, flight->data, flight->size, now_ns + in->lag_ns);
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
	if (sim_draw(in->log, in->log->options.loss_ppm))
		return 0;
	flight = sim_must(malloc(sizeof(*flight) + size));
	flight->due_ns = loop_now(engine->loop) + sim_draw_delay(in->log);
	flight->twice = sim_draw(in->log, in->log->options.repeat_ppm);
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
	hint = sim_must(malloc(sizeof(*hint)));
	*hint = what;
	if (in->is_cut && what.kind == SIM_HINT_ENDED) {
		cds_list_add_tail(&hint->link, &in->held);
		return;
	}
	in->last_hint_ns =
		max_of(in->last_hint_ns, loop_now(in->engine.loop) + sim_draw_delay(in->log));
	hint->due_ns = in->last_hint_ns;
	cds_list_add_tail(&hint->link, &in->hints);
	sim_nudge(in);
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
		members = sim_must(realloc(members, (count + 1) * sizeof(*members)));
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
	sim_arm_delivery(in);
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

void sim_become_ready(struct sim_instance *in)
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
	node = sim_must(calloc(1, sizeof(*node)));
	node->member.node = *id;
	cds_list_add(&node->link, at);
	return node;
}

static void set_member(struct sim_node *node, struct sim_instance *in)
{
	free((void *)node->member.info);
	node->member = in->engine.self;
	node->member.info = sim_must(malloc(in->engine.self.info_size + 1));
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
	/* One that is cut off has lost its session: nothing keeps another start out any more. */
	if (node && node->instance && !node->instance->is_cut)
		return error_set(err, -EBUSY, "this node is running already");
	in = sim_must(calloc(1, sizeof(*in)));
	rc = engine_base_init(&in->engine, &sim_driver, loop, options, callbacks, context, err);
	if (rc < 0) {
		free(in);
		return rc;
	}
	in->engine.log = log->id;
	in->log = log;
	in->deliver_timer.fire = sim_on_deliver;
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
		sim_push_due(in, loop_now(loop), places);
	broadcast(log, (struct sim_hint){.kind = SIM_HINT_MEMBERS});
	cds_list_add_tail(&in->link, &log->instances);
	sim_arm_delivery(in);
	*out = &in->engine;
	return 0;
}

/* It takes no more part; what others learn of it is the caller's. */
static void detach(struct sim_instance *in, enum sim_life life)
{
	cds_list_del(&in->link);
	if (in->node->instance != in)
		return; /* a later start is there */
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
			if (log->has_quorum && !in->is_cut && sim_draw(log, 500000))
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
		sim_nudge(in);
	}
}

void sim_engine_set_cut(struct engine *engine, bool is_cut)
{
	struct sim_instance *in = instance_of(engine);
	struct sim_hint *hint, *next;

	if (in->is_cut == is_cut || !engine_is_open(engine))
		return;
	in->is_cut = is_cut;
	if (in->node->instance == in)
		in->node->life = is_cut ? SIM_GONE : SIM_ALIVE;
	cds_list_for_each_entry_safe(hint, next, &in->held, link) {
		cds_list_del(&hint->link);
		push_hint(in, *hint);
		free(hint);
	}
	push_hint(in, (struct sim_hint){.kind = SIM_HINT_QUORUM});
	broadcast(in->log, (struct sim_hint){.kind = SIM_HINT_MEMBERS});
	sim_nudge(in);
}

void sim_engine_set_lag(struct engine *engine, uint64_t lag_ns)
{
	struct sim_instance *in = instance_of(engine);
	uint64_t more = lag_ns - in->lag_ns;

	in->lag_ns = lag_ns;
	for (uint64_t i = in->place; i < in->log->end; i++)
		if (i >= in->dues_first)
			in->dues[i - in->dues_first] -= min_of(more, in->dues[i - in->dues_first]);
	in->last_due_ns -= min_of(more, in->last_due_ns);
	sim_nudge(in);
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
