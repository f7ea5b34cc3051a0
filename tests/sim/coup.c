/*
 * A coup: a primary is silenced as it comes to a state, others take over, and the floor moves meanwhile.
 *
 *   ARMED --a node comes to the point--> SILENT --somebody asks for a takeover--> ASKED --its end--> over
 *
 * With a floor that is lower than usual the old primary is put out, and wakes up as nobody. With one that
 * is raised between the proposal and its commit it stays listed, and wakes up as a member of what it
 * led. In what state it was when it fell silent is for the point to say.
 */
#include "tests/sim/faults_priv.h"

#include "lib/base/log.h"
#include "lib/base/rule.h"
#include "lib/base/size.h"

/* The hook has no context: one program runs at a time. */
static struct coup *armed;

bool coup_has_node(const struct program *program, unsigned node)
{
	const struct coup *coup = &program->coup;

	return (coup->state >= COUP_SILENT && coup->node == node) ||
	       (coup->state != COUP_OVER && coup->killed == (int)node);
}

/* By the first other node that is up. */
static void set_floor(struct coup *coup, unsigned but, uint32_t floor)
{
	struct herd *herd = coup->program->herd;

	for (unsigned i = 1; i < herd->node_count; i++) {
		struct herd_node *node = &herd->nodes[(but + i) % herd->node_count];
		if (!node->is_up)
			continue;
		herd_propose_by(node, cluster_command_policy(0, LOG_POLICY_KEEP, floor));
		return;
	}
}

static const char *const way_names[COUP_WAYS] = {"paused", "isolated", "deaf"};

static void silence(struct coup *coup)
{
	struct herd *herd = coup->program->herd;
	struct herd_node *node = &herd->nodes[coup->node];

	if (coup->way == COUP_PAUSED)
		sim_host_pause(node->host);
	if (coup->way == COUP_ISOLATED)
		sim_engine_set_cut(node->engine, true);
	for (unsigned i = 0; coup->way != COUP_PAUSED && i < herd->node_count; i++) {
		if (i != coup->node)
			sim_link_cut(herd->nodes[i].host, node->host);
		if (i != coup->node && coup->way == COUP_ISOLATED)
			sim_link_cut(node->host, herd->nodes[i].host);
	}
}

static void end_silence(struct coup *coup)
{
	struct herd *herd = coup->program->herd;
	struct herd_node *node = &herd->nodes[coup->node];

	if (coup->way == COUP_PAUSED)
		sim_host_resume(node->host);
	if (coup->way == COUP_ISOLATED && node->is_up)
		sim_engine_set_cut(node->engine, false);
	for (unsigned i = 0; coup->way != COUP_PAUSED && i < herd->node_count; i++)
		if (i != coup->node)
			sim_unpartition(node->host, herd->nodes[i].host);
}

static void on_silenced(struct sim_event *event)
{
	struct coup *coup = container_of_type(event, struct coup, event);
	struct program *program = coup->program;

	if (!faults_is_well(program, coup->node) && coup->killed != (int)coup->node) {
		coup->state = COUP_ARMED;
		return;
	}
	coup->state = COUP_SILENT;
	program_trace(program, "coup at %s: %s is %s", sim_point_table[coup->point].name,
		      program->herd->nodes[coup->node].name, way_names[coup->way]);
	silence(coup);
	if (coup->is_lowered)
		set_floor(coup, coup->node, program->victim < 0 ? 1 : 2);
}

static void on_asked(struct sim_event *event)
{
	struct coup *coup = container_of_type(event, struct coup, event);

	program_trace(coup->program, "coup: %s asked to lead",
		      coup->program->herd->nodes[coup->by].name);
	if (coup->is_raised)
		set_floor(coup, coup->node, coup->program->copies);
}

static void act_later(struct coup *coup, void (*run)(struct sim_event *event))
{
	coup->event.run = run;
	sim_schedule(coup->program->herd->world, &coup->event,
		     sim_now(coup->program->herd->world) + 1);
}

