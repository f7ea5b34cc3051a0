/*
 * Who may write to a volume with access=single (REPLICATION, O1): states in gateway_priv.h.
 *
 * The map names the owner, and a generation that rises with each move. A connection writes under the
 * generation at which it was opened, or that its own gateway brought about later by taking the
 * volume over from just there. When anybody else has, it is stale and never writes again.
 *
 * The first write of a loop that is not HELD waits: the hub proposes the move, and when the map has it
 * every loop that leads a PG of the volume's policy is asked whether it has applied it and older
 * writes are over (DRAIN). A PG whose primary changes meanwhile is asked about at the new one; one that
 * has none needs no question, since its next primary is made by a later entry of the log. Who
 * has said yes need not be asked again: it refuses older writes from then on.
 */
#include <stdlib.h>

#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/rule.h"
#include "lib/base/size.h"
#include "sheep/gateway/gateway_priv.h"
#include "sheep/gateway/hub.h"

enum drain_state { DRAIN_IDLE, DRAIN_ASKED, DRAIN_DONE };

/* One loop of one node that is asked. It outlives the volume while it is ASKED. */
struct drain {
	struct gateway *gateway;
	struct volume *volume; /* NULL: its answer matters to nobody any more */
	uint32_t node;
	uint16_t home; /* loop there */
	enum drain_state state;
	uint64_t index; /* of the map by which it was asked last */
	struct net_call call;
	struct pg_drain local;
	struct loop_mail mail;
	int result;
	struct cds_list_head link; /* volume->drains */
};

static void advance(struct volume *volume);

static void enter(struct volume *volume, enum owner_state next, const char *why)
{
	static const char *const names[OWNER_STATE_COUNT] = {"idle", "asked", "draining", "held"};

	log_debug("gateway: volume '%s' generation %llu: %s -> %s: %s", volume->name,
		  (unsigned long long)volume->generation, names[volume->owner_state], names[next],
		  why);
	volume->owner_state = next;
	volume->owner_retry_ns = 0;
	volume->owner_tries = 0;
}

/* ---- connections ---- */

static bool is_stale(const struct gateway_volume *connection)
{
	return RULE(O1_NO_RETAKE) && connection->generation != connection->shared->generation;
}

/* It never writes again. What it has that waits is ended, and its owner told, soon. */
static void lose(struct gateway_volume *connection)
{
	if (connection->is_lost)
		return;
	connection->is_lost = true;
	connection->gateway->counters.losses++;
	log_info(
		"gateway: volume '%s': a connection that was opened before generation %llu may not "
		"write any more",
		connection->shared->name, (unsigned long long)connection->shared->generation);
	loop_complete(connection->gateway->loop, &connection->lost_op, 0);
}

/* Generations have moved: by our own doing, or has somebody else had it? */
static void judge_connections(struct volume *volume, uint64_t old_generation)
{
	struct gateway_volume *connection, *next;

	cds_list_for_each_entry_safe(connection, next, &volume->connections, link) {
		if (volume->is_ours && connection->generation == old_generation)
			connection->generation = volume->generation;
		if (!is_stale(connection) || !connection->has_written)
			continue;
		lose(connection);
		io_abort_all(connection->gateway, NULL, connection, -E_STALE_GENERATION);
	}
}

/* ---- asking the primaries ---- */

static void retry_at(struct volume *volume, uint64_t time_ns)
{
	volume->owner_retry_ns = time_ns;
	volume->gateway->has_owner_retry = true;
	gateway_wake_at(volume->gateway, time_ns);
}

static void retry_later(struct volume *volume)
{
	struct gateway *gateway = volume->gateway;
	uint64_t pause = GATEWAY_RETRY_MIN_NS << min_of(volume->owner_tries, 10u);

	if (volume->owner_retry_ns)
		return;
	volume->owner_tries++;
	retry_at(volume, loop_now(gateway->loop) + min_of(pause, GATEWAY_PATIENCE_NS));
}

static void drain_done(struct drain *drain, int result)
{
	struct volume *volume = drain->volume;

	if (!volume) {
		free(drain);
		return;
	}
	drain->state = result == 0 ? DRAIN_DONE : DRAIN_IDLE;
	if (result < 0)
		log_debug("gateway: volume '%s': node %u does not confirm the move: %s",
			  volume->name, drain->node, err_text(result));
	if (result < 0)
		retry_later(volume);
	else
		advance(volume);
}

