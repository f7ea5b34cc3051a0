/*
 * Frames to spans: messages in the order in which they shall be sent.
 *
 *   IDLE --add--> QUEUED --output gave all of it--> IN_FLIGHT --sent, forget--> IDLE
 *
 * One send at a time. A message of which a send has only a part stays first in the queue, and
 * `cursor` says how much of it has gone. A message that was given to a send whole can be
 * forgotten: its bytes are the kernel's business then, and a reply proves that they have left.
 */
#include "lib/wire/wire.h"

#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/crc32c.h"
#include "lib/base/size.h"

static uint32_t crc_of_slices(const struct slice *slices, uint32_t count)
{
	uint32_t crc = 0;

	for (uint32_t i = 0; i < count; i++)
		crc = i ? crc32c_extend(crc, slices[i].data, slices[i].size)
			: crc32c(slices[i].data, slices[i].size);
	return crc;
}

static uint64_t size_of_slices(const struct slice *slices, uint32_t count)
{
	uint64_t size = 0;

	for (uint32_t i = 0; i < count; i++)
		size += slices[i].size;
	return size;
}

/* Where header and body are. */
static uint8_t *head_of(struct wire_message *message)
{
	return message->spill ? message->spill->data : message->head;
}

static void seal(struct frame_header *header)
{
	header->header_crc = to_le32(crc32c(header, offsetof(struct frame_header, header_crc)));
}

int wire_message_init(struct wire_message *message, struct buffer_cache *buffers,
		      const struct wire_message_spec *spec)
{
	uint64_t payload = size_of_slices(spec->slices, spec->slice_count);
	bool has_crc = payload && !(spec->flags & FRAME_OWN_CRC);

	assert(spec->body_size <= FRAME_BODY_MAX);
	assert(payload <= FRAME_PAYLOAD_MAX);
	message->spill = NULL;
	if (spec->body_size > WIRE_BODY_INLINE) {
		message->spill = buffer_new(buffers, FRAME_HEADER_SIZE + spec->body_size);
		if (!message->spill)
			return -ENOMEM;
	}
	message->state = WIRE_MESSAGE_IDLE;
	message->slices = spec->slices;
	message->slice_count = spec->slice_count;
	message->head_size = FRAME_HEADER_SIZE + spec->body_size;
	message->size = message->head_size + payload;

	uint8_t *head = head_of(message);
	struct frame_header header = {
		.magic = to_le32(spec->magic),
		.op = to_le16(spec->op),
		.flags = to_le16(spec->flags),
		.request = to_le64(spec->request),
		.status = to_le32(spec->status),
		.body_size = to_le32(spec->body_size),
		.payload_size = to_le32((uint32_t)payload),
		.payload_crc =
			to_le32(has_crc ? crc_of_slices(spec->slices, spec->slice_count) : 0),
		.reply_max = to_le32(spec->reply_max),
	};
	if (spec->body_size) {
		memcpy(head + FRAME_HEADER_SIZE, spec->body, spec->body_size);
		header.body_crc = to_le32(crc32c(spec->body, spec->body_size));
	}
	seal(&header);
	memcpy(head, &header, sizeof(header));
	return 0;
}

void wire_message_set_request(struct wire_message *message, uint64_t request)
{
	struct frame_header *header = (struct frame_header *)(void *)head_of(message);

	assert(message->state == WIRE_MESSAGE_IDLE);
	header->request = to_le64(request);
	seal(header);
}

void wire_message_done(struct wire_message *message)
{
	assert(message->state == WIRE_MESSAGE_IDLE);
	buffer_put(message->spill);
	message->spill = NULL;
}

void wire_outbox_init(struct wire_outbox *outbox,
		      void (*sent)(struct wire_outbox *outbox, struct wire_message *message))
{
	*outbox = (struct wire_outbox){.sent = sent};
	CDS_INIT_LIST_HEAD(&outbox->queue);
	CDS_INIT_LIST_HEAD(&outbox->in_flight);
}

