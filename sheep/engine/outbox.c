/* What this member has proposed and not yet seen (outbox.h). */
#include "sheep/engine/outbox.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"

enum entry_state { ENTRY_WAITING, ENTRY_FLYING, ENTRY_WRITTEN, ENTRY_SOUGHT, ENTRY_STATE_COUNT };

struct entry {
	struct cds_list_head link;
	enum entry_state state;
	enum local_record_type type;
	uint64_t sequence;
	uint32_t length;
	uint8_t body[];
};

static const uint8_t entry_next[ENTRY_STATE_COUNT] = {
	[ENTRY_WAITING] = BIT(ENTRY_FLYING),
	[ENTRY_FLYING] = BIT(ENTRY_WRITTEN),
	[ENTRY_WRITTEN] = BIT(ENTRY_SOUGHT) | BIT(ENTRY_WAITING),
	[ENTRY_SOUGHT] = BIT(ENTRY_WAITING),
};

/* The only place that writes entry->state. */
static void entry_enter(struct outbox *outbox, struct entry *entry, enum entry_state next)
{
	assert(entry_next[entry->state] & BIT(next));
	outbox->waiting += next == ENTRY_WAITING;
	outbox->waiting -= entry->state == ENTRY_WAITING;
	entry->state = next;
}

void outbox_init(struct outbox *outbox, const struct uuid *node, uint64_t start)
{
	*outbox = (struct outbox){.node = *node, .start = start, .next_sequence = 1};
	CDS_INIT_LIST_HEAD(&outbox->entries);
}

static void entry_remove(struct outbox *outbox, struct entry *entry)
{
	outbox->waiting -= entry->state == ENTRY_WAITING;
	outbox->count--;
	outbox->queued_bytes -= entry->length;
	cds_list_del(&entry->link);
	free(entry);
}

void outbox_done(struct outbox *outbox)
{
	struct entry *entry, *next;

	cds_list_for_each_entry_safe(entry, next, &outbox->entries, link)
		entry_remove(outbox, entry);
}

int64_t outbox_add(struct outbox *outbox, enum local_record_type type, const void *body,
		   uint32_t length)
{
	struct entry *entry;

	if (type == LOCAL_RECORD_COMMAND && (outbox->queued_bytes + length > ENGINE_QUEUE_MAX ||
					     outbox->count >= ENGINE_QUEUE_COUNT))
		return -EAGAIN;
	entry = malloc(sizeof(*entry) + length);
	if (!entry)
		return -ENOMEM;
	entry->state = ENTRY_WAITING;
	entry->type = type;
	entry->sequence = outbox->next_sequence++;
	entry->length = length;
	memcpy(entry->body, body, length);
	cds_list_add_tail(&entry->link, &outbox->entries);
	outbox->queued_bytes += length;
	outbox->count++;
	outbox->waiting++;
	return (int64_t)entry->sequence;
}

size_t outbox_fill(struct outbox *outbox, const struct uuid *file_id, struct random *random,
		   uint8_t *out, size_t size)
{
	struct entry *entry, *next;
	size_t used = 0;

	assert(size >= RECORD_MAX);
	cds_list_for_each_entry_safe(entry, next, &outbox->entries, link) {
		struct record record = {
			.type = entry->type,
			.node = outbox->node,
			.start = outbox->start,
			.sequence = entry->sequence,
			.body = entry->body,
			.length = entry->length,
		};

		if (entry->state != ENTRY_WAITING)
			continue;
		if (RECORD_OVERHEAD + entry->length > size - used)
			break;
		if (record_encode(&record, file_id, random, out + used) < 0) {
			entry_remove(outbox, entry); /* it cannot be written, ever: lost */
			continue;
		}
		used += RECORD_OVERHEAD + entry->length;
		entry_enter(outbox, entry, ENTRY_FLYING);
	}
	return used;
}

/* All in state @from enter @to; returns how many. */
static uint32_t move_all(struct outbox *outbox, enum entry_state from, enum entry_state to)
{
	struct entry *entry;
	uint32_t moved = 0;

	cds_list_for_each_entry(entry, &outbox->entries, link) {
		if (entry->state != from)
			continue;
		entry_enter(outbox, entry, to);
		moved++;
	}
	return moved;
}

void outbox_written(struct outbox *outbox)
{
	move_all(outbox, ENTRY_FLYING, ENTRY_WRITTEN);
}

void outbox_read_start(struct outbox *outbox)
{
	move_all(outbox, ENTRY_WRITTEN, ENTRY_SOUGHT);
}

uint32_t outbox_read_end(struct outbox *outbox)
{
	return move_all(outbox, ENTRY_SOUGHT, ENTRY_WAITING);
}

uint32_t outbox_file_left(struct outbox *outbox)
{
	return move_all(outbox, ENTRY_SOUGHT, ENTRY_WAITING) +
	       move_all(outbox, ENTRY_WRITTEN, ENTRY_WAITING);
}

static struct entry *find_entry(struct outbox *outbox, uint64_t sequence)
{
	struct entry *entry;

	cds_list_for_each_entry(entry, &outbox->entries, link)
		if (entry->sequence == sequence)
			return entry;
	return NULL;
}

bool outbox_seen(struct outbox *outbox, const struct record *record)
{
	struct entry *entry;

	if (record->start != outbox->start || !uuid_is_equal(&record->node, &outbox->node))
		return false;
	entry = find_entry(outbox, record->sequence);
	if (!entry)
		return false;
	entry_remove(outbox, entry);
	return true;
}

void outbox_drop(struct outbox *outbox, uint64_t sequence)
{
	struct entry *entry = find_entry(outbox, sequence);

	if (entry)
		entry_remove(outbox, entry);
}
