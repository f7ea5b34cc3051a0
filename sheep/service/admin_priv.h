/* What the files of the admin service share. */
#ifndef SERVICE_ADMIN_PRIV_H
#define SERVICE_ADMIN_PRIV_H

#include <json-c/json.h>

#include "include/proto/admin.h"
#include "sheep/service/admin.h"
#include "sheep/service/figures.h"
#include "sheep/service/node_priv.h"

/* One request in work. */
struct admin_call {
	struct admin *admin;
	struct node *node;
	struct net_request *request;
	const struct admin_row *row;
	struct json_object *arguments; /* an object; NULL: none were given */
	uint64_t deadline_ns;
	struct proposal proposal;
	/* A change that came before we were registered; NULL: none. */
	struct cluster_command *early;
	void (*early_applied)(struct proposal *proposal, enum proto_status status, const char *text,
			      uint64_t id);
	uint64_t subject;	   /* of a change: the id of what is changed */
	struct cds_list_head link; /* admin.calls */
	/* asking all sheep */
	struct figures_query query;
	void (*then)(struct admin_call *call, const struct figures *figures);
	struct json_object *result; /* an answer that waits for the figures; NULL: none */
	bool has_more;
};

/* An op: `start` answers the call, now or later. */
struct admin_row {
	const char *name;
	void (*start)(struct admin_call *call);
};

/* admin.c */
void admin_answer(struct admin_call *call, struct json_object *result,
		  bool has_more); /* takes @result */
void admin_refuse(struct admin_call *call, enum proto_status status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
struct cluster_map *admin_map(const struct admin_call *call); /* borrowed */
/* Most changes end like this: refused with what the map says (true), or it can go on. */
bool admin_is_refused(struct admin_call *call, enum proto_status status, const char *text);
/* Add a row to a page of a list. False: the page is full. */
bool admin_page_add(struct json_object *page, size_t *size, struct json_object *row);
/* Propose @command (taken) and go on with @applied, or refuse with what the map says. */
void admin_propose(struct admin_call *call, struct cluster_command *command,
		   void (*applied)(struct proposal *proposal, enum proto_status status,
				   const char *text, uint64_t id));
struct admin_call *admin_call_of(struct proposal *proposal);
/* Ask all sheep for their figures, then `then`. */
void admin_gather(struct admin_call *call,
		  void (*then)(struct admin_call *call, const struct figures *figures));
/* The same, with what each store has of @pg. */
void admin_gather_copies(struct admin_call *call, uint32_t pg,
			 void (*then)(struct admin_call *call, const struct figures *figures));
/* The same, with what these layers hold: ascending, PEER_FIGURES_LAYERS_MAX at most, copied. */
void admin_gather_layers(struct admin_call *call, const uint64_t *layers, uint32_t count,
			 void (*then)(struct admin_call *call, const struct figures *figures));
/* Bytes per second that recovery has moved lately, as the questions so far show. */
uint64_t admin_recovery_rate(struct admin_call *call, const struct figures *figures);

/*
 * Arguments. 1 and *@out; 0: missing or null, *@out is untouched; -EINVAL: the wrong type, and the
 * call has been refused.
 */
int admin_text(struct admin_call *call, const char *key, const char **out);
int admin_number(struct admin_call *call, const char *key, uint64_t max, uint64_t *out);
int admin_flag(struct admin_call *call, const char *key, bool *out);

/* The same where it has to be there. NULL, or -EINVAL: the call has been refused. */
const char *admin_required_text(struct admin_call *call, const char *key);
int admin_required_number(struct admin_call *call, const char *key, uint64_t max, uint64_t *out);

/* admin_docs.c: documents from the map. NULL: out of memory. */
struct json_object *doc_cluster(const struct node *node, const struct figures *figures);
struct json_object *doc_recovery(const struct node *node, const struct figures *figures,
				 uint64_t rate);
/* Copies that each node's stores hold and should hold, counted over all PGs at once. */
struct node_use {
	uint32_t seats, targets;
};
struct node_uses {
	struct node_use *list; /* by node id; malloc'ed */
	uint32_t count;
};
int node_uses_count(struct node_uses *uses, const struct cluster_map *map); /* 0 or -ENOMEM */
const struct node_use *node_use(const struct node_uses *uses, uint32_t node);
/* @uses: NULL: not known. */
struct json_object *doc_node(const struct node *node, const struct cluster_node *row,
			     const struct node_uses *uses);
struct json_object *doc_store(const struct node *node, const struct cluster_store *row,
			      const struct figures *figures);
struct json_object *doc_pg(const struct node *node, const struct cluster_pg *row);
/* `used` is null: only the other sheep know it. */
struct json_object *doc_volume(const struct node *node, const struct cluster_volume *row);
/* Bytes, where the figures have them, in the document of a volume. */
void doc_volume_use(struct json_object *doc, const struct node *node,
		    const struct figures *figures);
/* "clean", "recovering", "degraded" or "down" */
const char *pg_status_name(const struct cluster_map *map, const struct cluster_pg *pg);

/* admin_health.c */
void admin_cluster_health(struct admin_call *call);
/* admin_force.c */
void admin_cluster_force(struct admin_call *call);
/* admin_change.c */
/* By its UUID, or the first digits of it (4 at least). NULL: the call has been refused. */
const struct cluster_store *admin_store(struct admin_call *call, const char *text);
void admin_cluster_set(struct admin_call *call);
void admin_cluster_settings(struct admin_call *call);
void admin_node_drain(struct admin_call *call);
void admin_node_undrain(struct admin_call *call);
void admin_node_remove(struct admin_call *call);
void admin_store_set(struct admin_call *call);
void admin_recovery_pause(struct admin_call *call);
void admin_recovery_resume(struct admin_call *call);
void admin_recovery_throttle(struct admin_call *call);
/* admin_vdi.c */
void admin_vdi_create(struct admin_call *call);
void admin_vdi_list(struct admin_call *call);
void admin_vdi_info(struct admin_call *call);
void admin_vdi_delete(struct admin_call *call);
void admin_vdi_rename(struct admin_call *call);
void admin_vdi_resize(struct admin_call *call);
void admin_vdi_set(struct admin_call *call);
/* admin_ops.c */
void admin_answer_recovery(struct admin_call *call, const struct figures *figures);
extern const struct admin_row admin_rows[ADMIN_OP_END];

#endif
