#include "tests/sim/power_load.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/size.h"
#include "tests/sim/herd_priv.h"

#define BLOCK	    4096u
#define RECORDS	    64u /* of one block, not durable; a full one waits for a FLUSH */
#define CLIENTS_MAX 32u
#define NAP_MAX_NS  (3 * NS_PER_MS)

struct record {
	uint32_t tag;
	uint64_t seq;	   /* when it was acknowledged, or read */
	uint64_t lost_seq; /* the first loss of power since: it may be gone; 0: none */
};

struct block {
	uint32_t count;
	struct record
		records[RECORDS]; /* the first one is durable, the last one is what it holds */
	uint32_t maybe_count;
	uint32_t maybes[RECORDS];
	bool is_busy, is_forgiven;
	uint64_t lost_seq; /* when power was lost last; above the last record: any of them */
};

enum kind { READ, WRITE, FLUSH };

struct op {
	struct gateway_io io;
	struct power_load *load;
	struct herd_node *node;
	struct sim_event *client; /* NULL: of a test */
	struct cds_list_head link;
	struct loop_mail mail;
	enum kind kind;
	uint32_t block, tag;
	uint64_t start_seq;
	bool is_over; /* nobody is interested any more */
	bool is_done;
	int result;
	struct buffer *buffer;
};

struct client {
	struct sim_event event;
	struct power_load *load;
	unsigned number;
};

struct power_load {
	struct herd *herd;
	struct buffer_cache *buffers;
	uint32_t block_count;
	struct block *blocks;
	struct cds_list_head ops;
	struct client clients[CLIENTS_MAX];
	unsigned client_count, flying;
	bool is_running;
	uint32_t next_tag;
	uint64_t seq; /* of the last thing that was learnt */
	uint64_t acknowledged;
	/* By node: losses up to here were told to it, or its volume was opened after. */
	uint64_t told_seq[HERD_NODES_MAX];
	unsigned losses_told, gone_back;
	bool is_cut[HERD_NODES_MAX]; /* and not registered since */
	uint32_t stores[HERD_NODES_MAX];
};

/* ---- content ---- */

static void fill(uint8_t *out, uint32_t block, uint32_t tag)
{
	uint64_t *words = (void *)out;

	for (unsigned i = 0; i < BLOCK / 8; i++)
		words[i] = tag ? ((uint64_t)block << 32 | tag) ^ (uint64_t)i << 52 : 0;
}

static uint32_t tag_of(struct power_load *load, const uint8_t *data, uint32_t block)
{
	uint8_t expected[BLOCK];
	uint64_t word;

	memcpy(&word, data, sizeof(word));
	fill(expected, block, (uint32_t)word);
	if (memcmp(expected, data, BLOCK) != 0)
		herd_fail(load->herd, "block %u has bytes that nobody wrote there", block);
	return (uint32_t)word;
}

/* ---- what a block may hold ---- */

static bool is_unsure(const struct block *block)
{
	return block->lost_seq > block->records[block->count - 1].seq;
}

static void add_record(struct power_load *load, struct block *block, uint32_t tag)
{
	if (block->count == RECORDS) { /* forget one in the middle: then less is forgiven */
		memmove(&block->records[1], &block->records[2],
			(RECORDS - 2) * sizeof(block->records[0]));
		block->count--;
	}
	block->records[block->count++] = (struct record){.tag = tag, .seq = ++load->seq};
}

/* Durable: what was before it comes back no more. */
static void make_durable(struct block *block, uint32_t i)
{
	memmove(&block->records[0], &block->records[i],
		(block->count - i) * sizeof(block->records[0]));
	block->count -= i;
}

static void print_block(struct power_load *load, uint32_t number)
{
	const struct block *block = &load->blocks[number];

	for (uint32_t i = 0; i < block->count; i++)
		print_message("block %u: %u at %llu\n", number, block->records[i].tag,
			      (unsigned long long)block->records[i].seq);
	print_message("block %u: lost at %llu, %u maybe\n", number,
		      (unsigned long long)block->lost_seq, block->maybe_count);
}

static void seen(struct power_load *load, struct record *record)
{
	record->seq = ++load->seq;
	record->lost_seq = 0;
}

static void judge(struct power_load *load, struct herd_node *node, uint32_t number, uint32_t tag)
{
	struct block *block = &load->blocks[number];
	struct record *last = &block->records[block->count - 1];

	if (block->is_forgiven) {
		block->is_forgiven = false;
		add_record(load, block, tag);
		return;
	}
	if (tag == last->tag) {
		if (is_unsure(block))
			seen(load, last);
		return;
	}
	for (uint32_t i = 0; i < block->maybe_count; i++)
		if (block->maybes[i] == tag) {
			block->maybes[i] = block->maybes[--block->maybe_count];
			add_record(load, block, tag);
			return;
		}
	for (uint32_t i = 0; is_unsure(block) && i < block->count; i++)
		if (block->records[i].tag == tag) {
			block->count = i + 1;
			seen(load, &block->records[i]);
			load->gone_back++;
			return;
		}
	print_block(load, number);
	herd_fail(load->herd, "%s: block %u reads as %u", node->name, number, tag);
}

