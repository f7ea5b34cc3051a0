/* What a single setting may say; used by the table of settings.c. */
#ifndef SERVICE_SETTINGS_CHECK_H
#define SERVICE_SETTINGS_CHECK_H

#include "include/proto/log.h"
#include "lib/base/err.h"

#define SETTINGS_NAME_MAX (LOG_ZONE_SIZE - 1) /* bytes of a zone's or channel's name */

/* Each: 0, or -E_USAGE with a text that says what is wrong with @value, which is not empty. */
int settings_check_path(const char *value, struct error *err);
int settings_check_name(const char *value, struct error *err);
int settings_check_address(const char *value, struct error *err); /* ADDR:PORT or unix:PATH */
int settings_check_tcp(const char *value, struct error *err);	  /* ADDR:PORT */
int settings_check_peer(const char *value, struct error *err);	  /* that others can dial */
int settings_check_cluster(const char *value, struct error *err);
int settings_check_metrics(const char *value, struct error *err);
int settings_check_tls(const char *value, struct error *err);

#endif
