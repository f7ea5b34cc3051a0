/*
 * FLUSH (REPLICATION, F1): everything acknowledged before it is on stable storage of every
 * in-sync member, or it fails.
 *
 * A flush asks every member of every PG that the volume may have unflushed writes in, by one
 * message per node and loop. A PG whose epoch changed meanwhile is asked again, by the newer map.
 * If the loss epoch of a PG rose since the first unflushed write, acknowledged writes are gone and the
 * flush says so. One flush of a volume runs at a time; all that come meanwhile share the next.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/rule.h"
#include "lib/base/size.h"
#include "sheep/gateway/gateway_priv.h"

/* What one loop of one node is asked; rows are both the wire's and the local form. */
struct target {
	struct flush *flush;
	uint32_t node;
	uint16_t home; /* loop there */
	uint32_t row_count, row_room;
	struct peer_sync_row *rows;
	struct pg_sync_row *local_rows;
	struct slice payload;
	struct net_call call;
	struct pg_sync sync;
	struct loop_mail mail;
	int result;
};

struct flush {
	struct volume *volume;
	struct cds_list_head waiters; /* gateway_io */
	struct cds_list_head link;    /* gateway.flushes, while it waits for a map or a pause */
	bool is_waiting;
	uint64_t retry_ns; /* when it goes on without a reason, while it waits */
	uint32_t tries;
	bool covers_all;
	uint32_t asked; /* targets that have not answered */
	int result;	/* of this round: 0, or why it must be repeated */
	uint32_t target_count, target_room;
	struct target **targets;
	/* By number of the PG: */
	uint64_t *epochs;  /* asked in this epoch; 0: not concerned, or done */
	uint64_t *written; /* volume->dirt[].written at the start */
	uint64_t *flushed; /* and .flushed */
	bool *awaits_join; /* of a member that could still be elected: no change of epoch */
};

static void round_start(struct flush *flush);

static void targets_free(struct flush *flush)
{
	for (uint32_t i = 0; i < flush->target_count; i++) {
		free(flush->targets[i]->rows);
		free(flush->targets[i]->local_rows);
		free(flush->targets[i]);
	}
	flush->target_count = 0;
}

static void flush_free(struct flush *flush)
{
	if (!flush)
		return;
	targets_free(flush);
	free(flush->targets);
	free(flush->epochs);
	free(flush->written);
	free(flush->flushed);
	free(flush->awaits_join);
	free(flush);
}

static struct flush *flush_new(struct volume *volume)
{
	struct flush *flush = calloc(1, sizeof(*flush));

	if (!flush)
		return NULL;
	flush->volume = volume;
	CDS_INIT_LIST_HEAD(&flush->waiters);
	flush->epochs = calloc(volume->dirt_count, sizeof(*flush->epochs));
	flush->written = calloc(volume->dirt_count, sizeof(*flush->written));
	flush->flushed = calloc(volume->dirt_count, sizeof(*flush->flushed));
	flush->awaits_join = calloc(volume->dirt_count, sizeof(*flush->awaits_join));
	if (!flush->epochs || !flush->written || !flush->flushed || !flush->awaits_join) {
		flush_free(flush);
		return NULL;
	}
	return flush;
}

/* ---- the end ---- */

/*
 * Acknowledged writes are lost: each connection that was there is told once, as fsync tells each
 * descriptor, by all of its FLUSHes that are answered now.
 */
static void judge_losses(struct cds_list_head *waiters)
{
	struct gateway_io *io;

	cds_list_for_each_entry(io, waiters, link)
		if (io->volume->losses_told != io->volume->shared->losses)
			io->result = -E_LOST_WRITES;
	cds_list_for_each_entry(io, waiters, link)
		io->volume->losses_told = io->volume->shared->losses;
}

static void answer(struct cds_list_head *waiters, int result)
{
	struct gateway_io *io;

	if (result == 0)
		judge_losses(waiters);
	/* The end of one may end others that wait here. */
	while (!cds_list_empty(waiters)) {
		io = cds_list_first_entry(waiters, struct gateway_io, link);
		cds_list_del(&io->link);
		io_done(io, result < 0 ? result : io->result);
	}
}

static void start_next(struct volume *volume);

static void flush_end(struct flush *flush, int result)
{
	struct volume *volume = flush->volume;
	CDS_LIST_HEAD(waiters);

	if (flush->is_waiting)
		cds_list_del(&flush->link);
	cds_list_splice(&flush->waiters, &waiters);
	volume->flush = NULL;
	if (result < 0 && flush->covers_all)
		volume->has_strangers = true;
	flush_free(flush);
	/* Before the answers: their owners may give the volume back. */
	start_next(volume);
	answer(&waiters, result);
}