/*
 * What was acknowledged before @op began is durable, or it would have failed. What an earlier loss may have taken, that
 * this client was told of, is not: whatever losses came after that.
 */
static void flushed(struct power_load *load, const struct op *op)
{
	uint64_t told = load->told_seq[op->node->number];

	for (uint32_t n = 0; n < load->block_count; n++) {
		struct block *block = &load->blocks[n];
		uint32_t last = 0;
		for (uint32_t i = 0; i < block->count; i++) {
			const struct record *record = &block->records[i];
			if (record->seq <= op->start_seq &&
			    (!record->lost_seq || record->lost_seq > told))
				last = i;
		}
		if (last == 0)
			continue;
		make_durable(block, last);
		/* It did not tell of a loss, so there was none for it. */
		if (block->count == 1 && is_unsure(block) && block->lost_seq > told)
			seen(load, &block->records[0]);
	}
}

static void note_lost_block(struct block *block, uint64_t seq)
{
	block->lost_seq = seq;
	for (uint32_t i = 0; i < block->count; i++)
		if (!block->records[i].lost_seq)
			block->records[i].lost_seq = seq;
}

/* ---- operations ---- */

static void note_died(struct op *op)
{
	struct block *block = &op->load->blocks[op->block];

	if (op->kind == FLUSH)
		return;
	block->is_busy = false;
	if (op->kind == WRITE && block->maybe_count < RECORDS)
		block->maybes[block->maybe_count++] = op->tag;
}

static void note_read(struct op *op)
{
	uint8_t zeroes[BLOCK] = {0};
	const uint8_t *data = op->io.data[0].data ? op->io.data[0].data : zeroes;

	assert_int_equal(op->io.data_count, 1);
	judge(op->load, op->node, op->block, tag_of(op->load, data, op->block));
	buffer_put(op->io.data[0].buffer);
}

static void note_done(struct op *op, int result)
{
	struct power_load *load = op->load;
	struct block *block = &load->blocks[op->block];

	if (op->kind == FLUSH && result == -E_LOST_WRITES) {
		load->losses_told++;
		load->told_seq[op->node->number] = ++load->seq;
		return;
	}
	if (result < 0)
		herd_fail(load->herd, "%s: kind %d of block %u: %s", op->node->name, op->kind,
			  op->block, err_text(result));
	if (op->kind == FLUSH) {
		flushed(load, op);
		return;
	}
	block->is_busy = false;
	if (op->kind == READ) {
		note_read(op);
		return;
	}
	load->acknowledged++;
	block->is_forgiven = false;
	add_record(load, block, op->tag);
	/* The answer may have been on its way when power was lost. */
	if (op->start_seq < block->lost_seq)
		note_lost_block(block, ++load->seq);
	if (op->io.flags & GATEWAY_FUA)
		make_durable(block, block->count - 1);
}

static void client_again(struct power_load *load, struct sim_event *event)
{
	if (event)
		sim_schedule(load->herd->world, event,
			     sim_now(load->herd->world) + 1 +
				     random_below(sim_random(load->herd->world), NAP_MAX_NS));
}

static void on_done(struct gateway_io *io, int result)
{
	struct op *op = container_of_type(io, struct op, io);
	struct power_load *load = op->load;

	if (op->is_over) {
		if (result == 0 && op->kind == READ)
			buffer_put(io->data[0].buffer);
		return;
	}
	note_done(op, result);
	cds_list_del(&op->link);
	buffer_put(op->buffer);
	load->flying--;
	op->is_done = true;
	op->result = result;
	client_again(load, op->client);
	if (op->client)
		free(op);
}

static void deliver(struct loop *loop, struct loop_mail *mail)
{
	struct op *op = container_of_type(mail, struct op, mail);

	gateway_submit(&op->io);
}

