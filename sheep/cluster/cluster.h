/*
 * The map: what all sheep share, as a pure function of the log. docs/internals/cluster.md
 *
 * A map never changes. cluster_apply() makes the next one out of a map and a
 * command; both share all that the command did not touch. References are
 * atomic: every loop holds one to its current map and reads it without locks.
 * Whatever a lookup returns belongs to the map and lives as long as the caller's
 * reference to it. Same commands in the same order give the same map everywhere:
 * no clock, no randomness, no I/O here.
 *
 * What a map means to those who act on it:
 *
 * - A PG's `epoch` is the index of the last entry that changed its primary, its in-sync
 *   set, a mark in it, or the incarnation of a member. `reign` is the one that made the
 *   present primary; versions begin with it (REPLICATION, W1).
 * - A *marked* seat is listed but not in sync: it counts neither for the floor nor as a
 *   possible primary; it is filled like a joining store and PG_EXPAND takes the mark off.
 * - A member that restarts keeps its seat, in a new epoch (so that the primary sends what
 *   was not acknowledged again), if it has lost nothing that it acknowledged. `unclean` in
 *   its registration says that it may have: then its seats are marked. A process that was
 *   killed has lost nothing; a machine that lost power may have. A member that was removed
 *   meanwhile has no seat and comes back by PG_JOIN and PG_EXPAND only. A restored, copied
 *   or blank store has its seats marked *stale*: it cannot even be elected.
 * - DEAD and LEAVE remove a node's members down to min_insync unmarked ones without holes.
 *   Below that floor the dead stay listed, and the PG waits: whoever is listed holds all
 *   that was acknowledged. They return to their seats when they register again, or are
 *   removed as soon as joiners have been put in.
 * - In a PG that has a primary the primary may still have to wait: cluster_pg_fence().
 */
#ifndef CLUSTER_CLUSTER_H
#define CLUSTER_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "include/proto/log.h"
#include "include/proto/status.h"
#include "lib/base/err.h"
#include "lib/base/hash.h"
#include "lib/base/uuid.h"

#define CLUSTER_NODES_MAX	  1024u
#define CLUSTER_STORES_MAX	  4096u
#define CLUSTER_NODE_STORES_MAX	  64u
#define CLUSTER_POLICIES_MAX	  8u
#define CLUSTER_PG_COUNT_MAX	  65536u /* of one policy */
#define CLUSTER_VOLUMES_MAX	  1000000u
#define CLUSTER_VOLUME_SIZE_MAX	  (1ull << 54) /* 16 PiB */
#define CLUSTER_VOLUME_SIZE_UNIT  512u
#define CLUSTER_VOLUME_PROPERTIES 32u
#define CLUSTER_VOLUME_OPENERS	  CLUSTER_NODES_MAX
#define CLUSTER_SEQUENCE_WINDOW	  1024u /* commands of one proposer in flight, at most */
#define CLUSTER_LEVEL		  1u	/* highest level that this code knows */
#define CLUSTER_PG_POLICY_SHIFT	  20	/* pg id = policy << 20 | number */

struct cluster_map;

/* ---- what is in a map ---- */

enum cluster_node_flags {
	CLUSTER_NODE_UP = 1u << 0,   /* registered, neither dead nor left since */
	CLUSTER_NODE_DEAD = 1u << 1, /* certainly dead in its present incarnation */
	CLUSTER_NODE_LEFT = 1u << 2, /* stopped cleanly */
	CLUSTER_NODE_DRAINING = 1u << 3,
};

struct cluster_node {
	uint32_t id; /* from 1, never reused */
	uint32_t flags;
	struct uuid uuid;
	uint64_t incarnation;		   /* number of its last start */
	uint64_t start;			   /* random number of that start */
	uint64_t session;		   /* log index of its registration; 0: ended */
	uint32_t version_min, version_max; /* of the peer protocol */
	uint32_t loops;
	char address[LOG_ADDRESS_SIZE];
	char zone[LOG_ZONE_SIZE];
	/* Which of its commands have been applied: the highest, and a window below it. */
	uint64_t sequence;
	uint64_t applied[CLUSTER_SEQUENCE_WINDOW / 64];
};

