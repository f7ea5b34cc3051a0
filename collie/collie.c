/*
 * One run: the command line, the command, what it prints, the exit code.
 *
 * Options may stand anywhere; those of a command only after its verb. Errors are one line on
 * standard error, with --json also a document on standard output.
 */
#include "collie/collie.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "collie/command.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "lib/base/text.h"

#define DEFAULT_SHEEP	  "unix:/run/sheepfold/admin.sock"
#define DEFAULT_TIMEOUT_S 60
#define TIMEOUT_MAX_S	  4000000u /* 46 days: the wire has milliseconds in 32 bits */

/* ---- global options ---- */

enum global { GLOBAL_SHEEP, GLOBAL_JSON, GLOBAL_TIMEOUT, GLOBAL_HELP, GLOBAL_VERSION };

static const struct option_row global_rows[] = {
	[GLOBAL_SHEEP] = {"sheep", 's', "SHEEP",
			  "whom to ask: unix:PATH or HOST:PORT (default: $COLLIE_SHEEP,\n"
			  "else " DEFAULT_SHEEP ")"},
	[GLOBAL_JSON] = {"json", 0, NULL, "print one JSON document"},
	[GLOBAL_TIMEOUT] = {"timeout", 0, "SECONDS", "give up after (default: 60)"},
	[GLOBAL_HELP] = {"help", 'h', NULL, "print help"},
	[GLOBAL_VERSION] = {"version", 0, NULL, "print the version"},
};

const struct option_table global_options = {global_rows, ARRAY_COUNT(global_rows),
					    sizeof(global_rows[0])};

/* Seconds with up to three decimals. */
static int parse_timeout(const char *text, uint64_t *out_ns)
{
	char whole[16];
	const char *point = strchrnul(text, '.');
	uint64_t seconds, thousandths = 0, unit = 100;

	if ((size_t)(point - text) >= sizeof(whole) || (*point && !point[1]))
		return -EINVAL;
	memcpy(whole, text, (size_t)(point - text));
	whole[point - text] = '\0';
	if (text_parse_u64(whole, TIMEOUT_MAX_S, &seconds) < 0)
		return -EINVAL;
	for (const char *p = point; *p && *++p; unit /= 10) {
		if (*p < '0' || *p > '9' || unit == 0)
			return -EINVAL;
		thousandths += (uint64_t)(*p - '0') * unit;
	}
	if (seconds == 0 && thousandths == 0)
		return -EINVAL;
	*out_ns = seconds * NS_PER_S + thousandths * NS_PER_MS;
	return 0;
}

/* ---- the command line ---- */

/* What a command line says. */
struct line {
	const char *noun, *verb;
	const char *topic[2]; /* of `help` */
	unsigned operands;
	bool wants_help, wants_version;
	struct json_object *arguments;
};

static int usage(struct collie *collie, const char *why)
{
	char where[64] = "";

	if (collie->command)
		snprintf(where, sizeof(where), " %s %s", collie->command->noun,
			 collie->command->verb);
	return failure_set(&collie->failure, COLLIE_USAGE, "usage", "%s; see `collie help%s`", why,
			   where);
}

static int take_global(struct collie *collie, struct line *line, const struct option_row *row,
		       const char *value)
{
	switch ((enum global)(row - global_rows)) {
	case GLOBAL_SHEEP:
		collie->sheep = value;
		break;
	case GLOBAL_JSON:
		collie->is_json = true;
		break;
	case GLOBAL_TIMEOUT:
		if (parse_timeout(value, &collie->timeout_ns) < 0)
			return failure_set(&collie->failure, COLLIE_USAGE, "usage",
					   "--timeout: '%s' is not a time in seconds above 0, "
					   "%u at most",
					   value, TIMEOUT_MAX_S);
		break;
	case GLOBAL_HELP:
		line->wants_help = true;
		break;
	case GLOBAL_VERSION:
		line->wants_version = true;
		break;
	}
	return 0;
}

static int take_operand(struct collie *collie, struct line *line, const char *value)
{
	if (!line->noun) {
		line->noun = value;
		if (strcmp(value, "help") != 0 && !command_find(value, NULL)) {
			char why[256];
			snprintf(why, sizeof(why), "'%s': no such command", value);
			return usage(collie, why);
		}
		return 0;
	}
	if (strcmp(line->noun, "help") == 0) {
		if (line->operands >= ARRAY_COUNT(line->topic))
			return usage(collie, "'help' takes a noun and a verb");
		line->topic[line->operands++] = value;
		return 0;
	}
	if (!line->verb) {
		line->verb = value;
		collie->command = command_find(line->noun, value);
		if (!collie->command) {
			char why[256];
			snprintf(why, sizeof(why), "'%s %s': no such command", line->noun, value);
			return usage(collie, why);
		}
		return 0;
	}
	const struct argument *operand = &collie->command->operands[line->operands];
	if (line->operands >= COMMAND_OPERANDS_MAX || !operand->option.name) {
		char why[256];
		snprintf(why, sizeof(why), "'%s' is too much", value);
		return usage(collie, why);
	}
	line->operands++;
	return command_argument(operand, value, line->arguments, &collie->failure);
}

