/*
 * Tables and records out of documents. All cells are made first, then measured, then printed:
 * a long name widens its column and cuts nothing.
 */
#include "collie/view.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "collie/clean.h"
#include "lib/base/size.h"
#include "lib/base/text.h"

#define GAP	   2 /* blanks between two columns */
#define NOTHING	   "-"
#define SHORT_UUID 8
#define LINE_WIDTH 80 /* of stories */

/* ---- values ---- */

static void print_text(struct json_object *value, FILE *out)
{
	char small[256];
	const char *text = json_object_get_string(value);
	size_t size = text ? strlen(text) : 0;
	char *clean = size < sizeof(small) ? small : malloc(size + 1);

	if (!clean)
		return;
	clean_copy(clean, size + 1, text ? text : "", size);
	fputs(clean, out);
	if (clean != small)
		free(clean);
}

static void print_plain(struct json_object *value, FILE *out)
{
	if (json_object_get_type(value) == json_type_boolean)
		fputs(json_object_get_boolean(value) ? "yes" : "no", out);
	else
		print_text(value, out);
}

static void print_size(struct json_object *value, FILE *out)
{
	char text[TEXT_SIZE_MAX];

	if (json_object_get_type(value) == json_type_int)
		fputs(text_format_size(json_object_get_uint64(value), text), out);
	else
		print_text(value, out);
}

static void print_short(struct json_object *value, FILE *out)
{
	char text[SHORT_UUID + 1];
	const char *full = json_object_get_string(value);

	clean_copy(text, sizeof(text), full ? full : "", full ? strlen(full) : 0);
	fputs(text, out);
}

static void print_time(struct json_object *value, FILE *out)
{
	uint64_t seconds = json_object_get_uint64(value);

	if (json_object_get_type(value) != json_type_int)
		print_text(value, out);
	else if (seconds < 60)
		fprintf(out, "%llu s", (unsigned long long)seconds);
	else if (seconds < 3600)
		fprintf(out, "%llu m %llu s", (unsigned long long)seconds / 60,
			(unsigned long long)seconds % 60);
	else
		fprintf(out, "%llu h %llu m", (unsigned long long)seconds / 3600,
			(unsigned long long)seconds / 60 % 60);
}

static const struct form {
	const char *name;
	void (*print)(struct json_object *value, FILE *out);
} forms[] = {
	{"", print_plain},
	{"size", print_size},
	{"short", print_short},
	{"time", print_time},
};

/* ---- templates ---- */

struct field {
	const char *path;
	size_t path_length;
	const struct form *form; /* NULL: count */
	bool is_first;
};

/* Print what is at the rest of the path; lists on the way are walked through. */
static void print_path(struct field *field, struct json_object *value, const char *path, FILE *out)
{
	size_t left = field->path_length - (size_t)(path - field->path);
	size_t length = strcspn(path, ".");

	if (json_object_is_type(value, json_type_array)) {
		size_t count = json_object_array_length(value);
		for (size_t i = 0; i < count; i++)
			print_path(field, json_object_array_get_idx(value, i), path, out);
		return;
	}
	if (left > 0) {
		char key[64];
		struct json_object *inner = NULL;
		if (length > left)
			length = left;
		if (length >= sizeof(key) || !json_object_is_type(value, json_type_object))
			return;
		memcpy(key, path, length);
		key[length] = '\0';
		if (json_object_object_get_ex(value, key, &inner))
			print_path(field, inner, path + length + (length < left), out);
		return;
	}
	if (!value)
		return;
	if (!field->is_first)
		fputc(',', out);
	field->is_first = false;
	field->form->print(value, out);
}

static struct json_object *find_path(struct json_object *value, const char *path, size_t size)
{
	while (size > 0 && json_object_is_type(value, json_type_object)) {
		char key[64];
		size_t length = strcspn(path, ".:}");
		if (length > size)
			length = size;
		if (length >= sizeof(key))
			return NULL;
		memcpy(key, path, length);
		key[length] = '\0';
		value = json_object_object_get(value, key);
		path += length + (length < size);
		size -= length + (length < size);
	}
	return size == 0 ? value : NULL;
}

/* Was anything there? */
static bool print_field(const char *text, size_t length, struct json_object *document, FILE *out)
{
	struct field field = {.path = text, .path_length = length, .form = &forms[0]};
	const char *colon = memchr(text, ':', length);

	field.is_first = true;
	if (colon) {
		size_t form_length = length - (size_t)(colon + 1 - text);
		field.path_length = (size_t)(colon - text);
		field.form = NULL;
		for (size_t i = 0; i < ARRAY_COUNT(forms); i++)
			if (strlen(forms[i].name) == form_length &&
			    memcmp(forms[i].name, colon + 1, form_length) == 0)
				field.form = &forms[i];
	}
	if (field.form) {
		print_path(&field, document, text, out);
	} else {
		struct json_object *list = find_path(document, text, field.path_length);
		if (json_object_is_type(list, json_type_array)) {
			fprintf(out, "%zu", json_object_array_length(list));
			field.is_first = false;
		}
	}
	if (field.is_first)
		fputs(NOTHING, out);
	return !field.is_first;
}