enum cluster_store_flags {
	CLUSTER_STORE_UP = 1u << 0,	 /* its node's present start has registered it */
	CLUSTER_STORE_FAILED = 1u << 1,	 /* stopped on an I/O error in its present incarnation */
	CLUSTER_STORE_UNCLEAN = 1u << 2, /* as its last registration said */
};

struct cluster_store {
	uint32_t id; /* from 1, never reused */
	uint32_t node;
	uint32_t flags;
	uint32_t weight; /* 0: to hold nothing. At first its size in MiB */
	uint32_t shards;
	struct uuid uuid;
	uint64_t incarnation;
	uint64_t start; /* random number of that start (R2) */
	uint64_t size_bytes;
	char path[LOG_NAME_SIZE];
};

struct cluster_policy {
	uint32_t id;
	uint32_t copies;
	uint32_t min_insync;
	uint32_t pg_count; /* a power of two */
};

enum cluster_seat_flags {
	CLUSTER_SEAT_MARKED = 1u << 0, /* not in sync (R3) */
	CLUSTER_SEAT_STALE = 1u << 1,  /* has begun a join, or has nothing: never elected (R4) */
	CLUSTER_SEAT_HOLES = 1u << 2,  /* in sync, but objects are missing there (J5): not counted
					  for the floor */
};

struct cluster_seat {
	uint32_t store;
	uint32_t flags;
};

struct cluster_join {
	uint32_t store;
	uint64_t index; /* of its PG_JOIN */
	uint64_t incarnation;
};

struct cluster_pg {
	uint32_t id;
	uint32_t primary;      /* a store, listed and unmarked; 0: nobody can lead */
	uint64_t epoch;	       /* 0: never had members */
	uint64_t reign;	       /* epoch in which the present primary was made */
	uint64_t loss_epoch;   /* when acknowledged writes were last lost; 0: never */
	uint64_t target_index; /* when `target` last changed */
	uint32_t forced;       /* how often an operator accepted loss: shown for ever */
	/* The last change of primary whose old one was not known to be silent: see
	 * cluster_pg_fence(). */
	uint32_t fence_store;	    /* 0: several */
	uint64_t fence_index;	    /* 0: none */
	uint64_t fence_incarnation; /* of the node that had the store */
	uint32_t fence_node;
	uint32_t isr_count, join_count, target_count;
	struct cluster_seat isr[LOG_SEATS_MAX];
	struct cluster_join joining[LOG_COPIES_MAX];
	uint32_t target[LOG_COPIES_MAX]; /* stores; the first one should lead */
};

enum cluster_access { CLUSTER_ACCESS_SINGLE = 0, CLUSTER_ACCESS_SHARED = 1 };
enum cluster_durability { CLUSTER_DURABILITY_FLUSH = 0, CLUSTER_DURABILITY_ALWAYS = 1 };

struct cluster_opener {
	uint64_t session; /* of a gateway */
	uint32_t flags;	  /* enum log_open_flags */
};

struct cluster_property {
	const char *key, *value;
};

struct cluster_volume {
	uint64_t id;	 /* from 1, never reused; layers come from the same numbers */
	uint64_t family; /* decides its objects' PGs and seeds their checksums */
	uint64_t size_bytes;
	/* Log index of the last change of its owner, or from shared to single; at first of its
	 * creation. Connections that were opened under an older one never write again. */
	uint64_t generation;
	uint64_t owner;	  /* session that may write while access is single; 0: none yet */
	uint64_t created; /* log index */
	uint64_t changed; /* log index of the last change of anything here */
	/* The largest size it ever had. Above size_bytes: it was shrunk, and as old data may still be
	 * behind its end it never grows again. */
	uint64_t high_bytes;
	uint64_t created_s; /* since 1970, by the clock of who made it; 0: unknown */
	uint32_t policy;
	enum cluster_access access;
	enum cluster_durability durability;
	uint32_t layer_count; /* 1 to LOG_LAYERS_MAX */
	uint32_t opener_count;
	uint32_t property_count;
	const uint64_t *layers;			   /* top first */
	const struct cluster_opener *openers;	   /* by session */
	const struct cluster_property *properties; /* by key */
	char name[LOG_NAME_SIZE];
};

/* ---- references ---- */

/* The empty map, index 0, unformatted. NULL: no memory. */
struct cluster_map *cluster_map_new(void);
struct cluster_map *cluster_map_get(struct cluster_map *map); /* one reference more; returns @map */
void cluster_map_put(struct cluster_map *map);		      /* from any thread; NULL is allowed */

