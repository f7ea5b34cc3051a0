/* What the files of the workload share: see workload.c. */
#ifndef TESTS_SIM_WORKLOAD_PRIV_H
#define TESTS_SIM_WORKLOAD_PRIV_H

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "tests/sim/program.h"

#define SECTOR		512u
#define BLOCK_SECTORS	(BLOCK_SIZE / SECTOR)
#define VOLUMES_MAX	12u
#define CLIENTS_MAX	24u
#define PREFILL_SECTORS 2048u
#define SPOTS		6u
#define CREATE_AGAIN_NS (300 * NS_PER_MS)

enum volume_state {
	VOLUME_FREE,
	VOLUME_CREATING,
	VOLUME_OPEN,
	VOLUME_CLOSING,
	VOLUME_DELETING,
	VOLUME_GONE
};

enum handle_state { HANDLE_NONE, HANDLE_OPENING, HANDLE_OPEN, HANDLE_CLOSING };

struct handle {
	struct gateway_open open;
	struct loop_mail mail;
	struct volume *volume;
	struct herd_node *node;
	struct gateway_volume *use;
	enum handle_state state;
	uint64_t start;	 /* of the node */
	uint32_t flying; /* operations */
	uint32_t client; /* number of this start's gateway, for histories */
};

struct volume {
	struct workload *workload;
	unsigned number;
	enum volume_state state;
	char name[16];
	uint64_t id, family, size_bytes;
	uint64_t proposed_ns;
	uint32_t sectors;
	uint32_t next_value;
	uint32_t prefill;      /* sectors below it were written once, in long pieces */
	uint32_t spots[SPOTS]; /* sectors where much happens */
	struct history *history;
	struct handle *handles[HERD_NODES_MAX]; /* of present starts; old ones stay as they are */
};

struct client {
	struct workload *workload;
	struct sim_event event;
	unsigned burst; /* operations until the next rest */
};

struct operation {
	struct gateway_io io;
	struct loop_mail mail;
	struct cds_list_head link; /* of the workload, or on its own when its gateway is dead */
	struct workload *workload;
	struct volume *volume;
	struct handle *handle;
	struct client *client; /* NULL: of the check */
	bool is_dead;
	uint64_t begin_ns;
	uint32_t number; /* in the history */
	uint32_t first, count, value;
	struct buffer *buffer;
};

struct workload {
	struct program *program;
	struct herd *herd;
	struct buffer_cache *buffers;
	struct volume volumes[VOLUMES_MAX];
	unsigned volume_count;
	struct client clients[CLIENTS_MAX];
	unsigned client_count;
	uint64_t nap_ns, rest_ns;
	unsigned write_share; /* per cent */
	struct cds_list_head operations;
	struct cds_list_head spare;
	uint32_t next_client;
	uint64_t done;
	bool is_running;
};

static inline uint64_t workload_below(struct workload *workload, uint64_t bound)
{
	return random_below(sim_random(workload->herd->world), bound);
}

/* Of this start of its node, which is up. */
static inline bool workload_is_present(const struct handle *handle)
{
	return handle && handle->node->is_up && handle->node->start == handle->start;
}

/* ---- workload_io.c ---- */

/* One operation through a handle, and into the history. @client: goes on when it ends; NULL: nobody does. */
void workload_begin(struct handle *handle, struct client *client, enum gateway_io_kind kind,
		    unsigned flags, uint32_t first, uint32_t count);
/* When a client begins its next operation. */
void workload_next(struct client *client);
/* What a client does then. */
void workload_on_client(struct sim_event *event);

/* ---- workload_handle.c ---- */

void workload_open_handle(struct volume *volume, struct herd_node *node);
/* If it is open, and has nothing in flight. */
void workload_close_handle(struct handle *handle);
/* Callbacks of the herd, its context being the program. A start of @node ends: nobody hears from its gateway. */
void workload_node_died(struct herd *herd, unsigned node);
/* A clean stop of @node. */
void workload_close_volumes(struct herd *herd, unsigned node);

#endif
