/*
 * Clients of a herd, and what they may read.
 *
 * Every write fills its sectors with a tag of its own. No two writes of a sector run at a time, and
 * none starts while a read of it runs. So a read may give the last value that was acknowledged, or
 * that of the write in flight; once a read gave the new one, none that starts later may give the
 * old one. A write whose gateway was killed may still happen, once: its value stays possible
 * until it is read.
 */
#include "tests/sim/herd_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"

#define SECTOR	    512u
#define OP_SECTORS  128u
#define MAYBES	    4u
#define NAP_MAX_NS  (4 * NS_PER_MS)
#define CLIENTS_MAX 64u

struct sector {
	uint32_t current;
	uint32_t pending; /* tag of the write in flight */
	bool has_pending, is_pending_seen;
	uint16_t readers;
	uint16_t maybe_count;
	uint32_t maybes[MAYBES];
};

struct expected {
	uint32_t old, pending;
	bool has_pending, must_be_new;
};

struct op {
	struct gateway_io io;
	struct herd_load *load;
	struct herd_node *node;
	struct client *client; /* NULL: of a test */
	struct cds_list_head link;
	struct loop_mail mail;
	uint32_t first, count; /* sectors */
	uint32_t tag;
	bool is_done;
	int result;
	uint64_t begin_ns;
	struct buffer *buffer;
	struct expected expected[OP_SECTORS];
};

struct client {
	struct herd_load *load;
	struct sim_event event;
	struct op *op;
};

struct herd_load {
	struct herd *herd;
	struct buffer_cache *buffers;
	struct sector *sectors;
	uint32_t sector_count;
	uint32_t next_tag;
	struct cds_list_head ops; /* in flight */
	struct client clients[CLIENTS_MAX];
	unsigned client_count;
	bool is_running;
	uint64_t done;
	uint64_t longest_ns;
};

/* ---- content ---- */

static void fill(uint8_t *out, uint32_t sector, uint32_t tag)
{
	uint64_t *words = (void *)out;

	for (unsigned i = 0; i < SECTOR / 8; i++)
		words[i] = tag ? ((uint64_t)sector << 32 | tag) ^ (uint64_t)i << 56 : 0;
}

/* The tag of what was read. */
static uint32_t tag_of(const struct herd_load *load, const uint8_t *data, uint32_t sector)
{
	uint8_t expected[SECTOR];
	uint64_t word;

	memcpy(&word, data, sizeof(word));
	fill(expected, sector, (uint32_t)word);
	if (memcmp(expected, data, SECTOR) != 0)
		fail_msg("seed %llu: sector %u has bytes that nobody wrote there",
			 (unsigned long long)load->herd->options.seed, sector);
	return (uint32_t)word;
}

/* ---- judging ---- */

/*
 * Found it: from now on it is what the sector has. Unless a write was in flight when the read began:
 * that one may have come behind it, so both stay possible.
 */
static bool take_maybe(struct sector *sector, uint32_t tag, bool is_certain)
{
	for (unsigned i = 0; i < sector->maybe_count; i++) {
		if (sector->maybes[i] != tag)
			continue;
		if (!is_certain)
			return true;
		sector->maybes[i] = sector->maybes[--sector->maybe_count];
		sector->current = tag;
		return true;
	}
	return false;
}

static void judge(struct op *op, uint32_t i, const uint8_t *data)
{
	struct herd_load *load = op->load;
	struct sector *sector = &load->sectors[op->first + i];
	const struct expected *expected = &op->expected[i];
	uint32_t tag = tag_of(load, data, op->first + i);

	if (expected->has_pending && tag == expected->pending) {
		if (sector->has_pending && sector->pending == tag)
			sector->is_pending_seen = true;
		return;
	}
	if (tag == expected->old && !expected->must_be_new)
		return;
	/* Another read may have found it first. */
	if (tag == sector->current || take_maybe(sector, tag, !expected->has_pending))
		return;
	fail_msg("seed %llu: %s at %.6f: sector %u reads as %u; old %u, in flight %u%s, now %u",
		 (unsigned long long)load->herd->options.seed, op->node->name,
		 (double)sim_now(load->herd->world) / (double)NS_PER_S, op->first + i, tag,
		 expected->old, expected->pending, expected->must_be_new ? " and seen" : "",
		 sector->current);
}

