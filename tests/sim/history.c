/*
 * Sectors keep lists of what was done to them, newest first, in one arena; operations keep times.
 * A check takes one sector after the other, and of each one era after the other.
 */
#include "tests/sim/history.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"

struct act {	       /* of one operation on one sector */
	uint32_t next; /* 0: the last */
	uint32_t number;
	uint32_t value;
	bool is_write;
};

struct operation {
	uint64_t begin, end; /* HISTORY_NEVER: not acknowledged */
	uint32_t client;
	bool is_durable; /* FUA */
};

/* A range of sectors: a FLUSH that succeeded, or a loss. */
struct range {
	uint32_t first, count;
	uint32_t number; /* of a FLUSH */
	uint64_t time;	 /* of a loss */
};

struct list {
	void *rows;
	uint32_t count, room;
};

struct history {
	uint32_t sector_count;
	uint32_t *heads; /* act, by sector */
	struct list acts, operations, flushes, failed, losses;
};

static void *add(struct list *list, size_t size)
{
	if (list->count == list->room) {
		list->room = list->room * 2 + 1024;
		list->rows = realloc(list->rows, list->room * size);
		assert(list->rows);
	}
	return (char *)list->rows + size * list->count++;
}

static struct act *act_at(const struct history *history, uint32_t index)
{
	return (struct act *)history->acts.rows + index;
}

static struct operation *operation_at(const struct history *history, uint32_t number)
{
	assert(number < history->operations.count);
	return (struct operation *)history->operations.rows + number;
}

/* ---- what happens ---- */

struct history *history_new(uint32_t sectors)
{
	struct history *history = calloc(1, sizeof(*history));

	assert(history);
	history->sector_count = sectors;
	history->heads = calloc(sectors, sizeof(*history->heads));
	assert(history->heads);
	*(struct act *)add(&history->acts, sizeof(struct act)) = (struct act){0}; /* 0 is no act */
	return history;
}

void history_free(struct history *history)
{
	if (!history)
		return;
	free(history->heads);
	free(history->acts.rows);
	free(history->operations.rows);
	free(history->flushes.rows);
	free(history->failed.rows);
	free(history->losses.rows);
	free(history);
}

uint64_t history_size(const struct history *history)
{
	return history->acts.count - 1;
}

uint32_t history_begin(struct history *history, uint64_t now_ns, uint32_t client)
{
	struct operation *operation = add(&history->operations, sizeof(*operation));

	*operation = (struct operation){.begin = now_ns, .end = HISTORY_NEVER, .client = client};
	return history->operations.count - 1;
}

static void add_act(struct history *history, uint32_t sector, struct act act)
{
	struct act *row = add(&history->acts, sizeof(*row));

	assert(sector < history->sector_count);
	act.next = history->heads[sector];
	*row = act;
	history->heads[sector] = history->acts.count - 1;
}

void history_note_write(struct history *history, uint32_t number, uint32_t sector, uint32_t value)
{
	add_act(history, sector, (struct act){.number = number, .value = value, .is_write = true});
}

void history_note_read(struct history *history, uint32_t number, uint32_t sector, uint32_t value)
{
	add_act(history, sector, (struct act){.number = number, .value = value});
}

void history_end(struct history *history, uint32_t number, uint64_t now_ns)
{
	operation_at(history, number)->end = now_ns;
}

void history_note_durable(struct history *history, uint32_t number)
{
	operation_at(history, number)->is_durable = true;
}

void history_note_flush(struct history *history, uint32_t number, uint32_t first, uint32_t count)
{
	struct range *range = add(&history->flushes, sizeof(*range));

	*range = (struct range){.first = first, .count = count, .number = number};
}

void history_note_flush_failed(struct history *history, uint32_t number)
{
	*(uint32_t *)add(&history->failed, sizeof(uint32_t)) = number;
}

void history_note_loss(struct history *history, uint32_t first, uint32_t count, uint64_t now_ns)
{
	struct range *range = add(&history->losses, sizeof(*range));

	*range = (struct range){.first = first, .count = count, .time = now_ns};
}

/* ---- one sector ---- */

/* A write with the reads that saw it, or, with the times of one of them, that read alone. */
struct zone {
	uint64_t begin,
		end; /* of the write, clipped to the era; end NEVER: it need not have been */
	uint64_t first_end, last_begin;
	uint32_t value, reads;
};

