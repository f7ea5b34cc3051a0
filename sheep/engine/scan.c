/* Which records of a file count (scan.h). */
#include "sheep/engine/scan.h"

#include <string.h>

static bool take_seal(struct scan *scan, const struct record *record)
{
	static const uint8_t zero[sizeof(((struct local_seal *)0)->reserved)];
	struct local_seal seal;

	if (record->length != sizeof(seal))
		return false;
	memcpy(&seal, record->body, sizeof(seal));
	record_mask(record->mask, (uint8_t *)&seal, sizeof(seal));
	if (from_le64(seal.number) != scan->number + 1 ||
	    memcmp(seal.reserved, zero, sizeof(zero)) != 0)
		return false;
	memcpy(scan->next_id.bytes, seal.id, sizeof(seal.id));
	scan->is_sealed = true;
	return true;
}

enum scan_event scan_next(struct scan *scan, const uint8_t *data, size_t size,
			  struct record *record, size_t *consumed)
{
	size_t step;

	*consumed = 0;
	while (!scan->is_sealed) {
		switch (record_parse(&scan->file_id, data + *consumed, size - *consumed, record,
				     &step)) {
		case RECORD_MORE:
			return SCAN_MORE;
		case RECORD_UNKNOWN:
			return SCAN_NEWER;
		case RECORD_SKIP:
			*consumed += step;
			scan->skipped_bytes += step;
			break;
		case RECORD_FOUND:
			*consumed += step;
			if (record->type == LOCAL_RECORD_COMMAND)
				return SCAN_COMMAND;
			if (take_seal(scan, record))
				return SCAN_SEAL;
			scan->skipped_bytes += step; /* a seal of something else: for all */
			break;
		}
	}
	return SCAN_MORE;
}

void scan_seal_body(const struct uuid *next_id, uint64_t next_number, struct local_seal *out)
{
	memset(out, 0, sizeof(*out));
	memcpy(out->id, next_id->bytes, sizeof(out->id));
	out->number = to_le64(next_number);
}
