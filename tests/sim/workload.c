/*
 * Volumes that come and go, clients on all gateways, and what they saw.
 *
 *   CREATING --in the map--> OPEN --chosen--> CLOSING --no use left--> DELETING --not in the map--> GONE
 *
 * Every write fills its sectors with a value of its own, mixed with their places: what a read
 * gives names the write and where it was to go. Clients write where others do: the checker needs no
 * order of theirs. An operation whose gateway dies was neither acknowledged nor refused.
 *
 * A handle is one volume at one node's gateway, for one start of the node. What happens on a loop is
 * sent there by mail, as a connection's thread would do.
 */
#include <stdlib.h>
#include <string.h>

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

static uint64_t below(struct workload *workload, uint64_t bound)
{
	return random_below(sim_random(workload->herd->world), bound);
}

/* ---- content ---- */

static uint64_t place_of(const struct volume *volume, uint32_t sector)
{
	return ((uint64_t)volume->number << 56) ^ ((uint64_t)sector << 32);
}

static void fill(const struct volume *volume, uint8_t *out, uint32_t sector, uint32_t value)
{
	uint64_t *words = (void *)out;
	uint64_t base = place_of(volume, sector) | value;

	for (unsigned i = 0; i < SECTOR / 8; i++)
		words[i] = base ^ (uint64_t)i << 48;
}

static uint32_t value_of(const struct volume *volume, const uint8_t *data, uint32_t sector)
{
	static const uint8_t zeroes[SECTOR];
	const uint64_t *words = (const void *)data;
	uint64_t base = words[0];
	uint64_t wrong = base ^ (base & UINT32_MAX) ^ place_of(volume, sector);

	if (memcmp(data, zeroes, SECTOR) == 0)
		return 0;
	for (unsigned i = 0; i < SECTOR / 8; i++)
		wrong |= words[i] ^ base ^ (uint64_t)i << 48;
	if (wrong)
		herd_fail(volume->workload->herd,
			  "volume %s: sector %u has bytes that nobody wrote there: %016llx",
			  volume->name, sector, (unsigned long long)base);
	return (uint32_t)base;
}

/* ---- an operation ---- */

static const char *const kind_names[] = {[GATEWAY_READ] = "read",
					 [GATEWAY_WRITE] = "write",
					 [GATEWAY_ZERO] = "zero",
					 [GATEWAY_TRIM] = "trim",
					 [GATEWAY_FLUSH] = "flush"};

static void client_next(struct client *client)
{
	struct workload *workload = client->workload;
	uint64_t nap = below(workload, workload->nap_ns);

	if (!workload->is_running)
		return;
	if (client->burst-- == 0) {
		client->burst = 1 + (unsigned)below(workload, 40);
		nap = below(workload, workload->rest_ns);
	}
	sim_schedule(workload->herd->world, &client->event,
		     sim_now(workload->herd->world) + 1 + nap);
}

/* The sectors that it changes: a trim changes whole blocks only. */
static void changed_range(const struct operation *operation, uint32_t *first, uint32_t *end)
{
	*first = operation->first;
	*end = operation->first + operation->count;
	if (operation->io.kind != GATEWAY_TRIM)
		return;
	*first = (uint32_t)round_up(*first, BLOCK_SECTORS);
	*end = (uint32_t)round_down(*end, BLOCK_SECTORS);
}

static void note_begin(struct operation *operation)
{
	struct history *history = operation->volume->history;
	uint32_t first, end;

	operation->number = history_begin(history, operation->begin_ns, operation->handle->client);
	if (operation->io.kind == GATEWAY_READ || operation->io.kind == GATEWAY_FLUSH)
		return;
	changed_range(operation, &first, &end);
	for (uint32_t sector = first; sector < end; sector++)
		history_note_write(history, operation->number, sector, operation->value);
}

