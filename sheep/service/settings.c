/*
 * Settings: the table, and what turns a command line and a file into struct settings.
 *
 * The command line is read first and marks the rows that it set; the file then sets
 * only others, so that the command line wins as a whole: one --nbd there replaces every
 * nbd line of the file. Defaults that depend on other settings come last.
 */
#include "sheep/service/settings.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/option.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "sheep/service/settings_check.h"

#define FILE_MAX (64u << 10) /* bytes of a settings file */

enum setting_kind {
	SETTING_TEXT,	/* char * */
	SETTING_LIST,	/* struct settings_list, one item per mention */
	SETTING_FLAG,	/* bool */
	SETTING_NUMBER, /* unsigned, min..max */
	SETTING_SIZE,	/* uint64_t, at least min */
	SETTING_WORD,	/* unsigned: the index in words */
	SETTING_ACTION, /* --help and the like: words does not matter, max is the action */
};

struct setting {
	struct option_row option;
	uint8_t kind; /* enum setting_kind */
	bool is_line_only;
	uint16_t offset; /* in struct settings */
	uint64_t min, max;
	const char *const *words; /* NULL-terminated */
	/* Is the text good? 0, or -E_USAGE with a text that says what is wrong with it. */
	int (*check)(const char *value, struct error *err);
};

/* ---- the table ---- */

static const char *const io_words[] = {"auto", "uring", "epoll", NULL};
static const char *const level_words[] = {"error", "warning", "info", "debug", NULL};
static const char *const format_words[] = {"text", "json", NULL};

_Static_assert(LOOP_BACKEND_AUTO == 0 && LOOP_BACKEND_URING == 1 && LOOP_BACKEND_EPOLL == 2,
	       "io_words is in the order of enum loop_backend_kind");
_Static_assert(LOG_LEVEL_ERROR == 0 && LOG_LEVEL_DEBUG == 3,
	       "level_words is in the order of enum log_level");

/* A row: what struct setting holds beyond these is given as initialisers. */
#define ROW(kind_, member, name, letter, value, help, ...)                      \
	{                                                                       \
		.option = {name, letter, value, help}, .kind = SETTING_##kind_, \
		.offset = offsetof(struct settings, member), __VA_ARGS__        \
	}

