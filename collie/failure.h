/* What went wrong: the exit code, a name for programs, a sentence for people. */
#ifndef COLLIE_FAILURE_H
#define COLLIE_FAILURE_H

#include <stddef.h>
#include <stdint.h>

#include "collie/collie.h"

struct failure {
	enum collie_exit exit;
	char code[32];	 /* "exists", "unreachable", ... */
	char text[4096]; /* one line, without what failed in front */
};

/* Fill it in. Returns @exit, so that it can be returned on. */
int failure_set(struct failure *failure, enum collie_exit exit, const char *code,
		const char *format, ...) __attribute__((format(printf, 4, 5)));

/*
 * A refusal by the sheep. @text, @size: what it says, or size 0 for the status' own text.
 * Unclean bytes are replaced. Returns the exit code.
 */
int failure_from_status(struct failure *failure, uint32_t status, const char *text, size_t size);

/* The one table from status to exit code. */
enum collie_exit failure_exit_of(uint32_t status);
/* "not_found"; "status_77" for a number that is not known. */
void failure_code_of(uint32_t status, char *out, size_t size);

#endif
