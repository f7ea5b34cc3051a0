/*
 * To the primary and back: here, on another of our loops, or on another node.
 *
 * A write gets its number once, when it is first sent, and keeps it through every retry: that
 * is how primaries recognise it (REPLICATION, Q1). Numbers run per session and PG; a request
 * carries the lowest one that is not answered, and the window above it is bounded.
 *
 * The one retry of the system is here. An answer that says "not executed, as far as I know"
 * parks the piece: it is sent again when the map gives its PG another epoch, when a link comes
 * up, or after a pause that doubles, whichever is first.
 */
#include <stdlib.h>

#include "lib/base/assert.h"
#include "lib/base/crc32c.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "lib/wire/wire.h"
#include "sheep/gateway/gateway_priv.h"

static const uint8_t piece_next[PIECE_STATE_COUNT] = {
	[PIECE_NEW] = BIT(PIECE_HELD) | BIT(PIECE_SENT) | BIT(PIECE_PARKED),
	[PIECE_HELD] = BIT(PIECE_SENT) | BIT(PIECE_PARKED),
	[PIECE_SENT] = BIT(PIECE_PARKED),
	[PIECE_PARKED] = BIT(PIECE_SENT) | BIT(PIECE_PARKED),
};

static void piece_enter(struct piece *piece, enum piece_state next)
{
	assert(piece_next[piece->state] & BIT(next));
	piece->state = next;
}

static bool is_write(const struct piece *piece)
{
	return piece->io.kind != PG_IO_READ;
}

static struct route *route_of(const struct gateway *gateway, uint32_t pg)
{
	return &gateway->routes[gateway->route_first[pg_policy(pg)] + pg_number(pg)];
}

/* ---- the end of a piece ---- */

static void send(struct piece *piece);

static void release_held(struct route *route)
{
	while (!cds_list_empty(&route->held)) {
		struct piece *first = cds_list_first_entry(&route->order, struct piece, order);
		struct piece *next = cds_list_first_entry(&route->held, struct piece, link);
		if (next->io.number - first->io.number >= STORE_SESSION_WINDOW)
			return;
		cds_list_del(&next->link);
		send(next);
	}
}

static void finish(struct piece *piece, int result)
{
	struct route *route = piece->route;

	if (is_write(piece)) {
		bool was_first = route->order.next == &piece->order;
		cds_list_del(&piece->order);
		piece_done(piece, result);
		if (was_first)
			release_held(route);
	} else {
		piece_done(piece, result);
	}
}

static void park(struct piece *piece)
{
	struct gateway *gateway = piece->gateway;
	const struct cluster_pg *pg = cluster_pg(gateway->map, piece->io.pg);
	uint64_t pause = GATEWAY_RETRY_MIN_NS << min_of(piece->tries, 4u);

	if (pg && pg->epoch != piece->io.epoch)
		pause = 0; /* that has come while it was away */
	piece_enter(piece, PIECE_PARKED);
	piece->tries++;
	piece->retry_ns = loop_now(gateway->loop) + min_of(pause, GATEWAY_RETRY_MAX_NS);
	cds_list_add_tail(&piece->link, &gateway->parked);
	gateway->counters.parked++;
	gateway_wake_at(gateway, piece->retry_ns);
}

/* Does this answer leave it open whether the request was executed, or say that it was not? */
static bool is_retried(int result)
{
	static const int codes[] = {
		-E_NOT_PRIMARY,	 -E_STALE_EPOCH, -E_FUTURE_EPOCH, -E_CLOSED,
		-E_STORE_FAILED, -E_SHUTDOWN,	 -E_CHECKSUM,	  -E_MISSING,
		-ETIMEDOUT,	 -E_PROTOCOL,	 -E_STALE,	  -EAGAIN,
	};

	for (size_t i = 0; i < ARRAY_COUNT(codes); i++)
		if (result == codes[i])
			return true;
	return false;
}

static void on_answer(struct piece *piece, int result)
{
	if (result < 0 && is_retried(result) && !piece->parent->ending) {
		log_debug("gateway: pg %u: request parked: %s", piece->io.pg, err_text(result));
		park(piece);
		return;
	}
	if (result < 0 && is_retried(result))
		result = piece->parent->ending;
	else if (result < 0)
		log_debug("gateway: pg %u: request of volume '%s' failed: %s", piece->io.pg,
			  piece->volume->name, err_text(result));
	finish(piece, result);
}

