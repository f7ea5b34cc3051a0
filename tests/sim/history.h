/*
 * What clients did to sectors, and whether it could have happened to one disk.
 *
 * Every write but those of zeroes has a value of its own, so a read names the write that it saw.
 * Then a register is linearizable, in real-time order, exactly when its *zones* fit (Gibbons and
 * Korach, "Testing shared memories", 1997): take a write with the reads that saw it; from the first
 * end to the last begin of them its value was certainly there (a forward zone), or, if that interval
 * is empty, at some instant between the two (a backward zone). No two forward zones may overlap, and no
 * forward zone may hold a backward one. A write that was never acknowledged may have happened at any
 * later time, once, or never.
 *
 * Zeroes come from anywhere: each read of them is judged alone, with the write of zeroes that suits
 * it best. That finds less and invents nothing.
 *
 * When acknowledged writes are lost (a loss epoch rose) a new *era* begins. It may show one older
 * value, but none that is older than what had been flushed before. A FLUSH after a loss speaks only for
 * the writes of its own client, until it has failed once.
 *
 * Pure: no simulator in here. Times are of any clock that all clients share.
 */
#ifndef TESTS_SIM_HISTORY_H
#define TESTS_SIM_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct history;

#define HISTORY_NEVER UINT64_MAX

/* @sectors: numbered from 0. They hold zeroes. */
struct history *history_new(uint32_t sectors);
void history_free(struct history *history); /* NULL is allowed */

/* One operation over several sectors; returns its number. @client: who asked, for FLUSH. */
uint32_t history_begin(struct history *history, uint64_t now_ns, uint32_t client);
/* @number wrote @value to @sector, 0: zeroes. Values above are used once in a history. */
void history_note_write(struct history *history, uint32_t number, uint32_t sector, uint32_t value);
/* A read, or a write that was acknowledged, has ended. What never ends may still happen. */
void history_end(struct history *history, uint32_t number, uint64_t now_ns);
/* After its end: what @number read. */
void history_note_read(struct history *history, uint32_t number, uint32_t sector, uint32_t value);
/* @number was a FUA write and has ended. */
void history_note_durable(struct history *history, uint32_t number);
/* @number was a FLUSH of the sectors [@first, @first + @count) and has succeeded. */
void history_note_flush(struct history *history, uint32_t number, uint32_t first, uint32_t count);
/* The same, and it failed: its client knows of a loss, and is not told again. */
void history_note_flush_failed(struct history *history, uint32_t number);
/* Acknowledged writes of these sectors may have been lost, just now. */
void history_note_loss(struct history *history, uint32_t first, uint32_t count, uint64_t now_ns);

/* Is there an order? If not: false, and to @out (may be NULL) a sector, why, and what was done to it. */
bool history_check(struct history *history, FILE *out);
/* How many operations there are on all sectors. */
uint64_t history_size(const struct history *history);

#endif
