/*
 * What was hit, in the simulator's build; nothing in others.
 *
 * COVER("gate: stale epoch") counts how often this line ran. COVER_MOVE() counts the moves of a
 * state machine beside its table, so that those that never happened show, too.
 */
#ifndef BASE_COVER_H
#define BASE_COVER_H

#include <stdint.h>

#include "lib/base/size.h"

#ifdef SHEEPFOLD_MUTATIONS

struct cover_row {
	const char *what;
	unsigned long hits;
};

#define COVER_STATES_MAX 12u

struct cover_machine {
	const char *name;
	const uint8_t *moves; /* by state; bits: the states that may follow */
	unsigned count;	      /* of states */
	const char *const *state_names;
	unsigned long hits[COVER_STATES_MAX][COVER_STATES_MAX];
};

/* All lines and machines of the program, whether they ran or not. */
extern struct cover_row *const __start_cover_rows[], *const __stop_cover_rows[];
extern struct cover_machine *const __start_cover_machines[], *const __stop_cover_machines[];

#define COVER(text)                                                                 \
	do {                                                                        \
		static struct cover_row cover_row_ = {text, 0};                     \
		static struct cover_row *const cover_link_                          \
			__attribute__((section("cover_rows"), used)) = &cover_row_; \
		cover_row_.hits++;                                                  \
	} while (0)

/* The value of @value, which may have commas. */
#define COVERED(text, ...)   \
	({                   \
		COVER(text); \
		__VA_ARGS__; \
	})

/* @table, @names: arrays by state. */
#define COVER_MOVE(text, table, names, from, to)                                            \
	do {                                                                                \
		_Static_assert(ARRAY_COUNT(table) <= COVER_STATES_MAX, "too many states");  \
		static struct cover_machine cover_machine_ = {                              \
			text, table, ARRAY_COUNT(table), names, {{0}}};                     \
		static struct cover_machine *const cover_link_                              \
			__attribute__((section("cover_machines"), used)) = &cover_machine_; \
		cover_machine_.hits[from][to]++;                                            \
	} while (0)

#else

#define COVER(text)				 ((void)0)
#define COVERED(text, ...)			 (__VA_ARGS__)
#define COVER_MOVE(text, table, names, from, to) ((void)0)

#endif

#endif
