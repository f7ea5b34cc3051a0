/*
 * Beacons between nodes (REPLICATION, L1, L2, R1), on loop 0, to each node with which we share a PG.
 *
 * Who acknowledges one promises to take nothing over for `grace`; so a primary has its lease by acknowledgements
 * of all its members' nodes, and a member knows by beacons that it must not take over.
 * One beacon serves all PGs that two nodes share, in whichever roles.
 *
 *   timer, every `beacon`, and when somebody falls silent:
 *     send to all peers           a call each, BEACON_CALLS unanswered at most
 *     no acknowledgement for a lease ->  silent: the primaries here propose its shrink, unless
 *                                        most others are silent, too: then it is us
 *     no beacon for grace            ->  silence.c: take over
 *   acknowledged -> lease table -> those who wait for a lease
 *
 * Always true: (1) an acknowledgement counts from when its beacon was sent, by our own clock; (2) nobody
 * else's clock is compared with ours; (3) a node that did not run itself blames nobody for silence.
 *
 * What was promised under an older setting of `grace` is kept, and what was promised is not enough for a newer
 * `lease` does not count: settings reach nodes at different times.
 */
#include "sheep/pg/beacon.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/rule.h"
#include "sheep/pg/pg_priv.h"

#define CONFIRMS_OUT	2u /* unanswered, with which one more may be sent to confirm */
#define RETURN_NS	(20 * NS_PER_MS)  /* who waits for a lease judges again at least so often */
#define STALL_MIN_NS	(100 * NS_PER_MS) /* a timer may come so late on any machine */
#define LATE_MIN_NS	(50 * NS_PER_MS)
#define ISOLATED_GRACES 2u /* how long one that is cut off leaves it to the others */
#define PROMISE_PARTS	5u /* of `grace`, of which ... */
#define PROMISE_COVERED 4u /* ... so many may be lease: the rest is for clocks that drift */

/* ---- who there is ---- */

struct beacon_peer *beacons_peer(const struct pg_beacons *beacons, uint32_t node)
{
	struct beacon_peer *peer;

	HASH_FIND(hh, beacons->peers, &node, sizeof(node), peer);
	return peer;
}

struct beacon_peer *beacons_peer_get(struct pg_beacons *beacons, uint32_t node)
{
	struct beacon_peer *peer = beacons_peer(beacons, node);

	if (peer)
		return peer;
	peer = calloc(1, sizeof(*peer));
	if (!peer)
		return NULL;
	peer->node = node;
	peer->beacons = beacons;
	for (unsigned i = 0; i < BEACON_CALLS; i++)
		peer->calls[i].peer = peer;
	HASH_ADD(hh, beacons->peers, node, sizeof(peer->node), peer);
	return peer;
}

bool beacons_are_registered(const struct pg_beacons *beacons)
{
	return beacons->home->node != 0;
}

bool beacon_peer_is_active(const struct beacon_peer *peer)
{
	return peer->session && peer->shared > 0 && beacons_are_registered(peer->beacons);
}

/* ---- sending ---- */

static void on_reply(struct net_call *net_call, int result);

static struct beacon_call *idle_call(struct beacon_peer *peer)
{
	for (unsigned i = 0; i < BEACON_CALLS; i++)
		if (!peer->calls[i].is_out)
			return &peer->calls[i];
	return NULL;
}

/* What is sent from now on says that nothing that was acknowledged before counts: so it must not. */
static void renounce(struct beacon_peer *peer, uint64_t now)
{
	peer->renounced_ns = now;
	pg_leases_drop(peer->beacons->leases, peer->node);
}

