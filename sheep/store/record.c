/*
 * Tails and requests are short sorted vectors whose front falls away: they grow at the back and are
 * moved down when the room at the back is used up, so that in steady state nothing is allocated.
 */
#include "sheep/store/record.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/rule.h"
#include "lib/base/size.h"

void record_done(struct pg_record *record)
{
	for (uint32_t i = 0; i < record->session_count; i++)
		free(record->sessions[i].slots);
	free(record->sessions);
	free(record->tail);
	free(record->staged);
	memset(record, 0, sizeof(*record));
}

bool record_is_empty(const struct pg_record *record)
{
	return version_is_zero(record->last) && version_is_zero(record->commit) &&
	       record->tail_count == 0 && record->session_count == 0;
}

/* Room for one more behind [head, head + count) of @max: moved down, or grown. */
static int make_room(void **memory, size_t size, uint32_t *head, uint32_t count, uint32_t *max)
{
	if (*head + count < *max)
		return 0;
	if (*head > *max / 2) {
		memmove(*memory, (uint8_t *)*memory + *head * size, count * size);
		*head = 0;
		return 0;
	}

	uint32_t new_max = *max ? *max * 2 : 16;
	void *grown = realloc(*memory, new_max * size);

	if (!grown)
		return -ENOMEM;
	*memory = grown;
	*max = new_max;
	return 0;
}

void record_tail_add_run(struct store_tail_entry *tail, uint32_t block, uint32_t count)
{
	uint32_t n = tail->run_count;

	if (n > 0 && (uint32_t)tail->runs[n - 1].block + tail->runs[n - 1].count == block) {
		tail->runs[n - 1].count = (uint16_t)(tail->runs[n - 1].count + count);
	} else if (n < ARRAY_COUNT(tail->runs)) {
		tail->runs[n].block = (uint16_t)block;
		tail->runs[n].count = (uint16_t)count;
		tail->run_count++;
	} else {
		tail->runs[0].count = (uint16_t)(block + count - tail->runs[0].block);
		tail->run_count = 1;
	}
}

int record_add_tail(struct pg_record *record, const struct store_tail_entry *entry, uint64_t ticket)
{
	if (version_compare(entry->version, record->commit) <= 0)
		return 0;

	int rc = make_room((void **)&record->tail, sizeof(*record->tail), &record->tail_head,
			   record->tail_count, &record->tail_max);

	if (rc < 0)
		return rc;
	record->tail[record->tail_head + record->tail_count++] =
		(struct tail_slot){.entry = *entry, .ticket = ticket};
	return 0;
}

bool record_set_commit(struct pg_record *record, struct version commit)
{
	if (version_compare(commit, record->commit) <= 0)
		return false;
	record->commit = commit;
	while (record->tail_count > 0 &&
	       version_compare(record->tail[record->tail_head].entry.version, commit) <= 0) {
		record->tail_head++;
		record->tail_count--;
	}
	if (record->tail_count == 0)
		record->tail_head = 0;
	return true;
}

