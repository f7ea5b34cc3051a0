/*
 * Faults at named points of the protocol.
 *
 * A strike waits for the nth time that some node comes to a point (SIM_POINT() in the code), and then,
 * at once or a moment later, does something to that node or to its way to another. So what is rarely
 * between two steps by chance is there often.
 */
#include "tests/sim/faults_priv.h"

#include "lib/base/log.h"
#include "lib/base/rule.h"
#include "lib/base/size.h"

#define SLOW_NS (15 * NS_PER_MS)

/* The hook has no context: one program runs at a time. */
static struct strike *armed;

static struct herd_node *node_at(struct program *program, unsigned number)
{
	return &program->herd->nodes[number];
}

static bool is_of_node(enum strike_action action)
{
	return action == STRIKE_KILL || action == STRIKE_POWER || action == STRIKE_NAP ||
	       action == STRIKE_CUT_KILL || action == STRIKE_CHAIN || action == STRIKE_EIO;
}

bool strike_has_node(const struct program *program, unsigned node)
{
	const struct strike *strike = &program->strike;

	if (strike->killed == (int)node)
		return true;
	if (!strike->has_struck)
		return false;
	return (is_of_node(strike->action) && strike->node == node) ||
	       (strike->action == STRIKE_OTHER && strike->other == node) ||
	       (strike->action == STRIKE_CHAIN && strike->third == node);
}

/* ---- doing it ---- */

static void cut_power(struct program *program, unsigned node)
{
	if (faults_others_hold(program, node))
		herd_cut_power(program->herd, node, SIM_DEATH_CERTAIN,
			       program_below(program, 2) ? SIM_DROP_UNSYNCED : SIM_RANDOM_UNSYNCED);
	else
		herd_kill(program->herd, node, SIM_DEATH_CERTAIN);
}

static void heal(struct sim_event *event)
{
	struct strike *strike = container_of_type(event, struct strike, event);
	struct program *program = strike->program;

	sim_unpartition(node_at(program, strike->node)->host,
			node_at(program, strike->other)->host);
	sim_host_resume(node_at(program, strike->node)->host);
}

static void kill_up(struct program *program, unsigned node)
{
	if (node_at(program, node)->is_up)
		herd_kill(program->herd, node, SIM_DEATH_CERTAIN);
}

/* What comes after the cut. */
static void step(struct sim_event *event)
{
	struct strike *strike = container_of_type(event, struct strike, event);
	struct program *program = strike->program;

	if (strike->step++ == 0) {
		kill_up(program, strike->node);
		heal(event);
		if (strike->action == STRIKE_CHAIN)
			sim_schedule(program->herd->world, event,
				     sim_now(program->herd->world) + strike->length_ns);
		return;
	}
	kill_up(program, strike->third);
}

/* Its store stops, and is unclean: not where somebody else may have nothing but damaged blocks. */
static bool fail_disk(struct program *program, unsigned number)
{
	struct sim_host *host = node_at(program, number)->host;

	if (program->victim >= 0 && !faults_others_hold(program, number))
		return false;
	(void)sim_host_fault(host, LOOP_OP_SYNC, 1, SIM_FAULT_EIO);
	return sim_host_fault(host, LOOP_OP_WRITE, 1, SIM_FAULT_EIO) == 0;
}

/* Of its ways to and from all others. */
static void set_delays(struct program *program, unsigned number, uint64_t min_ns)
{
	struct sim_host *host = node_at(program, number)->host;

	for (unsigned i = 0; i < program->herd->node_count; i++) {
		struct sim_host *other = node_at(program, i)->host;
		if (i == number)
			continue;
		sim_link_set_delay(host, other, min_ns, 3 * min_ns);
		sim_link_set_delay(other, host, min_ns, 3 * min_ns);
	}
}

