#include "tests/sim/power_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/size.h"

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
	power_judge(op->load, op->node, op->block, power_tag_of(op->load, data, op->block));
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
		power_flushed(load, op);
		return;
	}
	block->is_busy = false;
	if (op->kind == READ) {
		note_read(op);
		return;
	}
	load->acknowledged++;
	block->is_forgiven = false;
	power_add_record(load, block, op->tag);
	/* The answer may have been on its way when power was lost. */
	if (op->start_seq < block->lost_seq)
		power_lose_block(block, ++load->seq);
	if (op->io.flags & GATEWAY_FUA)
		power_make_durable(block, block->count - 1);
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
		power_fill(op->buffer->data, block, op->tag);
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
