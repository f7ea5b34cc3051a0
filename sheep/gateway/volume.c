/*
 * Volumes that are open on this loop, and the map as the loop has it.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "sheep/gateway/gateway_priv.h"
#include "sheep/gateway/hub.h"

/* ---- layers ---- */

struct chain *chain_get(struct chain *chain)
{
	chain->refs++;
	return chain;
}

void chain_put(struct chain *chain)
{
	if (chain && --chain->refs == 0)
		free(chain);
}

static struct chain *chain_new(const struct cluster_volume *volume)
{
	struct chain *chain = calloc(1, sizeof(*chain));

	if (!chain)
		return NULL;
	chain->refs = 1;
	chain->count = volume->layer_count;
	memcpy(chain->layers, volume->layers, volume->layer_count * sizeof(volume->layers[0]));
	for (uint32_t i = 1; i < chain->count; i++)
		chain->below[i - 1] = to_le64(chain->layers[i]);
	return chain;
}

static bool chain_is(const struct chain *chain, const struct cluster_volume *volume)
{
	return chain->count == volume->layer_count &&
	       memcmp(chain->layers, volume->layers, chain->count * sizeof(chain->layers[0])) == 0;
}

/* ---- volumes ---- */

/* Does anybody but this node have it open for writing? */
static bool has_other_writers(const struct gateway *gateway, const struct cluster_volume *v)
{
	for (uint32_t i = 0; i < v->opener_count; i++)
		if (v->openers[i].session != peer_session_node(gateway->session) &&
		    !(v->openers[i].flags & LOG_OPEN_READ_ONLY))
			return true;
	return false;
}

/*
 * May others write, by this map? Several loops are strangers to each other: a connection may move
 * between them.
 */
static bool others_may_write(const struct volume *volume, const struct cluster_volume *v)
{
	const struct gateway *gateway = volume->gateway;

	if (gateway->options.loop_count > 1)
		return true;
	return volume->is_shared ? has_other_writers(gateway, v) : !volume->is_ours;
}

/* Take over what the map says. -ENOMEM leaves the volume as it was. */
static int volume_apply(struct volume *volume, const struct cluster_volume *v)
{
	uint64_t old_generation = volume->generation;

	if (!volume->chain || !chain_is(volume->chain, v)) {
		struct chain *chain = chain_new(v);
		if (!chain)
			return -ENOMEM;
		chain_put(volume->chain);
		volume->chain = chain;
	}
	(void)text_copy(volume->name, sizeof(volume->name), v->name);
	volume->size_bytes = v->size_bytes;
	volume->generation = v->generation;
	volume->family = v->family;
	volume->policy = v->policy;
	volume->is_durable = v->durability == CLUSTER_DURABILITY_ALWAYS;
	volume->is_shared = v->access == CLUSTER_ACCESS_SHARED;
	volume->is_ours = !volume->is_shared && v->owner &&
			  v->owner == peer_session_node(volume->gateway->session);
	/* Once seen it stays, until a FLUSH of everything while nobody else writes. Whoever owned it
	 * before us has written. */
	volume->has_others = others_may_write(volume, v);
	if (volume->has_others || volume->generation != old_generation)
		volume->has_strangers = true;
	owner_apply(volume, old_generation);
	return 0;
}

static void volume_free(struct volume *volume)
{
	chain_put(volume->chain);
	free(volume->dirt);
	free(volume);
}

static void volume_forget(struct volume *volume)
{
	owner_end(volume);
	flush_cancel(volume);
	cds_list_del(&volume->link);
	volume_free(volume);
}

static bool is_dirty(const struct volume *volume)
{
	for (uint32_t i = 0; i < volume->dirt_count; i++)
		if (volume->dirt[i].written > volume->dirt[i].flushed)
			return true;
	return volume->has_untold;
}

void volume_release(struct volume *volume)
{
	if (volume->uses > 0 || volume->flush)
		return;
	/* What was acknowledged and not flushed is remembered: should it get lost, the FLUSH of a
	 * client that comes back says so. */
	if (volume->is_gone || !is_dirty(volume))
		volume_forget(volume);
	else
		volume->has_strangers = true;
}

static struct volume *volume_find(struct gateway *gateway, uint64_t id)
{
	struct volume *volume;