/* Without anybody to be told. */
static void flush_over(struct flush *flush)
{
	struct volume *volume = flush->volume;

	flush_end(flush, -E_SHUTDOWN);
	volume_release(volume);
}

static const struct cluster_pg *pg_at(const struct volume *volume, uint32_t number)
{
	return cluster_pg(volume->gateway->map, volume->policy << CLUSTER_PG_POLICY_SHIFT | number);
}

/*
 * All targets have said yes. A PG is done if its epoch is still the one that was asked, else it is
 * asked again. Returns how many are left.
 */
static uint32_t settle_round(struct flush *flush)
{
	struct volume *volume = flush->volume;
	uint32_t left = 0;

	for (uint32_t i = 0; i < volume->dirt_count; i++) {
		if (!flush->epochs[i])
			continue;
		if (pg_at(volume, i)->epoch == flush->epochs[i] || !RULE(F1_REPEAT)) {
			flush->epochs[i] = 0;
			volume->dirt[i].flushed = flush->written[i];
		} else {
			left++;
		}
	}
	return left;
}

/*
 * Were acknowledged writes lost since we began to count on them? Told once, then counted anew: what
 * was acknowledged after this flush began is gone, too, so it counts.
 */
static bool has_lost_writes(struct flush *flush)
{
	struct volume *volume = flush->volume;
	bool is_lost = false;

	for (uint32_t i = 0; i < volume->dirt_count; i++) {
		uint64_t loss_epoch = pg_at(volume, i)->loss_epoch;
		if (loss_epoch <= volume->dirt[i].loss_epoch || !RULE(F1_LOSS_EPOCH))
			continue;
		/* A PG that had nothing unflushed of ours has lost nothing of ours, but others' writes
		 * that this FLUSH is to cover may have been there. */
		if (flush->covers_all || volume->dirt[i].written > flush->flushed[i])
			is_lost = true;
		volume->dirt[i].loss_epoch = loss_epoch;
	}
	return is_lost;
}

/* Until the map says something new of a PG that is left, or for a pause that doubles. */
static void wait_for_map(struct flush *flush)
{
	struct gateway *gateway = flush->volume->gateway;
	uint64_t pause = GATEWAY_RETRY_MIN_NS << min_of(flush->tries, 10u);

	flush->tries++;
	flush->is_waiting = true;
	flush->retry_ns = loop_now(gateway->loop) + min_of(pause, GATEWAY_PATIENCE_NS);
	cds_list_add_tail(&flush->link, &gateway->flushes);
	gateway_wake_at(gateway, flush->retry_ns);
}

static bool has_news(const struct flush *flush)
{
	const struct volume *volume = flush->volume;

	for (uint32_t i = 0; i < volume->dirt_count; i++) {
		const struct cluster_pg *pg = pg_at(volume, i);
		if (flush->epochs[i] &&
		    (pg->epoch != flush->epochs[i] ||
		     (flush->awaits_join[i] && pg->join_count > 0 && !cluster_pg_may_elect(pg))))
			return true;
	}
	return false;
}

/* Anew, by the map of now. What was tried by an older one says nothing of it. */
static void go_on(struct flush *flush)
{
	if (flush->is_waiting)
		cds_list_del(&flush->link);
	flush->is_waiting = false;
	if (has_news(flush))
		flush->tries = 0;
	if (cds_list_empty(&flush->waiters))
		flush_over(flush);
	else
		round_start(flush);
}

static void target_done(struct target *target, int result)
{
	struct flush *flush = target->flush;

	if (result < 0)
		flush->result = result;
	if (--flush->asked > 0)
		return;
	struct volume *volume = flush->volume;
	if (cds_list_empty(&flush->waiters)) { /* all were given up; so it is, in any case */
		flush_over(flush);
	} else if (flush->result < 0) {
		log_debug("gateway: flush of '%s' is repeated: %s", volume->name,
			  err_text(flush->result));
		/* A map that came while we asked: it may be what the pause would wait for. */
		if (has_news(flush))
			go_on(flush);
		else
			wait_for_map(flush);
	} else if (settle_round(flush) > 0) {
		round_start(flush);
	} else {
		if (has_lost_writes(flush)) {
			volume->losses++;
			log_error("gateway: volume '%s': acknowledged writes that were not flushed "
				  "are lost",
				  volume->name);
		}
		flush_end(flush, 0);
	}
}

/* ---- asking ---- */

static void on_reply(struct net_call *call, int result)
{
	target_done(container_of_type(call, struct target, call), result);
}

static void on_local_done(struct pg_sync *sync, int result)
{
	target_done(container_of_type(sync, struct target, sync), result);
}

static void deliver_back(struct loop *loop, struct loop_mail *mail)
{
	struct target *target = container_of_type(mail, struct target, mail);

	target_done(target, target->result);
}