static void send_beacon(struct beacon_peer *peer)
{
	struct pg_set *home = peer->beacons->home;
	const struct cluster_node *self = cluster_node(home->map, home->node);
	const struct peer_beacon body = {
		.session = to_le64(self->session),
		.flags = to_le32(peer->is_renouncing ? PEER_BEACON_RENOUNCES : 0),
		.sequence = to_le32(peer->sequence + 1),
	};
	struct beacon_call *call = idle_call(peer);
	struct net_link *link =
		pg_peers_node_link(home->env.peers, peer->node, 0, PEER_CLASS_CONTROL);

	/* One may wait for the link; more of them would only be old when it comes up. */
	if (!call || !link || (peer->out > 0 && !net_link_is_up(link)))
		return;
	call->call = (struct net_call){
		.op = PEER_OP_BEACON,
		.body = &body,
		.body_size = sizeof(body),
		.done = on_reply,
	};
	call->is_out = true;
	peer->sequence++;
	call->sent_ns = peer->sent_ns = loop_clock(home->loop);
	if (peer->is_renouncing)
		renounce(peer, call->sent_ns);
	peer->out++;
	home->counters.beacons_sent++;
	pg_set_hold(home);
	net_link_call(link, &call->call);
}

static void return_waiting(struct pg_beacons *beacons)
{
	loop_timer_stop(beacons->home->loop, &beacons->return_timer);
	while (!cds_list_empty(&beacons->waiting)) {
		struct pg_set *set =
			container_of_type(beacons->waiting.next, struct pg_set, lease_mail.link);
		cds_list_del(&set->lease_mail.link);
		pg_lease_mail_return(set);
	}
}

/* ---- what they answer ---- */

static void acknowledged(struct beacon_peer *peer, const struct beacon_call *call,
			 const struct peer_beacon_reply *reply)
{
	struct pg_beacons *beacons = peer->beacons;
	struct pg_set *home = beacons->home;
	uint64_t promised_ns = from_le32(reply->grace_ms) * NS_PER_MS;
	uint64_t late_ns = max_of(beacons->lease_ns / 4, LATE_MIN_NS);

	home->counters.beacons_acknowledged++;
	if (loop_clock(home->loop) - call->sent_ns > late_ns)
		home->counters.beacons_late++;
	peer->acked_ns = max_of(peer->acked_ns, call->sent_ns);
	/* Its settings are not ours yet, or ours not its. */
	if (RULE(L1_PROMISE) && promised_ns / PROMISE_PARTS * PROMISE_COVERED < beacons->lease_ns)
		return;
	pg_leases_note(beacons->leases, peer->node, call->sent_ns, from_le64(reply->index));
}

static void on_reply(struct net_call *net_call, int result)
{
	struct beacon_call *call = container_of_type(net_call, struct beacon_call, call);
	struct beacon_peer *peer = call->peer;
	struct pg_beacons *beacons = peer->beacons;
	struct pg_set *home = beacons->home;
	const struct peer_beacon_reply *reply = net_call->reply_body;

	call->is_out = false;
	peer->out--;
	/* Of an earlier start: that one promises for nobody any more. */
	if (result == 0 && from_le64(reply->session) >= peer->session && peer->session &&
	    call->sent_ns >= peer->renounced_ns) {
		acknowledged(peer, call, reply);
		return_waiting(beacons);
	}
	if (!beacons->is_stopped && peer->wanted_ns > peer->sent_ns &&
	    beacon_peer_is_active(peer) && result != -E_CLOSED)
		send_beacon(peer);
	pg_set_release(home);
}

/* ---- acknowledging ---- */

/*
 * It has renounced what we promised it, twice: it hears nothing of what we answer. Once may be the end of an
 * interruption, and then it hears us now.
 */
static void note_renounce(struct beacon_peer *peer, bool renounces, uint64_t now)
{
	if (!renounces)
		peer->deaf_ns = 0;
	else if (!peer->deaf_ns)
		peer->deaf_ns = now;
	/* Two at once: they have waited here, because we did not run. */
	else if (now - peer->deaf_ns >= peer->beacons->beacon_ns / 2 && peer->leads)
		silence_renounced(peer, now);
}