static void on_reply(struct net_call *call, int result)
{
	drain_done(container_of_type(call, struct drain, call), result);
}

static void on_local_done(struct pg_drain *local, int result)
{
	drain_done(container_of_type(local, struct drain, local), result);
}

static void deliver_back(struct loop *loop, struct loop_mail *mail)
{
	struct drain *drain = container_of_type(mail, struct drain, mail);

	drain_done(drain, drain->result);
}

static void on_neighbour_done(struct pg_drain *local, int result)
{
	struct drain *drain = container_of_type(local, struct drain, local);

	drain->result = result;
	drain->mail.deliver = deliver_back;
	loop_post(drain->gateway->loop, &drain->mail);
}

static void deliver_there(struct loop *loop, struct loop_mail *mail)
{
	struct drain *drain = container_of_type(mail, struct drain, mail);

	pg_drain_submit(drain->gateway->options.sets[drain->home], &drain->local);
}

static bool ask_self(struct drain *drain)
{
	struct gateway *gateway = drain->gateway;

	/* A map may tell of another start of this node, with other loops. */
	if (drain->home >= gateway->options.loop_count)
		return false;
	drain->state = DRAIN_ASKED;
	if (drain->home == gateway->options.loop_index) {
		drain->local.done = on_local_done;
		pg_drain_submit(gateway->options.sets[drain->home], &drain->local);
	} else {
		drain->local.done = on_neighbour_done;
		drain->mail.deliver = deliver_there;
		loop_post(gateway->options.loops[drain->home], &drain->mail);
	}
	return true;
}

/* False: it cannot be reached now. */
static bool ask(struct drain *drain)
{
	struct gateway *gateway = drain->gateway;
	const struct volume *volume = drain->volume;
	uint64_t index = cluster_index(gateway->map);

	if (drain->home == FRAME_ANY_LOOP)
		return false;
	drain->index = index;
	drain->local = (struct pg_drain){
		.volume = volume->id, .generation = volume->generation, .map_index = index};
	if (drain->node == gateway->node)
		return ask_self(drain);
	struct net_link *link = pg_peers_node_link(gateway->options.peers, drain->node, drain->home,
						   PEER_CLASS_CLIENT);
	if (!link)
		return false;
	const struct peer_drain body = {
		.volume = to_le64(volume->id),
		.generation = to_le64(volume->generation),
		.map_index = to_le64(index),
	};
	drain->state = DRAIN_ASKED;
	drain->call = (struct net_call){
		.op = PEER_OP_DRAIN, .body = &body, .body_size = sizeof(body), .done = on_reply};
	net_link_call(link, &drain->call);
	return true;
}

static struct drain *drain_get(struct volume *volume, uint32_t node, uint16_t home)
{
	struct drain *drain;

	cds_list_for_each_entry(drain, &volume->drains, link)
		if (drain->node == node && drain->home == home)
			return drain;
	drain = calloc(1, sizeof(*drain));
	if (!drain)
		return NULL;
	drain->gateway = volume->gateway;
	drain->volume = volume;
	drain->node = node;
	drain->home = home;
	cds_list_add_tail(&drain->link, &volume->drains);
	return drain;
}

/* All that was asked under an older generation is forgotten. */
static void drains_end(struct volume *volume)
{
	struct drain *drain, *next;

	cds_list_for_each_entry_safe(drain, next, &volume->drains, link) {
		cds_list_del(&drain->link);
		drain->volume = NULL;
		if (drain->state != DRAIN_ASKED)
			free(drain);
	}
}

/*
 * Ask whoever leads a PG of the policy by the map of now and was not asked. How many have not
 * confirmed, or -1: some could not be asked.
 */