static void on_neighbour_done(struct pg_sync *sync, int result)
{
	struct target *target = container_of_type(sync, struct target, sync);

	target->result = result;
	target->mail.deliver = deliver_back;
	loop_post(target->flush->volume->gateway->loop, &target->mail);
}

static void deliver_there(struct loop *loop, struct loop_mail *mail)
{
	struct target *target = container_of_type(mail, struct target, mail);

	pg_sync_submit(target->flush->volume->gateway->options.sets[target->home], &target->sync);
}

static void ask_self(struct target *target)
{
	struct gateway *gateway = target->flush->volume->gateway;

	target->sync.rows = target->local_rows;
	target->sync.row_count = target->row_count;
	if (target->home == gateway->options.loop_index) {
		target->sync.done = on_local_done;
		pg_sync_submit(gateway->options.sets[target->home], &target->sync);
	} else {
		target->sync.done = on_neighbour_done;
		target->mail.deliver = deliver_there;
		loop_post(gateway->options.loops[target->home], &target->mail);
	}
}

/* False: it cannot be reached now. */
static bool ask(struct target *target)
{
	struct gateway *gateway = target->flush->volume->gateway;

	if (target->node == gateway->node) {
		/* A map may tell of another start of this node, with other loops. */
		if (target->home >= gateway->options.loop_count)
			return false;
		ask_self(target);
		return true;
	}
	struct net_link *link = pg_peers_node_link(gateway->options.peers, target->node,
						   target->home, PEER_CLASS_CLIENT);
	if (!link)
		return false;
	const struct peer_sync body = {
		.map_index = to_le64(cluster_index(gateway->map)),
		.row_count = to_le32(target->row_count),
	};
	target->payload = (struct slice){
		.data = (uint8_t *)target->rows,
		.size = target->row_count * (uint32_t)sizeof(target->rows[0]),
	};
	target->call = (struct net_call){
		.op = PEER_OP_SYNC,
		.body = &body,
		.body_size = sizeof(body),
		.slices = &target->payload,
		.slice_count = 1,
		.done = on_reply,
	};
	net_link_call(link, &target->call);
	return true;
}

static struct target *target_get(struct flush *flush, uint32_t node, uint16_t home)
{
	for (uint32_t i = 0; i < flush->target_count; i++)
		if (flush->targets[i]->node == node && flush->targets[i]->home == home)
			return flush->targets[i];
	if (flush->target_count == flush->target_room) {
		uint32_t room = flush->target_room ? 2 * flush->target_room : 8;
		void *grown = realloc(flush->targets, room * sizeof(*flush->targets));
		if (!grown)
			return NULL;
		flush->targets = grown;
		flush->target_room = room;
	}
	struct target *target = calloc(1, sizeof(*target));
	if (!target)
		return NULL;
	target->flush = flush;
	target->node = node;
	target->home = home;
	flush->targets[flush->target_count++] = target;
	return target;
}

static int add_row(struct flush *flush, const struct cluster_pg *pg, uint32_t store)
{
	struct gateway *gateway = flush->volume->gateway;
	struct target *target = target_get(flush, cluster_store_node(gateway->map, store),
					   pg_peers_loop_of(gateway->map, store, pg->id));

	if (!target)
		return -ENOMEM;
	if (target->row_count == target->row_room) {
		uint32_t room = target->row_room ? 2 * target->row_room : 64;
		void *rows = realloc(target->rows, room * sizeof(*target->rows));
		if (rows)
			target->rows = rows;
		void *local = realloc(target->local_rows, room * sizeof(*target->local_rows));
		if (local)
			target->local_rows = local;
		if (!rows || !local)
			return -ENOMEM;
		target->row_room = room;
	}
	target->rows[target->row_count] = (struct peer_sync_row){
		.epoch = to_le64(pg->epoch), .pg = to_le32(pg->id), .store = to_le32(store)};
	target->local_rows[target->row_count] =
		(struct pg_sync_row){.epoch = pg->epoch, .pg = pg->id, .store = store};
	target->row_count++;
	return 0;
}

/*
 * Every unmarked member of every PG that is left, by the map of now. A PG that has none at present
 * (all may have lost their tails) cannot be asked: the flush waits for the map in which it has.
 */
