/*
 * Faults at named points of the protocol.
 *
 * A strike waits for the nth time that some node comes to a point (SIM_POINT() in the code), and then,
 * at once or a moment later, does something to that node or to its way to another. So what is rarely
 * between two steps by chance is there often.
 */
#include "tests/sim/program.h"

#include "lib/base/log.h"
#include "lib/base/rule.h"
#include "lib/base/size.h"

/* The hook has no context: one program runs at a time. */
static struct strike *armed;

static struct herd_node *node_at(struct program *program, unsigned number)
{
	return &program->herd->nodes[number];
}

static bool is_of_node(enum strike_action action)
{
	return action == STRIKE_KILL || action == STRIKE_POWER || action == STRIKE_NAP ||
	       action == STRIKE_CUT_KILL || action == STRIKE_CHAIN;
}

bool strike_has_node(const struct program *program, unsigned node)
{
	const struct strike *strike = &program->strike;

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
	strike->has_struck = true;
	program_trace(program, "strike %u at %s (%s): %s", strike->action,
		      sim_point_table[strike->point].name, node->name, other->name);
	switch (strike->action) {
	case STRIKE_KILL:
	case STRIKE_OTHER:
		herd_kill(program->herd, victim, SIM_DEATH_CERTAIN);
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

/* Inside a turn of the node: what is done is done after it. */
static void on_point(enum sim_point point)
{
	struct strike *strike = armed;
	struct logger *logger = log_current();
	const struct herd_node *node = logger ? logger->context : NULL;

	if (!strike || !strike->is_armed || point != strike->point || !node ||
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

bool strike_begin(struct program *program)
{
	struct strike *strike = &program->strike;
	unsigned point = (unsigned)program_below(program, SIM_POINT_COUNT);
	bool is_common = point == SIM_POINT_ENTRY_SUBMITTED || point == SIM_POINT_ENTRY_COMMITTED ||
			 point == SIM_POINT_ENTRY_APPLIED;

	*strike = (struct strike){
		.program = program,
		.is_armed = true,
		.point = point,
		.countdown = 1 + (unsigned)program_below(program, is_common ? 100 : 4),
		.action = (enum strike_action)program_below(program, STRIKE_ACTIONS),
		.other = (unsigned)program_below(program, program->herd->node_count),
		.delay_ns = program_below(program, 2) ? 1 : program_below(program, 2 * NS_PER_MS),
		.length_ns = NS_PER_MS * (1 + program_below(program, 180)),
	};
	armed = strike;
	sim_point_hook = on_point;
	return true;
}

void strike_end(struct program *program)
{
	struct strike *strike = &program->strike;

	sim_unschedule(program->herd->world, &strike->event);
	armed = NULL;
	if (strike->has_struck) {
		heal(&strike->event);
		strike->has_struck = false;
		faults_start_node(program, strike->node);
		if (strike->action == STRIKE_OTHER)
			faults_start_node(program, strike->other);
		if (strike->action == STRIKE_CHAIN)
			faults_start_node(program, strike->third);
	}
	strike->is_armed = false;
}
