/* The tables of rules and points. Only the simulator's build has them. */
#include "lib/base/rule.h"

#ifdef SHEEPFOLD_MUTATIONS

#include <strings.h>

struct rule_row rule_table[RULE_COUNT] = {
#define RULE_ROW(name, text) [RULE_##name] = {#name, text, false, false},
	RULE_LIST(RULE_ROW)
#undef RULE_ROW
};

struct sim_point_row sim_point_table[SIM_POINT_COUNT] = {
#define SIM_POINT_ROW(name, text) [SIM_POINT_##name] = {#name, text, 0},
	SIM_POINT_LIST(SIM_POINT_ROW)
#undef SIM_POINT_ROW
};

void (*sim_point_hook)(enum sim_point point);
void (*sim_subject_hook)(enum sim_point point, const void *subject);

bool rule_switch_off(const char *name)
{
	for (unsigned i = 0; i < RULE_COUNT; i++)
		if (strcasecmp(rule_table[i].name, name) == 0) {
			rule_table[i].is_off = true;
			return true;
		}
	return false;
}

void rule_switch_all_on(void)
{
	for (unsigned i = 0; i < RULE_COUNT; i++)
		rule_table[i].is_off = false;
}

enum sim_point sim_point_by_name(const char *name)
{
	unsigned i = 0;

	while (i < SIM_POINT_COUNT && strcasecmp(sim_point_table[i].name, name) != 0)
		i++;
	return (enum sim_point)i;
}

void sim_point_hit(enum sim_point point)
{
	sim_point_table[point].hits++;
	if (sim_point_hook)
		sim_point_hook(point);
}

void sim_subject_hit(enum sim_point point, const void *subject)
{
	sim_point_hit(point);
	if (sim_subject_hook)
		sim_subject_hook(point, subject);
}

#endif