	cds_list_for_each_entry(volume, &gateway->volumes, link)
		if (volume->id == id && !volume->is_gone)
			return volume;
	return NULL;
}

static int volume_new(struct gateway *gateway, const struct gateway_open *open, struct volume **out)
{
	const struct cluster_volume *v = cluster_volume(gateway->map, open->id);

	if (!v)
		return -E_NOT_FOUND;
	struct volume *volume = calloc(1, sizeof(*volume));
	if (!volume)
		return -ENOMEM;
	volume->gateway = gateway;
	volume->id = open->id;
	/* A gateway that has just begun does not know what was written before (F1). */
	volume->has_strangers = true;
	volume->dirt_count = cluster_policy(gateway->map, v->policy)->pg_count;
	volume->dirt = calloc(volume->dirt_count, sizeof(*volume->dirt));
	CDS_INIT_LIST_HEAD(&volume->connections);
	CDS_INIT_LIST_HEAD(&volume->owner_waiters);
	CDS_INIT_LIST_HEAD(&volume->drains);
	CDS_INIT_LIST_HEAD(&volume->flush_waiters);
	if (!volume->dirt || volume_apply(volume, v) < 0) {
		volume_free(volume);
		return -ENOMEM;
	}
	/* A client of another loop of ours may come to this one: losses since the node's first use count,
	 * though nobody was here. (A loss epoch is a log index, too.) */
	for (uint32_t i = 0; i < volume->dirt_count; i++) {
		const struct cluster_pg *pg =
			cluster_pg(gateway->map, v->policy << CLUSTER_PG_POLICY_SHIFT | i);
		volume->dirt[i].loss_epoch = min_of(pg->loss_epoch, open->since);
	}
	cds_list_add_tail(&volume->link, &gateway->volumes);
	*out = volume;
	return 0;
}

uint64_t gateway_volume_size(const struct gateway_volume *volume)
{
	return volume->shared->size_bytes;
}

const char *gateway_volume_name(const struct gateway_volume *volume)
{
	return volume->shared->name;
}

/* ---- open and close ---- */

static void on_lost_op(struct loop_op *op, int result)
{
	struct gateway_volume *connection = container_of_type(op, struct gateway_volume, lost_op);

	if (!connection->is_closed) {
		connection->is_ending = true;
		io_abort_all(connection->gateway, NULL, connection, -E_STALE_GENERATION);
		connection->is_ending = false;
	}
	if (connection->is_closed)
		free(connection);
	else if (connection->lost)
		connection->lost(connection->context);
}

static struct gateway_volume *connection_new(struct volume *volume, unsigned flags)
{
	struct gateway_volume *connection = calloc(1, sizeof(*connection));

	if (!connection)
		return NULL;
	connection->shared = volume;
	connection->gateway = volume->gateway;
	connection->flags = flags;
	connection->generation = volume->generation;
	connection->lost_op.done = on_lost_op;
	/* One whose forerunner was not told of a loss is told. */
	connection->losses_told = volume->losses - (volume->has_untold ? 1 : 0);
	volume->has_untold = false;
	volume->uses++;
	cds_list_add_tail(&connection->link, &volume->connections);
	return connection;
}

static int open_here(struct gateway *gateway, struct gateway_open *open)
{
	struct volume *volume = volume_find(gateway, open->id);
	int rc = volume ? 0 : volume_new(gateway, open, &volume);

	if (rc < 0)
		return rc;
	open->volume = connection_new(volume, open->flags);
	if (open->volume)
		return 0;
	volume_release(volume);
	return -ENOMEM;
}

/* The hub's answer. The maps that led to it were posted here before it. */
static void deliver_opened(struct loop *loop, struct loop_mail *mail)
{
	struct gateway_open *open = container_of_type(mail, struct gateway_open, mail);
	struct gateway *gateway = open->gateway;
	int result = open->result;

	if (result == 0) {
		assert(cluster_index(gateway->map) >= open->index);
		result = open_here(gateway, open);
		if (result < 0)
			hub_close(gateway->options.hub, gateway->options.hub_loop, open->id,
				  open->flags, false);
	}
	open->done(open, result);
}

