/*
 * Records of the local log: written by anyone at any time, possibly cut short, read by all with
 * one result. Sans-I/O. The format: include/proto/local_log.h.
 *
 * What is decided about the bytes of a file never changes when more bytes are appended: the
 * decisions for a part of a file are the first of those for the whole.
 */
#ifndef ENGINE_RECORD_H
#define ENGINE_RECORD_H

#include <stdint.h>

#include "include/proto/local_log.h"
#include "lib/base/random.h"
#include "lib/base/uuid.h"
#include "sheep/engine/engine.h"

#define RECORD_OVERHEAD (sizeof(struct local_record) + LOCAL_TAIL_SIZE)
#define RECORD_MAX	(RECORD_OVERHEAD + ENGINE_COMMAND_MAX)

struct record {
	enum local_record_type type;
	struct uuid node;
	uint64_t start;
	uint64_t sequence;
	const uint8_t *body; /* borrowed; as it lies in the file when it was parsed */
	uint32_t length;
	uint64_t mask; /* of a parsed one */
};

/*
 * Encode @record for the file @file_id at @out, of RECORD_OVERHEAD + length bytes. 0, or -EINVAL:
 * no mask hides the mark (never, unless a node's UUID contains it).
 */
int record_encode(const struct record *record, const struct uuid *file_id, struct random *random,
		  uint8_t *out);

enum record_verdict {
	RECORD_MORE,	/* undecided: more bytes are needed */
	RECORD_SKIP,	/* *consumed bytes are no record, for ever */
	RECORD_FOUND,	/* a record of *consumed bytes */
	RECORD_UNKNOWN, /* a record of *consumed bytes and of a type from a newer version */
};

/* Judge the bytes at @data, where the last decision ended. out->body points into them. */
enum record_verdict record_parse(const struct uuid *file_id, const uint8_t *data, size_t size,
				 struct record *out, size_t *consumed);

/* Take the mask off @length bytes of a body at @data (or put it on). */
void record_mask(uint64_t mask, uint8_t *data, size_t length);

#endif