static void note_data(struct operation *operation)
{
	struct volume *volume = operation->volume;
	uint32_t sector = operation->first;

	for (uint32_t s = 0; s < operation->io.data_count; s++) {
		struct slice *slice = &operation->io.data[s];
		for (uint32_t used = 0; used < slice->size; used += SECTOR, sector++)
			history_note_read(
				volume->history, operation->number, sector,
				slice->buffer ? value_of(volume, slice->data + used, sector) : 0);
		buffer_put(slice->buffer);
	}
	HERD_REQUIRE(volume->workload->herd, sector == operation->first + operation->count);
}

static void note_end(struct operation *operation)
{
	struct volume *volume = operation->volume;

	history_end(volume->history, operation->number, sim_now(volume->workload->herd->world));
	if (operation->io.kind == GATEWAY_READ)
		note_data(operation);
	else if (operation->io.kind == GATEWAY_FLUSH)
		history_note_flush(volume->history, operation->number, 0, volume->sectors);
	else if (operation->io.flags & GATEWAY_FUA)
		history_note_durable(volume->history, operation->number);
}

static void release(struct operation *operation)
{
	buffer_put(operation->buffer);
	operation->buffer = NULL;
	cds_list_add(&operation->link, &operation->workload->spare);
}

/* Is one of the objects that it touches lost? Only damage may do that. */
static bool is_lost(struct workload *workload, const struct operation *operation)
{
	const struct cluster_volume *volume =
		cluster_volume_by_name(herd_map(workload->herd), operation->volume->name);
	uint32_t first = operation->first / (OBJECT_SIZE / SECTOR);
	uint32_t last = (operation->first + operation->count - 1) / (OBJECT_SIZE / SECTOR);

	if (workload->program->victim < 0)
		return false;
	workload->program->figures->lost++;
	for (uint32_t index = first; volume && index <= last; index++) {
		struct object_key key = {.layer = volume->layers[0], .index = index};
		if (herd_is_lost(workload->herd, volume->family, &key))
			return true;
	}
	return !volume;
}

/* What may go wrong for a client without a fault of ours. */
static bool is_excused(struct workload *workload, const struct operation *operation, int result)
{
	struct program *program = workload->program;

	if (result == -ENOSPC)
		return operation->io.kind != GATEWAY_READ && program->may_be_full;
	if (result == -E_LOST_WRITES)
		return operation->io.kind == GATEWAY_FLUSH && program->has_lost;
	if (result == -E_LOST)
		return operation->count > 0 && is_lost(workload, operation);
	return false;
}

static void on_done(struct gateway_io *io, int result)
{
	struct operation *operation = container_of_type(io, struct operation, io);
	struct workload *workload = operation->workload;

	if (operation->is_dead) { /* its node stops, and had been given up */
		if (result == 0 && io->kind == GATEWAY_READ)
			for (uint32_t s = 0; s < io->data_count; s++)
				buffer_put(io->data[s].buffer);
		release(operation);
		return;
	}
	if (workload->program->options.is_traced)
		program_trace(workload->program, "%s %s %u+%u of %s: %s: value %u, %.6f s",
			      operation->handle->node->name, kind_names[io->kind], operation->first,
			      operation->count, operation->volume->name,
			      result < 0 ? err_text(result) : "done", operation->value,
			      (double)(sim_now(workload->herd->world) - operation->begin_ns) / 1e9);
	if (result == 0)
		note_end(operation);
	else if (!is_excused(workload, operation, result))
		herd_fail(workload->herd, "%s: %s of %s, sectors %u+%u: %s",
			  operation->handle->node->name, kind_names[io->kind],
			  operation->volume->name, operation->first, operation->count,
			  err_text(result));
	if (result == -E_LOST_WRITES) {
		history_end(operation->volume->history, operation->number,
			    sim_now(workload->herd->world));
		history_note_flush_failed(operation->volume->history, operation->number);
	}
	operation->handle->flying--;
	cds_list_del(&operation->link);
	workload->done++;
	if (operation->client)
		client_next(operation->client);
	release(operation);
}

