/* What the two files of `cluster health` share. */
#ifndef SERVICE_HEALTH_H
#define SERVICE_HEALTH_H

#include "sheep/service/admin_priv.h"

enum health_severity { HEALTH_ERROR, HEALTH_WARNING, HEALTH_NOTE, HEALTH_SEVERITIES };

struct health {
	const struct node *node;
	const struct cluster_map *map;
	const struct figures *figures;
	struct cluster_summary summary;
	struct json_object *problems[HEALTH_SEVERITIES]; /* lists */
	struct node_uses uses;
};

/* Add a problem: what is wrong. It belongs to the report. */
struct json_object *health_add(struct health *health, enum health_severity severity,
			       const char *format, ...) __attribute__((format(printf, 3, 4)));
void health_means(struct json_object *problem, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void health_do(struct json_object *problem, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void health_name_store(struct json_object *problem, const struct cluster_store *store);

#define HEALTH_SPAN_MAX 32
const char *health_span(uint64_t ns, char out[HEALTH_SPAN_MAX]); /* "5 min" */

/* health_pgs.c */
void health_say_pgs(struct health *health);

#endif
