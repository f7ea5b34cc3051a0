/*
 * The map from inside: the tries it is made of, and how one command edits its copy.
 */
#ifndef CLUSTER_CLUSTER_PRIV_H
#define CLUSTER_CLUSTER_PRIV_H

#include "sheep/cluster/cluster.h"
#include "sheep/cluster/trie.h"

/* X(name): all tries of a map */
#define MAP_TRIES(X)                                                          \
	X(nodes)       /* id -> struct node_item */                           \
	X(stores)      /* id -> struct store_item */                          \
	X(pgs)	       /* id -> struct pg_item */                             \
	X(volumes)     /* id -> struct volume_item */                         \
	X(node_uuids)  /* hash of UUID -> struct bucket_item of node ids */   \
	X(store_uuids) /* hash of UUID -> struct bucket_item of store ids */  \
	X(sessions)    /* session -> struct bucket_item of one node id */     \
	X(names)       /* hash of name -> struct bucket_item of volume ids */ \
	X(layers)      /* layer -> struct bucket_item of the volumes that need it */

struct cluster_map {
	uint32_t refs;
	uint32_t level;
	uint64_t index;
	struct uuid uuid;
	uint32_t next_node, next_store; /* ids to give out */
	uint64_t next_id;		/* of volumes and layers */
	uint64_t shutdown;		/* log index of the last SHUTDOWN; 0: none */
	uint64_t garbage_index;		/* not in the image: whoever installs one looks anyway */
	uint32_t policy_count;
	struct cluster_policy policies[CLUSTER_POLICIES_MAX];
	uint64_t settings[CLUSTER_SETTING_COUNT];
#define MAP_TRIE(name) struct trie name;
	MAP_TRIES(MAP_TRIE)
#undef MAP_TRIE
};

struct node_item {
	struct trie_item item;
	struct cluster_node node;
};

struct store_item {
	struct trie_item item;
	struct cluster_store store;
};

struct pg_item {
	struct trie_item item;
	struct cluster_pg pg;
};

/* The three lists are blocks of their own; a NULL list is an empty one. */
struct volume_item {
	struct trie_item item;
	struct cluster_volume volume;
};

/* Ids with one key: more than one only where a hash collides, or a layer is shared. */
struct bucket_item {
	struct trie_item item;
	uint32_t count;
	uint64_t ids[];
};

/* A new map that shares everything with @map; NULL: no memory. */
struct cluster_map *map_clone(const struct cluster_map *map);

/* ---- editing: the copy that a command works on ---- */

struct cluster_edit {
	struct cluster_map *map; /* new; nobody else has it */
	struct cluster_result *result;
	uint64_t index;
	uint32_t node;	/* proposer; 0: not registered */
	bool no_memory; /* something failed: the edit is thrown away */
	/* While a node is registered anew: it, and the incarnation it had before. */
	uint32_t restarted_node;
	uint64_t restarted_incarnation;
};

/*
 * The thing itself, to be changed; it gets into the delta. It must exist. NULL: no
 * memory, and the edit has failed.
 */
struct cluster_node *edit_node(struct cluster_edit *edit, uint32_t id);
struct cluster_store *edit_store(struct cluster_edit *edit, uint32_t id);
struct cluster_pg *edit_pg(struct cluster_edit *edit, uint32_t id);
struct cluster_volume *edit_volume(struct cluster_edit *edit, uint64_t id);

/* New ones, zeroed but for the id, in the delta too. */
struct cluster_node *edit_add_node(struct cluster_edit *edit, uint32_t id, const struct uuid *uuid);
struct cluster_store *edit_add_store(struct cluster_edit *edit, uint32_t id,
				     const struct uuid *uuid);
struct cluster_pg *edit_add_pg(struct cluster_edit *edit, uint32_t id);
struct cluster_volume *edit_add_volume(struct cluster_edit *edit, uint64_t id);

void edit_remove_node(struct cluster_edit *edit, uint32_t id);
void edit_remove_store(struct cluster_edit *edit, uint32_t id);
void edit_remove_volume(struct cluster_edit *edit, uint64_t id);

/* Lists and names are changed by these only: they keep what finds the volume in step. */
void edit_volume_name(struct cluster_edit *edit, struct cluster_volume *volume, const char *name);
void edit_volume_layers(struct cluster_edit *edit, struct cluster_volume *volume,
			const uint64_t *layers, uint32_t count);
void edit_volume_openers(struct cluster_edit *edit, struct cluster_volume *volume,
			 const struct cluster_opener *openers, uint32_t count);
