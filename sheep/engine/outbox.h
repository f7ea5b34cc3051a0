/*
 * What this member has proposed and not yet seen in the log. Sans-I/O.
 *
 *   WAITING --outbox_fill()--> FLYING --outbox_written()--> WRITTEN --outbox_read_start()--> SOUGHT
 *      ^                                                                                       |
 *      +------------- outbox_read_end(): the read came to the end, and it was not there --------+
 *
 * From any state: seen in the log --> gone. A file that was left behind its seal turns WRITTEN and SOUGHT
 * back to WAITING: what was appended behind the seal does not count.
 */
#ifndef ENGINE_OUTBOX_H
#define ENGINE_OUTBOX_H

#include <urcu/list.h>

#include "sheep/engine/record.h"

struct outbox {
	struct uuid node;
	uint64_t start;
	uint64_t next_sequence;
	uint64_t queued_bytes; /* bodies of all entries */
	uint32_t count, waiting;
	struct cds_list_head entries; /* by sequence */
};

void outbox_init(struct outbox *outbox, const struct uuid *node, uint64_t start);
void outbox_done(struct outbox *outbox);

/*
 * Take a copy of a proposal. Returns its sequence, -EAGAIN above ENGINE_QUEUE_MAX or _COUNT, or -ENOMEM.
 * A seal is never refused for the queue.
 */
int64_t outbox_add(struct outbox *outbox, enum local_record_type type, const void *body,
		   uint32_t length);
/*
 * Encode waiting entries for the file @file_id into @out, as many as fit. Gives the bytes; 0: none waits.
 * None may be flying.
 */
size_t outbox_fill(struct outbox *outbox, const struct uuid *file_id, struct random *random,
		   uint8_t *out, size_t size);
/* The write ended; what it wrote may be there, all, in part or not at all. */
void outbox_written(struct outbox *outbox);
void outbox_read_start(struct outbox *outbox);
/* The read that started last came to the end of the file, all it found was taken. Returns how many
 * entries were lost and wait again. */
uint32_t outbox_read_end(struct outbox *outbox);
/* All that was written to the file and not seen does not count. None may be flying. */
uint32_t outbox_file_left(struct outbox *outbox);
/* A record that counts: is it ours? Then it is gone from here. */
bool outbox_seen(struct outbox *outbox, const struct record *record);
/* It is not wanted any more; if it was written it may still be seen. */
void outbox_drop(struct outbox *outbox, uint64_t sequence);

#endif
