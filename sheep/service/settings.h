/*
 * What the operator asks of this sheep: its command line, and the file of --config.
 *
 * One table has every setting with its name, kind, help and check; the command line, the
 * file (KEY = VALUE, where KEY is the long option's name) and the help text come from it.
 */
#ifndef SERVICE_SETTINGS_H
#define SERVICE_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "lib/base/err.h"
#include "lib/base/log.h"
#include "lib/loop/loop.h"

#define SETTINGS_LOOPS_MAX 64u
#define SETTINGS_LIST_MAX  64u /* stores, and addresses of one kind */

enum settings_action { SETTINGS_RUN, SETTINGS_HELP, SETTINGS_VERSION };
enum settings_log_format { SETTINGS_LOG_TEXT, SETTINGS_LOG_JSON };

struct settings_list {
	char *items[SETTINGS_LIST_MAX];
	unsigned count;
};

/* All strings are owned here. What is not given has its default, except where it says NULL. */
struct settings {
	unsigned action; /* enum settings_action; the rest is set for SETTINGS_RUN only */
	struct settings_list stores; /* none: a gateway */
	bool is_gateway;
	char *state;   /* directory of a gateway, else NULL */
	char *cluster; /* "local:DIR", "corosync[:CHANNEL]", "zookeeper:HOST:PORT,...[/ROOT]" */
	char *peer;
	struct settings_list nbd;
	struct settings_list admin;
	char *metrics; /* NULL: off */
	char *zone;
	unsigned loops;
	unsigned io;	     /* enum loop_backend_kind */
	uint64_t store_size; /* bytes; 0: 95 % of the free space, at creation */
	char *runtime_dir;   /* NULL: /run/sheepfold, else under /dev/shm */
	bool is_insecure;    /* --insecure was given */
	bool is_exposed;     /* and needed: warn at every start, as settings_exposure() says */
	unsigned log_level;  /* enum log_level */
	unsigned log_format; /* enum settings_log_format */
	char *config;	     /* the file that was read; NULL: none */
	char *tls_dir;	     /* always NULL until TLS exists: it is refused */
};

/*
 * Fill @out from the command line and, where that names one, from a file. Nothing but that file
 * and the host's name and CPUs is looked at. Returns 0, or -E_USAGE (the program shall exit
 * with 64) or -ENOMEM with a text; then @out needs no settings_done().
 */
int settings_parse(struct settings *out, int argc, char **argv, struct error *err);
void settings_done(struct settings *settings);

void settings_print_help(FILE *out);

/* Which address is reachable from elsewhere without TLS; for the warning when is_exposed. */
const char *settings_exposure(const struct settings *settings);

#endif
