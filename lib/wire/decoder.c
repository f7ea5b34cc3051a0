/*
 * Received bytes to frames.
 *
 * Bytes are received into the inbox, a buffer of 8 to 256 KiB. What a frame's payload needs:
 *
 *   the inbox has all of it        a slice of the inbox; nothing is copied
 *   the inbox has its beginning    a buffer of its own: the beginning is copied, the rest is
 *                                  received there, and what follows it into the inbox, by one
 *                                  receive with two spans
 *
 * An inbox that nobody holds a slice of is used again from its start. One that is held is filled to
 * three quarters before a new one is taken, so that a held 4 KiB payload does not pin a
 * buffer each.
 *
 * Always true: (1) after wire_decoder_next() said 0, the inbox has less than one header or one body;
 * (2) no memory is taken for a payload before its header was checked; (3) an error is for ever.
 */
#include "lib/wire/wire.h"

#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/crc32c.h"
#include "lib/base/size.h"

#define KNOWN_FLAGS  (FRAME_REPLY | FRAME_ONEWAY | FRAME_OWN_CRC)
#define SHRINK_AFTER 32 /* receives in a row that an eighth of the inbox had been enough for */

void wire_decoder_init(struct wire_decoder *decoder, uint32_t magic, struct buffer_cache *buffers)
{
	*decoder = (struct wire_decoder){
		.magic = magic,
		.buffers = buffers,
		.want = WIRE_DECODER_BUFFER_MIN,
	};
}

void wire_decoder_done(struct wire_decoder *decoder)
{
	buffer_put(decoder->inbox);
	buffer_put(decoder->payload);
	buffer_put(decoder->held_body);
	decoder->inbox = NULL;
	decoder->payload = NULL;
	decoder->held_body = NULL;
	decoder->begin = 0;
	decoder->end = 0;
}

const char *wire_decoder_error(const struct wire_decoder *decoder)
{
	return decoder->error.text;
}

bool wire_decoder_is_inside(const struct wire_decoder *decoder)
{
	return decoder->has_header || decoder->begin != decoder->end;
}

/* ---- receiving ---- */

/* Room at the inbox's end for the rest of any header or body, and enough to be worth a receive. */
static bool has_room(const struct wire_decoder *decoder)
{
	const struct buffer *inbox = decoder->inbox;
	uint32_t free = inbox->size - decoder->end;

	return free >= inbox->size / 4 && free >= FRAME_BODY_MAX;
}

/* A fresh inbox that begins with the untaken bytes of the old one. */
static int replace_inbox(struct wire_decoder *decoder)
{
	struct buffer *inbox = buffer_new(decoder->buffers, decoder->want);
	uint32_t left = decoder->end - decoder->begin;

	if (!inbox)
		return -ENOMEM;
	if (left)
		memcpy(inbox->data, decoder->inbox->data + decoder->begin, left);
	buffer_put(decoder->inbox);
	decoder->inbox = inbox;
	decoder->begin = 0;
	decoder->end = left;
	return 0;
}

static int make_room(struct wire_decoder *decoder)
{
	struct buffer *inbox = decoder->inbox;
	uint32_t left = decoder->end - decoder->begin;

	assert(left <= FRAME_BODY_MAX);
	if (!inbox || inbox->size != decoder->want) /* grown or shrunk */
		return replace_inbox(decoder);
	if (!buffer_is_shared(inbox)) {
		memmove(inbox->data, inbox->data + decoder->begin, left);
		decoder->begin = 0;
		decoder->end = left;
		return 0;
	}
	return has_room(decoder) ? 0 : replace_inbox(decoder);
}

int wire_decoder_space(struct wire_decoder *decoder, struct iovec iov[2])
{
	int count = 0;
	int rc = make_room(decoder);

	if (rc < 0)
		return rc;
	decoder->space_payload = 0;
	if (decoder->payload) {
		decoder->space_payload = decoder->frame.payload_size - decoder->payload_have;
		iov[count++] = (struct iovec){
			.iov_base = decoder->payload->data + decoder->payload_have,
			.iov_len = decoder->space_payload,
		};
	}
	decoder->space_inbox = decoder->inbox->size - decoder->end;
	iov[count++] = (struct iovec){
		.iov_base = decoder->inbox->data + decoder->end,
		.iov_len = decoder->space_inbox,
	};
	return count;
}