char *view_expand(const char *template, struct json_object *document, unsigned *found)
{
	unsigned count = 0;
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	while (*template) {
		size_t plain = strcspn(template, "{");
		fwrite(template, 1, plain, out);
		template += plain;
		if (!*template)
			break;
		size_t length = strcspn(template + 1, "}");
		count += print_field(template + 1, length, document, out);
		template += 1 + length + (template[1 + length] == '}');
	}
	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}
	if (found)
		*found = count;
	return text;
}

/* ---- tables ---- */

static size_t count_columns(const struct column *columns)
{
	size_t count = 0;

	while (columns[count].title)
		count++;
	return count;
}

static void print_cell(const char *text, size_t width, unsigned flags, bool is_last, FILE *out)
{
	size_t used = clean_width(text);
	int padding = (int)(width > used ? width - used : 0);

	if (flags & COLUMN_RIGHT)
		fprintf(out, "%*s%s", padding, "", text);
	else
		fprintf(out, "%s%*s", text, is_last ? 0 : padding, "");
	if (is_last)
		fputc('\n', out);
	else
		fprintf(out, "%*s", GAP, "");
}

static void print_table(const struct view *view, struct json_object *list, FILE *out)
{
	size_t columns = count_columns(view->columns);
	size_t rows = json_object_array_length(list);
	size_t *widths = calloc(columns, sizeof(*widths));
	char **cells = calloc(rows * columns + 1, sizeof(*cells));

	if (!widths || !cells)
		goto out;
	for (size_t c = 0; c < columns; c++)
		widths[c] = clean_width(view->columns[c].title);
	for (size_t i = 0; i < rows * columns; i++) {
		size_t c = i % columns;
		cells[i] = view_expand(view->columns[c].value,
				       json_object_array_get_idx(list, i / columns), NULL);
		if (!cells[i])
			goto out;
		widths[c] = max_of(widths[c], clean_width(cells[i]));
	}
	for (size_t c = 0; c < columns; c++)
		print_cell(view->columns[c].title, widths[c], view->columns[c].flags,
			   c + 1 == columns, out);
	for (size_t i = 0; i < rows * columns; i++)
		print_cell(cells[i], widths[i % columns], view->columns[i % columns].flags,
			   i % columns + 1 == columns, out);
out:
	for (size_t i = 0; cells && i < rows * columns; i++)
		free(cells[i]);
	free(cells);
	free(widths);
}

static void print_record(const struct view *view, struct json_object *document, FILE *out)
{
	size_t width = 0;

	for (const struct column *c = view->columns; c->title; c++)
		width = max_of(width, strlen(c->title));
	for (const struct column *c = view->columns; c->title; c++) {
		unsigned found;
		char *value = view_expand(c->value, document, &found);
		if (value && (found > 0 || !(c->flags & COLUMN_OPTIONAL))) {
			print_cell(c->title, width, 0, false, out);
			fprintf(out, "%s\n", value);
		}
		free(value);
	}
	if (!view->list_path)
		return;
	struct json_object *list = find_path(document, view->list_path, strlen(view->list_path));
	if (json_object_is_type(list, json_type_array) && json_object_array_length(list) > 0) {
		fputc('\n', out);
		print_table(view->list_view, list, out);
	}
}

/* ---- stories ---- */

/* Words up to LINE_WIDTH in a line, each line behind @lead; the first line's mark is @lead's own. */
static void print_paragraph(const char *lead, const char *text, FILE *out)
{
	size_t width = clean_width(lead), used = width;
	bool is_first = true;

	if (!*text)
		return;
	fputs(lead, out);
	while (*text) {
		size_t length = strcspn(text, " ");
		char word[256];
		size_t columns;

		snprintf(word, sizeof(word), "%.*s", (int)min_of(length, sizeof(word) - 1), text);
		columns = clean_width(word);
		if (!is_first && used + 1 + columns > LINE_WIDTH) {
			fprintf(out, "\n%*s", (int)width, "");
			used = width;
			is_first = true;
		}
		fprintf(out, "%s%.*s", is_first ? "" : " ", (int)length, text);
		used += columns + !is_first;
		is_first = false;
		text += length + (text[length] == ' ');
	}
	fputc('\n', out);
}

static void print_story(const struct view *view, struct json_object *document, FILE *out)
{
	for (const struct column *c = view->columns; c->title; c++) {
		char *value = view_expand(c->value, document, NULL);
		if (value && strcmp(value, NOTHING) != 0)
			print_paragraph(c->title, value, out);
		free(value);
	}
	if (!view->list_path)
		return;
	struct json_object *list = find_path(document, view->list_path, strlen(view->list_path));
	size_t count =
		json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
	for (size_t i = 0; i < count; i++) {
		fputc('\n', out);
		print_story(view->list_view, json_object_array_get_idx(list, i), out);
	}
	if (count == 0 && view->nothing)
		fprintf(out, "%s\n", view->nothing);
}

void view_print(const struct view *view, struct json_object *document, FILE *out)
{
	char *line;

	switch (view->kind) {
	case VIEW_LINE:
		line = view_expand(view->columns[0].value, document, NULL);
		if (line)
			fprintf(out, "%s\n", line);
		free(line);
		break;
	case VIEW_RECORD:
		print_record(view, document, out);
		break;
	case VIEW_TABLE:
		print_table(view, document, out);
		break;
	case VIEW_STORY:
		print_story(view, document, out);
		break;
	}
}