static void judge_read(struct op *op)
{
	uint32_t sector = 0, used = 0;

	for (uint32_t s = 0; s < op->io.data_count; s++) {
		struct slice *slice = &op->io.data[s];
		assert_int_equal(slice->size % SECTOR, 0);
		for (used = 0; used < slice->size; used += SECTOR)
			judge(op, sector++, slice->data + used);
		buffer_put(slice->buffer);
	}
	assert_int_equal(sector, op->count);
}

/* ---- an operation ---- */

static bool is_write(const struct op *op)
{
	return op->io.kind != GATEWAY_READ && op->io.kind != GATEWAY_FLUSH;
}

static bool may_begin(const struct herd_load *load, enum gateway_io_kind kind, uint32_t first,
		      uint32_t count)
{
	for (uint32_t i = first; i < first + count; i++) {
		const struct sector *sector = &load->sectors[i];
		if (kind != GATEWAY_READ &&
		    (sector->has_pending || sector->readers || sector->maybe_count == MAYBES))
			return false;
	}
	return true;
}

static void note_begin(struct op *op)
{
	for (uint32_t i = 0; i < op->count; i++) {
		struct sector *sector = &op->load->sectors[op->first + i];
		if (is_write(op)) {
			sector->pending = op->tag;
			sector->has_pending = true;
			sector->is_pending_seen = false;
			continue;
		}
		sector->readers++;
		op->expected[i] = (struct expected){.old = sector->current,
						    .pending = sector->pending,
						    .has_pending = sector->has_pending,
						    .must_be_new = sector->is_pending_seen};
	}
}

static void note_end(struct op *op, bool is_known)
{
	for (uint32_t i = 0; i < op->count; i++) {
		struct sector *sector = &op->load->sectors[op->first + i];
		if (!is_write(op)) {
			sector->readers--;
			continue;
		}
		if (is_known || sector->is_pending_seen)
			sector->current = op->tag;
		else
			sector->maybes[sector->maybe_count++] = op->tag;
		sector->has_pending = false;
		sector->is_pending_seen = false;
		sector->pending = 0;
	}
}

/* Its gateway could not have answered. */
static bool was_paused(const struct op *op)
{
	return sim_host_is_paused(op->node->host) || op->node->resumed_ns > op->begin_ns;
}

static void on_done(struct gateway_io *io, int result)
{
	struct op *op = container_of_type(io, struct op, io);
	struct herd_load *load = op->load;

	if (op->is_done) { /* its node was given up before it answered */
		if (result == 0 && io->kind == GATEWAY_READ)
			for (uint32_t s = 0; s < io->data_count; s++)
				buffer_put(io->data[s].buffer);
		buffer_put(op->buffer);
		op->buffer = NULL;
		return;
	}
	if (result < 0 && !(result == -E_LOST && load->herd->may_lose))
		fail_msg("seed %llu: %s at %.6f: kind %d of sectors %u+%u: %s",
			 (unsigned long long)load->herd->options.seed, op->node->name,
			 (double)sim_now(load->herd->world) / (double)NS_PER_S, io->kind, op->first,
			 op->count, err_text(result));
	if (io->kind == GATEWAY_READ && result == 0)
		judge_read(op);
	note_end(op, result == 0);
	cds_list_del(&op->link);
	buffer_put(op->buffer);
	op->buffer = NULL;
	op->is_done = true;
	op->result = result;
	load->done++;
	if (!was_paused(op))
		load->longest_ns =
			max_of(load->longest_ns, sim_now(load->herd->world) - op->begin_ns);
	if (op->client) {
		struct client *client = op->client;
		client->op = NULL;
		free(op);
		sim_schedule(load->herd->world, &client->event,
			     sim_now(load->herd->world) +
				     random_below(sim_random(load->herd->world), NAP_MAX_NS));
	}
}

static void deliver(struct loop *loop, struct loop_mail *mail)
{
	struct op *op = container_of_type(mail, struct op, mail);

	gateway_submit(&op->io);
}