/* It was sent before one that has come: what it says has been taken back, or was answered then. */
static bool is_overtaken(struct beacon_peer *peer, const struct peer_beacon *body)
{
	uint64_t session = from_le64(body->session);
	uint32_t sequence = from_le32(body->sequence);

	if (session == peer->heard_session && (int32_t)(sequence - peer->heard_sequence) <= 0)
		return true;
	peer->heard_session = session;
	peer->heard_sequence = sequence;
	return false;
}

/* 0, or why not. */
static int judge(struct pg_beacons *beacons, const struct net_request *request,
		 struct beacon_peer **out)
{
	const struct peer_beacon *body = request->body;
	const struct wire_agreement *agreement = net_session_agreement(request->session);
	const struct cluster_node *node;

	if (!beacons_are_registered(beacons))
		return -EAGAIN;
	node = beacons->home->map ? cluster_node_by_uuid(beacons->home->map, &agreement->peer.node)
				  : NULL;
	if (!node)
		return -EAGAIN; /* registered later than what we have seen, or never */
	if (from_le64(body->session) < node->session)
		return -E_STALE_SESSION;
	*out = beacons_peer_get(beacons, node->id);
	if (!*out)
		return -ENOMEM;
	if (is_overtaken(*out, body))
		return -EAGAIN;
	note_renounce(*out, from_le32(body->flags) & PEER_BEACON_RENOUNCES,
		      loop_clock(beacons->home->loop));
	if (RULE(L2_NO_ACK_AFTER_PROPOSAL) && (*out)->holds)
		return -EBUSY;
	return 0;
}

void pg_on_beacon(struct net_request *request)
{
	struct pg_set *set = net_request_context(request);
	struct pg_beacons *beacons = set->beacons;
	struct beacon_peer *peer = NULL;
	int rc = -E_NOT_FOUND;

	if (beacons && beacons->home == set)
		rc = judge(beacons, request, &peer);
	if (rc < 0) {
		set->counters.beacons_refused++;
		net_reply_status(request, rc);
		return;
	}
	const struct cluster_node *self = cluster_node(set->map, set->node);
	const struct peer_beacon_reply reply = {
		.session = to_le64(self ? self->session : 0),
		.index = to_le64(set->index),
		.grace_ms = to_le32((uint32_t)(beacons->grace_ns / NS_PER_MS)),
	};
	peer->heard_ns = loop_clock(set->loop);
	peer->promised_ns = max_of(peer->promised_ns, peer->heard_ns + beacons->grace_ns);
	net_reply(request, 0, &reply, sizeof(reply), NULL, 0);
	SIM_POINT(BEACON_ACKNOWLEDGED);
}

/* ---- the timer ---- */

/* Who leads with such a member looks at it, on its own loop. */
struct tell_mail {
	struct loop_mail mail;
	struct pg_set *set;
};

static void deliver_tell(struct loop *loop, struct loop_mail *loop_mail)
{
	struct tell_mail *mail = container_of_type(loop_mail, struct tell_mail, mail);

	pg_set_look_at_members(mail->set);
	free(mail);
}

static void tell_sets(struct pg_beacons *beacons)
{
	beacons->must_tell = false;
	for (unsigned i = 0; i < beacons->set_count; i++) {
		struct tell_mail *mail;
		if (beacons->sets[i] == beacons->home) {
			pg_set_look_at_members(beacons->home);
			continue;
		}
		mail = calloc(1, sizeof(*mail));
		if (!mail) {
			beacons->must_tell = true; /* with the next beacon */
			continue;
		}
		mail->set = beacons->sets[i];
		mail->mail.deliver = deliver_tell;
		loop_post(beacons->sets[i]->loop, &mail->mail);
	}
}

/* A member must have acknowledged within so long. */
static uint64_t patience(const struct pg_beacons *beacons)
{
	return beacons->lease_ns ? beacons->lease_ns : beacons->grace_ns;
}

