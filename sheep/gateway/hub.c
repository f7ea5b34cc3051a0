/*
 * Which volumes this node has open, as the whole cluster knows it.
 *
 * The first use of a volume is answered after a committed VOLUME_OPEN, so that open and delete
 * cannot cross; VOLUME_CLOSE is proposed `close_delay` after the last use, so that a client that
 * comes back costs nothing. What the map says and what is wanted are compared at each map, use and
 * timer; the difference is proposed. So a new session or a volume that goes meanwhile need no cases
 * of their own.
 *
 * VOLUME_OWN is proposed when a loop's gateway wants to write, and the volume still has the generation
 * at which it wanted that. A fresh owner is left alone for OWNER_REST_NS: else two gateways
 * could take a volume from each other for ever without a single write.
 *
 * Always true: at most one command of a volume is undecided. A close that is under way may be
 * committed at any later time, and would close what has been opened again meanwhile: an open
 * waits for it, and is proposed after it.
 */
#include "sheep/gateway/hub.h"

#include <stdlib.h>
#include <uthash.h>

#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "sheep/gateway/gateway_priv.h"

/* Again after so long, when the command was refused. */
#define PROPOSE_AGAIN_NS NS_PER_S

#define OWNER_REST_NS	 (250 * NS_PER_MS)

enum use_command { USE_NONE, USE_OPEN, USE_CLOSE, USE_OWN };

struct use {
	uint64_t id; /* of the volume */
	struct gateway_hub *hub;
	uint32_t writers, readers;    /* connections, those that wait included */
	struct cds_list_head waiters; /* gateway_open */
	uint64_t since;		      /* log index of the first use */
	bool is_dirty; /* it was given back with unflushed writes: `since` is remembered */
	enum use_command undecided;
	uint64_t proposed_ns;	    /* when a command was proposed last that had no effect yet */
	uint64_t idle_ns;	    /* since when nobody uses it; 0: somebody does */
	uint64_t wanted_generation; /* to be owned from there; 0: not wanted */
	uint64_t seen_generation;
	uint64_t moved_ns; /* when that changed last while we looked; 0: it did not */
	struct loop_timer timer;
	UT_hash_handle hh;
};

struct gateway_hub {
	struct gateway_hub_options options;
	struct cluster_map *map;
	uint64_t session; /* of the node; 0: not registered */
	struct use *uses; /* by id */
	bool is_stopping;
};

static void answer(struct gateway_hub *hub, struct gateway_open *open, int result)
{
	open->result = result;
	open->index = hub->map ? cluster_index(hub->map) : 0;
	loop_post(open->gateway->loop, &open->mail);
}

static const struct cluster_opener *our_opener(const struct gateway_hub *hub,
					       const struct cluster_volume *volume)
{
	for (uint32_t i = 0; i < volume->opener_count; i++)
		if (volume->openers[i].session == hub->session)
			return &volume->openers[i];
	return NULL;
}

static void use_free(struct use *use)
{
	assert(cds_list_empty(&use->waiters));
	loop_timer_stop(use->hub->options.loop, &use->timer);
	HASH_DEL(use->hub->uses, use);
	free(use);
}

static void propose(struct use *use, enum use_command kind)
{
	struct gateway_hub *hub = use->hub;
	uint64_t now = loop_now(hub->options.loop);
	struct cluster_command *command;

	if (use->proposed_ns && now < use->proposed_ns + PROPOSE_AGAIN_NS) {
		loop_timer_start(hub->options.loop, &use->timer,
				 use->proposed_ns + PROPOSE_AGAIN_NS);
		return;
	}
	if (kind == USE_OWN)
		command = cluster_command_volume_own(use->id, hub->session, use->wanted_generation);
	else if (kind == USE_OPEN)
		command = cluster_command_volume_open(use->id, hub->session,
						      use->writers ? 0 : LOG_OPEN_READ_ONLY);
	else
		command = cluster_command_volume_close(use->id, hub->session);
	use->proposed_ns = now;
	if (command && hub->options.propose(hub->options.context, command, use) == 0)
		use->undecided = kind;
	else
		loop_timer_start(hub->options.loop, &use->timer, now + PROPOSE_AGAIN_NS);
}

static void answer_waiters(struct use *use, int result)
{
	struct gateway_open *open, *next;

	cds_list_for_each_entry_safe(open, next, &use->waiters, link) {
		cds_list_del(&open->link);
		open->id = use->id;
		open->since = use->since;
		answer(use->hub, open, result);
	}
}