static struct op *begin(struct herd_load *load, struct herd_node *node, enum gateway_io_kind kind,
			uint32_t first, uint32_t count)
{
	struct op *op = calloc(1, sizeof(*op));

	op->load = load;
	op->node = node;
	op->first = first;
	op->count = count;
	op->begin_ns = sim_now(load->herd->world);
	op->io.done = on_done;
	op->io.volume = node->volume;
	op->io.kind = kind;
	op->io.offset = (uint64_t)first * SECTOR;
	op->io.length = (uint64_t)count * SECTOR;
	if (kind == GATEWAY_WRITE) {
		op->tag = load->next_tag++;
		op->buffer = buffer_new(load->buffers, count * SECTOR);
		for (uint32_t i = 0; i < count; i++)
			fill(op->buffer->data + i * SECTOR, first + i, op->tag);
		op->io.payload = slice_of(op->buffer, 0, count * SECTOR);
	}
	note_begin(op);
	cds_list_add_tail(&op->link, &load->ops);
	op->mail.deliver = deliver;
	loop_post(node->loop, &op->mail);
	return op;
}

/* ---- clients ---- */

static struct herd_node *any_node(struct herd *herd)
{
	unsigned first = (unsigned)random_below(sim_random(herd->world), herd->node_count);

	for (unsigned i = 0; i < herd->node_count; i++) {
		struct herd_node *node = &herd->nodes[(first + i) % herd->node_count];
		if (node->is_up && !sim_host_is_paused(node->host) && node->volume)
			return node;
	}
	return NULL;
}

static enum gateway_io_kind any_kind(struct random *random)
{
	uint64_t dice = random_below(random, 100);

	if (dice < 60)
		return GATEWAY_WRITE;
	if (dice < 90)
		return GATEWAY_READ;
	if (dice < 94)
		return GATEWAY_ZERO;
	return dice < 97 ? GATEWAY_TRIM : GATEWAY_FLUSH;
}

static void on_client(struct sim_event *event)
{
	struct client *client = container_of_type(event, struct client, event);
	struct herd_load *load = client->load;
	struct random *random = sim_random(load->herd->world);
	struct herd_node *node = any_node(load->herd);
	enum gateway_io_kind kind = any_kind(random);
	bool is_small = random_below(random, 4) > 0;
	uint32_t count = 1 + (uint32_t)random_below(random, is_small ? 16 : OP_SECTORS);
	uint32_t first = (uint32_t)random_below(random, load->sector_count - count + 1);

	if (!load->is_running)
		return;
	/* Some places are hotter than others, and much is aligned. */
	if (random_below(random, 2))
		first = (uint32_t)random_below(random,
					       min_of(load->sector_count - count, 256u) + 1);
	if (random_below(random, 2) || kind == GATEWAY_TRIM) {
		first = (uint32_t)round_down(first, 8);
		count = (uint32_t)round_up(count, 8);
	}
	if (kind == GATEWAY_FLUSH)
		count = 0;
	if (!node || first + count > load->sector_count || !may_begin(load, kind, first, count)) {
		sim_schedule(load->herd->world, event,
			     sim_now(load->herd->world) + 1 + random_below(random, NAP_MAX_NS));
		return;
	}
	client->op = begin(load, node, kind, first, count);
	client->op->client = client;
}

static struct herd_load *load_of(struct herd *herd)
{
	struct herd_load *load = herd->load;

	if (load)
		return load;
	load = calloc(1, sizeof(*load));
	load->herd = herd;
	load->buffers = buffer_cache_new(4 * MIB);
	load->sector_count = (uint32_t)(herd->options.volume_bytes / SECTOR);
	load->sectors = calloc(load->sector_count, sizeof(*load->sectors));
	load->next_tag = 1;
	CDS_INIT_LIST_HEAD(&load->ops);
	herd->load = load;
	return load;
}

void herd_load_start(struct herd *herd, unsigned clients)
{
	struct herd_load *load = load_of(herd);

	load->is_running = true;
	load->client_count = clients;
	for (unsigned i = 0; i < clients; i++) {
		load->clients[i].load = load;
		load->clients[i].event.run = on_client;
		sim_schedule(herd->world, &load->clients[i].event,
			     sim_now(herd->world) +
				     random_below(sim_random(herd->world), NAP_MAX_NS));
	}
}

static bool is_idle(struct herd *herd)
{
	return cds_list_empty(&herd->load->ops);
}

void herd_load_stop(struct herd *herd)
{
	struct herd_load *load = load_of(herd);

	load->is_running = false;
	for (unsigned i = 0; i < load->client_count; i++)
		sim_unschedule(herd->world, &load->clients[i].event);
	herd_until(herd, 30000, is_idle, "all operations answered");
}

