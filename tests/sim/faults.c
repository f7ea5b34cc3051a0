/*
 * The table of faults: which there are, when one may be, and whom it hits. How each begins and ends is in faults_*.c.
 *
 * Faults of the world may come in any mixture. What destroys data may not: the promise is that
 * nothing is lost while one good copy is in reach, so data is damaged at one node only (the
 * victim), where two copies are always in sync; and what a power cut may make unclean is not the
 * last clean copy of anything. But for one fault, `lose`: that an object is damaged wherever it is, is to be told.
 */
#include "tests/sim/faults_priv.h"

#include <stdlib.h>

#include "lib/base/size.h"

const struct fault_row fault_table[FAULT_COUNT] = {
#define FAULT_ROW(kind, text, weight, min, max, flags) \
	[FAULT_##kind] = {text, weight, min, max, flags},
	FAULT_LIST(FAULT_ROW)
#undef FAULT_ROW
};

/* ---- who may be hit ---- */

bool faults_has_node(const struct program *program, unsigned node)
{
	for (unsigned i = 0; i < program->fault_count; i++) {
		const struct fault *fault = &program->faults[i];
		unsigned flags = fault_table[fault->kind].flags;
		if ((flags & (FAULT_OF_NODE | FAULT_OF_VICTIM)) && fault->node == node)
			return true;
		if (fault->kind == FAULT_POWER_CUT_ALL)
			return true;
	}
	return strike_has_node(program, node) || coup_has_node(program, node);
}

bool faults_is_well(const struct program *program, unsigned node)
{
	return program->herd->nodes[node].is_up && !program->is_leaving[node] &&
	       !faults_has_node(program, node);
}

bool faults_others_hold(struct program *program, unsigned number)
{
	const struct herd_node *node = &program->herd->nodes[number];
	struct cluster_map *map = herd_map(program->herd);
	const struct cluster_pg *pg;

	if (!map)
		return false; /* nobody is up who has one */
	for (uint32_t from = 0; (pg = cluster_pg_next(map, from)); from = pg->id + 1) {
		const struct cluster_seat *seat = cluster_pg_seat(pg, node->store_id);
		bool has_other = false;
		if (!seat)
			continue;
		for (uint32_t i = 0; i < pg->isr_count; i++) {
			uint32_t other = cluster_store_node(map, pg->isr[i].store);
			if (pg->isr[i].store == node->store_id || pg->isr[i].flags ||
			    !cluster_store_is_up(map, pg->isr[i].store))
				continue;
			for (unsigned n = 0; n < program->herd->node_count; n++)
				has_other |= program->herd->nodes[n].id == other &&
					     (int)n != program->victim &&
					     faults_is_well(program, n);
		}
		if (!has_other)
			return false;
	}
	return true;
}

bool faults_pick_well(struct program *program, unsigned *node)
{
	unsigned first = (unsigned)program_below(program, program->herd->node_count);

	for (unsigned i = 0; i < program->herd->node_count; i++) {
		*node = (first + i) % program->herd->node_count;
		if (faults_is_well(program, *node))
			return true;
	}
	return false;
}

/* ---- all of them ---- */

static const struct fault_way *way_of(enum fault_kind kind)
{
	static const struct fault_way *const tables[] = {faults_of_processes, faults_of_network,
							 faults_of_disks, faults_of_operators,
							 faults_of_liars};

	for (unsigned i = 0; i < ARRAY_COUNT(tables); i++)
		if (tables[i][kind].begin)
			return &tables[i][kind];
	abort(); /* a kind without a way */
}

static bool may_be(const struct program *program, enum fault_kind kind)
{
	unsigned flags = fault_table[kind].flags;

	if (!program->is_kind_on[kind])
		return false;
	if (program->is_single && !(flags & (FAULT_SINGLE | FAULT_NO_HARM)))
		return false;
	if (flags & FAULT_OF_VICTIM && program->victim < 0)
		return false;
	if (flags & FAULT_NEEDS_ZERO_LEASE && program->lease_ms)
		return false;
	return true;
}

/* One of each kind at a time for those that have no node of their own. */
bool faults_is_running(const struct program *program, enum fault_kind kind)
{
	for (unsigned i = 0; i < program->fault_count; i++)
		if (program->faults[i].kind == kind)
			return true;
	return false;
}

static enum fault_kind pick_kind(struct program *program)
{
	unsigned sum = 0;
	uint64_t pick;

	for (unsigned i = 0; i < FAULT_COUNT; i++)
		sum += may_be(program, i) ? fault_table[i].weight : 0;
	if (!sum)
		return FAULT_COUNT;
	pick = program_below(program, sum);
	for (unsigned i = 0; i < FAULT_COUNT; i++) {
		unsigned weight = may_be(program, i) ? fault_table[i].weight : 0;
		if (pick < weight)
			return i;
		pick -= weight;
	}
	return FAULT_COUNT;
}

bool faults_begin(struct program *program)
{
	enum fault_kind kind = pick_kind(program);
	const struct fault_row *row = &fault_table[kind];
	const struct fault_way *way;
	struct fault fault = {.kind = kind};
	unsigned count = program->herd->node_count;

	if (kind == FAULT_COUNT || program->fault_count == FAULTS_MAX)
		return false;
	way = way_of(kind);
	if (!(row->flags & FAULT_OF_NODE) && way->end && faults_is_running(program, kind))
		return false;
	fault.node = (unsigned)program_below(program, count);
	fault.other = (fault.node + 1 + (unsigned)program_below(program, count - 1)) % count;
	if (row->flags & FAULT_OF_VICTIM)
		fault.node = (unsigned)program->victim;
	if (row->flags & FAULT_OF_NODE && !faults_pick_well(program, &fault.node))
		return false;
	if (row->flags & FAULT_OF_VICTIM && !faults_is_well(program, fault.node))
		return false;
	if (!way->begin(program, &fault))
		return false;
	program->figures->faults[kind]++;
	fault.end_ns =
		sim_now(program->herd->world) +
		NS_PER_MS * (row->min_ms + program_below(program, row->max_ms - row->min_ms + 1));
	program_trace(program, "fault %s: %s, %s, until %.6f", row->name,
		      program->herd->nodes[fault.node].name, program->herd->nodes[fault.other].name,
		      (double)fault.end_ns / 1e9);
	if (way->end)
		program->faults[program->fault_count++] = fault;
	return true;
}

static void end_one(struct program *program, unsigned index)
{
	struct fault fault = program->faults[index];

	program->faults[index] = program->faults[--program->fault_count];
	program_trace(program, "fault %s of %s ends", fault_table[fault.kind].name,
		      program->herd->nodes[fault.node].name);
	way_of(fault.kind)->end(program, &fault);
	program->well_ns[fault.node] = sim_now(program->herd->world);
}

void faults_tick(struct program *program)
{
	for (unsigned i = 0; i < program->herd->node_count; i++)
		faults_tell_replaced(program, i);
	faults_mend_settings(program);
	for (unsigned i = 0; i < program->fault_count;) {
		if (program->faults[i].end_ns <= sim_now(program->herd->world))
			end_one(program, i);
		else
			i++;
	}
}

void faults_heal(struct program *program)
{
	while (program->fault_count)
		end_one(program, 0);
	for (unsigned i = 0; i < program->herd->node_count; i++) {
		sim_host_forget_faults(program->herd->nodes[i].host);
		if (program->was_added[i])
			faults_start_node(program, i);
	}
}

uint64_t faults_next_end(const struct program *program)
{
	uint64_t next = UINT64_MAX;

	for (unsigned i = 0; i < program->fault_count; i++)
		next = min_of(next, program->faults[i].end_ns);
	return next;
}