static void deliver(struct loop *loop, struct loop_mail *mail)
{
	struct operation *operation = container_of_type(mail, struct operation, mail);

	gateway_submit(&operation->io);
}

static struct operation *spare_operation(struct workload *workload)
{
	struct operation *operation;

	if (cds_list_empty(&workload->spare)) {
		operation = malloc(sizeof(*operation));
		assert(operation);
	} else {
		operation = cds_list_first_entry(&workload->spare, struct operation, link);
		cds_list_del(&operation->link);
	}
	memset(operation, 0, sizeof(*operation));
	return operation;
}

static void begin(struct handle *handle, struct client *client, enum gateway_io_kind kind,
		  unsigned flags, uint32_t first, uint32_t count)
{
	struct volume *volume = handle->volume;
	struct workload *workload = volume->workload;
	struct operation *operation = spare_operation(workload);

	operation->workload = workload;
	operation->volume = volume;
	operation->handle = handle;
	operation->client = client;
	operation->first = first;
	operation->count = count;
	operation->begin_ns = sim_now(workload->herd->world);
	operation->io.done = on_done;
	operation->io.volume = handle->use;
	operation->io.kind = kind;
	operation->io.flags = flags;
	operation->io.offset = (uint64_t)first * SECTOR;
	operation->io.length = (uint64_t)count * SECTOR;
	if (kind == GATEWAY_WRITE) {
		operation->value = volume->next_value++;
		operation->buffer = buffer_new(workload->buffers, count * SECTOR);
		assert(operation->buffer);
		for (uint32_t i = 0; i < count; i++)
			fill(volume, operation->buffer->data + (size_t)i * SECTOR, first + i,
			     operation->value);
		operation->io.payload = slice_of(operation->buffer, 0, count * SECTOR);
	}
	note_begin(operation);
	handle->flying++;
	cds_list_add_tail(&operation->link, &workload->operations);
	operation->mail.deliver = deliver;
	loop_post(handle->node->loop, &operation->mail);
}

/* ---- clients ---- */

static bool is_present(const struct handle *handle)
{
	return handle && handle->node->is_up && handle->node->start == handle->start;
}

static struct handle *any_handle(struct workload *workload)
{
	unsigned first = (unsigned)below(workload, workload->volume_count * HERD_NODES_MAX);

	for (unsigned i = 0; i < workload->volume_count * HERD_NODES_MAX; i++) {
		unsigned at = (first + i * 7) % (workload->volume_count * HERD_NODES_MAX);
		struct volume *volume = &workload->volumes[at / HERD_NODES_MAX];
		struct handle *handle = volume->handles[at % HERD_NODES_MAX];
		if (volume->state == VOLUME_OPEN && is_present(handle) &&
		    handle->state == HANDLE_OPEN)
			return handle;
	}
	return NULL;
}

static enum gateway_io_kind any_kind(struct workload *workload)
{
	uint64_t dice = below(workload, 100);

	if (dice < workload->write_share)
		return GATEWAY_WRITE;
	if (dice < 90)
		return GATEWAY_READ;
	if (dice < 94)
		return GATEWAY_ZERO;
	return dice < 97 ? GATEWAY_TRIM : GATEWAY_FLUSH;
}

/* Sectors: parts of a block, some blocks, now and then much. */
static uint32_t any_count(struct workload *workload)
{
	uint64_t dice = below(workload, 100);

	if (dice < 45)
		return 1 + (uint32_t)below(workload, BLOCK_SECTORS);
	if (dice < 80)
		return BLOCK_SECTORS * (1 + (uint32_t)below(workload, 4));
	if (dice < 98)
		return 1 + (uint32_t)below(workload, 16 * BLOCK_SECTORS);
	return 1 + (uint32_t)below(workload, 128 * BLOCK_SECTORS);
}

