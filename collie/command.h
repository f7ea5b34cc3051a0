/*
 * The table of commands. A row is all there is to know of a command: what it takes, what it asks
 * the sheep, how the answer is shown; help, completion and the parser read it.
 */
#ifndef COLLIE_COMMAND_H
#define COLLIE_COMMAND_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#include "collie/call.h"
#include "collie/collie.h"
#include "collie/failure.h"
#include "collie/view.h"
#include "include/proto/admin.h"
#include "lib/base/option.h"

#define COMMAND_OPERANDS_MAX 4
#define COMMAND_OPTIONS_MAX  8

enum argument_kind {
	ARGUMENT_TEXT,	   /* a string */
	ARGUMENT_COUNT,	   /* a whole number */
	ARGUMENT_SIZE,	   /* bytes, or with K M G T P */
	ARGUMENT_FLAG,	   /* true */
	ARGUMENT_WORD,	   /* one of words */
	ARGUMENT_PROPERTY, /* KEY=VALUE, repeatable: an object of them */
};

enum argument_complete {
	COMPLETE_NOTHING,
	COMPLETE_VOLUME,
	COMPLETE_NODE,
	COMPLETE_STORE,
	COMPLETE_SETTING,
	COMPLETE_PROPERTY,
};

/* An operand (option.name as the help shows it) or an option. */
struct argument {
	struct option_row option; /* name NULL ends the list */
	uint8_t kind;		  /* enum argument_kind */
	uint8_t complete;	  /* enum argument_complete */
	bool is_optional;	  /* an operand, the last one, that may be left out */
	const char *key;	  /* in the JSON object of arguments */
	const char *const *words; /* NULL-terminated */
};

/* One run of collie. */
struct collie {
	const struct collie_io *io;
	const struct command *command; /* NULL: not known yet */
	const char *sheep;
	bool is_json;
	uint64_t timeout_ns;
	uint64_t deadline_ns; /* set with the first contact */
	struct call *call;    /* NULL until then */
	bool has_progress;    /* a line of it stands on the terminal */
	struct failure failure;
};

struct command {
	const char *noun, *verb;
	const char *help; /* a line */
	const char *more; /* paragraphs for `collie help NOUN VERB` */
	enum admin_op op;
	struct argument operands[COMMAND_OPERANDS_MAX];
	struct argument options[COMMAND_OPTIONS_MAX];
	const struct view *view;
	/* NULL: ask() with op and arguments. Else does it; 0 and a document, or an exit code. */
	int (*run)(struct collie *collie, struct json_object *arguments, struct json_object **out);
};

extern const struct command commands[];
extern const size_t command_count;

/* NULL: there is none. @verb NULL: the first of the noun. */
const struct command *command_find(const char *noun, const char *verb);
/* The row's options, for option_next(). */
struct option_table command_options(const struct command *command);
/* "vdi create NAME SIZE [--set KEY=VALUE]...", in @out. Returns @out. */
const char *command_synopsis(const struct command *command, char *out, size_t size);
/* Put @value into @arguments as the row says. 0, or an exit code and a failure. */
int command_argument(const struct argument *argument, const char *value,
		     struct json_object *arguments, struct failure *failure);

/* ---- ask.c ---- */

/*
 * Ask the sheep: one whole document, lists put together from their pages. Connects when needed. 0,
 * or an exit code and collie->failure. @arguments: borrowed; NULL: none.
 */
int ask(struct collie *collie, enum admin_op op, struct json_object *arguments,
	struct json_object **out);
/* Connect (without dialling yet) and start the clock, if that has not been done. */
int ask_prepare(struct collie *collie);

/* ---- wait.c ---- */

extern const char *const wait_statuses[]; /* of `cluster info` */
int wait_cluster(struct collie *collie, struct json_object *arguments, struct json_object **out);
/* Format, after waiting for --wait-nodes. */
int wait_format(struct collie *collie, struct json_object *arguments, struct json_object **out);
void progress_show(struct collie *collie, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void progress_clear(struct collie *collie);

/* ---- help.c, complete.c ---- */

extern const struct option_table global_options;

void help_print(FILE *out);
/* `collie help NOUN [VERB]`; 0 or an exit code. */
int help_topic(struct collie *collie, const char *noun, const char *verb);
/* What could come for the last of @words, one a line. */
void complete_print(struct collie *collie, int count, char **words);

#endif