static const struct setting rows[] = {
	ROW(TEXT, cluster, "cluster", 'c', "ENGINE",
	    "where the cluster's log is kept (required):\n"
	    "local:DIR                 many sheep on one machine\n"
	    "corosync[:CHANNEL]        the corosync of this host\n"
	    "zookeeper:HOST:PORT[,HOST:PORT]...[/ROOT]",
	    .check = settings_check_cluster),
	ROW(TEXT, peer, "peer", 'p', "ADDR:PORT",
	    "where other sheep reach this one (default: 127.0.0.1:7000)",
	    .check = settings_check_peer),
	ROW(LIST, nbd, "nbd", 'n', "ADDRESS",
	    "serve NBD at ADDR:PORT or unix:PATH; repeatable\n(default: 127.0.0.1:10809)",
	    .check = settings_check_address),
	ROW(LIST, admin, "admin", 'a', "ADDRESS",
	    "serve collie at unix:PATH or ADDR:PORT; repeatable\n"
	    "(default: unix:FIRST-STORE/admin.sock)",
	    .check = settings_check_address),
	ROW(TEXT, metrics, "metrics", 'm', "ADDR:PORT",
	    "serve Prometheus text over HTTP (not in this version yet)",
	    .check = settings_check_metrics),
	ROW(TEXT, zone, "zone", 'z', "NAME", "failure domain (default: the host's name)",
	    .check = settings_check_name),
	ROW(NUMBER, loops, "loops", 0, "N",
	    "event loops, one thread each, 1 to 64\n(default: a quarter of the CPUs, 1 to 8)",
	    .min = 1, .max = SETTINGS_LOOPS_MAX),
	ROW(WORD, io, "io", 0, "BACKEND", "auto, uring or epoll (default: auto)",
	    .words = io_words),
	ROW(SIZE, store_size, "store-size", 0, "BYTES",
	    "of a store at its creation; also with K M G T P\n"
	    "(default: 95 % of the free space, used as needed)",
	    .min = 1),
	ROW(TEXT, runtime_dir, "runtime-dir", 0, "DIR",
	    "on tmpfs (default: /run/sheepfold, else under /dev/shm)",
	    .check = settings_check_path),
	ROW(FLAG, is_gateway, "gateway", 0, NULL, "have no store: serve NBD, keep no data"),
	ROW(TEXT, state, "state", 0, "DIR", "what a gateway has to remember",
	    .check = settings_check_path),
	ROW(FLAG, is_insecure, "insecure", 0, NULL,
	    "allow -p and -a beyond loopback without --tls-dir"),
	ROW(TEXT, tls_dir, "tls-dir", 0, "DIR", "certificates or PSK (not in this version yet)",
	    .check = settings_check_tls),
	ROW(WORD, log_level, "log-level", 0, "LEVEL",
	    "error, warning, info or debug (default: info)", .words = level_words),
	ROW(WORD, log_format, "log-format", 0, "FORMAT", "text or json (default: text)",
	    .words = format_words),
	ROW(TEXT, config, "config", 0, "FILE",
	    "more settings: lines KEY = VALUE, with the names above\n"
	    "without dashes, and `store`; the command line wins",
	    .check = settings_check_path, .is_line_only = true),
	ROW(ACTION, action, "version", 0, NULL, "print the version", .max = SETTINGS_VERSION,
	    .is_line_only = true),
	ROW(ACTION, action, "help", 'h', NULL, "print this", .max = SETTINGS_HELP,
	    .is_line_only = true),
	/* STORE of the command line; an option of that name does not exist */
	ROW(LIST, stores, "store", 0, "DIR", "", .check = settings_check_path),
};

#undef ROW

#define ROW_COUNT ARRAY_COUNT(rows)
#define STORE_ROW (ROW_COUNT - 1)
_Static_assert(ARRAY_COUNT(rows) <= 32, "one bit per row");

static const struct option_table line_table = {&rows[0].option, STORE_ROW, sizeof(rows[0])};
static const struct option_table file_table = {&rows[0].option, ROW_COUNT, sizeof(rows[0])};

/* ---- one setting ---- */

/* Take the text for @row. The error's text does not name the row yet. */
static int set_text(char **to, const char *value, struct error *err)
{
	char *copy = strdup(value);

	if (!copy)
		return error_set(err, -ENOMEM, "no memory");
	free(*to);
	*to = copy;
	return 0;
}

static int add_item(struct settings_list *list, const char *value, struct error *err)
{
	if (list->count == SETTINGS_LIST_MAX)
		return error_set(err, -E_USAGE, "more than %u of them", SETTINGS_LIST_MAX);
	for (unsigned i = 0; i < list->count; i++)
		if (strcmp(list->items[i], value) == 0)
			return error_set(err, -E_USAGE, "'%s' is there twice", value);
	int rc = set_text(&list->items[list->count], value, err);
	if (rc == 0)
		list->count++;
	return rc;
}

static int parse_flag(const char *value, bool *out, struct error *err)
{
	static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};

	for (unsigned i = 0; i < ARRAY_COUNT(words); i++) {
		if (!value || strcmp(value, words[i]) == 0) {
			*out = !value || i % 2;
			return 0;
		}
	}
	return error_set(err, -E_USAGE, "'%s' is neither yes nor no", value);
}

static int parse_number(const struct setting *row, const char *value, unsigned *out,
			struct error *err)
{
	uint64_t number;