/* ---- applying ---- */

struct cluster_ids {
	uint64_t *ids;
	uint32_t count;
	uint32_t room;
};

enum cluster_changed {
	CLUSTER_CHANGED_SETTINGS = 1u << 0, /* settings, policies or the level */
	CLUSTER_CHANGED_FORMATTED = 1u << 1,
};

/* What a command did. */
struct cluster_result {
	enum proto_status status;
	char text[256]; /* why not, for an admin client; empty when OK */
	uint64_t id;	/* assigned: node, volume, or join index; else 0 */
	/* Of the command; zero if it was too broken to have any. */
	enum log_type type;
	uint32_t node;
	uint64_t start;
	uint64_t sequence;
	/* The delta against the map before, each id once. */
	uint32_t changed; /* enum cluster_changed */
	struct cluster_ids nodes;
	struct cluster_ids stores;
	struct cluster_ids pgs;
	struct cluster_ids volumes; /* created, changed or gone */
};

/* Frees the lists; an all-zero result is allowed. */
void cluster_result_done(struct cluster_result *result);

/*
 * Apply one command of the log.
 *
 * @map: borrowed. @index: of the entry, above cluster_index(@map).
 * @result: filled in, whatever it held before; the caller gives it to cluster_result_done().
 *
 * Returns the map after it with one reference, NULL when there is no memory (nothing
 * happened: try again). Bytes that are no command give a map that differs in its index only.
 */
struct cluster_map *cluster_apply(const struct cluster_map *map, uint64_t index,
				  const void *command, size_t size, struct cluster_result *result);

/* ---- reading ---- */

uint64_t cluster_index(const struct cluster_map *map); /* of the last entry applied */
bool cluster_is_formatted(const struct cluster_map *map);
const struct uuid *cluster_uuid(const struct cluster_map *map); /* null until formatted */
uint32_t cluster_level(const struct cluster_map *map);		/* 0 until formatted */
uint64_t
cluster_next_id(const struct cluster_map *map); /* volumes and layers below it were given out */

/* Of the last SHUTDOWN, 0: none. Every session that began before it is to end. */
uint64_t cluster_shutdown_index(const struct cluster_map *map);

/* NULL when there is none. The _next ones: the first with an id above @after (0: the first). */
const struct cluster_node *cluster_node(const struct cluster_map *map, uint32_t id);
const struct cluster_node *cluster_node_next(const struct cluster_map *map, uint32_t after);
const struct cluster_node *cluster_node_by_uuid(const struct cluster_map *map,
						const struct uuid *uuid);
/* The node whose gateway has this session; NULL when the session has ended. */
const struct cluster_node *cluster_node_by_session(const struct cluster_map *map, uint64_t session);
uint32_t cluster_node_count(const struct cluster_map *map);

const struct cluster_store *cluster_store(const struct cluster_map *map, uint32_t id);
const struct cluster_store *cluster_store_next(const struct cluster_map *map, uint32_t after);
const struct cluster_store *cluster_store_by_uuid(const struct cluster_map *map,
						  const struct uuid *uuid);
uint32_t cluster_store_count(const struct cluster_map *map);
/* Registered by a node that is up, and not failed. */
bool cluster_store_is_up(const struct cluster_map *map, uint32_t store);
/* The node that has it; 0 when there is no such store. */
uint32_t cluster_store_node(const struct cluster_map *map, uint32_t store);

const struct cluster_policy *cluster_policy(const struct cluster_map *map, uint32_t id);
uint32_t cluster_policy_count(const struct cluster_map *map); /* ids are 0 to count - 1 */

const struct cluster_pg *cluster_pg(const struct cluster_map *map, uint32_t id);
/* The first PG with an id at or above @from. */
const struct cluster_pg *cluster_pg_next(const struct cluster_map *map, uint32_t from);
uint32_t cluster_pg_total(const struct cluster_map *map);

const struct cluster_volume *cluster_volume(const struct cluster_map *map, uint64_t id);
const struct cluster_volume *cluster_volume_next(const struct cluster_map *map, uint64_t after);
const struct cluster_volume *cluster_volume_by_name(const struct cluster_map *map,
						    const char *name);
