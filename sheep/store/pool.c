/*
 * Batches in memory: made as the load needs them, filled, and used again.
 *
 * What was in the hands of the kernel when the shard failed is never used again (batch_destroy()
 * runs when it comes back, if ever).
 */
#include <stdlib.h>

#include "sheep/store/store_priv.h"

static struct batch *batch_new(struct shard *shard)
{
	struct batch *batch = calloc(1, sizeof(*batch));

	if (!batch)
		return NULL;
	batch->shard = shard;
	batch->descriptor = buffer_new(loop_buffers(shard->loop), DESCRIPTOR_SIZE);
	if (!batch->descriptor) {
		free(batch);
		return NULL;
	}
	CDS_INIT_LIST_HEAD(&batch->link);
	CDS_INIT_LIST_HEAD(&batch->appends);
	batch->io.done = log_on_written;
	batch->waiter.ready = log_on_pages;
	return batch;
}

void batch_destroy(struct batch *batch)
{
	if (!batch)
		return;
	for (uint32_t i = 0; i < batch->held_count; i++)
		buffer_put(batch->held[i]);
	free(batch->held);
	buffer_put(batch->descriptor);
	free(batch);
}

/*
 * A batch that ends with the segment wastes nothing. Internal batches go first: where they will end is
 * foreseen; what callers have queued is not.
 */
static uint32_t blocks_for(struct shard *shard, bool is_internal)
{
	uint32_t at = shard->block;
	struct batch *batch;

	if (!is_internal && !cds_list_empty(&shard->queue))
		return shard->batch_blocks_max;
	cds_list_for_each_entry(batch, &shard->internal, link) {
		uint32_t blocks =
			batch_descriptor_blocks(batch->writer.used) + batch->payload_blocks;
		at = at + blocks <= shard->segment_blocks ? at + blocks : blocks;
	}
	if (shard->segment_blocks - at <= 2)
		return shard->batch_blocks_max;
	return min_of(shard->batch_blocks_max, shard->segment_blocks - at - 2);
}

/* They are made as the load needs them and kept: in steady state none is allocated. */
struct batch *batch_get(struct shard *shard, bool is_internal)
{
	struct batch *batch;

	if (cds_list_empty(&shard->spare_batches)) {
		batch = batch_new(shard);
		if (!batch)
			return NULL;
	} else {
		batch = cds_list_first_entry(&shard->spare_batches, struct batch, link);
		cds_list_del(&batch->link);
	}
	CDS_INIT_LIST_HEAD(&batch->link);
	batch_begin(&batch->writer, batch->descriptor->data, DESCRIPTOR_SIZE);
	batch->state = BATCH_OPEN;
	batch->is_internal = is_internal;
	batch->ticket = is_internal ? 0 : shard->next_ticket++;
	batch->payload_blocks = 0;
	batch->blocks_max = blocks_for(shard, is_internal);
	batch->iov_count = 1;
	batch->apply_offset = 0;
	batch->sets = 0;
	batch->charge = 0;
	batch->applied = NULL;
	batch->context = NULL;
	return batch;
}

void batch_put(struct batch *batch)
{
	for (uint32_t i = 0; i < batch->held_count; i++)
		buffer_put(batch->held[i]);
	batch->held_count = 0;
	cds_list_del(&batch->link);
	cds_list_add(&batch->link, &batch->shard->spare_batches);
}

int batch_hold(struct batch *batch, struct buffer *buffer)
{
	if (batch->held_count == batch->held_max) {
		uint32_t max = batch->held_max ? batch->held_max * 2 : 16;
		void *held = realloc(batch->held, max * sizeof(struct buffer *));
		if (!held)
			return -ENOMEM;
		batch->held = held;
		batch->held_max = max;
	}
	batch->held[batch->held_count++] = buffer;
	return 0;
}

void batch_add_iov(struct batch *batch, void *data, uint32_t size)
{
	struct iovec *last = &batch->iov[batch->iov_count - 1];

	if (batch->iov_count > 1 && (uint8_t *)last->iov_base + last->iov_len == data) {
		last->iov_len += size;
		return;
	}
	assert(batch->iov_count <= BATCH_IOVECS_MAX);
	batch->iov[batch->iov_count++] = (struct iovec){data, size};
}

/* What is left of the descriptor is kept for commit points. */
bool batch_has_room(const struct batch *batch, uint32_t entry_bytes, uint32_t blocks,
		    uint32_t iovecs)
{
	bool is_empty = batch->writer.entry_count == 0;

	return entry_bytes + 4096 <= batch_room(&batch->writer) &&
	       (is_empty || batch->payload_blocks + blocks <= batch->blocks_max) &&
	       batch->iov_count + iovecs <= BATCH_IOVECS_MAX;
}
