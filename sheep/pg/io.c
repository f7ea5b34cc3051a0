/*
 * Client operations at the primary: who is served, in which order, and what they wait for.
 *
 *   judged --map behind--> future --> judged
 *     |  \--not serving yet--> waiting --> judged again at every change
 *     v
 *   work: lock of its blocks --> read, or write.c --> finished (told from the kick)
 *            ^        |                \--no lease: lease.c--/
 *            +--heal--+   an object is missing here
 *
 * A read takes its lock only to wait for the writes before it that overlap (W4): the store reads
 * what is visible when it is asked, so writes need not wait for reads.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/rule.h"
#include "sheep/pg/lease.h"
#include "sheep/pg/pg_priv.h"

#define HEALS_MAX 3u

/* ---- telling ---- */

void pg_io_finish(struct pg_set *set, struct pg_io *io, int result)
{
	if (result < 0 && result != -ENOSPC)
		set->counters.refused++;
	io->work = (void *)(intptr_t)result;
	cds_list_add_tail(&io->link, &set->finished);
	pg_set_kick(set);
}

/* ---- judging ---- */

static bool is_sane(const struct pg_io *io)
{
	uint32_t bytes = 0;

	if (io->layer_count < 1 || io->layer_count > STORE_LAYERS_MAX || io->length == 0 ||
	    !range_is_within(io->offset, io->length, OBJECT_SIZE))
		return false;
	if (io->kind == PG_IO_READ)
		return true;
	if (io->session && (io->number == 0 || io->lowest > io->number ||
			    io->number - io->lowest >= STORE_SESSION_WINDOW))
		return false;
	if (io->kind != PG_IO_WRITE)
		return io->kind == PG_IO_ZERO || io->kind == PG_IO_TRIM;
	for (uint32_t i = 0; i < io->slice_count; i++) {
		if (io->slices[i].size > io->length - bytes)
			return false;
		bytes += io->slices[i].size;
	}
	return bytes == io->length;
}

static int judge_session(struct pg_lead *lead, const struct pg_io *io)
{
	struct pg_session *session;

	if (io->kind == PG_IO_READ || io->session == 0)
		return 0;
	HASH_FIND(hh, lead->sessions, &io->session, sizeof(io->session), session);
	if (!session) {
		if (RULE(Q2_OLD_SESSION) && !pg_session_is_alive(lead->pg->set, io->session))
			return -E_STALE_SESSION;
		session = calloc(1, sizeof(*session));
		if (!session)
			return -ENOMEM;
		session->id = io->session;
		HASH_ADD(hh, lead->sessions, id, sizeof(session->id), session);
	}
	if (RULE(Q1_LATE) && io->number < session->lowest)
		return -E_STALE_SESSION; /* late: it was answered long ago */
	session->lowest = max_of(session->lowest, io->lowest);
	return 0;
}

/* Its clients had better wait at their gateways. */
static bool is_stuck(const struct pg *pg)
{
	return loop_now(pg->set->loop) >= pg->progress_ns + PG_PATIENCE_NS;
}

/*
 * One PG has as many works as are left for all others, at most: so however many PGs hang, with writes that
 * have their numbers and cannot be sent back, one more finds some. One that has none always has room.
 */
static bool has_room(const struct pg_lead *lead)
{
	const struct pg_set *set = lead->pg->set;

	return lead->pg->state == PG_SERVING && lead->work_count < set->works_max &&
	       lead->work_count <= pool_count(set->works) - pool_busy(set->works);
}

enum verdict { GO, WAIT_MAP, WAIT_SERVING, REFUSED };

