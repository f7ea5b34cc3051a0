/*
 * collie, the admin tool: asks one sheep, prints what it says. docs/protocol/admin.md
 *
 *   command   the table of commands: help, completion and arguments come from its rows
 *   collie    the command line, one command, the exit code
 *   wait      commands that wait: loops of queries, so that an interrupted collie interrupts nothing
 *   ask       a command's request: arguments out, one whole document back, pages put together
 *   call      one request over a link, blocking, with a deadline
 *   view      a document as a table or record, by templates
 *   failure   what went wrong, and which exit code that is
 */
#ifndef COLLIE_COLLIE_H
#define COLLIE_COLLIE_H

#include <stdbool.h>
#include <stdio.h>

enum collie_exit {
	COLLIE_DONE = 0,
	COLLIE_REFUSED = 1,	/* refused or failed */
	COLLIE_UNREACHABLE = 2, /* the sheep cannot be reached, or a system error */
	COLLIE_EXISTS = 3,
	COLLIE_NO_SPACE = 4,
	COLLIE_NOT_FOUND = 5,
	COLLIE_BUSY = 6, /* in use, or timed out while waiting */
	COLLIE_USAGE = 64,
};

/* The world as collie sees it. */
struct collie_io {
	FILE *out, *err;
	bool is_terminal;  /* err is one: show progress */
	const char *sheep; /* $COLLIE_SHEEP, or NULL */
};

/* Run one command line. Returns the exit code. */
int collie_run(int argc, char **argv, const struct collie_io *io);

#endif
