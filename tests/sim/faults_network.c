/* Faults of the network, and of the log. */
#include "tests/sim/faults_priv.h"

#include "lib/base/size.h"

/* ---- the network ---- */

static bool begin_cut(struct program *program, struct fault *fault)
{
	sim_partition(fault_host_of(program, fault), program->herd->nodes[fault->other].host);
	return true;
}

static bool begin_cut_one_way(struct program *program, struct fault *fault)
{
	sim_link_cut(fault_host_of(program, fault), program->herd->nodes[fault->other].host);
	return true;
}

static void end_cut(struct program *program, struct fault *fault)
{
	sim_unpartition(fault_host_of(program, fault), program->herd->nodes[fault->other].host);
}

static bool begin_isolate(struct program *program, struct fault *fault)
{
	for (unsigned i = 0; i < program->herd->node_count; i++)
		if (i != fault->node)
			sim_partition(fault_host_of(program, fault), program->herd->nodes[i].host);
	sim_engine_set_cut(fault_node_of(program, fault)->engine, true);
	return true;
}

static void end_isolate(struct program *program, struct fault *fault)
{
	for (unsigned i = 0; i < program->herd->node_count; i++)
		if (i != fault->node)
			sim_unpartition(fault_host_of(program, fault),
					program->herd->nodes[i].host);
	if (fault_node_of(program, fault)->is_up)
		sim_engine_set_cut(fault_node_of(program, fault)->engine, false);
}

static bool begin_reset(struct program *program, struct fault *fault)
{
	sim_reset_streams(fault_host_of(program, fault), program->herd->nodes[fault->other].host);
	return true;
}

static void set_delay(struct program *program, struct fault *fault, uint64_t min_ns,
		      uint64_t max_ns)
{
	sim_link_set_delay(fault_host_of(program, fault), program->herd->nodes[fault->other].host,
			   min_ns, max_ns);
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
	sim_engine_set_cut(fault_node_of(program, fault)->engine, true);
	return true;
}

static void end_log_cut(struct program *program, struct fault *fault)
{
	if (fault_node_of(program, fault)->is_up)
		sim_engine_set_cut(fault_node_of(program, fault)->engine, false);
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

static bool begin_strike(struct program *program, struct fault *fault)
{
	return strike_begin(program);
}

static void end_strike(struct program *program, struct fault *fault)
{
	strike_end(program);
}

static bool begin_coup(struct program *program, struct fault *fault)
{
	return !faults_is_running(program, FAULT_FLOOR) && coup_begin(program);
}

static void end_coup(struct program *program, struct fault *fault)
{
	coup_end(program);
}

const struct fault_way faults_of_network[FAULT_COUNT] = {
	[FAULT_CUT] = {begin_cut, end_cut},
	[FAULT_CUT_ONE_WAY] = {begin_cut_one_way, end_cut},
	[FAULT_ISOLATE] = {begin_isolate, end_isolate},
	[FAULT_RESET] = {begin_reset, NULL},
	[FAULT_DELAY] = {begin_delay, end_delay},
	[FAULT_CLOG] = {begin_clog, end_delay},
	[FAULT_LOG_DELAY] = {begin_log_delay, end_log_delay},
	[FAULT_LOG_CUT] = {begin_log_cut, end_log_cut},
	[FAULT_QUORUM] = {begin_quorum, end_quorum},
	[FAULT_STRIKE] = {begin_strike, end_strike},
	[FAULT_COUP] = {begin_coup, end_coup},
};