static enum verdict judge(struct pg_set *set, const struct pg_io *io, struct pg_lead **out,
			  int *error)
{
	struct pg_lead *lead = pg_lead_find(set, io->pg);

	*error = 0;
	*out = lead;
	if (set->is_stopping)
		*error = -E_SHUTDOWN;
	else if (!is_sane(io))
		*error = -EINVAL;
	else if (max_of(io->map_index, io->generation) > set->index)
		return WAIT_MAP;
	else if (!lead)
		*error = -E_NOT_PRIMARY;
	else if (io->epoch != lead->pg->epoch)
		*error = io->epoch < lead->pg->epoch ? -E_STALE_EPOCH : -E_FUTURE_EPOCH;
	else if (!pg_holds_object(set, io->pg, io->family, io->index))
		*error = -EINVAL;
	else if ((*error = pg_judge_owner(set, io)) < 0)
		return REFUSED;
	else if (has_room(lead))
		*error = judge_session(lead, io);
	else if (is_stuck(lead->pg))
		*error = -E_NOT_PRIMARY;
	else
		return WAIT_SERVING;
	return *error ? REFUSED : GO;
}

static void work_new(struct pg_set *set, struct pg_lead *lead, struct pg_io *io)
{
	struct pg_work *work = pool_get(set->works);

	if (!work) {
		cds_list_add_tail(&io->link, &set->arrivals);
		return;
	}
	work->set = set;
	work->io = io;
	work->lead = lead;
	work->volume = io->volume;
	work->generation = io->generation;
	work->key = (struct object_key){.layer = io->layers[0], .index = io->index};
	work->block = io->offset / BLOCK_SIZE;
	work->count = (uint32_t)div_up(io->offset + io->length, BLOCK_SIZE) - work->block;
	work->arrived_ns = loop_clock(set->loop);
	memcpy(work->layers, io->layers, io->layer_count * sizeof(*io->layers));
	cds_list_add_tail(&work->link, &lead->works);
	if (lead->work_count++ == 0)
		lead->pg->progress_ns = loop_now(set->loop);
	pg_set_active(lead->pg);
	pg_work_start(work);
}

void pg_io_begin(struct pg_set *set, struct pg_io *io)
{
	struct pg_lead *lead;
	int error;

	switch (judge(set, io, &lead, &error)) {
	case GO:
		work_new(set, lead, io);
		break;
	case WAIT_MAP:
		if (!io->parked_ns)
			io->parked_ns = loop_now(set->loop);
		cds_list_add_tail(&io->link, &set->future_ios);
		pg_set_tick(set);
		break;
	case WAIT_SERVING:
		cds_list_add_tail(&io->link, &lead->pg->waiting);
		lead->pg->waiting_count++;
		pg_set_active(lead->pg);
		break;
	case REFUSED:
		pg_io_finish(set, io, error);
		break;
	}
}

void pg_submit(struct pg_set *set, struct pg_io *io)
{
	io->work = NULL;
	io->parked_ns = 0;
	io->is_hole = false;
	if (!cds_list_empty(&set->arrivals) && !set->is_stopping)
		cds_list_add_tail(&io->link, &set->arrivals);
	else
		pg_io_begin(set, io);
}

void pg_io_rejudge(struct pg *pg)
{
	CDS_LIST_HEAD(ios);

	cds_list_splice(&pg->waiting, &ios);
	CDS_INIT_LIST_HEAD(&pg->waiting);
	pg->waiting_count = 0;
	while (!cds_list_empty(&ios)) {
		struct pg_io *io = cds_list_first_entry(&ios, struct pg_io, link);
		cds_list_del(&io->link);
		pg_io_begin(pg->set, io);
	}
}

static void admit(struct pg *pg)
{
	while (!cds_list_empty(&pg->waiting) && pg->lead && has_room(pg->lead)) {
		struct pg_io *io = cds_list_first_entry(&pg->waiting, struct pg_io, link);
		cds_list_del(&io->link);
		pg->waiting_count--;
		pg_io_begin(pg->set, io);
	}
}

