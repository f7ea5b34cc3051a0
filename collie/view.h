/*
 * How a document is shown to people. A value is a template over the document:
 *
 *   {path}        dots go into objects; a path through a list gives the list of what is there
 *   {path:form}   size: "1.5 GiB"; count: how many in a list; short: the first 8 digits of
 *                 UUIDs; time: "2 m 5 s" out of seconds
 *
 * Lists are joined by commas, what is null or missing is "-", and braces do not occur otherwise.
 */
#ifndef COLLIE_VIEW_H
#define COLLIE_VIEW_H

#include <json-c/json.h>
#include <stdio.h>

enum column_flags {
	COLUMN_RIGHT = 1,    /* numbers and sizes */
	COLUMN_OPTIONAL = 2, /* not shown in a record when nothing of it is there */
};

struct column {
	const char *title; /* NULL ends the list */
	const char *value; /* template */
	unsigned flags;	   /* enum column_flags */
};

enum view_kind {
	VIEW_LINE,   /* one line: columns[0].value */
	VIEW_RECORD, /* an object: a line per column, then the lists in it */
	VIEW_TABLE,  /* a list: a line per item, under titles */
	VIEW_STORY, /* an object: a paragraph per column, its title in front of each line; then so for
			each item of the list in it */
};

struct view {
	enum view_kind kind;
	const struct column *columns;
	/* Of a record: a list in it that is shown as a table below, unless it is empty. */
	const char *list_path;
	const struct view *list_view;
	const char *nothing; /* said if that list is empty; NULL: nothing */
};

void view_print(const struct view *view, struct json_object *document, FILE *out);

/*
 * The template's text: malloc'ed, the caller's; NULL: no memory. @found: how many of its fields
 * are there; may be NULL.
 */
char *view_expand(const char *template, struct json_object *document, unsigned *found);

#endif