uint32_t cluster_volume_count(const struct cluster_map *map);
/* Does a volume still need this layer? False and below cluster_next_id(): garbage (M2). */
bool cluster_layer_is_live(const struct cluster_map *map, uint64_t layer);
/*
 * How far into a live layer data may still be wanted: its objects from there on are garbage, too,
 * because no volume that was shrunk grows again.
 */
uint64_t cluster_layer_end(const struct cluster_map *map, uint64_t layer);
/* Log index of an entry that made garbage; another one than before: look for it. */
uint64_t cluster_garbage_index(const struct cluster_map *map);

/* ---- placement groups ---- */

/* The PG of object @index of a family; part of the disk format. */
static inline uint32_t cluster_pg_of(const struct cluster_policy *policy, uint64_t family,
				     uint32_t index)
{
	return policy->id << CLUSTER_PG_POLICY_SHIFT |
	       ((uint32_t)hash_u64_pair(family, index) & (policy->pg_count - 1));
}

/* The seat or join entry of a store; NULL: it has none. */
const struct cluster_seat *cluster_pg_seat(const struct cluster_pg *pg, uint32_t store);
const struct cluster_join *cluster_pg_join(const struct cluster_pg *pg, uint32_t store);
bool cluster_pg_has_target(const struct cluster_pg *pg, uint32_t store);
/* Members that are unmarked and, for the floor, without holes. */
uint32_t cluster_pg_in_sync(const struct cluster_pg *pg);
/*
 * Are there min_insync unmarked members? If not the PG serves nobody (S1). Those with holes count here:
 * what is missing is waited for object by object.
 */
bool cluster_pg_has_floor(const struct cluster_map *map, const struct cluster_pg *pg);
/* Are there min_insync unmarked members, with holes or not? If not nothing may be acknowledged. */
bool cluster_pg_may_commit(const struct cluster_map *map, const struct cluster_pg *pg);
/*
 * Is a member listed that is marked, and that an election could choose once all others are away (R4)?
 * While it is nothing is committed and no FLUSH ends: it would lack what was.
 */
bool cluster_pg_may_elect(const struct cluster_pg *pg);
/* Would the floor be kept without @store (S1)? Else no command removes it. */
bool cluster_pg_may_lose(const struct cluster_map *map, const struct cluster_pg *pg,
			 uint32_t store);
/* The node of the primary; 0: there is none. */
uint32_t cluster_pg_primary_node(const struct cluster_map *map, const struct cluster_pg *pg);

/*
 * What keeps a new primary silent (L3). Returns 0: nothing. Else the log index of the change from
 * which it must wait: it may serve `grace` after *it* applied that entry, or as soon as the old
 * primary (store `fence_store`, if not 0) has confirmed that it leads no more. A death of the old
 * one's node in that incarnation ends the wait too: then this returns 0.
 */
uint64_t cluster_pg_fence(const struct cluster_map *map, const struct cluster_pg *pg);

/*
 * The store to which a healthy PG's primary should hand over (PG_PRIMARY) after it has stopped
 * serving: the target's first, or one of the target if the primary is none. 0: nobody.
 */
uint32_t cluster_pg_successor(const struct cluster_map *map, const struct cluster_pg *pg);
/*
 * Should this store, up but not in sync, join? One without a seat may propose PG_JOIN itself. For a
 * marked member only the primary may, because that ends the chance to elect it.
 */
bool cluster_pg_wants_join(const struct cluster_map *map, const struct cluster_pg *pg,
			   uint32_t store);
/*
 * May @store be elected (PG_ELECT) as far as the map can tell (R4)? `all_marked` in *@out: at once
 * when its last entry is the most advanced; else only after power_loss_wait.
 */
bool cluster_pg_is_electable(const struct cluster_map *map, const struct cluster_pg *pg,
			     uint32_t store, bool *all_marked);

enum cluster_health {
	CLUSTER_HEALTHY,    /* all copies in sync, on their target */
	CLUSTER_RECOVERING, /* a store is joining, or copies are not where they should be */
	CLUSTER_DEGRADED,   /* fewer copies in sync than the policy asks for */
	CLUSTER_DOWN,	    /* does not serve */
	CLUSTER_HEALTH_COUNT
};