void pg_io_drain(struct pg_set *set)
{
	CDS_LIST_HEAD(works);

	while (!cds_list_empty(&set->crowded)) {
		struct pg *pg = cds_list_first_entry(&set->crowded, struct pg, crowded);
		cds_list_del(&pg->crowded);
		pg->is_crowded = false;
		admit(pg);
	}
	cds_list_splice(&set->starved, &works);
	CDS_INIT_LIST_HEAD(&set->starved);
	while (!cds_list_empty(&works)) {
		struct pg_work *work = cds_list_first_entry(&works, struct pg_work, starved);
		cds_list_del(&work->starved);
		work->is_starved = false;
		pg_write_go(work);
	}
	while (!cds_list_empty(&set->arrivals) && pool_busy(set->works) < pool_count(set->works)) {
		struct pg_io *io = cds_list_first_entry(&set->arrivals, struct pg_io, link);
		cds_list_del(&io->link);
		pg_io_begin(set, io);
	}
}

/* ---- works ---- */

/* The lead is over, or its io is answered: gone when nothing is out there any more. */
void pg_work_put(struct pg_work *work)
{
	struct pg_set *set = work->set;

	if (work->pending > 0)
		return;
	for (unsigned i = 0; i < ARRAY_COUNT(work->reads); i++)
		buffer_put(work->reads[i].data.buffer);
	pool_put(set->works, work);
	if (!cds_list_empty(&set->arrivals) || set->stop_op)
		pg_set_kick(set);
}

/* There is room for one more. */
static void make_room(struct pg_lead *lead)
{
	struct pg *pg = lead->pg;

	lead->work_count--;
	if (cds_list_empty(&pg->waiting) || pg->is_crowded)
		return;
	pg->is_crowded = true;
	cds_list_add_tail(&pg->crowded, &pg->set->crowded);
	pg_set_kick(pg->set);
}

static void detach(struct pg_work *work, int result)
{
	make_room(work->lead);
	work->lead = NULL;
	cds_list_del(&work->link);
	if (work->is_starved)
		cds_list_del(&work->starved);
	work->is_starved = false;
	if (work->is_leaseless)
		cds_list_del(&work->leaseless);
	work->is_leaseless = false;
	if (work->io)
		pg_io_finish(work->set, work->io, result);
	work->io = NULL;
	if (!cds_list_empty(&work->set->drains))
		pg_set_kick(work->set);
}

void pg_work_end(struct pg_work *work, int result)
{
	struct pg_set *set = work->set;

	work->lead->pg->progress_ns = loop_now(set->loop);
	detach(work, result);
	pg_lock_release(&set->locks, &work->lock);
	pg_work_put(work);
}

/* First all, so that none of them is granted the lock of another. */
static void end_detached(struct pg_set *set, struct cds_list_head *ended)
{
	struct pg_work *work, *next;

	cds_list_for_each_entry_safe(work, next, ended, link) {
		cds_list_del(&work->link);
		pg_lock_release(&set->locks, &work->lock);
		pg_work_put(work);
	}
}

void pg_works_end(struct pg_lead *lead, int result)
{
	CDS_LIST_HEAD(ended);
	struct pg_work *work, *next;

	cds_list_for_each_entry_safe(work, next, &lead->works, link) {
		detach(work, result);
		cds_list_add_tail(&work->link, &ended);
	}
	end_detached(lead->pg->set, &ended);
}

/* What has its number goes its way, and is recognised when it comes again. */
static void let_go(struct pg_lead *lead)
{
	struct pg_set *set = lead->pg->set;
	CDS_LIST_HEAD(ended);
	struct pg_work *work, *next;

	cds_list_for_each_entry_safe(work, next, &lead->works, link) {
		if (!work->has_entry) {
			detach(work, -E_NOT_PRIMARY);
			cds_list_add_tail(&work->link, &ended);
		} else if (work->io) {
			pg_io_finish(set, work->io, -E_NOT_PRIMARY);
			work->io = NULL;
		}
	}
	end_detached(set, &ended);
}

bool pg_io_tick(struct pg *pg)
{
	if (is_stuck(pg)) {
		while (!cds_list_empty(&pg->waiting)) {
			struct pg_io *io = cds_list_first_entry(&pg->waiting, struct pg_io, link);
			cds_list_del(&io->link);
			pg->waiting_count--;
			pg_io_finish(pg->set, io, -E_NOT_PRIMARY);
		}
		if (pg->lead)
			let_go(pg->lead);
	}
	return pg->waiting_count > 0 || (pg->lead && pg->lead->work_count > 0);
}