static void note_generation(struct use *use, const struct cluster_volume *volume)
{
	if (use->seen_generation && use->seen_generation != volume->generation)
		use->moved_ns = loop_now(use->hub->options.loop);
	use->seen_generation = volume->generation;
}

static void reconcile_owner(struct use *use, const struct cluster_volume *volume)
{
	struct gateway_hub *hub = use->hub;

	if (!use->wanted_generation || use->undecided)
		return;
	if (volume->access != CLUSTER_ACCESS_SINGLE || volume->owner == hub->session ||
	    volume->generation != use->wanted_generation || use->writers == 0) {
		use->wanted_generation = 0;
		use->proposed_ns = 0;
	} else if (volume->owner && use->moved_ns &&
		   loop_now(hub->options.loop) < use->moved_ns + OWNER_REST_NS) {
		loop_timer_start(hub->options.loop, &use->timer, use->moved_ns + OWNER_REST_NS);
	} else {
		propose(use, USE_OWN);
	}
}

/* Bring the map and what is wanted together. May free @use. */
static void reconcile(struct use *use)
{
	struct gateway_hub *hub = use->hub;
	const struct cluster_volume *volume = cluster_volume(hub->map, use->id);
	const struct cluster_opener *opener = volume ? our_opener(hub, volume) : NULL;
	bool is_used = use->writers + use->readers > 0;
	uint32_t flags = use->writers ? 0 : LOG_OPEN_READ_ONLY;

	if (volume)
		note_generation(use, volume);
	if (!volume) {
		struct gateway_open *open;
		cds_list_for_each_entry(open, &use->waiters, link)
			*(open->flags & GATEWAY_READ_ONLY ? &use->readers : &use->writers) -= 1;
		answer_waiters(use, -E_NOT_FOUND);
		if (use->writers + use->readers == 0 && !use->undecided)
			use_free(use);
	} else if (use->undecided == USE_CLOSE) {
		return;
	} else if (is_used && opener && (opener->flags & LOG_OPEN_READ_ONLY) <= flags) {
		answer_waiters(use, 0);
		reconcile_owner(use, volume);
	} else if (use->undecided) {
		return;
	} else if (is_used) {
		propose(use, USE_OPEN);
	} else if (!opener) {
		if (!use->is_dirty)
			use_free(use);
	} else {
		uint64_t due =
			use->idle_ns + cluster_setting_ns(hub->map, CLUSTER_SETTING_CLOSE_DELAY);
		if (loop_now(hub->options.loop) < due)
			loop_timer_start(hub->options.loop, &use->timer, due);
		else
			propose(use, USE_CLOSE);
	}
}

void gateway_hub_decided(struct gateway_hub *hub, void *token, bool has_effect)
{
	struct use *use = token;

	assert(use->undecided);
	use->undecided = USE_NONE;
	if (has_effect)
		use->proposed_ns = 0;
	if (hub->session && !hub->is_stopping)
		reconcile(use);
}

static void on_timer(struct loop_timer *timer)
{
	reconcile(container_of_type(timer, struct use, timer));
}

static struct use *use_get(struct gateway_hub *hub, uint64_t id)
{
	struct use *use;

	HASH_FIND(hh, hub->uses, &id, sizeof(id), use);
	if (use)
		return use;
	use = calloc(1, sizeof(*use));
	if (!use)
		return NULL;
	use->id = id;
	use->hub = hub;
	use->since = cluster_index(hub->map);
	use->timer.fire = on_timer;
	CDS_INIT_LIST_HEAD(&use->waiters);
	HASH_ADD(hh, hub->uses, id, sizeof(use->id), use);
	return use;
}

void hub_open(struct gateway_hub *hub, struct gateway_open *open)
{
	if (hub->is_stopping) {
		answer(hub, open, -E_SHUTDOWN);
		return;
	}
	if (!hub->session) {
		/* A sheep that is not registered, or a cluster that is not formatted, has no volumes. */
		answer(hub, open,
		       hub->map && cluster_is_formatted(hub->map) ? -E_SHUTDOWN : -E_NOT_FORMATTED);
		return;
	}
	const struct cluster_volume *volume = cluster_volume_by_name(hub->map, open->name);
	struct use *use = volume ? use_get(hub, volume->id) : NULL;
	if (!use) {
		answer(hub, open, volume ? -ENOMEM : -E_NOT_FOUND);
		return;
	}
	*(open->flags & GATEWAY_READ_ONLY ? &use->readers : &use->writers) += 1;
	use->idle_ns = 0;
	cds_list_add_tail(&open->link, &use->waiters);
	reconcile(use);
}

