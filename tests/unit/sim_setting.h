/* Three simulated hosts with a loop each, and operations on them that are waited for: for tests of the simulator. */
#ifndef TESTS_UNIT_SIM_SETTING_H
#define TESTS_UNIT_SIM_SETTING_H

#include "lib/base/size.h"
#include "tests/sim/sim.h"

#define SETTING_READ_WRITE (LOOP_FILE_READ | LOOP_FILE_WRITE)

struct setting {
	struct sim_world *world;
	struct sim_host *hosts[3];
	struct loop *loops[3];
};

struct call {
	struct loop_op op;
	int result;
	unsigned completions;
};

/* A loop on host @i, again after a crash. */
struct loop *setting_start(struct setting *s, unsigned i);
struct setting setting_new(uint64_t seed);
/* Its op, for a function of the loop to take. */
struct loop_op *call_begin(struct call *call);
/* Until it has ended. Returns its result. */
int setting_wait(struct setting *s, struct call *call);
void setting_run(struct setting *s, uint64_t ns);
/* At once; fails the test if it cannot. */
struct loop_file *setting_open(struct loop *loop, const char *path, unsigned flags);
/* A stream between two hosts: its ends there. */
void setting_connect(struct setting *s, unsigned from, unsigned to, struct loop_socket *out[2]);
/* Returns how much was taken. */
int setting_send(struct setting *s, unsigned host, struct loop_socket *socket, const char *text);

#endif