void pg_works_end_sessions(struct pg_lead *lead)
{
	struct pg_set *set = lead->pg->set;
	struct pg_session *session, *next_session;
	struct pg_work *work, *next;

	HASH_ITER(hh, lead->sessions, session, next_session) {
		if (pg_session_is_alive(set, session->id))
			continue;
		HASH_DEL(lead->sessions, session);
		free(session);
	}
again:
	cds_list_for_each_entry_safe(work, next, &lead->works, link) {
		/* What has its number goes its way; what has not never gets one. */
		if (work->has_entry || !work->io || work->io->kind == PG_IO_READ ||
		    work->io->session == 0 || pg_session_is_alive(set, work->io->session))
			continue;
		pg_work_end(work, -E_STALE_SESSION);
		goto again; /* it may have let others go on */
	}
}

static void go(struct pg_work *work)
{
	if (!work->lead || pg_lead_is_over(work->lead)) /* granted while it ends */
		return;
	if (work->io->kind == PG_IO_READ) {
		pg_work_read(work, 0, work->block, work->count);
		pg_lock_release(&work->set->locks, &work->lock);
	} else {
		pg_write_go(work);
	}
}

static void on_granted(struct pg_lock *lock)
{
	go(container_of_type(lock, struct pg_work, lock));
}

void pg_work_start(struct pg_work *work)
{
	enum pg_lock_mode mode = work->io->kind == PG_IO_READ ? PG_LOCK_SHARED : PG_LOCK_EXCLUSIVE;
	int rc;

	if (!RULE(W4_READS_WAIT) && mode == PG_LOCK_SHARED) {
		go(work);
		return;
	}
	if (!RULE(Q1_COMMITTED) && mode == PG_LOCK_EXCLUSIVE && pg_write_end_early(work))
		return;
	work->lock.granted = on_granted;
	rc = pg_lock_take(&work->set->locks, &work->lock, &work->key, mode, work->block,
			  work->count);
	if (rc < 0)
		pg_work_end(work, rc);
	else if (rc > 0)
		go(work);
}

void pg_work_starve(struct pg_work *work)
{
	assert(!work->is_starved);
	work->is_starved = true;
	cds_list_add_tail(&work->starved, &work->set->starved);
}

/* ---- healing ---- */

/* Somebody else may lead by now, who has it: an error, too, needs a lease. */
static void answer_failed(struct pg_work *work, int failure)
{
	work->failure = failure;
	pg_work_answer(work);
}

void pg_works_lost(struct pg_lead *lead, const struct object_key *key)
{
	struct pg_work *work, *next;

	cds_list_for_each_entry_safe(work, next, &lead->works, link) {
		if (!work->lock.object || work->lock.is_granted || work->pending > 0 ||
		    work->failure || work->is_starved || object_key_compare(&work->key, key) != 0)
			continue;
		pg_lock_release(&work->set->locks, &work->lock);
		answer_failed(work, -E_LOST);
	}
}

static void on_healed(struct pg_heal_wait *wait, int result)
{
	struct pg_work *work = container_of_type(wait, struct pg_work, heal);

	work->pending--;
	if (!work->lead)
		pg_work_put(work);
	else if (result == -E_LOST)
		answer_failed(work, -E_LOST);
	else if (result == -E_NOT_PRIMARY)
		pg_work_end(work, result);
	else if (result < 0)
		answer_failed(work, -EIO);
	else
		pg_work_start(work);
}

/* The first layer whose object is missing here; false: none is. */
static bool find_missing(const struct pg_work *work, struct object_key *out)
{
	struct store *store = pg_store_of(work->lead->pg);
	struct store_object object;

	for (uint32_t i = 0; i < work->io->layer_count; i++) {
		struct object_key key = {.layer = work->layers[i], .index = work->io->index};
		if (store_object(store, work->lead->id, &key, &object) > 0 && object.is_missing) {
			*out = key;
			return true;
		}
	}
	return false;
}