static void any_range(struct workload *workload, const struct volume *volume, uint32_t *first,
		      uint32_t *count)
{
	*count = min_of(any_count(workload), volume->sectors);
	if (below(workload, 10) < 8) /* around a spot */
		*first = volume->spots[below(workload, 1 + below(workload, SPOTS))] +
			 (uint32_t)(below(workload, 2) ? 0 : below(workload, 4 * BLOCK_SECTORS));
	else
		*first = (uint32_t)below(workload, volume->sectors);
	if (below(workload, 3) > 0)
		*first = (uint32_t)round_down(*first, BLOCK_SECTORS);
	*first = min_of(*first, volume->sectors - *count);
}

static void on_client(struct sim_event *event)
{
	struct client *client = container_of_type(event, struct client, event);
	struct workload *workload = client->workload;
	struct handle *handle = any_handle(workload);
	enum gateway_io_kind kind = any_kind(workload);
	unsigned flags = 0;
	uint32_t first = 0, count = 0;

	if (!workload->is_running)
		return;
	if (!handle) {
		client_next(client);
		return;
	}
	if (handle->volume->prefill < handle->volume->sectors) {
		kind = GATEWAY_WRITE;
		first = handle->volume->prefill;
		count = min_of(PREFILL_SECTORS, handle->volume->sectors - first);
		handle->volume->prefill += count;
	} else if (kind != GATEWAY_FLUSH) {
		any_range(workload, handle->volume, &first, &count);
	}
	if (kind != GATEWAY_READ && kind != GATEWAY_FLUSH && below(workload, 12) == 0)
		flags = GATEWAY_FUA;
	begin(handle, client, kind, flags, first, count);
}

/* ---- handles ---- */

static void on_opened(struct gateway_open *open, int result)
{
	struct handle *handle = container_of_type(open, struct handle, open);

	if (result < 0) {
		handle->state = HANDLE_NONE;
		return;
	}
	if (handle->state != HANDLE_OPENING) {
		gateway_close(open->volume);
		return;
	}
	handle->use = open->volume;
	handle->state = HANDLE_OPEN;
}

static void deliver_open(struct loop *loop, struct loop_mail *mail)
{
	struct handle *handle = container_of_type(mail, struct handle, mail);

	if (handle->state == HANDLE_OPENING)
		gateway_open(handle->node->gateway, &handle->open, handle->volume->name, 0);
}

static void deliver_close(struct loop *loop, struct loop_mail *mail)
{
	struct handle *handle = container_of_type(mail, struct handle, mail);

	if (handle->use)
		gateway_close(handle->use);
	handle->use = NULL;
	handle->state = HANDLE_NONE;
}

static void open_handle(struct volume *volume, struct herd_node *node)
{
	struct handle *handle = volume->handles[node->number];

	if (!handle) {
		handle = calloc(1, sizeof(*handle));
		assert(handle);
		handle->volume = volume;
		handle->node = node;
		handle->start = node->start;
		handle->client = volume->workload->next_client++;
		volume->handles[node->number] = handle;
	}
	if (handle->state != HANDLE_NONE)
		return;
	handle->state = HANDLE_OPENING;
	handle->open = (struct gateway_open){.done = on_opened};
	handle->mail.deliver = deliver_open;
	loop_post(node->loop, &handle->mail);
}

static void close_handle(struct handle *handle)
{
	if (!handle || handle->state != HANDLE_OPEN || handle->flying)
		return;
	handle->state = HANDLE_CLOSING;
	handle->mail.deliver = deliver_close;
	loop_post(handle->node->loop, &handle->mail);
}

/* A start of @node ends: nobody hears from its gateway any more. */
static void node_died(struct herd *herd, unsigned node)
{
	struct program *program = herd->context;
	struct workload *workload = program->workload;
	struct operation *operation, *next;

	cds_list_for_each_entry_safe(operation, next, &workload->operations, link) {
		if (operation->handle->node->number != node)
			continue;
		cds_list_del(&operation->link);
		operation->is_dead = true;
		if (operation->client)
			client_next(operation->client);
	}
	for (unsigned v = 0; v < workload->volume_count; v++) {
		struct handle *handle = workload->volumes[v].handles[node];
		/* In a clean stop close_volumes() gives it back. */
		if (is_present(handle))
			handle->state = HANDLE_CLOSING;
	}
}