/* The place of @session, or where it would go. */
static uint32_t session_place(const struct pg_record *record, uint64_t session)
{
	uint32_t low = 0, high = record->session_count;

	while (low < high) {
		uint32_t middle = (low + high) / 2;
		if (record->sessions[middle].session < session)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct session_record *session_find(const struct pg_record *record, uint64_t session)
{
	uint32_t at = session_place(record, session);

	if (at < record->session_count && record->sessions[at].session == session)
		return &record->sessions[at];
	return NULL;
}

static struct session_record *session_make(struct pg_record *record, uint64_t session)
{
	uint32_t at = session_place(record, session);

	if (at < record->session_count && record->sessions[at].session == session)
		return &record->sessions[at];
	if (record->session_count == record->session_max) {
		uint32_t max = record->session_max ? record->session_max * 2 : 4;
		void *grown = realloc(record->sessions, max * sizeof(*record->sessions));
		if (!grown)
			return NULL;
		record->sessions = grown;
		record->session_max = max;
	}
	memmove(&record->sessions[at + 1], &record->sessions[at],
		(record->session_count - at) * sizeof(*record->sessions));
	record->sessions[at] = (struct session_record){.session = session};
	record->session_count++;
	return &record->sessions[at];
}

/* The first of its slots that is not below @number, counted from head. */
static uint32_t request_place(const struct session_record *s, uint64_t number)
{
	uint32_t low = 0, high = s->count;

	while (low < high) {
		uint32_t middle = (low + high) / 2;
		if (s->slots[s->head + middle].number < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The one of @number that is there, or NULL. */
static struct request_slot *request_find(const struct session_record *s, uint64_t number)
{
	for (uint32_t i = request_place(s, number); i < s->count; i++) {
		struct request_slot *slot = &s->slots[s->head + i];
		if (slot->number != number)
			break;
		if (!slot->gone)
			return slot;
	}
	return NULL;
}

static void raise_lowest(struct session_record *s, uint64_t lowest)
{
	if (lowest <= s->lowest)
		return;
	s->lowest = lowest;
	while (s->count > 0 && s->slots[s->head].number < lowest) {
		s->head++;
		s->count--;
	}
	if (s->count == 0)
		s->head = 0;
}

bool record_may_use(const struct pg_record *record, uint64_t session, uint64_t number,
		    uint64_t lowest)
{
	const struct session_record *s = session_find(record, session);

	if (s && s->lowest > lowest)
		lowest = s->lowest;
	return number >= lowest && number - lowest < STORE_SESSION_WINDOW;
}

int record_set_lowest(struct pg_record *record, uint64_t session, uint64_t lowest)
{
	struct session_record *s = session_make(record, session);

	if (!s)
		return -ENOMEM;
	raise_lowest(s, lowest);
	return 0;
}

int record_add_request(struct pg_record *record, const struct store_request *request,
		       uint64_t lowest, uint64_t ticket)
{
	struct session_record *s = session_make(record, request->session);
	uint64_t number = request->number;

	if (!s)
		return -ENOMEM;
	raise_lowest(s, lowest);
	if (number < s->lowest || number - s->lowest >= STORE_SESSION_WINDOW)
		return -EINVAL;

	uint32_t at = request_place(s, number);

	if (request_find(s, number))
		return 0;
	if (make_room((void **)&s->slots, sizeof(*s->slots), &s->head, s->count, &s->max) < 0)
		return -ENOMEM;

	struct request_slot *slot = &s->slots[s->head + at];

	memmove(slot + 1, slot, (s->count - at) * sizeof(*slot));
	*slot = (struct request_slot){.number = number,
				      .version = request->version,
				      .key = request->key,
				      .ticket = ticket};
	s->count++;
	return 0;
}

static int add_all(struct pg_record *record, const struct store_request *requests, uint32_t count,
		   uint64_t ticket)
{
	for (uint32_t i = 0; i < count; i++) {
		const struct store_request *r = &requests[i];
		/* The window tells what is below it, even of a session not heard of before. */
		uint64_t lowest =
			r->number < STORE_SESSION_WINDOW ? 0 : r->number - STORE_SESSION_WINDOW + 1;
		int rc = record_add_request(record, r, lowest, ticket);
		/* Below what the session still waits for: nobody will ask. */
		if (rc < 0 && rc != -EINVAL)
			return rc;
	}
	return 0;
}

static bool is_of(const struct request_slot *slot, const struct object_key *key,
		  struct version above)
{
	return object_key_compare(&slot->key, key) == 0 &&
	       version_compare(slot->version, above) > 0;
}

/* Those of the object behind @above, or all (@key: NULL), are there no more. */
static void take_away(struct session_record *s, const struct object_key *key, struct version above,
		      uint64_t ticket, uint64_t applied)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < s->count; i++) {
		struct request_slot *slot = &s->slots[s->head + i];
		if (!slot->gone && (!key || is_of(slot, key, above))) {
			if (!ticket)
				continue;
			slot->gone = ticket;
		}
		if (!slot->gone || slot->gone > applied)
			s->slots[s->head + kept++] = *slot;
	}
	s->count = kept;
	if (kept == 0)
		s->head = 0;
}

int record_set_requests(struct pg_record *record, const struct store_request *requests,
			uint32_t count, uint64_t ticket, uint64_t applied)
{
	for (uint32_t i = 0; i < record->session_count; i++)
		take_away(&record->sessions[i], NULL, (struct version){0}, ticket, applied);
	return add_all(record, requests, count, ticket);
}

int record_set_object(struct pg_record *record, const struct object_key *key, struct version above,
		      const struct store_request *requests, uint32_t count, uint64_t ticket,
		      uint64_t applied)
{
	for (uint32_t i = 0; i < record->session_count && RULE(Q1_ROWS_FORGOTTEN); i++)
		take_away(&record->sessions[i], key, above, ticket, applied);
	return RULE(Q1_ROWS_TAKEN) ? add_all(record, requests, count, ticket) : 0;
}

int record_stage_requests(struct pg_record *record, const struct store_request *requests,
			  uint32_t count)
{
	if (record->staged_count + count > record->staged_max) {
		uint32_t max = (uint32_t)max_of(record->staged_count + count, 64u);
		void *grown = realloc(record->staged, max * sizeof(*record->staged));
		if (!grown)
			return -ENOMEM;
		record->staged = grown;
		record->staged_max = max;
	}
	memcpy(&record->staged[record->staged_count], requests, count * sizeof(*requests));
	record->staged_count += count;
	return 0;
}

void record_end_session(struct pg_record *record, uint64_t session)
{
	struct session_record *s = session_find(record, session);

	if (!s)
		return;
	free(s->slots);
	record->session_count--;

	uint32_t at = (uint32_t)(s - record->sessions);

	memmove(s, s + 1, (record->session_count - at) * sizeof(*s));
}

int record_find_request(const struct pg_record *record, uint64_t session, uint64_t number,
			struct version *out)
{
	const struct session_record *s = session_find(record, session);
	const struct request_slot *slot = s ? request_find(s, number) : NULL;

	if (!slot)
		return 0;
	*out = slot->version;
	return 1;
}

uint32_t record_tail(const struct pg_record *record, struct store_tail_entry *out, uint32_t max)
{
	for (uint32_t i = 0; i < record->tail_count && i < max; i++)
		out[i] = record->tail[record->tail_head + i].entry;
	return record->tail_count;
}

/* @key: of which object, or NULL: of all. */
static uint32_t list_requests(const struct pg_record *record, const struct object_key *key,
			      struct version above, struct store_request *out, uint32_t max)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < record->session_count; i++) {
		const struct session_record *s = &record->sessions[i];
		for (uint32_t j = 0; j < s->count; j++) {
			const struct request_slot *slot = &s->slots[s->head + j];
			if (slot->gone || (key && !is_of(slot, key, above)))
				continue;
			if (count < max)
				out[count] = (struct store_request){.session = s->session,
								    .number = slot->number,
								    .version = slot->version,
								    .key = slot->key};
			count++;
		}
	}
	return count;
}

uint32_t record_requests(const struct pg_record *record, struct store_request *out, uint32_t max)
{
	return list_requests(record, NULL, (struct version){0}, out, max);
}

uint32_t record_object_requests(const struct pg_record *record, const struct object_key *key,
				struct version above, struct store_request *out, uint32_t max)
{
	return list_requests(record, key, above, out, max);
}