const char *cluster_health_name(enum cluster_health health);
enum cluster_health cluster_pg_health(const struct cluster_map *map, const struct cluster_pg *pg);

struct cluster_summary {
	enum cluster_health health;
	uint32_t pgs[CLUSTER_HEALTH_COUNT]; /* by their worst word; a degraded PG that a store
					       is joining counts as recovering */
	uint32_t pgs_total;
	uint32_t pgs_active;	       /* that serve: all but the down ones */
	uint32_t pgs_degraded;	       /* that serve with fewer copies than asked for */
	uint32_t pgs_forced, pgs_lost; /* with loss accepted by an operator; with a loss epoch */
	uint32_t nodes, nodes_up;
	uint32_t stores, stores_up;
	uint32_t volumes;
};

/* O(PGs). Of an unformatted map everything is zero. */
void cluster_summary(const struct cluster_map *map, struct cluster_summary *out);
/* "up", "down", "out", "draining" */
const char *cluster_node_status(const struct cluster_map *map, const struct cluster_node *node);
const char *cluster_store_status(const struct cluster_map *map, const struct cluster_store *store);

/* ---- settings ---- */

/* X(NAME, text, kind, default, min, max, meaning); times are in milliseconds. */
#define CLUSTER_SETTING_LIST(X)                                                                     \
	X(LEASE, "lease", TIME, 1000, 0, 60000,                                                     \
	  "how long a primary may serve on an acknowledged beacon; 0: confirm each batch of reads") \
	X(GRACE, "grace", TIME, 1500, 50, 120000,                                                   \
	  "silence after which a member takes over; at least 5/4 of the lease")                     \
	X(BEACON, "beacon", TIME, 200, 10, 10000,                                                   \
	  "time between beacons; at most 1/3 of the lease")                                         \
	X(WRITE_DEADLINE, "write_deadline", TIME, 2000, 50, 600000,                                 \
	  "a member that completes nothing for so long while requests wait is removed")             \
	X(STORE_DEADLINE, "store_deadline", TIME, 2000, 100, 600000,                                \
	  "a disk on which an operation takes longer, and nothing is done meanwhile, is given up")  \
	X(SETTLE_DEADLINE, "settle_deadline", TIME, 2000, 50, 600000,                               \
	  "a listed member that does not answer a new primary for so long is removed")              \
	X(REQUEST_TIMEOUT, "request_timeout", TIME, 0, 0, 86400000,                                 \
	  "after which a gateway fails a client's request; 0: never")                               \
	X(CLOSE_DELAY, "close_delay", TIME, 5000, 0, 600000,                                        \
	  "how long a gateway keeps a volume open after its last connection")                       \
	X(DOWN_OUT_INTERVAL, "down_out_interval", TIME, 600000, 0, 604800000,                       \
	  "how long a node may be down before its share is made elsewhere")                         \
	X(POWER_LOSS_WAIT, "power_loss_wait", TIME, 120000, 0, 86400000,                            \
	  "how long marked members wait for unmarked ones before they elect one of them")           \
	X(RECOVERY_RATE, "recovery_rate", SIZE, 0, 0, UINT64_MAX,                                   \
	  "bytes per second that a node pushes to joining stores; 0: unlimited")                    \
	X(RECOVERY_PAUSED, "recovery_paused", BOOL, 0, 0, 1,                                        \
	  "no pushes but those that clients wait for")                                              \
	X(RECOVERY_PARALLEL, "recovery_parallel", COUNT, 8, 1, 256,                                 \
	  "objects that a node pushes at a time")                                                   \
	X(SLOW_FACTOR, "slow_factor", COUNT, 10, 0, 1000,                                           \
	  "a member that is so many times slower than its peers is removed; 0: never")

enum cluster_setting_id {
#define CLUSTER_SETTING_ENUM(name, text, kind, preset, min, max, meaning) CLUSTER_SETTING_##name,
	CLUSTER_SETTING_LIST(CLUSTER_SETTING_ENUM)
#undef CLUSTER_SETTING_ENUM
		CLUSTER_SETTING_COUNT
};

enum cluster_setting_kind {
	CLUSTER_KIND_TIME, /* milliseconds; text: 1500ms, 2s, 10m, 1h; a bare number is seconds */
	CLUSTER_KIND_SIZE, /* bytes; text: as sizes */
	CLUSTER_KIND_COUNT,
	CLUSTER_KIND_BOOL, /* text: yes or no */
};