static void close_volumes(struct herd *herd, unsigned node)
{
	struct program *program = herd->context;

	for (unsigned v = 0; v < program->workload->volume_count; v++) {
		struct handle *handle = program->workload->volumes[v].handles[node];
		if (!is_present(handle) || !handle->use)
			continue;
		gateway_close(handle->use);
		handle->use = NULL;
	}
}

/* ---- volumes ---- */

bool workload_create(struct workload *workload)
{
	static const uint64_t sizes[] = {1 * MIB, 3 * MIB, 4 * MIB, 5 * MIB, 8 * MIB, 13 * MIB};
	struct volume *volume = &workload->volumes[workload->volume_count];
	unsigned live = 0;

	for (unsigned i = 0; i < workload->volume_count; i++)
		live += workload->volumes[i].state != VOLUME_GONE;
	if (workload->volume_count == VOLUMES_MAX || live >= 4)
		return false;
	volume->workload = workload;
	volume->number = ++workload->volume_count;
	volume->state = VOLUME_CREATING;
	volume->next_value = 1;
	(void)snprintf(volume->name, sizeof(volume->name), "v%u", volume->number);
	volume->size_bytes = sizes[below(workload, ARRAY_COUNT(sizes))];
	if (below(workload, 3) == 0)
		volume->size_bytes += SECTOR * below(workload, 20);
	volume->sectors = (uint32_t)(volume->size_bytes / SECTOR);
	for (unsigned i = 0; i < SPOTS; i++) {
		uint64_t at = below(workload, volume->size_bytes);
		if (i < 2) /* across a border, if there is one */
			at = round_down(at, (uint64_t)OBJECT_SIZE);
		volume->spots[i] = (uint32_t)(max_of(at, 16 * (uint64_t)SECTOR) / SECTOR) - 16;
	}
	volume->history = history_new(volume->sectors);
	volume->prefill = below(workload, 4) == 0 ? 0 : volume->sectors;
	return true;
}

bool workload_delete(struct workload *workload)
{
	unsigned live = 0, pick;

	for (unsigned i = 0; i < workload->volume_count; i++)
		live += workload->volumes[i].state == VOLUME_OPEN;
	if (live < 2)
		return false;
	pick = (unsigned)below(workload, live);
	for (unsigned i = 0; i < workload->volume_count; i++)
		if (workload->volumes[i].state == VOLUME_OPEN && pick-- == 0)
			workload->volumes[i].state = VOLUME_CLOSING;
	return true;
}

/* May it be proposed (again) now? */
static bool is_time(struct volume *volume)
{
	uint64_t now = sim_now(volume->workload->herd->world);

	if (volume->proposed_ns && now < volume->proposed_ns + CREATE_AGAIN_NS)
		return false;
	volume->proposed_ns = now;
	return true;
}

static void try_create(struct volume *volume, const struct cluster_map *map)
{
	const struct cluster_property shared = {.key = "access", .value = "shared"};
	const struct cluster_volume *row = cluster_volume_by_name(map, volume->name);

	if (row) {
		volume->id = row->id;
		volume->family = row->family;
		volume->state = VOLUME_OPEN;
		volume->proposed_ns = 0;
	} else if (is_time(volume)) {
		herd_propose(volume->workload->herd,
			     cluster_command_volume_create(volume->name, volume->size_bytes, 0,
							   &shared, 1));
	}
}

static void open_everywhere(struct volume *volume)
{
	struct herd *herd = volume->workload->herd;

	for (unsigned i = 0; i < herd->node_count; i++) {
		struct herd_node *node = &herd->nodes[i];
		if (!is_present(volume->handles[i]))
			volume->handles[i] = NULL; /* of a start that is over */
		if (node->is_up && node->session && cluster_volume(node->map, volume->id) &&
		    !volume->workload->program->is_leaving[i])
			open_handle(volume, node);
	}
}

