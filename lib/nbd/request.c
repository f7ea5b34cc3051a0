/*
 * Requests: where they live, and their way from the header to the sent reply.
 *
 *   SPARE --header--> ARRIVING --payload--> HANDED --nbd_request_reply()--> REPLIED --sent--> SPARE
 *                        +----- refused ------------------------------------>^
 *
 * Memory comes in chunks that the device keeps, so that a connection that has once been as busy as
 * it gets does not allocate any more, and an idle one has cost a chunk at most. The limits of a
 * connection are enforced here and nowhere else: requests and payload bytes in flight. One request
 * is always admitted, whatever its size.
 */
#include "lib/nbd/nbd_priv.h"

#include <stdlib.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"

#define CHUNK_FIRST 4u
#define CHUNK_MAX   64u
#define CHUNK_HEAD  64u /* keeps requests aligned behind struct request_chunk */

static void grow(struct nbd_device *device)
{
	uint32_t size = device->server->request_size;
	/* As many again as there are: few steps to the top, little for a shy connection. */
	uint32_t count = min_of(max_of(device->made, CHUNK_FIRST), CHUNK_MAX);
	struct request_chunk *chunk = aligned_alloc(64, CHUNK_HEAD + count * (size_t)size);

	if (!chunk)
		return;
	chunk->next = device->chunks;
	device->chunks = chunk;
	device->stats.grown++;
	device->made += count;
	for (uint32_t i = 0; i < count; i++) {
		struct nbd_request *request =
			(void *)((uint8_t *)chunk + CHUNK_HEAD + i * (size_t)size);
		request->stage = REQUEST_SPARE;
		cds_list_add_tail(&request->link, &device->spare);
	}
}

static struct nbd_request *take_spare(struct nbd_device *device)
{
	const struct nbd_callbacks *callbacks = &device->server->callbacks;

	if (callbacks->alloc_request)
		return callbacks->alloc_request(device, device->server->request_size);
	if (cds_list_empty(&device->spare))
		grow(device);
	if (cds_list_empty(&device->spare))
		return NULL;
	/* The one used last is the one that is still in the processor's cache. */
	struct nbd_request *request =
		cds_list_first_entry(&device->spare, struct nbd_request, link);
	cds_list_del(&request->link);
	return request;
}

struct nbd_request *request_new(struct nbd_device *device, uint64_t payload)
{
	const struct nbd_limits *limits = &device->server->limits;
	bool is_full = device->in_flight >= limits->in_flight_max ||
		       device->in_flight_bytes + payload > limits->in_flight_bytes_max;

	if (is_full && device->in_flight > 0)
		return NULL;
	struct nbd_request *request = take_spare(device);
	if (!request)
		return NULL;
	device->in_flight++;
	device->in_flight_bytes += payload;
	request->device = device;
	request->stage = REQUEST_ARRIVING;
	request->was_handed = false;
	request->payload = (struct slice){0};
	request->counted = payload;
	request->slice_count = 0;
	return request;
}

void request_free(struct nbd_request *request)
{
	struct nbd_device *device = request->device;
	const struct nbd_callbacks *callbacks = &device->server->callbacks;

	assert(request->stage != REQUEST_SPARE);
	request->stage = REQUEST_SPARE;
	buffer_put(request->payload.buffer);
	device->in_flight--;
	device->in_flight_bytes -= request->counted;
	if (callbacks->free_request)
		callbacks->free_request(device, request);
	else
		cds_list_add(&request->link, &device->spare);
	nbd_device_resume(device);
}

void requests_done(struct nbd_device *device)
{
	struct request_chunk *chunk = device->chunks;

	while (chunk) {
		struct request_chunk *next = chunk->next;
		free(chunk);
		chunk = next;
	}
}

void *nbd_request_private(struct nbd_request *request)
{
	return (uint8_t *)request + round_up(sizeof(*request), 16);
}

void request_hand(struct nbd_request *request)
{
	struct nbd_device *device = request->device;

	request->stage = REQUEST_HANDED;
	request->was_handed = true;
	device->handed++;
	if (request->command->handle)
		request->command->handle(request);
	else
		device->server->callbacks.handle_request(request);
}
