/*
 * The map, and our own commands until they are decided.
 *
 *   QUEUED --signed, proposed--> UNDECIDED --applied, or out of time--> (done)
 *                                 |     ^
 *                                 +-----+ proposed again: any may get lost on the way
 *
 * Always true: (1) a command is signed once, so that the log can tell it from its repetitions;
 * (2) all that are undecided lie within CLUSTER_SEQUENCE_WINDOW: the log takes what is
 * further below our newest one for a repetition; (3) a map that misses a command is never used,
 * nor given to others.
 */
#include "sheep/service/state.h"

#include <stdlib.h>

#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/size.h"

/* A proposal that has not come back for so long is made again: the engine may lose any. */
#define PROPOSE_AGAIN_NS (500 * NS_PER_MS)
#define AGAIN_MAX_NS	 (2 * NS_PER_S)
/* Undecided at a time; the rest waits in order. */
#define UNDECIDED_MAX (CLUSTER_SEQUENCE_WINDOW / 4)
/* Waiting commands that nobody waits for; beyond it, and without quorum, they are lost, which their senders expect. */
#define QUEUE_MAX 8192u

struct state {
	struct loop *loop;
	const struct state_callbacks *callbacks;
	void *context;
	struct engine *engine;
	struct cluster_map *map;
	struct cluster_proposer proposer;
	bool is_ready, has_quorum, is_leaving;
	bool is_broken; /* the map misses a command */
	/* Our newest command when an image was installed: what became of those up to it may be in
	 * the image, and nobody can tell. */
	uint64_t unsure_sequence;
	struct cds_list_head undecided, queue; /* struct proposal; undecided: by sequence */
	uint32_t undecided_count, queue_count;
	struct loop_timer timer;
};

/* ---- proposals ---- */

static void proposal_end(struct proposal *proposal, enum proto_status status, const char *text,
			 uint64_t id)
{
	cds_list_del(&proposal->link);
	cluster_command_free(proposal->command);
	proposal->command = NULL;
	proposal->done(proposal, status, text, id);
}

/* Of those that nobody waits for. */
static void on_nobodys_done(struct proposal *proposal, enum proto_status status, const char *text,
			    uint64_t id)
{
	free(proposal);
}

/*
 * Each time after twice the pause: an engine that is slow, and keeps all, must not get more than it commits.
 * Without quorum nothing is given to it at all, or everybody's repetitions would be the first that it
 * has to commit when it could go on.
 */
static void send(struct state *state, struct proposal *proposal)
{
	if (!state->has_quorum) {
		proposal->again_ns = UINT64_MAX; /* on_quorum() does it */
		return;
	}
	proposal->pause_ns = min_of(max_of(proposal->pause_ns * 2, PROPOSE_AGAIN_NS), AGAIN_MAX_NS);
	proposal->again_ns = loop_now(state->loop) + proposal->pause_ns;
	/* Refused or lost: the timer does it again. */
	(void)engine_propose(state->engine, proposal->command->data, proposal->command->size);
}

static bool may_send_more(struct state *state)
{
	const struct proposal *oldest;

	if (cds_list_empty(&state->undecided))
		return true;
	oldest = cds_list_first_entry(&state->undecided, struct proposal, link);
	return state->undecided_count < UNDECIDED_MAX &&
	       state->proposer.sequence + 1 - oldest->sequence < CLUSTER_SEQUENCE_WINDOW;
}

static void send_queued(struct state *state)
{
	while (!cds_list_empty(&state->queue) && may_send_more(state)) {
		struct proposal *next = cds_list_first_entry(&state->queue, struct proposal, link);
		if (!next->command || state->is_leaving)
			return; /* the timer ends it */
		cds_list_del(&next->link);
		state->queue_count--;
		cds_list_add_tail(&next->link, &state->undecided);
		state->undecided_count++;
		cluster_command_sign(next->command, &state->proposer);
		next->sequence = state->proposer.sequence;
		send(state, next);
	}
}

