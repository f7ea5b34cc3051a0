/*
 * Completion for a shell: `collie complete WORD...` prints what could stand in place of the
 * last word. Everything comes from the table of commands; names of things from the sheep, if it
 * answers soon, and silently not if it does not.
 */
#include <string.h>

#include "collie/command.h"
#include "lib/base/size.h"

#define ASK_TIMEOUT_NS NS_PER_S

struct completion {
	struct collie *collie;
	const char *prefix; /* the last word */
	const char *noun;
	const struct command *command;
	unsigned operands;	       /* seen after the verb */
	const struct option_row *open; /* the option whose value the last word is */
};

static void offer(struct completion *completion, const char *word)
{
	if (strncmp(word, completion->prefix, strlen(completion->prefix)) == 0)
		fprintf(completion->collie->io->out, "%s\n", word);
}

static void offer_options(struct completion *completion, const struct option_table *table)
{
	for (size_t i = 0; i < table->count; i++) {
		char word[64];
		snprintf(word, sizeof(word), "--%s", option_at(table, i)->name);
		offer(completion, word);
	}
}

static void offer_nouns(struct completion *completion)
{
	for (size_t i = 0; i < command_count; i++)
		if (i == 0 || strcmp(commands[i].noun, commands[i - 1].noun) != 0)
			offer(completion, commands[i].noun);
	offer(completion, "help");
}

static void offer_verbs(struct completion *completion)
{
	for (size_t i = 0; i < command_count; i++)
		if (strcmp(commands[i].noun, completion->noun) == 0)
			offer(completion, commands[i].verb);
}

/* What the sheep knows of each kind of operand: the rows of a list, by a key of theirs. */
static const struct source {
	enum admin_op op;
	const char *key;
	const char *const *words; /* besides */
	const char *without;	  /* what other sheep would be asked for: nobody reads it here */
} sources[] = {
	[COMPLETE_VOLUME] = {ADMIN_OP_VDI_LIST, "name", NULL, "used"},
	[COMPLETE_NODE] = {ADMIN_OP_NODE_LIST, "id", NULL},
	[COMPLETE_STORE] = {ADMIN_OP_STORE_LIST, "uuid", NULL},
	[COMPLETE_SETTING] = {ADMIN_OP_CLUSTER_SETTINGS, "key", NULL},
	[COMPLETE_PROPERTY] = {0, NULL, (const char *const[]){"access", "durability", NULL}},
};

static void offer_all(struct completion *completion, const char *const *words)
{
	for (; words && *words; words++)
		offer(completion, *words);
}

static void offer_from(struct completion *completion, const struct source *source)
{
	struct collie *collie = completion->collie;
	struct json_object *arguments = NULL, *list = NULL;

	offer_all(completion, source->words);
	collie->timeout_ns = ASK_TIMEOUT_NS;
	if (!source->key)
		return;
	if (source->without) {
		arguments = json_object_new_object();
		json_object_object_add(arguments, source->without, json_object_new_boolean(false));
	}
	int rc = ask(collie, source->op, arguments, &list);
	json_object_put(arguments);
	if (rc != 0)
		return;
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *row = json_object_array_get_idx(list, i);
		const char *name = json_object_get_string(json_object_object_get(row, source->key));
		if (name && !strpbrk(name, " \t\n"))
			offer(completion, name);
	}
	json_object_put(list);
}

static const struct option_row *find_option(const struct completion *completion, const char *name)
{
	const struct option_row *row = option_find(&global_options, name, strlen(name));

	if (!row && completion->command) {
		struct option_table table = command_options(completion->command);
		row = option_find(&table, name, strlen(name));
	}
	return row;
}

/* Take a word in front of the last one. */
static void read_word(struct completion *completion, const char *word)
{
	if (completion->open) {
		if (strcmp(completion->open->name, "sheep") == 0)
			completion->collie->sheep = word;
		completion->open = NULL;
	} else if (word[0] == '-') {
		const struct option_row *row = strcmp(word, "-s") == 0
						       ? find_option(completion, "sheep")
					       : word[1] == '-' ? find_option(completion, word + 2)
								: NULL;
		completion->open = row && row->value ? row : NULL;
	} else if (!completion->noun) {
		completion->noun = word;
	} else if (!completion->command && strcmp(completion->noun, "help") != 0) {
		completion->command = command_find(completion->noun, word);
	} else {
		completion->operands++;
		if (strcmp(completion->noun, "help") == 0)
			completion->noun = word; /* its verbs come next */
	}
}

static void offer_words(struct completion *completion)
{
	const struct argument *options = completion->command ? completion->command->options : NULL;

	for (size_t i = 0; options && i < COMMAND_OPTIONS_MAX && options[i].option.name; i++)
		if (&options[i].option == completion->open)
			offer_all(completion, options[i].words);
}

void complete_print(struct collie *collie, int count, char **words)
{
	struct completion completion = {.collie = collie, .prefix = count ? words[count - 1] : ""};

	for (int i = 0; i + 1 < count; i++)
		read_word(&completion, words[i]);
	if (completion.open) {
		offer_words(&completion);
	} else if (completion.prefix[0] == '-') {
		offer_options(&completion, &global_options);
		if (completion.command) {
			struct option_table table = command_options(completion.command);
			offer_options(&completion, &table);
		}
	} else if (!completion.noun || strcmp(completion.noun, "help") == 0) {
		offer_nouns(&completion);
	} else if (!completion.command) {
		offer_verbs(&completion);
	} else if (completion.operands < COMMAND_OPERANDS_MAX) {
		const struct argument *operand = &completion.command->operands[completion.operands];
		offer_all(&completion, operand->words);
		offer_from(&completion, &sources[operand->complete]);
	}
}
