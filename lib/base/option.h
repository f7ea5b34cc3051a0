/*
 * Command lines, parsed by tables from which the help text is printed too.
 *
 * A program's row starts with a struct option_row and goes on as it likes. Forms:
 * --name VALUE, --name=VALUE, -n VALUE, -nVALUE, and flags -abc; "--" ends the
 * options, "-" is an operand. Options and operands come in any order. Names are not
 * abbreviated: a script that did would break with the next option.
 */
#ifndef BASE_OPTION_H
#define BASE_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "lib/base/err.h"

struct option_row {
	const char *name;  /* without dashes */
	char letter;	   /* or 0 */
	const char *value; /* what the help calls its value; NULL: a flag */
	const char *help;  /* may have several lines */
};

struct option_table {
	const void *rows; /* each begins with a struct option_row */
	size_t count;
	size_t stride; /* bytes from row to row */
};

/* The table of an array of rows whose first member is @member, a struct option_row. */
#define OPTION_TABLE(array, member)                                        \
	{                                                                  \
		&(array)[0].member, ARRAY_COUNT(array), sizeof((array)[0]) \
	}

/* Where the parser is. The tables may change between two calls of option_next(). */
struct option_scan {
	int argc;
	char **argv;	     /* borrowed, not changed */
	int at;		     /* next argument; start at 1 */
	const char *letters; /* the rest of "-abc"; private */
	bool is_ended;	     /* "--" was seen; private */
};

enum option_kind { OPTION_END, OPTION_OPTION, OPTION_OPERAND };

/*
 * The next option or operand. OPTION_OPTION: @row is its row, @value its value (NULL
 * for a flag); OPTION_OPERAND: @value is it; OPTION_END; or -E_USAGE with a text.
 * @tables: @count of them, searched in this order. Values are borrowed from argv.
 */
int option_next(struct option_scan *scan, const struct option_table *tables, size_t count,
		const struct option_row **row, const char **value, struct error *err);

/* The row of that name, or NULL. */
const struct option_row *option_find(const struct option_table *table, const char *name,
				     size_t length);

/* One line or more per row: "  -c, --cluster ENGINE   the text". */
void option_print_help(const struct option_table *table, FILE *out);

static inline const struct option_row *option_at(const struct option_table *table, size_t index)
{
	return (const struct option_row *)((const char *)table->rows + index * table->stride);
}

#endif
