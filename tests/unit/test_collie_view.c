/* collie/view.h and collie/clean.h: documents as text, whatever is in them. */
#include "collie/view.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "collie/clean.h"
#include "lib/base/size.h"

static const char document[] =
	"{\"name\": \"db\", \"size\": 1610612736, \"none\": null, \"yes\": true, \"ratio\": 0.5,"
	" \"pgs\": {\"total\": 256, \"deep\": {\"er\": 1}},"
	" \"seconds\": [5, 65, 7265], \"stores\": [\"0123456789abcdef\", \"fedcba9876543210\"],"
	" \"opened_by\": [{\"node\": 1}, {\"node\": 3}], \"empty\": [], \"huge\": 18446744073709551615}";

static void expect(const char *template, const char *text)
{
	struct json_object *json = json_tokener_parse(document);
	char *got;

	assert_non_null(json);
	got = view_expand(template, json, NULL);
	assert_string_equal(got, text);
	free(got);
	json_object_put(json);
}

static void test_templates_reach_everything(void **state)
{
	expect("", "");
	expect("plain", "plain");
	expect("{name}", "db");
	expect("<{name}/{size:size}>", "<db/1.5 GiB>");
	expect("{pgs.total} {pgs.deep.er}", "256 1");
	expect("{yes} {ratio}", "yes 0.5");
	expect("{opened_by.node}", "1,3");
	expect("{opened_by:count} {empty:count}", "2 0");
	expect("{stores:short}", "01234567,fedcba98");
	expect("{seconds:time}", "5 s,1 m 5 s,2 h 1 m");
	expect("{huge:size}", "16.0 EiB");
}

static void test_what_is_missing_is_a_dash(void **state)
{
	expect("{nothing} {none} {none:size} {empty} {pgs.nothing} {name.x} {name:count}",
	       "- - - - - - -");
	expect("{stores.x} {opened_by.node.x} {.} {size", "- - - 1610612736");
	/* of the wrong type: shown as it is, never believed */
	expect("{name:size} {name:time} {size:short}", "db db 16106127");
}

static void test_control_characters_do_not_reach_the_terminal(void **state)
{
	char out[64];

	clean_copy(out, sizeof(out), "a\x1b[2Jb\n\x7f", 8);
	assert_string_equal(out, "a?[2Jb??");
	clean_copy(out, sizeof(out), "\xc3\xa4\xff\xc2\x9b\xe2\x82\xac\xe2\x82", 10);
	assert_string_equal(out, "\xc3\xa4???\xe2\x82\xac??");
	/* cut where a character ends */
	assert_int_equal(clean_copy(out, 5, "abc\xc3\xa4", 5), 3);
	assert_string_equal(out, "abc");
	assert_int_equal(clean_copy(out, 6, "abc\xc3\xa4", 5), 5);
	assert_int_equal(clean_copy(out, 1, "abc", 3), 0);
	assert_string_equal(out, "");

	struct json_object *json = json_tokener_parse("{\"name\": \"x\\u001b]0;bad\\u0007\"}");
	char *got = view_expand("{name}", json, NULL);
	assert_string_equal(got, "x?]0;bad?");
	free(got);
	json_object_put(json);
}

static void test_width_is_what_a_terminal_shows(void **state)
{
	assert_int_equal(clean_width(""), 0);
	assert_int_equal(clean_width("abc"), 3);
	assert_int_equal(clean_width("\xc3\xa4\xc3\xb6"), 2);  /* two umlauts */
	assert_int_equal(clean_width("\xe7\xbe\x8a"), 2);      /* a sheep, in Chinese */
	assert_int_equal(clean_width("e\xcc\x81"), 1);	       /* with a combining accent */
	assert_int_equal(clean_width("\xf0\x9f\x90\x91x"), 3); /* a sheep, as an emoji */
}

#define COLUMNS(...) ((const struct column[]){__VA_ARGS__, {0}})

static const struct view table = {
	.kind = VIEW_TABLE,
	.columns = COLUMNS({"NAME", "{name}"}, {"SIZE", "{size:size}", COLUMN_RIGHT},
			   {"LAST", "{last}"}),
};

static void expect_view(const struct view *view, const char *json_text, const char *text)
{
	struct json_object *json = json_tokener_parse(json_text);
	char *got = NULL;
	size_t size;
	FILE *out = open_memstream(&got, &size);

	assert_non_null(json);
	view_print(view, json, out);
	fclose(out);
	assert_string_equal(got, text);
	free(got);
	json_object_put(json);
}

static void test_tables_are_aligned_whatever_is_in_them(void **state)
{
	expect_view(&table, "[]", "NAME  SIZE  LAST\n");
	expect_view(&table,
		    "[{\"name\":\"a\",\"size\":1,\"last\":\"x\"},"
		    "{\"name\":\"a rather long name\",\"size\":1099511627776,\"last\":\"y\"},"
		    "{\"name\":\"\xe7\xbe\x8a\",\"size\":null,\"last\":5},"
		    "{}, null, 7, [1]]",
		    "NAME                 SIZE  LAST\n"
		    "a                     1 B  x\n"
		    "a rather long name  1 TiB  y\n"
		    "\xe7\xbe\x8a                      -  5\n"
		    "-                       -  -\n"
		    "-                       -  -\n"
		    "-                       -  -\n"
		    "-                       -  -\n");
}

static void test_records_hide_what_is_optional(void **state)
{
	const struct view record = {
		.kind = VIEW_RECORD,
		.columns = COLUMNS({"name", "{name}"}, {"parent", "{parent}", COLUMN_OPTIONAL},
				   {"size", "{size:size}", COLUMN_OPTIONAL}),
		.list_path = "rows.all",
		.list_view = &table,
	};

	expect_view(&record, "{\"size\": 2048}",
		    "name    -\n"
		    "size    2 KiB\n");
	expect_view(&record, "{\"name\": \"n\", \"parent\": \"p@s\", \"rows\": {\"all\": []}}",
		    "name    n\n"
		    "parent  p@s\n");
	expect_view(&record, "{\"name\": \"n\", \"rows\": {\"all\": [{\"name\": \"r\"}]}}",
		    "name    n\n"
		    "\n"
		    "NAME  SIZE  LAST\n"
		    "r        -  -\n");
	expect_view(&record, "{\"name\": \"n\", \"rows\": {\"all\": 5}}", "name    n\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_templates_reach_everything),
		cmocka_unit_test(test_what_is_missing_is_a_dash),
		cmocka_unit_test(test_control_characters_do_not_reach_the_terminal),
		cmocka_unit_test(test_width_is_what_a_terminal_shows),
		cmocka_unit_test(test_tables_are_aligned_whatever_is_in_them),
		cmocka_unit_test(test_records_hide_what_is_optional),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
