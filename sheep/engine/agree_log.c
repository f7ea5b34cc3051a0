/*
 * The entries of the log in memory: all behind the image that our disk has, and some before it, for members
 * that are a little behind.
 *
 * Always true: entry i lies at entries[i - base.index - 1]; commit <= last; applied <= commit; durable <= saved <= last.
 */
#include <stdlib.h>
#include <string.h>

#include "sheep/engine/agree_priv.h"

struct agree_point agree_last(const struct agree *agree)
{
	const struct agree_log *log = &agree->log;

	if (!log->count)
		return log->base;
	return (struct agree_point){log->entries[log->count - 1]->term,
				    log->base.index + log->count};
}

const struct agree_entry *agree_at(const struct agree *agree, uint64_t index)
{
	const struct agree_log *log = &agree->log;

	if (index <= log->base.index || index > log->base.index + log->count)
		return NULL;
	return log->entries[index - log->base.index - 1];
}

uint64_t agree_term_at(const struct agree *agree, uint64_t index)
{
	const struct agree_entry *entry = agree_at(agree, index);

	if (entry)
		return entry->term;
	return index == agree->log.base.index ? agree->log.base.term : 0;
}

struct agree_entry *agree_entry_new(uint64_t term, uint64_t index, const struct cpg_entry *from,
				    const void *body, uint32_t size)
{
	struct agree_entry *entry = malloc(sizeof(*entry) + size);

	if (!entry)
		return NULL;
	entry->term = term;
	entry->index = index;
	memcpy(entry->node.bytes, from->node, sizeof(from->node));
	entry->start = from_le64(from->start);
	entry->sequence = from_le64(from->sequence);
	entry->type = from_le32(from->type);
	entry->size = size;
	if (size)
		memcpy(entry->body, body, size);
	return entry;
}

void agree_entry_encode(const struct agree_entry *entry, struct cpg_entry *out)
{
	*out = (struct cpg_entry){
		.term = to_le64(entry->term),
		.index = to_le64(entry->index),
		.start = to_le64(entry->start),
		.sequence = to_le64(entry->sequence),
		.type = to_le32(entry->type),
		.size = to_le32(entry->size),
	};
	memcpy(out->node, entry->node.bytes, sizeof(out->node));
}

bool agree_entry_is_valid(const struct cpg_entry *entry, size_t left)
{
	uint32_t size = from_le32(entry->size), type = from_le32(entry->type);
	struct agree_voters voters;

	if (size > left || size > CPG_COMMAND_MAX || !from_le64(entry->term) ||
	    !from_le64(entry->index))
		return false;
	if (type == CPG_ENTRY_VOTERS)
		return agree_voters_parse(entry + 1, size, &voters);
	if (type == CPG_ENTRY_COMMAND)
		return size > 0;
	return type >= CPG_ENTRY_TERM && type <= CPG_ENTRY_FORGET && size == 0;
}

bool agree_append(struct agree *agree, struct agree_entry *entry)
{
	struct agree_log *log = &agree->log;

	assert(entry->index == agree_last(agree).index + 1);
	if (log->count == log->room) {
		size_t room = log->room ? log->room * 2 : 256;
		struct agree_entry **entries =
			realloc(log->entries, room * sizeof(struct agree_entry *));

		if (!entries) {
			free(entry);
			return false;
		}
		log->entries = entries;
		log->room = room;
	}
	log->entries[log->count++] = entry;
	log->bytes += sizeof(*entry) + entry->size;
	if (entry->type == CPG_ENTRY_VOTERS && entry->index > log->commit)
		log->voter_entries++;
	return true;
}

void agree_truncate(struct agree *agree, uint64_t index)
{
	struct agree_log *log = &agree->log;

	assert(index > log->commit && index > log->base.index);
	while (log->count && log->entries[log->count - 1]->index >= index) {
		struct agree_entry *entry = log->entries[--log->count];

		log->bytes -= sizeof(*entry) + entry->size;
		if (entry->type == CPG_ENTRY_VOTERS)
			log->voter_entries--;
		free(entry);
		agree->stats.truncated++;
	}
	log->saved = min_of(log->saved, index - 1);
	log->durable = min_of(log->durable, index - 1);
	agree->disk.flying = min_of(agree->disk.flying, index - 1);
	agree->match = min_of(agree->match, index - 1);
}

