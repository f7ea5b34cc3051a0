#include "tests/sim/lost.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/base/size.h"
#include "sheep/cluster/command.h"

struct herd *lost_herd(uint64_t seed, unsigned nodes, uint32_t copies, uint32_t min_insync)
{
	const struct herd_options options = {.seed = seed,
					     .nodes = nodes,
					     .copies = copies,
					     .min_insync = min_insync,
					     .pg_count = 1,
					     .volume_bytes = 16 * MIB};
	struct herd *herd = herd_new(&options);

	for (uint64_t at = 0; at < 16 * MIB; at += 4 * MIB)
		assert_int_equal(herd_write(herd, 0, at, 256 * KIB), 0);
	herd->may_diverge = herd->may_lose = true;
	return herd;
}

void lost_set(struct herd *herd, enum cluster_setting_id id, uint64_t value)
{
	while (cluster_setting(herd_map(herd), id) != value) {
		herd_propose(herd, cluster_command_setting(cluster_settings[id].name, value));
		herd_run(herd, 50);
	}
}

void lost_run_us(struct herd *herd, uint64_t us)
{
	(void)sim_world_run_until(herd->world, sim_now(herd->world) + us * NS_PER_US, NULL, NULL);
}

uint32_t lost_objects(struct herd *herd, unsigned node)
{
	struct store_pg_info info;

	store_pg_info(herd->nodes[node].store, 0, &info);
	return info.lost;
}

uint32_t lost_missing(struct herd *herd, unsigned node)
{
	struct store_pg_info info;

	store_pg_info(herd->nodes[node].store, 0, &info);
	return info.missing;
}

unsigned lost_node_of(const struct herd *herd, uint32_t store)
{
	unsigned node = 0;

	while (node < herd->node_count && herd->nodes[node].store_id != store)
		node++;
	assert_true(node < herd->node_count);
	return node;
}

void lost_mark(struct herd *herd, unsigned node, uint16_t block)
{
	const struct cluster_volume *volume = cluster_volume_by_name(herd_map(herd), HERD_VOLUME);
	const struct object_key key = {.layer = volume->layers[0], .index = 0};

	assert_true(herd_damage_block(herd, node, 0, &key, block));
}

unsigned lost_count(struct herd *herd, unsigned node, uint64_t bytes)
{
	unsigned lost = 0;

	for (uint64_t at = 0; at < bytes; at += 4 * KIB) {
		int result = herd_read(herd, node, at, 4 * KIB);
		assert_true(result == 0 || result == -E_LOST);
		lost += result == -E_LOST;
	}
	return lost;
}

void lost_end(struct herd *herd)
{
	assert_int_equal(
		herd_clear(herd, (unsigned)herd_primary(herd, 0), GATEWAY_TRIM, 0, 4 * MIB), 0);
	herd_load_stop(herd);
	herd_check(herd);
	herd_free(herd);
}

struct lost_doubt lost_doubt(unsigned seed)
{
	struct lost_doubt doubt = {.herd = lost_herd(seed, 4, 3, 2)};
	struct herd *herd = doubt.herd;
	const struct cluster_pg *row = cluster_pg(herd_map(herd), 0);
	unsigned member[2], count = 0;

	doubt.p = (unsigned)herd_primary(herd, 0);
	for (uint32_t i = 0; i < row->target_count; i++)
		if (row->target[i] != row->primary)
			member[count++] = lost_node_of(herd, row->target[i]);
	doubt.first = member[0];
	doubt.second = member[1];
	doubt.client = 6 - doubt.p - member[0] - member[1];
	assert_int_equal(herd_flush(herd, doubt.client), 0);
	herd_run(herd, 500);
	sim_link_cut(herd->nodes[doubt.p].host, herd->nodes[doubt.first].host);
	herd_write_begin(herd, doubt.client, 8 * KIB, 4 * KIB);
	herd_run(herd, 20);
	return doubt;
}

void lost_doubt_kill(struct lost_doubt *doubt)
{
	struct herd *herd = doubt->herd;

	herd_kill(herd, doubt->p, SIM_DEATH_CERTAIN);
	sim_link_heal(herd->nodes[doubt->p].host, herd->nodes[doubt->first].host);
}

void lost_only_doubt(struct lost_doubt *doubt)
{
	for (uint64_t at = 0; at < 256 * KIB; at += 4 * KIB)
		if (at != 8 * KIB)
			assert_int_equal(herd_read(doubt->herd, doubt->client, at, 4 * KIB), 0);
}
