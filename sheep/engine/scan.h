/*
 * Which records of a file of the local log count. Sans-I/O: bytes in, commands and the seal out.
 *
 *   OPEN --the first seal--> SEALED      (nothing behind the first seal counts)
 */
#ifndef ENGINE_SCAN_H
#define ENGINE_SCAN_H

#include "sheep/engine/record.h"

struct scan {
	struct uuid file_id;
	uint64_t number; /* of the file */
	uint64_t skipped_bytes;
	bool is_sealed;
	struct uuid next_id; /* of the file that goes on, when sealed */
};

enum scan_event {
	SCAN_MORE,    /* all that can be decided is; *consumed bytes may be dropped */
	SCAN_COMMAND, /* a command that counts */
	SCAN_SEAL,    /* the seal: this file is over */
	SCAN_NEWER,   /* a record that only a newer version understands */
};

/* Go on in @data, which starts where the last call's *consumed bytes ended. */
enum scan_event scan_next(struct scan *scan, const uint8_t *data, size_t size,
			  struct record *record, size_t *consumed);

/* The body of a seal. */
void scan_seal_body(const struct uuid *next_id, uint64_t next_number, struct local_seal *out);

#endif
