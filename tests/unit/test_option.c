/* lib/base/option.h: command lines by table. */
#include "lib/base/option.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/size.h"

struct row {
	struct option_row option;
	int mark;
};

static const struct row rows[] = {
	{{"size", 's', "BYTES", "how large\nit may be"}, 1},
	{{"force", 'f', NULL, "do it"}, 2},
	{{"verbose", 'v', NULL, "say it"}, 3},
	{{"a-rather-long-option", 0, "VALUE", "wraps"}, 4},
};
static const struct row more_rows[] = {
	{{"json", 0, NULL, "for programs"}, 5},
};
static const struct option_table tables[] = {
	OPTION_TABLE(rows, option),
	OPTION_TABLE(more_rows, option),
};

/* Everything that a line says, as text: "1=10 2 +operand ", or "!error". */
static const char *parse(const char *const *argv, size_t table_count)
{
	static char out[1024];
	struct option_scan scan = {.argv = (char **)(uintptr_t)argv, .at = 1};
	FILE *file;

	out[0] = 0; /* nothing written leaves it as it is */
	file = fmemopen(out, sizeof(out), "w");

	while (argv[scan.argc])
		scan.argc++;
	for (;;) {
		const struct option_row *row;
		const char *value;
		struct error err;
		int kind = option_next(&scan, tables, table_count, &row, &value, &err);
		if (kind == OPTION_END)
			break;
		if (kind < 0) {
			assert_int_equal(kind, -E_USAGE);
			fprintf(file, "!%s", err.text);
			break;
		}
		if (kind == OPTION_OPERAND) {
			fprintf(file, "+%s ", value);
			continue;
		}
		fprintf(file, "%d", ((const struct row *)row)->mark);
		if (value)
			fprintf(file, "=%s", value);
		fputc(' ', file);
	}
	fclose(file);
	return out;
}

#define PARSE(...) parse((const char *[]){"prog", ##__VA_ARGS__, NULL}, 2)

static void test_all_forms_are_understood(void **state)
{
	assert_string_equal(PARSE(), "");
	assert_string_equal(PARSE("--size", "10", "x"), "1=10 +x ");
	assert_string_equal(PARSE("--size=10", "--force"), "1=10 2 ");
	assert_string_equal(PARSE("--size=", "-f"), "1= 2 ");
	assert_string_equal(PARSE("-s", "10", "-s10", "-fvs10"), "1=10 1=10 2 3 1=10 ");
	assert_string_equal(PARSE("-fv", "-vs", "-f"), "2 3 3 1=-f ");
	assert_string_equal(PARSE("a", "--json", "-", "b"), "+a 5 +- +b ");
}

static void test_two_dashes_end_the_options(void **state)
{
	assert_string_equal(PARSE("-f", "--", "-f", "--", "--size"), "2 +-f +-- +--size ");
	assert_string_equal(PARSE("--size", "--", "x"), "1=-- +x ");
	assert_string_equal(PARSE("--"), "");
}

static void test_wrong_options_are_named(void **state)
{
	assert_string_equal(PARSE("--nothing"), "!--nothing: no such option");
	assert_string_equal(PARSE("--nothing=5"), "!--nothing: no such option");
	assert_string_equal(PARSE("-fx"), "2 !-x: no such option");
	assert_string_equal(PARSE("--size"), "!--size: BYTES is missing");
	assert_string_equal(PARSE("-s"), "!--size: BYTES is missing");
	assert_string_equal(PARSE("--force=yes"), "!--force: takes no value");
	/* an abbreviation would end to work with the next option */
	assert_string_equal(PARSE("--siz", "1"), "!--siz: no such option");
}

static void test_only_the_given_tables_count(void **state)
{
	assert_string_equal(parse((const char *[]){"prog", "--json", NULL}, 1),
			    "!--json: no such option");
}

static void test_help_is_aligned(void **state)
{
	char *text;
	size_t size;
	FILE *file = open_memstream(&text, &size);

	option_print_help(&tables[0], file);
	fclose(file);
	assert_string_equal(text, "  -s, --size BYTES         how large\n"
				  "                           it may be\n"
				  "  -f, --force              do it\n"
				  "  -v, --verbose            say it\n"
				  "      --a-rather-long-option VALUE wraps\n");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_forms_are_understood),
		cmocka_unit_test(test_two_dashes_end_the_options),
		cmocka_unit_test(test_wrong_options_are_named),
		cmocka_unit_test(test_only_the_given_tables_count),
		cmocka_unit_test(test_help_is_aligned),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
