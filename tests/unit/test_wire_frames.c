/* The decoder: every split of the stream, every lie in a frame. */
#include "tests/unit/wire_frames.h"

#include <stdio.h>

#include "lib/base/text.h"

static const struct test_frame frames[] = {
	{.op = 1, .request = 1},
	{.op = 2, .request = 2, .body_size = 1},
	{.op = 3, .request = 3, .payload_size = 1, .reply_max = 4096},
	{.op = 4, .request = 4, .body_size = 104, .payload_size = 512},
	{.op = 5, .flags = FRAME_ONEWAY, .body_size = 24},
	{.op = 6, .flags = FRAME_REPLY, .request = 6, .status = 4, .payload_size = 30},
	{.op = 7, .flags = FRAME_OWN_CRC, .request = 7, .body_size = 8, .payload_size = 100},
	{.op = 8, .request = UINT64_MAX, .body_size = 300, .payload_size = 700},
};
enum { FRAMES = ARRAY_COUNT(frames) };

struct stream {
	uint8_t *bytes;
	size_t size;
};

static struct stream stream_of(const struct test_frame *list, unsigned count)
{
	struct stream stream = {0};
	size_t room = 0;

	for (unsigned i = 0; i < count; i++)
		room += FRAME_HEADER_SIZE + list[i].body_size + list[i].payload_size;
	stream.bytes = malloc(room);
	for (unsigned i = 0; i < count; i++)
		stream.size += test_encode(stream.bytes + stream.size, &list[i], i);
	assert_int_equal(stream.size, room);
	return stream;
}

static void expect_frame(const struct wire_frame *frame, const struct test_frame *want,
			 uint64_t seed)
{
	assert_int_equal(frame->op, want->op);
	assert_int_equal(frame->flags, want->flags);
	assert_int_equal(frame->request, want->request);
	assert_int_equal(frame->status, want->status);
	assert_int_equal(frame->reply_max, want->reply_max);
	assert_int_equal(frame->body_size, want->body_size);
	assert_int_equal(frame->payload_size, want->payload_size);
	assert_true(test_is_filled(frame->body, frame->body_size, seed));
	if (want->payload_size == 0) {
		assert_null(frame->payload.data);
		return;
	}
	assert_int_equal(frame->payload.size, want->payload_size);
	assert_true(test_is_filled(frame->payload.data, frame->payload.size, seed + 1));
}

/* Take all frames that are whole. */
static void drain(struct wire_decoder *decoder, const struct test_frame *list, unsigned *next)
{
	struct wire_frame frame;
	int rc;

	while ((rc = wire_decoder_next(decoder, &frame)) == 1) {
		expect_frame(&frame, &list[*next], *next);
		buffer_put(frame.payload.buffer);
		(*next)++;
	}
	if (rc < 0)
		fail_msg("%s", wire_decoder_error(decoder));
}

static void feed_all(struct wire_decoder *decoder, const uint8_t *bytes, size_t size,
		     const struct test_frame *list, unsigned *next)
{
	while (size) {
		size_t fed = test_feed(decoder, bytes, size);
		bytes += fed;
		size -= fed;
		drain(decoder, list, next);
	}
}

static void test_stream_split_anywhere_gives_the_same_frames(void **state)
{
	struct buffer_cache *cache = buffer_cache_new(1 << 20);
	struct stream stream = stream_of(frames, FRAMES);

	for (size_t split = 0; split <= stream.size; split++) {
		struct wire_decoder decoder;
		unsigned next = 0;

		wire_decoder_init(&decoder, FRAME_MAGIC_PEER, cache);
		feed_all(&decoder, stream.bytes, split, frames, &next);
		assert_int_equal(
			wire_decoder_is_inside(&decoder),
			!(split == 0 || split == stream.size || decoder.begin == decoder.end) ||
				decoder.has_header);
		feed_all(&decoder, stream.bytes + split, stream.size - split, frames, &next);
		assert_int_equal(next, FRAMES);
		assert_false(wire_decoder_is_inside(&decoder));
		wire_decoder_done(&decoder);
		assert_int_equal(buffer_cache_busy(cache), 0);
	}
	free(stream.bytes);
	buffer_cache_free(cache);
}

