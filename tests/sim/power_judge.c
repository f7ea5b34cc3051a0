/*
 * What a block may hold after all that was written to it, and what a power cut changes of that (power_load.h).
 */
#include "tests/sim/power_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- content ---- */

void power_fill(uint8_t *out, uint32_t block, uint32_t tag)
{
	uint64_t *words = (void *)out;

	for (unsigned i = 0; i < BLOCK / 8; i++)
		words[i] = tag ? ((uint64_t)block << 32 | tag) ^ (uint64_t)i << 52 : 0;
}

uint32_t power_tag_of(struct power_load *load, const uint8_t *data, uint32_t block)
{
	uint8_t expected[BLOCK];
	uint64_t word;

	memcpy(&word, data, sizeof(word));
	power_fill(expected, block, (uint32_t)word);
	if (memcmp(expected, data, BLOCK) != 0)
		herd_fail(load->herd, "block %u has bytes that nobody wrote there", block);
	return (uint32_t)word;
}

/* ---- what a block may hold ---- */

static bool is_unsure(const struct block *block)
{
	return block->lost_seq > block->records[block->count - 1].seq;
}

void power_add_record(struct power_load *load, struct block *block, uint32_t tag)
{
	if (block->count == RECORDS) { /* forget one in the middle: then less is forgiven */
		memmove(&block->records[1], &block->records[2],
			(RECORDS - 2) * sizeof(block->records[0]));
		block->count--;
	}
	block->records[block->count++] = (struct record){.tag = tag, .seq = ++load->seq};
}

void power_make_durable(struct block *block, uint32_t i)
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

void power_judge(struct power_load *load, struct herd_node *node, uint32_t number, uint32_t tag)
{
	struct block *block = &load->blocks[number];
	struct record *last = &block->records[block->count - 1];

	if (block->is_forgiven) {
		block->is_forgiven = false;
		power_add_record(load, block, tag);
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
			power_add_record(load, block, tag);
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

void power_flushed(struct power_load *load, const struct op *op)
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
		power_make_durable(block, last);
		/* It did not tell of a loss, so there was none for it. */
		if (block->count == 1 && is_unsure(block) && block->lost_seq > told)
			seen(load, &block->records[0]);
	}
}

void power_lose_block(struct block *block, uint64_t seq)
{
	block->lost_seq = seq;
	for (uint32_t i = 0; i < block->count; i++)
		if (!block->records[i].lost_seq)
			block->records[i].lost_seq = seq;
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
			power_lose_block(&load->blocks[n], load->seq + 1);
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