	if (text_parse_u64(value, row->max, &number) < 0 || number < row->min)
		return error_set(err, -E_USAGE, "'%s' is not a number from %llu to %llu", value,
				 (unsigned long long)row->min, (unsigned long long)row->max);
	*out = (unsigned)number;
	return 0;
}

static int parse_size(const struct setting *row, const char *value, uint64_t *out,
		      struct error *err)
{
	uint64_t size;
	int rc = text_parse_size(value, &size);

	if (rc == -ERANGE)
		return error_set(err, -E_USAGE, "'%s' is too large", value);
	if (rc < 0 || size < row->min)
		return error_set(err, -E_USAGE,
				 "'%s' is not a size: bytes, or a number with K M G T P", value);
	*out = size;
	return 0;
}

static int parse_word(const struct setting *row, const char *value, unsigned *out,
		      struct error *err)
{
	char list[64];
	struct text text = text_of(list, sizeof(list));

	for (unsigned i = 0; row->words[i]; i++) {
		if (strcmp(row->words[i], value) == 0) {
			*out = i;
			return 0;
		}
		text_append(&text, "%s%s", i ? ", " : "", row->words[i]);
	}
	return error_set(err, -E_USAGE, "'%s' is none of %s", value, list);
}

/* @value: NULL for a flag without one. */
static int set_row(struct settings *settings, const struct setting *row, const char *value,
		   struct error *err)
{
	void *at = (char *)settings + row->offset;
	int rc;

	if (value && !*value)
		return error_set(err, -E_USAGE, "the value is empty");
	if (row->check) {
		rc = row->check(value, err);
		if (rc < 0)
			return rc;
	}
	switch ((enum setting_kind)row->kind) {
	case SETTING_TEXT:
		return set_text(at, value, err);
	case SETTING_LIST:
		return add_item(at, value, err);
	case SETTING_FLAG:
		return parse_flag(value, at, err);
	case SETTING_NUMBER:
		return parse_number(row, value, at, err);
	case SETTING_SIZE:
		return parse_size(row, value, at, err);
	case SETTING_WORD:
		return parse_word(row, value, at, err);
	case SETTING_ACTION:
		*(unsigned *)at = (unsigned)row->max;
		return 0;
	}
	return -E_USAGE;
}

/* ---- the command line ---- */

static int parse_line(struct settings *settings, int argc, char **argv, uint32_t *set,
		      struct error *err)
{
	struct option_scan scan = {.argc = argc, .argv = argv, .at = 1};

	for (;;) {
		const struct option_row *option;
		const char *value;
		int rc = option_next(&scan, &line_table, 1, &option, &value, err);
		if (rc <= OPTION_END)
			return rc;
		const struct setting *row = rc == OPTION_OPERAND
						    ? &rows[STORE_ROW]
						    : (const struct setting *)(const void *)option;
		rc = set_row(settings, row, value, err);
		if (rc < 0)
			return error_wrap(err, rc, "%s%s", row == &rows[STORE_ROW] ? "" : "--",
					  row->option.name);
		*set |= BIT(row - rows);
		if (row->kind == SETTING_ACTION)
			return 0;
	}
}

/* ---- the file ---- */

static char *trim(char *text)
{
	char *end = text + strlen(text);

	while (end > text && strchr(" \t\r", end[-1]))
		*--end = '\0';
	return text + strspn(text, " \t");
}

/* Where the reader of the file is. */
struct file_reader {
	struct settings *settings;
	uint32_t set_by_line;	      /* rows that the command line has set */
	unsigned lines_of[ROW_COUNT]; /* the line that set a row; 0: none */
	unsigned line;
};