/* A stream that fills its inbox gets a larger one, one that does not gives memory back. */
static void adapt(struct wire_decoder *decoder, uint32_t inbox_bytes)
{
	if (inbox_bytes == decoder->space_inbox) {
		decoder->want = min_of(decoder->want * 2, WIRE_DECODER_BUFFER_MAX);
		decoder->idle_rounds = 0;
	} else if (inbox_bytes > decoder->want / 8) {
		decoder->idle_rounds = 0;
	} else if (++decoder->idle_rounds >= SHRINK_AFTER) {
		decoder->want = max_of(decoder->want / 2, WIRE_DECODER_BUFFER_MIN);
		decoder->idle_rounds = 0;
	}
}

void wire_decoder_received(struct wire_decoder *decoder, size_t size)
{
	assert(size <= (size_t)decoder->space_payload + decoder->space_inbox);
	uint32_t payload_bytes = (uint32_t)min_of(size, (size_t)decoder->space_payload);
	uint32_t inbox_bytes = (uint32_t)size - payload_bytes;

	decoder->payload_have += payload_bytes;
	decoder->end += inbox_bytes;
	/* A receive that only went on with a payload says nothing about the inbox. */
	if (inbox_bytes || !decoder->space_payload)
		adapt(decoder, inbox_bytes);
	decoder->space_payload = 0;
	decoder->space_inbox = 0;
}

/* ---- decoding ---- */

static bool is_zero(const le32 *words, unsigned count)
{
	uint32_t any = 0;

	for (unsigned i = 0; i < count; i++)
		any |= from_le32(words[i]);
	return any == 0;
}

/* The header by itself: what every reader refuses. */
static int check_header(struct wire_decoder *decoder, const struct frame_header *header)
{
	struct error *err = &decoder->error;
	uint32_t magic = from_le32(header->magic);
	uint32_t flags = from_le16(header->flags);
	uint32_t body = from_le32(header->body_size);
	uint32_t payload = from_le32(header->payload_size);

	if (magic != decoder->magic)
		return error_set(err, -E_PROTOCOL, "frame magic is 0x%08x, not 0x%08x", magic,
				 decoder->magic);
	uint32_t crc = crc32c(header, offsetof(struct frame_header, header_crc));
	if (crc != from_le32(header->header_crc))
		return error_set(err, -E_CHECKSUM, "frame header: checksum is 0x%08x, not 0x%08x",
				 from_le32(header->header_crc), crc);
	if (flags & ~KNOWN_FLAGS)
		return error_set(err, -E_PROTOCOL, "frame header: unknown flags 0x%04x", flags);
	if (!is_zero(header->reserved, ARRAY_COUNT(header->reserved)))
		return error_set(err, -E_PROTOCOL, "frame header: reserved field is not zero");
	if (body > FRAME_BODY_MAX)
		return error_set(err, -E_PROTOCOL, "body of %u bytes, the limit is %u", body,
				 FRAME_BODY_MAX);
	if (payload > FRAME_PAYLOAD_MAX)
		return error_set(err, -E_PROTOCOL, "payload of %u bytes, the limit is %u", payload,
				 FRAME_PAYLOAD_MAX);
	if ((flags & FRAME_REPLY) && (flags & FRAME_ONEWAY))
		return error_set(err, -E_PROTOCOL, "a reply that is one-way");
	if (!(flags & FRAME_REPLY) && header->status.raw)
		return error_set(err, -E_PROTOCOL, "a request with a status");
	if ((flags & FRAME_REPLY) && header->reply_max.raw)
		return error_set(err, -E_PROTOCOL, "a reply with reply_max");
	if (from_le32(header->reply_max) > FRAME_PAYLOAD_MAX)
		return error_set(err, -E_PROTOCOL, "reply_max of %u bytes, the limit is %u",
				 from_le32(header->reply_max), FRAME_PAYLOAD_MAX);
	if ((flags & FRAME_ONEWAY) != 0 && (header->request.raw || header->reply_max.raw))
		return error_set(err, -E_PROTOCOL, "a one-way request that expects a reply");
	if (!(flags & FRAME_ONEWAY) && !header->request.raw)
		return error_set(err, -E_PROTOCOL, "a frame without a request number");
	return 0;
}