static void deliver_open(struct loop *loop, struct loop_mail *mail)
{
	struct gateway_open *open = container_of_type(mail, struct gateway_open, mail);

	open->mail.deliver = deliver_opened;
	hub_open(open->gateway->options.hub, open);
}

void gateway_open(struct gateway *gateway, struct gateway_open *open, const char *name,
		  unsigned flags)
{
	open->gateway = gateway;
	open->flags = flags;
	open->volume = NULL;
	if (text_copy(open->name, sizeof(open->name), name) < 0)
		open->name[0] = '\0'; /* no volume has this name */
	open->mail.deliver = deliver_open;
	loop_post(gateway->options.hub_loop, &open->mail);
}

void gateway_close(struct gateway_volume *connection)
{
	struct volume *volume = connection->shared;
	struct gateway *gateway = connection->gateway;

	assert(volume->uses > 0);
	if (connection->losses_told != volume->losses)
		volume->has_untold = true;
	hub_close(gateway->options.hub, gateway->options.hub_loop, volume->id, connection->flags,
		  volume->uses == 1 && is_dirty(volume));
	cds_list_del(&connection->link);
	if (connection->is_ending || loop_op_is_busy(&connection->lost_op))
		connection->is_closed = true;
	else
		free(connection);
	volume->uses--;
	volume_release(volume);
}

void gateway_watch(struct gateway_volume *volume, void (*lost)(void *context), void *context)
{
	volume->lost = lost;
	volume->context = context;
}

/* ---- the gateway ---- */

struct gateway *gateway_new(const struct gateway_options *options)
{
	struct gateway *gateway = calloc(1, sizeof(*gateway));

	if (!gateway)
		return NULL;
	gateway->options = *options;
	gateway->loop = options->loop;
	CDS_INIT_LIST_HEAD(&gateway->parked);
	CDS_INIT_LIST_HEAD(&gateway->ios);
	CDS_INIT_LIST_HEAD(&gateway->timed_ios);
	CDS_INIT_LIST_HEAD(&gateway->starved);
	CDS_INIT_LIST_HEAD(&gateway->volumes);
	CDS_INIT_LIST_HEAD(&gateway->flushes);
	gateway->pieces = pool_new(sizeof(struct piece), GATEWAY_PIECES_MAX);
	gateway->map = cluster_map_new();
	if (!gateway->pieces || !gateway->map) {
		gateway_free(gateway);
		return NULL;
	}
	return gateway;
}

void gateway_free(struct gateway *gateway)
{
	struct volume *volume, *next;

	if (!gateway)
		return;
	cds_list_for_each_entry_safe(volume, next, &gateway->volumes, link) {
		assert(volume->uses == 0);
		volume_forget(volume);
	}
	route_free(gateway);
	pool_free(gateway->pieces);
	cluster_map_put(gateway->map);
	free(gateway);
}

static void volume_gone(struct volume *volume)
{
	volume->is_gone = true;
	io_abort_all(volume->gateway, volume, NULL, -E_SHUTDOWN);
}

void gateway_apply(struct gateway *gateway, struct cluster_map *map, uint32_t node,
		   uint64_t session)
{
	struct volume *volume, *next;

	cluster_map_put(gateway->map);
	gateway->map = cluster_map_get(map);
	gateway->node = node;
	gateway->session = session ? peer_session_of(session, gateway->options.loop_index) : 0;
	if (route_set_map(gateway, map) < 0) {
		log_error("gateway: out of memory for the table of PGs");
		gateway->session = 0; /* requests wait; the next map tries again */
		return;
	}
	cds_list_for_each_entry_safe(volume, next, &gateway->volumes, link) {
		const struct cluster_volume *v = cluster_volume(map, volume->id);
		if (!v && volume->uses == 0 && !volume->flush)
			volume_forget(volume);
		else if (v && volume_apply(volume, v) < 0)
			log_error("gateway: volume '%s': out of memory, its layers are those of "
				  "an older map",
				  volume->name);
		else if (!v && !volume->is_gone)
			volume_gone(volume);
	}
	route_retry_changed(gateway);
	flush_map_changed(gateway);
}

struct cluster_map *gateway_map(const struct gateway *gateway)
{
	return gateway->map;
}

const struct gateway_counters *gateway_counters(const struct gateway *gateway)
{
	return &gateway->counters;
}
