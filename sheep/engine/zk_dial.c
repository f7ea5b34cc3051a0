/*
 * Which servers serve, while the session has no connection.
 *
 * The library tries the servers of its list one after the other. For one whose machine is dead, or that hangs, it
 * waits two thirds of the session's timeout, each time that its turn comes; and while the others elect
 * a leader they turn clients away, so that its turn does come. Therefore all servers are asked at once, again and
 * again, and as soon as some serve the session goes over to them, if the library has not found one by
 * itself:
 *
 *   IDLE --connect--> CONNECTING --> SENDING --> RECEIVING --an answer, none in time--> IDLE
 *
 * The question is "srvr". Servers that do not allow it say so in a sentence, and count as serving: only
 * the session can tell. An election ends within moments, so those that answer but do not serve are asked soon again.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/random.h"
#include "lib/base/size.h"
#include "sheep/engine/zk_priv.h"

#define FIRST_NS	(30 * NS_PER_MS) /* for the library alone */
#define ANSWER_NS	(500 * NS_PER_MS)
#define PAUSE_NS	(20 * NS_PER_MS)  /* until it is asked again, at first */
#define PAUSE_MAX_NS	(500 * NS_PER_MS) /* in the end */
#define ELECT_MAX_NS	(80 * NS_PER_MS)  /* in the end, if it answers and does not serve */
#define GATHER_NS	(10 * NS_PER_MS)  /* for others to answer, too */
#define MOVE_AGAIN_NS	NS_PER_S	  /* for the session to come up, at first */
#define MOVES_DOUBLED	2u		  /* and in the end 4 times that */
#define LOOKUP_AGAIN_NS (5 * NS_PER_S)

static const char question[4] = {'s', 'r', 'v', 'r'};

static void plan(struct zk *zk);

/* ---- one server ---- */

enum answer { ANSWER_NONE, ANSWER_NOT_NOW, ANSWER_SERVES };

static void finish(struct zk_host *host, enum answer answer)
{
	struct zk *zk = host->zk;
	struct zk_dial *dial = &zk->dial;
	uint64_t now = loop_now(zk->engine.loop);

	if (host->socket)
		loop_socket_close(zk->engine.loop, host->socket);
	host->socket = NULL;
	host->step = ZK_HOST_IDLE;
	dial->busy--;
	host->serves = answer == ANSWER_SERVES && dial->is_active;
	host->at_ns = now + host->pause_ns;
	host->pause_ns =
		min_of(host->pause_ns * 2, answer == ANSWER_NOT_NOW ? ELECT_MAX_NS : PAUSE_MAX_NS);
	if (host->serves && !dial->move_ns)
		dial->move_ns = now + GATHER_NS;
	plan(zk);
	zk_try_quit(zk);
}

static void on_step(struct loop_op *op, int result)
{
	struct zk_host *host = container_of_type(op, struct zk_host, op);
	struct loop *loop = host->zk->engine.loop;

	if (host->step == ZK_HOST_CONNECTING && result >= 0)
		host->socket = op->out.socket;
	if (result < 0 || !host->zk->dial.is_active) {
		finish(host, ANSWER_NONE);
		return;
	}
	switch (host->step) {
	case ZK_HOST_CONNECTING:
		host->step = ZK_HOST_SENDING;
		host->iov = (struct iovec){(void *)question, sizeof(question)};
		loop_send(loop, op, host->socket, &host->iov, 1);
		return;
	case ZK_HOST_SENDING:
		host->step = ZK_HOST_RECEIVING;
		host->iov = (struct iovec){host->reply, sizeof(host->reply)};
		loop_recv(loop, op, host->socket, &host->iov, 1);
		return;
	case ZK_HOST_RECEIVING:
		/* "This ZooKeeper instance is not currently serving requests" */
		finish(host, result > 0 && host->reply[0] != 'T' ? ANSWER_SERVES : ANSWER_NOT_NOW);
		return;
	case ZK_HOST_IDLE:
		break;
	}
	assert(!"a step of a server that is asked nothing");
}

static void ask(struct zk_host *host, uint64_t now)
{
	host->zk->dial.busy++;
	host->step = ZK_HOST_CONNECTING;
	host->at_ns = now + ANSWER_NS;
	host->op.done = on_step;
	loop_connect(host->zk->engine.loop, &host->op, host->address);
}

/* ---- the session goes over ---- */

static void forget_answers(struct zk_dial *dial, uint64_t at_ns)
{
	dial->move_ns = 0;
	for (uint32_t i = 0; i < dial->count; i++) {
		struct zk_host *host = &dial->servers[i];
		host->serves = false;
		host->pause_ns = PAUSE_NS;
		if (host->step == ZK_HOST_IDLE)
			host->at_ns = at_ns;
	}
}