static uint64_t silent_from(const struct beacon_peer *peer)
{
	return max_of(peer->acked_ns, peer->since_ns) + patience(peer->beacons);
}

/* Early enough for two beacons to say so before the link is given up. */
static uint64_t renouncing_from(const struct beacon_peer *peer)
{
	return silent_from(peer) - patience(peer->beacons) / 4;
}

static void set_evicted(struct beacon_peer *peer, bool is_evicted)
{
	struct pg_beacons *beacons = peer->beacons;

	if (peer->is_evicted == is_evicted)
		return;
	peer->is_evicted = is_evicted;
	pg_leases_set_silent(beacons->leases, peer->node, is_evicted);
	if (!is_evicted)
		return;
	log_warning("node %u: acknowledges no beacons: its stores are to leave in-sync sets",
		    peer->node);
	beacons->must_tell = true;
}

void beacon_set_silent(struct beacon_peer *peer, bool is_silent)
{
	if (is_silent && !peer->is_silent)
		peer->beacons->home->counters.leases_lost++;
	peer->is_silent = is_silent;
	if (!is_silent)
		set_evicted(peer, false);
}

/*
 * Who hears from fewer than half of the others is the one who is cut off, probably: it leaves it to them to
 * take over, for a while. If it evicted them first, they could not.
 */
static void judge_members(struct pg_beacons *beacons, uint64_t now)
{
	uint64_t wait_ns = ISOLATED_GRACES * beacons->grace_ns;
	struct beacon_peer *peer, *next;
	uint32_t silent = 0, active = 0;

	HASH_ITER(hh, beacons->peers, peer, next) {
		if (!beacon_peer_is_active(peer))
			continue;
		beacon_set_silent(peer, now >= silent_from(peer));
		if (now < renouncing_from(peer)) {
			peer->is_renouncing = false;
		} else if (!peer->is_renouncing) {
			peer->is_renouncing = true;
			beacons->next_ns = now; /* it is told at once */
		}
		silent += peer->is_silent;
		active++;
	}
	if (active < 2 || silent * 2 <= active)
		wait_ns = 0;
	pg_leases_set_isolated(beacons->leases, wait_ns > 0);
	HASH_ITER(hh, beacons->peers, peer, next)
		if (beacon_peer_is_active(peer) && peer->is_silent)
			set_evicted(peer, now >= silent_from(peer) + wait_ns);
}

/* We did not run: what they sent meanwhile is still to be read. */
static void forgive_all(struct pg_beacons *beacons, uint64_t now)
{
	struct beacon_peer *peer, *next;

	HASH_ITER(hh, beacons->peers, peer, next) {
		peer->since_ns = now;
		peer->heard_ns = max_of(peer->heard_ns, now);
	}
}

static void fired(struct loop_timer *timer)
{
	struct pg_beacons *beacons = container_of_type(timer, struct pg_beacons, timer);
	uint64_t now = loop_now(beacons->home->loop), next_ns;
	struct beacon_peer *peer, *next;
	bool any = false;

	if (RULE(L4_NO_BLAME) &&
	    now > timer->deadline_ns + max_of(beacons->lease_ns / 4, STALL_MIN_NS))
		forgive_all(beacons, now);
	judge_members(beacons, now);
	bool is_due = now >= beacons->next_ns;
	if (is_due)
		beacons->next_ns = now + beacons->beacon_ns;
	next_ns = beacons->next_ns;
	HASH_ITER(hh, beacons->peers, peer, next) {
		if (!beacon_peer_is_active(peer))
			continue;
		any = true;
		if (is_due)
			send_beacon(peer);
		next_ns = min_of(next_ns, silence_judge(peer, now));
		if (!peer->is_renouncing)
			next_ns = min_of(next_ns, renouncing_from(peer));
		else if (!peer->is_silent)
			next_ns = min_of(next_ns, silent_from(peer));
	}
	if (beacons->must_tell)
		tell_sets(beacons);
	if (any)
		loop_timer_start(beacons->home->loop, timer, next_ns);
}