static void check_undecided(struct state *state, uint64_t now)
{
	struct proposal *proposal, *next;

	cds_list_for_each_entry_safe(proposal, next, &state->undecided, link) {
		if (now >= proposal->deadline_ns) {
			state->undecided_count--;
			proposal_end(
				proposal,
				state->has_quorum ? PROTO_STATUS_TIMED_OUT : PROTO_STATUS_NO_QUORUM,
				state->has_quorum
					? "the change was not committed in time; it may still be"
					: "no quorum: the change may happen when there is one",
				0);
		} else if (now >= proposal->again_ns) {
			send(state, proposal);
		}
	}
}

static void check_queue(struct state *state, uint64_t now)
{
	struct proposal *proposal, *next;

	cds_list_for_each_entry_safe(proposal, next, &state->queue, link) {
		if (proposal->command && now < proposal->deadline_ns && !state->is_leaving)
			continue;
		state->queue_count--;
		if (state->is_leaving)
			proposal_end(proposal, PROTO_STATUS_SHUTDOWN, "the sheep stops", 0);
		else if (!proposal->command)
			proposal_end(proposal, PROTO_STATUS_NO_MEMORY, "", 0);
		else
			proposal_end(proposal, PROTO_STATUS_TIMED_OUT, "too many changes wait", 0);
	}
}

static void on_timer(struct loop_timer *timer)
{
	struct state *state = container_of_type(timer, struct state, timer);
	uint64_t now = loop_now(state->loop);

	check_undecided(state, now);
	check_queue(state, now);
	send_queued(state);
	if ((!cds_list_empty(&state->undecided) || !cds_list_empty(&state->queue)) &&
	    !loop_timer_is_armed(timer))
		loop_timer_start(state->loop, timer, now + PROPOSE_AGAIN_NS / 2);
}

void state_propose(struct state *state, struct cluster_command *command, struct proposal *proposal,
		   uint64_t deadline_ns)
{
	uint64_t now = loop_now(state->loop);

	if (!proposal) {
		bool may_wait = command && !state->is_leaving && state->queue_count < QUEUE_MAX &&
				state->has_quorum;
		proposal = may_wait ? calloc(1, sizeof(*proposal)) : NULL;
		if (!proposal) {
			cluster_command_free(command);
			return;
		}
		proposal->done = on_nobodys_done;
	}
	proposal->command = command;
	proposal->sequence = 0;
	proposal->pause_ns = 0;
	proposal->deadline_ns = deadline_ns;
	cds_list_add_tail(&proposal->link, &state->queue);
	state->queue_count++;
	if (!command || state->is_leaving)
		loop_timer_start(state->loop, &state->timer, now);
	else if (!loop_timer_is_armed(&state->timer))
		loop_timer_start(state->loop, &state->timer, now + PROPOSE_AGAIN_NS / 2);
	send_queued(state);
}

static void decided(struct state *state, const struct cluster_result *result)
{
	struct proposal *proposal;

	if (result->start != state->proposer.start || result->sequence == 0)
		return;
	cds_list_for_each_entry(proposal, &state->undecided, link) {
		if (proposal->sequence != result->sequence)
			continue;
		state->undecided_count--;
		if (result->status == PROTO_STATUS_EXISTS &&
		    result->sequence <= state->unsure_sequence)
			proposal_end(proposal, PROTO_STATUS_TIMED_OUT,
				     "decided while this sheep was catching up: see whether it "
				     "happened",
				     0);
		else
			proposal_end(proposal, result->status, result->text, result->id);
		send_queued(state);
		return;
	}
}

/* ---- the engine's callbacks ---- */

/* An engine may count the votes of nodes. */
static void forget_removed(struct state *state, const struct cluster_map *map,
			   const struct cluster_result *result)
{
	for (uint32_t i = 0; i < result->nodes.count; i++) {
		const struct cluster_node *node =
			cluster_node(state->map, (uint32_t)result->nodes.ids[i]);

		if (node && !cluster_node(map, node->id))
			engine_forget(state->engine, &node->uuid);
	}
}

static void on_commit(void *context, uint64_t index, const void *command, uint32_t size)
{
	struct state *state = context;
	struct cluster_result result = {0};
	struct cluster_map *map;

	if (state->is_broken)
		return;
	map = cluster_apply(state->map, index, command, size, &result);
	if (!map) {
		/* To go on with the old map would be to differ from all others for ever. */
		struct error err = {0};
		state->is_broken = true;
		error_set(&err, -ENOMEM, "entry %llu of the log", (unsigned long long)index);
		state->callbacks->failed(state->context, &err);
		return;
	}
	forget_removed(state, map, &result);
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
	state->is_broken = false; /* the image is whole */
	state->unsure_sequence = state->proposer.sequence;
	if (state->is_ready)
		state->callbacks->applied(state->context, map, NULL);
	return 0;
}