static int make_targets(struct flush *flush)
{
	struct volume *volume = flush->volume;

	targets_free(flush);
	for (uint32_t i = 0; i < volume->dirt_count; i++) {
		if (!flush->epochs[i])
			continue;
		const struct cluster_pg *pg = pg_at(volume, i);
		bool is_asked = pg->epoch == 0; /* never had members, nor writes */
		flush->epochs[i] = pg->epoch;
		for (uint32_t m = 0; m < pg->isr_count; m++) {
			if (pg->isr[m].flags & CLUSTER_SEAT_MARKED)
				continue;
			if (!RULE(F1_ALL_SYNCED) && pg->isr[m].store != pg->primary)
				continue;
			int rc = add_row(flush, pg, pg->isr[m].store);
			if (rc < 0)
				return rc;
			is_asked = true;
		}
		/* R4: who is marked may lack what this FLUSH is to keep. Until its join begins it could be
		 * elected all the same, if the others do not come back. */
		bool may_elect = RULE(R4_FLUSH) && cluster_pg_may_elect(pg);
		if (!is_asked || may_elect)
			flush->result = -E_NOT_PRIMARY;
		flush->awaits_join[i] = may_elect;
	}
	return 0;
}

static void round_start(struct flush *flush)
{
	flush->result = 0;
	if (make_targets(flush) < 0) {
		flush_end(flush, -ENOMEM);
		return;
	}
	/* One more than there are: nothing ends before all have been asked. */
	flush->asked = flush->target_count + 1;
	for (uint32_t i = 0; i < flush->target_count; i++)
		if (!ask(flush->targets[i])) {
			flush->asked--;
			flush->result = -E_CLOSED;
		}
	if (flush->asked > 1) {
		flush->asked--;
		return;
	}
	if (flush->result < 0) {
		wait_for_map(flush);
		return;
	}
	flush_end(flush, 0); /* no PG is concerned */
}

static void flush_start(struct volume *volume, struct flush *flush)
{
	volume->flush = flush;
	/* Strangers' writes from now on are for the next one. */
	flush->covers_all = volume->has_strangers;
	volume->has_strangers = volume->has_others;
	for (uint32_t i = 0; i < volume->dirt_count; i++) {
		flush->written[i] = volume->dirt[i].written;
		flush->flushed[i] = volume->dirt[i].flushed;
		if (flush->covers_all || volume->dirt[i].written > volume->dirt[i].flushed)
			flush->epochs[i] = 1; /* of now: make_targets() */
	}
	round_start(flush);
}

static void start_next(struct volume *volume)
{
	if (cds_list_empty(&volume->flush_waiters))
		return;
	struct flush *flush = flush_new(volume);
	if (!flush) {
		CDS_LIST_HEAD(waiters);
		cds_list_splice(&volume->flush_waiters, &waiters);
		CDS_INIT_LIST_HEAD(&volume->flush_waiters);
		answer(&waiters, -ENOMEM);
		return;
	}
	cds_list_splice(&volume->flush_waiters, &flush->waiters);
	CDS_INIT_LIST_HEAD(&volume->flush_waiters);
	flush_start(volume, flush);
}

/* ---- outside ---- */

void flush_start_one(struct gateway_io *io)
{
	struct volume *volume = io->volume->shared;

	io->stage = IO_WAITING;
	cds_list_add_tail(&io->link, &volume->flush_waiters);
	if (!volume->flush)
		start_next(volume);
}

void flush_note_write(struct volume *volume, uint32_t pg, uint64_t loss_epoch)
{
	struct dirt *dirt = &volume->dirt[pg_number(pg)];
	bool has_strangers = volume->has_strangers || (volume->flush && volume->flush->covers_all);

	/* While others' writes may be unflushed there, or older ones of ours, this one does not make
	 * what they lost forgotten. One whose answer comes after the news of the loss is lost, too. */
	if (loss_epoch < dirt->loss_epoch || (dirt->written == dirt->flushed && !has_strangers))
		dirt->loss_epoch = loss_epoch;
	dirt->written++;
}

/* Those that wait and are due, or by the map of now may go on. */
static void look(struct gateway *gateway, uint64_t now)
{
	CDS_LIST_HEAD(flushes);
	struct flush *flush, *next;

	cds_list_splice(&gateway->flushes, &flushes);
	CDS_INIT_LIST_HEAD(&gateway->flushes);
	cds_list_for_each_entry_safe(flush, next, &flushes, link) {
		if (flush->retry_ns <= now || has_news(flush) || cds_list_empty(&flush->waiters)) {
			go_on(flush);
			continue;
		}
		cds_list_del(&flush->link);
		cds_list_add_tail(&flush->link, &gateway->flushes);
		gateway_wake_at(gateway, flush->retry_ns);
	}
}

void flush_map_changed(struct gateway *gateway)
{
	look(gateway, loop_now(gateway->loop));
}

void flush_retry(struct gateway *gateway, uint64_t now)
{
	look(gateway, now);
}

void flush_cancel(struct volume *volume)
{
	struct flush *flush = volume->flush;

	assert(cds_list_empty(&volume->flush_waiters));
	if (!flush)
		return;
	assert(flush->asked == 0 && cds_list_empty(&flush->waiters));
	if (flush->is_waiting)
		cds_list_del(&flush->link);
	volume->flush = NULL;
	flush_free(flush);
}