/* ---- on one of our own loops ---- */

static void on_local_done(struct pg_io *io, int result)
{
	on_answer(container_of_type(io, struct piece, io), result);
}

static void deliver_back(struct loop *loop, struct loop_mail *mail)
{
	struct piece *piece = container_of_type(mail, struct piece, mail);

	on_answer(piece, piece->call.was_sent ? 0 : (int)piece->call.reply_body_size * -1);
}

/* On the PG's loop. The result travels in the call, which is not in use. */
static void on_neighbour_done(struct pg_io *io, int result)
{
	struct piece *piece = container_of_type(io, struct piece, io);

	piece->call.was_sent = result == 0;
	piece->call.reply_body_size = (uint32_t)-result;
	piece->mail.deliver = deliver_back;
	loop_post(piece->gateway->loop, &piece->mail);
}

static void deliver_there(struct loop *loop, struct loop_mail *mail)
{
	struct piece *piece = container_of_type(mail, struct piece, mail);

	pg_submit(piece->gateway->options.sets[piece->home], &piece->io);
}

static void send_local(struct piece *piece, unsigned home)
{
	struct gateway *gateway = piece->gateway;

	piece->home = home;
	if (home == gateway->options.loop_index) {
		piece->io.done = on_local_done;
		pg_submit(gateway->options.sets[home], &piece->io);
	} else {
		piece->io.done = on_neighbour_done;
		piece->mail.deliver = deliver_there;
		loop_post(gateway->options.loops[home], &piece->mail);
	}
}

/* ---- on another node ---- */

static int take_read_reply(struct piece *piece, struct net_call *call)
{
	const struct peer_read_reply *reply = call->reply_body;
	struct slice data = call->reply_slice;

	if (!reply)
		return -E_PROTOCOL;
	if (from_le32(reply->flags) & PEER_READ_HOLE) {
		if (data.size)
			return -E_PROTOCOL;
		piece->io.is_hole = true;
		return 0;
	}
	if (data.size != piece->io.length)
		return -E_PROTOCOL;
	if (crc32c(data.data, data.size) != from_le32(reply->payload_crc))
		return -E_CHECKSUM;
	piece->io.data = net_call_take(call);
	return 0;
}

static void on_read_reply(struct net_call *call, int result)
{
	struct piece *piece = container_of_type(call, struct piece, call);

	on_answer(piece, result < 0 ? result : take_read_reply(piece, call));
}

static void on_write_reply(struct net_call *call, int result)
{
	struct piece *piece = container_of_type(call, struct piece, call);
	const struct peer_write_reply *reply = call->reply_body;

	if (result == 0 && !reply)
		result = -E_PROTOCOL;
	if (result == 0)
		piece->io.loss_epoch = from_le64(reply->loss_epoch);
	on_answer(piece, result);
}

static void send_read(struct piece *piece, struct net_link *link)
{
	const struct pg_io *io = &piece->io;
	const struct peer_read body = {
		.epoch = to_le64(io->epoch),
		.map_index = to_le64(io->map_index),
		.volume = to_le64(io->volume),
		.generation = to_le64(io->generation),
		.family = to_le64(io->family),
		.layer = to_le64(io->layers[0]),
		.pg = to_le32(io->pg),
		.index = to_le32(io->index),
		.offset = to_le32(io->offset),
		.length = to_le32(io->length),
		.layer_count = to_le32(io->layer_count),
	};

	piece->payload = (struct slice){.data = (uint8_t *)piece->chain->below,
					.size = (io->layer_count - 1) * (uint32_t)sizeof(le64)};
	piece->call = (struct net_call){
		.op = PEER_OP_READ,
		.body = &body,
		.body_size = sizeof(body),
		.slices = &piece->payload,
		.slice_count = io->layer_count > 1,
		.reply_max = io->length,
		.done = on_read_reply,
	};
	net_link_call(link, &piece->call);
}