struct cluster_setting {
	const char *name;
	enum cluster_setting_kind kind;
	uint64_t preset, min, max;
	const char *meaning;
};

extern const struct cluster_setting cluster_settings[CLUSTER_SETTING_COUNT];

uint64_t cluster_setting(const struct cluster_map *map, enum cluster_setting_id id);
/* A time setting in nanoseconds. */
uint64_t cluster_setting_ns(const struct cluster_map *map, enum cluster_setting_id id);
int cluster_setting_find(const char *name); /* its id, or -E_NOT_FOUND */
/* 0, -EINVAL or -ERANGE. */
int cluster_setting_parse(enum cluster_setting_id id, const char *text, uint64_t *out,
			  struct error *err);
#define CLUSTER_SETTING_TEXT_MAX 32
const char *cluster_setting_format(enum cluster_setting_id id, uint64_t value,
				   char out[CLUSTER_SETTING_TEXT_MAX]);

/* ---- names and sizes: the one place that judges them ---- */

/* 0 or -EINVAL. 1 to 255 bytes of clean UTF-8, no '@', no '/', not "." or "..", no space at an
 * end, and not beginning with "ro:". */
int cluster_check_volume_name(const char *name, size_t length, struct error *err);
/* 0 or -EINVAL. Not 0, a multiple of 512, at most 16 PiB. */
int cluster_check_volume_size(uint64_t size_bytes, struct error *err);
/* 0 or -EINVAL. Known keys have known values; others: [a-z0-9_.-]+ and clean text. */
int cluster_check_property(const char *key, const char *value, struct error *err);

/* ---- commands ---- */

/* One command: heap memory of the caller, freed by cluster_command_free(). */
struct cluster_command {
	uint32_t size;
	uint8_t data[];
};

/*
 * Who proposes: `node` is 0 before registration. A retry of a proposal sends the same
 * bytes again. At most CLUSTER_SEQUENCE_WINDOW of a proposer may be undecided at a time: what is
 * further below its highest applied one does nothing.
 */
struct cluster_proposer {
	uint32_t node;
	uint64_t start;
	uint64_t sequence; /* of the last command that was signed */
};

/*
 * Constructors: NULL when there is no memory; what the fields mean is beside the body's struct in
 * include/proto/log.h. Texts that are too long give NULL too: check names first. Every
 * command is signed once before it is proposed.
 */
void cluster_command_sign(struct cluster_command *command, struct cluster_proposer *proposer);
void cluster_command_free(struct cluster_command *command); /* NULL is allowed */
/* Of any bytes: did this start propose them? Then its sequence, else 0. */
uint64_t cluster_command_sequence(const void *command, size_t size, uint64_t start);
/* Whole, known, with the right sizes and CRC? 0, or the status and a text. Applying checks it too. */
enum proto_status cluster_command_check(const void *command, size_t size, struct error *err);
const char *cluster_command_name(enum log_type type);

struct cluster_register_store {
	struct uuid uuid;
	uint64_t incarnation, start, size_bytes;
	uint32_t shards;
	uint32_t flags; /* enum log_store_flags */
	const char *path;
};

struct cluster_register {
	struct uuid uuid, cluster;
	uint64_t incarnation;
	uint32_t version_min, version_max, loops;
	uint32_t flags; /* enum log_register_flags */
	const char *address, *zone;
	uint32_t store_count;
	const struct cluster_register_store *stores;
};

struct cluster_command *cluster_command_format(const struct uuid *cluster, uint32_t copies,
					       uint32_t min_insync, uint32_t pg_count,
					       uint32_t flags);
struct cluster_command *cluster_command_register(const struct cluster_register *request);
struct cluster_command *cluster_command_dead(uint32_t node, uint64_t incarnation);
struct cluster_command *cluster_command_leave(uint32_t node, uint64_t incarnation);
struct cluster_command *cluster_command_store_failed(uint32_t store, uint64_t incarnation);
struct cluster_command *cluster_command_store_weight(uint32_t store, uint32_t weight);
struct cluster_command *cluster_command_node_drain(uint32_t node);
struct cluster_command *cluster_command_node_undrain(uint32_t node);
struct cluster_command *cluster_command_node_remove(uint32_t node);
struct cluster_command *cluster_command_setting(const char *name, uint64_t value);
struct cluster_command *cluster_command_policy(uint32_t policy, uint32_t copies,
					       uint32_t min_insync);
