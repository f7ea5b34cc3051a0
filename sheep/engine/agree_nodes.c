/*
 * Nodes: what the log remembers of them, and how we learn that a start has ended.
 *
 * The table of nodes is a function of the log: the latest start of each node that joined, how many commands
 * of it the log has, how it ended. A command is appended when it is the next one of a start that
 * joined, so none is there twice.
 *
 * An end is a fact as soon as one member knows it: it is told at once, also without quorum, said
 * to the others, and written into the log for those who come later. Who said good-bye has left.
 * Who was lost by CPG has died only if its connections were closed by its kernel at the same time: either may
 * happen to a process that lives.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"
#include "sheep/engine/agree_priv.h"

/* ---- the table ---- */

struct agree_node *agree_node_find(const struct agree_nodes *nodes, const struct uuid *node)
{
	for (uint32_t i = 0; i < nodes->count; i++)
		if (uuid_is_equal(&nodes->rows[i].node, node))
			return &nodes->rows[i];
	return NULL;
}

static struct agree_node *add_node(struct agree_nodes *nodes)
{
	if (nodes->count == nodes->room) {
		uint32_t room = nodes->room ? nodes->room * 2 : 16;
		struct agree_node *rows = realloc(nodes->rows, room * sizeof(*rows));

		if (!rows)
			return NULL;
		nodes->rows = rows;
		nodes->room = room;
	}
	return &nodes->rows[nodes->count++];
}

bool agree_nodes_apply(struct agree_nodes *nodes, const struct agree_entry *entry)
{
	struct agree_node *row = agree_node_find(nodes, &entry->node);

	switch (entry->type) {
	case CPG_ENTRY_COMMAND:
		if (row && row->start == entry->start)
			row->sequence = entry->sequence;
		break;
	case CPG_ENTRY_JOIN:
		if (!row)
			row = add_node(nodes);
		if (!row)
			return false;
		*row = (struct agree_node){.node = entry->node, .start = entry->start};
		break;
	case CPG_ENTRY_ENDED:
		if (row && row->start == entry->start)
			row->ended = (uint32_t)entry->sequence;
		break;
	case CPG_ENTRY_FORGET:
		if (row)
			*row = nodes->rows[--nodes->count];
		break;
	}
	return true;
}

bool agree_nodes_copy(struct agree_nodes *to, const struct agree_nodes *from)
{
	struct agree_node *rows = malloc((from->count + 1) * sizeof(*rows));

	if (!rows)
		return false;
	if (from->count)
		memcpy(rows, from->rows, from->count * sizeof(*rows));
	free(to->rows);
	*to = (struct agree_nodes){.rows = rows, .count = from->count, .room = from->count + 1};
	return true;
}

void agree_nodes_done(struct agree_nodes *nodes)
{
	free(nodes->rows);
	*nodes = (struct agree_nodes){0};
}

/* ---- ends ---- */

static struct agree_end *find_end(struct agree *agree, const struct uuid *node, uint64_t start)
{
	for (uint32_t i = 0; i < agree->end_count; i++)
		if (agree->ends[i].start == start && uuid_is_equal(&agree->ends[i].node, node))
			return &agree->ends[i];
	return NULL;
}

void agree_end(struct agree *agree, const struct uuid *node, uint64_t start, enum engine_end how)
{
	const struct agree_node *row = agree_node_find(&agree->nodes, node);

	if (find_end(agree, node, start) || (row && row->start == start && row->ended))
		return;
	if (agree->end_count == AGREE_ENDS_MAX) /* the oldest is told, it is not remembered */
		memmove(agree->ends, agree->ends + 1, --agree->end_count * sizeof(agree->ends[0]));
	agree->ends[agree->end_count++] = (struct agree_end){*node, start, how, false};
	if (agree->is_ready && agree_is_open(agree))
		agree->ops.ended(agree->context, node, start, how);
}

void agree_ends_logged(struct agree *agree)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < agree->end_count; i++) {
		const struct agree_end *end = &agree->ends[i];
		const struct agree_node *row = agree_node_find(&agree->nodes, &end->node);

		/* Another start, or none: it did not come as far as to join, or is long gone. */
		if (row && row->start == end->start && !row->ended)
			agree->ends[kept++] = *end;
		else if (!agree->is_ready)
			agree->ends[kept++] = *end;
	}
	agree->end_count = kept;
}