static struct op *begin(struct power_load *load, struct herd_node *node, enum kind kind,
			uint32_t block, unsigned flags)
{
	static const enum gateway_io_kind kinds[] = {GATEWAY_READ, GATEWAY_WRITE, GATEWAY_FLUSH};
	struct op *op = calloc(1, sizeof(*op));

	op->load = load;
	op->node = node;
	op->kind = kind;
	op->block = block;
	op->start_seq = load->seq;
	if (load->told_seq[node->number] == UINT64_MAX) /* opened again */
		load->told_seq[node->number] = load->seq;
	op->io.done = on_done;
	op->io.volume = node->volume;
	op->io.kind = kinds[kind];
	op->io.flags = flags;
	if (kind != FLUSH) {
		op->io.offset = (uint64_t)block * BLOCK;
		op->io.length = BLOCK;
		load->blocks[block].is_busy = true;
	}
	if (kind == WRITE) {
		op->tag = load->next_tag++;
		op->buffer = buffer_new(load->buffers, BLOCK);
		fill(op->buffer->data, block, op->tag);
		op->io.payload = slice_of(op->buffer, 0, BLOCK);
	}
	load->flying++;
	cds_list_add_tail(&op->link, &load->ops);
	op->mail.deliver = deliver;
	loop_post(node->loop, &op->mail);
	return op;
}

static void on_node_died(struct herd *herd, unsigned node)
{
	struct power_load *load = herd->context;
	struct op *op, *next;

	load->told_seq[node] = UINT64_MAX; /* its connections are gone */
	cds_list_for_each_entry_safe(op, next, &load->ops, link) {
		if (op->node != &herd->nodes[node])
			continue;
		note_died(op);
		cds_list_del(&op->link);
		load->flying--;
		op->is_over = op->is_done = true;
		op->result = -E_CLOSED;
		client_again(load, op->client);
		herd_bury(op);
	}
}

/* ---- clients ---- */

static struct herd_node *any_node(struct power_load *load)
{
	struct herd *herd = load->herd;
	unsigned first = (unsigned)random_below(sim_random(herd->world), herd->node_count);

	for (unsigned i = 0; i < herd->node_count; i++) {
		struct herd_node *node = &herd->nodes[(first + i) % herd->node_count];
		if (node->is_up && node->volume)
			return node;
	}
	return NULL;
}

static void on_client(struct sim_event *event)
{
	struct client *client = container_of_type(event, struct client, event);
	struct power_load *load = client->load;
	struct random *random = sim_random(load->herd->world);
	uint32_t own = load->block_count / load->client_count;
	uint32_t block = (uint32_t)random_below(random, own) * load->client_count + client->number;
	struct herd_node *node = any_node(load);
	uint64_t dice = random_below(random, 100);
	enum kind kind = dice < 60 ? WRITE : dice < 94 ? READ : FLUSH;

	if (!load->is_running)
		return;
	/* Mostly few blocks, so that they are written again and again. */
	if (random_below(random, 4))
		block = block % (4 * load->client_count);
	if (!node || (kind != FLUSH && load->blocks[block].is_busy)) {
		client_again(load, event);
		return;
	}
	begin(load, node, kind, block, kind == WRITE && dice < 4 ? GATEWAY_FUA : 0)->client = event;
}

void power_load_start(struct power_load *load, unsigned clients)
{
	load->is_running = true;
	load->client_count = clients;
	for (unsigned i = 0; i < clients; i++) {
		load->clients[i].load = load;
		load->clients[i].number = i;
		load->clients[i].event.run = on_client;
		client_again(load, &load->clients[i].event);
	}
}

static bool is_idle(struct herd *herd)
{
	const struct power_load *load = herd->context;

	return load->flying == 0;
}

void power_load_stop(struct power_load *load)
{
	load->is_running = false;
	for (unsigned i = 0; i < load->client_count; i++)
		sim_unschedule(load->herd->world, &load->clients[i].event);
	herd_until(load->herd, 60000, is_idle, "all operations answered");
}

/* ---- one at a time ---- */

static struct op *waited_for;

static bool is_waited(struct herd *herd)
{
	return waited_for->is_done;
}

static int one(struct power_load *load, unsigned node, enum kind kind, uint32_t block)
{
	struct op *op = begin(load, &load->herd->nodes[node], kind, block, 0);
	int result;

	waited_for = op;
	herd_until(load->herd, 60000, is_waited, "answered");
	result = op->result;
	if (!op->is_over)
		free(op);
	return result;
}

int power_load_write(struct power_load *load, unsigned node, uint32_t block)
{
	return one(load, node, WRITE, block);
}

int power_load_flush(struct power_load *load, unsigned node)
{
	return one(load, node, FLUSH, 0);
}

void power_load_write_begin(struct power_load *load, unsigned node, uint32_t block)
{
	herd_bury(begin(load, &load->herd->nodes[node], WRITE, block, 0));
}

void power_load_flush_begin(struct power_load *load, unsigned node)
{
	herd_bury(begin(load, &load->herd->nodes[node], FLUSH, 0, 0));
}

unsigned power_load_flying(const struct power_load *load)
{
	return load->flying;
}

/* ---- power ---- */

