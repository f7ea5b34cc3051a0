/*
 * Figures of one sheep: a mail goes to each of its loops, says what that loop knows, counts on there for as many turns as it
 * needs, and comes back.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/size.h"
#include "sheep/service/figures_priv.h"

/* ---- adding up ---- */

int figures_row_compare(const void *a, const void *b)
{
	const struct figures_row *x = a, *y = b;

	return x->objects_missing < y->objects_missing ? 1
						       : -(x->objects_missing > y->objects_missing);
}

/* Rows that find no room count only in the sums, which are the caller's. */
static void add_row(struct figures *figures, const struct figures_row *row)
{
	if (figures->row_count < FIGURES_ROWS_MAX)
		figures->rows[figures->row_count++] = *row;
	else if (row->objects_missing > figures->rows[FIGURES_ROWS_MAX - 1].objects_missing)
		figures->rows[FIGURES_ROWS_MAX - 1] = *row;
	else
		return;
	if (figures->row_count == FIGURES_ROWS_MAX)
		qsort(figures->rows, figures->row_count, sizeof(*row), figures_row_compare);
}

void figures_add(struct figures *to, const struct figures *from)
{
	to->objects_missing += from->objects_missing;
	to->bytes_missing += from->bytes_missing;
	to->objects_moved += from->objects_moved;
	to->bytes_moved += from->bytes_moved;
	for (uint32_t i = 0; i < from->row_count; i++)
		add_row(to, &from->rows[i]);
	to->objects_lost += from->objects_lost;
	to->objects_unread += from->objects_unread;
	for (uint32_t i = 0; i < from->lost_count && to->lost_count < FIGURES_LOST_MAX; i++)
		to->lost[to->lost_count++] = from->lost[i];
	figures_use_add(&to->use, &from->use);
}

void figures_add_store(struct figures *figures, const struct figures_store *store)
{
	void *grown =
		realloc(figures->stores, (figures->store_count + 1) * sizeof(figures->stores[0]));

	if (!grown)
		return; /* as if it had not been told */
	figures->stores = grown;
	figures->stores[figures->store_count++] = *store;
}

void figures_done(struct figures *figures)
{
	free(figures->stores);
	free(figures->unknown);
	figures_use_done(&figures->use);
	memset(figures, 0, sizeof(*figures));
}

const struct figures_store *figures_of_store(const struct figures *figures, uint32_t store)
{
	for (uint32_t i = 0; i < figures->store_count; i++)
		if (figures->stores[i].store == store)
			return &figures->stores[i];
	return NULL;
}

/* ---- our own loops ---- */

struct gather_mail {
	struct loop_mail mail;
	struct figures_gather *gather;
	struct worker *worker;
	struct figures figures;
	struct figures_walk walk;
	bool has_copy[CLUSTER_NODE_STORES_MAX]; /* its home is that loop */
	struct store_pg_info copies[CLUSTER_NODE_STORES_MAX];
};

static void add_our_stores(struct figures_gather *gather)
{
	struct node *node = gather->node;

	for (unsigned i = 0; i < node->store_count; i++) {
		struct store_space space;
		store_space(node->stores[i].store, &space);
		if (node->stores[i].id)
			figures_add_store(
				&gather->figures,
				&(struct figures_store){.store = node->stores[i].id,
							.size_bytes = space.size_bytes,
							.live_bytes = space.live_bytes,
							.allocated_bytes = space.allocated_bytes,
							.credit_bytes = space.credit_bytes});
	}
}

static void mail_free(struct gather_mail *mail)
{
	if (!mail)
		return;
	figures_walk_done(&mail->walk);
	figures_done(&mail->figures);
	free(mail);
}

static void deliver_answer(struct loop *loop, struct loop_mail *loop_mail)
{
	struct gather_mail *mail = container_of_type(loop_mail, struct gather_mail, mail);
	struct figures_gather *gather = mail->gather;

	figures_add(&gather->figures, &mail->figures);
	for (unsigned i = 0; i < gather->node->store_count; i++)
		if (mail->has_copy[i])
			gather->copies[i] = mail->copies[i];
	mail_free(mail);
	if (--gather->left > 0)
		return;
	add_our_stores(gather);
	figures_use_close(&gather->figures.use);
	qsort(gather->figures.rows, gather->figures.row_count, sizeof(gather->figures.rows[0]),
	      figures_row_compare);
	gather->done(gather, &gather->figures);
	free(gather);
}