static void move(struct zk *zk, uint64_t now)
{
	struct zk_dial *dial = &zk->dial;
	struct zk_addresses serving = {0};
	const char *chosen;
	uint64_t patience_ns = MOVE_AGAIN_NS << min_of(dial->moves, MOVES_DOUBLED);

	for (uint32_t i = 0; i < dial->count; i++)
		if (dial->servers[i].serves)
			memcpy(serving.text[serving.count++], dial->servers[i].address,
			       LOOP_ADDRESS_MAX);
	dial->moves++;
	forget_answers(dial, now + patience_ns);
	if (!serving.count)
		return;
	/* One alone: to that the library returns after a pause, and never to others. */
	chosen = serving.text[random_below(loop_random(zk->engine.loop), serving.count)];
	memmove(serving.text[0], chosen, LOOP_ADDRESS_MAX);
	serving.count = 1;
	zk_session_move(zk, &serving);
}

/* ---- names ---- */

static void take_addresses(struct zk *zk)
{
	struct zk_dial *dial = &zk->dial;

	if (!dial->is_renamed || dial->busy)
		return;
	dial->is_renamed = false;
	dial->count = zk->addresses.count;
	for (uint32_t i = 0; i < dial->count; i++) {
		struct zk_host *host = &dial->servers[i];
		*host = (struct zk_host){.zk = zk, .pause_ns = PAUSE_NS};
		memcpy(host->address, zk->addresses.text[i], sizeof(host->address));
	}
}

static void on_lookup(struct zk *zk, const struct zk_addresses *addresses)
{
	zk->dial.lookup = NULL;
	zk->dial.is_posted = false;
	if (addresses && addresses->count &&
	    memcmp(addresses, &zk->addresses, sizeof(*addresses)) != 0) {
		zk->addresses = *addresses;
		zk->dial.is_renamed = true;
	}
	plan(zk);
	zk_try_quit(zk);
}

static void look_up(struct zk *zk, uint64_t now)
{
	struct zk_dial *dial = &zk->dial;

	if (zk->is_numeric || dial->lookup || now < dial->lookup_ns)
		return;
	dial->lookup_ns = now + LOOKUP_AGAIN_NS;
	dial->lookup = zk_lookup_start(zk, on_lookup);
}

/* ---- time ---- */

static void on_timer(struct loop_timer *timer)
{
	struct zk *zk = container_of_type(timer, struct zk, dial.timer);
	struct zk_dial *dial = &zk->dial;
	uint64_t now = loop_now(zk->engine.loop);

	look_up(zk, now);
	take_addresses(zk);
	if (dial->move_ns && now >= dial->move_ns)
		move(zk, now);
	for (uint32_t i = 0; i < dial->count; i++) {
		struct zk_host *host = &dial->servers[i];
		if (host->serves || now < host->at_ns)
			continue;
		if (host->step == ZK_HOST_IDLE && !dial->is_renamed) {
			ask(host, now);
		} else if (host->step != ZK_HOST_IDLE) {
			host->at_ns = UINT64_MAX;
			loop_cancel(zk->engine.loop, &host->op);
		}
	}
	plan(zk);
}

/* The timer, for what comes next. */
static void plan(struct zk *zk)
{
	struct zk_dial *dial = &zk->dial;
	uint64_t next_ns = dial->move_ns ? dial->move_ns : UINT64_MAX;

	if (!dial->is_active)
		return;
	for (uint32_t i = 0; i < dial->count; i++) {
		const struct zk_host *host = &dial->servers[i];
		bool is_held = dial->is_renamed && host->step == ZK_HOST_IDLE;
		if (!host->serves && !is_held)
			next_ns = min_of(next_ns, host->at_ns);
	}
	if (dial->is_renamed && !dial->busy)
		next_ns = loop_now(zk->engine.loop);
	if (!zk->is_numeric && !dial->lookup)
		next_ns = min_of(next_ns, dial->lookup_ns);
	if (next_ns != UINT64_MAX)
		loop_timer_start(zk->engine.loop, &dial->timer, next_ns);
}

void zk_dial_start(struct zk *zk)
{
	struct zk_dial *dial = &zk->dial;

	if (dial->is_active)
		return;
	dial->is_active = true;
	dial->moves = 0;
	dial->timer.fire = on_timer;
	take_addresses(zk);
	forget_answers(dial, loop_now(zk->engine.loop) + FIRST_NS);
	plan(zk);
}

void zk_dial_stop(struct zk *zk)
{
	struct zk_dial *dial = &zk->dial;

	dial->is_active = false;
	dial->move_ns = 0;
	loop_timer_stop(zk->engine.loop, &dial->timer);
	for (uint32_t i = 0; i < dial->count; i++)
		if (dial->servers[i].step != ZK_HOST_IDLE)
			loop_cancel(zk->engine.loop, &dial->servers[i].op);
}

bool zk_dial_end(struct zk *zk)
{
	struct zk_dial *dial = &zk->dial;

	if (dial->lookup && !dial->is_posted) {
		if (zk_lookup_give_up(dial->lookup))
			dial->lookup = NULL;
		else
			dial->is_posted = true;
	}
	return !dial->busy && !dial->lookup;
}
