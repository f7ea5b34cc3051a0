/* What the files of the node share. */
#ifndef SERVICE_NODE_PRIV_H
#define SERVICE_NODE_PRIV_H

#include <pthread.h>

#include "lib/net/net.h"
#include "sheep/gateway/gateway.h"
#include "sheep/pg/pg.h"
#include "sheep/service/caretaker.h"
#include "sheep/service/links.h"
#include "sheep/service/node.h"
#include "sheep/service/state.h"

/*
 *   JOINING --engine ready--> REGISTERING --our entry applied--> RUNNING
 *      |                           |                                |
 *      +---------------------------+----------- stop ---------------+--> STOPPING --> STOPPED
 */
enum node_phase {
	NODE_JOINING,
	NODE_REGISTERING,
	NODE_RUNNING,
	NODE_STOPPING,
	NODE_STOPPED,
	NODE_PHASE_COUNT
};

/* One loop and what lives on it. Only `index`, `loop` and `set` are looked at by others. */
struct worker {
	struct node *node;
	unsigned index;
	struct loop *loop;
	pthread_t thread;
	bool has_thread;
	struct net *net;
	struct pg_peers *peers;
	struct pg_set *set;
	struct gateway *gateway;
	struct exports *exports;
	struct cluster_map *map; /* as this loop has it; a reference */
	struct loop_mail ask_mail;
	bool is_asking; /* atomic: ask_mail is on its way */
	/* stopping */
	struct loop_mail stop_mail;
	struct shard_stop *stop_shards;
	struct loop_op stop_op, clients_op;
	struct loop_timer stop_timer;
	unsigned stop_left;
	bool is_counting_clients; /* stage CLIENTS waits for this loop */
	bool are_clients_gone, are_pgs_gone;
};

struct node_store {
	struct node *node;
	struct store *store;
	uint64_t start;	      /* random number of this start (R2) */
	uint64_t incarnation; /* as it is registered */
	uint32_t id;	      /* in the map; 0: not registered */
	struct note *note;    /* NULL: none, and unclean after a crash */
	bool is_unclean;
	uint64_t held; /* the incarnation that had this lock before us; 0: none known */
	bool is_held;  /* the registered start had this lock before us: it has ended (L3) */
	bool is_stale; /* the cluster saw a later start of it (R2) */
};

struct node {
	const struct settings *settings;
	enum node_phase phase;
	uint64_t start;	      /* random number of this start */
	uint64_t incarnation; /* of the node, as registered */
	uint32_t id;	      /* in the map; 0: not registered */
	uint64_t session;
	struct uuid uuid;
	struct uuid log; /* that its directories name (identity.h); null: none */
	/* The engine has another log. It is followed only to tell whose it is; nothing is registered there. */
	struct error wrong_log;
	unsigned worker_count;
	struct worker *workers;
	/* by worker, for the gateways */
	struct loop **loops;
	struct pg_set **sets;
	unsigned store_count;
	struct node_store *stores;
	char *note_dir;
	struct gateway_hub *hub;
	struct state *state;
	struct caretaker *caretaker;
	struct admin *admin;
	struct figures_service *figures;
	struct links *links;
	struct proposal register_proposal, leave_proposal;
	struct net_listener *peer_listener;
	struct net_listener *nbd_listeners[SETTINGS_LIST_MAX];
	unsigned nbd_listener_count;
	unsigned next_worker; /* for the next NBD connection */
	/* signals */
	int signal_fd;
	struct loop_op signal_op;
	unsigned signals;
	/* stopping */
	unsigned stop_stage, stop_waiting;
	struct loop_timer stage_timer;
	bool is_abandoned, has_left;
	struct error failure; /* why it stops; code 0: it was asked to */
};

void node_enter(struct node *node, enum node_phase next, const char *why);
/* Do clients' requests still matter? From RUNNING until the last ones have ended or been given up. */
bool node_is_serving(const struct node *node);

/* node.c */
/* As HELLOs say it. */
struct wire_identity node_identity(const struct node *node);
/* What the cluster's state tells us. */
extern const struct state_callbacks node_state_callbacks;
/* Something that cannot be gone on with: stop, and exit with 1. */
void node_fail(struct node *node, const struct error *err);

/* An engine that refuses us because it has another log: whose stores these are is told, too. Returns @rc. */
int node_explain(const struct node *node, int rc, struct error *err);

/* open.c */
/* Where it keeps who it is: its stores, or the state directory of a gateway. */
char *const *node_directories(const struct node *node, unsigned *count);

/* publish.c */
/* Give every loop the map, first of all this one. @result: what changed; NULL: anything. */
void node_publish(struct node *node, struct cluster_map *map, const struct cluster_result *result);
/* Our registration has been applied: the loops' PGs get the stores, before the next map. */
void node_publish_stores(struct node *node);
/* There is quorum again: the loops' PGs ask for what got lost without. */
void node_ask_again(struct node *node);
void node_propose(struct node *node, struct cluster_command *command); /* on the engine's loop */
/* What the hub asks: see gateway_hub_options. */
int node_propose_for_hub(void *node, struct cluster_command *command, void *token);
void worker_propose(void *worker, struct cluster_command *command); /* on any loop */
void worker_store_failed(struct node_store *store, int error);
void worker_store_corrupt(struct node_store *store, uint32_t pg, const struct object_key *key);

/* listen.c */
int node_listen_peers(struct node *node, struct error *err);
int node_listen_clients(struct node *node, struct error *err);
void node_listen_stop(struct node *node);

/* stop.c */
/* Begin a clean stop; more calls do nothing. */
void node_stop(struct node *node, const char *why);
/* The engine has let go of us. */
void node_left(struct node *node);
/* node_open() failed half way: free what there is. */
void node_abandon(struct node *node);

#endif
