/*
 * One connection in transmission (proto.md, Transmission): requests in, whole and checked.
 *
 *        +--------------- handed over, refused without payload ------------------+
 *        v                                                                       |
 *   HEADER --header--> [limits] --ok--> [judge] --good, has payload--> PAYLOAD --+
 *     ^                   |                |                                     |
 *     |                BLOCKED             +--refused, has payload--> SKIP ------+
 *     |                   |
 *     +---- one freed ----+
 *
 *   HEADER, PAYLOAD, SKIP --DISC, end of stream--> DRAINING --all sent--> DRAINED
 *   any of these --bad magic--> FAILED           any --closed--> CLOSED --backend done--> GONE
 *
 * Always true: (1) a request reaches the backend whole or not at all; (2) the bytes of a refused
 * request's payload are consumed, whatever it was refused for; (3) a request gets one reply, except
 * that a dropped connection gets none; (4) what was read before DISC or the end of the stream is
 * answered and sent; (5) the export is closed once, after the backend has answered everything.
 *
 * Payload is not copied: if it lies in the received slice it is passed on as a part of it. If not,
 * what has come is copied to a new buffer and the rest is received there (nbd_device_want()).
 */
#include "lib/nbd/nbd_priv.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"

static uint32_t take_header(struct nbd_device *device, const struct slice *in);
static uint32_t take_payload(struct nbd_device *device, const struct slice *in);
static uint32_t take_skipped(struct nbd_device *device, const struct slice *in);
static uint32_t drop(struct nbd_device *device, const struct slice *in);