struct judge {
	const struct history *history;
	uint32_t sector;
	FILE *out;
	bool is_bad;
	/* the sector's acts, oldest first */
	struct act *acts;
	uint32_t act_count, act_room;
	/* of the era */
	uint64_t era_begin, era_end;
	uint32_t era;
	struct zone *zones; /* of values but zero, by value */
	uint32_t zone_count, zone_room;
	struct zone *zeroes; /* writes of zeroes */
	uint32_t zero_count, zero_room;
};

static const struct operation *operation_of(const struct judge *judge, const struct act *act)
{
	return operation_at(judge->history, act->number);
}

static void print_act(const struct judge *judge, const struct act *act)
{
	const struct operation *operation = operation_of(judge, act);

	(void)fprintf(judge->out, "  %.9f to ", (double)operation->begin / 1e9);
	if (operation->end == HISTORY_NEVER)
		(void)fprintf(judge->out, "%14s", "-");
	else
		(void)fprintf(judge->out, "%14.9f", (double)operation->end / 1e9);
	(void)fprintf(judge->out, "  client %u %s %u%s\n", operation->client,
		      act->is_write ? "writes" : "reads ", act->value,
		      operation->is_durable ? ", durably" : "");
}

static void print_history(const struct judge *judge)
{
	const struct range *losses = judge->history->losses.rows;
	const struct range *flushes = judge->history->flushes.rows;

	for (uint32_t i = 0; i < judge->act_count; i++)
		print_act(judge, &judge->acts[i]);
	for (uint32_t i = 0; i < judge->history->losses.count; i++)
		if (judge->sector - losses[i].first < losses[i].count)
			(void)fprintf(judge->out, "  %.9f lost\n", (double)losses[i].time / 1e9);
	for (uint32_t i = 0; i < judge->history->flushes.count; i++) {
		const struct operation *flush = operation_at(judge->history, flushes[i].number);
		if (judge->sector - flushes[i].first < flushes[i].count)
			(void)fprintf(judge->out, "  %.9f to %14.9f  client %u flushes\n",
				      (double)flush->begin / 1e9, (double)flush->end / 1e9,
				      flush->client);
	}
}

__attribute__((format(printf, 2, 3))) static void complain(struct judge *judge, const char *format,
							   ...)
{
	va_list args;

	if (judge->is_bad)
		return;
	judge->is_bad = true;
	if (!judge->out)
		return;
	(void)fprintf(judge->out, "sector %u, era %u: ", judge->sector, judge->era);
	va_start(args, format);
	(void)vfprintf(judge->out, format, args);
	va_end(args);
	(void)fputc('\n', judge->out);
	print_history(judge);
}

static struct zone *zone_add(struct zone **zones, uint32_t *count, uint32_t *room)
{
	if (*count == *room) {
		*room = *room * 2 + 64;
		*zones = realloc(*zones, *room * sizeof(**zones));
		assert(*zones);
	}
	memset(&(*zones)[*count], 0, sizeof(**zones));
	return &(*zones)[(*count)++];
}

static struct zone *zone_find(const struct judge *judge, uint32_t value)
{
	for (uint32_t i = 0; i < judge->zone_count; i++)
		if (judge->zones[i].value == value)
			return &judge->zones[i];
	return NULL;
}

static bool is_forward(const struct zone *zone)
{
	return zone->first_end < zone->last_begin;
}

/* Must it have been there at all? */
static bool is_certain(const struct zone *zone)
{
	return zone->reads > 0 || zone->end != HISTORY_NEVER;
}

/* Zones of one value each, both certain: can they not both be? */
static bool do_clash(const struct zone *a, const struct zone *b)
{
	return (is_forward(a) || is_forward(b)) && a->first_end < b->last_begin &&
	       b->first_end < a->last_begin;
}

/* ---- an era ---- */

static void zone_of_write(struct judge *judge, const struct act *act, struct zone *zone)
{
	const struct operation *operation = operation_of(judge, act);

	zone->value = act->value;
	zone->begin = max_of(operation->begin, judge->era_begin);
	/* What ends in a later era may have happened there. */
	zone->end = operation->end < judge->era_end ? operation->end : HISTORY_NEVER;
	zone->first_end = zone->end;
	zone->last_begin = zone->begin;
}

static void gather_writes(struct judge *judge)
{
	judge->zone_count = judge->zero_count = 0;
	if (judge->era == 0) { /* as it was born */
		struct zone *zone = zone_add(&judge->zeroes, &judge->zero_count, &judge->zero_room);
		*zone = (struct zone){0};
	}
	for (uint32_t i = 0; i < judge->act_count; i++) {
		const struct act *act = &judge->acts[i];
		const struct operation *operation = operation_of(judge, act);
		if (!act->is_write || operation->begin >= judge->era_end ||
		    operation->end < judge->era_begin)
			continue;
		zone_of_write(
			judge, act,
			act->value
				? zone_add(&judge->zones, &judge->zone_count, &judge->zone_room)
				: zone_add(&judge->zeroes, &judge->zero_count, &judge->zero_room));
	}
}

