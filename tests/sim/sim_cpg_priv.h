/* The model of CPG, inside (sim_cpg.h). */
#ifndef SIM_CPG_PRIV_H
#define SIM_CPG_PRIV_H

#include <urcu/list.h>

#include "lib/base/assert.h"
#include "tests/sim/sim_cpg.h"

#define FILES_MAX 32

struct node;

/* Something at a time. */
struct event {
	uint64_t at_ns, tie;
	void (*run)(struct sim_cpg *sim, struct event *event);
	struct node *node;
	uint64_t life; /* of the node's process; another one: void */
	uint64_t number;
	struct message *message;
	struct uuid uuid;
	uint32_t heap;
};

enum order_kind { ORDER_MESSAGE, ORDER_JOIN, ORDER_LEAVE, ORDER_LOST };

/* What a ring orders. */
struct message {
	unsigned references;
	enum order_kind kind;
	unsigned from; /* node */
	struct agree_id id;
	size_t size;
	uint8_t data[];
};

struct ring {
	struct cds_list_head link;
	unsigned daemons; /* bit per node */
	struct message **messages;
	size_t count, room;
};

/* What a daemon has for its process. */
struct item {
	struct cds_list_head link;
	struct message *message; /* NULL: a view */
	struct agree_view view;
	struct agree_id members[SIM_CPG_NODES];
	struct agree_leaver leavers[SIM_CPG_NODES];
	bool is_lost; /* the connection is */
	bool is_quorum, has_quorum;
};

struct file {
	enum agree_file kind;
	uint64_t number;
	uint8_t *data;
	size_t size, synced;
	bool is_named;	 /* its name is durable */
	bool is_removed; /* that it is gone is not durable yet */
};

struct write {
	bool is_on, is_next;
	uint64_t number;
	const uint8_t *data;
	size_t size;
};

struct node {
	unsigned number;
	struct sim_cpg *sim;
	/* the process */
	struct agree *core;
	uint64_t life;
	uint32_t pid;
	const struct agree_ops *tell;
	void *context;
	struct uuid uuid;
	uint64_t start;
	bool is_connected; /* to the daemon; is_member: its own join was delivered */
	bool is_member, is_paused;
	uint64_t link_ns[SIM_CPG_NODES]; /* when the others see its connections change next */
	struct event *timer, *handing;
	struct cds_list_head inbox;
	/* the daemon */
	bool is_up;
	uint8_t group;
	struct ring *ring;
	size_t delivered; /* of the ring's messages */
	uint64_t sent_ns; /* when its last message is ordered */
	struct event *delivering;
	unsigned members; /* nodes whose process is in the group, as the daemon knows */
	uint32_t member_pid[SIM_CPG_NODES];
	bool votequorum;
	/* the disk */
	struct file files[FILES_MAX];
	struct file saved[FILES_MAX];
	struct write write, image;
	bool is_hanging, fails_next;
	bool write_waits, image_waits; /* it would be done but for the hang */
};

struct sim_cpg {
	struct sim_cpg_options options;
	struct random random;
	uint64_t now, ties, trace;
	struct event **heap;
	size_t count, room;
	struct node nodes[SIM_CPG_NODES];
	struct cds_list_head rings;
	bool is_denied, is_granted;
	bool (*drop)(void *context, unsigned from, const uint8_t *data, size_t size);
	void *drop_context;
	void (*hear)(void *context, unsigned from, const uint8_t *data, size_t size);
	void *hear_context;
	uint64_t slow_ns; /* of each write */
};

struct event *sim_cpg_at(struct sim_cpg *sim, uint64_t at_ns,
			 void (*run)(struct sim_cpg *sim, struct event *event), struct node *node);
void sim_cpg_cancel(struct sim_cpg *sim, struct event *event);
static inline uint64_t sim_cpg_below(struct sim_cpg *sim, uint64_t bound)
{
	return random_below(&sim->random, bound);
}

/* sim_cpg_disk.c */
void disk_write(void *context, const void *data, size_t size);
void disk_write_next(void *context, uint64_t number, const void *data, size_t size);
void disk_write_image(void *context, uint64_t number, const void *data, size_t size);
void disk_remove_below(void *context, enum agree_file kind, uint64_t number);
int disk_read(void *context, enum agree_file kind, uint64_t number, void **data, size_t *size);
uint32_t disk_numbers(struct node *node, uint64_t *numbers); /* of log files, ascending */
void disk_killed(struct node *node); /* what was under way is done in part */
void disk_cut(struct node *node);    /* and what was not synced is lost in part */
void disk_free(struct file *files);

#endif