static int parse_line(struct collie *collie, struct line *line, int argc, char **argv)
{
	struct option_scan scan = {.argc = argc, .argv = argv, .at = 1};

	for (;;) {
		const struct option_row *row = NULL;
		const char *value = NULL;
		struct error err;
		struct option_table tables[2] = {global_options};
		size_t count = 1;
		if (collie->command)
			tables[count++] = command_options(collie->command);

		int kind = option_next(&scan, tables, count, &row, &value, &err);
		if (kind == OPTION_END)
			return 0;
		int rc;
		if (kind < 0)
			rc = usage(collie, err.text);
		else if (kind == OPTION_OPERAND)
			rc = take_operand(collie, line, value);
		else if (row >= global_rows && row < global_rows + ARRAY_COUNT(global_rows))
			rc = take_global(collie, line, row, value);
		else
			rc = command_argument((const struct argument *)(const void *)row, value,
					      line->arguments, &collie->failure);
		if (rc != 0)
			return rc;
	}
}

/* Is everything there that the command needs? */
static int check_line(struct collie *collie, const struct line *line)
{
	char why[256];

	if (!line->noun)
		return usage(collie, "a command is missing");
	if (!line->verb) {
		struct text text = text_of(why, sizeof(why));
		text_append(&text, "%s: what?", line->noun);
		for (size_t i = 0; i < command_count; i++)
			if (strcmp(commands[i].noun, line->noun) == 0)
				text_append(&text, " %s", commands[i].verb);
		return usage(collie, why);
	}
	const struct argument *next = &collie->command->operands[line->operands];
	if (line->operands < COMMAND_OPERANDS_MAX && next->option.name && !next->is_optional) {
		snprintf(why, sizeof(why), "%s is missing", next->option.name);
		return usage(collie, why);
	}
	return 0;
}

/* ---- running it ---- */

static void print_json(struct json_object *document, FILE *out)
{
	fprintf(out, "%s\n",
		json_object_to_json_string_ext(document, JSON_C_TO_STRING_PRETTY |
								 JSON_C_TO_STRING_SPACED |
								 JSON_C_TO_STRING_NOSLASHESCAPE));
}

static int run_command(struct collie *collie, struct json_object *arguments)
{
	const struct command *command = collie->command;
	struct json_object *document = NULL;
	int rc = command->run ? command->run(collie, arguments, &document)
			      : ask(collie, command->op, arguments, &document);

	progress_clear(collie);
	if (rc != 0)
		return rc;
	if (collie->is_json)
		print_json(document, collie->io->out);
	else
		view_print(command->view, document, collie->io->out);
	json_object_put(document);
	return 0;
}

static int run_line(struct collie *collie, const struct line *line)
{
	if (line->wants_version) {
		fputs("collie " PACKAGE_VERSION "\n", collie->io->out);
		return 0;
	}
	if (line->wants_help)
		return help_topic(collie, line->noun, line->verb);
	if (line->noun && strcmp(line->noun, "help") == 0)
		return help_topic(collie, line->topic[0], line->topic[1]);
	int rc = check_line(collie, line);
	return rc != 0 ? rc : run_command(collie, line->arguments);
}

static void report(const struct collie *collie)
{
	const struct failure *failure = &collie->failure;

	fputs("collie: ", collie->io->err);
	if (collie->command)
		fprintf(collie->io->err, "%s %s: ", collie->command->noun, collie->command->verb);
	fprintf(collie->io->err, "%s\n", failure->text);
	if (!collie->is_json)
		return;
	struct json_object *document = json_object_new_object();
	json_object_object_add(document, "error", json_object_new_string(failure->text));
	json_object_object_add(document, "code", json_object_new_string(failure->code));
	print_json(document, collie->io->out);
	json_object_put(document);
}

/* Was all of it written? A reader that has seen enough and went away is no error. */
static int close_output(const struct collie *collie, int rc)
{
	errno = 0;
	if (fflush(collie->io->out) == 0 && !ferror(collie->io->out))
		return rc;
	if (errno == EPIPE)
		return rc;
	fprintf(collie->io->err, "collie: standard output: %s\n",
		errno ? strerror(errno) : "write error");
	return rc != 0 ? rc : COLLIE_UNREACHABLE;
}

/* --json counts wherever it stands, also behind what is wrong. */
static bool has_json(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--json") == 0)
			return true;
	return false;
}

/* Connections that come and go are told by the failure, once. */
static void drop_line(struct logger *logger, enum log_level level, const char *line)
{
}

int collie_run(int argc, char **argv, const struct collie_io *io)
{
	struct logger quiet = {.sink = drop_line}, *before = log_set_current(&quiet);
	struct collie collie = {
		.io = io,
		.sheep = io->sheep && *io->sheep ? io->sheep : DEFAULT_SHEEP,
		.is_json = has_json(argc, argv),
		.timeout_ns = DEFAULT_TIMEOUT_S * NS_PER_S,
	};
	struct line line = {0};
	int rc;

	line.arguments = json_object_new_object();
	if (argc > 1 && strcmp(argv[1], "complete") == 0) {
		complete_print(&collie, argc - 2, argv + 2);
		rc = COLLIE_DONE;
	} else {
		rc = parse_line(&collie, &line, argc, argv);
		if (rc == 0)
			rc = run_line(&collie, &line);
		if (rc != 0)
			report(&collie);
	}
	json_object_put(line.arguments);
	call_free(collie.call);
	(void)log_set_current(before);
	return close_output(&collie, rc);
}