static bool was_loss_between(const struct judge *judge, uint64_t from_ns, uint64_t to_ns)
{
	const struct range *losses = judge->history->losses.rows;

	for (uint32_t i = 0; i < judge->history->losses.count; i++)
		if (judge->sector - losses[i].first < losses[i].count && losses[i].time > from_ns &&
		    losses[i].time < to_ns)
			return true;
	return false;
}

/* Does this FLUSH, which began after @write had ended, promise that it is there? */
static bool speaks_for(const struct judge *judge, const struct operation *flush,
		       const struct operation *write)
{
	const uint32_t *failed = judge->history->failed.rows;

	if (!was_loss_between(judge, write->end, flush->end))
		return true;
	if (flush->client != write->client)
		return false;
	for (uint32_t i = 0; i < judge->history->failed.count; i++) {
		const struct operation *other = operation_at(judge->history, failed[i]);
		if (other->client == flush->client && other->end > write->end &&
		    other->begin < flush->end)
			return false;
	}
	return true;
}

/* Was what @act wrote on stable storage before the era began, for all that clients were told? */
static bool was_flushed(const struct judge *judge, const struct act *act)
{
	const struct operation *operation = operation_of(judge, act);
	const struct range *flushes = judge->history->flushes.rows;

	if (operation->end >= judge->era_begin)
		return false;
	if (operation->is_durable)
		return true;
	for (uint32_t i = 0; i < judge->history->flushes.count; i++) {
		const struct operation *flush = operation_at(judge->history, flushes[i].number);
		if (judge->sector - flushes[i].first < flushes[i].count &&
		    flush->begin >= operation->end && speaks_for(judge, flush, operation))
			return true;
	}
	return false;
}

/* May the era have begun with what @old wrote (NULL: with what was there at first)? */
static bool may_return(const struct judge *judge, const struct act *old)
{
	for (uint32_t i = 0; i < judge->act_count; i++) {
		const struct act *act = &judge->acts[i];
		if (!act->is_write || act == old || !was_flushed(judge, act))
			continue;
		if (!old || operation_of(judge, old)->end < operation_of(judge, act)->begin)
			return false;
	}
	return true;
}

static bool may_begin_with(const struct judge *judge, uint32_t value)
{
	for (uint32_t i = 0; i < judge->act_count; i++) {
		const struct act *act = &judge->acts[i];
		if (act->is_write && act->value == value &&
		    operation_of(judge, act)->end < judge->era_begin && may_return(judge, act))
			return true;
	}
	return value == 0 && may_return(judge, NULL);
}

/* The era began with it. */
static struct zone *zone_of_old(struct judge *judge, uint32_t value)
{
	struct zone *zone = value ? zone_add(&judge->zones, &judge->zone_count, &judge->zone_room)
				  : zone_add(&judge->zeroes, &judge->zero_count, &judge->zero_room);

	*zone = (struct zone){.begin = judge->era_begin,
			      .end = judge->era_begin,
			      .first_end = judge->era_begin,
			      .last_begin = judge->era_begin,
			      .value = value};
	return zone;
}

static bool is_of_era(const struct judge *judge, const struct operation *operation)
{
	return operation->begin >= judge->era_begin && operation->end < judge->era_end;
}

static bool has_written_before(const struct judge *judge, uint32_t value)
{
	for (uint32_t i = 0; i < judge->act_count; i++)
		if (judge->acts[i].is_write && judge->acts[i].value == value &&
		    operation_of(judge, &judge->acts[i])->end < judge->era_begin)
			return true;
	return false;
}

/* A value but zero. */
static void judge_read(struct judge *judge, const struct act *act)
{
	const struct operation *operation = operation_of(judge, act);
	struct zone *zone = zone_find(judge, act->value);

	if (!zone && judge->era > 0 && has_written_before(judge, act->value)) {
		if (!may_begin_with(judge, act->value)) {
			complain(judge, "%u is back, and a later write had been flushed",
				 act->value);
			return;
		}
		zone = zone_of_old(judge, act->value);
	}
	if (!zone || operation->end < zone->begin) {
		complain(judge, "%u was read, and had not been written", act->value);
		return;
	}
	zone->reads++;
	zone->first_end = min_of(zone->first_end, operation->end);
	zone->last_begin = max_of(zone->last_begin, operation->begin);
}

