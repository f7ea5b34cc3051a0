/* The daemon: settings, log, one node. */
#include <stdio.h>

#include "lib/base/log.h"
#include "sheep/service/node.h"
#include "sheep/service/settings.h"

#define EXIT_USAGE 64

static int run(const struct settings *settings, struct logger *logger)
{
	struct error err = {0};
	struct node *node;
	int rc = node_open(settings, logger, &node, &err);

	if (rc == 0) {
		rc = node_run(node, &err);
		node_free(node);
	}
	if (rc < 0) {
		fprintf(stderr, "sheep: %s\n", err.text);
		return 1;
	}
	log_info("sheep: stopped");
	return 0;
}

int main(int argc, char **argv)
{
	struct settings settings;
	struct error err = {0};
	int rc = settings_parse(&settings, argc, argv, &err);

	if (rc < 0) {
		fprintf(stderr, "sheep: %s\n", err.text);
		return EXIT_USAGE;
	}
	if (settings.action == SETTINGS_HELP) {
		settings_print_help(stdout);
		rc = 0;
	} else if (settings.action == SETTINGS_VERSION) {
		printf("sheep (sheepfold) %s\n", PACKAGE_VERSION);
		rc = 0;
	} else {
		struct logger logger = {
			.level = settings.log_level,
			.sink = settings.log_format == SETTINGS_LOG_JSON ? log_sink_json
									 : log_sink_text,
		};
		log_set_current(&logger);
		if (settings.is_exposed)
			log_warning("%s is reachable from elsewhere without TLS (--insecure)",
				    settings_exposure(&settings));
		rc = run(&settings, &logger);
		log_set_current(NULL);
	}
	settings_done(&settings);
	return rc;
}