static int parse_file_line(struct file_reader *reader, char *text, struct error *err)
{
	char *key = trim(text);

	if (!*key || *key == '#')
		return 0;
	char *equals = strchr(key, '=');
	if (!equals)
		return error_set(err, -E_USAGE, "'%s' is not KEY = VALUE", key);
	*equals = '\0';
	key = trim(key);
	char *value = trim(equals + 1);

	const struct setting *row =
		(const struct setting *)(const void *)option_find(&file_table, key, strlen(key));
	if (!row)
		return error_set(err, -E_USAGE, "'%s': no such setting", key);
	if (row->is_line_only)
		return error_set(err, -E_USAGE, "'%s' belongs on the command line", key);

	size_t index = (size_t)(row - rows);
	if (reader->lines_of[index] && row->kind != SETTING_LIST)
		return error_set(err, -E_USAGE, "%s: set in line %u already", key,
				 reader->lines_of[index]);
	reader->lines_of[index] = reader->line;

	/* A line that loses must be right too: else it breaks when the option goes. */
	struct settings unused = {0};
	bool loses = reader->set_by_line & BIT(index);
	int rc = set_row(loses ? &unused : reader->settings, row, value, err);
	settings_done(&unused);
	return rc < 0 ? error_wrap(err, rc, "%s", key) : 0;
}

static int read_file(const char *path, char **out, struct error *err)
{
	FILE *file = fopen(path, "re");
	char *data = NULL;
	size_t size = 0;
	int rc = 0;

	if (!file)
		return error_set(err, -E_USAGE, "%s", err_text(errno));
	data = malloc(FILE_MAX + 2);
	if (!data)
		rc = error_set(err, -ENOMEM, "no memory");
	else
		size = fread(data, 1, FILE_MAX + 1, file);
	if (rc == 0 && ferror(file))
		rc = error_set(err, -E_USAGE, "%s", err_text(errno));
	else if (rc == 0 && size > FILE_MAX)
		rc = error_set(err, -E_USAGE, "more than %u bytes", FILE_MAX);
	else if (rc == 0 && memchr(data, '\0', size))
		rc = error_set(err, -E_USAGE, "not a text file");
	(void)fclose(file);
	if (rc < 0) {
		free(data);
		return rc;
	}
	data[size] = '\0';
	*out = data;
	return 0;
}

static int parse_file(struct settings *settings, uint32_t set_by_line, struct error *err)
{
	struct file_reader reader = {.settings = settings, .set_by_line = set_by_line};
	char *data = NULL;
	int rc = read_file(settings->config, &data, err);

	if (rc < 0)
		return error_wrap(err, rc, "%s", settings->config);
	for (char *next = data; rc == 0 && next;) {
		char *line = strsep(&next, "\n");
		reader.line++;
		rc = parse_file_line(&reader, line, err);
	}
	free(data);
	return rc < 0 ? error_wrap(err, rc, "%s: line %u", settings->config, reader.line) : 0;
}

/* ---- all together ---- */

static unsigned default_loops(void)
{
	cpu_set_t cpus;
	unsigned count = 4;

	if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
		count = (unsigned)CPU_COUNT(&cpus);
	return max_of(1u, min_of(8u, count / 4));
}

static int default_admin(struct settings *settings, struct error *err)
{
	const char *dir = settings->is_gateway ? settings->state : settings->stores.items[0];
	size_t length = strlen(dir);
	char *address;

	while (length > 1 && dir[length - 1] == '/')
		length--;
	if (asprintf(&address, "unix:%.*s%sadmin.sock", (int)length, dir,
		     dir[length - 1] == '/' ? "" : "/") < 0)
		return error_set(err, -ENOMEM, "no memory");
	int rc = settings_check_address(address, err);
	if (rc == 0)
		rc = add_item(&settings->admin, address, err);
	free(address);
	return rc < 0 ? error_wrap(err, rc, "--admin is not given, and its default is not possible")
		      : 0;
}

static int default_zone(struct settings *settings, struct error *err)
{
	char name[SETTINGS_NAME_MAX + 1];

	memset(name, 0, sizeof(name));
	(void)gethostname(name, SETTINGS_NAME_MAX); /* a longer one is cut */
	if (!*name || !text_is_clean(name, strlen(name)))
		return error_set(err, -E_USAGE, "--zone is needed: this host has no good name");
	return set_text(&settings->zone, name, err);
}