struct cluster_command *cluster_command_level(uint32_t level);
struct cluster_command *cluster_command_shutdown(void);
struct cluster_command *cluster_command_pg_shrink(uint32_t pg, uint64_t epoch, uint32_t flags,
						  const uint32_t *stores, uint32_t count);
struct cluster_takeover {
	uint32_t pg;
	uint32_t store; /* of the proposer: it is to lead */
	uint64_t epoch; /* of the PG; else the row does nothing */
};
#define CLUSTER_TAKEOVERS_MAX 4000u /* of one command */
struct cluster_command *cluster_command_pg_takeover(const struct cluster_takeover *rows,
						    uint32_t count);
struct cluster_command *cluster_command_pg_primary(uint32_t pg, uint64_t epoch, uint32_t store);
struct cluster_command *cluster_command_pg_join(uint32_t pg, uint32_t store, uint64_t incarnation);
struct cluster_command *cluster_command_pg_leave_join(uint32_t pg, uint32_t store, uint64_t join);
struct cluster_command *cluster_command_pg_expand(uint32_t pg, uint64_t epoch,
						  const struct cluster_join *join, uint32_t drop);
struct cluster_command *cluster_command_pg_holes(uint32_t pg, uint64_t epoch, uint32_t store,
						 uint64_t incarnation, bool has_holes);
struct cluster_command *cluster_command_pg_elect(uint32_t pg, uint64_t epoch, uint32_t store);
struct cluster_command *cluster_command_pg_force(uint32_t pg, uint64_t epoch, uint32_t store);
struct cluster_command *cluster_command_volume_create(const char *name, uint64_t size_bytes,
						      uint32_t policy,
						      const struct cluster_property *properties,
						      uint32_t property_count);
/* Of a command made by the above that is not signed yet: when that was. */
void cluster_command_set_created(struct cluster_command *command, uint64_t created_s);
struct cluster_command *cluster_command_volume_delete(uint64_t volume);
struct cluster_command *cluster_command_volume_rename(uint64_t volume, const char *name,
						      const char *to);
struct cluster_command *cluster_command_volume_resize(uint64_t volume, uint64_t from_bytes,
						      uint64_t to_bytes, uint32_t flags);
struct cluster_command *cluster_command_volume_set(uint64_t volume, const char *key,
						   const char *value);
struct cluster_command *cluster_command_volume_open(uint64_t volume, uint64_t session,
						    uint32_t flags);
struct cluster_command *cluster_command_volume_close(uint64_t volume, uint64_t session);
struct cluster_command *cluster_command_volume_own(uint64_t volume, uint64_t session,
						   uint64_t generation);

/* ---- placement ---- */

/* What the map cannot know. */
struct cluster_plan_input {
	/* Down, or failed, for longer than down_out_interval. */
	const uint32_t *out_nodes, *out_stores;
	uint32_t out_node_count, out_store_count;
};

/*
 * What should change in the targets, as commands that are not signed yet: RETARGETs. Computed by one live
 * node, the one with the lowest id; twice does no harm. @out: room for @max commands, the
 * caller's to free. Returns how many there are (0: all is as it should be; more than
 * @max never: plan again when these are applied), or -ENOMEM.
 */
int cluster_plan(const struct cluster_map *map, const struct cluster_plan_input *input,
		 struct cluster_command **out, unsigned max);

/* ---- image and checks ---- */

/* The map as bytes: equal maps give equal bytes. @out: malloc'ed, the caller's. 0 or -ENOMEM. */
int cluster_encode(const struct cluster_map *map, void **out, size_t *size);
/* 0 and a map with one reference; -E_CORRUPT, -E_WRONG_VERSION or -ENOMEM. */
int cluster_decode(const void *image, size_t size, struct cluster_map **out, struct error *err);
/* A digest of cluster_encode()'s bytes: for tests and for comparing nodes. */
int cluster_digest(const struct cluster_map *map, uint64_t *out);

/* Does every invariant hold? 0, or -E_CORRUPT and which one does not. */
int cluster_check(const struct cluster_map *map, struct error *err);

#endif