static int ask_primaries(struct volume *volume)
{
	struct gateway *gateway = volume->gateway;
	int left = 0;
	bool is_stuck = false;

	for (uint32_t i = 0; i < volume->dirt_count; i++) {
		const struct cluster_pg *pg =
			cluster_pg(gateway->map, volume->policy << CLUSTER_PG_POLICY_SHIFT | i);
		uint32_t node = cluster_pg_primary_node(gateway->map, pg);
		if (!node)
			continue;
		struct drain *drain = drain_get(
			volume, node, pg_peers_loop_of(gateway->map, pg->primary, pg->id));
		/* It leads this PG only since it was asked: as a member it may have taken what an
		 * older primary sent after that. */
		if (drain && drain->state == DRAIN_DONE && drain->index < pg->reign)
			drain->state = DRAIN_IDLE;
		if (!drain || (drain->state == DRAIN_IDLE && !ask(drain)))
			is_stuck = true;
		else if (drain->state == DRAIN_ASKED)
			left++;
	}
	return is_stuck ? -1 : left;
}

/* ---- the states ---- */

static void release_waiters(struct volume *volume)
{
	CDS_LIST_HEAD(ios);

	cds_list_splice(&volume->owner_waiters, &ios);
	CDS_INIT_LIST_HEAD(&volume->owner_waiters);
	while (!cds_list_empty(&ios)) {
		struct gateway_io *io = cds_list_first_entry(&ios, struct gateway_io, link);
		cds_list_del(&io->link);
		io->stage = IO_RUNNING;
		io_pump(io);
	}
}

static void ask_hub(struct volume *volume)
{
	struct gateway *gateway = volume->gateway;

	if (hub_own(gateway->options.hub, gateway->options.hub_loop, volume->id,
		    volume->generation) < 0)
		retry_later(volume);
	else if (volume->owner_state == OWNER_IDLE)
		enter(volume, OWNER_ASKED, "a write has come");
}

static void drain(struct volume *volume)
{
	int left = RULE(O1_FENCE) ? ask_primaries(volume) : 0;

	if (left < 0)
		retry_later(volume);
	if (left != 0)
		return;
	drains_end(volume);
	volume->gateway->counters.moves++;
	enter(volume, OWNER_HELD, "all primaries have confirmed");
	release_waiters(volume);
}

/* Go on towards writing, while something waits for it. */
static void advance(struct volume *volume)
{
	if (volume->is_shared) {
		release_waiters(volume);
		return;
	}
	if (cds_list_empty(&volume->owner_waiters) && volume->owner_state != OWNER_DRAINING)
		return;
	if (!volume->is_ours) {
		if (volume->owner_state == OWNER_IDLE)
			ask_hub(volume);
		return;
	}
	if (volume->owner_state < OWNER_DRAINING)
		enter(volume, OWNER_DRAINING, "the map has us as owner");
	if (volume->owner_state == OWNER_DRAINING)
		drain(volume);
}

int owner_admit(struct gateway_io *io)
{
	struct gateway_volume *connection = io->volume;
	struct volume *volume = connection->shared;

	if (connection->is_lost || is_stale(connection)) {
		lose(connection);
		return -E_STALE_GENERATION;
	}
	connection->has_written = true;
	if (volume->is_shared || volume->owner_state == OWNER_HELD)
		return 1;
	io->stage = IO_WAITING;
	cds_list_add_tail(&io->link, &volume->owner_waiters);
	/* Soon: all of this turn wait for the same. */
	if (volume->owner_state == OWNER_IDLE && !volume->owner_retry_ns)
		retry_at(volume, loop_now(volume->gateway->loop));
	return 0;
}

void owner_apply(struct volume *volume, uint64_t old_generation)
{
	bool has_moved = volume->generation != old_generation;

	if (has_moved)
		drains_end(volume);
	if (has_moved || (!volume->is_ours && volume->owner_state > OWNER_ASKED))
		enter(volume, OWNER_IDLE, has_moved ? "another generation" : "not ours");
	if (has_moved)
		judge_connections(volume, old_generation);
	advance(volume);
}

void owner_retry(struct gateway *gateway, uint64_t now)
{
	struct volume *volume;

	if (!gateway->has_owner_retry)
		return;
	gateway->has_owner_retry = false;
	cds_list_for_each_entry(volume, &gateway->volumes, link) {
		if (!volume->owner_retry_ns)
			continue;
		if (volume->owner_retry_ns > now) {
			retry_at(volume, volume->owner_retry_ns);
			continue;
		}
		volume->owner_retry_ns = 0;
		advance(volume);
	}
}

void owner_end(struct volume *volume)
{
	assert(cds_list_empty(&volume->owner_waiters));
	drains_end(volume);
}
