#include "tests/unit/cluster_dice.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "lib/base/random.h"
#include "lib/base/size.h"
#include "lib/base/text.h"

#define NODES DICE_NODES
#define PGS   DICE_PGS

static uint32_t roll(struct dice *dice, uint32_t sides)
{
	return (uint32_t)(random_below(&dice->random, sides));
}

static const struct cluster_map *map_of(const struct dice *dice)
{
	return dice->script->map;
}

static bool node_is_up(const struct dice *dice, uint32_t node)
{
	return cluster_node(map_of(dice), node)->flags & CLUSTER_NODE_UP;
}

/* Any node, now and then one that is not there. */
static uint32_t any_node(struct dice *dice)
{
	return 1 + roll(dice, NODES + (roll(dice, 50) == 0));
}

static uint32_t any_store(struct dice *dice)
{
	return 1 + roll(dice, NODES * 2 + (roll(dice, 50) == 0));
}

static const struct cluster_pg *any_pg(struct dice *dice)
{
	return script_pg(dice->script, roll(dice, PGS));
}

/* Now and then an old one. */
static uint64_t epoch_of(struct dice *dice, const struct cluster_pg *pg)
{
	return roll(dice, 20) ? pg->epoch : pg->epoch - roll(dice, 3);
}

static uint32_t member_of(struct dice *dice, const struct cluster_pg *pg)
{
	if (!pg->isr_count || roll(dice, 20) == 0)
		return any_store(dice);
	return pg->isr[roll(dice, pg->isr_count)].store;
}

static uint64_t incarnation_of(struct dice *dice, uint32_t store)
{
	const struct cluster_store *found = cluster_store(map_of(dice), store);

	return found ? found->incarnation - (roll(dice, 20) == 0) : 1;
}

static uint64_t volume_of(struct dice *dice)
{
	const struct cluster_volume *volume = cluster_volume_next(
		map_of(dice), roll(dice, (uint32_t)cluster_next_id(map_of(dice))));

	return volume ? volume->id : roll(dice, 100);
}

static uint64_t session_of(struct dice *dice)
{
	const struct cluster_node *node = cluster_node(map_of(dice), any_node(dice));

	return node && node->session ? node->session : roll(dice, 1000);
}

static const char *name_of(struct dice *dice, char name[32])
{
	struct text text = text_of(name, 32);

	text_append(&text, "disk-%u%s", roll(dice, 40), roll(dice, 30) ? "" : "@");
	return name;
}

/* ---- commands ---- */

typedef struct cluster_command *make_fn(struct dice *dice, uint32_t *from);

static struct cluster_command *make_shrink(struct dice *dice, uint32_t *from)
{
	const struct cluster_pg *pg = any_pg(dice);
	uint32_t stores[2] = {member_of(dice, pg), member_of(dice, pg)};

	*from = cluster_pg_primary_node(map_of(dice), pg);
	return cluster_command_pg_shrink(pg->id, epoch_of(dice, pg), roll(dice, 2), stores,
					 1 + roll(dice, 2));
}

static struct cluster_command *make_takeover(struct dice *dice, uint32_t *from)
{
	const struct cluster_pg *pg = any_pg(dice);
	uint32_t store = member_of(dice, pg);

	struct cluster_takeover rows[3];
	uint32_t count = 0;

	/* Its store may be a member of others, too. */
	*from = cluster_store_node(map_of(dice), store);
	rows[count++] = (struct cluster_takeover){pg->id, store, epoch_of(dice, pg)};
	while (count < 1 + roll(dice, ARRAY_COUNT(rows))) {
		pg = any_pg(dice);
		rows[count++] = (struct cluster_takeover){
			pg->id, roll(dice, 2) ? store : member_of(dice, pg), epoch_of(dice, pg)};
	}
	return cluster_command_pg_takeover(rows, count);
}

static struct cluster_command *make_primary(struct dice *dice, uint32_t *from)
{
	const struct cluster_pg *pg = any_pg(dice);
	uint32_t successor = cluster_pg_successor(map_of(dice), pg);

	*from = cluster_pg_primary_node(map_of(dice), pg);
	return cluster_command_pg_primary(pg->id, epoch_of(dice, pg),
					  successor ? successor : member_of(dice, pg));
}

static struct cluster_command *make_join(struct dice *dice, uint32_t *from)
{
	const struct cluster_pg *pg = any_pg(dice);
	uint32_t store = any_store(dice);

	for (uint32_t i = 1; i <= NODES * 2; i++)
		if (cluster_pg_wants_join(map_of(dice), pg, i))
			store = i;
	*from = cluster_pg_primary_node(map_of(dice), pg);
	return cluster_command_pg_join(pg->id, store, incarnation_of(dice, store));
}

