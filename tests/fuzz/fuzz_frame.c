/*
 * Outside bytes into the frame decoder and the judges of HELLO.
 *
 * LLVMFuzzerTestOneInput() plays one input: 8 bytes of control (how the stream is cut, how long
 * payloads are held, whether checksums are made right so that the fields behind them are reached),
 * then the stream. Whatever that is: nothing crashes or leaks, no frame breaks a limit, an error is
 * for ever, and the same stream in one piece gives the same frames and the same end. With
 * -fsanitize=fuzzer and -DFUZZ_ENGINE it is a libFuzzer target; else main() plays generated streams,
 * most of them damaged, from a seed:
 *
 *   fuzz_frame [ROUNDS [SEED]]
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/crc32c.h"
#include "lib/base/random.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "lib/wire/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CONTROL 8u

enum mode {			  /* bits of control[0] */
	    MODE_SEAL = 1u << 0,  /* make magic and checksums right */
	    MODE_HOLD = 1u << 1,  /* keep payloads for a while */
	    MODE_CHECK = 1u << 2, /* with a check of headers */
	    MODE_TAME = 1u << 3,  /* with seal: sizes that fit into the input */
};

static const struct wire_protocol protocol = {
	.name = "fuzz",
	.magic = FRAME_MAGIC_PEER,
	.version_min = 1,
	.version_max = 3,
	.features = 5,
	.required = 1,
	.open_classes = 1,
	.classes = 3,
};

static const struct wire_identity identity = {.cluster = {{1}}, .node = {{2}}, .node_id = 1};

/* Walk over the bytes as frames and make right what only a checksum would catch. */
static void seal(uint8_t *data, size_t size, uint8_t mode)
{
	for (size_t at = 0; at + FRAME_HEADER_SIZE <= size;) {
		struct frame_header header;
		memcpy(&header, data + at, sizeof(header));
		size_t left = size - at - FRAME_HEADER_SIZE;
		header.magic = to_le32(FRAME_MAGIC_PEER);
		if (mode & MODE_TAME) {
			uint32_t body = from_le32(header.body_size) % 300;
			uint32_t payload = from_le32(header.payload_size) % 20000;
			header.op = to_le16(from_le16(header.op) % 4);
			header.flags = to_le16(from_le16(header.flags) % 8);
			header.body_size = to_le32((uint32_t)min_of((size_t)body, left));
			left -= from_le32(header.body_size);
			header.payload_size = to_le32((uint32_t)min_of((size_t)payload, left));
			left += from_le32(header.body_size);
			memset(header.reserved, 0, sizeof(header.reserved));
		}
		size_t body = from_le32(header.body_size), payload = from_le32(header.payload_size);
		bool has_all = body + payload <= left;
		uint8_t *bytes = data + at + FRAME_HEADER_SIZE;
		bool has_crc = payload && !(from_le16(header.flags) & FRAME_OWN_CRC);
		header.body_crc = to_le32(has_all && body ? crc32c(bytes, body) : 0);
		header.payload_crc =
			to_le32(has_all && has_crc ? crc32c(bytes + body, payload) : 0);
		header.header_crc =
			to_le32(crc32c(&header, offsetof(struct frame_header, header_crc)));
		memcpy(data + at, &header, sizeof(header));
		if (!has_all)
			return;
		at += FRAME_HEADER_SIZE + body + payload;
	}
}

static int check(struct wire_decoder *decoder, const struct wire_frame *frame)
{
	return frame->payload_size > 2u << 20 ? -E2BIG : 0;
}

/* What a stream came to. */
struct outcome {
	uint64_t frames, hash;
	int error;
};

static void mix(struct outcome *outcome, const void *data, size_t size)
{
	outcome->hash = outcome->hash * 31 + crc32c(data, size);
}

static void look_at(struct outcome *outcome, const struct wire_frame *frame)
{
	struct wire_agreement agreement = {0};
	struct error err = {0};

	assert(frame->body_size <= FRAME_BODY_MAX && frame->payload_size <= FRAME_PAYLOAD_MAX);
	assert(frame->payload.size == frame->payload_size);
	outcome->frames++;
	mix(outcome, &frame->request, sizeof(frame->request));
	mix(outcome, frame->body, frame->body_size);
	mix(outcome, frame->payload.data, frame->payload.size);
	int rc = wire_hello_judge(&protocol, &identity, frame, &agreement, &err);
	assert(rc <= 0 && (rc == 0 || err.text[0]));
	assert(rc < 0 || (agreement.version >= 1 && agreement.version <= 3));
	agreement = (struct wire_agreement){0};
	rc = wire_hello_reply_judge(&protocol, &identity, frame, &agreement, &err);
	assert(rc <= 0);
	assert(rc < 0 || (agreement.version >= 1 && agreement.version <= 3));
	assert(rc < 0 || agreement.credit_requests <= WIRE_CREDIT_REQUESTS_MAX);
	assert(wire_status_code(frame->status) <= 0);
}

enum { HELD = 5 };

static struct outcome decode(const uint8_t *control, const uint8_t *data, size_t size, bool is_cut)
{
	struct buffer_cache *cache = buffer_cache_new(16 << 20);
	struct slice held[HELD] = {0};
	struct outcome outcome = {0};
	struct wire_decoder decoder;
	struct wire_frame frame;
	unsigned turn = 0;
	int rc = 0;

