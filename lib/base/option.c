#include "lib/base/option.h"

#include <string.h>

#include "lib/base/size.h"
#include "lib/base/text.h"

/* The help's column, if the options leave room for it. */
#define HELP_COLUMN 27

const struct option_row *option_find(const struct option_table *table, const char *name,
				     size_t length)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct option_row *row = option_at(table, i);
		if (strlen(row->name) == length && memcmp(row->name, name, length) == 0)
			return row;
	}
	return NULL;
}

static const struct option_row *find_letter(const struct option_table *tables, size_t count,
					    char letter)
{
	for (size_t t = 0; t < count; t++) {
		for (size_t i = 0; i < tables[t].count; i++) {
			const struct option_row *row = option_at(&tables[t], i);
			if (row->letter == letter)
				return row;
		}
	}
	return NULL;
}

/* The value that stands in the next argument. */
static int take_value(struct option_scan *scan, const struct option_row *row, const char **value,
		      struct error *err)
{
	if (scan->at >= scan->argc)
		return error_set(err, -E_USAGE, "--%s: %s is missing", row->name, row->value);
	*value = scan->argv[scan->at++];
	return OPTION_OPTION;
}

static int next_letter(struct option_scan *scan, const struct option_table *tables, size_t count,
		       const struct option_row **row, const char **value, struct error *err)
{
	char letter = *scan->letters++;

	*row = find_letter(tables, count, letter);
	if (!*row)
		return error_set(err, -E_USAGE, "-%c: no such option", letter);
	*value = NULL;
	if (!(*row)->value) {
		if (!*scan->letters)
			scan->letters = NULL;
		return OPTION_OPTION;
	}
	const char *rest = scan->letters;
	scan->letters = NULL;
	if (!*rest)
		return take_value(scan, *row, value, err);
	*value = rest;
	return OPTION_OPTION;
}

static int next_name(struct option_scan *scan, const char *name, const struct option_table *tables,
		     size_t count, const struct option_row **row, const char **value,
		     struct error *err)
{
	size_t length = strcspn(name, "=");

	*row = NULL;
	for (size_t t = 0; t < count && !*row; t++)
		*row = option_find(&tables[t], name, length);
	if (!*row)
		return error_set(err, -E_USAGE, "--%.*s: no such option", (int)length, name);
	*value = NULL;
	if (name[length] == '=') {
		if (!(*row)->value)
			return error_set(err, -E_USAGE, "--%s: takes no value", (*row)->name);
		*value = name + length + 1;
		return OPTION_OPTION;
	}
	return (*row)->value ? take_value(scan, *row, value, err) : OPTION_OPTION;
}

int option_next(struct option_scan *scan, const struct option_table *tables, size_t count,
		const struct option_row **row, const char **value, struct error *err)
{
	if (scan->letters)
		return next_letter(scan, tables, count, row, value, err);
	if (scan->at >= scan->argc)
		return OPTION_END;

	const char *argument = scan->argv[scan->at++];
	if (scan->is_ended || argument[0] != '-' || !argument[1]) {
		*value = argument;
		return OPTION_OPERAND;
	}
	if (argument[1] != '-') {
		scan->letters = argument + 1;
		return next_letter(scan, tables, count, row, value, err);
	}
	if (argument[2])
		return next_name(scan, argument + 2, tables, count, row, value, err);
	scan->is_ended = true;
	return option_next(scan, tables, count, row, value, err);
}

void option_print_help(const struct option_table *table, FILE *out)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct option_row *row = option_at(table, i);
		char data[128];
		struct text left = text_of(data, sizeof(data));

		if (row->letter)
			text_append(&left, "  -%c, ", row->letter);
		else
			text_append(&left, "      ");
		text_append(&left, "--%s%s%s", row->name, row->value ? " " : "",
			    row->value ? row->value : "");
		fprintf(out, "%-*s ", HELP_COLUMN - 1, data);
		for (const char *line = row->help; *line;) {
			size_t length = strcspn(line, "\n");
			fprintf(out, "%*s%.*s\n", line == row->help ? 0 : HELP_COLUMN, "",
				(int)length, line);
			line += length + (line[length] == '\n');
		}
	}
}