static int on_snapshot(void *context, struct engine_image *out)
{
	struct state *state = context;

	if (state->is_broken)
		return -ENOMEM;
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
	struct proposal *proposal;

	if (has_quorum != state->has_quorum)
		log_info("engine %s: %s", engine_name(state->engine),
			 has_quorum ? "has quorum" : "no quorum: nothing can be changed");
	if (has_quorum && !state->has_quorum)
		cds_list_for_each_entry(proposal, &state->undecided, link)
			proposal->again_ns = 0;
	state->has_quorum = has_quorum;
	if (has_quorum && !cds_list_empty(&state->undecided))
		loop_timer_start(state->loop, &state->timer, loop_now(state->loop));
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

static int open_by_spec(const struct state_options *options,
			const struct engine_options *engine_options, struct state *state,
			struct error *err)
{
	int rc = engine_open(options->engine, options->loop, engine_options, &engine_callbacks,
			     state, &state->engine, err);

	return rc < 0 ? error_wrap(err, rc, "engine '%s'", options->engine) : rc;
}

int state_open(const struct state_options *options, struct state **out, struct error *err)
{
	struct state *state = calloc(1, sizeof(*state));
	const struct engine_options engine_options = {
		.self = {.node = options->node, .start = options->start},
		.log = options->log,
		.dir = options->engine_dir};
	int rc;

	if (!state)
		return error_set(err, -ENOMEM, "cluster state");
	state->loop = options->loop;
	state->callbacks = options->callbacks;
	state->context = options->context;
	state->proposer.start = options->start;
	state->timer.fire = on_timer;
	CDS_INIT_LIST_HEAD(&state->undecided);
	CDS_INIT_LIST_HEAD(&state->queue);
	state->map = cluster_map_new();
	if (!state->map) {
		free(state);
		return error_set(err, -ENOMEM, "cluster state");
	}
	if (options->open_engine)
		rc = options->open_engine(options->opener, options->loop, &engine_options,
					  &engine_callbacks, state, &state->engine, err);
	else
		rc = open_by_spec(options, &engine_options, state, err);
	if (rc < 0) {
		cluster_map_put(state->map);
		free(state);
		return rc;
	}
	*out = state;
	return 0;
}

void state_leave(struct state *state)
{
	struct proposal *proposal, *next;

	state->is_leaving = true;
	cds_list_for_each_entry_safe(proposal, next, &state->undecided, link) {
		state->undecided_count--;
		proposal_end(proposal, PROTO_STATUS_SHUTDOWN, "the sheep stops", 0);
	}
	check_queue(state, 0);
	engine_leave(state->engine);
}

void state_free(struct state *state)
{
	if (!state)
		return;
	assert(cds_list_empty(&state->undecided));
	check_queue(state, 0); /* what was asked after state_leave() */
	loop_timer_stop(state->loop, &state->timer);
	engine_free(state->engine);
	cluster_map_put(state->map);
	free(state);
}

static void forget_all(struct cds_list_head *proposals)
{
	struct proposal *proposal, *next;

	cds_list_for_each_entry_safe(proposal, next, proposals, link) {
		cluster_command_free(proposal->command);
		if (proposal->done == on_nobodys_done)
			free(proposal);
	}
}

void state_forget(struct state *state)
{
	forget_all(&state->undecided);
	forget_all(&state->queue);
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

void state_peer_link(struct state *state, const struct uuid *node, uint64_t start, bool is_closed)
{
	engine_link(state->engine, node, start, is_closed);
}

const char *state_engine_name(const struct state *state)
{
	return engine_name(state->engine);
}

struct uuid state_log(const struct state *state)
{
	return engine_log(state->engine);
}

void state_set_node(struct state *state, uint32_t node)
{
	state->proposer.node = node;
}

uint32_t state_node(const struct state *state)
{
	return state->proposer.node;
}