static void test_stream_byte_by_byte_gives_the_same_frames(void **state)
{
	struct buffer_cache *cache = buffer_cache_new(1 << 20);
	struct stream stream = stream_of(frames, FRAMES);
	struct wire_decoder decoder;
	unsigned next = 0;

	wire_decoder_init(&decoder, FRAME_MAGIC_PEER, cache);
	for (size_t i = 0; i < stream.size; i++)
		feed_all(&decoder, stream.bytes + i, 1, frames, &next);
	assert_int_equal(next, FRAMES);
	wire_decoder_done(&decoder);
	assert_int_equal(buffer_cache_busy(cache), 0);
	free(stream.bytes);
	buffer_cache_free(cache);
}

/*
 * Frames of all sizes in receives of all sizes, with payloads held for a while: none is written over
 * by what comes later, whether the inbox grows, shrinks, wraps or is replaced.
 */
static void test_payloads_that_are_held_stay_as_they_came(void **state)
{
	enum { COUNT = 3000, HELD = 40 };
	struct buffer_cache *cache = buffer_cache_new(64 << 20);
	struct wire_decoder decoder;
	struct slice held[HELD] = {0};
	uint64_t seeds[HELD] = {0};
	struct random random;
	uint8_t *bytes = malloc(8 << 20);
	unsigned got = 0;

	random_init(&random, 17);
	wire_decoder_init(&decoder, FRAME_MAGIC_PEER, cache);
	for (unsigned sent = 0; sent < COUNT;) {
		size_t size = 0;
		unsigned first = sent, batch = 1 + (unsigned)random_below(&random, 20);
		for (unsigned i = 0; i < batch; i++, sent++) {
			uint64_t kind = random_below(&random, 20);
			struct test_frame frame = {
				.op = 1,
				.request = sent + 1,
				.body_size = (uint32_t)random_below(&random, 200),
				.payload_size = (uint32_t)random_below(&random, kind == 0   ? 300000
										: kind < 10 ? 9000
											    : 200),
			};
			size += test_encode(bytes + size, &frame, sent);
		}
		for (size_t at = 0; at < size;) {
			size_t want = 1 + random_below(&random, 1 + random_below(&random, size));
			struct wire_frame frame;
			at += test_feed(&decoder, bytes + at, min_of(want, size - at));
			while (wire_decoder_next(&decoder, &frame) == 1) {
				unsigned slot = got % HELD;
				assert_int_equal(frame.request, got + 1);
				assert_true(test_is_filled(frame.body, frame.body_size, got));
				assert_true(test_is_filled(held[slot].data, held[slot].size,
							   seeds[slot]));
				buffer_put(held[slot].buffer);
				held[slot] = frame.payload;
				seeds[slot] = got + 1;
				got++;
			}
		}
		assert_int_equal(decoder.error.code, 0);
		assert_in_range(got, first, sent);
	}
	assert_true(got >= COUNT);
	for (unsigned i = 0; i < HELD; i++)
		buffer_put(held[i].buffer);
	wire_decoder_done(&decoder);
	assert_int_equal(buffer_cache_busy(cache), 0);
	free(bytes);
	buffer_cache_free(cache);
}