static const struct cluster_pg *joined_pg(struct dice *dice)
{
	const struct cluster_pg *pg = any_pg(dice);

	for (unsigned i = 0; i < PGS && !pg->join_count; i++)
		pg = any_pg(dice);
	return pg;
}

static struct cluster_command *make_expand(struct dice *dice, uint32_t *from)
{
	const struct cluster_pg *pg = joined_pg(dice);
	struct cluster_join join = {1, 2, 3};

	if (pg->join_count)
		join = pg->joining[roll(dice, pg->join_count)];
	*from = cluster_pg_primary_node(map_of(dice), pg);
	return cluster_command_pg_expand(pg->id, epoch_of(dice, pg), &join,
					 roll(dice, 5) ? 0 : member_of(dice, pg));
}

static struct cluster_command *make_leave_join(struct dice *dice, uint32_t *from)
{
	const struct cluster_pg *pg = joined_pg(dice);
	struct cluster_join join = pg->join_count ? pg->joining[0] : (struct cluster_join){1, 2, 3};

	*from = cluster_store_node(map_of(dice), join.store);
	return cluster_command_pg_leave_join(pg->id, join.store, join.index);
}

static struct cluster_command *make_holes(struct dice *dice, uint32_t *from)
{
	const struct cluster_pg *pg = any_pg(dice);
	uint32_t store = member_of(dice, pg);

	*from = cluster_store_node(map_of(dice), store);
	return cluster_command_pg_holes(pg->id, epoch_of(dice, pg), store,
					incarnation_of(dice, store), roll(dice, 4) == 0);
}

static struct cluster_command *make_elect(struct dice *dice, uint32_t *from)
{
	const struct cluster_pg *pg = any_pg(dice);
	uint32_t store;

	for (unsigned i = 0; i < PGS && pg->primary; i++)
		pg = any_pg(dice);
	store = member_of(dice, pg);
	*from = cluster_store_node(map_of(dice), store);
	return cluster_command_pg_elect(pg->id, epoch_of(dice, pg), store);
}

static struct cluster_command *make_force(struct dice *dice, uint32_t *from)
{
	const struct cluster_pg *pg = any_pg(dice);
	uint32_t store = member_of(dice, pg);

	*from = cluster_store_node(map_of(dice), store);
	return roll(dice, 10) ? NULL : cluster_command_pg_force(pg->id, epoch_of(dice, pg), store);
}

static struct cluster_command *make_dead(struct dice *dice, uint32_t *from)
{
	uint32_t node = any_node(dice);

	(void)from;
	return roll(dice, 4) ? NULL
			     : cluster_command_dead(node, dice->script->nodes[node].incarnation -
								  (roll(dice, 10) == 0));
}

static struct cluster_command *make_leave(struct dice *dice, uint32_t *from)
{
	uint32_t node = any_node(dice);

	*from = node <= NODES ? node : 1;
	return roll(dice, 6) ? NULL
			     : cluster_command_leave(node, dice->script->nodes[node].incarnation);
}

static struct cluster_command *make_store_failed(struct dice *dice, uint32_t *from)
{
	uint32_t store = any_store(dice);

	*from = cluster_store_node(map_of(dice), store);
	return roll(dice, 10) ? NULL
			      : cluster_command_store_failed(store, incarnation_of(dice, store));
}

static struct cluster_command *make_weight(struct dice *dice, uint32_t *from)
{
	(void)from;
	return cluster_command_store_weight(any_store(dice), roll(dice, 4) * 512);
}

static struct cluster_command *make_drain(struct dice *dice, uint32_t *from)
{
	(void)from;
	return roll(dice, 3) ? cluster_command_node_undrain(any_node(dice))
			     : cluster_command_node_drain(any_node(dice));
}

static struct cluster_command *make_setting(struct dice *dice, uint32_t *from)
{
	unsigned id = roll(dice, CLUSTER_SETTING_COUNT);

	(void)from;
	return cluster_command_setting(cluster_settings[id].name,
				       roll(dice, 3) ? cluster_settings[id].preset
						     : roll(dice, 10000));
}

static struct cluster_command *make_policy(struct dice *dice, uint32_t *from)
{
	(void)from;
	return roll(dice, 10) ? NULL : cluster_command_policy(0, 2 + roll(dice, 2), roll(dice, 3));
}

static struct cluster_command *make_create(struct dice *dice, uint32_t *from)
{
	struct cluster_property properties[] = {{"access", "shared"}, {"filters", "delay"}};
	char name[32];

	(void)from;
	return cluster_command_volume_create(name_of(dice, name), 512 * (uint64_t)roll(dice, 99),
					     roll(dice, 30) == 0, properties, roll(dice, 3));
}

static struct cluster_command *make_delete(struct dice *dice, uint32_t *from)
{
	(void)from;
	return cluster_command_volume_delete(volume_of(dice));
}

static struct cluster_command *make_rename(struct dice *dice, uint32_t *from)
{
	const struct cluster_volume *volume = cluster_volume(map_of(dice), volume_of(dice));
	char name[32];