void pg_work_forget_reads(struct pg_work *work)
{
	for (unsigned i = 0; i < ARRAY_COUNT(work->reads); i++) {
		buffer_put(work->reads[i].data.buffer);
		work->reads[i].data.buffer = NULL;
	}
	work->is_merged = false;
}

void pg_work_heal(struct pg_work *work)
{
	struct object_key key;

	pg_work_forget_reads(work);
	pg_lock_release(&work->set->locks, &work->lock);
	if (!find_missing(work, &key)) { /* healed by another meanwhile */
		pg_work_start(work);
		return;
	}
	work->pending++;
	work->heal.done = on_healed;
	pg_heal_object(work->lead, &key, PG_HEAL_UNLOCKED, &work->heal);
}

/* ---- reading, and what changes nothing ---- */

static void give_data(struct pg_work *work)
{
	struct pg_io *io = work->io;
	struct store_read *read = &work->reads[0];
	uint32_t skip = io->offset - work->block * BLOCK_SIZE;

	io->is_hole = read->is_all_hole;
	if (!read->is_all_hole) {
		io->data = read->data;
		io->data.data += skip;
		io->data.size = io->length;
		read->data.buffer = NULL; /* the client's reference now */
	}
	work->set->counters.reads++;
	work->set->counters.read_bytes += io->length;
}

void pg_work_answer(struct pg_work *work)
{
	enum pg_state state = work->lead->pg->state;

	if (state != PG_SERVING && state != PG_LEAVING) {
		pg_work_end(work, -E_NOT_PRIMARY);
	} else if (!pg_lead_has_lease(work->lead, work->arrived_ns)) {
		pg_lease_wait(work);
	} else if (work->failure) {
		pg_work_end(work, work->failure);
	} else {
		if (work->io->kind == PG_IO_READ)
			give_data(work);
		work->io->loss_epoch = work->lead->pg->row.loss_epoch;
		pg_work_end(work, 0);
	}
}

static void on_read(struct pg_work *work, int result)
{
	struct pg_set *set = work->set;

	work->pending--;
	if (result < 0 && work->result == 0)
		work->result = result;
	if (work->pending > 0) {
		; /* the other one is still out there */
	} else if (!work->lead) {
		pg_work_put(work);
	} else if (work->result == -E_CHECKSUM && work->heals++ == HEALS_MAX) {
		answer_failed(work, -EIO); /* what others find damaged meanwhile does not count */
	} else if (work->result == -E_MISSING || work->result == -E_CHECKSUM) {
		pg_work_heal(work);
	} else if (work->result == -E_LOST) {
		answer_failed(work, -E_LOST);
	} else if (work->result < 0) {
		pg_work_end(work, work->result == -E_STORE_FAILED ? -E_NOT_PRIMARY : work->result);
	} else if (work->io->kind == PG_IO_READ) {
		pg_work_answer(work);
	} else {
		work->is_merged = true;
		pg_write_go(work);
	}
	pg_set_release(set);
}

static void on_first_read(struct store_read *read, int result)
{
	on_read(container_of_type(read, struct pg_work, reads[0]), result);
}

static void on_second_read(struct store_read *read, int result)
{
	on_read(container_of_type(read, struct pg_work, reads[1]), result);
}

void pg_work_read(struct pg_work *work, unsigned slot, uint32_t block, uint32_t count)
{
	struct store_read *read = &work->reads[slot];

	memset(read, 0, sizeof(*read));
	read->done = slot == 0 ? on_first_read : on_second_read;
	read->pg = work->lead->id;
	read->family = work->io->family;
	read->index = work->io->index;
	read->layers = work->layers;
	read->layer_count = work->io->layer_count;
	read->block = block;
	read->count = count;
	work->result = work->pending == 0 ? 0 : work->result;
	work->pending++;
	pg_set_hold(work->set);
	store_read(pg_store_of(work->lead->pg), read);
}