void coup_on_point(enum sim_point point)
{
	struct logger *logger = log_current();
	const struct herd_node *node = logger ? logger->context : NULL;
	struct coup *coup = armed;

	if (!coup || !node)
		return;
	if (coup->state == COUP_ARMED && point == coup->point && --coup->countdown == 0) {
		coup->countdown = 1;
		coup->state = COUP_BEGUN;
		coup->node = node->number;
		act_later(coup, on_silenced);
	} else if (coup->state == COUP_SILENT && point == SIM_POINT_TAKEOVER_PROPOSED &&
		   node->number != coup->node) {
		coup->state = COUP_ASKED;
		coup->by = node->number;
		act_later(coup, on_asked);
	}
}

/*
 * From the log a primary learns of its end in the state in which it fell silent if it does not see what comes
 * between. FENCED ends with time: only who is deaf is taken over sooner.
 */
static const struct coup_row {
	enum sim_point point;
	enum coup_way ways[2];
} rows[] = {
	{SIM_POINT_LEADS, {COUP_PAUSED, COUP_DEAF}},
	{SIM_POINT_FENCED, {COUP_DEAF, COUP_DEAF}},
	{SIM_POINT_SERVING, {COUP_PAUSED, COUP_ISOLATED}},
	{SIM_POINT_WAITING, {COUP_PAUSED, COUP_ISOLATED}},
	{SIM_POINT_WAITING, {COUP_PAUSED, COUP_PAUSED}},
	{SIM_POINT_LEAVING, {COUP_PAUSED, COUP_ISOLATED}},
	{SIM_POINT_ENTRY_SUBMITTED, {COUP_ISOLATED, COUP_DEAF}},
};

/* One is dead by now, and dropped: with this floor its groups wait. */
static void on_cause(struct sim_event *event)
{
	struct coup *coup = container_of_type(event, struct coup, cause);

	if (coup->state == COUP_ARMED)
		set_floor(coup, (unsigned)coup->killed, coup->program->copies);
}

/* Somebody leads, waits or is fenced because another one dies. */
static void kill_one(struct coup *coup)
{
	struct program *program = coup->program;

	coup->killed = faults_kill(program, -1,
				   coup->point == SIM_POINT_FENCED ? SIM_DEATH_UNKNOWN
								   : SIM_DEATH_CERTAIN);
	if (coup->killed < 0)
		return;
	if (coup->point == SIM_POINT_FENCED) /* from its own earlier start */
		faults_start_node(program, (unsigned)coup->killed);
	coup->cause.run = on_cause;
	if (coup->point == SIM_POINT_WAITING)
		sim_schedule(program->herd->world, &coup->cause,
			     sim_now(program->herd->world) + 50 * NS_PER_MS);
}

bool coup_begin(struct program *program)
{
	const struct coup_row *row = &rows[program_below(program, ARRAY_COUNT(rows))];
	struct coup *coup = &program->coup;

	if (program->herd->has_no_notes && program_below(program, 2))
		row = &rows[1]; /* there it is where restarts lead to */
	*coup = (struct coup){
		.program = program,
		.state = COUP_ARMED,
		.killed = -1,
		.point = row->point,
		.countdown =
			1 + (unsigned)program_below(
				    program, row->point == SIM_POINT_ENTRY_SUBMITTED ? 100 : 2),
		.way = row->ways[program_below(program, 2)],
		.is_lowered = program_below(program, 4) > 0 || row->point == SIM_POINT_WAITING,
		.is_raised = program_below(program, 3) > (row->point == SIM_POINT_WAITING),
	};
	armed = coup;
	if (coup->countdown == 1)
		kill_one(coup);
	return true;
}

void coup_end(struct program *program)
{
	struct coup *coup = &program->coup;

	sim_unschedule(program->herd->world, &coup->event);
	sim_unschedule(program->herd->world, &coup->cause);
	armed = NULL;
	if (coup->state >= COUP_SILENT)
		end_silence(coup);
	coup->state = COUP_OVER;
	if (coup->killed >= 0)
		faults_start_node(program, (unsigned)coup->killed);
}
