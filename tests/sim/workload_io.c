/*
 * Operations of clients, what is in their bytes, and what is said of them to the histories.
 *
 * Every sector that is written says in every word which write it was, of which sector of which volume.
 */
#include "tests/sim/workload_priv.h"

#include <stdlib.h>
#include <string.h>

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

void workload_next(struct client *client)
{
	struct workload *workload = client->workload;
	uint64_t nap = workload_below(workload, workload->nap_ns);

	if (!workload->is_running)
		return;
	if (client->burst-- == 0) {
		client->burst = 1 + (unsigned)workload_below(workload, 40);
		nap = workload_below(workload, workload->rest_ns);
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
		workload_next(operation->client);
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

void workload_begin(struct handle *handle, struct client *client, enum gateway_io_kind kind,
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

static struct handle *any_handle(struct workload *workload)
{
	unsigned first =
		(unsigned)workload_below(workload, workload->volume_count * HERD_NODES_MAX);

	for (unsigned i = 0; i < workload->volume_count * HERD_NODES_MAX; i++) {
		unsigned at = (first + i * 7) % (workload->volume_count * HERD_NODES_MAX);
		struct volume *volume = &workload->volumes[at / HERD_NODES_MAX];
		struct handle *handle = volume->handles[at % HERD_NODES_MAX];
		if (volume->state == VOLUME_OPEN && workload_is_present(handle) &&
		    handle->state == HANDLE_OPEN)
			return handle;
	}
	return NULL;
}

static enum gateway_io_kind any_kind(struct workload *workload)
{
	uint64_t dice = workload_below(workload, 100);

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
	uint64_t dice = workload_below(workload, 100);

	if (dice < 45)
		return 1 + (uint32_t)workload_below(workload, BLOCK_SECTORS);
	if (dice < 80)
		return BLOCK_SECTORS * (1 + (uint32_t)workload_below(workload, 4));
	if (dice < 98)
		return 1 + (uint32_t)workload_below(workload, 16 * BLOCK_SECTORS);
	return 1 + (uint32_t)workload_below(workload, 128 * BLOCK_SECTORS);
}

static void any_range(struct workload *workload, const struct volume *volume, uint32_t *first,
		      uint32_t *count)
{
	*count = min_of(any_count(workload), volume->sectors);
	if (workload_below(workload, 10) < 8) /* around a spot */
		*first = volume->spots[workload_below(workload,
						      1 + workload_below(workload, SPOTS))] +
			 (uint32_t)(workload_below(workload, 2)
					    ? 0
					    : workload_below(workload, 4 * BLOCK_SECTORS));
	else
		*first = (uint32_t)workload_below(workload, volume->sectors);
	if (workload_below(workload, 3) > 0)
		*first = (uint32_t)round_down(*first, BLOCK_SECTORS);
	*first = min_of(*first, volume->sectors - *count);
}

void workload_on_client(struct sim_event *event)
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
		workload_next(client);
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
	if (kind != GATEWAY_READ && kind != GATEWAY_FLUSH && workload_below(workload, 12) == 0)
		flags = GATEWAY_FUA;
	workload_begin(handle, client, kind, flags, first, count);
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