static int take_header(struct wire_decoder *decoder)
{
	const struct frame_header *header = (void *)(decoder->inbox->data + decoder->begin);
	int rc = check_header(decoder, header);

	if (rc < 0)
		return rc;
	decoder->frame = (struct wire_frame){
		.op = from_le16(header->op),
		.flags = from_le16(header->flags),
		.status = from_le32(header->status),
		.request = from_le64(header->request),
		.reply_max = from_le32(header->reply_max),
		.body_size = from_le32(header->body_size),
		.payload_size = from_le32(header->payload_size),
	};
	decoder->expected_body_crc = from_le32(header->body_crc);
	decoder->expected_payload_crc = from_le32(header->payload_crc);
	if (decoder->check) {
		rc = decoder->check(decoder, &decoder->frame);
		if (rc < 0)
			return decoder->error.code ? rc : error_set(&decoder->error, rc, "refused");
	}
	decoder->begin += FRAME_HEADER_SIZE;
	decoder->has_header = true;
	return 0;
}

/* Body and the beginning of the payload are here: move both to where they can wait. */
static int begin_payload(struct wire_decoder *decoder)
{
	struct wire_frame *frame = &decoder->frame;
	const uint8_t *at = decoder->inbox->data + decoder->begin;
	uint32_t have = decoder->end - decoder->begin - frame->body_size;

	if (!decoder->held_body && frame->body_size)
		decoder->held_body = buffer_new(decoder->buffers, FRAME_BODY_MAX);
	decoder->payload = buffer_new(decoder->buffers, frame->payload_size);
	if (!decoder->payload || (!decoder->held_body && frame->body_size))
		return error_set(&decoder->error, -ENOMEM, "payload of %u bytes",
				 frame->payload_size);
	if (frame->body_size)
		memcpy(decoder->held_body->data, at, frame->body_size);
	memcpy(decoder->payload->data, at + frame->body_size, have);
	decoder->payload_have = have;
	decoder->begin = decoder->end;
	return 0;
}

/* Give the frame body and payload if both are whole: 1, 0 or an error. */
static int take_parts(struct wire_decoder *decoder, struct wire_frame *frame)
{
	uint32_t have = decoder->end - decoder->begin;

	*frame = decoder->frame;
	if (decoder->payload) {
		if (decoder->payload_have < frame->payload_size)
			return 0;
		frame->body = decoder->held_body ? decoder->held_body->data : NULL;
		frame->payload = slice_of(decoder->payload, 0, frame->payload_size);
		decoder->payload = NULL;
		return 1;
	}
	if (have < frame->body_size)
		return 0;
	if (have - frame->body_size < frame->payload_size)
		return begin_payload(decoder);
	frame->body = decoder->inbox->data + decoder->begin;
	decoder->begin += frame->body_size;
	if (frame->payload_size) {
		frame->payload =
			slice_of(buffer_get(decoder->inbox), decoder->begin, frame->payload_size);
		decoder->begin += frame->payload_size;
	}
	return 1;
}

static int check_sums(struct wire_decoder *decoder, const struct wire_frame *frame)
{
	uint32_t body_crc = frame->body_size ? crc32c(frame->body, frame->body_size) : 0;
	uint32_t payload_crc = 0;

	if (body_crc != decoder->expected_body_crc)
		return error_set(&decoder->error, -E_CHECKSUM,
				 "frame body: checksum is 0x%08x, not 0x%08x",
				 decoder->expected_body_crc, body_crc);
	if (frame->payload_size && !(frame->flags & FRAME_OWN_CRC))
		payload_crc = crc32c(frame->payload.data, frame->payload.size);
	if (payload_crc != decoder->expected_payload_crc)
		return error_set(&decoder->error, -E_CHECKSUM,
				 "frame payload: checksum is 0x%08x, not 0x%08x",
				 decoder->expected_payload_crc, payload_crc);
	return 0;
}

static int fail(struct wire_decoder *decoder, int code)
{
	if (!decoder->error.code)
		(void)error_set(&decoder->error, code, "frame");
	decoder->error.code = code;
	return code;
}

int wire_decoder_next(struct wire_decoder *decoder, struct wire_frame *frame)
{
	int rc;

	if (decoder->error.code)
		return decoder->error.code;
	if (!decoder->has_header) {
		if (decoder->end - decoder->begin < FRAME_HEADER_SIZE)
			return 0;
		rc = take_header(decoder);
		if (rc < 0)
			return fail(decoder, rc);
	}
	rc = take_parts(decoder, frame);
	if (rc < 0)
		return fail(decoder, rc);
	if (rc == 0)
		return 0;
	decoder->has_header = false;
	rc = check_sums(decoder, frame);
	if (rc < 0) {
		buffer_put(frame->payload.buffer);
		return fail(decoder, rc);
	}
	return 1;
}
