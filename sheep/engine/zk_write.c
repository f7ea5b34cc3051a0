/*
 * Proposals: each is a sequential node in the segment that the reader is in.
 *
 *   WAITING --create--> FLYING --made--> MADE --seen by the reader--> gone
 *      ^                  |                |
 *      +--- nobody knows -+                +--- the segment was sealed before it --> WAITING
 *
 * One that nobody knows about is made again: commands may be committed twice.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/size.h"
#include "sheep/engine/zk_priv.h"

#define FLYING_MAX 32u

enum proposal_state { PROPOSAL_WAITING, PROPOSAL_FLYING, PROPOSAL_MADE };

struct zk_proposal {
	struct cds_list_head link;
	enum proposal_state state;
	uint64_t sequence;
	uint64_t segment; /* in which it was made */
	uint32_t size;	  /* of data */
	uint8_t data[];	  /* struct zk_entry, body */
};

static struct zk_proposal *find(struct zk *zk, uint64_t sequence)
{
	struct zk_proposal *proposal;

	cds_list_for_each_entry(proposal, &zk->writer.proposals, link)
		if (proposal->sequence == sequence)
			return proposal;
	return NULL;
}

static void drop(struct zk *zk, struct zk_proposal *proposal)
{
	zk->writer.count--;
	zk->writer.bytes -= proposal->size;
	cds_list_del(&proposal->link);
	free(proposal);
}

/* It is in the segment that the reader is in; mostly its turn has come, and it need not be read. */
static void made(struct zk *zk, struct zk_proposal *proposal, const char *path)
{
	struct cds_list_head *before = proposal->link.prev;

	proposal->state = PROPOSAL_MADE;
	cds_list_del(&proposal->link); /* or the reader would free it under itself */
	zk->writer.count--;
	zk->writer.bytes -= proposal->size;
	if (zk_read_own(zk, path, proposal->data, proposal->size)) {
		free(proposal);
		return;
	}
	zk->writer.count++;
	zk->writer.bytes += proposal->size;
	cds_list_add(&proposal->link, before); /* where it was: nothing has happened */
}

static void on_created(struct zk_call *call)
{
	struct zk *zk = call->zk;
	struct zk_proposal *proposal = find(zk, call->number);

	zk->writer.flying--;
	if (proposal && proposal->state == PROPOSAL_FLYING) {
		if (call->rc == ZOK && proposal->segment == zk->reader.segment) {
			made(zk, proposal, call->path);
		} else {
			proposal->state = PROPOSAL_WAITING;
			zk->engine.stats.proposals_again++;
		}
	}
	if (call->rc == ZOK)
		zk_write_go(zk);
	else
		zk_retry(zk);
}

void zk_write_go(struct zk *zk)
{
	struct zk_proposal *proposal;
	char path[ZK_PATH_MAX];

	if (!zk->reader.segment || zk->is_stopped)
		return;
	cds_list_for_each_entry(proposal, &zk->writer.proposals, link) {
		if (zk->writer.flying >= FLYING_MAX)
			return;
		if (proposal->state != PROPOSAL_WAITING)
			continue;
		zk_path(zk, path, "/log/%010" PRIu64 "/e-", zk->reader.segment);
		if (!zk_create(zk, path, proposal->data, proposal->size, ZOO_PERSISTENT_SEQUENTIAL,
			       proposal->sequence, on_created)) {
			zk_retry(zk);
			return;
		}
		proposal->state = PROPOSAL_FLYING;
		proposal->segment = zk->reader.segment;
		zk->writer.flying++;
	}
}

int64_t zk_write_add(struct zk *zk, enum zk_entry_type type, const void *body, uint32_t size)
{
	struct zk_proposal *proposal = malloc(sizeof(*proposal) + sizeof(struct zk_entry) + size);
	struct zk_entry *entry;

	if (!proposal)
		return -ENOMEM;
	*proposal = (struct zk_proposal){
		.sequence = ++zk->writer.sequence,
		.size = (uint32_t)sizeof(*entry) + size,
	};
	entry = (void *)proposal->data;
	*entry = (struct zk_entry){
		.magic = to_le64(ZK_ENTRY_MAGIC),
		.type = to_le32(type),
		.start = to_le64(zk->engine.self.start),
		.sequence = to_le64(proposal->sequence),
	};
	memcpy(entry->node, zk->engine.self.node.bytes, sizeof(entry->node));
	if (size)
		memcpy(entry + 1, body, size);
	if (type == ZK_ENTRY_SEAL) /* before those that would only make the segment longer */
		cds_list_add(&proposal->link, &zk->writer.proposals);
	else
		cds_list_add_tail(&proposal->link, &zk->writer.proposals);
	zk->writer.count++;
	zk->writer.bytes += proposal->size;
	return (int64_t)proposal->sequence;
}

int zk_propose(struct engine *engine, const void *command, uint32_t size)
{
	struct zk *zk = container_of_type(engine, struct zk, engine);
	int64_t rc;

	if (zk->writer.bytes + size > ENGINE_QUEUE_MAX || zk->writer.count >= ENGINE_QUEUE_COUNT)
		return -EAGAIN;
	rc = zk_write_add(zk, ZK_ENTRY_COMMAND, command, size);
	if (rc < 0)
		return (int)rc;
	zk_write_go(zk);
	return 0;
}

bool zk_write_seen(struct zk *zk, const struct zk_entry *entry)
{
	struct zk_proposal *proposal;

	if (from_le64(entry->start) != zk->engine.self.start ||
	    memcmp(entry->node, zk->engine.self.node.bytes, sizeof(entry->node)) != 0)
		return false;
	proposal = find(zk, from_le64(entry->sequence));
	if (proposal)
		drop(zk, proposal);
	return true;
}

void zk_write_drop(struct zk *zk, uint64_t sequence)
{
	struct zk_proposal *proposal = find(zk, sequence);

	if (proposal)
		drop(zk, proposal);
}

void zk_write_sealed(struct zk *zk)
{
	struct zk_proposal *proposal;

	cds_list_for_each_entry(proposal, &zk->writer.proposals, link) {
		if (proposal->state != PROPOSAL_MADE || proposal->segment >= zk->reader.segment)
			continue;
		proposal->state = PROPOSAL_WAITING;
		zk->engine.stats.proposals_again++;
	}
	zk_write_go(zk);
}

void zk_write_done(struct zk *zk)
{
	struct zk_proposal *proposal, *next;

	cds_list_for_each_entry_safe(proposal, next, &zk->writer.proposals, link)
		drop(zk, proposal);
}
