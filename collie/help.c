/* Help, from the table of commands. */
#include <string.h>

#include "collie/command.h"
#include "lib/base/size.h"

void help_print(FILE *out)
{
	fputs("Usage: collie [-s SHEEP] [--json] [--timeout SECONDS] NOUN VERB [ARG]...\n"
	      "       collie help [NOUN [VERB]]\n"
	      "Look at and change a sheepfold cluster, through any of its sheep.\n\n",
	      out);
	for (size_t i = 0; i < command_count; i++)
		fprintf(out, "  %-8s %-13s %s\n", commands[i].noun, commands[i].verb,
			commands[i].help);
	fputc('\n', out);
	option_print_help(&global_options, out);
	fputs("\nExit: 0 done; 1 refused or failed; 2 sheep unreachable, or system error; 3 exists\n"
	      "already; 4 no space; 5 no such thing; 6 busy, or timed out; 64 usage.\n",
	      out);
}

static void print_command(const struct command *command, FILE *out)
{
	char synopsis[256];
	struct option_table options = command_options(command);

	fprintf(out, "Usage: collie %s\n", command_synopsis(command, synopsis, sizeof(synopsis)));
	fprintf(out, "%c%s.\n", command->help[0] - 'a' + 'A', command->help + 1);
	if (command->more)
		fprintf(out, "\n%s\n", command->more);
	if (options.count > 0) {
		fputc('\n', out);
		option_print_help(&options, out);
	}
}

int help_topic(struct collie *collie, const char *noun, const char *verb)
{
	FILE *out = collie->io->out;

	if (!noun) {
		help_print(out);
		return 0;
	}
	if (!command_find(noun, verb))
		return failure_set(&collie->failure, COLLIE_USAGE, "usage",
				   "%s%s%s: no such command; see `collie help`", noun,
				   verb ? " " : "", verb ? verb : "");
	if (verb) {
		print_command(command_find(noun, verb), out);
		return 0;
	}
	for (size_t i = 0; i < command_count; i++) {
		char synopsis[256];
		if (strcmp(commands[i].noun, noun) != 0)
			continue;
		fprintf(out, "collie %s\n        %s\n",
			command_synopsis(&commands[i], synopsis, sizeof(synopsis)),
			commands[i].help);
	}
	return 0;
}
