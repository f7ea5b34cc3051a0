/* Frames for the tests of lib/wire: made by its encoder, or bent by hand. */
#ifndef TESTS_UNIT_WIRE_FRAMES_H
#define TESTS_UNIT_WIRE_FRAMES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/crc32c.h"
#include "lib/base/random.h"
#include "lib/base/size.h"
#include "lib/wire/wire.h"

struct test_frame {
	uint16_t op;
	uint16_t flags;
	uint64_t request;
	uint32_t status;
	uint32_t reply_max;
	uint32_t body_size;
	uint32_t payload_size;
};

static inline uint8_t test_byte(uint64_t seed, size_t at)
{
	return (uint8_t)(seed * 31 + at * 7 + (at >> 8));
}

static inline void test_fill(uint8_t *data, size_t size, uint64_t seed)
{
	for (size_t i = 0; i < size; i++)
		data[i] = test_byte(seed, i);
}

static inline bool test_is_filled(const uint8_t *data, size_t size, uint64_t seed)
{
	for (size_t i = 0; i < size; i++)
		if (data[i] != test_byte(seed, i))
			return false;
	return true;
}

/* The bytes of @frame at @out, of room for them; returns how many. Body and payload depend on @seed. */
static inline size_t test_encode(uint8_t *out, const struct test_frame *frame, uint64_t seed)
{
	uint8_t *body = out + FRAME_HEADER_SIZE;
	uint8_t *payload = body + frame->body_size;
	bool has_crc = frame->payload_size && !(frame->flags & FRAME_OWN_CRC);

	test_fill(body, frame->body_size, seed);
	test_fill(payload, frame->payload_size, seed + 1);
	struct frame_header header = {
		.magic = to_le32(FRAME_MAGIC_PEER),
		.op = to_le16(frame->op),
		.flags = to_le16(frame->flags),
		.request = to_le64(frame->request),
		.status = to_le32(frame->status),
		.body_size = to_le32(frame->body_size),
		.payload_size = to_le32(frame->payload_size),
		.reply_max = to_le32(frame->reply_max),
		.body_crc = to_le32(frame->body_size ? crc32c(body, frame->body_size) : 0),
		.payload_crc = to_le32(has_crc ? crc32c(payload, frame->payload_size) : 0),
	};
	header.header_crc = to_le32(crc32c(&header, offsetof(struct frame_header, header_crc)));
	memcpy(out, &header, sizeof(header));
	return FRAME_HEADER_SIZE + frame->body_size + frame->payload_size;
}

/* Give @decoder as much of the bytes as it has room for now; returns how many. */
static inline size_t test_feed(struct wire_decoder *decoder, const uint8_t *data, size_t size)
{
	struct iovec iov[2];
	int count = wire_decoder_space(decoder, iov);
	size_t fed = 0;

	assert_in_range(count, 1, 2);
	for (int i = 0; i < count && fed < size; i++) {
		size_t part = min_of(iov[i].iov_len, size - fed);
		assert_true(iov[i].iov_len > 0);
		memcpy(iov[i].iov_base, data + fed, part);
		fed += part;
	}
	wire_decoder_received(decoder, fed);
	return fed;
}

#endif
