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
#include "tests/sim/workload_priv.h"

#include <stdlib.h>
#include <string.h>

#define LARGE (14 * MIB) /* three or four of them fill a small store */

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
	volume->size_bytes = sizes[workload_below(workload, ARRAY_COUNT(sizes))];
	if (workload->program->is_small)
		volume->size_bytes += LARGE;
	if (workload_below(workload, 3) == 0)
		volume->size_bytes += SECTOR * workload_below(workload, 20);
	volume->sectors = (uint32_t)(volume->size_bytes / SECTOR);
	for (unsigned i = 0; i < SPOTS; i++) {
		uint64_t at = workload_below(workload, volume->size_bytes);
		if (i < 2) /* across a border, if there is one */
			at = round_down(at, (uint64_t)OBJECT_SIZE);
		volume->spots[i] = (uint32_t)(max_of(at, 16 * (uint64_t)SECTOR) / SECTOR) - 16;
	}
	volume->history = history_new(volume->sectors);
	volume->prefill = workload_below(workload, 4) == 0 ? 0 : volume->sectors;
	return true;
}

bool workload_delete(struct workload *workload)
{
	unsigned live = 0, pick;

	for (unsigned i = 0; i < workload->volume_count; i++)
		live += workload->volumes[i].state == VOLUME_OPEN;
	if (live < 2)
		return false;
	pick = (unsigned)workload_below(workload, live);
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
		if (!workload_is_present(volume->handles[i]))
			volume->handles[i] = NULL; /* of a start that is over */
		if (node->is_up && node->session && cluster_volume(node->map, volume->id) &&
		    !volume->workload->program->is_leaving[i])
			workload_open_handle(volume, node);
	}
}

static void try_close(struct volume *volume)
{
	bool is_used = false;

	for (unsigned i = 0; i < HERD_NODES_MAX; i++) {
		struct handle *handle = volume->handles[i];
		if (!workload_is_present(handle))
			volume->handles[i] = handle = NULL;
		workload_close_handle(handle);
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
		unsigned pick = (unsigned)workload_below(workload, HERD_NODES_MAX);
		for (unsigned i = 0; i < HERD_NODES_MAX && !handle; i++) {
			handle = volume->handles[(pick + i) % HERD_NODES_MAX];
			if (!workload_is_present(handle) || handle->state != HANDLE_OPEN)
				handle = NULL;
		}
		HERD_REQUIRE(workload->herd, handle);
		workload_begin(handle, NULL, GATEWAY_READ, 0, at,
			       min_of(step, volume->sectors - at));
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
	workload->client_count = 4 + (unsigned)workload_below(workload, 12);
	workload->nap_ns = NS_PER_MS * (1 + workload_below(workload, 8));
	workload->rest_ns = 2 * NS_PER_S * workload->client_count;
	workload->write_share = 30 + (unsigned)workload_below(workload, 40);
	program->herd->context = program;
	program->herd->node_died = workload_node_died;
	program->herd->close_volumes = workload_close_volumes;
	count = 1 + workload_below(workload, 3);
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
		client->event.run = workload_on_client;
		workload_next(client);
	}
}

void workload_burst(struct workload *workload)
{
	for (unsigned i = 0; i < workload->client_count; i++) {
		struct client *client = &workload->clients[i];
		client->burst = 10 + (unsigned)workload_below(workload, 40);
		if (client->event.heap_index)
			workload_next(client);
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
