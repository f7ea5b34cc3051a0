/*
 * What is decided about a file of the local log: the input is a program that writes one.
 *
 * Each step appends a whole record, a part of one (its writer was killed), raw bytes or zeroes (a
 * power cut), or a seal. Then, at every length of the file:
 *   - what is found is exactly the whole records before the first whole seal, in order (one that was
 *     cut short is whole if the bytes behind it happen to be those that it lacks);
 *   - what is found in a part is the first of what is found in the whole;
 *   - once a whole record is there nothing before it is undecided.
 *
 * For libFuzzer: clang -fsanitize=fuzzer,address with record.c, scan.c and lib/base. The unit
 * test test_local_log.c runs it on random programs.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "sheep/engine/scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define STREAM_MAX  6000
#define RECORDS_MAX 64
#define BODY_MAX    700

static const struct uuid file_id = {"file id of fuzz"};

struct stream {
	struct random random;
	uint8_t bytes[STREAM_MAX];
	size_t size;
	struct {
		size_t end;
		uint64_t sequence;
	} whole[RECORDS_MAX]; /* that count */
	uint32_t count;
	uint64_t sequence; /* of the record made last */
	size_t seal_end;   /* 0: not sealed */
	struct {
		uint8_t bytes[RECORD_OVERHEAD + BODY_MAX];
		size_t size;
		uint64_t sequence;
		bool is_seal;
	} lacks; /* what the record that was cut last lacks, as long as it may still come */
};

struct input {
	const uint8_t *data;
	size_t size;
};

static uint8_t next_byte(struct input *in)
{
	if (!in->size)
		return 0;
	in->size--;
	return *in->data++;
}

/* A body from the input; a zero byte in it becomes a mark, so that marks are common. */
static uint32_t make_body(struct input *in, uint8_t *body)
{
	uint32_t want = next_byte(in), length = 0;

	while (length < want && length + LOCAL_MARK_SIZE < BODY_MAX) {
		uint8_t byte = next_byte(in);

		if (byte) {
			body[length++] = byte;
		} else {
			memcpy(body + length, LOCAL_MARK, LOCAL_MARK_SIZE);
			length += LOCAL_MARK_SIZE;
		}
		if (!in->size)
			break;
	}
	if (!length)
		body[length++] = 7;
	return length;
}

static size_t make_record(struct stream *stream, struct input *in, uint8_t *out, bool is_seal)
{
	uint8_t body[BODY_MAX];
	struct local_seal seal;
	struct record record = {
		.type = is_seal ? LOCAL_RECORD_SEAL : LOCAL_RECORD_COMMAND,
		.start = 77,
		.sequence = ++stream->sequence,
		.body = body,
	};
	int rc;

	if (is_seal) {
		scan_seal_body(&file_id, 2, &seal);
		record.body = (const uint8_t *)&seal;
		record.length = sizeof(seal);
	} else {
		record.length = make_body(in, body);
	}
	rc = record_encode(&record, &file_id, &stream->random, out);
	assert(rc == 0);
	return RECORD_OVERHEAD + record.length;
}

static void count(struct stream *stream, size_t end, uint64_t sequence, bool is_seal)
{
	if (stream->seal_end)
		return;
	if (is_seal) {
		stream->seal_end = end;
		return;
	}
	assert(stream->count < RECORDS_MAX);
	stream->whole[stream->count].end = end;
	stream->whole[stream->count++].sequence = sequence;
}

static bool append(struct stream *stream, const uint8_t *bytes, size_t size)
{
	size_t common = size < stream->lacks.size ? size : stream->lacks.size;

	if (size > STREAM_MAX - stream->size || stream->count + 2 >= RECORDS_MAX)
		return false;
	memcpy(stream->bytes + stream->size, bytes, size);
	if (stream->lacks.size && memcmp(stream->lacks.bytes, bytes, common) != 0) {
		stream->lacks.size = 0;
	} else if (stream->lacks.size) {
		stream->lacks.size -= common;
		memmove(stream->lacks.bytes, stream->lacks.bytes + common, stream->lacks.size);
		if (!stream->lacks.size)
			count(stream, stream->size + common, stream->lacks.sequence,
			      stream->lacks.is_seal);
	}
	stream->size += size;
	return true;
}