/* A payload that was received whole is not copied; one that was not lies aligned, by itself. */
static void test_payload_is_copied_only_where_it_was_cut(void **state)
{
	static const struct test_frame whole = {.op = 1, .request = 1, .payload_size = 4096};
	static const struct test_frame large = {
		.op = 1, .request = 1, .body_size = 64, .payload_size = 4 << 20};
	struct buffer_cache *cache = buffer_cache_new(64 << 20);
	struct stream stream = stream_of(&whole, 1);
	struct wire_decoder decoder;
	struct wire_frame frame;
	struct iovec iov[2];

	wire_decoder_init(&decoder, FRAME_MAGIC_PEER, cache);
	assert_int_equal(test_feed(&decoder, stream.bytes, stream.size), stream.size);
	assert_int_equal(wire_decoder_next(&decoder, &frame), 1);
	assert_ptr_equal(frame.payload.buffer, decoder.inbox);
	buffer_put(frame.payload.buffer);
	free(stream.bytes);

	stream = stream_of(&large, 1);
	size_t fed = test_feed(&decoder, stream.bytes, 5000);
	assert_int_equal(wire_decoder_next(&decoder, &frame), 0);
	assert_int_equal(wire_decoder_space(&decoder, iov), 2);
	assert_int_equal(iov[0].iov_len, stream.size - fed); /* all the rest, by one receive */
	memcpy(iov[0].iov_base, stream.bytes + fed, iov[0].iov_len);
	wire_decoder_received(&decoder, iov[0].iov_len);
	assert_int_equal(wire_decoder_next(&decoder, &frame), 1);
	expect_frame(&frame, &large, 0);
	assert_int_equal((uintptr_t)frame.payload.data % BUFFER_ALIGN, 0);
	buffer_put(frame.payload.buffer);
	wire_decoder_done(&decoder);
	free(stream.bytes);
	buffer_cache_free(cache);
}

/* A busy stream gets a large inbox, one that went quiet a small one again. */
static void test_inbox_follows_the_load(void **state)
{
	static const struct test_frame small = {.op = 1, .request = 1}; /* divides any inbox */
	struct buffer_cache *cache = buffer_cache_new(1 << 20);
	struct stream stream = stream_of(&small, 1);
	struct wire_decoder decoder;
	struct wire_frame frame;
	struct iovec iov[2];

	wire_decoder_init(&decoder, FRAME_MAGIC_PEER, cache);
	for (unsigned i = 0; i < 20; i++) { /* whatever is offered is filled */
		assert_int_equal(wire_decoder_space(&decoder, iov), 1);
		size_t part = stream.size, left = iov[0].iov_len;
		uint8_t *at = iov[0].iov_base;
		for (; left >= part; left -= part, at += part)
			memcpy(at, stream.bytes, part);
		assert_int_equal(left, 0);
		wire_decoder_received(&decoder, iov[0].iov_len);
		while (wire_decoder_next(&decoder, &frame) == 1)
			;
		assert_int_equal(decoder.error.code, 0);
	}
	assert_int_equal(wire_decoder_space(&decoder, iov), 1);
	assert_int_equal(iov[0].iov_len, WIRE_DECODER_BUFFER_MAX);
	for (unsigned i = 0; i < 400; i++) {
		(void)test_feed(&decoder, stream.bytes, stream.size);
		assert_int_equal(wire_decoder_next(&decoder, &frame), 1);
		assert_int_equal(wire_decoder_next(&decoder, &frame), 0);
	}
	assert_int_equal(wire_decoder_space(&decoder, iov), 1);
	assert_int_equal(iov[0].iov_len, WIRE_DECODER_BUFFER_MIN);
	wire_decoder_done(&decoder);
	free(stream.bytes);
	buffer_cache_free(cache);
}

/* ---- lies ---- */

struct lie {
	const char *name;
	void (*tell)(struct frame_header *header);
	int code;
};

#define LIE(lie_name, statement)                                 \
	static void tell_##lie_name(struct frame_header *header) \
	{                                                        \
		statement;                                       \
	}