void agree_drop(struct agree *agree, uint64_t index)
{
	struct agree_log *log = &agree->log;
	size_t count;

	if (index <= log->base.index)
		return;
	count = (size_t)(index - log->base.index);
	assert(count <= log->count && index <= log->applied);
	log->base = (struct agree_point){log->entries[count - 1]->term, index};
	for (size_t i = 0; i < count; i++) {
		log->bytes -= sizeof(struct agree_entry) + log->entries[i]->size;
		free(log->entries[i]);
	}
	log->count -= count;
	memmove(log->entries, log->entries + count, log->count * sizeof(struct agree_entry *));
}

/* An image stands for everything up to @base, and nothing behind it is here. */
void agree_log_reset(struct agree *agree, struct agree_point base)
{
	struct agree_log *log = &agree->log;

	for (size_t i = 0; i < log->count; i++)
		free(log->entries[i]);
	log->count = 0;
	log->bytes = 0;
	log->voter_entries = 0;
	log->base = base;
	log->commit = log->applied = base.index;
	log->saved = base.index;
	log->durable = 0; /* until the next file has its head */
	agree->disk.flying = 0;
}

void agree_log_done(struct agree *agree)
{
	agree_log_reset(agree, (struct agree_point){0, 0});
	free(agree->log.entries);
	agree->log.entries = NULL;
}

/* ---- voters ---- */

bool agree_voters_parse(const void *body, size_t size, struct agree_voters *out)
{
	const struct cpg_voter *rows = body;
	size_t count = size / sizeof(*rows);

	if (size % sizeof(*rows) || !count || count > CPG_VOTERS_MAX)
		return false;
	out->count = (uint32_t)count;
	for (size_t i = 0; i < count; i++) {
		memcpy(out->rows[i].node.bytes, rows[i].node, sizeof(rows[i].node));
		out->rows[i].log_id = from_le64(rows[i].log_id);
	}
	return true;
}

size_t agree_voters_encode(const struct agree_voters *voters, struct cpg_voter *out)
{
	for (uint32_t i = 0; i < voters->count; i++) {
		memcpy(out[i].node, voters->rows[i].node.bytes, sizeof(out[i].node));
		out[i].log_id = to_le64(voters->rows[i].log_id);
	}
	return voters->count * sizeof(*out);
}

void agree_voters_at(const struct agree *agree, uint64_t index, struct agree_voters *out)
{
	const struct agree_log *log = &agree->log;

	if (log->voter_entries) {
		for (uint64_t i = min_of(index, agree_last(agree).index); i > log->commit; i--) {
			const struct agree_entry *entry = agree_at(agree, i);

			if (entry->type == CPG_ENTRY_VOTERS &&
			    agree_voters_parse(entry->body, entry->size, out))
				return;
		}
	}
	*out = agree->voters;
}

bool agree_voters_name(const struct agree_voters *voters, const struct uuid *node)
{
	for (uint32_t i = 0; i < voters->count; i++)
		if (uuid_is_equal(&voters->rows[i].node, node))
			return true;
	return false;
}

bool agree_voters_have(const struct agree_voters *voters, const struct uuid *node, uint64_t log_id)
{
	for (uint32_t i = 0; i < voters->count; i++)
		if (uuid_is_equal(&voters->rows[i].node, node) &&
		    (voters->rows[i].log_id == log_id || !RULE(G2_LOG_ID)))
			return true;
	return false;
}

bool agree_bytes_add(struct agree_bytes *bytes, const void *data, size_t size)
{
	if (bytes->size + size > bytes->room) {
		size_t room = max_of(bytes->room * 2, bytes->size + size);
		uint8_t *grown = realloc(bytes->data, room);

		if (!grown)
			return false;
		bytes->data = grown;
		bytes->room = room;
	}
	if (size)
		memcpy(bytes->data + bytes->size, data, size);
	bytes->size += size;
	return true;
}
