/*
 * Replies: a queue in the order in which they were given, taken as spans.
 *
 * A reply's header and the list of its slices are in its request, so queueing one copies no data
 * and allocates nothing. Spans stay valid until nbd_device_sent() or nbd_device_close(): whatever
 * happens to the connection meanwhile, the memory of a send in flight is not touched.
 * Structured replies will be another way to fill a request's header and list; the queue stays.
 */
#include "lib/nbd/nbd_priv.h"

#include "lib/base/assert.h"
#include "lib/base/size.h"

/*
 * ENOTSUP answers FAST_ZERO only and EOVERFLOW answers DF only (proto.md, WRITE_ZEROES and READ);
 * whatever else a backend means by them is EINVAL to a client.
 */
static enum nbd_error legal_error(const struct nbd_request *request, int rc)
{
	enum nbd_error error = nbd_error_of(rc);

	if (error == NBD_ENOTSUP && !(request->flags & NBD_CMD_FLAG_FAST_ZERO))
		return NBD_EINVAL;
	if (error == NBD_EOVERFLOW && !(request->flags & NBD_CMD_FLAG_DF))
		return NBD_EINVAL;
	return error;
}

static void set_slices(struct nbd_request *request, const struct slice *slices, unsigned count)
{
	uint64_t size = 0;

	for (unsigned i = 0; i < count; i++)
		size += slices[i].size;
	assert(size == request->length);
	request->slices = slices;
	if (count <= NBD_REPLY_SLICES) {
		for (unsigned i = 0; i < count; i++)
			request->own_slices[i] = slices[i];
		request->slices = request->own_slices;
	}
	request->slice_count = count;
}

/* The end of a request whose reply has been sent, or will never be. */
static void release(struct nbd_request *request, int result)
{
	const struct nbd_callbacks *callbacks = &request->device->server->callbacks;

	for (uint32_t i = 0; i < request->slice_count; i++)
		buffer_put(request->slices[i].buffer);
	request->slice_count = 0;
	if (request->was_handed && callbacks->reply_done)
		callbacks->reply_done(request, result);
	request_free(request);
}

static void queue(struct nbd_request *request, enum nbd_error error)
{
	struct nbd_device *device = request->device;
	bool was_empty = cds_list_empty(&device->replies);

	request->stage = REQUEST_REPLIED;
	request->reply = (struct nbd_simple_reply){
		.magic = to_be32(NBD_SIMPLE_REPLY_MAGIC),
		.error = to_be32(error),
		.cookie = to_be64(request->cookie),
	};
	cds_list_add_tail(&request->link, &device->replies);
	if (was_empty)
		device_wake(device);
}

void request_answer(struct nbd_request *request, int rc)
{
	assert(request->stage == REQUEST_ARRIVING);
	/* The payload of a refused request is not kept while its reply waits. */
	buffer_put(request->payload.buffer);
	request->payload = (struct slice){0};
	request->data_size = 0;
	if (rc != 0)
		request->device->stats.refused++;
	queue(request, legal_error(request, rc));
}

void nbd_request_reply(struct nbd_request *request, int rc, const struct slice *slices,
		       unsigned count)
{
	struct nbd_device *device = request->device;
	bool has_data = rc == 0 && (request->command->traits & NBD_COMMAND_DATA);

	assert(request->stage == REQUEST_HANDED);
	assert(has_data || rc != 0 || count == 0);
	device->handed--;
	request->data_size = has_data ? request->length : 0;
	if (has_data)
		set_slices(request, slices, count);
	buffer_put(request->payload.buffer);
	request->payload = (struct slice){0};
	if (device->state == NBD_DEVICE_CLOSED) {
		release(request, -E_CLOSED);
		device_settle(device);
		return;
	}
	queue(request, legal_error(request, rc));
}

/* ---- spans ---- */

struct spans {
	struct iovec *iov;
	unsigned count;
	unsigned max;
	size_t skip; /* bytes that have gone already */
};

static void add_span(struct spans *spans, const void *data, size_t size)
{
	size_t gone = min_of(spans->skip, size);

	spans->skip -= gone;
	if (gone == size || spans->count == spans->max)
		return;
	spans->iov[spans->count].iov_base = (uint8_t *)data + gone;
	spans->iov[spans->count].iov_len = size - gone;
	spans->count++;
}

unsigned nbd_device_output(struct nbd_device *device, struct iovec *iov, unsigned max)
{
	struct spans spans = {.iov = iov, .max = max, .skip = device->sent};
	struct nbd_request *request;

	if (device->state >= NBD_DEVICE_DRAINED)
		return 0;
	cds_list_for_each_entry(request, &device->replies, link) {
		add_span(&spans, &request->reply, sizeof(request->reply));
		for (uint32_t i = 0; i < request->slice_count; i++)
			add_span(&spans, request->slices[i].data, request->slices[i].size);
		if (spans.count == max)
			break;
	}
	return spans.count;
}

void nbd_device_sent(struct nbd_device *device, size_t bytes)
{
	device->sent += bytes;
	while (!cds_list_empty(&device->replies)) {
		struct nbd_request *request =
			cds_list_first_entry(&device->replies, struct nbd_request, link);
		size_t size = sizeof(request->reply) + request->data_size;
		if (device->sent < size)
			break;
		device->sent -= size;
		device->stats.bytes_out += request->data_size;
		cds_list_del(&request->link);
		release(request, 0);
	}
	assert(device->sent == 0 || !cds_list_empty(&device->replies));
	device_settle(device);
}

void replies_drop(struct nbd_device *device)
{
	while (!cds_list_empty(&device->replies)) {
		struct nbd_request *request =
			cds_list_first_entry(&device->replies, struct nbd_request, link);
		cds_list_del(&request->link);
		release(request, -E_CLOSED);
	}
	device->sent = 0;
}
