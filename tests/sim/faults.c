/*
 * The table of faults: how each begins and ends, and when it may be.
 *
 * Faults of the world may come in any mixture. What destroys data may not: the promise is that
 * nothing is lost while one good copy is in reach, so data is damaged at one node only (the
 * victim), where two copies are always in sync; and what a power cut may make unclean is not the
 * last clean copy of anything. But for one fault, `lose`: that an object is damaged wherever it is, is to be told. What the code cannot live through yet is not begun: see `can`.
 */
#include "tests/sim/program.h"

#include "lib/base/size.h"

/* What is built by now. */
static const unsigned can = FAULT_NEEDS_LEASE | FAULT_NEEDS_ELECT | FAULT_NEEDS_ZERO_LEASE;

const struct fault_row fault_table[FAULT_COUNT] = {
#define FAULT_ROW(kind, text, weight, min, max, flags) \
	[FAULT_##kind] = {text, weight, min, max, flags},
	FAULT_LIST(FAULT_ROW)
#undef FAULT_ROW
};

/* ---- who may be hit ---- */

bool faults_has_node(const struct program *program, unsigned node)
{
	for (unsigned i = 0; i < program->fault_count; i++) {
		const struct fault *fault = &program->faults[i];
		unsigned flags = fault_table[fault->kind].flags;
		if ((flags & (FAULT_OF_NODE | FAULT_OF_VICTIM)) && fault->node == node)
			return true;
		if (fault->kind == FAULT_POWER_CUT_ALL)
			return true;
	}
	return strike_has_node(program, node);
}

bool faults_is_well(const struct program *program, unsigned node)
{
	return program->herd->nodes[node].is_up && !program->is_leaving[node] &&
	       !faults_has_node(program, node);
}

bool faults_others_hold(struct program *program, unsigned number)
{
	const struct herd_node *node = &program->herd->nodes[number];
	struct cluster_map *map = herd_map(program->herd);
	const struct cluster_pg *pg;

	for (uint32_t from = 0; (pg = cluster_pg_next(map, from)); from = pg->id + 1) {
		const struct cluster_seat *seat = cluster_pg_seat(pg, node->store_id);
		bool has_other = false;
		if (!seat)
			continue;
		for (uint32_t i = 0; i < pg->isr_count; i++) {
			uint32_t other = cluster_store_node(map, pg->isr[i].store);
			if (pg->isr[i].store == node->store_id || pg->isr[i].flags ||
			    !cluster_store_is_up(map, pg->isr[i].store))
				continue;
			for (unsigned n = 0; n < program->herd->node_count; n++)
				has_other |= program->herd->nodes[n].id == other &&
					     (int)n != program->victim &&
					     faults_is_well(program, n);
		}
		if (!has_other)
			return false;
	}
	return true;
}

static bool pick_well(struct program *program, unsigned *node)
{
	unsigned first = (unsigned)program_below(program, program->herd->node_count);

	for (unsigned i = 0; i < program->herd->node_count; i++) {
		*node = (first + i) % program->herd->node_count;
		if (faults_is_well(program, *node))
			return true;
	}
	return false;
}

static struct herd_node *node_of(struct program *program, const struct fault *fault)
{
	return &program->herd->nodes[fault->node];
}

static struct sim_host *host_of(struct program *program, const struct fault *fault)
{
	return node_of(program, fault)->host;
}

/* ---- processes ---- */

/* An empty disk. */
static void replace_disk(struct program *program, unsigned number)
{
	sim_host_wipe(program->herd->nodes[number].host);
	program->is_replaced[number] = true;
}

/* What was on a disk that was replaced is lost for good, as the planner is told. */
static void tell_replaced(struct program *program, unsigned number)
{
	struct herd *herd = program->herd;
	struct herd_node *node = &herd->nodes[number];
	struct cluster_map *map = herd_map(herd);
	const struct cluster_store *store;

	if (!program->is_replaced[number] || !map || !node->is_up || !node->store_id)
		return;
	program->is_replaced[number] = false;
	for (store = cluster_store_next(map, 0); store;
	     store = cluster_store_next(map, store->id)) {
		bool is_known = store->node != node->id || store->id == node->store_id;
		for (unsigned i = 0; i < herd->out_store_count; i++)
			is_known |= herd->out_stores[i] == store->id;
		if (!is_known && herd->out_store_count < ARRAY_COUNT(herd->out_stores))
			herd->out_stores[herd->out_store_count++] = store->id;
	}
}

void faults_start_node(struct program *program, unsigned number)
{
	struct herd_node *node = &program->herd->nodes[number];

	if (node->is_up || program->is_removed[number])
		return;
	program_trace(program, "%s starts", node->name);
	if (herd_try_start(program->herd, number))
		return;
	/* Only what we damage cannot be opened; then the operator replaces the disk. */
	HERD_REQUIRE(program->herd, (int)number == program->victim);
	replace_disk(program, number);
	node->was_cut = true;
	herd_start(program->herd, number);
}

static bool begin_kill(struct program *program, struct fault *fault)
{
	herd_kill(program->herd, fault->node,
		  can & FAULT_NEEDS_LEASE && program_below(program, 4) == 0 ? SIM_DEATH_UNKNOWN
									    : SIM_DEATH_CERTAIN);
	return true;
}

static bool begin_kill_silent(struct program *program, struct fault *fault)
{
	herd_kill(program->herd, fault->node, SIM_DEATH_SILENT);
	return true;
}

static bool begin_stop(struct program *program, struct fault *fault)
{
	return herd_try_stop(program->herd, fault->node, 5000) || true;
}

static void end_down(struct program *program, struct fault *fault)
{
	faults_start_node(program, fault->node);
}

static bool begin_power_cut(struct program *program, struct fault *fault)
{
	static const enum sim_power_cut modes[] = {SIM_KEEP_ALL, SIM_DROP_UNSYNCED,
						   SIM_RANDOM_UNSYNCED, SIM_RANDOM_UNSYNCED};

	if (!faults_others_hold(program, fault->node))
		return false;
	herd_cut_power(program->herd, fault->node,
		       can & FAULT_NEEDS_LEASE ? SIM_DEATH_SILENT : SIM_DEATH_CERTAIN,
		       modes[program_below(program, ARRAY_COUNT(modes))]);
	return true;
}

static bool begin_power_cut_all(struct program *program, struct fault *fault)
{
	for (unsigned i = 0; i < program->herd->node_count; i++)
		if (program->herd->nodes[i].is_up)
			herd_cut_power(program->herd, i, SIM_DEATH_SILENT,
				       program_below(program, 2) ? SIM_DROP_UNSYNCED
								 : SIM_RANDOM_UNSYNCED);
	return true;
}

static void end_power_cut_all(struct program *program, struct fault *fault)
{
	for (unsigned i = 0; i < program->herd->node_count; i++)
		if (program->was_added[i])
			faults_start_node(program, i);
}

static bool begin_pause(struct program *program, struct fault *fault)
{
	sim_host_pause(host_of(program, fault));
	return true;
}

static bool begin_freeze(struct program *program, struct fault *fault)
{
	sim_host_freeze(host_of(program, fault));
	return true;
}

static void end_pause(struct program *program, struct fault *fault)
{
	struct herd_node *node = node_of(program, fault);

	sim_host_resume(node->host);
	if (node->is_up)
		sim_engine_set_lag(node->engine, sim_host_lag(node->host));
}

/* ---- the network ---- */

static bool begin_cut(struct program *program, struct fault *fault)
{
	sim_partition(host_of(program, fault), program->herd->nodes[fault->other].host);
	return true;
}

static bool begin_cut_one_way(struct program *program, struct fault *fault)
{
	sim_link_cut(host_of(program, fault), program->herd->nodes[fault->other].host);
	return true;
}

static void end_cut(struct program *program, struct fault *fault)
{
	sim_unpartition(host_of(program, fault), program->herd->nodes[fault->other].host);
}

static bool begin_isolate(struct program *program, struct fault *fault)
{
	for (unsigned i = 0; i < program->herd->node_count; i++)
		if (i != fault->node)
			sim_partition(host_of(program, fault), program->herd->nodes[i].host);
	sim_engine_set_cut(node_of(program, fault)->engine, true);
	return true;
}

static void end_isolate(struct program *program, struct fault *fault)
{
	for (unsigned i = 0; i < program->herd->node_count; i++)
		if (i != fault->node)
			sim_unpartition(host_of(program, fault), program->herd->nodes[i].host);
	if (node_of(program, fault)->is_up)
		sim_engine_set_cut(node_of(program, fault)->engine, false);
}

static bool begin_reset(struct program *program, struct fault *fault)
{
	sim_reset_streams(host_of(program, fault), program->herd->nodes[fault->other].host);
	return true;
}

static void set_delay(struct program *program, struct fault *fault, uint64_t min_ns,
		      uint64_t max_ns)
{
	sim_link_set_delay(host_of(program, fault), program->herd->nodes[fault->other].host, min_ns,
			   max_ns);
}

static bool begin_delay(struct program *program, struct fault *fault)
{
	uint64_t min = NS_PER_MS * (1 + program_below(program, 20));

	set_delay(program, fault, min, min + NS_PER_MS * program_below(program, 10));
	return true;
}

static bool begin_clog(struct program *program, struct fault *fault)
{
	set_delay(program, fault, 100 * NS_PER_MS, 800 * NS_PER_MS);
	return true;
}

static void end_delay(struct program *program, struct fault *fault)
{
	set_delay(program, fault, 50 * NS_PER_US, 150 * NS_PER_US);
}

/* ---- the log ---- */

#define LOG_DELAY_MIN_NS (200 * NS_PER_US)
#define LOG_DELAY_MAX_NS (5 * NS_PER_MS)

static bool begin_log_delay(struct program *program, struct fault *fault)
{
	sim_log_set_delay(program->herd->log, 5 * NS_PER_MS,
			  NS_PER_MS * (20 + program_below(program, 600)));
	return true;
}

static void end_log_delay(struct program *program, struct fault *fault)
{
	sim_log_set_delay(program->herd->log, LOG_DELAY_MIN_NS, LOG_DELAY_MAX_NS);
}

static bool begin_log_cut(struct program *program, struct fault *fault)
{
	sim_engine_set_cut(node_of(program, fault)->engine, true);
	return true;
}

static void end_log_cut(struct program *program, struct fault *fault)
{
	if (node_of(program, fault)->is_up)
		sim_engine_set_cut(node_of(program, fault)->engine, false);
}

static bool begin_quorum(struct program *program, struct fault *fault)
{
	sim_log_set_quorum(program->herd->log, false);
	return true;
}

static void end_quorum(struct program *program, struct fault *fault)
{
	sim_log_set_quorum(program->herd->log, true);
}

/* ---- disks ---- */

static const struct sim_latency fast = {
	60 * NS_PER_US,	 150 * NS_PER_US, 30 * NS_PER_US,
	100 * NS_PER_US, 100 * NS_PER_US, 400 * NS_PER_US,
};

static bool begin_slow_disk(struct program *program, struct fault *fault)
{
	const struct sim_latency slow = {
		5 * NS_PER_MS,	60 * NS_PER_MS, 5 * NS_PER_MS,
		60 * NS_PER_MS, 20 * NS_PER_MS, 200 * NS_PER_MS,
	};

	sim_host_set_latency(host_of(program, fault), &slow);
	return true;
}

static void end_slow_disk(struct program *program, struct fault *fault)
{
	sim_host_set_latency(host_of(program, fault), &fast);
}

static bool begin_hang(struct program *program, struct fault *fault)
{
	if (!faults_others_hold(program, fault->node))
		return false; /* its store may stop, and is unclean then */
	sim_host_hang_disk(host_of(program, fault), true);
	return true;
}

static void restart_if_failed(struct program *program, unsigned number)
{
	struct herd_node *node = &program->herd->nodes[number];

	if (!node->is_up || !store_is_failed(node->store))
		return;
	herd_kill(program->herd, number, SIM_DEATH_CERTAIN);
	node->was_cut = true;
	faults_start_node(program, number);
}

void faults_restart_failed(struct program *program)
{
	for (unsigned i = 0; i < program->herd->node_count; i++)
		restart_if_failed(program, i);
}

static void end_hang(struct program *program, struct fault *fault)
{
	sim_host_hang_disk(host_of(program, fault), false);
	herd_run(program->herd, 1);
	restart_if_failed(program, fault->node);
}

static bool begin_eio(struct program *program, struct fault *fault)
{
	if (!faults_others_hold(program, fault->node))
		return false;
	return sim_host_fault(host_of(program, fault),
			      program_below(program, 3) ? LOOP_OP_WRITE : LOOP_OP_SYNC,
			      1 + (unsigned)program_below(program, 30), SIM_FAULT_EIO) == 0;
}

static void end_eio(struct program *program, struct fault *fault)
{
	sim_host_forget_faults(host_of(program, fault));
	restart_if_failed(program, fault->node);
}

static bool begin_full(struct program *program, struct fault *fault)
{
	program->may_be_full = true;
	sim_host_set_disk_size(host_of(program, fault),
			       sim_host_disk_used(host_of(program, fault)) +
				       program_below(program, 2 * MIB));
	return true;
}

static void end_full(struct program *program, struct fault *fault)
{
	sim_host_set_disk_size(host_of(program, fault), TIB);
	restart_if_failed(program, fault->node);
}

static bool begin_rot(struct program *program, struct fault *fault)
{
	unsigned bits = 1 + (unsigned)program_below(program, 4);

	for (unsigned i = 0; i < bits; i++)
		if (!sim_host_rot(host_of(program, fault), 64 * KIB))
			return i > 0;
	return true;
}

static bool begin_lost_write(struct program *program, struct fault *fault)
{
	return sim_host_fault(host_of(program, fault), LOOP_OP_WRITE,
			      1 + (unsigned)program_below(program, 10), SIM_FAULT_LOST) == 0;
}

static bool begin_misdirect(struct program *program, struct fault *fault)
{
	return sim_host_fault(host_of(program, fault), LOOP_OP_WRITE,
			      1 + (unsigned)program_below(program, 10), SIM_FAULT_MISDIRECT) == 0;
}

static bool begin_blank(struct program *program, struct fault *fault)
{
	struct herd *herd = program->herd;

	if (!faults_others_hold(program, fault->node) || !node_of(program, fault)->store_id ||
	    herd->out_store_count == ARRAY_COUNT(herd->out_stores))
		return false;
	herd_kill(herd, fault->node, SIM_DEATH_CERTAIN);
	replace_disk(program, fault->node);
	return true;
}

/* An object that the victim's store has is found damaged there, and on all other disks that are in reach. */
static bool pick_object(struct program *program, unsigned number, uint32_t *pg,
			struct store_object *out)
{
	struct herd_node *node = &program->herd->nodes[number];
	struct cluster_map *map = herd_map(program->herd);
	const struct cluster_pg *row;
	uint64_t count = 0;

	if (!map || !node->is_up || !node->store_id || store_is_failed(node->store))
		return false;
	for (uint32_t from = 0; (row = cluster_pg_next(map, from)); from = row->id + 1) {
		const struct cluster_seat *seat = cluster_pg_seat(row, node->store_id);
		struct store_object object = {0};
		bool has_after = false;
		if (!seat || (seat->flags & CLUSTER_SEAT_MARKED))
			continue;
		for (struct object_key after;
		     store_object_next(node->store, row->id, has_after ? &after : NULL, &object) >
		     0;
		     after = object.key, has_after = true) {
			if (object.is_missing || program_below(program, ++count) != 0)
				continue;
			*pg = row->id;
			*out = object;
		}
	}
	return count > 0;
}

static bool begin_lose(struct program *program, struct fault *fault)
{
	struct store_object object, copy;
	uint32_t pg = 0, count = 0;

	if (!pick_object(program, fault->node, &pg, &object))
		return false;
	for (unsigned i = 0; i < program->herd->node_count; i++) {
		struct herd_node *node = &program->herd->nodes[i];
		if (!node->is_up || !node->store_id || store_is_failed(node->store) ||
		    store_object(node->store, pg, &object.key, &copy) <= 0)
			continue;
		count += herd_damage(program->herd, i, pg, object.family, &object.key);
	}
	return count > 0;
}

/*
 * A block of an object is found damaged somewhere, and while that is healed, pushed or settled a sector of the victim fails.
 * Block by block there may be a good copy all the time: what is told to be lost is judged when it is (herd_check.c).
 */
static bool has_more_than_two(const struct program *program, uint32_t pg)
{
	const struct cluster_map *map = herd_map(program->herd);
	const struct cluster_pg *row = cluster_pg(map, pg);
	uint32_t good = 0;

	for (uint32_t i = 0; i < row->isr_count; i++)
		good += !row->isr[i].flags && cluster_store_is_up(map, row->isr[i].store);
	return good >= cluster_policy(map, 0)->min_insync + 2;
}

/*
 * At the floor only the victim's block is damaged. Where a member refuses an entry for a hole, and the primary then finds one of
 * its own in an object that waits for that member, neither is healed: seed 91082, not mended yet.
 */
static bool begin_sector(struct program *program, struct fault *fault)
{
	unsigned other = (unsigned)program_below(program, program->herd->node_count);
	uint16_t block = (uint16_t)program_below(program, 16);
	struct herd_node *node = &program->herd->nodes[other];
	struct store_object object, copy;
	uint32_t pg = 0;

	if (!pick_object(program, fault->node, &pg, &object))
		return false;
	if (!has_more_than_two(program, pg))
		node = &program->herd->nodes[other = fault->node];
	if (node->is_up && node->store_id && !store_is_failed(node->store) &&
	    store_object(node->store, pg, &object.key, &copy) > 0)
		(void)herd_damage_block(program->herd, other, pg, &object.key, block);
	return sim_host_fault(host_of(program, fault), LOOP_OP_READ,
			      1 + (unsigned)program_below(program, 6), SIM_FAULT_SECTOR) == 0;
}

/* ---- operators ---- */

static bool begin_create(struct program *program, struct fault *fault)
{
	return workload_create(program->workload);
}

static bool begin_delete(struct program *program, struct fault *fault)
{
	return workload_delete(program->workload);
}

static bool begin_add_node(struct program *program, struct fault *fault)
{
	for (unsigned i = 0; i < program->herd->node_count; i++)
		if (!program->was_added[i]) {
			program->was_added[i] = true;
			herd_start(program->herd, i);
			return true;
		}
	return false;
}

static bool begin_remove_node(struct program *program, struct fault *fault)
{
	unsigned left = 0, node;

	for (unsigned i = 0; i < program->herd->node_count; i++)
		left += program->was_added[i] && !program->is_removed[i] && !program->is_leaving[i];
	if (left <= program->copies || left <= 3 || !pick_well(program, &node) ||
	    !program->herd->nodes[node].id)
		return false;
	fault->node = node;
	program->is_leaving[node] = true;
	return true;
}

static bool begin_setting(struct program *program, struct fault *fault)
{
	static const struct {
		const char *name;
		uint64_t values[3];
	} rows[] = {
		{"recovery_rate", {0, 4 * MIB, 64 * MIB}},
		{"recovery_parallel", {1, 2, 8}},
		{"recovery_paused", {1, 1, 0}},
		{"settle_deadline", {500, 1000, 2000}},
		{"write_deadline", {500, 1000, 2000}},
	};
	unsigned row = (unsigned)program_below(program, ARRAY_COUNT(rows));

	herd_propose(program->herd,
		     cluster_command_setting(rows[row].name,
					     rows[row].values[program_below(program, 3)]));
	return true;
}

static void end_setting(struct program *program, struct fault *fault)
{
}

/* A proposal may be lost, or late: as an operator would, again until it is there. */
static void mend_settings(struct program *program)
{
	struct cluster_map *map = herd_map(program->herd);

	if (map && cluster_setting(map, CLUSTER_SETTING_RECOVERY_PAUSED))
		herd_propose(program->herd, cluster_command_setting("recovery_paused", 0));
	if (map && cluster_setting(map, CLUSTER_SETTING_RECOVERY_RATE))
		herd_propose(program->herd, cluster_command_setting("recovery_rate", 0));
}

static bool begin_strike(struct program *program, struct fault *fault)
{
	return strike_begin(program);
}

static void end_strike(struct program *program, struct fault *fault)
{
	strike_end(program);
}

/* ---- all of them ---- */

static const struct {
	bool (*begin)(struct program *program, struct fault *fault);
	void (*end)(struct program *program, struct fault *fault); /* NULL: it is over at once */
} ways[FAULT_COUNT] = {
	[FAULT_KILL] = {begin_kill, end_down},
	[FAULT_KILL_SILENT] = {begin_kill_silent, end_down},
	[FAULT_STOP] = {begin_stop, end_down},
	[FAULT_POWER_CUT] = {begin_power_cut, end_down},
	[FAULT_POWER_CUT_ALL] = {begin_power_cut_all, end_power_cut_all},
	[FAULT_NAP] = {begin_pause, end_pause},
	[FAULT_PAUSE] = {begin_pause, end_pause},
	[FAULT_FREEZE] = {begin_freeze, end_pause},
	[FAULT_CUT] = {begin_cut, end_cut},
	[FAULT_CUT_ONE_WAY] = {begin_cut_one_way, end_cut},
	[FAULT_ISOLATE] = {begin_isolate, end_isolate},
	[FAULT_RESET] = {begin_reset, NULL},
	[FAULT_DELAY] = {begin_delay, end_delay},
	[FAULT_CLOG] = {begin_clog, end_delay},
	[FAULT_LOG_DELAY] = {begin_log_delay, end_log_delay},
	[FAULT_LOG_CUT] = {begin_log_cut, end_log_cut},
	[FAULT_QUORUM] = {begin_quorum, end_quorum},
	[FAULT_SLOW_DISK] = {begin_slow_disk, end_slow_disk},
	[FAULT_HANG] = {begin_hang, end_hang},
	[FAULT_EIO] = {begin_eio, end_eio},
	[FAULT_FULL] = {begin_full, end_full},
	[FAULT_ROT] = {begin_rot, NULL},
	[FAULT_SECTOR] = {begin_sector, NULL},
	[FAULT_LOST_WRITE] = {begin_lost_write, NULL},
	[FAULT_MISDIRECT] = {begin_misdirect, NULL},
	[FAULT_BLANK] = {begin_blank, end_down},
	[FAULT_STRIKE] = {begin_strike, end_strike},
	[FAULT_LOSE] = {begin_lose, NULL},
	[FAULT_CREATE] = {begin_create, NULL},
	[FAULT_DELETE] = {begin_delete, NULL},
	[FAULT_ADD_NODE] = {begin_add_node, NULL},
	[FAULT_REMOVE_NODE] = {begin_remove_node, NULL},
	[FAULT_SETTING] = {begin_setting, end_setting},
};

static bool may_be(const struct program *program, enum fault_kind kind)
{
	unsigned flags = fault_table[kind].flags, needs = flags & ~(FAULT_NEEDS_LEASE - 1u);

	if (!program->is_kind_on[kind])
		return false;
	if (program->is_single && !(flags & (FAULT_SINGLE | FAULT_NO_HARM)))
		return false;
	if (flags & FAULT_OF_VICTIM && program->victim < 0)
		return false;
	if (flags & FAULT_NEEDS_ZERO_LEASE && program->lease_ms)
		return false;
	return !(needs & ~can);
}

/* One of each kind at a time for those that have no node of their own. */
static bool is_running(const struct program *program, enum fault_kind kind)
{
	for (unsigned i = 0; i < program->fault_count; i++)
		if (program->faults[i].kind == kind)
			return true;
	return false;
}

static enum fault_kind pick_kind(struct program *program)
{
	unsigned sum = 0;
	uint64_t pick;

	for (unsigned i = 0; i < FAULT_COUNT; i++)
		sum += may_be(program, i) ? fault_table[i].weight : 0;
	if (!sum)
		return FAULT_COUNT;
	pick = program_below(program, sum);
	for (unsigned i = 0; i < FAULT_COUNT; i++) {
		unsigned weight = may_be(program, i) ? fault_table[i].weight : 0;
		if (pick < weight)
			return i;
		pick -= weight;
	}
	return FAULT_COUNT;
}

bool faults_begin(struct program *program)
{
	enum fault_kind kind = pick_kind(program);
	const struct fault_row *row = &fault_table[kind];
	struct fault fault = {.kind = kind};
	unsigned count = program->herd->node_count;

	if (kind == FAULT_COUNT || program->fault_count == FAULTS_MAX)
		return false;
	if (!(row->flags & FAULT_OF_NODE) && ways[kind].end && is_running(program, kind))
		return false;
	fault.node = (unsigned)program_below(program, count);
	fault.other = (fault.node + 1 + (unsigned)program_below(program, count - 1)) % count;
	if (row->flags & FAULT_OF_VICTIM)
		fault.node = (unsigned)program->victim;
	if (row->flags & FAULT_OF_NODE && !pick_well(program, &fault.node))
		return false;
	if (row->flags & FAULT_OF_VICTIM && !faults_is_well(program, fault.node))
		return false;
	if (!ways[kind].begin(program, &fault))
		return false;
	program->figures->faults[kind]++;
	fault.end_ns =
		sim_now(program->herd->world) +
		NS_PER_MS * (row->min_ms + program_below(program, row->max_ms - row->min_ms + 1));
	program_trace(program, "fault %s: %s, %s, until %.6f", row->name,
		      program->herd->nodes[fault.node].name, program->herd->nodes[fault.other].name,
		      (double)fault.end_ns / 1e9);
	if (ways[kind].end)
		program->faults[program->fault_count++] = fault;
	return true;
}

static void end_one(struct program *program, unsigned index)
{
	struct fault fault = program->faults[index];

	program->faults[index] = program->faults[--program->fault_count];
	program_trace(program, "fault %s of %s ends", fault_table[fault.kind].name,
		      program->herd->nodes[fault.node].name);
	ways[fault.kind].end(program, &fault);
	program->well_ns[fault.node] = sim_now(program->herd->world);
}

void faults_tick(struct program *program)
{
	for (unsigned i = 0; i < program->herd->node_count; i++)
		tell_replaced(program, i);
	if (!is_running(program, FAULT_SETTING))
		mend_settings(program);
	for (unsigned i = 0; i < program->fault_count;) {
		if (program->faults[i].end_ns <= sim_now(program->herd->world))
			end_one(program, i);
		else
			i++;
	}
}

void faults_heal(struct program *program)
{
	while (program->fault_count)
		end_one(program, 0);
	for (unsigned i = 0; i < program->herd->node_count; i++) {
		sim_host_forget_faults(program->herd->nodes[i].host);
		if (program->was_added[i])
			faults_start_node(program, i);
	}
}

uint64_t faults_next_end(const struct program *program)
{
	uint64_t next = UINT64_MAX;

	for (unsigned i = 0; i < program->fault_count; i++)
		next = min_of(next, program->faults[i].end_ns);
	return next;
}