static void hit(struct sim_event *event)
{
	struct strike *strike = container_of_type(event, struct strike, event);
	struct program *program = strike->program;
	struct herd_node *node = node_at(program, strike->node);
	struct herd_node *other = node_at(program, strike->other);
	unsigned victim = strike->action == STRIKE_OTHER ? strike->other : strike->node;

	if (!faults_is_well(program, victim) ||
	    (strike->action == STRIKE_CHAIN && !faults_is_well(program, strike->third)))
		return;
	if (strike->action == STRIKE_DAMAGE && !faults_damage_victim(program))
		return;
	if (strike->action == STRIKE_DAMAGE && strike->point == SIM_POINT_LEADS)
		herd_propose(program->herd,
			     cluster_command_policy(0, LOG_POLICY_KEEP, program->copies));
	if (strike->action == STRIKE_EIO && !fail_disk(program, victim))
		return;
	strike->has_struck = true;
	program_trace(program, "strike %u at %s (%s): %s", strike->action,
		      sim_point_table[strike->point].name, node->name, other->name);
	switch (strike->action) {
	case STRIKE_KILL:
	case STRIKE_OTHER:
		herd_kill(program->herd, victim, SIM_DEATH_CERTAIN);
		return;
	case STRIKE_EIO:
		set_delays(program, strike->node, SLOW_NS);
		workload_burst(program->workload); /* so that it writes before it goes on */
		return;
	case STRIKE_DAMAGE:
		return;
	case STRIKE_POWER:
		cut_power(program, victim);
		return;
	case STRIKE_NAP:
		sim_host_pause(node->host);
		break;
	case STRIKE_CUT:
		sim_link_cut(node->host, other->host);
		break;
	case STRIKE_CUT_KILL:
	case STRIKE_CHAIN:
		sim_link_cut(node->host, other->host);
		strike->event.run = step;
		sim_schedule(program->herd->world, &strike->event,
			     sim_now(program->herd->world) + strike->length_ns);
		return;
	case STRIKE_DEAFEN:
		sim_link_cut(other->host, node->host);
		break;
	case STRIKE_RESET:
	case STRIKE_ACTIONS:
		sim_reset_streams(node->host, other->host);
		return;
	}
	strike->event.run = heal;
	sim_schedule(program->herd->world, &strike->event,
		     sim_now(program->herd->world) + strike->length_ns);
}

static bool is_victim_joining(struct program *program)
{
	const struct herd_node *node = node_at(program, (unsigned)program->victim);
	const struct cluster_map *map = herd_map(program->herd);
	const struct cluster_pg *row;

	for (uint32_t from = 0; node->is_up && (row = cluster_pg_next(map, from));
	     from = row->id + 1)
		if (cluster_pg_join(row, node->store_id))
			return true;
	return false;
}

/* Inside a turn of the node: what is done is done after it. */
void strike_on_point(enum sim_point point)
{
	struct strike *strike = armed;
	struct logger *logger = log_current();
	const struct herd_node *node = logger ? logger->context : NULL;

	if (!strike || !strike->is_armed || point != strike->point || !node ||
	    (strike->is_of_victim && (int)node->number != strike->program->victim) ||
	    (strike->is_of_joining && !is_victim_joining(strike->program)) ||
	    --strike->countdown > 0)
		return;
	strike->is_armed = false;
	strike->node = node->number;
	if (strike->other == strike->node)
		strike->other = (strike->other + 1) % strike->program->herd->node_count;
	strike->third = strike->node;
	while (strike->third == strike->node || strike->third == strike->other)
		strike->third = (strike->third + 1) % strike->program->herd->node_count;
	strike->event.run = hit;
	sim_schedule(strike->program->herd->world, &strike->event,
		     sim_now(strike->program->herd->world) + strike->delay_ns);
}

/* ---- arming it ---- */

/* Where damage and failing disks are worth most. */
static const enum sim_point damage_points[] = {
	SIM_POINT_LEADS,     SIM_POINT_LEADS,	     SIM_POINT_TAIL_TOLD,
	SIM_POINT_PUSH_DONE, SIM_POINT_SEAL_COUNTED, SIM_POINT_SEAL_COUNTED,
};
static const enum sim_point eio_points[] = {SIM_POINT_FENCED, SIM_POINT_WAITING, SIM_POINT_LEAVING,
					    SIM_POINT_LEADS};

static void choose_point(struct program *program, struct strike *strike)
{
	if (program->victim >= 0 && program_below(program, 4) == 0)
		strike->action = STRIKE_DAMAGE;
	if (strike->action == STRIKE_DAMAGE && program->victim < 0)
		strike->action = STRIKE_KILL;
	if (strike->action == STRIKE_DAMAGE) {
		strike->point = damage_points[program_below(program, ARRAY_COUNT(damage_points))];
		strike->is_of_victim =
			strike->point == SIM_POINT_LEADS || strike->point == SIM_POINT_TAIL_TOLD;
		strike->is_of_joining = !strike->is_of_victim;
		strike->delay_ns = 1;
	} else if (strike->action == STRIKE_EIO && program->herd->has_no_notes) {
		strike->point = SIM_POINT_FENCED;
	} else if (strike->action == STRIKE_EIO && program_below(program, 2)) {
		strike->point = eio_points[program_below(program, ARRAY_COUNT(eio_points))];
	}
	strike->countdown = 1 + (unsigned)program_below(program, 4);
	if (strike->point == SIM_POINT_ENTRY_SUBMITTED ||
	    strike->point == SIM_POINT_ENTRY_COMMITTED || strike->point == SIM_POINT_ENTRY_APPLIED)
		strike->countdown = 1 + (unsigned)program_below(program, 100);
}

static void on_restart(struct sim_event *event)
{
	struct strike *strike = container_of_type(event, struct strike, restart);

	faults_start_node(strike->program, (unsigned)strike->killed);
	strike->killed = -1;
	workload_burst(strike->program->workload);
}