LIE(magic, header->magic = to_le32(0x12345678))
LIE(other_protocol, header->magic = to_le32(FRAME_MAGIC_ADMIN))
LIE(flags, header->flags = to_le16(0x8000))
LIE(reserved, header->reserved[4] = to_le32(1))
LIE(body_too_large, header->body_size = to_le32(FRAME_BODY_MAX + 1))
LIE(body_huge, header->body_size = to_le32(UINT32_MAX))
LIE(payload_too_large, header->payload_size = to_le32(FRAME_PAYLOAD_MAX + 1))
LIE(payload_huge, header->payload_size = to_le32(UINT32_MAX))
LIE(oneway_reply, header->flags = to_le16(FRAME_REPLY | FRAME_ONEWAY))
LIE(status, header->status = to_le32(1))
LIE(reply_max, header->reply_max = to_le32(FRAME_PAYLOAD_MAX + 1))
LIE(reply_with_max, (header->flags = to_le16(FRAME_REPLY), header->reply_max = to_le32(1)))
LIE(oneway_with_number, header->flags = to_le16(FRAME_ONEWAY))
LIE(no_number, header->request = to_le64(0))
LIE(body_crc, header->body_crc = to_le32(1))
LIE(payload_crc, header->payload_crc = to_le32(1))
LIE(own_crc_and_a_sum, header->flags = to_le16(FRAME_OWN_CRC))
LIE(no_body_but_sum, (header->body_size = to_le32(0), header->payload_size = to_le32(0)))
#undef LIE

static const struct lie lies[] = {
	{"magic", tell_magic, -E_PROTOCOL},
	{"other protocol", tell_other_protocol, -E_PROTOCOL},
	{"flags", tell_flags, -E_PROTOCOL},
	{"reserved", tell_reserved, -E_PROTOCOL},
	{"body too large", tell_body_too_large, -E_PROTOCOL},
	{"body huge", tell_body_huge, -E_PROTOCOL},
	{"payload too large", tell_payload_too_large, -E_PROTOCOL},
	{"payload huge", tell_payload_huge, -E_PROTOCOL},
	{"one-way reply", tell_oneway_reply, -E_PROTOCOL},
	{"status of a request", tell_status, -E_PROTOCOL},
	{"reply_max", tell_reply_max, -E_PROTOCOL},
	{"reply with reply_max", tell_reply_with_max, -E_PROTOCOL},
	{"one-way with number", tell_oneway_with_number, -E_PROTOCOL},
	{"no number", tell_no_number, -E_PROTOCOL},
	{"body crc", tell_body_crc, -E_CHECKSUM},
	{"payload crc", tell_payload_crc, -E_CHECKSUM},
	{"own crc and a sum", tell_own_crc_and_a_sum, -E_CHECKSUM},
	{"no body but its sum", tell_no_body_but_sum, -E_CHECKSUM},
};

static const struct test_frame honest = {
	.op = 1, .request = 9, .body_size = 40, .payload_size = 200};

/* Decode @bytes by receives of @step; returns the first error, or the number of frames. */
static int decode(struct buffer_cache *cache, const uint8_t *bytes, size_t size, size_t step,
		  char *text)
{
	struct wire_decoder decoder;
	struct wire_frame frame;
	int count = 0, rc = 0;

	wire_decoder_init(&decoder, FRAME_MAGIC_PEER, cache);
	for (size_t at = 0; at < size && rc >= 0;) {
		at += test_feed(&decoder, bytes + at, min_of(step, size - at));
		while ((rc = wire_decoder_next(&decoder, &frame)) == 1) {
			buffer_put(frame.payload.buffer);
			count++;
		}
	}
	if (rc < 0) { /* for ever */
		assert_int_equal(wire_decoder_next(&decoder, &frame), rc);
		assert_true(strlen(wire_decoder_error(&decoder)) > 10);
	}
	if (text)
		(void)text_copy(text, ERROR_TEXT_MAX, wire_decoder_error(&decoder));
	wire_decoder_done(&decoder);
	assert_int_equal(buffer_cache_busy(cache), 0);
	return rc < 0 ? rc : count;
}