void wire_outbox_add(struct wire_outbox *outbox, struct wire_message *message)
{
	assert(message->state == WIRE_MESSAGE_IDLE);
	message->state = WIRE_MESSAGE_QUEUED;
	cds_list_add_tail(&message->link, &outbox->queue);
	outbox->queued_bytes += message->size;
}

/* Spans being collected for one send. */
struct gather {
	struct iovec *iov;
	unsigned count, max;
	uint64_t bytes, bytes_max;
};

/*
 * Add what is left of one part of a message after *skip bytes, as far as there is room. Returns the
 * bytes added; *skip goes down by what the part had of it.
 */
static uint64_t gather_part(struct gather *gather, uint8_t *data, uint64_t size, uint64_t *skip)
{
	uint64_t skipped = min_of(*skip, size);
	uint64_t room = gather->bytes_max - gather->bytes;
	uint64_t take = min_of(size - skipped, room);

	*skip -= skipped;
	if (take == 0)
		return 0;
	gather->iov[gather->count++] = (struct iovec){.iov_base = data + skipped, .iov_len = take};
	gather->bytes += take;
	return take;
}

/* As much of the message behind its first @skip bytes as there is room for. */
static uint64_t gather_message(struct gather *gather, struct wire_message *message, uint64_t skip)
{
	uint64_t added = gather_part(gather, head_of(message), message->head_size, &skip);

	for (uint32_t i = 0; i < message->slice_count; i++) {
		if (gather->count == gather->max || gather->bytes == gather->bytes_max)
			break;
		const struct slice *slice = &message->slices[i];
		added += gather_part(gather, slice->data, slice->size, &skip);
	}
	return added;
}

unsigned wire_outbox_output(struct wire_outbox *outbox, struct iovec *iov, unsigned max,
			    uint64_t bytes_max)
{
	struct gather gather = {.iov = iov, .max = max, .bytes_max = bytes_max};

	assert(outbox->in_flight_bytes == 0);
	while (!cds_list_empty(&outbox->queue) && gather.count < max && gather.bytes < bytes_max) {
		struct wire_message *message =
			cds_list_first_entry(&outbox->queue, struct wire_message, link);
		outbox->cursor += gather_message(&gather, message, outbox->cursor);
		if (outbox->cursor < message->size)
			break;
		outbox->cursor = 0;
		message->state = WIRE_MESSAGE_IN_FLIGHT;
		cds_list_del(&message->link);
		cds_list_add_tail(&message->link, &outbox->in_flight);
	}
	outbox->in_flight_bytes = gather.bytes;
	return gather.count;
}

void wire_outbox_sent(struct wire_outbox *outbox)
{
	outbox->queued_bytes -= outbox->in_flight_bytes;
	outbox->in_flight_bytes = 0;
	/* `sent` may add messages, and forget others that are in flight. */
	while (!cds_list_empty(&outbox->in_flight)) {
		struct wire_message *message =
			cds_list_first_entry(&outbox->in_flight, struct wire_message, link);
		cds_list_del(&message->link);
		message->state = WIRE_MESSAGE_IDLE;
		outbox->sent(outbox, message);
	}
}

bool wire_outbox_forget(struct wire_outbox *outbox, struct wire_message *message)
{
	switch ((enum wire_message_state)message->state) {
	case WIRE_MESSAGE_IDLE:
		return true;
	case WIRE_MESSAGE_QUEUED:
		return false;
	case WIRE_MESSAGE_IN_FLIGHT:
		cds_list_del(&message->link);
		message->state = WIRE_MESSAGE_IDLE;
		return true;
	}
	return false;
}

struct wire_message *wire_outbox_drop(struct wire_outbox *outbox)
{
	struct cds_list_head *from =
		cds_list_empty(&outbox->in_flight) ? &outbox->queue : &outbox->in_flight;

	if (cds_list_empty(from)) {
		outbox->queued_bytes = 0;
		outbox->in_flight_bytes = 0;
		outbox->cursor = 0;
		return NULL;
	}
	struct wire_message *message = cds_list_first_entry(from, struct wire_message, link);
	cds_list_del(&message->link);
	message->state = WIRE_MESSAGE_IDLE;
	return message;
}
