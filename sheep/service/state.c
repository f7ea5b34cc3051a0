#include "sheep/service/state.h"

#include <stdlib.h>

#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/size.h"

/* A proposal that has not come back for so long is made again: the engine may lose any. */
#define PROPOSE_AGAIN_NS (500 * NS_PER_MS)
/* Undecided at a time; the rest waits in order. Well within CLUSTER_SEQUENCE_WINDOW. */
#define UNDECIDED_MAX (CLUSTER_SEQUENCE_WINDOW / 4)

struct pending {
	struct cds_list_head link; /* state.undecided, ascending by sequence, or state.queue */
	struct cluster_command *command;
	uint64_t sequence; /* 0: not signed yet */
	uint64_t proposed_ns;
	uint64_t deadline_ns;
	struct proposal *proposal;
	/* Without a command: what to say later, as nothing is called inside state_propose(). */
	enum proto_status status;
};

struct state {
	struct loop *loop;
	const struct state_callbacks *callbacks;
	void *context;
	struct engine *engine;
	struct cluster_map *map;
	struct cluster_proposer proposer;
	bool is_ready, has_quorum, is_leaving;
	struct cds_list_head undecided, queue;
	uint32_t undecided_count;
	struct loop_timer timer;
};

/* ---- proposals ---- */

static void pending_end(struct pending *pending, enum proto_status status, const char *text,
			uint64_t id)
{
	struct proposal *proposal = pending->proposal;

	cds_list_del(&pending->link);
	cluster_command_free(pending->command);
	free(pending);
	if (proposal)
		proposal->done(proposal, status, text, id);
}

static void send(struct state *state, struct pending *pending)
{
	pending->proposed_ns = loop_now(state->loop);
	/* Refused or lost: the timer does it again. */
	(void)engine_propose(state->engine, pending->command->data, pending->command->size);
}

static void send_queued(struct state *state)
{
	while (state->undecided_count < UNDECIDED_MAX && !cds_list_empty(&state->queue)) {
		struct pending *pending = cds_list_first_entry(&state->queue, struct pending, link);
		if (!pending->command)
			return; /* the timer ends it */
		cds_list_del(&pending->link);
		cds_list_add_tail(&pending->link, &state->undecided);
		state->undecided_count++;
		cluster_command_sign(pending->command, &state->proposer);
		pending->sequence = state->proposer.sequence;
		send(state, pending);
	}
}

static void on_timer(struct loop_timer *timer)
{
	struct state *state = container_of_type(timer, struct state, timer);
	uint64_t now = loop_now(state->loop);
	struct pending *pending, *next;

	cds_list_for_each_entry_safe(pending, next, &state->undecided, link) {
		if (now >= pending->deadline_ns) {
			state->undecided_count--;
			pending_end(
				pending,
				state->has_quorum ? PROTO_STATUS_TIMED_OUT : PROTO_STATUS_NO_QUORUM,
				state->has_quorum
					? "the change was not committed in time; it may still be"
					: "no quorum: the change may happen when there is one",
				0);
		} else if (now >= pending->proposed_ns + PROPOSE_AGAIN_NS) {
			send(state, pending);
		}
	}
	cds_list_for_each_entry_safe(pending, next, &state->queue, link)
		if (!pending->command)
			pending_end(pending, pending->status, "", 0);
		else if (now >= pending->deadline_ns)
			pending_end(pending, PROTO_STATUS_TIMED_OUT, "too many changes wait", 0);
	send_queued(state);
	if (!cds_list_empty(&state->undecided) || !cds_list_empty(&state->queue))
		loop_timer_start(state->loop, timer, now + PROPOSE_AGAIN_NS / 2);
}

void state_propose(struct state *state, struct cluster_command *command, struct proposal *proposal,
		   uint64_t deadline_ns)
{
	struct pending *pending = calloc(1, sizeof(*pending));
	uint64_t now = loop_now(state->loop);
	bool is_broken = !command || state->is_leaving;

	if (!pending) {
		/* Nobody can be told later: this is the one answer that may come inside the call. */
		cluster_command_free(command);
		if (proposal)
			proposal->done(proposal, PROTO_STATUS_NO_MEMORY, "", 0);
		return;
	}
	if (is_broken) {
		cluster_command_free(command);
		command = NULL;
	}
	*pending = (struct pending){
		.command = command,
		.deadline_ns = deadline_ns,
		.proposal = proposal,
		.status = state->is_leaving ? PROTO_STATUS_SHUTDOWN : PROTO_STATUS_NO_MEMORY,
	};
	cds_list_add_tail(&pending->link, &state->queue);
	if (is_broken)
		loop_timer_start(state->loop, &state->timer, now);
	else if (!loop_timer_is_armed(&state->timer))
		loop_timer_start(state->loop, &state->timer, now + PROPOSE_AGAIN_NS / 2);
	send_queued(state);
}

static void decided(struct state *state, const struct cluster_result *result)
{
	struct pending *pending;

	if (result->start != state->proposer.start || result->sequence == 0)
		return;
	cds_list_for_each_entry(pending, &state->undecided, link) {
		if (pending->sequence != result->sequence)
			continue;
		state->undecided_count--;
		pending_end(pending, result->status, result->text, result->id);
		send_queued(state);
		return;
	}
}

/* ---- the engine's callbacks ---- */