static void try_close(struct volume *volume)
{
	bool is_used = false;

	for (unsigned i = 0; i < HERD_NODES_MAX; i++) {
		struct handle *handle = volume->handles[i];
		if (!is_present(handle))
			volume->handles[i] = handle = NULL;
		close_handle(handle);
		is_used |= handle && handle->state != HANDLE_NONE;
	}
	if (!is_used)
		volume->state = VOLUME_DELETING;
}

static void try_delete(struct volume *volume, const struct cluster_map *map)
{
	if (!cluster_volume(map, volume->id))
		volume->state = VOLUME_GONE;
	else if (is_time(volume))
		herd_propose(volume->workload->herd, cluster_command_volume_delete(volume->id));
}

void workload_tick(struct workload *workload)
{
	struct cluster_map *map = herd_map(workload->herd);

	for (unsigned i = 0; i < workload->volume_count && map; i++) {
		struct volume *volume = &workload->volumes[i];
		if (volume->state == VOLUME_CREATING)
			try_create(volume, map);
		if (volume->state == VOLUME_OPEN)
			open_everywhere(volume);
		else if (volume->state == VOLUME_CLOSING)
			try_close(volume);
		else if (volume->state == VOLUME_DELETING)
			try_delete(volume, map);
	}
}

bool workload_is_settled(struct workload *workload)
{
	struct herd *herd = workload->herd;

	for (unsigned v = 0; v < workload->volume_count; v++) {
		struct volume *volume = &workload->volumes[v];
		if (volume->state != VOLUME_OPEN && volume->state != VOLUME_GONE)
			return false;
		for (unsigned i = 0; i < herd->node_count; i++)
			if (volume->state == VOLUME_OPEN && herd->nodes[i].is_up &&
			    !workload->program->is_leaving[i] &&
			    (!volume->handles[i] || volume->handles[i]->state != HANDLE_OPEN))
				return false;
	}
	return true;
}

/* ---- losses ---- */

void workload_note_loss(struct workload *workload, uint32_t pg)
{
	struct cluster_map *map = herd_map(workload->herd);
	const struct cluster_policy *policy = cluster_policy(map, 0);

	for (unsigned v = 0; v < workload->volume_count; v++) {
		struct volume *volume = &workload->volumes[v];
		uint32_t objects = (uint32_t)((volume->size_bytes + OBJECT_SIZE - 1) / OBJECT_SIZE);
		if (!volume->id)
			continue;
		for (uint32_t i = 0; i < objects; i++) {
			uint32_t first = i * (OBJECT_SIZE / SECTOR);
			if (cluster_pg_of(policy, volume->family, i) == pg)
				history_note_loss(
					volume->history, first,
					min_of(volume->sectors - first, OBJECT_SIZE / SECTOR),
					sim_now(workload->herd->world));
		}
	}
}

/* ---- the end ---- */

static bool is_idle(void *context)
{
	return workload_is_idle(context);
}

static void wait_for_all(struct workload *workload)
{
	if (sim_world_run_until(workload->herd->world,
				sim_now(workload->herd->world) + 30 * NS_PER_S, is_idle, workload))
		return;
	workload_print_waiting(workload);
	herd_print(workload->herd);
	herd_fail(workload->herd, "operations are not answered");
}

static void read_volume(struct volume *volume)
{
	struct workload *workload = volume->workload;
	uint32_t step = 64 * BLOCK_SECTORS;

	for (uint32_t at = 0; at < volume->sectors; at += step) {
		struct handle *handle = NULL;
		unsigned pick = (unsigned)below(workload, HERD_NODES_MAX);
		for (unsigned i = 0; i < HERD_NODES_MAX && !handle; i++) {
			handle = volume->handles[(pick + i) % HERD_NODES_MAX];
			if (!is_present(handle) || handle->state != HANDLE_OPEN)
				handle = NULL;
		}
		HERD_REQUIRE(workload->herd, handle);
		begin(handle, NULL, GATEWAY_READ, 0, at, min_of(step, volume->sectors - at));
	}
}