static void append_part(struct stream *stream, const uint8_t *bytes, size_t size, size_t cut,
			bool is_seal)
{
	if (!cut || !append(stream, bytes, cut))
		return;
	stream->lacks.size = size - cut;
	memcpy(stream->lacks.bytes, bytes + cut, size - cut);
	stream->lacks.sequence = stream->sequence;
	stream->lacks.is_seal = is_seal;
}

static void step(struct stream *stream, struct input *in)
{
	static const uint8_t zeroes[64];
	uint8_t buffer[RECORD_OVERHEAD + BODY_MAX] = {0};
	uint8_t op = next_byte(in);
	bool is_seal = op >= 240;
	size_t size = make_record(stream, in, buffer, is_seal), cut;

	switch (op % 4) {
	case 0: /* a part; the rest is lost for ever */
		cut = (size_t)(next_byte(in) << 8 | next_byte(in)) % size;
		append_part(stream, buffer, size, op & 16 ? size - 1 - cut % 16 : cut, is_seal);
		break;
	case 1: /* raw bytes, or a damaged record */
		if (op & 16) {
			cut = (size_t)(next_byte(in) << 8 | next_byte(in)) % size;
			buffer[cut] ^= (uint8_t)(next_byte(in) | 1);
			append(stream, buffer, size);
		} else {
			append(stream, buffer + sizeof(struct local_record), size / 3);
		}
		break;
	case 2:
		append(stream, op & 16 ? zeroes : (const uint8_t *)LOCAL_MARK,
		       op & 16 ? op % sizeof(zeroes) : op % LOCAL_MARK_SIZE);
		break;
	default: /* whole */
		if (append(stream, buffer, size))
			count(stream, stream->size, stream->sequence, is_seal);
	}
}

/* As a reader that sees @limit bytes, and saw nothing before. */
static void check_prefix(struct stream *stream, size_t limit)
{
	struct scan scan = {.file_id = file_id, .number = 1};
	struct record record;
	enum scan_event event;
	uint8_t *copy = malloc(limit + 1); /* what is read behind its end is found */
	size_t used = 0, consumed;
	uint32_t found = 0, expected = 0;

	assert(copy);
	memcpy(copy, stream->bytes, limit);
	while ((event = scan_next(&scan, copy + used, limit - used, &record, &consumed)) ==
	       SCAN_COMMAND) {
		used += consumed;
		assert(found < stream->count && used == stream->whole[found].end);
		assert(record.sequence == stream->whole[found].sequence && record.start == 77);
		found++;
	}
	used += consumed;
	while (expected < stream->count && stream->whole[expected].end <= limit)
		expected++;
	assert(found == expected);
	assert((event == SCAN_SEAL) == (stream->seal_end && stream->seal_end <= limit));
	assert(event == SCAN_SEAL || event == SCAN_MORE);
	assert(used <= limit);
	free(copy);
}

/* As a reader that comes by now and then: its decisions must be those of check_prefix(). */
static void check_steps(struct stream *stream, struct input *in)
{
	struct scan scan = {.file_id = file_id, .number = 1};
	struct record record;
	enum scan_event event = SCAN_MORE;
	size_t used = 0, limit = 0, consumed;
	uint32_t found = 0;

	while (limit < stream->size && !scan.is_sealed) {
		limit += 1 + (size_t)next_byte(in) * 2;
		if (limit > stream->size)
			limit = stream->size;
		do {
			event = scan_next(&scan, stream->bytes + used, limit - used, &record,
					  &consumed);
			used += consumed;
			if (event != SCAN_COMMAND)
				continue;
			assert(found < stream->count && used == stream->whole[found].end);
			assert(record.sequence == stream->whole[found++].sequence);
		} while (event == SCAN_COMMAND);
	}
	assert(found == stream->count);
	assert(scan.is_sealed == (stream->seal_end != 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	struct stream *stream = calloc(1, sizeof(*stream));

	assert(stream);
	random_init(&stream->random, size);
	while (in.size && stream->size < STREAM_MAX - 1000)
		step(stream, &in);
	for (size_t limit = 0; limit <= stream->size; limit++)
		check_prefix(stream, limit);
	in = (struct input){data, size};
	check_steps(stream, &in);
	free(stream);
	return 0;
}
