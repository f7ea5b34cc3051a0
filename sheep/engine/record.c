/*
 * Records of the local log (record.h).
 *
 * Where one decision ended, the bytes are one of:
 *
 *   not a mark                 skip to the next mark, or to where one may begin
 *   a mark, then a bad head    the same, from behind its first byte
 *   a good head, and a mark    cut short by a killed writer or a power cut: skip to that mark
 *     before the end it names
 *   a good head, not yet its   wait; whatever is appended next begins with a mark, so that the
 *     end                      wait ends with the next append
 *   a good head and its end    a record when CRC and token are right
 *
 * The mark has no prefix that is also a suffix (its first byte occurs once), so no mark can arise
 * where the end of one record meets the mark of the next.
 */
#include "sheep/engine/record.h"

#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/crc32c.h"

#define ENCODE_TRIES 64

static const uint8_t mark[LOCAL_MARK_SIZE] = LOCAL_MARK;

static const uint8_t *find_mark(const uint8_t *data, size_t size)
{
	return memmem(data, size, mark, sizeof(mark));
}

/* How far it is from @data, behind its first byte, to a place where a mark is or may begin. */
static size_t next_candidate(const uint8_t *data, size_t size)
{
	const uint8_t *found = find_mark(data + 1, size - 1);
	size_t tail;

	if (found)
		return (size_t)(found - data);
	tail = size - 1 < sizeof(mark) - 1 ? size - 1 : sizeof(mark) - 1;
	while (tail && memcmp(data + size - tail, mark, tail) != 0)
		tail--;
	return size - tail;
}

static uint32_t head_crc(const struct uuid *file_id, struct local_record head)
{
	head.head_crc = to_le32(0);
	return crc32c_extend(crc32c(file_id->bytes, sizeof(file_id->bytes)), &head, sizeof(head));
}

void record_mask(uint64_t mask, uint8_t *data, size_t length)
{
	le64 bytes = to_le64(mask);
	const uint8_t *pad = (const uint8_t *)&bytes;

	if (mask)
		for (size_t i = 0; i < length; i++)
			data[i] ^= pad[i % 8];
}

/*
 * A token without the mark's first byte: a record that lacks its last bytes is not made whole by the mark
 * of the next, which would then lack them.
 */
static le64 make_token(struct random *random)
{
	le64 token;

	do
		token = to_le64(random_u64(random));
	while (memchr(&token, mark[0], sizeof(token)));
	return token;
}

int record_encode(const struct record *record, const struct uuid *file_id, struct random *random,
		  uint8_t *out)
{
	struct local_record head = {
		.length = to_le32(record->length),
		.type = to_le16((uint16_t)record->type),
		.start = to_le64(record->start),
		.sequence = to_le64(record->sequence),
	};
	uint8_t *body = out + sizeof(head);
	size_t size = RECORD_OVERHEAD + record->length;
	uint64_t mask = 0;

	assert(record->length <= ENGINE_COMMAND_MAX);
	memcpy(head.mark, mark, sizeof(mark));
	memcpy(head.node, record->node.bytes, sizeof(head.node));
	for (int i = 0; i < ENCODE_TRIES; i++, mask = random_u64(random)) {
		memcpy(body, record->body, record->length);
		record_mask(mask, body, record->length);
		head.token = make_token(random);
		head.mask = to_le64(mask);
		head.body_crc = to_le32(crc32c(body, record->length));
		head.head_crc = to_le32(head_crc(file_id, head));
		memcpy(out, &head, sizeof(head));
		memcpy(body + record->length, &head.token, LOCAL_TAIL_SIZE);
		if (!find_mark(out + 1, size - 1))
			return 0;
	}
	return -EINVAL;
}

static bool head_is_good(const struct uuid *file_id, const struct local_record *head)
{
	return from_le32(head->head_crc) == head_crc(file_id, *head) &&
	       from_le32(head->length) <= ENGINE_COMMAND_MAX && from_le16(head->reserved) == 0;
}

static bool body_is_good(const struct local_record *head, const uint8_t *body, uint32_t length)
{
	return memcmp(body + length, &head->token, LOCAL_TAIL_SIZE) == 0 &&
	       from_le32(head->body_crc) == crc32c(body, length);
}

static enum record_verdict found(const struct local_record *head, const uint8_t *body,
				 struct record *out)
{
	uint16_t type = from_le16(head->type);

	if (type != LOCAL_RECORD_COMMAND && type != LOCAL_RECORD_SEAL)
		return RECORD_UNKNOWN;
	*out = (struct record){
		.type = (enum local_record_type)type,
		.start = from_le64(head->start),
		.sequence = from_le64(head->sequence),
		.body = body,
		.length = from_le32(head->length),
		.mask = from_le64(head->mask),
	};
	memcpy(out->node.bytes, head->node, sizeof(head->node));
	return RECORD_FOUND;
}

enum record_verdict record_parse(const struct uuid *file_id, const uint8_t *data, size_t size,
				 struct record *out, size_t *consumed)
{
	const struct local_record *head = (const void *)data;
	size_t whole = sizeof(*head), seen;
	const uint8_t *cut;

	*consumed = 0;
	if (size == 0)
		return RECORD_MORE;
	seen = size < sizeof(mark) ? size : sizeof(mark);
	if (memcmp(data, mark, seen) != 0) {
		*consumed = next_candidate(data, size);
		return RECORD_SKIP;
	}
	if (size >= sizeof(*head)) {
		if (!head_is_good(file_id, head)) {
			*consumed = next_candidate(data, size);
			return RECORD_SKIP;
		}
		whole = RECORD_OVERHEAD + from_le32(head->length);
	}
	seen = size < whole ? size : whole;
	cut = find_mark(data + 1, seen - 1);
	if (cut) {
		*consumed = (size_t)(cut - data);
		return RECORD_SKIP;
	}
	if (size < whole || size < sizeof(*head))
		return RECORD_MORE;
	if (!body_is_good(head, data + sizeof(*head), from_le32(head->length))) {
		*consumed = next_candidate(data, size);
		return RECORD_SKIP;
	}
	*consumed = whole;
	return found(head, data + sizeof(*head), out);
}