static void send_write(struct piece *piece, struct net_link *link)
{
	static const uint32_t kinds[] = {
		[PG_IO_WRITE] = PEER_WRITE_DATA,
		[PG_IO_ZERO] = PEER_WRITE_ZERO,
		[PG_IO_TRIM] = PEER_WRITE_TRIM,
	};
	const struct pg_io *io = &piece->io;
	const struct slice *payload = &piece->payload;
	const struct peer_write body = {
		.epoch = to_le64(io->epoch),
		.map_index = to_le64(io->map_index),
		.volume = to_le64(io->volume),
		.generation = to_le64(io->generation),
		.family = to_le64(io->family),
		.layer = to_le64(io->layers[0]),
		.session = to_le64(io->session),
		.number = to_le64(io->number),
		.lowest = to_le64(io->lowest),
		.pg = to_le32(io->pg),
		.index = to_le32(io->index),
		.offset = to_le32(io->offset),
		.length = to_le32(io->length),
		.flags = to_le32(io->flags & PG_IO_FUA ? PEER_IO_FUA : 0),
		.kind = to_le32(kinds[io->kind]),
		.payload_crc = to_le32(io->slice_count ? crc32c(payload->data, payload->size) : 0),
		.layer_count = to_le32(io->layer_count),
	};

	piece->call = (struct net_call){
		.op = PEER_OP_WRITE,
		.body = &body,
		.body_size = sizeof(body),
		.slices = io->slices,
		.slice_count = io->slice_count,
		.done = on_write_reply,
	};
	net_link_call(link, &piece->call);
}

/* ---- sending ---- */

/* Everything but HELD: decide where to, by the map of now. */
static void send(struct piece *piece)
{
	struct gateway *gateway = piece->gateway;
	const struct cluster_pg *pg = cluster_pg(gateway->map, piece->io.pg);
	uint32_t node = pg ? cluster_pg_primary_node(gateway->map, pg) : 0;
	const struct cluster_node *there = node ? cluster_node(gateway->map, node) : NULL;

	uint16_t home = there && node == gateway->node
				? pg_peers_loop_of(gateway->map, pg->primary, pg->id)
				: 0;
	/* `home`: a map may tell of another start of this node, with other loops. */
	if (!there || !(there->flags & CLUSTER_NODE_UP) || gateway->session == 0 ||
	    home >= gateway->options.loop_count) {
		piece->io.epoch = pg ? pg->epoch : 0;
		park(piece);
		return;
	}
	piece_enter(piece, PIECE_SENT);
	piece->io.epoch = pg->epoch;
	piece->io.map_index = cluster_index(gateway->map);
	piece->io.is_hole = false;
	if (is_write(piece)) {
		struct piece *first =
			cds_list_first_entry(&piece->route->order, struct piece, order);
		piece->io.session = gateway->session;
		piece->io.lowest = first->io.number;
	}
	if (node == gateway->node) {
		send_local(piece, home);
		return;
	}
	struct net_link *link =
		pg_peers_link(gateway->options.peers, pg->primary, pg->id, PEER_CLASS_CLIENT);
	if (!link) {
		park(piece);
	} else if (is_write(piece)) {
		send_write(piece, link);
	} else {
		send_read(piece, link);
	}
}

void route_abort(struct piece *piece, int result)
{
	if (piece->state != PIECE_PARKED && piece->state != PIECE_HELD)
		return;
	cds_list_del(&piece->link);
	if (piece->state == PIECE_PARKED)
		piece->gateway->counters.parked--;
	finish(piece, result);
}

void route_submit(struct piece *piece)
{
	struct gateway *gateway = piece->gateway;
	struct route *route = route_of(gateway, piece->io.pg);

	piece->route = route;
	if (is_write(piece)) {
		piece->io.number = ++route->next_number;
		cds_list_add_tail(&piece->order, &route->order);
		struct piece *first = cds_list_first_entry(&route->order, struct piece, order);
		if (!cds_list_empty(&route->held) ||
		    piece->io.number - first->io.number >= STORE_SESSION_WINDOW) {
			piece_enter(piece, PIECE_HELD);
			cds_list_add_tail(&piece->link, &route->held);
			return;
		}
	}
	send(piece);
}

/* ---- retrying ---- */