static bool suits(const struct judge *judge, const struct zone *zero)
{
	for (uint32_t i = 0; i < judge->zone_count; i++)
		if (is_certain(&judge->zones[i]) && do_clash(&judge->zones[i], zero))
			return false;
	return true;
}

static void judge_zero(struct judge *judge, const struct act *act)
{
	const struct operation *operation = operation_of(judge, act);

	for (uint32_t i = 0; i < judge->zero_count; i++) {
		struct zone zone = judge->zeroes[i];
		if (zone.begin > operation->end)
			continue;
		zone.reads = 1;
		zone.first_end = min_of(zone.first_end, operation->end);
		zone.last_begin = max_of(zone.last_begin, operation->begin);
		if (suits(judge, &zone))
			return;
	}
	complain(judge, "zeroes were read from %.9f to %.9f, and other values were there",
		 (double)operation->begin / 1e9, (double)operation->end / 1e9);
}

static void judge_zones(struct judge *judge)
{
	for (uint32_t i = 0; i < judge->zone_count && !judge->is_bad; i++) {
		const struct zone *a = &judge->zones[i];
		if (!is_certain(a))
			continue;
		for (uint32_t j = i + 1; j < judge->zone_count; j++)
			if (is_certain(&judge->zones[j]) && do_clash(a, &judge->zones[j]))
				complain(judge, "%u and %u were there at the same time", a->value,
					 judge->zones[j].value);
		for (uint32_t j = 0; j < judge->zero_count; j++)
			if (is_certain(&judge->zeroes[j]) && do_clash(a, &judge->zeroes[j]))
				complain(judge, "%u was there before and after zeroes", a->value);
	}
}

static void judge_era(struct judge *judge)
{
	gather_writes(judge);
	for (uint32_t i = 0; i < judge->act_count && !judge->is_bad; i++)
		if (!judge->acts[i].is_write && judge->acts[i].value &&
		    is_of_era(judge, operation_of(judge, &judge->acts[i])))
			judge_read(judge, &judge->acts[i]);
	judge_zones(judge);
	if (judge->era > 0 && may_begin_with(judge, 0))
		(void)zone_of_old(judge, 0);
	for (uint32_t i = 0; i < judge->act_count && !judge->is_bad; i++)
		if (!judge->acts[i].is_write && !judge->acts[i].value &&
		    is_of_era(judge, operation_of(judge, &judge->acts[i])))
			judge_zero(judge, &judge->acts[i]);
}

/* ---- all sectors ---- */

static void gather_acts(struct judge *judge)
{
	const struct history *history = judge->history;
	uint32_t count = 0;

	for (uint32_t at = history->heads[judge->sector]; at; at = act_at(history, at)->next)
		count++;
	if (count > judge->act_room) {
		judge->act_room = count * 2;
		judge->acts = realloc(judge->acts, judge->act_room * sizeof(*judge->acts));
		assert(judge->acts);
	}
	judge->act_count = count;
	for (uint32_t at = history->heads[judge->sector]; at; at = act_at(history, at)->next)
		judge->acts[--count] = *act_at(history, at);
}

static bool has_values(const struct judge *judge)
{
	for (uint32_t i = 0; i < judge->act_count; i++)
		if (judge->acts[i].value)
			return true;
	return false;
}

static void judge_sector(struct judge *judge)
{
	const struct history *history = judge->history;
	const struct range *losses = history->losses.rows;

	gather_acts(judge);
	if (!has_values(judge))
		return;
	judge->era = 0;
	judge->era_begin = 0;
	for (uint32_t i = 0; i < history->losses.count && !judge->is_bad; i++) {
		if (judge->sector - losses[i].first >= losses[i].count)
			continue;
		judge->era_end = losses[i].time;
		judge_era(judge);
		judge->era++;
		judge->era_begin = judge->era_end;
	}
	judge->era_end = HISTORY_NEVER;
	if (!judge->is_bad)
		judge_era(judge);
}

bool history_check(struct history *history, FILE *out)
{
	struct judge judge = {.history = history, .out = out};

	while (judge.sector < history->sector_count && !judge.is_bad) {
		if (history->heads[judge.sector])
			judge_sector(&judge);
		judge.sector++;
	}
	free(judge.acts);
	free(judge.zones);
	free(judge.zeroes);
	return !judge.is_bad;
}