	wire_decoder_init(&decoder, FRAME_MAGIC_PEER, cache);
	decoder.check = control[0] & MODE_CHECK ? check : NULL;
	while (size && rc >= 0) {
		struct iovec iov[2];
		int count = wire_decoder_space(&decoder, iov);
		uint8_t cut = control[1 + turn++ % 7];
		size_t take = is_cut ? 1 + (size_t)cut * cut : SIZE_MAX, got = 0;
		assert(count > 0);
		for (int i = 0; i < count; i++) {
			size_t room = min_of(size, take) - got;
			size_t n = min_of(iov[i].iov_len, room);
			memcpy(iov[i].iov_base, data + got, n);
			got += n;
		}
		wire_decoder_received(&decoder, got);
		data += got;
		size -= got;
		while ((rc = wire_decoder_next(&decoder, &frame)) == 1) {
			struct slice *slot = &held[outcome.frames % HELD];
			look_at(&outcome, &frame);
			buffer_put(slot->buffer);
			*slot = frame.payload;
			if (!(control[0] & MODE_HOLD)) {
				buffer_put(slot->buffer);
				*slot = (struct slice){0};
			}
		}
	}
	outcome.error = rc;
	if (rc < 0)
		assert(wire_decoder_next(&decoder, &frame) == rc &&
		       wire_decoder_error(&decoder)[0]);
	for (unsigned i = 0; i < HELD; i++)
		buffer_put(held[i].buffer);
	wire_decoder_done(&decoder);
	assert(buffer_cache_busy(cache) == 0);
	buffer_cache_free(cache);
	return outcome;
}

static struct outcome last;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size <= CONTROL)
		return 0;
	uint8_t *stream = malloc(size - CONTROL);
	assert(stream);
	memcpy(stream, data + CONTROL, size - CONTROL);
	if (data[0] & MODE_SEAL)
		seal(stream, size - CONTROL, data[0]);
	struct outcome cut = decode(data, stream, size - CONTROL, true);
	struct outcome whole = decode(data, stream, size - CONTROL, false);
	assert(cut.frames == whole.frames && cut.hash == whole.hash && cut.error == whole.error);
	free(stream);
	last = whole;
	return 0;
}

#ifndef FUZZ_ENGINE

/* One frame that is mostly right. */
static size_t add_frame(uint8_t *out, struct random *random)
{
	bool is_hello = random_below(random, 3) == 0;
	uint32_t body = is_hello ? 128 : (uint32_t)random_below(random, 200);
	uint32_t payload = (uint32_t)random_below(random, random_below(random, 8) ? 600 : 30000);
	bool is_reply = random_below(random, 2);
	struct frame_header header = {
		.op = to_le16(is_hello ? 0 : (uint16_t)random_below(random, 9)),
		.flags = to_le16(is_reply ? FRAME_REPLY : 0),
		.request = to_le64(random_u64(random) | 1),
		.status = to_le32(is_reply ? (uint32_t)random_below(random, 3) : 0),
		.body_size = to_le32(body),
		.payload_size = to_le32(is_hello ? 0 : payload),
	};
	struct frame_hello hello;

	payload = from_le32(header.payload_size);
	for (size_t i = 0; i < (size_t)body + payload; i++)
		out[sizeof(header) + i] = (uint8_t)random_u64(random);
	if (is_hello && is_reply) {
		struct frame_hello_reply reply;
		struct wire_agreement agreement = {.version = 2, .credit_requests = 9};
		wire_hello_reply_make(&reply, &protocol, &identity, &agreement);
		memcpy(out + sizeof(header), &reply, sizeof(reply));
	} else if (is_hello) {
		wire_hello_make(&hello, &protocol, &identity, 1, 0, 7);
		memcpy(out + sizeof(header), &hello, sizeof(hello));
	}
	memcpy(out, &header, sizeof(header));
	return sizeof(header) + body + payload;
}

static size_t make_input(uint8_t *out, struct random *random)
{
	size_t size = CONTROL;

	for (unsigned i = 0; i < CONTROL; i++)
		out[i] = (uint8_t)random_u64(random);
	out[0] |= random_below(random, 8) ? MODE_SEAL : 0;
	out[0] &= random_below(random, 4) ? (uint8_t)~MODE_TAME : 0xff;
	for (uint64_t i = 1 + random_below(random, 12); i-- > 0;)
		size += add_frame(out + size, random);
	/* Damage: bytes anywhere, mostly in the first headers; the end cut off. */
	for (uint64_t i = random_below(random, 3); i-- > 0;) {
		size_t limit = random_below(random, 2) ? min_of(size, (size_t)400) : size;
		out[CONTROL + random_below(random, limit - CONTROL)] ^=
			(uint8_t)(1u << random_below(random, 8));
	}
	if (random_below(random, 4) == 0)
		size -= random_below(random, size - CONTROL);
	return size;
}

int main(int argc, char **argv)
{
	uint64_t rounds = 3000, seed = 1, frames = 0, clean = 0;
	struct random random;
	uint8_t *input = malloc(1 << 20);

	if ((argc > 1 && text_parse_u64(argv[1], UINT64_MAX, &rounds) < 0) ||
	    (argc > 2 && text_parse_u64(argv[2], UINT64_MAX, &seed) < 0) || !input) {
		(void)fprintf(stderr, "usage: fuzz_frame [ROUNDS [SEED]]\n");
		return 2;
	}
	for (uint64_t i = 0; i < rounds; i++) {
		random_init(&random, seed + i);
		size_t size = make_input(input, &random);
		(void)LLVMFuzzerTestOneInput(input, size);
		frames += last.frames;
		clean += last.error == 0;
	}
	free(input);
	printf("fuzz_frame: %" PRIu64 " streams from seed %" PRIu64 ", %" PRIu64 " frames, %" PRIu64
	       " streams without an error\n",
	       rounds, seed, frames, clean);
	/* Streams that all fail at once, or never, would test little. */
	return rounds < 100 || (frames > rounds && clean > 0 && clean < rounds) ? 0 : 1;
}

#endif