void herd_load_node_died(struct herd *herd, unsigned node)
{
	struct herd_load *load = load_of(herd);
	struct op *op, *next;

	cds_list_for_each_entry_safe(op, next, &load->ops, link) {
		if (op->node != &herd->nodes[node])
			continue;
		note_end(op, false);
		cds_list_del(&op->link);
		op->is_done = true;
		op->result = -E_CLOSED;
		herd_bury(op);
		if (op->client) {
			op->client->op = NULL;
			sim_schedule(herd->world, &op->client->event, sim_now(herd->world) + 1);
		}
	}
}

void herd_load_free(struct herd *herd)
{
	if (!herd->load)
		return;
	free(herd->load->sectors);
	buffer_cache_free(herd->load->buffers);
	free(herd->load);
}

uint64_t herd_load_longest_ns(struct herd *herd)
{
	struct herd_load *load = load_of(herd);
	uint64_t longest = load->longest_ns;
	struct op *op;

	cds_list_for_each_entry(op, &load->ops, link)
		if (!was_paused(op))
			longest = max_of(longest, sim_now(herd->world) - op->begin_ns);
	load->longest_ns = 0;
	return longest;
}

uint64_t herd_load_done(struct herd *herd)
{
	return load_of(herd)->done;
}

/* ---- one at a time ---- */

static struct op *waited_for;

static bool is_waited(struct herd *herd)
{
	return waited_for->is_done;
}

static int one(struct herd *herd, unsigned node, enum gateway_io_kind kind, uint64_t offset,
	       uint32_t length)
{
	struct herd_load *load = load_of(herd);
	struct op *op =
		begin(load, &herd->nodes[node], kind, (uint32_t)(offset / SECTOR), length / SECTOR);
	int result;

	waited_for = op;
	herd_until(herd, 30000, is_waited, "answered");
	result = op->result;
	if (result == 0)
		free(op);
	return result;
}

int herd_write(struct herd *herd, unsigned node, uint64_t offset, uint32_t length)
{
	return one(herd, node, GATEWAY_WRITE, offset, length);
}

int herd_read(struct herd *herd, unsigned node, uint64_t offset, uint32_t length)
{
	return one(herd, node, GATEWAY_READ, offset, length);
}

int herd_clear(struct herd *herd, unsigned node, enum gateway_io_kind kind, uint64_t offset,
	       uint32_t length)
{
	return one(herd, node, kind, offset, length);
}

int herd_flush(struct herd *herd, unsigned node)
{
	return one(herd, node, GATEWAY_FLUSH, 0, 0);
}

void herd_write_begin(struct herd *herd, unsigned node, uint64_t offset, uint32_t length)
{
	(void)begin(load_of(herd), &herd->nodes[node], GATEWAY_WRITE, (uint32_t)(offset / SECTOR),
		    length / SECTOR);
}

void herd_write_fua_begin(struct herd *herd, unsigned node, uint64_t offset, uint32_t length)
{
	struct op *op = begin(load_of(herd), &herd->nodes[node], GATEWAY_WRITE,
			      (uint32_t)(offset / SECTOR), length / SECTOR);

	op->io.flags |= GATEWAY_FUA; /* it is not yet submitted: that is mail */
}

void herd_read_begin(struct herd *herd, unsigned node, uint64_t offset, uint32_t length)
{
	(void)begin(load_of(herd), &herd->nodes[node], GATEWAY_READ, (uint32_t)(offset / SECTOR),
		    length / SECTOR);
}

void herd_flush_begin(struct herd *herd, unsigned node)
{
	(void)begin(load_of(herd), &herd->nodes[node], GATEWAY_FLUSH, 0, 0);
}

/* ---- the end ---- */

void herd_check(struct herd *herd)
{
	struct herd_load *load = load_of(herd);

	for (unsigned n = 0; n < herd->node_count; n++) {
		if (!herd->nodes[n].is_up)
			continue;
		for (uint32_t at = 0; at < load->sector_count; at += OP_SECTORS) {
			uint32_t count = min_of(OP_SECTORS, load->sector_count - at);
			assert_int_equal(herd_read(herd, n, (uint64_t)at * SECTOR, count * SECTOR),
					 0);
		}
	}
	herd_compare_copies(herd);
	/* W2 repairs what should never have come about. */
	if (HERD_COUNTER(herd, diverged) > 0 && !herd->may_diverge)
		fail_msg("seed %llu: members in sync could not apply entries",
			 (unsigned long long)herd->options.seed);
}