	(void)from;
	return cluster_command_volume_rename(volume ? volume->id : 7, volume ? volume->name : "x",
					     name_of(dice, name));
}

static struct cluster_command *make_resize(struct dice *dice, uint32_t *from)
{
	const struct cluster_volume *volume = cluster_volume(map_of(dice), volume_of(dice));

	(void)from;
	return cluster_command_volume_resize(volume ? volume->id : 7,
					     volume ? volume->size_bytes : 512,
					     512 * (uint64_t)roll(dice, 200), roll(dice, 2));
}

static struct cluster_command *make_set(struct dice *dice, uint32_t *from)
{
	static const char *const keys[] = {"access", "durability", "filters", "iops", "x", "Y"};
	static const char *const values[] = {"single", "shared", "flush", "always", "", "500"};

	(void)from;
	return cluster_command_volume_set(volume_of(dice), keys[roll(dice, ARRAY_COUNT(keys))],
					  values[roll(dice, ARRAY_COUNT(values))]);
}

static struct cluster_command *make_open(struct dice *dice, uint32_t *from)
{
	(void)from;
	return cluster_command_volume_open(volume_of(dice), session_of(dice), roll(dice, 2));
}

static struct cluster_command *make_close(struct dice *dice, uint32_t *from)
{
	(void)from;
	return cluster_command_volume_close(volume_of(dice), session_of(dice));
}

static struct cluster_command *make_own(struct dice *dice, uint32_t *from)
{
	const struct cluster_volume *volume = cluster_volume(map_of(dice), volume_of(dice));

	(void)from;
	return cluster_command_volume_own(volume ? volume->id : 7, session_of(dice),
					  volume ? volume->generation - (roll(dice, 9) == 0) : 1);
}

static struct cluster_command *make_shutdown(struct dice *dice, uint32_t *from)
{
	(void)from;
	return roll(dice, 10) ? NULL : cluster_command_shutdown();
}

static make_fn *const makes[] = {
	make_shrink, make_takeover, make_primary,      make_join,   make_join,	     make_join,
	make_expand, make_expand,   make_expand,       make_holes,  make_elect,	     make_elect,
	make_force,  make_dead,	    make_leave,	       make_weight, make_drain,	     make_setting,
	make_policy, make_create,   make_delete,       make_rename, make_resize,     make_set,
	make_open,   make_close,    make_store_failed, make_own,    make_leave_join, make_shutdown,
};

static void count(struct dice *dice, enum proto_status status)
{
	dice->tried[dice->script->result.type]++;
	dice->accepted[dice->script->result.type] += status == PROTO_STATUS_OK;
}

/* A node that is up to propose as; @wish if it is. */
static uint32_t proposer(struct dice *dice, uint32_t wish)
{
	if (wish && wish <= NODES && node_is_up(dice, wish))
		return wish;
	for (unsigned i = 0; i < 50; i++) {
		wish = 1 + roll(dice, NODES);
		if (node_is_up(dice, wish))
			return wish;
	}
	return 1;
}

static void restart_somebody(struct dice *dice)
{
	static const uint32_t flags[] = {
		0, 0, 0, LOG_STORE_UNCLEAN, LOG_STORE_UNCLEAN, LOG_STORE_NEW};
	uint32_t node = 1 + roll(dice, NODES);

	if (node_is_up(dice, node) && roll(dice, 6))
		return;
	count(dice, script_restart(dice->script, node, flags[roll(dice, ARRAY_COUNT(flags))]));
}

void dice_do_something(struct dice *dice)
{
	uint32_t from = 0;
	struct cluster_command *command;

	if (roll(dice, 25) == 0) {
		restart_somebody(dice);
		return;
	}
	if (roll(dice, 150) == 0) {
		if (node_is_up(dice, 1))
			script_plan(dice->script, roll(dice, 3) ? 0 : 2);
		return;
	}
	command = makes[roll(dice, ARRAY_COUNT(makes))](dice, &from);
	if (!command)
		return;
	from = proposer(dice, roll(dice, 30) ? from : 0);
	count(dice, roll(dice, 20) ? script_run(dice->script, from, command)
				   : script_run_twice(dice->script, from, command));
}

uint32_t dice_roll(struct dice *dice, uint32_t sides)
{
	return roll(dice, sides);
}

void dice_start(struct dice *dice, struct script *script, uint64_t seed)
{
	struct uuid uuid = {{5}};

	dice->script = script;
	random_init(&dice->random, seed);
	for (uint32_t i = 1; i <= NODES; i++)
		(void)script_add_node(script, i % 3 ? "a" : "b", 2);
	assert_int_equal(script_run(script, 1, cluster_command_format(&uuid, 3, 0, PGS, 0)),
			 PROTO_STATUS_OK);
	script_plan(script, 0);
}