static void unpark(struct piece *piece)
{
	cds_list_del(&piece->link);
	piece->gateway->counters.parked--;
	piece->gateway->counters.retries++;
	send(piece);
}

static void on_retry_timer(struct loop_timer *timer);

void gateway_wake_at(struct gateway *gateway, uint64_t time_ns)
{
	struct loop_timer *timer = &gateway->retry_timer;

	if (loop_timer_is_armed(timer) && gateway->wake_ns <= time_ns)
		return;
	gateway->wake_ns = time_ns;
	timer->fire = on_retry_timer;
	loop_timer_start(gateway->loop, timer, time_ns);
}

static void retry_parked(struct gateway *gateway, uint64_t now)
{
	CDS_LIST_HEAD(due);
	struct piece *piece, *next;
	uint64_t soonest = UINT64_MAX;

	cds_list_for_each_entry_safe(piece, next, &gateway->parked, link) {
		if (piece->retry_ns <= now) {
			cds_list_del(&piece->link);
			cds_list_add_tail(&piece->link, &due);
		} else {
			soonest = min_of(soonest, piece->retry_ns);
		}
	}
	if (soonest != UINT64_MAX)
		gateway_wake_at(gateway, soonest);
	cds_list_for_each_entry_safe(piece, next, &due, link)
		unpark(piece); /* parks again at the end of `parked` if need be, never in `due` */
}

static void on_retry_timer(struct loop_timer *timer)
{
	struct gateway *gateway = container_of_type(timer, struct gateway, retry_timer);
	uint64_t now = loop_now(gateway->loop);

	io_expire(gateway, now);
	retry_parked(gateway, now);
	flush_retry(gateway, now);
	owner_retry(gateway, now);
}

void route_retry_changed(struct gateway *gateway)
{
	CDS_LIST_HEAD(due);
	struct piece *piece, *next;

	cds_list_for_each_entry_safe(piece, next, &gateway->parked, link) {
		const struct cluster_pg *pg = cluster_pg(gateway->map, piece->io.pg);
		if (!pg || pg->epoch != piece->io.epoch) {
			cds_list_del(&piece->link);
			cds_list_add_tail(&piece->link, &due);
		}
	}
	cds_list_for_each_entry_safe(piece, next, &due, link)
		unpark(piece);
}

void gateway_retry(struct gateway *gateway)
{
	CDS_LIST_HEAD(due);
	struct piece *piece, *next;

	cds_list_splice(&gateway->parked, &due);
	CDS_INIT_LIST_HEAD(&gateway->parked);
	cds_list_for_each_entry_safe(piece, next, &due, link)
		unpark(piece);
}

void gateway_stop(struct gateway *gateway)
{
	gateway->is_stopping = true;
	io_abort_all(gateway, NULL, NULL, -E_SHUTDOWN);
}

/* ---- the table of PGs ---- */

int route_set_map(struct gateway *gateway, struct cluster_map *map)
{
	uint32_t first[CLUSTER_POLICIES_MAX + 1] = {0};
	uint32_t policies = cluster_policy_count(map), total = 0;

	for (uint32_t i = 0; i < policies; i++) {
		first[i] = total;
		total += cluster_policy(map, i)->pg_count;
	}
	if (policies == 0 || gateway->routes) {
		/* The number of PGs of a policy does not change while anybody has volumes open. */
		assert(!gateway->routes || total == gateway->route_first[CLUSTER_POLICIES_MAX]);
		return 0;
	}
	gateway->routes = calloc(total, sizeof(*gateway->routes));
	if (!gateway->routes)
		return -ENOMEM;
	for (uint32_t i = 0; i < total; i++) {
		CDS_INIT_LIST_HEAD(&gateway->routes[i].order);
		CDS_INIT_LIST_HEAD(&gateway->routes[i].held);
	}
	first[CLUSTER_POLICIES_MAX] = total;
	for (uint32_t i = 0; i <= CLUSTER_POLICIES_MAX; i++)
		gateway->route_first[i] = first[i];
	return 0;
}

void route_free(struct gateway *gateway)
{
	assert(cds_list_empty(&gateway->parked));
	loop_timer_stop(gateway->loop, &gateway->retry_timer);
	free(gateway->routes);
}
