/*
 * What G1 rests on, seen from outside: in each term of a log a copy gives its vote to one member at most, and
 * one member leads at most. Judged by what the members say, so a wrong vote is found also where it elects
 * nobody, and two leaders where their entries never met.
 *
 * A fixed number of terms is remembered, by hash: with very many some wrong ones are missed, no right one is blamed.
 */
#ifndef AGREE_ORACLE_H
#define AGREE_ORACLE_H

#include <stddef.h>

#include "lib/base/uuid.h"

#define ORACLE_ROOM 1024

/* Whom something was given to, once. */
struct oracle_row {
	struct uuid log;
	uint64_t term, copy; /* copy 0: it is about who leads */
	unsigned
		from; /* the machine, if it is about a vote: of a copied disk each votes for itself */
	struct uuid to;
	uint64_t start; /* of who leads */
};

struct oracle {
	struct oracle_row rows[ORACLE_ROOM];
};

/* A message that the member on machine @from said. NULL, or what is wrong with it. */
const char *oracle_hear(struct oracle *oracle, unsigned from, const uint8_t *data, size_t size);

#endif