/* The primary that is to die sends to the victim and to nobody else: what it has then is in doubt. */
static void tell_victim_only(struct strike *strike, bool is_cut)
{
	struct program *program = strike->program;
	struct sim_host *from = node_at(program, (unsigned)strike->killed)->host;

	for (unsigned i = 0; i < program->herd->node_count; i++) {
		if ((int)i == program->victim || (int)i == strike->killed)
			continue;
		if (is_cut)
			sim_link_cut(from, node_at(program, i)->host);
		else
			sim_link_heal(from, node_at(program, i)->host);
	}
}

static void on_kill(struct sim_event *event)
{
	struct strike *strike = container_of_type(event, struct strike, restart);

	tell_victim_only(strike, false);
	kill_up(strike->program, (unsigned)strike->killed);
}

/* A node that leads where the victim is in sync, and is well. -1: there is none. */
static int primary_over_victim(struct program *program)
{
	const struct herd_node *node = node_at(program, (unsigned)program->victim);
	const struct cluster_map *map = herd_map(program->herd);
	const struct cluster_pg *row;
	uint64_t count = 0;
	int found = -1;

	for (uint32_t from = 0; map && (row = cluster_pg_next(map, from)); from = row->id + 1) {
		const struct cluster_seat *seat = cluster_pg_seat(row, node->store_id);
		int primary = herd_primary(program->herd, row->id);
		if (seat && !seat->flags && primary >= 0 && primary != program->victim &&
		    faults_is_well(program, (unsigned)primary) &&
		    program_below(program, ++count) == 0)
			found = primary;
	}
	return found;
}

/* The victim is to be filled, or to lead in place of another one. */
static void cause(struct strike *strike)
{
	struct program *program = strike->program;

	uint64_t delay_ms = 100 + program_below(program, 200);

	workload_burst(program->workload);
	if (strike->is_of_joining) {
		bool can_be_unclean = faults_others_hold(program, (unsigned)program->victim);
		strike->killed = faults_kill(program, program->victim, SIM_DEATH_CERTAIN);
		strike->restart.run = on_restart;
		if (strike->killed < 0)
			return;
		/* Else it would be in sync at once where nobody was written to meanwhile. */
		if (can_be_unclean)
			node_at(program, (unsigned)strike->killed)->was_cut = true;
		set_delays(program, (unsigned)strike->killed, SLOW_NS / 3);
	} else {
		strike->killed = primary_over_victim(program);
		if (strike->killed >= 0)
			tell_victim_only(strike, true);
		strike->restart.run = on_kill;
		delay_ms = 5 + program_below(program, 60);
	}
	if (strike->killed >= 0)
		sim_schedule(program->herd->world, &strike->restart,
			     sim_now(program->herd->world) + delay_ms * NS_PER_MS);
}

bool strike_begin(struct program *program)
{
	struct strike *strike = &program->strike;

	*strike = (struct strike){
		.program = program,
		.is_armed = true,
		.killed = -1,
		.point = (unsigned)program_below(program, SIM_POINT_COUNT),
		.action = (enum strike_action)program_below(program, STRIKE_ACTIONS),
		.other = (unsigned)program_below(program, program->herd->node_count),
		.delay_ns = program_below(program, 2) ? 1 : program_below(program, 2 * NS_PER_MS),
		.length_ns = NS_PER_MS * (1 + program_below(program, 180)),
	};
	choose_point(program, strike);
	armed = strike;
	program_trace(program, "strike %u waits for %s", strike->action,
		      sim_point_table[strike->point].name);
	if (strike->action == STRIKE_DAMAGE)
		cause(strike);
	return true;
}

void strike_end(struct program *program)
{
	struct strike *strike = &program->strike;

	sim_unschedule(program->herd->world, &strike->event);
	sim_unschedule(program->herd->world, &strike->restart);
	armed = NULL;
	if (strike->is_of_joining)
		set_delays(program, (unsigned)program->victim, 50 * NS_PER_US);
	if (strike->killed >= 0) {
		tell_victim_only(strike, false);
		faults_start_node(program, (unsigned)strike->killed);
	}
	strike->killed = -1;
	if (strike->has_struck) {
		heal(&strike->event);
		strike->has_struck = false;
		faults_start_node(program, strike->node);
		if (strike->action == STRIKE_EIO) {
			sim_host_forget_faults(node_at(program, strike->node)->host);
			set_delays(program, strike->node, 50 * NS_PER_US);
			faults_restart_if_failed(program, strike->node);
		}
		if (strike->action == STRIKE_OTHER)
			faults_start_node(program, strike->other);
		if (strike->action == STRIKE_CHAIN)
			faults_start_node(program, strike->third);
	}
	strike->is_armed = false;
}