static void on_commit(void *context, uint64_t index, const void *command, uint32_t size)
{
	struct state *state = context;
	struct cluster_result result = {0};
	struct cluster_map *map = cluster_apply(state->map, index, command, size, &result);

	if (!map) {
		/* To go on with the old map would be to differ from all others for ever. */
		struct error err;
		error_set(&err, -ENOMEM, "entry %llu of the log", (unsigned long long)index);
		state->callbacks->failed(state->context, &err);
		return;
	}
	cluster_map_put(state->map);
	state->map = map;
	log_debug("log: %llu: %s: %s", (unsigned long long)index, cluster_command_name(result.type),
		  result.status == PROTO_STATUS_OK ? "applied" : result.text);
	if (state->is_ready) {
		state->callbacks->applied(state->context, map, &result);
		decided(state, &result);
	}
	cluster_result_done(&result);
}

static int on_install(void *context, uint64_t index, const void *image, size_t size,
		      struct error *err)
{
	struct state *state = context;
	struct cluster_map *map;
	int rc = cluster_decode(image, size, &map, err);

	if (rc < 0)
		return error_wrap(err, rc, "image of the log at %llu", (unsigned long long)index);
	if (cluster_index(map) != index) {
		cluster_map_put(map);
		return error_set(err, -E_CORRUPT,
				 "the image of the log at %llu is of another index",
				 (unsigned long long)index);
	}
	cluster_map_put(state->map);
	state->map = map;
	if (state->is_ready)
		state->callbacks->applied(state->context, map, NULL);
	return 0;
}

static int on_snapshot(void *context, struct engine_image *out)
{
	struct state *state = context;

	return cluster_encode(state->map, &out->data, &out->size);
}

static void on_ready(void *context)
{
	struct state *state = context;

	state->is_ready = true;
	state->callbacks->ready(state->context);
}

static void on_members(void *context, const struct engine_member *members, uint32_t count)
{
	struct state *state = context;

	state->callbacks->members(state->context, members, count);
}

static void on_ended(void *context, const struct uuid *node, uint64_t start, enum engine_end how)
{
	struct state *state = context;

	state->callbacks->ended(state->context, node, start);
}

static void on_quorum(void *context, bool has_quorum)
{
	struct state *state = context;

	if (has_quorum != state->has_quorum)
		log_info("engine %s: %s", engine_name(state->engine),
			 has_quorum ? "has quorum" : "no quorum: nothing can be changed");
	state->has_quorum = has_quorum;
	state->callbacks->quorum(state->context, has_quorum);
}

static void on_failed(void *context, const struct error *err)
{
	struct state *state = context;

	state->callbacks->failed(state->context, err);
}

static void on_left(void *context)
{
	struct state *state = context;

	state->callbacks->left(state->context);
}

static const struct engine_callbacks engine_callbacks = {
	.commit = on_commit,
	.install = on_install,
	.snapshot = on_snapshot,
	.ready = on_ready,
	.members = on_members,
	.ended = on_ended,
	.quorum = on_quorum,
	.failed = on_failed,
	.left = on_left,
};

/* ---- life ---- */

int state_open(struct loop *loop, const char *engine_spec, const struct uuid *node, uint64_t start,
	       const struct state_callbacks *callbacks, void *context, struct state **out,
	       struct error *err)
{
	struct state *state = calloc(1, sizeof(*state));
	const struct engine_options options = {.self = {.node = *node, .start = start}};
	int rc;

	if (!state)
		return error_set(err, -ENOMEM, "cluster state");
	state->loop = loop;
	state->callbacks = callbacks;
	state->context = context;
	state->proposer.start = start;
	state->timer.fire = on_timer;
	CDS_INIT_LIST_HEAD(&state->undecided);
	CDS_INIT_LIST_HEAD(&state->queue);
	state->map = cluster_map_new();
	if (!state->map) {
		free(state);
		return error_set(err, -ENOMEM, "cluster state");
	}
	rc = engine_open(engine_spec, loop, &options, &engine_callbacks, state, &state->engine,
			 err);
	if (rc < 0) {
		cluster_map_put(state->map);
		free(state);
		return error_wrap(err, rc, "engine '%s'", engine_spec);
	}
	*out = state;
	return 0;
}

static void drop_all(struct cds_list_head *list)
{
	struct pending *pending, *next;

	cds_list_for_each_entry_safe(pending, next, list, link)
		pending_end(pending, PROTO_STATUS_SHUTDOWN, "the sheep stops", 0);
}

void state_leave(struct state *state)
{
	state->is_leaving = true;
	drop_all(&state->undecided);
	drop_all(&state->queue);
	state->undecided_count = 0;
	loop_timer_stop(state->loop, &state->timer);
	engine_leave(state->engine);
}

void state_free(struct state *state)
{
	if (!state)
		return;
	assert(cds_list_empty(&state->undecided));
	loop_timer_stop(state->loop, &state->timer);
	drop_all(&state->queue);
	engine_free(state->engine);
	cluster_map_put(state->map);
	free(state);
}

struct cluster_map *state_map(const struct state *state)
{
	return state->map;
}

bool state_has_quorum(const struct state *state)
{
	return state->has_quorum;
}

const char *state_engine_name(const struct state *state)
{
	return engine_name(state->engine);
}

void state_set_node(struct state *state, uint32_t node)
{
	state->proposer.node = node;
}
