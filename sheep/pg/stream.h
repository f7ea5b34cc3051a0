/*
 * Where a member stands in its primary's order (REPLICATION, W1). Pure.
 *
 * Entries of a reign ascend by n. Each message names the entry that this member was sent before it
 * (`after`), so that numbers it was not sent do not look like a gap.
 */
#ifndef PG_STREAM_H
#define PG_STREAM_H

#include <stdint.h>

struct pg_stream {
	uint64_t reign;
	uint64_t n;	    /* of the last entry that was taken; its store has it or gets it */
	uint64_t applied_n; /* of the last one that is in the log */
};

enum pg_verdict {
	PG_VERDICT_TAKE,  /* the next one */
	PG_VERDICT_HAVE,  /* taken before: acknowledge it again, when it is applied */
	PG_VERDICT_GAP,	  /* something before it has not come yet */
	PG_VERDICT_LYING, /* cannot come from a primary that keeps to the protocol */
};

static inline enum pg_verdict pg_stream_judge(const struct pg_stream *stream, uint64_t after,
					      uint64_t n)
{
	if (n == 0 || n <= after)
		return PG_VERDICT_LYING;
	if (n <= stream->n)
		return PG_VERDICT_HAVE;
	if (after == stream->n)
		return PG_VERDICT_TAKE;
	return after > stream->n ? PG_VERDICT_GAP : PG_VERDICT_LYING;
}

#endif
