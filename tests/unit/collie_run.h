/* Run collie in this process and look at what it printed. */
#ifndef TESTS_COLLIE_RUN_H
#define TESTS_COLLIE_RUN_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "collie/collie.h"

struct collie_run {
	int exit;
	char *out, *err; /* freed by collie_run_done() */
};

static inline struct collie_run collie_run_argv(const char *sheep, bool is_terminal,
						const char *const *argv)
{
	struct collie_run run = {0};
	size_t out_size, err_size;
	struct collie_io io = {
		.out = open_memstream(&run.out, &out_size),
		.err = open_memstream(&run.err, &err_size),
		.is_terminal = is_terminal,
		.sheep = sheep,
	};
	int argc = 0;

	while (argv[argc])
		argc++;
	run.exit = collie_run(argc, (char **)(uintptr_t)argv, &io);
	fclose(io.out);
	fclose(io.err);
	return run;
}

#define COLLIE_ARGS(...) ((const char *[]){"collie", ##__VA_ARGS__, NULL})

static inline void collie_run_done(struct collie_run *run)
{
	free(run->out);
	free(run->err);
}

/* Exit code, all of standard output (NULL: whatever) and of standard error. */
static inline void collie_run_expect(int line, struct collie_run run, int exit, const char *out,
				     const char *err)
{
	if (run.exit != exit)
		fail_msg("line %d: exit %d, not %d: %s%s", line, run.exit, exit, run.out, run.err);
	if (out && strcmp(run.out, out) != 0)
		fail_msg("line %d: printed:\n%s\nnot:\n%s", line, run.out, out);
	if (err && strcmp(run.err, err) != 0)
		fail_msg("line %d: said:\n%s\nnot:\n%s", line, run.err, err);
	collie_run_done(&run);
}

#endif