/* What our stores have of a PG, where its home is this loop. */
static void look_at_copies(struct gather_mail *mail, const struct worker *worker, uint32_t pg)
{
	const struct node *node = worker->node;

	for (unsigned i = 0; i < node->store_count; i++)
		if (store_loop_of(node->stores[i].store, pg) == worker->loop) {
			store_pg_info(node->stores[i].store, pg, &mail->copies[i]);
			mail->has_copy[i] = true;
		}
}

static struct store *store_by_id(const struct node *node, uint32_t id)
{
	for (unsigned i = 0; i < node->store_count; i++)
		if (node->stores[i].id == id)
			return node->stores[i].store;
	return NULL;
}

/* A slice in each turn, then home. */
static void deliver_walk(struct loop *loop, struct loop_mail *loop_mail)
{
	struct gather_mail *mail = container_of_type(loop_mail, struct gather_mail, mail);
	struct worker *worker = mail->worker;
	bool is_done = figures_walk_step(&mail->walk, worker->set, &mail->figures.use);

	mail->mail.deliver = is_done ? deliver_answer : deliver_walk;
	loop_post(is_done ? mail->gather->home->loop : worker->loop, &mail->mail);
}

static void deliver_question(struct loop *loop, struct loop_mail *loop_mail)
{
	struct gather_mail *mail = container_of_type(loop_mail, struct gather_mail, mail);
	const struct pg_set *set = mail->worker->set;
	struct figures *figures = &mail->figures;
	struct pg_status status;
	uint32_t pg = 0, store = 0;
	bool is_whole = true;

	figures->objects_moved = pg_set_counters(set)->objects_pushed;
	figures->bytes_moved = pg_set_counters(set)->recovery_bytes;
	while (pg_set_status(set, pg, store, &status) > 0) {
		for (uint32_t i = 0; i < status.join_count; i++) {
			const struct figures_row row = {
				.pg = status.pg,
				.store = status.joins[i].store,
				.objects_missing = status.joins[i].objects_missing,
				.bytes_missing = status.joins[i].bytes_missing,
			};
			figures->objects_missing += row.objects_missing;
			figures->bytes_missing += row.bytes_missing;
			add_row(figures, &row);
		}
		struct store *led = store_by_id(mail->worker->node, status.store);
		if (led)
			figures_look_for_lost(figures, led, &status);
		if (led && figures->use.layer_count > 0 && status.role == PG_ROLE_PRIMARY)
			is_whole &=
				figures_walk_add(&mail->walk, status.pg, status.store, led) == 0;
		pg = status.pg;
		store = status.store + 1;
	}
	if (mail->gather->pg != FIGURES_NO_PG)
		look_at_copies(mail, mail->worker, mail->gather->pg);
	if (!is_whole)
		figures_walk_done(&mail->walk);
	deliver_walk(loop, loop_mail);
}

static struct gather_mail *mail_new(const struct figures_question *question)
{
	struct gather_mail *mail = calloc(1, sizeof(*mail));

	if (mail &&
	    figures_use_init(&mail->figures.use, question->layers, question->layer_count) < 0) {
		free(mail);
		mail = NULL;
	}
	return mail;
}

int figures_gather(struct node *node, struct worker *home, const struct figures_question *question,
		   void (*done)(struct figures_gather *gather, struct figures *figures),
		   void *context)
{
	struct figures_gather *gather = calloc(1, sizeof(*gather));
	struct gather_mail *mails[SETTINGS_LOOPS_MAX] = {0};
	bool is_whole = gather && figures_use_init(&gather->figures.use, question->layers,
						   question->layer_count) == 0;

	for (unsigned i = 0; i < node->worker_count; i++) {
		mails[i] = mail_new(question);
		is_whole = is_whole && mails[i];
	}
	if (!is_whole) {
		for (unsigned i = 0; i < node->worker_count; i++)
			mail_free(mails[i]);
		if (gather)
			figures_done(&gather->figures);
		free(gather);
		return -ENOMEM;
	}
	gather->node = node;
	gather->home = home;
	gather->done = done;
	gather->context = context;
	gather->pg = question->pg;
	gather->left = node->worker_count;
	for (unsigned i = 0; i < node->worker_count; i++) {
		mails[i]->gather = gather;
		mails[i]->worker = &node->workers[i];
		mails[i]->mail.deliver = deliver_question;
		loop_post(node->workers[i].loop, &mails[i]->mail);
	}
	return 0;
}
