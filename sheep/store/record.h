/*
 * What a PG remembers besides its objects: the last version, the commit point, the tail, and the
 * requests that were executed. In memory, sans-I/O.
 *
 * All of it is kept as of the newest entry, in flight ones included; what an entry adds carries its
 * ticket (the number of its batch), so that a checkpoint can leave out what is not in the log
 * that it covers. A request that an entry takes away stays with the ticket of that one, unseen, for checkpoints that
 * do not cover it.
 */
#ifndef STORE_RECORD_H
#define STORE_RECORD_H

#include "sheep/store/store.h"

struct tail_slot {
	struct store_tail_entry entry;
	uint64_t ticket;
};

struct request_slot {
	uint64_t number;
	struct version version;
	struct object_key key;
	uint64_t ticket;
	uint64_t gone; /* ticket of what took it away; 0: it is there */
};

/* Executed requests of one session, ascending by number, from `head`. Of one number one at most is there. */
struct session_record {
	uint64_t session;
	uint64_t lowest;
	struct request_slot *slots;
	uint32_t head, count, max;
};

struct pg_record {
	struct version last;
	struct version last_applied; /* of the entries that are in the index */
	struct version commit;
	struct tail_slot *tail;
	uint32_t tail_head, tail_count, tail_max;
	struct session_record *sessions; /* ascending */
	uint32_t session_count, session_max;
	/* a set that replaces the requests, read in parts at replay */
	struct store_request *staged;
	uint32_t staged_count, staged_max;
	struct version staged_above; /* of one object's */
};

void record_done(struct pg_record *record);
bool record_is_empty(const struct pg_record *record);

/* One more run of blocks that the entry touched, ascending; merged when there are too many. */
void record_tail_add_run(struct store_tail_entry *tail, uint32_t block, uint32_t count);

/* All return 0 or -ENOMEM. */
int record_add_tail(struct pg_record *record, const struct store_tail_entry *entry,
		    uint64_t ticket);
/* Also takes the session's lowest number; -EINVAL when the number is outside its window. Of one that is
 * remembered the first version stays: that is the entry which changed something. */
int record_add_request(struct pg_record *record, const struct store_request *request,
		       uint64_t lowest, uint64_t ticket);
int record_set_lowest(struct pg_record *record, uint64_t session, uint64_t lowest);
/* Is @number one that the session may still use? */
bool record_may_use(const struct pg_record *record, uint64_t session, uint64_t number,
		    uint64_t lowest);
/* @ticket: of the batch that has it, 0 at replay; @applied: of the last one that is in the index. */
int record_set_requests(struct pg_record *record, const struct store_request *requests,
			uint32_t count, uint64_t ticket, uint64_t applied);
/* In place of those of the object behind @above: the set may be empty. */
int record_set_object(struct pg_record *record, const struct object_key *key, struct version above,
		      const struct store_request *requests, uint32_t count, uint64_t ticket,
		      uint64_t applied);
/* Is the request in a checkpoint that covers batches up to @applied? */
static inline bool record_covers(const struct request_slot *slot, uint64_t applied)
{
	return slot->ticket <= applied && (!slot->gone || slot->gone > applied);
}
int record_stage_requests(struct pg_record *record, const struct store_request *requests,
			  uint32_t count);
void record_end_session(struct pg_record *record, uint64_t session);
/* Moves forward only. Returns if it moved. */
bool record_set_commit(struct pg_record *record, struct version commit);

int record_find_request(const struct pg_record *record, uint64_t session, uint64_t number,
			struct version *out);
uint32_t record_tail(const struct pg_record *record, struct store_tail_entry *out, uint32_t max);
uint32_t record_requests(const struct pg_record *record, struct store_request *out, uint32_t max);
uint32_t record_object_requests(const struct pg_record *record, const struct object_key *key,
				struct version above, struct store_request *out, uint32_t max);

#endif