void on_ended(struct agree *agree, struct agree_peer *peer, const struct cpg_message *message,
	      const uint8_t *body, size_t size)
{
	const struct cpg_ended *ended = (const void *)body;
	struct uuid node;
	uint32_t how = from_le32(ended->how);

	(void)peer;
	(void)message;
	(void)size;
	memcpy(node.bytes, ended->node, sizeof(node.bytes));
	if (how != 1 && how != 2)
		return;
	if (uuid_is_equal(&node, &agree->self.node) && from_le64(ended->start) == agree->self.start)
		return; /* we know better */
	agree_end(agree, &node, from_le64(ended->start),
		  how == 1 ? ENGINE_END_DIED : ENGINE_END_LEFT);
}

/* ---- the two halves of a proof ---- */

static struct agree_suspect *suspect(struct agree *agree, const struct uuid *node, uint64_t start)
{
	struct agree_suspect *row;

	for (uint32_t i = 0; i < agree->suspect_count; i++) {
		row = &agree->suspects[i];
		if (row->start == start && uuid_is_equal(&row->node, node))
			return row;
	}
	if (agree->suspect_count == AGREE_ENDS_MAX)
		memmove(agree->suspects, agree->suspects + 1,
			--agree->suspect_count * sizeof(agree->suspects[0]));
	row = &agree->suspects[agree->suspect_count++];
	*row = (struct agree_suspect){.node = *node, .start = start};
	return row;
}

/* A death closes both at once. What came long after the other had another reason. */
static bool is_proved(const struct agree_suspect *row)
{
	uint64_t apart = row->lost_ns > row->closed_ns ? row->lost_ns - row->closed_ns
						       : row->closed_ns - row->lost_ns;

	return row->is_closed && apart < AGREE_WITNESS_NS;
}

void agree_judge_suspects(struct agree *agree)
{
	for (uint32_t i = 0; i < agree->suspect_count; i++) {
		struct agree_suspect *row = &agree->suspects[i];

		if (row->is_lost && (is_proved(row) || !RULE(G3_TWO_WITNESSES))) {
			row->is_lost = false;
			agree_end(agree, &row->node, row->start, ENGINE_END_DIED);
		}
	}
}

void agree_peer_lost(struct agree *agree, const struct agree_peer *peer)
{
	struct agree_suspect *row;

	if (!peer->is_known)
		return;
	row = suspect(agree, &peer->node, peer->start);
	row->is_lost = true;
	row->lost_ns = agree_now(agree);
}

void agree_peer_lives(struct agree *agree, const struct agree_peer *peer)
{
	for (uint32_t i = 0; i < agree->suspect_count; i++)
		if (agree->suspects[i].start == peer->start &&
		    uuid_is_equal(&agree->suspects[i].node, &peer->node))
			agree->suspects[i].is_lost = false;
}

void agree_link(struct agree *agree, const struct uuid *node, uint64_t start, bool is_closed)
{
	struct agree_suspect *row;

	if (!agree_is_open(agree))
		return;
	row = suspect(agree, node, start);
	row->is_closed = is_closed;
	row->closed_ns = agree_now(agree);
	if (is_closed && row->is_lost)
		agree_turn_soon(agree); /* nothing is told in here */
}

/* ---- forgotten nodes ---- */

void agree_forget(struct agree *agree, const struct uuid *node)
{
	if (!agree_is_open(agree))
		return;
	for (uint32_t i = 0; i < agree->forgotten_count; i++)
		if (uuid_is_equal(&agree->forgotten[i], node))
			return;
	if (agree->forgotten_count == AGREE_ENDS_MAX)
		return;
	agree->forgotten[agree->forgotten_count++] = *node;
	agree_turn_soon(agree);
}

void agree_remember(struct agree *agree, const struct uuid *node)
{
	for (uint32_t i = 0; i < agree->forgotten_count; i++)
		if (uuid_is_equal(&agree->forgotten[i], node)) {
			agree->forgotten[i] = agree->forgotten[--agree->forgotten_count];
			return;
		}
}
