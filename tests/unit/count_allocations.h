/*
 * Counts what a program allocates that is linked with -Wl,--wrap=malloc,--wrap=calloc,--wrap=aligned_alloc: with
 * these files, and in its own thread as well as any other.
 */
#ifndef TESTS_COUNT_ALLOCATIONS_H
#define TESTS_COUNT_ALLOCATIONS_H

/* Up to now. */
unsigned long count_allocations(void);

#endif