static void test_lies_in_a_header_are_errors(void **state)
{
	static const size_t steps[] = {1, 63, 64, 65, 10000};
	struct buffer_cache *cache = buffer_cache_new(1 << 20);
	uint8_t bytes[1024];
	size_t size;

	for (unsigned i = 0; i < ARRAY_COUNT(lies); i++) {
		for (unsigned k = 0; k < ARRAY_COUNT(steps); k++) {
			struct frame_header header;
			size = test_encode(bytes, &honest, 3);
			assert_int_equal(decode(cache, bytes, size, steps[k], NULL), 1);
			memcpy(&header, bytes, sizeof(header));
			lies[i].tell(&header);
			header.header_crc =
				to_le32(crc32c(&header, offsetof(struct frame_header, header_crc)));
			memcpy(bytes, &header, sizeof(header));
			if (decode(cache, bytes, size, steps[k], NULL) != lies[i].code)
				fail_msg("%s was believed, step %zu", lies[i].name, steps[k]);
		}
	}
	buffer_cache_free(cache);
}

/* One flipped bit anywhere is noticed. */
static void test_every_flipped_bit_is_noticed(void **state)
{
	struct buffer_cache *cache = buffer_cache_new(1 << 20);
	uint8_t bytes[1024];
	size_t size = test_encode(bytes, &honest, 3);

	for (size_t bit = 0; bit < size * 8; bit++) {
		bytes[bit / 8] ^= (uint8_t)BIT(bit % 8);
		int rc = decode(cache, bytes, size, size, NULL);
		if (rc != -E_CHECKSUM && rc != -E_PROTOCOL)
			fail_msg("bit %zu flipped: %d", bit, rc);
		bytes[bit / 8] ^= (uint8_t)BIT(bit % 8);
	}
	assert_int_equal(decode(cache, bytes, size, size, NULL), 1);
	buffer_cache_free(cache);
}

static unsigned checked;

static int refuse_large(struct wire_decoder *decoder, const struct wire_frame *frame)
{
	checked++;
	return frame->payload_size > 100 ? -E2BIG : 0;
}

/* The owner's check comes before any memory is taken for the payload. */
static void test_header_is_checked_before_its_payload_has_memory(void **state)
{
	static const struct test_frame large = {.op = 1, .request = 1, .payload_size = 4 << 20};
	struct buffer_cache *cache = buffer_cache_new(1 << 20);
	struct stream stream = stream_of(&large, 1);
	struct wire_decoder decoder;
	struct wire_frame frame;

	wire_decoder_init(&decoder, FRAME_MAGIC_PEER, cache);
	decoder.check = refuse_large;
	checked = 0;
	assert_int_equal(test_feed(&decoder, stream.bytes, 64), 64);
	assert_int_equal(wire_decoder_next(&decoder, &frame), -E2BIG);
	assert_int_equal(checked, 1);
	assert_int_equal(buffer_cache_busy(cache), 1); /* the inbox */
	assert_int_equal(wire_decoder_next(&decoder, &frame), -E2BIG);
	wire_decoder_done(&decoder);
	free(stream.bytes);
	buffer_cache_free(cache);
}

/* ---- the document ---- */

/* The bytes of the @nth block of lines "0000  aa bb ..." in docs/protocol/frame.md. */
static size_t read_dump(unsigned nth, uint8_t *out, size_t max)
{
	const char *top = getenv("top_srcdir");
	char path[512], line[256];
	size_t size = 0;
	unsigned block = 0;
	bool was_inside = false;

	(void)snprintf(path, sizeof(path), "%s/docs/protocol/frame.md", top ? top : ".");
	FILE *file = fopen(path, "r");
	if (!file)
		fail_msg("cannot read %s", path);
	while (fgets(line, sizeof(line), file)) {
		unsigned offset, byte;
		int at = 0, step = 0;
		bool is_inside = sscanf(line, "%4x %n", &offset, &at) == 1 && at == 6;
		if (is_inside && !was_inside)
			block++;
		was_inside = is_inside;
		if (!is_inside || block != nth)
			continue;
		assert_int_equal(offset, size);
		while (sscanf(line + at, "%2x%n", &byte, &step) == 1 && line[at] != '|') {
			assert_true(size < max);
			out[size++] = (uint8_t)byte;
			at += step;
		}
	}
	(void)fclose(file);
	return size;
}

