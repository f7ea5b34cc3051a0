/*
 * Connections to the other sheep (links.h). Each loop tells its own by mail; the engine's loop counts.
 *
 * A row goes with its last connection: nothing is kept of starts that are gone. A mail for which there was no
 * memory makes the count wrong, so from then on nothing is ever proved of anybody: deaths are then found by
 * silence, as with engines that know none.
 */
#include "sheep/service/links.h"

#include <stdlib.h>
#include <uthash.h>

#include "lib/base/log.h"
#include "lib/base/size.h"

struct row {
	struct {
		struct uuid node;
		uint64_t start;
	} key;
	UT_hash_handle hh;
	uint32_t open;
};

struct links {
	struct loop *loop;
	void (*told)(void *context, const struct uuid *node, uint64_t start, bool is_closed);
	void *context;
	struct row *rows;
	int is_unsure; /* atomic: an event was lost */
};

struct event {
	struct loop_mail mail;
	struct links *links;
	struct uuid node;
	uint64_t start;
	bool is_up, is_by_peer;
};

static void lose(struct links *links)
{
	if (!__atomic_exchange_n(&links->is_unsure, 1, __ATOMIC_RELAXED))
		log_warning(
			"no memory to count connections: deaths are found by silence from now on");
}

static struct row *row_new(struct links *links, const struct event *event)
{
	struct row *row = calloc(1, sizeof(*row));

	if (!row)
		return NULL;
	row->key.node = event->node;
	row->key.start = event->start;
	HASH_ADD(hh, links->rows, key, sizeof(row->key), row);
	return row;
}

static void count(struct links *links, const struct event *event)
{
	struct row *row;
	typeof(row->key) key;
	bool is_last;

	memset(&key, 0, sizeof(key));
	key.node = event->node;
	key.start = event->start;
	HASH_FIND(hh, links->rows, &key, sizeof(key), row);
	if (event->is_up) {
		row = row ? row : row_new(links, event);
		if (!row)
			lose(links);
		else if (row->open++ == 0)
			links->told(links->context, &event->node, event->start, false);
		return;
	}
	is_last = row && --row->open == 0;
	if (!is_last)
		return;
	HASH_DEL(links->rows, row);
	free(row);
	if (event->is_by_peer && !__atomic_load_n(&links->is_unsure, __ATOMIC_RELAXED))
		links->told(links->context, &event->node, event->start, true);
}

static void deliver(struct loop *loop, struct loop_mail *mail)
{
	struct event *event = container_of_type(mail, struct event, mail);

	count(event->links, event);
	free(event);
}

void links_changed(void *context, const struct uuid *node, uint64_t start, bool is_up,
		   bool is_by_peer)
{
	struct links *links = context;
	struct event *event = calloc(1, sizeof(*event));

	if (!event) {
		lose(links);
		return;
	}
	event->mail.deliver = deliver;
	event->links = links;
	event->node = *node;
	event->start = start;
	event->is_up = is_up;
	event->is_by_peer = is_by_peer;
	loop_post(links->loop, &event->mail);
}

struct links *links_new(struct loop *loop,
			void (*told)(void *context, const struct uuid *node, uint64_t start,
				     bool is_closed),
			void *context)
{
	struct links *links = calloc(1, sizeof(*links));

	if (!links)
		return NULL;
	links->loop = loop;
	links->told = told;
	links->context = context;
	return links;
}

void links_free(struct links *links)
{
	struct row *row, *next;

	if (!links)
		return;
	HASH_ITER(hh, links->rows, row, next) {
		HASH_DEL(links->rows, row);
		free(row);
	}
	free(links);
}
