/* The stage of a directed history (agree_stage.h). */
#include "tests/sim/agree_stage.h"

#include <stdio.h>
#include <string.h>

#include "lib/base/crc32c.h"

static bool on_message(void *context, unsigned from, const uint8_t *data, size_t size)
{
	struct stage *stage = context;
	const void *body = data + sizeof(struct cpg_message);
	struct cpg_message head;

	if (size < sizeof(head))
		return false; /* one of ours that is none */
	memcpy(&head, data, sizeof(head));
	size -= sizeof(head);
	if (from_le32(head.magic) != CPG_MESSAGE_MAGIC)
		return false;
	stage->head[from] = head;
	switch (from_le16(head.type)) {
	case CPG_TYPE_STATE:
		if (size >= sizeof(struct cpg_state))
			stage->log_id[from] = from_le64(((const struct cpg_state *)body)->log_id);
		return false;
	case CPG_TYPE_VOTE:
		if (size >= sizeof(struct cpg_vote) && from_le64(head.term) == stage->asked &&
		    from_le32(((const struct cpg_vote *)body)->is_granted))
			stage->grants |= BIT(from);
		return false;
	case CPG_TYPE_ACK:
		return stage->drops & BIT(from);
	default:
		return false;
	}
}

void stage_stats_of(struct stage *stage, unsigned node, struct agree_stats *stats)
{
	*stats = (struct agree_stats){0};
	if (stage->world->users[node].core)
		agree_stats_get(stage->world->users[node].core, stats);
}

void stage_find_leader(struct stage *stage)
{
	for (unsigned n = 0; n < stage->world->nodes; n++) {
		struct agree_stats stats;

		stage_stats_of(stage, n, &stats);
		if (stats.is_leader)
			stage->leader = n;
	}
	stage->one = (stage->leader + 1) % 3;
	stage->other = (stage->leader + 2) % 3;
}

void stage_set_up(struct stage *stage, unsigned nodes, unsigned starts)
{
	*stage = (struct stage){0};
	stage->world = world_new(&(struct sim_cpg_options){.seed = 5, .nodes = nodes});
	sim_cpg_set_filter(stage->world->sim, on_message, stage);
	for (unsigned n = 0; n < starts; n++)
		(void)user_start(&stage->world->users[n]);
	if (starts == nodes)
		world_settle(stage->world, 10 * NS_PER_S);
	else
		(void)world_run(stage->world, 5 * NS_PER_S, NULL, NULL);
	for (unsigned n = 0; n < 3; n++)
		(void)user_propose(&stage->world->users[n], 100);
	(void)world_run(stage->world, NS_PER_S, NULL, NULL);
	stage_find_leader(stage);
}

bool stage_tear_down(struct stage *stage, char *why, size_t size)
{
	bool is_well = !stage->world->has_failed;

	(void)snprintf(why, size, "%s", stage->world->why);
	world_free(stage->world);
	return is_well;
}

void stage_run_ms(struct stage *stage, uint64_t ms)
{
	(void)world_run(stage->world, ms * NS_PER_MS, NULL, NULL);
}

/* @from says this. */
void stage_say(struct stage *stage, unsigned from, enum cpg_type type, uint64_t term,
	       const void *body, size_t size)
{
	uint8_t data[4096];
	struct cpg_message head = stage->head[from];

	head.type = to_le16((uint16_t)type);
	head.size = to_le32((uint32_t)(sizeof(head) + size));
	head.term = to_le64(term);
	head.crc = to_le32(0);
	memcpy(data, &head, sizeof(head));
	if (size)
		memcpy(data + sizeof(head), body, size);
	head.crc = to_le32(crc32c(data, sizeof(head) + size));
	memcpy(data, &head, sizeof(head));
	sim_cpg_inject(stage->world->sim, from, data, sizeof(head) + size);
}