/* A state without `take` leaves its input to whoever feeds. */
static const struct {
	const char *name;
	uint16_t next;
	uint32_t (*take)(struct nbd_device *device, const struct slice *in);
} states[NBD_DEVICE_STATE_COUNT] = {
#define STATE_TEXT(state, text) [NBD_DEVICE_##state].name = text,
	NBD_DEVICE_STATES(STATE_TEXT)
#undef STATE_TEXT
#define STATE(state, function, ...) \
	[NBD_DEVICE_##state].take = function, [NBD_DEVICE_##state].next = __VA_ARGS__
#define TO(state) BIT(NBD_DEVICE_##state)
#define TO_ENDS	  (TO(DRAINING) | TO(DRAINED) | TO(FAILED) | TO(CLOSED))
		STATE(HEADER, take_header, TO(PAYLOAD) | TO(SKIP) | TO(BLOCKED) | TO_ENDS),
	STATE(PAYLOAD, take_payload, TO(HEADER) | TO(SKIP) | TO_ENDS),
	STATE(SKIP, take_skipped, TO(HEADER) | TO_ENDS),
	STATE(BLOCKED, NULL, TO(HEADER) | TO(PAYLOAD) | TO(SKIP) | TO_ENDS),
	STATE(DRAINING, drop, TO(DRAINED) | TO(CLOSED)),
	STATE(DRAINED, drop, TO(CLOSED)),
	STATE(FAILED, drop, TO(CLOSED)),
	STATE(CLOSED, drop, TO(GONE)),
	STATE(GONE, drop, 0),
#undef STATE
#undef TO
#undef TO_ENDS
};

/* The only place that writes device->state. */
void device_enter(struct nbd_device *device, enum nbd_device_state next)
{
	if (device->state == next)
		return;
	assert(states[device->state].next & BIT(next));
	device->state = next;
	if (next >= NBD_DEVICE_DRAINED)
		device_wake(device);
}

void device_wake(struct nbd_device *device)
{
	device->host->wake(device->host);
}

static void fail(struct nbd_device *device, const char *reason)
{
	device->reason = reason;
	device_enter(device, NBD_DEVICE_FAILED);
}

/* A request whose payload has not come is forgotten. */
static void drop_current(struct nbd_device *device)
{
	struct nbd_request *request = device->current;

	device->current = NULL;
	if (request)
		request_free(request);
}

static bool takes_requests(const struct nbd_device *device)
{
	return device->state < NBD_DEVICE_DRAINING;
}

void device_settle(struct nbd_device *device)
{
	uint32_t unanswered = device->in_flight - (device->current ? 1 : 0);

	/* A payload that is being received in place stays until nbd_device_close(). */
	if (takes_requests(device) && device->is_shutdown && unanswered == 0)
		device_enter(device, NBD_DEVICE_DRAINED);
	if (device->state == NBD_DEVICE_DRAINING && device->in_flight == 0)
		device_enter(device, NBD_DEVICE_DRAINED);
	if (device->state == NBD_DEVICE_CLOSED && device->handed == 0) {
		device->server->callbacks.close(device->host->context, device->session.handle);
		device_enter(device, NBD_DEVICE_GONE);
	}
}

/* ---- judging a header ---- */

/* Flags that are legal only if something was advertised. */
static const struct {
	uint16_t flag;
	uint16_t needs;
} flag_rules[] = {
	{NBD_CMD_FLAG_FUA, NBD_FLAG_SEND_FUA},
	{NBD_CMD_FLAG_NO_HOLE, NBD_FLAG_SEND_WRITE_ZEROES},
	{NBD_CMD_FLAG_DF, NBD_FLAG_SEND_DF},
	{NBD_CMD_FLAG_FAST_ZERO, NBD_FLAG_SEND_FAST_ZERO},
};

static uint16_t flags_of_session(const struct nbd_session *session)
{
	uint16_t flags = 0;

	for (size_t i = 0; i < ARRAY_COUNT(flag_rules); i++)
		if (session->flags & flag_rules[i].needs)
			flags |= flag_rules[i].flag;
	return flags;
}

/* A header in the host's order. */
struct order {
	const struct nbd_command *command; /* NULL: unknown */
	uint64_t offset;
	uint64_t length;
	uint64_t cookie;
	uint16_t type;
	uint16_t flags;
};

static int judge_range(const struct nbd_device *device, const struct order *order)
{
	const struct nbd_session *session = &device->session;

	if ((order->offset | order->length) & (session->block_minimum - 1))
		return -EINVAL;
	if (!range_is_within(order->offset, order->length, session->size))
		return order->command->traits & NBD_COMMAND_GROWS ? -ENOSPC : -EINVAL;
	return 0;
}

/* Pure: 0, or what the request is refused with. */
static int judge(const struct nbd_device *device, const struct order *order)
{
	const struct nbd_command *command = order->command;
	const struct nbd_session *session = &device->session;

	if (device->is_shutdown)
		return -E_SHUTDOWN;
	if (!command || (session->features & command->requires) != command->requires)
		return -EINVAL;
	if ((command->traits & NBD_COMMAND_WRITES) && (session->flags & NBD_FLAG_READ_ONLY))
		return -EPERM;
	if ((session->flags & command->needs) != command->needs)
		return -EINVAL;
	if (order->flags & ~((command->flags | NBD_CMD_FLAG_FUA) & device->legal_flags))
		return -EINVAL;
	if ((command->traits & NBD_COMMAND_ZEROED) && (order->offset || order->length))
		return -EINVAL;
	if ((command->traits & NBD_COMMAND_BOUNDED) && order->length > session->block_maximum)
		return -EINVAL;
	return command->traits & NBD_COMMAND_RANGE ? judge_range(device, order) : 0;
}

/* ---- input ---- */

static void begin_payload(struct nbd_device *device, struct nbd_request *request)
{
	device->current = request;
	device->payload_used = 0;
	device_enter(device, NBD_DEVICE_PAYLOAD);
}

static void go_on(struct nbd_device *device, uint64_t skip)
{
	device->skip_left = skip;
	device_enter(device, skip ? NBD_DEVICE_SKIP : NBD_DEVICE_HEADER);
}

/* Act on an accepted header. @rc: the verdict. */
static void start_request(struct nbd_device *device, struct nbd_request *request, int rc)
{
	uint16_t traits = request->command ? request->command->traits : 0;
	uint64_t payload = traits & NBD_COMMAND_PAYLOAD ? request->length : 0;
	bool is_empty = (traits & NBD_COMMAND_RANGE) && request->length == 0;

	if (rc == 0 && device->server->callbacks.read_request)
		rc = device->server->callbacks.read_request(request);
	if (rc != 0 || is_empty) {
		/* Nothing to do for no bytes; proto.md asks only not to disconnect. */
		go_on(device, payload);
		request_answer(request, rc);
	} else if (payload > 0) {
		begin_payload(device, request);
	} else {
		go_on(device, 0);
		request_hand(request);
	}
}

static struct nbd_request *admit(struct nbd_device *device, const struct order *order, int rc)
{
	uint16_t with_length = NBD_COMMAND_PAYLOAD | NBD_COMMAND_DATA;
	bool is_counted = rc == 0 && (order->command->traits & with_length);
	struct nbd_request *request = request_new(device, is_counted ? order->length : 0);

	if (!request)
		return NULL;
	request->command = order->command;
	request->offset = order->offset;
	request->length = order->length;
	request->cookie = order->cookie;
	request->type = order->type;
	request->flags = order->flags;
	device->stats.requests++;
	return request;
}

/* False: a limit is reached, the header is to be tried again. */
static bool begin_request(struct nbd_device *device, const struct nbd_request_header *header)
{
	const struct order order = {
		.command = nbd_server_command(device->server, from_be16(header->type)),
		.offset = from_be64(header->offset),
		.length = from_be32(header->length),
		.cookie = from_be64(header->cookie),
		.type = from_be16(header->type),
		.flags = from_be16(header->flags),
	};

	if (from_be32(header->magic) != NBD_REQUEST_MAGIC) {
		fail(device, "a request without its magic number");
		return true;
	}
	if (order.command && (order.command->traits & NBD_COMMAND_ENDS)) {
		device_enter(device, NBD_DEVICE_DRAINING);
		return true;
	}
	int rc = judge(device, &order);
	struct nbd_request *request = admit(device, &order, rc);
	if (request) {
		start_request(device, request, rc);
		return true;
	}
	if (device->in_flight > 0 || device->server->callbacks.alloc_request)
		return false;
	fail(device, "out of memory"); /* nothing will ever be freed that could help */
	return true;
}

static uint32_t take_header(struct nbd_device *device, const struct slice *in)
{
	uint32_t want = sizeof(device->header) - device->header_used;
	uint32_t n = min_of(in->size, want);

	if (device->header_used == 0 && n == want && begin_request(device, (const void *)in->data))
		return n; /* as nearly always */
	memcpy(device->header + device->header_used, in->data, n);
	device->header_used += n;
	if (device->header_used < sizeof(device->header))
		return n;
	if (n == sizeof(device->header) || !begin_request(device, (const void *)device->header))
		device_enter(device, NBD_DEVICE_BLOCKED);
	else
		device->header_used = 0;
	return n;
}

/* In BLOCKED: is there room for the request whose header is kept? */
static void retry(struct nbd_device *device)
{
	if (begin_request(device, (const void *)device->header)) {
		device->header_used = 0;
		if (device->is_eof && takes_requests(device))
			nbd_device_eof(device);
	}
}

static void payload_done(struct nbd_device *device)
{
	struct nbd_request *request = device->current;

	device->current = NULL;
	device->stats.bytes_in += request->length;
	device_enter(device, NBD_DEVICE_HEADER);
	request_hand(request);
}

/* Memory for the payload. False: there is none, and the request has been refused. */
static bool place_payload(struct nbd_device *device)
{
	struct nbd_request *request = device->current;
	const struct nbd_callbacks *callbacks = &device->server->callbacks;
	int rc = 0;

	if (request->payload.data)
		return true;
	if (callbacks->read_payload) {
		rc = callbacks->read_payload(request, &request->payload);
		assert(rc != 0 || request->payload.size == request->length);
	} else {
		struct buffer *buffer =
			buffer_new(device->host->buffers, (uint32_t)request->length);
		if (buffer)
			request->payload = slice_of(buffer, 0, (uint32_t)request->length);
		else
			rc = -ENOMEM;
	}
	if (rc == 0)
		return true;
	device->current = NULL;
	go_on(device, request->length);
	request_answer(request, rc);
	return false;
}

static uint32_t take_payload(struct nbd_device *device, const struct slice *in)
{
	struct nbd_request *request = device->current;
	bool is_whole = !request->payload.data && in->size >= request->length && in->buffer;

	if (is_whole && !device->server->callbacks.read_payload) {
		request->payload = (struct slice){
			.buffer = buffer_get(in->buffer),
			.data = in->data,
			.size = (uint32_t)request->length,
		};
		uint32_t taken = (uint32_t)request->length;
		payload_done(device);
		return taken;
	}
	if (!place_payload(device))
		return 0;
	uint32_t n = (uint32_t)min_of((uint64_t)in->size, request->length - device->payload_used);
	memcpy(request->payload.data + device->payload_used, in->data, n);
	device->stats.copied += n;
	nbd_device_filled(device, n);
	return n;
}

static uint32_t take_skipped(struct nbd_device *device, const struct slice *in)
{
	uint32_t n = (uint32_t)min_of((uint64_t)in->size, device->skip_left);

	device->skip_left -= n;
	if (device->skip_left == 0)
		device_enter(device, NBD_DEVICE_HEADER);
	return n;
}

static uint32_t drop(struct nbd_device *device, const struct slice *in)
{
	return in->size;
}

size_t nbd_device_feed(struct nbd_device *device, struct slice in)
{
	uint32_t size = in.size;

	if (device->state == NBD_DEVICE_BLOCKED)
		retry(device);
	while (in.size > 0 && states[device->state].take) {
		uint32_t n = states[device->state].take(device, &in);
		in.data += n;
		in.size -= n;
	}
	device_settle(device);
	return size - in.size;
}

bool nbd_device_want(struct nbd_device *device, struct iovec *out)
{
	if (device->state != NBD_DEVICE_PAYLOAD || !place_payload(device))
		return false;
	out->iov_base = device->current->payload.data + device->payload_used;
	out->iov_len = device->current->length - device->payload_used;
	return true;
}

void nbd_device_filled(struct nbd_device *device, size_t bytes)
{
	if (device->state != NBD_DEVICE_PAYLOAD)
		return; /* shut down while the bytes were on their way */
	device->payload_used += bytes;
	assert(device->payload_used <= device->current->length);
	if (device->payload_used == device->current->length)
		payload_done(device);
}

void nbd_device_eof(struct nbd_device *device)
{
	device->is_eof = true;
	if (!takes_requests(device) || device->state == NBD_DEVICE_BLOCKED)
		return; /* the request that waits for room is whole, or says what follows */
	if (device->state != NBD_DEVICE_HEADER || device->header_used > 0)
		device->reason = "the client left in the middle of a request";
	drop_current(device);
	device_enter(device, NBD_DEVICE_DRAINING);
	device_settle(device);
}

/* ---- life ---- */

struct nbd_device *nbd_device_new(const struct nbd_server *server,
				  const struct nbd_session *session, struct nbd_host *host)
{
	struct nbd_device *device = calloc(1, sizeof(*device));

	if (!device)
		return NULL;
	assert(is_power_of_two(session->block_minimum));
	assert(session->block_maximum > 0);
	device->server = server;
	device->session = *session;
	device->host = host;
	device->state = NBD_DEVICE_HEADER;
	device->reason = "";
	device->legal_flags = flags_of_session(session);
	CDS_INIT_LIST_HEAD(&device->spare);
	CDS_INIT_LIST_HEAD(&device->replies);
	return device;
}

void nbd_device_free(struct nbd_device *device)
{
	if (!device)
		return;
	assert(device->state == NBD_DEVICE_GONE);
	assert(device->in_flight == 0);
	requests_done(device);
	free(device);
}

void nbd_device_resume(struct nbd_device *device)
{
	if (device->state == NBD_DEVICE_BLOCKED)
		device_wake(device);
}

void nbd_device_shutdown(struct nbd_device *device)
{
	device->is_shutdown = true;
	device_settle(device);
}

void nbd_device_close(struct nbd_device *device)
{
	if (device->state >= NBD_DEVICE_CLOSED)
		return;
	drop_current(device);
	replies_drop(device);
	device_enter(device, NBD_DEVICE_CLOSED);
	device_settle(device);
}

enum nbd_device_state nbd_device_state(const struct nbd_device *device)
{
	return device->state;
}

const char *nbd_device_state_name(enum nbd_device_state state)
{
	return state < NBD_DEVICE_STATE_COUNT ? states[state].name : "unknown";
}

bool nbd_device_is_open(const struct nbd_device *device)
{
	return takes_requests(device);
}

const char *nbd_device_reason(const struct nbd_device *device)
{
	return device->reason;
}

const struct nbd_session *nbd_device_session(const struct nbd_device *device)
{
	return &device->session;
}

void *nbd_device_handle(const struct nbd_device *device)
{
	return device->session.handle;
}

void *nbd_device_context(const struct nbd_device *device)
{
	return device->host->context;
}

uint32_t nbd_device_in_flight(const struct nbd_device *device)
{
	return device->in_flight;
}

const struct nbd_device_stats *nbd_device_stats(const struct nbd_device *device)
{
	return &device->stats;
}
