/* The log of the simulated engine, and its entries on their way out (sim_engine_priv.h). */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_engine_priv.h"

uint64_t sim_draw_delay(struct sim_log *log)
{
	const struct sim_log_options *o = &log->options;

	return o->delay_min_ns + random_below(&log->random, o->delay_max_ns - o->delay_min_ns + 1);
}

bool sim_draw(struct sim_log *log, uint32_t ppm)
{
	return ppm && random_below(&log->random, 1000000) < ppm;
}

/* ---- the log ---- */

struct sim_log *sim_log_new(const struct sim_log_options *options)
{
	struct sim_log *log = sim_must(calloc(1, sizeof(*log)));

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

void sim_arm_delivery(struct sim_instance *in)
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
void sim_push_due(struct sim_instance *in, uint64_t now_ns, uint64_t places)
{
	uint64_t due =
		max_of(now_ns - in->lag_ns, loop_now(in->engine.loop)) + sim_draw_delay(in->log);

	if (in->place > in->dues_first) { /* drop what is behind us */
		uint64_t gone = in->place - in->dues_first;

		memmove(in->dues, in->dues + gone, (places - 1 - in->place) * sizeof(*in->dues));
		in->dues_first = in->place;
	}
	if (places - in->dues_first > in->dues_room) {
		in->dues_room = (places - in->dues_first) * 2 + 64;
		in->dues = sim_must(realloc(in->dues, in->dues_room * sizeof(*in->dues)));
	}
	in->last_due_ns = max_of(in->last_due_ns, due);
	in->dues[places - 1 - in->dues_first] = in->last_due_ns;
}

void sim_nudge(struct sim_instance *in)
{
	if (in->is_nudged)
		return;
	in->is_nudged = true;
	loop_post(in->engine.loop, &in->nudge);
}

void sim_log_append(struct sim_log *log, const void *data, uint32_t size, uint64_t now_ns)
{
	struct sim_entry *entry;
	struct sim_instance *in;

	if (log->end - log->first == log->room) {
		log->room = log->room * 2 + 64;
		log->entries = sim_must(realloc(log->entries, log->room * sizeof(*log->entries)));
	}
	log->last_index++;
	if (sim_draw(log, log->options.skip_ppm))
		log->last_index += 1 + random_below(&log->random, 5);
	entry = &log->entries[log->end - log->first];
	entry->index = log->last_index;
	entry->size = size;
	entry->data = sim_must(malloc(size));
	memcpy(entry->data, data, size);
	log->end++;
	cds_list_for_each_entry(in, &log->instances, link) {
		sim_push_due(in, now_ns, log->end);
		sim_nudge(in);
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
	void *copy = sim_must(malloc(entry->size)); /* what is read past its end is found */
	uint32_t size = entry->size;
	uint64_t index = entry->index;

	memcpy(copy, entry->data, size);
	in->place++;
	engine_tell_commit(&in->engine, index, copy, size);
	free(copy);
	compact(in);
}

void sim_on_deliver(struct loop_timer *timer)
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
		sim_become_ready(in);
	sim_arm_delivery(in);
}