void edit_volume_properties(struct cluster_edit *edit, struct cluster_volume *volume,
			    const struct cluster_property *properties, uint32_t count);
/* The session of a node: 0 ends it. */
void edit_node_session(struct cluster_edit *edit, struct cluster_node *node, uint64_t session);

/* Remember that @node's command @sequence was applied; not in the delta. */
void edit_node_applied(struct cluster_edit *edit, uint32_t node, uint64_t sequence);
bool node_has_applied(const struct cluster_node *node, uint64_t sequence);

/* ---- the apply functions, by file ---- */

struct log_body {
	const struct log_command *header;
	const void *body;
	const void *rows;
	uint32_t row_count;
};

/* Fill result->text; returns @status. */
enum proto_status refuse(struct cluster_edit *edit, enum proto_status status, const char *format,
			 ...) __attribute__((format(printf, 3, 4)));

/*
 * Each returns a status. If it is not OK the edit is thrown away and only the text
 * remains, so an apply function may find out late that it must not.
 */
typedef enum proto_status apply_fn(struct cluster_edit *edit, const struct log_body *log);

/* nodes.c */
apply_fn apply_register, apply_dead, apply_leave, apply_store_failed, apply_store_weight,
	apply_node_drain, apply_node_undrain, apply_node_remove;
/* settings.c */
apply_fn apply_format, apply_setting, apply_policy, apply_level, apply_shutdown;
/* pgs.c */
apply_fn apply_retarget, apply_pg_shrink, apply_pg_takeover, apply_pg_primary, apply_pg_join,
	apply_pg_leave_join, apply_pg_expand, apply_pg_holes, apply_pg_elect, apply_pg_force;
/* volumes.c */
apply_fn apply_volume_create, apply_volume_delete, apply_volume_rename, apply_volume_resize,
	apply_volume_set, apply_volume_open, apply_volume_close, apply_volume_own;

/* ---- shared by the files that apply ---- */

/* May the old primary still answer for a while, for all the log knows (L3)? */
enum silence { OLD_IS_SILENT, OLD_MAY_SERVE };

/* A store that was registered anew. */
struct restart {
	uint32_t store;
	uint32_t flags; /* enum log_store_flags */
};

/* pg_rules.c: bring every PG in line with the nodes, stores and policies of the edit. */
void pgs_settle(struct cluster_edit *edit, enum silence silence);
/* The same, and the seats of these stores are judged by how they came back. */
void pgs_restart(struct cluster_edit *edit, const struct restart *restarts, uint32_t count,
		 enum silence silence);
/* L3: this start has certainly ended: no PG waits for it any more. Did any? */
bool pgs_end_fences(struct cluster_edit *edit, uint32_t node, uint64_t incarnation);

/*
 * pg_rules.c: a command works on its own copy of a PG, and pg_put() brings it in line
 * (the absent and the surplus go, somebody leads) and puts it back with a new epoch if
 * that is due.
 */
void pg_put(struct cluster_edit *edit, struct cluster_pg *pg, enum silence silence);
void pg_lead(struct cluster_edit *edit, struct cluster_pg *pg, uint32_t store,
	     enum silence silence);
struct cluster_seat *pg_seat(struct cluster_pg *pg, uint32_t store); /* NULL: none */
void pg_drop_seat(struct cluster_pg *pg, uint32_t store);
void pg_drop_join(struct cluster_pg *pg, uint32_t store);
bool pg_can_lead(const struct cluster_map *map, const struct cluster_pg *pg, uint32_t store);
const struct cluster_policy *pg_policy(const struct cluster_map *map, const struct cluster_pg *pg);

/* volumes.c: the openers of a session that has ended. */
void volumes_end_session(struct cluster_edit *edit, uint64_t session);

/* volumes.c: a list and its strings in one block; NULL with *@ok false: no memory. */
struct cluster_property *properties_copy(const struct cluster_property *from, uint32_t count,
					 bool *ok);

/* A text of the wire: closed by a zero, padded with zeroes, clean UTF-8. Empty ones only if allowed. */
bool wire_text_is_valid(const char *text, size_t size, bool may_be_empty);

static inline struct uuid uuid_from_log(const struct log_uuid *from)
{
	struct uuid uuid;

	memcpy(uuid.bytes, from->bytes, sizeof(uuid.bytes));
	return uuid;
}

static inline struct log_uuid uuid_to_log(const struct uuid *from)
{
	struct log_uuid uuid;

	memcpy(uuid.bytes, from->bytes, sizeof(uuid.bytes));
	return uuid;
}

#endif