/* Decode the @nth dump; body and payload stay valid until the next call. */
static struct wire_frame decode_dump(unsigned nth)
{
	static uint8_t bytes[1024];
	struct buffer_cache *cache = buffer_cache_new(1 << 20);
	struct wire_decoder decoder;
	struct wire_frame frame;
	size_t size = read_dump(nth, bytes, sizeof(bytes));

	wire_decoder_init(&decoder, FRAME_MAGIC_PEER, cache);
	assert_int_equal(test_feed(&decoder, bytes, size), size);
	if (wire_decoder_next(&decoder, &frame) != 1)
		fail_msg("dump %u: %s", nth, wire_decoder_error(&decoder));
	assert_int_equal(size, FRAME_HEADER_SIZE + frame.body_size + frame.payload_size);
	frame.body = bytes + FRAME_HEADER_SIZE;
	buffer_put(frame.payload.buffer);
	frame.payload.data = bytes + FRAME_HEADER_SIZE + frame.body_size;
	wire_decoder_done(&decoder);
	buffer_cache_free(cache);
	return frame;
}

static void test_examples_in_the_document_are_what_it_says(void **state)
{
	const struct wire_protocol dialler = {.name = "peer",
					      .magic = FRAME_MAGIC_PEER,
					      .version_min = 1,
					      .version_max = 2,
					      .open_classes = 1,
					      .classes = 3};
	struct wire_protocol acceptor = dialler;
	struct wire_identity self = {.node_id = 3};
	struct wire_agreement agreement;
	struct error err = {0};

	acceptor.version_max = 1;
	assert_int_equal(uuid_parse("6f1f3f7a-0c52-4a2e-9d0b-3a1b5c7d9e01", &self.cluster), 0);
	struct wire_frame frame = decode_dump(1);
	assert_int_equal(wire_hello_judge(&acceptor, &self, &frame, &agreement, &err), 0);
	assert_int_equal(agreement.peer.node_id, 2);
	assert_int_equal(agreement.class, 1);
	assert_int_equal(agreement.loop, 1);
	assert_int_equal(agreement.version, 1);

	frame = decode_dump(2);
	agreement = (struct wire_agreement){0};
	assert_int_equal(wire_hello_reply_judge(&dialler, &self, &frame, &agreement, &err), 0);
	assert_int_equal(agreement.peer.node_id, 3);
	assert_int_equal(agreement.version, 1);
	assert_int_equal(agreement.session, 0x0001000000000005);
	assert_int_equal(agreement.credit_requests, 256);
	assert_int_equal(agreement.credit_bytes, 64 << 20);

	frame = decode_dump(3);
	assert_int_equal(frame.op, 2);
	assert_int_equal(frame.request, 0x10000);
	assert_int_equal(frame.body_size, 16);
	assert_memory_equal(frame.payload.data, "hello, sheepfold", 16);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stream_split_anywhere_gives_the_same_frames),
		cmocka_unit_test(test_stream_byte_by_byte_gives_the_same_frames),
		cmocka_unit_test(test_payloads_that_are_held_stay_as_they_came),
		cmocka_unit_test(test_payload_is_copied_only_where_it_was_cut),
		cmocka_unit_test(test_inbox_follows_the_load),
		cmocka_unit_test(test_lies_in_a_header_are_errors),
		cmocka_unit_test(test_every_flipped_bit_is_noticed),
		cmocka_unit_test(test_header_is_checked_before_its_payload_has_memory),
		cmocka_unit_test(test_examples_in_the_document_are_what_it_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
