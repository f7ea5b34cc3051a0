/* Reading the table of commands. */
#include "collie/command.h"

#include <string.h>

#include "lib/base/size.h"
#include "lib/base/text.h"

const struct command *command_find(const char *noun, const char *verb)
{
	for (size_t i = 0; i < command_count; i++)
		if (strcmp(commands[i].noun, noun) == 0 &&
		    (!verb || strcmp(commands[i].verb, verb) == 0))
			return &commands[i];
	return NULL;
}

struct option_table command_options(const struct command *command)
{
	struct option_table table = {&command->options[0].option, 0, sizeof(command->options[0])};

	while (table.count < COMMAND_OPTIONS_MAX && command->options[table.count].option.name)
		table.count++;
	return table;
}

const char *command_synopsis(const struct command *command, char *out, size_t size)
{
	struct text text = text_of(out, size);

	text_append(&text, "%s %s", command->noun, command->verb);
	for (size_t i = 0; i < COMMAND_OPERANDS_MAX && command->operands[i].option.name; i++)
		text_append(&text, command->operands[i].is_optional ? " [%s]" : " %s",
			    command->operands[i].option.name);
	for (size_t i = 0; i < COMMAND_OPTIONS_MAX && command->options[i].option.name; i++) {
		const struct argument *argument = &command->options[i];
		text_append(&text, " [--%s%s%s]%s", argument->option.name,
			    argument->option.value ? " " : "",
			    argument->option.value ? argument->option.value : "",
			    argument->kind == ARGUMENT_PROPERTY ? "..." : "");
	}
	return out;
}

static int bad_argument(const struct argument *argument, struct failure *failure, const char *value,
			const char *wanted)
{
	return failure_set(failure, COLLIE_USAGE, "usage", "%s%s: '%s' is not %s",
			   argument->option.help ? "--" : "", argument->option.name, value, wanted);
}

static int add_property(const struct argument *argument, const char *value,
			struct json_object *arguments, struct failure *failure)
{
	const char *equals = strchr(value, '=');
	struct json_object *properties = NULL;
	char key[128];

	if (!equals || equals == value || (size_t)(equals - value) >= sizeof(key))
		return bad_argument(argument, failure, value, "KEY=VALUE");
	memcpy(key, value, (size_t)(equals - value));
	key[equals - value] = '\0';
	if (!json_object_object_get_ex(arguments, argument->key, &properties)) {
		properties = json_object_new_object();
		json_object_object_add(arguments, argument->key, properties);
	}
	if (json_object_object_get_ex(properties, key, NULL))
		return failure_set(failure, COLLIE_USAGE, "usage", "--%s: '%s' is there twice",
				   argument->option.name, key);
	json_object_object_add(properties, key, json_object_new_string(equals + 1));
	return 0;
}

static bool is_word(const char *const *words, const char *value)
{
	while (*words && strcmp(*words, value) != 0)
		words++;
	return *words;
}

int command_argument(const struct argument *argument, const char *value,
		     struct json_object *arguments, struct failure *failure)
{
	struct json_object *json = NULL;
	uint64_t number;
	int rc;

	switch ((enum argument_kind)argument->kind) {
	case ARGUMENT_TEXT:
		if (!text_is_clean(value, strlen(value)))
			return failure_set(failure, COLLIE_USAGE, "usage", "%s is not clean UTF-8",
					   argument->option.name);
		json = json_object_new_string(value);
		break;
	case ARGUMENT_COUNT:
		if (text_parse_u64(value, INT32_MAX, &number) < 0)
			return bad_argument(argument, failure, value, "a whole number");
		json = json_object_new_uint64(number);
		break;
	case ARGUMENT_SIZE:
		rc = text_parse_size(value, &number);
		if (rc == -ERANGE)
			return failure_set(failure, COLLIE_USAGE, "usage", "%s: '%s' is too large",
					   argument->option.name, value);
		if (rc < 0)
			return bad_argument(argument, failure, value,
					    "a size: bytes, or a number with K M G T P");
		json = json_object_new_uint64(number);
		break;
	case ARGUMENT_FLAG:
		json = json_object_new_boolean(1);
		break;
	case ARGUMENT_WORD:
		if (!is_word(argument->words, value))
			return bad_argument(argument, failure, value, "a known word; see the help");
		json = json_object_new_string(value);
		break;
	case ARGUMENT_PROPERTY:
		return add_property(argument, value, arguments, failure);
	}
	json_object_object_add(arguments, argument->key, json);
	return 0;
}