void workload_check(struct workload *workload)
{
	for (unsigned v = 0; v < workload->volume_count; v++)
		if (workload->volumes[v].state == VOLUME_OPEN)
			read_volume(&workload->volumes[v]);
	wait_for_all(workload);
	for (unsigned v = 0; v < workload->volume_count; v++) {
		struct volume *volume = &workload->volumes[v];
		workload->program->figures->sectors += history_size(volume->history);
		if (!history_check(volume->history, stderr))
			herd_fail(workload->herd, "volume %s is not linearizable", volume->name);
	}
}

/* ---- life ---- */

struct workload *workload_new(struct program *program)
{
	struct workload *workload = calloc(1, sizeof(*workload));
	uint64_t count;

	assert(workload);
	workload->program = program;
	workload->herd = program->herd;
	workload->buffers = buffer_cache_new(8 * MIB);
	CDS_INIT_LIST_HEAD(&workload->operations);
	CDS_INIT_LIST_HEAD(&workload->spare);
	workload->client_count = 4 + (unsigned)below(workload, 12);
	workload->nap_ns = NS_PER_MS * (1 + below(workload, 8));
	workload->rest_ns = 2 * NS_PER_S * workload->client_count;
	workload->write_share = 30 + (unsigned)below(workload, 40);
	program->herd->context = program;
	program->herd->node_died = node_died;
	program->herd->close_volumes = close_volumes;
	count = 1 + below(workload, 3);
	for (uint64_t i = 0; i < count; i++)
		(void)workload_create(workload);
	return workload;
}

void workload_free(struct workload *workload)
{
	struct operation *operation, *next;

	if (!workload)
		return;
	cds_list_for_each_entry_safe(operation, next, &workload->spare, link)
		free(operation);
	for (unsigned v = 0; v < workload->volume_count; v++)
		history_free(workload->volumes[v].history);
	buffer_cache_free(workload->buffers);
	free(workload);
}

void workload_start(struct workload *workload)
{
	workload->is_running = true;
	for (unsigned i = 0; i < workload->client_count; i++) {
		struct client *client = &workload->clients[i];
		client->workload = workload;
		client->event.run = on_client;
		client_next(client);
	}
}

void workload_burst(struct workload *workload)
{
	for (unsigned i = 0; i < workload->client_count; i++) {
		struct client *client = &workload->clients[i];
		client->burst = 10 + (unsigned)below(workload, 40);
		if (client->event.heap_index)
			client_next(client);
	}
}

void workload_stop(struct workload *workload)
{
	workload->is_running = false;
	for (unsigned i = 0; i < workload->client_count; i++)
		sim_unschedule(workload->herd->world, &workload->clients[i].event);
}

bool workload_is_idle(struct workload *workload)
{
	return cds_list_empty(&workload->operations);
}

uint64_t workload_oldest(struct workload *workload)
{
	struct operation *operation;
	uint64_t oldest = UINT64_MAX;

	cds_list_for_each_entry(operation, &workload->operations, link) {
		unsigned node = operation->handle->node->number;
		uint64_t since = max_of(operation->begin_ns, workload->program->well_ns[node]);
		if (!faults_has_node(workload->program, node))
			oldest = min_of(oldest, since);
	}
	return oldest == UINT64_MAX ? 0 : oldest;
}

uint64_t workload_operations(const struct workload *workload)
{
	return workload->done;
}

void workload_print_waiting(struct workload *workload)
{
	struct operation *operation;

	cds_list_for_each_entry(operation, &workload->operations, link)
		(void)fprintf(stderr, "waits since %.6f: %s %s %u+%u of %s, value %u\n",
			      (double)operation->begin_ns / 1e9, operation->handle->node->name,
			      kind_names[operation->io.kind], operation->first, operation->count,
			      operation->volume->name, operation->value);
}
