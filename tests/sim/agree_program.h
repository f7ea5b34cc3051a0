/* Random programs for the agreement: one seed, one run. */
#ifndef AGREE_PROGRAM_H
#define AGREE_PROGRAM_H

#include "tests/sim/agree_world.h"

struct program_result {
	bool has_failed, is_void;
	char why[256];
	uint64_t trace, commits;
	uint64_t images, elections, ends;
};

void agree_program(uint64_t seed, bool is_traced, struct program_result *out);

#endif