struct close_mail {
	struct loop_mail mail;
	struct gateway_hub *hub;
	uint64_t id;
	unsigned flags;
	bool is_dirty;
};

static void deliver_close(struct loop *loop, struct loop_mail *mail)
{
	struct close_mail *close = container_of_type(mail, struct close_mail, mail);
	struct gateway_hub *hub = close->hub;
	struct use *use;

	HASH_FIND(hh, hub->uses, &close->id, sizeof(close->id), use);
	if (use) {
		uint32_t *users = close->flags & GATEWAY_READ_ONLY ? &use->readers : &use->writers;
		assert(*users > 0);
		--*users;
		use->is_dirty |= close->is_dirty;
		if (use->writers + use->readers == 0)
			use->idle_ns = loop_now(loop);
		if (!hub->is_stopping)
			reconcile(use);
	}
	free(close);
}

void hub_close(struct gateway_hub *hub, struct loop *hub_loop, uint64_t volume, unsigned flags,
	       bool is_dirty)
{
	struct close_mail *close = calloc(1, sizeof(*close));

	if (!close) {
		/* The volume stays open in the cluster's eyes until this node restarts. */
		log_error("gateway: out of memory to close volume %llu",
			  (unsigned long long)volume);
		return;
	}
	*close = (struct close_mail){.mail.deliver = deliver_close,
				     .hub = hub,
				     .id = volume,
				     .flags = flags,
				     .is_dirty = is_dirty};
	loop_post(hub_loop, &close->mail);
}

struct own_mail {
	struct loop_mail mail;
	struct gateway_hub *hub;
	uint64_t id;
	uint64_t generation;
};

static void deliver_own(struct loop *loop, struct loop_mail *mail)
{
	struct own_mail *own = container_of_type(mail, struct own_mail, mail);
	struct gateway_hub *hub = own->hub;
	struct use *use;

	HASH_FIND(hh, hub->uses, &own->id, sizeof(own->id), use);
	if (use) {
		use->wanted_generation = max_of(use->wanted_generation, own->generation);
		if (hub->session && !hub->is_stopping)
			reconcile(use);
	}
	free(own);
}

int hub_own(struct gateway_hub *hub, struct loop *hub_loop, uint64_t volume, uint64_t generation)
{
	struct own_mail *own = calloc(1, sizeof(*own));

	if (!own)
		return -ENOMEM;
	*own = (struct own_mail){
		.mail.deliver = deliver_own, .hub = hub, .id = volume, .generation = generation};
	loop_post(hub_loop, &own->mail);
	return 0;
}

struct gateway_hub *gateway_hub_new(const struct gateway_hub_options *options)
{
	struct gateway_hub *hub = calloc(1, sizeof(*hub));

	if (hub)
		hub->options = *options;
	return hub;
}

void gateway_hub_stop(struct gateway_hub *hub)
{
	struct use *use, *next;
	struct gateway_open *open;

	hub->is_stopping = true;
	HASH_ITER(hh, hub->uses, use, next) {
		cds_list_for_each_entry(open, &use->waiters, link)
			*(open->flags & GATEWAY_READ_ONLY ? &use->readers : &use->writers) -= 1;
		answer_waiters(use, -E_SHUTDOWN);
		loop_timer_stop(hub->options.loop, &use->timer);
	}
}

void gateway_hub_free(struct gateway_hub *hub)
{
	struct use *use, *next;

	if (!hub)
		return;
	HASH_ITER(hh, hub->uses, use, next) {
		use_free(use);
	}
	cluster_map_put(hub->map);
	free(hub);
}

void gateway_hub_apply(struct gateway_hub *hub, struct cluster_map *map, uint64_t session)
{
	struct use *use, *next;
	bool is_new_session = session != hub->session;

	cluster_map_put(hub->map);
	hub->map = cluster_map_get(map);
	hub->session = session;
	HASH_ITER(hh, hub->uses, use, next) {
		if (is_new_session)
			use->proposed_ns = 0;
		if (session && !hub->is_stopping)
			reconcile(use);
	}
}
