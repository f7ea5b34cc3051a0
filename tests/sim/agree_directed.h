/* Histories for the agreement that random programs hardly reach. */
#ifndef AGREE_DIRECTED_H
#define AGREE_DIRECTED_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/rule.h"

struct directed {
	const char *name;
	enum rule rule; /* without which it fails */
	/* What is wrong, in @why; true: nothing. */
	bool (*run)(char *why, size_t size);
};

extern const struct directed directed_table[];
extern const unsigned directed_count;

#endif