static int set_defaults(struct settings *settings, struct error *err)
{
	int rc = 0;

	if (!settings->loops)
		settings->loops = default_loops();
	if (!settings->peer)
		rc = set_text(&settings->peer, "127.0.0.1:7000", err);
	if (rc == 0 && settings->nbd.count == 0)
		rc = add_item(&settings->nbd, "127.0.0.1:10809", err);
	if (rc == 0 && !settings->zone)
		rc = default_zone(settings, err);
	if (rc == 0 && settings->admin.count == 0)
		rc = default_admin(settings, err);
	return rc;
}

const char *settings_exposure(const struct settings *settings)
{
	if (settings->peer && !loop_address_is_loopback(settings->peer))
		return settings->peer;
	for (unsigned i = 0; i < settings->admin.count; i++)
		if (!loop_address_is_loopback(settings->admin.items[i]))
			return settings->admin.items[i];
	return NULL;
}

/* What can only be said when everything is known. */
static int check_together(struct settings *settings, struct error *err)
{
	if (!settings->cluster)
		return error_set(err, -E_USAGE,
				 "--cluster is needed: local:DIR, corosync[:CHANNEL] or "
				 "zookeeper:HOST:PORT[,HOST:PORT]...[/ROOT]");
	if (settings->is_gateway && settings->stores.count > 0)
		return error_set(err, -E_USAGE, "--gateway and store '%s' exclude each other",
				 settings->stores.items[0]);
	if (settings->is_gateway && !settings->state)
		return error_set(err, -E_USAGE, "--gateway needs --state DIR");
	if (!settings->is_gateway && settings->state)
		return error_set(err, -E_USAGE, "--state is for --gateway only");
	if (!settings->is_gateway && settings->stores.count == 0)
		return error_set(err, -E_USAGE,
				 "a STORE is needed: the directory of a disk (or --gateway)");

	const char *exposed = settings_exposure(settings);
	if (exposed && !settings->tls_dir && !settings->is_insecure)
		return error_set(err, -E_USAGE,
				 "%s: whoever reaches this address could read and change all "
				 "data: it needs --tls-dir, or --insecure on a network you trust",
				 exposed);
	settings->is_exposed = exposed && !settings->tls_dir;
	return 0;
}

int settings_parse(struct settings *out, int argc, char **argv, struct error *err)
{
	struct settings settings = {.log_level = LOG_LEVEL_INFO};
	uint32_t set = 0;
	int rc = parse_line(&settings, argc, argv, &set, err);

	if (rc == 0 && settings.action == SETTINGS_RUN) {
		if (settings.config)
			rc = parse_file(&settings, set, err);
		if (rc == 0)
			rc = check_together(&settings, err);
		if (rc == 0)
			rc = set_defaults(&settings, err);
	}
	if (rc < 0) {
		settings_done(&settings);
		return rc;
	}
	*out = settings;
	return 0;
}

void settings_done(struct settings *settings)
{
	for (size_t i = 0; i < ROW_COUNT; i++) {
		void *at = (char *)settings + rows[i].offset;
		if (rows[i].kind == SETTING_TEXT) {
			free(*(char **)at);
			*(char **)at = NULL;
		}
		if (rows[i].kind == SETTING_LIST) {
			struct settings_list *list = at;
			while (list->count > 0) {
				free(list->items[--list->count]);
				list->items[list->count] = NULL;
			}
		}
	}
}

void settings_print_help(FILE *out)
{
	fputs("Usage: sheep [OPTION]... STORE...\n"
	      "       sheep [OPTION]... --gateway --state DIR\n"
	      "Serve volumes over NBD, and keep their data with other sheep. Each STORE is a "
	      "directory\non a disk of its own; an empty one is initialised.\n\n",
	      out);
	option_print_help(&line_table, out);
}