void beacons_plan(struct pg_beacons *beacons)
{
	struct beacon_peer *peer, *next;
	bool any = false;

	HASH_ITER(hh, beacons->peers, peer, next)
		any |= beacon_peer_is_active(peer);
	if (!any || beacons->is_stopped)
		loop_timer_stop(beacons->home->loop, &beacons->timer);
	else if (!loop_timer_is_armed(&beacons->timer))
		loop_timer_start(beacons->home->loop, &beacons->timer,
				 loop_now(beacons->home->loop));
}

void pg_beacons_ask_again(struct pg_beacons *beacons)
{
	struct beacon_peer *peer, *next;

	HASH_ITER(hh, beacons->peers, peer, next)
		silence_ask_again(peer);
	if (loop_timer_is_armed(&beacons->timer))
		loop_timer_start(beacons->home->loop, &beacons->timer,
				 loop_now(beacons->home->loop));
}

/* ---- those who wait ---- */

static void on_return_timer(struct loop_timer *timer)
{
	return_waiting(container_of_type(timer, struct pg_beacons, return_timer));
}

void pg_beacons_want(struct pg_beacons *beacons, struct pg_set *set, uint64_t needed_ns)
{
	struct loop *loop = beacons->home->loop;
	struct beacon_peer *peer, *next;

	if (beacons->is_stopped) {
		pg_lease_mail_return(set);
		return;
	}
	cds_list_add_tail(&set->lease_mail.link, &beacons->waiting);
	if (!loop_timer_is_armed(&beacons->return_timer))
		loop_timer_start(loop, &beacons->return_timer, loop_now(loop) + RETURN_NS);
	HASH_ITER(hh, beacons->peers, peer, next) {
		if (!beacon_peer_is_active(peer) || peer->sent_ns >= needed_ns)
			continue;
		peer->wanted_ns = max_of(peer->wanted_ns, needed_ns);
		if (peer->out < CONFIRMS_OUT)
			send_beacon(peer);
	}
}

/* ---- life ---- */

int pg_set_group(struct pg_set *const *sets, unsigned count, struct error *err)
{
	struct pg_beacons *beacons = calloc(1, sizeof(*beacons));

	if (beacons) {
		beacons->home = sets[0];
		beacons->sets = calloc(count, sizeof(struct pg_set *));
		beacons->leases = pg_leases_new();
	}
	if (!beacons || !beacons->sets || !beacons->leases) {
		pg_beacons_free(beacons);
		return error_set(err, -ENOMEM, "beacons");
	}
	memcpy(beacons->sets, sets, count * sizeof(struct pg_set *));
	beacons->set_count = count;
	beacons->timer.fire = fired;
	beacons->return_timer.fire = on_return_timer;
	CDS_INIT_LIST_HEAD(&beacons->waiting);
	for (unsigned i = 0; i < count; i++) {
		sets[i]->beacons = beacons;
		sets[i]->leases = beacons->leases;
		sets[i]->home = sets[0]->loop;
	}
	return 0;
}

void pg_beacons_stop(struct pg_beacons *beacons)
{
	struct beacon_peer *peer, *next;

	beacons->is_stopped = true;
	loop_timer_stop(beacons->home->loop, &beacons->timer);
	return_waiting(beacons);
	HASH_ITER(hh, beacons->peers, peer, next)
		silence_end(peer);
}

void pg_beacons_free(struct pg_beacons *beacons)
{
	struct beacon_peer *peer, *next;

	if (!beacons)
		return;
	HASH_ITER(hh, beacons->peers, peer, next) {
		HASH_DEL(beacons->peers, peer);
		silence_end(peer);
		free(peer);
	}
	pg_leases_free(beacons->leases);
	free(beacons->sets);
	free(beacons);
}