static bool is_lost(struct power_load *load, const struct cluster_pg *pg)
{
	bool any = false;

	for (uint32_t i = 0; i < pg->isr_count; i++) {
		if (pg->isr[i].flags & CLUSTER_SEAT_MARKED)
			continue;
		any = true;
		for (unsigned n = 0; n < load->herd->node_count; n++) {
			if (load->stores[n] == pg->isr[i].store && !load->is_cut[n])
				return false;
		}
	}
	return any;
}

static uint32_t pg_of_block(const struct cluster_map *map, uint32_t block)
{
	const struct cluster_volume *volume = cluster_volume_by_name(map, HERD_VOLUME);

	return cluster_pg_of(cluster_policy(map, 0), volume->family, block / (OBJECT_SIZE / BLOCK));
}

static void note_lost(struct power_load *load, const struct cluster_map *map, uint32_t pg)
{
	for (uint32_t n = 0; n < load->block_count; n++)
		if (pg_of_block(map, n) == pg)
			note_lost_block(&load->blocks[n], load->seq + 1);
}

unsigned power_load_cut(struct power_load *load, unsigned nodes, enum sim_death death,
			enum sim_power_cut mode)
{
	struct cluster_map *map = cluster_map_get(herd_map(load->herd));
	const struct cluster_pg *row;
	unsigned lost = 0;

	for (unsigned n = 0; n < load->herd->node_count; n++) {
		struct herd_node *node = &load->herd->nodes[n];
		if (node->is_up && node->store_id) {
			load->stores[n] = node->store_id;
			load->is_cut[n] = false;
		}
		if (!(nodes & 1u << n) || !node->is_up)
			continue;
		load->is_cut[n] = true;
	}
	for (uint32_t from = 0; (row = cluster_pg_next(map, from)); from = row->id + 1) {
		if (!is_lost(load, row))
			continue;
		note_lost(load, map, row->id);
		lost++;
	}
	load->seq++;
	cluster_map_put(map);
	for (unsigned n = 0; n < load->herd->node_count; n++)
		if ((nodes & 1u << n) && load->herd->nodes[n].is_up)
			herd_cut_power(load->herd, n, death, mode);
	return lost;
}

void power_load_forgive(struct power_load *load)
{
	load->seq++;
	for (uint32_t n = 0; n < load->block_count; n++) {
		load->blocks[n].is_forgiven = true;
		load->blocks[n].lost_seq = load->seq;
	}
}

/* ---- life ---- */

struct power_load *power_load_new(struct herd *herd)
{
	struct power_load *load = calloc(1, sizeof(*load));

	load->herd = herd;
	load->buffers = buffer_cache_new(4 * MIB);
	load->block_count = (uint32_t)(herd->options.volume_bytes / BLOCK);
	load->blocks = calloc(load->block_count, sizeof(*load->blocks));
	for (uint32_t n = 0; n < load->block_count; n++)
		load->blocks[n].count = 1;
	load->next_tag = 1;
	load->seq = 1;
	CDS_INIT_LIST_HEAD(&load->ops);
	herd->context = load;
	herd->node_died = on_node_died;
	return load;
}

void power_load_free(struct power_load *load)
{
	load->herd->node_died = NULL;
	load->herd->context = NULL;
	free(load->blocks);
	buffer_cache_free(load->buffers);
	free(load);
}

/* ---- the end ---- */

static bool is_written(const struct block *block)
{
	return block->count > 1 || block->maybe_count || block->records[0].tag;
}

void power_load_check(struct power_load *load)
{
	for (unsigned n = 0; n < load->herd->node_count; n++) {
		if (!load->herd->nodes[n].is_up || !load->herd->nodes[n].volume)
			continue;
		for (uint32_t b = 0; b < load->block_count; b++)
			if (is_written(&load->blocks[b]))
				assert_int_equal(one(load, n, READ, b), 0);
	}
	herd_compare_copies(load->herd);
}

void power_start_all(struct herd *herd)
{
	for (unsigned n = 0; n < herd->node_count; n++)
		if (!herd->nodes[n].is_up)
			herd_start(herd, n);
}

void power_load_end(struct power_load *load)
{
	struct herd *herd = load->herd;

	power_start_all(herd);
	herd_until(herd, 60000, herd_is_healthy, "healthy");
	herd_reopen(herd);
	power_load_stop(load);
	power_load_check(load);
	assert_int_equal(power_load_write(load, 0, 7), 0);
	(void)power_load_flush(load, 0); /* it may be the first to hear of a loss */
	assert_int_equal(power_load_flush(load, 0), 0);
	power_load_free(load);
	herd_free(herd);
}

unsigned power_load_losses_told(const struct power_load *load)
{
	return load->losses_told;
}

uint64_t power_load_acknowledged(const struct power_load *load)
{
	return load->acknowledged;
}

unsigned power_load_gone_back(const struct power_load *load)
{
	return load->gone_back;
}
